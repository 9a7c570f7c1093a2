"""``consulta index``: read the documents now, with a progress bar and a table."""

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from core.settings import Settings
from rag_worker import indexing
from rag_worker.generation import (
    FORMAT,
    CorruptIndexError,
    Generation,
    current_name,
    open_generation,
    read_manifest,
)


class IndexUnusableError(Exception):
    """There is no index to work with; the message is a sentence or two that say what to do."""


_STAGES = {
    "reading": "Reading the documents",
    "embedding": "Embedding new passages",
    "calibrating": "Calibrating for this embedding model",
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


def up_to_date_index(terminal: Console, settings: Settings) -> Generation:
    """The published index, brought up to date before if the course folder has changed.

    Raises:
        IndexUnusableError: there is none and nothing to make it from.
        rag_worker.indexing.IndexingError: it cannot be made.
    """
    if settings.document_location is not None and not _is_current(settings):
        show_index(terminal, settings)
    name = current_name(settings.index_location)
    if name is None:
        raise IndexUnusableError(
            f"There is no index in {settings.index_location}: start the service with `consulta "
            "up`, or set DOCUMENT_LOCATION to the folder with the course documents."
        )
    try:
        generation = open_generation(settings.index_location, name)
    except CorruptIndexError as error:
        raise IndexUnusableError(
            f"The index cannot be read ({error}): `consulta index` makes it again."
        ) from None
    if not generation.passages:
        raise IndexUnusableError("The index is empty: put documents into the course folder.")
    model = generation.manifest.settings.get("embedding_model")
    if model != settings.embedding_model:
        raise IndexUnusableError(
            f"The index was made with EMBEDDING_MODEL={model}, and the setting is "
            f"{settings.embedding_model}: `consulta index` makes it again."
        )
    return generation


def _is_current(settings: Settings) -> bool:
    assert settings.document_location is not None
    name = current_name(settings.index_location)
    if name is None:
        return False
    try:
        manifest = read_manifest(settings.index_location, name)
    except CorruptIndexError:
        return False
    return (
        manifest.format == FORMAT
        and manifest.settings == indexing.content_settings(settings)
        and indexing.manifest_snapshot(manifest)
        == indexing.take_snapshot(settings.document_location.resolve())
    )
