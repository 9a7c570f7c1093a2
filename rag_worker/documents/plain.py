"""Plain text, and bytes to text for every format that does not carry its own."""

import codecs
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
_NOT_TEXT = "It is not text: save it as UTF-8."
_MOST_CONTROLS = 0.02
# What are accented letters for an old Macintosh or DOS are quotation marks for Windows, which
# do not stand inside words; only the apostrophe does, so one such letter is not enough.
_MAC_LETTER = re.compile(rb"(?<=[a-z])[\x87\x8e\x92\x96\x97\x9c](?=[a-z])")
_DOS_LETTER = re.compile(rb"(?<=[a-z])[\x81\x82\xa0-\xa4](?=[a-z])")
_WINDOWS_LETTER = re.compile(rb"(?<=[a-z])[\xe0-\xff](?=[a-z])")


def decode(data: bytes, declared: str | None = None) -> str:
    """The text of ``data``, with ``\\n`` at its line ends.

    The encoding is that of the byte order mark, else UTF-8 where it fits, else ``declared``, else
    the old one of Windows, the Macintosh or DOS that looks likeliest.

    Raises:
        DocumentError: it is not text.
    """
    text = _decoded(data, declared)
    controls = sum(text.count(chr(code)) for code in (*range(9), *range(14, 27), 28, 29, 30, 31))
    if controls > _MOST_CONTROLS * len(text):
        raise DocumentError(_NOT_TEXT)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes, declared: str | None) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if b"\x00" in data and (encoding := _utf_16(data)):
        return data.decode(encoding, errors="replace")
    try:
        # Before what is declared: an editor that saves as UTF-8 leaves an old declaration alone.
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode(_known(declared) or _guessed(data), errors="replace")


def _utf_16(data: bytes) -> str:
    """UTF-16 without its mark: in western text every other byte is zero."""
    even, odd = data[0::2].count(0) / len(data), data[1::2].count(0) / len(data)
    if odd > 0.3 and even < 0.02:
        return "utf-16-le"
    return "utf-16-be" if even > 0.3 and odd < 0.02 else ""


def _known(encoding: str | None) -> str:
    try:
        name = codecs.lookup(encoding or "").name
    except (LookupError, ValueError):
        return ""
    # Pages that call themselves Latin-1 use the quotation marks of Windows. UTF-8 it is not, and
    # Python's other codecs (zip, rot13) are no encodings.
    if name in ("utf-8", "ascii", "iso8859-1"):
        return "cp1252" if name == "iso8859-1" else ""
    return name if codecs.lookup(name)._is_text_encoding else ""


def _guessed(data: bytes) -> str:
    if not _WINDOWS_LETTER.search(data):
        for letter, encoding in ((_MAC_LETTER, "mac_roman"), (_DOS_LETTER, "cp850")):
            if len(set(letter.findall(data))) >= 2:
                return encoding
    # The euro of Latin-9 is for Windows a sign that nobody writes.
    is_latin_9 = b"\xa4" in data and not re.search(rb"[\x80-\x9f]", data)
    return "iso8859-15" if is_latin_9 else "cp1252"


def load_text(path: Path, sections: Sections) -> None:
    """Read plain text; empty lines and form feeds separate paragraphs."""
    # LangChain's TextLoader guesses encodings with chardet and keeps no paragraphs.
    for paragraph in re.split(r"\n\s*\n|\f", decode(path.read_bytes())):
        sections.paragraph(paragraph)
