"""Structured logs: one line an event, the question's number in every line about it."""

import logging
import sys
from datetime import datetime
from typing import Any

import structlog

from core.settings import Settings


def configure_logging(settings: Settings, service: str) -> None:
    """Send the logs of ``service``, and those of the libraries it uses, to standard error.

    Bind a question's number with ``structlog.contextvars.bind_contextvars(question=number)``.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        _add_time,
        _named(service),
        _without_colours,
    ]
    # Tracebacks without the values of local variables: they hold questions and passwords.
    if settings.log_format == "json":
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        final: list[Any] = [
            structlog.processors.ExceptionRenderer(tracebacks),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    else:
        final = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    # At the handler, because some libraries set their own loggers to DEBUG.
    handler.setLevel(settings.log_level)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    # Their lines at INFO are about every request and every connection.
    for name in (
        *("httpx", "httpx2", "httpcore", "pymongo", "chromadb", "alembic", "uvicorn.access"),
        "imapclient",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)


def _add_time(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    # Local, as the logs of the programs beside us, and with the zone, so that it can be compared
    # with any other.
    return {"timestamp": datetime.now().astimezone().isoformat(timespec="milliseconds"), **event}


def _named(service: str) -> Any:
    def add_service(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        return {"service": service, **event}

    return add_service


def _without_colours(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    # uvicorn sends its message a second time, with escape codes.
    event.pop("color_message", None)
    return event
