"""Alarms to the course staff: what needs them, told by e-mail at most once in ALARM_PAUSE_SECONDS.

One document holds what they were told and when, so that neither a restart nor a second mailer says
it again. A trouble that lasts is told of again after a pause that doubles up to a day, and its end
is told too. What could not be sent is looked at again when it can: if it is no longer true, it is
withdrawn, and what leaves has the figures of that moment.
"""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError, PyMongoError

from core import metrics
from core.clock import NEVER, Clock, milliseconds, system_clock
from core.mails import AccountMail, AccountMails, MailKind
from core.outbox import MailStatus
from core.processes import Processes
from core.settings import Settings
from core.statistics import Statistics
from core.worker import pause

LONGEST_PAUSE = timedelta(days=1)
"""Between two mails about a trouble that lasts."""
FIRST_LOOK_BACK = timedelta(hours=1)
MOST_NAMED = 10

_MIB = 2**20
_STATE = "staff"

Document = dict[str, Any]

log = structlog.get_logger(__name__)


class Trouble(StrEnum):
    """What the staff are told of."""

    QUESTION = "question"
    """The oldest question has waited too long."""
    UNSENT = "unsent"
    """E-mails have waited too long to be sent."""
    DISK = "disk"
    """A disk fills."""
    REFUSED = "refused"
    """Answers were refused for good. It happens and does not last, so nothing tells its end."""
    REFUSED_MAIL = "refused_mail"
    """The same of other e-mails that somebody waits for."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is wrong at one moment; ``values`` are for the e-mail's template."""

    troubles: tuple[Trouble, ...]
    values: Mapping[str, str]

    @property
    def lasting(self) -> set[Trouble]:
        """Those that have an end."""
        return set(self.troubles) - {Trouble.REFUSED, Trouble.REFUSED_MAIL}


