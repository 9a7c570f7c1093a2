"""The queue from the command line: at a glance, exported, an answer sent again."""

import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consulta.export import jsonl
from consulta.services import stores
from core.forgetting import LastRun
from core.questions import QuestionState, Rating
from core.settings import Settings

_STATE_HELP = {
    QuestionState.WAITING: "for a worker",
    QuestionState.ANSWERING: "a worker is at it",
    QuestionState.ANSWERED: "the e-mail is to be sent",
    QuestionState.SENT: "done",
    QuestionState.UNDELIVERABLE: "`consulta requeue NUMBER` tries again",
}
_RATING = {
    Rating.HELPED: "helped",
    Rating.DID_NOT_HELP: "did not help",
    Rating.ASK_STAFF: "ask the staff",
}


async def show_status(terminal: Console, settings: Settings) -> None:
    """Print the queue by state, the oldest waiting question, the pace and the last errors."""
    async with stores(settings) as opened:
        await opened.restoring.refuse()
        status = await opened.queue.status()
        last_run = await opened.retention.last()
    table = Table(title="Questions", title_justify="left")
    table.add_column("state")
    table.add_column("questions", justify="right")
    table.add_column("meaning")
    for state in QuestionState:
        table.add_row(state, str(status.by_state[state]), _STATE_HELP[state])
    terminal.print(table)
    if status.failed:
        terminal.print(f"[yellow]{status.failed} were answered with an apology.")
    if status.oldest_waiting:
        age = datetime.now(UTC) - status.oldest_waiting
        terminal.print(
            f"The oldest unanswered question has waited {_duration(age.total_seconds())}."
        )
    pace = status.pace.seconds_per_answer
    if pace is None:
        terminal.print("No answer yet, so the pace is not known.")
    else:
        terminal.print(
            f"Pace: {_duration(pace)} an answer; "
            f"{status.by_state[QuestionState.ANSWERING]} worked on now."
        )
    if any(status.ratings.values()):
        said = ", ".join(f"{_RATING[rating]} {count}" for rating, count in status.ratings.items())
        terminal.print(f"Ratings: {said}.")
    if settings.retention_days:
        terminal.print(_retention(settings.retention_days, last_run))
    if status.last_errors:
        errors = Table(
            "question", "asked", "state", "error", title="Last errors", title_justify="left"
        )
        for question in status.last_errors:
            errors.add_row(
                str(question.id),
                f"{question.date.astimezone():%Y-%m-%d %H:%M}",
                question.state,
                escape(_visible(question.error or "")),
            )
        terminal.print(errors)


async def requeue_answer(settings: Settings, number: int) -> bool:
    """Send an undeliverable answer again; False when it is not undeliverable."""
    async with stores(settings) as opened:
        await opened.restoring.refuse()
        return await opened.queue.requeue_mail(number)


async def send_again_to(settings: Settings, email: str) -> bool:
    """Mail may be sent to this address again; False when nothing had stopped it."""
    async with stores(settings) as opened:
        return await opened.suppressions.remove(email)


async def export_questions(settings: Settings, output: Path | None, *, personal_data: bool) -> int:
    """Write the answered questions as JSON lines; returns how many."""
    count = 0
    async with contextlib.AsyncExitStack() as closing:
        opened = await closing.enter_async_context(stores(settings))
        await opened.restoring.refuse()
        stream = closing.enter_context(output.open("w", encoding="utf-8")) if output else sys.stdout
        async for line in jsonl(opened.queue.all(), personal_data=personal_data):
            stream.write(f"{line}\n")
            count += 1
    return count


def _retention(days: int, last: LastRun | None) -> str:
    said = f"Students' data are kept for {days} days"
    if last is None:
        return f"{said}; the mailer has not looked for older ones yet."
    when = datetime.fromtimestamp(last.moment_ms / 1000).astimezone()
    return (
        f"{said}; last looked for {when:%Y-%m-%d %H:%M}: {last.questions} questions, "
        f"{last.mails} other mails."
    )


def _visible(text: str) -> str:
    # A server's reply may hold what steers a terminal.
    return "".join(char if char.isprintable() else " " for char in text)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 90 else f"{hours:.1f} h"
