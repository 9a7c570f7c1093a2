"""E-mails that are no answers, in the collection ``mails``, sent by the same outbox as answers."""

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from core.clock import Clock, as_datetime, milliseconds, system_clock
from core.outbox import MAIL_LEASE_SECONDS, Outbox
from core.questions import Thread
from core.restoring import RestoreMark
from core.sequence import next_number

Document = dict[str, Any]


class MailKind(StrEnum):
    """Which templates a mail is rendered from."""

    TEMPORARY_PASSWORD = "temporary_password"  # nosec B105  # a kind of mail
    CONFIRMATION = "confirmation"
    """The link that shows that the address is the student's."""
    ACKNOWLEDGEMENT = "acknowledgement"
    """A question that came by e-mail has been stored."""
    NOT_ACCEPTED = "not_accepted"
    """An e-mail did not become a question; ``values["reason"]`` says why."""
    FOR_STAFF = "for_staff"
    """A student asks the course staff about an answer."""
    ALARM = "alarm"
    """The service needs the staff, or does so no longer."""


@dataclass(frozen=True, slots=True)
class AccountMail:
    """One mail; ``values`` are what its template shows, secrets among them.

    ``thread`` is the e-mail that it replies to.
    """

    id: int
    kind: MailKind
    email: str
    language: str
    values: Mapping[str, str]
    date: datetime
    mail_claims: int
    mail_attempts: int
    thread: Thread | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a document of ``mails``."""
        return cls(
            id=document["_id"],
            kind=MailKind(document["kind"]),
            email=document["email"],
            language=document["language"],
            values=document["values"],
            date=as_datetime(document["date"]),
            mail_claims=document["mail_claims"],
            mail_attempts=document["mail_attempts"],
            thread=Thread.from_document(document["thread"]) if document.get("thread") else None,
        )


class AccountMails:
    """The queue of mails that are no answers.

    Raises:
        pymongo.errors.PyMongoError: from every verb, when the server is away or refuses; from
            those that add or claim, while a backup is being restored.
    """

    def __init__(
        self,
        database: AsyncDatabase[Document],
        *,
        lease_seconds: float = MAIL_LEASE_SECONDS,
        clock: Clock = system_clock,
    ) -> None:
        self._database = database
        self._mails = database["mails"]
        self._restore = RestoreMark(database)
        self._clock = clock
        self.outbox = Outbox(self._mails, lease_seconds=lease_seconds, clock=clock)

    async def create_indexes(self) -> None:
        """Create the indexes of every verb; nothing happens where they exist."""
        await self.outbox.create_indexes()
        # Mails of before there was this key: a unique index allows one null.
        async for mail in self._mails.find({"dedupe": None}, {"_id": 1}):
            await self._mails.update_one(
                {"_id": mail["_id"]}, {"$set": {"dedupe": str(uuid.uuid4())}}
            )
        # Of before there was this number: it is what their retention ends by.
        async for mail in self._mails.find({"date_ms": None}, {"date": 1}):
            if date := mail.get("date"):
                moment = milliseconds(as_datetime(date))
                await self._mails.update_one({"_id": mail["_id"]}, {"$set": {"date_ms": moment}})
        await self._mails.create_index([("dedupe", 1)], name="dedupe", unique=True)
        await self._mails.create_index([("email", 1), ("number", 1)], name="recipient")
        # For the figures of core.statistics.
        await self._mails.create_index([("status", 1)], name="status")

    async def enqueue(
        self,
        kind: MailKind,
        *,
        email: str,
        language: str,
        values: Mapping[str, str],
        dedupe: str | None = None,
        thread: Thread | None = None,
    ) -> int | None:
        """Store a mail to ``email``, due at once.

        Args:
            dedupe: the same key again is the same mail, which is stored once.
            thread: the e-mail that it replies to.

        Returns:
            Its number; None if a mail with this key is stored already.
        """
        await self._restore.stand_aside()
        if dedupe is not None and await self._mails.find_one({"dedupe": dedupe}, {"_id": 1}):
            return None
        number = await next_number(self._database, "mails")
        # Once more: a restore may have begun meanwhile.
        await self._restore.stand_aside()
        now = self._clock()
        try:
            await self._mails.insert_one(
                {
                    "_id": number,
                    "number": number,
                    "kind": str(kind),
                    "email": email,
                    "language": language,
                    "values": dict(values),
                    "date": now,
                    "date_ms": milliseconds(now),
                    "status": None,
                    "dedupe": dedupe or str(uuid.uuid4()),
                    "thread": asdict(thread) if thread else None,
                    **Outbox.empty_fields(),
                    "mail_due": milliseconds(now),
                }
            )
        except DuplicateKeyError:
            if dedupe is None:
                raise
            return None
        return number

    async def was_written_within(
        self, email: str, kind: MailKind, span: timedelta, *, times: int = 1
    ) -> bool:
        """Whether ``times`` mails of this kind to this address were stored in the last ``span``."""
        since = milliseconds(self._clock() - span)
        found = self._mails.find(
            {"email": email, "kind": str(kind), "date_ms": {"$gt": since}}, {"_id": 1}
        ).limit(times)
        return len([mail async for mail in found]) == times

    async def claim(self) -> AccountMail | None:
        """Take the mail that has been due longest, marked in doubt; None when there is none."""
        await self._restore.stand_aside()
        document = await self.outbox.claim()
        return AccountMail.from_document(document) if document else None

    async def one(self, number: int) -> AccountMail | None:
        """Mail ``number``; without its secrets once it is sent."""
        document = await self._mails.find_one({"_id": number})
        return AccountMail.from_document(document) if document else None

    async def mark_sent(self, number: int, mail_claims: int) -> bool:
        """The receiving server accepted it; its secrets are erased."""
        return await self.outbox.mark_sent(number, mail_claims, values={})

    async def mark_undeliverable(self, number: int, mail_claims: int, reason: str) -> bool:
        """It was refused for good; its secrets are erased."""
        return await self.outbox.mark_undeliverable(number, mail_claims, reason, values={})

    async def withdraw(self, number: int, mail_claims: int) -> bool:
        """It is not worth sending any more."""
        return await self.outbox.withdraw(number, mail_claims)

    async def mark_bounced(self, number: int, reason: str) -> bool:
        """It was accepted and came back; False if none is under way."""
        return await self.outbox.mark_bounced(number, reason, values={})
