"""Replicates and forecasts from a fit."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array

from bayes_mfg.equilibrium import Code
from bayes_mfg.errors import InputError

from .assemble import CHUNK
from .coordinates import coordinates

if TYPE_CHECKING:
    from .result import Fit


def predict(
    fit: "Fit", times: Any = None, *, initial: Any = None, totals: Any = None, num_draws: int | None = None, seed: int = 0
) -> xr.Dataset:
    """Populations, values and replicated observations under the posterior.

    Parameters
    ----------
    fit : a fit with its model.
    times : `(K,)`, increasing, between the first datum and the model's horizon; by default all grid times. Times after the last datum are
        forecasts; give `Calibration` a `horizon` to make room for them.
    initial : new initial populations `(R, d)` or `(d,)` to start from instead of the fitted ones.
    totals : sizes behind predicted counts, a number or `(R,)`; by default those of the last datum of each trajectory.
    num_draws : posterior draws to use, spread evenly; by default all.
    seed : of the replicates.

    Returns
    -------
    Dataset
        `mu`, `value` (draw, trajectory, time, state), and "counts" or "proportions" with the observed states in dimension `observed_state`. Draws
        whose equilibrium was not found (possible for new initial populations) are left out and counted in `attrs["failed_solves"]`.

    Raises
    ------
    InputError : when the fit has no model, or times, initial or totals do not fit.
    """
    model = fit.model
    if model is None:
        raise InputError("This fit was loaded without its model; use load(path, model=...) to predict.")
    start, end = model.grid.times[0], model.grid.times[-1]
    asked = model.grid.times if times is None else np.atleast_1d(np.asarray(times, dtype=float))
    if asked.ndim != 1 or not np.all(np.isfinite(asked)) or np.any(np.diff(asked) <= 0):
        raise InputError("predict: times must be finite and increasing.")
    if asked[0] < start or asked[-1] > end:
        raise InputError(
            f"predict: times go from {asked[0]:g} to {asked[-1]:g}; the model covers {start:g} to {end:g} (see `horizon` of Calibration)."
        )
    d = model.game.n_states
    fresh = None
    names = list(model.population.trajectories)
    if initial is not None:
        if any(path.needs_observed for path in model.bound.values()):
            raise InputError(
                "predict: a path takes the observed population as input, which a new initial population does not have."
            )
        fresh = np.atleast_2d(np.asarray(initial, dtype=float))
        if fresh.ndim != 2 or fresh.shape[1] != d or np.any(fresh < 0) or np.any(np.abs(fresh.sum(axis=1) - 1) > 1e-6):
            raise InputError(f"predict: initial must hold distributions over {d} states.")
        names = [f"initial {k}" for k in range(len(fresh))]
    count = len(names)
    sizes = _totals(fit, totals, count, len(asked))
    left = np.clip(np.searchsorted(model.grid.times, asked, side="right") - 1, 0, len(model.grid.times) - 2)
    weight = (asked - model.grid.times[left]) / (model.grid.times[left + 1] - model.grid.times[left])

    space = coordinates(model)
    observed = np.zeros((count, *model.data.observed.shape[1:])) if fresh is not None else model.data.observed
    data = model.data._replace(observed=jnp.asarray(observed))

    def between(path: Array) -> Array:
        w = jnp.asarray(weight)[:, None]
        return (1 - w) * path[:, left] + w * path[:, left + 1]

    def one(x: Array, key: Array) -> tuple[Array, Array, Array, Array]:
        latents = space.latents(space.constrain(x), data)
        if fresh is not None:
            latents = {**latents, "mu0": jnp.asarray(fresh)}
        result = model.trajectories(latents, data)
        mu, value = between(result.mu), between(result.value)
        safe = jnp.where(jnp.isnan(mu), 1.0 / d, mu)
        replicate = model.observation.distribution(safe, jnp.asarray(sizes), latents["own"], model.state_index).sample(key)
        return mu, value, replicate, jnp.all(result.code == Code.CONVERGED)

    flat = fit.tree["unconstrained_posterior"].to_dataset()["latent"].to_numpy().reshape(-1, space.size)
    if num_draws is not None:
        if not 1 <= num_draws <= len(flat):
            raise InputError(f"predict: num_draws is {num_draws}; the fit has {len(flat)} draws.")
        flat = flat[np.linspace(0, len(flat) - 1, num_draws).round().astype(int)]
    keys = jax.random.split(jax.random.key(seed), len(flat))
    many = jax.jit(jax.vmap(one))
    parts = [many(jnp.asarray(flat[k : k + CHUNK]), keys[k : k + CHUNK]) for k in range(0, len(flat), CHUNK)]
    mu, value, replicate, good = (np.concatenate([np.asarray(part[k]) for part in parts]) for k in range(4))
    dims = ("draw", "trajectory", "time", "state")
    return xr.Dataset(
        {
            "mu": (dims, mu[good]),
            "value": (dims, value[good]),
            model.observation.variable: (("draw", "trajectory", "time", "observed_state"), replicate[good]),
        },
        coords={
            "draw": np.flatnonzero(good),
            "trajectory": names,
            "time": asked,
            "state": list(model.population.states),
            "observed_state": list(model.columns),
        },
        attrs={"failed_solves": int((~good).sum()), "data_end": float(model.population.times[-1])},
    )


def _totals(fit: "Fit", totals: Any, count: int, times: int) -> np.ndarray:
    recorded = np.asarray(fit.tree["constant_data"]["totals"].values, dtype=float)
    if totals is None:
        # The size that a trajectory was last seen with.
        seen = np.array([row[row > 0][-1] if (row > 0).any() else 1.0 for row in recorded])
        sizes = seen if len(seen) == count else np.full(count, seen[0])
    else:
        sizes = np.asarray(totals, dtype=float)
        if sizes.shape not in ((), (count,)) or np.any(sizes < 0):
            raise InputError(f"predict: totals must be a non-negative number or one for each of {count} trajectories.")
    return np.broadcast_to(np.broadcast_to(sizes, (count,))[:, None], (count, times))
