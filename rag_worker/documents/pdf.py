"""PDF through PDFium, with its text put back into the order and the structure that a reader sees.

A PDF holds letters at places. Lines, columns, paragraphs, headings and tables are found again
from those places here; ``docs/documents.md`` has the measurements behind the choice of PDFium.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import pypdfium2

from rag_worker.documents.errors import DocumentError
from rag_worker.documents.layout import (
    Block,
    Box,
    Line,
    Table,
    Word,
    blocks,
    is_list_item,
    lines_of,
)
from rag_worker.documents.pdf_page import Page, read_page
from rag_worker.documents.sections import Sections

_LARGER = 1.05
"""Headings are set at least this much larger than the text, or in bold, or are numbered."""
_EDGE_LINES = 3
"""Running headers and footers are among this many lines at the top or the bottom."""
_MARGIN = 0.15
"""They stand in this part of the page's height."""
_HEADING_LINES = 3
_LONGEST_HEADING = 150
_LONGEST_NUMBERED = 80
_LONG_HEADING = 45
"""A heading with fewer letters was not broken at the margin: the next one is another."""
_MOSTLY_CODE = 0.7
"""Where more of the text than this is set in a typewriter's font, it is no sign of code."""
_MOSTLY_BOLD = 0.4
_UNNUMBERED = 9
_SAME_EDGE = 6.0
_ENDS_IN_NUMBER = re.compile(r"[^\W\d].*?[\s.…](\d{1,4})$")
_LEADERS = re.compile(r"(\s?[.·…]){4,}")
_CONTENTS = re.compile(
    r"(table of )?contents|([íi]ndice|tabla)( general| de (los )?contenidos?)?|contenidos?|sumario",
    re.IGNORECASE,
)
_SENTENCE_END = (".", ":", "?", "!", "…", ";")
_NUMBERED = re.compile(r"([1-9]\d?(?:\.\d{1,2}){0,4})[.)]?\s+[¿¡«\"“(]?(?=[^\W\d_])")
_DIVISION = re.compile(
    r"(unidad|tema|cap[ií]tulo|m[oó]dulo|parte|secci[oó]n|bloque|anexo|ap[eé]ndice"
    r"|unit|chapter|module|part|section|appendix|lesson|week|lecture)"
    r"\s+(\d{1,2}|[IVX]{1,5}|[A-Z])\b[.:\s–—-]*[^\W\d_]",
    re.IGNORECASE,
)
_PAGE_NUMBER = re.compile(
    r"(p[aá]g(ina|\.)?|page|p\.)?\s*[-–—]?\s*(\d{1,4}|[ivxlc]{1,6})\s*[-–—]?"
    r"(\s*(/|de|of)\s*\d{1,4})?",
    re.IGNORECASE,
)
_OUTER_NUMBER = re.compile(r"^(\d{1,4})\b|\b(\d{1,4})$")


@dataclass(slots=True)
class _Paragraph:
    """Lines that belong together, and their text."""

    lines: list[Line]
    text: str = ""

    @property
    def style(self) -> tuple[float, bool]:
        first = self.lines[0]
        # The number of a section may be larger than its title.
        return round(2 * first.words[-1].size) / 2, first.bold


_Piece = _Paragraph | Table


