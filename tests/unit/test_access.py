"""Who may do what stands here once more, and every route is checked against it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api import deps
from api.main import create_app
from core.users import User
from tests.api_client import settings_for

ANYONE, LINK, STUDENT, WORKER = "anyone", "whoever has the link", "a student", "a worker"
TEMPORARY = "a student, with a temporary password too"
ACCESS = {
    ("GET", "/"): ANYONE,
    ("HEAD", "/"): ANYONE,
    ("GET", "/health/live"): ANYONE,
    ("GET", "/health/ready"): ANYONE,
    ("HEAD", "/health/live"): ANYONE,
    ("HEAD", "/health/ready"): ANYONE,
    ("GET", "/docs"): ANYONE,
    ("POST", "/user"): ANYONE,
    ("POST", "/login"): ANYONE,
    ("POST", "/auth/forgot-password"): ANYONE,
    ("POST", "/auth/change-password"): TEMPORARY,
    ("POST", "/auth/send-confirmation"): STUDENT,
    ("GET", "/confirm/{token}"): LINK,
    ("HEAD", "/confirm/{token}"): LINK,
    ("POST", "/confirm/{token}"): LINK,
    ("GET", "/feedback/{token}"): LINK,
    ("HEAD", "/feedback/{token}"): LINK,
    ("POST", "/feedback/{token}"): LINK,
    ("POST", "/questions"): STUDENT,
    ("GET", "/questions"): STUDENT,
    ("GET", "/questions/{id}"): STUDENT,
    ("GET", "/receive-prompt"): WORKER,
    ("PUT", "/questions/{id}/claim"): WORKER,
    ("DELETE", "/questions/{id}/claim"): WORKER,
    ("POST", "/questions/{id}/answer"): WORKER,
}
"""Course staff have no routes of their own: what they may do, they do on the server."""


@pytest.fixture
def routes(tmp_path: Path) -> dict[tuple[str, str], APIRoute]:
    app = create_app(settings_for("mongodb://127.0.0.1/", "none", tmp_path))
    return {
        (method, route.path): route for route in _routes(app.routes) for method in route.methods
    }


def _routes(routes: object) -> Iterator[APIRoute]:
    for route in routes:  # type: ignore[attr-defined]
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from _routes(route.original_router.routes)


def _calls(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for needed in dependant.dependencies:
        yield from _calls(needed)


def _opened_by(route: APIRoute) -> str:
    calls = set(_calls(route.dependant))
    if deps._current_worker in calls:
        assert deps._anyone_logged_in not in calls
        return WORKER
    if deps._current_user in calls:
        return STUDENT
    if deps._anyone_logged_in in calls:
        return TEMPORARY
    return LINK if "{token}" in route.path else ANYONE


def test_every_route_is_open_to_whom_it_should_be_and_nobody_else(
    routes: dict[tuple[str, str], APIRoute],
) -> None:
    assert {name: _opened_by(route) for name, route in routes.items()} == ACCESS


def test_rights_are_read_in_one_place() -> None:
    folder = Path(deps.__file__).parent
    for word in ("is_active", "is_staff", "token_version", "read_access_token", "find_worker"):
        readers = {
            file.name
            for file in folder.rglob("*.py")
            if word in file.read_text() and "migrations" not in file.parts
        }
        assert readers <= {"deps.py", "accounts.py"}, word
    assert User.is_staff  # Shown by `consulta users list`; no route asks for it.
    assert not [file for file in folder.glob("*.py") if "is_staff" in file.read_text()]
