"""What the model reads: instructions, then the passages in document order, the question last."""

import functools
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from importlib import resources

from rag_worker.dates import find_dates
from rag_worker.language import fold, sentences
from rag_worker.passages import Passage
from rag_worker.wording import wording

_LANGUAGE_NAMES = {"es": "Spanish", "en": "English"}
_TEMPLATE_MARK = re.compile(r"<\|[^|>\n]{1,40}\|>|<</?SYS>>|\[/?INST\]|</?s>", re.IGNORECASE)
_TAG = re.compile(r"<(?=/?\s*(?:passage|question)\b)", re.IGNORECASE)
_ASKS_FOR_TIME = re.compile(
    r"\b(?:when|date|dates|day|days|today|tomorrow|week|deadline|due|next|upcoming|schedule|exams?"
    r"|cuando|fechas?|dias?|hoy|manana|semana|plazos?|proxim[oa]s?|siguientes?|calendario|examen"
    r"|examenes|entregas?)\b"
)
_MOST_DATES = 8
_RESERVE = 64
"""Tokens for what a server's chat template adds."""
_SHORTEST_PASSAGE = 200
_LETTERS_PER_TOKEN = 2.8
_LATEST_COUNTS = 32
_FEWEST_COUNTS = 3
_LEAST_LEARNED = 200
_LOWEST_SHARE = 0.5
_MARGIN = 1.1
"""The estimate is trusted to be closer once a few counts of texts of some length are known, and
stays above the highest of the latest."""


class PromptTooLongError(Exception):
    """The instructions and the question alone do not fit LLM_CONTEXT."""


def estimate_tokens(text: str) -> int:
    """At least as many tokens as the usual models count, for prose, formulas and code.

    Letters go a few to a token; digits, signs and everything outside ASCII are counted one each,
    and those outside the basic plane by their bytes.
    """
    letters = len(re.findall(r"[A-Za-z]", text))
    spaces = len(re.findall(r" (?=[A-Za-z])", text))
    rest = len(text) - letters - spaces
    rare = sum(3 for character in text if ord(character) > 0xFFFF)
    return math.ceil(letters / _LETTERS_PER_TOKEN) + rest + rare


class TokenEstimate:
    """Estimates tokens, the closer the more of the model's own counts it has been told.

    Safe by a margin over the highest share of the plain estimate among the latest counts. Texts
    with accented letters are learned apart: their words take more tokens.
    """

    def __init__(self) -> None:
        self._shares: dict[bool, deque[float]] = {
            is_accented: deque(maxlen=_LATEST_COUNTS) for is_accented in (False, True)
        }

    def learn(self, text: str, tokens: int) -> None:
        """Remember that the model's server counted ``tokens`` in ``text``."""
        estimate = estimate_tokens(text)
        # In short texts the chat template's tokens weigh too much.
        if estimate >= _LEAST_LEARNED:
            self._shares[_is_accented(text)].append(tokens / estimate)

    def __call__(self, text: str) -> int:
        """At least as many tokens as ``text`` has, if it is like those that were learned."""
        estimate = estimate_tokens(text)
        shares = self._shares[_is_accented(text)]
        if len(shares) < _FEWEST_COUNTS:
            return math.ceil(estimate * max([1.0, *shares]))
        return math.ceil(estimate * max(_LOWEST_SHARE, _MARGIN * max(shares)))


def _is_accented(text: str) -> bool:
    return len(re.findall(r"[À-ÿ]", text)) * 100 > len(text)


def build_prompt(
    question: str,
    passages: Sequence[Passage],
    language: str,
    *,
    today: date,
    context: int,
    max_tokens: int,
    count: Callable[[str], int] = estimate_tokens,
) -> str:
    """One message that fits ``context`` tokens together with an answer of ``max_tokens``.

    ``count`` says how many tokens a text has, or more, never fewer.

    The instructions and the passages come first and unchanged from question to question where they
    can, so that a server uses its cache of them. It is one message because Ollama drops earlier
    ones silently when they are too long. The longest passages are shortened at a sentence's end
    until everything fits; a question that takes more than half the window is cut.

    Raises:
        PromptTooLongError: not even short passages fit.
    """
    budget = context - max_tokens - _RESERVE
    question = _cut(question, budget // 2, count)
    texts = [passage.text for passage in passages]
    prompt = _assemble(question, passages, texts, language, today)
    while count(prompt) > budget:
        longest = max(range(len(texts)), key=lambda at: len(texts[at]))
        if len(texts[longest]) <= _SHORTEST_PASSAGE:
            raise PromptTooLongError(f"the prompt does not fit LLM_CONTEXT={context}")
        texts[longest] = _without_last_sentence(texts[longest])
        prompt = _assemble(question, passages, texts, language, today)
    return prompt


@functools.cache
def _instructions() -> str:
    return resources.files("rag_worker").joinpath("instructions.txt").read_text(encoding="utf-8")


def _assemble(
    question: str,
    passages: Sequence[Passage],
    texts: Sequence[str],
    language: str,
    today: date,
) -> str:
    # The same all day, so it belongs to what the server keeps in its cache.
    blocks = [_instructions(), wording("en").date(today)]
    for number, (passage, text) in enumerate(zip(passages, texts, strict=True), start=1):
        place = f"{passage.file} › {passage.heading}" if passage.heading else passage.file
        place = _data(place).replace('"', "'")
        blocks.append(f'<passage number="{number}" from="{place}">\n{_data(text)}\n</passage>')
    # What changes from question to question comes last: the server keeps the rest in its cache.
    blocks.append(f"<question>\n{_data(question)}\n</question>")
    calendar = " ".join(_calendar(texts, today)) if _ASKS_FOR_TIME.search(fold(question)) else ""
    if calendar:
        blocks.append(calendar)
    blocks.append(f"Answer the question in {_LANGUAGE_NAMES[language]}, from the passages alone.")
    return "\n\n".join(blocks)


def _calendar(texts: Sequence[str], today: date) -> Iterator[str]:
    """Which of the passages' dates are past and which is the next: small models cannot tell."""
    found = {
        one.day: text[one.begin : one.end] for text in texts for one in find_dates(text, today)
    }
    past = [found[day] for day in sorted(found) if day < today]
    coming = [found[day] for day in sorted(found) if day >= today]
    if past:
        yield f"These dates are past: {'; '.join(past[-_MOST_DATES:])}."
    if coming:
        yield f"Still to come, the next one first: {'; '.join(coming[:_MOST_DATES])}."


def _data(text: str) -> str:
    """``text`` without our own tags and the marks of chat templates: it cannot end its place."""
    return _TAG.sub("‹", _TEMPLATE_MARK.sub(_harmless, text))


def _harmless(mark: re.Match[str]) -> str:
    return mark[0].replace("<", "‹").replace("[", "⁅")


def _cut(question: str, tokens: int, count: Callable[[str], int]) -> str:
    while count(question) > tokens:
        question = question[: int(len(question) * 0.9)]
    return question


def _without_last_sentence(text: str) -> str:
    last = sentences(text)[-1][0]
    shorter = text[:last].rstrip()
    # A single long sentence, as a table or code can be, is cut in its middle.
    return shorter if len(shorter) >= _SHORTEST_PASSAGE else text[: int(len(text) * 0.8)]
