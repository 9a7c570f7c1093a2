"""Checks what the model wrote against the passages, and finds the words that support it."""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass

from rag_worker.language import fold, sentences, terms
from rag_worker.passages import Passage

SUPPORTED_SHARE = 0.75
"""So much of a sentence's own words (those not in the question) must stand in the passage."""
_CITATION = re.compile(r"\s*\[\s*(?:passages?\s*)?(\d{1,2}(?:\s*[,;]\s*\d{1,2})*)\s*\]", re.I)
_AFTER_STOP = re.compile(r"([.!?…])((?:\s*\[[\d\s,;]+\])+)")
_PROMPT_TAG = re.compile(r"</?(?:passage|question)[^>\n]*>?")  # small models copy them
_TAG = re.compile(r"</?\w[^>\n]*>")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_LIST_MARK = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+")
_ABSTENTION = re.compile(r"not in the documents", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of the answer, without citation marks, and the passage (from 0) it rests on."""

    text: str
    passage: int


def is_abstention(answer: str) -> bool:
    """Whether the model says that the passages do not contain the answer."""
    return bool(_ABSTENTION.search(answer))


def supported_statements(
    answer: str, passages: Sequence[Passage], question: str, language: str
) -> list[Statement]:
    """The sentences of ``answer`` that a passage supports, in order, each once.

    A cited passage that supports the sentence is kept; where none does, or nothing is cited, the
    passage that supports it best is cited instead. Sentences that no passage supports are left
    out. A passage supports a sentence when it holds all its numbers and names and most of its
    words. Works only where passage and answer are in one language.
    """
    asked = set(terms(question, language))
    given = _numbers(question)
    contents = [set(terms(passage.embedded_text, language)) for passage in passages]
    numbers = [_numbers(passage.embedded_text) for passage in passages]
    names = [fold(passage.embedded_text) for passage in passages]
    statements: list[Statement] = []
    for sentence, cited in _cited_sentences(answer):
        words = set(terms(sentence, language))
        shares = [
            _share(words, content, asked)
            if _numbers(sentence) <= known | given
            and all(name in text or name in fold(question) for name in _names(sentence))
            else 0.0
            for content, known, text in zip(contents, numbers, names, strict=True)
        ]
        candidates = [at for at in cited if at < len(passages)] or range(len(passages))
        best = max(candidates, key=shares.__getitem__, default=None)
        if best is None or shares[best] < SUPPORTED_SHARE:
            best = max(range(len(passages)), key=shares.__getitem__)
        if shares[best] >= SUPPORTED_SHARE and all(sentence != s.text for s in statements):
            statements.append(Statement(sentence, best))
    return statements


def quotation(text: str, words: Set[str], language: str, limit: int, *, fill: bool) -> str:
    """The sentences of ``text``, one after another, that hold most of ``words``.

    Questions, as a document's exercises have them, say nothing and do not count.

    Args:
        fill: add the sentences that follow, and then those before, as far as ``limit`` allows.

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
            # Of two with the same words the shorter says it more clearly, and the first defines.
            score = (len(found), spans[first][0] - spans[last][1])
            if score[0] > best_score[0] or (not fill and score > best_score):
                best, best_score = (first, last), score
    first, last = best
    if fill:
        while last + 1 < len(spans) and spans[last + 1][1] - spans[first][0] <= limit:
            last += 1
        while first > 0 and spans[last][1] - spans[first - 1][0] <= limit:
            first -= 1
    quoted = text[spans[first][0] : spans[last][1]] if spans else ""
    if len(quoted) > limit:
        quoted = quoted[:limit].rpartition(" ")[0] or quoted[:limit]
    return quoted.strip()


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
        # A tag alone, an announcement and a question say nothing.
        if re.search(r"\w", _TAG.sub("", text)) and not text.endswith(("?", ":")):
            found.append((text, cited))
    return found


def _share(words: Set[str], content: Set[str], asked: Set[str]) -> float:
    own = words - asked
    return len(own & content) / len(own) if own else 0.0  # the question said again


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
