"""Health, outages, and what the logs say, with real processes."""

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests import servers
from tests.api_client import PASSWORD, api_process, register, running_app, serving, settings_for


async def test_status_and_health(nx_url: str, database_name: str, tmp_path: Path) -> None:
    async with running_app(settings_for(nx_url, database_name, tmp_path)) as client:
        root = (await client.get("/")).json()
        assert root["name"] == "Consulta"
        assert root["version"]
        assert (await client.get("/health/live")).json() == {"status": "ok"}
        ready = await client.get("/health/ready")
        assert ready.status_code == 200
        assert ready.json() == {"status": "ok", "users": "ok", "queue": "ok"}


async def test_api_is_up_while_mongodb_is_away_and_recovers(
    database_name: str, tmp_path: Path
) -> None:
    port = servers.free_port()
    url = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    async with running_app(settings_for(url, database_name, tmp_path)) as client:
        login = await register(client)
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["queue"]) == (503, "down")
        assert (await client.get("/health/live")).status_code == 200
        start = time.monotonic()
        replies = await asyncio.gather(
            client.post("/questions", json={"input": "¿?"}, headers=login),
            client.get("/questions/1", headers=login),
            client.post("/auth/forgot-password", json={"email": "ana@uni.test"}),
            client.post("/auth/forgot-password", json={"email": "nobody@uni.test"}),
        )
        assert [reply.status_code for reply in replies] == [503] * 4
        assert time.monotonic() - start < 5
        assert all(reply.headers["retry-after"] for reply in replies)
        assert replies[2].text == replies[3].text

        with servers.nx_27017(tmp_path, port):
            deadline = time.monotonic() + 20
            while (await client.get("/health/ready")).status_code != 200:
                assert time.monotonic() < deadline
            response = await client.post("/questions", json={"input": "¿?"}, headers=login)
            assert response.status_code == 202
            assert (await client.get("/questions", headers=login)).status_code == 200


async def test_question_that_is_asked_while_mongodb_restarts_is_stored(
    database_name: str, tmp_path: Path
) -> None:
    port = servers.free_port()
    url = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    async with running_app(settings_for(url, database_name, tmp_path)) as client:
        with servers.nx_27017(tmp_path, port):
            login = await register(client)
            assert (await client.get("/questions", headers=login)).status_code == 200
        asked = asyncio.create_task(client.post("/questions", json={"input": "¿?"}, headers=login))
        await asyncio.sleep(1)
        with servers.nx_27017(tmp_path, port):
            assert (await asked).status_code == 202


async def test_api_stops_in_time_while_mongodb_is_away(database_name: str, tmp_path: Path) -> None:
    url = f"mongodb://127.0.0.1:{servers.free_port()}/?directConnection=true"
    async with running_app(settings_for(url, database_name, tmp_path)) as client:
        # Ends by a timeout, in the same moment in which the start's own waiting is told of it.
        assert (await client.get("/health/ready")).status_code == 503
        start = time.monotonic()
    assert time.monotonic() - start < 2


async def test_users_database_that_is_away_is_503(
    nx_url: str, database_name: str, tmp_path: Path
) -> None:
    away = f"sqlite:///{tmp_path / 'no folder' / 'users.db'}"
    settings = settings_for(nx_url, database_name, tmp_path, database_url=away)
    async with running_app(settings) as client:
        response = await client.post("/login", data={"username": "ana", "password": PASSWORD})
        assert response.status_code == 503
        ready = await client.get("/health/ready")
        assert ready.json() == {"status": "down", "users": "down", "queue": "ok"}
        (tmp_path / "no folder").mkdir()
        deadline = time.monotonic() + 20
        while (await client.get("/health/ready")).status_code != 200:
            assert time.monotonic() < deadline
        assert await register(client)


