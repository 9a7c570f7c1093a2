"""The language model: any LangChain chat model, asked so that a bad answer is noticed."""

import asyncio
import contextlib
import importlib
import os.path
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import httpx
import structlog

from core.settings import LLM_PROVIDERS, Settings
from rag_worker.prompt import TokenEstimate, estimate_tokens

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk

_CONNECT_SECONDS = 5.0
_COUNT_SECONDS = 10.0
"""A server that is busy with another answer may count only after it."""
_ANSWERS_LATER = {401, 403, 404, 408, 429, 502, 503, 504}
"""Replies of a server that is starting, overloaded or wrongly configured."""
_TOO_LONG = re.compile(
    r"exceed_context_size|context[_ ](length|size|window)|(prompt|input) is too long",
    re.IGNORECASE,
)
_COUNT_ROUTES = {"/extras/tokenize/count": ("input",), "/tokenize": ("content", "prompt")}
"""Where servers count tokens and what they call the text: llama.cpp's Python server; llama.cpp's
own and vLLM."""
_LEAST_SHARE_OF_WORDS = 0.75
"""Tokens per word that every model reaches: those that join words save a third at most."""
_NO_CHUNKS = "No generation chunks were returned"
"""What LangChain says of a stream that ends before it begins."""
_REMEMBERED_PROMPTS = 8
_AGAIN = {"temperature": 0.3, "seed": 1, "repeat_penalty": 1.2, "frequency_penalty": 0.5}
"""What differs in the second attempt, as far as the model's class has such settings."""
_LONGEST_LOOP = 400
_THOUGHTS = re.compile(r"<(think|thinking)>.*?(?:</\1>|\Z)", re.DOTALL)
_WHOLE_SENTENCE = re.compile(r"\w[^.!?…]*[.!?…](?:\s|$)")

log = structlog.get_logger()


class ModelAwayError(Exception):
    """No model answers, whatever the question; the message says what to do."""


class PromptTruncatedError(Exception):
    """The prompt did not fit the model's window: the server cut it, or refused it.

    What a model says about a prompt whose beginning it never saw must not be sent.
    """


class ModelFailedError(Exception):
    """The server is there, but fails at this prompt, twice."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote.

    Attributes:
        text: without the thoughts of a reasoning model; empty when two attempts gave nothing that
            can be used, because they were empty or repeated themselves.
        is_cut: the text may end within a sentence, at LLM_MAX_TOKENS or LLM_TIMEOUT.
        prompt_tokens, completion_tokens: as the model's server counts them, of the last attempt;
            None where it does not say.
        seconds: of all attempts.
    """

    text: str
    is_cut: bool
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class _Draft:
    """What one attempt has written so far, and why it was stopped, if it was."""

    text: str = ""
    chunks: int = 0
    reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    stopped: Literal["repeats", "length", "time"] | None = None

    def add(self, chunk: "AIMessageChunk") -> None:
        text = str(chunk.text)
        self.text += text
        self.chunks += bool(text)
        metadata = chunk.response_metadata
        self.reason = metadata.get("finish_reason") or metadata.get("done_reason") or self.reason
        if usage := chunk.usage_metadata:
            self.prompt_tokens = usage["input_tokens"] or None
            self.completion_tokens = usage["output_tokens"]

    @property
    def is_cut(self) -> bool:
        return self.stopped is not None or self.reason == "length"

    @property
    def is_usable(self) -> bool:
        text = without_thoughts(self.text)
        if self.stopped == "repeats":
            return False
        return bool(_WHOLE_SENTENCE.search(text) if self.is_cut else re.search(r"\w", text))


