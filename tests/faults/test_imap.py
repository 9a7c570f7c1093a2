"""Mailboxes whose mailer is killed, that are numbered anew, say nothing, and are overfull."""

import os
import pwd
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import servers
from tests.faults.laboratory import Tally, killed_at_each
from tests.faults.mailed import COURSE, append, mailed_course, question, wait_until_accepted
from tests.faults.proxy import Fault, FaultProxy
from tests.journeys.department import eventually
from tests.servers import MailServer

Count = Callable[[Tally], Tally]

_OLD_MAILS = 5_000


def _are_seen(mail: MailServer) -> bool:
    return all(r"\Seen" in flags for flags in mail.flags(COURSE))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "every", "which"), [("write", 1, "each"), ("sendto", 2, "every 2nd")]
)
def test_mailer_killed_at_each_call_makes_one_question_of_each_mail(
    tmp_path: Path,
    course_index: Path,
    counted: Count,
    mail: MailServer,
    call: str,
    every: int,
    which: str,
) -> None:
    # Of TLS come the calls of `write`, of MongoDB and SMTP those of `sendto`, some sixty.
    with mailed_course(tmp_path, course_index, mail, POLL_SECONDS="1") as lab:
        lab.start("mailer")
        texts: list[str] = []

        def one_way() -> None:
            texts.append(f"¿Qué es un diodo? {uuid.uuid4().hex}")
            append(mail, question(texts[-1]))
            wait_until_accepted(lab, texts)
            lab.wait_for_mails()
            eventually(lambda: lab.revive() or _are_seen(mail), 180, "The flag")

        kills = killed_at_each(lab, "mailer", call, one_way, every=every)
        tally = counted(lab.tally(f"mailer killed at {which} {call} of an e-mail's way", kills))
    assert kills
    assert tally.accepted == len(texts)
    assert tally.lost == 0
    assert tally.answered == tally.accepted
    assert tally.duplicates <= kills


@pytest.mark.slow
def test_mailbox_that_is_numbered_anew_loses_and_doubles_nothing(
    tmp_path: Path, course_index: Path, counted: Count, mail: MailServer
) -> None:
    with mailed_course(tmp_path, course_index, mail) as lab:
        lab.start("mailer")
        texts: list[str] = []
        for change in range(3):
            some = [f"¿Pregunta {change}.{number}?" for number in range(3)]
            texts += some
            append(mail, *map(question, some))
            # The first time all is stored before, then it is done in the middle.
            wait_until_accepted(lab, texts if change == 0 else texts[:-3])
            mail.change_uidvalidity(COURSE)
        wait_until_accepted(lab, texts)
        tally = counted(lab.tally("mailbox numbered anew", 3))
    assert tally == Tally(tally.fault, 3, 9, 9, 9, 0)
    assert _are_seen(mail)


@pytest.mark.slow
def test_idle_that_never_speaks_is_given_up(
    tmp_path: Path, course_index: Path, counted: Count, mail: MailServer
) -> None:
    with (
        FaultProxy(servers.free_port(), mail.imaps_port) as network,
        mailed_course(tmp_path, course_index, mail, imap_port=network.port) as lab,
    ):
        lab.start("mailer")
        append(mail, question("¿Qué es un diodo?"))
        wait_until_accepted(lab, ["¿Qué es un diodo?"])
        lab.wait_for_mails()
        connections = network.accepted
        network.set(Fault.FORGOTTEN)
        append(mail, question("¿Y un transistor?"))
        # A minute of IDLE, and another for the reply to its end.
        wait_until_accepted(lab, ["¿Qué es un diodo?", "¿Y un transistor?"], 180)
        tally = counted(lab.tally("IDLE that never speaks", 1))
    assert network.accepted > connections
    assert tally == Tally(tally.fault, 1, 2, 2, 2, 0)


@pytest.mark.slow
def test_mailbox_of_thousands_at_the_first_start_is_searched_for_its_questions(
    tmp_path: Path, course_index: Path, counted: Count, mail: MailServer
) -> None:
    every = 500
    with mailed_course(tmp_path, course_index, mail) as lab:
        folder = mail.folder / "mailboxes" / COURSE
        owner = pwd.getpwuid((folder / "new").stat().st_uid)
        for number in range(_OLD_MAILS):
            subject = "CONSULTA" if number % every == 0 else "Acta de la reunión"
            file = folder / "new" / f"{int(time.time())}.M{number:06}.old"
            file.write_bytes(question(f"¿Número {number}?", subject).as_bytes())
            os.chown(file, owner.pw_uid, owner.pw_gid)
        began = time.monotonic()
        lab.start("mailer")
        texts = [f"¿Número {number}?" for number in range(0, _OLD_MAILS, every)]
        wait_until_accepted(lab, texts, 120)
        seconds = time.monotonic() - began
        tally = counted(lab.tally(f"{_OLD_MAILS} e-mails at the first start", 1))
        flags = mail.flags(COURSE)
    assert tally == Tally(tally.fault, 1, len(texts), len(texts), len(texts), 0)
    assert sum(r"\Seen" in one for one in flags) == len(texts)
    assert len(flags) == _OLD_MAILS
    assert seconds < 90
