"""How the search orders passages, on vectors whose directions have a meaning."""

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings

from rag_worker.generation import FORMAT, Generation, Manifest, word_indexes
from rag_worker.language import LANGUAGES
from rag_worker.passages import Passage
from rag_worker.relevance import reference_questions
from rag_worker.retrieval import Retriever

COMMON, SPANISH, ENGLISH, LATE, OTHER = np.eye(5, dtype=np.float32)
# Vectors of all texts have much in common, and those in one language a little more.
OF_LANGUAGE = {"es": 3 * COMMON + SPANISH, "en": 3 * COMMON + ENGLISH}


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


class Directed(Embeddings):
    """A question about being late."""

    def __init__(self, language: str) -> None:
        self._language = language

    def embed_query(self, text: str) -> list[float]:
        return unit(OF_LANGUAGE[self._language] + LATE).tolist()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError


def generation(about_late: dict[str, float]) -> Generation:
    """Ten passages in each language, of which the first is about being late to some degree."""
    passages, vectors = [], []
    for language in LANGUAGES:
        for number in range(10):
            passages.append(Passage(f"Text {number}.", "a.md", None, None, None, language))
            late = about_late[language] if number == 0 else 0.0
            vectors.append(unit(OF_LANGUAGE[language] + late * LATE + 0.1 * number * OTHER))
    background = {
        language: np.tile(unit(OF_LANGUAGE[language]), (len(reference_questions(language)), 1))
        for language in LANGUAGES
    }
    return Generation(
        name="test",
        manifest=Manifest(FORMAT, {}, ()),
        passages=tuple(passages),
        vectors=np.stack(vectors),
        starts=np.arange(len(passages)),
        words=word_indexes(passages),
        background=background,
    )


@pytest.mark.parametrize(("asked", "other"), [("es", "en"), ("en", "es")])
def test_passage_on_the_subject_is_found_whatever_its_language(asked: str, other: str) -> None:
    # In the question's own language there is something that is a little about it.
    found = Retriever(generation({asked: 0.2, other: 0.9}), Directed(asked))
    assert found.search("late", asked, 1)[0].passage.language == other
    found = Retriever(generation({asked: 0.9, other: 0.2}), Directed(asked))
    assert found.search("late", asked, 1)[0].passage.language == asked
