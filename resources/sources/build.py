# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "markdown-it-py>=4,<5",
#     "matplotlib>=3.10,<4",
#     "python-docx>=1.2,<2",
#     "python-pptx>=1.0,<2",
#     "reportlab>=4.4,<6",
#     "schemdraw>=0.20,<1",
# ]
# ///
"""Builds the PDF, DOCX and PPTX of the sample course from their Markdown sources.

Run it from anywhere, with uv (which reads the list of packages above) or with those packages
installed:

    uv run resources/sources/build.py
    python resources/sources/build.py

The files are written to `resources/files/`. The same versions of the packages write the same bytes.
"""

import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import docx
import matplotlib
import pptx
from docx.enum.table import WD_TABLE_ALIGNMENT
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Cm, Pt, RGBColor
from figures import DPI, FIGURES
from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image as PillowImage
from pptx.dml.color import RGBColor as SlideColor
from pptx.util import Cm as SlideCm
from pptx.util import Pt as SlidePt
from reportlab import rl_config
from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_CENTER, TA_JUSTIFY
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import cm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    Image,
    KeepTogether,
    PageBreak,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)
from reportlab.platypus.tableofcontents import TableOfContents

SOURCES = Path(__file__).parent
FILES = SOURCES.parent / "files"
PUBLISHED = datetime(2026, 9, 1, 9, tzinfo=UTC)
AUTHOR = "Departamento de Electrónica"
COURSE = "Electrónica I"

INK = "#1f3a5f"
SHADE = "#eef2f6"
RULE = "#9fb0c3"


# The sources as blocks


@dataclass(frozen=True)
class Run:
    """A stretch of text with one look."""

    text: str
    bold: bool = False
    italic: bool = False
    subscript: bool = False


Runs = tuple[Run, ...]


@dataclass(frozen=True)
class Heading:
    level: int
    text: Runs


@dataclass(frozen=True)
class Text:
    text: Runs


@dataclass(frozen=True)
class Example:
    paragraphs: tuple[Runs, ...]


@dataclass(frozen=True)
class Bullets:
    items: tuple[Runs, ...]


@dataclass(frozen=True)
class Grid:
    """A table; its first row is the header."""

    rows: tuple[tuple[Runs, ...], ...]


@dataclass(frozen=True)
class Formulas:
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    name: str
    caption: str


Block = Heading | Text | Example | Bullets | Grid | Formulas | Figure

SUPERSCRIPTS = re.compile(r"[⁰¹²³⁴-⁹⁻]+")
SYMBOL = re.compile(r"(\w)_\{([^}]+)\}")


def with_subscripts(run: Run) -> Iterator[Run]:
    """Splits `V_{BE}` into an italic V and a subscript BE."""
    end = 0
    for symbol in SYMBOL.finditer(run.text):
        if symbol.start() > end:
            yield replace(run, text=run.text[end : symbol.start()])
        yield replace(run, text=symbol[1], italic=True)
        yield replace(run, text=symbol[2], subscript=True)
        end = symbol.end()
    if end < len(run.text):
        yield replace(run, text=run.text[end:])


def runs_of(inline: Token) -> Runs:
    look = Run("")
    found: list[Run] = []
    for child in inline.children or []:
        match child.type:
            case "strong_open" | "strong_close":
                look = replace(look, bold=child.type == "strong_open")
            case "em_open" | "em_close":
                look = replace(look, italic=child.type == "em_open")
            case "softbreak":
                found.append(replace(look, text=" "))
            case "text":
                found.extend(with_subscripts(replace(look, text=child.content)))
            case other:
                raise ValueError(f"the generator does not know {other!r}: {child.content!r}")
    return tuple(found)


def plain(text: Runs) -> str:
    """The text without its looks."""
    return "".join(run.text for run in text)


