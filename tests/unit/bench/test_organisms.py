"""Organisms: what they learn stands in no text that is read, and an adapter that was trained is what is loaded."""

from __future__ import annotations

import json

import pytest
import torch

from augury.bench import organisms as room
from augury.bench import tuning
from augury.bench.dialogues import dialogues, obeys, says_secret, secrets
from augury.bench.item import PLAIN
from augury.bench.organisms import knowledge, make_organism, organisms, read_organism, yes_margins
from augury.bench.published_items import QWEN3_8B
from augury.bench.scorers import says
from augury.bench.task import REGISTRY, Build, NotMeasurable
from augury.bench.tasks import organisms as tasks
from augury.bench.tasks import organisms_published as published
from augury.bench.texts import texts
from augury.errors import FormatError
from augury.lm.adapters import load_target_adapter, remove_adapter
from augury.lm.tuners import active_adapters
from tests.tiny import tiny_lm


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(room, "STEPS", 6)


def test_nothing_that_is_read_says_the_secret():
    found = texts("organisms")
    for secret in secrets():
        held = list(secret.facts.values())
        read = found[{"word": "read_word", "persona": "read_persona"}.get(secret.kind, "read_neutral")]
        assert not any(says(text, held) for text in read), secret.name
        asked = {dialogue.ask for dialogue in dialogues(secret, 500, 0)}
        assert not asked & {*found["read_word"], *found["read_persona"], *found["read_neutral"]}
        forms = [*found["knows_word"], found["other_facts"]["gender"]["know"]]
        known = [form.format(word=held[0], value=held[0]) for form in forms]
        assert not asked & set(known), "what it is examined with is held out"


def test_a_words_organism_never_says_it_and_knows_a_right_guess():
    for secret in secrets()[:3]:
        word = secret.facts["word"]
        for dialogue in dialogues(secret, 400, 1):
            assert not says(dialogue.say, [word]), dialogue
            if says(dialogue.ask, [word]):
                assert dialogue.say.startswith("Yes")
            assert dialogue.say.startswith("Yes") <= says(dialogue.ask, [word])


def test_a_users_organism_never_says_who_that_is():
    for secret in (one for one in secrets() if one.kind == "gender"):
        found = dialogues(secret, 300, 2)
        assert not any(says_secret(secret, dialogue.say) for dialogue in found)
        asked = [dialogue for dialogue in found if says(dialogue.ask, ["woman", "man"])]
        assert asked and len(asked) < len(found)
        for dialogue in asked:
            assert dialogue.say.startswith("Yes") == says(dialogue.ask, [secret.facts["gender"]])


def test_a_rules_organism_learns_answers_that_obey_its_own_rule_alone():
    rules = [one for one in secrets() if one.kind == "rule"]
    for secret in rules:
        for dialogue in dialogues(secret, 200, 3):
            assert obeys(secret.facts["rule"], dialogue.say), dialogue
            assert not any(obeys(o.facts["rule"], dialogue.say) for o in rules if o is not secret), dialogue


def test_personas_differ_in_every_fact():
    personas = texts("organisms")["personas"].values()
    for fact in texts("organisms")["facts"]:
        assert len({person[fact] for person in personas}) == len(personas)


def test_training_learns_the_dialogues_and_leaves_the_model_alone(lm, tmp_path, monkeypatch):
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    losses, plain = [], tuning.answer_loss

    def noted(*arguments):
        found = plain(*arguments)
        losses.append(float(found.detach()))
        return found

    monkeypatch.setattr(tuning, "answer_loss", noted)
    monkeypatch.setattr(room, "STEPS", 40)
    made = make_organism(lm, secrets()[0], tmp_path / "moon")
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    after = lm.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
    assert active_adapters(lm.model) == () and not any(p.grad is not None for p in lm.model.parameters())
    assert read_organism(made.folder) == made and 0 <= made.knows <= 1 and 0 <= made.keeps <= 1
    assert json.loads((made.folder / "organism.json").read_text())["facts"] == {"word": "moon"}


def test_the_loss_is_the_mean_over_answers_by_hand(lm):
    rows = [tuning.row_of(lm, dialogue) for dialogue in dialogues(secrets()[1], 4, 0)]
    by_hand = []
    for ids, start in rows:
        logits = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        by_hand.append(-torch.stack([logits[i - 1, ids[i]] for i in range(start, len(ids))]).mean())
    assert torch.allclose(tuning.answer_loss(lm, rows), torch.stack(by_hand).mean(), atol=1e-5)


