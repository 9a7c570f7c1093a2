"""Questions and account mails to e-mails, and nothing else: no clock, no socket, no settings."""

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.header import Header
from email.headerregistry import Address, HeaderRegistry, UniqueUnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, Policy
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from core.colors import Palette
from core.mails import AccountMail, MailKind
from core.questions import Question, Thread
from mailer.addresses import domain_of, envelope_address
from mailer.errors import UndeliverableError
from mailer.formulas import readable
from mailer.logo import Logo
from mailer.markdown import quotation_html, to_html, to_text
from mailer.text import clean, one_line

SUBJECT_LIMIT = 120
"""Longest subject, in characters."""

REASON_LIMIT = 500
"""Longest single value in an alarm, in characters."""

NAME_LIMIT = 60
"""Longest name of the sender, in characters."""

REFERENCES_LIMIT = 10
"""Most Message-IDs in References."""

# Without "=?", which begins an encoded word.
_ID = re.compile(r"<(?:(?!=\?)[!-;=?-~]){1,250}>")
_REPLIES = re.compile(r"^(?:(?:re|aw|sv|antw|rif)\s*(?:\[\d+\])?\s*:\s*)+", re.I)
_SPECIALS = re.compile(r'[()<>\[\]:;@\\,."]+')
_TEMPLATES = Path(__file__).parent / "templates"
_LANGUAGES = ("es", "en")
_LOGO_ID = "logo"


class _Subject(UniqueUnstructuredHeader):
    """A subject that is encoded whole: the standard library encodes single words, and where it
    folds a line between them it can lose or double a space."""

    def fold(self, *, policy: Policy) -> str:
        text = str(self)
        charset = "us-ascii" if text.isascii() else "utf-8"
        encoded = Header(text, charset, header_name="Subject").encode(linesep=policy.linesep)
        return f"Subject: {encoded}{policy.linesep}"


class _MessageIds(UniqueUnstructuredHeader):
    """Message-IDs, one a line: the standard library encodes those that are too long for a line,
    and then no mail program knows them again."""

    def fold(self, *, policy: Policy) -> str:
        lines = f"{policy.linesep} ".join(str(self).split())
        name = self.name  # type: ignore[attr-defined]
        return f"{name}: {lines}{policy.linesep}"


_HEADERS = HeaderRegistry()
# The registry adds BaseHeader to it, which its type does not know.
_HEADERS.map_to_type("subject", _Subject)  # type: ignore[arg-type]
for _name in ("in-reply-to", "references"):
    _HEADERS.map_to_type(_name, _MessageIds)  # type: ignore[arg-type]

# Seven bits, so that servers without 8BITMIME take the message as it is.
_POLICY = SMTP.clone(cte_type="7bit", header_factory=_HEADERS)


@dataclass(frozen=True, slots=True)
class Letterhead:
    """What every e-mail of a course has in common.

    ``language`` (es or en) is used where the student's is neither; dates are shown in
    ``timezone``; ``login_url`` is the page where students log in. ``feedback_url`` gives the page
    where the recipient of the answer to a question says whether it helped. With ``takes_replies``
    a reply to an answer is a question; ``replies_to`` is the inbox, where it is not ``sender``.
    """

    course_name: str
    language: str
    timezone: ZoneInfo
    sender: str
    login_url: str
    feedback_url: Callable[[int], str]
    palette: Palette
    takes_replies: bool = False
    replies_to: str | None = None
    logo: Logo | None = None


def answer_message(question: Question, letterhead: Letterhead) -> EmailMessage:
    """The e-mail with the answer to ``question``; every copy has the same Message-ID and Date.

    Raises:
        UndeliverableError: there is no answer, or the address is none that mail is sent to.
    """
    answer = question.answer
    if answer is None or question.date_out is None:
        raise UndeliverableError(f"Question {question.id} has no answer.")
    return _compose(
        "answer",
        letterhead,
        language=answer.language,
        to=question.email,
        date=question.date_out,
        message_id=question_message_id(question, letterhead.sender),
        auto_submitted="auto-replied",
        thread=question.thread,
        values={
            "question": question,
            "answer": answer,
            "feedback_url": letterhead.feedback_url(question.id),
            "takes_replies": letterhead.takes_replies,
        },
    )


def account_message(mail: AccountMail, letterhead: Letterhead, now: datetime) -> EmailMessage:
    """The e-mail that is no answer; ``now`` tells whether its secret is still worth sending.

    Raises:
        UndeliverableError: its secret has expired, or the address is none that mail is sent to.
    """
    values: dict[str, Any] = dict(mail.values)
    if values.get("expected"):
        values["expected"] = datetime.fromisoformat(values["expected"])
    if "expires" in values:
        values["expires"] = datetime.fromisoformat(values["expires"])
        if values["expires"] <= now:
            raise UndeliverableError("What it holds expired before it could be sent.")
    if mail.kind is MailKind.ALARM:
        values |= _alarm_texts(mail, letterhead)
    return _compose(
        str(mail.kind),
        letterhead,
        language=mail.language,
        to=mail.email,
        date=mail.date,
        message_id=mail_message_id(mail, letterhead.sender),
        auto_submitted="auto-replied" if mail.thread else "auto-generated",
        thread=mail.thread,
        values=values,
        reply_to=values.get("reply_to"),
    )


