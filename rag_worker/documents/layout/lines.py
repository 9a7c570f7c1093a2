"""Lines of a page, and the cells that stand apart in them."""

import re
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rag_worker.documents.layout.boxes import Box, around
from rag_worker.documents.layout.words import (
    SPACE,
    Run,
    Word,
    advance,
    in_order,
    joined,
    rows_of,
    runs_of,
    verbatim,
)

_WIDE_GAP = 0.8
"""Words of a line farther apart than this, in sizes of the text, may be cells of a table."""
_STRETCHED, _STRETCHED_STOP = 1.9, 3.0
"""In a line of prose, cells are farther apart than so many spaces; so many after a full stop."""
_WIDEST_SPACE = 2.0
"""Not even justified prose has its words farther apart than this, in sizes of the text."""
LIST_MARK = re.compile(
    r"([•▪■◦○●‣⁃∙·➢➤✓❖\uf0b7\uf0a7\u2013\u2014*-]|\(?(\d{1,3}|[a-zA-Z]|[ivx]{1,4})\)|(\d{1,3}|[a-e]|[ivx]{1,4})\.)(\s|$)"
)
_SECTION_NUMBER = re.compile(r"\d{1,2}(\.\d{1,2})*\.?")


@dataclass(slots=True)
class Line:
    """Words side by side. ``cells`` are its parts that stand far apart, from left to right."""

    words: list[Word]
    box: Box
    text: str
    size: float
    bold: bool
    mono: bool
    cells: list[tuple[Box, str]]
    gap: float = 0.0
    """Points between the line above and this one."""
    column_starts: bool = True
    """Whether it is the first of its column."""
    starts: bool = True
    """Whether a paragraph, an item or a line of its own begins here."""
    apart: bool = True
    """Whether there is more room above it than inside a paragraph."""
    indented: bool = False
    """Whether it begins farther right than the line above, as paragraphs do."""

    @property
    def advance(self) -> float:
        """The width of a letter of code."""
        return advance(self.words)


def lines_of(words: Sequence[Word]) -> list[Line]:
    """All that stands at the same height as one line, from top to bottom."""
    return [line_of(row) for row in rows_of(runs_of(words))]


def line_of(runs: Sequence[Run]) -> Line:
    """The line that ``runs`` make."""
    words = in_order(word for run in runs for word in run.words)
    size = _weighted(words)
    space = _even_space(words)
    cells: list[list[Word]] = [[words[0]]]
    for before, word in pairwise(words):
        mark = before is words[0] and (
            LIST_MARK.match(f"{before.text} ")
            or (before.bold and _SECTION_NUMBER.fullmatch(before.text))
        )
        spaces = _STRETCHED_STOP if before.text.endswith((".", ":", "?", "!")) else _STRETCHED
        wide = max(_WIDE_GAP * max(before.size, word.size), spaces * space)
        if word.box.x0 - before.box.x1 > wide and not mark:
            cells.append([])
        cells[-1].append(word)
    letters = sum(len(word.text) for word in words)
    mono = sum(len(word.text) for word in words if word.mono) > 0.8 * letters
    text = verbatim(words) if mono else " ".join(joined(cell) for cell in cells)
    return Line(
        words,
        around(word.box for word in words),
        text,
        round(size, 1),
        sum(len(word.text) for word in words if word.bold) > 0.9 * letters,
        mono,
        [(around(word.box for word in cell), joined(cell)) for cell in cells],
    )


def _even_space(words: Sequence[Word]) -> float:
    """The space between the words of a line of prose, which may be wide in narrow columns.

    It is 0 where most spaces differ, as between the cells of a table's row, and between numbers.
    """
    size = words[0].size
    gaps = [right.box.x0 - left.box.x1 for left, right in pairwise(words)]
    gaps = [gap for gap in gaps if gap > SPACE * size]
    spelled = sum(len(word.text) > 1 and word.text.strip(".,:;()").isalpha() for word in words)
    if len(gaps) < 3 or spelled <= len(words) / 2:
        return 0.0
    usual = statistics.median_low(gaps)
    even = sum(abs(gap - usual) < 0.1 * size for gap in gaps)
    return usual if even > len(gaps) / 2 and usual < _WIDEST_SPACE * size else 0.0


def _weighted(words: Sequence[Word]) -> float:
    """The size that most letters have."""
    letters: dict[float, int] = {}
    for word in words:
        letters[word.size] = letters.get(word.size, 0) + len(word.text)
    return max(letters, key=lambda size: (letters[size], size))


def is_list_item(line: Line) -> bool:
    """Whether the line begins with a list's mark or number."""
    mark = LIST_MARK.match(line.text)
    return bool(mark and (len(line.words) > 1 or mark[4] == ""))


def bullet_words(words: Sequence[Word], bullets: Sequence[Box]) -> list[Word]:
    """A mark for each small shape that stands where a list's mark would."""
    if not bullets or not words:
        return []
    found = []
    by_line = sorted(words, key=lambda word: word.box.y0)
    for bullet in bullets[:500]:
        x, y = bullet.middle
        first, last = (bisect_left(by_line, at, key=lambda word: word.box.y0) for at in (y - 40, y))
        near = [
            word
            for word in by_line[first:last]
            if word.box.y0 <= y <= word.box.y1 and 0 < word.box.x0 - x < 3 * word.size
        ]
        if near:
            word = min(near, key=lambda word: word.box.x0)
            if bullet.width < 0.7 * word.size and not LIST_MARK.match(word.text):
                box = Box(bullet.x0, word.box.y0, bullet.x1, word.box.y1)
                found.append(Word("•", box, word.size))
    return found
