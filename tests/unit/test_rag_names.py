"""Names of other courses, and of programs that write."""

import re

import pytest

from rag_worker.language import fold
from rag_worker.names import names_another_course, without_brands

DOCUMENTS = fold(
    "MATH 2413 Calculus I. Prerequisite: Precalculus. Textbook: Stewart. Didáctica de las "
    "Matemáticas. The exam on Limits and Continuity. Generative tools: Copilot is allowed."
)


def is_known(pattern: str) -> bool:
    return re.search(pattern, DOCUMENTS) is not None


@pytest.mark.parametrize(
    "question",
    [
        "When is the exam in PSYC 2301?",
        "what textbook does HIST-2050 use",
        "who teaches Linear Algebra?",
        "What do you cover in Calculus II?",
        "¿Quién da Historia Moderna?",
        "¿Cuándo es el parcial de Psicología del Desarrollo?",
        "is there homework in Organic Chemistry",
        "when is the Linear Algebra final",
    ],
)
def test_course_that_the_documents_never_name_is_another_one(question: str) -> None:
    assert names_another_course(question, is_known)


@pytest.mark.parametrize(
    "question",
    [
        "When is the exam in MATH 2413?",
        "when is the math2413 final",
        "What is the textbook for Calculus I?",
        "¿Qué libro se usa en Didáctica de las Matemáticas?",
        "examen de Didáctica",
        "Is the exam in English or in Spanish?",
        "Is there class on Monday?",
        "Is there an exam in December?",
        "¿Hay clase en Semana Santa?",
        "When is the exam for Unit 3?",
        "What are the notes of Professor Lee about?",
        "When is the exam on Limits and Continuity?",
        "I got 430 on the placement exam. Which course am I supposed to take?",
        "Is the final in Baker Hall?",
        "Do we hand in the homework in Blackboard?",
        "Can I use ChatGPT for the essay?",
        "How do I use a for loop in Python?",
    ],
)
def test_question_about_this_course_names_no_other(question: str) -> None:
    assert not names_another_course(question, is_known)


def test_program_that_the_documents_do_not_name_is_called_by_its_kind() -> None:
    asked = "can i use chatgpt or Copilot"
    assert (
        without_brands(asked, "en", is_known) == "can i use artificial intelligence (AI) or Copilot"
    )
    assert "inteligencia artificial" in without_brands("¿Puedo usar Claude?", "es", is_known)
    assert without_brands("¿Cómo se llama el profesor?", "es", is_known) == (
        "¿Cómo se llama el profesor?"
    )