def _alarm_texts(mail: AccountMail, letterhead: Letterhead) -> dict[str, Any]:
    """For the template of an alarm: what is wrong, and what to do next."""
    language = mail.language if mail.language in _LANGUAGES else letterhead.language
    texts, common = _texts(language)["alarm"], _texts(language)["common"]
    told = {
        name: _moment(datetime.fromisoformat(value), common, letterhead.timezone)
        if name in ("question_since", "unsent_since")
        else one_line(value, REASON_LIMIT)
        for name, value in mail.values.items()
    }

    def remedy(trouble: str) -> str:
        name = f"question_{mail.values['worker']}" if trouble == "question" else trouble
        return str(texts["remedy"][name])

    return {
        "alarm_text": lambda trouble: texts["trouble"][trouble].format(**told),
        "alarm_remedy": remedy,
    }


def question_message_id(question: Question, sender: str) -> str:
    """The Message-ID of the answer to ``question``, sent by ``sender``."""
    return _message_id("question", question.id, question.date, question.email, sender)


def mail_message_id(mail: AccountMail, sender: str) -> str:
    """The Message-ID of ``mail``, sent by ``sender``."""
    return _message_id("mail", mail.id, mail.date, mail.email, sender)


def _compose(
    kind: str,
    letterhead: Letterhead,
    *,
    language: str,
    to: str,
    date: datetime,
    message_id: str,
    auto_submitted: str,
    values: Mapping[str, Any],
    reply_to: str | None = None,
    thread: Thread | None = None,
) -> EmailMessage:
    language = language if language in _LANGUAGES else letterhead.language
    context = {
        **values,
        "course_name": one_line(letterhead.course_name, SUBJECT_LIMIT),
        "logo": f"cid:{_LOGO_ID}" if letterhead.logo else None,
        "language": language,
        "login_url": letterhead.login_url,
        "palette": letterhead.palette,
        "timezone": letterhead.timezone,
        "written": date,
        "common": _texts(language)["common"],
        "texts": _texts(language)[kind],
    }

    def render(name: str) -> str:
        return clean(_environment().get_template(f"{kind}/{name}").render(context))

    message = EmailMessage(policy=_POLICY)
    message["From"] = _mailbox(letterhead.sender, context["course_name"])
    message["To"] = _mailbox(to)
    if reply_to := reply_to or letterhead.replies_to:
        message["Reply-To"] = _mailbox(reply_to)
    message["Subject"] = one_line(_subject(thread) or render("subject.txt"), SUBJECT_LIMIT)
    message["Date"] = format_datetime(date)
    message["Message-ID"] = message_id
    for name, ids in _threading(thread).items():
        message[name] = " ".join(ids)
    message["Auto-Submitted"] = auto_submitted
    message["X-Auto-Response-Suppress"] = "All"
    message.set_content(render("body.txt"))
    message.add_alternative(render("body.html"), subtype="html")
    # Set last: the calls above take a content header for the part's own.
    message["Content-Language"] = language
    if letterhead.logo:
        html = message.get_payload(1)
        assert isinstance(html, EmailMessage)
        html.add_related(
            letterhead.logo.data,
            "image",
            letterhead.logo.subtype,
            cid=f"<{_LOGO_ID}>",
            disposition="inline",
        )
    return message


def _subject(thread: Thread | None) -> str:
    subject = one_line(thread.subject, SUBJECT_LIMIT) if thread else ""
    return f"Re: {_REPLIES.sub('', subject)}" if subject else ""


def _threading(thread: Thread | None) -> dict[str, list[str]]:
    """The headers that put a reply into its thread: the first and the newest of its e-mails."""
    if thread is None:
        return {}
    before = [i for i in thread.references if i != thread.message_id and _ID.fullmatch(i)]
    parent = [thread.message_id] if _ID.fullmatch(thread.message_id) else []
    chain = [*before, *parent]
    if len(chain) > REFERENCES_LIMIT:
        chain = [chain[0], *chain[1 - REFERENCES_LIMIT :]]
    headers = {"In-Reply-To": parent, "References": chain}
    return {name: ids for name, ids in headers.items() if ids}


def _mailbox(address: str, name: str = "") -> Address:
    local, _, domain = envelope_address(address).rpartition("@")
    # Without what must be quoted: the standard library loses the quotes where it folds a line.
    return Address(one_line(_SPECIALS.sub(" ", name), NAME_LIMIT), local, domain)


def _message_id(collection: str, number: int, date: datetime, email: str, sender: str) -> str:
    # The number for people; the hash because another installation may have the same number.
    seed = f"{collection}\n{number}\n{date.isoformat()}\n{email}"
    digest = hashlib.sha256(seed.encode("utf-8", "replace")).hexdigest()[:16]
    return f"<{collection}-{number}.{digest}@{domain_of(envelope_address(sender))}>"


@cache
def _texts(language: str) -> dict[str, Any]:
    return tomllib.loads((_TEMPLATES / f"{language}.toml").read_text("utf-8"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "day": _day,
        "moment": _moment,
        "lines": _lines,
        "markdown": lambda text: to_html(clean(text)),
        "markdown_text": lambda text: to_text(clean(text)),
        "one_line": one_line,
        "quotation": lambda text: quotation_html(clean(text)),
        "quoted": _quoted,
        "readable": lambda text: readable(clean(text)),
    }
    return environment


def _day(date: datetime, common: Mapping[str, Any], timezone: ZoneInfo) -> str:
    local = date.astimezone(timezone)
    month = common["months"][local.month - 1]
    return str(common["day"].format(day=local.day, month=month, year=local.year))


def _moment(date: datetime, common: Mapping[str, Any], timezone: ZoneInfo) -> str:
    return f"{_day(date, common, timezone)}, {date.astimezone(timezone):%H:%M %Z}"


def _lines(text: str) -> Markup:
    return Markup("<br>\n").join(escape(line) for line in clean(text).strip("\n").split("\n"))


def _quoted(text: str, mark: str) -> str:
    return "\n".join(f"{mark}{line}".rstrip() for line in clean(text).strip("\n").split("\n"))
