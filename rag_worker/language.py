"""Words, sentences and the language they are in."""

import functools
import re
import threading
import unicodedata
from importlib import resources

import snowballstemmer

from rag_worker.dates import date_terms, without_dates

LANGUAGES = ("es", "en")
"""Languages that answers are written in."""
_DOCUMENT_LANGUAGES = (
    *("es", "en", "ca", "gl", "eu", "pt", "fr", "it", "de", "nl", "ro", "pl", "cs", "sv", "da"),
    *("el", "ru", "uk", "tr", "ar", "he", "fa", "hi", "zh", "ja", "ko"),
)
"""Those that course documents may be in. Of all 97 that are known, short texts full of names and
abbreviations are often taken for one that nobody teaches in."""
_SHORT_DOCUMENT = 200
"""Characters; up to so many, names and terms decide, which are alike in many languages."""
_LAST_LATIN = "\u024f"
_LONG_QUESTION = 4
"""Words; fewer may well have no little word among them."""
_SPANISH_SIGNS = re.compile(r"[¿¡ñáéíóú]", re.IGNORECASE)
_STEMMERS = {"es": "spanish", "en": "english"}
_WORD = re.compile(r"[^\W_]+(?:[.,]\d+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"»”')\]]*\s+(?=[\"«“'(\[¿¡]?[A-ZÁÉÍÓÚÑ0-9])|\n+")
_ABBREVIATION = re.compile(
    # An initial, but not a unit after its number: "J. Pérez", "5 V. La fuente".
    r"(?:(?<!\d )\b[A-ZÁÉÍÓÚÑ]|\b(?:Ej|ej|Fig|fig|Ec|ec|Sr|Sra|Dr|Dra|Prof|pág|págs|núm|vol|cap"
    r"|approx|vs|e\.g|i\.e|p\. ?ej|etc))\.$"
)


def document_language(text: str) -> str:
    """The two-letter code of the language of a document's text.

    The model behind it takes 76 MB, so it is loaded only where documents are indexed.
    """
    from py3langid.langid import rank  # noqa: PLC0415

    taught = _DOCUMENT_LANGUAGES if len(text) > _SHORT_DOCUMENT else LANGUAGES
    return next(str(code) for code, _ in rank(text) if code in taught)


def question_language(question: str, default: str) -> str:
    """Which of :data:`LANGUAGES` to answer in; ``default`` where the question does not show it.

    Counts the languages' little words: right for all but one of XQuAD's 2,380 questions, typed
    with accents and opening marks or without.
    """
    votes = _votes(question)
    best = max(votes, key=votes.__getitem__)
    return best if list(votes.values()).count(votes[best]) == 1 else default


def shows_language(question: str) -> bool:
    """Whether a question has little words of :data:`LANGUAGES`, not of others.

    Of a short one in Latin letters it is taken for granted.
    """
    words = [word.casefold() for word in _WORD.findall(question)]
    letters = [character for word in words for character in word if character.isalpha()]
    if sum(character > _LAST_LATIN for character in letters) > len(letters) / 2:
        return False
    others = sum(word in _other_words() for word in words)
    votes = max(_votes(question).values()) - sum(word in ("a", "à") for word in words)
    return len(words) < _LONG_QUESTION or votes > others


def _votes(question: str) -> dict[str, int]:
    words = [fold(word) for word in _WORD.findall(question)]
    votes = {
        language: sum(word in _stop_words(language) for word in words) for language in LANGUAGES
    }
    votes["es"] += len(_SPANISH_SIGNS.findall(question))
    return votes


def sentences(text: str) -> list[tuple[int, int]]:
    """Where the sentences of ``text`` begin and end; lines of tables and lists count as such."""
    spans = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        head = text[start : match.start()]
        is_inside_line = "\n" not in match[0]
        if is_inside_line and (_ABBREVIATION.search(head) or _is_in_row(text, match.start())):
            continue
        spans.append((start, match.start() + len(match[0].rstrip())))
        start = match.end()
    spans.append((start, len(text)))
    return [(begin, end) for begin, end in spans if text[begin:end].strip()]


def _is_in_row(text: str, at: int) -> bool:
    begin, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
    return " | " in text[begin : end if end >= 0 else None]


def fold(text: str) -> str:
    """``text`` in lower case and without accents, as students type it."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def terms(text: str, language: str) -> list[str]:
    """The words of ``text`` that carry meaning, as stems without accents, in order.

    Its dates follow, in one form however they are written.
    """
    found = (_term(word, language) for word in _WORD.findall(text))
    return [term for term in found if term] + date_terms(text)


def query_terms(question: str, language: str) -> list[str]:
    """What to look for: a date as a whole and twice as much as a word, not its day and month."""
    return terms(without_dates(question), language) + 2 * date_terms(question)


@functools.lru_cache(maxsize=200_000)
def _term(word: str, language: str) -> str:
    """The stem of a word as it is written; empty for a word that carries no meaning."""
    word = fold(word)
    if word in _stop_words(language):
        return ""
    if language not in _STEMMERS:
        return word
    if language == "es":
        # The stemmer knows this ending with its accent only.
        word = re.sub(r"([cs])ion$", r"\1ión", word)
    return fold(_local_stemmer(language).stemWord(word))


_stemmers = threading.local()


def _local_stemmer(language: str) -> snowballstemmer.stemmer:
    # A stemmer holds the word it works on: one for each thread.
    if not hasattr(_stemmers, language):
        setattr(_stemmers, language, snowballstemmer.stemmer(_STEMMERS[language]))
    return getattr(_stemmers, language)


@functools.cache
def _other_words() -> frozenset[str]:
    text = resources.files("rag_worker").joinpath("texts", "stopwords.others.txt")
    return frozenset(text.read_text(encoding="utf-8").split())


@functools.cache
def _stop_words(language: str) -> frozenset[str]:
    if language not in LANGUAGES:
        return frozenset()
    text = (
        resources.files("rag_worker")
        .joinpath("texts", f"stopwords.{language}.txt")
        .read_text(encoding="utf-8")
    )
    return frozenset(fold(word) for word in text.split())
