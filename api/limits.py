"""How often what may be asked, counted in the users' database for all processes together.

Counts are kept under hashes: whoever reads the table learns no address and no name. All methods
block: call them from the thread pool.
"""

import contextlib
import hashlib
import ipaddress
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MovingWindowSupport, Storage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    delete,
    select,
    update,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from core.settings import Settings
from core.users import DEADLOCK_ATTEMPTS, is_deadlock

RECOVERIES = RateLimitItemPerHour(3, namespace="recovery")
CONFIRMATIONS = RateLimitItemPerHour(3, namespace="confirmation")
LOGINS = (
    RateLimitItemPerMinute(5, namespace="login"),
    RateLimitItemPerMinute(10, 10, namespace="login"),
    RateLimitItemPerHour(20, namespace="login"),
)
"""Wrong passwords. Who goes on waits longer: up to a minute, ten minutes, an hour."""
_OF_AN_ACCOUNT = (RECOVERIES, CONFIRMATIONS, *LOGINS)
_FAMILIAR = RateLimitItemPerDay(1, 30, namespace="familiar")
"""How long a place from which an account was logged into is remembered."""
_PURGE_SECONDS = 60.0
_APART_MILLISECONDS = 60_000
"""So far apart are the clocks of two machines at most."""
_BLOCKS = 20
_BLOCK_LOCKS = 64
_MOST_NETWORKS = 10_000
"""More than these are not remembered: each has to be counted in the database then."""

METADATA = MetaData()
"""Apart from the accounts' tables, for a backup leaves counts out."""
COUNTS = Table(
    "rate_limits",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("hits", Integer, nullable=False),
    # Milliseconds since 1970, oldest first, between spaces.
    Column("moments", Text, nullable=False),
    Column("expires", BigInteger, nullable=False),
)

T = TypeVar("T")


class LimitReachedError(Exception):
    """It was enough for now; ``seconds`` tells how long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds:.0f} seconds")
        self.seconds = seconds


def network_of(host: str | None) -> str:
    """What counts as one network address: an IPv4 address, or an IPv6 site's 64 bits."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


