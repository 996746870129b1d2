"""A real browser shows the picture, plays the film and opens the text that Flik made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.acceptance.running import RunningFlik

pytestmark = pytest.mark.browser
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"]  # fmt: skip


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a headless Chromium."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert program, "There is no Chromium on this machine: install it with `apt-get install -y chromium`."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET)
        try:
            yield browser.new_page(viewport={"width": 800, "height": 600})
        finally:
            browser.close()


@pytest.fixture
def shot(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Where a test leaves its screenshot: FLIK_SCREENSHOTS, or a folder that is thrown away."""
    return Path(os.environ.get("FLIK_SCREENSHOTS", tmp_path)) / f"{request.node.name}.png"


def test_picture_is_shown(flik: RunningFlik, page: Page, shot: Path) -> None:
    made = flik.wait(flik.submit("IMAGE", payload={"prompt": "a lighthouse at dusk", "width": 320, "height": 200}))
    page.set_content(f'<img id="it" src="{made["result"]["url"]}">')
    page.wait_for_function("it.complete && it.naturalWidth > 0", timeout=10_000)
    assert page.evaluate("[it.naturalWidth, it.naturalHeight]") == [320, 200]
    page.screenshot(path=shot)


def test_film_plays(flik: RunningFlik, page: Page, shot: Path) -> None:
    payload = {"prompt": "a river in the rain", "width": 320, "height": 180, "lengthS": 2}
    made = flik.wait(flik.submit("VIDEO", payload=payload))
    page.set_content(f'<video id="it" src="{made["result"]["url"]}" autoplay muted loop controls></video>')
    page.wait_for_function("it.readyState >= 3", timeout=20_000)
    assert abs(page.evaluate("it.duration") - 2) < 0.2
    assert page.evaluate("[it.videoWidth, it.videoHeight]") == [320, 180]
    page.wait_for_function("it.currentTime > 0.2", timeout=10_000)
    assert page.evaluate("it.error") is None
    page.evaluate("it.pause(); it.currentTime = 1.5")  # seeking asks for a range
    page.wait_for_function("!it.seeking && Math.abs(it.currentTime - 1.5) < 0.1", timeout=10_000)
    page.screenshot(path=shot)


def test_text_opens(flik: RunningFlik, page: Page, shot: Path) -> None:
    result = flik.wait(flik.submit(payload={"prompt": "the sea at night", "maxWords": 60}))["result"]
    assert result["artifacts"], "a text is also a file"
    answer = page.goto(result["url"])
    assert answer is not None
    assert answer.headers["content-type"].startswith("text/plain")
    assert page.inner_text("body").split() == result["text"].split()
    page.screenshot(path=shot)
