"""One account's way to the mail server: a message in, an acceptance or a classified error out."""

import contextlib
import ipaddress
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Literal, Self

from aiosmtplib import SMTP, SMTPException, SMTPResponseException, SMTPSenderRefused
from aiosmtplib.email import flatten_message

from core.settings import Settings
from mailer.addresses import envelope_address
from mailer.errors import ServerError, TemporaryError, UndeliverableError
from mailer.text import one_line

CONNECT_SECONDS = 60.0
"""For the connection, the greeting and TLS; some servers let strangers wait for the greeting."""

COMMAND_SECONDS = 300.0
"""For each command before the message, as RFC 5321, 4.5.3.2 asks."""

GOODBYE_SECONDS = 1.0
"""For the reply to QUIT: the message's fate is known by then."""

IMPLICIT_TLS_PORT = 465
REASON_LIMIT = 500

_SERVICE_CLOSING = 421
_TOO_LARGE = 552
_LOGIN_CODES = (530, 534, 535, 538)


@dataclass(frozen=True, slots=True)
class Account:
    """An account on a mail server. Without a password nobody logs in.

    ``password_key`` is the password's name in ``passwords.json``, for people.
    """

    server: str
    port: int
    username: str
    password: str = field(repr=False)
    password_key: str
    tls: Literal["auto", "starttls", "tls", "none"] = "auto"
    answer_seconds: float = 600.0
    """How long the server may take to accept a whole message: less makes duplicates."""

    @classmethod
    def for_answers(cls, settings: Settings) -> Self:
        """The account that sends the answers."""
        return cls._from_settings(settings, settings.smtp_username or "", "smtp_password")

    @classmethod
    def for_account_mails(cls, settings: Settings) -> Self:
        """The account that sends temporary passwords: the answers' own if there is no other."""
        if settings.recovery_smtp_username is None:
            return cls.for_answers(settings)
        return cls._from_settings(settings, settings.recovery_smtp_username, "forgot_password")

    @classmethod
    def _from_settings(
        cls,
        settings: Settings,
        username: str,
        password_key: Literal["smtp_password", "forgot_password"],
    ) -> Self:
        password = getattr(settings.passwords, password_key)
        return cls(
            server=settings.smtp_server or "",
            port=settings.smtp_port,
            username=username,
            password=password.get_secret_value() if password else "",
            password_key=password_key,
            tls=settings.smtp_tls,
            answer_seconds=settings.smtp_timeout,
        )


