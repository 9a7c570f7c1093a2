"""Question to passages: BM25 and vectors together, and how sure it is that they treat it."""

import functools
import math
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from langchain_core.embeddings import Embeddings

from rag_worker.answerability import Window, answerability, is_lacking
from rag_worker.cache import Vectors
from rag_worker.documents.sections import PATH_SEPARATOR
from rag_worker.exercises import is_exercise
from rag_worker.generation import Generation, WordIndex
from rag_worker.intent import Unit, named_unit, subject_of_summary, unit_of, without_whole
from rag_worker.language import query_terms, sentences, terms
from rag_worker.passages import Passage
from rag_worker.relevance import Background, probability

WEIGHTS = (0.4, 0.4, 0.2)
"""Of the z-scores of a passage's best window, of the mean of its windows, and of BM25. Windows
find single facts, means find sections; ``docs/retrieval.md`` has the table."""
WEIGHTS_ACROSS_LANGUAGES = (0.8, 0.2)
"""Where question and passage share no words: of the best window and of the mean."""
_EVIDENCE_HITS = 3
"""Coverage is the best of this many hits: the first is not always the one."""
WINDOW_COVERAGE_WEIGHT = 0.08
"""In cosines: what a window gains by holding all the question's words."""
_SAME_WORDS = 0.85
"""Passages whose shared part of words reaches this say the same."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found.

    Attributes:
        score: z-scores of BM25 and cosine, fused; comparable within one search only.
        dense: the best cosine of the question and a window of the passage.
        bm25: 0 where the question is in another language than the passage.
        row: the passage's place in document order.
        windows: the cosine of each window of the passage.
    """

    passage: Passage
    score: float
    dense: float
    bm25: float
    row: int
    windows: tuple[float, ...] = ()


