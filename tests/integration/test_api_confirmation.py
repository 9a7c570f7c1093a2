"""Confirming an address, and what an unconfirmed one or one from elsewhere may not do."""

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pymongo.asynchronous.database import AsyncDatabase
from sqlalchemy import create_engine

from core.mails import AccountMail, AccountMails, MailKind
from core.suppressions import Suppressions
from core.users import User, UserRepository
from tests.api_client import PASSWORD, register, running_app, serving, settings_for

USER = {"email": "ana@uni.test", "username": "ana", "password": PASSWORD}


@pytest.fixture
async def client(
    nx_url: str, database_name: str, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    settings = settings_for(nx_url, database_name, tmp_path, require_confirmed_email=True)
    async with running_app(settings) as client:
        yield client


@pytest.fixture
def mails(database: AsyncDatabase[dict[str, Any]]) -> AccountMails:
    return AccountMails(database)


def user(folder: Path, name: str = "ana") -> User:
    engine = create_engine(f"sqlite:///{folder / 'users.db'}")
    found = UserRepository(engine).find(name)
    engine.dispose()
    assert found is not None
    return found


async def confirmation(mails: AccountMails) -> AccountMail:
    mail = await mails.claim()
    assert mail is not None
    assert mail.kind is MailKind.CONFIRMATION
    return mail


async def path_of_link(mails: AccountMails) -> str:
    return urlsplit((await confirmation(mails)).values["url"]).path


async def test_name_that_looks_like_a_link_is_not_mailed_to_whoever_has_the_address(
    client: httpx.AsyncClient, mails: AccountMails
) -> None:
    """Whoever registers chooses both, and the address may be a stranger's."""
    await client.post("/user", json={**USER, "username": "evil.test"})
    await client.post("/auth/forgot-password", json={"email": USER["email"]})
    kinds = set()
    while mail := await mails.claim():
        kinds.add(mail.kind)
        assert "evil" not in repr(mail)
    assert kinds == {MailKind.CONFIRMATION, MailKind.TEMPORARY_PASSWORD}


@pytest.mark.parametrize(
    ("accepts", "language"),
    [
        (None, "es"),
        ("en-GB,en;q=0.9,es;q=0.8", "en"),
        ("de,es;q=0.3,en;q=0.2", "es"),
        ("fr", "es"),
        ("en;q=x,*;q=0,,;", "en"),
    ],
)
async def test_registering_sends_a_link_in_the_browsers_language(
    client: httpx.AsyncClient, mails: AccountMails, accepts: str | None, language: str
) -> None:
    headers = {"Accept-Language": accepts} if accepts else {}
    assert (await client.post("/user", json=USER, headers=headers)).status_code == 201
    mail = await confirmation(mails)
    assert (mail.email, mail.language) == ("ana@uni.test", language)
    assert mail.values["url"].startswith("http://127.0.0.1:8000/confirm/")


async def test_only_pressing_the_button_confirms(
    client: httpx.AsyncClient, mails: AccountMails, tmp_path: Path
) -> None:
    login = await register(client)
    link = await path_of_link(mails)
    for _ in range(3):
        shown = await client.get(link, headers={"Accept-Language": "en"})
        assert shown.status_code == 200
        assert "Confirm my address" in shown.text
        assert (await client.head(link)).status_code == 200
    assert user(tmp_path).confirmed is None
    refused = await client.post("/questions", json={"input": "¿Cuándo?"}, headers=login)
    assert refused.status_code == 403
    assert "POST /auth/send-confirmation" in refused.json()["detail"]
    assert (await client.get("/questions", headers=login)).status_code == 200

    done = await client.post(link, data={"confirm": "yes"})
    assert done.status_code == 200
    assert "Dirección confirmada" in done.text
    confirmed = user(tmp_path).confirmed
    assert confirmed is not None
    assert (await client.post(link)).status_code == 200
    assert user(tmp_path).confirmed == confirmed
    accepted = await client.post("/questions", json={"input": "¿Cuándo?"}, headers=login)
    assert accepted.status_code == 202


async def test_confirming_lets_mail_reach_a_dead_address_again(
    client: httpx.AsyncClient,
    mails: AccountMails,
    database: AsyncDatabase[dict[str, Any]],
) -> None:
    login = await register(client)
    suppressions = Suppressions(database)
    await client.post(await path_of_link(mails))
    await suppressions.add("ANA@uni.test", "550 5.1.1 user unknown")
    await client.post("/auth/send-confirmation", headers=login)
    await client.post(await path_of_link(mails))
    assert await suppressions.reason("ana@uni.test") is None


async def test_link_is_sent_again_three_times_an_hour(
    client: httpx.AsyncClient, mails: AccountMails
) -> None:
    login = await register(client)
    await confirmation(mails)
    english = {**login, "Accept-Language": "en"}
    for _ in range(3):
        sent = await client.post("/auth/send-confirmation", headers=english)
        assert sent.status_code == 202
        assert "on its way" in sent.json()["message"]
        assert (await confirmation(mails)).language == "en"
    refused = await client.post("/auth/send-confirmation", headers=english)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "3600"
    assert await mails.claim() is None
    assert (await client.post("/auth/send-confirmation")).status_code == 401


async def test_no_link_is_sent_to_who_has_confirmed(
    client: httpx.AsyncClient, mails: AccountMails
) -> None:
    login = await register(client)
    await client.post(await path_of_link(mails))
    sent = await client.post("/auth/send-confirmation", headers=login)
    assert sent.status_code == 202
    assert "ya está confirmada" in sent.json()["message"]
    assert await mails.claim() is None


async def test_broken_and_old_links_are_refused_on_a_page(
    client: httpx.AsyncClient,
    mails: AccountMails,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await register(client)
    link = await path_of_link(mails)
    for broken in (
        "/confirm/x",
        f"{link}x",
        f"/confirm/{'a' * 5000}",
        "/confirm/%00",
        "/confirm/…",
    ):
        for method in ("GET", "POST"):
            reply = await client.request(method, broken)
            assert reply.status_code == 404, broken
            assert reply.headers["content-type"].startswith("text/html")
            assert "Este enlace no está completo" in reply.text
    later = time.time() + 8 * 86400
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: later)
    reply = await client.post(link, headers={"Accept-Language": "en"})
    assert reply.status_code == 410
    assert "/auth/send-confirmation" in reply.text
    assert user(tmp_path).confirmed is None


async def test_page_runs_and_fetches_nothing_and_cannot_be_framed(
    client: httpx.AsyncClient, mails: AccountMails
) -> None:
    await register(client)
    reply = await client.get(await path_of_link(mails))
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"<script|<img|<link|https?://|ana", reply.text)


def test_registration_does_not_need_the_queue(tmp_path: Path) -> None:
    with serving("mongodb://127.0.0.1:1/", tmp_path) as url:
        assert httpx.post(f"{url}/user", json=USER, timeout=60).status_code == 201


async def test_other_domains_cannot_register(
    nx_url: str, database_name: str, tmp_path: Path
) -> None:
    settings = settings_for(
        nx_url, database_name, tmp_path, allowed_email_domains="uni.test, otra.test"
    )
    async with running_app(settings) as client:
        refused = await client.post("/user", json={**USER, "email": "ana@evil.test"})
        assert refused.status_code == 403
        assert "uni.test, otra.test" in refused.json()["detail"]
        inside = {**USER, "email": "ana@alumnos.uni.test"}
        assert (await client.post("/user", json=inside)).status_code == 201
