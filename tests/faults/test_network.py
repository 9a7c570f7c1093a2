"""A network that fails between the services and each server."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.laboratory import Laboratory, Tally, laboratory
from tests.faults.proxy import Fault

Count = Callable[[Tally], Tally]

_SECONDS = {("queue", Fault.HALF_OPEN): 45, ("smtp", Fault.HALF_OPEN): 15}
"""How long a fault lasts that is noticed by its time limit, if not five seconds."""


@pytest.mark.parametrize("server", ["queue", "smtp", "model"])
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
def test_network_that_fails_for_a_while_loses_nothing(
    tmp_path: Path, course_index: Path, counted: Count, server: str, fault: Fault
) -> None:
    with laboratory(
        tmp_path, index=course_index, proxied=[server], SMTP_TIMEOUT="10", LEASE_SECONDS="10"
    ) as lab:
        for service in ("api", "worker", "mailer"):
            lab.start(service)
        lab.wait_until_ready()
        lab.log_in("ana")
        lab.ask()
        lab.network[server].set(fault, delay=0.2)
        asking = threading.Thread(target=_ask_some, args=(lab,))
        asking.start()
        time.sleep(_SECONDS.get((server, fault), 5))
        lab.network[server].set(Fault.NONE)
        asking.join()
        what = fault.name.lower().replace("_", " ")
        tally = counted(lab.tally(f"{server}: {what}", 1, seconds=180))
    assert tally.accepted == 4
    assert tally.lost == 0
    assert tally.answered == tally.accepted
    assert tally.duplicates <= 4


def _ask_some(lab: Laboratory) -> None:
    for _ in range(3):
        lab.ask()
