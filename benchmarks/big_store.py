"""Is the queue as fast with 100,000 answered questions as with 100?

    python -m benchmarks.big_store [--answered 100000] [--server nx-27017] [--rounds 40]

Fills two databases of one server and tries each verb on both in turn, so that whatever else the
machine does slows both. Prints the medians and their ratios; the exit code is 1 where a verb takes
more than half as long again, and half a millisecond more, with the large store.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from core.clock import NEVER, milliseconds, system_clock
from core.mongo import connect
from core.questions import Answer, Outcome, Question, QuestionQueue, Source
from core.settings import Settings
from tests import servers

FEW = 100
WAITING = 50
QUESTIONS_EACH = 50
"""Of one student; a store that grows has more students, not busier ones."""
LARGEST_RATIO = 1.5
LEAST_DIFFERENCE = 0.0005
"""Seconds that a ratio must mean, or it is chance."""
BATCH = 1000

SERVERS = {
    "nx-27017": servers.nx_27017,
    "secantusdb": servers.secantusdb,
    "ferretdb": servers.ferretdb,
}
_ANSWER = Answer(
    "El examen es el 3 de diciembre [1]. " * 10,
    "es",
    Outcome.ANSWERED,
    (Source("programa.docx", "Examen: 3 de diciembre. " * 8, heading="Evaluación"),),
)


async def fill(
    database: AsyncDatabase[dict[str, Any]],
    answered: int,
    tick: Callable[[int], None] = lambda _: None,
) -> None:
    """Store so many answered questions of the past, and then some that wait."""
    queue = QuestionQueue(database)
    await queue.create_indexes()
    # One real question on its whole way is the pattern of all others.
    first = (
        await queue.enqueue(input="¿Qué es un diodo? " * 10, email="a@uni.test", user_id=0)
    ).question
    waiting = await database["prompts"].find_one({"_id": first.id})
    claim = await queue.claim()
    assert claim is not None
    await queue.complete(claim.id, claim.claims, _ANSWER)
    mail = await queue.claim_answered()
    assert mail is not None
    await queue.mark_sent(mail.id, mail.mail_claims)
    sent = await database["prompts"].find_one({"_id": first.id})
    assert waiting is not None
    assert sent is not None
    now = system_clock()
    documents = []
    for number in range(first.id + 1, first.id + answered + WAITING + 1):
        is_waiting = number > first.id + answered
        asked = now - timedelta(seconds=(first.id + answered + WAITING + 1 - number) * 10)
        documents.append(
            {
                **(waiting if is_waiting else sent),
                "_id": number,
                "number": number,
                "dedupe": f"filled-{number}",
                "user_id": number // QUESTIONS_EACH,
                "date": asked,
                "date_ms": milliseconds(asked),
                **({"due": milliseconds(asked)} if is_waiting else {"date_out": asked}),
            }
        )
        if len(documents) == BATCH or number == first.id + answered + WAITING:
            await database["prompts"].insert_many(documents)
            tick(len(documents))
            documents = []
    await database["counters"].update_one(
        {"_id": "prompts"}, {"$set": {"value": first.id + answered + WAITING}}
    )


@dataclass
class Verbs:
    """Every verb that students, workers and the mailer wait for, tried again and again."""

    queue: QuestionQueue
    answered: int
    newest: Question
    claims: list[Question] = field(default_factory=list)
    mails: list[Question] = field(default_factory=list)

    def named(self, turn: int) -> Mapping[str, Callable[[], Awaitable[Any]]]:
        """The verbs by name; ``turn`` counts the rounds."""
        queue = self.queue
        old = 2 + turn * 7 % (self.answered - 2)
        student = old // QUESTIONS_EACH
        limits = {"most_waiting": 100, "most_hourly": 1000}
        asking = {"input": "¿Cuándo?", "email": "a@uni.test", "user_id": student}
        return {
            "ask": lambda: queue.enqueue(**asking, **limits),
            "ask by e-mail": lambda: queue.enqueue(**asking, **limits, most_mailed=1000),
            "place": lambda: queue.place(self.newest),
            "pace": queue.pace,
            "my questions": lambda: queue.mine(student, limit=21),
            "… further on": lambda: queue.mine(student, limit=21, before=old),
            "… of a new student": lambda: queue.mine(10**9, limit=21),
            "one question": lambda: queue.one(old, student),
            "waiting of a student": lambda: queue.waiting(student),
            "oldest waiting": lambda: queue.oldest_waiting(student),
            "claim": self._claim,
            "renew": lambda: queue.renew(self.claims[-1].id, self.claims[-1].claims),
            "answer": self._answer,
            "claim of an e-mail": self._claim_mail,
            "e-mail sent": lambda: queue.mark_sent(self.mails[-1].id, self.mails[-1].mail_claims),
        }

    async def _claim(self) -> None:
        claimed = await self.queue.claim()
        assert claimed is not None
        self.claims.append(claimed)

    async def _answer(self) -> None:
        assert await self.queue.complete(self.claims[-1].id, self.claims[-1].claims, _ANSWER)

    async def _claim_mail(self) -> None:
        claimed = await self.queue.claim_answered()
        assert claimed is not None
        self.mails.append(claimed)


async def _verbs(database: AsyncDatabase[dict[str, Any]], answered: int) -> Verbs:
    queue = QuestionQueue(database)
    found = await database["prompts"].find_one({"due": {"$lt": NEVER}}, sort=[("number", -1)])
    assert found is not None
    newest = await queue.one(found["_id"])
    assert newest is not None
    return Verbs(queue, answered, newest)


async def compare(
    url: str, answered: int, rounds: int, tick: Callable[[int], None] = lambda _: None
) -> dict[str, tuple[float, float]]:
    """Median seconds of each verb with few and with many answered questions in the store."""
    seconds: defaultdict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    async with connect(Settings(mongo_url=url)) as client:
        stores = []
        for name, number in (("few", FEW), ("many", answered)):
            await fill(client[name], number, tick)
            stores.append(await _verbs(client[name], number))
        for turn in range(rounds):
            for size, verbs in enumerate(stores):
                for name, verb in verbs.named(turn).items():
                    began = time.perf_counter()
                    await verb()
                    seconds[name][size].append(time.perf_counter() - began)
    return {
        name: (statistics.median(few), statistics.median(many))
        for name, (few, many) in seconds.items()
    }


def is_as_fast(few: float, many: float) -> bool:
    """Whether the difference is none."""
    return many <= few * LARGEST_RATIO or many - few <= LEAST_DIFFERENCE


def main() -> int:
    """Fill, compare, print; 1 when a verb is slower."""
    parser = argparse.ArgumentParser(description="Compare a large store with a small one.")
    parser.add_argument("--answered", type=int, default=100_000)
    parser.add_argument("--server", choices=SERVERS, default="nx-27017")
    parser.add_argument("--rounds", type=int, default=40)
    chosen = parser.parse_args()
    terminal = Console()
    progress = Progress(
        TextColumn("filling"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=terminal,
        refresh_per_second=1,
    )
    with (
        tempfile.TemporaryDirectory(prefix="consulta-store-") as folder,
        SERVERS[chosen.server](Path(folder)) as url,
        progress,
    ):
        task = progress.add_task("store", total=FEW + chosen.answered + 2 * WAITING)
        medians = asyncio.run(
            compare(
                url,
                chosen.answered,
                chosen.rounds,
                lambda stored: progress.advance(task, stored),
            )
        )
    table = Table(
        title=f"{chosen.server}: milliseconds, median of {chosen.rounds}", title_justify="left"
    )
    for name in ("verb", f"{FEW} answered", f"{chosen.answered:,}", "ratio", ""):
        table.add_column(name, justify="left" if name in ("verb", "") else "right")
    for name, (few, many) in medians.items():
        table.add_row(
            name,
            f"{1000 * few:.2f}",
            f"{1000 * many:.2f}",
            f"{many / few:.2f}",
            "[green]as fast" if is_as_fast(few, many) else "[red]slower",
        )
    terminal.print(table)
    terminal.print(f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    return 0 if all(is_as_fast(*pair) for pair in medians.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