def load_pdf(
    path: Path,
    sections: Sections,
    max_pages: int,
    recognised: Mapping[int, Sequence[Word]] | None = None,
) -> tuple[int, list[int]]:
    """Read a PDF; ``recognised`` are the words of its scanned pages, by number from 1.

    Returns:
        How many pages it has, and the numbers of those that would have to be recognised: they
        show letters, but the file does not say which.

    Raises:
        DocumentError: it is encrypted, damaged or has more than ``max_pages`` pages.
    """
    with open_pdf(path) as document:
        count = len(document)
        if count > max_pages:
            raise DocumentError(
                f"It has {count} pages and DOCUMENT_MAX_PAGES is {max_pages}: split the file."
            )
        opened = [read_page(document, index) for index in range(count)]
    if opened and not any(opened):
        raise DocumentError("Its pages are damaged: save it again.")
    pages = [page or Page(is_scan=True) for page in opened]
    scanned = [number for number, page in enumerate(pages, start=1) if page.is_scan]
    for number in scanned:
        if recognised and number in recognised:
            pages[number - 1] = Page(list(recognised[number]), box=pages[number - 1].box)
    pages, lines, running = _without_running_lines(_without_code_fonts(pages))
    pieces = [
        []
        if _is_contents(page_lines, count)
        else _pieces(
            [
                *blocks(page.words, page.horizontal, page.vertical, page.bullets),
                *lines_of(page.aside),
            ]
        )
        for page, page_lines in zip(pages, lines, strict=True)
    ]
    _join_pages(pieces, {word.lower() for page in pages for word in _plain_words(page.words)})
    _add(pieces, running, sections)
    return count, [number for number in scanned if number not in (recognised or {})]


def as_words(recognised: Sequence[Sequence[Any]]) -> list[Word]:
    """Recognised words as the layout takes them."""
    return [
        Word(text, Box(left, bottom, right, top), size)
        for text, left, bottom, right, top, size in recognised
    ]


def open_pdf(path: Path) -> pypdfium2.PdfDocument:
    """Open a PDF, to be closed by the caller.

    Raises:
        DocumentError: it is encrypted or damaged.
    """
    try:
        return pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise DocumentError("It is protected by a password: save it without one.") from None
        raise DocumentError("It is damaged or not a PDF: save it again.") from None


def _plain_words(words: Iterable[Word]) -> list[str]:
    return [word.text.strip(".,;:()[]«»\"'¿?¡!") for word in words]


def _without_code_fonts(pages: list[Page]) -> list[Page]:
    words = [word for page in pages for word in page.words]
    letters = sum(len(word.text) for word in words)
    if sum(len(word.text) for word in words if word.mono) <= _MOSTLY_CODE * letters:
        return pages
    return [
        replace(page, words=[replace(word, mono=False) for word in page.words]) for page in pages
    ]


# What repeats on the pages and what lists them.


def _without_running_lines(
    pages: list[Page],
) -> tuple[list[Page], list[list[Line]], list[list[str]]]:
    """The pages without page numbers, and without what repeats at their top or bottom.

    Returns:
        Them; what stands at the same height on each as one line; and what repeats, on the first
        page that has it, for it may be said nowhere else.
    """
    lines = [lines_of(page.words) for page in pages]
    text_size = _text_size(lines)

    def shape(line: Line, number: int) -> str:
        # "Page 3 of 9" runs through the document; a large or bold "Unit 3" is a heading.
        is_heading = line.size > text_size * _LARGER or line.bold
        text = line.text.casefold()
        if is_heading:
            return text
        # Before the number alone: on the last page it is that of the pages, too.
        text = re.sub(rf"\b{number + 1}(\s*(?:/|de|of)\s*){len(pages)}\b", r"#\1#", text)
        return re.sub(rf"\b{number + 1}\b", "#", text)

    edges = [[*page[:_EDGE_LINES], *page[_EDGE_LINES:][-_EDGE_LINES:]] for page in lines]
    filled = sum(1 for page in lines if page)
    times = Counter(
        found
        for number, page in enumerate(edges)
        for found in {shape(line, number) for line in page}
    )
    # Numbers that count up with the pages, whatever stands beside them.
    offsets = Counter(
        offset
        for number, page in enumerate(edges)
        for offset in {value - number for line in page for value in _outer_numbers(line)}
    )
    counting = {offset for offset, found in offsets.items() if found >= 3 and found > 0.4 * filled}

    def repeats(line: Line, number: int) -> bool:
        found = times[shape(line, number)]
        if found > 0.35 * filled:
            return found >= min(filled, 3) > 1
        # The title of a chapter stands above the pages of the chapter only.
        return found >= 3 and line is lines[number][0] and line.size <= text_size * _LARGER

    def counts(line: Line, number: int) -> bool:
        return bool(_PAGE_NUMBER.fullmatch(line.text)) or (
            line.size <= text_size * _LARGER
            and not line.bold
            and len(line.text) < 120
            and any(value - number in counting for value in _outer_numbers(line))
        )

    kept: list[Page] = []
    first: list[list[str]] = []
    shown: set[str] = set()
    for number, (page, page_lines) in enumerate(zip(pages, lines, strict=True)):
        running: list[Line] = []
        first.append([])
        for ordered in (page_lines, page_lines[::-1]):
            for line in ordered[:_EDGE_LINES]:
                is_repeated = repeats(line, number)
                if not _is_in_margin(line, page) or not (is_repeated or counts(line, number)):
                    break
                running.append(line)
                if is_repeated and shape(line, number) not in shown:
                    first[-1].append(_without_page_number(line.text, number + 1))
                shown.add(shape(line, number))
        gone = {id(word) for line in running for word in line.words}
        kept.append(replace(page, words=[word for word in page.words if id(word) not in gone]))
        lines[number] = [line for line in page_lines if line not in running]
    return kept, lines, first


