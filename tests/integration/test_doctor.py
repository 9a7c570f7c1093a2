"""``consulta doctor`` against real servers: what it tries, and the sentence for each failure."""

import io
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from rich.console import Console
from sqlalchemy import make_url, text
from typer.testing import CliRunner

from api.migrations import alembic_config, migrate
from consulta import doctor, remedies
from consulta.cli import app
from core.settings import Service, Settings
from core.users import UserRepository, create_user_engine
from rag_worker.indexing import index_documents
from tests import servers
from tests.api_client import serving
from tests.integration.mail_servers import Script, smtp_server
from tests.integration.model_servers import ModelServer, Reply
from tests.servers import MailServer, MariaDB, Ollama, mail_server, ollama
from tests.servers.ollama import MODEL

COURSE, STUDENT = "curso@uni.test", "ana@uni.test"
MAIL_PASSWORD = "pw1"
LONG = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def mail() -> Iterator[MailServer]:
    with mail_server({COURSE: MAIL_PASSWORD, STUDENT: "pw2"}) as server:
        yield server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ollama]:
    with ollama(tmp_path_factory.mktemp("ollama")) as server:
        yield server


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to start in, and an environment without any setting."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("WORKER_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_passwords(folder: Path, password: str) -> Path:
    file = folder / "passwords.json"
    names = ("forgot_password", "smtp_password", "imap_password")
    file.write_text(json.dumps(dict.fromkeys(names, password)))
    file.chmod(0o600)
    return file


async def examine(service: Service | None = None, **settings: Any) -> dict[str, str]:
    """What the doctor says with these settings: the mark and the sentence of each check."""
    code, results = await examine_all(Settings(**settings), service=service)
    assert code == any(result.startswith("FAIL") for result in results.values())
    return results


async def examine_all(settings: Settings, **options: Any) -> tuple[int, dict[str, str]]:
    output = io.StringIO()
    code = await doctor.examine(Console(file=output, width=1000), settings, **options)
    results = {}
    for line in output.getvalue().splitlines():
        name, colon, sentence = line[5:].partition(": ")
        if colon:
            results[name] = line[:5] + sentence
    return code, results


async def test_everything_well_is_tried_the_way_it_is_used_and_said_so(
    folder: Path,
    nx_url: str,
    database_name: str,
    users_url: str,
    mail: MailServer,
    model: Ollama,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(mail.ca_file))
    documents = folder / "course"
    documents.mkdir()
    (documents / "exam.md").write_text("# Exam\n\nThe exam is on 3 June in the main hall.\n")
    before = len(mail.messages(STUDENT, at_least=0))
    with serving(nx_url, folder) as api_url:
        settings = Settings(
            mongo_url=nx_url,
            mongo_db_name=database_name,
            database_url=users_url,
            secret_key=LONG,
            document_location=documents,
            index_location=folder / "index",
            llm_model=f"ollama:{MODEL}",
            ollama_server_url=model.url,
            smtp_server=mail.host,
            smtp_port=mail.submission_port,
            smtp_username=COURSE,
            imap_server=mail.host,
            imap_port=mail.imaps_port,
            imap_tls="tls",
            imap_username=COURSE,
            passwords_file=write_passwords(folder, MAIL_PASSWORD),
            api_url=api_url,
        )
        migrate(create_user_engine(settings))
        index_documents(settings)
        code, results = await examine_all(settings, mail_to=STUDENT)
    assert code == 0, results
    assert {mark[:2] for name, mark in results.items() if name != "Links"} == {"ok"}
    is_server = users_url.startswith("mysql")
    assert ("the users' database" in results["Clock"]) == is_server
    assert "the queue, the API, Ollama" in results["Clock"]
    assert results["Users' database"] == "ok   it stores and deletes; revision: 0004; accounts: 0."
    assert results["Queue"] == "ok   it stores and deletes; questions: 0."
    assert "tokens counted: " in results["Language model"]
    assert "384 dimensions" in results["Embeddings"]
    assert results["Inbox"] == "ok   mails in INBOX: 0; unread: 0."
    assert STUDENT in results["Mail server"]
    (arrived,) = mail.messages(STUDENT, at_least=before + 1)[before:]
    assert arrived["Subject"] == "consulta doctor"
    assert arrived["Auto-Submitted"] == "auto-generated"
    # Nothing stays.
    with MongoClient[dict[str, Any]](nx_url) as client:
        assert client[database_name]["checks"].count_documents({}) == 0
    assert UserRepository(create_user_engine(settings)).worker_tokens() == []


