"""PDF parsers side by side: what they find of a text that is known, and how long they take.

    python benchmarks/parsers.py BOOK.pdf=BOOK.txt GUIDE.pdf=GUIDE_HTML_FOLDER/ …

The truth is a text or HTML file, also packed with gzip, or a folder of HTML files. Found is the
share of its sequences of five words that are in the parser's text: lost text, columns read across
and words cut by hyphens lower it. True is the share of the parser's sequences that are in the
truth: page headers and footers in the midst of sentences lower it. Parsers that are not installed
are left out; PyMuPDF is there for comparison only, its licence (AGPL) rules it out.
"""

import argparse
import gzip
import importlib.metadata
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
from bs4 import BeautifulSoup
from rich.console import Console
from rich.table import Table

from rag_worker.documents.pdf import load_pdf
from rag_worker.documents.sections import Sections

WORDS = 5


@dataclass(frozen=True, slots=True)
class Parser:
    """A way to read a PDF, with the packages that it needs beside Python."""

    name: str
    read: Callable[[Path], str]
    packages: tuple[str, ...]
    licence: str


def ours(path: Path) -> str:
    """What Consulta reads, with the headings at their places."""
    sections = Sections(path.name, 10**8)
    load_pdf(path, sections, max_pages=100_000)
    texts: list[str] = []
    heading: str | int | None = None
    for section in sections.all():
        if section.metadata["heading"] != heading:
            heading = section.metadata["heading"]
            texts.append(str(heading or "").rpartition(" › ")[2])
        texts.append(section.text)
    return "\n".join(texts)


def pdfium(path: Path) -> str:
    """PDFium's own text."""
    with pypdfium2.PdfDocument(path) as document:
        return "\n".join(page.get_textpage().get_text_bounded() for page in document)


def pdfplumber(path: Path) -> str:
    """pdfplumber's text."""
    import pdfplumber as library  # noqa: PLC0415

    with library.open(path) as document:
        return "\n".join(page.extract_text() for page in document.pages)


def pdfminer(path: Path) -> str:
    """pdfminer.six with its layout analysis."""
    from pdfminer.high_level import extract_text  # noqa: PLC0415

    return str(extract_text(path))


def pypdf(path: Path) -> str:
    """pypdf's text."""
    import pypdf as library  # noqa: PLC0415

    return "\n".join(page.extract_text() for page in library.PdfReader(path).pages)


def pymupdf(path: Path) -> str:
    """PyMuPDF's text, sorted by place."""
    import pymupdf as library  # noqa: PLC0415

    with library.open(path) as document:
        return "\n".join(page.get_text(sort=True) for page in document)


