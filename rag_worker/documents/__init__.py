"""Course documents: files to text with pages, slides and headings."""

from rag_worker.documents.errors import DocumentError
from rag_worker.documents.limits import Limits
from rag_worker.documents.reading import FileText, read_file
from rag_worker.documents.scanning import SUFFIXES, find_files, no_document

__all__ = [
    "SUFFIXES",
    "DocumentError",
    "FileText",
    "Limits",
    "find_files",
    "no_document",
    "read_file",
]
