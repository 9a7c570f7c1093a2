"""Questions, their states, and the queue they wait in.

One document of the MongoDB collection ``prompts`` is the question, its place in the queue, its
answer and its outbox entry, so no second store can disagree with it. The queue uses only what
MongoDB and the smaller servers that speak its protocol have in common: no update pipelines, no
``$$NOW``, no partial or sparse indexes, no ``null`` inside ``$and`` or ``$or``, no order by
``_id`` (one of them sorts it as text, hence the field ``number``). Where a query by a number must
be fast it says ``{"$eq": …}``: nx-27017 takes the bare value for one that may also stand in a list,
and reads every document.
"""

import socket
import statistics
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from core import metrics
from core.clock import NEVER, Clock, as_datetime, milliseconds, system_clock
from core.mongo import count
from core.outbox import MAIL_LEASE_SECONDS, MailStatus, Outbox
from core.restoring import RestoreMark
from core.sequence import next_number
from core.settings import Settings
from core.turns import turn

Document = dict[str, Any]

PACE_SAMPLE = 100
"""How many recent answers the pace is measured on. On one exam hour, replayed with answers that
took 10 to 60 seconds, the expected time was right within a fifth for 95 % of the questions; with
twenty answers for 89 %, and with their median in place of the mean for 76 %."""


LONGEST_QUESTION = 4_000
"""Characters."""


class QuestionState(StrEnum):
    """Where a question is on its way; read from the document, never stored."""

    WAITING = "waiting"
    """Nobody works on it: a worker claims the oldest first."""
    ANSWERING = "answering"
    """A worker holds it; when its lease runs out it is waiting again."""
    ANSWERED = "answered"
    """The answer is stored and its e-mail is still to be sent."""
    SENT = "sent"
    """The receiving mail server has accepted the e-mail. Final."""
    UNDELIVERABLE = "undeliverable"
    """The e-mail was refused for good; the reason is kept and staff may requeue it."""


class Outcome(StrEnum):
    """What kind of answer was stored."""

    ANSWERED = "answered"
    """The model's words, checked against the passages they cite."""
    QUOTED = "quoted"
    """The best passages, quoted, because the model could not answer from them."""
    NOT_COVERED = "not_covered"
    """The course documents do not say."""
    NO_QUESTION = "no_question"
    """There was nothing to answer in it, as in a greeting; the reply says how to ask."""
    FAILED = "failed"
    """An apology, stored after the last attempt."""


class IdempotencyConflictError(Exception):
    """The same idempotency key came with another question."""


class TooManyWaitingError(Exception):
    """The student has as many unanswered questions as are allowed."""


class TooManyHourlyError(Exception):
    """The student has asked as much as is allowed in an hour; ``until`` is when there is room."""

    def __init__(self, until: datetime) -> None:
        super().__init__(f"again at {until:%H:%M:%S}")
        self.until = until


class TooManyMailedError(Exception):
    """The student has asked as much by e-mail as is allowed in a day."""


@dataclass(frozen=True, slots=True)
class Source:
    """A place in the course's documents that an answer rests on.

    ``page`` or ``slide`` (counted from 1) is set where the format has one; ``heading`` is the path
    of headings above the quotation, outermost first, joined by `` › ``.
    """

    file: str
    quotation: str
    page: int | None = None
    slide: int | None = None
    heading: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is stored and mailed. ``[1]`` in ``text`` is the first of ``sources``.

    ``uncertain`` marks an answer that may miss what was asked: the documents treat the subject, but
    the evidence that they answer the question is weak. ``prompt_tokens`` and ``answer_tokens`` are
    the model's own counts; ``truncated`` says that its server cut the prompt, and that the answer
    therefore has nothing of the model.
    """

    text: str
    language: str
    outcome: Outcome
    sources: tuple[Source, ...] = ()
    model: str | None = None
    uncertain: bool = False
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Thread:
    """The e-mail that a question came by, whose thread its mails belong to.

    Attributes:
        message_id: with its angle brackets; empty where the e-mail had none.
        subject: as the student wrote it.
        references: the Message-IDs of the thread before it, oldest first.
    """

    message_id: str
    subject: str
    references: tuple[str, ...] = ()

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what ``asdict`` made of it."""
        return cls(document["message_id"], document["subject"], tuple(document["references"]))


@dataclass(frozen=True, slots=True)
class Exchange:
    """An earlier question and what was answered, which another question follows up."""

    question: str
    answer: str


