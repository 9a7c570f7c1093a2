"""What goes over the wire: requests are checked here, replies are described here."""

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from email_validator import EmailNotValidError, validate_email
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    ValidationInfo,
    field_validator,
)

from api.errors import invalid
from api.passwords import is_common, is_own_name
from core.questions import LONGEST_QUESTION, Outcome, Question, QuestionState, Source
from core.users import User

LARGEST_NUMBER = 2**53 - 1
"""The largest whole number that every client can hold."""
LONGEST_ANSWER = 100_000
LONGEST_PASSWORD = 128
LONGEST_EMAIL = 254

_PASSPHRASE, _ANOTHER_PASSPHRASE = "tres gatos en el tejado", "cuatro gatos en el tejado"
"""Examples for the page."""

# They reorder the text around them, so that it reads as something it is not.
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _tidy(value: Any) -> Any:
    """Trimmed, with one form for each character and each line's end; or refused."""
    if not isinstance(value, str):
        return value
    lines = value.replace("\r\n", "\n").replace("\r", "\n")
    text = unicodedata.normalize("NFC", lines).strip()
    for character in text:
        category = unicodedata.category(character)
        if category == "Cs":
            raise invalid("string_unicode")
        if character in _BIDIRECTIONAL or (category == "Cc" and character not in "\n\t"):
            raise invalid("plain_text")
    # Zero-width spaces alone are as empty as spaces.
    return text if any(unicodedata.category(c)[0] not in "CZ" for c in text) else ""


def _password(value: str) -> str:
    categories = [unicodedata.category(character) for character in value]
    if "Cc" in categories:
        raise invalid("plain_text")
    if all(category[0] in "CZ" for category in categories):
        raise invalid("password_blank")
    if is_common(value):
        raise invalid("password_common")
    return value


def _username(value: str) -> str:
    if not value.isascii() or not value[0].isalnum():
        raise invalid("username")
    if not all(character.isalnum() or character in "._-" for character in value):
        raise invalid("username")
    return value


def _email(value: str) -> str:
    try:
        checked = validate_email(
            value,
            allow_smtputf8=False,
            allow_quoted_local=False,
            allow_display_name=False,
            allow_domain_literal=False,
            strict=True,
            check_deliverability=False,
            test_environment=True,
        )
    except EmailNotValidError:
        raise invalid("email") from None
    return checked.normalized


TIDY = BeforeValidator(_tidy)
"""For texts; put it after the limits, for it comes before them."""
Username = Annotated[
    str,
    Field(
        min_length=3,
        max_length=50,
        description="3 to 50 letters without accents, digits, dots, hyphens or underscores",
    ),
    AfterValidator(_username),
]
Email = Annotated[
    str,
    Field(
        min_length=3,
        max_length=LONGEST_EMAIL,
        description="Answers are sent here",
        json_schema_extra={"format": "email"},
    ),
    AfterValidator(_email),
]
NewPassword = Annotated[
    str,
    Field(
        min_length=8,
        max_length=LONGEST_PASSWORD,
        repr=False,
        description="8 to 128 characters; a sentence is easier to remember than a riddle",
    ),
    AfterValidator(_password),
]
Number = Annotated[StrictInt, Field(ge=0, le=LARGEST_NUMBER)]


class Body(BaseModel):
    """A request's body; fields that it does not know are refused, for they are slips."""

    model_config = ConfigDict(extra="forbid")


# Status.


class Service(BaseModel):
    """What answers here."""

    name: str
    version: str
    docs: str = Field(description="The page to register and ask on")


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


Health = Literal["ok", "down"]


class Ready(BaseModel):
    """Whether each thing the API depends on can be reached."""

    status: Health
    users: Health = Field(description="The users' database")
    queue: Health = Field(description="The questions' database")


# Accounts.


class NewUser(Body):
    """A registration."""

    email: Email
    username: Username
    password: NewPassword

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "email": "ana.garcia@example.org",
                    "username": "ana.garcia",
                    "password": _PASSPHRASE,
                }
            ]
        }
    )

    @field_validator("password")
    @classmethod
    def _not_a_name(cls, password: str, info: ValidationInfo) -> str:
        names = [info.data[name] for name in ("email", "username") if name in info.data]
        if is_own_name(password, *names):
            raise invalid("password_is_name")
        return password


class Account(BaseModel):
    """An account as its owner sees it."""

    id: int
    email: str
    username: str

    @classmethod
    def of(cls, user: User) -> Self:
        """Without the user's secrets."""
        return cls(id=user.id, email=user.email, username=user.username)


class Token(BaseModel):
    """Sent as ``Authorization: Bearer …`` with every request; Swagger does so by itself."""

    access_token: str = Field(repr=False)
    token_type: Literal["bearer"] = "bearer"
    expires_in: int = Field(description="Seconds")
    must_change_password: bool = Field(
        description="You used a temporary password: nothing else works before you change it"
    )


class ForgotPassword(Body):
    """Whom to send a temporary password."""

    email: Email
    language: Literal["es", "en"] = Field("es", description="The e-mail's language")

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"email": "ana.garcia@example.org", "language": "es"}]}
    )


class Message(BaseModel):
    """A sentence."""

    message: str


class ChangePassword(Body):
    """The old password, and the new one twice."""

    old_password: str = Field(
        max_length=LONGEST_PASSWORD, repr=False, description="Or the temporary one from the e-mail"
    )
    new_password: NewPassword
    new_password_again: str = Field(max_length=LONGEST_PASSWORD, repr=False)

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "old_password": _PASSPHRASE,
                    "new_password": _ANOTHER_PASSPHRASE,
                    "new_password_again": _ANOTHER_PASSPHRASE,
                }
            ]
        }
    )

    @field_validator("new_password")
    @classmethod
    def _is_new(cls, new: str, info: ValidationInfo) -> str:
        if new == info.data.get("old_password"):
            raise invalid("password_unchanged")
        return new

    @field_validator("new_password_again")
    @classmethod
    def _is_the_same(cls, again: str, info: ValidationInfo) -> str:
        if again != info.data.get("new_password", again):
            raise invalid("passwords_differ")
        return again


