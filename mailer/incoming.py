"""E-mails that arrive, from bytes to what the inbox decides on. Nothing here raises.

The standard library's newer e-mail API raises on some malformed headers, so the old one reads them
and the few that matter are decoded here.
"""

import codecs
import contextlib
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from email.utils import getaddresses
from typing import cast

import structlog

from core.domains import ascii_domain
from mailer.bounces import Bounce, read_bounce
from mailer.html_text import html_to_text
from mailer.new_text import is_courtesy, new_text
from mailer.text import clean, one_line

_log = structlog.get_logger(__name__)

HEADER_LIMIT = 10_000
"""Characters of one header that are read."""

PART_LIMIT = 100
"""Parts of one e-mail; with more than these its text is not read."""

DEPTH_LIMIT = 20
BODY_LIMIT = 1_000_000
"""Bytes of one e-mail that are read from its start on."""

TAIL_LIMIT = 100_000
"""Bytes before its end that are read besides: telephones put text below a photograph as well."""

_CUT = b"=Consulta-has-not-read-what-stands-here="

REFERENCE_LIMIT = 20
"""The newest Message-IDs of a thread that are kept."""

_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")
_OWN_ID = re.compile(r"<(question|mail)-([0-9]{1,15})\.[0-9a-f]{16}@[^<>@\s]+>")
_COMMENT = re.compile(r"\((?:[^()\\]|\\.)*\)")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ROBOT = re.compile(
    r"(?:mailer-daemon|postmaster|(?:do[-_.]?)?not?[-_.]?(?:reply|responder|contestar|responda)"
    r"|donotreply|bounces?|listserv|majordomo)(?:[-_.+].*)?",
    re.I,
)
_ROBOT_HEADERS = (
    "x-loop",
    "x-auto-response-suppress",
    "x-autoreply",
    "x-autorespond",
    "x-failed-recipients",
)
_BULK = ("bulk", "list", "junk", "auto_reply")
_REPLY = re.compile(r"\s*(?:re|aw|sv|antw|rif)\s*(?:\[\d+\])?\s*:", re.I)
_REPLIES = re.compile(rf"(?:{_REPLY.pattern})+\s*", re.I)
# Of responders that say so nowhere else.
_AUTOMATIC = re.compile(
    r"\s*(?:respuesta autom[áa]tica|resposta autom[àa]tica|auto(?:matic)?[- ]?(?:reply|response)"
    r"|out of (?:the )?office|fuera de (?:la )?oficina|automatische antwort|r[ée]ponse automatique"
    r"|risposta automatica)(?: auto-?reply)?\s*(?::|\bre:)",
    re.I,
)
_FORWARD = re.compile(r"\s*(?:fwd?|rv|wg)\s*:", re.I)
_SINGLE_BYTE = ("iso8859-1", "iso8859-15", "cp1252", "latin-1", "ascii")
# Codecs that are no charsets: slow, or made for something else.
_NO_CHARSETS = ("idna", "punycode", "undefined", "raw-unicode-escape", "unicode-escape")
# Signatures that mail programs make, which are no attachments to whoever sends them.
_SIGNATURES = (
    *("application/pkcs7-signature", "application/x-pkcs7-signature"),
    *("application/pgp-signature", "application/pgp-keys"),
)
_WINDOWS_BYTES = "consulta.windows-bytes"
_HTML = re.compile(r"\s*(?:<!doctype html|<html\b|<head\b|<body\b)", re.I)
_BOUNDARY = re.compile(rb"^--([^\s\"]{1,70})[ \t]*\r?$", re.M)


