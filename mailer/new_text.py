"""What a student has written in an e-mail, without what was there before and what is added to it.

Everything is decided line by line, so the time grows with the text's length and no more. Where it
is not clear whether a line is the student's own, it stays: a question with a name below it can be
answered, half a question cannot.
"""

import re

from mailer.text import clean

_QUOTE = re.compile(r"\s{0,3}>")
# Level after level, as "> > >" or ">>>"; but ">>> x = 1" is what a Python prompt looks like.
_PROMPT = re.compile(r"\s{0,3}>>> ?\S|\s{0,3}>>>$")

_WROTE = (
    "wrote|writes|escribi[oó]|escribe|va escriure|escribiu|escreveu|a [ée]crit|ha scritto|schrieb"
)
# "El lun, 5 oct 2026 a las 10:00, Ana (<ana@uni.example>) escribió:" and its kin, as one line.
_ATTRIBUTION = re.compile(
    rf".*\b(?:{_WROTE})\b[^:]{{0,80}}:\s*$|\d{{4}}-\d\d-\d\d \d{{1,2}}:\d\d.*<\S+@\S+>:\s*$", re.I
)
_OPENER = re.compile(r"(?:on|el|le|em|il|am|a)\b", re.I)
_DATED = re.compile(r"\d{1,2}[:.h]\d{2}|\b\d{4}\b|@|\d{1,2}[/-]\d{1,2}")
_TIMED = re.compile(r"\d{1,2}[:.]\d{2}|@")
_ATTRIBUTION_LINES = 4
_ATTRIBUTION_LENGTH = 400

_SEPARATOR = re.compile(
    r"[\s>*]*[-_=]{3,}\s*(?:original message|mensaje original|forwarded message|missatge original"
    r"|mensaje reenviado|reply message|mensaje de respuesta|mensaxe orixinal)\s*[-_=]{3,}[\s*]*$"
    r"|[\s>*]*(?:inicio del mensaje reenviado|begin forwarded message):?[\s*]*$",
    re.I,
)
_FIELD = re.compile(
    r"[\s*]*(from|de|sent|enviado(?: el)?|enviat(?: el)?|date|fecha|data|to|para|per a|a|cc"
    r"|subject|asunto|assumpte)\s*:\s*\*?",
    re.I,
)
_FIRST_FIELDS = ("from", "de")
_RULE = re.compile(r"\s*[_-]{10,}\s*$")

_SIGNATURE = "-- "
"""The line that programs put before a signature."""

_DRAWN = re.compile(r"(?:--|__+|—)$")
# Most lines below a line that somebody has drawn, when they are to be a signature.
_DRAWN_LINES = 6
_SENT_FROM = re.compile(
    r"(?:enviado|enviada|enviat) (?:desde|des de|con|amb|mediante) "
    r"(?:mi|el meu|la|el|correo|outlook|yahoo|gmail|mail|proton|android|samsung)\b.{0,60}$"
    r"|sent (?:from|via|with) \S.{0,60}$"
    r"|(?:get|obtener|obt[ée]n|descargar?|consigue) outlook (?:for|para) .{0,40}$"
    r"|env(?:oyé de mon|iado do meu|iato da) .{0,40}$|von meinem .{0,40} gesendet$",
    re.I,
)
_THANKS = (
    r"(?:muchas |mil |many )?(?:gracias|thanks|thank you)(?: (?:de antemano|por \w+ \w+|por todo"
)
_THANKS += r"|in advance|a lot|so much|very much|y (?:un )?saludos?))?"
_CLOSING = re.compile(
    rf"(?:{_THANKS}|(?:un |muchos |cordiales |reciba un )?(?:cordial )?saludos?(?: cordial(?:es)?)?"
    r"|atentamente|cordialmente|un abrazo|(?:best|kind|warm)(?: regards| wishes)?|regards|cheers"
    r"|sincerely|yours(?: sincerely| faithfully)?|all the best|salutacions|atte)"
    r"(?P<name>[\s,.!;:-]+(?:[^\W\d_]+\.?[\s,.]*){0,4})?$",
    re.I,
)
_GREETING = re.compile(
    r"(?:hola|hello|hi|hey|dear|buen[oa]s(?: d[ií]as| tardes| noches)?|buen d[ií]a|estimad[oa]s?"
    r"|good (?:morning|afternoon|evening))\b[\w\s.,:!]{0,40}$",
    re.I,
)
_NAME = re.compile(r"[^\W\d_]+\.?(?:[ -][^\W\d_]+\.?){0,4}$")
_SIGNED = re.compile(
    r"[A-ZÀ-Þ][\w'’.-]*,?(?:\s+(?:de|del|la|los|las|y|i|[A-ZÀ-Þ][\w'’.-]*)){0,6}[\s.]*$"
    r"|\w+(?: \w+)?[\s.]*$"
)
_POSTSCRIPT = re.compile(r"(?:P\.? ?[DS]\.?|postdata|nota|note)\b\W", re.I)
_CLOSING_LINES = 8
_CLOSING_LENGTH = 80

