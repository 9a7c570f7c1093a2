"""``consulta evaluate`` on a real index: what it prints and keeps, and how it goes on."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from consulta.cli import app, terminal
from core.settings import Settings
from tests.integration.model_servers import ModelServer, Reply

SAFETY = """# Soldering

Set the soldering iron to 350 degrees. Wear safety glasses at all times.

# Fire

In case of fire leave the building by the north stairs and meet at the car park.
"""
EXAM = """# Exámenes

El examen final es el jueves 28 de enero de 2027 en el Aula Magna.

# Prácticas

Las prácticas se entregan los viernes antes de las 14:00 en el despacho 3.12.
"""
QUESTIONS: list[dict[str, Any]] = [
    {
        "id": "iron",
        "question": "What temperature should the soldering iron have?",
        "answer": "350 degrees",
        "document": "safety.md",
        "kind": "lab",
    },
    {
        "id": "exam",
        "question": "¿Qué día es el examen final?",
        "answer": "28 de enero de 2027",
        "document": "programa.md",
        "kind": "dates",
    },
    {"id": "cook", "question": "How do I bake a chocolate cake?", "answerable": False},
]
FOREIGN = {**dict.fromkeys(name.upper() for name in Settings.model_fields), "CONSULTA_DATA": None}
GOOD = Reply(["The soldering iron should be set to 350 degrees [1]."], prompt_tokens=321)


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass
class Course:
    """A folder with a small course, its index, and a file of questions."""

    folder: Path
    settings: dict[str, str]

    @property
    def output(self) -> Path:
        return self.folder / "var" / "evaluation" / "questions"

    @property
    def results(self) -> list[dict[str, Any]]:
        lines = (self.output / "results.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def report(self) -> str:
        return (self.output / "report.md").read_text(encoding="utf-8")

    def ask(self, *questions: dict[str, Any]) -> None:
        lines = (json.dumps(question, ensure_ascii=False) for question in questions)
        (self.folder / "questions.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def evaluate(self, *options: str, **settings: str) -> Ended:
        """Run the command in this process; nothing but an exit may leave it."""
        return self.run("evaluate", *options, **settings)

    def run(self, command: str, *options: str, **settings: str) -> Ended:
        """Run a command on the file of questions."""
        environment = {**FOREIGN, "COLUMNS": "200", **self.settings, **settings}
        # It keeps the width that it found when it was imported.
        terminal.width = int(environment["COLUMNS"])
        with contextlib.chdir(self.folder):
            result = CliRunner().invoke(
                app, [command, "questions.jsonl", *options], env=environment
            )
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    @contextlib.contextmanager
    def process(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """Run it as a process of its own, which is ended with the block."""
        inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        process = subprocess.Popen(
            [sys.executable, "-m", "consulta", "evaluate", "questions.jsonl", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**inherited, **self.settings},
            cwd=self.folder,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course with its index, made once."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "curso").mkdir()
    (folder / "curso" / "safety.md").write_text(SAFETY)
    (folder / "curso" / "programa.md").write_text(EXAM)
    course = Course(folder, {"DOCUMENT_LOCATION": "curso"})
    course.ask(QUESTIONS[0])
    assert course.evaluate("--retrieval-only").code == 0
    shutil.rmtree(course.output)
    return folder


@pytest.fixture
def server() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.stop()


@pytest.fixture
def course(indexed: Path, tmp_path: Path, server: ModelServer) -> Course:
    folder = tmp_path / "course"
    shutil.copytree(indexed, folder)
    course = Course(
        folder,
        {
            "DOCUMENT_LOCATION": "curso",
            "LLM_MODEL": "openai:scripted",
            "OPENAI_BASE_URL": f"{server.url}/v1",
            "LLM_LANGUAGES": "en",
        },
    )
    course.ask(*QUESTIONS)
    return course


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def row(text: str, name: str) -> list[str]:
    """The cells of the row of the report that begins with ``name``."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name}"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_it_prints_a_table_and_writes_a_report_with_a_picture(course: Course) -> None:
    ended = course.evaluate("--retrieval-only")
    assert ended.code == 0, ended.err
    assert "gold passage is the first" in ended.out
    assert "needs a language model" in ended.out
    assert row(course.report, "gold passage among the first 5")[:2] == ["2", "100.0 %"]
    assert row(course.report, "all gold passages in what")[1] != "–"
    assert "## By kind" in course.report
    assert (course.output / "report.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_is_measured_with_its_citations_and_tokens(
    course: Course, server: ModelServer
) -> None:
    server.replies = [GOOD]
    ended = course.evaluate()
    assert ended.code == 0, ended.err
    iron, exam, cook = course.results
    assert iron["outcome"] == "answered"
    assert iron["gold_in_answer"]
    assert iron["prompt_tokens"] == 321
    assert exam["outcome"] == "quoted"
    assert cook["outcome"] == "not_covered"
    assert row(course.report, "resolve: literally")[1] == "100.0 %"
    assert row(course.report, "tokens read")[1] == "321 / 321"
    assert len(server.requests) == 1


