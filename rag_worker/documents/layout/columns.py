"""The columns of a page, and what runs across them."""

import statistics
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from itertools import pairwise

from rag_worker.documents.layout.boxes import Box, is_same_line
from rag_worker.documents.layout.tables import Table
from rag_worker.documents.layout.words import GUTTER, Run, rows_of

_COLUMN_LINES = 3
_COLUMN_CHARACTERS = 14
"""A column of prose has at least so many lines, of so many characters on average."""
_PROSE_GAP = 0.8
"""Most of its lines are no farther apart than this, in sizes of the text."""
_LINE_GAP = 0.9
"""Lines of a paragraph are no farther apart than this, in sizes of the text."""
_TABLE_ROWS = 2
_LABEL_CHARACTERS = 4
"""A column of fewer characters a line numbers what stands beside it."""
_MOST_COLUMNS = 6
_MOST_ITEMS = 2_000


Item = Run | Table


def regions(items: list[Item], depth: int = _MOST_COLUMNS) -> list[list[Item]]:
    """The columns of a page, and what runs across them, in the order of reading."""
    rows = _rows(items)
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


def _rows(items: Sequence[Item]) -> list[list[Item]]:
    """What stands side by side, from top to bottom: with a table, all lines beside it."""
    rows: list[list[Item]] = rows_of(item for item in items if isinstance(item, Run))
    for table in (item for item in items if isinstance(item, Table)):
        beside = [
            at
            for at, row in enumerate(rows)
            if any(is_same_line(item.box, table.box) for item in row)
        ]
        below = (at for at, row in enumerate(rows) if row[0].box.y1 < table.box.y1)
        first = beside[0] if beside else next(below, len(rows))
        end = beside[-1] + 1 if beside else first
        rows[first:end] = [[table, *(item for row in rows[first:end] for item in row)]]
    return rows


_Strip = tuple[float, float]


def _columns(rows: Sequence[Sequence[Item]]) -> tuple[int, int, _Strip] | None:
    """The longest sequence of rows, from the first to before the second number, that an empty
    strip parts into columns of prose.
    """
    best: tuple[int, int, _Strip] | None = None
    tables: list[tuple[int, int]] = []
    for start, row in enumerate(rows):
        for gap, size in _gaps(row):
            if gap[1] - gap[0] < GUTTER * size:
                continue
            strip = gap
            end = start + 1
            while end < len(rows):
                narrower = _free(rows[end], strip)
                if narrower[1] - narrower[0] < GUTTER * size:
                    break
                strip = narrower
                end += 1
            end = _column_end(rows, start, end, strip)
            begin = _column_begin(rows, start, strip)
            is_in_table = any(first <= begin and end <= last for first, last in tables)
            if is_in_table or (best and end - begin <= best[1] - best[0]):
                continue
            kind = _kind(rows[begin:end], strip)
            if kind is _Kind.COLUMNS:
                best = begin, end, strip
            elif kind is _Kind.TABLE:
                tables.append((begin, end))
    return best


def _gaps(row: Sequence[Item]) -> Iterator[tuple[_Strip, float]]:
    """Where nothing of the row stands, and the size of what is left of it."""
    by_side = sorted(row, key=lambda item: item.box.x0)
    left = by_side[0]
    for right in by_side[1:]:
        if right.box.x0 > left.box.x1:
            yield (left.box.x1, right.box.x0), _size_of(left)
        if right.box.x1 > left.box.x1:
            left = right


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


class _Kind(Enum):
    """What rows with an empty strip through them are."""

    COLUMNS = auto()
    TABLE = auto()
    OTHER = auto()


def _kind(rows: Sequence[Sequence[Item]], strip: _Strip) -> _Kind:
    """Whether each side of the strip is to be read downwards, or across it, as a table is.

    What stands beside each other in a table begins together; a list beside prose goes its way.
    """
    left, right = (
        [[item for item in row if (item.box.middle[0] < strip[0]) is is_left] for row in rows]
        for is_left in (True, False)
    )
    prose = [_is_prose([item for row in side for item in row]) for side in (left, right)]
    words = [word for row in rows for item in row if isinstance(item, Run) for word in item.words]
    is_code = sum(word.mono for word in words) > len(words) / 2
    if is_code or not any(prose):
        return _Kind.COLUMNS if all(prose) else _Kind.OTHER
    beside = [*zip(_beginnings(left), _beginnings(right), strict=True)]
    pairs = [pair for pair in beside if all(pair)]
    together = [pair for pair in pairs if set(pair) <= {_Begins.LATER, _Begins.APART}]
    alone = [pair for pair in pairs if _Begins.NOT in pair and len(set(pair)) > 1]
    has_first_cells = not any(
        first is None and second in (_Begins.LATER, _Begins.APART) for first, second in beside[1:]
    )
    apart = sum(_Begins.APART in pair for pair in together)
    if has_first_cells and apart >= _TABLE_ROWS and len(together) > 2 * len(alone):
        return _Kind.TABLE
    if all(prose):
        return _Kind.COLUMNS
    wide, narrow = (left, right) if prose[0] else (right, left)
    goes_on = sum(pair[prose.index(True)] is _Begins.NOT for pair in alone)
    labels = [sum(map(_characters, row)) for row in narrow if row]
    is_list = (
        goes_on >= _COLUMN_LINES
        and goes_on > 2 * len(together)
        and statistics.median(len(row) for row in wide if row) == 1
        and statistics.mean(labels) > _LABEL_CHARACTERS
    )
    return _Kind.COLUMNS if is_list else _Kind.OTHER


class _Begins(Enum):
    """Whether a line begins something, or goes on with the line above it."""

    NOT = auto()  # the line above has no room for its first word, in small letters
    PERHAPS = auto()
    LATER = auto()  # the line above has room for its first word
    APART = auto()  # there is room between the lines


def _beginnings(side: Sequence[Sequence[Item]]) -> list[_Begins | None]:
    """What the line of each row does; None for the first, and where there is none."""
    found: list[_Begins | None] = []
    edge = max((item.box.x1 for row in side for item in row), default=0.0)
    above: Sequence[Item] = ()
    for row in side:
        first = row[0] if row else None
        if not above or not isinstance(first, Run):
            found.append(None)
        else:
            word, size = first.words[0], _size_of(first)
            room = edge - max(item.box.x1 for item in above)
            if min(item.box.y0 for item in above) - first.box.y1 > _LINE_GAP * size:
                found.append(_Begins.APART)
            elif room > word.box.width + 0.4 * size or first.box.x0 < above[0].box.x0 - size:
                found.append(_Begins.LATER)
            else:
                found.append(_Begins.NOT if word.text[:1].islower() else _Begins.PERHAPS)
        above = row or above
    return found


def _characters(item: Item) -> int:
    return sum(len(word.text) for word in item.words) if isinstance(item, Run) else 0


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
