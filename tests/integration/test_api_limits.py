"""What comes too often is refused with the time when it may come again, on real servers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo.asynchronous.database import AsyncDatabase

from api.main import create_app
from core.mails import AccountMails, MailKind
from core.questions import Answer, Outcome, QuestionQueue
from tests.api_client import PASSWORD, register, running_app, settings_for

ANSWER = Answer("El 3 de diciembre.", "es", Outcome.ANSWERED)

Open = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def open_api(nx_url: str, database_name: str, tmp_path: Path, users_url: str) -> Open:
    """Starts one more API on the same databases, with these settings."""

    def start(**changes: Any) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        return running_app(
            settings_for(nx_url, database_name, tmp_path, database_url=users_url, **changes)
        )

    return start


@pytest.fixture
async def client(open_api: Open) -> AsyncIterator[httpx.AsyncClient]:
    async with open_api(trusted_proxies=["127.0.0.1"]) as client:
        yield client


@pytest.fixture
def queue(database: AsyncDatabase[dict[str, Any]]) -> QuestionQueue:
    return QuestionQueue(database)


@pytest.fixture
def mails(database: AsyncDatabase[dict[str, Any]]) -> AccountMails:
    return AccountMails(database)


async def log_in(
    client: httpx.AsyncClient, name: str = "ana", password: str = PASSWORD, at: str = "10.0.0.1"
) -> httpx.Response:
    """One try, from this address."""
    headers = {"X-Forwarded-For": at}
    return await client.post(
        "/login", data={"username": name, "password": password}, headers=headers
    )


async def forget(client: httpx.AsyncClient, email: str = "ana@uni.test") -> httpx.Response:
    return await client.post("/auth/forgot-password", json={"email": email})


async def ask(client: httpx.AsyncClient, login: dict[str, str], **headers: str) -> httpx.Response:
    return await client.post("/questions", json={"input": "¿Cuándo?"}, headers={**login, **headers})


def assert_says_when(response: httpx.Response, most: int) -> None:
    """A 429 whose sentence and header name the same time."""
    body = response.json()
    assert response.status_code == 429, response.text
    assert response.headers["content-type"] == "application/problem+json"
    seconds = int(response.headers["retry-after"])
    assert 1 <= seconds <= most
    words = f"{seconds} second" if seconds < 60 else f"{-(-seconds // 60)} minute"
    assert words in body["detail"] or "1 hour" in body["detail"], body


async def test_the_sixth_wrong_password_within_a_minute_is_refused(
    client: httpx.AsyncClient,
) -> None:
    await register(client)
    tries = [await log_in(client, password="wrong password") for _ in range(7)]
    assert [reply.status_code for reply in tries] == [401] * 5 + [429] * 2
    assert_says_when(tries[5], 60)
    assert tries[5].json()["error_description"] == tries[5].json()["detail"]
    assert (await log_in(client)).status_code == 429


async def test_limit_of_logins_tells_nobody_who_has_an_account(client: httpx.AsyncClient) -> None:
    await register(client)
    replies = {
        name: [await log_in(client, name, "wrong password", "10.0.0.2") for _ in range(7)]
        for name in ("ana", "nobody")
    }
    known, unknown = (
        [(reply.status_code, reply.json()["title"]) for reply in tries]
        for tries in replies.values()
    )
    assert known == unknown


async def test_an_account_has_one_limit_for_its_name_and_its_address(
    client: httpx.AsyncClient,
) -> None:
    await register(client)
    names = ["ana", "ANA", "ana@uni.test", "Ana@Uni.test", "ana", "ana@uni.test"]
    tries = [await log_in(client, name, "wrong password") for name in names]
    assert [reply.status_code for reply in tries] == [401] * 5 + [429]


async def test_simultaneous_guesses_are_counted_too(client: httpx.AsyncClient) -> None:
    await register(client)
    tries = await asyncio.gather(*(log_in(client, password="wrong password") for _ in range(20)))
    assert sorted(reply.status_code for reply in tries) == [401] * 5 + [429] * 15


async def test_two_apis_share_the_limit(open_api: Open) -> None:
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(open_api()) for _ in range(2)]
        await register(apis[0])
        tries = [await log_in(apis[number % 2], password="wrong one") for number in range(8)]
    assert [reply.status_code for reply in tries] == [401] * 5 + [429] * 3


async def test_who_guesses_elsewhere_cannot_keep_a_student_out(client: httpx.AsyncClient) -> None:
    await register(client)
    assert (await log_in(client, at="10.0.0.1")).status_code == 200
    for number in range(15):
        await log_in(client, password="wrong password", at=f"192.0.2.{number}")
    assert (await log_in(client, at="192.0.2.77")).status_code == 429
    assert (await log_in(client, at="10.0.0.1")).status_code == 200


async def test_a_temporary_password_lets_the_student_in_while_somebody_guesses(
    client: httpx.AsyncClient, mails: AccountMails
) -> None:
    await register(client)
    for _ in range(6):
        await log_in(client, password="wrong password", at="10.0.0.9")
    assert (await forget(client)).status_code == 202
    while (mail := await mails.claim()) and mail.kind is not MailKind.TEMPORARY_PASSWORD:
        pass
    assert mail is not None
    temporary = mail.values["password"]
    assert (await log_in(client, at="10.0.0.9")).status_code == 429
    wrong = temporary[:-1] + ("a" if temporary[-1] != "a" else "b")
    assert (await log_in(client, password=wrong, at="10.0.0.9")).status_code == 429
    reply = await log_in(client, password=temporary, at="10.0.0.9")
    assert reply.status_code == 200
    changed = await client.post(
        "/auth/change-password",
        json={
            "old_password": temporary,
            "new_password": "cuatro gatos en el tejado",
            "new_password_again": "cuatro gatos en el tejado",
        },
        headers={"Authorization": f"Bearer {reply.json()['access_token']}"},
    )
    assert changed.status_code == 200


async def test_a_stolen_login_cannot_guess_the_password(client: httpx.AsyncClient) -> None:
    login = await register(client)
    body = {"new_password": "cinco gatos", "new_password_again": "cinco gatos"}
    tries = [
        await client.post(
            "/auth/change-password", json={**body, "old_password": f"guess {n}"}, headers=login
        )
        for n in range(6)
    ]
    assert [reply.status_code for reply in tries] == [403] * 5 + [429]
    assert_says_when(tries[5], 60)


@pytest.mark.parametrize("email", ["ana@uni.test", "nobody@uni.test"])
async def test_a_password_is_forgotten_three_times_an_hour(
    client: httpx.AsyncClient, email: str
) -> None:
    await register(client)
    replies = await asyncio.gather(*(forget(client, email) for _ in range(5)))
    assert sorted(reply.status_code for reply in replies) == [202] * 3 + [429] * 2
    again = await forget(client, email.upper())
    assert_says_when(again, 3600)
    assert "3 times" in again.json()["detail"]


async def test_a_confirmation_is_sent_again_three_times_an_hour(client: httpx.AsyncClient) -> None:
    login = await register(client)
    replies = [await client.post("/auth/send-confirmation", headers=login) for _ in range(4)]
    assert [reply.status_code for reply in replies] == [202] * 3 + [429]
    assert_says_when(replies[3], 3600)


async def test_of_many_questions_at_once_no_more_than_ten_wait(
    open_api: Open, queue: QuestionQueue
) -> None:
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(open_api()) for _ in range(2)]
        login = await register(apis[0])
        replies = await asyncio.gather(*(ask(apis[number % 2], login) for number in range(20)))
        eva = await register(apis[0], "eva")
        assert (await ask(apis[0], eva)).status_code == 202
    assert sorted(reply.status_code for reply in replies) == [202] * 10 + [429] * 10
    assert await queue.waiting(1) == 10
    for reply in replies:
        if reply.status_code == 429:
            assert_says_when(reply, 60)


async def test_the_pause_for_waiting_questions_is_by_the_pace(
    open_api: Open, queue: QuestionQueue, database: AsyncDatabase[dict[str, Any]]
) -> None:
    async with open_api(max_waiting_per_student=1) as client:
        login = await register(client)
        await ask(client, login)
        claimed = await queue.claim()
        assert claimed is not None
        await queue.complete(claimed.id, claimed.claims, ANSWER)
        await database["prompts"].update_one({"_id": 1}, {"$set": {"work_ms": 300_000}})
        assert (await ask(client, login)).status_code == 202
        refused = await ask(client, login)
    assert_says_when(refused, 300)
    assert refused.headers["retry-after"] == "300"
    assert "5 minutes" in refused.json()["detail"]


async def test_a_student_asks_so_many_questions_an_hour(
    open_api: Open, queue: QuestionQueue
) -> None:
    async with open_api(questions_per_hour=3) as client:
        ana, eva = await register(client), await register(client, "eva")
        for number in range(3):
            assert (await ask(client, ana, **{"Idempotency-Key": f"k{number}"})).status_code == 202
            claimed = await queue.claim()
            assert claimed is not None
            await queue.complete(claimed.id, claimed.claims, ANSWER)
        refused = await ask(client, ana)
        assert_says_when(refused, 3600)
        spanish = await ask(client, ana, **{"Accept-Language": "es"})
        assert "Has hecho 3 preguntas" in spanish.json()["detail"]
        repeated = await ask(client, ana, **{"Idempotency-Key": "k1"})
        assert (repeated.status_code, repeated.json()["repeated"]) == (202, True)
        assert (await ask(client, eva)).status_code == 202


@pytest.mark.parametrize(
    ("setting", "path", "body"),
    [
        ("address_logins_per_minute", "/login", {"data": {"username": "eva", "password": "x"}}),
        ("address_recoveries_per_hour", "/auth/forgot-password", {"json": {"email": "{}@x.test"}}),
        ("address_accounts_per_hour", "/user", {"json": {}}),
    ],
)
async def test_a_network_address_has_a_ceiling(
    open_api: Open, setting: str, path: str, body: dict[str, Any]
) -> None:
    async with open_api(trusted_proxies=["127.0.0.1"], **{setting: 2}) as client:

        async def send(at: str) -> httpx.Response:
            return await client.post(path, headers={"X-Forwarded-For": at}, **body)

        before = [(await send("192.0.2.1")).status_code for _ in range(2)]
        refused = await send("192.0.2.1")
        other = await send("192.0.2.2")
    assert 429 not in before
    assert_says_when(refused, 3600)
    assert refused.json()["type"] == "urn:consulta:problem:busy-network"
    assert other.status_code == before[0]


async def test_a_network_address_has_a_ceiling_of_questions_that_strangers_cannot_use_up(
    open_api: Open,
) -> None:
    async with open_api(address_questions_per_hour=2) as client:
        ana = await register(client)
        strangers = [await ask(client, {"Authorization": "Bearer x"}) for _ in range(4)]
        asked = [await ask(client, ana) for _ in range(2)]
        refused = await ask(client, ana)
    assert [reply.status_code for reply in strangers + asked] == [401] * 4 + [202] * 2
    assert_says_when(refused, 3600)
    assert refused.json()["type"] == "urn:consulta:problem:busy-network"


async def test_a_class_behind_one_address_can_log_in(client: httpx.AsyncClient) -> None:
    for number in range(12):
        await register(client, f"student{number}")
    replies = await asyncio.gather(*(log_in(client, f"student{n}") for n in range(12)))
    assert {reply.status_code for reply in replies} == {200}


@pytest.mark.parametrize(
    ("proxies", "forwarded", "is_spoofed"),
    [
        # Nobody is trusted: what anybody writes is not read.
        ([], "192.0.2.{}", True),
        # Another machine is.
        (["203.0.113.5"], "192.0.2.{}", True),
        # The proxy adds where it came from; what stood there before is the sender's own.
        (["127.0.0.1"], "192.0.2.{}, 198.51.100.7", True),
        (["127.0.0.0/8", "10.0.0.0/8"], "192.0.2.{}, 198.51.100.7, 10.1.2.3", True),
        (["127.0.0.1"], "192.0.2.{}", False),
        (["127.0.0.1"], "198.51.100.7, 192.0.2.{}", False),
        (["127.0.0.1"], "[2001:db8:{}::1]:4711", False),
        # A site has 64 bits to itself, and counts as one.
        (["127.0.0.1"], "2001:db8::{}", True),
        (["127.0.0.1"], "::ffff:198.51.100.7, 192.0.2.{}", False),
        # What is no address is one and the same.
        (["127.0.0.1"], "192.0.2.{}, unknown", True),
        (["127.0.0.1"], "garbage{}' OR 1=1", True),
        (["127.0.0.1"], "{},,,;;, ", True),
    ],
)
async def test_forwarded_addresses_count_only_from_trusted_proxies(
    open_api: Open, proxies: list[str], forwarded: str, is_spoofed: bool
) -> None:
    async with open_api(trusted_proxies=proxies, address_logins_per_minute=3) as client:
        replies = [
            await log_in(client, f"nobody{number}", at=forwarded.format(number))
            for number in range(6)
        ]
    expected = [401] * 3 + [429] * 3 if is_spoofed else [401] * 6
    assert [reply.status_code for reply in replies] == expected


def test_every_limit_is_described(tmp_path: Path) -> None:
    app = create_app(settings_for("mongodb://127.0.0.1/", "x", tmp_path))
    paths = app.openapi()["paths"]
    limited = (
        "/user",
        "/login",
        "/auth/forgot-password",
        "/auth/send-confirmation",
        "/auth/change-password",
        "/questions",
    )
    for path in limited:
        reply = paths[path]["post"]["responses"]["429"]
        assert "Retry-After" in reply["headers"]
        assert reply["content"]["application/problem+json"]["examples"]
