"""Forecasts of many trajectories, each by itself, from several origins, and the scores of each."""

import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array, lax
from scipy.special import logsumexp

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.models import Data, ForwardModel, Record

from .coordinates import compiled
from .forecast import wis_of_draws
from .learned import LearnedPrior
from .many import BATCH, Many
from .options import whole
from .scores import covered, crps_of_draws

log = logging.getLogger(__name__)

SCORES = ("log_score", "crps", "wis", "coverage50", "coverage90")
"""Columns that compare a forecast with what came."""

BANDS = ("low90", "low50", "median", "high50", "high90")
"""Columns of the forecast itself."""


def forecast_origins(
    model: ForwardModel,
    population: Population,
    prior: LearnedPrior,
    *,
    origins: Sequence[int],
    horizons: Sequence[int] = (1, 2, 3, 4),
    num_draws: int = 400,
    totals: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Forecasts, and their scores, of forecasts of every trajectory by itself, from every origin, under a learned prior.

    At an origin the posterior is of the trajectory's data up to there, by importance draws (`Many.posteriors`), and the forecast that of the same
    model at the times after it. Nothing later enters but the sizes behind the counts that are scored; what was not observed, because it is still to
    come or was not reported, is forecast all the same. A warning names trajectories whose posterior is unreliable or cannot be had.

    Parameters
    ----------
    model : a model of one trajectory, of which the prior was learned.
    population : `R` trajectories with the model's times and states.
    prior : of a trajectory.
    origins : numbers of times, from 0: the last that the forecast sees.
    horizons : steps ahead, from 1.
    num_draws : importance draws of each posterior.
    totals : sizes behind counts that were not observed; by default each trajectory's last one up to the origin.
    seed : of draws and replicates.

    Returns
    -------
    DataFrame
        One row per trajectory, origin and horizon within the population's times, with the columns `trajectory`, `origin`, `horizon`, `state`, the
        scores of `forecast_scores` for that one observation (`log_score`, `crps`, `wis`, `coverage50`, `coverage90`), the forecast's `median` and the
        ends of its central 50 % and 90 % (`low50`, `high50`, `low90`, `high90`), the observed `share`, and `pareto_k` of the posterior.
        Scores and share are NaN where nothing was observed. Where a trajectory has hardly any draws with an equilibrium all is NaN, and the Pareto k
        infinite.

    Raises
    ------
    InputError : when the pieces do not fit together, for origins without data or without anything after them, and for a model of shares of all
        states at once.
    """
    whole_record = Many(model, population, "forecast_origins")
    prior.check(model, "forecast_origins")
    if totals is not None and not (whole(totals) and totals > 0):
        raise InputError(f"forecast_origins: totals is {totals!r}; a positive whole number is needed.")
    if whole_record.data.record.mask.ndim != 4:
        raise InputError("forecast_origins: the observation model is of all states at once; one for single states is needed.")
    starts, ahead = checked(population, origins, horizons)
    tables = []
    for number, origin in enumerate(starts):
        known = until(population, origin)
        many = Many(model, known, "forecast_origins")
        found = many.posteriors(prior.normal, num_draws, seed + 1000 * number)
        flat = found.resampled(seed + 1000 * number)
        record = _sized(whole_record.data.record, origin, totals)
        table = _scored(many, record, flat, origin, ahead, seed + number)
        rows = table["row"].to_numpy()
        table.loc[found.failed[rows], [*SCORES, *BANDS]] = np.nan
        tables.append(table.assign(pareto_k=found.pareto_k[rows]).drop(columns="row"))
        if found.failed.any():
            log.warning("Origin %d: hardly any draws have an equilibrium for %s.", origin, many.named(found.failed))
        doubtful = ~found.reliable & ~found.failed
        if doubtful.any():
            log.warning(
                "Origin %d: of %d posteriors %d have a Pareto k above its limit: %s; their forecasts are rough.",
                origin,
                many.count,
                doubtful.sum(),
                many.named(doubtful),
            )
    return pd.concat(tables, ignore_index=True)


def checked(population: Population, origins: Sequence[int], horizons: Sequence[int]) -> tuple[list[int], list[int]]:
    """Origins and horizons as whole numbers inside the record.

    Raises
    ------
    InputError : for others.
    """
    for name, given in (("origins", origins), ("horizons", horizons)):
        if not isinstance(given, Sequence) or not given or not all(whole(value) for value in given):
            raise InputError(f"forecast: {name} is {given!r}; a list of whole numbers is needed.")
    least, most = min(horizons), population.n_times - 1 - min(horizons)
    if least < 1 or not all(0 <= origin <= most for origin in origins):
        raise InputError(
            f"forecast: origins are {list(origins)} and horizons {list(horizons)}; origins from 0 to {most} and horizons from 1 are needed."
        )
    return sorted(set(origins)), sorted(set(horizons))


def until(population: Population, origin: int) -> Population:
    """The population with everything after a time, given by its number, not observed: shapes stay, and with them what is compiled."""
    mask = population.mask.copy()
    mask[:, origin + 1 :] = False
    if not mask.any(axis=(1, 2)).all():
        name = population.trajectories[int(np.flatnonzero(~mask.any(axis=(1, 2)))[0])]
        raise InputError(f"forecast: trajectory {name!r} has no data up to its time {origin}.")
    return Population(
        population.times,
        proportions=population.proportions,
        counts=population.counts,
        totals=None if population.totals is None else np.where(mask.any(axis=-1), population.totals, 0),
        states=population.states,
        trajectories=population.trajectories,
        mask=mask,
        time_unit=population.time_unit,
    )


def _sized(record: Record, origin: int, totals: int | None) -> Record:
    """The record `(R, 1, T, ..)` with sizes where nothing was observed after the origin: given ones, or the last up to there."""
    sizes, mask = np.array(record.totals), np.asarray(record.mask).any(axis=-1)
    seen = mask[..., : origin + 1]
    place = origin - np.argmax(seen[..., ::-1], axis=-1)
    last = np.take_along_axis(sizes, place[..., None], axis=-1) if totals is None else totals
    later = np.arange(sizes.shape[-1]) > origin
    return record._replace(totals=jnp.asarray(np.where(later & ~mask, last, sizes), record.totals.dtype))


def scores_of_draws(drawn: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Scores, all but the log score, of draws `(n, cells)` of shares against the recorded ones `(cells,)`, with the bands."""
    low90, low50, median, high50, high90 = np.quantile(drawn, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0, method="weibull")
    return {
        "crps": crps_of_draws(drawn, truth),
        "wis": wis_of_draws(drawn, truth),
        "coverage50": covered(drawn, truth, 0.5).astype(float),
        "coverage90": covered(drawn, truth, 0.9).astype(float),
        "low90": low90,
        "low50": low50,
        "median": median,
        "high50": high50,
        "high90": high90,
        "share": truth,
    }


def _scored(many: Many, record: Record, flat: np.ndarray, origin: int, ahead: list[int], seed: int) -> pd.DataFrame:
    """Scores of the forecasts of draws `(R, n, k)` of equal weight."""
    model, population = many.model, many.population
    at = np.array([origin + step for step in ahead if origin + step < population.n_times])
    later = Record(record[0][:, :, at], record.mask[:, :, at], record.totals[:, :, at])
    space = many.space

    def one(x: Array, mu: Array, key: Array, later: Record, data: Data) -> tuple[Array, Array]:
        own = space.latents(space.constrain(x), data)["own"]
        mu = jnp.where(
            jnp.isnan(mu), 1.0 / mu.shape[-1], mu
        )  # of a failed solve, whose weight is nothing; samplers would not end
        likelihood = model.observation.distribution(mu[None], later.totals, own, model.state_index)
        return likelihood.log_prob(later.values)[0], likelihood.sample(key)[0]

    every = compiled(
        model,
        f"origins/{len(at)}",
        lambda: jax.jit(lambda *given: lax.map(lambda each: jax.vmap(one, in_axes=(0, 0, 0, None, None))(*each), given)),
    )
    keys = jax.random.split(jax.random.key(seed), flat.shape[:2])
    counts = model.observation.variable == "counts"
    parts: list[dict[str, Any]] = []
    for rows, data in many._batches(np.arange(many.count)):
        filled = np.concatenate([rows, np.repeat(rows[-1:], BATCH - len(rows))])
        _, mu = many.implied(flat[filled], filled)
        some = jax.tree.map(lambda x, filled=filled: x[filled], later)
        density, replicate = every(jnp.asarray(flat[filled]), jnp.asarray(mu[:, :, at]), keys[filled], some, data)
        density, replicate = np.asarray(density)[: len(rows)], np.asarray(replicate, float)[: len(rows)]
        sizes = np.maximum(np.asarray(some.totals, float), 1.0)[: len(rows), 0, :, None] if counts else 1.0
        observed = np.asarray(some.mask)[: len(rows), 0]
        truth = np.asarray(some.values, float)[: len(rows), 0] / sizes
        drawn = np.moveaxis(replicate, 1, 0) / sizes
        r, h, x = (place.ravel() for place in np.indices(observed.shape))
        scored = {
            "log_score": (logsumexp(density, axis=1) - np.log(flat.shape[1])).ravel(),
            **scores_of_draws(drawn.reshape(len(drawn), -1), truth.ravel()),
        }
        for name in (*SCORES, "share"):
            scored[name] = np.where(observed.ravel(), scored[name], np.nan)
        parts.append({"row": rows[r], "horizon": at[h] - origin, "state": np.array(model.columns, object)[x], **scored})
    table = pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    names = np.array(population.trajectories, object)[table["row"].to_numpy()]
    return table.assign(trajectory=names, origin=origin)
