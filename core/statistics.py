"""The figures of the queue, read from what is stored; cheap with 100,000 questions too.

Every query is served by an index, or by a sample of fixed size; what is read is at most what waits.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from core.clock import NEVER, Clock, as_datetime, milliseconds, system_clock
from core.mails import MailKind
from core.metrics import Fault, Stage
from core.mongo import count
from core.outbox import MailStatus
from core.processes import Processes, Sign
from core.questions import Outcome, Question, QuestionState, Rating

Document = dict[str, Any]

SAMPLE = 200
"""How many of the newest answers times and tokens are measured on."""
LAST_ERRORS = 5
FAULTS_SPAN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Spread:
    """Of some values the median, and what 95 % of them do not exceed."""

    count: int
    median: float
    p95: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self | None:
        """None where there are no values."""
        ordered = sorted(values)
        if not ordered:
            return None
        p95 = ordered[-(-95 * len(ordered) // 100) - 1]
        return cls(len(ordered), statistics.median(ordered), p95)


@dataclass(frozen=True, slots=True)
class Mails:
    """The e-mails of one kind by their outcome; ``deferred`` are some of ``unsent``."""

    sent: int
    unsent: int
    deferred: int
    undeliverable: int
    oldest_unsent: datetime | None
    """Since when the one has waited that has waited longest."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What is where just now."""

    by_state: dict[QuestionState, int]
    oldest_waiting: datetime | None
    answers: Mails
    other_mails: Mails
    processes: tuple[Sign, ...]


@dataclass(frozen=True, slots=True)
class Figures:
    """What staff want to see at a glance.

    Attributes:
        failed: questions that were answered with an apology.
        stages: seconds, of the newest answers.
        tokens: of the newest answers that the model wrote for, by ``prompt`` and ``answer``.
        truncated: how many of the newest answers the model's server cut the prompt of.
        faults: of the last 24 hours.
    """

    at: datetime
    counts: Counts
    failed: int
    stages: dict[Stage, Spread | None]
    tokens: dict[str, Spread | None]
    truncated: int
    ratings: dict[Rating, int]
    faults: dict[Fault, int]
    last_errors: tuple[Question, ...]


