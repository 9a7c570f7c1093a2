"""The columns of a page, and what runs across them."""

import statistics
from collections.abc import Sequence
from itertools import pairwise

from rag_worker.documents.layout.boxes import Box
from rag_worker.documents.layout.tables import Table
from rag_worker.documents.layout.words import GUTTER, Run, rows_of

_COLUMN_LINES = 3
_COLUMN_CHARACTERS = 14
"""A column of prose has at least so many lines, of so many characters on average."""
_PROSE_GAP = 0.8
"""Most of its lines are no farther apart than this, in sizes of the text."""
_MOST_COLUMNS = 6
_MOST_ITEMS = 2_000


Item = Run | Table


def regions(items: list[Item], depth: int = _MOST_COLUMNS) -> list[list[Item]]:
    """The columns of a page, and what runs across them, in the order of reading."""
    rows = rows_of(items)
    found = _columns(rows) if depth and 2 * _COLUMN_LINES <= len(items) <= _MOST_ITEMS else None
    if found is None:
        return [items] if items else []
    first, end, strip = found
    middle = [item for row in rows[first:end] for item in row]
    return [
        *regions([item for row in rows[:first] for item in row], depth - 1),
        *regions([item for item in middle if item.box.middle[0] < strip[0]], depth - 1),
        *regions([item for item in middle if item.box.middle[0] >= strip[0]], depth - 1),
        *regions([item for row in rows[end:] for item in row], depth - 1),
    ]


_Strip = tuple[float, float]


def _columns(rows: Sequence[Sequence[Item]]) -> tuple[int, int, _Strip] | None:
    """The longest sequence of rows, from the first to before the second number, that an empty
    strip parts into columns of prose.
    """
    best: tuple[int, int, _Strip] | None = None
    for start, row in enumerate(rows):
        for left, right in pairwise(sorted(row, key=lambda item: item.box.x0)):
            size = _size_of(left)
            strip = (left.box.x1, right.box.x0)
            if strip[1] - strip[0] < GUTTER * size:
                continue
            end = start + 1
            while end < len(rows):
                narrower = _free(rows[end], strip)
                if narrower[1] - narrower[0] < GUTTER * size:
                    break
                strip = narrower
                end += 1
            end = _column_end(rows, start, end, strip)
            begin = _column_begin(rows, start, strip)
            if (best is None or end - begin > best[1] - best[0]) and _are_columns(
                rows[begin:end], strip
            ):
                best = begin, end, strip
    return best


def _size_of(item: Item) -> float:
    return item.words[0].size if isinstance(item, Run) else 10.0


def _free(row: Sequence[Item], strip: _Strip) -> _Strip:
    """The widest part of the strip in which nothing of the row stands."""
    free, widest = strip[0], (0.0, 0.0)
    boxes = sorted((item.box for item in row), key=lambda box: box.x0)
    for box in [*boxes, Box(strip[1], 0, strip[1], 0)]:
        if box.x1 < strip[0]:
            continue
        until = min(box.x0, strip[1])
        if until - free > widest[1] - widest[0]:
            widest = free, until
        free = max(free, box.x1)
    return widest


def _column_begin(rows: Sequence[Sequence[Item]], start: int, strip: _Strip) -> int:
    """Where the columns begin: the right one may stand a little higher."""
    begin = at = start
    while at and _free(rows[at - 1], strip) == strip:
        at -= 1
        if any(item.box.x0 >= strip[1] - 1 for item in rows[at]):
            begin = at
    return begin


def _column_end(rows: Sequence[Sequence[Item]], start: int, end: int, strip: _Strip) -> int:
    """Where the columns end: a heading or a paragraph below them may be short, too."""
    right = [
        at for at in range(start, end) if any(item.box.x0 >= strip[1] - 1 for item in rows[at])
    ]
    last = right[-1]
    for after, (at, following) in enumerate(reversed([*pairwise(right)]), start=1):
        # A page's number or a caption far below does not make the column longer.
        if after < _COLUMN_LINES and following - at > _COLUMN_LINES:
            last = at
    for at in range(last + 1, end):
        size = _size_of(rows[at - 1][0])
        gap = min(item.box.y0 for item in rows[at - 1]) - max(item.box.y1 for item in rows[at])
        if gap > 0.8 * size or abs(_size_of(rows[at][0]) - size) > 0.1 * size:
            return at
    return end


def _are_columns(rows: Sequence[Sequence[Item]], strip: _Strip) -> bool:
    items = [item for row in rows for item in row]
    return _is_prose([item for item in items if item.box.middle[0] < strip[0]]) and _is_prose(
        [item for item in items if item.box.middle[0] >= strip[0]]
    )


def _is_prose(items: list[Item]) -> bool:
    """Whether one side of a strip is to be read downwards, and is no column of a table."""
    runs = [item for item in items if isinstance(item, Run)]
    rows = rows_of(runs)
    if len(rows) < _COLUMN_LINES:
        return len(runs) < len(items)
    characters = [sum(len(word.text) + 1 for run in row for word in run.words) for row in rows]
    if statistics.mean(characters) < _COLUMN_CHARACTERS:
        return False
    gaps = [
        min(run.box.y0 for run in above) - max(run.box.y1 for run in below)
        for above, below in pairwise(rows)
    ]
    if statistics.median(gaps) > _PROSE_GAP * _size_of(runs[0]):
        return False
    left = min(run.box.x0 for run in runs)
    width = max(run.box.x1 for run in runs) - left
    reach = [max(run.box.x1 for run in row) - left for row in rows]
    return statistics.median(reach) > 0.6 * width
