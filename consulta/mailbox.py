"""A mailbox catcher: an SMTP server that delivers nothing, and a page to read what it was given.

For one machine and for trying things out. It listens on the loopback interface alone, keeps the
e-mails as a Maildir, takes any login, and shows each as a mail program would, without running or
fetching anything that is in it.
"""

import asyncio
import base64
import contextlib
import email
import mailbox
import re
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.header import decode_header
from email.message import Message
from email.parser import BytesHeaderParser
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import structlog
import uvicorn
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from core.worker import stop_on_signals

HOST = "127.0.0.1"
LIST_LIMIT = 200
"""How many e-mails the list shows, the newest."""

SIZE_LIMIT = 25 * 1024 * 1024
"""Largest e-mail that is taken, in bytes."""

_HEADER_BYTES = 64 * 1024
_IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
_CONTENT_ID = re.compile(r"""cid:([^\s"'<>)]{1,200})""", re.I)
_NOT_SHOWN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_VIEWS = ("html", "text", "source")

# The frame around an e-mail: nothing but our own style, our one script and our own frame.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
# The e-mail itself: its style and its own images; no script, nothing from elsewhere. Its links open
# pages of their own, for those pages refuse to be framed.
_MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'self'; "
    "sandbox allow-popups allow-popups-to-escape-sandbox"
)
_HEAD = re.compile(r"<head\b[^>]*>", re.I)
_IN_NEW_PAGES = '<base target="_blank">'

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the list. ``received`` is in UTC, ISO 8601."""

    key: str
    sender: str
    recipients: str
    subject: str
    received: str


class Maildir:
    """The e-mails on disk: written once, whole and synced, and never changed."""

    def __init__(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._maildir = mailbox.Maildir(folder)
        self._lock = threading.Lock()
        self._summaries: dict[str, Summary] = {}

    def deliver(self, content: bytes, sender: str, recipients: list[str]) -> None:
        """Store an e-mail with its envelope.

        Raises:
            OSError: it is not stored.
        """
        envelope = f"X-Envelope-From: {sender}\nX-Envelope-To: {', '.join(recipients)}\n"
        data = envelope.encode("utf-8", "surrogateescape") + content.replace(b"\r\n", b"\n")
        # The names of new files come from a counter that threads would share.
        with self._lock:
            self._maildir.add(data)

    def summaries(self, recipient: str = "") -> list[Summary]:
        """The newest e-mails whose envelope recipients contain ``recipient``, newest first."""
        known: dict[str, Summary] = {}
        for file, received in sorted(self._files(), key=lambda item: item[1], reverse=True):
            # Somebody may empty the folder meanwhile.
            with contextlib.suppress(FileNotFoundError):
                known[file.name] = self._summaries.get(file.name) or _summary(file, received)
        self._summaries = known
        wanted = recipient.strip().casefold()
        return [entry for entry in known.values() if wanted in entry.recipients.casefold()][
            :LIST_LIMIT
        ]

    def read(self, key: str) -> bytes | None:
        """An e-mail as it is stored; None when there is none of this key."""
        for file, _ in self._files():
            if file.name == key:
                return file.read_bytes()
        return None

    def _files(self) -> Iterator[tuple[Path, int]]:
        for name in ("new", "cur"):
            for file in (self._folder / name).iterdir():
                try:
                    received = file.stat().st_mtime_ns
                except FileNotFoundError:
                    continue
                yield file, received


def _summary(file: Path, received: int) -> Summary:
    with file.open("rb") as stream:
        head = BytesHeaderParser().parsebytes(stream.read(_HEADER_BYTES))
    return Summary(
        key=file.name,
        sender=_header(head, "From") or _header(head, "X-Envelope-From"),
        recipients=_header(head, "X-Envelope-To") or _header(head, "To"),
        subject=_header(head, "Subject"),
        received=datetime.fromtimestamp(received / 1e9, UTC).isoformat(timespec="milliseconds"),
    )


@dataclass(frozen=True, slots=True)
class ParsedMail:
    """What a mail program shows of an e-mail; ``html`` has its own images inside."""

    headers: list[tuple[str, str]]
    text: str | None
    html: str | None
    source: str


def parse_mail(data: bytes) -> ParsedMail:
    """Read an e-mail, however broken it is."""
    message = email.message_from_bytes(data)
    texts: dict[str, str] = {}
    images: dict[str, str] = {}
    for part in message.walk():
        kind = part.get_content_type()
        if part.is_multipart():
            continue
        payload = part.get_payload(decode=True)
        content = payload if isinstance(payload, bytes) else b""
        content_id = str(part.get("Content-ID", "")).strip().strip("<>")
        if kind in _IMAGES and content_id:
            images[content_id] = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        elif kind in ("text/plain", "text/html") and part.get_content_disposition() != "attachment":
            texts.setdefault(kind, _decoded(content, part.get_content_charset()))
    html = texts.get("text/html")
    if html is not None:
        html = _CONTENT_ID.sub(
            lambda match: images.get(unquote(unescape(match[1])), "data:,"), html
        )
    names = ("From", "To", "Subject", "Date", "X-Envelope-To")
    return ParsedMail(
        headers=[(name, value) for name in names if (value := _header(message, name))],
        text=texts.get("text/plain"),
        html=html,
        source=_decoded(data, None),
    )


def _header(message: Message, name: str) -> str:
    value = message.get(name, "")
    if isinstance(value, str):
        # decode_header would drop the space at each fold.
        value = value.replace("\r", "").replace("\n", "")
    try:
        parts = decode_header(value)
    except (email.errors.MessageError, ValueError):
        parts = [(str(value), None)]
    text = "".join(
        _decoded(part, charset) if isinstance(part, bytes) else part for part, charset in parts
    )
    return " ".join(_NOT_SHOWN.sub("", text).encode("utf-8", "replace").decode().split())


def _decoded(data: bytes, charset: str | None) -> str:
    try:
        text = data.decode(charset or "utf-8", "replace")
    except (LookupError, ValueError):
        # No such character set, or one that is no text at all, such as "hex".
        text = data.decode("utf-8", "replace")
    return _NOT_SHOWN.sub("�", text).encode("utf-8", "replace").decode()


class _Handler:
    """What the SMTP server does with an e-mail."""

    def __init__(self, maildir: Maildir) -> None:
        self._maildir = maildir

    async def handle_DATA(  # noqa: N802 (the name that aiosmtpd calls)
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        try:
            await asyncio.to_thread(
                self._maildir.deliver, content, envelope.mail_from or "", envelope.rcpt_tos
            )
        except (OSError, mailbox.Error) as error:
            _log.error("an e-mail could not be stored", reason=str(error))
            return "451 4.3.0 The e-mail could not be stored"
        _log.info("an e-mail was stored", size=len(content))
        return "250 2.0.0 Stored"


class _Pages:
    """The pages; every method is one route."""

    def __init__(self, maildir: Maildir) -> None:
        self._maildir = maildir
        self._templates = Environment(
            loader=PackageLoader("consulta", "templates/mailbox"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self.list),
                Route("/messages.json", self.list_json),
                Route("/messages/{key}", self.message),
                Route("/messages/{key}/html", self.html),
                Route("/messages/{key}/raw", self.raw),
            ],
            # A page elsewhere could give its own name our address and read the e-mails.
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
        )

    def list(self, request: Request) -> Response:
        recipient = request.query_params.get("to", "")
        entries = self._maildir.summaries(recipient)
        return self._page("list.html", entries=entries, recipient=recipient, limit=LIST_LIMIT)

    def list_json(self, request: Request) -> Response:
        entries = self._maildir.summaries(request.query_params.get("to", ""))
        return JSONResponse([asdict(entry) for entry in entries], headers=_headers())

    def message(self, request: Request) -> Response:
        mail = parse_mail(self._data(request))
        shown = [view for view in _VIEWS if getattr(mail, view) is not None]
        view = request.query_params.get("view", shown[0])
        return self._page(
            "message.html",
            key=request.path_params["key"],
            mail=mail,
            views=shown,
            view=view if view in shown else shown[0],
        )

    def html(self, request: Request) -> Response:
        mail = parse_mail(self._data(request))
        html, found = _HEAD.subn(lambda head: head[0] + _IN_NEW_PAGES, mail.html or "", count=1)
        return HTMLResponse(html if found else _IN_NEW_PAGES + html, headers=_headers(_MAIL_POLICY))

    def raw(self, request: Request) -> Response:
        return Response(
            self._data(request),
            media_type="message/rfc822",
            headers={**_headers(), "Content-Disposition": 'attachment; filename="message.eml"'},
        )

    def _data(self, request: Request) -> bytes:
        data = self._maildir.read(request.path_params["key"])
        if data is None:
            raise HTTPException(404, "There is no such e-mail.")
        return data

    def _page(self, template: str, **values: Any) -> Response:
        nonce = secrets.token_urlsafe(16)
        html = self._templates.get_template(template).render(nonce=nonce, **values)
        return HTMLResponse(html, headers=_headers(_PAGE_POLICY.format(nonce=nonce)))


def _headers(policy: str = "default-src 'none'") -> dict[str, str]:
    return {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


class _Server(uvicorn.Server):
    """Leaves the signals to us: uvicorn would raise them again and end with their code."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(maildir: Path, smtp_port: int, http_port: int, stop: asyncio.Event) -> None:
    """Take e-mails and show them until ``stop`` is set.

    Raises:
        OSError: a port is taken, or the folder cannot be written.
    """
    box = Maildir(maildir)
    handler = _Handler(box)
    loop = asyncio.get_running_loop()
    smtp = await loop.create_server(
        lambda: SMTP(
            handler,
            hostname="localhost",
            ident="mailbox catcher",
            data_size_limit=SIZE_LIMIT,
            enable_SMTPUTF8=True,
            authenticator=lambda *_: AuthResult(success=True),
            auth_require_tls=False,
            loop=loop,
        ),
        HOST,
        smtp_port,
    )
    try:
        with socket.create_server((HOST, http_port)) as http:
            config = uvicorn.Config(
                _Pages(box).app(),
                access_log=False,
                log_config=None,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=2,
            )
            server = _Server(config)
            serving = asyncio.create_task(server.serve(sockets=[http]))
            _log.info("the mailbox is open", smtp_port=smtp_port, http_port=http_port)
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            server.should_exit = True
            await serving
    finally:
        # Without waiting for it to be closed: that would wait for the clients.
        smtp.close()


def run(maildir: Path, smtp_port: int, http_port: int) -> None:
    """Take e-mails and show them until SIGTERM or SIGINT.

    Raises:
        OSError: a port is taken, or the folder cannot be written.
    """

    async def until_signalled() -> None:
        await serve(maildir, smtp_port, http_port, stop_on_signals())

    asyncio.run(until_signalled())
