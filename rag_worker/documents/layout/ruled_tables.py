"""Tables with ruling lines."""

import functools
from bisect import bisect_left
from collections.abc import Sequence

from rag_worker.documents.layout.boxes import Box, around
from rag_worker.documents.layout.lines import lines_of
from rag_worker.documents.layout.tables import Table, wrapped
from rag_worker.documents.layout.words import Word, rows_of, runs_of

_TOUCHING = 3.0
"""Ruling lines that end this close to each other, points, meet."""
_SHORTEST_RULE = 6.0
"""A shorter line, points, is the bar of a fraction."""
_MOST_RULES = 3_000
_LARGEST_CELL = 2_500
"""A cell with more text is a frame around a page, not a cell."""
_REPEATED_CELL = 80
"""What a shorter cell says is repeated in every row that it spans."""


def ruled_tables(
    words: list[Word], horizontal: Sequence[Box], vertical: Sequence[Box]
) -> tuple[list[Table], list[Word]]:
    """The tables, and the words outside of them."""
    horizontal = [rule for rule in horizontal if rule.width >= _SHORTEST_RULE]
    if not horizontal or len(horizontal) + len(vertical) > _MOST_RULES:
        return [], words
    tables = []
    for rules, down in _grids(horizontal, vertical):
        across, area = rules, around([*rules, *down])
        if not down:
            across, area = _with_head(words, across, area)
        inside = [word for word in words if area.holds(word.box.middle, 1.0)]
        table = _ruled_table(inside, across, down, area)
        if table:
            tables.append(table)
            taken = set(map(id, inside))
            words = [word for word in words if id(word) not in taken]
    return tables, words


def _with_head(words: Sequence[Word], across: list[Box], area: Box) -> tuple[list[Box], Box]:
    """Take the head of a table that has no line above it."""
    above = [
        word
        for word in words
        if area.x0 - 2 <= word.box.x0
        and word.box.x1 <= area.x1 + 2
        and area.y1 <= word.box.middle[1] < area.y1 + 5 * word.size
    ]
    top = area.y1
    for line in reversed(lines_of(above)):
        if line.box.y0 - top > 0.8 * line.size:
            break
        top = line.box.y1
    if top == area.y1:
        return across, area
    edge = Box(area.x0, top, area.x1, top)
    return [*across, edge], area.union(edge)


