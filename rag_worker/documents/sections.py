"""What every loader writes into: text under its path of headings, on its page or slide."""

import re
import unicodedata
from dataclasses import dataclass, field

from langchain_core.documents import Document

PATH_SEPARATOR = " › "
_LONGEST_HEADING = 200
# Formulas are typed in alphabets of their own, which search and small models do not know.
_MATHEMATICAL_LETTERS = re.compile("[\U0001d400-\U0001d7ff\ufb00-\ufb06]")
# Neither NUL and its kind nor the marks that turn the direction of writing belong in a text.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def clean(text: str) -> str:
    """``text`` with ordinary letters and without invisible characters."""
    text = text.replace("\u00a0", " ").replace("\u00ad", "")
    text = _MATHEMATICAL_LETTERS.sub(lambda m: unicodedata.normalize("NFKC", m[0]), text)
    return _CONTROLS.sub("", unicodedata.normalize("NFC", text))


@dataclass
class Sections:
    """Collects paragraphs and makes a Document of each run under one heading on one page.

    The metadata of a Document are ``file``, ``page``, ``slide`` and ``heading`` (the path, joined
    by `` › ``); what a format does not have is None. Paragraphs are separated by an empty line.
    """

    file: str
    _documents: list[Document] = field(default_factory=list)
    _paragraphs: list[str] = field(default_factory=list)
    _headings: dict[int, str] = field(default_factory=dict)
    _page: int | None = None
    _slide: int | None = None

    def page(self, number: int) -> None:
        """What follows stands on page ``number``, counted from 1."""
        self._end_section()
        self._page = number

    def slide(self, number: int) -> None:
        """What follows stands on slide ``number``, counted from 1, under no heading yet."""
        self._end_section()
        self._slide = number
        self._headings.clear()

    def heading(self, level: int, title: str) -> None:
        """What follows stands under ``title``; 1 is the outermost level."""
        title = " ".join(clean(title).split())[:_LONGEST_HEADING]
        if not title:
            return
        self._end_section()
        self._headings = {at: text for at, text in self._headings.items() if at < level}
        self._headings[level] = title

    def paragraph(self, text: str) -> None:
        """Add a paragraph; its line ends are kept, for tables and code need them."""
        text = clean(text).strip("\n").rstrip()
        if text.strip():
            self._paragraphs.append(text)

    def table(self, rows: list[list[str]]) -> None:
        """Add a table, a row a line, its cells joined by `` | ``."""
        lines = (" | ".join(" ".join(cell.split()) for cell in row) for row in rows)
        self.paragraph("\n".join(line for line in lines if line.strip(" |")))

    def documents(self) -> list[Document]:
        """Everything that was added, in order."""
        self._end_section()
        return self._documents

    def _end_section(self) -> None:
        if self._paragraphs:
            path = PATH_SEPARATOR.join(title for _, title in sorted(self._headings.items()))
            self._documents.append(
                Document(
                    page_content="\n\n".join(self._paragraphs),
                    metadata={
                        "file": self.file,
                        "page": self._page,
                        "slide": self._slide,
                        "heading": path or None,
                    },
                )
            )
            self._paragraphs = []
