"""Words and ruling lines of a page to lines, paragraphs and tables in the order of reading."""

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple, TypeVar

_CELL = " | "
_GUTTER = 0.8
"""Columns stand at least this far apart, in sizes of the text."""
_WIDE_GAP = 0.8
"""Words of a line farther apart than this, in sizes of the text, may be cells of a table."""
_STRETCHED, _STRETCHED_STOP = 1.9, 3.0
"""In a line of prose, cells are farther apart than so many spaces; so many after a full stop."""
_WIDEST_SPACE = 2.0
"""Not even justified prose has its words farther apart than this, in sizes of the text."""
_CLEAR_GAP = 1.5
"""Where they are so far apart, two rows make a table, else three."""
_SPACE = 0.13
"""Letters farther apart than this, in sizes of the text, are of two words."""
_COLUMN_LINES = 3
_COLUMN_CHARACTERS = 14
"""A column of prose has at least so many lines, of so many characters on average."""
_PROSE_GAP = 0.8
"""Most of its lines are no farther apart than this, in sizes of the text."""
_MOST_COLUMNS = 6
_MOST_ITEMS = 2_000
_RAGGED = 0.2
"""Lines of text without an even margin end anywhere in this part of the width."""
_TOUCHING = 3.0
"""Ruling lines that end this close to each other, points, meet."""
_MOST_RULES = 3_000
_LARGEST_CELL = 2_500
"""A cell with more text is a frame around a page, not a cell."""
_REPEATED_CELL = 80
"""What a shorter cell says is repeated in every row that it spans."""
_LIST_MARK = re.compile(
    r"([•▪■◦○●‣⁃∙·➢➤✓❖\uf0b7\uf0a7\u2013\u2014*-]|\(?(\d{1,3}|[a-zA-Z]|[ivx]{1,4})\)|(\d{1,3}|[a-e]|[ivx]{1,4})\.)(\s|$)"
)
_SECTION_NUMBER = re.compile(r"\d{1,2}(\.\d{1,2})*\.?")
_ACCENT = re.compile("[→←↔^ˆ˜¯‾˙\u20d7\u0302\u0304]{1,2}")
_EXPONENT = re.compile(r"[-−–+]?[\dn]")
_BASE = re.compile(r"[\d)\]]$|(^|[\W\d_])[^\W\d_]{1,3}$")
_BORDER_GAP = 1.5
"""Points between the ends of lines that meet."""
_LONGEST_BAR = 150.0
_MOST_BARS = 300
_MARK = re.compile(r"[▪■◦○●‣⁃∙➢➤❖\uf0b7\uf0a7]")


class Box(NamedTuple):
    """A rectangle; ``x1 >= x0`` and ``y1 >= y0``, y upwards."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Its extent in x."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Its extent in y."""
        return self.y1 - self.y0

    @property
    def middle(self) -> tuple[float, float]:
        """Its centre."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def union(self, other: "Box") -> "Box":
        """The smallest rectangle around both."""
        return Box(
            self.x0 if self.x0 < other.x0 else other.x0,
            self.y0 if self.y0 < other.y0 else other.y0,
            self.x1 if self.x1 > other.x1 else other.x1,
            self.y1 if self.y1 > other.y1 else other.y1,
        )

    def holds(self, point: tuple[float, float], margin: float = 0.0) -> bool:
        """Whether ``point`` is inside, or outside by no more than ``margin``."""
        return (
            self.x0 - margin <= point[0] <= self.x1 + margin
            and self.y0 - margin <= point[1] <= self.y1 + margin
        )


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
        return _advance(self.words)


@dataclass(slots=True)
class Table:
    """Rows of cells; ``edges`` are the x of its columns, to know its continuation by."""

    rows: list[list[str]]
    box: Box
    edges: list[float] = field(default_factory=list)


Block = Line | Table


def blocks(
    words: Sequence[Word],
    horizontal: Sequence[Box],
    vertical: Sequence[Box],
    bullets: Sequence[Box],
) -> list[Block]:
    """The page's lines and tables in the order of reading."""
    bars = [rule for rule in horizontal if rule.width < _LONGEST_BAR][:_MOST_BARS]
    bars = [rule for rule in bars if not _is_border(rule, horizontal, vertical)]
    words = _with_fractions(_with_accents(words), bars)
    words += _bullet_words(words, bullets)
    tables, words = _ruled_tables(words, horizontal, vertical)
    found: list[Block] = []
    for region in _regions([*_runs(words), *tables], _MOST_COLUMNS):
        found += _region_blocks(region)
    return found


