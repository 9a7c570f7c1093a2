"""Word, PowerPoint and OpenDocument text: zip archives of XML.

LangChain's loaders for them give a file as one text, without headings, slides or formulas.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docx
import pptx
from docx.document import Document as WordDocument
from docx.table import Table as WordTable
from docx.text.paragraph import Paragraph as WordParagraph
from lxml import etree

from rag_worker.documents.errors import DocumentError
from rag_worker.documents.formulas import linear
from rag_worker.documents.sections import Sections

_ENCRYPTED = "It is protected by a password: save it without one."
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # Office wraps encrypted files in its older container
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}oMath"
_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_COMPATIBILITY = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_BIG_MEMBER = 10 * 2**20
_HIGHEST_RATIO = 200
_EXPANSION = 10


def check_archive(path: Path, max_bytes: int) -> None:
    """Refuse an archive that is encrypted, damaged or a zip bomb, without unpacking it.

    Raises:
        DocumentError: why.
    """
    with path.open("rb") as file:
        if file.read(len(_OLE)) == _OLE:
            raise DocumentError(_ENCRYPTED)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, EOFError):
        raise DocumentError("It is damaged: save it again.") from None
    if any(member.flag_bits & 1 for member in members):
        raise DocumentError(_ENCRYPTED)
    bombs = [
        member
        for member in members
        if member.file_size > _BIG_MEMBER
        and member.file_size > _HIGHEST_RATIO * max(1, member.compress_size)
    ]
    if bombs or sum(member.file_size for member in members) > _EXPANSION * max_bytes:
        raise DocumentError("It unpacks to far more than its size, as a zip bomb does.")


def load_docx(path: Path, sections: Sections) -> None:
    """Read a Word document: headings by their style's outline level. Word stores no pages."""
    document = docx.Document(str(path))
    _word_blocks(document, sections)


def _word_blocks(document: WordDocument, sections: Sections) -> None:
    for block in document.iter_inner_content():
        if isinstance(block, WordTable):
            # A merged cell is listed once for every column it covers.
            rows = [
                ["\n".join(_word_text(p._p) for p in cell.paragraphs) for cell in _unmerged(row)]
                for row in block.rows
            ]
            sections.table(rows)
        else:
            text = _word_text(block._p)
            level = _outline_level(block)
            if level:
                sections.heading(level, text)
            else:
                sections.paragraph(f"- {text}" if _is_list_item(block) and text else text)


def _unmerged(row: Any) -> Iterator[Any]:
    seen = set()
    for cell in row.cells:
        if cell._tc not in seen:
            seen.add(cell._tc)
            yield cell


def _word_text(paragraph: Any) -> str:
    parts: list[str] = []
    _word_runs(paragraph, parts)
    return "".join(parts).strip()


def _word_runs(element: Any, parts: list[str]) -> None:
    for child in element:
        if child.tag == _MATH:
            parts.append(f" {linear(child)} ")
        elif child.tag == f"{_WORD}t":
            parts.append(child.text or "")
        elif child.tag in (f"{_WORD}tab", f"{_WORD}br", f"{_WORD}cr"):
            parts.append("\n" if child.tag != f"{_WORD}tab" else " ")
        elif child.tag not in (f"{_WORD}pPr", f"{_WORD}del", f"{_COMPATIBILITY}Fallback"):
            _word_runs(child, parts)


def _outline_level(paragraph: WordParagraph) -> int | None:
    """1 to 9 for a heading; the title counts as 1."""
    style = paragraph.style
    while style is not None:
        if style.name == "Title":
            return 1
        levels = style.element.findall(f"{_WORD}pPr/{_WORD}outlineLvl")
        if levels:
            level = int(levels[0].get(f"{_WORD}val", "9"))
            return level + 1 if level < 9 else None
        # Programs other than Word leave the outline level of the built-in styles out.
        if style.name and style.name.startswith("Heading ") and style.name[8:].isdigit():
            return int(style.name[8:])
        style = style.base_style
    return None


def _is_list_item(paragraph: WordParagraph) -> bool:
    name = (paragraph.style.name or "") if paragraph.style is not None else ""
    return name.startswith("List ") or paragraph._p.find(f"{_WORD}pPr/{_WORD}numPr") is not None


def load_pptx(path: Path, sections: Sections) -> int:
    """Read a presentation, the speaker's notes included; returns how many slides it has."""
    presentation = pptx.Presentation(str(path))
    for number, slide in enumerate(presentation.slides, start=1):
        sections.slide(number)
        title = slide.shapes.title
        if title is not None:
            sections.heading(1, _drawing_text(title._element))
        for shape in slide.shapes:
            if title is None or shape.shape_id != title.shape_id:
                _shape(shape._element, sections)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            sections.paragraph(slide.notes_slide.notes_text_frame.text)
    return len(presentation.slides)


