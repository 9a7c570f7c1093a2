"""Quotes passages: where a quotation begins and ends, and how it is written."""

import re
import textwrap
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from core.questions import Answer, Outcome, Source
from rag_worker.exercises import is_exercise_heading
from rag_worker.language import sentences, terms
from rag_worker.passages import Passage
from rag_worker.wording import wording

LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+")
_SHORT_EXCERPT = 200
_TITLE_CHARACTERS = 100
_FORMULA_WORDS = 3
_TAB = 4
_REFERS_BACK = re.compile(
    r"(?:est[aeo]s?|es[aeo]s?|dado que|por tanto|por eso|this|these|that|it|they|thus|therefore"
    r"|so)\b",
    re.IGNORECASE,
)
_MARK = re.compile(r"(?<![\w\])])\[(\d+)\]")
"""A number in brackets, but not the index of a name in code."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to quote a passage.

    Attributes:
        begin, end: of the characters that fit the question best.
        is_continuation, is_continued: whether rows of its table stand in the passage before it,
            and in the one after it.
        following: the passage after it, where its last sentence goes on there.
    """

    passage: Passage
    begin: int
    end: int
    is_continuation: bool = False
    is_continued: bool = False
    following: Passage | None = None


def quote(language: str, places: Sequence[Place], limit: int, first: int = 1) -> Answer:
    """The passages' own words around the places in them, with the pages they stand at.

    None is longer than ``limit`` characters or leaves its section, unless that only announces the
    next (":"). One that is cut ends with an ellipsis, and so does a table or a list where rows are
    missing, before or after. Where a passage ends within a sentence, the next one is quoted too.

    Args:
        first: the number of the first source.
    """
    fixed = wording(language)
    sources: list[Source] = []
    lines = [fixed.quoted]
    passages = {place.passage for place in places}
    waiting = list(places)
    while waiting:
        place = waiting.pop(0)
        passage = place.passage
        top, last = _section_around(passage, place.begin)
        text = passage.text[top:last].rstrip()
        start, stop = excerpt(text, max(place.begin - top, 0), max(place.end - top, 0), limit)
        quoted = text[start:stop]
        sources.append(source_of(passage, quoted, top + start))
        is_end = stop == len(text)
        goes_on = place.following is not None and is_end and last == len(passage.text)
        shown = _verbatim(quoted)
        if _is_inside_rows(text, start) or (place.is_continuation and start == 0):
            shown.insert(0, "…")
        is_line_end = text[stop:].lstrip(" ")[:1] in ("", "\n")
        if _is_inside_rows(text, stop) or (place.is_continued and is_end):
            shown.append("…")
        elif (goes_on or not is_line_end) and quoted[-1:] not in ".!?…:":
            shown[-1] += " …"
        shown[-1] += f" [{first + len(sources) - 1}]"
        shown += ["", f"— {fixed.place(replace(passage, heading=sources[-1].heading))}"]
        lines.append("\n".join(f"> {line}".rstrip() for line in shown))
        if goes_on and place.following and place.following not in passages:
            waiting.insert(0, Place(place.following, 0, 1))
    return Answer("\n\n".join(lines), language, Outcome.QUOTED, tuple(sources))


def _section_around(passage: Passage, at: int) -> tuple[int, int]:
    """Begin and end of the section at a character, with those that its end announces."""
    begin, end, _ = passage.section_at(at)
    while end < len(passage.text) and passage.text[begin:end].rstrip().endswith(":"):
        end = passage.section_at(end)[1]
    return begin, end


def _verbatim(quoted: str) -> list[str]:
    """The lines as they stand there, with the shape of code; paragraphs close up."""
    lines = textwrap.dedent(quoted.expandtabs(_TAB)).splitlines()
    kept: list[str] = []
    for at, line in enumerate(lines):
        neighbours = lines[at + 1 : at + 2] + kept[-1:]
        if line.strip() or any(one.startswith("  ") for one in neighbours):
            kept.append(unlike_a_mark(line.rstrip()))
    return kept


def source_of(passage: Passage, quoted: str, at: int) -> Source:
    """What stands at character ``at`` of a passage, with the section that it stands in."""
    return Source(
        file=passage.file,
        quotation=quoted,
        page=passage.page,
        slide=passage.slide,
        heading=passage.section_at(at)[2],
    )


def _is_inside_rows(text: str, at: int) -> bool:
    """Whether a table or a list is cut before or after the line at ``at``."""
    before, after = text[:at].rstrip(" "), text[at:].lstrip(" ")
    if not before.strip() or not after.strip():
        return False
    rows = before.rstrip().rpartition("\n")[2], after.lstrip().partition("\n")[0]
    gap = before[len(before.rstrip()) :] + after[: len(after) - len(after.lstrip())]
    return "\n" in gap and (
        (all(" | " in row for row in rows) and "\n\n" not in gap)
        or all(LIST_MARK.match(row) for row in rows)
    )


def unlike_a_mark(text: str) -> str:
    """``text`` with its own numbers in brackets set apart from our marks of the sources."""
    return _MARK.sub("[\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}]", text)


