"""Tables without ruling lines: rows whose cells stand below each other."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from rag_worker.documents.layout.boxes import Box
from rag_worker.documents.layout.lines import Line
from rag_worker.documents.layout.tables import Table, wrapped

_CLEAR_GAP = 1.5
"""Where they are so far apart, two rows make a table, else three."""


def aligned_tables(lines: list[Line]) -> list[Line | Table]:
    """The lines, tables in the place of those that are their rows."""
    found: list[Line | Table] = []
    at = 0
    while at < len(lines):
        end = at
        while end < len(lines) and _fits_table(lines, at, end):
            end += 1
        while end > at and len(lines[end - 1].cells) < 2 and not _continues_row(lines, end - 1):
            end -= 1
        rows = lines[at:end]
        split = [line for line in rows if len(line.cells) >= 2]
        if len(split) >= (2 if all(map(_is_clear, split)) else 3):
            edges = _column_edges(rows)
            if len(edges) >= 2:
                found.append(_aligned_table(rows, edges))
                at = end
                continue
        found.append(lines[at])
        at += 1
    return found


def _is_clear(line: Line) -> bool:
    return any(
        right.x0 - left.x1 > _CLEAR_GAP * line.size
        for (left, _), (right, _) in pairwise(line.cells)
    )


def _fits_table(lines: list[Line], start: int, at: int) -> bool:
    line = lines[at]
    if line.mono or line.size > 1.3 * lines[start].size:
        return False
    if at > start and line.gap > 2.5 * line.size:
        return False
    if len(line.cells) >= 2:
        return not _is_formula(line)
    return at > start and _continues_row(lines, at)


def _is_formula(line: Line) -> bool:
    letters = sum(character.isalnum() for character in line.text)
    return letters < 0.5 * len(line.text.replace(" ", "").replace(".", ""))


def _continues_row(lines: list[Line], at: int) -> bool:
    """Whether a line with one cell goes on with a cell of the row above."""
    if at == 0 or lines[at].apart:
        return False
    box = lines[at].box
    cells = next((line.cells for line in reversed(lines[:at]) if len(line.cells) >= 2), [])
    return any(
        abs(cell.x0 - box.x0) < 3 and (number > 0 or box.x1 < cells[1][0].x0)
        for number, (cell, _) in enumerate(cells)
    )


def _column_edges(rows: Sequence[Line]) -> list[float]:
    """The left edges of the columns that the cells of all rows leave apart."""
    boxes = sorted((cell for line in rows for cell, _ in line.cells), key=lambda box: box.x0)
    edges: list[float] = []
    reach = float("-inf")
    for box in boxes:
        if box.x0 > reach + 0.5:
            edges.append(box.x0)
        reach = max(reach, box.x1)
    return edges


def _aligned_table(lines: Sequence[Line], edges: Sequence[float]) -> Table:
    placed: list[list[tuple[Box, str] | None]] = []
    for line in lines:
        cells: list[tuple[Box, str] | None] = [None] * len(edges)
        for box, text in line.cells:
            column = max(bisect_left(edges, box.x0 + 0.5) - 1, 0)
            before = cells[column]
            cells[column] = (before[0].union(box), f"{before[1]} {text}") if before else (box, text)
        placed.append(cells)
    reach = [
        max((cell[0].x1 for cell in column if cell), default=0.0)
        for column in zip(*placed, strict=True)
    ]
    gaps = [line.gap for line in lines[1:]]
    is_spaced = max(gaps) - min(gaps) > 0.2 * lines[0].size
    rows: list[list[str]] = []
    box = lines[0].box
    for number, (line, cells) in enumerate(zip(lines, placed, strict=True)):
        box = box.union(line.box)
        texts = [cell[1] if cell else "" for cell in cells]
        goes_on = not cells[0] and not line.apart
        if cells[0] and is_spaced and line.gap < min(gaps) + 0.1 * line.size:
            goes_on = _are_wrapped(placed[number - 1], cells, reach)
        if rows and goes_on:
            rows[-1] = [wrapped(above, cell) for above, cell in zip(rows[-1], texts, strict=True)]
        else:
            rows.append(texts)
    return Table(rows, box, list(edges))


def _are_wrapped(
    above: Sequence[tuple[Box, str] | None],
    below: Sequence[tuple[Box, str] | None],
    reach: Sequence[float],
) -> bool:
    """Whether no cell of the line below would have begun in the line above: there was no room."""
    for upper, lower, right in zip(above, below, reach, strict=True):
        if lower:
            box, text = lower
            first = box.width * len(text.split()[0]) / len(text)
            if not upper or " " not in upper[1] or upper[0].x1 + first + 2 < right:
                return False
    return True
