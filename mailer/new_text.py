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
_VERB = re.compile(rf"\b(?:{_WROTE})\b", re.I)
# "El lun, 5 oct 2026 a las 10:00, Ana (<ana@uni.example>) escribió:" and its kin, as one line; in
# other languages what they have in common, a time and an address.
_ATTRIBUTION = re.compile(
    rf".*\b(?:{_WROTE})\b[^:]{{0,80}}:\s*$"
    r"|(?=.*\d{1,2}[:.]\d\d).*[<(]\S+@\S+[)>].{0,60}:\s*$"
    r"|(?:quoting|citando(?: a)?) .{0,100}<\S+@\S+>:\s*$",
    re.I,
)
_OPENER = re.compile(r"(?:on|el|en|le|em|il|am|a|o|op|missatge|mensaje|hau)\b|\d", re.I)
_DATED = re.compile(r"\d{1,2}[:.h]\d{2}|\b\d{4}\b|@|\d{1,2}[/-]\d{1,2}")
_TIMED = re.compile(r"\d{1,2}[:.]\d{2}|@")
_ATTRIBUTION_LINES = 4
_ATTRIBUTION_LENGTH = 400

_SEPARATOR = re.compile(
    r"[\s>*]*[-_=]{3,}\s*(?:(?:original|forwarded|reply) message|(?:mensaje|missatge) original"
    r"|mensaje (?:reenviado|de respuesta)|missatge reenviat|mensaxe orixinal|jatorrizko mezua"
    r"|mensagem original|ursprüngliche nachricht|message (?:d['’]origine|transféré)"
    r"|messaggio originale)\s*[-_=]{3,}[\s*]*$"
    r"|[\s>*]*(?:inicio del mensaje reenviado|begin forwarded message):?[\s*]*$",
    re.I,
)
# The fields above a mail that Outlook and its kin quote, in the languages of their menus.
_FIELD = re.compile(
    r"[\s*>]*(?:(?P<sender>from|de|von|da|nork)"
    r"|(?P<date>sent|date|enviad[oa]s?(?: el| em)?|fecha|enviat(?: el)?|data|gesendet|datum|envoyé"
    r"|inviato|bidaltze-data|bidalita)"
    r"|(?P<recipient>to|para|per a|a|an|à|nori|cc)"
    r"|(?P<subject>subject|asunto|assumpte|tema|assunto|betreff|objet|oggetto|gaia))\s*:",
    re.I,
)
_RULE = re.compile(r"\s*[_-]{10,}\s*$")

_SIGNED_BEGINS = "-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNED_ENDS = "-----BEGIN PGP SIGNATURE-----"

_SIGNATURE = "-- "
"""The line that programs put before a signature."""

