"""The table that `make faults` prints, and when it is a failure."""

import os
import subprocess
import sys
from pathlib import Path

_TWO_TESTS = """
from tests.faults.laboratory import Tally

def test_loses_nothing(counted):
    counted(Tally("a cut cable", 3, accepted=4, answered=4, mailed=3, duplicates=2, refused=1))

def test_loses_a_question_and_says_nothing_of_it(counted):
    counted(Tally("an axe", 1, accepted=2, answered=2, mailed=1, duplicates=0))
"""


def _run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_two.py").write_text(_TWO_TESTS)
    plugins = ["-p", "tests.faults.conftest", "--noconftest", "-p", "no:cacheprovider"]
    root = Path(__file__).parents[2]
    settings = ["-c", str(root / "pyproject.toml"), f"--rootdir={root}"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *settings, *arguments, "test_two.py"],
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(root), "PYTEST_ADDOPTS": "", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_lost_question_is_a_failure_also_where_no_test_says_so(tmp_path: Path) -> None:
    ended = _run(tmp_path)
    assert "2 passed" in ended.stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in ended.stdout.splitlines()]
    assert [row for row in rows if row] == [
        ["a cut cable", "3", "4", "4", "3", "1", "2", "0"],
        ["an axe", "1", "2", "2", "1", "0", "0", "1"],
        ["all", "4", "6", "6", "4", "1", "2", "1"],
    ]
    assert ended.returncode == 1


def test_nothing_lost_is_a_success(tmp_path: Path) -> None:
    assert _run(tmp_path, "-k", "loses_nothing").returncode == 0


def test_what_there_was_no_time_for_is_a_failure(tmp_path: Path) -> None:
    ended = _run(tmp_path, FAULTS_DEADLINE="1")
    assert "no time was left" in ended.stdout
    assert ended.returncode == 1
