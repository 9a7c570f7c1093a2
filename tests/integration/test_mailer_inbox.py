"""Questions by e-mail, over the servers that an institution has: each becomes one question."""

import asyncio
import contextlib
import email.utils
import imaplib
import json
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import Any

import pytest
import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure, WriteError

from core.clock import system_clock
from core.mails import AccountMails, MailKind
from core.mongo import connect
from core.questions import Answer, Outcome, Question, QuestionQueue, QuestionState
from core.settings import Settings
from core.suppressions import Suppressions
from core.users import Base, User, UserRepository, create_user_engine
from mailer.imap import Folder, Mailbox
from mailer.inbox import Inbox, Positions, Reception
from mailer.messages import mail_message_id, question_message_id
from mailer.outbox import Backoff, RetryPolicy
from mailer.service import run_mailer
from tests import servers
from tests.integration.test_mailer_outbox import until
from tests.servers import MailServer, mail_server

COURSE = "consultas@uni.test"
ANA = "ana@uni.test"
EVA = "eva@uni.test"
STRANGER = "otro@uni.test"
QUICK = RetryPolicy(max_attempts=3, mail=Backoff(0.05, 0.1), server=Backoff(0.05, 0.2))

Database = AsyncDatabase[dict[str, Any]]


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    accounts = {COURSE: "c0rreo del curso ñ", ANA: "ana", EVA: "eva", STRANGER: "otro"}
    with mail_server(accounts) as server:
        yield server


