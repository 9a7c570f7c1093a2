"""One folder of an IMAP server, as the inbox reads it.

Every method of :class:`Folder` blocks: call them from a thread, one at a time.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from imapclient import SEEN, IMAPClient, SocketTimeout
from imapclient.exceptions import IMAPClientAbortError, IMAPClientError, LoginError

from core.settings import Settings
from mailer.text import one_line

CONNECT_SECONDS = 15.0
READ_SECONDS = 60.0

IDLE_SECONDS = 60.0
"""How long one IDLE lasts. Servers end it after 30 minutes; a dead connection is noticed
this soon."""

IMPLICIT_TLS_PORT = 993

HEADER_BYTES = 100_000
"""What is read of a header."""

HEADER_BATCH = 50

_TICK = 0.25
"""Seconds between two looks at whether to stop."""


class MailboxError(Exception):
    """The mailbox cannot be read now; the message says why, in one line for staff."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Where questions arrive."""

    server: str
    port: int
    username: str
    password: str = field(repr=False)
    folder: str = "INBOX"
    tls: Literal["auto", "starttls", "tls", "none"] = "auto"

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The mailbox that the settings name."""
        return cls(
            server=settings.imap_server or "",
            port=settings.imap_port,
            username=settings.imap_username or "",
            password=settings.passwords.imap_password.get_secret_value(),
            folder=settings.imap_folder,
            tls=settings.imap_tls,
        )

    @property
    def name(self) -> str:
        """Under which its position is kept."""
        return f"{self.username}@{self.server}/{self.folder}"


@dataclass(frozen=True, slots=True)
class Header:
    """An e-mail's header, and the size of the whole of it in bytes."""

    uid: int
    size: int
    content: bytes = field(repr=False)


