"""The course folder to a new generation of the index."""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from langchain_core.embeddings import Embeddings

from core.settings import Settings
from rag_worker.cache import IndexCache, Vectors
from rag_worker.documents import Limits, find_files, no_document, ocr, read_file
from rag_worker.embeddings import BUNDLED, embeddings
from rag_worker.generation import (
    FORMAT,
    CorruptIndexError,
    IndexedFile,
    Manifest,
    check_generation,
    current_name,
    publish_generation,
    write_manifest,
)
from rag_worker.language import LANGUAGES
from rag_worker.passages import Passage, content_hash
from rag_worker.relevance import bundled_vectors, questions_hash, reference_questions
from rag_worker.splitting import split

_BATCH = 64
"""Windows embedded and stored at once: two seconds of work that an interruption may cost."""


class IndexingError(Exception):
    """The index cannot be made; the message is one sentence that says what to do."""


class IndexBusyError(Exception):
    """Another process is indexing."""


def document_limits(settings: Settings) -> Limits:
    """What a document may have and take."""
    return Limits(
        max_mb=settings.document_max_mb,
        max_pages=settings.document_max_pages,
        seconds=settings.document_timeout,
        max_unpacked_mb=settings.document_max_unpacked_mb,
        max_characters=settings.document_max_characters,
    )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far indexing is: ``done`` of ``total`` files, passages or reference questions."""

    stage: Literal["reading", "embedding", "calibrating", "storing"]
    done: int
    total: int
    file: str | None = None


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What indexing found.

    Attributes:
        files: a row for each file, problems included.
        passages: how many the index holds.
        embedded: passages with a window whose vector was computed now.
        reused: passages whose vectors were all known.
        changed: whether a new generation was published.
    """

    files: tuple[IndexedFile, ...]
    passages: int
    embedded: int
    reused: int
    changed: bool


Snapshot = tuple[tuple[str, int, int], ...]
"""Name, size and time of change (ns) of every file of the course folder."""


def take_snapshot(folder: Path) -> Snapshot:
    """What the course folder holds, without reading the files.

    Raises:
        IndexingError: the folder cannot be read.
    """
    if not folder.is_dir():
        raise IndexingError(f"The folder {folder} is not there: DOCUMENT_LOCATION names it.")
    root = folder.resolve()
    rows = []
    for path in find_files(root):
        with contextlib.suppress(FileNotFoundError):  # removed since it was listed
            status = path.lstat() if no_document(path, root) else path.stat()
            # A file whose permissions are mended has changed too, and so has an older one that
            # takes its place: only the time of the last change of either kind tells.
            changed = max(status.st_mtime_ns, status.st_ctime_ns)
            rows.append((_printable(path.relative_to(root)), status.st_size, changed))
    return tuple(rows)


def _printable(path: Path) -> str:
    # A name in an older encoding can be neither stored nor sent, and one with a line end or an
    # escape character would write into mails and terminals: the file is reported by this one,
    # which does not open it.
    name = os.fsencode(path).decode("utf-8", errors="backslashreplace")
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in name
    )


def manifest_snapshot(manifest: Manifest) -> Snapshot:
    """What the course folder held when the generation was made."""
    return tuple((file.file, file.size, file.mtime_ns) for file in manifest.files)


def content_settings(settings: Settings) -> dict[str, Any]:
    """The settings that a generation depends on."""
    return {
        "embedding_model": settings.embedding_model,
        "document_max_mb": settings.document_max_mb,
        "document_max_unpacked_mb": settings.document_max_unpacked_mb,
        "document_max_characters": settings.document_max_characters,
        "document_max_pages": settings.document_max_pages,
        "document_timeout": settings.document_timeout,
        "ocr_page_timeout": settings.ocr_page_timeout,
        "ocr_languages": list(ocr.languages()),
    }


def index_documents(
    settings: Settings, progress: ProgressCallback | None = None, *, wait: bool = True
) -> IndexReport:
    """Bring the index up to date with the course folder.

    Only new content is read and embedded; where nothing changed, nothing is written. Takes the
    index's lock: of several processes one indexes, and with ``wait`` the others do so after it.

    Raises:
        IndexingError: the course folder or the index's folder cannot be used.
        IndexBusyError: another process is indexing, and ``wait`` is false.
    """
    if settings.document_location is None:
        raise IndexingError("The setting DOCUMENT_LOCATION is missing.")
    folder = settings.document_location.resolve()
    location = settings.index_location
    try:
        location.mkdir(parents=True, exist_ok=True)
        with _writer_lock(location, wait), IndexCache(location / "cache.sqlite3") as cache:
            # Its weights are read only where something is new.
            embedder = functools.cache(lambda: embeddings(settings))
            run = _Indexing(settings, folder, location, cache, progress or _silent, embedder)
            return run.run()
    except (OSError, sqlite3.Error) as error:
        raise IndexingError(f"The index in {location} cannot be written: {error}.") from error


