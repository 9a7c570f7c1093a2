"""How a service lets itself be seen: its metrics page, its signs of life, and its faults."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from core import metrics
from core.clock import Clock, system_clock
from core.processes import Disk, Processes, Sign, hour_of, new_run, own_disks, own_name
from core.settings import Settings
from core.statistics import Counts, Statistics
from core.worker import cancel

GOODBYE_SECONDS = 3.0
"""How long a process that ends tries to take its sign of life away."""
READ_SECONDS = 5.0
"""How long the page waits for the queue's database."""

log = structlog.get_logger()


class Monitor:
    """One process's signs of life, and those of the workers that it speaks for."""

    def __init__(
        self,
        settings: Settings,
        service: str,
        database: AsyncDatabase[dict[str, Any]] | None,
        *,
        clock: Clock = system_clock,
    ) -> None:
        """Without ``database``, as at a worker elsewhere, others tell that it lives."""
        self._settings = settings
        self._service = service
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._processes = Processes(database, clock=clock) if database is not None else None
        self._statistics = Statistics(database, clock=clock) if database is not None else None
        self._started = clock()
        self._run = new_run()
        self._hour = 0
        self._before_hour = self._stored = metrics.faults_counted()
        self._heard: dict[str, Sign] = {}
        self._is_known = False
        """Whether the last sign of life was stored."""
        self._failed: type[Exception] | None = None
        """What storing it ended with."""
        self.mail_closed: Callable[[], datetime | None] = lambda: None
        """Of a mailer: since when the mail server has been away."""

    def heard_of(self, worker: str) -> None:
        """A worker elsewhere, known by the name of its token, has just spoken to us."""
        now = self._clock()
        known = self._heard.get(worker)
        self._heard[worker] = (
            replace(known, seen=now)
            if known
            else Sign("worker", worker, now, now, "", self._settings.heartbeat_seconds)
        )

    async def run(self) -> None:
        """Give signs of life until cancelled; a database that is away is waited for."""
        while True:
            await self.beat()
            await asyncio.sleep(self._settings.heartbeat_seconds)

    async def beat(self) -> None:
        """Store a sign of life, and what has gone wrong since the hour began."""
        if self._processes is None:
            return
        try:
            if hour_of(self._clock()) != self._hour:
                await self._processes.remove_old(self._service)
            await self._processes.note(self._sign())
            for worker in list(self._heard):
                await self._processes.note(self._heard.pop(worker))
            await self._store_faults(self._processes)
        except Exception as error:
            # Whatever it is, as a document that nobody can read: the next sign may be stored.
            if type(error) is not self._failed:
                say = log.warning if isinstance(error, PyMongoError) else log.exception
                say("no sign of life stored", reason=type(error).__name__)
            self._is_known, self._failed = False, type(error)
        else:
            self._is_known, self._failed = True, None

    async def end(self) -> None:
        """The process was stopped: it will not be missed."""
        if self._processes is None or not self._is_known:
            return
        with contextlib.suppress(PyMongoError, TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._store_faults(self._processes)
                await self._processes.remove(self._service, own_name())

    def families(self) -> Iterable[Metric]:
        """What the metrics page adds to the counters, in a thread of the page's."""
        yield from _disks(own_disks(self._settings))
        if self._statistics is None:
            return
        counts = self._counts_from_loop()
        yield _gauge(
            "consulta_queue_up", "Whether the queue's database answers", counts is not None
        )
        if counts is not None:
            yield from _of_queue(counts, self._clock())

    def _counts_from_loop(self) -> Counts | None:
        reading = asyncio.run_coroutine_threadsafe(self._counts(), self._loop)
        try:
            return reading.result(READ_SECONDS)
        except FutureTimeoutError:
            reading.cancel()
            return None

    async def _counts(self) -> Counts | None:
        assert self._statistics is not None
        try:
            return await self._statistics.counts()
        except PyMongoError:
            return None

    def _sign(self) -> Sign:
        return Sign(
            self._service,
            own_name(),
            self._clock(),
            self._started,
            metrics.program_version(),
            self._settings.heartbeat_seconds,
            own_disks(self._settings),
            self.mail_closed(),
        )

    async def _store_faults(self, processes: Processes) -> None:
        counted = metrics.faults_counted()
        hour = hour_of(self._clock())
        if self._hour and hour != self._hour:
            self._before_hour = self._stored
        self._hour, self._stored = hour, counted
        within = {
            fault: count - self._before_hour[fault]
            for fault, count in counted.items()
            if count > self._before_hour[fault]
        }
        if within:
            await processes.add_faults(self._run, within)


@contextlib.asynccontextmanager
async def monitored(
    settings: Settings, service: str, database: AsyncDatabase[dict[str, Any]] | None = None
) -> AsyncIterator[Monitor]:
    """Let the service be seen meanwhile."""
    monitor = Monitor(settings, service, database)
    with metrics.served(settings, service, monitor.families):
        beating = asyncio.create_task(monitor.run())
        try:
            yield monitor
        finally:
            await cancel([beating])
            await monitor.end()


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _disks(disks: Iterable[Disk]) -> Iterable[Metric]:
    free = GaugeMetricFamily("consulta_disk_free_bytes", "Free space", labels=["path"])
    size = GaugeMetricFamily("consulta_disk_size_bytes", "Size of the disk", labels=["path"])
    for disk in disks:
        free.add_metric([disk.path], disk.free)
        size.add_metric([disk.path], disk.size)
    return free, size


def _of_queue(counts: Counts, now: datetime) -> Iterable[Metric]:
    def age(moment: datetime | None) -> float:
        return max(0.0, (now - moment).total_seconds()) if moment else 0.0

    questions = GaugeMetricFamily("consulta_questions", "Questions by state", labels=["state"])
    for state, number in counts.by_state.items():
        questions.add_metric([str(state)], number)
    yield questions
    yield _gauge(
        "consulta_oldest_question_age_seconds",
        "How long the oldest unanswered question has waited; 0 where all are answered",
        age(counts.oldest_waiting),
    )
    mails = GaugeMetricFamily(
        "consulta_stored_mails", "E-mails by what has become of them", labels=["kind", "state"]
    )
    oldest = GaugeMetricFamily(
        "consulta_oldest_mail_age_seconds",
        "How long the oldest e-mail has waited to be sent; 0 where none waits",
        labels=["kind"],
    )
    for kind, stored in (("answer", counts.answers), ("other", counts.other_mails)):
        for name in ("sent", "unsent", "deferred", "undeliverable"):
            mails.add_metric([kind, name], getattr(stored, name))
        oldest.add_metric([kind], age(stored.oldest_unsent))
    yield mails
    yield oldest
    silence = GaugeMetricFamily(
        "consulta_silence_seconds",
        "How long ago each process gave its last sign of life",
        labels=["service", "process"],
    )
    for sign in counts.processes:
        silence.add_metric([sign.service, sign.name], age(sign.seen))
    yield silence
