"""Scanned pages through the installed Tesseract, and the index that remembers them."""

import shutil
from pathlib import Path

import pypdfium2
import pytest
import structlog

from core.settings import Settings
from rag_worker.documents import ocr
from rag_worker.generation import current_name, open_generation
from rag_worker.indexing import IndexReport, Progress, index_documents
from tests.pdf_files import lines, pdf, picture, text
from tests.readers import kill_next_child
from tests.servers import missing

PAGES = (
    ("El examen final es el jueves 28 de enero", "de 2027 a las nueve en el Aula Magna."),
    ("La asistencia al laboratorio es obligatoria", "y se comprueba en cada una de las sesiones."),
)


@pytest.fixture(autouse=True)
def _tesseract() -> None:
    if not ocr.languages():
        missing("Tesseract", ocr.INSTALL)


def scanned(page: tuple[str, ...]) -> bytes:
    """The page as a scanner sees it, at 150 dots per inch."""
    with pypdfium2.PdfDocument(pdf([lines(60, 700, *page, size=14)])) as document:
        bitmap = document[0].render(scale=150 / 72, grayscale=True)
        return picture(bitmap.width, bitmap.height, bitmap.to_numpy().tobytes())


@pytest.fixture(scope="module")
def scans() -> bytes:
    """A page with text and two scanned ones."""
    pages = [text(60, 700, "Guía docente de Electrónica.")]
    pages += [f"q 595 0 0 842 0 0 cm /Im{at} Do Q" for at in range(len(PAGES))]
    return pdf(pages, images=[scanned(page) for page in PAGES])


@pytest.fixture
def settings(tmp_path: Path, scans: bytes) -> Settings:
    folder = tmp_path / "curso"
    folder.mkdir()
    (folder / "guia.pdf").write_bytes(scans)
    return Settings(
        document_location=folder, index_location=tmp_path / "index", llm_model="ollama:none"
    )


def passages_of(settings: Settings) -> dict[int | None, str]:
    name = current_name(settings.index_location)
    assert name
    generation = open_generation(settings.index_location, name)
    return {passage.page: passage.text for passage in generation.passages}


def problem_of(report: IndexReport) -> str:
    return report.files[0].problem or ""


def test_scanned_pages_are_found_under_their_page_number(settings: Settings) -> None:
    shown: list[Progress] = []
    report = index_documents(settings, shown.append)
    assert problem_of(report) == ""
    assert passages_of(settings) == {
        1: "Guía docente de Electrónica.",
        2: " ".join(PAGES[0]),
        3: " ".join(PAGES[1]),
    }
    assert [progress.file for progress in shown if "page" in (progress.file or "")] == [
        "guia.pdf, page 2",
        "guia.pdf, page 3",
    ]


def test_interrupted_recognition_continues_after_the_last_page(settings: Settings) -> None:
    class StoppedError(Exception):
        pass

    def interrupt(progress: Progress) -> None:
        if progress.file == "guia.pdf, page 3":
            raise StoppedError

    with pytest.raises(StoppedError):
        index_documents(settings, interrupt)
    # Page 2 is known: the time that is left would not be enough to recognise it again.
    impatient = settings.model_copy(update={"ocr_page_timeout": 0.01})
    report = index_documents(impatient)
    assert problem_of(report) == (
        "Its page 3 could not be read, as on scanned pages, and text recognition (OCR) failed: "
        "page 3 took more than 0.01 seconds (OCR_PAGE_TIMEOUT)."
    )
    assert passages_of(impatient)[2] == " ".join(PAGES[0])


def test_page_that_failed_for_a_moment_is_recognised_at_the_next_indexing(
    settings: Settings,
) -> None:
    def run_out_of_memory(progress: Progress) -> None:
        if progress.file == "guia.pdf, page 3":
            kill_next_child("rag_worker.documents.ocr")

    report = index_documents(settings, run_out_of_memory)
    assert problem_of(report).endswith("failed: page 3 broke the reader off.")
    assert set(passages_of(settings)) == {1, 2}
    assert problem_of(index_documents(settings)) == ""
    assert set(passages_of(settings)) == {1, 2, 3}


def test_recognised_pages_outlive_the_text_that_was_made_of_them(settings: Settings) -> None:
    index_documents(settings)
    # Another limit means that the file is read anew; its pages need not be.
    changed = settings.model_copy(update={"document_timeout": 299, "ocr_page_timeout": 0.01})
    assert problem_of(index_documents(changed)) == ""
    assert set(passages_of(changed)) == {1, 2, 3}


def test_without_tesseract_the_pages_are_named_with_what_would_read_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(settings.index_location))
    ocr.languages.cache_clear()
    try:
        report = index_documents(settings)
    finally:
        monkeypatch.undo()
        ocr.languages.cache_clear()
    assert problem_of(report) == (
        "Its pages 2, 3 could not be read, as on scanned pages: Tesseract, once installed, reads "
        "them by OCR (`apt install tesseract-ocr tesseract-ocr-spa`)."
    )
    # Once it is there, the unchanged file is read.
    assert problem_of(index_documents(settings)) == ""


def test_page_that_is_one_huge_picture_is_drawn_small(tmp_path: Path) -> None:
    path = tmp_path / "cartel.pdf"
    image = scanned(PAGES[0])
    huge = "q 100000 0 0 141000 0 0 cm /Im0 Do Q"
    path.write_bytes(pdf([huge], size=(100_000, 141_000), images=[image]))
    words = ocr.recognise_page(path, 1, 60, ocr.languages())
    assert " ".join(word[0] for word in words) == " ".join(PAGES[0])


def test_damaged_picture_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "roto.pdf"
    path.write_bytes(pdf(["/Im0 Do"], images=[picture(10, 10, b"")]).replace(b"/Page ", b"/Paje "))
    is_damaged = pytest.raises(ocr.RecognitionError, match="is damaged")
    with structlog.testing.capture_logs() as logged, is_damaged:
        ocr.recognise_page(path, 7, 60, ocr.languages())
    (line,) = logged
    assert (line["event"], line["page"]) == ("page_not_recognised", 7)
    assert "Error" in line["cause"]
    # What Tesseract itself says belongs to the cause.
    path.write_bytes(pdf([text(60, 700, "Tema 1")]))
    with structlog.testing.capture_logs() as logged, pytest.raises(ocr.RecognitionError):
        ocr.recognise_page(path, 1, 60, ["klingon"])
    assert "klingon" in logged[0]["cause"]


def test_tesseract_is_there_where_the_gate_runs() -> None:
    assert shutil.which("tesseract")
