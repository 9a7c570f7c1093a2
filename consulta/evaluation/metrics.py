"""Numbers from lists of numbers and texts; nothing here knows the product."""

import math
import re
import string
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the|el|la|los|las|un|una|unos|unas)\b")
_PUNCTUATION = re.compile(rf"[{re.escape(string.punctuation)}¿¡«»“”‘’…·–—]")
_DECIMAL = re.compile(r"(?<=\d)[.,](?=\d)")


def normalised(text: str) -> str:
    """As SQuAD compares answers: lower case, no punctuation, no articles (English and Spanish).

    The sign inside a number stays, so that 1,12 and 112 differ; 1,12 and 1.12 are the same.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _DECIMAL.sub("\x00", text)
    text = _PUNCTUATION.sub(" ", text).replace("\x00", ".")
    return " ".join(_ARTICLES.sub(" ", text).split())


def f1(answer: str, golds: Sequence[str]) -> float:
    """The best harmonic mean of precision and recall in words over ``golds``, 0 to 1."""
    return max(_f1(normalised(answer).split(), normalised(gold).split()) for gold in golds)


def _f1(words: Sequence[str], gold: Sequence[str]) -> float:
    if not words or not gold:
        return float(words == gold)
    common = sum((Counter(words) & Counter(gold)).values())
    return 2 * common / (len(words) + len(gold))


def gold_in_answer(answer: str, golds: Sequence[str]) -> bool:
    """Whether one of ``golds``, normalised, stands in the answer as whole words."""
    words = f" {normalised(answer)} "
    return any(f" {normalised(gold)} " in words for gold in golds if normalised(gold))


def recall(ranks: Sequence[int | None], k: int) -> float:
    """The share of what is wanted that is among the first ``k``."""
    return sum(rank is not None and rank <= k for rank in ranks) / len(ranks)


def reciprocal_rank(ranks: Sequence[int | None]) -> float:
    """1 / the rank of the first that is wanted; 0 where none was found."""
    return max((1 / rank for rank in ranks if rank is not None), default=0.0)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return math.fsum(values) / len(values)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle of at least one value; between the two middle ones, their mean."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def area_under_curve(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The chance that one of ``positive`` is above one of ``negative``; ties count half."""
    ordered = sorted([(value, 1) for value in positive] + [(value, 0) for value in negative])
    total = 0.0
    at = 0
    while at < len(ordered):
        end = at
        while end < len(ordered) and ordered[end][0] == ordered[at][0]:
            end += 1
        # All of a tie have the mean of its ranks.
        total += (at + 1 + end) / 2 * sum(kind for _, kind in ordered[at:end])
        at = end
    count = len(positive)
    return (total - count * (count + 1) / 2) / (count * len(negative))


def error_curve(
    positive: Sequence[float], negative: Sequence[float]
) -> list[tuple[float, float, float]]:
    """For each threshold: it, the share of ``positive`` below, and of ``negative`` not below."""
    kept, refused = sorted(positive), sorted(negative)
    return [
        (
            threshold,
            bisect_left(kept, threshold) / len(kept),
            1 - bisect_left(refused, threshold) / len(refused),
        )
        for threshold in sorted({*positive, *negative, math.inf})
    ]


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that was seen in ``count`` independent cases."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count)
    half *= math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)
