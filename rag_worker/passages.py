"""Passages: what is found, shown to the model, and quoted."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of one page, slide or section.

    Attributes:
        text: literally as in the document.
        file: the file's path below the course folder, with ``/``.
        page, slide: counted from 1; None where the format has none.
        heading: the path of headings above it, outermost first.
        language: of the whole document, as a two-letter code.
    """

    text: str
    file: str
    page: int | None
    slide: int | None
    heading: str | None
    language: str

    @property
    def embedded_text(self) -> str:
        """What is searched: the text under its headings, which say what it is about."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text

    @property
    def content_hash(self) -> str:
        """The same for the same searched text, whatever the file is called."""
        return hashlib.sha256(self.embedded_text.encode()).hexdigest()
