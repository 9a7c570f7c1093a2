"""The published schema is true: schemathesis sends what it allows and what it does not."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from sqlalchemy import create_engine

from api.main import create_app
from core.users import UserRepository
from tests.api_client import register, running_app, serving, settings_for

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


@pytest.fixture(scope="module")
def logins(nx_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Tokens: of a student, of a worker, and none."""
    folder = tmp_path_factory.mktemp("contract")
    with serving(nx_url, folder) as url:

        async def student() -> str:
            async with httpx.AsyncClient(base_url=url) as client:
                login = await register(client, "schema")
                await client.post("/questions", json={"input": "¿Cuándo?"}, headers=login)
                return login["Authorization"]

        engine = create_engine(f"sqlite:///{folder / 'users.db'}")
        worker = UserRepository(engine).create_worker_token("contract")
        engine.dispose()
        yield {
            "url": url,
            "student": asyncio.run(student()),
            "worker": f"Bearer {worker}",
            "stranger": "",
        }


@pytest.fixture(params=["student", "worker", "stranger"])
def headers(request: pytest.FixtureRequest, logins: dict[str, str]) -> dict[str, str]:
    login = logins[request.param]
    return {"Authorization": login} if login else {}


schema = schemathesis.openapi.from_dict(
    create_app(settings_for("mongodb://127.0.0.1:1/", "none", Path())).openapi()
)


@schema.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_reply_is_as_documented(
    case: schemathesis.Case[Any], logins: dict[str, str], headers: dict[str, str]
) -> None:
    case.call_and_validate(base_url=logins["url"], headers=headers, checks=CHECKS, timeout=30)


async def test_examples_of_the_schema_work_unchanged(
    nx_url: str, database_name: str, tmp_path: Path
) -> None:
    async with running_app(settings_for(nx_url, database_name, tmp_path)) as client:
        described = (await client.get("/openapi.json")).json()

        async def send_example(path: str, login: str = "") -> int:
            body = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            name = body["schema"]["$ref"].rsplit("/", 1)[1]
            [example] = described["components"]["schemas"][name]["examples"]
            headers = {"Authorization": f"Bearer {login}"}
            return (await client.post(path, json=example, headers=headers)).status_code

        assert await send_example("/user") == 201
        assert await send_example("/user") == 409
        [user] = described["components"]["schemas"]["NewUser"]["examples"]
        login = (await client.post("/login", data=user)).json()["access_token"]
        assert await send_example("/questions", login) == 202
        assert await send_example("/auth/forgot-password") == 202
        assert await send_example("/auth/change-password", login) == 200


def test_every_error_is_documented_with_an_example(logins: dict[str, str]) -> None:
    described = httpx.get(f"{logins['url']}/openapi.json").json()
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], path
            assert operation["description"], path
            for status, reply in operation["responses"].items():
                if status < "400" or path.startswith("/health"):
                    continue
                content = reply["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
                for shown in content["examples"].values():
                    assert str(shown["value"]["status"]) == status, (method, path)
    assert [tag["name"] for tag in described["tags"]] == [
        "Accounts",
        "Questions",
        "Status",
        "Workers",
    ]
    assert "HTTPValidationError" not in described["components"]["schemas"]