@pytest.mark.parametrize(
    ("revision", "sentence"),
    [
        (None, "has no tables yet"),
        ("0001", "at revision 0001 and this version needs 0004: .* restart it"),
        ("9999", r"of a newer version \(revision 9999"),
    ],
)
async def test_tables_of_another_version_are_named_with_what_mends_them(
    users_url: str, revision: str | None, sentence: str
) -> None:
    engine = create_user_engine(Settings(database_url=users_url))
    with engine.connect() as connection:
        if revision:
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head" if revision == "9999" else revision)
            connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})
        else:
            connection.execute(text("CREATE TABLE somebody_elses (id INTEGER)"))
        connection.commit()
    result = (await examine("api", database_url=users_url))["Users' database"]
    assert result.startswith("FAIL")
    assert_matches(sentence, result)


def assert_matches(pattern: str, result: str) -> None:
    assert re.search(pattern, result), result


async def test_users_that_may_only_be_read_are_a_failure(mariadb: MariaDB) -> None:
    with mariadb.database() as name:
        migrate(create_user_engine(Settings(database_url=mariadb.url(name))))
        mariadb.execute("CREATE USER reader@'%' IDENTIFIED BY 'cuatro gatos'")
        mariadb.execute(f"GRANT SELECT ON {name}.* TO reader@'%'")
        try:
            url = f"mysql+pymysql://reader:cuatro%20gatos@127.0.0.1:{mariadb.port}/{name}"
            result = (await examine("api", database_url=url))["Users' database"]
        finally:
            mariadb.execute("DROP USER reader@'%'")
    assert result.startswith("FAIL it does not take a row: INSERT command denied")
    assert "GRANT ALL" in result
    assert "cuatro" not in result


@pytest.mark.parametrize(
    ("change", "reason", "remedy"),
    [
        ({"password": "falsch"}, "Access denied", "check DB_USER and DB_PASS"),
        ({"database": "nowhere"}, "Unknown database", "DB_NAME"),
        ({"port": 9}, "Connection refused", "start the database, or check DB_HOST and DB_PORT"),
        ({"host": "nowhere.invalid"}, "not known", "DB_HOST"),
    ],
)
async def test_users_database_that_does_not_let_us_in_is_told_with_the_setting_to_mend(
    mariadb: MariaDB, change: dict[str, Any], reason: str, remedy: str
) -> None:
    url = make_url(mariadb.url("mysql")).set(**change).render_as_string(hide_password=False)
    result = (await examine("api", database_url=url))["Users' database"]
    assert result.startswith("FAIL")
    assert reason in result
    assert remedy in result
    assert "falsch" not in result


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mongodb://127.0.0.1:9/?directConnection=true", "Connect call failed"),
        ("mongodb://nowhere.invalid/?directConnection=true", "not known"),
    ],
)
async def test_queue_that_cannot_be_reached_says_why(url: str, reason: str) -> None:
    result = (await examine("api", mongo_url=url))["Queue"]
    assert result.startswith("FAIL it does not take a document: ")
    assert reason in result
    assert result.endswith("start it, or check MONGO_HOST and MONGO_PORT (or MONGO_URL).")


@pytest.mark.parametrize(
    ("code", "remedy"), [(18, "MONGO_USER and MONGO_PASS"), (13, "readWrite"), (14031, "disk")]
)
def test_queue_that_refuses_is_told_with_the_setting_to_mend(code: int, remedy: str) -> None:
    """As MongoDB says it; none of the servers of the tests has logins."""
    assert remedy in remedies.of_queue(OperationFailure("refused", code))


async def test_fault_that_nobody_has_foreseen_keeps_no_check_from_being_run(nx_url: str) -> None:
    # PyMongo stumbles over a server without logins.
    with_login = nx_url.replace("mongodb://", "mongodb://ana:secreto@")
    results = await examine("api", mongo_url=with_login)
    assert results["Queue"].startswith("FAIL it ends with KeyError")
    assert "API" in results


async def test_file_of_authorities_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    result = (await examine("mailer"))["Settings"]
    assert "SSL_CERT_FILE names /nowhere.pem, which cannot be read" in result


async def test_users_file_that_is_not_there_is_not_made(folder: Path) -> None:
    url = f"sqlite:///{folder / 'users.db'}"
    result = (await examine("api", database_url=url))["Users' database"]
    assert result.startswith("FAIL")
    assert "start the API" in result
    assert not (folder / "users.db").exists()


