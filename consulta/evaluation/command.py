"""``consulta evaluate``, from a file of questions to a table, a report and a picture."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import structlog
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from consulta.evaluation.citations import CourseFiles
from consulta.evaluation.plot import draw
from consulta.evaluation.questions import (
    IndexedPages,
    QuestionFileError,
    against_index,
    read_questions,
)
from consulta.evaluation.records import RecordStore, StoreError
from consulta.evaluation.report import (
    Circumstances,
    breakdown_tables,
    markdown,
    missing_figures,
    terminal_table,
)
from consulta.evaluation.run import PRODUCT, Bench, Plan, SilentModel, measure, sample
from consulta.evaluation.table import TITLES, Measured, rows
from consulta.show_index import IndexUnusableError, up_to_date_index
from core.settings import Settings
from rag_worker.answering import Answerer
from rag_worker.embeddings import embeddings
from rag_worker.generation import Generation
from rag_worker.indexing import IndexingError
from rag_worker.models import LanguageModel, ModelAwayError
from rag_worker.retrieval import Retriever

RESULTS, REPORT, PICTURE = "results.jsonl", "report.md", "report.png"
_MOST_PROBLEMS = 100
_WRONG_FILE, _FAILED, _INTERRUPTED = 2, 1, 130


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was asked for."""

    file: Path
    output: Path
    baseline: bool = False
    retrieval_only: bool = False
    limit: int | None = None
    fresh: bool = False


def evaluate(terminal: Console, errors: Console, settings: Settings, options: Options) -> int:
    """Measure, print the table, write the report; the exit code."""
    done: dict[str, tuple[int, int]] = {}
    try:
        with _quiet_logs():
            _evaluate(terminal, errors, settings, options, done)
    except QuestionFileError as error:
        for problem in error.problems[:_MOST_PROBLEMS]:
            _print(errors, f"[bold red]{escape(str(error.path))}:[/] {escape(problem)}")
        if (more := len(error.problems) - _MOST_PROBLEMS) > 0:
            _print(errors, f"… and {more:,} more.")
        return _WRONG_FILE
    except (IndexUnusableError, IndexingError, StoreError) as error:
        _print(errors, f"[bold red]consulta:[/] {escape(str(error))}")
        return _FAILED
    except ModelAwayError as error:
        _print(
            errors,
            f"[bold red]consulta:[/] {escape(str(error).rstrip('.'))}. Start the service with "
            "`consulta up`, check LLM_MODEL, or measure search and decision alone with "
            f"--retrieval-only.{_kept(done, options)}",
        )
        return _FAILED
    except KeyboardInterrupt:
        _print(errors, f"Stopped.{_kept(done, options)}")
        return _INTERRUPTED
    return 0


def _evaluate(
    terminal: Console,
    errors: Console,
    settings: Settings,
    options: Options,
    done: dict[str, tuple[int, int]],
) -> None:
    questions, warnings = read_questions(options.file)
    generation = up_to_date_index(terminal, settings)
    files = {f.file: IndexedPages(f.pages, f.problem) for f in generation.manifest.files}
    questions, of_index = against_index(options.file, questions, files)
    for warning in (*warnings, *of_index):
        _print(errors, f"[yellow]Note:[/] {escape(warning)}")
    chosen = sample(questions, options.limit) if options.limit else questions
    plan = Plan.of(chosen, with_baselines=options.baseline)
    with RecordStore.opened(options.output / RESULTS, fresh=options.fresh) as store:
        measured = asyncio.run(
            _measure(
                terminal,
                settings,
                generation,
                plan,
                store=store,
                done=done,
                with_model=not options.retrieval_only,
            )
        )
    about = Circumstances(
        file=options.file.name,
        questions=len(chosen),
        in_file=len(questions),
        course=settings.course_name,
        generation=generation.name,
        documents=len(generation.manifest.files),
        passages=len(generation.passages),
        model=None if options.retrieval_only else settings.llm_model,
        embedding_model=settings.embedding_model,
        when=datetime.now(ZoneInfo(settings.course_timezone)),
    )
    _show(terminal, errors, about, measured, options)


async def _measure(
    terminal: Console,
    settings: Settings,
    generation: Generation,
    plan: Plan,
    *,
    store: RecordStore,
    done: dict[str, tuple[int, int]],
    with_model: bool,
) -> dict[str, Measured]:
    model = LanguageModel(settings) if with_model else SilentModel(settings)
    try:
        await model.check()
        # One thread for search: OpenMP keeps a team of threads for each thread that calls it.
        with ThreadPoolExecutor(1) as search_thread, _progress(terminal, plan) as (bars, tasks):
            embedder = embeddings(settings)
            retriever = Retriever(generation, embedder)
            bench = Bench(
                settings=settings,
                generation=generation,
                embedder=embedder,
                answerer=Answerer(settings, retriever, model, search_thread),
                files=CourseFiles(settings),
                model=model,
                search_thread=search_thread,
                with_model=with_model,
            )

            def advance(system: str, count: int, is_new: bool) -> None:
                total = len(plan.questions[system])
                done[system] = count, total
                if not is_new:
                    # Known results must not make the remaining time look short.
                    bars.reset(tasks[system], completed=count, total=total)
                bars.update(tasks[system], completed=count, visible=True)

            return dict(await measure(bench, plan, store, advance))
    finally:
        await model.close()


@contextlib.contextmanager
def _progress(terminal: Console, plan: Plan) -> Iterator[tuple[Progress, dict[str, TaskID]]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]left"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=terminal, transient=True, disable=not terminal.is_terminal
    ) as bars:
        tasks = {
            system: bars.add_task(TITLES[system], total=len(questions), visible=system == PRODUCT)
            for system, questions in plan.questions.items()
        }
        yield bars, tasks


def _show(
    terminal: Console,
    errors: Console,
    about: Circumstances,
    measured: dict[str, Measured],
    options: Options,
) -> None:
    table = rows(measured, with_model=not options.retrieval_only, asked=about.questions)
    terminal.print(terminal_table(table, terminal.width))
    for part in breakdown_tables(measured[PRODUCT]):
        terminal.print(part)
    for sentence in missing_figures(table):
        _print(terminal, f"[dim]{escape(sentence)}[/]")
    picture: str | None = PICTURE
    try:
        draw(options.output / PICTURE, f"{about.course}: {about.questions:,} questions", measured)
    except ImportError:
        picture = None
        _print(errors, r"[yellow]Note:[/] without a picture: pip install 'consulta\[evaluate]'.")
    except OSError as error:
        raise _unwritable(options.output / PICTURE, error) from None
    text = markdown(about, table, measured, picture)
    try:
        (options.output / REPORT).write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(options.output / REPORT, error) from None
    _print(terminal, f"Report: {escape(str(options.output / REPORT))}")


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path} cannot be written ({error.strerror}): choose another --output.")


def _kept(done: dict[str, tuple[int, int]], options: Options) -> str:
    """What an interrupted run has, and how to go on."""
    if not done:
        return ""
    counts = ", ".join(f"{TITLES[name]} {at} of {total}" for name, (at, total) in done.items())
    return (
        f" Measured so far: {counts}. The results are kept in {escape(str(options.output))}: the "
        "same command goes on from there, without --fresh."
    )


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Without the worker's log lines, which would run through the table."""
    before = structlog.get_config()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
