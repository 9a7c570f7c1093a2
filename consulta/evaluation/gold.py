"""Which text counts as the one that answers a question."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from consulta.evaluation.questions import EvaluationQuestion

LONG_EVIDENCE_WORDS = 10
"""Evidence of so many words need not be found literally:"""
EVIDENCE_SHARE = 0.8
"""this share of its words in one passage is enough."""
_WORD = re.compile(r"\w+")
_HYPHENS = "-\u00ad\u2010\u2011"
_CITATION = re.compile(r"\s*\[\d+(?:\s*,\s*\d+)*\]")

Place = tuple[str, int | None]
"""A file, and its page or slide where it has any."""


@dataclass(frozen=True, slots=True)
class Found:
    """A ranked text and every place it has text from."""

    text: str
    places: frozenset[Place]


def is_gold(found: Found, question: EvaluationQuestion, evidence: str | None) -> bool:
    """Whether a text answers, or holds one of the several pieces of evidence.

    It has text from the document and the page that the question names, if it names them, and
    contains the evidence; without evidence, one of the answers, if there are any.
    """
    if question.document is not None and not any(
        file == question.document and question.page in (None, page) for file, page in found.places
    ):
        return False
    if evidence is not None:
        return holds_evidence(found.text, evidence)
    return not question.answers or any(contains(found.text, a) for a in question.answers)


def ranks(question: EvaluationQuestion, found: Sequence[Found]) -> list[int | None]:
    """The rank, from 1, of the first gold text; one for each piece of evidence if there is any."""
    return [
        next((at for at, text in enumerate(found, 1) if is_gold(text, question, evidence)), None)
        for evidence in question.evidence or (None,)
    ]


def holds_evidence(text: str, evidence: str) -> bool:
    """Whether ``text`` contains ``evidence``, or of long evidence most of its words."""
    if contains(text, evidence):
        return True
    words = set(_WORD.findall(_folded(evidence)))
    if len(words) < LONG_EVIDENCE_WORDS:
        return False
    return len(words & set(_WORD.findall(_folded(text)))) >= EVIDENCE_SHARE * len(words)


def contains(text: str, part: str) -> bool:
    """Whether ``part`` stands in ``text``, whatever the case, white space and hyphens.

    It has to begin and end where a word or a number does: 5 does not stand in 15 or in 0.5.
    """
    haystack, starts = _squeezed(_folded(text))
    needle, _ = _squeezed(_folded(part).strip().rstrip(".;:"))
    folded = _folded(text)
    at = haystack.find(needle) if needle else -1
    while at >= 0:
        begin, end = starts[at], starts[at + len(needle) - 1] + 1
        if _is_edge(folded, begin) and _is_edge(folded, end):
            return True
        at = haystack.find(needle, at + 1)
    return False


def resolves(quotation: str, texts: Iterable[str]) -> bool:
    """Whether a quotation is literally in one of the texts, line breaks apart."""
    quoted = " ".join(quotation.split())
    return bool(quoted) and any(quoted in " ".join(text.split()) for text in texts)


def without_citations(answer: str) -> str:
    """The words of an answer without its ``[1]``."""
    return _CITATION.sub("", answer)


def cites_gold(place: Place, question: EvaluationQuestion) -> bool:
    """Whether a citation names the document, and the page if one is known."""
    file, page = place
    return file == question.document and question.page in (None, page)


def all_found(question: EvaluationQuestion, shown: Collection[Found]) -> bool:
    """Whether every piece of evidence is in what the model is shown."""
    return None not in ranks(question, tuple(shown))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _squeezed(text: str) -> tuple[str, list[int]]:
    """``text`` without white space and hyphens, and where each character stood."""
    kept = [(c, at) for at, c in enumerate(text) if not c.isspace() and c not in _HYPHENS]
    return "".join(c for c, _ in kept), [at for _, at in kept]


def _is_edge(text: str, at: int) -> bool:
    """Whether a word or number may begin or end before the character ``at``."""
    before, after = text[at - 1 : at], text[at : at + 1]
    if before.isalnum() and after.isalnum():
        # "10kΩ" and "10 kΩ" are the same.
        return before.isdigit() != after.isdigit()
    around = text[max(at - 2, 0) : at + 2]
    return not re.fullmatch(r"\d[.,]\d.?|.?\d[.,]\d", around)
