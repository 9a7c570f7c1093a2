"""What is pure in asking a model: loops, thoughts, and estimates of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.settings import Settings
from rag_worker.models import is_repeating, without_thoughts
from rag_worker.prompt import TokenEstimate, estimate_tokens

ENGLISH = "Set the soldering iron to 350 degrees and wear safety glasses at all times. " * 20
SPANISH = "El examen será el último día según el calendario académico de la sesión. " * 20


@pytest.mark.parametrize(
    "text",
    [
        "The answer is " + "yes " * 60,
        "The iron is hot [1]. " * 8,
        "Start.\n" + "- Wear glasses at all times.\n- Do not touch the iron.\n" * 4,
        "A" * 300,
        "\n" * 500,
        "El examen es " + "…" * 400,
        "x"
        + "Long sentences that are the same three times, word for word, letter for letter. " * 3,
    ],
)
def test_loop_is_seen(text: str) -> None:
    assert is_repeating(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "350 degrees [1].",
        "| day | room |\n" + "|" + "-" * 80 + "|" + "-" * 80 + "|",
        "".join(f"- {day} de marzo, Aula Magna\n" for day in range(1, 30)),
        "0.333333333333333333333333333333333333",
        "Contents " + "." * 120 + " 7",
        "ja ja ja ja ja",
        "It is on Monday. It is on Monday. ",
        "def f():\n    x = 0\n    x = 0\n    return x\n",
        "1010101010101010101010101010101010101010",
    ],
)
def test_tables_lists_and_dots_are_no_loop(text: str) -> None:
    assert not any(is_repeating(text[:end]) for end in range(len(text) + 1))


@given(st.text(max_size=60))
def test_any_text_can_be_looked_at(text: str) -> None:
    is_repeating(text)
    assert "<think>" not in without_thoughts(text + "<think>" + text)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("<think>\nHmm.\n</think>\n\nYes [1].", "Yes [1]."),
        ("Hmm, it was opened by the template.</think>Yes [1].", "Yes [1]."),
        ("<thinking>a</thinking>Yes <think>b</think>[1].", "Yes [1]."),
        ("<think>never ends", ""),
        ("Yes, 3 < 4 [1].", "Yes, 3 < 4 [1]."),
    ],
)
def test_thoughts_are_dropped(written: str, text: str) -> None:
    assert without_thoughts(written) == text


def test_estimate_is_the_plain_one_until_enough_is_known() -> None:
    estimate = TokenEstimate()
    assert estimate(ENGLISH) == estimate_tokens(ENGLISH)
    estimate.learn("short", 3)
    for _ in range(2):
        estimate.learn(ENGLISH, estimate_tokens(ENGLISH) // 2)
    assert estimate(ENGLISH) == estimate_tokens(ENGLISH)
    estimate.learn(ENGLISH, estimate_tokens(ENGLISH) // 2)
    assert estimate(ENGLISH) < 0.6 * estimate_tokens(ENGLISH)


def test_estimate_stays_above_the_highest_count_and_languages_do_not_mix() -> None:
    estimate = TokenEstimate()
    for share in (0.5, 0.9, 0.6):
        estimate.learn(ENGLISH, round(share * estimate_tokens(ENGLISH)))
    assert 0.9 * estimate_tokens(ENGLISH) < estimate(ENGLISH) < 1.01 * estimate_tokens(ENGLISH)
    assert estimate(SPANISH) == estimate_tokens(SPANISH)


def test_one_count_above_the_plain_estimate_is_enough_to_raise_it() -> None:
    estimate = TokenEstimate()
    estimate.learn(SPANISH, 2 * estimate_tokens(SPANISH))
    assert estimate(SPANISH) == 2 * estimate_tokens(SPANISH)


@pytest.mark.parametrize("value", ["30m", "1h30m", "-1", "0", "600", "1.5h"])
def test_durations_that_ollama_takes_are_taken(value: str) -> None:
    assert Settings(llm_keep_alive=value).llm_keep_alive == value


@pytest.mark.parametrize("value", ["30 m", "m", "soon", "1.5", "30m; x"])
def test_other_durations_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="llm_keep_alive"):
        Settings(llm_keep_alive=value)
