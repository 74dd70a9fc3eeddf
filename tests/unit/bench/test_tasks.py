"""The builders of items: what they call true is what the model did, and what is read is where they say."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from augury.bench.build import build_items
from augury.bench.item import read_items, write_items
from augury.bench.published import LETTERS
from augury.bench.published_items import QWEN3_8B
from augury.bench.run import Bench, run_bench
from augury.bench.task import NO, REGISTRY, YES, Build, NotMeasurable
from augury.bench.tasks import classification, missing_info, multiple_choice, reasoning, system_prompts, topics
from augury.errors import ContractError, FormatError
from tests.tiny import tiny_lm
from tests.unit.bench.conftest import SMALL

CHAIN = (
    "First I look at the numbers that are given in the problem. Then I add them up one by one, with care. "
    "The sum is larger than I thought it would be. Wait, I have counted one of them twice. So I go back to the start. "
    "Now the result is smaller and fits what is asked for. That is the answer, as far as I can see."
)


def chains(lm, turns, sampling, told):
    """One for each problem, which differ in what they take back."""
    return [(None, CHAIN.replace("Wait, I", f"Wait, number {i}: I")) for i in range(len(turns))]


def text_of(lm, item, places=None):
    return lm.tokenizer.decode(
        [item.token_ids[i] for i in (places if places is not None else range(len(item.token_ids)))]
    )


@pytest.mark.parametrize(("shown", "why"), [("user", "user"), ("assistant", "assistant"), ("system", None)])
def test_a_template_that_changes_the_words_is_told(shown, why):
    """The words of a turn are found as they are, or nothing can be read there."""
    changed = tiny_lm()
    changed.tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content | upper if m.role == '" + shown + "' else m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    for name in ("topics", "system_prompts"):
        found = build_items(changed, REGISTRY.items[name], 8, 0, lambda *_: None).manifest
        if why is not None:
            assert found.unmeasurable == f"its chat template does not hold the words of the {why}"
        else:
            told = "its chat template does not hold a system prompt as it is"
            assert found.unmeasurable == (told if name == "system_prompts" else None)


@pytest.fixture
def knowing(monkeypatch):
    """A model that is right about two of three questions, and says what its user says where that begins with I."""

    def letters(lm, conversations):
        found = []
        for turns in conversations:
            text = turns[0]["content"]
            (question,) = (q for q in multiple_choice.questions(0) if text.startswith(f"{q.text}\nA) {q.options[0]}\n"))
            own = question.right if len(question.id) % 3 else next(x for x in LETTERS if x != question.right)
            opinion = text.split("with the letter only.")[1].strip()
            said = next((x for x in LETTERS if f" {x}) " in f" {opinion}"), None)
            found.append(said if said and opinion.startswith("I") else own)
        return found

    monkeypatch.setattr(multiple_choice, "_letters", letters)
    return letters


def test_questions_have_one_right_option():
    found = multiple_choice.questions(3)
    assert len(found) > 150 and len({question.id for question in found}) == len(found)
    for question in found:
        assert len(set(question.options)) == 4 and question.option(question.right) in question.options
    places = Counter(question.right for question in found)
    assert min(places.values()) > len(found) / 4 * 0.7, "no letter is the right one more often"


def test_multiple_choice_is_labelled_by_what_the_model_answers(lm, knowing):
    items = list(multiple_choice.build(Build(lm)))
    assert Counter(item.facts["truth"] for item in items) == {YES: len(items) / 2, NO: len(items) / 2}
    for item in items:
        right = item.facts["model_answer"] == item.facts["true_answer"]
        assert (item.facts["truth"] == YES) == right
        last = text_of(lm, item, item.positions[-1:])
        assert last == (item.facts["model_answer"] if multiple_choice.after(item) else "\n")
    before = [item for item in items if multiple_choice.before(item)]
    assert 2 * len(before) == len(items)


def test_a_model_at_chance_is_not_measured(lm, monkeypatch):
    monkeypatch.setattr(multiple_choice, "_letters", lambda lm, asked: ["A"] * len(asked))
    with pytest.raises(NotMeasurable, match="at chance"):
        list(multiple_choice.build(Build(lm)))


def test_sycophancy_tells_turned_answers_from_the_models_own(lm, knowing, monkeypatch):
    monkeypatch.setattr(multiple_choice, "THINKERS", 0)
    counted = Build(lm)
    items = list(multiple_choice.build_sycophancy(counted))
    assert Counter(item.facts["truth"] for item in items) == {YES: len(items) / 2, NO: len(items) / 2} and items
    for item in items:
        text = text_of(lm, item)
        own = knowing(lm, [[{"role": "user", "content": text.split("user\n")[1].split("only.")[0] + "only."}]])[0]
        said = text_of(lm, item, item.positions[-1:])
        assert (item.facts["truth"] == NO) == (said == own)
        assert f" {said}) " in text.split("only.")[1], "it agrees with the opinion"
    assert counted.counts["plain turned"] >= len(items) / 2 and counted.counts["thought turned"] == 0


@pytest.mark.parametrize(
    ("text", "letter"),
    [("So it is B. Answer: C", "C"), ("answer is (d).", "D"), ("Answer: A ... no. Answer: B.", "B"), ("no idea", None),
     ("The answer: Apples are A", None)],
)  # fmt: skip
def test_the_final_letter_of_a_chain_of_thought(text, letter):
    assert multiple_choice.final_letter(text) == letter


@pytest.fixture
def thinking(monkeypatch):
    monkeypatch.setattr(reasoning, "written", lambda lm, turns, sampling, told: [(None, CHAIN)] * len(turns))


def test_points_stand_where_they_say(lm, thinking):
    items = list(reasoning.build(Build(lm, size=120)))
    problems = {item.problem for item in items}
    assert len(problems) == 30 and len(items) == 30 * reasoning.POINTS
    assert len({item.problem for item in items[:30]}) == 30, "each beginning has all problems"
    for item in items[::7]:
        before, behind = item.facts["reference"].split("\nIt goes on: ")
        written = text_of(lm, item, item.positions).strip()
        assert before.endswith(written[-20:]) and f"{written} {behind[:-3]}"[-60:] in CHAIN + " "
        assert item.positions[-1] == len(item.token_ids) - 1


def test_backtracking_counts_where_it_happens_again(lm, monkeypatch):
    monkeypatch.setattr(reasoning, "written", chains)
    assert [CHAIN[place:].strip()[:4] for place in reasoning.turning_points(CHAIN)] == ["Wait"]
    rates = iter([0.0, 0.3, 0.4, 1.0] * 1000)
    monkeypatch.setattr(reasoning, "_rates", lambda wanted, points: [next(rates) for _ in points])
    counted = Build(lm, size=60)
    items = list(reasoning.build_backtracking(counted))
    assert counted.counts == {"chains": 120, "turning": 120, "consistent": 60}
    for item in items:
        options = dict(line.split(") ", 1) for line in item.facts["options"].splitlines())
        assert options[item.facts["truth"]].startswith("Wait") and len(set(options.values())) == 4
        assert not text_of(lm, item).rstrip().endswith("Wait")
    monkeypatch.setattr(reasoning, "_rates", lambda wanted, points: [0.0] * len(points))
    with pytest.raises(NotMeasurable, match="fewer than 30 points"):
        list(reasoning.build_backtracking(Build(lm, size=60)))


def test_a_model_that_takes_nothing_back_is_given_up_early(lm, monkeypatch):
    monkeypatch.setattr(reasoning, "written", lambda lm, turns, sampling, told: [(None, "So. " * 40)] * len(turns))
    with pytest.raises(NotMeasurable) as told:
        list(reasoning.build_backtracking(Build(lm, size=60)))
    assert told.value.counts == {"chains": 60, "turning": 0, "consistent": 0}


@pytest.mark.parametrize(
    "text", ["Wait, no.", "  hmm let me see", "Actually it is 7", "No, that is wrong", "Let me re-read"]
)
def test_markers(text):
    assert reasoning.takes_back(text) and not reasoning.takes_back(f"So {text}")


def test_only_what_follows_the_instruction_is_read(lm):
    items = list(system_prompts.build(Build(lm, size=30)))
    assert len({item.problem for item in items}) == 24
    for item in items[::5]:
        assert item.facts["reference"] not in text_of(lm, item, item.positions)
        assert item.facts["reference"] in text_of(lm, item)
        system = next(span for span in item.spans if span[0] == "system")
        assert min(item.positions) >= system[2]


def test_classes_are_asked_both_ways(lm):
    items = list(classification.build(Build(lm)))
    by_text = {}
    for item in items:
        by_text.setdefault(item.problem, []).append(item.facts["truth"])
    assert all(sorted(truths) == [NO, YES] for truths in by_text.values())
    assert len({len(item.positions) for item in items}) == 1, "how many there are tells nothing"
    assert {item.facts["family"] for item in items[:24]} == {item.facts["family"] for item in items}
    assert Counter(map(classification.known, items)) == {True: len(items) / 2, False: len(items) / 2}


def test_topics_are_named_in_their_request(lm):
    items = list(topics.build(Build(lm, size=40)))
    assert len(items) == 40
    for item in items:
        text = text_of(lm, item).casefold()
        names = [item.facts["truth"], *item.facts["also"].split("|")]
        assert any(name.casefold() in text for name in names if name)


def published(folder, file, entries):
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"metadata": {}, "entries": entries}))


def test_published_sets_load_as_they_are(lm, tmp_path):
    published(tmp_path, multiple_choice.PUBLISHED, [
        {"id": "m1", "question": "What?", "subject": "x", "choices": list("wxyz"), "correct_answer_letter": "B",
         "model_answer_letter": "C"}])  # fmt: skip
    entry = {"problem_id": "p", "problem": "How many?", "prefix": "I count.", "original_continuation": "Wait, no.",
             "uncertainty_description": "the count", "mc_options": list("abcd"), "mc_correct_index": 2,
             "rollout_idx": 0, "char_pos": 8}  # fmt: skip
    published(tmp_path, reasoning.PUBLISHED, [entry])
    (tmp_path / "vagueness").mkdir()
    (tmp_path / reasoning.PROMPTS).write_text(json.dumps({"prompts": ["What now?"]}))
    published(tmp_path, system_prompts.PUBLISHED, [
        {"id": "s", "system_prompt": "Be sly.", "user_prompt": "Hi", "assistant_response": "Yes", "ground_truth": "sly"}
    ])  # fmt: skip
    published(tmp_path, system_prompts.PERSONAS, [
        {"id": "l", "system_prompt": "Be Ada.", "user_prompt": "Ho", "assistant_response": "No", "ground_truth": "Ada"}
    ])  # fmt: skip
    said = {"problem_id": "p", "full_reasoning": "I add them. ", "neutral_segment": "So I go on.",
            "neutral_segment_token_count": 4}  # fmt: skip
    published(tmp_path, missing_info.PUBLISHED, [
        {**said, "id": f"p_s0_{c[0]}", "condition": c, "problem_text": f"Add {c}",
         "ground_truth_missing_info": c[0] != "A", "teacher_forced_segment": "" if c[0] == "B" else "So I go on."}
        for c in ("A_complete", "B_incomplete", "C_forced")])  # fmt: skip
    loaded = {name: REGISTRY.items[name].load(Build(lm), tmp_path) for name in
              ("multiple_choice", "reasoning", "backtracking", "system_prompts", "missing_info")}  # fmt: skip
    assert [item.facts["reference"] for item in loaded["system_prompts"].items] == ["sly", "Ada"]
    whole, lacking, forced = loaded["missing_info"].items
    assert [item.facts["truth"] for item in (whole, lacking, forced)] == [NO, YES, YES]
    assert {len(item.positions) for item in (whole, lacking, forced)} == {4}
    assert (
        text_of(lm, whole, whole.positions)
        == text_of(lm, forced, forced.positions)
        != text_of(lm, lacking, lacking.positions)
    )
    assert {item.facts["pair"] for item in (whole, lacking, forced)} == {"p_s0"}
    before, after = loaded["multiple_choice"].items
    assert before.facts["truth"] == NO and after.facts["model_answer"] == "C"
    (point,) = loaded["backtracking"].items
    assert point.facts["truth"] == "C" and text_of(lm, point).endswith("assistant\nI count.")
    assert text_of(lm, point, point.positions) == "I count."
    assert loaded["reasoning"].items[0].facts["ask"] == "What now?"
    assert "Be sly" not in text_of(lm, loaded["system_prompts"].items[0], loaded["system_prompts"].items[0].positions)
    for found in loaded.values():
        assert found.manifest.model == QWEN3_8B
        path = tmp_path / "items.jsonl"
        write_items(path, found)
        assert read_items(path) == found
    published(tmp_path, multiple_choice.PUBLISHED, [{"id": "m1"}])
    with pytest.raises(FormatError, match="published form"):
        multiple_choice.load(Build(lm), tmp_path)


def test_items_about_another_model_are_refused(oracle, tmp_path):
    published(tmp_path, multiple_choice.PUBLISHED, [
        {"id": "m1", "question": "What?", "subject": "x", "choices": list("wxyz"), "correct_answer_letter": "B",
         "model_answer_letter": "C"}])  # fmt: skip
    with pytest.raises(ContractError, match=r"(?s)about another model.*Qwen3-8B"):
        run_bench(oracle, Bench(SMALL, ("mmlu_prediction",), data=tmp_path), tmp_path / "run")


def test_a_published_folder_of_classes(lm, tmp_path):
    place = tmp_path / "classification"
    place.mkdir()
    rows = (("a", "gmt", ["gmt"], ["true", "false"]), ("b", "engels", ["engels", "b"], ["x", "y"]),
            ("c", "tense", ["tense"], ["p", "q", "r"]))  # fmt: skip
    index = {name: {"file": f"{name}.jsonl", "group": group, "paraphrase_path": path, "labels": labels}
             for name, group, path, labels in rows}  # fmt: skip
    (place / "index.json").write_text(json.dumps(index))
    wordings = {
        "gmt": ["True?", "Is it true?", "So?"],
        "engels": {"b": {"x": ["X?"] * 3, "y": ["Y?"] * 3}},
        "tense": [],
    }
    (place / "paraphrases.json").write_text(json.dumps(wordings))
    for name, labels in (("a", ("true", "false")), ("b", ("x", "y"))):
        rows = [{"text": f"{name} {i}", "label": labels[i % 2]} for i in range(6)]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = classification.load(Build(lm), tmp_path).items
    of_a = [item for item in found if item.facts["family"] == "a"]
    assert [item.facts["truth"] for item in of_a] == [YES, NO] * 3 and all(map(classification.known, of_a))
    of_b = [item for item in found if item.facts["family"] == "b"]
    assert len(of_b) == 12 and {item.facts["ask0"] for item in of_b} == {"X?", "Y?"}
    assert all(map(classification.new, of_b)) and len(of_a) + len(of_b) == len(found)


def test_what_gives_no_item_says_so(lm, monkeypatch):
    monkeypatch.setattr(reasoning, "written", lambda lm, turns, sampling, told: [(None, "x")] * len(turns))
    found = build_items(lm, REGISTRY.items["reasoning"], 60, 0, lambda *_: None)
    assert found.items == () and "no item" in found.manifest.unmeasurable
