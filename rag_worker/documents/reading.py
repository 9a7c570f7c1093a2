"""Reads one file in a process of its own, so that a hostile file harms only that process."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rag_worker
from rag_worker.documents.limits import Limits
from rag_worker.documents.ocr import INSTALL, RecognisedWord, RecognitionError, languages
from rag_worker.documents.scanning import SUFFIXES

if TYPE_CHECKING:
    from langchain_core.documents import Document


@dataclass(frozen=True, slots=True)
class FileText:
    """What was read of a file.

    Attributes:
        documents: its text, with ``file``, ``page``, ``slide`` and ``heading`` as metadata.
        pages: pages or slides; None where the format has none.
        problem: a sentence for staff, when the file or a part of it could not be read.
        momentary: whether that was the moment's fault, such as a busy machine's, so that another
            try may do better.
    """

    documents: list["Document"]
    pages: int | None = None
    problem: str | None = None
    momentary: bool = False


Recogniser = Callable[[Sequence[int]], dict[int, list[RecognisedWord] | RecognitionError]]
"""Numbers of scanned pages to the words on each, or to why there are none."""

_REPLY_BYTES_PER_CHARACTER = 12
"""What a letter outside the basic plane takes in JSON."""
_LEAST_REPLY = 64 * 2**20
"""Bytes that the reply may have in any case, for every section has its metadata."""


def read_file(
    path: Path, name: str, limits: Limits, recognise: Recogniser | None = None
) -> FileText:
    """The text of ``path``; ``name`` is how answers will call the file.

    Scanned pages are given to ``recognise``. Never raises for what the file holds: an unreadable
    file is one with a ``problem``.
    """
    # The child imports this package, too, and starts in a fraction of the time without it.
    from langchain_core.documents import Document  # noqa: PLC0415

    if refusal := _refusal(path, limits):
        return FileText([], problem=refusal)
    answer = _ask_child(path, name, limits)
    scanned = answer.get("scanned")
    failed: dict[int, RecognitionError] = {}
    if scanned and recognise:
        found = recognise(scanned)
        words = {page: words for page, words in found.items() if isinstance(words, list)}
        failed = {page: error for page, error in found.items() if not isinstance(error, list)}
        # All pages are laid out together: what runs through them, and their headings, show then.
        answer = _ask_child(path, name, limits, words)
        scanned = answer.get("scanned")
    problem = answer["problem"]
    if scanned:
        problem = _unread_pages(scanned, answer["pages"], failed)
    documents = [
        Document(page_content=text, metadata=metadata) for text, metadata in answer["documents"]
    ]
    momentary = answer.get("momentary", False) or any(error.momentary for error in failed.values())
    return FileText(documents, answer["pages"], problem, momentary)


def _unread_pages(
    scanned: list[int], pages: int | None, failed: dict[int, RecognitionError]
) -> str:
    """The sentence that names scanned pages and says what would read them."""
    shown = ", ".join(map(str, scanned[:10])) + (", …" if len(scanned) > 10 else "")
    which = "Its pages" if len(scanned) == pages else f"Its pages {shown}"
    if len(scanned) == 1:
        which = f"Its page {scanned[0]}"
    what = f"{which} could not be read, as on scanned pages"
    if not languages():
        return f"{what}: Tesseract, once installed, reads them by OCR ({INSTALL})."
    if failed:
        page, reason = next(iter(failed.items()))
        return f"{what}, and text recognition (OCR) failed: page {page} {reason}."
    return f"{what}: run the file through text recognition (OCR)."


def _ask_child(
    path: Path,
    name: str,
    limits: Limits,
    recognised: dict[int, Any] | None = None,
) -> dict[str, Any]:
    """What the process that reads the file answers."""
    request = {
        "path": str(path),
        "name": name,
        "limits": asdict(limits),
        "recognised": recognised,
    }
    # The child must find this package wherever the parent found it.
    packages = str(Path(rag_worker.__file__).parent.parent)
    environment = {"PYTHONPATH": packages, "PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}
    command = [sys.executable, "-m", "rag_worker.documents.child"]
    longest = _LEAST_REPLY + _REPLY_BYTES_PER_CHARACTER * limits.max_characters
    reply, in_time = reply_of(
        command, json.dumps(request).encode(), environment, limits.seconds, longest
    )
    if not in_time:
        return _unread(
            f"Reading it took more than {limits.seconds:g} seconds (DOCUMENT_TIMEOUT): "
            "split the file or save it again."
        )
    try:
        answer: dict[str, Any] = json.loads(reply)
    except ValueError:
        return _unread("The reader broke off on it, as damaged files cause: save it again.")
    return answer


def reply_of(
    command: Sequence[str],
    request: bytes,
    environment: dict[str, str],
    seconds: float,
    longest: int,
) -> tuple[bytes, bool]:
    """What ``command`` replies, cut after ``longest`` bytes, and whether it took no more time.

    `subprocess.run` would keep all that a reader writes which a file has taken over.
    """
    with subprocess.Popen(  # nosec B603  # our own module, with this Python
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as child:
        out_of_time = threading.Event()

        def give_up() -> None:
            out_of_time.set()
            child.kill()

        timer = threading.Timer(seconds, give_up)
        timer.start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
                pipe.write(request)
            return child.stdout.read(longest), not out_of_time.is_set()
        finally:
            timer.cancel()
            child.kill()


def _unread(problem: str) -> dict[str, Any]:
    return {"documents": [], "pages": None, "problem": problem, "momentary": True}


def _refusal(path: Path, limits: Limits) -> str | None:
    """Why the file is not even opened."""
    if path.suffix.lower() not in SUFFIXES:
        return f"{path.suffix} files are not read: save it as PDF."
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return "It was removed, or its name cannot be shown: give it another name."
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
