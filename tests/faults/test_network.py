"""A network that fails between the services and each server."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from core.questions import Outcome
from tests import servers
from tests.faults.laboratory import Laboratory, Tally, laboratory
from tests.faults.mailed import ask_by_mail, mailed_course
from tests.faults.proxy import Fault, FaultProxy
from tests.integration.model_servers import ModelServer, Reply
from tests.journeys.department import eventually
from tests.servers import MailServer, MariaDB

Count = Callable[[Tally], Tally]

_FAULTS = [fault for fault in Fault if fault is not Fault.NONE]
_SECONDS = {("queue", Fault.HALF_OPEN): 35, ("users", Fault.HALF_OPEN): 35}
"""How long a fault lasts that is noticed by its time limit, if not four seconds."""
_LIMITS = {"SMTP_TIMEOUT": "10", "LEASE_SECONDS": "10"}


def _each_fault(
    lab: Laboratory,
    server: str,
    network: FaultProxy,
    counted: Count,
    *,
    ask: Callable[[], object] | None = None,
    but: Fault = Fault.NONE,
) -> None:
    """Ask while the network to ``server`` fails, in one way after the other, and count."""
    (ask or lab.ask)()
    before = lab.tally("the first question", 0)
    for fault in _FAULTS:
        if fault is but:
            continue
        what = f"network to the {server}: {fault.name.lower().replace('_', ' ')}"
        harmed = network.harmed
        # What is forgotten must be there first: some connections are as short as a mail.
        network.set(Fault.HALF_OPEN if fault is Fault.FORGOTTEN else fault, delay=0.2)
        asking = threading.Thread(target=_three_times, args=(ask or lab.ask,))
        asking.start()
        eventually(partial(_is_harmed, network, harmed), 120, f"A trace of the {what}")
        network.set(fault, delay=0.2)
        time.sleep(_SECONDS.get((server, fault), 4))
        network.set(Fault.NONE)
        asking.join()
        total = lab.tally(what, 1)
        tally = counted(total.since(before))
        before = total
        assert tally.accepted == 3
        assert tally.lost == 0
        assert tally.duplicates <= 3
    assert lab.restarts == 0


def _is_harmed(network: FaultProxy, before: int) -> bool:
    return network.harmed > before


def _three_times(ask: Callable[[], object]) -> None:
    for _ in range(3):
        ask()


@pytest.mark.slow
@pytest.mark.parametrize("server", ["queue", "smtp"])
def test_network_that_fails_for_a_while_loses_nothing(
    tmp_path: Path, course_index: Path, counted: Count, server: str
) -> None:
    with laboratory(tmp_path, index=course_index, proxied=[server], **_LIMITS) as lab:
        lab.begin()
        _each_fault(lab, server, lab.network[server], counted)


class _Writing(ModelServer):
    """A model that takes a second for each true sentence."""

    def __init__(self) -> None:
        super().__init__()
        sentence = "El diodo es una unión PN con dos terminales: el ánodo y el cátodo [1]."
        self.replies += [Reply(words=re.findall(r"\S+\s*", sentence), pause=0.07)] * 1000


@pytest.mark.slow
def test_network_to_the_model_that_fails_leaves_no_question_without_a_true_answer(
    tmp_path: Path, course_index: Path, counted: Count
) -> None:
    model = _Writing()
    port = int(model.url.rpartition(":")[2])
    try:
        with (
            FaultProxy(servers.free_port(), port) as network,
            laboratory(
                tmp_path,
                index=course_index,
                LLM_LANGUAGES="es,en",
                LLM_TIMEOUT="10",
                OPENAI_BASE_URL=f"http://127.0.0.1:{network.port}/v1",
                **_LIMITS,
            ) as lab,
        ):
            lab.begin()
            _each_fault(lab, "model", network, counted, ask=lambda: lab.ask("¿Qué es un diodo?"))
            documents = lab.documents()
    finally:
        model.stop()
    outcomes = [document["outcome"] for document in documents]
    assert set(outcomes) <= {Outcome.ANSWERED, Outcome.QUOTED}
    assert outcomes.count(Outcome.ANSWERED) > len(outcomes) / 2
    for document in documents:
        assert document["sources"]
        assert "unión PN" in document["output"] or document["outcome"] == Outcome.QUOTED


@pytest.mark.slow
def test_network_to_the_users_database_that_fails_loses_nothing(
    tmp_path: Path, course_index: Path, counted: Count, mariadb: MariaDB
) -> None:
    with (
        mariadb.database() as name,
        FaultProxy(servers.free_port(), mariadb.port) as network,
        laboratory(
            tmp_path,
            index=course_index,
            DATABASE_URL=mariadb.url(name).replace(f":{mariadb.port}/", f":{network.port}/"),
            # Each request counts in the database, too.
            ADDRESS_QUESTIONS_PER_HOUR="1000",
            **_LIMITS,
        ) as lab,
    ):
        lab.begin()
        _each_fault(lab, "users", network, counted)


@pytest.mark.slow
def test_network_to_the_mailbox_that_fails_loses_no_question_in_it(
    tmp_path: Path, course_index: Path, counted: Count, mail: MailServer
) -> None:
    with (
        FaultProxy(servers.free_port(), mail.imaps_port) as network,
        mailed_course(tmp_path, course_index, mail, imap_port=network.port) as lab,
    ):
        lab.start("mailer")
        # A connection that is forgotten takes two minutes: test_imap.py does it.
        _each_fault(
            lab,
            "mailbox",
            network,
            counted,
            ask=lambda: ask_by_mail(lab, mail),
            but=Fault.FORGOTTEN,
        )


@pytest.mark.slow
def test_network_between_a_worker_elsewhere_and_the_api_that_fails_loses_nothing(
    tmp_path: Path, course_index: Path, counted: Count
) -> None:
    with laboratory(tmp_path, index=course_index, **_LIMITS) as lab:
        port = int(lab.api_url.rpartition(":")[2])
        with FaultProxy(servers.free_port(), port) as network:
            lab.start("api")
            lab.start("mailer")
            lab.wait_until_ready()
            lab.start(
                "worker",
                f"worker --api-url http://127.0.0.1:{network.port}",
                WORKER_TOKEN=_worker_token(lab),
            )
            lab.log_in("ana")
            _each_fault(lab, "API", network, counted)


def _worker_token(lab: Laboratory) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "consulta", "users", "worker-token", "elsewhere"],
        env={**os.environ, **lab.environment},
        cwd=lab.folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return made.stdout.strip()
