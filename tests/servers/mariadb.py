"""A MariaDB server, and databases in it."""

import contextlib
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql
from sqlalchemy import URL

from tests.servers.process import Service, free_port, packaged

_PACKAGE = "mariadb-server"
_USER = "consulta"
_PASSWORD = "c0ntraseña: /@%?#"
"""With all that has to be quoted in a URL."""


@dataclass
class MariaDB:
    """A server of its own; ``service`` stops, kills and starts it."""

    folder: Path
    service: Service
    port: int
    user: str = _USER
    password: str = field(default=_PASSWORD, repr=False)

    def execute(self, statement: str) -> Any:
        """Run one statement as the administrator; gives the first value that it returns."""
        with (
            pymysql.connect(unix_socket=str(self.folder / "socket"), user="root") as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            row = cursor.fetchone()
            return row[0] if row else None

    def waiting(self) -> int:
        """How many transactions wait for a lock that another holds."""
        transactions = "SELECT COUNT(*) FROM information_schema.innodb_trx"
        return int(self.execute(f"{transactions} WHERE trx_state = 'LOCK WAIT'"))

    def deadlocks(self) -> int:
        """How many deadlocks there were since the start."""
        metrics = "SELECT count FROM information_schema.innodb_metrics"
        return int(self.execute(f"{metrics} WHERE name = 'lock_deadlocks'"))

    @contextlib.contextmanager
    def database(self, options: str = "") -> Iterator[str]:
        """An empty database, made with MariaDB's own defaults or ``options``; gives its name."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name} {options}")
        try:
            yield name
        finally:
            self.execute(f"DROP DATABASE {name}")

    def url(self, database: str) -> str:
        """A database's URL for SQLAlchemy."""
        url = URL.create(
            "mysql+pymysql", self.user, self.password, "127.0.0.1", self.port, database
        )
        return url.render_as_string(hide_password=False)

    def stored(self) -> bytes:
        """Everything that the server has written to disk."""
        self.execute("FLUSH TABLES")
        files = (file for file in (self.folder / "data").rglob("*") if file.is_file())
        return b"".join(file.read_bytes() for file in files)


@contextlib.contextmanager
def mariadb(folder: Path) -> Iterator[MariaDB]:
    """Run MariaDB with a data folder of its own, on the loopback interface and a socket file."""
    server = packaged("mariadbd", _PACKAGE)
    data = folder / "data"
    subprocess.run(
        [
            packaged("mariadb-install-db", _PACKAGE),
            *("--no-defaults", f"--datadir={data}", "--user=root", "--skip-test-db"),
            *("--skip-name-resolve", "--auth-root-authentication-method=normal"),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    accounts = folder / "accounts.sql"
    accounts.write_text(
        f"CREATE USER IF NOT EXISTS {_USER}@'%' IDENTIFIED BY '{_PASSWORD}';\n"
        f"GRANT ALL ON *.* TO {_USER}@'%';\n"
    )
    port = free_port()
    command = [
        server,
        *("--no-defaults", "--user=root", f"--datadir={data}", f"--init-file={accounts}"),
        *("--bind-address=127.0.0.1", f"--port={port}", f"--socket={folder / 'socket'}"),
        f"--pid-file={folder / 'mariadb.pid'}",
        *("--character-set-server=utf8mb4", "--skip-name-resolve", "--skip-log-bin"),
        *("--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M"),
    ]
    with Service(command, folder / "mariadb.log", lambda: _answers(port)) as service:
        yield MariaDB(folder, service, port)


def _answers(port: int) -> bool:
    with contextlib.suppress(pymysql.err.OperationalError):
        pymysql.connect(
            host="127.0.0.1", port=port, user=_USER, password=_PASSWORD.encode(), connect_timeout=2
        ).close()
        return True
    return False
