"""How text looks, and the headings that are known by nothing else."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

_SMALLEST = 2.0
"""Points: smaller text is there to be hidden."""
_FIRST_LEVEL = 10
"""Below the levels that headings by style have."""
_MOST_WORDS = 12
_LONGEST = 100
_LARGER = 1.15
_Rank = tuple[float, bool, bool, bool]
_Value = TypeVar("_Value", float, bool)


@dataclass(frozen=True, slots=True)
class Look:
    """How a run of text looks; ``size`` in points."""

    bold: bool = False
    capitals: bool = False
    underlined: bool = False
    raised: bool = False
    hidden: bool = False
    white: bool = False
    shaded: bool = False
    size: float = 11.0

    @property
    def is_seen(self) -> bool:
        """Whether a reader of the page sees it."""
        return not self.hidden and (self.shaded or not self.white) and self.size > _SMALLEST


Runs = Sequence[tuple[str, Look]]


class FakeHeadings:
    """The levels of short lines that are set off as headings in a document of ``paragraphs``.

    A paragraph is its text, and its runs with their looks.
    """

    def __init__(self, paragraphs: Sequence[tuple[str, Runs]]) -> None:
        runs = [run for _, runs in paragraphs for run in runs]
        self._size = _most((look.size, text) for text, look in runs) or 0.0
        self._bold = bool(_most((look.bold, text) for text, look in runs))
        self._capitals = bool(_most((look.capitals or text.isupper(), text) for text, look in runs))
        ranks = {self._rank(*paragraph) for paragraph in paragraphs}
        self._ranks = sorted((rank for rank in ranks if rank), reverse=True)

    def level(self, text: str, runs: Runs) -> int | None:
        """The level of a heading, below those that have a style; None for any other paragraph."""
        rank = self._rank(text, runs)
        return _FIRST_LEVEL + self._ranks.index(rank) if rank in self._ranks else None

    def _rank(self, text: str, runs: Runs) -> _Rank | None:
        """The look of a heading: short, alone, and set off from the rest."""
        words = text.split()
        if (
            not 1 <= len(words) <= _MOST_WORDS
            or len(text) > _LONGEST
            or "\n" in text
            or text.endswith((".", ",", ";", "!"))
            or "@" in text
            or re.search(r":\s*\S", text)  # "Office: 3.14" is a line of data
            or sum(map(str.isalpha, text)) < max(3, len(text) / 2)
        ):
            return None
        looks = [look for run, look in runs if run.strip(" :\t")]
        size = min((look.size for look in looks), default=0.0)
        larger = size if size > self._size * _LARGER else 0.0
        bold = not self._bold and all(look.bold for look in looks)
        capitals = not self._capitals and (text.isupper() or all(look.capitals for look in looks))
        underlined = all(look.underlined for look in looks)
        if not looks or not (larger or bold or underlined or (capitals and len(text) > 3)):
            return None
        return larger, capitals, bold, underlined


def _most(found: Iterable[tuple[_Value, str]]) -> _Value | None:
    """What most letters have."""
    letters: Counter[_Value] = Counter()
    for value, text in found:
        letters[value] += len(text)
    return letters.most_common(1)[0][0] if letters else None
