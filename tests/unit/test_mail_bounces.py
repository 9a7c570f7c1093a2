"""Reports of failed deliveries, in the forms of the mail servers that write them."""

import pytest

from mailer.bounces import Bounce
from mailer.incoming import read_mail

OURS = "<question-3.0123456789abcdef@uni.test>"

POSTFIX = """\
Content-Type: multipart/report; report-type=delivery-status; boundary="x"

--x
Content-Type: text/plain; charset=us-ascii

This is the mail system at host mx.uni.test.
--x
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.uni.test
X-Postfix-Queue-ID: 4F2

Final-Recipient: rfc822; ana@other.test
Action: failed
Status: {status}
Remote-MTA: dns; mx.other.test
Diagnostic-Code: smtp; {words}

--x
Content-Type: text/rfc822-headers

Message-ID:
 {id}

--x--
"""
POSTFIX_UTF8 = POSTFIX.replace("message/delivery-status", "message/global-delivery-status").replace(
    "text/rfc822-headers", "message/global-headers"
)
EXIM = """\
X-Failed-Recipients: ana@other.test
References: {id}
Content-Type: multipart/report; report-type=delivery-status; boundary=x

--x
Content-type: text/plain; charset=us-ascii

This message was created automatically by mail delivery software.
--x
Content-type: message/delivery-status

Reporting-MTA: dns; mx.uni.test

Action: failed
Final-Recipient: rfc822;ana@other.test
Status: 5.0.0
Remote-MTA: dns; mx.other.test
Diagnostic-Code: smtp; {words}

--x
Content-type: message/rfc822

Return-path: <consultas@uni.test>
Message-ID: {id}
Subject: x

x
--x--
"""
EXCHANGE_WITHOUT_THE_MAIL = """\
In-Reply-To: {id}
Content-Type: multipart/report; report-type=delivery-status; boundary="x"

--x
Content-Type: multipart/alternative; boundary=y

--y
Content-Type: text/plain

No se ha encontrado a ana.
--y--
--x
Content-Type: message/delivery-status

Reporting-MTA: dns;X.outlook.com

Original-Recipient: rfc822;ana@other.test
Final-Recipient: rfc822;ana@other.test
Action: failed
Status: {status}
Diagnostic-Code: smtp;{words}

--x--
"""
GMAIL = """\
In-Reply-To: {id}
Content-Type: multipart/report; boundary="x"; report-type=delivery-status

--x
Content-Type: multipart/related; boundary=y

--y
Content-Type: text/html

<p>Address not found</p>
--y--
--x
Content-Type: message/delivery-status

Reporting-MTA: dns; googlemail.com
X-Original-Message-ID: {id}

Final-Recipient: rfc822; ana@other.test
Action: failed
Status: {status}
Diagnostic-Code: smtp; {words}
 and a second line.
Last-Attempt-Date: Mon, 23 Nov 2026 10:12:00 -0800 (PST)

--x
Content-Type: message/rfc822

Message-ID: {id}
Subject: x

x
--x--
"""


def bounce(form: str, status: str, words: str) -> Bounce:
    text = "From: MAILER-DAEMON@mx.test\nSubject: Undelivered\nMIME-Version: 1.0\n" + form.format(
        id=OURS, status=status, words=words
    )
    found = read_mail(text.replace("\n", "\r\n").encode()).bounce
    assert found
    return found


@pytest.mark.parametrize(
    "form", [POSTFIX, POSTFIX_UTF8, EXIM, EXCHANGE_WITHOUT_THE_MAIL, GMAIL], ids=range(5)
)
def test_report_says_which_mail_came_back_and_why(form: str) -> None:
    found = bounce(form, "5.1.1", "550 5.1.1 no such user")
    assert found.message_id == OURS
    assert found.is_final
    assert found.is_dead_address
    assert found.status == "5.1.1"
    assert "no such user" in found.reason


@pytest.mark.parametrize(
    ("status", "words", "is_dead"),
    [
        ("5.1.1", "550 no such user", True),
        ("5.1.2", "bad domain", True),
        ("5.1.10", "550 5.1.10 RESOLVER.ADR.RecipientNotFound", True),
        ("5.2.1", "550 mailbox disabled", True),
        ("5.4.1", "550 5.4.1 Recipient address rejected: Access denied.", True),
        ("5.4.4", "Host or domain name not found", True),
        ("5.0.0", "550 unknown user", True),
        ("5.0.0", "550 5.7.1 rejected as spam", False),
        ("5.1.8", "501 5.1.8 sender address rejected", False),
        ("5.2.2", "552 over quota", False),
        ("5.4.6", "routing loop", False),
        ("5.5.2", "syntax error", False),
        ("5.6.1", "content", False),
        ("5.7.1", "550 5.7.1 message refused by policy", False),
        ("5.7.26", "550 5.7.26 unauthenticated", False),
        ("4.4.7", "delivery time expired", False),
        ("", "550 5.1.1 no such user", True),
        ("", "550 no such user", False),
    ],
)
def test_only_what_speaks_of_the_address_makes_it_a_dead_one(
    status: str, words: str, is_dead: bool
) -> None:
    assert bounce(POSTFIX, status, words).is_dead_address is is_dead
