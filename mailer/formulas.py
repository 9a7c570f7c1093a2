r"""LaTeX formulas as text that every mail program shows: ``a/b``, ``√(x)``, ``x²``, ``α``.

A formula stands between ``$``, ``$$``, ``\(`` or ``\[``; a lone ``\frac{…}{…}``, ``\sqrt{…}``,
Greek letter or ``V_{…}`` is one too. What is not understood stays as it was: half a formula would
be worse than its source.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from typing import Any

from markupsafe import Markup, escape
from pylatexenc.latex2text import get_default_latex_context_db as default_symbols
from pylatexenc.latexwalker import LatexWalker, LatexWalkerParseError
from pylatexenc.latexwalker import get_default_latex_context_db as default_syntax
from pylatexenc.macrospec import MacroSpec, MacroStandardArgsParser, SpecialsSpec

LENGTH_LIMIT = 400
"""Longest formula that is read, in characters; longer ones stay as they are."""

COUNT_LIMIT = 300
"""Most formulas of one text; the others stay as they are."""

# The line height keeps the lines of a paragraph at one distance.
SCRIPT_STYLE = "font-size:72%;line-height:0"
UNBROKEN_STYLE = "white-space:nowrap"
_UNBROKEN = 28
"""A formula of so many characters fits the line of a phone, so it is not broken at a space."""

_CLOSING = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
_OPENING = re.compile(r"\$\$?|\\[(\[]|\\[A-Za-z]+|[_^]\{")

# A price, a shell's variable and a template's also begin with a dollar.
_MATHEMATICAL = re.compile(r"\\[A-Za-z%]|[\^_=<>+*/−-]|^[A-Za-z]['′]?(\([\w\s|,'′]*\))?$")
_NOT_MATHEMATICAL = re.compile(r"""^[{\s]|[\s=+.,;:(\[{/-]$|["`]""")

_FRACTIONS = {"frac", "dfrac", "tfrac", "cfrac"}
_GREEK = {
    *("alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta"),
    *("vartheta", "iota", "kappa", "lambda", "mu", "nu", "xi", "pi", "varpi", "rho", "varrho"),
    *("sigma", "varsigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "Gamma"),
    *("Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
}
_PLAIN = {
    *("mathrm", "mathit", "mathbf", "mathsf", "mathtt", "mathcal", "mathscr", "boldsymbol"),
    *("bm", "operatorname", "text", "textrm", "textit", "textbf", "mbox"),
}
_SIZES = {"left", "right", "big", "Big", "bigg", "Bigg", "displaystyle", "textstyle", "limits"}
_SPACES = {**dict.fromkeys((",", ";", ":", " ", "quad", "qquad", "\\"), " "), "!": ""}
_WORDS = {
    *("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "arcsin", "arccos"),
    *("arctan", "log", "ln", "exp", "lim", "max", "min", "sup", "inf", "det", "dim", "gcd"),
    *("arg", "deg", "mod", "sen", "tg"),
}
_ARROW, _HAT, _MACRON, _LINE, _TILDE, _DOT, _DOTS = "\u20d7\u0302\u0304\u0305\u0303\u0307\u0308"
_ACCENTS = {"vec": _ARROW, "hat": _HAT, "widehat": _HAT, "bar": _MACRON, "overline": _LINE}
_ACCENTS |= {"tilde": _TILDE, "widetilde": _TILDE, "dot": _DOT, "ddot": _DOTS}
_SYMBOLS = {"degree": "°", "ohm": "Ω", "micro": "µ", "cdot": " · ", "times": " × ", "colon": ":"}
_SYMBOLS |= {"lvert": "|", "rvert": "|", "lVert": "‖", "rVert": "‖", "|": "‖", "ldots": "…"}
_SYMBOLS |= {"dots": "…", "cdots": "⋯", "parallel": " ∥ "} | {mark: mark for mark in "%$&#_{}"}
_DOUBLE_STRUCK = dict(zip("CNQRZ", "ℂℕℚℝℤ", strict=True))
_ROOTS = {"": "√", "2": "√", "3": "∛", "4": "∜"}
_SUPERSCRIPTS = dict(zip("0123456789+−=()ni′", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ′", strict=True))
_SUBSCRIPTS = dict(zip("0123456789+−=()ni", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙᵢ", strict=True))

_BARE = {
    *(*_FRACTIONS, *_GREEK, *_ACCENTS, "sqrt", "sum", "int", "partial", "nabla", "infty", "cdot"),
    *("times", "approx", "leq", "geq", "neq", "pm", "rightarrow", "mathrm", "text"),
}
r"""Commands that are read without dollars around them; ``\in`` and ``\to`` may be a path's."""
_BARE_ATOM = re.compile(r"\\([A-Za-z]+)|[_^](?=[{\\\w])")
_BARE_BASE = re.compile(r"(?:(?:^|[^\w\"'`.])\w{1,2}|[)\]])$")

# What the writer puts around fractions, indices and exponents, and beside words.
_FRACTION, _CLOSED, _SUB, _SUP, _END, _SEAM = map(chr, range(0xE000, 0xE006))
_INNER_FRACTION = re.compile(rf"{_FRACTION}([^{_FRACTION}{_CLOSED}]*){_CLOSED}")
_INNERMOST = re.compile(rf"([{_SUB}{_SUP}])([^{_SUB}{_SUP}{_END}]*){_END}")
_SCRIPT_OR_RELATION = re.compile(
    rf"([{_SUB}{_SUP}](?:[^{_SUB}{_SUP}{_END}]|[{_SUB}{_SUP}][^{_END}]*{_END})*{_END})"
    r"| *([=≈≠<>≤≥∝≡∼≃→⇒⇔⟶↔∈∉⊂⊆≪≫]) *"
)
_SCRIPTS = rf"(?:[{_SUB}{_SUP}][^{_END}]*{_END})*"
_FACTOR = rf"[∂∇Δ]?(?:[^\W\d][\u0300-\u036f\u20d7′]*|\d[\d.,]*){_SCRIPTS}"
_SIMPLE = re.compile(rf"{_FACTOR}|\|{_FACTOR}\||√\([^()]*\)|[^\W\d_]{{1,3}}")
_PRODUCT = re.compile(rf"[^+−±=<>≤≥≈/{_FRACTION}()|]+|{_SIMPLE.pattern}")


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula in a text, from ``start`` to ``end``.

    ``text`` is for plain text, ``html`` has its indices and exponents lowered and raised. Where
    it is not understood ``html`` is None and ``text`` is its source.
    """

    start: int
    end: int
    text: str
    html: Markup | None


def formula_at(text: str, start: int) -> Formula | None:
    """The formula that begins at ``start``, if one does."""
    opening = _OPENING.match(text, start)
    if opening is None or text[start - 1 : start] == "\\":
        return None
    mark = opening[0]
    if mark not in _CLOSING:
        return _bare_formula(text, start)
    end = text.find(_CLOSING[mark], opening.end(), start + LENGTH_LIMIT)
    source = text[opening.end() : end]
    after = end + len(mark)
    if end < 0 or not source.strip() or "\n\n" in source:
        return None
    if mark == "$" and (
        text[after : after + 1].isalnum()
        or not _MATHEMATICAL.search(source)
        or _NOT_MATHEMATICAL.search(source)
    ):
        return None
    return _formula(text, start, after, source)


def readable(text: str) -> str:
    """The text with its formulas as plain text."""
    return "".join(part if isinstance(part, str) else part.text for part in _parts(text))


def to_html(text: str, monospace: str) -> Markup:
    """The text as HTML; a formula that is not understood has the style ``monospace``."""
    return Markup("").join(
        escape(part) if isinstance(part, str) else formula_html(part, monospace)
        for part in _parts(text)
    )


def formula_html(formula: Formula, monospace: str) -> Markup:
    """One formula as HTML."""
    if formula.html is not None:
        return formula.html
    return Markup('<code style="{}">{}</code>').format(monospace, formula.text)


def _parts(text: str) -> Iterator[str | Formula]:
    position = 0
    for formula in islice(_formulas(text), COUNT_LIMIT):
        yield text[position : formula.start]
        yield formula
        position = formula.end
    yield text[position:]


def _formulas(text: str) -> Iterator[Formula]:
    end = 0
    for match in _OPENING.finditer(text):
        if match.start() >= end and (found := formula_at(text, match.start())):
            yield found
            end = found.end


def _bare_formula(text: str, start: int) -> Formula | None:
    """A run of commands, their arguments, indices and exponents, without marks around it."""
    before = text[max(0, start - 4) : start]
    if text[start] == "\\":
        if before[-1:] == ":" or re.search(r"[^\W\d_]{2}$", before):
            return None  # a path
    elif not _BARE_BASE.search(before):
        return None  # a template such as "user_{name}"
    position, limit = start, min(len(text), start + LENGTH_LIMIT)
    while atom := _BARE_ATOM.match(text, position, limit):
        if atom[1] and atom[1] not in _BARE:
            break
        position = atom.end()
        if not atom[1] and text[position] not in "{\\":
            position += 1
        while position < limit and text[position] in "{[":
            end = _group_end(text, position, limit)
            if end is None:
                return None
            position = end
    if position == start or (
        text[position - 1].isalpha() and re.match(r"\.\w", text[position : position + 2])
    ):
        return None
    source = text[start:position]
    # Neighbours decide whether a fraction needs brackets, so the writer sees them.
    before, after = before[-1:], text[position : position + 1]
    head = "a{}" if before.isalnum() else ""
    tail = "{}b" if after.isalnum() else ""
    found = _formula(
        text, start, position, head + source + tail, has_head=bool(head), has_tail=bool(tail)
    )
    # Without marks around it, only what is understood was meant as one.
    return found if found.html is not None else None


def _group_end(text: str, start: int, limit: int) -> int | None:
    depth = 0
    for position in range(start, limit):
        if text[position] in "{[":
            depth += 1
        elif text[position] in "}]":
            depth -= 1
            if depth == 0:
                return position + 1
    return None


def _formula(
    text: str, start: int, end: int, source: str, *, has_head: bool = False, has_tail: bool = False
) -> Formula:
    """The formula. ``has_head`` and ``has_tail`` say that ``source`` begins or ends with a letter
    that stands for its neighbour."""
    written = _written(source.strip())
    if written is None:
        return Formula(start, end, text[start:end], None)
    plain = _plain(written)
    plain = plain[has_head : len(plain) - has_tail]
    return Formula(start, end, plain, _html(written[has_head : len(written) - has_tail]))


class _UnknownError(Exception):
    """A part of the formula cannot be written as text."""


@lru_cache(maxsize=1000)
def _written(source: str) -> str | None:
    """The formula in one line, with our own marks in it; None when it is not understood."""
    # TeX reads the whole of "_\mathrm{max}" as the index; the parser wants it in braces.
    source = re.sub(r"([_^])(\\(?:mathrm|text|mathit|mathbf)\{[^{}]*\})", r"\1{\2}", source)
    try:
        walker = LatexWalker(source, latex_context=_syntax(), tolerant_parsing=False)
        nodes, _, _ = walker.get_latex_nodes()
        text = _all(nodes)
    except (_UnknownError, LatexWalkerParseError, RecursionError):
        return None
    while fraction := _INNER_FRACTION.search(text):
        text = text[: fraction.start()] + _placed(fraction) + text[fraction.end() :]
    text = _SCRIPT_OR_RELATION.sub(lambda match: match[1] or f" {match[2]} ", text)
    text = re.sub(rf"{_SEAM}(?=[{_SUB}{_SUP}])|^{_SEAM}|(?<=[−+(]){_SEAM}", "", text)
    text = re.sub(rf"(?<=[a-z]){_SEAM}(?=\()", "", text).replace(_SEAM, " ")
    return " ".join(text.split())


def _placed(fraction: re.Match[str]) -> str:
    """The fraction, in brackets where its neighbours could be read as parts of it."""
    before = fraction.string[: fraction.start()].rstrip()[-1:]
    after = fraction.string[fraction.end() :].lstrip()[:1]
    is_factor = before.isalnum() or before in (")", _END, _CLOSED)
    has_factor = after.isalnum() or after in ("(", "√", "∂", "∇", _FRACTION, _SUP)
    if not (is_factor or has_factor):
        return fraction[1]
    # A seam becomes the space between two factors.
    return f"{_SEAM if is_factor else ''}({fraction[1]}){_SEAM if has_factor else ''}"


def _plain(written: str) -> str:
    def small(match: re.Match[str]) -> str:
        mark, script = match.groups()
        letters = _SUBSCRIPTS if mark == _SUB else _SUPERSCRIPTS
        if all(letter in letters for letter in script):
            return "".join(letters[letter] for letter in script)
        sign = "_" if mark == _SUB else "^"
        shown = script if len(script) == 1 or script.isalnum() else f"({script})"
        gap = " " if match.string[match.end() : match.end() + 1].isalnum() else ""
        return f"{sign}{shown}{gap}"

    while _INNERMOST.search(written):
        written = _INNERMOST.sub(small, written)
    return written


def _html(written: str) -> Markup:
    tags = {_SUB: "sub", _SUP: "sup"}
    text = str(escape(written))
    while match := _INNERMOST.search(text):
        tag = tags[match[1]]
        raised = f'<{tag} style="{SCRIPT_STYLE}">{match[2]}</{tag}>'
        text = text[: match.start()] + raised + text[match.end() :]
    if len(written) <= _UNBROKEN:
        text = f'<span style="{UNBROKEN_STYLE}">{text}</span>'
    return Markup(text)  # noqa: S704  # nosec B704  # escaped before the tags came in


@cache
def _syntax() -> Any:
    database = default_syntax()
    arguments = dict.fromkeys(_FRACTIONS, "{{") | dict.fromkeys({*_PLAIN, *_ACCENTS}, "{")
    # The brackets after sizes are the formula's own.
    arguments |= {"mathbb": "{"} | dict.fromkeys(_SIZES, "")
    database.add_context_category(
        "formulas",
        macros=[MacroSpec(name, specification) for name, specification in arguments.items()],
        specials=[
            SpecialsSpec(mark, args_parser=MacroStandardArgsParser("{")) for mark in ("_", "^")
        ],
        prepend=True,
    )
    return database


def _all(nodes: list[Any]) -> str:
    return "".join(_one(node) for node in nodes if node is not None)


def _one(node: Any) -> str:
    match type(node).__name__:
        case "LatexCharsNode":
            if re.search("[\ue000-\ue005]", node.chars):
                raise _UnknownError("private characters")
            return str(node.chars).replace("'", "′").replace("-", "−")
        case "LatexGroupNode":
            return _all(node.nodelist)
        case "LatexSpecialsNode" if node.specials_chars in ("_", "^"):
            return _script(node.specials_chars, _argument(node, 0))
        case "LatexSpecialsNode" if node.specials_chars == "~":
            return " "
        case "LatexSpecialsNode" if node.specials_chars in ("''", "´", "`"):
            return "″"
        case "LatexMacroNode":
            return _macro(node)
    raise _UnknownError(type(node).__name__)


def _macro(node: Any) -> str:
    name = node.macroname
    if name in _FRACTIONS:
        return _fraction(_argument(node, 0), _argument(node, 1))
    if name == "sqrt":
        if (root := _ROOTS.get(_argument(node, 0))) is None:
            raise _UnknownError(name)
        return f"{root}({_argument(node, 1)})"
    if name in _PLAIN:
        return _argument(node, 0)
    if name in _ACCENTS or name == "mathbb":
        return _letters(name, _argument(node, 0))
    return _symbol(name)


def _letters(name: str, letters: str) -> str:
    if name == "mathbb" and letters in _DOUBLE_STRUCK:
        return _DOUBLE_STRUCK[letters]
    if name == "mathbb" or not 0 < len(letters) <= 3 or not letters.isalnum():
        raise _UnknownError(name)
    return "".join(letter + _ACCENTS[name] for letter in letters)


def _symbol(name: str) -> str:
    if name in _SIZES:
        return ""
    if name in _WORDS:
        return f"{_SEAM}{name}{_SEAM}"
    if (symbol := _SPACES.get(name, _SYMBOLS.get(name))) is not None:
        return symbol
    specification = default_symbols().get_macro_spec(name)
    symbol = specification.simplify_repl if specification else None
    if not isinstance(symbol, str) or not symbol or "%" in symbol:
        raise _UnknownError(name)
    return symbol


def _argument(node: Any, index: int) -> str:
    arguments = node.nodeargd.argnlist if node.nodeargd else None
    if not arguments:
        raise _UnknownError("an argument is missing")
    return "" if arguments[index] is None else _all([arguments[index]])


def _fraction(above: str, below: str) -> str:
    above, below = above.strip(), below.strip()
    if not _PRODUCT.fullmatch(above):
        above = f"({above})"
    if not _SIMPLE.fullmatch(below):
        below = f"({below})"
    return f"{_FRACTION}{above}/{below}{_CLOSED}"


def _script(mark: str, text: str) -> str:
    text = text.strip().replace(_SEAM, "")
    if mark == "^" and text in ("∘", "°"):
        return "°"
    if text and set(text) <= set("′″"):
        return text
    return f"{_SUB if mark == '_' else _SUP}{text}{_END}"
