"""Records to the rows of the table."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from consulta.evaluation import metrics
from consulta.evaluation.questions import EvaluationQuestion
from consulta.evaluation.records import Record
from consulta.evaluation.run import BM25, DENSE, NAIVE, PRODUCT, SENT

Measured = Sequence[tuple[EvaluationQuestion, Record]]

TITLES = {PRODUCT: "Consulta", BM25: "BM25 alone", DENSE: "vectors alone", NAIVE: "naive design"}
CUTS = (1, 2, 5)
NEEDS_MODEL = "it needs a language model, and was measured without (--retrieval-only)"
NOT_OF_BASELINE = "the baseline has no such thing"
_LEAST_KINDS = 2


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as it is shown, or why there is none.

    Attributes:
        text: the figure; empty where there is none.
        count: questions, citations or sentences that it is over.
        interval: 95 % range of a share.
        missing: why there is none.
    """

    text: str = ""
    count: int = 0
    interval: tuple[float, float] | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: a figure for each system."""

    section: str
    name: str
    cells: dict[str, Cell]


def rows(measured: Mapping[str, Measured], *, with_model: bool, asked: int) -> list[Row]:
    """The whole table; ``asked`` is the number of questions, for what is extrapolated to all."""
    return [
        Row(
            section,
            figure.name,
            {
                system: _cell(system, figure, results, with_model=with_model)
                for system, results in measured.items()
            },
        )
        for section, figures in _figures(asked).items()
        for figure in figures
    ]


def breakdown(measured: Measured, label: str) -> list[tuple[str, dict[str, Cell]]]:
    """The main figures for each value of ``kind`` or ``language``; none unless there are several.

    Questions without the label are a group of their own.
    """
    groups: dict[str, list[tuple[EvaluationQuestion, Record]]] = {}
    for question, record in measured:
        groups.setdefault(getattr(question, label) or "not given", []).append((question, record))
    if len(groups) < _LEAST_KINDS:
        return []
    return [
        (
            name,
            {"asked": Cell(str(len(results)), len(results))}
            | {title: figure(results) for title, figure in _MAIN.items()},
        )
        for name, results in groups.items()
    ]


def is_refused(record: Record) -> bool:
    """Whether the student is told that the documents do not say it, or how to ask."""
    return record.error is None and record.outcome not in SENT


def false_refusals(measured: Measured) -> Cell:
    """The share of answerable questions that are refused."""
    judged = [r for q, r in measured if q.answerable and r.outcome]
    if not judged:
        return Cell(missing="no question of the file is answerable")
    return share([is_refused(record) for record in judged])


def false_answers(measured: Measured, *, certain: bool = False) -> Cell:
    """The share of unanswerable questions that get an answer; ``certain``: an unmarked one."""
    judged = [r for q, r in measured if not q.answerable and r.outcome]
    if not judged:
        return Cell(missing="no question of the file has `answerable` false")
    return share([not is_refused(r) and not (certain and r.uncertain) for r in judged])


def evidence_of(measured: Measured) -> tuple[list[float], list[float]]:
    """The evidence of the answerable questions and of the others."""
    known = [(q.answerable, r.evidence) for q, r in measured if r.evidence is not None]
    answerable = [value for is_answerable, value in known if is_answerable]
    return answerable, [value for is_answerable, value in known if not is_answerable]


def seconds_of(measured: Measured) -> list[float]:
    """Search and model together, a question each."""
    return [
        (record.search_seconds or 0.0) + (record.model_seconds or 0.0)
        for _, record in measured
        if record.search_seconds is not None and record.error is None
    ]


def share(values: Sequence[float]) -> Cell:
    """Their mean in per cent with its range."""
    if not values:
        return Cell(missing="nothing to count")
    mean = metrics.mean(values)
    return Cell(f"{100 * mean:.1f} %", len(values), metrics.interval(mean, len(values)))


def recall_at(k: int) -> Callable[[Measured], Cell]:
    """The share of what is wanted that is among the first ``k``."""
    return lambda measured: _of_ranks(
        measured, lambda ranks: share([metrics.recall(ranked, k) for ranked in ranks])
    )


def _of_ranks(measured: Measured, figure: Callable[[list[tuple[int | None, ...]]], Cell]) -> Cell:
    ranks = [
        # A question that failed has found nothing.
        record.ranks or (None,) * max(1, len(question.evidence))
        for question, record in measured
        if record.ranks is not None or (record.error and question.has_gold)
    ]
    if not ranks:
        return Cell(missing="no `document`, `answer` or `evidence` in the file")
    return figure(ranks)


def _reciprocal_rank(measured: Measured) -> Cell:
    def figure(ranks: list[tuple[int | None, ...]]) -> Cell:
        value = metrics.mean([metrics.reciprocal_rank(ranked) for ranked in ranks])
        return Cell(f"{value:.3f}", len(ranks))

    return _of_ranks(measured, figure)


def _all_shown(measured: Measured) -> Cell:
    if not any(question.has_gold for question, _ in measured):
        return Cell(missing="no `document`, `answer` or `evidence` in the file")
    shown = [record.all_found for _, record in measured if record.all_found is not None]
    return share(shown) if shown else Cell(missing="the model was shown nothing")


def _area(measured: Measured) -> Cell:
    answerable, others = evidence_of(measured)
    if not answerable or not others:
        return Cell(missing="it needs questions with `answerable` true and false")
    area = metrics.area_under_curve(answerable, others)
    return Cell(f"{area:.3f}", len(answerable) + len(others))


def _gold_in_answer(measured: Measured) -> Cell:
    judged = [r.gold_in_answer for _, r in measured if r.gold_in_answer is not None]
    return share(judged) if judged else Cell(missing="no `answer` in the file")


def _f1(measured: Measured) -> Cell:
    if not any(question.answers for question, _ in measured):
        return Cell(missing="no `answer` in the file")
    values = [record.f1 for _, record in measured if record.f1 is not None]
    if not values:
        return Cell(missing="the model wrote no answer that was sent")
    return Cell(f"{100 * metrics.mean(values):.1f}", len(values))


def _supported(measured: Measured) -> Cell:
    written = sum(record.written or 0 for _, record in measured)
    if not written:
        return Cell(missing="the model wrote nothing that is checked")
    supported = sum(record.supported or 0 for _, record in measured)
    return Cell(f"{100 * supported / written:.1f} %", written)


def _resolving(measured: Measured) -> Cell:
    citations = [citation.resolves for _, record in measured for citation in record.citations]
    return share(citations) if citations else Cell(missing="nothing was cited")


def _cited_gold(measured: Measured) -> Cell:
    if not any(question.document for question, _ in measured):
        return Cell(missing="no `document` in the file")
    hits = [c.is_gold for _, record in measured for c in record.citations if c.is_gold is not None]
    return share(hits) if hits else Cell(missing="nothing was cited")


def _answers_on_gold(measured: Measured) -> Cell:
    if not any(question.document for question, _ in measured):
        return Cell(missing="no `document` in the file")
    answers = [
        any(citation.is_gold for citation in record.citations)
        for question, record in measured
        if question.document and record.citations
    ]
    return share(answers) if answers else Cell(missing="nothing was cited")


def _outcome(outcome: str) -> Callable[[Measured], Cell]:
    def count(measured: Measured) -> Cell:
        outcomes = Counter("failed" if record.error else record.outcome for _, record in measured)
        return Cell(str(outcomes[outcome]), len(measured))

    return count


def _uncertain(measured: Measured) -> Cell:
    sent = [record for _, record in measured if record.outcome in SENT]
    return Cell(str(sum(record.uncertain for record in sent)), len(sent))


def _spread(values: Sequence[float], form: str, missing: str) -> Cell:
    if not values:
        return Cell(missing=missing)
    median, high = metrics.median(values), metrics.quantile(values, 0.95)
    return Cell(f"{median:{form}} / {high:{form}}", len(values))


def _tokens(name: str) -> Callable[[Measured], Cell]:
    def spread(measured: Measured) -> Cell:
        counted = [getattr(record, name) for _, record in measured]
        known = [count for count in counted if count is not None]
        return _spread(known, ",.0f", "the model was not asked, or its server does not count")

    return spread


def _search_seconds(measured: Measured) -> Cell:
    known = [r.search_seconds for _, r in measured if r.search_seconds is not None]
    return _spread(known, ".3f", "nothing was searched")


def _seconds(measured: Measured) -> Cell:
    return _spread(seconds_of(measured), ".2f", "every question failed")


def _total_seconds(asked: int) -> Callable[[Measured], Cell]:
    def total(measured: Measured) -> Cell:
        values = seconds_of(measured)
        if not values:
            return Cell(missing="every question failed")
        if len(measured) == asked:
            return Cell(f"{sum(values):,.1f}", len(values))
        return Cell(f"≈ {metrics.mean(values) * asked:,.0f} (from {len(values)})", len(values))

    return total


_MAIN: dict[str, Callable[[Measured], Cell]] = {
    "first": recall_at(1),
    "first 5": recall_at(5),
    "shown": _all_shown,
    "refused wrongly": false_refusals,
    "answered wrongly": false_answers,
    "in answer": _gold_in_answer,
}


@dataclass(frozen=True, slots=True)
class _Figure:
    """A row before it is filled: the systems that have it, and whether a model has to be asked."""

    name: str
    of: Callable[[Measured], Cell]
    systems: tuple[str, ...] = (PRODUCT,)
    of_model: bool = False


_EVERY = (PRODUCT, BM25, DENSE, NAIVE)
_ALL_BUT_NAIVE = (PRODUCT, BM25, DENSE)
_FALSE_REFUSALS = "false refusals (answerable, refused)"
_FALSE_ANSWERS = "false answers (unanswerable, answered)"
_NOT_COVERED = "not in the documents"
_DECISIONS = (_FALSE_REFUSALS, _FALSE_ANSWERS, _NOT_COVERED)


def _figures(asked: int) -> dict[str, list[_Figure]]:
    def certain(measured: Measured) -> Cell:
        return false_answers(measured, certain=True)

    return {
        "Search": [
            _Figure("gold passage is the first", recall_at(1), _EVERY),
            _Figure("gold passage among the first 2", recall_at(2), _EVERY),
            _Figure("gold passage among the first 5", recall_at(5), _ALL_BUT_NAIVE),
            _Figure("mean reciprocal rank", _reciprocal_rank, _ALL_BUT_NAIVE),
            _Figure("all gold passages in what the model is shown", _all_shown, _EVERY),
        ],
        "Decision to answer": [
            _Figure(_FALSE_REFUSALS, false_refusals, _ALL_BUT_NAIVE),
            _Figure(_FALSE_ANSWERS, false_answers, _ALL_BUT_NAIVE),
            _Figure("… not even marked as uncertain", certain),
            _Figure("area under the curve of the evidence", _area),
        ],
        "Answers": [
            _Figure(
                "gold answer stands in what is sent", _gold_in_answer, _ALL_BUT_NAIVE, of_model=True
            ),
            _Figure("F1 of what the model wrote, 0 to 100", _f1, _ALL_BUT_NAIVE, of_model=True),
            _Figure("sentences of the model that passed the check", _supported, of_model=True),
        ],
        "Citations": [
            _Figure("resolve: literally on the page they name", _resolving, of_model=True),
            _Figure("name the gold document and page", _cited_gold, of_model=True),
            _Figure("answers with at least one that does", _answers_on_gold, of_model=True),
        ],
        "Outcomes": [
            _Figure("answered", _outcome("answered"), _ALL_BUT_NAIVE, of_model=True),
            _Figure("passages quoted", _outcome("quoted"), of_model=True),
            _Figure("… of both, marked as uncertain", _uncertain),
            _Figure(_NOT_COVERED, _outcome("not_covered"), _ALL_BUT_NAIVE),
            _Figure("not a question", _outcome("no_question")),
            _Figure("failed", _outcome("failed"), _EVERY),
        ],
        "Cost for a question, median / 95th percentile": [
            _Figure("tokens read", _tokens("prompt_tokens"), _ALL_BUT_NAIVE, of_model=True),
            _Figure("tokens written", _tokens("completion_tokens"), _ALL_BUT_NAIVE, of_model=True),
            _Figure("seconds of search", _search_seconds, _EVERY),
            _Figure("seconds in all", _seconds, _ALL_BUT_NAIVE, of_model=True),
            _Figure("seconds for all questions", _total_seconds(asked), _EVERY),
        ],
    }


def _cell(system: str, figure: _Figure, measured: Measured, *, with_model: bool) -> Cell:
    if system not in figure.systems:
        return Cell(missing=NOT_OF_BASELINE)
    # The product decides by its evidence; a baseline leaves the decision to the model.
    asks = figure.of_model or (system != PRODUCT and figure.name in _DECISIONS)
    if asks and not with_model:
        return Cell(missing=NEEDS_MODEL)
    return figure.of(measured)
