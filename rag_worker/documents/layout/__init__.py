"""Words and ruling lines of a page to lines, paragraphs and tables in the order of reading."""

from collections.abc import Sequence

from rag_worker.documents.layout.aligned_tables import aligned_tables
from rag_worker.documents.layout.boxes import Box
from rag_worker.documents.layout.columns import Item, regions
from rag_worker.documents.layout.formulas import with_formulas
from rag_worker.documents.layout.lines import Line, bullet_words, is_list_item, line_of, lines_of
from rag_worker.documents.layout.paragraphs import mark_starts
from rag_worker.documents.layout.ruled_tables import ruled_tables
from rag_worker.documents.layout.tables import Table
from rag_worker.documents.layout.words import Run, Word, rows_of, runs_of

__all__ = ["Block", "Box", "Line", "Table", "Word", "blocks", "is_list_item", "lines_of"]

Block = Line | Table


def blocks(
    words: Sequence[Word],
    horizontal: Sequence[Box],
    vertical: Sequence[Box],
    bullets: Sequence[Box],
) -> list[Block]:
    """The page's lines and tables in the order of reading."""
    words = with_formulas(words, horizontal, vertical)
    words += bullet_words(words, bullets)
    tables, words = ruled_tables(words, horizontal, vertical)
    found: list[Block] = []
    for region in regions([*runs_of(words), *tables]):
        found += _region_blocks(region)
    return found


def _region_blocks(items: list[Item]) -> list[Block]:
    tables = sorted(
        (item for item in items if isinstance(item, Table)), key=lambda table: -table.box.y1
    )
    lines = [line_of(row) for row in rows_of(item for item in items if isinstance(item, Run))]
    mark_starts(lines)
    found: list[Block] = []
    for piece in aligned_tables(lines):
        while tables and tables[0].box.middle[1] > piece.box.middle[1]:
            found.append(tables.pop(0))
        found.append(piece)
    return [*found, *tables]
