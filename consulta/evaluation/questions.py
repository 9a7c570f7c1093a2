"""The set of questions to measure with: one JSON object a line."""

import difflib
import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from pydantic_core import from_json

LONGEST_QUESTION = 4_000
"""Characters; the API takes no longer ones either."""
LONGEST_LINE = 1_000_000
"""Bytes."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_ENCODINGS = (b"\xff\xfe", b"\xfe\xff")
_CONTROL = {"Cc", "Cs"}


class QuestionFileError(Exception):
    """The file cannot be used; ``problems`` has a sentence for each wrong line."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__(f"{path}: {'; '.join(problems[:3])}")
        self.path = path
        self.problems = tuple(problems)


class EvaluationQuestion(BaseModel):
    """One line of the file. What is left out, null or empty is not known.

    Attributes:
        answers: any of them is right.
        document: the file that answers, as the index calls it.
        page: its page or slide, counted from 1.
        answerable: whether the documents answer it.
        evidence: literal text of the passages that answer; all are needed.
        language: two-letter code, for the breakdown only: the product finds it by itself.
        kind: a label of one's own.
        line: where it stands in the file, counted from 1.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    question: str
    answers: tuple[str, ...] = ()
    document: str | None = None
    page: int | None = None
    answerable: bool = True
    evidence: tuple[str, ...] = ()
    language: str | None = None
    id: str = ""
    kind: str | None = None
    line: int = 0

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = {name: value for name, value in values.items() if value is not None}
        given["answers"] = (*_several(given.pop("answer", ())), *_several(given.get("answers", ())))
        given["evidence"] = _several(given.get("evidence", ()))
        if isinstance(given.get("id"), int) and not isinstance(given["id"], bool):
            given["id"] = str(given["id"])
        return {name: value for name, value in given.items() if value != ""}

    @field_validator("answers", "evidence")
    @classmethod
    def _not_empty(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text for text in texts if text.strip()))

    @field_validator("question")
    @classmethod
    def _can_be_asked(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("is empty")
        if len(text) > LONGEST_QUESTION:
            raise ValueError(
                f"has {len(text):,} characters; students may ask with {LONGEST_QUESTION:,}"
            )
        if any(unicodedata.category(c) in _CONTROL and c not in "\n\t\r" for c in text):
            raise ValueError("holds characters that are not text")
        return text

    @field_validator("page")
    @classmethod
    def _counted_from_one(cls, page: int | None) -> int | None:
        if page is not None and page < 1:
            raise ValueError("is counted from 1")
        return page

    @model_validator(mode="after")
    def _makes_sense(self) -> "EvaluationQuestion":
        if not self.answerable and (self.answers or self.evidence):
            raise ValueError("it has an answer or evidence, but `answerable` is false")
        if self.page is not None and self.document is None:
            raise ValueError("`page` says nothing without `document`")
        return self

    @property
    def has_gold(self) -> bool:
        """Whether a passage that answers can be told from others."""
        return self.answerable and bool(self.document or self.answers or self.evidence)

    @property
    def content_hash(self) -> str:
        """The same for the same question with the same gold, wherever it stands."""
        content = self.model_dump_json(exclude={"line"})
        return hashlib.sha256(content.encode()).hexdigest()


KEYS = tuple(name for name in (*EvaluationQuestion.model_fields, "answer") if name != "line")


@dataclass(frozen=True, slots=True)
class IndexedPages:
    """What the index knows of a file: its pages, if the format has any, and its problem."""

    pages: int | None
    problem: str | None


def read_questions(path: Path) -> tuple[list[EvaluationQuestion], list[str]]:
    """The questions of a file, and warnings for people.

    Raises:
        QuestionFileError: the file cannot be read, is empty, or has wrong lines.
    """
    questions: list[EvaluationQuestion] = []
    problems: list[str] = []
    unknown: dict[str, int] = {}
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            at = error.start + 1
            problems.append(f"line {number}: byte {at} is not UTF-8 text: save the file as UTF-8")
            continue
        if not text.strip():
            continue
        try:
            fields = _fields(text)
            question = EvaluationQuestion.model_validate({**fields, "line": number})
        except ValidationError as error:
            problems += [f"line {number}: {_reason(problem)}" for problem in error.errors()]
            continue
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        for key in fields:
            if key not in KEYS:
                unknown.setdefault(key, number)
        if not question.id:
            question = question.model_copy(update={"id": f"line {number}"})
        if question.id in seen:
            problems.append(
                f"line {number}: the id {question.id!r} is already used in line {seen[question.id]}"
            )
        seen.setdefault(question.id, number)
        questions.append(question)
    if problems:
        raise QuestionFileError(path, problems)
    if not questions:
        raise QuestionFileError(path, ["it holds no questions"])
    return questions, [_unknown_key(key, number) for key, number in unknown.items()]


def against_index(
    path: Path, questions: Sequence[EvaluationQuestion], files: Mapping[str, IndexedPages]
) -> tuple[list[EvaluationQuestion], list[str]]:
    """The questions with their documents named as the index names them, and warnings for people.

    Raises:
        QuestionFileError: a question names a document or a page that does not exist.
    """
    names = {_canonical(name): name for name in files}
    found: list[EvaluationQuestion] = []
    problems: list[str] = []
    warnings: dict[str, None] = {}
    for question in questions:
        if question.document is None:
            found.append(question)
            continue
        name = names.get(_canonical(question.document))
        if name is None:
            problems.append(f"line {question.line}: {_no_such_document(question.document, names)}")
            continue
        file = files[name]
        if file.problem:
            warnings[f"{name}: {file.problem}"] = None
        elif question.page is not None and (file.pages is None or question.page > file.pages):
            has = f"{file.pages} pages" if file.pages else "no pages: leave `page` out"
            problems.append(f"line {question.line}: page {question.page}, but {name} has {has}")
            continue
        found.append(question.model_copy(update={"document": name}))
    if problems:
        raise QuestionFileError(path, problems)
    return found, list(warnings)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if number == 1:
                    if line.startswith(_OTHER_ENCODINGS):
                        raise QuestionFileError(path, ["it is UTF-16 text: save it as UTF-8"])
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                if len(line) > LONGEST_LINE:
                    raise QuestionFileError(
                        path, [f"line {number} is longer than {LONGEST_LINE:,} bytes"]
                    )
                yield number, line
    except OSError as error:
        raise QuestionFileError(path, [f"it cannot be read ({error.strerror})"]) from None


def _fields(line: str) -> dict[str, Any]:
    try:
        fields = from_json(line)
    except ValueError as error:
        raise ValueError(f"not a JSON object ({error})") from None
    if not isinstance(fields, dict):
        raise ValueError('not a JSON object: each line is one, such as {"question": "…"}')
    return fields


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _reason(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        message = "is missing"
    name = error["loc"][0] if error["loc"] else None
    return f"`{name}` {message[0].lower()}{message[1:]}" if name else message


def _unknown_key(key: str, number: int) -> str:
    close = difflib.get_close_matches(key, KEYS, n=1)
    hint = f": did you mean `{close[0]}`?" if close else ""
    return f"the key {key!r} (first in line {number}) is not known and is passed over{hint}"


def _canonical(name: str) -> str:
    # Some systems write accents in names as two characters.
    return unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./")


def _no_such_document(document: str, names: Mapping[str, str]) -> str:
    wanted = _canonical(document)
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5) or [
        name for name in names if Path(name).name.casefold() == Path(wanted).name.casefold()
    ]
    hint = f": did you mean {names[close[0]]!r}?" if close else ""
    return f"the document {document!r} is not in the index{hint}"
