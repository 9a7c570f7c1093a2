"""The command ``consulta``: exit codes, what it prints and where, and never a traceback."""

import asyncio
import contextlib
import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consulta.cli import app
from core.mongo import connect
from core.outbox import MailStatus
from core.questions import Answer, Outcome, QuestionQueue, Rating, Source
from core.settings import Settings
from core.suppressions import Suppressions
from tests import servers

PASSWORD = "tres gatos en el tejado"
NOBODY_LISTENS = "mongodb://127.0.0.1:9/?directConnection=true"
COMMANDS = {
    "": "Automatic office hours",
    "up": "Start the whole service",
    "ask": "Ask as the local sample student",
    "index": "Read the course documents",
    "status": "Show the queue",
    "requeue": "Send an undeliverable answer again",
    "export": "JSON lines",
    "backup": "Copy users, questions and settings",
    "restore": "Bring users, questions and settings back",
    "doctor": "Check every setting",
    "users": "Accounts",
    "users create": "Create an account",
    "users list": "List the accounts",
    "users disable": "Keep an account out",
    "users confirm": "Vouch for the e-mail address",
    "users export": "Write all that is kept about one person",
    "users forget": "Delete an account and all that points at the person",
    "users worker-token": "token",
    "api": "Run the API",
    "worker": "Run a worker",
    "mailer": "Run the mailer",
    "mailbox": "Run a mail server",
    "evaluate": "Measure search and answers",
    "calibrate": "Fit when questions are refused",
}


FOREIGN = {**dict.fromkeys(name.upper() for name in Settings.model_fields), "CONSULTA_DATA": None}
"""Settings of whoever runs the tests."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


@dataclass
class CommandLine:
    """``consulta`` in a folder of its own, with no settings but those given."""

    folder: Path
    settings: dict[str, str]

    def __call__(self, *arguments: str, stdin: str | bytes = "", **settings: str) -> Ended:
        """Run the command in this process; nothing but an exit may leave it."""
        with contextlib.chdir(self.folder):
            result = CliRunner().invoke(
                app, arguments, input=stdin, env={**FOREIGN, **self.settings, **settings}
            )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    def process(self, *arguments: str, **settings: str) -> Ended:
        """Run it as a process of its own."""
        inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        ended = subprocess.run(
            [sys.executable, "-m", "consulta", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**inherited, **self.settings, **settings},
            cwd=self.folder,
            timeout=60,
            check=False,
            text=True,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def bare(tmp_path: Path) -> CommandLine:
    """No settings at all."""
    return CommandLine(tmp_path, {})


@pytest.fixture
def consulta(tmp_path: Path, nx_url: str, database_name: str) -> CommandLine:
    """A real queue and a real users' database, both empty."""
    return CommandLine(
        tmp_path,
        {
            "MONGO_URL": nx_url,
            "MONGO_DB_NAME": database_name,
            "DATABASE_URL": f"sqlite:///{tmp_path / 'users.sqlite'}",
        },
    )


@pytest.fixture
async def filled(consulta: CommandLine) -> CommandLine:
    """Six questions: sent, undeliverable, answered, failed, being answered, waiting."""
    settings = Settings(
        mongo_url=consulta.settings["MONGO_URL"],
        mongo_db_name=consulta.settings["MONGO_DB_NAME"],
        max_attempts=1,
    )
    good = Answer(
        text="Los martes [1]. Escribe a tutora@uni.test o llama al 612 34 56 78.\u2028¡Suerte! 🙂",
        language="es",
        outcome=Outcome.ANSWERED,
        sources=(Source("programa.docx", "Tutorías: martes", heading="Tutorías"),),
        model="openai:none",
    )
    apology = Answer(text="Lo sentimos.", language="es", outcome=Outcome.FAILED)
    async with connect(settings) as client:
        queue = QuestionQueue.from_settings(client[settings.mongo_db_name], settings)
        await queue.create_indexes()
        for number in range(1, 7):
            await queue.enqueue(
                input=f"Soy ana{number}@uni.test, DNI 12345678Z: ¿cuánto es 0.123456789 F?",
                email=f"ana{number}@uni.test",
                user_id=4240 + number,
            )
        for _ in range(3):
            claim = await queue.claim()
            assert claim is not None
            assert await queue.complete(claim.id, claim.claims, good)
        claim = await queue.claim()
        assert claim is not None
        await queue.fail(
            claim.id, claim.claims, error="ValueError: [/bold] \x1b[31m", apology=apology
        )
        first = await queue.claim_answered()
        second = await queue.claim_answered()
        assert first is not None
        assert second is not None
        await queue.mark_sent(first.id, first.mail_claims)
        await queue.mark_undeliverable(second.id, second.mail_claims, "550 no such user [/x]")
        await queue.claim()
        await queue.rate(first.id, Rating.HELPED)
        await queue.rate(second.id, Rating.ASK_STAFF)
    return consulta


