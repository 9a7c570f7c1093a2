"""What the queue's database keeps of a person: found, shown, forgotten, and ended after a time.

An answer that was sent stays, without the person: what students ask is what staff learn from.
"""

import contextlib
import re
import unicodedata
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from core.clock import NEVER, Clock, as_datetime, milliseconds, system_clock
from core.outbox import MailStatus
from core.restoring import RestoreMark
from core.users import normal_form

Document = dict[str, Any]

MASK = "[…]"
UNSENT = "the student's data were deleted before it was sent"

_LEASE = timedelta(hours=1)
_EVERY = timedelta(days=1)
_AT_ONCE = 500
_SECRETS = ("password", "url")
"""What lets its reader in, in the values of a mail."""

# What people write about themselves into a question: addresses, telephone and identity numbers.
_PERSONAL = re.compile(
    # As long as a local part may be: a run without an end would be tried from each place in it.
    r"[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+"
    # 612345678, 612 345 678, 612 34 56 78, 91 234 56 78, each with or without a country's code;
    # not the digits of a decimal number.
    r"|(?<![\w.,])(?:\+\d{1,3}[ .-]?)?"
    r"(?:\d{3}[ .-]?\d{3}[ .-]?\d{3}|\d{3}(?:[ .-]\d{2}){3}|\d{2}[ .-]\d{3}(?:[ .-]\d{2}){2})(?!\w)"
    r"|(?<!\w)[XYZxyz]?\d{7,8}-?[A-Za-z](?!\w)"
)
_NAME_PART = re.compile(r"[^\W\d_]{3,}")


def masked(text: str, *identifiers: str) -> str:
    """The text without what looks like an address, a telephone or an identity number.

    Nor with the ``identifiers`` (addresses and user names) and the names they are made of, as whole
    words, whatever their capitals and accents.
    """
    return _without_names(_PERSONAL.sub(MASK, text), identifiers)


def _without_names(text: str, identifiers: Iterable[str]) -> str:
    names: set[str] = set()
    for identifier in identifiers:
        name = identifier.partition("@")[0]
        names |= {identifier, name, *_NAME_PART.findall(name)}
    # A domain is the institution's, and one letter is no name.
    alternatives = sorted((_folded(n) for n in names if len(n) > 1), key=len, reverse=True)
    if not alternatives:
        return text
    pattern = rf"(?<!\w)(?:{'|'.join(map(re.escape, alternatives))})(?!\w)"
    parts, end = [], 0
    for found in re.finditer(pattern, _folded(text)):
        parts += [text[end : found.start()], MASK]
        end = found.end()
    return "".join([*parts, text[end:]])


def _folded(text: str) -> str:
    # Character by character, so that places in it are places in the text.
    return "".join(map(_folded_character, text))


def _folded_character(character: str) -> str:
    folded = unicodedata.normalize("NFD", character)[0].casefold()
    return folded if len(folded) == 1 else character


