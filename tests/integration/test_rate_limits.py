"""Counting what comes too often, on a SQLite file and on MariaDB, among threads and processes."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic import command
from limits import RateLimitItemPerHour, RateLimitItemPerMinute
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from sqlalchemy import Engine, event, inspect, select

from api.limits import (
    CONFIRMATIONS,
    COUNTS,
    LOGINS,
    RECOVERIES,
    LimitReachedError,
    Limits,
    SqlStorage,
    network_of,
)
from api.migrations import alembic_config, migrate
from core.settings import Settings
from core.users import create_user_engine

# Takes what it gets of one limit and prints how much that was.
TWIN = """
import sys
from api.limits import LimitReachedError, Limits, RECOVERIES
from core.settings import Settings
from core.users import create_user_engine

settings = Settings(database_url=sys.argv[1])
limits = Limits(create_user_engine(settings), settings)
sys.stdin.readline()
taken = 0
for _ in range(20):
    try:
        limits.take(RECOVERIES, "ana@uni.test")
        taken += 1
    except LimitReachedError:
        pass
print(taken)
"""


class FakeTime:
    """A clock that is moved by hand; seconds since 1970."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def engine(users_url: str) -> Iterator[Engine]:
    engine = create_user_engine(Settings(database_url=users_url))
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def storage(engine: Engine, time: FakeTime) -> SqlStorage:
    return SqlStorage(engine=engine, clock=time)


@pytest.fixture
def limits(engine: Engine, time: FakeTime) -> Limits:
    settings = Settings(address_logins_per_minute=10, address_accounts_per_hour=4)
    return Limits(engine, settings, clock=time)


def refused(action: Callable[..., Any], *arguments: Any) -> float | None:
    """The seconds that a refusal names; None where it was taken."""
    try:
        action(*arguments)
    except LimitReachedError as reached:
        return reached.seconds
    return None


