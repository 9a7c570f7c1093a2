"""Hostile connections, over real sockets: slow, huge, compressed, from elsewhere, or no HTTP."""

import gzip
import json
import re
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from api.connection import HEAD_LIMIT, REPLY_SECONDS, REQUEST_SECONDS
from api.middleware import BODY_LIMIT, PROTECTION
from tests import servers
from tests.api_client import PASSWORD, api_process, running_app, settings_for
from tests.journeys.department import eventually

SLOW = {
    "says nothing": b"",
    "half a line": b"GET / HT",
    "half the headers": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b",
    "half a body": b"POST /user HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
    "half a chunk": b"POST /user HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
    "line ends": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n",
}
"""What the slow ones send before they go on with a byte a second, or stop."""


class Served:
    """An API process: where it is, its log, what it takes."""

    def __init__(self, port: int, pid: int, log: Path) -> None:
        self.address = ("127.0.0.1", port)
        self.process = psutil.Process(pid)
        self.log = log
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, 10)

    def exchange(self, sent: bytes) -> bytes:
        """All that comes back until the server closes; None is left open."""
        with self.connect() as connection:
            connection.sendall(sent)
            return b"".join(iter(lambda: connection.recv(65_536), b""))

    def connections(self) -> int:
        return len(self.process.net_connections("tcp"))


@pytest.fixture(scope="module")
def api(nx_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("network")
    port, log = servers.free_port(), folder / "api.log"
    command, environment = api_process(nx_url, folder, port)
    with servers.running(command, log, environment=environment) as process:
        servers.wait_for_port(port, process, log)
        served = Served(port, process.pid, log)
        with served.client:
            yield served


def status_of(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1]) if reply else 0


def assert_protected(reply: bytes) -> None:
    head = reply.partition(b"\r\n\r\n")[0].decode("latin-1").lower()
    for name, value in PROTECTION.items():
        assert f"{name}: {value}".lower() in head, reply[:400]


def test_slow_clients_stop_nobody_and_are_let_go(api: Served) -> None:
    """More than 500 at once, of every kind; the last ones send a byte a second for ever."""
    before = api.connections()
    memory = api.process.memory_info().rss
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        slow = []
        for number in range(510):
            connection = stack.enter_context(api.connect())
            connection.sendall(list(SLOW.values())[number % len(SLOW)])
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ)
            slow.append(connection)
        for _ in range(20):
            # They ask for the largest reply there is, and read nothing of it.
            reader = stack.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(api.address)
            asked = b"GET /assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n"
            reader.sendall(asked * 8)
        opened = time.monotonic()
        waits, last, closed = [], 0.0, 0
        replies: dict[object, bytes] = dict.fromkeys(slow, b"")
        while closed < len(slow) and time.monotonic() < opened + REQUEST_SECONDS + 10:
            if time.monotonic() > last + 1:
                last = time.monotonic()
                for connection in slow[::2]:
                    with suppress(OSError):
                        connection.send(b"x")
                began = time.monotonic()
                assert api.client.get("/health/live").status_code == 200
                waits.append(time.monotonic() - began)
            for key, _ in selector.select(0.2):
                with suppress(OSError):
                    if received := key.fileobj.recv(65_536):  # type: ignore[union-attr]
                        replies[key.fileobj] += received
                        continue
                selector.unregister(key.fileobj)
                closed += 1
        assert closed == len(slow)
        assert sorted(waits)[len(waits) // 2] < 0.5, waits
        told = [reply for reply in replies.values() if status_of(reply) == 408]
        assert len(told) > len(slow) / 4
        for reply in told:
            assert_protected(reply)
        eventually(lambda: api.connections() <= before + 2, REPLY_SECONDS, "The readers' end")
    assert api.process.memory_info().rss < memory + 60 * 2**20


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 1_000_000,
        b"GET /" + b"a" * 1_000_000,
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(100_000)),
        b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * HEAD_LIMIT + b"\r\n\r\n",
        b"GET /?" + b"a" * HEAD_LIMIT + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /user HTTP/1.1\r\nHost: a\r\nCookie: " + b"a" * HEAD_LIMIT + b"\r\n\r\n{}",
    ],
    ids=["endless value", "endless address", "many", "large value", "large address", "cookie"],
)
def test_headers_are_bounded(api: Served, head: bytes) -> None:
    memory = api.process.memory_info().rss
    with api.connect() as connection:
        try:
            connection.sendall(head)
            reply = connection.recv(65_536)
        except ConnectionError:
            reply = b""  # It was closed while we were still sending.
    assert status_of(reply) in {431, 0}
    if reply:
        assert_protected(reply)
    assert api.process.memory_info().rss < memory + 20 * 2**20


def test_the_longest_headers_that_browsers_send_are_taken(api: Served) -> None:
    reply = api.client.get("/", headers={"Cookie": "a" * 8_000, "Authorization": "b" * 8_000})
    assert reply.status_code == 200


