"""Reports that an e-mail could not be delivered (RFC 3464)."""

import re
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser

from mailer.text import one_line

_MESSAGE_ID = re.compile(r"^message-id:\s*(<[^<>\s]{1,250}>)", re.I | re.M)
_PARTS = 20
# They say something of the mail, or of the moment, and nothing of the address.
_NOT_THE_ADDRESS = ("5.2.2", "5.2.3", "5.3.4", "5.6.")


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
        return (
            self.is_final
            and self.status.startswith("5.")
            and not self.status.startswith(_NOT_THE_ADDRESS)
        )

    @property
    def reason(self) -> str:
        """For staff."""
        return one_line(f"Came back: {self.status} {self.diagnostic}", 500)


def read_bounce(report: Message) -> Bounce | None:
    """What the report says of one e-mail to one address; None if it does not say which."""
    message_id, found = "", None
    for part in list(report.walk())[1:_PARTS]:
        kind = part.get_content_type()
        if kind == "message/delivery-status" and found is None:
            found = _failed(part)
        elif kind in ("message/rfc822", "text/rfc822-headers", "message/rfc822-headers"):
            message_id = message_id or _original_id(part)
    if found is None or not message_id:
        return None
    action = one_line(found.get("action", ""), 50).lower()
    diagnostic = found.get("diagnostic-code", "")
    # "smtp; 550 5.1.1 no such user"
    words = diagnostic.split(";", 1)[1] if ";" in diagnostic else diagnostic
    status = re.match(r"\s*([245]\.\d{1,3}\.\d{1,3})", found.get("status", ""))
    return Bounce(
        message_id=message_id,
        action=action,
        status=status[1] if status else "",
        diagnostic=one_line(words, 400),
    )


def _failed(part: Message) -> dict[str, str] | None:
    """The fields of the recipient whom it has not reached, else of the first one."""
    payload = part.get_payload()
    if isinstance(payload, list):
        blocks = [block for block in payload if isinstance(block, Message)]
    else:
        # Not every sender makes blocks of it that the parser knows.
        blocks = [HeaderParser().parsestr(text) for text in str(payload).split("\n\n")]
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