@dataclass(frozen=True, slots=True)
class IncomingMail:
    """An e-mail, as far as the inbox is concerned.

    Attributes:
        message_id: with its angle brackets; empty where it has none that can be referred to.
        key: the same for every copy of this e-mail: its Message-ID, else a hash of its content.
        senders: the addresses in From.
        subject: decoded, in one line.
        references: what it replies to and the thread before that, oldest first.
        is_reply: it replies to some e-mail, ours or not.
        robot: why it is taken to be automatic; None for a person's.
        is_report: it tells of the fate of another e-mail.
        bounce: what it tells, where it is a report by RFC 3464.
        text: what is new in it; empty where only the header is known.
        attachments: their names.
    """

    message_id: str
    key: str
    senders: tuple[str, ...]
    subject: str
    references: tuple[str, ...]
    is_reply: bool
    robot: str | None
    is_report: bool
    authentication: tuple[str, ...]
    bounce: Bounce | None = None
    text: str = ""
    attachments: tuple[str, ...] = ()
    is_cut: bool = False
    """Some of the text itself was not read."""

    def is_authentic(self, authserv_id: str) -> bool:
        """Whether the server of this name found a DMARC pass for the one address in From.

        Only the topmost ``Authentication-Results`` with exactly this name counts: those below it
        may have been in the mail when it arrived.
        """
        if len(self.senders) != 1:
            return False
        domain = _domain(self.senders[0])
        for header in self.authentication:
            name, results = _authentication_results(header)
            if name == authserv_id.casefold():
                dmarc = [result for result in results if result[0].split("/")[0] == "dmarc"]
                return bool(dmarc and domain) and all(
                    verdict == "pass" and _domain(properties.get("header.from", "")) == domain
                    for _, verdict, properties in dmarc
                )
        return False

    def own_references(self) -> list[str]:
        """The Message-IDs it refers to that have the form of ours, nearest first."""
        return [i for i in reversed(self.references) if own_reference(i) is not None]


def own_reference(message_id: str) -> tuple[str, int] | None:
    """``question`` or ``mail`` and its number, where a Message-ID has the form of ours."""
    match = _OWN_ID.fullmatch(message_id)
    return (match[1], int(match[2])) if match else None


@dataclass(frozen=True, slots=True)
class SubjectCode:
    """The code that makes an e-mail a question, wherever it stands in the subject."""

    code: str

    def is_in(self, subject: str) -> bool:
        """Whether it is there; case and spaces do not count."""
        return _squeezed(self.code) in _squeezed(subject)

    def cut(self, subject: str) -> str:
        """The subject without the code and its brackets, and without "Re:"."""
        rest = _REPLIES.sub("", unicodedata.normalize("NFKC", subject), count=1)
        letters = r"\s*".join(re.escape(letter) for letter in _squeezed(self.code))
        # As a word of its own: of "Consultas de horario" nothing is cut.
        word = re.compile(rf"[\[({{<]?\s*(?<!\w){letters}(?!\w)\s*[\])}}>]?\s*[:–—-]?", re.I)
        return " ".join(word.sub(" ", rest, count=1).split()).strip(' -:–—"')


def without_middle(start: bytes, end: bytes) -> bytes:
    """An e-mail of which only these two ends are there, as :func:`read_mail` wants it."""
    return b"\r\n".join((start, _CUT, end))


def read_mail(content: bytes) -> IncomingMail:
    """Read an e-mail as it came from the server, or its header alone."""
    if len(content) > BODY_LIMIT and _CUT not in content:
        content = without_middle(content[:BODY_LIMIT], content[BODY_LIMIT:][-TAIL_LIMIT:])
    header, body = _split(content)
    try:
        mail = _read_header(message_from_bytes(header), header, body)
    except Exception:
        # The header is beyond reading: nobody's mail, with a key all the same.
        _log.exception("the header of an e-mail cannot be read")
        key = hashlib.sha256(content).hexdigest()
        return IncomingMail("", key, (), "", (), False, "unreadable header", False, ())
    if not body.strip() or content.lower().count(b"content-type:") > PART_LIMIT:
        return mail
    try:
        return _read_body(mail, message_from_bytes(content), _CUT in content)
    except Exception:
        # What no parser has foreseen, such as a thousand parts in one another: no text.
        _log.exception("the body of an e-mail cannot be read")
        return mail


