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


def show_index(terminal: Console, settings: Settings) -> int:
    """Index and print what was found in each file. Returns the exit code: 1 when it cannot be."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[file]}"),
    )
    with Progress(*columns, console=terminal, transient=True) as bars:
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

        try:
            report = indexing.index_documents(settings, show)
        except indexing.IndexingError as error:
            terminal.print(f"[bold red]consulta:[/] {escape(str(error))}", highlight=False)
            return 1
    if report.changed or any(file.problem for file in report.files) or terminal.is_terminal:
        terminal.print(_table(report))
    if not report.files:
        terminal.print(
            f"[yellow]There are no documents in {settings.document_location}:[/] put the course's "
            "files there, or name another folder with DOCUMENT_LOCATION.",
            highlight=False,
        )
    else:
        terminal.print(
            f"{len(report.files)} files, {report.passages} passages: {report.embedded} embedded "
            f"now, {report.reused} as before.",
            highlight=False,
        )
    return 0


def _table(report: indexing.IndexReport) -> Table:
    table = Table("file", "pages", "passages", "problem")
    for file in report.files:
        table.add_row(
            escape(file.file),
            str(file.pages) if file.pages else "",
            str(file.passages),
            f"[red]{escape(file.problem)}" if file.problem else "",
        )
    return table
