"""Whether the coverage of the SIR's profile sets is chance in the data sets: the score test at the truth, in the same ones and in many more.

    python -m benchmarks.score_coverage

Counts are those of `benchmarks.profiles`, seeds 0 to 19,999. With the score `s` of the counts at the truth and the information `I`, the statistic of
an unknown with the other one free is `(I^-1 s)_k / sqrt((I^-1)_kk)`, of mean 0 and sd 1 whatever the number of counts. A row for seeds 0 to 499, for
500 to 999 and for all: mean, sd, and the shares inside the limits of 90 % and 95 %.
"""

import json
import sys
from typing import Any

import jax
import numpy as np

import bayes_mfg as bm

from .profiles import SEEDED, TRUTH, data_set

SIZE, SETS, CHANGE = 200, 20_000, 1e-4


def shares(**moved: float) -> np.ndarray:
    """Shares of the equilibria `(R, T, d)`."""
    grid = bm.equilibrium.TimeGrid(40.0, 21, substeps=5)
    return np.asarray(bm.data.simulate(bm.games.SIR(), {**TRUTH["sir"], **moved}, SEEDED, grid, noise="none").shares)


def statistics() -> np.ndarray:
    """Score statistics of every data set, `(SETS, 2)`."""
    mu = shares()
    slopes = np.stack(
        [
            (shares(**{name: value + CHANGE}) - shares(**{name: value - CHANGE})) / (2 * CHANGE)
            for name, value in TRUTH["sir"].items()
        ]
    )
    seen = mu > 1e-9
    weights = np.where(seen, slopes / np.where(seen, mu, 1.0), 0.0)
    inverse = np.linalg.inv(SIZE * np.einsum("arts,brts->ab", weights, np.where(seen, slopes, 0.0)))
    exact = np.maximum(mu, 0.0)
    exact /= exact.sum(axis=-1, keepdims=True)
    counts = (np.random.default_rng(seed).multinomial(SIZE, exact) for seed in range(SETS))
    found = np.stack([inverse @ np.einsum("rts,arts->a", each, weights) for each in counts]) / np.sqrt(np.diag(inverse))
    if not np.array_equal(np.random.default_rng(3).multinomial(SIZE, exact), data_set("sir", 3).counts):
        raise AssertionError("counts are not those of benchmarks.profiles")
    return np.asarray(found)


def main() -> int:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    found = statistics()
    for name, first, last in (("0 to 499", 0, 500), ("500 to 999", 500, 1000), ("all", 0, SETS)):
        for k, unknown in enumerate(TRUTH["sir"]):
            some = found[first:last, k]
            row: dict[str, Any] = {"seeds": name, "unknown": unknown, "mean": some.mean(), "sd": some.std()}
            row |= {"inside 90 %": np.mean(np.abs(some) < 1.644854), "inside 95 %": np.mean(np.abs(some) < 1.959964)}
            print(json.dumps({key: x if isinstance(x, str) else round(float(x), 4) for key, x in row.items()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