def a_mail(subject: str, text: str, sender: str = ANA, **headers: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = COURSE
    message["Subject"] = subject
    message["Date"] = email.utils.localtime()
    message["Message-ID"] = email.utils.make_msgid(domain="uni.test")
    for name, value in headers.items():
        del message[name.replace("_", "-")]
        message[name.replace("_", "-")] = value
    message.set_content(text)
    return message


@dataclass
class Department:
    """A course with students, its mailbox and its mailer."""

    mail: MailServer
    database: Database
    settings: Settings
    users: UserRepository
    queue: QuestionQueue = field(init=False)
    mails: AccountMails = field(init=False)

    def __post_init__(self) -> None:
        self.queue = QuestionQueue(self.database)
        self.mails = AccountMails(self.database)

    def student(self, address: str = ANA, *, confirmed: bool = True) -> User:
        name = address.split("@", maxsplit=1)[0]
        user = self.users.register(email=address, username=name, password="una frase larga")
        if confirmed:
            assert self.users.confirm(user.id, address)
        return user

    def send(self, message: EmailMessage | bytes, sender: str = ANA) -> None:
        """As an ordinary mail client does it: through the submission port, with a login."""
        data = message if isinstance(message, bytes) else message.as_bytes(policy=SMTP_POLICY)
        with smtplib.SMTP(self.mail.host, self.mail.submission_port, timeout=30) as client:
            client.starttls(context=self.mail.tls_context)
            client.login(sender, self.mail.accounts[sender])
            client.sendmail(sender, [COURSE], data)

    def append(self, *messages: EmailMessage | bytes, flags: str = "") -> None:
        """Put mails into the folder at once, as if they had lain there for long."""
        with self.mail.mailbox(COURSE) as client:
            for message in messages:
                data = (
                    message if isinstance(message, bytes) else message.as_bytes(policy=SMTP_POLICY)
                )
                kind, answer = client.append("INBOX", flags, "", data)
                assert kind == "OK", answer

    def reception(self, settings: Settings | None = None) -> Reception:
        return Reception(
            settings or self.settings,
            queue=self.queue,
            mails=self.mails,
            users=self.users,
            suppressions=Suppressions(self.database),
        )

    @contextlib.asynccontextmanager
    async def inbox(
        self,
        settings: Settings | None = None,
        folder_class: type[Folder] = Folder,
        poll_seconds: float = 0.2,
    ) -> AsyncIterator[Inbox]:
        """The inbox alone, reading meanwhile."""
        settings = settings or self.settings
        mailbox = Mailbox.from_settings(settings)
        stop = asyncio.Event()
        inbox = Inbox(
            lambda: folder_class(mailbox, self.mail.tls_context),
            mailbox.name,
            reception=self.reception(settings),
            positions=Positions(self.database),
            stop=stop,
            poll_seconds=poll_seconds,
            retry=Backoff(0.05, 0.2),
        )
        running = asyncio.create_task(inbox.run())
        try:
            yield inbox
            stop.set()
            await asyncio.wait_for(running, 10)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def mailer(self) -> AsyncIterator[None]:
        """The whole mailer."""
        stop = asyncio.Event()
        running = asyncio.create_task(
            run_mailer(
                self.settings,
                self.database,
                stop,
                retry=QUICK,
                tls_context=self.mail.tls_context,
            )
        )
        try:
            yield
            stop.set()
            await asyncio.wait_for(running, 10)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def look_at(self, count: int) -> None:
        """Wait until the inbox has dealt with ``count`` mails of the folder."""
        with self.mail.mailbox(COURSE) as client:
            uids = client.uid("SEARCH", "ALL")[1][0].split()
        assert len(uids) >= count
        last = int(uids[count - 1])

        async def is_there() -> bool:
            position = await self.database["inbox"].find_one({})
            return position is not None and position["last_uid"] >= last

        await until(is_there, 30)

    async def questions(self) -> list[Question]:
        return [question async for question in self.queue.all()]

    async def has_questions(self, count: int, seconds: float = 15) -> list[Question]:
        async def are_there() -> bool:
            return len(await self.questions()) >= count

        await until(are_there, seconds)
        questions = await self.questions()
        assert len(questions) == count
        return questions

    async def written(self, kind: MailKind | None = None) -> list[dict[str, Any]]:
        query = {"kind": str(kind)} if kind else {}
        return [mail async for mail in self.database["mails"].find(query).sort([("number", 1)])]

    async def answer(self, text: str = "Sí [1].") -> Question:
        question = await self.queue.claim()
        assert question
        done = Answer(text, "es", Outcome.ANSWERED)
        assert await self.queue.complete(question.id, question.claims, done)
        return question


@pytest.fixture
def department(mail: MailServer, database: Database, tmp_path: Path) -> Iterator[Department]:
    passwords = dict.fromkeys(("smtp_password", "imap_password", "forgot_password"))
    file = tmp_path / "passwords.json"
    file.write_text(json.dumps(dict.fromkeys(passwords, mail.accounts[COURSE])))
    settings = Settings(
        secret_key="0123456789abcdef0123456789abcdef",
        mongo_db_name=database.name,
        database_url=f"sqlite:///{tmp_path / 'users.db'}",
        smtp_server=mail.host,
        smtp_port=mail.submission_port,
        smtp_username=COURSE,
        imap_server=mail.host,
        imap_port=mail.imaps_port,
        imap_tls="tls",
        imap_username=COURSE,
        passwords_file=file,
        course_name="Electrónica Analógica",
        public_url="https://consultas.uni.test",
        email_rest_sec=0.2,
        max_waiting_per_student=500,
        questions_per_hour=500,
    )
    engine = create_user_engine(settings)
    Base.metadata.create_all(engine)
    for address in mail.accounts:
        with mail.mailbox(address) as client:
            client.uid("STORE", "1:*", "+FLAGS", r"(\Deleted)")
            client.expunge()
    yield Department(mail, database, settings, UserRepository(engine))
    engine.dispose()


async def test_mail_comes_back_as_an_answer_in_the_same_thread_and_can_be_followed_up(
    department: Department,
) -> None:
    ana = department.student()
    asked = a_mail("Consulta: tensión de corte", "Hola:\n\n¿Qué es V_P?\n\nUn saludo,\nAna\n")
    async with department.mailer():
        await asyncio.to_thread(department.send, asked)
        (question,) = await department.has_questions(1)
        assert question.input == "Hola:\n\n¿Qué es V_P?"
        assert (question.email, question.user_id) == (ANA, ana.id)
        inbox = await asyncio.to_thread(department.mail.messages, ANA, at_least=1)
        await department.answer("V_P anula la corriente [1].")
        inbox = await asyncio.to_thread(department.mail.messages, ANA, at_least=2)
        for received in inbox:
            assert received["Subject"] == "Re: Consulta: tensión de corte"
            assert received["In-Reply-To"] == asked["Message-ID"]
            assert received["References"] == asked["Message-ID"]
        acknowledgement, answer = inbox
        assert "Es la siguiente de la cola" in str(acknowledgement.get_body(("plain",)))
        assert "anula la corriente" in str(answer.get_body(("plain",)))

        again = a_mail(
            "Re: otra cosa",
            "¿Y si es cero?\n\nEl lun, 5 oct 2026 a las 10:00, Curso (<c@uni.test>) escribió:\n"
            "> V_P anula la corriente [1].\n",
            In_Reply_To=answer["Message-ID"],
            References=f"{answer['References']} {answer['Message-ID']}",
        )
        await asyncio.to_thread(department.send, again)
        _, follow_up = await department.has_questions(2)
        assert follow_up.input == "¿Y si es cero?"
        assert follow_up.follows == question.id
        assert follow_up.earlier
        assert follow_up.earlier.answer == "V_P anula la corriente [1]."
        await department.answer("Entonces conduce [1].")
        *_, last = await asyncio.to_thread(department.mail.messages, ANA, at_least=4)
    assert last["Subject"] == "Re: otra cosa"
    assert last["References"].split() == [
        asked["Message-ID"],
        answer["Message-ID"],
        again["Message-ID"],
    ]
    assert all(r"\Seen" in flags for flags in department.mail.flags(COURSE))


async def test_mail_without_the_code_stays_untouched_and_unread(department: Department) -> None:
    department.student()
    made_up = "<question-1.0123456789abcdef@uni.test>"
    department.append(
        a_mail("Reunión", "¿Mañana?"),
        a_mail("Re: respuesta", "¿Y esto?", In_Reply_To=made_up),
        a_mail("con sul ta", "¿Qué es un JFET?"),
    )
    async with department.inbox():
        await department.look_at(3)
    assert [question.input for question in await department.questions()] == ["¿Qué es un JFET?"]
    assert [r"\Seen" in flags for flags in department.mail.flags(COURSE)] == [False, False, True]


async def test_answer_goes_to_the_registered_address_whatever_the_mail_says(
    department: Department,
) -> None:
    department.student()
    department.append(
        a_mail("CONSULTA", "¿Sí?", '"eva@uni.test" <ANA@Uni.test>', Reply_To="evil@else.test")
    )
    async with department.inbox():
        (question,) = await department.has_questions(1)
        await until(lambda: _some(department.written()))
    assert question.email == ANA
    assert {written["email"] for written in await department.written()} == {ANA}


async def _some(found: Any) -> bool:
    return bool(await found)


async def test_somebody_elses_exchange_is_not_used(department: Department) -> None:
    ana, _ = department.student(), department.student(EVA)
    await department.queue.enqueue(input="¿Mi nota?", email=ANA, user_id=ana.id)
    answered = await department.answer("Un diez.")
    department.append(
        a_mail("Re: x", "¿Y la mía?", EVA, In_Reply_To=question_message_id(answered, COURSE))
    )
    async with department.inbox():
        *_, question = await department.has_questions(2)
    assert question.email == EVA
    assert question.follows is None
    assert question.earlier is None


class Killed(BaseException):
    """The process ends here."""


async def test_mailer_that_dies_between_storing_and_marking_makes_one_question(
    department: Department,
) -> None:
    class Dying(Folder):
        def mark_seen(self, uid: int) -> None:
            raise Killed

    department.student()
    department.append(a_mail("CONSULTA", "¿Una?"))
    with pytest.raises(Killed):
        async with department.inbox(folder_class=Dying) as inbox:
            await inbox.run()
    assert len(await department.questions()) == 1
    assert not any(r"\Seen" in flags for flags in department.mail.flags(COURSE))
    async with department.inbox():
        await department.look_at(1)
    assert len(await department.questions()) == 1
    assert len(await department.written(MailKind.ACKNOWLEDGEMENT)) == 1
    assert all(r"\Seen" in flags for flags in department.mail.flags(COURSE))


async def test_killed_process_loses_and_doubles_nothing(
    department: Department, nx_url: str, tmp_path: Path
) -> None:
    department.student()
    texts = {f"¿Pregunta {number}?" for number in range(18)}
    department.append(*(a_mail("CONSULTA", text) for text in sorted(texts)))
    settings = department.settings
    environment = {
        name.upper(): str(value)
        for name, value in settings.model_dump(exclude_unset=True).items()
        if name not in ("secret_key", "database_url")
    }
    environment |= {
        "SECRET_KEY": "0123456789abcdef0123456789abcdef",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'users.db'}",
        "MONGO_URL": nx_url,
        "SSL_CERT_FILE": str(department.mail.ca_file),
        "PYTHONPATH": str(Path.cwd()),
        "PATH": "/usr/bin:/bin",
    }
    command = [sys.executable, "-m", "consulta", "mailer"]
    for killed_at in (4, 11, None):
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(20):
                while len(await department.questions()) < (killed_at or len(texts)):
                    assert process.poll() is None
                    await asyncio.sleep(0.005)
            if killed_at is None:
                await until(lambda: _all_seen(department))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(10)
    questions = await department.questions()
    assert {question.input for question in questions} == texts
    assert len(questions) == len(texts)
    acknowledged = await department.written(MailKind.ACKNOWLEDGEMENT)
    assert len(acknowledged) == len({mail["dedupe"] for mail in acknowledged})


