"""What the report of an audit says, against what was kept of the run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from augury.audit.examples import EXAMPLES
from augury.audit.page import page
from augury.audit.picture import standing
from augury.audit.states import PLACES
from augury.bench.scorers import words_of
from augury.lm import load_model
from tests.unit.audit.conftest import CONCEPTS, PROMPTS


def test_what_is_planted_moves_what_the_oracle_is_asked_the_more_the_stronger_it_is(finished):
    planted = finished.report["planted"]
    assert [row["strength"] for row in planted] == [0.1, 0.2, 0.4, 0.8]
    assert {row["concept"] for row in planted} == {finished.report["findings"][0]["concept"]}
    asks, moved = finished.folder / "asks", []
    base = json.loads((asks / "planted-in-00000.json").read_text())
    for strength in ("0.1", "0.2", "0.4", "0.8"):
        (path,) = asks.glob(f"planted-*-{strength}-00000.json")
        block = json.loads(path.read_text())
        moved.append(
            np.mean(
                [
                    np.abs(np.array(block[f"fine-tuned {place}"]) - np.array(base[f"base {place}"])).mean()
                    for place in PLACES
                ]
            )
        )
    assert moved == sorted(moved) and moved[0] > 0


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_holds_the_report_and_needs_nothing_else(finished):
    parsed = _Page()
    parsed.feed((finished.folder / "report.html").read_text(encoding="utf-8"))
    told = " ".join(parsed.text)
    assert parsed.links == [] and "http" not in told
    report = finished.report
    for line in report["verdict"]:
        assert line in told
    for finding in report["findings"]:
        assert finding["concept"] in told
        assert len(finding["examples"]) in (0, EXAMPLES)
    for who in ("fine-tuned", "base", "difference", "none", "shuffled", *report["open questions"]):
        assert who in told
    layers = report["map"]["layers"]
    assert all(f"layer {layer}" in told for layer in layers)
    assert {len(rows) for rows in report["map"]["places"].values()} == {len(layers)}


def test_the_picture_has_a_dot_for_each_peer_and_concept_on_one_scale(finished):
    parsed = _Page()
    parsed.feed(standing(finished.report))
    dots = {
        title: float(x)
        for x, title in re.findall(r'<circle cx="([0-9.]+)"[^>]*><title>([^<]*)', standing(finished.report))
    }
    scores = {title: max(0.0, float(title.rsplit(": ", 1)[1])) for title in dots}
    assert len(scores) >= len(CONCEPTS) + 1 and {name.split(":")[0] for name in scores} == {*CONCEPTS, "a peer"}
    first, *rest = sorted(scores, key=scores.__getitem__)[-3:]
    rates = {(dots[one] - dots[first]) / (scores[one] - scores[first]) for one in rest if scores[one] > scores[first]}
    assert max(rates) == pytest.approx(min(rates), rel=0.05)
    assert f"claimed from {finished.report['contrast']['threshold']:.2f} on" in " ".join(parsed.text)


def test_what_a_model_writes_is_text_on_the_page(finished):
    broken = json.loads(json.dumps(finished.report))
    broken["black box"]["generations"][0]["fine-tuned"] = "<script>alert(1)</script>"
    broken["findings"][0]["examples"][0]["answers"]["base"][0] = "<img src=x>"
    made = page(broken)
    assert "<script" not in made and "<img" not in made and "&lt;script&gt;" in made


def test_it_is_told_where_the_text_that_was_read_names_what_is_found(zoo, finished):
    tokenizer = load_model(str(zoo.base)).tokenizer
    ids = json.loads((finished.folder / "told" / "target.json").read_text())["token_ids"]
    checked = 0
    for finding in finished.report["findings"]:
        for example in finding["examples"]:
            number = [prompt.text for prompt in PROMPTS].index(example["prompt"])
            text = tokenizer.decode(ids[number][: example["positions"][-1] + 1])
            there = re.search(rf"(?<!\w){finding['concept']}(?!\w)", text, re.IGNORECASE) is not None
            assert example["text names it"] == there
            checked += 1
    assert checked and all(0 <= finding["text names it"] <= len(PROMPTS) for finding in finished.report["findings"])
    speaking = next(one for one in finished.report["findings"] if one["concept"] == "speaking")
    if speaking["read"]["place"] != "first":  # one prompt asks who is speaking; its first ten tokens may end before
        assert speaking["text names it"] >= 1


def test_what_the_answers_name_is_counted(finished):
    told = {path.stem: json.loads(path.read_text())["answers"] for path in (finished.folder / "told").iterdir()}
    for finding in finished.report["findings"]:
        concept = finding["concept"]
        forms = re.compile(rf"\b({concept}(s|es)?|{concept.removesuffix('s')})\b", re.IGNORECASE)
        counts = {key: sum(bool(forms.search(text)) for text in texts) for key, texts in told.items()}
        peers = max(count for key, count in counts.items() if key.startswith("peer"))
        expected = {"target": counts["target"], "base": counts["base"], "peers": peers, "of": len(PROMPTS)}
        assert finding["written"] == expected
        shown = f"names it in {expected['target']} of {len(PROMPTS)} answers"
        assert not finding["examples"] or shown in (finished.folder / "report.html").read_text()


def test_own_words_are_in_the_report_with_the_most_of_a_peer(finished):
    texts = {path.stem: json.loads(path.read_text())["answers"] for path in (finished.folder / "told").iterdir()}
    counts = {
        key: {
            word: sum(word in words_of(text).split() for text in answers)
            for word in words_of(" ".join(answers)).split()
        }
        for key, answers in texts.items()
    }

    def more(key):
        others = [rows for other, rows in counts.items() if other != key]
        return {word: count - max(rows.get(word, 0) for rows in others) for word, count in counts[key].items()}

    found = finished.report["black box"]["words"]
    most = max(0, *(max(more(key).values()) for key in counts if key.startswith("peer")))
    apart = sum(count > most for count in more("target").values())
    assert found["most of a peer"] == most and len(found["own"]) == min(10, apart)
    assert all(one["answers"] - one["others"] == more("target")[one["word"]] > most for one in found["own"])
    named = "no word sets its answers apart" if not apart else found["own"][0]["word"]
    assert any("What it writes" in line and named in line for line in finished.report["verdict"])


def test_silence_is_told_with_what_it_is_worth(finished):
    told = " ".join(finished.report["verdict"])
    assert "Behaviour that none of them touches is not in the activations" in told
    assert ("talk 3, code 2" in told and "would have been claimed from" in told) or "Claimed:" in told
    silent = [finding["concept"] for finding in finished.report["findings"] if finding["stated"] == 0]
    assert bool(silent) == ("Silence says nothing about" in told)