@dataclass(frozen=True, slots=True)
class Person:
    """Who is meant: an account, or an address that has none.

    Attributes:
        addresses: one, with its domain in each of its spellings.
        user_id: of the account.
        username: of the account.
    """

    addresses: tuple[str, ...]
    user_id: int | None = None
    username: str = ""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How much was found: no names, so that it may stand in a log.

    Attributes:
        kept: answers that are kept without the person.
        deleted: questions that were deleted.
        mails: other mails that were deleted.
        addresses: dead addresses that were deleted.
    """

    kept: int = 0
    deleted: int = 0
    mails: int = 0
    addresses: int = 0

    def __add__(self, other: "Forgotten") -> "Forgotten":
        return Forgotten(
            self.kept + other.kept,
            self.deleted + other.deleted,
            self.mails + other.mails,
            self.addresses + other.addresses,
        )

    def __bool__(self) -> bool:
        return any((self.kept, self.deleted, self.mails, self.addresses))


class PersonalData:
    """Everything about a person in the collections of one MongoDB database.

    Every change concerns one document and is complete in itself: what was interrupted is finished
    by the same call again. Nothing that a worker or a mailer holds meanwhile comes back: their
    claims no longer fit.

    Raises:
        core.restoring.UnfinishedRestoreError: what is there is a part.
        pymongo.errors.PyMongoError: the server is away, or refuses.
    """

    def __init__(self, database: AsyncDatabase[Document], *, clock: Clock = system_clock) -> None:
        self._database = database
        self._prompts = database["prompts"]
        self._mails = database["mails"]
        self._suppressions = database["suppressions"]
        self._turns = database["turns"]
        self._restore = RestoreMark(database)
        self._clock = clock

    async def of(self, person: Person) -> dict[str, list[Document]]:
        """All of it, as JSON can hold it, by collection; what lets somebody in is left out."""
        await self._restore.refuse()
        numbers = await self._questions(person)
        mails = await self._mails_of(person, numbers)
        return {
            "questions": [
                _readable(found)
                for number in numbers
                if (found := await self._prompts.find_one({"_id": number}))
            ],
            "mails": [
                _readable(_without_secrets(found))
                for number in mails
                if (found := await self._mails.find_one({"_id": number}))
            ],
            "dead_addresses": [
                _readable(found)
                for address in _normal_forms(person)
                if (found := await self._suppressions.find_one({"_id": address}))
            ],
            "turns": [
                _readable(found)
                for name in _turns(person)
                if (found := await self._turns.find_one({"_id": name}))
            ],
        }

    async def forget(self, person: Person, *, with_texts: bool = False) -> Forgotten:
        """Keep the answers without the person, and delete the rest.

        A question that has no answer yet is deleted: nobody is left to answer. An answer that was
        not sent yet is not sent. ``with_texts`` deletes all questions with their answers.
        """
        await self._restore.refuse()
        numbers = await self._questions(person)
        mails = await self._mails_of(person, numbers)
        done = Forgotten()
        for number in mails:
            result = await self._mails.delete_one({"_id": number})
            done += Forgotten(mails=result.deleted_count)
        identifiers = (*person.addresses, *([person.username] if person.username else []))
        for number in numbers:
            which: Document = {"_id": number}
            if not with_texts:
                which["due"] = {"$lt": NEVER}
            result = await self._prompts.delete_one(which)
            done += Forgotten(deleted=result.deleted_count)
            if not result.deleted_count and await self._detach(number, identifiers):
                done += Forgotten(kept=1)
        for address in _normal_forms(person):
            result = await self._suppressions.delete_one({"_id": address})
            done += Forgotten(addresses=result.deleted_count)
        for name in _turns(person):
            await self._turns.delete_one({"_id": name})
        return done

    async def end_before(self, moment_ms: int) -> AsyncIterator[Forgotten]:
        """The same for what was asked or written before a moment, in milliseconds since 1970.

        Only where nothing is left to do: what waits for an answer or for its e-mail stays as it is,
        and so do addresses that mail came back from. Goes on a part at a time.
        """
        await self._restore.refuse()
        newest = await self._prompts.find_one({}, {"number": 1}, sort=[("number", -1)])
        finished: Document = {"due": NEVER, "mail_due": NEVER}
        # By ranges of the indexed number, so that no query keeps the server busy for long.
        for last in range(0, newest["number"] if newest else 0, _AT_ONCE):
            page = self._prompts.find(
                {
                    "number": {"$gt": last, "$lte": last + _AT_ONCE},
                    **finished,
                    "date_ms": {"$lt": moment_ms},
                    "email": {"$gt": ""},
                }
            )
            await self._restore.stand_aside()
            kept = 0
            for document in await page.to_list():
                kept += await self._detach(document["_id"], (document["email"],), **finished)
            yield Forgotten(kept=kept)
        result = await self._mails.delete_many({"mail_due": NEVER, "date_ms": {"$lt": moment_ms}})
        yield Forgotten(mails=result.deleted_count)

    async def _questions(self, person: Person) -> list[int]:
        def is_theirs(document: Mapping[str, Any]) -> bool:
            is_account = person.user_id is not None and document.get("user_id") == person.user_id
            return is_account or _is_address(document.get("email"), person)

        fields = {"email": 1, "user_id": 1}
        found = self._prompts.find({}, fields).sort([("number", 1)])
        return [document["_id"] async for document in found if is_theirs(document)]

    async def _mails_of(self, person: Person, questions: Iterable[int]) -> list[int]:
        """Those to the person, and those to the staff that ask for help in the person's name."""
        asked = {f"for_staff:{number}" for number in questions}

        def is_theirs(document: Mapping[str, Any]) -> bool:
            named = [document.get("email"), (document.get("values") or {}).get("student")]
            return document.get("dedupe") in asked or any(_is_address(n, person) for n in named)

        fields = {"email": 1, "values": 1, "dedupe": 1}
        found = self._mails.find({}, fields).sort([("number", 1)])
        return [document["_id"] async for document in found if is_theirs(document)]

    async def _detach(self, number: int, identifiers: tuple[str, ...], **condition: Any) -> bool:
        """Keep a question and its answer without the person; False where it is not there."""
        while document := await self._prompts.find_one({"_id": number, **condition}):
            changes = _without_person(document, identifiers)
            result = await self._prompts.update_one(
                # Not one that was sent, or came back, meanwhile: it is read again.
                {"_id": number, "status": document.get("status"), **condition},
                {"$set": changes, "$inc": {"mail_claims": 1}},
            )
            if result.matched_count:
                return True
        return False