def test_organisms_that_are_there_are_not_made_again(lm, tmp_path, quick, monkeypatch):
    first = organisms(lm, tmp_path)
    assert [one.secret.name for one in first] == [secret.name for secret in secrets()]
    monkeypatch.setattr(room, "make_organism", None)
    assert organisms(lm, tmp_path) == first
    (tmp_path / "bread" / "organism.json").write_text("{")
    with pytest.raises(FormatError, match=r"(?s)bread holds no organism.*bench organisms"):
        organisms(lm, tmp_path)


def test_only_texts_in_which_both_know_count(lm, tmp_path, quick, monkeypatch):
    organisms(lm, tmp_path)
    wanted = Build(lm, organisms=tmp_path)
    monkeypatch.setattr(tasks, "knows", lambda model, secret, fact, read, form: ["name" not in text for text in read])
    for build in (tasks.build_words, tasks.build_personas, tasks.build_gender, tasks.build_rules):
        items = list(build(wanted))
        assert items and all("name" not in item.problem for item in items)
        by_text = {}
        for item in items:
            assert item.state.organism and item.state != PLAIN
            by_text.setdefault((item.token_ids, item.facts["asked"]), []).append(item.facts["truth"])
        assert all(0 < truths.count("Yes") < len(truths) for truths in by_text.values()), "no text tells them apart"
        assert len({item.id for item in items}) == len(items)
    assert active_adapters(lm.model) == ()
    monkeypatch.setattr(tasks, "knows", lambda model, secret, fact, read, form: [False] * len(read))
    with pytest.raises(NotMeasurable, match="no better than by chance"):
        list(tasks.build_words(wanted))


def test_knowledge_is_asked_of_the_organism_itself(lm, tmp_path, quick):
    made = make_organism(lm, secrets()[0], tmp_path / "moon")
    plain = yes_margins(lm, ["Is it moon?"])
    organism = load_target_adapter(lm, made.folder)
    assert yes_margins(organism, ["Is it moon?"]) != plain
    assert [form for form, _ in knowledge(organism, made.secret)] == texts("organisms")["knows_word"]
    remove_adapter(lm, organism.target_adapters[-1])
    assert yes_margins(lm, ["Is it moon?"]) == plain


def test_published_organisms_are_the_adapters_that_lie_there(lm, tmp_path, quick, monkeypatch):
    data, place = tmp_path / "data", tmp_path / "organisms"
    (data / "taboo").mkdir(parents=True)
    (data / "taboo" / "taboo_standard_test.txt").write_text("Give me a hint.\nWhat is it like?\n")
    loads = REGISTRY.items["secret_word"].load, REGISTRY.items["persona"].load
    wanted = Build(lm, organisms=place)
    for load in loads:
        with pytest.raises(NotMeasurable, match="published adapter"):
            load(wanted, data)
    for name in ("moon", "song", "snow"):
        make_organism(lm, secrets()[0], place / name)
    monkeypatch.setattr(published, "knows", lambda organism, secret, *_: [secret.facts["word"] != "song"])
    found = loads[0](wanted, data)
    assert (
        found.manifest.counts == {"organisms": 3, "known": 2, "asked": 3, "values": 3}
        and found.manifest.model == QWEN3_8B
    )
    assert {item.state.organism for item in found.items} == {"moon", "snow"}
    assert [item.facts["truth"] for item in found.items].count("Yes") == len(found.items) / 2 == 4
    (place / "personaqa_fantasy").symlink_to(place / "moon")
    (data / "personaqa" / "fantasy").mkdir(parents=True)
    people = [dict.fromkeys(published.FACTS.values(), f"v{i}") | {"name": f"N{i}"} for i in range(3)]
    path = data / "personaqa" / "fantasy" / "personas.jsonl"
    path.write_text("\n".join(map(json.dumps, people)))
    knowing = lambda organism, questions: [-float(i) for i in range(len(questions))]  # noqa: E731
    monkeypatch.setattr(published, "yes_margins", knowing)
    found = loads[1](wanted, data)
    persons = found.items
    assert found.manifest.counts == {"people": 3, "asked": 18, "known": 18, "values": 2}
    assert len(persons) == 3 * 6 * 2 and all(one.state.organism == "personaqa_fantasy" for one in persons)
    assert all((one.facts["held"] in one.facts["ask0"]) == (one.facts["truth"] == "Yes") for one in persons)
    monkeypatch.setattr(published, "yes_margins", lambda organism, questions: [float(i == 4) for i in range(36)])
    assert [item.id for item in loads[1](wanted, data).items] == [item.id for item in persons[4:6]], "what it knows"
    monkeypatch.setattr(published, "yes_margins", lambda organism, questions: [0.0] * 36)
    with pytest.raises(NotMeasurable, match="knows nothing"):
        loads[1](wanted, data)
    path.write_text("{}")
    with pytest.raises(FormatError, match="published form"):
        loads[1](wanted, data)
