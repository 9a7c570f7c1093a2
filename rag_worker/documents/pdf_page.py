"""What a PDF's page shows: its words, ruling lines and pictures, as PDFium finds them.

Coordinates are points, x to the right and y upwards, turned so that most of the text is upright.
"""

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium
from numpy.typing import NDArray

from rag_worker.documents.layout import Box, Word
from rag_worker.documents.looks import is_monospaced

_BOLD_NAME = re.compile(r"bold|black|heavy|demi|CMBX|SFBX|-Bd", re.IGNORECASE)
_FIXED_PITCH = 1
_FORCE_BOLD = 1 << 18
_MOST_OBJECTS = 20_000
_MOST_SEGMENTS = 2_000
_DEEPEST_FORM = 3
_MOST_SHAPES = 300
"""With more shapes than this, every word is looked at in the picture."""
_THIN = 2.5
"""A filled shape narrower than this, points, is a line."""
_SHORTEST_RULE = 6.0
_LONGEST_UNDERSCORE, _MOST_UNDERSCORES = 8.0, 500
_SHORTEST_BAR = 2.5
"""Of a fraction in small print, points."""
_BULLET = (1.5, 9.0)
_FILLED = {0, 2}
"""Modes of drawing letters that fill them."""
_MOST_CLIPS = 20
_SLACK = 1.0
"""Points by which letters may stand out of the outline that cuts them off."""
_SMALLEST_TEXT = 2.5
"""Nobody reads letters below this size, points."""
_DARK = 110
"""Text darker than this (0 to 255) on nothing or on something light needs no second look."""
_LIGHT = 190
_CHANGE = 16
"""Steps of grey by which visible letters change the picture, and stand out of a scan."""
_MOST_PIXELS = 4_000_000
_COARSEST = 0.6
"""Pixels per point below which letters are lost in the picture."""
_SCANNED_SHARE = 0.5
"""A page whose pictures cover more than this and which has hardly any text is a scan."""
_HARDLY_ANY = 60
_GARBAGE = 0.25
"""A page with a greater share of characters that mean nothing is read from its picture."""
_DESCENT, _ASCENT = 0.22, 0.75
"""Of the font size; the fonts' own values differ too much to tell lines apart by."""

