"""Five minutes of a real exam hour, on a simulated clock, against one worker."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from benchmarks.exam_hour import Outcome, draw, replay, schedule, table
from benchmarks.fifo import Arrival, Limits, accepted, read_arrivals, served
from tests.faults.laboratory import Tally
from tests.journeys.conftest import course_index

__all__ = ["course_index"]


def test_served_oldest_first() -> None:
    assert served([-50, -45, 10, 11], [10, 10, 1, 5]) == [-40, -30, 11, 16]


def test_limits_refuse_who_has_too_much_waiting_or_asks_too_often() -> None:
    arrivals = [Arrival(second, 1) for second in (0, 1, 2, 35, 70, 3601)]
    ends = accepted(arrivals, lambda _: 30, Limits(waiting=2, hourly=4))
    assert ends == {0: 30, 1: 60, 3: 90, 4: 120, 5: 3631}
    ends = accepted(arrivals, lambda _: 30, Limits(waiting=2, hourly=3))
    assert ends == {0: 30, 1: 60, 3: 90, 5: 3631}


def test_recorded_hour_is_whole() -> None:
    arrivals = read_arrivals()
    assert len(arrivals) == 564
    assert len({arrival.student for arrival in arrivals}) == 42
    assert arrivals[-1].second < 3600


def test_five_minutes_of_an_exam_keep_every_promise_though_one_asks_fifty_at_once(
    tmp_path: Path, course_index: Path
) -> None:
    window = [
        Arrival(arrival.second - 300, arrival.student)
        for arrival in read_arrivals()
        if 300 <= arrival.second < 600
    ]
    window += [Arrival(150, 43)] * 50
    asked = schedule(sorted(window, key=lambda arrival: arrival.second), quiet_questions=10)
    with Progress(disable=True) as progress:
        outcome = replay(
            asked,
            speed=1,
            limits=Limits(waiting=3, hourly=15),
            folder=tmp_path,
            progress=progress,
            index=course_index,
        )
    # A machine with other work tells nothing of latency.
    promises = [promise for promise in outcome.promises() if "latency" not in promise[0]]
    assert len(promises) >= 7
    assert [promise for promise in promises if not promise[3]] == []
    assert sum(row.status == 202 for row in outcome.hour if row.arrival.student == 43) == 3
    printed = io.StringIO()
    Console(file=printed, width=120).print(table(outcome))
    assert "refused with 429" in printed.getvalue()
    draw(outcome, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"waited": 10_000.0}, "longest wait beyond oldest first"),
        ({"place": 1_000}, "place right within 20 %"),
        ({"expected": None}, "expected time right within 20 %"),
        ({"status": 500}, "replies other than 202 and 429"),
        ({"latency": 0.1}, "latency, 95 of 100 within"),
    ],
)
def test_replay_tells_when_a_promise_is_broken(change: dict[str, object], broken: str) -> None:
    asked = schedule([Arrival(second, second) for second in range(10)], quiet_questions=10)
    for number, row in enumerate(asked):
        row.status, row.place, row.place_was = 202, 1, 1
        row.latency = row.peer = 0.01
        row.expected = row.waited = row.bound = row.took = 30.0
        if number >= 15:
            for name, value in change.items():
                setattr(row, name, value)
    outcome = Outcome(asked, Tally("", 1, 20, 20, 20, 0), 1, Limits())
    assert broken in [name for name, *_, is_kept in outcome.promises() if not is_kept]
