"""Figures and the comparison with gold text."""

import math
import random

import pytest

from consulta.evaluation import metrics
from consulta.evaluation.gold import Found, cites_gold, contains, holds_evidence, ranks, resolves
from consulta.evaluation.questions import EvaluationQuestion


def found(text: str, file: str = "a.pdf", *pages: int) -> Found:
    return Found(text, frozenset((file, page) for page in pages or (None,)))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("La banda vale 1,12 eV.", "1,12"),
        ("Vr = IL / (f · C)", "Vr=IL/(f·C)"),
        ("una resis-\ntencia de 150Ω", "Resistencia de 150 Ω"),
        ("el rendimiento es del 40,6\u00a0%.", "40,6 %"),
        ("self-contained", "selfcontained"),
        ("Aula 1.02", "aula 1.02."),
        ("ID = IDSS · (1 − VGS/VP)²", "(1 − VGS/VP)2"),
        ("son 5.", "5"),
        ("10kΩ", "10"),
    ],
)
def test_an_answer_is_found_whatever_the_spaces_case_and_hyphens(text: str, part: str) -> None:
    assert contains(text, part)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("vale 15", "5"),
        ("vale 0.5", "5"),
        ("vale 5,1 V", "5"),
        ("11,12", "1,12"),
        ("Francia", "an"),
        ("algo", ""),
        ("", "algo"),
        ("algo", " . "),
    ],
)
def test_a_part_of_a_word_or_number_is_no_answer(text: str, part: str) -> None:
    assert not contains(text, part)


def test_long_evidence_may_lack_a_few_words_and_short_evidence_none() -> None:
    evidence = "uno dos tres cuatro cinco seis siete ocho nueve diez"
    assert holds_evidence("diez nueve ocho siete seis cinco cuatro tres", evidence)
    assert not holds_evidence("diez nueve ocho siete seis cinco cuatro", evidence)
    assert not holds_evidence("uno dos", "uno dos tres")


def test_gold_needs_the_document_the_page_and_the_answer_where_they_are_known() -> None:
    texts = [
        found("vale 3", "b.pdf", 2),
        found("vale 3", "a.pdf", 1),
        found("vale 4", "a.pdf", 2),
        found("vale 3", "a.pdf", 2),
    ]
    ask = {"question": "¿Cuánto?"}
    assert ranks(EvaluationQuestion(**ask, answers=("3",)), texts) == [1]
    assert ranks(EvaluationQuestion(**ask, answers=("3",), document="a.pdf"), texts) == [2]
    assert ranks(EvaluationQuestion(**ask, document="a.pdf", page=2), texts) == [3]
    assert ranks(EvaluationQuestion(**ask, answers=("3",), document="a.pdf", page=2), texts) == [4]
    assert ranks(EvaluationQuestion(**ask, answers=("5",)), texts) == [None]


def test_each_piece_of_evidence_is_ranked_and_stands_above_the_answer() -> None:
    texts = [found("el 5 de mayo"), found("el 7 de junio"), found("sí")]
    question = EvaluationQuestion(
        question="¿Hay exámenes?", answers=("sí",), evidence=("7 de junio", "9 de julio")
    )
    assert ranks(question, texts) == [2, None]


def test_a_piece_of_several_pages_counts_for_each_of_them() -> None:
    question = EvaluationQuestion(question="¿?", document="a.pdf", page=2)
    assert ranks(question, [found("x", "a.pdf", 1), found("x", "a.pdf", 1, 2)]) == [2]


def test_a_citation_resolves_when_its_words_stand_there_in_order() -> None:
    assert resolves("dos  tres", ["uno dos\ntres"])
    assert not resolves("tres dos", ["uno dos tres"])
    assert not resolves("", ["uno"])


def test_a_citation_of_another_page_is_not_gold() -> None:
    question = EvaluationQuestion(question="¿?", document="a.pdf", page=2)
    assert cites_gold(("a.pdf", 2), question)
    assert not cites_gold(("a.pdf", 3), question)
    assert not cites_gold(("b.pdf", 2), question)


def test_articles_punctuation_and_case_do_not_count_in_answers() -> None:
    assert metrics.normalised("¡El «Diodo», the DIODE!") == "diodo diode"
    assert metrics.f1("El diodo.", ["un diodo"]) == 1
    assert metrics.f1("vale 1,12 eV", ["112"]) == 0
    assert metrics.f1("1.12", ["1,12"]) == 1
    assert metrics.f1("", ["algo"]) == 0


def test_f1_is_the_best_over_the_answers() -> None:
    assert metrics.f1("dos de mayo", ["uno de mayo de 2026", "dos"]) == pytest.approx(0.5)


def test_gold_in_answer_wants_whole_words() -> None:
    assert metrics.gold_in_answer("Pesa el 30 % de la nota.", ["30 %"])
    assert not metrics.gold_in_answer("Pesa el 130.", ["30"])
    assert not metrics.gold_in_answer("algo", ["el"])


def test_recall_counts_the_share_found() -> None:
    assert metrics.recall([1, 3, None, 2], 2) == 0.5
    assert metrics.reciprocal_rank([None, 4, 2]) == 0.5
    assert metrics.reciprocal_rank([None]) == 0


def test_the_area_is_the_chance_of_the_right_order() -> None:
    draw = random.Random(3)
    positive = [draw.randint(3, 9) / 4 for _ in range(40)]
    negative = [draw.randint(0, 7) / 4 for _ in range(30)]
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    assert metrics.area_under_curve(positive, negative) == pytest.approx(sum(pairs) / len(pairs))
    assert metrics.area_under_curve([2, 3], [1]) == 1
    assert metrics.area_under_curve([1], [1, 1]) == 0.5


def test_the_error_curve_goes_from_all_answered_to_all_refused() -> None:
    curve = metrics.error_curve([0.5, 0.9], [0.1, 0.7])
    assert curve[0] == (0.1, 0.0, 1.0)
    assert curve[-1] == (math.inf, 1.0, 0.0)
    assert (0.7, 0.5, 0.5) in curve


def test_median_and_quantile_are_values_that_occurred_or_lie_between() -> None:
    assert metrics.median([3, 1, 2]) == 2
    assert metrics.median([4, 1]) == 2.5
    assert metrics.quantile(list(range(1, 101)), 0.95) == 95
    assert metrics.quantile([7], 0.95) == 7


def test_the_interval_is_wide_for_few_and_stays_between_0_and_1() -> None:
    low, high = metrics.interval(0.9, 20)
    assert low == pytest.approx(0.699, abs=0.001)
    assert high == pytest.approx(0.972, abs=0.001)
    assert metrics.interval(1.0, 3)[1] == 1.0
    assert metrics.interval(0.0, 3)[0] == 0.0
