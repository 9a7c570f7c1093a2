"""The mailbox catcher: a real SMTP server whose e-mails a page shows."""

import mailbox
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

import httpx
import psutil
import pytest

from tests import servers

RUN = "import sys, pathlib; from consulta.mailbox import run; "
RUN += "run(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))"


@dataclass
class Catcher:
    process: subprocess.Popen[bytes]
    folder: Path
    smtp_port: int
    http: httpx.Client

    def send(self, data: bytes | EmailMessage, *recipients: str) -> None:
        content = data if isinstance(data, bytes) else data.as_bytes()
        with smtplib.SMTP("127.0.0.1", self.smtp_port, timeout=10) as client:
            client.sendmail("consultas@uni.example", recipients or ("ana@uni.example",), content)

    def keys(self, recipient: str = "") -> list[str]:
        entries = self.http.get("/messages.json", params={"to": recipient}).json()
        return [entry["key"] for entry in entries]


@pytest.fixture
def catcher(tmp_path: Path) -> Iterator[Catcher]:
    smtp_port, http_port = servers.free_port(), servers.free_port()
    folder = tmp_path / "data" / "mail"
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        RUN,
        str(folder),
        str(smtp_port),
        str(http_port),
    ]
    log = tmp_path / "log"
    with servers.running(command, log) as process:
        servers.wait_for_port(smtp_port, process, log)
        servers.wait_for_port(http_port, process, log)
        with httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=10) as http:
            yield Catcher(process, folder, smtp_port, http)


def answer(subject: str = "Respuesta") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Electrónica <consultas@uni.example>"
    message["To"] = "ana@uni.example"
    message["Subject"] = subject
    message.set_content("texto llano")
    message.add_alternative('<p>texto rico</p><img src="cid:logo">', subtype="html")
    html = message.get_payload(1)
    assert isinstance(html, EmailMessage)
    html.add_related(b"\x89PNG", "image", "png", cid="<logo>")
    return message


def test_mails_are_listed_newest_first_and_by_recipient(catcher: Catcher) -> None:
    for number in range(3):
        catcher.send(answer(f"Respuesta {number}"), f"s{number}@uni.example", "all@uni.example")
    entries = catcher.http.get("/messages.json").json()
    assert [entry["subject"] for entry in entries] == ["Respuesta 2", "Respuesta 1", "Respuesta 0"]
    assert entries[0]["recipients"] == "s2@uni.example, all@uni.example"
    assert entries[0]["sender"] == "Electrónica <consultas@uni.example>"
    assert len(catcher.keys("S1@UNI")) == 1
    assert len(catcher.keys("all@")) == 3
    assert catcher.keys("nobody") == []
    page = catcher.http.get("/").text
    assert page.index("Respuesta 2") < page.index("Respuesta 0")
    assert "Respuesta 0" not in catcher.http.get("/", params={"to": "s1@"}).text


def test_mail_is_shown_as_html_text_and_source(catcher: Catcher) -> None:
    catcher.send(answer())
    path = f"/messages/{catcher.keys()[0]}"
    frame = catcher.http.get(path).text.partition("<iframe")[2].partition(">")[0]
    assert f'src="{path}/html"' in frame
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in frame
    shown = catcher.http.get(f"{path}/html").text
    assert "<p>texto rico</p>" in shown
    assert '<base target="_blank">' in shown
    assert 'src="data:image/png;base64,iVBORw=="' in shown
    assert "texto llano" in catcher.http.get(path, params={"view": "text"}).text
    assert "X-Envelope-To: ana@" in catcher.http.get(path, params={"view": "source"}).text
    assert catcher.http.get(path, params={"view": "<script>"}).status_code == 200
    raw = catcher.http.get(f"{path}/raw")
    assert raw.headers["content-type"] == "message/rfc822"
    assert b"Subject: Respuesta" in raw.content


def test_nothing_in_a_mail_becomes_part_of_the_page(catcher: Catcher) -> None:
    attack = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    message = answer(attack)
    message.replace_header("From", '"<script>alert(1)</script>" <x@evil.example>')
    catcher.send(message)
    path = f"/messages/{catcher.keys()[0]}"
    pages = ["/", path, f"{path}?view=text", f"{path}?view=source", f"/?to={attack}"]
    for page in pages:
        reply = catcher.http.get(page)
        assert "<script>alert" not in reply.text
        assert "<img src=x" not in reply.text
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    policy = catcher.http.get(f"{path}/html").headers["content-security-policy"]
    assert "sandbox allow-popups allow-popups-to-escape-sandbox" in policy.split("; ")
    assert "script-src" not in policy
    assert "img-src data:;" in policy


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n",
        b"no header at all",
        b"Subject: \xff\xfe =?x?q?a?=\r\nContent-Type: text/html; charset=hex\r\n\r\n<p>\xf1",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/b\r\n",
        b"Subject: a\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!!\r\n.\x00\r\n",
    ],
)
def test_broken_mail_is_stored_and_shown(catcher: Catcher, data: bytes) -> None:
    catcher.send(data)
    path = f"/messages/{catcher.keys()[0]}"
    for page in ("/", path, f"{path}/html", f"{path}?view=text", f"{path}?view=source"):
        assert catcher.http.get(page).status_code == 200


def test_only_our_own_names_are_answered(catcher: Catcher) -> None:
    catcher.send(answer())
    assert catcher.http.get("/", headers={"Host": "localhost:8025"}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        reply = catcher.http.get("/messages.json", headers={"Host": host})
        assert reply.status_code == 400
        assert "Respuesta" not in reply.text


@pytest.mark.parametrize("key", ["none", "%2e%2e%2flog", "..%2f..%2flog", "%00", "a" * 5000])
def test_only_mails_can_be_read(catcher: Catcher, key: str) -> None:
    for path in (f"/messages/{key}", f"/messages/{key}/raw"):
        assert catcher.http.get(path).status_code == 404


def test_mails_are_a_maildir_and_there_at_the_next_start(catcher: Catcher) -> None:
    catcher.send(answer())
    stored = mailbox.Maildir(catcher.folder, create=False)
    assert [message["X-Envelope-To"] for message in stored] == ["ana@uni.example"]


def test_any_login_is_taken_and_utf8_addresses_too(catcher: Catcher) -> None:
    with smtplib.SMTP("127.0.0.1", catcher.smtp_port, timeout=10) as client:
        client.login("consultas@uni.example", "anything")
        client.send_message(answer(), to_addrs=["añá@uni.example"])
    assert len(catcher.keys("añá@")) == 1


def test_mail_that_cannot_be_stored_is_refused_for_now(catcher: Catcher) -> None:
    (catcher.folder / "tmp").rmdir()
    with pytest.raises(smtplib.SMTPDataError) as refused:
        catcher.send(answer())
    assert refused.value.smtp_code == 451
    (catcher.folder / "tmp").mkdir()
    catcher.send(answer())
    assert len(catcher.keys()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_with_connections_open(catcher: Catcher, number: signal.Signals) -> None:
    with smtplib.SMTP("127.0.0.1", catcher.smtp_port, timeout=10) as client:
        client.ehlo()
        catcher.keys()
        catcher.process.send_signal(number)
        assert catcher.process.wait(10) == 0
        client.close()


def test_its_memory_stays_small(catcher: Catcher) -> None:
    for number in range(200):
        catcher.send(answer(f"Respuesta {number}"))
    start = time.monotonic()
    assert len(catcher.keys()) == 200
    assert time.monotonic() - start < 2
    assert catcher.http.get("/").status_code == 200
    assert psutil.Process(catcher.process.pid).memory_info().rss < 60e6
