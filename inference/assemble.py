"""From draws in unconstrained coordinates to the DataTree of a fit."""

import datetime
import importlib.metadata
import json
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array

from bayes_mfg.equilibrium import Code
from bayes_mfg.models import Data, ForwardModel, describe
from bayes_mfg.paths.pooled import SUFFIX

from .coordinates import compiled, coordinates, prior_points
from .errors import FitError
from .report_stats import E_BFMI, ESS, R_HAT, bfmi, convergence, lost_to_solves

CHUNK = 100
"""Draws whose trajectories are computed at once. Beside these many solves, memory holds what a fit keeps of every draw: paths, and with `keep="all"`
populations, values, replicates and log likelihoods, about `4 R T d` numbers each."""

KEEP = ("all", "parameters")
"""What a fit keeps of every draw."""

LARGE = ("mu", "value", "replicate", "log_likelihood")
"""What is left out where parameters alone are kept; all of it can be had from the draws again."""

MOST_LOST = 0.01
"""Share of a chain's draws that may fail when they are solved again; more say that something is wrong."""

_START = {"description": "initial share of the population"}

_GROUP = {"description": "path of the typical trajectory, from which the others deviate"}

_BRANCH = {"description": "probability of each equilibrium given the draw; mu and value are those of one of them, drawn by it"}

PACKAGES = ("bayes-mfg", "jax", "numpyro", "arviz", "numpy", "xarray")