def test_known_results_are_not_measured_again_unless_asked(
    course: Course, server: ModelServer
) -> None:
    assert course.evaluate().code == 0
    asked = len(server.requests)
    before = course.results
    assert asked
    assert course.evaluate().code == 0
    assert (len(server.requests), course.results) == (asked, before)
    assert course.evaluate("--fresh").code == 0
    assert len(server.requests) == 2 * asked
    assert len(course.results) == len(before)


def test_a_changed_question_or_setting_is_measured_again(course: Course) -> None:
    assert course.evaluate("--retrieval-only").code == 0
    changed = {**QUESTIONS[0], "answer": "351 degrees"}
    course.ask(changed, *QUESTIONS[1:])
    assert course.evaluate("--retrieval-only").code == 0
    assert len(course.results) == 4
    assert course.evaluate("--retrieval-only", COURSE_LANGUAGE="en").code == 0
    assert len(course.results) == 7


def test_baselines_are_columns_of_the_same_table(course: Course) -> None:
    ended = course.evaluate("--retrieval-only", "--baseline")
    assert ended.code == 0, ended.err
    for title in ("BM25 alone", "vectors alone", "naive design (3 questions)"):
        assert title in ended.out
    first = row(course.report, "gold passage is the first")
    assert len(first) == 6
    assert "–" not in first
    assert row(course.report, "gold passage among the first 5")[-1] == "–"
    assert {record["system"] for record in course.results} == {"consulta", "bm25", "dense", "naive"}


def test_the_table_of_all_systems_fits_a_terminal_of_80_columns(course: Course) -> None:
    ended = course.evaluate("--retrieval-only", "--baseline", COLUMNS="80")
    heading, first = (
        next(line for line in ended.out.splitlines() if word in line)
        for word in ("Consulta", "gold passage is")
    )
    assert heading.rstrip().endswith("questions)")
    assert first.rstrip().endswith("%")
    assert max(len(line) for line in ended.out.splitlines() if "%" in line) <= 80


def test_baselines_read_with_the_same_model(course: Course, server: ModelServer) -> None:
    course.ask(QUESTIONS[0])
    server.replies = [GOOD, GOOD, Reply(["That is not in the documents."])]
    assert course.evaluate("--baseline").code == 0
    assert row(course.report, "gold answer stands in") == [
        *("1", "100.0 %", "21 to 100", "100.0 %", "0.0 %", "–")
    ]
    assert row(course.report, "false refusals")[3:] == ["0.0 %", "100.0 %", "–"]


def test_a_sample_is_marked_in_the_report(course: Course) -> None:
    assert course.evaluate("--retrieval-only", "--limit", "2").code == 0
    assert len(course.results) == 2
    assert "a random sample of 2 of the 3 questions" in course.report


def test_the_index_is_not_written_to(course: Course) -> None:
    index = course.folder / "var" / "index"
    # The copied files have other times, which this run notes.
    assert course.evaluate("--retrieval-only").code == 0
    before = tree(index)
    assert course.evaluate("--retrieval-only", "--baseline", "--fresh").code == 0
    after = tree(index)
    assert after.keys() == before.keys()
    # Chroma touches its own files when they are opened for reading.
    changed = {name for name in before if before[name] != after[name] and "/chroma/" not in name}
    assert not changed


def test_a_changed_folder_is_indexed_first(course: Course) -> None:
    (course.folder / "curso" / "new.md").write_text("# Tutorías\n\nLas tutorías son los martes.\n")
    course.ask({"question": "¿Cuándo son las tutorías?", "document": "new.md"})
    ended = course.evaluate("--retrieval-only")
    assert ended.code == 0, ended.err
    assert "new.md" in ended.out
    assert course.results[0]["ranks"] == [1]


