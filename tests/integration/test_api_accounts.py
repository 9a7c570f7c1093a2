"""Registering, logging in and forgotten passwords, on real databases."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from jose import jwt
from passlib.hash import argon2
from pymongo.asynchronous.database import AsyncDatabase
from sqlalchemy import create_engine, text

from api.accounts import BEAT_SECONDS
from api.deps import HASHING_THREADS
from core.mails import AccountMail, AccountMails, MailKind
from core.restoring import RestoreMark
from tests.api_client import PASSWORD, SECRET_KEY, log_in, register, running_app, settings_for

USER = {"email": "ana@uni.test", "username": "ana", "password": PASSWORD}


@pytest.fixture
async def client(
    nx_url: str, database_name: str, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    async with running_app(settings_for(nx_url, database_name, tmp_path)) as client:
        yield client


@pytest.fixture
def mails(database: AsyncDatabase[dict[str, Any]]) -> AccountMails:
    return AccountMails(database)


async def forget(client: httpx.AsyncClient, email: str = "ana@uni.test", **more: str) -> Any:
    response = await client.post("/auth/forgot-password", json={"email": email, **more})
    assert response.status_code == 202
    return response.json()


async def recovery_mails(mails: AccountMails) -> list[AccountMail]:
    """Those with a temporary password that are due, oldest first."""
    found = []
    while mail := await mails.claim():
        if mail.kind is MailKind.TEMPORARY_PASSWORD:
            found.append(mail)
    return found


async def temporary_password(client: httpx.AsyncClient, mails: AccountMails) -> str:
    await forget(client)
    return (await recovery_mails(mails))[-1].values["password"]


async def change(
    client: httpx.AsyncClient, login: dict[str, str], old: str, new: str
) -> httpx.Response:
    body = {"old_password": old, "new_password": new, "new_password_again": new}
    return await client.post("/auth/change-password", json=body, headers=login)


async def test_registering_gives_the_account_without_its_secrets(client: httpx.AsyncClient) -> None:
    response = await client.post("/user", json=USER)
    assert response.status_code == 201
    assert response.json() == {"id": 1, "email": "ana@uni.test", "username": "ana"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"username": "eva"}, "forgot-password"),
        ({"username": "eva", "email": "ANA@Uni.test"}, "forgot-password"),
        ({"email": "eva@uni.test"}, "choose another"),
        ({"email": "eva@uni.test", "username": "ANA"}, "choose another"),
    ],
)
async def test_registering_twice_is_told_what_to_do(
    client: httpx.AsyncClient, change: dict[str, str], says: str
) -> None:
    await client.post("/user", json=USER)
    response = await client.post("/user", json={**USER, **change})
    assert response.status_code == 409
    assert response.headers["content-type"] == "application/problem+json"
    assert says in response.json()["detail"]


async def test_one_of_many_simultaneous_registrations_succeeds(client: httpx.AsyncClient) -> None:
    responses = await asyncio.gather(*(client.post("/user", json=USER) for _ in range(8)))
    assert sorted(response.status_code for response in responses) == [201] + [409] * 7


@pytest.mark.parametrize("name", ["ana", "ANA", "ana@uni.test", "Ana@UNI.test", " ana "])
async def test_login_takes_user_name_or_address(client: httpx.AsyncClient, name: str) -> None:
    await client.post("/user", json=USER)
    response = await client.post("/login", data={"username": name, "password": PASSWORD})
    body = response.json()
    assert response.status_code == 200
    assert {**body, "access_token": ""} == {
        "access_token": "",
        "token_type": "bearer",
        "expires_in": 86_400,
        "must_change_password": False,
    }


async def test_refused_logins_are_all_alike(client: httpx.AsyncClient, tmp_path: Path) -> None:
    await register(client)
    await register(client, "eva")
    engine = create_engine(f"sqlite:///{tmp_path / 'users.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE users SET is_active = 0 WHERE username = 'eva'"))
    engine.dispose()
    tries = [
        ("ana", "wrong password"),
        ("nobody", PASSWORD),
        ("eva", PASSWORD),
        ("nobody@uni.test", "x" * 60_000),
        ("\0", "\0"),
        ("ﷺ" * 250, PASSWORD),
    ]
    replies = [
        await client.post("/login", data={"username": name, "password": password})
        for name, password in tries
    ]
    assert {reply.status_code for reply in replies} == {401}
    assert len({reply.text for reply in replies}) == 1
    assert replies[0].headers["www-authenticate"] == "Bearer"
    assert replies[0].json()["error_description"] == replies[0].json()["detail"]


async def test_disabling_an_account_ends_its_logins(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    login = await register(client)
    engine = create_engine(f"sqlite:///{tmp_path / 'users.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE users SET is_active = 0"))
    engine.dispose()
    response = await client.get("/questions", headers=login)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


CLAIMS = {"sub": "1", "typ": "access", "iss": "consulta", "aud": "consulta-api"}


@pytest.mark.parametrize(
    "change",
    [
        {"exp": None},
        {"iat": None},
        {"iss": None},
        {"iss": "another"},
        {"aud": None},
        {"aud": "another"},
        {"typ": None},
        {"typ": "refresh"},
        {"sub": None},
        {"sub": "2"},
        {"sub": "x"},
        {"ver": None},
        {"ver": 2},
        {"ver": True},
        {"exp": 1},
    ],
)
async def test_token_that_is_not_quite_right_is_refused(
    client: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    login = await register(client)
    version = jwt.get_unverified_claims(login["Authorization"].split()[1])["ver"]
    now = int(time.time())
    right = {**CLAIMS, "ver": version, "iat": now, "exp": now + 60}
    wrong = {name: value for name, value in {**right, **change}.items() if value is not None}
    for claims, key, status in (
        (right, SECRET_KEY, 200),
        (wrong, SECRET_KEY, 401),
        (right, SECRET_KEY[::-1], 401),
    ):
        headers = {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm='HS256')}"}
        assert (await client.get("/questions", headers=headers)).status_code == status


async def test_changing_the_password_ends_older_logins_and_gives_a_new_one(
    client: httpx.AsyncClient,
) -> None:
    old = await register(client)
    response = await change(client, old, PASSWORD, "cuatro gatos")
    assert response.status_code == 200
    new = {"Authorization": f"Bearer {response.json()['access_token']}"}
    assert (await client.get("/questions", headers=old)).status_code == 401
    assert (await client.get("/questions", headers=new)).status_code == 200
    assert await log_in(client, "ana", "cuatro gatos")


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ("wrong password", "cuatro gatos", 403),
        (PASSWORD, PASSWORD, 422),
        (PASSWORD, "ANA@uni.test", 422),
        (PASSWORD, "corta", 422),
        (PASSWORD, "contraseña2026", 422),
        (PASSWORD, "ana2026uni", 422),
    ],
)
async def test_refused_change_leaves_the_password(
    client: httpx.AsyncClient, old: str, new: str, status: int
) -> None:
    login = await register(client)
    assert (await change(client, login, old, new)).status_code == status
    assert (await client.get("/questions", headers=login)).status_code == 200


async def test_temporary_password_works_once_and_must_be_changed(
    client: httpx.AsyncClient, mails: AccountMails
) -> None:
    before = await register(client)
    temporary = await temporary_password(client, mails)
    assert await log_in(client), "the old password works until the temporary one is used"

    login = await log_in(client, "ana", temporary)
    assert (await client.get("/questions", headers=before)).status_code == 401
    for refused in (
        await client.get("/questions", headers=login),
        await client.post("/questions", json={"input": "¿?"}, headers=login),
    ):
        assert refused.status_code == 403
        assert "/auth/change-password" in refused.json()["detail"]

    again = await client.post("/login", data={"username": "ana", "password": temporary})
    assert again.status_code == 401
    assert "get a new one" in again.json()["detail"]
    wrong = await client.post("/login", data={"username": "ana", "password": temporary + "x"})
    assert "get a new one" not in wrong.json()["detail"]

    changed = await change(client, login, temporary, "cuatro gatos")
    assert changed.status_code == 200
    assert changed.json()["must_change_password"] is False
    fresh = await log_in(client, "ana", "cuatro gatos")
    assert (await client.get("/questions", headers=fresh)).status_code == 200


async def test_temporary_password_is_mailed_in_the_language_that_was_chosen(
    client: httpx.AsyncClient, mails: AccountMails
) -> None:
    await register(client)
    await forget(client, "ANA@uni.test", language="en")
    [mail] = await recovery_mails(mails)
    assert (mail.email, mail.language) == ("ana@uni.test", "en")
    assert mail.values["minutes"] == "30"
    assert mail.values["expires"].endswith("+00:00")


async def test_reply_about_a_forgotten_password_does_not_tell_who_has_an_account(
    client: httpx.AsyncClient, mails: AccountMails
) -> None:
    await register(client)
    seconds: dict[str, float] = {}
    replies = []
    for email in ("ana@uni.test", "nobody@uni.test"):
        start = time.perf_counter()
        replies.append(await forget(client, email))
        seconds[email] = time.perf_counter() - start
    assert replies[0] == replies[1]
    for taken in seconds.values():
        # On a busy machine the work may take more than one beat.
        assert taken >= BEAT_SECONDS
        assert taken % BEAT_SECONDS < 0.2
    assert len(await recovery_mails(mails)) == 1


async def test_queue_that_takes_no_mail_does_not_tell_who_has_an_account(
    client: httpx.AsyncClient, database: AsyncDatabase[dict[str, Any]]
) -> None:
    await register(client)
    await RestoreMark(database).set()
    replies = [
        await client.post("/auth/forgot-password", json={"email": email})
        for email in ("nobody@uni.test", "ana@uni.test")
    ]
    assert [reply.status_code for reply in replies] == [503, 503]
    assert replies[0].json() == replies[1].json()
    await RestoreMark(database).remove()
    for email in ("nobody@uni.test", "ana@uni.test"):
        await forget(client, email)


async def test_an_account_is_mailed_three_temporary_passwords_an_hour(
    client: httpx.AsyncClient, mails: AccountMails
) -> None:
    await register(client)
    for _ in range(3):
        await forget(client)
    again = await client.post("/auth/forgot-password", json={"email": "ana@uni.test"})
    assert again.status_code == 429
    passwords = [mail.values["password"] for mail in await recovery_mails(mails)]
    assert len(passwords) == 3
    assert await log_in(client, "ana", passwords[-1]), "the last one that was mailed works"


async def test_simultaneous_requests_send_no_more_temporary_passwords(
    client: httpx.AsyncClient, mails: AccountMails
) -> None:
    await register(client)
    body = {"email": "ana@uni.test"}
    await asyncio.gather(*(client.post("/auth/forgot-password", json=body) for _ in range(12)))
    assert len(await recovery_mails(mails)) == 3


async def test_user_name_is_no_address_for_a_temporary_password(client: httpx.AsyncClient) -> None:
    response = await client.post("/auth/forgot-password", json={"email": "ana"})
    assert response.status_code == 422


async def test_refused_login_tells_nothing_of_the_account(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The same words, and not before the time that it takes for everybody.

    ``python -m benchmarks.timing`` measures whether the medians are the same.
    """
    for name in ("ana", "old", "disabled", "forgotten"):
        await register(client, name)
    await forget(client, "forgotten@uni.test")
    old = argon2.using(type="ID", memory_cost=8_192, time_cost=1, parallelism=1).hash(PASSWORD)
    engine = create_engine(f"sqlite:///{tmp_path / 'users.db'}")
    with engine.begin() as connection:
        for statement in (
            f"UPDATE users SET password_hash = '{old}' WHERE username = 'old'",
            "UPDATE users SET is_active = 0 WHERE username = 'disabled'",
        ):
            connection.execute(text(statement))
    engine.dispose()
    said = set()
    for name in ("nobody", "ana", "ana@uni.test", "old", "disabled", "forgotten"):
        begin = time.monotonic()
        refused = await client.post("/login", data={"username": name, "password": "wrong one"})
        assert time.monotonic() - begin >= BEAT_SECONDS
        assert refused.status_code == 401
        said.add((refused.text, tuple(sorted(refused.headers.items()))))
    right = await client.post("/login", data={"username": "disabled", "password": PASSWORD})
    said.add((right.text, tuple(sorted(right.headers.items()))))
    assert len(said) == 1


