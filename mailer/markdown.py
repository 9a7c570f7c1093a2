"""Markdown from a model to HTML that is safe in an e-mail."""

import nh3
from markdown_it import MarkdownIt
from markupsafe import Markup

# Links and images stay as they were written: nobody has checked where they lead. A definition
# such as "[1]: …" would make a citation a link and vanish. Backslashes belong to LaTeX here, so
# "\(" keeps its own.
_MARKDOWN = (
    MarkdownIt("commonmark", {"html": False, "breaks": True})
    .enable(["table", "strikethrough"])
    .disable(["link", "image", "autolink", "reference", "escape"])
)

# Mail programs drop style sheets more often than style attributes.
_CELL = "border:1px solid #9aa5b1;padding:4px 8px;text-align:left;vertical-align:top"
_MONOSPACE = "font-family:Menlo,Consolas,monospace;font-size:14px"
_STYLES = {
    "table": {"style": "border-collapse:collapse;margin:12px 0"},
    "th": {"style": _CELL},
    "td": {"style": _CELL},
    "code": {"style": _MONOSPACE},
    "pre": {
        "style": "white-space:pre-wrap;word-break:break-word;padding:12px;margin:12px 0;"
        f"border:1px solid #9aa5b1;border-radius:6px;{_MONOSPACE}"
    },
    "blockquote": {"style": "margin:12px 0;padding-left:12px;border-left:3px solid #9aa5b1"},
    **{
        heading: {"style": "font-size:17px;margin:16px 0 8px"}
        for heading in ("h1", "h2", "h3", "h4", "h5", "h6")
    },
}
_TAGS = {
    *_STYLES,
    *("p", "br", "hr", "em", "strong", "s", "ul", "ol", "li", "thead", "tbody", "tr"),
}


def to_html(text: str) -> Markup:
    """The Markdown as HTML: paragraphs, lists, tables and code; no links, images or scripts."""
    html = nh3.clean(
        _MARKDOWN.render(text),
        tags=_TAGS,
        attributes={"ol": {"start"}},
        set_tag_attribute_values=_STYLES,
    )
    # Markup is right here alone: nh3 has just built it from the tags above.
    return Markup(html)  # noqa: S704
