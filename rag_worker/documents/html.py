"""HTML, and Markdown through it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lxml.html
from lxml import etree
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

from rag_worker.documents.drawing import link_text
from rag_worker.documents.errors import DocumentError
from rag_worker.documents.exponents import raised
from rag_worker.documents.formulas import linear
from rag_worker.documents.limits import check_markup, check_memory
from rag_worker.documents.plain import decode
from rag_worker.documents.sections import Sections
from rag_worker.documents.spans import Cell, with_spans
from rag_worker.documents.styles import Styles

_SKIPPED = {
    *("script", "style", "noscript", "template", "head", "nav", "iframe", "object", "svg"),
    *("button", "select", "input", "textarea", "dialog", "datalist", "audio", "video", "canvas"),
}
_INLINE = {
    *("a", "abbr", "b", "bdi", "bdo", "br", "cite", "code", "data", "del", "dfn", "em", "font"),
    *("i", "img", "ins", "kbd", "label", "mark", "math", "q", "s", "samp", "small", "span"),
    *("strong", "sub", "sup", "time", "tt", "u", "var", "wbr", "script", "big", "strike", "ruby"),
    *("rb", "rt", "rp", "acronym", "nobr"),
}
_INDEX = re.compile(r"[\w+−-]{1,12}|([\w+−-]{1,8}(?:(?:, ?| )[\w+−-]{1,8}){1,3})")
_DEFINITIONS = {"dt", "dd"}
_HEADING = re.compile(r"h([1-6])$")
_LINE_BREAK = "\u2028"
"""Where the page shows a line's end: those of its source are white space."""
_EMPTY_LINE = re.compile(rf"{_LINE_BREAK}\s*{_LINE_BREAK}")
_XML_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_INTERNAL_TYPE = re.compile(r"<!DOCTYPE[^>\[]{0,500}\[[^\]]{0,20000}\]\s*>", re.IGNORECASE)
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)
_DECLARED = re.compile(
    rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w:.-]{1,40})"
    rb"|<\?xml[^>]{0,100}encoding=[\"']([\w.-]{1,40})",
    re.I,
)
# What KaTeX and MathJax draw beside the formula itself.
_DRAWN_FORMULAS = {"katex-html", "MathJax", "MathJax_Preview", "MathJax_Display", "MathJax_SVG"}


def load_html(path: Path, sections: Sections) -> None:
    """Read an HTML page. Scripts, navigation and hidden text are left out.

    ``aria-hidden`` hides from screen readers only, and what stands in it is kept.
    """
    # LangChain's BSHTMLLoader gives the page as one text: no headings, no tables, no formulas.
    data = path.read_bytes()
    declared = _DECLARED.search(data[:4096])
    encoding = (declared[1] or declared[2]).decode("ascii", "replace") if declared else None
    _read(decode(data, encoding), sections)


def load_markdown(path: Path, sections: Sections) -> None:
    """Read Markdown with tables and embedded HTML; formulas stay as they are written."""
    text = _FRONT_MATTER.sub("", decode(path.read_bytes()))
    _read(_MARKDOWN.render(text), sections)


# A formula in TeX, of any length that a page shows; single dollars as Pandoc reads them, or
# "from $5 to $9" would be one.
_TEX = re.compile(
    r"\$\$.{1,3000}?\$\$|\$(?![\s$])[^$\n]{0,500}?(?<![\s\\])\$(?!\d)"
    r"|\\\(.{1,3000}?\\\)|\\\[.{1,3000}?\\\]|\\begin\{(\w+\*?)\}.{1,3000}?\\end\{\1\}",
    re.S,
)


def _tex(state: StateInline, silent: bool) -> bool:
    """A rule for the Markdown parser: formulas are no emphasis and lose no backslashes."""
    if state.src[state.pos] not in "$\\":
        return False
    match = _TEX.match(state.src, state.pos, state.posMax)
    if not match:
        return False
    if not silent:
        state.push("text", "", 0).content = match[0]
    state.pos = match.end()
    return True


def _tex_block(state: StateBlock, line: int, end: int, silent: bool) -> bool:
    """A rule for formulas on lines of their own, whose lines may look like lists or headings."""
    start = state.bMarks[line] + state.tShift[line]
    match = _TEX.match(state.src, start)
    if not match or not match[0].startswith(("$$", "\\[", "\\begin")):
        return False
    last = line + match[0].count("\n")
    if last >= end or state.src[match.end() : state.eMarks[last]].strip(" .,;"):
        return False
    if not silent:
        state.line = last + 1
        state.push("paragraph_open", "p", 1)
        state.push("inline", "", 0).children = []
        state.tokens[-1].content = state.src[start : state.eMarks[last]]
        state.push("paragraph_close", "p", -1)
    return True


_MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
_MARKDOWN.inline.ruler.before("escape", "tex", _tex)
_MARKDOWN.block.ruler.before("code", "tex", _tex_block, {"alt": ["paragraph", "reference"]})


def _read(html: str, sections: Sections) -> None:
    # An encoding declaration would contradict the text, which is decoded already.
    html = _XML_DECLARATION.sub("", html).replace("\0", "")
    # The parser takes the end of a type declared inside the page for text.
    html = _INTERNAL_TYPE.sub("", html, count=1)
    if not html.strip():
        raise DocumentError("The file is empty.")
    check_markup(html)
    parser = lxml.html.HTMLParser(no_network=True, huge_tree=True)
    try:
        root = lxml.html.document_fromstring(html, parser=parser)
    except (etree.LxmlError, ValueError) as error:
        check_memory(error)
        raise DocumentError("It is not HTML that can be read: save it again as HTML.") from None
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise DocumentError(
            "Its elements are nested more than two thousand deep, where nothing can be read: "
            "save the page as PDF."
        )
    _Page(root, sections).read()


class _Page:
    """Reads the tree of one page into ``sections``."""

    def __init__(self, root: Any, sections: Sections) -> None:
        self._root = root
        self._sections = sections
        self._styles = Styles(root)

    def read(self) -> None:
        """Add the whole page."""
        self._children(self._root)

    def _children(self, element: Any, prefix: str = "") -> None:
        """Make a paragraph of every run of inline text, and go down into the blocks between."""
        run = [self._own(element, element.text)]

        def end_run() -> None:
            nonlocal prefix
            for paragraph in _EMPTY_LINE.split("".join(run)):
                text = "\n".join(filter(None, map(_one_line, paragraph.split(_LINE_BREAK))))
                if text:
                    self._sections.paragraph(prefix + text)
                    prefix = ""
            run.clear()

        number = _start(element)
        for child in element:
            if self._is_shown(child):
                if _local(child) in _INLINE and not _holds_blocks(child):
                    run.append(self._inline(child))
                else:
                    end_run()
                    if child.tag == "li" and number is not None:
                        number = _item_number(child, number)
                        self._children(child, f"{_spelled(number, element)}. ")
                        number += 1
                    else:
                        self._block(child)
            run.append(self._own(element, child.tail))
        end_run()

    def _block(self, element: Any) -> None:
        if heading := _HEADING.match(element.tag):
            self._sections.heading(int(heading[1]), self._inline(element))
        elif element.tag == "table":
            self._table(element)
        elif element.tag == "pre":
            self._sections.paragraph(self._code(element))
        elif element.tag == "dl":
            self._definitions(element)
        else:
            self._children(element, prefix="- " if element.tag == "li" else "")

    def _code(self, element: Any) -> str:
        """Code, verbatim; with its language where the page names it."""
        text = self._verbatim(element).strip("\n")
        named = " ".join(
            one.get("class", "") for one in (element, *element.iter("code")) if one.get("class")
        )
        match = re.search(r"(?:language|lang|sourceCode)[- ]([\w+#.-]+)", named)
        return f"```{match[1]}\n{text}\n```" if match and text.strip() else text

    def _verbatim(self, element: Any) -> str:
        parts = ["\n" if element.tag == "br" else self._own(element, element.text)]
        for child in element:
            if self._is_shown(child):
                parts.append(self._verbatim(child))
            parts.append(self._own(element, child.tail))
        return "".join(parts)

    def _definitions(self, element: Any) -> None:
        """A term and its definition are one paragraph: ``term: definition``."""
        terms: list[str] = []
        for child in element.iter(*_DEFINITIONS):
            if not self._is_shown(child) or next(child.iterancestors("dl"), None) is not element:
                continue
            text = _one_line(self._inline(child))
            if child.tag == "dt":
                terms.append(text.removesuffix(":"))
            else:
                self._sections.paragraph(": ".join(filter(None, [", ".join(terms), text])))
                terms = []
        self._sections.paragraph(", ".join(terms))

    def _table(self, table: Any) -> None:
        if table.find(".//table") is not None or _is_layout(table):
            self._children(table)  # a table around tables places them on the page
            return
        caption = table.find("caption")
        if caption is not None and self._is_shown(caption):
            self._sections.paragraph(_one_line(self._inline(caption)))
        self._sections.table(with_spans(self._rows(table)))

    def _rows(self, table: Any) -> Iterator[list[Cell]]:
        for row in table.iter("tr"):
            if self._is_shown(row) and all(
                map(self._is_shown, row.iterancestors("tbody", "thead"))
            ):
                yield [
                    (
                        self._inline(cell) if self._is_shown(cell) else None,
                        _int(cell.get("rowspan")),
                        _int(cell.get("colspan")),
                    )
                    for cell in row
                    if cell.tag in ("td", "th")
                ]

    def _inline(self, element: Any) -> str:
        tag = _local(element)
        if tag == "math":
            return f" {linear(element)} "
        if tag == "script":
            return _tex_script(element)
        if tag == "br":
            return _LINE_BREAK
        if tag == "img":
            return f" {element.get('alt', '')} "
        parts = [self._own(element, element.text)]
        for child in element:
            # Terms and definitions whose end is not marked come inside the one before.
            is_next = child.tag in _DEFINITIONS and element.tag in _DEFINITIONS
            if self._is_shown(child) and not is_next:
                # Blocks inside a cell or a heading must not run into each other.
                inner = self._inline(child)
                parts.append(inner if _local(child) in _INLINE else f" {inner} ")
            parts.append(self._own(element, child.tail))
        text = "".join(parts)
        if tag == "sup":
            text = raised(text)
        elif tag == "sub" and (index := _INDEX.fullmatch(text.strip())):
            text = f"_{index[0]}" if index[1] is None else f"_({index[0]})"
        elif tag == "a":
            address = element.get("href", "")
            text = link_text(text, address) if address.startswith("mailto:") else text
        return text

    def _is_shown(self, element: Any) -> bool:
        if not isinstance(element.tag, str) or element.get("hidden") is not None:
            return False
        if element.tag in _SKIPPED:
            return element.tag == "script" and element.get("type", "").startswith("math/")
        classes = element.get("class", "").split()
        if not _DRAWN_FORMULAS.isdisjoint(classes) and _has_source(element):
            return False
        return not self._styles.hides(element)

    def _own(self, element: Any, text: str | None) -> str:
        """Text of the element itself, where it can be seen."""
        return text if text and self._styles.shows_text(element) else ""


