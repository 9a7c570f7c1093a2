"""Presentations: the slides in order, and on each its shapes in the order of reading."""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_worker.documents.archive import Archive
from rag_worker.documents.drawing import chart_rows, diagram_texts, link_text
from rag_worker.documents.errors import DocumentError
from rag_worker.documents.exponents import raised
from rag_worker.documents.formulas import linear
from rag_worker.documents.looks import WHITE, Colour, hex_colour, is_monospaced, stands_out
from rag_worker.documents.sections import Sections

_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}oMath"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}chart"
_DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}relIds"
_TITLES = {"title", "ctrTitle"}
_FURNITURE = {"dt", "ftr", "sldNum", "hdr"}
_SMALLEST = 200
"""Hundredths of a point: text of two points or less is there to be hidden."""
_OFF = {"0", "false"}
_FILLS = tuple(f"{_A}{name}" for name in ("solidFill", "gradFill", "blipFill", "pattFill"))
_MOST_ORDERED = 300
"""Shapes on a slide; more are read from the top down, without looking for columns."""


def load_pptx(path: Path, sections: Sections) -> int:
    """Read a presentation, the speaker's notes included; returns how many slides it has.

    Hidden slides and shapes outside the slide are left out, and text in the colour of its ground
    where that is known: nothing that is filled, and no picture, may lie behind it.
    """
    archive = Archive(path)
    main = next(
        (part for kind, part in archive.relations("").values() if kind == "officeDocument"),
        "ppt/presentation.xml",
    )
    root = archive.xml(main)
    if root is None or root.tag != f"{_P}presentation":
        raise DocumentError("It is not a presentation: save it as .pptx.")
    size = root.find(f"{_P}sldSz")
    width, height = (_int(size, "cx"), _int(size, "cy")) if size is not None else (0, 0)
    parts = archive.relations(main)
    identifiers = [entry.get(f"{_R}id", "") for entry in root.iter(f"{_P}sldId")]
    for number, identifier in enumerate(identifiers, start=1):
        _, part = parts.get(identifier, ("", ""))
        slide = archive.xml(part)
        if slide is not None and slide.get("show", "1") not in _OFF:
            sections.slide(number)
            _Slide(archive, part, slide, sections, (width, height)).read()
    return len(identifiers)


@dataclass(frozen=True, slots=True)
class _Box:
    """A shape's place on the slide, in the units of the file."""

    left: float
    top: float
    right: float
    bottom: float
    shape: Any


_Transform = Callable[[float, float], tuple[float, float]]


