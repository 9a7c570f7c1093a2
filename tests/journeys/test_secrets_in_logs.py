"""A journey with marked secrets: none is in any log, and nobody writes a line of his own there."""

import json
import re
from email import message_from_bytes, policy
from pathlib import Path

import httpx

from tests.journeys.department import department, eventually

FORMATS = {"api": "text", "worker": "text", "mailer": "json"}
HOSTILE = "a\r\n2026-01-01T00:00:00 [info     ] forged service=api \x1b[2Jb"


def test_no_log_holds_a_secret_or_a_forged_line(tmp_path: Path, course_index: Path) -> None:
    secrets = {
        "question": "¿Cuál es la tensión umbral del diodo XQZ-PREGUNTA?",
        "password": "xqz contraseña del gato",
        "wrong password": "xqz otra del gato",
        "new password": "xqz nueva del gato",
    }
    with department(tmp_path, index=course_index) as uni:
        for service, log_format in FORMATS.items():
            uni.start(service, LOG_FORMAT=log_format)
        uni.wait_until_ready()
        with httpx.Client(base_url=uni.api_url, timeout=30) as client:
            account = {"username": "ana", "email": "xqzana@uni.test"}
            new = {**account, "password": secrets["password"]}
            assert client.post("/user", json=new).status_code == 201

            def log_in(password: str) -> httpx.Response:
                return client.post("/login", data={"username": "ana", "password": password})

            def authorise(reply: httpx.Response, name: str) -> None:
                secrets[name] = reply.json()["access_token"]
                client.headers["Authorization"] = f"Bearer {secrets[name]}"

            assert log_in(secrets["wrong password"]).status_code == 401
            authorise(log_in(secrets["password"]), "token")
            number = client.post("/questions", json={"input": secrets["question"]}).json()["id"]
            uni.answered(client, number)
            client.post("/auth/forgot-password", json={"email": account["email"]})
            mail = eventually(
                lambda: next((m for m in uni.mails() if "contraseña" in m["Subject"]), None),
                30,
                "The mail with the temporary password",
            )
            text = mail.get_body(("plain",)).get_content()  # type: ignore[union-attr]
            temporary = next(
                word
                for word in re.findall(r"\b[A-Za-z2-9]{14}\b", text)
                if (login := log_in(word)).status_code == 200
            )
            secrets["temporary password"] = temporary
            authorise(login, "second token")
            change = {
                "old_password": temporary,
                "new_password": secrets["new password"],
                "new_password_again": secrets["new password"],
            }
            authorise(client.post("/auth/change-password", json=change), "third token")
            # What is refused is not written down either.
            for name, value in list(secrets.items()):
                client.post("/user", json={**new, "username": value, "email": value})
                client.post("/login", data={"username": value, "password": value})
                client.get(f"/feedback/{value}", params={"q": value})
                client.get("/questions", headers={"Authorization": f"Bearer {value}x".encode()})
                client.post("/questions", content=value.encode(), headers={"User-Agent": name})
            client.post("/login", data={"username": HOSTILE, "password": HOSTILE})
            client.get("/" + "".join(f"%{byte:02x}" for byte in HOSTILE.encode()))
            client.get("/docs", headers=[(b"User-Agent", b"a\tforged\x9b2J")])
            secrets["link"] = _link(uni.folder)
            client.get(f"/confirm/{secrets['link']}")
        secrets["secret key"] = uni.environment["SECRET_KEY"]
        secrets["address"] = account["email"]
        secrets["marks of the question"] = "XQZ"
        secrets["part of all passwords"] = "xqz"
        for service, log_format in FORMATS.items():
            log = uni.log(service)
            assert log
            for name, value in secrets.items():
                assert value not in log, f"{name} is in the log of {service}"
            assert "\x1b" not in log
            assert "\x9b" not in log
            for line in log.splitlines():
                if log_format == "json":
                    assert json.loads(line)["service"] == service
                else:
                    assert line.startswith(("2", "    | ")), line
                    assert not line.startswith("2026-01-01T00:00:00 ")


def _link(folder: Path) -> str:
    for file in (folder / "mail" / "new").iterdir():
        message = message_from_bytes(file.read_bytes(), policy=policy.default)
        text = message.get_body(("plain",)).get_content()  # type: ignore[union-attr]
        if found := re.search(r"/confirm/(\S+)", text):
            return found[1]
    raise AssertionError("no mail has a link to confirm the address")
