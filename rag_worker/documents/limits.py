"""What a file may cost."""

from dataclasses import dataclass

from rag_worker.documents.errors import DocumentError

MOST_PARAGRAPHS = 200_000
"""A textbook of a thousand pages has about fifteen thousand."""
_MOST_TAGS = 3_000_000
_NO_MEMORY = 2
"""libxml2's XML_ERR_NO_MEMORY."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may cost: megabytes, pages, seconds of reading, and what comes out of it.

    Attributes:
        max_unpacked_mb: what the parts of an office file may hold together, unpacked.
        max_characters: how much text a file may hold.
    """

    max_mb: float
    max_pages: int
    seconds: float
    max_unpacked_mb: float = 500
    max_characters: int = 10_000_000


def check_markup(markup: str | bytes) -> None:
    """Refuse XML or HTML with more elements than a document has, before it becomes a tree.

    Raises:
        DocumentError: it holds too many.
    """
    if (markup.count("<") if isinstance(markup, str) else markup.count(b"<")) > _MOST_TAGS:
        raise DocumentError(
            f"It holds more than {_MOST_TAGS:,} tags, as no document does: split the file."
        )


def check_memory(error: Exception) -> None:
    """Raise what a parser's error is where memory ran out: lxml takes it for one of the syntax.

    Raises:
        MemoryError: it is one.
    """
    if getattr(error, "code", None) == _NO_MEMORY:
        raise MemoryError from None
