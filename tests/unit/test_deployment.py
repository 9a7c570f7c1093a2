"""The deployment files against the settings class and against each other; no engine runs here."""

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values
from pydantic import SecretStr

from core.settings import Service, Settings, SettingsError, load_settings, read_passwords

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / ".env.example"
SETTINGS = {name.upper(): field for name, field in Settings.model_fields.items()}

# What the official images read.
IMAGES_OWN = {
    "MYSQL_DATABASE",
    "MYSQL_USER",
    "MYSQL_PASSWORD",
    "MYSQL_RANDOM_ROOT_PASSWORD",
    "MONGO_INITDB_ROOT_USERNAME",
    "MONGO_INITDB_ROOT_PASSWORD",
    "OLLAMA_HOST",
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_NUM_PARALLEL",
    "MP_SMTP_BIND_ADDR",
    "MP_MAX_MESSAGES",
    "ME_CONFIG_MONGODB_SERVER",
    "ME_CONFIG_MONGODB_ADMINUSERNAME",
    "ME_CONFIG_MONGODB_ADMINPASSWORD",
    "ME_CONFIG_BASICAUTH",
    "ME_CONFIG_BASICAUTH_USERNAME",
    "ME_CONFIG_BASICAUTH_PASSWORD",
    "ME_CONFIG_SITE_SESSIONSECRET",
    "ME_CONFIG_SITE_COOKIESECRET",
}
OURS: dict[str, Service] = {"api": "api", "rag": "worker", "email": "mailer"}
SECRETS = ("SECRET_KEY", "DB_PASS", "MONGO_PASS")
FILLED_IN = {
    "SECRET_KEY": "0123456789abcdef" * 4,
    "DB_PASS": "p@ss/word:%",
    "MONGO_PASS": "p@ss/word:%",
    "DOCUMENT_LOCATION": "/srv/course",
    "SMTP_SERVER": "smtp.example.edu",
    "SMTP_USERNAME": "course@example.edu",
}
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?:(:[-?+])(.*?))?\}", re.DOTALL)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


@pytest.fixture
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """None of the settings, whatever the machine that runs the tests has."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def interpolated(text: str, variables: dict[str, str]) -> str:
    """A value of the compose file, as ``docker compose`` reads it."""

    def replace(match: re.Match[str]) -> str:
        name, operator, word = match.groups()
        value = variables.get(name, "")
        if operator == ":?" and not value:
            raise LookupError(f"{name}: {word}")
        if operator == ":+":
            return word if value else ""
        return value or (word if operator == ":-" else "")

    return VARIABLE.sub(replace, text)


def environment_of(service: dict[str, Any], variables: dict[str, str]) -> dict[str, str]:
    """What ``docker compose`` sets in the service's container."""
    environment = {}
    for name, value in service["environment"].items():
        if value is not None:
            environment[name] = interpolated(str(value), variables)
        elif name in variables:
            environment[name] = variables[name]
    return environment


