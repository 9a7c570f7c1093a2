"""Questions and account mails become e-mails that say the same, whatever the texts are."""

import re
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from html.parser import HTMLParser
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from aiosmtplib.email import flatten_message
from hypothesis import given, settings
from hypothesis import strategies as st

from core.colors import Palette
from core.mails import AccountMail, MailKind
from core.questions import Answer, Outcome, Question, QuestionState, Source
from mailer import messages
from mailer.errors import UndeliverableError
from mailer.logo import Logo
from mailer.messages import Letterhead, account_message, answer_message
from mailer.text import clean

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
LETTERHEAD = Letterhead(
    course_name="Electrónica Analógica",
    language="es",
    timezone=ZoneInfo("Europe/Madrid"),
    sender="consultas@uni.example",
    login_url="https://consultas.uni.example/docs",
    feedback_url=lambda number: f"https://consultas.uni.example/feedback/token-{number}",
    palette=Palette.of("#8c2f39"),
)
QUESTION = Question(
    id=17,
    input="¿Qué es la tensión de corte\nde un JFET?",
    date=datetime(2026, 7, 1, 9, 3, tzinfo=UTC),
    email="ana@uni.example",
    user_id=1,
    state=QuestionState.ANSWERED,
    claims=1,
    attempts=0,
    date_out=datetime(2026, 7, 1, 22, 30, tzinfo=UTC),
    answer=Answer(
        text="Es el valor de **V_GS** que anula la corriente [1].",
        language="es",
        outcome=Outcome.ANSWERED,
        sources=(
            Source("apuntes.pdf", "La tensión de corte\nanula la corriente.", page=12),
            Source("opamp.pptx", "Se mide con V_GS = 0.", slide=4),
            Source("laboratorio.md", "Práctica 3", heading="Prácticas › JFET"),
        ),
    ),
)
ACCOUNT_MAIL = AccountMail(
    id=3,
    kind=MailKind.TEMPORARY_PASSWORD,
    email="ana@uni.example",
    language="es",
    values={
        "password": "kD8-mmQ2-xx",
        "minutes": "30",
        "expires": "2026-07-01T10:00:00+00:00",
    },
    date=datetime(2026, 7, 1, 9, 30, tzinfo=UTC),
    mail_claims=1,
    mail_attempts=0,
)
NOW = datetime(2026, 7, 1, 9, 31, tzinfo=UTC)
HEADERS = {
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Content-Language",
    "Auto-Submitted",
    "X-Auto-Response-Suppress",
    "MIME-Version",
    "Content-Type",
}
# What headers and markup are made of, and what attacks them.
PIECES = [
    *"aé€😀 \r\n\t\x00\x0b\x85\u2028\u202e\ud800<>&\"'`:=?_[](){}|*#-@,;.%$\\/",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<a href='https://evil.example'>",
    "[a](javascript:alert(1))",
    "\r\nBcc: x@evil.example\r\n\r\n",
    "=?utf-8?q?=0D=0ABcc:_x=40evil.example?=",
    "{{ 7 * 7 }}",
    "{0.__class__}",
]
TEXTS = st.text() | st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


def received(message: EmailMessage) -> EmailMessage:
    """The message after its way over the wire."""
    content = flatten_message(message, cte_type="7bit")
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 998
    parsed = message_from_bytes(content, policy=default)
    assert isinstance(parsed, EmailMessage)
    assert not parsed.defects
    return parsed


def part(message: EmailMessage, kind: str) -> str:
    body = message.get_body((kind,))
    assert isinstance(body, EmailMessage)
    return str(body.get_content()).replace("\r\n", "\n")


def with_answer(**changes: object) -> Question:
    assert QUESTION.answer
    return replace(QUESTION, answer=replace(QUESTION.answer, **changes))  # type: ignore[arg-type]


