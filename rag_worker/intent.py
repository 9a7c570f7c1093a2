"""What a student's message wants, by its words: nothing here asks a model."""

import re
from dataclasses import dataclass
from enum import StrEnum

from rag_worker.language import fold, sentences, terms

MOST_PARTS = 4
"""Questions of one message that are answered one by one."""
_FEW_WORDS = 2
"""A question with so few may be short for what was asked before."""


class Scope(StrEnum):
    """How much of the documents a question is about."""

    POINT = "point"
    """One fact or one explanation: the best passages hold it."""
    LIST = "list"
    """Everything of a kind, such as all exam dates: it may be spread over many passages."""
    SUMMARY = "summary"
    """A whole document, unit or section."""


_GREETING = re.compile(
    r"^(?:hola|holi|buenas?|buenos|dias|tardes|noches|saludos|hey|hi|hello|dear|good|morning"
    r"|afternoon|evening|night|gracias|muchas|mil|thanks?|you|thank|so|very|much|a|lot|ok|okay|vale"
    r"|perfecto|genial|great|adios|bye|hasta|luego|pronto|profe|profesor|profesora|professor|sir"
    r"|estimado|estimada|todos|everyone|there|que|tal|como|estas|how|are|test|prueba|probando"
    r"|testing|cheers|un|saludo|cordial|regards|best|kind|feliz|dia|is|anyone|anybody|hay|alguien"
    r"|ahi|please|por|favor|de|nada|entendido|understood|got|it|todo|everything|all|ayuda|help|me"
    r"|ayudame|tengo|una|pregunta|duda|dudas|i|have|question|questions)$"
)
_HELLO = re.compile(
    r"^\W*(?:hola|hey|hi|hello|buenas(?: tardes| noches)?|buenos d[ií]as"
    r"|good (?:morning|afternoon|evening)|bonjour)(?: (?:a todos|everyone|there|prof\w*))?"
    r"\s*[,.:;!]+\s*(?=[^\W_]|[¿¡(\"'«“])",
    re.IGNORECASE,
)
# Commands stand at the beginning of a sentence: inside a question the same words ask something.
_RULES = (
    r"(?:(?:all|any|every|of|the|your|my|these|those|previous|prior|above|earlier|system|todas?"
    r"|todos?|l[ao]s?|tus?|mis?|est[ao]s|es[ao]s|previ[ao]s|anterior(?:es)?|del?|sistema)\s+){1,6}"
    r"(?:instructions?|rules?|prompts?|messages?|instruccion(?:es)?|reglas?|ordenes|mensajes?)\b"
    r"(?:\s+(?:above|before|given|anterior(?:es)?|previ[ao]s|que\s+\w+|del\s+sistema))*"
    # "The instructions for lab 3" are the course's own.
    r"(?!\s+(?:of|for|on|in|about|del?|para|sobre|en)\b)"
)
_CONNECTOR = r"(?:\s*(?:[,:;]|\b(?:and|then|y|luego)\b))*\s*"
_COMMAND = re.compile(
    r"(?:please\s+|por\s+favor,?\s+|now,?\s+|ahora\s+|(?:and|then|y|luego)\s+)*(?:"
    # What follows it may be a question.
    r"(?:ignor[ea]n?|disregard|forget|olvida(?:te)?|override|bypass|salta(?:te)?)\s+(?:de\s+)?"
    rf"(?:{_RULES}|everything\s+(?:above|before)|todo\s+lo\s+anterior){_CONNECTOR}"
    rf"|(?:system|assistant|developer)\s*(?:prompt|message)?\s*:{_CONNECTOR}"
    # These take the sentence with them.
    r"|(?:you\s+are\s+now|from\s+now\s+on|act\s+as|pretend\s+(?:to\s+be|that)|repeat\s+after\s+me"
    r"|(?:say|tell\s+me)\s+that|say\s+[\"'“]|eres\s+ahora|ahora\s+eres|actua\s+como|haz\s+como\s+si"
    r"|finge\s+(?:ser|que)|(?:de|a\s+partir\s+de)\s+ahora|repite\s+conmigo|di\s+que)\b[^\n]*"
    r"|(?:print|reveal|show|repeat|output|imprime|muestra|revela|repite)(?:\s+(?:me|us))?\s+"
    rf"(?:{_RULES}|system\s+prompt)[^,;\n]*{_CONNECTOR}"
    rf"|(?:what\s+are|what\s+is|cuales\s+son|cual\s+es)\s+(?=your|tus?\b){_RULES}[^\n]*"
    r")"
)
_EVERY = re.compile(r"\b(?:all|every|each|todos?|todas?|cada)\b")
_HOW_TO = re.compile(
    r"\b(?:how (?:do|does|can|could|should|would|to)|(?:is there|what is|what's) an? way"
    r"|como (?!(?:son|estan|se (?:compone|reparte|distribuye))))\b"
)
"""A way is asked for, though to all of something: "how do I get all the keys"."""
_LIST = re.compile(
    r"\b(?:list|lists|both|enumerate|several|breakdown|schedule|made up"
    r"|put together|counts? (?:towards?|for)"
    r"|lista|listado|enumera\w*|ambos|ambas|varios|varias|cuales|desglose"
    r"|compone|calendario|cronograma"
    r"|(?:the|our|los|las) (?:two|three|four|five|six|dos|tres|cuatro|cinco|seis)"
    # A plural that is asked for.
    r"|(?:which|what) (?!(?:is|was|does|has|this|class|happens|process)\b)\w{3,}s"
    r"|what are (?:the|our|my)|que \w{3,}[aeo]s|cuando son|when are|where are|donde son)\b"
)
_SUMMARY = re.compile(
    r"\b(?:summary|summari[sz]e|summari[sz]ing|overview|outline|resumen|resume|resumir|resumeme"
    r"|sintesis|esquema|de que (?:trata|va)|main (?:ideas|points|topics)|ideas principales"
    r"|what is [^?!.]{1,60} about)\b"
)
_SUMMARY_WORDS = re.compile(
    r"\b(?:short|brief|quick|complete|make|write|need|provide|summary|summari[sz](?:e|ing)|overview"
    r"|outline|general|main|ideas?|points?|about|breve|corto|completo|haz(?:me)?|dame|escribe(?:me)?"
    r"|necesito|resumen|resume|resumir|resumeme|sintesis|esquema|trata|principales)\b"
)
"""What says that a summary is wanted, not of what."""
_COURSE_WORDS = re.compile(
    r"\b(?:course|subject|class|semester|whole|entire|everything|curso|asignatura|materia|clase"
    r"|semestre|enter[oa]|please|porfa(?:vor)?|por favor)\b"
)
"""What names all of it, or nothing."""
_WHOLE_WORDS = re.compile(
    r"\b(?:syllabus|notes?|documents?|files?|materials?|text|topics?|unit|chapter|lesson|module"
    r"|section|programa|apuntes|documentos?|archivos?|fichero|materiales|texto|temas?|unidad"
    r"|capitulo|leccion|modulo|seccion)\b"
)
"""What names a part of any course."""
_ASKS_FOR_MORE = re.compile(
    r"\b(?:what|when|where|who|whom|whose|which|why|how|que|q|cual(?:es)?|cuando|donde|quien(?:es)?"
    r"|cuant[oa]s?|como|list|name|explain|describe|define|tell|give|explica\w*|describe"
    r"|define|dime|enumera|nombra)\b"
)
_UNIT_WORDS = (
    *("unit|unidad", "chapter|capitulo", "topic|tema", "lesson|leccion", "module|modulo"),
    *("part|parte", "block|bloque", "section|seccion", "lecture|clase", "week|semana"),
    *("lab|practica", "session|sesion"),
)
"""A line for each kind of part that courses number."""
_NUMBER = r"\s*(?:n[.o]*\s*)?(?P<number>\d{1,3}|[ivx]{1,4})\b"
_UNIT = re.compile(rf"\b(?P<word>{'|'.join(_UNIT_WORDS)}){_NUMBER}")
_OF_UNIT = re.compile(rf"{_UNIT.pattern}\s+(?:of|on|about|del?|sobre)\b(?P<subject>[^?!.]*)")
_BARE_NUMBER = re.compile(r"^\W*(?P<number>\d{1,3})(?=[.)]?\s)")
_ROMAN = {
    "i": 1,
    "ii": 2,
    "iii": 3,
    "iv": 4,
    "v": 5,
    "vi": 6,
    "vii": 7,
    "viii": 8,
    "ix": 9,
    "x": 10,
}
_NUMBERED = re.compile(r"(?<!\S)(\d{1,2}|[a-dA-D])\s*[.)]\s+(?=\S)")
_ANNOUNCES = re.compile(r"\b(?:duda|dudas|pregunta|preguntas|question|questions|consulta)\b")
_ASKS = re.compile(r"[?¿]")
_FOLLOWS = re.compile(
    r"^\W*(?:and|or|but|also|(?:what|how) about|y|e|o|u|pero|tambien|que hay del?|que pasa con)\b"
)
_TESTS = re.compile(r"\b(?:test|prueba)\b")
_REFERS_BACK = re.compile(
    r"\b(?:it|its|they|them|their|this|that|these|those|esto|eso|ello|este|ese|estos|esos|estas"
    r"|esas|dich[oa]s?|su|sus|ellos|ellas|diferencian)\b"
)


