"""The real processes with a fault proxy before every server, and the count at the end."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Self

import httpx
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests import servers
from tests.faults.proxy import FaultProxy
from tests.journeys.department import COURSE, PASSWORD, Department, eventually, model_server
from tests.servers.process import Service, is_listening, packaged, stop

SERVICES = ("api", "worker", "mailer")
_NUMBER = re.compile(r"<question-(\d+)\.")
_PATIENCE = 180.0
"""Seconds. Nothing here takes so long, unless much else runs on the machine."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the questions of one test; a row of the table that ``make faults`` prints.

    Attributes:
        fault: what was done.
        times: how often.
        accepted: questions that got a 202 (or were stored from an e-mail).
        answered: of these, those with one stored answer.
        mailed: of these, those whose e-mail arrived; None where no mailer runs.
        refused: of these, those whose e-mail was refused for good, with the reason kept.
        duplicates: further copies of an e-mail; all of one question have one Message-ID.
    """

    fault: str
    times: int
    accepted: int
    answered: int
    mailed: int | None
    duplicates: int
    refused: int = 0

    @property
    def lost(self) -> int:
        """Accepted questions without an answer, or of whose e-mail nothing is known."""
        known = self.answered if self.mailed is None else self.mailed + self.refused
        return self.accepted - min(self.answered, known)

    def since(self, earlier: "Tally") -> "Tally":
        """What was added to a count of the same laboratory."""
        assert self.mailed is not None
        assert earlier.mailed is not None
        return replace(
            self,
            accepted=self.accepted - earlier.accepted,
            answered=self.answered - earlier.answered,
            mailed=self.mailed - earlier.mailed,
            duplicates=self.duplicates - earlier.duplicates,
            refused=self.refused - earlier.refused,
        )

    def to_json(self) -> str:
        """For a report's properties, which are text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))


