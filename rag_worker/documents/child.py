"""The process that reads one file: a request as JSON on its input, the text on its output."""

import json
import logging
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

from rag_worker.documents.archive import check_archive, check_kind
from rag_worker.documents.errors import DocumentError
from rag_worker.documents.limits import Limits
from rag_worker.documents.sections import Sections

_MEMORY = 2 * 2**30
_DEEPEST = 100_000
"""Calls within calls: a page of web builders nests thousands of elements."""
_ZIPPED = {".docx", ".pptx", ".odt"}


def load(
    path: Path,
    name: str,
    limits: Limits,
    recognised: dict[str, list[Any]] | None = None,
) -> tuple[Sections, int | None, list[int]]:
    """Read ``path`` in this process; ``recognised`` are the words of its scanned pages.

    Returns:
        The text, the number of pages or slides, and the pages that are scans still to recognise.

    Raises:
        DocumentError: nothing could be read.
    """
    # Each format's library is imported for its own files only: the process lives for one file.
    sections = Sections(name, limits.max_characters)
    pages: int | None = None
    scanned: list[int] = []
    suffix = path.suffix.lower()
    check_kind(path)
    if suffix in _ZIPPED:
        check_archive(path, limits.max_unpacked_mb)
    if suffix == ".docx":
        from rag_worker.documents.word import load_docx  # noqa: PLC0415

        pages = load_docx(path, sections)
    elif suffix == ".odt":
        from rag_worker.documents.opendocument import load_odt  # noqa: PLC0415

        pages = load_odt(path, sections)
    elif suffix == ".pptx":
        from rag_worker.documents.slides import load_pptx  # noqa: PLC0415

        pages = load_pptx(path, sections)
    elif suffix == ".pdf":
        from rag_worker.documents.pdf import as_words, load_pdf  # noqa: PLC0415

        known = {int(page): as_words(words) for page, words in (recognised or {}).items()}
        pages, scanned = load_pdf(path, sections, limits.max_pages, known)
    elif suffix == ".txt":
        from rag_worker.documents.plain import load_text  # noqa: PLC0415

        load_text(path, sections)
    else:
        from rag_worker.documents import html  # noqa: PLC0415

        (html.load_markdown if suffix == ".md" else html.load_html)(path, sections)
    return sections, pages, scanned


def _answer(request: dict[str, Any]) -> dict[str, object]:
    path = Path(str(request["path"]))
    try:
        sections, pages, scanned = load(
            path,
            str(request["name"]),
            Limits(**request["limits"]),
            request.get("recognised"),
        )
    except DocumentError as error:
        return _unread(str(error))
    except MemoryError:
        return _unread("It needs too much memory: split it.")
    except RecursionError:
        return _unread("Its parts are nested too deeply: save it again, or as PDF.")
    except PermissionError:
        return _unread("It may not be read: give the worker the right to read it.")
    except Exception as error:
        # The edge of one file: the libraries raise anything on damaged input. The place tells an
        # engineer, who finds it in the log, whether it is our fault.
        return _unread(f"It is damaged or not what its name says: save it again ({_place(error)}).")
    found = sections.all()
    return {
        "documents": [[section.text, section.metadata] for section in found],
        "pages": pages,
        "problem": None if found or scanned else "There is no text in it.",
        "scanned": scanned,
    }


def _place(error: Exception) -> str:
    """The kind of error, and the last place in this package that it came through."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(Path(__file__).parent)
    ]
    return f"{type(error).__name__} in {Path(ours[-1].filename).name}, line {ours[-1].lineno}"


def _unread(problem: str) -> dict[str, object]:
    return {"documents": [], "pages": None, "problem": problem}


def main() -> None:
    """Read the file that the request on standard input names."""
    request = json.load(sys.stdin)
    seconds = int(request["limits"]["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sys.setrecursionlimit(_DEEPEST)
    # Whatever a library prints must not end up in the answer.
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    json.dump(_answer(request), answer_to)
    answer_to.close()


if __name__ == "__main__":
    main()
