"""The queue's database killed under load, its syncing, paused workers, and many of them."""

import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.mongo import connect
from core.questions import QuestionQueue
from core.settings import Settings
from tests import servers
from tests.faults.laboratory import Laboratory, Tally, laboratory, traced
from tests.integration.model_servers import ModelServer, Reply
from tests.journeys.department import eventually

Count = Callable[[Tally], Tally]


@pytest.mark.parametrize(
    "kills", [pytest.param(5, marks=pytest.mark.quick), pytest.param(100, marks=pytest.mark.slow)]
)
def test_no_acknowledged_question_is_lost_when_the_queue_is_killed_under_load(
    tmp_path: Path, course_index: Path, counted: Count, kills: int
) -> None:
    with laboratory(tmp_path, index=course_index) as lab:
        lab.begin()
        stop = threading.Event()
        load = [threading.Thread(target=_keep_asking, args=(lab, stop)) for _ in range(2)]
        for thread in load:
            thread.start()
        for _ in range(kills):
            lab.wait_for_accepted(len(lab.accepted) + 1)
            lab.queue.kill()
            lab.queue.start()
        stop.set()
        for thread in load:
            thread.join()
        tally = counted(lab.tally("the queue's database killed under load", kills, seconds=600))
    assert tally.accepted >= kills
    assert tally.lost == 0
    assert tally.answered == tally.accepted


def _keep_asking(lab: Laboratory, stop: threading.Event) -> None:
    while not stop.is_set():
        key = uuid.uuid4().hex
        while True:
            reply = lab.try_to_ask("¿Cuánto vale la tensión umbral del diodo?", key)
            if reply is not None and reply.status_code == 202:
                break
            time.sleep(0.1)
        time.sleep(0.3)


@pytest.mark.quick
def test_question_is_synced_before_its_202(
    tmp_path: Path, course_index: Path, counted: Count
) -> None:
    with laboratory(tmp_path, index=course_index) as lab:
        lab.start("api")
        lab.wait_until_ready()
        lab.log_in("ana")
        trace = tmp_path / "trace"
        marks = [uuid.uuid4().hex for _ in range(5)]
        # Nothing else writes: neither worker nor mailer runs.
        processes = [lab.queue.process, lab.processes["api"]]
        pids = [process.pid for process in processes]
        with traced(pids, "network,read,write,fdatasync,fsync", trace):
            for mark in marks:
                lab.ask(f"¿Qué es {mark}?")
            queue, api = (
                "|".join(task.name for task in Path(f"/proc/{pid}/task").iterdir()) for pid in pids
            )
        calls = trace.read_text(errors="replace").splitlines()
        lab.start("worker")
        lab.start("mailer")
        counted(lab.tally("fdatasync looked for before each 202", len(marks)))
    sync = r"f(?:data)?sync(?:\(\d+| resumed>)\) += 0$"
    for mark in marks:
        stored = _first(calls, 0, rf"^({queue}) .*(?:recv|read).*{mark}")
        accepted = _first(calls, stored, rf"^({api}) .*HTTP/1\.1 202")
        synced = _first(calls, stored, rf"^({queue}) .*{sync}")
        assert stored < synced < accepted


def _first(lines: list[str], start: int, pattern: str) -> int:
    found = re.compile(pattern)
    for number in range(start, len(lines)):
        if found.search(lines[number]):
            return number
    raise AssertionError(f"no call like {pattern} after line {start}")


