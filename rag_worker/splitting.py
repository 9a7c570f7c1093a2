"""Documents to passages, along their own structure."""

import re
from collections.abc import Iterable
from itertools import groupby

from langchain_core.documents import Document
from langchain_text_splitters import RecursiveCharacterTextSplitter

from rag_worker.documents.sections import PATH_SEPARATOR
from rag_worker.language import document_language
from rag_worker.passages import Passage

PASSAGE_CHARACTERS = 1000
"""A passage's longest text. About 250 tokens: two to four passages fit a small model's window."""
SMALL_SECTION = 300
"""A section shorter than this shares a passage with its neighbours on the same page."""
_DETECTION_CHARACTERS = 20_000


# Paragraphs, then lines, then sentences stay whole as long as they fit.
_SPLITTER = RecursiveCharacterTextSplitter(
    chunk_size=PASSAGE_CHARACTERS,
    chunk_overlap=0,
    separators=["\n\n", "\n", r"(?<=[.!?…;])\s+", r"\s+", ""],
    is_separator_regex=True,
    keep_separator="start",
)


def split(documents: Iterable[Document]) -> list[Passage]:
    """The passages of one file's documents, in order; none spans two pages or slides."""
    documents = list(documents)
    sample = "\n".join(document.page_content for document in documents)[:_DETECTION_CHARACTERS]
    language = document_language(sample)
    passages: list[Passage] = []
    for _, same_page in groupby(
        documents, key=lambda document: (document.metadata["page"], document.metadata["slide"])
    ):
        for document in _merge_small(same_page):
            passages += [
                Passage(text=text.strip(), language=language, **document.metadata)
                for text in _SPLITTER.split_text(document.page_content)
                if re.search(r"\w", text)
            ]
    return passages


def _merge_small(documents: Iterable[Document]) -> list[Document]:
    """Join short neighbouring sections; each keeps its own heading as a line of its text."""
    merged: list[Document] = []
    for document in documents:
        if merged and _fit_together(merged[-1], document):
            merged[-1] = _join(merged[-1], document)
        else:
            merged.append(document)
    return merged


def _fit_together(first: Document, second: Document) -> bool:
    sizes = len(first.page_content), len(second.page_content)
    return (
        min(sizes) < SMALL_SECTION
        and sum(sizes) < PASSAGE_CHARACTERS
        # Parent and child, or neighbours below one heading: chapters stay apart.
        and len(_common_path(first, second)) >= max(len(_path(first)), len(_path(second))) - 1
    )


def _common_path(first: Document, second: Document) -> list[str]:
    common = []
    for one, other in zip(_path(first), _path(second), strict=False):
        if one != other:
            break
        common.append(one)
    return common


def _path(document: Document) -> list[str]:
    heading = document.metadata["heading"]
    return heading.split(PATH_SEPARATOR) if heading else []


def _join(first: Document, second: Document) -> Document:
    title = _path(second)[-1] if _path(second) and _path(first) != _path(second) else ""
    text = "\n\n".join(filter(None, [first.page_content, title, second.page_content]))
    # The first section's heading places the passage; the second's stands in the text.
    return Document(page_content=text, metadata=first.metadata)
