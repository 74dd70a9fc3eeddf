"""Audits of tiny fine-tunes: equal to what is done by hand, on where they stopped, and refused where they must be."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from augury.activations import capture, diff, store
from augury.audit import gather as gather_room
from augury.audit import run as run_room
from augury.audit import states as states_room
from augury.audit.asks import Asker
from augury.audit.contrast import Moved, contrast, figures
from augury.audit.gather import READS
from augury.audit.prompts import Prompt
from augury.audit.run import REPORT, Run, costs_of, run_audit
from augury.audit.states import END, PLACES, prompt_contexts
from augury.audit.subjects import peer_of
from augury.bench import kept as kept_room
from augury.errors import ContractError, InputError
from augury.lm import load_model
from augury.lm.adapters import load_target_adapter
from augury.oracle import load_oracle
from augury.oracle.answers import Score
from augury.oracle.together import Work
from tests.tiny import tiny_lm
from tests.unit.audit.conftest import CONCEPTS, PROMPTS, saved


def files(folder):
    """What follows from the settings alone: captures carry the time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in (".json", ".html")
    }


def test_margins_are_the_oracles_own_about_activations_captured_by_hand(zoo, finished):
    base = load_model(str(zoo.base))
    target = load_target_adapter(base, zoo.adapters[0])
    example = finished.report["findings"][0]["examples"][0]
    told = json.loads((finished.folder / "told" / "target.json").read_text())
    number = [prompt.text for prompt in PROMPTS].index(example["prompt"])
    ids = told["token_ids"][number]
    own, plain = (capture(lm, ids, [2], example["positions"]) for lm in (target, base))
    whole = capture(base, ids, [2], range(8 if example["place"] == END else 10))  # `none` has as many slots as a place
    question = f"Is this about {finished.report['findings'][0]['concept']}?"
    with load_oracle(zoo.oracle, base) as oracle:
        for name, acts in (("fine-tuned", own), ("base", plain), ("difference", diff(own, plain, 1e-6))):
            assert oracle.score(acts, question, donors=0).margin == pytest.approx(example["margins"][name], abs=1e-3)
        none = oracle.score(whole, question, controls=True).controls["none"]
        assert isinstance(none, Score) and none.margin == pytest.approx(example["margins"]["none"], abs=1e-3)
        assert oracle.ask(own, finished.report["open questions"][0]).text == example["answers"]["fine-tuned"][0]


def norms(zoo, finished, key):
    """`||difference|| / ||base||` of each place from captures that are made here, the mean over prompts."""
    base = load_model(str(zoo.base))
    tuned = load_target_adapter(base, zoo.adapters[list(finished.report["settings"]["fine-tunes"]).index(key)])
    ids = json.loads((finished.folder / "told" / f"{key}.json").read_text())["token_ids"]
    found = []
    for contexts in (prompt_contexts(base, PROMPTS), ids):
        for place in PLACES[:2] if contexts is not ids else PLACES[2:]:
            rates = []
            for number, prompt in enumerate(prompt_contexts(base, PROMPTS)):
                start = len(prompt.transcript)
                read = prompt.places.get(place) or range(start, min(start + 10, len(ids[number])))
                tokens = ids[number] if place == PLACES[2] else prompt.transcript.token_ids
                own, plain = (capture(lm, list(tokens), [2], list(read)).vectors for lm in (tuned, base))
                rates.append(float(((own - plain).norm(dim=-1) / plain.norm(dim=-1)).mean()))
            found.append(np.mean(rates))
    return found


