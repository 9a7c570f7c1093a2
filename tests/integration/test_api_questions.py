"""Asking and looking at one's questions, on real databases."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo.asynchronous.database import AsyncDatabase

from core.questions import Answer, Outcome, QuestionQueue, Source
from tests.api_client import register, running_app, settings_for

ANSWER = Answer(
    text="El 3 de diciembre [1].",
    language="es",
    outcome=Outcome.ANSWERED,
    sources=(Source("apuntes.pdf", "Examen: 3 de diciembre", page=4, heading="Fechas"),),
)


@pytest.fixture
async def client(
    nx_url: str, database_name: str, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    settings = settings_for(nx_url, database_name, tmp_path, max_waiting_per_student=5)
    async with running_app(settings) as client:
        yield client


@pytest.fixture
def queue(database: AsyncDatabase[dict[str, Any]]) -> QuestionQueue:
    return QuestionQueue(database)


async def ask(
    client: httpx.AsyncClient, login: dict[str, str], text: str = "¿Cuándo?", key: str | None = None
) -> httpx.Response:
    headers = {**login, **({"Idempotency-Key": key} if key else {})}
    return await client.post("/questions", json={"input": text}, headers=headers)


async def test_question_is_stored_for_the_accounts_address(
    client: httpx.AsyncClient, queue: QuestionQueue
) -> None:
    login = await register(client)
    response = await ask(client, login, "  ¿Cuándo es el examen?  ")
    assert response.status_code == 202
    assert response.headers["location"] == "/questions/1"
    assert response.json() == {
        "id": 1,
        "state": "waiting",
        "links": {"self": "/questions/1"},
        "place": 1,
        "expected_seconds": None,
        "expected_at": None,
        "repeated": False,
    }
    stored = await queue.one(1)
    assert stored is not None
    assert (stored.input, stored.email) == ("¿Cuándo es el examen?", "ana@uni.test")


async def test_place_and_expected_time_follow_the_measured_pace(
    client: httpx.AsyncClient, queue: QuestionQueue
) -> None:
    login = await register(client)
    await ask(client, login)
    claimed = await queue.claim()
    assert claimed is not None
    await queue.complete(claimed.id, claimed.claims, ANSWER)
    first, second = (await ask(client, login)).json(), (await ask(client, login)).json()
    assert (first["place"], second["place"]) == (1, 2)
    assert 0 < first["expected_seconds"] < second["expected_seconds"]
    assert first["expected_at"].endswith("Z")


async def test_repeat_with_one_idempotency_key_is_one_question(client: httpx.AsyncClient) -> None:
    login = await register(client)
    replies = await asyncio.gather(*(ask(client, login, key="k-1") for _ in range(5)))
    assert {reply.status_code for reply in replies} == {202}
    assert {reply.json()["id"] for reply in replies} == {replies[0].json()["id"]}
    assert sorted(reply.json()["repeated"] for reply in replies) == [False] + [True] * 4
    assert len((await client.get("/questions", headers=login)).json()["questions"]) == 1


async def test_idempotency_key_of_another_text_is_refused_and_is_the_students_own(
    client: httpx.AsyncClient,
) -> None:
    ana, eva = await register(client), await register(client, "eva")
    assert (await ask(client, ana, "¿Cuándo?", "k")).status_code == 202
    assert (await ask(client, ana, "¿Dónde?", "k")).status_code == 422
    assert (await ask(client, eva, "¿Dónde?", "k")).status_code == 202


@pytest.mark.parametrize("key", ["ñ", "a b", "\t", "x" * 256, ""])
async def test_odd_idempotency_key_is_refused(client: httpx.AsyncClient, key: str) -> None:
    login = await register(client)
    response = await client.post(
        "/questions",
        json={"input": "¿?"},
        headers={
            b"Authorization": login["Authorization"].encode(),
            b"Idempotency-Key": key.encode(),
        },
    )
    assert response.status_code == 422


async def test_too_many_unanswered_questions_are_refused(
    client: httpx.AsyncClient, queue: QuestionQueue
) -> None:
    ana, eva = await register(client), await register(client, "eva")
    for number in range(5):
        assert (await ask(client, ana, key=f"k{number}")).status_code == 202
    refused = await ask(client, ana)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert "5 questions" in refused.json()["detail"]
    assert (await ask(client, eva)).status_code == 202
    claimed = await queue.claim()
    assert claimed is not None
    await queue.complete(claimed.id, claimed.claims, ANSWER)
    assert (await ask(client, ana)).status_code == 202


async def test_answer_is_shown_with_its_sources(
    client: httpx.AsyncClient, queue: QuestionQueue
) -> None:
    login = await register(client)
    await ask(client, login)
    claimed = await queue.claim()
    assert claimed is not None
    shown = (await client.get("/questions/1", headers=login)).json()
    assert (shown["state"], shown["place"], shown["answer"]) == ("answering", 1, None)
    await queue.complete(1, claimed.claims, ANSWER)
    shown = (await client.get("/questions/1", headers=login)).json()
    assert (shown["state"], shown["outcome"], shown["place"]) == ("answered", "answered", None)
    assert shown["answered"].endswith("Z")
    assert shown["answer"] == {
        "text": "El 3 de diciembre [1].",
        "language": "es",
        "uncertain": False,
        "sources": [
            {
                "file": "apuntes.pdf",
                "page": 4,
                "slide": None,
                "heading": "Fechas",
                "quotation": "Examen: 3 de diciembre",
            }
        ],
    }


async def test_student_sees_only_his_own_questions(client: httpx.AsyncClient) -> None:
    ana, eva = await register(client), await register(client, "eva")
    await ask(client, ana)
    anothers = await client.get("/questions/1", headers=eva)
    unknown = await client.get("/questions/2", headers=eva)
    assert anothers.status_code == unknown.status_code == 404
    assert anothers.text == unknown.text
    assert (await client.get("/questions", headers=eva)).json()["questions"] == []


async def test_list_is_newest_first_and_leads_on(client: httpx.AsyncClient) -> None:
    login = await register(client)
    for _ in range(5):
        await ask(client, login)
    seen = []
    address: str | None = "/questions?limit=2"
    while address:
        page = (await client.get(address, headers=login)).json()
        seen.append([question["id"] for question in page["questions"]])
        address = page["next"]
    assert seen == [[5, 4], [3, 2], [1]]


@pytest.mark.parametrize("id", ["0", "-1", "1.5", "x", str(2**53), str(2**63), "9" * 400, "%00"])
async def test_odd_numbers_are_refused(client: httpx.AsyncClient, id: str) -> None:
    login = await register(client)
    assert (await client.get(f"/questions/{id}", headers=login)).status_code in {404, 422}
    assert (await client.get(f"/questions?before={id}", headers=login)).status_code == 422


async def test_largest_number_is_unknown(client: httpx.AsyncClient) -> None:
    login = await register(client)
    assert (await client.get(f"/questions/{2**53 - 1}", headers=login)).status_code == 404


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer x.y.z"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer " + "W1tb" * 4000 + ".e30.eA"},
    ],
)
async def test_without_a_login_nothing_is_shown(
    client: httpx.AsyncClient, header: dict[str, str]
) -> None:
    response = await client.get("/questions", headers=header)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "Authorize" in response.json()["detail"]
