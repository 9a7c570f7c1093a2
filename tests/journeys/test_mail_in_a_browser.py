"""The e-mails as a mail program lays them out: on a phone and a desktop, in light and dark."""

import importlib.machinery
import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import Browser, sync_playwright

from core.colors import Palette
from mailer.logo import Logo
from tests.journeys.test_swagger import CHROMIUM

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "screenshots"
COLORS = ["#8c2f39", "#ffe066", "#10151b"]
# One transparent pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
    "0000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
)
# Every text's contrast with what is behind it, as WCAG computes it.
FAINT_TEXTS = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = parse(color).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if ((parse(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
    if (getComputedStyle(element).fontSize === "0px") continue;
    const pair = [luminance(getComputedStyle(element).color), luminance(ground(element))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) faint.push([walker.currentNode.data.trim(), ratio]);
  }
  return faint;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def screenshots() -> ModuleType:
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("screenshots", str(SCRIPT))
    specification = importlib.util.spec_from_loader("screenshots", loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("color", COLORS)
def test_every_mail_fits_and_every_word_of_it_can_be_read(
    browser: Browser, screenshots: ModuleType, color: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    letterhead = replace(screenshots.LETTERHEAD, palette=Palette.of(color))
    monkeypatch.setattr(screenshots, "LETTERHEAD", letterhead)
    shots = screenshots.shots(Logo(PIXEL, "png"))
    # Of plain text the mail program makes the looks.
    pages = {shot.page: shot.name for shot in shots if not shot.name.endswith("-text")}
    assert len(pages) > 8
    for scheme in ("light", "dark"):
        view = browser.new_page(color_scheme=scheme)
        for width in (320, 360, 1280):
            view.set_viewport_size({"width": width, "height": 800})
            for content, name in pages.items():
                view.set_content(content)
                wide = view.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, (name, scheme, width)
                assert view.evaluate(FAINT_TEXTS) == [], (name, scheme, width)
        view.close()


def test_no_mail_asks_for_anything_from_elsewhere(
    browser: Browser, screenshots: ModuleType
) -> None:
    requested: list[str] = []
    view = browser.new_page()
    view.on("request", lambda request: requested.append(request.url))
    for shot in screenshots.shots(Logo(PIXEL, "png")):
        view.set_content(shot.page)
    view.close()
    assert [url for url in requested if not url.startswith(("data:", "blocked:", "about:"))] == []
