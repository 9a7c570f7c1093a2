"""The soak, shortened: its verdict, and that nothing is lost while it lasts."""

from pathlib import Path

import pytest

from benchmarks.soak import SERVICES, Sample, growths, soak


def _samples(grown: float) -> list[Sample]:
    """Ten minutes of one process whose files grow by so many an hour."""
    return [
        Sample(
            second,
            "api",
            {
                "memory, MB": 100 + (second % 15),
                "files": 40 + grown * second / 3600,
                "threads": 9,
                "connections": 12 if second % 60 else 30,
            },
        )
        for second in range(0, 600, 5)
    ]


@pytest.mark.quick
@pytest.mark.parametrize(("grown", "is_flat"), [(0.0, True), (6.0, True), (120.0, False)])
def test_leak_is_told_from_noise(grown: float, is_flat: bool) -> None:
    found = {growth.what: growth for growth in growths(_samples(grown), 600)}
    assert found["files"].is_flat is is_flat
    assert found["files"].hourly == pytest.approx(grown, abs=1e-6)
    assert all(growth.is_flat for what, growth in found.items() if what != "files")


def test_a_minute_of_random_faults_loses_nothing_and_ends_no_process(
    tmp_path: Path, course_index: Path
) -> None:
    soaked = soak(tmp_path, seconds=60, seed=5, every=1, index=course_index)
    assert soaked.tally.accepted > 10
    assert soaked.tally.lost == 0
    assert soaked.tally.answered == soaked.tally.accepted
    assert soaked.ended == []
    assert soaked.statuses[500] == 0
    assert len(soaked.faults) > 3
    # A minute says nothing of memory; a leak of a connection for each request would show.
    files = [growth for growth in soaked.growths if growth.what in ("files", "connections")]
    assert len(files) == 2 * len(SERVICES)
    assert all(growth.second < growth.first + 30 for growth in files)
