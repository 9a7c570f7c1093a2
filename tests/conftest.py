"""Fixtures that more than one ring of tests uses."""

import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from core.mongo import connect
from core.settings import Settings
from tests import servers


def pytest_configure() -> None:
    """Let SIGTERM end the tests as Ctrl-C does: with the servers that they have started."""

    def end(_number: int, _frame: object) -> None:
        # One that comes while the servers are being stopped must not stop that.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    # A shell that runs the tests in the background has it ignored, for our children too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def ferretdb_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real FerretDB for the whole session; use a database name of your own in it."""
    with servers.ferretdb(tmp_path_factory.mktemp("ferretdb")) as url:
        yield url


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.MariaDB]:
    """A real MariaDB for the whole session; use a database of your own in it."""
    with servers.mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture(params=["sqlite", "mariadb"])
def users_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database for users, on each kind of server."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'users.db'}"
        return
    server: servers.MariaDB = request.getfixturevalue("mariadb")
    with server.database() as name:
        yield server.url(name)


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
