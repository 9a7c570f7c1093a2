"""Real servers for tests: each in its own folder, on a free port, stopped by its process id."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

START_SECONDS = 60


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def script(name: str) -> str:
    """A command that was installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the port accepts connections; fail with the log when the process ends first."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args} did not start:\n{log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process; at the end SIGTERM, and SIGKILL for one that does not listen."""
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
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def nx_27017(folder: Path, port: int | None = None) -> Iterator[str]:
    """MongoDB's protocol over SQLite; gives its URL. A second start on one folder has its data."""
    port = port or free_port()
    # Its own file for its process id: the default is one file for the whole machine.
    command = [
        script("nx-27017"),
        *("--data-dir", str(folder / "data"), "-p", str(port)),
        *("--pid-file", str(folder / "nx.pid")),
    ]
    log = folder / "nx.log"
    with running(command, log) as process:
        wait_for_port(port, process, log)
        yield f"mongodb://127.0.0.1:{port}/?directConnection=true"


@contextlib.contextmanager
def secantusdb(folder: Path) -> Iterator[str]:
    """MongoDB's protocol over WiredTiger; gives its URL."""
    port = free_port()
    command = [
        script("secantusd-py"),
        *("--storage-path", str(folder / "data"), "--port", str(port), "--cache-size", "64M"),
    ]
    log = folder / "secantusdb.log"
    with running(command, log) as process:
        wait_for_port(port, process, log)
        yield f"mongodb://127.0.0.1:{port}/?directConnection=true"