class SqlStorage(Storage, MovingWindowSupport):
    """A storage of ``limits`` in a table of the users' database, on SQLite and MySQL.

    Each method is one transaction that holds its key's row, or a part of :meth:`transaction`.

    Raises:
        sqlalchemy.exc.OperationalError: from every method, when the database is away.
    """

    STORAGE_SCHEME = ["sql"]  # noqa: RUF012 (as the base class declares it)

    def __init__(
        self, uri: str | None = None, *, engine: Engine, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(uri)
        self._is_sqlite = engine.dialect.name == "sqlite"
        # With MySQL's default, locks on the gaps between rows make strangers wait for each other.
        self._engine = (
            engine
            if self._is_sqlite
            else engine.execution_options(isolation_level="READ COMMITTED")
        )
        self._clock = clock
        self._in_line = threading.Lock() if self._is_sqlite else contextlib.nullcontext()
        self._own = threading.local()
        self._next_purge = 0.0

    @property
    def base_exceptions(self) -> type[Exception]:
        """What the database raises."""
        return SQLAlchemyError

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Whatever this thread does within it is stored together."""
        held: Connection | None = getattr(self._own, "connection", None)
        if held is not None:
            yield held
            return
        # SQLite lets those that wait try again at random, and some would wait for seconds.
        with self._in_line, self._engine.begin() as connection:
            self._own.connection = connection
            try:
                yield connection
            finally:
                self._own.connection = None

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add ``amount`` to the counter, which starts anew ``expiry`` seconds after its first."""
        with self._held(key) as (connection, row):
            # Now, after the wait for the row: who had it before may have begun the counter.
            now = self._milliseconds()
            # One that ends later than it can was counted by a clock that has been put back since.
            is_running = now < row.expires <= now + expiry * 1000 + _APART_MILLISECONDS
            count = (row.hits if is_running else 0) + amount
            expires = row.expires if is_running else now + expiry * 1000
            self._write(connection, key, hits=count, expires=expires)
        return count

    def get(self, key: str) -> int:
        """The counter, 0 where it has ended."""
        row = self._read(key)
        return row.hits if row is not None and row.expires > self._milliseconds() else 0

    def get_expiry(self, key: str) -> float:
        """When the counter ends, in seconds since 1970; now where there is none."""
        row = self._read(key)
        return row.expires / 1000 if row is not None else self._clock()

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Note ``amount`` moments, unless there were ``limit`` in the last ``expiry`` seconds."""
        with self._held(key) as (connection, row):
            now = self._milliseconds()  # after the wait for the row, so that moments are in order
            moments = _recent(row, now, expiry)
            if len(moments) + amount > limit:
                return False
            moments += [now] * amount
            self._write(connection, key, moments=_text(moments), expires=now + expiry * 1000)
        return True

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """The first moment of the window (seconds since 1970), and how many there are."""
        now = self._milliseconds()
        row = self._read(key)
        moments = _recent(row, now, expiry) if row is not None else []
        return (moments[0] if moments else now) / 1000, len(moments)

    def moments(self, key: str) -> list[str]:
        """What is noted under this key, oldest first (ISO 8601, UTC)."""
        row = self._read(key)
        return [
            datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="seconds")
            for moment in (_moments(row) if row is not None else [])
        ]

    def release(self, key: str) -> None:
        """Take the last moment back."""
        with self._held(key) as (connection, row):
            self._write(connection, key, moments=_text(_moments(row)[:-1]))

    def check(self) -> bool:
        """Whether the table can be read."""
        try:
            self._read("")
        except SQLAlchemyError:
            return False
        return True

    def clear(self, key: str) -> None:
        """Forget this key."""
        with self.transaction() as connection:
            connection.execute(delete(COUNTS).where(COUNTS.c.key == _hash(key)))

    def reset(self) -> int:
        """Forget all; how many there were."""
        with self.transaction() as connection:
            return connection.execute(delete(COUNTS)).rowcount

    def purge(self) -> None:
        """Once a minute, delete what has ended."""
        now = self._clock()
        if now < self._next_purge:
            return
        self._next_purge = now + _PURGE_SECONDS
        with self.transaction() as connection:
            connection.execute(delete(COUNTS).where(COUNTS.c.expires < int(now * 1000)))

    def _milliseconds(self) -> int:
        return int(self._clock() * 1000)

    def _read(self, key: str) -> Row[tuple[str, int, str, int]] | None:
        with self.transaction() as connection:
            return connection.execute(select(COUNTS).where(COUNTS.c.key == _hash(key))).first()

    @contextlib.contextmanager
    def _held(self, key: str) -> Iterator[tuple[Connection, Row[tuple[str, int, str, int]]]]:
        new = {"key": _hash(key), "hits": 0, "moments": "", "expires": 0}
        with self.transaction() as connection:
            # A write, even where the row is there: SQLite locks the file now, MySQL the row.
            if self._is_sqlite:
                kept = sqlite.insert(COUNTS).values(new)
                connection.execute(kept.on_conflict_do_update(["key"], set_={"key": new["key"]}))
            else:
                held = mysql.insert(COUNTS).values(new)
                connection.execute(held.on_duplicate_key_update(key=new["key"]))
            query = select(COUNTS).where(COUNTS.c.key == new["key"]).with_for_update()
            yield connection, connection.execute(query).one()

    def _write(self, connection: Connection, key: str, **values: object) -> None:
        connection.execute(update(COUNTS).where(COUNTS.c.key == _hash(key)).values(**values))


@dataclass(frozen=True, slots=True)
class _Block:
    """What a process has taken of a ceiling at once, and until when (seconds since 1970)."""

    size: int
    left: int
    until: float


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """A password about to be checked, and under what it is counted."""

    account: str
    network: str
    bucket: tuple[str, ...]


class Limits:
    """The limits of the API.

    Raises:
        LimitReachedError: from ``take``, ``pass_ceiling`` and ``begin_login``.
        sqlalchemy.exc.OperationalError: from every method, when the database is away.
    """

    def __init__(
        self, engine: Engine, settings: Settings, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._storage = SqlStorage(engine=engine, clock=clock)
        self._moving = MovingWindowRateLimiter(self._storage)
        self._fixed = FixedWindowRateLimiter(self._storage)
        self._blocks: dict[tuple[str, str], _Block] = {}
        self._blocks_lock = threading.Lock()
        self._taking = [threading.Lock() for _ in range(_BLOCK_LOCKS)]
        self._ceilings: dict[str, RateLimitItem] = {
            "logins": RateLimitItemPerMinute(settings.address_logins_per_minute),
            "accounts": RateLimitItemPerHour(settings.address_accounts_per_hour),
            "recoveries": RateLimitItemPerHour(settings.address_recoveries_per_hour),
            "questions": RateLimitItemPerHour(settings.address_questions_per_hour),
        }

    def pass_ceiling(self, kind: str, network: str) -> None:
        """Count one more request of this kind from the network address.

        A process takes one, then two, and at last a twentieth of the ceiling at a time, so that few
        requests cost a write and a process that ends leaves little unused; the last twentieth may
        go to one of several processes and not be used.
        """
        key = kind, network
        if self._has_left(key):
            return
        # Those that find none left at the same time wait for one block, and do not take one each.
        with self._taking[hash(key) % len(self._taking)]:
            if not self._has_left(key):
                self._take_block(key)

    def _has_left(self, key: tuple[str, str]) -> bool:
        with self._blocks_lock:
            block = self._blocks.get(key)
            if block is None or not block.left or self._clock() >= block.until:
                return False
            self._blocks[key] = replace(block, left=block.left - 1)
            return True

    def _take_block(self, key: tuple[str, str]) -> None:
        item = self._ceilings[key[0]]
        with self._blocks_lock:
            last = self._blocks.get(key)
        size = 1
        if last is not None and self._clock() < last.until:
            size = max(1, min(2 * last.size, item.amount // _BLOCKS))

        def count() -> float:
            if not self._fixed.hit(item, *key, cost=size):
                raise self._reached(self._fixed, item, *key)
            return self._fixed.get_window_stats(item, *key).reset_time

        until = self._run(count)
        with self._blocks_lock:
            if len(self._blocks) >= _MOST_NETWORKS:
                self._blocks.clear()
            self._blocks[key] = _Block(size, left=size - 1, until=until)

    def take(self, item: RateLimitItem, account: str) -> None:
        """Count one more for the account."""
        self._run(lambda: self._take(item, account))

    def give_back(self, item: RateLimitItem, account: str) -> None:
        """What was taken last did not happen."""
        self._run(lambda: self._storage.release(item.key_for(account)))

    def kept_of(self, *accounts: str) -> list[dict[str, str]]:
        """What is counted under these names: each limit with its moments (ISO 8601, UTC)."""

        def read() -> list[dict[str, str]]:
            found = []
            for item in _OF_AN_ACCOUNT:
                for account in accounts:
                    moments = self._storage.moments(item.key_for(account))
                    if moments:
                        found.append({"limit": str(item.namespace), "moments": " ".join(moments)})
            return found

        return self._run(read)

    def forget(self, *accounts: str) -> None:
        """Delete what is counted under these names.

        The places from which an account was logged into stay, under hashes of its number and the
        place that nobody can look for, until they end within 30 days.
        """

        def clear() -> None:
            for item in _OF_AN_ACCOUNT:
                for account in accounts:
                    self._storage.clear(item.key_for(account))

        self._run(clear)

    def begin_login(self, account: str, network: str) -> LoginAttempt:
        """Count a password before it is checked, or simultaneous guesses would all pass.

        An account is guessed at five times a minute, from wherever that is. A place from which it
        was logged into is counted apart: who guesses elsewhere cannot keep the student out there.
        Who guesses from that same network can, for an hour at most; a temporary password, which is
        not counted here, opens the account all the same.
        """

        def count() -> LoginAttempt:
            is_familiar = self._storage.get(_FAMILIAR.key_for(account, network)) > 0
            bucket = (account, network) if is_familiar else (account,)
            for item in LOGINS:
                self._take(item, *bucket)
            return LoginAttempt(account, network, bucket)

        return self._run(count)

    def login_succeeded(self, attempt: LoginAttempt) -> None:
        """The password was right: it does not count, and the place is familiar from now on."""

        def note() -> None:
            for item in LOGINS:
                self._storage.release(item.key_for(*attempt.bucket))
            self.remember(attempt.account, attempt.network)

        self._run(note)

    def remember(self, account: str, network: str) -> None:
        """The student was at this place."""
        key = _FAMILIAR.key_for(account, network)

        def note() -> None:
            self._storage.clear(key)
            self._storage.incr(key, _FAMILIAR.get_expiry())

        self._run(note)

    def _take(self, item: RateLimitItem, *identifiers: str) -> None:
        if not self._moving.hit(item, *identifiers):
            raise self._reached(self._moving, item, *identifiers)

    def _reached(
        self,
        limiter: MovingWindowRateLimiter | FixedWindowRateLimiter,
        item: RateLimitItem,
        *identifiers: str,
    ) -> LimitReachedError:
        free = limiter.get_window_stats(item, *identifiers).reset_time
        return LimitReachedError(min(max(free - self._clock(), 1.0), item.get_expiry()))

    def _run(self, function: Callable[[], T]) -> T:
        for attempts_left in reversed(range(DEADLOCK_ATTEMPTS)):
            try:
                # One for all: a refusal takes back what it has counted before.
                with self._storage.transaction():
                    result = function()
            except OperationalError as error:
                if not is_deadlock(error) or not attempts_left:
                    raise
            else:
                with contextlib.suppress(OperationalError):
                    self._storage.purge()
                return result
        raise AssertionError("unreachable")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _moments(row: Row[tuple[str, int, str, int]]) -> list[int]:
    return [int(moment) for moment in row.moments.split()]


def _recent(row: Row[tuple[str, int, str, int]], now: int, expiry: int) -> list[int]:
    # Nor those of a clock that has been put back since: they would count for too long.
    return [moment for moment in _moments(row) if abs(now - moment) < expiry * 1000]


def _text(moments: list[int]) -> str:
    return " ".join(map(str, moments))
