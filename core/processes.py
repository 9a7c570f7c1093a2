"""The processes of the service, known by their signs of life, and the faults that they counted.

A process that is stopped takes its sign away; one that is killed leaves it, and grows silent.
"""

import os
import shutil
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from core.clock import Clock, as_datetime, milliseconds, system_clock
from core.metrics import Fault
from core.settings import Settings

Document = dict[str, Any]

FORGOTTEN = timedelta(days=1)
"""A process that has been silent for so long is not coming back."""
FAULTS_KEPT = timedelta(days=30)
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system that a process writes to; sizes in bytes."""

    path: str
    free: int
    size: int


@dataclass(frozen=True, slots=True)
class Sign:
    """The last that was heard of a process.

    Attributes:
        name: its machine and process number; of a worker elsewhere the name of its token.
        pause: seconds until its next sign was to come.
        mail_closed: since when, to a mailer, the mail server has been away; None while it is there.
    """

    service: str
    name: str
    seen: datetime
    started: datetime
    version: str
    pause: float
    disks: tuple[Disk, ...] = ()
    mail_closed: datetime | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is a worker that only asks the API: it may be switched off at any moment."""
        return not self.version

    def is_silent(self, now: datetime) -> bool:
        """Whether three of its signs are overdue, and a little; by its own clock and ours."""
        return (now - self.seen).total_seconds() > 3 * self.pause + 5


class Processes:
    """The collections ``processes`` and ``faults`` of one MongoDB database.

    Raises:
        pymongo.errors.PyMongoError: from every verb, when the server is away or refuses.
    """

    def __init__(self, database: AsyncDatabase[Document], *, clock: Clock = system_clock) -> None:
        self._processes = database["processes"]
        self._faults = database["faults"]
        self._clock = clock

    async def note(self, sign: Sign) -> None:
        """Store a sign of life in place of the process's last one."""
        content = {
            "service": sign.service,
            "name": sign.name,
            "seen_ms": milliseconds(sign.seen),
            "started_ms": milliseconds(sign.started),
            "version": sign.version,
            "pause": sign.pause,
            "disks": [asdict(disk) for disk in sign.disks],
            "mail_closed_ms": milliseconds(sign.mail_closed) if sign.mail_closed else 0,
        }
        await self._processes.update_one(
            {"_id": f"{sign.service}@{sign.name}"}, {"$set": content}, upsert=True
        )

    async def remove(self, service: str, name: str) -> None:
        """It was stopped: nobody is to wait for its signs."""
        await self._processes.delete_one({"_id": f"{service}@{name}"})

    async def remove_old(self, service: str) -> None:
        """Take away the signs of the service's killed processes on this machine, whatever has been
        silent for long, and old faults."""
        host = socket.gethostname()
        long_ago = milliseconds(self._clock() - FORGOTTEN)
        for sign in await self.all():
            machine, _, number = sign.name.rpartition(":")
            is_here = machine == host and number.isdecimal() and sign.service == service
            if (is_here and not _runs(int(number))) or milliseconds(sign.seen) < long_ago:
                await self.remove(sign.service, sign.name)
        await self._faults.delete_many(
            {"hour_ms": {"$lt": milliseconds(self._clock() - FAULTS_KEPT)}}
        )

    async def all(self) -> list[Sign]:
        """Of every process the last sign, by service and name."""
        signs = [_sign(document) async for document in self._processes.find({})]
        return sorted(signs, key=lambda sign: (sign.service, sign.name))

    async def add_faults(self, run: str, counts: Mapping[Fault, int]) -> None:
        """Store what one run of a process has counted within the present hour.

        The whole hour's counts, so that a write whose reply was lost may be repeated.
        """
        hour = hour_of(self._clock())
        await self._faults.update_one(
            {"_id": f"{run}:{hour}"},
            {"$set": {"hour_ms": hour, "counts": {str(kind): n for kind, n in counts.items()}}},
            upsert=True,
        )

    async def faults(self, span: timedelta) -> dict[Fault, int]:
        """How often each has happened in the last ``span``, in whole hours."""
        sums = dict.fromkeys(Fault, 0)
        since = hour_of(self._clock() - span)
        async for document in self._faults.find({"hour_ms": {"$gt": since}}):
            for kind, count in document["counts"].items():
                if kind in sums:
                    sums[Fault(kind)] += count
        return sums


def hour_of(moment: datetime) -> int:
    """When the hour began that ``moment`` is in, in milliseconds."""
    length = _HOUR // timedelta(milliseconds=1)
    return milliseconds(moment) // length * length


def own_name() -> str:
    """What this process is called among the others."""
    return f"{socket.gethostname()}:{os.getpid()}"


def own_disks(settings: Settings) -> tuple[Disk, ...]:
    """The file systems that this process's settings lead to, and the system's own.

    In a container the last is the disk that the engine keeps its containers and volumes on.
    """
    places = [Path("/"), settings.index_location.absolute()]
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        if url.startswith("sqlite:///"):
            places.append(Path(url.removeprefix("sqlite:///")).absolute().parent)
    found: dict[int, Disk] = {}
    for place in places:
        try:
            existing = next(path for path in (place, *place.parents) if path.exists())
            usage = shutil.disk_usage(existing)
            found.setdefault(existing.stat().st_dev, Disk(str(existing), usage.free, usage.total))
        except OSError:
            continue  # Not ours to read, or it was just unmounted.
    return tuple(found.values())


def new_run() -> str:
    """A name for one run of a process, for its counts."""
    return uuid.uuid4().hex


def _sign(document: Mapping[str, Any]) -> Sign:
    closed = document.get("mail_closed_ms")
    return Sign(
        document["service"],
        document["name"],
        _moment(document["seen_ms"]),
        _moment(document["started_ms"]),
        document["version"],
        document["pause"],
        # Whatever a newer version adds is not for us.
        tuple(Disk(disk["path"], disk["free"], disk["size"]) for disk in document["disks"]),
        _moment(closed) if closed else None,
    )


def _moment(milliseconds: int) -> datetime:
    return as_datetime(datetime.fromtimestamp(milliseconds / 1000).astimezone())


def _runs(number: int) -> bool:
    if number == os.getpid():
        return False  # It was another process's number.
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
