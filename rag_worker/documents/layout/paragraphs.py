"""Where paragraphs, items and lines of their own begin."""

from collections.abc import Sequence
from itertools import pairwise

from rag_worker.documents.layout.lines import Line, is_list_item

_RAGGED = 0.2
"""Lines of text without an even margin end anywhere in this part of the width."""


def mark_starts(lines: list[Line]) -> None:
    """Find where paragraphs, items and lines of their own begin."""
    if not lines:
        return
    gaps = [
        before.box.y0 - line.box.y1
        for before, line in pairwise(lines)
        if abs(before.size - line.size) < 0.5
    ]
    usual = _usual_gap(gaps)
    prose = [line for line in lines if len(line.cells) == 1] or lines
    left, right = min(line.box.x0 for line in prose), _right_edge(prose)
    for before, line in pairwise(lines):
        size = max(before.size, line.size, 1.0)
        line.gap = before.box.y0 - line.box.y1
        line.apart = line.gap > usual + 0.35 * size
        line.column_starts = False
        line.indented = (
            before.box.x0 + 0.9 * size < line.box.x0
            and not is_list_item(before)
            and before.box.x1 < line.box.x1 + size
        )
        line.starts = (
            line.apart
            or abs(before.size - line.size) > 0.12 * size
            or before.mono != line.mono
            or line.mono
            or (before.bold != line.bold and _differs(before, line))
            or is_list_item(line)
            or _ends_early(before, line, left, right)
            or line.indented
        )


def _ends_early(before: Line, line: Line, left: float, right: float) -> bool:
    """Whether the author ended the line above: there was room for the first word of this one.

    How much room it takes depends on how the line above ends and how this one begins.
    """
    room = right - before.box.x1
    share = _RAGGED
    if line.text[:1].islower():
        share *= 2
    elif before.text.endswith((".", ":", "?", "!")):
        share /= 2
    return room > max(line.words[0].box.width + 0.4 * line.size, share * (right - left))


def _differs(before: Line, line: Line) -> bool:
    """Whether a bold line beside one that is not is more than emphasis that runs over."""
    is_emphasis = before.words[-1].bold and line.words[0].bold
    return not (is_emphasis or line.text[:1].islower())


def _usual_gap(gaps: Sequence[float]) -> float:
    """The room between lines of a paragraph: small, and frequent."""
    return sorted(gaps)[len(gaps) // 4] if gaps else 0.0


def _right_edge(lines: Sequence[Line]) -> float:
    """Where full lines end: a few may be longer."""
    ends = sorted(line.box.x1 for line in lines)
    return ends[-1 - len(ends) // 20]