class Active(HTMLParser):
    """Collects whatever in a page could act, load or lead elsewhere."""

    ALLOWED = re.compile(
        "html|head|meta|title|style|body|table|thead|tbody|tr|th|td|div|span|p|br|hr|h[1-6]"
        "|strong|em|s|sub|sup|code|pre|ul|ol|li|blockquote|img|a"
    )
    ATTRIBUTES = re.compile(
        "lang|charset|name|content|role|class|width|height|cellpadding|cellspacing|style|align"
        "|valign|dir|start|src|alt|href"
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if not self.ALLOWED.fullmatch(tag):
            self.found.append(tag)
        for name, value in attributes:
            if not self.ATTRIBUTES.fullmatch(name) or (name == "src" and value != "cid:logo"):
                self.found.append(f"{tag} {name}={value}")
            if name == "href" and not str(value).startswith("https://consultas.uni.example/"):
                self.found.append(f"{tag} {name}={value}")
            if name == "style" and ("url(" in str(value) or "expression" in str(value)):
                self.found.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_answer_carries_question_answer_and_sources_in_both_parts() -> None:
    message = received(answer_message(QUESTION, LETTERHEAD))
    for kind in ("plain", "html"):
        content = part(message, kind)
        for expected in (
            "Electrónica Analógica",
            "¿Qué es la tensión de corte",
            "apuntes.pdf, página 12",
            "opamp.pptx, diapositiva 4",
            "Prácticas › JFET",
            "anula la corriente.",
            "pregunta n.º 17, escrita el 2 de julio de 2026, 00:30 CEST",
        ):
            assert expected in content.replace("</strong>", "")
    assert "<strong>V_GS</strong>" in part(message, "html")
    assert "**V_GS**" in part(message, "plain")


def test_headers_are_those_of_an_automatic_reply() -> None:
    message = received(answer_message(QUESTION, LETTERHEAD))
    assert set(message.keys()) == HEADERS
    assert str(message["From"]) == "Electrónica Analógica <consultas@uni.example>"
    assert str(message["To"]) == "ana@uni.example"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["X-Auto-Response-Suppress"] == "All"
    assert message["Content-Language"] == "es"
    assert message["Date"].datetime == QUESTION.date_out
    assert message["Message-ID"].startswith("<question-17.")
    assert message["Message-ID"].endswith("@uni.example>")
    assert "17" in message["Subject"]
    assert "¿Qué es la tensión de corte de un JFET?" in message["Subject"]


@pytest.mark.parametrize(
    "name",
    ["0" * 75 + ", x@evil.example", '"Course" <x@evil.example>', "Física (grupo A), " * 6, ".", ""],
)
def test_course_name_cannot_change_the_sender(name: str) -> None:
    message = received(answer_message(QUESTION, replace(LETTERHEAD, course_name=name)))
    assert [address.addr_spec for address in message["From"].addresses] == [LETTERHEAD.sender]


def test_copies_share_one_message_id_and_different_mails_have_their_own() -> None:
    first = answer_message(QUESTION, LETTERHEAD)["Message-ID"]
    copy = replace(QUESTION, mail_claims=9, mail_attempts=8, state=QuestionState.SENT)
    assert answer_message(copy, LETTERHEAD)["Message-ID"] == first
    others = {
        answer_message(replace(QUESTION, id=18), LETTERHEAD)["Message-ID"],
        answer_message(replace(QUESTION, email="b@uni.example"), LETTERHEAD)["Message-ID"],
        account_message(ACCOUNT_MAIL, LETTERHEAD, NOW)["Message-ID"],
        account_message(replace(ACCOUNT_MAIL, id=17), LETTERHEAD, NOW)["Message-ID"],
    }
    assert len(others) == 4
    assert first not in others


@pytest.mark.parametrize(
    ("language", "letterhead_language", "expected"),
    [
        ("es", "en", "Respuesta a tu pregunta"),
        ("en", "es", "Answer to your question"),
        ("fr", "es", "Respuesta a tu pregunta"),
        ("fr", "en", "Answer to your question"),
    ],
)
def test_language_is_the_answers_or_else_the_courses(
    language: str, letterhead_language: str, expected: str
) -> None:
    letterhead = replace(LETTERHEAD, language=letterhead_language)
    message = answer_message(with_answer(language=language), letterhead)
    assert message["Subject"].startswith(expected)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome.QUOTED, "Passages from the documents"),
        (Outcome.NOT_COVERED, "The course documents do not say"),
        (Outcome.FAILED, "Your question could not be answered"),
        (Outcome.NO_QUESTION, "How to ask"),
    ],
)
def test_every_outcome_is_said_plainly(outcome: Outcome, expected: str) -> None:
    question = with_answer(outcome=outcome, language="en", text="Sorry.", sources=())
    message = received(answer_message(question, LETTERHEAD))
    assert not message["Subject"].startswith("Answer")
    for kind in ("plain", "html"):
        assert expected in part(message, kind)
        assert "Sorry." in part(message, kind)
        assert "Sources" not in part(message, kind)


@pytest.mark.parametrize(
    ("outcome", "choices"),
    [
        (Outcome.ANSWERED, ["yes", "no", "staff"]),
        (Outcome.QUOTED, ["yes", "no", "staff"]),
        (Outcome.NOT_COVERED, ["staff"]),
        (Outcome.FAILED, ["staff"]),
        (Outcome.NO_QUESTION, []),
    ],
)
def test_answer_asks_whether_it_helped_where_there_is_something_to_say(
    outcome: Outcome, choices: list[str]
) -> None:
    message = received(answer_message(with_answer(outcome=outcome), LETTERHEAD))
    for kind in ("plain", "html"):
        links = re.findall(r"/feedback/token-17\?choice=(\w+)", part(message, kind))
        assert links == choices


