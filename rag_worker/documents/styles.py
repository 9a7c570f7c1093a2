"""What a web page's styles hide from its reader: its own sheets and the elements' own styles."""

import colorsys
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cssselect
from lxml import etree

from rag_worker.documents.errors import DocumentError
from rag_worker.documents.looks import WHITE, Colour, hex_colour, stands_out

_READ = re.compile(
    r"display|visibility|opacity|position|left|top|right|bottom|(max-)?(height|width)|clip"
    r"|clip-path|transform|scale|overflow(-[xy])?|text-indent|margin-(left|top)"
    r"|color|background(-color|-image)?|font-size|font"
)
_MOST_RULES = 3_000
_MOST_SECONDS = 30.0
"""Of the processor, for finding which elements the rules are about."""
_SCREENS = {"", "all", "screen", "only screen"}
_FAR = 500.0
"""Pixels outside the page. A box is set back by its own half to stand in the middle."""
_FAR_MARGIN = 900.0
_SMALLEST_FONT = 2.0
"""Pixels: smaller text is there to be hidden."""
_FAINTEST = 0.05
_PIXELS = {"px": 1.0, "": 1.0, "pt": 4 / 3, "pc": 16.0, "em": 16.0, "rem": 16.0, "ch": 8.0}
_PIXELS |= {"ex": 8.0, "cm": 37.8, "mm": 3.78, "in": 96.0, "%": 10.0, "vw": 13.0, "vh": 8.0}
_LENGTH = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))(px|pt|pc|r?em|ch|ex|cm|mm|in|%|vw|vh|)")
_NAMES: dict[str, Colour] = {
    "white": WHITE,
    "snow": (255, 250, 250),
    "ivory": (255, 255, 240),
    "ghostwhite": (248, 248, 255),
    "whitesmoke": (245, 245, 245),
    "floralwhite": (255, 250, 240),
    "mintcream": (245, 255, 250),
    "azure": (240, 255, 255),
    "black": (0, 0, 0),
}
_NAMED = re.compile(r"[.#](-?[A-Za-z_][\w-]*)")
_BLOCK = re.compile(r"([^{};]*)([{};])")
_Declaration = tuple[tuple[bool, bool, tuple[int, int, int], int], str, str]
"""Its weight (important, in the element, specificity, order), property and value."""


@dataclass(frozen=True, slots=True)
class _Ink:
    """How the text of an element looks; ``colour`` and ``ground`` are None where not known."""

    colour: Colour | None = None
    ground: Colour | None = WHITE
    size: float = 16.0
    visible: bool = True

    @property
    def is_seen(self) -> bool:
        unseen = self.colour and self.ground and not stands_out(self.colour, self.ground)
        return self.visible and self.size >= _SMALLEST_FONT and not unseen


class Styles:
    """The styles of the elements of one page."""

    def __init__(self, root: Any) -> None:
        self._declared: dict[Any, list[_Declaration]] = {}
        self._inks: dict[Any, _Ink] = {}
        translator = cssselect.HTMLTranslator()
        names = {name for one in root.iter(etree.Element) for name in _names(one)}
        until = time.process_time() + _MOST_SECONDS
        for order, (selectors, declarations) in enumerate(_rules(root)):
            if order == _MOST_RULES:
                break
            try:
                parsed = cssselect.parse(selectors)
            except cssselect.SelectorError:
                continue
            for selector in parsed:
                text = selector.canonical()
                # In brackets a name may be one that is excluded, or a dot part of a value.
                called = set() if re.search(r"[\[(\\]", text) else set(_NAMED.findall(text))
                if selector.pseudo_element or not called <= names:
                    continue
                if time.process_time() > until:
                    raise DocumentError(
                        "Its style sheets are too long to tell what they hide: save it as PDF."
                    )
                try:
                    found = root.xpath(translator.selector_to_xpath(selector))
                except (cssselect.SelectorError, etree.XPathError):
                    continue
                specificity = selector.specificity()
                for element in found:
                    self._declared.setdefault(element, []).extend(
                        ((important, False, specificity, order), name, value)
                        for name, value, important in declarations
                    )

    def hides(self, element: Any) -> bool:
        """Whether the element is not shown, nor anything in it."""
        style = self._style(element)
        return bool(style) and _is_gone(style)

    def shows_text(self, element: Any) -> bool:
        """Whether text of the element itself can be seen, by its colour and size."""
        return self._ink(element).is_seen

    def _style(self, element: Any) -> dict[str, str]:
        found = self._declared.get(element, [])
        own = element.get("style")
        if own:
            found = found + [
                ((important, True, (0, 0, 0), 0), name, value)
                for name, value, important in _declarations(own)
            ]
        return {name: value for _, name, value in sorted(found, key=lambda one: one[0])}

    def _ink(self, element: Any) -> _Ink:
        path = []
        while element is not None and element not in self._inks:
            path.append(element)
            element = element.getparent()
        ink = self._inks[element] if element is not None else _Ink()
        for one in reversed(path):
            style = self._style(one)
            if one.tag == "font" and one.get("color"):
                style.setdefault("color", one.get("color").strip().lower())
            if one.get("bgcolor"):
                style.setdefault("background-color", one.get("bgcolor").strip().lower())
            ink = self._inks[one] = _inked(ink, style) if style else ink
        return ink


