"""Fixtures that more than one ring of tests uses."""

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from core.mongo import connect
from core.settings import Settings
from tests import servers


@pytest.fixture(scope="session")
def nx_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real nx-27017 for the whole session; use a database name of your own in it."""
    with servers.nx_27017(tmp_path_factory.mktemp("nx")) as url:
        yield url


@pytest.fixture(scope="session")
def secantusdb_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real secantusdb for the whole session; use a database name of your own in it."""
    with servers.secantusdb(tmp_path_factory.mktemp("secantusdb")) as url:
        yield url


@pytest.fixture
def database_name() -> str:
    """A database name that no other test uses."""
    return f"test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def database(nx_url: str, database_name: str) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    """An empty database on nx-27017."""
    client: AsyncMongoClient[dict[str, Any]] = connect(Settings(mongo_url=nx_url))
    async with client:
        yield client[database_name]
        await client.drop_database(database_name)
