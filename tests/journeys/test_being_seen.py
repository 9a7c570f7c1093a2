"""What a sysadmin sees of one question: in the logs, on the metrics pages, in the terminal."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests import servers
from tests.integration.model_servers import ModelServer, Reply
from tests.journeys.department import Department, department, eventually

RULES = Path(__file__).parents[2] / "resources" / "monitoring" / "alerts.yml"
QUESTION = "¿Cuál es la tensión umbral de un diodo de silicio?"
SERVICES = ("api", "worker", "mailer")
NOT_ABOUT_A_QUESTION = {
    *("metrics", "ready", "index_opened", "settings_changed", "the mailer is running"),
    *("prompt_tokens_not_counted", "context_is_smaller"),
}


@pytest.fixture
def model() -> Iterator[ModelServer]:
    server = ModelServer()
    yield server
    server.stop()


@pytest.fixture
def uni(tmp_path: Path, course_index: Path, model: ModelServer) -> Iterator[Department]:
    """A department whose services log for collectors, and tell their figures."""
    with department(
        tmp_path,
        index=course_index,
        LOG_FORMAT="json",
        LLM_MODEL="ollama:mistral",
        OLLAMA_SERVER_URL=model.url,
        LLM_LANGUAGES="es,en",
        HEARTBEAT_SECONDS="0.3",
        RETRY_SECONDS="0.2",
    ) as running:
        yield running


def start(uni: Department, name: str, service: str | None = None) -> str:
    """Start it with a metrics page; the page's address."""
    port = servers.free_port()
    uni.start(name, service, METRICS_PORT=str(port))
    return f"http://127.0.0.1:{port}/metrics"


def lines(uni: Department, name: str) -> list[dict[str, Any]]:
    found = [line for line in uni.log(name).splitlines() if line.startswith("{")]
    return [json.loads(line) for line in found]


