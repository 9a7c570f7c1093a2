"""``consulta doctor``: try everything the way it will be used, and say what mends it.

Of several services in containers of their own, each has its own libraries and settings, so a check
imports what it needs and is run only for the services that it is about.
"""

import asyncio
import contextlib
import ipaddress
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parsedate_to_datetime
from importlib.util import find_spec
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import httpx
from dotenv import dotenv_values
from pydantic import SecretStr
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.markup import escape
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from consulta import remedies
from consulta.services import stores
from core.clock import as_datetime
from core.mongo import connect
from core.restoring import UnfinishedRestoreError
from core.settings import DATABASE_PARTS, Service, Settings, SettingsError
from core.users import UserRepository, WorkerToken, create_user_engine

LEAST_FREE_MB = 1_000
LEAST_SECRET = 12
"""Characters of a password that only programs use."""
MODEL_SECONDS = 120.0
"""A large model that must be loaded first takes a minute or two."""
MOST_SKEW = 60.0
"""Seconds: leases, tokens and temporary passwords end by the clock."""
SERVICES: tuple[Service, ...] = ("api", "worker", "mailer")
_SHOWN = 3
"""How many of a long list are named."""
_CLOCK_SECONDS = 10.0
"""How long a server may take to say what time it is."""
_FRACTION = 1.0
"""Seconds: what the clocks of HTTP and SQL leave out."""


class _FoundError(Exception):
    """What is wrong, and what mends it, in a sentence."""


class _NotUsedError(Exception):
    """Why there is nothing to check, in a sentence."""


@dataclass(frozen=True, slots=True)
class _Case:
    """What is examined.

    Attributes:
        services: whose settings and dependencies.
        data: the folder of `consulta up`.
        mail_to: whom a test mail is sent to.
    """

    settings: Settings
    services: tuple[Service, ...]
    data: Path
    mail_to: str | None


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    run: Callable[[_Case], Awaitable[str]]
    services: tuple[Service, ...]


async def examine(
    terminal: Console,
    settings: Settings,
    *,
    service: Service | None = None,
    data: Path = Path("var"),
    mail_to: str | None = None,
) -> int:
    """Run every check, or those that one service needs, and print their results.

    Returns the exit code: 1 when a check failed.
    """
    case = _Case(settings, (service,) if service else SERVICES, data, mail_to)
    checks = [check for check in _CHECKS if set(check.services) & set(case.services)]
    failed = 0
    for check in checks:
        with terminal.status(f"{check.name}…"):
            try:
                mark, words = "[green]ok  [/]", await check.run(case)
            except _NotUsedError as reason:
                mark, words = "[dim]--  [/]", str(reason)
            except (_FoundError, SettingsError) as error:
                mark, words = "[red]FAIL[/]", str(error)
            except Exception as error:
                # One that nobody has foreseen must not keep the others from being run.
                fault = f"{type(error).__name__}: {' '.join(str(error).split())}"
                mark, words = "[red]FAIL[/]", f"it ends with {fault}"
            failed += "FAIL" in mark
        terminal.print(
            f"{mark} [bold]{check.name}:[/] {escape(words)}", highlight=False, soft_wrap=True
        )
    if failed:
        terminal.print(f"{failed} of {len(checks)} checks failed.")
    return 1 if failed else 0


async def _check_settings(case: _Case) -> str:
    problems: dict[str, None] = {}
    for service in case.services:
        try:
            case.settings.require(service)
        except SettingsError as error:
            problems[str(error)] = None
    authorities = os.environ.get("SSL_CERT_FILE")
    if authorities and not os.access(authorities, os.R_OK):
        problems[f"SSL_CERT_FILE names {authorities}, which cannot be read: mend or unset it."] = (
            None
        )
    if problems:
        raise _FoundError(" ".join(problems))
    whom = "every service has" if len(case.services) > 1 else "the service has"
    return f"{whom} what it needs."


