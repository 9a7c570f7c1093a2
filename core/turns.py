"""One at a time, among all processes: a lock in MongoDB that ends by itself."""

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError, PyMongoError

from core.clock import Clock, milliseconds
from core.mongo import CannotWriteError

LEASE_SECONDS = 5.0
"""After this long the turn is the next one's: who has it is dead, or its server is."""
WAIT_SECONDS = 15.0
_APART_SECONDS = 60.0
"""So far apart are the clocks of two requests at most: of two machines, or while one was sent."""
_REFUSED_SECONDS = 0.5
"""A turn that is free for so long, and cannot be taken, is one that the server does not write."""


@contextlib.asynccontextmanager
async def turn(
    database: AsyncDatabase[dict[str, Any]], name: str, clock: Clock
) -> AsyncIterator[None]:
    """Wait for the turn of this name, and hold it meanwhile.

    Who holds it for longer than its lease is not stopped: the next one comes beside.

    Raises:
        pymongo.errors.PyMongoError: the server is away, or others had the turn for too long.
    """
    turns, holder = database["turns"], uuid.uuid4().hex
    deadline = time.monotonic() + WAIT_SECONDS
    free: dict[str, Any] | None = None
    free_since = 0.0
    while True:
        now = milliseconds(clock())
        end = now + int(LEASE_SECONDS * 1000)
        taken = await turns.find_one_and_update(
            # One that ends later than any can was taken before the clock was put back. Not one that
            # ends a little later: another's was taken while this request was on its way.
            # The name in both: nx-27017 takes what stands beside an $or for a part of its first.
            {
                "$or": [
                    {"_id": name, "until": {"$lte": now}},
                    {"_id": name, "until": {"$gt": end + int(_APART_SECONDS * 1000)}},
                ]
            },
            {"$set": {"until": end, "holder": holder}},
        )
        is_taken, seen = taken is not None, None
        if not is_taken and (seen := await turns.find_one({"_id": name})) is None:
            # Not an upsert: two at the same time fail or return nothing on some servers.
            end = milliseconds(clock()) + int(LEASE_SECONDS * 1000)
            with contextlib.suppress(DuplicateKeyError):
                await turns.insert_one({"_id": name, "until": end, "holder": holder})
                is_taken = True
        if is_taken and milliseconds(clock()) < end:
            break  # Not one that took so long on its way that it has ended.
        if seen is None or seen["until"] > now:
            free = None
        elif seen != free:
            free, free_since = seen, time.monotonic()
        elif time.monotonic() > free_since + _REFUSED_SECONDS:
            # One server says of a full disk only that nothing was changed.
            raise CannotWriteError("a turn that is free cannot be taken")
        if time.monotonic() > deadline:
            raise CannotWriteError(f"others have held the turn for {WAIT_SECONDS:.0f} seconds")
        await asyncio.sleep(random.uniform(0.005, 0.025))  # noqa: S311  # nosec B311  # no secret
    try:
        yield
    finally:
        # What was done stays done; the turn then ends with its lease.
        with contextlib.suppress(PyMongoError):
            await turns.update_one({"_id": name, "holder": holder}, {"$set": {"until": 0}})
