"""Does the time of a reply tell whether somebody has an account?

Starts an API of its own (SQLite, nx-27017), and asks for a login with a wrong password and for a
forgotten password, 500 times each for names that nobody has and for accounts: ordinary ones, those
that are disabled, and those whose password was hashed with the parameters of an older version. In
random order. Prints the medians and their ratio to nobody's; the exit code is 1 when one is off by
more than 5 %. Usage: python -m benchmarks.timing [TRIES]
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
from passlib.hash import argon2
from sqlalchemy import update

from api.migrations import migrate
from core.settings import Settings
from core.users import User, UserRepository, create_user_engine
from tests import servers
from tests.api_client import PASSWORD, api_process

TRIES = 500
LARGEST_DIFFERENCE = 0.05
AT_ONCE = 4
"""Each reply waits on purpose."""
KINDS = ("nobody", "ordinary", "disabled", "old hash")

Request = Callable[[str], dict[str, Any]]


def login(name: str) -> dict[str, Any]:
    """A wrong password."""
    return {"url": "/login", "data": {"username": name, "password": "wrong password"}}


def forgotten(name: str) -> dict[str, Any]:
    """A forgotten password."""
    return {"url": "/auth/forgot-password", "json": {"email": f"{name}@uni.test"}}


async def measure(api: str, request: Request, tries: int) -> dict[str, list[float]]:
    """Seconds of each reply, by kind of account."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    # One try for each account, so that no limit is reached.
    names = [(kind, name_of(kind, number)) for number in range(tries) for kind in KINDS]
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

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return seconds


def name_of(kind: str, number: int) -> str:
    """The user name of an account of this kind."""
    return f"{kind.replace(' ', '')}{number:04}"


def create_accounts(folder: Path, tries: int) -> None:
    """So many accounts of every kind."""
    engine = create_user_engine(Settings(database_url=f"sqlite:///{folder / 'users.db'}"))
    migrate(engine)
    users = UserRepository(engine)
    old = argon2.using(type="ID", memory_cost=65_536, time_cost=3, parallelism=4).hash(PASSWORD)
    for kind in KINDS[1:]:
        for number in range(tries):
            name = name_of(kind, number)
            user = users.register(email=f"{name}@uni.test", username=name, password=PASSWORD)
            if kind == "disabled":
                users.set_active(user.id, active=False)
            if kind == "old hash":
                with engine.begin() as connection:
                    connection.execute(
                        update(User).where(User.id == user.id).values(password_hash=old)
                    )
    engine.dispose()


def report(name: str, seconds: dict[str, list[float]]) -> bool:
    """Print a line for each kind; whether the medians are as near as they should be."""
    nobody = statistics.median(seconds["nobody"])
    are_near = True
    for kind in KINDS:
        median = statistics.median(seconds[kind])
        ratio = median / nobody
        are_near &= abs(ratio - 1) <= LARGEST_DIFFERENCE
        print(
            f"{name:18} {kind:9} {median * 1000:7.1f} ms, ratio {ratio:.3f} "
            f"({len(seconds[kind])} tries)",
            flush=True,
        )
    return are_near


def main() -> int:
    """Start what is needed, measure, print."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else TRIES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        create_accounts(folder, tries)
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
                    report(name, asyncio.run(measure(api, request, tries)))
                    for name, request in (("login", login), ("forgotten password", forgotten))
                ]
    return 0 if all(are_near) else 1


if __name__ == "__main__":
    sys.exit(main())
