"""``consulta backup`` and ``consulta restore``."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from api.migrations import REVISIONS, migrate, revision_of
from consulta.backup import accounts, questions
from consulta.backup import settings as settings_part
from consulta.backup.file import BackupFileError, Header, Reader, Row, Writer
from consulta.backup.place import Place
from core.clock import system_clock
from core.mongo import connect
from core.restoring import NOTICE_SECONDS, RestoreMark, UnfinishedRestoreError
from core.settings import Settings
from core.users import create_user_engine

if TYPE_CHECKING:
    from rag_worker.relevance import Thresholds

STREAM = Path("-")
"""Stands for the standard output, or input."""

_THRESHOLDS = "thresholds"
_NAMES = {
    "users": "accounts",
    "worker_tokens": "workers' tokens",
    "prompts": "questions",
    "mails": "other mails",
    "suppressions": "dead addresses",
}


class BackupError(Exception):
    """It cannot be done; one sentence says why, and what to do."""


async def back_up(terminal: Console, place: Place, file: Path, *, overwrite: bool) -> None:
    """Write users, questions and settings to ``file``, while the service goes on.

    Raises:
        BackupError: the file exists or cannot be written, or the users' database is away.
        pymongo.errors.PyMongoError: the questions' database is away.
    """
    async with connect(place.settings) as client:
        database = client[place.settings.mongo_db_name]
        try:
            await RestoreMark(database).refuse()
        except UnfinishedRestoreError as error:
            raise BackupError(f"This would be half a backup: {error}.") from None
        with _engine(place.settings) as engine, _output(file, overwrite=overwrite) as stream:
            revision = revision_of(engine)
            _refuse_newer_tables(revision)
            header = Header(
                version=_version(),
                created=system_clock().isoformat(),
                revision=revision,
                settings=settings_part.recorded(place.own),
                secret_key=settings_part.fingerprint(place.secret_key),
            )
            writer = Writer(stream, header)
            with _progress(terminal, "Copying", await questions.size(database)) as show:
                async for name, row in questions.read(database):
                    writer.add(name, row)
                    show(writer.counts.total())
                for name, row in accounts.read(engine):
                    writer.add(name, row)
            thresholds = _thresholds(place.settings)
            if thresholds is not None and thresholds.fitted_on:
                writer.add(_THRESHOLDS, asdict(thresholds))
            writer.finish()
    _say(terminal, f"In the backup: {_counted(writer.counts)}.")
    _say(
        terminal,
        "It holds names, addresses, password hashes and what students asked: keep it like the "
        "databases. SECRET_KEY, the other secrets and the course's documents are not in it.",
    )


async def restore(terminal: Console, place: Place, file: Path, *, replace: bool) -> None:
    """Fill the databases from ``file``, and put back settings that are not here.

    The file is read to its end before anything is changed. Accounts are deleted first and stored
    last, all at once, so that nobody gets in before everything is there. An interrupted restore
    leaves a mark, and is done anew by the next one.

    Raises:
        BackupError: the file cannot be used, the service runs, there is something already, or the
            users' database is away.
        pymongo.errors.PyMongoError: the questions' database is away.
    """
    async with connect(place.settings) as client:
        database = client[place.settings.mongo_db_name]
        with _engine(place.settings) as engine, _input(file) as (stream, length):
            try:
                backup = Reader(stream)
                rows = backup.check()
                _refuse_unknown(backup.header, rows)
            except BackupFileError as error:
                raise BackupError(f"{file} {error}.") from None
            mark = RestoreMark(database)
            if begun := await mark.begun():
                _say(terminal, f"The restore of {begun[:16]} UTC was interrupted: it is done anew.")
            _refuse_newer_tables(revision_of(engine))
            migrate(engine)
            await _refuse_in_use(engine, database)
            is_empty = not accounts.count(engine) and await questions.is_empty(database)
            if not (is_empty or begun or replace):
                raise BackupError(
                    "There are accounts or questions here already: --replace deletes them and "
                    "restores; back them up before."
                )
            await _take_over(mark, engine, database)
            with _progress(terminal, "Restoring", length) as show:
                thresholds = await _fill(engine, database, backup, lambda: show(stream.tell()))
            await _verify(engine, database, rows)
            await mark.remove()
    _say(terminal, f"Restored, as of {backup.header.created[:16]} UTC: {_counted(rows)}.")
    _restore_thresholds(terminal, place.settings, thresholds)
    _restore_settings(terminal, place, backup.header)


async def _take_over(mark: RestoreMark, engine: Engine, database: questions.Database) -> None:
    """Let whoever works on these databases notice the mark, and stand aside."""
    was_interrupted = await mark.begun() is not None
    await mark.set()
    await asyncio.sleep(NOTICE_SECONDS)
    try:
        await _refuse_in_use(engine, database)
    except BackupError:
        if not was_interrupted:
            await mark.remove()
        raise


async def _fill(
    engine: Engine, database: questions.Database, backup: Reader, show: Callable[[], None]
) -> Row | None:
    accounts.clear(engine)
    writing = questions.Writing(database)
    await writing.clear()
    thresholds = None
    try:
        with accounts.writing(engine) as write_account:
            for name, row in backup.rows():
                if name in accounts.TABLES:
                    write_account(name, row)
                elif name == _THRESHOLDS:
                    thresholds = row
                else:
                    await writing.add(name, row)
                show()
            await writing.finish()
    except IntegrityError:
        raise BackupError(
            "Somebody registered meanwhile, so the API is running: stop it, and repeat the restore."
        ) from None
    return thresholds


def _refuse_unknown(header: Header, rows: Counter[str]) -> None:
    known = {*accounts.TABLES, *questions.COLLECTIONS, _THRESHOLDS}
    if header.revision not in {None, *REVISIONS} or not rows.keys() <= known:
        raise BackupFileError(
            f"was made by a newer Consulta ({header.version}): restore it with that one or a later "
            "one"
        )


def _refuse_newer_tables(revision: str | None) -> None:
    if revision not in {None, *REVISIONS}:
        raise BackupError(
            f"The accounts' tables are of a newer Consulta (revision {revision}): use that one."
        )


async def _refuse_in_use(engine: Engine, database: questions.Database) -> None:
    remedy = "stop the API, the workers and the mailer, and try again"
    # Our own pool has one connection, which asks.
    if others := accounts.others(engine):
        raise BackupError(f"Others are connected to the users' database ({others}): {remedy}.")
    if doing := await questions.work_in_progress(database):
        raise BackupError(
            f"The service is running ({doing}): {remedy}. After a crash, wait until the claim ends."
        )


async def _verify(engine: Engine, database: questions.Database, rows: Counter[str]) -> None:
    there = await questions.count(database)
    # Numbers are counted from anew where the backup has no counter.
    stored = sum(there[name] for name in there if name != "counters") + accounts.count(engine)
    expected = sum(rows.values()) - rows["counters"] - rows[_THRESHOLDS]
    if stored != expected:
        raise BackupError(
            f"{expected} rows were restored and {stored} are there: something is running on these "
            "databases. Stop it, and repeat the restore."
        )


def _restore_thresholds(terminal: Console, settings: Settings, kept: Row | None) -> None:
    if kept is None:
        return
    try:
        from rag_worker.relevance import Thresholds

        settings.index_location.mkdir(parents=True, exist_ok=True)
        Thresholds(**kept).store(settings.index_location)
    except (ImportError, OSError, TypeError, ValueError):
        _say(
            terminal,
            f"What `consulta calibrate` had fitted cannot be stored in {settings.index_location}: "
            f"calibrate again, or write {kept} to thresholds.json in the worker's index.",
        )
    else:
        _say(terminal, "What `consulta calibrate` had fitted is restored too.")


def _restore_settings(terminal: Console, place: Place, header: Header) -> None:
    file = Path(".env")
    if differing := settings_part.differing(header.settings, place.own):
        try:
            settings_part.write(header.settings, file)
        except OSError:  # There is one, or there can be none, as in a container.
            lines = "\n".join(settings_part.env_lines(differing))
            _say(terminal, f"In the backup these settings are otherwise than here:\n{lines}")
        else:
            _say(terminal, f"The settings are in {file}; those of the machine are commented out.")
    if header.secret_key != settings_part.fingerprint(place.secret_key):
        _say(
            terminal,
            "SECRET_KEY is not the one of the backup: with this one everybody logs in again, and "
            "links in mails that were sent do not work. Put the old one in its place to keep them.",
        )


def _thresholds(settings: Settings) -> "Thresholds | None":
    try:
        from rag_worker.relevance import Thresholds
    except ImportError:  # An image of another service has no index either.
        return None
    return Thresholds.of_index(settings.index_location)


@contextlib.contextmanager
def _engine(settings: Settings) -> Iterator[Engine]:
    engine = create_user_engine(settings)
    try:
        yield engine
    except SQLAlchemyError as error:
        raise BackupError(
            f"The users' database does not answer or refuses ({type(error).__name__}): check "
            "DATABASE_URL or the DB_ settings."
        ) from None
    finally:
        engine.dispose()


@contextlib.contextmanager
def _output(file: Path, *, overwrite: bool) -> Iterator[BinaryIO]:
    """The file, for its owner alone; it is there at the end, whole, or not at all."""
    try:
        if file == STREAM:
            if sys.stdout.isatty():
                raise BackupError("A backup is not for the terminal: send it to a file.")
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif file.is_dir():
            raise BackupError(f"{file} is a folder: name a file.")
        elif file.exists() and not overwrite:
            raise BackupError(f"{file} exists: choose another name, or give --overwrite.")
        else:
            with _written_at_the_end(file) as stream:
                yield stream
    except BrokenPipeError:
        raise  # Whoever reads has had enough: not worth a sentence.
    except OSError as error:
        if file == STREAM:
            _close_standard_output()
        where = "The standard output" if file == STREAM else file
        raise BackupError(
            f"{where} cannot be written ({error.strerror}): use another place."
        ) from None


def _close_standard_output() -> None:
    # What is left in its buffer would fail again as Python ends, with an exit code of its own.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def _written_at_the_end(file: Path) -> Iterator[BinaryIO]:
    part = file.with_name(f"{file.name}.part")
    opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(opened, "wb") as stream:
        _lock(stream, part)
        # Of a backup that was killed.
        stream.truncate()
        try:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            part.replace(file)
            _sync_folder(file.absolute().parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _lock(stream: BinaryIO, part: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BackupError(f"Another backup is writing {part}: let it end.") from None


def _sync_folder(folder: Path) -> None:
    # Else the name may be gone after a power failure, and the content with it.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _input(file: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file and its length in bytes; a pipe is put aside first, because it is read twice."""
    with contextlib.ExitStack() as closing:
        try:
            stream: BinaryIO
            if file == STREAM:
                stream = closing.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(sys.stdin.buffer, stream)
            else:
                stream = closing.enter_context(file.open("rb"))
            length = stream.seek(0, os.SEEK_END)
        except OSError as error:
            raise BackupError(f"{file} cannot be read ({error.strerror}).") from None
        yield stream, length


@contextlib.contextmanager
def _progress(terminal: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=terminal,
        transient=True,
        disable=not terminal.is_terminal,
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def _counted(rows: Counter[str]) -> str:
    return ", ".join(f"{rows[name]} {what}" for name, what in _NAMES.items())


def _say(terminal: Console, message: str) -> None:
    terminal.print(message, markup=False, highlight=False, soft_wrap=True)


def _version() -> str:
    try:
        return version("consulta")
    except PackageNotFoundError:
        return "unreleased"
