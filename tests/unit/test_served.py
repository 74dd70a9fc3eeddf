"""Rollouts over an endpoint: the sampled tokens are known or the answer is left out, and a wrong model is refused."""

from __future__ import annotations

import json

import pytest

import augury
from augury.data.build import build
from augury.data.example import Context
from augury.data.prompts import Prompt
from augury.data.recipe import DataRecipe
from augury.data.requests import TargetSettings
from augury.data.rollouts import sample_rollouts
from augury.data.served import sample_served
from augury.data.store import Shards
from augury.errors import ModelError
from augury.lm import Sampling
from tests.scripted import completion, scripted
from tests.tiny import tiny_lm

TEXT = "The philosopher drank tea. Who is speaking here?"
KINDS = ("canonical", "letters", "half")


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


def sampled(lm, kind: str) -> list[int]:
    """What the server says it sampled: as the text encodes, a token a letter, or with half a character at the end."""
    tokenizer = lm.tokenizer
    if kind == "letters":
        return [i for letter in TEXT for i in tokenizer(letter)["input_ids"]]
    return tokenizer(TEXT)["input_ids"] + (tokenizer("é")["input_ids"][:1] if kind == "half" else [])


@pytest.fixture
def server(lm):
    """Serves what the prompt says: its tokens, and whether it stops."""

    def answer(body: dict) -> dict:
        prompt = body["messages"][0]["content"]
        kind, finish = prompt.split()
        ids = sampled(lm, kind)
        length = len(lm.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True)["input_ids"])
        shown = ids + ([lm.tokenizer.eos_token_id] if finish == "stop" else [])
        choice = {}
        if body.get("return_token_ids"):
            choice["token_ids"] = shown
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": lm.tokenizer.decode([i]), "logprob": -1.0} for i in shown]}
        return completion(lm.tokenizer.decode(ids), finish, length, **choice)

    with scripted(answer) as found:
        yield found


def served(lm, server, folder, prompts, tokens="logprobs", name="answers", **changes):
    shards = Shards(folder, name, "train", Context, "a recipe")
    settings = TargetSettings(url=server.url, model="tiny", key_env=None, retries=0, tokens=tokens)
    made = [Prompt(text, "train", {"topic": "x"}) for text in prompts]
    sampling = Sampling(60, 1.0, 0.9, 5)
    sample_served(lm, made, shards, sampling, settings, folder / "r.jsonl", batch_size=2, **changes)
    again = Shards(folder, name, "train", Context, "a recipe")
    return list(again.table()), again.dropped


PROMPTS = [f"{kind} {finish}" for kind in KINDS for finish in ("stop", "length")]


@pytest.mark.parametrize(
    ("tokens", "exact"), [("token_ids", KINDS), ("logprobs", ("canonical", "letters")), ("none", ("canonical",))]
)
def test_the_sampled_tokens_are_kept_where_they_can_be_known(lm, server, tmp_path, tokens, exact):
    contexts, dropped = served(lm, server, tmp_path, PROMPTS, tokens)
    kept = {lm.tokenizer.decode(c.token_ids[slice(*c.user)]): c for c in contexts}
    for prompt in PROMPTS:
        kind, finish = prompt.split()
        if kind in exact:
            start = lm.tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)
            end = [lm.tokenizer.eos_token_id] if finish == "stop" else []
            assert list(kept[prompt].token_ids) == [*start["input_ids"], *sampled(lm, kind), *end]
            assert list(kept[prompt].token_ids[slice(*kept[prompt].assistant)]) == sampled(lm, kind)
        elif kind == "half":
            assert prompt not in kept
        else:
            assert lm.tokenizer.decode(kept[prompt].token_ids[slice(*kept[prompt].assistant)]) == TEXT
    assert sum(dropped.values()) == len(PROMPTS) - len(kept) == (0 if tokens == "token_ids" else 2)
    assert [c.number for c in contexts] == list(range(len(contexts)))
    how = {"none": "encoded"}.get(tokens, tokens)
    assert all(c.labels == {"topic": "x", "tokens": how} and c.parts[1].author == "target" for c in contexts)


def test_what_is_asked(lm, server, tmp_path):
    served(lm, server, tmp_path, PROMPTS[:3], "token_ids")
    for number, body in enumerate(sorted(server.bodies, key=lambda body: body["seed"])):
        assert body["messages"] == [{"role": "user", "content": PROMPTS[number]}]
        rest = {key: value for key, value in body.items() if key not in ("model", "messages")}
        assert rest == {
            "temperature": 1.0, "top_p": 0.9, "max_tokens": 60, "seed": 5 + number, "return_token_ids": True
        }  # fmt: skip


