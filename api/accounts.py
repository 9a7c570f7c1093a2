"""Register, log in, and forgotten passwords."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import OAuth2PasswordRequestForm

from api import errors
from api.confirmation import send_confirmation
from api.deps import (
    AnyoneLoggedIn,
    HashingDep,
    LimitsDep,
    MailsDep,
    Network,
    Resources,
    ResourcesDep,
    UsersDep,
    ceiling,
)
from api.limits import RECOVERIES, LimitReachedError, Limits
from api.pages import language_of
from api.passwords import is_own_name
from api.schemas import (
    LONGEST_EMAIL,
    LONGEST_PASSWORD,
    Account,
    ChangePassword,
    ForgotPassword,
    Message,
    NewUser,
    Token,
)
from core.domains import is_within
from core.mails import MailKind
from core.security import create_access_token, may_be_temporary
from core.users import (
    TEMPORARY_PASSWORD_LIFETIME,
    EmailTakenError,
    TemporaryPasswordUsedError,
    User,
    UsernameTakenError,
    normal_form,
)

BEAT_SECONDS = 0.5
"""The replies about a forgotten and to a wrong password take this long, or a multiple of it: far
longer than the work for any account, so the time does not tell whether there is one. The hash of an
account may be an old one, with parameters of then, and take another time than today's."""
RECOVERY_MESSAGES = {
    "es": "Si esta dirección tiene una cuenta, le hemos enviado una contraseña temporal. "
    "Sirve una vez, durante 30 minutos.",
    "en": "If this address has an account, a temporary password is on its way to it. "
    "It works once, for 30 minutes.",
}

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Guess:
    """A password that somebody says is an account's, and the network address he is at."""

    account: str
    network: str
    password: str

    async def judged_by(
        self, limits: Limits, check: Callable[..., Awaitable[User | None]]
    ) -> User | None:
        """What ``check`` gives, unless the account is guessed at too fast.

        Then a temporary password is checked all the same, with ``only_temporary``: its 81 bits are
        not guessed, and whoever guesses must not keep the student out.

        Raises:
            errors.TooManyLoginsError: too fast, and no temporary password.
        """
        try:
            attempt = await run_in_threadpool(limits.begin_login, self.account, self.network)
        except LimitReachedError as reached:
            may_enter = may_be_temporary(self.password)
            user = await check(only_temporary=True) if may_enter else None
            if user is None:
                raise errors.TooManyLoginsError(reached.seconds) from None
            await run_in_threadpool(limits.remember, self.account, self.network)
            return user
        user = await check()
        if user is not None:
            await run_in_threadpool(limits.login_succeeded, attempt)
        return user


router = APIRouter(tags=["Accounts"])


@router.post(
    "/user",
    status_code=201,
    summary="Register",
    dependencies=[ceiling("accounts")],
    responses=errors.responses(
        *errors.BODY,
        errors.BusyNetworkError,
        errors.EmailDomainNotAllowedError,
        errors.EmailTakenError,
        errors.UsernameTakenError,
        errors.UnavailableError,
    ),
)
async def register(
    new: NewUser, request: Request, resources: ResourcesDep, users: UsersDep, hashing: HashingDep
) -> Account:
    """Creates your account. The answers to your questions are sent to its e-mail address.

    An e-mail with a link to confirm the address is sent at once. The user name has no `@`. The
    password may be a whole sentence.
    """
    allowed = resources.settings.allowed_email_domains
    if allowed and not is_within(new.email, allowed):
        raise errors.EmailDomainNotAllowedError(allowed)
    try:
        user = await hashing(
            users.register, email=new.email, username=new.username, password=new.password
        )
    except EmailTakenError:
        raise errors.EmailTakenError from None
    except UsernameTakenError:
        raise errors.UsernameTakenError from None
    try:
        await send_confirmation(resources, user, language_of(request, resources.settings))
    except errors.DATABASE_ERRORS as error:
        # The account exists, and /auth/send-confirmation sends the mail later.
        logger.warning("no confirmation mail", user=user.id, **errors.describe_fault(error))
    return Account.of(user)


