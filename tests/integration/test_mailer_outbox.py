"""Every stored answer becomes an e-mail, whatever the servers do meanwhile."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from pymongo.asynchronous.database import AsyncDatabase

from core.clock import NEVER, system_clock
from core.mails import AccountMails, MailKind
from core.mongo import connect
from core.questions import Answer, Outcome, QuestionQueue, QuestionState
from core.settings import Settings, SettingsError
from mailer.outbox import Backoff, RetryPolicy
from mailer.service import run_mailer
from tests import servers
from tests.integration.mail_servers import DROP, Script, smtp_server

Database = AsyncDatabase[dict[str, Any]]
QUICK = RetryPolicy(max_attempts=3, mail=Backoff(0.05, 0.1), server=Backoff(0.05, 0.2))


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 15) -> None:
    """Wait for the condition, and fail when it does not come."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


@dataclass
class Course:
    """A database with questions and account mails, and the mailer's settings."""

    database: Database
    settings: Settings
    queue: QuestionQueue = field(init=False)
    mails: AccountMails = field(init=False)

    def __post_init__(self) -> None:
        self.queue = QuestionQueue(self.database)
        self.mails = AccountMails(self.database)

    async def answered(self, email: str = "ana@uni.example", text: str = "Sí [1].") -> int:
        """Store an answered question; its number."""
        await self.queue.enqueue(input="¿Hay examen?", email=email, user_id=1)
        question = await self.queue.claim()
        assert question
        answer = Answer(text, "es", Outcome.ANSWERED)
        assert await self.queue.complete(question.id, question.claims, answer)
        return question.id

    async def temporary_password(self, minutes: int = 30) -> int:
        """Store an account mail; its number."""
        expires = system_clock() + timedelta(minutes=minutes)
        return await self.mails.enqueue(
            MailKind.TEMPORARY_PASSWORD,
            email="eva@uni.example",
            language="en",
            values={
                "password": "kD8-mmQ2-xx",
                "minutes": "30",
                "expires": expires.isoformat(),
            },
        )

    async def state(self, number: int) -> QuestionState:
        question = await self.queue.one(number)
        assert question
        return question.state

    async def all_in(self, state: QuestionState, *numbers: int) -> None:
        async def are() -> bool:
            return all([await self.state(number) == state for number in numbers])

        await until(are)

    @contextlib.asynccontextmanager
    async def mailer(
        self, port: int, retry: RetryPolicy = QUICK, queue: QuestionQueue | None = None
    ) -> AsyncIterator[asyncio.Event]:
        """A mailer that runs meanwhile; gives its stop event."""
        settings = self.settings.model_copy(update={"smtp_port": port})
        stop = asyncio.Event()
        running = asyncio.create_task(
            run_mailer(settings, self.database, stop, queue=queue or self.queue, retry=retry)
        )
        try:
            yield stop
            stop.set()
            await asyncio.wait_for(running, 10)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def settings_in(folder: Path, **changes: Any) -> Settings:
    passwords = {"smtp_password": "", "imap_password": "", "forgot_password": ""}
    file = folder / "passwords.json"
    file.write_text(json.dumps({**passwords, **changes.pop("passwords", {})}))
    values: dict[str, Any] = {
        "secret_key": "0123456789abcdef0123456789abcdef",
        "smtp_server": "127.0.0.1",
        "smtp_username": "consultas@uni.example",
        "smtp_timeout": 5,
        "poll_seconds": 0.05,
        "passwords_file": file,
        **changes,
    }
    return Settings(**values)


@pytest.fixture
async def course(database: Database, tmp_path: Path) -> Course:
    course = Course(database, settings_in(tmp_path))
    await course.queue.create_indexes()
    await course.mails.create_indexes()
    return course


async def test_answers_and_account_mails_are_sent_once_and_marked(course: Course) -> None:
    numbers = [await course.answered(f"s{index}@uni.example") for index in range(5)]
    mail = await course.temporary_password()
    script = Script()
    async with smtp_server(script) as port, course.mailer(port):
        await course.all_in(QuestionState.SENT, *numbers)
        await until(lambda: _has(course, mail, status="sent"))
    assert sorted(address for sent in script.received for address in sent.rcpt_tos) == [
        "eva@uni.example",
        *(f"s{index}@uni.example" for index in range(5)),
    ]
    stored = await course.database["mails"].find_one({"_id": mail})
    assert stored
    assert stored["values"] == {}