def _inked(ink: _Ink, style: dict[str, str]) -> _Ink:
    """``ink`` as an element's style changes it."""
    for name, value in style.items():
        match name:
            case "background" | "background-color" | "background-image":
                ink = replace(ink, ground=_ground(value, ink.ground))
            case "color" if value not in ("inherit", "currentcolor", "unset"):
                colour, opaque = _colour(value)
                ink = replace(ink, colour=colour if opaque else ink.ground)
            case "font-size" | "font":
                ink = replace(ink, size=_font_size(value, ink.size))
            case "visibility":
                ink = replace(ink, visible=value not in ("hidden", "collapse"))
    return ink


def _ground(value: str, around: Colour | None) -> Colour | None:
    if "url(" in value or "gradient(" in value:
        return None
    for part in re.findall(r"[\w#-]+(?:\([^)]*\))?", value):
        colour, opaque = _colour(part)
        if colour and opaque:
            return colour
    # What is called by a name that is not known here is a colour, too.
    plain = {"none", "transparent", "inherit", "initial", "unset", "0"}
    return around if value in plain or value.startswith(("rgba(", "hsla(")) else None


def _colour(value: str) -> tuple[Colour | None, bool]:
    """A colour, None where it is not known, and whether it covers what lies behind."""
    if value in _NAMES or value == "transparent":
        return _NAMES.get(value), value in _NAMES
    if match := re.fullmatch(r"#([0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})", value):
        digits = match[1] if len(match[1]) > 4 else "".join(2 * digit for digit in match[1])
        return hex_colour(digits[:6]), int(digits[6:] or "ff", 16) / 255 > _FAINTEST
    if match := re.fullmatch(r"(rgb|hsl)a?\(([^)]*)\)", value):
        return _function_colour(match[1], match[2])
    return None, True


def _function_colour(function: str, arguments: str) -> tuple[Colour | None, bool]:
    """The colour that ``rgb(…)`` or ``hsl(…)`` stands for."""
    parts = re.findall(r"(\d+\.?\d*|\.\d+)(%?)", arguments)
    if len(parts) < 3:
        return None, True
    numbers = [float(number) / (100 if percent else 1) for number, percent in parts]
    first, second, third = numbers[:3]
    if function == "hsl":
        shares = colorsys.hls_to_rgb(first / 360 % 1, min(third, 1), min(second, 1))
    elif parts[0][1]:
        shares = first, second, third
    else:
        shares = first / 255, second / 255, third / 255
    red, green, blue = (round(255 * min(share, 1)) for share in shares)
    return (red, green, blue), len(numbers) < 4 or numbers[3] > _FAINTEST


def _font_size(value: str, around: float) -> float:
    for part in re.split(r"[\s/]", value):
        match = _LENGTH.fullmatch(part)
        if match and (match[2] or not float(match[1])):
            share = {"%": 0.01, "em": 1.0}.get(match[2])
            size = float(match[1])
            return size * share * around if share else size * _PIXELS[match[2]]
    return around


