"""The local sample student: asks through the API as a student would, and waits."""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import httpx

POLL_SECONDS = 0.5
_FILE = "sample-student.json"


class AskError(Exception):
    """The question could not be asked or was not answered; one sentence for the terminal."""


@dataclass(frozen=True, slots=True)
class Student:
    """Who asks; the password is random and kept in the data folder."""

    username: str
    email: str
    password: str

    @classmethod
    def load(cls, data: Path, domain: str = "ejemplo.test") -> Self:
        """The student of this data folder, made up at the first call with an address there."""
        file = data / _FILE
        try:
            return cls(**json.loads(file.read_text()))
        except FileNotFoundError:
            # A name of its own: where the file was lost, nobody knows the old account's password.
            name = f"estudiante-{secrets.token_hex(2)}"
            student = cls(name, f"{name}@{domain}", secrets.token_urlsafe(18))
            data.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_text(json.dumps(asdict(student)))
            return student
        except (OSError, ValueError, TypeError) as error:
            raise AskError(f"{file} cannot be read ({error}): delete it and try again.") from None


def remove_student(data: Path, email: str) -> None:
    """Delete what is kept of the sample student, if this is the address; another is made up."""
    file = data / _FILE
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(file.read_text())["email"] == email:
            file.unlink()


class Asking:
    """One student's session with the API at ``api_url``.

    Raises:
        AskError: from every method, when the API is away or refuses.
    """

    def __init__(self, api_url: str, student: Student) -> None:
        self._student = student
        self._client = httpx.Client(base_url=api_url, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def log_in(self) -> None:
        """Register when the account is new, and log in."""
        student = self._student
        self._call("POST", "/user", allowed=(409,), json=asdict(student))
        reply = self._call(
            "POST", "/login", data={"username": student.username, "password": student.password}
        )
        self._client.headers["Authorization"] = f"Bearer {reply['access_token']}"

    def ask(self, text: str) -> dict[str, Any]:
        """Put the question into the queue; gives what the API replied."""
        return self._call("POST", "/questions", json={"input": text})

    def follow(self, number: int, seconds: float) -> Iterator[dict[str, Any]]:
        """The question as it changes, until it is answered.

        Raises:
            AskError: also when there is no answer after ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while True:
            question = self._call("GET", f"/questions/{number}")
            yield question
            if question["answer"] is not None:
                return
            if time.monotonic() > deadline:
                raise AskError(
                    f"Question {number} has no answer after {seconds:.0f} seconds; it is not "
                    "lost: its answer will come by e-mail. `consulta status` shows the queue."
                )
            time.sleep(POLL_SECONDS)

    def _call(
        self, method: str, path: str, *, allowed: tuple[int, ...] = (), **arguments: Any
    ) -> dict[str, Any]:
        try:
            reply = self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise AskError(
                f"The API does not answer at {self._client.base_url} ({error}): start the service "
                "with `consulta up`, or set API_URL."
            ) from None
        try:
            body: dict[str, Any] = reply.json()
        except ValueError:
            body = {}
        if reply.is_error and reply.status_code not in allowed:
            raise AskError(
                f"The API refused: {body.get('detail', reply.reason_phrase)} ({reply.status_code})"
            )
        return body