async def _all_seen(department: Department) -> bool:
    flags = await asyncio.to_thread(department.mail.flags, COURSE)
    return all(r"\Seen" in one for one in flags)


async def test_two_mailers_at_once_store_each_mail_once(department: Department) -> None:
    department.student()
    department.append(*(a_mail("CONSULTA", f"¿Pregunta {number}?") for number in range(15)))
    department.append(a_mail("CONSULTA", "¿Yo?", STRANGER))
    async with department.inbox(), department.inbox():
        await department.look_at(16)
        await department.has_questions(15)
    assert len({question.input for question in await department.questions()}) == 15
    assert len(await department.written(MailKind.ACKNOWLEDGEMENT)) == 15
    assert len(await department.written(MailKind.NOT_ACCEPTED)) == 1


async def test_copy_of_a_mail_is_the_same_question_also_without_a_message_id(
    department: Department,
) -> None:
    department.student()
    named, nameless = a_mail("CONSULTA", "¿Una?"), a_mail("CONSULTA", "¿Otra?")
    del nameless["Message-ID"]
    department.append(named, nameless, named, nameless)
    async with department.inbox():
        await department.look_at(4)
    questions = await department.questions()
    assert [question.input for question in questions] == ["¿Una?", "¿Otra?"]
    assert questions[1].thread
    assert questions[1].thread.message_id == ""


async def test_message_id_of_another_mail_takes_nobodys_place(department: Department) -> None:
    department.student()
    department.student(EVA)
    message_id = "<same@uni.test>"
    department.append(
        a_mail("CONSULTA", "¿La de Ana?", Message_ID=message_id),
        a_mail("CONSULTA", "¿La de Eva?", EVA, Message_ID=message_id),
        a_mail("CONSULTA", "¿Otra con su nombre?", Message_ID=message_id),
    )
    async with department.inbox():
        await department.look_at(3)
    questions = [(question.email, question.input) for question in await department.questions()]
    assert questions == [(ANA, "¿La de Ana?"), (EVA, "¿La de Eva?")]


async def test_folder_that_is_numbered_anew_makes_no_second_question(
    department: Department,
) -> None:
    department.student()
    department.append(a_mail("CONSULTA", "¿Una?"), a_mail("Reunión", "¿Mañana?"))
    async with department.inbox():
        await department.look_at(2)
        await asyncio.to_thread(department.mail.change_uidvalidity, COURSE)
        await asyncio.to_thread(department.append, a_mail("CONSULTA", "¿Dos?"))
        await department.has_questions(2)
        await asyncio.sleep(0.5)
    assert len(await department.questions()) == 2


