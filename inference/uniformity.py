"""Are ranks uniform? Simultaneous bands for their empirical distribution, and a p-value that goes with them."""

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, bdtrc
from scipy.stats import binom

TRIALS = 10_000
"""Sets of uniform ranks that the distribution of the test statistic is simulated from."""

type Ints = NDArray[np.int64]
type Floats = NDArray[np.float64]


def rank(truth: ArrayLike, draws: ArrayLike, rng: np.random.Generator) -> Ints:
    """Rank of a truth among draws, 0 to their number; among equals a place at random, so that ranks of discrete quantities are uniform, too.

    Parameters
    ----------
    truth : `(...)`.
    draws : `(L, ...)`.
    rng : for ties.
    """
    truth, draws = np.asarray(truth), np.asarray(draws)
    below, equal = (draws < truth).sum(axis=0), (draws == truth).sum(axis=0)
    return np.asarray(below + rng.integers(0, equal + 1), dtype=np.int64)


def _statistic(counts: Ints, n: int, most: int) -> Floats:
    """Twice the least binomial tail probability over all places of the empirical distribution; `counts (..., most + 1)` are those of each rank."""
    places = np.arange(1, most + 1) / (most + 1)
    reached = np.cumsum(counts, axis=-1)[..., :-1]
    lower = bdtr(reached.astype(float), n, places)
    upper = np.where(reached > 0, bdtrc(np.maximum(reached - 1, 0).astype(float), n, places), 1.0)
    return np.asarray(2.0 * np.minimum(lower, upper).min(axis=-1))


@functools.lru_cache(maxsize=32)
def _null(n: int, most: int) -> Floats:
    """Sorted statistics of `TRIALS` sets of `n` uniform ranks of 0 to `most`."""
    rng = np.random.default_rng(0)
    even = np.full(most + 1, 1.0 / (most + 1))
    return np.sort(np.concatenate([_statistic(rng.multinomial(n, even, size=500), n, most) for _ in range(TRIALS // 500)]))


def p_value(ranks: ArrayLike, most: int) -> float:
    """Probability that as many uniform ranks leave, somewhere, a pointwise band at least as narrow as these do.

    The empirical distribution of `n` ranks at place `j` is binomial, `P(rank <= j) = (j + 1) / (L + 1)`; the statistic is the smallest of its
    two-sided tail probabilities, and its own distribution under uniformity is simulated. Small for ranks that are shifted, or pile up at the ends
    (draws too narrow) or in the middle (too wide).

    Parameters
    ----------
    ranks : `(n,)`, of 0 to `most`.
    most : number of draws, the largest possible rank.

    References
    ----------
    Saeilynoja, Buerkner and Vehtari, Graphical test for discrete uniformity and its applications in goodness-of-fit evaluation and multiple sample
    comparison, Statistics and Computing 32:32 (2022).
    """
    ranks = np.asarray(ranks)
    n = len(ranks)
    if not n:
        return float("nan")
    null = _null(n, most)
    mine = float(_statistic(np.bincount(ranks, minlength=most + 1), n, most))
    # Statistics are discrete: what differs by rounding is the same.
    simulated = (1 + np.searchsorted(null, mine * (1 + 1e-9), side="right")) / (1 + len(null))
    # Where no simulated set was as extreme, the sum over places still bounds the probability.
    return float(min(simulated, most * mine))


def band(n: int, most: int, prob: float = 0.99) -> tuple[Floats, Floats, Floats]:
    """Simultaneous band of the empirical distribution of `n` uniform ranks of 0 to `most`.

    Parameters
    ----------
    n : number of ranks.
    most : largest possible rank.
    prob : probability that the whole empirical distribution lies inside.

    Returns
    -------
    places, low, high : `(most,)`; the share of ranks up to `j` is expected at `places[j] = (j + 1) / (most + 1)`.
    """
    level = float(np.quantile(_null(n, most), 1.0 - prob, method="lower"))
    places = np.arange(1, most + 1) / (most + 1)
    low, high = binom.ppf(0.5 * level, n, places), binom.isf(0.5 * level, n, places)
    return places, low / n, high / n


def covered(ranks: ArrayLike, most: int, probability: float) -> tuple[float, float]:
    """Share of ranks inside the central interval of a probability, and the share that uniform ranks have there.

    Between draws there is no interval: the ends lie at the draws next to the probability asked for, and the second figure says what it then is.
    """
    ranks = np.asarray(ranks)
    left_out = round(0.5 * (1.0 - probability) * (most + 1))
    inside = (ranks >= left_out) & (ranks <= most - left_out)
    return float(inside.mean()) if len(ranks) else float("nan"), (most + 1 - 2 * left_out) / (most + 1)
