"""What the service costs beside the model: memory, time per question, CPU when idle.

    python -m benchmarks.overhead [--questions 40]

Starts what ``consulta up`` starts, on a temporary folder and free ports, with a model server that
answers at once. Nothing is asserted: the numbers are for people, on their machine.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil
from pymongo import MongoClient
from rich.console import Console
from rich.table import Table

from benchmarks.scripted_model import ScriptedModel
from consulta import stack
from consulta.services import stores
from consulta.student import Asking, Student
from core.clock import as_datetime
from core.settings import Settings, load_settings
from rag_worker.answering import Answerer
from rag_worker.embeddings import embeddings
from rag_worker.generation import current_name, open_generation
from rag_worker.language import question_language
from rag_worker.models import LanguageModel
from rag_worker.retrieval import Retriever
from tests.servers import free_port

MEMORY_LIMIT_MB = 600
OVERHEAD_LIMIT_MS = 150
IDLE_SECONDS = 10.0
POLLS = (1.0, 0.2, 0.1, 0.05)
MAIL_SECONDS = 60.0
QUESTIONS = (
    "What temperature should the soldering iron have?",
    "¿Cuándo es el primer parcial y en qué aula?",
    "Which voltage counts as dangerous in the laboratory?",
    "¿Cuánto pesa el examen final en la nota?",
    "What must be done before touching a large capacitor?",
    "¿Qué es un diodo Zener?",
    "Who is the president of France?",
)
ASKED_POLLS = (0.1, 0.05)
"""Beside the default: the intervals at which questions are asked too."""
PARTS = {
    "reply": "API's reply (202)",
    "worker": "worker's poll",
    "work": "search, prompt, checks",
    "search": "· search alone, here",
    "store": "· storing alone, here",
    "mail": "storing, mailer's poll, mail",
    "answered": "POST to answer",
    "mailed": "POST to e-mail",
}
Timings = defaultdict[str, list[float]]
"""Milliseconds of each question, by part, the model's subtracted."""


