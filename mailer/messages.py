"""Questions and account mails to e-mails, and nothing else: no clock, no socket, no settings."""

import hashlib
import re
import tomllib
from collections.abc import Mapping
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

from core.mails import AccountMail
from core.questions import Question
from mailer.addresses import domain_of, envelope_address
from mailer.errors import UndeliverableError
from mailer.logo import Logo
from mailer.markdown import to_html
from mailer.text import clean, one_line

SUBJECT_LIMIT = 120
"""Longest subject, in characters."""

NAME_LIMIT = 60
"""Longest name of the sender, in characters."""

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


_HEADERS = HeaderRegistry()
# The registry adds BaseHeader to it, which its type does not know.
_HEADERS.map_to_type("subject", _Subject)  # type: ignore[arg-type]

# Seven bits, so that servers without 8BITMIME take the message as it is.
_POLICY = SMTP.clone(cte_type="7bit", header_factory=_HEADERS)


@dataclass(frozen=True, slots=True)
class Letterhead:
    """What every e-mail of a course has in common.

    ``language`` (es or en) is used where the student's is neither; dates are shown in
    ``timezone``; ``login_url`` is the page where students log in.
    """

    course_name: str
    language: str
    timezone: ZoneInfo
    sender: str
    login_url: str
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
        message_id=_message_id("question", question.id, question.date, question.email, letterhead),
        auto_submitted="auto-replied",
        values={"question": question, "answer": answer},
    )


def account_message(mail: AccountMail, letterhead: Letterhead, now: datetime) -> EmailMessage:
    """The e-mail about an account; ``now`` tells whether its secret is still worth sending.

    Raises:
        UndeliverableError: the temporary password has expired, or the address is none that mail
            is sent to.
    """
    expires = datetime.fromisoformat(mail.values["expires"])
    if expires <= now:
        raise UndeliverableError("The temporary password expired before it could be sent.")
    return _compose(
        str(mail.kind),
        letterhead,
        language=mail.language,
        to=mail.email,
        date=mail.date,
        message_id=_message_id("mail", mail.id, mail.date, mail.email, letterhead),
        auto_submitted="auto-generated",
        values={**mail.values, "expires": expires},
    )


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
) -> EmailMessage:
    language = language if language in _LANGUAGES else letterhead.language
    context = {
        **values,
        "course_name": one_line(letterhead.course_name, SUBJECT_LIMIT),
        "logo": f"cid:{_LOGO_ID}" if letterhead.logo else None,
        "language": language,
        "login_url": letterhead.login_url,
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
    message["Subject"] = one_line(render("subject.txt"), SUBJECT_LIMIT)
    message["Date"] = format_datetime(date)
    message["Message-ID"] = message_id
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


def _mailbox(address: str, name: str = "") -> Address:
    local, _, domain = envelope_address(address).rpartition("@")
    # Without what must be quoted: the standard library loses the quotes where it folds a line.
    return Address(one_line(_SPECIALS.sub(" ", name), NAME_LIMIT), local, domain)


def _message_id(
    collection: str, number: int, date: datetime, email: str, letterhead: Letterhead
) -> str:
    # The number for people; the hash because another installation may have the same number.
    seed = f"{collection}\n{number}\n{date.isoformat()}\n{email}"
    digest = hashlib.sha256(seed.encode("utf-8", "replace")).hexdigest()[:16]
    return f"<{collection}-{number}.{digest}@{domain_of(envelope_address(letterhead.sender))}>"


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
        "one_line": one_line,
        "quoted": _quoted,
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