class Rating(StrEnum):
    """What a student says of an answer."""

    HELPED = "yes"
    DID_NOT_HELP = "no"
    ASK_STAFF = "staff"
    """It did not help, and the course staff should answer."""


_APOLOGIES = {
    "es": "Lo sentimos: no hemos podido responder a tu pregunta, tampoco al intentarlo de nuevo. "
    "El profesorado puede ver que ha fallado; pregúntale directamente, por favor.",
    "en": "We are sorry: your question could not be answered, not even when we tried again. "
    "The course staff can see that it failed; please ask them directly.",
}


def apology(language: str) -> Answer:
    """What a student is sent after the last failed attempt; in English unless ``es``."""
    known = language if language in _APOLOGIES else "en"
    return Answer(text=_APOLOGIES[known], language=known, outcome=Outcome.FAILED)


@dataclass(frozen=True, slots=True)
class Question:
    """A question as every service sees it. Times are in UTC."""

    id: int
    input: str
    date: datetime
    email: str
    user_id: int
    state: QuestionState
    claims: int
    attempts: int
    mail_claims: int = 0
    mail_attempts: int = 0
    answer: Answer | None = None
    date_out: datetime | None = None
    language: str | None = None
    error: str | None = None
    abandoned: int = 0
    rating: Rating | None = None
    thread: Thread | None = None
    follows: int | None = None
    earlier: Exchange | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any], now: datetime) -> Self:
        """Read a document of ``prompts``; ``now`` tells a live claim from an expired one."""
        output = document.get("output")
        answer = None
        if output is not None:
            answer = Answer(
                text=output,
                language=document.get("language") or "es",
                outcome=Outcome(document.get("outcome") or Outcome.ANSWERED),
                sources=tuple(Source(**source) for source in document.get("sources") or ()),
                model=document.get("model"),
                uncertain=document.get("uncertain", False),
                prompt_tokens=document.get("prompt_tokens"),
                answer_tokens=document.get("answer_tokens"),
                truncated=document.get("truncated", False),
            )
        return cls(
            id=document["_id"],
            input=document["input"],
            date=as_datetime(document["date"]),
            email=document["email"],
            user_id=document.get("user_id", 0),
            state=_state(document, now),
            claims=document.get("claims", 0),
            attempts=document.get("attempts", 0),
            mail_claims=document.get("mail_claims", 0),
            mail_attempts=document.get("mail_attempts", 0),
            answer=answer,
            date_out=as_datetime(document["date_out"]) if document.get("date_out") else None,
            language=document.get("language"),
            error=document.get("mail_error") or document.get("error"),
            abandoned=document.get("abandoned", 0),
            rating=Rating(document["rating"]) if document.get("rating") else None,
            thread=Thread.from_document(document["thread"]) if document.get("thread") else None,
            follows=document.get("follows"),
            earlier=Exchange(**document["earlier"]) if document.get("earlier") else None,
        )


def _state(document: Mapping[str, Any], now: datetime) -> QuestionState:
    if document.get("output") is not None:
        match document.get("status"):
            case MailStatus.SENT:
                return QuestionState.SENT
            case MailStatus.UNDELIVERABLE | MailStatus.WITHDRAWN:
                return QuestionState.UNDELIVERABLE
            case _:
                return QuestionState.ANSWERED
    if document.get("held") and document["due"] > milliseconds(now):
        return QuestionState.ANSWERING
    return QuestionState.WAITING


_TIMES = {"date_ms": 1, "claimed_ms": 1}


