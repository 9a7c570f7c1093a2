"""E-mails that arrive: which of them are questions, and what becomes of the others.

The mails of the folder are looked at in order. Each is dealt with completely (a question is stored,
then the mail is marked as read) before the position moves past it, so a mailer that dies at any
moment leaves nothing out; what was stored already is recognised by its Message-ID.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DocumentTooLarge, DuplicateKeyError, OperationFailure, PyMongoError
from sqlalchemy.exc import DataError, SQLAlchemyError

from core import metrics
from core.clock import Clock, system_clock
from core.domains import is_within, spellings
from core.mails import AccountMail, AccountMails, MailKind
from core.mongo import CannotWriteError
from core.questions import (
    LONGEST_QUESTION,
    IdempotencyConflictError,
    Question,
    QuestionQueue,
    Thread,
    TooManyHourlyError,
    TooManyMailedError,
    TooManyWaitingError,
)
from core.restoring import RestoreMark
from core.settings import Settings
from core.suppressions import Suppressions
from core.users import User, UserRepository, normal_form
from core.worker import pause
from mailer.addresses import domain_of, is_plain_address
from mailer.bounces import Bounce
from mailer.imap import HEADER_BATCH, Folder, Header, MailboxError
from mailer.incoming import (
    BODY_LIMIT,
    TAIL_LIMIT,
    IncomingMail,
    SubjectCode,
    own_reference,
    question_text,
    read_mail,
    without_middle,
)
from mailer.messages import mail_message_id, question_message_id
from mailer.new_text import is_courtesy
from mailer.outbox import Backoff
from mailer.text import one_line, without_addresses

Document = dict[str, Any]
T = TypeVar("T")


class _Run(Protocol):
    """Calls a blocking method in the connection's own thread."""

    def __call__(self, method: Callable[..., T], *arguments: Any) -> asyncio.Future[T]: ...


RETRY = Backoff(1, 300)
"""Pauses in seconds while the mail server or a database is away."""

_GOODBYE_SECONDS = 3.0
_AWAY = (MailboxError, PyMongoError, SQLAlchemyError)
_OWN_FAULT = (DocumentTooLarge, DataError)
_REFUSALS = 3
"""How often MongoDB, while it is there, may refuse what follows from one e-mail."""

_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)
_SPANISH = re.compile(
    r"[ñ¿¡áéíóú]|\b(?:el|los|las|una?|que|es|son|cómo|cuándo|para|por|con|del|hay|qué|en)\b", re.I
)
_ENGLISH = re.compile(
    r"\b(?:the|an?|is|are|what|how|when|which|why|does|do|to|of|for|with|and|in)\b", re.I
)

_log = structlog.get_logger(__name__)


class Refusal(StrEnum):
    """Why an e-mail did not become a question, as the template names it."""

    UNREGISTERED = "unregistered"
    OUTSIDE = "outside"
    """Unregistered, at a domain whose addresses cannot register."""
    UNCONFIRMED = "unconfirmed"
    INACTIVE = "inactive"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TOO_LONG = "too_long"
    TOO_MANY_WAITING = "too_many_waiting"
    TOO_MANY_THIS_HOUR = "too_many_this_hour"
    TOO_MANY_TODAY = "too_many_today"


@dataclass(frozen=True, slots=True)
class Position:
    """What has been dealt with: every mail up to ``last_uid``.

    Up to ``unseen_until`` are the mails that were there when the mailer first came (or when the
    server numbered them anew): of those, only the ones that nobody has opened are looked at.
    """

    last_uid: int
    unseen_until: int


