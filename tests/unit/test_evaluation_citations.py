"""Citations are held against the files themselves, read anew."""

from pathlib import Path

import pytest

from consulta.evaluation.citations import CourseFiles
from consulta.evaluation.gold import resolves
from core.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.md").write_text("# Exam\n\nIt is on Friday.\n\n# Place\n\nRoom 1.02.\n")
    return tmp_path


def test_quotation_resolves_in_its_file_and_section(folder: Path) -> None:
    files = CourseFiles(Settings(document_location=folder))
    assert resolves("It is on Friday.", files.texts("a.md", None))
    assert resolves("It is on Friday.\n\nPlace\n\nRoom 1.02.", files.texts("a.md", None))
    assert not resolves("It is on Monday.", files.texts("a.md", None))


def test_page_or_file_that_is_not_there_resolves_nothing(folder: Path) -> None:
    files = CourseFiles(Settings(document_location=folder))
    assert not resolves("It is on Friday.", files.texts("a.md", 2))
    assert not resolves("It is on Friday.", files.texts("b.md", None))
    assert not resolves("It is on Friday.", files.texts("../a.md", None))


def test_file_that_changed_since_it_was_indexed_is_seen_as_it_is_now(folder: Path) -> None:
    (folder / "a.md").write_text("# Exam\n\nIt is on Monday.\n")
    texts = CourseFiles(Settings(document_location=folder)).texts("a.md", None)
    assert not resolves("It is on Friday.", texts)
