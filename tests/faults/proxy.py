"""A TCP proxy that does to a connection what networks do."""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Self

CHUNK = 65_536


class Fault(Enum):
    """What the proxy does with the bytes of every connection, old and new."""

    NONE = auto()
    """They pass."""
    LATENCY = auto()
    """Each piece passes after ``delay`` seconds, in both directions."""
    CUT = auto()
    """Connections are closed, new ones as soon as they are made."""
    RESET = auto()
    """The same with a reset in place of an end."""
    HALF_OPEN = auto()
    """Connections are accepted and stay open, and nothing passes."""
    FORGOTTEN = auto()
    """On connections that are there nothing passes ever again, as after a router's restart; new
    ones are well."""
    DRIP = auto()
    """One byte after another, ``delay`` seconds between two."""
    WRONG_BYTES = auto()
    """What the server says arrives with every bit turned over."""


@dataclass(eq=False)
class _Connection:
    """The two ends of one connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    is_forgotten: bool = False

    def end(self, *, with_reset: bool) -> None:
        for writer in (self.client, self.server):
            if writer is None:
                continue
            if with_reset:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
            writer.transport.abort()


@dataclass
class FaultProxy:
    """Listens on ``port`` and forwards to ``target``, both of the loopback interface.

    Runs in a thread with an event loop of its own; :meth:`set` may be called from any thread and
    returns when the fault is in force. ``accepted`` counts the connections made, ``harmed`` the
    connections that were ended and the pieces that did not pass as they came.
    """

    port: int
    target: int
    accepted: int = 0
    harmed: int = 0
    _fault: Fault = Fault.NONE
    _delay: float = 0.0
    _connections: set[_Connection] = field(default_factory=set)

    def set(self, fault: Fault, *, delay: float = 0.05) -> None:
        """From now on do ``fault``; ``delay`` is in seconds."""
        self._in_loop(self._change(fault, delay))

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._in_loop(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._in_loop(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _in_loop(self, work: Coroutine[Any, Any, None]) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        done.result(timeout=10)

    async def _listen(self) -> None:
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _change(self, fault: Fault, delay: float) -> None:
        self._fault, self._delay = fault, delay
        # Who waits for an end of the old fault looks again.
        self._changed.set()
        self._changed = asyncio.Event()
        if fault in (Fault.CUT, Fault.RESET):
            for connection in list(self._connections):
                connection.end(with_reset=fault is Fault.RESET)
                self.harmed += 1
        if fault is Fault.FORGOTTEN:
            for connection in self._connections:
                connection.is_forgotten = True

    async def _close(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.end(with_reset=False)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = _Connection(writer)
        self._connections.add(connection)
        try:
            if self._fault in (Fault.CUT, Fault.RESET):
                connection.end(with_reset=self._fault is Fault.RESET)
                self.harmed += 1
                return
            try:
                from_server, connection.server = await asyncio.open_connection(
                    "127.0.0.1", self.target
                )
            except OSError:
                return
            await asyncio.gather(
                self._pump(connection, reader, connection.server),
                self._pump(connection, from_server, writer),
            )
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            connection.end(with_reset=False)
            self._connections.discard(connection)
            self._tasks.discard(task)

    async def _pump(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        is_reply = writer is connection.client
        while data := await reader.read(CHUNK):
            self.harmed += connection.is_forgotten
            while data and not connection.is_forgotten:
                data = await self._forward(data, writer, is_reply=is_reply)
        if connection.is_forgotten:
            return
        if writer.can_write_eof():
            writer.write_eof()

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter, *, is_reply: bool) -> bytes:
        """Pass on what may pass now; gives what is left."""
        changed = self._changed
        match self._fault:
            case Fault.HALF_OPEN:
                self.harmed += 1
                await changed.wait()
                return data
            case Fault.LATENCY:
                await asyncio.sleep(self._delay)
                passed, left = data, b""
            case Fault.DRIP:
                await asyncio.sleep(self._delay)
                passed, left = data[:1], data[1:]
            case Fault.WRONG_BYTES if is_reply:
                passed, left = bytes(byte ^ 0xFF for byte in data), b""
            case _:
                passed, left = data, b""
        self.harmed += passed != data or self._fault is Fault.LATENCY
        writer.write(passed)
        await writer.drain()
        return left
