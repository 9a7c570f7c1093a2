"""Disks that are full or read-only, and memory that ends."""

import resource
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.faults.laboratory import Laboratory, Tally, failing, laboratory
from tests.journeys.department import COURSE, eventually

Count = Callable[[Tally], Tally]

_WRITES = "write,pwrite64,pwritev,fdatasync,fsync,ftruncate"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param("full", "ENOSPC", marks=pytest.mark.quick),
        ("read-only", "EROFS"),
        ("broken", "EIO"),
    ],
)
def test_question_that_cannot_be_written_is_refused_and_later_accepted(
    tmp_path: Path, course_index: Path, counted: Count, fault: str, error: str
) -> None:
    # So few that each question is counted in the users' database.
    with laboratory(tmp_path, index=course_index, ADDRESS_QUESTIONS_PER_HOUR="39") as lab:
        lab.begin()
        lab.ask()
        lab.wait_for_mails()
        data = [str(path) for path in (tmp_path / "data").iterdir()]
        began = time.monotonic()
        with failing(lab.queue.process, _WRITES, error, data):
            replies = [lab.try_to_ask("¿Qué es un diodo?", f"key-{n}") for n in range(5)]
        with failing(lab.processes["api"], f"{_WRITES},openat", error, _users_files(lab)):
            replies += [lab.try_to_ask("¿Qué es un diodo?", f"key-{n}") for n in range(5)]
        seconds = time.monotonic() - began
        assert [reply and reply.status_code for reply in replies] == [503] * 10
        assert all(reply and "Retry-After" in reply.headers for reply in replies)
        stored = lab.documents()
        assert len(stored) == 1
        for _ in range(2):
            lab.ask()
        tally = counted(lab.tally(f"disk {fault}", len(replies)))
    assert tally.lost == 0
    assert lab.restarts == 0
    assert seconds < 3 * len(replies)


def _users_files(lab: Laboratory) -> list[str]:
    file = lab.folder / "users.sqlite"
    return [str(file), f"{file}-journal"]


_ZENER = "El diodo Zener del montaje de prueba tiene la referencia QX-4711.\n" * 3


@pytest.mark.parametrize(("fault", "error"), [("full", "ENOSPC"), ("read-only", "EROFS")])
def test_index_that_cannot_be_written_stops_no_answer_and_is_written_later(
    tmp_path: Path, course_index: Path, counted: Count, fault: str, error: str
) -> None:
    documents = tmp_path / "documents"
    shutil.copytree(COURSE, documents)
    for number in range(2):
        (documents / f"old-{number}.txt").write_text("Un texto que ya no vale.\n")
    index = tmp_path / "index"
    with laboratory(
        tmp_path, index=course_index, DOCUMENT_LOCATION=str(documents), RESCAN_SECONDS="1"
    ) as lab:
        lab.begin()
        _wait_for_index(lab, 1)
        cache = (index / "cache.sqlite3").stat().st_ino
        # Of files only the databases are written so: its cache, and Chroma's.
        with failing(lab.processes["worker"], "pwrite64,fdatasync,fsync,ftruncate", error, ()):
            # Nothing is new, so that it is Chroma that cannot write; then its cache cannot.
            for number in range(2):
                (documents / f"old-{number}.txt").unlink()
                _wait_for_failures(lab, number + 1)
            # Of what cannot be written no more is left with each attempt.
            unfinished = [
                folder
                for folder in (index / "generations").iterdir()
                if not (folder / "manifest.json").exists()
            ]
            lab.ask()
            (documents / "new.txt").write_text(_ZENER)
            _wait_for_failures(lab, 3)
            lab.ask()
            lab.wait_for_mails()
        # By itself, a minute after the last attempt.
        _wait_for_index(lab, 2)
        lab.ask("¿Qué referencia tiene el diodo Zener del montaje de prueba?")
        tally = counted(lab.tally(f"disk {fault} for the index", 3))
        failures = [line for line in lab.log("worker").splitlines() if "indexing_failed" in line]
        stored = {document["_id"]: document for document in lab.documents()}
    assert tally == Tally(tally.fault, 3, 3, 3, 3, 0)
    assert all(f"The index in {index} cannot be written" in line for line in failures)
    assert (index / "cache.sqlite3").stat().st_ino == cache
    assert len(unfinished) <= 1
    assert "QX-4711" in stored[lab.accepted[-1]]["output"]


