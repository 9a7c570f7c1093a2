"""One real exam hour, replayed against one worker whose model has a realistic pace.

    python -m benchmarks.exam_hour [--speed 20] [--flood 50] [--plot exam-hour.png]

All processes are real: API, worker, mailer, nx-27017, a mailbox; only the model server is a
stand-in, which takes as long as a small server's model would. Two ways to pass the time:

- ``--speed 1`` (the default): the hour at its own pace on a simulated clock. The wall clocks of our
  processes stand still at what a file says (libfaketime), and are set forward to the next event:
  a question that is asked, or an answer that the model has finished. So hours take minutes,
  and what our own processes take is not counted; polls and time limits follow the real clock.
- ``--speed 20``: no simulated clock; arrivals and the model are twenty times as fast.

A quiet time before the hour, one question after another, shows what the API's latency is when
nothing else happens. Prints a table; the exit code is 1 when a promise is broken. ``--flood`` adds
a student who asks so many at once in the middle of the hour.
"""

import argparse
import math
import os
import random
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pymongo import MongoClient
from pymongo.collection import Collection
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.fifo import Arrival, Limits, accepted, read_arrivals, served
from benchmarks.scripted_model import ScriptedModel
from core.clock import NEVER, as_datetime
from tests.faults.laboratory import Laboratory, Tally, laboratory
from tests.journeys.department import PASSWORD, index_sample_course

QUIET_QUESTIONS = 40
QUIET_STUDENTS = 20
QUIET_SECONDS = 60.0
"""From one question of the quiet time to the next: most are answered meanwhile."""
FLOOD_SECOND = 1200.0

NEAR = 0.2
NEAR_SHARE = 0.8
LATENCY_RATIO = 1.5
"""Between two parts of one run. What a peer's was is told beside it: on a machine that has other
work it says why a promise was broken."""
SLACK_SECONDS = 2.0
"""How much later than the arithmetic an answer may be, beside the polls."""

QUESTION = "Which voltage counts as dangerous in the laboratory? ({})"
_INDEX = re.compile(r"laboratory\? \((-?\d+)\)")
_POLL_SECONDS = 0.05
_SETTLE_SECONDS = 60.0


def model_seconds(index: int) -> float:
    """How long the model takes for a question: 15 to 75 seconds, 31 in the mean.

    A prompt of 600 to 1,150 tokens is read at 50 tokens/s and 20 to 400 are written at 8 tokens/s,
    as a 7B model does on a small graphics card; lengths as measured with the sample course.
    """
    chance = random.Random(index)
    written = min(400.0, max(20.0, chance.lognormvariate(4.4, 0.6)))
    return chance.uniform(600, 1150) / 50 + written / 8


@dataclass
class Asked:
    """One question of the replay, and what became of it. Seconds are of the exam's clock."""

    arrival: Arrival
    index: int
    status: int = 0
    latency: float = math.nan
    """Seconds of the real clock from request to reply."""
    peer: float = math.nan
    """The same of a server that does nothing, asked right after: what the machine's other work
    does to any server."""
    number: int = 0
    place: int = 0
    expected: float | None = None
    waited: float = math.nan
    place_was: int = 0
    took: float = math.nan
    """The worker's time for it, with one poll."""
    bound: float = math.nan
    """How long it waits by arithmetic alone, oldest first."""

    @property
    def is_quiet(self) -> bool:
        """Whether it belongs to the quiet time."""
        return self.index < 0


@dataclass
class Clock:
    """The exam's clock: the simulated one of the file, which stands still, or the real one."""

    speed: float
    file: Path | None
    _began: float = 0.0
    _stands_at: float = 0.0

    @property
    def is_simulated(self) -> bool:
        """Whether our processes have the clock of the file."""
        return self.file is not None

    def start(self, second: float) -> None:
        """It is ``second`` now."""
        self._stands_at = time.time()
        self._began = self._stands_at - second / self.speed
        self._write()

    def now(self) -> float:
        """Seconds since the exam's begin."""
        moment = self._stands_at if self.is_simulated else time.time()
        return (moment - self._began) * self.speed

    def advance_to(self, second: float) -> None:
        """Set the simulated clock forward."""
        self._stands_at = max(self._stands_at, self._began + second)
        self._write()

    def second_of(self, moment: Any) -> float:
        """The second of the exam that a stored date is."""
        return (as_datetime(moment).timestamp() - self._began) * self.speed

    def _write(self) -> None:
        if self.file is not None:
            moment = datetime.fromtimestamp(self._stands_at, UTC).astimezone()
            new = self.file.with_suffix(".new")
            new.write_text(f"{moment:%Y-%m-%d %H:%M:%S.%f}")
            new.replace(self.file)


