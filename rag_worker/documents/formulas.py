"""Formulas as one line of text: MathML and Office Math have the same few shapes."""

import re
from typing import Any

_LEAVES = {"mi", "mn", "mo", "mtext", "ms", "t", "ci", "cn", "csymbol"}
_ANNOTATIONS = {"annotation", "annotation-xml"}
_OFF = {"0", "false", "off"}
_SEAM = "\ue000"
"""Where a script or a fraction ends: what follows must not be read as a part of it."""
_OPERATORS = {
    "plus": " + ",
    "minus": " − ",
    "times": " ",
    "divide": "/",
    "power": "^",
    "eq": " = ",
    "neq": " ≠ ",
    "lt": " < ",
    "gt": " > ",
    "leq": " ≤ ",
    "geq": " ≥ ",
}
"""Of Content MathML, which names them before their arguments."""
_NEXT_CELL = "\ue001"
_BINOMIAL, _CHOSEN, _END = "\ue002", "\ue003", "\ue004"
"""Around two lines above each other without a bar: a binomial, or conditions below a sum."""
_ROOTS = {"3": "∛", "4": "∜"}
_COMBINING = {
    **dict.fromkeys("→⟶⃗⇀", "\u20d7"),
    **dict.fromkeys("^ˆ\u0302", "\u0302"),
    **dict.fromkeys("¯‾ˉ―_\u0305\u0304", "\u0305"),
    **dict.fromkeys("~˜∼\u0303", "\u0303"),
    **dict.fromkeys("˙.\u0307", "\u0307"),
    **dict.fromkeys("¨\u0308", "\u0308"),
}
_ACCENT_NAMES = {"\u20d7": "vec", "\u0302": "hat", "\u0305": "bar", "\u0303": "tilde"}
_BRACES = set("⏞⏟︷︸⎴⎵")
_TIGHT = set("/()[]|‖′″!°,.:;'%∂∇√")
_MARKS = {"′", "″", "‴", "'", "°", "*", "†"}
_RELATIONS = tuple("=≈≡<>≤≥≠∝→⇒⇔+−±-")
_SIMPLE = re.compile(r"(\d[\d,.]*|[^\W\d][\w⃗̂̅̃′]*)(_\w+)?(\^\w+)?")
_WORD = re.compile(r"[\w⃗̂̅̃]+")


def linear(element: Any) -> str:
    """The formula as readable text: ``(a + b)/2``, ``x^2``, ``√(x)``, ``[1, 0; 0, 1]``.

    Elements that are not known keep their text, in order.
    """
    text = " ".join(_text(element).split())
    # The brackets around a binomial belong to it.
    text = re.sub(rf"\( ?{_BINOMIAL}([^{_END}]*){_END} ?\)", rf"{_BINOMIAL}\1{_END}", text)
    text = text.replace(_BINOMIAL, "binom(").replace(_CHOSEN, ", ").replace(_END, ")")
    text = re.sub(rf"(?<=\w){_SEAM}+(?=\w)", " ", text).replace(_SEAM, "")
    text = re.sub(r"(?<=\d) ?([,.]) ?(?=\d)", r"\1", text).replace(_NEXT_CELL, ", ")
    text = re.sub(r"(^|[(\[{=,;<>≤≥≈→] ?)([−+±-]) (?=\S)", r"\1\2", text)  # a sign, no operation
    text = re.sub(r" (?=[,;.)\]!′°])", "", text)
    return re.sub(r"(?<=[(\[]) | (?=_\(|\^\()", "", text)


def _text(element: Any) -> str:
    if not isinstance(element.tag, str):  # a comment or a processing instruction
        return ""
    name = _name(element)
    if name.endswith("Pr") or name in _ANNOTATIONS or name == "mphantom":
        return ""
    if name in _LEAVES:
        return _leaf(name, element)
    parts = _parts(element)
    if name in _POSITIONS:
        ordered = [text for _, text in parts]
    elif name in _NAMED:
        # Office Math names its arguments; the order in the file is not always that of reading.
        first = dict(reversed(parts))
        ordered = [first.get(key, "") for key in _NAMED[name]]
        taken = [key for key in _NAMED[name] if key in first]
        for key, text in parts:
            if key in taken:
                taken.remove(key)
            else:
                ordered.append(text)
    else:
        return _container(element, name, parts)
    count = _POSITIONS.get(name) or len(_NAMED[name])
    ordered += [""] * (count - len(ordered))
    return _shape(element, name, ordered[:count]) + "".join(ordered[count:])


