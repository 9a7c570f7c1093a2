"""Cells that span rows, for the formats that say so in their first row only."""

from collections.abc import Iterable, Iterator

_MOST_ROWS = 1_000
_MOST_COLUMNS = 1_000

Cell = tuple[str | None, int, int]
"""Its text, None where nobody sees it, and how many rows and columns it spans."""


def with_spans(rows: Iterable[Iterable[Cell]]) -> Iterator[list[str]]:
    """The rows' texts: a cell that spans rows is repeated, one that spans columns is not."""
    spanning: dict[int, tuple[int, str]] = {}  # by column: rows still covered, and the text

    def spanned(column: int) -> str:
        left, text = spanning.pop(column)
        if left > 1:
            spanning[column] = left - 1, text
        return text

    for row in rows:
        texts: list[str] = []
        column = 0
        begun: dict[int, tuple[int, str]] = {}
        for text, height, width in row:
            while column in spanning:
                texts.append(spanned(column))
                column += 1
            if text is not None:
                texts.append(text)
                if height > 1:
                    begun[column] = min(height, _MOST_ROWS) - 1, text
            column += min(width, _MOST_COLUMNS)
        texts += [spanned(at) for at in sorted(spanning) if at >= column]
        spanning |= begun
        yield texts