async def test_first_start_takes_what_nobody_has_opened_and_later_all_that_comes(
    department: Department,
) -> None:
    department.student()
    department.append(a_mail("CONSULTA", "¿Leída antes?"), flags=r"\Seen")
    department.append(a_mail("CONSULTA", "¿Sin leer?"))
    async with department.inbox():
        await department.has_questions(1)
    # While the mailer is away somebody opens a mail on the phone.
    department.append(a_mail("CONSULTA", "¿Abierta en el móvil?"), flags=r"\Seen")
    async with department.inbox():
        questions = await department.has_questions(2)
    assert [question.input for question in questions] == ["¿Sin leer?", "¿Abierta en el móvil?"]


async def test_idle_notices_a_mail_within_two_seconds(department: Department) -> None:
    department.student()
    async with department.inbox(poll_seconds=600):
        await until(lambda: _some(_position(department)))
        await asyncio.sleep(1)
        await asyncio.to_thread(department.append, a_mail("CONSULTA", "¿Ya?"))
        started = time.monotonic()
        await department.has_questions(1)
        assert time.monotonic() - started < 2


async def _position(department: Department) -> Any:
    return await department.database["inbox"].find_one({})


async def test_server_without_idle_is_asked_again_and_again(
    department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "imapclient.IMAPClient.has_capability", lambda _client, name: name != "IDLE"
    )
    monkeypatch.setattr("imapclient.IMAPClient.idle", lambda _client: pytest.fail("IDLE"))
    department.student()
    async with department.inbox():
        await until(lambda: _some(_position(department)))
        await asyncio.to_thread(department.append, a_mail("CONSULTA", "¿Ya?"))
        await department.has_questions(1)


async def test_thousand_mails_at_the_first_start(department: Department) -> None:
    department.student()
    department.append(
        *(
            a_mail("CONSULTA" if number % 10 == 0 else "Acta", f"¿Número {number}?")
            for number in range(1000)
        )
    )
    settings = department.settings.model_copy(update={"mail_questions_per_day": 500})
    async with department.inbox(settings):
        questions = await department.has_questions(100, 60)
        await department.look_at(1000)
    assert [q.input for q in questions] == [f"¿Número {n}?" for n in range(0, 1000, 10)]
    assert [r"\Seen" in flags for flags in department.mail.flags(COURSE)] == [
        number % 10 == 0 for number in range(1000)
    ]


async def test_dovecot_that_goes_away_and_comes_back_loses_nothing(
    department: Department,
) -> None:
    department.student()
    with structlog.testing.capture_logs() as lines:
        async with department.inbox():
            await until(lambda: _some(_position(department)))
            await asyncio.to_thread(department.mail.imap.stop)
            await asyncio.sleep(1)
            await asyncio.to_thread(department.mail.imap.start)
            await asyncio.to_thread(department.append, a_mail("CONSULTA", "¿Sigue ahí?"))
            await department.has_questions(1)
    errors = [line for line in lines if line["log_level"] == "error"]
    assert 1 <= len(errors) <= 3
    assert any(line["event"] == "the inbox is back" for line in lines)


async def test_mongodb_that_is_away_loses_nothing(department: Department, tmp_path: Path) -> None:
    ana = department.student()
    port = servers.free_port()
    with contextlib.ExitStack() as stack:
        running = servers.nx_27017(tmp_path, port)
        url = await asyncio.to_thread(running.__enter__)
        async with connect(Settings(mongo_url=url)) as client:
            department.database = client["consulta"]
            department.__post_init__()
            department.append(a_mail("CONSULTA", "¿Antes?"))
            async with department.inbox():
                await department.has_questions(1)
                await asyncio.to_thread(running.__exit__, None, None, None)
                await asyncio.to_thread(department.append, a_mail("CONSULTA", "¿Mientras?"))
                await asyncio.sleep(1)
                await asyncio.to_thread(stack.enter_context, servers.nx_27017(tmp_path, port))
                questions = await department.has_questions(2, 30)
    assert {question.user_id for question in questions} == {ana.id}


async def test_users_database_that_is_away_loses_nothing(
    department: Department, tmp_path: Path
) -> None:
    department.student()
    department.append(a_mail("CONSULTA", "¿Está?"))
    folder = tmp_path / "later"
    engine = create_user_engine(Settings(database_url=f"sqlite:///{folder / 'users.db'}"))
    department.users = UserRepository(engine)
    async with department.inbox():
        await asyncio.sleep(1)
        assert not await _all_seen(department)
        folder.mkdir()
        shutil.copy(tmp_path / "users.db", folder)
        await department.has_questions(1)
    engine.dispose()


async def test_wrong_password_is_said_once_and_tried_again(department: Department) -> None:
    department.student()
    file = department.settings.passwords_file
    right = file.read_text()
    wrong = {**json.loads(right), "imap_password": "wr0ng"}
    file.write_text(json.dumps(wrong))
    settings = department.settings.model_copy()
    settings._passwords = None
    with structlog.testing.capture_logs() as lines:
        async with department.inbox(settings):
            await asyncio.sleep(1.5)
    file.write_text(right)
    errors = [line for line in lines if line["log_level"] == "error"]
    assert len(errors) == 1
    assert "check imap_password in passwords.json" in errors[0]["reason"]
    assert "wr0ng" not in repr(lines)


