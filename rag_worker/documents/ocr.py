"""Scanned pages through Tesseract, each in a process of its own with its own time limit.

    echo '{"path": …, "page": 1, "languages": ["spa"], "seconds": 60}' | python -m …documents.ocr

PDFium draws the page, ``tesseract`` reads the picture, and the words come back at their places.
"""

import functools
import json
import math
import os
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

import rag_worker
from rag_worker.documents.layout import Box

INSTALL = "`apt install tesseract-ocr tesseract-ocr-spa`"
FORMAT = "words of a page, 1"
"""Changed when pages recognised before have to be recognised again."""
_PREFERRED = ("spa", "eng")
_NOT_A_LANGUAGE = {"osd", "equ"}
_DPI = 300
_MOST_PIXELS = 12_000_000
"""A page of A4 at 300 dots per inch has 8.7 million."""
_MEMORY = 2 * 2**30
_LEAST_CONFIDENCE = 25
"""Percent; below it Tesseract reads letters into pictures."""
_SAME_SIZE = (0.75, 1.25)
"""Of the usual size: read off the letters' heights, sizes within these bounds are the same."""
_DESCENT, _X_HEIGHT, _ASCENT = 0.22, 0.47, 0.7
_DESCENDERS = re.compile(r"[gjpqyçQ,;()\[\]{}|@$]")
_ASCENDERS = re.compile(r"[A-ZÁÉÍÓÚÑ0-9bdfhklitáéíóúñ()\[\]{}|@$%&/!?¿¡]")
_LONG_LINE = 100.0
_LONGEST_CAUSE = 2_000

RecognisedWord = tuple[str, float, float, float, float, float]
"""Text; left, bottom, right and top in points; size of the letters."""


class RecognitionError(Exception):
    """A page could not be recognised; the message says why, for staff.

    Attributes:
        momentary: whether another try may do better.
    """

    def __init__(self, reason: str, *, momentary: bool = False) -> None:
        super().__init__(reason)
        self.momentary = momentary


