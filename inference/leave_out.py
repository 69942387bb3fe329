"""Leaving data out: importance sampling (PSIS-LOO) by observation, trajectory or block of times, and exact refits where it fails."""

import inspect
import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

import arviz as az
import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from arviz_stats.utils import ELPDDataLFO, ELPDDataLOO
from scipy.special import logsumexp

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel
from bayes_mfg.paths.pooled import SUFFIX

from . import nuts, svi
from .assemble import MOST_LOST, mended, varying
from .errors import FitError
from .fit import fit as refit_model
from .local import Local
from .options import whole
from .pointwise import evaluated, independent_in_time, log_likelihood, needed

if TYPE_CHECKING:
    from .result import Fit

log = logging.getLogger(__name__)

UNITS = ("observation", "trajectory", "time")

NAMED = 5
"""Units that a warning names; where there are more, it counts the rest."""

EVEN = 1.0
"""Range of log densities over all draws, in nats, within which no draw counts much more than another: a Pareto fit to such a tail is a fit to next to
nothing, and was seen to give shapes of 4; the shape is then recorded as minus infinity."""

FEWEST = svi.FEWEST
"""Draws without which nothing is said of importance ratios."""

KEPT = (set(inspect.signature(nuts.sample).parameters) | set(inspect.signature(svi.approximate).parameters)) - {
    "model",
    "mode",
    "seed",
    "progress",
    "checkpoint",
}
"""Options of a fit that its refits take over."""


def loo(
    fit: "Fit", by: str = "observation", *, blocks: int = 5, refit: bool = False, seed: int = 0, **options: Any
) -> ELPDDataLOO:
    """Expected log predictive density of data left out, by Pareto-smoothed importance sampling (PSIS-LOO).

    What is left out at a time is a unit: an observation, a whole trajectory, or all trajectories within a block of times. The log density of a unit
    is the joint one of its observations given a draw, their sum. Observations whose density is the same in every draw (a known start with known
    noise) are no part of any unit, as in `fit.tree["log_likelihood"]`.

    **Trajectories.** A trajectory's own unknowns - an unknown initial population, its own part of a pooled or separate path - are determined by its
    own data alone, and draws of them tell nothing about a trajectory left out. They are integrated out: with `z` these unknowns, `theta` the
    others, and any density `q(z | theta)`,

        1 / p(y_r | others) = E[q(z | theta) / (p(y_r | theta, z) p(z | theta))]   over posterior draws,

    so that `log p(y_r | theta, z) + log p(z) - log q(z | theta)` takes the place of the log likelihood. `q` is the normal regression of `z` on
    `theta` in the unconstrained coordinates, fitted to the other half of the draws: near the posterior of `z`, the ratio is all but free of `z`.
    Several `branches` are summed out of a trajectory's density, too; for other units their probabilities have seen what is left out, a warning says
    so, and refits are refused.

    **Blocks of times.** What is left out is predicted from what came before *and after* it: this asks how well a model interpolates, not how well it
    forecasts, and neighbouring times make it easy; `leave_future_out` forecasts. A path that takes the observed population as input still sees it.

    Where the Pareto k of a unit is above `good_k`, leaving it out changes the posterior too much for its draws to be reweighted, and its estimate is
    too high as a rule. A warning names these units; with `refit=True` the model is fitted again without each of them. Where all draws give a
    trajectory or block nearly the same density, its k is minus infinity.

    Parameters
    ----------
    fit : a fit with more than one draw; with its model where trajectories with unknowns of their own or branches are left out, and for refits.
    by : "observation", "trajectory" or "time".
    blocks : blocks of about equally many observed times, for `by="time"`.
    refit : fit again, exactly, without each unit whose Pareto k is too large. Its k then is that of the average over the refit's draws of the density
        of what was left out.
    seed : of the refits.
    **options : of the refits, as for `fit`; by default those of this fit.

    Returns
    -------
    arviz_stats.utils.ELPDDataLOO
        With `elpd_i` and `pareto_k` by unit, named along the dimension "observation", "trajectory" or "block" (a block has the coordinates `start`
        and `stop`, its first and last observed time). `az.compare` takes it. `elpd_i.attrs["warnings"]` holds the sentences that were logged,
        `elpd_i.attrs["refitted"]` the units that were. The standard error treats units as independent.

    Raises
    ------
    InputError : for a point estimate or an ensemble, an unknown unit, fewer than two units, options of refits without `refit=True`, or a fit without
        the model that is needed.

    References
    ----------
    Vehtari, Gelman and Gabry, Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC, Statistics and Computing 27 (2017).
    The identity: Gelfand and Dey, Bayesian model choice: asymptotics and exact calculations, JRSS B 56 (1994), for the unknowns of one trajectory.
    """
    return leave_out(fit, by, blocks, refit=refit, seed=seed, **options)


