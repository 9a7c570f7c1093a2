"""What the mail server answers decides what becomes of an e-mail."""

import asyncio
import contextlib
import time
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path

import pytest

from mailer.errors import DeliveryError, ServerError, TemporaryError, UndeliverableError
from mailer.sender import Account, Sender
from tests.integration.mail_servers import DROP, Script, smtp_server
from tests.servers import free_port
from tests.servers.certificates import certificate

ACCOUNT = Account(
    server="127.0.0.1",
    port=0,
    username="consultas@uni.example",
    password="",
    password_key="smtp_password",
    answer_seconds=5,
)


def message(to: str = "ana@uni.example") -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = ACCOUNT.username
    mail["To"] = to
    mail["Subject"] = "¿Señal?"
    mail.set_content("Línea\n.\n..dos puntos\n" + "ñ" * 2000)
    return mail


async def test_accepted_message_arrives_as_it_was() -> None:
    script = Script()
    async with smtp_server(script) as port:
        reply = await Sender(replace(ACCOUNT, port=port)).send(message(), "ana@uni.example")
    assert reply == "2.0.0 OK"
    assert script.received[0].mail_from == "consultas@uni.example"
    assert script.received[0].rcpt_tos == ["ana@uni.example"]
    assert script.messages()[0]["Subject"] == "¿Señal?"
    assert script.messages()[0].get_content() == message().get_content()
    assert b"\xc3" not in script.received[0].content


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (Script(rcpt=["450 4.2.0 greylisted, come back"]), TemporaryError),
        (Script(rcpt=["452 4.2.2 mailbox full"]), TemporaryError),
        (Script(data=["451 4.3.0 try later"]), TemporaryError),
        (Script(data=[DROP]), TemporaryError),
        (Script(seconds=60), TemporaryError),
        (Script(rcpt=["550 5.1.1 user unknown"]), UndeliverableError),
        (Script(data=["554 5.6.0 refused content"]), UndeliverableError),
        (Script(mail=["552 5.3.4 too large"]), UndeliverableError),
        (Script(mail=["421 4.3.2 going down"]), ServerError),
        (Script(rcpt=["421 4.7.0 too many connections"]), ServerError),
        (Script(data=["421 4.3.2 going down"]), ServerError),
        (Script(mail=[DROP]), ServerError),
        (Script(rcpt=[DROP]), ServerError),
        (Script(mail=["553 5.7.1 sender not owned by user"]), ServerError),
        (Script(mail=["530 5.7.0 authentication required"]), ServerError),
        (Script(rcpt=["554 5.7.1 relay access denied"]), ServerError),
    ],
)
async def test_refusals_are_told_apart(script: Script, expected: type[DeliveryError]) -> None:
    replies = [reply for reply in (*script.mail, *script.rcpt, *script.data) if reply != DROP]
    async with smtp_server(script) as port:
        sender = Sender(replace(ACCOUNT, port=port, answer_seconds=0.5))
        with pytest.raises(DeliveryError) as caught:
            await sender.send(message(), "ana@uni.example")
    assert type(caught.value) is expected
    for reply in replies:
        assert reply in str(caught.value)


async def test_servers_own_words_are_the_reason() -> None:
    script = Script(rcpt=["550 5.1.1 <ana@uni.example>: user unknown"])
    async with smtp_server(script) as port:
        with pytest.raises(UndeliverableError) as caught:
            await Sender(replace(ACCOUNT, port=port)).send(message(), "ana@uni.example")
    assert str(caught.value) == "550 5.1.1 <ana@uni.example>: user unknown"


async def test_slow_server_is_waited_for() -> None:
    script = Script(seconds=1.5)
    async with smtp_server(script) as port:
        await Sender(replace(ACCOUNT, port=port)).send(message(), "ana@uni.example")
    assert len(script.received) == 1


async def test_server_that_is_away_is_the_servers_fault() -> None:
    sender = Sender(replace(ACCOUNT, port=free_port()))
    with pytest.raises(ServerError, match=r"127\.0\.0\.1"):
        await sender.send(message(), "ana@uni.example")
    with pytest.raises(ServerError):
        await sender.check()


@pytest.mark.parametrize(
    "greeting", [b"554 no service\r\n", b"HTTP/1.1 400\r\n", b"\xff" * 99, b""]
)
async def test_what_does_not_speak_smtp_is_the_servers_fault(greeting: bytes) -> None:
    async def speak(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            writer.write(greeting)
            await writer.drain()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ServerError):
            await Sender(replace(ACCOUNT, port=port)).send(message(), "ana@uni.example")


@pytest.mark.parametrize(
    "address",
    [
        '"ana perez"@uni.example',
        "ana@uni.example>\r\nRCPT TO:<x@evil.example",
        "ana\x00@uni.example",
        "no address",
    ],
)
async def test_address_that_is_not_plain_never_reaches_the_server(address: str) -> None:
    script = Script()
    async with smtp_server(script) as port:
        with pytest.raises(UndeliverableError):
            await Sender(replace(ACCOUNT, port=port)).send(message(), address)
    assert script.received == []


