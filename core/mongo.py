"""The connection to MongoDB, the same for every service."""

from typing import Any

from pymongo import AsyncMongoClient

from core.settings import Settings


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
        serverSelectionTimeoutMS=5_000,
        connectTimeoutMS=5_000,
        socketTimeoutMS=30_000,
    )