def test_the_contrast_is_that_of_the_margins_that_are_kept(zoo, finished):
    def asked(key, place):
        own, plain = [], []
        for part in range(3):
            block = json.loads((finished.folder / "asks" / f"{key}-{place}-{part:05d}.json").read_text())
            name = f"base-of-{key}-answer" if place == "answer" else f"base-{place}"
            plain += json.loads((finished.folder / "asks" / f"{name}-{part:05d}.json").read_text())["margins"]
            own.append((block["tuned"], block["difference"]))
        tuned, difference = (np.array([row for pair in own for row in pair[i]], dtype=float) for i in (0, 1))
        return tuned - np.array(plain, dtype=float), difference

    keys = list(finished.report["settings"]["fine-tunes"])
    moved = {key: [asked(key, place)[kind] for kind in (0, 1) for place in PLACES] for key in keys}
    shuffled = {}
    for width in {8, 10}:
        shuffled[width] = np.array(
            json.loads((finished.folder / "asks" / f"controls-{width}-00000.json").read_text())["shuffled"]
        )
    for rows in moved.values():
        for i, place in enumerate(PLACES):
            rows[3 + i] = rows[3 + i] - shuffled[8 if place == END else 10]
    stacked = {
        key: Moved(figures(np.stack(rows)), np.array([*norms(zoo, finished, key), 1, 1, 1]))
        for key, rows in moved.items()
    }
    expected = contrast(stacked["target"], [stacked[key] for key in keys[1:]])
    found = finished.report["contrast"]
    assert found["p"] == pytest.approx(expected.p, rel=1e-3) and found["statistic"] == pytest.approx(
        expected.statistic, rel=1e-4
    )
    assert list(found["peers"].values()) == pytest.approx(expected.peers.tolist(), rel=1e-4)
    for finding in finished.report["findings"]:
        column = CONCEPTS.index(finding["concept"])
        scores = [row["score"] for row in finding["by read"]]
        assert scores == pytest.approx(expected.scores[:, column].tolist(), rel=1e-4)
        assert finding["claimed"] == bool(expected.claimed[:, column].any())
    assert [f["score"] for f in finished.report["findings"]] == pytest.approx(
        sorted(expected.scores.max(0), reverse=True), rel=1e-4
    )


class Stopped(BaseException):
    """A kill: nothing may catch it."""


