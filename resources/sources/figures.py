"""The figures of the sample course: circuits drawn with schemdraw, curves with matplotlib.

Every figure is a function without arguments that returns a PNG; `FIGURES` names them as the
Markdown sources do.
"""

from collections.abc import Callable
from io import BytesIO

import matplotlib
import numpy as np
import schemdraw
import schemdraw.elements as elm
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.use("Agg")
matplotlib.rcParams.update(
    {
        "font.family": "STIXGeneral",
        "mathtext.fontset": "stix",
        "font.size": 11,
        "axes.formatter.use_locale": False,
        "axes.grid": True,
        "grid.color": "#d5dbe1",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)

INK = "#1f3a5f"
SECOND_INK = "#b5532a"
DPI = 190
# Without it matplotlib writes its version into the file, which then changes with every update.
NO_METADATA = {"Software": None}


def _curve(
    x_label: str, y_label: str, draw: Callable[[Axes], None], size: tuple[float, float] = (4.6, 2.7)
) -> bytes:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    # Numbers on the axes carry the decimal comma, as in the text around them.
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}".replace(".", ",").replace("-", "−"))
    png = BytesIO()
    figure.savefig(png, format="png", dpi=DPI, metadata=NO_METADATA)
    return png.getvalue()


def diode_curve() -> bytes:
    """Current of a silicon diode (0.7 V at 10 mA) and its constant-drop model."""

    def draw(axes: Axes) -> None:
        voltage = np.linspace(0, 0.76, 400)
        current = 10 * np.exp((voltage - 0.7) / 0.026)
        axes.plot(voltage, current, color=INK, label="Ecuación 2.1")
        axes.plot([0, 0.7, 0.7], [0, 0, 40], color=SECOND_INK, linestyle="--", label="0,7 V fijos")
        axes.set_xlim(0, 0.85)
        axes.set_ylim(-1, 40)
        axes.legend(frameon=False)

    return _curve("$V_D$ (V)", "$I_D$ (mA)", draw)


def ripple() -> bytes:
    """Bridge output with 2200 uF and 200 mA, and without the filter."""

    def draw(axes: Axes) -> None:
        time = np.linspace(0, 0.04, 4000)
        rectified = np.maximum(16.97 * np.abs(np.sin(2 * np.pi * 50 * time)) - 1.4, 0)
        filtered = np.empty_like(rectified)
        level = 0.0
        step = time[1] - time[0]
        for i, value in enumerate(rectified):
            level = max(value, level - 0.2 / 2200e-6 * step)
            filtered[i] = level
        axes.plot(time * 1e3, rectified, color=SECOND_INK, linestyle="--", label="Sin filtro")
        axes.plot(time * 1e3, filtered, color=INK, label="Con 2200 μF")
        axes.set_ylim(0, 21)
        axes.legend(frameon=False, ncols=2, loc="upper center")

    return _curve("$t$ (ms)", "$v$ (V)", draw)


def jfet_curve() -> bytes:
    """Transfer curve of the JFET with I_DSS = 10 mA and V_P = -4 V."""

    def draw(axes: Axes) -> None:
        voltage = np.linspace(-4, 0, 200)
        axes.plot(voltage, 10 * (1 + voltage / 4) ** 2, color=INK)
        axes.plot(-2, 2.5, "o", color=SECOND_INK)
        axes.annotate("$V_P/2$, $I_{DSS}/4$", (-2, 2.5), (-3.3, 4.6), color=SECOND_INK)

    return _curve("$V_{GS}$ (V)", "$I_D$ (mA)", draw, (4.6, 2.5))


def load_line() -> bytes:
    """Load line of the voltage-divider stage: 12 V, 4.3 kOhm in series, Q at 5.08 V."""

    def draw(axes: Axes) -> None:
        # The intercept uses R_C + R_E / alpha, so that the line meets the exact Q.
        axes.plot([0, 12], [12 / 4.31, 0], color=INK)
        axes.plot(5.08, 1.605, "o", color=SECOND_INK)
        axes.annotate("Q (5,08 V; 1,61 mA)", (5.08, 1.605), (5.5, 1.75), color=SECOND_INK)
        axes.set_xlim(0, 13)
        axes.set_ylim(0, 3.2)

    return _curve("$V_{CE}$ (V)", "$I_C$ (mA)", draw, (4.6, 2.4))


def _circuit(draw: Callable[[schemdraw.Drawing], None]) -> bytes:
    drawing = schemdraw.Drawing(show=False)
    drawing.config(unit=2.2, inches_per_unit=0.38, fontsize=11, font="STIXGeneral", lw=1)
    draw(drawing)
    figure = drawing.draw(show=False, canvas="matplotlib").getfig()
    png = BytesIO()
    figure.savefig(png, format="png", dpi=DPI, bbox_inches="tight", metadata=NO_METADATA)
    return png.getvalue()


