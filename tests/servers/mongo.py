"""Servers that speak MongoDB's protocol."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.servers.process import built, free_port, running, script, wait_for_port


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


@contextlib.contextmanager
def ferretdb(folder: Path) -> Iterator[str]:
    """MongoDB's protocol over SQLite, by FerretDB 1.24; gives its URL.

    One connection for each client: FerretDB 1 reads a document and writes it in two steps, so that
    two connections claim one question (its issue 3040).
    """
    port = free_port()
    data = folder / "data"
    data.mkdir()
    command = [built("ferretdb"), f"127.0.0.1:{port}", f"file:{data}/"]
    log = folder / "ferretdb.log"
    with running(command, log) as process:
        wait_for_port(port, process, log)
        yield f"mongodb://127.0.0.1:{port}/?directConnection=true&maxPoolSize=1"
