"""The servers that tests start leave nothing behind, and say how to get them where they are not."""

import contextlib
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests import servers
from tests.servers.ollama import MODEL
from tests.servers.process import built, packaged, stop, wait_until

Starter = Callable[[Path], contextlib.AbstractContextManager[Any]]


@contextlib.contextmanager
def answering_ollama(folder: Path) -> Any:
    """Ollama with the process that it starts for a model."""
    with servers.ollama(folder) as server:
        request = {"model": MODEL, "prompt": "Hello", "options": {"num_predict": 1}}
        httpx.post(f"{server.url}/api/generate", json=request, timeout=60).raise_for_status()
        yield server


@contextlib.contextmanager
def mail_server_in_use(_: Path) -> Any:
    """Postfix and Dovecot with the processes that they start for a mail and a login."""
    with servers.mail_server({"ana@uni.test": "secret"}) as server:
        server.deliver(b"Subject: Hello\r\n\r\nHello\r\n", "ana@uni.test")
        with server.mailbox("ana@uni.test"):
            yield server


@pytest.mark.parametrize(
    "start",
    [
        servers.nx_27017,
        servers.secantusdb,
        servers.ferretdb,
        servers.mariadb,
        answering_ollama,
        mail_server_in_use,
    ],
)
def test_server_listens_on_the_loopback_interface_only_and_leaves_no_process(
    start: Starter, tmp_path: Path
) -> None:
    before = set(psutil.Process().children(recursive=True))
    with start(tmp_path):
        started = set(psutil.Process().children(recursive=True)) - before
        assert started
        addresses = [
            connection.laddr.ip
            for process in started
            for connection in _connections(process)
            if connection.status == psutil.CONN_LISTEN
        ]
        assert set(addresses) == {"127.0.0.1"}
    assert [process for process in started if process.is_running()] == []


def _connections(process: psutil.Process) -> list[Any]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(process.net_connections("inet"))
    return []


def test_server_that_stays_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    stubborn = 'trap "" TERM; sleep 60 & sleep 60'
    with servers.running(["bash", "-c", stubborn], tmp_path / "log") as process:
        while len(started := psutil.Process(process.pid).children()) < 2:
            assert process.poll() is None
        stop(process, seconds=0.2)
    assert process.poll() is not None
    assert [child for child in started if child.is_running()] == []


INTERRUPTED = """
import time

def test_something(nx_url):
    time.sleep(60)
"""


def test_tests_that_are_ended_take_their_servers_with_them(tmp_path: Path) -> None:
    (tmp_path / "test_interrupted.py").write_text(INTERRUPTED)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "--rootdir", str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    environment = {"PYTHONPATH": str(root)}
    log = tmp_path / "log"
    with servers.running(command, log, environment=environment, cwd=tmp_path) as process:

        def has_server() -> bool:
            children = psutil.Process(process.pid).children(recursive=True)
            return any(child.net_connections("inet") for child in children)

        wait_until(has_server, process, log)
        started = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(20)
        assert [child for child in started if child.is_running()] == []


def test_server_that_does_not_start_is_told_with_its_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ["bash", "-c", "echo no licence; exit 3"]
    with (
        servers.running(command, log) as process,
        pytest.raises(RuntimeError, match="no licence"),
    ):
        servers.wait_for_port(1, process, log)


@pytest.mark.parametrize(
    ("find", "remedy"),
    [
        (lambda: packaged("no-such-daemon", "a-package"), "apt-get install a-package"),
        (lambda: built("no-such-daemon"), "scripts/build-test-servers no-such-daemon"),
    ],
)
def test_missing_server_skips_the_test_and_fails_it_in_ci(
    find: Callable[[], str], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=remedy):
        find()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=remedy):
        find()


def test_free_port_is_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", servers.free_port()))
