"""The history of the users' database, brought up to date when the API starts.

Alembic takes long to import, and is imported only where something is missing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import OperationalError

if TYPE_CHECKING:
    from alembic.config import Config

REVISIONS = tuple(
    sorted(path.name[:4] for path in Path(__file__).with_name("versions").glob("[0-9]*.py"))
)
"""Every revision of the tables, oldest first; their files are called by them."""
LOCK_SECONDS = 20
"""Less than a connection waits for a reply."""
_LOCK = "consulta_migrations"


def alembic_config() -> "Config":
    """Where Alembic finds the migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "api:migrations")
    return config


def revision_of(engine: Engine) -> str | None:
    """What the tables were last migrated to; None where there are none.

    Raises:
        sqlalchemy.exc.OperationalError: the database is away.
    """
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def migrate(engine: Engine) -> None:
    """Apply the migrations that are missing; of several processes one does, the others wait.

    Raises:
        sqlalchemy.exc.OperationalError: the database is away, or locked for too long.
        alembic.util.CommandError: the database is newer than this program.
    """
    if revision_of(engine) == REVISIONS[-1]:
        return
    from alembic import command

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