class Positions:
    """The positions, in the collection ``inbox``: one document for each folder.

    Raises:
        pymongo.errors.PyMongoError: from every verb, when the server is away or refuses, and while
            a backup is being restored.
    """

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._inbox = database["inbox"]
        self._restore = RestoreMark(database)

    async def find(self, folder: str, uidvalidity: int) -> Position | None:
        """The position in the folder; None where it is new or numbered anew."""
        await self._restore.stand_aside()
        found = await self._inbox.find_one({"_id": folder, "uidvalidity": uidvalidity})
        return Position(found["last_uid"], found["unseen_until"]) if found else None

    async def start(self, folder: str, uidvalidity: int, unseen_until: int) -> Position:
        """Begin at the folder's start."""
        await self._restore.stand_aside()
        fields = {"uidvalidity": uidvalidity, "last_uid": 0, "unseen_until": unseen_until}
        updated = await self._inbox.update_one(
            {"_id": folder, "uidvalidity": {"$ne": uidvalidity}}, {"$set": fields}
        )
        if not updated.matched_count:
            # Unless another mailer has just begun.
            with contextlib.suppress(DuplicateKeyError):
                await self._inbox.insert_one({"_id": folder, **fields})
        return await self.find(folder, uidvalidity) or Position(0, unseen_until)

    async def move(self, folder: str, uidvalidity: int, last_uid: int) -> None:
        """Everything up to ``last_uid`` is dealt with; another mailer may be further already."""
        await self._restore.stand_aside()
        await self._inbox.update_one(
            {"_id": folder, "uidvalidity": uidvalidity, "last_uid": {"$lt": last_uid}},
            {"$set": {"last_uid": last_uid}},
        )