@pytest.mark.parametrize("change", [{"prompt_tokens": 1}, {"ids": [1, 2, 3]}])
def test_another_model_is_refused_at_the_first_call(lm, server, tmp_path, change):
    right = server.answer

    def wrong(body):
        reply = right(body)
        if "ids" in change:
            return {**reply, "prompt_token_ids": change["ids"]}
        return {**reply, "usage": {"prompt_tokens": reply["usage"]["prompt_tokens"] + 1, "completion_tokens": 1}}

    server.answer = wrong
    with pytest.raises(ModelError, match=r"(?s)does not serve the target.*read .*instead"):
        served(lm, server, tmp_path, PROMPTS)
    assert len(server.bodies) == 1


def test_an_endpoint_that_does_not_say_what_it_reads_is_told(lm, server, tmp_path, caplog):
    right = server.answer
    server.answer = lambda body: {**right(body), "usage": None}
    served(lm, server, tmp_path, PROMPTS[:2])
    assert "does not say how many tokens" in caplog.text


@pytest.mark.parametrize("choice", [{"token_ids": [10**6]}, {"token_ids": ["a"]}, {"token_ids": [5, 6]}])
def test_tokens_that_are_not_the_text_are_dropped(lm, server, tmp_path, choice):
    right = server.answer

    def wrong(body):
        reply = right(body)
        reply["choices"][0] |= choice
        return reply

    server.answer = wrong
    contexts, dropped = served(lm, server, tmp_path, PROMPTS[:2])
    assert contexts == [] and sum(dropped.values()) == 2


def test_it_goes_on_without_asking_again(lm, server, tmp_path):
    whole, _ = served(lm, server, tmp_path / "whole", PROMPTS)
    asked = len(server.bodies)
    served(lm, server, tmp_path / "cut", PROMPTS)
    for path in sorted((tmp_path / "cut").glob("*.arrow"))[1:]:
        path.unlink()
    assert served(lm, server, tmp_path / "cut", PROMPTS)[0] == whole
    assert asked == len(PROMPTS) and len(server.bodies) == 2 * asked


def test_a_build_over_an_endpoint(lm, server, tmp_path):
    """The same set and fingerprint wherever the endpoint is; what is left out is in the summary."""
    texts = tmp_path / "prompts.txt"
    texts.write_text("".join(f"{prompt}\n" for prompt in PROMPTS))

    def recipe(url: str, key_env: str) -> DataRecipe:
        answers = {"type": "rollouts", "prompts": str(texts), "train": 6, "heldout": 0, "heldout_share": 0.0}
        answers["endpoint"] = {"url": url, "model": "tiny", "key_env": key_env, "retries": 0}
        lens = {"type": "lens", "contexts": "answers", "k": 3, "window": 2, "train": 5}
        return DataRecipe.model_validate(
            {"name": "a", "model": "tiny", "layers": [[1]], "contexts": {"answers": answers}, "sources": {"lens": lens}}
        )

    made = []
    for name in ("one", "two"):
        with scripted(server.answer) as found:
            built = build(lm, recipe(found.url, name.upper()), tmp_path / name)
            made.append((built.fingerprint, list(built.contexts["answers", "train"])))
            assert found.url not in (tmp_path / name / "data.json").read_text()
    assert made[0] == made[1] and len(made[0][1]) == 4
    told = json.loads((tmp_path / "one" / "data.json").read_text())["dropped"]["answers (train)"]
    assert sum(told.values()) == 2


def _greedy(lm):
    """The target itself, served."""

    def answer(body: dict) -> dict:
        found = augury.generate(lm, body["messages"], max_new_tokens=body["max_tokens"])
        start, stop = found.spans[-1].start, found.spans[-1].stop
        finish = "stop" if len(found) > stop else "length"
        return completion(lm.tokenizer.decode(found.token_ids[start:stop]), finish, start)

    return answer


def test_greedy_answers_are_those_that_are_sampled_here(lm, tmp_path):
    prompts = [Prompt(f"tell me about {thing}", "train") for thing in ("tea", "the text", "user", "words", "layers")]
    here = Shards(tmp_path, "here", "train", Context, "a recipe")
    sample_rollouts(lm, prompts, here, Sampling(6))
    local = {c.token_ids for c in here.table()}

    def known(body: dict) -> dict:
        reply = _greedy(lm)(body)
        found = augury.generate(lm, body["messages"], max_new_tokens=6)
        return {
            **reply,
            "choices": [{**reply["choices"][0], "token_ids": list(found.token_ids[found.spans[-1].start :])}],
        }

    with scripted(known) as server:
        shards = Shards(tmp_path, "there", "train", Context, "a recipe")
        settings = TargetSettings(url=server.url, model="tiny", tokens="token_ids", concurrency=1)
        sample_served(lm, prompts, shards, Sampling(6), settings, tmp_path / "r.jsonl")
    assert {c.token_ids for c in shards.table()} == local
