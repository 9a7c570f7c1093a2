"""What is to come: exams, deadlines and classes in the documents, with their dates."""

import functools
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib import resources

from rag_worker.dates import find_dates
from rag_worker.documents.sections import PATH_SEPARATOR
from rag_worker.language import fold, sentences
from rag_worker.passages import Passage

_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Event:
    """A sentence or row of a passage that has the date of what is asked for.

    Attributes:
        begin, end: of the date in the text of the passage.
    """

    day: date
    passage: Passage
    begin: int
    end: int


Wanted = tuple[frozenset[str], ...]
"""Of each kind of event that is asked for, the folded words that it may go by."""


def wanted_events(question: str) -> Wanted:
    """What kinds of event ``question`` names: "the final project" is of two."""
    asked = set(_WORD.findall(fold(question)))
    return tuple(names | parts for names, parts in _kinds() if asked & names)


def events(
    passage: Passage, wanted: Wanted, today: date, *, day_first: bool | None
) -> Iterator[Event]:
    """What is of all the ``wanted`` kinds, in the order of the text.

    Their words stand in the sentence or row of the date, or in the heading above it where the
    sentence does not name an event of another kind.

    Args:
        day_first: as for :func:`rag_worker.dates.find_dates`.
    """
    ours = frozenset().union(*wanted)
    for begin, end in sentences(passage.text):
        text = passage.text[begin:end]
        dates = find_dates(text, today, day_first=day_first)
        if not dates:
            continue
        heading = (passage.section_at(begin)[2] or "").split(PATH_SEPARATOR)[-1]
        said = set(_WORD.findall(fold(text)))
        if not (said & _all_names()) - ours:
            said |= set(_WORD.findall(fold(heading)))
        if all(said & words for words in wanted):
            for found in dates:
                yield Event(found.day, passage, begin + found.begin, begin + found.end)


@functools.cache
def _kinds() -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
    """Of each kind of event its own names, and those of the kinds that it includes."""
    text = resources.files("rag_worker").joinpath("texts", "events.toml")
    kinds = tomllib.loads(text.read_text(encoding="utf-8"))
    names = {kind: frozenset(kinds[kind]["names"].split()) for kind in kinds}
    return tuple(
        (names[kind], frozenset().union(*(names[part] for part in kinds[kind].get("includes", ()))))
        for kind in kinds
    )


@functools.cache
def _all_names() -> frozenset[str]:
    return frozenset().union(*(names for names, _ in _kinds()))
