"""Whether the documents say what a question asks for, on a topic that they do treat.

A syllabus that has much on the final exam may still not name its room, and retrieval finds the
same passages either way. So a question is read for the kind of thing it asks for (a date, a room,
a telephone number, how many of something), and the window that fits it best is looked through for
such a thing. ``docs/answerability.md`` has the figures, ``benchmarks/answerability.py`` gets them.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rag_worker.intent import is_yes_no
from rag_worker.language import fold, query_terms, sentences, terms

_LACKING = 0.6
"""The share of its probability that a question keeps whose best window has nothing of what it asks
for. It is marked as uncertain whatever is left; a smaller share would refuse answerable ones."""
COVERAGE_WEIGHT = 0.08
"""In cosines: what a window gains by holding all the question's words."""
_COUNTED_AFTER = 3
_COUNTED_BEFORE = 2
"""How many words from its number a thing that is counted stands: "two sheets", "credits: 4"."""


class Sought(StrEnum):
    """The kind of thing that a question asks for, where such things can be recognised."""

    TELEPHONE = "telephone"
    ADDRESS = "address"
    """Of e-mail, or of a site."""
    MONEY = "money"
    PERCENTAGE = "percentage"
    TIME = "time"
    """Of the day."""
    LENGTH = "length"
    """Of something that lasts, or of a text."""
    COUNT = "count"
    """How many there are of something that the question names."""
    DATE = "date"
    AMOUNT = "amount"
    ROOM = "room"
    PERSON = "person"


CLEAR_FORMS = frozenset(
    {
        *(Sought.TELEPHONE, Sought.ADDRESS, Sought.MONEY, Sought.PERCENTAGE, Sought.TIME),
        *(Sought.DATE, Sought.ROOM),
    }
)
"""Things that are not written in many other ways: a text without their form lacks them."""


@dataclass(frozen=True, slots=True)
class Window:
    """A window of a passage that was found.

    Attributes:
        heading: the passage's path of headings.
        language: the passage's.
        dense: cosine of question and window, above what is usual in the passage's language.
    """

    text: str
    heading: str | None
    language: str
    dense: float


_NUMBER = (
    r"(?:\d[\d.,]*|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|once|twice|half"
    r"|both|single|zero|none|una?|uno|dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez|once|doce"
    r"|media|mitad|ambos|ambas|ningun\w*|cero)"
)
_SPAN = (
    r"(?:minut\w*|min|hours?|hrs?|horas?|days?|dias?|weeks?|semanas?|months?|mes(?:es)?|years?"
    r"|anos?|seconds?|segundos?|centur\w+|siglos?|decad\w+|words?|palabras?|pages?|paginas?)"
)
_DAY = (
    r"(?:january|february|march|april|may|june|july|august|september|october|november|december"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|enero|febrero|marzo|abril|mayo|junio|julio"
    r"|agosto|sep?tiembre|octubre|noviembre|diciembre|ene|abr|ago|dic"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|lunes|martes|miercoles|jueves|viernes"
    r"|sabados?|domingos?)"
)
_EVENT = (
    r"\b(?:exam|midterm|final|quiz|test|due|deadline|hand|submi|turn|class|lecture|lab|session|start"
    r"|begin|meet|open|clos|present|project|homework|assign|essay|office|parcial|entreg|clase|plazo"
    r"|empieza|comienza|acaba|termina|tutoria|practica|recupera|publica|proyecto|tarea|receso"
    r"|vacacion|ensayo)"
)
_MEETING = (
    r"\b(?:exam|midterm|final|quiz|class|lecture|lab|session|office|parcial|clase|tutoria|despacho)"
)
_WHAT = r"\b(?:what|which|que|q|cual(?:es)?)\b"
_KEYWORDS = r"^\W*(?:(?:the|el|la)\W+)?"
_OF = r"\W+(?:of|for|del?)\b"
"""A few keywords alone: "phone number of the lab", "correo de la profesora"."""
_NEAR = r"(?:\W+\w+){0,4}?\W+"
"""What is asked for stands a few words after the question word, not anywhere in the question."""

