"""The laboratory's marker, its index, and the table at the end."""

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.faults.laboratory import Tally
from tests.journeys.conftest import course_index

__all__ = ["course_index"]

_FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here."""
    for item in items:
        if item.path.is_relative_to(_FOLDER):
            item.add_marker("faults")


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[[Tally], Tally]:
    """Puts a tally into the table at the end."""

    def count(tally: Tally) -> Tally:
        record_property("tally", tally.to_json())
        return tally

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was counted."""
    table = Table(title="Faults", title_justify="left")
    table.add_column("fault")
    columns = ("times", "accepted", "answered", "mailed", "refused", "duplicates", "lost")
    for name in columns:
        table.add_column(name, justify="right")
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "tally" and report.when == "call":
                    tally = Tally.from_json(value)
                    table.add_row(tally.fault, *(str(getattr(tally, name)) for name in columns))
    if table.row_count:
        terminalreporter.ensure_newline()
        Console(file=terminalreporter._tw._file, width=120).print(table)
