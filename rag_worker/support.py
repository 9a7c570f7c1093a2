"""Checks what the model wrote against the passages, and finds the words that support it."""

import re
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from rag_worker.dates import without_dates
from rag_worker.exercises import is_exercise_heading
from rag_worker.intent import is_yes_no
from rag_worker.language import fold, sentences, terms
from rag_worker.passages import Passage
from rag_worker.wording import wording

SUPPORTED_SHARE = 0.75
"""So much of a sentence's own words (those not in the question) must stand in the passage."""
ORDERED_SHARE = 0.5
"""So many of its pairs of neighbouring words must follow each other there."""
_ORDER_GAP = 3
PARAPHRASED_SHARE = 0.5
PARAPHRASE = 0.93
"""With fewer words, down to this share, or in another order, its cosine with a sentence of the
passage must reach this: one in a hundred sentences of the same paragraph does."""
TRANSLATION = 0.88
"""Across languages the cosine decides. Of XQuAD's sentences 95 % reach this with their own
translation, and 0.3 % with another sentence of its paragraph."""
_NEAR_SENTENCES = 2
"""A sentence's words must stand together in so many neighbouring sentences of the passage."""
_FEWEST_WORDS = 3
"""Of a sentence without a number: fewer say nothing."""
_SHORT_EXCERPT = 200
_TITLE_CHARACTERS = 100
_FORMULA_WORDS = 3
_REFERS_BACK = re.compile(
    r"(?:est[aeo]s?|es[aeo]s?|dado que|por tanto|por eso|this|these|that|it|they|thus|therefore"
    r"|so)\b",
    re.IGNORECASE,
)
_CITATION = re.compile(r"\s*\[\s*(?:passages?\s*)?(\d{1,2}(?:\s*[,;]\s*\d{1,2})*)\s*\]", re.I)
_AFTER_STOP = re.compile(r"([.!?…])((?:\s*\[[\d\s,;]+\])+)")
_CODE = re.compile(r"(?:#|//|/\*|>>>|(?:def|return|import|from|print|if|for|while)\b[^.]*[(:=\"])")
_PROMPT_TAG = re.compile(r"</?(?:passage|question)[^>\n]*>?")  # small models copy them
_TAG = re.compile(r"</?\w[^>\n]*>")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+")
_NEGATION = re.compile(
    r"\b(?:no|not|never|nor|neither|none|without|cannot|except|nunca|jam[aá]s|ni|ning[uú]n\w*|sin"
    r"|tampoco|salvo|excepto|unless)\b|n['’]t\b",
    re.IGNORECASE,
)
_YES_OR_NO = re.compile(r"^(?:yes|no|s[ií])\b[\s,.;:]*", re.IGNORECASE)
_DAYS = {
    *("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "january"),
    *("february", "march", "april", "may", "june", "july", "august", "september", "october"),
    *("november", "december"),
}
_ABSTENTION = re.compile(r"not in the documents", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of the answer, without citation marks, and what it rests on.

    Attributes:
        passage: counted from 0.
        ground: the words of the passage that support it.
    """

    text: str
    passage: int
    ground: str


Similarity = Callable[[str, Passage], tuple[float, str]]
"""The best cosine of a statement with a sentence of a passage, and that one."""


def is_abstention(answer: str) -> bool:
    """Whether the model says that the passages do not contain the answer."""
    return bool(_ABSTENTION.search(answer))


@dataclass(frozen=True, slots=True)
class Checked:
    """The sentences that may be sent, and how many the model wrote."""

    statements: list[Statement]
    written: int


def check(
    answer: str,
    passages: Sequence[Passage],
    question: str,
    language: str,
    *,
    today: date,
    similarity: Similarity,
) -> Checked:
    """Keep the sentences of ``answer`` that a passage supports, in order, each once.

    A passage supports a sentence when all its numbers, dates and names stand in it, and most of
    its words together in neighbouring sentences, which deny something exactly where it does; or,
    with fewer of its words or in another language, when a sentence of it is as near as a
    paraphrase or a translation. A cited passage that supports the sentence is kept; where none
    does, or nothing is cited, the passage that supports it best is cited instead.
    """
    # To confirm is to say the question's own words again.
    asked = set() if is_yes_no(question) else set(terms(question, language))
    now = wording(language).date(today)
    asked.update(terms(now, language))
    given = _numbers(question) | _numbers(now)
    known = fold(question)
    grounds = [_Ground(passage, language, similarity) for passage in passages]
    statements: list[Statement] = []
    sentences_written = _cited_sentences(answer)
    for sentence, cited in sentences_written:
        said = set(terms(_YES_OR_NO.sub("", sentence), language))
        support = [
            ground.support(said - asked, said & asked, sentence)
            if ground.holds(sentence, given, known)
            else _NONE
            for ground in grounds
        ]
        candidates = [at for at in cited if at < len(passages) and support[at][0] > 0]
        best = max(candidates or range(len(passages)), key=lambda at: support[at][0], default=None)
        if best is not None and support[best][0] and all(sentence != s.text for s in statements):
            statements.append(Statement(sentence, best, support[best][1]))
    return Checked(statements, len(sentences_written))


_NONE = (0.0, "")


class _Ground:
    """A passage as the check looks at it."""

    def __init__(self, passage: Passage, language: str, similarity: Similarity) -> None:
        self._passage = passage
        self._language = language
        self._similarity = similarity
        self._is_foreign = passage.language != language
        self._text = fold(passage.searched_text)
        self._numbers = _numbers(passage.searched_text)
        self._heading = set(terms(passage.heading or "", language))
        lines = [*passage.text.splitlines(), *(path or "" for *_, path in passage.sections())]
        self._titles = [
            set(terms(line, language)) for line in lines if line.strip() and _is_title(line.strip())
        ]
        self._sentences = [
            (set(terms(text, language)), text)
            for text in (passage.text[begin:end] for begin, end in sentences(passage.text))
        ]
        self._everywhere = set().union(*(has for has, _ in self._sentences))

    def holds(self, sentence: str, given: Set[str], known: str) -> bool:
        """Whether all numbers and names of the sentence stand here, or in the question.

        What only repeats a title is held by nothing.
        """
        # The days and months of another language are no names.
        said = set(terms(sentence, self._language))
        if any(said <= title for title in self._titles):
            return False
        names = _names(without_dates(sentence)) - _DAYS if self._is_foreign else _names(sentence)
        return _numbers(sentence) <= self._numbers | given and all(
            name in self._text or name in known for name in names
        )

    def support(self, words: Set[str], asked: Set[str], sentence: str) -> tuple[float, str]:
        """How well the passage supports the sentence; 0: not.

        Args:
            words: the sentence's own, and
            asked: those that it has from the question.

        Returns:
            The share of its words or the cosine, and the part of the passage that says it.
        """
        if not words:
            return _NONE
        denies = _denies(_YES_OR_NO.sub("", sentence))
        share, near = _NONE if self._is_foreign else self._together(words, asked, denies)
        if share >= SUPPORTED_SHARE and _keeps_order(sentence, near, self._language):
            return share, near
        if share < PARAPHRASED_SHARE and not self._is_foreign:
            return _NONE
        cosine, near = self._similarity(sentence, self._passage)
        enough = cosine >= (TRANSLATION if self._is_foreign else PARAPHRASE)
        # A paraphrase, too, speaks of what the sentence has from the question.
        subject = asked & self._everywhere
        speaks = self._is_foreign or subject <= set(terms(near, self._language))
        return (cosine, near) if enough and speaks and _denies(near) == denies else _NONE

    def _together(self, words: Set[str], asked: Set[str], denies: bool) -> tuple[float, str]:
        """The largest part of ``words`` that stands together, and where.

        The one of those sentences that holds most of them denies something where it should, and
        speaks of what was asked: a word that it has from the question stands in it, in the one
        before it or in a heading, if it stands in the passage at all.
        """
        best = _NONE
        for at in range(len(self._sentences)):
            near = self._sentences[at : at + _NEAR_SENTENCES]
            held = set().union(self._heading, *(has for has, _ in near))
            nearest = max(range(len(near)), key=lambda one: len(words & near[one][0]))
            before = self._sentences[max(0, at + nearest - 1)][0]
            subject = before | near[nearest][0] | self._heading
            share = len(words & held) / len(words)
            if (
                share > best[0]
                and _denies(near[nearest][1]) == denies
                and asked & self._everywhere <= subject
            ):
                best = share, " ".join(text for has, text in near if words & has)
        return best


def _keeps_order(sentence: str, near: str, language: str) -> bool:
    """Whether most neighbouring words of a sentence do so in a sentence of ``near`` too.

    So must the first two, its subject and what is said of it: the same words in another order say
    another thing.
    """
    said = terms(without_dates(_YES_OR_NO.sub("", sentence)), language)
    followed = {
        (one, other)
        for begin, end in sentences(near)
        for held in [terms(near[begin:end], language)]
        for at, one in enumerate(held)
        for other in held[at + 1 : at + 1 + _ORDER_GAP]
    }
    pairs = list(pairwise(said))
    kept = sum(pair in followed for pair in pairs)
    return set(pairs[:1]) <= followed and kept >= ORDERED_SHARE * len(pairs)


def _denies(text: str) -> bool:
    return bool(_NEGATION.search(text))


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
    return _cut(text[spans[first][0] : spans[last][1]], limit) if spans else ""


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
    while after_titles < last and _is_title(sentence(after_titles)):
        after_titles += 1
    if sentence(after_titles).endswith((".", "!", "?", "…", ":")):
        first = after_titles
    exercises = [at for at in range(first + 1, last + 1) if is_exercise_heading(sentence(at))]
    last = min([last, *(at - 1 for at in exercises)])
    while (
        first > 0
        and spans[last][1] - spans[first - 1][0] <= limit
        and belongs_to_former(first)
        and not _is_title(sentence(first - 1))
    ):
        first -= 1

    def goes_on(at: int) -> bool:
        if is_exercise_heading(sentence(at + 1)):
            return False
        if not is_paragraph_end(at):
            return True
        said, following = text[spans[first][0] : spans[at][1]], sentence(at + 1)
        if said.endswith(":") or (_LIST_MARK.match(sentence(at)) and _LIST_MARK.match(following)):
            return True
        is_whole = said.endswith((".", "!", "?", "…")) or " | " in said
        return not _is_title(following) and (
            not is_whole or len(said) < _SHORT_EXCERPT or _is_formula(following)
        )

    while last + 1 < len(spans) and spans[last + 1][1] - spans[first][0] <= limit and goes_on(last):
        last += 1
    while (
        first > 0
        and spans[last][1] - spans[first - 1][0] <= limit
        and not is_paragraph_end(first - 1)
    ):
        first -= 1
    begin = spans[first][0]
    is_code = not text[begin : spans[last][1]].endswith((".", "!", "?", "…"))
    if first and is_code and spans[last][1] - spans[first - 1][0] <= min(limit, _TITLE_CHARACTERS):
        # A line or two, as of code, mean nothing without the line above.
        begin = spans[first - 1][0]
    return begin, begin + len(_cut(text[begin : spans[last][1]], limit))


def _is_title(sentence: str) -> bool:
    """Whether a paragraph of one sentence is a heading by its form."""
    return bool(
        len(sentence) <= _TITLE_CHARACTERS
        and re.match(r"[\dA-ZÁÉÍÓÚÑ¿]", sentence)
        and re.search(r"[^\W\d_]{3,}", sentence)
        and not re.search(r"[.!?…:;,=|()\]]$| [|=] ", sentence)
        and not _LIST_MARK.match(sentence)
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
    return text.strip()


def _cited_sentences(answer: str) -> list[tuple[str, list[int]]]:
    """The sentences without their marks, and the passages each cites, counted from 0."""
    answer = _PROMPT_TAG.sub("\n", answer)
    answer = _AFTER_STOP.sub(lambda match: f"{match[2]}{match[1]}", answer)
    found = []
    for begin, end in sentences(answer):
        sentence = answer[begin:end]
        cited = [
            int(number) - 1
            for mark in _CITATION.findall(sentence)
            for number in re.findall(r"\d+", mark)
            if int(number) > 0
        ]
        text = _LIST_MARK.sub("", _CITATION.sub("", sentence)).strip()
        # A tag alone, a word or two, an announcement, a question and a line of code say nothing.
        said = _TAG.sub("", text)
        is_substantial = len(said.split()) >= _FEWEST_WORDS or re.search(r"\d", said)
        is_fragment = text.rstrip(". ").endswith(("?", ":", "-", "–")) or _CODE.match(text)
        if is_substantial and not is_fragment:
            found.append((text, cited))
    return found


def _numbers(text: str) -> set[str]:
    return {number.replace(",", ".") for number in _NUMBER.findall(text)}


def _names(sentence: str) -> set[str]:
    """Words with a capital inside a sentence, and those that hold digits, such as 1N4007."""
    words = re.findall(r"[^\W_]+", sentence)
    return {
        fold(word)
        for at, word in enumerate(words)
        if (at > 0 and word[0].isupper() and len(word) > 1)
        or (any(c.isdigit() for c in word) and any(c.isalpha() for c in word))
    }
