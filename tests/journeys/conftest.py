"""Fixtures of the journeys."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.department import COURSE


@pytest.fixture(scope="session")
def course_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the sample course, made once."""
    folder = tmp_path_factory.mktemp("course") / "index"
    subprocess.run(
        [sys.executable, "-m", "consulta", "index"],
        env={**os.environ, "DOCUMENT_LOCATION": str(COURSE), "INDEX_LOCATION": str(folder)},
        check=True,
        timeout=300,
    )
    return folder
