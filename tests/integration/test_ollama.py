"""The real Ollama: asked by the worker's model class, restarted, killed, slow and silent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from core.questions import Outcome, Question, QuestionQueue, RetryPolicy
from core.settings import Settings
from rag_worker import relevance
from rag_worker.embeddings import embeddings
from rag_worker.generation import current_name, open_generation
from rag_worker.indexing import index_documents
from rag_worker.models import LanguageModel, ModelAwayError, PromptTruncatedError
from rag_worker.retrieval import Retriever
from rag_worker.service import run_worker
from tests.servers import Ollama, ollama
from tests.servers.ollama import MODEL

WINDOW = 512
QUESTION = "What is the capital of France?"
PASSAGES = "Set the soldering iron to 350 degrees and wear safety glasses. "
SAFETY = "# Soldering\n\nSet the soldering iron to 350 degrees. Wear safety glasses at all times.\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ollama]:
    with ollama(tmp_path_factory.mktemp("ollama")) as running:
        yield running


def settings_for(url: str, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "ollama_server_url": url,
        "llm_model": f"ollama:{MODEL}",
        "llm_context": WINDOW,
        "llm_max_tokens": 60,
        "llm_timeout": 60,
    }
    return Settings(**values | changes)


@contextlib.asynccontextmanager
async def asking(url: str, **changes: Any) -> AsyncIterator[LanguageModel]:
    model = LanguageModel(settings_for(url, **changes))
    try:
        yield model
    finally:
        await model.close()


@dataclass
class Proxy:
    """A way to the server on which streamed answers may arrive in drops, and replies not at all.

    Attributes:
        pause: seconds before each piece of a streamed answer.
        size: bytes of a piece.
        is_silent: it takes requests and passes nothing on.
        replied: set when the first piece of a streamed answer has passed.
    """

    target: int
    pause: float = 0.0
    size: int = 65_536
    is_silent: bool = False
    replied: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        connections: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._pass_on(reader, writer)
            writer.close()
            connections.discard(task)

        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            listener.close()
            for connection in list(connections):
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_silent:
            await asyncio.sleep(60)
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        asked = asyncio.create_task(self._copy(reader, to_server))
        try:
            await self._copy(from_server, writer)
        finally:
            asked.cancel()
            to_server.close()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        is_stream = False
        while data := await source.read(self.size if is_stream else 65_536):
            sink.write(data)
            await sink.drain()
            is_stream = is_stream or b"application/x-ndjson" in data
            if is_stream:
                self.replied.set()
                await asyncio.sleep(self.pause)


@pytest.fixture
async def proxy(server: Ollama) -> AsyncIterator[Proxy]:
    async with Proxy(int(server.url.rpartition(":")[2])).running() as proxy:
        yield proxy


async def test_chat_with_the_window_and_the_stay_in_memory_that_are_set(server: Ollama) -> None:
    async with asking(server.url, llm_keep_alive="7m") as model:
        await model.check()
        completion = await model.write(QUESTION)
    assert "Paris" in completion.text
    assert completion.completion_tokens is not None
    assert 1 < completion.completion_tokens <= 60
    # The question's seven tokens and the chat template's.
    assert completion.prompt_tokens is not None
    assert 8 <= completion.prompt_tokens <= 20
    loaded = server.loaded()[f"{MODEL}:latest"]
    assert loaded["context_length"] == WINDOW
    until = datetime.fromisoformat(str(loaded["expires_at"])) - datetime.now(UTC)
    assert timedelta(minutes=6) < until < timedelta(minutes=7)


async def test_window_is_never_larger_than_the_models_own(server: Ollama) -> None:
    async with asking(server.url, llm_context=65_536) as model:
        assert await model.context() == 8192


async def test_parallel_questions_are_all_answered(server: Ollama) -> None:
    async with asking(server.url) as model:
        async with asyncio.timeout(60):
            answers = await asyncio.gather(
                *(
                    model.write(f"What is the capital of {country}?")
                    for country in ("France", "Spain", "Italy", "Germany")
                )
            )
    assert all(answer.text for answer in answers)


async def test_prompt_that_fits_raises_no_alarm_when_it_comes_from_the_cache(
    server: Ollama,
) -> None:
    prompt = PASSAGES * 15
    async with asking(server.url) as model:
        counts = [(await model.write(prompt + end)).prompt_tokens for end in (QUESTION, QUESTION)]
    assert counts[0] == counts[1]
    assert counts[0] is not None
    assert len(prompt.split()) < counts[0] < WINDOW


async def test_prompt_whose_front_the_server_drops_raises_the_alarm(server: Ollama) -> None:
    async with asking(server.url) as model:
        with pytest.raises(PromptTruncatedError, match="window of 512"):
            await model.write(PASSAGES * 60 + QUESTION)


async def test_missing_model_names_the_pull_that_fetches_it(server: Ollama) -> None:
    async with asking(server.url, llm_model="ollama:mistral") as model:
        with pytest.raises(ModelAwayError, match="`ollama pull mistral` fetches it"):
            await model.check()
        with pytest.raises(ModelAwayError, match="mistral"):
            await model.write(QUESTION)


async def test_slow_answer_is_read_to_its_end(proxy: Proxy) -> None:
    proxy.pause, proxy.size = 0.01, 40
    async with asking(proxy.url) as model:
        completion = await model.write(QUESTION)
    assert "Paris" in completion.text
    assert not completion.is_cut


async def test_answer_slower_than_the_timeout_is_a_timeout(proxy: Proxy) -> None:
    proxy.pause, proxy.size = 0.5, 40
    async with asking(proxy.url, llm_timeout=2) as model:
        async with asyncio.timeout(15):
            with pytest.raises(TimeoutError):
                await model.write(QUESTION)


async def test_silent_server_is_away_or_a_timeout(proxy: Proxy) -> None:
    proxy.is_silent = True
    async with asking(proxy.url, llm_timeout=1) as model:
        async with asyncio.timeout(20):
            with pytest.raises(ModelAwayError, match="does not answer"):
                await model.check()
            with pytest.raises((TimeoutError, ModelAwayError)):
                await model.write(QUESTION)


@pytest.fixture
def course(tmp_path: Path, server: Ollama) -> Settings:
    folder = tmp_path / "course"
    folder.mkdir()
    (folder / "safety.md").write_text(SAFETY)
    (folder / "exam.md").write_text("# Exam\n\nThe final exam is on 28 January in the main hall.\n")
    return settings_for(
        server.url,
        document_location=folder,
        index_location=tmp_path / "index",
        llm_context=2048,
        lease_seconds=5,
        poll_seconds=0.05,
        stop_seconds=5,
    )


@pytest.fixture
async def queue(database: AsyncDatabase[dict[str, Any]]) -> QuestionQueue:
    queue = QuestionQueue(
        database, lease_seconds=5, retry=RetryPolicy(max_attempts=2, first_pause=0.1)
    )
    await queue.create_indexes()
    return queue


async def test_question_survives_a_server_killed_in_the_middle_of_its_answer(
    server: Ollama, proxy: Proxy, course: Settings, queue: QuestionQueue
) -> None:
    enqueued = await queue.enqueue(
        input="What temperature should the soldering iron have?", email="s@uni.test", user_id=1
    )
    # Slow enough to be in the middle.
    proxy.pause, proxy.size = 0.3, 40
    settings = course.model_copy(update={"ollama_server_url": proxy.url, "llm_max_tokens": 200})
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, queue, stop))
    try:
        async with asyncio.timeout(60):
            await proxy.replied.wait()
        server.service.kill()
        given_back = await until(queue, enqueued.question.id, lambda q: q.error is not None)
        assert given_back.answer is None
        assert given_back.attempts == 0
        proxy.pause, proxy.size = 0.0, 65_536
        await asyncio.to_thread(server.service.start)
        answered = await until(queue, enqueued.question.id, lambda q: q.answer is not None)
    finally:
        stop.set()
        await asyncio.wait_for(worker, 20)
    assert answered.answer is not None
    assert answered.answer.outcome in {Outcome.ANSWERED, Outcome.QUOTED}
    assert "350" in answered.answer.text
    assert answered.attempts == 0


async def until(queue: QuestionQueue, number: int, holds: Any) -> Question:
    async with asyncio.timeout(60):
        while True:
            question = await queue.one(number)
            assert question is not None
            if holds(question):
                return question
            await asyncio.sleep(0.05)


@pytest.fixture
def few_reference_questions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Of each of their files the first ten: all of them take this server two minutes."""
    read = (relevance.background_questions, relevance.foreign_questions)
    read += (relevance.reference_questions,)

    def forget() -> None:
        for questions in read:
            questions.cache_clear()

    lines = relevance._lines
    monkeypatch.setattr(relevance, "_lines", lambda name: lines(name)[:10])
    forget()
    yield
    forget()


@pytest.mark.usefixtures("few_reference_questions")
def test_embeddings_of_ollama_index_and_search(course: Settings) -> None:
    settings = course.model_copy(update={"embedding_model": f"ollama:{MODEL}"})
    stages: list[str] = []
    report = index_documents(settings, lambda progress: stages.append(progress.stage))
    assert (report.changed, report.embedded) == (True, 2)
    assert stages.count("calibrating") == 2 * 31
    name = current_name(settings.index_location)
    assert name is not None
    generation = open_generation(settings.index_location, name)
    assert generation.vectors.shape == (2, 576)
    retriever = Retriever(generation, embeddings(settings))
    hits = retriever.search("How hot must the soldering iron be?", "en", 2)
    assert hits[0].passage.file == "safety.md"