class PacedModel:
    """Decides when the model's answers are ready."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._ready_at: float | None = None

    def wait(self, prompt: str) -> None:
        """Return when the answer to the prompt is ready."""
        found = _INDEX.search(prompt)
        assert found is not None, prompt
        seconds = model_seconds(int(found[1]))
        if not self._clock.is_simulated:
            time.sleep(seconds / self._clock.speed)
            return
        with self._changed:
            self._ready_at = self._clock.now() + seconds
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ready_at is None)

    def next_ready(self) -> float:
        """Wait until the worker has asked; gives when its answer will be ready."""
        with self._changed:
            asked = self._changed.wait_for(lambda: self._ready_at is not None, _SETTLE_SECONDS)
            assert asked, "the worker asks the model for nothing"
            assert self._ready_at is not None
            return self._ready_at

    def finish(self) -> None:
        """The answer is ready."""
        with self._changed:
            self._ready_at = None
            self._changed.notify_all()


@dataclass
class Replay:
    """The department under load, and what is asked of it."""

    lab: Laboratory
    prompts: Collection[dict[str, Any]]
    clock: Clock
    model: PacedModel
    http: httpx.Client
    peer_url: str
    asked: list[Asked]
    progress: Progress
    tokens: dict[int, str] = field(default_factory=dict)

    def register(self) -> None:
        """An account and a login for each student."""
        students = sorted({question.arrival.student for question in self.asked})
        task = self.progress.add_task("students", total=len(students))

        def log_in(student: int) -> None:
            name = f"student{student}"
            account = {"username": name, "email": f"{name}@uni.test", "password": PASSWORD}
            self.http.post("/user", json=account).raise_for_status()
            login = self.http.post("/login", data={"username": name, "password": PASSWORD})
            self.tokens[student] = login.raise_for_status().json()["access_token"]
            self.progress.advance(task)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(log_in, students))

    def run(self) -> None:
        """Ask everything, and wait for all answers."""
        self.asking = self.progress.add_task("asked", total=len(self.asked))
        self.answering = self.progress.add_task("answered", total=None)
        if self.clock.is_simulated:
            self._run_simulated()
        else:
            self._run_compressed()

    def _run_compressed(self) -> None:
        with ThreadPoolExecutor(32) as pool:
            jobs = []
            for question in self.asked:
                time.sleep(max(0.0, question.arrival.second - self.clock.now()) / self.clock.speed)
                jobs.append(pool.submit(self._ask, question))
            for job in jobs:
                job.result()
        while self._answered() < len(self.lab.accepted):
            time.sleep(0.2)

    def _run_simulated(self) -> None:
        answered = 0
        left = iter(self.asked)
        following = next(left, None)
        while True:
            is_working = answered < len(self.lab.accepted)
            ready = self.model.next_ready() if is_working else math.inf
            if following is not None and following.arrival.second <= ready:
                self.clock.advance_to(following.arrival.second)
                self._ask(following)
                following = next(left, None)
            elif is_working:
                self.clock.advance_to(ready)
                self.model.finish()
                answered += 1
                deadline = time.monotonic() + _SETTLE_SECONDS
                while self._answered() < answered:
                    assert time.monotonic() < deadline, "the worker stores no answer"
                    time.sleep(0.005)
            else:
                return

    def _ask(self, question: Asked) -> None:
        began = time.perf_counter()
        reply = self.http.post(
            "/questions",
            json={"input": QUESTION.format(question.index)},
            headers={"Authorization": f"Bearer {self.tokens[question.arrival.student]}"},
        )
        replied = time.perf_counter()
        question.latency, question.status = replied - began, reply.status_code
        self.http.get(f"{self.peer_url}/models").raise_for_status()
        question.peer = time.perf_counter() - replied
        if reply.status_code == 202:
            body = reply.json()
            question.number, question.place = body["id"], body["place"]
            question.expected = body["expected_seconds"]
            if question.expected is not None:
                question.expected *= self.clock.speed
            self.lab.accepted.append(question.number)
        self.progress.advance(self.asking)

    def _answered(self) -> int:
        answered = self.prompts.database.command(
            "count", self.prompts.name, query={"due": {"$eq": NEVER}}
        )
        self.progress.update(self.answering, completed=answered["n"], total=len(self.lab.accepted))
        return int(answered["n"])

    def measure(self) -> None:
        """Fill in what became of each question that was accepted."""
        stored = {document["_id"]: document for document in self.lab.documents()}
        rows = sorted(
            (question for question in self.asked if question.number),
            key=lambda question: (stored[question.number]["date_ms"], question.number),
        )
        dates = [self.clock.second_of(stored[row.number]["date"]) for row in rows]
        ends = [self.clock.second_of(stored[row.number]["date_out"]) for row in rows]
        # A worker that looks for work each so often may find the next one as late; where the clock
        # stands still, that takes no time.
        idle = 0.0 if self.clock.is_simulated else _POLL_SECONDS * self.clock.speed
        taken = [stored[row.number]["work_ms"] / 1000 * self.clock.speed + idle for row in rows]
        bounds = served(dates, taken)
        for row, date, end, bound, took in zip(rows, dates, ends, bounds, taken, strict=True):
            row.waited, row.bound, row.took = end - date, bound - date, took
            row.place_was = sum(date < other <= end for other in ends)


@dataclass(frozen=True)
class Outcome:
    """A finished replay."""

    asked: list[Asked]
    tally: Tally
    speed: float
    limits: Limits

    @property
    def hour(self) -> list[Asked]:
        """What was asked in the hour."""
        return [question for question in self.asked if not question.is_quiet]

    @property
    def kept(self) -> list[Asked]:
        """Of the hour, what was accepted."""
        return [question for question in self.hour if question.status == 202]

    def near(self, pairs: Sequence[tuple[float | None, float]]) -> float:
        """The share of pairs whose first is within a fifth of its second."""
        right = sum(
            said is not None and abs(said - was) <= NEAR * was + 1e-9 for said, was in pairs
        )
        return right / len(pairs)

    @property
    def places_near(self) -> float:
        """Share of the places that were right within a fifth."""
        return self.near([(question.place, question.place_was) for question in self.kept])

    @property
    def times_near(self) -> float:
        """Share of the expected times that were right within a fifth."""
        return self.near([(question.expected, question.waited) for question in self.kept])

    @property
    def later_than_owed(self) -> float:
        """Seconds by which a question waited longer than oldest first allows, at most."""
        return max(question.waited - question.bound for question in self.kept)

    def latency(self, figure: Callable[[Sequence[float]], float]) -> tuple[float, float, float]:
        """A figure of the replies 202: in the hour (s), over the quiet time's, and the peer's."""
        quiet = [question for question in self.asked if question.is_quiet]
        hour = figure([q.latency for q in self.kept])
        return (
            hour,
            hour / figure([q.latency for q in quiet]),
            figure([q.peer for q in self.kept]) / figure([q.peer for q in quiet]),
        )

    @property
    def by_arithmetic(self) -> int:
        """How many the limits let in, by arithmetic alone, at the pace that the worker had."""
        slower = sum(q.took for q in self.kept) / sum(model_seconds(q.index) for q in self.kept)

        def seconds(index: int) -> float:
            question = self.hour[index]
            if question.status == 202:
                return question.took
            return model_seconds(question.index) * slower

        return len(accepted([q.arrival for q in self.hour], seconds, self.limits))

    def promises(self) -> list[tuple[str, str, str, bool]]:
        """Each promise: what, the figure, the limit, and whether it is kept."""
        tally, hour = self.tally, self.hour
        others = {q.status for q in self.asked} - {202, 429}
        arithmetic = self.by_arithmetic
        tolerance = 0.02 if self.speed == 1 else 0.1
        slack = SLACK_SECONDS * max(1.0, self.speed / 4)
        return [
            (
                "accepted, as arithmetic says",
                f"{len(self.kept)} of {len(hour)}",
                f"{arithmetic} ± {tolerance:.0%}",
                abs(len(self.kept) - arithmetic) <= tolerance * arithmetic,
            ),
            (
                "replies other than 202 and 429",
                ", ".join(map(str, sorted(others))) or "0",
                "0",
                not others,
            ),
            (
                "lost: accepted without an answer or without its e-mail",
                str(tally.lost + tally.accepted - tally.answered),
                "0",
                tally.lost == 0 and tally.answered == tally.accepted,
            ),
            ("second copies of an e-mail", str(tally.duplicates), "0", tally.duplicates == 0),
            (
                "longest wait beyond oldest first",
                f"{max(0.0, self.later_than_owed):.1f} s",
                f"{slack:.0f} s",
                self.later_than_owed <= slack,
            ),
            (
                "place right within 20 %",
                f"{self.places_near:.1%}",
                f"{NEAR_SHARE:.0%}",
                self.places_near >= NEAR_SHARE,
            ),
            (
                "expected time right within 20 %",
                f"{self.times_near:.1%}",
                f"{NEAR_SHARE:.0%}",
                self.times_near >= NEAR_SHARE,
            ),
            self._latency("latency of POST /questions, median", statistics.median),
            self._latency("latency, 95 of 100 within", _p95),
        ]

    def _latency(
        self, name: str, figure: Callable[[Sequence[float]], float]
    ) -> tuple[str, str, str, bool]:
        seconds, ratio, of_peer = self.latency(figure)
        measured = f"{1000 * seconds:.0f} ms, {ratio:.2f} × quiet"
        limit = f"{LATENCY_RATIO} × (peer {of_peer:.2f})"
        return name, measured, limit, ratio <= LATENCY_RATIO


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def schedule(
    arrivals: Sequence[Arrival], *, flood: int = 0, quiet_questions: int = QUIET_QUESTIONS
) -> list[Asked]:
    """The quiet time, then the hour, with ``flood`` questions at once of one more student."""
    quiet = [
        Arrival((index - quiet_questions) * QUIET_SECONDS, -1 - index % QUIET_STUDENTS)
        for index in range(quiet_questions)
    ]
    students = max((arrival.student for arrival in arrivals), default=0)
    hour = sorted(
        [*arrivals, *[Arrival(FLOOD_SECOND, students + 1)] * flood],
        key=lambda arrival: arrival.second,
    )
    return [
        *(Asked(arrival, index - quiet_questions) for index, arrival in enumerate(quiet)),
        *(Asked(arrival, index) for index, arrival in enumerate(hour)),
    ]


def replay(
    asked: list[Asked],
    *,
    speed: float,
    limits: Limits,
    folder: Path,
    progress: Progress,
    index: Path | None = None,
) -> Outcome:
    """Ask the scheduled questions of a department of its own in ``folder``.

    At speed 1 the clock is simulated. ``index`` is one of the sample course, if there is one.
    """
    index = index or index_sample_course(folder / "course-index")
    clock = Clock(speed, folder / "clock" if speed == 1 else None)
    paced = PacedModel(clock)
    model = ScriptedModel(paced.wait)
    settings = {
        "OPENAI_BASE_URL": model.url,
        "LLM_LANGUAGES": "es,en",
        "MAX_WAITING_PER_STUDENT": str(limits.waiting),
        "QUESTIONS_PER_HOUR": str(limits.hourly),
        "POLL_SECONDS": str(_POLL_SECONDS),
        # Leases are renewed by the real clock, and the simulated one leaps by a minute.
        "LEASE_SECONDS": "600",
        "MAIL_LEASE_SECONDS": "600",
    }
    with (
        model.running(),
        laboratory(folder, index=index, **settings) as lab,
        MongoClient[dict[str, Any]](lab.queue_url) as mongo,
        httpx.Client(base_url=lab.api_url, timeout=60) as http,
    ):
        clock.start(asked[0].arrival.second)
        faked = lab.movable_clock(clock.file) if clock.file else {}
        for service in ("api", "worker", "mailer"):
            lab.start(service, **faked)
        lab.wait_until_ready()
        prompts = mongo["consulta"]["prompts"]
        running = Replay(lab, prompts, clock, paced, http, model.url, asked, progress)
        running.register()
        clock.start(asked[0].arrival.second)
        running.run()
        tally = lab.tally("exam hour", 1, seconds=600)
        running.measure()
    return Outcome(asked, tally, speed, limits)


def table(outcome: Outcome) -> Table:
    """What was promised, and what was measured."""
    refused = len(outcome.hour) - len(outcome.kept)
    waits = [question.waited / 60 for question in outcome.kept]
    shown = Table(
        title=f"Exam hour at speed {outcome.speed:g}: {outcome.limits.waiting} waiting and "
        f"{outcome.limits.hourly} an hour for each student",
        title_justify="left",
    )
    for name in ("promise", "measured", "limit", ""):
        shown.add_column(name, justify="left" if name in ("promise", "") else "right")
    for name, figure, limit, is_kept in outcome.promises():
        shown.add_row(name, figure, limit, "[green]kept" if is_kept else "[red]broken")
    shown.add_section()
    shown.add_row("refused with 429, apart from these", str(refused), "", "")
    shown.add_row(
        "minutes waited: median, longest", f"{statistics.median(waits):.0f}, {max(waits):.0f}"
    )
    flooder = max(question.arrival.student for question in outcome.hour)
    if flooder not in {arrival.student for arrival in read_arrivals()}:
        theirs = [q for q in outcome.hour if q.arrival.student == flooder]
        shown.add_row(
            "of the student who asks all at once, accepted",
            f"{sum(q.status == 202 for q in theirs)} of {len(theirs)}",
        )
    return shown


def draw(outcome: Outcome, path: Path) -> None:
    """Waits and what was said of them, as PNG."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - half a second that a test can spare

    figure = Figure(figsize=(11, 4.5), dpi=130, facecolor="white", layout="constrained")
    over_time, said = figure.subplots(1, 2)
    minutes = [question.arrival.second / 60 for question in outcome.kept]
    waited = [question.waited / 60 for question in outcome.kept]
    over_time.plot(
        minutes, [q.bound / 60 for q in outcome.kept], color="#c4472f", label="oldest first"
    )
    over_time.plot(minutes, waited, ".", color="#1f5fa8", label="measured")
    refused = [q.arrival.second / 60 for q in outcome.hour if q.status == 429]
    over_time.plot(refused, [0.0] * len(refused), "|", color="#9aa1a8", label="refused (429)")
    over_time.set(xlabel="asked in minute", ylabel="minutes until the answer")
    over_time.legend(frameon=False)
    expected = [(q.expected or 0.0) / 60 for q in outcome.kept]
    longest = max(waited)
    said.fill_between(
        [0, longest],
        [0, 0.8 * longest],
        [0, 1.2 * longest],
        color="#b9c3cc",
        alpha=0.5,
        label="within 20 %",
    )
    said.plot(waited, expected, ".", color="#1f5fa8")
    said.set(xlabel="minutes waited", ylabel="minutes told when asked")
    said.legend(frameon=False)
    figure.suptitle(
        f"{len(outcome.kept)} of {len(outcome.hour)} questions accepted, speed {outcome.speed:g}"
    )
    figure.savefig(path)


def main() -> int:
    """Replay, print, draw; 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description="Replay one exam hour against one worker.")
    parser.add_argument("--speed", type=float, default=1, help="1: on a simulated clock")
    parser.add_argument("--flood", type=int, default=0, help="questions of one more student")
    parser.add_argument("--waiting", type=int, default=3, help="MAX_WAITING_PER_STUDENT")
    parser.add_argument("--hourly", type=int, default=15, help="QUESTIONS_PER_HOUR")
    parser.add_argument("--plot", type=Path, help="write a picture here")
    chosen = parser.parse_args()
    terminal = Console()
    progress = Progress(
        TextColumn("{task.description:>9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=terminal,
    )
    with tempfile.TemporaryDirectory(prefix="consulta-bench-") as folder, progress:
        outcome = replay(
            schedule(read_arrivals(), flood=chosen.flood),
            speed=chosen.speed,
            limits=Limits(chosen.waiting, chosen.hourly),
            folder=Path(folder),
            progress=progress,
        )
    terminal.print(table(outcome))
    terminal.print(f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    if chosen.plot:
        draw(outcome, chosen.plot)
    return 0 if all(is_kept for *_, is_kept in outcome.promises()) else 1


if __name__ == "__main__":
    sys.exit(main())
