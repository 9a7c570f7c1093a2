"""Word documents: text as the reader of the printed page sees it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rag_worker.documents.archive import Archive
from rag_worker.documents.drawing import chart_rows, diagram_texts, link_text
from rag_worker.documents.errors import DocumentError
from rag_worker.documents.exponents import raised
from rag_worker.documents.formulas import linear
from rag_worker.documents.looks import (
    WHITE,
    Colour,
    Look,
    Setting,
    hex_colour,
    is_code_style,
    is_monospaced,
)
from rag_worker.documents.numbering import Numbering
from rag_worker.documents.sections import Sections

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_CHART = "{http://schemas.openxmlformats.org/drawingml/2006/chart}chart"
_DIAGRAM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}relIds"
_PAGES = "{http://schemas.openxmlformats.org/officeDocument/2006/extended-properties}Pages"
_OFF = {"0", "false", "off", "none"}
_UNREAD = {
    *(f"{_W}{name}" for name in ("pPr", "rPr", "sdtPr", "del", "moveFrom", "instrText", "rt")),
    *(f"{_W}{name}" for name in ("delText", "tblPr", "tblGrid", "tcPr", "trPr", "sectPr")),
    f"{_MC}Fallback",
}
_BREAKS = {f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}tab": "\t", f"{_W}noBreakHyphen": "-"}
_HIGHLIGHTS = {"white": WHITE, "black": (0, 0, 0), "none": WHITE}
_LETTER_WIDTH = 0.6
"""Of a typewriter's letter, in sizes."""
_TWIPS = 20
"""In a point."""
_LONG_CELL = 1000
"""A cell with more characters holds a part of the document: the table is there for the layout."""
_LINK_FIELD = re.compile(r'\s*HYPERLINK\s+"([^"]+)"')
_PAGE_FIELD = re.compile(r"\s*(PAGE|NUMPAGES|SECTIONPAGES)\b")
# The letters of the font Symbol, in the order of the Latin keys.
_SYMBOL = dict(
    zip(
        "ABGDEZHQIKLMNXOPRSTUFCYWabgdezhqiklmnxoprstufcywVJj",
        "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρστυφχψωςϑφ",
        strict=True,
    )
) | dict(zip("±°´£³®¥Öåò¹»·¶ÑÎÞÛ", "±°×≤≥→∞√∑∫≠≈•∂∇∈⇒⇔", strict=True))


def load_docx(path: Path, sections: Sections) -> int | None:
    """Read a Word document; returns how many pages it has, where the file tells."""
    return _WordReader(Archive(path), sections).read()


@dataclass(slots=True)
class _Paragraph:
    """A paragraph's text with what tells a heading from it."""

    text: str = ""
    verbatim: str = ""  # with its white space, as code needs it
    looks: list[tuple[str, Look]] = field(default_factory=list)
    boxes: list[Any] = field(default_factory=list)
    pages_before: int = 0  # page breaks before its first letter
    pages_inside: int = 0