# Help.


@pytest.mark.parametrize(("command", "purpose"), COMMANDS.items())
def test_help_says_what_the_command_does_in_80_columns(
    bare: CommandLine, command: str, purpose: str
) -> None:
    ended = bare(*command.split(), "--help")
    assert ended.code == 0
    assert purpose in ended.out
    assert ended.err == ""
    assert max(map(len, ended.out.splitlines())) <= 80


def test_help_lists_every_command_in_one_line_each(bare: CommandLine) -> None:
    lines = bare("--help").out.splitlines()
    for command in COMMANDS:
        if command and " " not in command:
            at = next(i for i, line in enumerate(lines) if line.startswith(f"│ {command} "))
            assert lines[at].rstrip(" │").endswith("."), lines[at]


# Settings and servers that are not there.


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("status", "MONGO_URL"),
        ("users list", "DATABASE_URL"),
        ("index", "DOCUMENT_LOCATION"),
        ("api", "SECRET_KEY"),
        ("worker", "MONGO_HOST"),
        ("mailer", "SECRET_KEY"),
    ],
)
def test_missing_setting_is_named_in_one_sentence(
    bare: CommandLine, command: str, missing: str
) -> None:
    ended = bare.process(*command.split())
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("consulta: ")
    assert missing in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["status", "doctor", "index", "worker", "users list"])
def test_misspelt_setting_is_named_with_the_right_one(bare: CommandLine, command: str) -> None:
    ended = bare(*command.split(), MONGO_HOSTT="127.0.0.1")
    assert ended.code == 2
    assert ended.err == "consulta: MONGO_HOSTT is not a setting: did you mean MONGO_HOST?\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--token", "x"], "--token is for a worker elsewhere"),
        (["--api-url", "https://uni.test"], "`consulta users worker-token NAME` on the server"),
        (["--api-url", "uni.test", "--token", "x"], "--api-url starts with https://"),
        (["--api-url", "https:///x", "--token", "x"], "--api-url starts with https://"),
        (["--api-url", "https://uni.test", "--token", "geh\neim"], "copy it again"),
    ],
)
def test_worker_elsewhere_is_told_what_is_wrong_with_its_address_or_token(
    bare: CommandLine, arguments: list[str], sentence: str
) -> None:
    ended = bare.process("worker", *arguments, DOCUMENT_LOCATION=".")
    assert ended.code == 2
    assert sentence in ended.err
    assert "geh" not in ended.err


def test_env_file_that_is_not_text_is_named(bare: CommandLine) -> None:
    (bare.folder / ".env").write_bytes(b"COURSE_NAME=Electr\xf3nica\n")
    ended = bare("status")
    assert ended.code == 2
    assert ended.err == "consulta: .env cannot be read: it is not UTF-8 text.\n"


@pytest.mark.parametrize("command", ["status", "export"])
def test_queue_that_is_away_is_one_sentence(bare: CommandLine, command: str) -> None:
    ended = bare.process(*command.split(), MONGO_URL=NOBODY_LISTENS)
    assert ended.code == 1
    assert ended.err.startswith("consulta: The queue's database does not answer")
    assert "consulta up" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_queue_address_that_is_no_uri_does_not_show_its_password(bare: CommandLine) -> None:
    ended = bare("status", MONGO_URL="mongodb://ana:s3cr3t/@/:x@127.0.0.1/")
    assert ended.code == 2
    assert "MONGO_URL" in ended.err
    assert "s3cr3t" not in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    "url", ["sqlite:////nowhere/users", "mysql+pymysql://u:s3cr3t@127.0.0.1:9/x"]
)
def test_users_database_that_is_away_is_one_sentence(bare: CommandLine, url: str) -> None:
    ended = bare("users", "list", DATABASE_URL=url)
    assert ended.code == 1
    assert ended.err.startswith("consulta: The users' database does not answer")
    assert "s3cr3t" not in ended.err
    assert len(ended.err.splitlines()) == 1


