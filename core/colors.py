"""The course's colour, made to stay readable on light and on dark ground."""

from dataclasses import dataclass
from typing import Self

LIGHT_GROUND, DARK_GROUND = "#ffffff", "#1c2229"
"""What texts stand on, in e-mails and on pages: their templates name them too."""
_LIGHT_INK, _DARK_INK = "#ffffff", "#10151b"
_READABLE = 4.5
"""Least contrast of text (WCAG 2.2, level AA)."""


@dataclass(frozen=True, slots=True)
class Accent:
    """A ground for buttons and bars, the ink of texts on it; both as ``#rrggbb``.

    The ground itself can be read as text on the e-mail's own ground.
    """

    ground: str
    ink: str

    @classmethod
    def of(cls, color: str, ground: str) -> Self:
        """``color``, nearer to black or white as far as it must be to stand out on ``ground``."""
        away = _DARK_INK if _luminance(ground) > 0.5 else _LIGHT_INK
        share = 0
        shade = color
        while contrast(shade, ground) < _READABLE:
            share += 4
            shade = _mixed(color, away, share / 100)
        ink = max(_LIGHT_INK, _DARK_INK, key=lambda ink: contrast(ink, shade))
        return cls(shade, ink)


@dataclass(frozen=True, slots=True)
class Palette:
    """The course's colour in light and in dark mode."""

    light: Accent
    dark: Accent

    @classmethod
    def of(cls, color: str) -> Self:
        """From any colour, as ``#rrggbb``."""
        return cls(Accent.of(color, LIGHT_GROUND), Accent.of(color, DARK_GROUND))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2): 1 for the same, 21 for black on white."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _channels(color: str) -> list[int]:
    return [int(color[position : position + 2], 16) for position in (1, 3, 5)]


def _luminance(color: str) -> float:
    linear = [
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in (channel / 255 for channel in _channels(color))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _mixed(color: str, other: str, share: float) -> str:
    pairs = zip(_channels(color), _channels(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)
