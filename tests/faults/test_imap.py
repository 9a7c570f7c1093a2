"""Questions by e-mail from a real Dovecot: killed, numbered anew, silent, and overfull."""

import email.utils
import json
import os
import pwd
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import PyMongoError

from core.settings import Settings
from core.users import UserRepository, create_user_engine
from tests import servers
from tests.faults.laboratory import Laboratory, Tally, killed_at, laboratory
from tests.faults.proxy import Fault, FaultProxy
from tests.journeys.department import eventually
from tests.servers import MailServer, mail_server

Count = Callable[[Tally], Tally]

_COURSE = "consultas@uni.test"
_ANA = "ana@uni.test"
_OLD_MAILS = 5_000


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with mail_server({_COURSE: "correo", _ANA: "ana"}) as server:
        yield server


@contextmanager
def _course(
    folder: Path, index: Path, mail: MailServer, *, imap_port: int = 0, **environment: str
) -> Iterator[Laboratory]:
    """API and worker running, and Ana registered with a confirmed address."""
    with mail.mailbox(_COURSE) as client:
        client.uid("STORE", "1:*", "+FLAGS", r"(\Deleted)")
        client.expunge()
    settings = {
        "IMAP_SERVER": mail.host,
        "IMAP_PORT": str(imap_port or mail.imaps_port),
        "IMAP_TLS": "tls",
        "IMAP_USERNAME": _COURSE,
        "SSL_CERT_FILE": str(mail.ca_file),
        "MAIL_QUESTIONS_PER_DAY": "1000",
        **environment,
    }
    with laboratory(folder, index=index, **settings) as lab:
        (folder / "passwords.json").write_text(
            json.dumps({"forgot_password": "", "smtp_password": "", "imap_password": "correo"})
        )
        lab.start("api")
        lab.start("worker")
        lab.wait_until_ready()
        lab.log_in("ana")
        engine = create_user_engine(Settings(database_url=lab.environment["DATABASE_URL"]))
        users = UserRepository(engine)
        ana = users.find("ana")
        assert ana
        assert users.confirm(ana.id, _ANA)
        engine.dispose()
        yield lab


def _question(text: str, subject: str = "CONSULTA") -> EmailMessage:
    message = EmailMessage()
    message["From"] = _ANA
    message["To"] = _COURSE
    message["Subject"] = subject
    message["Date"] = email.utils.localtime()
    message["Message-ID"] = email.utils.make_msgid(domain="uni.test")
    message.set_content(text)
    return message


def _append(mail: MailServer, *messages: EmailMessage) -> None:
    with mail.mailbox(_COURSE) as client:
        for message in messages:
            kind, answer = client.append("INBOX", "", "", message.as_bytes(policy=SMTP_POLICY))
            assert kind == "OK", answer


def _wait_until_accepted(lab: Laboratory, texts: Sequence[str], seconds: float = 60) -> None:
    """Revive what dies until each text is stored; all of them count as accepted."""

    def stored() -> list[dict[str, Any]] | None:
        lab.revive()
        try:
            documents = lab.documents()
        except PyMongoError:
            return None
        found = [document for document in documents if document["input"] in texts]
        return found if {document["input"] for document in found} == set(texts) else None

    found = eventually(stored, seconds, "The question's way from the mailbox to the queue")
    assert len(found) == len(set(texts)), "an e-mail became two questions"
    lab.accepted += [d["_id"] for d in found if d["_id"] not in lab.accepted]


def _are_seen(mail: MailServer) -> bool:
    return all(r"\Seen" in flags for flags in mail.flags(_COURSE))


