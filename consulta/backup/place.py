"""Which databases are meant: those of a running stack, of the settings, or of the data folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from consulta import stack
from core.settings import Settings, SettingsError, load_settings


@dataclass(frozen=True, slots=True)
class Place:
    """What is backed up, or restored into.

    Attributes:
        settings: lead to the databases and the index.
        own: those that a person has set, in the environment and in ``.env``.
        secret_key: SECRET_KEY of the services; None where it is not known here.
    """

    settings: Settings
    own: Settings
    secret_key: str | None


@contextmanager
def open_place(data: Path, *, restoring: bool = False) -> Iterator[Place]:
    """The databases, which are started where they belong to a stack that does not run.

    Raises:
        SettingsError: the settings are wrong, or lead to no database.
        StackError: the stack runs and ``restoring``, or its databases cannot be started.
    """
    own = load_settings()
    names_queue = own.mongo_url is not None or own.mongo_host is not None
    names_users = own.database_url is not None or own.db_host is not None
    if stack.is_running(data):
        if restoring:
            raise stack.StackError(f"Consulta runs from {data}: stop it, and restore then.")
        yield _place(load_settings(None, (Path(".env"), data / "consulta.env")), own, data)
    elif names_queue and names_users:
        yield _place(own, own, data)
    elif names_queue or names_users:
        missing = "DATABASE_URL or DB_HOST" if names_queue else "MONGO_URL or MONGO_HOST"
        raise SettingsError(f"The setting {missing} is missing: accounts and questions are both.")
    elif restoring or (data / "queue").is_dir():
        with stack.exclusive(data), stack.databases(data) as found:
            changes = {name.lower(): SecretStr(value) for name, value in found.items()}
            key = data / stack.SECRET_KEY_FILE
            secret_key = SecretStr(key.read_text().strip()) if key.exists() else None
            changed = own.model_copy(update={**changes, "secret_key": secret_key})
            yield _place(changed, own, data)
    else:
        raise SettingsError(
            f"Nothing is kept in the folder {data}, and neither DATABASE_URL nor MONGO_URL is set: "
            "name the folder with --data, or set both."
        )


def _place(settings: Settings, own: Settings, data: Path) -> Place:
    if "index_location" not in settings.model_fields_set:
        settings = settings.model_copy(update={"index_location": data / "index"})
    key = settings.secret_key
    return Place(settings, own, key.get_secret_value() if key else None)
