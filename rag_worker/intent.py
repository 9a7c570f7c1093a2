"""What a student's message wants, by its words: nothing here asks a model."""

import re
from dataclasses import dataclass
from enum import StrEnum

from rag_worker.language import fold, sentences, terms

MOST_PARTS = 4
"""Questions of one message that are answered one by one."""


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
_RULES = (
    r"(?:instruc\w*|rules?|reglas?|prompts?|above|previous|prior|anterior(?:es)?|passages?"
    r"|documents?|documentos|pasajes)"
)
_COMMAND = re.compile(
    # "Ignore all the previous rules and": up to where something else is said.
    r"\b(?:ignor(?:e|a|ar|es|en)|disregard|forget|olvida(?:te)?|override|bypass|salta(?:te)?)\b"
    rf"[^.?!\n]{{0,80}}?\b{_RULES}\b(?:[^.?!\n]{{0,20}}?\b{_RULES}\b)*"
    r"(?:[^.?!\n]{0,40}?(?:\b(?:and|y|then|luego)\b|[,:;])\s*)?"
    r"|\b(?:you are now|act as|pretend (?:to be|that)|eres ahora|ahora eres|actua como"
    r"|finge (?:ser|que)|haz como si)\b[^.?!\n]*[.!\n]?"
    r"|\b(?:system|assistant|developer)\s*(?:prompt|message)?\s*:\s*"
    r"|\b(?:print|reveal|show|repeat|output|imprime|muestra|revela|repite)\b[^.?!\n]{0,40}?"
    r"\b(?:prompts?|instructions|instrucciones)\b[^.?!\n]*[.!]?"
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
    r"|what is .{1,60} about)\b"
)
_ASKS_FOR_MORE = re.compile(
    r"\b(?:what|when|where|who|whom|whose|which|why|how|que|cual(?:es)?|cuando|donde|quien(?:es)?"
    r"|cuant[oa]s?|como|list|name|explain|describe|define|tell|give|explica\w*|describe"
    r"|define|dime|enumera|nombra)\b"
)
_UNIT = re.compile(
    r"(?:\b(?:unit|unidad|tema|chapter|capitulo|lesson|leccion|module|modulo|part|parte|bloque"
    r"|block|week|semana|section|seccion|topic|lecture|clase|practica|lab|session|sesion)"
    r"\s*(?:n[.o]*\s*)?|^\W*(?=[\d]+[.)]?\s))(?P<number>\d{1,3}|[ivx]{1,4})\b"
)
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
_NUMBERED = re.compile(r"(?m)^\s*(?:\d{1,2}|[a-d])\s*[.)]\s+(?=\S)")
_ANNOUNCES = re.compile(r"\b(?:duda|dudas|pregunta|preguntas|question|questions|consulta)\b")
_ASKS = re.compile(r"[?¿]")
_FOLLOWS = re.compile(r"^\W*(?:and|or|but|also|y|e|o|u|pero|tambien)\b")
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


def read_message(text: str, language: str) -> Message:
    """Take a message apart: greetings, commands to the program, and the questions."""
    kept, was_commanding = _without_commands(text)
    questions: list[str] = []
    for part in _parts(kept):
        if questions and _depends(part, language):
            questions[-1] = f"{questions[-1]} {part}"
        elif _says_something(part, language):
            questions.append(part)
    left_out = max(0, len(questions) - MOST_PARTS)
    return Message(tuple(questions[:MOST_PARTS]), was_commanding, left_out)


def scope_of(question: str) -> Scope:
    """How much of the documents ``question`` is about."""
    folded = fold(question)
    if _SUMMARY.search(folded):
        return Scope.SUMMARY
    is_list = _LIST.search(folded) or (_EVERY.search(folded) and not _HOW_TO.search(folded))
    return Scope.LIST if is_list else Scope.POINT


def unit_number(text: str) -> int | None:
    """The number of the unit, chapter or week that ``text`` names, by its word or in front."""
    match = _UNIT.search(fold(text))
    if match is None:
        return None
    number = match["number"]
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
        return text, bool(_COMMAND.search(folded))
    kept, start = [], 0
    for match in _COMMAND.finditer(folded):
        kept.append(text[start : match.start()])
        start = match.end()
    return "".join([*kept, text[start:]]).strip(), start > 0


def _parts(text: str) -> list[str]:
    """The questions of a message; what is said before one belongs to it."""
    numbered = [part.strip() for part in _NUMBERED.split(text) if part.strip()]
    if len(_NUMBERED.findall(text)) > 1:
        return [" ".join(part.split()) for part in numbered]
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


def _depends(part: str, language: str) -> bool:
    """Whether a part means nothing without the one before, as "And where?" does."""
    words, folded = len(terms(part, language)), fold(part)
    return (
        words == 0
        or (bool(_FOLLOWS.match(folded)) and words <= (1 if _ASKS_FOR_MORE.search(folded) else 2))
        or bool(_REFERS_BACK.search(folded))
    )


def _is_greeting(text: str) -> bool:
    return all(_GREETING.match(word) for word in re.findall(r"[^\W_]+", fold(text)))


def _says_something(part: str, language: str) -> bool:
    folded = fold(part)
    if not terms(part, language) or _is_greeting(part):
        return False
    # "I am a student of group B and have a question."
    return bool(
        _ASKS.search(part) or _ASKS_FOR_MORE.search(folded) or not _ANNOUNCES.search(folded)
    )
