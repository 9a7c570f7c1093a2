"""The course's logo."""

from dataclasses import dataclass, field
from pathlib import Path

import structlog

LOGO_LIMIT = 256 * 1024
"""Largest logo that is sent, in bytes: every e-mail carries it."""

_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Logo:
    """An image for the top of an e-mail; ``subtype`` is ``png`` or ``jpeg``."""

    data: bytes = field(repr=False)
    subtype: str


def read_logo(path: Path | None) -> Logo | None:
    """The logo at ``path``; None, with a line in the log, when it cannot be used.

    The kind is read from the content. SVG is left out, because most mail programs do not show it.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(LOGO_LIMIT + 1)
    except OSError as error:
        _log.warning("the logo cannot be read", path=str(path), reason=error.strerror)
        return None
    if len(data) > LOGO_LIMIT:
        _log.warning("the logo is too large", path=str(path), limit_bytes=LOGO_LIMIT)
        return None
    for signature, subtype in _SIGNATURES.items():
        if data.startswith(signature):
            return Logo(data, subtype)
    _log.warning("the logo is neither PNG nor JPEG", path=str(path))
    return None
