"""Measures systems on questions, one after another, and keeps every result."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from zoneinfo import ZoneInfo

import consulta.evaluation
import rag_worker
from consulta.evaluation import baselines
from consulta.evaluation.baselines import Embedder
from consulta.evaluation.citations import CourseFiles
from consulta.evaluation.gold import Found, all_found, cites_gold, ranks, resolves
from consulta.evaluation.gold import without_citations as plain
from consulta.evaluation.metrics import f1, gold_in_answer
from consulta.evaluation.questions import EvaluationQuestion
from consulta.evaluation.records import (
    Citation,
    Record,
    RecordStore,
    answering_settings,
    fingerprint,
    program_hash,
)
from core.clock import system_clock
from core.questions import Answer, Outcome, Source
from core.settings import Settings
from rag_worker.answering import Answerer
from rag_worker.dates import asks_for_next
from rag_worker.generation import Generation
from rag_worker.language import question_language
from rag_worker.models import (
    Completion,
    LanguageModel,
    ModelAwayError,
    ModelFailedError,
    PromptTruncatedError,
)
from rag_worker.passages import Passage
from rag_worker.prompt import PromptTooLongError, build_prompt
from rag_worker.relevance import Thresholds
from rag_worker.support import is_abstention

PRODUCT, BM25, DENSE, NAIVE = "consulta", "bm25", "dense", "naive"
BASELINES = (BM25, DENSE, NAIVE)
DEPTH = 10
"""How far down the ranking a gold text is looked for."""
READ_BY_BASELINES = 2
"""Passages that the model reads for a baseline."""
NAIVE_SAMPLE = 20
"""The naive design embeds everything anew for each question: a few have to do."""
_SEED = 0
_T = TypeVar("_T")

SENT = (Outcome.ANSWERED, Outcome.QUOTED)


class SilentModel(LanguageModel):
    """Stands where no model is wanted: it writes nothing, so that passages are quoted."""

    async def check(self) -> None:
        """Never away."""

    async def context(self) -> int:
        """LLM_CONTEXT: what the model is shown is planned as for any."""
        return self._settings.llm_context

    async def count_tokens(self, text: str) -> int:
        """At least as many tokens as ``text`` has."""
        return self.estimate_tokens(text)

    async def write(self, prompt: str) -> Completion:
        """Nothing."""
        return Completion("", is_cut=False)


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured: one generation of the index, and a model or none."""

    settings: Settings
    generation: Generation
    embedder: Embedder
    answerer: Answerer
    files: CourseFiles
    model: LanguageModel
    search_thread: Executor
    with_model: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The questions of each system."""

    questions: dict[str, list[EvaluationQuestion]]

    @classmethod
    def of(cls, questions: Sequence[EvaluationQuestion], *, with_baselines: bool) -> "Plan":
        """Every question for every system; for the naive design a sample."""
        planned = {PRODUCT: list(questions)}
        if with_baselines:
            planned |= {BM25: list(questions), DENSE: list(questions)}
            planned[NAIVE] = sample(questions, NAIVE_SAMPLE)
        return cls(planned)


def _day(bench: Bench, question: EvaluationQuestion) -> str | None:
    """The day that the answer holds for; None where it does not depend on it."""
    if not asks_for_next(question.question):
        return None
    return f"{system_clock().astimezone(ZoneInfo(bench.settings.course_timezone)):%Y-%m-%d}"


def sample(questions: Sequence[EvaluationQuestion], most: int) -> list[EvaluationQuestion]:
    """At most so many questions, at random but always the same ones, in the file's order."""
    if len(questions) <= most:
        return list(questions)
    chosen = random.Random(_SEED).sample(range(len(questions)), most)  # noqa: S311  # nosec B311  # a sample
    return [questions[at] for at in sorted(chosen)]


async def measure(
    bench: Bench, plan: Plan, store: RecordStore, advance: Callable[[str, int, bool], None]
) -> dict[str, list[tuple[EvaluationQuestion, Record]]]:
    """Every system's records, in the order of its questions; known ones are taken from the store.

    Args:
        advance: called with the system, how many of its questions are done, and whether the last
            was measured now.

    Raises:
        ModelAwayError: the model's server does not answer; the store has what was measured before.
        StoreError: a result cannot be kept.
    """
    context = _context(bench)
    measured: dict[str, list[tuple[EvaluationQuestion, Record]]] = {}
    for system, questions in plan.questions.items():
        results = measured[system] = []
        for question in questions:
            key = fingerprint(context, system, question.content_hash, _day(bench, question))
            record = store.get(key)
            is_new = record is None
            if record is None:
                record = replace(await _measure(bench, system, question), key=key)
                store.append(record)
            results.append((question, record))
            advance(system, len(results), is_new)
    return measured


def _context(bench: Bench) -> list[object]:
    """What a result depends on besides the question."""
    folders = [Path(package.__file__ or "").parent for package in (rag_worker, consulta.evaluation)]
    return [
        bench.generation.name,
        bench.with_model,
        answering_settings(bench.settings),
        asdict(Thresholds.of_index(bench.settings.index_location)),
        program_hash(*folders),
    ]


async def _measure(bench: Bench, system: str, question: EvaluationQuestion) -> Record:
    record = Record(key="", system=system, id=question.id)
    try:
        if system == PRODUCT:
            return await _product(bench, question, record)
        return await _baseline(bench, system, question, record)
    except ModelAwayError:
        raise
    except Exception as error:
        # One question's fault; the others are measured.
        return replace(record, error=_reason(bench, error))


