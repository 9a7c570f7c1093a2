"""Formulas become one line that reads as the formula does, and no letter of them is lost."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from rag_worker.documents.formulas import linear

OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/math"


def mathml(content: str) -> str:
    return linear(etree.fromstring(f"<math>{content}</math>"))


def office(content: str) -> str:
    """Office Math written without its prefix."""
    return linear(etree.fromstring(f'<oMath xmlns="{OFFICE}">{content}</oMath>'))


def run(text: str) -> str:
    return f"<r><t>{text}</t></r>"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            (
                "<mn>1</mn><mo>,</mo><mn>22</mn><mo>×</mo><msup><mn>10</mn><mn>5</mn></msup>"
                "<mtext>kg</mtext>"
            ),
            "1,22 × 10^5 kg",
        ),
        (
            "<mn>2</mn><mfrac><mn>1</mn><mn>2</mn></mfrac><mi>m</mi><msup><mi>v</mi><mn>2</mn></msup>",
            "2 1/2 mv^2",
        ),
        ("<mfrac><mi>a</mi><mrow><mn>2</mn><mi>b</mi></mrow></mfrac>", "a/(2b)"),
        ("<mo>−</mo><mi>x</mi><mo>=</mo><mo>−</mo><mn>3</mn>", "−x = −3"),
        (
            "<mover><mi>F</mi><mo>→</mo></mover><mo>,</mo><mover><mi>k</mi><mo>^</mo></mover>",
            "F⃗, k̂",
        ),
        ("<mover><mrow><mi>A</mi><mi>B</mi></mrow><mo>→</mo></mover>", "vec(AB)"),
        ("<msup><mi>x</mi><mo>′</mo></msup>", "x′"),
        (
            (
                "<munder><mi>lim</mi><mrow><mi>x</mi><mo>→</mo><mn>0</mn></mrow></munder><mi>sin</mi>"
                "<mi>x</mi>"
            ),
            "lim_(x → 0) sin x",
        ),
        (
            (
                "<munderover><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi></munderover>"
                "<msub><mi>x</mi><mi>i</mi></msub>"
            ),
            "∑_(i = 1)^n x_i",
        ),
        (
            (
                "<mo>(</mo><mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>0</mn></mtd></mtr>"
                "<mtr><mtd><mn>0</mn></mtd><mtd><mn>1</mn></mtd></mtr></mtable><mo>)</mo>"
            ),
            "(1, 0; 0, 1)",
        ),
        (
            "<mtable><mtr><mtd><mi>a</mi></mtd><mtd><mo>=</mo><mi>b</mi></mtd></mtr></mtable>",
            "a = b",
        ),
        ("<mroot><mi>x</mi><mn>3</mn></mroot><msqrt><mi>y</mi></msqrt>", "∛(x)√(y)"),
        (
            "<mmultiscripts><mi>U</mi><mprescripts/><mn>92</mn><mn>238</mn></mmultiscripts>",
            "_92^238 U",
        ),
        ("<mfenced open='[' close=')'><mi>a</mi><mi>b</mi></mfenced>", "[a, b)"),
        ("<mi>a</mi><mphantom><mi>z</mi></mphantom>", "a"),
        ("<menclose><mi>a</mi></menclose><unheard><mi>b</mi></unheard>", "ab"),
        (
            "<semantics><mi>a</mi><annotation encoding='StarMath 5.0'>T</annotation></semantics>",
            "a",
        ),
        (
            "<semantics><mrow/><annotation encoding='TeX'>\\pi</annotation></semantics>",
            "\\pi",
        ),
    ],
)
def test_mathml_reads_as_the_formula(content: str, text: str) -> None:
    assert mathml(content) == text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (f"<f><num>{run('a+b')}</num><den>{run('c')}</den></f>", "(a+b)/c"),
        (
            (
                f"<d><dPr/><e><f><fPr><type val='noBar'/></fPr><num>{run('n')}</num>"
                f"<den>{run('k')}</den></f></e></d>"
            ),
            "binom(n, k)",
        ),
        (
            (
                f"<nary><naryPr><chr val='∑'/></naryPr><sub>{run('i=1')}</sub><sup>{run('n')}</sup>"
                f"<e>{run('x')}</e></nary>"
            ),
            "∑_(i = 1)^n x",
        ),
        (f"<nary><sub/><sup/><e>{run('x')}</e></nary>", "∫ x"),
        (f"<rad><radPr/><deg/><e>{run('x')}</e></rad>", "√(x)"),
        (
            f"<sPre><sub>{run('92')}</sub><sup>{run('238')}</sup><e>{run('U')}</e></sPre>",
            "_92^238 U",
        ),
        (
            f"<sSubSup><e>{run('x')}</e><sub>{run('1')}</sub><sup>{run('2')}</sup></sSubSup>",
            "x_1^2",
        ),
        (
            (
                f"<func><fName><limLow><e>{run('lim')}</e><lim>{run('x→0')}</lim></limLow></fName>"
                f"<e>{run('f')}</e></func>"
            ),
            "lim_(x → 0) f",
        ),
        (f"<acc><accPr><chr val='\u20d7'/></accPr><e>{run('F')}</e></acc>", "F⃗"),
        (f"<bar><barPr><pos val='top'/></barPr><e>{run('x')}</e></bar>", "x̅"),
        (
            (
                f"<d><dPr><begChr val='['/><endChr val=']'/></dPr><e><m><mPr/><mr><e>{run('a')}</e>"
                f"<e>{run('b')}</e></mr><mr><e>{run('c')}</e><e>{run('d')}</e></mr></m></e></d>"
            ),
            "[a, b; c, d]",
        ),
        (
            (
                f"<d><dPr><begChr val='{{'/><endChr val=''/></dPr><e><eqArr>"
                f"<e>{run('x&amp;=1')}</e>"
                f"<e>{run('y&amp;=2')}</e></eqArr></e></d>"
            ),
            "{x = 1; y = 2",
        ),
        (f"<borderBox><e>{run('E')}</e></borderBox><groupChr><e>{run('k')}</e></groupChr>", "Ek"),
        (f"<phant><phantPr><show val='0'/></phantPr><e>{run('z')}</e></phant>{run('a')}", "a"),
    ],
)
def test_office_math_reads_as_the_formula(content: str, text: str) -> None:
    assert office(content) == text


LEAVES = st.tuples(
    st.sampled_from(["mi", "mn", "mo", "mtext", "ms", "t"]), st.text("abcxyzαβ0123", min_size=1)
)
NODES = st.sampled_from(
    [
        "mrow",
        "mfrac",
        "msup",
        "msub",
        "msubsup",
        "munder",
        "mover",
        "munderover",
        "mroot",
        "msqrt",
        "mstyle",
        "mpadded",
        "mfenced",
        "menclose",
        "mtable",
        "mtr",
        "mtd",
        "mlabeledtr",
        "mmultiscripts",
        "semantics",
        "merror",
        "f",
        "sSup",
        "sSub",
        "sSubSup",
        "sPre",
        "rad",
        "nary",
        "limLow",
        "limUpp",
        "func",
        "d",
        "acc",
        "bar",
        "groupChr",
        "eqArr",
        "m",
        "mr",
        "e",
        "num",
        "den",
        "sub",
        "sup",
        "deg",
        "lim",
        "box",
        "borderBox",
        "phant",
        "oMathPara",
        "unheard",
    ]
)
TREES = st.recursive(LEAVES, lambda trees: st.tuples(NODES, st.lists(trees, max_size=5)))


def tree(node: tuple[str, object]) -> etree._Element:
    element = etree.Element(node[0])
    if isinstance(node[1], str):
        element.text = node[1]
    elif isinstance(node[1], list):
        element.extend([tree(child) for child in node[1]])
    return element


@given(st.lists(TREES, max_size=4))
def test_no_letter_of_any_formula_is_lost(children: list[tuple[str, object]]) -> None:
    formula = etree.Element("math")
    formula.extend([tree(child) for child in children])
    written = Counter(filter(str.isalnum, "".join(formula.itertext())))
    assert not written - Counter(filter(str.isalnum, linear(formula)))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<apply><eq/><ci>F</ci><apply><times/><ci>m</ci><ci>a</ci></apply></apply>", "F = (m a)"),
        ("<apply><divide/><ci>V</ci><ci>R</ci></apply>", "V/R"),
        (
            "<apply><power/><apply><plus/><ci>a</ci><ci>b</ci></apply><cn>2</cn></apply>",
            "(a + b)^2",
        ),
        ("<apply><minus/><ci>x</ci></apply>", "−x"),
        ("<apply><sin/><ci>x</ci></apply>", "sin(x)"),
        ("<apply><ci>f</ci><ci>x</ci><ci>y</ci></apply>", "f(x, y)"),
    ],
)
def test_operators_of_content_mathml_are_written(content: str, text: str) -> None:
    assert mathml(content) == text
