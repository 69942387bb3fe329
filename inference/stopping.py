"""When variational updates may end: the ELBO has settled."""

import math

import numpy as np
import scipy.stats

BATCH = 20
"""Updates of which the median counts: robust to draws far out, and less correlated with the next than single ones."""

FEWEST = 600
"""Updates before which nothing is said: a quarter of them are seven batches."""

CONFIDENCE = 0.95
"""Of each of the two one-sided tests."""


def batches(losses: np.ndarray) -> np.ndarray:
    """Medians `(len(losses) // BATCH,)` of the finite losses in batches, counted from the end; NaN where a batch has none."""
    count = len(losses) // BATCH
    cut = losses[len(losses) - count * BATCH :].reshape(count, BATCH)
    finite = np.isfinite(cut)
    levels, alive = np.full(count, np.nan), finite.any(axis=1)
    levels[alive] = np.nanmedian(np.where(finite, cut, np.nan)[alive], axis=1)
    return levels


def settled(losses: np.ndarray, tolerance: float) -> bool:
    """Whether the ELBO has settled over the last half of the updates, to `tolerance` nats.

    The half is cut into an earlier and a later quarter of all updates. The ELBO has settled when the change of its level from the one to the other
    is within `tolerance`, by two one-sided tests at 95 % each: not where a change cannot be seen for noise, but where the noise no longer leaves room
    for one that matters. Quarters grow with the trace, so that noise of any size is averaged out in the end, and an approach as slow as 1/updates
    has left about twice the change that is seen. A nat of ELBO is a nat of Kullback-Leibler divergence from the posterior, which is why the
    tolerance is absolute; changes relative to the size of the ELBO depend on the units of the data (Dhaka et al. 2020).

    A function of the losses alone: a resumed fit decides as the one that was never stopped.

    Sources: Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987) for the two tests; Welch, Biometrika 34 (1947) for their degrees of freedom; Dhaka,
    Catalina, Andersen, Magnusson, Huggins and Vehtari, Robust, accurate stochastic optimization for variational inference, NeurIPS 2020, for what it
    does in place of relative changes, and for averaging the iterates once they are stationary.

    Parameters
    ----------
    losses : `(update,)`, negative ELBO per update, not finite where it was skipped.
    tolerance : nats; 0 is never met.
    """
    if len(losses) < FEWEST or tolerance <= 0:
        return False
    change, error, freedom = _change(batches(losses[-(len(losses) // 2) :]))
    room = error * float(scipy.stats.t.ppf(CONFIDENCE, freedom)) if error > 0 else 0.0
    return bool(abs(change) + room < tolerance)


def _change(levels: np.ndarray) -> tuple[float, float, float]:
    """How far the second half of batches lies below the first, its standard error, and Welch's degrees of freedom; NaN of fewer than two each."""
    middle = len(levels) // 2
    parts = [part[np.isfinite(part)] for part in (levels[:middle], levels[middle:])]
    if min(map(len, parts)) < 2:
        return math.nan, math.nan, math.nan
    variances = [float(np.var(part, ddof=1)) / len(part) for part in parts]
    total = sum(variances)
    freedom = total**2 / sum(v**2 / (len(part) - 1) for v, part in zip(variances, parts, strict=True)) if total > 0 else math.inf
    return float(parts[0].mean() - parts[1].mean()), math.sqrt(total), freedom
