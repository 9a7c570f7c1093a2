"""Texts, addresses, Markdown and logos that are fit for an e-mail."""

import re
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.addresses import envelope_address, is_plain_address
from mailer.errors import UndeliverableError
from mailer.logo import LOGO_LIMIT, read_logo
from mailer.markdown import quotation_html, to_html
from mailer.text import clean, one_line, without_addresses

PNG = b"\x89PNG\r\n\x1a\n"


@given(st.text(), st.integers(2, 200))
def test_one_line_is_one_printable_line_within_its_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line == " ".join(line.split())
    assert len(line.splitlines()) <= 1
    line.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nBcc: x@evil.example", "a Bcc: x@evil.example"),
        ("a\u2028b\x85c\x0bd", "a b c d"),
        ("=?utf-8?q?=0D=0ABcc:?=", "= ?utf-8?q?=0D=0ABcc:?="),
        ("gpj.\u202egpj.exe", "gpj.gpj.exe"),
        ("one two three four", "one two…"),
        ("x" * 40, "x" * 11 + "…"),
    ],
)
def test_one_line_drops_what_no_header_may_hold(text: str, expected: str) -> None:
    assert one_line(text, 12 if "one" in text or "xx" in text else 100) == expected


@given(st.text())
def test_clean_text_is_clean_already_and_can_be_encoded(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert not set(cleaned) & set("\r\x00\x0b\x0c\x85\u2028\u2029\u202a\u202e\u2066")
    cleaned.encode("utf-8")


def test_logs_show_no_more_of_an_address_than_its_domain() -> None:
    reply = "550 5.1.1 <ana.perez@uni.example>: user ana@x.example unknown"
    assert without_addresses(reply) == "550 5.1.1 <…@uni.example>: user …@x.example unknown"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ana@uni.example", "ana@uni.example"),
        ("ana.perez+curso@uni.example", "ana.perez+curso@uni.example"),
        ("o'neil@uni.example", "o'neil@uni.example"),
        ("ana@localhost", "ana@localhost"),
        ("ana@año.example", "ana@xn--ao-zja.example"),
        ("ana@straße.example", "ana@xn--strae-oqa.example"),
        ("añá@uni.example", "añá@uni.example"),
    ],
)
def test_plain_addresses_pass(address: str, expected: str) -> None:
    assert envelope_address(address) == expected


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ana",
        "@uni.example",
        "ana@",
        "ana@uni..example",
        "ana@-uni.example",
        "ana@[127.0.0.1]",
        '"ana"@uni.example',
        '"a b"@uni.example',
        "a b@uni.example",
        "ana@uni.example>\r\nRCPT TO:<x@evil.example",
        "ana\r\n@uni.example",
        "ana\x00@uni.example",
        "ana\x85@uni.example",
        "ana\u2028@uni.example",
        "ana@uni.example\n",
        "ana@uni.example, x@evil.example",
        "<ana@uni.example>",
        "a@b@uni.example",
        ".ana@uni.example",
        "ana..p@uni.example",
        "ana\ud800@uni.example",
        "ana@uni\ud800.example",
        "a" * 65 + "@uni.example",
        "ana@" + "a" * 64 + ".example",
        "ana@" + "a." * 130 + "example",
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(UndeliverableError):
        envelope_address(address)
    assert not is_plain_address(address)


@given(st.text())
def test_an_address_that_passes_cannot_end_an_smtp_command(text: str) -> None:
    for address in (text, f"{text}@uni.example", f"ana@{text}"):
        try:
            passed = envelope_address(address)
        except UndeliverableError:
            continue
        assert not any(c.isspace() or c in '<>"\x00' or ord(c) < 32 for c in passed)


def test_markdown_keeps_structure_and_drops_nothing_readable() -> None:
    html = to_html(
        "# Título\n\n- uno\n- **dos** y `tres`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "```python\nif a < b: pass\n```\n\n3. tercero"
    )
    for expected in ("<h1", "<li>uno</li>", "<strong>dos</strong>", "<table", "<td", "<ol start"):
        assert expected in html
    assert "if a &lt; b: pass" in html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[link](javascript:alert(1))",
        "![image](https://evil.example/pixel.png)",
        "<https://evil.example>",
        "[1]: https://evil.example\n\n[1]",
        "https://evil.example",
        "[1]",
    ],
)
def test_markdown_shows_links_images_and_markup_as_they_were_written(text: str) -> None:
    html = to_html(text)
    for tag in ("<a", "<img", "<script"):
        assert tag not in html
    for word in ("alert", "evil.example", "[1]"):
        assert (word in html) == (word in text)


