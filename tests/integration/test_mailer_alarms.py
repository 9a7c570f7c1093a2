"""Alarms: told once, told what to do, not repeated within the hour, and not told when untrue."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY
from pymongo.asynchronous.database import AsyncDatabase

from core.clock import system_clock
from core.mails import AccountMails, MailKind
from core.monitoring import Monitor
from core.processes import Disk, Processes, Sign
from core.questions import Answer, Outcome, QuestionQueue
from core.settings import Settings
from core.statistics import Statistics
from mailer.alarms import Alarms
from mailer.outbox import Backoff, RetryPolicy
from mailer.service import run_mailer
from tests import servers
from tests.integration.mail_servers import Script, smtp_server
from tests.integration.test_mailer_outbox import settings_in, until

Database = AsyncDatabase[dict[str, Any]]
QUICK = RetryPolicy(max_attempts=3, mail=Backoff(0.05, 0.1), server=Backoff(0.05, 0.2))
ANSWER = Answer("Sí [1].", "es", Outcome.ANSWERED)


@dataclass
class Hand:
    """A clock that tests move by hand."""

    now: datetime = datetime(2026, 11, 21, 3, tzinfo=UTC)
    late: timedelta | None = None
    """In place of ``now``: how far it is behind the system's clock."""

    def __call__(self) -> datetime:
        return self.now if self.late is None else system_clock() - self.late

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Course:
    """A queue, and alarms that look when told, on a clock that is moved by hand."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings, self.clock = database, settings, Hand()
        self.queue = QuestionQueue(database, clock=self.clock)
        self.mails = AccountMails(database, clock=self.clock)

    def alarms(self) -> Alarms:
        """As a mailer that was just started has them."""
        return Alarms(self.settings, self.database, self.mails, clock=self.clock)

    async def told(self) -> list[tuple[str, str]]:
        """Every alarm that was stored: to whom, and the troubles, until they are sent."""
        mails = self.database["mails"].find({"kind": "alarm"}).sort([("number", 1)])
        return [(mail["email"], mail["values"].get("troubles", "sent")) async for mail in mails]

    async def ask(self) -> int:
        enqueued = await self.queue.enqueue(input="¿?", email="ana@uni.example", user_id=1)
        return enqueued.question.id

    async def answer(self) -> int:
        question = await self.queue.claim()
        assert question
        assert await self.queue.complete(question.id, question.claims, ANSWER)
        return question.id

    async def answer_and_send(self) -> None:
        await self.answer()
        mail = await self.queue.claim_answered()
        assert mail
        assert await self.queue.mark_sent(mail.id, mail.mail_claims)

    async def sign(self, *, free: int = 10**12) -> None:
        """A worker is there, on a disk with so much free."""
        now, disk = self.clock(), Disk("/srv", free, 10**12)
        sign = Sign("worker", "lab:1", now, now, "1", 3600, (disk,))
        await Processes(self.database, clock=self.clock).note(sign)


@pytest.fixture
async def course(database: Database, tmp_path: Path) -> Course:
    settings = settings_in(
        tmp_path, staff_email="prof@uni.example, Ayuda@uni.example", heartbeat_seconds=0.1
    )
    course = Course(database, settings)
    await course.queue.create_indexes()
    await course.mails.create_indexes()
    return course


WITHDRAWN = {"kind": "other", "outcome": "withdrawn"}
BOTH = ("prof@uni.example", "Ayuda@uni.example")


def to_both(troubles: str) -> list[tuple[str, str]]:
    return [(address, troubles) for address in BOTH]


async def test_nothing_is_told_where_nothing_is_wrong(course: Course) -> None:
    await course.ask()
    await course.sign()
    course.clock.move(7200)
    await course.alarms().look()
    assert await course.told() == []


async def test_old_question_is_told_once_to_each_and_not_again_by_a_restarted_mailer(
    course: Course,
) -> None:
    await course.ask()
    course.clock.move(7201)
    await asyncio.gather(*(course.alarms().look() for _ in range(5)))
    assert await course.told() == to_both("question")
    for _ in range(12):
        course.clock.move(299)
        await course.alarms().look()
    assert await course.told() == to_both("question")


async def test_trouble_that_lasts_is_told_after_pauses_that_double_up_to_a_day(
    course: Course,
) -> None:
    await course.ask()
    course.clock.move(7201)
    hours = []
    for hour in range(24 * 5):
        before = len(await course.told())
        await course.alarms().look()
        if len(await course.told()) > before:
            hours.append(hour)
        course.clock.move(3600)
    assert hours == [0, 1, 3, 7, 15, 31, 55, 79, 103]


async def test_end_is_told_but_not_within_the_hour(course: Course) -> None:
    await course.ask()
    course.clock.move(7201)
    await course.alarms().look()
    await course.answer_and_send()
    course.clock.move(3599)
    await course.alarms().look()
    assert await course.told() == to_both("question")
    # The alarm left before its trouble ended.
    await course.database["mails"].update_many({}, {"$set": {"mail_due": 2**53 - 1}})
    course.clock.move(1)
    for _ in range(3):
        await course.alarms().look()
        course.clock.move(7200)
    assert await course.told() == to_both("question") + to_both("")


@pytest.mark.parametrize("fates", [("sent", "question"), ("question", "sent"), ("question",) * 2])
async def test_end_is_told_if_one_of_two_was_told_and_the_others_copy_taken_back(
    course: Course, fates: tuple[str, str]
) -> None:
    withdrawn = REGISTRY.get_sample_value("consulta_mails_total", WITHDRAWN) or 0
    await course.ask()
    course.clock.move(7201)
    alarms = course.alarms()
    await alarms.look()
    first, second = await course.mails.claim(), await course.mails.claim()
    assert first
    assert second
    await course.answer_and_send()
    for mail, fate in zip((first, second), fates, strict=True):
        if fate == "sent":  # It was under way when the trouble ended.
            await course.mails.mark_sent(mail.id, mail.mail_claims)
        else:
            assert await alarms.current(mail) is None
    for _ in range(3):
        course.clock.move(7200)
        await alarms.look()
    end = to_both("") if "sent" in fates else []
    assert await course.told() == [*zip(BOTH, fates, strict=True), *end]
    counted = REGISTRY.get_sample_value("consulta_mails_total", WITHDRAWN) or 0
    assert counted - withdrawn == fates.count("question")


async def test_copy_taken_back_late_leaves_what_was_told_since(course: Course) -> None:
    await course.ask()
    course.clock.move(7201)
    alarms = course.alarms()
    await alarms.look()
    late = await course.mails.claim()
    assert late
    await course.answer_and_send()
    await course.sign(free=0)
    course.clock.move(3600)
    await alarms.look()
    assert await alarms.current(late) is None
    await course.sign(free=10**12)
    course.clock.move(3600)
    await alarms.look()
    assert await course.told() == to_both("question") + to_both("disk") + to_both("")


async def test_another_trouble_within_the_hour_waits_for_its_end_and_both_are_told(
    course: Course,
) -> None:
    await course.sign(free=10**9)
    await course.alarms().look()
    await course.ask()
    course.clock.move(3600)
    await course.sign(free=10**9)
    course.clock.move(3601)
    await course.alarms().look()
    assert await course.told() == to_both("disk") + to_both("question disk")


async def test_killed_between_deciding_and_storing_tells_everybody_all_the_same(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    await course.ask()
    course.clock.move(7201)
    enqueue, stored = AccountMails.enqueue, 0

    async def killed(self: AccountMails, *arguments: Any, **named: Any) -> int | None:
        nonlocal stored
        if stored == 1:
            raise KeyboardInterrupt
        stored += 1
        return await enqueue(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(AccountMails, "enqueue", killed)
        with pytest.raises(KeyboardInterrupt):
            await course.alarms().look()
    assert len(await course.told()) == 1
    for _ in range(3):
        await course.alarms().look()
    assert await course.told() == to_both("question")


async def test_clock_that_is_put_back_does_not_silence_alarms_for_long(course: Course) -> None:
    await course.ask()
    course.clock.move(7201)
    await course.alarms().look()
    course.clock.move(-600)
    await course.sign(free=0)
    await course.alarms().look()
    assert ("prof@uni.example", "disk") in await course.told()


async def test_refused_answers_are_told_once_with_their_numbers(course: Course) -> None:
    for _ in range(2):
        await course.ask()
        await course.answer()
        mail = await course.queue.claim_answered()
        assert mail
        await course.queue.mark_undeliverable(mail.id, mail.mail_claims, "550 no")
    await course.alarms().look()
    (first, _) = [mail async for mail in course.database["mails"].find({})]
    assert first["values"]["refused"] == "1, 2"
    for _ in range(50):
        course.clock.move(3600)
        await course.alarms().look()
    assert await course.told() == to_both("refused")


async def test_sign_of_life_of_a_newer_version_is_read(course: Course) -> None:
    await course.sign(free=0)
    newer = {"disks": [{"path": "/srv", "free": 0, "size": 1, "inodes": 7}], "new": "field"}
    await course.database["processes"].update_one({}, {"$set": newer})
    await course.alarms().look()
    assert await course.told() == to_both("disk")


async def test_answer_without_its_date_counts_as_unsent_for_long(course: Course) -> None:
    await course.ask()
    number = await course.answer()
    await course.database["prompts"].update_one({"_id": number}, {"$unset": {"date_out": 1}})
    await course.alarms().look()
    assert await course.told() == to_both("unsent")
    assert (await Statistics(course.database).figures()).counts.answers.oldest_unsent is None


async def test_documents_that_nobody_can_read_stop_no_mail_and_are_named_once(
    course: Course,
) -> None:
    unreadable = {"_id": "worker@lab:1", "service": "worker", "name": "lab:1"}
    await course.database["processes"].insert_one(unreadable)
    finished = {"due": 2**53 - 1, "mail_due": 2**53 - 1, "date_ms": 1, "email": "a@uni.example"}
    await course.database["prompts"].insert_one({"_id": 9, "number": 9, "error": 7, **finished})
    course.clock.late = timedelta(0)
    script = Script()
    with structlog.testing.capture_logs() as lines:

        async def sent(count: int) -> bool:
            events = {line["event"] for line in lines}
            failed = {"alarms cannot be looked for", "the retention failed"}
            return failed <= events and len(script.received) == count

        async with smtp_server(script) as port, mailer(course, port, retention_days=1):
            for count in (1, 2):
                await course.ask()
                await course.answer()
                await until(lambda count=count: sent(count))
                await asyncio.sleep(3 * course.settings.heartbeat_seconds)
    assert [line["event"] for line in lines].count("alarms cannot be looked for") == 1
    assert {message["To"] for message in script.messages()} == {"ana@uni.example"}


async def test_heartbeat_outlives_a_document_that_nobody_can_read(course: Course) -> None:
    broken = course.database["processes"]
    await broken.insert_one({"_id": "worker@lab:1", "service": "worker", "name": "lab:1"})
    monitor = Monitor(course.settings, "mailer", course.database)
    await monitor.beat()
    await broken.delete_one({"_id": "worker@lab:1"})
    await monitor.beat()
    assert [sign.service for sign in await Processes(course.database).all()] == ["mailer"]


# With a mail server, on the real clock.


@contextlib.asynccontextmanager
async def mailer(course: Course, port: int, **changes: Any) -> AsyncIterator[None]:
    settings = course.settings.model_copy(update={"smtp_port": port, **changes})
    stop = asyncio.Event()
    running = asyncio.create_task(
        run_mailer(settings, course.database, stop, queue=course.queue, retry=QUICK)
    )
    try:
        yield
        stop.set()
        await asyncio.wait_for(running, 10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def unused_port() -> int:
    """A port that no mail server listens on yet."""
    return servers.free_port()


@pytest.fixture
def now(course: Course) -> Course:
    """The course on the system's clock, three hours ago."""
    course.clock.late = timedelta(hours=3)
    return course


