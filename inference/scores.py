"""Scores: how well a fit predicts a population that it was, or was not, fitted to."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jax import Array
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.models import Data, FirstObserved, ForwardModel
from bayes_mfg.models.observations import Record

from .assemble import CHUNK
from .coordinates import compiled, coordinates
from .errors import FitError
from .predict import chosen_draws, predict

if TYPE_CHECKING:
    from .result import Fit

REPLICATES = 500
"""Replicates of the record that bands and CRPS are made of, at least."""

SMALL = 1e-4
"""Added to squared shares in the relative error."""


def scores(
    fit: "Fit", population: Population, *, initial: Any = None, num_draws: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Scores of a fit's predictions of a population, the data of the fit or others.

    Trajectories that the fit has not seen start where `initial` says, or at their first observation; nothing else of them enters the prediction.
    Where paths are pooled, their deviations are drawn anew (see `predict`): scores are of the predictive distribution of a new trajectory.
    Noise is the model's own: a replicate of what was observed, sizes and gaps included.

    Parameters
    ----------
    fit : a fit with its model.
    population : what is predicted, in the model's states; its times lie between the model's first time and its horizon.
    initial : initial populations `(R, d)` or `(d,)`, known; "observed" for the first observations; by default the fitted ones where the population
        is the fit's own data, else the first observations.
    num_draws : posterior draws to use, spread evenly; by default all.
    seed : of the replicates.

    Returns
    -------
    DataFrame
        One row, with the columns

        - `mu_error`: mean over trajectories of the mean over times of `sum_x (m - y)^2`, with the posterior mean `m` of the population and the
          observed shares `y`; over the cells that were observed. The score of arXiv 2606.23155.
        - `relative_error`: mean over trajectories of the mean over cells of `(m - y)^2 / (y^2 + 1e-4)`.
        - `log_score`: mean log predictive density of an observation (a row under Dirichlet and multinomial models, a cell under the others): the
          log of the mean over draws of the model's likelihood; of errors that persist, given the observations before it. Higher is better.
        - `crps`: mean continuous ranked probability score of the recorded shares, unbiased for infinitely many replicates. Lower is better.
        - `coverage50`, `coverage90`: part of the recorded shares inside the central 50 % and 90 % of the replicates, ends included; counts
          that are small numbers lie inside more often than that.
        - `observations`: of which `log_score` is the mean.
        - `failed_solves`: draws left out because an equilibrium was not found.

        The errors look at every time, as the paper does; where the start was taken from the first observation that observation is left out of the
        others, for it predicts itself.

    Raises
    ------
    InputError : when the fit has no model, or population, initial or num_draws do not fit it.
    FitError : when no draw has all equilibria.
    """
    model = fit.model
    if model is None:
        raise InputError("This fit was loaded without its model; use load(path, model=...) to score.")
    population = suited(population, model, "scores")
    starts, taken = _starts(population, model, initial)
    # Only populations are taken from here; replicates have the sizes of the record.
    ahead = predict(fit, population.times, initial=starts, totals=1, num_draws=num_draws, seed=seed)
    record = model.observation.record(population)
    mask = np.array(record.mask)
    if taken:
        mask[:, 0] = False
    if not mask.any():
        raise InputError("scores: nothing was observed after the first time, and the start is taken from there.")
    found = compared(fit, ahead, record, seed, taken)
    cells = found.cells(mask)
    drawn, truth = found.replicates[:, cells], found.recorded[cells]
    mu_error, relative_error = _errors(ahead["mu"].to_numpy().mean(axis=0), population)
    row = {
        "mu_error": mu_error,
        "relative_error": relative_error,
        "log_score": float(found.log_score[mask].mean()),
        "crps": float(crps_of_draws(drawn, truth).mean()),
        "coverage50": float(covered(drawn, truth, 0.5).mean()),
        "coverage90": float(covered(drawn, truth, 0.9).mean()),
        "observations": int(mask.sum()),
        "failed_solves": int(ahead.attrs["failed_solves"]),
    }
    return pd.DataFrame([row])


