"""The worker process: claims questions, answers them, and keeps the index up to date."""

import asyncio
import contextlib
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from pymongo.errors import PyMongoError

from core import metrics
from core.questions import Answer, Question, QuestionQueue, apology
from core.settings import Settings
from core.worker import pause, run
from rag_worker.answering import Answerer
from rag_worker.language import question_language
from rag_worker.models import LanguageModel, ModelAwayError
from rag_worker.remote import POLL_SECONDS, AnswerRefusedError, RemoteQueue, RemoteQueueError
from rag_worker.watching import IndexWatcher

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_STORE_SECONDS = 300.0
"""How long an answer that was costly to make is kept for a queue that is away."""

_AWAY = (PyMongoError, RemoteQueueError)

log = structlog.get_logger()


async def run_worker(
    settings: Settings, queue: QuestionQueue | RemoteQueue, stop: asyncio.Event
) -> None:
    """Answer questions until ``stop`` is set, WORKER_CONCURRENCY at once.

    Then nothing new is claimed, what runs may finish within STOP_SECONDS, and the rest is given
    back to the queue. Servers that are away are waited for.
    """
    # One thread for search: OpenMP keeps a team of threads for each thread that calls it.
    with ThreadPoolExecutor(1, thread_name_prefix="search") as search_thread:
        watcher = IndexWatcher(settings, search_thread)
        worker = Worker(settings, queue, watcher, stop, search_thread)
        watching = asyncio.create_task(watcher.run(stop))
        poll_seconds = settings.poll_seconds
        if isinstance(queue, RemoteQueue):
            poll_seconds = max(poll_seconds, POLL_SECONDS)
        answering = [
            asyncio.create_task(run(worker.process_next, stop, poll_seconds))
            for _ in range(settings.worker_concurrency)
        ]
        stopping = asyncio.create_task(stop.wait())
        tasks: list[asyncio.Task[Any]] = [watching, *answering, stopping]
        try:
            # An error in any of them ends the process: whoever supervises it starts it again.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            stop.set()
            await asyncio.wait(answering, timeout=settings.stop_seconds)
        finally:
            stop.set()
            for task in answering:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await worker.close()
        for result in results:
            if isinstance(result, Exception):
                raise result


