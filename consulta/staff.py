"""What staff do from the command line: accounts, the queue at a glance, the index, exports."""

import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from api.migrations import migrate
from api.schemas import NewUser
from consulta.export import jsonl
from consulta.services import stores
from core.questions import QuestionState
from core.settings import Settings
from core.users import EmailTakenError, UsernameTakenError, UserRepository, create_user_engine

_STATE_HELP = {
    QuestionState.WAITING: "for a worker",
    QuestionState.ANSWERING: "a worker is at it",
    QuestionState.ANSWERED: "the e-mail is to be sent",
    QuestionState.SENT: "done",
    QuestionState.UNDELIVERABLE: "refused for good: `consulta requeue NUMBER` tries again",
}


class StaffError(Exception):
    """It could not be done; one sentence says why."""


@contextlib.contextmanager
def _users(settings: Settings) -> Iterator[UserRepository]:
    try:
        engine = create_user_engine(settings)
        try:
            migrate(engine)
            yield UserRepository(engine)
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        raise StaffError(
            f"The users' database does not answer ({type(error).__name__}): start the service "
            "with `consulta up`, or check DATABASE_URL or the DB_ settings."
        ) from None


def create_user(
    settings: Settings, username: str, email: str, password: str, *, is_staff: bool
) -> None:
    """Create an account.

    Raises:
        StaffError: a value is not allowed, or is taken.
    """
    try:
        account = NewUser(username=username, email=email, password=password)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise StaffError(f"The {first['loc'][0]} {first['msg']}.") from None
    with _users(settings) as users:
        try:
            users.register(**account.model_dump(), is_staff=is_staff)
        except EmailTakenError:
            raise StaffError(f"The address {email} has an account already.") from None
        except UsernameTakenError:
            raise StaffError(f"The user name {username} is taken.") from None


def show_users(terminal: Console, settings: Settings) -> None:
    """Print the accounts and the workers' tokens."""
    with _users(settings) as users:
        accounts = Table("id", "user name", "e-mail", "kind", "state", "since", title="Accounts")
        for user in users.all():
            accounts.add_row(
                str(user.id),
                user.username,
                user.email,
                "staff" if user.is_staff else "student",
                "active" if user.is_active else "[red]disabled",
                f"{user.created:%Y-%m-%d}",
            )
        terminal.print(accounts)
        tokens = Table("name", "since", title="Workers' tokens")
        for token in users.worker_tokens():
            tokens.add_row(token.name, f"{token.created:%Y-%m-%d}")
        if tokens.row_count:
            terminal.print(tokens)


def set_active(settings: Settings, identifier: str, *, active: bool) -> None:
    """Disable or enable an account.

    Raises:
        StaffError: there is none.
    """
    with _users(settings) as users:
        user = users.find(identifier)
        if user is None:
            raise StaffError(f"Nobody is called {identifier}: `consulta users list` shows all.")
        users.set_active(user.id, active)


def create_worker_token(settings: Settings, name: str) -> str:
    """A new worker's token.

    Raises:
        StaffError: the name is taken.
    """
    with _users(settings) as users:
        try:
            return users.create_worker_token(name)
        except UsernameTakenError:
            raise StaffError(
                f"A token {name} exists: choose another name, or end it with --revoke."
            ) from None


def revoke_worker_token(settings: Settings, name: str) -> None:
    """End a worker's token.

    Raises:
        StaffError: there is none of this name.
    """
    with _users(settings) as users:
        if not users.revoke_worker_token(name):
            raise StaffError(f"There is no token {name}: `consulta users list` shows all.")


async def show_status(terminal: Console, settings: Settings) -> None:
    """Print the queue by state, the oldest waiting question, the pace and the last errors."""
    async with stores(settings) as opened:
        status = await opened.queue.status()
    table = Table("state", "questions", "", title="Questions")
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
    if status.last_errors:
        errors = Table("question", "asked", "state", "error", title="Last errors")
        for question in status.last_errors:
            errors.add_row(
                str(question.id),
                f"{question.date.astimezone():%Y-%m-%d %H:%M}",
                question.state,
                question.error,
            )
        terminal.print(errors)


async def requeue_answer(settings: Settings, number: int) -> bool:
    """Send an undeliverable answer again; False when it is not undeliverable."""
    async with stores(settings) as opened:
        return await opened.queue.requeue_mail(number)


async def export_questions(settings: Settings, output: Path | None, *, personal_data: bool) -> int:
    """Write the answered questions as JSON lines; returns how many."""
    count = 0
    async with contextlib.AsyncExitStack() as closing:
        opened = await closing.enter_async_context(stores(settings))
        stream = closing.enter_context(output.open("w", encoding="utf-8")) if output else sys.stdout
        async for line in jsonl(opened.queue.all(), personal_data=personal_data):
            stream.write(f"{line}\n")
            count += 1
    return count


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 90 else f"{hours:.1f} h"