async def test_who_registers_anothers_address_gains_nothing_and_the_owner_gets_it_back(
    nx_url: str, database_name: str, tmp_path: Path, mails: AccountMails
) -> None:
    """Why it does no harm that registering says whether an address is taken."""
    settings = settings_for(nx_url, database_name, tmp_path, require_confirmed_email=True)
    async with running_app(settings) as client:
        squatter = await register(client, "ana", "the password of a squatter")
        taken = await client.post("/user", json={**USER, "username": "other"})
        assert (taken.status_code, taken.json()["title"]) == (409, "E-mail taken")
        asked = await client.post("/questions", json={"input": "When?"}, headers=squatter)
        assert (asked.status_code, asked.json()["title"]) == (403, "E-mail not confirmed")
        temporary = await temporary_password(client, mails)
        owner = await log_in(client, "ana@uni.test", temporary)
        changed = await change(client, owner, temporary, "cuatro gatos en el tejado")
        owner = {"Authorization": f"Bearer {changed.json()['access_token']}"}
        asked = await client.post("/questions", json={"input": "When?"}, headers=owner)
        assert asked.status_code == 202
        assert (await client.get("/questions", headers=squatter)).status_code == 401
        old = {"username": "ana", "password": "the password of a squatter"}
        assert (await client.post("/login", data=old)).status_code == 401


async def test_many_logins_at_once_stop_nobody_else(client: httpx.AsyncClient) -> None:
    """Passwords are hashed in a pool of their own, a few at a time: 19 MiB each."""
    ana = await register(client)
    memory = psutil.Process().memory_info().rss
    guesses = [
        asyncio.create_task(
            client.post("/login", data={"username": f"nobody{number}", "password": "wrong one"})
        )
        for number in range(60)
    ]
    most, answered = 0, 0
    while not all(guess.done() for guess in guesses):
        replies = await asyncio.gather(
            client.get("/health/live"), client.get("/questions", headers=ana)
        )
        assert [reply.status_code for reply in replies] == [200, 200]
        answered += not all(guess.done() for guess in guesses)
        most = max(most, psutil.Process().memory_info().rss - memory)
        await asyncio.sleep(0.02)
    assert {guess.result().status_code for guess in guesses} == {401}
    assert answered > 3
    assert most < (HASHING_THREADS * 19 + 60) * 2**20
