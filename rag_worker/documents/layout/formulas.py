"""Formulas: what stands above or below is brought into the line."""

import re
from collections.abc import Sequence
from dataclasses import replace

from rag_worker.documents.formulas import is_enclosed
from rag_worker.documents.layout.boxes import Box, around
from rag_worker.documents.layout.words import SCRIPT, Word, in_order, joined, rows_of

_ACCENT = re.compile("[→←↔^ˆ˜¯‾˙\u20d7\u0302\u0304]{1,2}")
_BORDER_GAP = 1.5
"""Points between the ends of lines that meet."""
_LONGEST_BAR = 150.0
_MOST_BARS = 300
_REACH, _SCRIPT_REACH = 1.3, 1.6
"""Letters of a fraction, and their exponents, are no farther from its bar, in sizes of letters."""


def with_formulas(
    words: Sequence[Word], horizontal: Sequence[Box], vertical: Sequence[Box]
) -> list[Word]:
    """The words, with accents before their letters and fractions as ``a/b``."""
    bars = [rule for rule in horizontal if rule.width < _LONGEST_BAR][:_MOST_BARS]
    bars = [rule for rule in bars if not _is_border(rule, horizontal, vertical)]
    return _with_bars(_with_accents(words), bars)


def _with_accents(words: Sequence[Word]) -> list[Word]:
    """Arrows and hats above a letter stand before it."""
    found = list(words)
    for at, accent in enumerate(found):
        if not _ACCENT.fullmatch(accent.text):
            continue
        for other in (at + 1, at - 1):
            if 0 <= other < len(found) and _is_above(accent.box, found[other]):
                below = found[other]
                found[other] = replace(below, text=accent.text + below.text)
                found[at] = replace(accent, text="")
                break
    return [word for word in found if word.text]


def _is_above(accent: Box, word: Word) -> bool:
    x, _ = accent.middle
    margin = 0.3 * word.size
    return (
        word.box.x0 - margin <= x <= word.box.x1 + margin
        and 0.1 * word.size < accent.y0 - word.box.y0 < 1.3 * word.size
    )


def _with_bars(words: list[Word], bars: Sequence[Box]) -> list[Word]:
    """What stands above and below a short line of its own as ``a/b``, under a root as ``√(a)``."""
    signs = {
        max(above, key=lambda rule: rule.y0): word
        for word in words
        if word.text.endswith("√") and (above := [rule for rule in bars if _covers(word, rule)])
    }
    # Inner ones first: they are part of what stands above or below the outer ones.
    for rule in sorted(bars, key=lambda rule: rule.width):
        across = [word for word in words if rule.x0 - 1 <= word.box.middle[0] <= rule.x1 + 1]
        sign = signs.get(rule)
        found = (
            _root(rule, sign, across) if sign and sign in words else _fraction(rule, words, across)
        )
        if found:
            taken, made = found
            gone = set(map(id, taken))
            at = next(at for at, word in enumerate(words) if id(word) in gone)
            words = [
                *(word for word in words[:at] if id(word) not in gone),
                *made,
                *(word for word in words[at:] if id(word) not in gone),
            ]
    return words


def _covers(sign: Word, rule: Box) -> bool:
    """Whether a line may be that of a root: it begins where the sign ends."""
    return abs(sign.box.x1 - rule.x0) < _BORDER_GAP and abs(sign.box.y1 - rule.y0) < sign.size


def _root(rule: Box, sign: Word, across: Sequence[Word]) -> tuple[list[Word], list[Word]] | None:
    """The words of a root, its sign among them, and what they become."""
    under = [word for word in across if 0 < rule.y0 - word.box.middle[1] < 2 * sign.size]
    if not under:
        return None
    top = rows_of(_letters(under))[0]
    line = around(word.box for word in top)
    under = in_order(word for word in under if word.box.middle[1] > line.y0 - 0.3 * sign.size)
    if rule.x1 - max(word.box.x1 for word in under) > sign.size:
        return None
    text = joined(under)
    inside = text.rstrip(".,;:") if under[-1].box.x1 > rule.x1 + 1 else text
    box = Box(sign.box.x0, line.y0, rule.x1, line.y1)
    made = [Word(f"{sign.text}({inside})", box, sign.size, after_space=sign.after_space)]
    if text != inside:
        box = Box(rule.x1, line.y0, under[-1].box.x1, line.y1)
        made.append(Word(text[len(inside) :], box, sign.size, after_space=False))
    return [sign, *under], made


def _letters(words: Sequence[Word]) -> list[Word]:
    """The words that are no indices or exponents."""
    size = max(word.size for word in words)
    return [word for word in words if word.size >= SCRIPT * size]


def _fraction(
    rule: Box, words: Sequence[Word], across: Sequence[Word]
) -> tuple[list[Word], list[Word]] | None:
    """The words above and below a fraction's bar, and what they become."""
    y = rule.middle[1]
    sizes = [word.size for word in across if abs(word.box.middle[1] - y) < _REACH * word.size]
    size = max(sizes, default=0.0)
    near = [
        word
        for word in across
        if abs(word.box.middle[1] - y)
        < (_REACH if word.size >= SCRIPT * size else _SCRIPT_REACH) * size
    ]
    above = [word for word in near if word.box.middle[1] > rule.y1]
    below = [word for word in near if word.box.middle[1] < rule.y0]
    if not (_is_part(above, rule, words) and _is_part(below, rule, words)):
        return None
    text = "/".join(_part(side) for side in (above, below))
    bottom = y - (0.25 + 0.22) * size
    return near, [Word(text, Box(rule.x0, bottom, rule.x1, bottom + 0.97 * size), size)]


def _is_border(rule: Box, horizontal: Sequence[Box], vertical: Sequence[Box]) -> bool:
    """Whether a line is the side of a table's cell, and so no fraction's bar.

    A cell's side meets an upright line or the side of the next cell, or has two others of its
    width above or below it.
    """

    def is_near(first: float, second: float) -> bool:
        return abs(first - second) <= _BORDER_GAP

    def meets(upright: Box) -> bool:
        return (
            upright.y0 - _BORDER_GAP <= rule.y1
            and rule.y0 <= upright.y1 + _BORDER_GAP
            and (is_near(upright.x0, rule.x0) or is_near(upright.x0, rule.x1))
        )

    others = [other for other in horizontal if other is not rule]
    return (
        any(map(meets, vertical))
        or any(
            is_near(other.y0, rule.y0)
            and (is_near(other.x0, rule.x1) or is_near(other.x1, rule.x0))
            for other in others
        )
        or sum(is_near(other.x0, rule.x0) and is_near(other.x1, rule.x1) for other in others) >= 2
    )


def _is_part(side: list[Word], rule: Box, words: Sequence[Word]) -> bool:
    """Whether the words fill the rule, and are no part of a line as underlined ones are."""
    if not side:
        return False
    box, size = around(word.box for word in side), side[0].size
    return (
        abs(box.middle[0] - rule.middle[0]) < 0.5 * size
        and rule.x0 - 0.25 * size <= box.x0
        and box.x1 <= rule.x1 + 0.25 * size
        and len(rows_of(_letters(side))) == 1
        and not any(
            abs(word.box.y0 - side[0].box.y0) < 0.1 * size
            and -0.1 * size < max(word.box.x0 - box.x1, box.x0 - word.box.x1) < 0.5 * size
            for word in words
        )
    )


def _part(words: list[Word]) -> str:
    text = joined(in_order(words))
    return f"({text})" if re.search(r"[\s+−/=-]", text) and not is_enclosed(text) else text