@pytest.mark.parametrize("call", ["write", "sendto"])
def test_mailer_killed_at_each_call_makes_one_question_of_each_mail(
    tmp_path: Path, course_index: Path, counted: Count, mail: MailServer, call: str
) -> None:
    # Of TLS come the calls of `write`, of MongoDB and SMTP those of `sendto`.
    with _course(tmp_path, course_index, mail, POLL_SECONDS="1") as lab:
        lab.start("mailer")
        texts: list[str] = []

        def one_way() -> None:
            texts.append(f"¿Qué es un diodo? {uuid.uuid4().hex}")
            _append(mail, _question(texts[-1]))
            _wait_until_accepted(lab, texts)
            lab.wait_for_mails()
            eventually(lambda: lab.revive() or _are_seen(mail), 60, "The flag")

        one_way()
        for occurrence in range(1, 80):
            process = lab.processes["mailer"]
            with killed_at(process, call, occurrence):
                one_way()
            if process.poll() is None:
                break
        else:
            raise AssertionError("the way of an e-mail has no end")
        kills = occurrence - 1
        tally = counted(lab.tally(f"mailer killed at each {call} of an e-mail's way", kills))
    assert kills
    assert tally.accepted == len(texts)
    assert tally.lost == 0
    assert tally.answered == tally.accepted
    assert tally.duplicates <= kills


def test_mailbox_that_is_numbered_anew_loses_and_doubles_nothing(
    tmp_path: Path, course_index: Path, counted: Count, mail: MailServer
) -> None:
    with _course(tmp_path, course_index, mail) as lab:
        lab.start("mailer")
        texts: list[str] = []
        for change in range(3):
            some = [f"¿Pregunta {change}.{number}?" for number in range(3)]
            texts += some
            _append(mail, *map(_question, some))
            # The first time all is stored before, then it is done in the middle.
            _wait_until_accepted(lab, texts if change == 0 else texts[:-3])
            mail.change_uidvalidity(_COURSE)
        _wait_until_accepted(lab, texts)
        tally = counted(lab.tally("mailbox numbered anew", 3))
    assert tally == Tally(tally.fault, 3, 9, 9, 9, 0)
    assert _are_seen(mail)


def test_idle_that_never_speaks_is_given_up(
    tmp_path: Path, course_index: Path, counted: Count, mail: MailServer
) -> None:
    with (
        FaultProxy(servers.free_port(), mail.imaps_port) as network,
        _course(tmp_path, course_index, mail, imap_port=network.port) as lab,
    ):
        lab.start("mailer")
        _append(mail, _question("¿Qué es un diodo?"))
        _wait_until_accepted(lab, ["¿Qué es un diodo?"])
        lab.wait_for_mails()
        connections = network.accepted
        network.set(Fault.FORGOTTEN)
        _append(mail, _question("¿Y un transistor?"))
        # A minute of IDLE, and another for the reply to its end.
        _wait_until_accepted(lab, ["¿Qué es un diodo?", "¿Y un transistor?"], 180)
        tally = counted(lab.tally("IDLE that never speaks", 1))
    assert network.accepted > connections
    assert tally == Tally(tally.fault, 1, 2, 2, 2, 0)


def test_mailbox_of_thousands_at_the_first_start_is_searched_for_its_questions(
    tmp_path: Path, course_index: Path, counted: Count, mail: MailServer
) -> None:
    every = 500
    with _course(tmp_path, course_index, mail) as lab:
        folder = mail.folder / "mailboxes" / _COURSE
        owner = pwd.getpwuid((folder / "new").stat().st_uid)
        for number in range(_OLD_MAILS):
            subject = "CONSULTA" if number % every == 0 else "Acta de la reunión"
            file = folder / "new" / f"{int(time.time())}.M{number:06}.old"
            file.write_bytes(_question(f"¿Número {number}?", subject).as_bytes())
            os.chown(file, owner.pw_uid, owner.pw_gid)
        began = time.monotonic()
        lab.start("mailer")
        texts = [f"¿Número {number}?" for number in range(0, _OLD_MAILS, every)]
        _wait_until_accepted(lab, texts, 120)
        seconds = time.monotonic() - began
        tally = counted(lab.tally(f"{_OLD_MAILS} e-mails at the first start", 1))
        flags = mail.flags(_COURSE)
    assert tally == Tally(tally.fault, 1, len(texts), len(texts), len(texts), 0)
    assert sum(r"\Seen" in one for one in flags) == len(texts)
    assert len(flags) == _OLD_MAILS
    assert seconds < 90
