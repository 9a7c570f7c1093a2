"""Programs as child processes: found, started, waited for, stopped with all they started."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Self

import psutil
import pytest

START_SECONDS = 60
STOP_SECONDS = 15
_FIRST_PORT, _RANGE, _RANGES = 12_000, 4_000, 5

_PROGRAM_FOLDERS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def cache_folder() -> Path:
    """Where ``scripts/build-test-servers`` puts the servers that it builds."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("CONSULTA_CACHE") or Path(home, "consulta")) / "bin"


def missing(what: str, remedy: str) -> NoReturn:
    """Skip the test for want of ``what``, saying how to get it; in CI fail."""
    reason = f"{what} is missing: {remedy}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def packaged(name: str, package: str) -> str:
    """The path of a program that Debian's ``package`` brings."""
    found = shutil.which(name, path=_PROGRAM_FOLDERS)
    return found or missing(name, f"apt-get install {package}")


def built(name: str) -> str:
    """The path of a program that ``scripts/build-test-servers`` builds."""
    found = shutil.which(name, path=str(cache_folder()))
    return found or missing(name, f"scripts/build-test-servers {name}")


def script(name: str) -> str:
    """A command that was installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


_ports = itertools.count()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on, another one each time.

    Below those that the kernel gives away by itself, and from a range of its own for each of
    several processes of tests: what was free a moment ago still is when a server takes it.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = _FIRST_PORT + worker % _RANGES * _RANGE
    start = os.getpid() * 7 % _RANGE
    for number in itertools.islice(_ports, _RANGE):
        port = first + (start + number) % _RANGE
        with contextlib.suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"no port is free from {first} to {first + _RANGE - 1}")


def wait_until(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when ``is_ready``; fail with the log when the process ends first or time runs out."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if is_ready():
            return
        time.sleep(0.05)
    raise RuntimeError(
        f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-2000:]}"
    )


def is_listening(port: int) -> bool:
    """Whether the port of the loopback interface accepts connections."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the port accepts connections; fail with the log when the process ends first."""
    wait_until(lambda: is_listening(port), process, log)


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process; at the end SIGTERM, and SIGKILL for one that does not listen.

    Whatever the process has started is gone at the end too.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
        )
    try:
        yield process
    finally:
        stop(process)


@dataclass
class Service:
    """A server that can be stopped, killed and started again on the data it has."""

    command: Sequence[str]
    log: Path
    is_ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    def start(self) -> None:
        """Start it, and return when it is ready."""
        context = running(self.command, self.log, environment=self.environment)
        self.process = self._running.enter_context(context)
        try:
            wait_until(self.is_ready, self.process, self.log)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Let it end in its own time."""
        self._running.close()

    def kill(self) -> None:
        """End it with SIGKILL, with all it started."""
        stop(self.process, seconds=0)
        self._running.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def stop(process: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> None:
    """End a process and all it started: SIGTERM, and SIGKILL for what is there after ``seconds``.

    With no seconds it is SIGKILL at once.
    """
    offspring = _offspring(process)
    if seconds:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(offspring, min(seconds, 3))
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(alive, STOP_SECONDS)


def _offspring(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
