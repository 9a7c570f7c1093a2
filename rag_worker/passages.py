"""Passages: what is found, shown to the model, and quoted; and the windows they are searched by."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from rag_worker.documents.sections import PATH_SEPARATOR
from rag_worker.language import sentences

WINDOW_CHARACTERS = 250
"""Sentences share a window up to this length. A question is about one sentence or one row, and a
vector of a whole passage blurs it: ``docs/retrieval.md`` has the figures."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of one page, slide or section.

    Attributes:
        text: literally as in the document.
        file: the file's path below the course folder, with ``/``.
        page, slide: counted from 1; None where the format has none.
        heading: the path of headings above it, outermost first.
        language: of the whole document, as a two-letter code.
        further: where sections after the first begin in the text, a line for each: the character
            and the path of headings. The title of such a section stands there in the text.
    """

    text: str
    file: str
    page: int | None
    slide: int | None
    heading: str | None
    language: str
    further: str | None = None

    def sections(self) -> list[tuple[int, int, str | None]]:
        """Begin and end of each section in the text, without its title, and its heading path."""
        starts: list[tuple[int, str | None]] = [(0, self.heading)]
        for line in (self.further or "").splitlines():
            at, _, path = line.partition(" ")
            starts.append((int(at), path or None))
        ends = [*(at for at, _ in starts[1:]), len(self.text)]
        return [
            (_after_title(self.text, at, end, path) if at else at, end, path)
            for (at, path), end in zip(starts, ends, strict=True)
        ]

    def section_at(self, at: int) -> tuple[int, int, str | None]:
        """The one of the sections that a character of the text stands in."""
        sections = self.sections()
        return next((section for section in sections if at < section[1]), sections[-1])

    @property
    def searched_text(self) -> str:
        """The text under its headings, which say what it is about."""
        return self._under_headings(self.text)

    def windows(self) -> Iterator[str]:
        """The sentences and rows of the text, the shortest ones together; joined they are it."""
        begin = end = 0
        for _, sentence_end in sentences(self.text):
            if end > begin and sentence_end - begin > WINDOW_CHARACTERS:
                yield self.text[begin:end]
                begin = end
            end = sentence_end
        yield self.text[begin:]

    def embedded_text(self, window: str) -> str:
        """What a window's vector is made of."""
        return self._under_headings(window.strip())

    def _under_headings(self, text: str) -> str:
        return f"{self.heading}\n{text}" if self.heading else text


def _after_title(text: str, begin: int, end: int, path: str | None) -> int:
    title = (path or "").split(PATH_SEPARATOR)[-1]
    after = begin + len(title)
    if title and text.startswith(title, begin) and after < end:
        return after + len(text[after:end]) - len(text[after:end].lstrip("\n"))
    return begin


def content_hash(text: str) -> str:
    """The same for the same embedded text, whatever its file is called."""
    return hashlib.sha256(text.encode()).hexdigest()