def _shape(element: Any, sections: Sections) -> None:
    """Add the tables and paragraphs inside a shape or a group of shapes."""
    tables = list(element.iter(f"{_DRAWING}tbl"))
    for table in tables:
        rows = [
            [_drawing_text(cell) for cell in row.iter(f"{_DRAWING}tc")]
            for row in table.iter(f"{_DRAWING}tr")
        ]
        sections.table(rows)
    if not tables:
        for body in element.iter(f"{_DRAWING}p"):
            if not any(
                parent.tag == f"{_COMPATIBILITY}Fallback" for parent in body.iterancestors()
            ):
                sections.paragraph(_drawing_text(body))


def _drawing_text(element: Any) -> str:
    parts: list[str] = []
    _drawing_runs(element, parts)
    return "".join(parts).strip()


def _drawing_runs(element: Any, parts: list[str]) -> None:
    for child in element:
        if child.tag == _MATH:
            parts.append(f" {linear(child)} ")
        elif child.tag == f"{_DRAWING}t":
            parts.append(child.text or "")
        elif child.tag == f"{_DRAWING}br":
            parts.append("\n")
        elif child.tag != f"{_COMPATIBILITY}Fallback":
            _drawing_runs(child, parts)
            if child.tag == f"{_DRAWING}p":
                parts.append("\n")


_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_DRAW = "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_ODT_SKIPPED = {f"{_TEXT}tracked-changes", f"{_OFFICE}annotation", f"{_TEXT}sequence-decls"}


class OdtReader:
    """Reads the XML of an OpenDocument text itself: odfpy drops embedded formulas."""

    def __init__(self, archive: zipfile.ZipFile, sections: Sections) -> None:
        self._archive = archive
        self._names = set(archive.namelist())
        self._sections = sections
        # No entities are expanded and nothing is fetched, whatever the file declares.
        self._parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)

    def read(self) -> None:
        """Add the whole text to the sections."""
        body = self._xml("content.xml").find(f"{_OFFICE}body/{_OFFICE}text")
        if body is None:
            raise DocumentError("It is not an OpenDocument text: save it as .odt.")
        self._blocks(body)

    def _xml(self, name: str) -> Any:
        return etree.fromstring(self._archive.read(name), self._parser)

    def _blocks(self, element: Any, prefix: str = "") -> None:
        for child in element:
            if not isinstance(child.tag, str) or child.tag in _ODT_SKIPPED:
                continue
            if child.tag == f"{_TEXT}h":
                level = int(child.get(f"{_TEXT}outline-level", "1"))
                self._sections.heading(level, self._inline(child))
            elif child.get(f"{_TEXT}style-name") == "Title":
                self._sections.heading(1, self._inline(child))
            elif child.tag == f"{_TEXT}p":
                text = self._inline(child).strip()
                self._sections.paragraph(prefix + text if text else "")
            elif child.tag == f"{_TABLE}table":
                rows = [
                    [self._inline(cell) for cell in row.iter(f"{_TABLE}table-cell")]
                    for row in child.iter(f"{_TABLE}table-row")
                ]
                self._sections.table(rows)
            else:
                self._blocks(child, "- " if child.tag == f"{_TEXT}list-item" else prefix)

    def _inline(self, element: Any) -> str:
        parts = [element.text or ""]
        for child in element:
            if isinstance(child.tag, str) and child.tag not in _ODT_SKIPPED:
                parts.append(self._inline_element(child))
            parts.append(child.tail or "")
        return "".join(parts)

    def _inline_element(self, child: Any) -> str:
        if child.tag in (f"{_TEXT}s", f"{_TEXT}tab"):
            return " "
        if child.tag in (f"{_TEXT}line-break", f"{_TEXT}p"):
            return f"{self._inline(child)}\n"
        if child.tag == f"{_DRAW}object":
            name = f"{child.get(_HREF, '').removeprefix('./').strip('/')}/content.xml"
            return f" {linear(self._xml(name))} " if name in self._names else ""
        return self._inline(child)


def load_odt(path: Path, sections: Sections) -> None:
    """Read an OpenDocument text. Its pages exist only when it is laid out."""
    with zipfile.ZipFile(path) as archive:
        if b"manifest:encryption-data" in archive.read("META-INF/manifest.xml"):
            raise DocumentError(_ENCRYPTED)
        OdtReader(archive, sections).read()