async def test_folder_that_is_not_there_is_named(department: Department) -> None:
    settings = department.settings.model_copy(update={"imap_folder": "Consultas"})
    with structlog.testing.capture_logs() as lines:
        async with department.inbox(settings):
            await asyncio.sleep(0.7)
            with department.mail.mailbox(COURSE) as client:
                client.create("Consultas")
            await until(lambda: _some(_position(department)))
    reasons = [line["reason"] for line in lines if line["log_level"] == "error"]
    assert any("'Consultas' (IMAP_FOLDER)" in reason for reason in reasons)


async def test_starttls_is_wanted_before_the_login(department: Department) -> None:
    department.student()
    department.append(a_mail("CONSULTA", "¿Cifrado?"))
    changes = {"imap_port": department.mail.imap_port, "imap_tls": "auto"}
    async with department.inbox(department.settings.model_copy(update=changes)):
        await department.has_questions(1)


ROBOTS = [
    {"Auto_Submitted": "auto-replied"},
    {"Auto_Submitted": "auto-generated; type=x"},
    {"Precedence": "bulk"},
    {"Precedence": "list"},
    {"Precedence": "junk"},
    {"List_Id": "<curso.uni.test>"},
    {"List_Unsubscribe": "<mailto:x@uni.test>"},
    {"X_Loop": "x"},
    {"X_Auto_Response_Suppress": "All"},
    {"X_Autoreply": "yes"},
    {"X_Autorespond": "x"},
    {"Return_Path": "<>"},
    {"Message_ID": "<question-3.0123456789abcdef@uni.test>"},
    {"From": "MAILER-DAEMON@uni.test"},
    {"From": "no-reply@uni.test"},
    {"From": COURSE},
]


async def test_two_robots_never_talk(department: Department) -> None:
    department.student()
    department.append(*(a_mail("CONSULTA", "¿Yo?", **headers) for headers in ROBOTS))
    department.append(a_mail("CONSULTA", "¿Persona?", Auto_Submitted="no"))
    async with department.inbox():
        await department.look_at(len(ROBOTS) + 1)
    assert [question.input for question in await department.questions()] == ["¿Persona?"]
    assert len(await department.written()) == 1
    assert await _all_seen(department)


async def test_mail_with_a_null_return_path_from_postfix_is_not_answered(
    department: Department,
) -> None:
    department.student()
    department.mail.deliver(a_mail("CONSULTA", "¿Yo?"), COURSE)
    department.mail.messages(COURSE, at_least=1)
    async with department.inbox():
        await department.look_at(1)
    assert await department.questions() == []
    assert await department.written() == []


async def test_bounce_marks_the_answer_and_stops_mail_to_the_address(
    department: Department,
) -> None:
    gone = "gone@other.test"
    user = department.student(gone)
    await department.queue.enqueue(input="¿Hay examen?", email=gone, user_id=user.id)
    question = await department.answer()
    async with department.mailer():
        await until(lambda: _is(department, question.id, QuestionState.UNDELIVERABLE), 30)
        stored = await department.queue.one(question.id)
        assert stored
        assert stored.error
        assert "5.1.2" in stored.error
        suppressions = Suppressions(department.database)
        assert "5.1.2" in str(await suppressions.reason(gone))
        await department.queue.enqueue(input="¿Y otro?", email=gone, user_id=user.id)
        second = await department.answer()
        await until(lambda: _is(department, second.id, QuestionState.UNDELIVERABLE))
        refused = await department.queue.one(second.id)
        assert refused
        assert "came back before" in str(refused.error)
        # What brings the address back to life is sent all the same.
        number = await department.mails.enqueue(
            MailKind.CONFIRMATION,
            email=ANA,
            language="es",
            values={
                "url": "https://consultas.uni.test/confirm/x",
                "expires": (system_clock() + timedelta(days=1)).isoformat(),
            },
        )
        await suppressions.add(ANA, "5.1.1")
        await asyncio.to_thread(department.mail.messages, ANA, at_least=1)
    assert number
    assert await _all_seen(department)


async def _is(department: Department, number: int, state: QuestionState) -> bool:
    question = await department.queue.one(number)
    return question is not None and question.state is state


def a_report(message_id: str, action: str, status: str) -> bytes:
    return (
        "From: MAILER-DAEMON@uni.test\r\nSubject: Report\r\nReturn-Path: <>\r\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\n\r\n"
        "--x\r\n\r\nSorry.\r\n--x\r\nContent-Type: message/delivery-status\r\n\r\n"
        "Reporting-MTA: dns; uni.test\r\n\r\nFinal-Recipient: rfc822; ana@uni.test\r\n"
        f"Action: {action}\r\nStatus: {status}\r\nDiagnostic-Code: smtp; 550 {status} no\r\n\r\n"
        "--x\r\nContent-Type: text/rfc822-headers\r\n\r\n"
        f"Message-ID: {message_id}\r\n\r\n--x--\r\n"
    ).encode()


@pytest.mark.parametrize(
    ("action", "status", "is_marked", "is_dead"),
    [
        ("failed", "5.1.1", True, True),
        ("failed", "5.2.2", True, False),
        ("failed", "4.4.7", True, False),
        ("delayed", "4.4.1", False, False),
    ],
)
async def test_report_says_what_became_of_an_answer(
    department: Department, action: str, status: str, is_marked: bool, is_dead: bool
) -> None:
    user = department.student()
    await department.queue.enqueue(input="¿Hay examen?", email=ANA, user_id=user.id)
    question = await department.answer()
    claimed = await department.queue.claim_answered()
    assert claimed
    assert await department.queue.mark_sent(claimed.id, claimed.mail_claims)
    made_up = f"<question-{question.id}.0123456789abcdef@uni.test>"
    department.append(
        a_report(made_up, "failed", "5.1.1"),
        a_report(question_message_id(question, COURSE), action, status),
    )
    async with department.inbox():
        await department.look_at(2)
    assert await _is(department, question.id, QuestionState.UNDELIVERABLE) is is_marked
    assert bool(await Suppressions(department.database).reason(ANA)) is is_dead
    assert [r"\Seen" in flags for flags in department.mail.flags(COURSE)] == [False, True]


