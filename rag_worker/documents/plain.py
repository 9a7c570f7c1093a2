"""Plain text, and bytes to text for every format that does not say its encoding."""

import re
from pathlib import Path

from rag_worker.documents.errors import DocumentError
from rag_worker.documents.sections import Sections

_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)


def decode(data: bytes) -> str:
    """The text of ``data``: by its byte order mark, else UTF-8, else Windows' western encoding.

    Raises:
        DocumentError: it is not text.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if b"\x00" in data:
        raise DocumentError("It is not text: save it as UTF-8.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def load_text(path: Path, sections: Sections) -> None:
    """Read plain text; empty lines separate paragraphs."""
    # LangChain's TextLoader guesses encodings with chardet and keeps no paragraphs.
    for paragraph in re.split(r"\n\s*\n", decode(path.read_bytes()).replace("\r\n", "\n")):
        sections.paragraph(paragraph)
