"""What every service counts and times, and its page ``/metrics`` in Prometheus' text format.

A counter belongs to the process that did it, so that the sum over all processes is the truth: a
stage of a question is timed by whoever stores its end, which for a worker elsewhere is the API.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from http.server import ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from socketserver import TCPServer
from urllib.parse import urlsplit

import structlog
from prometheus_client import (
    REGISTRY,
    Counter,
    Histogram,
    Info,
    MetricsHandler,
    disable_created_metrics,
)
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from core.settings import Settings

CLIENT_SECONDS = 10.0
"""How long a client of the page may be silent."""

_STAGE_BUCKETS = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}

log = structlog.get_logger()


class Stage(StrEnum):
    """A part of a question's way that takes time."""

    WAITING = "waiting"
    """From its acceptance to the claim that led to its answer."""
    ANSWERING = "answering"
    """From that claim to the stored answer."""
    MAILING = "mailing"
    """From the stored answer to the mail server's yes."""


class MailOutcome(StrEnum):
    """What became of one try to send an e-mail."""

    SENT = "sent"
    DEFERRED = "deferred"
    """It is tried again."""
    REFUSED = "refused"
    """It was refused for good."""
    BOUNCED = "bounced"
    """It was accepted, and came back."""
    WITHDRAWN = "withdrawn"
    """An alarm whose trouble ended before it could leave."""


class Fault(StrEnum):
    """What should not happen, and is survived."""

    ATTEMPT_FAILED = "attempt_failed"
    """A question's answer failed; it is tried again, or apologised for."""
    LEASE_LOST = "lease_lost"
    """A worker took a question and was not heard of again in time."""
    QUEUE_AWAY = "queue_away"
    """MongoDB did not answer, or to a worker elsewhere the API did not."""
    USERS_AWAY = "users_away"
    """The users' database did not answer."""
    MODEL_AWAY = "model_away"
    PROMPT_TRUNCATED = "prompt_truncated"
    """The model's server cut its prompt; the answer was thrown away."""
    INDEXING_FAILED = "indexing_failed"
    MAIL_SERVER_AWAY = "mail_server_away"
    """The mail server was away or refused our login."""
    INBOX_AWAY = "inbox_away"
    REQUEST_FAILED = "request_failed"
    """A request got 500: an error of this program."""


BUILD = Info("consulta_build", "The version that runs, and which service it is")
ANSWERS = Counter("consulta_answers", "Answers stored, by what kind of answer it is", ["outcome"])
STAGE_SECONDS = Histogram(
    "consulta_stage_seconds",
    "Seconds that questions spent waiting, being answered and being mailed",
    ["stage"],
    buckets=_STAGE_BUCKETS,
)
TOKENS = Counter("consulta_model_tokens", "Tokens of stored answers, as the model counts", ["kind"])
TRUNCATIONS = Counter(
    "consulta_model_truncations", "Prompts that the model's server cut; their answers are not used"
)
MAILS = Counter(
    "consulta_mails",
    "Tries to send an e-mail: the answer to a question, or another mail",
    ["kind", "outcome"],
)
FAULTS = Counter("consulta_faults", "What should not happen, and was survived", ["kind"])
REQUESTS = Counter(
    "consulta_http_requests", "Requests to the API by route", ["method", "path", "status"]
)
REQUEST_SECONDS = Histogram(
    "consulta_http_request_seconds",
    "Seconds to the end of a reply of the API",
    ["method", "path"],
    buckets=_REQUEST_BUCKETS,
)


def _begin_at_zero() -> None:
    # A series that is not there before its first event hides that event from rate().
    for stage in Stage:
        STAGE_SECONDS.labels(stage)
    for kind in ("prompt", "answer"):
        TOKENS.labels(kind)
    for kind in ("answer", "other"):
        for outcome in MailOutcome:
            MAILS.labels(kind, outcome)
    for fault in Fault:
        FAULTS.labels(fault)


_begin_at_zero()
disable_created_metrics()  # type: ignore[no-untyped-call]


def count_fault(fault: Fault) -> None:
    """One more of these, here."""
    FAULTS.labels(fault).inc()
    if fault is Fault.PROMPT_TRUNCATED:
        TRUNCATIONS.inc()


def faults_counted() -> dict[Fault, int]:
    """How many of each there were since this process began."""
    values = {
        fault: REGISTRY.get_sample_value("consulta_faults_total", {"kind": fault})
        for fault in Fault
    }
    return {fault: int(value or 0) for fault, value in values.items()}


def time_stage(stage: Stage, milliseconds: float) -> None:
    """A question has left this stage; a clock that was put back makes no negative time."""
    STAGE_SECONDS.labels(stage).observe(max(0.0, milliseconds / 1000))


def count_request(method: str, path: str, status: int, seconds: float) -> None:
    """``path`` is the route's own text: what a client makes up must not become a series."""
    method = method if method in _METHODS else "other"
    REQUESTS.labels(method, path, str(status)).inc()
    REQUEST_SECONDS.labels(method, path).observe(seconds)


def program_version() -> str:
    """The version that is installed."""
    try:
        return version("consulta")
    except PackageNotFoundError:
        return "unreleased"


class _Page(MetricsHandler):
    timeout = CLIENT_SECONDS
    server_version = "Consulta"
    sys_version = ""

    def do_GET(self) -> None:  # noqa: N802
        if urlsplit(self.path).path == "/metrics":
            super().do_GET()
        else:
            self.send_error(404, explain="The figures are at /metrics.")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Without asking the name server who we are.
        TCPServer.server_bind(self)


class _Read(Collector):
    """What is read when somebody asks, in place of being counted."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return []  # Else it is read once when it is registered.

    def collect(self) -> Iterable[Metric]:
        return self._read()


@contextmanager
def served(
    settings: Settings, service: str, read: Callable[[], Iterable[Metric]] | None = None
) -> Iterator[None]:
    """Serve ``/metrics`` at METRICS_HOST and METRICS_PORT meanwhile; port 0 serves nothing.

    A port that cannot be had is logged and no reason not to work.

    Args:
        read: gives further metrics for each page, in a thread of the page's.
    """
    BUILD.info({"version": program_version(), "service": service, "python": python_version()})
    if not settings.metrics_port:
        yield
        return
    address = f"{settings.metrics_host}:{settings.metrics_port}"
    try:
        server = _Server((settings.metrics_host, settings.metrics_port), _Page)
    except OSError as error:
        log.error(
            "no metrics",
            address=address,
            reason=error.strerror or str(error),
            remedy="set METRICS_PORT to a free port, or to 0 for none",
        )
        yield
        return
    collector = _Read(read) if read else None
    if collector:
        REGISTRY.register(collector)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    log.info("metrics", url=f"http://{address}/metrics")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        if collector:
            REGISTRY.unregister(collector)