_FOOTER = re.compile(
    r"(?:antes de imprimir|no imprimas? este|please (?:consider|think).{0,30}(?:environment|print)"
    r"|libre de virus|virus[- ]free"
    r"|este (?:correo|mensaje).{0,40}(?:analizado|comprobado).{0,40}virus"
    r"|\W*(?:aviso (?:legal|de confidencialidad)|confidentiality notice|disclaimer"
    r"|cl[áa]usula de confidencialidad|confidencialidad)\W*(?:$|[:.]))",
    re.I,
)
_ABOUT_MAIL = re.compile(
    r"\b(?:mensaje|correo|comunicaci[óo]n|e-?mail|message|communication|transmission)\b", re.I
)
_LEGAL = re.compile(
    r"confiden[ct]i|privileg|destinatari|intended (?:recipient|solely|only|for)|addressee"
    r"|protecci[óo]n de datos|\bRGPD\b|\bGDPR\b|data protection|uso exclusivo|secreto profesional",
    re.I,
)
_BANNER = re.compile(
    r"\W*(?:caution|warning|precauci[óo]n|atenci[óo]n|aviso|external|externo)\b.{0,40}"
    r"(?:external|outside|extern|fuera de|originated|proviene)",
    re.I | re.S,
)
_LEGAL_LENGTH = 60
_SCANNED = 4_000
"""Characters of one paragraph that are looked at for what footers say."""

_SCANNED_LINES = 40


def new_text(text: str, *, is_reply: bool) -> str:
    """The student's own words; empty when there are none.

    History below, between or above them is cut, as are signatures, closings and disclaimers, in
    Spanish and in English. In a mail that is no reply, lines that begin with ``>`` are kept, unless
    they follow a line such as "Ana wrote:".
    """
    lines = [
        line if line == _SIGNATURE else line.rstrip()
        for line in clean(text).replace("\xa0", " ").split("\n")
    ]
    lines = _without_history(lines, is_reply)
    lines = _without_footers(lines)
    lines = _without_signature(lines)
    return _tidy(lines)