def _without_page_number(text: str, number: int) -> str:
    """A running line without the number at either end; nothing where it is all number."""
    if _PAGE_NUMBER.fullmatch(text):
        return ""
    return re.sub(rf"^{number}\b|\b{number}$", "", text).strip()


def _outer_numbers(line: Line) -> list[int]:
    return [int(first or last) for first, last in _OUTER_NUMBER.findall(line.text)]


def _is_in_margin(line: Line, page: Page) -> bool:
    _, y = line.box.middle
    room = _MARGIN * page.box.height
    return y > page.box.y1 - room or y < page.box.y0 + room


def _is_contents(lines: Sequence[Line], pages: int) -> bool:
    """Whether a page is a table of contents: its lines end in page numbers that only grow."""
    texts = [line.text for line in lines]
    numbers = [int(match[1]) for text in texts if (match := _ENDS_IN_NUMBER.search(text))]
    return (
        # Without a sign of it, it may be a schedule whose rows end in the numbers of chapters.
        (
            sum(bool(_LEADERS.search(text)) for text in texts) >= 0.5 * len(texts)
            or any(_CONTENTS.fullmatch(text) for text in texts[:3])
        )
        and len(numbers) >= 5
        and len(numbers) >= 0.7 * len(lines)
        and numbers == sorted(numbers)
        and numbers[-1] <= pages + numbers[0]
    )


def _text_size(pages: Iterable[Iterable[Line]]) -> float:
    """The font size that most of the text is set in."""
    letters: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            letters[line.size] += len(line.text)
    return letters.most_common(1)[0][0] if letters else 0.0


def _is_mostly_bold(pages: Iterable[Iterable[Line]]) -> bool:
    lines = [line for page in pages for line in page]
    bold = sum(len(line.text) for line in lines if line.bold)
    return bold > _MOSTLY_BOLD * sum(len(line.text) for line in lines)


# Paragraphs.


