"""Mail servers that drop, delay, refuse, and stay away."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from tests import servers
from tests.faults.laboratory import Laboratory, Tally, laboratory
from tests.faults.proxy import Fault
from tests.integration.mail_servers import DROP, Script, smtp_server
from tests.journeys.department import eventually

Count = Callable[[Tally], Tally]


@contextmanager
def scripted(script: Script, port: int, **options: Any) -> Iterator[None]:
    """The SMTP server with the script, in a thread."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(smtp_server(script, port=port, **options)),
    ):
        yield


@contextmanager
def course(folder: Path, index: Path, **environment: str) -> Iterator[Laboratory]:
    """API and worker running; the mailer's hour is a minute."""
    with laboratory(folder, index=index, **environment) as lab:
        lab.start("api")
        lab.start("worker")
        lab.start("mailer", POLL_SECONDS="3", MAIL_LEASE_SECONDS="120", **lab.clock("+0 x60"))
        lab.wait_until_ready()
        lab.log_in("ana")
        yield lab


@pytest.mark.parametrize(
    ("fault", "script", "duplicates"),
    [
        ("drops before the message", Script(mail=[DROP, DROP]), 0),
        pytest.param(
            "drops after the final dot", Script(data=[DROP, DROP]), 2, marks=pytest.mark.quick
        ),
        ("answers after 120 s", Script(seconds=2), 0),
        ("says 421", Script(mail=["421 4.3.2 Closing"] * 2), 0),
        pytest.param(
            "says 450", Script(rcpt=["450 4.2.0 Greylisted"] * 2), 0, marks=pytest.mark.quick
        ),
        ("says 451", Script(data=["451 4.3.0 Local error"] * 2), 2),
        ("says 452", Script(rcpt=["452 4.3.1 Disk full"] * 2), 0),
    ],
)
def test_mail_server_that_mends_gets_every_mail(
    tmp_path: Path,
    course_index: Path,
    counted: Count,
    fault: str,
    script: Script,
    duplicates: int,
) -> None:
    port = servers.free_port()
    server = Script()
    with scripted(server, port), course(tmp_path, course_index, SMTP_PORT=str(port)) as lab:
        # Or the mail that asks Ana to confirm her address would meet the fault, and no answer.
        eventually(lambda: server.received, 180, "The confirmation")
        server.mail, server.rcpt, server.data = script.mail, script.rcpt, script.data
        server.seconds = script.seconds
        for _ in range(3):
            lab.ask()
        tally = counted(lab.tally(f"mail server {fault}", 2, mails=server.messages))
    assert tally.lost == 0
    assert tally.mailed == tally.accepted
    assert tally.duplicates == duplicates
    assert [*server.mail, *server.rcpt, *server.data] == []


@pytest.mark.parametrize(
    "reply", ["550 5.1.1 No such user", "552 5.2.2 Mailbox full", "554 5.7.1 Refused"]
)
def test_refusal_for_good_is_kept_with_its_reason_and_the_others_go_on(
    tmp_path: Path, course_index: Path, counted: Count, reply: str
) -> None:
    port = servers.free_port()
    # The first recipient is the one of Ana's confirmation.
    script = Script(rcpt=["250 OK", "250 OK", reply])
    with scripted(script, port), course(tmp_path, course_index, SMTP_PORT=str(port)) as lab:
        lab.ask()
        lab.wait_for_mails()
        lab.ask()
        lab.wait_for_mails()
        lab.log_in("luis")
        lab.ask()
        tally = counted(lab.tally(f"one recipient refused: {reply[:3]}", 1, mails=script.messages))
        (refused,) = [d for d in lab.documents() if d["status"] == "undeliverable"]
    assert tally.lost == 0
    assert (tally.mailed, tally.refused) == (2, 1)
    assert reply[:3] in refused["mail_error"]


def test_wrong_password_costs_no_attempt_and_is_forgiven(
    tmp_path: Path, course_index: Path, counted: Count
) -> None:
    port = servers.free_port()
    script = Script()
    with course(tmp_path, course_index, SMTP_PORT=str(port)) as lab:
        (tmp_path / "passwords.json").write_text(
            '{"forgot_password": "", "smtp_password": "right", "imap_password": ""}'
        )
        lab.restart("mailer")
        with scripted(script, port, password="other"):
            for _ in range(3):
                lab.ask()
            time.sleep(10)
            assert all(d["status"] is None for d in lab.documents())
        with scripted(script, port, password="right"):
            tally = counted(lab.tally("mail server says 535", 1, mails=script.messages))
            documents = lab.documents()
    assert tally.lost == 0
    assert tally.mailed == tally.accepted
    assert all(d["mail_attempts"] == 0 for d in documents)


def test_message_cut_in_its_middle_arrives_whole_once(
    tmp_path: Path, course_index: Path, counted: Count
) -> None:
    with laboratory(tmp_path, index=course_index, proxied=["smtp"]) as lab:
        for service in ("api", "worker"):
            lab.start(service)
        lab.start("mailer", POLL_SECONDS="3", MAIL_LEASE_SECONDS="120", **lab.clock("+0 x60"))
        lab.wait_until_ready()
        lab.log_in("ana")
        # A mail is some 20,000 bytes, so two seconds end within it.
        lab.network["smtp"].set(Fault.DRIP, delay=0.001)
        lab.ask()
        time.sleep(5)
        lab.network["smtp"].set(Fault.RESET)
        time.sleep(1)
        lab.network["smtp"].set(Fault.NONE)
        tally = counted(lab.tally("mail server drops in the message", 1))
    assert tally.lost == 0
    assert tally.mailed == tally.accepted


@pytest.mark.slow
def test_relay_away_for_a_day_uses_up_no_attempt(
    tmp_path: Path, course_index: Path, counted: Count
) -> None:
    with laboratory(tmp_path, index=course_index, proxied=["smtp"]) as lab:
        for service in ("api", "worker"):
            lab.start(service)
        lab.wait_until_ready()
        lab.log_in("ana")
        lab.network["smtp"].set(Fault.CUT)
        # The mailer's day is two minutes and a half.
        lab.start("mailer", POLL_SECONDS="30", MAIL_LEASE_SECONDS="600", **lab.clock("+0 x600"))
        for _ in range(5):
            lab.ask()
        time.sleep(150)
        documents = lab.documents()
        knocks = lab.network["smtp"].accepted
        lab.network["smtp"].set(Fault.NONE)
        tally = counted(lab.tally("relay away for a day", 1))
    assert all(d["status"] is None and d["mail_attempts"] == 0 for d in documents)
    # Two lanes, each with pauses that grow to five minutes: 288 a day.
    assert knocks <= 2 * 300
    assert tally.lost == 0
    assert tally.mailed == tally.accepted
    assert tally.duplicates == 0
