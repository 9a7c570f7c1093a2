"""What Word and PowerPoint draw: charts, diagrams, and the addresses behind links."""

import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_LONGEST_ADDRESS = 100
_MOST_POINTS = 1000


def chart_rows(root: Any) -> list[list[str]]:
    """A chart's title, and its numbers as a table: a row a category, a column a series."""
    title = root.find(f"{_C}chart/{_C}title")
    rows = [["".join(title.itertext(f"{_A}t", with_tail=False))]] if title is not None else []
    series = list(root.iter(f"{_C}ser"))
    if not series:
        return rows
    categories = next((found for one in series if (found := _values(one, "cat", "xVal"))), [])
    rows.append(["", *(" ".join(_values(one, "tx")) for one in series)])
    columns = [_values(one, "val", "yVal") for one in series]
    rows += [list(row) for row in zip_longest(categories, *columns, fillvalue="")]
    return rows


def _values(series: Any, *names: str) -> list[str]:
    for name in names:
        found = series.find(f"{_C}{name}")
        if found is not None:
            return [value.text or "" for value in found.iter(f"{_C}v")][:_MOST_POINTS]
    return []


def diagram_texts(root: Any) -> Iterator[str]:
    """The texts of a diagram (SmartArt), in the order of its outline."""
    for paragraph in root.iter(f"{_A}p"):
        text = "".join(paragraph.itertext(f"{_A}t", with_tail=False)).strip()
        if text:
            yield text


def link_text(text: str, address: str) -> str:
    """A link's text, and its address where the text does not show it."""
    address = address.removeprefix("mailto:").partition("?subject=")[0]
    if not re.match(r"https?://|[^@\s/]+@[^@\s/]+$|tel:", address):
        return text
    shown = text.casefold().strip(" /")
    bare = re.sub(r"^https?://(www\.)?|^tel:", "", address.casefold()).strip("/")
    if not shown or bare in shown or len(address) > _LONGEST_ADDRESS:
        return text
    return f"{text} ({address})"
