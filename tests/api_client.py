"""The API in tests: inside the test's process, or as a process of its own."""

import contextlib
import os
import secrets
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx

from api.main import create_app
from core.settings import Settings
from tests import servers

SECRET_KEY = secrets.token_hex(32)
PASSWORD = "tres gatos en el tejado"


def settings_for(mongo_url: str, database_name: str, folder: Path, **changes: Any) -> Settings:
    """Settings of an API with a users' file of its own."""
    values = {
        "mongo_url": mongo_url,
        "mongo_db_name": database_name,
        "database_url": f"sqlite:///{folder / 'users.db'}",
        "secret_key": SECRET_KEY,
        "course_name": "Electrónica",
    }
    return Settings(**{**values, **changes})


@contextlib.asynccontextmanager
async def running_app(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application in this process, started and stopped by its lifespan."""
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://api.test", timeout=30
        ) as client,
    ):
        yield client


def api_process(mongo_url: str, folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of an API that keeps its users in the folder."""
    program = "import api.main, core.settings; api.main.run(core.settings.load_settings('api'))"
    return [sys.executable, "-c", program], {
        "MONGO_URL": mongo_url,
        "MONGO_DB_NAME": f"test_{uuid.uuid4().hex[:12]}",
        "DATABASE_URL": f"sqlite:///{folder / 'users.db'}",
        "SECRET_KEY": SECRET_KEY,
        "API_PORT": str(port),
        "COURSE_NAME": "Electrónica <básica>",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


@contextlib.contextmanager
def serving(mongo_url: str, folder: Path, port: int | None = None) -> Iterator[str]:
    """The API as a real process; gives its address. Its log is ``api.log`` in the folder."""
    port = port or servers.free_port()
    command, environment = api_process(mongo_url, folder, port)
    log = folder / "api.log"
    with servers.running(command, log, environment=environment) as process:
        servers.wait_for_port(port, process, log)
        yield f"http://127.0.0.1:{port}"


async def register(
    client: httpx.AsyncClient, name: str = "ana", password: str = PASSWORD
) -> dict[str, str]:
    """Register and log in; gives the headers of the login."""
    account = {"email": f"{name}@uni.test", "username": name, "password": password}
    assert (await client.post("/user", json=account)).status_code == 201
    return await log_in(client, name, password)


async def log_in(
    client: httpx.AsyncClient, name: str = "ana", password: str = PASSWORD
) -> dict[str, str]:
    """The headers of a login."""
    response = await client.post("/login", data={"username": name, "password": password})
    assert response.status_code == 200, response.text
    return {"Authorization": f"Bearer {response.json()['access_token']}"}
