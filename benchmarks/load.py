"""200 requests a second, reads and writes mixed, for five minutes, from the same machine.

    python -m benchmarks.load [--rate 200] [--minutes 5] [--students 300]

The real API with SQLite and nx-27017, a process that answers as soon as there is a question, so
that the queue stays short, and a generator in this process that sends at random moments (Poisson)
whether or not earlier replies are there: who waits counts from the planned moment. Prints a table;
the exit code is 1 where a reply was an error of the server, the rate was not reached, or memory
grew.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from api.migrations import migrate
from core.mongo import connect
from core.questions import Answer, Outcome, QuestionQueue
from core.settings import Settings
from core.users import UserRepository, create_user_engine
from tests import servers
from tests.api_client import PASSWORD, api_process

MIX = {"one": 43, "list": 25, "ask": 20, "ready": 10, "login": 2}
"""Of a hundred requests."""
CONNECTIONS = 64
_LOGINS_AT_ONCE = 12
_IDLE_SECONDS = 2.0
"""Longer than that a connection is not kept: the API closes those that are idle for five."""
SAMPLE_SECONDS = 5.0
LARGEST_GROWTH = 0.1
"""Of memory, from the second fifth of the time to the last."""
LOWEST_RATE = 0.97

_ANSWER = Answer("El examen es el 3 de diciembre [1].", "es", Outcome.ANSWERED)
_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Reply:
    """A status and a body; status 0 where the connection broke."""

    status: int
    body: bytes


class Client:
    """As little HTTP/1.1 as the API needs: the generator shares its cores."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []
        self._free = asyncio.Semaphore(CONNECTIONS)

    async def send(
        self, method: str, path: str, *, token: str = "", body: bytes = b"", kind: str = _JSON
    ) -> Reply:
        """One request on a connection that is kept."""
        head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
        if body:
            head.append(f"Content-Type: {kind}")
        if token:
            head.append(f"Authorization: Bearer {token}")
        async with self._free:
            reader, writer = await self._connection()
            try:
                writer.write("\r\n".join([*head, "", ""]).encode() + body)
                replied = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                _, _, length = replied.partition("content-length:")
                content = await reader.readexactly(int(length.partition("\r\n")[0] or 0))
            except (OSError, asyncio.IncompleteReadError):
                writer.close()
                return Reply(0, b"")
            if "connection: close" in replied:
                writer.close()
            else:
                self._idle.append((reader, writer, time.monotonic()))
        return Reply(int(replied.split(" ", 2)[1]), content)

    async def close(self) -> None:
        """Close what is idle."""
        for _, writer, _ in self._idle:
            writer.close()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer, since = self._idle.pop()
            if time.monotonic() < since + _IDLE_SECONDS:
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)


@dataclass
class Student:
    """Whoever asks."""

    name: str
    token: str = ""
    questions: list[int] = field(default_factory=list)


@dataclass
class Load:
    """What is sent, and what came back."""

    client: Client
    students: list[Student]
    chance: random.Random
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)

    async def log_in(self, student: Student) -> Reply:
        """A login; later requests have its token."""
        form = urlencode({"username": student.name, "password": PASSWORD}).encode()
        reply = await self.client.send("POST", "/login", body=form, kind=_FORM)
        if reply.status == 200:
            student.token = json.loads(reply.body)["access_token"]
        return reply

    async def ask(self, student: Student) -> Reply:
        """A question."""
        body = json.dumps({"input": f"¿Cuándo es el examen número {self.chance.random()}?"})
        reply = await self.client.send(
            "POST", "/questions", token=student.token, body=body.encode()
        )
        if reply.status == 202:
            student.questions.append(json.loads(reply.body)["id"])
        return reply

    async def request(self, kind: str, planned: float) -> None:
        """One of the mix, for a student at random."""
        student = self.chance.choice(self.students)
        match kind:
            case "ask":
                reply = await self.ask(student)
            case "login":
                reply = await self.log_in(student)
            case "one":
                number = self.chance.choice(student.questions[-20:])
                reply = await self.client.send("GET", f"/questions/{number}", token=student.token)
            case "list":
                reply = await self.client.send("GET", "/questions", token=student.token)
            case _:
                reply = await self.client.send("GET", "/health/ready")
        self.seconds[kind].append(time.monotonic() - planned)
        self.statuses[kind, reply.status] += 1

    async def run(self, rate: float, seconds: float, tick: Callable[[float], None]) -> None:
        """Send at random moments, ``rate`` a second in the mean."""
        began = planned = time.monotonic()
        kinds, weights = list(MIX), list(MIX.values())
        async with asyncio.TaskGroup() as running:
            while planned < began + seconds:
                planned += self.chance.expovariate(rate)
                await asyncio.sleep(max(0.0, planned - time.monotonic()))
                kind = self.chance.choices(kinds, weights)[0]
                running.create_task(self.request(kind, planned))
                tick(planned - began)


