"""Hostile, broken and huge requests, over a real socket: a 4xx each, never a 500."""

import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api_client import PASSWORD, serving

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def client(nx_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client that is logged in."""
    with (
        serving(nx_url, tmp_path_factory.mktemp("hostile")) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        account = {"email": "ana@uni.test", "username": "ana", "password": PASSWORD}
        client.post("/user", json=account).raise_for_status()
        form = {"username": "ana", "password": PASSWORD}
        token = client.post("/login", data=form).raise_for_status().json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def assert_problem(response: httpx.Response, *statuses: int) -> None:
    assert response.status_code in statuses, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["detail"].endswith(".")


BODIES = {
    "nothing": b"",
    "not JSON": b"{",
    "a word": b"null",
    "a list": b"[]",
    "a text": b'"hola"',
    "no number": b'{"input": NaN}',
    "infinite": b'{"input": 1e999}',
    "huge number": b'{"input": ' + b"9" * 10_000 + b"}",
    "lone surrogate": b'{"input": "\\ud800"}',
    "lone surrogate in a name": b'{"\\ud800": 1}',
    "lone surrogate in UTF-8": b'{"input": "\xed\xa0\x80"}',
    "Latin-1": '{"input": "¿Cuándo?"}'.encode("latin-1"),
    "NUL": b'{"input": "a\\u0000b"}',
    "override": '{"input": "a\u202eb"}'.encode(),
    "deep": b"[" * 60_000,
    "deep and closed": b'{"input": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "blank": b'{"input": " \\n "}',
    "too long": json.dumps({"input": "x" * 4001}).encode(),
    "unknown field": b'{"input": "a", "<script>": 1}',
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("path", ["/user", "/questions", "/auth/forgot-password"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_broken_body_is_a_problem(client: httpx.Client, path: str, body: bytes) -> None:
    assert_problem(client.post(path, content=body, headers=JSON), 400, 422)


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "multipart/form-data",
        "application/json; charset=x",
        "🙂",
        "",
    ],
)
def test_other_content_types_are_no_server_error(client: httpx.Client, content_type: str) -> None:
    headers = [(b"Content-Type", content_type.encode())]
    response = client.post("/questions", content=b'{"input": "a"}', headers=headers)
    assert response.status_code in {202, 400, 422}
    assert_problem(client.post("/login", content=b"username=a", headers=headers), 400, 422)


@pytest.mark.parametrize(
    "form",
    [b"", b"username=ana", b"%ff=%00&&&===", b"username=%ff%fe&password=%ed%a0%80", b"a=1&" * 2000],
)
def test_broken_form_is_a_problem(client: httpx.Client, form: bytes) -> None:
    assert_problem(client.post("/login", content=form, headers=FORM), 400, 401, 422)


def test_uploaded_file_is_no_password(client: httpx.Client) -> None:
    files = {"username": ("a.txt", b"ana"), "password": ("b.txt", b"x")}
    assert_problem(client.post("/login", files=files), 422)


@pytest.mark.parametrize("path", ["/questions", "/login", "/user", "/nowhere"])
def test_ten_megabytes_are_refused_by_their_length(client: httpx.Client, path: str) -> None:
    try:
        response = client.post(path, content=b"x" * 10_000_000, headers=JSON)
    except httpx.WriteError:
        pytest.fail("the reply could not be read")
    assert_problem(response, 413)


def test_ten_megabytes_without_a_length_are_refused_while_they_come(client: httpx.Client) -> None:
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname, address.port), 10) as connection:
        connection.sendall(
            b"POST /user HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
        sent = 0
        connection.settimeout(0.01)
        reply = b""
        while not reply and sent < 10_000_000:
            connection.settimeout(10)
            connection.sendall(chunk)
            sent += 4096
            connection.settimeout(0.01)
            try:
                reply = connection.recv(4096)
            except TimeoutError:
                continue
    assert reply.startswith(b"HTTP/1.1 413")
    assert sent < 1_000_000


def test_question_of_the_largest_size_is_taken(client: httpx.Client) -> None:
    response = client.post("/questions", json={"input": "🙂" * 4000})
    assert response.status_code == 202


def test_unknown_paths_and_methods_are_problems(client: httpx.Client) -> None:
    assert_problem(client.get("/nowhere"), 404)
    assert_problem(client.get("/questions/"), 404)
    assert_problem(client.get("/assets/../../etc/passwd"), 404)
    assert_problem(client.get("/assets/%2e%2e/%2e%2e/consts.py"), 404)
    response = client.put("/questions")
    assert_problem(response, 405)
    assert set(response.headers["allow"].split(", ")) <= {"GET", "POST"}


def test_problem_is_in_spanish_for_who_prefers_it(client: httpx.Client) -> None:
    for language, expected in (("es-ES,es;q=0.9,en;q=0.8", "falta"), ("en,es;q=0.5", "is missing")):
        response = client.post("/user", json={}, headers={"Accept-Language": language})
        assert expected in response.json()["detail"]
        assert response.headers["content-language"] == language[:2]


def test_refused_input_is_not_repeated(client: httpx.Client) -> None:
    response = client.post("/user", json={"email": "x@y", "username": "s3cret", "password": "s3cr"})
    assert response.status_code == 422
    assert "s3cr" not in response.text
    assert {error["field"] for error in response.json()["errors"]} == {"email", "password"}


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/questions", "/nowhere"])
def test_every_reply_has_the_headers_that_protect(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe-inline' 'self'" not in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_after_all_that_the_log_has_no_fault(
    client: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> None:
    logs = [file.read_text() for file in tmp_path_factory.getbasetemp().glob("hostile*/api.log")]
    assert logs
    for log in logs:
        assert "status=500" not in log
        assert "Traceback" not in log
        assert " fault " not in log
