"""Forecasts without a mechanism, to compare with: the last share goes on, or what it was at this time in other trajectories."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.stats
from scipy.special import expit, logit, logsumexp

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError

from .origins import checked, scores_of_draws

SHARES = 401
"""Quantiles that stand for a forecast's distribution of shares."""


@dataclasses.dataclass(frozen=True)
class Persistence:
    """The last count's share goes on, with a spread that was learned from other trajectories: no mechanism at all.

    The count `h` steps ahead is binomial with the logit of its share `logit((k + 1/2) / (n + 1)) + drift + s T`, where `k` of `n` were counted last,
    `T` is Student t, and `s^2 = scale^2 + 1 / (n p (1 - p))` is the scatter of the steps between and the error of the last share. Scale and degrees
    of freedom are learned for every horizon by maximum likelihood, over all origins that forecasts are made from. With `drifting` the mean change
    since each origin is taken over, too: what a calendar tells.

    Attributes
    ----------
    scale, degrees : horizon -> number.
    drift : (origin, horizon) -> mean change of the logit; zero where not drifting.
    """

    scale: dict[int, float]
    degrees: dict[int, float]
    drift: dict[tuple[int, int], float]

    @classmethod
    def learn(
        cls, training: Population, *, origins: Sequence[int], horizons: Sequence[int] = (1, 2, 3, 4), drifting: bool = False
    ) -> "Persistence":
        """Learn from trajectories of counts of one observed state.

        Parameters
        ----------
        training : the trajectories.
        origins, horizons : as in `forecast_origins`.
        drifting : whether the mean change is learned.

        Raises
        ------
        InputError : for data that are not counts of one state, and origins or horizons beyond the record.
        """
        starts, ahead = checked(training, origins, horizons)
        counts, totals = counted(training)
        scale: dict[int, float] = {}
        degrees: dict[int, float] = {}
        drift: dict[tuple[int, int], float] = {}
        for h in ahead:
            now, then, moved = [], [], []
            for origin in starts:
                if origin + h >= training.n_times:
                    continue
                last, size, seen = latest(counts, totals, origin)
                pair = seen & (totals[:, origin + h] > 0)
                k, n = counts[pair, origin + h], totals[pair, origin + h]
                change = logit((k + 0.5) / (n + 1.0)) - logit(last[pair])
                drift[origin, h] = float(np.mean(change)) if drifting else 0.0
                now.append(np.stack([logit(last[pair]), _error(last[pair], size[pair])], axis=1))
                moved.append(np.full(pair.sum(), drift[origin, h]))
                then.append(np.stack([k, n], axis=1))
            before, after, shift = np.concatenate(now), np.concatenate(then), np.concatenate(moved)

            def loss(x: np.ndarray, before: Any = before, after: Any = after, shift: Any = shift) -> float:
                spread = np.sqrt(np.exp(2 * x[0]) + before[:, 1])
                return -float(_mixture(before[:, 0] + shift, spread, 2 + np.exp(x[1]), after[:, 0], after[:, 1]).sum())

            found = scipy.optimize.minimize(
                loss, np.array([-1.0, 1.0]), method="Nelder-Mead", options={"maxiter": 120, "xatol": 1e-3}
            )
            scale[h], degrees[h] = float(np.exp(found.x[0])), float(2 + np.exp(found.x[1]))
        return cls(scale, degrees, drift)

    def scores(
        self, population: Population, *, origins: Sequence[int], horizons: Sequence[int] = (1, 2, 3, 4), seed: int = 0
    ) -> pd.DataFrame:
        """Scores of its forecasts, as `forecast_origins` has them.

        Raises
        ------
        InputError : as there, and for an origin or horizon that was not learned.
        """
        starts, ahead = checked(population, origins, horizons)
        counts, totals = counted(population)
        tables = []
        for origin in starts:
            last, size, seen = latest(counts, totals, origin)
            for h in ahead:
                if origin + h >= population.n_times:
                    continue
                if (origin, h) not in self.drift:
                    raise InputError(f"Persistence: origin {origin} with horizon {h} was not learned.")
                rows = np.flatnonzero(seen & (totals[:, origin + h] > 0))
                centre = logit(last[rows]) + self.drift[origin, h]
                spread = np.sqrt(self.scale[h] ** 2 + _error(last[rows], size[rows]))
                shares = expit(centre + np.outer(_quantiles(self.degrees[h], SHARES), spread))
                k, n = counts[rows, origin + h], totals[rows, origin + h]
                density = _mixture(centre, spread, self.degrees[h], k, n)
                tables.append(_row_table(population, rows, origin, h, shares, k, n, density, seed))
        return pd.concat(tables, ignore_index=True)