class _WordReader:
    """Reads the parts of one document into ``sections``."""

    def __init__(self, archive: Archive, sections: Sections) -> None:
        self._archive = archive
        self._sections = sections
        main = next(
            (part for kind, part in archive.relations("").values() if kind == "officeDocument"),
            "word/document.xml",
        )
        self._body = self._archive.xml(main)
        if self._body is None:
            raise DocumentError("It is not a Word document: save it as .docx.")
        related = archive.relations(main)
        self._parts = dict(related.values())
        self._relations = related
        styles = self._archive.xml(self._parts.get("styles", ""))
        self._styles = {
            style.get(f"{_W}styleId", ""): style
            for style in (styles.iter(f"{_W}style") if styles is not None else ())
        }
        defaults = (
            styles.find(f"{_W}docDefaults/{_W}rPrDefault/{_W}rPr") if styles is not None else None
        )
        self._default_look = _with(Look(size=10), defaults)
        self._default_style = next(
            (
                key
                for key, style in self._styles.items()
                if style.get(f"{_W}type") == "paragraph"
                and style.get(f"{_W}default") in ("1", "true")
            ),
            "",
        )
        self._looks: dict[str, Look] = {}
        self._levels: dict[str, int | None] = {}
        self._numbering = Numbering(self._archive.xml(self._parts.get("numbering", "")), _W)
        self._notes = {
            kind: {note.get(f"{_W}id"): note for note in root}
            for kind in ("footnotes", "endnotes")
            if (root := self._archive.xml(self._parts.get(kind, ""))) is not None
        }
        self._cells: dict[Any, str] = {}
        self._paragraphs: dict[Any, _Paragraph] = {}
        self._page: int | None = None
        self._setting = Setting([])

    def read(self) -> int | None:
        """Add the whole text to the sections."""
        body = self._body.find(f"{_W}body")
        if body is None:
            raise DocumentError("It is not a Word document: save it as .docx.")
        pages = self._pages(body)
        paragraphs = [self._paragraph(block) for block in _blocks(body) if block.tag == f"{_W}p"]
        self._setting = Setting([(one.text, one.looks) for one in paragraphs])
        if pages:
            self._page = 1
            self._sections.page(1)
        self._running("header")
        self._blocks(body)
        self._running("footer")
        return pages

    def _pages(self, body: Any) -> int | None:
        """How many pages Word counted, if it marked where each of them begins.

        Word notes its page breaks when it saves; other programs keep stale marks or make none.
        They are trusted only where they add up to the pages that Word itself counted.
        """
        marks = sum(1 for _ in body.iter(f"{_W}lastRenderedPageBreak"))
        properties = self._archive.xml("docProps/app.xml")
        counted = properties.findtext(_PAGES, "") if properties is not None else ""
        return marks + 1 if marks and counted == str(marks + 1) else None

    def _running(self, kind: str) -> None:
        """The first page's header or footer, once: it often names the course and the teacher."""
        section = next(self._body.iter(f"{_W}sectPr"), None)
        if section is None:
            return
        parts = {
            reference.get(f"{_W}type", "default"): self._relations.get(reference.get(f"{_R}id"))
            for reference in section.findall(f"{_W}{kind}Reference")
        }
        title_page = section.find(f"{_W}titlePg")
        first = title_page is not None and title_page.get(f"{_W}val", "1") not in _OFF
        related = parts.get("first" if first else "default")
        root = self._archive.xml(related[1]) if related else None
        if root is None or related is None:
            return
        relations, self._relations = self._relations, self._archive.relations(related[1])
        text = "\n".join(line for line in self._lines(root) if re.search(r"[^\W\d]{3}", line))
        self._relations = relations
        if re.sub(r"(?i)\b(page|página|pág|of|de)\b|[\W\d]", "", text):
            self._sections.paragraph(text)

    def _lines(self, element: Any) -> Iterator[str]:
        """The text inside an element whose structure does not matter, a paragraph a line."""
        for block in _blocks(element):
            if block.tag == f"{_W}p":
                paragraph = self._paragraph(block)
                yield self._numbered(block, paragraph.text)
                for box in paragraph.boxes:
                    yield from self._lines(box)
            else:
                for cells in self._rows(block):
                    yield " | ".join(map(self._cell, cells))

    def _blocks(self, element: Any) -> None:
        for block in _blocks(element):
            if block.tag == f"{_W}p":
                self._add_paragraph(block)
            else:
                self._add_table(block)

    def _add_paragraph(self, element: Any) -> None:
        paragraph = self._paragraph(element)
        self._turn(paragraph.pages_before)
        if any(
            _style_name(style).startswith("toc ") for style in self._chain(self._style_of(element))
        ):
            return  # a line of the table of contents
        level = self._level(element)
        text = self._numbered(element, paragraph.text)
        if level is None and text == paragraph.text and self._is_code(element, paragraph):
            size = paragraph.looks[0][1].size if paragraph.looks else self._default_look.size
            self._sections.code(self._indent(element, size) + paragraph.verbatim)
        else:
            if level is None and not text.startswith("- "):
                level = self._setting.level(paragraph.text, paragraph.looks)
            if level is not None:
                self._sections.heading(level, text)
            else:
                self._sections.paragraph(text)
        for box in paragraph.boxes:
            self._add_drawing(box)
        self._turn(paragraph.pages_inside)

    def _turn(self, pages: int) -> None:
        if self._page is not None and pages:
            self._page += pages
            self._sections.page(self._page)

    def _add_drawing(self, element: Any) -> None:
        if element.tag == f"{_W}txbxContent":
            self._blocks(element)
            return
        reference = element.get(f"{_R}id" if element.tag == _CHART else f"{_R}dm")
        _, part = self._relations.get(reference, ("", ""))
        root = self._archive.xml(part)
        if root is None:
            return
        if element.tag == _CHART:
            self._sections.table(chart_rows(root))
        else:
            self._sections.paragraph("\n".join(diagram_texts(root)))

    def _add_table(self, table: Any) -> None:
        page, marks = self._page, sum(1 for _ in table.iter(f"{_W}lastRenderedPageBreak"))
        rows: list[list[str]] = []
        for cells in self._rows(table):
            # A cell that holds a table or a chapter is there for the layout of the page, and one
            # that holds code is its frame.
            if any(_is_layout(cell) for cell in cells) or self._is_frame(cells):
                self._sections.table(rows)
                rows = []
                for cell in cells:
                    self._blocks(cell)
            else:
                rows.append([self._cell(cell) for cell in cells])
        self._sections.table(rows)
        if page is not None and self._page is not None:
            self._turn(page + marks - self._page)

    def _cell(self, cell: Any) -> str:
        if cell not in self._cells:  # once: reading it counts its list numbers on
            self._cells[cell] = "\n".join(filter(None, self._lines(cell)))
        return self._cells[cell]

    def _rows(self, table: Any) -> Iterator[list[Any]]:
        """The cells of each row; a cell that spans rows is repeated, one that spans columns not."""
        above: dict[int, Any] = {}
        for row in _children(table, f"{_W}tr"):
            properties = row.find(f"{_W}trPr")
            if properties is not None and (
                properties.find(f"{_W}del") is not None or _on(properties.find(f"{_W}hidden"))
            ):
                continue
            cells: list[Any] = []
            column = _number(properties, "gridBefore", 0)
            for cell in _children(row, f"{_W}tc"):
                settings = cell.find(f"{_W}tcPr")
                merged = settings.find(f"{_W}vMerge") if settings is not None else None
                continues = merged is not None and merged.get(f"{_W}val") != "restart"
                cells.append(above.get(column, cell) if continues else cell)
                above[column] = cells[-1]
                column += _number(settings, "gridSpan", 1)
            yield cells

    def _paragraph(self, element: Any) -> _Paragraph:
        if element in self._paragraphs:
            return self._paragraphs[element]
        paragraph = self._paragraphs[element] = _Paragraph()
        parts: list[str] = []
        style = self._style_look(self._style_of(element))
        boxed = any(True for _ in element.iterancestors(f"{_W}txbxContent"))
        ground = None if boxed else _ground(element, style.ground)
        self._runs(element, replace(style, ground=ground), paragraph, parts, [])
        paragraph.verbatim = "".join(parts).expandtabs(4).rstrip()
        paragraph.text = re.sub(" {2,}", " ", "".join(parts).replace("\t", " ")).strip()
        return paragraph

    def _is_code(self, element: Any, paragraph: _Paragraph) -> bool:
        style = self._style_of(element)
        return any(map(is_code_style, map(_style_name, self._chain(style)))) or (
            self._setting.is_code(paragraph.looks)
        )

    def _is_frame(self, cells: list[Any]) -> bool:
        """Whether the only cell of a row holds nothing but code."""
        found = [] if len(cells) != 1 else [*cells[0].iter(f"{_W}p")]
        paragraphs = [(element, self._paragraph(element)) for element in found]
        return any(paragraph.text for _, paragraph in paragraphs) and all(
            self._is_code(element, paragraph) for element, paragraph in paragraphs if paragraph.text
        )

    def _indent(self, element: Any, size: float) -> str:
        """What Word makes of the tab at the beginning of a line of code."""
        properties = [element.find(f"{_W}pPr/{_W}ind")]
        properties += [
            style.find(f"{_W}pPr/{_W}ind") for style in self._chain(self._style_of(element))
        ]
        twips = sum(
            next(
                (
                    int(value)
                    for found in properties
                    if found is not None
                    and re.fullmatch(r"\d{1,5}", value := found.get(f"{_W}{name}", ""))
                ),
                0,
            )
            for name in ("left", "firstLine")
        )
        return " " * round(twips / (_LETTER_WIDTH * size * _TWIPS))

    def _runs(  # noqa: PLR0912 - a case an element
        self, element: Any, look: Look, paragraph: _Paragraph, parts: list[str], fields: list[str]
    ) -> None:
        for child in element:
            tag = child.tag
            if tag == f"{_W}fldChar":
                _follow_field(child, fields, parts)
            elif tag == f"{_W}instrText" and fields:
                fields[-1] += child.text or ""
            elif not isinstance(tag, str) or tag in _UNREAD:
                continue
            elif tag == f"{_W}r":
                run = self._run_look(child, look)
                if run.is_seen:
                    self._runs(child, run, paragraph, parts, fields)
            elif tag == f"{_W}lastRenderedPageBreak":
                if "".join(parts).strip():
                    paragraph.pages_inside += 1
                else:
                    paragraph.pages_before += 1
            elif tag in (f"{_W}txbxContent", _CHART, _DIAGRAM):
                paragraph.boxes.append(child)
            elif tag == f"{_W}hyperlink":
                linked: list[str] = []
                self._runs(child, look, paragraph, linked, fields)
                _, address = self._relations.get(child.get(f"{_R}id"), ("", ""))
                parts.append(link_text("".join(linked), address))
            elif tag == f"{_W}fldSimple" and _PAGE_FIELD.match(child.get(f"{_W}instr", "")):
                continue
            elif text := self._text(child, fields):
                parts.append(raised(text) if look.raised and tag == f"{_W}t" else text)
                paragraph.looks.append((text, look))
            elif tag not in _BREAKS:
                self._runs(child, look, paragraph, parts, fields)

    def _text(self, element: Any, fields: list[str]) -> str:
        """The text that one element inside a paragraph stands for."""
        tag = element.tag
        if tag == f"{_W}t":
            # The number of the page in a header is none of its text.
            return "" if any(map(_PAGE_FIELD.match, fields)) else element.text or ""
        if tag == f"{_M}oMath":
            return f" {linear(element)} "
        if tag in _BREAKS:
            return _BREAKS[tag]
        if tag == f"{_W}sym":
            return _symbol(element)
        if tag in (f"{_W}footnoteReference", f"{_W}endnoteReference"):
            notes = self._notes.get(f"{tag.removeprefix(_W).removesuffix('Reference')}s", {})
            note = notes.get(element.get(f"{_W}id"))
            text = " ".join(self._lines(note)).strip() if note is not None else ""
            return f" (* {text})" if text else ""
        return ""

    def _style_of(self, paragraph: Any) -> str:
        style = paragraph.find(f"{_W}pPr/{_W}pStyle")
        return style.get(f"{_W}val", "") if style is not None else self._default_style

    def _chain(self, style: str) -> list[Any]:
        """The style and those that it is based on; a chain that bites its tail is cut."""
        chain: list[Any] = []
        while style in self._styles and self._styles[style] not in chain and len(chain) < 20:
            chain.append(self._styles[style])
            based_on = chain[-1].find(f"{_W}basedOn")
            style = based_on.get(f"{_W}val", "") if based_on is not None else ""
        return chain

    def _style_look(self, style: str) -> Look:
        if style not in self._looks:
            look = self._default_look
            for element in reversed(self._chain(style)):
                look = _with(look, element.find(f"{_W}rPr"))
            self._looks[style] = look
        return self._looks[style]

    def _run_look(self, run: Any, look: Look) -> Look:
        properties = run.find(f"{_W}rPr")
        if properties is None:
            return look
        style = properties.find(f"{_W}rStyle")
        if style is not None:
            for element in reversed(self._chain(style.get(f"{_W}val", ""))):
                look = _with(look, element.find(f"{_W}rPr"))
        return _with(look, properties)

    def _level(self, paragraph: Any) -> int | None:
        """1 to 9 for a heading; the title counts as 1."""
        direct = paragraph.find(f"{_W}pPr/{_W}outlineLvl")
        if direct is not None:
            return _outline(direct)
        style = self._style_of(paragraph)
        if style not in self._levels:
            self._levels[style] = self._style_level(style)
        return self._levels[style]

    def _style_level(self, style: str) -> int | None:
        for element in self._chain(style):
            name = element.find(f"{_W}name")
            name = name.get(f"{_W}val", "").lower() if name is not None else ""
            outline = element.find(f"{_W}pPr/{_W}outlineLvl")
            if name == "title":
                return 1
            if outline is not None:
                return _outline(outline)
            # Programs other than Word leave the outline level of the built-in styles out.
            if match := re.fullmatch(r"heading ([1-9])", name):
                return int(match[1])
        return None

    def _numbered(self, paragraph: Any, text: str) -> str:
        """The text behind its automatic number or bullet."""
        properties = [paragraph.find(f"{_W}pPr")]
        chain = self._chain(self._style_of(paragraph))
        properties += [style.find(f"{_W}pPr") for style in chain]
        if not text:
            return text
        mark = self._numbering.mark([found for found in properties if found is not None])
        if not mark and any(_style_name(style).startswith("list bullet") for style in chain):
            mark = "-"
        return f"{mark} {text}" if mark else text


