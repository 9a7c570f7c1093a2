"""The services as processes: what each is built from, and its run from start to stop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from core.forgetting import Retention
from core.logging import configure_logging
from core.mails import AccountMails
from core.mongo import connect
from core.monitoring import monitored
from core.questions import QuestionQueue
from core.restoring import RestoreMark
from core.settings import Settings
from core.statistics import Statistics
from core.suppressions import Suppressions
from core.worker import stop_on_signals


@dataclass(frozen=True, slots=True)
class Stores:
    """What MongoDB keeps, on one connection."""

    database: AsyncDatabase[dict[str, Any]]
    queue: QuestionQueue
    mails: AccountMails
    suppressions: Suppressions
    restoring: RestoreMark
    retention: Retention
    statistics: Statistics


@asynccontextmanager
async def stores(settings: Settings) -> AsyncIterator[Stores]:
    """Connect to MongoDB; the connection is closed at the end."""
    async with connect(settings) as client:
        database = client[settings.mongo_db_name]
        yield Stores(
            database,
            QuestionQueue.from_settings(database, settings),
            AccountMails(database),
            Suppressions(database),
            RestoreMark(database),
            Retention(database, settings.retention_days),
            Statistics(database),
        )


def run_worker(settings: Settings) -> None:
    """Answer questions until SIGTERM or SIGINT."""
    from rag_worker.service import run_worker as run

    async def main() -> None:
        stop = stop_on_signals()
        async with (
            stores(settings) as opened,
            monitored(settings, "worker", opened.database),
        ):
            await run(settings, opened.queue, stop)

    configure_logging(settings, "worker")
    asyncio.run(main())


def run_remote_worker(settings: Settings, api_url: str, token: str) -> None:
    """Answer questions that the API at ``api_url`` hands out, until SIGTERM or SIGINT."""
    from rag_worker.remote import RemoteQueue
    from rag_worker.service import run_worker as run

    async def main() -> None:
        stop = stop_on_signals()
        async with RemoteQueue(api_url, token) as queue, monitored(settings, "worker"):
            await run(settings, queue, stop)

    configure_logging(settings, "worker")
    asyncio.run(main())


def run_mailer(settings: Settings) -> None:
    """Send e-mails, and read those with questions, until SIGTERM or SIGINT."""
    from mailer.service import run_mailer as run

    async def main() -> None:
        stop = stop_on_signals()
        async with connect(settings) as client:
            database = client[settings.mongo_db_name]
            async with monitored(settings, "mailer", database) as monitor:
                await run(settings, database, stop, monitor=monitor)

    configure_logging(settings, "mailer")
    asyncio.run(main())
