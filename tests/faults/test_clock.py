"""Clocks that are wrong, change their hour, or jump."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.laboratory import SERVICES, Tally, laboratory

Count = Callable[[Tally], Tally]

_MINUTES = 600


@pytest.mark.slow
@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("seconds", [-_MINUTES, _MINUTES])
def test_service_whose_clock_is_wrong_delays_nothing_for_ever(
    tmp_path: Path, course_index: Path, counted: Count, service: str, seconds: int
) -> None:
    # Ten minutes are one, so leases that are not renewed in time are longer, too.
    with laboratory(
        tmp_path, index=course_index, LEASE_SECONDS="60", MAIL_LEASE_SECONDS="120"
    ) as lab:
        for name in SERVICES:
            lab.start(name, **lab.clock(f"{seconds if name == service else 0:+d} x10"))
        lab.wait_until_ready()
        lab.log_in("ana")
        for _ in range(3):
            lab.ask()
        tally = counted(lab.tally(f"clock of the {service} wrong by {seconds:+d} s", 1))
    assert tally.lost == 0
    assert tally.answered == tally.accepted
    assert tally.duplicates == 0


@pytest.mark.parametrize(
    "change",
    [datetime(2026, 10, 25, 1, tzinfo=UTC), datetime(2027, 3, 28, 1, tzinfo=UTC)],
    ids=["autumn", "spring"],
)
def test_hour_that_comes_twice_or_never_changes_no_order(
    tmp_path: Path, course_index: Path, counted: Count, change: datetime
) -> None:
    clock = tmp_path / "clock"

    def set_clock(seconds_before: int) -> int:
        ahead = round(change.timestamp() - time.time()) - seconds_before
        clock.write_text(f"{ahead:+d}")
        return ahead

    with laboratory(
        tmp_path, index=course_index, TZ="Europe/Madrid", COURSE_TIMEZONE="Europe/Madrid"
    ) as lab:
        set_clock(300)
        lab.begin(**lab.movable_clock(clock))
        lab.ask()
        lab.wait_for_mails()
        ahead = set_clock(5)
        while time.time() + ahead < change.timestamp() + 5:
            lab.ask()
            time.sleep(1)
        tally = counted(lab.tally(f"clock changes on {change:%d %B}", 1))
        documents = sorted(lab.documents(), key=lambda document: document["_id"])
        written = [mail["Date"].datetime for mail in reversed(lab.mails())]
    assert tally == Tally(tally.fault, 1, tally.accepted, tally.accepted, tally.accepted, 0)
    for moments in ([d["date_ms"] for d in documents], [d["claimed_ms"] for d in documents]):
        assert moments == sorted(moments)
        assert moments[0] < change.timestamp() * 1000 < moments[-1]
    # No answer is an hour old.
    assert all(d["work_ms"] < 60_000 for d in documents)
    assert all(abs((moment - change).total_seconds()) < 600 for moment in written)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "speed", "lease"), [(30, 1, 5), (_MINUTES, 10, 60)])
def test_clock_that_jumps_back_loses_nothing(
    tmp_path: Path, course_index: Path, counted: Count, seconds: int, speed: int, lease: int
) -> None:
    clock = tmp_path / "clock"
    clock.write_text(f"{seconds:+d} x{speed}")
    # What was to be done ten minutes later is waited for, of which one minute is enough here.
    with laboratory(
        tmp_path, index=course_index, LEASE_SECONDS=str(lease), MAIL_LEASE_SECONDS=str(lease)
    ) as lab:
        lab.begin(**lab.movable_clock(clock))
        lab.ask()
        lab.wait_for_mails()
        # One that waits, one that is worked on, perhaps, and then those of before, as it seems.
        lab.ask()
        lab.ask()
        clock.write_text(f"+0 x{speed}")
        for _ in range(3):
            lab.ask()
        tally = counted(lab.tally(f"clock jumps back {seconds} seconds", 1))
        asked = [d["date_ms"] for d in sorted(lab.documents(), key=lambda d: int(d["_id"]))]
    assert tally.lost == 0
    assert tally.answered == tally.accepted == 6
    assert tally.duplicates <= 1
    assert asked[3] < asked[2]
