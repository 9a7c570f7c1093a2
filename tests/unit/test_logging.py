"""What the logs say, and what they must not say."""

import json
import logging
import secrets
import time
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
import structlog

from core.logging import configure_logging
from core.settings import Settings


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_traceback_shows_no_values(
    log_format: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(Settings(log_format=log_format), "mailer")

    secret = secrets.token_hex()

    def fail(password: str) -> None:
        raise ValueError(f"{len(password)} characters")

    for log in (structlog.get_logger("ours"), logging.getLogger("a library's")):
        try:
            fail(secret)
        except ValueError:
            log.exception("it cannot be written")
    written = capsys.readouterr().err
    assert written.count("64 characters") == 2
    assert "in fail" in written or '"name": "fail"' in written
    assert secret not in written


HOSTILE = (
    "ana\n2026-11-21T18:12:35.0 [info     ] forged question=1 \r\x1b[2J\x1b]0;title\x07\x9b31m"
    "\u2028a\u2029b\x85c\x0bd\x0ce\u202ef\u2066g\x00\x7f\ud800 ñ 🙂"
)
"""Line ends of every kind, escape sequences of terminals, changes of direction, half a letter."""


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nobody_can_write_a_line_of_his_own_into_the_log(
    log_format: Literal["text", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(Settings(log_format=log_format), "api")
    ours, library = structlog.get_logger("ours"), logging.getLogger("a library's")
    ours.info("as a value", subject=HOSTILE, several=[HOSTILE], **{HOSTILE: "as a name"})
    ours.info(HOSTILE)
    library.warning("by a library: %s", HOSTILE)
    for log in (ours, library):
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            log.exception("in an exception")
    written = capsys.readouterr().err
    begins = [line for line in written.split("\n") if line and not line.startswith("    | ")]
    assert len(begins) == 5
    assert all(line.startswith(("20", "{")) for line in begins)
    assert not any(line.startswith("2026-11-21T18:12:35.0 ") for line in begins)
    unfit = {
        character
        for character in written
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character != "\n"
    }
    assert unfit == set()
    assert "ñ 🙂" in written
    if log_format == "json":
        assert [json.loads(line)["service"] for line in begins] == ["api"] * 5


@pytest.mark.parametrize(
    ("zone", "offset"), [("Europe/Madrid", timedelta(hours=1)), ("UTC", timedelta(0))]
)
def test_times_are_local_with_their_zone(
    zone: str,
    offset: timedelta,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        configure_logging(Settings(log_format="json"), "mailer")
        structlog.get_logger().info("ours")
        logging.getLogger("a library's").warning("theirs")
        for line in capsys.readouterr().err.splitlines():
            moment = datetime.fromisoformat(json.loads(line)["timestamp"])
            summer = timedelta(hours=1) if offset and time.localtime().tm_isdst else timedelta(0)
            assert moment.utcoffset() == offset + summer
            assert abs(moment - datetime.now(UTC)) < timedelta(minutes=1)
    finally:
        monkeypatch.undo()
        time.tzset()
