"""The REST service: what it is made of, and how it starts and stops."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api import accounts, claims, confirmation, feedback, questions, status
from api.connection import BoundedConnection, allow_many_connections
from api.deps import Resources
from api.docs import DESCRIPTION, TAGS, add_docs
from api.errors import DATABASE_ERRORS, add_handlers, describe_fault
from api.limits import Limits
from api.middleware import AccessLog, BodyLimit, SecurityHeaders
from api.migrations import migrate
from core.links import Links
from core.logging import configure_logging
from core.mails import AccountMails
from core.metrics import program_version
from core.mongo import connect
from core.monitoring import monitored
from core.questions import QuestionQueue
from core.restoring import RestoreMark, UnfinishedRestoreError
from core.settings import Settings
from core.suppressions import Suppressions
from core.users import UserRepository, create_user_engine
from core.worker import cancel

START_SECONDS = 3.0
"""How long the start waits for the databases; then the API replies 503 until they are there."""
RETRY_SECONDS = 2.0
STOP_SECONDS = 10
GARBAGE_THRESHOLD = 50_000
"""Objects that are made before Python looks for circles among them. Each request makes thousands:
looking every 700, and each time at some of what was imported too, takes a fifth of the time."""

logger = structlog.get_logger()


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application.

    Raises:
        core.settings.SettingsError: a setting that the API needs is missing.
    """
    settings.require("api")
    app = FastAPI(
        title=f"Consulta: {settings.course_name}",
        version=program_version(),
        description=DESCRIPTION.format(
            course=settings.course_name,
            hourly=settings.questions_per_hour,
            waiting=settings.max_waiting_per_student,
        ),
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan(settings),
    )
    add_handlers(app)
    for module in (accounts, confirmation, questions, status, claims, feedback):
        app.include_router(module.router)
    add_docs(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            # Never cookies: whoever calls has a token.
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
            expose_headers=["Location", "Retry-After"],
        )
    app.add_middleware(AccessLog)
    app.add_middleware(SecurityHeaders)
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies)
    return app


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests that run are finished first."""
    configure_logging(settings, "api")
    allow_many_connections()
    app = create_app(settings)
    gc.collect()
    gc.freeze()  # What is there now stays.
    gc.set_threshold(GARBAGE_THRESHOLD)
    uvicorn.run(
        app,
        http=BoundedConnection,
        host=settings.api_host,
        port=settings.api_port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # The application does it, for the proxies that it trusts.
        ws="none",
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def _lifespan(settings: Settings) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = create_user_engine(settings)
        async with (
            connect(settings) as client,
            monitored(settings, "api", client[settings.mongo_db_name]) as monitor,
        ):
            database = client[settings.mongo_db_name]
            assert settings.secret_key is not None  # create_app has checked it
            resources = Resources(
                settings=settings,
                secret_key=settings.secret_key.get_secret_value(),
                database=database,
                queue=QuestionQueue.from_settings(database, settings),
                mails=AccountMails(database),
                users=UserRepository(engine),
                limits=Limits(engine, settings),
                links=Links(settings),
                suppressions=Suppressions(database),
                monitor=monitor,
            )
            app.state.resources = resources

            async def prepare_users() -> None:
                await run_in_threadpool(migrate, engine)
                resources.migrated.set()

            async def prepare_queue() -> None:
                await RestoreMark(database).refuse()
                await resources.queue.create_indexes()
                await resources.mails.create_indexes()

            preparations = [
                asyncio.create_task(_until_done("users", prepare_users)),
                asyncio.create_task(_until_done("queue", prepare_queue)),
            ]
            try:
                done, pending = await asyncio.wait(preparations, timeout=START_SECONDS)
                for preparation in done:
                    preparation.result()
                for preparation in pending:
                    preparation.add_done_callback(_end_if_it_failed)
                yield
            finally:
                await cancel(preparations)
                resources.hashing.close()
                engine.dispose()

    return lifespan


def _end_if_it_failed(preparation: asyncio.Task[None]) -> None:
    if not preparation.cancelled() and preparation.exception() is not None:
        # As at the start: whoever supervises the process sees it, and starts it again.
        signal.raise_signal(signal.SIGTERM)


async def _until_done(dependency: str, prepare: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await prepare()
        except UnfinishedRestoreError as error:
            logger.critical("cannot prepare", dependency=dependency, reason=str(error))
            raise
        except DATABASE_ERRORS as error:
            logger.warning("waiting for a database", dependency=dependency, **describe_fault(error))
            await asyncio.sleep(RETRY_SECONDS)
        except Exception as error:
            logger.critical("cannot prepare", dependency=dependency, reason=str(error))
            raise
        else:
            logger.info("ready", dependency=dependency)
            return
