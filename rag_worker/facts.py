"""The facts of a sentence, and whether the words that support it state the same ones.

Most of a sentence's words may be another's too: what must not differ are its numbers and dates,
and words of which each excludes the others, as before and after, or day and week do.
"""

import functools
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from rag_worker.dates import dates_as_terms
from rag_worker.language import fold, terms

_TOKEN = re.compile(
    r"\d{1,2}/\d{1,2}(?!\d)|\d(?:st|nd|rd|th)\b|\d+(?:[.,:]\d+)*(?!\d|[^\W\d_]+\d)"
    r"|[^\W\d_]{1,4}-\d+\w*|[^\W_]+|%"
)
_DATE = re.compile(r"\d{1,2}/\d{1,2}")
_ONE = frozenset({"a", "an", "one", "un", "una", "uno"})
"""Articles mostly: they deny only another number of the same thing."""
_NEAR_WORDS = 4
"""So far from a number stands what it is of."""
_NUMBER, _DATED, _SHARE, _CODE = "number", "date", "share", "code"


@dataclass(frozen=True, slots=True)
class Fact:
    """A number, a date, a code, or a word that excludes others of its group.

    Attributes:
        kind: facts of the same kind can contradict each other.
        at: which word of the sentence it is.
    """

    kind: str
    value: str
    at: int

    @property
    def is_figure(self) -> bool:
        """Whether it is written alike in all languages, or nearly so."""
        return self.kind in (_NUMBER, _DATED, _SHARE, _CODE)


class Facts:
    """The facts of a text and the words around them."""

    def __init__(self, text: str, language: str) -> None:
        words = _TOKEN.findall(fold(dates_as_terms(text)))
        self.found: list[Fact] = []
        self._ones: list[int] = []
        self._words: dict[str, list[int]] = {}
        for at, word in enumerate(words):
            facts = list(_facts_at(words, at, language))
            self.found += facts
            if word in _ONE:
                self._ones.append(at)
            stems = [f"{fact.kind} {fact.value}" for fact in facts] or terms(word, language)
            for stem in stems:
                self._words.setdefault(stem, []).append(at)
        self.values = {(fact.kind, fact.value) for fact in self.found}
        self.kinds = {fact.kind for fact in self.found}

    @property
    def figures(self) -> list[Fact]:
        """Those that are written alike in all languages, or nearly so."""
        return [fact for fact in self.found if fact.is_figure]

    def holds(self, fact: Fact) -> bool:
        """Whether the text states it; a number without its sign may stand for any kind."""
        if fact.kind == _NUMBER:
            return any(fact.value == value for _, value in self.values)
        return (fact.kind, fact.value) in self.values

    def denies(self, fact: Fact) -> bool:
        """Whether the text states others of its kind instead."""
        return fact.kind in self.kinds and not self.holds(fact)

    def agrees(self, grounds: Sequence["Facts"]) -> bool:
        """Whether what stands beside a fact here stands nearer to no other of its kind there."""
        held = [fact for fact in self.found if any(ground.holds(fact) for ground in grounds)]
        for kind in self.kinds:
            for word in self._words:
                ours = self._nearest(word, kind, held, _NEAR_WORDS)
                theirs = set[str]().union(
                    *(ground._nearest(word, kind, ground.found) for ground in grounds)
                )
                if ours and theirs and not ours & theirs:
                    return False
        return not any(self._is_one_of_several(ground) for ground in grounds)

    def _nearest(
        self, word: str, kind: str, facts: Sequence[Fact], farthest: int | None = None
    ) -> set[str]:
        """The values of those of the ``facts`` of one kind that stand nearest to a word."""
        values: set[str] = set()
        if word.startswith(f"{kind} "):
            return values
        of_kind = [fact for fact in facts if fact.kind == kind]
        for at in self._words.get(word, ()):
            distances = [abs(fact.at - at) for fact in of_kind]
            least = min(distances, default=0)
            if least <= (farthest or least):
                values |= {
                    fact.value
                    for fact, distance in zip(of_kind, distances, strict=True)
                    if distance == least
                }
        return values

    def _is_one_of_several(self, ground: "Facts") -> bool:
        """Whether something is one here and several there: "an attempt", "two attempts"."""
        return any(
            fact.kind == _NUMBER
            and fact.value != "1"
            and fact.at + 1 in ground._words.get(word, ())
            for word, places in self._words.items()
            if any(at - 1 in self._ones for at in places)
            for fact in ground.found
        )


def _facts_at(words: Sequence[str], at: int, language: str) -> list[Fact]:
    word = words[at]
    if _DATE.fullmatch(word):
        return [Fact(_DATED, word, at)]
    if word[0].isdigit() and not word[-1].isalpha():
        value = re.sub("[,:]", ".", word)
        following = words[at + 1 : at + 3]
        is_share = following[:1] in (["%"], ["percent"]) or following == ["por", "ciento"]
        return [Fact(_SHARE if is_share else _NUMBER, value, at)]
    if "-" in word:
        return [Fact(_CODE, word, at)]
    if word in (numbers := _number_words().get(language, {})):
        return [Fact(_NUMBER, numbers[word], at)]
    return [Fact(group, member, at) for group, member in _contrasts().get(word, ())]


@functools.cache
def _number_words() -> dict[str, dict[str, str]]:
    text = resources.files("rag_worker").joinpath("texts", "numbers.toml")
    return tomllib.loads(text.read_text(encoding="utf-8"))


@functools.cache
def _contrasts() -> dict[str, list[tuple[str, str]]]:
    """Each word of the list with its groups and which member of them it is."""
    text = resources.files("rag_worker").joinpath("texts", "contrasts.txt")
    found: dict[str, list[tuple[str, str]]] = {}
    for line in text.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            members = [member.split() for member in line.split("|")]
            for member in members:
                for word in member:
                    found.setdefault(word, []).append((members[0][0], member[0]))
    return found
