"""``consulta up``: start the stack, show that it works, and keep watch."""

import signal
import threading
import time
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from consulta import stack
from consulta.student import POLL_SECONDS, AskError, Asking, Student
from core.settings import Settings

SAMPLE_QUESTION = "¿Cuándo es el primer parcial y en qué aula?"
ANSWER_SECONDS = 300.0
MAIL_SECONDS = 60.0

_STATES = {
    "waiting": "waiting, place {place}",
    "answering": "a worker is at it",
    "answered": "answered, the e-mail is on its way",
    "sent": "answered and mailed",
}


def run_up(
    settings: Settings,
    *,
    data: Path,
    api_port: int,
    mailbox_port: int,
    once: bool,
    question: str | None,
) -> int:
    """Start the stack and run it until Ctrl-C, or with ``once`` until the sample e-mail is there.

    Returns the exit code: 0, or 1 with the reason printed.
    """
    terminal = Console()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        with stack.exclusive(data):
            _run(terminal, settings, data, (api_port, mailbox_port), once=once, question=question)
    except (stack.StackError, AskError) as error:
        terminal.print(
            f"[bold red]consulta:[/] {escape(str(error))}", highlight=False, soft_wrap=True
        )
        return 1
    except KeyboardInterrupt:
        terminal.print("Stopped. The data is kept for the next start.")
        return 0
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(
    terminal: Console,
    settings: Settings,
    data: Path,
    ports: tuple[int, int],
    *,
    once: bool,
    question: str | None,
) -> None:
    started = time.monotonic()
    layout = stack.plan_layout(data, *ports)
    with terminal.status("Looking for a language model…"):
        model = stack.choose_model(settings, layout.llm_port)
    terminal.print(f"Language model: {model.reason}.", highlight=False)
    environment = stack.write_environment(layout, settings, model)
    stack.index_documents(environment)
    # Asked before the start: asking creates the sample student.
    is_first_run = not Student.exists(data)
    with stack.running(layout, model, environment) as running:
        with terminal.status("Starting…") as progress:
            for name in running.wait_until_ready():
                progress.update(f"Starting… {name} is ready")
        terminal.print(_welcome(layout, time.monotonic() - started))
        _watch(terminal, running)
        if once or is_first_run:
            show_sample(terminal, layout, question or SAMPLE_QUESTION)
        if not once:
            terminal.print("Running. Ctrl-C stops everything.")
            running.supervisord.wait()
            raise stack.StackError(
                f"The process runner ended: {layout.log}/supervisord.log says why."
            )


def _welcome(layout: stack.Layout, seconds: float) -> Panel:
    return Panel(
        f"Swagger UI     [link={layout.api_url}/docs]{layout.api_url}/docs[/link]\n"
        f"Mailbox        [link={layout.mailbox_url}]{layout.mailbox_url}[/link]\n"
        f"Data and logs  {escape(str(layout.data))}",
        title=f"Consulta is ready after {seconds:.1f} s",
        expand=False,
    )


def _watch(terminal: Console, running: stack.Stack) -> None:
    def report() -> None:
        for event in running.events():
            terminal.print(
                f"[yellow]{time.strftime('%H:%M:%S')}[/] {escape(event)}", highlight=False
            )

    threading.Thread(target=report, daemon=True).start()


def show_sample(terminal: Console, layout: stack.Layout, text: str) -> None:
    """Ask ``text`` as the sample student and print the e-mail that arrives.

    Raises:
        AskError: there was no answer, or no e-mail.
    """
    number = ask_and_show(
        terminal, layout.api_url, layout.data, text, ANSWER_SECONDS, show_answer=False
    )
    with terminal.status("Waiting for the e-mail…"):
        message = _wait_for_mail(layout.mailbox_url, number, Student.load(layout.data).email)
    body = message.get_body(preferencelist=("plain",))
    assert body is not None
    head = "\n".join(
        f"[bold]{name}:[/] {escape(str(message[name]))}" for name in ("From", "To", "Subject")
    )
    terminal.print(
        Panel(f"{head}\n\n{escape(body.get_content())}", title="The e-mail that arrived")
    )
    terminal.print(f"It is also at {layout.mailbox_url}, as the student sees it.")


def ask_and_show(
    terminal: Console,
    api_url: str,
    data: Path,
    text: str,
    seconds: float,
    *,
    show_answer: bool = True,
) -> int:
    """Ask ``text`` as the sample student, wait with place and state, and print the answer.

    Returns the question's number.

    Raises:
        AskError: the API is away or refuses, or there is no answer after ``seconds``.
    """
    terminal.print(f"[bold]Question:[/] {escape(text)}")
    with Asking(api_url, Student.load(data)) as asking, terminal.status("Asking…") as spinner:
        asking.log_in()
        number = int(asking.ask(text)["id"])
        question: dict[str, Any] = {}
        for question in asking.follow(number, seconds):
            spinner.update(_progress(question))
    if show_answer:
        terminal.print(_answer_panel(question))
    return number


def _progress(question: dict[str, Any]) -> str:
    state = _STATES.get(question["state"], question["state"]).format(place=question["place"])
    expected = question["expected_seconds"]
    hint = f", about {expected:.0f} s to go" if expected else ""
    return f"Question {question['id']}: {state}{hint}"


def _answer_panel(question: dict[str, Any]) -> Panel:
    answer = question["answer"]
    lines = [escape(answer["text"])]
    for number, source in enumerate(answer["sources"], start=1):
        lines.append(f"[dim]\\[{number}] {escape(_place(source))}[/]")
    return Panel("\n".join(lines), title=f"Answer to question {question['id']}")


def _place(source: dict[str, Any]) -> str:
    if source["page"]:
        return f"{source['file']}, p. {source['page']}"
    if source["slide"]:
        return f"{source['file']}, slide {source['slide']}"
    return " — ".join(part for part in (source["file"], source["heading"]) if part)


def _wait_for_mail(mailbox_url: str, number: int, email: str) -> EmailMessage:
    deadline = time.monotonic() + MAIL_SECONDS
    with httpx.Client(base_url=mailbox_url, timeout=10) as client:
        while time.monotonic() < deadline:
            try:
                for summary in client.get("/messages.json", params={"to": email}).json():
                    raw = client.get(f"/messages/{summary['key']}/raw").content
                    message = message_from_bytes(raw, policy=policy.default)
                    if str(message["Message-ID"]).startswith(f"<question-{number}."):
                        return message
            except (httpx.HTTPError, ValueError):
                pass  # The mailbox is being started again; supervisord sees to that.
            time.sleep(POLL_SECONDS)
    raise AskError(
        f"The answer to question {number} was not mailed within {MAIL_SECONDS:.0f} seconds: "
        "`consulta status` and the mailer's log say why."
    )