async def _has(course: Course, mail: int, **fields: Any) -> bool:
    stored = await course.database["mails"].find_one({"_id": mail})
    return stored is not None and all(stored[name] == value for name, value in fields.items())


async def test_greylisted_answer_is_sent_later(course: Course) -> None:
    number = await course.answered()
    script = Script(rcpt=["450 4.2.0 greylisted", "450 4.2.0 greylisted"])
    async with smtp_server(script) as port, course.mailer(port):
        await course.all_in(QuestionState.SENT, number)
    question = await course.queue.one(number)
    assert question
    assert question.mail_attempts == 2
    assert question.error is None
    assert len(script.received) == 1


async def test_refused_answer_is_undeliverable_with_the_servers_reason(course: Course) -> None:
    refused, accepted = await course.answered(), await course.answered()
    script = Script(rcpt=["550 5.1.1 <ana@uni.example>: user unknown"])
    async with smtp_server(script) as port, course.mailer(port):
        await course.all_in(QuestionState.SENT, accepted)
        await course.all_in(QuestionState.UNDELIVERABLE, refused)
    question = await course.queue.one(refused)
    assert question
    assert question.error == "550 5.1.1 <ana@uni.example>: user unknown"
    assert await course.queue.requeue_mail(refused)
    async with smtp_server(script) as port, course.mailer(port):
        await course.all_in(QuestionState.SENT, refused)


async def test_answer_that_is_never_accepted_is_given_up_with_the_reason(course: Course) -> None:
    number = await course.answered()
    script = Script(rcpt=["450 4.2.2 mailbox full"] * 9)
    async with smtp_server(script) as port, course.mailer(port):
        await course.all_in(QuestionState.UNDELIVERABLE, number)
    question = await course.queue.one(number)
    assert question
    assert question.error == "Given up after 3 attempts: 450 4.2.2 mailbox full"
    assert len(script.rcpt) == 6


async def test_copy_after_a_drop_at_the_last_dot_has_the_same_message_id(course: Course) -> None:
    number = await course.answered()
    script = Script(data=[DROP])
    async with smtp_server(script) as port, course.mailer(port):
        await course.all_in(QuestionState.SENT, number)
    first, second = script.messages()
    assert first["Message-ID"] == second["Message-ID"]
    assert first["Date"] == second["Date"]


async def test_mailer_that_dies_after_sending_makes_a_recognisable_copy(course: Course) -> None:
    number = await course.answered()
    script = Script(seconds=30)
    async with smtp_server(script) as port:
        with contextlib.suppress(ConnectionAbortedError):
            async with course.mailer(port):
                await asyncio.wait_for(script.got_message.wait(), 10)
                # The mailer is cancelled here, when the server has the message.
                raise ConnectionAbortedError
        document = await course.database["prompts"].find_one({"_id": number})
        assert document
        assert document["mail_in_doubt"]
        script.seconds = 0
        after_the_lease = QuestionQueue(
            course.database, clock=lambda: system_clock() + timedelta(seconds=61)
        )
        async with course.mailer(port, queue=after_the_lease):
            await course.all_in(QuestionState.SENT, number)
    first, second = script.messages()
    assert first["Message-ID"] == second["Message-ID"]


async def test_server_that_is_away_costs_no_attempts_and_loses_nothing(course: Course) -> None:
    numbers = [await course.answered() for _ in range(4)]
    port = servers.free_port()
    with structlog.testing.capture_logs() as lines:
        async with course.mailer(port):
            await asyncio.sleep(1.5)
            script = Script()
            async with smtp_server(script, port=port):
                await course.all_in(QuestionState.SENT, *numbers)
    assert len(script.received) == 4
    questions = [await course.queue.one(number) for number in numbers]
    assert sum(question.mail_attempts for question in questions if question) == 0
    closed = [line for line in lines if line["event"] == "no e-mail can leave"]
    # Pauses of 0.05, 0.1 and then 0.2 s, in each of the lanes that had something to send.
    assert 4 <= len(closed) <= 12


