"""The contract of every queue verb, the same on every server that speaks MongoDB's protocol."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from core.clock import milliseconds, system_clock
from core.mails import AccountMails, MailKind
from core.metrics import Fault, Stage
from core.mongo import connect
from core.outbox import MAIL_LEASE_SECONDS
from core.processes import Disk, Processes, Sign
from core.questions import (
    Answer,
    Exchange,
    IdempotencyConflictError,
    Outcome,
    Pace,
    Question,
    QuestionQueue,
    QuestionState,
    Rating,
    RetryPolicy,
    Source,
    Thread,
    TooManyHourlyError,
    TooManyMailedError,
    TooManyWaitingError,
)
from core.restoring import LOOK_SECONDS, RestoreMark, UnfinishedRestoreError
from core.sequence import next_number
from core.settings import Settings
from core.statistics import Spread, Statistics
from core.suppressions import Suppressions
from core.turns import LEASE_SECONDS, turn

LEASE = 60.0
ANSWER = Answer(
    text="El examen es el 3 de diciembre [1].\n\n¡Suerte! 🙂 $x.y",
    language="es",
    outcome=Outcome.ANSWERED,
    sources=(
        Source("programa.docx", "Examen: 3 de diciembre", heading="Evaluación › Fechas"),
        Source("apuntes.pdf", "V_D ≈ 0,7 V", page=4),
        Source("tema.pptx", "Ganancia", slide=2),
    ),
    model="mistral",
)
APOLOGY = Answer(text="Lo sentimos.", language="es", outcome=Outcome.FAILED)


@dataclass
class Hand:
    """A clock that tests move by hand."""

    now: datetime = field(default_factory=lambda: datetime(2026, 11, 21, 12, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture(params=["nx_url", "secantusdb_url", "ferretdb_url"])
async def store(
    request: pytest.FixtureRequest, database_name: str
) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    async with connect(Settings(mongo_url=request.getfixturevalue(request.param))) as client:
        yield client[database_name]
        await client.drop_database(database_name)


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
async def queue(store: AsyncDatabase[dict[str, Any]], clock: Hand) -> QuestionQueue:
    queue = QuestionQueue(
        store,
        lease_seconds=LEASE,
        retry=RetryPolicy(max_attempts=3, max_abandoned=4, first_pause=30),
        clock=clock,
    )
    await queue.create_indexes()
    return queue


@pytest.fixture
def figures(store: AsyncDatabase[dict[str, Any]], clock: Hand) -> Statistics:
    return Statistics(store, clock=clock)


async def ask(queue: QuestionQueue, text: str = "¿Cuándo es el examen?", user: int = 1) -> Question:
    enqueued = await queue.enqueue(input=text, email=f"u{user}@uni.test", user_id=user)
    return enqueued.question


async def claimed(queue: QuestionQueue) -> Question:
    question = await queue.claim("worker-1")
    assert question is not None
    return question


async def test_enqueued_question_waits_with_the_staffs_field_names(
    queue: QuestionQueue, store: AsyncDatabase[dict[str, Any]], clock: Hand
) -> None:
    question = await ask(queue)
    assert question.state is QuestionState.WAITING
    document = await store["prompts"].find_one({"_id": question.id})
    assert document is not None
    assert document["input"] == "¿Cuándo es el examen?"
    assert document["date"] == clock.now
    assert document["output"] is None
    assert document["email"] == "u1@uni.test"
    assert document["status"] is None


async def test_staff_find_the_queue_with_the_documented_query(
    queue: QuestionQueue, store: AsyncDatabase[dict[str, Any]], clock: Hand
) -> None:
    numbers = []
    for _ in range(12):
        numbers.append((await ask(queue)).id)
        clock.move(1)
    first = await claimed(queue)
    await queue.complete(first.id, first.claims, ANSWER)
    cursor = store["prompts"].find({"output": None}).sort([("date", 1)])
    assert [document["_id"] async for document in cursor] == numbers[1:]


async def test_numbers_count_up_and_no_two_are_equal_under_concurrency(
    queue: QuestionQueue,
) -> None:
    first = await asyncio.gather(*(ask(queue) for _ in range(20)))
    assert len({question.id for question in first}) == 20
    later = await ask(queue)
    assert later.id > max(question.id for question in first)


async def test_oldest_is_claimed_first_across_one_and_two_digit_numbers(
    queue: QuestionQueue, clock: Hand
) -> None:
    asked = [(await ask(queue)).id for _ in range(12)]
    clock.move(1)
    assert [(await claimed(queue)).id for _ in asked] == asked
    assert await queue.claim() is None


async def test_no_question_is_claimed_twice_by_simultaneous_workers(queue: QuestionQueue) -> None:
    asked = [(await ask(queue)).id for _ in range(30)]
    claims = await asyncio.gather(*(queue.claim(f"worker-{n}") for n in range(40)))
    taken = [claim.id for claim in claims if claim]
    assert sorted(taken) == asked


async def test_completed_answer_reads_back_with_its_sources(
    queue: QuestionQueue, clock: Hand
) -> None:
    await ask(queue)
    claim = await claimed(queue)
    clock.move(7)
    assert await queue.complete(claim.id, claim.claims, ANSWER)
    stored = await queue.one(claim.id)
    assert stored is not None
    assert stored.answer == ANSWER
    assert stored.state is QuestionState.ANSWERED
    assert stored.date_out == clock.now
    assert (await queue.pace()).seconds_per_answer == 7


async def test_second_answer_to_one_question_is_refused(queue: QuestionQueue) -> None:
    await ask(queue)
    claim = await claimed(queue)
    assert await queue.complete(claim.id, claim.claims, ANSWER)
    other = Answer(text="otra", language="es", outcome=Outcome.ANSWERED)
    assert not await queue.complete(claim.id, claim.claims, other)
    stored = await queue.one(claim.id)
    assert stored is not None
    assert stored.answer == ANSWER


async def test_expired_lease_is_claimed_again_and_the_late_answer_refused(
    queue: QuestionQueue, clock: Hand
) -> None:
    await ask(queue)
    slow = await claimed(queue)
    assert await queue.claim() is None
    clock.move(LEASE + 1)
    assert (await queue.one(slow.id)).state is QuestionState.WAITING  # type: ignore[union-attr]
    quick = await claimed(queue)
    assert quick.id == slow.id
    assert quick.claims == slow.claims + 1
    assert not await queue.complete(slow.id, slow.claims, ANSWER)
    assert not await queue.renew(slow.id, slow.claims)
    assert not await queue.give_back(slow.id, slow.claims)
    assert not await queue.fail(slow.id, slow.claims, error="x", apology=APOLOGY)
    assert await queue.complete(quick.id, quick.claims, ANSWER)


async def test_expired_but_unclaimed_lease_may_still_answer(
    queue: QuestionQueue, clock: Hand
) -> None:
    await ask(queue)
    claim = await claimed(queue)
    clock.move(LEASE + 1)
    assert await queue.complete(claim.id, claim.claims, ANSWER)


async def test_renewed_lease_holds(queue: QuestionQueue, clock: Hand) -> None:
    await ask(queue)
    claim = await claimed(queue)
    for _ in range(5):
        clock.move(LEASE - 1)
        assert await queue.renew(claim.id, claim.claims)
    assert await queue.claim() is None
    question = await queue.one(claim.id)
    assert question is not None
    assert question.state is QuestionState.ANSWERING


async def test_given_back_question_waits_and_uses_no_attempt(
    queue: QuestionQueue, clock: Hand
) -> None:
    await ask(queue)
    for _ in range(10):
        claim = await claimed(queue)
        assert await queue.give_back(claim.id, claim.claims, after=120, error="model away")
        clock.move(119)
        assert await queue.claim() is None
        clock.move(1)
    question = await queue.one(claim.id)
    assert question is not None
    assert question.attempts == 0
    assert question.error == "model away"
    assert not queue.is_poisonous(question)


async def test_given_back_question_goes_before_younger_ones(
    queue: QuestionQueue, clock: Hand
) -> None:
    oldest = await ask(queue)
    clock.move(1)
    await ask(queue)
    claim = await claimed(queue)
    await queue.give_back(claim.id, claim.claims)
    assert (await claimed(queue)).id == oldest.id


async def test_failed_attempts_pause_longer_each_time_and_end_in_an_apology(
    queue: QuestionQueue, clock: Hand, figures: Statistics
) -> None:
    await ask(queue)
    for expected_pause in (30, 60):
        claim = await claimed(queue)
        assert await queue.fail(claim.id, claim.claims, error="garbage", apology=APOLOGY)
        clock.move(expected_pause - 1)
        assert await queue.claim() is None
        clock.move(1)
    claim = await claimed(queue)
    assert await queue.fail(claim.id, claim.claims, error="garbage", apology=APOLOGY)
    question = await queue.one(claim.id)
    assert question is not None
    assert question.attempts == 3
    assert question.answer == APOLOGY
    mail = await queue.claim_answered()
    assert mail is not None
    assert mail.id == claim.id
    status = await figures.figures()
    assert status.failed == 1
    assert [error.error for error in status.last_errors] == ["garbage"]


async def test_question_that_kills_its_workers_gets_an_apology(
    queue: QuestionQueue, clock: Hand
) -> None:
    await ask(queue)
    for _ in range(4):
        assert not queue.is_poisonous(await claimed(queue))
        clock.move(LEASE)
    claim = await claimed(queue)
    assert queue.is_poisonous(claim)
    assert await queue.fail(claim.id, claim.claims, error="worker died", apology=APOLOGY)
    question = await queue.one(claim.id)
    assert question is not None
    assert question.answer == APOLOGY


async def test_same_idempotency_key_is_one_question_even_at_the_same_time(
    queue: QuestionQueue,
) -> None:
    async def once() -> tuple[int, bool]:
        enqueued = await queue.enqueue(
            input="¿Qué es un diodo?", email="a@uni.test", user_id=1, idempotency_key="k"
        )
        return enqueued.question.id, enqueued.created

    results = await asyncio.gather(*(once() for _ in range(10)))
    assert len({number for number, _ in results}) == 1
    assert sum(created for _, created in results) == 1


async def test_idempotency_key_belongs_to_one_student_and_one_text(queue: QuestionQueue) -> None:
    key = {"idempotency_key": "k"}
    first = await queue.enqueue(input="a", email="a@uni.test", user_id=1, **key)
    other = await queue.enqueue(input="b", email="b@uni.test", user_id=2, **key)
    assert first.question.id != other.question.id
    with pytest.raises(IdempotencyConflictError):
        await queue.enqueue(input="c", email="a@uni.test", user_id=1, **key)


async def test_student_with_too_many_waiting_is_refused_but_may_repeat_an_accepted_one(
    queue: QuestionQueue,
) -> None:
    async def once(text: str, user: int = 1) -> Question:
        enqueued = await queue.enqueue(
            input=text, email="a@uni.test", user_id=user, idempotency_key=text, most_waiting=2
        )
        return enqueued.question

    first, _ = await once("a"), await once("b")
    with pytest.raises(TooManyWaitingError):
        await once("c")
    assert (await once("a")).id == first.id
    await once("c", user=2)
    claim = await claimed(queue)
    await queue.complete(claim.id, claim.claims, ANSWER)
    await once("c")


async def test_student_asks_so_often_within_an_hour_and_no_more(
    queue: QuestionQueue, clock: Hand
) -> None:
    async def once(text: str, user: int = 1) -> None:
        await queue.enqueue(
            input=text, email="a@uni.test", user_id=user, idempotency_key=text, most_hourly=3
        )

    for text in "abc":
        await once(text)
        clock.move(600)
    with pytest.raises(TooManyHourlyError) as refused:
        await once("d")
    assert refused.value.until == clock.now + timedelta(seconds=1800)
    await once("a")
    await once("d", user=2)
    clock.move(1801)
    await once("e")
    with pytest.raises(TooManyHourlyError):
        await once("f")


async def test_simultaneous_questions_of_one_student_count_each_other(
    queue: QuestionQueue, store: AsyncDatabase[dict[str, Any]], clock: Hand
) -> None:
    other = QuestionQueue(store, clock=clock)

    async def once(number: int) -> bool:
        try:
            await (queue, other)[number % 2].enqueue(
                input=f"¿{number}?", email="a@uni.test", user_id=1, most_waiting=4
            )
        except TooManyWaitingError:
            return False
        return True

    stored = await asyncio.gather(*(once(number) for number in range(12)))
    assert stored.count(True) == 4
    assert await queue.waiting(1) == 4


async def test_turn_of_one_student_is_not_taken_for_that_of_another(
    store: AsyncDatabase[dict[str, Any]], clock: Hand
) -> None:
    async with turn(store, "user:1", clock):
        clock.move(-3600)
        async with turn(store, "user:2", clock):
            held = await store["turns"].find_one({"_id": "user:1"})
            assert held is not None
            assert held["until"] > milliseconds(clock.now) + 1800_000
            assert await store["turns"].find_one({"_id": "user:2"}) is not None


async def test_turn_taken_while_another_request_was_on_its_way_is_not_taken_again(
    store: AsyncDatabase[dict[str, Any]], clock: Hand
) -> None:
    entered = asyncio.Event()
    before = clock.now - timedelta(milliseconds=8)

    async def enter_late() -> None:
        async with turn(store, "user:1", lambda: before):
            entered.set()

    async with turn(store, "user:1", clock):
        late = asyncio.create_task(enter_late())
        await asyncio.sleep(0.3)
        assert not entered.is_set()
    await asyncio.wait_for(late, 5)


async def test_turn_that_came_too_late_is_taken_anew(
    store: AsyncDatabase[dict[str, Any]], clock: Hand
) -> None:
    async with turn(store, "user:1", clock):
        pass
    moments = iter([clock.now, clock.now + timedelta(seconds=2 * LEASE_SECONDS)])
    last = clock.now + timedelta(seconds=2 * LEASE_SECONDS)
    async with turn(store, "user:1", lambda: next(moments, last)):
        held = await store["turns"].find_one({"_id": "user:1"})
        assert held is not None
        assert held["until"] == milliseconds(last + timedelta(seconds=LEASE_SECONDS))


@pytest.mark.parametrize("slow", [1, 2], ids=["before", "while"])
async def test_first_turn_that_came_too_late_is_taken_anew(
    store: AsyncDatabase[dict[str, Any]], clock: Hand, slow: int
) -> None:
    """Its server is slow before, or while, it makes the turn's document."""
    last = clock.now + timedelta(seconds=2 * LEASE_SECONDS)
    moments = iter([clock.now] * slow)
    async with turn(store, "user:1", lambda: next(moments, last)):
        held = await store["turns"].find_one({"_id": "user:1"})
        assert held is not None
        assert held["until"] == milliseconds(last + timedelta(seconds=LEASE_SECONDS))


