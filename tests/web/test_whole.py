"""The page as a whole: it opens at once, keeps to its policy, asks for a token, and can be used by everyone."""

from __future__ import annotations

import pytest

from augury.oracle.hub import find_oracle
from tests.web.conftest import DESK, PHONE, faults, opened, panel, serving, whole, write

TOKEN = "the-token-of-ana-123"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_serious(chromium, url, scheme, size):
    with opened(chromium, url, viewport=size, color_scheme=scheme) as page:
        page.locator(".chip").first.wait_for()
        panel(page).get_by_label("Controls").uncheck()
        page.get_by_role("button", name="Ask", exact=True).click()
        whole(page)
        found = faults(page)
        page.get_by_role("tab", name="Scan").click()
        page.get_by_label("Over").select_option("the selected tokens")
        page.get_by_role("button", name="Scan", exact=True).click()
        page.locator(".plot path").wait_for(state="attached")
        for tab in ("Scan", "Compare", "Keep"):
            page.get_by_role("tab", name=tab).click()
            found += faults(page)
        assert found == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing stands out sideways"


def test_axe_finds_faults(page):
    page.evaluate("document.querySelector('main').append(document.createElement('img'))")
    assert any("image-alt" in fault for fault in faults(page)), "the check can fail"


def test_the_first_paint_comes_within_a_second(chromium, url):
    with opened(chromium, url) as page:
        page.locator(".chip").first.wait_for()
        paints = page.evaluate("performance.getEntriesByType('paint').map(paint => [paint.name, paint.startTime])")
        assert dict(paints)["first-contentful-paint"] < 1000
        sent = page.evaluate("performance.getEntriesByType('resource').map(entry => new URL(entry.name).host)")
        assert set(sent) == {page.evaluate("location.host")}, "nothing comes from elsewhere"


def test_scripts_that_are_not_the_pages_own_do_not_run(chromium, url):
    with opened(chromium, url) as page:
        reply = page.request.get(url)
        assert "script-src 'self'" in reply.headers["content-security-policy"]
    context = chromium.new_context()
    page = context.new_page()
    page.goto(url)
    script = "const made = document.createElement('script'); made.textContent = 'window.ran = 1';"
    page.evaluate(f"() => {{ {script} document.body.append(made); }}")
    assert page.evaluate("window.ran") is None
    context.close()


def test_what_a_model_writes_is_text_and_never_markup(page):
    write(page, "<img src=x onerror=window.ran=1> <b>bold</b>")
    assert "onerror" in page.locator("#tokens").inner_text()
    assert page.locator("#tokens img, #tokens b").count() == 0 and page.evaluate("window.ran") is None


def test_a_token_is_asked_for_and_kept_in_the_tab_alone(chromium, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"ana: {TOKEN}\n")
    tokens.chmod(0o600)
    with serving("--oracle", str(find_oracle("smollm2")), "--token-file", str(tokens)) as url:
        with opened(chromium, url) as page:
            page.get_by_label("This service asks for a token").fill("a-wrong-token-1234")
            page.get_by_role("button", name="Enter").click()
            assert "is not known here" in page.get_by_role("alert").inner_text()
            page.get_by_label("This service asks for a token").fill(TOKEN)
            page.keyboard.press("Enter")
            page.locator(".chip").first.wait_for()
            page.reload()
            page.locator(".chip").first.wait_for()
            assert TOKEN not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
            page.get_by_role("tab", name="Compare").click()
            page.get_by_text("There is nothing to compare here").wait_for()
        with opened(chromium, url) as other:
            other.get_by_label("This service asks for a token").wait_for()


def test_colours_are_remembered(page):
    page.get_by_label("Colours").select_option("Dark")
    page.reload()
    page.locator(".chip").first.wait_for()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
