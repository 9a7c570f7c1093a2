"""Every error has its status and its sentence, and no fault shows what a student sent."""

from collections.abc import Iterator

import pytest
from pymongo.errors import DuplicateKeyError, ServerSelectionTimeoutError
from sqlalchemy.exc import OperationalError

from api import errors
from api.errors import (
    ApiError,
    InvalidInputError,
    TooManyQuestionsThisHourError,
    TooManyRequestsError,
    describe_fault,
)


def all_errors(parent: type[ApiError] = ApiError) -> Iterator[type[ApiError]]:
    for child in parent.__subclasses__():
        yield from all_errors(child)
        if hasattr(child, "sentence") and child is not InvalidInputError:
            yield child


@pytest.mark.parametrize("kind", list(all_errors()))
def test_error_has_a_sentence_in_both_languages(kind: type[ApiError]) -> None:
    english, spanish = kind().problem(), kind().problem(spanish=True)
    assert english["status"] == spanish["status"] == kind.status
    assert english["type"] == spanish["type"]
    assert english["detail"] != spanish["detail"]
    for text in (english["detail"], spanish["detail"]):
        assert text.endswith(".")
        assert "{" not in text
        assert len(text) < 160


def test_errors_are_told_apart_by_their_type() -> None:
    types = [kind.kind() for kind in all_errors()]
    assert len(types) == len(set(types))
    assert "urn:consulta:problem:email-taken" in types


def test_field_problems_are_worded_in_both_languages() -> None:
    for english, spanish in errors.FIELD_PROBLEMS.values():
        assert english
        assert spanish
        assert english != spanish


def test_a_refused_field_is_told_in_the_students_language() -> None:
    error = InvalidInputError([("password", "string_too_short", {"min_length": 8})])
    assert error.problem()["detail"] == "password: needs 8 characters or more."
    assert error.problem(spanish=True)["detail"] == "password: necesita 8 caracteres o más."


def test_an_error_nobody_worded_is_still_a_sentence() -> None:
    assert InvalidInputError([("x", "no_such_kind", {})]).problem()["detail"] == "x: is not valid."


def test_a_fault_of_a_database_is_logged_without_what_was_stored() -> None:
    stored = DuplicateKeyError("dup key: { email: 'ana@uni.test' }", 11000)
    assert describe_fault(stored) == {"fault": "DuplicateKeyError", "reason": "code 11000"}
    away = ServerSelectionTimeoutError("127.0.0.1:27017: connection refused")
    assert "refused" in describe_fault(away)["reason"]
    locked = OperationalError("UPDATE users SET …", {"email": "ana@uni.test"}, Exception("locked"))
    assert describe_fault(locked) == {"fault": "OperationalError", "reason": "locked"}


@pytest.mark.parametrize(
    ("seconds", "header", "english", "spanish"),
    [
        (-3, "1", "1 second", "1 segundo"),
        (0.2, "1", "1 second", "1 segundo"),
        (39.1, "40", "40 seconds", "40 segundos"),
        (60, "60", "1 minute", "1 minuto"),
        (61, "61", "2 minutes", "2 minutos"),
        (3600, "3600", "1 hour", "1 hora"),
        (3601, "3601", "2 hours", "2 horas"),
    ],
)
def test_too_much_is_told_with_when_there_may_be_more(
    seconds: float, header: str, english: str, spanish: str
) -> None:
    error = TooManyQuestionsThisHourError(seconds, 30)
    assert (error.headers or {})["Retry-After"] == header
    assert f"again in {english}." in error.problem()["detail"]
    assert f"dentro de {spanish}." in error.problem(spanish=True)["detail"]


@pytest.mark.parametrize("kind", [e for e in all_errors() if issubclass(e, TooManyRequestsError)])
def test_the_description_of_a_reply_names_its_retry_after(kind: type[ApiError]) -> None:
    assert "Retry-After" in errors.responses(kind)[429]["headers"]
