"""What indexing has computed before: texts of files and vectors of passages, by content hash."""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS readings (key TEXT PRIMARY KEY, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (
    model TEXT, hash TEXT, vector BLOB NOT NULL, PRIMARY KEY (model, hash)
);
"""


class IndexCache:
    """A SQLite file. Everything in it can be computed again, so a damaged file is thrown away.

    What is stored is safe at once: an interrupted indexing continues where it was.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._database = self._open(path)
        except sqlite3.OperationalError:
            raise  # The disk is full or read-only, and the file is good.
        except sqlite3.DatabaseError:
            path.unlink(missing_ok=True)
            self._database = self._open(path)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, isolation_level=None)
        # One writer at a time is promised by the index's lock; DELETE journals leave one file.
        database.execute("PRAGMA journal_mode=DELETE")
        if database.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            database.close()
            raise sqlite3.DatabaseError("damaged")
        database.executescript(_SCHEMA)
        return database

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._database.close()

    def reading(self, key: str) -> Any:
        """What was stored under ``key``, or None."""
        row = self._database.execute("SELECT content FROM readings WHERE key = ?", [key])
        found = row.fetchone()
        return json.loads(found[0]) if found else None

    def store_reading(self, key: str, content: Any) -> None:
        """Store what JSON can hold under ``key``."""
        self._database.execute(
            "INSERT OR REPLACE INTO readings VALUES (?, ?)", [key, json.dumps(content)]
        )

    def vectors(self, model: str, hashes: Sequence[str]) -> dict[str, Vectors]:
        """The known vectors among ``hashes``."""
        rows = self._database.execute(
            "SELECT hash, vector FROM vectors "
            "WHERE model = ? AND hash IN (SELECT value FROM json_each(?))",
            [model, json.dumps(list(hashes))],
        )
        return {row[0]: np.frombuffer(row[1], dtype=np.float32) for row in rows}

    def store_vectors(self, model: str, vectors: Iterable[tuple[str, Vectors]]) -> None:
        """Store vectors under the hashes of their texts."""
        with self._transaction():
            self._database.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
                [(model, hash_, vector.astype(np.float32).tobytes()) for hash_, vector in vectors],
            )

    def keep_only(self, keys: Iterable[str], model: str, hashes: Iterable[str]) -> None:
        """Forget what the present documents do not need."""
        with self._transaction():
            self._database.execute("CREATE TEMP TABLE kept (name TEXT PRIMARY KEY)")
            self._database.executemany(
                "INSERT OR IGNORE INTO kept VALUES (?)", [(name,) for name in (*keys, *hashes)]
            )
            self._database.execute("DELETE FROM readings WHERE key NOT IN (SELECT name FROM kept)")
            self._database.execute(
                "DELETE FROM vectors WHERE model <> ? OR hash NOT IN (SELECT name FROM kept)",
                [model],
            )
            self._database.execute("DROP TABLE kept")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")
