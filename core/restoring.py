"""The sign that a backup is being restored, beside what is restored."""

from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from core.clock import system_clock


class UnfinishedRestoreError(Exception):
    """A restore has begun and not ended: what is stored is a part."""


class RestoreMark:
    """One document of the collection ``restore``, from a restore's first change to its last.

    Raises:
        pymongo.errors.PyMongoError: from every verb, when the server is away or refuses.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._restore = database["restore"]

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

    async def set(self) -> None:
        """A restore begins."""
        await self.remove()
        await self._restore.insert_one({"_id": "restore", "begun": system_clock().isoformat()})

    async def remove(self) -> None:
        """It has ended; when this is on disk, so is what was written before."""
        await self._restore.delete_many({})
