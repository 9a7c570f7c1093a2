"""Every process killed at every call that writes, sends or syncs on one question's way."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.laboratory import Laboratory, Tally, killed_at, laboratory, traced

_CALLS = {
    "api": ("write", "pwrite64", "fdatasync"),
    "worker": ("sendto", "write"),
    "mailer": ("sendto", "write"),
    "queue": ("write", "pwrite64", "fdatasync"),
}
_LIKE_THESE = (
    "write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg,sendfile,splice,"
    "copy_file_range,fsync,fdatasync,sync,syncfs,msync,sync_file_range"
)
"""All calls of Linux that write, send or sync."""


_COUNTED = {"ADDRESS_QUESTIONS_PER_HOUR": "39"}
"""With so few, each question is counted in the users' database; else one of many is."""


@contextmanager
def _course(folder: Path, index: Path, **environment: str) -> Iterator[Laboratory]:
    with laboratory(folder, index=index, POLL_SECONDS="0.5", **environment) as lab:
        for service in ("api", "worker", "mailer"):
            lab.start(service)
        lab.wait_until_ready()
        lab.log_in("ana")
        lab.ask()
        lab.wait_for_mails()
        yield lab


def _process(lab: Laboratory, name: str) -> subprocess.Popen[bytes]:
    return lab.queue.process if name == "queue" else lab.processes[name]


@pytest.mark.parametrize("victim", list(_CALLS))
def test_calls_that_kill_are_all_that_a_question_makes(
    tmp_path: Path, course_index: Path, victim: str
) -> None:
    with _course(tmp_path, course_index, **_COUNTED) as lab:
        trace = tmp_path / "trace"
        with traced([_process(lab, victim).pid], _LIKE_THESE, trace):
            lab.ask()
            lab.wait_for_mails()
        calls = re.findall(r"^\d+ +(\w+)\(", trace.read_text(errors="replace"), re.MULTILINE)
    assert set(calls) == set(_CALLS[victim])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "call"), [(victim, call) for victim, calls in _CALLS.items() for call in calls]
)
def test_process_killed_at_each_call_loses_nothing(
    tmp_path: Path, course_index: Path, counted: Callable[[Tally], Tally], victim: str, call: str
) -> None:
    limits = _COUNTED if victim == "api" and call != "write" else {}
    with _course(tmp_path, course_index, **limits) as lab:
        kills = _sweep(lab, victim, call)
        tally = counted(lab.tally(f"{victim} killed at each {call}", kills))
    assert kills
    assert tally.lost == 0
    assert tally.duplicates <= kills


def _sweep(lab: Laboratory, victim: str, call: str) -> int:
    """Kill it at the first such call of one question's way, then the second, until it lives."""
    for occurrence in range(1, 100):
        process = _process(lab, victim)
        with killed_at(process, call, occurrence):
            lab.ask()
            lab.wait_for_mails()
        if process.poll() is None:
            return occurrence - 1
    raise AssertionError("the way of a question has no end")
