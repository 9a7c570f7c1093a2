"""Mails that reply to a student's stand in the same thread, and say why they were written."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.mails import MailKind
from core.questions import Thread
from mailer.inbox import Refusal, language_of
from mailer.messages import REFERENCES_LIMIT, account_message, answer_message
from tests.unit.test_mail_messages import ACCOUNT_MAIL, LETTERHEAD, NOW, QUESTION, part, received

THREAD = Thread("<c@uni.test>", "RE: Re : CONSULTA señal", ("<a@uni.test>", "<b@uni.test>"))
LONG_ID = f"<{'x' * 200}@uni.test>"


def test_answer_is_a_reply_in_the_students_thread() -> None:
    message = received(answer_message(replace(QUESTION, thread=THREAD), LETTERHEAD))
    assert message["Subject"] == "Re: CONSULTA señal"
    assert message["In-Reply-To"] == "<c@uni.test>"
    assert message["References"] == "<a@uni.test> <b@uni.test> <c@uni.test>"


def test_replies_go_to_the_inbox_where_it_is_another_address() -> None:
    assert "Reply-To" not in received(answer_message(QUESTION, LETTERHEAD))
    elsewhere = replace(LETTERHEAD, replies_to="preguntas@uni.test")
    assert received(answer_message(QUESTION, elsewhere))["Reply-To"] == "preguntas@uni.test"


@pytest.mark.parametrize("thread", [None, Thread("", "")])
def test_answer_without_a_thread_keeps_its_own_subject(thread: Thread | None) -> None:
    message = received(answer_message(replace(QUESTION, thread=thread), LETTERHEAD))
    assert "17" in message["Subject"]
    assert "In-Reply-To" not in message
    assert "References" not in message


def test_references_are_bounded_and_keep_the_first_and_the_newest() -> None:
    references = tuple(f"<{number}{LONG_ID[1:]}" for number in range(30))
    thread = Thread(LONG_ID, "x", references)
    message = received(answer_message(replace(QUESTION, thread=thread), LETTERHEAD))
    ids = message["References"].split()
    assert len(ids) == REFERENCES_LIMIT
    assert (ids[0], ids[-2], ids[-1]) == (references[0], references[-1], LONG_ID)
    assert message["In-Reply-To"] == LONG_ID


@settings(max_examples=100, deadline=None)
@given(st.builds(Thread, st.text(), st.text(), st.lists(st.text()).map(tuple)))
def test_thread_of_any_kind_adds_no_header_and_no_line(thread: Thread) -> None:
    message = received(answer_message(replace(QUESTION, thread=thread), LETTERHEAD))
    allowed = set(received(answer_message(QUESTION, LETTERHEAD)).keys())
    assert set(message.keys()) <= allowed | {"In-Reply-To", "References"}


@pytest.mark.parametrize(
    "text", ["<a b@x>", "<=?utf-8?q?=0D=0ABcc:_x?=@y>", "<ñ@x>", "x@y", "<a\r\nBcc: x@y>"]
)
def test_what_is_no_message_id_is_left_out(text: str) -> None:
    message = answer_message(replace(QUESTION, thread=Thread(text, "x", (text,))), LETTERHEAD)
    assert "In-Reply-To" not in message
    assert "References" not in message


def acknowledgement(**values: str) -> dict[str, str]:
    return {
        "number": "17",
        "question": "¿Qué es <b>?",
        "place": "3",
        "expected": (NOW + timedelta(minutes=5)).isoformat(),
        "attachments": "",
        **values,
    }


@pytest.mark.parametrize("language", ["es", "en"])
def test_acknowledgement_says_place_time_and_attachments(language: str) -> None:
    mail = replace(
        ACCOUNT_MAIL,
        kind=MailKind.ACKNOWLEDGEMENT,
        values=acknowledgement(attachments="foto.png"),
        language=language,
        thread=THREAD,
    )
    message = received(account_message(mail, LETTERHEAD, NOW))
    assert message["Subject"] == "Re: CONSULTA señal"
    assert message["Auto-Submitted"] == "auto-replied"
    for kind in ("plain", "html"):
        content = part(message, kind)
        for expected in ("17", " 3 ", "11:36 CEST", "foto.png"):
            assert expected in content
    assert "¿Qué es &lt;b&gt;?" in part(message, "html")


def test_acknowledgement_without_a_pace_promises_no_time() -> None:
    values = acknowledgement(expected="", place="1")
    mail = replace(ACCOUNT_MAIL, kind=MailKind.ACKNOWLEDGEMENT, values=values)
    content = part(received(account_message(mail, LETTERHEAD, NOW)), "plain")
    assert "Es la siguiente de la cola." in content
    assert "Todavía no se puede decir" in content


@pytest.mark.parametrize("language", ["es", "en"])
@pytest.mark.parametrize("reason", Refusal)
def test_every_refusal_has_its_reason_and_its_remedy(reason: Refusal, language: str) -> None:
    mail = replace(
        ACCOUNT_MAIL,
        kind=MailKind.NOT_ACCEPTED,
        language=language,
        values={"reason": str(reason), "limit": "77", "domains": "uni.test", "reply_to": "c@x.y"},
    )
    message = received(account_message(mail, LETTERHEAD, NOW))
    assert str(message["Reply-To"]) == "c@x.y"
    text = part(message, "plain")
    assert "{" not in text
    if reason.startswith("too_"):
        assert "77" in text
    if reason in (Refusal.UNREGISTERED, Refusal.OUTSIDE, Refusal.UNCONFIRMED):
        assert LETTERHEAD.login_url in text
    # Where there is a page to go to, a button goes there.
    has_button = f'href="{LETTERHEAD.login_url}"' in part(message, "html")
    assert has_button == (LETTERHEAD.login_url in text)
    assert ("uni.test" in text) == (reason is Refusal.OUTSIDE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("¿Qué es un JFET?", "es"),
        ("Cuando es el examen de la asignatura", "es"),
        ("What is the cut-off voltage of a JFET?", "en"),
        ("JFET", "xx"),
        ("", "xx"),
    ],
)
def test_language_is_guessed_by_small_words(text: str, expected: str) -> None:
    assert language_of(text, "xx") == expected