def half_wave() -> bytes:
    """Half-wave rectifier."""

    def draw(d: schemdraw.Drawing) -> None:
        d += (source := elm.SourceSin().up().label("$v_s$"))
        d += elm.Diode().right().label("$D$")
        d += elm.Resistor().down().label("$R_L$", loc="bottom").label(("+", "$v_o$", "−"))
        d += elm.Line().to(source.start)
        d += elm.Ground()

    return _circuit(draw)


def bridge() -> bytes:
    """Bridge rectifier with filter capacitor and load."""

    def draw(d: schemdraw.Drawing) -> None:
        # The rectifier is drawn as a diamond: AC left and right, DC top and bottom.
        d += (d1 := elm.Diode().theta(45).label("$D_1$"))
        d += elm.Diode().theta(-45).reverse().label("$D_2$")
        right = d.here
        d += (d3 := elm.Diode().at(d1.start).theta(-45).reverse().label("$D_3$", loc="bottom"))
        d += elm.Diode().theta(45).label("$D_4$", loc="bottom")
        d += elm.Line().at(d1.start).left(1.2)
        d += elm.Line().down(3)
        d += elm.SourceSin().right(2 * 1.2 + right[0] - d1.start[0]).label("$v_s$", loc="bottom")
        d += elm.Line().toy(right)
        d += elm.Line().to(right)
        d += elm.Line().at(d1.end).right(4.2)
        d += elm.Dot()
        d.push()
        d += elm.Capacitor(polar=True).down().toy(d3.end).label("$C$", loc="bottom")
        d += elm.Dot()
        d.pop()
        d += elm.Line().right(1.8)
        d += elm.Resistor().down().toy(d3.end).label("$R_L$", loc="bottom")
        d += elm.Line().tox(d3.end)

    return _circuit(draw)


def zener() -> bytes:
    """Shunt regulator."""

    def draw(d: schemdraw.Drawing) -> None:
        d += (source := elm.SourceV().up().label("$V_E$"))
        d += elm.Resistor().right().label("$R_S$")
        d += elm.Dot()
        d.push()
        d += elm.Zener().down().reverse().label("$V_Z$", loc="bottom")
        d += elm.Dot()
        d.pop()
        d += elm.Line().right(1.8)
        d += elm.Resistor().down().label("$R_L$", loc="bottom")
        d += elm.Line().to(source.start)
        d += elm.Ground()

    return _circuit(draw)


def voltage_divider() -> bytes:
    """BJT biased by a voltage divider and an emitter resistor."""

    def draw(d: schemdraw.Drawing) -> None:
        d += (transistor := elm.BjtNpn(circle=True).anchor("base"))
        d += elm.Line().at(transistor.base).left(1.2)
        d += elm.Dot()
        base = d.here
        d += elm.Resistor().at(transistor.collector).up().label("$R_C$", loc="bottom")
        d += elm.Dot()
        top = d.here
        d += elm.Resistor().at(transistor.emitter).down().label("$R_E$", loc="bottom")
        d += elm.Ground()
        bottom = d.here
        d += elm.Resistor().at(base).up().toy(top).label("$R_1$")
        d += elm.Line().tox(top)
        d += elm.Vdd().at(top).label("$V_{CC}$")
        d += elm.Resistor().at(base).down().toy(bottom).label("$R_2$", loc="bottom")
        d += elm.Ground()

    return _circuit(draw)


def operational_amplifier() -> bytes:
    """Inverting (left) and non-inverting (right) amplifiers."""

    def draw(d: schemdraw.Drawing) -> None:
        d += (left := elm.Opamp(leads=True))
        d += elm.Line().at(left.in2).down(0.6)
        d += elm.Ground()
        d += elm.Resistor().at(left.in1).left().label("$R_1$")
        d += elm.Dot(open=True).label("$V_I$", loc="left")
        d += elm.Dot().at(left.in1)
        d += elm.Line().up(1.4)
        d += elm.Resistor().tox(left.out).label("$R_2$")
        d += elm.Line().toy(left.out)
        d += elm.Dot()
        d += elm.Line().right(0.5)
        d += elm.Dot(open=True).label("$V_O$", loc="right")

        d += (right := elm.Opamp(leads=True).at((8.8, left.in1[1])).anchor("in1"))
        d += elm.Line().at(right.in2).left(0.8)
        d += elm.Dot(open=True).label("$V_I$", loc="left")
        d += elm.Dot().at(right.in1)
        d += elm.Resistor().left().label("$R_1$")
        d += elm.Line().down(1.6)
        d += elm.Ground()
        d += elm.Line().at(right.in1).up(1.4)
        d += elm.Resistor().tox(right.out).label("$R_2$")
        d += elm.Line().toy(right.out)
        d += elm.Dot()
        d += elm.Line().right(0.5)
        d += elm.Dot(open=True).label("$V_O$", loc="right")

    return _circuit(draw)


FIGURES: dict[str, Callable[[], bytes]] = {
    "diodo-curva": diode_curve,
    "media-onda": half_wave,
    "puente": bridge,
    "rizado": ripple,
    "zener": zener,
    "divisor": voltage_divider,
    "recta-carga": load_line,
    "jfet-curva": jfet_curve,
    "operacional": operational_amplifier,
}
