"""A student who only uses a mail client: mutt, through Postfix and Dovecot, and back."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.journeys.department import Department, department, eventually
from tests.servers import MailServer, Mutt, mail_server

COURSE = "consultas@uni.test"
ANA = "ana@uni.test"
QUESTION = "¿Cuál es la tensión umbral de un diodo de silicio?"
FOLLOW_UP = "¿Y la de uno de germanio?"


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with mail_server({COURSE: "c0rreo", ANA: "contrasena"}) as server:
        yield server


def own_text(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def confirm(uni: Department, mail: MailServer) -> None:
    """Open the link of the mail that asks for it, and press the button."""
    (asked,) = mail.messages(ANA, at_least=1)
    link = re.search(rf"{re.escape(uni.api_url)}/confirm/\S+", own_text(asked))
    assert link
    assert httpx.post(link[0]).is_success


def test_mail_of_an_ordinary_client_comes_back_as_an_answer_in_the_same_thread(
    mail: MailServer, tmp_path: Path, course_index: Path
) -> None:
    mutt = Mutt(mail, ANA, tmp_path / "mutt")
    passwords = tmp_path / "secrets.json"
    keys = ("smtp_password", "imap_password", "forgot_password")
    passwords.write_text(json.dumps(dict.fromkeys(keys, mail.accounts[COURSE])))
    with department(
        tmp_path,
        index=course_index,
        SMTP_SERVER=mail.host,
        SMTP_PORT=str(mail.submission_port),
        SMTP_TLS="starttls",
        SMTP_USERNAME=COURSE,
        IMAP_SERVER=mail.host,
        IMAP_PORT=str(mail.imaps_port),
        IMAP_TLS="tls",
        IMAP_USERNAME=COURSE,
        PASSWORDS_FILE=str(passwords),
        SSL_CERT_FILE=str(mail.ca_file),
    ) as uni:
        for service in ("api", "worker", "mailer"):
            uni.start(service)
        uni.wait_until_ready()
        with uni.student("ana") as ana:
            confirm(uni, mail)

            def questions() -> list[dict[str, Any]]:
                """Newest first."""
                page: list[dict[str, Any]] = ana.get("/questions").json()["questions"]
                return page

            def sent(count: int) -> bool:
                return [question["state"] for question in questions()] == ["sent"] * count

            mutt.write(COURSE, "Consulta: el diodo", f"Hola:\n\n{QUESTION}\n\nUn saludo,\nAna\n")
            eventually(lambda: sent(1), 120, "The answer")
            answer = arrived(mail, "<question-1.")
            assert "apuntes.pdf" in own_text(answer)

            mutt.reply("question-1\\.", f"{FOLLOW_UP}\n\nUn saludo,\nAna\n\n")
            eventually(lambda: sent(2), 120, "The answer to the reply")
            arrived(mail, "<question-2.")
            second, first = questions()
        assert first["input"] == f"Hola:\n\n{QUESTION}"
        assert second["input"] == FOLLOW_UP
        thread = mutt.thread("question-2\\.")

    # Hers, the acknowledgement, the answer; and the same again below it.
    senders = Counter(message["From"].addresses[0].addr_spec for message in thread)
    assert senders == {ANA: 2, COURSE: 4}
    subjects = [str(message["Subject"]) for message in thread]
    assert subjects == ["Consulta: el diodo", *["Re: Consulta: el diodo"] * 5]
    asked, replied = (message for message in thread if message["From"] == thread[0]["From"])
    answered, last = (m for m in thread if m["Message-ID"].startswith("<question-"))
    assert answered["In-Reply-To"] == asked["Message-ID"]
    assert replied["In-Reply-To"] == answered["Message-ID"]
    assert last["In-Reply-To"] == replied["Message-ID"]
    chain = [message["Message-ID"] for message in (asked, answered, replied)]
    assert last["References"].split() == chain
    assert "apuntes.pdf" in own_text(last)


def arrived(mail: MailServer, message_id: str) -> EmailMessage:
    """The mail in the student's INBOX whose Message-ID begins like this."""

    def found() -> EmailMessage | None:
        for message in mail.messages(ANA):
            if message["Message-ID"].startswith(message_id):
                return message
        return None

    return eventually(found, 30, f"The arrival of {message_id}")