@functools.cache
def languages() -> tuple[str, ...]:
    """The languages that the installed Tesseract reads; none when it is not installed.

    Spanish and English where they are there, else all that are.
    """
    program = shutil.which("tesseract")
    if program is None:
        return ()
    try:
        listed = subprocess.run(  # nosec B603  # Tesseract, with words of our own
            [program, "--list-langs"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    names = listed.stdout.split("\n")[1:]
    found = [name for name in names if name and "/" not in name and name not in _NOT_A_LANGUAGE]
    return tuple(name for name in _PREFERRED if name in found) or tuple(found)


def recognise_page(
    path: Path, page: int, seconds: float, known: Sequence[str]
) -> list[RecognisedWord]:
    """The words on page ``page``, counted from 1, in the languages ``known``.

    Raises:
        RecognitionError: it took more than ``seconds``, or failed.
    """
    request = {"path": str(path), "page": page, "seconds": seconds, "languages": list(known)}
    packages = str(Path(rag_worker.__file__).parent.parent)
    child = subprocess.Popen(  # nosec B603  # our own module, with this Python
        [sys.executable, "-m", "rag_worker.documents.ocr"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": packages, "PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},
        start_new_session=True,
    )
    try:
        reply, errors = child.communicate(json.dumps(request).encode(), timeout=seconds)
        answer = json.loads(reply)
    except subprocess.TimeoutExpired:
        reason = f"took more than {seconds:g} seconds (OCR_PAGE_TIMEOUT)"
        raise RecognitionError(reason, momentary=True) from None
    except ValueError:
        raise RecognitionError("broke the reader off", momentary=True) from None
    finally:
        # Tesseract is the child's child.
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
    if isinstance(answer, str):
        import structlog  # noqa: PLC0415 - the readers of files, which are many, do without

        cause = errors.decode("utf-8", "replace")[-_LONGEST_CAUSE:]
        structlog.get_logger().warning(
            "page_not_recognised", file=path.name, page=page, cause=cause
        )
        raise RecognitionError(answer)
    return [tuple(word) for word in answer]


def _recognise(path: Path, page_number: int, known: Sequence[str]) -> list[RecognisedWord]:
    # The parent needs none of it.
    from rag_worker.documents.pdf import open_pdf  # noqa: PLC0415

    with open_pdf(path) as document:
        page = document[page_number - 1]
        width, height = page.get_size()
        scale = min(_DPI / 72, math.sqrt(_MOST_PIXELS / max(width * height, 1.0)))
        bitmap = page.render(scale=scale, grayscale=True, may_draw_forms=False)
        picture = bitmap.to_numpy().tobytes()
        header = b"P5 %d %d 255\n" % (bitmap.width, bitmap.height)
    command = ["tesseract", "stdin", "stdout", "-l", "+".join(known), "--psm", "3"]
    command += ["--dpi", str(max(round(72 * scale), 70)), "tsv"]
    # More threads make it slower, and the others' work, too.
    environment = os.environ | {"OMP_THREAD_LIMIT": "1"}
    read = subprocess.run(  # nosec B603  # Tesseract; the picture is its input
        command, input=header + picture, capture_output=True, check=True, env=environment
    )
    return _words(read.stdout.decode("utf-8", "replace"), scale, height)


def _words(table: str, scale: float, page_height: float) -> list[RecognisedWord]:
    """The words of Tesseract's table, straightened; those of one line get its size and place."""
    lines: dict[tuple[str, ...], list[tuple[str, Box]]] = {}
    for row in table.splitlines()[1:]:
        cells = row.split("\t")
        if len(cells) != 12 or cells[0] != "5" or float(cells[10]) < _LEAST_CONFIDENCE:
            continue
        left, top, width, height = (int(cell) / scale for cell in cells[6:10])
        box = Box(left, page_height - top - height, left + width, page_height - top)
        if cells[11].strip():
            lines.setdefault(tuple(cells[1:5]), []).append((cells[11], box))
    slope = _slope(lines.values())
    sizes = {key: _letter_size(words) for key, words in lines.items()}
    usual = statistics.median(sizes.values()) if sizes else 0.0
    found = []
    for key, words in lines.items():
        is_usual = _SAME_SIZE[0] * usual < sizes[key] < _SAME_SIZE[1] * usual
        size = round(usual if is_usual else sizes[key], 1)
        baseline = statistics.median(
            box.y0 - slope * box.x0 + (_DESCENT * size if _hangs(text) else 0)
            for text, box in words
        )
        bottom, top = round(baseline - _DESCENT * size, 1), round(baseline + _ASCENT * size, 1)
        found += [
            (text, round(box.x0, 1), bottom, round(box.x1, 1), top, size) for text, box in words
        ]
    return found


def _slope(lines: Iterable[list[tuple[str, Box]]]) -> float:
    """By how much the lines of a tilted scan rise for each point to the right."""
    slopes = []
    for words in lines:
        standing = [box for text, box in words if not _hangs(text)]
        if len(standing) >= 3 and standing[-1].x0 - standing[0].x0 > _LONG_LINE:
            first, last = standing[0], standing[-1]
            slopes.append((last.y0 - first.y0) / (last.x0 - first.x0))
    return statistics.median(slopes) if slopes else 0.0


def _hangs(text: str) -> bool:
    return bool(_DESCENDERS.search(text))


def _letter_size(words: list[tuple[str, Box]]) -> float:
    """The font size that the heights of a line's words speak for."""
    return statistics.median(
        box.height
        / (
            (_ASCENT if _ASCENDERS.search(text) else _X_HEIGHT)
            + (_DESCENT if _hangs(text) else 0.0)
        )
        for text, box in words
    )


def main() -> None:
    """Recognise the page that the request on standard input names."""
    request = json.load(sys.stdin)
    seconds = math.ceil(request["seconds"]) + 1
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer: list[RecognisedWord] | str
    try:
        answer = _recognise(Path(request["path"]), request["page"], request["languages"])
    except Exception as error:
        # The edge of one page: damaged pictures raise anything.
        traceback.print_exc()
        print(getattr(error, "stderr", ""), file=sys.stderr)
        answer = "is damaged"
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