class _Slide:
    """Reads one slide into ``sections``."""

    def __init__(
        self, archive: Archive, part: str, root: Any, sections: Sections, size: tuple[int, int]
    ) -> None:
        self._archive = archive
        self._relations = archive.relations(part)
        self._root = root
        self._sections = sections
        self._size = size
        layout = self._related(self._relations, "slideLayout")
        self._layout = self._places(layout)
        self._master = self._related(archive.relations(layout), "slideMaster") if layout else ""
        roots = (root, archive.xml(layout), archive.xml(self._master))
        self._ground = self._background([root for root in roots if root is not None])

    def _related(self, relations: dict[str, tuple[str, str]], kind: str) -> str:
        return next((part for found, part in relations.values() if found == kind), "")

    def _places(self, part: str) -> dict[tuple[str, str], Any]:
        """Where the layout, and the master behind it, put each kind of placeholder."""
        places: dict[tuple[str, str], Any] = {}
        for _ in range(2):
            root = self._archive.xml(part)
            for shape in root.iter(f"{_P}sp") if root is not None else ():
                place = shape.find(f"{_P}spPr/{_A}xfrm")
                if place is not None:
                    for key in _placeholder(shape):
                        places.setdefault(key, place)
            part = self._related(self._archive.relations(part), "slideMaster") if part else ""
        return places

    def _background(self, roots: list[Any]) -> Colour | None:
        """The colour of the slide, from its own part to the master's; None where it is not plain.

        It is not where a picture or something filled stands on it, which may lie behind the text.
        """
        for root in roots:
            for shape in root.iter(f"{_P}spPr", f"{_P}grpSpPr", f"{_P}style", f"{_P}pic"):
                reference = shape.find(f"{_A}fillRef")
                if (
                    shape.tag == f"{_P}pic"
                    or any(shape.find(fill) is not None for fill in _FILLS)
                    or (reference is not None and reference.get("idx", "0") != "0")
                ):
                    return None
        found = (root.find(f"{_P}cSld/{_P}bg") for root in roots)
        background = next((one for one in found if one is not None), None)
        if background is None:
            return WHITE
        fill = background.find(f"{_P}bgPr/{_A}solidFill")
        reference = background.find(f"{_P}bgRef")
        if fill is None and reference is not None and reference.get("idx") == "1001":
            fill = reference
        return self._colour(fill)

    def _colour(self, fill: Any) -> Colour | None:
        """The colour of a plain fill; None where it is another kind or a shade of one."""
        for colour in fill if fill is not None else ():
            name = colour.get("val", "")
            if len(colour):
                return None
            if colour.tag == f"{_A}srgbClr":
                return hex_colour(name)
            if colour.tag == f"{_A}schemeClr":
                return self._scheme.get(name)
        return None

    @functools.cached_property
    def _scheme(self) -> dict[str, Colour | None]:
        """The colours that the master calls by a name."""
        master = self._archive.xml(self._master)
        names = master.find(f"{_P}clrMap") if master is not None else None
        if names is None:
            return {}
        theme = self._archive.xml(self._related(self._archive.relations(self._master), "theme"))
        scheme = theme.find(f".//{_A}clrScheme") if theme is not None else None
        colours = {
            kind.tag.removeprefix(_A): hex_colour(colour.get("lastClr") or colour.get("val", ""))
            for kind in (scheme if scheme is not None else ())
            for colour in kind
        }
        return colours | {name: colours.get(kind) for name, kind in names.attrib.items()}

    def read(self) -> None:
        """Add the title, the shapes and the notes."""
        tree = self._root.find(f"{_P}cSld/{_P}spTree")
        boxes = list(self._boxes(tree, lambda x, y: (x, y))) if tree is not None else []
        for box in boxes:
            if _placeholder_type(box.shape) in _TITLES:
                self._sections.heading(1, self._lines(box.shape))
        for box in _in_reading_order(boxes) if len(boxes) <= _MOST_ORDERED else _down(boxes):
            if _placeholder_type(box.shape) not in _TITLES | _FURNITURE:
                self._shape(box.shape)
        notes = self._archive.xml(self._related(self._relations, "notesSlide"))
        for shape in notes.iter(f"{_P}sp") if notes is not None else ():
            if _placeholder_type(shape) == "body":
                self._sections.paragraph(self._lines(shape))

    def _boxes(self, tree: Any, transform: _Transform) -> Iterator[_Box]:
        for shape in tree:
            if shape.tag in (f"{_MC}AlternateContent", f"{_MC}Choice"):
                yield from self._boxes(shape, transform)
            elif shape.tag == f"{_P}grpSp":
                if not _is_hidden(shape):
                    yield from self._boxes(shape, _inner(shape, transform))
            elif shape.tag in (f"{_P}sp", f"{_P}graphicFrame", f"{_P}cxnSp"):
                box = self._box(shape, transform)
                if not _is_hidden(shape) and not self._is_outside(box):
                    yield box

    def _box(self, shape: Any, transform: _Transform) -> _Box:
        place = next(
            (
                found
                for path in (f"{_P}spPr/{_A}xfrm", f"{_P}xfrm")
                if (found := shape.find(path)) is not None
            ),
            None,
        )
        if place is None:
            place = next(
                (self._layout[key] for key in _placeholder(shape) if key in self._layout), None
            )
        if place is None:
            return _Box(0, 0, 0, 0, shape)
        x, y, width, height = _extent(place)
        left, top = transform(x, y)
        right, bottom = transform(x + width, y + height)
        return _Box(left, top, right, bottom, shape)

    def _is_outside(self, box: _Box) -> bool:
        width, height = self._size
        if not width or box.right == box.left:
            return False
        return box.right <= 0 or box.bottom <= 0 or box.left >= width or box.top >= height

    def _shape(self, shape: Any) -> None:
        for table in shape.iter(f"{_A}tbl"):
            self._sections.table(self._rows(table))
        for element in shape.iter(_CHART, _DIAGRAM):
            reference = element.get(f"{_R}id" if element.tag == _CHART else f"{_R}dm")
            root = self._archive.xml(self._relations.get(reference, ("", ""))[1])
            if root is not None and element.tag == _CHART:
                self._sections.table(chart_rows(root))
            elif root is not None:
                self._sections.paragraph("\n".join(diagram_texts(root)))
        body = shape.find(f"{_P}txBody")
        for paragraph in body.iter(f"{_A}p") if body is not None else ():
            if _is_code(paragraph):
                self._sections.code(self._verbatim(paragraph))
            else:
                self._sections.paragraph(self._text(paragraph))

    def _rows(self, table: Any) -> Iterator[list[str]]:
        """A cell that spans rows is repeated, one that spans columns is not."""
        above: dict[int, str] = {}
        for row in table.iter(f"{_A}tr"):
            cells = []
            for column, cell in enumerate(row.iter(f"{_A}tc")):
                if cell.get("hMerge", "0") not in _OFF:
                    continue
                continues = cell.get("vMerge", "0") not in _OFF
                above[column] = above.get(column, "") if continues else self._lines(cell)
                cells.append(above[column])
            yield cells

    def _lines(self, element: Any) -> str:
        return "\n".join(filter(None, map(self._text, element.iter(f"{_A}p"))))

    def _text(self, paragraph: Any) -> str:
        return re.sub(" {2,}", " ", self._verbatim(paragraph)).strip()

    def _verbatim(self, paragraph: Any) -> str:
        """The text with its white space, as code needs it."""
        parts: list[str] = []
        self._runs(paragraph, parts)
        return "".join(parts).expandtabs(4).rstrip()

    def _runs(self, element: Any, parts: list[str]) -> None:
        for child in element:
            if child.tag == _MATH:
                parts.append(f" {linear(child)} ")
            elif child.tag == f"{_A}br":
                parts.append("\n")
            elif child.tag in (f"{_A}r", f"{_A}fld"):
                parts.append(self._run(child))
            elif isinstance(child.tag, str) and child.tag != f"{_MC}Fallback":
                self._runs(child, parts)

    def _run(self, run: Any) -> str:
        properties = run.find(f"{_A}rPr")
        text = str(run.findtext(f"{_A}t", ""))
        if properties is None:
            return text
        if 0 < _int(properties, "sz") <= _SMALLEST:
            return ""
        colour = self._colour(properties.find(f"{_A}solidFill"))
        in_cell = next(run.iterancestors(f"{_A}tc"), None) is not None
        if colour and self._ground and not in_cell and not stands_out(colour, self._ground):
            return ""
        rise = _int(properties, "baseline")
        if rise > 0:
            text = raised(text)
        elif rise and text.strip():
            text = f"_{text}"
        link = properties.find(f"{_A}hlinkClick")
        if link is None:
            return text
        return link_text(text, self._relations.get(link.get(f"{_R}id"), ("", ""))[1])


