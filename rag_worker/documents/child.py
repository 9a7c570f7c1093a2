"""The process that reads one file: a request as JSON on its input, the text on its output."""

import json
import logging
import os
import resource
import sys
from pathlib import Path

from rag_worker.documents.errors import DocumentError
from rag_worker.documents.sections import Sections

_MEMORY = 2 * 2**30
_MAX_CHARACTERS = 10_000_000
"""About three thousand printed pages."""
_ZIPPED = {".docx", ".pptx", ".odt"}


def load(
    path: Path, name: str, max_bytes: int, max_pages: int
) -> tuple[Sections, int | None, str | None]:
    """Read ``path`` in this process.

    Returns:
        The text, the number of pages or slides, and what could not be read.

    Raises:
        DocumentError: nothing could be read.
    """
    # Each format's library is imported for its own files only: the process lives for one file.
    sections = Sections(name)
    pages: int | None = None
    unread: list[int] = []
    suffix = path.suffix.lower()
    if suffix in _ZIPPED:
        from rag_worker.documents import office  # noqa: PLC0415

        office.check_archive(path, max_bytes)
        if suffix == ".docx":
            office.load_docx(path, sections)
        elif suffix == ".odt":
            office.load_odt(path, sections)
        else:
            pages = office.load_pptx(path, sections)
    elif suffix == ".pdf":
        from rag_worker.documents.pdf import load_pdf  # noqa: PLC0415

        pages, unread = load_pdf(path, sections, max_pages)
    elif suffix == ".txt":
        from rag_worker.documents.plain import load_text  # noqa: PLC0415

        load_text(path, sections)
    else:
        from rag_worker.documents import html  # noqa: PLC0415

        (html.load_markdown if suffix == ".md" else html.load_html)(path, sections)
    return sections, pages, _unread_pages(unread, pages)


def _unread_pages(unread: list[int], pages: int | None) -> str | None:
    if not unread:
        return None
    if len(unread) == pages:
        return (
            "Its pages are pictures without text, as a scanner makes them: "
            "run it through text recognition (OCR) first."
        )
    shown = ", ".join(map(str, unread[:10])) + (", …" if len(unread) > 10 else "")
    return f"Pages without text, probably scanned: {shown}. Run it through text recognition (OCR)."


def _answer(request: dict[str, str | int]) -> dict[str, object]:
    path = Path(str(request["path"]))
    try:
        sections, pages, problem = load(
            path, str(request["name"]), int(request["max_bytes"]), int(request["max_pages"])
        )
    except DocumentError as error:
        return {"documents": [], "pages": None, "problem": str(error)}
    except MemoryError:
        return {"documents": [], "pages": None, "problem": "It needs too much memory: split it."}
    except Exception as error:
        # The edge of one file: the libraries raise anything on damaged input.
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        problem = f"It is damaged or not what its name says ({reason}): save it again."
        return {"documents": [], "pages": None, "problem": problem}
    documents = sections.documents()
    if not documents and problem is None:
        problem = "There is no text in it."
    if sum(len(document.page_content) for document in documents) > _MAX_CHARACTERS:
        documents = []
        problem = "It holds more text than a book of three thousand pages: split the file."
    return {
        "documents": [[document.page_content, document.metadata] for document in documents],
        "pages": pages,
        "problem": problem,
    }


def main() -> None:
    """Read the file that the request on standard input names."""
    request = json.load(sys.stdin)
    seconds = int(request["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # Whatever a library prints must not end up in the answer.
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)
    logging.disable(logging.CRITICAL)
    json.dump(_answer(request), answer_to)
    answer_to.close()


if __name__ == "__main__":
    main()
