"""Does a model give its instructions away? A word in them, which nobody can know, shows it."""

import base64
import binascii
import codecs
import functools
import re
import secrets
import unicodedata
from collections.abc import Iterator
from importlib import resources
from urllib.parse import unquote

CANARY = secrets.token_hex(8)
"""Another one in each process: no document, no question and no earlier answer has it."""
_CANARY_PART = 7
"""Characters of it that come by chance in one answer of 70,000 that are nothing but hexadecimal."""
_MOST_WORDS = 7
"""Of the instructions, one after the other, that an answer may have too."""
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{10,}={0,2}")
_LOOKALIKES = str.maketrans("асеоіеӏ", "aceoiel")


@functools.cache
def instructions() -> str:
    """What the model reads first."""
    text = resources.files("rag_worker").joinpath("instructions.txt").read_text(encoding="utf-8")
    return text.rstrip("\n").format(canary=CANARY)


def gives_away(written: str) -> bool:
    """Whether a model's text has the canary or a run of the instructions, also in disguise.

    Case, spaces, accents and signs do not count; reversed, base64, hexadecimal, ROT13 and percent
    signs are read. What is spread over other words or translated is not found here: the check of
    each sentence against the passages is what stops that.
    """
    return any(_has_canary(text) or _repeats(text) for text in _readings(written))


def _readings(written: str) -> Iterator[str]:
    yield written
    yield written[::-1]
    yield codecs.encode(written, "rot13")
    yield unquote(written)
    for found in _ENCODED.findall(re.sub(r"[\r\n]", "", written)):
        yield from _decoded(found)
    # Hexadecimal may be written with spaces between its bytes.
    yield from _decoded("".join(re.findall(r"\b(?:0x)?([0-9a-fA-F]{2})\b", written)))


def _decoded(text: str) -> Iterator[str]:
    bare = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    for start in range(4):
        part = bare[start:]
        part = part[: len(part) - (len(part) % 4 == 1)]
        yield base64.b64decode(part + "=" * (-len(part) % 4)).decode("latin-1")
    try:
        yield binascii.unhexlify(text).decode("latin-1")
    except ValueError:
        return


def _has_canary(text: str) -> bool:
    bare = re.sub(r"[\W_]", "", _folded(text))
    ends = range(len(CANARY) - _CANARY_PART + 1)
    return any(CANARY[at : at + _CANARY_PART] in bare for at in ends)


def _repeats(text: str) -> bool:
    said = _words(text)
    runs = _runs()
    return any(
        tuple(said[at : at + _MOST_WORDS + 1]) in runs for at in range(len(said) - _MOST_WORDS)
    )


@functools.cache
def _runs() -> frozenset[tuple[str, ...]]:
    words = _words(instructions())
    return frozenset(
        tuple(words[at : at + _MOST_WORDS + 1]) for at in range(len(words) - _MOST_WORDS)
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", _folded(text))


def _folded(text: str) -> str:
    folded = unicodedata.normalize("NFKD", text).casefold().translate(_LOOKALIKES)
    return "".join(one for one in folded if unicodedata.category(one)[0] not in "MC" or one == "\n")
