"""Users and workers' tokens, in SQL.

Every method of :class:`UserRepository` is one transaction and blocks: call it from the thread pool.
"""

import secrets
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    URL,
    DateTime,
    Engine,
    String,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    make_url,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from core import security
from core.settings import Settings, SettingsError

TEMPORARY_PASSWORD_LIFETIME = timedelta(minutes=30)

_FIRST_VERSIONS = 2**30
"""Leaves as many for password changes, in the 31 bits of MySQL's INTEGER."""
DEADLOCK_ATTEMPTS = 5
_MYSQL_DEADLOCK = 1213

_MYSQL_OPTIONS = {
    "charset": "utf8mb4",
    # Refuse what does not fit, instead of storing a part of it.
    "sql_mode": "TRADITIONAL",
    # Seconds. A server that hangs must not hold a thread for ever.
    "connect_timeout": "5",
    "read_timeout": "30",
    "write_timeout": "30",
}
"""What PyMySQL is told unless DATABASE_URL says otherwise."""


class EmailTakenError(Exception):
    """Another account has this e-mail address."""


class UsernameTakenError(Exception):
    """Another account has this user name."""


class TemporaryPasswordUsedError(Exception):
    """The temporary password has let its owner in once; it works no second time."""


def normal_form(text: str) -> str:
    """The form in which e-mail addresses and user names are compared."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _exact(length: int) -> String:
    # MySQL compares text without case and accents unless the column says otherwise.
    exact = mysql.VARCHAR(length, collation="utf8mb4_bin")
    return String(length).with_variant(exact, "mysql", "mariadb")


class Base(DeclarativeBase):
    """The tables; migrations are made from its metadata."""


class User(Base):
    """A student or a member of staff."""

    __tablename__ = "users"
    # No id is given twice: what was stored late for a deleted account is nobody's.
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(_exact(254))
    email_normal: Mapped[str] = mapped_column(_exact(254), unique=True)
    username: Mapped[str] = mapped_column(_exact(50))
    username_normal: Mapped[str] = mapped_column(_exact(50), unique=True)
    password_hash: Mapped[str] = mapped_column(String(255))
    token_version: Mapped[int] = mapped_column(default=lambda: secrets.randbelow(_FIRST_VERSIONS))
    """Tokens carry it; raising it ends them all. It begins anywhere: when a backup is restored, ids
    of lost accounts are given again, and their tokens must not open the new ones."""
    temporary_hash: Mapped[str | None] = mapped_column(String(255))
    temporary_until: Mapped[datetime | None] = mapped_column(DateTime)
    must_change_password: Mapped[bool] = mapped_column(default=False)
    """A temporary password was used: nothing else is allowed before it is changed."""
    is_staff: Mapped[bool] = mapped_column(default=False)
    is_active: Mapped[bool] = mapped_column(default=True)
    confirmed: Mapped[datetime | None] = mapped_column(DateTime)
    """When the address was shown to be the student's, by a link or a password sent to it."""
    created: Mapped[datetime] = mapped_column(DateTime)


class WorkerToken(Base):
    """What lets a worker claim questions over HTTP. Only the token's hash is stored."""

    __tablename__ = "worker_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(_exact(50), unique=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created: Mapped[datetime] = mapped_column(DateTime)


_BY_ID = select(User.__table__).where(User.id == bindparam("user_id"))


@dataclass(frozen=True, slots=True)
class TemporaryPassword:
    """A password to be mailed, the account it opens, and when it ends (UTC)."""

    email: str
    password: str
    expires: datetime


def _database_url(settings: Settings) -> URL:
    if settings.database_url:
        return make_url(settings.database_url.get_secret_value())
    password = settings.db_pass.get_secret_value() if settings.db_pass else None
    return URL.create(
        "mysql+pymysql",
        username=settings.db_user,
        password=password,
        host=settings.db_host,
        port=settings.db_port,
        database=settings.db_name,
    )