_NOWHERE = Box(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Page:
    """What one page shows.

    Attributes:
        words: those that a reader sees, in the order in which they are drawn.
        aside: those that run in another direction than most, each direction made upright.
        horizontal, vertical: the ruling lines, as thin boxes.
        bullets: small filled shapes, as some programs draw the marks of a list.
        box: the visible part of the page.
        is_scan: the letters are in a picture, or the text in the file is no text.
    """

    words: list[Word] = field(default_factory=list)
    aside: list[Word] = field(default_factory=list)
    horizontal: list[Box] = field(default_factory=list)
    vertical: list[Box] = field(default_factory=list)
    bullets: list[Box] = field(default_factory=list)
    box: Box = _NOWHERE
    is_scan: bool = False


@dataclass(slots=True)
class _Style:
    """What the characters of one text object share; ``place`` is its place in the drawing."""

    size: float
    bold: bool
    mono: bool
    angle: int
    suspicious: bool
    place: int


@dataclass(slots=True)
class _Shapes:
    """What is drawn, with its place in the order of drawing; ``texts`` by their address."""

    horizontal: list[Box] = field(default_factory=list)
    vertical: list[Box] = field(default_factory=list)
    bullets: list[Box] = field(default_factory=list)
    fills: list[tuple[int, Box, bool]] = field(default_factory=list)
    images: list[tuple[int, Box]] = field(default_factory=list)
    texts: dict[int, tuple[int, Any]] = field(default_factory=dict)


def read_page(document: pypdfium2.PdfDocument, index: int) -> Page | None:
    """Page ``index``, counted from 0; None if it cannot be opened."""
    try:
        page = document[index]
        text_page = page.get_textpage()
    except pypdfium2.PdfiumError:
        return None
    try:
        return _read(page, text_page)
    finally:
        text_page.close()
        page.close()


def _read(page: pypdfium2.PdfPage, text_page: pypdfium2.PdfTextPage) -> Page:
    visible = Box(*page.get_cropbox())
    shapes = _shapes(page)
    found, meaningless = _styled_words(text_page, shapes)
    found = [
        (word, style)
        for word, style in found
        if word.size >= _SMALLEST_TEXT and visible.holds(word.box.middle)
    ]
    found = _visible(page, found, shapes, visible)
    angles = Counter(style.angle for _, style in found)
    angle = angles.most_common(1)[0][0] if angles else 0
    words = [_turned_word(word, angle) for word, style in found if style.angle == angle]
    aside = [
        _turned_word(word, style.angle)
        for word, style in sorted(found, key=lambda pair: pair[1].angle)
        if style.angle != angle
    ]
    across, down = shapes.horizontal, shapes.vertical
    if angle % 180:
        across, down = down, across
    across = [_turned(box, angle) for box in across]
    words = _with_underscores(words, across)
    covered = sum(_overlap(box, visible) for _, box in shapes.images)
    letters = sum(len(word.text) for word in words)
    is_covered = covered > _SCANNED_SHARE * visible.width * visible.height
    is_garbage = meaningless > _GARBAGE
    return Page(
        [] if is_garbage else words,
        [] if is_garbage else aside,
        across,
        [_turned(box, angle) for box in down],
        [_turned(box, angle) for box in shapes.bullets],
        _turned(visible, angle),
        is_scan=(is_covered and letters < _HARDLY_ANY)
        or (not words and bool(shapes.images))
        or is_garbage,
    )


# Words.


def _styled_words(
    text_page: pypdfium2.PdfTextPage, shapes: _Shapes
) -> tuple[list[tuple[Word, _Style]], float]:
    """The words with their styles, and the share of characters that mean nothing."""
    styles = _Styles(text_page, shapes.texts)
    found: list[tuple[Word, _Style]] = []
    characters: list[str] = []
    style = _Style(0, False, False, 0, False, 0)
    box, baseline, after_space, half = Box(0, 0, 0, 0), 0.0, False, 0
    meaningless = total = 0
    loose, x, y = pdfium.FS_RECTF(), ctypes.c_double(), ctypes.c_double()

    def end_word() -> None:
        if characters:
            text = "".join(characters)
            word = Word(text, box, style.size, style.bold, style.mono, after_space)
            found.append((word, style))
            characters.clear()

    raw = text_page.raw
    for at in range(text_page.count_chars()):
        code = pdfium.FPDFText_GetUnicode(raw, at)
        if 0xD800 <= code < 0xDC00:
            half = code
            continue
        if 0xDC00 <= code < 0xE000:
            code = 0x10000 + ((half - 0xD800) << 10) + code - 0xDC00 if half else 0xFFFD
        half = 0
        # U+FFFE is PDFium's hyphen at the end of a line.
        character = "-" if code in (0xFFFE, 0x02) else chr(code)
        if code == 0 or character.isspace():
            end_word()
            after_space = character == " " and pdfium.FPDFText_IsGenerated(raw, at) != 1
            continue
        total += 1
        meaningless += code == 0xFFFD or 0xE000 <= code < 0xF000 or code < 0x20
        new_style = styles.of(at)
        pdfium.FPDFText_GetLooseCharBox(raw, at, loose)
        pdfium.FPDFText_GetCharOrigin(raw, at, x, y)
        if new_style.angle:
            glyph = Box(loose.left, loose.bottom, loose.right, loose.top)
        else:
            glyph = Box(
                loose.left,
                y.value - _DESCENT * new_style.size,
                loose.right,
                y.value + _ASCENT * new_style.size,
            )
        goes_on = (
            (
                abs(y.value - baseline) < 0.1 * style.size
                and -0.6 * style.size < glyph.x0 - box.x1 < 0.5 * style.size
                and abs(new_style.size - style.size) < 0.1 * style.size
                and new_style.bold == style.bold
                and new_style.suspicious == style.suspicious
                # What stands under a root is told by the root's line.
                and characters[-1:] != ["√"]
            )
            or (style.angle and style.angle == new_style.angle)
        )
        if characters and not goes_on:
            end_word()
            after_space = False
        if characters:
            box = box.union(glyph)
        else:
            box, baseline, style = glyph, y.value, new_style
        characters.append(character)
    end_word()
    return found, meaningless / max(total, 20)


def _with_underscores(words: list[Word], rules: Sequence[Box]) -> list[Word]:
    """TeX draws an underscore as a line between two words: they become one."""
    short = [rule for rule in rules if rule.width < _LONGEST_UNDERSCORE and rule.height < 1]
    for rule in sorted(short[:_MOST_UNDERSCORES]):
        beside = [at for at, word in enumerate(words) if _is_on_baseline(rule, word)]
        before = next((at for at in beside if _meets(words[at].box.x1, rule.x0)), None)
        after = next((at for at in beside if _meets(rule.x1, words[at].box.x0)), None)
        if before is not None and after is not None:
            left, right = words[before], words[after]
            text, box = f"{left.text}_{right.text}", left.box.union(right.box)
            words[before] = replace(left, text=text, box=box)
            del words[after]
    return words


def _is_on_baseline(rule: Box, word: Word) -> bool:
    rise = rule.y0 - word.box.y0 - _DESCENT * word.size
    return abs(rise) < 0.1 * word.size and 0.2 < rule.width / word.size < 0.5


def _meets(left: float, right: float) -> bool:
    return -0.5 < right - left < 1.5


class _Styles:
    """Styles of the text objects of a page.

    Some programs draw every letter as an object of its own, so what is asked for each is little
    and the places for the replies are made once.
    """

    def __init__(self, text_page: pypdfium2.PdfTextPage, texts: dict[int, tuple[int, Any]]) -> None:
        self._page = text_page.raw
        self._texts = texts
        self._known: dict[int, _Style] = {}
        self._fonts: dict[int, tuple[bool, bool]] = {}
        self._matrix, self._loose = pdfium.FS_MATRIX(), pdfium.FS_RECTF()
        self._colour = [ctypes.c_uint() for _ in range(4)]

    def of(self, at: int) -> _Style:
        """The style of character ``at``."""
        address = _address(pdfium.FPDFText_GetTextObject(self._page, at))
        style = self._known.get(address)
        if style is None:
            style = self._known[address] = self._read(at, address)
        return style

    def _read(self, at: int, address: int) -> _Style:
        place, handle = self._texts.get(address, (0, None))
        matrix, loose = self._matrix, self._loose
        pdfium.FPDFText_GetMatrix(self._page, at, matrix)
        size = pdfium.FPDFText_GetFontSize(self._page, at) * math.hypot(matrix.c, matrix.d)
        pdfium.FPDFText_GetLooseCharBox(self._page, at, loose)
        angle = round(math.degrees(math.atan2(matrix.b, matrix.a)) / 90) * 90 % 360
        height = loose.right - loose.left if angle % 180 else loose.top - loose.bottom
        if not 0.4 * height < size < 2.5 * height and height > 0:
            size = height / 1.15  # a font of pictures (Type 3) has a scale of its own
        mode = pdfium.FPDFTextObj_GetTextRenderMode(handle) if handle else 0
        red, green, blue, alpha = self._colour
        pdfium.FPDFText_GetFillColor(self._page, at, red, green, blue, alpha)
        brightness = 0.3 * red.value + 0.59 * green.value + 0.11 * blue.value
        bold, mono = self._font(at, handle)
        return _Style(
            size=round(size, 1),
            bold=bold or mode == 2,
            mono=mono,
            angle=angle,
            suspicious=(
                brightness > _DARK
                or alpha.value < 128
                or mode not in _FILLED
                or not handle
                or _is_clipped(handle)
            ),
            place=place,
        )

    def _font(self, at: int, handle: Any) -> tuple[bool, bool]:
        """Whether the font is bold, and whether it is a typewriter's."""
        font = _address(pdfium.FPDFTextObj_GetFont(handle)) if handle else 0
        if font not in self._fonts:
            flags, name = ctypes.c_int(), ctypes.create_string_buffer(128)
            pdfium.FPDFText_GetFontInfo(self._page, at, name, 128, flags)
            text = name.value.decode("utf-8", "replace")
            self._fonts[font] = (
                bool(flags.value & _FORCE_BOLD or _BOLD_NAME.search(text)),
                bool(flags.value & _FIXED_PITCH) or is_monospaced(text),
            )
        return self._fonts[font]


def _is_clipped(handle: Any) -> bool:
    """Whether the outline that cuts a text off leaves a part of it out, or may do so."""
    clip = pdfium.FPDFPageObj_GetClipPath(handle)
    count = pdfium.FPDFClipPath_CountPaths(clip) if clip else 0
    text = _bounds(handle) if count > 0 else None
    if text is None:
        return False
    corners = ((text.x0 + _SLACK, text.y0 + _SLACK), (text.x1 - _SLACK, text.y1 - _SLACK))
    return not all(
        outline and all(outline.holds(corner) for corner in corners)
        for outline in (_outline(clip, path) for path in range(min(count, _MOST_CLIPS)))
    )


def _outline(clip: Any, path: int) -> Box | None:
    """The box around one of the outlines that cut a text off; None where it is empty."""
    x, y = ctypes.c_float(), ctypes.c_float()
    points = []
    count = min(pdfium.FPDFClipPath_CountPathSegments(clip, path), _MOST_SEGMENTS)
    # Nearly all are rectangles, of which two corners tell enough.
    for at in (0, 2) if count in (4, 5) else range(count):
        segment = pdfium.FPDFClipPath_GetPathSegment(clip, path, at)
        pdfium.FPDFPathSegment_GetPoint(segment, x, y)
        points.append((x.value, y.value))
    across, up = zip(*points, strict=True) if points else ((), ())
    return Box(min(across), min(up), max(across), max(up)) if points else None


def _address(handle: Any) -> int:
    return ctypes.addressof(handle.contents) if handle else 0


def _turned(box: Box, angle: int) -> Box:
    """Where ``box`` is when text that runs at ``angle`` degrees is made upright."""
    if angle == 90:
        return Box(box.y0, -box.x1, box.y1, -box.x0)
    if angle == 180:
        return Box(-box.x1, -box.y1, -box.x0, -box.y0)
    if angle == 270:
        return Box(-box.y1, box.x0, -box.y0, box.x1)
    return box


def _turned_word(word: Word, angle: int) -> Word:
    if not angle:
        return word
    box = _turned(word.box, angle)
    return Word(word.text, box, word.size, word.bold, word.mono, word.after_space)


# Shapes.


def _objects(container: Any, depth: int = 0) -> Iterator[tuple[Any, int]]:
    """The objects of a page and of the forms on it, with how deep they are."""
    if depth:
        count, get = pdfium.FPDFFormObj_CountObjects, pdfium.FPDFFormObj_GetObject
    else:
        count, get = pdfium.FPDFPage_CountObjects, pdfium.FPDFPage_GetObject
    for at in range(min(count(container), _MOST_OBJECTS)):
        handle = get(container, at)
        yield handle, depth
        if pdfium.FPDFPageObj_GetType(handle) == pdfium.FPDF_PAGEOBJ_FORM and depth < _DEEPEST_FORM:
            yield from _objects(handle, depth + 1)


def _shapes(page: pypdfium2.PdfPage) -> _Shapes:
    shapes = _Shapes()
    form: Box | None = None
    for place, (handle, depth) in enumerate(_objects(page.raw)):
        kind = pdfium.FPDFPageObj_GetType(handle)
        if kind == pdfium.FPDF_PAGEOBJ_TEXT:
            shapes.texts[_address(handle)] = place, handle
            continue
        box = _bounds(handle)
        if kind == pdfium.FPDF_PAGEOBJ_FORM and not depth:
            form = box
        if box is None:
            continue
        # A form has coordinates of its own: of what is in it only the whole's place is known.
        if kind == pdfium.FPDF_PAGEOBJ_IMAGE:
            shapes.images.append((place, (form or box) if depth else box))
        elif kind == pdfium.FPDF_PAGEOBJ_PATH and not depth:
            _add_path(shapes, place, handle, box)
        elif kind == pdfium.FPDF_PAGEOBJ_PATH and form:
            shapes.fills.append((place, form, False))
        elif kind == pdfium.FPDF_PAGEOBJ_SHADING:
            shapes.fills.append((place, form if depth and form else box, False))
    return shapes


def _bounds(handle: Any) -> Box | None:
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    if not pdfium.FPDFPageObj_GetBounds(handle, left, bottom, right, top):
        return None
    return Box(left.value, bottom.value, right.value, top.value)


def _add_path(shapes: _Shapes, place: int, handle: Any, box: Box) -> None:
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDFPath_GetDrawMode(handle, fill, stroke)
    thin, long = sorted((box.width, box.height))
    if _BULLET[0] < thin and long < min(_BULLET[1], 2 * thin):
        shapes.bullets.append(box)
        return
    if fill.value:
        if box.height <= _THIN and box.width >= _SHORTEST_BAR:
            shapes.horizontal.append(box)
        elif box.width <= _THIN and box.height >= _SHORTEST_RULE:
            shapes.vertical.append(box)
        else:
            shapes.fills.append((place, box, _is_light(handle)))
    if stroke.value:
        _add_strokes(shapes, handle)


def _is_light(handle: Any) -> bool:
    red, green, blue, alpha = (ctypes.c_uint() for _ in range(4))
    if not pdfium.FPDFPageObj_GetFillColor(handle, red, green, blue, alpha):
        return False
    return 0.3 * red.value + 0.59 * green.value + 0.11 * blue.value > _LIGHT


def _add_strokes(shapes: _Shapes, handle: Any) -> None:
    matrix = pdfium.FS_MATRIX()
    pdfium.FPDFPageObj_GetMatrix(handle, matrix)
    x, y = ctypes.c_float(), ctypes.c_float()
    begin = before = (0.0, 0.0)
    for at in range(min(pdfium.FPDFPath_CountSegments(handle), _MOST_SEGMENTS)):
        segment = pdfium.FPDFPath_GetPathSegment(handle, at)
        pdfium.FPDFPathSegment_GetPoint(segment, x, y)
        point = (
            matrix.a * x.value + matrix.c * y.value + matrix.e,
            matrix.b * x.value + matrix.d * y.value + matrix.f,
        )
        kind = pdfium.FPDFPathSegment_GetType(segment)
        if kind == pdfium.FPDF_SEGMENT_MOVETO:
            begin = point
        elif kind == pdfium.FPDF_SEGMENT_LINETO:
            _add_stroke(shapes, before, point)
            if pdfium.FPDFPathSegment_GetClose(segment):
                _add_stroke(shapes, point, begin)
        before = point


def _add_stroke(shapes: _Shapes, first: tuple[float, float], second: tuple[float, float]) -> None:
    box = Box(
        min(first[0], second[0]),
        min(first[1], second[1]),
        max(first[0], second[0]),
        max(first[1], second[1]),
    )
    if box.height <= 1 and box.width >= _SHORTEST_BAR:
        shapes.horizontal.append(box)
    elif box.width <= 1 and box.height >= _SHORTEST_RULE:
        shapes.vertical.append(box)


def _overlap(box: Box, visible: Box) -> float:
    width = min(box.x1, visible.x1) - max(box.x0, visible.x0)
    height = min(box.y1, visible.y1) - max(box.y0, visible.y0)
    return max(width, 0.0) * max(height, 0.0)


# Invisible text.


def _visible(
    page: pypdfium2.PdfPage, found: list[tuple[Word, _Style]], shapes: _Shapes, visible: Box
) -> list[tuple[Word, _Style]]:
    """Those words that leave a trace in the page's picture, or that a scan shows.

    Most pages need no picture: their text is dark and nothing is drawn near it.
    """
    doubtful = [_is_doubtful(word, style, shapes) for word, style in found]
    if not any(doubtful):
        return found
    scale = min(1.5, math.sqrt(_MOST_PIXELS / max(visible.width * visible.height, 1.0)))
    if scale < _COARSEST:
        # Letters would be lost in a picture of this page that is small enough.
        return [pair for pair, doubt in zip(found, doubtful, strict=True) if not doubt]
    with_text = _picture(page, scale)
    for _, handle in shapes.texts.values():
        pdfium.FPDFPageObj_SetIsActive(handle, False)
    without_text = _picture(page, scale)
    scans = [
        box
        for _, box in shapes.images
        if _overlap(box, visible) > _SCANNED_SHARE * visible.width * visible.height
    ]

    def is_seen(word: Word) -> bool:
        rows, columns = _pixels(word.box, visible, scale)
        before, after = without_text[rows, columns], with_text[rows, columns]
        if before.size == 0:
            return False
        if np.abs(before.astype(int) - after).max() >= _CHANGE:
            return True
        # The text layer of a scan is invisible itself; the picture shows its letters.
        on_scan = any(scan.holds(word.box.middle) for scan in scans)
        return on_scan and int(after.max()) - int(after.min()) >= 3 * _CHANGE

    return [
        pair for pair, doubt in zip(found, doubtful, strict=True) if not doubt or is_seen(pair[0])
    ]


def _is_doubtful(word: Word, style: _Style, shapes: _Shapes) -> bool:
    if style.suspicious or len(shapes.fills) + len(shapes.images) > _MOST_SHAPES:
        return True
    middle = word.box.middle
    return any(box.holds(middle, 1) for _, box in shapes.images) or any(
        box.holds(middle) and (place > style.place or not light)
        for place, box, light in shapes.fills
    )


def _picture(page: pypdfium2.PdfPage, scale: float) -> NDArray[np.uint8]:
    # The words' places are those of the page before it is turned for display.
    page.set_rotation(0)
    bitmap = page.render(scale=scale, grayscale=True, draw_annots=False)
    picture: NDArray[np.uint8] = bitmap.to_numpy().copy()
    bitmap.close()
    return picture.reshape(picture.shape[:2])


def _pixels(box: Box, visible: Box, scale: float) -> tuple[slice, slice]:
    top = max(int((visible.y1 - box.y1) * scale), 0)
    left = max(int((box.x0 - visible.x0) * scale), 0)
    bottom = max(math.ceil((visible.y1 - box.y0) * scale), top + 1)
    right = max(math.ceil((box.x1 - visible.x0) * scale), left + 1)
    return slice(top, bottom), slice(left, right)
