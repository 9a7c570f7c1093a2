"""A model server that quotes its first passage, after as long as it is told to take."""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no error here."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class ScriptedModel:
    """Speaks OpenAI's chat protocol.

    Attributes:
        seconds: how long each answer took.
    """

    def __init__(self, wait: Callable[[str], None] = lambda _: None) -> None:
        """``wait`` is called with each prompt, and returns when its answer is to be sent."""
        self.seconds: list[float] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._reply(200, "application/json", '{"object": "list", "data": []}')

            def do_POST(self) -> None:
                started = time.perf_counter()
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self.path.endswith("/chat/completions"):
                    self._reply(404, "application/json", "{}")
                    return
                wait(request["messages"][-1]["content"])
                content = _reply(request["messages"])
                choice = {"index": 0, "delta": {"content": content}, "finish_reason": "stop"}
                chunk = {
                    "id": "1",
                    "object": "chat.completion.chunk",
                    "created": 0,
                    "model": "scripted",
                    "choices": [choice],
                }
                stream = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
                with contextlib.suppress(OSError):  # Who asked was killed meanwhile.
                    self._reply(200, "text/event-stream", stream)
                model.seconds.append(time.perf_counter() - started)

            def _reply(self, status: int, kind: str, text: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve in a thread of this process."""
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def _reply(messages: Sequence[dict[str, str]]) -> str:
    """A sentence of the first passage, which the check of citations lets through."""
    _, _, passages = messages[-1]["content"].partition('<passage number="1"')
    passage = passages.partition("</passage>")[0]
    lines = [line.strip() for line in passage.splitlines()[1:] if len(line.split()) > 5]
    return f"{lines[-1].rstrip('.')} [1]." if lines else "NOT IN THE DOCUMENTS"