def quotation(text: str, words: Set[str], language: str, limit: int) -> str:
    """The sentences of ``text``, one after another, that hold most of ``words``, and no more.

    Questions, as a document's exercises have them, say nothing and do not count. Of several with
    the same words the shortest says it most clearly, and of those the first defines.

    Returns:
        At most ``limit`` characters, literally from ``text``.
    """
    spans = sentences(text)
    held = [
        set() if text[:end].endswith("?") else words & set(terms(text[begin:end], language))
        for begin, end in spans
    ]
    best, best_score = (0, 0), (-1, 0)
    starts = [at for at, words_held in enumerate(held) if words_held]
    for first in starts or range(len(spans)):
        found: set[str] = set()
        for last in range(first, len(spans)):
            if last > first and spans[last][1] - spans[first][0] > limit:
                break
            found |= held[last]
            score = (len(found), spans[first][0] - spans[last][1])
            if score > best_score:
                best, best_score = (first, last), score
    first, last = best
    return _cut(text[spans[first][0] : spans[last][1]], limit).strip() if spans else ""


def excerpt(text: str, begin: int, end: int, limit: int) -> tuple[int, int]:
    """The sentences from ``begin`` to ``end``, with those after them that explain, then before.

    What follows is added to the paragraph's end; beyond that as long as the excerpt is short or
    announces something, and to the end of a list or a formula. Then what comes before is added,
    to the paragraph's beginning, or to what the first sentence speaks of. Titles before it are
    left out.

    Returns:
        Where the excerpt begins and ends in ``text``: at most ``limit`` characters.
    """
    spans = sentences(text)
    inside = [at for at, (first, last) in enumerate(spans) if first < end and last > begin]
    if not inside:
        return begin, begin + len(_cut(text[begin:end], limit))
    first, last = inside[0], inside[-1]

    def sentence(at: int) -> str:
        return text[spans[at][0] : spans[at][1]]

    def is_paragraph_end(at: int) -> bool:
        return "\n\n" in text[spans[at][1] : spans[at + 1][0]]

    def belongs_to_former(at: int) -> bool:
        return bool(_REFERS_BACK.match(sentence(at))) or (
            is_paragraph_end(at - 1)
            and (_is_formula(sentence(at)) or _is_formula(sentence(at - 1)))
        )

    after_titles = first
    while after_titles < last and is_title(sentence(after_titles)):
        after_titles += 1
    if sentence(after_titles).endswith((".", "!", "?", "…", ":")):
        first = after_titles
    exercises = [at for at in range(first + 1, last + 1) if is_exercise_heading(sentence(at))]
    last = min([last, *(at - 1 for at in exercises)])
    while (
        first > 0
        and spans[last][1] - spans[first - 1][0] <= limit
        and belongs_to_former(first)
        and not is_title(sentence(first - 1))
    ):
        first -= 1

    def goes_on(at: int) -> bool:
        if is_exercise_heading(sentence(at + 1)):
            return False
        if not is_paragraph_end(at):
            return True
        said, following = text[spans[first][0] : spans[at][1]], sentence(at + 1)
        if said.endswith(":") or (LIST_MARK.match(sentence(at)) and LIST_MARK.match(following)):
            return True
        is_whole = said.endswith((".", "!", "?", "…")) or " | " in said
        return not is_title(following) and (
            not is_whole or len(said) < _SHORT_EXCERPT or _is_formula(following)
        )

    while last + 1 < len(spans) and spans[last + 1][1] - spans[first][0] <= limit and goes_on(last):
        last += 1
    while (
        first > 0
        and spans[last][1] - spans[first - 1][0] <= limit
        and (not is_paragraph_end(first - 1) or belongs_to_former(first))
        and not is_title(sentence(first - 1))
    ):
        first -= 1
    begin = spans[first][0]
    is_code = not text[begin : spans[last][1]].endswith((".", "!", "?", "…"))
    if first and is_code and spans[last][1] - spans[first - 1][0] <= min(limit, _TITLE_CHARACTERS):
        # A line or two, as of code, mean nothing without the line above.
        begin = spans[first - 1][0]
    return begin, begin + len(_cut(text[begin : spans[last][1]], limit))


def is_title(sentence: str) -> bool:
    """Whether a paragraph of one sentence is a heading by its form."""
    return bool(
        len(sentence) <= _TITLE_CHARACTERS
        and re.match(r"[\dA-ZÁÉÍÓÚÑ¿]", sentence)
        and re.search(r"[^\W\d_]{3,}", sentence)
        and not re.search(r"[.!?…:;,=|()\]]$| [|=] ", sentence)
        and not LIST_MARK.match(sentence)
    )


def _is_formula(sentence: str) -> bool:
    """Whether a sentence is a formula set apart from the text."""
    return (
        len(sentence) <= _TITLE_CHARACTERS
        and "=" in sentence
        and len(re.findall(r"[^\W\d_]{4,}", sentence)) <= _FORMULA_WORDS
    )


def _cut(text: str, limit: int) -> str:
    if len(text) > limit:
        text = text[:limit].rpartition(" ")[0] or text[:limit]
    return text.rstrip()
