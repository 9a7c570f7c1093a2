"""How Ollama is asked, on a server that speaks its protocol."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from core.settings import Settings
from rag_worker.models import LanguageModel, ModelAwayError
from tests import servers


class OllamaServer:
    """Has one model and answers every chat with the same words; keeps the requests."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[dict[str, Any]] = []
        ollama = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send({"models": [{"name": "mistral:latest"}]})

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                ollama.requests.append(json.loads(self.rfile.read(length)))
                if ollama.status != 200:
                    self._send({"error": "scripted"}, ollama.status)
                    return
                message = {"role": "assistant", "content": "Hecho [1]."}
                self._send(
                    {"model": "mistral", "message": message, "done": True, "done_reason": "length"}
                )

            def _send(self, content: dict[str, Any], status: int = 200) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def ollama() -> Iterator[OllamaServer]:
    server = OllamaServer()
    yield server
    server.stop()


def settings(url: str, model: str = "ollama:mistral") -> Settings:
    return Settings(ollama_server_url=url, llm_model=model, llm_context=2048, llm_max_tokens=100)


async def test_prompt_is_one_message_and_the_window_is_set(ollama: OllamaServer) -> None:
    model = LanguageModel(settings(ollama.url))
    await model.check()
    completion = await model.write("¿Qué?")
    assert (completion.text, completion.is_cut) == ("Hecho [1].", True)
    request = ollama.requests[0]
    assert [message["content"] for message in request["messages"]] == ["¿Qué?"]
    assert request["options"]["num_ctx"] == 2048
    assert request["options"]["num_predict"] == 100
    assert request["options"]["temperature"] == 0


async def test_missing_model_names_the_pull_that_fetches_it(ollama: OllamaServer) -> None:
    with pytest.raises(ModelAwayError, match="`ollama pull qwen` fetches it"):
        await LanguageModel(settings(ollama.url, "ollama:qwen")).check()


@pytest.mark.parametrize("status", [404, 503])
async def test_server_that_cannot_serve_anybody_is_away(ollama: OllamaServer, status: int) -> None:
    ollama.status = status
    with pytest.raises(ModelAwayError):
        await LanguageModel(settings(ollama.url)).write("¿Qué?")


async def test_server_that_fails_on_one_prompt_is_not_away(ollama: OllamaServer) -> None:
    ollama.status = 500
    with pytest.raises(Exception, match="scripted") as raised:
        await LanguageModel(settings(ollama.url)).write("¿Qué?")
    assert not isinstance(raised.value, ModelAwayError)


@pytest.mark.parametrize("model", ["ollama:mistral", "openai:mistral"])
async def test_refused_connection_is_away(model: str) -> None:
    url = f"http://127.0.0.1:{servers.free_port()}"
    config = Settings(ollama_server_url=url, openai_base_url=url, llm_model=model)
    with pytest.raises(ModelAwayError):
        await LanguageModel(config).check()
    with pytest.raises(ModelAwayError):
        await LanguageModel(config).write("¿Qué?")
