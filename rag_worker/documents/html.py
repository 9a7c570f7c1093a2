"""HTML, and Markdown through it."""

import re
from pathlib import Path
from typing import Any

import lxml.html
from lxml import etree
from markdown_it import MarkdownIt

from rag_worker.documents.errors import DocumentError
from rag_worker.documents.formulas import linear
from rag_worker.documents.plain import decode
from rag_worker.documents.sections import Sections

_SKIPPED = {
    *("script", "style", "noscript", "template", "head", "nav", "iframe", "object", "svg"),
    *("button", "select", "input", "textarea"),
}
_INLINE = {
    *("a", "abbr", "b", "bdi", "bdo", "br", "cite", "code", "data", "del", "dfn", "em", "font"),
    *("i", "img", "ins", "kbd", "label", "mark", "math", "q", "s", "samp", "small", "span"),
    *("strong", "sub", "sup", "time", "tt", "u", "var", "wbr"),
}
_HEADING = re.compile(r"h([1-6])$")
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0[^.\d]?", re.I)
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.S)


def load_html(path: Path, sections: Sections) -> None:
    """Read an HTML page. Scripts, navigation and hidden text are left out."""
    # LangChain's BSHTMLLoader gives the page as one text: no headings, no tables, no formulas.
    _read(decode(path.read_bytes()), sections)


def load_markdown(path: Path, sections: Sections) -> None:
    """Read Markdown with tables and embedded HTML; formulas stay as they are written."""
    text = _FRONT_MATTER.sub("", decode(path.read_bytes()).replace("\r\n", "\n"))
    _read(MarkdownIt("commonmark", {"html": True}).enable("table").render(text), sections)


def _read(html: str, sections: Sections) -> None:
    # An encoding declaration would contradict the text, which is decoded already.
    html = re.sub(r"\A\s*<\?xml[^>]*\?>", "", html)
    if not html.strip():
        raise DocumentError("The file is empty.")
    parser = lxml.html.HTMLParser(no_network=True, huge_tree=False)
    try:
        root = lxml.html.document_fromstring(html, parser=parser)
    except etree.LxmlError:
        raise DocumentError("It is not HTML that can be read: save it again as HTML.") from None
    _children(root, sections)


def _children(element: Any, sections: Sections, prefix: str = "") -> None:
    """Make a paragraph of every run of inline text, and go down into the blocks between."""
    run = [element.text or ""]

    def end_run() -> None:
        nonlocal prefix
        text = " ".join("".join(run).split())
        if text:
            sections.paragraph(prefix + text)
            prefix = ""
        run.clear()

    for child in element:
        if _is_shown(child):
            if child.tag in _INLINE:
                run.append(_inline(child))
            else:
                end_run()
                _block(child, sections)
        run.append(child.tail or "")
    end_run()


def _block(element: Any, sections: Sections) -> None:
    if heading := _HEADING.match(element.tag):
        sections.heading(int(heading[1]), _inline(element))
    elif element.tag == "table":
        rows = [[_inline(cell) for cell in row if _is_shown(cell)] for row in element.iter("tr")]
        sections.table(rows)
    elif element.tag == "pre":
        sections.paragraph(element.text_content())
    else:
        _children(element, sections, prefix="- " if element.tag == "li" else "")


def _inline(element: Any) -> str:
    if element.tag == "math":
        return f" {linear(element)} "
    if element.tag == "br":
        return "\n"
    if element.tag == "img":
        return f" {element.get('alt', '')} "
    parts = [element.text or ""]
    for child in element:
        if _is_shown(child):
            # Blocks inside a cell or a heading must not run into each other.
            parts.append(_inline(child) if child.tag in _INLINE else f" {_inline(child)} ")
        parts.append(child.tail or "")
    return "".join(parts)


def _is_shown(element: Any) -> bool:
    return (
        isinstance(element.tag, str)
        and element.tag not in _SKIPPED
        and element.get("hidden") is None
        and not _HIDDEN.search(element.get("style", ""))
    )
