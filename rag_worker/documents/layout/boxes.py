"""Rectangles on a page."""

import functools
from collections.abc import Iterable
from typing import NamedTuple


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


def around(boxes: Iterable[Box]) -> Box:
    """The smallest rectangle around all of ``boxes``, of which there is one at least."""
    return functools.reduce(Box.union, boxes)


def is_same_line(first: Box, second: Box) -> bool:
    """Whether what the boxes hold stands side by side."""
    overlap = min(first.y1, second.y1) - max(first.y0, second.y0)
    return overlap > 0.5 * min(first.height, second.height)
