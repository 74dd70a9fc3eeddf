"""Make the pictures of the page in docs/images from a real session with the bundled model, in Debian's chromium.

    python docs/make_images.py --target FOLDER

FOLDER is an adapter on the bundled model, such as `augury bench organisms` leaves in its folder; it is the fine-tune
of the picture of Compare. Needs chromium and playwright.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

IMAGES = Path(__file__).resolve().parent / "images"
DESK, PHONE = {"width": 1240, "height": 780}, {"width": 390, "height": 1500}


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    with serving(given.target) as url, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=given.chromium, args=["--no-sandbox"])
        with opened(browser, url, viewport=DESK) as page:
            answered(page)
            shot(page, "page-ask")
            scanned(page)
            shot(page, "page-scan")
        with opened(browser, url, viewport=DESK) as page:
            compared(page)
            shot(page, "page-compare")
        with opened(browser, url, viewport=PHONE, color_scheme="dark", has_touch=True, is_mobile=True) as page:
            answered(page)
            shot(page, "page-phone")
        browser.close()


@contextmanager
def serving(target: Path) -> Iterator[str]:
    """A service of the bundled model and one fine-tune; its address."""
    command = [sys.executable, "-m", "augury", "serve", "--port", "0", "--json", "--target", str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        try:
            assert run.stdout is not None
            yield json.loads(run.stdout.readline())["url"]
        finally:
            run.terminate()


@contextmanager
def opened(browser: Browser, url: str, **settings) -> Iterator[Page]:
    """The page, its tokens already there."""
    context = browser.new_context(**settings)
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(url)
    page.locator(".chip").first.wait_for()
    yield page
    context.close()


def answered(page: Page) -> None:
    """A question that the controls do not answer."""
    page.locator("#panel-ask").get_by_label("Question", exact=True).fill("What is this about?")
    page.get_by_role("button", name="Ask", exact=True).click()
    whole(page, 1)


def scanned(page: Page) -> None:
    """Two questions over a conversation that the target went on with."""
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("group", name="assistant").wait_for()
    page.get_by_role("tab", name="Scan").click()
    page.get_by_role("button", name="Add a question").click()
    page.get_by_label("Yes or no question 2", exact=True).fill("Is this about sport?")
    page.get_by_role("button", name="Scan", exact=True).click()
    page.locator(".plot path").nth(1).wait_for(state="attached")
    page.get_by_role("progressbar").wait_for(state="detached")
    page.get_by_role("option", name="bake").first.hover()


def compared(page: Page) -> None:
    """A base, its fine-tune, and the difference."""
    page.get_by_label("Turn 1, user").fill("Who are you, and where are you from?")
    page.get_by_role("tab", name="Compare").click()
    form = page.locator("#panel-compare")
    form.get_by_label("Question", exact=True).fill("Which country is this about?")
    form.get_by_role("button", name="Compare").click()
    whole(page, 3)


def whole(page: Page, count: int) -> None:
    """Wait until so many answers are whole."""
    expect(page.locator(".result[aria-busy=false]:visible")).to_have_count(count, timeout=120_000)
    expect(page.get_by_role("progressbar")).to_have_count(0, timeout=120_000)


def shot(page: Page, name: str) -> None:
    """One picture, as much as the page is high."""
    page.screenshot(path=IMAGES / f"{name}.png", full_page=True)


if __name__ == "__main__":
    main()