async def test_report_to_the_account_for_passwords_is_read_in_the_same_folder(
    department: Department,
) -> None:
    settings = department.settings.model_copy(
        update={"recovery_smtp_username": "cuentas@mail.uni.test"}
    )
    number = await department.mails.enqueue(
        MailKind.ACKNOWLEDGEMENT, email=ANA, language="es", values={}
    )
    mail = await department.mails.claim()
    assert mail
    assert mail.id == number
    assert await department.mails.mark_sent(mail.id, mail.mail_claims)
    message_id = mail_message_id(mail, "cuentas@mail.uni.test")
    department.append(a_report(message_id, "failed", "5.1.1"))
    async with department.inbox(settings):
        await department.look_at(1)
    (stored,) = await department.written()
    assert stored["status"] == "undeliverable"
    assert await Suppressions(department.database).reason(ANA)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"recovery_smtp_username": "cuentas@uni.test"}, COURSE),
        (
            {"recovery_smtp_username": "cuentas@uni.test", "smtp_username": "salida@uni.test"},
            COURSE,
        ),
    ],
)
async def test_reply_to_an_acknowledgement_goes_to_the_inbox(
    department: Department, changes: dict[str, str], expected: str | None
) -> None:
    department.student()
    department.append(a_mail("CONSULTA", "¿Sí?"))
    async with department.inbox(department.settings.model_copy(update=changes)):
        await department.look_at(1)
    (acknowledgement,) = await department.written()
    assert acknowledgement["values"].get("reply_to") == expected


async def test_who_may_not_ask_is_told_why_and_not_too_often(department: Department) -> None:
    department.student(EVA, confirmed=False)
    inactive = department.student("baja@uni.test")
    department.users.set_active(inactive.id, False)
    for _ in range(2):
        department.append(
            a_mail("CONSULTA", "¿Yo?", STRANGER.upper()),
            a_mail("CONSULTA", "¿Y yo?", EVA),
            a_mail("CONSULTA", "¿Y yo qué?", "baja@uni.test"),
        )
    async with department.inbox():
        await department.look_at(6)
    told = [(m["email"], m["values"]["reason"]) for m in await department.written()]
    assert told == [(STRANGER, "unregistered"), (EVA, "unconfirmed"), ("baja@uni.test", "inactive")]
    assert await department.questions() == []
    assert await _all_seen(department)
    week_later = AccountMails(
        department.database, clock=lambda: system_clock() + timedelta(days=7, minutes=1)
    )
    assert not await week_later.was_written_within(
        STRANGER, MailKind.NOT_ACCEPTED, timedelta(days=7)
    )


async def test_stranger_reads_in_his_mailbox_how_to_register(department: Department) -> None:
    asked = a_mail("CONSULTA derivadas", "¿Qué es?", STRANGER)
    async with department.mailer():
        await asyncio.to_thread(department.send, asked, STRANGER)
        (told,) = await asyncio.to_thread(department.mail.messages, STRANGER, at_least=1)
    assert told["Subject"] == "Tu mensaje no se ha podido aceptar"
    assert told["In-Reply-To"] == asked["Message-ID"]
    assert "https://consultas.uni.test/docs" in str(told.get_body(("plain",)))
    assert told["Auto-Submitted"] == "auto-replied"


@pytest.mark.parametrize("text", ["https://evil.test/x", "evil.test", "call +34 900 evil"])
async def test_nobody_has_a_text_or_a_link_sent_to_a_stranger(
    department: Department, text: str
) -> None:
    """Nor who registers another's address and never confirms it, or did so before."""
    department.student(EVA, confirmed=False)
    inactive = department.student("baja@uni.test")
    department.users.set_active(inactive.id, False)
    addresses = [STRANGER, EVA, "baja@uni.test"]
    department.append(*(a_mail(f"CONSULTA {text}", f"Win: {text}", to) for to in addresses))
    async with department.inbox():
        await department.look_at(3)
    written = await department.written()
    assert [mail["email"] for mail in written] == addresses
    assert "evil" not in repr(written)


async def test_domain_that_cannot_register_is_told_which_can(department: Department) -> None:
    settings = department.settings.model_copy(
        update={"allowed_email_domains": ["uni.test", "año.test"]}
    )
    department.append(a_mail("CONSULTA", "¿Yo?", "x@else.test"))
    department.append(a_mail("CONSULTA", "¿Yo?", "x@alumnos.uni.test"))
    department.append(raw_mail("x@xn--ao-zja.test"))
    async with department.inbox(settings):
        await department.look_at(3)
    assert [m["values"]["reason"] for m in await department.written()] == [
        "outside",
        "unregistered",
        "unregistered",
    ]


