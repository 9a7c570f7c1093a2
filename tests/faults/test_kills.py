"""Every process killed at every call that writes, sends or syncs on one question's way."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.laboratory import Laboratory, Tally, killed_at, laboratory

_CALLS = {
    "api": ("sendto", "write"),
    "worker": ("sendto", "write"),
    "mailer": ("sendto", "write"),
    "queue": ("sendto", "write", "pwrite64", "fdatasync"),
}


@pytest.mark.parametrize("victim", list(_CALLS))
def test_process_killed_at_each_call_loses_nothing(
    tmp_path: Path, course_index: Path, counted: Callable[[Tally], Tally], victim: str
) -> None:
    with laboratory(tmp_path, index=course_index, POLL_SECONDS="0.5") as lab:
        for service in ("api", "worker", "mailer"):
            lab.start(service)
        lab.wait_until_ready()
        lab.log_in("ana")
        lab.ask()
        kills = sum(_sweep(lab, victim, call) for call in _CALLS[victim])
        tally = counted(lab.tally(f"{victim} killed at each call", kills))
    assert tally.lost == 0
    assert tally.answered == tally.accepted
    assert tally.duplicates <= kills


def _sweep(lab: Laboratory, victim: str, call: str) -> int:
    """Kill it at the first such call of one question's way, then the second, until it lives."""
    for occurrence in range(1, 60):
        process = lab.queue.process if victim == "queue" else lab.processes[victim]
        with killed_at(process, call, occurrence):
            lab.ask()
            lab.wait_for_mails()
        if process.poll() is None:
            return occurrence - 1
    raise AssertionError("the way of a question has no end")