def test_asking_without_an_api_says_what_to_start(bare: CommandLine) -> None:
    ended = bare("ask", "¿Hay clase?", API_URL=f"http://127.0.0.1:{servers.free_port()}")
    assert ended.code == 1
    assert ended.err.startswith("consulta: The API does not answer at ")
    assert "consulta up" in ended.err


def test_doctor_says_of_everything_that_is_away_what_to_do(bare: CommandLine) -> None:
    ended = bare(
        "doctor",
        API_URL=f"http://127.0.0.1:{servers.free_port()}",
        OLLAMA_SERVER_URL=f"http://127.0.0.1:{servers.free_port()}",
        MONGO_URL=NOBODY_LISTENS,
        DATABASE_URL="sqlite:////nowhere/users",
    )
    assert ended.code == 1
    failed = {line[5:].partition(":")[0] for line in ended.out.splitlines() if "FAIL" in line}
    assert failed == {
        "Settings",
        "Passwords",
        "Users' database",
        "Queue",
        "Documents",
        "Index",
        "Language model",
        "Mail server",
        "API",
    }
    for setting in ("SECRET_KEY", "DOCUMENT_LOCATION", "SMTP_SERVER", "MONGO_URL", "DATABASE_URL"):
        assert setting in ended.out
    assert ended.out.splitlines()[-1] == "9 of 16 checks failed."


def test_doctor_finds_passwords_that_others_can_read(consulta: CommandLine) -> None:
    passwords = consulta.folder / "passwords.json"
    passwords.write_text('{"forgot_password": "", "smtp_password": "", "imap_password": ""}')
    passwords.chmod(0o644)
    assert f"FAIL Passwords: others can read {passwords.name}" in consulta("doctor").out
    passwords.chmod(0o600)
    assert "ok   Passwords" in consulta("doctor").out


# The queue.


def test_status_of_an_empty_queue_is_all_zeros(consulta: CommandLine) -> None:
    ended = consulta("status")
    assert ended.code == 0
    assert _states(ended) == dict.fromkeys(
        ("waiting", "answering", "answered", "sent", "undeliverable"), "0"
    )
    assert "the pace is not known" in ended.out


def test_status_shows_states_pace_and_errors_without_steering_the_terminal(
    filled: CommandLine,
) -> None:
    ended = filled("status")
    assert ended.code == 0
    assert _states(ended) == {
        "waiting": "1",
        "answering": "1",
        "answered": "2",
        "sent": "1",
        "undeliverable": "1",
    }
    assert "Answered 1 with an apology" in ended.out
    assert "The oldest unanswered question has waited" in ended.out
    assert "Pace: " in ended.out
    assert "Ratings: helped 1, did not help 0, ask the staff 1." in ended.out
    assert "ValueError: [/bold]" in ended.out
    assert "\x1b" not in ended.out


def _states(ended: Ended) -> dict[str, str]:
    names, figures = (line.split() for line in ended.out.splitlines()[:2])
    assert names[0] == "Questions"
    return dict(zip(names[1:], figures[2:], strict=True))  # behind the date and the time


def test_export_is_json_lines_without_personal_data(filled: CommandLine) -> None:
    ended = filled("export")
    assert ended.code == 0
    rows = [json.loads(line) for line in ended.out.removesuffix("\n").split("\n")]
    assert [row["id"] for row in rows] == [1, 2, 3], "apologies and open questions are left out"
    assert rows[0]["sources"] == [
        {
            "file": "programa.docx",
            "quotation": "Tutorías: martes",
            "page": None,
            "slide": None,
            "heading": "Tutorías",
        }
    ]
    assert rows[0]["question"] == "Soy […], DNI […]: ¿cuánto es 0.123456789 F?"
    assert rows[0]["answer"] == "Los martes [1]. Escribe a […] o llama al […].\u2028¡Suerte! 🙂"
    for secret in ("@", "424", "12345678Z", "612"):
        assert secret not in ended.out
    assert ended.err == "Questions exported: 3.\n"


