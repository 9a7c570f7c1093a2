"""Clocks that are wrong, or jump."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.laboratory import Tally, laboratory

Count = Callable[[Tally], Tally]

_MINUTES = 600


@pytest.mark.parametrize("service", ["api", "worker", "mailer"])
@pytest.mark.parametrize("seconds", [-_MINUTES, _MINUTES])
def test_service_whose_clock_is_wrong_delays_nothing_for_ever(
    tmp_path: Path, course_index: Path, counted: Count, service: str, seconds: int
) -> None:
    with laboratory(tmp_path, index=course_index) as lab:
        for name in ("api", "worker", "mailer"):
            lab.start(name, **(lab.clock(f"{seconds:+d}") if name == service else {}))
        lab.wait_until_ready()
        lab.log_in("ana")
        for _ in range(3):
            lab.ask()
        tally = counted(
            lab.tally(f"clock of the {service} wrong by {seconds:+d} s", 1, seconds=700)
        )
    assert tally.lost == 0
    assert tally.answered == tally.accepted
    assert tally.duplicates == 0
