"""The mailbox catcher reads any e-mail, however broken."""

from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consulta.mailbox import parse_mail


def header(data: bytes, name: str) -> str:
    return dict(parse_mail(data).headers)[name]


def test_parts_and_inline_images_are_found() -> None:
    message = EmailMessage(policy=SMTP)
    message["Subject"] = "Señal"
    message.set_content("texto ñ")
    message.add_alternative('<img src="cid:logo"><img src="cid:other">', subtype="html")
    html = message.get_payload(1)
    assert isinstance(html, EmailMessage)
    html.add_related(b"\x89PNG", "image", "png", cid="<logo>")
    mail = parse_mail(message.as_bytes())
    assert mail.text is not None
    assert mail.text.strip() == "texto ñ"
    assert mail.html is not None
    assert mail.html.strip() == '<img src="data:image/png;base64,iVBORw=="><img src="data:,">'
    assert dict(mail.headers)["Subject"] == "Señal"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"=?utf-8?q?tensi=C3=B3n?=\n de corte", "tensión de corte"),
        (b"=?iso-8859-1?q?a=F1o?=", "año"),
        (b"=?no-such?q?a=41?=", "aA"),
        ("año".encode(), "año"),
        (b"a\xf1o", "a�o"),
        (b"a\x00b\x1bc", "abc"),
    ],
)
def test_subjects_of_every_kind_are_shown(raw: bytes, expected: str) -> None:
    assert header(b"Subject: " + raw + b"\n\n", "Subject") == expected


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-15", "windows-1252"])
def test_bodies_are_decoded_by_their_charset(charset: str) -> None:
    message = EmailMessage()
    message.set_content("el niño pagó 3 €", charset=charset)
    text = parse_mail(message.as_bytes()).text
    assert text is not None
    assert text.strip() == "el niño pagó 3 €"


def test_attachments_are_not_the_body() -> None:
    message = EmailMessage()
    message.set_content("body")
    message.add_attachment("<b>attached</b>", subtype="html", filename="a.html")
    mail = parse_mail(message.as_bytes())
    assert mail.html is None
    assert mail.text is not None


@given(st.binary())
@example(b"Content-Type: text/html; charset=hex\n\n<p>a")
@example(b"Content-Type: text/plain; charset=\xff\n\na")
@example(b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n####")
@example(b"Content-Type: multipart/mixed; boundary=a\n\n--a\n\n")
@example(b"Content-Type: multipart/mixed\n\nno boundary")
@example(b"Content-Type: message/rfc822\n\nSubject: a\n\nb")
@example(b"Subject: =?utf-8?b?####?=\n\n")
@example(b"Content-Type: text/html; charset*=utf-8''%ff\n\n<p>")
def test_any_bytes_are_an_email(data: bytes) -> None:
    mail = parse_mail(data)
    for text in (mail.text, mail.html, mail.source, *(value for _, value in mail.headers)):
        (text or "").encode("utf-8")
