"""Office files from the inside: zip archives of XML parts that refer to each other."""

import posixpath
import re
import zipfile
from pathlib import Path
from typing import Any

from lxml import etree

from rag_worker.documents.errors import DocumentError
from rag_worker.documents.limits import check_markup, check_memory

ENCRYPTED = "It is protected by a password: save it without one."
DAMAGED = "It is damaged: save it again."
_MAX_MEMBERS = 50_000
# Strict Open XML says the same by other names.
_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/(\w+)")
_TRANSITIONAL = rb"http://schemas.openxmlformats.org/\1/2006/\2"
_RELATIONSHIP = "{http://schemas.openxmlformats.org/package/2006/relationships}Relationship"


def check_archive(path: Path, max_unpacked_mb: float) -> None:
    """Refuse an archive that is encrypted, damaged or a zip bomb, without unpacking it.

    What its table of contents promises is enough: no part is unpacked beyond that.

    Raises:
        DocumentError: why.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError):
        raise DocumentError(DAMAGED) from None
    if any(member.flag_bits & 1 for member in members):
        raise DocumentError(ENCRYPTED)
    unpacked = sum(member.file_size for member in members) / 2**20
    if unpacked > max_unpacked_mb:
        raise DocumentError(
            f"It unpacks to {unpacked:.0f} MB, as a zip bomb does, and DOCUMENT_MAX_UNPACKED_MB is "
            f"{max_unpacked_mb:g}: split it or leave its pictures out."
        )
    if len(members) > _MAX_MEMBERS:
        raise DocumentError(f"It holds {len(members)} parts, as no document does.")


class Archive:
    """The parts of an office file, read one at a time; nothing is written or fetched.

    Archives inside the archive (embedded workbooks, fonts, macros) are never opened.
    """

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        self.names = frozenset(self._zip.namelist())

    def xml(self, name: str) -> Any:
        """The root element of the part ``name``; None where there is no such part.

        Raises:
            DocumentError: it is damaged, it declares entities, or it holds too many elements.
        """
        if name not in self.names:
            return None
        try:
            data = self._zip.read(name)  # zipfile stops at the size that the archive declares
        except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError):
            raise DocumentError(DAMAGED) from None
        # Entities grow without bound or name other files; no office program writes them.
        if b"<!ENTITY" in data.replace(b"\0", b""):
            raise DocumentError(
                "It declares XML entities, as attacks do and no office program does: "
                "it is not opened."
            )
        check_markup(data)
        data = _STRICT.sub(_TRANSITIONAL, data).replace(
            b"/2006/extendedProperties", b"/2006/extended-properties"
        )
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True
        )
        try:
            return etree.fromstring(data, parser)
        except etree.XMLSyntaxError as error:
            check_memory(error)
            raise DocumentError(DAMAGED) from None

    def contains(self, name: str, data: bytes) -> bool:
        """Whether the part ``name`` is there and holds ``data``."""
        return name in self.names and data in self._zip.read(name)

    def relations(self, name: str) -> dict[str, tuple[str, str]]:
        """What the part ``name`` refers to, by identifier: the kind, and the part or address."""
        folder, _, file = name.rpartition("/")
        root = self.xml(f"{folder}/_rels/{file}.rels" if folder else f"_rels/{file}.rels")
        relations = {}
        for relation in root.iter(_RELATIONSHIP) if root is not None else ():
            target = relation.get("Target", "")
            if relation.get("TargetMode") != "External":
                target = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
            kind = relation.get("Type", "").rpartition("/")[2]
            relations[relation.get("Id", "")] = kind, target
        return relations


_SIGNATURES = (
    (b"%PDF-", "a PDF", ".pdf"),
    (b"{\\rtf", "rich text (RTF)", None),
    (b"\x89PNG", "a picture", None),
    (b"\xff\xd8\xff", "a picture", None),
    (b"GIF8", "a picture", None),
    (b"\x1f\x8b", "a compressed archive", None),
    (b"Rar!", "a compressed archive", None),
    (b"7z\xbc\xaf", "a compressed archive", None),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # Office wraps encrypted files in its older container
_ZIP = b"PK\x03\x04"
_HTML = re.compile(rb"\s*(<\?xml[^>]*\?>\s*)?<(!doctype\s+html|html|head|body)\b", re.I)
_PACKAGES = {
    "word/document.xml": ("a Word document", ".docx"),
    "ppt/presentation.xml": ("a presentation", ".pptx"),
    "xl/workbook.xml": ("an Excel workbook", None),
}
_OPEN_DOCUMENTS = {
    b"application/vnd.oasis.opendocument.text": ("an OpenDocument text", ".odt"),
    b"application/vnd.oasis.opendocument.presentation": ("an OpenDocument presentation", None),
    b"application/vnd.oasis.opendocument.spreadsheet": ("an OpenDocument spreadsheet", None),
    b"application/epub+zip": ("an e-book", None),
}
_ZIPPED = {".docx", ".pptx", ".odt"}


def check_kind(path: Path) -> None:
    """Refuse a file that is something else than its name says, where its first bytes tell.

    Raises:
        DocumentError: what it really is and what to do.
    """
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(1024)
        if start.startswith(_OLE):
            raise DocumentError(_container(start + file.read()))
    kind = next((kind for mark, *kind in _SIGNATURES if start.startswith(mark)), None)
    if start.startswith(_ZIP):
        kind = _package(path)
    elif _HTML.match(start) and suffix in {*_ZIPPED, ".pdf"}:
        kind = ["a web page", ".html"]
    elif kind is None and suffix in _ZIPPED and start.strip() and _is_text(start):
        kind = ["plain text", ".txt"]
    if kind and kind[1] not in (suffix, ".html" if suffix == ".htm" else suffix):
        do = f"rename it to end in {kind[1]}" if kind[1] else "save it as PDF"
        raise DocumentError(f"It is {kind[0]} whose name ends in {suffix}: {do}.")


def _container(data: bytes) -> str:
    for stream, name in (("WordDocument", "Word"), ("PowerPoint Document", "PowerPoint")):
        if stream.encode("utf-16-le") in data:
            return f"It is in the format of {name} 97 to 2003: save it in today's format or as PDF."
    return ENCRYPTED


def _package(path: Path) -> list[str | None] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            for part, kind in _PACKAGES.items():
                if part in names:
                    return list(kind)
            if "mimetype" in names and archive.getinfo("mimetype").file_size < 100:
                declared = archive.read("mimetype").strip()
                return list(_OPEN_DOCUMENTS.get(declared, ("a zip archive", None)))
            if "content.xml" in names or "[Content_Types].xml" in names:
                return None  # the format's own reader says what is missing
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError, RuntimeError):
        return None  # damaged or encrypted, which the format's own reader says
    return ["a zip archive", None]


def _is_text(data: bytes) -> bool:
    return not any(byte < 9 or 13 < byte < 32 for byte in data)