def leave_out(
    fit: "Fit", by: str, blocks: int = 5, *, refit: bool = False, seed: int = 0, constants: bool = False, **options: Any
) -> ELPDDataLOO:
    """`loo`, which with `constants` counts observations whose density is the same in every draw, too."""
    checked(fit, by, blocks)
    if by != "trajectory" and fit.model is not None:
        independent_in_time(
            fit.model, f"loo by {by}", 'leave out whole trajectories (by="trajectory"), or the future (leave_future_out)'
        )
    if options and not refit:
        raise InputError(f"loo: {next(iter(options))} is an option of refits, and refit is false.")
    if not (whole(seed) and seed >= 0):
        raise InputError(f"loo: seed is {seed!r}; a whole number of at least 0 is needed.")
    branches = "branch" in fit.tree["posterior"] and by != "trajectory"
    if refit and branches:
        raise InputError(f"loo: with several equilibria refits are for trajectories, not for by={by!r}.")
    units, members = in_units(fit, by, blocks, constants=constants)
    moving = varying(units.to_numpy().reshape(-1, units.shape[-1]))
    values, k = units.to_numpy()[0, 0].copy(), np.full(len(moving), -np.inf)  # no weights are needed where all draws agree
    even = np.ptp(units.to_numpy().reshape(-1, units.shape[-1]), axis=0) < EVEN
    if moving.any():
        result = _psis(fit, units.isel({units.dims[-1]: moving}))
        values[moving], k[moving] = result.elpd_i.to_numpy(), result.pareto_k.to_numpy()
        k[even & (by != "observation")] = -np.inf  # by observation all is ArviZ's
    good_k = _good(units.shape[0] * units.shape[1])
    told, refitted = [], []
    if refit:
        for unit in np.flatnonzero(k > good_k):
            name = _name(units, unit)
            log.info("refit without %s", name)
            values[unit], k[unit], heard = _without(fit, units, members, int(unit), seed + int(unit), options, constants)
            refitted.append(name)
            told += [f"The refit without {name}: {sentence}" for sentence in heard]
    bad = [_name(units, unit) for unit in np.flatnonzero(k > good_k)]
    if bad:
        todo = "more draws are needed" if set(bad) <= set(refitted) else "use refit=True"
        told.append(
            f"{len(bad)} of {len(k)} units have a Pareto k above {good_k:.2f} ({_listed(bad)}): their log predictive densities, and the sum, "
            f"are not to be trusted; {todo}."
        )
    if by == "time":
        told.append("A block of times left out is predicted from what came before and after it: interpolation, not a forecast.")
    if branches:
        told.append(
            "Which equilibrium a trajectory follows was decided with the data that are left out: densities are too high where these decide it."
        )
    if fit.method == "svi":
        told.append("The draws are those of an approximation, whose error importance sampling does not correct.")
    for sentence in told:
        log.warning("%s", sentence)
    dims, coords = units.dims[-1:], {name: c for name, c in units.coords.items() if c.dims == units.dims[-1:]}
    return ELPDDataLOO(
        **_totals(units, values),
        warning=bool(bad),
        good_k=good_k,
        elpd_i=xr.DataArray(values, coords, dims, attrs={"warnings": told, "refitted": refitted}),
        pareto_k=xr.DataArray(k, coords, dims),
    )


