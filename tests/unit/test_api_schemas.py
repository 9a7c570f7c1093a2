"""What the API takes and what it refuses, before anything is stored."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.schemas import ChangePassword, GivenAnswer, NewQuestion, NewUser

USER = {
    "email": "ana.garcia@uni.test",
    "username": "ana.garcia",
    "password": "tres gatos en el tejado",
}


def kinds(model: type[Any], /, **values: Any) -> set[tuple[str, str]]:
    """The field and the kind of each error; empty when the values are taken."""
    try:
        model(**values)
    except ValidationError as error:
        return {(".".join(map(str, e["loc"])), e["type"]) for e in error.errors()}
    return set()


@pytest.mark.parametrize("model", [NewUser, NewQuestion, ChangePassword, GivenAnswer])
def test_examples_of_the_documentation_are_taken(model: type[Any]) -> None:
    for example in model.model_config["json_schema_extra"]["examples"]:
        assert kinds(model, **example) == set()


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("  ¿Cuándo?\n", "¿Cuándo?"),
        ("uno\r\ndos\rtres\tcuatro", "uno\ndos\ntres\tcuatro"),
        ("cafe\u0301", "café"),
        ("x" * 4000, "x" * 4000),
        (" " * 5000 + "x", "x"),
        ("שלום 🙂 𝕍 a\u200db", "שלום 🙂 𝕍 a\u200db"),
    ],
)
def test_question_is_trimmed_and_normalised(sent: str, stored: str) -> None:
    assert NewQuestion(input=sent).input == stored


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        ("", "string_too_short"),
        (" \n\t\u3000", "string_too_short"),
        ("\u200b \ufeff\u2060", "string_too_short"),
        ("x" * 4001, "string_too_long"),
        ("a\0b", "plain_text"),
        ("a\x1b[31m", "plain_text"),
        ("a\x7f", "plain_text"),
        ("a\u0085b", "plain_text"),
        ("a\u202eb", "plain_text"),
        ("a\u2066b", "plain_text"),
        ("a\ud800b", "string_unicode"),
        (7, "string_type"),
        (float("nan"), "string_type"),
        (None, "string_type"),
        (["a"], "string_type"),
    ],
)
def test_question_is_refused(sent: Any, kind: str) -> None:
    assert kinds(NewQuestion, input=sent) == {("input", kind)}


@given(st.text())
def test_question_is_taken_or_refused_and_always_encodable(text: str) -> None:
    try:
        stored = NewQuestion(input=text).input
    except ValidationError:
        return
    assert stored.encode()
    assert stored == stored.strip()
    assert NewQuestion(input=stored).input == stored


@pytest.mark.parametrize("name", ["ana", "a" * 50, "0a.b-c_d", "ANA"])
def test_user_name_is_taken(name: str) -> None:
    assert kinds(NewUser, **{**USER, "username": name}) == set()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "a" * 51,
        "ana@x",
        "ana garcia",
        ".ana",
        "-ana",
        "_ana",
        "año",
        "ana\n",
        "ａｎａ",
        "٣٣٣",
    ],
)
def test_user_name_is_refused(name: str) -> None:
    assert {field for field, _ in kinds(NewUser, **{**USER, "username": name})} == {"username"}


@pytest.mark.parametrize("email", ["a@b.es", "a+b.c@uni.test", "a" * 64 + "@uni.test", "a@B.ES"])
def test_plain_address_is_taken(email: str) -> None:
    assert kinds(NewUser, **{**USER, "email": email}) == set()


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ana",
        "a@localhost",
        '"a b"@uni.test',
        "Ana <a@uni.test>",
        "a@[127.0.0.1]",
        "a@uni.test\nBcc: b@uni.test",
        "a@uni.test, b@uni.test",
        "ñ@uni.test",
        "a\0@uni.test",
        "a" * 65 + "@uni.test",
        "a@" + "b" * 250 + ".es",
    ],
)
def test_other_addresses_are_refused(email: str) -> None:
    assert {field for field, _ in kinds(NewUser, **{**USER, "email": email})} == {"email"}


@pytest.mark.parametrize(
    ("password", "kind"),
    [
        ("x" * 7, "string_too_short"),
        ("x" * 129, "string_too_long"),
        ("tres gatos\n", "plain_text"),
        ("tres\0gatos", "plain_text"),
        ("tres\ud800gatos", "string_unicode"),
        (" " * 8, "password_blank"),
        ("\u200b\u3000" * 4, "password_blank"),
        ("Ana.Garcia", "password_is_name"),
        ("ana.garcia@UNI.test", "password_is_name"),
    ],
)
def test_password_is_refused(password: str, kind: str) -> None:
    assert kinds(NewUser, **{**USER, "password": password}) == {("password", kind)}


@pytest.mark.parametrize("password", ["x" * 8, "ñ" * 128, "   spaces   ", "🙂" * 8])
def test_password_is_taken_as_it_is(password: str) -> None:
    assert NewUser(**{**USER, "password": password}).password == password


def test_unknown_field_is_refused() -> None:
    assert kinds(NewQuestion, input="a", question="a") == {("question", "extra_forbidden")}


def test_passwords_are_not_shown() -> None:
    assert USER["password"] not in repr(NewUser(**USER))


@pytest.mark.parametrize(
    ("new", "again", "error"),
    [
        ("cuatro gatos", "cinco gatos", {("new_password_again", "passwords_differ")}),
        ("tres gatos", "tres gatos", {("new_password", "password_unchanged")}),
        ("cuatro", "cuatro", {("new_password", "string_too_short")}),
        ("cuatro gatos", "cuatro gatos", set()),
    ],
)
def test_new_password_is_new_and_the_same_twice(
    new: str, again: str, error: set[tuple[str, str]]
) -> None:
    found = kinds(
        ChangePassword, old_password="tres gatos", new_password=new, new_password_again=again
    )
    assert found == error


ANSWER = {"claims": 1, "text": "El 3 de diciembre.", "language": "es", "outcome": "answered"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"claims": -1}, "claims"),
        ({"claims": 2**53}, "claims"),
        ({"claims": True}, "claims"),
        ({"claims": "1"}, "claims"),
        ({"text": ""}, "text"),
        ({"text": "x" * 100_001}, "text"),
        ({"language": "español"}, "language"),
        ({"language": "es\n"}, "language"),
        ({"outcome": "failed"}, "outcome"),
        ({"sources": [{"file": "a.pdf", "quotation": "b"}] * 101}, "sources"),
        ({"sources": [{"file": "a.pdf"}]}, "sources.0.quotation"),
        ({"sources": [{"file": "a.pdf", "quotation": "b", "page": 0}]}, "sources.0.page"),
        ({"model": "m\0"}, "model"),
    ],
)
def test_answer_is_refused(change: dict[str, Any], field: str) -> None:
    assert {name for name, _ in kinds(GivenAnswer, **{**ANSWER, **change})} == {field}
