"""Reads one file in a process of its own, so that a hostile file harms only that process."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from langchain_core.documents import Document

import rag_worker
from rag_worker.documents.scanning import SUFFIXES


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may cost: megabytes, pages, and seconds of reading."""

    max_mb: float
    max_pages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FileText:
    """What was read of a file.

    Attributes:
        documents: its text, with ``file``, ``page``, ``slide`` and ``heading`` as metadata.
        pages: pages or slides; None where the format has none.
        problem: a sentence for staff, when the file or a part of it could not be read.
    """

    documents: list[Document]
    pages: int | None = None
    problem: str | None = None


def read_file(path: Path, name: str, limits: Limits) -> FileText:
    """The text of ``path``; ``name`` is how answers will call the file.

    Never raises for what the file holds: an unreadable file is one with a ``problem``.
    """
    if refusal := _refusal(path, limits):
        return FileText([], problem=refusal)
    request = {
        "path": str(path),
        "name": name,
        "max_bytes": int(limits.max_mb * 2**20),
        "max_pages": limits.max_pages,
        "seconds": limits.seconds,
    }
    # The child must find this package wherever the parent found it.
    packages = str(Path(rag_worker.__file__).parent.parent)
    environment = {"PYTHONPATH": packages, "PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}
    try:
        child = subprocess.run(
            [sys.executable, "-m", "rag_worker.documents.child"],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=limits.seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return FileText(
            [],
            problem=f"Reading it took more than {limits.seconds:g} seconds (DOCUMENT_TIMEOUT): "
            "split the file or save it again.",
        )
    try:
        answer = json.loads(child.stdout)
    except ValueError:
        return FileText(
            [], problem="The reader broke off on it, as damaged files cause: save it again."
        )
    documents = [
        Document(page_content=text, metadata=metadata) for text, metadata in answer["documents"]
    ]
    return FileText(documents, answer["pages"], answer["problem"])


def _refusal(path: Path, limits: Limits) -> str | None:
    """Why the file is not even opened."""
    if path.suffix.lower() not in SUFFIXES:
        return f"{path.suffix} files are not read: save it as PDF."
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return "It was removed, or its name is not in UTF-8: give it another name."
    except OSError as error:
        return f"It cannot be opened ({error.strerror})."
    if size == 0:
        return "The file is empty."
    if size > limits.max_mb * 2**20:
        return (
            f"It has {size / 2**20:.0f} MB and DOCUMENT_MAX_MB is {limits.max_mb:g}: "
            "split the file or leave its pictures out."
        )
    return None
