"""What a file may cost."""

from dataclasses import dataclass


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
