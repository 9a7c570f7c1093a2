"""Names in a question that the documents may not have: other courses, and programs that write."""

import re
from collections.abc import Callable

from rag_worker.language import fold

_WRITING_PROGRAM = re.compile(
    r"\b(?:chat ?gpt|gpt(?:-?\d\w*)?|claude|copilot|gemini|deepseek|perplexity)\b", re.IGNORECASE
)
_WRITING_PROGRAMS = {"en": "artificial intelligence (AI)", "es": "inteligencia artificial (IA)"}

_CAPITALS = "A-ZÁÉÍÓÚÑ"
_NUMERAL = r"(?:I{1,3}|IV|V)\b"
_JOINT = r"(?:(?:de|del|la|las|los|el|y|e|a|of|and|to|the|in)\s+){0,3}"
_WORD = rf"(?:[{_CAPITALS}][\wáéíóúñü]+|{_NUMERAL})"
_NAME = rf"({_WORD}(?:\s+{_JOINT}{_WORD})*)"
_CODE = re.compile(rf"\b([{_CAPITALS}]{{2,5}})[ -]?(\d{{3,4}})[A-Z]?\b")
_PART = (
    r"(?:exam(?:en|enes|s)?|midterms?|finals?|parcial(?:es)?|quizz?(?:es)?|tests?|class(?:es)?|clases?"
    r"|courses?|cursos?|asignaturas?|materias?|ramos?|lectures?|homeworks?|tareas?|textbooks?|books?"
    r"|libros?|bibliograf[ií]a|syllabus|programa|apuntes|notes|teacher|professor|profesora?|profe"
    r"|grades?|notas?|absences|faltas|late policy|pr[aá]cticas|labs?|aula|room)"
)
_TITLES = "Dr|Dra|Prof|Professor|Profesor|Profesora|Mr|Ms|Mrs|Mx|Sr|Sra|TA"
_DATED = (
    "January|February|March|April|May|June|July|August|September|October|November|December"
    "|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|Spring|Summer|Fall|Autumn|Winter"
    "|Thanksgiving|Christmas|Easter|Navidad|Pascua|Semana Santa"
)
_TONGUES = "English|Spanish|French|German|Italian|Portuguese|Catalan|Latin|Chinese|Japanese"
_PIECES = (
    "Section|Unit|Week|Chapter|Lab|Module|Project|Part|Exam|Midterm|Final|Quiz|Test|Assignment"
    "|Homework|Paper|Essay|Unidad|Semana|Tema|M[oó]dulo|Pr[aá]ctica|Parcial|TP|Grupo|Group|Sesi[oó]n"
)
_TOOLS = (
    "Canvas|Moodle|Blackboard|Zoom|Teams|Gradescope|Google|Word|Excel|LaTeX|Overleaf|Piazza"
    "|Discord|Slack|GitHub|Python|Java|Matlab|Turnitin|Kahoot|YouTube|PDF|PowerPoint|Classroom"
)
_NO_COURSE = rf"(?!(?:{_TITLES}|{_DATED}|{_TONGUES}|{_PIECES}|{_TOOLS})\b)"
_PLACE = re.compile(
    r"\b(?:Hall|Building|Room|Cent(?:er|re)|Auditorium|Library|Campus|Edificio|Aula|Sala)\b"
)
_OF_COURSE = re.compile(
    rf"\b(?i:{_PART})\s+(?:(?i:is|are|for|of|in|on|does|used|de|del|en|para|se usa)\s+){{1,2}}"
    rf"(?:(?i:the|la|el)\s+)?{_NO_COURSE}{_NAME}"
    rf"|\b(?i:teach(?:es|ing)?|taught|cover(?:ed|s)? in|dicta|ense[nñ]a|cursar|se ve en|da)"
    rf"\s+{_NO_COURSE}{_NAME}"
    rf"|(?<=[\w,]\s){_NO_COURSE}{_NAME}"
    r"\s+(?i:exam|midterm|final|class|course|textbook|lectures?|homework)\b"
)


def without_brands(question: str, language: str, is_known: Callable[[str], bool]) -> str:
    """``question`` with "artificial intelligence" for a program whose name the documents lack.

    Args:
        is_known: whether a folded pattern is found in the documents.
    """

    def kind(found: re.Match[str]) -> str:
        return found[0] if is_known(rf"\b{re.escape(fold(found[0]))}\b") else generic

    generic = _WRITING_PROGRAMS.get(language, _WRITING_PROGRAMS["en"])
    return _WRITING_PROGRAM.sub(kind, question)


def names_another_course(question: str, is_known: Callable[[str], bool]) -> bool:
    """Whether a question is about a course, by its code or name, that the documents never name.

    "When is the exam in PSYC 2301?", "¿quién da Historia Moderna?"; in small letters none is seen.

    Args:
        is_known: whether a folded pattern is found in the documents.
    """
    codes = [rf"\b{fold(letters)}[\s-]?{number}" for letters, number in _CODE.findall(question)]
    names = [next(filter(None, groups)) for groups in _OF_COURSE.findall(question)]
    names = [name for name in names if not _PLACE.search(name)]
    return any(not is_known(code) for code in codes) or any(
        not _is_named(name, is_known) for name in names
    )


def _is_named(name: str, is_known: Callable[[str], bool]) -> bool:
    words = [re.escape(word) for word in fold(name).split()]
    if is_known(r"\b" + r"\s+".join(words) + r"\b"):
        return True
    if re.search(rf"\b{_NUMERAL}$", name):
        return False
    return all(is_known(rf"\b{word}\b") for word in words)
