"""What documents ask instead of say: exercises, tests, aims and bare terms, by heading and form."""

import re

from rag_worker.documents.sections import PATH_SEPARATOR
from rag_worker.language import fold

_NAMES = (
    r"(?:ejercicios?|problemas?|preguntas?|cuestiones|cuestionario|autoevaluacion|test|desafios?"
    r"|actividades|exercises?|problems?|questions?|quiz|quizzes|self[- ]?(?:test|check|assessment)"
    r"|activities|challenges?|drills?)"
)
_KINDS = (
    r"(?:conceptual(?:es)?|adicional(?:es)?|general(?:es)?|propuest[oa]s?|resuelt[oa]s?"
    r"|complementari[oa]s?|test|de|del?|la|el|los|para|y|o|e|and|for|of|the|desafio|repaso"
    r"|autoevaluacion|comprension|control|examen|tema|unidad|capitulo|seccion|opcion multiple"
    r"|additional|conceptual|challenge|review|practice|discussion|further|end|chapter|unit|section"
    r"|multiple|choice|solved|study|sample|[\\d.]+)"
)
_AIMS = (
    r"(?:(?:learning|lesson|chapter|unit) (?:objectives?|outcomes?|goals?)"
    r"|objetivos(?: (?:de|del) (?:aprendizaje|tema|capitulo|la unidad|unidad))?"
    r"|resultados de aprendizaje)"
)
_HEADING = re.compile(
    rf"\W*(?:(?:[\d.]+\W*)?(?:{_KINDS}\W+)*{_NAMES}(?:\W+(?:{_KINDS}|{_NAMES}))*|{_AIMS})\W*"
)
_LABEL = re.compile(rf"{_NAMES}\s*[\d.]*\s*[.:]|cuestion\s*[\d.]*\s*[.:]")
_OPTION = re.compile(r"(?m)^\s*\(?[a-eA-E][.)]\s")
_TRUE_OR_FALSE = re.compile(r"\b(?:verdadero o falso|true or false)\b")
_MENTIONS = re.compile(rf"\b(?:{_NAMES}|objetivos?|objectives?|aims?|goals?)\b")
_FEWEST_OPTIONS = 2
_TERM_CHARACTERS = 60


def mentions_exercises(question: str) -> bool:
    """Whether a question may be about the exercises or aims themselves."""
    return bool(_MENTIONS.search(fold(question)))


def is_exercise_heading(title: str) -> bool:
    """Whether exercises or aims follow below a title."""
    return len(title) <= _TERM_CHARACTERS and bool(_HEADING.fullmatch(fold(title)))


def is_exercise(heading: str | None, text: str, before: str = "") -> bool:
    """Whether a part of a document asks, or sets an aim, or only names: it states nothing.

    Args:
        heading: its path of headings.
        before: what stands before it in its section, where a title may be a line like others.
    """
    text = text.strip()
    titles = [*(heading or "").split(PATH_SEPARATOR), *before.splitlines()]
    if any(map(is_exercise_heading, titles)):
        return True
    return (
        text.endswith("?")
        or bool(_LABEL.match(fold(text)))
        or len(_OPTION.findall(text)) >= _FEWEST_OPTIONS
        or bool(_TRUE_OR_FALSE.search(fold(text)))
        or (len(text) <= _TERM_CHARACTERS and not re.search(r"[.!:;=|\d]", text))
    )
