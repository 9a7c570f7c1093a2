"""The history of the users' database, brought up to date when the API starts."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

LOCK_SECONDS = 20
"""Less than a connection waits for a reply."""
_LOCK = "consulta_migrations"


def alembic_config() -> Config:
    """Where Alembic finds the migrations."""
    config = Config()
    config.set_main_option("script_location", "api:migrations")
    return config


def migrate(engine: Engine) -> None:
    """Apply the migrations that are missing; of several processes one does, the others wait.

    Raises:
        sqlalchemy.exc.OperationalError: the database is away, or locked for too long.
        alembic.util.CommandError: the database is newer than this program.
    """
    config = alembic_config()
    with engine.connect() as connection, _alone(connection):
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    if connection.dialect.name == "sqlite":
        # Takes the write lock now; the migrations and their version are one transaction.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield
        return
    name = {"name": _LOCK}
    lock = text("SELECT GET_LOCK(:name, :seconds)")
    if connection.scalar(lock, {**name, "seconds": LOCK_SECONDS}) != 1:
        raise OperationalError("GET_LOCK", None, TimeoutError("another process is migrating"))
    try:
        yield
    finally:
        connection.execute(text("SELECT RELEASE_LOCK(:name)"), name)
