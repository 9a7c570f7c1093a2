"""Questions, mails and what belongs to them: read from one MongoDB database, written into another.

Nothing here asks for more than the smaller servers have: no transactions, snapshots or renaming.
"""

from collections.abc import AsyncIterator

from pymongo import WriteConcern
from pymongo.asynchronous.database import AsyncDatabase

from consulta.backup.file import Row
from core.clock import NEVER, as_datetime, milliseconds, system_clock
from core.mails import AccountMails, MailKind
from core.questions import QuestionQueue

Database = AsyncDatabase[Row]

COLLECTIONS = ("inbox", "suppressions", "mails", "prompts", "counters")
"""In the order they are read. What refers to something is read before it, so that it is there: a
position in the inbox to mails and questions, a mail to a question, a question to its student (the
accounts come after all of these), a number to its counter."""

NOT_KEPT = ("checks", "restore", "turns", "retention", "processes", "faults", "alarms")
"""Of the doctor, of :class:`core.restoring.RestoreMark`, the locks of seconds of
:func:`core.turns.turn`, when data of too long ago was looked for last, and what runs now."""

NUMBERS_LEFT_OUT = 10_000
"""Numbers that may have been given out after the backup: links in lost mails carry them, and must
not open somebody else's question."""

_BATCH = 500
_DATES = ("date", "date_out")
_COUNTED = ("mails", "prompts")


async def read(database: Database) -> AsyncIterator[tuple[str, Row]]:
    """Every document with the name of its collection, each as it is when it is read.

    Questions and mails that are stored while this goes on are left out. So are temporary passwords
    that wait to be sent: they end within half an hour, and are secrets.
    """
    for name in COLLECTIONS:
        documents = _numbered(database, name) if name in _COUNTED else database[name].find({})
        async for document in documents:
            if not (name == "mails" and _has_password(document)):
                yield name, _with_dates(document)


async def size(database: Database) -> int:
    """How many documents there are to read, about."""
    return sum([await _count(database, name) for name in COLLECTIONS])


async def is_empty(database: Database) -> bool:
    """Whether nothing would be overwritten."""
    # Counters alone are no loss: their numbers belong to nothing.
    names = [name for name in COLLECTIONS if name != "counters"]
    return not any([await database[name].find_one({}, {"_id": 1}) for name in names])


async def work_in_progress(database: Database) -> str | None:
    """What a worker or a mailer is doing there just now, in a few words, if anything."""
    now = {"$gt": milliseconds(system_clock()), "$lt": NEVER}
    for name, query, what in (
        ("prompts", {"due": now, "held": True}, "a worker is answering question"),
        ("prompts", {"mail_due": now, "mail_in_doubt": True}, "a mailer is sending the answer to"),
        ("mails", {"mail_due": now, "mail_in_doubt": True}, "a mailer is sending mail"),
    ):
        if found := await database[name].find_one(query, {"_id": 1}):
            return f"{what} {found['_id']}"
    return None


class Writing:
    """Fills the collections, document by document; :meth:`finish` comes last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, list[Row]] = {name: [] for name in COLLECTIONS}
        self._highest = dict.fromkeys(_COUNTED, 0)

    async def clear(self) -> None:
        """Delete every document, and see to the indexes."""
        for name in COLLECTIONS:
            await self._database[name].delete_many({})
        await QuestionQueue(self._database).create_indexes()
        await AccountMails(self._database).create_indexes()

    async def add(self, name: str, document: Row) -> None:
        """Store one document."""
        if name in _COUNTED:
            self._highest[name] = max(self._highest[name], document["number"])
            document = _released(document)
        waiting = self._waiting[name]
        waiting.append(document)
        # The few others are stored at the end: where the inbox was read to means that everything
        # before is there.
        if name in _COUNTED and len(waiting) == _BATCH:
            await self._flush(name)

    async def finish(self) -> None:
        """Store the rest, and let the numbers go on after those that may have been given out."""
        counters = {counter["_id"]: counter for counter in self._waiting["counters"]}
        for name, highest in self._highest.items():
            last = max(highest, counters.get(name, {}).get("value", 0))
            if last:
                counters[name] = {"_id": name, "value": last + NUMBERS_LEFT_OUT}
        self._waiting["counters"] = list(counters.values())
        for name in reversed(COLLECTIONS):
            await self._flush(name)

    async def _flush(self, name: str) -> None:
        if documents := self._waiting[name]:
            # Not each batch synced, which takes ten times as long: the mark is removed by a write
            # that is, and with it all before; until then a restore can be repeated.
            quick = self._database.get_collection(name, write_concern=WriteConcern(w=1))
            await quick.insert_many(documents)
            documents.clear()


async def count(database: Database) -> dict[str, int]:
    """How many documents each collection has."""
    return {name: await _count(database, name) for name in COLLECTIONS}


async def _numbered(database: Database, name: str) -> AsyncIterator[Row]:
    # By ranges of the indexed number: a cursor that is open for minutes may be closed by the
    # server, or be kept by it in memory as a whole.
    collection = database[name]
    newest = await collection.find_one({}, {"number": 1}, sort=[("number", -1)])
    top, last = newest["number"] if newest else 0, 0
    while last < top:
        page = collection.find({"number": {"$gt": last, "$lte": top}}).sort([("number", 1)])
        documents = await page.limit(_BATCH).to_list()
        if not documents:
            return
        for document in documents:
            yield document
        last = documents[-1]["number"]


async def _count(database: Database, name: str) -> int:
    cursor = await database[name].aggregate([{"$count": "count"}])
    return next(iter([row["count"] async for row in cursor]), 0)


def _has_password(mail: Row) -> bool:
    return mail["kind"] == MailKind.TEMPORARY_PASSWORD and bool(mail["values"])


def _with_dates(document: Row) -> Row:
    dates = {name: as_datetime(document[name]) for name in _DATES if document.get(name)}
    return {**document, **dates}


def _released(document: Row) -> Row:
    # Whoever was answering it or sending its mail does so elsewhere. Here it waits at its place;
    # that the mail may have left is still known.
    changes: Row = {}
    if document.get("held"):
        changes |= {"held": False, "due": document.get("claimed_ms", document["date_ms"])}
    if document.get("mail_in_doubt"):
        changes["mail_due"] = milliseconds(document.get("date_out") or document["date"])
    return {**document, **changes}
