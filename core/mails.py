"""E-mails about an account, in the collection ``mails``, sent by the same outbox as answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from core.clock import Clock, as_datetime, milliseconds, system_clock
from core.outbox import Outbox
from core.sequence import next_number

Document = dict[str, Any]


class MailKind(StrEnum):
    """Which templates an account mail is rendered from."""

    TEMPORARY_PASSWORD = "temporary_password"


@dataclass(frozen=True, slots=True)
class AccountMail:
    """One account mail; ``values`` are what its template shows, secrets among them."""

    id: int
    kind: MailKind
    email: str
    language: str
    values: Mapping[str, str]
    date: datetime
    mail_claims: int
    mail_attempts: int


class AccountMails:
    """The queue of account mails.

    Raises:
        pymongo.errors.PyMongoError: from every verb, when the server is away or refuses.
    """

    def __init__(self, database: AsyncDatabase[Document], *, clock: Clock = system_clock) -> None:
        self._database = database
        self._mails = database["mails"]
        self._clock = clock
        self.outbox = Outbox(self._mails, clock=clock)

    async def create_indexes(self) -> None:
        """Create the index that claims use; nothing happens where it exists."""
        await self.outbox.create_indexes()

    async def enqueue(
        self, kind: MailKind, *, email: str, language: str, values: Mapping[str, str]
    ) -> int:
        """Store a mail to ``email``, due at once; returns its number."""
        number = await next_number(self._database, "mails")
        now = self._clock()
        await self._mails.insert_one(
            {
                "_id": number,
                "number": number,
                "kind": str(kind),
                "email": email,
                "language": language,
                "values": dict(values),
                "date": now,
                "status": None,
                **Outbox.empty_fields(),
                "mail_due": milliseconds(now),
            }
        )
        return number

    async def claim(self) -> AccountMail | None:
        """Take the mail that has been due longest, marked in doubt; None when there is none."""
        document = await self.outbox.claim()
        if document is None:
            return None
        return AccountMail(
            id=document["_id"],
            kind=MailKind(document["kind"]),
            email=document["email"],
            language=document["language"],
            values=document["values"],
            date=as_datetime(document["date"]),
            mail_claims=document["mail_claims"],
            mail_attempts=document["mail_attempts"],
        )

    async def mark_sent(self, number: int, mail_claims: int) -> bool:
        """The receiving server accepted it; its secrets are erased."""
        return await self.outbox.mark_sent(number, mail_claims, values={})

    async def mark_undeliverable(self, number: int, mail_claims: int, reason: str) -> bool:
        """It was refused for good; its secrets are erased."""
        return await self.outbox.mark_undeliverable(number, mail_claims, reason, values={})