def at_once(count: int, action: Callable[[int], Any]) -> list[Any]:
    """What ``action`` returned in each of several threads that start together."""
    barrier = threading.Barrier(count)

    def run(number: int) -> Any:
        barrier.wait(10)
        return action(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def keys(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(select(COUNTS.c.key)))


def test_a_moving_window_gives_back_one_by_one(storage: SqlStorage, time: FakeTime) -> None:
    limiter, item = MovingWindowRateLimiter(storage), RateLimitItemPerHour(3)
    start = time.now
    for minute in (0, 10, 20):
        time.now = start + minute * 60
        assert limiter.hit(item, "ana")
    assert not limiter.hit(item, "ana")
    assert limiter.hit(item, "eva")
    stats = limiter.get_window_stats(item, "ana")
    assert (stats.reset_time, stats.remaining) == (start + 3600, 0)
    time.now = start + 3601
    assert limiter.hit(item, "ana")
    assert not limiter.hit(item, "ana")
    time.now = start + 4201
    assert limiter.test(item, "ana")


def test_a_counter_starts_anew_when_it_has_ended(storage: SqlStorage, time: FakeTime) -> None:
    limiter, item = FixedWindowRateLimiter(storage), RateLimitItemPerMinute(2)
    start = time.now
    assert [limiter.hit(item, "10.0.0.1") for _ in range(3)] == [True, True, False]
    assert limiter.get_window_stats(item, "10.0.0.1").reset_time == start + 60
    time.now += 60
    assert limiter.hit(item, "10.0.0.1")
    storage.clear(item.key_for("10.0.0.1"))
    assert storage.get(item.key_for("10.0.0.1")) == 0
    assert storage.check()


def test_what_was_taken_back_does_not_count(limits: Limits) -> None:
    for _ in range(5):
        limits.take(RECOVERIES, "ana")
        limits.give_back(RECOVERIES, "ana")
    for _ in range(3):
        limits.take(RECOVERIES, "ana")
    assert refused(limits.take, RECOVERIES, "ana") == 3600
    limits.take(CONFIRMATIONS, "ana")


def test_threads_at_the_same_time_get_no_more(limits: Limits) -> None:
    results = at_once(12, lambda _: refused(limits.take, RECOVERIES, "ana"))
    assert results.count(None) == 3


def test_threads_of_many_students_do_not_stop_each_other(limits: Limits) -> None:
    def log_in(number: int) -> list[float | None]:
        return [refused(limits.begin_login, f"id:{number % 6}", "10.0.0.1") for _ in range(4)]

    results = [result for results in at_once(12, log_in) for result in results]
    assert results.count(None) == 6 * 5


def test_processes_share_a_limit(engine: Engine, users_url: str) -> None:
    twins = [
        subprocess.Popen(
            [sys.executable, "-c", TWIN, users_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    taken = 0
    for twin in twins:
        assert twin.stdin is not None
        twin.stdin.write("go\n")
        twin.stdin.flush()
    for twin in twins:
        output, _ = twin.communicate(timeout=60)
        taken += int(output)
    assert taken == 3


def test_wrong_passwords_wait_longer_and_longer(limits: Limits, time: FakeTime) -> None:
    start, guesses, waits = time.now, 0, []
    while time.now < start + 2 * 3600:
        wait = refused(limits.begin_login, "id:1", "10.0.0.1")
        if wait is None:
            guesses += 1
        else:
            waits.append(wait)
            time.now += wait
    assert waits[:3] == [60, 60, 480]
    assert max(waits) > 1800
    assert max(waits) <= 3600
    assert guesses <= 40 + 5


def test_no_minute_has_more_than_five_wrong_passwords(limits: Limits, time: FakeTime) -> None:
    moments = []
    for _ in range(240):
        if refused(limits.begin_login, "id:1", "10.0.0.1") is None:
            moments.append(time.now)
        time.now += 5
    assert len(moments) > 10
    for moment in moments:
        assert sum(moment <= other < moment + 60 for other in moments) <= 5


def test_refused_tries_do_not_make_the_pause_longer(limits: Limits, time: FakeTime) -> None:
    for _ in range(5):
        limits.begin_login("id:1", "10.0.0.1")
    for _ in range(100):
        assert refused(limits.begin_login, "id:1", "10.0.0.1")
    time.now += 60
    assert refused(limits.begin_login, "id:1", "10.0.0.1") is None


def test_right_passwords_do_not_count(limits: Limits) -> None:
    for _ in range(30):
        limits.login_succeeded(limits.begin_login("id:1", "10.0.0.1"))


def test_guesses_from_elsewhere_do_not_keep_a_student_out(limits: Limits, time: FakeTime) -> None:
    limits.login_succeeded(limits.begin_login("id:1", "10.0.0.1"))
    for number in range(50):
        refused(limits.begin_login, "id:1", f"192.0.2.{number}")
        time.now += 1
    assert refused(limits.begin_login, "id:1", "192.0.2.99"), "counted together, from anywhere"
    assert refused(limits.begin_login, "id:1", "10.0.0.1") is None
    time.now += 31 * 24 * 3600
    for _ in range(5):
        limits.begin_login("id:1", "192.0.2.1")
    assert refused(limits.begin_login, "id:1", "10.0.0.1"), "after a month it is forgotten"


def test_a_network_address_has_a_ceiling_of_its_own(limits: Limits, time: FakeTime) -> None:
    for _ in range(4):
        limits.pass_ceiling("accounts", "10.0.0.1")
    assert refused(limits.pass_ceiling, "accounts", "10.0.0.1") == 3600
    assert refused(limits.pass_ceiling, "accounts", "10.0.0.2") is None
    assert refused(limits.pass_ceiling, "logins", "10.0.0.1") is None
    time.now += 3600
    assert refused(limits.pass_ceiling, "accounts", "10.0.0.1") is None


def test_processes_share_a_ceiling_and_count_it_in_blocks(engine: Engine, time: FakeTime) -> None:
    settings = Settings(address_questions_per_hour=100)
    limits, other = (Limits(engine, settings, clock=time) for _ in range(2))
    statements = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("UPDATE rate_limits"):
            statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    taken = 0
    while refused(limits.pass_ceiling, "questions", "10.0.0.1") is None:
        taken += 1
        taken += refused(other.pass_ceiling, "questions", "10.0.0.1") is None
    assert 95 <= taken <= 100
    assert len(statements) <= 30
    assert refused(limits.pass_ceiling, "questions", "10.0.0.2") is None
    time.now += 3600
    assert refused(limits.pass_ceiling, "questions", "10.0.0.1") is None


def test_processes_whose_clocks_differ_share_a_ceiling(engine: Engine, time: FakeTime) -> None:
    settings = Settings(address_questions_per_hour=4)
    clocks = time, lambda: time.now - 0.5
    processes = [Limits(engine, settings, clock=clock) for clock in clocks]
    results = [refused(processes[n % 2].pass_ceiling, "questions", "10.0.0.1") for n in range(6)]
    assert results[:4] == [None] * 4
    assert None not in results[4:]


def test_processes_that_end_leave_little_of_a_ceiling_unused(
    engine: Engine, time: FakeTime
) -> None:
    settings = Settings(address_questions_per_hour=100)
    for _ in range(90):
        Limits(engine, settings, clock=time).pass_ceiling("questions", "10.0.0.1")


def test_threads_at_the_same_time_pass_no_more_than_the_ceiling(limits: Limits) -> None:
    results = at_once(20, lambda _: refused(limits.pass_ceiling, "logins", "10.0.0.1"))
    assert results.count(None) == 10


def test_a_class_that_comes_at_the_same_moment_is_not_counted_as_more(
    engine: Engine, time: FakeTime
) -> None:
    limits = Limits(engine, Settings(address_logins_per_minute=300), clock=time)
    results = at_once(40, lambda _: refused(limits.pass_ceiling, "logins", "10.0.0.1"))
    assert results == [None] * 40


@pytest.mark.parametrize("seconds", [-600, -86_400])
def test_a_clock_that_is_put_back_keeps_nobody_out_for_long(
    limits: Limits, time: FakeTime, seconds: int
) -> None:
    for _ in range(5):
        limits.begin_login("id:1", "10.0.0.1")
    for _ in range(10):
        limits.pass_ceiling("logins", "10.0.0.1")
    time.now += seconds
    assert (refused(limits.begin_login, "id:1", "10.0.0.1") or 0) <= 3600
    assert refused(limits.pass_ceiling, "logins", "10.0.0.1") is None


def test_old_rows_are_cleaned(limits: Limits, engine: Engine, time: FakeTime) -> None:
    for number in range(20):
        limits.take(RECOVERIES, f"student{number}")
    assert len(keys(engine)) == 20
    time.now += 3601
    limits.take(RECOVERIES, "ana")
    assert len(keys(engine)) == 1


@pytest.mark.parametrize("account", ["ana@uni.test", "ﷺ" * 254, "\0", "\ud800", "' OR 1=1 --", ""])
def test_any_name_can_be_counted_and_none_is_stored(
    limits: Limits, engine: Engine, account: str
) -> None:
    limits.take(RECOVERIES, account)
    [key] = keys(engine)
    assert len(key) == 64
    assert not account or account not in key


def test_a_window_is_as_long_as_its_item(limits: Limits) -> None:
    assert [item.get_expiry() for item in LOGINS] == [60, 600, 3600]


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("testclient", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_what_counts_as_one_network_address(host: str | None, network: str) -> None:
    assert network_of(host) == network


def test_the_table_can_be_taken_back(engine: Engine) -> None:
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
    assert "rate_limits" not in inspect(engine).get_table_names()
    migrate(engine)
    assert "rate_limits" in inspect(engine).get_table_names()