async def _check_secrets(case: _Case) -> str:
    chosen = _secrets(case.settings)
    remedy = "`openssl rand -hex 32` makes one, and docs/operations.md says where to change it"
    for name, value in chosen.items():
        if len(value) < LEAST_SECRET or len(set(value)) < LEAST_SECRET // 2:
            raise _FoundError(f"{name} can be guessed: {remedy}.")
    if len(set(chosen.values())) < len(chosen):
        raise _FoundError(f"one secret does for several of {', '.join(chosen)}: {remedy}.")
    files = [Path(".env"), case.data / "consulta.env"]
    if readable := [file for file in files if _has_secrets(file) and _is_open_to_others(file)]:
        names = " ".join(map(str, readable))
        raise _FoundError(f"others can read the secrets in {names}: chmod 600 {names}.")
    if not chosen:
        raise _NotUsedError("none are set.")
    return f"long enough, no two alike: {', '.join(chosen)}."


def _secrets(settings: Settings) -> dict[str, str]:
    """The secrets that programs use among themselves, under the names of their settings."""
    chosen = {
        "SECRET_KEY": settings.secret_key,
        "DB_PASS": settings.db_pass,
        "MONGO_PASS": settings.mongo_pass,
    }
    found = {name: secret.get_secret_value() for name, secret in chosen.items() if secret}
    for name, url in (("DATABASE_URL", settings.database_url), ("MONGO_URL", settings.mongo_url)):
        with contextlib.suppress(ValueError):
            if url is not None and (password := urlsplit(url.get_secret_value()).password):
                found[name] = password
    return found


def _has_secrets(file: Path) -> bool:
    secret = {name for name, field in Settings.model_fields.items() if _is_secret(field.annotation)}
    return file.is_file() and any(
        value and name.lower() in secret for name, value in dotenv_values(file).items()
    )


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or SecretStr in get_args(annotation)


async def _check_passwords(case: _Case) -> str:
    _ = case.settings.passwords
    file = case.settings.passwords_file
    if _is_open_to_others(file):
        raise _FoundError(f"others can read {file}: chmod 600 {file}.")
    return f"{file} is complete and private."


def _is_open_to_others(file: Path) -> bool:
    return bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


async def _check_clock(case: _Case) -> str:
    settings = case.settings
    try:
        zone = ZoneInfo(settings.course_timezone)
    except (KeyError, ValueError, OSError):
        raise _FoundError(
            f"there is no time zone {settings.course_timezone} here: apt-get install tzdata, or "
            "pip install tzdata."
        ) from None
    clocks = {
        "the users' database": _clock_of_users,
        "the queue": _clock_of_queue,
        "the API": _clock_of_api,
        "Ollama": _clock_of_ollama,
    }
    compared = []
    for name, clock in clocks.items():
        skew = await _skew(clock, settings)
        if skew is not None and abs(skew) > MOST_SKEW:
            direction = "ahead of" if skew > 0 else "behind"
            raise _FoundError(
                f"the clock of {name} is {abs(skew):,.0f} s {direction} this machine's: let a time "
                "service set both (timedatectl set-ntp true)."
            )
        if skew is not None:
            compared.append(name)
    agrees = f"the same as of {', '.join(compared)}" if compared else "nothing to compare it with"
    return f"{datetime.now(zone):%Y-%m-%d %H:%M} in {settings.course_timezone}; {agrees}."


async def _skew(
    clock: Callable[[Settings], Awaitable[datetime]], settings: Settings
) -> float | None:
    """Seconds that the clock is ahead of this machine's; None where there is none to be read.

    Who does not answer is found by another check.
    """
    before = time.time()
    try:
        async with asyncio.timeout(_CLOCK_SECONDS):
            theirs = (await clock(settings)).timestamp()
    except (
        *(SQLAlchemyError, PyMongoError, httpx.HTTPError, httpx.InvalidURL, TimeoutError),
        *(SettingsError, ValueError, KeyError, _FoundError, _NotUsedError),
    ):
        return None
    # It was read at some moment between the question and the answer.
    return theirs - min(max(theirs, before - _FRACTION), time.time())


