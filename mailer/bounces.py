"""Reports that an e-mail could not be delivered (RFC 3464)."""

import re
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser

from mailer.text import one_line

_MESSAGE_ID = re.compile(r"^message-id:\s*(<[^<>\s]{1,250}>)", re.I | re.M)
_PARTS = 20
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
# The rest says something of the mail, the moment, the sender or the way, and not of the address:
# one wrong entry in the sender's DNS (5.7.x) must not shut out all students.
_NO_SUCH_ADDRESS = (
    *("5.0.0", "5.1.0", "5.1.1", "5.1.2", "5.1.3", "5.1.4", "5.1.6", "5.1.10"),
    *("5.2.0", "5.2.1", "5.4.1", "5.4.4", "5.4.310"),
)
_REPORTS = ("message/delivery-status", "message/global-delivery-status")
_ORIGINALS = (
    *("message/rfc822", "message/global", "text/rfc822-headers", "message/rfc822-headers"),
    "message/global-headers",
)


@dataclass(frozen=True, slots=True)
class Bounce:
    """What became of an e-mail, by the words of the server that could not deliver it."""

    message_id: str
    """Of the e-mail, not of the report."""
    action: str
    status: str
    """Such as 5.1.1 (RFC 3463)."""
    diagnostic: str

    @property
    def is_final(self) -> bool:
        """Whether it will not be delivered; else it may still be."""
        return self.action == "failed"

    @property
    def is_dead_address(self) -> bool:
        """Whether another e-mail to the address would come back as well."""
        return self.is_final and self.status in _NO_SUCH_ADDRESS

    @property
    def reason(self) -> str:
        """For staff."""
        return one_line(f"Came back: {self.status} {self.diagnostic}", 500)


def read_bounce(report: Message) -> Bounce | None:
    """What the report says of one e-mail to one address; None if it does not say which."""
    message_id, found = "", None
    for part in list(report.walk())[1:_PARTS]:
        kind = part.get_content_type()
        if kind in _REPORTS and found is None:
            found = _failed(part)
        elif kind in _ORIGINALS:
            message_id = message_id or _original_id(part)
    if not message_id:
        # Exchange does not always return the mail, but replies to it.
        replied = _MESSAGE_ID.search(f"message-id: {report['In-Reply-To']}")
        message_id = replied[1] if replied else ""
    if found is None or not message_id:
        return None
    action = one_line(found.get("action", ""), 50).lower()
    diagnostic = found.get("diagnostic-code", "")
    # "smtp; 550 5.1.1 no such user"
    words = diagnostic.split(";", 1)[1] if ";" in diagnostic else diagnostic
    status = _STATUS.match(found.get("status", "").strip())
    if status is None or status[0].endswith(".0.0"):
        # Exim knows no better; the server that it quotes may.
        status = _STATUS.search(words) or status
    return Bounce(
        message_id=message_id,
        action=action,
        status=status[0] if status else "",
        diagnostic=one_line(words, 400),
    )


def _failed(part: Message) -> dict[str, str] | None:
    """The fields of the recipient whom it has not reached, else of the first one."""
    payload = part.get_payload()
    blocks = [block for block in payload or () if isinstance(block, Message)]
    # Where the parser does not know them as blocks, they are the text of a part.
    for text in [str(block.get_payload()) for block in blocks] or [str(payload)]:
        paragraphs = text.replace("\r\n", "\n").split("\n\n")
        blocks += [HeaderParser().parsestr(paragraph) for paragraph in paragraphs[:_PARTS]]
    fields = [{name.lower(): str(value) for name, value in block.items()} for block in blocks]
    recipients = [block for block in fields if "action" in block]
    failed = [block for block in recipients if block["action"].strip().lower() == "failed"]
    return next(iter(failed or recipients), None)


def _original_id(part: Message) -> str:
    payload = part.get_payload()
    if isinstance(payload, list):
        original = next((part for part in payload if isinstance(part, Message)), Message())
        text = f"Message-ID: {original['Message-ID']}"
    else:
        decoded = part.get_payload(decode=True)
        text = decoded.decode("latin-1") if isinstance(decoded, bytes) else ""
    found = _MESSAGE_ID.search(text.replace("\r", ""))
    return found[1] if found else ""
