"""Documents to passages: what is found, shown to the model, and quoted."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from langchain_core.documents import Document
from langchain_text_splitters import RecursiveCharacterTextSplitter

from rag_worker.documents.sections import PATH_SEPARATOR
from rag_worker.language import detect_language

PASSAGE_CHARACTERS = 1000
"""A passage's longest text. About 250 tokens: two to four passages fit a small model's window."""
SMALL_SECTION = 300
"""A section shorter than this shares a passage with its neighbours on the same page."""
_DETECTION_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of one page, slide or section.

    Attributes:
        text: literally as in the document.
        file: the file's path below the course folder, with ``/``.
        page, slide: counted from 1; None where the format has none.
        heading: the path of headings above it, outermost first.
        language: of the whole document, as a two-letter code.
    """

    text: str
    file: str
    page: int | None
    slide: int | None
    heading: str | None
    language: str

    @property
    def embedded_text(self) -> str:
        """What is searched: the text under its headings, which say what it is about."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text

    @property
    def content_hash(self) -> str:
        """The same for the same searched text, whatever the file is called."""
        return hashlib.sha256(self.embedded_text.encode()).hexdigest()


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
    language = detect_language(sample)
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
