"""Signed links in e-mails."""

import time

import pytest

from core.links import ExpiredLinkError, InvalidLinkError, LinkPurpose, Links
from core.settings import Settings

SECRET = "0123456789abcdef0123456789abcdef"


def links(secret: str = SECRET) -> Links:
    return Links(Settings(secret_key=secret, public_url="https://curso.example.org/"))


def token(url: str) -> str:
    return url.rpartition("/")[2]


def test_link_is_short_and_says_what_was_signed() -> None:
    url = links().feedback(12345)
    assert url.startswith("https://curso.example.org/feedback/")
    assert len(url) < 100
    assert links().read(LinkPurpose.FEEDBACK, token(url)) == 12345
    confirmation = token(links().confirmation(7, "ana@uni.test"))
    assert links().read(LinkPurpose.CONFIRM, confirmation) == [7, "ana@uni.test"]


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: "x" + t, lambda _: "", lambda _: "…"]
)
def test_changed_link_is_refused(change) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidLinkError):
        links().read(LinkPurpose.FEEDBACK, change(token(links().feedback(1))))


def test_link_for_something_else_or_by_another_secret_is_refused() -> None:
    feedback = token(links().feedback(1))
    with pytest.raises(InvalidLinkError):
        links().read(LinkPurpose.CONFIRM, feedback)
    with pytest.raises(InvalidLinkError):
        links("fedcba9876543210fedcba9876543210").read(LinkPurpose.FEEDBACK, feedback)


def test_confirmation_ends_after_a_week(monkeypatch: pytest.MonkeyPatch) -> None:
    confirmation = token(links().confirmation(7, "ana@uni.test"))
    later = time.time() + 7 * 86400 + 2
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: later)
    with pytest.raises(ExpiredLinkError):
        links().read(LinkPurpose.CONFIRM, confirmation)