def crps_of_draws(draws: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Continuous ranked probability score of draws from a predictive distribution, unbiased ("fair").

    `mean_i |x_i - y| - sum_{i < j} |x_i - x_j| / (n (n - 1))`; the sum over pairs is `sum_i (2 i - n - 1) x_(i)` over the draws in
    increasing order, `i` from 1, because `x_(i)` stands above `i - 1` of the others and below `n - i`.

    Parameters
    ----------
    draws : `(n, ...)`, at least two.
    truth : `(...)`.

    Returns
    -------
    `(...)`; lower is better. An estimate may be slightly negative.

    Raises
    ------
    InputError : when the shapes do not match or there are fewer than two draws.

    References
    ----------
    Gneiting and Raftery, Strictly proper scoring rules, JASA 102 (2007), equation 21; Ferro, Fair scores for ensemble forecasts, Quarterly Journal
    of the Royal Meteorological Society 140 (2014).
    """
    x, y = np.asarray(draws, dtype=float), np.asarray(truth, dtype=float)
    if x.ndim == 0 or len(x) < 2 or x.shape[1:] != y.shape:
        raise InputError(
            f"crps_of_draws: draws have shape {x.shape}, truth {y.shape}; (n, ...) and (...) with n >= 2 are needed."
        )
    n = len(x)
    weights = (2.0 * np.arange(1, n + 1) - n - 1.0) / (n * (n - 1.0))
    return np.abs(x - y).mean(axis=0) - np.tensordot(weights, np.sort(x, axis=0), axes=1)


def covered(draws: np.ndarray, truth: np.ndarray, probability: float) -> NDArray[np.bool_]:
    """Which of the numbers `(n,)` lie inside the central interval of the draws `(S, n)`; rounding at its ends does not count.

    A truth like the `S` draws is below the `k`-th smallest with probability `k / (S + 1)`: these are the quantiles taken ("weibull"), so that few
    draws hold what they say, as far as they reach.
    """
    low, high = np.quantile(draws, [0.5 - 0.5 * probability, 0.5 + 0.5 * probability], axis=0, method="weibull")
    return np.asarray((truth >= low - 1e-12) & (truth <= high + 1e-12))


def _errors(mean: np.ndarray, population: Population) -> tuple[float, float]:
    """Squared and relative error of mean populations `(R, T, d)`; trajectories without any observation count nothing."""
    seen = population.mask & np.isfinite(population.shares)
    shares = np.where(seen, population.shares, 0.0)
    squared = np.where(seen, (mean - shares) ** 2, 0.0)
    rows = seen.any(axis=-1).sum(axis=-1)
    some = rows > 0
    cells = seen.sum(axis=(1, 2))[some]
    relative = (squared / (shares**2 + SMALL)).sum(axis=(1, 2))[some] / cells
    return float((squared.sum(axis=(1, 2))[some] / rows[some]).mean()), float(relative.mean())


def suited(population: Any, model: ForwardModel, where: str) -> Population:
    """The population in the order of the model's states.

    Raises
    ------
    InputError : when it is none, or its states are not the model's.
    """
    if not isinstance(population, Population):
        raise InputError(f"{where}: population is {population!r}; a bayes_mfg.data.Population is needed.")
    if population.n_states == model.population.n_states:
        population = model.arranged(population)
    if population.states != model.population.states or model.observation.columns(population) != model.columns:
        raise InputError(
            f"{where}: the population has the states {', '.join(population.states)}, observed {', '.join(model.observation.columns(population))}; "
            f"the fit's data have {', '.join(model.population.states)}, observed {', '.join(model.columns)}."
        )
    return population


def _starts(population: Population, model: ForwardModel, initial: Any) -> tuple[np.ndarray | None, bool]:
    """Initial populations to predict from, None for the fitted ones, and whether they are the first observations."""
    if initial is None and _same(population, model.population):
        return None, isinstance(model.initial, FirstObserved)
    if initial is None or (isinstance(initial, str) and initial == "observed"):
        if population.times[0] != model.grid.times[0]:
            raise InputError(
                f"scores: the population is first observed at {population.times[0]:g}, the model starts at {model.grid.times[0]:g}; "
                "initial populations are needed."
            )
        return FirstObserved().fixed(population), True
    try:
        starts = np.asarray(initial, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f'scores: initial is {initial!r}; an array of shares or "observed" is needed.') from error
    shape = (population.n_trajectories, population.n_states)
    if starts.shape not in (shape, shape[1:]):
        raise InputError(f"scores: initial has shape {starts.shape}; {shape} or {shape[1:]} is needed.")
    return np.broadcast_to(starts, shape), False


def _same(one: Population, other: Population) -> bool:
    """Whether two populations hold the same observations."""
    return (
        one.trajectories == other.trajectories
        and np.array_equal(one.times, other.times)
        and np.array_equal(one.mask, other.mask)
        and np.array_equal(one.shares, other.shares, equal_nan=True)
    )


@dataclasses.dataclass(frozen=True)
class Compared:
    """Predictions beside what was recorded.

    Attributes
    ----------
    log_score : log of the mean over draws of the likelihood of each observation, of the mask's shape `(R, T)` or `(R, T, k)`.
    replicates : shares `(S, R, T, k)`, at least `REPLICATES`.
    recorded : shares `(R, T, k)`.
    """

    log_score: np.ndarray
    replicates: np.ndarray
    recorded: np.ndarray

    def cells(self, mask: np.ndarray) -> np.ndarray:
        """Cells `(R, T, k)` of the observations that a mask counts."""
        return np.broadcast_to(mask if mask.ndim == 3 else mask[..., None], self.recorded.shape)


def compared(fit: "Fit", ahead: xr.Dataset, record: Record, seed: int, from_start: bool = False) -> Compared:
    """Predictions of `predict`, of the same draws, beside a record of the same trajectories and times, first rows of which may be the start.

    Raises
    ------
    FitError : when no draw has all equilibria.
    """
    assert fit.model is not None
    if not ahead.sizes["draw"]:
        raise FitError("scores: no draw has an equilibrium on every trajectory; there is nothing to score.")
    flat = chosen_draws(fit, None)[ahead["draw"].to_numpy()]
    log_density, replicates = _replicated(fit.model, flat, ahead, record, seed, from_start)
    sizes = np.maximum(np.asarray(record.totals, float), 1.0)[..., None]
    log_score = logsumexp(log_density, axis=0) - np.log(len(flat))
    return Compared(log_score, replicates, np.asarray(record.values, float) / sizes)


def _replicated(
    model: ForwardModel, flat: np.ndarray, ahead: xr.Dataset, record: Record, seed: int, from_start: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Log densities of the record `(n, R, T[, k])` and replicated shares `(S, R, T, k)` of draws, with what `predict` gave of them."""
    mu, times = ahead["mu"].to_numpy(), jnp.asarray(ahead["time"].to_numpy())
    each = -(-REPLICATES // len(flat))
    space = coordinates(model)

    def one(x: Array, mu: Array, keys: Array, record: Record, data: Data, times: Array) -> tuple[Array, Array]:
        own = space.latents(space.constrain(x), data)["own"]
        clock = model.clock(times, from_start)
        likelihood = model.observation.distribution(mu, record.totals, own, model.state_index, clock)
        return likelihood.log_prob(record.values), jax.vmap(likelihood.sample)(keys)

    many = compiled(model, f"scores/{from_start}", lambda: jax.jit(jax.vmap(one, in_axes=(0, 0, 0, None, None, None))))
    keys = jax.random.split(jax.random.key(seed), (len(flat), each))
    densities, replicates = [], []
    for k in range(0, len(flat), CHUNK):
        part = slice(k, k + CHUNK)
        density, drawn = many(jnp.asarray(flat[part]), jnp.asarray(mu[part]), keys[part], record, model.data, times)
        densities.append(np.asarray(density))
        replicates.append(np.asarray(drawn, float).reshape(-1, *drawn.shape[2:]))
    sizes = np.maximum(np.asarray(record.totals, float), 1.0)[..., None]
    return np.concatenate(densities), np.concatenate(replicates) / sizes