def text(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    assert body
    return " ".join(body.get_content().split())


def html(message: EmailMessage) -> str:
    body = message.get_body(("html",))
    assert body
    return " ".join(body.get_content().split())


async def test_alarm_arrives_with_what_is_wrong_and_what_to_do_next(now: Course) -> None:
    await now.ask()
    await now.sign(free=10**6)
    now.clock.late = timedelta(0)
    await now.sign(free=5 * 2**20)
    script = Script()
    async with smtp_server(script) as port, mailer(now, port), mailer(now, port):
        await until(lambda: _received(script, 2))
        await asyncio.sleep(1)
    messages = script.messages()
    assert sorted(message["To"] for message in messages) == sorted(BOTH)
    assert len({message["Message-ID"] for message in messages}) == 2
    assert "te necesita" in messages[0]["Subject"]
    assert messages[0]["Auto-Submitted"] == "auto-generated"
    for said in (text(messages[0]), html(messages[0])):
        assert "La pregunta más antigua espera su respuesta desde el" in said
        assert "Hay un worker en marcha" in said
        assert "El disco de /srv solo tiene 5 MB libres (lo dice worker, lab:1)." in said
        assert "Haz sitio ya" in said
        assert "ana@" not in said
    assert ">consulta status</code>" in html(messages[0])


async def _received(script: Script, count: int) -> bool:
    return len(script.received) >= count


async def test_alarm_in_english_and_its_all_clear(now: Course) -> None:
    await now.ask()
    script = Script()
    changes = {
        "course_language": "en",
        "staff_email": ["prof@uni.example"],
        "alarm_pause_seconds": 0.5,
    }
    async with smtp_server(script) as port, mailer(now, port, **changes):
        await until(lambda: _received(script, 1))
        now.clock.late = timedelta(0)
        await now.answer()
        await until(lambda: _clear(script))
    first, last = script.messages()[0], script.messages()[-1]
    assert "needs you" in first["Subject"]
    assert "No worker is running: start one" in text(first)
    assert "is well again" in last["Subject"]
    assert "There is nothing to do." in text(last)


async def _clear(script: Script) -> bool:
    return any("well again" in message["Subject"] for message in script.messages())


async def test_alarm_that_could_not_leave_is_sent_later_only_if_it_is_still_true(
    now: Course, unused_port: int
) -> None:
    for _ in range(2):
        await now.ask()
    await now.answer()
    changes = {"staff_email": ["prof@uni.example"]}
    async with mailer(now, unused_port, **changes):
        await until(lambda: _stored(now, 1))
    # Of the two troubles one has ended when the mail server is back.
    now.clock.late = timedelta(0)
    await now.answer()
    script = Script()
    async with smtp_server(script, port=unused_port), mailer(now, unused_port, **changes):
        await until(lambda: _received(script, 1))
        await until(lambda: _all_sent(now))
    told = [message for message in script.messages() if message["To"] == "prof@uni.example"]
    for message in told:
        assert "La pregunta más antigua" not in text(message)
    stored = await now.database["mails"].find_one({"kind": "alarm"})
    assert stored
    assert stored["status"] == ("sent" if told else "withdrawn")


async def _all_sent(course: Course) -> bool:
    unsent = {"mail_due": {"$lt": 2**53 - 1}}
    found = [await course.database[name].find_one(unsent) for name in ("prompts", "mails")]
    return found == [None, None]


async def test_alarm_whose_trouble_has_ended_is_withdrawn_and_its_return_is_told(
    now: Course, unused_port: int
) -> None:
    await now.ask()
    changes = {
        "staff_email": ["prof@uni.example"],
        "alarm_mail_seconds": 9e9,
        "alarm_pause_seconds": 1,
    }
    async with mailer(now, unused_port, **changes):
        await until(lambda: _stored(now, 1))
    await now.answer()
    script = Script()
    async with smtp_server(script, port=unused_port), mailer(now, unused_port, **changes):
        await until(lambda: _withdrawn(now))
        await until(lambda: _all_sent(now))
        assert [message["To"] for message in script.messages()] == ["ana@uni.example"]
        now.clock.late = timedelta(hours=3)
        await now.ask()
        await until(lambda: _received(script, 2))
    assert "La pregunta más antigua" in text(script.messages()[-1])
    assert not await _clear(script)


async def _stored(course: Course, count: int) -> bool:
    return len(await course.told()) >= count


async def _withdrawn(course: Course) -> bool:
    return await course.database["mails"].find_one({"status": "withdrawn"}) is not None


async def test_refused_answer_tells_the_staff_while_the_mail_server_goes_on(now: Course) -> None:
    now.clock.late = timedelta(0)
    await now.ask()
    number = await now.answer()
    script = Script(rcpt=["550 5.1.1 no such user"])
    changes = {"staff_email": ["prof@uni.example"]}
    async with smtp_server(script) as port, mailer(now, port, **changes):
        await until(lambda: _received(script, 1))
    (message,) = script.messages()
    assert f"las respuestas a estas preguntas: {number}." in text(message)
    assert "consulta requeue" in text(message)


async def test_refused_temporary_password_tells_the_staff(now: Course) -> None:
    now.clock.late = timedelta(0)
    later = (system_clock() + timedelta(hours=1)).isoformat()
    number = await now.mails.enqueue(
        MailKind.TEMPORARY_PASSWORD,
        email="ana@uni.example",
        language="es",
        values={"password": "secreto", "username": "ana", "expires": later, "minutes": "60"},
    )
    await now.mails.enqueue(
        MailKind.NOT_ACCEPTED, email="x@uni.example", language="es", values={"reason": "empty"}
    )
    script = Script(rcpt=["550 5.1.1 no such user"] * 2)
    changes = {"staff_email": ["prof@uni.example"]}
    async with smtp_server(script) as port, mailer(now, port, **changes):
        await until(lambda: _received(script, 1))
    (message,) = script.messages()
    for said in (text(message), html(message)):
        assert f"habrían llegado tarde: {number}." in said
        assert "consulta users confirm" in said
        assert "secreto" not in said


async def test_nobody_is_told_without_an_address(now: Course) -> None:
    await now.ask()
    script = Script()
    async with smtp_server(script) as port, mailer(now, port, staff_email=[]):
        await asyncio.sleep(1)
    assert script.received == []
    assert await now.told() == []