def _blocks(element: Any) -> Iterator[Any]:
    """The paragraphs and tables of a story, through content controls and inserted text."""
    for child in element:
        if child.tag in (f"{_W}p", f"{_W}tbl"):
            yield child
        elif isinstance(child.tag, str) and child.tag not in _UNREAD:
            yield from _blocks(child)


def _is_layout(cell: Any) -> bool:
    if cell.find(f".//{_W}tbl") is not None:
        return True
    return sum(len(text.text or "") for text in cell.iter(f"{_W}t")) > _LONG_CELL


def _children(element: Any, tag: str) -> Iterator[Any]:
    """Rows or cells, also those inside content controls."""
    for child in element:
        if child.tag == tag:
            yield child
        elif child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}customXml", f"{_W}ins"):
            yield from _children(child, tag)


def _with(look: Look, properties: Any) -> Look:
    """``look`` as run properties change it."""
    for child in properties if properties is not None else ():
        value = child.get(f"{_W}val", "")
        match str(child.tag).removeprefix(_W):
            case "b":
                look = replace(look, bold=_on(child))
            case "caps" | "smallCaps":
                look = replace(look, capitals=_on(child))
            case "u":
                look = replace(look, underlined=_on(child))
            case "vertAlign" | "position":
                look = replace(look, raised=bool(re.fullmatch(r"superscript|[1-9]\d*", value)))
            case "vanish":
                look = replace(look, hidden=_on(child))
            case "color":
                look = replace(look, colour=hex_colour(value))
            case "shd":
                look = replace(look, ground=_fill(child, look.ground))
            case "highlight":
                look = replace(look, ground=_HIGHLIGHTS.get(value))
            case "rFonts":
                font = child.get(f"{_W}ascii") or child.get(f"{_W}hAnsi")
                if font or child.get(f"{_W}asciiTheme"):
                    look = replace(look, mono=is_monospaced(font or ""))
            case "sz" if value.isdecimal():
                look = replace(look, size=int(value) / 2)
    return look


