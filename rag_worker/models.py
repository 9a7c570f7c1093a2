"""The language model, on an Ollama or an OpenAI-compatible server."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from core.settings import Settings

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_CONNECT_SECONDS = 5.0
_ANSWERS_LATER = {401, 403, 404, 408, 429, 502, 503, 504}
"""Replies of a server that is starting, overloaded or wrongly configured."""


class ModelAwayError(Exception):
    """No model answers, whatever the question; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote, and whether it was cut at the longest answer allowed."""

    text: str
    is_cut: bool


class LanguageModel:
    """The model that LLM_MODEL names. Its library is imported on first use: it takes 60 MB."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._provider, _, self._name = settings.llm_model.partition(":")
        self._chat: BaseChatModel | None = None
        self._connections: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections that are kept open between questions."""
        if self._connections is not None:
            await self._connections.aclose()

    async def check(self) -> None:
        """Return when the server answers and has the model.

        Raises:
            ModelAwayError: it does not.
        """
        settings = self._settings
        if self._provider == "ollama":
            url = f"{settings.ollama_server_url}/api/tags"
            headers = {}
        else:
            url = f"{settings.openai_base_url}/models"
            headers = {"Authorization": f"Bearer {settings.openai_api_key.get_secret_value()}"}
        try:
            async with httpx.AsyncClient(timeout=_CONNECT_SECONDS, headers=headers) as client:
                reply = await client.get(url)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise ModelAwayError(f"The model server at {url} does not answer: {reason}") from None
        # Not every OpenAI-compatible server lists its models.
        is_unlisted = self._provider == "openai" and reply.status_code in {404, 405}
        if reply.is_error and not is_unlisted:
            raise ModelAwayError(f"The model server replies {reply.status_code} to {url}")
        if self._provider == "ollama":
            self._check_pulled(reply)

    def _check_pulled(self, reply: httpx.Response) -> None:
        try:
            names = {model["name"] for model in reply.json()["models"]}
        except (ValueError, KeyError, TypeError):
            raise ModelAwayError(f"{reply.url} is not an Ollama server") from None
        if not names & {self._name, f"{self._name}:latest"}:
            raise ModelAwayError(
                f"Ollama does not have {self._name}: `ollama pull {self._name}` fetches it"
            )

    async def write(self, prompt: str) -> Completion:
        """The model's answer to one message.

        Raises:
            ModelAwayError: the server is away or cannot serve anybody now.
            TimeoutError: the answer took longer than LLM_TIMEOUT.
            Exception: what the provider's library raises when it is this prompt's fault.
        """
        # Importing takes a second of work; the event loop has leases to renew.
        if self._chat is None:
            self._chat = await asyncio.to_thread(self._build)
        try:
            async with asyncio.timeout(self._settings.llm_timeout):
                message = await self._chat.ainvoke(prompt)
        except TimeoutError:
            raise
        except Exception as error:
            # The libraries share no exceptions; what they have in common are status codes and
            # the names of connection errors.
            if _is_about_the_server(error):
                raise ModelAwayError(f"The model server is away: {error}") from error
            # A crash of the server looks the same as its refusal of this prompt.
            await self.check()
            raise
        reason = message.response_metadata.get("finish_reason") or message.response_metadata.get(
            "done_reason"
        )
        return Completion(str(message.text), is_cut=reason == "length")

    def _build(self) -> "BaseChatModel":
        # Not init_chat_model: it brings LangGraph along.
        settings = self._settings
        timeout = httpx.Timeout(settings.llm_timeout, connect=_CONNECT_SECONDS)
        if self._provider == "ollama":
            from langchain_ollama import ChatOllama  # noqa: PLC0415

            return ChatOllama(
                model=self._name,
                base_url=settings.ollama_server_url,
                temperature=0,
                num_ctx=settings.llm_context,
                num_predict=settings.llm_max_tokens,
                client_kwargs={"timeout": timeout},
            )
        from langchain_openai import ChatOpenAI  # noqa: PLC0415

        # Its own: the library's default is shared by the whole process and never closed.
        self._connections = httpx.AsyncClient(timeout=timeout)
        return ChatOpenAI(
            model=self._name,
            base_url=settings.openai_base_url,
            api_key=settings.openai_api_key,
            temperature=0,
            max_completion_tokens=settings.llm_max_tokens,
            http_async_client=self._connections,
            timeout=timeout,
            max_retries=0,  # the queue retries
        )


def _is_about_the_server(error: BaseException) -> bool:
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in _ANSWERS_LATER
    causes = (error, error.__cause__, error.__context__)
    return any(
        isinstance(cause, ConnectionError | httpx.ConnectError | httpx.ConnectTimeout)
        for cause in causes
    )
