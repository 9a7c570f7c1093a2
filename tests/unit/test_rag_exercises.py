"""Exercises, aims and bare terms are told from statements, in Spanish and English."""

import pytest

from rag_worker.exercises import is_exercise, mentions_exercises

STATEMENT = "El newton es la unidad de fuerza del SI."


@pytest.mark.parametrize(
    "heading",
    [
        "Tema 3 › Problemas",
        "5.2 Ejercicios propuestos",
        "Preguntas conceptuales",
        "Problemas adicionales",
        "Problemas de desafío",
        "Objetivos de aprendizaje",
        "Learning objectives",
        "Review questions",
        "Chapter 2 › Exercises › Motion",
        "End of chapter problems",
        "Multiple choice questions",
    ],
)
def test_sections_of_exercises_and_aims_state_nothing(heading: str) -> None:
    assert is_exercise(heading, STATEMENT)


@pytest.mark.parametrize(
    "heading",
    [
        None,
        "Entregas de problemas",
        "Prácticas",
        "El problema de los tres cuerpos",
        "The Three Towers problem",
        "Test-driven development",
        "Learning from data",
    ],
)
def test_other_sections_state_what_they_say(heading: str | None) -> None:
    assert not is_exercise(heading, STATEMENT)


@pytest.mark.parametrize(
    "text",
    [
        "¿Qué es el newton?",
        "Cuestión. ¿Por qué no marca 5 V? Calcule la resistencia equivalente.",
        "a. La masa y el peso son lo mismo.\nb. La masa es una fuerza.",
        "¿Verdadero o falso? La masa es una fuerza.",
        "marea viva",
    ],
)
def test_form_of_exercises_and_terms(text: str) -> None:
    assert is_exercise(None, text)


@pytest.mark.parametrize(
    "text", [STATEMENT, "marea viva: la de luna nueva", "F = ma", "Laboratorio | 20 %", "Aula 2.05"]
)
def test_form_of_statements(text: str) -> None:
    assert not is_exercise(None, text)


def test_title_of_exercises_may_be_a_line_of_the_text() -> None:
    assert is_exercise("Energía", "Dé un ejemplo de trabajo.", "Es la energía.\nPreguntas\n")
    assert not is_exercise("Energía", "Dé un ejemplo de trabajo.", "Es la energía.\n")


def test_question_may_be_about_the_exercises_themselves() -> None:
    assert mentions_exercises("¿Cómo se resuelve el problema 4?")
    assert not mentions_exercises("¿Qué es un newton?")