class Alarms:
    """Looks for trouble and has it told."""

    def __init__(
        self,
        settings: Settings,
        database: AsyncDatabase[Document],
        mails: AccountMails,
        *,
        clock: Clock = system_clock,
    ) -> None:
        self._settings = settings
        self._mails = mails
        self._state = database["alarms"]
        self._stored = database["mails"]
        self._statistics = Statistics(database, clock=clock)
        self._processes = Processes(database, clock=clock)
        self._clock = clock
        self._failed: type[Exception] | None = None
        """What the last look ended with."""

    async def run(self, stop: asyncio.Event) -> None:
        """Look as often as there are signs of life, until ``stop`` is set."""
        while not stop.is_set():
            try:
                await self.look()
            except Exception as error:
                # Whatever it is, as a document that nobody can read: the mail beside it goes on.
                if type(error) is not self._failed:
                    is_away = isinstance(error, PyMongoError)
                    say = log.warning if is_away else log.exception
                    say("alarms cannot be looked for", reason=type(error).__name__)
                self._failed = type(error)
            else:
                self._failed = None
            await pause(stop, self._settings.heartbeat_seconds)

    async def look(self) -> None:
        """Store an e-mail to the staff where there is something new to say.

        Raises:
            pymongo.errors.PyMongoError: the server is away or refuses.
        """
        state = await self._read_state()
        if state["pending"] is not None:
            # Who decided it was killed before it was stored for everybody.
            await self._store(state["token"], state["pending"])
            return
        now = self._clock()
        since = timedelta(milliseconds=milliseconds(now) - state["told_ms"])
        if timedelta(0) <= since < timedelta(seconds=self._settings.alarm_pause_seconds):
            return
        report = await self.report(state["refused_ms"])
        told = {Trouble(trouble) for trouble in state["told"]}
        is_new = bool(set(report.troubles) - told)
        if not is_new and (not told or (report.lasting and since < self._pause(state["times"]))):
            return
        token = uuid.uuid4().hex
        decided = await self._state.update_one(
            {"_id": _STATE, "token": state["token"]},
            {
                "$set": {
                    "token": token,
                    "told": sorted(report.lasting),
                    "told_ms": milliseconds(now),
                    "times": 1 if is_new else state["times"] + 1,
                    "refused_ms": milliseconds(now) + 1,
                    "pending": dict(report.values),
                }
            },
        )
        if decided.matched_count == 0:
            return  # Another mailer was faster.
        if report.troubles:
            log.warning("alarm", troubles=list(map(str, report.troubles)))
        else:
            log.info("all clear")
        await self._store(token, report.values)

    async def report(self, refused_since: int) -> Report:
        """What is wrong now, with answers that were refused since then (milliseconds)."""
        now, settings = self._clock(), self._settings
        values = {"refused_since": str(refused_since)}
        troubles = []
        oldest = await self._statistics.oldest_waiting()
        if oldest and now - oldest > timedelta(seconds=settings.alarm_question_seconds):
            troubles.append(Trouble.QUESTION)
            values["question_since"] = oldest.isoformat()
            values["worker"] = await self._worker()
        late = now - timedelta(seconds=settings.alarm_mail_seconds)
        if unsent := await self._statistics.unsent(late):
            troubles.append(Trouble.UNSENT)
            values["unsent"] = str(len(unsent))
            values["unsent_since"] = late.isoformat()
        if settings.alarm_free_mb and (disk := await self._fullest_disk()):
            troubles.append(Trouble.DISK)
            values |= disk
        since = datetime.fromtimestamp(refused_since / 1000, tz=now.tzinfo)
        if refused := await self._statistics.undeliverable(since):
            troubles.append(Trouble.REFUSED)
            values["refused"] = _named(refused)
        if refused := await self._statistics.undeliverable_mails(since):
            troubles.append(Trouble.REFUSED_MAIL)
            values["refused_mail"] = _named(refused)
        values["troubles"] = " ".join(troubles)
        return Report(tuple(troubles), values)

    async def current(self, mail: AccountMail) -> AccountMail | None:
        """An alarm as it is to leave now, with the present figures; None where it is not true any
        more, and is taken back.

        Raises:
            pymongo.errors.PyMongoError: the server is away or refuses.
        """
        report = await self.report(int(mail.values["refused_since"]))
        said = set(mail.values["troubles"].split())
        if said & set(report.troubles) or (not said and not report.lasting):
            return replace(mail, values=dict(report.values) if said else mail.values)
        if await self._mails.withdraw(mail.id, mail.mail_claims):
            metrics.MAILS.labels("other", metrics.MailOutcome.WITHDRAWN).inc()
            log.info("alarm withdrawn", mail=mail.id)
            await self._unsay(mail.id)
        return None

    async def _unsay(self, number: int) -> None:
        """Where nobody was told what this mail says, and nobody will be, there is no end of it to
        tell, and its return is new."""
        stored = await self._stored.find_one({"_id": number}, {"dedupe": 1})
        _, token, _ = stored["dedupe"].split(":", 2) if stored else ("", "", "")
        # To whom else it was written.
        same = {"dedupe": {"$gt": f"alarm:{token}:", "$lt": f"alarm:{token};"}}
        for told in ({"status": str(MailStatus.SENT)}, {"mail_due": {"$lt": NEVER}}):
            if await self._stored.find_one({**same, **told}, {"_id": 1}):
                return
        await self._state.update_one(
            {"_id": _STATE, "token": token}, {"$set": {"told": [], "times": 0}}
        )

    def _pause(self, times: int) -> timedelta:
        doubled = 2 ** min(max(times - 1, 0), 20)
        return min(timedelta(seconds=self._settings.alarm_pause_seconds * doubled), LONGEST_PAUSE)

    async def _worker(self) -> str:
        """Whether a worker is there: ``there``, ``silent`` or ``none``."""
        workers = [sign for sign in await self._processes.all() if sign.service == "worker"]
        if any(not sign.is_silent(self._clock()) for sign in workers):
            return "there"
        return "silent" if workers else "none"

    async def _fullest_disk(self) -> dict[str, str] | None:
        """The disk with the least free, if that is too little."""
        disks = [
            (disk, f"{sign.service}, {sign.name}")
            for sign in await self._processes.all()
            if not sign.is_silent(self._clock())
            for disk in sign.disks
        ]
        if not disks:
            return None
        disk, owner = min(disks, key=lambda pair: pair[0].free)
        if disk.free >= self._settings.alarm_free_mb * _MIB:
            return None
        return {"disk": disk.path, "disk_of": owner, "free_mb": str(disk.free // _MIB)}

    async def _read_state(self) -> Document:
        state = await self._state.find_one({"_id": _STATE})
        if state is None:
            state = {
                "_id": _STATE,
                "token": uuid.uuid4().hex,
                "told": [],
                "told_ms": 0,
                "times": 0,
                "refused_ms": milliseconds(self._clock() - FIRST_LOOK_BACK),
                "pending": None,
            }
            try:
                await self._state.insert_one(state)
            except DuplicateKeyError:
                return await self._read_state()
        return state

    async def _store(self, token: str, values: Mapping[str, str]) -> None:
        for address in self._settings.staff_email:
            await self._mails.enqueue(
                MailKind.ALARM,
                email=address,
                language=self._settings.course_language,
                values=values,
                dedupe=f"alarm:{token}:{address}",
            )
        await self._state.update_one({"_id": _STATE, "token": token}, {"$set": {"pending": None}})


def _named(numbers: list[int]) -> str:
    more = ", …" if len(numbers) > MOST_NAMED else ""
    return ", ".join(map(str, numbers[:MOST_NAMED])) + more
