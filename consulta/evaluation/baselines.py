"""What the product is compared with: one leg of its search alone, and the naive design.

The naive design is what many course bots do: for every question the text of all documents is cut
into pieces of 5,000 tokens, each piece is embedded, and the two nearest the question are taken.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from consulta.evaluation.gold import Found
from rag_worker.generation import Generation
from rag_worker.language import terms
from rag_worker.passages import Passage

PIECE_TOKENS = 5_000
CHARACTERS_PER_TOKEN = 4
"""The usual estimate; a Spanish or English tokenizer comes near it."""
PIECES_TAKEN = 2


class Embedder(Protocol):
    """What the embedding models of the worker do."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]: ...

    def embed_query(self, text: str) -> list[float]: ...


def bm25(generation: Generation, question: str, k: int) -> list[Passage]:
    """The best ``k`` passages by words alone; each passage's language stems the question."""
    scores = np.zeros(len(generation.passages), dtype=np.float32)
    for language, index in generation.words.items():
        scores[index.rows] = index.scores(terms(question, language))
    # Without a word in common it is no hit.
    return [generation.passages[at] for at in _best(scores, k) if scores[at] > 0]


def dense(generation: Generation, embedder: Embedder, question: str, k: int) -> list[Passage]:
    """The best ``k`` passages by the cosine of their best window and the question."""
    query = np.asarray(embedder.embed_query(question), dtype=np.float32)
    cosine = np.maximum.reduceat(generation.vectors @ query, generation.starts)
    return [generation.passages[at] for at in _best(cosine, k)]


def nearest(
    found: Sequence[Found], vectors: Sequence[Sequence[float]], query: Sequence[float]
) -> list[Found]:
    """The two pieces that the naive design shows a model: those nearest to ``query``."""
    if not found:
        return []
    of_pieces, of_query = np.asarray(vectors, np.float32), np.asarray(query, np.float32)
    cosine = of_pieces @ of_query / np.linalg.norm(of_pieces, axis=1)
    return [found[at] for at in _best(cosine, PIECES_TAKEN)]


def pieces(passages: Sequence[Passage]) -> list[Found]:
    """All text in document order, cut every 5,000 tokens whatever stands there.

    A piece knows the files and pages that it has text from.
    """
    size = PIECE_TOKENS * CHARACTERS_PER_TOKEN
    text = "".join(f"{passage.text}\n\n" for passage in passages)
    places: list[set[tuple[str, int | None]]] = [set() for _ in range(0, len(text), size)]
    begin = 0
    for passage in passages:
        end = begin + len(passage.text)
        for number in range(begin // size, max(begin, end - 1) // size + 1):
            places[number].add(place(passage))
        begin = end + 2
    return [
        Found(text[number * size : (number + 1) * size], frozenset(known))
        for number, known in enumerate(places)
    ]


def place(passage: Passage) -> tuple[str, int | None]:
    """The file and the page or slide of a passage."""
    return passage.file, passage.page if passage.page is not None else passage.slide


def as_found(passages: Sequence[Passage]) -> list[Found]:
    """Passages as what is compared with the gold text."""
    return [Found(passage.text, frozenset({place(passage)})) for passage in passages]


def _best(scores: NDArray[np.float32], k: int) -> list[int]:
    return [int(at) for at in np.argsort(-scores, kind="stable")[:k]]
