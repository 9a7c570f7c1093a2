"""The mailer's sender and a mail client, over the mail server that an institution has."""

import asyncio
import imaplib
from collections.abc import Iterator
from dataclasses import replace
from email.message import EmailMessage

import pytest

from mailer.errors import ServerError, UndeliverableError
from mailer.sender import Account, Sender
from tests.servers import MailServer, mail_server

COURSE = "consultas@uni.test"
STUDENT = "ana@uni.test"


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with mail_server({COURSE: "c0rreo del curso", STUDENT: "contraseña"}) as server:
        yield server


@pytest.fixture
def account(mail: MailServer) -> Account:
    return Account(
        server=mail.host,
        port=mail.submission_port,
        username=COURSE,
        password=mail.accounts[COURSE],
        password_key="smtp_password",
        tls="starttls",
    )


def message(subject: str, to: str = STUDENT) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = f"Señales y Sistemas <{COURSE}>"
    mail["To"] = to
    mail["Subject"] = subject
    mail["Message-ID"] = f"<{subject.encode().hex()}@uni.test>"
    mail.set_content("Línea\n.\n..dos puntos\n" + "ñ" * 2000 + "\n🙂\n")
    return mail


async def arrived(mail: MailServer, address: str, subject: str) -> EmailMessage:
    """The mail with this subject, as soon as it is in the INBOX."""
    async with asyncio.timeout(20):
        while True:
            for received in await asyncio.to_thread(mail.messages, address):
                if received["Subject"] == subject:
                    return received
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("tls", ["starttls", "auto", "tls"])
async def test_answer_goes_out_with_login_and_is_read_back_by_imap(
    mail: MailServer, account: Account, tls: str
) -> None:
    if tls == "tls":
        account = replace(account, port=mail.submissions_port)
    sender = Sender(replace(account, tls=tls), tls_context=mail.tls_context)
    await sender.check()
    sent = message(f"¿Señal? 🙂 {tls}")
    await sender.send(sent, STUDENT)
    received = await arrived(mail, STUDENT, sent["Subject"])
    assert received.get_content() == sent.get_content()
    assert received["Message-ID"] == sent["Message-ID"]
    assert received["Return-Path"] == f"<{COURSE}>"
    assert "ESMTPSA" in received["Received"], "neither encrypted nor logged in"


async def test_wrong_password_is_the_servers_fault(mail: MailServer, account: Account) -> None:
    sender = Sender(replace(account, password="wrong"), tls_context=mail.tls_context)
    with pytest.raises(ServerError, match=r"535 .*check smtp_password in passwords\.json"):
        await sender.send(message("wrong password"), STUDENT)


async def test_unknown_recipient_is_undeliverable(mail: MailServer, account: Account) -> None:
    sender = Sender(account, tls_context=mail.tls_context)
    with pytest.raises(UndeliverableError, match=r"550 5\.1\.1 .*nadie@uni\.test"):
        await sender.send(message("unknown", "nadie@uni.test"), "nadie@uni.test")


async def test_relaying_without_a_login_is_the_servers_fault(
    mail: MailServer, account: Account
) -> None:
    outside = replace(account, port=mail.smtp_port, password="")
    with pytest.raises(ServerError, match=r"Relay access denied"):
        await Sender(outside, tls_context=mail.tls_context).send(message("relay"), "x@other.test")


async def test_certificate_that_nobody_vouches_for_is_the_servers_fault(account: Account) -> None:
    with pytest.raises(ServerError, match="certificate verify failed"):
        await Sender(account).check()


async def test_address_that_does_not_exist_elsewhere_comes_back_as_a_report(
    mail: MailServer, account: Account
) -> None:
    sender = Sender(account, tls_context=mail.tls_context)
    await sender.send(message("bounce", "x@other.test"), "x@other.test")
    report = await arrived(mail, COURSE, "Undelivered Mail Returned to Sender")
    assert report.get_content_type() == "multipart/report"
    assert report["Return-Path"] == "<>"
    statuses = [part for part in report.walk() if part.get_content_type().endswith("status")]
    assert "5.1.2" in str(statuses[0])


def test_imap_takes_a_login_after_starttls_and_refuses_a_wrong_one(mail: MailServer) -> None:
    with imaplib.IMAP4(mail.host, mail.imap_port, timeout=20) as client:
        client.starttls(mail.tls_context)
        with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
            client.login(COURSE, "wrong")
        client.login(COURSE, mail.accounts[COURSE])
        assert b"IDLE" in client.capability()[1][0]


def test_mailboxes_survive_a_restart_and_are_numbered_anew_on_request(mail: MailServer) -> None:
    mail.deliver(message("kept", COURSE), COURSE, sender=STUDENT)
    kept = len(mail.messages(COURSE, at_least=1))
    with mail.mailbox(COURSE) as client:
        client.store("1", "+FLAGS", r"(\Seen)")
    before = mail.uidvalidity(COURSE)
    mail.imap.stop()
    with pytest.raises(OSError, match="refused"):
        mail.messages(COURSE)
    mail.imap.start()
    assert mail.uidvalidity(COURSE) == before
    mail.change_uidvalidity(COURSE)
    assert mail.uidvalidity(COURSE) > before
    assert len(mail.messages(COURSE)) == kept
    assert r"\Seen" in mail.flags(COURSE)[0]
