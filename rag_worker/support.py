"""Checks what the model wrote against the passages."""

import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from rag_worker.dates import without_dates
from rag_worker.facts import Fact, Facts
from rag_worker.intent import is_yes_no
from rag_worker.language import fold, sentences, terms
from rag_worker.passages import Passage
from rag_worker.quoting import LIST_MARK, is_title
from rag_worker.wording import wording

SUPPORTED_SHARE = 0.75
"""So much of a sentence's own words (those not in the question) must stand in the passage."""
ORDERED_SHARE = 0.5
"""So many of its pairs of neighbouring words must follow each other there."""
_ORDER_GAP = 3
PARAPHRASED_SHARE = 0.5
PARAPHRASE = 0.93
"""With fewer words, down to this share, or in another order, its cosine with a sentence of the
passage must reach this: one in a hundred sentences of the same paragraph does."""
TRANSLATION = 0.88
"""Across languages the cosine decides. Of XQuAD's sentences 95 % reach this with their own
translation, and 0.3 % with another sentence of its paragraph."""
_NEAR_SENTENCES = 2
"""A sentence's words must stand together in so many neighbouring sentences of the passage."""
_FEWEST_WORDS = 3
"""Of a sentence without a number: fewer say nothing."""
_CITATION = re.compile(
    r"\s*[\[(]\s*(?:(?:passages?|pasajes?|sources?|fuentes?)\s*)(\d{1,2}(?:\s*[,;]\s*\d{1,2})*)\s*[\])]"
    r"|\s*\[\s*(\d{1,2}(?:\s*[,;]\s*\d{1,2})*)\s*\]",
    re.IGNORECASE,
)
_ANNOUNCEMENT = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|claro|por supuesto)\b[\s,.!:]*)?"
    r"(?:(?:(?:here (?:is|are)|here's|the answer|answer|aqu[ií] (?:est[aá]|tienes?)|la respuesta"
    r"|respuesta|in short|en resumen)\b[^:.\n]{0,60}:\s*)"
    r"|(?:according to|as stated in|based on|seg[uú]n)\s+(?:the\s+|el\s+)?(?:passage|pasaje)s?"
    r"\s*\[?\d*\]?,?\s*)?",
    re.IGNORECASE,
)
_OF_THE_PROMPT = re.compile(
    # JSON, and words about the passages, which the student does not see.
    r"""^\s*[\[{]|["']\s*:\s|\b(?:passages?|pasajes?)\s*(?:n[.o]*\s*)?\[?\d""",
    re.IGNORECASE,
)
_AFTER_STOP = re.compile(r"([.!?…])((?:\s*\[[\d\s,;]+\])+)")
_CODE = re.compile(r"(?:#|//|/\*|>>>|(?:def|return|import|from|print|if|for|while)\b[^.]*[(:=\"])")
_PROMPT_TAG = re.compile(r"</?(?:passage|question)[^>\n]*>?")  # small models copy them
_TAG = re.compile(r"</?\w[^>\n]*>")
_NEGATION = re.compile(
    r"\b(?:no|not|never|nor|neither|none|without|cannot|except|nunca|jam[aá]s|ni|ning[uú]n\w*|sin"
    r"|tampoco|salvo|excepto|unless)\b|n['’]t\b",
    re.IGNORECASE,
)
_YES_OR_NO = re.compile(r"^(?:yes|no|s[ií])\b[\s,.;:]*", re.IGNORECASE)
_DAYS = {
    *("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday", "january"),
    *("february", "march", "april", "may", "june", "july", "august", "september", "october"),
    *("november", "december"),
}
_LINK = re.compile(
    r"\b[a-z][a-z0-9+.-]*://[^\s<>]+|\b(?:mailto|tel|data|javascript):[^\s<>]+|//[^\s<>/]+\.[^\s<>]+"
    r"|\b[\w.+-]+@[\w.-]+|\b\d{1,3}(?:\.\d{1,3}){3}\S*|\b\w[\w-]*(?:[.。．｡]\w[\w-]*)*[.。．｡][^\W\d_]{2,}"
    r"(?:[/?#:][^\s<>]*)?",
    re.IGNORECASE,
)
"""What a mail program makes a link of by itself: addresses, with and without their beginning."""
_ABSTENTION = re.compile(r"not in the documents", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence of the answer, without citation marks, and what it rests on.

    Attributes:
        passage: counted from 0.
        ground: the words of the passage that support it.
    """

    text: str
    passage: int
    ground: str


Similarity = Callable[[str, Passage], tuple[float, str]]
"""The best cosine of a statement with a sentence of a passage, and that one."""


def is_abstention(answer: str) -> bool:
    """Whether the model says that the passages do not contain the answer."""
    return bool(_ABSTENTION.search(answer))


@dataclass(frozen=True, slots=True)
class Checked:
    """The sentences that may be sent, and how many the model wrote."""

    statements: list[Statement]
    written: int


def check(
    answer: str,
    passages: Sequence[Passage],
    question: str,
    language: str,
    *,
    today: date,
    similarity: Similarity,
) -> Checked:
    """Keep the sentences of ``answer`` that a passage supports, in order, each once.

    A passage supports a sentence when most of its words stand together in neighbouring sentences
    of one paragraph, which state the same facts (:mod:`rag_worker.facts`), have all its names, and
    deny something exactly where it does; or, with fewer of its words or in another language, when
    such a sentence is as near as a paraphrase or a translation. A cited passage that supports the
    sentence is kept; where none does, or nothing is cited, the passage that supports it best is
    cited instead.
    """
    now = wording(language).date(today)
    # To confirm is to say the question's own words again.
    given = now if is_yes_no(question) else f"{question}\n{now}"
    asked = _Asked(
        terms=set(terms(given, language)),
        facts=Facts(given, language),
        folded=fold(question),
    )
    grounds = [_Ground(passage, language, similarity) for passage in passages]
    proper = frozenset().union(*(ground.names for ground in grounds))
    statements: list[Statement] = []
    sentences_written = _cited_sentences(answer)
    for sentence, cited in sentences_written:
        claim = _Claim(sentence, language, proper)
        support = [ground.support(claim, asked) for ground in grounds]
        candidates = [at for at in cited if at < len(passages) and support[at][0] > 0]
        best = max(candidates or range(len(passages)), key=lambda at: support[at][0], default=None)
        if best is not None and support[best][0] and all(sentence != s.text for s in statements):
            statements.append(Statement(sentence, best, support[best][1]))
    return Checked(statements, len({sentence for sentence, _ in sentences_written}))


_NONE = (0.0, "")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a sentence may say without support: the question's words and the date."""

    terms: Set[str]
    facts: Facts
    folded: str


class _Claim:
    """A sentence that is checked."""

    def __init__(self, sentence: str, language: str, proper: Set[str]) -> None:
        self.text = sentence
        stated = _YES_OR_NO.sub("", sentence)
        self.terms = set(terms(stated, language))
        self.facts = Facts(stated, language)
        # A link can carry something out: only those of the documents are sent.
        self.links = [link.rstrip(".,;:!?)]}'\"»”*_") for link in _LINK.findall(sentence)]
        self.denies = _denies(stated)
        self.names = _names(stated) | (proper & set(re.findall(r"[^\W_]+", fold(stated))))


@dataclass(frozen=True, slots=True)
class _Line:
    """A sentence or row of a passage.

    Attributes:
        above: the headings and the first row of a table that it stands under.
        paragraph: the same for those that may support a sentence together.
    """

    text: str
    terms: Set[str]
    facts: Facts
    above: str
    paragraph: int


class _Ground:
    """A passage as the check looks at it."""

    def __init__(self, passage: Passage, language: str, similarity: Similarity) -> None:
        self._passage = passage
        self._language = language
        self._similarity = similarity
        self._is_foreign = passage.language != language
        lines = [*passage.text.splitlines(), *(path or "" for *_, path in passage.sections())]
        self._titles = [
            set(terms(line, language)) for line in lines if line.strip() and is_title(line.strip())
        ]
        self._lines = list(self._read())
        self._everywhere = set().union(*(line.terms for line in self._lines))
        above = "\n".join({line.above for line in self._lines})
        self._above = Facts(above, passage.language)
        self.names = frozenset().union(*(_names(line.text) for line in self._lines))

    def _read(self) -> Iterator[_Line]:
        text, spoken = self._passage.text, self._passage.language
        title, table_head, paragraph = "", "", 0
        end, former, section = 0, "", 0
        for begin, stop in sentences(text):
            line = text[begin:stop]
            first, _, path = self._passage.section_at(begin)
            gap = text[end:begin]
            is_row = " | " in line
            if "\n" in gap and (
                "\n\n" in gap or _is_apart(line) or _is_apart(former) or first != section
            ):
                paragraph += 1
            if first != section:
                title = ""
            if is_row and " | " not in former:
                # Figures are no names of columns.
                table_head = "" if re.search(r"\d", line) else line
            elif not is_row:
                table_head = ""
            above = "\n".join(filter(None, (path, title, table_head)))
            yield _Line(
                line, set(terms(line, self._language)), Facts(line, spoken), above, paragraph
            )
            if is_title(line) and "\n" in text[stop : stop + 1]:
                title = line
            end, former, section = stop, line, first

    def support(self, claim: _Claim, asked: _Asked) -> tuple[float, str]:
        """How well the passage supports the sentence; 0: not.

        Returns:
            The share of its words or the cosine, and the part of the passage that says it.
        """
        words = claim.terms - asked.terms
        # What only repeats a title is held by nothing.
        if not words or any(claim.terms <= title for title in self._titles):
            return _NONE
        # Looked up before anything is embedded: most of what is invented ends here.
        if not all(link in self._passage.text for link in claim.links) or not all(
            self._has(fact) or asked.facts.holds(fact) for fact in claim.facts.figures
        ):
            return _NONE
        share, near = _NONE if self._is_foreign else self._together(words, claim, asked)
        if share >= SUPPORTED_SHARE:
            return share, near
        if share < PARAPHRASED_SHARE and not self._is_foreign:
            return _NONE
        cosine, near = self._similarity(claim.text, self._passage)
        if cosine < (TRANSLATION if self._is_foreign else PARAPHRASE):
            return _NONE
        said = next((line for line in self._lines if near.strip() in line.text), None)
        if said is None:  # of two lines
            said = _Line(
                near, set(terms(near, self._language)), Facts(near, self._passage.language), "", 0
            )
        # A paraphrase, too, speaks of what the sentence has from the question.
        subject = claim.terms & asked.terms & self._everywhere
        speaks = self._is_foreign or subject <= said.terms
        agrees = speaks and _denies(near) == claim.denies and self._states([said], claim, asked)
        return (cosine, near) if agrees else _NONE

    def _has(self, figure: Fact) -> bool:
        return self._above.holds(figure) or any(line.facts.holds(figure) for line in self._lines)

    def _together(self, words: Set[str], claim: _Claim, asked: _Asked) -> tuple[float, str]:
        """The largest part of ``words`` that stands together, and where.

        A part of less than SUPPORTED_SHARE need not state the same; it may be a paraphrase. The
        one of those sentences that holds most of them denies something where it should, and speaks
        of what was asked: a word that the claim has from the question stands in it, in the one
        before it or above it, if it stands in the passage at all.
        """
        best = _NONE
        subject = claim.terms & asked.terms & self._everywhere
        for at, first in enumerate(self._lines):
            near = [
                line
                for line in self._lines[at : at + _NEAR_SENTENCES]
                if line.paragraph == first.paragraph
            ]
            above = set(terms(first.above, self._language))
            share = len(words & above.union(*(line.terms for line in near))) / len(words)
            nearest = max(range(len(near)), key=lambda one: len(words & near[one].terms))
            before = self._lines[max(0, at + nearest - 1)]
            spoken = near[nearest].terms | above
            if before.paragraph == first.paragraph:
                spoken |= before.terms
            if (
                share <= best[0]
                or _denies(near[nearest].text) != claim.denies
                or not subject <= spoken
            ):
                continue
            text = " ".join(line.text for line in near if words & line.terms)
            if share >= SUPPORTED_SHARE and not (
                self._states(near, claim, asked)
                and self._is_about(near[nearest], asked)
                and _keeps_order(claim.text, text, self._language)
            ):
                share = min(share, PARAPHRASED_SHARE)
            best = max(best, (share, text))
        return best

    def _states(self, near: Sequence[_Line], claim: _Claim, asked: _Asked) -> bool:
        """Whether sentences have all names of the claim, and state its facts and no others."""
        above = Facts(near[0].above, self._passage.language)
        text = fold("\n".join([near[0].above, *(line.text for line in near)]))
        # The days and months of another language are no names.
        names = claim.names - _DAYS if self._is_foreign else claim.names
        if not all(name in text or name in asked.folded for name in names):
            return False
        for fact in claim.facts.found:
            if any(line.facts.holds(fact) for line in near) or above.holds(fact):
                continue
            is_denied = not fact.is_figure and any(line.facts.denies(fact) for line in near)
            # Other words may say it in another language.
            is_free = asked.facts.holds(fact) or (self._is_foreign and not fact.is_figure)
            if is_denied or not is_free:
                return False
        return self._is_foreign or claim.facts.agrees([line.facts for line in near])

    def _is_about(self, line: _Line, asked: _Asked) -> bool:
        """Whether it is about whom or what the question names, and not about another."""
        own = _names(line.text)
        text = fold(f"{line.above}\n{line.text}")
        meant = [name for name in self.names if re.search(rf"\b{re.escape(name)}\b", asked.folded)]
        return not own or all(name in text for name in meant)


def _is_apart(line: str) -> bool:
    """Whether a line says something of its own: a row, an item of a list or a title."""
    return " | " in line or bool(LIST_MARK.match(line)) or is_title(line)


def _keeps_order(sentence: str, near: str, language: str) -> bool:
    """Whether most neighbouring words of a sentence do so in a sentence of ``near`` too.

    So must the first two, its subject and what is said of it: the same words in another order say
    another thing.
    """
    said = terms(without_dates(_YES_OR_NO.sub("", sentence)), language)
    followed = {
        (one, other)
        for begin, end in sentences(near)
        for held in [terms(near[begin:end], language)]
        for at, one in enumerate(held)
        for other in held[at + 1 : at + 1 + _ORDER_GAP]
    }
    pairs = list(pairwise(said))
    kept = sum(pair in followed for pair in pairs)
    return set(pairs[:1]) <= followed and kept >= ORDERED_SHARE * len(pairs)


def _denies(text: str) -> bool:
    return bool(_NEGATION.search(text))


def _cited_sentences(answer: str) -> list[tuple[str, list[int]]]:
    """The sentences without their marks, and the passages each cites, counted from 0."""
    answer = _PROMPT_TAG.sub("\n", answer)
    answer = _AFTER_STOP.sub(lambda match: f"{match[2]}{match[1]}", answer)
    found = []
    for begin, end in sentences(answer):
        sentence = answer[begin:end]
        cited = [
            int(number) - 1
            for mark in _CITATION.finditer(sentence)
            for number in re.findall(r"\d+", mark[0])
            if int(number) > 0
        ]
        text = LIST_MARK.sub("", _CITATION.sub("", sentence)).strip()
        if (announced := _ANNOUNCEMENT.match(text)) and announced[0]:
            text = text[announced.end() :]
            text = text[:1].upper() + text[1:]
        # A tag alone, a word or two, an announcement, a question and a line of code say nothing.
        said = _TAG.sub("", text)
        is_substantial = len(said.split()) >= _FEWEST_WORDS or re.search(r"\d", said)
        is_fragment = (
            text.rstrip(". ").endswith(("?", ":", "-", "–"))
            or _CODE.match(text)
            or _OF_THE_PROMPT.search(text)
        )
        if is_substantial and not is_fragment:
            found.append((text, cited))
    return found


def _names(sentence: str) -> set[str]:
    """Words with a capital inside a sentence, and those that hold digits, such as 1N4007."""
    words = re.findall(r"[^\W_]+", sentence)
    return {
        fold(word)
        for at, word in enumerate(words)
        if (at > 0 and word[0].isupper() and len(word) > 1)
        or (any(c.isdigit() for c in word) and any(c.isalpha() for c in word))
    }