async def test_server_that_is_back_is_not_knocked_at_without_need(course: Course) -> None:
    number = await course.answered()
    script = Script(mail=["421 4.3.2 going down", *["250 OK"] * 10])
    slow = RetryPolicy(server=Backoff(0.5, 0.5))
    async with smtp_server(script) as port, course.mailer(port, slow):
        await until(lambda: _attempted(course, number))
        # Another mailer has taken it.
        await course.database["prompts"].update_one({"_id": number}, {"$set": {"mail_due": NEVER}})
        await asyncio.sleep(1.5)
    assert len(script.mail) == 9


async def _attempted(course: Course, number: int) -> bool:
    question = await course.queue.one(number)
    return question is not None and question.error is not None


async def test_wrong_password_loses_nothing_and_is_said_in_the_log(
    course: Course, tmp_path: Path
) -> None:
    number = await course.answered()
    script = Script()
    course.settings = settings_in(tmp_path, passwords={"smtp_password": "wr0ng"})
    async with smtp_server(script, password="s3cret") as port:
        with structlog.testing.capture_logs() as lines:
            async with course.mailer(port):
                await until(lambda: _logins(script, 5))
        assert await course.state(number) == QuestionState.ANSWERED
        course.settings = settings_in(tmp_path, passwords={"smtp_password": "s3cret"})
        async with course.mailer(port):
            await course.all_in(QuestionState.SENT, number)
    errors = [line for line in lines if line["log_level"] == "error"]
    assert "smtp_password in passwords.json" in errors[0]["reason"]
    assert "wr0ng" not in repr(lines)


async def _logins(script: Script, count: int) -> bool:
    return len(script.logins) >= count


async def test_account_mails_have_an_account_of_their_own(course: Course, tmp_path: Path) -> None:
    course.settings = settings_in(
        tmp_path,
        recovery_smtp_username="cuentas@uni.example",
        passwords={"smtp_password": "wr0ng", "forgot_password": "s3cret"},
    )
    number, mail = await course.answered(), await course.temporary_password()
    script = Script()
    async with smtp_server(script, password="s3cret") as port, course.mailer(port):
        # The other account's trouble does not hold it up.
        await until(lambda: _has(course, mail, status="sent"))
    assert script.received[0].mail_from == "cuentas@uni.example"
    assert script.messages()[0]["From"].addresses[0].addr_spec == "cuentas@uni.example"
    assert ("cuentas@uni.example", "s3cret") in script.logins
    assert await course.state(number) == QuestionState.ANSWERED


async def test_temporary_password_does_not_wait_behind_a_slow_answer(course: Course) -> None:
    number = await course.answered()
    script = Script(seconds=2)
    async with smtp_server(script) as port, course.mailer(port):
        await asyncio.wait_for(script.got_message.wait(), 10)
        script.seconds = 0
        mail = await course.temporary_password()
        await until(lambda: _has(course, mail, status="sent"))
        assert await course.state(number) == QuestionState.ANSWERED
        await course.all_in(QuestionState.SENT, number)


async def test_expired_temporary_password_is_not_sent_and_is_erased(course: Course) -> None:
    mail = await course.temporary_password(minutes=-1)
    script = Script()
    async with smtp_server(script) as port, course.mailer(port):
        await until(lambda: _has(course, mail, status="undeliverable", values={}))
    assert script.received == []


async def test_mail_that_cannot_be_written_does_not_hold_up_the_rest(course: Course) -> None:
    broken = await course.mails.enqueue(
        MailKind.TEMPORARY_PASSWORD, email="eva@uni.example", language="en", values={}
    )
    unknown = await course.temporary_password()
    await course.database["mails"].update_one({"_id": unknown}, {"$set": {"kind": "unknown"}})
    no_address = await course.answered('"a b"@uni.example')
    mail, number = await course.temporary_password(), await course.answered()
    script = Script()
    async with smtp_server(script) as port, course.mailer(port):
        await until(lambda: _has(course, broken, status="undeliverable"))
        await course.all_in(QuestionState.UNDELIVERABLE, no_address)
        await course.all_in(QuestionState.SENT, number)
        await until(lambda: _has(course, mail, status="sent"))
    assert len(script.received) == 2


async def test_stop_finishes_the_mail_that_is_being_sent(course: Course) -> None:
    numbers = [await course.answered() for _ in range(3)]
    script = Script(seconds=1)
    async with smtp_server(script) as port, course.mailer(port) as stop:
        await asyncio.wait_for(script.got_message.wait(), 10)
        stop.set()
    assert len(script.received) == 1
    states = [await course.state(number) for number in numbers]
    assert states.count(QuestionState.SENT) == 1
    assert states.count(QuestionState.ANSWERED) == 2