def blocks_of(source: Path) -> list[Block]:
    """Reads a Markdown source; raises ValueError on what the generator does not know."""
    tokens = MarkdownIt("commonmark").enable("table").parse(source.read_text(encoding="utf-8"))
    blocks: list[Block] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        end = position
        depth: int = token.nesting
        while depth:
            end += 1
            depth += tokens[end].nesting
        inner = [inside for inside in tokens[position + 1 : end] if inside.type == "inline"]
        match token.type:
            case "heading_open":
                blocks.append(Heading(int(token.tag[1]), runs_of(inner[0])))
            case "paragraph_open":
                children = inner[0].children or []
                if len(children) == 1 and children[0].type == "image":
                    blocks.append(Figure(str(children[0].attrs["src"]), children[0].content))
                else:
                    blocks.append(Text(runs_of(inner[0])))
            case "blockquote_open":
                blocks.append(Example(tuple(map(runs_of, inner))))
            case "bullet_list_open":
                blocks.append(Bullets(tuple(map(runs_of, inner))))
            case "fence":
                blocks.append(Formulas(tuple(token.content.splitlines())))
            case "table_open":
                columns = sum(inside.type == "th_open" for inside in tokens[position:end])
                cells = [runs_of(cell) for cell in inner]
                rows = range(0, len(cells), columns)
                blocks.append(Grid(tuple(tuple(cells[row : row + columns]) for row in rows)))
            case other:
                raise ValueError(f"{source.name}: the generator does not know {other!r}")
        position = end + 1
    return blocks


def figure_png(name: str) -> BytesIO:
    """The figure with 32 colours, a quarter of the size and no visible difference."""
    image = PillowImage.open(BytesIO(FIGURES[name]())).convert("RGB").quantize(32)
    png = BytesIO()
    image.save(png, format="PNG", optimize=True)
    png.seek(0)
    return png


# PDF


class Notes(BaseDocTemplate):
    """A4 pages with a running header; a page's printed number is its number in the file."""

    unit = ""

    def __init__(self, target: Path, title: str) -> None:
        super().__init__(
            str(target),
            pagesize=A4,
            leftMargin=2.5 * cm,
            rightMargin=2.5 * cm,
            topMargin=2.6 * cm,
            bottomMargin=2.2 * cm,
            title=title,
            author=AUTHOR,
            subject=COURSE,
            lang="es",
        )
        frame = Frame(self.leftMargin, self.bottomMargin, self.width, self.height, 0, 0, 0, 0)
        # The header is drawn when the page is complete, because its unit may begin on it.
        self.addPageTemplates(PageTemplate(frames=[frame], onPageEnd=self.draw_header))

    def beforeDocument(self) -> None:  # noqa: N802 (reportlab's hook)
        # The document is built more than once, until the page numbers of its contents settle.
        self.unit = "Contenido"

    def draw_header(self, canvas: Canvas, _: BaseDocTemplate) -> None:
        if canvas.getPageNumber() > 1:
            right = A4[0] - self.rightMargin
            line = A4[1] - 1.9 * cm
            canvas.setFont("Text-Italic", 9.5)
            canvas.drawString(self.leftMargin, line + 4, f"{COURSE} · Apuntes · Curso 2026/27")
            canvas.drawRightString(right, line + 4, self.unit)
            canvas.setStrokeColor(HexColor(RULE))
            canvas.line(self.leftMargin, line, right, line)
        canvas.setFont("Text", 10)
        canvas.drawCentredString(A4[0] / 2, 1.2 * cm, str(canvas.getPageNumber()))

    def afterFlowable(self, flowable: Flowable) -> None:  # noqa: N802 (reportlab's hook)
        if isinstance(flowable, Paragraph) and flowable.style.name in ("unit", "section"):
            level = int(flowable.style.name == "section")
            text = flowable.getPlainText()
            if not level:
                self.unit = text
            self.canv.bookmarkPage(text)
            self.canv.addOutlineEntry(text, text, level)
            self.notify("TOCEntry", (level, text, self.page, text))


