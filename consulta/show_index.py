"""``consulta index``: read the documents now, with a progress bar and a table."""

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from core.settings import Settings
from rag_worker import indexing

_STAGES = {
    "reading": "Reading the documents",
    "embedding": "Embedding new passages",
    "storing": "Writing the index",
}


def show_index(terminal: Console, settings: Settings) -> None:
    """Index and print what was found in each file.

    Raises:
        rag_worker.indexing.IndexingError: the folder of the course or of the index cannot be used.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[file]}"),
    )
    with Progress(
        *columns, console=terminal, transient=True, disable=not terminal.is_terminal
    ) as bars:
        tasks = {
            stage: bars.add_task(text, visible=False, file="") for stage, text in _STAGES.items()
        }

        def show(progress: indexing.Progress) -> None:
            bars.update(
                tasks[progress.stage],
                visible=True,
                completed=progress.done,
                total=progress.total,
                file=escape(progress.file or ""),
            )

        report = indexing.index_documents(settings, show)
    if not report.files:
        terminal.print(
            f"[yellow]There are no documents in {escape(str(settings.document_location))}:[/] put "
            "the course's files there, or name another folder with DOCUMENT_LOCATION.",
            highlight=False,
            soft_wrap=True,
        )
        return
    if report.changed or any(file.problem for file in report.files) or terminal.is_terminal:
        terminal.print(_table(report))
    terminal.print(
        f"Files: {len(report.files)}. Passages: {report.passages}, of which {report.embedded} "
        f"embedded now and {report.reused} as before.",
        highlight=False,
    )


def _table(report: indexing.IndexReport) -> Table:
    table = Table()
    table.add_column("file", overflow="fold")
    table.add_column("pages", justify="right")
    table.add_column("passages", justify="right")
    table.add_column("problem")
    for file in report.files:
        table.add_row(
            escape(file.file),
            str(file.pages) if file.pages else "",
            str(file.passages),
            f"[red]{escape(file.problem)}" if file.problem else "",
        )
    return table