def leave_future_out(fit: "Fit", *, blocks: int = 5, least: int = 1, seed: int = 0, **options: Any) -> ELPDDataLFO:
    """Expected log predictive density of blocks of times given what came before them only, by exact refits.

    The observed times fall into blocks of about equally many; each but the first few is forecast by a fit to all that came before it. The agents of
    every refit look ahead to the horizon of the model, as those of the whole fit do.

    Parameters
    ----------
    fit : a fit with its model and more than one draw.
    blocks : as in `loo`.
    least : blocks that the first refit sees, at least 1.
    seed, **options : of the refits, as in `loo`.

    Returns
    -------
    arviz_stats.utils.ELPDDataLFO
        With `elpd_i` by block, as in `loo`; `az.compare` takes it, with others of the same blocks. `elpd_i.attrs["warnings"]` holds the sentences
        that were logged, `elpd_i.attrs["pareto_k"]` the Pareto k of the average over draws of each block's density.

    Raises
    ------
    InputError : for a point estimate or an ensemble, a fit without its model, too few blocks, several equilibria, or a path that takes the observed
        population as input: both have seen what is to be forecast.
    """
    checked(fit, "time", blocks)
    model = needed(fit, "leave_future_out")
    seeing = [name for name, path in model.bound.items() if path.needs_observed]
    if seeing:
        raise InputError(f"leave_future_out: the path of {seeing[0]} takes the observed population as input, the future's, too.")
    if getattr(model, "branches", None) is not None:
        raise InputError(
            "leave_future_out: which of several equilibria a trajectory follows is inferred from all of its data; one is needed."
        )
    if not (whole(least) and 1 <= least < blocks):
        raise InputError(f"leave_future_out: least is {least!r}; a whole number from 1 to {blocks - 1} is needed.")
    units, members = in_units(fit, "time", blocks)
    counted = _cells(model, observations(fit))
    asked = np.arange(least, units.sizes["block"])
    values, k = np.empty(len(asked)), np.empty(len(asked))
    told = []
    for place, unit in enumerate(asked):
        later = np.logical_or.reduce(members[unit:])
        flat, heard = _refitted(fit, model, _like(later, counted), seed + int(unit), options)
        told += [f"The refit before {_name(units, unit)}: {sentence}" for sentence in heard]
        values[place], k[place] = _averaged(evaluated(model, flat, seed, _sum_over(counted & _like(members[unit], counted))))
    good_k = _good(units.shape[0] * units.shape[1])
    bad = [_name(units, unit) for unit in asked[k > good_k]]
    if bad:
        told.append(
            f"A few draws decide the density of the blocks {_listed(bad)} (Pareto k above {good_k:.2f}); more draws are needed."
        )
    for sentence in told:
        log.warning("%s", sentence)
    coords = {name: c[asked] for name, c in units.coords.items() if c.dims == ("block",)}
    return ELPDDataLFO(
        **_totals(units.isel(block=asked), values),
        warning=bool(bad),
        good_k=None,  # type: ignore[arg-type]  # as ArviZ's own leave-future-out has it where every origin is refitted
        elpd_i=xr.DataArray(values, coords, ("block",), attrs={"warnings": told, "pareto_k": k.tolist()}),
        forecast_horizon=1,
        min_observations=least,
        refits=asked,
        n_refits=len(asked),
    )


def _totals(units: xr.DataArray, values: np.ndarray) -> dict[str, Any]:
    """What ArviZ tells of any way to leave out: log densities of units in all draws `(chain, draw, unit)`, and of each unit left out."""
    draws = units.shape[0] * units.shape[1]
    full = logsumexp(units.to_numpy(), axis=(0, 1)) - np.log(draws)
    return {
        "elpd": float(values.sum()),
        "se": float(np.sqrt(len(values) * values.var(ddof=1))) if len(values) > 1 else np.nan,
        "p": float((full - values).sum()),
        "n_samples": draws,
        "n_data_points": len(values),
        "scale": "log",
    }


