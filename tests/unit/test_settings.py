"""Settings that are missing, misspelt or wrong, and what is said about them."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from core.settings import (
    REQUIRED,
    Service,
    Settings,
    SettingsError,
    load_settings,
    read_passwords,
)

SECRET = "s3cr3t-4nd-l0ng-3n0ugh-f0r-4-k3y!"
PASSWORDS = {"forgot_password": "one", "smtp_password": "two", "imap_password": "three"}
COMPLETE = {
    "SECRET_KEY": SECRET,
    "DB_HOST": "db.example.edu",
    "DB_NAME": "consulta",
    "DB_USER": "consulta",
    "DB_PASS": "p@ss",
    "MONGO_HOST": "mongo.example.edu",
    "DOCUMENT_LOCATION": "/srv/course",
    "SMTP_SERVER": "smtp.example.edu",
    "SMTP_USERNAME": "course@example.edu",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to start in, and an environment without any setting."""
    for name in list(os.environ):
        if name.upper().lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complete(monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: str | None) -> None:
    """Set what all services need; a change of None leaves one out."""
    for name, value in (COMPLETE | changes).items():
        if value is not None:
            monkeypatch.setenv(name, value)
    (folder / "passwords.json").write_text(json.dumps(PASSWORDS), encoding="utf-8")


def sentence(service: Service | None = None) -> str:
    """What is said when the settings are refused."""
    with pytest.raises(SettingsError) as refused:
        load_settings(service)
    text = str(refused.value)
    assert text[-1] in ".?"
    assert "\n" not in text
    return text


@pytest.mark.parametrize("service", REQUIRED)
def test_each_service_starts_with_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, folder: Path, service: Service
) -> None:
    complete(monkeypatch, folder)
    load_settings(service)


@pytest.mark.parametrize(
    ("service", "name"),
    [
        ("api", "SECRET_KEY"),
        ("api", "DB_HOST"),
        ("api", "DB_NAME"),
        ("api", "DB_USER"),
        ("api", "DB_PASS"),
        ("api", "MONGO_HOST"),
        ("worker", "MONGO_HOST"),
        ("worker", "DOCUMENT_LOCATION"),
        ("mailer", "MONGO_HOST"),
        ("mailer", "SMTP_SERVER"),
        ("mailer", "SMTP_USERNAME"),
    ],
)
@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
def test_what_is_missing_or_empty_is_named(
    monkeypatch: pytest.MonkeyPatch, folder: Path, service: Service, name: str, value: str | None
) -> None:
    complete(monkeypatch, folder, **{name: value})
    assert sentence(service).startswith(f"The setting {name} is missing: ")


def test_url_stands_for_its_parts(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    parts = ("DB_HOST", "DB_NAME", "DB_USER", "DB_PASS", "MONGO_HOST")
    complete(monkeypatch, folder, **dict.fromkeys(parts))
    monkeypatch.setenv("DATABASE_URL", "sqlite:///users.sqlite")
    monkeypatch.setenv("MONGO_URL", "mongodb://127.0.0.1:27017/")
    assert load_settings("api").mongo_url_or_parts() == "mongodb://127.0.0.1:27017/"


def test_mongo_user_needs_a_password(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    complete(monkeypatch, folder, MONGO_USER="consulta")
    assert sentence("worker").startswith("The setting MONGO_PASS is missing: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MONGO_URL", "mongodb://user:hid@den@db/"),
        ("MONGO_URL", "mongodb://user:hidden@db:port/"),
        ("MONGO_URL", "mongodb://"),
        ("MONGO_URL", "mongodb://user:hidden@db/?w=hidden=2&"),
        ("MONGO_HOST", "http://db"),
        ("MONGO_HOST", "db:hidden"),
    ],
)
def test_mongo_address_that_is_none_is_refused_without_telling_the_password(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, value: str
) -> None:
    complete(monkeypatch, folder, **{name: value})
    text = sentence("worker")
    assert text.startswith(f"The setting {name} is wrong: ")
    assert "hid" not in text


