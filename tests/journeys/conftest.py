"""Fixtures of the journeys."""

import os
from pathlib import Path

import pytest

from tests.journeys.department import index_sample_course


@pytest.fixture(scope="session")
def course_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the sample course, made once, also where several processes run the tests.

    Of them one indexes: the others wait for it, and find nothing to do.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "course-index"
    return index_sample_course(folder)