def checked(fit: Any, by: Any, blocks: Any) -> None:
    """Refuse what cannot be left out.

    Raises
    ------
    InputError : see `loo`.
    """
    if by not in UNITS:
        raise InputError(f"loo: by is {by!r}; choose one of {', '.join(UNITS)}.")
    if by == "time" and not (whole(blocks) and blocks >= 2):
        raise InputError(f"loo: blocks is {blocks!r}; a whole number of at least 2 is needed.")
    if fit.method not in ("nuts", "svi"):
        raise InputError(
            f"loo: the draws of method {fit.method!r} are none of a posterior that could be reweighted; fit with nuts or svi."
        )


def in_units(fit: "Fit", by: str, blocks: int, constants: bool = False) -> tuple[xr.DataArray, list[np.ndarray]]:
    """Log densities `(chain, draw, unit)`, and for trajectories and blocks which `(R, T)` of the record each unit is.

    Raises
    ------
    InputError : when there are fewer than two units, or the fit lacks a model that is needed.
    """
    single = observations(fit, constants)
    draws = single.sizes["chain"] * single.sizes["draw"]
    if draws < FEWEST or single.sizes["observation"] < 2:
        raise InputError(
            f"loo: the fit has {draws} draws and {single.sizes['observation']} observations whose density differs between them; at least "
            f"{FEWEST} and 2 are needed."
        )
    if by == "observation":
        return single, []
    names, clock = single["trajectory"].to_numpy().astype(str), single["time"].to_numpy()
    record = fit.tree["observed_data"]
    everyone, times = record["trajectory"].to_numpy().astype(str), record["time"].to_numpy()
    if by == "trajectory":
        labels = [name for name in everyone if (names == name).any()]
        belongs = [names == name for name in labels]
        members = [np.repeat(everyone[:, None] == name, len(times), axis=1) for name in labels]
        coords: dict[str, Any] = {"trajectory": labels}
    else:
        parts = [part for part in np.array_split(np.unique(clock), blocks) if len(part)]
        if len(parts) < blocks:
            raise InputError(f"loo: {blocks} blocks were asked for; observations were made at {len(np.unique(clock))} times.")
        belongs = [np.isin(clock, part) for part in parts]
        members = [np.repeat(np.isin(times, part)[None], len(everyone), axis=0) for part in parts]
        start, stop = np.array([part[0] for part in parts]), np.array([part[-1] for part in parts])
        labels = [f"{a:g} to {b:g}" if a < b else f"{a:g}" for a, b in zip(start, stop, strict=True)]
        coords = {"block": labels, "start": ("block", start), "stop": ("block", stop)}
    if len(labels) < 2:
        raise InputError(f"loo: there is only one {by} to leave out, {_listed(labels)}; nothing would be left.")
    values = single.to_numpy()
    summed = np.stack([values[..., own].sum(axis=-1) for own in belongs], axis=-1)
    if by == "trajectory":
        summed = summed + _integrated(fit, single, summed, [int(np.flatnonzero(everyone == name)[0]) for name in labels])
    dims = ("chain", "draw", "trajectory" if by == "trajectory" else "block")
    chains = {"chain": single["chain"], "draw": single["draw"]}
    return xr.DataArray(summed, {**chains, **coords}, dims, name=single.name), members


def observations(fit: "Fit", constants: bool = False) -> xr.DataArray:
    """Log densities `(chain, draw, observation)`, from the fit where it holds them; with `constants` those that are the same in every draw, too."""
    if "log_likelihood" in fit.tree.children:
        (kept,) = fit.tree["log_likelihood"].to_dataset().data_vars.values()
        if not constants or kept.attrs.get("constant", 0.0) == 0.0:
            return kept
    every = log_likelihood(fit)
    return every if constants else every.isel(observation=varying(every.to_numpy().reshape(-1, every.shape[-1])))


