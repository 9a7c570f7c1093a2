"""The queue while its database cannot write, as when the disk is full."""

import asyncio
import resource
import time
from pathlib import Path

import psutil
import pytest
from pymongo.errors import PyMongoError

from core.mongo import connect
from core.questions import QuestionQueue
from core.settings import Settings
from tests import servers


async def test_question_that_cannot_be_stored_is_refused_in_time_and_later_accepted(
    tmp_path: Path, database_name: str
) -> None:
    with servers.nx_27017(tmp_path) as url:
        server = psutil.Process(int((tmp_path / "nx.pid").read_text()))
        soft, hard = server.rlimit(resource.RLIMIT_FSIZE)
        async with connect(Settings(mongo_url=url)) as client, asyncio.timeout(30):
            queue = QuestionQueue(client[database_name])
            await queue.create_indexes()
            first = await queue.enqueue(input="¿Hay examen?", email="ana@uni.test", user_id=1)
            server.rlimit(resource.RLIMIT_FSIZE, (1, hard))
            with pytest.raises(PyMongoError):
                await queue.enqueue(input="¿Y después?", email="ana@uni.test", user_id=1)
            server.rlimit(resource.RLIMIT_FSIZE, (soft, hard))
            again = await queue.enqueue(input="¿Y después?", email="ana@uni.test", user_id=1)
            assert [one.id for one in await queue.mine(1)] == [again.question.id, first.question.id]


async def test_limited_question_is_refused_at_once_where_the_server_says_nothing_of_its_disk(
    tmp_path: Path, database_name: str
) -> None:
    # It replies to the attempt to take the turn as if another had it.
    limits = {"email": "ana@uni.test", "user_id": 1, "most_waiting": 10, "most_hourly": 10}
    with servers.nx_27017(tmp_path) as url:
        server = psutil.Process(int((tmp_path / "nx.pid").read_text()))
        soft, hard = server.rlimit(resource.RLIMIT_FSIZE)
        async with connect(Settings(mongo_url=url)) as client, asyncio.timeout(30):
            queue = QuestionQueue(client[database_name])
            await queue.create_indexes()
            await queue.enqueue(input="¿Hay examen?", **limits)
            server.rlimit(resource.RLIMIT_FSIZE, (1, hard))
            began = time.monotonic()
            for _ in range(3):
                with pytest.raises(PyMongoError):
                    await queue.enqueue(input="¿Y después?", **limits)
            seconds = time.monotonic() - began
            server.rlimit(resource.RLIMIT_FSIZE, (soft, hard))
            await queue.enqueue(input="¿Y después?", **limits)
    assert seconds < 3
