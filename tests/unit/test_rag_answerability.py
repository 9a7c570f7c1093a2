"""What a question asks for, and whether the window that fits it best has such a thing."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_worker.answerability import (
    Sought,
    Window,
    answerability,
    is_lacking,
    looks_for,
    sought_by,
)


def window(
    text: str, dense: float = 0.8, *, heading: str | None = None, language: str = "en"
) -> Window:
    return Window(text, heading, language, dense)


@pytest.mark.parametrize(
    ("question", "sought"),
    [
        ("What's the professor's phone number?", Sought.TELEPHONE),
        ("¿Cuál es el teléfono de la secretaría?", Sought.TELEPHONE),
        ("How can I reach the professor by email?", Sought.ADDRESS),
        ("¿A qué correo le escribo al profe?", Sought.ADDRESS),
        ("What does the textbook cost?", Sought.MONEY),
        ("¿Cuánto cuesta el libro?", Sought.MONEY),
        ("What percentage of the grade is the final?", Sought.PERCENTAGE),
        ("¿A qué hora empieza la clase?", Sought.TIME),
        ("How long is the quiz?", Sought.LENGTH),
        ("¿Cuántas páginas debe tener el ensayo?", Sought.LENGTH),
        ("How many labs are there?", Sought.COUNT),
        ("¿Cuándo es el examen final?", Sought.DATE),
        ("Until when can I hand it in?", Sought.DATE),
        ("¿Cuánto vale el ensayo en la nota?", Sought.AMOUNT),
        ("In which room will the final be?", Sought.ROOM),
        ("¿Quién es la ayudante?", Sought.PERSON),
        ("telefono de la profe Irene", Sought.TELEPHONE),
        ("correo de la Dra. Treviño", Sought.ADDRESS),
        ("email address of the lab", Sought.ADDRESS),
        ("en q aula son las practicas", Sought.ROOM),
        ("Where is the final exam?", Sought.ROOM),
        ("Tengo una duda del programa. ¿Cuándo es el examen final?", Sought.DATE),
    ],
)
def test_kind_of_thing_is_read_from_the_question(question: str, sought: Sought) -> None:
    assert sought_by(question) is sought


@pytest.mark.parametrize(
    "question",
    [
        "Can I bring my phone to the exam?",
        "el telefono puede estar encendido?",
        "¿Puedo mandar la tarea al correo del profe?",
        "¿Qué me pasa si me suena el teléfono en clase?",
        "What happens if I hand it in 2 days late?",
        "Which book do we use?",
        "Where is the mistake in this proof?",
        "Explica la ley de Ohm",
        "",
    ],
)
def test_question_without_such_a_form_seeks_no_kind_of_thing(question: str) -> None:
    assert sought_by(question) is None
    assert not is_lacking(question, "en", [window("The book has no price.")])


@pytest.mark.parametrize(
    ("question", "has_it", "lacks_it"),
    [
        ("In which room is the final?", "The final is in ASB 301.", "The final is on 3 May."),
        ("When is the final?", "The final is on 3 May.", "The final covers everything."),
        ("How much does the book cost?", "The book is $45.", "The book has 3 editions."),
        ("What time is the final?", "The final starts at 6pm.", "The final is on 3 May."),
        ("How long is the quiz?", "The quiz lasts 100 minutes.", "The quiz has 12 questions."),
        ("How many sheets can I take?", "Take two sheets of notes.", "The exam has 4 parts."),
        ("What percentage is the final?", "Final: 30 %", "The final has 3 parts."),
        ("What is the phone number?", "Call (570) 941-7003.", "Call the office in room 142."),
        ("Who teaches it?", "Taught by Dr. Salter.", "the course is taught twice a week"),
    ],
)
def test_window_is_looked_through_for_what_is_sought(
    question: str, has_it: str, lacks_it: str
) -> None:
    assert not is_lacking(question, "en", [window(has_it)])
    assert is_lacking(question, "en", [window(lacks_it)])


def test_what_other_windows_hold_does_not_answer() -> None:
    final = window("The final exam covers everything.", 0.86)
    lecture = window("Lectures are in room 142.", 0.82)
    assert is_lacking("In which room is the final exam?", "en", [lecture, final])


def test_window_with_the_words_of_the_question_fits_better_than_one_a_little_nearer() -> None:
    final = window("Final exam: ASB 301", 0.81)
    lecture = window("We meet twice a week.", 0.84)
    question = "In which room is the final exam?"
    assert not is_lacking(question, "en", [lecture, final])


def test_headings_tell_what_a_window_is_about() -> None:
    final = window("3 May, ASB 301", 0.81, heading="Final exam")
    lecture = window("We meet twice a week.", 0.84, heading="Lectures")
    assert not is_lacking("In which room is the final exam?", "en", [lecture, final])


def test_windows_in_another_language_are_compared_by_cosine_alone() -> None:
    windows = [window("The final exam is on 3 May.", 0.85), window("Lectures: room 142", 0.8)]
    assert is_lacking("¿En qué aula es el examen final?", "es", windows)
    assert not is_lacking("¿Qué día es el examen final?", "es", windows)
    assert not is_lacking("¿Cuántas hojas puedo llevar?", "es", [window("Take two sheets.")])


def test_lacking_lowers_the_chance_but_never_settles_it() -> None:
    lacking = answerability("When is the final?", "en", [window("The final is hard.")])
    assert 0 < lacking < 1
    assert answerability("When is the final?", "en", [window("The final is on 3 May.")]) == 1
    assert answerability("When is the final?", "en", []) == 1


@given(st.text(max_size=300), st.text(max_size=300), st.sampled_from(["es", "en", "fr"]))
def test_any_text_is_judged(question: str, text: str, language: str) -> None:
    windows = [window(text), window(text, 0.9, heading=question, language=language)]
    assert 0 < answerability(question, language, windows) <= 1


@pytest.mark.parametrize(
    "question", ["what " * 800, "how much " * 400, "cuantas " * 500, "?" * 4000]
)
def test_long_hostile_text_is_judged_in_time(question: str) -> None:
    began = time.process_time()
    answerability(question, "en", [window("1 " * 5000), window("A1. " * 5000), window("$" * 9000)])
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("question", "language", "text", "is_there"),
    [
        ("¿Cuánto dura el parcial?", "es", "Parcial | De 16:00 a 17:30", True),
        ("How long is the quiz?", "en", "The quiz is on Friday, 10:00-11:15.", True),
        ("How long is the quiz?", "en", "The quiz is on Friday at 10:00.", False),
        ("correo de la profesora", "es", "Irene Ruiz, despacho 3.14", False),
        ("correo de la profesora", "es", "Irene Ruiz, iruiz@uni.example", True),
        ("Why is it so?", "en", "Because.", True),
    ],
)
def test_thing_that_is_asked_for_is_found_in_a_text(
    question: str, language: str, text: str, is_there: bool
) -> None:
    assert looks_for(question, language)(text, language) is is_there