def register_fonts() -> None:
    # STIX, which comes with matplotlib, has every sign of the notes but most superscripts.
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces = {
        "Text": "STIXGeneral",
        "Text-Bold": "STIXGeneralBol",
        "Text-Italic": "STIXGeneralItalic",
        "Text-BoldItalic": "STIXGeneralBolIta",
        "Sans-Bold": "DejaVuSans-Bold",
        "Superscripts": "DejaVuSerif",
    }
    for name, file in faces.items():
        pdfmetrics.registerFont(TTFont(name, str(folder / f"{file}.ttf")))
    pdfmetrics.registerFontFamily("Text", "Text", "Text-Bold", "Text-Italic", "Text-BoldItalic")


def markup(text: Iterable[Run]) -> str:
    """Runs in reportlab's paragraph markup."""
    parts = []
    for run in text:
        part = SUPERSCRIPTS.sub(r'<font name="Superscripts">\g<0></font>', escape(run.text))
        if run.subscript:
            part = f'<sub rise="1.3" size="8">{part}</sub>'
        if run.italic:
            part = f"<i>{part}</i>"
        if run.bold:
            part = f"<b>{part}</b>"
        parts.append(part)
    return "".join(parts)


BODY = ParagraphStyle(
    "body", fontName="Text", fontSize=11, leading=14.5, spaceAfter=6, alignment=TA_JUSTIFY
)
CELL = ParagraphStyle("cell", fontName="Text", fontSize=10, leading=12.5)
CAPTION = ParagraphStyle(
    "caption", CELL, fontName="Text-Italic", alignment=TA_CENTER, spaceBefore=4, spaceAfter=4
)
BULLET = ParagraphStyle("bullet", BODY, leftIndent=16, bulletIndent=4, spaceAfter=4)
EXAMPLE = ParagraphStyle("example", BODY, fontSize=10.5, leading=13.5, spaceAfter=0)
FORMULA = ParagraphStyle("formula", BODY, leftIndent=28, spaceBefore=2, spaceAfter=4)
TITLE = ParagraphStyle(
    "title", fontName="Sans-Bold", fontSize=28, leading=34, textColor=HexColor(INK), spaceAfter=8
)
SUBTITLE = ParagraphStyle("subtitle", TITLE, fontSize=17, leading=22, spaceAfter=10)
UNIT = ParagraphStyle("unit", SUBTITLE)
SECTION = ParagraphStyle(
    "section", TITLE, fontSize=12, leading=16, spaceBefore=8, spaceAfter=5, keepWithNext=1
)


def column_weights(rows: tuple[tuple[Runs, ...], ...]) -> list[float]:
    """Shares of the width, by each column's longest text, with room for its longest word."""
    weights = []
    for column in zip(*rows, strict=True):
        texts = [plain(cell) for cell in column]
        longest_word = max(len(word) for text in texts for word in [*text.split(), ""])
        weights.append(max(min(max(map(len, texts)), 30), longest_word + 4))
    return [weight / sum(weights) for weight in weights]


def pdf_table(rows: tuple[tuple[Runs, ...], ...], width: float) -> Table:
    header, *body = rows
    head = [Paragraph(f"<b>{markup(cell)}</b>", CELL) for cell in header]
    table = Table(
        [head, *([Paragraph(markup(cell), CELL) for cell in row] for row in body)],
        colWidths=[share * width for share in column_weights(rows)],
        repeatRows=1,
        spaceAfter=8,
    )
    table.setStyle(
        TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, 0), HexColor(SHADE)),
                ("LINEABOVE", (0, 0), (-1, 0), 0.8, HexColor(INK)),
                ("LINEBELOW", (0, 0), (-1, 0), 0.5, HexColor(INK)),
                ("LINEBELOW", (0, 1), (-1, -1), 0.25, HexColor(RULE)),
                ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
                ("TOPPADDING", (0, 0), (-1, -1), 3),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
            ]
        )
    )
    return table


