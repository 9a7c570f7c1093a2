"""Question to passages: BM25 and vectors together, and whether the documents treat it at all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from langchain_core.embeddings import Embeddings

from rag_worker.cache import Vectors
from rag_worker.generation import Generation, WordIndex
from rag_worker.language import terms
from rag_worker.passages import Passage

DENSE_WEIGHT = 2.0
"""The weight of the vectors' z-score beside BM25's. Recall at 1, 2, 4 on SQuAD-es (3,000
questions, 1,996 paragraphs): vectors alone 67.7, 79.1, 86.5; BM25 71.9, 80.6, 87.5; 1:1 75.8,
85.0, 91.4; 1:2 77.7, 86.8, 92.0; 1:3 77.9, 86.5, 92.2."""
COVERAGE_WEIGHT = 0.07
RELEVANT = 0.865
"""A question is treated by the documents when cosine + COVERAGE_WEIGHT * coverage reaches this.
The weight is from a logistic regression on SQuAD-es, questions with and without their article in
the index. There, among 1,996 paragraphs about everything, 0.881 refuses 4 to 6 % of the answerable
questions of articles held out and lets 15 to 21 % of the others through (area under the curve
0.966; cosine alone 0.939, coverage alone 0.904; ``benchmarks/retrieval.py`` measures it). On an
index of a course's size, about one subject, the two are further apart: of 300 SQuAD-es questions
0.3 % pass at 0.865 as at 0.881, so the lower one is taken, which refuses fewer students."""
RELEVANT_ACROSS_LANGUAGES = 0.83
"""The cosine alone, where question and document have no words in common."""
_EVIDENCE_HITS = 3
"""Coverage is the best of this many hits: the first is not always the one."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found.

    Attributes:
        score: z-scores of BM25 and cosine, fused; comparable within one search only.
        dense: cosine of question and passage.
        bm25: 0 where the question is in another language than the passage.
        coverage: share of the question's terms in the passage, by their rarity; None across
            languages.
        row: the passage's place in document order.
    """

    passage: Passage
    score: float
    dense: float
    bm25: float
    coverage: float | None
    row: int


class Retriever:
    """Searches one generation. Not for several threads at once: the embedding model is not."""

    def __init__(self, generation: Generation, embeddings: Embeddings) -> None:
        self._generation = generation
        self._embeddings = embeddings

    @property
    def is_empty(self) -> bool:
        """Whether there are no passages at all."""
        return not self._generation.passages

    def search(self, question: str, language: str, k: int) -> list[Hit]:
        """The best ``k`` passages for a question in ``language``, best first."""
        query = np.asarray(self._embeddings.embed_query(question), dtype=np.float32)
        dense = self._generation.vectors @ query
        words = terms(question, language)
        bm25 = np.zeros_like(dense)
        score = _z_scores(dense)
        index = self._generation.words.get(language)
        if index is not None:
            # Passages in other languages share no words with the question: their vectors decide.
            bm25[index.rows] = index.scores(words)
            score[index.rows] = (DENSE_WEIGHT * score[index.rows] + _z_scores(bm25[index.rows])) / (
                DENSE_WEIGHT + 1
            )
        best = np.argsort(-score, kind="stable")[:k]
        return [
            Hit(
                passage=self._generation.passages[at],
                score=float(score[at]),
                dense=float(dense[at]),
                bm25=float(bm25[at]),
                coverage=self._coverage(words, self._generation.passages[at], language),
                row=int(at),
            )
            for at in best
        ]

    def _coverage(self, words: Sequence[str], passage: Passage, language: str) -> float | None:
        index = self._generation.words.get(language)
        if passage.language != language or index is None:
            return None
        weights = {word: _rarity(word, index) for word in words}
        present = set(terms(passage.embedded_text, language))
        total = sum(weights.values())
        return sum(w for word, w in weights.items() if word in present) / total if total else 0.0


def is_covered(hits: Sequence[Hit]) -> bool:
    """Whether the documents treat what was asked, by the evidence of the best hits."""
    spoken = [hit for hit in hits if hit.coverage is not None]
    foreign = [hit for hit in hits if hit.coverage is None]
    coverage = max((hit.coverage or 0.0 for hit in spoken[:_EVIDENCE_HITS]), default=0.0)
    dense = max((hit.dense for hit in spoken), default=0.0)
    return dense + COVERAGE_WEIGHT * coverage >= RELEVANT or any(
        hit.dense >= RELEVANT_ACROSS_LANGUAGES for hit in foreign
    )


def _z_scores(values: Vectors) -> Vectors:
    deviation = float(values.std())
    return (values - values.mean()) / deviation if deviation > 1e-9 else np.zeros_like(values)


def _rarity(word: str, index: WordIndex) -> float:
    """Inverse document frequency; a word the documents never use is the rarest."""
    having = index.document_frequency.get(word, 0)
    return math.log(1 + (len(index.rows) - having + 0.5) / (having + 0.5))
