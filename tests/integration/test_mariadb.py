"""The users' database on a MariaDB that restarts, dies, hangs, and is set up by somebody else."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, event, inspect
from sqlalchemy.exc import DataError, InterfaceError, OperationalError

from api.limits import COUNTS
from api.migrations import alembic_config, migrate
from core import security
from core.settings import Settings
from core.users import (
    Base,
    EmailTakenError,
    User,
    UsernameTakenError,
    UserRepository,
    create_user_engine,
)
from tests.api_client import PASSWORD, log_in, running_app, settings_for
from tests.api_client import register as register_student
from tests.journeys.department import eventually
from tests.servers import MariaDB, mariadb

AWAY = (OperationalError, InterfaceError)


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """A server that these tests may stop, kill and set otherwise."""
    with mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def database(restarted: MariaDB) -> Iterator[str]:
    with restarted.database() as name:
        yield name


def opened(url: str) -> Iterator[Engine]:
    engine = create_user_engine(Settings(database_url=url))
    yield engine
    engine.dispose()


@pytest.fixture
def empty(restarted: MariaDB, database: str) -> Iterator[Engine]:
    """An engine of a database without tables."""
    yield from opened(restarted.url(database))


@pytest.fixture
def users(empty: Engine) -> UserRepository:
    migrate(empty)
    return UserRepository(empty)


def register(users: UserRepository, name: str, email: str | None = None) -> User:
    return users.register(email=email or f"{name}@uni.test", username=name, password=PASSWORD)


def outcome(action: Callable[[], Any]) -> type:
    try:
        return type(action())
    except Exception as error:
        return type(error)


def revise(engine: Engine, direction: Callable[..., None], revision: str) -> None:
    config = alembic_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        direction(config, revision)
        connection.commit()


def tables(engine: Engine) -> dict[str, list[str]]:
    """The columns of each table."""
    seen = inspect(engine)
    return {
        name: sorted(column["name"] for column in seen.get_columns(name))
        for name in seen.get_table_names()
        if name != "alembic_version"
    }


def test_every_migration_goes_up_and_down(empty: Engine) -> None:
    revisions = [
        script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()
    ]
    states = [tables(empty)]
    for revision in reversed(revisions):
        revise(empty, command.upgrade, revision)
        states.append(tables(empty))
    for _ in revisions:
        assert tables(empty) == states.pop()
        revise(empty, command.downgrade, "-1")
    assert tables(empty) == states.pop() == {}
    migrate(empty)
    register(UserRepository(empty), "ana")
    revise(empty, command.downgrade, "base")
    assert tables(empty) == {}
    migrate(empty)
    assert UserRepository(empty).all() == []


@pytest.mark.parametrize("scheme", ["mysql", "mariadb"])
def test_tables_agree_with_the_code(restarted: MariaDB, database: str, scheme: str) -> None:
    url = restarted.url(database).replace("mysql", scheme, 1)
    for engine in opened(url):
        migrate(engine)
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            both = MetaData()
            for table in (*Base.metadata.sorted_tables, COUNTS):
                table.to_metadata(both)
            assert compare_metadata(context, both) == []
        columns = {
            column["name"]: column["type"] for column in inspect(engine).get_columns("users")
        }
        assert columns["email_normal"].collation == "utf8mb4_bin"
        assert columns["username_normal"].collation == "utf8mb4_bin"
        register(UserRepository(engine), "nuñez")
        register(UserRepository(engine), "nunez")


def test_migration_that_is_cut_anywhere_is_finished_by_the_next_start(empty: Engine) -> None:
    migrate(empty)
    complete = tables(empty)
    left = 0

    def interrupt(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        nonlocal left
        if statement.lstrip().startswith(("CREATE", "ALTER", "INSERT", "UPDATE")):
            left -= 1
            if left == 0:
                raise InterruptedError

    event.listen(empty, "before_cursor_execute", interrupt)
    for cut in range(1, 100):
        revise(empty, command.downgrade, "base")
        left = cut
        with contextlib.suppress(InterruptedError):
            migrate(empty)
        if left > 0:
            break
        migrate(empty)
        assert tables(empty) == complete
    assert cut > len(complete), "nothing was interrupted"


def test_simultaneous_starts_migrate_once(restarted: MariaDB, database: str) -> None:
    barrier = Barrier(4)

    def start(_: int) -> None:
        engine = create_user_engine(Settings(database_url=restarted.url(database)))
        barrier.wait(10)
        try:
            migrate(engine)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(start, range(4))) == [None] * 4


def test_of_simultaneous_registrations_one_succeeds_and_the_others_are_told(
    users: UserRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(users, "taken")
    # Hashing takes most of the time, and would keep them apart.
    monkeypatch.setattr(security, "hash_password", lambda _: "hash")
    threads, rounds = 9, 10
    barrier = Barrier(threads)

    def attempt(email: str, name: str) -> type:
        barrier.wait(20)
        return outcome(lambda: register(users, name, email))

    with ThreadPoolExecutor(threads) as pool:
        for number in range(rounds):
            emails = [f"ana{number}@uni.test", f"ANA{number}@UNI.test", f"ａｎａ{number}@uni.test"]
            names = [f"ana{number}", f"Ana{number}", "taken"]
            outcomes = list(pool.map(attempt, emails * 3, sorted(names * 3)))
            assert set(outcomes) <= {User, EmailTakenError, UsernameTakenError}
            assert outcomes.count(User) == 1
    assert len(users.all()) == 1 + rounds


def test_deadlock_of_two_registrations_is_told_to_nobody(
    restarted: MariaDB, empty: Engine, users: UserRepository
) -> None:
    """Both wait for a third that gives up; then each holds what the other needs."""
    columns = "email_normal, username_normal, email, username, password_hash, created"
    flags = "token_version, must_change_password, is_staff, is_active"
    with empty.connect() as third, ThreadPoolExecutor(2) as pool:
        third.exec_driver_sql(
            f"INSERT INTO users ({columns}, {flags}) "
            "VALUES ('ana@uni.test', 'x', '', '', '', NOW(), 1, 0, 0, 1)"
        )
        names = ("ana", "eva")
        waiting = [
            pool.submit(outcome, lambda name=name: register(users, name, "ana@uni.test"))
            for name in names
        ]
        deadline = time.monotonic() + 10
        while restarted.waiting() < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        third.rollback()
        outcomes = {future.result(20) for future in waiting}
    assert outcomes == {User, EmailTakenError}
    assert restarted.deadlocks() > 0, "there was none to recover from"


def test_every_character_is_kept(users: UserRepository) -> None:
    names = ["🦉owl", "ñandú", "nandu", "日本語", "𝔘𝔫𝔦", "straße"]
    for number, name in enumerate(names):
        register(users, name, f"student{number}@uni.test")
    assert [user.username for user in users.all()] == names
    for name in names:
        found = users.find(name)
        assert found is not None
        assert found.username == name
    with pytest.raises(UsernameTakenError):
        register(users, "🦉OWL", "other@uni.test")


def test_database_made_with_other_defaults_keeps_every_character_too(restarted: MariaDB) -> None:
    with restarted.database("CHARACTER SET latin1 COLLATE latin1_swedish_ci") as name:
        for engine in opened(restarted.url(name)):
            migrate(engine)
            register(UserRepository(engine), "🦉")
            register(UserRepository(engine), "ñ")
            register(UserRepository(engine), "n")
            assert len(UserRepository(engine).all()) == 3


def test_what_does_not_fit_is_refused_whatever_the_servers_mode(
    restarted: MariaDB, users: UserRepository
) -> None:
    restarted.execute("SET GLOBAL sql_mode = ''")
    try:
        for engine in opened(users._sessions.kw["bind"].url.render_as_string(False)):
            with pytest.raises(DataError):
                register(UserRepository(engine), "x" * 51)
    finally:
        restarted.execute("SET GLOBAL sql_mode = DEFAULT")
    assert users.all() == []


def test_parts_of_the_address_do_what_the_url_does(
    restarted: MariaDB, database: str, users: UserRepository
) -> None:
    register(users, "ana")
    settings = Settings(
        db_host="127.0.0.1",
        db_port=restarted.port,
        db_name=database,
        db_user=restarted.user,
        db_pass=restarted.password,
    )
    engine = create_user_engine(settings)
    assert UserRepository(engine).find("ana") is not None
    engine.dispose()


def test_restart_costs_no_request(restarted: MariaDB, users: UserRepository) -> None:
    register(users, "ana")
    restarted.service.stop()
    started = time.monotonic()
    with pytest.raises(AWAY):
        users.find("ana")
    assert time.monotonic() - started < 6
    restarted.service.start()
    assert users.find("ana") is not None
    register(users, "eva")


def test_kill_loses_no_account_that_was_confirmed(
    restarted: MariaDB, users: UserRepository
) -> None:
    confirmed: list[str] = []
    killed = Event()

    def students(thread: int) -> None:
        for number in range(10_000):
            if killed.is_set():
                return
            name = f"s{thread}-{number}"
            try:
                register(users, name)
            except AWAY:
                continue
            confirmed.append(name)

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(students, thread) for thread in range(3)]
        deadline = time.monotonic() + 20
        while len(confirmed) < 15 and time.monotonic() < deadline:
            time.sleep(0.01)
        restarted.service.kill()
        killed.set()
        for future in running:
            future.result(20)
    assert len(confirmed) >= 15
    restarted.service.start()
    stored = {user.username for user in users.all()}
    assert set(confirmed) <= stored
    register(users, "later")


def _stands_still(pid: int) -> bool:
    """Whether every thread has stopped: the signal returns before."""
    states = [
        file.read_text().rpartition(")")[2].split()[0]
        for file in Path(f"/proc/{pid}/task").glob("*/stat")
    ]
    return set(states) == {"T"}


def test_server_that_hangs_holds_nobody_for_ever(restarted: MariaDB, database: str) -> None:
    url = restarted.url(database) + "?read_timeout=1&connect_timeout=1"
    for engine in opened(url):
        users = UserRepository(engine)
        users.ping()
        os.kill(restarted.service.process.pid, signal.SIGSTOP)
        try:
            eventually(lambda: _stands_still(restarted.service.process.pid), 10, "The server stops")
            started = time.monotonic()
            with pytest.raises(AWAY):
                users.ping()
            assert time.monotonic() - started < 5
        finally:
            os.kill(restarted.service.process.pid, signal.SIGCONT)
        users.ping()


async def test_password_is_changed_as_the_manual_says_and_students_notice_nothing(
    restarted: MariaDB, database: str, nx_url: str, database_name: str, tmp_path: Path
) -> None:
    manual = Path("docs/operations.md").read_text(encoding="utf-8")
    statement = re.search(r"on MariaDB `(.+?);`", manual)
    assert statement
    # As the image makes it: for one database, and no more.
    restarted.execute("CREATE USER course@'%' IDENTIFIED BY 'old'")
    restarted.execute(f"GRANT ALL ON {database}.* TO course@'%'")
    parts = {
        "db_host": "127.0.0.1",
        "db_port": restarted.port,
        "db_name": database,
        "db_user": "course",
        "database_url": None,
    }
    before, after = (
        settings_for(nx_url, database_name, tmp_path, **parts, db_pass=password)
        for password in ("old", "new")
    )
    async with running_app(before) as client:
        headers = await register_student(client)
        engine = create_user_engine(before)
        with engine.connect() as connection:
            connection.exec_driver_sql(statement[1])
        engine.dispose()
        with pytest.raises(AWAY, match="Access denied"):
            UserRepository(create_user_engine(before)).ping()
        # It goes on with the connections that it has.
        assert (await client.get("/questions", headers=headers)).status_code == 200
    async with running_app(after) as client:
        assert (await client.get("/questions", headers=headers)).status_code == 200
    restarted.execute("DROP USER course@'%'")


async def test_students_use_the_service_across_a_restart(
    restarted: MariaDB, database: str, nx_url: str, database_name: str, tmp_path: Path
) -> None:
    settings = settings_for(nx_url, database_name, tmp_path, database_url=restarted.url(database))
    async with running_app(settings) as client:
        account = {"email": "ana@uni.test", "username": "ana", "password": PASSWORD}
        assert (await client.post("/user", json=account)).status_code == 201
        again = await client.post("/user", json={**account, "email": "Ana@UNI.test"})
        assert again.status_code == 409
        headers = await log_in(client)
        restarted.service.stop()
        for away in (
            await client.post("/questions", json={"input": "¿Cuándo?"}, headers=headers),
            await client.post("/login", data={"username": "ana", "password": PASSWORD}),
            await client.post("/user", json={**account, "username": "eva"}),
            await client.post("/auth/forgot-password", json={"email": "ana@uni.test"}),
        ):
            assert away.status_code == 503
            assert int(away.headers["retry-after"]) > 0
        restarted.service.start()
        asked = await client.post("/questions", json={"input": "¿Cuándo?"}, headers=headers)
        assert asked.status_code == 202
