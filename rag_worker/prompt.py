"""What the model reads: instructions, then the passages in document order, the question last."""

import functools
import math
import re
from collections.abc import Sequence
from importlib import resources

from rag_worker.language import sentences
from rag_worker.passages import Passage

_LANGUAGE_NAMES = {"es": "Spanish", "en": "English"}
_TAG = re.compile(r"<(?=/?\s*(?:passage|question)\b)", re.IGNORECASE)
_RESERVE = 64
"""Tokens for what a server's chat template adds."""
_SHORTEST_PASSAGE = 200
_LETTERS_PER_TOKEN = 2.8


class PromptTooLongError(Exception):
    """The instructions and the question alone do not fit LLM_CONTEXT."""


def build_prompt(
    question: str, passages: Sequence[Passage], language: str, *, context: int, max_tokens: int
) -> str:
    """One message that fits ``context`` tokens together with an answer of ``max_tokens``.

    The instructions and the passages come first and unchanged from question to question where they
    can, so that a server uses its cache of them. It is one message because Ollama drops earlier
    ones silently when they are too long. The longest passages are shortened at a sentence's end
    until everything fits; a question that takes more than half the window is cut.

    Raises:
        PromptTooLongError: not even short passages fit.
    """
    budget = context - max_tokens - _RESERVE
    question = _cut(question, budget // 2)
    texts = [passage.text for passage in passages]
    prompt = _assemble(question, passages, texts, language)
    while estimate_tokens(prompt) > budget:
        longest = max(range(len(texts)), key=lambda at: len(texts[at]))
        if len(texts[longest]) <= _SHORTEST_PASSAGE:
            raise PromptTooLongError(f"the prompt does not fit LLM_CONTEXT={context}")
        texts[longest] = _without_last_sentence(texts[longest])
        prompt = _assemble(question, passages, texts, language)
    return prompt


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


@functools.cache
def _instructions() -> str:
    return resources.files("rag_worker").joinpath("instructions.txt").read_text(encoding="utf-8")


def _assemble(
    question: str, passages: Sequence[Passage], texts: Sequence[str], language: str
) -> str:
    blocks = [_instructions()]
    for number, (passage, text) in enumerate(zip(passages, texts, strict=True), start=1):
        place = f"{passage.file} › {passage.heading}" if passage.heading else passage.file
        place = _data(place).replace('"', "'")
        blocks.append(f'<passage number="{number}" from="{place}">\n{_data(text)}\n</passage>')
    blocks.append(
        f"<question>\n{_data(question)}\n</question>\n\n"
        f"Answer the question in {_LANGUAGE_NAMES[language]}, from the passages alone."
    )
    return "\n\n".join(blocks)


def _data(text: str) -> str:
    """``text`` without our own tags: what is inside them cannot end them."""
    return _TAG.sub("‹", text)


def _cut(question: str, tokens: int) -> str:
    while estimate_tokens(question) > tokens:
        question = question[: int(len(question) * 0.9)]
    return question


def _without_last_sentence(text: str) -> str:
    last = sentences(text)[-1][0]
    shorter = text[:last].rstrip()
    # A single long sentence, as a table or code can be, is cut in its middle.
    return shorter if len(shorter) >= _SHORTEST_PASSAGE else text[: int(len(text) * 0.8)]
