"""Question files: what is read, and how wrong lines are named."""

import json
from pathlib import Path
from typing import Any

import pytest

from consulta.evaluation.questions import (
    LONGEST_LINE,
    LONGEST_QUESTION,
    EvaluationQuestion,
    IndexedPages,
    QuestionFileError,
    against_index,
    read_questions,
)

SAMPLE = Path(__file__).parent.parent / "data" / "sample_questions.jsonl"
FILES = {
    "apuntes.pdf": IndexedPages(20, None),
    "unidad 1/programa.docx": IndexedPages(None, None),
    "roto.pdf": IndexedPages(None, "It is encrypted."),
    "tema 1/LEEME.md": IndexedPages(None, None),
    "prácticas.md": IndexedPages(None, None),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "questions.jsonl"


def problems(file: Path) -> tuple[str, ...]:
    with pytest.raises(QuestionFileError) as caught:
        read_questions(file)
    return caught.value.problems


def read_one(file: Path, **fields: Any) -> EvaluationQuestion:
    file.write_text(json.dumps({"question": "¿Qué?", **fields}), encoding="utf-8")
    questions, warnings = read_questions(file)
    assert warnings == []
    return questions[0]


def test_the_sample_questions_are_read() -> None:
    questions, warnings = read_questions(SAMPLE)
    assert len(questions) == 38
    assert warnings == []
    assert questions[0].answers == ("Viernes 23 de octubre de 2026",)
    assert sum(question.answerable for question in questions) == 30


def test_answer_and_answers_are_one_list_and_null_is_left_out(file: Path) -> None:
    question = read_one(file, answer="uno", answers=["dos", "uno"], page=None, evidence="e", id=7)
    assert question.answers == ("uno", "dos")
    assert question.evidence == ("e",)
    assert question.page is None
    assert question.id == "7"


def test_a_question_without_an_id_is_called_by_its_line(file: Path) -> None:
    file.write_text('\n{"question": "¿Qué?"}\n')
    assert read_questions(file)[0][0].id == "line 2"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf{"question": "a?"}\r\n{"question": "b?"}\r\n\r\n')
    assert [question.question for question in read_questions(file)[0]] == ["a?", "b?"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not a JSON object"),
        ('["a"]', "not a JSON object"),
        ("null", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ("{}", "`question` is missing"),
        ('{"question": "  "}', "`question` is empty"),
        ('{"question": 5}', "`question` input should be a valid string"),
        ('{"question": "a\\u0000b"}', "not text"),
        ('{"question": "a?", "page": 2}', "nothing without `document`"),
        ('{"question": "a?", "document": "x", "page": 0}', "`page` is counted from 1"),
        ('{"question": "a?", "document": "x", "page": "3"}', "`page` input should be"),
        ('{"question": "a?", "document": "x", "page": true}', "`page` input should be"),
        ('{"question": "a?", "answerable": "no"}', "`answerable` input should be"),
        ('{"question": "a?", "answerable": false, "answer": "b"}', "`answerable` is false"),
        ('{"question": "a?", "answers": [1]}', "`answers` input should be"),
        ('{"question": "a?", "answers": {"text": "b"}}', "`answers` input should be"),
        (json.dumps({"question": "a" * (LONGEST_QUESTION + 1)}), "has 4,001 characters"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(file: Path, line: str, words: str) -> None:
    file.write_text(f'{{"question": "good?"}}\n{line}\n')
    found = problems(file)
    assert found[0].startswith("line 2: ")
    assert words in found[0]


def test_every_wrong_line_is_named(file: Path) -> None:
    file.write_text("{\n" * 3 + '{"question": "a?"}\n' + "[]\n")
    assert [problem.partition(":")[0] for problem in problems(file)] == [
        "line 1",
        "line 2",
        "line 3",
        "line 5",
    ]


def test_an_id_may_be_used_once(file: Path) -> None:
    file.write_text('{"question": "a?", "id": "x"}\n{"question": "b?", "id": "x"}\n')
    assert problems(file) == ("line 2: the id 'x' is already used in line 1",)


def test_an_unknown_key_is_named_once_with_the_likely_one(file: Path) -> None:
    file.write_text('{"question": "a?", "anwser": "b"}\n' * 3)
    questions, warnings = read_questions(file)
    assert len(questions) == 3
    assert len(warnings) == 1
    assert "'anwser' (first in line 1)" in warnings[0]
    assert "`answer`" in warnings[0]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert problems(file) == ("it holds no questions",)


def test_another_encoding_is_named(file: Path) -> None:
    file.write_bytes('{"question": "¿Qué?"}\n'.encode("latin-1"))
    assert "line 1: byte 15 is not UTF-8" in problems(file)[0]
    file.write_bytes('{"question": "¿Qué?"}\n'.encode("utf-16"))
    assert "UTF-16" in problems(file)[0]


def test_a_file_that_is_not_there_and_a_folder_are_refused(file: Path, tmp_path: Path) -> None:
    assert "cannot be read (No such file" in problems(file)[0]
    assert "cannot be read (Is a directory" in problems(tmp_path)[0]


def test_an_endless_line_is_refused_without_being_read_whole(file: Path) -> None:
    with file.open("wb") as sparse:
        sparse.truncate(LONGEST_LINE * 1000)
    assert "line 1 is longer" in problems(file)[0]


def test_a_hundred_thousand_lines_are_read(file: Path) -> None:
    file.write_text('{"question": "a?"}\n' * 100_000)
    assert len(read_questions(file)[0]) == 100_000


def test_a_misspelt_document_is_named_with_the_closest(file: Path) -> None:
    file.write_text(
        '{"question": "a?", "document": "apunte.pdf"}\n'
        '{"question": "b?", "document": "leeme.md"}\n'
        '{"question": "c?", "document": "nothing like it"}\n'
    )
    with pytest.raises(QuestionFileError) as caught:
        against_index(file, read_questions(file)[0], FILES)
    assert caught.value.problems == (
        "line 1: the document 'apunte.pdf' is not in the index: did you mean 'apuntes.pdf'?",
        "line 2: the document 'leeme.md' is not in the index: did you mean 'tema 1/LEEME.md'?",
        "line 3: the document 'nothing like it' is not in the index",
    )


def test_a_page_beyond_the_document_is_named(file: Path) -> None:
    file.write_text(
        '{"question": "a?", "document": "apuntes.pdf", "page": 21}\n'
        '{"question": "b?", "document": "unidad 1/programa.docx", "page": 1}\n'
        '{"question": "c?", "document": "apuntes.pdf", "page": 20}\n'
    )
    with pytest.raises(QuestionFileError) as caught:
        against_index(file, read_questions(file)[0], FILES)
    assert caught.value.problems == (
        "line 1: page 21, but apuntes.pdf has 20 pages",
        "line 2: page 1, but unidad 1/programa.docx has no pages: leave `page` out",
    )


def test_a_document_that_could_not_be_read_is_measured_with_a_warning(file: Path) -> None:
    question = read_one(file, document="roto.pdf", page=3)
    assert against_index(file, [question], FILES) == ([question], ["roto.pdf: It is encrypted."])


def test_accents_written_as_two_characters_name_the_same_document(file: Path) -> None:
    question = read_one(file, document="./pra\u0301cticas.md")
    assert against_index(file, [question], FILES)[0][0].document == "prácticas.md"
