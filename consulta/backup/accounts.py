"""Accounts and workers' tokens: read out of one SQL database, written into another."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy import Engine, delete, func, insert, inspect, select, text

from consulta.backup.file import Row
from core.users import Base

TABLES = {table.name: table for table in Base.metadata.sorted_tables}
"""All of them, those that later versions add too."""

NOT_KEPT = ("rate_limits", "alembic_version")
"""Counts, which end within 30 days, and what migrations write for themselves."""

_BATCH = 500


def read(engine: Engine) -> Iterator[tuple[str, Row]]:
    """Every row with the name of its table, a page at a time: no lock is held in between.

    Tables of an earlier revision are read as they are.
    """
    present = inspect(engine)
    for name, table in TABLES.items():
        if not present.has_table(name):
            continue
        there = {column["name"] for column in present.get_columns(name)}
        columns = [column for column in table.columns if column.name in there]
        page = select(*columns).order_by(table.c.id).limit(_BATCH)
        last = 0
        while True:
            with engine.connect() as connection:
                rows = connection.execute(page.where(table.c.id > last)).mappings().all()
            for row in rows:
                yield name, dict(row)
            if len(rows) < _BATCH:
                break
            last = rows[-1]["id"]


def count(engine: Engine) -> int:
    """How many rows the tables have together."""
    with engine.connect() as connection:
        return sum(
            connection.scalar(select(func.count()).select_from(table)) or 0
            for table in TABLES.values()
        )


def clear(engine: Engine) -> None:
    """Delete every row."""
    with engine.begin() as connection:
        for table in reversed(TABLES.values()):
            connection.execute(delete(table))


@contextmanager
def writing(engine: Engine) -> Iterator[Callable[[str, Row], None]]:
    """Gives a function that stores one row; all of them are stored at the end, or none.

    Raises:
        sqlalchemy.exc.IntegrityError: what is to be stored is there already.
    """
    waiting: dict[str, list[Row]] = {name: [] for name in TABLES}
    with engine.begin() as connection:

        def flush(name: str) -> None:
            if rows := waiting[name]:
                connection.execute(insert(TABLES[name]), rows)
                rows.clear()

        def write(name: str, row: Row) -> None:
            waiting[name].append({column: _naive(value) for column, value in row.items()})
            if len(waiting[name]) == _BATCH:
                flush(name)

        yield write
        for name in TABLES:
            flush(name)


def others(engine: Engine) -> int:
    """How many other connections MySQL has to this database; 0 for SQLite, which has no server."""
    if engine.dialect.name == "sqlite":
        return 0
    query = text(
        "SELECT COUNT(*) FROM information_schema.processlist "
        "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    )
    with engine.connect() as connection:
        return int(connection.scalar(query) or 0)


def _naive(value: object) -> object:
    # As the tables keep times: in UTC, without saying so.
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    return value