def example_names() -> dict[str, str]:
    """Every name in .env.example with its value, those that are commented out too."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    matches = (re.fullmatch(r"(?:# )?([A-Z][A-Z0-9_]+)=(.*)", line) for line in lines)
    return {match[1]: match[2] for match in matches if match}


def test_compose_file_fits_the_compose_schema() -> None:
    check = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(COMPOSE)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_every_environment_name_in_the_compose_file_is_a_setting_or_the_images_own(
    compose: dict[str, Any],
) -> None:
    for name, service in compose["services"].items():
        names = set(service["environment"])
        known = SETTINGS.keys() if name in OURS else SETTINGS.keys() | IMAGES_OWN
        assert names <= known, name


def test_every_variable_that_the_compose_file_asks_for_is_a_setting() -> None:
    names = {match[1] for match in VARIABLE.finditer(COMPOSE.read_text(encoding="utf-8"))}
    assert names <= SETTINGS.keys()
    assert names


def test_every_setting_reaches_a_service(compose: dict[str, Any]) -> None:
    reached = {name for ours in OURS for name in compose["services"][ours]["environment"]}
    # URLs that stand for parts, ports that are the images' own, and where the command line looks.
    left_out = {"DATABASE_URL", "MONGO_URL", "DB_PORT", "MONGO_PORT", "API_URL"}
    assert SETTINGS.keys() - reached == left_out


def test_every_name_in_the_example_is_a_setting_and_used_by_the_compose_file() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    asked_for = {match[1] for match in VARIABLE.finditer(text)}
    passed_on = set(re.findall(r"^ +([A-Z][A-Z0-9_]+):$", text, re.MULTILINE))
    assert example_names().keys() == (asked_for | passed_on)
    assert example_names().keys() <= SETTINGS.keys()


def test_values_that_are_commented_out_in_the_example_are_the_defaults() -> None:
    for name, value in example_names().items():
        # The containers' Ollama is not the one on loopback.
        if not value or name == "OLLAMA_SERVER_URL":
            continue
        default = SETTINGS[name].default
        shown = ",".join(default) if isinstance(default, list) else str(default)
        assert value == (shown.lower() if isinstance(default, bool) else shown), name


def test_example_has_no_secret_that_could_be_used() -> None:
    secret = {name for name in example_names() if "SecretStr" in str(SETTINGS[name].annotation)}
    assert set(SECRETS) <= secret
    assert {example_names()[name] for name in secret} == {""}


@pytest.mark.parametrize("missing", sorted(FILLED_IN))
def test_compose_refuses_the_example_where_something_needed_is_not_filled_in(missing: str) -> None:
    variables = {name: value or "" for name, value in dotenv_values(EXAMPLE).items()}
    variables |= FILLED_IN | {missing: ""}
    with pytest.raises(LookupError, match=missing):
        interpolated(COMPOSE.read_text(encoding="utf-8"), variables)


@pytest.mark.parametrize("name", sorted(OURS))
def test_each_service_starts_with_the_example_filled_in(
    compose: dict[str, Any],
    empty_environment: pytest.MonkeyPatch,
    name: str,
) -> None:
    variables = {name: value or "" for name, value in dotenv_values(EXAMPLE).items()} | FILLED_IN
    environment = environment_of(compose["services"][name], variables)
    if "PASSWORDS_FILE" in environment:
        environment["PASSWORDS_FILE"] = str(ROOT / "passwords.json.example")
    for variable, value in environment.items():
        empty_environment.setenv(variable, value)
    settings = load_settings(OURS[name], [])
    assert settings.mongo_url_or_parts() == (
        "mongodb://consulta:p%40ss%2Fword%3A%25@mongodb:27017/"
    )
    assert settings.logo_path is None


def test_example_copied_unchanged_is_refused_with_the_name_of_a_setting(
    empty_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copy(EXAMPLE, tmp_path / ".env")
    with pytest.raises(SettingsError, match=r"^The setting SECRET_KEY is missing: "):
        load_settings("api", [tmp_path / ".env"])


def test_passwords_example_is_complete_and_holds_no_password() -> None:
    passwords = read_passwords(ROOT / "passwords.json.example")
    assert passwords.model_dump() == {
        name: SecretStr("") for name in ("forgot_password", "smtp_password", "imap_password")
    }
    assert list(json.loads((ROOT / "passwords.json.example").read_bytes())) == [
        "forgot_password",
        "smtp_password",
        "imap_password",
    ]


def test_every_lasting_service_is_restarted_watched_and_limited(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services.keys() >= {"database", "mongodb", "ollama", "api", "rag", "email"}
    for name, service in services.items():
        assert "mem_limit" in service, name
        if name == "models":
            assert service["restart"] == "no"
        else:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] == "CMD", name


def test_memory_limits_leave_a_machine_of_16_gb_something(compose: dict[str, Any]) -> None:
    units = {"m": 1, "g": 1024}
    limits = (service["mem_limit"] for service in compose["services"].values())
    assert sum(int(limit[:-1]) * units[limit[-1]] for limit in limits) <= 14.5 * 1024


def test_no_database_publishes_a_port_and_what_does_is_for_this_machine_alone(
    compose: dict[str, Any],
) -> None:
    ports = {
        name: [interpolated(port, {}) for port in service["ports"]]
        for name, service in compose["services"].items()
        if "ports" in service
    }
    assert ports == {
        "api": ["127.0.0.1:8000:8000"],
        "mailcatcher": ["127.0.0.1:8025:8025"],
        "mongo-express": ["127.0.0.1:8081:8081"],
    }


def test_what_is_for_trying_things_out_starts_only_when_asked_for(
    compose: dict[str, Any],
) -> None:
    services = compose["services"]
    profiles = {name: each["profiles"] for name, each in services.items() if "profiles" in each}
    assert profiles == {"mailcatcher": ["dev"], "mongo-express": ["dev"]}
    needed = {name for each in services.values() for name in each.get("depends_on", {})}
    assert not needed & profiles.keys()


def test_mail_catcher_listens_where_the_mailer_looks_for_a_mail_server(
    compose: dict[str, Any], empty_environment: pytest.MonkeyPatch
) -> None:
    assert empty_environment
    variables = FILLED_IN | {"SMTP_SERVER": "mailcatcher"}
    mailer = environment_of(compose["services"]["email"], variables)
    assert mailer["SMTP_SERVER"] == "mailcatcher"
    assert "SMTP_PORT" not in mailer
    catcher = compose["services"]["mailcatcher"]["environment"]
    assert catcher["MP_SMTP_BIND_ADDR"] == f"0.0.0.0:{Settings().smtp_port}"


def test_web_view_of_the_queue_wants_the_login_that_was_chosen(compose: dict[str, Any]) -> None:
    environment = environment_of(compose["services"]["mongo-express"], FILLED_IN)
    assert environment["ME_CONFIG_BASICAUTH"] == "true"
    # What the image would take in place of each, everybody knows.
    for name in ("BASICAUTH_PASSWORD", "SITE_SESSIONSECRET", "SITE_COOKIESECRET"):
        assert environment[f"ME_CONFIG_{name}"] == FILLED_IN["MONGO_PASS"]


@pytest.mark.parametrize(
    ("held", "asked_for"),
    [("", ["pull mistral", "pull bge-m3"]), ("mistral", ["pull bge-m3"]), ("mistral bge-m3", [])],
)
def test_models_that_ollama_has_are_not_fetched_again(
    compose: dict[str, Any], tmp_path: Path, held: str, asked_for: list[str]
) -> None:
    log = tmp_path / "log"
    program = tmp_path / "ollama"
    program.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = show ]; then case " {held} " in *" $2 "*) exit 0 ;; *) exit 1 ;; esac; fi\n'
        f'echo "$@" >> {log}\n'
    )
    program.chmod(0o755)
    shell, option, text = compose["services"]["models"]["entrypoint"]
    subprocess.run(
        [shell, option, text.replace("$$", "$")],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "LLM_MODEL": "ollama:mistral",
            "EMBEDDING_MODEL": "ollama:bge-m3",
        },
        timeout=10,
        check=True,
    )
    assert (log.read_text().splitlines() if log.exists() else []) == asked_for


def test_models_are_fetched_by_the_ollama_that_the_worker_asks(compose: dict[str, Any]) -> None:
    for variables in ({}, {"OLLAMA_SERVER_URL": "http://gpu.example.edu:11434"}):
        models = environment_of(compose["services"]["models"], variables)
        worker = environment_of(compose["services"]["rag"], FILLED_IN | variables)
        assert models["OLLAMA_HOST"] == worker["OLLAMA_SERVER_URL"]


def test_services_wait_for_the_health_of_what_they_need(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for needed, condition in service.get("depends_on", {}).items():
            lasting = compose["services"][needed]["restart"] != "no"
            wanted = "service_healthy" if lasting else "service_completed_successfully"
            assert condition == {"condition": wanted}, f"{name} needs {needed}"
    assert compose["services"]["api"]["depends_on"].keys() == {"database", "mongodb"}


def test_our_containers_are_built_from_locks_and_can_do_little(compose: dict[str, Any]) -> None:
    for name, command in OURS.items():
        service = compose["services"][name]
        assert service["build"]["args"] == {"SERVICE": command}
        assert (ROOT / "requirements" / f"{command}.txt").is_file()
        assert service["command"] == [command]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_every_image_is_pinned(compose: dict[str, Any]) -> None:
    images = [s["image"] for s in compose["services"].values() if "build" not in s]
    pinned = re.compile(r"[\w/-]+:v?\d+\.\d+(\.\d+)?(-[\w.-]+)?")
    assert all(pinned.fullmatch(image) for image in images), images


def test_only_the_mailer_sees_the_mail_passwords_and_workers_no_users(
    compose: dict[str, Any],
) -> None:
    services = compose["services"]
    assert [name for name in services if "secrets" in services[name]] == ["email"]
    for secret in ("SECRET_KEY", "DB_PASS"):
        names = [name for name in services if secret in services[name]["environment"]]
        # The mailer's inbox looks up who sent a mail; its links are signed.
        assert names == ["api", "email"]


def test_health_checks_of_our_services_are_python_that_compiles(compose: dict[str, Any]) -> None:
    for name in OURS:
        command = compose["services"][name]["healthcheck"]["test"]
        assert command[:3] == ["CMD", "python", "-c"]
        compile(command[3], name, "exec")


def test_images_get_no_secret_and_what_the_dockerfile_copies_exists() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert not {".env", "passwords.json", "var", ".git"} & allowed
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    sources = {source.split("/")[0] for line in copied for source in line.split()}
    assert sources == allowed


def test_dockerfile_pleases_the_linter() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert hadolint, "it comes with the development dependencies: make install-dev"
    check = subprocess.run(
        [hadolint, "--no-color", str(ROOT / "Dockerfile")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_dockerfile_installs_only_locked_packages_and_runs_as_an_ordinary_user() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    installs = re.findall(r"pip (?:install|wheel) .*", dockerfile)
    assert installs
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
    assert re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE) == ["${UID}"]
    assert "ARG UID=1000" in dockerfile
    lock = (ROOT / "requirements" / "embedded.txt").read_text(encoding="utf-8")
    assert re.search(r"^setuptools==.*?--hash=.*?# via", lock, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("command", "room"), [("api", "api"), ("worker", "rag_worker"), ("mailer", "mailer")]
)
def test_lock_of_each_image_has_everything_that_its_service_imports(
    command: str, room: str
) -> None:
    files = [*(ROOT / "core").rglob("*.py"), *(ROOT / room).rglob("*.py")]
    files += [ROOT / "consulta" / f"{name}.py" for name in ("__main__", "cli", "stack", "services")]
    imported = set[str]()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    ours = {"api", "consulta", "core", "mailer", "rag_worker"}
    distributions = importlib.metadata.packages_distributions()
    lock = (ROOT / "requirements" / f"{command}.txt").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9.-]+)==", lock, re.MULTILINE))
    for name in imported - ours - set(sys.stdlib_module_names):
        # A module may come with any one of several distributions.
        names = {re.sub(r"[-_.]+", "-", each).lower() for each in distributions.get(name, [])}
        assert names & locked, f"{name} is not in requirements/{command}.txt"


def test_settings_table_is_up_to_date() -> None:
    check = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "settings-table"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_operations_manual_names_services_log_lines_and_files_that_exist(
    compose: dict[str, Any],
) -> None:
    manual = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    commands = re.findall(r"docker compose (?:exec|run)((?: --?\S+)*) (?:python )?(\w+)", manual)
    assert {service for _, service in commands} == {"database", "mongodb", "api", "rag", "email"}
    rooms = {"api": ["api"], "rag": ["rag_worker"], "email": ["mailer"]}
    texts = {
        service: "".join(
            file.read_text(encoding="utf-8")
            for room in ["core", *rooms[service]]
            for file in (ROOT / room).rglob("*.py")
        )
        for service in OURS
    }
    lines = re.findall(r"^\| (api|rag|email) \| (`.+?`) \|", manual, re.MULTILINE)
    assert len(lines) > 20
    for service, names in lines:
        for name in re.findall("`(.+?)`", names):
            assert name in texts[service], f"{service} logs no {name!r}"
    for link in re.findall(r"\]\(([^)]+)\)", manual):
        assert (ROOT / "docs" / link.partition("#")[0]).is_file(), link
    for script in re.findall(r"`(scripts/[\w-]+)", manual):
        assert (ROOT / script).is_file(), script
    assert compose["services"].keys() >= {"mailcatcher", "models"}
