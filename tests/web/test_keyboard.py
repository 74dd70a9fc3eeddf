"""Every part of the page by keyboard alone: what has the focus is found by its name, as a screen reader says it."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.web.conftest import panel, selected, whole

NAME = """() => {
    const here = document.activeElement;
    const label = here.getAttribute('aria-label') ?? here.labels?.[0]?.textContent ?? here.textContent;
    return label.trim();
}"""


def to(page: Page, name: str, key: str = "Tab") -> None:
    """Go on until what has the focus is called so."""
    for _ in range(80):
        page.keyboard.press(key)
        if page.evaluate(NAME).startswith(name):
            return
    raise AssertionError(f"no way leads to {name!r}")


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_all_six_parts(page):
    to(page, "Turn 1, user")
    press(page, "Control+a")
    page.keyboard.type("A baker kneads the dough.")
    to(page, "Tokens")
    press(page, "Control+a")
    page.keyboard.type("5")
    to(page, "Generate", "Shift+Tab")
    press(page, "Enter")
    page.get_by_label("Turn 2, assistant").wait_for()
    page.get_by_role("group", name="assistant").wait_for()

    to(page, "All user tokens")
    press(page, "Enter")
    first = selected(page)
    to(page, "Tokens")
    press(page, "Home", "Escape", "Space", "Shift+ArrowRight", "Shift+ArrowRight")
    assert selected(page) == first[:3]

    to(page, "Ask")
    to(page, "Question")
    press(page, "Control+a")
    page.keyboard.type("What is this about?")
    to(page, "Controls")
    press(page, "Space")
    to(page, "Ask")
    press(page, "Enter")
    whole(page)

    to(page, "Ask", "Shift+Tab")
    while page.evaluate("document.activeElement.getAttribute('role')") != "tab":
        press(page, "Shift+Tab")
    press(page, "ArrowRight")
    assert page.evaluate(NAME) == "Scan"
    to(page, "Over")
    press(page, "ArrowDown")
    to(page, "Scan")
    press(page, "Enter")
    page.locator(".plot path").wait_for(state="attached")
    page.get_by_role("progressbar").wait_for(state="detached")

    page.get_by_role("tab", name="Scan").focus()
    press(page, "ArrowRight")
    assert page.evaluate(NAME) == "Compare"
    to(page, "Controls")
    assert panel(page, "compare").get_by_label("Controls").is_checked() is False, "one question, asked in two ways"
    to(page, "Compare")
    press(page, "Enter")
    whole(page, 3)

    page.get_by_role("tab", name="Compare").focus()
    press(page, "ArrowRight")
    assert page.evaluate(NAME).startswith("Keep (5)")
    to(page, "Link to this view")
    press(page, "Enter")
    page.get_by_text("The link is in the clipboard").wait_for()
    to(page, "Show again: What is this about?")
    press(page, "Enter")
    assert page.evaluate("document.querySelector('[role=tab][aria-selected=true]').textContent") == "Ask"
