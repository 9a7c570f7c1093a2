"""OpenDocument texts. The XML is read here: odfpy drops embedded formulas."""

import functools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rag_worker.documents.archive import ENCRYPTED, Archive
from rag_worker.documents.drawing import link_text
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
from rag_worker.documents.numbering import spelled
from rag_worker.documents.sections import Sections
from rag_worker.documents.spans import Cell, with_spans

_NAMESPACE = "urn:oasis:names:tc:opendocument:xmlns:"
_TEXT = f"{{{_NAMESPACE}text:1.0}}"
_TABLE = f"{{{_NAMESPACE}table:1.0}}"
_OFFICE = f"{{{_NAMESPACE}office:1.0}}"
_DRAW = f"{{{_NAMESPACE}drawing:1.0}}"
_STYLE = f"{{{_NAMESPACE}style:1.0}}"
_META = f"{{{_NAMESPACE}meta:1.0}}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_MATH = "{http://www.w3.org/1998/Math/MathML}math"
_SKIPPED = {
    *(f"{_TEXT}{name}" for name in ("tracked-changes", "sequence-decls", "table-of-content")),
    *(f"{_TEXT}{name}" for name in ("hidden-text", "note-citation")),
    *(f"{_OFFICE}{name}" for name in ("annotation", "annotation-end", "forms")),
}
_LINES = {f"{_TEXT}{name}" for name in ("line-break", "p", "h", "list-item")}
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
        self._looks: dict[tuple[str, Look], Look] = {}
        self._styles: dict[str, Any] = {}
        self._lists: dict[str, Any] = {}
        for root in (archive.xml("styles.xml"), self._root):
            for style in root.iter(f"{_STYLE}style") if root is not None else ():
                self._styles[style.get(f"{_STYLE}name", "")] = style
            for style in root.iter(f"{_TEXT}list-style") if root is not None else ():
                self._lists[style.get(f"{_STYLE}name", "")] = style
        self._plain_look = functools.reduce(
            _with,
            (
                style
                for root in (archive.xml("styles.xml"), self._root)
                for style in (root.iter(f"{_STYLE}default-style") if root is not None else ())
                if style.get(f"{_STYLE}family") == "paragraph"
            ),
            Look(),
        )
        self._setting = Setting([])
        self._counts: dict[tuple[str, int], int] = {}  # the last number of each list's level
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
        self._setting = Setting(
            [
                (self._inline(element).strip(), list(self._runs(element, self._plain_look)))
                for element in body.iter(f"{_TEXT}p")
                if next(element.iterancestors(f"{_TABLE}table"), None) is None
            ]
        )
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
            if not self._is_read(child):
                continue
            if child.tag == f"{_TEXT}h":
                level = child.get(f"{_TEXT}outline-level", "1")
                self._sections.heading(int(level) if level.isdecimal() else 1, self._inline(child))
            elif child.get(f"{_TEXT}style-name") == "Title":
                self._sections.heading(1, self._inline(child))
            elif child.tag == f"{_TEXT}p":
                self._paragraph(child)
            elif child.tag == f"{_TEXT}list":
                self._list(child, "", 1)
            elif child.tag == f"{_TABLE}table":
                self._sections.table(with_spans(self._rows(child)))
            elif child.tag == f"{_TEXT}soft-page-break":
                self._turn(1)
                continue
            else:
                self._blocks(child)
                continue
            self._turn(sum(1 for _ in child.iter(f"{_TEXT}soft-page-break")))

    def _paragraph(self, element: Any) -> None:
        text = self._inline(element).strip()
        runs = list(self._runs(element, self._plain_look))
        if self._setting.is_code(runs) or self._is_code_style(element):
            self._sections.code(self._inline(element, verbatim=True).rstrip())
            return
        level = self._setting.level(text, runs)
        if level is None:
            self._sections.paragraph(text)
        else:
            self._sections.heading(level, text)

    def _is_code_style(self, element: Any) -> bool:
        names = [
            style.get(f"{_STYLE}display-name", style.get(f"{_STYLE}name", "").replace("_20_", " "))
            for style in self._chain(element.get(f"{_TEXT}style-name", ""))
        ]
        return any(map(is_code_style, names))

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
        goes_on = element.get(f"{_TEXT}continue-numbering") == "true"
        goes_on = goes_on or element.get(f"{_TEXT}continue-list") is not None
        number = self._counts.get((style, level), 0) if goes_on else 0
        for item in element:
            if item.tag not in (f"{_TEXT}list-item", f"{_TEXT}list-header"):
                continue
            number += item.tag == f"{_TEXT}list-item"
            self._counts[style, level] = number
            mark = f"{_mark(definition, number)} " if item.tag == f"{_TEXT}list-item" else ""
            for child in item:
                if child.tag == f"{_TEXT}list":
                    self._list(child, style, level + 1)
                elif child.tag in (f"{_TEXT}p", f"{_TEXT}h") and not self._is_hidden(child):
                    text = self._inline(child).strip()
                    self._sections.paragraph(mark + text if text else "")
                    mark = "" if text else mark

    def _rows(self, table: Any) -> Iterator[list[Cell]]:
        for row in _children(table, f"{_TABLE}table-row"):
            yield [
                (
                    self._inline(cell),
                    _int(cell.get(f"{_TABLE}number-rows-spanned")),
                    _int(cell.get(f"{_TABLE}number-columns-spanned")),
                )
                for cell in row.iterchildren(f"{_TABLE}table-cell")
            ]

    def _inline(self, element: Any, *, verbatim: bool = False) -> str:
        """The text inside ``element``; ``verbatim`` keeps the white space of code."""
        parts = [element.text or ""]
        for child in element:
            if self._is_read(child):
                parts.append(self._inline_element(child, verbatim=verbatim))
            parts.append(child.tail or "")
        return "".join(parts) if verbatim else re.sub(" {2,}", " ", "".join(parts))

    def _inline_element(self, child: Any, *, verbatim: bool) -> str:
        name = child.tag
        if name in (f"{_TEXT}s", f"{_TEXT}tab"):
            text = " " * (4 if name == f"{_TEXT}tab" else _int(child.get(f"{_TEXT}c")))
        elif name == _MATH:
            text = f" {linear(child)} "
        elif name == f"{_DRAW}object" and child.get(_HREF):
            text = self._object(child.get(_HREF, ""))
        elif name == f"{_TABLE}table-row":
            text = f"{' | '.join(cell.strip() for cell in map(self._inline, child))}\n"
        else:
            text = self._inline(child, verbatim=verbatim)
            if name in _LINES:
                text = f"{text}\n"
            elif name == f"{_TEXT}span":
                is_raised = self._look(child.get(f"{_TEXT}style-name", ""), Look()).raised
                text = raised(text) if is_raised else text
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

    def _is_read(self, element: Any) -> bool:
        known = isinstance(element.tag, str) and element.tag not in _SKIPPED
        return known and not self._is_hidden(element)

    def _is_hidden(self, element: Any) -> bool:
        if element.get(f"{_TEXT}display") == "none" or element.get(f"{_TABLE}visibility"):
            return str(element.get(f"{_TABLE}visibility", "collapse")) != "visible"
        if element.tag == f"{_TEXT}hidden-paragraph":
            return str(element.get(f"{_TEXT}is-hidden")) == "true"
        look = self._look(element.get(f"{_TEXT}style-name", ""), Look())
        return not look.is_seen and not replace(look, ground=self._ground(element)).is_seen

    def _ground(self, element: Any) -> Colour | None:
        """What the text of ``element`` stands on; None in a frame, which may be filled."""
        for around in (element, *element.iterancestors()):
            if around.tag == f"{_DRAW}frame":
                return None
            for name in (f"{_TEXT}style-name", f"{_TABLE}style-name"):
                ground = self._look(around.get(name, ""), Look()).ground
                if ground != WHITE:
                    return ground
        return WHITE

    def _look(self, name: str, look: Look) -> Look:
        """``look`` as a style and those that it is based on change it."""
        if (name, look) not in self._looks:
            self._looks[name, look] = functools.reduce(_with, reversed(self._chain(name)), look)
        return self._looks[name, look]

    def _chain(self, name: str) -> list[Any]:
        """The style and those that it is based on; a chain that bites its tail is cut."""
        chain: list[Any] = []
        while name in self._styles and self._styles[name] not in chain and len(chain) < 20:
            chain.append(self._styles[name])
            name = chain[-1].get(f"{_STYLE}parent-style-name", "")
        return chain

    def _runs(self, element: Any, look: Look) -> Iterator[tuple[str, Look]]:
        """The text of a paragraph in pieces that each look alike."""
        look = self._look(element.get(f"{_TEXT}style-name", ""), look)
        yield element.text or "", look
        for child in element:
            if self._is_read(child):
                yield from self._runs(child, look)
            yield child.tail or "", look


def _with(look: Look, style: Any) -> Look:
    """``look`` as the properties of a style change it."""
    values = {
        name.rpartition("}")[2]: value.lower()
        for properties in style
        for name, value in properties.attrib.items()
    }
    for name, value in values.items():
        match name:
            case "font-weight":
                look = replace(look, bold=value in ("bold", "600", "700", "800", "900"))
            case "text-transform" | "font-variant":
                look = replace(look, capitals=value in ("uppercase", "small-caps"))
            case "text-underline-style":
                look = replace(look, underlined=value != "none")
            case "text-position":
                look = replace(look, raised=bool(re.match(r"super|[1-9]", value)))
            case "display":
                look = replace(look, hidden=value == "none")
            case "color":
                look = replace(look, colour=hex_colour(value))
            case "background-color":
                look = replace(look, ground=WHITE if value == "transparent" else hex_colour(value))
            case "font-name" | "font-family":
                look = replace(look, mono=is_monospaced(value))
            case "font-size" if match := re.fullmatch(r"(\d+\.?\d*)(pt|%)", value):
                size = float(match[1]) * (1 if match[2] == "pt" else look.size / 100)
                look = replace(look, size=round(size, 1))
    return look


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