def _split(content: bytes) -> tuple[bytes, bytes]:
    if content.startswith((b"\n", b"\r\n")):
        return b"", content
    found = re.search(rb"\r?\n\r?\n", content)
    return (content[: found.end()], content[found.end() :]) if found else (content, b"")


def _read_header(message: Message, header: bytes, body: bytes) -> IncomingMail:
    headers: dict[str, list[str]] = {}
    for name, value in message.raw_items():
        headers.setdefault(name.lower(), []).append(str(value)[:HEADER_LIMIT])
    first = {name: values[0] for name, values in headers.items()}
    ids = _MESSAGE_ID.findall(_unfolded(first.get("message-id", "")))
    name = ids[0] if ids else _unfolded(first.get("message-id", "")).strip()
    references = [
        *_MESSAGE_ID.findall(_unfolded(first.get("references", ""))),
        *_MESSAGE_ID.findall(_unfolded(first.get("in-reply-to", "")))[:1],
    ]
    # Each once, where it stands last: the parent is the newest.
    thread = tuple(reversed(dict.fromkeys(reversed(references))))[-REFERENCE_LIMIT:]
    subject = one_line(decoded_header(first.get("subject", "")), 500)
    senders = _addresses(headers.get("from", []))
    digest = hashlib.sha256()
    for value in (first.get("from", ""), first.get("date", ""), first.get("subject", "")):
        digest.update(value.encode("utf-8", "surrogateescape") + b"\0")
    digest.update(body)
    return IncomingMail(
        message_id=ids[0] if ids else "",
        key=name if 0 < len(name) <= 250 and name.isascii() else digest.hexdigest(),
        senders=senders,
        subject=subject,
        references=thread,
        is_reply=bool(thread or _REPLY.match(subject) or _FORWARD.match(subject)),
        robot=_robot(headers, senders, subject, ids[0] if ids else ""),
        is_report=message.get_content_type() == "multipart/report",
        authentication=tuple(map(_unfolded, headers.get("authentication-results", []))),
    )


def _addresses(values: list[str]) -> tuple[str, ...]:
    found: list[str] = []
    for value in values:
        try:
            addresses = getaddresses([_without_surrogates(_unfolded(value))])
        except RecursionError:
            return ()  # A thousand brackets in one another: nobody can say who that is.
        found += [address.strip() for _, address in addresses if "@" in address]
    return tuple(dict.fromkeys(found))


def _robot(
    headers: dict[str, list[str]], senders: tuple[str, ...], subject: str, message_id: str
) -> str | None:
    def values(name: str) -> Iterable[str]:
        return (_without_comments(value).strip().lower() for value in headers.get(name, []))

    marks = {
        "Auto-Submitted": any(v.split(";")[0].strip() != "no" for v in values("auto-submitted")),
        "Precedence": any(value in _BULK for value in values("precedence")),
        "null return path": any(v in ("<>", "") for v in values("return-path")),
        "sender": any(_ROBOT.fullmatch(sender.rpartition("@")[0]) for sender in senders),
        "subject": bool(_AUTOMATIC.match(subject)),
        "report": any("multipart/report" in value for value in values("content-type")),
        "our own Message-ID": own_reference(message_id) is not None,
    }
    names = (n for n in headers if n in _ROBOT_HEADERS or n.startswith("list-"))
    return next((mark for mark, is_there in marks.items() if is_there), None) or next(names, None)


