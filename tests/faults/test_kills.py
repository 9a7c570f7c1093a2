"""Every process killed at every call that writes, sends or syncs on one question's way."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.faults.laboratory import (
    Laboratory,
    Tally,
    killed_at,
    killed_at_each,
    laboratory,
    traced,
)
from tests.journeys.department import eventually

_CALLS = {
    "api": {"write": 1, "pwrite64": 1, "fdatasync": 1},
    "worker": {"sendto": 1, "write": 1},
    "mailer": {"sendto": 1, "write": 1},
    "queue": {"write": 3, "pwrite64": 6, "fdatasync": 1},
}
"""Of which of them it is killed at each, every third, or every sixth.

The queue's database makes some 70 and 150 of these in one question's way, on which three services
look for work many times.
"""
_LIKE_THESE = (
    "write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,sendmmsg,sendfile,splice,"
    "copy_file_range,fsync,fdatasync,sync,syncfs,msync,sync_file_range"
)
"""All calls of Linux that write, send or sync."""

_IN_TURN = """
import os, queue, sys, threading
turns, done = [queue.Queue() for _ in range(4)], queue.Queue()
def write(turns):
    while True:
        done.put(os.pwrite(1, b"x", turns.get()))
for mine in turns:
    threading.Thread(target=write, args=[mine], daemon=True).start()
sys.stdin.readline()
for turn in range(20):
    turns[turn % 4].put(turn)
    done.get()
"""
"""Four threads write to a file, one after the other, as soon as there is a line to read."""


@pytest.mark.quick
@pytest.mark.parametrize("occurrence", [1, 7, 20, 21])
def test_kill_falls_on_that_call_of_the_whole_process(tmp_path: Path, occurrence: int) -> None:
    output = tmp_path / "output"
    with (
        output.open("wb") as file,
        subprocess.Popen(
            [sys.executable, "-c", _IN_TURN], stdin=subprocess.PIPE, stdout=file
        ) as process,
    ):
        assert process.stdin
        eventually(lambda: psutil.Process(process.pid).num_threads() == 5, 60, "The threads")
        with killed_at(process, "pwrite64", occurrence, held=0.1) as calls:
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.wait(60)
    assert output.stat().st_size == occurrence - 1
    assert calls.begun == min(occurrence, 20)
    assert calls.ended == occurrence - 1


@contextmanager
def _course(folder: Path, index: Path) -> Iterator[Laboratory]:
    with laboratory(folder, index=index, POLL_SECONDS="0.5", TRUSTED_PROXIES="127.0.0.1") as lab:
        lab.begin()
        _one_way(lab)
        yield lab


def _one_way(lab: Laboratory) -> None:
    # The first question of an address is counted in the users' database; later ones not each.
    lab.network_address = f"10.0.{len(lab.accepted) // 256}.{len(lab.accepted) % 256}"
    lab.ask()
    lab.wait_for_mails()


@pytest.mark.parametrize("victim", list(_CALLS))
def test_calls_that_kill_are_all_that_a_question_makes(
    tmp_path: Path, course_index: Path, victim: str
) -> None:
    with _course(tmp_path, course_index) as lab:
        trace = tmp_path / "trace"
        with traced([lab.process(victim).pid], _LIKE_THESE, trace):
            _one_way(lab)
        calls = re.findall(r"^\d+ +(\w+)\(", trace.read_text(errors="replace"), re.MULTILINE)
    assert set(calls) == set(_CALLS[victim])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "call", "every"),
    [(victim, call, every) for victim, calls in _CALLS.items() for call, every in calls.items()],
)
def test_process_killed_at_each_call_loses_nothing(
    tmp_path: Path,
    course_index: Path,
    counted: Callable[[Tally], Tally],
    victim: str,
    call: str,
    every: int,
) -> None:
    which = {1: "each", 3: "every 3rd", 6: "every 6th"}[every]
    with _course(tmp_path, course_index) as lab:
        kills = killed_at_each(lab, victim, call, lambda: _one_way(lab), every=every)
        tally = counted(lab.tally(f"{victim} killed at {which} {call}", kills))
    assert kills
    assert tally.lost == 0
    assert tally.duplicates <= kills
