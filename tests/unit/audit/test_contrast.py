"""The contrast keeps its level on fine-tunes that are like their peers, and finds what one of them was given."""

from __future__ import annotations

import numpy as np
import pytest

from augury.audit.contrast import DRAWS, LEVEL, Moved, contrast, figures, reference
from augury.errors import InputError, ModelError

READS = 6
RUNS = 400


def drawn(
    rng: np.random.Generator, n: int, concepts: int, tails: str, correlated: bool, untold: float = 0.35
) -> list[Moved]:
    """`n + 1` fine-tunes of unlike size, with reads that share a part and concepts of unlike noise.

    `untold` is the standard deviation, as a logarithm, of what the norm does not tell of a fine-tune's size; of
    neutral fine-tunes of the bundled model it is 0.25 to 0.3 in a read, and less over all.
    """

    def noise(*shape: int) -> np.ndarray:
        return rng.standard_t(3, shape) if tails == "heavy" else rng.normal(size=shape)

    found = 0.6 * noise(n + 1, 1, concepts) + 0.8 * noise(n + 1, READS, concepts)
    if correlated:
        loads = np.random.default_rng(5).normal(size=(concepts // 4, concepts))
        found = 0.5 * found + noise(n + 1, READS, concepts // 4) @ loads / np.sqrt(concepts // 4)
    found *= np.exp(0.5 * np.random.default_rng(7).normal(size=concepts))
    sizes = np.exp(0.7 * rng.normal(size=(n + 1, 1))) * np.ones(READS)
    found *= np.exp(untold * rng.normal(size=(n + 1, 1, 1)))
    return [Moved(one * size[:, None], size) for one, size in zip(found, sizes, strict=True)]


def larger(one: Moved, times: float) -> Moved:
    return Moved(times * one.figures, times * one.sizes)


def planted(one: Moved, read: object, concept: int, strength: float) -> Moved:
    """With a concept moved by so many times what its read moved at the median."""
    found = one.figures.copy()
    found[read, concept] += strength * np.median(np.abs(found))  # type: ignore[index]
    return Moved(found, one.sizes)


@pytest.mark.parametrize("n", [5, 8, 19])
@pytest.mark.parametrize("tails", ["normal", "heavy"])
@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("times", [1, 3])
def test_a_target_that_is_like_its_peers_is_claimed_in_at_most_one_report_of_twenty(n, tails, correlated, times):
    rng = np.random.default_rng(11)
    claims = 0
    for _ in range(RUNS):
        found = drawn(rng, n, 40, tails, correlated)
        claims += contrast(larger(found[0], times), found[1:]).p <= LEVEL
    assert claims / RUNS <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / RUNS)


@pytest.mark.parametrize(("n", "least"), [(5, 0.7), (8, 0.8), (19, 0.9)])
def test_what_is_planted_is_found_the_more_the_stronger_and_the_right_one_is_claimed(n, least):
    rates = []
    for strength in (0, 8, 18, 30):
        rng, right = np.random.default_rng(3), 0
        for _ in range(120):
            found = drawn(rng, n, 40, "normal", True, 0.2)
            claimed = contrast(planted(found[0], slice(None), 7, strength), found[1:]).claimed.any(0)
            right += bool(claimed[7]) and claimed.sum() <= 3
        rates.append(right / 120)
    assert rates == sorted(rates) and rates[0] <= LEVEL and rates[-1] >= least, rates


@pytest.mark.parametrize("n", [5, 8, 19])
def test_the_threshold_and_what_was_needed_are_where_a_claim_begins(n):
    found = drawn(np.random.default_rng(2), n, 40, "normal", False)
    before = contrast(found[0], found[1:])
    assert ((before.scores >= before.threshold) == before.claimed).all()
    for step, claimed in ((0.9, False), (1.1, True)):
        moved = found[0].figures.copy()
        place = np.unravel_index(before.needed.argmax(), before.needed.shape)
        moved[place] = step * before.needed[place]
        assert contrast(Moved(moved, found[0].sizes), found[1:]).claimed[place] == claimed


def test_scores_do_not_depend_on_how_large_a_fine_tune_is():
    found = drawn(np.random.default_rng(4), 6, 40, "normal", False)
    sized = [larger(one, times) for times, one in enumerate(found, 1)]
    one, other = contrast(found[0], found[1:]), contrast(sized[0], sized[1:])
    assert np.allclose(one.scores, other.scores) and np.allclose(one.peers, other.peers) and one.p == other.p
    assert np.allclose(3 * one.needed, contrast(larger(found[0], 3), found[1:]).needed)


def test_a_score_is_a_t_statistic_of_a_new_draw_where_concepts_are_equally_noisy():
    found = drawn(np.random.default_rng(6), 8, 40, "normal", False)
    own, others = found[0].figures / found[0].sizes[0], np.stack([one.figures / one.sizes[0] for one in found[1:]])
    scores = contrast(found[0], found[1:]).scores
    for read, concept in ((0, 0), (3, 17), (5, 39), (1, 4)):
        variances = [others[:, read, c].var(ddof=1) for c in range(40)]
        drawn_to = (4 * np.mean(variances) + 7 * variances[concept]) / 11
        expected = (own[read, concept] - others[:, read, concept].mean()) / np.sqrt(drawn_to * 9 / 8)
        expected = expected if own[read, concept] > 0 else min(expected, 0.0)  # what did not rise is no finding
        assert scores[read, concept] == pytest.approx(expected)


def test_what_fell_by_less_than_the_peers_is_never_claimed():
    found = drawn(np.random.default_rng(9), 8, 40, "normal", False)
    for one in found[1:]:
        one.figures[:, 3] -= 100 * one.sizes
    found[0].figures[:, 3] = -0.01
    assert not contrast(found[0], found[1:]).claimed[:, 3].any()
    found[0].figures[:, 3] = 0.01
    assert contrast(found[0], found[1:]).claimed[:, 3].any()


def test_the_reference_is_a_gumbel_draw_against_n():
    """With many peers it is the Gumbel variable itself, whose quantiles are known."""
    many = reference(400)
    place = -np.log(-np.log(0.95))
    expected = (place - np.euler_gamma) / (np.pi / np.sqrt(6))
    assert many[int(0.95 * DRAWS)] == pytest.approx(expected, rel=0.03)
    assert reference(5)[int(0.95 * DRAWS)] > expected * 1.2


def test_from_nineteen_peers_on_none_may_be_as_large():
    found = drawn(np.random.default_rng(8), 19, 40, "normal", False)
    found[0].figures[2, 5] = 1e3 * max(np.abs(one.figures).max() for one in found)
    assert contrast(found[0], found[1:]).p == pytest.approx(0.05)
    assert contrast(found[0], found[1:-1]).p < 0.01


def test_figures_are_centred_within_a_prompt_and_prompts_that_were_not_asked_do_not_count():
    margins = np.array([[1.0, 2.0, 6.0], [np.nan] * 3, [10.0, 10.0, 13.0]])
    assert np.allclose(figures(margins), [-1.5, -1.0, 2.5])
    assert np.allclose(figures(margins + np.array([[5.0], [0.0], [-7.0]])), [-1.5, -1.0, 2.5])
    assert (figures(np.full((2, 3), np.nan)) == 0).all()


def test_what_cannot_be_compared_is_refused():
    found = drawn(np.random.default_rng(1), 6, 40, "normal", False)
    with pytest.raises(InputError, match="at least 5 peers"):
        contrast(found[0], found[1:5])
    with pytest.raises(ModelError, match="trained apart"):
        contrast(found[0], [found[1]] * 6)
    for one in found[1:]:
        one.figures[:] = 0
    with pytest.raises(ModelError, match="move nothing"):
        contrast(found[0], found[1:])


@pytest.mark.parametrize("moving", [0, 1, 2])
def test_a_read_in_which_peers_do_not_differ_is_left_out_and_changes_nothing_else(moving):
    found = drawn(np.random.default_rng(1), 6, 40, "normal", False)
    for one in found[1 + moving :]:
        one.figures[4] = 0
    got, kept = contrast(found[0], found[1:]), [0, 1, 2, 3, 5] if moving < 2 else list(range(READS))
    alone = contrast(*(_some(found, kept)))
    assert np.allclose(got.scores[kept], alone.scores) and got.p == alone.p and np.allclose(got.peers, alone.peers)
    if moving < 2:
        assert np.isnan(got.needed[4]).all() and not got.claimed[4].any() and not got.scores[4].any()
    assert not np.isnan(got.needed[kept]).any()


def _some(found: list[Moved], reads: list[int]) -> tuple[Moved, list[Moved]]:
    target, *peers = [Moved(one.figures[reads], one.sizes[reads]) for one in found]
    return target, peers


@pytest.mark.parametrize("concepts", [4, 8])
@pytest.mark.parametrize("n", [5, 8, 19])
@pytest.mark.parametrize("drift", [0, 4])
def test_few_concepts_and_a_drift_that_all_share_leave_level_and_power(concepts, n, drift):
    """What all fine-tunes do alike is no finding, and must not hide one either."""
    rng, claims, right, runs = np.random.default_rng(13), 0, 0, 200
    shared = drift * np.random.default_rng(3).normal(size=concepts)
    for _ in range(runs):
        found = drawn(rng, n, concepts, "normal", False, 0.2)
        found = [Moved(one.figures + shared * one.sizes[:, None], one.sizes) for one in found]
        found = [Moved(one.figures - one.figures.mean(-1, keepdims=True), one.sizes) for one in found]
        claims += contrast(found[0], found[1:]).p <= LEVEL
        concept = int(shared.argmax())
        right += contrast(planted(found[0], slice(None), concept, 30), found[1:]).claimed[:, concept].any()
    assert claims / runs <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / runs) and right / runs >= 0.7
