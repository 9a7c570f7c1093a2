"""The command ``consulta``."""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

if TYPE_CHECKING:
    from core.settings import Service, Settings

app = typer.Typer(
    name="consulta",
    help="Automatic office hours for a course: questions answered from the course's own documents, "
    "by e-mail.\n\n`consulta up` starts everything on this machine; the other commands find a "
    "running stack by themselves, or use the settings in the environment and in `.env`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
)
users_app = typer.Typer(
    help="Accounts of staff and students, and tokens for workers elsewhere.",
    no_args_is_help=True,
)
app.add_typer(users_app, name="users", rich_help_panel="For staff")

terminal = Console()
errors = Console(stderr=True)

RUN, STAFF, SERVICES = "Run and ask", "For staff", "Single services"

DataOption = Annotated[
    Path, typer.Option("--data", envvar="CONSULTA_DATA", help="Folder with everything it keeps.")
]
DEFAULT_DATA = Path("var")
ENVIRONMENT_FILE = "consulta.env"
"""Where a running stack leaves its settings for the other commands, in the data folder."""
_T = TypeVar("_T")


def _fail(message: object, code: int = 1) -> NoReturn:
    errors.print(f"[bold red]consulta:[/] {message}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def _settings(service: "Service | None" = None, data: Path = DEFAULT_DATA) -> "Settings":
    from core.settings import SettingsError, load_settings

    try:
        # A running stack's settings stand above .env, which may be another machine's.
        return load_settings(service, (Path(".env"), data / ENVIRONMENT_FILE))
    except SettingsError as error:
        _fail(error, 2)


def _run_with_queue(command: Coroutine[Any, Any, _T]) -> _T:
    from pymongo.errors import PyMongoError

    try:
        return asyncio.run(command)
    except PyMongoError as error:
        _fail(
            f"The queue's database does not answer ({type(error).__name__}): start the service "
            "with `consulta up`, or check MONGO_URL or MONGO_HOST."
        )


@app.command(rich_help_panel=RUN)
def up(
    data: DataOption = DEFAULT_DATA,
    once: Annotated[
        bool, typer.Option("--once", help="Ask the sample question, show the e-mail, and end.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of the API and Swagger UI.")] = 8000,
    mailbox_port: Annotated[int, typer.Option(help="Port of the mailbox page.")] = 8025,
    question: Annotated[
        str | None, typer.Option(help="The sample question, instead of the usual one.")
    ] = None,
) -> None:
    """Start the whole service on this machine, and keep it running until Ctrl-C.

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
    question: Annotated[str, typer.Argument(help="The question, in quotes.", show_default=False)],
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 900,
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
    """Read the course documents now and list what was found in each.

    A running worker does the same by itself when a file changes.
    """
    from consulta.show_index import show_index

    raise typer.Exit(show_index(terminal, _settings(data=data)))


@app.command(rich_help_panel=STAFF)
def status(data: DataOption = DEFAULT_DATA) -> None:
    """Show the queue: how many questions in each state, the oldest, the pace, the last errors."""
    from consulta.queue import show_status

    _run_with_queue(show_status(terminal, _settings(data=data)))


@app.command(rich_help_panel=STAFF)
def requeue(
    number: Annotated[int, typer.Argument(help="The question's number.", show_default=False)],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Send an answer again whose e-mail was undeliverable."""
    from consulta.queue import requeue_answer

    if not _run_with_queue(requeue_answer(_settings(data=data), number)):
        _fail(f"Question {number} is not undeliverable: `consulta status` shows the queue.")
    terminal.print(f"The answer to question {number} will be sent again.")


@app.command(rich_help_panel=STAFF)
def export(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file instead of the terminal.")
    ] = None,
    personal_data: Annotated[
        bool, typer.Option("--personal-data", help="With addresses and account numbers.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Write questions, answers, sources and ratings as JSON lines, for training a model."""
    from consulta.queue import export_questions

    count = _run_with_queue(
        export_questions(_settings(data=data), output, personal_data=personal_data)
    )
    errors.print(f"{count} questions.")


@app.command(rich_help_panel=STAFF)
def doctor(data: DataOption = DEFAULT_DATA) -> None:
    """Check every setting and dependency, and say what to do about what is wrong."""
    from consulta.doctor import examine

    raise typer.Exit(asyncio.run(examine(terminal, _settings(data=data))))


@app.command(rich_help_panel=SERVICES)
def api(data: DataOption = DEFAULT_DATA) -> None:
    """Run the API."""
    from api.main import run

    run(_settings("api", data))


@app.command(rich_help_panel=SERVICES)
def worker(data: DataOption = DEFAULT_DATA) -> None:
    """Run a worker that answers questions; several may run side by side."""
    from consulta.services import run_worker

    run_worker(_settings("worker", data))


@app.command(rich_help_panel=SERVICES)
def mailer(data: DataOption = DEFAULT_DATA) -> None:
    """Run the mailer that sends answers and account mails."""
    from consulta.services import run_mailer
    from core.settings import SettingsError

    try:
        run_mailer(_settings("mailer", data))
    except SettingsError as error:
        _fail(error, 2)


@app.command(rich_help_panel=SERVICES)
def mailbox(
    maildir: Annotated[Path, typer.Option(help="Where the mails are kept.")] = Path("var/mail"),
    smtp_port: Annotated[int, typer.Option(help="Port of the SMTP server.")] = 1025,
    port: Annotated[int, typer.Option(help="Port of the page.")] = 8025,
) -> None:
    """Run a mail server that delivers nowhere, with a page to read what it caught."""
    from consulta.mailbox import run

    run(maildir, smtp_port, port)


@users_app.command("create")
def create_user(
    username: Annotated[str, typer.Argument(show_default=False)],
    email: Annotated[str, typer.Argument(show_default=False)],
    staff: Annotated[bool, typer.Option("--staff/--student", help="The kind of account.")] = True,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Create an account, of staff unless told otherwise; asks for the password."""
    from consulta import accounts

    password = (
        typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        if sys.stdin.isatty()
        else sys.stdin.readline().rstrip("\n")
    )
    try:
        accounts.create_user(_settings(data=data), username, email, password, is_staff=staff)
    except accounts.AccountError as error:
        _fail(error)
    terminal.print(f"{username} can log in now.")


@users_app.command("list")
def list_users(data: DataOption = DEFAULT_DATA) -> None:
    """List the accounts and the workers' tokens."""
    from consulta import accounts

    try:
        accounts.show_users(terminal, _settings(data=data))
    except accounts.AccountError as error:
        _fail(error)


@users_app.command("disable")
def disable_user(
    identifier: Annotated[str, typer.Argument(help="User name or e-mail.", show_default=False)],
    enable: Annotated[bool, typer.Option("--enable", help="Let the account in again.")] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Keep an account out and end its logins at once."""
    from consulta import accounts

    try:
        accounts.set_active(_settings(data=data), identifier, active=enable)
    except accounts.AccountError as error:
        _fail(error)
    terminal.print(f"{identifier} is {'enabled' if enable else 'disabled'}.")


@users_app.command("worker-token")
def worker_token(
    name: Annotated[str, typer.Argument(help="A name for the worker.", show_default=False)],
    revoke: Annotated[bool, typer.Option("--revoke", help="End the token of this name.")] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Make a token that lets a worker elsewhere claim questions; it is shown once."""
    from consulta import accounts

    try:
        if revoke:
            accounts.revoke_worker_token(_settings(data=data), name)
            terminal.print(f"The token {name} is revoked.")
        else:
            terminal.print(accounts.create_worker_token(_settings(data=data), name), soft_wrap=True)
            errors.print("Keep it now: only its hash is stored, so it is not shown again.")
    except accounts.AccountError as error:
        _fail(error)