class Folder:
    """A connection with the folder selected.

    Raises:
        MailboxError: from every method, when the connection is of no more use.
    """

    def __init__(self, mailbox: Mailbox, tls_context: ssl.SSLContext | None = None) -> None:
        self._mailbox = mailbox
        # The default context verifies the server's certificate and name.
        self._tls_context = tls_context or ssl.create_default_context()
        self._client: IMAPClient | None = None
        self._stop = threading.Event()
        self.uidvalidity = 0

    def open(self) -> None:
        """Connect, log in and select the folder."""
        mailbox = self._mailbox
        is_implicit = mailbox.tls == "tls" or (
            mailbox.tls == "auto" and mailbox.port == IMPLICIT_TLS_PORT
        )
        with self._complaining(f"The mail server {mailbox.server}:{mailbox.port} cannot be used"):
            self._client = client = IMAPClient(
                mailbox.server,
                mailbox.port,
                ssl=is_implicit,
                ssl_context=self._tls_context,
                timeout=SocketTimeout(CONNECT_SECONDS, READ_SECONDS),
            )
            if not is_implicit and mailbox.tls != "none":
                if not client.has_capability("STARTTLS"):
                    raise MailboxError(
                        f"The mail server {mailbox.server}:{mailbox.port} offers no encryption, "
                        "and the password is not sent in the clear; IMAP_TLS=none would allow it."
                    )
                client.starttls(self._tls_context)
        self._log_in(client)
        with self._complaining(f"The folder {mailbox.folder!r} (IMAP_FOLDER) cannot be opened"):
            selected = client.select_folder(mailbox.folder)
            self.uidvalidity = int(selected[b"UIDVALIDITY"])

    def _log_in(self, client: IMAPClient) -> None:
        mailbox = self._mailbox
        try:
            with self._complaining("The mail server broke off the login"):
                if (mailbox.username + mailbox.password).isascii():
                    client.login(mailbox.username, mailbox.password)
                else:
                    client.plain_login(mailbox.username, mailbox.password)
        except MailboxError as error:
            if isinstance(error.__cause__, LoginError):
                raise MailboxError(
                    f"The mail server {mailbox.server} does not accept the login of "
                    f"{mailbox.username} ({_words(error.__cause__)}); "
                    "check imap_password in passwords.json."
                ) from error.__cause__
            raise

    def close(self) -> None:
        """End the connection, without waiting for the server."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(IMAPClientError, OSError):
                client.shutdown()

    def stop_waiting(self) -> None:
        """From another thread: let :meth:`wait` return soon."""
        self._stop.set()

    def abort(self) -> None:
        """From another thread: end what is going on, soon and with an error."""
        self._stop.set()
        client = self._client
        if client is not None:
            with contextlib.suppress(OSError, AttributeError):
                client.socket().shutdown(socket.SHUT_RDWR)

    def last_uid(self) -> int:
        """The highest UID in the folder, 0 when it is empty."""
        return max(self._search("ALL"), default=0)

    def unseen(self, after: int, until: int) -> list[int]:
        """UIDs of the mails that nobody has opened, in order."""
        return [uid for uid in self._search("UNSEEN", after) if after < uid <= until]

    def newer(self, after: int) -> list[int]:
        """UIDs of all mails above ``after``, in order."""
        # The server gives the last mail even where its UID is lower.
        return [uid for uid in self._search("ALL", after) if uid > after]

    def _search(self, which: str, after: int = 0) -> list[int]:
        with self._complaining("The folder cannot be searched"):
            return sorted(self._open_client().search(["UID", f"{after + 1}:*", which]))

    def headers(self, uids: list[int]) -> list[Header]:
        """Headers of the mails that are still there, in order."""
        if not uids:
            return []
        with self._complaining("The mails cannot be fetched"):
            answer = self._open_client().fetch(
                uids, ["RFC822.SIZE", f"BODY.PEEK[HEADER]<0.{HEADER_BYTES}>"]
            )
        return [
            Header(uid, int(found.get(b"RFC822.SIZE", 0)), _content(found, b"BODY[HEADER]"))
            for uid in uids
            if (found := answer.get(uid)) is not None
        ]

    def content(self, uid: int, limit: int, start: int = 0) -> bytes | None:
        """At most ``limit`` bytes of a mail, from ``start`` on; None when it is gone."""
        with self._complaining("A mail cannot be fetched"):
            answer = self._open_client().fetch([uid], [f"BODY.PEEK[]<{start}.{limit}>"])
        return _content(answer[uid], b"BODY[]", start) if uid in answer else None

    def mark_seen(self, uid: int) -> None:
        """Mark a mail as read; where the server does not allow it, it stays unread."""
        with (
            self._complaining("A mail cannot be marked"),
            contextlib.suppress(_RefusedError),
            _refusals(),
        ):
            self._open_client().add_flags([uid], [SEEN], silent=True)

    def wait(self, poll_seconds: float) -> None:
        """Wait for news: by IDLE where the server can, else for ``poll_seconds``."""
        client = self._open_client()
        with self._complaining("The connection broke"):
            if not client.has_capability("IDLE"):
                self._stop.wait(poll_seconds)
                client.noop()
                return
            # What came since the last search was said with its answer, or is said now, and not
            # again once IDLE has begun. imapclient itself does not show the former.
            told = client._imap.response("EXISTS")[1] != [None]
            if _has_mail(client.noop()[1]) or told:
                return
            client.idle()
            until = time.monotonic() + IDLE_SECONDS
            empty = 0
            while not self._stop.is_set() and time.monotonic() < until:
                started = time.monotonic()
                news = client.idle_check(timeout=_TICK)
                # The library takes a closed connection for one with nothing to say.
                empty = 0 if news or time.monotonic() - started > _TICK / 2 else empty + 1
                if empty > 3 or any(line[:1] == (b"BYE",) for line in news):
                    raise MailboxError("The mail server closed the connection.")
                if _has_mail(news):
                    break
            client.idle_done()

    def _open_client(self) -> IMAPClient:
        if self._client is None:
            raise MailboxError("There is no connection.")
        return self._client

    @contextlib.contextmanager
    def _complaining(self, what: str) -> Iterator[None]:
        try:
            yield
        except (IMAPClientError, OSError, KeyError, ValueError, AssertionError) as error:
            # Assertions are how the library finds nonsense in what a server says.
            raise MailboxError(f"{what}: {_words(error)}.") from error


class _RefusedError(Exception):
    """The server said no, and the connection goes on."""


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except IMAPClientAbortError:
        raise
    except IMAPClientError as error:
        raise _RefusedError from error


def _content(answer: dict[bytes, Any], name: bytes, start: int = 0) -> bytes:
    # A part of a body comes back under its name with the offset behind it.
    for key in (name + b"<%d>" % start, name):
        if key in answer:
            return bytes(answer[key] or b"")
    return b""


def _has_mail(news: list[Any]) -> bool:
    return any(isinstance(line, tuple) and b"EXISTS" in line for line in news)


def _words(error: BaseException) -> str:
    text = str(error)
    if text.startswith("b'") and text.endswith("'"):
        text = text[2:-1]
    return one_line(text or type(error).__name__, 300).rstrip(".")
