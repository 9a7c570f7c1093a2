"""LaTeX becomes text that a mail program can show, or stays as it was."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from mailer.formulas import formula_at, readable, to_html
from mailer.markdown import to_text


def html(text: str) -> str:
    return re.sub(r' style="[^"]*"|</?span[^>]*>', "", to_html(text, ""))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (r"$\frac{a}{b}$", "a/b"),
        (r"\frac{a + 1}{b}", "(a + 1)/b"),
        (r"$\frac{1}{2}mv^2$", "(1/2) mv²"),
        (r"\frac{1}{2}mv^{2}", "(1/2) mv²"),
        (r"$-\frac{R_2}{R_1} v_i$", "−(R₂/R₁) vᵢ"),
        (r"$\frac{2 I_{DSS}}{|V_P|}$", "2 I_DSS/|V_P|"),
        (r"$\frac{a}{b c}$", "a/(b c)"),
        (r"$\frac{\frac{a}{b}}{c}$", "(a/b)/c"),
        (r"$\frac{\partial f}{\partial x}$", "∂f/∂x"),
        (r"\sqrt{x}", "√(x)"),
        (r"\(\sqrt[3]{x+1}\)", "∛(x+1)"),
        (r"$x^2$", "x²"),
        (r"$10^{-3}$", "10⁻³"),
        (r"$x_{10}$", "x₁₀"),
        (r"$e^{-t/RC}$", "e^(−t/RC)"),
        (r"V_{GS} = 0", "V_GS = 0"),
        (r"V_{GS}x", "V_GS x"),
        (r"$v_\mathrm{max}$", "v_max"),
        (r"\alpha\beta \approx \infty", "αβ ≈ ∞"),
        (r"$2\pi r$", "2πr"),
        (r"$V_{DS}\ge V_{GS}-V_P$", "V_DS ≥ V_GS−V_P"),
        (r"$\sum_{i=1}^{n} a_i$", "∑ᵢ₌₁ⁿ aᵢ"),
        (r"$\int_0^\infty f(x)\,dx$", "∫₀^∞ f(x) dx"),
        (r"$\lim_{x\to 0} \sin\theta$", "lim_(x→0) sin θ"),
        (r"$\left(\frac{a}{b}\right)^2$", "(a/b)²"),
        (r"$20\log_{10}\frac{a}{b}$", "20 log₁₀ (a/b)"),
        (r"$\vec{F} = m\vec{a}$", "F⃗ = ma⃗"),
        (r"$10\,\mathrm{k\Omega}$", "10 kΩ"),
        (r"$25\,^{\circ}\mathrm{C}$", "25 °C"),
        (r"$x \in \mathbb{R}$", "x ∈ ℝ"),
        (r"$f'(x)$", "f′(x)"),
        (r"$P(A|B)$", "P(A|B)"),
        (r"$5\,\%$", "5 %"),
        (r"\[ E = mc^2 \]", "E = mc²"),
        ("$$\na = b\n$$", "a = b"),
    ],
)
def test_formula_is_readable(source: str, expected: str) -> None:
    assert readable(f"Es {source}.") == f"Es {expected}."


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $10.",
        "$5-$10",
        "echo $HOME/$USER",
        "$PATH_X and $b_c",
        'f"${a}${b}"',
        'f"user_{name}"',
        "file_{i}.txt",
        r"C:\new\temp\pi.txt",
        r"print('\n')",
        r"\section{A} and \begin{document}",
        "snake_case and 2^10",
        "$$",
        "$ x $",
        r"\$x^2\$",
    ],
)
def test_what_is_no_formula_stays_as_it_was(text: str) -> None:
    assert readable(text) == text
    assert html(text) == escape(text)


@pytest.mark.parametrize(
    "source",
    [
        r"$\frac{a$",
        r"$\unknown{x}$",
        r"\(\begin{pmatrix}1&2\\3&4\end{pmatrix}\)",
        r"$\sqrt[5]{x}$",
        r"$\text{<b>}\foo$",
    ],
)
def test_formula_that_is_not_understood_is_shown_as_its_source(source: str) -> None:
    assert readable(f"Es {source}.") == f"Es {source}."
    assert html(f"Es {source}.") == f"Es <code>{escape(source)}</code>."


def test_html_lowers_indices_and_raises_exponents() -> None:
    assert html("$V_{GS}^2 < x_{a_b}$") == (
        "V<sub>GS</sub><sup>2</sup> &lt; x<sub>a<sub>b</sub></sub>"
    )


def test_short_formula_is_not_broken_and_a_long_one_may_be() -> None:
    assert "nowrap" in to_html("$a = b$", "")
    assert "nowrap" not in to_html(f"${' + '.join('abcdefghijklmn')}$", "")


def test_formulas_in_code_stay_as_they_were() -> None:
    text = "`$x^2$` and\n```\n$x^2$\n```\nand $x^2$"
    assert to_text(text) == "`$x^2$` and\n```\n$x^2$\n```\nand x²"


PIECES = [*"$\\{}_^ab2<&[] \n", "\\frac", "\\sqrt", "\\(", "\\)", "\\text{", "\ue001", "<script>"]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_no_text_is_lost_or_becomes_markup(text: str) -> None:
    written = html(text)
    tags = set(re.findall(r"<[^>]*>", written))
    assert tags <= {"<sub>", "</sub>", "<sup>", "</sup>", "<code>", "</code>"}
    for start in range(len(text)):
        formula = formula_at(text, start)
        assert formula is None or start < formula.end <= len(text)
    readable(text).encode()


@pytest.mark.parametrize(
    "piece", ["$", "\\frac{", "$x^{", "\\alpha{", "x_{", "\\(", "a_{b}", "$a_1$ ", "((", "\\sqrt{"]
)
def test_hostile_formulas_are_read_in_bounded_time(piece: str) -> None:
    start = time.process_time()
    readable(piece * (20_000 // len(piece)))
    assert time.process_time() - start < 5