def test_markdown_keeps_the_backslashes_of_what_is_no_formula() -> None:
    assert r"\begin{matrix} y \(" in to_html(r"Con \begin{matrix} y \( se mide.")


def test_formulas_in_markdown_are_written_out_but_not_in_code() -> None:
    html = to_html("Con \\(V_{GS}\\), `$x^2$` y\n\n```\n$y^2$\n```\n\n| a |\n|---|\n| $z^2$ |")
    plain = re.sub(r' style="[^"]*"|</?span[^>]*>', "", html)
    assert "Con V<sub>GS</sub>, <code>$x^2$</code> y" in plain
    assert "<code>$y^2$\n</code>" in plain
    assert "<td>z<sup>2</sup></td>" in plain


def test_words_of_a_document_are_no_markdown() -> None:
    html = to_html("Dicen:\n\n> def __init__(self):\n> # nota\n>\n> — a.pdf, página 2\n\n**fin**")
    plain = re.sub(r' style="[^"]*"', "", html)
    assert "<p>def __init__(self):<br>\n# nota</p><p>— a.pdf, página 2</p>" in plain
    assert "<strong>fin</strong>" in plain
    assert plain.count("<blockquote>") == 1


def test_rows_in_a_quotation_are_a_table_and_indents_stay() -> None:
    text = "Fechas:\nParcial | 3 de noviembre | 9:00\nFinal | 28 de enero | 9:00\nfor x:\n    a | b"
    plain = re.sub(r' (style|class)="[^"]*"', "", quotation_html(text))
    assert plain.startswith("<p>Fechas:</p><table>")
    assert "<tr><td>Final</td><td>28 de enero</td><td>9:00</td></tr>" in plain
    assert "<p>for x:<br>\n&nbsp;&nbsp;&nbsp;&nbsp;a | b</p>" in plain


@given(st.text(st.sampled_from(list("ab<>&\"'|> $^_{}\\ \n\t"))))
def test_no_quotation_becomes_an_active_element(text: str) -> None:
    html = quotation_html(text)
    tags = set(re.findall(r"<(\w+)", html))
    assert tags <= {"p", "br", "table", "tbody", "tr", "td", "code", "sub", "sup", "span"}
    shown = re.sub(r"<[^>]*>", "", html)
    assert "<" not in shown


@given(st.text(st.sampled_from(list("ab<>&\"'`*_~[](){}!|#-+>1. \n\t\\:/=;"))))
def test_no_markdown_becomes_an_active_element(text: str) -> None:
    tags: set[str] = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            tags.add(tag)
            assert {name for name, _ in attributes} <= {"style", "start", "class"}

    Tags().feed(to_html(text))
    allowed = (
        "sub sup span p br hr em strong s ul ol li table thead tbody tr th td code pre blockquote"
    )
    assert tags <= {*allowed.split(), "h1", "h2", "h3", "h4", "h5", "h6"}


@pytest.mark.parametrize(
    "text",
    [
        ">" * 20_000,
        "*" * 20_000,
        "[" * 20_000,
        "`" * 20_000,
        "- " * 5_000,
        "|" * 20_000,
        "**a " * 5_000,
    ],
)
def test_hostile_markdown_is_written_in_bounded_time(text: str) -> None:
    start = time.process_time()
    to_html(text)
    assert time.process_time() - start < 5


def test_logo_is_read_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "logo.svg"
    file.write_bytes(PNG + b"data")
    logo = read_logo(file)
    assert logo
    assert (logo.subtype, logo.data) == ("png", PNG + b"data")


@pytest.mark.parametrize("content", [b"", b"<svg/>", PNG + bytes(LOGO_LIMIT)])
def test_logo_that_is_no_image_or_too_large_is_left_out(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "logo.png"
    file.write_bytes(content)
    assert read_logo(file) is None


def test_logo_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    assert read_logo(tmp_path / "none.png") is None
    assert read_logo(tmp_path) is None
    assert read_logo(None) is None