@pytest.mark.parametrize("takes_replies", [True, False])
def test_a_reply_is_offered_only_where_the_inbox_is_read(takes_replies: bool) -> None:
    letterhead = replace(LETTERHEAD, takes_replies=takes_replies)
    message = received(answer_message(QUESTION, letterhead))
    for kind in ("plain", "html"):
        assert ("Responde a este correo" in part(message, kind)) is takes_replies


def test_formulas_are_readable_in_both_parts() -> None:
    question = with_answer(
        text=r"Es \(I_D = \frac{V_{DD}}{R_D}\) [1].",
        sources=(Source("a.pdf", r"Vale $\sqrt{x^2 + 1}$ y \Omega.", heading="1. $V_{GS}$"),),
    )
    message = received(answer_message(question, LETTERHEAD))
    assert "Es I_D = V_DD/R_D [1]." in part(message, "plain")
    assert "Vale √(x² + 1) y Ω." in part(message, "plain")
    assert "1. V_GS" in part(message, "plain")
    html = re.sub(r' style="[^"]*"|</?span[^>]*>', "", part(message, "html"))
    assert "Es I<sub>D</sub> = V<sub>DD</sub>/R<sub>D</sub> [1]." in html
    assert "Vale √(x<sup>2</sup> + 1) y Ω." in html


def test_inbox_preview_shows_the_answer_and_not_the_letterhead() -> None:
    body = part(received(answer_message(QUESTION, LETTERHEAD)), "html").partition("<body")[2]
    page = Active()
    page.feed("<body" + body)
    assert page.text.strip().startswith("Es el valor de")


def test_colours_are_the_courses_in_light_and_dark() -> None:
    html = part(received(answer_message(QUESTION, LETTERHEAD)), "html")
    palette = LETTERHEAD.palette
    assert palette.light.ground == "#8c2f39"
    assert html.count(palette.light.ground) > html.count(palette.dark.ground) > 0


@pytest.mark.parametrize("outcome", [Outcome.ANSWERED, Outcome.QUOTED])
@pytest.mark.parametrize("uncertain", [True, False])
def test_uncertain_answer_says_so(outcome: Outcome, uncertain: bool) -> None:
    question = with_answer(outcome=outcome, language="en", uncertain=uncertain)
    message = received(answer_message(question, LETTERHEAD))
    for kind in ("plain", "html"):
        assert ("is not sure that this answers your question" in part(message, kind)) is uncertain


def test_question_without_an_answer_is_no_mail() -> None:
    with pytest.raises(UndeliverableError):
        answer_message(replace(QUESTION, answer=None), LETTERHEAD)


def test_logo_is_an_inline_image_beside_the_html() -> None:
    message = received(answer_message(QUESTION, replace(LETTERHEAD, logo=Logo(PNG, "png"))))
    images = [part for part in message.walk() if part.get_content_maintype() == "image"]
    assert [image["Content-ID"] for image in images] == ["<logo>"]
    assert images[0].get_payload(decode=True) == PNG
    assert images[0].get_content_disposition() == "inline"
    assert 'src="cid:logo"' in part(message, "html")
    assert part(message, "plain")


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("es", ("30 minutos", "una sola vez", "sigue funcionando", "no hagas nada", "12:00 CEST")),
        ("en", ("30 minutes", "works once", "keeps working", "do nothing", "12:00 CEST")),
    ],
)
def test_temporary_password_mail_says_what_the_password_does(
    language: str, expected: tuple[str, ...]
) -> None:
    mail = replace(ACCOUNT_MAIL, language=language)
    message = received(account_message(mail, LETTERHEAD, NOW))
    assert message["Auto-Submitted"] == "auto-generated"
    assert "kD8-mmQ2-xx" not in message["Subject"]
    for kind in ("plain", "html"):
        for words in (*expected, "kD8-mmQ2-xx", LETTERHEAD.login_url):
            assert words in part(message, kind)


def test_expired_temporary_password_is_not_sent() -> None:
    late = NOW + timedelta(minutes=30)
    with pytest.raises(UndeliverableError, match="expired"):
        account_message(ACCOUNT_MAIL, LETTERHEAD, late)


CONFIRMATION = replace(
    ACCOUNT_MAIL,
    kind=MailKind.CONFIRMATION,
    values={
        "url": "https://consultas.uni.example/confirm/token",
        "expires": "2026-07-08T10:00:00+00:00",
    },
)


