"""Dependencies: a route's signature declares what it needs and who may call it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ParamSpec, TypeVar

import structlog
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, OAuth2PasswordBearer
from pymongo.asynchronous.database import AsyncDatabase

from api.errors import (
    BusyNetworkError,
    NotAWorkerError,
    NotLoggedInError,
    PasswordChangeRequiredError,
    UnavailableError,
    UnconfirmedEmailError,
)
from api.limits import LimitReachedError, Limits, network_of
from core.links import Links
from core.mails import AccountMails
from core.monitoring import Monitor
from core.questions import QuestionQueue
from core.security import InvalidTokenError, read_access_token
from core.settings import Settings
from core.suppressions import Suppressions
from core.users import User, UserRepository

HASHING_THREADS = 4
"""Passwords hashed at once; each takes 19 MiB."""

P = ParamSpec("P")
T = TypeVar("T")


class Hashing:
    """Runs the functions that hash passwords in threads of their own, a few at a time.

    In threads that do other work too, each of those would keep the memory of a hash for itself.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(HASHING_THREADS, thread_name_prefix="hashing")

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result."""
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def close(self) -> None:
        """End the threads, when they have done what they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Resources:
    """What the lifespan builds and closes."""

    settings: Settings
    secret_key: str
    database: AsyncDatabase[dict[str, Any]]
    queue: QuestionQueue
    mails: AccountMails
    users: UserRepository
    limits: Limits
    links: Links
    suppressions: Suppressions
    monitor: Monitor
    hashing: Hashing = field(default_factory=Hashing)
    migrated: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the users' database has its tables."""


async def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


ResourcesDep = Annotated[Resources, Depends(_resources)]


async def _settings(resources: ResourcesDep) -> Settings:
    return resources.settings


async def _queue(resources: ResourcesDep) -> QuestionQueue:
    return resources.queue


async def _mails(resources: ResourcesDep) -> AccountMails:
    return resources.mails


async def _hashing(resources: ResourcesDep) -> Hashing:
    return resources.hashing


async def _users(resources: ResourcesDep) -> UserRepository:
    if not resources.migrated.is_set():
        raise UnavailableError
    return resources.users


async def _limits(resources: ResourcesDep) -> Limits:
    if not resources.migrated.is_set():
        raise UnavailableError
    return resources.limits


async def _network(request: Request) -> str:
    return network_of(request.client.host if request.client else None)


SettingsDep = Annotated[Settings, Depends(_settings)]
QueueDep = Annotated[QuestionQueue, Depends(_queue)]
MailsDep = Annotated[AccountMails, Depends(_mails)]
HashingDep = Annotated[Hashing, Depends(_hashing)]
UsersDep = Annotated[UserRepository, Depends(_users)]
LimitsDep = Annotated[Limits, Depends(_limits)]
Network = Annotated[str, Depends(_network)]
"""The network address that the request came from."""


def ceiling(kind: str) -> Any:
    """A dependency: the network address has not sent too many requests of this kind."""

    async def check(limits: LimitsDep, network: Network) -> None:
        await _pass_ceiling(limits, kind, network)

    return Depends(check)


async def _pass_ceiling(limits: Limits, kind: str, network: str) -> None:
    try:
        await run_in_threadpool(limits.pass_ceiling, kind, network)
    except LimitReachedError as reached:
        raise BusyNetworkError(reached.seconds) from None


_student_token = OAuth2PasswordBearer(
    tokenUrl="login",
    scheme_name="Student",
    description="Tu usuario o correo, y tu contraseña · "
    "your user name or e-mail address, and your password",
    auto_error=False,
)
_worker_token = HTTPBearer(
    scheme_name="Worker",
    description="Not for students: the token of a program that answers questions, "
    "from `consulta users worker-token`",
    auto_error=False,
)


async def _anyone_logged_in(
    token: Annotated[str | None, Depends(_student_token)],
    users: UsersDep,
    resources: ResourcesDep,
) -> User:
    try:
        access = read_access_token(token or "", resources.secret_key)
    except InvalidTokenError:
        raise NotLoggedInError from None
    user = await run_in_threadpool(users.get, access.user_id)
    if user is None or not user.is_active or user.token_version != access.version:
        raise NotLoggedInError
    structlog.contextvars.bind_contextvars(user=user.id)
    return user


AnyoneLoggedIn = Annotated[User, Depends(_anyone_logged_in)]
"""A student, perhaps one who still has to change a temporary password."""


async def _current_user(user: AnyoneLoggedIn) -> User:
    if user.must_change_password:
        raise PasswordChangeRequiredError
    return user


CurrentUser = Annotated[User, Depends(_current_user)]
"""The student who calls."""


async def _asking_user(
    user: CurrentUser, settings: SettingsDep, limits: LimitsDep, network: Network
) -> User:
    if settings.require_confirmed_email and user.confirmed is None:
        raise UnconfirmedEmailError
    # Only what students send is counted: a stranger on their network cannot use the ceiling up.
    await _pass_ceiling(limits, "questions", network)
    return user


AskingUser = Annotated[User, Depends(_asking_user)]
"""The student who calls, with an address that answers may be sent to."""


async def _current_worker(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_worker_token)],
    users: UsersDep,
    resources: ResourcesDep,
) -> str:
    worker = None
    if credentials is not None:
        worker = await run_in_threadpool(users.find_worker, credentials.credentials)
    if worker is None:
        raise NotAWorkerError
    structlog.contextvars.bind_contextvars(worker=worker)
    resources.monitor.heard_of(worker)
    return worker


CurrentWorker = Annotated[str, Depends(_current_worker)]
"""The name of the worker that calls."""
