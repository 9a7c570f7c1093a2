"""A finished index on disk, never changed once published: readers open it, one writer makes it.

Embedded Chroma is not for several processes on one folder, so every state of the documents is a
folder of its own, a generation, and a pointer file that is renamed into place names the present
one. A reader holds what it needs in memory, so old generations can be removed under it.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import bm25s
import chromadb
import numpy as np
from bm25s.tokenization import Tokenized
from chromadb.config import Settings as ChromaSettings
from chromadb.errors import ChromaError
from numpy.typing import NDArray

from rag_worker.cache import Vectors
from rag_worker.language import terms
from rag_worker.passages import Passage

Rows = NDArray[np.intp]

FORMAT = 4
"""Raised when what is stored changes its form, or files are read otherwise: older generations are
built again, of which only what is new is embedded."""
_POINTER = "current"
_GENERATIONS = "generations"
_MANIFEST = "manifest.json"
_BACKGROUND = "background.npz"
_DATABASE = Path("chroma", "chroma.sqlite3")
_COLLECTION = "windows"
_KEPT = 2
"""Generations that stay: the present one and the one that readers may just be opening."""
_BATCH = 500


class CorruptIndexError(Exception):
    """A generation cannot be read; it has to be built again."""


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """One file of the course folder as it was when it was indexed."""

    file: str
    size: int
    mtime_ns: int
    sha256: str
    passages: int
    pages: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a generation was made from.

    ``settings`` are those that change its content: another value means to build it again.
    """

    format: int
    settings: dict[str, Any]
    files: tuple[IndexedFile, ...]

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote."""
        stored = json.loads(text)
        files = tuple(IndexedFile(**file) for file in stored["files"])
        return cls(stored["format"], stored["settings"], files)

    def to_json(self) -> str:
        """For the manifest's file."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)