def test_export_with_personal_data_masks_nothing(filled: CommandLine) -> None:
    row = json.loads(filled("export", "--personal-data").out.split("\n")[0])
    assert row["email"] == "ana1@uni.test"
    assert row["user_id"] == 4241
    assert "ana1@uni.test" in row["question"]


def test_export_writes_a_file_and_nothing_to_the_terminal(filled: CommandLine) -> None:
    ended = filled("export", "-o", "questions.jsonl")
    assert (ended.code, ended.out) == (0, "")
    lines = (filled.folder / "questions.jsonl").read_text("utf-8").split("\n")
    assert [json.loads(line)["id"] for line in lines[:-1]] == [1, 2, 3]


def test_export_of_an_empty_queue_is_empty(consulta: CommandLine) -> None:
    ended = consulta("export")
    assert (ended.code, ended.out) == (0, "")


def test_export_to_a_place_that_cannot_be_written_is_one_sentence(consulta: CommandLine) -> None:
    ended = consulta("export", "-o", "no/such/folder.jsonl")
    assert ended.code == 1
    assert ended.err.startswith("consulta: no/such/folder.jsonl cannot be written")


def test_requeued_answer_waits_for_the_mailer_again(filled: CommandLine) -> None:
    assert filled("requeue", "2").code == 0
    states = _states(filled("status"))
    assert (states["undeliverable"], states["answered"]) == ("0", "3")
    again = filled("requeue", "2")
    assert again.code == 1
    assert again.err.startswith(f"consulta: Question 2 is not {MailStatus.UNDELIVERABLE}")


@pytest.mark.parametrize("number", ["0", "-1", "99999999999999999999", "x", ""])
def test_requeue_refuses_what_is_no_number_of_a_question(
    consulta: CommandLine, number: str
) -> None:
    ended = consulta("requeue", "--", number)
    assert ended.code == 2
    assert "number" in ended.err


# Accounts.


def test_accounts_are_created_listed_disabled_and_enabled(consulta: CommandLine) -> None:
    created = consulta("users", "create", "Ana.P", "ana@uni.test", stdin=f"{PASSWORD}\n")
    assert (created.code, created.out) == (0, "Ana.P can log in now.\n")
    assert consulta("users", "create", "--student", "eva", "eva@uni.test", stdin=PASSWORD).code == 0
    assert consulta("users", "disable", "ANA@uni.test").code == 0
    listed = consulta("users", "list").out
    rows = [line.strip("│ ").split("│") for line in listed.splitlines() if "@" in line]
    assert [[cell.strip() for cell in row[1:6]] for row in rows] == [
        ["Ana.P", "ana@uni.test", "no", "staff", "disabled"],
        ["eva", "eva@uni.test", "no", "student", "active"],
    ]
    assert consulta("users", "disable", "--enable", "ana.p").out == "ana.p is enabled.\n"
    assert "disabled" not in consulta("users", "list").out
    assert PASSWORD.encode() not in (consulta.folder / "users.sqlite").read_bytes()


def suppress(consulta: CommandLine, email: str) -> None:
    """As the mailer does when mail comes back."""

    async def add() -> None:
        settings = Settings(mongo_url=consulta.settings["MONGO_URL"])
        async with connect(settings) as client:
            database = client[consulta.settings["MONGO_DB_NAME"]]
            assert await Suppressions(database).add(email, "5.1.1 no such user")

    asyncio.run(add())


