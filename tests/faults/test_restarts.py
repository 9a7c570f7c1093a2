"""Services that are stopped and started: by an upgrade, or by SIGTERM while they work."""

import itertools
import json
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic import command
from bson import json_util
from pymongo import MongoClient
from pymongo.database import Database
from sqlalchemy import text

from api.migrations import alembic_config
from core.clock import NEVER
from core.questions import Outcome
from core.security import hash_password
from core.settings import Settings
from core.users import create_user_engine
from tests import servers
from tests.faults.laboratory import SERVICES, Laboratory, Tally, laboratory
from tests.faults.test_smtp import scripted
from tests.integration.mail_servers import Script
from tests.integration.model_servers import ModelServer, Reply
from tests.journeys.department import PASSWORD, eventually

Count = Callable[[Tally], Tally]

_BEFORE = datetime(2026, 10, 1, 8, tzinfo=UTC)


def _first_users(url: str) -> None:
    """Ana in a database that Alembic left at its first revision."""
    engine = create_user_engine(Settings(database_url=url))
    config = alembic_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "INSERT INTO users (id, email, email_normal, username, username_normal, "
                "password_hash, token_version, must_change_password, is_staff, is_active, created) "
                "VALUES (1, 'ana@uni.test', 'ana@uni.test', 'ana', 'ana', "
                ":password_hash, 0, 0, 0, 1, '2026-10-01 08:00:00')"
            ),
            {"password_hash": hash_password(PASSWORD)},
        )
        connection.commit()
    engine.dispose()


def _first_question(number: int, **fields: Any) -> dict[str, Any]:
    """A question as the first version stored it, without all that came later."""
    asked = _BEFORE + timedelta(minutes=number)
    moment = int(asked.timestamp() * 1000)
    return {
        "_id": number,
        "number": number,
        "input": "¿Cuánto vale la tensión umbral del diodo?",
        "date": asked,
        "date_ms": moment,
        "output": None,
        "email": "ana@uni.test",
        "status": None,
        "user_id": 1,
        "dedupe": f"user:1:{number}",
        "due": moment,
        "held": False,
        "claims": 0,
        "attempts": 0,
        "abandoned": 0,
        "language": None,
        "error": None,
        "mail_due": NEVER,
        "mail_claims": 0,
        "mail_attempts": 0,
        "mail_in_doubt": False,
        "mail_error": None,
        **fields,
    }


def _first_answer(number: int, **fields: Any) -> dict[str, Any]:
    answered = _BEFORE + timedelta(minutes=number, seconds=30)
    answer = {
        "output": "Unos 0,7 V [1].",
        "outcome": "answered",
        "sources": [
            {
                "file": "apuntes.pdf",
                "quotation": "La tensión umbral es de unos 0,7 V.",
                "page": 3,
                "slide": None,
                "heading": None,
            }
        ],
        "language": "es",
        "model": "ollama:mistral",
        "date_out": answered,
        "due": NEVER,
        "mail_due": int(answered.timestamp() * 1000),
        "claims": 1,
        "claimed_ms": int(answered.timestamp() * 1000) - 20_000,
        "worker": "host:1",
        "work_ms": 20_000,
    }
    return _first_question(number, **{**answer, **fields})


_FIRST_MAIL: dict[str, Any] = {
    "_id": 1,
    "number": 1,
    "kind": "temporary_password",
    "email": "ana@uni.test",
    "language": "es",
    "values": {
        "username": "ana",
        "password": "provisional-7",
        "minutes": "60",
        "expires": "2126-10-01T09:00:00+00:00",
    },
    "date": _BEFORE,
    "status": None,
    "mail_due": int(_BEFORE.timestamp() * 1000),
    "mail_claims": 0,
    "mail_attempts": 0,
    "mail_in_doubt": False,
    "mail_error": None,
}


_OLD_INDEXES: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "prompts": [
        ("claim", ("due", "date")),
        ("mine", ("user_id", "number")),
        ("recent", ("number",)),
        ("outbox", ("mail_due", "number")),
    ],
    "mails": [("outbox", ("mail_due", "number"))],
}
"""One of the same name and other fields would be refused. `dedupe`, a unique one, comes besides."""


