"""The text of an HTML e-mail, laid out as if it had been written as plain text."""

import re
from html.parser import HTMLParser

import nh3

HTML_LIMIT = 500_000
"""Characters of HTML that are read: a question is at the top, and time must be bounded."""

DEPTH_LIMIT = 2_000
"""Elements inside each other; the sanitiser's time grows with its square."""

HISTORY = "-----Original Message-----"
"""The line that stands for the start of the history, as :mod:`mailer.new_text` knows it."""

_BLOCKS = frozenset(
    {
        *("address", "article", "aside", "center", "dd", "div", "dl", "dt", "fieldset", "figure"),
        *("footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "li", "main", "nav"),
        *("ol", "p", "pre", "section", "table", "tbody", "thead", "tr", "ul"),
    }
)
_TAGS = _BLOCKS | {"blockquote", "br", "hr", "span", "td", "th", "font", "a", "b", "i"}
_MARKS = {"class", "id", "style", "type", "hidden"}

_TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)", re.I)
# They have no end tag, or need none.
_NO_END = frozenset(
    {
        *("area", "base", "br", "col", "dd", "dt", "hr", "img", "input", "li", "link", "meta"),
        *("option", "p", "td", "th", "tr"),
    }
)

_HIDDEN = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|mso-hide\s*:\s*all"
    r"|font-size\s*:\s*0*\.?0+(?:px|pt|em|%)?\s*(?:;|!|$)|opacity\s*:\s*0*\.?0+\s*(?:;|!|$)",
    re.I,
)
_SIGNATURES = frozenset(
    [
        "gmail_signature",
        "gmail_signature_prefix",
        "moz-signature",
        "signature",
        "applemailsignature",
        "protonmail_signature_block",
        "ms-outlook-mobile-signature",
    ]
)
# From here to the end is history.
_HISTORY_STARTS = frozenset(
    {
        *("divrplyfwdmsg", "outlookmessageheader", "olk_src_body_section"),
        *("ms-outlook-mobile-body-separator-line", "mail-editor-reference-message-container"),
        *("isforwardcontent", "isreplycontent"),
    }
)
# Quotations that are no blockquote.
_QUOTES = frozenset(["yahoo_quoted", "protonmail_quote", "zmail_extra"])


def html_to_text(html: str) -> str:
    """The visible text: a line for each block, "> " before quotations, no scripts or styles.

    Where a mail program has marked the rest as the mail that is replied to, a line
    :data:`HISTORY` stands.
    """
    html = html[:HTML_LIMIT]
    if _depth(html) > DEPTH_LIMIT:
        return re.sub(r"<[^<>]*>", " ", html)
    cleaned = nh3.clean(
        html,
        tags=set(_TAGS),
        attributes={"*": _MARKS},
        clean_content_tags={"script", "style", "title", "noscript", "template", "svg", "math"},
    )
    parser = _Text()
    # It may have grown: the sanitiser closes everything that was left open.
    parser.feed(cleaned[:HTML_LIMIT])
    parser.close()
    return parser.text()


def _depth(html: str) -> int:
    depth = deepest = 0
    for match in _TAG.finditer(html):
        if match[2].lower() not in _NO_END:
            depth = max(0, depth - 1) if match[1] else depth + 1
            deepest = max(deepest, depth)
    return deepest


class _Text(HTMLParser):
    """Reads what the sanitiser leaves: every tag known, every element closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._lines: list[str] = []
        self._line: list[str] = []
        self._open: list[tuple[str, bool, bool]] = []
        """Open elements: name, whether dropped, whether a quotation."""
        self._dropped = self._quotes = self._preformatted = 0
        self._blank_due = False

    def text(self) -> str:
        """All lines so far."""
        self._end_line()
        return "\n".join(self._lines)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if tag == "br":
            self._end_line(even_empty=True)
            return
        if tag == "hr":
            self._end_line()
            return
        # Gmail marks a reply's own copy with "x_" where Outlook has passed it on.
        names = {
            name.lower().removeprefix("x_")
            for name in f"{values.get('class', '')} {values.get('id', '')}".split()
        }
        style = values.get("style", "")
        is_dropped = "hidden" in values or bool(names & _SIGNATURES) or bool(_HIDDEN.search(style))
        # An indented paragraph is a blockquote as well, in some programs.
        is_indent = "border:none" in style.replace(" ", "") and values.get("type") != "cite"
        is_quote = (tag == "blockquote" and not is_indent) or (
            tag == "div" and bool(names & _QUOTES)
        )
        if tag in _BLOCKS or tag == "blockquote":
            self._end_line()
            self._blank_due |= (
                tag in ("p", "blockquote", "table", "ul", "ol", "pre") or tag[0] == "h"
            )
        self._open.append((tag, is_dropped, is_quote))
        self._dropped += is_dropped
        self._quotes += is_quote
        self._preformatted += tag == "pre"
        if not self._dropped:
            if names & _HISTORY_STARTS:
                self._lines.append(HISTORY)
            if tag == "li":
                self._line.append("- ")
            elif tag in ("td", "th") and self._line:
                self._line.append("  ")

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1][0] != tag:
            return
        if tag in _BLOCKS or tag == "blockquote":
            self._end_line()
            self._blank_due |= tag in ("p", "blockquote", "table", "pre")
        _, is_dropped, is_quote = self._open.pop()
        self._dropped -= is_dropped
        self._quotes -= is_quote
        self._preformatted -= tag == "pre"

    def handle_data(self, data: str) -> None:
        if self._dropped:
            return
        if not self._preformatted:
            # Only what HTML calls white space: a no-break space stays.
            words = re.sub(r"[ \t\r\n\f]+", " ", data)
            if not self._line or self._line[-1].endswith(" "):
                words = words.lstrip(" ")
            if words:
                self._line.append(words)
            return
        first, *others = data.split("\n")
        self._line.append(first)
        for line in others:
            self._end_line(even_empty=True)
            self._line.append(line)

    def _end_line(self, *, even_empty: bool = False) -> None:
        if self._dropped:
            self._line.clear()
            return
        line = "".join(self._line).rstrip()
        self._line.clear()
        if not line.strip() and not even_empty:
            return
        quote = "> " * min(self._quotes, 5)
        if self._blank_due and self._lines:
            self._lines.append(quote.rstrip())
        self._blank_due = False
        self._lines.append(f"{quote}{line}".rstrip())
