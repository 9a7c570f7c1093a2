"""What every request passes: a log line, headers that protect, a limit on its size."""

import time
import traceback

import structlog
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BodyTooLargeError, EncodedBodyError, InternalError, problem_response
from core import metrics

BODY_LIMIT = 65_536
ANSWER_BODY_LIMIT = 262_144
"""Bytes: an answer of 20,000 characters with its quotations."""

PROTECTION = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every reply."""
_HTTPS_ONLY = "max-age=31536000"
"""Seconds: a year in which a browser that came by HTTPS does not come without."""

logger = structlog.get_logger()


class AccessLog:
    """One line per request, without queries, tokens, bodies or addresses.

    A fault that nobody handled becomes a 500 here; its message is not logged, for it may hold
    what a student sent.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        structlog.contextvars.clear_contextvars()
        start = time.perf_counter()
        status = 0

        async def remember_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, remember_status)
        except Exception as error:
            metrics.count_fault(metrics.Fault.REQUEST_FAILED)
            logger.error(
                "fault",
                fault=type(error).__name__,
                where="".join(traceback.format_tb(error.__traceback__)[-4:]),
            )
            if status:
                raise
            response = problem_response(Request(scope), InternalError())
            await response(scope, receive, remember_status)
        finally:
            seconds = time.perf_counter() - start
            path = getattr(scope.get("route"), "path", "unknown")
            metrics.count_request(scope["method"], path, status, seconds)
            logger.info(
                "request",
                method=scope["method"],
                path=path,
                status=status,
                ms=round(seconds * 1000, 1),
            )


class SecurityHeaders:
    """Headers on every reply; one that the route has set itself stays.

    Browsers are told to come by HTTPS alone where they did: a trusted proxy says so.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in PROTECTION.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers["Strict-Transport-Security"] = _HTTPS_ONLY
            await send(message)

        await self._app(scope, receive, add_headers)


class BodyLimit:
    """Refuses bodies that are too large: by their declared length, or while they stream in.

    None is unpacked, so nothing is larger than it was sent.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = ANSWER_BODY_LIMIT if scope["path"].endswith("/answer") else BODY_LIMIT
        headers = Headers(scope=scope)
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            await problem_response(Request(scope), EncodedBodyError())(scope, receive, send)
            return
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared[:20]) > limit:
            await problem_response(Request(scope), BodyTooLargeError(limit))(scope, receive, send)
            return
        received = 0

        async def count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise BodyTooLargeError(limit)
            return message

        await self._app(scope, count, send)
