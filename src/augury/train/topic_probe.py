"""The linear probe for the topic question: a ridge map from activations to what the base holds of a topic's name.

A logistic regression cannot be asked about topics that it never saw. So the map goes from a read (the mean of its
activations, each at unit length) to the direction of the topic's name (the base's own activations on it, at the same
layer), is fitted on training rollouts only, and a question's score is the cosine with the topic that it names.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from augury.activations import capture_vectors
from augury.data import bank
from augury.data.example import Context, Example
from augury.data.sources.questions import Place, pick_read
from augury.lm import LanguageModel
from augury.lm.chat import needs_tokenizer
from augury.train.reads import Reads

RIDGE = (10.0, 100.0, 1000.0)  # for features of length sqrt(d_model)
FRAME = ("This text is about", ".")
READS_PER_ROLLOUT = 3


class TopicProbe:
    """A fitted map; `scores` gives each question's cosine."""

    def __init__(self, layer: int, mean: Tensor, weights: Tensor, names: dict[str, Tensor]) -> None:
        self._layer, self._mean, self._weights, self._names = layer, mean, weights, names

    def scores(self, examples: Sequence[Example], reads: Reads) -> np.ndarray:
        """One score per question about a topic, `[n]`."""
        x = torch.stack([_feature(reads.vectors(e.context, (self._layer,), e.positions)) for e in examples])
        asked = torch.stack([self._names[asked_topic(e).answer] for e in examples])
        return torch.cosine_similarity((x - self._mean) @ self._weights, asked).numpy()


def fit_topic_probe(
    lm: LanguageModel, layer: int, rollouts: Sequence[Context], reads: Reads, window: int, place: Place, seed: int = 0
) -> TopicProbe:
    """Fit on training rollouts; the ridge's strength is chosen on a fifth of the training topics."""
    key = ("topic directions", layer)
    if key not in lm.memo:
        lm.memo[key] = topic_directions(lm, layer)
    names = lm.memo[key]
    rng = random.Random(f"{seed}:probe:{window}")
    features, topics = [], []
    for rollout in [r for r in rollouts if "topic" in r.labels] * READS_PER_ROLLOUT:
        read = pick_read(rollout, "topic", window, place, rng)
        if read is not None:
            features.append(_feature(reads.vectors(rollout.number, (layer,), read.positions)))
            topics.append(bank.topic_named(rollout.labels["topic"]).answer)
    x = torch.stack(features)
    mean = x.mean(0)
    x = x - mean
    y = torch.stack([names[topic] for topic in topics])
    known = sorted(set(topics))
    left_out = set(rng.sample(known, max(1, len(known) // 5)))
    tried = torch.tensor([topic in left_out for topic in topics])
    wrong = torch.stack([names[rng.choice(known)] for _ in topics])

    def right(strength: float) -> float:
        found = x[tried] @ _ridge(x[~tried], y[~tried], strength)
        return float((_cosine(found, y[tried]) > _cosine(found, wrong[tried])).float().mean())

    best = max(RIDGE, key=right) if 0 < int(tried.sum()) < len(topics) else RIDGE[-1]
    return TopicProbe(layer, mean, _ridge(x, y, best), names)


def topic_directions(lm: LanguageModel, layer: int) -> dict[str, Tensor]:
    """Each topic's direction: the base's mean activation on its name in a fixed sentence, centred, of unit length."""
    tokenizer = needs_tokenizer(lm)
    head, tail = FRAME
    start = len(tokenizer.encode(head, add_special_tokens=False))
    answers = [topic.answer for topic in bank.topics()]
    ids = [tokenizer.encode(f"{head} {answer}{tail}", add_special_tokens=False) for answer in answers]
    rows = [range(start, max(start + 1, len(row) - 1)) for row in ids]
    found = torch.stack([_feature(v[0]) for v in capture_vectors(lm, ids, [layer], rows, 32)])
    found = torch.nn.functional.normalize(found - found.mean(0), dim=-1)
    return dict(zip(answers, found, strict=True))


def asked_topic(example: Example) -> bank.Topic:
    """The topic that a question names: what stands where its wording has {x}."""
    head, tail = example.wording.partition(":")[2].split("{x}")
    named = example.question[len(head) : len(example.question) - len(tail)]
    return next(topic for topic in bank.topics() if topic.answer.lower() == named.lower())


def _feature(vectors: Tensor) -> Tensor:
    """`[n, d_model]` to `[d_model]`: the mean of the vectors, each brought to length sqrt(d_model)."""
    return torch.nn.functional.normalize(vectors.float(), dim=-1).mean(0) * vectors.shape[-1] ** 0.5


def _ridge(x: Tensor, y: Tensor, strength: float) -> Tensor:
    return torch.linalg.solve(x.T @ x + strength * torch.eye(x.shape[1]), x.T @ y)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.cosine_similarity(a, b)
