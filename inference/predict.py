"""Replicates and forecasts from a fit."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array

from bayes_mfg.equilibrium import Code
from bayes_mfg.errors import InputError
from bayes_mfg.models import Data, ForwardModel
from bayes_mfg.paths import PooledPath

from .assemble import CHUNK, mended
from .coordinates import compiled, coordinates
from .options import whole

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
    initial : new initial populations `(R, d)` or `(d,)` to start from instead of the fitted ones. Where paths are pooled these are new trajectories:
        in every draw, their deviations from the typical one are drawn anew with the draw's pooling scale, and separate paths from their prior.
        Errors that persist (`SimplexGaussian`) grow from zero there; those in forecasts of the fitted trajectories do not know of the last ones seen.
    totals : sizes behind predicted counts, a number or `(R,)`; by default those of the last datum of each trajectory, and for new initial populations
        the one that all trajectories have in common: where they have none it is needed. Shares have no sizes.
    num_draws : posterior draws to use, spread evenly; by default all. They keep their numbers among all draws, chain after chain.
    seed : of the replicates, and of new trajectories' deviations.

    Returns
    -------
    Dataset
        `mu`, `value` (draw, trajectory, time, state), and "counts" or "proportions" with the observed states in dimension `observed_state`. Draws
        whose equilibrium was not found (possible for new initial populations) are left out and counted in `attrs["failed_solves"]`.

    Raises
    ------
    InputError : when the fit has no model, times, initial or totals do not fit, or the sizes of new trajectories are not known.
    """
    model = fit.model
    if model is None:
        raise InputError("This fit was loaded without its model; use load(path, model=...) to predict.")
    asked = _times(times, model.grid.times)
    fresh, names = None, list(model.population.trajectories)
    if initial is not None:
        if getattr(model, "branches", None) is not None:
            raise InputError("predict: which of several equilibria is played from a new initial population is not known.")
        if any(path.needs_observed for path in model.bound.values()):
            raise InputError(
                "predict: a path takes the observed population as input, which a new initial population does not have."
            )
        fresh = distributions(initial, model.population.n_states)
        names = [f"initial {k}" for k in range(len(fresh))]
    sizes = _totals(fit, totals, len(names), len(asked), fresh is not None and model.observation.variable == "counts")
    left = np.clip(np.searchsorted(model.grid.times, asked, side="right") - 1, 0, len(model.grid.times) - 2)
    weight = (asked - model.grid.times[left]) / (model.grid.times[left + 1] - model.grid.times[left])
    flat, numbers = chosen_draws(fit, num_draws), chosen_numbers(fit, num_draws)

    data = model.data
    if fresh is not None:
        data = data._replace(observed=jnp.zeros((len(fresh), *data.observed.shape[1:])))
    many = compiled(model, "predict", lambda: jax.jit(jax.vmap(_one(model), in_axes=(0, 0, 0, None, None, None, None, None))))
    keys = jax.random.split(jax.random.key(seed), len(flat))
    # A draw's population is that of its own branch.
    own = keys if getattr(model, "branches", None) is None else branch_keys(fit)[numbers]
    where = (jnp.asarray(left), jnp.asarray(weight))
    start = None if fresh is None else jnp.asarray(fresh)
    parts = [
        many(
            jnp.asarray(flat[k : k + CHUNK]),
            keys[k : k + CHUNK],
            own[k : k + CHUNK],
            data,
            start,
            where,
            jnp.asarray(sizes),
            jnp.asarray(asked),
        )
        for k in range(0, len(flat), CHUNK)
    ]
    mu, value, replicate, good = (np.concatenate([np.asarray(part[k]) for part in parts]) for k in range(4))
    dims = ("draw", "trajectory", "time", "state")
    return xr.Dataset(
        {
            "mu": (dims, mu[good]),
            "value": (dims, value[good]),
            model.observation.variable: (("draw", "trajectory", "time", "observed_state"), replicate[good]),
        },
        coords={
            "draw": numbers[good],
            "trajectory": names,
            "time": asked,
            "state": list(model.population.states),
            "observed_state": list(model.columns),
        },
        attrs={"failed_solves": int((~good).sum()), "data_end": float(model.population.times[-1])},
    )


def chosen_draws(fit: "Fit", num_draws: int | None, where: str = "predict") -> np.ndarray:
    """Posterior draws `(n, size)` in unconstrained coordinates, chain after chain; all, or some spread evenly.

    Raises
    ------
    InputError : when there are not as many.
    """
    flat = fit.tree["unconstrained_posterior"].to_dataset()["latent"].to_numpy()
    return flat.reshape(flat.shape[0] * flat.shape[1], flat.shape[2])[chosen_numbers(fit, num_draws, where)]


def chosen_numbers(fit: "Fit", num_draws: int | None, where: str = "predict") -> np.ndarray:
    """Numbers of the draws that `chosen_draws` takes, among all of the posterior: those of a chain follow those of the chain before.

    Raises
    ------
    InputError : when there are not as many.
    """
    sizes = fit.tree["unconstrained_posterior"]["latent"].sizes
    count = sizes["chain"] * sizes["draw"]
    if num_draws is None:
        return np.arange(count)
    if not whole(num_draws) or not 1 <= num_draws <= count:
        raise InputError(
            f"{where}: num_draws is {num_draws!r}; a whole number from 1 to {count}, the draws of the fit, is needed."
        )
    return np.linspace(0, count - 1, num_draws).round().astype(int)