def is_courtesy(text: str) -> bool:
    """Whether there is nothing but a greeting, thanks or a name in it."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return len(lines) <= _CLOSING_LINES and all(
        len(line) <= _CLOSING_LENGTH
        and (_CLOSING.match(line) or _GREETING.match(line) or (index and _NAME.match(line)))
        for index, line in enumerate(lines)
    )


def _without_history(lines: list[str], is_reply: bool) -> list[str]:
    kept: list[str] = []
    drops_quotes = is_reply and not _looks_like_prompts(lines)
    index = 0
    while index < len(lines):
        line = lines[index]
        if _starts_history(lines, index):
            return kept
        length = _attribution_length(lines, index)
        if length:
            rest = lines[index + length : index + length + 4]
            after = next((other for other in rest if other.strip()), "")
            if _QUOTE.match(after):
                drops_quotes = True
                index += length
                continue
            # Not marked as quoted: it goes on to the end, if it is a mail program's line at all.
            whole = " ".join(lines[index : index + length])
            if _TIMED.search(whole) and (is_reply or any(other.strip() for other in kept)):
                return kept
        if not (drops_quotes and _QUOTE.match(line)):
            kept.append(line)
        index += 1
    return kept


def _looks_like_prompts(lines: list[str]) -> bool:
    quotes = [line for line in lines if _QUOTE.match(line)]
    return any(map(_PROMPT.match, quotes)) and all(map(_PROMPT.match, quotes))


def _starts_history(lines: list[str], index: int) -> bool:
    line = lines[index]
    if _SEPARATOR.match(line[:200]):
        return True
    first = index
    if _RULE.match(line[:200]):
        # The rule above Outlook's block belongs to it.
        first = next((n for n in range(index + 1, min(index + 4, len(lines))) if lines[n]), index)
    match = _FIELD.match(lines[first][:200])
    if match is None or match[1].lower() not in _FIRST_FIELDS:
        return False
    fields = {match[1].lower()}
    for other in lines[first + 1 : first + 8]:
        if not other.strip():
            continue
        found = _FIELD.match(other[:200])
        if found:
            fields.add(found[1].lower())
        elif not other.startswith((" ", "\t")):
            break
    return len(fields) >= 3


def _attribution_length(lines: list[str], index: int) -> int:
    """How many lines a line such as "Ana wrote:", folded or not, takes from here; 0 if none."""
    if not lines[index].strip() or _QUOTE.match(lines[index]):
        return 0
    whole = ""
    for length, line in enumerate(lines[index : index + _ATTRIBUTION_LINES], 1):
        if not line.strip():
            return 0
        whole = f"{whole} {line.strip()}".strip()
        if len(whole) > _ATTRIBUTION_LENGTH:
            return 0
        if length > 1 and _OPENER.match(line.strip()) and _DATED.search(line):
            return 0  # The lines before it are the student's.
        if _is_attribution(whole):
            return length if length == 1 or _OPENER.match(whole) else 0
    return 0


def _is_attribution(line: str) -> bool:
    return line.endswith(":") and bool(_DATED.search(line) and _ATTRIBUTION.match(line))


def _without_footers(lines: list[str]) -> list[str]:
    """Cut legal notices and the like: a paragraph at the top, else all from the first on."""
    starts_paragraph = True
    top = 0
    for index, line in enumerate(lines):
        if not line.strip():
            starts_paragraph = True
            continue
        may_start = starts_paragraph or _FOOTER.match(line[:200].lstrip(" *_"))
        if may_start and index >= top and _is_footer(lines, index):
            if any(map(str.strip, lines[top:index])):
                return lines[top:index]
            top = index
            while top < len(lines) and lines[top].strip():
                top += 1
        starts_paragraph = False
    return lines[top:]


def _is_footer(lines: list[str], index: int) -> bool:
    paragraph: list[str] = []
    for line in lines[index : index + _SCANNED_LINES]:
        if not line.strip():
            break
        paragraph.append(line[:_SCANNED])
    text = " ".join(paragraph)[:_SCANNED].lstrip(" *_")
    if "?" in text:
        return False
    return bool(_FOOTER.match(paragraph[0][:200].lstrip(" *_")) or _BANNER.match(text[:200])) or (
        len(text) >= _LEGAL_LENGTH and bool(_ABOUT_MAIL.search(text) and _LEGAL.search(text))
    )


def _without_signature(lines: list[str]) -> list[str]:
    if _SIGNATURE in lines:
        lines = lines[: lines.index(_SIGNATURE)]
    lines = [line for line in lines if not _SENT_FROM.match(line.strip()) or "?" in line]
    # Without the space it may be a line that the student has drawn between two paragraphs.
    below = 0
    for index in range(len(lines) - 1, 0, -1):
        if _DRAWN.match(lines[index]) and any(map(str.strip, lines[:index])):
            lines = lines[:index]
            break
        below += bool(lines[index].strip())
        if "?" in lines[index] or below > _DRAWN_LINES:
            break
    while lines and not lines[-1].strip():
        lines.pop()
    return _without_closing(lines)


def _without_closing(lines: list[str]) -> list[str]:
    start = max(0, len(lines) - 2 * _CLOSING_LINES)
    for index in range(start, len(lines)):
        line = lines[index].strip()
        if len(line) > _CLOSING_LENGTH or not _CLOSING.match(line):
            continue
        below = [other.strip() for other in lines[index + 1 :] if other.strip()]
        is_closing = len(below) <= _CLOSING_LINES and not any(
            "?" in other or len(other) > _CLOSING_LENGTH or _POSTSCRIPT.match(other)
            for other in below
        )
        # What follows thanks and is no name may be another question, without its mark.
        is_closing &= not below or bool(_CLOSING.match(below[0]) or _SIGNED.match(below[0]))
        if is_closing and any(map(str.strip, lines[:index])):
            return lines[:index]
    return lines


def _tidy(lines: list[str]) -> str:
    tidy: list[str] = []
    for line in lines:
        if line or (tidy and tidy[-1]):
            tidy.append(line)
    return "\n".join(tidy).strip("\n ")