def pdftotext(*options: str) -> Callable[[Path], str]:
    """Poppler's program with ``options``."""

    def read(path: Path) -> str:
        command = ["pdftotext", *options, str(path), "-"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return read


PARSERS = (
    Parser("PDFium, laid out by Consulta", ours, ("pypdfium2",), "BSD-3, Apache-2.0"),
    Parser("PDFium, its own text", pdfium, ("pypdfium2",), "BSD-3, Apache-2.0"),
    Parser(
        "pdfplumber",
        pdfplumber,
        ("pdfplumber", "pdfminer.six", "pillow", "pypdfium2", "cryptography"),
        "MIT",
    ),
    Parser("pdfminer.six", pdfminer, ("pdfminer.six", "cryptography"), "MIT"),
    Parser("pypdf", pypdf, ("pypdf",), "BSD-3"),
    Parser("pdftotext", pdftotext(), (), "GPL-2"),
    Parser("pdftotext -layout", pdftotext("-layout"), (), "GPL-2"),
    Parser("pdftotext -raw", pdftotext("-raw"), (), "GPL-2"),
    Parser("PyMuPDF (sorted)", pymupdf, ("pymupdf",), "AGPL-3"),
)


def megabytes(parser: Parser) -> str:
    """What the parser's packages take on disk."""
    if not parser.packages:
        return "system"
    total = 0
    for package in parser.packages:
        for file in importlib.metadata.files(package) or ():
            path = Path(str(file.locate()))
            total += path.stat().st_size if path.is_file() else 0
    return f"{total / 2**20:.0f}"


def is_installed(parser: Parser) -> bool:
    """Whether all that the parser needs is there."""
    try:
        for package in parser.packages:
            importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return bool(parser.packages) or shutil.which("pdftotext") is not None


def unpacked(path: Path) -> bytes:
    """A file's content."""
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def truth_text(path: Path) -> str:
    """The text of a truth, in the order of the files' names."""
    files = sorted(path.rglob("*.html")) if path.is_dir() else [path]
    texts = []
    for file in files:
        text = unpacked(file).decode("utf-8", "replace")
        if ".htm" in file.name:
            page = BeautifulSoup(text, "lxml")
            for part in page(["script", "style", "nav", "head"]):
                part.decompose()
            text = page.get_text(" ")
        texts.append(text)
    return "\n".join(texts)


def sequences(text: str) -> Counter[tuple[str, ...]]:
    """How often each sequence of five words occurs."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())
    return Counter(zip(*(words[at:] for at in range(WORDS)), strict=False))


@dataclass(frozen=True, slots=True)
class Result:
    """Shares from 0 to 1, and seconds of processor time for a page."""

    found: float
    true: float
    seconds: float


def measure(parser: Parser, path: Path, truth: Counter[tuple[str, ...]]) -> Result:
    """Read one file."""
    with pypdfium2.PdfDocument(path) as document:
        pages = len(document)
    start = os.times()
    text = parser.read(path)
    end = os.times()
    # Processor time, also of programs that were started: other work on the machine does not count.
    seconds = sum(end[:4]) - sum(start[:4])
    got = sequences(text)
    common = (got & truth).total()
    return Result(common / truth.total(), common / max(got.total(), 1), seconds / pages)


def pairs(arguments: list[str], folder: Path) -> Iterator[tuple[Path, Path]]:
    """The files that the arguments name, unpacked."""
    for argument in arguments:
        pdf, _, truth = argument.partition("=")
        path = Path(pdf)
        if path.suffix == ".gz":
            path = folder / path.stem
            path.write_bytes(unpacked(Path(pdf)))
        yield path, Path(truth)


def main() -> None:
    """Print a table for each file and one for all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pair", nargs="+", help="PDF=TRUTH")
    parser.add_argument("--only", help="parsers whose name begins like this")
    arguments = parser.parse_args()
    chosen = [
        one for one in PARSERS if is_installed(one) and one.name.startswith(arguments.only or "")
    ]
    console = Console(width=110)
    results: dict[str, list[Result]] = {one.name: [] for one in chosen}
    with tempfile.TemporaryDirectory() as folder:
        for path, truth_path in pairs(arguments.pair, Path(folder)):
            truth = sequences(truth_text(truth_path))
            table = Table("parser", "found %", "true %", "ms/page", title=path.name)
            for one in chosen:
                result = measure(one, path, truth)
                results[one.name].append(result)
                table.add_row(one.name, *cells(result))
            console.print(table)
    table = Table("parser", "found %", "true %", "ms/page", "MB", "licence", title="mean")
    for one in chosen:
        mean = Result(
            *(
                statistics.mean(getattr(result, name) for result in results[one.name])
                for name in ("found", "true", "seconds")
            )
        )
        table.add_row(one.name, *cells(mean), megabytes(one), one.licence)
    console.print(table)


def cells(result: Result) -> tuple[str, str, str]:
    """A result as it is printed."""
    return f"{result.found:.1%}"[:-1], f"{result.true:.1%}"[:-1], f"{result.seconds * 1000:.0f}"


if __name__ == "__main__":
    main()