@dataclass(frozen=True, slots=True)
class Message:
    """A student's message taken apart.

    Attributes:
        questions: what is asked, one after another, at most :data:`MOST_PARTS`; empty where the
            message only greets, thanks or says nothing.
        was_commanding: whether it told the program to break its rules; that part is left out.
        left_out: how many further questions there were.
    """

    questions: tuple[str, ...]
    was_commanding: bool = False
    left_out: int = 0


class Reference(StrEnum):
    """How much a question needs the one before it."""

    NEEDED = "needed"
    """It says nothing without it, as "And the second?" does."""
    POSSIBLE = "possible"
    """It is short or has a word that may refer back."""
    NONE = "none"


def read_message(text: str, language: str, *, is_reply: bool = False) -> Message:
    """Take a message apart: greetings, commands to the program, and the questions.

    Args:
        is_reply: it follows an answer, so that "And when?" asks something.
    """
    kept, was_commanding = _without_commands(text)
    questions: list[str] = []
    for part in _parts(kept):
        if questions and _depends(part, language):
            questions[-1] = f"{questions[-1]} {part}"
        elif _says_something(part, language) or (is_reply and _asks(part)):
            questions.append(part)
    left_out = max(0, len(questions) - MOST_PARTS)
    return Message(tuple(questions[:MOST_PARTS]), was_commanding, left_out)