def _is_code(paragraph: Any) -> bool:
    """Whether all of a paragraph is set in a typewriter's font."""
    runs = [run for run in paragraph.iter(f"{_A}r") if run.findtext(f"{_A}t", "").strip()]
    fonts = [run.find(f"{_A}rPr/{_A}latin") for run in runs]
    return bool(fonts) and all(
        font is not None and is_monospaced(font.get("typeface", "")) for font in fonts
    )


def _in_reading_order(boxes: list[_Box]) -> list[_Box]:
    """From the top down where a horizontal gap divides the shapes, else column by column."""
    if len(boxes) < 2:
        return boxes
    for start, end in (("top", "bottom"), ("left", "right")):
        ordered = sorted(boxes, key=lambda box: (getattr(box, start), box.left, box.top))
        groups: list[list[_Box]] = []
        reached = float("-inf")
        for box in ordered:
            # Frames are drawn a little larger than their text: a slight overlap divides too.
            slack = 0.1 * (getattr(box, end) - getattr(box, start))
            if getattr(box, start) + slack >= reached:
                groups.append([])
            groups[-1].append(box)
            reached = max(reached, getattr(box, end))
        if len(groups) > 1:
            return [box for group in groups for box in _in_reading_order(group)]
    return _down(boxes)


def _down(boxes: list[_Box]) -> list[_Box]:
    return sorted(boxes, key=lambda box: (box.top, box.left))


def _inner(group: Any, transform: _Transform) -> _Transform:
    """From the coordinates inside a group to those of the slide."""
    place = group.find(f"{_P}grpSpPr/{_A}xfrm")
    if place is None or place.find(f"{_A}chOff") is None:
        return transform
    x, y, width, height = _extent(place)
    inner_x, inner_y, inner_width, inner_height = _extent(place, inner=True)
    wide, high = width / (inner_width or 1), height / (inner_height or 1)
    return lambda at_x, at_y: transform(x + (at_x - inner_x) * wide, y + (at_y - inner_y) * high)


def _extent(place: Any, *, inner: bool = False) -> tuple[int, int, int, int]:
    names = ("chOff", "chExt") if inner else ("off", "ext")
    offset, extent = (place.find(f"{_A}{name}") for name in names)
    return _int(offset, "x"), _int(offset, "y"), _int(extent, "cx"), _int(extent, "cy")


def _placeholder(shape: Any) -> list[tuple[str, str]]:
    """The keys by which a layout knows a placeholder: its index, and its kind."""
    found = next(shape.iter(f"{_P}ph"), None)
    if found is None:
        return []
    kind = found.get("type", "obj")
    kind = "title" if kind in _TITLES else kind
    return [("index", found.get("idx", kind)), ("type", "body" if kind == "obj" else kind)]


def _placeholder_type(shape: Any) -> str | None:
    found = next(shape.iter(f"{_P}ph"), None)
    return str(found.get("type", "obj")) if found is not None else None


def _is_hidden(shape: Any) -> bool:
    properties = next(shape.iter(f"{_P}cNvPr"), None)
    return properties is not None and properties.get("hidden", "0") not in _OFF


def _int(element: Any, name: str) -> int:
    try:
        return int(element.get(name, "0")) if element is not None else 0
    except ValueError:
        return 0
