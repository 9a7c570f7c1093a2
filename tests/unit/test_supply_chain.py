"""What the program is made of: listed, audited, and free of patterns that are often unsafe."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.servers import script

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "api", "rag_worker", "mailer", "consulta")
LOCK = ROOT / "requirements" / "embedded.txt"
AUDIT = ROOT / "scripts" / "audit-dependencies"


@pytest.fixture(scope="module")
def sbom(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two that were made one after the other, without a network to ask."""
    made = []
    for number in range(2):
        file = tmp_path_factory.mktemp("sbom") / f"{number}.json"
        ended = subprocess.run(
            [sys.executable, ROOT / "scripts" / "sbom", "--output", file],
            env={"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
            capture_output=True,
            timeout=300,
            check=False,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr
        made.append(file.read_text("utf-8"))
    return made[0], made[1]


def test_bill_of_materials_is_valid_and_the_same_each_time(sbom: tuple[str, str]) -> None:
    assert sbom[0] == sbom[1]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom[0]) is None
    assert not re.search(r"serialNumber|timestamp", sbom[0])
    assert str(ROOT) not in sbom[0]


def test_bill_of_materials_has_every_locked_package_with_hashes(sbom: tuple[str, str]) -> None:
    components = json.loads(sbom[0])["components"]
    text = LOCK.read_text("utf-8")
    locked = re.findall(r"^([\w.-]+)==([\w.!+]+)", text, re.M)
    assert sorted((c["name"], c["version"]) for c in components) == sorted(locked)
    hashes = [
        given["content"]
        for component in components
        for reference in component["externalReferences"]
        for given in reference.get("hashes", [])
    ]
    assert sorted(hashes) == sorted(re.findall(r"--hash=sha256:(\w+)", text))


def test_bill_of_materials_knows_licences_and_who_needs_what(sbom: tuple[str, str]) -> None:
    bom = json.loads(sbom[0])
    by_name: dict[str, dict[str, Any]] = {c["name"]: c for c in bom["components"]}
    assert by_name["uvicorn"]["licenses"] == [{"expression": "BSD-3-Clause"}]
    known = [c for c in bom["components"] if c.get("licenses")]
    assert len(known) > 0.8 * len(bom["components"])
    graph = {one["ref"]: one.get("dependsOn", []) for one in bom["dependencies"]}
    assert by_name["starlette"]["purl"] in graph[by_name["fastapi"]["purl"]]
    assert by_name["fastapi"]["purl"] in graph[bom["metadata"]["component"]["bom-ref"]]


def bandit(*targets: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script("bandit"), "--quiet", "--configfile", "pyproject.toml", "--recursive", *targets],
        cwd=ROOT,
        capture_output=True,
        timeout=300,
        check=False,
        text=True,
    )


def test_no_pattern_that_is_often_unsafe() -> None:
    found = bandit(*ROOMS)
    assert found.returncode == 0, found.stdout
    assert (found.stdout, found.stderr) == ("", "")


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess; subprocess.run('ls ' + input(), shell=True)",
        "import pickle; pickle.loads(input().encode())",
        "eval(input())",
        "import hashlib; hashlib.md5(b'password')",
        "password = 'tres gatos'",
        "import random; token = random.random()",
    ],
)
def test_what_is_unsafe_would_be_found(line: str, tmp_path: Path) -> None:
    (tmp_path / "unsafe.py").write_text(f"{line}\n")
    assert bandit(tmp_path).returncode == 1


def test_every_exception_names_its_check_and_its_reason() -> None:
    exceptions = [
        line
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
        for line in file.read_text("utf-8").splitlines()
        if "nosec" in line
    ]
    assert exceptions
    for line in exceptions:
        assert re.search(r"# nosec B\d{3}  # \w+", line), line
    skipped = re.search(
        r"\[tool.bandit\].*?skips = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.S
    )
    assert skipped is not None
    for line in skipped[1].strip().splitlines():
        assert re.fullmatch(r'\s*"B\d{3}",  # .{10,}', line), line


@pytest.mark.parametrize(
    ("report", "complaint", "code", "expected", "said"),
    [
        ("", "", 0, 0, ""),
        ("jinja2 1.0 GHSA-1", "", 1, 1, "GHSA-1"),
        ("x  Dependency not found and could not be audited", "", 0, 0, "not audited: x"),
        ("", "requests.exceptions.ConnectionError: no route", 1, 0, "could not be reached"),
        ("", "ValueError: no such lock", 1, 1, "no such lock"),
    ],
)
def test_audit_fails_for_what_is_found_and_says_what_was_not_looked_at(
    report: str, complaint: str, code: int, expected: int, said: str, tmp_path: Path
) -> None:
    auditor = tmp_path / "auditor"
    auditor.write_text(
        '#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\n'
        f"printf '%s' '{report}' > \"$2\"; echo '{complaint}' >&2; exit {code}\n"
    )
    auditor.chmod(0o755)
    ended = subprocess.run(
        [AUDIT],
        cwd=ROOT,
        env={"PIP_AUDIT": str(auditor), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )
    assert ended.returncode == expected
    assert said in ended.stdout + ended.stderr
