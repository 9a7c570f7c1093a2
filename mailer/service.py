"""The mailer: what it is built from, and its run from start to stop."""

import asyncio
import ssl
from zoneinfo import ZoneInfo

import structlog

from core import worker
from core.clock import system_clock
from core.mails import AccountMails
from core.questions import QuestionQueue
from core.settings import Settings, SettingsError
from mailer.addresses import is_plain_address
from mailer.logo import read_logo
from mailer.messages import Letterhead, account_message, answer_message
from mailer.outbox import Lane, RetryPolicy
from mailer.sender import Account, Sender

ACCOUNT_MAIL_POLL_SECONDS = 1.0
"""Temporary passwords are rare and may wait a second: looking for them less often halves the work
of an idle mailer."""

_log = structlog.get_logger(__name__)


async def run_mailer(
    settings: Settings,
    queue: QuestionQueue,
    mails: AccountMails,
    stop: asyncio.Event,
    *,
    retry: RetryPolicy | None = None,
    tls_context: ssl.SSLContext | None = None,
) -> None:
    """Send answers and account mails until ``stop`` is set; what is being sent is finished.

    The two go side by side, so that a temporary password never waits behind a server that takes
    minutes for an answer.

    Args:
        retry: pauses and attempts; by default those of the settings.
        tls_context: how the mail server's certificate is verified; by default against the
            system's authorities.

    Raises:
        SettingsError: a sender address or a password is missing or wrong.
    """
    answers = Account.for_answers(settings)
    account_mails = Account.for_account_mails(settings)
    letterheads = {account: _letterhead(settings, account) for account in (answers, account_mails)}
    retry = retry or RetryPolicy(max_attempts=settings.mail_max_attempts)
    account_lane = Lane(
        "mail",
        claim=mails.claim,
        store=mails,
        render=lambda mail: account_message(mail, letterheads[account_mails], system_clock()),
        sender=Sender(account_mails, tls_context=tls_context),
        stop=stop,
        retry=retry,
    )
    answer_lane = Lane(
        "question",
        claim=queue.claim_answered,
        store=queue,
        render=lambda question: answer_message(question, letterheads[answers]),
        sender=Sender(answers, tls_context=tls_context),
        stop=stop,
        retry=retry,
    )
    _log.info("the mailer is running", server=f"{answers.server}:{answers.port}")
    async with asyncio.TaskGroup() as group:
        for lane, poll_seconds in (
            (account_lane, max(settings.poll_seconds, ACCOUNT_MAIL_POLL_SECONDS)),
            (answer_lane, settings.poll_seconds),
        ):
            group.create_task(worker.run(lane.process_next, stop, poll_seconds))
    _log.info("the mailer has stopped")


def _letterhead(settings: Settings, account: Account) -> Letterhead:
    if not is_plain_address(account.username):
        raise SettingsError(
            f"{account.username!r} cannot be a sender: SMTP_USERNAME and RECOVERY_SMTP_USERNAME "
            "are plain e-mail addresses."
        )
    return Letterhead(
        course_name=settings.course_name,
        language=settings.course_language,
        timezone=ZoneInfo(settings.course_timezone),
        sender=account.username,
        login_url=f"{settings.public_url}/docs",
        logo=read_logo(settings.logo_path),
    )