def lines_of(words: Sequence[Word]) -> list[Line]:
    """All that stands at the same height as one line, from top to bottom."""
    return [_line(row) for row in _rows(_runs(words))]


# Runs: words of one line that stand close together, the unit in which columns are told apart.


@dataclass(slots=True)
class _Run:
    words: list[Word]
    box: Box


_Item = _Run | Table


def _runs(words: Iterable[Word]) -> list[_Run]:
    runs: list[_Run] = []
    for word in words:
        if runs:
            last = runs[-1].words[-1]
            gap = word.box.x0 - last.box.x1
            size = max(last.size, word.size)
            if _same_line(last.box, word.box) and -0.5 * size < gap < _GUTTER * size:
                runs[-1].words.append(word)
                runs[-1].box = runs[-1].box.union(word.box)
                continue
        runs.append(_Run([word], word.box))
    return runs


def _same_line(first: Box, second: Box) -> bool:
    overlap = min(first.y1, second.y1) - max(first.y0, second.y0)
    return overlap > 0.5 * min(first.height, second.height)


def _bullet_words(words: Sequence[Word], bullets: Sequence[Box]) -> list[Word]:
    """A mark for each small shape that stands where a list's mark would."""
    if not bullets or not words:
        return []
    found = []
    by_line = sorted(words, key=lambda word: word.box.y0)
    bottoms = [word.box.y0 for word in by_line]
    for bullet in bullets[:500]:
        x, y = bullet.middle
        first = _bisect(bottoms, y - 40)
        last = _bisect(bottoms, y)
        near = [
            word
            for word in by_line[first:last]
            if word.box.y0 <= y <= word.box.y1 and 0 < word.box.x0 - x < 3 * word.size
        ]
        if near:
            word = min(near, key=lambda word: word.box.x0)
            if bullet.width < 0.7 * word.size and not _LIST_MARK.match(word.text):
                box = Box(bullet.x0, word.box.y0, bullet.x1, word.box.y1)
                found.append(Word("•", box, word.size))
    return found