def create_user_engine(settings: Settings) -> Engine:
    """The engine of the users' database, with what each kind of database needs.

    SQLite keeps its rollback journal: its WAL mode has lost data in the versions that Debian 12
    ships, when several processes write.

    Raises:
        SettingsError: DATABASE_URL is not a URL.
    """
    try:
        url = _database_url(settings)
    except (ArgumentError, ValueError):
        # Without the reason: it may quote a part of the password.
        raise SettingsError(
            "The setting DATABASE_URL is wrong: it is not a URL such as "
            "mysql+pymysql://user:password@host/name."
        ) from None
    if url.get_backend_name() != "sqlite":
        return create_engine(
            url.update_query_dict({**_MYSQL_OPTIONS, **url.query}),
            # As bytes: PyMySQL would encode it as Latin-1, and MySQL compares UTF-8.
            connect_args={"password": (url.password or "").encode()},
            pool_pre_ping=True,
            pool_recycle=1800,
            pool_timeout=10,
            hide_parameters=True,
        )
    engine = create_engine(url, connect_args={"timeout": 10}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        # What is deleted is overwritten in the file, also where SQLite was built without that.
        connection.execute("PRAGMA secure_delete=ON")

    return engine


class UserRepository:
    """Every access to users and workers' tokens; each method is one transaction.

    Raises:
        sqlalchemy.exc.OperationalError: from every method, when the database is away.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sessions = sessionmaker(engine, expire_on_commit=False)

    def register(self, *, email: str, username: str, password: str, is_staff: bool = False) -> User:
        """Create an account.

        Raises:
            EmailTakenError: the address has an account.
            UsernameTakenError: the name is taken.
        """
        user = User(
            email=email,
            email_normal=normal_form(email),
            username=username,
            username_normal=normal_form(username),
            password_hash=security.hash_password(password),
            is_staff=is_staff,
            created=_now(),
        )
        try:
            self._insert(user)
        except IntegrityError:
            # Ask which one it was, instead of before: between a question and an insert
            # somebody else may have taken it.
            if self.find(email) is not None:
                raise EmailTakenError from None
            if self.find(username) is not None:
                raise UsernameTakenError from None
            raise
        return user

    def _insert(self, row: Base) -> None:
        for attempts_left in reversed(range(DEADLOCK_ATTEMPTS)):
            try:
                with self._sessions.begin() as session:
                    session.add(row)
            except OperationalError as error:
                # Two that wait for the same name: when the one that holds it gives up, MySQL
                # grants it to neither and ends one of them.
                if not is_deadlock(error) or not attempts_left:
                    raise
            else:
                return

    def get(self, user_id: int) -> User | None:
        """The user with this id."""
        # Without a session, which takes thrice as long: every request of a student comes here.
        with self._engine.connect() as connection:
            row = connection.execute(_BY_ID, {"user_id": user_id}).one_or_none()
        return User(**row._mapping) if row else None

    def find(self, identifier: str) -> User | None:
        """The user with this name or e-mail address; names have no ``@``, so it is one of them."""
        normal = normal_form(identifier)
        try:
            normal.encode()
        except UnicodeEncodeError:
            return None  # Half a character: no database stores it, so nobody is called that.
        with self._sessions() as session:
            user = session.scalar(
                select(User).where(or_(User.username_normal == normal, User.email_normal == normal))
            )
        # MySQL takes no notice of spaces at the end.
        is_exact = user is not None and normal in (user.username_normal, user.email_normal)
        return user if is_exact else None

    def all(self) -> list[User]:
        """Every user, by id."""
        with self._sessions() as session:
            return list(session.scalars(select(User).order_by(User.id)))

    def authenticate(
        self, identifier: str, password: str, *, only_temporary: bool = False
    ) -> User | None:
        """The active user whom the password opens, else None.

        The time depends on the form of the password alone, not on whether there is an account.

        A valid temporary password replaces the old one here, works no second time, and ends all
        older tokens. With ``only_temporary`` no other password opens.

        Raises:
            TemporaryPasswordUsedError: it is a temporary password that was used before.
        """
        user = self.find(identifier)
        is_main = not only_temporary and security.verify_password(
            password, user.password_hash if user else None
        )
        # What does not look like one need not be hashed again, whoever is asked for.
        is_temporary = security.may_be_temporary(password) and security.verify_password(
            password, user.temporary_hash if user else None
        )
        if user is None or not user.is_active:
            return None
        if is_main:
            if user.must_change_password:
                raise TemporaryPasswordUsedError
            if security.needs_rehash(user.password_hash):
                self._rehash(user, password)
            return user
        if is_temporary and user.temporary_until and user.temporary_until > _now():
            return self._use_temporary(user)
        return None

    def _rehash(self, user: User, password: str) -> None:
        new_hash = security.hash_password(password)
        with self._sessions.begin() as session:
            # Not where the password was changed meanwhile: the old one would come back.
            session.execute(
                update(User)
                .where(User.id == user.id, User.password_hash == user.password_hash)
                .values(password_hash=new_hash)
            )

    def _use_temporary(self, user: User) -> User | None:
        with self._sessions.begin() as session:
            # The condition lets only one of two simultaneous logins through.
            result = session.execute(
                update(User)
                .where(
                    User.id == user.id,
                    User.temporary_hash == user.temporary_hash,
                    User.is_active,
                )
                .values(
                    password_hash=user.temporary_hash,
                    temporary_hash=None,
                    temporary_until=None,
                    must_change_password=True,
                    token_version=User.token_version + 1,
                    # It was sent to the address, so the address is the student's.
                    confirmed=func.coalesce(User.confirmed, _now()),
                )
            )
        return self.get(user.id) if result.rowcount == 1 else None  # type: ignore[attr-defined]

    def issue_temporary_password(self, email: str) -> TemporaryPassword | None:
        """A new temporary password for the active account with this address, if there is one.

        The old password goes on working until the temporary one is used. Takes the same time
        for unknown addresses, but for the update itself.
        """
        user = self.find(email)
        password = security.temporary_password()
        temporary_hash = security.hash_password(password)
        if user is None or not user.is_active or user.email_normal != normal_form(email):
            return None
        expires = _now() + TEMPORARY_PASSWORD_LIFETIME
        self._update(user.id, temporary_hash=temporary_hash, temporary_until=expires)
        return TemporaryPassword(user.email, password, expires.replace(tzinfo=UTC))

    def change_password(self, user_id: int, old: str, new: str) -> User | None:
        """Replace the password if ``old`` is right, and end all older tokens; else None."""
        user = self.get(user_id)
        if not security.verify_password(old, user.password_hash if user else None):
            return None
        self.set_password(user_id, new)
        return self.get(user_id)

    def set_password(self, user_id: int, new: str) -> None:
        """Replace the password and end all older tokens and any temporary password."""
        self._update(
            user_id,
            password_hash=security.hash_password(new),
            temporary_hash=None,
            temporary_until=None,
            must_change_password=False,
            token_version=User.token_version + 1,
        )

    def confirm(self, user_id: int, email: str) -> User | None:
        """The address of this account is the student's; None where it has another one now."""
        user = self.get(user_id)
        if user is None or user.email_normal != normal_form(email):
            return None
        if user.confirmed is None:
            self._update(user_id, confirmed=_now())
        return self.get(user_id)

    def set_active(self, user_id: int, active: bool) -> None:
        """Let the user in again, or keep him out and end all his tokens."""
        self._update(user_id, is_active=active, token_version=User.token_version + 1)

    def delete(self, user_id: int) -> None:
        """Delete the account, if it is there."""
        with self._sessions.begin() as session:
            session.execute(delete(User).where(User.id == user_id))

    def _update(self, user_id: int, **values: Any) -> None:
        with self._sessions.begin() as session:
            session.execute(update(User).where(User.id == user_id).values(**values))

    def create_worker_token(self, name: str) -> str:
        """A new token under ``name``, to be shown once.

        Raises:
            UsernameTakenError: a token of this name exists.
        """
        token = security.create_worker_token()
        try:
            self._insert(
                WorkerToken(name=name, token_hash=security.hash_worker_token(token), created=_now())
            )
        except IntegrityError:
            raise UsernameTakenError from None
        return token

    def worker_tokens(self) -> list[WorkerToken]:
        """Every token that is valid, without its secret."""
        with self._sessions() as session:
            return list(session.scalars(select(WorkerToken).order_by(WorkerToken.id)))

    def find_worker(self, token: str) -> str | None:
        """The name the token was made for; None when it is not valid."""
        with self._sessions() as session:
            return session.scalar(
                select(WorkerToken.name).where(
                    WorkerToken.token_hash == security.hash_worker_token(token)
                )
            )

    def revoke_worker_token(self, name: str) -> bool:
        """End the token of this name; False when there is none."""
        with self._sessions.begin() as session:
            token = session.scalar(select(WorkerToken).where(WorkerToken.name == name))
            if token is None:
                return False
            session.delete(token)
            return True

    def ping(self) -> None:
        """Return when the database answers."""
        with self._sessions() as session:
            session.execute(select(1))


def is_deadlock(error: OperationalError) -> bool:
    """Whether MySQL ended the transaction so that another could go on: it may be tried again."""
    return error.orig is not None and error.orig.args[:1] == (_MYSQL_DEADLOCK,)


def _now() -> datetime:
    # Without a zone and without fractions: what MySQL's DATETIME keeps.
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)
