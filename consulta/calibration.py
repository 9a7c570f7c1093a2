"""``consulta calibrate``: fit the thresholds of this course's index."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from consulta.evaluation.questions import read_questions
from consulta.show_index import up_to_date_index
from core.clock import system_clock
from core.settings import Settings
from rag_worker.documents.sections import clean
from rag_worker.embeddings import embeddings
from rag_worker.language import LANGUAGES, question_language
from rag_worker.relevance import (
    FEWEST_ANSWERABLE,
    Thresholds,
    fit_thresholds,
    foreign_questions,
)
from rag_worker.retrieval import Retriever

_RANKED = 10


class CalibrationError(Exception):
    """The file holds too little to fit anything; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What the index says of the questions: how likely it treats each."""

    answerable: Sequence[float]
    unanswerable: Sequence[float]


def calibrate(terminal: Console, settings: Settings, file: Path) -> None:
    """Fit the thresholds on the questions of ``file``, store them and print what they do.

    Questions that no course treats are added to those without an answer.

    Raises:
        CalibrationError: there are too few answerable questions.
        consulta.evaluation.questions.QuestionFileError: the file cannot be used.
        consulta.show_index.IndexUnusableError: there is no index.
        rag_worker.indexing.IndexingError: it cannot be made.
    """
    questions, _ = read_questions(file)
    count = sum(question.answerable for question in questions)
    if count < FEWEST_ANSWERABLE:
        raise CalibrationError(
            f"{file} has {count} questions that the documents answer, and {FEWEST_ANSWERABLE} are "
            "needed: add some more."
        )
    retriever = Retriever(up_to_date_index(terminal, settings), embeddings(settings))
    foreign = [text for language in LANGUAGES for text in foreign_questions(language)]
    asked = [(question.question, question.answerable) for question in questions]
    asked += [(text, False) for text in foreign]

    def evidence(text: str) -> float:
        question = " ".join(clean(text).split())
        language = question_language(question, settings.course_language)
        hits = retriever.search(question, language, _RANKED)
        return retriever.evidence(question, language, hits, without_itself=True)

    found: dict[bool, list[float]] = {True: [], False: []}
    for text, answerable in track(
        asked, "Asking", console=terminal, transient=True, disable=not terminal.is_terminal
    ):
        found[answerable].append(evidence(text))
    measured = _Evidence(found[True], found[False])
    before = Thresholds.of_index(settings.index_location)
    after = replace(
        fit_thresholds(measured.answerable, measured.unanswerable),
        fitted_on={
            "file": file.name,
            "answerable": len(measured.answerable),
            "unanswerable": len(measured.unanswerable),
            "date": system_clock().isoformat(),
        },
    )
    after.store(settings.index_location)
    terminal.print(_table(measured, {"before": before, "now": after}))
    terminal.print(
        "Stored for this index. A running worker uses them from its next question on.",
        highlight=False,
    )


def _table(measured: _Evidence, thresholds: dict[str, Thresholds]) -> Table:
    def share(values: Sequence[float], low: float, high: float) -> str:
        return f"{100 * sum(low <= value < high for value in values) / len(values):.0f} %"

    table = Table(
        title=f"{len(measured.answerable)} questions with an answer in the documents, "
        f"{len(measured.unanswerable)} without"
    )
    table.add_column("")
    for name in thresholds:
        table.add_column(name, justify="right")
    rows = {
        "probability from which it is answered, marked as uncertain": [
            f"{one.uncertain:.2f}" for one in thresholds.values()
        ],
        "probability from which it is answered": [
            f"{one.certain:.2f}" for one in thresholds.values()
        ],
        "with an answer, but refused": [
            share(measured.answerable, -1, one.uncertain) for one in thresholds.values()
        ],
        "with an answer, marked as uncertain": [
            share(measured.answerable, one.uncertain, one.certain) for one in thresholds.values()
        ],
        "without an answer, but answered": [
            share(measured.unanswerable, one.certain, 2) for one in thresholds.values()
        ],
        "without an answer, marked as uncertain": [
            share(measured.unanswerable, one.uncertain, one.certain) for one in thresholds.values()
        ],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table