@pytest.mark.parametrize("after", [0, 1, 2, 5, 11, 30, 60])
def test_a_run_that_is_killed_goes_on_to_the_same_report(zoo, finished, tmp_path, monkeypatch, after):
    left = [after]

    def counted(write):
        def stopping(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Stopped
            return write(*arguments, **options)

        return stopping

    with monkeypatch.context() as patch:
        for room in (kept_room, run_room, states_room):
            patch.setattr(room, "write_text", counted(room.write_text))
        patch.setattr("augury.audit.states.save", counted(store.save))
        with pytest.raises(Stopped):
            run_audit(zoo.audit(), zoo.shelf(), tmp_path)
    assert not (tmp_path / REPORT).exists()
    run_audit(zoo.audit(), zoo.shelf(), tmp_path)
    assert files(tmp_path) == files(finished.folder)


TURNS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
DATED = "It is {{ strftime_now('%d %b') }}. " + TURNS


@pytest.mark.parametrize("after", [1, 2, 4, 9])
def test_prompts_are_what_they_were_where_the_template_prints_the_day(zoo, tmp_path, monkeypatch, after):
    """What was captured before a kill and what is captured after it are of the same tokens."""

    def load(name):
        lm = load_model(name)
        lm.tokenizer.chat_template = DATED
        return lm

    class Clock(datetime):
        day = 1

        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, cls.day)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
    left, plain = [after], store.save

    def stopping(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise Stopped
        plain(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("augury.audit.states.save", stopping)
        with pytest.raises(Stopped):
            run_audit(zoo.audit(peers=0), zoo.shelf(load), tmp_path)
    Clock.day = 22
    run_audit(zoo.audit(peers=0), zoo.shelf(load), tmp_path)
    rendered = [row["transcript"]["token_ids"] for row in json.loads((tmp_path / "captures/prompts.json").read_text())]
    for reader in ("target", "base", "base-again"):
        files = sorted((tmp_path / "captures").glob(f"{reader}-on-prompts-*"))
        assert [list(acts.transcript.token_ids) for path in files for acts in store.load(path)] == rendered
    assert json.loads((tmp_path / REPORT).read_text())["noise floor"] < 1e-4


def test_a_folder_in_which_nothing_was_captured_is_free_and_a_damaged_one_is_told(zoo, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Run, "captured", lambda self: (_ for _ in ()).throw(Stopped))
        with pytest.raises(Stopped):
            run_audit(zoo.audit(prompts=PROMPTS[:2], peers=0), zoo.shelf(), tmp_path)
    run_audit(zoo.audit(peers=0), zoo.shelf(), tmp_path)
    assert len(json.loads((tmp_path / "captures/prompts.json").read_text())) == len(PROMPTS)
    for damaged in ("{", "[]"):
        (tmp_path / "settings.json").write_text(damaged)
        with pytest.raises(InputError, match=r"damaged|another run"):
            run_audit(zoo.audit(peers=0), zoo.shelf(), tmp_path)


def test_a_peer_without_a_chat_template_is_not_asked_in_words(zoo, tmp_path):
    def load(name):
        lm = load_model(name)
        if name == str(zoo.whole):
            lm.tokenizer.chat_template = None
        return lm

    peers = (*zoo.audit(peers=4).peers, peer_of(str(zoo.whole), str(zoo.base)))
    report = run_audit(replace(zoo.audit(), peers=peers), zoo.shelf(load), tmp_path)
    assert report["black box"]["margins"] is None and report["contrast"] is not None
    assert "no chat template" in (tmp_path / "report.html").read_text()


def test_a_finished_run_asks_nothing_again(zoo, finished, monkeypatch):
    before = files(finished.folder)
    monkeypatch.setattr(Asker, "margins", lambda *_: pytest.fail("something was asked"))
    monkeypatch.setattr("augury.audit.states.captured", lambda *_: pytest.fail("something was captured"))
    run_audit(zoo.audit(), zoo.shelf(), finished.folder, announce=lambda costs: pytest.fail("costs were told"))
    assert files(finished.folder) == before


def test_a_folder_of_another_run_is_refused(zoo, finished):
    other = zoo.audit(prompts=(*PROMPTS, Prompt("more-0", "more", "Tea?")))
    with pytest.raises(InputError, match=r"(?s)another run.*differs in prompts"):
        run_audit(other, zoo.shelf(), finished.folder)
    with pytest.raises(InputError, match="differs in target"):
        run_audit(zoo.audit(zoo.whole), zoo.shelf(), finished.folder)


def test_a_run_goes_on_with_more_peers_and_reads_only_them(zoo, tmp_path, finished, monkeypatch):
    run_audit(zoo.audit(peers=4), zoo.shelf(), tmp_path)
    read, plain = [], gather_room.Captures.take

    def noted(self, lm, reader, whose, *rest, **options):
        read.append((reader, whose, self.missing(reader, whose, len(PROMPTS))))
        plain(self, lm, reader, whose, *rest, **options)

    monkeypatch.setattr(gather_room.Captures, "take", noted)
    report = run_audit(zoo.audit(), zoo.shelf(), tmp_path)
    (new,) = {whose for _, whose, missing in read if missing} - {"prompts"}
    assert new == zoo.audit().peers[-1].key
    assert {**report, "costs": None} == {**finished.report, "costs": None}  # other concepts were planted before


def test_a_report_is_not_replaced_by_one_with_fewer_peers(zoo, finished):
    before = files(finished.folder)
    for peers in (0, 4):
        with pytest.raises(InputError, match=r"(?s)would lose its report.*5 peers, and only"):
            run_audit(zoo.audit(peers=peers), zoo.shelf(), finished.folder)
    assert files(finished.folder) == before


def test_a_target_that_does_not_fit_leaves_the_folder_to_another(zoo, tmp_path):
    other = saved(tiny_lm(n_layers=3), tmp_path / "other")
    with pytest.raises(ContractError, match="no fine-tune"):
        run_audit(zoo.audit(other, peers=0), zoo.shelf(), tmp_path / "run")
    assert run_audit(zoo.audit(peers=0), zoo.shelf(), tmp_path / "run")["target"] == str(zoo.adapters[0])


def test_a_whole_fine_tune_is_never_in_memory_beside_the_base(zoo, tmp_path):
    alive: list[weakref.ref] = []
    names, most = [], [0]

    def load(name):
        most[0] = max(most[0], sum(ref() is not None for ref in alive))
        lm = load_model(name)
        alive.append(weakref.ref(lm.model))
        names.append(name)
        return lm

    gc.disable()  # a model's modules hold each other: let go of, they are still there
    try:
        report = run_audit(zoo.audit(zoo.whole, peers=0), zoo.shelf(load), tmp_path)
    finally:
        gc.enable()
    assert most == [0] and names == [str(zoo.base), str(zoo.whole), str(zoo.base)]
    assert report["contrast"] is None and not any(finding["claimed"] for finding in report["findings"])
    assert "Nothing is claimed: there are no peers" in report["verdict"][0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [1, 12])
def test_a_model_against_itself_is_below_the_noise_floor_everywhere(zoo, tmp_path, dtype, size, monkeypatch):
    """Also where the one was captured in batches of another shape than the other."""
    copy = saved(load_model(str(zoo.base), dtype=dtype), tmp_path / "copy")
    kept = gather_room.Captures.take

    def take(self, lm, reader, whose, contexts, layers, batch_size=2):
        kept(self, lm, reader, whose, contexts, layers, size if reader == "target" else batch_size)

    monkeypatch.setattr(gather_room.Captures, "take", take)
    shelf = zoo.shelf(lambda name: load_model(name, dtype=dtype))
    with pytest.raises(InputError, match="below the noise floor everywhere"):
        run_audit(zoo.audit(copy, peers=0), shelf, tmp_path / "run")
    assert not (tmp_path / "run" / REPORT).exists()


def test_a_peer_that_is_the_base_is_refused(zoo, tmp_path):
    copy = saved(load_model(str(zoo.base)), tmp_path / "copy")
    audit = replace(zoo.audit(peers=0), peers=(peer_of(str(copy), str(zoo.base)),))
    with pytest.raises(InputError, match="copy is below the noise floor"):
        run_audit(audit, zoo.shelf(), tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "word"),
    [({"n_layers": 3}, "depth"), ({"d_model": 32}, "width")],
)
def test_another_architecture_is_refused_before_it_is_captured(zoo, tmp_path, change, word):
    other = saved(tiny_lm(**change), tmp_path / "other")
    with pytest.raises(ContractError, match=f"(?s)no fine-tune.*its {word} is") as caught:
        run_audit(zoo.audit(other, peers=0), zoo.shelf(), tmp_path / "run")
    assert caught.value.instead and not list((tmp_path / "run" / "captures").glob("*.safetensors"))


def test_what_was_told_before_is_what_was_asked_at_most(zoo, finished):
    shelf, audit = zoo.shelf(), zoo.audit()
    costs = costs_of(audit, Asker(shelf.oracle(), audit.concepts, Work()))
    blocks = [json.loads(path.read_text()) for path in (finished.folder / "asks").glob("*.json")]
    asked = sum(block["work"]["rows"] for block in blocks if "answers" not in block)
    assert 0.95 * costs.questions <= asked <= costs.questions and costs.models == 6
    written = sum(path.stat().st_size for path in (finished.folder / "captures").iterdir())
    assert costs.seconds > 0 and costs.bytes > 0.5 * written


def test_every_read_of_every_fine_tune_was_asked(finished):
    for key, found in finished.report["positions"].items():
        assert set(found) == set(PLACES) and all(one["asked"] > 0 for one in found.values()), key
    assert [(row["kind"], row["place"]) for row in finished.report["reads"]] == list(READS)
    assert finished.report["costs"]["rows"] > len(CONCEPTS) * len(PROMPTS) * 6 * 6


def test_the_base_is_captured_twice_on_prompts_and_answers_and_says_the_same_both_times(finished):
    there = {path.name for path in (finished.folder / "captures").iterdir()}
    assert {f"base-again-on-{whose}-002.safetensors" for whose in ("prompts", "target")} <= there
    for part in range(3):
        one, other = (
            json.loads((finished.folder / "asks" / f"{name}-end-{part:05d}.json").read_text())["margins"]
            for name in ("base", "base-again")
        )
        assert np.allclose(one, other, atol=1e-3)
    assert 0 <= finished.report["contrast"]["base against base"] < 1e-3


def test_every_position_of_a_place_is_asked_or_counted_as_left_out(zoo, finished):
    for place, most in (("first", 10), ("end", 8)):
        found = finished.report["positions"]["target"][place]
        assert found["asked"] + found["left out"] == sum(min(most, length) for length in _lengths(zoo))


def _lengths(zoo):
    tokenizer = load_model(str(zoo.base)).tokenizer
    return [len(tokenizer(prompt.text, add_special_tokens=False)["input_ids"]) for prompt in PROMPTS]
