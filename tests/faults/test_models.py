"""Questions and models that break the worker."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from core.questions import Outcome
from tests import servers
from tests.faults.laboratory import Laboratory, Tally, laboratory
from tests.faults.proxy import Fault, FaultProxy
from tests.integration.model_servers import ModelServer, Reply
from tests.journeys.department import eventually

Count = Callable[[Tally], Tally]

GARBAGE: tuple[str, ...] = ("\x00\ufffd\u202e", "{}}}<|im_end|>[[99]]", "]]>--\x1b[2J") * 5


def _wait_for_requests(model: ModelServer, number: int) -> None:
    eventually(lambda: len(model.requests) >= number, 180, f"The model's request number {number}")


@pytest.fixture
def model() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.stop()


def test_question_that_kills_every_worker_gets_an_apology_and_the_next_its_answer(
    tmp_path: Path, course_index: Path, counted: Count, model: ModelServer
) -> None:
    # Five claims that end without a word, as the queue allows, and then one more.
    model.replies += [Reply(words=itertools.repeat("x "), pause=0.5) for _ in range(5)]
    with laboratory(
        tmp_path,
        index=course_index,
        LEASE_SECONDS="2",
        LLM_LANGUAGES="es,en",
        OPENAI_BASE_URL=f"{model.url}/v1",
    ) as lab:
        lab.begin()
        lab.ask()
        for kills in range(1, 6):
            _wait_for_requests(model, kills)
            lab.kill("worker")
            lab.start("worker")
        lab.ask("¿Qué es un diodo Zener?")
        tally = counted(lab.tally("question that kills its worker", 5))
        poison, healthy = lab.documents()
    assert tally.lost == 0
    assert poison["outcome"] == Outcome.FAILED
    assert healthy["outcome"] != Outcome.FAILED


@pytest.mark.parametrize(
    ("fault", "reply"),
    [
        pytest.param("hangs", Reply(words=["tarde"], pause=3600), marks=pytest.mark.quick),
        ("streams for ever", Reply(words=itertools.repeat("palabra "), pause=0.01)),
        ("answers nothing", Reply(words=[])),
        ("returns 500", Reply(status=500)),
        pytest.param("returns garbage", Reply(words=GARBAGE), marks=pytest.mark.quick),
    ],
)
def test_model_that_fails_leaves_the_quotations_and_the_queue_moving(
    tmp_path: Path,
    course_index: Path,
    counted: Count,
    model: ModelServer,
    fault: str,
    reply: Reply,
) -> None:
    def replies() -> Iterable[Reply]:
        # Each question is tried more than once.
        return itertools.repeat(reply, 12)

    model.replies += replies()
    with laboratory(
        tmp_path,
        index=course_index,
        LLM_LANGUAGES="es,en",
        LLM_TIMEOUT="3",
        RETRY_SECONDS="0.5",
        OPENAI_BASE_URL=f"{model.url}/v1",
    ) as lab:
        lab.begin()
        for _ in range(2):
            lab.ask()
        lab.wait_for_mails()
        tally = counted(lab.tally(f"model {fault}", len(model.requests)))
        documents = lab.documents()
    assert tally.lost == 0
    assert tally.times
    assert {document["outcome"] for document in documents} == {Outcome.QUOTED}
    for document in documents:
        assert document["sources"]
        assert not any(piece in document["output"] for piece in GARBAGE)


@pytest.mark.slow
def test_model_away_for_an_hour_uses_up_no_attempt(
    tmp_path: Path, course_index: Path, counted: Count
) -> None:
    with laboratory(
        tmp_path,
        index=course_index,
        proxied=["model"],
        LEASE_SECONDS="600",
        MAIL_LEASE_SECONDS="600",
        RESCAN_SECONDS="600",
    ) as lab:
        lab.network["model"].set(Fault.CUT)
        # The workers' hour is a minute, and the mailer's: what they answer is due at their time.
        for name in ("mailer", "worker-1", "worker-2"):
            lab.start(name, **lab.clock("+0 x60"))
        lab.start("api")
        lab.wait_until_ready()
        lab.log_in("ana")
        for _ in range(10):
            lab.ask()
        for name in ("worker-1", "worker-2"):
            eventually(partial(_knows_model_away, lab, name), 180, "The first knock")
        before = lab.network["model"].accepted
        time.sleep(60)
        knocks = lab.network["model"].accepted - before
        waiting = [document for document in lab.documents() if document["output"] is None]
        lab.network["model"].set(Fault.NONE)
        tally = counted(lab.tally("model away for an hour", 1))
        documents = lab.documents()
    assert tally.lost == 0
    assert len(waiting) == 10
    assert all(document["attempts"] == 0 for document in documents)
    assert {document["outcome"] for document in documents} == {Outcome.QUOTED}
    # Two workers, each with pauses that grow to a minute, and a few connections for each knock.
    assert 0 < knocks <= 2 * 70 * 3


def _knows_model_away(lab: Laboratory, name: str) -> bool:
    return "model_away" in lab.log(name)


def test_model_that_returns_is_not_stampeded(
    tmp_path: Path, course_index: Path, counted: Count, model: ModelServer
) -> None:
    at_once: list[int] = []

    def words() -> Iterator[str]:
        at_once.append(1)
        yield from ("El diodo ", "es una unión PN ", "con dos terminales [1].")
        at_once.append(-1)

    model.replies += [Reply(words=words(), pause=0.1) for _ in range(50)]
    with (
        FaultProxy(servers.free_port(), int(model.url.rpartition(":")[2])) as network,
        laboratory(
            tmp_path,
            index=course_index,
            LLM_LANGUAGES="es,en",
            OPENAI_BASE_URL=f"http://127.0.0.1:{network.port}/v1",
        ) as lab,
    ):
        for name in ("api", "mailer", "worker-1", "worker-2"):
            lab.start(name)
        lab.wait_until_ready()
        lab.log_in("ana")
        lab.ask("¿Qué es un diodo?")
        lab.wait_for_mails()
        network.set(Fault.CUT)
        for _ in range(20):
            lab.ask("¿Qué es un diodo?")
        for name in ("worker-1", "worker-2"):
            eventually(partial(_knows_model_away, lab, name), 180, "The first knock")
        requests, connections = len(model.requests), model.connections
        network.set(Fault.NONE)
        tally = counted(lab.tally("model that returns", 1))
        documents = lab.documents()
    assert tally == Tally(tally.fault, 1, 21, 21, 21, 0)
    assert all(document["attempts"] == 0 for document in documents)
    assert {document["outcome"] for document in documents} == {Outcome.ANSWERED}
    # Each answer is written once; two workers have it write two at a time.
    assert len(model.requests) == requests + 20
    assert max(itertools.accumulate(at_once)) <= 2
    assert model.connections - connections <= 20