@dataclass(frozen=True, slots=True)
class WordIndex:
    """BM25 over the passages of one language; ``rows`` are their places among all passages."""

    rows: Rows
    bm25: bm25s.BM25
    document_frequency: dict[str, int]

    def scores(self, question_terms: Sequence[str]) -> Vectors:
        """A score for each of ``rows``."""
        known = [term for term in question_terms if term in self.document_frequency]
        if not known:
            return np.zeros(len(self.rows), dtype=np.float32)
        return np.asarray(self.bm25.get_scores(known), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation in memory.

    Attributes:
        vectors: one row for each window of the passages, in their order; unit length, float32.
        starts: for each passage the row of its first window.
        background: for each language the vectors of its reference questions.
    """

    name: str
    manifest: Manifest
    passages: tuple[Passage, ...]
    vectors: Vectors
    starts: Rows
    words: dict[str, WordIndex]
    background: dict[str, Vectors]


def current_name(location: Path) -> str | None:
    """The name of the published generation; None before the first."""
    try:
        return (location / _POINTER).read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def read_manifest(location: Path, name: str) -> Manifest:
    """What generation ``name`` was made from.

    Raises:
        CorruptIndexError: it cannot be read.
    """
    try:
        return Manifest.from_json(_folder(location, name).joinpath(_MANIFEST).read_text("utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptIndexError(f"{name}: {error}") from error


def check_generation(location: Path, name: str) -> Manifest:
    """What generation ``name`` was made from; a look at its store that reads few of its vectors.

    10,000 passages take about a second, of which `open_generation` would make half a minute.

    Raises:
        CorruptIndexError: it cannot be read, or is of another format.
    """
    with _reading(location, name) as (manifest, folder), _collection(folder) as collection:
        _background(folder)
        with contextlib.closing(sqlite3.connect(folder / _DATABASE)) as database:
            if database.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                raise CorruptIndexError(f"{name}: {_DATABASE} is damaged")
        last = collection.get(
            ids=[f"{collection.count() - 1:08d}"], include=["metadatas", "embeddings"]
        )
        _check_passages(manifest, name, sum(place["passage"] + 1 for place in last["metadatas"]))
    return manifest


def open_generation(location: Path, name: str) -> Generation:
    """Read generation ``name`` into memory: 10,000 passages take about 100 MB.

    Raises:
        CorruptIndexError: it cannot be read, or is of another format.
    """
    with _reading(location, name) as (manifest, folder):
        with _collection(folder) as collection:
            passages, vectors, starts = _read_passages(collection)
        background = _background(folder)
        _check_passages(manifest, name, len(passages))
    words = word_indexes(passages)
    return Generation(name, manifest, passages, vectors, starts, words, background)


@contextlib.contextmanager
def _reading(location: Path, name: str) -> Iterator[tuple[Manifest, Path]]:
    """The manifest and the folder of a generation, while its store is read."""
    manifest = read_manifest(location, name)
    if manifest.format != FORMAT:
        raise CorruptIndexError(f"{name} has format {manifest.format}, this is {FORMAT}")
    try:
        yield manifest, _folder(location, name)
    except CorruptIndexError:
        raise
    except Exception as error:
        # Chroma and SQLite raise anything on a damaged folder.
        raise CorruptIndexError(f"{name}: {error}") from error


def _check_passages(manifest: Manifest, name: str, held: int) -> None:
    if held != sum(file.passages for file in manifest.files):
        raise CorruptIndexError(f"{name} holds {held} passages, not what it was made from")


def _background(folder: Path) -> dict[str, Vectors]:
    with np.load(folder / _BACKGROUND) as stored:
        return dict(stored)


def publish_generation(
    location: Path,
    manifest: Manifest,
    passages: Sequence[Passage],
    vectors: Vectors,
    background: dict[str, Vectors],
) -> str:
    """Write a new generation and make it the present one, in one step that cannot be seen half.

    ``vectors`` has a row for each window of the passages. Only the holder of the index's lock may
    call it.

    Returns:
        Its name.

    Raises:
        OSError: it cannot be written.
    """
    name = uuid.uuid4().hex
    folder = _folder(location, name)
    _remove_unfinished(location)
    folder.mkdir(parents=True)
    try:
        _write_chroma(folder, passages, vectors)
    except ChromaError as error:
        raise OSError(str(error)) from error
    np.savez(folder / _BACKGROUND, **background)  # type: ignore[arg-type]
    write_manifest(location, name, manifest)
    previous = current_name(location)
    _replace(location / _POINTER, name)
    _remove_old(location, keep=(name, previous))
    return name


def write_manifest(location: Path, name: str, manifest: Manifest) -> None:
    """Write or replace what generation ``name`` was made from."""
    _replace(_folder(location, name) / _MANIFEST, manifest.to_json())


def _folder(location: Path, name: str) -> Path:
    return location / _GENERATIONS / name


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _remove_old(location: Path, keep: tuple[str | None, ...]) -> None:
    for folder in (location / _GENERATIONS).iterdir():
        if folder.name not in keep:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_unfinished(location: Path) -> None:
    """What was killed, or found the disk full, leaves no manifest. It is tried again for ever."""
    for folder in (location / _GENERATIONS).glob("*"):
        if not (folder / _MANIFEST).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _chroma(folder: Path) -> Any:
    return chromadb.PersistentClient(
        str((folder / _DATABASE).parent), settings=ChromaSettings(anonymized_telemetry=False)
    )


_PLACE = tuple(part.name for part in fields(Passage) if part.name != "text")


def _write_chroma(folder: Path, passages: Sequence[Passage], vectors: Vectors) -> None:
    client = _chroma(folder)
    try:
        # The vectors are given, so that Chroma never asks for its own embedding model.
        collection = client.create_collection(
            _COLLECTION, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )
        rows = [
            (window, {"passage": number} | _place(passage))
            for number, passage in enumerate(passages)
            for window in passage.windows()
        ]
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            collection.add(
                ids=[f"{number:08d}" for number in range(start, start + len(some))],
                documents=[window for window, _ in some],
                embeddings=vectors[start : start + len(some)],
                metadatas=[place for _, place in some],
            )
    finally:
        client.close()


def _place(passage: Passage) -> dict[str, Any]:
    # Chroma holds no None.
    place = {name: getattr(passage, name) for name in _PLACE}
    return {name: value for name, value in place.items() if value is not None}


@contextlib.contextmanager
def _collection(folder: Path) -> Iterator[Any]:
    if not (folder / _DATABASE).is_file():
        raise FileNotFoundError(_DATABASE)
    client = _chroma(folder)
    try:
        yield client.get_collection(_COLLECTION, embedding_function=None)
    finally:
        client.close()


def _read_passages(collection: Any) -> tuple[tuple[Passage, ...], Vectors, Rows]:
    passages: list[Passage] = []
    vectors = []
    starts: list[int] = []
    count = collection.count()
    for start in range(0, count, _BATCH):
        ids = [f"{number:08d}" for number in range(start, min(start + _BATCH, count))]
        rows = collection.get(ids=ids, include=["documents", "metadatas", "embeddings"])
        # Chroma gives them in any order.
        order = sorted(range(len(rows["ids"])), key=rows["ids"].__getitem__)
        for row, at in enumerate(order, start):
            place, window = rows["metadatas"][at], rows["documents"][at]
            if place.pop("passage") == len(passages):
                starts.append(row)
                passages.append(Passage(text=window, **dict.fromkeys(_PLACE) | place))
            else:
                passages[-1] = replace(passages[-1], text=passages[-1].text + window)
        vectors.append(np.asarray(rows["embeddings"], dtype=np.float32)[order])
    windows = np.vstack(vectors) if vectors else np.zeros((0, 0), np.float32)
    return tuple(passages), windows, np.array(starts, dtype=np.intp)


def word_indexes(passages: Sequence[Passage]) -> dict[str, WordIndex]:
    """BM25 for each language. Built anew by every reader: faster than reading it from disk."""
    indexes = {}
    for language in {passage.language for passage in passages}:
        rows = [at for at, passage in enumerate(passages) if passage.language == language]
        vocabulary: dict[str, int] = {}
        frequency: dict[str, int] = {}
        ids = []
        for row in rows:
            words = terms(passages[row].searched_text, language)
            ids.append([vocabulary.setdefault(word, len(vocabulary)) for word in words])
            for word in set(words):
                frequency[word] = frequency.get(word, 0) + 1
        if vocabulary:
            bm25 = bm25s.BM25()
            bm25.index(Tokenized(ids=ids, vocab=vocabulary), show_progress=False)
            indexes[language] = WordIndex(np.array(rows), bm25, frequency)
    return indexes
