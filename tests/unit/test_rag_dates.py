"""Dates as syllabi write them."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_worker.dates import date_terms, find_dates, is_day_first

TODAY = date(2026, 11, 21)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("el viernes 23 de octubre de 2026", date(2026, 10, 23)),
        ("1º de marzo del 2027", date(2027, 3, 1)),
        ("Oct. 23, 2026", date(2026, 10, 23)),
        ("December 3rd", date(2026, 12, 3)),
        ("3 Dec", date(2026, 12, 3)),
        ("2026-12-03", date(2026, 12, 3)),
        ("03/12/2026", date(2026, 12, 3)),
        ("3.12.26", date(2026, 12, 3)),
        ("12/25/2026", date(2026, 12, 25)),
        ("28 de enero", date(2027, 1, 28)),
        ("15 de septiembre", date(2026, 9, 15)),
        ("31 de junio", None),
        ("2026/10/23", date(2026, 10, 23)),
        ("1 Mar Wars", None),
    ],
)
def test_date_is_read_in_the_term_around_today(text: str, day: date | None) -> None:
    found = [one.day for one in find_dates(text, TODAY)]
    assert found == ([day] if day else [])


def test_both_days_of_a_range_are_dates() -> None:
    days = [found.day for found in find_dates("due 3-5 May", TODAY)]
    assert days == [date(2027, 5, 3), date(2027, 5, 5)]


@pytest.mark.parametrize(
    ("texts", "language", "expected"),
    [
        (["11/02/2026"], "es", True),
        (["11/02/2026"], "en", None),
        (["11/02/2026", "12/15/2026"], "en", False),
        (["11/02/2026", "23/10/2026"], "en", True),
        (["12/15/2026", "23/10/2026"], "es", None),
    ],
)
def test_order_of_day_and_month_is_the_documents(
    texts: list[str], language: str, expected: bool | None
) -> None:
    assert is_day_first(texts, language) is expected
    found = find_dates("11/02/2026", TODAY, day_first=expected)
    days = {True: [date(2026, 2, 11)], False: [date(2026, 11, 2)], None: []}
    assert [one.day for one in found] == days[expected]


@pytest.mark.parametrize(
    "text", ["section 3.2", "5/10 points", "3,5 V", "may 50% count", "version 1.10.2", "9:00-11:50"]
)
def test_other_numbers_are_no_dates(text: str) -> None:
    assert find_dates(text, TODAY) == []


def test_dates_match_however_they_are_written() -> None:
    forms = ["29 de octubre", "October 29", "29/10/2026", "2026-10-29", "29.10 - Kuhn", "10/29"]
    assert {frozenset(date_terms(form)) for form in forms} == {frozenset({"29/10"})}
    assert set(date_terms("3/4")) == {"3/4", "4/3"}


@given(st.text(max_size=200), st.dates(date(1950, 1, 1), date(2090, 1, 1)))
def test_any_text_can_be_searched_for_dates(text: str, today: date) -> None:
    for found in find_dates(text, today):
        assert 0 <= found.begin < found.end <= len(text)
    date_terms(text)


@given(st.dates(date(2000, 1, 1), date(2090, 1, 1)))
def test_every_date_is_found_in_the_form_of_the_standard(day: date) -> None:
    assert [found.day for found in find_dates(day.isoformat(), TODAY)] == [day]
