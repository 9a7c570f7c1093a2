"""The real processes of a department's server, on loopback, for tests to use and to kill."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests import servers

T = TypeVar("T")
COURSE = Path(__file__).parents[2] / "resources" / "files"
PASSWORD = "tres gatos en el tejado"


def eventually(check: Callable[[], T | None], seconds: float, what: str) -> T:
    """The first result of ``check`` that is not None or False."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if result := check():
                return result
        except httpx.TransportError:
            pass  # It is being started, or was just killed.
        time.sleep(0.2)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} seconds")


def index_sample_course(folder: Path) -> Path:
    """Make the index of the sample course in ``folder``; where there is one, nothing happens."""
    subprocess.run(
        [sys.executable, "-m", "consulta", "index"],
        env={**os.environ, "DOCUMENT_LOCATION": str(COURSE), "INDEX_LOCATION": str(folder)},
        check=True,
        timeout=300,
        stdout=subprocess.DEVNULL,
    )
    return folder


@dataclass
class Department:
    """Queue, mailbox, API, workers and mailer as processes of their own."""

    folder: Path
    environment: dict[str, str]
    api_url: str
    mailbox_url: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self, name: str, service: str | None = None, **environment: str) -> None:
        """Run ``consulta SERVICE``, with options, under ``name``; its log is ``NAME.log``."""
        command = [sys.executable, "-m", "consulta", *(service or name).split()]
        self.processes[name] = self._stack.enter_context(
            servers.running(
                command,
                self.folder / f"{name}.log",
                environment={**self.environment, **environment},
                cwd=self.folder,
            )
        )

    def kill(self, name: str) -> None:
        """SIGKILL, as the kernel does when memory is out."""
        os.kill(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].wait()

    def log(self, name: str) -> str:
        """What the process has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def wait_until_ready(self) -> None:
        """Return when the API and all it needs answer, and every process lives."""
        for name, process in self.processes.items():
            assert process.poll() is None, self.log(name)
        eventually(
            lambda: httpx.get(f"{self.api_url}/health/ready").is_success, 180, "The API's start"
        )

    @contextmanager
    def student(self, name: str) -> Iterator[httpx.Client]:
        """The session of a new student who has logged in."""
        with httpx.Client(base_url=self.api_url, timeout=30) as client:
            account = {"username": name, "email": f"{name}@uni.test", "password": PASSWORD}
            assert client.post("/user", json=account).status_code == 201
            login = client.post("/login", data={"username": name, "password": PASSWORD})
            client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
            yield client

    def answered(self, client: httpx.Client, number: int, seconds: float = 120) -> dict[str, Any]:
        """The question once its e-mail is sent."""

        def sent() -> dict[str, Any] | None:
            question: dict[str, Any] = client.get(f"/questions/{number}").json()
            return question if question["state"] == "sent" else None

        return eventually(sent, seconds, f"The answer to question {number}")

    def mails(self, recipient: str = "") -> list[EmailMessage]:
        """The caught e-mails, newest first, but for those that ask to confirm an address."""
        found = []
        for file in (self.folder / "mail" / "new").iterdir():
            message = message_from_bytes(file.read_bytes(), policy=policy.default)
            is_confirmation = message["Subject"].startswith("Confirma tu dirección")
            if recipient in message["X-Envelope-To"] and not is_confirmation:
                found.append((file.stat().st_mtime_ns, message))
        return [message for _, message in sorted(found, key=lambda pair: -pair[0])]


class _IdleModel(BaseHTTPRequestHandler):
    """A model server that is there and must not be asked to write."""

    def do_GET(self) -> None:
        # The list of models, empty, as OpenAI-compatible servers and Ollama put it.
        body = b'{"object": "list", "data": [], "models": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def model_server() -> Iterator[str]:
    """A model server in a thread; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _IdleModel) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def department(
    folder: Path, *, documents: Path = COURSE, index: Path | None = None, **environment: str
) -> Iterator[Department]:
    """A department with its queue and its mailbox running; the test starts the services.

    Its model writes English only, and is not there to write: questions in Spanish are answered
    with quoted passages. ``index`` is one made from ``documents`` before; ``environment``
    overrides any setting.
    """
    api_port, smtp_port, mailbox_port = (servers.free_port() for _ in range(3))
    passwords = folder / "passwords.json"
    passwords.write_text('{"forgot_password": "", "smtp_password": "", "imap_password": ""}')
    if index:
        shutil.copytree(index, folder / "index")
    with servers.nx_27017(folder) as mongo_url, model_server() as model_url:
        settings: Mapping[str, str] = {
            "DATABASE_URL": f"sqlite:///{folder / 'users.sqlite'}",
            "MONGO_URL": mongo_url,
            "SECRET_KEY": "".join(f"{byte:02x}" for byte in os.urandom(32)),
            "API_PORT": str(api_port),
            "PUBLIC_URL": f"http://127.0.0.1:{api_port}",
            "DOCUMENT_LOCATION": str(documents),
            "INDEX_LOCATION": str(folder / "index"),
            "COURSE_NAME": "Electrónica I",
            "SMTP_SERVER": "127.0.0.1",
            "SMTP_PORT": str(smtp_port),
            "SMTP_TLS": "none",
            "SMTP_USERNAME": "consulta@uni.test",
            "PASSWORDS_FILE": str(passwords),
            "LLM_LANGUAGES": "en",
            "LLM_MODEL": "openai:none",
            "OPENAI_BASE_URL": f"{model_url}/v1",
            "POLL_SECONDS": "0.1",
            "MAX_WAITING_PER_STUDENT": "100000",
            "QUESTIONS_PER_HOUR": "100000",
            "ADDRESS_QUESTIONS_PER_HOUR": "100000",
            **environment,
        }
        running = Department(
            folder,
            dict(settings),
            f"http://127.0.0.1:{api_port}",
            f"http://127.0.0.1:{mailbox_port}",
        )
        mailbox = [
            *(sys.executable, "-m", "consulta", "mailbox", "--maildir", str(folder / "mail")),
            *("--smtp-port", str(smtp_port), "--port", str(mailbox_port)),
        ]
        log = folder / "mailbox.log"
        with servers.running(mailbox, log) as process, running._stack:
            servers.wait_for_port(mailbox_port, process, log)
            yield running
