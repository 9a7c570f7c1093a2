"""Does the time of a reply tell whether somebody has an account?

Starts an API of its own (SQLite, nx-27017), and asks for a login with a wrong password and for a
forgotten password, 500 times each for accounts that exist and for names that nobody has, in random
order. Prints the medians and their ratio; the exit code is 1 when one is off by more than
5 %. Usage: python -m benchmarks.timing [TRIES]
"""

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from api.migrations import migrate
from core.settings import Settings
from core.users import UserRepository, create_user_engine
from tests import servers
from tests.api_client import PASSWORD, api_process

TRIES = 500
LARGEST_DIFFERENCE = 0.05
AT_ONCE = 4
"""Of the forgotten passwords: each reply waits half a second on purpose."""

Request = Callable[[str], dict[str, Any]]


def login(name: str) -> dict[str, Any]:
    """A wrong password."""
    return {"url": "/login", "data": {"username": name, "password": "wrong password"}}


def forgotten(name: str) -> dict[str, Any]:
    """A forgotten password."""
    return {"url": "/auth/forgot-password", "json": {"email": f"{name}@uni.test"}}


async def measure(api: str, request: Request, tries: int, at_once: int) -> dict[str, list[float]]:
    """Seconds of each reply, by ``known`` and ``unknown``."""
    seconds: dict[str, list[float]] = {"known": [], "unknown": []}
    # One try for each account, so that no limit is reached.
    names = [(kind, f"{kind}{number:04}") for number in range(tries) for kind in seconds]
    # At random, or the one kind would always come behind the other.
    random.shuffle(names)
    left = iter(names)
    async with httpx.AsyncClient(base_url=api, timeout=60) as client:

        async def ask() -> None:
            for kind, name in left:
                start = time.perf_counter()
                reply = await client.post(**request(name))
                seconds[kind].append(time.perf_counter() - start)
                assert reply.status_code in (401, 202), reply.text

        await asyncio.gather(*(ask() for _ in range(at_once)))
    return seconds


def report(name: str, seconds: dict[str, list[float]]) -> bool:
    """Print one line; whether the medians are as near as they should be."""
    known, unknown = (statistics.median(seconds[kind]) for kind in ("known", "unknown"))
    ratio = known / unknown
    print(
        f"{name:18} known {known * 1000:7.1f} ms, unknown {unknown * 1000:7.1f} ms, "
        f"ratio {ratio:.3f} ({len(seconds['known'])} tries each)",
        flush=True,
    )
    return abs(ratio - 1) <= LARGEST_DIFFERENCE


def main() -> int:
    """Start what is needed, measure, print."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else TRIES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(database_url=f"sqlite:///{folder / 'users.db'}")
        engine = create_user_engine(settings)
        migrate(engine)
        users = UserRepository(engine)
        for number in range(tries):
            user = f"known{number:04}"
            users.register(email=f"{user}@uni.test", username=user, password=PASSWORD)
        engine.dispose()
        port = servers.free_port()
        with servers.nx_27017(folder) as mongo_url:
            command, environment = api_process(mongo_url, folder, port)
            environment |= dict.fromkeys(
                ("ADDRESS_LOGINS_PER_MINUTE", "ADDRESS_RECOVERIES_PER_HOUR"), "1000000"
            )
            log = folder / "api.log"
            with servers.running(command, log, environment=environment) as process:
                servers.wait_for_port(port, process, log)
                api = f"http://127.0.0.1:{port}"
                are_near = [
                    report("login", asyncio.run(measure(api, login, tries, 1))),
                    report(
                        "forgotten password", asyncio.run(measure(api, forgotten, tries, AT_ONCE))
                    ),
                ]
    return 0 if all(are_near) else 1


if __name__ == "__main__":
    sys.exit(main())
