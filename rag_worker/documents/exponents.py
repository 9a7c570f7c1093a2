"""Raised text: 10² must not become 102, nor the number of a note a part of its word."""

import re

# Noncharacters, which no text has: a loader meets the parts of an exponent one by one.
_RAISED, _LEVEL = "\ufdd0", "\ufdd1"
_BASE = re.compile(r"[\d)\]]$|(^|[\W\d_])[^\W\d_]{1,3}$")
_EXPONENT = re.compile(r"[\w+−–-]{1,12}|[+−–-]?[^\W\d]{1,3}(?: [^\W\d]{1,3}|/\w{1,3}){1,3}")
_SUM = re.compile(r"\w[+−–/ -]")
_ORDINAL = re.compile(r"st|nd|rd|th|er[oa]?|[ao]s?|[dtrnvm][oa]|[ºª]|tm", re.IGNORECASE)


def raised(text: str) -> str:
    """``text`` marked as raised, for `with_exponents`."""
    return f"{_RAISED}{text}{_LEVEL}" if text.strip() else text


def with_exponents(text: str) -> str:
    """``text`` with ``^`` before exponents, and a space before the raised numbers of notes."""
    whole = text.replace(f"{_LEVEL}{_RAISED}", "")
    return re.sub(f"{_RAISED}([^{_LEVEL}]*){_LEVEL}", _written, whole)


def is_base(text: str) -> bool:
    """Whether what is raised after ``text`` is its exponent: after numbers and short symbols."""
    return bool(_BASE.search(text))


def _written(match: re.Match[str]) -> str:
    exponent = match[1].strip()
    if not _EXPONENT.fullmatch(exponent) or _ORDINAL.fullmatch(exponent):
        return match[1]
    if not is_base(match.string[max(match.start() - 20, 0) : match.start()]):
        return f" {exponent}" if exponent.isdecimal() else match[1]
    return f"^({exponent})" if _SUM.search(exponent) else f"^{exponent}"
