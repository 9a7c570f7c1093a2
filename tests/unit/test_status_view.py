"""What ``consulta status`` shows, in the smallest terminal that people use."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from rich.console import Console

from consulta.status import view
from core.metrics import Fault, Stage
from core.processes import Disk, Sign
from core.questions import QuestionState, Rating
from core.settings import Settings
from core.statistics import Counts, Figures, Mails, Spread

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
GIGABYTE = 10**9


def sign(service: str, seconds: float, **more: datetime) -> Sign:
    disks = (Disk("/srv/consulta/var", 3 * GIGABYTE, 60 * GIGABYTE),)
    started = NOW - timedelta(days=3)
    return Sign(
        service,
        f"cupboard:{len(service)}",
        NOW - timedelta(seconds=seconds),
        started,
        "1.0",
        10,
        disks,
        **more,
    )


def troubled() -> Figures:
    """A bad night: everything that can be said is said, but for the last errors."""
    late = NOW - timedelta(hours=3)
    processes = (sign("api", 2), sign("mailer", 3, mail_closed=late), sign("worker", 4_000))
    spread = Spread(200, 31.4, 95.0)
    return Figures(
        at=NOW,
        counts=Counts(
            by_state=dict.fromkeys(QuestionState, 12_345),
            oldest_waiting=late,
            answers=Mails(12_345, 21, 7, 3, late),
            other_mails=Mails(812, 1, 1, 0, late),
            processes=processes,
        ),
        failed=4,
        stages=dict.fromkeys(Stage, spread),
        tokens={"prompt": spread, "answer": spread},
        truncated=2,
        ratings=dict.fromkeys(Rating, 9),
        faults={Fault.MODEL_AWAY: 3, Fault.MAIL_SERVER_AWAY: 12},
        last_errors=(),
    )


def shown(figures: Figures, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(view(figures, Settings(_env_file=None)))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_everything_fits_into_a_small_terminal() -> None:
    lines = shown(troubled())
    assert len(lines) < 24, "\n".join(lines)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for said in ("3.0 h", "12345", "silent", "no mail since", "3.0 GB", "requeue", "2 to a"):
        assert said in text


def test_most_urgent_stands_first() -> None:
    text = "\n".join(shown(troubled()))
    order = ["Questions", "has waited 3.0 h", "Processes", "E-mails", "Disks", "newest answers"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)


def test_worker_elsewhere_may_be_off_and_a_clock_that_is_ahead_is_named() -> None:
    figures = troubled()
    off = replace(sign("worker", 4_000), name="lab-3", version="")
    counts = replace(figures.counts, processes=(off, sign("mailer", 4_000), sign("api", -600)))
    worker, mailer, api = (
        next(line for line in shown(replace(figures, counts=counts)) if line.startswith(service))
        for service in ("worker", "mailer", "api")
    )
    assert worker.split("  ")[-1].strip() == "silent or off"
    assert mailer.split()[-1] == "silent"
    assert "clock is ahead" in api


def test_no_column_of_numbers_is_cut() -> None:
    assert "…" not in "\n".join(shown(troubled(), width=60))
