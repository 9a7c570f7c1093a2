"""Fixtures of the journeys."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.department import COURSE


@pytest.fixture(scope="session")
def course_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the sample course, made once, also where several processes run the tests.

    Of them one indexes: the others wait for it, and find nothing to do.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "course-index"
    subprocess.run(
        [sys.executable, "-m", "consulta", "index"],
        env={**os.environ, "DOCUMENT_LOCATION": str(COURSE), "INDEX_LOCATION": str(folder)},
        check=True,
        timeout=300,
    )
    return folder
