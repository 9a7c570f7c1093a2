"""The settings of a backup: which were set, and what of them belongs to another machine too."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from core.settings import Settings

_OF_THE_MACHINE = (
    *("db_", "database_", "mongo_", "api_", "public_", "document_location", "index_location"),
    *("llm_", "embedding_", "ollama_", "openai_", "azure_", "worker_", "log_", "logo_"),
    *("smtp_", "imap_", "recovery_", "passwords_", "trusted_authserv_"),
)
"""How the names of settings begin that say where things are: a copy of the service that is only
tried must not read the real inbox."""


def recorded(settings: Settings) -> dict[str, str]:
    """The settings that are set, by their environment names; no secrets."""
    named = {name: getattr(settings, name) for name in sorted(settings.model_fields_set)}
    return {
        name.upper(): _text(value)
        for name, value in named.items()
        if value is not None and not _is_secret(value)
    }


def fingerprint(secret_key: str | None) -> str | None:
    """What is the same for the same SECRET_KEY, and does not give it away."""
    if secret_key is None:
        return None
    digest = hmac.new(secret_key.encode(), b"consulta backup", hashlib.sha256)
    return digest.hexdigest()[:16]


def differing(kept: Mapping[str, str], here: Settings) -> dict[str, str]:
    """What of the ``kept`` settings is otherwise here, but for where things are."""
    return {
        name: value
        for name, value in kept.items()
        if _is_known(name)
        and not _is_of_the_machine(name)
        and _text(getattr(here, name.lower())) != value
    }


def write(kept: Mapping[str, str], file: Path) -> None:
    """Write a new ``.env``; what says where things are, or is no setting now, is commented out.

    Raises:
        FileExistsError: there is one.
    """
    lines = [
        f"{'' if _is_known(name) and not _is_of_the_machine(name) else '# '}{line}\n"
        for name, line in zip(kept, env_lines(kept), strict=True)
    ]
    with file.open("x", encoding="utf-8") as stream:
        file.chmod(0o600)
        stream.write("# From a backup. What is commented out says where things were.\n")
        stream.writelines(lines)


def env_lines(settings: Mapping[str, str]) -> list[str]:
    """The settings as ``.env`` has them."""
    return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()]


def _is_known(name: str) -> bool:
    return name.lower() in Settings.model_fields


def _is_of_the_machine(name: str) -> bool:
    return name.lower().startswith(_OF_THE_MACHINE)


def _is_secret(value: object) -> bool:
    return isinstance(value, SecretStr) or (
        isinstance(value, str) and "://" in value and urlsplit(value).password is not None
    )


def _text(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
