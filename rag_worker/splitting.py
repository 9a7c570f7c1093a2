"""Documents to passages, along their own structure."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby

from langchain_core.documents import Document

from rag_worker.documents.sections import PATH_SEPARATOR
from rag_worker.language import document_language, sentences
from rag_worker.passages import Passage

PASSAGE_CHARACTERS = 1400
"""A passage's longest text, about 350 tokens. Measured against 500 to 2,000 on syllabi and on
joined articles (``docs/retrieval.md``)."""
SHORTEST_PIECE = 560
"""A section that is too long is not cut into pieces shorter than this."""
SMALL_SECTION = 420
"""A section shorter than this shares a passage with its neighbours on the same page."""
_DETECTION_CHARACTERS = 20_000
_BLANK_LINE = re.compile(r"\n{2,}")
_LINE_END = re.compile(r"\n")
_WORD_END = re.compile(r"\s+")
_LIST_ITEM = re.compile(r"(?:[-*•]|\(?\w{1,3}[.)])\s")
_CELL = " | "
_FURTHER = "further"


class _Break(IntEnum):
    """How well a passage may begin at a piece of text."""

    NEVER = 0  # an announcement ("… the following:") comes before it
    INSIDE = 1  # a further sentence of a paragraph, a row of a table, a line of code
    ITEM = 2
    PARAGRAPH = 3


@dataclass(frozen=True, slots=True)
class _Unit:
    """A piece of a section that stays whole; ``table_head`` is the first row of its table."""

    begin: int
    end: int
    before: _Break
    table_head: str | None = None


def split(documents: Iterable[Document]) -> list[Passage]:
    """The passages of one file's documents, in order; none spans two pages or slides.

    Sections are kept whole where they fit. Longer ones are cut between paragraphs, else between
    items, rows or sentences; every text is literally in its document. Where a table is cut, its
    first row joins the heading path of the further pieces. Of equally good places the one is
    taken whose following text has the smallest hash: places that do not move when something far
    away is inserted or removed, so that a small change makes few new passages.
    """
    documents = list(documents)
    sample = "\n".join(document.page_content for document in documents)[:_DETECTION_CHARACTERS]
    language = document_language(sample)
    passages: list[Passage] = []
    for _, same_page in groupby(
        documents, key=lambda document: (document.metadata["page"], document.metadata["slide"])
    ):
        for document in _merge_small(same_page):
            place = dict(document.metadata)
            further = place.pop(_FURTHER, [])
            for begin, text, table_head in _pieces(document.page_content):
                # A piece may begin in any of the sections that share the text.
                above = [path for at, path in further if at <= begin]
                headings = [above[-1] if above else document.metadata["heading"], table_head]
                place["heading"] = PATH_SEPARATOR.join(filter(None, headings)) or None
                inside = [(at - begin, path) for at, path in further if 0 < at - begin < len(text)]
                place["further"] = "\n".join(f"{at} {path or ''}" for at, path in inside) or None
                if re.search(r"\w", text):
                    passages.append(Passage(text=text, language=language, **place))
    return passages


def _pieces(text: str) -> Iterator[tuple[int, str, str | None]]:
    """Where pieces begin, their literal text, and the table head each lacks.

    None is longer than a passage.
    """
    units = list(_units(text))
    start = 0
    while start < len(units):
        stop = _next_start(units, start, text)
        head = units[start].table_head
        begin = units[start].begin
        yield begin, text[begin : units[stop - 1].end], head
        start = stop


def _next_start(units: Sequence[_Unit], start: int, text: str) -> int:
    """The unit before which the passage that begins at ``start`` ends."""

    def size(first: int, stop: int) -> int:
        return units[stop - 1].end - units[first].begin

    if size(start, len(units)) <= PASSAGE_CHARACTERS:
        return len(units)
    longest = start + 1
    while size(start, longest + 1) <= PASSAGE_CHARACTERS:
        longest += 1
    fitting = range(start + 1, longest + 1)
    candidates = [
        at
        for at in fitting
        if size(start, at) >= SHORTEST_PIECE and size(at, len(units)) >= SHORTEST_PIECE
    ]

    def fitness(at: int) -> tuple[_Break, bytes]:
        following = text[units[at].begin : units[at].end]
        return units[at].before, hashlib.sha256(following.encode()).digest()

    return max(candidates or fitting[-1:], key=fitness)


def _units(text: str) -> Iterator[_Unit]:
    announced = False
    for begin, end in _spans(text, _BLANK_LINE, 0, len(text)):
        paragraph = text[begin:end]
        before = _Break.ITEM if _LIST_ITEM.match(paragraph) else _Break.PARAGRAPH
        if announced:
            before = _Break.NEVER
        announced = paragraph.endswith(":")
        if end - begin <= PASSAGE_CHARACTERS:
            yield _Unit(begin, end, before)
            continue
        lines = paragraph.split("\n")
        is_table = sum(_CELL in line for line in lines) > len(lines) / 2
        for number, (first, last) in enumerate(_small_spans(text, begin, end)):
            is_continued = number > 0
            yield _Unit(
                first,
                last,
                _Break.INSIDE if is_continued else before,
                lines[0][:SMALL_SECTION] if is_table and is_continued else None,
            )


def _small_spans(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The lines of a long paragraph, the sentences of long lines, the words of long sentences."""
    for line in _spans(text, _LINE_END, begin, end):
        if line[1] - line[0] <= PASSAGE_CHARACTERS:
            yield line
            continue
        for first, last in sentences(text[line[0] : line[1]]):
            sentence = line[0] + first, line[0] + last
            if last - first <= PASSAGE_CHARACTERS:
                yield sentence
            else:
                yield from _words(text, *sentence)