def test_mongo_name_and_password_may_hold_any_character() -> None:
    parts: dict[str, Any] = {"mongo_user": "a@b/c", "mongo_pass": "p:ss w%rd"}
    url = Settings(mongo_host="db", **parts).mongo_url_or_parts()
    assert url == "mongodb://a%40b%2Fc:p%3Ass+w%25rd@db:27017/"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SMTP_SEVER", "SMTP_SERVER"),
        ("SMTP_USERNAM", "SMTP_USERNAME"),
        ("SMTP_TSL", "SMTP_TLS"),
        ("DB_PROT", "DB_PORT"),
        ("MONGO_HSOT", "MONGO_HOST"),
        ("COURSE_NAMES", "COURSE_NAME"),
        ("course_tmezone", "COURSE_TIMEZONE"),
        ("LLM_MODELL", "LLM_MODEL"),
        ("DATABASE_URI", "DATABASE_URL"),
    ],
)
def test_slip_is_named_in_the_environment_and_in_the_file(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, meant: str
) -> None:
    (folder / ".env").write_text(f"{name}=x\n", encoding="utf-8")
    assert sentence() == f"{name} in .env is not a setting: did you mean {meant}?"
    (folder / ".env").unlink()
    monkeypatch.setenv(name, "x")
    assert sentence() == f"{name} is not a setting: did you mean {meant}?"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("MONGO_URI", "MONGO_URL"), ("SMTP_USER", "SMTP_USERNAME"), ("SMTPSERVER", "SMTP_SERVER")],
)
def test_looser_slip_is_named_in_our_own_file_only(
    monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "x")
    load_settings()
    (folder / ".env").write_text(f"{name}=x\n", encoding="utf-8")
    assert sentence() == f"{name} in .env is not a setting: did you mean {meant}?"


@pytest.mark.parametrize(
    "name",
    ["PATH", "HTTP_PORT", "APP_PORT", "TZ", "HTTPS_PROXY", "PYTHONPATH", "KUBERNETES_PORT", "_"],
)
def test_names_of_other_programs_are_let_be(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/bin:/usr/bin")
    load_settings()


def test_name_close_to_a_setting_that_is_set_too_is_somebody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_KEYS", "x")
    assert "did you mean SECRET_KEY?" in sentence()
    monkeypatch.setenv("SECRET_KEY", SECRET)
    load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SMTP_PORT", "smtp"),
        ("SMTP_PORT", "0"),
        ("DB_PORT", "65536"),
        ("MONGO_PORT", "-1"),
        ("API_PORT", "8000.5"),
        ("SMTP_TLS", "yes"),
        ("COURSE_LANGUAGE", "fr"),
        ("COURSE_TIMEZONE", "Madrid"),
        ("COURSE_TIMEZONE", "../../etc/passwd"),
        ("COURSE_NAME", "x" * 121),
        ("BRAND_COLOR", "red"),
        ("BRAND_COLOR", "#12345"),
        ("ALLOWED_EMAIL_DOMAINS", "uni.es, *.uni.es"),
        ("ALLOWED_EMAIL_DOMAINS", "@uni.es"),
        ("LLM_MODEL", "mistral"),
        ("LLM_MODEL", "ollama:"),
        ("LLM_MODEL", "olama:mistral"),
        ("LLM_TEMPERATURE", "-1"),
        ("EMBEDDING_MODEL", "nanoe6"),
        ("LEASE_SECONDS", "inf"),
        ("POLL_SECONDS", "nan"),
        ("POLL_SECONDS", "0"),
        ("STOP_SECONDS", "-1"),
        ("WORKER_CONCURRENCY", "0"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "999999999999"),
        ("MAX_WAITING_PER_STUDENT", "1e3x"),
        ("QUESTIONS_PER_HOUR", "0"),
        ("TRUSTED_PROXIES", "*"),
        ("TRUSTED_PROXIES", "127.0.0.1, proxy.uni.test"),
        ("LOG_LEVEL", "debug"),
        ("PUBLIC_URL", "consulta.example.edu"),
        ("OLLAMA_SERVER_URL", "ftp://127.0.0.1"),
        ("MONGO_DB_NAME", "a/b"),
        ("MONGO_URL", "127.0.0.1:27017"),
        ("DATABASE_URL", "users.sqlite"),
        ("DATABASE_URL", "mysql://user:password@db/consulta"),
        ("DATABASE_URL", "postgresql://user:password@db/consulta"),
        ("DATABASE_URL", "mysql+pymysql://user:password@db:port/consulta"),
        ("SECRET_KEY", "short"),
        ("SECRET_KEY", "a" * 64),
        ("SECRET_KEY", "changeme-changeme-now-1234567890-abcdef"),
        ("SECRET_KEY", "please_change_this_to_something_long_42"),
        ("SECRET_KEY", "your-256-bit-secret-goes-into-this-place"),
        ("SECRET_KEY", "a-string-secret-at-least-256-bits-long"),
        ("SECRET_KEY", "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"),
        ("SECRET_KEY", "django-insecure-3#v9k1z8s7q5w2x4c6v8b0n"),
        ("DB_PASS", "changeme"),
        ("DB_PASS", "Password"),
        ("MONGO_PASS", "change-me-please"),
        ("MONGO_PASS", "secret"),
        ("TRUSTED_PROXIES", "0.0.0.0/0"),
        ("TRUSTED_PROXIES", "::/0"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "campus.uni.example"),
        ("CORS_ORIGINS", "https://campus.uni.example/moodle"),
        ("CORS_ORIGINS", "https://*.uni.example"),
    ],
)
def test_wrong_value_is_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    text = sentence()
    assert text.startswith(f"The setting {name} is wrong: ")
    if name in {"SECRET_KEY", "DATABASE_URL", "MONGO_URL"}:
        assert value not in text


