"""Follows the course folder while the worker runs."""

import asyncio
import contextlib
import json
import os
import sys
import time
from concurrent.futures import Executor
from pathlib import Path

import structlog

import rag_worker
from core import metrics
from core.settings import Settings
from core.worker import pause
from rag_worker.embeddings import embeddings
from rag_worker.generation import CorruptIndexError, Generation, current_name, open_generation
from rag_worker.indexing import (
    BUSY_EXIT,
    IndexingError,
    Snapshot,
    content_settings,
    manifest_snapshot,
    take_snapshot,
)
from rag_worker.retrieval import Retriever

_SETTLED_SECONDS = 2.0
"""A file that changed more recently may still be being copied."""
_RETRY_SECONDS = 60.0
"""Pause after an indexing that failed, unless the folder changes."""
_PASSED_ON = {
    *("document_location", "index_location", "embedding_model", "ollama_server_url"),
    *("document_max_mb", "document_max_unpacked_mb", "document_max_characters"),
    *("document_max_pages", "document_timeout", "ocr_page_timeout"),
}
"""The settings that indexing needs: no secrets are among them."""

log = structlog.get_logger()


class IndexWatcher:
    """Has the index brought up to date when the folder changes, and opens what is published.

    Indexing is a process of its own: its memory is returned, and questions are answered from the
    present generation until the next one is complete.
    """

    def __init__(self, settings: Settings, search_thread: Executor) -> None:
        self._settings = settings
        self._search_thread = search_thread
        self._embeddings = embeddings(settings)
        self._generation: Generation | None = None
        self._previous: Snapshot | None = None
        self._failed: tuple[Snapshot, float] | None = None
        self._problem: str | None = None
        self._follows_settings = False
        self.retriever: Retriever | None = None
        """Searches the present generation; None before there is one."""

    async def run(self, stop: asyncio.Event) -> None:
        """Look at the folder every RESCAN_SECONDS until ``stop`` is set."""
        while not stop.is_set():
            waits_for_copy = await self.look(stop)
            rest = self._settings.rescan_seconds
            await pause(stop, min(rest, _SETTLED_SECONDS) if waits_for_copy else rest)

    async def look(self, stop: asyncio.Event) -> bool:
        """Open a generation that was published; index when the folder differs from it.

        Returns:
            Whether a change was seen that may not be complete yet.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._search_thread, self._open_published)
        try:
            folder = self._settings.document_location or Path()
            snapshot = await asyncio.to_thread(take_snapshot, folder)
        except (IndexingError, OSError) as error:
            self._report(str(error))
            return False
        previous, self._previous = self._previous, snapshot
        if self._is_current(snapshot):
            self._failed = None
            return False
        if not _is_settled(snapshot, previous):
            return True
        if self._failed and self._failed[0] == snapshot and time.monotonic() < self._failed[1]:
            return False
        if await self._index(stop):
            self._follows_settings = True
            await loop.run_in_executor(self._search_thread, self._open_published)
        else:
            self._failed = snapshot, time.monotonic() + _RETRY_SECONDS
        return False

    def _is_current(self, snapshot: Snapshot) -> bool:
        """Whether the generation is what indexing would make now.

        Its settings are looked at once, for those that changed while no worker ran: of two workers
        with different ones, each would else undo what the other does.
        """
        if self._generation is None or manifest_snapshot(self._generation.manifest) != snapshot:
            return False
        made_with = self._generation.manifest.settings
        if not self._follows_settings and made_with != content_settings(self._settings):
            log.info("settings_changed")
            return False
        self._follows_settings = True
        return True

    def _open_published(self) -> None:
        location = self._settings.index_location
        try:
            name = current_name(location)
            if name is None:
                return
            if self._generation is None or self._generation.name != name:
                generation = open_generation(location, name)
                if not self._fits(generation):
                    return
                self._generation = generation
                self.retriever = Retriever(generation, self._embeddings)
                log.info("index_opened", passages=len(generation.passages), generation=name)
        except (CorruptIndexError, OSError) as error:
            # It is built again, and until then the generation in memory answers.
            self._report(f"The index cannot be read: {error}")

    def _fits(self, generation: Generation) -> bool:
        model = content_settings(self._settings)["embedding_model"]
        return bool(generation.manifest.settings.get("embedding_model") == model)

    async def _index(self, stop: asyncio.Event) -> bool:
        """Run the indexing process; whether the index is now up to date or soon will be."""
        packages = str(Path(rag_worker.__file__).parent.parent)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name.lower() not in Settings.model_fields
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "rag_worker.indexing"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**environment, "PYTHONPATH": packages},
        )
        request = self._settings.model_dump_json(include=_PASSED_ON).encode()
        talking = asyncio.create_task(process.communicate(request))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({talking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if process.returncode is None and not talking.done():
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
        output, errors = await talking
        if process.returncode == 0:
            self._report_index(output)
            return True
        if process.returncode == BUSY_EXIT or stop.is_set():
            return True
        lines = errors.decode(errors="replace").strip().splitlines() or ["no reason given"]
        metrics.count_fault(metrics.Fault.INDEXING_FAILED)
        log.error("indexing_failed", error=lines[-1], exit=process.returncode)
        return False

    def _report_index(self, output: bytes) -> None:
        self._problem = None
        report = json.loads(output)
        for file in report["files"]:
            if file["problem"]:
                log.warning("document_problem", file=file["file"], problem=file["problem"])
        if not report["files"]:
            log.warning("no_documents", folder=str(self._settings.document_location))
        log.info(
            "indexed",
            files=len(report["files"]),
            passages=report["passages"],
            embedded=report["embedded"],
        )

    def _report(self, problem: str) -> None:
        """Log a problem once, not at every look."""
        if problem != self._problem:
            self._problem = problem
            metrics.count_fault(metrics.Fault.INDEXING_FAILED)
            log.error("index_problem", problem=problem)


def _is_settled(snapshot: Snapshot, previous: Snapshot | None) -> bool:
    """Whether every file has its final content, as far as size and time tell."""
    now = time.time()
    young = any(0 <= now - mtime_ns / 1e9 < _SETTLED_SECONDS for _, _, mtime_ns in snapshot)
    return not young or snapshot == previous
