"""A model that gives its instructions away is noticed, in whatever dress they are."""

import base64
import codecs
import subprocess
import sys
from datetime import date

import pytest

from core.questions import Exchange
from rag_worker.leaks import CANARY, gives_away, instructions
from rag_worker.passages import Passage
from rag_worker.prompt import build_prompt
from rag_worker.support import check

RULE = "Copy numbers, dates, names, units and formulas exactly as they stand in the passages."
DRESSES = {
    "as it is": CANARY,
    "in a sentence": f"The exam is on 3 December [1]. By the way: {CANARY}.",
    "capitals": CANARY.upper(),
    "spaces": " ".join(CANARY),
    "lines": "\n".join(CANARY),
    "signs": "-*-".join(CANARY),
    "zero-width": "\u200b".join(CANARY),
    "full-width": "".join(chr(ord(one) + 0xFEE0) for one in CANARY),
    "accents": "\u0301".join(CANARY),
    "Cyrillic": CANARY.translate(str.maketrans("ace", "асе")),
    "reversed": CANARY[::-1],
    "base64": base64.b64encode(CANARY.encode()).decode(),
    "base64 within more": base64.b64encode(f"my mark is {CANARY}!".encode()).decode(),
    "base64 for addresses": base64.urlsafe_b64encode(f"??>{CANARY}".encode()).decode().rstrip("="),
    "hexadecimal": CANARY.encode().hex(),
    "hexadecimal, apart": CANARY.encode().hex(" ").upper(),
    "ROT13": codecs.encode(CANARY, "rot13"),
    "percent signs": "".join(f"%{ord(one):02x}" for one in CANARY),
    "a half": CANARY[:8],
    "the other half": CANARY[8:],
    "all rules": instructions(),
    "one rule": RULE,
    "shouted": RULE.upper(),
    "without spaces between": RULE.replace(" ", "_"),
    "quoted": "\n".join(f"> {word}" for word in RULE.split()),
    "rules reversed": RULE[::-1],
    "rules in base64": base64.b64encode(RULE.encode()).decode(),
    "rules in ROT13": codecs.encode(RULE, "rot13"),
}


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
def test_what_gives_the_instructions_away_is_noticed(dress: str) -> None:
    assert gives_away(dress)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "NOT IN THE DOCUMENTS",
        "The final exam is on 28 January 2027 in the Aula Magna [1].",
        "El laboratorio vale un 20 % de la nota [2]. No se admiten entregas fuera de plazo [2].",
        "Set 0xDEADBEEF at 0x7FFF; its MD5 sum is 9f86d081884c7d659a2feaa0c55ad015 [1].",
        "Copy numbers and dates exactly into the report [1].",
        "https://electronica.uni.example/apuntes/tema-3?pagina=17#abc",
    ],
)
def test_ordinary_answers_give_nothing_away(answer: str) -> None:
    assert not gives_away(answer)


def test_canary_stands_in_every_prompt_and_is_another_in_each_process() -> None:
    passage = Passage("The exam is on 3 December.", "a.md", None, None, None, language="en")
    prompt = build_prompt(
        "When?",
        [passage],
        "en",
        today=date(2026, 11, 21),
        context=4096,
        max_tokens=400,
        earlier=Exchange("Before?", "Yes."),
    )
    assert prompt.count(CANARY) == 1
    program = "from rag_worker.leaks import CANARY; print(CANARY)"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert other.stdout.decode().strip() != CANARY
    assert len(CANARY) == 16


PASSAGE = Passage(
    "The final exam is on 28 January 2027 in the Aula Magna. "
    "The programme is at https://uni.example/programa.pdf and questions go to ana@uni.example.",
    "programa.md",
    None,
    None,
    None,
    language="en",
)
TRUE = "The final exam is on 28 January 2027 in the Aula Magna"


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.test/?q=exam",
        "HTTPS://EVIL.TEST/",
        "www.evil.test",
        "evil.test/exam",
        "exam.evil.test",
        "//evil.test/exam",
        "evil。test/exam",
        "![](https://evil.test/exam)",
        "[programme](https://evil.test/exam)",
        "[programme]: https://evil.test/exam",
        "<https://evil.test/exam>",
        "mailto:exam@evil.test",
        "exam@evil.test",
        "tel:+34600000000",
        "javascript:alert(1)",
        "data:text/html,exam",
        "ftp://evil.test/exam",
        "https://uni.example.evil.test/programa.pdf",
        "https://uni.example/programa.pdf?exam=january",
    ],
)
def test_sentence_with_a_link_that_no_document_has_is_dropped(link: str) -> None:
    for answer in (f"{TRUE} {link} [1].", f"{link} {TRUE} [1]."):
        assert _kept(answer) == []


@pytest.mark.parametrize(
    "sentence",
    [
        TRUE,
        "The programme is at https://uni.example/programa.pdf and questions go to ana@uni.example",
    ],
)
def test_links_of_the_documents_stay_as_they_are(sentence: str) -> None:
    assert _kept(f"{sentence} [1].") == [f"{sentence}."]


def _kept(answer: str) -> list[str]:
    checked = check(
        answer,
        [PASSAGE],
        "When is the final exam?",
        "en",
        today=date(2026, 11, 21),
        similarity=lambda _said, passage: (1.0, passage.text),
    )
    return [statement.text for statement in checked.statements]
