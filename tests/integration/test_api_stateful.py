"""Requests that follow from each other, as schemathesis finds them in the schema: no 5xx.

By hand for longer: ``CONSULTA_STATEFUL=300 pytest tests/integration/test_api_stateful.py``.
"""

import asyncio
import os
import re
from pathlib import Path

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance
from sqlalchemy import create_engine

from api.main import create_app
from core.users import UserRepository
from tests.api_client import register, serving, settings_for

EXAMPLES = int(os.environ.get("CONSULTA_STATEFUL", "12"))
"""Sequences of up to eight requests."""


def test_no_sequence_of_requests_is_a_server_error(nx_url: str, tmp_path: Path) -> None:
    app = create_app(settings_for("mongodb://127.0.0.1:1/", "none", tmp_path))
    schema = schemathesis.openapi.from_dict(app.openapi())
    counted: dict[int, int] = {}
    with serving(nx_url, tmp_path) as url:
        logins = asyncio.run(_logins(url, tmp_path))

        class Requests(schema.as_state_machine()):  # type: ignore[misc]
            def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, object]:
                is_worker = case.operation.tags and case.operation.tags[0] == "Workers"
                login = logins["worker" if is_worker else "student"]
                return {"base_url": url, "headers": {"Authorization": login}, "timeout": 30}

            def validate_response(
                self, response: schemathesis.Response, case: schemathesis.Case, **_: object
            ) -> None:
                counted[response.status_code] = counted.get(response.status_code, 0) + 1
                case.validate_response(
                    response, checks=[not_a_server_error, status_code_conformance]
                )

        run_state_machine_as_test(
            Requests,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=8,
                deadline=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert sum(counted.values()) > EXAMPLES
    assert not [status for status in counted if status >= 500]
    assert [status for status in counted if status < 300], counted
    log = (tmp_path / "api.log").read_text()
    assert not re.search(r"status=5\d\d", log)
    assert "Traceback" not in log


async def _logins(url: str, folder: Path) -> dict[str, str]:
    async with httpx.AsyncClient(base_url=url) as client:
        login = await register(client, "sequence")
        for _ in range(3):
            await client.post("/questions", json={"input": "¿Cuándo?"}, headers=login)
    engine = create_engine(f"sqlite:///{folder / 'users.db'}")
    worker = UserRepository(engine).create_worker_token("sequence")
    engine.dispose()
    return {"student": login["Authorization"], "worker": f"Bearer {worker}"}
