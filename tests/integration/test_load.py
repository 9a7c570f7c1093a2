"""The load generator and its verdict, on a small scale."""

import random
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.load import MIX, Client, Load, Measured, measure, tables


def test_every_kind_of_request_is_served_under_load(tmp_path: Path) -> None:
    measured = measure(tmp_path, rate=15, seconds=8, students=6)
    assert measured.errors == 0
    assert measured.requests > 60
    assert measured.load.seconds.keys() >= MIX.keys() - {"login"}
    assert {"api", "queue", "generator"} == measured.cpu.keys()
    assert len(tables(measured, 15)) == 2


@pytest.mark.parametrize(
    ("statuses", "memory", "is_well"),
    [
        ({("one", 200): 1000}, [100] * 25, True),
        ({("one", 200): 999, ("one", 503): 1}, [100] * 25, False),
        ({("one", 200): 999, ("one", 0): 1}, [100] * 25, False),
        ({("one", 200): 900}, [100] * 25, False),
        ({("one", 200): 1000}, [100 + 2 * number for number in range(25)], False),
    ],
)
def test_error_a_low_rate_or_growing_memory_breaks_the_promise(
    statuses: dict[tuple[str, int], int], memory: list[float], is_well: bool
) -> None:
    load = Load(Client(0), [], random.Random(1), statuses=Counter(statuses))
    measured = Measured(load, 10.0, {"api": memory}, {})
    assert measured.is_well(100) is is_well
