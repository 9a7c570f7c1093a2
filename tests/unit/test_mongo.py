"""Whatever the URI says, a write that was confirmed is kept, and is found afterwards."""

import asyncio
import socket
from typing import Any

import pytest
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.errors import ServerSelectionTimeoutError

from core.mongo import connect
from core.settings import Settings

REPLICA_SET = "mongodb://a.test,b.test,c.test/?replicaSet=rs0"


async def client_for(**settings: Any) -> AsyncMongoClient[dict[str, Any]]:
    """A client that has not connected to anything; closed at once."""
    client = connect(Settings(**settings))
    await client.close()
    return client


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://localhost",
        "mongodb://localhost/?w=1&journal=false",
        "mongodb://localhost/?w=0",
        f"{REPLICA_SET}&w=1&readPreference=secondary&readConcernLevel=available",
    ],
)
async def test_every_write_waits_for_the_journal_of_a_majority(url: str) -> None:
    client = await client_for(mongo_url=url)
    assert client.write_concern.document == {"w": "majority", "j": True}
    assert client.read_preference == ReadPreference.PRIMARY
    assert client["x"]["prompts"].write_concern == client.write_concern


async def test_lost_replies_are_found_out_by_retrying_unless_the_uri_forbids_it() -> None:
    assert (await client_for(mongo_url=REPLICA_SET)).options.retry_writes
    forbidden = await client_for(mongo_url="mongodb://localhost/?retryWrites=false")
    assert not forbidden.options.retry_writes


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ({"mongo_url": "mongodb://ana:p%40ss%2F%C3%B1@localhost"}, "admin"),
        ({"mongo_url": "mongodb://ana:p%40ss%2F%C3%B1@localhost/consulta"}, "consulta"),
        (
            {"mongo_url": "mongodb://ana:p%40ss%2F%C3%B1@localhost/consulta?authSource=admin"},
            "admin",
        ),
        ({"mongo_host": "localhost", "mongo_user": "ana", "mongo_pass": "p@ss/ñ"}, "admin"),
    ],
)
async def test_login_is_the_one_that_is_set(settings: dict[str, Any], source: str) -> None:
    pool = (await client_for(**settings)).options.pool_options
    assert pool._credentials is not None
    assert pool._credentials.username == "ana"
    assert pool._credentials.password == "p@ss/ñ"
    assert pool._credentials.source == source


async def test_names_of_the_servers_and_of_the_set_are_the_uris() -> None:
    client = await client_for(mongo_url=REPLICA_SET)
    assert client.options.replica_set_name == "rs0"
    assert client._topology_settings.seeds == {(f"{name}.test", 27017) for name in "abc"}


async def test_verbs_that_are_cancelled_while_they_wait_for_a_server_leave_the_client_usable() -> (
    None
):
    """On Python 3.11 PyMongo alone would lose its lock and wait for it for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = connect(Settings(mongo_url=f"mongodb://127.0.0.1:{port}/?directConnection=true"))
    async with asyncio.timeout(20), client:
        waiting = [asyncio.create_task(client.admin.command("ping")) for _ in range(3)]
        await asyncio.sleep(0.3)
        async with client._topology._lock:
            # Until each has waited for its half second, and wants the lock back.
            await asyncio.sleep(0.6)
            for task in waiting:
                task.cancel()
            await asyncio.sleep(0)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 3
        with pytest.raises(ServerSelectionTimeoutError):
            await client.admin.command("ping")