def test_staff_vouch_for_an_address_that_no_mail_reaches(consulta: CommandLine) -> None:
    consulta("users", "create", "--student", "eva", "eva@uni.test", stdin=PASSWORD)
    confirmed = consulta("users", "confirm", "EVA")
    assert (confirmed.code, confirmed.out) == (0, "The address eva@uni.test is confirmed.\n")
    [row] = [line for line in consulta("users", "list").out.splitlines() if "eva@" in line]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", row.strip("│ ").split("│")[3].strip())
    suppress(consulta, "eva@uni.test")
    again = consulta("users", "confirm", "eva")
    assert again.out.endswith("Mail to it had come back; now it is sent there again.\n")
    assert consulta("users", "confirm", "eva").out == confirmed.out
    without_queue = consulta("users", "confirm", "eva", MONGO_URL="")
    assert (without_queue.code, without_queue.out) == (0, confirmed.out)
    nobody = consulta("users", "confirm", "nobody")
    assert nobody.code == 1
    assert nobody.err.startswith("consulta: Nobody is called nobody")


def test_second_account_of_a_name_or_an_address_is_refused(consulta: CommandLine) -> None:
    consulta("users", "create", "ana", "ana@uni.test", stdin=PASSWORD)
    name = consulta("users", "create", "ANA", "other@uni.test", stdin=PASSWORD)
    assert (name.code, name.err) == (1, "consulta: The user name ANA is taken.\n")
    address = consulta("users", "create", "other", "ANA@uni.test", stdin=PASSWORD)
    assert address.code == 1
    assert address.err == "consulta: The address ANA@uni.test has an account already.\n"


@pytest.mark.parametrize(
    ("username", "email", "password", "problem"),
    [
        ("ana", "ana@uni.test", "", "password: needs 8 characters or more."),
        ("ana", "ana@uni.test", "corta", "password: needs 8 characters or more."),
        ("ana", "ana@uni.test", "x" * 5000, "password: may have 128 characters at most."),
        ("ana", "ana@uni.test", b"\xff" * 9, "password: is not valid Unicode."),
        ("ana", "ana@uni.test", "ANA@uni.test", "password: must not be made of your user name"),
        ("a", "ana@uni.test", PASSWORD, "username: needs 3 characters or more."),
        ("[/bold]", "ana@uni.test", PASSWORD, "username: takes letters without accents"),
        ("ana@uni.test", "ana@uni.test", PASSWORD, "username: takes letters without accents"),
        ("ana", "ana", PASSWORD, "email: is not a plain e-mail address"),
        ("ana", "[/bold]@x", PASSWORD, "email: is not a plain e-mail address"),
        ("ana", '"a b"@uni.test', PASSWORD, "email: is not a plain e-mail address"),
        ("ana", "ana@uni.test, eva@uni.test", PASSWORD, "email: is not a plain e-mail address"),
    ],
)
def test_account_that_is_not_allowed_is_one_sentence(
    consulta: CommandLine, username: str, email: str, password: str | bytes, problem: str
) -> None:
    ended = consulta("users", "create", username, email, stdin=password)
    assert ended.code == 1
    assert ended.err.startswith(f"consulta: {problem}")
    assert len(ended.err.splitlines()) == 1
    assert "@" not in consulta("users", "list").out


@pytest.mark.parametrize(
    "arguments",
    [
        ("users", "disable", "\udcff"),
        ("users", "disable", "\x1b[31m"),
        ("users", "create", "\udcff", "ana@uni.test"),
        ("users", "worker-token", "gpu\udcff"),
        ("users", "worker-token", "--revoke", "\udcff"),
        ("ask", "\udcff"),
    ],
)
def test_argument_that_is_no_readable_text_is_refused(
    consulta: CommandLine, arguments: tuple[str, ...]
) -> None:
    ended = consulta(*arguments)
    assert ended.code == 2
    assert "not readable text" in ended.err
    assert "\x1b" not in ended.err


@pytest.mark.parametrize("identifier", ["nobody", "[/bold]", "", "' OR 1=1 --", "x" * 5000])
def test_account_that_is_not_there_cannot_be_disabled(
    consulta: CommandLine, identifier: str
) -> None:
    ended = consulta("users", "disable", identifier)
    assert ended.code == 1
    assert (
        ended.err == f"consulta: Nobody is called {identifier}: `consulta users list` shows all.\n"
    )