# Questions.


class NewQuestion(Body):
    """A question to the course's documents."""

    input: Annotated[str, Field(min_length=1, max_length=LONGEST_QUESTION), TIDY] = Field(
        title="Input Prompt",
        description="Your question, in your own words: 1 to 4,000 characters",
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": "¿Cuándo es el examen final y qué entra?"}]}
    )


class Links(BaseModel):
    """Where to look next."""

    self: str


class QuestionReference(BaseModel):
    """Which question it is, and how far it has come."""

    id: int
    state: QuestionState
    links: Links


class QuestionSummary(QuestionReference):
    """A question in a list."""

    input: str
    date: datetime = Field(description="When it was asked, UTC")
    outcome: Outcome | None = Field(description="What kind of answer it has got")
    answered: datetime | None = Field(description="When it was answered, UTC")

    @staticmethod
    def fields(question: Question) -> dict[str, Any]:
        """The fields of the summary."""
        return {
            "id": question.id,
            "input": question.input,
            "state": question.state,
            "date": question.date,
            "outcome": question.answer.outcome if question.answer else None,
            "answered": question.date_out,
            "links": Links(self=f"/questions/{question.id}"),
        }


class Expectation(BaseModel):
    """Its place in the queue, and when the answer can be expected."""

    place: int | None = Field(description="1 is answered next; null when it is answered")
    expected_seconds: float | None = Field(
        description="Seconds until the answer, by the pace of recent ones; null when unknown"
    )
    expected_at: datetime | None = Field(description="The same as a time, UTC")


class AcceptedQuestion(Expectation, QuestionReference):
    """The question is stored: nothing more to do but wait for the e-mail."""

    repeated: bool = Field(
        description="The Idempotency-Key came before: this is that question, nothing was added"
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": 7,
                    "state": "waiting",
                    "links": {"self": "/questions/7"},
                    "place": 3,
                    "expected_seconds": 270.0,
                    "expected_at": "2026-11-21T12:04:30Z",
                    "repeated": False,
                }
            ]
        }
    )


class SourceShown(BaseModel):
    """A place in the course's documents that the answer rests on."""

    file: str
    page: int | None
    slide: int | None
    heading: str | None
    quotation: str


class AnswerShown(BaseModel):
    """An answer; ``[1]`` in its text is the first of the sources."""

    text: str
    language: str
    uncertain: bool = Field(description="The evidence that the documents answer it is weak")
    sources: list[SourceShown]


class QuestionShown(Expectation, QuestionSummary):
    """A question with all that is known about it."""

    answer: AnswerShown | None


class QuestionPage(BaseModel):
    """Some of your questions, newest first."""

    questions: list[QuestionSummary]
    next: str | None = Field(description="The address of the older ones; null when there are none")


# Workers.


class EarlierExchange(BaseModel):
    """The question that this one follows up, and its answer."""

    model_config = ConfigDict(from_attributes=True)

    question: str
    answer: str


class ClaimedQuestion(BaseModel):
    """A question for a worker to answer before its lease runs out."""

    id: int
    input: str
    date: datetime
    claims: int = Field(description="The claim's number: send it back with every word about it")
    attempts: int = Field(description="Failed attempts so far")
    lease_seconds: float = Field(description="Renew the claim well within this time")
    earlier: EarlierExchange | None = Field(
        default=None, description="What it follows up, as a reply to an answer does"
    )

    model_config = ConfigDict(from_attributes=True)


class Claim(Body):
    """The claim that the worker holds."""

    claims: Number

    model_config = ConfigDict(json_schema_extra={"examples": [{"claims": 1}]})


class GivenSource(Body):
    """A place in the course's documents that the answer rests on."""

    file: Annotated[str, Field(min_length=1, max_length=500), TIDY]
    quotation: Annotated[str, Field(min_length=1, max_length=4_000), TIDY]
    page: Annotated[StrictInt, Field(ge=1, le=100_000)] | None = None
    slide: Annotated[StrictInt, Field(ge=1, le=100_000)] | None = None
    heading: Annotated[str, Field(max_length=1_000), TIDY] | None = None

    def source(self) -> Source:
        """As the queue stores it."""
        return Source(**self.model_dump())


class GivenAnswer(Body):
    """An answer from a worker."""

    claims: Number
    text: Annotated[str, Field(min_length=1, max_length=LONGEST_ANSWER), TIDY]
    language: str = Field(pattern="^[a-z]{2,3}$", description="ISO 639 code")
    outcome: Literal["answered", "quoted", "not_covered", "no_question"]
    sources: list[GivenSource] = Field(default=[], max_length=100)
    model: Annotated[str, Field(max_length=200), TIDY] | None = None
    uncertain: bool = Field(
        default=False, description="The evidence that the documents answer it is weak"
    )
    prompt_tokens: Number | None = Field(default=None, description="As the model counts them")
    answer_tokens: Number | None = Field(default=None, description="As the model counts them")
    truncated: bool = Field(
        default=False, description="The model's server cut the prompt, so its words were not used"
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "claims": 1,
                    "text": "El examen final es el 3 de diciembre [1].",
                    "language": "es",
                    "outcome": "answered",
                    "sources": [
                        {
                            "file": "programa.docx",
                            "quotation": "Examen final: 3 de diciembre",
                            "heading": "Evaluación",
                        }
                    ],
                    "model": "mistral",
                }
            ]
        }
    )