class Retriever:
    """Searches one generation. Not for several threads at once: the embedding model is not."""

    def __init__(self, generation: Generation, embeddings: Embeddings) -> None:
        self.generation = generation
        self.embeddings = embeddings
        self._means = _passage_means(generation)
        counts = np.diff([*generation.starts, len(generation.vectors)])
        languages = np.repeat([passage.language for passage in generation.passages], counts)
        self.background = Background(languages.tolist(), generation.vectors, generation.background)
        # Its own caches, so that they go with this generation.
        self._query = functools.lru_cache(maxsize=8)(self._embed)
        self._words = functools.cache(self._words_of)

    @property
    def is_empty(self) -> bool:
        """Whether there are no passages at all."""
        return not self.generation.passages

    def search(self, question: str, language: str, k: int) -> list[Hit]:
        """The best ``k`` passages for a question in ``language``, best first.

        Where two say the same, as copies of a file do, the first in document order stands for
        both.
        """
        query = self._query(question)
        cosines = self.generation.vectors @ query
        ends = [*self.generation.starts[1:], len(cosines)]
        dense = np.maximum.reduceat(cosines, self.generation.starts)
        legs = np.stack([_z_scores(dense), _z_scores(self._means @ query)])
        words = query_terms(question, language)
        bm25 = np.zeros_like(dense)
        score = WEIGHTS_ACROSS_LANGUAGES @ legs
        index = self.generation.words.get(language)
        if index is not None:
            bm25[index.rows] = index.scores(words)
            spoken = np.vstack([legs[:, index.rows], _z_scores(bm25[index.rows])])
            score[index.rows] = WEIGHTS @ spoken
        return [
            Hit(
                passage=self.generation.passages[at],
                score=float(score[at]),
                dense=float(dense[at]),
                bm25=float(bm25[at]),
                row=at,
                windows=tuple(cosines[self.generation.starts[at] : ends[at]].tolist()),
            )
            for at in self._distinct(np.argsort(-score, kind="stable").tolist(), k)
        ]

    def evidence(
        self, question: str, language: str, hits: Sequence[Hit], *, without_itself: bool = False
    ) -> float:
        """The probability that the documents answer the question, which found ``hits``.

        That they treat its subject, and less where the best window lacks what is asked for.

        Args:
            without_itself: as if the question were none of the foreign questions, of which it is
                one.
        """
        chance = self.relevance(question, language, hits, without_itself=without_itself)
        return chance * answerability(question, language, _windows(hits))

    def lacks_what_is_asked(self, question: str, language: str, hits: Sequence[Hit]) -> bool:
        """Whether the documents may treat the subject without the date, room, … asked for."""
        return is_lacking(question, language, _windows(hits))

    def relevance(
        self, question: str, language: str, hits: Sequence[Hit], *, without_itself: bool = False
    ) -> float:
        """The probability that the documents treat the subject of the question."""
        spoken = [hit for hit in hits if hit.passage.language == language]
        foreign = [hit.dense for hit in hits if hit.passage.language != language]
        baseline = self.background.baseline(
            question, language, self._query(question), without_itself=without_itself
        )
        chances = [0.0]
        if spoken:
            best = max(hit.dense for hit in spoken)
            coverage = self.coverage(question, language, spoken)
            chances.append(probability(best, baseline.spoken, coverage, baseline.likeness))
        if foreign:
            chances.append(probability(max(foreign), baseline.foreign, None, baseline.likeness))
        return max(chances)

    def coverage(self, question: str, language: str, hits: Sequence[Hit]) -> float:
        """The largest share of the question's terms, by their rarity, in one of the first hits.

        Args:
            hits: best first, and all in ``language``.
        """
        return self.share(
            question, language, [hit.passage.searched_text for hit in hits[:_EVIDENCE_HITS]]
        )

    def share(self, question: str, language: str, texts: Iterable[str]) -> float:
        """The largest share of the question's terms, by their rarity, in one of ``texts``.

        The texts, the question and some of the documents are in ``language``; else it is 0.
        """
        index = self.generation.words.get(language)
        if index is None:
            return 0.0
        weights = {word: _rarity(word, index) for word in query_terms(question, language)}
        total = sum(weights.values())
        if not total:
            return 0.0
        present = (set(terms(text, language)) for text in texts)
        held = (sum(weights.get(word, 0.0) for word in words) for words in present)
        return max(held, default=0.0) / total

    def similarity(self, statement: str, passage: Passage) -> tuple[float, str]:
        """The best cosine of a statement with a sentence of a passage of this index, and that one.

        Of the passage's best window each sentence is embedded, and the statement as they are, for
        the two may say the same.
        """
        [vector] = self.embeddings.embed_documents([statement])
        windows = list(passage.windows())
        start = self.generation.starts[self._rows[passage]]
        cosines = self.generation.vectors[start : start + len(windows)] @ np.asarray(vector)
        window = windows[int(cosines.argmax())]
        texts = [window[begin:end] for begin, end in sentences(window)]
        each = np.asarray(self.embeddings.embed_documents(texts)) @ np.asarray(vector)
        return float(each.max()), texts[int(each.argmax())]

    @functools.cached_property
    def _rows(self) -> dict[Passage, int]:
        return {passage: row for row, passage in enumerate(self.generation.passages)}

    def whole(self, rows: Collection[int]) -> tuple[Passage, ...]:
        """The passages of ``rows`` in document order, with the neighbours they cannot do without.

        A passage that begins or ends in mid-sentence is followed into the next one, and one that
        ends with an announcement (":") brings what it announces.
        """
        passages = self.generation.passages
        wanted = set(rows)
        for row in rows:
            if row > 0 and _is_cut(passages[row - 1], passages[row]):
                wanted.add(row - 1)
            if row + 1 < len(passages) and _is_cut(passages[row], passages[row + 1]):
                wanted.add(row + 1)
        return tuple(passages[row] for row in sorted(wanted))

    def table_parts(self, row: int) -> tuple[int, ...]:
        """The rows of all passages that a table was cut into, the one at ``row`` among them."""
        first = last = row
        while first > 0 and self._goes_on(first - 1):
            first -= 1
        while self._goes_on(last):
            last += 1
        return tuple(range(first, last + 1))

    def _goes_on(self, row: int) -> bool:
        """Whether the passage after ``row`` has further rows of the same table."""
        if row + 1 >= len(self.generation.passages):
            return False
        one, other = self.generation.passages[row : row + 2]
        head = (other.heading or "").split(PATH_SEPARATOR)[-1]
        return (
            " | " in head
            and one.file == other.file
            and (head in one.text or (one.heading or "").endswith(head))
        )

    def section(self, question: str, language: str, most: int) -> tuple[Passage, ...]:
        """The passages of the unit, section or file that a question wants a summary of.

        A unit is named by its number ("unit 2"), another section or a file by words that its path
        has, all of them; no words at all want the whole course. None where nothing has that name.
        Of more than ``most`` passages some are taken at even distances, the first among them.
        """
        unit = named_unit(question)
        subject = subject_of_summary(question)
        words = set(terms(without_whole(subject), language))
        if unit is not None:
            found = self._of_unit(unit)
        else:
            # "The notes" may be a file or no more than a word for all of it.
            found = self._of_words(set(terms(subject, language))) or self._of_words(words)
            if not words and not found:
                found = list(self.generation.passages)
        step = max(1.0, len(found) / most)
        return tuple(found[int(at * step)] for at in range(min(most, len(found))))

    def _of_unit(self, unit: Unit) -> list[Passage]:
        """Those of the heading that names a unit by its word, else by its number alone."""
        found: dict[bool, list[Passage]] = {True: [], False: []}
        for path, passages in self._sections.items():
            named = unit_of(path[-1])
            if named is None or named.number != unit.number or named.kind not in (unit.kind, None):
                continue
            is_by_word = named.kind is not None
            found[is_by_word] = max(found[is_by_word], passages, key=len)
        return found[True] or found[False]

    def _of_words(self, asked: Set[str]) -> list[Passage]:
        """Those of the path that has all the words asked for, of which its end has the most."""
        best: tuple[int, int, int] = (0, 0, 0)
        found: list[Passage] = []
        for path, passages in self._sections.items():
            *above, own = (self._title_words(name, passages[0].language) for name in path)
            fitness = len(asked & own), -len(own), len(passages)
            if asked <= own.union(*above) and fitness > best:
                best, found = fitness, passages
        return found

    @staticmethod
    def _title_words(name: str, language: str) -> frozenset[str]:
        return frozenset(
            word for word in terms(subject_of_summary(name), language) if not word.isdigit()
        )

    @functools.cached_property
    def _sections(self) -> dict[tuple[str, ...], list[Passage]]:
        """The passages below every file and heading, by its path."""
        sections: dict[tuple[str, ...], list[Passage]] = {}
        for passage in self.generation.passages:
            names = [PurePath(passage.file).stem]
            if passage.heading:
                names += passage.heading.split(PATH_SEPARATOR)
            for depth in range(1, len(names) + 1):
                sections.setdefault((passage.file, *names[:depth]), []).append(passage)
        return sections

    def _distinct(self, order: Iterable[int], k: int) -> list[int]:
        """The first ``k`` rows of ``order`` without those that repeat an earlier one."""
        chosen: list[int] = []
        for row in order:
            if len(chosen) == k:
                break
            twin = next((at for at in chosen if self._say_the_same(at, row)), None)
            if twin is None:
                chosen.append(row)
            elif row < twin:
                chosen[chosen.index(twin)] = row
        return chosen

    def _say_the_same(self, first: int, second: int) -> bool:
        one, other = self._words(first), self._words(second)
        return len(one & other) >= _SAME_WORDS * max(len(one | other), 1)

    def _embed(self, question: str) -> Vectors:
        return np.asarray(self.embeddings.embed_query(question), dtype=np.float32)

    def _words_of(self, row: int) -> frozenset[str]:
        passage = self.generation.passages[row]
        return frozenset(terms(passage.text, passage.language))


