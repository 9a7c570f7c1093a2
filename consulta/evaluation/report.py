"""The table in the terminal, and the report in Markdown."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from consulta.evaluation.questions import EvaluationQuestion
from consulta.evaluation.records import Record
from consulta.evaluation.run import DEPTH, NAIVE, PRODUCT, SENT
from consulta.evaluation.table import TITLES, Cell, Measured, Row, breakdown, is_refused

_MOST_CASES = 20
_LONGEST_EXCERPT = 300
_NAME_WIDTH = 20
_WIDE = 110
"""Columns of a terminal that has room for everything."""
_LABELS = {"kind": "By kind", "language": "By language"}
_NO_FIGURE = "–"
_MEANINGS = f"""\
- A passage is gold when it is from the question's document and page and contains the evidence, or
  else an answer, as far as the file says them; of several pieces of evidence the share found
  counts. Gold is looked for among the first {DEPTH}.
- What the model is shown is, where it is not asked, what it would be shown.
- False refusals and false answers go by the present threshold. The area under the curve is the
  chance that an answerable question has more evidence than an unanswerable one: it does not depend
  on the threshold; 1 is perfect and 0.5 is chance.
- Range: where the true figure lies, in 95 of 100 such samples of questions (Wilson)."""
_FIRST = 5
"""A passage below this rank is seldom shown to a model."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What was measured, for the head of the report."""

    file: str
    questions: int
    in_file: int
    course: str
    generation: str
    documents: int
    passages: int
    model: str | None
    embedding_model: str
    when: datetime