@pytest.mark.parametrize(
    ("language", "expected"),
    [("es", ("Confirma", "8 de julio de 2026")), ("en", ("Confirm", "8 July 2026"))],
)
def test_confirmation_mail_has_the_link_and_says_how_long_it_works(
    language: str, expected: tuple[str, ...]
) -> None:
    message = received(account_message(replace(CONFIRMATION, language=language), LETTERHEAD, NOW))
    assert message["Auto-Submitted"] == "auto-generated"
    for kind in ("plain", "html"):
        for words in (*expected, "https://consultas.uni.example/confirm/token"):
            assert words in part(message, kind)


def test_old_confirmation_mail_is_not_sent() -> None:
    with pytest.raises(UndeliverableError, match="expired"):
        account_message(CONFIRMATION, LETTERHEAD, NOW + timedelta(days=8))


FOR_STAFF = replace(
    ACCOUNT_MAIL,
    kind=MailKind.FOR_STAFF,
    email="profesorado@uni.example",
    values={
        "number": "17",
        "question": "¿Qué es $V_{GS}$?",
        "answer": "Es **esto** [1].",
        "sources": "[1] apuntes.pdf, página 12",
        "student": "ana@uni.example",
        "reply_to": "ana@uni.example",
    },
)


@pytest.mark.parametrize("language", ["es", "en"])
def test_staff_get_question_answer_and_the_students_address_to_reply_to(language: str) -> None:
    message = received(account_message(replace(FOR_STAFF, language=language), LETTERHEAD, NOW))
    assert str(message["To"]) == "profesorado@uni.example"
    assert str(message["Reply-To"]) == "ana@uni.example"
    assert "17" in message["Subject"]
    for kind in ("plain", "html"):
        for words in ("¿Qué es $V_{GS}$?", "esto", "apuntes.pdf, página 12", "ana@uni.example"):
            assert words in part(message, kind)


def test_account_mail_with_a_missing_value_is_an_error_not_a_gap() -> None:
    values = {name: text for name, text in ACCOUNT_MAIL.values.items() if name != "password"}
    with pytest.raises(Exception, match="password"):
        account_message(replace(ACCOUNT_MAIL, values=values), LETTERHEAD, NOW)


def test_both_languages_have_the_same_texts() -> None:
    folder = Path(messages.__file__).parent / "templates"

    def keys(value: object, path: str = "") -> set[str]:
        if isinstance(value, dict):
            return {key for name in value for key in keys(value[name], f"{path}.{name}")}
        return {path}

    tables = [tomllib.loads((folder / f"{name}.toml").read_text("utf-8")) for name in ("es", "en")]
    assert keys(tables[0]) == keys(tables[1])


@settings(max_examples=150, deadline=None)
@given(question=TEXTS, answer=TEXTS, file=TEXTS, quotation=TEXTS, heading=TEXTS, course=TEXTS)
def test_any_text_in_any_field_arrives_and_injects_nothing(
    question: str, answer: str, file: str, quotation: str, heading: str, course: str
) -> None:
    asked = with_answer(text=answer, sources=(Source(file, quotation, heading=heading),))
    composed = answer_message(
        replace(asked, input=question), replace(LETTERHEAD, course_name=course)
    )
    message = received(composed)

    assert set(message.keys()) == HEADERS
    assert len(message.keys()) == len(HEADERS)
    assert str(message["Subject"]) == str(composed["Subject"])
    assert [address.addr_spec for address in message["From"].addresses] == [LETTERHEAD.sender]
    assert [address.addr_spec for address in message["To"].addresses] == ["ana@uni.example"]
    kinds = [part.get_content_type() for part in message.walk()]
    assert kinds == ["multipart/alternative", "text/plain", "text/html"]

    quoted = "\n".join(f"> {line}".rstrip() for line in clean(question).strip("\n").split("\n"))
    assert f"\n\n{quoted}\n\n\nRespuesta\n" in part(message, "plain")

    page = Active()
    page.feed(part(message, "html"))
    assert page.found == []
    for line in clean(question).split("\n"):
        assert line in page.text


@settings(max_examples=100, deadline=None)
@given(password=TEXTS)
def test_any_account_value_arrives_and_injects_nothing(password: str) -> None:
    values = {**ACCOUNT_MAIL.values, "password": password}
    message = received(account_message(replace(ACCOUNT_MAIL, values=values), LETTERHEAD, NOW))
    assert set(message.keys()) == HEADERS
    page = Active()
    page.feed(part(message, "html"))
    assert page.found == []
    assert clean(password) in page.text
