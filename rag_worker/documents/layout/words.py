"""Words, and the runs and rows that they make."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeVar

from rag_worker.documents.exponents import is_base
from rag_worker.documents.layout.boxes import Box, is_same_line

GUTTER = 0.8
"""Columns stand at least this far apart, in sizes of the text."""
SPACE = 0.13
"""Letters farther apart than this, in sizes of the text, are of two words."""
SCRIPT = 0.87
"""Indices and exponents are smaller than this, in sizes of the text."""
_EXPONENT = re.compile(r"[-−–+]?[\dn]")
_MARK = re.compile(r"[▪■◦○●‣⁃∙➢➤❖\uf0b7\uf0a7]")


@dataclass(frozen=True, slots=True)
class Word:
    """Letters without a space among them.

    Attributes:
        box: from the descenders to the capitals' top.
        size: of the font, points.
        after_space: the file has a space before it.
    """

    text: str
    box: Box
    size: float
    bold: bool = False
    mono: bool = False
    after_space: bool = True


@dataclass(slots=True)
class Run:
    """Words of a line that stand close together, by which columns are told apart."""

    words: list[Word]
    box: Box


def runs_of(words: Iterable[Word]) -> list[Run]:
    """The words, those that follow each other closely together."""
    runs: list[Run] = []
    for word in words:
        if runs:
            last = runs[-1].words[-1]
            gap = word.box.x0 - last.box.x1
            size = max(last.size, word.size)
            if is_same_line(last.box, word.box) and -0.5 * size < gap < GUTTER * size:
                runs[-1].words.append(word)
                runs[-1].box = runs[-1].box.union(word.box)
                continue
        runs.append(Run([word], word.box))
    return runs


class Placed(Protocol):
    """What has a place on the page."""

    @property
    def box(self) -> Box:
        """Where it is."""


_Placed = TypeVar("_Placed", bound=Placed)


def rows_of(placed: Iterable[_Placed]) -> list[list[_Placed]]:
    """What stands side by side, from top to bottom."""
    rows: list[list[_Placed]] = []
    boxes: list[Box] = []
    for item in sorted(placed, key=lambda item: (-item.box.y0 - item.box.y1, item.box.x0)):
        if rows and is_same_line(boxes[-1], item.box):
            rows[-1].append(item)
            # The largest decides: an exponent must not pull the next line in.
            if item.box.height > boxes[-1].height:
                boxes[-1] = item.box
        else:
            rows.append([item])
            boxes.append(item.box)
    return rows


def in_order(words: Iterable[Word]) -> list[Word]:
    """The words of one line from left to right; an index before the exponent above it."""
    return sorted(words, key=lambda word: (round(word.box.x0, 1), word.box.y0))


def joined(words: Sequence[Word]) -> str:
    """The text of words of one line."""
    base, text = words[0], words[0].text
    for before, word in pairwise(words):
        gap = word.box.x0 - before.box.x1
        size = min(before.size, word.size)
        is_inside = before is not base and before.box.y0 > word.box.y0 - 0.1 * word.size
        if gap < 0.25 * before.size and _is_raised(base, word) and not is_inside:
            # 10⁻¹¹ must stay a power, and the number of a note must not become part of its word.
            text += "^" if is_base(base.text) else " "
        elif gap > SPACE * size or (word.after_space and gap > -0.05 * size):
            text += " "
        text += word.text
        if word.size >= SCRIPT * base.size or gap >= 0.25 * before.size:
            base = word
    return _MARK.sub("•", text)


def _is_raised(before: Word, word: Word) -> bool:
    """Whether the word is a number above the line."""
    rise = word.box.y0 + 0.22 * word.size - before.box.y0 - 0.22 * before.size
    return (
        word.size < SCRIPT * before.size
        and rise > 0.15 * before.size
        and bool(_EXPONENT.match(word.text))
    )


def verbatim(words: Sequence[Word]) -> str:
    """A line of code: as many spaces as there is room for between its words."""
    letter = advance(words)
    text = words[0].text
    for before, word in pairwise(words):
        spaces = round((word.box.x0 - before.box.x1) / letter)
        text += " " * max(spaces, 1 if word.after_space else 0) + word.text
    return text


def advance(words: Sequence[Word]) -> float:
    """The width of a letter of code."""
    letters = sum(len(word.text) for word in words)
    return max(sum(word.box.width for word in words) / max(letters, 1), 0.5)
