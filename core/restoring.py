"""The sign that a backup is being restored, beside what is restored."""

import time
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from core.clock import system_clock

NOTICE_SECONDS = 2.0
"""After so long everybody has seen the mark who works on the queue."""
LOOK_SECONDS = 1.0
"""So often it is looked for. What is added right after a look has the rest of the notice."""


class UnfinishedRestoreError(PyMongoError):
    """A restore has begun and not ended: what is stored is a part.

    To whoever works on the queue it is the same as a server that is away: wait, and go on.
    """


class RestoreMark:
    """One document of the collection ``restore``, from a restore's first change to its last.

    Raises:
        pymongo.errors.PyMongoError: from every verb, when the server is away or refuses.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._restore = database["restore"]
        self._next_look = 0.0

    async def begun(self) -> str | None:
        """When the restore began that has not ended (ISO 8601, UTC), if there is one."""
        found = await self._restore.find_one({"_id": "restore"})
        return found["begun"] if found else None

    async def refuse(self) -> None:
        """Return where there is none.

        Raises:
            UnfinishedRestoreError: there is one.
        """
        if begun := await self.begun():
            raise UnfinishedRestoreError(
                f"the restore of {begun[:16]} UTC has not ended: let it end, or repeat it"
            )

    async def stand_aside(self) -> None:
        """As :meth:`refuse`, but the server is asked once a second at most: for every verb."""
        now = time.monotonic()
        if now >= self._next_look:
            await self.refuse()
            self._next_look = now + LOOK_SECONDS

    async def set(self) -> None:
        """A restore begins."""
        await self.remove()
        await self._restore.insert_one({"_id": "restore", "begun": system_clock().isoformat()})

    async def remove(self) -> None:
        """It has ended; when this is on disk, so is what was written before."""
        await self._restore.delete_many({})
