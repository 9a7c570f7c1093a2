"""A real SMTP server that does as a script says."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

DROP = "drop"
"""In place of a reply: the server closes the connection."""


@dataclass
class Script:
    """The replies to come, in order; once they are used up everything is accepted.

    ``received`` are the messages whose last dot has arrived, accepted or not.
    """

    mail: list[str] = field(default_factory=list)
    rcpt: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """How long the server takes before it answers the last dot."""
    received: list[Envelope] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    got_message: asyncio.Event = field(default_factory=asyncio.Event)

    def messages(self) -> list[EmailMessage]:
        """The messages received, parsed."""
        parsed = []
        for envelope in self.received:
            assert isinstance(envelope.content, bytes)
            message = message_from_bytes(envelope.content, policy=default)
            assert isinstance(message, EmailMessage)
            parsed.append(message)
        return parsed

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, _session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return _next(self.mail, server)

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, _session: Any, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        reply = _next(self.rcpt, server)
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, _session: Any, envelope: Envelope
    ) -> str:
        self.received.append(envelope)
        self.got_message.set()
        await asyncio.sleep(self.seconds)
        return _next(self.data, server)


def _next(replies: list[str], server: SMTP) -> str:
    reply = replies.pop(0) if replies else "250 2.0.0 OK"
    if reply == DROP:
        assert isinstance(server.transport, asyncio.Transport)
        server.transport.abort()
    return reply


@contextlib.asynccontextmanager
async def smtp_server(
    script: Script,
    *,
    port: int = 0,
    password: str | None = None,
    tls: ssl.SSLContext | None = None,
    is_implicit_tls: bool = False,
    offers: Sequence[str] = ("SMTPUTF8",),
) -> AsyncIterator[int]:
    """Run the server on the loopback interface; gives its port.

    With ``password`` it wants a login; with ``tls`` it offers STARTTLS, or speaks TLS at once.
    """

    def authenticate(
        _server: SMTP, _session: Any, _envelope: Any, _mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        script.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=data.password.decode() == password, handled=False)

    connections: list[SMTP] = []

    def protocol() -> SMTP:
        connection = SMTP(
            script,
            hostname="localhost",
            enable_SMTPUTF8="SMTPUTF8" in offers,
            authenticator=authenticate if password else None,
            auth_require_tls=False,
            tls_context=None if is_implicit_tls else tls,
            loop=asyncio.get_running_loop(),
        )
        connections.append(connection)
        return connection

    server = await asyncio.get_running_loop().create_server(
        protocol, "127.0.0.1", port, ssl=tls if is_implicit_tls else None
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in connections:
            if isinstance(connection.transport, asyncio.Transport):
                connection.transport.abort()
        # The handlers notice it in the loop's next rounds.
        await asyncio.sleep(0.01)
