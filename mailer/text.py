"""Text of people and models, made fit for an e-mail."""

import re
import unicodedata

# Directional embeddings, overrides and isolates: they can make a text read as another.
_BIDI = "\u202a-\u202e\u2066-\u2069"
_UNFIT = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff{_BIDI}]")
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_ADDRESS = re.compile(r"[^\s<>@]+@")


def clean(text: str) -> str:
    """The text with ``\\n`` as its only line end, and without what no mail may carry.

    Control characters, lone surrogates and changes of the reading direction are dropped.
    """
    return _UNFIT.sub("", _LINE_ENDS.sub("\n", text))


def one_line(text: str, limit: int) -> str:
    """The text as a single line of visible characters, cut at a word to ``limit`` characters."""
    # Category C: control, format, surrogate, private use and unassigned characters.
    visible = "".join(
        " " if character.isspace() else character
        for character in text
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    # "=?" would begin an encoded word, which a header decodes again, line ends and all.
    line = " ".join(visible.split()).replace("=?", "= ?")
    if len(line) <= limit:
        return line
    cut = line[: limit - 1]
    # A text without spaces, such as a long address, is cut in the middle of its word.
    head, space, _ = cut.rpartition(" ")
    return (head if space and len(head) > limit // 2 else cut).rstrip() + "…"


def without_addresses(text: str) -> str:
    """The text for a log: of e-mail addresses only the domains are left."""
    return _ADDRESS.sub("…@", text)