def terminal_table(rows: Sequence[Row], width: int) -> Table:
    """The table for a terminal of so many columns: what has a figure, and ranges where they fit."""
    systems = list(rows[0].cells)
    with_range = len(systems) == 1 or width >= _WIDE
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", overflow="fold", min_width=_NAME_WIDTH)
    table.add_column("over", justify="right")
    for system in systems:
        table.add_column(_title(system, rows), justify="right", max_width=width // 7)
        if system == PRODUCT and with_range:
            table.add_column("95 % range", justify="right", style="dim")
    measured = [row for row in rows if not all(cell.missing for cell in row.cells.values())]
    for section, of_section in groupby(measured, key=lambda row: row.section):
        table.add_section()
        table.add_row(f"[bold]{section}[/]")
        for row in of_section:
            own = row.cells[PRODUCT]
            figures = [_NO_FIGURE if cell.missing else cell.text for cell in row.cells.values()]
            table.add_row(
                f"  {row.name}",
                "" if own.missing else f"{own.count:,}",
                figures[0],
                *([_range(own)] if with_range else []),
                *figures[1:],
            )
    return table


def missing_figures(rows: Sequence[Row]) -> list[str]:
    """Why figures of the product are not there, a sentence for each reason."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if reason := row.cells[PRODUCT].missing:
            reasons.setdefault(reason, []).append(row.name)
    return [f"No figure: {reason}. ({'; '.join(names)})" for reason, names in reasons.items()]


def breakdown_tables(measured: Measured) -> list[Table]:
    """A table for each label that has several values."""
    tables = []
    for label, title in _LABELS.items():
        groups = breakdown(measured, label)
        if groups:
            table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
            table.add_column(label)
            for name in groups[0][1]:
                table.add_column(name, justify="right")
            for name, cells in groups:
                figures = (_NO_FIGURE if c.missing else c.text for c in cells.values())
                table.add_row(escape(name), *figures)
            tables.append(table)
    return tables


def markdown(
    about: Circumstances,
    rows: Sequence[Row],
    measured: Mapping[str, Measured],
    figure: str | None,
) -> str:
    """The whole report."""
    product = measured[PRODUCT]
    parts = [
        f"# Evaluation of {_text(about.course)}",
        _head(about),
        *([f"![The main figures as a picture]({figure})"] if figure else []),
        "## Figures",
        _figures(rows),
        "\n".join(f"- {_text(sentence)}" for sentence in missing_figures(rows)),
    ]
    for label, title in _LABELS.items():
        groups = breakdown(product, label)
        if groups:
            heads = [label, *groups[0][1]]
            lines = [
                [name, *(_NO_FIGURE if c.missing else c.text for c in cells.values())]
                for name, cells in groups
            ]
            parts += [f"## {title}", _grid(heads, lines)]
    parts += ["## Worth a look", *_cases(product), "## What the figures mean", _meanings(measured)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _head(about: Circumstances) -> str:
    which = (
        f"{about.questions:,} questions"
        if about.questions == about.in_file
        else f"a random sample of {about.questions:,} of the {about.in_file:,} questions"
    )
    model = (
        f"answers by {about.model}" if about.model else "search and decision only, without a model"
    )
    return _text(
        f"{about.when:%Y-%m-%d %H:%M}: {which} of {about.file}, on {about.documents:,} documents "
        f"({about.passages:,} passages, index {about.generation[:8]}, embedded by "
        f"{about.embedding_model}); {model}."
    )


def _figures(rows: Sequence[Row]) -> str:
    systems = list(rows[0].cells)
    heads = ["", "over", *(_title(system, rows) for system in systems)]
    heads.insert(3, "95 % range")
    lines = []
    for section, of_section in groupby(rows, key=lambda row: row.section):
        lines.append([f"**{section}**", *[""] * (len(heads) - 1)])
        for row in of_section:
            own = row.cells[PRODUCT]
            figures = [_NO_FIGURE if cell.missing else cell.text for cell in row.cells.values()]
            count = "" if own.missing else f"{own.count:,}"
            lines.append([row.name, count, figures[0], _range(own), *figures[1:]])
    return _grid(heads, lines, numbers_from=1)


def _cases(measured: Measured) -> list[str]:
    """The questions to read by hand, by what is wrong with them."""
    return [
        part
        for title, is_case in _CASES.items()
        for part in _listed(title, [pair for pair in measured if is_case(*pair)])
    ] or ["Nothing was found wrong."]


def _not_found(question: EvaluationQuestion, record: Record) -> bool:
    return record.ranks is not None and any(rank is None or rank > _FIRST for rank in record.ranks)


_CASES: dict[str, Callable[[EvaluationQuestion, Record], bool]] = {
    "Failed": lambda _, record: record.error is not None,
    "Citations that do not resolve": lambda _, record: (
        not all(citation.resolves for citation in record.citations)
    ),
    "Answered, though the file says that the documents do not say it": lambda question, record: (
        not question.answerable and record.outcome in SENT
    ),
    "Refused, though the file says that the documents answer it": lambda question, record: (
        question.answerable and bool(record.outcome) and is_refused(record)
    ),
    f"The gold passage is not among the first {_FIRST}": _not_found,
}


def _listed(title: str, cases: Measured) -> list[str]:
    if not cases:
        return []
    shown = "" if len(cases) <= _MOST_CASES else f", the first {_MOST_CASES}"
    lines = []
    for question, record in cases[:_MOST_CASES]:
        facts = [f"{_text(question.id)}: **{_text(question.question)}**"]
        gold = "; ".join(question.answers[:1])
        place = question.document or ""
        if question.page is not None:
            place += f", page {question.page}"
        if gold or place:
            facts.append(f"expected: {_text(' – '.join(filter(None, (gold, place))))}")
        if record.answer:
            facts.append(f"sent: {_text(record.answer)}")
        if record.sources:
            facts.append(f"from: {_text('; '.join(record.sources))}")
        if record.error:
            facts.append(_text(record.error))
        lines.append(f"- {'<br>'.join(facts)}")
    return [f"### {title} ({len(cases):,}{shown})", "\n".join(lines)]


def _meanings(measured: Mapping[str, Measured]) -> str:
    text = _MEANINGS
    if NAIVE in measured and len(measured[NAIVE]) < len(measured[PRODUCT]):
        text += (
            f"\n- The naive design was measured on {len(measured[NAIVE])} of the questions; its "
            "seconds for all of them, marked with ≈, are extrapolated from these."
        )
    return text


def _title(system: str, rows: Sequence[Row]) -> str:
    if system != NAIVE:
        return TITLES[system]
    count = max(row.cells[system].count for row in rows)
    return f"{TITLES[system]} ({count} questions)"


def _range(cell: Cell) -> str:
    if cell.interval is None:
        return ""
    low, high = cell.interval
    return f"{100 * low:.0f} to {100 * high:.0f}"


def _grid(heads: Sequence[str], lines: Sequence[Sequence[str]], numbers_from: int = 1) -> str:
    marks = ["---" if at < numbers_from else "--:" for at in range(len(heads))]
    return "\n".join(
        f"| {' | '.join(cells)} |"
        for cells in (heads, marks, *([_bold_safe(cell) for cell in line] for line in lines))
    )


def _bold_safe(cell: str) -> str:
    return cell if cell.startswith("**") else _text(cell)


def _text(text: str) -> str:
    """``text`` on one line, with nothing in it that Markdown or HTML would take as its own."""
    short = " ".join(text.split())
    if len(short) > _LONGEST_EXCERPT:
        short = f"{short[:_LONGEST_EXCERPT].rstrip()} …"
    short = short.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", short)
