"""Asking in the terminal: the question, its way through the queue, the answer, the e-mail."""

import time
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from consulta.student import POLL_SECONDS, AskError, Asking, Student
from core.settings import Settings, SettingsError, load_settings

ANSWER_SECONDS = 300.0
MAIL_SECONDS = 60.0

_STATES = {
    "waiting": "waiting, place {place}",
    "answering": "a worker is at it",
    "answered": "answered, the e-mail is on its way",
    "sent": "answered and mailed",
}


def show_sample(api_url: str, mailbox_url: str, data: Path, text: str) -> None:
    """Ask ``text`` as the sample student and print the e-mail that arrives.

    Raises:
        AskError: there was no answer, or no e-mail.
    """
    terminal = Console()
    number = ask_and_show(terminal, api_url, data, text, ANSWER_SECONDS, show_answer=False)
    with terminal.status("Waiting for the e-mail…"):
        message = _wait_for_mail(mailbox_url, number, Student.load(data).email)
    body = message.get_body(preferencelist=("plain",))
    assert body is not None
    head = "\n".join(
        f"[bold]{name}:[/] {escape(str(message[name]))}" for name in ("From", "To", "Subject")
    )
    terminal.print(
        Panel(f"{head}\n\n{escape(body.get_content())}", title="The e-mail that arrived")
    )
    terminal.print(f"It is also at {mailbox_url}, as the student sees it.")


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
    settings = _settings(data)
    student = Student.load(data, *settings.allowed_email_domains[:1])
    with Asking(api_url, student) as asking, terminal.status("Asking…") as spinner:
        asking.log_in()
        if settings.require_confirmed_email:
            _vouch(settings, student)
        number = int(asking.ask(text)["id"])
        question: dict[str, Any] = {}
        for question in asking.follow(number, seconds):
            spinner.update(_progress(question))
    if show_answer:
        terminal.print(_answer_panel(question))
    return number


def _settings(data: Path) -> Settings:
    try:
        return load_settings(None, (Path(".env"), data / "consulta.env"))
    except SettingsError as error:
        raise AskError(str(error)) from None


def _vouch(settings: Settings, student: Student) -> None:
    """Confirm the sample student's address: its only mailbox is this machine's own page."""
    from consulta.accounts import AccountError, confirm

    try:
        confirm(settings, student.username)
    except AccountError as error:
        raise AskError(str(error)) from None


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
