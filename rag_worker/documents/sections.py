"""What every loader writes into: text under its path of headings, on its page or slide."""

import re
import textwrap
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from rag_worker.documents.errors import DocumentError
from rag_worker.documents.exponents import with_exponents
from rag_worker.documents.limits import MOST_PARAGRAPHS

PATH_SEPARATOR = " › "
_LONGEST_HEADING = 200
# Formulas are typed in alphabets of their own, which search and small models do not know.
_MATHEMATICAL_LETTERS = re.compile("[\U0001d400-\U0001d7ff\ufb00-\ufb06]")
# Neither NUL and its kind nor what nobody sees belongs in a text: characters without width, marks
# that turn the direction of writing, variants, and the tags that hide instructions for models.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufdd0-\ufdef\ufff0-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")


def clean(text: str) -> str:
    """``text`` with ordinary letters and without invisible characters."""
    text = _LINE_ENDS.sub("\n", with_exponents(text)).replace("\u00a0", " ").replace("\u00ad", "")
    text = _MATHEMATICAL_LETTERS.sub(lambda m: unicodedata.normalize("NFKC", m[0]), text)
    return _INVISIBLE.sub("", unicodedata.normalize("NFC", text))


@dataclass(frozen=True, slots=True)
class Section:
    """A text, and where it stands."""

    text: str
    metadata: dict[str, str | int | None]


@dataclass
class Sections:
    """Collects paragraphs and makes a `Section` of each run under one heading on one page.

    Its metadata are ``file``, ``page``, ``slide`` and ``heading`` (the path, joined
    by `` › ``); what a format does not have is None. Paragraphs are separated by an empty line.
    A heading with nothing below it is a text of its own, under the headings above it.
    """

    file: str
    max_characters: int
    _sections: list[Section] = field(default_factory=list)
    _paragraphs: list[str] = field(default_factory=list)
    _headings: dict[int, str] = field(default_factory=dict)
    _page: int | None = None
    _slide: int | None = None
    _code: list[str] = field(default_factory=list)
    _characters: int = 0
    _pieces: int = 0
    _bare: tuple[int | None, int | None] | None = None  # page and slide of a heading without text

    def page(self, number: int) -> None:
        """What follows stands on page ``number``, counted from 1."""
        self._end_section()
        self._page = number

    def slide(self, number: int) -> None:
        """What follows stands on slide ``number``, counted from 1, under no heading yet."""
        self._end_section()
        self._keep_bare_heading()
        self._slide = number
        self._headings.clear()

    def heading(self, level: int, title: str) -> None:
        """What follows stands under ``title``; 1 is the outermost level."""
        title = " ".join(clean(title).split())
        if not title:
            return
        if len(title) > _LONGEST_HEADING:  # a paragraph in a heading's style
            self.paragraph(title)
            return
        self._count(title)
        self._end_section()
        if level <= max(self._headings, default=0):
            self._keep_bare_heading()
        self._headings = {at: text for at, text in self._headings.items() if at < level}
        self._headings[level] = title
        self._bare = self._page, self._slide

    def paragraph(self, text: str) -> None:
        """Add a paragraph; its line ends are kept, for tables and code need them.

        An empty one inside code is an empty line of it.

        Raises:
            DocumentError: the file holds more text than a document does.
        """
        text = clean(text).strip("\n").rstrip()
        if text.strip():
            self._end_code()
            self._count(text)
            self._paragraphs.append(text)
            self._bare = None
        elif self._code:
            self.code("")

    def code(self, lines: str) -> None:
        """Add lines of code: those that follow each other are one paragraph, verbatim."""
        self._count_piece()
        self._code.append(lines)

    def table(self, rows: Iterable[list[str]]) -> None:
        """Add a table, a row a line, its cells joined by `` | ``."""
        lines = []
        for row in rows:
            line = " | ".join(" ".join(clean(cell).split()) for cell in row)
            if line.strip(" |"):
                self._count(line)  # before the whole table is built
                lines.append(line)
        self._characters -= sum(map(len, lines))
        self.paragraph("\n".join(lines))

    def all(self) -> list[Section]:
        """Everything that was added, in order."""
        self._end_section()
        self._keep_bare_heading()
        return self._sections

    def _end_code(self) -> None:
        if self._code:
            code, self._code = textwrap.dedent("\n".join(self._code)), []
            self.paragraph(code)

    def _count_piece(self) -> None:
        self._pieces += 1
        if self._pieces > MOST_PARAGRAPHS:
            raise DocumentError(
                f"It holds more than {MOST_PARAGRAPHS:,} paragraphs, as no document does: "
                "split the file."
            )

    def _count(self, text: str) -> None:
        self._count_piece()
        self._characters += len(text)
        if self._characters > self.max_characters:
            raise DocumentError(
                f"It holds more text than the {self.max_characters:,} characters that "
                "DOCUMENT_MAX_CHARACTERS allows: split the file."
            )

    def _end_section(self) -> None:
        self._end_code()
        if self._paragraphs:
            self._add("\n\n".join(self._paragraphs), self._headings, self._page, self._slide)
            self._paragraphs = []

    def _keep_bare_heading(self) -> None:
        if self._bare and self._headings:
            *above, level = sorted(self._headings)
            parents = {at: self._headings[at] for at in above}
            self._add(self._headings[level], parents, *self._bare)
        self._bare = None

    def _add(
        self, text: str, headings: dict[int, str], page: int | None, slide: int | None
    ) -> None:
        path = PATH_SEPARATOR.join(title for _, title in sorted(headings.items()))
        self._characters += len(path)
        metadata = {"file": self.file, "page": page, "slide": slide, "heading": path or None}
        self._sections.append(Section(text, metadata))
