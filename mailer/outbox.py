"""One lane of outgoing e-mails: claim, render, send, and record what became of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Generic, Protocol, TypeVar

import structlog
from pymongo.errors import PyMongoError

from core import metrics
from core.clock import Clock, milliseconds, system_clock
from core.outbox import Outbox
from core.worker import cancel, pause
from mailer.addresses import domain_of
from mailer.errors import ServerError, TemporaryError, UndeliverableError
from mailer.sender import Sender
from mailer.text import one_line, without_addresses

REASON_LIMIT = 500

_log = structlog.get_logger(__name__)


class Mail(Protocol):
    """What a lane has to know of a claimed question or account mail."""

    @property
    def id(self) -> int: ...
    @property
    def email(self) -> str: ...
    @property
    def mail_claims(self) -> int: ...
    @property
    def mail_attempts(self) -> int: ...


class MailStore(Protocol):
    """Where the e-mails of a lane are kept: questions or account mails."""

    @property
    def outbox(self) -> Outbox: ...
    async def mark_sent(self, number: int, mail_claims: int) -> bool: ...
    async def mark_undeliverable(self, number: int, mail_claims: int, reason: str) -> bool: ...


MailT = TypeVar("MailT", bound=Mail)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses in seconds that double from ``first`` up to ``longest``."""

    first: float
    longest: float

    def pause(self, failures: int) -> float:
        """The pause after the failure number ``failures`` (1 is the first)."""
        # The exponent is bounded, because 2.0**1024 is an error and not a long pause.
        return float(min(self.first * 2 ** min(failures - 1, 60), self.longest))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When an e-mail, or a whole server, is tried again."""

    max_attempts: int = 30
    """Temporary failures of one e-mail; with these pauses about five days."""
    mail: Backoff = Backoff(60, 6 * 3600)
    server: Backoff = Backoff(5, 300)


class Lane(Generic[MailT]):
    """The e-mails of one kind, sent one after another through one account.

    While the mail server is away or refuses the account, no e-mail is claimed; after each pause
    the lane knocks with a login alone, so an outage of days costs one attempt of one e-mail.
    """

    def __init__(
        self,
        kind: str,
        *,
        claim: Callable[[], Awaitable[MailT | None]],
        store: MailStore,
        written: Callable[[MailT], datetime | None],
        render: Callable[[MailT], EmailMessage],
        sender: Sender,
        stop: asyncio.Event,
        retry: RetryPolicy,
        refusal: Callable[[MailT], Awaitable[str | None]] | None = None,
        about: Callable[[MailT], Mapping[str, int]] | None = None,
        clock: Clock = system_clock,
    ) -> None:
        """``written`` tells since when an e-mail has waited to be sent; ``refusal`` why it is not
        to be sent at all, or None; ``about`` what the log's lines about it name."""
        self._counted_as = "answer" if kind == "question" else "other"
        self._written = written
        self._claim = claim
        self._store = store
        self._render = render
        self._sender = sender
        self._stop = stop
        self._retry = retry
        self._refusal = refusal
        self._about = about or (lambda mail: {kind: mail.id})
        self._clock = clock
        self._log = _log.bind(lane=kind)
        self._server_failures = 0
        self._closed_until: datetime | None = None
        self.closed_since: datetime | None = None
        """Since when the mail server has been away, or refused the account."""
        self._is_database_away = False

    async def process_next(self) -> bool:
        """Send the next e-mail; False when there is nothing to do now."""
        if not await self._is_server_open():
            return False
        try:
            mail = await self._claim()
            refusal = await self._refusal(mail) if mail and self._refusal else None
        except PyMongoError as error:
            self._note_database(error)
            return False
        except (KeyError, TypeError, ValueError):
            # A document that is not as we write them. It comes again after its lease.
            self._log.exception("a claimed e-mail cannot be read")
            return True
        self._note_database(None)
        if mail is None:
            return False
        with structlog.contextvars.bound_contextvars(**self._about(mail)):
            if refusal:
                await self._give_up(mail, refusal)
            else:
                await self._deliver(mail)
        return True

    async def _deliver(self, mail: MailT) -> None:
        try:
            message = self._rendered(mail)
            async with self._renewed(mail):
                reply = await self._sender.send(message, mail.email)
        except ServerError as error:
            seconds = self._close_server(str(error))
            await self._postpone(mail, str(error), seconds, counts=False)
            return
        except TemporaryError as error:
            attempt = mail.mail_attempts + 1
            if attempt < self._retry.max_attempts:
                await self._postpone(mail, str(error), self._retry.mail.pause(attempt))
            else:
                await self._give_up(mail, f"Given up after {attempt} attempts: {error}")
        except UndeliverableError as error:
            await self._give_up(mail, str(error))
        else:
            self._log.info("sent", to=_domain(mail), reply=without_addresses(reply))
            self._count(metrics.MailOutcome.SENT)
            if await self._record(lambda: self._store.mark_sent(mail.id, mail.mail_claims)):
                self._time(mail)
        self._server_failures = 0

    def _rendered(self, mail: MailT) -> EmailMessage:
        try:
            return self._render(mail)
        except UndeliverableError:
            raise
        except Exception as error:
            # Whatever it is, it concerns this e-mail alone and would be the same next time.
            self._log.exception("the e-mail cannot be written")
            reason = f"The e-mail cannot be written: {type(error).__name__}: {error}"
            raise UndeliverableError(one_line(reason, REASON_LIMIT)) from error

    async def _postpone(
        self, mail: MailT, reason: str, seconds: float, *, counts: bool = True
    ) -> None:
        self._log.info(
            "postponed",
            to=_domain(mail),
            reason=without_addresses(reason),
            attempt=mail.mail_attempts + 1,
            seconds=seconds,
        )
        self._count(metrics.MailOutcome.DEFERRED)
        await self._record(
            lambda: self._store.outbox.retry(
                mail.id, mail.mail_claims, after=seconds, error=reason, counts=counts
            )
        )

    async def _give_up(self, mail: MailT, reason: str) -> None:
        self._log.warning("undeliverable", to=_domain(mail), reason=without_addresses(reason))
        self._count(metrics.MailOutcome.REFUSED)
        await self._record(
            lambda: self._store.mark_undeliverable(mail.id, mail.mail_claims, reason)
        )

    def _count(self, outcome: metrics.MailOutcome) -> None:
        metrics.MAILS.labels(self._counted_as, outcome).inc()

    def _time(self, mail: MailT) -> None:
        written = self._written(mail)
        if self._counted_as == "answer" and written is not None:
            spent = milliseconds(self._clock()) - milliseconds(written)
            metrics.time_stage(metrics.Stage.MAILING, spent)

    async def _is_server_open(self) -> bool:
        if self._closed_until is None:
            return True
        if self._clock() < self._closed_until:
            return False
        try:
            await self._sender.check()
        except ServerError as error:
            self._close_server(str(error))
            return False
        self._closed_until = self.closed_since = None
        self._log.info("the mail server is back")
        return True

    def _close_server(self, reason: str) -> float:
        # The count goes back to zero only when an e-mail gets an answer of its own: a server that
        # lets us in and then closes must not use up an attempt of every e-mail.
        self._server_failures += 1
        self.closed_since = self.closed_since or self._clock()
        metrics.count_fault(metrics.Fault.MAIL_SERVER_AWAY)
        seconds = self._retry.server.pause(self._server_failures)
        self._closed_until = self._clock() + timedelta(seconds=seconds)
        self._log.error("no e-mail can leave", reason=without_addresses(reason), seconds=seconds)
        return seconds

    @contextlib.asynccontextmanager
    async def _renewed(self, mail: MailT) -> AsyncIterator[None]:
        """Keep the claim while the server takes its time."""
        task = asyncio.create_task(self._renew(mail))
        try:
            yield
        finally:
            await cancel([task])

    async def _renew(self, mail: MailT) -> None:
        while True:
            await asyncio.sleep(self._store.outbox.lease_seconds / 3)
            with contextlib.suppress(PyMongoError):
                if not await self._store.outbox.renew(mail.id, mail.mail_claims):
                    self._log.warning("another mailer has claimed this e-mail")
                    return

    async def _record(self, verb: Callable[[], Awaitable[bool]]) -> bool:
        """Store what became of the e-mail, however long the database is away; False where it was
        not ours any more, or was not stored.

        A mailer that is stopped meanwhile leaves the claim to its lease: the e-mail goes out
        twice, under one Message-ID, rather than never.
        """
        while True:
            try:
                is_ours = await verb()
            except PyMongoError as error:
                self._note_database(error)
                if self._stop.is_set():
                    return False
                await pause(self._stop, 1)
                continue
            self._note_database(None)
            if not is_ours:
                self._log.warning("another mailer has claimed this e-mail")
            return is_ours

    def _note_database(self, error: PyMongoError | None) -> None:
        if error:
            metrics.count_fault(metrics.Fault.QUEUE_AWAY)
        if error and not self._is_database_away:
            self._log.error("MongoDB is away", reason=one_line(str(error), 200))
        if not error and self._is_database_away:
            self._log.info("MongoDB is back")
        self._is_database_away = error is not None


def _domain(mail: Mail) -> str:
    return one_line(domain_of(mail.email), 100)