@router.post(
    "/login",
    summary="Log in (the Authorize button does it)",
    dependencies=[ceiling("logins")],
    responses=errors.responses(
        *errors.BODY,
        errors.BusyNetworkError,
        errors.TooManyLoginsError,
        errors.WrongCredentialsError,
        errors.TemporaryPasswordAlreadyUsedError,
        errors.UnavailableError,
    ),
)
async def login(
    *,
    form: Annotated[OAuth2PasswordRequestForm, Depends()],
    resources: ResourcesDep,
    users: UsersDep,
    hashing: HashingDep,
    limits: LimitsDep,
    network: Network,
) -> Token:
    """Exchanges user name (or e-mail address) and password for a token.

    On this page you need not call it: press **Authorize** at the top. After five wrong passwords
    within a minute there is a pause, which grows; a temporary password works all the same.
    """
    start = time.monotonic()
    name, password = form.username.strip(), form.password
    if len(form.username) > LONGEST_EMAIL or len(password) > LONGEST_PASSWORD:
        # Nobody can have registered these, so the reply may come without hashing anything.
        raise errors.WrongCredentialsError
    known = await run_in_threadpool(users.find, name)
    guess = Guess(_account(known) if known else f"name:{normal_form(name)}", network, password)
    try:
        user = await guess.judged_by(limits, partial(hashing, users.authenticate, name, password))
    except TemporaryPasswordUsedError:
        raise errors.TemporaryPasswordAlreadyUsedError from None
    if user is None:
        await _wait_out(start)
        raise errors.WrongCredentialsError
    return _token(user, resources)


@router.post(
    "/auth/forgot-password",
    status_code=202,
    summary="Forgot your password?",
    dependencies=[ceiling("recoveries")],
    responses=errors.responses(
        *errors.BODY,
        errors.BusyNetworkError,
        errors.TooManyMailsError,
        errors.UnavailableError,
    ),
)
async def forgot_password(
    *,
    forgotten: ForgotPassword,
    resources: ResourcesDep,
    users: UsersDep,
    mails: MailsDep,
    hashing: HashingDep,
    limits: LimitsDep,
) -> Message:
    """Sends a temporary password to the address, if it has an account; the reply does not tell.

    It works once, within 30 minutes, and must be changed after logging in. The old password goes
    on working until then. An address may be named three times within an hour.
    """
    start = time.monotonic()
    # For every address, or a queue that does not write would tell which have accounts.
    await resources.queue.check()
    account = normal_form(forgotten.email)
    try:
        # Whether it has an account or not, and before the work: requests at the same time count.
        await run_in_threadpool(limits.take, RECOVERIES, account)
    except LimitReachedError as reached:
        raise errors.TooManyMailsError(reached.seconds) from None
    try:
        temporary = await hashing(users.issue_temporary_password, forgotten.email)
        if temporary is not None:
            minutes = TEMPORARY_PASSWORD_LIFETIME // timedelta(minutes=1)
            await mails.enqueue(
                MailKind.TEMPORARY_PASSWORD,
                email=temporary.email,
                language=forgotten.language,
                values={
                    "password": temporary.password,
                    "minutes": str(minutes),
                    "expires": temporary.expires.isoformat(),
                },
            )
    except errors.DATABASE_ERRORS:
        await run_in_threadpool(limits.give_back, RECOVERIES, account)
        raise
    await _wait_out(start)
    return Message(message=RECOVERY_MESSAGES[forgotten.language])


@router.post(
    "/auth/change-password",
    summary="Change your password",
    responses=errors.responses(
        *errors.BODY,
        errors.NotLoggedInError,
        errors.TooManyLoginsError,
        errors.WrongOldPasswordError,
        errors.UnavailableError,
    ),
)
async def change_password(
    *,
    change: ChangePassword,
    user: AnyoneLoggedIn,
    resources: ResourcesDep,
    users: UsersDep,
    hashing: HashingDep,
    limits: LimitsDep,
    network: Network,
) -> Token:
    """Replaces your password and ends every older login.

    The reply is a new login. On this page, press **Authorize** again.
    """
    if is_own_name(change.new_password, user.username, user.email):
        raise errors.InvalidInputError.of("new_password", "password_is_name")

    async def check(*, only_temporary: bool = False) -> User | None:
        if only_temporary and not user.must_change_password:
            return None
        return await hashing(
            users.change_password, user.id, change.old_password, change.new_password
        )

    changed = await Guess(_account(user), network, change.old_password).judged_by(limits, check)
    if changed is None:
        raise errors.WrongOldPasswordError
    return _token(changed, resources)


async def _wait_out(start: float) -> None:
    """Until a beat after ``start``, or several where that is over."""
    taken = time.monotonic() - start
    await asyncio.sleep(BEAT_SECONDS - taken % BEAT_SECONDS)


def _account(user: User) -> str:
    return f"id:{user.id}"


def _token(user: User, resources: Resources) -> Token:
    lifetime = timedelta(minutes=resources.settings.access_token_expire_minutes)
    return Token(
        access_token=create_access_token(
            user.id, user.token_version, resources.secret_key, lifetime
        ),
        expires_in=int(lifetime.total_seconds()),
        must_change_password=user.must_change_password,
    )
