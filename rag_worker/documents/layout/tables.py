"""Tables, however they are found."""

import re
from dataclasses import dataclass, field

from rag_worker.documents.layout.boxes import Box


@dataclass(slots=True)
class Table:
    """Rows of cells; ``edges`` are the x of its columns, to know its continuation by."""

    rows: list[list[str]]
    box: Box
    edges: list[float] = field(default_factory=list)


def wrapped(above: str, below: str) -> str:
    """The text of a cell that goes on in the line below."""
    if above.endswith("-") and below[:1].islower():
        return above[:-1] + below
    if re.search(r"\w-$|\d–$", above) and below[:1].isdigit():  # a range such as 20–29
        return above + below
    return f"{above} {below}".strip()