def _integrated(fit: "Fit", single: xr.DataArray, summed: np.ndarray, rows: list[int]) -> np.ndarray:
    """What summing over branches and integrating a trajectory's own unknowns add to its log likelihood `summed (chain, draw, k)`, or zero.

    Raises
    ------
    InputError : when the fit has such unknowns and no model.
    """
    latent = fit.tree["unconstrained_posterior"]["latent"].to_numpy()
    if fit.model is None:
        names = [str(name) for name in fit.tree["unconstrained_posterior"]["coordinate"].to_numpy()]
        own = "mu0" in fit.tree["posterior"] or any(SUFFIX in name for name in names) or "prior" in fit.tree.attrs
        if own or "branch" in fit.tree["posterior"]:
            needed(fit, "leaving out trajectories with unknowns or equilibria of their own")
        return np.zeros(1)
    added: Any = np.zeros(1)
    local = Local(fit.model)
    if local.size:
        added = added + local.weights(latent)[..., rows]
    if getattr(fit.model, "branches", None) is not None:
        # What was kept is the log likelihood at one branch, drawn by its probability: the sum over branches takes its place.
        counted = _cells(fit.model, single)

        def both(values: np.ndarray, correction: np.ndarray) -> np.ndarray:
            one = np.where(counted, values, 0.0).reshape(*values.shape[:2], -1).sum(axis=-1)
            return (one + correction)[:, rows]

        values = evaluated(fit.model, latent.reshape(-1, latent.shape[-1]), int(fit.tree.attrs["seed"]), both)
        source = mended(np.isnan(values).any(axis=-1).reshape(latent.shape[:2]))
        added = added + values[source.reshape(-1)].reshape(*latent.shape[:2], -1) - summed
    return np.asarray(added)


def _cells(model: ForwardModel, single: xr.DataArray) -> np.ndarray:
    """Where the observations stand in the record, of its mask's shape."""
    names = [model.population.trajectories, model.population.times.tolist(), model.columns]
    places = [
        [{label: k for k, label in enumerate(labels)}[label] for label in single[name].to_numpy().tolist()]
        for name, labels in zip(("trajectory", "time", "state"), names, strict=True)
        if name in single.coords
    ]
    counted = np.zeros(np.shape(model.data.record.mask), bool)
    counted[tuple(places)] = True
    return counted