_DRAWN = re.compile(r"(?:--|__+|—)$")
# Most lines below a line that somebody has drawn, when they are to be a signature.
_DRAWN_LINES = 6
# They begin with a capital: "enviado desde el servidor" may be the second line of a question.
_SENT_FROM = re.compile(
    r"\[?(?:Enviad[oa] (?:desde|con|mediante|do)|Enviat (?:des|amb)|Sent (?:from|via|with)"
    r"|Gesendet (?:von|mit)|Envoyé (?:de|à partir)|Inviato da"
    r"|(?:Get|Obtener|Obt[ée]n|Descargar?|Consigue) Outlook (?:for|para)) [^?]*(?:\?LinkId=[^?]*)?$"
    r"|Von meinem .{0,40} gesendet\.?$",
)
_SENT_FROM_LENGTH = 120
# What becomes of an image when HTML is written as plain text.
_IMAGE = re.compile(r"\[cid:[^\]]*\](?:<\S*>)?$|\[[^\]]{0,80}\]<https?://\S*>$", re.I)
_THANKS = (
    r"(?:(?:ok|okay|vale|perfecto|entendido|de acuerdo|genial|great|perfect|understood)[\s,.!]+)?"
    r"(?:much[ií]simas |muchas |mil |many )?(?:gracias|thanks|thank you)"
    r"(?: (?:de antemano|por adelantado|por \w+ \w+|por todo|in advance|a lot|so much|very much"
    r"|y (?:un )?saludos?))?(?: for your \w+)?"
)
_WAITING = (
    r"(?:quedo )?a la espera de (?:su|tu|vuestra) (?:respuesta|contestaci[óo]n)"
    r"|espero (?:su|tu|vuestra) respuesta"
    r"|(?:i )?look(?:ing)? forward to (?:your reply|hearing from you)"
)
_REGARDS = (
    r"(?:un |muchos |cordiales |reciba un )?(?:cordial )?saludos?(?: cordial(?:es)?)?"
    r"|atentamente|cordialmente|un abrazo|(?:best|kind|warm)(?: regards| wishes)?|regards|cheers"
    r"|sincerely|yours(?: sincerely| faithfully)?|all the best|salutacions|atte"
)
_CLOSING = re.compile(
    rf"(?:(?:{_THANKS}|{_WAITING})(?:[.,!;]+| y| and) )?(?:{_THANKS}|{_WAITING}|{_REGARDS})"
    r"(?P<name>[\s,.!;:-]+(?:[^\W\d_]+\.?[\s,.]*){0,4})?$",
    re.I,
)
_GREETING = re.compile(
    r"(?i:hola|hello|hi|hey|dear|buen[oa]s(?: d[ií]as| tardes| noches)?|buen d[ií]a|estimad[oa]s?"
    r"|good (?:morning|afternoon|evening))\b"
    # Whom it greets: a name, a title, or all.
    r"[\s,.:!]*(?:(?:(?i:a tod[oa]s|all|everyone|again|de nuevo|otra vez|señora?|professor"
    r"|profesora?)\b|[A-ZÀ-Þ][\w.'’-]*)[\s,.:!]*){0,5}$"
)
# A click on a smiley, which Gmail and Outlook send as a mail.
_REACTION = re.compile(
    r"[^\w?]+$|.{1,60} (?:reacted (?:via Gmail|to your message)"
    r"|(?:ha reaccionado|reaccionó) (?:con Gmail|a través de Gmail|a (?:tu|su) mensaje))[\s.:]*$"
)
_SMALL = re.compile(r"\b(?!del?\b)[a-zà-ÿ]\w*")
# One word: two may be "Explica Kirchhoff".
_NAME = re.compile(r"[A-ZÀ-Þ][a-zà-ÿ'’-]+\.?$")
_SIGNED = re.compile(
    r"[A-ZÀ-Þ][\w'’.-]*,?(?:\s+(?:de|del|la|los|las|y|i|[A-ZÀ-Þ][\w'’.-]*)){0,6}"
    r"(?:\s*[(|·–—]|\s-\s|[\s.]*$)"
    r"|\w+(?: \w+)?[\s.]*$"
)
_POSTSCRIPT = re.compile(r"(?:P\.? ?[DS]\.?|postdata|nota|note)\b\W", re.I)
_CLOSING_LINES = 8
_CLOSING_LENGTH = 80

_FOOTER = re.compile(
    r"\W*(?:P )?(?:antes de imprimir|(?:por favor\W+)?no imprim(?:as?|[ai]s) este"
    r"|please (?:consider|think).{0,30}(?:environment|print))"
    r"|(?:<\S+> ?)?(?:libre de virus|virus[- ]free)"
    r"|.{0,60}(?:analizado|comprobado|scanned|checked)\b.{0,60}\bvirus"
    r"|\W*(?:informaci[óo]n (?:b[áa]sica )?sobre protecci[óo]n de datos|protecci[óo]n de datos"
    r"|aviso (?:legal|de confidencialidad)|confidentiality notice|disclaimer"
    r"|cl[áa]usula de confidencialidad|confidencialidad)\W*(?:$|[:.])",
    re.I,
)
_ABOUT_MAIL = re.compile(
    r"\b(?:est[ea]s?|presentes?|aquest[ae]?|an?|this|the|these)\W+(?:\w+ ){0,2}"
    r"(?:mensajes?|correos?|comunicaci[óo]n|missatge|e-?mails?|messages?|communication|transmission)\b",
    re.I,
)
_LEGAL = re.compile(
    r"confiden[ct]i|privileg|destinatari|intended (?:recipient|solely|only|for)|addressee"
    r"|protecci[óo]n de datos|\bRGPD\b|\bGDPR\b|data protection|uso exclusivo|secreto profesional",
    re.I,
)
_BANNER = re.compile(
    r"\W*(?:caution|warning|precauci[óo]n|atenci[óo]n|aviso|external|externo)\b.{0,40}"
    r"(?:external|outside|extern|fuera de|originated|proviene)"
    r"|\W*\[(?:external|externo)\b[^\]]{0,20}\]|\W*(?:correo|mensaje) externo\b"
    r"|\W*(?:no suele recibir correos?|you don['’]t often get e-?mail)\b"
    r"|\W*some people who received this\b",
    re.I | re.S,
)
_URL = re.compile(r"https?://\S+")
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
    lines = _without_history(_without_armor(lines), is_reply)
    lines = _without_footers(lines)
    lines = _without_signature(lines)
    return _tidy(lines)