@pytest.mark.parametrize("other", ["has answered", "is at work"])
def test_answer_of_a_worker_paused_beyond_its_lease_is_refused(
    tmp_path: Path, course_index: Path, counted: Count, other: str
) -> None:
    model = ModelServer()
    slow = {"LLM_LANGUAGES": "es,en", "OPENAI_BASE_URL": f"{model.url}/v1"}
    model.replies += [Reply(words=["Tarde."] * 20, pause=0.5)] * 2
    try:
        with laboratory(tmp_path, index=course_index, LEASE_SECONDS="3") as lab:
            lab.start("api")
            lab.start("worker-1", **slow)
            lab.start("mailer")
            lab.wait_until_ready()
            lab.log_in("ana")
            lab.ask()
            eventually(lambda: model.requests, 180, "The first worker's claim")
            lab.processes["worker-1"].send_signal(signal.SIGSTOP)
            # Where it is at work, only the number of the claim tells the two apart.
            lab.start("worker-2", **(slow if other == "is at work" else {}))
            if other == "is at work":
                eventually(lambda: len(model.requests) > 1, 180, "The second worker's claim")
            else:
                lab.wait_for_mails()
            before = lab.documents()
            lab.processes["worker-1"].send_signal(signal.SIGCONT)
            eventually(lambda: "claim_lost" in lab.log("worker-1"), 180, "The refusal")
            tally = counted(lab.tally(f"worker paused until another {other}", 1))
            after = lab.documents()
    finally:
        model.stop()
    assert other != "has answered" or after == before
    assert "claim_lost" not in lab.log("worker-2")
    assert tally == Tally(tally.fault, 1, accepted=1, answered=1, mailed=1, duplicates=0)


@pytest.mark.parametrize(
    ("workers", "questions"),
    [
        pytest.param(4, 500, marks=pytest.mark.quick),
        pytest.param(8, 10_000, marks=pytest.mark.slow),
    ],
)
async def test_many_workers_claim_nothing_twice_and_in_order(
    tmp_path: Path, counted: Count, database_name: str, workers: int, questions: int
) -> None:
    with servers.nx_27017(tmp_path) as url:
        async with connect(Settings(mongo_url=url)) as client:
            queue = QuestionQueue(client[database_name])
            await queue.create_indexes()
            first = await queue.enqueue(input="¿1?", email="ana@uni.test", user_id=1)
            prompts = client[database_name]["prompts"]
            stored = await prompts.find_one({"_id": first.question.id})
            assert stored
            for start in range(2, questions + 1, 1000):
                await prompts.insert_many(
                    _later(stored, first.question.date, number)
                    for number in range(start, min(start + 1000, questions + 1))
                )
            command = [sys.executable, "-m", "tests.faults.claimer", url, database_name]
            with ExitStack() as stack:
                running = [
                    stack.enter_context(servers.running(command, tmp_path / f"{n}"))
                    for n in range(workers)
                ]
                assert all(process.wait(600) == 0 for process in running)
            answered = await prompts.count_documents({"held": False, "outcome": "answered"})
    claims = [
        tuple(map(int, line.split()))
        for n in range(workers)
        for line in (tmp_path / f"{n}").read_text().splitlines()
    ]
    numbers = [number for _, _, number in claims]
    counted(
        Tally(f"{workers} workers at once", 1, questions, answered, None, len(numbers) - questions)
    )
    assert sorted(numbers) == list(range(1, questions + 1))
    assert answered == questions
    assert _overtaken(claims) == []


def _later(first: dict[str, Any], date: datetime, number: int) -> dict[str, Any]:
    """The question as the first one is stored, so many milliseconds after it."""
    return {
        **first,
        "_id": number,
        "number": number,
        "input": f"¿{number}?",
        "date": date + timedelta(milliseconds=number),
        "date_ms": first["date_ms"] + number,
        "dedupe": str(number),
    }


def _overtaken(claims: list[tuple[int, ...]]) -> list[int]:
    """Questions that were claimed by one who asked after a younger one had been handed out."""
    handed_out = sorted((came, number) for _, came, number in claims)
    youngest, position, found = 0, 0, []
    for asked, _, number in sorted(claims):
        while handed_out[position][0] < asked:
            youngest = max(youngest, handed_out[position][1])
            position += 1
        if number < youngest:
            found.append(number)
    return found