class Statistics:
    """Reads the figures of one MongoDB database.

    Raises:
        pymongo.errors.PyMongoError: from every verb, when the server is away or refuses.
    """

    def __init__(self, database: AsyncDatabase[Document], *, clock: Clock = system_clock) -> None:
        self._database = database
        self._prompts = database["prompts"]
        self._mails = database["mails"]
        self._processes = Processes(database, clock=clock)
        self._clock = clock

    async def counts(self) -> Counts:
        """What is where, for a page that is asked for every few seconds."""
        now = milliseconds(self._clock())
        unanswered = await count(self._prompts, {"due": {"$lt": NEVER}})
        answering = await count(self._prompts, {"due": {"$gt": now, "$lt": NEVER}, "held": True})
        total = await count(self._prompts, {})
        answers = await self._mails_of(self._prompts, "date_out", total - unanswered)
        others = await self._mails_of(self._mails, "date", await count(self._mails, {}))
        return Counts(
            by_state={
                # A question may move on between two counts.
                QuestionState.WAITING: max(0, unanswered - answering),
                QuestionState.ANSWERING: answering,
                QuestionState.ANSWERED: answers.unsent,
                QuestionState.SENT: answers.sent,
                QuestionState.UNDELIVERABLE: answers.undeliverable,
            },
            oldest_waiting=await self.oldest_waiting(),
            answers=answers,
            other_mails=others,
            processes=tuple(await self._processes.all()),
        )

    async def figures(self) -> Figures:
        """All of it, for people."""
        newest = await self._newest_answers()
        written = [answer for answer in newest if answer.get("prompt_tokens")]
        return Figures(
            at=self._clock(),
            counts=await self.counts(),
            # An apology always has its error beside it.
            failed=await count(
                self._prompts, {"error": {"$gt": ""}, "outcome": str(Outcome.FAILED)}
            ),
            stages=_stages(newest),
            tokens={
                kind: Spread.of(answer.get(f"{kind}_tokens") or 0 for answer in written)
                for kind in ("prompt", "answer")
            },
            truncated=sum(bool(answer.get("truncated")) for answer in newest),
            ratings={
                rating: await count(self._prompts, {"rating": str(rating)}) for rating in Rating
            },
            faults=await self._processes.faults(FAULTS_SPAN),
            last_errors=await self._last_errors(),
        )

    async def oldest_waiting(self) -> datetime | None:
        """When the oldest unanswered question was asked; None where all are answered."""
        oldest = await self._prompts.find_one(
            {"output": None, "due": {"$lt": NEVER}}, {"date": 1}, sort=[("date", 1)]
        )
        return _moment(oldest, "date") if oldest else None

    async def unsent(self, since: datetime) -> list[tuple[str, int]]:
        """E-mails that are unsent and were written before ``since``: ``question`` or ``mail``, and
        their numbers."""
        found = []
        for kind, mails, written in (
            ("question", self._prompts, "date_out"),
            ("mail", self._mails, "date"),
        ):
            fields = {written: 1, "kind": 1, "mail_since_ms": 1}
            async for mail in mails.find({"mail_due": {"$lt": NEVER}}, fields):
                # One that was requeued waits since then; one without its date for nobody knows how
                # long. An alarm must not keep itself alive; of a question there is no kind.
                moment = _moment(mail, written)
                waits = max(milliseconds(moment) if moment else 0, mail.get("mail_since_ms", 0))
                if mail.get("kind") != MailKind.ALARM and waits < milliseconds(since):
                    found.append((kind, mail["_id"]))
        return sorted(found)

    async def undeliverable(self, since: datetime) -> list[int]:
        """Questions whose answer was refused for good since then."""
        return await self._refused(self._prompts, since)

    async def undeliverable_mails(self, since: datetime) -> list[int]:
        """The same of other e-mails, but those that whoever sends us an e-mail makes us write."""
        kinds = (MailKind.TEMPORARY_PASSWORD, MailKind.CONFIRMATION, MailKind.FOR_STAFF)
        return await self._refused(self._mails, since, kind={"$in": list(map(str, kinds))})

    async def _refused(
        self, mails: AsyncCollection[Document], since: datetime, **which: Any
    ) -> list[int]:
        ended = {"$gte": milliseconds(since)}
        refused = {"status": str(MailStatus.UNDELIVERABLE), "mail_ended_ms": ended, **which}
        return sorted([mail["_id"] async for mail in mails.find(refused, {"_id": 1})])

    async def _mails_of(self, mails: AsyncCollection[Document], written: str, total: int) -> Mails:
        waiting: Document = {"mail_due": {"$lt": NEVER}}
        oldest = await mails.find_one(waiting, {written: 1}, sort=[("number", 1)])
        unsent = await count(mails, waiting)
        undeliverable = await count(mails, {"status": str(MailStatus.UNDELIVERABLE)})
        withdrawn = await count(mails, {"status": str(MailStatus.WITHDRAWN)})
        return Mails(
            sent=max(0, total - unsent - undeliverable - withdrawn),
            unsent=unsent,
            deferred=await count(mails, waiting | {"mail_error": {"$gt": ""}}),
            undeliverable=undeliverable,
            oldest_unsent=_moment(oldest, written) if oldest else None,
        )

    async def _newest_answers(self) -> list[Document]:
        fields = (
            *("date_ms", "claimed_ms", "answered_ms", "mail_ended_ms", "status"),
            *("prompt_tokens", "answer_tokens", "truncated"),
        )
        cursor = (
            self._prompts.find({"answered_ms": {"$gt": 0}}, dict.fromkeys(fields, 1))
            .sort([("answered_ms", -1)])
            .limit(SAMPLE)
        )
        return [document async for document in cursor]

    async def _last_errors(self) -> tuple[Question, ...]:
        found: dict[int, Document] = {}
        # One query for each, and its index: of an $or every document is read.
        for query in (
            {"error": {"$gt": ""}},
            {"status": str(MailStatus.UNDELIVERABLE)},
            {"mail_due": {"$lt": NEVER}, "mail_error": {"$gt": ""}},
        ):
            cursor = self._prompts.find(query).sort([("number", -1)]).limit(LAST_ERRORS)
            found |= {document["_id"]: document async for document in cursor}
        newest = sorted(found, reverse=True)[:LAST_ERRORS]
        return tuple(Question.from_document(found[number], self._clock()) for number in newest)


def _moment(document: Document, field: str) -> datetime | None:
    """None where there is none, as after an edit by hand."""
    return as_datetime(document[field]) if document.get(field) else None


def _stages(answers: Sequence[Document]) -> dict[Stage, Spread | None]:
    def spread(begin: str, end: str, among: Sequence[Document] = answers) -> Spread | None:
        return Spread.of(
            max(0, one[end] - one[begin]) / 1000
            for one in among
            if one.get(begin) is not None and one.get(end) is not None
        )

    sent = [answer for answer in answers if answer.get("status") == MailStatus.SENT]
    return {
        Stage.WAITING: spread("date_ms", "claimed_ms"),
        Stage.ANSWERING: spread("claimed_ms", "answered_ms"),
        Stage.MAILING: spread("answered_ms", "mail_ended_ms", sent),
    }
