"""Forecasts without a mechanism, to compare with: the last share goes on, or what it was at this time in other trajectories."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.stats
from scipy.special import betaln, expit, gammaln, log_expit, logit, logsumexp

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError

from .errors import FitError
from .origins import checked, scores_of_draws

SHARES = 401
"""Quantiles that stand for a forecast's distribution of shares in replicates; log scores are integrals over all of it."""

REACH = 1e4
"""How far from its centre, in logits, a distribution of shares is integrated."""

HELD_OUT = 50
"""Trajectories, spread evenly, that are held out in turn at every time to learn how wide a share of the past is to be taken."""


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
        origins, horizons : as in `forecast_origins`. A horizon that no origin has within the record is not learned.
        drifting : whether the mean change is learned.

        Raises
        ------
        InputError : for data that are not counts of one state, origins or horizons beyond the record, and a horizon (with `drifting` also an
            origin of it) with no trajectory that was observed both up to the origin and that much later.
        FitError : when the likelihood's maximum is not found.
        """
        starts, ahead = checked(training, origins, horizons)
        counts, totals = counted(training)
        scale: dict[int, float] = {}
        degrees: dict[int, float] = {}
        drift: dict[tuple[int, int], float] = {}
        for h in ahead:
            within = [origin for origin in starts if origin + h < training.n_times]
            if not within:
                continue
            now, then, moved = [], [], []
            for origin in within:
                last, size, seen = latest(counts, totals, origin)
                pair = seen & (totals[:, origin + h] > 0)
                if drifting and not pair.any():
                    raise InputError(
                        f"Persistence: no trajectory was observed both up to time {origin} and {h} steps later; a drift is learned from some."
                    )
                k, n = counts[pair, origin + h], totals[pair, origin + h]
                change = logit((k + 0.5) / (n + 1.0)) - logit(last[pair])
                drift[origin, h] = float(np.mean(change)) if drifting else 0.0
                now.append(np.stack([logit(last[pair]), _error(last[pair], size[pair])], axis=1))
                moved.append(np.full(pair.sum(), drift[origin, h]))
                then.append(np.stack([k, n], axis=1))
            before, after, shift = np.concatenate(now), np.concatenate(then), np.concatenate(moved)
            if not len(after):
                raise InputError(
                    f"Persistence: no trajectory was observed both up to one of the origins {within} and {h} steps later; horizon {h} cannot be"
                    " learned."
                )
            expected = _Expected(before[:, 0] + shift, np.sqrt(before[:, 1]), after[:, 0], after[:, 1])

            def loss(x: np.ndarray, before: Any = before, expected: Any = expected) -> float:
                spread = np.sqrt(np.exp(2 * x[0]) + before[:, 1])
                return -float(expected.log_density(spread, 2 + np.exp(x[1])).sum())

            found = scipy.optimize.minimize(
                loss,
                np.array([-1.0, 1.0]),
                method="Nelder-Mead",
                bounds=[(-8.0, 3.0), (-4.0, 5.0)],
                options={"maxiter": 400, "xatol": 1e-2, "fatol": 1e-2},
            )
            if not found.success:
                raise FitError(f"Persistence: the steps at horizon {h} have no likeliest scale and tails ({found.message}).")
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
                density = _Expected(centre, spread, k, n).log_density(spread, self.degrees[h])
                tables.append(_row_table(population, rows, origin, h, shares, k, n, density, seed))
        return pd.concat(tables, ignore_index=True)


@dataclasses.dataclass(frozen=True)
class Historical:
    """Shares at the same time in other trajectories, each as likely as the others: what is known before a trajectory begins.

    A count is beta-binomial around a share `p` of the past, with the parameters `concentration p` and `concentration (1 - p)`: a record of finitely
    many shares does not say that nothing in between can occur. The concentration, one for all times, is the likeliest for trajectories that are held
    out in turn.

    Attributes
    ----------
    shares : `(T, R)`, smoothed as `(k + 1/2) / (n + 1)`, NaN where not observed.
    concentration : of a count around a share of the past.
    """

    shares: np.ndarray
    concentration: float

    @classmethod
    def learn(cls, training: Population, *, groups: Sequence[str] | None = None) -> "Historical":
        """Learn from trajectories of counts of one observed state.

        Parameters
        ----------
        training : `R` trajectories.
        groups : `(R,)` names; with a trajectory its whole group is held out, such as all states of a season. By default each is its own.

        Raises
        ------
        InputError : for other data, groups of another number, and when there is nothing left when a group is held out.
        """
        counts, totals = counted(training)
        names = list(training.trajectories) if groups is None else [str(name) for name in groups]
        if len(names) != training.n_trajectories:
            raise InputError(f"Historical: groups has {len(names)} names for {training.n_trajectories} trajectories.")
        shares = np.where(totals > 0, (counts + 0.5) / (totals + 1.0), np.nan).T
        numbers = np.unique(np.array(names), return_inverse=True)[1]
        held_out = []
        for past, k, n in zip(shares, counts.T, totals.T, strict=True):
            seen = np.flatnonzero(np.isfinite(past))
            some = seen[:: max(1, -(-len(seen) // HELD_OUT))]
            others = numbers[seen][:, None] != numbers[some]
            some, others = some[others.any(axis=0)], others[:, others.any(axis=0)]
            if some.size:
                held_out.append((past[seen], k[some], n[some], others))
        if not held_out:
            raise InputError(
                "Historical: no time is observed in two trajectories or groups, which does not say how wide to make a forecast."
            )

        def loss(x: float) -> float:
            return -sum(float(_around(past, np.exp(x), k, n, others).sum()) for past, k, n, others in held_out)

        found = scipy.optimize.minimize_scalar(loss, bounds=(0.0, 12.0), method="bounded", options={"xatol": 0.02})
        return cls(shares, float(np.exp(found.x)))

    def scores(
        self, population: Population, *, origins: Sequence[int], horizons: Sequence[int] = (1, 2, 3, 4), seed: int = 0
    ) -> pd.DataFrame:
        """Scores of its forecasts, as `forecast_origins` has them.

        Raises
        ------
        InputError : as there, and for times that were not learned.
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
                past = self.shares[origin + h][np.isfinite(self.shares[origin + h])]
                if not past.size:
                    raise InputError(f"Historical: nothing was observed at time {origin + h} of what it learned from.")
                k, n = counts[rows, origin + h], totals[rows, origin + h]
                density = _around(past, self.concentration, k, n, np.ones((len(past), len(rows)), bool))
                around = past[:, None] * np.ones(max(1, -(-SHARES // len(past))))
                rng = np.random.default_rng([seed, origin, h])
                once = rng.beta(self.concentration * around, self.concentration * (1 - around)).reshape(-1, 1)
                shares = np.repeat(once, len(rows), axis=1)
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


class _Expected:
    """Densities of counts whose share has a logit of Student t, as integrals over the logit.

    The nodes are dense around the centre of the t and around the peak of the binomial likelihood, which may lie far out in the tails: in between all
    is smooth. They do not depend on scale and degrees, so that a fit evaluates the binomial once.

    Parameters
    ----------
    centre : `(m,)`.
    finest : least scale that will be asked for, `(m,)`.
    k, n : counts and totals, `(m,)`.
    """

    def __init__(self, centre: np.ndarray, finest: np.ndarray, k: np.ndarray, n: np.ndarray) -> None:
        peak = (k + 0.5) / (n + 1.0)
        far = np.linspace(-1.0, 1.0, 401)[:, None] * np.arcsinh(REACH / finest)
        near = np.linspace(-12.0, 12.0, 193)[:, None] * np.sqrt(_error(peak, n))
        logits = np.sort(np.concatenate([centre + finest * np.sinh(far), logit(peak) + near]), axis=0)
        step = np.diff(logits, axis=0)
        with np.errstate(divide="ignore"):
            width = np.log(0.5 * (np.concatenate([step, 0 * step[:1]]) + np.concatenate([0 * step[:1], step])))
        choices = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
        self.apart = logits - centre
        self.log_likelihood = choices + k * log_expit(logits) + (n - k) * log_expit(-logits) + width

    def log_density(self, spread: np.ndarray, degrees: float) -> np.ndarray:
        """Log density `(m,)` of the counts at scales `(m,)`."""
        constant = gammaln(0.5 * (degrees + 1)) - gammaln(0.5 * degrees) - 0.5 * np.log(degrees * np.pi) - np.log(spread)
        student = -0.5 * (degrees + 1) * np.log1p((self.apart / spread) ** 2 / degrees)
        return np.asarray(logsumexp(self.log_likelihood + student, axis=0) + constant)


def _around(past: np.ndarray, concentration: float, k: np.ndarray, n: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Log density of counts `(m,)` that are beta-binomial around shares `(R,)`, of which `others (R, m)` count."""
    one, two = concentration * past[:, None], concentration * (1 - past[:, None])
    choices = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    density = choices + betaln(k + one, n - k + two) - betaln(one, two)
    return np.asarray(logsumexp(density, axis=0, b=others.astype(float)) - np.log(others.sum(axis=0)))


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
