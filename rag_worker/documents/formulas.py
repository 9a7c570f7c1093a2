"""Formulas as one line of text: MathML and Office Math have the same few shapes."""

from collections.abc import Callable
from typing import Any

_SILENT = {"annotation", "annotation-xml", "mphantom"}
_ACCENTS = {"→": "→", "^": "^", "¯": "¯", "ˆ": "^", "\u20d7": "→", "\u0302": "^", "\u0305": "¯"}


def linear(element: Any) -> str:
    """The formula as readable text: ``(a + b)/2``, ``x^2``, ``√(x)``. Nothing is dropped."""
    return " ".join(_text(element).split())


def _text(element: Any) -> str:
    if not isinstance(element.tag, str):  # a comment or a processing instruction
        return ""
    name = _name(element)
    if name in _SILENT or name.endswith("Pr"):
        return ""
    shape = _SHAPES.get(name)
    children = [child for child in element if isinstance(child.tag, str)]
    parts = [_text(child) for child in children if not _name(child).endswith("Pr")]
    if shape and len(parts) >= shape[0]:
        return shape[1](parts)
    match name:
        case "semantics":
            return parts[0] if parts else ""
        case "mfenced":
            inside = ", ".join(parts)
            return f"{element.get('open', '(')}{inside}{element.get('close', ')')}"
        case "d":
            return f"{_property(element, 'begChr', '(')}{', '.join(parts)}" + _property(
                element, "endChr", ")"
            )
        case "nary":
            sign = _property(element, "chr", "∫")
            return f" {sign}_{_group(parts[0])}^{_group(parts[1])} {parts[2]}" if parts[2:] else ""
        case "acc":
            accent = _property(element, "chr", "^")
            return f"{_ACCENTS.get(accent, accent)}{''.join(parts)}"
        case "mtr" | "mr":
            return ", ".join(parts) + "; "
        case "mo":
            return f" {_own(element)} " if len(_own(element)) == 1 else _own(element)
        case "mspace":
            return " "
    pieces = [element.text or ""] if name in {"mi", "mn", "mtext", "ms", "t"} else []
    return "".join(pieces) + "".join(parts)


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2].rpartition(":")[2]


def _own(element: Any) -> str:
    return (element.text or "").strip()


def _property(element: Any, name: str, default: str) -> str:
    for child in element.iter():
        if isinstance(child.tag, str) and _name(child) == name:
            return next(iter(child.attrib.values()), "")
    return default


def _group(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 1 or text.isalnum() else f"({text})"


_SHAPES: dict[str, tuple[int, Callable[[list[str]], str]]] = {
    "mfrac": (2, lambda p: f"{_group(p[0])}/{_group(p[1])}"),
    "f": (2, lambda p: f"{_group(p[0])}/{_group(p[1])}"),
    "msup": (2, lambda p: f"{p[0].strip()}^{_group(p[1])}"),
    "sSup": (2, lambda p: f"{p[0].strip()}^{_group(p[1])}"),
    "msub": (2, lambda p: f"{p[0].strip()}_{_group(p[1])}"),
    "sSub": (2, lambda p: f"{p[0].strip()}_{_group(p[1])}"),
    "msubsup": (3, lambda p: f"{p[0].strip()}_{_group(p[1])}^{_group(p[2])}"),
    "sSubSup": (3, lambda p: f"{p[0].strip()}_{_group(p[1])}^{_group(p[2])}"),
    "msqrt": (1, lambda p: f"√({''.join(p).strip()})"),
    "mroot": (2, lambda p: f"root_{_group(p[1])}({p[0].strip()})"),
    "rad": (2, lambda p: (f"root_{_group(p[0])}" if p[0].strip() else "√") + f"({p[1].strip()})"),
    "mover": (2, lambda p: f"{_ACCENTS.get(p[1].strip(), '^' + _group(p[1]))}{p[0].strip()}"),
    "munder": (2, lambda p: f"{p[0].strip()}_{_group(p[1])}"),
    "munderover": (3, lambda p: f"{p[0].strip()}_{_group(p[1])}^{_group(p[2])}"),
}
