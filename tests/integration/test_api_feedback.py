"""The pages behind "did this help?": whoever has the link may vote, and only by pressing."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pymongo.asynchronous.database import AsyncDatabase

from core.forgetting import Person, PersonalData
from core.links import Links
from core.mails import AccountMails, MailKind
from core.questions import Answer, Outcome, QuestionQueue, Rating, Source
from tests.api_client import running_app, settings_for

ANSWER = Answer(
    "Es esto [1].",
    "es",
    Outcome.ANSWERED,
    (Source("apuntes.pdf", "Es esto.", page=12), Source("opamp.pptx", "Eso.", slide=4)),
)


@pytest.fixture
def queue(database: AsyncDatabase[dict[str, Any]]) -> QuestionQueue:
    return QuestionQueue(database)


@pytest.fixture
async def client(
    nx_url: str, database_name: str, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    settings = settings_for(nx_url, database_name, tmp_path, staff_email="staff@uni.test")
    async with running_app(settings) as client:
        yield client


async def ask(queue: QuestionQueue, answer: Answer | None = ANSWER) -> int:
    enqueued = await queue.enqueue(input="¿Qué <es>?", email="ana@uni.test", user_id=1)
    if answer is not None:
        claimed = await queue.claim()
        assert claimed is not None
        assert await queue.complete(claimed.id, claimed.claims, answer)
    return enqueued.question.id


def link(tmp_path: Path, number: int) -> str:
    settings = settings_for("mongodb://127.0.0.1", "x", tmp_path)
    return urlsplit(Links(settings).feedback(number)).path


async def rating(queue: QuestionQueue, number: int) -> Rating | None:
    question = await queue.one(number)
    assert question is not None
    return question.rating


async def test_opening_the_link_votes_for_nobody(
    client: httpx.AsyncClient, queue: QuestionQueue, tmp_path: Path
) -> None:
    number = await ask(queue)
    for choice in ("", "?choice=yes", "?choice=staff", "?choice=<x>", "?choice=yes&choice=no"):
        for method in ("GET", "HEAD"):
            reply = await client.request(method, link(tmp_path, number) + choice)
            assert reply.status_code == 200
    assert await rating(queue, number) is None
    assert await AccountMails(client._transport.app.state.resources.database).claim() is None  # type: ignore[attr-defined]


async def test_page_shows_the_number_and_preselects_but_not_the_question(
    client: httpx.AsyncClient, queue: QuestionQueue, tmp_path: Path
) -> None:
    number = await ask(queue)
    page = (await client.get(f"{link(tmp_path, number)}?choice=no")).text
    assert f"tu pregunta {number}?" in page
    assert 'value="no" class="chosen" autofocus' in page
    assert page.count('class="chosen"') == 1
    for private in ("es&gt;", "Es esto", "apuntes", "ana@"):
        assert private not in page


async def test_last_word_counts(
    client: httpx.AsyncClient, queue: QuestionQueue, tmp_path: Path
) -> None:
    number = await ask(queue)
    for choice in Rating:
        reply = await client.post(link(tmp_path, number), data={"choice": choice})
        assert reply.status_code == 200
        assert await rating(queue, number) is choice
    # The address still has the choice that was preselected.
    await client.post(f"{link(tmp_path, number)}?choice=staff", data={"choice": "no"})
    assert await rating(queue, number) is Rating.DID_NOT_HELP


async def test_staff_are_asked_once_with_the_students_address_to_reply_to(
    client: httpx.AsyncClient,
    queue: QuestionQueue,
    database: AsyncDatabase[dict[str, Any]],
    tmp_path: Path,
) -> None:
    number = await ask(queue)
    for choice in ("staff", "no", "staff"):
        reply = await client.post(link(tmp_path, number), data={"choice": choice})
    assert "se ha enviado al profesorado" in reply.text
    mails = AccountMails(database)
    mail = await mails.claim()
    assert mail is not None
    assert (mail.kind, mail.email) == (MailKind.FOR_STAFF, "staff@uni.test")
    assert dict(mail.values) == {
        "number": str(number),
        "question": "¿Qué <es>?",
        "answer": "Es esto [1].",
        "sources": "[1] apuntes.pdf, página 12\n[2] opamp.pptx, diapositiva 4",
        "student": "ana@uni.test",
        "reply_to": "ana@uni.test",
    }
    assert await mails.claim() is None


async def test_each_of_several_staff_addresses_is_asked_once(
    nx_url: str,
    database_name: str,
    queue: QuestionQueue,
    database: AsyncDatabase[dict[str, Any]],
    tmp_path: Path,
) -> None:
    number = await ask(queue)
    several = "prof@uni.test, Ayuda@uni.test"
    settings = settings_for(nx_url, database_name, tmp_path, staff_email=several)
    async with running_app(settings) as client:
        for _ in range(2):
            await client.post(link(tmp_path, number), data={"choice": "staff"})
    mails = AccountMails(database)
    asked = [await mails.claim() for _ in range(3)]
    assert [mail and mail.email for mail in asked] == ["prof@uni.test", "Ayuda@uni.test", None]


async def test_who_is_forgotten_meanwhile_is_not_named_to_the_staff(
    client: httpx.AsyncClient,
    queue: QuestionQueue,
    database: AsyncDatabase[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number = await ask(queue)
    rate = QuestionQueue.rate

    async def forgotten_before(self: QuestionQueue, number: int, rating: Rating) -> bool:
        await PersonalData(database).forget(Person(("ana@uni.test",), 1, "ana"))
        return await rate(self, number, rating)

    monkeypatch.setattr(QuestionQueue, "rate", forgotten_before)
    reply = await client.post(link(tmp_path, number), data={"choice": "staff"})
    assert reply.status_code == 404
    assert await AccountMails(database).claim() is None


async def test_without_a_staff_address_the_wish_is_kept(
    nx_url: str, database_name: str, queue: QuestionQueue, tmp_path: Path
) -> None:
    number = await ask(queue)
    async with running_app(settings_for(nx_url, database_name, tmp_path)) as client:
        reply = await client.post(link(tmp_path, number), data={"choice": "staff"})
    assert "puede ver que le has pedido ayuda" in reply.text
    assert await rating(queue, number) is Rating.ASK_STAFF


@pytest.mark.parametrize(
    ("language", "expected"), [("en", "Did the answer"), ("es", "¿Te ha"), ("fr", "¿Te ha")]
)
async def test_page_is_in_the_answers_language(
    client: httpx.AsyncClient, queue: QuestionQueue, tmp_path: Path, language: str, expected: str
) -> None:
    number = await ask(queue, Answer("x", language, Outcome.ANSWERED))
    page = await client.get(link(tmp_path, number), headers={"Accept-Language": "en"})
    assert expected in page.text


async def test_link_that_leads_nowhere_is_a_polite_page(
    client: httpx.AsyncClient,
    queue: QuestionQueue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered, waiting = await ask(queue), await ask(queue, answer=None)
    good = link(tmp_path, answered)
    for path in ("/feedback/x", f"{good}x", link(tmp_path, waiting), link(tmp_path, 999)):
        for reply in (await client.get(path), await client.post(path, data={"choice": "yes"})):
            assert reply.status_code == 404
            assert "Este enlace no está completo" in reply.text
    bad = await client.post(good, data={"choice": "maybe"})
    assert bad.status_code == 422
    assert bad.headers["content-type"].startswith("text/html")
    assert (await client.post(good)).status_code == 422
    later = time.time() + 366 * 86400
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: later)
    assert (await client.get(good)).status_code == 410
    assert await rating(queue, answered) is None