def is_courtesy(text: str) -> bool:
    """Whether there is nothing but a greeting, thanks, a smiley or a name in it."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return len(lines) <= _CLOSING_LINES and all(
        len(line) <= _CLOSING_LENGTH
        and (
            _is_closing(line, small_words=0)
            or _GREETING.match(line)
            or _REACTION.match(line)
            or (index and _NAME.match(line))
        )
        for index, line in enumerate(lines)
    )


def _is_closing(line: str, *, small_words: int) -> bool:
    """Whether it is thanks or regards; words without a capital behind them may be a question's."""
    match = _CLOSING.match(line)
    return match is not None and len(_SMALL.findall(match["name"] or "")) <= small_words


def _without_armor(lines: list[str]) -> list[str]:
    """What a PGP signature stands around (RFC 9580, 7)."""
    if _SIGNED_BEGINS not in lines:
        return lines
    begin = lines.index(_SIGNED_BEGINS)
    end = lines.index(_SIGNED_ENDS) if _SIGNED_ENDS in lines else len(lines)
    body = lines[begin + 1 : end]
    if "" in body:
        body = body[body.index("") + 1 :]
    return [*lines[:begin], *(re.sub(r"^- (?=-)", "", line) for line in body)]


def _without_history(lines: list[str], is_reply: bool) -> list[str]:
    kept: list[str] = []
    drops_quotes = is_reply and not _looks_like_prompts(lines)
    index = 0
    while index < len(lines):
        line = lines[index]
        is_below = is_reply or any(map(str.strip, kept))
        if _SEPARATOR.match(line[:200]) or (is_below and _starts_header(lines, index)):
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
            if _TIMED.search(whole) and _VERB.search(whole) and is_below:
                return kept
        if not drops_quotes and _QUOTE.match(line) and _is_attribution(line.lstrip("> ")):
            # Apple Mail quotes the line "Ana wrote:" as well.
            drops_quotes = True
            while kept and _QUOTE.match(kept[-1]):
                kept.pop()
        if not (drops_quotes and _QUOTE.match(line)):
            kept.append(line)
        index += 1
    return kept


def _looks_like_prompts(lines: list[str]) -> bool:
    quotes = [line for line in lines if _QUOTE.match(line)]
    return any(map(_PROMPT.match, quotes)) and all(map(_PROMPT.match, quotes))


def _starts_header(lines: list[str], index: int) -> bool:
    """Whether the header of another mail begins here, as Outlook writes it."""
    first = index
    if _RULE.match(lines[index][:200]):
        # The rule above it belongs to it.
        first = next((n for n in range(index + 1, min(index + 4, len(lines))) if lines[n]), index)
    match = _FIELD.match(lines[first][:200])
    if match is None or not match["sender"]:
        return False
    fields = {"sender"}
    for other in lines[first + 1 : first + 8]:
        if not other.strip():
            continue
        found = _FIELD.match(other[:200])
        # "Date: when is it?" is a question.
        if found and (found.lastgroup != "date" or re.search(r"\d", other)):
            fields.add(str(found.lastgroup))
        elif not found and not other.startswith((" ", "\t")):
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
        if length > 1 and _OPENER.match(line.strip()) and _DATED.search(line) and "," in line:
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
    if "?" in _URL.sub("", text):
        return False
    return bool(_FOOTER.match(paragraph[0][:200].lstrip(" *_")) or _BANNER.match(text[:200])) or (
        len(text) >= _LEGAL_LENGTH and bool(_ABOUT_MAIL.search(text) and _LEGAL.search(text))
    )


def _without_signature(lines: list[str]) -> list[str]:
    if _SIGNATURE in lines:
        lines = lines[: lines.index(_SIGNATURE)]
    lines = [
        line
        for line, next_line in zip(lines, [*lines[1:], ""], strict=True)
        if len(line) > _SENT_FROM_LENGTH
        or not (
            (_SENT_FROM.match(line.strip()) and not next_line.strip()) or _IMAGE.match(line.strip())
        )
    ]
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
        if len(line) > _CLOSING_LENGTH or not _is_closing(line, small_words=1):
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