def _local(element: Any) -> str:
    """The element's name without a prefix: formulas come as ``math`` and as ``mml:math``."""
    return str(element.tag).rpartition(":")[2]


def _holds_blocks(element: Any) -> bool:
    """Whether an inline element is wrapped around paragraphs, as converters leave it."""
    return element.tag in ("a", "b", "font", "span", "ins") and any(
        True for _ in element.iter("p", "div", "table", "ul", "ol", "h1", "h2", "h3", "pre")
    )


def _one_line(text: str) -> str:
    """White space is one space, as a browser shows it; it does not show line ends either."""
    return " ".join(text.split())


def _tex_script(element: Any) -> str:
    """A formula for MathJax, which keeps it in a script."""
    text = (element.text or "").strip()
    if "mml" in element.get("type", ""):
        try:
            return f" {linear(lxml.html.fragment_fromstring(text))} "
        except (etree.LxmlError, ValueError):
            return f" {text} "
    return f" ${text}$ "


def _has_source(element: Any) -> bool:
    """Whether the formula that is drawn here also stands beside it, as MathML or TeX."""
    parent = element.getparent()
    return parent is not None and any(
        other.get("type", "").startswith("math/") if other.tag == "script" else True
        for other in parent.iter("math", "script")
    )


def _is_layout(table: Any) -> bool:
    return table.get("role") in ("presentation", "none") or any(
        len(cell) > 3 and cell.find("h2") is not None for cell in table.iter("td")
    )


def _start(element: Any) -> int | None:
    """The first number of a list; None where it has none."""
    if element.tag != "ol":
        return None
    start = element.get("start", "1")
    return int(start) if re.fullmatch(r"-?\d{1,9}", start) else 1


def _item_number(item: Any, number: int) -> int:
    value = item.get("value", "")
    return int(value) if re.fullmatch(r"-?\d{1,9}", value) else number


def _spelled(number: int, items: Any) -> str:
    if items.get("type") in ("a", "A") and 1 <= number <= 26:
        return chr(ord(items.get("type")) + number - 1)
    return str(number)


def _int(value: str | None) -> int:
    return int(value[:6]) if value and value.strip().isdecimal() and int(value[:6]) else 1
