"""A worker whose job does nothing: claims and completes until the queue is empty.

    python -m tests.faults.claimer MONGO_URL DATABASE

Prints a line for each claim: when it was asked for and when it came, in nanoseconds, and the
question's number.
"""

import asyncio
import sys
import time

from core.mongo import connect
from core.questions import Answer, Outcome, QuestionQueue
from core.settings import Settings

_ANSWER = Answer("Hecho.", "es", Outcome.ANSWERED)


async def main(url: str, database: str) -> None:
    """Work until there is nothing to claim."""
    async with connect(Settings(mongo_url=url)) as client:
        queue = QuestionQueue(client[database])
        while True:
            asked = time.monotonic_ns()
            question = await queue.claim()
            came = time.monotonic_ns()
            if question is None:
                return
            assert await queue.complete(question.id, question.claims, _ANSWER)
            print(asked, came, question.id)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