async def test_letters_beyond_ascii_in_the_domain_need_nothing_of_the_server() -> None:
    script = Script()
    async with smtp_server(script, offers=()) as port:
        await Sender(replace(ACCOUNT, port=port)).send(message(), "ana@año.example")
    assert script.received[0].rcpt_tos == ["ana@xn--ao-zja.example"]


async def test_smtputf8_is_used_only_where_the_address_needs_it() -> None:
    script = Script()
    async with smtp_server(script) as port:
        sender = Sender(replace(ACCOUNT, port=port))
        await sender.send(message(), "ana@uni.example")
        await sender.send(message("añá@uni.example"), "añá@uni.example")
    assert [envelope.smtp_utf8 for envelope in script.received] == [False, True]
    assert script.received[1].rcpt_tos == ["añá@uni.example"]


async def test_address_that_needs_smtputf8_is_refused_where_it_is_not_offered() -> None:
    script = Script()
    async with smtp_server(script, offers=()) as port:
        with pytest.raises(UndeliverableError, match="SMTPUTF8"):
            await Sender(replace(ACCOUNT, port=port)).send(message(), "añá@uni.example")


async def test_login_uses_the_accounts_password() -> None:
    script = Script()
    async with smtp_server(script, password="s3cret") as port:
        await Sender(replace(ACCOUNT, port=port, password="s3cret")).send(message(), "a@b.example")
    assert script.logins == [("consultas@uni.example", "s3cret")]


async def test_wrong_password_names_the_key_to_check_and_not_the_password() -> None:
    script = Script()
    async with smtp_server(script, password="s3cret") as port:
        sender = Sender(replace(ACCOUNT, port=port, password="wr0ng"))
        with pytest.raises(ServerError, match=r"535.*check smtp_password in passwords\.json") as e:
            await sender.send(message(), "ana@uni.example")
    assert "wr0ng" not in str(e.value)
    assert "wr0ng" not in repr(replace(ACCOUNT, password="wr0ng"))


async def test_password_is_not_sent_in_the_clear_over_a_network() -> None:
    script = Script()
    async with smtp_server(script, password="s3cret") as port:
        # An address that leads here and does not say so.
        account = replace(ACCOUNT, server="0.0.0.0", port=port, password="s3cret")
        with pytest.raises(ServerError, match="SMTP_TLS=none"):
            await Sender(account).check()
        assert script.logins == []
        await Sender(replace(account, tls="none")).check()
    assert len(script.logins) == 1


async def test_starttls_is_used_where_it_is_offered(tmp_path: Path) -> None:
    server, client = certificate(tmp_path)
    script = Script()
    async with smtp_server(script, tls=server, password="s3cret") as port:
        for mode in ("auto", "starttls"):
            account = replace(ACCOUNT, port=port, password="s3cret", tls=mode)  # type: ignore[arg-type]
            await Sender(account, tls_context=client).send(message(), "ana@uni.example")
    assert len(script.received) == 2


async def test_implicit_tls(tmp_path: Path) -> None:
    server, client = certificate(tmp_path)
    script = Script()
    async with smtp_server(script, tls=server, is_implicit_tls=True) as port:
        account = replace(ACCOUNT, port=port, tls="tls")
        await Sender(account, tls_context=client).send(message(), "ana@uni.example")
    assert len(script.received) == 1


async def test_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    server, _ = certificate(tmp_path)
    script = Script()
    async with smtp_server(script, tls=server, password="s3cret") as port:
        with pytest.raises(ServerError, match="certificate"):
            await Sender(replace(ACCOUNT, port=port, password="s3cret")).send(
                message(), "ana@uni.example"
            )
    assert script.logins == []


async def test_required_starttls_that_is_not_offered_is_the_servers_fault() -> None:
    script = Script()
    async with smtp_server(script) as port:
        with pytest.raises(ServerError, match="STARTTLS"):
            await Sender(replace(ACCOUNT, port=port, tls="starttls")).check()
    assert script.received == []


async def test_server_that_never_says_goodbye_does_not_hold_up_an_accepted_message() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            writer.write(b"220 hello\r\n")
            is_data = False
            while line := await reader.readline():
                if is_data:
                    is_data = line != b".\r\n"
                    reply = b"" if is_data else b"250 OK\r\n"
                elif line.startswith(b"DATA"):
                    is_data, reply = True, b"354 go\r\n"
                else:
                    reply = b"" if line.startswith(b"QUIT") else b"250 OK\r\n"
                writer.write(reply)

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        start = time.monotonic()
        reply = await Sender(replace(ACCOUNT, port=port)).send(message(), "ana@uni.example")
    assert reply == "OK"
    assert time.monotonic() - start < 4