def _on(element: Any) -> bool:
    return element is not None and element.get(f"{_W}val", "1").lower() not in _OFF


def _ground(paragraph: Any, ground: Colour | None) -> Colour | None:
    """What a paragraph stands on; None in a table whose style may have fills."""
    shade = paragraph.find(f"{_W}pPr/{_W}shd")
    ground = _fill(shade, ground)
    if ground != WHITE:
        return ground
    for cell in paragraph.iterancestors(f"{_W}tc"):
        ground = _fill(cell.find(f"{_W}tcPr/{_W}shd"), WHITE)
        table = next(cell.iterancestors(f"{_W}tbl"), None)
        style = table.find(f"{_W}tblPr/{_W}tblStyle") if table is not None else None
        if ground == WHITE and style is not None:
            ground = WHITE if style.get(f"{_W}val") in ("TableGrid", "TableNormal") else None
        if ground != WHITE:
            return ground
    return WHITE


def _fill(shade: Any, ground: Colour | None) -> Colour | None:
    """The colour of a fill; ``ground`` where it has none."""
    fill = shade.get(f"{_W}fill", "auto").lower() if shade is not None else "auto"
    return ground if fill == "auto" else hex_colour(fill)


def _follow_field(mark: Any, fields: list[str], parts: list[str]) -> None:
    """Keep the instructions of the fields that are open, and the addresses of links."""
    kind = mark.get(f"{_W}fldCharType")
    if kind == "begin":
        fields.append("")
    elif kind == "end" and fields and (link := _LINK_FIELD.match(fields.pop())):
        parts[:] = [link_text("".join(parts), link[1])]


def _number(properties: Any, name: str, default: int) -> int:
    found = properties.find(f"{_W}{name}") if properties is not None else None
    value = found.get(f"{_W}val", "") if found is not None else ""
    return int(value) if value.isdecimal() and len(value) < 5 else default


def _outline(element: Any) -> int | None:
    value = element.get(f"{_W}val", "")
    return int(value) + 1 if re.fullmatch("[0-8]", value) else None


def _style_name(style: Any) -> str:
    name = style.find(f"{_W}name")
    return name.get(f"{_W}val", "").lower() if name is not None else ""


def _symbol(element: Any) -> str:
    """A character of a font with an alphabet of its own."""
    try:
        code = int(element.get(f"{_W}char", ""), 16) & 0xFF
    except ValueError:
        return ""
    if element.get(f"{_W}font", "").lower() == "symbol":
        return _SYMBOL.get(chr(code), chr(code))
    return {0xFE: "☑", 0xFC: "✓", 0xA8: "☐", 0x6F: "☐", 0xE0: "→"}.get(code, "•")
