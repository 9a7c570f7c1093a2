"""The queue from the command line: exported, an answer sent again."""

import contextlib
import sys
from pathlib import Path

from consulta.export import jsonl, open_private
from consulta.services import stores
from core.settings import Settings


async def requeue_answer(settings: Settings, number: int) -> bool:
    """Send an undeliverable answer again; False when it is not undeliverable."""
    async with stores(settings) as opened:
        await opened.restoring.refuse()
        return await opened.queue.requeue_mail(number)


async def send_again_to(settings: Settings, email: str) -> bool:
    """Mail may be sent to this address again; False when nothing had stopped it."""
    async with stores(settings) as opened:
        return await opened.suppressions.remove(email)


async def export_questions(settings: Settings, output: Path | None, *, personal_data: bool) -> int:
    """Write the answered questions as JSON lines; returns how many."""
    count = 0
    async with contextlib.AsyncExitStack() as closing:
        opened = await closing.enter_async_context(stores(settings))
        await opened.restoring.refuse()
        stream = sys.stdout
        if output is not None:
            file = open_private(output) if personal_data else output.open("w", encoding="utf-8")
            stream = closing.enter_context(file)
        async for line in jsonl(opened.queue.all(), personal_data=personal_data):
            stream.write(f"{line}\n")
            count += 1
    return count