@dataclass(frozen=True)
class Bench:
    """The stack under measurement, and who asks it."""

    layout: stack.Layout
    environment: dict[str, str]
    settings: Settings
    model: ScriptedModel
    questions: int

    @contextlib.contextmanager
    def running(self, poll_seconds: float) -> Iterator[int]:
        """The whole stack; gives supervisord's process id."""
        environment = {
            **self.environment,
            "POLL_SECONDS": str(poll_seconds),
            # One student asks everything.
            "MAX_WAITING_PER_STUDENT": "100000",
            "QUESTIONS_PER_HOUR": "100000",
            "ADDRESS_QUESTIONS_PER_HOUR": "100000",
        }
        with stack.running(self.layout, stack.Model({}, False, "scripted"), environment) as running:
            for _ in running.wait_until_ready():
                pass
            yield running.supervisord.pid

    def ask(self) -> tuple[Timings, Counter[str]]:
        """Ask one question after another; the first of each kind only warms up."""
        timings: Timings = defaultdict(list)
        outcomes: Counter[str] = Counter()
        texts = islice(cycle(QUESTIONS), len(QUESTIONS) + self.questions)
        with (
            MongoClient[dict[str, Any]](self.settings.mongo_url_or_parts()) as client,
            Asking(self.layout.api_url, Student.load(self.layout.data)) as asking,
        ):
            prompts = client[self.settings.mongo_db_name]["prompts"]
            asking.log_in()
            for at, text in enumerate(texts):
                before = self._mails()
                asked_before = len(self.model.seconds)
                started = time.time()
                number = asking.ask(text)["id"]
                replied = time.time()
                mailed = self._mailed(before)
                document = prompts.find_one({"_id": number})
                assert document is not None
                if at < len(QUESTIONS):
                    continue
                outcomes[document["outcome"]] += 1
                model = sum(self.model.seconds[asked_before:])
                stored = as_datetime(document["date_out"]).timestamp()
                claimed = document["claimed_ms"] / 1000
                enqueued = _timestamp(document["date"])
                for part, seconds in {
                    "reply": replied - started,
                    # MongoDB keeps milliseconds.
                    "worker": max(0.0, claimed - enqueued),
                    "work": stored - claimed - model,
                    "mail": mailed - stored,
                    "answered": stored - started - model,
                    "mailed": mailed - started - model,
                }.items():
                    timings[part].append(1000 * seconds)
        return timings, outcomes

    def _mails(self) -> set[str]:
        return set(os.listdir(self.layout.data / "mail" / "new"))  # noqa: PTH208 - names alone

    def _mailed(self, before: set[str]) -> float:
        """When the next e-mail was stored."""
        deadline = time.monotonic() + MAIL_SECONDS
        while time.monotonic() < deadline:
            if new := self._mails() - before:
                return (self.layout.data / "mail" / "new" / new.pop()).stat().st_mtime
            time.sleep(0.005)
        raise SystemExit(f"No e-mail after {MAIL_SECONDS:.0f} seconds: see {self.layout.log}.")

    def peer(self) -> Timings:
        """The same questions in one process: no HTTP, no accounts, no polls, no e-mail."""
        return asyncio.run(self._peer())

    async def _peer(self) -> Timings:
        timings: Timings = defaultdict(list)
        location = self.settings.index_location
        name = current_name(location)
        assert name is not None
        with ThreadPoolExecutor(1) as thread:
            embedding = thread.submit(embeddings, self.settings).result()
            retriever = Retriever(open_generation(location, name), embedding)
            model = LanguageModel(self.settings)
            answerer = Answerer(self.settings, retriever, model, thread)
            async with stores(self.settings.model_copy(update={"mongo_db_name": "peer"})) as opened:
                queue = opened.queue
                await queue.create_indexes()
                texts = islice(cycle(QUESTIONS), len(QUESTIONS) + self.questions)
                for at, text in enumerate(texts):
                    asked_before = len(self.model.seconds)
                    started = time.perf_counter()
                    await queue.enqueue(input=text, email="a@uni.test", user_id=1)
                    claim = await queue.claim()
                    assert claim is not None
                    answer = await answerer.answer(claim.input)
                    answered = time.perf_counter()
                    await queue.complete(claim.id, claim.claims, answer)
                    stored = time.perf_counter()
                    seconds = stored - started
                    seconds -= sum(self.model.seconds[asked_before:])
                    if at < len(QUESTIONS):
                        continue
                    timings["answered"].append(1000 * seconds)
                    timings["store"].append(1000 * (stored - answered))
                    language = question_language(text, self.settings.course_language)
                    started = time.perf_counter()
                    await asyncio.get_running_loop().run_in_executor(
                        thread, retriever.search, text, language, 4
                    )
                    timings["search"].append(1000 * (time.perf_counter() - started))
        return timings


def main() -> None:
    """Run all measurements and print them."""
    parser = argparse.ArgumentParser(description="What the service costs beside the model.")
    parser.add_argument("--questions", type=int, default=35, help="how many are asked")
    questions = parser.parse_args().questions
    terminal = Console()
    model = ScriptedModel()
    with tempfile.TemporaryDirectory(prefix="consulta-bench-") as folder, model.running():
        layout = replace(
            stack.plan_layout(Path(folder), free_port(), free_port()),
            queue_port=free_port(),
            smtp_port=free_port(),
        )
        scripted = {
            "LLM_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": model.url,
            "LLM_LANGUAGES": "en,es",
        }
        environment = stack.write_environment(
            layout, Settings(_env_file=None), stack.Model(scripted, False, "scripted")
        )
        settings = load_settings(env_files=(layout.environment_file,))
        stack.index_documents(environment)
        _run(terminal, Bench(layout, environment, settings, model, questions))


def _run(terminal: Console, bench: Bench) -> None:
    default = bench.settings.poll_seconds
    measured: dict[float, Timings] = {}
    idle: dict[float, dict[str, float]] = {}
    for poll in sorted({*POLLS, default}, reverse=True):
        with terminal.status(f"POLL_SECONDS={poll:g}…"), bench.running(poll) as supervisord:
            if poll in (default, *ASKED_POLLS):
                measured[poll], outcomes = bench.ask()
            if poll == default:
                memory = _memory(supervisord)
                peer = bench.peer()
            time.sleep(2)
            idle[poll] = _idle_cpu(supervisord)
    terminal.print(_memory_table(memory))
    terminal.print(_time_table(measured, peer, default))
    terminal.print(
        "The peer is one process with the same queue and the same answers, without HTTP, polls "
        f"and e-mail. {bench.questions} questions, answered as "
        f"{', '.join(f'{outcome}: {count}' for outcome, count in outcomes.most_common())}.",
        highlight=False,
    )
    terminal.print(_idle_table(idle))