def _wait_for_index(lab: Laboratory, number: int) -> None:
    """Until the worker answers from the index that it made at this turn, after the first one."""
    eventually(lambda: lab.log("worker").count("index_opened") > number, 180, f"Index {number}")


def _wait_for_failures(lab: Laboratory, number: int) -> None:
    eventually(
        lambda: lab.log("worker").count("indexing_failed") >= number, 180, f"Failure {number}"
    )


def test_file_that_reaches_the_memory_limit_is_named_and_the_rest_is_read(
    tmp_path: Path, course_index: Path, counted: Count
) -> None:
    documents = tmp_path / "documents"
    shutil.copytree(COURSE, documents)
    with laboratory(
        tmp_path, index=course_index, DOCUMENT_LOCATION=str(documents), RESCAN_SECONDS="1"
    ) as lab:
        lab.begin()
        stop = threading.Event()
        limiting = threading.Thread(target=_limit_readers, args=(lab, stop))
        limiting.start()
        try:
            (documents / "hungry.html").write_text("<p>abc" * 1_400_000)
            (documents / "modest.txt").write_text(_ZENER)
            eventually(lambda: "hungry.html" in lab.log("worker"), 120, "The problem's name")
        finally:
            stop.set()
            limiting.join()
        (line,) = [line for line in lab.log("worker").splitlines() if "hungry.html" in line]
        lab.ask()
        lab.ask("¿Qué referencia tiene el diodo Zener del montaje de prueba?")
        tally = counted(lab.tally("memory limit while a file is read", 1))
        stored = {document["_id"]: document for document in lab.documents()}
    assert "It needs too much memory" in line
    assert tally.lost == 0
    assert "QX-4711" in stored[lab.accepted[-1]]["output"]


def _limit_readers(lab: Laboratory, stop: threading.Event) -> None:
    """Leave every process that reads a file 50 MB more than it begins with."""
    while not stop.wait(0.05):
        for process in _offspring(lab, "rag_worker.documents.child"):
            try:
                has_begun = process.rlimit(resource.RLIMIT_FSIZE)[0] == 0
                if has_begun and process.rlimit(resource.RLIMIT_AS)[0] > 2**30:
                    limit = process.memory_info().vms + 50 * 2**20
                    process.rlimit(resource.RLIMIT_AS, (limit, limit))
            except psutil.NoSuchProcess:
                pass


def _offspring(lab: Laboratory, module: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(lab.processes["worker"].pid).children(recursive=True):
        try:
            if module in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            pass
    return found


def test_indexing_that_is_killed_for_its_memory_stops_no_answer_and_is_done_again(
    tmp_path: Path, course_index: Path, counted: Count
) -> None:
    documents = tmp_path / "documents"
    shutil.copytree(COURSE, documents)
    with laboratory(
        tmp_path, index=course_index, DOCUMENT_LOCATION=str(documents), RESCAN_SECONDS="1"
    ) as lab:
        lab.begin()
        for kill in range(1, 4):
            (documents / f"{kill}.txt").write_text(_ZENER)
            (process,) = eventually(
                lambda: _offspring(lab, "rag_worker.indexing"), 180, "The indexing"
            )
            process.kill()
            eventually(
                lambda kill=kill: lab.log("worker").count("indexing_failed") == kill,
                180,
                "The indexing's end",
            )
            lab.ask()
            lab.wait_for_mails()
        assert lab.processes["worker"].poll() is None
        before = lab.log("worker").count("index_opened")
        (documents / "last.txt").write_text(_ZENER)
        eventually(lambda: lab.log("worker").count("index_opened") > before, 180, "The indexing")
        lab.ask("¿Qué referencia tiene el diodo Zener del montaje de prueba?")
        tally = counted(lab.tally("indexing killed for its memory", 3))
        stored = {document["_id"]: document for document in lab.documents()}
    assert tally.lost == 0
    assert tally.answered == tally.accepted
    assert "QX-4711" in stored[lab.accepted[-1]]["output"]
