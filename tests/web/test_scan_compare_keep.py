"""Scan, Compare and Keep: figures over position, readings side by side, and what is taken away and brought back."""

from __future__ import annotations

import json

import augury
from augury.activations import capture
from augury.lm import transcript_of
from tests.web.conftest import chips, number, opened, panel, selected, table, whole, write

TEXT = "A baker kneads the dough before dawn."
TURNS = [{"role": "user", "content": TEXT}]


def test_two_questions_over_every_token(page, oracle, smollm2):
    write(page, TEXT)
    page.get_by_role("tab", name="Scan").click()
    page.get_by_role("button", name="Add a question").click()
    page.get_by_label("Yes or no question 2", exact=True).fill("Is this about sport?")
    page.get_by_role("button", name="Scan", exact=True).click()
    page.locator(".plot path").nth(1).wait_for(state="attached")
    page.get_by_role("progressbar").wait_for(state="detached")
    page.get_by_text("The figures as a table").click()
    rows = page.locator("#panel-scan table tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )
    acts = capture(smollm2, transcript_of(smollm2, TURNS, "generation"), "62%", "all")
    for column, question in ((2, "Is this about cooking?"), (3, "Is this about sport?")):
        alone = oracle.scan(acts, question)
        assert len(rows) == len(alone.values)
        assert max(abs(number(row[column]) - value) for row, value in zip(rows, alone.values, strict=True)) < 0.02
    shown = chips(page)
    hottest = max(shown, key=lambda at: number(rows[at][2]))
    page.locator(f"#t{hottest}").hover()
    assert rows[hottest][2] in page.locator(".figures").inner_text()
    assert page.locator(f"#t{hottest}").get_attribute("aria-label").endswith(rows[hottest][2])
    alpha = "chip => Number(getComputedStyle(chip).backgroundColor.split(',')[3]?.replace(')', '') ?? 1)"
    strengths = {at: page.locator(f"#t{at}").evaluate(alpha) for at in shown}
    assert max(strengths, key=lambda at: abs(number(rows[at][2]))) == max(strengths, key=strengths.__getitem__)
    page.get_by_role("radio", name="Is this about sport?").check()
    assert page.locator(f"#t{hottest}").get_attribute("aria-label").endswith(rows[hottest][3])


def test_only_the_selected_tokens(page):
    page.get_by_role("tab", name="Scan").click()
    page.get_by_label("Over").select_option("the selected tokens")
    wanted = selected(page)
    page.get_by_role("button", name="Scan", exact=True).click()
    page.locator(".plot path").wait_for(state="attached")
    hot = page.eval_on_selector_all(".chip.hot", "found => found.map(chip => Number(chip.dataset.at))")
    assert hot == wanted


def test_base_fine_tune_and_difference_side_by_side(page, oracle, smollm2, target):
    page.get_by_role("tab", name="Compare").click()
    form = page.locator("#panel-compare")
    form.get_by_label("Samples").fill("0")
    form.get_by_role("button", name="Compare").click()
    whole(page, 3)
    positions = selected(page)
    turns = [{"role": "user", "content": page.get_by_label("Turn 1, user").input_value()}]
    context = transcript_of(smollm2, turns, "generation")
    plain, tuned = (capture(lm, context, "62%", positions) for lm in (smollm2, target))
    difference = augury.diff(tuned, plain)
    said = form.locator(".said").all_inner_texts()
    assert said == [oracle.ask(acts, "What is this about?").text for acts in (plain, tuned, difference)]
    form.get_by_text("Its controls").nth(2).click()
    assert "not available: a difference has no text" in {row[1] for row in table(page)}
    fields = [form.get_by_label(f"Read in column {i}") for i in (1, 2, 3)]
    assert [field.locator("option:checked").inner_text() for field in fields] == ["base", "tuned", "tuned minus base"]
    form.get_by_role("button", name="Remove column 1").click()
    assert form.locator(".said").all_inner_texts() == said[1:], "an answer goes with its column"
    page.get_by_role("tab", name="Keep (3)").click()
    kept = panel(page, "keep").locator("li p").all_inner_texts()
    assert sorted(line.split(" from ")[1] for line in kept) == ["base", "tuned", "tuned minus base"]


def test_two_oracles_side_by_side_and_one_column_that_is_refused(page):
    page.get_by_role("tab", name="Compare").click()
    form = page.locator("#panel-compare")
    form.get_by_label("Samples").fill("0")
    form.get_by_label("Controls").uncheck()
    form.get_by_label("Oracle of column 2").select_option("second")
    form.get_by_label("Read in column 2").select_option("base")
    page.route("**/v1/diff", lambda route: route.fulfill(status=400, json={
        "code": "input", "what": "These cannot be subtracted.", "why": "they are equal", "instead": "take others",
    }))  # fmt: skip
    form.get_by_role("button", name="Compare").click()
    whole(page, 2)
    first, other = form.locator(".said").all_inner_texts()
    assert first == other, "it is the same oracle under two names"
    assert "They are equal." in form.get_by_role("alert").inner_text()


def test_history_leaves_and_comes_back(chromium, url, page, tmp_path):
    panel(page).get_by_label("Samples").fill("0")
    panel(page).get_by_label("Controls").uncheck()
    page.get_by_role("button", name="Ask", exact=True).click()
    whole(page)
    said, where = page.locator(".said").inner_text(), selected(page)
    page.get_by_role("tab", name="Keep").click()
    kept = {}
    for name in ("JSON", "Markdown"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Export as {name}").click()
        kept[name] = tmp_path / download.value.suggested_filename
        download.value.save_as(kept[name])
    (entry,) = json.loads(kept["JSON"].read_text())["entries"]
    assert entry["results"][0]["text"] == said and entry["results"][0]["positions"] == where
    assert said in kept["Markdown"].read_text()
    page.reload()
    page.get_by_role("tab", name="Keep (1)").wait_for()
    with opened(chromium, url) as other:
        other.get_by_role("tab", name="Keep").click()
        other.locator(".chip").first.wait_for()
        write(other, TEXT)
        other.get_by_label("Import JSON").set_input_files(kept["JSON"])
        other.get_by_role("button", name="Show again: What is this about?").click()
        assert other.locator(".said").inner_text() == said
        other.get_by_role("option", name="loaf").wait_for()
        assert selected(other) == where
        other.get_by_role("tab", name="Keep").click()
        other.get_by_label("Import JSON").set_input_files(kept["JSON"])
        other.get_by_text("0 of 1 entries were new.").wait_for()
        kept["JSON"].write_text('{"format": "other"}')
        other.get_by_label("Import JSON").set_input_files(kept["JSON"])
        assert "no history of this page" in other.get_by_role("alert").inner_text().lower()
        assert other.locator(".history li").count() == 1, "what was there stays"


def test_a_link_restores_the_view(chromium, url, page):
    page.get_by_role("spinbutton", name="Tokens", exact=True).fill("6")
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("group", name="assistant").wait_for()
    page.get_by_role("button", name="All assistant tokens").click()
    where = selected(page)
    panel(page).get_by_label("Question", exact=True).fill("What comes next?")
    page.get_by_role("tab", name="Keep").click()
    page.get_by_role("button", name="Link to this view").click()
    page.get_by_text("The link is in the clipboard").wait_for()
    link = page.evaluate("navigator.clipboard.readText()")
    with opened(chromium, link) as other:
        other.get_by_role("group", name="assistant").wait_for()
        assert selected(other) == where
        assert panel(other).get_by_label("Question", exact=True).input_value() == "What comes next?"
        assert (
            other.get_by_label("Turn 2, assistant").input_value()
            == page.get_by_label("Turn 2, assistant").input_value()
        )
    with opened(chromium, link[:-40]) as broken:
        broken.locator(".chip").first.wait_for()
        assert "this link is broken" in broken.get_by_role("alert").inner_text().lower()
