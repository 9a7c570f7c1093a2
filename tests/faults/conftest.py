"""The laboratory's marker, its bound in time, and the table at the end."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.faults.laboratory import Tally
from tests.faults.mailed import ANA, COURSE
from tests.journeys.conftest import course_index
from tests.servers import MailServer, mail_server

__all__ = ["course_index"]

_FOLDER = Path(__file__).parent
_DEADLINE = "FAULTS_DEADLINE"
_MINUTES = 28
"""No test begins later; `make faults` ends whatever still runs after thirty."""


def pytest_configure() -> None:
    """Note when the time is up, for all processes of the tests together."""
    os.environ.setdefault(_DEADLINE, str(time.time() + 60 * _MINUTES))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here; where there are no others, the long ones come first."""
    own = [item for item in items if item.path.is_relative_to(_FOLDER)]
    for item in own:
        item.add_marker("faults")
    if len(own) == len(items):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _in_time(request: pytest.FixtureRequest) -> None:
    is_over = time.time() > float(os.environ[_DEADLINE])
    assert request.node.get_closest_marker("quick") or not is_over, "not run: no time was left"


@pytest.fixture(scope="session")
def mail() -> Iterator[MailServer]:
    """The institution's mail server; its mailbox of the course is emptied by who uses it."""
    with mail_server({COURSE: "correo", ANA: "ana"}) as server:
        yield server


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[[Tally], Tally]:
    """Puts a tally into the table at the end."""

    def count(tally: Tally) -> Tally:
        record_property("tally", tally.to_json())
        return tally

    return count


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Whatever else was well: a lost question is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and any(tally.lost for tally in _tallies(reporter)) and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was counted, also of tests that failed or did not come to their end."""
    table = Table(title="Faults", title_justify="left")
    table.add_column("fault")
    columns = ("times", "accepted", "answered", "mailed", "refused", "duplicates", "lost")
    for name in columns:
        table.add_column(name, justify="right")
    tallies = sorted(_tallies(terminalreporter), key=lambda tally: tally.fault)
    for tally in tallies:
        counts = (getattr(tally, name) for name in columns)
        table.add_row(tally.fault, *("-" if count is None else str(count) for count in counts))
    if not tallies:
        return
    sums = (sum(getattr(tally, name) or 0 for tally in tallies) for name in columns)
    table.add_section()
    table.add_row("all", *map(str, sums))
    terminalreporter.ensure_newline()
    Console(file=terminalreporter._tw._file, width=110).print(table)


def _tallies(reporter: pytest.TerminalReporter) -> Iterator[Tally]:
    for reports in reporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "tally" and report.when == "call":
                    yield Tally.from_json(value)
