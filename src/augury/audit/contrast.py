"""Whether a fine-tune says of some concept what its peers do not: arrays in, numbers out.

Each fine-tune has a figure for every read and concept: how far it moved the oracle's log-odds, centred over concepts
within each prompt (a drift towards Yes or No says nothing of a concept) and averaged over prompts. The target's figures
are set against those of its peers, other fine-tunes of the base that were not given what is looked for.

What has to hold is the rate of *reports* that claim something of a fine-tune that is like its peers, whatever the tails
and however the concepts hang together:

* A fine-tune that was trained longer moves everything further. So what is read from its activations is divided by how
  far these moved, the mean `||difference|| / ||base||`; the difference itself is injected at full norm, whatever its
  own. What the quotient of a null target is must be as its peers' are: one that moves the oracle by twice as much for
  its norm is claimed in 12 to 34% of simulations. (Dividing by the median figure of each read would be proof against
  that, and takes away what a topic moves along with itself: see docs/decisions.md.)
* A concept's standard error has few degrees of freedom. It is drawn to the mean over concepts as by Smyth (2004,
  Statistical Applications in Genetics and Molecular Biology 3), with 4 degrees of freedom for that mean.
* One statistic for the report: the largest standardised figure over all reads and concepts, with `sqrt(1 + 1/n)` for a
  new draw against n peers. Bonferroni over hundreds of correlated figures at 4 degrees of freedom would leave no power.
* Its reference is what the same statistic is for each peer against the other peers: n draws of it, with whatever
  correlation there is. A maximum over many is near a Gumbel variable, and of heavy tails near a Frechet variable, whose
  logarithm is Gumbel (Fisher and Tippett 1928). So the logarithms are taken to be Gumbel with unknown place and scale,
  and a new one is compared by `(new - mean) / standard deviation` of the n, whose distribution depends on n alone and
  is simulated here. A normal reference claims too often, since a Gumbel variable leans to the right.
* From 19 peers on the target must also be above all of them: a rank needs no distribution, and can reach 5% only there.

Peers' statistics have one peer fewer to be compared with than the target's, which errs to the safe side. So does that
a concept counts for them where it fell by less than the others did, and for the target only where it rose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from augury.errors import InputError, ModelError

Floats = NDArray[np.float64]

LEVEL = 0.05
LEAST_PEERS = 5  # with fewer the reference is a guess; simulated from here on
PRIOR_FREEDOM = 4
DRAWS = 200_000
LEAST = 1e-12  # of a statistic whose logarithm is taken
ROUNDING = 1e-20  # of a variance against the mean square: equal peers differ by so much


@dataclass(frozen=True, eq=False)
class Moved:
    """How far a fine-tune moved the oracle.

    Attributes:
        figures: `[reads, concepts]` in log-odds, from `figures`.
        sizes: `[reads]`, how far it moved what was read.
    """

    figures: Floats
    sizes: Floats

    @property
    def scaled(self) -> Floats:
        """The figures in units of its size."""
        return np.divide(
            self.figures, self.sizes[:, None], out=np.zeros_like(self.figures), where=self.sizes[:, None] > 0
        )


@dataclass(frozen=True, eq=False)
class Contrast:
    """The target against its peers.

    Attributes:
        scores: `[reads, concepts]`, standardised: how far the target stands out.
        statistic: The largest of them.
        peers: `[n]`, the same statistic of each peer against the others: the null distribution.
        p: Of the statistic, for the report as a whole.
        each: `[reads, concepts]`, of every single score, corrected for all of them.
        threshold: The score from which a concept is claimed.
        needed: `[reads, concepts]`, the target's figure in log-odds from which each would have been claimed; NaN in
            reads where the peers do not differ.
    """

    scores: Floats
    statistic: float
    peers: Floats
    p: float
    each: Floats
    threshold: float
    needed: Floats

    @property
    def claimed(self) -> NDArray[np.bool_]:
        """`[reads, concepts]`, what the report claims."""
        return self.each <= LEVEL


def figures(margins: Floats) -> Floats:
    """The mean over prompts of what is centred over concepts: `[..., prompts, concepts]` to `[..., concepts]`.

    Prompts that were not asked are NaN in all concepts, and do not count; where none was, the figures are 0.
    """
    centred = margins - margins.mean(-1, keepdims=True)
    asked = ~np.isnan(centred).any(-1, keepdims=True)
    return np.where(asked, centred, 0.0).sum(-2) / np.maximum(1, asked.sum(-2))


def spread(found: Floats) -> Floats:
    """The median absolute figure of each read: `[..., reads, concepts]` to `[..., reads, 1]`."""
    return np.median(np.abs(found - np.median(found, -1, keepdims=True)), -1, keepdims=True)


def in_spreads(found: Floats) -> Floats:
    """Figures in units of their own read's spread; a read in which nothing moved is 0."""
    unit = spread(found)
    return np.divide(found, unit, out=np.zeros_like(found), where=unit > 0)


