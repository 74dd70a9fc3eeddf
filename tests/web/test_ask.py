"""Ask: the page's answers are the oracle's, their controls stand beside them, and say in words what they mean."""

from __future__ import annotations

from augury.activations import capture
from augury.lm import transcript_of
from augury.oracle.consensus import normalise_answer
from tests.web.conftest import number, panel, selected, table, whole, write

BREAD = [{"role": "user", "content": "Explain in a few sentences how to bake a simple loaf of bread."}]


def local(page, lm):
    """What is selected on the page, captured here."""
    return capture(lm, transcript_of(lm, BREAD, "generation"), "62%", selected(page))


def test_a_greedy_answer_and_its_controls(page, oracle, smollm2):
    panel(page).get_by_label("Samples").fill("0")
    panel(page).get_by_label("Question", exact=True).fill("What was the model asked to do?")
    page.get_by_role("button", name="Ask", exact=True).click()
    whole(page)
    alone = oracle.ask(local(page, smollm2), "What was the model asked to do?", controls=True)
    assert page.locator(".said").inner_text() == alone.text
    rows = {name: cells for name, *cells in table(page)}
    assert list(rows) == ["activations", "none", "shuffled", "text-window", "text-all", "untrained"]
    for name, control in alone.controls.items():
        assert normalise_answer(rows[name][0]) == normalise_answer(control.text)
        long = len(control.text.split()) > 5 and not control.same_as_real
        assert rows[name][2] == ("too long" if long else f"{100 * control.same_as_real:.0f}%")
    marks = panel(page).locator(".marks").inner_text()
    assert "too long to be compared" in marks, "more than five words are never equal to the letter"


def test_marks_say_what_the_controls_give(page, oracle, smollm2):
    panel(page).get_by_label("Samples").fill("0")
    page.get_by_role("button", name="Ask", exact=True).click()
    whole(page)
    alone = oracle.ask(local(page, smollm2), "What is this about?", controls=True)
    blind = max(alone.controls[name].same_as_real for name in ("none", "shuffled"))
    marks = panel(page).locator(".marks").inner_text()
    assert len(alone.text.split()) <= 5
    assert ("does not change with the activations" in marks) == (blind == 1)
    assert ("✓ changes with the activations" in marks) == (blind <= 0.5)


def test_an_answer_is_marked_once_the_transcript_is_another(page):
    panel(page).get_by_label("Controls").uncheck()
    page.get_by_role("button", name="Ask", exact=True).click()
    whole(page)
    assert page.get_by_text("This is about an earlier transcript.").count() == 0
    write(page, "Something else.")
    page.get_by_text("This is about an earlier transcript.").wait_for()


def test_what_was_stopped_says_so_and_is_kept(page):
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("The controls are being asked.").wait_for()
    page.get_by_role("button", name="Stop").focus()
    page.keyboard.press("Enter")
    page.get_by_text("It ended before all of its controls were run.").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Ask", "the keyboard's place is not lost"
    page.get_by_role("tab", name="Keep (1)").wait_for()


def test_samples_come_with_their_agreement(page):
    panel(page).get_by_label("Samples").fill("8")
    panel(page).get_by_label("Controls").uncheck()
    page.get_by_role("button", name="Ask", exact=True).click()
    whole(page)
    assert "of 8 samples" in page.locator(".result").inner_text()
    assert panel(page).locator(".marks li").count() == 1 and "agree" in panel(page).locator(".marks").inner_text()
    assert [name for name, *_ in table(page)] == ["activations"]


def test_an_answer_streams(page):
    """What is being written is seen before the answer, and the answer before its controls."""
    page.evaluate(
        """() => { window.seen = []; new MutationObserver(() => {
            const result = document.querySelector('.result'); if (!result) return;
            const writing = result.querySelector('.pending, .samples');
            const rows = result.querySelectorAll('tbody tr').length;
            window.seen.push(writing ? 'writing' : rows);
        }).observe(document.body, {subtree: true, childList: true, characterData: true}); }"""
    )
    page.get_by_role("button", name="Ask", exact=True).click()
    whole(page)
    seen = page.evaluate("window.seen")
    assert seen[0] == "writing" and 1 in seen and seen[-1] == 6
    numbers = [state for state in seen if state != "writing"]
    assert numbers == sorted(numbers) and len(set(numbers)) > 2, "controls come one after the other"


def test_a_yes_no_question(page, oracle, smollm2):
    panel(page).get_by_role("radio", name="Yes or no").check()
    panel(page).get_by_label("Question: questions often asked").select_option("Is this about cooking?")
    page.get_by_role("button", name="Ask", exact=True).click()
    whole(page)
    alone = oracle.score(local(page, smollm2), "Is this about cooking?", controls=True)
    assert page.locator(".said").inner_text() == alone.choice == "Yes"
    rows = {name: cells for name, *cells in table(page)}
    for name, found in (("activations", alone), *alone.controls.items()):
        margin = number(rows[name][2])
        assert abs(margin - found.margin) < 0.02 and rows[name][0] == found.choice
    assert "more of a Yes than 100% of 32 other texts" in panel(page).locator(".marks").inner_text()


def test_a_question_is_asked_by_keyboard_alone(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent.trim()") == "To the questions"
    page.keyboard.press("Enter")
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "ask":
            break
    page.keyboard.press("Control+a")
    page.keyboard.type("What comes next?")
    page.keyboard.press("Enter")
    whole(page)
    assert page.locator(".asked").inner_text() == "What comes next?"


def test_a_refusal_says_what_to_do_and_the_next_question_is_answered(page):
    page.route("**/v1/ask", lambda route: route.abort())
    page.get_by_role("button", name="Ask", exact=True).click()
    assert "Check that it runs" in page.get_by_role("alert").inner_text()
    page.unroute("**/v1/ask")
    page.get_by_role("button", name="Ask", exact=True).click()
    whole(page)
    assert page.get_by_role("alert").count() == 0


def test_activations_that_the_service_forgot_are_captured_again(page):
    panel(page).get_by_label("Controls").uncheck()
    with page.expect_response("**/v1/capture") as captured:
        page.get_by_role("button", name="Ask", exact=True).click()
    whole(page)
    handle = captured.value.json()["handle"]
    page.evaluate("handle => fetch('v1/activations/' + handle, {method: 'DELETE'})", handle)
    with page.expect_response("**/v1/capture"):
        page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("progressbar").wait_for(state="detached")
    assert page.get_by_role("alert").count() == 0