def _pieces(found: Sequence[Block]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for block in found:
        last = pieces[-1] if pieces else None
        if isinstance(block, Table):
            pieces.append(block)
        elif isinstance(last, _Paragraph) and _belongs(last, block):
            last.lines.append(block)
        else:
            pieces.append(_Paragraph([block]))
    return pieces


def _belongs(paragraph: _Paragraph, line: Line) -> bool:
    """Whether ``line`` goes on with the paragraph, or with its code."""
    before = paragraph.lines[-1]
    if before.mono and line.mono:
        return line.column_starts is False
    if before.mono or line.mono or (before.bold != line.bold and line.starts):
        return False
    if line.column_starts:
        # A sentence goes on at the top of the next column.
        return (
            abs(before.size - line.size) < 0.3
            and not before.text.endswith(_SENTENCE_END)
            and line.text[:1].islower()
        )
    if not line.starts:
        return True
    return not (
        line.apart
        or line.indented
        or is_list_item(line)
        or abs(before.size - line.size) > 0.12 * line.size
        or before.text.endswith(_SENTENCE_END)
    )


def _join_pages(pages: list[list[_Piece]], vocabulary: set[str]) -> None:
    """Write the paragraphs' texts; words and tables cut by the end of a page are made whole."""
    for page in pages:
        for piece in page:
            if isinstance(piece, _Paragraph):
                piece.text = _text(piece.lines, vocabulary)
    for page, following in pairwise(page for page in pages if page):
        last, first = page[-1], following[0]
        if isinstance(last, Table) and isinstance(first, Table):
            _repeat_head(last, first)
        elif isinstance(last, _Paragraph) and isinstance(first, _Paragraph):
            word, _, rest = first.text.partition(" ")
            if _is_cut(last.text) and word[:1].islower():
                last.text = _joined(last.text, word, vocabulary)
                first.text = rest


def _repeat_head(table: Table, following: Table) -> None:
    head, edges = table.rows[0], [*table.edges, float("inf")]
    if (
        len(table.edges) == len(following.edges)
        and abs(edges[0] - following.edges[0]) < _SAME_EDGE
        # What fills a column differs from page to page, and so may the place of its edge.
        and all(
            left < edge < right
            for left, edge, right in zip(edges, following.edges[1:], edges[2:], strict=False)
        )
        and len(head) == len(following.rows[0])
        and head != following.rows[0]
        and not any(character.isdigit() for cell in head for character in cell)
    ):
        following.rows.insert(0, head)


def _text(lines: Sequence[Line], vocabulary: set[str]) -> str:
    if lines[0].mono:
        return _code(lines)
    text = lines[0].text
    for line in lines[1:]:
        if _is_cut(text) and line.text[:1].islower():
            text = _joined(text, line.text, vocabulary)
        elif re.search(r"\w-\n|\d–\n\d", f"{text}\n{line.text}") and not line.starts:
            text += line.text
        else:
            text += ("\n" if line.starts and not line.column_starts else " ") + line.text
    return text


def _is_cut(text: str) -> bool:
    return len(text) > 2 and text.endswith(("-", "\u00ad", "‐")) and text[-2].isalpha()


def _joined(text: str, following: str, vocabulary: set[str]) -> str:
    """Join a word cut at a line's end; where the rest of the text knows it by its hyphen, keep it.

    ``Navier-`` before ``Stokes`` is not even asked about: only small letters follow a cut.
    """
    first = re.split(r"[\s(\[«\"]", text[:-1])[-1].lower()
    match = re.match(r"\w+", following)
    second = match[0].lower() if match else ""
    is_compound = first + second not in vocabulary and (
        f"{first}-{second}" in vocabulary
        or (len(first) > 3 and len(second) > 3 and first in vocabulary and second in vocabulary)
    )
    return (text if is_compound else text[:-1]) + following


def _code(lines: Sequence[Line]) -> str:
    left = min(line.box.x0 for line in lines)
    written: list[str] = []
    for line in lines:
        if line.apart and written:
            written.append("")
        indent = round((line.box.x0 - left) / line.advance)
        written.append(" " * indent + line.text)
    return "\n".join(written)


# Headings.


def _add(
    pages: Sequence[Sequence[_Piece]], running: Sequence[Sequence[str]], sections: Sections
) -> None:
    # Tables may hold most of a syllabus: what is a heading shows beside its prose.
    prose = [
        [line for piece in page if isinstance(piece, _Paragraph) for line in piece.lines]
        for page in pages
    ]
    levels = _heading_levels(pages, _text_size(prose), _is_mostly_bold(prose))
    for number, page in enumerate(pages, start=1):
        sections.page(number)
        for line in running[number - 1]:
            sections.paragraph(line)
        for piece in _with_whole_headings(page, levels):
            if isinstance(piece, Table):
                sections.table(piece.rows)
            elif id(piece) in levels:
                title = " ".join(piece.text.split())
                sections.heading(levels[id(piece)], title.rstrip(" :"))
            else:
                sections.paragraph(piece.text)


def _with_whole_headings(page: Sequence[_Piece], levels: Mapping[int, int]) -> list[_Piece]:
    """The page's pieces; a heading that was broken at the margin is one."""
    found: list[_Piece] = []
    for piece in page:
        last = found[-1] if found else None
        if (
            isinstance(piece, _Paragraph)
            and isinstance(last, _Paragraph)
            and id(piece) in levels
            and id(last) in levels
            and last.style == piece.style
            and not piece.lines[0].apart
            and (len(last.text) > _LONG_HEADING or piece.text[:1].islower())
        ):
            last.text = f"{last.text} {piece.text}"
        else:
            found.append(piece)
    return found


def _heading_levels(
    pages: Sequence[Sequence[_Piece]], text_size: float, is_mostly_bold: bool
) -> dict[int, int]:
    """The levels of the headings, by the identity of their paragraphs.

    The larger is the outer, then bold, then what is only numbered; within one style the number
    decides: 2.1 is inside 2.
    """
    found: list[tuple[_Paragraph, tuple[float, bool]]] = []
    for page in pages:
        for piece, following in zip_longest(page, page[1:]):
            if isinstance(piece, _Paragraph) and (
                _is_large_heading(piece, text_size)
                or (not is_mostly_bold and _is_bold_heading(piece, text_size))
                or _is_numbered_heading(piece, following, text_size)
            ):
                size, bold = piece.style
                is_larger = size > text_size * _LARGER
                found.append((piece, (size, False) if is_larger else (text_size, bold)))
    styles = Counter(style for _, style in found)
    ranks = {
        style: rank
        for rank, style in enumerate(sorted(styles, key=lambda style: (-style[0], not style[1])))
    }
    numbered = Counter(style for piece, style in found if _NUMBERED.match(piece.text))
    levels = {}
    for piece, style in found:
        number = _NUMBERED.match(piece.text)
        depth = number[1].count(".") if number else 0
        if not number and 2 * numbered[style] > styles[style] and not _DIVISION.match(piece.text):
            depth = _UNNUMBERED
        levels[id(piece)] = 1 + ranks[style] * (_UNNUMBERED + 1) + depth
    return levels


def _may_be_heading(piece: _Paragraph) -> bool:
    text = _NUMBERED.sub("", piece.text)
    letters = sum(character.isalpha() for character in text)
    return (
        3 <= len(text) <= _LONGEST_HEADING
        and letters >= 0.4 * len(text)
        and not text.endswith((".", ",", ";"))
        and len(piece.lines) <= _HEADING_LINES
        # Lines that each say "Office: 3.14" are data.
        and not (len(piece.lines) > 1 and all(":" in line.text for line in piece.lines))
        and not piece.lines[0].mono
        and all(len(line.cells) == 1 or _NUMBERED.match(line.text) for line in piece.lines)
    )


def _is_large_heading(piece: _Paragraph, text_size: float) -> bool:
    return piece.lines[0].size > text_size * _LARGER and _may_be_heading(piece)


def _is_bold_heading(piece: _Paragraph, text_size: float) -> bool:
    return (
        piece.lines[0].size >= text_size * 0.95
        and all(line.bold for line in piece.lines)
        and _may_be_heading(piece)
        and (bool(_NUMBERED.match(piece.text)) or not is_list_item(piece.lines[0]))
    )


def _is_numbered_heading(piece: _Paragraph, following: _Piece | None, text_size: float) -> bool:
    """Whether a line says "2.1 …" or "Unidad 2 …" and stands alone."""
    first, number = piece.lines[0], _NUMBERED.match(piece.text)
    return (
        first.size >= text_size * 0.95
        and first.apart
        and len(piece.text) < _LONGEST_NUMBERED
        and _may_be_heading(piece)
        and bool((number and "." in number[1]) or _DIVISION.match(piece.text))
        and (
            not isinstance(following, _Paragraph)
            or following.lines[0].apart
            or following.lines[0].indented
        )
    )
