"""Half an hour under steady work and random faults: does anything grow?

    python -m benchmarks.soak [--minutes 30] [--seed 1] [--plot soak.png]      (or: make soak)

The real API, worker and mailer run without being restarted, behind fault proxies before the
queue's database, the mail server and the model. One fault after another, chosen by the seed: cuts,
resets, latency, dripping bytes, wrong bytes, connections that go silent, and the servers
themselves killed and started again. Meanwhile students ask, look and log in. Every few seconds the
memory, file descriptors, threads and connections of our processes are noted. The first fifth is
warm-up; of the rest the medians of the first and the second half are compared. The exit code is 1
when something has grown, one of our processes has ended, or a question was lost.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.scripted_model import ScriptedModel
from tests.faults.laboratory import Laboratory, Tally, laboratory
from tests.faults.proxy import Fault
from tests.journeys.department import PASSWORD, index_sample_course

SERVICES = ("api", "worker", "mailer")
WARM_UP = 0.2
"""Share of the time before anything is compared: caches fill, pools open."""
LARGEST_GROWTH = {"memory, MB": 0.05, "files": 0.1, "threads": 0.1, "connections": 0.1}
"""Of the second half's median over the first's."""
LEAST_GROWTH = {"memory, MB": 8.0, "files": 2.0, "threads": 2.0, "connections": 2.0}
"""And not less than this, or a single pooled connection would be growth."""

_KILLED = "killed"
_FAULTS: dict[str, tuple[Fault | str, ...]] = {
    server: (
        *(fault for fault in Fault if fault is not Fault.NONE),
        *([] if server == "model" else [_KILLED]),
    )
    for server in ("queue", "smtp", "model")
}
_QUESTIONS = (
    "Which voltage counts as dangerous in the laboratory?",
    "What temperature should the soldering iron have?",
    "¿Cuándo es el primer parcial y en qué aula?",
    "Who is the president of France?",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one process."""

    second: float
    process: str
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Growth:
    """One figure of one process, in the two halves after the warm-up."""

    process: str
    what: str
    first: float
    second: float
    hourly: float
    """By regression over both halves."""

    @property
    def is_flat(self) -> bool:
        """Whether it has stayed where it was."""
        grown = self.second - self.first
        allowed = max(LEAST_GROWTH[self.what], LARGEST_GROWTH[self.what] * self.first)
        return grown <= allowed


def growths(samples: Sequence[Sample], seconds: float) -> list[Growth]:
    """What each figure of each process did in ``seconds``."""
    start, middle = WARM_UP * seconds, (1 + WARM_UP) / 2 * seconds
    found = []
    for process in dict.fromkeys(sample.process for sample in samples):
        own = [sample for sample in samples if sample.process == process and sample.second >= start]
        for what in LARGEST_GROWTH:
            points = [(sample.second, sample.values[what]) for sample in own]
            halves = (
                [value for second, value in points if second < middle],
                [value for second, value in points if second >= middle],
            )
            slope = statistics.linear_regression(*zip(*points, strict=True)).slope
            medians = [statistics.median(half) for half in halves]
            found.append(Growth(process, what, medians[0], medians[1], slope * 3600))
    return found


def look(name: str, pid: int, second: float) -> Sample:
    """A sample of the process with what it has started."""
    process = psutil.Process(pid)
    memory = process.memory_info().rss
    for child in process.children(recursive=True):
        try:
            memory += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    with process.oneshot():
        values = {
            "memory, MB": memory / 2**20,
            "files": process.num_fds(),
            "threads": process.num_threads(),
            "connections": len(process.net_connections("inet")),
        }
    return Sample(second, name, values)