@pytest.mark.parametrize(
    ("name", "setting"), [("Users' database", "DB_HOST"), ("Queue", "MONGO_HOST")]
)
async def test_database_that_no_setting_names_is_said_to_be_so(name: str, setting: str) -> None:
    result = (await examine("api"))[name]
    assert result.startswith("FAIL")
    assert setting in result


@pytest.mark.parametrize(("seconds", "is_wrong"), [(-50, False), (-600, True), (600, True)])
async def test_clock_of_an_http_server_that_differs_is_found(
    seconds: float, is_wrong: bool
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + seconds, usegmt=True)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        result = (await examine("api", api_url=f"http://127.0.0.1:{server.server_port}"))["Clock"]
    finally:
        server.shutdown()
        server.server_close()
    if is_wrong:
        direction = "behind" if seconds < 0 else "ahead of"
        assert_matches(f"^FAIL the clock of the API is (599|600) s {direction}", result)
        assert "set-ntp" in result
    else:
        assert result.startswith("ok")
        assert "the API" in result


async def test_clock_of_the_users_server_that_differs_is_found(mariadb: MariaDB) -> None:
    with mariadb.database() as name:
        url = f"{mariadb.url(name)}?init_command=SET%20timestamp%3DUNIX_TIMESTAMP()-7200"
        result = (await examine("api", database_url=url))["Clock"]
    assert_matches(r"^FAIL the clock of the users' database is 7,(199|200|201) s behind", result)


async def test_time_zone_without_its_data_is_named() -> None:
    settings = Settings().model_copy(update={"course_timezone": "Europe/Nowhere"})
    _, results = await examine_all(settings)
    assert results["Clock"].startswith("FAIL there is no time zone Europe/Nowhere")
    assert "tzdata" in results["Clock"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"mongo_pass": "asdf1234"}, "MONGO_PASS can be guessed"),
        ({"db_pass": "aaaaaaaaaaaaaaaaaaaa"}, "DB_PASS can be guessed"),
        ({"database_url": "mysql+pymysql://consulta:1234@db/x"}, "DATABASE_URL can be guessed"),
        ({"mongo_url": "mongodb://consulta:1234@db/"}, "MONGO_URL can be guessed"),
        ({"db_pass": LONG, "mongo_pass": LONG}, "one secret does for several"),
    ],
)
async def test_weak_secrets_are_named_but_not_shown(
    settings: dict[str, str], sentence: str
) -> None:
    result = (await examine("api", **settings))["Secrets"]
    assert result.startswith("FAIL")
    assert sentence in result
    assert "openssl rand" in result
    assert not any(word in result for word in ("asdf", "1234", LONG))


async def test_secrets_in_a_file_that_others_can_read_are_found(folder: Path) -> None:
    file = folder / ".env"
    file.write_text(f"COURSE_NAME=Física\nSECRET_KEY={LONG}\n")
    file.chmod(0o644)
    result = (await examine("api", secret_key=LONG))["Secrets"]
    assert result == "FAIL others can read the secrets in .env: chmod 600 .env."
    file.write_text("COURSE_NAME=Física\nSECRET_KEY=\n")
    assert (await examine("api", secret_key=LONG))["Secrets"].startswith("ok")


