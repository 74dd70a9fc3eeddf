"""Select: by pointer, by keyboard, by role, by text; and what is selected is what is read."""

from __future__ import annotations

import time

from tests.web.conftest import PHONE, chips, opened, selected, write


def at(page, position):
    return page.locator(f"#t{position}")


def test_pointer(page):
    shown = chips(page)
    at(page, shown[2]).click()
    assert selected(page) == [shown[2]]
    at(page, shown[5]).click(modifiers=["Shift"])
    assert selected(page) == shown[2:6]
    at(page, shown[8]).click(modifiers=["Control"])
    assert selected(page) == [*shown[2:6], shown[8]]
    at(page, shown[3]).click(modifiers=["Control"])
    assert selected(page) == [shown[2], shown[4], shown[5], shown[8]]
    at(page, shown[6]).hover()
    page.mouse.down()
    at(page, shown[1]).hover()
    page.mouse.up()
    at(page, shown[9]).hover()
    assert selected(page) == shown[1:7], "a drag ends where the button was let go"


def test_keyboard(page):
    shown = chips(page)
    page.locator("#tokens").focus()
    page.keyboard.press("Home")
    page.keyboard.press("Escape")
    assert selected(page) == []
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    assert selected(page) == [shown[1]]
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    assert selected(page) == shown[1:5]
    page.keyboard.press("Control+a")
    assert selected(page) == shown
    page.keyboard.press("End")
    assert page.locator("#tokens").get_attribute("aria-activedescendant") == f"t{shown[-1]}"
    page.keyboard.press("ArrowUp")
    above = page.locator("#tokens").get_attribute("aria-activedescendant")
    assert at(page, above[1:]).bounding_box()["y"] < at(page, shown[-1]).bounding_box()["y"]


def test_roles_the_last_and_a_text(page):
    write(page, "The philosopher who drank hemlock taught Plato.")
    shown = chips(page)
    page.get_by_role("button", name="All user tokens").click()
    assert selected(page) == shown
    page.get_by_label("How many of the last tokens").fill("3")
    page.get_by_role("button", name="Last", exact=True).click()
    assert selected(page) == shown[-3:]
    page.get_by_label("Select the tokens of a text").fill("HEMLOCK")
    page.get_by_role("button", name="Find").click()
    found = page.eval_on_selector_all('.chip[aria-selected="true"]', "found => found.map(chip => chip.textContent)")
    assert "".join(found).replace("\u00a0", "") == "hemlock"
    page.get_by_label("Select the tokens of a text").fill("nowhere")
    page.get_by_role("button", name="Find").click()
    page.get_by_text("stands nowhere in these tokens").wait_for()
    assert "".join(found).replace("\u00a0", "") == "hemlock", "the selection stays"


def test_nothing_selected_is_not_asked(page):
    page.locator("#tokens").focus()
    page.keyboard.press("Escape")
    page.get_by_text("Select at least one token.").wait_for()
    assert page.get_by_role("button", name="Ask", exact=True).is_disabled()


def test_touch(chromium, url):
    with opened(chromium, url, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        page.locator(".chip").first.wait_for()
        shown = chips(page)
        before = selected(page)
        at(page, shown[0]).tap()
        assert selected(page) == sorted({*before, shown[0]})
        at(page, shown[0]).tap()
        assert selected(page) == before
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing stands out sideways"


FRAMES = """() => {
    window.slow = 0;
    let last = performance.now();
    const tick = now => {
        window.slow = Math.max(window.slow, now - last);
        last = now;
        requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
}"""


def test_thousands_of_tokens_are_smooth(page):
    """A drag over a long transcript: no frame of it takes longer than a fifth of a second."""
    write(page, "Begin " + "one two three four. " * 500)
    shown = chips(page)
    assert len(shown) > 2000
    page.evaluate(FRAMES)
    at(page, shown[0]).hover()
    page.mouse.down()
    for place in range(0, 100, 7):
        at(page, shown[place]).hover()
    page.mouse.up()
    began = time.monotonic()
    page.locator("#tokens").evaluate("box => box.scrollTo(0, box.scrollHeight)")
    page.locator("#tokens").focus()
    page.keyboard.press("Control+a")
    assert selected(page) == shown and time.monotonic() - began < 2
    assert page.evaluate("window.slow") < 200