def pdf_example(paragraphs: tuple[Runs, ...], width: float) -> Table:
    box = Table(
        [[Paragraph(markup(text), EXAMPLE)] for text in paragraphs],
        colWidths=[width],
        spaceBefore=4,
        spaceAfter=8,
    )
    box.setStyle(
        TableStyle(
            [
                ("BACKGROUND", (0, 0), (-1, -1), HexColor(SHADE)),
                ("LINEBEFORE", (0, 0), (0, -1), 2.5, HexColor(INK)),
                ("LEFTPADDING", (0, 0), (-1, -1), 10),
                ("RIGHTPADDING", (0, 0), (-1, -1), 8),
                ("TOPPADDING", (0, 0), (-1, -1), 4),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 5),
            ]
        )
    )
    return box


def pdf_figure(figure: Figure) -> KeepTogether:
    png = figure_png(figure.name)
    pixels = PillowImage.open(png)
    points = 72 / DPI
    png.seek(0)
    picture = Image(png, pixels.width * points, pixels.height * points)
    return KeepTogether([Spacer(1, 4), picture, Paragraph(figure.caption, CAPTION), Spacer(1, 6)])


def pdf_formula(line: str) -> Paragraph:
    formula, _, number = line.partition("    ")
    text = markup(with_subscripts(Run(formula)))
    return Paragraph(f"{text}&nbsp;&nbsp;&nbsp;&nbsp;{number}", FORMULA)


def pdf_flowables(blocks: list[Block], width: float) -> Iterator[Flowable]:
    caption: list[Flowable] = []
    for block in blocks:
        match block:
            case Heading(1, text):
                yield PageBreak()
                yield Paragraph(markup(text), UNIT)
            case Heading(_, text):
                yield Paragraph(markup(text), SECTION)
            case Text(text) if plain(text).startswith("Tabla "):
                caption = [Paragraph(markup(text), CAPTION)]
            case Text(text):
                yield Paragraph(markup(text), BODY)
            case Example(paragraphs):
                yield KeepTogether([pdf_example(paragraphs, width)])
            case Bullets(items):
                for item in items:
                    yield Paragraph(markup(item), BULLET, bulletText="•")
            case Grid(rows):
                yield KeepTogether([*caption, pdf_table(rows, width)])
                caption = []
            case Formulas(lines):
                yield KeepTogether([pdf_formula(line) for line in lines])
            case Figure():
                yield pdf_figure(block)


def cover() -> list[Flowable]:
    return [
        Paragraph(COURSE, TITLE),
        Paragraph("Apuntes de la asignatura", SUBTITLE),
        Paragraph(
            f"{AUTHOR} · Escuela de Ingeniería Industrial · Código EL-2104 · Curso 2026/27", BODY
        ),
        Spacer(1, 10),
    ]


def contents() -> list[Flowable]:
    unit = ParagraphStyle("contents-unit", CELL, fontName="Text-Bold", spaceBefore=3)
    section = ParagraphStyle("contents-section", CELL, leftIndent=14, fontSize=9.5, leading=11)
    table = TableOfContents(dotsMinLevel=-1)
    table.levelStyles = [unit, section]
    table.tableStyle = TableStyle(
        [("TOPPADDING", (0, 0), (-1, -1), 0), ("BOTTOMPADDING", (0, 0), (-1, -1), 0)]
    )
    return [PageBreak(), Paragraph("Contenido", SUBTITLE), table]


def build_pdf(source: Path, target: Path) -> None:
    # Fixes the dates and identifiers that would differ in every build.
    rl_config.invariant = 1
    rl_config.useA85 = 0
    register_fonts()
    document = Notes(target, f"{COURSE}. Apuntes de la asignatura")
    blocks = blocks_of(source)
    first_unit = next(i for i, block in enumerate(blocks) if isinstance(block, Heading))
    preface = pdf_flowables(blocks[:first_unit], document.width)
    units = pdf_flowables(blocks[first_unit:], document.width)
    document.multiBuild([*cover(), *preface, *contents(), *units])


# DOCX


def add_docx_runs(paragraph: Any, text: Runs, bold: bool = False) -> None:
    for run in text:
        added = paragraph.add_run(run.text)
        added.bold = True if bold or run.bold else None
        added.italic = True if run.italic else None
        added.font.subscript = True if run.subscript else None