async def test_full_disk_is_a_failure(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE_MB", 10**9)
    result = (await examine("worker", index_location=folder / "index"))["Disk"]
    assert result.startswith("FAIL")
    assert "make room" in result


@pytest.fixture
def ordinary_user(folder: Path) -> Iterator[None]:
    """The checks run as somebody who is not root, as in the containers."""
    for above in (folder, *folder.parents):
        if above.stat().st_uid == os.geteuid() and not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.usefixtures("ordinary_user")
async def test_documents_and_folders_that_cannot_be_read_are_named(folder: Path) -> None:
    user = os.geteuid()
    os.seteuid(os.getuid())
    documents = folder / "course"
    (documents / "closed").mkdir(parents=True)
    (documents / "closed").chmod(0o000)
    (documents / "secret.md").write_text("# Secret")
    (documents / "secret.md").chmod(0o000)
    (documents / "open.md").write_text("# Open")
    documents.chmod(0o755)
    os.seteuid(user)
    result = (await examine("worker", document_location=documents))["Permissions"]
    os.seteuid(os.getuid())
    (documents / "closed").chmod(0o755)
    os.seteuid(user)
    assert result.startswith(f"FAIL user {user} cannot read ")
    assert str(documents / "closed") in result
    assert str(documents / "secret.md") in result
    assert "open.md" not in result
    assert f"chmod -R a+rX {documents}" in result


async def test_index_folder_that_cannot_be_written_is_named() -> None:
    result = (await examine("worker", index_location=Path("/proc/consulta")))["Permissions"]
    assert result.startswith(f"FAIL user {os.geteuid()} cannot write to /proc")
    assert "INDEX_LOCATION" in result


async def test_ollama_without_the_models_says_which_to_pull(model: Ollama) -> None:
    results = await examine(
        "worker",
        ollama_server_url=model.url,
        llm_model="ollama:mistral",
        embedding_model="ollama:bge-m3",
    )
    assert "`ollama pull mistral`" in results["Language model"]
    assert "`ollama pull bge-m3`" in results["Embeddings"]
    assert {results[name][:4] for name in ("Language model", "Embeddings")} == {"FAIL"}


async def test_model_that_counts_no_tokens_is_said_to_be_so() -> None:
    server = ModelServer()
    server.replies = [Reply(words=("Yes.",), prompt_tokens=None)]
    try:
        result = (await examine("worker", ollama_server_url=server.url))["Language model"]
    finally:
        server.stop()
    assert result.startswith("ok")
    assert "does not count tokens" in result


async def test_test_mail_that_is_refused_is_said_with_the_servers_words(folder: Path) -> None:
    script = Script(rcpt=["550 5.1.1 no such student"])
    async with smtp_server(script) as port:
        settings = Settings(
            smtp_server="127.0.0.1",
            smtp_port=port,
            smtp_username=COURSE,
            passwords_file=write_passwords(folder, ""),
        )
        code, results = await examine_all(settings, service="mailer", mail_to="nadie@uni.test")
    assert code == 1
    assert results["Mail server"].startswith("FAIL")
    assert "no such student" in results["Mail server"]
    assert not script.received


@pytest.mark.parametrize(
    ("changes", "trusted", "remedy"),
    [
        ({}, False, "SSL_CERT_FILE"),
        ({"smtp_tls": "tls"}, True, "SMTP_TLS=starttls"),
        ({"smtp_port": 9}, True, "check SMTP_SERVER, SMTP_PORT"),
        ({"smtp_server": "nowhere.invalid"}, True, "check SMTP_SERVER, or"),
        ({"smtp_username": "curso"}, True, "set SMTP_USERNAME"),
    ],
)
async def test_mail_server_that_cannot_be_used_says_what_mends_it(
    folder: Path,
    mail: MailServer,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    trusted: bool,
    remedy: str,
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(mail.ca_file))
    settings = {
        "smtp_server": mail.host,
        "smtp_port": mail.submission_port,
        "smtp_username": COURSE,
        "passwords_file": write_passwords(folder, MAIL_PASSWORD),
    }
    result = (await examine("mailer", **settings | changes))["Mail server"]
    assert result.startswith("FAIL")
    assert remedy in result
    # It is not the password's fault.
    assert "smtp_password" not in result


async def test_password_that_the_mail_server_refuses_is_named_once(
    folder: Path, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(mail.ca_file))
    results = await examine(
        "mailer",
        smtp_server=mail.host,
        smtp_port=mail.submission_port,
        smtp_username=COURSE,
        passwords_file=write_passwords(folder, "wrong"),
    )
    assert results["Mail server"].count("smtp_password in passwords.json") == 1


@pytest.mark.parametrize(
    ("replies", "remedy"),
    [
        ({"mail": ["530 5.7.0 Authentication required"]}, "password into passwords.json"),
        ({"rcpt": ["554 5.7.1 Relay access denied"]}, "password into passwords.json"),
        ({"mail": ["553 5.7.1 not owned by user"]}, "set SMTP_USERNAME to an address"),
    ],
)
async def test_refusals_of_the_mail_server_say_what_mends_them(
    folder: Path, replies: dict[str, list[str]], remedy: str
) -> None:
    async with smtp_server(Script(**replies)) as port:
        settings = Settings(
            smtp_server="127.0.0.1",
            smtp_port=port,
            smtp_username=COURSE,
            passwords_file=write_passwords(folder, ""),
        )
        _, results = await examine_all(settings, service="mailer", mail_to=STUDENT)
    assert results["Mail server"].startswith("FAIL")
    assert remedy in results["Mail server"]


async def test_mail_server_is_asked_without_sending_when_nobody_is_named(folder: Path) -> None:
    script = Script()
    async with smtp_server(script) as port:
        results = await examine(
            "mailer",
            smtp_server="127.0.0.1",
            smtp_port=port,
            smtp_username=COURSE,
            passwords_file=write_passwords(folder, ""),
        )
    assert results["Mail server"].startswith("ok")
    assert "--mail-to" in results["Mail server"]
    assert not script.received


@pytest.mark.parametrize(
    ("password", "changes", "sentence"),
    [
        ("wrong", {}, "check imap_password in passwords.json"),
        (MAIL_PASSWORD, {"imap_folder": "Consultas"}, "'Consultas' (IMAP_FOLDER)"),
        (MAIL_PASSWORD, {"imap_port": 1}, "check IMAP_SERVER, IMAP_PORT and IMAP_TLS"),
    ],
)
async def test_inbox_that_cannot_be_listed_says_why(
    folder: Path,
    mail: MailServer,
    monkeypatch: pytest.MonkeyPatch,
    password: str,
    changes: dict[str, Any],
    sentence: str,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(mail.ca_file))
    settings: dict[str, Any] = {
        "imap_server": mail.host,
        "imap_port": mail.imaps_port,
        "imap_tls": "tls",
        "imap_username": COURSE,
        "passwords_file": write_passwords(folder, password),
    }
    result = (await examine("mailer", **settings | changes))["Inbox"]
    assert result.startswith("FAIL")
    assert sentence in result
    assert MAIL_PASSWORD not in result


async def test_what_is_not_used_is_not_a_failure() -> None:
    results = await examine("mailer")
    assert results["Inbox"].startswith("--   IMAP_SERVER is not set")
    assert results["Users' database"].startswith("--")
    assert results["Links"].startswith("--")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:8000", "PUBLIC_URL"),
        ("http://consulta.uni.test", "HTTPS"),
        ("https://consulta.uni.test", None),
    ],
)
async def test_links_in_mails_to_others_must_lead_to_https(url: str, sentence: str | None) -> None:
    result = (await examine("mailer", smtp_server="smtp.uni.test", public_url=url))["Links"]
    if sentence is None:
        assert result.startswith("ok")
    else:
        assert result.startswith("FAIL")
        assert sentence in result