async def _clock_of_users(settings: Settings) -> datetime:
    def read() -> datetime:
        with _users_engine(settings) as engine:
            if engine.dialect.name == "sqlite":
                raise _NotUsedError("it is a file.")
            with engine.connect() as connection:
                return as_datetime(connection.scalars(text("SELECT UTC_TIMESTAMP()")).one())

    return await asyncio.to_thread(read)


async def _clock_of_queue(settings: Settings) -> datetime:
    _require_mongo(settings)
    async with connect(settings) as client:
        return as_datetime((await client.admin.command("hello"))["localTime"])


async def _clock_of_api(settings: Settings) -> datetime:
    return await _http_date(f"{settings.api_url}/health/live")


async def _clock_of_ollama(settings: Settings) -> datetime:
    models = (settings.llm_model, settings.embedding_model)
    if not any(model.startswith("ollama:") for model in models):
        raise _NotUsedError("no model of Ollama's is used.")
    return await _http_date(settings.ollama_server_url)


async def _http_date(url: str) -> datetime:
    async with httpx.AsyncClient(timeout=5) as client:
        reply = await client.get(url)
    return parsedate_to_datetime(reply.headers.get("Date", ""))


async def _check_disk(case: _Case) -> str:
    free: dict[int, str] = {}
    for path in (case.settings.index_location, case.data):
        folder = _existing(path)
        free_mb = shutil.disk_usage(folder).free // 2**20
        if free_mb < LEAST_FREE_MB:
            raise _FoundError(f"{free_mb} MB are free at {folder}; make room for {LEAST_FREE_MB}.")
        free.setdefault(folder.stat().st_dev, f"{free_mb:,} MB are free at {folder}")
    return f"{', '.join(free.values())}."


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


async def _check_permissions(case: _Case) -> str:
    def both() -> str:
        _read_documents(case.settings)
        return _write_to_index(case.settings)

    return await asyncio.to_thread(both)


def _read_documents(settings: Settings) -> None:
    from rag_worker.documents import find_files, no_document

    folder = settings.document_location
    if folder is None or not folder.is_dir():
        return  # Said by the check of the documents.
    closed: list[str] = []
    for _ in os.walk(folder, onerror=lambda error: closed.append(str(error.filename))):
        pass
    for file in find_files(folder):
        if no_document(file, folder) is None:
            try:
                with file.open("rb") as opened:
                    opened.read(1)
            except OSError:
                closed.append(str(file))
    if closed:
        more = f" and {len(closed) - _SHOWN} more" if len(closed) > _SHOWN else ""
        raise _FoundError(
            f"user {os.geteuid()} cannot read {', '.join(closed[:_SHOWN])}{more}: "
            f"chmod -R a+rX {folder}"
        )


def _write_to_index(settings: Settings) -> str:
    folder = _existing(settings.index_location)
    try:
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"consulta doctor")
            trial.flush()
            os.fsync(trial.fileno())
    except OSError as error:
        user = os.geteuid()
        raise _FoundError(
            f"user {user} cannot write to {folder} ({error.strerror}): chown -R {user} {folder}, "
            "or set INDEX_LOCATION to another folder."
        ) from None
    return f"user {os.geteuid()} can read the documents and write to {folder}."


async def _check_users(case: _Case) -> str:
    if case.services == ("mailer",) and case.settings.imap_server is None:
        raise _NotUsedError("IMAP_SERVER is not set, so the mailer asks nobody who a student is.")
    try:
        return await asyncio.to_thread(_try_users, case.settings)
    except SQLAlchemyError as error:
        raise _FoundError(f"it does not take a row: {remedies.of_users(error)}") from None