async def test_users_file_that_cannot_be_written_is_503(
    nx_url: str, database_name: str, tmp_path: Path
) -> None:
    async with running_app(settings_for(nx_url, database_name, tmp_path)) as client:
        await register(client)
        with unwritable(tmp_path / "users.db"):
            eva = {"email": "eva@uni.test", "username": "eva", "password": PASSWORD}
            response = await client.post("/user", json=eva)
            assert response.status_code == 503
            assert "uni.test" not in response.text
        assert (await client.post("/user", json=eva)).status_code == 201


@contextlib.contextmanager
def unwritable(file: Path) -> Iterator[None]:
    """SQLite cannot write its rollback journal: a directory lies in its place."""
    journal = file.with_name(file.name + "-journal")
    journal.mkdir()
    yield
    journal.rmdir()


async def test_logs_name_the_question_and_no_person(nx_url: str, tmp_path: Path) -> None:
    with serving(nx_url, tmp_path) as url:
        async with httpx.AsyncClient(base_url=url) as client:
            login = await register(client)
            await client.post("/questions", json={"input": "mi pregunta"}, headers=login)
            await client.get("/questions?limit=7", headers=login)
            await client.get("/nowhere/ana@uni.test")
            await client.get("/questions/1", headers=login)
    log = (tmp_path / "api.log").read_text()
    line = next(line for line in log.splitlines() if "path=/questions/{id}" in line)
    for part in ("method=GET", "status=200", "question=1", "user=1", "ms="):
        assert part in line
    for secret in ("uni.test", "mi pregunta", "limit=7", PASSWORD, login["Authorization"][7:]):
        assert secret not in log


def test_probes_may_ask_with_head(nx_url: str, tmp_path: Path) -> None:
    with serving(nx_url, tmp_path) as url:
        for path in ("/", "/health/live", "/health/ready"):
            reply = httpx.head(url + path)
            assert (reply.status_code, reply.content) == (200, b""), path
            assert (
                reply.headers["content-length"] == httpx.get(url + path).headers["content-length"]
            )
        # To GET it would take a question away, so it is no HEAD.
        assert httpx.head(f"{url}/receive-prompt").status_code == 405


def test_api_stops_in_time_and_leaves_its_data(nx_url: str, tmp_path: Path) -> None:
    account = {"email": "ana@uni.test", "username": "ana", "password": PASSWORD}
    port = servers.free_port()
    with serving(nx_url, tmp_path, port) as url:
        assert httpx.post(f"{url}/user", json=account).status_code == 201
        start = time.monotonic()
    assert time.monotonic() - start < 5
    with serving(nx_url, tmp_path, port) as url:
        assert httpx.post(f"{url}/user", json=account).status_code == 409


def test_tables_of_a_newer_version_that_come_late_end_the_process_too(
    nx_url: str, tmp_path: Path
) -> None:
    late = tmp_path / "late"
    command, environment = api_process(nx_url, late, port := servers.free_port())
    log = tmp_path / "api.log"
    with servers.running(command, log, environment=environment) as process:
        servers.wait_for_port(port, process, log)
        assert httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 503
        late.mkdir()
        with sqlite3.connect(tmp_path / "users.db") as newer:
            newer.execute("CREATE TABLE alembic_version (version_num TEXT)")
            newer.execute("INSERT INTO alembic_version VALUES ('9999')")
        newer.close()
        (tmp_path / "users.db").rename(late / "users.db")
        process.wait(15)
    assert "cannot prepare" in log.read_text()


def test_taken_port_ends_the_process_and_is_told(nx_url: str, tmp_path: Path) -> None:
    with serving(nx_url, tmp_path) as url:
        second = tmp_path / "second"
        second.mkdir()
        command, environment = api_process(nx_url, second, int(url.rsplit(":", 1)[1]))
        ended = subprocess.run(
            command,
            env=os.environ | environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert ended.returncode != 0
    assert "address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_schema_is_served_as_json(nx_url: str, tmp_path: Path) -> None:
    with serving(nx_url, tmp_path) as url:
        schema = json.loads(httpx.get(f"{url}/openapi.json").text)
        assert schema["paths"]["/questions"]["post"]["summary"] == "Input Prompt"
