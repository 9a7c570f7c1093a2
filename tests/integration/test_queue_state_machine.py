"""The queue as a state machine: whatever is done to it, in whatever order, its promises hold.

Hypothesis chooses the verbs, the tokens (old ones too) and the time that passes; beside the real
queue goes a model of it in plain Python, and the two are compared after every step.
"""

import asyncio
import statistics
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from pymongo import AsyncMongoClient

from core.metrics import Stage
from core.mongo import connect
from core.outbox import MAIL_LEASE_SECONDS
from core.questions import (
    Answer,
    IdempotencyConflictError,
    Outcome,
    Question,
    QuestionQueue,
    QuestionState,
    RetryPolicy,
)
from core.settings import Settings
from core.statistics import Statistics

LEASE = 60.0
RETRY = RetryPolicy(max_attempts=3, max_abandoned=1, first_pause=30)
APOLOGY = Answer(text="Lo sentimos.", language="es", outcome=Outcome.FAILED)
USERS = (1, 2)
KEYS = (None, None, "k1", "k2")
START = datetime(2026, 11, 21, 12, tzinfo=UTC)
T = TypeVar("T")
Client = AsyncMongoClient[dict[str, Any]]

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
pauses = st.sampled_from([0.0, 1.0, 30.0, 59.999, 60.0, 600.0])


@dataclass
class Expected:
    """What the model knows of one question. Moments are None where there is nothing to wait for."""

    number: int
    input: str
    user: int
    key: str | None
    date: datetime
    due: datetime | None
    claims: int = 0
    holder: int | None = None
    """The token of the claim that may still write; its lease may have run out."""
    claimed: datetime | None = None
    unexplained: int = 0
    """Claims in a row that ended without a word."""
    attempts: int = 0
    answer: str | None = None
    outcome: Outcome | None = None
    worked: timedelta | None = None
    mail_due: datetime | None = None
    mail_claims: int = 0
    mail_attempts: int = 0
    mail_status: QuestionState | None = None

    def state(self, now: datetime) -> QuestionState:
        if self.answer is not None:
            return self.mail_status or QuestionState.ANSWERED
        if self.holder is not None and self.due is not None and self.due > now:
            return QuestionState.ANSWERING
        return QuestionState.WAITING

    def answered(self, answer: Answer, now: datetime) -> None:
        assert self.answer is None, "a second answer"
        self.answer, self.outcome = answer.text, answer.outcome
        self.due, self.holder, self.unexplained = None, None, 0
        self.mail_due = now


@dataclass(frozen=True)
class Token:
    """A question's number, and what the claim on it or on its e-mail was handed."""

    number: int
    claims: int