class _Backoff:
    """Growing pauses while something is away."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE

    def reset(self) -> None:
        self._next = _FIRST_PAUSE

    def pause(self) -> float:
        """Seconds to wait now; doubles up to a minute."""
        seconds = self._next
        self._next = min(2 * seconds, _LONGEST_PAUSE)
        return seconds


class Worker:
    """Takes one question after another from the queue to its answer."""

    def __init__(
        self,
        settings: Settings,
        queue: QuestionQueue | RemoteQueue,
        watcher: IndexWatcher,
        stop: asyncio.Event,
        search_thread: ThreadPoolExecutor,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._watcher = watcher
        self._stop = stop
        self._search_thread = search_thread
        self._model = LanguageModel(settings)
        self._model_may_be_away = True
        self._model_backoff = _Backoff()
        self._queue_backoff = _Backoff()
        self._name = f"{socket.gethostname()}:{os.getpid()}"

    async def close(self) -> None:
        """Close what is open between questions."""
        await self._model.close()

    async def process_next(self) -> bool:
        """Answer the oldest question; False when there is none or nothing can be answered yet."""
        if self._watcher.retriever is None or not await self._model_answers():
            return False
        try:
            question = await self._queue.claim(self._name)
        except _AWAY as error:
            seconds = self._queue_backoff.pause()
            metrics.count_fault(metrics.Fault.QUEUE_AWAY)
            log.error("queue_away", error=str(error).splitlines()[0], retry_in=seconds)
            await pause(self._stop, seconds)
            return False
        self._queue_backoff.reset()
        if question is None:
            return False
        with structlog.contextvars.bound_contextvars(question=question.id):
            await self._process(question)
        return True

    async def _model_answers(self) -> bool:
        """Whether the model can be asked; waits a growing while after a no."""
        if not self._model_may_be_away:
            return True
        try:
            await self._model.check()
        except ModelAwayError as error:
            seconds = self._model_backoff.pause()
            metrics.count_fault(metrics.Fault.MODEL_AWAY)
            log.warning("model_away", error=str(error), retry_in=seconds)
            await pause(self._stop, seconds)
            return False
        self._model_may_be_away = False
        return True

    async def _process(self, question: Question) -> None:
        log.info("claimed", attempt=question.attempts + 1)
        if self._queue.is_poisonous(question):
            await self._fail(question, "every worker that took it ended without a word")
            return
        answering = asyncio.create_task(self._answer(question))
        try:
            await self._keep_claim(question, answering)
        except asyncio.CancelledError:
            answering.cancel()
            await asyncio.wait({answering})
            if not self._was_stored(answering):
                await self._give_back(question, 0.0, "the worker was stopped")
            raise

    @staticmethod
    def _was_stored(answering: "asyncio.Task[None]") -> bool:
        return not answering.cancelled() and answering.exception() is None

    async def _keep_claim(self, question: Question, answering: "asyncio.Task[None]") -> None:
        """Renew the lease while the answer is made; give the work up when the claim is lost."""
        while True:
            done, _ = await asyncio.wait({answering}, timeout=self._queue.lease_seconds / 3)
            if done:
                await answering
                return
            try:
                held = await self._queue.renew(question.id, question.claims)
            except _AWAY as error:
                # The answer may still be stored in time; the fencing token decides.
                metrics.count_fault(metrics.Fault.QUEUE_AWAY)
                log.warning("queue_away", error=str(error).splitlines()[0])
                continue
            if not held:
                log.warning("claim_lost")
                answering.cancel()
                await asyncio.wait({answering})
                return

    async def _answer(self, question: Question) -> None:
        """Make and store the answer, or say why there is none. The edge of one question."""
        retriever = self._watcher.retriever
        assert retriever is not None
        answerer = Answerer(self._settings, retriever, self._model, self._search_thread)
        try:
            answer = await answerer.answer(question.input, question.earlier)
        except ModelAwayError as error:
            self._model_may_be_away = True
            metrics.count_fault(metrics.Fault.MODEL_AWAY)
            await self._give_back(question, self._model_backoff.pause(), str(error))
        except Exception as error:
            log.exception("answering_failed")
            await self._fail(question, f"{type(error).__name__}: {error}"[:500])
        else:
            self._model_backoff.reset()
            await self._store(question, answer)

    async def _store(self, question: Question, answer: Answer) -> None:
        """Store the answer; a queue that is away is waited for as long as it makes sense."""
        backoff = _Backoff()
        deadline = asyncio.get_running_loop().time() + _STORE_SECONDS
        while True:
            try:
                stored = await self._queue.complete(question.id, question.claims, answer)
            except _AWAY as error:
                if asyncio.get_running_loop().time() > deadline:
                    log.error("answer_not_stored", error=str(error).splitlines()[0])
                    return
                metrics.count_fault(metrics.Fault.QUEUE_AWAY)
                await asyncio.sleep(backoff.pause())
            except AnswerRefusedError as error:
                await self._fail(question, str(error))
                return
            else:
                if stored:
                    log.info("answered", outcome=str(answer.outcome), sources=len(answer.sources))
                else:
                    log.warning("claim_lost")
                return

    async def _give_back(self, question: Question, after: float, error: str) -> None:
        log.warning("given_back", error=error, after=after)
        # When the queue is away too, the lease runs out: that gives it back as well.
        with contextlib.suppress(*_AWAY):
            await self._queue.give_back(question.id, question.claims, after=after, error=error)

    async def _fail(self, question: Question, error: str) -> None:
        log.warning("attempt_failed", error=error, attempt=question.attempts + 1)
        language = question_language(question.input, self._settings.course_language)
        with contextlib.suppress(*_AWAY):
            await self._queue.fail(
                question.id, question.claims, error=error, apology=apology(language)
            )
