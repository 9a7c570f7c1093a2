"""Accounts and workers' tokens on a SQLite file and on MariaDB, among threads and processes."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from passlib.hash import argon2
from sqlalchemy import Engine, update
from sqlalchemy.exc import OperationalError

from api.migrations import migrate
from core import security
from core.settings import Settings
from core.users import (
    EmailTakenError,
    TemporaryPasswordUsedError,
    User,
    UsernameTakenError,
    UserRepository,
    create_user_engine,
)
from tests.servers import MariaDB

PASSWORD = "tres gatos en el tejado"
NEW_PASSWORD = "cuatro gatos en el tejado"

# Registers the same ten names as its twin, and prints what came of each.
TWIN = """
import sys
from core.settings import Settings
from core.users import EmailTakenError, UsernameTakenError, UserRepository, create_user_engine

users = UserRepository(create_user_engine(Settings(database_url=sys.argv[1])))
sys.stdin.readline()
for number in range(10):
    email = f"student{number}@example.edu"
    try:
        users.register(email=email, username=f"student{number}", password="tres gatos")
        print("registered")
    except (EmailTakenError, UsernameTakenError) as error:
        print(type(error).__name__)
"""


@pytest.fixture
def engine(users_url: str) -> Iterator[Engine]:
    """The users' database as the API makes it."""
    engine = create_user_engine(Settings(database_url=users_url))
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def users(engine: Engine) -> UserRepository:
    return UserRepository(engine)


@pytest.fixture
def ana(users: UserRepository) -> User:
    return users.register(email="ana@example.edu", username="ana", password=PASSWORD)


@pytest.fixture
def stored(request: pytest.FixtureRequest, users_url: str) -> Callable[[], bytes]:
    """What reads all that the database has on disk."""
    if users_url.startswith("sqlite"):
        return Path(users_url.removeprefix("sqlite:///")).read_bytes
    server: MariaDB = request.getfixturevalue("mariadb")
    return server.stored


def change(engine: Engine, user: User, **values: Any) -> None:
    """Change an account behind the repository's back."""
    with engine.begin() as connection:
        connection.execute(update(User).where(User.id == user.id).values(**values))