def _timestamp(moment: datetime | str) -> float:
    return as_datetime(moment).timestamp()


def _processes(supervisord: int) -> dict[str, psutil.Process]:
    """Our own processes by name; the model server is none of them."""
    parent = psutil.Process(supervisord)
    named = {"supervisord": parent}
    for process in parent.children():
        words = process.cmdline()
        named[words[words.index("consulta") + 1] if "consulta" in words else "queue"] = process
    return named


def _memory(supervisord: int) -> dict[str, tuple[float, float]]:
    """RSS and PSS in MB of each process; of ``consulta up`` as it waits for Ctrl-C."""
    waiting = "import consulta.cli, consulta.up; print(flush=True); input()"
    up = subprocess.Popen(
        [sys.executable, "-c", waiting], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert up.stdout is not None
    up.stdout.readline()
    rows = {}
    for name, process in {"up": psutil.Process(up.pid), **_processes(supervisord)}.items():
        family = [process.memory_full_info()]
        if name not in ("up", "supervisord"):
            family += [child.memory_full_info() for child in process.children(recursive=True)]
        rows[name] = (sum(m.rss for m in family) / 2**20, sum(m.pss for m in family) / 2**20)
    up.communicate(b"\n")
    return rows


def _idle_cpu(supervisord: int) -> dict[str, float]:
    """Share of one core that each process takes while nothing is asked, in per cent."""

    def seconds() -> dict[str, float]:
        return {
            name: sum(process.cpu_times()[:2]) for name, process in _processes(supervisord).items()
        }

    before = seconds()
    time.sleep(IDLE_SECONDS)
    return {name: 100 * (now - before[name]) / IDLE_SECONDS for name, now in seconds().items()}


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _memory_table(memory: dict[str, tuple[float, float]]) -> Table:
    table = _table("Memory, MB", "process", "RSS", "PSS")
    for name, (rss, pss) in memory.items():
        table.add_row(name, f"{rss:.0f}", f"{pss:.0f}")
    sums = [sum(column) for column in zip(*memory.values(), strict=True)]
    table.add_section()
    table.add_row("sum", *(f"{total:.0f}" for total in sums))
    table.add_row("limit", "", f"{MEMORY_LIMIT_MB}")
    return table


def _time_table(measured: dict[float, Timings], peer: Timings, default: float) -> Table:
    columns = [f"{poll:g} s{' (default)' if poll == default else ''}" for poll in measured]
    title = "One question without the model, ms: median (p95), by POLL_SECONDS"
    table = _table(title, "part", *columns, "peer")
    for part, meaning in PARTS.items():
        if part == "answered":
            table.add_section()
        table.add_row(
            meaning,
            *(_figures(timings.get(part)) for timings in measured.values()),
            _figures(peer.get(part)),
        )
    table.add_row("limit", *(str(OVERHEAD_LIMIT_MS) for _ in measured), "")
    ratios = (
        statistics.median(timings["answered"]) / statistics.median(peer["answered"])
        for timings in measured.values()
    )
    table.add_row("× the peer", *(f"{ratio:.1f}" for ratio in ratios), "1.0")
    return table


def _figures(values: Sequence[float] | None) -> str:
    if not values:
        return ""
    p95 = statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
    return f"{statistics.median(values):.0f} ({p95:.0f})"


def _idle_table(idle: dict[float, dict[str, float]]) -> Table:
    names = ("worker", "mailer", "queue")
    table = _table("CPU when idle, % of one core", "POLL_SECONDS", *names, "sum")
    for poll, cpu in idle.items():
        parts = [cpu[name] for name in names]
        table.add_row(f"{poll:g}", *(f"{part:.1f}" for part in [*parts, sum(parts)]))
    return table


if __name__ == "__main__":
    main()
