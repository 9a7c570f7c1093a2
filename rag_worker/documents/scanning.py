"""Which files of the course folder are documents."""

import os
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = frozenset({".pdf", ".docx", ".pptx", ".odt", ".html", ".htm", ".md", ".txt"})
"""The formats that are read."""
_OLD_FORMATS = frozenset({".doc", ".ppt", ".rtf", ".odp", ".epub", ".tex", ".xlsx", ".ods"})
"""Formats that a teacher would expect to be read; they are named as unread."""


def find_files(folder: Path) -> Iterator[Path]:
    """Everything below ``folder`` that goes by a document's name, in the order of its name.

    Hidden files and the lock files of office programs are passed over. What cannot be read, such
    as formats of old and links that lead out of the folder, is given too, to be named as unread.
    """
    root = folder.resolve()
    found = []
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".")]
        paths = [Path(directory, name) for name in files]
        found += [
            path
            for path in paths
            if path.suffix.lower() in SUFFIXES | _OLD_FORMATS
            and not path.name.startswith((".", "~$", "~lock"))
        ]
        # Links to folders are not followed; what is inside this one is read at its own place.
        links = [Path(directory, name) for name in names if Path(directory, name).is_symlink()]
        found += [link for link in links if not link.resolve().is_relative_to(root)]
    return iter(sorted(found))


def no_document(path: Path, folder: Path) -> str | None:
    """Why nothing at ``path`` is to be opened; None for a file inside ``folder``."""
    if path.is_symlink():
        try:
            target = path.resolve(strict=True)
        except FileNotFoundError:
            return "It is a link to something that is not there: put the file itself here."
        except (OSError, RuntimeError):
            return "It is a link that leads nowhere: put the file itself here."
        if not target.is_relative_to(folder.resolve()):
            return "It is a link that leads out of the folder: put the file itself here."
    if path.exists() and not path.is_file():
        return "It is no file but a pipe or a device: put a file in its place."
    return None
