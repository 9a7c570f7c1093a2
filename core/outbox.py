"""The outbox: e-mails that are documents until a mail server has accepted them.

Sending exactly once over SMTP is impossible (RFC 1047), so a claim marks the document in doubt
before the mail leaves and the mark "sent" follows the server's yes. A mailer that dies between the
two makes a duplicate, never a loss; all copies carry one Message-ID.
"""

from datetime import timedelta
from enum import StrEnum
from typing import Any

from pymongo import ReturnDocument
from pymongo.asynchronous.collection import AsyncCollection

from core.clock import NEVER, Clock, milliseconds, system_clock

Document = dict[str, Any]

MAIL_LEASE_SECONDS = 60.0
"""How long a claim lasts without being renewed. The mailer renews it while a server is slow."""

_HAS_RECIPIENT = {"email": {"$gt": ""}}
"""False where the person was forgotten."""


class MailStatus(StrEnum):
    """The stored ``status``; it is null until the e-mail's fate is known."""

    SENT = "sent"
    UNDELIVERABLE = "undeliverable"
    WITHDRAWN = "withdrawn"
    """Not worth sending any more: an alarm that was no longer true, or an answer to a student whose
    data were deleted."""


class Outbox:
    """The outbox part of a collection whose documents are e-mails to be.

    A document waits while ``mail_due`` has come; ``mail_claims`` is the fencing token. Verbs that
    take it return False when another mailer has claimed the document since.

    Raises:
        pymongo.errors.PyMongoError: from every verb, when the server is away or refuses.
    """

    def __init__(
        self,
        collection: AsyncCollection[Document],
        *,
        lease_seconds: float = MAIL_LEASE_SECONDS,
        clock: Clock = system_clock,
    ) -> None:
        self._collection = collection
        self.lease_seconds = lease_seconds
        self._clock = clock

    @staticmethod
    def empty_fields() -> Document:
        """The fields of a document whose e-mail cannot be written yet."""
        return {
            "mail_due": NEVER,
            "mail_claims": 0,
            "mail_attempts": 0,
            "mail_in_doubt": False,
            "mail_error": None,
        }

    async def create_indexes(self) -> None:
        """Create the index that claims use; nothing happens where it exists."""
        await self._collection.create_index([("mail_due", 1), ("number", 1)], name="outbox")

    async def claim(self) -> Document | None:
        """Take the e-mail that has been due longest, marked in doubt; None when there is none."""
        now = self._clock()
        return await self._collection.find_one_and_update(
            {"mail_due": {"$lte": milliseconds(now)}},
            {
                "$set": {"mail_due": self._lease_end(), "mail_in_doubt": True},
                "$inc": {"mail_claims": 1},
            },
            sort=[("mail_due", 1), ("number", 1)],
            return_document=ReturnDocument.AFTER,
        )

    async def renew(self, number: int, mail_claims: int) -> bool:
        """Extend the claim by one lease from now."""
        return await self._update_held(number, mail_claims, {"mail_due": self._lease_end()})

    async def mark_sent(self, number: int, mail_claims: int, **changes: Any) -> bool:
        """The receiving server accepted it. Final. ``changes`` are fields to set with it."""
        return await self._update_held(
            number, mail_claims, {**self._final(MailStatus.SENT), "mail_error": None, **changes}
        )

    async def retry(
        self, number: int, mail_claims: int, *, after: float, error: str, counts: bool = True
    ) -> bool:
        """It was not accepted this time: try again in ``after`` seconds.

        With ``counts`` false no attempt is used up: it was the mail server's trouble.
        """
        due = milliseconds(self._clock() + timedelta(seconds=after))
        return await self._update_held(
            number,
            mail_claims,
            {"mail_due": due, "mail_in_doubt": False, "mail_error": error},
            {"mail_attempts": 1 if counts else 0},
        )

    async def mark_undeliverable(
        self, number: int, mail_claims: int, reason: str, **changes: Any
    ) -> bool:
        """It was refused for good; ``reason`` is kept for staff."""
        final = self._final(MailStatus.UNDELIVERABLE)
        return await self._update_held(
            number, mail_claims, {**final, "mail_error": reason, **changes}
        )

    async def withdraw(self, number: int, mail_claims: int) -> bool:
        """It is not worth sending any more."""
        return await self._update_held(number, mail_claims, self._final(MailStatus.WITHDRAWN))

    async def mark_bounced(self, number: int, reason: str, **changes: Any) -> bool:
        """It came back, after a server had accepted it or while that was in doubt."""
        final = {**self._final(MailStatus.UNDELIVERABLE), "mail_error": reason, **changes}
        # Two updates, because not every server knows null inside $or.
        for state in ({"status": str(MailStatus.SENT)}, {"status": None, "mail_in_doubt": True}):
            result = await self._collection.update_one(
                {"_id": number, **_HAS_RECIPIENT, **state}, {"$set": final}
            )
            if result.matched_count == 1:
                return True
        return False

    async def requeue(self, number: int) -> bool:
        """Try an undeliverable e-mail again from the start."""
        result = await self._collection.update_one(
            {"_id": number, **_HAS_RECIPIENT, "status": str(MailStatus.UNDELIVERABLE)},
            {
                "$set": {
                    "status": None,
                    "mail_attempts": 0,
                    "mail_due": milliseconds(self._clock()),
                    "mail_since_ms": milliseconds(self._clock()),
                }
            },
        )
        return result.matched_count == 1

    def _lease_end(self) -> int:
        return milliseconds(self._clock() + timedelta(seconds=self.lease_seconds))

    def _final(self, status: MailStatus) -> Document:
        return {
            "status": str(status),
            "mail_due": NEVER,
            "mail_in_doubt": False,
            "mail_ended_ms": milliseconds(self._clock()),
        }

    async def _update_held(
        self, number: int, mail_claims: int, changes: Document, increments: Document | None = None
    ) -> bool:
        update: Document = {"$set": changes}
        if increments is not None:
            update["$inc"] = increments
        result = await self._collection.update_one(
            {"_id": number, "mail_claims": mail_claims, "mail_due": {"$lt": NEVER}}, update
        )
        return result.matched_count == 1
