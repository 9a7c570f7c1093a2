"""What the model reads: instructions, then the passages in document order, the question last."""

import functools
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date

from core.questions import Exchange
from rag_worker.dates import find_dates, is_day_first
from rag_worker.language import fold, sentences
from rag_worker.leaks import instructions
from rag_worker.passages import Passage
from rag_worker.wording import wording

_LANGUAGE_NAMES = {"es": "Spanish", "en": "English"}
_TEMPLATE_MARK = re.compile(
    r"<[|｜][^|｜>\n]{1,40}[|｜]>|<</?SYS>>|</?\w+_\w+>|\[/?(?-i:[A-Z_]{3,})\]"
    r"|</?(?:s|bos|eos|pad|unk|mask|tools?|think(?:ing)?|system|user|assistant|unused\d+)>",
    re.IGNORECASE,
)
"""Of the templates of Llama, Mistral, Gemma, Qwen, DeepSeek, Phi and others: servers read them in
a message too."""
_TAG = re.compile(r"<(?=/?\s*(?:passage|question|earlier|dates)\b)", re.IGNORECASE)
_ASKS_FOR_TIME = re.compile(
    r"\b(?:when|date|dates|day|days|today|tomorrow|week|deadline|due|next|upcoming|schedule|exams?"
    r"|cuando|fechas?|dias?|hoy|manana|semana|plazos?|proxim[oa]s?|siguientes?|calendario|examen"
    r"|examenes|entregas?)\b"
)
_MOST_DATES = 8
_DATE_CHARACTERS = 160
"""Of the sentence or row that a date stands in."""
_EARLIER_QUESTION = 500
_EARLIER_ANSWER = 1000
"""Characters of what was asked and answered before that the model is told."""
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
    earlier: Exchange | None = None,
    day_first: Mapping[str, bool | None] | None = None,
    count: Callable[[str], int] = estimate_tokens,
) -> str:
    """One message that fits ``context`` tokens together with an answer of ``max_tokens``.

    ``count`` says how many tokens a text has, or more, never fewer.

    The instructions and the passages come first and unchanged from question to question where they
    can, so that a server uses its cache of them. It is one message because Ollama drops earlier
    ones silently when they are too long. The longest passages are shortened at a sentence's end
    until everything fits; a question that takes more than half the window is cut.

    Args:
        earlier: what the question follows up.
        day_first: by file, how it writes dates in numbers; None where that is unknown.

    Raises:
        PromptTooLongError: not even short passages fit.
    """
    budget = context - max_tokens - _RESERVE
    question = _cut(question, budget // 2, count)
    texts = [passage.text for passage in passages]
    before = _cut(_conversation(earlier), budget // 4, count) if earlier else ""
    assemble = functools.partial(
        _assemble, question, before, passages, language=language, today=today, day_first=day_first
    )
    prompt = assemble(texts)
    while count(prompt) > budget:
        longest = max(range(len(texts)), key=lambda at: len(texts[at]))
        if len(texts[longest]) <= _SHORTEST_PASSAGE:
            raise PromptTooLongError(f"the prompt does not fit LLM_CONTEXT={context}")
        texts[longest] = _without_last_sentence(texts[longest])
        prompt = assemble(texts)
    return prompt


def _assemble(
    question: str,
    earlier: str,
    passages: Sequence[Passage],
    texts: Sequence[str],
    *,
    language: str,
    today: date,
    day_first: Mapping[str, bool | None] | None,
) -> str:
    # The same all day, so it belongs to what the server keeps in its cache.
    blocks = [instructions(), wording("en").date(today)]
    for number, (passage, text) in enumerate(zip(passages, texts, strict=True), start=1):
        place = f"{passage.file} › {passage.heading}" if passage.heading else passage.file
        place = _data(place).replace('"', "'")
        blocks.append(f'<passage number="{number}" from="{place}">\n{_data(text)}\n</passage>')
    # What changes from question to question comes last: the server keeps the rest in its cache.
    if _ASKS_FOR_TIME.search(fold(f"{question}\n{earlier}")):
        dated = [
            one
            for passage, text in zip(passages, texts, strict=True)
            for one in _dated(text, today, _order(passage, texts, day_first))
        ]
        if calendar := "\n".join(_calendar(dated, today)):
            blocks.append(f"<dates>\n{calendar}\n</dates>")
    if earlier:
        blocks.append(f"<earlier>\n{_data(earlier)}\n</earlier>")
    blocks.append(f"<question>\n{_data(question)}\n</question>")
    blocks.append(f"Answer the question in {_LANGUAGE_NAMES[language]}, from the passages alone.")
    return "\n\n".join(blocks)


def _order(
    passage: Passage, texts: Sequence[str], day_first: Mapping[str, bool | None] | None
) -> bool | None:
    if day_first is not None:
        return day_first[passage.file]
    return is_day_first(texts, passage.language)


def _dated(text: str, today: date, day_first: bool | None) -> Iterator[tuple[date, str]]:
    """The dates of a text, each with the sentence or row that says what it is the date of."""
    for begin, end in sentences(text):
        sentence = text[begin:end]
        for found in find_dates(sentence, today, day_first=day_first):
            first = max(0, found.end - _DATE_CHARACTERS)
            yield found.day, " ".join(sentence[first : first + _DATE_CHARACTERS].split())


def _calendar(dated: Sequence[tuple[date, str]], today: date) -> Iterator[str]:
    """Which of the passages' dates are past and which come next: small models cannot tell."""
    ordered = sorted(dict.fromkeys(dated), key=lambda one: one[0])
    past = [one for one in ordered if one[0] < today]
    coming = [one for one in ordered if one[0] >= today]
    yield from (f"Past: {day}: {_data(text)}" for day, text in past[-_MOST_DATES:])
    yield from (f"Still to come: {day}: {_data(text)}" for day, text in coming[:_MOST_DATES])


def _conversation(earlier: Exchange) -> str:
    """What was asked and answered before; the sentences that answers begin with are left in."""
    return (
        f"The student asked before: {earlier.question[:_EARLIER_QUESTION]}\n"
        f"The answer was: {earlier.answer[:_EARLIER_ANSWER]}"
    )


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