def _read_body(mail: IncomingMail, message: Message, is_truncated: bool) -> IncomingMail:
    bounce = read_bounce(message) if mail.is_report else None
    texts: list[tuple[Message, str]] = []
    attachments: list[str] = []
    for part in _leaves(message):
        kind = _kind(part)
        if kind is None and part.get_content_type() not in _SIGNATURES:
            attachments.append(_attachment_name(part))
        elif kind is not None:
            texts.append((part, _plain(part, kind)))
    text = new_text("\n".join(text for _, text in texts), is_reply=mail.is_reply)
    return replace(
        mail,
        bounce=bounce,
        text=_fit(text),
        attachments=tuple(one_line(name, 100) for name in attachments if name)[:50],
        is_cut=is_truncated and any(_CUT in part.as_bytes() for part, _ in texts),
    )


def question_text(mail: IncomingMail, code: SubjectCode) -> str:
    """What is asked: the new text, or the subject where that says nothing; else empty."""
    if mail.is_reply:
        return mail.text
    subject = _fit(code.cut(mail.subject)) if code.is_in(mail.subject) else _fit(mail.subject)
    return subject if subject and is_courtesy(mail.text) else mail.text


def _fit(text: str) -> str:
    text = unicodedata.normalize("NFC", text).strip()
    return text if any(unicodedata.category(c)[0] not in "CZ" for c in text) else ""


def _leaves(message: Message, depth: int = 0) -> Iterator[Message]:
    """The parts that make up the text, and the attachments; of alternatives the plainest."""
    if depth > DEPTH_LIMIT:
        return
    message = _with_boundary(message)
    kind = message.get_content_type()
    if not message.is_multipart() or kind.startswith("message/"):
        yield message
        return
    parts = [part for part in message.get_payload() if isinstance(part, Message)]
    if kind == "multipart/alternative":
        candidates = [list(_leaves(part, depth + 1)) for part in parts]
        yield from _plainest(candidates)
        return
    for part in parts:
        yield from _leaves(part, depth + 1)


def _plainest(candidates: list[list[Message]]) -> list[Message]:
    def texts(leaves: list[Message], kind: str) -> str:
        return "".join(_plain(leaf, kind) for leaf in leaves if _kind(leaf) == kind)

    for kind in ("text/plain", "text/html"):
        for leaves in candidates:
            if texts(leaves, kind).strip():
                # Images and calendar entries of another alternative belong to the mail as well.
                others = (leaf for other in candidates if other is not leaves for leaf in other)
                return [*leaves, *(leaf for leaf in others if _kind(leaf) is None)]
    return [leaf for leaves in candidates for leaf in leaves]


def _with_boundary(message: Message) -> Message:
    """The message, read again where its parts are there but its boundary is missing or wrong."""
    if message.get_content_maintype() != "multipart" or message.is_multipart():
        return message
    body = message.get_payload(decode=True)
    found = _BOUNDARY.search(body) if isinstance(body, bytes) else None
    if found is None or not isinstance(body, bytes):
        return message
    header = b'Content-Type: multipart/mixed; boundary="%s"\n\n' % found[1]
    again = message_from_bytes(header + body)
    return again if again.is_multipart() else message


def _kind(part: Message) -> str | None:
    """text/plain or text/html for a part of the text, None for an attachment."""
    kind = part.get_content_type()
    disposition = (part.get_content_disposition() or "").lower()
    if disposition == "attachment" or (disposition and part.get_filename()):
        return None
    if part.get_content_maintype() == "multipart" or kind in ("text/plain", "text/markdown"):
        return "text/plain"
    return "text/html" if kind == "text/html" else None


def _attachment_name(part: Message) -> str:
    name = part.get_filename() or part.get_param("name")
    if isinstance(name, tuple):
        name = name[2]
    payload = part.get_payload()
    if not name and isinstance(payload, list) and payload:
        # A mail within the mail.
        name = cast("Message", payload[0])["Subject"]
    return decoded_header(str(name)) if name else part.get_content_type()


def _plain(part: Message, kind: str) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    text = clean(decoded(payload, _charset(part)))
    if kind == "text/html" or _HTML.match(text):
        return html_to_text(text)
    if str(part.get_param("format", "")).lower() == "flowed":
        return _unflowed(text, str(part.get_param("delsp", "")).lower() == "yes")
    return text