@dataclass
class Student:
    """Asks, looks and logs in, as long as the soak lasts."""

    lab: Laboratory
    name: str
    stop: threading.Event
    statuses: Counter[int] = field(default_factory=Counter)
    _asked: list[int] = field(default_factory=list)

    def register(self) -> None:
        """An account of one's own."""
        account = {
            "username": self.name,
            "email": f"{self.name}@uni.test",
            "password": PASSWORD,
        }
        with httpx.Client(base_url=self.lab.api_url, timeout=60) as http:
            http.post("/user", json=account).raise_for_status()

    def work(self, pause: float) -> None:
        """One request after another; a question is repeated with its key until there is a 202."""
        chance = random.Random(self.name)
        key = uuid.uuid4().hex
        with httpx.Client(base_url=self.lab.api_url, timeout=60) as http:
            while not self.stop.wait(chance.expovariate(1 / pause)):
                if "authorization" not in http.headers or chance.random() < 0.05:
                    login = self._send(
                        lambda: http.post(
                            "/login", data={"username": self.name, "password": PASSWORD}
                        )
                    )
                    if login is None or login.status_code != 200:
                        continue
                    http.headers["authorization"] = f"Bearer {login.json()['access_token']}"
                text = _QUESTIONS[len(self._asked) % len(_QUESTIONS)]
                asked = self._send(
                    lambda text=text, key=key: http.post(
                        "/questions", json={"input": text}, headers={"Idempotency-Key": key}
                    )
                )
                if asked is not None and asked.status_code == 202:
                    self._asked.append(asked.json()["id"])
                    self.lab.accepted.append(self._asked[-1])
                    key = uuid.uuid4().hex
                one = f"/questions/{self._asked[-1]}" if self._asked else "/questions"
                path = chance.choice(["/questions", "/health/ready", one])
                self._send(lambda path=path: http.get(path))

    def _send(self, request: Callable[[], httpx.Response]) -> httpx.Response | None:
        try:
            reply = request()
        except httpx.TransportError:
            self.statuses[0] += 1
            return None
        self.statuses[reply.status_code] += 1
        return reply


@dataclass(frozen=True)
class Soaked:
    """What half an hour has shown."""

    samples: list[Sample]
    seconds: float
    faults: Counter[str]
    statuses: Counter[int]
    ended: list[str]
    tally: Tally

    @property
    def growths(self) -> list[Growth]:
        """Each figure of each process."""
        return growths(self.samples, self.seconds)

    @property
    def is_well(self) -> bool:
        """Whether all promises were kept."""
        return (
            all(growth.is_flat for growth in self.growths)
            and not self.ended
            and self.tally.lost == 0
            and self.tally.answered == self.tally.accepted
            and not self.statuses[500]
        )


def soak(
    folder: Path,
    *,
    seconds: float,
    seed: int,
    pause: float = 2.0,
    every: float = 5.0,
    index: Path | None = None,
    tick: Callable[[float], None] = lambda _: None,
) -> Soaked:
    """Run a department of its own in ``folder`` under faults.

    Args:
        folder: for all data and logs.
        seconds: how long.
        seed: of the faults.
        pause: mean seconds between the questions of each of three students.
        every: seconds between two samples.
        index: one of the sample course, if there is one.
        tick: is told how many seconds have passed.
    """
    index = index or index_sample_course(folder / "course-index")
    model = ScriptedModel()
    chance = random.Random(seed)
    faults: Counter[str] = Counter()
    with (
        model.running(),
        laboratory(
            folder,
            index=index,
            proxied=list(_FAULTS),
            LLM_LANGUAGES="es,en",
            LLM_TIMEOUT="10",
            SMTP_TIMEOUT="10",
            LEASE_SECONDS="10",
            MAIL_LEASE_SECONDS="20",
            RETRY_SECONDS="1",
            MAX_ATTEMPTS="50",
            MAIL_MAX_ATTEMPTS="1000",
            LOG_LEVEL="WARNING",
        ) as lab,
    ):
        lab.network["model"].target = int(model.url.split(":")[2].partition("/")[0])
        for service in SERVICES:
            lab.start(service)
        lab.wait_until_ready()
        pids = {name: lab.processes[name].pid for name in SERVICES}
        stop = threading.Event()
        students = [Student(lab, f"student{number}", stop) for number in range(3)]
        for student in students:
            student.register()
        _log_in_at_once(lab, students)
        working = [threading.Thread(target=student.work, args=(pause,)) for student in students]
        for thread in working:
            thread.start()
        samples: list[Sample] = []
        try:
            began = time.monotonic()
            next_sample = next_change = 0.0
            under_fault: tuple[str, Fault | str] | None = None
            while (now := time.monotonic() - began) < seconds:
                if now >= next_sample:
                    next_sample += every
                    samples += [
                        look(name, pid, now)
                        for name, pid in pids.items()
                        if lab.processes[name].poll() is None
                    ]
                    tick(now)
                if now >= next_change:
                    if under_fault is None:
                        server = chance.choice(list(_FAULTS))
                        fault = chance.choice(_FAULTS[server])
                        _begin(lab, server, fault)
                        faults[f"{server}: {_words(fault)}"] += 1
                        under_fault = server, fault
                        next_change = now + chance.uniform(1, 8)
                    else:
                        _end(lab, *under_fault)
                        under_fault = None
                        next_change = now + chance.uniform(2, 8)
                time.sleep(0.1)
            if under_fault is not None:
                _end(lab, *under_fault)
        finally:
            stop.set()
            for thread in working:
                thread.join()
        ended = [name for name in SERVICES if lab.processes[name].poll() is not None]
        tally = lab.tally("soak", sum(faults.values()), seconds=300)
    statuses = sum((student.statuses for student in students), Counter())
    return Soaked(samples, seconds, faults, statuses, ended, tally)