async def test_mail_that_is_no_question_is_refused_politely(department: Department) -> None:
    department.student()
    empty = a_mail("CONSULTA", "\n-- \nAna\n")
    in_subject = a_mail("[Consulta] ¿Cuándo es el examen?", "\n-- \nAna\n")
    huge = a_mail("CONSULTA", "¿Qué es? " + "palabra " * 200_000)
    long = a_mail("CONSULTA", "¿Qué es? " + "palabra " * 1_000)
    attached = a_mail("CONSULTA", "¿Qué pone en la foto?")
    attached.add_attachment(b"\x89PNG" * 500_000, "image", "png", filename="foto.png")
    below = EmailMessage()
    below.set_content("¿Y esto de abajo?")
    attached.attach(below)
    department.append(empty, in_subject, huge, long, attached)
    async with department.inbox():
        await department.look_at(5)
    questions = await department.questions()
    assert [q.input for q in questions] == [
        "¿Cuándo es el examen?",
        "¿Qué pone en la foto?\n\n¿Y esto de abajo?",
    ]
    written = await department.written()
    assert [m["values"].get("reason") for m in written] == [
        "empty",
        None,
        "too_large",
        "too_long",
        None,
    ]
    assert written[-1]["values"]["attachments"] == "foto.png"
    assert await _all_seen(department)


async def test_cap_of_a_day_is_said_once(department: Department) -> None:
    department.student()
    department.append(*(a_mail("CONSULTA", f"¿Número {n}?") for n in range(5)))
    settings = department.settings.model_copy(update={"mail_questions_per_day": 2})
    async with department.inbox(settings):
        await department.look_at(5)
    assert len(await department.questions()) == 2
    told = [m["values"]["reason"] for m in await department.written(MailKind.NOT_ACCEPTED)]
    assert told == ["too_many_today"]


async def test_too_many_waiting_are_refused(department: Department) -> None:
    department.student()
    department.append(*(a_mail("CONSULTA", f"¿Número {n}?") for n in range(3)))
    settings = department.settings.model_copy(update={"max_waiting_per_student": 2})
    async with department.inbox(settings):
        await department.look_at(3)
    assert len(await department.questions()) == 2
    (told,) = await department.written(MailKind.NOT_ACCEPTED)
    assert told["values"]["reason"] == "too_many_waiting"


async def test_too_many_within_an_hour_are_refused(department: Department) -> None:
    department.student()
    department.append(*(a_mail("CONSULTA", f"¿Número {n}?") for n in range(3)))
    settings = department.settings.model_copy(update={"questions_per_hour": 2})
    async with department.inbox(settings):
        await department.look_at(3)
    assert len(await department.questions()) == 2
    (told,) = await department.written(MailKind.NOT_ACCEPTED)
    assert told["values"]["reason"] == "too_many_this_hour"


async def test_only_an_aligned_dmarc_pass_counts_where_a_server_is_trusted(
    department: Department,
) -> None:
    department.student()
    passed = "mx.uni.test; dmarc=pass header.from=uni.test"
    department.append(
        a_mail("CONSULTA", "¿Sin nada?"),
        a_mail("CONSULTA", "¿De otro?", Authentication_Results=passed.replace("mx", "evil")),
        a_mail("CONSULTA", "¿Otro dominio?", Authentication_Results=passed + "x"),
        a_mail("CONSULTA", "¿Falla?", Authentication_Results="mx.uni.test; dmarc=fail"),
        a_mail("CONSULTA", "¿Bien?", Authentication_Results=passed),
        a_mail("CONSULTA", "¿De un extraño?", STRANGER),
    )
    settings = department.settings.model_copy(update={"trusted_authserv_id": "mx.uni.test"})
    async with department.inbox(settings):
        await department.look_at(6)
    assert [question.input for question in await department.questions()] == ["¿Bien?"]
    assert len(await department.written()) == 1
    assert await _all_seen(department)


