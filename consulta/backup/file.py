"""The file: JSON lines, compressed by gzip, that say of themselves whether they are whole.

The first line is the header, the last one counts the rows between and has their SHA-256. A row is
``["prompts", {…}]``: a table or collection, and a row of it in MongoDB's Extended JSON, where dates
are in UTC. ``zcat FILE | head -1`` shows what a file is.
"""

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, BinaryIO

from bson.json_util import JSONMode, JSONOptions, dumps, loads

FORMAT = 1
"""Raised where an earlier program would misread the file."""

_LONGEST_HEADER = 1_000_000
_JSON = JSONOptions(json_mode=JSONMode.RELAXED, tz_aware=True)

Row = dict[str, Any]


class BackupFileError(Exception):
    """The file cannot be used; one sentence says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a backup was made by and with.

    Attributes:
        version: of the program.
        created: ISO 8601, UTC.
        revision: of the users' tables, as Alembic names it.
        settings: those that were set, by their environment names; no secrets.
        secret_key: tells whether SECRET_KEY is the same, and nothing else of it.
    """

    version: str
    created: str
    revision: str | None
    settings: dict[str, str] = field(default_factory=dict)
    secret_key: str | None = None
    format: int = FORMAT


class Writer:
    """Writes a backup: the header, then row after row, then :meth:`finish`."""

    def __init__(self, stream: BinaryIO, header: Header) -> None:
        # Without a date and a name of its own: equal content makes equal files.
        self._gzip = gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0, compresslevel=6)
        self._digest = hashlib.sha256()
        self.counts: Counter[str] = Counter()
        self._write(json.dumps({"consulta_backup": asdict(header)}, ensure_ascii=False))

    def add(self, table: str, row: Row) -> None:
        """Write one row."""
        self._write(dumps([table, row], json_options=_JSON, ensure_ascii=False))
        self.counts[table] += 1

    def finish(self) -> None:
        """Write what makes the file whole."""
        end = {"rows": dict(self.counts), "sha256": self._digest.hexdigest()}
        self._write(json.dumps({"end": end}))
        self._gzip.close()

    def _write(self, line: str) -> None:
        content = line.encode() + b"\n"
        self._digest.update(content)
        self._gzip.write(content)


class Reader:
    """Reads a backup from a file that can be read twice.

    Raises:
        BackupFileError: it is no backup, or one of a newer version.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        try:
            header = json.loads(next(self._lines(_LONGEST_HEADER), b""))["consulta_backup"]
            made_in, version = int(header["format"]), str(header["version"])
        except (_NotGzipError, ValueError, KeyError, TypeError):
            raise BackupFileError("is no backup of Consulta") from None
        if made_in > FORMAT:
            raise BackupFileError(
                f"was made by a newer Consulta ({version}): restore it with that one or a later one"
            )
        known = {field.name for field in fields(Header)}
        self.header = Header(**{name: header[name] for name in known & header.keys()})

    def check(self) -> Counter[str]:
        """Read it to its end; gives the number of rows by table.

        Raises:
            BackupFileError: it is cut off or was changed.
        """
        digest, last = hashlib.sha256(), b""
        for line in self._lines():
            digest.update(last)
            last = line
        try:
            end = json.loads(last)["end"]
        except (ValueError, KeyError, TypeError):
            raise BackupFileError("is cut off: its end is missing") from None
        if end["sha256"] != digest.hexdigest():
            raise BackupFileError("is damaged: its content is not what was written")
        return Counter(end["rows"])

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Every row with the name of its table, in the order they were written."""
        lines = self._lines()
        next(lines)
        for line in lines:
            row = loads(line, json_options=_JSON)
            if isinstance(row, list):
                yield row[0], row[1]

    def _lines(self, most: int = -1) -> Iterator[bytes]:
        self._stream.seek(0)
        try:
            with gzip.GzipFile(fileobj=self._stream, mode="rb") as unpacked:
                while line := unpacked.readline(most):
                    yield line
        except EOFError:
            raise BackupFileError("is cut off: its end is missing") from None
        except (gzip.BadGzipFile, zlib.error):
            raise _NotGzipError("is damaged: it cannot be unpacked") from None


class _NotGzipError(BackupFileError):
    """The bytes are not what gzip writes."""
