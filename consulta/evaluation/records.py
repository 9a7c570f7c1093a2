"""What was measured, one record a question and system, kept so that a run can go on."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from pydantic import TypeAdapter, ValidationError

from core.settings import Settings

_OF_OTHER_PARTS = (
    *("db_", "database_", "mongo_", "secret_", "access_", "api_", "public_", "logo_", "log_"),
    *("smtp_", "imap_", "mail_", "email_", "recovery_", "passwords_", "worker_"),
    *("max_waiting_", "questions_per_", "address_", "trusted_"),
    *("lease_", "max_attempts", "retry_", "poll_", "stop_", "rescan_"),
    # Addresses and places: what they lead to is named by the model and the index.
    *("ollama_", "openai_", "document_location", "index_location"),
)
"""Settings that change no answer; a new one that is not among them is taken to change some."""


class StoreError(Exception):
    """The results cannot be kept; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Citation:
    """A citation of a sent answer.

    ``resolves``: its quotation is literally on the page it names. ``is_gold``: it names the
    question's document and page; None where the file does not say them.
    """

    resolves: bool
    is_gold: bool | None


@dataclass(frozen=True, slots=True)
class Record:
    """What one system made of one question. None where it was not, or cannot be, measured.

    Attributes:
        ranks: the rank of the gold text, or one for each piece of evidence; None in it where it
            was not found.
        all_found: whether all gold text was in what the model was shown.
        outcome: of the answer, as :class:`core.questions.Outcome` names it.
        written, supported: sentences of the model, and those that passed the check.
        error: why there is no answer.
    """

    key: str
    system: str
    id: str
    ranks: tuple[int | None, ...] | None = None
    all_found: bool | None = None
    outcome: str | None = None
    uncertain: bool = False
    evidence: float | None = None
    citations: tuple[Citation, ...] = ()
    f1: float | None = None
    gold_in_answer: bool | None = None
    written: int | None = None
    supported: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    search_seconds: float | None = None
    model_seconds: float | None = None
    answer: str | None = None
    sources: tuple[str, ...] = ()
    error: str | None = None


_RECORD = TypeAdapter(Record)


@dataclass(slots=True)
class RecordStore:
    """A file with a line of JSON for each record; what was appended survives a power cut."""

    _path: Path
    _file: BinaryIO
    _records: dict[str, Record]

    @classmethod
    @contextmanager
    def opened(cls, path: Path, *, fresh: bool) -> Iterator[Self]:
        """Open the file for this process alone, with what an earlier run left in it.

        Raises:
            StoreError: it cannot be written, or another evaluation has it open.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            opened = path.open("a+b")
        except OSError as error:
            raise _unwritable(path, error) from None
        with opened as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(
                    f"Another evaluation writes to {path.parent}: wait for it, or choose another "
                    "folder with --output."
                ) from None
            if fresh:
                file.truncate(0)
            yield cls(path, file, _read(file))

    def get(self, key: str) -> Record | None:
        """The record of this key, unless it failed."""
        record = self._records.get(key)
        return record if record is not None and record.error is None else None

    def append(self, record: Record) -> None:
        """Keep a record; when this returns, it is on the disk.

        Raises:
            StoreError: it could not be written.
        """
        line = json.dumps(asdict(record), ensure_ascii=False)
        try:
            self._file.write(line.encode("utf-8", "replace") + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self._path, error) from None
        self._records[record.key] = record


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path} cannot be written ({error.strerror}): make room, or choose another folder with "
        "--output."
    )


def _read(file: BinaryIO) -> dict[str, Record]:
    """The whole lines of the file; a last line that a crash has torn is cut off."""
    records = {}
    file.seek(0)
    whole = 0
    for line in file:
        if not line.endswith(b"\n"):
            file.truncate(whole)
            break
        whole += len(line)
        try:
            record = _RECORD.validate_json(line)
        except ValidationError:
            continue  # An older program's, or damaged: measured again.
        records[record.key] = record
    return records


def fingerprint(*parts: Any) -> str:
    """A hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def answering_settings(settings: Settings) -> dict[str, Any]:
    """The settings that may change an answer, without secrets."""
    return {
        name: value
        for name, value in settings.model_dump(mode="json").items()
        if not name.startswith(_OF_OTHER_PARTS)
    }


def program_hash(*packages: Path) -> str:
    """A hash of the program's own files: what another version measured is measured again."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted(package.rglob("*")):
            if path.suffix in {".py", ".txt", ".toml"}:
                digest.update(path.read_bytes())
    return digest.hexdigest()