async def test_mail_that_cannot_be_processed_does_not_hold_up_the_rest(
    department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    department.student()
    enqueue = department.queue.enqueue

    async def failing(**values: Any) -> Any:
        if values["input"] == "¿Rota?":
            raise ZeroDivisionError
        return await enqueue(**values)

    monkeypatch.setattr(department.queue, "enqueue", failing)
    department.append(a_mail("CONSULTA", "¿Rota?"), a_mail("CONSULTA", "¿Sana?"))
    async with department.inbox():
        await department.look_at(2)
    assert [question.input for question in await department.questions()] == ["¿Sana?"]
    assert [r"\Seen" in flags for flags in department.mail.flags(COURSE)] == [False, True]


async def test_mail_that_mongodb_refuses_each_time_is_set_aside_and_named(
    department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    department.student()
    enqueue = department.queue.enqueue
    tried: list[str] = []

    async def refusing(**values: Any) -> Any:
        tried.append(values["input"])
        if values["input"] == "¿Rota?" or (values["input"] == "¿Torpe?" and len(tried) < 6):
            raise WriteError("Document failed validation", 121)
        return await enqueue(**values)

    monkeypatch.setattr(department.queue, "enqueue", refusing)
    department.append(*(a_mail("CONSULTA", text) for text in ("¿Rota?", "¿Torpe?", "¿Sana?")))
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as lines:
        async with department.inbox():
            await department.look_at(3)
    assert tried == ["¿Rota?"] * 3 + ["¿Torpe?"] * 3 + ["¿Sana?"]
    # What is refused for a moment only is stored.
    questions = await department.questions()
    assert [question.input for question in questions] == ["¿Torpe?", "¿Sana?"]
    (aside,) = [line for line in lines if line["event"].startswith("an e-mail cannot")]
    assert aside["uid"] > 0
    assert [line["reason"] for line in lines if line["log_level"] == "error" and "reason" in line]
    assert [r"\Seen" in flags for flags in department.mail.flags(COURSE)] == [False, True, True]


async def test_mail_is_not_given_up_where_others_have_the_turn_again_and_again(
    department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = department.student()
    enqueue, tried = department.queue.enqueue, 0
    monkeypatch.setattr("core.turns.WAIT_SECONDS", 0.05)

    async def counted(**values: Any) -> Any:
        nonlocal tried
        tried += 1
        # What waits first is another's turn, then a counter that is not written.
        if tried == 4:
            await department.database["turns"].delete_one({"_id": f"user:{student.id}"})
            monkeypatch.setattr("core.sequence._TRIES", 0)
        if tried == 8:
            monkeypatch.setattr("core.sequence._TRIES", 5)
        return await enqueue(**values)

    monkeypatch.setattr(department.queue, "enqueue", counted)
    held = {"_id": f"user:{student.id}", "until": 1000 * int(time.time() + 30), "holder": "x"}
    await department.database["turns"].insert_one(held)
    department.append(a_mail("CONSULTA", "¿Una?"))
    async with department.inbox():
        await department.look_at(1)
    assert [question.input for question in await department.questions()] == ["¿Una?"]
    assert tried == 8


async def test_mail_is_not_given_up_where_mongodb_refuses_everything(
    department: Department, monkeypatch: pytest.MonkeyPatch
) -> None:
    department.student()
    enqueue, move = department.queue.enqueue, Positions.move
    is_full = True

    async def refusing(**values: Any) -> Any:
        if is_full:
            raise OperationFailure("out of disk space", 14031)
        return await enqueue(**values)

    async def refusing_move(self: Positions, *arguments: Any) -> None:
        if is_full:
            raise OperationFailure("out of disk space", 14031)
        await move(self, *arguments)

    monkeypatch.setattr(department.queue, "enqueue", refusing)
    monkeypatch.setattr(Positions, "move", refusing_move)
    department.append(a_mail("CONSULTA", "¿Una?"))
    async with department.inbox():
        await asyncio.sleep(1.5)
        assert not await department.questions()
        is_full = False
        await department.has_questions(1)


async def test_reply_that_only_thanks_is_no_question(department: Department) -> None:
    ana = department.student()
    await department.queue.enqueue(input="¿Mi duda?", email=ANA, user_id=ana.id)
    answered = question_message_id(await department.answer(), COURSE)
    department.append(
        a_mail("Re: CONSULTA", "Vale, muchas gracias.\n\nAna", In_Reply_To=answered),
        a_mail("Re: CONSULTA", "Gracias. ¿Y si es cero?", In_Reply_To=answered),
    )
    async with department.inbox():
        await department.look_at(2)
    questions = await department.questions()
    assert [question.input for question in questions] == ["¿Mi duda?", "Gracias. ¿Y si es cero?"]
    assert len(await department.written()) == 1
    assert await _all_seen(department)


async def test_who_has_just_registered_is_told_to_confirm(department: Department) -> None:
    department.append(a_mail("CONSULTA", "¿Yo?"))
    async with department.inbox():
        await department.look_at(1)
        department.student(confirmed=False)
        for number in (2, 3):
            department.append(a_mail("CONSULTA", "¿Y ahora?"))
            await department.look_at(number)
    told = [m["values"]["reason"] for m in await department.written()]
    assert told == ["unregistered", "unconfirmed"]


@pytest.mark.parametrize(
    ("registered", "sender"),
    [("ana@año.example", "ana@xn--ao-zja.example"), ("ana@xn--ao-zja.example", "ana@año.example")],
)
async def test_student_at_a_domain_with_two_spellings_is_known_by_both(
    department: Department, registered: str, sender: str
) -> None:
    department.student(registered)
    department.append(raw_mail(sender))
    async with department.inbox():
        (question,) = await department.has_questions(1)
    assert question.email == registered


def raw_mail(sender: str) -> bytes:
    return f"From: {sender}\r\nTo: {COURSE}\r\nSubject: CONSULTA\r\n\r\n¿Sí?\r\n".encode()


async def test_logs_hold_no_addresses_texts_or_secrets(department: Department) -> None:
    department.student()
    department.append(
        a_mail("CONSULTA secreta", "¿Palabra secreta?"),
        a_mail("CONSULTA secreta", "¿Palabra secreta?", STRANGER),
        a_mail("CONSULTA secreta", "¿Palabra secreta?", X_Loop="x"),
    )
    with structlog.testing.capture_logs(
        processors=[structlog.contextvars.merge_contextvars]
    ) as lines:
        async with department.inbox():
            await department.look_at(3)
    for secret in ("ana@", "otro@", "secreta", department.mail.accounts[COURSE]):
        assert secret not in repr(lines)
    assert {line["event"] for line in lines} >= {"a question by e-mail", "not accepted"}


async def test_stop_does_not_wait_for_a_server_that_says_nothing(department: Department) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        changes = {"imap_port": silent.getsockname()[1], "imap_tls": "none"}
        started = time.monotonic()
        async with department.inbox(department.settings.model_copy(update=changes)):
            await asyncio.sleep(0.3)
        assert time.monotonic() - started < 8


def test_position_is_kept_for_each_folder(department: Department) -> None:
    mailbox = Mailbox.from_settings(department.settings)
    assert mailbox.name == f"{COURSE}@127.0.0.1/INBOX"
    assert "c0rreo" not in repr(mailbox)
    assert imaplib.IMAP4_SSL_PORT == 993
