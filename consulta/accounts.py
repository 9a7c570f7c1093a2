"""Accounts and workers' tokens, from the command line."""

import contextlib
from collections.abc import Iterator

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from api.errors import InvalidInputError
from api.migrations import migrate
from api.schemas import NewUser
from core.settings import Settings
from core.users import EmailTakenError, UsernameTakenError, UserRepository, create_user_engine

LONGEST_TOKEN_NAME = 50


class AccountError(Exception):
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
        raise away(error) from None


def away(error: SQLAlchemyError) -> AccountError:
    """What to say and do when the users' database fails."""
    return AccountError(
        f"The users' database does not answer ({type(error).__name__}): start the service "
        "with `consulta up`, or check DATABASE_URL or the DB_ settings."
    )


def create_user(
    settings: Settings, username: str, email: str, password: str, *, is_staff: bool
) -> None:
    """Create an account.

    Raises:
        AccountError: a value is not allowed, or is taken.
    """
    try:
        account = NewUser(username=username, email=email, password=password)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = (str(first["loc"][0]), first["type"], first.get("ctx", {}))
        raise AccountError(InvalidInputError([field]).problem()["detail"]) from None
    with _users(settings) as users:
        try:
            users.register(**account.model_dump(), is_staff=is_staff)
        except EmailTakenError:
            raise AccountError(f"The address {email} has an account already.") from None
        except UsernameTakenError:
            raise AccountError(f"The user name {username} is taken.") from None


def show_users(terminal: Console, settings: Settings) -> None:
    """Print the accounts and the workers' tokens."""
    with _users(settings) as users:
        accounts = Table(
            "id", "user name", "e-mail", "confirmed", "kind", "state", "since", title="Accounts"
        )
        for user in users.all():
            accounts.add_row(
                str(user.id),
                escape(user.username),
                escape(user.email),
                f"{user.confirmed:%Y-%m-%d}" if user.confirmed else "[yellow]no",
                "staff" if user.is_staff else "student",
                "active" if user.is_active else "[red]disabled",
                f"{user.created:%Y-%m-%d}",
            )
        terminal.print(accounts)
        tokens = Table("name", "since", title="Workers' tokens")
        for token in users.worker_tokens():
            tokens.add_row(escape(token.name), f"{token.created:%Y-%m-%d}")
        if tokens.row_count:
            terminal.print(tokens)


def set_active(settings: Settings, identifier: str, *, active: bool) -> None:
    """Disable or enable an account.

    Raises:
        AccountError: there is none.
    """
    with _users(settings) as users:
        user = users.find(identifier)
        if user is None:
            raise AccountError(f"Nobody is called {identifier}: `consulta users list` shows all.")
        users.set_active(user.id, active)


def confirm(settings: Settings, identifier: str) -> str:
    """Vouch for the address of an account, as its owner does with the link; returns the address.

    Raises:
        AccountError: there is no such account.
    """
    with _users(settings) as users:
        user = users.find(identifier)
        if user is None or users.confirm(user.id, user.email) is None:
            raise AccountError(f"Nobody is called {identifier}: `consulta users list` shows all.")
        return user.email


def create_worker_token(settings: Settings, name: str) -> str:
    """A new worker's token.

    Raises:
        AccountError: the name is taken, empty or too long.
    """
    if not name.isprintable() or not name.strip() or len(name) > LONGEST_TOKEN_NAME:
        raise AccountError(
            f"A token's name is one line of 1 to {LONGEST_TOKEN_NAME} characters: gpu-1, say."
        )
    with _users(settings) as users:
        try:
            return users.create_worker_token(name)
        except UsernameTakenError:
            raise AccountError(
                f"A token {name} exists: choose another name, or end it with --revoke."
            ) from None


def revoke_worker_token(settings: Settings, name: str) -> None:
    """End a worker's token.

    Raises:
        AccountError: there is none of this name.
    """
    with _users(settings) as users:
        if not users.revoke_worker_token(name):
            raise AccountError(f"There is no token {name}: `consulta users list` shows all.")