def _silent(_progress: Progress) -> None:
    pass


@contextlib.contextmanager
def _writer_lock(location: Path, wait: bool) -> Iterator[None]:
    """Held by one process at a time; the kernel frees it when the process ends in any way."""
    with (location / "writer.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IndexBusyError from None
        yield


@dataclass(frozen=True, slots=True)
class _Indexing:
    """One run, under the lock."""

    settings: Settings
    folder: Path
    location: Path
    cache: IndexCache
    progress: ProgressCallback
    embedder: Callable[[], Embeddings]

    def run(self) -> IndexReport:
        snapshot = take_snapshot(self.folder)
        present = self._present()
        if (
            present
            and manifest_snapshot(present[1]) == snapshot
            and not self._may_do_better(present[1])
        ):
            return self._unchanged(present[1])
        files, passages, keys = self._read(snapshot, present[1] if present else None)
        manifest = Manifest(FORMAT, content_settings(self.settings), tuple(files))
        if present and _contents(present[1]) == _contents(manifest):
            # Touched, not changed.
            write_manifest(self.location, present[0], manifest)
            return self._unchanged(manifest)
        windows = [
            [(content_hash(text), text) for text in map(passage.embedded_text, passage.windows())]
            for passage in passages
        ]
        texts = {key: text for pairs in windows for key, text in pairs}
        known, new = self._embed(texts)
        vectors = [known[key] for pairs in windows for key, _ in pairs]
        matrix = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
        background = {language: self._background(language) for language in LANGUAGES}
        self.progress(Progress("storing", 0, len(passages)))
        publish_generation(self.location, manifest, passages, matrix, background)
        hashes = texts.keys() | {questions_hash(language) for language in LANGUAGES}
        # What a file was read as before is needed again once it can be read.
        if keys is not None:
            self.cache.keep_only(keys, self.settings.embedding_model, hashes)
        self.progress(Progress("storing", len(passages), len(passages)))
        embedded = sum(any(key in new for key, _ in pairs) for pairs in windows)
        return IndexReport(
            files=manifest.files,
            passages=len(passages),
            embedded=embedded,
            reused=len(passages) - embedded,
            changed=True,
        )

    def _present(self) -> tuple[str, Manifest] | None:
        """The published generation, if it can be read and was made as it would be now."""
        name = current_name(self.location)
        if name is None:
            return None
        try:
            manifest = check_generation(self.location, name)
        except CorruptIndexError:
            return None
        if manifest.settings != content_settings(self.settings):
            return None
        return name, manifest

    @staticmethod
    def _unchanged(manifest: Manifest) -> IndexReport:
        passages = sum(file.passages for file in manifest.files)
        return IndexReport(manifest.files, passages, embedded=0, reused=passages, changed=False)

    def _read(
        self, snapshot: Snapshot, present: Manifest | None
    ) -> tuple[list[IndexedFile], list[Passage], list[str] | None]:
        """The files, their passages, and the keys of all readings unless one failed for now."""
        known = {file.file: file for file in present.files} if present else {}
        files, passages, keys, is_complete = [], [], [], True
        for number, (name, size, mtime_ns) in enumerate(snapshot):
            self.progress(Progress("reading", number, len(snapshot), name))
            before = known.get(name)
            if before and (before.size, before.mtime_ns) == (size, mtime_ns):
                sha256 = before.sha256
            else:
                sha256 = self._hash(name)
            file = IndexedFile(name, size, mtime_ns, sha256, passages=0)
            key = self._reading_key(file)
            reading = self.cache.reading(key)
            if reading is None:
                reading = self._reading(file, Progress("reading", number, len(snapshot), name))
                # What only this moment is to blame for is tried again at the next indexing.
                if not reading["momentary"]:
                    self.cache.store_reading(key, reading)
                is_complete = is_complete and not reading["momentary"]
            keys += [key, *reading["recognised"]]
            found = [Passage(file=name, **passage) for passage in reading["passages"]]
            passages += found
            files.append(
                replace(
                    file,
                    passages=len(found),
                    pages=reading["pages"],
                    problem=reading["problem"],
                )
            )
        self.progress(Progress("reading", len(snapshot), len(snapshot)))
        return files, passages, keys if is_complete else None

    def _may_do_better(self, manifest: Manifest) -> bool:
        """Whether a file's problem was the moment's fault: such readings are not stored."""
        return any(
            file.problem and self.cache.reading(self._reading_key(file)) is None
            for file in manifest.files
        )

    def _hash(self, name: str) -> str:
        path = self.folder / name
        if problem := no_document(path, self.folder):
            return f"unreadable: {problem}"
        try:
            # A pipe that takes the file's place now must not keep us waiting for its other end.
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as content:
                if not stat.S_ISREG(os.fstat(content.fileno()).st_mode):
                    return "unreadable: no file"
                return hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            return f"unreadable: {error.strerror}"

    def _reading_key(self, file: IndexedFile) -> str:
        limits = content_settings(self.settings) | {"embedding_model": None}
        suffix = Path(file.file).suffix.lower()
        return json.dumps([FORMAT, file.sha256, suffix, limits])

    def _reading(self, file: IndexedFile, progress: Progress) -> dict[str, Any]:
        limits = document_limits(self.settings)
        if problem := no_document(self.folder / file.file, self.folder):
            return {
                "passages": [],
                "pages": None,
                "problem": problem,
                "momentary": False,
                "recognised": [],
            }
        recognised: list[str] = []

        def recognise(
            pages: Sequence[int],
        ) -> dict[int, list[ocr.RecognisedWord] | ocr.RecognitionError]:
            found = {}
            for page in pages:
                self.progress(replace(progress, file=f"{file.file}, page {page}"))
                key = json.dumps([ocr.FORMAT, file.sha256, page, ocr.languages()])
                found[page] = self._recognised(file.file, page, key)
                recognised.append(key)
            return found

        text = read_file(
            self.folder / file.file, file.file, limits, recognise if ocr.languages() else None
        )
        passages = [asdict(passage) for passage in split(text.documents)] if text.documents else []
        for passage in passages:
            del passage["file"]  # the same content may go by another name tomorrow
        return {
            "passages": passages,
            "pages": text.pages,
            "problem": text.problem,
            "momentary": text.momentary,
            "recognised": recognised,
        }

    def _recognised(
        self, name: str, page: int, key: str
    ) -> list[ocr.RecognisedWord] | ocr.RecognitionError:
        """The words of a scanned page, or why there are none; stored at once, for it is slow."""
        words: list[ocr.RecognisedWord] | None = self.cache.reading(key)
        if words is None:
            try:
                words = ocr.recognise_page(
                    self.folder / name, page, self.settings.ocr_page_timeout, ocr.languages()
                )
            except ocr.RecognitionError as error:
                return error
            self.cache.store_reading(key, words)
        return words

    def _embed(self, texts: dict[str, str]) -> tuple[dict[str, Vectors], set[str]]:
        """The vectors of ``texts`` by their hashes, and which had to be computed."""
        model = self.settings.embedding_model
        vectors = self.cache.vectors(model, list(texts))
        missing = [hash_ for hash_ in texts if hash_ not in vectors]
        if missing:
            embedder = self.embedder()
            for start in range(0, len(missing), _BATCH):
                self.progress(Progress("embedding", start, len(missing)))
                some = missing[start : start + _BATCH]
                computed = _unit(embedder.embed_documents([texts[hash_] for hash_ in some]))
                pairs = list(zip(some, computed, strict=True))
                self.cache.store_vectors(model, pairs)
                vectors.update(pairs)
            self.progress(Progress("embedding", len(missing), len(missing)))
        return vectors, set(missing)

    def _background(self, language: str) -> Vectors:
        """The vectors of the reference questions, one a row; computed once."""
        model = self.settings.embedding_model
        if model == BUNDLED and (bundled := bundled_vectors(language)) is not None:
            return bundled
        questions, key = reference_questions(language), questions_hash(language)
        known = self.cache.vectors(model, [key])
        if not known:
            embedder = self.embedder()
            found = []
            for number, question in enumerate(questions):
                self.progress(Progress("calibrating", number, len(questions)))
                found.append(embedder.embed_query(question))
            self.progress(Progress("calibrating", len(questions), len(questions)))
            computed = _unit(found)
            self.cache.store_vectors(model, [(key, computed)])
            return computed
        return known[key].reshape(len(questions), -1)


def _unit(vectors: list[list[float]]) -> Vectors:
    array: Vectors = np.asarray(vectors, dtype=np.float32)
    array /= np.linalg.norm(array, axis=1, keepdims=True)
    return array


def _contents(manifest: Manifest) -> list[tuple[str, str, str | None, int]]:
    return [(file.file, file.sha256, file.problem, file.passages) for file in manifest.files]


BUSY_EXIT = 75
"""The exit status of the indexing process when another one is at work (EX_TEMPFAIL)."""


def main() -> None:
    """Index once: settings as JSON on standard input, the report as JSON on standard output."""
    settings = Settings(_env_file=None, **json.load(sys.stdin))
    try:
        report = index_documents(settings, wait=False)
    except IndexBusyError:
        sys.exit(BUSY_EXIT)
    except IndexingError as error:
        sys.exit(str(error))
    json.dump(asdict(report), sys.stdout)


if __name__ == "__main__":
    main()