class QueueMachine(RuleBasedStateMachine):
    """Every verb of the queue, in any order."""

    claims: Bundle[Token] = Bundle("claims")
    mails: Bundle[Token] = Bundle("mails")

    def __init__(self, runner: asyncio.Runner, client: Client) -> None:
        super().__init__()
        self.runner, self.client = runner, client
        self.name = f"machine_{uuid.uuid4().hex[:12]}"
        self.now = START
        self.queue = QuestionQueue(
            client[self.name], lease_seconds=LEASE, retry=RETRY, clock=lambda: self.now
        )
        self.figures = Statistics(client[self.name], clock=lambda: self.now)
        self.expected: dict[int, Expected] = {}
        self.do(self.queue.create_indexes())

    def do(self, verb: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(verb)

    def after(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)

    # A student.

    @rule(
        text=texts,
        user=st.sampled_from(USERS),
        key=st.sampled_from(KEYS),
        # The clocks of two machines never agree.
        clock_error=st.sampled_from([0, 0, 0, -3, 2]),
    )
    def enqueue(self, text: str, user: int, key: str | None, clock_error: int) -> None:
        known = [
            row for row in self.expected.values() if key and (row.user, row.key) == (user, key)
        ]
        true_time, self.now = self.now, self.after(clock_error)
        ask = self.queue.enqueue(
            input=text, email=f"u{user}@uni.test", user_id=user, idempotency_key=key
        )
        if known and known[0].input != text:
            with pytest.raises(IdempotencyConflictError):
                self.do(ask)
        else:
            enqueued = self.do(ask)
            number = enqueued.question.id
            assert enqueued.created is not bool(known)
            if known:
                assert number == known[0].number
            else:
                assert number > max(self.expected, default=0)
                self.expected[number] = Expected(number, text, user, key, self.now, self.now)
        self.now = true_time

    # Workers: each keeps its tokens for ever and may come back with any of them.

    @rule(target=claims)
    def claim(self) -> Any:
        question = self.do(self.queue.claim("worker"))
        due = [row for row in self.expected.values() if row.due and row.due <= self.now]
        if not due:
            assert question is None
            return multiple()
        row = min(due, key=lambda row: (row.date, row.number))
        assert question is not None
        assert question.id == row.number, "not the oldest"
        assert question.claims == row.claims + 1, "the token did not grow"
        row.claims = row.holder = question.claims
        row.claimed, row.due = self.now, self.after(LEASE)
        row.unexplained += 1
        assert self.queue.is_poisonous(question) is (row.unexplained > RETRY.max_abandoned)
        return Token(question.id, question.claims)

    def held(self, token: Token) -> Expected | None:
        row = self.expected[token.number]
        return row if row.holder == token.claims else None

    @rule(token=claims)
    def renew(self, token: Token) -> None:
        row = self.held(token)
        assert self.do(self.queue.renew(token.number, token.claims)) is (row is not None)
        if row:
            row.due = self.after(LEASE)

    @rule(token=claims, text=texts)
    def complete(self, token: Token, text: str) -> None:
        row = self.held(token)
        answer = Answer(text=text, language="en", outcome=Outcome.ANSWERED)
        stored = self.do(self.queue.complete(token.number, token.claims, answer))
        assert stored is (row is not None)
        if row and row.claimed:
            row.worked = max(self.now - row.claimed, timedelta(milliseconds=1))
            row.answered(answer, self.now)

    @rule(token=claims, after=pauses)
    def give_back(self, token: Token, after: float) -> None:
        row = self.held(token)
        back = self.do(self.queue.give_back(token.number, token.claims, after=after, error="away"))
        assert back is (row is not None)
        if row:
            row.due, row.holder, row.unexplained = self.after(after), None, 0

    @rule(token=claims)
    def fail(self, token: Token) -> None:
        row = self.held(token)
        failed = self.do(
            self.queue.fail(token.number, token.claims, error="broken", apology=APOLOGY)
        )
        assert failed is (row is not None)
        if row:
            row.attempts += 1
            poisonous = row.unexplained > RETRY.max_abandoned
            row.unexplained = 0
            if row.attempts == RETRY.max_attempts or poisonous:
                row.answered(APOLOGY, self.now)
            else:
                row.due, row.holder = self.after(RETRY.pause(row.attempts)), None

    @rule(target=claims, text=texts)
    def answer_oldest(self, text: str) -> Any:
        """What workers do most of the time; so that mailers have something to do."""
        token = self.claim()
        if isinstance(token, Token):
            self.complete(token, text)
        return token

    @rule(target=claims)
    def fail_oldest(self) -> Any:
        token = self.claim()
        if isinstance(token, Token):
            self.fail(token)
        return token

    @rule(target=claims)
    def come_back_too_late(self) -> Any:
        """A worker that was paused finds its claim taken by another."""
        late = self.claim()
        self.lose_everybody()
        current = self.claim()
        if isinstance(late, Token):
            self.renew(late)
            self.give_back(late, 0)
            self.fail(late)
            self.complete(late, "too late")
        return current

    # Mailers, likewise.

    @rule(target=mails)
    def claim_answered(self) -> Any:
        question = self.do(self.queue.claim_answered())
        due = [row for row in self.expected.values() if row.mail_due and row.mail_due <= self.now]
        if not due:
            assert question is None
            return multiple()
        row = min(due, key=lambda row: (row.mail_due, row.number))
        assert question is not None
        assert question.id == row.number, "not the answer that has waited longest"
        assert question.mail_claims == row.mail_claims + 1, "the token did not grow"
        assert question.answer is not None
        assert question.answer.text == row.answer
        row.mail_claims, row.mail_due = question.mail_claims, self.after(MAIL_LEASE_SECONDS)
        return Token(question.id, question.mail_claims)

    def sending(self, token: Token) -> Expected | None:
        row = self.expected[token.number]
        return row if row.mail_claims == token.claims and row.mail_due else None

    @rule(token=mails)
    def renew_mail(self, token: Token) -> None:
        row = self.sending(token)
        renewed = self.do(self.queue.outbox.renew(token.number, token.claims))
        assert renewed is (row is not None)
        if row:
            row.mail_due = self.after(MAIL_LEASE_SECONDS)

    @rule(token=mails)
    def mark_sent(self, token: Token) -> None:
        row = self.sending(token)
        assert self.do(self.queue.mark_sent(token.number, token.claims)) is (row is not None)
        if row:
            row.mail_due, row.mail_status = None, QuestionState.SENT

    @rule(token=mails, after=pauses, counts=st.booleans())
    def retry_mail(self, token: Token, after: float, counts: bool) -> None:
        row = self.sending(token)
        retry = self.queue.outbox.retry(
            token.number, token.claims, after=after, error="450", counts=counts
        )
        assert self.do(retry) is (row is not None)
        if row:
            row.mail_due = self.after(after)
            row.mail_attempts += counts

    @rule(token=mails)
    def mark_undeliverable(self, token: Token) -> None:
        row = self.sending(token)
        marked = self.do(self.queue.mark_undeliverable(token.number, token.claims, "550"))
        assert marked is (row is not None)
        if row:
            row.mail_due, row.mail_status = None, QuestionState.UNDELIVERABLE

    @rule(target=mails)
    def refuse_oldest(self) -> Any:
        """At first for a while, then for good."""
        token = self.claim_answered()
        if isinstance(token, Token):
            self.retry_mail(token, 0, counts=True)
            self.mark_undeliverable(token)
        return token

    @rule(target=mails)
    def mail_too_late(self) -> Any:
        late = self.claim_answered()
        self.lose_everybody()
        current = self.claim_answered()
        if isinstance(late, Token):
            self.renew_mail(late)
            self.retry_mail(late, 0, counts=True)
            self.mark_undeliverable(late)
            self.mark_sent(late)
        return current

    @rule(token=mails)
    def requeue(self, token: Token) -> None:
        row = self.expected[token.number]
        refused = row.mail_status is QuestionState.UNDELIVERABLE
        assert self.do(self.queue.requeue_mail(token.number)) is refused
        if refused:
            row.mail_due, row.mail_status, row.mail_attempts = self.now, None, 0

    # Time.

    @rule(seconds=pauses)
    def pass_time(self, seconds: float) -> None:
        self.now = self.after(seconds)

    @rule()
    def lose_everybody(self) -> None:
        """Every worker and mailer dies, or is as slow as if it had."""
        self.now = self.after(max(LEASE, MAIL_LEASE_SECONDS))

    # What must hold after every step.

    @invariant()
    def every_question_is_as_expected(self) -> None:
        stored = self.do(self._all())
        assert [question.id for question in stored] == sorted(self.expected), "one was lost"
        for question in stored:
            row = self.expected[question.id]
            assert question.input == row.input
            assert question.date == row.date
            assert question.email == f"u{row.user}@uni.test"
            assert question.state is row.state(self.now)
            assert (question.answer and question.answer.text) == row.answer, "the answer changed"
            assert (question.answer and question.answer.outcome) == row.outcome
            assert (question.claims, question.mail_claims) == (row.claims, row.mail_claims)
            assert (question.attempts, question.abandoned) == (row.attempts, row.unexplained)
            assert question.mail_attempts == row.mail_attempts
            has_mail = row.mail_due is not None or row.mail_status is not None
            assert has_mail is (row.answer is not None), "an answer that nobody will mail"

    async def _all(self) -> list[Question]:
        return [question async for question in self.queue.all()]

    @rule()
    def status_agrees(self) -> None:
        figures = self.do(self.figures.figures())
        pace = self.do(self.queue.pace())
        rows = self.expected.values()
        states = [row.state(self.now) for row in rows]
        assert figures.counts.by_state == {state: states.count(state) for state in QuestionState}
        assert figures.failed == sum(row.outcome is Outcome.FAILED for row in rows)
        unanswered = [row.date for row in rows if row.answer is None]
        assert figures.counts.oldest_waiting == min(unanswered, default=None)
        worked = [row.worked.total_seconds() for row in rows if row.worked]
        assert pace.seconds_per_answer == (
            pytest.approx(statistics.fmean(worked)) if worked else None
        )
        assert pace.workers == max(1, states.count(QuestionState.ANSWERING))
        answering = figures.stages[Stage.ANSWERING]
        assert (answering.count if answering else 0) == sum(row.answer is not None for row in rows)
        for user in USERS:
            waiting = sum(row.user == user and row.answer is None for row in rows)
            assert self.do(self.queue.waiting(user)) == waiting

    @rule()
    def places_agree(self) -> None:
        rows = sorted(self.expected.values(), key=lambda row: (row.date, row.number))
        unanswered = [row.number for row in rows if row.answer is None]
        for question in self.do(self._all()):
            place = unanswered.index(question.id) + 1 if question.id in unanswered else 0
            assert self.do(self.queue.place(question)) == place

    def teardown(self) -> None:
        """Whatever has happened: workers and mailers that do their work bring it all to an end."""
        self.status_agrees()
        self.places_agree()
        self.now = self.after(10_000)
        while isinstance(self.answer_oldest("the end"), Token):
            pass
        self.now = self.after(10_000)
        while isinstance(token := self.claim_answered(), Token):
            self.mark_sent(token)
        self.every_question_is_as_expected()
        final = {QuestionState.SENT, QuestionState.UNDELIVERABLE}
        assert all(row.state(self.now) in final for row in self.expected.values())
        self.status_agrees()
        self.do(self.client.drop_database(self.name))


@pytest.mark.parametrize(
    ("server", "examples"), [("nx_url", 100), ("secantusdb_url", 15), ("ferretdb_url", 15)]
)
def test_the_queue_keeps_its_promises_in_any_order_of_events(
    request: pytest.FixtureRequest, server: str, examples: int
) -> None:
    url = request.getfixturevalue(server)
    with asyncio.Runner() as runner:

        async def open_client() -> Client:
            return connect(Settings(mongo_url=url))

        client = runner.run(open_client())

        class Machine(QueueMachine):
            def __init__(self) -> None:
                super().__init__(runner, client)

        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=50,
                    deadline=None,
                    suppress_health_check=[HealthCheck.too_slow],
                ),
            )
        finally:
            runner.run(client.close())