def derived(
    model: ForwardModel, flat: np.ndarray, seed: int, given_data: bool = True, without: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Parameters, populations, replicates and log likelihood of draws `(n, size)`, each with the leading axis `n`.

    Where there are several equilibria one is drawn: by its probability given the data, or without these each as likely as the others. Draws whose
    equilibria are not all found have NaN populations and a non-zero `solver/code`. What is named in `without` is left out.
    """
    space = coordinates(model)
    index = np.array([model.population.states.index(s) for s in model.initial.unknown_states(model.population)], int)

    def one(x: Array, key: Array, data: Data) -> dict[str, Array]:
        latents = space.latents(space.constrain(x), data)
        result = model.trajectories(latents, data, jax.random.fold_in(key, 1))
        likelihood = model.likelihood(latents, result.mu, data)
        return {
            **{f"parameter/{name}": path for name, path in result.parameters.items()},
            **{f"group/{name}": path for name, path in (result.groups or {}).items()},
            **{f"own/{name}": value for name, value in latents["own"].items()},
            **{f"hyper/{name}": value for name, value in hyperparameters(model, latents["raw"]).items()},
            **({"mu0": latents["mu0"][:, index]} if len(index) else {}),
            **({} if result.branch is None else {"branch": result.branch}),
            "mu": result.mu,
            "value": result.value,
            **({} if result.correction is None else {"correction": result.correction}),
            "replicate": likelihood.sample(key),
            "log_likelihood": likelihood.mask(data.record.mask).log_prob(data.record.values),
            "solver/code": result.code,
            "solver/residual": result.residual,
            "solver/iterations": result.iterations,
        }

    many = compiled(model, "derived", lambda: jax.jit(jax.vmap(one, in_axes=(0, 0, None))))
    keys = jax.random.split(jax.random.key(seed), len(flat))
    data = model.data
    if not given_data:
        data = data._replace(record=data.record._replace(mask=jnp.zeros_like(data.record.mask)))
    filled: dict[str, np.ndarray] = {}
    for first in range(0, len(flat), CHUNK):
        chunk = slice(first, first + CHUNK)
        x, k = jnp.asarray(flat[chunk]), keys[chunk]
        short = CHUNK - len(x) if len(flat) > CHUNK else 0
        if short:
            # The last chunk is filled up, so that one compiled function serves all.
            x, k = jnp.concatenate([x, jnp.repeat(x[-1:], short, 0)]), jnp.concatenate([k, jnp.repeat(k[-1:], short)])
        for name, value in many(x, k, data).items():
            if name in without:
                continue
            values = np.asarray(value)[: len(flat[chunk])]
            if name not in filled:
                filled[name] = np.empty((len(flat), *values.shape[1:]), values.dtype)
            filled[name][chunk] = values
    return filled


def hyperparameters(model: ForwardModel, raw: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Uncertain scales, length scales and pooling scales of the paths, named `<parameter>_<name>`."""
    return {
        f"{name}_{inner.removesuffix(SUFFIX)}": value
        for name, own in raw.items()
        for inner, value in own.items()
        if inner in model.bound[name].hyperparameters
    }


def prior_draws(model: ForwardModel, count: int, seed: int, without: Collection[str] = ()) -> tuple[dict[str, np.ndarray], int]:
    """What `count` prior draws imply, and how many were left out because an equilibrium was not found."""
    flat = prior_points(model, jax.random.split(jax.random.key(seed), count))
    result = derived(model, flat, seed, given_data=False, without=without)
    good = (result["solver/code"] == Code.CONVERGED).all(axis=-1)
    if not good.any():
        raise FitError("No prior draw has an equilibrium that the solver finds; the priors are too wide or too far off.")
    return {name: value[good] for name, value in result.items()}, int((~good).sum())


def assemble(
    model: ForwardModel,
    flat: np.ndarray,
    *,
    method: str,
    seed: int,
    wall_time: float,
    settings: Mapping[str, Any],
    stats: Mapping[str, np.ndarray] | None = None,
    warnings: list[str] | None = None,
    elbo: np.ndarray | None = None,
    prior_samples: int = 500,
    title: str = "",
    config: str = "",
    keep: str = "all",
) -> xr.DataTree:
    """The DataTree of a fit from draws `(chain, draw, size)`, with the ELBO `(update,)` of the variational updates that were not skipped.

    With `keep="parameters"` it has no populations, values, replicates and log likelihoods.

    Raises
    ------
    FitError : when more than `MOST_LOST` of the draws have no equilibrium; those of fewer are replaced, see `mended`.
    """
    chains, draws, size = flat.shape
    without = LARGE if keep == "parameters" else ()
    posterior = derived(model, flat.reshape(chains * draws, size), seed, without=without)
    told = list(warnings or [])
    lost = (posterior["solver/code"] != Code.CONVERGED).any(axis=-1).reshape(chains, draws)
    if lost.any():
        source = mended(lost)
        posterior = {name: value[source.reshape(-1)] for name, value in posterior.items()}
        flat = flat.reshape(chains * draws, size)[source]
        # What happened on the way to a lost draw stays told; only its density belongs to the draw.
        stats = dict(stats or {})
        if "lp" in stats:
            stats["lp"] = np.asarray(stats["lp"]).reshape(-1)[source]
        stats["replaced"] = lost
        told.append(
            f"{int(lost.sum())} of {lost.size} posterior draws had no equilibrium when they were solved again; a neighbour stands in for each."
        )
    try:
        prior, lost = prior_draws(model, prior_samples, seed + 1, without) if prior_samples else ({}, 0)
    except FitError as error:
        prior, lost = {}, 0
        told.append(f"The fit has no prior beside it. {error}")
    if lost:
        told.append(
            f"{lost} of {prior_samples} prior draws have no equilibrium that the solver finds; the prior's bands leave them out."
        )
    population = model.population
    shape = (chains, draws)
    groups: dict[str, xr.Dataset] = {
        "posterior": _dataset(model, posterior, shape),
        "solver": _solver(model, posterior, shape),
        "unconstrained_posterior": xr.Dataset(
            {"latent": (("chain", "draw", "coordinate"), flat)},
            coords={"chain": np.arange(chains), "draw": np.arange(draws), "coordinate": coordinates(model).names},
        ),
        "observed_data": observed(model),
        "constant_data": _constant(model),
    }
    if keep == "all":
        groups["posterior_predictive"] = _replicates(model, posterior["replicate"], shape)
        groups["log_likelihood"] = _log_likelihood(model, posterior["log_likelihood"], shape)
    else:
        # One draw's population and value stay, so that a model can be told from another when the fit is loaded.
        some = derived(model, flat.reshape(chains * draws, size)[:CHUNK], seed, without=LARGE[2:])
        dims = ("trajectory", "time", "state")
        groups["first_draw"] = xr.Dataset({name: (dims, some[name][0]) for name in LARGE[:2] if name == "mu" or model.has_value})
    if stats:
        groups["sample_stats"] = xr.Dataset(
            {name: (("chain", "draw"), value) for name, value in stats.items()},
            coords={"chain": np.arange(chains), "draw": np.arange(draws)},
        )
    if elbo is not None:
        made = np.flatnonzero(np.isfinite(elbo))  # a skipped update has none
        groups["elbo"] = xr.Dataset({"elbo": ("update", elbo[made])}, coords={"update": 1 + made})
    if prior:
        one = (1, len(prior["solver/code"]))
        groups["prior"] = _dataset(model, prior, one)
        if keep == "all":
            groups["prior_predictive"] = _replicates(model, prior["replicate"], one)
    tree = xr.DataTree.from_dict(groups)
    words = describe(model)
    tree.attrs = {
        "title": title
        or f"{words['game']['name']} {words['game'].get('kind', 'game')} fitted to {_named(population.trajectories)}",
        "method": method,
        "seed": seed,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "wall_time_seconds": wall_time,
        "bayes_mfg_version": importlib.metadata.version("bayes-mfg"),
        "versions": json.dumps({name: importlib.metadata.version(name) for name in PACKAGES}),
        "game": json.dumps(finite(words["game"])),
        "paths": json.dumps(words["paths"]),
        "observation": words["observation"],
        "initial": words["initial"],
        **({"prior": words["prior"]} if "prior" in words else {}),
        "config": config,
        "data": json.dumps(
            {
                "n_trajectories": population.n_trajectories,
                "n_times": population.n_times,
                "n_states": population.n_states,
                "time_unit": population.time_unit,
                "provenance": population.provenance,
            }
        ),
        "inference": json.dumps(dict(settings)),
        "warnings": json.dumps(told),
    }
    return tree


def mended(lost: np.ndarray) -> np.ndarray:
    """For every draw `(chain, draw)` the number of the one that is kept: its own, or for a lost one that of a neighbour in its chain.

    The neighbour is the last good draw before, or the first one where none is before.
    The solver works to the last digits, and what just converged while sampling may just not do so in another batch.

    Raises
    ------
    FitError : when more than `MOST_LOST` of the draws of a chain are lost, and more than one.
    """
    worst = lost.sum(axis=1).max()
    if lost.all(axis=1).any() or worst > max(1, MOST_LOST * lost.shape[1]):
        raise FitError(
            f"{int(lost.sum())} of {lost.size} posterior draws have no equilibrium that the solver finds; the result would hold numbers that "
            "mean nothing."
        )
    draws = np.arange(lost.shape[1])
    before = np.maximum.accumulate(np.where(lost, -1, draws), axis=1)
    kept = np.where(before < 0, np.argmin(lost, axis=1)[:, None], before)  # at the beginning of a chain the first good one
    return kept + lost.shape[1] * np.arange(lost.shape[0])[:, None]


def _named(trajectories: tuple[str, ...]) -> str:
    return ", ".join(trajectories) if len(trajectories) <= 3 else f"{len(trajectories)} trajectories"


def finite(value: Any) -> Any:
    """JSON has no infinities: they become None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _dataset(model: ForwardModel, result: Mapping[str, np.ndarray], shape: tuple[int, int]) -> xr.Dataset:
    population = model.population
    variables: dict[str, Any] = {}
    for name, value in result.items():
        kind, _, bare = name.partition("/")
        if kind in ("parameter", "group"):
            several = model.varies_by_trajectory(bare) if kind == "parameter" else model.group_varies(bare)
            dims = ["trajectory", "time"] if several else ["time"]
            extra = [f"{bare}_dim_{k}" for k in range(value.ndim - 1 - len(dims))]
            attrs: dict[str, Any] = {"constant": int(model.bound[bare].is_constant), "unit": model.bound[bare].parameter.unit}
            attrs |= {} if kind == "parameter" else {"group_of": bare, **_GROUP}
            called = bare if kind == "parameter" else f"{bare}_group"
            variables[called] = (["chain", "draw", *dims, *extra], value.reshape(*shape, *value.shape[1:]), attrs)
        elif kind in ("own", "hyper"):
            # Separate paths have a scale for every trajectory, an observation model may have one for every state.
            axis = "state" if kind == "own" else "trajectory"
            variables[bare] = (["chain", "draw", axis][: value.ndim + 1], value.reshape(*shape, *value.shape[1:]))
        elif kind == "mu0":
            variables[kind] = (["chain", "draw", "trajectory", "initial_state"], value.reshape(*shape, *value.shape[1:]), _START)
        elif kind == "branch":
            variables[kind] = (["chain", "draw", "trajectory", "equilibrium"], value.reshape(*shape, *value.shape[1:]), _BRANCH)
        elif kind == "mu" or (kind == "value" and model.has_value):
            variables[kind] = (["chain", "draw", "trajectory", "time", "state"], value.reshape(*shape, *value.shape[1:]))
    coords = {
        "chain": np.arange(shape[0]),
        "draw": np.arange(shape[1]),
        "trajectory": list(population.trajectories),
        "time": model.grid.times,
        "state": list(population.states),
    }
    coords |= {f"{name}_dim_0": list(labels) for name, labels in model.labels.items()}
    if "mu0" in variables:
        coords["initial_state"] = list(model.initial.unknown_states(population))
    return xr.Dataset(variables, coords=coords)


def _record_coords(model: ForwardModel) -> dict[str, Any]:
    population = model.population
    return {"trajectory": list(population.trajectories), "time": population.times, "state": list(model.columns)}


def _replicates(model: ForwardModel, replicate: np.ndarray, shape: tuple[int, int]) -> xr.Dataset:
    dims = ["chain", "draw", "trajectory", "time", "state"]
    coords = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1]), **_record_coords(model)}
    return xr.Dataset({model.observation.variable: (dims, replicate.reshape(*shape, *replicate.shape[1:]))}, coords=coords)


def _log_likelihood(model: ForwardModel, values: np.ndarray, shape: tuple[int, int]) -> xr.Dataset:
    """Pointwise log densities `(chain, draw, observation)`, as importance sampling takes them.

    What was not observed is no observation; what has the same density in every draw (a known start with known noise) says nothing about the
    unknowns and cannot be reweighted: its sum is kept as the attribute `constant`.
    """
    every = pointwise(model, values, shape)
    keep = varying(every.to_numpy().reshape(len(values), -1))
    if not keep.any():
        keep[:] = True
    kept = every.isel(observation=keep).assign_attrs(constant=float(every.to_numpy()[0, 0, ~keep].sum()))
    return kept.to_dataset()


def pointwise(model: ForwardModel, values: np.ndarray, shape: tuple[int, int]) -> xr.DataArray:
    """Log densities `(chain, draw, observation)` of everything that was observed, from those of the record `(n, R, T[, k])`."""
    mask = np.asarray(model.data.record.mask)
    coords: dict[str, Any] = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    for (name, labels), at in zip(_record_coords(model).items(), np.argwhere(mask).T, strict=False):
        coords[name] = ("observation", np.asarray(labels)[at])
    seen = values.reshape(*shape, *mask.shape)[:, :, mask]
    return xr.DataArray(seen, coords=coords, dims=("chain", "draw", "observation"), name=model.observation.variable)


def varying(values: np.ndarray) -> np.ndarray:
    """Which columns of `(n, k)` differ between draws by more than rounding; all where there is one draw."""
    if len(values) == 1:
        return np.ones(values.shape[1], bool)
    return np.asarray(np.ptp(values, axis=0) > 1e-12 * np.maximum(1.0, np.abs(values).max(axis=0)))


def observed(model: ForwardModel) -> xr.Dataset:
    """What was observed, NaN where nothing was."""
    record = model.observation.record(model.population)
    mask = np.asarray(record.mask)
    mask = mask if mask.ndim == 3 else mask[..., None]
    values = np.where(mask, np.asarray(record.values, dtype=float), np.nan)
    return xr.Dataset({model.observation.variable: (["trajectory", "time", "state"], values)}, coords=_record_coords(model))


def _constant(model: ForwardModel) -> xr.Dataset:
    coords = {name: value for name, value in _record_coords(model).items() if name != "state"}
    return xr.Dataset({"totals": (["trajectory", "time"], np.asarray(model.data.record.totals))}, coords=coords)


def _solver(model: ForwardModel, result: Mapping[str, np.ndarray], shape: tuple[int, int]) -> xr.Dataset:
    dims = ["chain", "draw", "trajectory"]
    iterations = result["solver/iterations"].sum(axis=-1)
    variables = {
        "status": (dims, result["solver/code"].reshape(*shape, -1)),
        "residual": (dims, result["solver/residual"].reshape(*shape, -1)),
        "iterations": (dims, iterations.reshape(*shape, -1)),
    }
    coords = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1]), "trajectory": list(model.population.trajectories)}
    return xr.Dataset(variables, coords=coords, attrs=model.solver)


def convergence_warnings(tree: xr.DataTree, max_tree_depth: int = 10) -> list[str]:
    """Sentences on what a reader must know before believing the draws of NUTS."""
    told = []
    judged = [row for row in convergence(tree["posterior"].to_dataset()) if row.checked]
    worst = max(judged, key=lambda row: np.nan_to_num(row.r_hat, nan=np.inf), default=None)
    least = min(judged, key=lambda row: np.nan_to_num(min(row.ess_bulk, row.ess_tail), nan=0.0), default=None)
    # Comparisons are written so that a figure that is not a number warns, too.
    if worst is not None and not worst.r_hat <= R_HAT:
        told.append(f"The chains disagree: the largest R-hat is {worst.r_hat:.3f} ({worst.name}); at most {R_HAT} is wanted.")
    if least is not None and not min(least.ess_bulk, least.ess_tail) >= ESS:
        size = min(least.ess_bulk, least.ess_tail)
        told.append(f"The smallest effective sample size is {size:.0f} ({least.name}); at least {ESS:.0f} is wanted.")
    stats = tree["sample_stats"].to_dataset()
    count = stats["diverging"].size
    diverging = int(stats["diverging"].sum())
    if diverging:
        told.append(f"{diverging} of {count} transitions diverged.")
    if stats["failed_solve"].any():
        told.append(f"{lost_to_solves(tree)}; these proposals were rejected.")
    deep = int((stats["tree_depth"] >= max_tree_depth).sum())
    if deep:
        told.append(
            f"{deep} of {count} transitions reached the largest tree depth of {max_tree_depth} and were cut off there: draws may be more alike than "
            "they need be."
        )
    energies = [bfmi(np.asarray(chain, float)) for chain in stats["energy"].transpose("chain", "draw").values]
    if not (least_energy := float(np.min(energies))) >= E_BFMI:  # NaN, too
        told.append(f"E-BFMI is {least_energy:.2f} in the worst chain; below {E_BFMI} the sampler explores energies badly.")
    return told