async def test_turn_that_is_deleted_is_the_next_ones(store: AsyncDatabase[dict[str, Any]]) -> None:
    """As when its student is forgotten while others wait in his name."""
    entered, is_waiting = asyncio.Event(), asyncio.Event()

    def clock() -> datetime:
        is_waiting.set()
        return system_clock()

    async def enter() -> None:
        async with turn(store, "user:1", clock):
            entered.set()

    async with turn(store, "user:1", system_clock):
        waiting = asyncio.create_task(enter())
        await is_waiting.wait()
        await asyncio.sleep(0.3)
        assert not entered.is_set()
        await store["turns"].delete_one({"_id": "user:1"})
        await asyncio.wait_for(waiting, 3)


async def test_many_at_once_have_their_turns_one_after_another(
    store: AsyncDatabase[dict[str, Any]],
) -> None:
    inside, most = 0, 0

    async def enter() -> None:
        nonlocal inside, most
        async with turn(store, "user:1", system_clock):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.005)
            inside -= 1

    for _ in range(3):
        await asyncio.gather(*(enter() for _ in range(20)))
    assert most == 1


async def test_a_process_that_died_holds_a_student_up_for_seconds(
    queue: QuestionQueue, store: AsyncDatabase[dict[str, Any]], clock: Hand
) -> None:
    async def ask_at_once(end: datetime) -> asyncio.Task[Any]:
        await store["turns"].update_one(
            {"_id": "user:1"}, {"$set": {"until": milliseconds(end), "holder": "dead"}}
        )
        return asyncio.create_task(
            queue.enqueue(input="¿?", email="a@uni.test", user_id=1, most_waiting=9)
        )

    await queue.enqueue(input="¿?", email="a@uni.test", user_id=1, most_waiting=9)
    asked = await ask_at_once(clock.now + timedelta(seconds=LEASE_SECONDS))
    await asyncio.sleep(0.2)
    assert not asked.done()
    clock.move(LEASE_SECONDS)
    await asyncio.wait_for(asked, 5)
    # Taken before the clock was put back.
    asked = await ask_at_once(clock.now + timedelta(hours=1))
    await asyncio.wait_for(asked, 5)