def _first_version(lab: Laboratory, database: Database[dict[str, Any]]) -> None:
    _first_users(lab.environment["DATABASE_URL"])
    database["prompts"].insert_many(
        [
            _first_answer(1, status="sent", mail_due=NEVER, mail_claims=1),
            _first_answer(2),
            _first_question(3),
            # Its worker was stopped without a word.
            _first_question(4, held=True, claims=1, abandoned=1, claimed_ms=1, worker="a"),
        ]
    )
    database["mails"].insert_one(_FIRST_MAIL)
    database["counters"].insert_many([{"_id": "prompts", "value": 4}, {"_id": "mails", "value": 1}])
    for manifest in (lab.folder / "index").glob("generations/*/manifest.json"):
        earlier = json.loads(manifest.read_text()) | {"format": 1}
        manifest.write_text(json.dumps(earlier))


def _previous_version(lab: Laboratory, database: Database[dict[str, Any]]) -> None:
    # What that version's own processes stored, where mailer and worker were killed on the way.
    stored = json_util.loads(Path(__file__).with_name("previous_version.json").read_text())
    for name, documents in stored["queue"].items():
        database[name].insert_many(documents)
    database["mails"].create_index([("email", 1), ("number", 1)], name="recipient")
    database["mails"].create_index([("dedupe", 1)], name="dedupe", unique=True)
    with closing(sqlite3.connect(lab.folder / "users.sqlite")) as users:
        users.executescript("\n".join(stored["users"]))


@pytest.mark.parametrize(
    ("version", "store", "secret"),
    [
        pytest.param("first", _first_version, "provisional-7", marks=pytest.mark.quick),
        pytest.param("previous", _previous_version, "vUrPjimyu26rPZ", marks=pytest.mark.quick),
    ],
)
def test_upgrade_reads_answers_and_mails_what_an_earlier_version_stored(
    tmp_path: Path,
    course_index: Path,
    counted: Count,
    version: str,
    store: Callable[[Laboratory, Database[dict[str, Any]]], None],
    secret: str,
) -> None:
    with laboratory(tmp_path, index=course_index) as lab:
        with MongoClient[dict[str, Any]](lab.queue_url, w=1, journal=True) as client:
            database = client["consulta"]
            database["prompts"].create_index([("dedupe", 1)], name="dedupe", unique=True)
            for collection, indexes in _OLD_INDEXES.items():
                for name, fields in indexes:
                    database[collection].create_index([(one, 1) for one in fields], name=name)
            store(lab, database)
        # The first one had its e-mail before.
        lab.accepted += [2, 3, 4]
        for service in SERVICES:
            lab.start(service)
        lab.wait_until_ready()
        with httpx.Client(base_url=lab.api_url, timeout=60) as ana:
            login = ana.post("/login", data={"username": "ana", "password": PASSWORD})
            ana.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
            asked = ana.post("/questions", json={"input": "¿Qué es un diodo Zener?"})
            assert asked.status_code == 202
            lab.accepted.append(asked.json()["id"])
            tally = counted(lab.tally(f"upgrade from the {version} version", 1))
            listed = {row["id"]: row for row in ana.get("/questions").json()["questions"]}
            first = ana.get("/questions/1").json()
            eventually(
                lambda: any(secret in str(mail.get_body()) for mail in lab.mails()),
                180,
                "The temporary password",
            )
        outcomes = {d["_id"]: d["outcome"] for d in lab.documents()}
    assert tally == Tally(tally.fault, 1, 4, 4, 4, 0)
    assert {row["state"] for row in listed.values()} == {"sent"}
    assert listed.keys() == {1, 2, 3, 4, 5}
    assert "0,7 V" in json.dumps(first, ensure_ascii=False)
    assert Outcome.FAILED not in outcomes.values()


def _terminate(lab: Laboratory, name: str, seconds: float) -> float:
    """SIGTERM; gives the seconds that the process took to end well."""
    process = lab.processes[name]
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    # uvicorn takes the signal, and ends by it when all is done.
    assert process.wait(seconds) in {0, -signal.SIGTERM}, lab.log(name)
    return time.monotonic() - began