def _is_gone(style: dict[str, str]) -> bool:
    """Whether an element of this style takes up no room on the page that a reader sees."""

    def pixels(name: str) -> float | None:
        match = _LENGTH.fullmatch(style.get(name, ""))
        return float(match[1]) * _PIXELS[match[2]] if match else None

    def is_beyond(name: str, far: float) -> bool:
        length = pixels(name)
        return length is not None and length <= -far

    position = style.get("position", "static")
    opacity = re.fullmatch(r"([\d.]+)(%?)", style.get("opacity", ""))
    overflow = style.get("overflow", "")
    is_cut = any(part in ("hidden", "clip") for part in overflow.split()) or any(
        style.get(f"overflow-{axis}") in ("hidden", "clip") for axis in "xy"
    )
    sizes = map(pixels, ("height", "max-height", "width", "max-width"))
    return bool(
        style.get("display") == "none"
        or (opacity and _number(opacity[1]) / (100 if opacity[2] else 1) <= _FAINTEST)
        or (is_cut and any(size is not None and size <= 1 for size in sizes))
        or (
            position != "static"
            and any(is_beyond(name, _FAR) for name in ("left", "top", "right", "bottom"))
        )
        or is_beyond("text-indent", _FAR)
        or any(is_beyond(name, _FAR_MARGIN) for name in ("margin-left", "margin-top"))
        or (position in ("absolute", "fixed") and _is_empty_clip(style.get("clip", "")))
        or re.match(r"inset\(\s*(50|100)%|circle\(\s*0", style.get("clip-path", ""))
        or _is_moved_away(style.get("transform", ""))
        or re.fullmatch(r"0(\.0+)?", style.get("scale", ""))
    )


def _is_empty_clip(clip: str) -> bool:
    edges = [_number(edge) for edge in re.findall(r"[\d.]+", clip)]
    if not clip.startswith("rect(") or len(edges) != 4:
        return False
    top, right, bottom, left = edges
    return right - left <= 1 or bottom - top <= 1


def _is_moved_away(transform: str) -> bool:
    if re.search(r"scale[xy]?\(\s*0?\.?0*\s*[,)]", transform):
        return True
    lengths = re.findall(r"translate[xy3d]*\(([^)]*)\)", transform)
    return any(
        (match := _LENGTH.fullmatch(part.strip()))
        and match[2] != "%"
        and float(match[1]) * _PIXELS[match[2]] <= -_FAR
        for length in lengths
        for part in length.split(",")
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _names(element: Any) -> list[str]:
    return [*element.get("class", "").split(), element.get("id", "")]


# Style sheets.


def _rules(root: Any) -> Iterator[tuple[str, list[tuple[str, str, bool]]]]:
    """The rules for a screen, with those of their declarations that may hide something."""
    for sheet in root.iter("style"):
        if _is_for_screens(sheet.get("media", "")):
            yield from _sheet_rules(re.sub(r"/\*.*?\*/", "", sheet.text or "", flags=re.S))


def _sheet_rules(sheet: str) -> Iterator[tuple[str, list[tuple[str, str, bool]]]]:
    left_out: list[bool] = []  # for every block that is open, whether it is for no screen
    selectors = ""
    for match in _BLOCK.finditer(sheet):
        text, mark = match[1].strip(), match[2]
        if mark == "{":
            at_rule = re.match(r"@([\w-]+)\s*(.*)", text, re.S)
            if at_rule:
                name, condition = at_rule[1].lower(), at_rule[2]
                is_read = name in ("supports", "layer", "container") or (
                    name == "media" and _is_for_screens(condition)
                )
                left_out.append(not is_read)
                selectors = ""
            else:
                left_out.append(False)
                selectors, begin = text, match.end()
        elif mark == "}" and left_out:
            if selectors and not any(left_out):
                declarations = list(_declarations(sheet[begin : match.start(2)]))
                if declarations:
                    yield selectors, declarations
            selectors = ""
            left_out.pop()


def _is_for_screens(media: str) -> bool:
    """Whether a screen is meant, whatever its size."""
    return any(" ".join(part.lower().split()) in _SCREENS for part in media.split(","))


def _declarations(style: str) -> Iterator[tuple[str, str, bool]]:
    """Property, value, and whether it is important."""
    for declaration in style.split(";"):
        name, _, value = declaration.partition(":")
        name = name.strip().lower()
        if _READ.fullmatch(name):
            value, important, _ = value.strip().lower().partition("!")
            yield name, " ".join(value.split()), bool(important)