def _words(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    for first, last in _spans(text, _WORD_END, begin, end):
        for at in range(first, last, PASSAGE_CHARACTERS):
            yield at, min(last, at + PASSAGE_CHARACTERS)


def _spans(
    text: str, separator: re.Pattern[str], begin: int, end: int
) -> Iterator[tuple[int, int]]:
    start = begin
    for match in separator.finditer(text, begin, end):
        if match.start() > start:
            yield start, match.start()
        start = match.end()
    if start < end:
        yield start, end


def _merge_small(documents: Iterable[Document]) -> list[Document]:
    """Join short neighbouring sections; each keeps its own heading as a line of its text."""
    merged: list[Document] = []
    for document in documents:
        if merged and _fit_together(merged[-1], document):
            merged[-1] = _join(merged[-1], document)
        else:
            merged.append(document)
    return merged


def _fit_together(first: Document, second: Document) -> bool:
    sizes = len(first.page_content), len(second.page_content)
    return (
        min(sizes) < SMALL_SECTION
        and sum(sizes) < PASSAGE_CHARACTERS
        # Parent and child, or neighbours below one heading: chapters stay apart.
        and len(_common_path(first, second)) >= max(len(_path(first)), len(_path(second))) - 1
    )


def _common_path(first: Document, second: Document) -> list[str]:
    common = []
    for one, other in zip(_path(first), _path(second), strict=False):
        if one != other:
            break
        common.append(one)
    return common


def _path(document: Document) -> list[str]:
    heading = document.metadata["heading"]
    return heading.split(PATH_SEPARATOR) if heading else []


def _join(first: Document, second: Document) -> Document:
    title = _path(second)[-1] if _path(second) and _path(first) != _path(second) else ""
    text = "\n\n".join(filter(None, [first.page_content, title, second.page_content]))
    further = list(first.metadata.get(_FURTHER, []))
    if title:
        further.append((len(first.page_content) + len("\n\n"), second.metadata["heading"]))
    # The first section's heading places the passage; the second's stands in the text.
    return Document(page_content=text, metadata=first.metadata | {_FURTHER: further})