class LanguageModel:
    """The model that LLM_MODEL names. Its library is imported on first use: it takes 60 MB."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._provider, _, self._name = settings.llm_model.partition(":")
        self._estimate = TokenEstimate()
        self._chat: BaseChatModel | None = None
        self._building = asyncio.Lock()
        self._connections: httpx.AsyncClient | None = None
        self._window: int | None
        self._count_routes: tuple[str, ...]
        self._forget_server()
        self._sent: deque[str] = deque(maxlen=_REMEMBERED_PROMPTS)
        self._misses_counts = False

    async def close(self) -> None:
        """Close the connections that are kept open between questions."""
        if self._connections is not None:
            await self._connections.aclose()
        if self._provider == "ollama" and self._chat is not None:
            # The library has no public way.
            await self._chat._async_client.close()  # type: ignore[attr-defined]

    async def check(self) -> None:
        """Return when the server answers and has the model.

        Of a provider that is neither Ollama nor speaks OpenAI's protocol, only the library is
        looked for.

        Raises:
            ModelAwayError: it does not.
        """
        self._forget_server()
        settings = self._settings
        if self._provider == "ollama":
            url = f"{settings.ollama_server_url}/api/tags"
        elif self._provider == "openai":
            url = f"{settings.openai_base_url}/models"
        elif self._provider == "azure_openai":
            version = settings.openai_api_version
            url = f"{settings.azure_openai_endpoint}/openai/models?api-version={version}"
        else:
            await asyncio.to_thread(self._class)
            return
        try:
            async with self._connection() as client:
                reply = await client.get(url)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise ModelAwayError(f"The model server at {url} does not answer: {reason}") from None
        # Not every OpenAI-compatible server lists its models.
        is_unlisted = self._provider != "ollama" and reply.status_code in {404, 405}
        if reply.is_error and not is_unlisted:
            raise ModelAwayError(f"The model server replies {reply.status_code} to {url}")
        if self._provider == "ollama":
            self._check_pulled(reply)

    def _forget_server(self) -> None:
        # The next one at its address may be another.
        self._window = None
        self._counts_all = self._provider != "ollama"
        self._count_routes = tuple(_COUNT_ROUTES) if self._provider == "openai" else ()

    def _check_pulled(self, reply: httpx.Response) -> None:
        try:
            names = {model["name"] for model in reply.json()["models"]}
        except (ValueError, KeyError, TypeError):
            raise ModelAwayError(f"{reply.url} is not an Ollama server") from None
        if not names & {self._name, f"{self._name}:latest"}:
            raise ModelAwayError(
                f"Ollama does not have {self._name}: `ollama pull {self._name}` fetches it"
            )

    async def context(self) -> int:
        """Tokens to plan for, prompt and answer together: LLM_CONTEXT, or the model's own window
        where the server says that it is smaller."""
        if self._window is None:
            try:
                limits = [limit async for limit in self._server_limits()]
            except (httpx.HTTPError, httpx.InvalidURL):
                return self._settings.llm_context
            self._window = min(
                [self._settings.llm_context, *(limit for limit in limits if limit > 0)]
            )
            if self._window < self._settings.llm_context:
                log.warning("context_is_smaller", tokens=self._window, model=self._name)
        return self._window

    async def _server_limits(self) -> AsyncIterator[int]:
        async with self._connection() as client:
            if self._provider == "ollama":
                url = f"{self._settings.ollama_server_url}/api/show"
                reply = _json(await client.post(url, json={"model": self._name}))
                for name, value in _dict(reply.get("model_info")).items():
                    if name.endswith(".context_length") and isinstance(value, int):
                        yield value
            elif self._provider == "openai":
                base = str(self._settings.openai_base_url)
                listed = _json(await client.get(f"{base}/models")).get("data")
                models = [_dict(model) for model in listed] if isinstance(listed, list) else []
                named = [model for model in models if model.get("id") == self._name]
                # llama.cpp answers to any name.
                model = (named or models[:1] or [{}])[0]
                meta = _dict(model.get("meta"))
                props = _json(await client.get(f"{base.removesuffix('/v1')}/props"))
                of_slot = _dict(props.get("default_generation_settings"))
                values = (
                    *(model.get("max_model_len"), meta.get("n_ctx"), meta.get("n_ctx_train")),
                    of_slot.get("n_ctx"),
                )
                for value in values:
                    if isinstance(value, int):
                        yield value

    async def count_tokens(self, text: str) -> int:
        """The tokens of ``text``: exact where the server counts, else at least as many as it has.

        The markers that a chat template adds are not among them.
        """
        exact = await self._server_count(text)
        if exact is None:
            return self._estimate(text)
        self._estimate.learn(text, exact)
        return exact

    def estimate_tokens(self, text: str) -> int:
        """At least as many tokens as ``text`` has, without asking: from the counts seen so far."""
        return self._estimate(text)

    async def _server_count(self, text: str) -> int | None:
        root = str(self._settings.openai_base_url).removesuffix("/v1")
        for route in self._count_routes:
            content = {"model": self._name} | dict.fromkeys(_COUNT_ROUTES[route], text)
            try:
                reply = await self._kept_connection().post(
                    f"{root}{route}", json=content, headers=self._headers(), timeout=_COUNT_SECONDS
                )
            except httpx.HTTPError:
                return None
            counted = _json(reply)
            tokens = counted.get("tokens")
            count = counted.get("count", len(tokens) if isinstance(tokens, list) else None)
            if isinstance(count, int):
                self._count_routes = (route,)
                return count
            if reply.status_code not in {404, 405, 501}:
                return None
        self._count_routes = ()
        return None

    async def write(self, prompt: str) -> Completion:
        """The model's answer to one message.

        An answer that fails, is empty or repeats itself is asked for once more, a little
        differently.
        Both attempts together may take LLM_TIMEOUT; whole sentences written until then count.

        Raises:
            ModelAwayError: the server is away or cannot serve anybody now.
            PromptTruncatedError: the prompt is longer than the model's window.
            TimeoutError: no sentence within LLM_TIMEOUT.
            ModelFailedError: the server fails at this prompt.
        """
        window = await self.context()
        chat = await self._built(window)
        exact = await self._server_count(prompt)
        if exact is not None and exact >= window:
            raise PromptTruncatedError(f"{exact} tokens do not fit the window of {window}")
        # The server's count comes last: of an answer that we stop, our own has to do.
        surely_fits = (exact or estimate_tokens(prompt)) < window
        began = time.monotonic()
        deadline = asyncio.get_running_loop().time() + self._settings.llm_timeout
        for is_first in (True, False):
            try:
                draft = await self._attempt(chat if is_first else _varied(chat), prompt, deadline)
            except ModelFailedError as error:
                if not is_first:
                    raise
                log.warning("answer_unusable", reason=str(error), model=self._name)
                continue
            self._check_count(prompt, draft, window)
            is_usable = draft.is_usable and (draft.stopped is None or surely_fits)
            if is_usable:
                break
            if is_first and draft.stopped == "time":
                raise TimeoutError
            log.warning("answer_unusable", reason=draft.stopped or "empty", model=self._name)
        seconds = time.monotonic() - began
        if draft.completion_tokens is None:
            draft.completion_tokens = await self._server_count(draft.text)
        return Completion(
            without_thoughts(draft.text) if is_usable else "",
            is_cut=draft.is_cut,
            prompt_tokens=draft.prompt_tokens or exact,
            completion_tokens=draft.completion_tokens,
            seconds=seconds,
        )

    async def _attempt(self, chat: "BaseChatModel", prompt: str, deadline: float) -> _Draft:
        draft = _Draft()
        try:
            async with (
                asyncio.timeout_at(deadline) as limit,
                contextlib.aclosing(chat.astream(prompt)) as stream,  # type: ignore[type-var]
            ):
                async for chunk in stream:
                    if draft.stopped is None:
                        draft.add(chunk)
                        draft.stopped = self._reason_to_stop(draft)
                        if draft.stopped:
                            # A cancelled read closes the connection, and with it ends the
                            # server's work; leaving the loop would do so at some later time.
                            limit.reschedule(asyncio.get_running_loop().time())
        except TimeoutError:
            draft.stopped = draft.stopped or "time"
        except Exception as error:
            if isinstance(error, ValueError) and _NO_CHUNKS in str(error):
                return draft
            # The libraries share no exceptions; what they have in common are status codes, the
            # names of connection errors, and what they say of a prompt that is too long.
            if _is_about_the_server(error):
                # It may tell what mends it, such as fetching a model that was removed.
                await self.check()
                raise ModelAwayError(f"The model server is away: {error}") from error
            if _TOO_LONG.search(str(error)):
                raise PromptTruncatedError(
                    f"The model server refuses the prompt: {error}"
                ) from error
            # A crash of the server looks the same as its refusal of this prompt.
            await self.check()
            raise ModelFailedError(f"{type(error).__name__}: {error}"[:500]) from error
        return draft

    def _reason_to_stop(self, draft: _Draft) -> Literal["repeats", "length"] | None:
        if is_repeating(draft.text):
            return "repeats"
        # Servers that do not know the limit by the name we send. A chunk has a token or more, but
        # for servers that send single letters.
        most = self._settings.llm_max_tokens
        is_long = draft.chunks > most and estimate_tokens(draft.text) > most
        return "length" if is_long or len(draft.text) > 20 * most else None

    def _check_count(self, prompt: str, draft: _Draft, window: int) -> None:
        """Compare what the server says it read with what was sent.

        Ollama may leave out what it had in its cache: the part that other recent prompts began
        with is not asked of it, until it has counted such a part.
        """
        shared = (os.path.commonprefix((prompt, sent)) for sent in self._sent)  # noqa: RUF071
        begins = 0 if self._counts_all else max(map(len, shared), default=0)
        self._sent.append(prompt)
        count = draft.prompt_tokens
        if count is None:
            if draft.stopped is None and not self._misses_counts:
                self._misses_counts = True
                log.info("prompt_tokens_not_counted", model=self._name)
            return
        words = _count_words(prompt[begins:])
        if count >= window or count + (draft.completion_tokens or 0) > window:
            raise PromptTruncatedError(
                f"the server read {count} tokens of a prompt that fills the window of {window}"
            )
        if count < _LEAST_SHARE_OF_WORDS * words:
            raise PromptTruncatedError(
                f"the server read {count} tokens of a prompt of more than {words} words"
            )
        if begins > len(prompt) / 2 and count >= _LEAST_SHARE_OF_WORDS * _count_words(prompt):
            self._counts_all = True
        self._estimate.learn(prompt, count)

    async def _built(self, window: int) -> "BaseChatModel":
        async with self._building:
            if self._chat is None:
                # Importing takes a second of work; the event loop has leases to renew.
                self._chat = await asyncio.to_thread(self._build, window)
        return self._chat

    def _build(self, window: int) -> "BaseChatModel":
        # Not init_chat_model: it brings LangGraph along.
        settings = self._settings
        timeout = httpx.Timeout(settings.llm_timeout, connect=_CONNECT_SECONDS)
        options: dict[str, Any] = {
            "model": self._name,
            "temperature": settings.llm_temperature,
            "timeout": timeout,
            "max_retries": 0,  # the queue retries
        }
        if self._provider == "ollama":
            options |= {
                "base_url": settings.ollama_server_url,
                "num_ctx": window,
                "num_predict": settings.llm_max_tokens,
                "keep_alive": _keep_alive(settings.llm_keep_alive),
                "reasoning": False,  # minutes on a CPU; for others than reasoning models no change
                "client_kwargs": {"timeout": timeout},
            }
        elif self._provider in {"openai", "azure_openai"}:
            options |= {
                "http_async_client": self._kept_connection(),
                "stream_usage": True,
                # Its two minutes are too few for a CPU to read a prompt.
                "stream_chunk_timeout": None,
            }
            if self._provider == "openai":
                options |= {
                    "base_url": settings.openai_base_url,
                    "api_key": settings.openai_api_key,
                    # The library has only the new name, which servers other than OpenAI's ignore.
                    "extra_body": {"max_tokens": settings.llm_max_tokens},
                }
            if self._provider == "azure_openai" or _is_openai(settings.openai_base_url):
                options |= {"max_completion_tokens": settings.llm_max_tokens, "extra_body": None}
            if self._provider == "azure_openai":
                options |= {
                    "azure_deployment": self._name,
                    "azure_endpoint": settings.azure_openai_endpoint,
                    "api_key": settings.azure_openai_api_key,
                    "api_version": settings.openai_api_version,
                }
        else:
            options |= {"max_tokens": settings.llm_max_tokens, "timeout": settings.llm_timeout}
        chat_class = self._class()
        fields = chat_class.model_fields
        known = fields.keys() | {field.alias for field in fields.values()}
        return chat_class(**{name: value for name, value in options.items() if name in known})

    def _class(self) -> "type[BaseChatModel]":
        module, _, name = LLM_PROVIDERS[self._provider].partition(":")
        try:
            chat_class: type[BaseChatModel] = getattr(importlib.import_module(module), name)
        except ImportError as error:
            package = module.partition(".")[0].replace("_", "-")
            raise ModelAwayError(
                f"LLM_MODEL={self._settings.llm_model} needs a library: `pip install {package}` "
                f"({error})"
            ) from None
        return chat_class

    def _headers(self) -> dict[str, str]:
        settings = self._settings
        if self._provider == "azure_openai" and settings.azure_openai_api_key:
            return {"api-key": settings.azure_openai_api_key.get_secret_value()}
        if self._provider == "openai":
            return {"Authorization": f"Bearer {settings.openai_api_key.get_secret_value()}"}
        return {}

    def _connection(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=_CONNECT_SECONDS, headers=self._headers())

    def _kept_connection(self) -> httpx.AsyncClient:
        # Our own: the library's default is shared by the whole process and never closed.
        if self._connections is None:
            timeout = httpx.Timeout(self._settings.llm_timeout, connect=_CONNECT_SECONDS)
            self._connections = httpx.AsyncClient(timeout=timeout)
        return self._connections


def without_thoughts(text: str) -> str:
    """``text`` without what a reasoning model thought first, also where the mark that begins it
    stands in the chat template, or the one that ends it is still to come."""
    text = _THOUGHTS.sub("", text)
    return re.split(r"</think(?:ing)?>", text)[-1].strip()


def is_repeating(text: str) -> bool:
    """Whether ``text`` ends in a loop: the same words, lines or signs over and over.

    Three times the same when it is long, more often when it is short: the rule of a table, dots,
    or rows that differ in a digit are no loop.
    """
    tail = text[-4 * _LONGEST_LOOP :]
    for length in range(1, min(_LONGEST_LOOP, len(tail) // 3) + 1):
        unit = tail[-length:]
        times = max(3, -(-160 // length)) if re.search(r"\w", unit) else max(3, -(-400 // length))
        if tail.endswith(unit * times):
            return True
    return False


def _count_words(text: str) -> int:
    return sum(any(map(str.isalnum, word)) for word in text.split())


def _varied(chat: "BaseChatModel") -> "BaseChatModel":
    fields = type(chat).model_fields
    return chat.model_copy(update={name: _AGAIN[name] for name in _AGAIN if name in fields})


def _keep_alive(setting: str) -> int | str:
    # Ollama takes a number of seconds, or text with units.
    return setting if setting[-1].isalpha() else int(setting)


def _is_openai(url: str | None) -> bool:
    return httpx.URL(url or "").host == "api.openai.com"


def _is_about_the_server(error: BaseException) -> bool:
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in _ANSWERS_LATER
    causes = (error, error.__cause__, error.__context__)
    return any(
        isinstance(cause, ConnectionError | httpx.ConnectError | httpx.ConnectTimeout)
        for cause in causes
    )


def _json(reply: httpx.Response) -> dict[str, Any]:
    """The object in a successful reply; empty for anything else."""
    try:
        return _dict(reply.json()) if reply.is_success else {}
    except ValueError:
        return {}


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
