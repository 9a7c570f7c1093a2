"""The loop of every service that works through a queue."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

_CANCEL_AGAIN_SECONDS = 0.1


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set. Call it inside the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait for the time to pass or for ``stop``, whichever comes first."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def run(
    process_next: Callable[[], Awaitable[bool]], stop: asyncio.Event, poll_seconds: float
) -> None:
    """Process the next one; if there was none, wait for ``stop`` or the poll interval."""
    while not stop.is_set():
        if not await process_next():
            await pause(stop, poll_seconds)


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks, and return when all of them have ended.

    More than once, where need be: `asyncio.wait_for` of Python 3.11, by which PyMongo waits for
    replies, passes over a cancellation that comes together with what it waits for.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_SECONDS)
