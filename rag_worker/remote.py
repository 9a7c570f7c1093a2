"""The queue as a worker elsewhere sees it: through the API."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

import httpx

from core.questions import Answer, Exchange, Question, QuestionState

POLL_SECONDS = 1.0
"""How often an idle worker asks the API, at most: each time costs it a request."""
_TIMEOUT = 30.0
_LONGEST_ERROR = 500


class RemoteQueueError(Exception):
    """The API is away, does not let us in, or cannot reach its queue; the message says which."""


class AnswerRefusedError(Exception):
    """The API does not take this answer, and would not the next time."""


class RemoteQueue:
    """The verbs of a worker, over HTTP.

    Raises:
        RemoteQueueError: from every verb; at once where the token cannot be one.
    """

    def __init__(self, api_url: str, token: str) -> None:
        token = token.strip()
        if not token.isascii() or not token.isprintable():
            # Before a header refuses it, in words that show it.
            raise RemoteQueueError("the token holds characters that no token has: copy it again")
        self._api_url = api_url.rstrip("/")
        self._client = httpx.AsyncClient(
            base_url=self._api_url,
            timeout=_TIMEOUT,
            headers={
                "Authorization": f"Bearer {token}",
                "User-Agent": f"consulta-worker/{version('consulta')}",
            },
        )
        self.lease_seconds = _TIMEOUT
        """As the API gave it with the last claim."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def claim(self, worker: str | None = None) -> Question | None:
        """Take the oldest question that is due. The API knows the worker by its token."""
        reply = await self._send("GET", "/receive-prompt")
        if reply.status_code == httpx.codes.NO_CONTENT:
            return None
        try:
            claimed = reply.json()
            self.lease_seconds = float(claimed["lease_seconds"])
            earlier = claimed.get("earlier")
            return Question(
                id=claimed["id"],
                input=claimed["input"],
                date=datetime.fromisoformat(claimed["date"]),
                # Whose question it is, a worker elsewhere does not learn.
                email="",
                user_id=0,
                state=QuestionState.ANSWERING,
                claims=claimed["claims"],
                attempts=claimed["attempts"],
                earlier=Exchange(**earlier) if earlier else None,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RemoteQueueError(
                f"{self._api_url} does not speak as Consulta's API does: {type(error).__name__}"
            ) from None

    def is_poisonous(self, question: Question) -> bool:
        """Never: the API hands none out."""
        return False

    async def renew(self, number: int, claims: int) -> bool:
        """Extend the claim by one lease from now."""
        return await self._holds("PUT", f"/questions/{number}/claim", json={"claims": claims})

    async def complete(self, number: int, claims: int, answer: Answer) -> bool:
        """Store the answer.

        Raises:
            AnswerRefusedError: it is longer than the API takes.
        """
        content = asdict(answer) | {"claims": claims, "outcome": str(answer.outcome)}
        return await self._holds("POST", f"/questions/{number}/answer", json=content)

    async def give_back(
        self, number: int, claims: int, *, after: float = 0.0, error: str | None = None
    ) -> bool:
        """Let it wait again, ``after`` seconds; no attempt is used up."""
        params: dict[str, Any] = {"claims": claims, "after": after}
        if error:
            params["error"] = _one_line(error)
        return await self._holds("DELETE", f"/questions/{number}/claim", params=params)

    async def fail(self, number: int, claims: int, *, error: str, apology: Answer) -> bool:
        """Use up an attempt; after the last one the student is sent the apology."""
        params = {
            "claims": claims,
            "failed": True,
            "error": _one_line(error),
            "language": apology.language,
        }
        return await self._holds("DELETE", f"/questions/{number}/claim", params=params)

    async def _holds(self, method: str, path: str, **content: Any) -> bool:
        """Send it; False when the claim is lost."""
        reply = await self._send(method, path, **content)
        return reply.status_code != httpx.codes.CONFLICT

    async def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            reply = await self._client.request(method, path, **content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise RemoteQueueError(f"no answer from {self._api_url}: {reason}") from None
        if reply.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise RemoteQueueError(
                f"{self._api_url} does not know this token: `consulta users worker-token NAME` "
                "on the server makes one"
            )
        if reply.status_code in (
            httpx.codes.REQUEST_ENTITY_TOO_LARGE,
            httpx.codes.UNPROCESSABLE_ENTITY,
        ):
            raise AnswerRefusedError(f"the API refuses it: {_reason(reply)}")
        if reply.has_redirect_location:
            raise RemoteQueueError(
                f"{self._api_url} leads on to {reply.headers['Location']}: give --api-url its "
                "beginning"
            )
        if not reply.is_success and reply.status_code != httpx.codes.CONFLICT:
            raise RemoteQueueError(f"{self._api_url} says {reply.status_code}: {_reason(reply)}")
        return reply


def _one_line(error: str) -> str:
    """As the API takes it: an error's words may hold anything."""
    return "".join(char if char.isprintable() else " " for char in error)[:_LONGEST_ERROR]


def _reason(reply: httpx.Response) -> str:
    try:
        content = reply.json()
    except ValueError:
        content = None
    if isinstance(content, Mapping):
        return str(content.get("detail") or content.get("title") or content)[:200]
    return " ".join(reply.text.split())[:200]