async def test_token_of_a_worker_elsewhere_is_tried(
    nx_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(nx_url, folder) as url:
        users = UserRepository(
            create_user_engine(Settings(database_url=f"sqlite:///{folder / 'users.db'}"))
        )
        monkeypatch.setenv("WORKER_TOKEN", users.create_worker_token("gpu"))
        results = await examine("remote_worker", api_url=url)
        assert results["Token"] == "ok   the API knows it."
        users.revoke_worker_token("gpu")
        result = (await examine("remote_worker", api_url=url))["Token"]
    assert result.startswith("FAIL")
    assert "consulta users worker-token" in result
    monkeypatch.delenv("WORKER_TOKEN")
    assert (await examine("remote_worker", api_url=url))["Token"].startswith("--")


async def test_api_that_is_not_ready_says_where_that_is_mended(folder: Path) -> None:
    with serving("mongodb://127.0.0.1:9/?directConnection=true", folder) as url:
        result = (await examine("remote_worker", api_url=url))["API"]
    assert result.startswith(f"FAIL {url} is not ready (503: ")
    assert "`consulta doctor` on the server" in result


def test_command_checks_one_service_and_refuses_others(nx_url: str, database_name: str) -> None:
    environment = {
        **dict.fromkeys(name.upper() for name in Settings.model_fields),
        "MONGO_URL": nx_url,
        "MONGO_DB_NAME": database_name,
        "API_URL": f"http://127.0.0.1:{servers.free_port()}",
    }
    ended = CliRunner().invoke(app, ["doctor", "--service", "remote_worker"], env=environment)
    names = {line[5:].partition(":")[0] for line in ended.output.splitlines() if ": " in line}
    assert ended.exit_code == 1
    assert {"Documents", "Index", "Embeddings", "Language model", "API", "Clock"} <= names
    assert not {"Queue", "Users' database", "Mail server", "Inbox", "Passwords"} & names
    refused = CliRunner().invoke(app, ["doctor", "--service", "postman"], env=environment)
    assert refused.exit_code == 2