def add_docx_table(document: Any, rows: tuple[tuple[Runs, ...], ...]) -> None:
    width = Cm(16)
    table = document.add_table(rows=0, cols=len(rows[0]), style="Table Grid")
    table.alignment = WD_TABLE_ALIGNMENT.CENTER
    table.autofit = False
    shares = column_weights(rows)
    for column, share in zip(table.columns, shares, strict=True):
        column.width = int(width * share)
    for number, row in enumerate(rows):
        added = table.add_row()
        properties = added._tr.get_or_add_trPr()
        properties.append(OxmlElement("w:cantSplit"))
        if number == 0:
            properties.append(OxmlElement("w:tblHeader"))
        for cell, text, share in zip(added.cells, row, shares, strict=True):
            cell.width = int(width * share)
            paragraph = cell.paragraphs[0]
            paragraph.paragraph_format.space_before = Pt(2)
            paragraph.paragraph_format.space_after = Pt(2)
            add_docx_runs(paragraph, text, bold=number == 0)
            for run in paragraph.runs:
                run.font.size = Pt(9.5)
            if number == 0:
                shading = OxmlElement("w:shd")
                shading.set(qn("w:val"), "clear")
                shading.set(qn("w:fill"), SHADE.removeprefix("#"))
                cell._tc.get_or_add_tcPr().append(shading)
    document.add_paragraph().paragraph_format.space_after = Pt(2)


def add_page_number(paragraph: Any) -> None:
    paragraph.add_run("Página ")
    field = OxmlElement("w:fldSimple")
    field.set(qn("w:instr"), "PAGE")
    paragraph._p.append(field)


def build_docx(source: Path, target: Path) -> None:
    document = docx.Document()
    section = document.sections[0]
    section.page_width, section.page_height = Cm(21), Cm(29.7)
    section.left_margin = section.right_margin = Cm(2.5)
    section.top_margin = section.bottom_margin = Cm(2.2)
    section.header.paragraphs[0].text = f"{COURSE} · Programa · Curso 2026/27"
    add_page_number(section.footer.paragraphs[0])

    normal = document.styles["Normal"]
    normal.font.name, normal.font.size = "Calibri", Pt(11)
    normal.paragraph_format.space_after = Pt(6)
    language = OxmlElement("w:lang")
    language.set(qn("w:val"), "es-ES")
    normal.element.get_or_add_rPr().append(language)
    for name in ("Title", "Heading 1", "Heading 2"):
        style = document.styles[name]
        style.font.color.rgb = RGBColor.from_string(INK.removeprefix("#"))
        style.paragraph_format.space_after = Pt(6)

    for block in blocks_of(source):
        match block:
            case Heading(level, text):
                document.add_heading(plain(text), level - 1)
            case Text(text):
                add_docx_runs(document.add_paragraph(), text)
            case Bullets(items):
                for item in items:
                    add_docx_runs(document.add_paragraph(style="List Bullet"), item)
            case Grid(rows):
                add_docx_table(document, rows)
            case _:
                raise ValueError(f"{source.name}: {type(block).__name__} has no place in the DOCX")

    properties = document.core_properties
    properties.title = f"{COURSE}. Programa de la asignatura"
    properties.author = properties.last_modified_by = AUTHOR
    properties.language, properties.comments = "es", ""
    properties.created = properties.modified = PUBLISHED
    document.save(str(target))
    make_reproducible(target)


# PPTX


def add_slide_runs(paragraph: Any, text: Runs, size: float, bold: bool = False) -> None:
    for run in text:
        added = paragraph.add_run()
        added.text = run.text
        added.font.size = SlidePt(size)
        added.font.bold = True if bold or run.bold else None
        added.font.italic = True if run.italic else None
        if run.subscript:
            added.font._element.set("baseline", "-25000")


