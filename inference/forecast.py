"""Scores of forecasts by horizon, and the scoring rules that they are made of."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.models import FirstObserved, ForwardModel

from .pointwise import independent_in_time, needed
from .predict import predict
from .scores import compared, covered, crps_of_draws, suited

if TYPE_CHECKING:
    from .result import Fit

ALPHAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""One minus the probabilities of the central intervals of the weighted interval score: with the median 23 quantiles, those of the hubs."""


def forecast_scores(
    fit: "Fit",
    population: Population,
    *,
    horizons: ArrayLike | None = None,
    num_draws: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Scores of a fit's forecasts of what its trajectories did after the data, by horizon.

    The trajectories go on from the fitted ones, under a model whose `horizon` reaches beyond its data; nothing of `population` but its times
    and sizes enters the forecast. `population.until(t)` and `population.after(t)` divide a record. All scores but the log score are of recorded
    shares, on the scale from 0 to 1: counts are divided by their totals, so that scores of unequal populations can be averaged. Times a common
    total, CRPS, energy score and weighted interval score are those of the counts.

    Parameters
    ----------
    fit : a fit with its model.
    population : what was observed later, of some or all trajectories of the fit, by name; its times lie up to the model's horizon.
    horizons : `(K,)`, increasing: a row pools what lies above the horizon before it (above 0) and up to its own. By default each horizon that occurs
        has a row. The horizon of an observation is the time since the last datum that the fit had of its trajectory, in the data's unit of time.
    num_draws : posterior draws to use, spread evenly; by default all.
    seed : of the replicates.

    Returns
    -------
    DataFrame
        One row per horizon (index "horizon"), each column a mean over observations, with the columns

        - `log_score`: log predictive density of an observation (a row under Dirichlet and multinomial models, a cell under the others). Higher is
          better.
        - `crps`: of the share of one state, see `crps_of_draws`. Lower is better, here and below.
        - `energy_score`: of the vector of observed states at one time of one trajectory, see `energy_of_draws`.
        - `wis`: weighted interval score of the share of one state with the 11 intervals of the forecast hubs, see `wis_of_draws`.
        - `coverage50`, `coverage90`: part of the shares inside the central 50 % and 90 % of the replicates, ends included.
        - `observations`: of which `log_score` is the mean.
        - `failed_solves`: draws left out because an equilibrium was not found.

    Raises
    ------
    InputError : when the fit has no model, trajectories, states or times do not fit it, or an observation is not after the data.
    FitError : when no draw has all equilibria.
    """
    model = needed(fit, "forecast scores")
    independent_in_time(model, "forecast_scores", "score whole trajectories (scores), or use leave_future_out")
    population = suited(population, model, "forecast_scores")
    known = model.population.trajectories
    for name in population.trajectories:
        if name not in known:
            raise InputError(f"forecast_scores: trajectory {name!r} is none of the fit's, which are {', '.join(known)}.")
    rows = [known.index(name) for name in population.trajectories]
    record = model.observation.record(population)
    mask = np.array(record.mask)
    ahead = _ahead(population, model, rows, mask)
    bins = _bins(ahead, mask, horizons)

    paths = predict(fit, population.times, num_draws=num_draws, seed=seed).isel(trajectory=rows)
    found = compared(fit, paths, record, seed)
    cells = found.cells(mask)
    drawn, truth = found.replicates, found.recorded
    each = {
        "log_score": (found.log_score, mask),
        "crps": (_of_cells(crps_of_draws, drawn, truth, cells), cells),
        "energy_score": (energy_of_draws(np.where(cells, drawn, 0.0), np.where(cells, truth, 0.0)), cells.any(axis=-1)),
        "wis": (_of_cells(wis_of_draws, drawn, truth, cells), cells),
        "coverage50": (_of_cells(lambda x, y: covered(x, y, 0.5), drawn, truth, cells), cells),
        "coverage90": (_of_cells(lambda x, y: covered(x, y, 0.9), drawn, truth, cells), cells),
    }
    table = []
    for low, high, label in bins:
        within = (ahead > low) & (ahead <= high)
        row: dict[str, Any] = {"horizon": label}
        for name, (values, counts) in each.items():
            row[name] = float(values[counts & within.reshape(*within.shape, *[1] * (counts.ndim - 2))].mean())
        row["observations"] = int(mask[within].sum())
        table.append(row)
    return pd.DataFrame(table).set_index("horizon").assign(failed_solves=int(paths.attrs["failed_solves"]))


def wis_of_draws(draws: ArrayLike, truth: ArrayLike, alphas: Sequence[float] = ALPHAS) -> NDArray[np.float64]:
    """Weighted interval score of draws from a predictive distribution.

    With the median `m` and, for each of `K` alphas, the ends `l` and `u` of the central interval of probability `1 - alpha`,

        (|y - m| / 2 + sum_k alpha_k / 2 ((u_k - l_k) + 2 / alpha_k (max(l_k - y, 0) + max(y - u_k, 0)))) / (K + 1/2).

    It approaches the CRPS as evenly spaced alphas grow many.

    Parameters
    ----------
    draws : `(n, ...)`, at least two; quantiles are interpolated linearly.
    truth : `(...)`.
    alphas : between 0 and 1; by default those of the US influenza and COVID-19 forecast hubs.

    Returns
    -------
    `(...)`, in the units of the draws; lower is better.

    Raises
    ------
    InputError : when the shapes do not match, there are fewer than two draws, or an alpha is not between 0 and 1.

    References
    ----------
    Bracher, Ray, Gneiting and Reich, Evaluating epidemic forecasts in an interval format, PLOS Computational Biology 17 (2021).
    """
    x, y = _pair(draws, truth, "wis_of_draws")
    alpha = np.asarray(alphas, dtype=float)
    if alpha.ndim != 1 or not alpha.size or not np.all((alpha > 0) & (alpha < 1)):
        raise InputError(f"wis_of_draws: alphas are {alphas!r}; numbers between 0 and 1 are needed.")
    ends = np.quantile(x, np.concatenate([[0.5], alpha / 2, 1 - alpha / 2]), axis=0)
    median, low, high = ends[0], ends[1 : len(alpha) + 1], ends[len(alpha) + 1 :]
    weight = alpha.reshape(-1, *[1] * y.ndim) / 2
    outside = np.maximum(low - y, 0.0) + np.maximum(y - high, 0.0)
    total = 0.5 * np.abs(y - median) + (weight * (high - low) + outside).sum(axis=0)
    return np.asarray(total / (len(alpha) + 0.5))


def energy_of_draws(draws: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Energy score of vectors drawn from a predictive distribution, unbiased: the CRPS with Euclidean distances.

    `mean_i |x_i - y| - sum_{i < j} |x_i - x_j| / (n (n - 1))`.

    Parameters
    ----------
    draws : `(n, ..., k)`, at least two vectors of length k.
    truth : `(..., k)`.

    Returns
    -------
    `(...)`, in the units of the draws; lower is better. An estimate may be slightly negative.

    Raises
    ------
    InputError : when the shapes do not match or there are fewer than two draws.

    References
    ----------
    Gneiting and Raftery, Strictly proper scoring rules, JASA 102 (2007), equation 22; unbiased as in `crps_of_draws`.
    """
    x, y = _pair(draws, truth, "energy_of_draws")
    if not y.ndim:
        raise InputError("energy_of_draws: truth is a number; vectors are needed.")
    n, shape = len(x), y.shape[:-1]
    near = np.linalg.norm(x - y, axis=-1).mean(axis=0)
    # One row at a time: all pairs of 2,000 draws are 16 MB.
    apart = [pdist(row).sum() for row in np.moveaxis(x.reshape(n, -1, y.shape[-1]), 1, 0)]
    return np.asarray(near - np.reshape(apart, shape) / (n * (n - 1.0)))


def _pair(draws: ArrayLike, truth: ArrayLike, where: str) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(draws, dtype=float), np.asarray(truth, dtype=float)
    if x.ndim == 0 or len(x) < 2 or x.shape[1:] != y.shape:
        raise InputError(f"{where}: draws have shape {x.shape}, truth {y.shape}; (n, ...) and (...) with n >= 2 are needed.")
    return x, y


def _of_cells(rule: Any, drawn: np.ndarray, truth: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """A score `(R, T, k)` of the cells that count, NaN in others."""
    result = np.full(truth.shape, np.nan)
    result[cells] = rule(drawn[:, cells], truth[cells])
    return result


def _ahead(population: Population, model: ForwardModel, rows: list[int], mask: np.ndarray) -> np.ndarray:
    """Time since the last datum that the fit had of each trajectory, `(R, T)`.

    Raises
    ------
    InputError : when something was observed that is not after it.
    """
    clock, used = model.population.times, np.array(model.data.record.mask)
    seen = used if used.ndim == 2 else used.any(axis=-1)
    if isinstance(model.initial, FirstObserved):
        seen[:, 0] = True  # the start is taken from there
    last = np.array([clock[seen[row]][-1] if seen[row].any() else clock[0] for row in rows])
    ahead = population.times - last[:, None]
    slack = 1e-9 * (clock[-1] - clock[0])
    early = np.argwhere((mask if mask.ndim == 2 else mask.any(axis=-1)) & (ahead <= slack))
    if early.size:
        r, t = early[0]
        raise InputError(
            f"forecast_scores: trajectory {population.trajectories[r]!r} at time {population.times[t]:g} is no forecast; the fit has its data up to "
            f"{last[r]:g} (see Population.after)."
        )
    return ahead


def _bins(ahead: np.ndarray, mask: np.ndarray, horizons: ArrayLike | None) -> list[tuple[float, float, float]]:
    """Ends of the half-open ranges of horizons that are pooled, with room for rounding, and the horizon that each is called by.

    Raises
    ------
    InputError : for horizons that do not increase from above 0, or a range that holds nothing.
    """
    seen = ahead[mask if mask.ndim == 2 else mask.any(axis=-1)]
    if not seen.size:
        raise InputError("forecast_scores: the population holds nothing that was observed.")
    slack = 1e-9 * seen.max()
    if horizons is None:
        # Differences of times that are products of steps agree up to rounding.
        distinct = np.unique(seen)
        highs = distinct[np.append(np.diff(distinct) > slack, True)]
    else:
        try:
            highs = np.atleast_1d(np.asarray(horizons, dtype=float))
        except (TypeError, ValueError) as error:
            raise InputError(f"forecast_scores: horizons is {horizons!r}; numbers are needed.") from error
        if highs.ndim != 1 or not highs.size or not np.all(np.diff(highs, prepend=0.0) > 0):
            raise InputError(f"forecast_scores: horizons is {horizons!r}; increasing numbers above 0 are needed.")
    lows = np.append(0.0, highs[:-1])
    bins = [(float(low + slack), float(high + slack), float(high)) for low, high in zip(lows, highs, strict=True)]
    for low, high, label in bins:
        if not ((seen > low) & (seen <= high)).any():
            raise InputError(f"forecast_scores: nothing was observed at horizons above {low:g} and up to {label:g}.")
    return bins
