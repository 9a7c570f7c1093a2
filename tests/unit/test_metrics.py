"""The metrics page, and what may become a series on it."""

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.error import HTTPError

import pytest
from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from core import metrics
from core.settings import Settings
from tests import servers


@contextmanager
def page(**settings: object) -> Iterator[str]:
    port = servers.free_port()
    with metrics.served(Settings(metrics_port=port, **settings), "test"):
        yield f"http://127.0.0.1:{port}/metrics"


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return str(reply.read().decode())


def test_every_kind_stands_on_the_page_before_it_has_happened() -> None:
    with page() as url:
        families = {f.name: f for f in text_string_to_metric_families(fetch(url))}
    faults = {s.labels["kind"] for s in families["consulta_faults"].samples}
    assert faults == set(metrics.Fault)
    mails = {(s.labels["kind"], s.labels["outcome"]) for s in families["consulta_mails"].samples}
    assert mails == {(k, o) for k in ("answer", "other") for o in metrics.MailOutcome}
    stages = {s.labels["stage"] for s in families["consulta_stage_seconds"].samples}
    assert stages == set(metrics.Stage)
    assert not [name for name in families if name.endswith("_created")]


def test_other_paths_are_not_there_and_the_page_needs_no_query() -> None:
    with page() as url:
        assert "consulta_build_info" in fetch(f"{url}?x=1")
        for path in ("", "x", "metrics/.."):
            with pytest.raises(HTTPError) as error:
                fetch(url.removesuffix("metrics") + path)
            assert error.value.code == 404
            error.value.close()


def test_port_zero_serves_nothing_and_a_taken_port_is_no_reason_to_stop(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with metrics.served(Settings(metrics_port=0), "test"):
        pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with metrics.served(Settings(metrics_port=port), "test"):
            assert f"127.0.0.1:{port}" in capsys.readouterr().out


def test_page_ends_with_the_service_and_can_begin_again() -> None:
    def read() -> list[Metric]:
        return [GaugeMetricFamily("consulta_test", "of this test", value=1)]

    port = servers.free_port()
    for _ in range(2):
        with metrics.served(Settings(metrics_port=port), "test", read):
            assert "consulta_test 1.0" in fetch(f"http://127.0.0.1:{port}/metrics")
    with pytest.raises(OSError, match="refused"):
        fetch(f"http://127.0.0.1:{port}/metrics")


def test_client_that_says_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics._Page, "timeout", 0.2)
    with page() as url, ExitStack() as clients:
        port = int(url.split(":")[2].partition("/")[0])
        silent = [
            clients.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(20)
        ]
        assert "consulta_build_info" in fetch(url)
        for client in silent:
            client.settimeout(10)
            assert client.recv(1) == b""


def test_method_that_a_client_made_up_becomes_no_series() -> None:
    for method in ("BREW", "X" * 1000):
        metrics.count_request(method, "unknown", 405, 0.01)
    methods = {
        sample.labels["method"]
        for family in REGISTRY.collect()
        if family.name == "consulta_http_requests"
        for sample in family.samples
    }
    assert "other" in methods
    assert not methods & {"BREW", "X" * 1000}


def test_clock_that_was_put_back_makes_no_negative_time() -> None:
    before = REGISTRY.get_sample_value("consulta_stage_seconds_sum", {"stage": "mailing"})
    metrics.time_stage(metrics.Stage.MAILING, -5000)
    assert REGISTRY.get_sample_value("consulta_stage_seconds_sum", {"stage": "mailing"}) == before