def _try_users(settings: Settings) -> str:
    with _users_engine(settings) as engine:
        if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
            # It would be created, by whoever asks.
            raise _FoundError(
                f"{engine.url.database} is not there: start the API, which makes it, or check "
                "DATABASE_URL."
            )
        # The API's image alone has what migrations need.
        revision = _check_migrations(engine) if find_spec("alembic") else "not looked at"
        row = WorkerToken(
            name=f"consulta doctor {os.urandom(8).hex()}",
            token_hash=os.urandom(32).hex(),
            created=datetime.now(UTC).replace(tzinfo=None, microsecond=0),
        )
        # Nobody else ever sees it, and nothing of it stays, whatever happens here.
        with Session(engine) as session, session.begin():
            session.add(row)
            session.flush()
            session.delete(row)
        users = len(UserRepository(engine).all())
    return f"it stores and deletes; revision: {revision}; accounts: {users}."


def _check_migrations(engine: Engine) -> str:
    from api.migrations import REVISIONS, revision_of

    current, newest = revision_of(engine), REVISIONS[-1]
    if current is None:
        raise _FoundError("it has no tables yet: the API makes them; start it.")
    if current not in REVISIONS:
        raise _FoundError(
            f"it is of a newer version (revision {current}, and this one knows {newest}): install "
            "that version, or restore the back-up made before."
        )
    if current != newest:
        raise _FoundError(
            f"it is at revision {current} and this version needs {newest}: the API changes it when "
            "it starts; restart it."
        )
    return current


@contextlib.contextmanager
def _users_engine(settings: Settings) -> Iterator[Engine]:
    if settings.database_url is None:
        for part in DATABASE_PARTS:
            if getattr(settings, part) is None:
                raise _FoundError(f"{part.upper()} is not set; DATABASE_URL would do as well.")
    engine = create_user_engine(settings)
    try:
        yield engine
    finally:
        engine.dispose()


def _require_mongo(settings: Settings) -> None:
    if settings.mongo_url is None and settings.mongo_host is None:
        raise _FoundError("there is none: set MONGO_URL, or MONGO_HOST.")


async def _check_queue(case: _Case) -> str:
    _require_mongo(case.settings)
    try:
        async with stores(case.settings) as opened:
            await opened.restoring.refuse()
            await opened.queue.check()
            counts = await opened.statistics.counts()
    except UnfinishedRestoreError as error:
        raise _FoundError(f"{error}; the services wait meanwhile.") from None
    except PyMongoError as error:
        raise _FoundError(f"it does not take a document: {remedies.of_queue(error)}") from None
    return f"it stores and deletes; questions: {sum(counts.by_state.values())}."


async def _check_documents(case: _Case) -> str:
    from rag_worker.documents import find_files

    folder = case.settings.document_location
    if folder is None:
        raise _FoundError("there is no folder for them: set DOCUMENT_LOCATION.")
    if not folder.is_dir():
        raise _FoundError(f"the folder {folder} is not there: set DOCUMENT_LOCATION.")
    files = len(list(find_files(folder.resolve())))
    if not files:
        raise _FoundError(f"{folder} has no document that can be read: put the course's there.")
    return f"files in {folder}: {files}."


async def _check_index(case: _Case) -> str:
    from rag_worker.generation import CorruptIndexError, current_name, read_manifest

    location = case.settings.index_location
    name = current_name(location)
    if name is None:
        raise _FoundError("there is none yet: `consulta index` makes it, or a running worker.")
    try:
        manifest = await asyncio.to_thread(read_manifest, location, name)
    except CorruptIndexError:
        raise _FoundError(f"{location} is damaged: `consulta index` makes it anew.") from None
    unread = [file.file for file in manifest.files if file.problem]
    if unread:
        raise _FoundError(
            f"{', '.join(unread)} could not be read: `consulta index` says why; mend or remove."
        )
    return f"passages: {sum(file.passages for file in manifest.files)}."