def _parts(element: Any) -> list[tuple[str, str]]:
    """The children's names and texts; stray text between them is kept under an empty name."""
    parts = []
    if (element.text or "").strip():
        parts.append(("", element.text))
    for child in element:
        text = _text(child)
        if isinstance(child.tag, str) and not _name(child).endswith("Pr"):
            parts.append((_name(child), text))
        if (child.tail or "").strip():
            parts.append(("", child.tail))
    return parts


def _leaf(name: str, element: Any) -> str:
    text = (element.text or "") + "".join(
        (_text(child) if isinstance(child.tag, str) else "") + (child.tail or "")
        for child in element
    )
    core = text.strip()
    if name == "mo" and core in (",", ";"):
        return f"{core} "
    if name == "t":
        return re.sub(r"\s*([=≈<>≤≥≡→⇒])\s*", r" \1 ", text)
    if name == "mo" and core not in _TIGHT:
        return f" {core} "
    if name == "mi" and len(core) > 1 and core.isalpha():
        return f" {core} "  # the name of a function
    return core if name in ("mi", "mn", "mo") else text


_POSITIONS = {
    **dict.fromkeys(("mfrac", "msup", "msub", "mroot", "mover", "munder"), 2),
    **dict.fromkeys(("msubsup", "munderover"), 3),
}
_NAMED = {
    "f": ("num", "den"),
    "sSup": ("e", "sup"),
    "sSub": ("e", "sub"),
    "sSubSup": ("e", "sub", "sup"),
    "sPre": ("sub", "sup", "e"),
    "rad": ("deg", "e"),
    "nary": ("sub", "sup", "e"),
    "limLow": ("e", "lim"),
    "limUpp": ("e", "lim"),
    "func": ("fName", "e"),
}


def _shape(element: Any, name: str, parts: list[str]) -> str:  # noqa: PLR0912 - a case a shape
    match name:
        case "mfrac" | "f":
            text = f"{_SEAM}{_group(parts[0], _SIMPLE)}/{_group(parts[1], _SIMPLE)}{_SEAM}"
            bar = element.get("linethickness", "") or _property(element, "type", "")
            if bar in ("0", "0pt", "0px", "noBar"):  # a binomial coefficient
                text = f"{_BINOMIAL}{parts[0].strip()}{_CHOSEN}{parts[1].strip()}{_END}"
        case "msup" | "sSup":
            text = f"{parts[0].rstrip()}{_script('^', parts[1])}"
        case "msub" | "sSub":
            text = f"{parts[0].rstrip()}{_script('_', parts[1])}"
        case "munder" | "limLow":
            text = f"{_under(parts[0], parts[1])} "
        case "msubsup" | "sSubSup":
            text = f"{parts[0].rstrip()}{_script('_', parts[1])}{_script('^', parts[2])}"
        case "munderover":
            text = f"{parts[0].rstrip()}{_script('_', parts[1])}{_script('^', parts[2])} "
        case "mover" | "limUpp":
            text = _over(parts[0], parts[1])
        case "sPre":
            text = f" {_script('_', parts[0])}{_script('^', parts[1])} {parts[2].strip()}"
        case "mroot":
            text = _root(parts[1], parts[0])
        case "rad":
            text = _root(parts[0], parts[1])
        case "func":
            text = f" {parts[0].strip()} {parts[1].strip()} "
        case _:  # nary
            sign = _property(element, "chr", "∫")
            text = f" {sign}{_script('_', parts[0])}{_script('^', parts[1])} {parts[2].strip()} "
    return text


def _container(  # noqa: PLR0912 - a case a shape
    element: Any, name: str, parts: list[tuple[str, str]]
) -> str:
    texts = [text for _, text in parts]
    inside = "".join(texts)
    match name:
        case "semantics":
            text = inside if inside.strip() else _annotation(element)
        case "msqrt":
            text = _root("", inside)
        case "mspace" | "tab" | "br":
            text = " "
        case "mglyph":
            text = element.get("alt", "")
        case "mfenced":
            # "," stands for each of the argument separators, as almost everywhere.
            joined = ", ".join(filter(str.strip, texts))
            text = f"{element.get('open', '(')}{joined}{element.get('close', ')')}"
        case "d":
            opening, closing = _property(element, "begChr", "("), _property(element, "endChr", ")")
            joined = (_property(element, "sepChr", "|") or " ").join(texts)
            text = f"{opening}{joined.strip()}{closing}"
        case "acc":
            text = _over(inside, _property(element, "chr", "^"))
        case "bar":
            text = _over(inside, "¯") if _property(element, "pos", "bot") == "top" else inside
        case "groupChr":
            text = _over(inside, _property(element, "chr", "⏟"))
        case "phant":
            text = "" if _property(element, "show", "1") in _OFF else inside
        case "mtable" | "m" | "eqArr":
            rows = [text.replace("&", "") if name == "eqArr" else text for text in texts]
            text = "; ".join(row.strip() for row in rows if row.strip(f" ,{_SEAM}{_NEXT_CELL}"))
            if name == "m" and not _in_brackets(element):
                text = f"[{text}]"
        case "apply":
            text = _applied(parts)
        case "mlabeledtr":
            text = f"{_cells(texts[1:])} {''.join(texts[:1])}"
        case "mtr" | "mr":
            text = _cells(texts)
        case "mmultiscripts":
            text = _multiscripts(parts)
        case "oMathPara" | "mstack" | "mlongdiv":
            text = " ".join(texts)
        case _:
            text = inside
    return text


