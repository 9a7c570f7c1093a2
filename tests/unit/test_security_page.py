"""Every row of docs/security.md names tests, and each of them is there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def named_tests() -> list[str]:
    command = [sys.executable, str(ROOT / "scripts" / "security"), "--list"]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()


def test_every_row_names_tests_that_are_there_and_run() -> None:
    names = named_tests()
    assert len(names) > 60
    for name in names:
        file, _, function = name.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        found = [
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
        ]
        assert len(found) == 1, name
        marks = " ".join(ast.unparse(decorator) for decorator in found[0].decorator_list)
        assert "skip" not in marks, name
        assert "faults" not in marks, name


def test_no_test_is_named_outside_the_table() -> None:
    assert set(re.findall(r"tests/[\w/]+\.py::\w+", PAGE)) == set(named_tests())


def test_commands_of_the_page_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "make security" in PAGE
    assert re.search(r"^security:.*\n(\t.*\n)*\t.*scripts/security", makefile, re.MULTILINE)
    for module in re.findall(r"python -m benchmarks\.(\w+)", PAGE):
        assert (ROOT / "benchmarks" / f"{module}.py").is_file()