def test_workers_token_is_shown_once_and_stored_hashed_and_revoked(consulta: CommandLine) -> None:
    made = consulta("users", "worker-token", "gpu [/1]")
    assert made.code == 0
    token = made.out.removesuffix("\n")
    assert len(token.split()) == 1
    assert len(token) > 30
    assert "not shown again" in made.err
    assert token.encode() not in (consulta.folder / "users.sqlite").read_bytes()
    listed = consulta("users", "list").out
    assert "gpu [/1]" in listed
    assert token not in listed
    twice = consulta("users", "worker-token", "gpu [/1]")
    assert twice.code == 1
    assert twice.err.startswith("consulta: A token gpu [/1] exists")
    revoked = consulta("users", "worker-token", "--revoke", "gpu [/1]")
    assert (revoked.code, revoked.out) == (0, "The token gpu [/1] is revoked.\n")
    assert consulta("users", "worker-token", "--revoke", "gpu [/1]").code == 1
    assert "gpu" not in consulta("users", "list").out


@pytest.mark.parametrize("name", ["", "   ", "x" * 51, "two\nlines"])
def test_workers_token_needs_a_name_of_one_short_line(consulta: CommandLine, name: str) -> None:
    ended = consulta("users", "worker-token", name)
    assert ended.code == 1
    assert ended.err.startswith("consulta: A token's name is one line of 1 to 50 characters")
    assert "Workers' tokens" not in consulta("users", "list").out


# The index.


def test_index_lists_files_and_names_what_cannot_be_read(bare: CommandLine) -> None:
    course = bare.folder / "course [x]"
    course.mkdir()
    (course / "ohm.md").write_text(
        "# Ohm\n\nThe voltage is the product of current and resistance.\n"
    )
    (course / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    (course / "empty.txt").touch()
    settings = {"DOCUMENT_LOCATION": str(course), "INDEX_LOCATION": str(bare.folder / "index")}
    first = bare("index", **settings)
    assert first.code == 0
    rows = {
        cells[0].strip(): (cells[2].strip(), cells[3].strip())
        for line in first.out.splitlines()
        if len(cells := line.strip("│").split("│")) == 4 and line[0] == "│"
    }
    assert rows["ohm.md"] == ("1", "")
    assert rows["broken.pdf"][0] == "0"
    assert "damaged" in rows["broken.pdf"][1]
    assert rows["empty.txt"] == ("0", "The file is empty.")
    assert "Files: 3. Passages: 1, of which 1 embedded now and 0 as before." in first.out
    second = bare("index", **settings)
    assert "Files: 3. Passages: 1, of which 0 embedded now and 1 as before." in second.out


def test_index_of_an_empty_folder_says_where_documents_go(bare: CommandLine) -> None:
    course = bare.folder / "[bold]"
    course.mkdir()
    ended = bare("index", DOCUMENT_LOCATION=str(course), INDEX_LOCATION=str(bare.folder / "index"))
    assert ended.code == 0
    assert ended.out.startswith(f"There are no documents in {course}: ")
    assert len(ended.out.splitlines()) == 1


def test_index_of_a_missing_folder_is_one_sentence(bare: CommandLine) -> None:
    ended = bare("index", DOCUMENT_LOCATION="nowhere", INDEX_LOCATION="index")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("consulta: The folder ")
    assert "DOCUMENT_LOCATION" in ended.err
    assert len(ended.err.splitlines()) == 1


# Asking.


def test_sample_students_password_is_kept_for_its_owner_only(bare: CommandLine) -> None:
    bare("ask", "¿Hay clase?", "--data", "kept", API_URL=f"http://127.0.0.1:{servers.free_port()}")
    file = bare.folder / "kept" / "sample-student.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lost = json.loads(file.read_text())
    file.write_text("{")
    ended = bare("ask", "¿Hay clase?", "--data", "kept")
    assert ended.code == 1
    assert "delete it and try again" in ended.err
    file.unlink()
    bare("ask", "¿Hay clase?", "--data", "kept", API_URL=f"http://127.0.0.1:{servers.free_port()}")
    new = json.loads(file.read_text())
    assert new["username"] != lost["username"], "nobody knows the lost account's password"