async def test_nothing_is_stored_by_who_waited_while_a_restore_began(
    queue: QuestionQueue,
    store: AsyncDatabase[dict[str, Any]],
    clock: Hand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mails, mark, is_waiting = AccountMails(store), RestoreMark(store), asyncio.Event()
    await mails.create_indexes()

    async def slow_number(*about: Any) -> int:
        is_waiting.set()
        await asyncio.sleep(1.5 * LOOK_SECONDS)
        return await next_number(*about)

    monkeypatch.setattr("core.mails.next_number", slow_number)
    async with turn(store, "user:1", clock):
        asked = asyncio.create_task(
            queue.enqueue(input="¿?", email="a@uni.test", user_id=1, most_waiting=9)
        )
        mailed = asyncio.create_task(
            mails.enqueue(MailKind.CONFIRMATION, email="a@uni.test", language="es", values={})
        )
        await is_waiting.wait()
        await asyncio.sleep(LOOK_SECONDS / 4)
        await mark.set()
        await asyncio.sleep(1.5 * LOOK_SECONDS)
    for adding in (asked, mailed):
        with pytest.raises(UnfinishedRestoreError):
            await adding
    assert await store["prompts"].find_one({}) is None
    assert await store["mails"].find_one({}) is None


async def test_place_counts_the_unanswered_questions_before_it(
    queue: QuestionQueue, clock: Hand
) -> None:
    asked = [await ask(queue) for _ in range(3)]
    clock.move(5)
    asked += [await ask(queue) for _ in range(9)]
    assert [await queue.place(question) for question in asked] == list(range(1, 13))
    claim = await claimed(queue)
    assert await queue.place(asked[1]) == 2
    await queue.complete(claim.id, claim.claims, ANSWER)
    assert [await queue.place(question) for question in asked[1:3]] == [1, 2]
    answered = await queue.one(claim.id)
    assert answered is not None
    assert await queue.place(answered) == 0


async def test_expected_time_follows_the_mean_of_recent_answers_and_the_work_already_done(
    queue: QuestionQueue, clock: Hand
) -> None:
    assert (await queue.pace()).expected_seconds(3) is None
    for seconds in (10, 20, 90):
        await ask(queue)
        claim = await claimed(queue)
        clock.move(seconds)
        await queue.renew(claim.id, claim.claims)
        await queue.complete(claim.id, claim.claims, ANSWER)
    assert (await queue.pace()).expected_seconds(3) == 120
    for _ in range(3):
        await ask(queue)
    await claimed(queue)
    assert (await queue.pace()).expected_seconds(3) == 120
    clock.move(30)
    assert (await queue.pace()).expected_seconds(3) == 90
    assert (await queue.pace()).expected_seconds(1) == 10
    # Two at once, of which one has just begun.
    await claimed(queue)
    assert (await queue.pace()).expected_seconds(3) == 45
    clock.move(25)
    assert (await queue.pace()).expected_seconds(1) == 7.5


def test_what_takes_longer_than_others_did_is_expected_soon() -> None:
    assert Pace(40.0, 1, (100.0,)).expected_seconds(1) == 4
    assert Pace(40.0, 1, (100.0,)).expected_seconds(2) == 40


async def test_mean_of_the_pace_may_be_as_old_as_is_allowed(
    queue: QuestionQueue, clock: Hand
) -> None:
    for seconds in (10, 30):
        await ask(queue)
        claim = await claimed(queue)
        clock.move(seconds)
        await queue.complete(claim.id, claim.claims, ANSWER)
        assert (await queue.pace(max_age=60)).seconds_per_answer == 10
    assert (await queue.pace()).seconds_per_answer == 20


async def test_students_see_only_their_own_questions_newest_first(
    queue: QuestionQueue, clock: Hand
) -> None:
    for index in range(24):
        await ask(queue, f"q{index}", user=index % 2)
        clock.move(1)
    page = await queue.mine(1, limit=5)
    assert [question.input for question in page] == ["q23", "q21", "q19", "q17", "q15"]
    following = await queue.mine(1, limit=2, before=page[-1].id)
    assert [question.input for question in following] == ["q13", "q11"]
    assert await queue.one(page[0].id, user_id=0) is None
    assert await queue.waiting(1) == 12


async def test_answers_are_mailed_once_and_in_the_order_they_were_written(
    queue: QuestionQueue, clock: Hand
) -> None:
    numbers = []
    for _ in range(3):
        numbers.append((await ask(queue)).id)
        claim = await claimed(queue)
        clock.move(1)
        await queue.complete(claim.id, claim.claims, ANSWER)
    mails = [await queue.claim_answered() for _ in numbers]
    assert [mail.id for mail in mails if mail] == numbers
    assert await queue.claim_answered() is None
    for mail in mails:
        assert mail is not None
        assert await queue.mark_sent(mail.id, mail.mail_claims)
        assert not await queue.mark_sent(mail.id, mail.mail_claims)
    clock.move(10 * MAIL_LEASE_SECONDS)
    assert await queue.claim_answered() is None
    question = await queue.one(numbers[0])
    assert question is not None
    assert question.state is QuestionState.SENT


async def test_mail_of_a_dead_mailer_is_claimed_again_and_the_first_claim_is_void(
    queue: QuestionQueue, clock: Hand
) -> None:
    await ask(queue)
    claim = await claimed(queue)
    await queue.complete(claim.id, claim.claims, ANSWER)
    dead = await queue.claim_answered()
    assert dead is not None
    clock.move(MAIL_LEASE_SECONDS - 1)
    assert await queue.outbox.renew(dead.id, dead.mail_claims)
    clock.move(MAIL_LEASE_SECONDS - 1)
    assert await queue.claim_answered() is None
    clock.move(1)
    alive = await queue.claim_answered()
    assert alive is not None
    assert not await queue.mark_sent(dead.id, dead.mail_claims)
    assert not await queue.mark_undeliverable(dead.id, dead.mail_claims, "no")
    assert await queue.outbox.retry(alive.id, alive.mail_claims, after=90, error="450 later")
    clock.move(89)
    assert await queue.claim_answered() is None
    clock.move(1)
    again = await queue.claim_answered()
    assert again is not None
    assert again.mail_attempts == 1
    assert again.error == "450 later"


async def test_undeliverable_answer_keeps_its_reason_and_can_be_requeued(
    queue: QuestionQueue, clock: Hand, figures: Statistics
) -> None:
    await ask(queue)
    claim = await claimed(queue)
    await queue.complete(claim.id, claim.claims, ANSWER)
    mail = await queue.claim_answered()
    assert mail is not None
    assert await queue.mark_undeliverable(mail.id, mail.mail_claims, "550 no such user")
    clock.move(10 * MAIL_LEASE_SECONDS)
    assert await queue.claim_answered() is None
    question = await queue.one(mail.id)
    assert question is not None
    assert question.state is QuestionState.UNDELIVERABLE
    assert question.error == "550 no such user"
    assert (await figures.counts()).by_state[QuestionState.UNDELIVERABLE] == 1
    assert await queue.requeue_mail(mail.id)
    assert not await queue.requeue_mail(mail.id)
    assert (await queue.claim_answered()) is not None


@pytest.mark.parametrize("is_recorded", [True, False])
async def test_answer_that_came_back_is_undeliverable_with_the_reason(
    queue: QuestionQueue, is_recorded: bool
) -> None:
    await ask(queue)
    claim = await claimed(queue)
    assert not await queue.mark_bounced(claim.id, "550")
    await queue.complete(claim.id, claim.claims, ANSWER)
    assert not await queue.mark_bounced(claim.id, "550")
    mail = await queue.claim_answered()
    assert mail is not None
    if is_recorded:
        assert await queue.mark_sent(mail.id, mail.mail_claims)
    # Else the report is faster than the mailer's own record.
    assert await queue.mark_bounced(mail.id, "Came back: 5.1.1 no such user")
    assert not await queue.mark_bounced(mail.id, "again")
    assert not await queue.mark_sent(mail.id, mail.mail_claims)
    question = await queue.one(mail.id)
    assert question is not None
    assert question.state is QuestionState.UNDELIVERABLE
    assert question.error == "Came back: 5.1.1 no such user"
    assert await queue.requeue_mail(mail.id)


async def test_mail_that_came_back_is_undeliverable_without_its_secrets(
    store: AsyncDatabase[dict[str, Any]],
) -> None:
    mails = AccountMails(store)
    await mails.create_indexes()
    number = await mails.enqueue(
        MailKind.ACKNOWLEDGEMENT, email="ana@uni.test", language="es", values={"number": "7"}
    )
    assert number is not None
    mail = await mails.claim()
    assert mail == await mails.one(number)
    assert mail is not None
    assert await mails.mark_bounced(number, "5.1.1")
    stored = await mails.one(number)
    assert stored is not None
    assert stored.values == {}
    assert await mails.one(number + 1) is None


async def test_questions_by_mail_are_limited_in_a_day(queue: QuestionQueue, clock: Hand) -> None:
    async def mailed(key: str, user: int = 1) -> Question:
        enqueued = await queue.enqueue(
            input=f"¿{key}?",
            email="ana@uni.test",
            user_id=user,
            idempotency_key=f"mail:{key}",
            most_mailed=2,
            thread=Thread("", "CONSULTA"),
        )
        return enqueued.question

    for _ in range(3):
        await ask(queue)  # Not by mail.
    await mailed("a")
    clock.move(3600)
    second = await mailed("b")
    with pytest.raises(TooManyMailedError):
        await mailed("c")
    assert (await mailed("b")).id == second.id
    await mailed("c", user=2)
    clock.move(23 * 3600 + 1)
    await mailed("c")


async def test_mails_of_a_kind_are_counted_by_address(
    store: AsyncDatabase[dict[str, Any]], clock: Hand
) -> None:
    mails = AccountMails(store, clock=clock)
    for _ in range(2):
        await mails.enqueue(MailKind.NOT_ACCEPTED, email="ana@uni.test", language="es", values={})
    day = timedelta(days=1)
    for times, expected in ((1, True), (2, True), (3, False)):
        found = await mails.was_written_within(
            "ana@uni.test", MailKind.NOT_ACCEPTED, day, times=times
        )
        assert found is expected
    clock.move(day.total_seconds())
    assert not await mails.was_written_within("ana@uni.test", MailKind.NOT_ACCEPTED, day)


async def test_status_counts_every_state(
    queue: QuestionQueue, clock: Hand, figures: Statistics
) -> None:
    for _ in range(5):
        await ask(queue)
        clock.move(1)
    for _ in range(2):
        claim = await claimed(queue)
        await queue.complete(claim.id, claim.claims, ANSWER)
    mail = await queue.claim_answered()
    assert mail is not None
    await queue.mark_sent(mail.id, mail.mail_claims)
    await claimed(queue)
    status = await figures.figures()
    assert status.counts.by_state == {
        QuestionState.WAITING: 2,
        QuestionState.ANSWERING: 1,
        QuestionState.ANSWERED: 1,
        QuestionState.SENT: 1,
        QuestionState.UNDELIVERABLE: 0,
    }
    assert status.counts.oldest_waiting == datetime(2026, 11, 21, 12, 0, 2, tzinfo=UTC)
    assert [question.id async for question in queue.all()] == [1, 2, 3, 4, 5]


async def test_account_mail_loses_its_secrets_once_sent(
    store: AsyncDatabase[dict[str, Any]], clock: Hand
) -> None:
    mails = AccountMails(store, clock=clock)
    await mails.create_indexes()
    secret = {"username": "ana", "password": "s3cr3t"}
    for _ in range(2):
        await mails.enqueue(
            MailKind.TEMPORARY_PASSWORD, email="a@uni.test", language="es", values=secret
        )
    first = await mails.claim()
    second = await mails.claim()
    assert first is not None
    assert second is not None
    assert first.values == secret
    assert await mails.mark_sent(first.id, first.mail_claims)
    assert await mails.mark_undeliverable(second.id, second.mail_claims, "550")
    async for document in store["mails"].find({}):
        assert "s3cr3t" not in str(document)


async def test_claims_use_the_index_where_the_server_explains(
    nx_url: str, database_name: str, clock: Hand
) -> None:
    async with connect(Settings(mongo_url=nx_url)) as client:
        queue = QuestionQueue(client[database_name], clock=clock)
        await queue.create_indexes()
        for _ in range(20):
            await ask(queue)
        plan = await client[database_name]["prompts"].find({"due": {"$lte": 1}}).explain()
        assert "USING INDEX" in str(plan["queryPlanner"]["winningPlan"])
        await client.drop_database(database_name)


async def test_waiting_questions_of_a_student_are_counted_without_reading_the_answered(
    queue: QuestionQueue, store: AsyncDatabase[dict[str, Any]]
) -> None:
    await queue.create_indexes()
    indexes = (await store["prompts"].index_information()).values()
    assert [("user_id", 1), ("due", 1)] in [index["key"] for index in indexes]


async def test_lost_counter_goes_on_after_the_highest_number(
    queue: QuestionQueue, store: AsyncDatabase[dict[str, Any]]
) -> None:
    for _ in range(11):
        await ask(queue)
    await store["counters"].delete_many({})
    assert (await ask(queue)).id == 12


THREAD = Thread("<a.1@uni.test>", "[CONSULTA] ¿Cuándo?", ("<0@uni.test>",))


async def test_question_that_came_by_mail_keeps_its_thread_and_what_it_follows_up(
    queue: QuestionQueue,
) -> None:
    await queue.enqueue(input="¿Cuándo?", email="ana@uni.test", user_id=1, thread=THREAD)
    first = await queue.claim()
    assert first is not None
    assert first.thread == THREAD
    assert first.earlier is None
    assert await queue.complete(first.id, first.claims, ANSWER)
    answered = await queue.one(first.id)
    await queue.enqueue(input="¿Y a qué hora?", email="ana@uni.test", user_id=1, follows=answered)
    second = await queue.claim()
    assert second is not None
    assert second.thread is None
    assert second.follows == first.id
    assert second.earlier == Exchange("¿Cuándo?", ANSWER.text)


async def test_rating_is_kept_with_an_answer_and_the_last_word_counts(
    queue: QuestionQueue,
) -> None:
    await queue.enqueue(input="¿Cuándo?", email="ana@uni.test", user_id=1)
    question = await queue.claim()
    assert question is not None
    assert not await queue.rate(question.id, Rating.HELPED)
    await queue.complete(question.id, question.claims, ANSWER)
    assert await queue.rate(question.id, Rating.HELPED)
    assert await queue.rate(question.id, Rating.ASK_STAFF)
    rated = await queue.one(question.id)
    assert rated is not None
    assert rated.rating is Rating.ASK_STAFF
    assert not await queue.rate(question.id + 1, Rating.HELPED)


async def test_mail_with_a_key_is_stored_once_even_at_the_same_time(
    store: AsyncDatabase[dict[str, Any]], clock: Hand
) -> None:
    mails = AccountMails(store, clock=clock)
    # As a version before there were keys left it.
    await store["mails"].insert_many([{"_id": -2, "number": -2}, {"_id": -1, "number": -1}])
    await mails.create_indexes()

    async def enqueue(key: str | None) -> int | None:
        return await mails.enqueue(
            MailKind.ACKNOWLEDGEMENT,
            email="ana@uni.test",
            language="es",
            values={"place": "1"},
            dedupe=key,
            thread=THREAD,
        )

    numbers = await asyncio.gather(*(enqueue("question 1") for _ in range(8)))
    assert len([number for number in numbers if number is not None]) == 1
    assert await enqueue("question 1") is None
    assert await enqueue(None) is not None
    assert await enqueue(None) is not None
    mail = await mails.claim()
    assert mail is not None
    assert mail.kind is MailKind.ACKNOWLEDGEMENT
    assert mail.thread == THREAD
    day = timedelta(days=1)
    assert await mails.was_written_within("ana@uni.test", MailKind.ACKNOWLEDGEMENT, day)
    assert not await mails.was_written_within("ana@uni.test", MailKind.NOT_ACCEPTED, day)
    assert not await mails.was_written_within("eva@uni.test", MailKind.ACKNOWLEDGEMENT, day)
    clock.move(day.total_seconds())
    assert not await mails.was_written_within("ana@uni.test", MailKind.ACKNOWLEDGEMENT, day)


async def test_suppressed_address_keeps_its_first_reason_until_it_is_confirmed_again(
    store: AsyncDatabase[dict[str, Any]], clock: Hand
) -> None:
    suppressions = Suppressions(store, clock=clock)
    assert await suppressions.add("Ana@uni.test", "5.1.1 unknown user")
    assert not await suppressions.add("ana@UNI.test", "5.2.2 mailbox full")
    assert await suppressions.reason("ana@uni.test") == "5.1.1 unknown user"
    assert await suppressions.reason("eva@uni.test") is None
    assert await suppressions.remove("ana@uni.test")
    assert not await suppressions.remove("ana@uni.test")
    assert await suppressions.reason("ana@uni.test") is None


async def test_times_tokens_and_mails_are_read_from_what_is_stored(
    queue: QuestionQueue, figures: Statistics, clock: Hand
) -> None:
    empty = await figures.figures()
    assert set(empty.stages.values()) == set(empty.tokens.values()) == {None}
    for seconds in (10, 20, 300):
        await ask(queue)
        clock.move(seconds)
        claim = await claimed(queue)
        clock.move(2 * seconds)
        counted = replace(ANSWER, prompt_tokens=900, answer_tokens=seconds, truncated=seconds == 10)
        await queue.complete(claim.id, claim.claims, counted)
    for _ in range(2):
        clock.move(5)
        mail = await queue.claim_answered()
        assert mail is not None
        if mail.id == 1:
            await queue.mark_sent(mail.id, mail.mail_claims)
        else:
            await queue.outbox.retry(mail.id, mail.mail_claims, after=60, error="450 later")
    await queue.requeue_mail(1)
    read = await figures.figures()
    assert read.stages[Stage.WAITING] == Spread(3, 20, 300)
    assert read.stages[Stage.ANSWERING] == Spread(3, 40, 600)
    assert read.stages[Stage.MAILING] == Spread(1, 965, 965)
    assert read.tokens["prompt"] == Spread(3, 900, 900)
    assert read.tokens["answer"] == Spread(3, 20, 300)
    assert read.truncated == 1
    answers = read.counts.answers
    assert (answers.sent, answers.unsent, answers.deferred, answers.undeliverable) == (1, 2, 1, 0)
    question = await queue.one(2)
    assert question is not None
    assert question.answer is not None
    assert answers.oldest_unsent == question.date_out
    assert await figures.unsent(clock.now) == [("question", 2), ("question", 3)]
    assert await figures.unsent(clock.now - timedelta(minutes=10)) == [("question", 2)]
    assert await figures.undeliverable(clock.now) == []


async def test_answers_refused_for_good_are_found_by_when_they_were(
    queue: QuestionQueue, figures: Statistics, clock: Hand
) -> None:
    moments = []
    for _ in range(2):
        await ask(queue)
        claim = await claimed(queue)
        await queue.complete(claim.id, claim.claims, ANSWER)
        mail = await queue.claim_answered()
        assert mail is not None
        await queue.mark_undeliverable(mail.id, mail.mail_claims, "550 no")
        moments.append(clock.now)
        clock.move(60)
    assert await figures.undeliverable(moments[0]) == [1, 2]
    assert await figures.undeliverable(moments[1]) == [2]
    assert [question.id for question in (await figures.figures()).last_errors] == [2, 1]
    clock.move(3600)
    assert await queue.requeue_mail(1)
    clock.move(60)
    assert await figures.unsent(clock.now - timedelta(seconds=61)) == []
    assert await figures.unsent(clock.now) == [("question", 1)]


async def test_e_mail_that_has_waited_long_is_found_behind_any_number_of_new_ones(
    queue: QuestionQueue,
    store: AsyncDatabase[dict[str, Any]],
    figures: Statistics,
    clock: Hand,
) -> None:
    mails = AccountMails(store, clock=clock)
    await mails.create_indexes()
    for kind in (MailKind.ALARM, MailKind.CONFIRMATION):
        await mails.enqueue(kind, email="a@uni.test", language="es", values={})
    for verb in (ask, claimed):
        await verb(queue)
    await queue.complete(1, 1, ANSWER)
    answer = await queue.claim_answered()
    assert answer
    # Tried long ago, and not again for long.
    assert await queue.outbox.retry(1, answer.mail_claims, after=86400, error="450 later")
    await mails.outbox.retry(2, 0, after=86400, error="450 later")
    clock.move(3600)
    of_before = await store["mails"].find_one({"_id": 2})
    assert of_before
    # As a version wrote it that did not store the milliseconds.
    first = {**of_before, "_id": 999, "number": 999, "dedupe": "first"}
    await store["mails"].insert_one({k: v for k, v in first.items() if k != "date_ms"})
    new = {**of_before, "date": clock.now, "date_ms": 10**15, "mail_due": 1}
    numbers = range(1000, 1250)
    await store["mails"].insert_many(
        [{**new, "_id": n, "number": n, "dedupe": str(n)} for n in numbers]
    )
    late = [("mail", 2), ("mail", 999), ("question", 1)]
    assert await figures.unsent(clock.now - timedelta(seconds=60)) == late


async def test_other_e_mails_refused_for_good_are_found_by_when_they_were(
    store: AsyncDatabase[dict[str, Any]], figures: Statistics, clock: Hand
) -> None:
    mails = AccountMails(store, clock=clock)
    await mails.create_indexes()
    for kind in (*MailKind, MailKind.CONFIRMATION):
        await mails.enqueue(kind, email="a@uni.test", language="es", values={})
        clock.move(1)
        mail = await mails.claim()
        assert mail
        assert await mails.mark_undeliverable(mail.id, mail.mail_claims, "550 no")
    kinds = list(MailKind)
    wanted = (MailKind.TEMPORARY_PASSWORD, MailKind.CONFIRMATION, MailKind.FOR_STAFF)
    numbers = [*sorted(kinds.index(kind) + 1 for kind in wanted), len(kinds) + 1]
    day_ago = clock.now - timedelta(days=1)
    assert await figures.undeliverable_mails(day_ago) == numbers
    assert await figures.undeliverable_mails(clock.now) == numbers[-1:]
    assert await figures.undeliverable(day_ago) == []


async def test_signs_of_life_are_one_for_each_process_and_faults_add_up(
    store: AsyncDatabase[dict[str, Any]], clock: Hand
) -> None:
    processes = Processes(store, clock=clock)

    def sign(name: str, **changes: Any) -> Sign:
        disks = (Disk("/", 5 * 2**40, 2**42),)
        return Sign("worker", name, clock.now, clock.now, "1", 10, disks, **changes)

    first = sign("lab:1")
    await processes.note(first)
    clock.move(30)
    await processes.note(sign("lab:2", mail_closed=clock.now))
    assert await processes.all() == [first, sign("lab:2", mail_closed=clock.now)]
    assert not first.is_silent(clock.now)
    clock.move(6)
    assert first.is_silent(clock.now)
    await processes.note(sign("lab:1"))
    assert next(iter(await processes.all())).seen == clock.now
    await processes.remove("worker", "lab:1")
    assert [one.name for one in await processes.all()] == ["lab:2"]
    clock.move(24 * 3600)
    await processes.remove_old("api")
    assert await processes.all() == []
    day = timedelta(days=1)
    for _ in range(2):
        await processes.add_faults("a", {Fault.LEASE_LOST: 2})
    await processes.add_faults("b", {Fault.LEASE_LOST: 1, Fault.QUEUE_AWAY: 7})
    clock.move(3600)
    await processes.add_faults("a", {Fault.LEASE_LOST: 1})
    sums = await processes.faults(day)
    assert (sums[Fault.LEASE_LOST], sums[Fault.QUEUE_AWAY], sums[Fault.MODEL_AWAY]) == (4, 7, 0)
    clock.move(23.5 * 3600)
    assert (await processes.faults(day))[Fault.LEASE_LOST] == 1


async def test_withdrawn_mail_is_not_sent_and_not_counted_as_sent(
    store: AsyncDatabase[dict[str, Any]], figures: Statistics, clock: Hand
) -> None:
    mails = AccountMails(store, clock=clock)
    await mails.create_indexes()
    await mails.enqueue(
        MailKind.ALARM, email="staff@uni.test", language="es", values={"troubles": "disk"}
    )
    mail = await mails.claim()
    assert mail is not None
    assert await mails.withdraw(mail.id, mail.mail_claims)
    clock.move(3600)
    assert await mails.claim() is None
    others = (await figures.counts()).other_mails
    assert (others.sent, others.unsent, others.undeliverable) == (0, 0, 0)
