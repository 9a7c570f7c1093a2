"""A backup's file: what goes in comes out, and what is cut or changed is not taken for whole."""

import gzip
import io
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from consulta.backup import settings as settings_part
from consulta.backup.file import FORMAT, BackupFileError, Header, Reader, Writer
from core.settings import Settings

HEADER = Header(version="1.2", created="2026-11-21T12:00:00+00:00", revision="0002")
DATES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    # MongoDB keeps milliseconds.
    | DATES.map(lambda date: date.replace(microsecond=date.microsecond // 1000 * 1000)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)
ROWS = st.lists(
    st.tuples(st.sampled_from(["users", "prompts"]), st.dictionaries(st.text("xyz"), VALUES)),
    max_size=8,
)


def written(rows: list[tuple[str, dict[str, Any]]], header: Header = HEADER) -> bytes:
    stream = io.BytesIO()
    writer = Writer(stream, header)
    for table, row in rows:
        writer.add(table, row)
    writer.finish()
    return stream.getvalue()


@given(ROWS)
def test_what_was_written_is_read(rows: list[tuple[str, dict[str, Any]]]) -> None:
    reader = Reader(io.BytesIO(written(rows)))
    counts = reader.check()
    assert counts.total() == len(rows)
    assert reader.header == HEADER
    assert list(reader.rows()) == rows


def test_equal_content_makes_equal_files() -> None:
    rows = [("prompts", {"input": "¿Cuándo?\u2028\n🙂"})]
    assert written(rows) == written(rows)


CONTENT = written([("prompts", {"_id": number, "input": "¿Cuándo?"}) for number in range(50)])


@given(st.integers(0, len(CONTENT) - 1))
def test_file_that_is_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(BackupFileError):
        Reader(io.BytesIO(CONTENT[:length])).check()


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_file_with_a_changed_byte_is_refused_or_says_the_same(at: int, change: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[at] ^= change
    try:
        reader = Reader(io.BytesIO(bytes(damaged)))
        reader.check()
    except BackupFileError:
        return
    # A byte of gzip's own header, such as the system's name, that says nothing of the content.
    assert list(reader.rows()) == list(Reader(io.BytesIO(CONTENT)).rows())


def test_lines_that_were_taken_out_and_packed_again_are_missed() -> None:
    lines = gzip.decompress(CONTENT).splitlines(keepends=True)
    with pytest.raises(BackupFileError, match="damaged"):
        Reader(io.BytesIO(gzip.compress(b"".join(lines[:10] + lines[11:])))).check()
    with pytest.raises(BackupFileError, match="cut off"):
        Reader(io.BytesIO(gzip.compress(b"".join(lines[:-1])))).check()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"SQLite format 3\0",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"{}\n", mtime=0),
        gzip.compress(b"[1]\n", mtime=0),
        gzip.compress(b"x" * 5_000_000, mtime=0),
        gzip.compress(b'{"consulta_backup": {"format": 1}}\n', mtime=0),
    ],
)
def test_other_files_are_named_as_such(content: bytes) -> None:
    with pytest.raises(BackupFileError, match=r"^is no backup of Consulta$"):
        Reader(io.BytesIO(content))


def test_newer_format_is_refused_with_the_version_to_use() -> None:
    newer = written([], replace(HEADER, format=FORMAT + 1, version="9.0"))
    with pytest.raises(BackupFileError, match=r"newer Consulta \(9\.0\)"):
        Reader(io.BytesIO(newer))


def test_header_with_more_than_is_known_is_read() -> None:
    header = {"consulta_backup": {**asdict(HEADER), "colour": "blue"}}
    content = gzip.compress(json.dumps(header).encode() + b"\n")
    assert Reader(io.BytesIO(content)).header == HEADER


# The settings of a backup.


def test_settings_are_kept_without_secrets_and_only_where_they_were_set() -> None:
    settings = Settings(
        _env_file=None,
        course_name="Física",
        allowed_email_domains="uni.es, uni.test",
        require_confirmed_email=True,
        secret_key=SecretStr("0123456789abcdef" * 4),
        database_url=SecretStr("sqlite:///x"),
        ollama_server_url="http://ana:s3cr3t@ollama.test",
        smtp_server="smtp.uni.test",
    )
    kept = settings_part.recorded(settings)
    for name in ("SECRET_KEY", "DATABASE_URL", "OLLAMA_SERVER_URL"):
        assert name not in kept
    assert kept["COURSE_NAME"] == "Física"
    assert kept["ALLOWED_EMAIL_DOMAINS"] == "uni.es,uni.test"
    assert kept["REQUIRE_CONFIRMED_EMAIL"] == "true"
    assert kept["SMTP_SERVER"] == "smtp.uni.test"
    assert "COURSE_LANGUAGE" not in kept


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="$"), min_size=1))
def test_written_settings_are_read_again_and_those_of_the_machine_are_not(name: str) -> None:
    kept = {"COURSE_NAME": name, "BRAND_COLOR": "#336699", "IMAP_SERVER": "imap.uni.test"}
    lines = "\n".join(settings_part.env_lines(kept))
    assert dotenv_values(stream=io.StringIO(lines)) == kept


def test_env_file_has_the_machines_settings_commented_out(tmp_path: Path) -> None:
    kept = {"COURSE_NAME": "Física", "IMAP_SERVER": "imap.uni.test", "COURSE_NAMES": "x"}
    file = tmp_path / ".env"
    settings_part.write(kept, file)
    assert dotenv_values(file) == {"COURSE_NAME": "Física"}
    assert '# IMAP_SERVER="imap.uni.test"' in file.read_text("utf-8")
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        settings_part.write(kept, file)


def test_settings_that_differ_are_told_but_not_where_things_are() -> None:
    here = Settings(_env_file=None, course_name="Química", smtp_server="b.test")
    kept = {
        "COURSE_NAME": "Física",
        "COURSE_LANGUAGE": "es",
        "SMTP_SERVER": "a.test",
        "OF_LATER_VERSIONS": "x",
    }
    assert settings_part.differing(kept, here) == {"COURSE_NAME": "Física"}


def test_fingerprint_tells_keys_apart_and_does_not_show_them() -> None:
    one, other = "0123456789abcdef" * 4, "fedcba9876543210" * 4
    assert settings_part.fingerprint(one) == settings_part.fingerprint(one)
    assert settings_part.fingerprint(one) != settings_part.fingerprint(other)
    assert settings_part.fingerprint(None) is None
    assert (settings_part.fingerprint(one) or "") not in one
