"""Why a file could not be read."""


class DocumentError(Exception):
    """A file cannot be read; the message says why and what to do, without the file's name."""