def samples(url: str) -> list[tuple[str, dict[str, str], float]]:
    reply = httpx.get(url, timeout=20)
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(reply.text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "a family stands there twice"
    return [(s.name, s.labels, s.value) for family in families for s in family.samples]


def value(url: str, name: str, **labels: str) -> float:
    """The sum of the samples of this name with these labels."""
    found = [v for n, given, v in samples(url) if n == name and labels.items() <= given.items()]
    assert found, f"{name} {labels} is not on the page"
    return sum(found)


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["worker here", "worker elsewhere"])
def test_one_question_can_be_followed_through_the_logs_of_all_services(
    uni: Department, model: ModelServer, *, is_elsewhere: bool
) -> None:
    model.replies = [Reply(status=400, error="no"), Reply(status=400, error="no")]
    uni.environment["PYTHONUNBUFFERED"] = "1"
    uni.start("api")
    uni.wait_until_ready()
    if is_elsewhere:
        token = subprocess.run(
            [sys.executable, "-m", "consulta", "users", "worker-token", "lab-3"],
            env={**os.environ, **uni.environment},
            cwd=uni.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()
        uni.start("worker", f"worker --api-url {uni.api_url}", WORKER_TOKEN=token, MONGO_URL="")
    else:
        uni.start("worker")
    uni.start("mailer")
    uni.wait_until_ready()
    began = datetime.now().astimezone() - timedelta(minutes=2)
    with uni.student("ana") as ana:
        number = ana.post("/questions", json={"input": QUESTION}).json()["id"]
        uni.answered(ana, number)
    about = {
        name: [line for line in lines(uni, name) if line.get("question") == number]
        for name in SERVICES
    }
    events = {name: [line["event"] for line in found] for name, found in about.items()}
    assert any(
        line["event"] == "request" and line["path"] == "/questions" and line["status"] == 202
        for line in about["api"]
    )
    assert events["worker"][0] == "claimed"
    assert "answer_unusable" in events["worker"]
    assert events["worker"][-1] == "answered"
    assert events["mailer"] == ["sent"]
    if is_elsewhere:
        paths = [line["path"] for line in about["api"]]
        assert "/receive-prompt" in paths
        assert "/questions/{id}/answer" in paths
    for name in ("worker", "mailer"):
        others = [line["event"] for line in lines(uni, name) if line.get("question") != number]
        # Account mails, too, say what they are about.
        unknown = set(others) - NOT_ABOUT_A_QUESTION - {"sent"}
        assert not unknown, f"{name} has lines without the question's number: {unknown}"
    for name in SERVICES:
        for line in lines(uni, name):
            assert line["service"] == name
            moment = datetime.fromisoformat(line["timestamp"])
            assert moment.utcoffset() is not None
            assert began < moment <= datetime.now().astimezone()


def test_a_question_shows_on_the_metrics_of_all_services_and_in_the_terminal(
    uni: Department, model: ModelServer
) -> None:
    model.replies = [
        Reply(("La tensión umbral ", "es de 0,7 V [1]."), prompt_tokens=777),
        Reply(("Cortado.",), prompt_tokens=4096),
    ]
    api, worker, mailer = (start(uni, name) for name in SERVICES)
    uni.wait_until_ready()
    with uni.student("ana") as ana:
        for _ in range(2):
            number = ana.post("/questions", json={"input": QUESTION}).json()["id"]
            uni.answered(ana, number)
        assert ana.get("/questions/9999").status_code == 404
    assert value(api, "consulta_http_requests_total", path="/questions", status="202") == 2
    assert value(api, "consulta_http_requests_total", path="/questions/{id}", status="404") == 1
    assert value(api, "consulta_http_request_seconds_count", path="/questions") == 2
    for page in (api, mailer, worker):
        assert value(page, "consulta_questions", state="sent") == 2
        assert value(page, "consulta_oldest_question_age_seconds") == 0
        assert value(page, "consulta_queue_up") == 1
        assert value(page, "consulta_disk_free_bytes", path="/") > 0
        assert 0 <= value(page, "consulta_silence_seconds", service="worker") < 60
        assert value(page, "consulta_build_info") == 1
    assert value(worker, "consulta_stage_seconds_count", stage="waiting") == 2
    assert value(worker, "consulta_stage_seconds_count", stage="answering") == 2
    assert value(mailer, "consulta_stage_seconds_count", stage="mailing") == 2
    assert value(worker, "consulta_model_tokens_total", kind="prompt") == 777
    assert value(worker, "consulta_model_tokens_total", kind="answer") >= 2
    assert value(worker, "consulta_model_truncations_total") == 1
    assert value(worker, "consulta_answers_total") == 2
    assert value(mailer, "consulta_mails_total", kind="answer", outcome="sent") == 2
    assert value(mailer, "consulta_mails_total", kind="other", outcome="sent") == 1
    assert httpx.get(api.removesuffix("/metrics")).status_code == 404
    _assert_rules_can_fire([samples(page) for page in (api, worker, mailer)])

    shown = _status(uni)
    assert re.search(r"Questions +waiting +answering +answered +sent ", shown)
    assert re.search(r":\d\d +0 +0 +0 +2 +0\n", shown)
    assert re.search(r"time waiting .* 2 *\n", shown)
    assert re.search(r"tokens of the prompt +777 +777 +1", shown)
    assert "prompts truncated 1" in shown
    assert re.search(r"answers +2 +0 +0 +0", shown)
    for name in SERVICES:
        assert re.search(rf"{name} +{re.escape(os.uname().nodename[:20])}", shown), shown
    assert "silent" not in shown

    uni.kill("worker")
    eventually(lambda: "silent" in _status(uni), 30, "The sign of a silent worker")
    assert value(api, "consulta_silence_seconds", service="worker") > 2
    uni.start("worker-2", "worker")
    eventually(lambda: "silent" not in _status(uni), 60, "The new worker's sign")


def _assert_rules_can_fire(pages: list[list[tuple[str, dict[str, str], float]]]) -> None:
    """Every series that a rule asks for is on some page, or could be."""
    known: dict[str, list[dict[str, str]]] = {}
    for name, labels, _ in (sample for page in pages for sample in page):
        known.setdefault(name, []).append(labels)
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 5
    for rule in rules:
        asked = re.findall(r"(consulta_\w+)(?:\{([^}]*)\})?", rule["expr"])
        assert asked, rule["alert"]
        for name, selector in asked:
            assert name in known, f"{rule['alert']} asks for {name}"
            for label, operator, wanted in re.findall(r'(\w+)(=~?)"([^"]*)"', selector):
                values = {labels[label] for labels in known[name] if label in labels}
                assert values, f"{rule['alert']}: {name} has no {label}"
                if label == "status":
                    continue  # It comes with the first such reply.
                for word in wanted.split("|") if operator == "=~" else [re.escape(wanted)]:
                    fits = any(re.fullmatch(word, value) for value in values)
                    assert fits, f"{rule['alert']}: no {name} has {label}={word}"


def _status(uni: Department, *options: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "consulta", "status", *options],
        env={**os.environ, **uni.environment, "COLUMNS": "80"},
        cwd=uni.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert max(map(len, ended.stdout.splitlines())) <= 80
    return ended.stdout


def test_taken_metrics_port_is_said_and_stops_nothing(uni: Department) -> None:
    page = start(uni, "api")
    uni.wait_until_ready()
    port = page.rpartition(":")[2].removesuffix("/metrics")
    uni.start("mailer", METRICS_PORT=port)

    def said() -> bool:
        return any(line["event"] == "no metrics" for line in lines(uni, "mailer"))

    eventually(said, 30, "The line about the port")
    eventually(
        lambda: any(line["event"] == "the mailer is running" for line in lines(uni, "mailer")),
        30,
        "The mailer's start",
    )
    (line,) = [line for line in lines(uni, "mailer") if line["event"] == "no metrics"]
    assert port in line["address"]
    assert "METRICS_PORT" in line["remedy"]


def test_stopped_process_takes_its_sign_away_and_metrics_survive_a_queue_that_is_away(
    uni: Department,
) -> None:
    api = start(uni, "api")
    uni.start("mailer")
    uni.wait_until_ready()
    eventually(lambda: _has(api, "mailer"), 30, "The mailer's sign")
    uni.processes["mailer"].terminate()
    uni.processes["mailer"].wait(30)
    assert not _has(api, "mailer")
    queue = next(
        process
        for process in psutil.Process().children(recursive=True)
        if str(uni.folder / "data") in process.cmdline()
    )
    queue.send_signal(signal.SIGSTOP)
    try:
        assert value(api, "consulta_queue_up") == 0
        assert value(api, "consulta_disk_free_bytes", path="/") > 0
    finally:
        queue.send_signal(signal.SIGCONT)
    eventually(lambda: value(api, "consulta_queue_up") == 1, 60, "The queue's return")


def _has(page: str, service: str) -> bool:
    return any(
        name == "consulta_silence_seconds" and labels["service"] == service
        for name, labels, _ in samples(page)
    )


def test_watched_status_says_that_the_queue_is_away_and_recovers(uni: Department) -> None:
    queue = next(
        process
        for process in psutil.Process().children(recursive=True)
        if str(uni.folder / "data") in process.cmdline()
    )
    out = uni.folder / "watch.out"
    with out.open("wb") as file:
        watching = subprocess.Popen(
            [sys.executable, "-m", "consulta", "status", "--watch", "--interval", "0.5"],
            env={**os.environ, **uni.environment, "COLUMNS": "80"},
            cwd=uni.folder,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: out.read_text().count("Questions") >= 2, 30, "The second look")
        queue.kill()
        queue.wait(10)
        eventually(lambda: "has not answered since" in out.read_text(), 60, "The sentence")
        port = int(re.findall(r":(\d+)/", uni.environment["MONGO_URL"])[0])
        with servers.nx_27017(uni.folder, port):
            eventually(lambda: _is_well(out.read_text()), 60, "The recovery")
            assert watching.poll() is None
            watching.send_signal(signal.SIGINT)
            assert watching.wait(20) == 0
    finally:
        watching.kill()
        watching.wait()
    text = out.read_text()
    assert "Traceback" not in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def _is_well(text: str) -> bool:
    """Whether the last look, as a whole, came after the last complaint."""
    return (
        text.rfind("newest answers")
        > text.rfind("Questions")
        > text.rfind("has not answered since")
    )


def test_watched_status_in_a_terminal_is_written_over_and_ctrl_c_ends_it(uni: Department) -> None:
    parent, child = os.openpty()
    watching = subprocess.Popen(
        [sys.executable, "-m", "consulta", "status", "--watch", "--interval", "0.5"],
        env={**os.environ, **uni.environment, "COLUMNS": "80", "LINES": "24", "TERM": "xterm"},
        cwd=uni.folder,
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
    )
    os.close(child)
    seen = b""
    try:
        deadline = time.monotonic() + 60
        while seen.count(b"Questions") < 3 and time.monotonic() < deadline:
            seen += os.read(parent, 65536)
        assert seen.count(b"Questions") >= 3
        assert b"\x1b[1A" in seen, "it goes up to write over what it wrote"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 0
    finally:
        watching.kill()
        watching.wait()
        os.close(parent)


def test_staff_are_alarmed_once_through_kills_of_two_mailers(uni: Department) -> None:
    uni.environment |= {"STAFF_EMAIL": "prof@uni.test", "ALARM_QUESTION_SECONDS": "1"}
    for name, service in (("api", "api"), ("mailer", "mailer"), ("mailer-2", "mailer")):
        uni.start(name, service)
    uni.wait_until_ready()
    with uni.student("ana") as ana:
        number = ana.post("/questions", json={"input": QUESTION}).json()["id"]
        (mail,) = eventually(lambda: uni.mails("prof@uni.test"), 60, "The alarm")
        for name in ("mailer", "mailer-2"):
            uni.kill(name)
            uni.start(f"{name}-again", "mailer")
        uni.start("worker")
        uni.answered(ana, number)
        eventually(lambda: len(uni.mails("ana@uni.test")) == 1, 30, "The answer's e-mail")
    body = mail.get_body(("plain",))
    assert body is not None
    assert "No hay ningún worker en marcha" in body.get_content()
    copies = uni.mails("prof@uni.test")
    # A kill between the mail server's yes and its mark makes a copy of the same mail.
    assert {copy["Message-ID"] for copy in copies} == {mail["Message-ID"]}