def standardised(one: Floats, others: Floats) -> Floats:
    """A fine-tune's figures as a new draw against others', all by their sizes: `[reads, concepts]`, `[n, ...]`."""
    return (one - others.mean(0)) / _errors(others)


def _errors(others: Floats) -> Floats:
    """Of a new draw's distance to the mean of `n` others: `[reads, concepts]`."""
    n = len(others)
    variance = others.var(0, ddof=1)
    pooled = variance.mean(-1, keepdims=True)
    drawn = (PRIOR_FREEDOM * pooled + (n - 1) * variance) / (PRIOR_FREEDOM + n - 1)
    return np.sqrt(drawn * (1 + 1 / n))


def comparable(peers: Sequence[Moved]) -> NDArray[np.bool_]:
    """`[reads]`: in which of them peers differ from each other, whichever one is left out.

    They do not where fewer than two moved by more than noise, as weak fine-tunes do in bfloat16.
    """
    others = np.stack([peer.scaled for peer in peers])
    return np.all([_differ(np.delete(others, i, 0)) for i in range(len(others))], 0)


def _differ(others: Floats) -> NDArray[np.bool_]:
    return others.var(0, ddof=1).mean(-1) > ROUNDING * (others**2).mean((0, 2))


def contrast(target: Moved, peers: Sequence[Moved]) -> Contrast:
    """Set a target's figures against its peers'. In reads where peers do not differ nothing stands out.

    Raises:
        InputError: Fewer than 5 peers.
        ModelError: The peers do not differ from each other in any read.
    """
    n = len(peers)
    if n < LEAST_PEERS:
        why = f"{n} peers say too little about what the next fine-tune would show"
        raise InputError("Nothing can be claimed.", why, f"name at least {LEAST_PEERS} peers")
    rows = comparable(peers)
    if not rows.any():
        why = "they move nothing, or all of them the same"
        raise ModelError("These peers cannot be compared with.", why, "take fine-tunes that were trained apart")
    own, others = target.scaled[rows], np.stack([peer.scaled[rows] for peer in peers])
    found = standardised(own, others)
    rose = np.where(own > 0, found, np.minimum(found, 0.0))  # falling by less than the others did is no finding
    # Peers' statistics are not bounded so: with few concepts some would be 0, which has no logarithm.
    null = np.array([standardised(others[i], np.delete(others, i, 0)).max() for i in range(n)])
    each, threshold = _places(rose, null), _threshold(null)
    needed = target.sizes[rows, None] * np.maximum(0.0, others.mean(0) + threshold * _errors(others))
    scores, all_each, all_needed = (
        _filled(part, rows, other) for part, other in ((rose, 0.0), (each, 1.0), (needed, np.nan))
    )
    return Contrast(scores, float(rose.max()), null, float(each.min()), all_each, threshold, all_needed)


def _filled(part: Floats, rows: NDArray[np.bool_], other: float) -> Floats:
    found = np.full((len(rows), part.shape[1]), other)
    found[rows] = part
    return found


def _places(scores: Floats, null: Floats) -> Floats:
    """The share of new draws that would be at least as large as each score."""
    logs = np.log(np.maximum(null, LEAST))
    pivots = (np.log(np.maximum(scores, LEAST)) - logs.mean()) / max(logs.std(ddof=1), LEAST)
    above = DRAWS - np.searchsorted(reference(len(null)), pivots, side="left")
    found = (1 + above) / (1 + DRAWS)
    return np.maximum(found, _ranks(scores, null)) if _ranked(len(null)) else found


def _ranks(scores: Floats, null: Floats) -> Floats:
    return (1 + (null >= scores[..., None]).sum(-1)) / (1 + len(null))


def _ranked(n: int) -> bool:
    """Whether a rank among so many peers can reach the level."""
    return 1 / (1 + n) <= LEVEL


def _threshold(null: Floats) -> float:
    """The smallest score that is claimed."""
    logs = np.log(np.maximum(null, LEAST))
    place = int(np.ceil((1 - LEVEL) * DRAWS))
    found = float(np.exp(logs.mean() + reference(len(null))[place] * max(logs.std(ddof=1), LEAST)))
    if not _ranked(len(null)):
        return found
    allowed = int(LEVEL * (1 + len(null))) - 1  # peers that may be as large
    return max(found, float(np.nextafter(np.sort(null)[-1 - allowed], np.inf)))


@cache
def reference(n: int) -> Floats:
    """`(new - mean) / standard deviation` of one Gumbel draw against `n`, sorted: the same for any place and scale."""
    rng = np.random.default_rng(n)
    drawn = rng.gumbel(size=(DRAWS, n))
    return np.sort((rng.gumbel(size=DRAWS) - drawn.mean(1)) / drawn.std(1, ddof=1))
