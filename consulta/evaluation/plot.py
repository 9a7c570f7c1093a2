"""The main figures as one picture."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consulta.evaluation import metrics
from consulta.evaluation.baselines import PIECES_TAKEN
from consulta.evaluation.run import NAIVE, PRODUCT
from consulta.evaluation.table import (
    TITLES,
    Cell,
    Measured,
    evidence_of,
    false_answers,
    false_refusals,
    seconds_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {PRODUCT: "#1f5fa8", "bm25": "#8fb3d9", "dense": "#b9c3cc", NAIVE: "#dcb86f"}
_INK, _GRID, _ALARM = "#2b2f33", "#e4e7ea", "#c4472f"
_CUTS = (1, 2, 5)
_BINS = 30
_EXTENTS = (20, 50, 100)


def draw(path: Path, title: str, measured: Mapping[str, Measured]) -> None:
    """Write the picture as PNG.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    # Takes half a second and 40 MB, and few need it. Not pyplot: it keeps figures and windows.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {
        "font.family": ["DejaVu Sans"],
        "font.size": 10,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": "#9aa1a8",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "text.parse_math": False,
    }
    with rc_context(style):
        figure = Figure(figsize=(14, 4.8), dpi=140, facecolor="white")
        figure.set_layout_engine("constrained", w_pad=0.15, wspace=0.05)
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        left, middle, right = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
        _recall(left, measured)
        _errors(middle, measured[PRODUCT])
        _seconds(right, measured[PRODUCT])
        figure.savefig(path, format="png")


def _recall(axes: "Axes", measured: Mapping[str, Measured]) -> None:
    axes.set_title("Is the passage that answers found?")
    systems = {
        system: [record.ranks for _, record in results if record.ranks is not None]
        for system, results in measured.items()
    }
    systems = {system: ranks for system, ranks in systems.items() if ranks}
    if not systems:
        _say(axes, "The file names no document,\nanswer or evidence.")
        return
    width = 0.8 / len(systems)
    for number, (system, ranks) in enumerate(systems.items()):
        cuts = [cut for cut in _CUTS if system != NAIVE or cut <= PIECES_TAKEN]
        heights = [100 * metrics.mean([metrics.recall(r, cut) for r in ranks]) for cut in cuts]
        offset = (number - (len(systems) - 1) / 2) * width
        at = [_CUTS.index(cut) + offset for cut in cuts]
        label = TITLES[system]
        if system == NAIVE:
            label += f" ({len(measured[system])} questions)"
        bars = axes.bar(at, heights, width * 0.92, color=_COLOURS[system], label=label)
        # Three digits: 99.6 is not 100.
        axes.bar_label(bars, [f"{height:.3g}" for height in heights], padding=2, fontsize=8)
        for cut in _CUTS[len(cuts) :]:
            axes.text(
                _CUTS.index(cut) + offset,
                2,
                f"takes {PIECES_TAKEN} only",
                rotation=90,
                ha="center",
                va="bottom",
                fontsize=8,
                color="#5b636b",
            )
    axes.set_xticks(
        range(len(_CUTS)), ["it is the first", *(f"among the first {cut}" for cut in _CUTS[1:])]
    )
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("% of questions")
    axes.set_xlim(-0.5, len(_CUTS) - 0.5)
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.grid(axis="y", color=_GRID)
    if len(systems) > 1:
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False, fontsize=9
        )


def _errors(axes: "Axes", measured: Measured) -> None:
    axes.set_title("Does it refuse what it should?")
    answerable, others = evidence_of(measured)
    if not answerable or not others:
        _say(axes, "It takes questions with an answer\nand questions without one.")
        return
    curve = metrics.error_curve(answerable, others)
    refused = [100 * share for _, share, _ in curve]
    answered = [100 * share for _, _, share in curve]
    axes.plot(refused, answered, color=_COLOURS[PRODUCT], linewidth=2, drawstyle="steps-post")
    axes.fill_between(refused, answered, color=_COLOURS[PRODUCT], alpha=0.08, step="post")
    present = (
        _per_cent(false_refusals(measured)),
        _per_cent(false_answers(measured)),
    )
    axes.plot(*present, "o", color=_ALARM, markersize=9, clip_on=False, zorder=5)
    # The corner where a good system is, as long as this one is there.
    extent = next(size for size in _EXTENTS if size >= min(100, 1.5 * max(present)))
    is_right, is_low = present[0] > extent / 2, present[1] < 0.7 * extent
    axes.annotate(
        f"now: {present[0]:.3g} % refused wrongly,\n{present[1]:.3g} % answered wrongly",
        present,
        xytext=(-14 if is_right else 14, 22 if is_low else -34),
        textcoords="offset points",
        ha="right" if is_right else "left",
        color=_ALARM,
        fontsize=9,
    )
    axes.set_xlabel("answerable questions refused, %")
    axes.set_ylabel("unanswerable questions answered, %")
    # A little room, so that a line along the axes can be seen.
    axes.set_xlim(-0.02 * extent, extent)
    axes.set_ylim(-0.02 * extent, extent)
    axes.grid(color=_GRID)
    area = metrics.area_under_curve(answerable, others)
    axes.text(
        0.97,
        0.95,
        f"line: as the threshold moves\narea under the curve {area:.3f}",
        ha="right",
        va="top",
        fontsize=9,
        color="#5b636b",
        transform=axes.transAxes,
    )


def _seconds(axes: "Axes", measured: Measured) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title("How long does a question take?")
    # Quoting takes hundredths of a second and a model minutes: each step on the axis is ten times.
    seconds = [max(second, 0.001) for second in seconds_of(measured)]
    if not seconds:
        _say(axes, "No question was answered.")
        return
    first = 10 ** math.floor(math.log10(min(seconds)))
    last = 10 ** max(math.ceil(math.log10(max(seconds))), math.log10(first) + 2)
    axes.set_xscale("log")
    bins = [first * (last / first) ** (at / _BINS) for at in range(_BINS + 1)]
    axes.hist(seconds, bins=bins, color=_COLOURS[PRODUCT], edgecolor="white", linewidth=0.6)
    top = axes.get_ylim()[1] * 1.2
    axes.set_ylim(0, top)
    median, high = metrics.median(seconds), metrics.quantile(seconds, 0.95)
    for value, words, place in ((median, "half below", 0.98), (high, "95 % below", 0.9)):
        axes.axvline(value, color=_ALARM, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.text(
            value,
            top * place,
            f" {words} {value:.2g} s ",
            ha="right" if value > math.sqrt(first * last) else "left",
            va="top",
            color=_ALARM,
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("seconds, of search and of the model where it was asked")
    axes.set_ylabel("questions")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(first, last)
    axes.grid(axis="y", color=_GRID)


def _per_cent(cell: Cell) -> float:
    return float(cell.text.rstrip(" %"))


def _say(axes: "Axes", words: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, color="#5b636b")