async def _check_embeddings(case: _Case) -> str:
    from rag_worker.embeddings import embeddings

    name = case.settings.embedding_model
    try:
        async with asyncio.timeout(MODEL_SECONDS):
            model = await asyncio.to_thread(embeddings, case.settings)
            vector = await model.aembed_query("¿Cuándo es el examen?")
    except Exception as error:
        # Whatever the provider's library raises.
        fetch = f"ollama pull {name.removeprefix('ollama:')}"
        remedy = f"`{fetch}` fetches it" if name.startswith("ollama:") else "install anew"
        reason = str(error) or type(error).__name__
        raise _FoundError(f"{name} makes no vector ({reason}): {remedy}.") from None
    return f"{name} makes vectors of {len(vector)} dimensions."


async def _check_model(case: _Case) -> str:
    from rag_worker.models import LanguageModel, ModelAwayError

    settings = case.settings
    seconds = min(settings.llm_timeout, MODEL_SECONDS)
    model = LanguageModel(
        settings.model_copy(update={"llm_max_tokens": 32, "llm_timeout": seconds})
    )
    try:
        await model.check()
        completion = await model.write("What is the capital of France?")
        window = await model.context()
    except ModelAwayError as error:
        raise _FoundError(
            f"{error}. Start it, or check LLM_MODEL and the address; questions wait until then."
        ) from None
    except TimeoutError:
        raise _FoundError(
            f"{settings.llm_model} wrote nothing within {seconds:g} s: it is still loading, "
            "answers somebody else, or is too large for this machine."
        ) from None
    except Exception as error:
        # Whatever the provider's library raises.
        raise _FoundError(f"{settings.llm_model} refuses a short question: {error}") from None
    finally:
        await model.close()
    if completion.prompt_tokens is None:
        counted = "it does not count tokens, so that a prompt it cuts is not noticed"
    else:
        counted = f"tokens counted: {completion.prompt_tokens}"
    return (
        f"{settings.llm_model} answers, in {completion.seconds:.1f} s; {counted}; its window: "
        f"{window}."
    )


async def _check_mail(case: _Case) -> str:
    from mailer.errors import DeliveryError, ServerError
    from mailer.sender import Account, Sender

    settings = case.settings
    if settings.smtp_server is None:
        raise _FoundError("there is none: set SMTP_SERVER.")
    server = f"{settings.smtp_server}:{settings.smtp_port}"
    for account in {Account.for_answers(settings), Account.for_account_mails(settings)}:
        if "@" not in account.username:
            raise _FoundError(
                f"{account.username or 'nothing'} sends the mails, which is no address: set "
                "SMTP_USERNAME (and RECOVERY_SMTP_USERNAME) to one with an @."
            )
        try:
            if case.mail_to is None:
                await Sender(account).check()
            else:
                await Sender(account).send(_trial(account.username, case.mail_to), case.mail_to)
        except ServerError as error:
            reason = str(error).rstrip(".")
            # It says itself which password to look at.
            remedy = "" if "password" in reason else f"; {remedies.of_mail(reason, 'SMTP')}"
            raise _FoundError(f"as {account.username}: {reason}{remedy}.") from None
        except DeliveryError as error:
            raise _FoundError(
                f"{server} does not take a mail from {account.username} to {case.mail_to}: "
                f"{str(error).rstrip('.')}; give --mail-to an address that exists, or ask who "
                "looks after the server."
            ) from None
    if case.mail_to is None:
        return f"{server} takes our mail; --mail-to ADDRESS sends one."
    return f"{server} has taken a mail to {case.mail_to}: look whether it comes, and not as spam."


def _trial(sender: str, to: str) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = to
    message["Subject"] = "consulta doctor"
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("Consulta can send mail to this address. Nobody needs to answer.\n")
    return message


