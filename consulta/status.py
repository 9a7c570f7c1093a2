"""``consulta status``: the figures of the queue in the terminal, once or live."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from pymongo.errors import PyMongoError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from consulta.services import stores
from core.clock import system_clock
from core.forgetting import LastRun
from core.metrics import Fault, Stage
from core.processes import Disk, Sign
from core.questions import Question, QuestionState, Rating
from core.restoring import UnfinishedRestoreError
from core.settings import Settings
from core.statistics import Figures, Mails, Spread, Statistics

READ_SECONDS = 20.0
"""A database that takes longer counts as away."""

_STAGE = {
    Stage.WAITING: "waiting",
    Stage.ANSWERING: "answering",
    Stage.MAILING: "mailing",
}
_RATING = {
    Rating.HELPED: "helped",
    Rating.DID_NOT_HELP: "did not help",
    Rating.ASK_STAFF: "ask the staff",
}
_FAULT = {
    Fault.ATTEMPT_FAILED: "attempts failed",
    Fault.LEASE_LOST: "leases lost",
    Fault.QUEUE_AWAY: "queue away",
    Fault.USERS_AWAY: "users' database away",
    Fault.MODEL_AWAY: "model away",
    Fault.PROMPT_TRUNCATED: "prompts truncated",
    Fault.INDEXING_FAILED: "indexing failed",
    Fault.MAIL_SERVER_AWAY: "mail server away",
    Fault.INBOX_AWAY: "inbox away",
    Fault.REQUEST_FAILED: "requests failed",
}
_FIRST_COLUMN = 20
_CLOCKS_APART = timedelta(seconds=30)
_LOW_SHARE = 0.1
"""Of a disk that is free; less is shown in red."""


async def show_status(terminal: Console, settings: Settings) -> None:
    """Print the figures once.

    Raises:
        core.restoring.UnfinishedRestoreError: what is stored is a part.
        pymongo.errors.PyMongoError: the queue's database is away or refuses.
    """
    async with stores(settings) as opened:
        await opened.restoring.refuse()
        figures = await opened.statistics.figures()
        last_run = await opened.retention.last()
    terminal.print(view(figures, settings))
    if settings.retention_days:
        terminal.print(_retention(settings.retention_days, last_run))


async def watch_status(terminal: Console, settings: Settings, interval: float) -> None:
    """Show the figures anew every ``interval`` seconds, until cancelled.

    A database that is away is said to be, and waited for.
    """
    last: Figures | None = None
    away: datetime | None = None
    async with stores(settings) as opened:
        with _shown(terminal) as live:
            while True:
                reason = unfinished = ""
                try:
                    await opened.restoring.refuse()
                    last, away = await _read(opened.statistics), None
                except UnfinishedRestoreError as error:
                    last, unfinished = None, f"{str(error).capitalize()}."
                except (PyMongoError, TimeoutError) as error:
                    away = away or system_clock()
                    reason = type(error).__name__
                shown = [view(last, settings)] if last else []
                if unfinished:
                    shown.insert(0, Text(unfinished, style="bold red"))
                elif away:
                    shown.insert(0, _away(away, reason, interval, last))
                if live:
                    live.update(Group(*shown), refresh=True)
                else:
                    terminal.print(*shown, sep="\n")
                await asyncio.sleep(interval)


async def _read(figures: Statistics) -> Figures:
    async with asyncio.timeout(READ_SECONDS):
        return await figures.figures()


@contextlib.contextmanager
def _shown(terminal: Console) -> Iterator[Live | None]:
    """A place that is written over, where there is a terminal that can."""
    if not terminal.is_terminal or terminal.is_dumb_terminal:
        yield None
        return
    # The alternate screen cannot be scrolled: what does not fit would be lost.
    with Live(console=terminal, auto_refresh=False, vertical_overflow="ellipsis") as live:
        yield live


def view(figures: Figures, settings: Settings) -> RenderableType:
    """The figures for a terminal of 80 columns and 24 lines or more, the most urgent first."""
    return Group(
        _questions(figures),
        *_sentences(figures, settings),
        _processes(figures),
        _mails(figures),
        _disks(figures, settings),
        _times(figures),
        *([_errors(figures.last_errors)] if figures.last_errors else []),
    )


def _away(since: datetime, reason: str, interval: float, last: Figures | None) -> RenderableType:
    below = " Below is what it said last." if last else ""
    return Text(
        f"The queue's database has not answered since {since.astimezone():%H:%M:%S} ({reason}). "
        f"Asked again every {interval:g} s; `consulta doctor` says what mends it.{below}",
        style="bold red",
    )


def _questions(figures: Figures) -> Table:
    table = _table("Questions", tuple(QuestionState))
    moment = f"[dim]{figures.at.astimezone():%Y-%m-%d %H:%M:%S}"
    table.add_row(moment, *(str(figures.counts.by_state[state]) for state in QuestionState))
    return table


def _sentences(figures: Figures, settings: Settings) -> Iterable[RenderableType]:
    counts = figures.counts
    if counts.oldest_waiting:
        age = (figures.at - counts.oldest_waiting).total_seconds()
        is_late = age > settings.alarm_question_seconds
        yield Text(
            f"The oldest unanswered question has waited {duration(age)}.",
            style="bold red" if is_late else "",
        )
    answering = figures.stages[Stage.ANSWERING]
    if answering is None:
        yield Text("No answer yet, so the pace is not known.")
    else:
        yield Text(
            f"Pace: {duration(answering.median)} an answer; "
            f"{counts.by_state[QuestionState.ANSWERING]} worked on now."
        )
    if lost := counts.by_state[QuestionState.UNDELIVERABLE]:
        yield Text(
            f"{lost} could not be delivered; `consulta requeue NUMBER` tries again.", style="yellow"
        )
    poor = {"with an apology": figures.failed, "to a truncated prompt": figures.truncated}
    if any(poor.values()):
        said = ", ".join(f"{number} {kind}" for kind, number in poor.items() if number)
        yield Text(f"Answered {said}.", style="yellow")
    if any(figures.ratings.values()):
        said = ", ".join(f"{_RATING[rating]} {n}" for rating, n in figures.ratings.items())
        yield Text(f"Ratings: {said}.")
    met = [f"{_FAULT[fault]} {n}" for fault, n in figures.faults.items() if n]
    yield Text(
        f"Faults in 24 hours: {', '.join(met)}." if met else "No faults in 24 hours.",
        style="yellow" if met else "",
    )


def _retention(days: int, last: LastRun | None) -> str:
    said = f"Students' data are kept for {days} days"
    if last is None:
        return f"{said}; the mailer has not looked for older ones yet."
    when = datetime.fromtimestamp(last.moment_ms / 1000).astimezone()
    return (
        f"{said}; last looked for {when:%Y-%m-%d %H:%M}: {last.questions} questions, "
        f"{last.mails} other mails."
    )


def _times(figures: Figures) -> Table:
    table = _table("The newest answers", ("median", "95 % within", "of"))
    for stage, seconds in figures.stages.items():
        table.add_row(f"time {_STAGE[stage]}", *_spread(seconds, duration))
    for kind, tokens in figures.tokens.items():
        table.add_row(f"tokens of the {kind}", *_spread(tokens, lambda value: f"{value:.0f}"))
    return table


def _spread(spread: Spread | None, shown: Callable[[float], str]) -> Iterable[str]:
    if spread is None:
        return ("", "", "0")
    return (shown(spread.median), shown(spread.p95), str(spread.count))


def _mails(figures: Figures) -> Table:
    columns = ("sent", "to be sent", "deferred", "refused", "oldest waits")
    table = _table("E-mails", columns)

    def row(name: str, mails: Mails) -> None:
        oldest = mails.oldest_unsent
        waits = duration((figures.at - oldest).total_seconds()) if oldest else ""
        refused = f"[red]{mails.undeliverable}" if mails.undeliverable else "0"
        deferred = f"[yellow]{mails.deferred}" if mails.deferred else "0"
        table.add_row(name, str(mails.sent), str(mails.unsent), deferred, refused, waits)

    row("answers", figures.counts.answers)
    row("others", figures.counts.other_mails)
    return table


def _processes(figures: Figures) -> Table:
    table = _table("Processes", (), "name", "heard of", "since", "")
    now = figures.at
    for sign in figures.counts.processes:
        age = duration(max(0.0, (now - sign.seen).total_seconds()))
        silent = sign.is_silent(now)
        table.add_row(
            sign.service,
            escape(visible(sign.name)),
            f"[red]{age} ago" if silent and not sign.is_elsewhere else f"{age} ago",
            f"{sign.started.astimezone():%m-%d %H:%M}",
            _remark(sign, now),
        )
    present = {sign.service for sign in figures.counts.processes}
    for service in ("api", "mailer", "worker"):
        if service not in present:
            table.add_row(service, "", "[red]none", "", "[red]does not run")
    return table


def _remark(sign: Sign, now: datetime) -> str:
    if sign.is_silent(now):
        return "[yellow]silent or off" if sign.is_elsewhere else "[red]silent"
    if sign.seen - now > _CLOCKS_APART:
        return "[red]clock is ahead"
    if sign.mail_closed:
        return f"[red]no mail since {sign.mail_closed.astimezone():%H:%M}"
    return ""


def _disks(figures: Figures, settings: Settings) -> Table:
    table = _table("Disks", ("free", "size"), "of")
    for disk, owner in disks_of(figures):
        low = disk.free < settings.alarm_free_mb * 2**20 or (
            disk.size and disk.free / disk.size < _LOW_SHARE
        )
        free = f"{disk.free / 1e9:.1f} GB"
        table.add_row(
            escape(visible(disk.path)),
            f"[red]{free}" if low else free,
            f"{disk.size / 1e9:.1f} GB",
            escape(owner),
        )
    return table


def disks_of(figures: Figures) -> list[tuple[Disk, str]]:
    """Each disk once for each machine, with who says so."""
    found: dict[tuple[str, str], tuple[Disk, str]] = {}
    for sign in figures.counts.processes:
        machine = sign.name.partition(":")[0]
        for disk in sign.disks:
            found.setdefault((machine, disk.path), (disk, machine))
    return list(found.values())


def _errors(questions: Iterable[Question]) -> Table:
    table = _table("Last errors", (), "asked", "state", "error")
    for question in questions:
        table.add_row(
            f"question {question.id}",
            f"{question.date.astimezone():%Y-%m-%d %H:%M}",
            question.state,
            escape(visible(question.error or "")),
        )
    return table


def _table(title: str, numbers: tuple[str, ...], *texts: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    table.add_column(title, overflow="fold", min_width=_FIRST_COLUMN)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for name in texts:
        table.add_column(name, overflow="fold")
    return table


def visible(text: str) -> str:
    """``text`` without what steers a terminal, as a server's reply may hold."""
    return "".join(char if char.isprintable() else " " for char in text)


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 90 else f"{hours:.1f} h"
