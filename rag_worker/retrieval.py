"""Question to passages: BM25 and vectors together, and how sure it is that they treat it."""

import functools
import math
import re
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from langchain_core.embeddings import Embeddings

from rag_worker.answerability import (
    CLEAR_FORMS,
    COVERAGE_WEIGHT,
    Window,
    answerability,
    is_lacking,
    looks_for,
    sought_by,
)
from rag_worker.cache import Vectors
from rag_worker.documents.sections import PATH_SEPARATOR
from rag_worker.exercises import is_exercise
from rag_worker.generation import Generation, WordIndex
from rag_worker.intent import (
    Unit,
    has_unit,
    named_unit,
    subject_of_summary,
    unit_of,
    without_whole,
)
from rag_worker.language import fold, query_terms, sentences, terms
from rag_worker.names import names_another_course, without_brands
from rag_worker.passages import Passage
from rag_worker.quoting import is_title
from rag_worker.relevance import Background, probability

WEIGHTS = (0.4, 0.4, 0.2)
"""Of the z-scores of a passage's best window, of the mean of its windows, and of BM25. Windows
find single facts, means find sections; ``docs/retrieval.md`` has the table."""
WEIGHTS_ACROSS_LANGUAGES = (0.8, 0.2)
"""Where question and passage share no words: of the best window and of the mean."""
_EVIDENCE_HITS = 3
"""Coverage is the best of this many hits: the first is not always the one."""
_THING_WEIGHT, _CLEAR_THING_WEIGHT = 0.03, 0.1
"""In cosines: what a window gains by having a thing of the kind that is asked for; and where those
without one surely lack it."""
_FILE_DEPTH = 2
"""Of a section's path, which begins with the file and its name: a whole file's."""
_OWN_SUMMARY = re.compile(
    r"\b(?:summary|recap\w*|highlights|takeaways|key (?:points|ideas)|conclusions?|resumen|sintesis"
    r"|(?:puntos|ideas) clave|conclusion(?:es)?)\b"
)
_ANOTHER_COURSE = 0.15
"""The share of its probability that a question keeps which names a course that is not this one."""
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


@dataclass(frozen=True, slots=True)
class Part:
    """What a passage has of one section, and where."""

    passage: Passage
    begin: int
    end: int
    heading: str | None

    @property
    def states(self) -> bool:
        """Whether it says something, and is no exercise, aim or title."""
        text = self.passage.text[self.begin : self.end].strip()
        return bool(text) and not is_title(text) and not is_exercise(self.heading, text)

    @property
    def is_summary(self) -> bool:
        """Whether it is a summary by its heading."""
        return bool(_OWN_SUMMARY.search(fold((self.heading or "").split(PATH_SEPARATOR)[-1])))


