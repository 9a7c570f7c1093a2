"""Questions by e-mail from a real Dovecot."""

import email.utils
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError

from core.settings import Settings
from core.users import UserRepository, create_user_engine
from tests.faults.laboratory import Laboratory, laboratory
from tests.journeys.department import eventually
from tests.servers import MailServer

COURSE = "consultas@uni.test"
ANA = "ana@uni.test"


@contextmanager
def mailed_course(
    folder: Path, index: Path, mail: MailServer, *, imap_port: int = 0, **environment: str
) -> Iterator[Laboratory]:
    """API and worker running, and Ana registered with a confirmed address."""
    with mail.mailbox(COURSE) as client:
        client.uid("STORE", "1:*", "+FLAGS", r"(\Deleted)")
        client.expunge()
    settings = {
        "IMAP_SERVER": mail.host,
        "IMAP_PORT": str(imap_port or mail.imaps_port),
        "IMAP_TLS": "tls",
        "IMAP_USERNAME": COURSE,
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
        assert users.confirm(ana.id, ANA)
        engine.dispose()
        yield lab


def question(text: str, subject: str = "CONSULTA") -> EmailMessage:
    message = EmailMessage()
    message["From"] = ANA
    message["To"] = COURSE
    message["Subject"] = subject
    message["Date"] = email.utils.localtime()
    message["Message-ID"] = email.utils.make_msgid(domain="uni.test")
    message.set_content(text)
    return message


def append(mail: MailServer, *messages: EmailMessage) -> None:
    with mail.mailbox(COURSE) as client:
        for message in messages:
            kind, answer = client.append("INBOX", "", "", message.as_bytes(policy=SMTP_POLICY))
            assert kind == "OK", answer


def wait_until_accepted(lab: Laboratory, texts: Sequence[str], seconds: float = 180) -> None:
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


def ask_by_mail(lab: Laboratory, mail: MailServer) -> None:
    """Put a question into the mailbox, and return when it is stored."""
    text = f"¿Qué es un diodo? {uuid.uuid4().hex}"
    append(mail, question(text))
    wait_until_accepted(lab, [text])
