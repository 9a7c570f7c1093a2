"""OpenDocument texts. The XML is read here: odfpy drops embedded formulas."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag_worker.documents.archive import ENCRYPTED, Archive
from rag_worker.documents.drawing import link_text
from rag_worker.documents.errors import DocumentError
from rag_worker.documents.formulas import linear
from rag_worker.documents.numbering import spelled
from rag_worker.documents.sections import Sections

_NAMESPACE = "urn:oasis:names:tc:opendocument:xmlns:"
_TEXT = f"{{{_NAMESPACE}text:1.0}}"
_TABLE = f"{{{_NAMESPACE}table:1.0}}"
_OFFICE = f"{{{_NAMESPACE}office:1.0}}"
_DRAW = f"{{{_NAMESPACE}drawing:1.0}}"
_STYLE = f"{{{_NAMESPACE}style:1.0}}"
_META = f"{{{_NAMESPACE}meta:1.0}}"
_FO = f"{{{_NAMESPACE}xsl-fo-compatible:1.0}}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_MATH = "{http://www.w3.org/1998/Math/MathML}math"
_SKIPPED = {
    *(f"{_TEXT}{name}" for name in ("tracked-changes", "sequence-decls", "table-of-content")),
    *(f"{_TEXT}{name}" for name in ("hidden-text", "note-citation")),
    *(f"{_OFFICE}{name}" for name in ("annotation", "annotation-end", "forms")),
}
_LINES = {f"{_TEXT}{name}" for name in ("line-break", "p", "h", "list-item")}
_SMALLEST = 2
"""Points: smaller text is there to be hidden."""
_NUMBERS = {
    "1": "decimal",
    "a": "lowerLetter",
    "A": "upperLetter",
    "i": "lowerRoman",
    "I": "upperRoman",
}


def load_odt(path: Path, sections: Sections) -> int | None:
    """Read an OpenDocument text; returns how many pages it has, where the file tells.

    Raises:
        DocumentError: it is encrypted, damaged or something else.
    """
    archive = Archive(path)
    if archive.contains("META-INF/manifest.xml", b"encryption-data"):
        raise DocumentError(ENCRYPTED)
    return _OdtReader(archive, sections).read()


class _OdtReader:
    """Reads the parts of one document into ``sections``."""

    def __init__(self, archive: Archive, sections: Sections) -> None:
        self._archive = archive
        self._sections = sections
        self._root = archive.xml("content.xml")
        self._hidden: dict[str, bool] = {}
        self._styles: dict[str, Any] = {}
        self._lists: dict[str, Any] = {}
        for root in (archive.xml("styles.xml"), self._root):
            for style in root.iter(f"{_STYLE}style") if root is not None else ():
                self._styles[style.get(f"{_STYLE}name", "")] = style
            for style in root.iter(f"{_TEXT}list-style") if root is not None else ():
                self._lists[style.get(f"{_STYLE}name", "")] = style
        self._page: int | None = None

    def read(self) -> int | None:
        """Add the whole text to the sections."""
        body = self._root.find(f"{_OFFICE}body/{_OFFICE}text") if self._root is not None else None
        if body is None:
            raise DocumentError("It is not an OpenDocument text: save it as .odt.")
        pages = self._pages(body)
        if pages:
            self._page = 1
            self._sections.page(1)
        self._blocks(body)
        return pages

    def _pages(self, body: Any) -> int | None:
        """How many pages there are, where the noted page breaks add up to the noted number."""
        breaks = sum(1 for _ in body.iter(f"{_TEXT}soft-page-break"))
        meta = self._archive.xml("meta.xml")
        statistic = (
            next(meta.iter(f"{_META}document-statistic"), None) if meta is not None else None
        )
        counted = statistic.get(f"{_META}page-count") if statistic is not None else None
        return breaks + 1 if breaks and counted == str(breaks + 1) else None

    def _blocks(self, element: Any) -> None:
        for child in element:
            if not isinstance(child.tag, str) or child.tag in _SKIPPED or self._is_hidden(child):
                continue
            if child.tag == f"{_TEXT}h":
                level = child.get(f"{_TEXT}outline-level", "1")
                self._sections.heading(int(level) if level.isdecimal() else 1, self._inline(child))
            elif child.get(f"{_TEXT}style-name") == "Title":
                self._sections.heading(1, self._inline(child))
            elif child.tag == f"{_TEXT}p":
                self._sections.paragraph(self._inline(child).strip())
            elif child.tag == f"{_TEXT}list":
                self._list(child, "", 1)
            elif child.tag == f"{_TABLE}table":
                self._sections.table(self._rows(child))
            elif child.tag == f"{_TEXT}soft-page-break":
                self._turn(1)
                continue
            else:
                self._blocks(child)
                continue
            self._turn(sum(1 for _ in child.iter(f"{_TEXT}soft-page-break")))

    def _turn(self, pages: int) -> None:
        if self._page is not None and pages:
            self._page += pages
            self._sections.page(self._page)

    def _list(self, element: Any, style: str, level: int) -> None:
        style = element.get(f"{_TEXT}style-name", style)
        definition = next(
            (
                found
                for found in self._lists.get(style, ())
                if found.get(f"{_TEXT}level") == str(level)
            ),
            None,
        )
        number = 0
        for item in element:
            if item.tag not in (f"{_TEXT}list-item", f"{_TEXT}list-header"):
                continue
            number += item.tag == f"{_TEXT}list-item"
            mark = f"{_mark(definition, number)} " if item.tag == f"{_TEXT}list-item" else ""
            for child in item:
                if child.tag == f"{_TEXT}list":
                    self._list(child, style, level + 1)
                elif child.tag in (f"{_TEXT}p", f"{_TEXT}h") and not self._is_hidden(child):
                    text = self._inline(child).strip()
                    self._sections.paragraph(mark + text if text else "")
                    mark = "" if text else mark

    def _rows(self, table: Any) -> Iterator[list[str]]:
        """A cell that spans rows is repeated, one that spans columns is not."""
        spanning: dict[int, tuple[int, str]] = {}  # by column: rows still covered, and the text
        for row in _children(table, f"{_TABLE}table-row"):
            texts, column = [], 0
            for cell in row:
                if cell.tag == f"{_TABLE}covered-table-cell":
                    rows, text = spanning.get(column, (0, ""))
                    if rows:
                        spanning[column] = rows - 1, text
                        texts.append(text)
                elif cell.tag == f"{_TABLE}table-cell":
                    texts.append(self._inline(cell))
                    rows = _int(cell.get(f"{_TABLE}number-rows-spanned"))
                    spanning[column] = rows - 1, texts[-1]
                column += _int(cell.get(f"{_TABLE}number-columns-repeated"))
            yield texts

    def _inline(self, element: Any) -> str:
        parts = [element.text or ""]
        for child in element:
            known = isinstance(child.tag, str) and child.tag not in _SKIPPED
            if known and not self._is_hidden(child):
                parts.append(self._inline_element(child))
            parts.append(child.tail or "")
        return re.sub(" {2,}", " ", "".join(parts))

    def _inline_element(self, child: Any) -> str:
        name = child.tag
        if name in (f"{_TEXT}s", f"{_TEXT}tab"):
            text = " "
        elif name == _MATH:
            text = f" {linear(child)} "
        elif name == f"{_DRAW}object" and child.get(_HREF):
            text = self._object(child.get(_HREF, ""))
        elif name == f"{_TABLE}table-row":
            text = f"{' | '.join(cell.strip() for cell in map(self._inline, child))}\n"
        else:
            text = self._inline(child)
            if name in _LINES:
                text = f"{text}\n"
            elif name == f"{_TEXT}note":
                text = f" (* {' '.join(text.split())})"
            elif name == f"{_TEXT}a":
                text = link_text(text, child.get(_HREF, ""))
            elif name == f"{_DRAW}text-box":
                text = f"\n{text}"
        return text

    def _object(self, address: str) -> str:
        """An embedded document: a formula, or a chart with its text."""
        root = self._archive.xml(f"{address.removeprefix('./').strip('/')}/content.xml")
        if root is None:
            return ""
        if root.tag.rpartition("}")[2].rpartition(":")[2] == "math":
            return f" {linear(root)} "
        body = root.find(f"{_OFFICE}body")
        return f" {self._inline(body)} " if body is not None else ""

    def _is_hidden(self, element: Any) -> bool:
        if element.get(f"{_TEXT}display") == "none" or element.get(f"{_TABLE}visibility"):
            return str(element.get(f"{_TABLE}visibility", "collapse")) != "visible"
        if element.tag == f"{_TEXT}hidden-paragraph":
            return str(element.get(f"{_TEXT}is-hidden")) == "true"
        style = element.get(f"{_TEXT}style-name")
        return style is not None and self._hides(style)

    def _hides(self, name: str) -> bool:
        """Whether a style makes text that nobody sees: hidden, white on nothing, or tiny."""
        if name not in self._hidden:
            self._hidden[name] = False  # a style that is its own parent ends here
            display = color = background = size = ""
            at, seen = name, 0
            while at in self._styles and seen < 20:
                style, seen = self._styles[at], seen + 1
                for found in style:
                    display = display or found.get(f"{_TEXT}display", "")
                    color = color or found.get(f"{_FO}color", "")
                    background = background or found.get(f"{_FO}background-color", "")
                    size = size or found.get(f"{_FO}font-size", "")
                at = style.get(f"{_STYLE}parent-style-name", "")
            points = re.fullmatch(r"([\d.]+)pt", size)
            self._hidden[name] = (
                display == "none"
                or (color.lower() == "#ffffff" and background in ("", "transparent", "#ffffff"))
                or (points is not None and float(points[1] or 9) <= _SMALLEST)
            )
        return self._hidden[name]


def _children(element: Any, tag: str) -> Iterator[Any]:
    """Rows, also those in row groups and headers."""
    for child in element:
        if child.tag == tag:
            yield child
        elif isinstance(child.tag, str) and child.tag.startswith(f"{_TABLE}table-"):
            yield from _children(child, tag)


def _mark(definition: Any, number: int) -> str:
    if definition is None or definition.tag != f"{_TEXT}list-level-style-number":
        return "-"
    kind = _NUMBERS.get(definition.get(f"{_STYLE}num-format", ""))
    if kind is None:
        return "-"
    first = _int(definition.get(f"{_TEXT}start-value"))
    prefix = definition.get(f"{_STYLE}num-prefix", "")
    suffix = definition.get(f"{_STYLE}num-suffix", ".")
    return f"{prefix}{spelled(first + number - 1, kind)}{suffix}".strip()


def _int(value: str | None) -> int:
    return int(value[:6]) if value and value.isdecimal() else 1
