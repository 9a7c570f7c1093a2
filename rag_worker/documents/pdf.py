"""PDF through PDFium.

LangChain's loaders give a page's text as it is drawn: with running headers, lines cut at the
margin and words cut by hyphens, and without headings.
"""

import re
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
import pypdfium2.raw as pdfium

from rag_worker.documents.errors import DocumentError
from rag_worker.documents.sections import Sections

_FULL_LINE = 0.75
"""A line shorter than this part of the page's longest ends where its author ended it."""
_LARGER = 1.05
"""Headings are set at least this much larger than the text."""
_EDGE_LINES = 2
"""Running headers and footers are among this many lines at the top or the bottom."""
_HEADING_LEVELS = 4
_LONG_HEADING = 45
"""A heading with fewer letters was not broken at the margin: the next one is another."""
_BULLETS = ("•", "–", "▪", "◦", "‣", "- ")
_ENDS_IN_NUMBER = re.compile(r"[^\W\d].*?[\s.](\d{1,4})$")
_SOFT_HYPHEN = "\u00ad"
_PDFIUM_HYPHEN = "\ufffe"
_PAGE_NUMBER = re.compile(
    r"(p[aá]g(ina|\.)?|page|p\.)?\s*[-–—]?\s*(\d{1,4}|[ivxlc]{1,6})\s*[-–—]?"
    r"(\s*(/|de|of)\s*\d{1,4})?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    size: float


def load_pdf(path: Path, sections: Sections, max_pages: int) -> tuple[int, list[int]]:
    """Read a PDF.

    Returns:
        How many pages it has, and the numbers of those that show something but hold no text.

    Raises:
        DocumentError: it is encrypted, damaged or has more than ``max_pages`` pages.
    """
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise DocumentError("It is protected by a password: save it without one.") from None
        raise DocumentError("It is damaged or not a PDF: save it again.") from None
    with document:
        count = len(document)
        if count > max_pages:
            raise DocumentError(
                f"It has {count} pages and DOCUMENT_MAX_PAGES is {max_pages}: split the file."
            )
        pages = [_lines(document, index) for index in range(count)]
        unread = [
            index + 1
            for index, lines in enumerate(pages)
            if not lines and _shows_something(document, index)
        ]
    text_size = _text_size(pages)
    _drop_running_lines(pages, text_size)
    pages = [[] if _is_contents(lines, count) else lines for lines in pages]
    levels = _heading_levels(pages, text_size)
    for number, lines in enumerate(pages, start=1):
        sections.page(number)
        _add_page(lines, levels, sections)
    return count, unread


def _lines(document: pypdfium2.PdfDocument, index: int) -> list[_Line]:
    try:
        page = document[index]
    except pypdfium2.PdfiumError:
        return []
    text_page = page.get_textpage()
    lines: list[_Line] = []
    characters: list[str] = []
    sizes: list[float] = []

    def end_line() -> None:
        text = " ".join("".join(characters).split())
        if text:
            lines.append(_Line(text, round(statistics.median(sizes or [0.0]), 1)))
        characters.clear()
        sizes.clear()

    for at in range(text_page.count_chars()):
        code = pdfium.FPDFText_GetUnicode(text_page, at)
        character = chr(code)  # half a character, where it is outside the basic plane
        if character in "\r\n":
            end_line()
            continue
        characters.append(character)
        if not character.isspace():
            sizes.append(_size(text_page, at))
    end_line()
    text_page.close()
    page.close()
    return [_Line(_joined_surrogates(line.text), line.size) for line in lines]


def _size(text_page: pypdfium2.PdfTextPage, at: int) -> float:
    """The height of the character's font box on the page: its size times the page's scaling."""
    box = pdfium.FS_RECTF()
    if pdfium.FPDFText_GetLooseCharBox(text_page, at, box):
        return float(box.top - box.bottom)
    return 0.0


def _joined_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _shows_something(document: pypdfium2.PdfDocument, index: int) -> bool:
    try:
        return any(True for _ in document[index].get_objects(max_depth=2))
    except pypdfium2.PdfiumError:
        return True


def _text_size(pages: list[list[_Line]]) -> float:
    """The font size that most of the text is set in."""
    letters: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            letters[line.size] += len(line.text)
    return letters.most_common(1)[0][0] if letters else 0.0


def _drop_running_lines(pages: list[list[_Line]], text_size: float) -> None:
    """Remove page numbers, and lines that most pages repeat at their top or bottom."""

    def shape(line: _Line) -> str:
        text = line.text.casefold()
        # "Page 3" runs through the document; a large "Unit 3" is a heading.
        return text if line.size > text_size * _LARGER else re.sub(r"\d+", "#", text)

    edges = Counter(
        edge
        for lines in pages
        for edge in {shape(line) for line in (*lines[:_EDGE_LINES], *lines[-_EDGE_LINES:])}
    )
    filled = sum(1 for lines in pages if lines)
    running = {edge for edge, times in edges.items() if times >= 3 and times > filled / 2}
    for lines in pages:
        for at in (0, -1):
            for _ in range(_EDGE_LINES):
                if lines and (
                    shape(lines[at]) in running or _PAGE_NUMBER.fullmatch(lines[at].text)
                ):
                    del lines[at]


def _is_contents(lines: list[_Line], pages: int) -> bool:
    """Whether a page is a table of contents: its lines end in page numbers that only grow."""
    numbers = [int(match[1]) for line in lines if (match := _ENDS_IN_NUMBER.search(line.text))]
    return (
        len(numbers) >= 5
        and len(numbers) >= 0.7 * len(lines)
        and numbers == sorted(numbers)
        and numbers[-1] <= pages + numbers[0]
    )


def _heading_levels(pages: list[list[_Line]], text_size: float) -> dict[float, int]:
    """Which font sizes are headings: the sizes above the text's, the largest is level 1."""
    larger = sorted(
        {
            line.size
            for lines in pages
            for line in lines
            if line.size > text_size * _LARGER and _may_be_heading(line.text)
        },
        reverse=True,
    )
    return {size: min(at, _HEADING_LEVELS) for at, size in enumerate(larger, start=1)}


def _may_be_heading(text: str) -> bool:
    letters = sum(character.isalpha() for character in text)
    return 3 <= len(text) <= 150 and letters > len(text) / 2 and not text.endswith((".", ",", ";"))


def _add_page(lines: list[_Line], levels: dict[float, int], sections: Sections) -> None:
    longest = max((len(line.text) for line in lines), default=0)
    paragraph: list[str] = []
    heading: list[_Line] = []
    joins = False  # whether the next line continues this one

    def end_paragraph() -> None:
        sections.paragraph("".join(paragraph))
        paragraph.clear()

    def end_heading() -> None:
        if heading:
            sections.heading(levels[heading[0].size], " ".join(line.text for line in heading))
            heading.clear()

    for line in lines:
        if line.size in levels and _may_be_heading(line.text):
            end_paragraph()
            if heading and not _continues(heading[-1], line):
                end_heading()
            heading.append(line)
            continue
        end_heading()
        text = line.text
        if paragraph:
            joins = joins and not text.startswith(_BULLETS)
            if joins and paragraph[-1].endswith((_SOFT_HYPHEN, _PDFIUM_HYPHEN, "-")):
                paragraph[-1] = _without_hyphen(paragraph[-1], text)
            elif joins:
                paragraph.append(" ")
            else:
                paragraph.append("\n")
        paragraph.append(text)
        joins = len(text) >= _FULL_LINE * longest
        if not joins and text.endswith((".", ":", "?", "!", "…")):
            end_paragraph()
    end_heading()
    end_paragraph()


def _continues(heading: _Line, line: _Line) -> bool:
    return heading.size == line.size and (
        len(heading.text) > _LONG_HEADING or line.text[:1].islower()
    )


def _without_hyphen(line: str, following: str) -> str:
    """Join a word cut at the line's end; ``Navier-`` before ``Stokes`` keeps its hyphen."""
    if line.endswith("-") and not following[:1].islower():
        return line
    return line[:-1]