@pytest.mark.quick
def test_worker_that_is_stopped_finishes_what_it_can_and_gives_the_rest_back(
    tmp_path: Path, course_index: Path, counted: Count
) -> None:
    model = ModelServer()
    model.replies += [Reply(words=["Nada "] * 4, pause=1), Reply(words=["tarde"], pause=3600)]
    try:
        with laboratory(
            tmp_path,
            index=course_index,
            LLM_LANGUAGES="es,en",
            OPENAI_BASE_URL=f"{model.url}/v1",
            WORKER_CONCURRENCY="2",
            STOP_SECONDS="8",
            LEASE_SECONDS="60",
        ) as lab:
            lab.begin()
            for _ in range(4):
                lab.ask()
            eventually(lambda: len(model.requests) >= 2, 180, "Two claims")
            seconds = _terminate(lab, "worker", 60)
            stopped = sorted(lab.documents(), key=lambda document: document["_id"])
            lab.start("worker")
            tally = counted(lab.tally("SIGTERM of a worker under load", 1))
    finally:
        model.stop()
    assert seconds > 7
    finished, given_back = sorted(stopped[:2], key=lambda document: document["output"] is None)
    assert finished["output"] is not None
    assert (given_back["output"], given_back["held"], given_back["attempts"]) == (None, False, 0)
    assert given_back["due"] <= time.time() * 1000
    assert [(d["claims"], d["held"]) for d in stopped[2:]] == [(0, False)] * 2
    assert tally == Tally(tally.fault, 1, 4, 4, 4, 0)


def test_mailer_that_is_stopped_finishes_the_mail_it_is_sending(
    tmp_path: Path, course_index: Path, counted: Count
) -> None:
    port = servers.free_port()
    script = Script()
    with (
        scripted(script, port),
        laboratory(tmp_path, index=course_index, SMTP_PORT=str(port)) as lab,
    ):
        lab.begin()
        eventually(lambda: script.received, 180, "The confirmation")
        script.seconds = 3
        for _ in range(5):
            lab.ask()
        eventually(lambda: len(script.received) >= 2, 180, "The first answer's last dot")
        _terminate(lab, "mailer", 60)
        sent = [d["_id"] for d in lab.documents() if d["status"] == "sent"]
        received = len(script.received)
        script.seconds = 0
        lab.start("mailer")
        tally = counted(lab.tally("SIGTERM of a mailer under load", 1, mails=script.messages))
    assert len(sent) == received - 1
    assert tally == Tally(tally.fault, 1, 5, 5, 5, 0)


def test_api_that_is_stopped_under_load_forgets_no_202(
    tmp_path: Path, course_index: Path, counted: Count
) -> None:
    with laboratory(tmp_path, index=course_index) as lab:
        lab.begin()
        stop = threading.Event()
        broken: list[int] = []
        askers = [
            threading.Thread(target=_keep_asking, args=(lab, stop, broken, name))
            for name in range(3)
        ]
        for asker in askers:
            asker.start()
        for times in range(1, 4):
            lab.wait_for_accepted(5 * times)
            _terminate(lab, "api", 60)
            lab.start("api")
        lab.wait_for_accepted(len(lab.accepted) + 1)
        stop.set()
        for asker in askers:
            asker.join()
        tally = counted(lab.tally("SIGTERM of the API under load", 3))
    assert broken == []
    assert tally.lost == 0
    assert tally.answered == tally.accepted


def _keep_asking(lab: Laboratory, stop: threading.Event, broken: list[int], name: int) -> None:
    """Ask with a key for each question; ``broken`` are the statuses other than 202 and 503."""
    for number in itertools.count():
        for _ in range(100):
            if stop.is_set():
                return
            reply = lab.try_to_ask("¿Qué es un diodo?", f"key-{name}-{number}")
            if reply is not None and reply.status_code == 202:
                break
            if reply is not None and reply.status_code != 503:
                broken.append(reply.status_code)
            time.sleep(0.1)
        time.sleep(0.2)
