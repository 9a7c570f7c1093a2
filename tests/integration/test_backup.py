"""Backup and restore: between every two kinds of stores, under load, cut anywhere, and refused."""

import asyncio
import contextlib
import gzip
import hashlib
import itertools
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from alembic import command
from pymongo.asynchronous.database import AsyncDatabase
from sqlalchemy import inspect, select

from api.migrations import alembic_config, migrate
from consulta.backup import accounts
from consulta.backup.questions import COLLECTIONS, NOT_KEPT, NUMBERS_LEFT_OUT
from consulta.stack import exclusive
from core.clock import as_datetime, milliseconds
from core.mails import AccountMails, MailKind
from core.mongo import connect
from core.questions import (
    Answer,
    Outcome,
    QuestionQueue,
    QuestionState,
    Rating,
    RetryPolicy,
    Source,
    Thread,
)
from core.restoring import RestoreMark, UnfinishedRestoreError
from core.settings import Settings
from core.statistics import Statistics
from core.suppressions import Suppressions
from core.users import Base, UserRepository, create_user_engine
from mailer.inbox import Positions
from rag_worker.relevance import Thresholds
from tests import servers
from tests.api_client import log_in

PASSWORD = "tres gatos en el tejado"
SECRET_KEY = "0123456789abcdef" * 4
FOREIGN = {name.upper() for name in Settings.model_fields} | {"CONSULTA_DATA"}
ANSWER = Answer(
    text="El examen es el 3 de diciembre [1].\u2028¡Suerte! 🙂 $x.y",
    language="es",
    outcome=Outcome.ANSWERED,
    sources=(Source("apuntes.pdf", "V_D ≈ 0,7 V", page=4, heading="Diodos › Modelo"),),
    model="mistral",
)
Row = dict[str, Any]


