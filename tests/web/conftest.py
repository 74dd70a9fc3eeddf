"""The page in a real browser, before a real service with the bundled model, its oracle, and a fine-tune of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from augury.lm.adapters import adapter_parameters, remove_adapter, save_adapter
from augury.oracle.hub import find_oracle
from tests.conftest import ROOT
from tests.families import add_random_adapter

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
# A closed network would otherwise be asked for updates at every start.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
PATIENCE = 60_000  # ms: two cores that do other things too
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies here is run by `make test-page`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """`augury serve` with these options; its address."""
    command = [sys.executable, "-m", "augury", "serve", "--port", "0", "--json", *options]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as run:
        try:
            assert run.stdout is not None
            yield json.loads(run.stdout.readline())["url"]
        finally:
            run.send_signal(signal.SIGTERM)
            run.wait(30)


@pytest.fixture(scope="session")
def tuned(smollm2, tmp_path_factory) -> Path:
    """A fine-tune of the bundled model: an adapter of chance, which moves its activations a little."""
    folder = tmp_path_factory.mktemp("made") / "tuned"
    config = add_random_adapter(smollm2, "tuned")
    try:
        with torch.no_grad():
            for parameter in adapter_parameters(smollm2.model, "tuned").values():
                parameter.mul_(0.2)
        save_adapter(smollm2, "tuned", config, folder, torch.float32)
    finally:
        remove_adapter(smollm2, "tuned")
    return folder


@pytest.fixture(scope="session")
def second(tmp_path_factory) -> Path:
    """The shipped oracle under another name."""
    return Path(shutil.copytree(find_oracle("smollm2"), tmp_path_factory.mktemp("made") / "second"))


@pytest.fixture(scope="session")
def url(tuned, second) -> Iterator[str]:
    """A service with two oracles and two targets."""
    with serving("--oracle", "smollm2", "--oracle", str(second), "--target", str(tuned)) as found:
        yield found


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's own browser: none is downloaded."""
    assert Path(CHROMIUM).exists(), "chromium is missing: `make system-deps` installs it"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, url) -> Iterator[Page]:
    """The page, its first transcript's tokens already there; a fault in its scripts fails the test."""
    with opened(chromium, url) as found:
        found.locator(".chip").first.wait_for()
        yield found


@contextmanager
def opened(chromium: Browser, address: str, **settings) -> Iterator[Page]:
    """A page of a browser of its own."""
    context = chromium.new_context(**{"viewport": DESK, **settings})
    context.set_default_timeout(PATIENCE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    found, faults = context.new_page(), []
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    found.goto(address)
    try:
        yield found
        assert not [fault for fault in faults if "Failed to load resource" not in fault], (
            "replies are told, nothing else fails"
        )
    finally:
        context.close()


def chips(page: Page) -> list[int]:
    """Positions of the chips that are shown."""
    return page.eval_on_selector_all(".chip", "found => found.map(chip => Number(chip.dataset.at))")


def selected(page: Page) -> list[int]:
    """Positions that are selected."""
    return page.eval_on_selector_all(
        '.chip[aria-selected="true"]', "found => found.map(chip => Number(chip.dataset.at))"
    )


def write(page: Page, text: str) -> None:
    """One turn of a user, and its tokens."""
    page.get_by_label("Turn 1, user").fill(text)
    page.locator(".stale").wait_for()
    page.locator(".stale").wait_for(state="detached")


AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"


def faults(page: Page) -> list[str]:
    """What axe finds that is serious or critical."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    rows = [row for row in found["violations"] if row["impact"] in ("serious", "critical")]
    return [f"{row['id']}: {row['help']}: {row['nodes'][0]['html'][:200]}" for row in rows]


@pytest.fixture(scope="session")
def oracle(smollm2):
    """The same oracle in this process: what the page shows is compared with it."""
    import augury

    return augury.load_oracle("smollm2", smollm2)


@pytest.fixture(scope="session")
def target(smollm2, tuned):
    """The fine-tune in this process."""
    import augury

    return augury.load_model(smollm2, adapter=tuned)


def number(text: str) -> float:
    """A figure as the page writes it, with a real minus sign."""
    return float(text.replace("\N{MINUS SIGN}", "-"))


def panel(page: Page, name: str = "ask") -> Locator:
    """One of the tabs' panels: others hold fields of the same names."""
    return page.locator(f"#panel-{name}")


def whole(page: Page, count: int = 1) -> None:
    """Wait until so many answers are whole."""
    expect(page.locator(".result[aria-busy=false]:visible")).to_have_count(count, timeout=PATIENCE)
    expect(page.get_by_role("progressbar")).to_have_count(0, timeout=PATIENCE)


def table(page: Page, at: int = 0) -> list[list[str]]:
    """The cells of a shown table of controls; of the first column the name alone."""
    script = """(table) => {
        const text = row => [...row.querySelectorAll('td')].map(cell => cell.textContent);
        const name = row => row.querySelector('th').firstChild.textContent;
        return [...table.querySelectorAll('tbody tr')].map(row => [name(row), ...text(row)]);
    }"""
    return page.locator(".result table:visible").nth(at).evaluate(script)
