"""Servers that speak Ollama's and OpenAI's protocols as the real ones do, with scripted faults."""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One streamed answer.

    Attributes:
        words: the pieces that are sent one by one; may be endless.
        prompt_tokens: what the server says it read; None says nothing.
        reason: why the model stopped: ``stop``, ``length`` or ``load``.
        pause: seconds before each piece.
        status: an HTTP status other than 200 is sent with ``error`` instead of the words.
    """

    words: Iterable[str] = ("Hecho [1].",)
    prompt_tokens: int | None = None
    reason: str = "stop"
    pause: float = 0.0
    status: int = 200
    error: str = "scripted"


class ModelServer:
    """Gives the queued replies, then ordinary ones; keeps what it was sent.

    Attributes:
        requests: bodies of the chats, with ``path`` and ``headers`` added.
        connections: how many were opened.
        broken: how many answers the client did not hear to the end.
        shown: what /api/show tells about the model.
        listed: what /v1/models lists.
        writer: what it replies to a prompt where nothing is queued.
    """

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.connections = 0
        self.broken = threading.Semaphore(0)
        self.shown: dict[str, Any] = {}
        self.listed: list[dict[str, Any]] = []
        self.writer: Callable[[str], Reply] = lambda _prompt: Reply()
        model_server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                model_server.connections += 1

            def do_GET(self) -> None:
                if self.path == "/api/tags":
                    self._send({"models": [{"name": "mistral:latest"}]})
                elif self.path.partition("?")[0].endswith("/models"):
                    self._send({"object": "list", "data": model_server.listed})
                else:
                    self._send({}, 404)

            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/api/show":
                    self._send({"model_info": model_server.shown})
                elif self.path == "/api/chat" or "/chat/completions" in self.path:
                    content |= {"path": self.path, "headers": dict(self.headers)}
                    model_server.requests.append(content)
                    self._answer(
                        model_server.replies.pop(0)
                        if model_server.replies
                        else model_server.writer(content["messages"][-1]["content"])
                    )
                else:
                    self._send({}, 404)

            def _answer(self, reply: Reply) -> None:
                if reply.status != 200:
                    self._send({"error": reply.error}, reply.status)
                    return
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                is_ollama = self.path == "/api/chat"
                kind = "application/x-ndjson" if is_ollama else "text/event-stream"
                self.send_header("Content-Type", kind)
                self.end_headers()
                lines = _ollama_lines(reply) if is_ollama else _openai_lines(reply)
                try:
                    for line in lines:
                        time.sleep(reply.pause)
                        self._chunk(line)
                    self._chunk("")
                except OSError:
                    self.close_connection = True
                    model_server.broken.release()

            def _chunk(self, line: str) -> None:
                data = line.encode()
                self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
                self.wfile.flush()

            def _send(self, content: dict[str, Any], status: int = 200) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def finish(self) -> None:
                with contextlib.suppress(OSError):
                    super().finish()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # An idle connection that a test leaves open must not keep its thread waited for.
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _ollama_lines(reply: Reply) -> Iterator[str]:
    base = {"model": "mistral", "created_at": "2027-01-01T00:00:00.000000Z"}
    written = 0
    for word in reply.words:
        written += 1
        message = {"role": "assistant", "content": word}
        yield json.dumps({**base, "message": message, "done": False}) + "\n"
    counts = {} if reply.prompt_tokens is None else {"prompt_eval_count": reply.prompt_tokens}
    last = {"done": True, "done_reason": reply.reason, "total_duration": 1, "load_duration": 1}
    message = {"role": "assistant", "content": ""}
    yield json.dumps({**base, "message": message, **last, **counts, "eval_count": written}) + "\n"


def _openai_lines(reply: Reply) -> Iterator[str]:
    base = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "scripted"}
    ends: list[tuple[dict[str, str], str | None]] = [({}, reply.reason)]
    words: Iterable[tuple[dict[str, str], str | None]] = (
        ({"content": word}, None) for word in reply.words
    )
    written = 0
    for delta, reason in itertools.chain(words, ends):
        written += 1
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        yield f"data: {json.dumps({**base, 'choices': [choice]})}\n\n"
    if reply.prompt_tokens is not None:
        usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": written}
        usage["total_tokens"] = reply.prompt_tokens + written
        yield f"data: {json.dumps({**base, 'choices': [], 'usage': usage})}\n\n"
    yield "data: [DONE]\n\n"
