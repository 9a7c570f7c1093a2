"""The connection to MongoDB, the same for every service."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import pymongo.lock
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure

from core.settings import Settings


class CannotWriteError(OperationFailure):
    """Nothing can be written just now, whatever it is: others come first, or the disk is full."""


async def _wait_for(coroutine: Coroutine[Any, Any, bool], seconds: float | None) -> bool:
    async with asyncio.timeout(seconds):
        return await coroutine


if sys.version_info < (3, 12):
    # PyMongo waits for a server with the lock of its client. Before 3.12 `asyncio.wait_for` does so
    # in a task of its own: who is cancelled there goes on without having the lock back, and all
    # that come after, the closing of the client too, may wait for it for ever.
    pymongo.lock.wait_for = _wait_for  # type: ignore[attr-defined, assignment]


def connect(settings: Settings) -> AsyncMongoClient[dict[str, Any]]:
    """A client of the running event loop; no connection is made before the first verb.

    Every write waits for the journal of a majority, and is found by who reads next. Every client
    must say so: on nx-27017 one client that does not turns syncing off for all of them.
    """
    return AsyncMongoClient(
        settings.mongo_url_or_parts(),
        w="majority",
        journal=True,
        readPreference="primary",
        tz_aware=True,
        appname="consulta",
        # A restart on one machine is shorter, and who asks meanwhile should not notice it.
        serverSelectionTimeoutMS=3_000,
        connectTimeoutMS=5_000,
        socketTimeoutMS=30_000,
    )


async def count(collection: AsyncCollection[dict[str, Any]], query: dict[str, Any]) -> int:
    """How many documents fit the query.

    By the command itself: ``count_documents`` sends a pipeline, for which nx-27017 first counts all
    documents there are.
    """
    reply = await collection.database.command("count", collection.name, query=query)
    return int(reply["n"])