def _count_answer(answer: Answer, document: Mapping[str, Any], now: datetime) -> None:
    """Its times and tokens, for the metrics; ``document`` is the question before it."""
    asked = document.get("date_ms", document["claimed_ms"])
    metrics.ANSWERS.labels(answer.outcome).inc()
    metrics.time_stage(metrics.Stage.WAITING, document["claimed_ms"] - asked)
    metrics.time_stage(metrics.Stage.ANSWERING, milliseconds(now) - document["claimed_ms"])
    metrics.TOKENS.labels("prompt").inc(answer.prompt_tokens or 0)
    metrics.TOKENS.labels("answer").inc(answer.answer_tokens or 0)
    if answer.truncated:
        metrics.count_fault(metrics.Fault.PROMPT_TRUNCATED)


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The stored question, and whether this call stored it or an earlier one had."""

    question: Question
    created: bool


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast answers come.

    Attributes:
        seconds_per_answer: the mean; a wait is a sum of such times, whatever their distribution.
        workers: how many are worked on at once.
        worked: seconds that were put into these already.
    """

    seconds_per_answer: float | None
    workers: int
    worked: tuple[float, ...] = ()

    def expected_seconds(self, place: int) -> float | None:
        """Seconds until the question at ``place`` (1 is next) is answered; None when unknown."""
        if self.seconds_per_answer is None:
            return None
        one = self.seconds_per_answer
        done = sum(min(seconds, one) for seconds in self.worked)
        # What takes longer than others did is soon done, for all that is known.
        return max(one * max(1, place / self.workers) - done / self.workers, one / 10)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a question whose answer failed is tried again."""

    max_attempts: int = 3
    max_abandoned: int = 5
    """Claims in a row that ended without a word (the worker died); then it counts as failed."""
    first_pause: float = 30.0
    """Seconds before the second attempt; doubled for each further one."""

    def pause(self, attempts: int) -> float:
        """Seconds to wait after the failed attempt number ``attempts`` (1 is the first)."""
        return float(self.first_pause * 2 ** (attempts - 1))


class QuestionQueue:
    """Every verb of the queue, on the collection ``prompts`` of one MongoDB database.

    Writes are acknowledged by a majority and journaled (the client's URI says so, see
    :func:`core.mongo.connect`). All times come from ``clock``. A verb that takes ``claims``, the
    fencing token of a claim, changes nothing and returns False when another worker has claimed
    the question since.

    Raises:
        pymongo.errors.PyMongoError: from every verb, when the server is away or refuses; from
            those that add or claim, while a backup is being restored.
    """

    def __init__(
        self,
        database: AsyncDatabase[Document],
        *,
        lease_seconds: float = 60.0,
        mail_lease_seconds: float = MAIL_LEASE_SECONDS,
        retry: RetryPolicy | None = None,
        clock: Clock = system_clock,
    ) -> None:
        self._database = database
        self._prompts = database["prompts"]
        self._restore = RestoreMark(database)
        self.lease_seconds = lease_seconds
        self._retry = retry or RetryPolicy()
        self._clock = clock
        self._pace_mean: float | None = None
        self._pace_claimed: list[int] = []
        self._pace_read = 0
        self.outbox = Outbox(self._prompts, lease_seconds=mail_lease_seconds, clock=clock)

    @classmethod
    def from_settings(cls, database: AsyncDatabase[Document], settings: Settings) -> Self:
        """The queue with the lease and the retries that the settings name."""
        return cls(
            database,
            lease_seconds=settings.lease_seconds,
            mail_lease_seconds=settings.mail_lease_seconds,
            retry=RetryPolicy(settings.max_attempts, first_pause=settings.retry_seconds),
        )

    async def create_indexes(self) -> None:
        """Create the indexes of every verb; nothing happens where they exist."""
        await self._prompts.create_index([("due", 1), ("number", 1)], name="due")
        await self._prompts.create_index([("user_id", 1), ("number", 1)], name="mine")
        await self._prompts.create_index([("user_id", 1), ("due", 1)], name="waiting")
        await self._prompts.create_index([("user_id", 1), ("date_ms", 1)], name="asked")
        await self._prompts.create_index([("number", 1)], name="recent")
        await self._prompts.create_index([("dedupe", 1)], name="dedupe", unique=True)
        # For the figures of core.statistics.
        for field in ("answered_ms", "error", "rating", "status"):
            await self._prompts.create_index([(field, 1)], name=field)
        await self.outbox.create_indexes()

    # A student's verbs.

    async def enqueue(
        self,
        *,
        input: str,
        email: str,
        user_id: int,
        idempotency_key: str | None = None,
        most_waiting: int | None = None,
        most_hourly: int | None = None,
        most_mailed: int | None = None,
        thread: Thread | None = None,
        follows: Question | None = None,
    ) -> Enqueued:
        """Store a question at the end of the queue.

        Where there is a limit, the student's questions are stored one after the other, whichever
        process they come to, or simultaneous ones would not count each other.

        Args:
            input: the question's text.
            email: where its answer will be sent.
            user_id: the student it belongs to.
            idempotency_key: the same key of the same student again is the same question.
            most_waiting: how many unanswered questions the student may have.
            most_hourly: how many questions the student may ask in an hour.
            most_mailed: how many questions by e-mail the student may ask in 24 hours.
            thread: the e-mail that it came by.
            follows: the answered question of the same student that it refers to; a copy of that
                exchange is kept with it.

        Raises:
            IdempotencyConflictError: the key was used for another text.
            TooManyWaitingError: the student has ``most_waiting`` already.
            TooManyHourlyError: the student has asked ``most_hourly`` already.
            TooManyMailedError: the student has asked ``most_mailed`` already.
        """
        await self._restore.stand_aside()
        dedupe = f"user:{user_id}:{idempotency_key}" if idempotency_key else str(uuid.uuid4())
        if idempotency_key and (known := await self._known(dedupe, input)):
            return known
        asked: Document = {
            "input": input,
            "email": email,
            "user_id": user_id,
            "dedupe": dedupe,
            "thread": asdict(thread) if thread else None,
        }
        if follows is not None and follows.answer is not None:
            asked["follows"] = follows.id
            asked["earlier"] = asdict(Exchange(follows.input, follows.answer.text))
        if most_waiting is most_hourly is most_mailed is None:
            return await self._store(asked)
        is_new = idempotency_key is None
        if is_new and most_waiting is not None and await self.waiting(user_id) >= most_waiting:
            raise TooManyWaitingError  # Without a turn: who asks too much costs no write.
        async with turn(self._database, f"user:{user_id}", self._clock):
            # The same request twice: the first one was stored while this one waited.
            if idempotency_key and (known := await self._known(dedupe, input)):
                return known
            if most_waiting is not None and await self.waiting(user_id) >= most_waiting:
                raise TooManyWaitingError
            if most_hourly is not None:
                await self._check_hour(user_id, most_hourly)
            if most_mailed is not None and await self._mailed(user_id) >= most_mailed:
                raise TooManyMailedError
            return await self._store(asked)

    async def _store(self, asked: Document) -> Enqueued:
        number = await next_number(self._database, "prompts")
        # Once more: a restore may have begun while this waited for its turn.
        await self._restore.stand_aside()
        now = self._clock()
        document: Document = {
            **asked,
            "_id": number,
            "number": number,
            "date": now,
            # The same moment as a number: pipelines of nx-27017 cannot compare dates.
            "date_ms": milliseconds(now),
            "output": None,
            "status": None,
            "due": milliseconds(now),
            "held": False,
            "claims": 0,
            "attempts": 0,
            "abandoned": 0,
            "language": None,
            "error": None,
            **Outbox.empty_fields(),
        }
        try:
            await self._prompts.insert_one(document)
        except DuplicateKeyError:
            # Two requests with one key at the same time: the other one was stored.
            if known := await self._known(asked["dedupe"], asked["input"]):
                return known
            raise
        return Enqueued(self._question(document), created=True)

    async def _known(self, dedupe: str, input: str) -> Enqueued | None:
        document = await self._prompts.find_one({"dedupe": dedupe})
        if document is None:
            return None
        if document["input"] != input:
            raise IdempotencyConflictError
        return Enqueued(self._question(document), created=False)

    async def mine(
        self, user_id: int, *, limit: int = 50, before: int | None = None
    ) -> list[Question]:
        """The student's questions, newest first; ``before`` is the last number already seen."""
        query: Document = {"user_id": {"$eq": user_id}}
        if before is not None:
            query["number"] = {"$lt": before}
        cursor = self._prompts.find(query).sort([("number", -1)]).limit(limit)
        return [self._question(document) async for document in cursor]

    async def one(self, number: int, user_id: int | None = None) -> Question | None:
        """Question ``number``; with ``user_id``, only if it is that student's."""
        query: Document = {"_id": number}
        if user_id is not None:
            query["user_id"] = user_id
        document = await self._prompts.find_one(query)
        return self._question(document) if document else None

    async def rate(self, number: int, rating: Rating) -> bool:
        """Keep what the student says of the answer; the last word counts. False: no answer yet."""
        result = await self._prompts.update_one(
            {"_id": number, "due": NEVER},
            {"$set": {"rating": str(rating), "rated_ms": milliseconds(self._clock())}},
        )
        return result.matched_count == 1

    async def waiting(self, user_id: int) -> int:
        """How many of the student's questions have no answer yet."""
        return await self._count({"user_id": {"$eq": user_id}, "due": {"$lt": NEVER}})

    async def oldest_waiting(self, user_id: int) -> Question | None:
        """The student's question that is answered next; None where none waits."""
        document = await self._prompts.find_one(
            {"user_id": {"$eq": user_id}, "due": {"$lt": NEVER}}, sort=[("number", 1)]
        )
        return self._question(document) if document else None

    async def _check_hour(self, user_id: int, most: int) -> None:
        since = self._clock() - timedelta(hours=1)
        query = {"user_id": {"$eq": user_id}, "date_ms": {"$gt": milliseconds(since)}}
        if await self._count(query) < most:
            return
        cursor = self._prompts.find(query, {"date": 1}).sort([("number", -1)]).limit(most)
        dates = [as_datetime(document["date"]) async for document in cursor]
        raise TooManyHourlyError(min(dates) + timedelta(hours=1))

    async def _mailed(self, user_id: int) -> int:
        since = milliseconds(self._clock() - timedelta(days=1))
        return await self._count(
            {
                "user_id": {"$eq": user_id},
                "date_ms": {"$gt": since},
                # Only where there was an e-mail is it a text.
                "thread.message_id": {"$gte": ""},
            }
        )

    async def place(self, question: Question) -> int:
        """Its place among the unanswered questions, 1 for the oldest; 0 when it is answered."""
        if question.answer is not None:
            return 0
        moment = milliseconds(question.date)
        # Due before that moment was only what was asked before it: no document need be read.
        older = await self._count({"due": {"$lt": moment}})
        others = self._prompts.find(
            {"due": {"$gte": moment, "$lt": NEVER}, "date_ms": {"$lte": moment}},
            {"date_ms": 1, "number": 1},
        )
        async for other in others:
            older += (other["date_ms"], other["number"]) < (moment, question.id)
        return older + 1

    async def pace(self, *, max_age: float = 0.0) -> Pace:
        """The mean time of the most recent answers, and the questions that are worked on.

        What was read ``max_age`` seconds ago is good enough.
        """
        now = milliseconds(self._clock())
        # Known, and read a while ago; not later than now, as before the clock was put back.
        is_fresh = 0 <= now - self._pace_read < 1000 * max_age
        if self._pace_mean is None or not is_fresh:
            answers = self._prompts.find({"due": NEVER}, {"work_ms": 1}).sort([("number", -1)])
            answers = answers.limit(PACE_SAMPLE)
            times = [answer["work_ms"] async for answer in answers if answer.get("work_ms")]
            held = self._prompts.find(
                {"due": {"$gt": now, "$lt": NEVER}, "held": {"$eq": True}}, {"claimed_ms": 1}
            )
            self._pace_claimed = [question["claimed_ms"] async for question in held]
            self._pace_mean = statistics.fmean(times) / 1000 if times else None
            self._pace_read = now
        worked = tuple(max(0, now - claimed) / 1000 for claimed in self._pace_claimed)
        return Pace(self._pace_mean, max(1, len(worked)), worked)

    # A worker's verbs.

    async def claim(self, worker: str | None = None) -> Question | None:
        """Take the oldest unanswered question that is due, for one lease; None when there is none.

        The question's ``claims`` is the fencing token for the verbs below.
        """
        await self._restore.stand_aside()
        now = self._clock()
        document = await self._prompts.find_one_and_update(
            {"output": None, "due": {"$lte": milliseconds(now)}},
            {
                "$set": {
                    "due": milliseconds(now + timedelta(seconds=self.lease_seconds)),
                    "held": True,
                    "claimed_ms": milliseconds(now),
                    "worker": worker or socket.gethostname(),
                },
                "$inc": {"claims": 1, "abandoned": 1},
            },
            sort=[("date", 1), ("number", 1)],
            return_document=ReturnDocument.AFTER,
        )
        if document is not None and document["abandoned"] > 1:
            metrics.count_fault(metrics.Fault.LEASE_LOST)
        return self._question(document) if document else None

    def is_poisonous(self, question: Question) -> bool:
        """Whether its claims keep ending without a word: it probably kills its workers."""
        return question.abandoned > self._retry.max_abandoned

    async def renew(self, number: int, claims: int) -> bool:
        """Extend the claim by one lease from now."""
        lease_end = milliseconds(self._clock() + timedelta(seconds=self.lease_seconds))
        return await self._update_held(number, claims, {"$set": {"due": lease_end}})

    async def complete(self, number: int, claims: int, answer: Answer) -> bool:
        """Store the answer and hand it to the outbox."""
        document = await self._prompts.find_one(self._held(number, claims), _TIMES)
        if document is None:
            return False
        now = self._clock()
        stored = await self._update_held(
            number,
            claims,
            {
                "$set": {
                    **self._answer_fields(answer, now),
                    "work_ms": max(1, milliseconds(now) - document["claimed_ms"]),
                }
            },
        )
        if stored:
            _count_answer(answer, document, now)
        return stored

    async def give_back(
        self, number: int, claims: int, *, after: float = 0.0, error: str | None = None
    ) -> bool:
        """Let it wait again, ``after`` seconds; no attempt is used up."""
        due = milliseconds(self._clock() + timedelta(seconds=after))
        return await self._update_held(
            number,
            claims,
            {"$set": {"due": due, "held": False, "abandoned": 0, "error": error}},
        )

    async def fail(self, number: int, claims: int, *, error: str, apology: Answer) -> bool:
        """Use up an attempt: it waits for a growing pause, or is answered with ``apology``."""
        document = await self._prompts.find_one(
            self._held(number, claims), {"attempts": 1, "abandoned": 1, **_TIMES}
        )
        if document is None:
            return False
        now = self._clock()
        attempts = document["attempts"] + 1
        change: Document = {"attempts": attempts, "held": False, "abandoned": 0, "error": error}
        poisonous = document["abandoned"] > self._retry.max_abandoned
        is_last = attempts >= self._retry.max_attempts or poisonous
        answer = replace(apology, outcome=Outcome.FAILED)
        if is_last:
            change |= self._answer_fields(answer, now)
        else:
            change["due"] = milliseconds(now + timedelta(seconds=self._retry.pause(attempts)))
        held = await self._update_held(number, claims, {"$set": change})
        if held:
            metrics.count_fault(metrics.Fault.ATTEMPT_FAILED)
            if is_last:
                _count_answer(answer, document, now)
        return held

    # The mailer's verbs: the outbox knows how, the question says what.

    async def claim_answered(self) -> Question | None:
        """Take the answer that has waited longest for its e-mail, and mark it in doubt."""
        await self._restore.stand_aside()
        document = await self.outbox.claim()
        return self._question(document) if document else None

    async def mark_sent(self, number: int, mail_claims: int) -> bool:
        """The receiving server accepted the e-mail."""
        return await self.outbox.mark_sent(number, mail_claims)

    async def mark_undeliverable(self, number: int, mail_claims: int, reason: str) -> bool:
        """The e-mail was refused for good."""
        return await self.outbox.mark_undeliverable(number, mail_claims, reason)

    async def mark_bounced(self, number: int, reason: str) -> bool:
        """The e-mail was accepted and came back; False if none is under way."""
        return await self.outbox.mark_bounced(number, reason)

    async def requeue_mail(self, number: int) -> bool:
        """Send an undeliverable answer again (staff)."""
        return await self.outbox.requeue(number)

    # Staff's verbs; core.statistics has the figures.

    async def check(self) -> None:
        """Store a document and delete it again, as the queue does its questions."""
        await self._restore.refuse()
        number = await next_number(self._database, "checks")
        await self._database["checks"].insert_one({"_id": number, "number": number})
        await self._database["checks"].delete_one({"_id": number})

    async def all(self) -> AsyncIterator[Question]:
        """Every question, oldest first."""
        async for document in self._prompts.find({}).sort([("number", 1)]):
            yield self._question(document)

    def _question(self, document: Mapping[str, Any]) -> Question:
        return Question.from_document(document, self._clock())

    def _held(self, number: int, claims: int) -> Document:
        return {"_id": number, "claims": claims, "output": None, "held": True}

    async def _update_held(self, number: int, claims: int, update: Document) -> bool:
        result = await self._prompts.update_one(self._held(number, claims), update)
        return result.matched_count == 1

    def _answer_fields(self, answer: Answer, now: datetime) -> Document:
        return {
            "output": answer.text,
            "outcome": str(answer.outcome),
            "sources": [asdict(source) for source in answer.sources],
            "language": answer.language,
            "model": answer.model,
            "uncertain": answer.uncertain,
            "prompt_tokens": answer.prompt_tokens,
            "answer_tokens": answer.answer_tokens,
            "truncated": answer.truncated,
            "date_out": now,
            "answered_ms": milliseconds(now),
            "due": NEVER,
            "held": False,
            "abandoned": 0,
            "mail_due": milliseconds(now),
        }

    async def _count(self, query: Document) -> int:
        return await count(self._prompts, query)
