"""``consulta up``: the whole stack with the real bundled model, started, killed and stopped."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests import servers
from tests.journeys.department import eventually, model_server

DOCUMENT = """# Exams

The final exam of the Databases course is on 14 June 2027 at 10:00 in lecture hall H7.

# Office hours

Professor Okonkwo sees students on Tuesdays from 15:00 to 16:30 in room 3.121.
"""


class Up:
    """A ``consulta up`` on a data folder of its own, without an Ollama."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "var"
        self.documents = folder / "documents"
        self.documents.mkdir()
        (self.documents / "course.md").write_text(DOCUMENT)
        self.port, self.mailbox_port = servers.free_port(), servers.free_port()
        self.environment = {
            **os.environ,
            "DOCUMENT_LOCATION": str(self.documents),
            "COURSE_NAME": "Databases",
            "OLLAMA_SERVER_URL": "http://127.0.0.1:9",
        }

    def command(self, *options: str) -> list[str]:
        return [
            *(sys.executable, "-m", "consulta", "up", "--data", str(self.data)),
            *("--port", str(self.port), "--mailbox-port", str(self.mailbox_port), *options),
        ]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*options),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def consulta(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command beside the running stack."""
        return subprocess.run(
            [sys.executable, "-m", "consulta", *words, "--data", str(self.data)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "up.log").open("ab") as log:
            process = subprocess.Popen(
                self.command(), env=self.environment, cwd=self.folder, stdout=log, stderr=log
            )

        def ready() -> bool:
            assert process.poll() is None, self.log()
            return "Ctrl-C stops everything" in self.log()

        eventually(ready, 240, "The start")
        return process

    def log(self) -> str:
        return (self.folder / "up.log").read_text()

    def processes(self) -> list[psutil.Process]:
        """Every process whose command line or parent has to do with this data folder."""
        found = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                mine = environment.get("DOCUMENT_LOCATION") == str(self.documents)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def process(self, *words: str) -> psutil.Process:
        return next(p for p in self.processes() if p.cmdline()[-len(words) :] == list(words))


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    stack = Up(tmp_path)
    yield stack
    for process in stack.processes():
        process.kill()


def test_once_shows_the_email_and_leaves_no_process_behind(up: Up) -> None:
    first = up.run("--once", "--question", "When and where is the final exam of Databases?")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "14 June 2027" in first.stdout
    assert "course.md" in first.stdout
    assert up.processes() == []
    second = up.run("--once", "--question", "When does Professor Okonkwo see students?")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "course.md" in second.stdout
    # The first question was kept.
    assert "question 2" in second.stdout.lower()


def test_sample_student_may_ask_where_only_some_addresses_may(up: Up) -> None:
    up.environment |= {"REQUIRE_CONFIRMED_EMAIL": "true", "ALLOWED_EMAIL_DOMAINS": "uni.test"}
    shown = up.run("--once", "--question", "When does Professor Okonkwo see students?")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "@uni.test" in shown.stdout


def test_ctrl_c_stops_everything_and_killed_processes_come_back(up: Up) -> None:
    process = up.start()
    try:
        asked = up.consulta("ask", "Where does Professor Okonkwo see students?")
        assert asked.returncode == 0, asked.stdout + asked.stderr
        assert "3.121" in asked.stdout
        doctor = up.consulta("doctor")
        assert doctor.returncode == 0, doctor.stdout
        for name in ("worker", "mailer", "api", "queue"):
            words = ("-m", "consulta", name)
            if name == "queue":
                victim = next(p for p in up.processes() if "nx-27017" in " ".join(p.cmdline()))
            else:
                victim = up.process(*words)
            victim.send_signal(signal.SIGKILL)
        again = up.consulta("ask", "On which date is the final exam?")
        while "does not answer" in again.stderr or "503" in again.stderr:
            again = up.consulta("ask", "On which date is the final exam?")
        assert again.returncode == 0, again.stdout + again.stderr
        assert "is started again" in up.log()
        status = up.consulta("status")
        assert status.returncode == 0, status.stderr
        ports = dict(re.findall(r"(\d+) \((api|worker|mailer)\)", up.log()))
        assert sorted(ports.values()) == ["api", "mailer", "worker"]
        for port, service in ports.items():
            page = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text
            assert f'service="{service}"' in page
            assert 'consulta_questions{state="sent"} 2.0' in page
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 0
    # One that was sent SIGKILL a moment ago may still be on its way out.
    eventually(lambda: up.processes() == [], 10, "The end of every process")
    assert not (up.data / "consulta.env").exists()


def test_what_was_backed_up_comes_back_after_the_folder_is_deleted(up: Up) -> None:
    process = up.start()
    try:
        asked = up.consulta("ask", "Where does Professor Okonkwo see students?")
        assert asked.returncode == 0, asked.stdout + asked.stderr
        made = up.consulta("backup", "all.backup")
        assert made.returncode == 0, made.stdout + made.stderr
        refused = up.consulta("restore", "--replace", "all.backup")
        assert "stop it" in refused.stderr
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    shutil.rmtree(up.data)
    restored = up.consulta("restore", "all.backup")
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert "SECRET_KEY is not the one of the backup" in restored.stdout
    assert up.processes() == []
    again = up.run("--once", "--question", "When does Professor Okonkwo see students?")
    assert again.returncode == 0, again.stdout + again.stderr
    made = up.consulta("backup", "again.backup")
    # The sample question and that of `ask`, and the new one of a new sample student.
    assert "2 accounts, 0 workers' tokens, 3 questions" in made.stdout, made.stderr


def test_killed_front_takes_everything_with_it(up: Up) -> None:
    process = up.start()
    process.kill()
    process.wait()
    eventually(lambda: up.processes() == [], 60, "The end of every process")
    assert up.run("--once").returncode == 0


def test_second_start_on_one_folder_says_so(up: Up) -> None:
    process = up.start()
    try:
        up.port, up.mailbox_port = servers.free_port(), servers.free_port()
        second = up.run("--once")
        assert second.returncode == 1
        assert "already runs" in second.stdout
        assert "Traceback" not in second.stdout + second.stderr
    finally:
        process.terminate()
        process.wait(60)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("ignored", "sent"),
    [(signal.SIGINT, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM)],
    ids=["background of a script", "nohup"],
)
def test_signals_that_the_shell_has_ignored(
    up: Up, ignored: signal.Signals, sent: signal.Signals
) -> None:
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        with (up.folder / "up.out").open("wb") as out:
            process = subprocess.Popen(up.command(), env=up.environment, stdout=out, stderr=out)
    finally:
        signal.signal(ignored, before)
    try:
        eventually((up.data / "up.lock").exists, 30, "its lock")
        if ignored == signal.SIGHUP:
            process.send_signal(signal.SIGHUP)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
        process.send_signal(sent)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_taken_port_is_named_with_what_to_do(up: Up) -> None:
    with socket.create_server(("127.0.0.1", up.port)):
        refused = up.run("--once")
    assert refused.returncode == 1
    assert f"Port {up.port} is taken" in refused.stdout
    assert "--port" in refused.stdout
    assert up.processes() == []


def test_folder_that_cannot_be_made_is_named(up: Up) -> None:
    (up.folder / "file").write_text("")
    up.data = up.folder / "file" / "var"
    refused = up.run("--once")
    assert refused.returncode == 1
    assert "--data" in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr


def test_ollama_without_the_model_is_answered_with_the_pull_to_run(up: Up) -> None:
    with model_server() as url:
        up.environment["OLLAMA_SERVER_URL"] = url
        once = up.run("--once", "--question", "When is the final exam?")
    assert once.returncode == 0, once.stdout
    assert "ollama pull mistral" in once.stdout