def _like(member: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`(R, T)` in the mask's shape."""
    return np.broadcast_to(member if mask.ndim == 2 else member[..., None], mask.shape)


def _sum_over(cells: np.ndarray, row: int | None = None) -> Any:
    """Log likelihood of some observations `(n,)`; of those of one trajectory, with several branches summed out."""
    return lambda values, added: values[:, cells].sum(axis=-1) + (0.0 if row is None else added[:, row])


def _psis(fit: "Fit", units: xr.DataArray) -> ELPDDataLOO:
    """ArviZ's own, without the warning that `loo` words for itself."""
    # The draws' relative efficiency is ArviZ's mean over the posterior, as in `az.loo(fit.tree)`; of units, over the coordinates, which are fewer.
    source = "posterior" if units.dims[-1] == "observation" else "unconstrained_posterior"
    groups = {
        "posterior": fit.tree[source].to_dataset(),
        "log_likelihood": units.rename("unit").drop_vars([c for c in units.coords if c not in units.dims]).to_dataset(),
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Estimated shape parameter", UserWarning)
        return az.loo(xr.DataTree.from_dict(groups), pointwise=True, var_name="unit")


def _without(
    fit: "Fit", units: xr.DataArray, members: list[np.ndarray], unit: int, seed: int, options: dict[str, Any], constants: bool
) -> tuple[float, float, list[str]]:
    """Exact log predictive density of a unit by a refit without it, the Pareto k of the average over draws, and what the refit warned of."""
    model, by = needed(fit, "refits"), units.dims[-1]
    counted = _cells(model, observations(fit, constants))
    gone = _cells(model, units.isel(observation=[unit])) if by == "observation" else _like(members[unit], counted)
    flat, heard = _refitted(fit, model, gone, seed, options)
    if by != "trajectory":
        return *_averaged(evaluated(model, flat, seed, _sum_over(counted & gone))), heard
    row = int(np.flatnonzero(members[unit].any(axis=1))[0])
    local = Local(model)
    latent = fit.tree["unconstrained_posterior"]["latent"].to_numpy()
    # The refit knows the trajectory's own unknowns from their prior alone: they are drawn near where its data put them, and weighted.
    if not local.size:
        return *_averaged(evaluated(model, flat, seed, _sum_over(counted & gone, row))), heard
    flat, ratio = local.proposed(latent, flat, row, seed)
    values = evaluated(model, flat, seed, _sum_over(counted & gone, row)) + ratio
    # A proposal without an equilibrium has no density, and counts.
    return *_averaged(np.where(np.isnan(values), -np.inf, values)), heard


def _refitted(
    fit: "Fit", model: ForwardModel, gone: np.ndarray, seed: int, options: dict[str, Any]
) -> tuple[np.ndarray, list[str]]:
    """Draws `(n, size)` of the posterior without the part `gone` of the record, of the mask's shape, and what the fit warned of.

    Raises
    ------
    KeyboardInterrupt : when the refit was interrupted: `fit` would give what it has by then.
    """
    # What was asked for, not what came of it: a fit that settled early or was interrupted does not shorten its refits.
    asked = json.loads(fit.tree.attrs["inference"]).get("asked", {})
    known = {name: asked[name] for name in KEPT if name in asked}
    again = refit_model(masked(model, gone), fit.method, seed=seed, start=fit, prior_samples=0, **{**known, **options})
    if again.interrupted:
        raise KeyboardInterrupt
    latent = again.tree["unconstrained_posterior"]["latent"].to_numpy()
    return latent.reshape(-1, latent.shape[-1]), again.warnings


def masked(model: ForwardModel, gone: np.ndarray) -> ForwardModel:
    """The model of the data without a part of them; what else it conditions on (first observations that are starts, inputs of paths) stays.

    Raises
    ------
    InputError : when nothing is left.
    """
    record = model.data.record
    left = np.asarray(record.mask) & ~gone
    if not left.any():
        raise InputError("loo: nothing would be left to fit.")
    other = model.with_population(model.population)
    other._made_from = None  # the mask would not travel
    other.data = model.data._replace(record=record._replace(mask=left))
    return other


def _averaged(values: np.ndarray) -> tuple[float, float]:
    """Log of the mean density over draws `(n,)`, the few without an equilibrium (NaN) left out, and the Pareto k of the average.

    Raises
    ------
    FitError : when these are not few, or nothing has a density.
    """
    lost = np.isnan(values)
    if lost.sum() > max(1, MOST_LOST * len(values)) or not np.isfinite(values).any():
        raise FitError(
            f"loo: of {len(values)} draws of a refit {int(np.isfinite(values).sum())} have an equilibrium and a density."
        )
    values = values[~lost]
    some = values[np.isfinite(values)]
    k = float(array_stats.psislw(-some)[1]) if np.ptp(some) > 0 else -np.inf
    return float(logsumexp(values) - np.log(len(values))), k


def _good(draws: int) -> float:
    """Pareto k up to which that many draws suffice; Vehtari et al., Pareto smoothed importance sampling, JMLR 25 (2024)."""
    return float(min(1 - 1 / np.log10(draws), 0.7))


def _name(units: xr.DataArray, unit: int | np.integer) -> str:
    """A unit's name: of its trajectory or block, or the place of an observation."""
    dim = units.dims[-1]
    if dim != "observation":
        return str(units[dim].to_numpy()[unit])
    at = units.isel(observation=unit)
    place = [str(at["trajectory"].item()), f"{at['time'].item():g}"]
    return " ".join([*place, *([str(at["state"].item())] if "state" in at.coords else [])])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