@pytest.mark.parametrize("value", ["#8C2F39", "8c2f39", " #8c2f39 "])
def test_colour_may_leave_out_what_begins_a_comment(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("BRAND_COLOR", value)
    assert load_settings().brand_color == "#8c2f39"


@pytest.mark.parametrize("name", [name.upper() for name in Settings.model_fields])
def test_empty_setting_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert load_settings() == Settings()
    assert load_settings().model_fields_set == set()


def test_model_on_an_openai_compatible_server_needs_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLM_MODEL", "openai:smollm2")
    assert sentence().startswith("OPENAI_BASE_URL is missing: ")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8081/v1/")
    assert load_settings().openai_base_url == "http://127.0.0.1:8081/v1"


def test_deployment_on_azure_needs_address_key_and_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLM_MODEL", "azure_openai:course")
    for name, value in {
        "AZURE_OPENAI_ENDPOINT": "https://course.openai.azure.com/",
        "AZURE_OPENAI_API_KEY": "key",
        "OPENAI_API_VERSION": "2024-10-21",
    }.items():
        assert sentence().startswith(f"{name} is missing: ")
        monkeypatch.setenv(name, value)
    assert load_settings().azure_openai_endpoint == "https://course.openai.azure.com"


def test_environment_stands_above_the_files_and_the_last_file_above_the_first(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    first, last = folder / "first.env", folder / "last.env"
    first.write_text("COURSE_NAME=first\nDB_NAME=first\nDB_USER=first\n", encoding="utf-8")
    last.write_text("COURSE_NAME=last\nDB_NAME=last\n", encoding="utf-8")
    monkeypatch.setenv("COURSE_NAME", "environment")
    loaded = load_settings(None, [first, folder / "absent.env", last])
    assert (loaded.course_name, loaded.db_name, loaded.db_user) == ("environment", "last", "first")


def test_empty_variable_blanks_what_the_file_says(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    (folder / ".env").write_text("RECOVERY_SMTP_USERNAME=a@example.edu\n", encoding="utf-8")
    assert load_settings().recovery_smtp_username == "a@example.edu"
    monkeypatch.setenv("RECOVERY_SMTP_USERNAME", "")
    assert load_settings().recovery_smtp_username is None


def test_file_from_a_windows_editor_is_read(folder: Path) -> None:
    (folder / ".env").write_bytes(b"\xef\xbb\xbfCOURSE_NAME=Electr\xc3\xb3nica\r\nDB_PORT=3307\r\n")
    assert load_settings().course_name == "Electrónica"
    assert load_settings().db_port == 3307


def test_file_that_is_not_utf_8_is_named(folder: Path) -> None:
    (folder / ".env").write_bytes("COURSE_NAME=Electrónica\n".encode("latin-1"))
    assert sentence() == ".env cannot be read: it is not UTF-8 text."


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_file_is_read_or_refused_as_settings(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.mktemp("env") / "settings.env"
    file.write_bytes(content)
    with contextlib.suppress(SettingsError):
        load_settings(None, [file])


def test_languages_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_LANGUAGES", " EN , es,")
    assert load_settings().llm_languages == ["en", "es"]


def test_no_secret_shows_when_settings_are_printed(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    hidden = {
        "SECRET_KEY": SECRET,
        "DB_PASS": "hidden-1",
        "MONGO_PASS": "hidden-2",
        "OPENAI_API_KEY": "hidden-3",
        "DATABASE_URL": "mysql+pymysql://user:hidden-4@db/consulta",
        "MONGO_URL": "mongodb://user:hidden-5@db/",
    }
    complete(monkeypatch, folder, **hidden)
    passwords = dict.fromkeys(PASSWORDS, "hidden-6")
    (folder / "passwords.json").write_text(json.dumps(passwords), encoding="utf-8")
    loaded = load_settings("mailer")
    assert loaded.passwords.smtp_password.get_secret_value() == "hidden-6"
    shown = f"{loaded} {loaded!r} {loaded.model_dump()} {loaded.model_dump_json()}"
    shown += f"{loaded.passwords} {loaded.passwords!r}"
    assert "hidden" not in shown
    assert SECRET not in shown


def test_passwords_are_read(folder: Path) -> None:
    file = folder / "passwords.json"
    file.write_text(json.dumps(PASSWORDS), encoding="utf-8")
    assert read_passwords(file).forgot_password == SecretStr("one")
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(PASSWORDS).encode())
    assert read_passwords(file).imap_password == SecretStr("three")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON: "),
        (b"{", "is not JSON: "),
        (b"smtp_password: hidden", "is not JSON: "),
        (b'{"smtp_password": "hidden', "is not JSON: "),
        (json.dumps(PASSWORDS).encode("utf-16"), "is not JSON: "),
        (b'{"smtp_password": "hidden\xff"}', "is not JSON: "),
        (b"[" * 100_000, "is not JSON: "),
        (b'["hidden"]', "its content is wrong: "),
        (b'"hidden"', "its content is wrong: "),
        (b"null", "its content is wrong: "),
        (b'{"smtp_password": "hidden", "imap_password": ""}', "forgot_password is missing; "),
        (json.dumps(PASSWORDS | {"smtp_pasword": "hidden"}).encode(), "smtp_pasword is not a"),
        (json.dumps(PASSWORDS | {"smtp_password": None}).encode(), "smtp_password is wrong: "),
        (json.dumps(PASSWORDS | {"smtp_password": 4711}).encode(), "smtp_password is wrong: "),
        (json.dumps(PASSWORDS | {"imap_password": ["hidden"]}).encode(), "imap_password is wrong"),
        (
            json.dumps(PASSWORDS | {"smtp_password": "CHANGE_ME"}).encode(),
            "smtp_password is wrong: is a password that everybody knows",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_wrong_with_the_passwords_is_said_without_telling_them(
    monkeypatch: pytest.MonkeyPatch, folder: Path, content: bytes, said: str
) -> None:
    complete(monkeypatch, folder)
    (folder / "passwords.json").write_bytes(content)
    text = sentence("mailer")
    assert text.startswith("passwords.json")
    assert said in text
    assert "hidden" not in text
    assert "4711" not in text


def test_missing_passwords_are_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    complete(monkeypatch, folder)
    (folder / "passwords.json").unlink()
    assert "passwords.json.example" in sentence("mailer")
    monkeypatch.setenv("PASSWORDS_FILE", str(folder))
    assert sentence("mailer") == f"{folder} cannot be read: Is a directory."
    load_settings("api")


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("prof@uni.test", ["prof@uni.test"]),
        (" Prof@uni.test ,, ayuda@uni.test ", ["Prof@uni.test", "ayuda@uni.test"]),
        ("", []),
    ],
)
def test_staff_may_have_several_addresses(
    monkeypatch: pytest.MonkeyPatch, value: str, addresses: list[str]
) -> None:
    monkeypatch.setenv("STAFF_EMAIL", value)
    assert load_settings(None, []).staff_email == addresses


@pytest.mark.parametrize("value", ["prof", "prof@uni.test ayuda@uni.test", "<a@b>", "a@b\n"])
def test_staff_address_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("STAFF_EMAIL", value + ",x@")
    with pytest.raises(SettingsError, match="STAFF_EMAIL is wrong: must be addresses"):
        load_settings(None, [])