GARBAGE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "SMTP": b"EHLO a\r\n\r\n",
    "invented method": b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT": b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2"
    b"\r\n\r\nab",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /docs HTTP/1.1\r\nHost: a\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "endless length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "bare line feed": b"GET / HTTP/1.1\nHost: a\nX: b\r\r\n\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n\x00",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
    "chunk of no number": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_http_is_refused_with_the_headers_that_protect(
    api: Served, garbage: bytes
) -> None:
    reply = api.exchange(garbage)
    assert 400 <= status_of(reply) < 500
    assert len(re.findall(rb"HTTP/1.1 \d", reply)) == 1, "a second request was smuggled"
    assert_protected(reply)
    assert b"application/problem+json" in reply


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "PATCH", "PROPFIND", "HEAD", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/docs", "/questions", "/login"])
def test_odd_methods_do_nothing(api: Served, method: str, path: str) -> None:
    assert api.client.request(method, path).status_code == (
        200 if (method, path) == ("HEAD", "/") else 405
    )


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../../../../etc/passwd",
        "/assets/..%2f..%2f..%2fetc/passwd",
        "/assets/%2e%2e/%2e%2e/consts.py",
        "/assets/..%5c..%5cconsts.py",
        "/assets//etc/passwd",
        "/assets/%00",
        "/assets/swagger-ui.css%00.html",
        "/assets/.",
        "/assets/" + "a" * 5_000,
        "//evil.test/docs",
        "/feedback/..%2f..%2fquestions",
    ],
)
def test_no_path_leads_out(api: Served, path: str) -> None:
    reply = api.exchange(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert status_of(reply) == 404
    assert_protected(reply)
    assert b"root:" not in reply
    assert b"\r\nlocation:" not in reply.lower()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-gzip", "gzip, gzip"])
@pytest.mark.parametrize("path", ["/user", "/login", "/questions", "/nowhere"])
def test_compressed_bodies_are_refused_unread(api: Served, path: str, encoding: str) -> None:
    bomb = gzip.compress(b'{"input": "' + b" " * 20_000_000 + b'"}')
    assert len(bomb) < BODY_LIMIT
    reply = api.client.post(path, content=bomb, headers={"Content-Encoding": encoding})
    assert reply.status_code == 415
    assert "Content-Encoding" in reply.json()["detail"]


def test_deep_json_ends_in_a_refusal(api: Served) -> None:
    deep = b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for body in (deep, deep[:BODY_LIMIT], b'{"a":' * 10_000 + b"1" + b"}" * 10_000):
        reply = api.client.post("/user", content=body, headers={"Content-Type": "application/json"})
        assert reply.status_code in {400, 413, 422}


def multipart(parts: int, disposition: str) -> bytes:
    lines = (
        f'--X\r\nContent-Disposition: form-data; name="{disposition.format(n)}"\r\n\r\nx\r\n'
        for n in range(parts)
    )
    return "".join(lines).encode() + b"--X--\r\n"


@pytest.mark.parametrize(
    ("body", "boundary"),
    [
        (multipart(900, "f{}"), "X"),
        (multipart(700, 'f{}"; filename="../../a'), "X"),
        (multipart(900, "username"), "X"),
        (b"--X\r\n" + b"A: b\r\n" * 10_000, "X"),
        (b'--X\r\nContent-Disposition: form-data; name="' + b"a" * 60_000, "X"),
        (b"--X" * 20_000, "X"),
        (b"\r\n--" * 10_000, ""),
        (b"x" * 60_000, "y" * 20_000),
    ],
    ids=["fields", "files", "one name", "part headers", "name", "marks", "empty", "long boundary"],
)
def test_multipart_abuse_of_the_login_is_cheap(api: Served, body: bytes, boundary: str) -> None:
    began = time.monotonic()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    reply = api.client.post("/login", content=body, headers=kind)
    assert 400 <= reply.status_code < 500
    assert time.monotonic() - began < 2


def test_form_with_thousands_of_fields_is_refused(api: Served) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"a=1&" * 16_000, b"username=a&" * 5_000, b"%00" * 20_000):
        assert api.client.post("/login", content=body, headers=kind).status_code in {400, 401, 422}


ORIGIN = "https://campus.uni.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization",
}


async def test_other_pages_may_call_the_api_only_where_they_are_configured(
    nx_url: str, database_name: str, tmp_path: Path
) -> None:
    settings = settings_for(nx_url, database_name, tmp_path)
    async with running_app(settings) as client:
        for reply in (
            await client.get("/", headers={"Origin": ORIGIN}),
            await client.options("/questions", headers=PREFLIGHT),
        ):
            assert not [name for name in reply.headers if name.startswith("access-control")]
    settings = settings_for(nx_url, database_name, tmp_path, cors_origins=ORIGIN)
    async with running_app(settings) as client:
        allowed = await client.options("/questions", headers=PREFLIGHT)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in allowed.headers
        assert "frame-ancestors 'none'" in allowed.headers["content-security-policy"]
        for origin in (
            "https://evil.test",
            f"{ORIGIN}.evil.test",
            "null",
            "http://campus.uni.example",
        ):
            reply = await client.options("/questions", headers={**PREFLIGHT, "Origin": origin})
            assert "access-control-allow-origin" not in reply.headers
        refused = await client.get("/questions", headers={"Origin": ORIGIN})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (
            401,
            ORIGIN,
        )


@pytest.mark.parametrize("proxies", [["127.0.0.1"], []])
async def test_browsers_stay_with_https_where_a_trusted_proxy_says_that_they_came_by_it(
    nx_url: str, database_name: str, tmp_path: Path, proxies: list[str]
) -> None:
    settings = settings_for(nx_url, database_name, tmp_path, trusted_proxies=proxies)
    async with running_app(settings) as client:
        secure = await client.get("/", headers={"X-Forwarded-Proto": "https"})
        plain = await client.get("/")
    assert ("strict-transport-security" in secure.headers) == bool(proxies)
    assert "strict-transport-security" not in plain.headers


def test_after_all_that_it_works_and_the_log_has_no_fault(api: Served) -> None:
    account = {"email": "ana@uni.test", "username": "ana", "password": PASSWORD}
    assert api.client.post("/user", json=account).status_code == 201
    log = api.log.read_text()
    assert "status=500" not in log
    assert " fault " not in log
    assert "Traceback" not in log
    assert not [line for line in log.splitlines() if not line.startswith(("20", "    | "))]
    assert json.loads(api.client.get("/").text)