def _applied(parts: list[tuple[str, str]]) -> str:
    (operator, function), *arguments = parts or [("", "")]
    texts = [text.strip() for _, text in arguments]
    sign = _OPERATORS.get(operator)
    if sign and len(texts) > 1:
        return sign.join(
            f"({text})" if name == "apply" and len(text) > 1 else text
            for (name, _), text in zip(arguments, texts, strict=True)
        )
    name = sign.strip() if sign else function.strip() or operator
    return name + ", ".join(texts) if sign else f"{name}({', '.join(texts)})"


def _in_brackets(matrix: Any) -> bool:
    outer = matrix.getparent().getparent() if matrix.getparent() is not None else None
    return outer is not None and _name(outer) == "d"


def _cells(cells: list[str]) -> str:
    """A row: an equation that is aligned at its signs is read through, a matrix has commas."""
    row = ""
    for cell in (cell.strip() for cell in cells):
        aligned = cell.startswith(_RELATIONS) or row.endswith(_RELATIONS)
        row = f"{row}{' ' if aligned else _NEXT_CELL}{cell}" if row and cell else row + cell
    return row


def _multiscripts(parts: list[tuple[str, str]]) -> str:
    names = [name for name, _ in parts]
    texts = ["" if name in ("none", "mprescripts") else text for name, text in parts]
    at = names.index("mprescripts") if "mprescripts" in names else len(parts)

    def scripts(some: list[str]) -> str:
        return "".join(_script("_^"[number % 2], text) for number, text in enumerate(some))

    return f" {scripts(texts[at + 1 :])} {''.join(texts[:1]).strip()}{scripts(texts[1:at])}"


def _annotation(element: Any) -> str:
    """What the formula was typed as, for want of anything else."""
    for child in element:
        if isinstance(child.tag, str) and _name(child) == "annotation":
            return f" {''.join(child.itertext()).strip()} "
    return ""


def _root(degree: str, radicand: str) -> str:
    degree = degree.strip(f" {_SEAM}")
    sign = _ROOTS.get(degree) or (f"root{_script('_', degree)}" if degree else "√")
    return f"{sign}({radicand.strip()})"


def _over(base: str, above: str) -> str:
    base, above = base.strip(), above.strip()
    mark = _COMBINING.get(above)
    if above in _BRACES:
        return base
    if mark is None:
        return f"{base}{_script('^', above)}"
    if len(base) == 1:
        return base + mark
    return f"{_ACCENT_NAMES[mark]}({base})" if mark in _ACCENT_NAMES else base + mark


def _under(base: str, below: str) -> str:
    base, below = base.rstrip(), below.strip()
    return base if below in _BRACES | {"_", "¯", "\u0332"} else f"{base}{_script('_', below)}"


def _script(sign: str, text: str) -> str:
    if sign == "^" and text.strip(f" {_SEAM}") in _MARKS:
        return text.strip(f" {_SEAM}")
    if sign == "_":
        text = text.replace(_BINOMIAL, "").replace(_CHOSEN, "; ").replace(_END, "")
    return f"{sign}{_group(text, _WORD)}{_SEAM}" if text.strip(f" {_SEAM}") else ""


def _group(text: str, simple: re.Pattern[str]) -> str:
    text = text.strip(f" {_SEAM}")
    return text if len(text) <= 1 or simple.fullmatch(text) or is_enclosed(text) else f"({text})"


def is_enclosed(text: str) -> bool:
    """Whether one pair of brackets holds the whole text."""
    if not (text.startswith("(") and text.endswith(")")):
        return False
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return at == len(text) - 1
    return False


def _name(element: Any) -> str:
    return str(element.tag).rpartition("}")[2].rpartition(":")[2]


def _property(element: Any, name: str, default: str) -> str:
    """A value of the element's own properties, which Office Math keeps in a child ``…Pr``."""
    for properties in element:
        if isinstance(properties.tag, str) and _name(properties) == f"{_name(element)}Pr":
            for child in properties:
                if isinstance(child.tag, str) and _name(child) == name:
                    return next(iter(child.attrib.values()), default and "")
    return default