def branch_keys(fit: "Fit") -> Array:
    """Keys by which the fit drew the branch of every draw, of several equilibria: folded in as `derived` does they give the same branch again.

    A draw that another one stands in for (see `mended`) has that one's.
    """
    sizes = fit.tree["unconstrained_posterior"]["latent"].sizes
    keys = jax.random.split(jax.random.key(int(fit.tree.attrs["seed"])), sizes["chain"] * sizes["draw"])
    if "sample_stats" not in fit.tree.children or "replaced" not in fit.tree["sample_stats"]:
        return keys
    return keys[mended(fit.tree["sample_stats"]["replaced"].to_numpy()).reshape(-1)]


def _one(model: ForwardModel) -> Any:
    """Function from one draw to populations, values and a replicate at the times asked for, and whether all equilibria were found."""
    space = coordinates(model)

    def one(
        x: Array, key: Array, own: Array, data: Data, start: Array | None, where: tuple[Array, Array], sizes: Array, asked: Array
    ) -> tuple:
        latents = space.latents(space.constrain(x), data)
        if start is not None:
            latents = {**latents, "mu0": start, "raw": renewed(model, latents["raw"], jax.random.fold_in(key, 2), len(start))}
        result = model.trajectories(latents, data, jax.random.fold_in(own, 1))
        left, weight = where

        def between(path: Array) -> Array:
            w = weight[:, None]
            return (1 - w) * path[:, left] + w * path[:, left + 1]

        mu, value = between(result.mu), between(result.value)
        safe = jnp.where(jnp.isnan(mu), 1.0 / model.population.n_states, mu)
        clock = model.clock(asked, None if start is None else True)
        replicate = model.observation.distribution(safe, sizes, latents["own"], model.state_index, clock).sample(key)
        return mu, value, replicate, jnp.all(result.code == Code.CONVERGED)

    return one


def renewed(model: ForwardModel, raw: dict[str, Any], key: Array, count: int) -> dict[str, Any]:
    """Raw parameters with those of pooled paths' trajectories drawn anew, for `count` of them."""
    keys = dict(zip(raw, jax.random.split(key, max(len(raw), 1)), strict=False))
    pooled = {name: path for name, path in model.bound.items() if isinstance(path, PooledPath)}
    return {**raw, **{name: path.renewed(raw[name], keys[name], count) for name, path in pooled.items()}}


def _numbers(value: Any, name: str, where: str = "predict") -> np.ndarray:
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {name} is {value!r}; numbers are needed.") from error


def _times(times: Any, grid: np.ndarray) -> np.ndarray:
    if times is None:
        return grid
    asked = np.atleast_1d(_numbers(times, "times"))
    if asked.ndim != 1 or not asked.size or not np.all(np.isfinite(asked)) or np.any(np.diff(asked) <= 0):
        raise InputError("predict: times must be finite and increasing, at least one.")
    start, end = grid[0], grid[-1]
    slack = 1e-9 * (end - start)  # a time computed as a product may miss the end by its last digit
    if asked[0] < start - slack or asked[-1] > end + slack:
        raise InputError(
            f"predict: times go from {asked[0]:g} to {asked[-1]:g}; the model covers {start:g} to {end:g} (see `horizon` of Calibration)."
        )
    return np.clip(asked, start, end)


def distributions(initial: Any, d: int, where: str = "predict") -> np.ndarray:
    """New initial populations `(R, d)` from what a user passed.

    Raises
    ------
    InputError : when they are no distributions over `d` states.
    """
    fresh = np.atleast_2d(_numbers(initial, "initial", where))
    if fresh.ndim != 2 or fresh.shape[1] != d or not np.all(fresh >= 0) or np.any(np.abs(fresh.sum(axis=1) - 1) > 1e-6):
        raise InputError(f"{where}: initial must hold distributions over {d} states.")
    return fresh


def _totals(fit: "Fit", totals: Any, count: int, times: int, new: bool) -> np.ndarray:
    """Sizes `(count, times)`, with `new` of counts of trajectories that are none of the fit's."""
    recorded = np.asarray(fit.tree["constant_data"]["totals"].values, dtype=float)
    if totals is None:
        # The size that a trajectory was last seen with.
        seen = np.array([row[row > 0][-1] if (row > 0).any() else np.nan for row in recorded])
        known = np.unique(seen[np.isfinite(seen)])
        if new and len(known) > 1:
            raise InputError(
                f"predict: totals is not given, and the fitted trajectories have {len(known)} sizes, from {known[0]:g} to {known[-1]:g}; with"
                " initial, a number or one for each new trajectory is needed."
            )
        unseen = known[0] if new and len(known) else 1.0
        sizes = np.where(np.isfinite(seen), seen, unseen) if len(seen) == count else np.full(count, unseen)
    else:
        sizes = _numbers(totals, "totals")
        if sizes.shape not in ((), (count,)) or not np.all((sizes >= 0) & np.isfinite(sizes)):
            raise InputError(f"predict: totals must be a non-negative number or one for each of {count} trajectories.")
    return np.broadcast_to(np.broadcast_to(sizes, (count,))[:, None], (count, times))
