"""Formulas as one line of text: MathML and Office Math have the same few shapes."""

from collections.abc import Callable
from typing import Any

_SILENT = {"annotation", "annotation-xml", "mphantom"}
_LEAVES = {"mi", "mn", "mo", "mtext", "ms", "t"}
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
    if name in _LEAVES:
        text = element.text or ""
        return f" {text.strip()} " if name == "mo" and len(text.strip()) == 1 else text
    parts = [_text(child) for child in element]
    shape = _SHAPES.get(name)
    if shape:
        # Properties of Office Math are silent children and come first.
        filled = parts[len(parts) - shape[0] :] if len(parts) >= shape[0] else None
        return shape[1](filled) if filled else "".join(parts)
    return _bracketed(element, name, parts)


def _bracketed(element: Any, name: str, parts: list[str]) -> str:
    inside = ", ".join(filter(str.strip, parts))
    match name:
        case "semantics":
            text = parts[0] if parts else ""
        case "msqrt":
            text = f"√({''.join(parts).strip()})"
        case "mspace":
            text = " "
        case "mfenced":
            text = f"{element.get('open', '(')}{inside}{element.get('close', ')')}"
        case "d":
            opening, closing = _property(element, "begChr", "("), _property(element, "endChr", ")")
            text = f"{opening}{inside}{closing}"
        case "acc":
            accent = _property(element, "chr", "^")
            text = f"{_ACCENTS.get(accent, accent)}{''.join(parts)}"
        case "nary":
            sign = _property(element, "chr", "∫")
            low, high, body = parts[-3:] if len(parts) >= 3 else ("", "", "".join(parts))
            text = f" {sign}_{_group(low)}^{_group(high)} {body}"
        case "mtr" | "mr":
            text = f"{inside}; "
        case _:
            text = "".join(parts)
    return text


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2].rpartition(":")[2]


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
    "mroot": (2, lambda p: f"root_{_group(p[1])}({p[0].strip()})"),
    "rad": (2, lambda p: (f"root_{_group(p[0])}" if p[0].strip() else "√") + f"({p[1].strip()})"),
    "mover": (2, lambda p: f"{_ACCENTS.get(p[1].strip(), '^' + _group(p[1]))}{p[0].strip()}"),
    "munder": (2, lambda p: f"{p[0].strip()}_{_group(p[1])}"),
    "munderover": (3, lambda p: f"{p[0].strip()}_{_group(p[1])}^{_group(p[2])}"),
}
