"""The automatic numbers of Word's lists and headings."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

_ROMAN = dict(
    zip(
        (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
        ("m", "cm", "d", "cd", "c", "xc", "l", "xl", "x", "ix", "v", "iv", "i"),
        strict=True,
    )
)
_LEVELS = 9


class Numbering:
    """Counts through a document in order and gives each paragraph its number as it is printed."""

    def __init__(self, root: Any, namespace: str) -> None:
        self._w = namespace
        self._abstract: dict[str, dict[int, Any]] = {}
        self._lists: dict[str, tuple[str, dict[int, Any]]] = {}
        self._starts: dict[str, dict[int, int]] = defaultdict(dict)
        self._counts: dict[str, dict[int, int]] = defaultdict(dict)
        self._begun: set[str] = set()
        if root is None:
            return
        for abstract in root.iter(f"{namespace}abstractNum"):
            key = abstract.get(f"{namespace}abstractNumId", "")
            self._abstract[key] = self._read_levels(abstract)
        for number in root.iter(f"{namespace}num"):
            key = number.get(f"{namespace}numId", "")
            abstract_key = self._value(number, "abstractNumId", "")
            levels = dict(self._abstract.get(abstract_key, {}))
            for override in number.iter(f"{namespace}lvlOverride"):
                levels |= self._read_levels(override)
                start = self._value(override, "startOverride", "")
                if start.isdecimal():
                    at = override.get(f"{namespace}ilvl", "0")
                    self._starts[key][int(at) if at.isdecimal() else 0] = int(start[:9])
            self._lists[key] = abstract_key, levels

    def _read_levels(self, element: Any) -> dict[int, Any]:
        found = element.iter(f"{self._w}lvl")
        return {
            int(at): level for level in found if (at := level.get(f"{self._w}ilvl", "")).isdecimal()
        }

    def _value(self, element: Any, name: str, default: str) -> str:
        found = element.find(f"{self._w}{name}")
        return str(found.get(f"{self._w}val", default)) if found is not None else default

    def mark(self, properties: Sequence[Any]) -> str:
        """The number or ``-`` of a paragraph, by its own properties and then its styles'."""
        key = level_text = ""
        for found in properties:
            numbered = found.find(f"{self._w}numPr")
            if numbered is not None:
                key = key or self._value(numbered, "numId", "")
                level_text = level_text or self._value(numbered, "ilvl", "")
        if key not in self._lists:  # "0" takes a style's number away
            return ""
        abstract, levels = self._lists[key]
        level = min(int(level_text), _LEVELS - 1) if level_text.isdecimal() else 0
        definition = levels.get(level)
        if definition is None:
            return "-"
        if self._value(definition, "numFmt", "decimal") in ("bullet", "none"):
            text = self._value(definition, "lvlText", "")
            return "-" if self._value(definition, "numFmt", "") == "bullet" and text.strip() else ""
        self._advance(key, abstract, levels, level)
        return self._format(self._counts[abstract], levels, level)

    def _advance(self, key: str, abstract: str, levels: dict[int, Any], level: int) -> None:
        counts = self._counts[abstract]
        if key not in self._begun:  # the lists of one kind count on, unless told to start anew
            self._begun.add(key)
            for at in self._starts[key]:
                counts.pop(at, None)
        for at in [at for at in counts if at > level]:
            del counts[at]
        for at in range(level + 1):
            if at not in counts:
                start = self._value(levels[at], "start", "1") if at in levels else "1"
                first = int(start[:9]) if start.isdecimal() else 1
                counts[at] = self._starts[key].get(at, first) - (at == level)
        counts[level] += 1

    def _format(self, counts: dict[int, int], levels: dict[int, Any], level: int) -> str:
        text = self._value(levels[level], "lvlText", f"%{level + 1}.")
        legal = levels[level].find(f"{self._w}isLgl") is not None
        for at in range(level + 1):
            kind = self._value(levels[at], "numFmt", "decimal") if at in levels else "decimal"
            number = str(counts[at]) if legal else spelled(counts[at], kind)
            text = text.replace(f"%{at + 1}", number)
        return text.strip()


def spelled(number: int, kind: str) -> str:
    """A number in one of Word's notations: ``decimal``, ``lowerLetter``, ``upperRoman``, …."""
    match kind:
        case "lowerLetter" | "upperLetter" if 0 < number <= 260:
            text = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
        case "lowerRoman" | "upperRoman" if 0 < number < 4000:
            text = ""
            for value, letters in _ROMAN.items():
                text += letters * (number // value)
                number %= value
        case "decimalZero":
            text = f"{number:02}"
        case "bullet" | "none":
            text = ""
        case _:
            text = str(number)
    return text.upper() if kind.startswith("upper") else text