async def answer_everything(url: str, database: str) -> None:
    """A worker that answers at once, until it is stopped."""
    async with connect(Settings(mongo_url=url)) as client:
        queue = QuestionQueue(client[database])
        while True:
            question = await queue.claim()
            if question is None:
                await asyncio.sleep(0.05)
            else:
                await queue.complete(question.id, question.claims, _ANSWER)


@dataclass(frozen=True)
class Measured:
    """The load, and what it did to our processes."""

    load: Load
    took: float
    memory: dict[str, list[float]]
    """MB, each few seconds."""
    cpu: dict[str, float]
    """Of one core."""

    @property
    def requests(self) -> int:
        """How many were sent."""
        return sum(self.load.statuses.values())

    @property
    def rate(self) -> float:
        """Replies a second."""
        return self.requests / self.took

    @property
    def errors(self) -> int:
        """Replies that tell of an error, and requests without a reply."""
        return sum(
            count for (_, status), count in self.load.statuses.items() if not 200 <= status < 300
        )

    def growth(self, name: str) -> float:
        """Memory of the last fifth over that of the second."""
        values = self.memory[name]
        fifth = max(1, len(values) // 5)
        return statistics.median(values[-fifth:]) / statistics.median(values[fifth : 2 * fifth]) - 1

    def is_well(self, wanted: float) -> bool:
        """Whether all promises were kept."""
        return (
            not self.errors
            and self.rate >= LOWEST_RATE * wanted
            and all(self.growth(name) <= LARGEST_GROWTH for name in self.memory)
        )


async def _measure(
    load: Load,
    processes: dict[str, psutil.Process],
    rate: float,
    seconds: float,
    tick: Callable[[float], None],
) -> Measured:
    # Some at once: each thread that hashes passwords keeps the memory of one hash from then on.
    for first in range(0, len(load.students), _LOGINS_AT_ONCE):
        group = load.students[first : first + _LOGINS_AT_ONCE]
        logins = await asyncio.gather(*(load.log_in(student) for student in group))
        asked = await asyncio.gather(*(load.ask(student) for student in group))
        assert {reply.status for reply in logins} == {200}
        assert {reply.status for reply in asked} == {202}
    watched = {**processes, "generator": psutil.Process()}
    memory: defaultdict[str, list[float]] = defaultdict(list)

    async def watch() -> None:
        while True:
            for name, process in processes.items():
                memory[name].append(process.memory_info().rss / 2**20)
            await asyncio.sleep(SAMPLE_SECONDS)

    watching = asyncio.create_task(watch())
    before = {name: sum(process.cpu_times()[:2]) for name, process in watched.items()}
    began = time.monotonic()
    await load.run(rate, seconds, tick)
    took = time.monotonic() - began
    watching.cancel()
    cpu = {
        name: (sum(process.cpu_times()[:2]) - before[name]) / took
        for name, process in watched.items()
    }
    await load.client.close()
    return Measured(load, took, memory, cpu)


def measure(
    folder: Path,
    *,
    rate: float,
    seconds: float,
    students: int,
    tick: Callable[[float], None] = lambda _: None,
) -> Measured:
    """Start what is needed in ``folder``, and load it."""
    settings = Settings(database_url=f"sqlite:///{folder / 'users.db'}")
    engine = create_user_engine(settings)
    migrate(engine)
    users = UserRepository(engine)
    asking = [Student(f"student{number}") for number in range(students)]
    for student in asking:
        users.register(email=f"{student.name}@uni.test", username=student.name, password=PASSWORD)
    engine.dispose()
    port = servers.free_port()
    with servers.nx_27017(folder) as mongo_url:
        command, environment = api_process(mongo_url, folder, port)
        limits = ("MAX_WAITING_PER_STUDENT", "QUESTIONS_PER_HOUR", "ADDRESS_QUESTIONS_PER_HOUR")
        environment |= dict.fromkeys((*limits, "ADDRESS_LOGINS_PER_MINUTE"), "1000000")
        answering = [sys.executable, "-m", "benchmarks.load", "--answer", mongo_url]
        answering.append(environment["MONGO_DB_NAME"])
        log = folder / "api.log"
        with (
            servers.running(command, log, environment=environment) as api,
            servers.running(answering, folder / "worker.log"),
        ):
            servers.wait_for_port(port, api, log)
            queue = next(
                process
                for process in psutil.Process().children()
                if any("nx-27017" in word for word in process.cmdline())
            )
            processes = {"api": psutil.Process(api.pid), "queue": queue}

            async def run() -> Measured:
                load = Load(Client(port), asking, random.Random(1))
                return await _measure(load, processes, rate, seconds, tick)

            return asyncio.run(run())


def tables(measured: Measured, rate: float) -> list[Table]:
    """Latencies by kind of request, and the processes."""
    replies = Table(
        title=f"{measured.requests} requests, {measured.rate:.0f} a second of {rate:g} wanted",
        title_justify="left",
    )
    for name in ("request", "replies", "median, ms", "p95", "p99", "longest", "statuses"):
        replies.add_column(name, justify="left" if name in ("request", "statuses") else "right")
    everything = [second for seconds in measured.load.seconds.values() for second in seconds]
    for kind, seconds in [*measured.load.seconds.items(), ("all", everything)]:
        statuses = Counter(
            {
                status: count
                for (other, status), count in measured.load.statuses.items()
                if other == kind
            }
        )
        replies.add_row(
            kind,
            str(len(seconds)),
            *(f"{1000 * value:.0f}" for value in _percentiles(seconds)),
            f"{1000 * max(seconds):.0f}",
            ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items())),
        )
    processes = Table("process", "processor, % of a core", "memory at first, MB", "last", "growth")
    for name, cpu in measured.cpu.items():
        row = [name, f"{100 * cpu:.0f}"]
        if name in measured.memory:
            values = measured.memory[name]
            row += [f"{values[0]:.0f}", f"{values[-1]:.0f}", f"{measured.growth(name):+.1%}"]
        processes.add_row(*row)
    return [replies, processes]


def _percentiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49], cuts[94], cuts[98]


def main() -> int:
    """Load, print; 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description="Load the API with reads and writes.")
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--students", type=int, default=300)
    parser.add_argument("--answer", nargs=2, metavar=("URL", "DATABASE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.answer:
        asyncio.run(answer_everything(*chosen.answer))
        return 0
    terminal = Console()
    progress = Progress(
        TextColumn("sending"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=terminal,
        refresh_per_second=1,
    )
    with tempfile.TemporaryDirectory(prefix="consulta-load-") as folder, progress:
        task = progress.add_task("load", total=60 * chosen.minutes)
        measured = measure(
            Path(folder),
            rate=chosen.rate,
            seconds=60 * chosen.minutes,
            students=chosen.students,
            tick=lambda seconds: progress.update(task, completed=seconds),
        )
    for table in tables(measured, chosen.rate):
        terminal.print(table)
    terminal.print(f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    return 0 if measured.is_well(chosen.rate) else 1


if __name__ == "__main__":
    sys.exit(main())
