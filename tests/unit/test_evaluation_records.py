"""Results that survive an interruption, the table made of them, and the naive pieces."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.convert import Fold, from_squad
from consulta.evaluation.baselines import CHARACTERS_PER_TOKEN, PIECE_TOKENS, nearest, pieces
from consulta.evaluation.questions import EvaluationQuestion
from consulta.evaluation.records import (
    Citation,
    Record,
    RecordStore,
    StoreError,
    answering_settings,
)
from consulta.evaluation.report import missing_figures
from consulta.evaluation.run import sample
from consulta.evaluation.table import breakdown, rows
from core.settings import Settings
from rag_worker.passages import Passage

RECORD = Record(
    key="k",
    system="consulta",
    id="1",
    ranks=(1, None),
    outcome="answered",
    evidence=0.9,
    citations=(Citation(resolves=True, is_gold=None),),
    answer="Sí \ud83d [1].",
)
QUESTION = EvaluationQuestion(question="¿?", answers=("sí",), id="1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "results.jsonl"


def test_a_record_is_known_after_the_store_is_opened_again(path: Path) -> None:
    record = replace(RECORD, answer="Sí [1].")
    with RecordStore.opened(path, fresh=False) as store:
        store.append(record)
    with RecordStore.opened(path, fresh=False) as store:
        assert store.get("k") == record
        assert store.get("other") is None


def test_a_torn_last_line_is_cut_off_and_the_rest_kept(path: Path) -> None:
    with RecordStore.opened(path, fresh=False) as store:
        store.append(replace(RECORD, key="a"))
        store.append(replace(RECORD, key="b"))
    path.write_bytes(path.read_bytes()[:-10])
    with RecordStore.opened(path, fresh=False) as store:
        assert store.get("a") is not None
        assert store.get("b") is None
        store.append(replace(RECORD, key="b"))
    with RecordStore.opened(path, fresh=False) as store:
        assert store.get("b") is not None


def test_a_damaged_line_costs_only_itself(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'\xff\x00{\n{"key": "old form"}\n')
    with RecordStore.opened(path, fresh=False) as store:
        store.append(RECORD)
    with RecordStore.opened(path, fresh=False) as store:
        assert store.get("k") is not None


def test_fresh_forgets_and_failures_are_tried_again(path: Path) -> None:
    with RecordStore.opened(path, fresh=False) as store:
        store.append(RECORD)
        store.append(replace(RECORD, key="failed", error="the model took more than 1 s"))
        assert store.get("failed") is None
    with RecordStore.opened(path, fresh=True) as store:
        assert store.get("k") is None


def test_two_evaluations_do_not_write_into_one_folder(path: Path) -> None:
    with (
        RecordStore.opened(path, fresh=False),
        pytest.raises(StoreError, match="Another evaluation"),
        RecordStore.opened(path, fresh=False),
    ):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match="choose another folder"),
        RecordStore.opened(tmp_path / "file" / "results.jsonl", fresh=False),
    ):
        pass


def test_secrets_and_addresses_are_no_part_of_what_answers_depend_on() -> None:
    known = answering_settings(Settings(_env_file=None))
    assert {"llm_model", "llm_context", "embedding_model", "course_language"} <= set(known)
    assert not [name for name in known if "password" in name or "secret" in name or "url" in name]
    assert "openai_api_key" not in known
    assert "index_location" not in known


def test_the_table_says_why_a_figure_is_missing() -> None:
    question = EvaluationQuestion(question="¿?", id="1")
    record = Record(key="k", system="consulta", id="1", outcome="quoted", evidence=0.9)
    table = rows({"consulta": [(question, record)]}, with_model=True, asked=1)
    sentences = "\n".join(missing_figures(table))
    assert "no `document`, `answer` or `evidence` in the file" in sentences
    assert "no question of the file has `answerable` false" in sentences
    assert "no `answer` in the file" in sentences
    assert "no `document` in the file. (name the gold document" in sentences


def test_false_refusals_and_false_answers_are_counted_apart() -> None:
    other = QUESTION.model_copy(update={"answerable": False, "answers": ()})
    refused = replace(RECORD, outcome="not_covered", citations=(), gold_in_answer=False)
    uncertain = replace(RECORD, uncertain=True, ranks=None)
    pairs = [(QUESTION, RECORD), (QUESTION, refused), (other, uncertain), (other, refused)]
    cells = {
        row.name: row.cells["consulta"]
        for row in rows({"consulta": pairs}, with_model=True, asked=4)
    }
    assert cells["false refusals (answerable, refused)"].text == "50.0 %"
    assert cells["false answers (unanswerable, answered)"].text == "50.0 %"
    assert cells["… not even marked as uncertain"].text == "0.0 %"
    assert cells["… not even marked as uncertain"].count == 2
    assert cells["gold passage is the first"].text == "50.0 %"
    assert cells["not in the documents"].text == "2"


def test_a_sample_is_extrapolated_and_marked() -> None:
    record = replace(RECORD, system="naive", search_seconds=2.0, ranks=(1,))
    measured = {"consulta": [(QUESTION, RECORD)], "naive": [(QUESTION, record)]}
    last = rows(measured, with_model=False, asked=50)[-1]
    assert last.cells["naive"].text == "≈ 100 (from 1)"


def test_there_is_a_breakdown_only_where_there_are_several_kinds() -> None:
    dates = QUESTION.model_copy(update={"kind": "dates"})
    assert breakdown([(dates, RECORD)], "kind") == []
    groups = breakdown([(dates, RECORD), (QUESTION, RECORD)], "kind")
    assert [name for name, _ in groups] == ["dates", "not given"]


def test_a_sample_is_always_the_same_and_in_order() -> None:
    questions = [QUESTION.model_copy(update={"id": str(n)}) for n in range(100)]
    chosen = sample(questions, 10)
    assert chosen == sample(questions, 10)
    assert [int(question.id) for question in chosen] == sorted(int(q.id) for q in chosen)
    assert sample(questions, 200) == questions


def test_naive_pieces_hold_all_text_and_know_their_pages() -> None:
    size = PIECE_TOKENS * CHARACTERS_PER_TOKEN
    passages = [
        Passage("a" * (size - 10), "a.pdf", 1, None, None, "es"),
        Passage("b" * 30, "a.pdf", 2, None, None, "es"),
        Passage("c" * 30, "b.pptx", None, 4, None, "es"),
    ]
    found = pieces(passages)
    assert [piece.places for piece in found] == [
        {("a.pdf", 1), ("a.pdf", 2)},
        {("a.pdf", 2), ("b.pptx", 4)},
    ]
    assert "".join(piece.text for piece in found).count("b") == 30
    assert pieces([]) == []
    assert nearest([], [], [1.0]) == []
    assert nearest(found, [[1.0, 0.0], [0.0, 2.0]], [0.1, 1.0])[0] == found[1]


SQUAD = {
    "data": [
        {
            "title": "Café y té",
            "paragraphs": [
                {
                    "context": "\ufeffEl café es negro. El té es verde. Nada más.",
                    "qas": [
                        {
                            "id": "1",
                            "question": "¿De qué color es el té?",
                            "answers": [
                                {"text": "verde", "answer_start": 28},
                                {"text": "", "answer_start": -1},
                            ],
                        },
                        {
                            "id": "2",
                            "question": "¿Y el agua?",
                            "answers": [],
                            "is_impossible": True,
                        },
                        {
                            "id": "3",
                            "question": "¿Y?",
                            "answers": [{"text": "", "answer_start": -1}],
                        },
                    ],
                }
            ],
        }
    ]
}


def test_a_squad_file_becomes_documents_and_questions_that_are_read() -> None:
    course = from_squad(SQUAD, "es")
    assert list(course.documents) == ["000-cafe-y-te.txt"]
    first, second = (EvaluationQuestion.model_validate(line) for line in course.questions)
    assert first.evidence == ("El té es verde.",)
    assert first.answers == ("verde",)
    assert first.document == "000-cafe-y-te.txt"
    assert not second.answerable


def test_a_left_out_article_has_no_document_and_unanswerable_questions() -> None:
    course = from_squad(SQUAD, "es", left_out=Fold(0, 2))
    assert course.documents == {}
    assert not any(line["answerable"] for line in course.questions)
    assert from_squad(SQUAD, "es", left_out=Fold(1, 2)) == from_squad(SQUAD, "es")