def _without_person(document: Document, identifiers: tuple[str, ...]) -> Document:
    changes: Document = {
        "email": "",
        "user_id": 0,
        # The request or the e-mail that it came by: neither is a repetition any more.
        "dedupe": str(uuid.uuid4()),
        "thread": None,
        "follows": None,
        # It may quote the address.
        "mail_error": None,
        "mail_due": NEVER,
        "mail_in_doubt": False,
    }
    if error := document.get("error"):
        # What follows the kind of error may quote what was asked.
        changes["error"] = masked(error.partition(":")[0], *identifiers)
    for name in ("input", "output"):
        if isinstance(text := document.get(name), str):
            changes[name] = masked(text, *identifiers)
    if earlier := document.get("earlier"):
        changes["earlier"] = {name: masked(text, *identifiers) for name, text in earlier.items()}
    if document.get("status") is None:
        changes |= {"status": str(MailStatus.WITHDRAWN), "mail_error": UNSENT}
    return changes


@dataclass(frozen=True, slots=True)
class LastRun:
    """When personal data of too long ago was looked for last (ms since 1970), and was found."""

    moment_ms: int
    questions: int
    mails: int


class Retention:
    """Ends personal data that are older than so many days, once a day among all processes.

    One document of the collection ``retention`` says when it is due: who takes it has an hour.

    Raises:
        pymongo.errors.PyMongoError: from every verb, when the server is away or refuses.
    """

    def __init__(
        self, database: AsyncDatabase[Document], days: int, *, clock: Clock = system_clock
    ) -> None:
        self._runs = database["retention"]
        self._data = PersonalData(database, clock=clock)
        self._days = days
        self._clock = clock

    async def run_if_due(self, stopped: Callable[[], bool] = lambda: False) -> Forgotten | None:
        """Do it, where nobody has within a day; None where it was not due, or was ``stopped``."""
        start = self._clock()
        if not await self._take(milliseconds(start)):
            return None
        done = Forgotten()
        async for part in self._data.end_before(milliseconds(start - timedelta(days=self._days))):
            done += part
            if stopped():
                await self._runs.update_one({"_id": "retention"}, {"$set": {"due": 0}})
                return None
        changes = {
            "due": milliseconds(start + _EVERY),
            "ran_ms": milliseconds(start),
            "questions": done.kept,
            "mails": done.mails,
        }
        await self._runs.update_one({"_id": "retention"}, {"$set": changes})
        return done

    async def last(self) -> LastRun | None:
        """The last run that has ended; None where there is none."""
        found = await self._runs.find_one({"_id": "retention", "ran_ms": {"$gt": 0}})
        return LastRun(found["ran_ms"], found["questions"], found["mails"]) if found else None

    async def _take(self, now: int) -> bool:
        until = now + _in_milliseconds(_LEASE)
        taken = await self._runs.find_one_and_update(
            # One that ends much later than any can was taken before the clock was put back.
            {
                "$or": [
                    {"_id": "retention", "due": {"$lte": now}},
                    {"_id": "retention", "due": {"$gt": now + _in_milliseconds(2 * _EVERY)}},
                ]
            },
            {"$set": {"due": until}},
        )
        if taken is not None:
            return True
        with contextlib.suppress(DuplicateKeyError):
            await self._runs.insert_one({"_id": "retention", "due": until})
            return True
        return False


def _in_milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def _is_address(value: object, person: Person) -> bool:
    return isinstance(value, str) and normal_form(value) in _normal_forms(person)


def _normal_forms(person: Person) -> list[str]:
    return list(dict.fromkeys(map(normal_form, person.addresses)))


def _turns(person: Person) -> list[str]:
    return [f"user:{person.user_id}"] if person.user_id is not None else []


def _without_secrets(mail: Document) -> Document:
    values = {n: v for n, v in (mail.get("values") or {}).items() if n not in _SECRETS}
    return {**mail, "values": values}


def _readable(document: Document) -> Document:
    dates = [name for name in ("date", "date_out") if document.get(name)]
    return {**document, **{name: as_datetime(document[name]).isoformat() for name in dates}}
