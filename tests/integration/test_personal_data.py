"""What is kept about one person: exported whole, forgotten everywhere, ended after a time."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import WriteConcern
from pymongo.asynchronous.database import AsyncDatabase
from sqlalchemy import MetaData, select

from core.clock import milliseconds, system_clock
from core.forgetting import MASK, UNSENT, Person, PersonalData, Retention, masked
from core.links import LinkPurpose, Links
from core.mails import AccountMails, MailKind
from core.mongo import connect
from core.questions import Answer, Outcome, QuestionQueue, QuestionState, Rating, Source, Thread
from core.settings import Settings
from core.statistics import Statistics
from core.suppressions import Suppressions
from core.users import UserRepository, create_user_engine
from mailer.inbox import Reception
from mailer.incoming import read_mail
from mailer.messages import question_message_id
from mailer.outbox import RetryPolicy
from mailer.service import run_mailer
from tests import servers
from tests.integration.test_command_line import FOREIGN
from tests.journeys.department import PASSWORD, Department, department, eventually

Document = dict[str, Any]
MARKED = "zqmarked.perezoso@uni.test"
NAME = "Zqowl_7"
MARKS = ("zqmarked", "perezoso", "zqowl", "zqmid")
SENDER = "consulta@uni.test"
ANSWER = Answer(
    text="Zqmarked, la tensión es 0,7 V [1].",
    language="es",
    outcome=Outcome.ANSWERED,
    sources=(Source("apuntes.pdf", "V_D ≈ 0,7 V", page=4),),
)


@dataclass
class Stores:
    """A department, and the stores behind it."""

    department: Department

    @property
    def settings(self) -> Settings:
        environment = self.department.environment
        return Settings(
            _env_file=None,
            **{n.lower(): v for n, v in environment.items() if n.lower() in Settings.model_fields},
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "consulta", *words, "--data", str(self.department.folder)]

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        return {**inherited, **self.department.environment}

    def __call__(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            cwd=self.department.folder,
            env=self.environment,
            timeout=60,
            check=False,
            text=True,
        )

    @contextlib.asynccontextmanager
    async def queue_database(self) -> AsyncIterator[AsyncDatabase[Document]]:
        async with connect(self.settings) as client:
            yield client[self.settings.mongo_db_name]

    @contextlib.contextmanager
    def users(self) -> Iterator[UserRepository]:
        engine = create_user_engine(self.settings)
        yield UserRepository(engine)
        engine.dispose()

    async def everything(self) -> str:
        """Every document of every collection and every row of every table, as text."""
        found: list[Any] = []
        async with self.queue_database() as database:
            for name in await database.list_collection_names():
                found += [(name, row) async for row in database[name].find({})]
        engine = create_user_engine(self.settings)
        tables = MetaData()
        tables.reflect(engine)
        with engine.connect() as connection:
            for table in tables.tables.values():
                found += [(table.name, tuple(row)) for row in connection.execute(select(table))]
        engine.dispose()
        return "\n".join(map(repr, found)).casefold()


@pytest.fixture(params=["nx+sqlite", "secantusdb+mariadb"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    """A department with its API, on stores of each kind."""
    with ExitStack() as closing:
        environment = {"STAFF_EMAIL": "profe@uni.test"}
        if request.param != "nx+sqlite":
            server: servers.MariaDB = request.getfixturevalue("mariadb")
            name = closing.enter_context(server.database())
            environment |= {
                "MONGO_URL": request.getfixturevalue("secantusdb_url"),
                "MONGO_DB_NAME": f"test_{os.urandom(6).hex()}",
                "DATABASE_URL": server.url(name),
            }
        running = closing.enter_context(department(tmp_path, **environment))
        running.start("api")
        running.wait_until_ready()
        yield Stores(running)


def email_of(sender: str, subject: str, text: str, message_id: str) -> bytes:
    return (
        f"From: Zqmarked Perezoso <{sender}>\r\nTo: {SENDER}\r\nSubject: {subject}\r\n"
        f"Message-ID: {message_id}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
    ).encode()


def bounce_of(message_id: str, recipient: str) -> bytes:
    return (
        "From: MAILER-DAEMON@uni.test\r\nTo: consulta@uni.test\r\nMIME-Version: 1.0\r\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\n\r\n"
        "--x\r\nContent-Type: text/plain\r\n\r\nIt did not arrive.\r\n"
        "--x\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.uni.test\r\n"
        f"\r\nFinal-Recipient: rfc822; {recipient}\r\nAction: failed\r\nStatus: 5.1.1\r\n"
        f"Diagnostic-Code: smtp; 550 5.1.1 <{recipient}>: nobody here\r\n"
        f"--x\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: {message_id}\r\n\r\n--x--\r\n"
    ).encode()


async def answer_next(queue: QuestionQueue, answer: Answer = ANSWER) -> int:
    claim = await queue.claim("worker")
    assert claim is not None
    assert await queue.complete(claim.id, claim.claims, answer)
    return claim.id


async def live_through_everything(stores: Stores) -> dict[str, int]:
    """The marked person uses all there is; another one too. Gives numbers of questions."""
    api = stores.department.api_url
    with httpx.Client(base_url=api, timeout=30) as client:
        for email, name in ((MARKED, NAME), ("eva@uni.test", "eva")):
            account = {"username": name, "email": email, "password": PASSWORD}
            assert client.post("/user", json=account).status_code == 201
        client.post("/login", data={"username": NAME, "password": "wrong"})
        client.post("/login", data={"username": MARKED, "password": "wrong"})
        tokens = {
            name: client.post("/login", data={"username": name, "password": PASSWORD}).json()
            for name in (NAME, "eva")
        }

        def ask(name: str, text: str, key: str) -> int:
            headers = {"Authorization": f"Bearer {tokens[name]['access_token']}"}
            headers["Idempotency-Key"] = key
            asked = client.post("/questions", json={"input": text}, headers=headers)
            assert asked.status_code == 202, asked.text
            return int(asked.json()["id"])

        sent = ask(NAME, "Soy Zqmarked Perezoso, tel. 612 345 678: ¿cuánto vale?", "zqmid-1")
        evas = ask("eva", "¿Y la corriente?", "eva-1")
        async with stores.queue_database() as database:
            queue, mails = QuestionQueue(database), AccountMails(database)
            engine = create_user_engine(stores.settings)
            reception = Reception(
                stores.settings,
                queue=queue,
                mails=mails,
                users=UserRepository(engine),
                suppressions=Suppressions(database),
            )
            with stores.users() as users:
                user = users.find(MARKED)
                assert user is not None
                users.confirm(user.id, MARKED)
            assert await answer_next(queue) == sent
            assert await answer_next(queue, replace(ANSWER, text="Da 3 mA [1].")) == evas
            first = await queue.claim_answered()
            assert first is not None
            assert await queue.mark_sent(first.id, first.mail_claims)
            message_id = question_message_id(first, SENDER)
            token = Links(stores.settings).feedback(sent).rpartition("/")[2]
            rated = client.post(f"/feedback/{token}", data={"choice": "staff"})
            assert rated.is_success
            mail = email_of(
                MARKED, "CONSULTA zqmarked", "¿Y si sube?\n\nZqowl_7", "<zqmid-2@x.test>"
            )
            assert await reception.take(read_mail(mail))
            reply = (
                f"From: {MARKED}\r\nTo: {SENDER}\r\nSubject: Re: tu pregunta\r\n"
                f"Message-ID: <zqmid-3@x.test>\r\nIn-Reply-To: {message_id}\r\n\r\n"
                "¿Y por qué, si no depende de nada? - zqowl_7\r\n"
            ).encode()
            assert await reception.take(read_mail(reply))
            claim = await queue.claim()
            assert claim is not None
            await queue.give_back(claim.id, claim.claims, error="ValueError: zqmarked")
            follow_up = await answer_next(queue)
            answered = await answer_next(queue)
            waiting = ask(NAME, "¿Me lo repites? Zqmarked", "zqmid-4")
            held = await queue.claim("worker-9")
            assert held is not None
            late = ask(NAME, "¿Otra vez?", "zqmid-5")
            assert client.post("/auth/forgot-password", json={"email": MARKED}).status_code == 202
            assert await reception.take(read_mail(bounce_of(message_id, MARKED)))
            engine.dispose()
    return {
        "sent": sent,
        "eva": evas,
        "follow_up": follow_up,
        "answered": answered,
        "held": waiting,
        "held_claims": held.claims,
        "late": late,
    }


async def test_marked_person_is_in_no_byte_after_being_forgotten(stores: Stores) -> None:
    numbers = await live_through_everything(stores)
    before = await stores.everything()
    for mark in MARKS:
        assert mark in before, "the test must put it there"
    made = stores("users", "export", NAME)
    assert made.returncode == 0, made.stderr
    kept = json.loads(made.stdout)
    assert kept["account"]["email"] == MARKED
    assert [row["_id"] for row in kept["questions"]] == [
        n for name, n in numbers.items() if name not in ("eva", "held_claims")
    ]
    assert {row["kind"] for row in kept["mails"]} >= {
        *("temporary_password", "confirmation", "acknowledgement", "for_staff")
    }
    assert [row["_id"] for row in kept["dead_addresses"]] == [MARKED]
    assert {row["limit"] for row in kept["limits"]} >= {"recovery"}
    assert "hash" not in made.stdout
    assert "/confirm/" not in made.stdout
    assert not re.search(r'"password":', made.stdout)

    forgotten = stores("users", "forget", NAME, "--yes")
    assert forgotten.returncode == 0, forgotten.stderr
    assert "3 answers are kept without the person, 2 questions" in forgotten.stdout
    after = await stores.everything()
    for mark in MARKS:
        assert mark not in after
    assert "eva@uni.test" in after
    again = stores("users", "forget", NAME, "--yes")
    assert again.returncode == 1
    assert "Nobody is called" in again.stderr
    assert "nothing is kept" in stores("users", "forget", MARKED, "--yes").stderr
    assert stores("users", "export", MARKED).returncode == 1
    assert _kept(await stores.everything()) == _kept(after)
    async with stores.queue_database() as database:
        queue = QuestionQueue(database)
        late = await queue.complete(numbers["held"], numbers["held_claims"], ANSWER)
        assert not late, "a worker that was at it brings nothing back"
        assert not await queue.requeue_mail(numbers["follow_up"])
        first = await queue.one(numbers["sent"])
        assert first is not None
        assert first.answer is not None
        assert first.answer.text == f"{MASK}, la tensión es 0,7 V [1]."
        assert first.answer.sources == ANSWER.sources
        assert first.input == f"Soy {MASK} {MASK}, tel. {MASK}: ¿cuánto vale?"
        assert first.rating is Rating.ASK_STAFF
        status = await Statistics(database).counts()
        assert status.by_state[QuestionState.WAITING] == 0
        unsent = await database["prompts"].find_one({"_id": numbers["follow_up"]})
        assert unsent is not None
        assert (unsent["status"], unsent["mail_error"]) == ("withdrawn", UNSENT)
        assert unsent["error"] == "ValueError"
        # Only the other one's answer is still to be sent.
        claims = [await queue.claim_answered() for _ in range(2)]
        assert [claim and claim.email for claim in claims] == ["eva@uni.test", None]
    if stores.settings.database_url.get_secret_value().startswith("sqlite"):  # type: ignore[union-attr]
        content = (stores.department.folder / "users.sqlite").read_bytes().lower()
        assert not [mark for mark in MARKS if mark.encode() in content]


def _kept(everything: str) -> list[str]:
    tables = ("('prompts'", "('mails'", "('users'", "('suppressions'")
    return sorted(line for line in everything.splitlines() if line.startswith(tables))


async def test_forgotten_students_login_and_old_links_open_nothing(stores: Stores) -> None:
    with stores.department.student("ana") as ana:
        number = ana.post("/questions", json={"input": "¿Cuánto vale?"}).json()["id"]
        async with stores.queue_database() as database:
            await answer_next(QuestionQueue(database))
        assert stores("users", "forget", "ana@uni.test", "--yes").returncode == 0
        assert ana.get("/questions").status_code == 401
        assert ana.post("/questions", json={"input": "¿Y?"}).status_code == 401
        token = Links(stores.settings).feedback(number).rpartition("/")[2]
        assert Links(stores.settings).read(LinkPurpose.FEEDBACK, token) == number
        assert ana.post(f"/feedback/{token}", data={"choice": "yes"}).status_code == 404
    with stores.department.student("ana") as anew:
        assert anew.get("/questions").json()["questions"] == []


async def test_asking_all_the_time_does_not_bring_the_person_back(stores: Stores) -> None:
    with stores.department.student("zqmarked") as client:
        stop = asyncio.Event()

        async def ask() -> int:
            accepted = 0
            async with httpx.AsyncClient(base_url=client.base_url, headers=client.headers) as own:
                while not stop.is_set():
                    reply = await own.post("/questions", json={"input": "¿Zqmarked?"}, timeout=30)
                    accepted += reply.status_code == 202
            return accepted

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        await asyncio.sleep(1)
        forgotten = await asyncio.to_thread(stores, "users", "forget", "zqmarked", "--yes")
        stop.set()
        accepted = sum(await asyncio.gather(*asking))
    assert forgotten.returncode == 0, forgotten.stderr
    assert accepted > 0
    assert "zqmarked" not in await stores.everything()


async def test_forgetting_that_is_killed_between_stores_is_finished_by_the_next(
    stores: Stores,
) -> None:
    await live_through_everything(stores)
    with stores.users() as users:
        async with stores.queue_database() as database:

            async def closed() -> bool:
                user = users.find(NAME)
                return user is not None and not user.is_active

            async def first_mail_gone() -> bool:
                return await database["mails"].find_one({"_id": 1}) is None

            async def first_question_detached() -> bool:
                found = await database["prompts"].find_one({"email": ""})
                return found is not None

            async def queue_is_clean() -> bool:
                return await database["suppressions"].find_one({"_id": MARKED}) is None

            for is_so_far in (closed, first_mail_gone, first_question_detached, queue_is_clean):
                process = subprocess.Popen(
                    stores.command("users", "forget", NAME, "--yes"),
                    cwd=stores.department.folder,
                    env=stores.environment,
                    stdout=subprocess.DEVNULL,
                )
                deadline = time.monotonic() + 60
                while not await is_so_far():
                    assert process.poll() is None, "it was not caught"
                    assert time.monotonic() < deadline
                process.send_signal(signal.SIGKILL)
                assert process.wait() == -signal.SIGKILL
                assert users.find(NAME) is not None, "the account is deleted last"
    assert stores("users", "forget", NAME, "--yes").returncode == 0
    after = await stores.everything()
    assert not [mark for mark in MARKS if mark in after]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Stores]:
    """On one machine, with a mailbox and no services."""
    with department(tmp_path) as running:
        yield Stores(running)


async def test_with_texts_nothing_of_the_questions_stays(small: Stores) -> None:
    async with small.queue_database() as database:
        queue = QuestionQueue(database)
        await queue.create_indexes()
        assert small("users", "create", "ana", "ana@uni.test", "--student", stdin=f"{PASSWORD}\n")
        await queue.enqueue(input="¿Qué es zqtexto?", email="ana@uni.test", user_id=1)
        await answer_next(queue)
        forgotten = small("users", "forget", "ana", "--yes", "--with-texts")
        assert "0 answers are kept without the person, 1 questions" in forgotten.stdout
        assert await queue.one(1) is None
    assert "zqtexto" not in await small.everything()


async def test_address_without_an_account_is_forgotten_too(small: Stores) -> None:
    async with small.queue_database() as database:
        mails = AccountMails(database)
        await mails.create_indexes()
        await mails.enqueue(
            MailKind.NOT_ACCEPTED,
            email="otro@uni.test",
            language="es",
            values={"reason": "unregistered"},
            dedupe="unregistered:otro@uni.test:5",
            thread=Thread("<zq@x>", "zq", ()),
        )
        await Suppressions(database).add("Otro@uni.test", "550 <otro@uni.test>")
        done = small("users", "forget", "OTRO@uni.test", "--yes")
        assert done.returncode == 0, done.stderr
        assert "1 other mails" in done.stdout
    assert "otro" not in await small.everything()


async def test_caught_mails_of_one_machine_go_too(small: Stores) -> None:
    small.department.start("api")
    small.department.start("mailer")
    small.department.wait_until_ready()
    with small.department.student("zqmarked"), small.department.student("eva"):
        new = small.department.folder / "mail" / "new"
        eventually(lambda: len(list(new.iterdir())) == 2, 30, "Two confirmation mails")
    exported = json.loads(small("users", "export", "zqmarked").stdout)
    assert len(exported["caught_mails"]) == 1
    done = small("users", "forget", "zqmarked", "--yes")
    assert "2 other mails" in done.stdout, done.stdout
    assert len(list(new.iterdir())) == 1
    for log in small.department.folder.glob("*.log"):
        if log.name not in ("nx.log", "mailbox.log"):
            assert "zqmarked" not in log.read_text()


async def test_no_file_of_one_machine_has_the_person_once_it_is_stopped(tmp_path: Path) -> None:
    with department(tmp_path) as running:
        stores = Stores(running)
        running.start("api")
        running.start("mailer")
        running.wait_until_ready()
        with running.student("zqmarked") as student:
            asked = student.post("/questions", json={"input": "Soy zqmarked: ¿cuánto vale?"})
            async with stores.queue_database() as database:
                assert await answer_next(QuestionQueue(database)) == asked.json()["id"]
            running.answered(student, asked.json()["id"])
        done = stores("users", "forget", "zqmarked", "--yes")
        assert "1 answers are kept without the person" in done.stdout, done.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"users.sqlite", "consulta.db", "api.log", "mailer.log"} <= {f.name for f in files}
    assert not [file for file in files if b"zqmarked" in file.read_bytes().lower()]


def test_it_is_asked_before(small: Stores) -> None:
    small("users", "create", "ana", "ana@uni.test", "--student", stdin=f"{PASSWORD}\n")
    for words, code in (("", 2), ("n\n", 1)):
        refused = small("users", "forget", "ana", stdin=words)
        assert refused.returncode == code
        assert "othing was changed" in refused.stderr
    assert small("users", "export", "ana").returncode == 0
    assert small("users", "forget", "ana", stdin="y\n").returncode == 0
    assert small("users", "forget", "nobody", "--yes").returncode == 1


def test_address_of_the_staff_is_not_forgotten_while_wishes_go_there(tmp_path: Path) -> None:
    with department(tmp_path, STAFF_EMAIL="profe@uni.test") as running:
        refused = Stores(running)("users", "forget", "Profe@uni.test", "--yes")
        assert refused.returncode == 1
        assert "STAFF_EMAIL" in refused.stderr


async def test_export_to_a_file_is_for_its_owner(small: Stores) -> None:
    small("users", "create", "ana", "ana@uni.test", "--student", stdin=f"{PASSWORD}\n")
    file = small.department.folder / "ana.json"
    assert small("users", "export", "ana", "--output", str(file)).returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["account"]["username"] == "ana"
    for words in (("users", "export", "ana"), ("export", "--personal-data")):
        file.write_text("x" * 10_000)
        file.chmod(0o644)
        assert small(*words, "--output", str(file)).returncode == 0
        assert file.stat().st_mode & 0o777 == 0o600, "also where it was there"
        assert "x" * 100 not in file.read_text()
    pipe = small.department.folder / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o644)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert small("users", "export", "ana", "--output", str(pipe)).returncode == 0
    assert b'"username": "ana"' in os.read(reader, 10_000)
    os.close(reader)
    assert pipe.stat().st_mode & 0o777 == 0o644, "only files are the program's own"
    refused = small("users", "export", "ana", "--output", str(file / "x"))
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Soy Ana López.", f"Soy {MASK} {MASK}."),
        ("ANA.LOPEZ@uni.test y ana_99", f"{MASK} y {MASK}"),
        ("La banana y el análisis", "La banana y el análisis"),
        ("mi móvil: 612 34 56 78", f"mi móvil: {MASK}"),
        ("0,7 V a 25 ºC", "0,7 V a 25 ºC"),
        ("İstanbul ﬁn ana", f"İstanbul ﬁn {MASK}"),
    ],
)
def test_names_are_masked_as_whole_words(text: str, expected: str) -> None:
    assert masked(text, "ana.lopez@uni.test", "ana_99") == expected


@pytest.mark.parametrize("run", ["a", "a.b", "@", "a@", "1", "1.2 ", "a@b."])
def test_masking_takes_a_time_in_proportion_to_the_text(run: str) -> None:
    def seconds(length: int) -> float:
        text, times = (run * length)[:length], []
        for _ in range(3):
            start = time.process_time()
            masked(text, "ana.lopez@uni.test", "ana_99")
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(32_000) < 10 * seconds(8_000), "four times is in proportion, 16 is the square"


# Retention.


@pytest.fixture(params=["nx", "ferretdb", "secantusdb"])
async def server(
    request: pytest.FixtureRequest, database_name: str
) -> AsyncIterator[AsyncDatabase[Document]]:
    """An empty database on each kind of server."""
    url = request.getfixturevalue(f"{request.param}_url")
    async with connect(Settings(_env_file=None, mongo_url=url)) as client:
        yield client[database_name]
        await client.drop_database(database_name)


async def test_whoever_works_for_a_forgotten_person_brings_nothing_back(
    server: AsyncDatabase[Document],
) -> None:
    queue, mails = QuestionQueue(server), AccountMails(server)
    await queue.create_indexes()
    await mails.create_indexes()
    for _ in range(2):
        await queue.enqueue(input="¿Qué?", email="ana@uni.test", user_id=1)
    await mails.enqueue(
        MailKind.TEMPORARY_PASSWORD, email="ana@uni.test", language="es", values={"password": "x"}
    )
    await answer_next(queue)
    held, answered, mail = await queue.claim(), await queue.claim_answered(), await mails.claim()
    assert held is not None
    assert answered is not None
    assert mail is not None
    person = Person(("Ana@uni.test",), 1, "ana")
    done = await PersonalData(server).forget(person)
    assert (done.kept, done.deleted, done.mails) == (1, 1, 1)
    number, claims = held.id, held.claims
    assert not await queue.renew(number, claims)
    assert not await queue.complete(number, claims, ANSWER)
    assert not await queue.fail(number, claims, error="x", apology=ANSWER)
    assert not await queue.give_back(number, claims)
    for outbox, number, claims in (
        (queue.outbox, answered.id, answered.mail_claims),
        (mails.outbox, mail.id, mail.mail_claims),
    ):
        assert not await outbox.renew(number, claims)
        assert not await outbox.mark_sent(number, claims)
        assert not await outbox.mark_undeliverable(number, claims, "550 <ana@uni.test>")
        assert not await outbox.retry(number, claims, after=0, error="450 <ana@uni.test>")
        assert not await outbox.mark_bounced(number, "550 <ana@uni.test>")
        assert not await outbox.requeue(number)
        assert await outbox.claim() is None
    assert await queue.claim() is None
    assert not await PersonalData(server).forget(person), "twice is once"
    left = [document async for document in server["prompts"].find({})]
    assert "ana" not in repr(left)
    assert await server["mails"].find_one({}) is None


async def test_answer_that_is_sent_while_its_student_is_forgotten_stays_sent(
    server: AsyncDatabase[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, personal = QuestionQueue(server), PersonalData(server)
    await queue.create_indexes()
    for _ in range(2):
        await queue.enqueue(input="¿Qué?", email="ana@uni.test", user_id=1)
        await answer_next(queue)
    # As a document that was made by hand.
    await server["prompts"].update_one({"_id": 2}, {"$unset": {"status": ""}})
    claim = await queue.claim_answered()
    assert claim is not None
    read = personal._prompts.find_one

    async def sent_meanwhile(*about: Any) -> Document | None:
        found = await read(*about)
        await queue.mark_sent(1, claim.mail_claims)
        return found

    monkeypatch.setattr(personal._prompts, "find_one", sent_meanwhile)
    done = await asyncio.wait_for(personal.forget(Person(("ana@uni.test",), 1)), 20)
    assert done.kept == 2
    for number, state, error in (
        (1, QuestionState.SENT, None),
        (2, QuestionState.UNDELIVERABLE, UNSENT),
    ):
        kept = await queue.one(number)
        assert kept is not None
        assert (kept.state, kept.email, kept.error) == (state, "", error)


async def age(database: AsyncDatabase[Document], number: int, days: float) -> None:
    moment = system_clock() - timedelta(days=days)
    for name in ("prompts", "mails"):
        await database[name].update_one(
            {"_id": number}, {"$set": {"date": moment, "date_ms": milliseconds(moment)}}
        )


async def test_retention_ends_only_what_is_old_and_done(server: AsyncDatabase[Document]) -> None:
    queue, mails = QuestionQueue(server), AccountMails(server)
    await queue.create_indexes()
    await mails.create_indexes()
    for number in range(1, 7):
        await queue.enqueue(
            input=f"Soy ana: ¿{number}?",
            email="ana@uni.test",
            user_id=1,
            idempotency_key=f"{number}",
        )
        await mails.enqueue(
            MailKind.CONFIRMATION, email="ana@uni.test", language="es", values={"url": "x"}
        )
    # 1 old and sent, 2 old and undeliverable, 3 old and unsent, 4 young and sent, 5 old and held.
    for _ in range(4):
        await answer_next(queue)
    claims = {claim.id: claim for _ in range(4) if (claim := await queue.claim_answered())}
    sent_mails = {claim.id: claim for _ in range(2) if (claim := await mails.claim())}
    for number in (1, 4):
        assert await queue.mark_sent(number, claims[number].mail_claims)
    assert await queue.mark_undeliverable(2, claims[2].mail_claims, "550 <ana@uni.test>")
    assert await queue.outbox.retry(3, claims[3].mail_claims, after=0, error="450")
    held = await queue.claim()
    assert held is not None
    assert await mails.mark_sent(1, sent_mails[1].mail_claims)
    for number in (1, 2, 3, 5, 6):
        await age(server, number, 31)
    await age(server, 4, 29)
    retention = Retention(server, 30)
    done = await retention.run_if_due()
    assert done is not None
    assert (done.kept, done.mails, done.deleted) == (2, 1, 0)
    assert await retention.run_if_due() is None, "once a day"
    emails = {d["_id"]: d["email"] async for d in server["prompts"].find({}, {"email": 1})}
    assert emails == {1: "", 2: "", **dict.fromkeys((3, 4, 5, 6), "ana@uni.test")}
    first, second = await queue.one(1), await queue.one(2)
    assert first is not None
    assert second is not None
    assert (first.state, first.input) == (QuestionState.SENT, f"Soy {MASK}: ¿1?")
    assert (second.state, second.error) == (QuestionState.UNDELIVERABLE, None)
    assert await queue.complete(5, held.claims, ANSWER), "what was being answered goes on"
    assert {m["_id"] async for m in server["mails"].find({}, {"_id": 1})} == {2, 3, 4, 5, 6}
    again = await queue.enqueue(
        input="Soy ana: ¿1?", email="ana@uni.test", user_id=1, idempotency_key="1"
    )
    assert again.created, "the key is forgotten too"
    last = await retention.last()
    assert last is not None
    assert (last.questions, last.mails) == (2, 1)


async def test_mails_of_the_first_version_end_too(server: AsyncDatabase[Document]) -> None:
    mails = AccountMails(server)
    await mails.create_indexes()
    for number, days in ((1, 31), (2, 29)):
        await mails.enqueue(
            MailKind.CONFIRMATION, email="ana@uni.test", language="es", values={"url": "x"}
        )
        claim = await mails.claim()
        assert claim is not None
        assert await mails.mark_sent(claim.id, claim.mail_claims)
        await age(server, number, days)
    await server["mails"].update_many({}, {"$unset": {"date_ms": ""}})
    await mails.create_indexes()
    done = await Retention(server, 30).run_if_due()
    assert done is not None
    assert done.mails == 1
    assert {m["_id"] async for m in server["mails"].find({}, {"_id": 1})} == {2}


async def test_only_one_of_several_mailers_keeps_the_retention(
    server: AsyncDatabase[Document],
) -> None:
    now = system_clock()
    runs = await asyncio.gather(
        *(Retention(server, 30, clock=lambda: now).run_if_due() for _ in range(5))
    )
    assert len([done for done in runs if done is not None]) == 1
    for hours, is_due in ((23, False), (25, True)):
        later = Retention(server, 30, clock=lambda hours=hours: now + timedelta(hours=hours))
        assert (await later.run_if_due() is not None) == is_due
    # The clock was put back by a year: it does not rest for as long.
    back = Retention(server, 30, clock=lambda: now - timedelta(days=365))
    assert await back.run_if_due() is not None


async def test_retention_that_is_stopped_or_dies_goes_on(database: AsyncDatabase[Document]) -> None:
    assert await Retention(database, 30).run_if_due(lambda: True) is None
    assert await Retention(database, 30).run_if_due() is not None
    # One that was killed has taken it, and says no more.
    await database["retention"].update_one({}, {"$set": {"due": milliseconds(system_clock())}})
    killed = Retention(database, 30)
    assert await killed._take(milliseconds(system_clock()))
    assert await Retention(database, 30).run_if_due() is None
    later = system_clock() + timedelta(hours=1, seconds=1)
    assert await Retention(database, 30, clock=lambda: later).run_if_due() is not None


async def test_mailer_keeps_the_retention_and_status_tells(small: Stores) -> None:
    async with small.queue_database() as database:
        queue = QuestionQueue(database)
        await queue.create_indexes()
        await queue.enqueue(input="¿Qué es zqtexto?", email="zqmarked@uni.test", user_id=1)
        await answer_next(queue)
        claim = await queue.claim_answered()
        assert claim is not None
        await queue.mark_sent(1, claim.mail_claims)
        await age(database, 1, 400)
        small.department.environment["RETENTION_DAYS"] = "365"
        small.department.start("mailer")
        eventually(lambda: "questions=1" in small.department.log("mailer"), 30, "The retention")
        assert "zqmarked" not in small.department.log("mailer")
        assert (await database["prompts"].find_one({"_id": 1}))["email"] == ""  # type: ignore[index]
    assert "kept for 365 days" in small("status").stdout.replace("\n", " ")


async def test_without_the_setting_everything_is_kept(
    database: AsyncDatabase[Document], tmp_path: Path
) -> None:
    (tmp_path / "passwords.json").write_text(
        json.dumps(dict.fromkeys(("forgot_password", "smtp_password", "imap_password"), ""))
    )
    settings = Settings(
        _env_file=None,
        secret_key=os.urandom(32).hex(),
        smtp_server="127.0.0.1",
        smtp_port=9,
        smtp_username=SENDER,
        passwords_file=tmp_path / "passwords.json",
    )
    assert settings.retention_days == 0
    stop = asyncio.Event()
    running = asyncio.create_task(
        run_mailer(settings, database, stop, retry=RetryPolicy(), retention_poll_seconds=0.05)
    )
    await asyncio.sleep(0.5)
    stop.set()
    await running
    assert await database["retention"].find_one({}) is None


async def test_forgetting_many_is_quick_enough(database: AsyncDatabase[Document]) -> None:
    """One student among 5,000 questions: a scan, and no more."""
    queue = QuestionQueue(database)
    await queue.create_indexes()
    await queue.enqueue(input="¿Qué?", email="ana@uni.test", user_id=1)
    await answer_next(queue)
    document = await database["prompts"].find_one({"_id": 1})
    assert document is not None
    fast = database.get_collection("prompts", write_concern=WriteConcern(w=1))
    other = {**document, "email": "eva@uni.test", "user_id": 2}
    for start in range(2, 5000, 500):
        await fast.insert_many(
            [{**other, "_id": n, "number": n, "dedupe": f"{n}"} for n in range(start, start + 500)]
        )
    began = time.monotonic()
    done = await PersonalData(database).forget(Person(("ana@uni.test",), 1, "ana"))
    assert done.kept == 1
    assert time.monotonic() - began < 10
