"""A restore beside a worker and a mailer that have nothing to do: they wait, and then go on."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient, WriteConcern

from core.mongo import connect
from core.questions import Answer, Outcome, QuestionQueue
from core.restoring import NOTICE_SECONDS, RestoreMark
from core.settings import Settings
from tests.journeys.department import PASSWORD, Department, department, eventually

COUNT = 1500
WAITING, UNSENT = (1, 2), (3, 4)
ANSWER = Answer("El examen es en mayo.", "es", Outcome.QUOTED)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Department]:
    """A department with a document of one line, its worker and its mailer."""
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "examen.md").write_text("# Examen\n\nEl examen final es el 3 de mayo a las 9.\n")
    with department(tmp_path, documents=documents) as started:
        yield started


def consulta(here: Department, *words: str, **changes: str) -> list[Any]:
    command = [sys.executable, "-m", "consulta", *words]
    return [command, {**os.environ, **here.environment, **changes}]


def run(here: Department, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    command, environment = consulta(here, *words, **changes)
    return subprocess.run(
        command, env=environment, cwd=here.folder, capture_output=True, text=True, timeout=120,
        check=False, input=f"{PASSWORD}\n",
    )  # fmt: skip


async def fill(settings: Settings) -> None:
    """Two that wait, two in doubt whether their e-mail left, and thousands that are sent."""
    async with connect(settings) as client:
        database = client[settings.mongo_db_name]
        queue = QuestionQueue(database)
        await queue.create_indexes()
        for number in range(1, 6):
            await queue.enqueue(
                input=f"¿Cuándo es el examen? ({number})", email="ana@uni.test", user_id=1
            )
        claims = [await queue.claim() for _ in range(5)]
        for claim in claims:
            assert claim is not None
            if claim.id in WAITING:
                await queue.give_back(claim.id, claim.claims)
            else:
                await queue.complete(claim.id, claim.claims, ANSWER)
        mailed = [await queue.claim_answered() for _ in range(3)]
        last = mailed[-1]
        assert last is not None
        assert last.id not in UNSENT
        await queue.mark_sent(last.id, last.mail_claims)
        document = await database["prompts"].find_one({"_id": last.id})
        assert document is not None
        fast = database.get_collection("prompts", write_concern=WriteConcern(w=1))
        for start in range(6, COUNT + 1, 500):
            numbers = range(start, min(start + 500, COUNT + 1))
            await fast.insert_many(
                [{**document, "_id": n, "number": n, "dedupe": f"{n}"} for n in numbers]
            )


async def begun(settings: Settings) -> str | None:
    async with connect(settings) as client:
        return await RestoreMark(client[settings.mongo_db_name]).begun()


def test_worker_and_mailer_wait_for_a_restore_and_go_on_after_it(running: Department) -> None:
    old = {"MONGO_DB_NAME": "old", "DATABASE_URL": f"sqlite:///{running.folder / 'old.sqlite'}"}
    created = run(running, "users", "create", "ana", "ana@uni.test", "--student", **old)
    assert created.returncode == 0, created.stderr
    settings = Settings(
        _env_file=None,
        mongo_url=running.environment["MONGO_URL"],  # type: ignore[arg-type]
        mongo_db_name="old",
    )
    asyncio.run(fill(settings))
    file = str(running.folder / "all.backup")
    made = run(running, "backup", file, **old)
    assert made.returncode == 0, made.stderr

    running.start("worker")
    running.start("mailer")
    eventually(lambda: "index_opened" in running.log("worker"), 90, "The index")
    eventually(lambda: "the mailer is running" in running.log("mailer"), 60, "The mailer")
    here = settings.model_copy(update={"mongo_db_name": "consulta"})
    with MongoClient[dict[str, Any]](running.environment["MONGO_URL"]) as client:
        prompts = client["consulta"]["prompts"]
        command, environment = consulta(running, "restore", file)
        process = subprocess.Popen(command, env=environment, cwd=running.folder)
        deadline = time.monotonic() + 120
        while prompts.count_documents({"number": {"$gt": 0}}) < 600:
            assert process.poll() is None, "it was not caught"
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert asyncio.run(begun(here)) is not None
        # Both have looked meanwhile, with work before them.
        time.sleep(2 * NOTICE_SECONDS)
        assert prompts.find_one({"_id": 1}) is not None
        assert prompts.find_one({"held": True}) is None
        for number in (*WAITING, *UNSENT):
            found = prompts.find_one({"_id": number})
            assert found is not None
            assert found["claims"] == 1, "nobody took it"
            assert found["mail_claims"] == (1 if number in UNSENT else 0)
        assert running.mails() == []
        for service in ("worker", "mailer"):
            assert running.processes[service].poll() is None, running.log(service)
            assert "has not ended: let it end, or repeat it" in running.log(service)
        for command_name in (["status"], ["doctor", "--service", "worker"]):
            told = run(running, *command_name)
            assert told.returncode == 1
            assert "has not ended: let it end, or repeat it" in told.stdout + told.stderr

        restored = run(running, "restore", file)
        assert restored.returncode == 0, restored.stderr
        eventually(
            lambda: len({mail["Message-ID"] for mail in running.mails()}) == 4, 90, "Four mails"
        )
        eventually(lambda: all(d["status"] == "sent" for d in prompts.find()), 30, "The last mark")
        assert prompts.count_documents({"number": {"$gt": 0}}) == COUNT
    numbers = sorted(int(m["Message-ID"].split("-")[1].split(".")[0]) for m in running.mails())
    assert numbers == [*WAITING, *UNSENT], "what was sent before is not sent again"
    for service in ("worker", "mailer"):
        assert running.processes[service].poll() is None, running.log(service)
