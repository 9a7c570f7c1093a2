"""The course's colour stays readable, whichever it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.colors import DARK_GROUND, LIGHT_GROUND, Palette, contrast

COLORS = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")


@given(COLORS)
def test_any_colour_can_be_read_in_light_and_dark(color: str) -> None:
    palette = Palette.of(color)
    for accent, ground in ((palette.light, LIGHT_GROUND), (palette.dark, DARK_GROUND)):
        assert contrast(accent.ground, ground) >= 4.5
        assert contrast(accent.ink, accent.ground) >= 4.5


def test_colour_that_stands_out_is_kept() -> None:
    assert Palette.of("#8c2f39").light.ground == "#8c2f39"
    assert Palette.of("#ffd166").dark.ground == "#ffd166"


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [("#000000", "#ffffff", 21.0), ("#777777", "#ffffff", 4.48), ("#abcdef", "#abcdef", 1.0)],
)
def test_contrast_is_that_of_wcag(one: str, other: str, ratio: float) -> None:
    assert contrast(one, other) == pytest.approx(ratio, abs=0.01)
    assert contrast(other, one) == contrast(one, other)
