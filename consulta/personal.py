"""What is kept about one person, over all stores: shown as JSON, or forgotten."""

import asyncio
import contextlib
import email
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.limits import Limits
from api.migrations import migrate
from consulta.accounts import AccountError, away
from consulta.export import open_private
from consulta.student import remove_student
from core.domains import spellings
from core.forgetting import Forgotten, Person, PersonalData
from core.mongo import connect
from core.restoring import RestoreMark
from core.settings import Settings
from core.users import User, UserRepository, create_user_engine, normal_form

Database = AsyncDatabase[dict[str, Any]]

SETTLE_SECONDS = 2.0
"""How long what was under way when the account was closed may take to be stored."""
MOST_SWEEPS = 10

_SHOWN = ("id", "email", "username", "is_staff", "is_active", "must_change_password")
_MOMENTS = ("created", "confirmed", "temporary_until")


@dataclass(frozen=True, slots=True)
class Found:
    """Who is meant, and the account, where there is one."""

    person: Person
    user: User | None

    @property
    def counted_as(self) -> list[str]:
        """The names that limits are counted under."""
        names = [name for address in self.person.addresses for name in _as_limited(address)]
        if self.user is not None:
            names += [f"id:{self.user.id}", f"name:{self.user.username_normal}"]
        return list(dict.fromkeys(names))


async def export(settings: Settings, data: Path, identifier: str, output: Path | None) -> int:
    """Write all that is kept about a person; returns the number of questions.

    Raises:
        AccountError: nothing is kept, or the users' database is away.
        OSError: the file cannot be written.
        pymongo.errors.PyMongoError: the queue's database is away, or is being restored.
    """
    async with _stores(settings) as (engine, database):
        found = await asyncio.to_thread(_find, engine, identifier)
        kept: dict[str, Any] = dict(await PersonalData(database).of(found.person))
        if found.user is None and not any(kept.values()) and not _mails_in(data, found.person):
            raise _nobody(identifier)
        limits = await asyncio.to_thread(Limits(engine, settings).kept_of, *found.counted_as)
    whole = {
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "account": _shown(found.user) if found.user else None,
        **kept,
        "limits": limits,
        "caught_mails": [
            file.read_text("utf-8", errors="replace") for file in _mails_in(data, found.person)
        ],
    }
    with contextlib.ExitStack() as closing:
        stream = closing.enter_context(open_private(output)) if output else sys.stdout
        json.dump(whole, stream, ensure_ascii=False, indent=2, default=str)
        stream.write("\n")
        stream.flush()
    return len(kept["questions"])


async def forget(
    settings: Settings, data: Path, identifier: str, *, with_texts: bool
) -> tuple[Forgotten, bool]:
    """Delete the account and all that points at the person; what was done, and if to an account.

    The account is closed first and deleted last, so that the same call finishes one that was
    interrupted.

    Raises:
        AccountError: nobody is called that, or the users' database is away.
        pymongo.errors.PyMongoError: the queue's database is away, or is being restored.
    """
    async with _stores(settings) as (engine, database):
        await RestoreMark(database).refuse()
        found = await asyncio.to_thread(_find, engine, identifier)
        staff = set(map(normal_form, settings.staff_email))
        if not staff.isdisjoint(map(normal_form, found.person.addresses)):
            raise AccountError(
                "Students' wishes go to this address: give STAFF_EMAIL another one first."
            )
        users, personal = UserRepository(engine), PersonalData(database)
        if found.user is not None:
            await asyncio.to_thread(users.set_active, found.user.id, False)
        done = await personal.forget(found.person, with_texts=with_texts)
        if found.user is not None:
            for _ in range(MOST_SWEEPS):
                await asyncio.sleep(SETTLE_SECONDS)
                late = await personal.forget(found.person, with_texts=with_texts)
                done += late
                if not late:
                    break
        for file in _mails_in(data, found.person):
            file.unlink(missing_ok=True)
            done += Forgotten(mails=1)
        for address in found.person.addresses:
            remove_student(data, address)
        await asyncio.to_thread(Limits(engine, settings).forget, *found.counted_as)
        if found.user is not None:
            await asyncio.to_thread(users.delete, found.user.id)
    if found.user is None and not done:
        raise _nobody(identifier)
    return done, found.user is not None


@contextlib.asynccontextmanager
async def _stores(
    settings: Settings,
) -> AsyncIterator[tuple[Engine, AsyncDatabase[dict[str, Any]]]]:
    engine = create_user_engine(settings)
    try:
        await asyncio.to_thread(migrate, engine)
        async with connect(settings) as client:
            yield engine, client[settings.mongo_db_name]
    except SQLAlchemyError as error:
        raise away(error) from None
    finally:
        engine.dispose()


def _find(engine: Engine, identifier: str) -> Found:
    users = UserRepository(engine)
    matching = [users.find(spelling) for spelling in spellings(identifier)]
    user = next((user for user in matching if user is not None), None)
    if user is not None:
        person = Person(tuple(spellings(user.email)), user.id, user.username)
        return Found(person, user)
    if "@" not in identifier:
        raise _nobody(identifier)
    return Found(Person(tuple(spellings(identifier))), None)


def _nobody(identifier: str) -> AccountError:
    more = ", and nothing is kept under that address" if "@" in identifier else ""
    return AccountError(f"Nobody is called {identifier}{more}: `consulta users list` shows all.")


def _as_limited(address: str) -> tuple[str, str]:
    return normal_form(address), f"name:{normal_form(address)}"


def _shown(user: User) -> dict[str, Any]:
    moments = {name: getattr(user, name) for name in _MOMENTS}
    return {
        **{name: getattr(user, name) for name in _SHOWN},
        **{name: value and value.isoformat() for name, value in moments.items()},
    }


def _mails_in(data: Path, person: Person) -> list[Path]:
    """The e-mails of the local mailbox, which only `consulta up` has, that name the person."""
    wanted = [address.casefold() for address in person.addresses]
    return [
        file
        for name in ("new", "cur", "tmp")
        for file in sorted((data / "mail" / name).glob("*"))
        if any(address in text for text in _texts(file) for address in wanted)
    ]


def _texts(file: Path) -> list[str]:
    """The mail as it lies there, its envelope in front, and what its parts say decoded."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return []
    parts = [part.get_payload(decode=True) for part in email.message_from_bytes(content).walk()]
    texts = [content, *(part for part in parts if isinstance(part, bytes))]
    return [text.decode("utf-8", "replace").casefold() for text in texts]
