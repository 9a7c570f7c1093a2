"""The course folder followed while a worker runs."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.settings import Settings
from rag_worker.indexing import index_documents
from rag_worker.watching import IndexWatcher


async def looked(settings: Settings) -> IndexWatcher:
    """A watcher that has looked until there is nothing more to do."""
    with ThreadPoolExecutor(1) as thread:
        watcher = IndexWatcher(settings, thread)
        for _ in range(3):
            await watcher.look(asyncio.Event())
        return watcher


async def test_settings_that_changed_while_no_worker_ran_are_followed(tmp_path: Path) -> None:
    folder = tmp_path / "curso"
    folder.mkdir()
    (folder / "a.md").write_text("# Examen\n\nEl examen es el jueves.\n")
    (folder / "b.md").write_text("# Notas\n\n" + "La nota final es la media. " * 40)
    settings = Settings(document_location=folder, index_location=tmp_path / "index")
    assert index_documents(settings).passages >= 2
    narrow = settings.model_copy(update={"document_max_characters": 200})
    watcher = await looked(narrow)
    assert watcher.retriever is not None
    made = watcher.retriever.generation
    assert [file.problem is None for file in made.manifest.files] == [True, False]
    again = await looked(narrow)
    assert again.retriever is not None
    assert again.retriever.generation.name == made.name


async def test_worker_with_other_settings_does_not_undo_what_it_finds_later(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "curso"
    folder.mkdir()
    (folder / "a.md").write_text("# Examen\n\nEl examen es el jueves.\n")
    settings = Settings(document_location=folder, index_location=tmp_path / "index")
    index_documents(settings)
    other = settings.model_copy(update={"document_max_pages": 7})
    with ThreadPoolExecutor(1) as thread:
        watcher = IndexWatcher(settings, thread)
        await watcher.look(asyncio.Event())
        index_documents(other)
        for _ in range(3):
            await watcher.look(asyncio.Event())
        assert watcher.retriever is not None
        assert watcher.retriever.generation.manifest.settings["document_max_pages"] == 7


async def test_process_that_reads_the_documents_is_given_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "curso"
    folder.mkdir()
    (folder / "a.md").write_text("# Examen\n\nEl examen es el jueves.\n")
    given = tmp_path / "given"
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nenv > {given}\ntee -a {given} | {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    monkeypatch.setenv("MONGO_URL", "mongodb://consulta:s3cret@127.0.0.1/consulta")
    settings = Settings(
        document_location=folder,
        index_location=tmp_path / "index",
        llm_model="azure_openai:gpt",
        azure_openai_endpoint="https://example.openai.azure.com",
        azure_openai_api_key=SecretStr("s3cret"),
        openai_api_version="2024-10-21",
    )
    assert (await looked(settings)).retriever is not None
    assert "document_location" in given.read_text()
    assert "s3cret" not in given.read_text()