# Of folded questions; the first that fits.
_READINGS = {
    Sought.TELEPHONE: rf"{_WHAT}{_NEAR}(?:phone|telephone|telefono)\b"
    rf"|{_KEYWORDS}(?:(?:tele)?phone(?: number)?|(?:numero de )?telefono){_OF}"
    r"|\b(?:contact|reach|call)\b.{0,60}\bphone\b",
    Sought.ADDRESS: rf"{_WHAT}{_NEAR}(?:e-?mails?|correos?|mail|web ?site|url|pagina web)\b"
    rf"|{_KEYWORDS}(?:e-?mail(?: address)?|correo(?: electronico)?|mail|web ?site|pagina web){_OF}"
    r"|\b(?:contact|reach|write to)\b.{0,60}\be-?mail\b",
    Sought.MONEY: r"\bhow much\b.{0,60}\b(?:costs?|pay)\b|\bcuanto (?:cuestan?|salen?|se paga)\b"
    rf"|{_WHAT}{_NEAR}(?:costs?|prices?|fees?|precios?|costos?|coste)\b",
    Sought.PERCENTAGE: rf"\bhow many percent\b|{_WHAT}{_NEAR}(?:percent(?:age)?|porcentajes?)\b",
    Sought.TIME: rf"{_WHAT}\W+(?:time|hour|hora|horarios?)\b",
    Sought.LENGTH: rf"\bhow (?:long|much time|many {_SPAN})\b|\bcuanto (?:tiempo|duran?)\b"
    rf"|\bcuant[oa]s {_SPAN}\b",
    Sought.COUNT: r"\bhow many\b|\bcuant[oa]s\b",
    # Of other things "when" asks for a condition: "when is momentum conserved?"
    Sought.DATE: r"^\W*(?:\w+\W+){0,2}?"
    rf"(?:when (?:was|were|did|will)|(?:when|cuando)\b(?=.*{_EVENT}))"
    rf"|{_WHAT}{_NEAR}(?:dates?|days?|year|fechas?|dias?|ano)\b",
    Sought.AMOUNT: r"\bhow (?:much|large|big|high|often|fast)\b|\bcuant[oa]\b",
    Sought.ROOM: rf"{_WHAT}\W+(?:room|building|aula|sala|salon|edificio)\b"
    rf"|{_KEYWORDS}(?:room|aula|sala|salon){_OF}"
    rf"|^\W*(?:\w+\W+){{0,2}}?(?:where (?:is|are|will)|donde (?:es|son|sera|esta|tiene lugar))\b"
    rf"(?=.*{_MEETING})",
    Sought.PERSON: r"^\W*(?:\w+\W+)?(?:who|quien(?:es)?)\b",
}
_IS_KEYWORDS = re.compile(
    rf"{_KEYWORDS}(?:(?:tele)?phone|(?:numero de )?telefono|e-?mail|correo|mail|web|pagina web|room"
    rf"|aula|sala|salon)\b(?=.*{_OF})"
)
_QUESTIONS = {sought: re.compile(pattern) for sought, pattern in _READINGS.items()}

# In folded windows.
_FORMS = {
    Sought.TELEPHONE: r"\(?\b\d{2,4}\)?[\s.-]\d{3}[\s.-]?\d{2,4}|\b\d{7,}\b|\bext\b",
    Sought.ADDRESS: r"@|https?:|www\.",
    Sought.MONEY: r"[$€£]\s*\d|\d\s*(?:[$€£]|dollars?|euros?|pesos|usd)|\bgrati?s|\bgratuit"
    r"|(?<!feel )\bfree\b",
    Sought.PERCENTAGE: r"\d\s*(?:%|percent|por ciento)",
    Sought.TIME: r"\d{1,2}[:.]\d\d|\b\d{1,2}\s*(?:[ap]\.?\s?m\b|h\b|hs\b|hrs?\b|horas\b)"
    r"|\b(?:noon|midnight|mediodia|medianoche)\b",
    Sought.LENGTH: rf"\b(?:{_NUMBER}|an?)(?:\W+\w+)?\W+{_SPAN}\b"
    r"|\d[:.]\d\d\s*(?:[ap]\.?m\.?\s*)?(?:-|–|a|to|until|hasta)\s*(?:las\s*)?\d",
    Sought.COUNT: rf"\b{_NUMBER}\b",
    Sought.DATE: rf"\b(?:1\d|20)\d\d\b|\b\d{{1,2}}[/.-]\d{{1,2}}\b|\b{_DAY}\b"
    r"|\b(?:week|semana|session|sesion)\s*\d|\b(?:siglo|decad|centur)"
    r"|\b(?:before|after|until|within|antes|despues|hasta)\b",
    Sought.AMOUNT: rf"\b{_NUMBER}\b",
    Sought.ROOM: r"\b(?:rooms?|halls?|buildings?|aulas?|salas?|salon|edificio|despachos?|offices?"
    r"|auditori\w+|laborator\w+|online|zoom|teams|campus)\b",
}
_THINGS = {sought: re.compile(pattern) for sought, pattern in _FORMS.items()}

