"""Disks that are full or read-only, and memory that ends."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.laboratory import Tally, failing, laboratory

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
    with laboratory(tmp_path, index=course_index) as lab:
        for service in ("api", "worker", "mailer"):
            lab.start(service)
        lab.wait_until_ready()
        lab.log_in("ana")
        lab.ask()
        lab.wait_for_mails()
        data = [str(path) for path in (tmp_path / "data").iterdir()]
        with failing(lab.queue.process, _WRITES, error, data):
            replies = [lab.try_to_ask("¿Qué es un diodo?", f"key-{n}") for n in range(5)]
        assert {reply.status_code for reply in replies if reply is not None} == {503}
        stored = lab.documents()
        assert len(stored) == 1
        for _ in range(2):
            lab.ask()
        tally = counted(lab.tally(f"disk of the queue {fault}", len(replies)))
    assert tally.lost == 0
    assert tally.answered == tally.accepted