async def test_claim_is_renewed_while_a_server_is_slow(course: Course) -> None:
    number = await course.answered()

    async def due() -> int:
        document = await course.database["prompts"].find_one({"_id": number})
        assert document
        return int(document["mail_due"])

    script = Script(seconds=2)
    queue = QuestionQueue(course.database, mail_lease_seconds=0.6)
    async with smtp_server(script) as port, course.mailer(port, queue=queue):
        await asyncio.wait_for(script.got_message.wait(), 10)
        claimed = await due()
        await asyncio.sleep(1)
        assert await due() >= claimed + 600
        await course.all_in(QuestionState.SENT, number)


async def test_two_mailers_share_the_work(course: Course) -> None:
    numbers = [await course.answered(f"s{index}@uni.example") for index in range(20)]
    script = Script()
    async with smtp_server(script) as port, course.mailer(port), course.mailer(port):
        await course.all_in(QuestionState.SENT, *numbers)
    assert len({sent.rcpt_tos[0] for sent in script.received}) == 20
    assert len(script.received) == 20


async def test_database_that_goes_away_while_a_mail_is_sent_makes_no_copy(tmp_path: Path) -> None:
    port = servers.free_port()
    script = Script(seconds=1)
    first = servers.nx_27017(tmp_path, port)
    url = await asyncio.to_thread(first.__enter__)
    async with connect(Settings(mongo_url=url)) as client:
        course = Course(client["consulta"], settings_in(tmp_path))
        await course.queue.create_indexes()
        await course.mails.create_indexes()
        numbers = [await course.answered(), await course.answered()]
        with structlog.testing.capture_logs() as lines:
            async with smtp_server(script) as smtp_port, course.mailer(smtp_port):
                await asyncio.wait_for(script.got_message.wait(), 10)
                await asyncio.to_thread(first.__exit__, None, None, None)
                # Longer than a verb waits for a server, or nobody would notice.
                await asyncio.sleep(7)
                with contextlib.ExitStack() as stack:
                    await asyncio.to_thread(stack.enter_context, servers.nx_27017(tmp_path, port))
                    await asyncio.wait_for(course.all_in(QuestionState.SENT, *numbers), 30)
    assert len(script.received) == 2
    assert any(line["event"] == "MongoDB is away" for line in lines)
    assert any(line["event"] == "MongoDB is back" for line in lines)


async def test_logs_hold_no_addresses_bodies_or_secrets(course: Course) -> None:
    numbers = [await course.answered("ana@uni.example", "Palabra secreta.") for _ in range(3)]
    script = Script(rcpt=["550 5.1.1 <ana@uni.example> unknown", "450 <ana@uni.example> later"])
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as lines:
        async with smtp_server(script) as port, course.mailer(port):
            await until(lambda: _none_answered(course, numbers))
            mail = await course.temporary_password()
            await until(lambda: _has(course, mail, status="sent"))
    for secret in ("ana@", "eva@", "secreta", "kD8", "examen"):
        assert secret not in repr(lines)
    sent = [line for line in lines if line["event"] == "sent"]
    assert {line["to"] for line in sent} == {"uni.example"}
    assert mail in {line.get("mail") for line in sent}
    assert {line.get("question") for line in sent} > {None}


async def _none_answered(course: Course, numbers: list[int]) -> bool:
    states = [await course.state(number) for number in numbers]
    return QuestionState.ANSWERED not in states


@pytest.mark.parametrize("username", ["consultas", "a b@uni.example", "añá@uni.example"])
async def test_sender_that_is_no_plain_address_is_named_at_start(
    course: Course, tmp_path: Path, username: str
) -> None:
    settings = settings_in(tmp_path, smtp_username=username)
    with pytest.raises(SettingsError, match="SMTP_USERNAME"):
        await run_mailer(settings, course.database, asyncio.Event())


async def test_missing_password_is_named_at_start(course: Course, tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    settings.passwords_file.write_text('{"smtp_password": "", "imap_password": ""}')
    with pytest.raises(SettingsError, match="forgot_password"):
        await run_mailer(settings, course.database, asyncio.Event())