async def _check_inbox(case: _Case) -> str:
    settings = case.settings
    if settings.imap_server is None:
        raise _NotUsedError("IMAP_SERVER is not set, so there are no questions by e-mail.")

    from mailer.imap import Folder, Mailbox, MailboxError

    def look() -> str:
        folder = Folder(Mailbox.from_settings(settings))
        try:
            folder.open()
            mails = folder.newer(0)
            unread = folder.unseen(0, max(mails, default=0))
        finally:
            folder.close()
        return f"mails in {settings.imap_folder}: {len(mails)}; unread: {len(unread)}."

    try:
        return await asyncio.to_thread(look)
    except MailboxError as error:
        reason = str(error).rstrip(".")
        if "IMAP_FOLDER" in reason:
            remedy = "; create it, or set IMAP_FOLDER to one that is there"
        else:
            remedy = "" if "password" in reason else f"; {remedies.of_mail(reason, 'IMAP')}"
        raise _FoundError(f"{reason}{remedy}.") from None


async def _check_links(case: _Case) -> str:
    settings = case.settings
    url = urlsplit(settings.public_url)
    if settings.smtp_server is None or _is_local(settings.smtp_server):
        raise _NotUsedError(f"mail stays on this machine, and so may {settings.public_url}.")
    if _is_local(url.hostname or ""):
        raise _FoundError(
            f"links in e-mails lead to {settings.public_url}, which students do not reach: set "
            "PUBLIC_URL to the address of the API as they see it."
        )
    if url.scheme != "https":
        raise _FoundError(
            f"students' passwords go to {settings.public_url} unencrypted: docs/operations.md says "
            "how to put HTTPS in front; then set PUBLIC_URL to https://…"
        )
    return f"e-mails lead to {settings.public_url}."


def _is_local(host: str) -> bool:
    """Whether it is this machine, or a name that only this machine or its containers know."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return "." not in host


async def _check_api(case: _Case) -> str:
    url = case.settings.api_url
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            reply = await client.get(f"{url}/health/ready")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _FoundError(
            f"it does not answer at {url} ({type(error).__name__}): start it, or check API_URL."
        ) from None
    if not reply.is_success:
        raise _FoundError(
            f"{url} is not ready ({reply.status_code}: {' '.join(reply.text.split())[:200]}): what "
            "is down there is mended there; `consulta doctor` on the server says how."
        )
    is_open = url.startswith("http://") and not _is_local(urlsplit(url).hostname or "")
    if is_open and "remote_worker" in case.services:
        raise _FoundError(
            f"the token and students' questions go to {url} unencrypted: set API_URL, and "
            "--api-url, to https://…"
        )
    return f"ready at {url}."


async def _check_token(case: _Case) -> str:
    from rag_worker.remote import RemoteQueue, RemoteQueueError

    token = os.environ.get("WORKER_TOKEN")
    if not token:
        raise _NotUsedError("WORKER_TOKEN is not set; in the environment it would be tried.")
    try:
        async with RemoteQueue(case.settings.api_url, token) as queue:
            # A claim that nobody has: the answer is no, to whom the API lets in.
            await queue.renew(1, 0)
    except RemoteQueueError as error:
        raise _FoundError(f"{error}.") from None
    return "the API knows it."


_READERS: tuple[Service, ...] = ("worker", "remote_worker")
_ALL: tuple[Service, ...] = (*SERVICES, "remote_worker")
_CHECKS = (
    _Check("Settings", _check_settings, _ALL),
    _Check("Secrets", _check_secrets, _ALL),
    _Check("Passwords", _check_passwords, ("mailer",)),
    _Check("Clock", _check_clock, _ALL),
    _Check("Disk", _check_disk, _ALL),
    _Check("Permissions", _check_permissions, _READERS),
    _Check("Users' database", _check_users, ("api", "mailer")),
    _Check("Queue", _check_queue, SERVICES),
    _Check("Documents", _check_documents, _READERS),
    _Check("Index", _check_index, _READERS),
    _Check("Embeddings", _check_embeddings, _READERS),
    _Check("Language model", _check_model, _READERS),
    _Check("Mail server", _check_mail, ("mailer",)),
    _Check("Inbox", _check_inbox, ("mailer",)),
    _Check("Links", _check_links, ("mailer",)),
    _Check("API", _check_api, ("api", "remote_worker")),
    _Check("Token", _check_token, ("remote_worker",)),
)
