"""The mailer: what it is built from, and its run from start to stop."""

import asyncio
import ssl
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from core import worker
from core.clock import system_clock
from core.colors import Palette
from core.forgetting import Retention
from core.links import Links
from core.mails import AccountMail, AccountMails, MailKind
from core.monitoring import Monitor
from core.questions import Question, QuestionQueue
from core.settings import Settings, SettingsError
from core.suppressions import Suppressions
from core.users import UserRepository, create_user_engine
from mailer.addresses import is_plain_address
from mailer.alarms import Alarms
from mailer.imap import Folder, Mailbox
from mailer.inbox import Inbox, Positions, Reception
from mailer.logo import read_logo
from mailer.messages import Letterhead, account_message, answer_message
from mailer.outbox import Lane, RetryPolicy
from mailer.sender import Account, Sender
from mailer.text import one_line

ACCOUNT_MAIL_POLL_SECONDS = 1.0
"""Temporary passwords are rare and may wait a second: looking for them less often halves the work
of an idle mailer."""

RETENTION_POLL_SECONDS = 600.0
"""How often it is looked whether a day has passed since personal data were looked for."""

_log = structlog.get_logger(__name__)


async def run_mailer(
    settings: Settings,
    database: AsyncDatabase[dict[str, Any]],
    stop: asyncio.Event,
    *,
    queue: QuestionQueue | None = None,
    retry: RetryPolicy | None = None,
    tls_context: ssl.SSLContext | None = None,
    retention_poll_seconds: float = RETENTION_POLL_SECONDS,
    monitor: Monitor | None = None,
) -> None:
    """Send answers and account mails until ``stop`` is set; what is being sent is finished.

    The two go side by side, so that a temporary password never waits behind a server that takes
    minutes for an answer; and beside them, where there is an IMAP server, questions are read.

    Args:
        queue: of ``database``; by default as the settings say.
        retry: pauses and attempts; by default those of the settings.
        tls_context: how the mail servers' certificates are verified; by default against the
            system's authorities.
        retention_poll_seconds: how often it is looked whether RETENTION_DAYS is to be kept.
        monitor: is told since when the mail server has been away.

    Raises:
        SettingsError: a sender address or a password is missing or wrong.
    """
    queue = queue or QuestionQueue.from_settings(database, settings)
    mails = AccountMails(database, lease_seconds=settings.mail_lease_seconds)
    suppressions = Suppressions(database)
    answers = Account.for_answers(settings)
    account_mails = Account.for_account_mails(settings)
    letterheads = {account: _letterhead(settings, account) for account in (answers, account_mails)}
    retry = retry or RetryPolicy(max_attempts=settings.mail_max_attempts)
    alarms = Alarms(settings, database, mails)

    async def refusal(mail: Question | AccountMail) -> str | None:
        # The link in a confirmation is how an address comes back to life.
        if isinstance(mail, AccountMail) and mail.kind is MailKind.CONFIRMATION:
            return None
        reason = await suppressions.reason(mail.email)
        return f"Mail to this address came back before: {reason}" if reason else None

    async def claim_mail() -> AccountMail | None:
        mail = await mails.claim()
        while mail and mail.kind is MailKind.ALARM:
            if true := await alarms.current(mail):
                return true
            mail = await mails.claim()
        return mail

    account_lane = Lane(
        "mail",
        claim=claim_mail,
        store=mails,
        written=lambda mail: mail.date,
        about=_about,
        render=lambda mail: account_message(mail, letterheads[account_mails], system_clock()),
        sender=Sender(account_mails, tls_context=tls_context),
        stop=stop,
        retry=retry,
        refusal=refusal,
    )
    answer_lane = Lane(
        "question",
        claim=queue.claim_answered,
        store=queue,
        written=lambda question: question.date_out,
        render=lambda question: answer_message(question, letterheads[answers]),
        sender=Sender(answers, tls_context=tls_context),
        stop=stop,
        retry=retry,
        refusal=refusal,
    )
    if monitor is not None:
        monitor.mail_closed = lambda: min(
            filter(None, (account_lane.closed_since, answer_lane.closed_since)), default=None
        )
    _log.info("the mailer is running", server=f"{answers.server}:{answers.port}")
    async with asyncio.TaskGroup() as group:
        for lane, poll_seconds in (
            (account_lane, max(settings.poll_seconds, ACCOUNT_MAIL_POLL_SECONDS)),
            (answer_lane, settings.poll_seconds),
        ):
            group.create_task(worker.run(lane.process_next, stop, poll_seconds))
        if settings.retention_days:
            retention = Retention(database, settings.retention_days)
            group.create_task(_keep_retention(retention, stop, retention_poll_seconds))
        if settings.staff_email:
            group.create_task(alarms.run(stop))
        if settings.imap_server is not None:
            group.create_task(_read_inbox(settings, database, queue, stop, tls_context))
    _log.info("the mailer has stopped")


async def _keep_retention(retention: Retention, stop: asyncio.Event, poll_seconds: float) -> None:
    while not stop.is_set():
        try:
            done = await retention.run_if_due(stop.is_set)
        except PyMongoError as error:
            _log.warning("the retention waits", reason=one_line(str(error), 200))
        except Exception:
            # As from a document that nobody can read: the mail beside it goes on.
            _log.exception("the retention failed")
        else:
            if done is not None:
                _log.info("retention", questions=done.kept, mails=done.mails)
        await worker.pause(stop, poll_seconds)


def _about(mail: AccountMail) -> dict[str, int]:
    """What the log's lines about a mail name: with it the question that it is about, if any."""
    number = mail.values.get("number", "")
    return {"mail": mail.id} | ({"question": int(number)} if number.isdecimal() else {})


async def _read_inbox(
    settings: Settings,
    database: AsyncDatabase[dict[str, Any]],
    queue: QuestionQueue,
    stop: asyncio.Event,
    tls_context: ssl.SSLContext | None,
) -> None:
    mailbox = Mailbox.from_settings(settings)
    engine = create_user_engine(settings)
    reception = Reception(
        settings,
        queue=queue,
        mails=AccountMails(database),
        users=UserRepository(engine),
        suppressions=Suppressions(database),
    )
    inbox = Inbox(
        partial(Folder, mailbox, tls_context),
        mailbox.name,
        reception=reception,
        positions=Positions(database),
        stop=stop,
        poll_seconds=settings.email_rest_sec,
    )
    try:
        await inbox.run()
    finally:
        engine.dispose()


def _letterhead(settings: Settings, account: Account) -> Letterhead:
    if not is_plain_address(account.username):
        raise SettingsError(
            f"{account.username!r} cannot be a sender: SMTP_USERNAME and RECOVERY_SMTP_USERNAME "
            "are plain e-mail addresses."
        )
    inbox = settings.imap_username if settings.imap_server else None
    return Letterhead(
        course_name=settings.course_name,
        language=settings.course_language,
        timezone=ZoneInfo(settings.course_timezone),
        sender=account.username,
        login_url=f"{settings.public_url}/docs",
        feedback_url=Links(settings).feedback,
        palette=Palette.of(settings.brand_color),
        takes_replies=settings.imap_server is not None,
        # A login that is no address has its mail where the answers come from.
        replies_to=inbox
        if inbox and inbox != account.username and is_plain_address(inbox)
        else None,
        logo=read_logo(settings.logo_path),
    )
