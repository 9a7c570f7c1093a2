"""Which files of the course folder are documents."""

import os
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = frozenset({".pdf", ".docx", ".pptx", ".odt", ".html", ".htm", ".md", ".txt"})
"""The formats that are read."""
_OLD_FORMATS = frozenset({".doc", ".ppt", ".rtf", ".odp", ".epub", ".tex", ".xlsx", ".ods"})
"""Formats that a teacher would expect to be read; they are named as unread."""


def find_files(folder: Path) -> Iterator[Path]:
    """Every document below ``folder``, in the order of its name.

    Hidden files, the lock files of office programs, and links that lead out of the folder are
    passed over. Files of formats that are not read are given too when they look like documents.
    """
    root = folder.resolve()
    found = []
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in files:
            path = Path(directory, name)
            if (
                path.suffix.lower() in SUFFIXES | _OLD_FORMATS
                and not name.startswith((".", "~$", "~lock"))
                and path.is_file()
                and path.resolve().is_relative_to(root)
            ):
                found.append(path)
    return iter(sorted(found))