def _reason(bench: Bench, error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"the model took more than {bench.settings.llm_timeout:g} s (LLM_TIMEOUT)"
    return f"{type(error).__name__}: {error}"[:500]


async def _product(bench: Bench, question: EvaluationQuestion, record: Record) -> Record:
    explained = await bench.answerer.explain(question.question)
    answer = explained.answer
    found = baselines.as_found([hit.passage for hit in explained.hits[:DEPTH]])
    shown = baselines.as_found(explained.shown)
    record = replace(
        record,
        ranks=tuple(ranks(question, found)) if question.has_gold else None,
        all_found=all_found(question, shown) if question.has_gold and shown else None,
        evidence=explained.evidence,
        search_seconds=explained.search_seconds,
    )
    if explained.fault:
        # What was found stands.
        return replace(record, error=explained.fault)
    record = replace(record, outcome=str(answer.outcome), uncertain=answer.uncertain)
    if not bench.with_model:
        return record
    return replace(
        _read(record, question, answer.text),
        citations=await asyncio.to_thread(_citations, bench.files, answer, question),
        sources=tuple(_named(source) for source in answer.sources),
        written=explained.written,
        supported=explained.supported,
        prompt_tokens=explained.prompt_tokens,
        completion_tokens=explained.completion_tokens,
        model_seconds=explained.model_seconds,
    )


async def _baseline(
    bench: Bench, system: str, question: EvaluationQuestion, record: Record
) -> Record:
    text = " ".join(question.question.split())
    began = time.perf_counter()
    if system == NAIVE:
        found = await _naive(bench, text)
        record = replace(record, search_seconds=time.perf_counter() - began)
        return _ranked(record, question, found, read=baselines.PIECES_TAKEN)
    passages = await _in_search_thread(bench, _search_leg, bench, system, text)
    record = replace(record, search_seconds=time.perf_counter() - began)
    found = baselines.as_found(passages)
    record = _ranked(record, question, found, read=READ_BY_BASELINES)
    return await _ask(bench, question, passages[:READ_BY_BASELINES], record)


async def _naive(bench: Bench, text: str) -> list[Found]:
    """Everything cut and embedded anew, one piece after another so that Ctrl-C need not wait."""
    found = baselines.pieces(bench.generation.passages)
    vectors = [
        (await _in_search_thread(bench, bench.embedder.embed_documents, [piece.text]))[0]
        for piece in found
    ]
    query = await _in_search_thread(bench, bench.embedder.embed_query, text)
    return baselines.nearest(found, vectors, query)


async def _in_search_thread(bench: Bench, call: Callable[..., _T], *arguments: object) -> _T:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(bench.search_thread, call, *arguments)


def _search_leg(bench: Bench, system: str, text: str) -> list[Passage]:
    if system == BM25:
        return baselines.bm25(bench.generation, text, DEPTH)
    return baselines.dense(bench.generation, bench.embedder, text, DEPTH)


async def _ask(
    bench: Bench, question: EvaluationQuestion, passages: Sequence[Passage], record: Record
) -> Record:
    """The same model on the baseline's passages, with nothing before or after it."""
    if not bench.with_model:
        return record
    settings = bench.settings
    language = question_language(question.question, settings.course_language)
    try:
        prompt = build_prompt(
            question.question,
            passages,
            language,
            today=datetime.now(ZoneInfo(settings.course_timezone)).date(),
            context=await bench.model.context(),
            max_tokens=settings.llm_max_tokens,
            count=bench.model.estimate_tokens,
        )
    except PromptTooLongError as error:
        return replace(record, error=str(error))
    try:
        completion = await bench.model.write(prompt)
    except (TimeoutError, ModelFailedError, PromptTruncatedError) as error:
        return replace(record, error=_reason(bench, error))
    record = replace(
        record,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        model_seconds=completion.seconds,
    )
    refused = is_abstention(completion.text)
    outcome = Outcome.NOT_COVERED if refused else Outcome.ANSWERED
    return _read(replace(record, outcome=str(outcome)), question, completion.text)


def _ranked(
    record: Record, question: EvaluationQuestion, found: Sequence[Found], *, read: int
) -> Record:
    """With the ranks of the gold text, and whether the first ``read`` texts hold all of it."""
    if not question.has_gold:
        return record
    return replace(
        record,
        ranks=tuple(ranks(question, found)),
        all_found=all_found(question, found[:read]),
    )


def _read(record: Record, question: EvaluationQuestion, text: str) -> Record:
    record = replace(record, answer=text)
    if not question.answers:
        return record
    if record.outcome not in SENT:
        return replace(record, gold_in_answer=False)
    words = plain(text)
    return replace(
        record,
        f1=f1(words, question.answers) if record.outcome == Outcome.ANSWERED else None,
        gold_in_answer=gold_in_answer(words, question.answers),
    )


def _citations(
    files: CourseFiles, answer: Answer, question: EvaluationQuestion
) -> tuple[Citation, ...]:
    if answer.outcome not in SENT:
        return ()
    return tuple(_citation(files, source, question) for source in answer.sources)


def _citation(files: CourseFiles, source: Source, question: EvaluationQuestion) -> Citation:
    page = source.page if source.page is not None else source.slide
    resolved = resolves(source.quotation, files.texts(source.file, page))
    is_gold = cites_gold((source.file, page), question) if question.document is not None else None
    return Citation(resolved, is_gold)


def _named(source: Source) -> str:
    page = source.page if source.page is not None else source.slide
    return source.file if page is None else f"{source.file}, {page}"