class Retriever:
    """Searches one generation. Not for several threads at once: the embedding model is not."""

    def __init__(self, generation: Generation, embeddings: Embeddings) -> None:
        self.generation = generation
        self.embeddings = embeddings
        self._means = _passage_means(generation)
        self._levels = _levels(generation, self._means)
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
        question = self._in_their_words(question, language)
        query = self._query(question)
        cosines = self.generation.vectors @ query
        ends = [*self.generation.starts[1:], len(cosines)]
        dense = np.maximum.reduceat(cosines, self.generation.starts)
        # A question is nearer to every text in its own language, whatever it says.
        level = self._level(language)
        legs = np.stack([_z_scores(dense - level), _z_scores(self._means @ query - level)])
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
        if names_another_course(question, self._is_known):
            chance *= _ANOTHER_COURSE
        return chance * answerability(question, language, self._windows(hits, language))

    def lacks_what_is_asked(self, question: str, language: str, hits: Sequence[Hit]) -> bool:
        """Whether the documents may treat the subject without the date, room, … asked for."""
        return is_lacking(question, language, self._windows(hits, language))

    def relevance(
        self, question: str, language: str, hits: Sequence[Hit], *, without_itself: bool = False
    ) -> float:
        """The probability that the documents treat the subject of the question."""
        question = self._in_their_words(question, language)
        spoken = [hit for hit in hits if hit.passage.language == language]
        foreign = [hit.dense for hit in hits if hit.passage.language != language]
        baseline = self.background.baseline(
            question, language, self._query(question), without_itself=without_itself
        )
        chances = [0.0]
        if spoken:
            best = max(hit.dense for hit in spoken)
            coverage = self.coverage(question, language, spoken)
            chances.append(probability(best, baseline.spoken, coverage, baseline.strangeness))
        if foreign:
            chances.append(probability(max(foreign), baseline.foreign, None, baseline.strangeness))
        return max(chances)

    def _in_their_words(self, question: str, language: str) -> str:
        return without_brands(question, language, self._is_known)

    def _is_known(self, pattern: str) -> bool:
        return re.search(pattern, self._text) is not None

    @functools.cached_property
    def _text(self) -> str:
        """All passages with their headings and files, folded."""
        return fold(
            "\n".join(
                f"{passage.file}\n{passage.heading or ''}\n{passage.text}"
                for passage in self.generation.passages
            )
        )

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

    def following(self, row: int) -> Passage | None:
        """The passage after the one at ``row``, where what that says goes on in it."""
        pair = self.generation.passages[row : row + 2]
        return pair[1] if len(pair) > 1 and _is_cut(*pair) else None

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

    def section(self, question: str, language: str, most: int) -> tuple[Part, ...]:
        """What a summary is made from of the unit, section or file that a question names.

        A unit is named by its number ("unit 2"), another section or a file by words that its path
        has, all of them; none where nothing has that name. The summaries that the section has
        itself are taken, else how each of its parts begins; of more than ``most`` some at even
        distances, the first among them.
        """
        unit = named_unit(question)
        if unit is not None:
            found = self._of_unit(unit)
        else:
            subject = subject_of_summary(question)
            # "The notes" may be a file or no more than a word for all of it.
            found = self._of_words(set(terms(subject, language))) or self._of_words(
                set(terms(without_whole(subject), language))
            )
        told = {part.heading: part for part in reversed(found) if part.states}
        parts = [part for part in found if told.get(part.heading) is part]
        parts = [part for part in parts if part.is_summary] or parts
        return _evenly(parts, most)

    def beginnings(self, most: int) -> tuple[Part, ...]:
        """How the files begin, the first of each that says something; at most so many."""
        files = [parts for path, parts in self._sections.items() if len(path) == _FILE_DEPTH]
        told = [next((part for part in parts if part.states), None) for parts in files]
        return _evenly([part for part in told if part is not None], most)

    def _of_unit(self, unit: Unit) -> list[Part]:
        """Those of the heading that names a unit by its word, else by its number alone.

        A number alone, as in "2. Rules", names no unit where the texts name it by its word.
        """
        found: dict[bool, list[Part]] = {True: [], False: []}
        has_word = any(has_unit(passage.text, unit) for passage in self.generation.passages)
        for path, parts in self._sections.items():
            named = unit_of(path[-1])
            if named is None or named.kind not in (unit.kind, None):
                continue
            is_by_word = named.kind is not None
            has_word |= is_by_word
            if named.number == unit.number:
                found[is_by_word] = max(found[is_by_word], parts, key=len)
        return found[True] if has_word else found[False]

    def _of_words(self, asked: Set[str]) -> list[Part]:
        """Those of the path that has all the words asked for, of which its end has the most."""
        best: tuple[int, int, int] = (0, 0, 0)
        found: list[Part] = []
        if not asked:
            return found
        for path, parts in self._sections.items():
            spoken = parts[0].passage.language
            *above, own = (self._title_words(name, spoken) for name in path)
            fitness = len(asked & own), -len(own), len(parts)
            if asked <= own.union(*above) and fitness > best:
                best, found = fitness, parts
        return found

    @staticmethod
    def _title_words(name: str, language: str) -> frozenset[str]:
        return frozenset(
            word for word in terms(subject_of_summary(name), language) if not word.isdigit()
        )

    @functools.cached_property
    def _sections(self) -> dict[tuple[str, ...], list[Part]]:
        """The parts below every file and heading, by its path."""
        sections: dict[tuple[str, ...], list[Part]] = {}
        for passage in self.generation.passages:
            for begin, end, heading in passage.sections():
                names = [PurePath(passage.file).stem]
                if heading:
                    names += heading.split(PATH_SEPARATOR)
                for depth in range(1, len(names) + 1):
                    path = (passage.file, *names[:depth])
                    sections.setdefault(path, []).append(Part(passage, begin, end, heading))
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

    def _level(self, language: str) -> Vectors:
        """The cosine to be expected of each passage with a question in ``language``."""
        return self._levels.get(language, np.zeros(len(self._means), dtype=np.float32))

    def _windows(self, hits: Sequence[Hit], language: str) -> list[Window]:
        level = self._level(language)
        return [
            Window(
                text,
                hit.passage.heading,
                hit.passage.language,
                cosine - float(level[hit.row]),
            )
            for hit in hits
            for text, cosine in zip(hit.passage.windows(), hit.windows, strict=True)
        ]

    def _embed(self, question: str) -> Vectors:
        return np.asarray(self.embeddings.embed_query(question), dtype=np.float32)

    def _words_of(self, row: int) -> frozenset[str]:
        passage = self.generation.passages[row]
        return frozenset(terms(passage.text, passage.language))


def _evenly(parts: Sequence[Part], most: int) -> tuple[Part, ...]:
    step = max(1.0, len(parts) / most)
    return tuple(parts[int(at * step)] for at in range(min(most, len(parts))))


def _passage_means(generation: Generation) -> Vectors:
    """A unit vector for each passage: the mean of its windows, weighted by their lengths."""
    if not generation.passages:
        return generation.vectors
    lengths = [len(window) for passage in generation.passages for window in passage.windows()]
    weighted = generation.vectors * np.array(lengths, dtype=np.float32)[:, np.newaxis]
    means: Vectors = np.add.reduceat(weighted, generation.starts)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return means


def _levels(generation: Generation, means: Vectors) -> dict[str, Vectors]:
    """For a question's language the cosine to be expected of each passage.

    It depends on the passage's language alone: the mean over all of that language and over
    questions that no course treats.
    """
    spoken = np.array([passage.language for passage in generation.passages])
    levels: dict[str, Vectors] = {}
    for language, questions in generation.background.items():
        levels[language] = np.zeros(len(means), dtype=np.float32)
        for one in set(spoken.tolist()):
            is_in_it = spoken == one
            levels[language][is_in_it] = means[is_in_it].mean(axis=0) @ questions.mean(axis=0)
    return levels


def best_window(question: str, language: str, hit: Hit) -> tuple[int, int]:
    """Where the window of a hit that fits the question best begins and ends in its passage.

    Of a window that spans sections, the part in one of them. Parts that ask, as exercises do, are
    taken only where there are no others.
    """
    asked = set(query_terms(question, language))
    has_thing = looks_for(question, language)
    is_clear = sought_by(question) in CLEAR_FORMS
    thing_weight = _CLEAR_THING_WEIGHT if is_clear else _THING_WEIGHT
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
                + COVERAGE_WEIGHT * len(found) / max(len(asked), 1)
                + thing_weight * has_thing(part, passage.language)
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