def _passage_means(generation: Generation) -> Vectors:
    """A unit vector for each passage: the mean of its windows, weighted by their lengths."""
    if not generation.passages:
        return generation.vectors
    lengths = [len(window) for passage in generation.passages for window in passage.windows()]
    weighted = generation.vectors * np.array(lengths, dtype=np.float32)[:, np.newaxis]
    means: Vectors = np.add.reduceat(weighted, generation.starts)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return means


def _windows(hits: Sequence[Hit]) -> list[Window]:
    return [
        Window(text, hit.passage.heading, hit.passage.language, cosine)
        for hit in hits
        for text, cosine in zip(hit.passage.windows(), hit.windows, strict=True)
    ]


def best_window(question: str, language: str, hit: Hit) -> tuple[int, int]:
    """Where the window of a hit that fits the question best begins and ends in its passage.

    Of a window that spans sections, the part in one of them. Parts that ask, as exercises do, are
    taken only where there are no others.
    """
    asked = set(query_terms(question, language))
    passage = hit.passage
    best, place, start = -math.inf, (0, len(passage.text)), 0
    for window, cosine in zip(passage.windows(), hit.windows, strict=True):
        for first, last, heading in passage.sections():
            begin, end = max(start, first), min(start + len(window), last)
            part = passage.text[begin:end]
            if not part.strip():
                continue
            title = (heading or "").split(PATH_SEPARATOR)[-1] if first else ""
            found = asked & set(terms(f"{title}\n{part}", passage.language))
            fitness = (
                cosine
                + WINDOW_COVERAGE_WEIGHT * len(found) / max(len(asked), 1)
                - is_exercise(heading, part, passage.text[first:begin])
            )
            if fitness > best:
                best, place = fitness, (begin, end)
        start += len(window)
    return _from_asked_line(passage, place, asked)


def _from_asked_line(passage: Passage, place: tuple[int, int], asked: Set[str]) -> tuple[int, int]:
    """``place`` from its first line that has one of the words asked for; all of it if none has."""
    begin, end = place
    for line in passage.text[begin:end].splitlines(keepends=True):
        if asked & set(terms(line, passage.language)):
            return begin, end
        begin += len(line)
    return place


def _is_cut(first: Passage, second: Passage) -> bool:
    """Whether what ``first`` says goes on in ``second``, the passage after it."""
    if first.file != second.file:
        return False
    end, begin = first.text.rstrip()[-1:], second.text.lstrip()[:1]
    return end == ":" or (begin.islower() and end not in '.!?…»”"')


def _z_scores(values: Vectors) -> Vectors:
    deviation = float(values.std())
    return (values - values.mean()) / deviation if deviation > 1e-9 else np.zeros_like(values)


def _rarity(word: str, index: WordIndex) -> float:
    """Inverse document frequency; a word the documents never use is the rarest."""
    having = index.document_frequency.get(word, 0)
    return math.log(1 + (len(index.rows) - having + 0.5) / (having + 0.5))