def _bisect(values: Sequence[float], value: float) -> int:
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if values[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


# Formulas: what stands above or below is brought into the line.


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


def _with_fractions(words: list[Word], bars: Sequence[Box]) -> list[Word]:
    """What stands above and below a short line of its own, as ``a/b``."""
    # Inner fractions first: they are part of what stands above or below the outer ones.
    for rule in sorted(bars, key=lambda rule: rule.width):
        near = [
            word
            for word in words
            if abs(word.box.middle[1] - rule.y0) < 1.3 * word.size
            and rule.x0 - 1 <= word.box.middle[0] <= rule.x1 + 1
        ]
        above = [word for word in near if word.box.middle[1] > rule.y1]
        below = [word for word in near if word.box.middle[1] < rule.y0]
        if not (_is_part(above, rule, words) and _is_part(below, rule, words)):
            continue
        size = max(word.size for word in near)
        bottom = rule.middle[1] - (0.25 + 0.22) * size
        text = "/".join(_part(side) for side in (above, below))
        box = Box(rule.x0, bottom, rule.x1, bottom + 0.97 * size)
        gone = set(map(id, near))
        at = next(at for at, word in enumerate(words) if id(word) in gone)
        words = [
            *(word for word in words[:at] if id(word) not in gone),
            Word(text, box, size),
            *(word for word in words[at:] if id(word) not in gone),
        ]
    return words


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
    box, size = _around(side), side[0].size
    return (
        abs(box.middle[0] - rule.middle[0]) < 0.5 * size
        and rule.x0 - 0.25 * size <= box.x0
        and box.x1 <= rule.x1 + 0.25 * size
        and len(_rows(_runs(side))) == 1
        and not any(
            abs(word.box.y0 - side[0].box.y0) < 0.1 * size
            and -0.1 * size < max(word.box.x0 - box.x1, box.x0 - word.box.x1) < 0.5 * size
            for word in words
        )
    )


def _part(words: list[Word]) -> str:
    text = _joined(sorted(words, key=lambda word: word.box.x0))
    return f"({text})" if re.search(r"[\s+−/=-]", text) else text


# Columns.


def _regions(items: list[_Item], depth: int) -> list[list[_Item]]:
    """The columns of a page, and what runs across them, in the order of reading."""
    rows = _rows(items)
    found = _columns(rows) if depth and 2 * _COLUMN_LINES <= len(items) <= _MOST_ITEMS else None
    if found is None:
        return [items] if items else []
    first, end, strip = found
    middle = [item for row in rows[first:end] for item in row]
    return [
        *_regions([item for row in rows[:first] for item in row], depth - 1),
        *_regions([item for item in middle if item.box.middle[0] < strip[0]], depth - 1),
        *_regions([item for item in middle if item.box.middle[0] >= strip[0]], depth - 1),
        *_regions([item for row in rows[end:] for item in row], depth - 1),
    ]


_Strip = tuple[float, float]


def _columns(rows: Sequence[Sequence[_Item]]) -> tuple[int, int, _Strip] | None:
    """The longest sequence of rows, from the first to before the second number, that an empty
    strip parts into columns of prose.
    """
    best: tuple[int, int, _Strip] | None = None
    for start, row in enumerate(rows):
        for left, right in pairwise(sorted(row, key=lambda item: item.box.x0)):
            size = _size_of(left)
            strip = (left.box.x1, right.box.x0)
            if strip[1] - strip[0] < _GUTTER * size:
                continue
            end = start + 1
            while end < len(rows):
                narrower = _free(rows[end], strip)
                if narrower[1] - narrower[0] < _GUTTER * size:
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


def _size_of(item: _Item) -> float:
    return item.words[0].size if isinstance(item, _Run) else 10.0


def _free(row: Sequence[_Item], strip: _Strip) -> _Strip:
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


def _column_begin(rows: Sequence[Sequence[_Item]], start: int, strip: _Strip) -> int:
    """Where the columns begin: the right one may stand a little higher."""
    begin = at = start
    while at and _free(rows[at - 1], strip) == strip:
        at -= 1
        if any(item.box.x0 >= strip[1] - 1 for item in rows[at]):
            begin = at
    return begin


def _column_end(rows: Sequence[Sequence[_Item]], start: int, end: int, strip: _Strip) -> int:
    """Where the columns end: a heading or a paragraph below them may be short, too."""
    last = max(
        at for at in range(start, end) if any(item.box.x0 >= strip[1] - 1 for item in rows[at])
    )
    for at in range(last + 1, end):
        size = _size_of(rows[at - 1][0])
        gap = min(item.box.y0 for item in rows[at - 1]) - max(item.box.y1 for item in rows[at])
        if gap > 0.8 * size or abs(_size_of(rows[at][0]) - size) > 0.1 * size:
            return at
    return end


def _are_columns(rows: Sequence[Sequence[_Item]], strip: _Strip) -> bool:
    items = [item for row in rows for item in row]
    return _is_prose([item for item in items if item.box.middle[0] < strip[0]]) and _is_prose(
        [item for item in items if item.box.middle[0] >= strip[0]]
    )


def _is_prose(items: list[_Item]) -> bool:
    """Whether one side of a strip is to be read downwards, and is no column of a table."""
    runs = [item for item in items if isinstance(item, _Run)]
    rows = _rows(runs)
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


# Lines.


_Placed = TypeVar("_Placed", "_Run", "_Run | Table")


def _rows(runs: Iterable[_Placed]) -> list[list[_Placed]]:
    """What stands side by side, from top to bottom."""
    rows: list[list[_Placed]] = []
    boxes: list[Box] = []
    for run in sorted(runs, key=lambda run: (-run.box.y0 - run.box.y1, run.box.x0)):
        if rows and _same_line(boxes[-1], run.box):
            rows[-1].append(run)
            # The largest decides: an exponent must not pull the next line in.
            if run.box.height > boxes[-1].height:
                boxes[-1] = run.box
        else:
            rows.append([run])
            boxes.append(run.box)
    return rows


def _line(runs: Sequence[_Run]) -> Line:
    words = sorted((word for run in runs for word in run.words), key=lambda word: word.box.x0)
    size = _weighted(words)
    space = _even_space(words)
    cells: list[list[Word]] = [[words[0]]]
    for before, word in pairwise(words):
        mark = before is words[0] and (
            _LIST_MARK.match(f"{before.text} ")
            or (before.bold and _SECTION_NUMBER.fullmatch(before.text))
        )
        spaces = _STRETCHED_STOP if before.text.endswith((".", ":", "?", "!")) else _STRETCHED
        wide = max(_WIDE_GAP * max(before.size, word.size), spaces * space)
        if word.box.x0 - before.box.x1 > wide and not mark:
            cells.append([])
        cells[-1].append(word)
    letters = sum(len(word.text) for word in words)
    mono = sum(len(word.text) for word in words if word.mono) > 0.8 * letters
    text = _verbatim(words) if mono else " ".join(_joined(cell) for cell in cells)
    box = words[0].box
    for word in words:
        box = box.union(word.box)
    return Line(
        words,
        box,
        text,
        round(size, 1),
        sum(len(word.text) for word in words if word.bold) > 0.9 * letters,
        mono,
        [(_around(cell), _joined(cell)) for cell in cells],
    )


def _even_space(words: Sequence[Word]) -> float:
    """The space between the words of a line of prose, which may be wide in narrow columns.

    It is 0 where most spaces differ, as between the cells of a table's row, and between numbers.
    """
    size = words[0].size
    gaps = [right.box.x0 - left.box.x1 for left, right in pairwise(words)]
    gaps = [gap for gap in gaps if gap > _SPACE * size]
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


def _around(words: Sequence[Word]) -> Box:
    box = words[0].box
    for word in words[1:]:
        box = box.union(word.box)
    return box


def _joined(words: Sequence[Word]) -> str:
    text = words[0].text
    for before, word in pairwise(words):
        gap = word.box.x0 - before.box.x1
        size = min(before.size, word.size)
        if gap < 0.25 * before.size and _is_raised(before, word):
            # 10⁻¹¹ must stay a power, and the number of a note must not become part of its word.
            text += "^" if _BASE.search(before.text) else " "
        elif gap > _SPACE * size or (word.after_space and gap > -0.05 * size):
            text += " "
        text += word.text
    return _MARK.sub("•", text)


def _is_raised(before: Word, word: Word) -> bool:
    """Whether the word is a number above the line."""
    rise = word.box.y0 + 0.22 * word.size - before.box.y0 - 0.22 * before.size
    return (
        word.size < 0.87 * before.size
        and rise > 0.15 * before.size
        and bool(_EXPONENT.match(word.text))
    )


def _verbatim(words: Sequence[Word]) -> str:
    """A line of code: as many spaces as there is room for between its words."""
    advance = _advance(words)
    text = words[0].text
    for before, word in pairwise(words):
        spaces = round((word.box.x0 - before.box.x1) / advance)
        text += " " * max(spaces, 1 if word.after_space else 0) + word.text
    return text


def _advance(words: Sequence[Word]) -> float:
    letters = sum(len(word.text) for word in words)
    return max(sum(word.box.width for word in words) / max(letters, 1), 0.5)


# Regions: one column, from top to bottom.


def _region_blocks(items: list[_Item]) -> list[Block]:
    tables = sorted(
        (item for item in items if isinstance(item, Table)), key=lambda table: -table.box.y1
    )
    lines = [_line(row) for row in _rows(item for item in items if isinstance(item, _Run))]
    _mark_starts(lines)
    found: list[Block] = []
    for piece in _aligned_tables(lines):
        while tables and tables[0].box.middle[1] > piece.box.middle[1]:
            found.append(tables.pop(0))
        found.append(piece)
    return [*found, *tables]


def _mark_starts(lines: list[Line]) -> None:
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


def is_list_item(line: Line) -> bool:
    """Whether the line begins with a list's mark or number."""
    mark = _LIST_MARK.match(line.text)
    return bool(mark and (len(line.words) > 1 or mark[4] == ""))


def _usual_gap(gaps: Sequence[float]) -> float:
    """The room between lines of a paragraph: small, and frequent."""
    positive = sorted(gap for gap in gaps)
    if not positive:
        return 0.0
    return positive[len(positive) // 4]


def _right_edge(lines: Sequence[Line]) -> float:
    """Where full lines end: a few may be longer."""
    ends = sorted(line.box.x1 for line in lines)
    return ends[-1 - len(ends) // 20]


# Tables without ruling lines.


def _aligned_tables(lines: list[Line]) -> list[Block]:
    found: list[Block] = []
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
            column = max(_bisect(edges, box.x0 + 0.5) - 1, 0)
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
            rows[-1] = [_wrapped(above, cell) for above, cell in zip(rows[-1], texts, strict=True)]
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


def _wrapped(above: str, below: str) -> str:
    if above.endswith("-") and below[:1].islower():
        return above[:-1] + below
    return f"{above} {below}".strip()


# Tables with ruling lines.


def _ruled_tables(
    words: list[Word], horizontal: Sequence[Box], vertical: Sequence[Box]
) -> tuple[list[Table], list[Word]]:
    """The tables, and the words outside of them."""
    if not horizontal or len(horizontal) + len(vertical) > _MOST_RULES:
        return [], words
    tables = []
    for rules, down in _grids(horizontal, vertical):
        across, area = rules, _around_boxes([*rules, *down])
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
    for line in reversed([_line(row) for row in _rows(_runs(above))]):
        if line.box.y0 - top > 0.8 * line.size:
            break
        top = line.box.y1
    if top == area.y1:
        return across, area
    edge = Box(area.x0, top, area.x1, top)
    return [*across, edge], area.union(edge)


def _around_boxes(boxes: Sequence[Box]) -> Box:
    area = boxes[0]
    for box in boxes[1:]:
        area = area.union(box)
    return area


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
        box = _around_boxes(across)
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
        row = min(max(len(ys) - 1 - _bisect(rising, y), 0), len(ys) - 2)
        column = min(max(_bisect(xs, x) - 1, 0), len(xs) - 2)
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
    boxes = sorted((run.box for run in _runs(words)), key=lambda box: box.x0)
    edges = [area.x0]
    reach = boxes[0].x1
    for box in boxes:
        if box.x0 > reach + 4:
            edges.append((reach + box.x0) / 2)
        reach = max(reach, box.x1)
    return [*edges, area.x1]


def _open_rows(cells: list[list[Word]]) -> list[list[str]]:
    """The rows between two ruling lines: each begins with a line that has a first cell."""
    lines = _rows(_runs([word for cell in cells for word in cell]))
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
    text = ""
    for row in _rows(_runs(words)):
        text = _wrapped(text, _line(row).text.strip())
    return text


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
