"""E-mail addresses, as they may stand in an SMTP command."""

import re

from core.domains import ascii_domain
from mailer.errors import UndeliverableError

# A dot-atom (RFC 5322), with letters beyond ASCII allowed (RFC 6531). What needs quotes is
# refused: quoted local parts are how commands are smuggled, and no university hands them out.
_LOCAL = re.compile(
    r"[^\x00-\x20\x7f-\xa0\"(),:;<>@\[\\\].\s]+(\.[^\x00-\x20\x7f-\xa0\"(),:;<>@\[\\\].\s]+)*"
)
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")


def envelope_address(address: str) -> str:
    """The address as it goes on the wire: its domain in ASCII, its local part unchanged.

    Raises:
        UndeliverableError: it is not a plain address.
    """
    local, at, domain = address.rpartition("@")
    domain = ascii_domain(domain)
    is_utf8 = not any("\ud800" <= character <= "\udfff" for character in local)
    if (
        not at
        or not is_utf8
        or len(local.encode()) > 64
        or len(domain) > 253
        or not _LOCAL.fullmatch(local)
        or not _DOMAIN.fullmatch(domain)
    ):
        raise UndeliverableError("The address is not a plain e-mail address.")
    return f"{local}@{domain}"


def is_plain_address(address: str) -> bool:
    """Whether every mail server can take it: a plain address with a local part in ASCII."""
    try:
        return envelope_address(address).isascii()
    except UndeliverableError:
        return False


def domain_of(address: str) -> str:
    """The part after the last ``@``: all of an address that logs may show."""
    return address.rpartition("@")[2]
