"""Numbers that count up, for people and for order."""

import contextlib
from typing import Any

from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from core.mongo import CannotWriteError

_TRIES = 5


async def next_number(database: AsyncDatabase[dict[str, Any]], collection: str) -> int:
    """The next number for a document of ``collection``, from one atomic counter document.

    Every call gives a larger number than the one before it; a caller that dies leaves a gap. A
    counter that is not there starts after the highest ``number`` of the collection.

    Raises:
        pymongo.errors.PyMongoError: the server is away, or it cannot write.
    """
    counters = database["counters"]
    for _ in range(_TRIES):
        counter = await counters.find_one_and_update(
            {"_id": collection}, {"$inc": {"value": 1}}, return_document=ReturnDocument.AFTER
        )
        if counter is not None:
            return int(counter["value"])
        # Not an upsert: two at the same time fail or return nothing on some servers.
        last = await database[collection].find_one({}, {"number": 1}, sort=[("number", -1)])
        with contextlib.suppress(DuplicateKeyError):
            await counters.insert_one({"_id": collection, "value": last["number"] if last else 0})
    # One of the servers hides it in this way that its disk is full.
    raise CannotWriteError(f"the counter of {collection} is there and cannot be changed")