class Sender:
    """Sends through one account, with a connection of its own for each message."""

    def __init__(self, account: Account, *, tls_context: ssl.SSLContext | None = None) -> None:
        self._account = account
        # The default context verifies the server's certificate and name.
        self._tls_context = tls_context or ssl.create_default_context()

    async def check(self) -> None:
        """Return when the server is there, lets the account in and takes it as a sender.

        Raises:
            ServerError: it is away, or it does not.
        """
        client = await self._connect()
        try:
            await self._introduce(client)
        finally:
            await _quit(client)

    async def send(self, message: EmailMessage, to: str) -> str:
        """Send ``message`` to one address; returns what the server said when it accepted it.

        Raises:
            UndeliverableError: the address or the message is refused for good.
            TemporaryError: this message was not accepted this time; if the connection broke after
                the message was whole, it may have been.
            ServerError: nothing can be sent through the account now.
        """
        recipient = envelope_address(to)
        client = await self._connect()
        try:
            return await self._transfer(client, message, recipient)
        finally:
            await _quit(client)

    async def _connect(self) -> SMTP:
        account = self._account
        is_implicit = account.tls == "tls" or (
            account.tls == "auto" and account.port == IMPLICIT_TLS_PORT
        )
        start_tls = {"auto": None, "starttls": True, "tls": False, "none": False}[account.tls]
        client = SMTP(
            hostname=account.server,
            port=account.port,
            use_tls=is_implicit,
            start_tls=False if is_implicit else start_tls,
            tls_context=self._tls_context,
            timeout=CONNECT_SECONDS,
        )
        try:
            await client.connect()
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
            await self._log_in(client)
        except (SMTPException, OSError, ValueError) as error:
            client.close()
            raise ServerError(
                f"The mail server {account.server}:{account.port} cannot be used: {_reply(error)}"
            ) from error
        except BaseException:
            client.close()
            raise
        client.timeout = min(COMMAND_SECONDS, account.answer_seconds)
        return client

    async def _log_in(self, client: SMTP) -> None:
        account = self._account
        if not account.password:
            return
        is_encrypted = client.get_transport_info("sslcontext") is not None
        if not is_encrypted and account.tls != "none" and not _is_loopback(account.server):
            raise SMTPException(
                "it offers no encryption, and the password is not sent in the clear; "
                "SMTP_TLS=none would allow it"
            )
        try:
            await client.login(account.username, account.password)
        except SMTPResponseException as error:
            raise SMTPException(
                f"it does not accept the login of {account.username} ({_reply(error)}); "
                f"check {account.password_key} in passwords.json"
            ) from error

    async def _transfer(self, client: SMTP, message: EmailMessage, recipient: str) -> str:
        needs_utf8 = not recipient.isascii()
        if needs_utf8 and not client.supports_extension("smtputf8"):
            raise UndeliverableError(
                "The mail server takes no addresses with letters beyond ASCII (SMTPUTF8)."
            )
        content = flatten_message(message, utf8=needs_utf8, cte_type="7bit")
        options = ["SMTPUTF8"] if needs_utf8 else []
        if client.supports_extension("size"):
            options.append(f"SIZE={len(content)}")
        await self._introduce(client, options)
        with _classifying(ServerError):
            await client.rcpt(recipient, encoding="utf-8" if needs_utf8 else "ascii")
        with _classifying(TemporaryError):
            answer = await client.data(content, timeout=self._account.answer_seconds)
        return one_line(answer.message, REASON_LIMIT)

    async def _introduce(self, client: SMTP, options: Sequence[str] = ()) -> None:
        with _classifying(ServerError):
            await client.mail(envelope_address(self._account.username), options=options)


@contextlib.contextmanager
def _classifying(broken: type[ServerError] | type[TemporaryError]) -> Iterator[None]:
    """Turn the server's refusals into ours; ``broken`` stands for a lost or silent connection."""
    try:
        yield
    except SMTPResponseException as error:
        raise _classified(error) from error
    except (SMTPException, OSError) as error:
        raise broken(f"The connection to the mail server broke: {_reply(error)}") from error


def _classified(error: SMTPResponseException) -> ServerError | TemporaryError | UndeliverableError:
    reason = _reply(error)
    is_final = 500 <= error.code < 600
    if error.code == _SERVICE_CLOSING:
        return ServerError(f"The mail server closed the connection: {reason}")
    if isinstance(error, SMTPSenderRefused) and error.code != _TOO_LARGE:
        if is_final:
            return ServerError(f"The mail server refuses SMTP_USERNAME as the sender: {reason}")
        return ServerError(f"The mail server takes no mail now: {reason}")
    if is_final and (error.code in _LOGIN_CODES or "relay" in error.message.lower()):
        return ServerError(f"The mail server wants a login first: {reason}")
    return UndeliverableError(reason) if is_final else TemporaryError(reason)


def _reply(error: Exception) -> str:
    if isinstance(error, SMTPResponseException):
        return one_line(f"{error.code} {error.message}", REASON_LIMIT)
    return one_line(str(error) or type(error).__name__, REASON_LIMIT)


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server).is_loopback
    except ValueError:
        return server == "localhost"


async def _quit(client: SMTP) -> None:
    try:
        if client.is_connected:
            await client.quit(timeout=GOODBYE_SECONDS)
    except (SMTPException, OSError):
        pass
    finally:
        client.close()