def _charset(part: Message) -> str:
    charset = part.get_param("charset", "")
    return str(charset[2] if isinstance(charset, tuple) else charset)


def decoded(data: bytes, charset: str) -> str:
    """The text, whatever the charset is called and whether or not it is the right one."""
    try:
        name = codecs.lookup(charset.strip("'\" ") or "ascii").name
    except (LookupError, ValueError):
        name = ""
    if name and name not in (*_NO_CHARSETS, *_SINGLE_BYTE, "utf-8"):
        with contextlib.suppress(LookupError, ValueError):
            return data.decode(name, "replace")
    # Text that is valid UTF-8 by chance alone is rare: believe the bytes.
    with contextlib.suppress(UnicodeDecodeError):
        return data.decode("utf-8")
    if name not in _SINGLE_BYTE:
        return data.decode("utf-8", _WINDOWS_BYTES)
    return data.decode("iso8859-15" if name == "iso8859-15" else "cp1252", "replace")


def _as_windows(error: UnicodeError) -> tuple[str, int]:
    """What is no UTF-8 within a text that is, as a gateway leaves it that adds a line."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error(_WINDOWS_BYTES, _as_windows)


def decoded_header(value: str) -> str:
    """A header's text: encoded words decoded, raw bytes read as UTF-8 or as Windows does."""
    value = _unfolded(_without_surrogates(value))
    try:
        chunks = decode_header(value)
    except (HeaderParseError, ValueError):
        return value
    return "".join(
        chunk if isinstance(chunk, str) else decoded(chunk, charset or "ascii")
        for chunk, charset in chunks
    )


def _without_surrogates(value: str) -> str:
    if value.isascii():
        return value
    return decoded(value.encode("utf-8", "surrogateescape"), "utf-8")


def _unfolded(value: str) -> str:
    return re.sub(r"\r?\n[ \t]*|\r", " ", value)


def _unflowed(text: str, deletes_space: bool) -> str:
    """RFC 3676: a line that ends in a space goes on in the next one of the same quote depth."""
    lines: list[str] = []
    open_depth = -1
    for line in text.split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")
        is_signature = content == "-- "
        if open_depth == depth and not is_signature:
            lines[-1] += content
        else:
            lines.append(f"{'>' * depth}{' ' if depth else ''}{content}")
        open_depth = depth if content.endswith(" ") and not is_signature else -1
        if open_depth >= 0 and deletes_space:
            lines[-1] = lines[-1][:-1]
    return "\n".join(lines)


def _squeezed(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c) != "Cf")


def _without_comments(value: str) -> str:
    for _ in range(5):
        value, count = _COMMENT.subn(" ", value)
        if not count:
            break
    return value


def _domain(address: str) -> str:
    return ascii_domain(address.rpartition("@")[2].strip(' ".<>'))


def _authentication_results(value: str) -> tuple[str, list[tuple[str, str, dict[str, str]]]]:
    """The name of the server, and each method with its verdict and its properties (RFC 8601)."""
    # Quoted text can hold any sign: it is set aside while the rest is taken apart.
    quoted: list[str] = []

    def set_aside(match: re.Match[str]) -> str:
        quoted.append(match[0][1:-1])
        return f"\0{len(quoted) - 1}\0"

    def restored(text: str) -> str:
        return re.sub(r"\0(\d+)\0", lambda match: quoted[int(match[1])], text)

    value = _without_comments(_QUOTED.sub(set_aside, value.replace("\0", "")))
    name, *methods = value.split(";")
    results = []
    for method in methods:
        pairs = re.findall(r"([\w./-]+)\s*=\s*([^\s;]+)", method)
        if pairs:
            (first, verdict), *properties = pairs
            values = {key.lower(): restored(text) for key, text in properties}
            results.append((first.lower(), restored(verdict).lower(), values))
    return restored(name.split()[0] if name.split() else "").casefold(), results
