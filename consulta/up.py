"""``consulta up``: start the stack, show that it works, and keep watch."""

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from consulta import stack

SAMPLE_QUESTION = "¿Cuándo es el primer parcial y en qué aula?"
T = TypeVar("T")


def run_up(
    *, data: Path, api_port: int, mailbox_port: int, once: bool, question: str | None
) -> int:
    """Start the stack and run it until Ctrl-C, or with ``once`` until the sample e-mail is there.

    Returns the exit code: 0, or 1 with the reason printed.
    """
    terminal = Console()
    # SIGINT too: a script's shell has its background processes ignore it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        with stack.exclusive(data):
            layout = stack.plan_layout(data, api_port, mailbox_port)
            _run(terminal, layout, question or SAMPLE_QUESTION, once=once)
    except stack.StackError as error:
        terminal.print(
            f"[bold red]consulta:[/] {escape(str(error))}", highlight=False, soft_wrap=True
        )
        return 1
    except KeyboardInterrupt:
        terminal.print("Stopped. The data is kept for the next start.")
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(terminal: Console, layout: stack.Layout, question: str, *, once: bool) -> None:
    started = time.monotonic()
    with terminal.status("Looking for a language model…"):
        model, environment, metrics_ports = _apart(_prepare, layout)
    terminal.print(f"Language model: {model.reason}.", highlight=False)
    stack.index_documents(environment)
    with stack.running(layout, model, environment, metrics_ports) as running:
        with terminal.status("Starting…") as progress:
            for name in running.wait_until_ready():
                progress.update(f"Starting… {name} is ready")
        terminal.print(_welcome(layout, metrics_ports, time.monotonic() - started))
        threading.Thread(target=_report, args=(terminal, running), daemon=True).start()
        welcomed = layout.data / "welcomed"
        if once or not welcomed.exists():
            _apart(_show_sample, layout, question)
            welcomed.touch()
        if not once:
            terminal.print("Running. Ctrl-C stops everything.")
            running.supervisord.wait()
            raise stack.StackError(
                f"The process runner ended: {layout.log}/supervisord.log says why."
            )


def _prepare(layout: stack.Layout) -> tuple[stack.Model, dict[str, str], dict[str, int]]:
    from core.settings import SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as error:
        raise stack.StackError(str(error)) from None
    model = stack.choose_model(settings, layout.llm_port)
    environment = stack.write_environment(layout, settings, model)
    return model, environment, stack.choose_metrics_ports(settings)


def _show_sample(layout: stack.Layout, question: str) -> None:
    from consulta.asking import show_sample
    from consulta.student import AskError

    try:
        show_sample(layout.api_url, layout.mailbox_url, layout.data, question)
    except AskError as error:
        raise stack.StackError(str(error)) from None


def _apart(function: Callable[..., T], *arguments: Any) -> T:
    """The function's result, from a process of its own.

    This process stays for as long as the service runs; what it imports once it keeps in memory.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=_send_result, args=(sender, function, *arguments)
    )
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        raise stack.StackError("A part of the start ended without a word; try again.") from None
    finally:
        process.terminate()
        process.join()
    if isinstance(result, stack.StackError):
        raise result
    return result  # type: ignore[no-any-return]


def _send_result(sender: Any, function: Callable[..., Any], *arguments: Any) -> None:
    # Ctrl-C is for the parent, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sender.send(function(*arguments))
    except stack.StackError as error:
        sender.send(error)


def _welcome(layout: stack.Layout, metrics_ports: dict[str, int], seconds: float) -> Panel:
    ports = [f"{port} ({name})" for name, port in metrics_ports.items() if port]
    metrics = f"127.0.0.1, /metrics on the ports {', '.join(ports)}" if ports else "none"
    return Panel(
        f"Swagger UI     [link={layout.api_url}/docs]{layout.api_url}/docs[/link]\n"
        f"Mailbox        [link={layout.mailbox_url}]{layout.mailbox_url}[/link]\n"
        f"Metrics        {metrics}\n"
        f"Data and logs  {escape(str(layout.data))}",
        title=f"Consulta is ready after {seconds:.1f} s",
        expand=False,
    )


def _report(terminal: Console, running: stack.Stack) -> None:
    for event in running.events():
        terminal.print(f"[yellow]{time.strftime('%H:%M:%S')}[/] {escape(event)}", highlight=False)
