"""Dates in Spanish and English texts, and where they lie from today."""

import re
from collections.abc import Iterator
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
    \b(?P<iso_year>(?:19|20)\d\d)-(?P<iso_month>\d{{1,2}})-(?P<iso_day>\d{{1,2}})\b
    |\b(?P<day>\d{{1,2}})(?:st|nd|rd|th|º|°)?\s+(?:de\s+|of\s+)?(?P<name>{_MONTH})\b\.?
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
_HALF_YEAR = timedelta(days=183)


@dataclass(frozen=True, slots=True)
class DateFound:
    """A date in a text, and the characters it stands at."""

    day: date
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class _Written:
    """Day and month as they may be meant, the likelier reading first, and the year if it is there.

    ``is_bare`` marks two numbers alone, which may be a fraction, a score or a section.
    """

    readings: tuple[tuple[int, int], ...]
    year: int | None
    is_bare: bool
    begin: int
    end: int


def find_dates(text: str, today: date, *, day_first: bool = True) -> list[DateFound]:
    """The dates in ``text``, in its order.

    A date without a year is the one that lies nearest to ``today``: courses speak of their own
    term. Two numbers without a year or the name of a month are not taken for one.

    Args:
        day_first: how 3/4/2026 is read where both orders are possible.
    """
    found = []
    for written in _written(text):
        readings = written.readings if day_first else written.readings[::-1]
        if written.is_bare:
            continue
        day = _date(*readings[0], written.year, today)
        if day is not None:
            found.append(DateFound(day, written.begin, written.end))
    return found


def asks_for_next(question: str) -> bool:
    """Whether the answer is the first of several dates that is still to come."""
    return bool(_NEXT.search(question))


def next_date(text: str, today: date) -> DateFound | None:
    """The first date in ``text`` that is not past; None where all are."""
    coming = [found for found in find_dates(text, today) if found.day >= today]
    return min(coming, key=lambda found: found.day, default=None)


def date_terms(text: str) -> list[str]:
    """Day and month of every date in ``text``, the same however it is written: ``29/10``.

    Where both orders are possible there is a term for each.
    """
    return [f"{day}/{month}" for written in _written(text) for day, month in written.readings]


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
        if part["first"]:
            first, second = int(part["first"]), int(part["second"])
            pairs = [(first, second), (second, first)]
            year = part["last_year"]
        elif part["iso_day"]:
            pairs, year = [(int(part["iso_day"]), int(part["iso_month"]))], part["iso_year"]
        else:
            month = _MONTHS[(part["name"] or part["us_name"]).lower()]
            pairs = [(int(part["day"] or part["us_day"]), month)]
            year = part["year"] or part["us_year"]
        readings = tuple(dict.fromkeys(p for p in pairs if 1 <= p[0] <= 31 and 1 <= p[1] <= 12))
        if readings:
            full_year = None if year is None else int(year) % 2000 + 2000
            if year is not None and len(year) == 4:
                full_year = int(year)
            is_bare = bool(part["first"]) and year is None
            yield _Written(readings, full_year, is_bare, match.start(), match.end())


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