def at_once(count: int, action: Callable[[int], Any]) -> list[Any]:
    """What ``action`` returned or raised in each of several threads that start together."""
    barrier = threading.Barrier(count)

    def run(number: int) -> Any:
        barrier.wait(10)
        try:
            return action(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_account_is_found_by_its_id_its_name_and_its_address(
    users: UserRepository, ana: User
) -> None:
    assert users.get(ana.id) is not None
    for identifier in ("ana", "ANA", "ana@example.edu", "Ana@Example.EDU", "ＡＮＡ"):
        found = users.find(identifier)
        assert found is not None
        assert found.id == ana.id
    assert (ana.is_staff, ana.is_active) == (False, True)
    assert not ana.must_change_password
    assert users.get(ana.id + 1) is None
    assert [user.id for user in users.all()] == [ana.id]


@pytest.mark.parametrize(
    "identifier",
    [
        "",
        "an",
        "ana ",
        "anaa",
        "%",
        "ana@example",
        "' OR 1=1 --",
        "a\x00",
        "\ud800",
        "x" * 1_000_000,
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_hostile_names_find_nobody(users: UserRepository, ana: User, identifier: str) -> None:
    assert users.find(identifier) is None
    assert users.authenticate(identifier, PASSWORD) is None
    assert users.issue_temporary_password(identifier) is None


@pytest.mark.parametrize(
    "email", ["ana@example.edu", "ANA@EXAMPLE.EDU", "Ana@example.edu", "ａｎａ@example.edu"]
)
def test_address_is_taken_in_every_spelling(users: UserRepository, ana: User, email: str) -> None:
    with pytest.raises(EmailTakenError):
        users.register(email=email, username="somebody", password=PASSWORD)
    assert len(users.all()) == 1


@pytest.mark.parametrize(
    ("taken", "username"),
    [("ana", "ANA"), ("ana", "ａｎａ"), ("straße", "STRASSE"), ("núñez", "nu\u0301n\u0303ez")],
)
def test_name_is_taken_in_every_spelling(users: UserRepository, taken: str, username: str) -> None:
    users.register(email="first@example.edu", username=taken, password=PASSWORD)
    with pytest.raises(UsernameTakenError):
        users.register(email="second@example.edu", username=username, password=PASSWORD)


def test_an_accent_makes_another_name(users: UserRepository) -> None:
    users.register(email="first@example.edu", username="nunez", password=PASSWORD)
    users.register(email="second@example.edu", username="núñez", password=PASSWORD)
    assert len(users.all()) == 2


def test_of_many_simultaneous_registrations_one_succeeds(users: UserRepository) -> None:
    outcomes = at_once(
        8,
        lambda number: users.register(
            email=("ana@example.edu", "ANA@example.edu")[number % 2],
            username="ana",
            password=PASSWORD,
        ),
    )
    assert sum(isinstance(outcome, User) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, EmailTakenError) for outcome in outcomes) == 7
    assert len(users.all()) == 1


def test_two_processes_never_register_the_same_student_twice(
    users: UserRepository, users_url: str
) -> None:
    twins = [
        subprocess.Popen(
            [sys.executable, "-c", TWIN, users_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        for _ in range(2)
    ]
    try:
        for twin in twins:
            assert twin.stdin is not None
            twin.stdin.write("\n")
            twin.stdin.flush()
        outcomes = [twin.communicate(timeout=60)[0].split() for twin in twins]
    finally:
        for twin in twins:
            twin.kill()
    assert [len(outcome) for outcome in outcomes] == [10, 10]
    assert sum(outcome.count("registered") for outcome in outcomes) == 10
    assert sum(outcome.count("EmailTakenError") for outcome in outcomes) == 10
    assert len(users.all()) == 10


def test_password_opens_with_name_or_address_and_no_other_does(
    users: UserRepository, ana: User
) -> None:
    for identifier in ("ana", "ANA@example.edu"):
        user = users.authenticate(identifier, PASSWORD)
        assert user is not None
        assert user.id == ana.id
    for wrong in ("", PASSWORD.upper(), PASSWORD + " ", "\ud800", "a\x00b", "x" * 1_000_000):
        assert users.authenticate("ana", wrong) is None


def test_password_is_not_stored_as_it_is(
    users: UserRepository, ana: User, stored: Callable[[], bytes]
) -> None:
    users.issue_temporary_password("ana@example.edu")
    content = stored()
    assert b"ana@example.edu" in content
    assert PASSWORD.encode() not in content


def test_password_may_hold_any_character(users: UserRepository) -> None:
    for number, password in enumerate(["a\x00b", "🐈 ñandú", "\ud800", "  spaces  "]):
        name = f"student{number}"
        users.register(email=f"{name}@example.edu", username=name, password=password)
        assert users.authenticate(name, password) is not None


def test_new_account_does_not_take_the_tokens_of_a_lost_one(users: UserRepository) -> None:
    """After a restore, an account of after the backup is lost, and its id is given again."""
    versions = [
        users.register(email=f"{n}@uni.test", username=f"u{n}", password=PASSWORD).token_version
        for n in range(3)
    ]
    assert len(set(versions)) == 3


def test_id_of_a_deleted_account_is_not_given_again(users: UserRepository, ana: User) -> None:
    """What a request under way stores for a forgotten student belongs to nobody."""
    users.delete(ana.id)
    assert users.register(email="eva@uni.test", username="eva", password=PASSWORD).id > ana.id


def test_hash_with_old_parameters_is_renewed_at_login(
    users: UserRepository, engine: Engine, ana: User
) -> None:
    outdated = argon2.using(type="ID", memory_cost=8_192, time_cost=1, parallelism=1)
    change(engine, ana, password_hash=outdated.hash(PASSWORD))
    assert users.authenticate("ana", "wrong") is None
    assert users.authenticate("ana", PASSWORD) is not None
    renewed = users.get(ana.id)
    assert renewed is not None
    assert renewed.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert renewed.token_version == ana.token_version
    assert users.authenticate("ana", PASSWORD) is not None


def test_renewing_a_hash_does_not_bring_a_changed_password_back(
    users: UserRepository, engine: Engine, ana: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    outdated = argon2.using(type="ID", memory_cost=8_192, time_cost=1, parallelism=1)
    change(engine, ana, password_hash=outdated.hash(PASSWORD))
    hash_password = security.hash_password

    def hash_while_somebody_changes_it(password: str) -> str:
        monkeypatch.undo()
        users.set_password(ana.id, NEW_PASSWORD)
        return hash_password(password)

    monkeypatch.setattr(security, "hash_password", hash_while_somebody_changes_it)
    users.authenticate("ana", PASSWORD)
    assert users.authenticate("ana", PASSWORD) is None
    assert users.authenticate("ana", NEW_PASSWORD) is not None


def test_old_password_works_until_the_temporary_one_is_used(
    users: UserRepository, ana: User
) -> None:
    temporary = users.issue_temporary_password("ANA@example.edu")
    assert temporary is not None
    assert temporary.email == "ana@example.edu"
    assert users.authenticate("ana", PASSWORD) is not None
    user = users.authenticate("ana", temporary.password)
    assert user is not None
    assert user.must_change_password
    assert user.token_version == ana.token_version + 1
    assert users.authenticate("ana", PASSWORD) is None


def test_address_is_confirmed_by_its_link_or_by_a_password_sent_to_it(
    users: UserRepository, ana: User
) -> None:
    assert ana.confirmed is None
    assert users.confirm(ana.id, "eva@example.org") is None
    assert users.confirm(ana.id + 1, ana.email) is None
    confirmed = users.confirm(ana.id, ana.email.upper())
    assert confirmed is not None
    assert confirmed.confirmed is not None
    eva = users.register(email="eva@example.org", username="eva", password=PASSWORD)
    temporary = users.issue_temporary_password(eva.email)
    assert temporary is not None
    entered = users.authenticate("eva", temporary.password)
    assert entered is not None
    assert entered.confirmed is not None


def test_temporary_password_works_once(users: UserRepository, ana: User) -> None:
    temporary = users.issue_temporary_password("ana@example.edu")
    assert temporary is not None
    assert users.authenticate("ana", temporary.password) is not None
    with pytest.raises(TemporaryPasswordUsedError):
        users.authenticate("ana", temporary.password)
    assert users.authenticate("ana", "wrong") is None


def test_of_many_simultaneous_logins_with_it_one_succeeds(users: UserRepository, ana: User) -> None:
    temporary = users.issue_temporary_password("ana@example.edu")
    assert temporary is not None
    outcomes = at_once(6, lambda _: users.authenticate("ana", temporary.password))
    assert sum(isinstance(outcome, User) for outcome in outcomes) == 1
    others = [outcome for outcome in outcomes if not isinstance(outcome, User)]
    assert all(other is None or type(other) is TemporaryPasswordUsedError for other in others)
    user = users.get(ana.id)
    assert user is not None
    assert user.token_version == ana.token_version + 1


def test_temporary_password_ends_after_thirty_minutes(
    users: UserRepository, engine: Engine, ana: User
) -> None:
    temporary = users.issue_temporary_password("ana@example.edu")
    assert temporary is not None
    left = temporary.expires - datetime.now(UTC)
    assert timedelta(minutes=29, seconds=50) < left <= timedelta(minutes=30)
    stored = users.get(ana.id)
    assert stored is not None
    assert stored.temporary_until == temporary.expires.replace(tzinfo=None)
    change(engine, ana, temporary_until=stored.temporary_until - timedelta(minutes=30))
    assert users.authenticate("ana", temporary.password) is None
    assert users.authenticate("ana", PASSWORD) is not None


def test_only_the_latest_temporary_password_works(users: UserRepository, ana: User) -> None:
    first = users.issue_temporary_password("ana@example.edu")
    second = users.issue_temporary_password("ana@example.edu")
    assert first is not None
    assert second is not None
    assert first.password != second.password
    assert users.authenticate("ana", first.password) is None
    assert users.authenticate("ana", second.password) is not None


def test_another_temporary_password_helps_who_lost_the_first_after_using_it(
    users: UserRepository, ana: User
) -> None:
    for times in (1, 2):
        temporary = users.issue_temporary_password("ana@example.edu")
        assert temporary is not None
        user = users.authenticate("ana", temporary.password)
        assert user is not None
        assert user.token_version == ana.token_version + times


def test_temporary_password_is_for_addresses_of_active_accounts_only(
    users: UserRepository, ana: User
) -> None:
    assert users.issue_temporary_password("nobody@example.edu") is None
    assert users.issue_temporary_password("ana") is None
    users.set_active(ana.id, False)
    assert users.issue_temporary_password("ana@example.edu") is None


def test_temporary_password_is_changed_like_any_other(users: UserRepository, ana: User) -> None:
    temporary = users.issue_temporary_password("ana@example.edu")
    assert temporary is not None
    # Not before it was used: somebody else's wish must not undo the password.
    assert users.change_password(ana.id, temporary.password, NEW_PASSWORD) is None
    users.authenticate("ana", temporary.password)
    user = users.change_password(ana.id, temporary.password, NEW_PASSWORD)
    assert user is not None
    assert not user.must_change_password
    assert user.token_version == ana.token_version + 2
    assert users.authenticate("ana", temporary.password) is None
    assert users.authenticate("ana", NEW_PASSWORD) is not None


def test_changing_the_password_needs_the_old_one_and_ends_all_tokens(
    users: UserRepository, ana: User
) -> None:
    waiting = users.issue_temporary_password("ana@example.edu")
    assert waiting is not None
    assert users.change_password(ana.id, "wrong", NEW_PASSWORD) is None
    assert users.change_password(ana.id + 1, PASSWORD, NEW_PASSWORD) is None
    user = users.change_password(ana.id, PASSWORD, NEW_PASSWORD)
    assert user is not None
    assert user.token_version == ana.token_version + 1
    assert users.authenticate("ana", PASSWORD) is None
    assert users.authenticate("ana", waiting.password) is None
    assert users.authenticate("ana", NEW_PASSWORD) is not None


def test_disabled_account_is_kept_out_and_its_tokens_end(users: UserRepository, ana: User) -> None:
    temporary = users.issue_temporary_password("ana@example.edu")
    assert temporary is not None
    users.set_active(ana.id, False)
    user = users.get(ana.id)
    assert user is not None
    assert user.token_version == ana.token_version + 1
    assert users.authenticate("ana", PASSWORD) is None
    assert users.authenticate("ana", temporary.password) is None
    users.set_active(ana.id, True)
    assert users.authenticate("ana", PASSWORD) is not None


def test_worker_token_is_shown_once_and_works_until_it_is_revoked(
    users: UserRepository, stored: Callable[[], bytes]
) -> None:
    token = users.create_worker_token("graphics-card")
    assert users.find_worker(token) == "graphics-card"
    assert [worker.name for worker in users.worker_tokens()] == ["graphics-card"]
    assert token.encode() not in stored()
    assert users.revoke_worker_token("graphics-card")
    assert users.find_worker(token) is None
    assert not users.revoke_worker_token("graphics-card")
    assert users.worker_tokens() == []


@pytest.mark.parametrize("token", ["", "cwt_", "cwt_x", "\x00", "\ud800", "x" * 1_000_000])
def test_hostile_worker_tokens_are_nobodys(users: UserRepository, token: str) -> None:
    users.create_worker_token("graphics-card")
    assert users.find_worker(token) is None


def test_worker_tokens_have_names_of_their_own(users: UserRepository) -> None:
    users.create_worker_token("graphics-card")
    with pytest.raises(UsernameTakenError):
        users.create_worker_token("graphics-card")
    outcomes = at_once(4, lambda _: users.create_worker_token("other"))
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 1


def test_database_that_is_away_is_an_operational_error(tmp_path: Path) -> None:
    gone = f"sqlite:///{tmp_path / 'no-such-folder' / 'users.sqlite'}"
    engine = create_user_engine(Settings(database_url=gone))
    with pytest.raises(OperationalError):
        UserRepository(engine).ping()
    engine.dispose()


@pytest.mark.parametrize("users_url", ["sqlite"], indirect=True)
def test_users_file_keeps_its_rollback_journal(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
