"""Markdown from a model, and words of documents, to HTML that is safe in an e-mail."""

import re
from collections.abc import Iterator
from itertools import groupby

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markupsafe import Markup

from mailer.formulas import (
    COUNT_LIMIT,
    SCRIPT_STYLE,
    UNBROKEN_STYLE,
    formula_at,
    formula_html,
    readable,
)
from mailer.formulas import to_html as formulas_html

# Mail programs drop style sheets more often than style attributes.
_LINE = "#8b98a8"
_CELL = f"border:1px solid {_LINE};padding:4px 8px;text-align:left;vertical-align:top"
MONOSPACE = "font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:14px"


def _formula(state: StateInline, silent: bool) -> bool:
    if state.env.get("formulas", 0) >= COUNT_LIMIT:
        return False
    formula = formula_at(state.src, state.pos)
    if formula is None:
        return False
    if not silent:
        state.env["formulas"] = state.env.get("formulas", 0) + 1
        state.push("html_inline", "", 0).content = formula_html(formula, MONOSPACE)
    state.pos = formula.end
    return True


# Links and images stay as they were written: nobody has checked where they lead. A definition
# such as "[1]: …" would make a citation a link and vanish. Backslashes belong to LaTeX here, so
# "\(" keeps its own.
_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False, "breaks": True})
    .enable(["table", "strikethrough"])
    .disable(["link", "image", "autolink", "reference", "escape"])
)
_MARKDOWN.inline.ruler.before("backticks", "formula", _formula)

_STYLES = {
    "table": {"class": "wide", "style": "border-collapse:collapse;margin:12px 0"},
    "th": {"style": _CELL},
    "td": {"style": _CELL},
    "code": {"style": MONOSPACE},
    "sub": {"style": SCRIPT_STYLE},
    "sup": {"style": SCRIPT_STYLE},
    "span": {"style": UNBROKEN_STYLE},
    "pre": {
        # The style sheet lets it scroll on phones, where wrapped code would lose its shape.
        "class": "code",
        "style": "white-space:pre-wrap;overflow-wrap:anywhere;padding:12px;margin:12px 0;"
        f"border:1px solid {_LINE};border-radius:6px;line-height:1.45;{MONOSPACE}",
    },
    "blockquote": {"style": f"margin:12px 0;padding:1px 0 1px 14px;border-left:3px solid {_LINE}"},
    "p": {"style": "margin:8px 0"},
    **{
        heading: {"style": "font-size:17px;line-height:1.35;margin:16px 0 8px"}
        for heading in ("h1", "h2", "h3", "h4", "h5", "h6")
    },
}
_QUOTE_MARK = re.compile(r"^ {0,3}> ?")
# A formula's mark may stand in code.
_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)
_TAGS = {
    *_STYLES,
    *("br", "hr", "em", "strong", "s", "ul", "ol", "li", "thead", "tbody", "tr"),
}


def to_html(text: str) -> Markup:
    """The Markdown as HTML: paragraphs, lists, tables and code; no links, images or scripts.

    A block quote holds the words of a document, which are no Markdown: they stay as they are.
    """
    env: dict[str, int] = {}
    lines = text.split("\n")
    html = []
    rest = _MARKDOWN.parse(text, env)
    while rest:
        ends = [token.type == "blockquote_close" and token.level == 0 for token in rest]
        if rest[0].type == "blockquote_open" and rest[0].map:
            end = ends.index(True) + 1
            quoted = [_QUOTE_MARK.sub("", line) for line in lines[slice(*rest[0].map)]]
            html.append(f"<blockquote>{quotation_html(chr(10).join(quoted))}</blockquote>")
        else:
            starts = [token.type == "blockquote_open" and token.level == 0 for token in rest]
            end = starts.index(True) if any(starts) else len(rest)
            html.append(_MARKDOWN.renderer.render(rest[:end], _MARKDOWN.options, env))
        rest = rest[end:]
    return _checked("".join(html))


def quotation_html(text: str) -> Markup:
    """A document's words as HTML: their lines, their indents, and tables where rows are."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.split("\n")
        for is_table, run in groupby(_with_cells(lines), key=lambda row: row[0]):
            rows = [cells for _, cells in run]
            paragraphs.append(_table(rows) if is_table else _paragraph(rows))
    return _checked("".join(paragraphs))


def _with_cells(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Each line with its cells; a number above 1 where it and a neighbour are rows of a table."""
    rows = [[cell.strip() for cell in re.split(r" ?\| ?", line.strip(" |"))] for line in lines]
    counts = [len(row) for row in rows]
    for number, (line, row) in enumerate(zip(lines, rows, strict=True)):
        neighbours = counts[max(0, number - 1) : number] + counts[number + 1 : number + 2]
        if len(row) > 1 and len(row) in neighbours:
            yield len(row), row
        else:
            yield 0, [line]


def _table(rows: list[list[str]]) -> str:
    lines = ("".join(f"<td>{_formulas_html(cell)}</td>" for cell in row) for row in rows)
    return f"<table><tbody>{''.join(f'<tr>{line}</tr>' for line in lines)}</tbody></table>"


def _paragraph(rows: list[list[str]]) -> str:
    text = "\n".join(row[0] for row in rows)
    indented = re.sub(r"(?m)^ +", lambda spaces: "\u00a0" * len(spaces[0]), text)
    return f"<p>{_formulas_html(indented)}</p>".replace("\n", "<br>\n")


def _formulas_html(text: str) -> Markup:
    return formulas_html(text, MONOSPACE)


def _checked(html: str) -> Markup:
    checked = nh3.clean(
        html, tags=_TAGS, attributes={"ol": {"start"}}, set_tag_attribute_values=_STYLES
    )
    # Markup is right here alone: nh3 has just built it from the tags above.
    return Markup(checked)  # noqa: S704  # nosec B704  # nh3 has just built it


def to_text(text: str) -> str:
    """The Markdown as it was written, with its formulas outside of code made readable."""
    parts = _CODE.split(text)
    parts[::2] = map(readable, parts[::2])
    return "".join(parts)
