"""Dates in Spanish and English texts, and where they lie from today."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

_MONTHS = {
    **dict.fromkeys(("enero", "january", "jan", "ene"), 1),
    **dict.fromkeys(("febrero", "february", "feb"), 2),
    **dict.fromkeys(("marzo", "march", "mar"), 3),
    **dict.fromkeys(("abril", "april", "apr", "abr"), 4),
    **dict.fromkeys(("mayo", "may"), 5),
    **dict.fromkeys(("junio", "june", "jun"), 6),
    **dict.fromkeys(("julio", "july", "jul"), 7),
    **dict.fromkeys(("agosto", "august", "aug", "ago"), 8),
    **dict.fromkeys(("septiembre", "setiembre", "september", "sept", "sep", "set"), 9),
    **dict.fromkeys(("octubre", "october", "oct"), 10),
    **dict.fromkeys(("noviembre", "november", "nov"), 11),
    **dict.fromkeys(("diciembre", "december", "dec", "dic"), 12),
}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_FORM = re.compile(
    rf"""
    \b(?P<iso_year>(?:19|20)\d\d)(?P<iso_mark>[/-])(?P<iso_month>\d{{1,2}})
        (?P=iso_mark)(?P<iso_day>\d{{1,2}})\b
    |\b(?:(?P<from>\d{{1,2}})\s?[-–]\s?)?(?P<day>\d{{1,2}})(?:st|nd|rd|th|º|°)?
        \s+(?:de\s+|of\s+)?(?P<name>{_MONTH})\b\.?
        (?!(?<=\bmar)\s(?-i:[A-Z])[a-z])  # the planet, in English
        (?:\s*(?:del?|,)?\s*(?P<year>(?:19|20)\d\d)\b)?
    |\b(?P<us_name>{_MONTH})\b\.?\s+(?P<us_day>\d{{1,2}})(?:st|nd|rd|th)?\b(?!\s*[:%])
        (?:\s*,?\s*(?P<us_year>(?:19|20)\d\d)\b)?
    |\b(?P<first>\d{{1,2}})(?P<mark>[/.-])(?P<second>\d{{1,2}})
        (?:(?P=mark)(?P<last_year>(?:20)?\d\d))?(?![\d/%]|[.,]\d)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NEXT = re.compile(
    r"\b(?:next|upcoming|coming|pr[oó]xim[oa]s?|siguientes?|que vienen?)\b", re.IGNORECASE
)
_WORD = re.compile(r"[^\W\d_]+")
_YEAR_DIGITS = 4
_HALF_YEAR = timedelta(days=183)


@dataclass(frozen=True, slots=True)
class DateFound:
    """A date in a text, and the characters it stands at."""

    day: date
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class _Written:
    """Day and month as they may be meant, the day first where both orders are possible.

    Attributes:
        year: None where it is not there.
        is_day_first: the order of two numbers, where only one is possible; None elsewhere.
        is_bare: two numbers alone, which may be a fraction, a score or a section.
    """

    readings: tuple[tuple[int, int], ...]
    year: int | None
    is_day_first: bool | None
    is_bare: bool
    begin: int
    end: int


def is_day_first(texts: Iterable[str], language: str) -> bool | None:
    """How a document writes dates in numbers: 25/12 or 12/25; None where nothing tells.

    Args:
        texts: of the whole document.
        language: of the document; in English both orders are usual.
    """
    orders = {written.is_day_first for text in texts for written in _written(text)} - {None}
    if len(orders) == 1:
        return orders.pop()
    return None if orders or language == "en" else True


def find_dates(text: str, today: date, *, day_first: bool | None = True) -> list[DateFound]:
    """The dates in ``text``, in its order.

    A date without a year is the one that lies nearest to ``today``: courses speak of their own
    term. Two numbers without a year or the name of a month are not taken for one.

    Args:
        day_first: how 3/4/2026 is read, where both orders are possible; None leaves it out.
    """
    found = []
    for written in _written(text):
        readings = written.readings if day_first else written.readings[::-1]
        if written.is_bare or (day_first is None and len(readings) > 1):
            continue
        day = _date(*readings[0], written.year, today)
        if day is not None:
            found.append(DateFound(day, written.begin, written.end))
    return found


def asks_for_next(question: str) -> bool:
    """Whether the answer is the first of several dates that is still to come."""
    return bool(_NEXT.search(question))


def date_terms(text: str) -> list[str]:
    """Day and month of every date in ``text``, the same however it is written: ``29/10``.

    Where both orders are possible there is a term for each.
    """
    return [f"{day}/{month}" for written in _written(text) for day, month in written.readings]


def dates_as_terms(text: str) -> str:
    """``text`` with each date in that form, and its year after it."""
    kept, start = [], 0
    for written in _written(text):
        if not written.is_bare:
            year = "" if written.year is None else f" {written.year}"
            days = " ".join(f"{day}/{month}" for day, month in written.readings)
            kept += [text[start : written.begin], f"{days}{year}"]
            start = written.end
    return " ".join([*kept, text[start:]])


def without_dates(text: str) -> str:
    """``text`` with its dates cut out."""
    kept, start = [], 0
    for written in _written(text):
        if not written.is_bare:
            kept.append(text[start : written.begin])
            start = written.end
    return " ".join([*kept, text[start:]])


def _written(text: str) -> Iterator[_Written]:
    for match in _FORM.finditer(text):
        part = match.groupdict()
        year = part["iso_year"] or part["year"] or part["us_year"] or part["last_year"]
        if part["first"]:
            first, second = int(part["first"]), int(part["second"])
            pairs = [(first, second), (second, first)]
        elif part["iso_day"]:
            pairs = [(int(part["iso_day"]), int(part["iso_month"]))]
        else:
            month = _MONTHS[(part["name"] or part["us_name"]).lower()]
            pairs = [(int(part["day"] or part["us_day"]), month)]
        readings = tuple(dict.fromkeys(p for p in pairs if 1 <= p[0] <= 31 and 1 <= p[1] <= 12))
        if not readings:
            continue
        full_year = None
        if year is not None:
            full_year = int(year) if len(year) == _YEAR_DIGITS else int(year) + 2000
        is_bare = bool(part["first"]) and year is None
        order = readings[0] == pairs[0] if part["first"] and year and len(readings) == 1 else None
        if part["first"] and pairs[0] == pairs[1]:
            order = None
        place = is_bare, match.start(), match.end()
        if part["from"] and 1 <= int(part["from"]) <= 31:
            yield _Written(((int(part["from"]), readings[0][1]),), full_year, None, *place)
        yield _Written(readings, full_year, order, *place)


def _date(day: int, month: int, year: int | None, today: date) -> date | None:
    years = (today.year - 1, today.year, today.year + 1) if year is None else (year,)
    candidates = []
    for one in years:
        try:
            candidates.append(date(one, month, day))
        except ValueError:  # 31 June, 29 February
            continue
    near = [one for one in candidates if abs(one - today) <= _HALF_YEAR]
    return min(near or candidates, key=lambda one: abs(one - today), default=None)
