"""``consulta doctor``: try everything the way it will be used, and say what mends it."""

import asyncio
import shutil
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import SQLAlchemyError

from consulta.services import stores
from core.settings import Service, Settings, SettingsError
from core.users import UserRepository, create_user_engine
from mailer.errors import ServerError
from mailer.sender import Account, Sender
from rag_worker.documents import find_files
from rag_worker.generation import CorruptIndexError, current_name, read_manifest
from rag_worker.models import LanguageModel, ModelAwayError

LEAST_FREE_MB = 1_000
MODEL_SECONDS = 120.0
"""A large model that must be loaded first takes a minute or two."""
_SERVICES: tuple[Service, ...] = ("api", "worker", "mailer")


class _FoundError(Exception):
    """What is wrong, and what mends it, in a sentence."""


async def examine(terminal: Console, settings: Settings) -> int:
    """Run every check and print its result. Returns the exit code: 1 when one failed."""
    checks: dict[str, Callable[[Settings], Awaitable[str]]] = {
        "Settings": _check_settings,
        "Passwords": _check_passwords,
        "Disk": _check_disk,
        "Users' database": _check_users,
        "Queue": _check_queue,
        "Documents": _check_documents,
        "Index": _check_index,
        "Language model": _check_model,
        "Mail server": _check_mail,
        "API": _check_api,
    }
    failed = 0
    for name, check in checks.items():
        with terminal.status(f"{name}…"):
            try:
                mark, text = "[green]ok  [/]", await check(settings)
            except (_FoundError, SettingsError) as error:
                mark, text = "[red]FAIL[/]", str(error)
                failed += 1
        terminal.print(f"{mark} [bold]{name}:[/] {escape(text)}", highlight=False, soft_wrap=True)
    if failed:
        terminal.print(f"{failed} of {len(checks)} checks failed.")
    return 1 if failed else 0


async def _check_settings(settings: Settings) -> str:
    problems: dict[str, None] = {}
    for service in _SERVICES:
        try:
            settings.require(service)
        except SettingsError as error:
            problems[str(error)] = None
    if problems:
        raise _FoundError(" ".join(problems))
    return "every service has what it needs."


async def _check_passwords(settings: Settings) -> str:
    _ = settings.passwords
    mode = settings.passwords_file.stat().st_mode
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        raise _FoundError(
            f"others can read {settings.passwords_file}: chmod 600 {settings.passwords_file}."
        )
    return f"{settings.passwords_file} is complete and private."


async def _check_disk(settings: Settings) -> str:
    folder = next(
        folder for folder in settings.index_location.absolute().parents if folder.is_dir()
    )
    free_mb = shutil.disk_usage(folder).free // 2**20
    if free_mb < LEAST_FREE_MB:
        raise _FoundError(f"{free_mb} MB are free at {folder}; make room for {LEAST_FREE_MB}.")
    return f"{free_mb:,} MB are free."


async def _check_users(settings: Settings) -> str:
    def count() -> int:
        engine = create_user_engine(settings)
        try:
            return len(UserRepository(engine).all())
        finally:
            engine.dispose()

    try:
        users = await asyncio.to_thread(count)
    except SQLAlchemyError as error:
        raise _FoundError(
            f"it does not answer, or the API has not created its tables yet "
            f"({type(error).__name__}): start it, or check DATABASE_URL or the DB_ settings."
        ) from None
    return f"it answers; accounts: {users}."


async def _check_queue(settings: Settings) -> str:
    try:
        async with stores(settings) as opened:
            await opened.queue.check()
            status = await opened.queue.status()
    except PyMongoError as error:
        raise _FoundError(
            f"it does not take a document ({type(error).__name__}): start it, or check MONGO_URL "
            "or the MONGO_ settings."
        ) from None
    return f"it stores and deletes; questions: {sum(status.by_state.values())}."


async def _check_documents(settings: Settings) -> str:
    folder = settings.document_location
    if folder is None:
        raise _FoundError("there is no folder for them: set DOCUMENT_LOCATION.")
    if not folder.is_dir():
        raise _FoundError(f"the folder {folder} is not there: set DOCUMENT_LOCATION.")
    files = len(list(find_files(folder.resolve())))
    if not files:
        raise _FoundError(f"{folder} has no document that can be read: put the course's there.")
    return f"files in {folder}: {files}."


async def _check_index(settings: Settings) -> str:
    location: Path = settings.index_location
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


async def _check_model(settings: Settings) -> str:
    seconds = min(settings.llm_timeout, MODEL_SECONDS)
    model = LanguageModel(
        settings.model_copy(update={"llm_max_tokens": 16, "llm_timeout": seconds})
    )
    try:
        await model.check()
        completion = await model.write("Answer with one word: yes.")
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
    return (
        f"{settings.llm_model} answers, in {completion.seconds:.1f} s; its window: {window} tokens."
    )


async def _check_mail(settings: Settings) -> str:
    if settings.smtp_server is None:
        raise _FoundError("there is none: set SMTP_SERVER.")
    accounts = {Account.for_answers(settings), Account.for_account_mails(settings)}
    for account in accounts:
        try:
            await Sender(account).check()
        except ServerError as error:
            raise _FoundError(f"{account.server}:{account.port}: {error}") from None
    return f"{settings.smtp_server}:{settings.smtp_port} takes our mail."


async def _check_api(settings: Settings) -> str:
    try:
        async with httpx.AsyncClient(timeout=10) as client:
            reply = await client.get(f"{settings.api_url}/health/ready")
    except httpx.HTTPError as error:
        raise _FoundError(
            f"it does not answer at {settings.api_url} ({type(error).__name__}): start it, or "
            "check API_URL."
        ) from None
    if not reply.is_success:
        raise _FoundError(f"it is up but not ready: {reply.text[:200]}")
    return f"ready at {settings.api_url}."