def _grids(horizontal: Sequence[Box], vertical: Sequence[Box]) -> list[tuple[list[Box], list[Box]]]:
    """Ruling lines that meet, and sets of lines below each other from the same x to the same x."""
    parent = list(range(len(horizontal) + len(vertical)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    def meet(first: Box, second: Box) -> bool:
        return (
            first.x0 - _TOUCHING <= second.x1
            and second.x0 - _TOUCHING <= first.x1
            and first.y0 - _TOUCHING <= second.y1
            and second.y0 - _TOUCHING <= first.y1
        )

    rules = [*horizontal, *vertical]
    order = sorted(range(len(rules)), key=lambda at: rules[at].x0)
    active: list[int] = []
    for at in order:
        active = [other for other in active if rules[other].x1 + _TOUCHING >= rules[at].x0]
        for other in active:
            if meet(rules[at], rules[other]):
                parent[root(at)] = root(other)
        active.append(at)
    groups: dict[object, tuple[list[Box], list[Box]]] = {}
    alone: dict[int, list[Box]] = {}
    members: dict[int, list[int]] = {}
    for at in range(len(rules)):
        members.setdefault(root(at), []).append(at)
    for number, group in members.items():
        across = [rules[at] for at in group if at < len(horizontal)]
        down = [rules[at] for at in group if at >= len(horizontal)]
        if down and across:
            groups[number] = across, down
        elif across:
            alone[number] = across
    # Lines that meet nothing: tables ruled only between their rows.
    for across in alone.values():
        box = around(across)
        key = ("open", round(box.x0 / 4), round(box.x1 / 4))
        groups.setdefault(key, ([], []))[0].append(box)
    return [(across, down) for across, down in groups.values() if len(across) >= 2]


def _ruled_table(words: list[Word], across: list[Box], down: list[Box], area: Box) -> Table | None:
    ys = _merged([rule.middle[1] for rule in across] + ([area.y0, area.y1] if down else []))[::-1]
    if len(ys) < 2 or not words:
        return None
    if down:
        xs = _merged([rule.middle[0] for rule in down] + [area.x0, area.x1])
    else:
        if len(ys) < 3:
            return None
        xs = _open_columns(words, area)
    if len(xs) < 3:
        return None
    grid: list[list[list[Word]]] = [[[] for _ in xs[1:]] for _ in ys[1:]]
    rising = ys[::-1]
    for word in words:
        x, y = word.box.middle
        row = min(max(len(ys) - 1 - bisect_left(rising, y), 0), len(ys) - 2)
        column = min(max(bisect_left(xs, x) - 1, 0), len(xs) - 2)
        grid[row][column].append(word)
    if down:
        rows = _spanned_rows(grid, xs, ys, across, down)
    elif len(ys) >= 5:
        rows = [[_cell_text(cell) for cell in row] for row in grid]
    else:
        rows = [cells for row in grid for cells in _open_rows(row)]
    rows = [row for row in rows if any(row)]
    columns = [at for at in range(len(xs) - 1) if any(row[at] for row in rows)]
    rows = [[row[at] for at in columns] for row in rows]
    filled = sum(1 for row in rows for cell in row if cell)
    if (
        len(rows) < 2
        or len(columns) < 2
        or filled < 0.3 * len(rows) * len(columns)
        or max(len(cell) for row in rows for cell in row) > _LARGEST_CELL
    ):
        return None
    return Table(rows, area, xs)


def _merged(values: Sequence[float]) -> list[float]:
    merged: list[float] = []
    for value in sorted(values):
        if not merged or value - merged[-1] > _TOUCHING:
            merged.append(value)
    return merged


def _open_columns(words: list[Word], area: Box) -> list[float]:
    """The columns' edges where no ruling lines say them: strips that no line of words crosses."""
    boxes = sorted((run.box for run in runs_of(words)), key=lambda box: box.x0)
    edges = [area.x0]
    reach = boxes[0].x1
    for box in boxes:
        if box.x0 > reach + 4:
            edges.append((reach + box.x0) / 2)
        reach = max(reach, box.x1)
    return [*edges, area.x1]


def _open_rows(cells: list[list[Word]]) -> list[list[str]]:
    """The rows between two ruling lines: each begins with a line that has a first cell."""
    lines = rows_of(runs_of([word for cell in cells for word in cell]))
    column_of = {id(word): at for at, cell in enumerate(cells) for word in cell}
    rows: list[list[list[Word]]] = []
    for line in lines:
        placed: list[list[Word]] = [[] for _ in cells]
        for run in line:
            for word in run.words:
                placed[column_of[id(word)]].append(word)
        if not rows or placed[0]:
            rows.append(placed)
        else:
            for cell, more in zip(rows[-1], placed, strict=True):
                cell.extend(more)
    return [[_cell_text(cell) for cell in row] for row in rows]


def _cell_text(words: list[Word]) -> str:
    return functools.reduce(wrapped, (line.text.strip() for line in lines_of(words)), "")


def _spanned_rows(
    grid: list[list[list[Word]]],
    xs: Sequence[float],
    ys: Sequence[float],
    across: Sequence[Box],
    down: Sequence[Box],
) -> list[list[str]]:
    """The rows' texts; cells between which no line is drawn are one."""
    width, height = len(xs) - 1, len(ys) - 1

    def ruled(rules: Sequence[Box], x: float, y: float) -> bool:
        return any(rule.holds((x, y), _TOUCHING) for rule in rules)

    right = [
        [ruled(down, xs[c + 1], (ys[r] + ys[r + 1]) / 2) for c in range(width)]
        for r in range(height)
    ]
    below = [
        [ruled(across, (xs[c] + xs[c + 1]) / 2, ys[r + 1]) for c in range(width)]
        for r in range(height)
    ]
    owner = {(r, c): (r, c) for r in range(height) for c in range(width)}
    for r in range(height):
        for c in range(width):
            if c and not right[r][c - 1]:
                owner[r, c] = owner[r, c - 1]
            elif r and not below[r - 1][c]:
                owner[r, c] = owner[r - 1, c]
    held: dict[tuple[int, int], list[Word]] = {}
    for (r, c), first in owner.items():
        held.setdefault(first, []).extend(grid[r][c])
    texts = {first: _cell_text(words) for first, words in held.items() if words}
    rows = []
    for r in range(height):
        row = []
        for c in range(width):
            first = owner[r, c]
            text = texts.get(first, "")
            spans_down = first[0] < r and first[1] == c
            shown = first == (r, c) or (spans_down and len(text) <= _REPEATED_CELL)
            row.append(text if shown else "")
        # A row that only repeats what spans it is no row.
        if any(owner[r, c][0] == r and texts.get(owner[r, c]) for c in range(width)):
            rows.append(row)
    return rows