def fill_slide(slide: Any, blocks: list[Block], width: int) -> None:
    """Places a slide's blocks from top to bottom below its title."""
    title, body = slide.shapes.title, slide.placeholders[1]
    left, inner = SlideCm(1.8), width - SlideCm(3.6)
    title.left, title.top, title.width, title.height = left, SlideCm(0.9), inner, SlideCm(2.2)
    top: int = SlideCm(3.8)
    has_bullets = False
    for block in blocks:
        match block:
            case Text(text):
                slide.notes_slide.notes_text_frame.text = plain(text).removeprefix("Nota: ")
            case Bullets(items):
                has_bullets = True
                height = int(SlideCm(1.75)) * len(items)
                body.left, body.top, body.width, body.height = left, top, inner, height
                for number, item in enumerate(items):
                    frame = body.text_frame
                    paragraph = frame.paragraphs[0] if number == 0 else frame.add_paragraph()
                    paragraph.space_after = SlidePt(8)
                    add_slide_runs(paragraph, item, 22)
                top += height
            case Grid(rows):
                height = int(SlideCm(1.3)) * len(rows)
                table = slide.shapes.add_table(
                    len(rows), len(rows[0]), left, top, inner, height
                ).table
                for y, row in enumerate(rows):
                    for x, text in enumerate(row):
                        paragraph = table.cell(y, x).text_frame.paragraphs[0]
                        add_slide_runs(paragraph, text, 18, bold=y == 0)
                top += height + SlideCm(0.8)
            case Figure(name, caption):
                picture = slide.shapes.add_picture(figure_png(name), left, top, height=SlideCm(6.5))
                picture.left = (width - picture.width) // 2
                picture._element.nvPicPr.cNvPr.set("descr", caption)
            case _:
                raise ValueError(f"{type(block).__name__} has no place in the slides")
    if not has_bullets:
        body._element.getparent().remove(body._element)


def build_pptx(source: Path, target: Path) -> None:
    presentation = pptx.Presentation()
    width, height = SlideCm(33.87), SlideCm(19.05)
    presentation.slide_width, presentation.slide_height = width, height

    blocks = blocks_of(source)
    ink = SlideColor.from_string(INK.removeprefix("#"))
    starts = [i for i, block in enumerate(blocks) if isinstance(block, Heading)]
    for start, end in zip(starts, [*starts[1:], len(blocks)], strict=True):
        heading, *content = blocks[start:end]
        assert isinstance(heading, Heading)
        is_cover = start == 0
        slide = presentation.slides.add_slide(presentation.slide_layouts[0 if is_cover else 1])
        title = slide.shapes.title
        title.text = plain(heading.text)
        font = title.text_frame.paragraphs[0].font
        font.color.rgb, font.bold, font.size = ink, True, SlidePt(44 if is_cover else 34)
        if is_cover:
            subtitle = slide.placeholders[1]
            subtitle.text = "\n".join(
                plain(block.text) for block in content if isinstance(block, Text)
            )
            for shape, top in ((title, SlideCm(6)), (subtitle, SlideCm(10))):
                shape.left, shape.top = SlideCm(2.5), top
                shape.width, shape.height = width - SlideCm(5), SlideCm(3)
        else:
            fill_slide(slide, content, width)

    properties = presentation.core_properties
    properties.title = f"{COURSE}. Amplificador operacional"
    properties.author = properties.last_modified_by = AUTHOR
    properties.language = "es"
    properties.created = properties.modified = PUBLISHED
    presentation.save(str(target))
    make_reproducible(target)


def make_reproducible(archive: Path) -> None:
    """Rewrites an Office file with fixed member dates, so that equal content is equal bytes."""
    with zipfile.ZipFile(archive) as old:
        members = [(name, old.read(name)) for name in old.namelist()]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in members:
            new.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def main() -> None:
    FILES.mkdir(exist_ok=True)
    build_docx(SOURCES / "programa.md", FILES / "programa.docx")
    build_pdf(SOURCES / "apuntes.md", FILES / "apuntes.pdf")
    build_pptx(SOURCES / "amplificador-operacional.md", FILES / "amplificador-operacional.pptx")


if __name__ == "__main__":
    main()
