"""How likely the documents treat a question, and the thresholds that are fitted for an index."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_worker.language import LANGUAGES
from rag_worker.relevance import (
    Baseline,
    Thresholds,
    background_questions,
    baseline_name,
    fit_thresholds,
    measure_baselines,
    probability,
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
    questions = background_questions(language)
    names = [baseline_name(question, language) for question in questions]
    assert len(set(questions)) == len(questions)
    assert names.count(language) >= 40
    assert names.count(f"{language} short") >= 20


def test_baseline_is_the_mean_best_cosine_of_each_kind() -> None:
    vectors = np.eye(3, dtype=np.float32)
    background = {
        language: np.tile(vectors[at], (len(background_questions(language)), 1))
        for at, language in enumerate(("es", "en"))
    }
    baselines = measure_baselines(["es", "es", "en"], vectors, background)
    assert baselines["es"] == Baseline(spoken=1.0, foreign=0.0)
    assert baselines["en short"] == Baseline(spoken=0.0, foreign=1.0)
    assert measure_baselines(["es"], vectors[:1], background)["en"].spoken is None


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