def reference_of(question: str, language: str) -> Reference:
    """Whether a question that follows an answer can be understood without what was asked there."""
    words, folded = len(terms(question, language)), fold(question)
    if _is_fragment(words, folded):
        return Reference.NEEDED
    is_possible = words <= _FEW_WORDS or _FOLLOWS.match(folded) or _REFERS_BACK.search(folded)
    return Reference.POSSIBLE if is_possible else Reference.NONE


def scope_of(question: str) -> Scope:
    """How much of the documents ``question`` is about."""
    folded = fold(question)
    if _SUMMARY.search(folded):
        return Scope.SUMMARY
    is_list = _LIST.search(folded) or (_EVERY.search(folded) and not _HOW_TO.search(folded))
    return Scope.LIST if is_list else Scope.POINT


@dataclass(frozen=True, slots=True)
class Unit:
    """A numbered part of a course, as a question or a heading names it.

    Attributes:
        kind: "unit", "chapter", … the same in both languages; None for a number alone.
    """

    number: int
    kind: str | None


def unit_of(text: str) -> Unit | None:
    """The unit, chapter or week that ``text`` names, by its word or by a number in front."""
    folded = fold(text)
    match = _UNIT.search(folded)
    if match is not None and (number := _value(match["number"])) is not None:
        kind = next(words for words in _UNIT_WORDS if match["word"] in words.split("|"))
        return Unit(number, kind)
    match = _BARE_NUMBER.search(folded)
    return Unit(int(match["number"]), None) if match else None


def named_unit(question: str) -> Unit | None:
    """The unit that ``question`` names by its word."""
    unit = unit_of(question)
    return unit if unit and unit.kind else None


def has_unit(text: str, unit: Unit) -> bool:
    """Whether ``text`` names ``unit`` somewhere."""
    return any(
        _value(match["number"]) == unit.number and match["word"] in (unit.kind or "").split("|")
        for match in _UNIT.finditer(fold(text))
    )


def subject_of_summary(question: str) -> str:
    """What a question for a summary wants it of, folded; empty for the whole course.

    A unit that it names by its number is not in it.
    """
    return _COURSE_WORDS.sub(" ", _SUMMARY_WORDS.sub(" ", _UNIT.sub(" ", fold(question))))


