"""The command ``consulta``."""

import asyncio
import contextlib
import re
import sys
import unicodedata
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from core.settings import Service, Settings

app = typer.Typer(
    name="consulta",
    help="Automatic office hours for a course: questions answered from the course's own documents, "
    "by e-mail.\n\n`consulta up` starts everything on this machine. The other commands find what "
    "`up` has started by themselves; elsewhere they use the settings in the environment and in "
    "`.env`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
users_app = typer.Typer(
    help="Accounts, and tokens for workers elsewhere.",
    no_args_is_help=True,
)
app.add_typer(users_app, name="users", rich_help_panel="For staff")

terminal = Console()
errors = Console(stderr=True)

RUN, STAFF, SERVICES = "Run and ask", "For staff", "Single services"

DataOption = Annotated[
    Path, typer.Option("--data", envvar="CONSULTA_DATA", help="Folder where everything is kept.")
]
DEFAULT_DATA = Path("var")
ENVIRONMENT_FILE = "consulta.env"
"""Where a running stack leaves its settings for the other commands, in the data folder."""
LARGEST_NUMBER = 2**53 - 1
"""The largest number that every client of the queue can hold."""
_T = TypeVar("_T")


def _fail(message: object, code: int = 1) -> NoReturn:
    errors.print(f"[bold red]consulta:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def _say(message: str) -> None:
    terminal.print(message, markup=False, highlight=False, soft_wrap=True)


def _readable(text: str | None) -> str | None:
    """Refuse, before a database or a terminal has to, what is no text or steers the terminal."""
    for character in text or "":
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            raise typer.BadParameter("it holds bytes that are not readable text.")
    return text


def _settings(service: "Service | None" = None, data: Path = DEFAULT_DATA) -> "Settings":
    from core.settings import SettingsError, load_settings

    try:
        # A running stack's settings stand above .env, which may be another machine's.
        return load_settings(service, (Path(".env"), data / ENVIRONMENT_FILE))
    except SettingsError as error:
        _fail(error, 2)


def _queue_settings(data: Path) -> "Settings":
    settings = _settings(data=data)
    if settings.mongo_url is None and settings.mongo_host is None:
        _fail_without(data, "MONGO_URL nor MONGO_HOST")
    return settings


def _index_settings(data: Path) -> "Settings":
    settings = _settings(data=data)
    if "index_location" in settings.model_fields_set:
        return settings
    # Where `up` keeps it, also while it does not run.
    return settings.model_copy(update={"index_location": data / "index"})


def _account_settings(data: Path) -> "Settings":
    settings = _settings(data=data)
    if settings.database_url is None and settings.db_host is None:
        _fail_without(data, "DATABASE_URL nor DB_HOST")
    return settings


def _person_settings(data: Path) -> "Settings":
    _account_settings(data)
    return _queue_settings(data)


def _fail_without(data: Path, names: str) -> NoReturn:
    _fail(
        f"Nothing runs from the folder {data}, and neither {names} is set: start the service "
        "with `consulta up`, or set one of them.",
        2,
    )


def _run_with_queue(command: Coroutine[Any, Any, _T]) -> _T:
    from pymongo.errors import ConfigurationError, PyMongoError

    from core.restoring import UnfinishedRestoreError

    try:
        return asyncio.run(command)
    except UnfinishedRestoreError as error:
        _fail(f"Not now: {error} (`consulta restore FILE`).")
    except ConfigurationError:
        # Without the reason: it may quote a part of the password.
        _fail(
            "MONGO_URL or MONGO_HOST is wrong: it does not make a URI such as "
            "mongodb://user:password@host:27017/, where special characters of a password are "
            "written as %XX.",
            2,
        )
    except PyMongoError as error:
        _fail(
            f"The queue's database does not answer or refuses ({type(error).__name__}): start the "
            "service with `consulta up`, or check MONGO_URL or the MONGO_ settings."
        )


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    from consulta.backup.command import BackupError
    from consulta.stack import StackError
    from core.settings import SettingsError

    try:
        yield
    except SettingsError as error:
        _fail(error, 2)
    except (BackupError, StackError) as error:
        _fail(error)


@app.command(rich_help_panel=RUN)
def up(
    data: DataOption = DEFAULT_DATA,
    once: Annotated[
        bool, typer.Option("--once", help="Ask the sample question, show the e-mail, end.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the API and Swagger UI.")
    ] = 8000,
    mailbox_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the mailbox page.")
    ] = 8025,
    question: Annotated[
        str | None,
        typer.Option(callback=_readable, help="Ask this instead of the usual question."),
    ] = None,
) -> None:
    """Start the whole service; Ctrl-C stops it.

    Nothing has to be installed or configured: the databases, the mail server and, where no Ollama
    answers, a small language model come along. On the first run a sample student asks a question
    and the arriving e-mail is shown.
    """
    from consulta.up import run_up

    raise typer.Exit(
        run_up(data=data, api_port=port, mailbox_port=mailbox_port, once=once, question=question)
    )


@app.command(rich_help_panel=RUN)
def ask(
    question: Annotated[
        str,
        typer.Argument(callback=_readable, help="The question, in quotes.", show_default=False),
    ],
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the answer.")] = 900,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Ask as the local sample student and wait for the answer."""
    from consulta.asking import ask_and_show
    from consulta.student import AskError

    try:
        ask_and_show(terminal, _settings(data=data).api_url, data, question, timeout)
    except AskError as error:
        _fail(error)


@app.command(rich_help_panel=STAFF)
def index(data: DataOption = DEFAULT_DATA) -> None:
    """Read the course documents now, and list what was found.

    A running worker does the same by itself when a file changes.
    """
    from consulta.show_index import show_index
    from rag_worker.indexing import IndexingError

    settings = _settings(data=data)
    if settings.document_location is None:
        _fail("The setting DOCUMENT_LOCATION is missing: folder with the course documents.", 2)
    try:
        show_index(terminal, settings)
    except IndexingError as error:
        _fail(error)


@app.command(rich_help_panel=STAFF)
def evaluate(
    file: Annotated[
        Path, typer.Argument(help="Questions, one JSON object a line.", show_default=False)
    ],
    *,
    baseline: Annotated[
        bool,
        typer.Option("--baseline", help="Measure BM25, vectors and the naive design as well."),
    ] = False,
    retrieval_only: Annotated[
        bool, typer.Option("--retrieval-only", help="Ask no language model.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Only so many questions, a random sample.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the results; without it one in the data folder.",
            show_default=False,
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget the results of earlier runs.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Measure search and answers on a file of questions.

    Prints a table and writes a report with a picture. A run that was interrupted goes on where it
    was. docs/evaluating.md says how to write the file.
    """
    from consulta.evaluation.command import Options, evaluate

    settings = _index_settings(data)
    options = Options(
        file=file,
        output=output or data / "evaluation" / file.stem,
        baseline=baseline,
        retrieval_only=retrieval_only,
        limit=limit,
        fresh=fresh,
    )
    raise typer.Exit(evaluate(terminal, errors, settings, options))


@app.command(rich_help_panel=STAFF)
def calibrate(
    file: Annotated[
        Path, typer.Argument(help="Questions, one JSON object a line.", show_default=False)
    ],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Fit when questions are refused or marked as uncertain.

    Takes the same files as `evaluate`, with questions that the documents answer and some that they
    do not. The thresholds are kept beside the index; without them those of the program are used.
    """
    from consulta.calibration import CalibrationError, calibrate
    from consulta.evaluation.questions import QuestionFileError
    from consulta.show_index import IndexUnusableError
    from rag_worker.indexing import IndexingError

    try:
        calibrate(terminal, _index_settings(data), file)
    except QuestionFileError as error:
        _fail("\n".join(error.problems), 2)
    except (CalibrationError, IndexUnusableError, IndexingError) as error:
        _fail(error)


@app.command(rich_help_panel=STAFF)
def status(
    *,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it live; Ctrl-C ends it.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.5, max=3600, help="Seconds between two looks, with --watch.")
    ] = 5,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Show the queue at a glance.

    How many questions are in each state, how long the oldest has waited, how long waiting,
    answering and mailing took, the model's tokens, what became of the e-mails, the faults of a day,
    the last sign of life of each process, the disks, and the last errors.
    """
    from consulta.status import show_status, watch_status

    settings = _queue_settings(data)
    if not watch:
        _run_with_queue(show_status(terminal, settings))
        return
    # Ctrl-C is how it ends.
    with contextlib.suppress(KeyboardInterrupt):
        _run_with_queue(watch_status(terminal, settings, interval))


@app.command(rich_help_panel=STAFF)
def requeue(
    number: Annotated[
        int,
        typer.Argument(
            min=1, max=LARGEST_NUMBER, help="The question's number.", show_default=False
        ),
    ],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Send an undeliverable answer again."""
    from consulta.queue import requeue_answer

    if not _run_with_queue(requeue_answer(_queue_settings(data), number)):
        _fail(f"Question {number} is not undeliverable: `consulta status` shows the queue.")
    _say(f"The answer to question {number} will be sent again.")


@app.command(rich_help_panel=STAFF)
def export(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file.")
    ] = None,
    personal_data: Annotated[
        bool, typer.Option("--personal-data", help="Mask nothing; add e-mail and account.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Write the answered questions as JSON lines.

    Each line has a question, its answer, the sources and the rating, to train a model with. What
    looks like an address, a telephone or an identity number is masked.
    """
    from consulta.queue import export_questions

    settings = _queue_settings(data)
    try:
        count = _run_with_queue(export_questions(settings, output, personal_data=personal_data))
    except BrokenPipeError:
        raise  # Whoever reads has had enough: not worth a sentence.
    except OSError as error:
        _fail(f"{output or 'The output'} cannot be written ({error.strerror}): use another file.")
    errors.print(f"Questions exported: {count}.", highlight=False)


@app.command(rich_help_panel=STAFF)
def backup(
    file: Annotated[
        Path, typer.Argument(help="File to write; - is the standard output.", show_default=False)
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Put it in the place of a file that exists.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Copy users, questions and settings to a file.

    Nothing has to be stopped. The file holds personal data and password hashes, and neither
    secrets nor the course's documents; `restore` reads it on any kind of database.
    """
    from consulta.backup.command import STREAM, back_up
    from consulta.backup.place import open_place

    with _one_sentence(), open_place(data) as place:
        show = errors if file == STREAM else terminal
        _run_with_queue(back_up(show, place, file, overwrite=overwrite))


@app.command(rich_help_panel=STAFF)
def restore(
    file: Annotated[
        Path,
        typer.Argument(help="What `backup` wrote; - is the standard input.", show_default=False),
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete the accounts and questions that are here.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Bring users, questions and settings back from a file.

    Stop the service before. The databases may be of another kind than those of the backup: this is
    also how a course moves from a laptop to a server. An interrupted restore is done anew by the
    next one.
    """
    from consulta.backup.command import restore as run
    from consulta.backup.place import open_place

    with _one_sentence(), open_place(data, restoring=True) as place:
        _run_with_queue(run(terminal, place, file, replace=replace))


@app.command(rich_help_panel=STAFF)
def doctor(
    mail_to: Annotated[
        str | None,
        typer.Option(
            "--mail-to",
            metavar="ADDRESS",
            callback=_readable,
            help="Send a test mail there; else the mail server is only asked whether it would.",
            show_default=False,
        ),
    ] = None,
    service: Annotated[
        Literal["api", "worker", "remote_worker", "mailer"] | None,
        typer.Option(
            "--service",
            help="Check only what this service needs, as in its container.",
            show_default=False,
        ),
    ] = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Check every setting and server, and say what to do."""
    from consulta.doctor import examine

    checks = examine(terminal, _index_settings(data), service=service, data=data, mail_to=mail_to)
    raise typer.Exit(asyncio.run(checks))


@app.command(rich_help_panel=SERVICES)
def api(data: DataOption = DEFAULT_DATA) -> None:
    """Run the API."""
    from api.main import run

    run(_settings("api", data))


@app.command(rich_help_panel=SERVICES)
def worker(
    data: DataOption = DEFAULT_DATA,
    api_url: Annotated[
        str | None,
        typer.Option(
            "--api-url",
            help="Reach the queue through the API at this address: neither MongoDB nor MySQL is "
            "needed.",
            show_default=False,
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="WORKER_TOKEN",
            help="What `consulta users worker-token` printed on the server; in the environment "
            "other users of this machine do not see it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a worker, which answers questions.

    Several may run side by side on one queue, also on other machines: with --api-url a worker
    needs only its own copy of the course documents and a language model.
    """
    from consulta.services import run_remote_worker, run_worker

    if api_url is None:
        if token is not None:
            _fail("--token is for a worker elsewhere: give --api-url too.", 2)
        run_worker(_settings("worker", data))
        return
    if not re.match(r"https?://[^/\s]", api_url):
        _fail("--api-url starts with https:// (or http:// inside a machine).", 2)
    if token is None:
        _fail("--token is missing: `consulta users worker-token NAME` on the server makes one.", 2)
    from rag_worker.remote import RemoteQueueError

    try:
        run_remote_worker(_settings("remote_worker", data), api_url, token)
    except RemoteQueueError as error:
        _fail(error, 2)


@app.command(rich_help_panel=SERVICES)
def mailer(data: DataOption = DEFAULT_DATA) -> None:
    """Run the mailer, which sends answers and account mails."""
    from consulta.services import run_mailer
    from core.settings import SettingsError

    try:
        run_mailer(_settings("mailer", data))
    except SettingsError as error:
        _fail(error, 2)


@app.command(rich_help_panel=SERVICES)
def mailbox(
    maildir: Annotated[Path, typer.Option(help="Where the mails are kept.")] = Path("var/mail"),
    smtp_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the SMTP server.")
    ] = 1025,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 8025,
) -> None:
    """Run a mail server that only shows what it is given.

    It delivers nothing: it is for trying things out, and listens on this machine alone.
    """
    from consulta.mailbox import run

    run(maildir, smtp_port, port)


@users_app.command("create")
def create_user(
    username: Annotated[
        str,
        typer.Argument(
            callback=_readable, help="3 to 50 letters, digits and . _ -", show_default=False
        ),
    ],
    email: Annotated[
        str, typer.Argument(callback=_readable, help="Its e-mail address.", show_default=False)
    ],
    staff: Annotated[bool, typer.Option("--staff/--student", help="The kind of account.")] = True,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Create an account.

    Asks for the password, or takes it from the first line of the standard input.
    """
    from consulta import accounts

    settings = _account_settings(data)
    password = (
        typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        if sys.stdin.isatty()
        else sys.stdin.buffer.readline().rstrip(b"\r\n").decode(errors="surrogateescape")
    )
    try:
        accounts.create_user(settings, username, email, password, is_staff=staff)
    except accounts.AccountError as error:
        _fail(error)
    _say(f"{username} can log in now.")


@users_app.command("list")
def list_users(data: DataOption = DEFAULT_DATA) -> None:
    """List the accounts and the workers' tokens."""
    from consulta import accounts

    try:
        accounts.show_users(terminal, _account_settings(data))
    except accounts.AccountError as error:
        _fail(error)


@users_app.command("disable")
def disable_user(
    identifier: Annotated[
        str, typer.Argument(callback=_readable, help="User name or e-mail.", show_default=False)
    ],
    enable: Annotated[bool, typer.Option("--enable", help="Let the account in again.")] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Keep an account out and end its logins at once."""
    from consulta import accounts

    try:
        accounts.set_active(_account_settings(data), identifier, active=enable)
    except accounts.AccountError as error:
        _fail(error)
    _say(f"{identifier} is {'enabled' if enable else 'disabled'}.")


@users_app.command("confirm")
def confirm_user(
    identifier: Annotated[
        str, typer.Argument(callback=_readable, help="User name or e-mail.", show_default=False)
    ],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Vouch for the e-mail address of an account.

    For students whom the confirmation mail does not reach.
    """
    from consulta import accounts
    from consulta.queue import send_again_to

    settings = _account_settings(data)
    try:
        address = accounts.confirm(settings, identifier)
    except accounts.AccountError as error:
        _fail(error)
    _say(f"The address {address} is confirmed.")
    has_queue = settings.mongo_url is not None or settings.mongo_host is not None
    if has_queue and _run_with_queue(send_again_to(settings, address)):
        _say("Mail to it had come back; now it is sent there again.")


@users_app.command("export")
def export_user(
    identifier: Annotated[
        str, typer.Argument(callback=_readable, help="User name or e-mail.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file.")
    ] = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Write all that is kept about one person, as JSON.

    Account, questions with answers, sources and ratings, other mails, dead addresses, and what is
    counted for limits; no password hashes, and no passwords or links of mails that wait.
    """
    from consulta import personal
    from consulta.accounts import AccountError

    settings = _person_settings(data)
    try:
        count = _run_with_queue(personal.export(settings, data, identifier, output))
    except AccountError as error:
        _fail(error)
    except BrokenPipeError:
        raise  # Whoever reads has had enough: not worth a sentence.
    except OSError as error:
        _fail(f"{output or 'The output'} cannot be written ({error.strerror}): use another file.")
    errors.print(f"Exported, with questions: {count}.", highlight=False)


@users_app.command("forget")
def forget_user(
    identifier: Annotated[
        str, typer.Argument(callback=_readable, help="User name or e-mail.", show_default=False)
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    with_texts: Annotated[
        bool, typer.Option("--with-texts", help="Delete the answered questions as well.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Delete an account and all that points at the person.

    Answered questions are kept without the person; what waits is deleted, and answers that were not
    sent yet are not sent. An address that has no account is forgotten as well. This cannot be taken
    back; back-ups and the mail servers keep what they have.
    """
    from consulta import personal
    from consulta.accounts import AccountError

    settings = _person_settings(data)
    if not yes:
        what = "with all questions" if with_texts else "and keep the answers without the person"
        try:
            is_sure = typer.confirm(f"Forget {identifier} {what}? This cannot be taken back.")
        except typer.Abort:
            _fail("Nobody could be asked, and nothing was changed: give --yes.", 2)
        if not is_sure:
            _fail("Nothing was changed.")
    forgetting = personal.forget(settings, data, identifier, with_texts=with_texts)
    try:
        done, had_account = _run_with_queue(forgetting)
    except AccountError as error:
        _fail(error)
    except OSError as error:
        _fail(f"{error.filename} cannot be deleted ({error.strerror}): mend it, and repeat this.")
    account = "the account is deleted, " if had_account else ""
    _say(
        f"{identifier} is forgotten: {account}{done.kept} answers are kept without the person, "
        f"{done.deleted} questions and {done.mails} other mails are deleted."
    )


@users_app.command("worker-token")
def worker_token(
    name: Annotated[
        str, typer.Argument(callback=_readable, help="A name for the worker.", show_default=False)
    ],
    revoke: Annotated[bool, typer.Option("--revoke", help="End the token of this name.")] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Make a token for a worker elsewhere, or end one.

    With it a worker claims questions over HTTP. It is shown once.
    """
    from consulta import accounts

    settings = _account_settings(data)
    try:
        if revoke:
            accounts.revoke_worker_token(settings, name)
            _say(f"The token {name} is revoked.")
        else:
            _say(accounts.create_worker_token(settings, name))
            errors.print("Keep it now: only its hash is stored, so it is not shown again.")
    except accounts.AccountError as error:
        _fail(error)