class Reception:
    """Decides on one e-mail after another, and stores what follows from it.

    Raises:
        pymongo.errors.PyMongoError: from every method, when MongoDB is away or refuses.
        sqlalchemy.exc.SQLAlchemyError: the same for the users' database.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        queue: QuestionQueue,
        mails: AccountMails,
        users: UserRepository,
        suppressions: Suppressions,
        clock: Clock = system_clock,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._mails = mails
        self._users = users
        self._suppressions = suppressions
        self._clock = clock
        self._code = SubjectCode(settings.email_sbjt_code)
        self._answers_from = settings.smtp_username or ""
        self._mails_from = settings.recovery_smtp_username or self._answers_from
        inbox = settings.imap_username or ""
        # A login that is no address has its mail where the answers come from.
        self._replies_to = inbox if is_plain_address(inbox) else self._answers_from
        self._own = {
            normal_form(address) for address in (self._answers_from, self._mails_from, inbox)
        }

    async def prepare(self) -> None:
        """Create the indexes that keep a question from being stored twice."""
        await self._queue.create_indexes()
        await self._mails.create_indexes()

    def may_concern_us(self, header: IncomingMail) -> bool:
        """Whether more than the header is wanted: of a question, a reply to us, or a report."""
        return header.is_report or self._has_code(header) or bool(self._references(header))

    async def take(self, mail: IncomingMail) -> bool:
        """Deal with a whole e-mail; False where it turns out to be none for us."""
        if mail.bounce and await self._take_bounce(mail.bounce):
            return True
        if not self._has_code(mail) and not await self._is_reply_to_us(mail):
            return False
        own = any(normal_form(sender) in self._own for sender in mail.senders)
        authserv_id = self._settings.trusted_authserv_id
        if mail.robot or own:
            _log.info("not answered: an automatic e-mail", mark=mail.robot or "our own address")
        elif len(mail.senders) != 1:
            _log.warning("not answered: not one sender", senders=len(mail.senders))
        elif authserv_id and not mail.is_authentic(authserv_id):
            _log.warning("not answered: no DMARC pass", domain=_domain(mail.senders[0]))
        else:
            await self._take_question(mail, mail.senders[0])
        return True

    def _has_code(self, mail: IncomingMail) -> bool:
        return self._code.is_in(mail.subject)

    def _references(self, mail: IncomingMail) -> list[str]:
        domains = {domain_of(address) for address in (self._answers_from, self._mails_from)}
        return [i for i in mail.own_references() if domain_of(i).rstrip(">") in domains]

    async def _is_reply_to_us(self, mail: IncomingMail) -> bool:
        for reference in self._references(mail):
            if await self._own_mail(reference) is not None:
                return True
        return False

    async def _own_mail(self, message_id: str) -> Question | AccountMail | None:
        """What we have sent under this Message-ID; None where somebody made it up."""
        kind, number = own_reference(message_id) or ("", 0)
        if kind == "question":
            question = await self._queue.one(number)
            if question and question_message_id(question, self._answers_from) == message_id:
                return question
        if kind == "mail":
            mail = await self._mails.one(number)
            if mail and mail_message_id(mail, self._mails_from) == message_id:
                return mail
        return None

    async def _take_bounce(self, bounce: Bounce) -> bool:
        """Note a delivery's end; False where the report is not about one of our e-mails."""
        sent = await self._own_mail(bounce.message_id)
        if sent is None:
            return False
        if not bounce.is_final:
            return True
        store = self._queue if isinstance(sent, Question) else self._mails
        if await store.mark_bounced(sent.id, bounce.reason):
            kind = "answer" if isinstance(sent, Question) else "other"
            metrics.MAILS.labels(kind, metrics.MailOutcome.BOUNCED).inc()
        if bounce.is_dead_address:
            await self._suppressions.add(sent.email, bounce.reason)
        _log.warning(
            "an e-mail came back",
            to=_domain(sent.email),
            reason=without_addresses(bounce.reason),
            is_dead_address=bounce.is_dead_address,
            **{"question" if isinstance(sent, Question) else "mail": sent.id},
        )
        return True

    async def _take_question(self, mail: IncomingMail, sender: str) -> None:
        user = await asyncio.to_thread(self._find, sender)
        if user is None or not user.is_active or user.confirmed is None:
            # Somebody else may have written it in their name, for us to send it to them.
            mail = replace(mail, subject="")
        if user is None:
            await self._refuse_stranger(mail, sender)
        elif not user.is_active:
            await self._refuse(mail, user.email, Refusal.INACTIVE, at_most_every=_WEEK)
        elif user.confirmed is None:
            # By the day and not since the last mail, which may have told how to register.
            await self._refuse(mail, user.email, Refusal.UNCONFIRMED, once=self._today())
        else:
            await self._take_from_student(mail, user)

    def _find(self, sender: str) -> User | None:
        found = map(self._users.find, spellings(sender))
        return next((user for user in found if user is not None), None)

    async def _take_from_student(self, mail: IncomingMail, user: User) -> None:
        text = question_text(mail, self._code)
        if mail.is_reply and text and is_courtesy(text):
            _log.info("not answered: thanks alone", user=user.id)
            return
        if mail.is_cut:
            await self._refuse(mail, user.email, Refusal.TOO_LARGE, limit="1 MB")
            return
        if not text:
            await self._refuse(mail, user.email, Refusal.EMPTY)
            return
        if len(text) > LONGEST_QUESTION:
            limit = str(LONGEST_QUESTION)
            await self._refuse(mail, user.email, Refusal.TOO_LONG, limit=limit)
            return
        try:
            enqueued = await self._queue.enqueue(
                input=text,
                email=user.email,
                user_id=user.id,
                idempotency_key=f"mail:{mail.key}",
                most_waiting=self._settings.max_waiting_per_student,
                most_hourly=self._settings.questions_per_hour,
                most_mailed=self._settings.mail_questions_per_day,
                thread=_thread(mail),
                follows=await self._followed(mail, user),
            )
        except TooManyWaitingError:
            limit = str(self._settings.max_waiting_per_student)
            await self._refuse(mail, user.email, Refusal.TOO_MANY_WAITING, limit=limit)
        except TooManyHourlyError:
            limit = str(self._settings.questions_per_hour)
            await self._refuse(mail, user.email, Refusal.TOO_MANY_THIS_HOUR, limit=limit)
        except TooManyMailedError:
            limit = str(self._settings.mail_questions_per_day)
            await self._refuse(
                mail,
                user.email,
                Refusal.TOO_MANY_TODAY,
                limit=limit,
                once=self._today(),
            )
        except IdempotencyConflictError:
            _log.warning("not stored: another e-mail had this Message-ID", user=user.id)
        else:
            with structlog.contextvars.bound_contextvars(question=enqueued.question.id):
                if enqueued.created:
                    _log.info("a question by e-mail")
                await self._acknowledge(mail, enqueued.question)

    async def _followed(self, mail: IncomingMail, user: User) -> Question | None:
        """The student's own answered question whose answer the e-mail replies to."""
        for reference in self._references(mail):
            sent = await self._own_mail(reference)
            if isinstance(sent, Question) and sent.user_id == user.id and sent.answer is not None:
                return sent
        return None

    async def _acknowledge(self, mail: IncomingMail, question: Question) -> None:
        place = await self._queue.place(question)
        if not place:
            return  # It was stored before, and is answered by now.
        seconds = (await self._queue.pace()).expected_seconds(place)
        expected = self._clock() + timedelta(seconds=seconds) if seconds is not None else None
        await self._write(
            MailKind.ACKNOWLEDGEMENT,
            question.email,
            mail,
            dedupe=f"acknowledgement:{question.id}",
            values={
                "number": str(question.id),
                "question": question.input,
                "place": str(place),
                "expected": expected.isoformat() if expected else "",
                "attachments": ", ".join(mail.attachments),
            },
        )

    async def _refuse_stranger(self, mail: IncomingMail, sender: str) -> None:
        address = normal_form(sender)
        if not is_plain_address(address):
            _log.info("not answered: no plain address")
            return
        domains = self._settings.allowed_email_domains
        is_outside = bool(domains) and not is_within(address, domains)
        reason = Refusal.OUTSIDE if is_outside else Refusal.UNREGISTERED
        await self._refuse(mail, address, reason, domains=", ".join(domains), at_most_every=_WEEK)

    def _today(self) -> str:
        return f"{self._clock():%Y-%m-%d}"

    async def _refuse(
        self,
        mail: IncomingMail,
        email: str,
        reason: Refusal,
        *,
        limit: str = "",
        domains: str = "",
        at_most_every: timedelta | None = None,
        once: str = "",
    ) -> None:
        """Say why there will be no answer.

        Args:
            at_most_every: not where any refusal was written in this time.
            once: not where this reason was given under this word before.
        """
        kind, most = MailKind.NOT_ACCEPTED, self._settings.mail_questions_per_day
        is_silent = (
            await self._mails.was_written_within(email, kind, at_most_every)
            if at_most_every
            else not once and await self._mails.was_written_within(email, kind, _DAY, times=most)
        )
        is_told = False
        if not is_silent:
            if at_most_every:
                # Two mailers that look at the same moment write one.
                once = str(int(self._clock().timestamp() // at_most_every.total_seconds()))
            is_told = await self._write(
                kind,
                email,
                mail,
                dedupe=f"{reason}:{normal_form(email)}:{once}" if once else f"{kind}:{mail.key}",
                values={"reason": str(reason), "limit": limit, "domains": domains},
            )
        _log.info("not accepted", reason=str(reason), to=_domain(email), told=is_told)

    async def _write(
        self, kind: MailKind, email: str, mail: IncomingMail, *, dedupe: str, values: dict[str, str]
    ) -> bool:
        if self._mails_from != self._replies_to:
            values = {**values, "reply_to": self._replies_to}
        number = await self._mails.enqueue(
            kind,
            email=email,
            language=language_of(
                f"{mail.subject} {mail.text[:2000]}", self._settings.course_language
            ),
            values=values,
            dedupe=dedupe,
            thread=_thread(mail),
        )
        return number is not None


class Inbox:
    """Reads the folder until it is told to stop, whatever the servers do meanwhile."""

    def __init__(
        self,
        open_folder: Callable[[], Folder],
        name: str,
        *,
        reception: Reception,
        positions: Positions,
        stop: asyncio.Event,
        poll_seconds: float,
        retry: Backoff = RETRY,
    ) -> None:
        self._open_folder = open_folder
        self._name = name
        self._reception = reception
        self._positions = positions
        self._stop = stop
        self._poll_seconds = poll_seconds
        self._retry = retry
        self._trouble: str | None = None
        self._failures = 0
        self._refused = (0, 0)
        """The UID of the e-mail that MongoDB has refused last, and how often in a row."""

    async def run(self) -> None:
        """Look, wait for news, look again; after trouble, connect anew after a pause."""
        while not self._stop.is_set():
            try:
                await self._read_until_stop()
            except MailboxError as error:
                self._note(str(error))
            except (PyMongoError, SQLAlchemyError) as error:
                kind = "MongoDB" if isinstance(error, PyMongoError) else "the users' database"
                verb = "refuses" if isinstance(error, OperationFailure) else "is away"
                self._note(f"{kind} {verb}: {one_line(str(error), 200)}")
            except Exception as error:
                _log.exception("the inbox failed")
                self._note(type(error).__name__)
            self._failures += 1
            if not self._stop.is_set():
                await pause(self._stop, self._retry.pause(self._failures))

    async def _read_until_stop(self) -> None:
        reading = asyncio.create_task(self._read())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                # What it is just doing may end well.
                await asyncio.wait({reading}, timeout=_GOODBYE_SECONDS)
            if reading.done():
                await reading
        finally:
            stopping.cancel()
            reading.cancel()
            await asyncio.gather(reading, stopping, return_exceptions=True)

    def _note(self, trouble: str | None) -> None:
        # Each trouble once, however often it is met.
        if trouble != self._trouble:
            if trouble is None:
                _log.info("the inbox is back")
            elif not self._stop.is_set():
                metrics.count_fault(metrics.Fault.INBOX_AWAY)
                _log.error("the inbox cannot be read", reason=without_addresses(trouble))
        self._trouble = trouble

    async def _read(self) -> None:
        folder = self._open_folder()
        # A thread of its own: an IMAP connection waits for minutes.
        threads = ThreadPoolExecutor(1, thread_name_prefix="imap")
        loop = asyncio.get_running_loop()

        def run(method: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
            result = loop.run_in_executor(threads, method, *arguments)
            # Nobody may be waiting any more when it fails.
            result.add_done_callback(lambda done: done.cancelled() or done.exception())
            return result

        async def stop_waiting() -> None:
            await self._stop.wait()
            folder.stop_waiting()

        stopping = asyncio.create_task(stop_waiting())
        try:
            await self._reception.prepare()
            await run(folder.open)
            _log.info("reading the inbox", folder=self._name)
            while not self._stop.is_set():
                await self._look(folder, run)
                self._failures = 0
                self._note(None)
                await run(folder.wait, self._poll_seconds)
        finally:
            stopping.cancel()
            folder.abort()
            threads.submit(folder.close)
            threads.shutdown(wait=False)

    async def _look(self, folder: Folder, run: _Run) -> None:
        """Deal with every mail that has come since the last time."""
        position = await self._positions.find(self._name, folder.uidvalidity)
        if position is None:
            last = await run(folder.last_uid)
            position = await self._positions.start(self._name, folder.uidvalidity, last)
        unseen: list[int] = []
        if position.last_uid < position.unseen_until:
            unseen = await run(folder.unseen, position.last_uid, position.unseen_until)
        newer = await run(folder.newer, max(position.last_uid, position.unseen_until))
        uids = [*unseen, *newer]
        for start in range(0, len(uids), HEADER_BATCH):
            batch = uids[start : start + HEADER_BATCH]
            for header in await run(folder.headers, batch):
                if self._stop.is_set():
                    return
                is_ours = await self._process(folder, run, header)
                # A look at a header costs little: it is done again after a crash.
                if is_ours or header.uid == batch[-1]:
                    await self._positions.move(self._name, folder.uidvalidity, header.uid)
            await self._positions.move(self._name, folder.uidvalidity, batch[-1])

    async def _process(self, folder: Folder, run: _Run, header: Header) -> bool:
        """Deal with one mail; True where it was one for us, or one that cannot be dealt with."""
        with structlog.contextvars.bound_contextvars(uid=header.uid):
            try:
                mail = await asyncio.to_thread(read_mail, header.content)
                if not self._reception.may_concern_us(mail):
                    return False
                content = await run(folder.content, header.uid, BODY_LIMIT)
                if content is not None and header.size > BODY_LIMIT:
                    start = max(BODY_LIMIT, header.size - TAIL_LIMIT)
                    tail = await run(folder.content, header.uid, TAIL_LIMIT, start)
                    content = without_middle(content, tail or b"")
                if content is None:
                    return False
                mail = await asyncio.to_thread(read_mail, content)
                is_ours = await self._reception.take(mail)
            except Exception as error:
                if not self._is_own_fault(error, header.uid):
                    raise
                # The same next time: the mails after it must not wait for it. Where MongoDB
                # refuses everything, the position does not move past it either.
                _log.exception("an e-mail cannot be processed; it is left unread")
                return True
            if is_ours:
                await run(folder.mark_seen, header.uid)
            return is_ours

    def _is_own_fault(self, error: Exception, uid: int) -> bool:
        if isinstance(error, OperationFailure) and not isinstance(error, CannotWriteError):
            last, times = self._refused
            self._refused = (uid, times + 1 if last == uid else 1)
            return self._refused[1] >= _REFUSALS
        return isinstance(error, _OWN_FAULT) or not isinstance(error, _AWAY)


def language_of(text: str, default: str) -> str:
    """es or en by the text's small words, where they say it; else ``default``."""
    spanish, english = len(_SPANISH.findall(text)), len(_ENGLISH.findall(text))
    if spanish == english:
        return default
    return "es" if spanish > english else "en"


def _thread(mail: IncomingMail) -> Thread:
    return Thread(mail.message_id, mail.subject, mail.references)


def _domain(address: str) -> str:
    return one_line(domain_of(address), 100)
