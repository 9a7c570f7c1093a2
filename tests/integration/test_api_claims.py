"""A worker that knows only the API's address."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo.asynchronous.database import AsyncDatabase
from sqlalchemy import create_engine

from core.questions import Outcome, Question, QuestionQueue, QuestionState
from core.users import UserRepository
from tests.api_client import register, running_app, settings_for

ANSWER = {
    "claims": 1,
    "text": "El 3 de diciembre [1].",
    "language": "es",
    "outcome": "answered",
    "sources": [{"file": "apuntes.pdf", "quotation": "Examen: 3 de diciembre", "page": 4}],
    "model": "mistral",
}


@pytest.fixture
async def client(
    nx_url: str, database_name: str, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    settings = settings_for(
        nx_url, database_name, tmp_path, max_attempts=2, retry_seconds=0.001, lease_seconds=30
    )
    async with running_app(settings) as client:
        yield client


@pytest.fixture
def worker(client: httpx.AsyncClient, tmp_path: Path) -> dict[str, str]:
    """The headers of a worker."""
    engine = create_engine(f"sqlite:///{tmp_path / 'users.db'}")
    token = UserRepository(engine).create_worker_token("gpu-1")
    engine.dispose()
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def queue(database: AsyncDatabase[dict[str, Any]]) -> QuestionQueue:
    return QuestionQueue(database)


@pytest.fixture
async def student(client: httpx.AsyncClient) -> dict[str, str]:
    """The headers of a student whose question waits."""
    login = await register(client)
    await client.post("/questions", json={"input": "¿Cuándo?"}, headers=login)
    return login


async def stored(queue: QuestionQueue) -> Question:
    question = await queue.one(1)
    assert question is not None
    return question


async def test_worker_gets_the_question_without_the_students_address(
    client: httpx.AsyncClient, worker: dict[str, str], student: dict[str, str]
) -> None:
    response = await client.get("/receive-prompt", headers=worker)
    assert response.status_code == 200
    assert {**response.json(), "date": ""} == {
        "id": 1,
        "input": "¿Cuándo?",
        "date": "",
        "claims": 1,
        "attempts": 0,
        "lease_seconds": 30.0,
        "earlier": None,
    }
    assert "uni.test" not in response.text
    assert (await client.get("/receive-prompt", headers=worker)).status_code == 204


async def test_worker_answers_once(
    client: httpx.AsyncClient,
    worker: dict[str, str],
    student: dict[str, str],
    queue: QuestionQueue,
) -> None:
    await client.get("/receive-prompt", headers=worker)
    renewed = await client.put("/questions/1/claim", json={"claims": 1}, headers=worker)
    assert renewed.status_code == 204
    first = await client.post("/questions/1/answer", json=ANSWER, headers=worker)
    again = await client.post(
        "/questions/1/answer", json={**ANSWER, "text": "otra"}, headers=worker
    )
    assert (first.status_code, again.status_code) == (204, 409)
    question = await stored(queue)
    assert question.answer is not None
    assert question.answer.text == ANSWER["text"]
    assert question.answer.sources[0].page == 4
    assert question.state is QuestionState.ANSWERED


async def test_lost_claim_changes_nothing(
    client: httpx.AsyncClient,
    worker: dict[str, str],
    student: dict[str, str],
    queue: QuestionQueue,
) -> None:
    await client.get("/receive-prompt", headers=worker)
    stale = {"claims": 7}
    replies = [
        await client.put("/questions/1/claim", json=stale, headers=worker),
        await client.delete("/questions/1/claim", params=stale, headers=worker),
        await client.delete(
            "/questions/1/claim", params={**stale, "failed": "true"}, headers=worker
        ),
        await client.post("/questions/1/answer", json={**ANSWER, **stale}, headers=worker),
        await client.put("/questions/999/claim", json={"claims": 1}, headers=worker),
    ]
    assert [reply.status_code for reply in replies] == [409] * 5
    assert (await stored(queue)).state is QuestionState.ANSWERING


async def test_question_given_back_waits_and_uses_no_attempt(
    client: httpx.AsyncClient, worker: dict[str, str], student: dict[str, str]
) -> None:
    await client.get("/receive-prompt", headers=worker)
    response = await client.delete("/questions/1/claim", params={"claims": 1}, headers=worker)
    assert response.status_code == 204
    again = (await client.get("/receive-prompt", headers=worker)).json()
    assert (again["id"], again["claims"], again["attempts"]) == (1, 2, 0)
    await client.delete("/questions/1/claim", params={"claims": 2, "after": 60}, headers=worker)
    assert (await client.get("/receive-prompt", headers=worker)).status_code == 204


async def test_last_failed_attempt_stores_an_apology(
    client: httpx.AsyncClient,
    worker: dict[str, str],
    student: dict[str, str],
    queue: QuestionQueue,
) -> None:
    for claims in (1, 2):
        claimed = await client.get("/receive-prompt", headers=worker)
        assert claimed.json()["claims"] == claims
        failed = {"claims": claims, "failed": "true", "error": "out of memory"}
        response = await client.delete("/questions/1/claim", params=failed, headers=worker)
        assert response.status_code == 204
    question = await stored(queue)
    assert question.answer is not None
    assert question.answer.outcome is Outcome.FAILED
    assert question.answer.text.startswith("Lo sentimos")
    assert question.error == "out of memory"


async def test_question_that_kills_its_workers_is_not_handed_out_again(
    client: httpx.AsyncClient,
    worker: dict[str, str],
    student: dict[str, str],
    queue: QuestionQueue,
    database: AsyncDatabase[dict[str, Any]],
) -> None:
    await database["prompts"].update_one({"_id": 1}, {"$set": {"abandoned": 5}})
    assert (await client.get("/receive-prompt", headers=worker)).status_code == 204
    question = await stored(queue)
    assert question.answer is not None
    assert question.answer.outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/receive-prompt"),
        ("PUT", "/questions/1/claim"),
        ("DELETE", "/questions/1/claim?claims=1"),
        ("POST", "/questions/1/answer"),
    ],
)
async def test_only_a_workers_token_opens_the_workers_routes(
    client: httpx.AsyncClient, student: dict[str, str], method: str, path: str
) -> None:
    for headers in (student, {}, {"Authorization": "Bearer cwt_forged"}):
        response = await client.request(method, path, headers=headers, json=ANSWER)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"


async def test_workers_token_is_no_login(client: httpx.AsyncClient, worker: dict[str, str]) -> None:
    assert (await client.get("/questions", headers=worker)).status_code == 401


async def test_revoked_token_is_refused(
    client: httpx.AsyncClient, worker: dict[str, str], tmp_path: Path
) -> None:
    assert (await client.get("/receive-prompt", headers=worker)).status_code == 204
    engine = create_engine(f"sqlite:///{tmp_path / 'users.db'}")
    assert UserRepository(engine).revoke_worker_token("gpu-1")
    engine.dispose()
    assert (await client.get("/receive-prompt", headers=worker)).status_code == 401


async def test_long_answer_fits_and_a_longer_body_does_not(
    client: httpx.AsyncClient, worker: dict[str, str], student: dict[str, str]
) -> None:
    await client.get("/receive-prompt", headers=worker)
    too_long = {**ANSWER, "model": "x" * 270_000}
    response = await client.post("/questions/1/answer", json=too_long, headers=worker)
    assert response.status_code == 413
    long = {**ANSWER, "text": "🙂" * 20_000}
    response = await client.post("/questions/1/answer", json=long, headers=worker)
    assert response.status_code == 204