@dataclasses.dataclass(frozen=True)
class Historical:
    """Shares at the same time in other trajectories, each as likely as the others: what is known before a trajectory begins.

    Attributes
    ----------
    shares : `(T, R)`, smoothed as `(k + 1/2) / (n + 1)`, NaN where not observed.
    """

    shares: np.ndarray

    @classmethod
    def learn(cls, training: Population) -> "Historical":
        """Learn from trajectories of counts of one observed state.

        Raises
        ------
        InputError : for other data.
        """
        counts, totals = counted(training)
        return cls(np.where(totals > 0, (counts + 0.5) / (totals + 1.0), np.nan).T)

    def scores(
        self, population: Population, *, origins: Sequence[int], horizons: Sequence[int] = (1, 2, 3, 4), seed: int = 0
    ) -> pd.DataFrame:
        """Scores of its forecasts, as `forecast_origins` has them.

        Raises
        ------
        InputError : as there, and for more times than were learned.
        """
        starts, ahead = checked(population, origins, horizons)
        counts, totals = counted(population)
        if population.n_times > len(self.shares):
            raise InputError(f"Historical: the population has {population.n_times} times, {len(self.shares)} were learned.")
        tables = []
        for origin in starts:
            for h in (step for step in ahead if origin + step < population.n_times):
                _, _, seen = latest(counts, totals, origin)
                rows = np.flatnonzero(seen & (totals[:, origin + h] > 0))
                past = self.shares[origin + h]
                shares = np.repeat(past[np.isfinite(past)][:, None], len(rows), axis=1)
                k, n = counts[rows, origin + h], totals[rows, origin + h]
                density = logsumexp(scipy.stats.binom.logpmf(k, n, shares), axis=0) - np.log(len(shares))
                tables.append(_row_table(population, rows, origin, h, shares, k, n, density, seed))
        return pd.concat(tables, ignore_index=True)


def counted(population: Population) -> tuple[np.ndarray, np.ndarray]:
    """Counts and totals `(R, T)` of the one observed state; totals are 0 where it was not observed.

    Raises
    ------
    InputError : when there are no counts, or several states were observed.
    """
    if not isinstance(population, Population) or population.counts is None or population.totals is None:
        raise InputError("A forecast without a model needs counts with totals.")
    states = np.flatnonzero(population.mask.any(axis=(0, 1)))
    if len(states) != 1:
        raise InputError(f"A forecast without a model needs one observed state; {len(states)} are observed.")
    seen = population.mask[..., states[0]]
    return np.where(seen, population.counts[..., states[0]], 0), np.where(seen, population.totals, 0)


def latest(counts: np.ndarray, totals: np.ndarray, origin: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Last smoothed share `(R,)` up to the origin, its total, and whether there was one."""
    seen = totals[:, : origin + 1] > 0
    place = origin - np.argmax(seen[:, ::-1], axis=1)
    rows = np.arange(len(counts))
    k, n = counts[rows, place], totals[rows, place]
    return (k + 0.5) / (n + 1.0), n, seen.any(axis=1)


def _error(share: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Variance of the logit of a smoothed share of `size`."""
    return np.asarray(1.0 / ((size + 1.0) * share * (1.0 - share)))


def _quantiles(degrees: float, count: int) -> np.ndarray:
    return np.asarray(scipy.stats.t.ppf((np.arange(count) + 0.5) / count, degrees))


def _mixture(centre: np.ndarray, spread: np.ndarray, degrees: float, k: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Log density of counts `(m,)` with the logit of the share at `centre + spread T`, by quadrature over evenly spaced probabilities."""
    shares = np.clip(expit(centre + np.outer(_quantiles(degrees, 201), spread)), 1e-12, 1 - 1e-12)
    return np.asarray(logsumexp(scipy.stats.binom.logpmf(k, n, shares), axis=0) - np.log(len(shares)))


def _row_table(
    population: Population,
    rows: np.ndarray,
    origin: int,
    horizon: int,
    shares: np.ndarray,
    k: np.ndarray,
    n: np.ndarray,
    density: np.ndarray,
    seed: int,
) -> pd.DataFrame:
    """Scores of binomial replicates of shares `(m, cells)` against counts `k` of `n`."""
    drawn = np.random.default_rng(seed + 100 * origin + horizon).binomial(n, shares) / n
    names = np.array(population.trajectories, object)[rows]
    state = population.states[int(np.flatnonzero(population.mask.any(axis=(0, 1)))[0])]
    columns: dict[str, Any] = {"log_score": density, **scores_of_draws(drawn, k / n)}
    return pd.DataFrame({"trajectory": names, "origin": origin, "horizon": horizon, "state": state, **columns})
