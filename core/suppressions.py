"""Addresses that no mail is sent to, because mail to them came back."""

from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from core.clock import Clock, milliseconds, system_clock
from core.users import normal_form

Document = dict[str, Any]


class Suppressions:
    """The dead addresses, in the collection ``suppressions``, by their normal form.

    Raises:
        pymongo.errors.PyMongoError: from every verb, when the server is away or refuses.
    """

    def __init__(self, database: AsyncDatabase[Document], *, clock: Clock = system_clock) -> None:
        self._suppressions = database["suppressions"]
        self._clock = clock

    async def add(self, email: str, reason: str) -> bool:
        """Send nothing more to this address; False when it is known, with its first reason."""
        try:
            await self._suppressions.insert_one(
                {
                    "_id": normal_form(email),
                    "reason": reason,
                    "date_ms": milliseconds(self._clock()),
                }
            )
        except DuplicateKeyError:
            return False
        return True

    async def reason(self, email: str) -> str | None:
        """Why nothing is sent to this address; None where mail may be sent."""
        found = await self._suppressions.find_one({"_id": normal_form(email)}, {"reason": 1})
        return found["reason"] if found else None

    async def remove(self, email: str) -> bool:
        """The address is confirmed again; False when it was not suppressed."""
        result = await self._suppressions.delete_one({"_id": normal_form(email)})
        return result.deleted_count == 1
