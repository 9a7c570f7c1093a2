"""A connection that cannot keep the service busy: what it sends must come soon, and be small."""

import asyncio
import json
import resource
import socket
import weakref
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.errors import (
    MEDIA_TYPE,
    ApiError,
    HeadersTooLargeError,
    MalformedRequestError,
    RequestTooSlowError,
)
from api.middleware import PROTECTION

REQUEST_SECONDS = 15.0
"""A request that is not here by then, headers and body, does not come any more."""
REPLY_SECONDS = 15.0
"""Who does not read on in a reply for so long does not want it."""
HEAD_LIMIT = 32_768
"""Bytes of the request's line and its headers."""
MOST_FILES = 16_384
"""Connections, at most: each takes some kilobytes."""


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's protocol with the limits that it leaves to a server in front.

    It bounds neither the time nor the size of a request's headers, nor the time of a body, and
    replies to what is no HTTP without the headers that protect.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._head = 0
        self._is_head_whole = False
        self._is_begun = False
        self._cycles: weakref.WeakSet[RequestResponseCycle] = weakref.WeakSet()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # What the kernel has taken from us ends with it.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(REPLY_SECONDS * 1000)
        )
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self.resume_writing()
        # uvicorn tells only the newest of several requests sent at once, and the one that is being
        # answered would write on.
        for cycle in self._cycles:
            cycle.disconnected = cycle.disconnected or not cycle.response_complete
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # Also for a line end between two requests, which stops uvicorn's own timer and is none.
        self._wait()
        super().data_received(data)
        if not self._is_head_whole:
            self._head += len(data)
            if self._head > HEAD_LIMIT and not self.transport.is_closing():
                self._refuse(HeadersTooLargeError())

    def on_message_begin(self) -> None:
        self._head, self._is_head_whole, self._is_begun = 0, False, True
        self._wait()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_head_whole = True
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > HEAD_LIMIT:
            self._refuse(HeadersTooLargeError())
            raise ValueError("headers too large")
        super().on_headers_complete()
        self._cycles.add(self.cycle)

    def on_message_complete(self) -> None:
        self._is_begun = False
        self._stop_waiting()
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._unread = self.loop.call_later(REPLY_SECONDS, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Reply to what is no HTTP."""
        if not self.transport.is_closing():
            self._refuse(MalformedRequestError())

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(REQUEST_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        is_at_work = self.cycle is not None and not self.cycle.response_complete
        if is_at_work and not self.cycle.more_body:
            self._wait()
        elif self.transport.is_closing() or (is_at_work and self.cycle.response_started):
            self.transport.abort()
        elif self._is_begun:
            self._refuse(RequestTooSlowError())
        else:
            # Browsers open connections in advance, and would take a reply for that to a request.
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """The last reply of this connection."""
        status = HTTPStatus(error.status)
        body = json.dumps(error.problem()).encode()
        headers = {
            **PROTECTION,
            "Content-Type": MEDIA_TYPE,
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        lines = [f"HTTP/1.1 {status} {status.phrase}", *(f"{n}: {v}" for n, v in headers.items())]
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.transport.close()


def allow_many_connections() -> None:
    """Raise the number of files this process may open as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
