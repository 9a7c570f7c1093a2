"""A student's first minutes: Swagger UI in a real browser."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, Response, expect, sync_playwright

from tests.api_client import PASSWORD, serving

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture
def address(nx_url: str, tmp_path: Path) -> Iterator[str]:
    with serving(nx_url, tmp_path) as url:
        yield url


@contextlib.contextmanager
def browser_page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1000}, locale="en-GB")
        page.set_default_timeout(20_000)
        yield page
        browser.close()


def operation(page: Page, method: str, path: str) -> Locator:
    """The block of one operation, opened."""
    block = page.locator(f".opblock-{method}").filter(has=page.locator(f'[data-path="{path}"]'))
    block.locator(".opblock-summary-control").click()
    return block


def execute(page: Page, block: Locator, path: str) -> Response:
    """Press Execute, and wait until the reply is shown."""
    with page.expect_response(lambda response: urlsplit(response.url).path == path) as reply:
        block.locator(".execute").click()
    expect(block.locator(".live-responses-table tbody .response-col_status").first).to_contain_text(
        str(reply.value.status)
    )
    return reply.value


def test_student_registers_authorises_and_asks_with_the_examples_unchanged(address: str) -> None:
    requested: list[str] = []
    complaints: list[str] = []
    with browser_page() as page:
        page.on("request", lambda request: requested.append(request.url))
        page.on(
            "console",
            lambda message: complaints.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{address}/docs")
        expect(page.locator("h1, h2.title").first).to_contain_text("Consulta: Electrónica <básica>")
        assert page.title() == "Consulta: Electrónica <básica>"

        block = operation(page, "post", "/user")
        assert execute(page, block, "/user").status == 201
        assert execute(page, block, "/user").status == 409
        expect(block.locator(".live-responses-table")).to_contain_text("already has an account")

        page.get_by_role("button", name="Authorize").first.click()
        dialog = page.locator(".modal-ux")
        expect(dialog.locator("#client_id_password")).to_be_hidden()
        dialog.locator("#oauth_username").fill("ana.garcia@example.org")
        dialog.locator("#oauth_password").fill("not the password")
        dialog.locator(".auth-container").first.locator("button.authorize").click()
        expect(dialog).to_contain_text("The user name (or e-mail) or the password is wrong")
        dialog.locator("#oauth_password").fill(PASSWORD)
        dialog.locator(".auth-container").first.locator("button.authorize").click()
        expect(dialog).to_contain_text(re.compile("authorized", re.IGNORECASE))
        dialog.get_by_role("button", name="Close").first.click()

        block = operation(page, "post", "/questions")
        reply = execute(page, block, "/questions")
        assert reply.status == 202
        assert reply.json()["place"] == 1
        expect(block.locator(".live-responses-table")).to_contain_text('"place": 1')

    assert {urlsplit(url).netloc for url in requested if not url.startswith("data:")} == {
        urlsplit(address).netloc
    }
    refused = [text for text in complaints if "status of 4" not in text]
    assert refused == []