def _log_in_at_once(lab: Laboratory, students: Sequence[Student]) -> None:
    """As many as are let in together: each thread that hashes keeps the memory of one hash."""

    def log_in(student: Student) -> None:
        form = {"username": student.name, "password": PASSWORD}
        httpx.post(f"{lab.api_url}/login", data=form, timeout=60).raise_for_status()

    with ThreadPoolExecutor(3 * len(students)) as pool:
        list(pool.map(log_in, [*students] * 3))


def _words(fault: Fault | str) -> str:
    return fault if isinstance(fault, str) else fault.name.lower().replace("_", " ")


def _begin(lab: Laboratory, server: str, fault: Fault | str) -> None:
    if isinstance(fault, Fault):
        lab.network[server].set(fault, delay=0.2)
    elif server == "queue":
        lab.queue.kill()
    else:
        lab.mailbox.kill()


def _end(lab: Laboratory, server: str, fault: Fault | str) -> None:
    if isinstance(fault, Fault):
        lab.network[server].set(Fault.NONE)
    elif server == "queue":
        lab.queue.start()
    else:
        lab.mailbox.start()


def tables(soaked: Soaked) -> list[Table]:
    """The growth of each process, and what happened meanwhile."""
    growth_table = Table(
        title=f"{soaked.seconds / 60:.0f} minutes, {soaked.tally.times} faults",
        title_justify="left",
    )
    for name in ("process", "what", "first half", "second half", "an hour", ""):
        growth_table.add_column(
            name, justify="left" if name in ("process", "what", "") else "right"
        )
    for growth in soaked.growths:
        growth_table.add_row(
            growth.process if growth.what == "memory, MB" else "",
            growth.what,
            f"{growth.first:.0f}",
            f"{growth.second:.0f}",
            f"{growth.hourly:+.1f}",
            "[green]flat" if growth.is_flat else "[red]grows",
        )
    tally = soaked.tally
    counts = Table("accepted", "answered", "mailed", "duplicates", "lost", "ended by themselves")
    counts.add_row(
        *map(str, (tally.accepted, tally.answered, tally.mailed, tally.duplicates, tally.lost)),
        ", ".join(soaked.ended) or "none",
    )
    return [growth_table, counts]


def draw(soaked: Soaked, path: Path) -> None:
    """Each figure over time, as PNG."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second that a test can spare

    figure = Figure(figsize=(12, 6), dpi=130, facecolor="white", layout="constrained")
    for axes, what in zip(figure.subplots(2, 2).flat, LARGEST_GROWTH, strict=True):
        for process in SERVICES:
            points = [
                (s.second / 60, s.values[what]) for s in soaked.samples if s.process == process
            ]
            axes.plot(*zip(*points, strict=True), label=process, linewidth=1)
        axes.axvline(WARM_UP * soaked.seconds / 60, color="#9aa1a8", linestyle=":")
        axes.set(title=what, xlabel="minutes")
        axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> int:
    """Soak, print, draw; 1 when something has grown or was lost."""
    parser = argparse.ArgumentParser(description="Look for growth under work and faults.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="write a picture here")
    chosen = parser.parse_args()
    terminal = Console()
    progress = Progress(
        TextColumn("soaking"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=terminal,
        refresh_per_second=1,
    )
    with tempfile.TemporaryDirectory(prefix="consulta-soak-") as folder, progress:
        task = progress.add_task("soak", total=60 * chosen.minutes)
        soaked = soak(
            Path(folder),
            seconds=60 * chosen.minutes,
            seed=chosen.seed,
            tick=lambda seconds: progress.update(task, completed=seconds),
        )
    for table in tables(soaked):
        terminal.print(table)
    faults = ", ".join(f"{name} {count}" for name, count in sorted(soaked.faults.items()))
    replies = ", ".join(
        f"{status or 'none'}: {count}" for status, count in sorted(soaked.statuses.items())
    )
    terminal.print(f"Faults: {faults}.\nReplies by status: {replies}.", highlight=False)
    terminal.print(f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    if chosen.plot:
        draw(soaked, chosen.plot)
    return 0 if soaked.is_well else 1


if __name__ == "__main__":
    sys.exit(main())