@dataclass
class Place:
    """Databases of a kind, and the command line with the settings that lead to them."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        names = ("MONGO_URL", "MONGO_DB_NAME", "DATABASE_URL")
        return Settings(_env_file=None, **{n.lower(): self.environment[n] for n in names})

    def command(self, *words: str) -> tuple[list[str], dict[str, str]]:
        inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        inherited["PYTHONPATH"] = os.pathsep.join(sys.path)
        return [sys.executable, "-m", "consulta", *words], {**inherited, **self.environment}

    def __call__(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end."""
        arguments, environment = self.command(*words)
        return subprocess.run(
            arguments,
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=environment,
            timeout=240,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        arguments, environment = self.command(*words)
        # A script's shell has its background processes ignore it, and their children too.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                arguments,
                cwd=self.folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def running(self, *words: str, port: int | None = None) -> Iterator[None]:
        """Run a service meanwhile."""
        arguments, environment = self.command(*words)
        log = self.folder / f"{words[0]}.log"
        with servers.running(arguments, log, environment=environment, cwd=self.folder) as process:
            if port is not None:
                servers.wait_for_port(port, process, log)
            yield

    async def destroy(self) -> None:
        """Delete every row and document that there is."""
        async with connect(self.settings) as client:
            await client.drop_database(self.settings.mongo_db_name)
        engine = create_user_engine(self.settings)
        Base.metadata.drop_all(engine)
        engine.dispose()

    @contextlib.asynccontextmanager
    async def queue_database(self) -> AsyncIterator[AsyncDatabase[Row]]:
        async with connect(self.settings) as client:
            yield client[self.settings.mongo_db_name]

    @contextlib.contextmanager
    def users(self) -> Iterator[UserRepository]:
        engine = create_user_engine(self.settings)
        migrate(engine)
        yield UserRepository(engine)
        engine.dispose()

    async def content(self) -> dict[str, list[Row]]:
        """Everything that is stored, by table and collection."""
        async with self.queue_database() as database:
            content = {
                name: sorted(await database[name].find({}).to_list(), key=str)
                for name in await database.list_collection_names()
            }
        engine = create_user_engine(self.settings)
        for name, row in accounts.read(engine):
            content.setdefault(name, []).append(row)
        engine.dispose()
        return {name: rows for name, rows in content.items() if rows}


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Makes places: queue and users on servers of the given kinds, empty."""
    with contextlib.ExitStack() as closing:

        def make(queue: str = "nx", users: str = "sqlite") -> Place:
            folder = tmp_path / f"place-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            if users == "sqlite":
                users_url = f"sqlite:///{folder / 'users.sqlite'}"
            else:
                server: servers.MariaDB = request.getfixturevalue("mariadb")
                users_url = server.url(closing.enter_context(server.database()))
            return Place(
                folder,
                {
                    "MONGO_URL": request.getfixturevalue(f"{queue}_url"),
                    "MONGO_DB_NAME": f"test_{os.urandom(6).hex()}",
                    "DATABASE_URL": users_url,
                    "SECRET_KEY": SECRET_KEY,
                    "ADDRESS_ACCOUNTS_PER_HOUR": "100000",
                    "ADDRESS_LOGINS_PER_MINUTE": "100000",
                    "ADDRESS_QUESTIONS_PER_HOUR": "100000",
                    "INDEX_LOCATION": str(folder / "index"),
                },
            )

        yield make


async def fill(place: Place) -> None:
    """Accounts, questions and mails in every state that there is."""
    with place.users() as users:
        for name in ("ana", "🦉owl", "ñandú", "日本語", "eva"):
            users.register(email=f"{name}@uni.test", username=name, password=PASSWORD)
        users.confirm(1, "ana@uni.test")
        users.set_active(2, False)
        users.set_password(3, "otros tres gatos aquí")
        users.issue_temporary_password("日本語@uni.test")
        users.create_worker_token("lab-ñ")
    async with place.queue_database() as database:
        # What has failed does not come again while this is looked at.
        queue = QuestionQueue(database, retry=RetryPolicy(first_pause=86_400))
        mails, suppressions = AccountMails(database), Suppressions(database)
        await queue.create_indexes()
        await mails.create_indexes()
        thread = Thread("<1@uni.test>", "Duda 🙂", ("<0@uni.test>",))
        for number in range(1, 9):
            await queue.enqueue(
                input=f"¿Cuánto es 0,{number} $x.y?\n\u2028 🙂",
                email="ana@uni.test",
                user_id=1 + number % 2,
                idempotency_key=f"key-{number}",
                thread=thread if number == 2 else None,
            )
        for _ in range(4):
            claim = await queue.claim()
            assert claim is not None
            assert await queue.complete(claim.id, claim.claims, ANSWER)
        first, second, third = [await queue.claim_answered() for _ in range(3)]
        assert first
        assert second
        assert third
        await queue.mark_sent(first.id, first.mail_claims)
        await queue.mark_undeliverable(second.id, second.mail_claims, "550 nobody")
        await queue.rate(first.id, Rating.ASK_STAFF)
        claim = await queue.claim()
        assert claim is not None
        await queue.fail(claim.id, claim.claims, error="ValueError", apology=ANSWER)
        await queue.claim("worker-1")
        await queue.enqueue(
            input="¿Y el segundo?",
            email="ana@uni.test",
            user_id=1,
            follows=await queue.one(first.id),
        )
        for kind in MailKind:
            await mails.enqueue(
                kind, email="ana@uni.test", language="es", values={"a": "b"}, dedupe=f"{kind}:1"
            )
        mail = await mails.claim()
        assert mail is not None
        await suppressions.add("Dead@uni.test", "550 nobody")
        await Positions(database).start("INBOX", 17, 4)
        await Positions(database).move("INBOX", 17, 4_000_000_000)


def expected(content: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """What a restore makes of it."""
    changed = {name: [dict(row) for row in rows] for name, rows in content.items()}
    for row in [*changed["prompts"], *changed["mails"]]:
        row |= {name: as_datetime(row[name]) for name in ("date", "date_out") if row.get(name)}
    for row in changed["prompts"]:
        if row["held"]:
            row |= {"held": False, "due": row["claimed_ms"]}
    for row in [*changed["prompts"], *changed["mails"]]:
        if row["mail_in_doubt"]:
            row["mail_due"] = milliseconds(row.get("date_out") or row["date"])
    changed["mails"] = [row for row in changed["mails"] if row["kind"] != "temporary_password"]
    for row in changed["counters"]:
        row["value"] += NUMBERS_LEFT_OUT
    return {name: sorted(rows, key=str) for name, rows in changed.items()}


def by_key(content: dict[str, list[Row]]) -> dict[str, dict[Any, Row]]:
    return {
        name: {row.get("_id", row.get("id")): row for row in rows} for name, rows in content.items()
    }


def differences(one: dict[str, list[Row]], other: dict[str, list[Row]]) -> list[Any]:
    """Each field that is not the same in both: table, key, name, and its two values."""
    first, second = by_key(one), by_key(other)
    found: list[Any] = []
    for name in first.keys() | second.keys():
        rows, others = first.get(name, {}), second.get(name, {})
        for key in rows.keys() | others.keys():
            row, there = rows.get(key, {}), others.get(key, {})
            fields = [at for at in row.keys() | there.keys() if row.get(at) != there.get(at)]
            found += [(name, key, at, row.get(at), there.get(at)) for at in fields]
    return found


# Between stores.


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (("nx", "sqlite"), ("nx", "sqlite")),
        (("nx", "sqlite"), ("ferretdb", "mariadb")),
        (("ferretdb", "mariadb"), ("secantusdb", "mariadb")),
        (("secantusdb", "mariadb"), ("nx", "sqlite")),
    ],
    ids="+".join,
)
async def test_everything_comes_back_on_any_store(
    place: Any, source: tuple[str, str], target: tuple[str, str]
) -> None:
    old, new = place(*source), place(*target)
    await fill(old)
    before = await old.content()
    made = old("backup", "all.backup")
    assert made.returncode == 0, made.stderr
    assert b"5 accounts, 1 workers' tokens, 9 questions, 5 other mails, 1 dead" in made.stdout
    restored = new("restore", str(old.folder / "all.backup"))
    assert restored.returncode == 0, restored.stderr
    after = await new.content()
    assert differences(after, expected(before)) == []
    assert differences(await old.content(), before) == [], "a backup changes nothing"


async def test_restored_service_goes_on_where_it_was(place: Any) -> None:
    old, new = place(), place("secantusdb", "mariadb")
    await fill(old)
    old("backup", "all.backup")
    assert new("restore", str(old.folder / "all.backup")).returncode == 0
    with new.users() as users:
        assert users.authenticate("ana", PASSWORD) is not None
        assert users.authenticate("🦉owl", PASSWORD) is None, "it is disabled"
        assert users.authenticate("ñandú", "otros tres gatos aquí") is not None
        later = users.register(email="x@uni.test", username="later", password=PASSWORD)
        assert later.id == 6
    async with new.queue_database() as database:
        queue = QuestionQueue(database)
        again = await queue.enqueue(
            input="¿Cuánto es 0,7 $x.y?\n\u2028 🙂",
            email="ana@uni.test",
            user_id=2,
            idempotency_key="key-7",
        )
        assert (again.question.id, again.created) == (7, False)
        asked = await queue.enqueue(input="¿Y ahora?", email="ana@uni.test", user_id=1)
        assert asked.question.id == 9 + NUMBERS_LEFT_OUT + 1
        # The one that was being answered is the oldest that waits.
        claims = [await queue.claim() for _ in range(4)]
        assert [claim.id for claim in claims if claim] == [6, 7, 8, 9]
        counts = await Statistics(database).counts()
        assert counts.by_state[QuestionState.SENT] == 1
        assert counts.by_state[QuestionState.UNDELIVERABLE] == 1


async def test_backup_is_for_its_owner_and_holds_no_secret(place: Any) -> None:
    old = place("nx", "mariadb")
    await fill(old)
    assert old("backup", "all.backup").returncode == 0
    file = old.folder / "all.backup"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in old.folder.iterdir()] == ["all.backup"]
    content = gzip.decompress(file.read_bytes()).decode()
    password = old.settings.database_url.get_secret_value().split(":")[2].split("@")[0]
    for secret in (SECRET_KEY, password, '"kind":"temporary_password"', PASSWORD):
        assert secret not in content.replace('": "', '":"')


def test_every_collection_of_the_program_is_kept_or_named_as_not_kept() -> None:
    root = Path(__file__).parents[2]
    sources = [
        file
        for room in ("core", "api", "mailer", "consulta")
        for file in (root / room).rglob("*.py")
    ]
    named = {
        part.partition('"]')[0]
        for file in sources
        for part in file.read_text("utf-8").split('database["')[1:]
    }
    assert named == {*COLLECTIONS, *NOT_KEPT}


def test_every_table_is_kept_or_named_as_not_kept(place: Any) -> None:
    engine = create_user_engine(place().settings)
    migrate(engine)
    assert set(inspect(engine).get_table_names()) == {*accounts.TABLES, *accounts.NOT_KEPT}
    engine.dispose()


# Settings.


async def test_settings_and_calibration_come_back(place: Any) -> None:
    old, new = place(), place()
    await fill(old)
    own = {"COURSE_NAME": 'Física "II"', "MAX_WAITING_PER_STUDENT": "7", "IMAP_SERVER": "i.test"}
    old.environment |= own
    fitted = Thresholds(0.25, 0.5, {"file": "questions.jsonl"})
    (old.folder / "index").mkdir()
    fitted.store(old.folder / "index")
    old("backup", "all.backup")
    new.environment["SECRET_KEY"] = SECRET_KEY[::-1]
    restored = new("restore", str(old.folder / "all.backup"))
    assert restored.returncode == 0, restored.stderr
    assert "SECRET_KEY is not the one of the backup" in restored.stdout.decode()
    assert Thresholds.of_index(new.folder / "index") == fitted
    settings = Settings(_env_file=new.folder / ".env")
    assert (settings.course_name, settings.max_waiting_per_student) == ('Física "II"', 7)
    assert settings.imap_server is None
    # A file that is there is not touched; what differs is told.
    (new.folder / ".env").write_text("COURSE_NAME=Química\n")
    again = new("restore", "--replace", str(old.folder / "all.backup"))
    assert again.returncode == 0, again.stderr
    assert r'COURSE_NAME="Física \"II\""' in again.stdout.decode()
    assert (new.folder / ".env").read_text() == "COURSE_NAME=Química\n"


# Files.


async def test_existing_file_is_kept_unless_told_otherwise(place: Any) -> None:
    here = place()
    (here.folder / "all.backup").write_text("precious")
    refused = here("backup", "all.backup")
    assert refused.returncode == 1
    assert b"--overwrite" in refused.stderr
    assert (here.folder / "all.backup").read_text() == "precious"
    (here.folder / "all.backup.part").write_text("of a backup that was killed" * 1000)
    assert here("backup", "--overwrite", "all.backup").returncode == 0
    assert here("restore", "all.backup").returncode == 0
    assert not (here.folder / "all.backup.part").exists()


@pytest.mark.parametrize("name", ["no/such/folder.backup", "."])
def test_place_that_cannot_be_written_is_one_sentence(place: Any, name: str) -> None:
    refused = place()("backup", "--overwrite", name)
    assert refused.returncode == 1
    assert refused.stderr.startswith(b"consulta: ")
    assert len(refused.stderr.splitlines()) == 1


def test_full_disk_is_one_sentence(place: Any) -> None:
    here = place()
    arguments, environment = here.command("backup", "-")
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            arguments,
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=here.folder,
            check=False,
        )
    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr
    assert b"cannot be written" in ended.stderr


async def test_through_a_pipe(place: Any) -> None:
    old, new = place(), place()
    await fill(old)
    made = old("backup", "-")
    assert made.returncode == 0, made.stderr
    assert b"9 questions" in made.stderr
    restored = new("restore", "-", stdin=made.stdout)
    assert restored.returncode == 0, restored.stderr
    assert len((await new.content())["prompts"]) == 9


@pytest.mark.parametrize("damage", ["cut", "changed", "other", "missing"])
async def test_file_that_is_not_whole_changes_nothing(place: Any, damage: str) -> None:
    old, new = place(), place()
    await fill(old)
    await fill(new)
    old("backup", "all.backup")
    file = old.folder / "all.backup"
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-20])
    elif damage == "changed":
        file.write_bytes(content[:-200] + b"x" + content[-199:])
    elif damage == "other":
        file.write_text("SELECT")
    else:
        file.unlink()
    before = await new.content()
    refused = new("restore", "--replace", str(file))
    assert refused.returncode == 1
    assert refused.stderr.startswith(b"consulta: ")
    assert len(refused.stderr.splitlines()) == 1
    assert await new.content() == before


# What is there already, and who is at it.


async def test_what_is_there_is_replaced_only_when_told(place: Any) -> None:
    old, new = place(), place("secantusdb", "mariadb")
    await fill(old)
    old("backup", "all.backup")
    with new.users() as users:
        users.register(email="old@uni.test", username="old", password=PASSWORD)
    refused = new("restore", str(old.folder / "all.backup"))
    assert refused.returncode == 1
    assert b"--replace" in refused.stderr
    async with new.queue_database() as database:
        assert await database.list_collection_names() == []
        await QuestionQueue(database).enqueue(input="Vieja", email="old@uni.test", user_id=1)
    assert new("restore", "--replace", str(old.folder / "all.backup")).returncode == 0
    assert differences(await new.content(), expected(await old.content())) == []


async def test_restore_beside_a_running_service_is_refused(place: Any) -> None:
    old, new = place(), place("nx", "mariadb")
    await fill(old)
    old("backup", "all.backup")
    file = str(old.folder / "all.backup")
    engine = create_user_engine(new.settings)
    with engine.connect() as connection:
        connection.execute(select(1))
        refused = new("restore", file)
    engine.dispose()
    assert refused.returncode == 1
    assert b"Others are connected to the users' database (1): stop the API" in refused.stderr
    async with new.queue_database() as database:
        queue = QuestionQueue(database)
        await queue.create_indexes()
        asked = await queue.enqueue(input="¿Cuándo?", email="a@uni.test", user_id=1)
        claim = await queue.claim()
        assert claim is not None
        refused = new("restore", "--replace", file)
        assert f"a worker is answering question {asked.question.id}".encode() in refused.stderr
        await queue.give_back(claim.id, claim.claims)
    assert new("restore", "--replace", file).returncode == 0


@pytest.mark.parametrize("kind", ["nx", "ferretdb", "secantusdb"])
async def test_nobody_adds_or_claims_while_a_restore_has_not_ended(place: Any, kind: str) -> None:
    here = place(kind)
    await fill(here)
    async with here.queue_database() as database:
        mark = RestoreMark(database)
        await mark.set()
        before = await here.content()
        queue, mails, positions = (
            QuestionQueue(database),
            AccountMails(database),
            Positions(database),
        )
        for verb in (
            lambda: queue.enqueue(input="¿Qué?", email="ana@uni.test", user_id=1),
            queue.claim,
            queue.claim_answered,
            mails.claim,
            lambda: mails.enqueue(
                MailKind.CONFIRMATION, email="a@uni.test", language="es", values={}
            ),
            lambda: positions.find("INBOX", 17),
            lambda: positions.start("INBOX", 18, 0),
            lambda: positions.move("INBOX", 17, 4_100_000_000),
        ):
            with pytest.raises(UnfinishedRestoreError, match="let it end, or repeat it"):
                await verb()
        assert await here.content() == before
        for words in (
            *(["status"], ["export"], ["requeue", "2"]),
            *(["users", "export", "ana"], ["users", "forget", "ana", "--yes"]),
        ):
            told = here(*words)
            assert told.returncode == 1
            assert told.stderr.startswith(b"consulta: Not now: the restore of"), words
        watching = here.start("status", "--watch", "--interval", "1")
        assert watching.stdout is not None
        said = await asyncio.to_thread(watching.stdout.readline)
        watching.kill()
        watching.communicate()
        assert b"The restore of" in said, said
        assert await here.content() == before
        await mark.remove()
        assert await queue.claim() is not None, "the same queue goes on"
        assert await queue.claim_answered() is not None


# Cut anywhere.


async def many(place: Place, count: int) -> None:
    with place.users() as users:
        users.register(email="ana@uni.test", username="ana", password=PASSWORD)
    async with place.queue_database() as database:
        queue = QuestionQueue(database)
        await queue.create_indexes()
        first = await queue.enqueue(input="¿Cuándo?", email="ana@uni.test", user_id=1)
        document = await database["prompts"].find_one({"_id": first.question.id})
        assert document is not None
        copies = [
            {**document, "_id": n, "number": n, "dedupe": str(n), "input": f"¿{n}? " + "ñ" * 500}
            for n in range(2, count + 1)
        ]
        fast = database.client[database.name]["prompts"]
        await fast.insert_many(copies)
        await database["counters"].update_one({"_id": "prompts"}, {"$set": {"value": count}})


async def test_restore_that_is_killed_is_recognised_and_done_anew(place: Any) -> None:
    old, new = place("secantusdb"), place()
    await many(old, 3000)
    assert old("backup", "all.backup").returncode == 0
    file = str(old.folder / "all.backup")
    async with new.queue_database() as database:
        for least in (1, 1200, 2600):
            process = new.start("restore", file)
            while process.poll() is None:
                cursor = await database["prompts"].aggregate([{"$count": "count"}])
                if next(iter([row["count"] async for row in cursor]), 0) >= least:
                    break
            process.kill()
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            assert await RestoreMark(database).begun() is not None
            engine = create_user_engine(new.settings)
            assert accounts.count(engine) == 0, "nobody gets in before everything is there"
            engine.dispose()
        assert b"half a backup" in new("backup", "half.backup").stderr
        api = new("api")
        assert api.returncode != 0
        assert b"has not ended" in api.stdout + api.stderr
        restored = new("restore", file)
        assert restored.returncode == 0, restored.stderr
        assert b"was interrupted: it is done anew" in restored.stdout
        assert await RestoreMark(database).begun() is None
        numbers = [row["_id"] async for row in database["prompts"].find({}, {"_id": 1})]
        assert sorted(numbers) == list(range(1, 3001))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_backup_that_is_ended_leaves_no_file_that_looks_whole(
    place: Any, number: signal.Signals
) -> None:
    old = place("secantusdb")
    await many(old, 2000)
    process = old.start("backup", "all.backup")
    while not (old.folder / "all.backup.part").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(number)
    process.communicate()
    # PyMongo may swallow an interruption; then the backup ends well.
    assert (old.folder / "all.backup").exists() == (process.returncode == 0)
    if number == signal.SIGINT:
        assert not (old.folder / "all.backup.part").exists()
    else:
        assert process.returncode == -number
    assert old("backup", "--overwrite", "all.backup").returncode == 0


# Under load.


@dataclass
class Students:
    """They register and ask through the API, as fast as it answers, until told to stop."""

    url: str
    accepted: dict[int, str] = field(default_factory=dict)
    """The user name by the question's number, for each 202."""
    registered: list[str] = field(default_factory=list)

    async def ask(self, client: httpx.AsyncClient, name: str) -> None:
        account = {"username": name, "email": f"{name}@uni.test", "password": PASSWORD}
        assert (await client.post("/user", json=account)).status_code == 201
        self.registered.append(name)
        headers = await log_in(client, name)
        for number in range(5):
            asked = await client.post(
                "/questions", json={"input": f"¿{number}, {name}?"}, headers=headers
            )
            assert asked.status_code == 202, asked.text
            self.accepted[asked.json()["id"]] = name

    async def run(self, prefix: str, stop: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            for number in range(10_000):
                if stop.is_set():
                    return
                await self.ask(client, f"{prefix}{number}")


async def answer_all(place: Place, stop: asyncio.Event) -> None:
    """A worker that is fast, and now and then dies with a question in its hands."""
    async with place.queue_database() as database:
        queue = QuestionQueue(database, lease_seconds=1)
        for count in itertools.count():
            claim = await queue.claim("worker")
            if claim is None:
                if stop.is_set():
                    return
                await asyncio.sleep(0.02)
            elif count % 10 < 9:
                await queue.complete(claim.id, claim.claims, ANSWER)


async def eventually(check: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + 60
    while not await check():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("source", "target"),
    [(("nx", "sqlite"), ("secantusdb", "mariadb")), (("secantusdb", "mariadb"), ("nx", "sqlite"))],
    ids=["to a server", "to one machine"],
)
async def test_backup_under_load_brings_back_every_question_after_all_is_destroyed(
    place: Any, source: tuple[str, str], target: tuple[str, str], tmp_path: Path
) -> None:
    old, new = place(*source), place(*target)
    smtp_port, mailbox_port = servers.free_port(), servers.free_port()
    (tmp_path / "passwords.json").write_text(
        json.dumps(dict.fromkeys(("forgot_password", "smtp_password", "imap_password"), ""))
    )
    for here in (old, new):
        port = servers.free_port()
        here.environment |= {
            "API_PORT": str(port),
            "API_URL": f"http://127.0.0.1:{port}",
            "SMTP_SERVER": "127.0.0.1",
            "SMTP_PORT": str(smtp_port),
            "SMTP_TLS": "none",
            "SMTP_USERNAME": "consulta@uni.test",
            "PASSWORDS_FILE": str(tmp_path / "passwords.json"),
        }
    catcher = ["mailbox", "--maildir", str(tmp_path / "mail")]
    catcher += ["--smtp-port", str(smtp_port), "--port", str(mailbox_port)]
    with old.running(*catcher, port=mailbox_port):
        students = Students(old.environment["API_URL"])
        with old.running("api", port=int(old.environment["API_PORT"])), old.running("mailer"):
            stop = asyncio.Event()
            load = [
                asyncio.create_task(students.run("ana", stop)),
                asyncio.create_task(students.run("eva", stop)),
                asyncio.create_task(answer_all(old, stop)),
            ]

            async def enough() -> bool:
                return len(students.accepted) >= 30

            await eventually(enough, "30 questions")
            before = dict(students.accepted)
            made = await asyncio.to_thread(old, "backup", "all.backup")
            assert made.returncode == 0, made.stderr
            during = len(students.accepted) - len(before)
            stop.set()
            await asyncio.gather(*load)
        assert during > 0, "there was no load"
        async with old.queue_database() as database:
            assert set(await database.list_collection_names()) <= {*COLLECTIONS, *NOT_KEPT}
        await old.destroy()
        file = str(old.folder / "all.backup")
        restored = await asyncio.to_thread(new, "restore", file)
        assert restored.returncode == 0, restored.stderr
        with new.running("api", port=int(new.environment["API_PORT"])), new.running("mailer"):
            stop = asyncio.Event()
            stop.set()

            async def all_sent() -> bool:
                await answer_all(new, stop)
                async with new.queue_database() as database:
                    status = await Statistics(database).counts()
                return set(status.by_state) == {
                    state
                    for state, count in status.by_state.items()
                    if state is QuestionState.SENT or not count
                }

            await eventually(all_sent, "every answer is sent")
            async with new.queue_database() as database:
                questions = [question async for question in QuestionQueue(database).all()]
            with new.users() as users:
                names = {user.id: user.username for user in users.all()}
            async with httpx.AsyncClient(base_url=new.environment["API_URL"]) as client:
                headers = await log_in(client, students.registered[0])
                asked = await client.post("/questions", json={"input": "¿Y?"}, headers=headers)
                assert asked.json()["id"] > max(students.accepted)
    there = {question.id: names[question.user_id] for question in questions}
    assert len(there) == len(questions)
    assert there.items() <= students.accepted.items()
    assert before.items() <= there.items(), "none that was accepted before is lost"
    ids = Counter(
        (message["X-Envelope-To"], message["Message-ID"])
        for file in (tmp_path / "mail" / "new").iterdir()
        if "question-" in (message := message_from_bytes(file.read_bytes()))["Message-ID"]
    )
    mailed = Counter(int(re.findall(r"question-(\d+)", message_id)[0]) for _, message_id in ids)
    assert set(mailed) >= set(there), "every student got an answer"
    assert set(mailed.values()) == {1}, "every copy has the same recipient and Message-ID"


# Versions.


async def test_accounts_of_an_earlier_version_are_restored_into_this_one(place: Any) -> None:
    old, new = place(), place("nx", "mariadb")
    await fill(old)
    engine = create_user_engine(old.settings)
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    engine.dispose()
    assert old("backup", "all.backup").returncode == 0
    restored = new("restore", str(old.folder / "all.backup"))
    assert restored.returncode == 0, restored.stderr
    with new.users() as users:
        assert [user.confirmed for user in users.all()] == [None] * 5


async def test_backup_of_a_later_version_is_refused(place: Any) -> None:
    here = place()
    here("backup", "all.backup")
    lines = gzip.decompress((here.folder / "all.backup").read_bytes())
    header = lines.splitlines()[0].replace(b'"revision": null', b'"revision": "9999"') + b"\n"
    end = {"end": {"rows": {}, "sha256": hashlib.sha256(header).hexdigest()}}
    (here.folder / "later.backup").write_bytes(gzip.compress(header + json.dumps(end).encode()))
    refused = here("restore", "later.backup")
    assert refused.returncode == 1
    assert b"newer Consulta" in refused.stderr


@pytest.mark.parametrize("word", ["backup", "restore"])
async def test_tables_of_a_later_version_are_neither_copied_nor_filled(
    place: Any, word: str
) -> None:
    here = place()
    here("backup", "all.backup")
    with here.users():
        pass
    engine = create_user_engine(here.settings)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    refused = here(word, *(["--overwrite"] if word == "backup" else []), "all.backup")
    assert refused.returncode == 1
    assert b"newer Consulta (revision 9999)" in refused.stderr


# On one machine.


def embedded(folder: Path) -> Place:
    folder.mkdir()
    return Place(folder)


async def test_one_machine_is_backed_up_and_restored_while_nothing_runs(
    place: Any, tmp_path: Path
) -> None:
    old, laptop, server = place(), embedded(tmp_path / "laptop"), place("ferretdb", "mariadb")
    nothing = laptop("backup", "nothing.backup")
    assert nothing.returncode == 2
    assert b"--data" in nothing.stderr
    await fill(old)
    old("backup", "all.backup")
    restored = laptop("restore", str(old.folder / "all.backup"))
    assert restored.returncode == 0, restored.stderr
    assert {path.name for path in (laptop.folder / "var").iterdir()} >= {"users.sqlite", "queue"}
    assert stat.S_IMODE((laptop.folder / "var").stat().st_mode) == 0o700
    assert laptop("restore", str(old.folder / "all.backup")).returncode == 1
    made = laptop("backup", "laptop.backup")
    assert made.returncode == 0, made.stderr
    assert not [
        process
        for process in psutil.process_iter(["cmdline"])  # None of one that has just ended.
        if str(laptop.folder) in " ".join(process.info["cmdline"] or ())
    ]
    moved = server("restore", str(laptop.folder / "laptop.backup"))
    assert moved.returncode == 0, moved.stderr
    there, here = await server.content(), expected(await old.content())
    assert {name for name, *_ in differences(there, here)} == {"counters"}


async def test_running_stack_is_backed_up_and_not_restored_into(place: Any, tmp_path: Path) -> None:
    old, laptop = place(), embedded(tmp_path / "laptop")
    await fill(old)
    data = laptop.folder / "var"
    lines = [f"{name}={value}\n" for name, value in old.environment.items()]
    with exclusive(data):
        (data / "consulta.env").write_text("".join(lines))
        made = laptop("backup", "all.backup")
        assert b"9 questions" in made.stdout, made.stderr
        refused = laptop("restore", "--replace", "all.backup")
        assert refused.returncode == 1
        assert b"Consulta runs from var: stop it" in refused.stderr
    # What a killed one leaves does not count.
    assert laptop("restore", "all.backup").returncode == 0
    assert (data / "users.sqlite").exists()


def test_only_one_of_the_databases_is_named(tmp_path: Path) -> None:
    half = embedded(tmp_path / "half")
    half.environment["DATABASE_URL"] = "sqlite:///users.sqlite"
    refused = half("backup", "all.backup")
    assert refused.returncode == 2
    assert b"MONGO_URL" in refused.stderr
