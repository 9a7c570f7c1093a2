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

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255 each."""
WHITE: Colour = (255, 255, 255)
_LEAST_CONTRAST = 24
"""Steps of a channel by which text that a reader sees differs from its ground."""
_ALL_CODE = 0.95
"""Where more of a document than this is set in a typewriter's font, it is no sign of code."""
_MONOSPACED = re.compile(
    r"mono(?!type)|courier|consol|typewriter|CMTT|SFTT|menlo|monaco|code", re.IGNORECASE
)
_CODE_STYLE = re.compile(
    r"(source |program |block |inline )*(code|codeblock|listing)( block| text)?|html preformatted"
    r"|preformatted( text)?|verbatim( char)?|c[óo]digo( fuente)?|macro",
    re.IGNORECASE,
)


def hex_colour(text: str) -> Colour | None:
    """The colour that six hexadecimal digits, with or without ``#``, stand for."""
    match = re.fullmatch("#?([0-9a-fA-F]{6})", text)
    if not match:
        return None
    red, green, blue = bytes.fromhex(match[1])
    return red, green, blue


def stands_out(colour: Colour, ground: Colour) -> bool:
    """Whether text of ``colour`` can be read on ``ground``."""
    return max(abs(one - other) for one, other in zip(colour, ground, strict=True)) > (
        _LEAST_CONTRAST
    )


def is_monospaced(font: str) -> bool:
    """Whether a font of this name is a typewriter's."""
    return bool(_MONOSPACED.search(font))


def is_code_style(name: str) -> bool:
    """Whether a paragraph style of this name is made for code."""
    return bool(_CODE_STYLE.fullmatch(name))


@dataclass(frozen=True, slots=True)
class Look:
    """How a run of text looks; ``size`` in points.

    ``colour`` is None where the program picks one that shows, ``ground`` where it is not known.
    """

    bold: bool = False
    capitals: bool = False
    underlined: bool = False
    raised: bool = False
    hidden: bool = False
    mono: bool = False
    colour: Colour | None = None
    ground: Colour | None = WHITE
    size: float = 11.0

    @property
    def is_seen(self) -> bool:
        """Whether a reader of the page sees it."""
        unseen = self.colour and self.ground and not stands_out(self.colour, self.ground)
        return not self.hidden and not unseen and self.size > _SMALLEST


Runs = Sequence[tuple[str, Look]]


class Setting:
    """What the looks of a document's ``paragraphs`` tell: headings without a style, and code.

    A paragraph is its text, and its runs with their looks.
    """

    def __init__(self, paragraphs: Sequence[tuple[str, Runs]]) -> None:
        runs = [run for _, runs in paragraphs for run in runs]
        self._size = _most((look.size, text) for text, look in runs) or 0.0
        self._bold = bool(_most((look.bold, text) for text, look in runs))
        self._capitals = bool(_most((look.capitals or text.isupper(), text) for text, look in runs))
        mono = sum(len(text) for text, look in runs if look.mono)
        self._mono = mono > _ALL_CODE * sum(len(text) for text, _ in runs)
        ranks = {self._rank(*paragraph) for paragraph in paragraphs}
        self._ranks = sorted((rank for rank in ranks if rank), reverse=True)

    def is_code(self, runs: Runs) -> bool:
        """Whether a paragraph is set apart as code by its font."""
        looks = [look for run, look in runs if run.strip()]
        return not self._mono and (
            any(not look.bold for look in looks) and all(look.mono for look in looks)
        )

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