def test_without_documents_the_published_index_is_measured(course: Course) -> None:
    del course.settings["DOCUMENT_LOCATION"]
    assert course.evaluate("--retrieval-only").code == 0
    shutil.rmtree(course.folder / "var" / "index")
    ended = course.evaluate("--retrieval-only")
    assert ended.code == 1
    assert "There is no index in var/index" in ended.err
    assert "consulta up" in ended.err


def test_without_a_model_it_says_what_to_do(course: Course, server: ModelServer) -> None:
    server.stop()
    ended = course.evaluate()
    assert ended.code == 1
    assert "does not answer" in ended.err
    assert "--retrieval-only" in ended.err


def test_a_wrong_line_and_a_misspelt_document_end_it_before_anything_is_measured(
    course: Course,
) -> None:
    course.ask({"question": "¿?"}, {"page": 3})
    ended = course.evaluate("--retrieval-only")
    assert ended.code == 2
    assert "line 2: `question` is missing" in ended.err
    course.ask({"question": "¿?", "document": "safty.md"})
    ended = course.evaluate("--retrieval-only")
    assert ended.code == 2
    assert "did you mean 'safety.md'?" in ended.err
    assert not course.output.exists()


def test_a_refusal_of_the_server_costs_one_question_and_is_tried_again(
    course: Course, server: ModelServer
) -> None:
    server.replies = [Reply(status=400), Reply(status=400)]
    assert course.evaluate().code == 0
    assert course.results[0]["error"]
    assert row(course.report, "failed")[1] == "1"
    # What was found stands, and counts.
    assert course.results[0]["ranks"] == [1]
    server.replies = [GOOD]
    assert course.evaluate().code == 0
    assert course.results[-1]["outcome"] == "answered"
    assert row(course.report, "failed")[1] == "0"


def test_markup_in_questions_and_names_is_shown_as_it_is(course: Course) -> None:
    hostile = "[bold]|*<img src=x> ¿Cuándo? [/red]"
    course.ask({"question": hostile, "kind": "[/x]"}, {"question": "a", "kind": "<b>"})
    ended = course.evaluate("--retrieval-only")
    assert ended.code == 0, ended.err
    assert "[/x]" in ended.out
    assert "<img" not in course.report


def test_ctrl_c_keeps_what_was_measured_and_the_next_run_goes_on(
    course: Course, server: ModelServer
) -> None:
    course.settings["LLM_LANGUAGES"] = "en,es"
    server.replies = [GOOD, Reply((f" {n}" for n in itertools.count()), pause=0.2)]
    with course.process() as process:
        deadline = time.monotonic() + 60
        while len(server.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Measured so far: Consulta 1 of 3" in err
    assert "goes on from there" in err
    assert "Traceback" not in err
    assert [record["id"] for record in course.results] == ["iron"]
    assert course.evaluate(LLM_LANGUAGES="en,es").code == 0
    assert [record["id"] for record in course.results] == ["iron", "exam", "cook"]


ASKED = (
    "What temperature should the soldering iron have?",
    "Must I wear safety glasses in the lab?",
    "Which stairs do we take in case of fire?",
    "Where do we meet when there is a fire?",
    "At how many degrees do we solder?",
    "¿Qué día es el examen final?",
    "¿En qué aula es el examen final?",
    "¿Cuándo se entregan las prácticas?",
    "¿En qué despacho se entregan las prácticas?",
    "¿Hasta qué hora se pueden entregar las prácticas?",
)


def test_calibrate_keeps_thresholds_beside_the_index(course: Course) -> None:
    course.ask(
        *({"question": text} for text in ASKED),
        {"question": "¿Cuánto cuesta un billete de avión a Lima?", "answerable": False},
    )
    ended = course.run("calibrate")
    assert ended.code == 0, ended.err
    assert "10 questions with an answer in the documents" in ended.out
    kept = json.loads((course.folder / "var" / "index" / "thresholds.json").read_text())
    assert 0 < kept["uncertain"] <= kept["certain"] < 1
    assert kept["fitted_on"]["answerable"] == len(ASKED)
    assert course.run("calibrate").code == 0


def test_calibrate_says_what_is_missing(course: Course) -> None:
    course.ask({"question": ASKED[0]})
    ended = course.run("calibrate")
    assert ended.code == 1
    assert "1 questions that the documents answer, and 10 are needed" in ended.err
    course.ask({"question": 3})
    assert course.run("calibrate").code == 2