@dataclass
class Laboratory(Department):
    """A department whose servers can be killed, and stand behind proxies.

    Attributes:
        queue: the queue's database, nx-27017.
        mailbox: the SMTP server that catches the e-mails.
        network: the proxies ``queue``, ``smtp`` and ``model``.
        accepted: the numbers of the questions that got a 202.
    """

    queue: Service = field(kw_only=True)
    mailbox: Service = field(kw_only=True)
    network: dict[str, FaultProxy] = field(kw_only=True)
    queue_url: str = field(kw_only=True)
    """Past the proxy."""
    accepted: list[int] = field(default_factory=list)
    restarts: int = 0
    """How often a service had to be started again."""
    network_address: str = "127.0.0.1"
    """From where the student asks, as it seems to an API that trusts the proxy 127.0.0.1."""

    _started_with: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)

    def start(self, name: str, service: str | None = None, **environment: str) -> None:
        """Run a service under ``name``: its own, or that with a number as in ``worker-2``."""
        service = service or name.partition("-")[0]
        self._started_with[name] = service, environment
        super().start(name, service, **environment)

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """The service's, or the queue's database's, as ``queue``."""
        return self.queue.process if name == "queue" else self.processes[name]

    def begin(self, **environment: str) -> None:
        """Start every service, and register Ana."""
        for name in SERVICES:
            self.start(name, **environment)
        self.wait_until_ready()
        self.log_in("ana")

    def log_in(self, name: str) -> None:
        """Register a student; later questions are theirs."""
        self._client = self._stack.enter_context(httpx.Client(base_url=self.api_url, timeout=60))
        account = {"username": name, "email": f"{name}@uni.test", "password": PASSWORD}
        assert self._client.post("/user", json=account).status_code == 201
        login = self._client.post("/login", data={"username": name, "password": PASSWORD})
        self._client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"

    def try_to_ask(self, text: str, key: str) -> httpx.Response | None:
        """One request; None when no reply came."""
        try:
            reply = self._client.post(
                "/questions",
                json={"input": text},
                headers={"Idempotency-Key": key, "X-Forwarded-For": self.network_address},
            )
        except httpx.TransportError:
            return None
        if reply.status_code == 202 and reply.json()["id"] not in self.accepted:
            self.accepted.append(reply.json()["id"])
        return reply

    def ask(self, text: str = "¿Cuánto vale la tensión umbral del diodo?") -> int:
        """Ask as a careful client does, with one key until there is a 202; gives the number."""
        key = uuid.uuid4().hex

        def number() -> int | None:
            self.revive()
            reply = self.try_to_ask(text, key)
            if reply is None or reply.status_code in (500, 503):
                return None
            assert reply.status_code == 202, reply.text
            accepted: int = reply.json()["id"]
            return accepted

        return eventually(number, _PATIENCE, "A reply of 202")

    def restart(self, *names: str) -> None:
        """Stop the services in their own time, and start them as before."""
        for name in names:
            stop(self.processes[name])
            self._start_again(name)

    def clock(self, fake: str) -> dict[str, str]:
        """The environment of a process for which time passes as ``fake`` says.

        ``+0 x60``: sixty times as fast; ``-600``: ten minutes behind.
        """
        return {"LD_PRELOAD": _libfaketime(), "FAKETIME": fake}

    def movable_clock(self, file: Path) -> dict[str, str]:
        """The environment of a process whose clock is wrong by the seconds that ``file`` says now.

        As where a machine's clock is set, its monotonic one goes on.
        """
        return {
            "LD_PRELOAD": _libfaketime(),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def revive(self) -> None:
        """Start what has died, as a supervisor does."""
        if self.queue.process.poll() is not None:
            self.queue.kill()
            self.queue.start()
            self.restarts += 1
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                self._start_again(name)
                self.restarts += 1

    def _start_again(self, name: str) -> None:
        service, environment = self._started_with[name]
        self.start(name, service, **environment)

    def documents(self) -> list[dict[str, Any]]:
        """The stored questions, as they are in the queue's database."""
        with MongoClient[dict[str, Any]](
            self.queue_url, serverSelectionTimeoutMS=5000, socketTimeoutMS=30_000
        ) as client:
            return list(client["consulta"]["prompts"].find())

    def wait_for_accepted(self, number: int) -> None:
        """Return when so many questions have got their 202, as others ask."""
        eventually(lambda: len(self.accepted) >= number, _PATIENCE, f"The 202 number {number}")

    def wait_for_mails(self, seconds: float = _PATIENCE) -> list[dict[str, Any]]:
        """Revive what dies until the mail of every stored question has an end; their documents."""

        def all_ended() -> list[dict[str, Any]] | None:
            self.revive()
            try:
                documents = self.documents()
            except PyMongoError:
                return None  # It was just killed.
            return documents if all(d["status"] for d in documents) else None

        return eventually(all_ended, seconds, "The last e-mail")

    def tally(
        self,
        fault: str,
        times: int,
        *,
        seconds: float = _PATIENCE,
        mails: Callable[[], Sequence[EmailMessage]] | None = None,
    ) -> Tally:
        """Wait until the mail of every accepted question has an end, and count.

        ``mails`` are those that arrived, if not in the mailbox.

        Fails where a question has two answers or two documents, or its e-mails two Message-IDs.
        """
        documents = self.wait_for_mails(seconds)
        stored = {document["_id"] for document in documents}
        assert stored >= set(self.accepted), "an accepted question is not stored"
        assert len(stored) == len(documents)
        copies: dict[int, list[str]] = {}
        for mail in (mails or self.mails)():
            if found := _NUMBER.match(mail["Message-ID"]):
                copies.setdefault(int(found[1]), []).append(mail["Message-ID"])
        for number, message_ids in copies.items():
            assert len(set(message_ids)) == 1, f"question {number} has two Message-IDs"
        ids = Counter(message_ids[0] for message_ids in copies.values())
        assert not ids or max(ids.values()) == 1, "two questions share a Message-ID"
        accepted = set(self.accepted)
        return Tally(
            fault,
            times,
            accepted=len(accepted),
            answered=sum(d["_id"] in accepted and d["output"] is not None for d in documents),
            mailed=len(accepted & copies.keys()),
            duplicates=sum(len(message_ids) - 1 for message_ids in copies.values()),
            refused=sum(
                d["status"] == "undeliverable" and bool(d["mail_error"]) for d in documents
            ),
        )


@contextmanager
def laboratory(
    folder: Path, *, index: Path, proxied: Sequence[str] = (), **environment: str
) -> Iterator[Laboratory]:
    """Queue, mailbox and an idle model server running; the test starts the services.

    Args:
        folder: for all data and logs.
        index: one of the sample course.
        proxied: which of ``queue``, ``smtp``, ``model`` are reached through a proxy.
        environment: settings that override.
    """
    ports = {name: servers.free_port() for name in ("api", "queue", "smtp", "mailbox")}
    passwords = folder / "passwords.json"
    passwords.write_text('{"forgot_password": "", "smtp_password": "", "imap_password": ""}')
    shutil.copytree(index, folder / "index")
    queue = Service(
        [
            servers.script("nx-27017"),
            *("--data-dir", str(folder / "data"), "-p", str(ports["queue"])),
            *("--pid-file", str(folder / "nx.pid")),
        ],
        folder / "nx.log",
        lambda: is_listening(ports["queue"]),
    )
    mailbox = Service(
        [
            *(sys.executable, "-m", "consulta", "mailbox", "--maildir", str(folder / "mail")),
            *("--smtp-port", str(ports["smtp"]), "--port", str(ports["mailbox"])),
        ],
        folder / "mailbox.log",
        lambda: is_listening(ports["mailbox"]),
    )
    with ExitStack() as stack:
        model_url = stack.enter_context(model_server())
        stack.enter_context(queue)
        stack.enter_context(mailbox)
        targets = {
            "queue": ports["queue"],
            "smtp": ports["smtp"],
            "model": int(model_url.rpartition(":")[2]),
        }
        network = {
            name: stack.enter_context(FaultProxy(servers.free_port(), targets[name]))
            for name in proxied
        }
        seen = {
            name: network[name].port if name in network else port for name, port in targets.items()
        }
        settings = {
            "DATABASE_URL": f"sqlite:///{folder / 'users.sqlite'}",
            "MONGO_URL": f"mongodb://127.0.0.1:{seen['queue']}/?directConnection=true",
            "MONGO_DB_NAME": "consulta",
            "SECRET_KEY": os.urandom(32).hex(),
            "API_PORT": str(ports["api"]),
            "PUBLIC_URL": f"http://127.0.0.1:{ports['api']}",
            "DOCUMENT_LOCATION": str(COURSE),
            "INDEX_LOCATION": str(folder / "index"),
            "COURSE_NAME": "Electrónica I",
            "SMTP_SERVER": "127.0.0.1",
            "SMTP_PORT": str(seen["smtp"]),
            "SMTP_TLS": "none",
            "SMTP_USERNAME": "consulta@uni.test",
            "PASSWORDS_FILE": str(passwords),
            "LLM_LANGUAGES": "en",
            "LLM_MODEL": "openai:none",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{seen['model']}/v1",
            "POLL_SECONDS": "0.1",
            "LEASE_SECONDS": "5",
            "MAIL_LEASE_SECONDS": "5",
            "MAX_WAITING_PER_STUDENT": "100000",
            "QUESTIONS_PER_HOUR": "100000",
            "ADDRESS_QUESTIONS_PER_HOUR": "100000",
            **environment,
        }
        lab = Laboratory(
            folder,
            settings,
            f"http://127.0.0.1:{ports['api']}",
            f"http://127.0.0.1:{ports['mailbox']}",
            queue=queue,
            mailbox=mailbox,
            network=network,
            queue_url=f"mongodb://127.0.0.1:{ports['queue']}/?directConnection=true",
        )
        with lab._stack:
            yield lab


def _libfaketime() -> str:
    found = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    return str(found or servers.missing("libfaketime", "apt-get install libfaketime"))


@dataclass(slots=True)
class Calls:
    """How many calls a process has begun, in all its threads together, and how many it ended."""

    begun: int = 0
    ended: int = 0


@contextmanager
def killed_at(
    process: subprocess.Popen[bytes], call: str, occurrence: int, *, held: float = 0.02
) -> Iterator[Calls]:
    """Within it, SIGKILL ``process`` as it begins ``call`` that many times, in whichever threads.

    strace counts the calls of each thread by itself. Here it only holds every call back for
    ``held`` seconds, having written that it begins; who reads that counts, and kills. What the
    signal meets at its beginning has no effect. Where the reader was late (``ended`` is not less
    than ``occurrence``), it had.
    """
    calls = Calls()
    read_end, write_end = os.pipe()

    def count() -> None:
        lines = b""
        with os.fdopen(read_end, "rb", buffering=0) as trace:
            while chunk := trace.read(65536):
                lines += chunk
                calls.begun = len(re.findall(rb"(?m)^\d+ +%b\(" % call.encode(), lines))
                if calls.begun >= occurrence:
                    process.kill()
        calls.ended = len(re.findall(rb"(?m)\) += -?\d.*$", lines))

    reader = threading.Thread(target=count)
    reader.start()
    try:
        output = Path(f"/proc/{os.getpid()}/fd/{write_end}")
        hold = f"--inject={call}:delay_enter={held * 1e6:.0f}"
        with _strace([process.pid], call, output, hold, "--string-limit=0"):
            yield calls
    finally:
        os.close(write_end)
        reader.join()
    if calls.begun >= occurrence:
        process.wait(10)


def killed_at_each(
    lab: Laboratory, victim: str, call: str, way: Callable[[], None], *, every: int = 1
) -> int:
    """Kill ``victim`` at the first such call of one way, then the second, until it lives.

    Args:
        lab: where it runs.
        victim: the service's name, or ``queue``.
        call: which one is counted, as ``write``.
        way: asks a question, and returns when its answer has been mailed.
        every: take the first, and each so many calls after it.

    Returns: how often it was killed.
    """
    kills, occurrence = 0, 1
    while True:
        # What was killed is started, and has done with it, before calls are counted.
        way()
        process = lab.process(victim)
        with killed_at(process, call, occurrence) as calls:
            way()
        if calls.begun < occurrence:
            return kills
        kills += 1
        if calls.ended < occurrence:
            occurrence += every


@contextmanager
def traced(pids: Sequence[int], calls: str, output: Path) -> Iterator[None]:
    """Within it, write the calls of the processes to ``output``, in the order they were made."""
    with _strace(pids, calls, output, "--string-limit=4096"):
        yield


@contextmanager
def failing(
    process: subprocess.Popen[bytes], calls: str, error: str, files: Sequence[str]
) -> Iterator[None]:
    """Within it, the calls of ``process`` on these files fail with ``error``, as ``ENOSPC``."""
    paths = [f"--trace-path={file}" for file in files]
    with _strace([process.pid], calls, Path(os.devnull), f"--inject={calls}:error={error}", *paths):
        yield


@contextmanager
def _strace(pids: Sequence[int], calls: str, output: Path, *options: str) -> Iterator[None]:
    process = subprocess.Popen(
        [
            packaged("strace", "strace"),
            *("--follow-forks", "--quiet=all", f"--output={output}", f"--trace={calls}"),
            *options,
            *(f"--attach={pid}" for pid in pids),
        ],
        stderr=subprocess.PIPE,
    )
    try:
        eventually(
            lambda: process.poll() is not None or all(map(_is_traced, pids)), 10, "strace's start"
        )
        yield
    finally:
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=10)
    # It says so where a call that it holds back is killed.
    complaint = re.sub(rb".* has delayed wait data set already\n", b"", complaint)
    assert not complaint, complaint.decode(errors="replace")


def _is_traced(pid: int) -> bool:
    """Whether all threads are; True for a process that has ended, for it was, and was killed."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            if "\nTracerPid:\t0\n" in (thread / "status").read_text():
                return False
    return True