# In windows as they are written.
_ROOM_CODE = re.compile(r"\b[A-Z]{1,4}[ -]?\d{2,4}[A-Z]?\b")
_NAME = re.compile(
    r"\b(?:Dr|Prof|Mr|Ms|Mrs|Sra?|Lic|Ing)\b|(?<=[^\s.!?…:]\s)[A-ZÁÉÍÓÚÑ][a-záéíóúñ]{2,}"
    r"|[A-ZÁÉÍÓÚÑ][\w-]+\s+[A-ZÁÉÍÓÚÑ][\w-]+"
)
_HOW_MANY = re.compile(r"\b(how many|cuant[oa]s)\s+(?!somos\b)((?:[\w-]+\s*){1,4})")
_ASKS_WHAT_IT_IS = re.compile(
    r"\b(?:(?:que|q) (?:dice|es|son|significan?|establece)|what(?:'s| is| are)"
    r"|what does\b.*\b(?:say|state|mean)|(?:define|definition|definicion) )"
)
_SAYS_WHAT_IT_IS = re.compile(
    r"\b(?:es (?:una?|el|la|decir)|establecen?|enuncia|defin\w+|denominan?|llaman?|significan?"
    r"|is (?:an?|the)|states?|means?|refers?|called)\b"
)
_WORD = re.compile(r"\w+")
_IS_NUMBER = re.compile(_NUMBER)


def answerability(question: str, language: str, windows: Sequence[Window]) -> float:
    """How likely the documents say what the question asks for, if they treat its topic at all.

    It multiplies the probability that they do (:meth:`rag_worker.retrieval.Retriever.evidence`),
    so that the same two thresholds make the three outcomes.

    Args:
        windows: all those of the passages that were found.
    """
    return _LACKING if is_lacking(question, language, windows) else 1.0


def sought_by(question: str) -> Sought | None:
    """The kind of thing that ``question`` asks for; None where it has no form to look for."""
    asks = not is_yes_no(question)
    for folded in (fold(question[begin:end]) for begin, end in sentences(question)):
        for sought, form in _QUESTIONS.items():
            if form.search(folded) and (asks or _IS_KEYWORDS.search(folded)):
                return sought
    return None


def looks_for(question: str, language: str) -> Callable[[str, str], bool]:
    """What tells whether a text in some language has a thing of the kind that is asked for.

    A definition is such a thing too. It is always true of a question that asks for nothing of a
    kind.
    """
    sought = sought_by(question)
    is_defined = sought is None and bool(_ASKS_WHAT_IT_IS.search(fold(question)))
    thing = _counted_thing(question, language) if sought is Sought.COUNT else None

    def is_there(text: str, spoken: str) -> bool:
        folded = fold(text)
        if sought is None:
            return not is_defined or bool(_SAYS_WHAT_IT_IS.search(folded))
        if sought is Sought.PERSON:
            return bool(_NAME.search(text))
        if thing is not None and spoken == language:
            return _is_counted(thing, folded, language)
        if sought is Sought.ROOM and _ROOM_CODE.search(text):
            return True
        return bool(_THINGS[sought].search(folded))

    return is_there


def is_lacking(question: str, language: str, windows: Sequence[Window]) -> bool:
    """Whether a kind of thing is asked for that the window which fits best has nothing of."""
    if sought_by(question) is None or not windows:
        return False
    best = _best(question, language, windows)
    return not looks_for(question, language)(best.text, best.language)


def _best(question: str, language: str, windows: Sequence[Window]) -> Window:
    """The window that is nearest to the question in meaning and in words, by their rarity here."""
    asked = set(query_terms(question, language))
    held = [
        asked.intersection(terms(f"{window.heading or ''}\n{window.text}", language))
        if window.language == language
        else set()
        for window in windows
    ]
    rarity = {}
    for word in asked:
        having = sum(word in words for words in held)
        rarity[word] = math.log(1 + (len(windows) - having + 0.5) / (having + 0.5))
    total = sum(rarity.values()) or 1.0

    def fitness(at: int) -> float:
        coverage = sum(rarity[word] for word in held[at]) / total
        return windows[at].dense + COVERAGE_WEIGHT * coverage

    return windows[max(range(len(windows)), key=fitness)]


def _counted_thing(question: str, language: str) -> str | None:
    """The stem of what "how many" is about: "sheets" in "how many cheat sheets can I take"."""
    match = _HOW_MANY.search(fold(question))
    if match is None:
        return None
    stems = []
    for word in _WORD.findall(match[2]):
        found = terms(word, language)
        if not found:
            break
        stems += found
    # A Spanish noun leads its adjectives, an English one follows them.
    return (stems[0] if match[1] != "how many" else stems[-1]) if stems else None


def _is_counted(thing: str, folded: str, language: str) -> bool:
    words = _WORD.findall(folded)
    for at, word in enumerate(words):
        if _IS_NUMBER.fullmatch(word):
            near = words[max(0, at - _COUNTED_BEFORE) : at + 1 + _COUNTED_AFTER]
            if thing in terms(" ".join(near), language):
                return True
    return False