def subject_of_unit(question: str) -> str:
    """What the unit that ``question`` names is said to be of, folded: "unit 2 of the novel"."""
    match = _OF_UNIT.search(fold(question))
    return _COURSE_WORDS.sub(" ", match["subject"]) if match else ""


def without_whole(subject: str) -> str:
    """``subject`` without the words that any course's parts are called by."""
    return _WHOLE_WORDS.sub(" ", subject)


def _value(number: str) -> int | None:
    return int(number) if number.isdigit() else _ROMAN.get(number)


def is_yes_no(question: str) -> bool:
    """Whether a question asks to confirm or deny, by having no word that asks for more.

    Spanish ``que``, ``como`` and ``cuando`` ask for more only with their accent or at the start,
    or where no accents are typed.
    """
    text = question.casefold()
    if re.search(r"[áéíóú]", text):
        text = re.sub(r"(?<=\s)(?:que|como|cuando|donde)\b", "", text)
    return not _ASKS_FOR_MORE.search(fold(text))


def _without_commands(text: str) -> tuple[str, bool]:
    # Folding may change the length of rare characters: then nothing is cut.
    folded = fold(text)
    if len(folded) != len(text):
        return text, False
    kept, start = [], 0
    for begin, end in sentences(text):
        after = begin
        while match := _COMMAND.match(folded, after, end):
            after = match.end()
        if after > begin:
            kept.append(text[start:begin])
            # A stop alone is left.
            start = after if re.search(r"\w", text[after:end]) else end
    return "".join([*kept, text[start:]]).strip(), start > 0


def _parts(text: str) -> list[str]:
    """The questions of a message; what is said before one belongs to it."""
    if numbered := _numbered(text):
        return numbered
    parts: list[str] = []
    said: list[str] = []
    for begin, end in sentences(text):
        sentence = _HELLO.sub("", text[begin:end].strip())
        if not sentence.endswith("?") and _is_greeting(sentence):
            continue
        said.append(sentence)
        if sentence.endswith("?"):
            parts.append(" ".join(" ".join(said).split()))
            said = []
    rest = " ".join(" ".join(said).split())
    if rest and (not parts or not _ASKS.search(text)):
        parts.append(rest)
    elif rest and parts:
        # What follows the last question explains it.
        parts[-1] = f"{parts[-1]} {rest}"
    return parts


def _numbered(text: str) -> list[str]:
    """The parts of a text that are numbered 1, 2, … or a, b, …, each by itself, if any are.

    What stands before the first is a greeting or belongs to it.
    """
    marks: list[re.Match[str]] = []
    for match in _NUMBERED.finditer(text):
        following = "1a" if not marks else _after(marks[-1][1])
        if match[1].casefold() in following:
            marks.append(match)
    if len(marks) <= 1:
        return []
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    parts = [text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)]
    before = text[: marks[0].start()]
    return [" ".join(part.split()) for part in (before, *parts) if part.strip()]


def _after(number: str) -> tuple[str, ...]:
    return (str(int(number) + 1),) if number.isdigit() else (chr(ord(number.casefold()) + 1),)


def _depends(part: str, language: str) -> bool:
    """Whether a part means nothing without the one before, as "And where?" does."""
    words, folded = len(terms(part, language)), fold(part)
    return _is_fragment(words, folded) or bool(_REFERS_BACK.search(folded))


def _is_fragment(words: int, folded: str) -> bool:
    few = 1 if _ASKS_FOR_MORE.search(folded) else 2
    return words == 0 or (bool(_FOLLOWS.match(folded)) and words <= few)


def _asks(part: str) -> bool:
    return bool(_ASKS.search(part) and _ASKS_FOR_MORE.search(fold(part)))


def _is_greeting(text: str) -> bool:
    words = re.findall(r"[^\W_]+", fold(text))
    # "Is there a test?" asks for one.
    is_asked_for = len(words) > 1 and _ASKS.search(text) and _TESTS.search(fold(text))
    return not is_asked_for and all(map(_GREETING.match, words))


def _says_something(part: str, language: str) -> bool:
    folded = fold(part)
    if not terms(part, language) or _is_greeting(part):
        return False
    # "I am a student of group B and have a question."
    return bool(
        _ASKS.search(part) or _ASKS_FOR_MORE.search(folded) or not _ANNOUNCES.search(folded)
    )
