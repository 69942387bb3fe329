"""`check`: does inference on a model do what Bayes' rule promises? Simulation-based calibration and a prior predictive check in one call."""

import concurrent.futures
import contextlib
import dataclasses
import importlib.metadata
import inspect
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from arviz_stats.base import array_stats
from jax import Array

from bayes_mfg.equilibrium import Code
from bayes_mfg.errors import InputError
from bayes_mfg.models import Data, ForwardModel, describe

from . import nuts, svi
from .assemble import PACKAGES, derived, mended
from .check_result import RANKED, Check
from .checkpoint import Checkpoint
from .coordinates import compiled, coordinates, prior_points
from .errors import FitError
from .fit import METHODS, draw
from .options import check as check_options
from .options import whole
from .parallel import ONE_AT_A_TIME, Parcel, fingerprint, travels
from .progress import bar
from .study_identity import called, identity
from .uniformity import rank

log = logging.getLogger(__name__)

type Sampler = Callable[..., Any]
type Quantities = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def check(
    model: ForwardModel,
    method: str | Sampler = "nuts",
    *,
    simulations: int = 200,
    draws: int = 99,
    times: int = 5,
    quantities: Quantities | None = None,
    seed: int = 0,
    executor: concurrent.futures.Executor | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> Check:
    """Check inference on a model by simulation: draw unknowns from the prior, data from these, fit, and see where the truth lies among the draws.

    If, and only if, the sampler draws from the posterior of this very model, the rank of the truth among independent draws is uniform, for every
    quantity that is a function of unknowns and data (the log likelihood among them, which sees errors that each unknown alone does not). The
    design is the model's own: its times, trajectories, sizes and gaps, and its initial populations where these are known; the observed numbers only
    enter the prior predictive check.

    Every simulation has an outcome, and none is left out in silence:

    - "ranked";
    - "no equilibrium": a solve failed at the drawn unknowns. The posterior excludes these, so that the ranks of the others stay uniform;
    - "data out of range": a simulated share is too small for floating point numbers (under a Dirichlet model with states that are all but empty), or
      the data have no finite density. This depends on the data alone, and ranks given the data are uniform, so the same holds;
    - "fit failed", with its sentence. Where that depends on data and seed alone, ranks of the others are uniform here, too, but what cannot be
      fitted is not checked; a warning counts them.

    Parameters
    ----------
    model : the model; none whose paths take the observed population as input, for these are no models of data.
    method : "nuts" or "svi" as in `fit`; or a function `(model, *, seed) -> array (chain, draw, size)` of unconstrained draws for `model.data`, which
        hold the simulated numbers; `model.population` does not.
    simulations : number of simulations.
    draws : draws that a truth is ranked among, spread evenly over those of the fit; with 99, intervals of 90, 80 and 50 % end at draws exactly.
    times : varying paths are ranked at so many times, spread evenly over the data's.
    quantities : further quantities: a function of what draws imply (a dict with the leading axis `n` in every array: `parameter/<name>`
        `(n[, R], T, ...)`, `mu` and `value` `(n, R, T, d)`, `own/<name>`, `mu0`) and of the data that they are ranked for (`record`, `(n, R, T, k)`)
        that gives finite arrays `(n,)` by name.
    seed : of everything random.
    executor : runs the fits in parallel: `bm.inference.processes()`, or any other `concurrent.futures.Executor` of processes. Workers need the
        package and importable `method` and `quantities`. Threads of one process take turns. By default one fit after the other, here.
    checkpoint : a folder, new or empty, that keeps every simulation as it is done. What functions consist of (code, bound arguments, values that they
        close over) is told from anything else.
    resume : go on from what the checkpoint holds.
    progress : show progress; by default on a terminal only.
    **options : of the method, as in `fit`; `num_chains=1, starts=1` saves time where many fits run side by side.

    Returns
    -------
    Check

    Raises
    ------
    InputError : for an unknown method or option, a model that cannot be checked, a checkpoint of another check, and one of functions whose content
        cannot be told.
    FitError : when no simulation can be ranked.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari and Gelman, Validating Bayesian inference algorithms with simulation-based calibration, arXiv 1804.06788;
    Modrak, Moon, Kim, Buerkner, Huurre, Faltejskova, Gelman and Vehtari, Simulation-based calibration checking for Bayesian computation: the choice
    of test quantities shapes sensitivity, Bayesian Analysis 20 (2025).
    """
    _refuse(model, method, {"simulations": simulations, "draws": draws, "times": times, "seed": seed}, options)
    words = method if isinstance(method, str) else called(method)
    at = np.unique(np.linspace(0, model.population.n_times - 1, times).round().astype(int))
    begin = time.perf_counter()
    truths = _Truths(model, simulations, seed, at, quantities)
    about = {**describe(model), "method": words, "options": options, "seed": seed, "draws": draws, "times": times}
    about |= {"simulations": simulations, "quantities": quantities and called(quantities), "design": fingerprint(model)}
    about |= {"versions": {name: importlib.metadata.version(name) for name in (*PACKAGES, "jaxlib", "optax", "equinox", "scipy")}}
    about |= {"precision": str(jnp.zeros(()).dtype), "backend": jax.default_backend()}
    kept = None
    if checkpoint is not None:
        given = {"method": method, "quantities": quantities}
        about |= {f"content of {name}": identity(f, f"check: {name}") for name, f in given.items() if callable(f)}
        kept = Checkpoint(checkpoint, about, resume=resume)
    results: dict[int, dict[str, Any]] = {}
    with contextlib.nullcontext() if kept is None else kept.held():
        for k in truths.ready:
            if found := [] if kept is None else kept.read(f"simulation-{k}"):
                results[k] = _unpacked(found[0], truths.point[k])
        left = [k for k in truths.ready if k not in results]
        jobs = [_Job(k, method, seed, truths.recorded[k], truths.point[k], at, draws, quantities, options) for k in left]
        with bar(len(truths.ready), "check", progress) as shown:
            shown.update(len(results))
            for k, result in _done(model, jobs, executor):
                results[k] = result
                if kept is not None:
                    kept.write(f"simulation-{k}", 0, _packed(result, truths.point[k]))
                shown.update()
    return _gathered(model, truths, results, words, seed, draws, dict(options), time.perf_counter() - begin)


def _refuse(model: Any, method: Any, numbers: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse what cannot be checked.

    Raises
    ------
    InputError : naming what was given.
    """
    if not isinstance(model, ForwardModel):
        raise InputError(f"check: model is {type(model).__name__}; a bayes_mfg.models.Calibration (or NeuralODE) is needed.")
    if method in ("point", "ensemble") or options.get("guide") == "point-mass":
        called = repr(options.get("guide", method))
        raise InputError(f"check: {called} has no draws of a posterior to rank a truth among; check nuts or svi.")
    if not callable(method) and method not in METHODS:
        raise InputError(f"check: unknown method {method!r}; choose nuts, svi, or give a function.")
    if callable(method) and options:
        raise InputError(f"check: {next(iter(options))} is no option of a function; bind it with functools.partial.")
    check_options(options)
    made = options.get("num_samples", draws_by_default(method)) * (options.get("num_chains", 4) if method == "nuts" else 1)
    if isinstance(method, str) and whole(numbers["draws"]) and made < numbers["draws"]:
        raise InputError(f"check: {numbers['draws']} draws are to be ranked among, but a fit has {made}.")
    for name, least in (("simulations", 1), ("draws", 19), ("times", 1), ("seed", 0)):
        if not (whole(numbers[name]) and numbers[name] >= least):
            raise InputError(f"check: {name} is {numbers[name]!r}; a whole number of at least {least} is needed.")
    for name in ("start", "checkpoint", "resume"):
        if name in options:
            raise InputError(f"check: {name} is no option of the fits inside a check.")
    for name, path in model.bound.items():
        if path.needs_observed:
            raise InputError(f"check: the path of {name} takes the observed population as input; such a model cannot make data.")
    if not coordinates(model).size:
        raise InputError("check: the model has no unknowns.")


def draws_by_default(method: Any) -> int:
    """Draws per chain of a method, where nothing is said."""
    functions: dict[Any, Callable[..., Any]] = {"nuts": nuts.sample, "svi": svi.approximate}
    return int(inspect.signature(functions[method]).parameters["num_samples"].default) if method in functions else 0


class _Truths:
    """Unknowns from the prior, what they imply, and data simulated from them, for all simulations at once.

    Attributes
    ----------
    outcome : of every simulation that cannot be ranked.
    ready : numbers of those that can.
    recorded : recorded numbers of every simulation, of the record's shape.
    point : number -> every quantity at the truth, of those that can be ranked.
    replicate : as simulated, `(n, R, T, k)`, of those whose equilibria exist.
    """

    def __init__(self, model: ForwardModel, count: int, seed: int, at: np.ndarray, more: Quantities | None) -> None:
        flat = prior_points(model, jax.random.split(jax.random.key(seed), count))
        implied = derived(model, flat, seed + 1, given_data=False)
        old, _, _ = model.data.record
        seen = np.asarray(model.data.record.mask)
        seen = seen if seen.ndim == old.ndim else seen[..., None]
        self.recorded = np.where(seen, implied["replicate"], np.asarray(old)).astype(old.dtype)
        solved = (implied["solver/code"] == Code.CONVERGED).all(axis=-1)
        density = np.full(count, np.nan)
        for k in np.flatnonzero(solved):
            density[k] = _density(model)(flat[k], implied["mu"][k], _with(model, self.recorded[k]).data)
        truth = _quantities(model, implied, self.recorded, at, more) | {"log_likelihood": density}
        self.outcome = {int(k): "no equilibrium" for k in np.flatnonzero(~solved)}
        odd = ~np.isfinite(density) | _underflown(np.where(seen, self.recorded, 1))
        self.outcome |= {int(k): "data out of range" for k in np.flatnonzero(solved & odd)}
        self.ready = [k for k in range(count) if k not in self.outcome]
        self.replicate = implied["replicate"][solved]
        self.point = {k: {name: float(x[k]) for name, x in truth.items()} for k in self.ready}


def _underflown(values: np.ndarray) -> np.ndarray:
    """Whether a simulation `(n, ...)` has a share that is too small for floating point numbers, where JAX's Dirichlet draws pile up."""
    if not np.issubdtype(values.dtype, np.inexact):
        return np.zeros(len(values), bool)
    return np.asarray(((values >= 0) & (values <= 10 * np.finfo(values.dtype).tiny)).reshape(len(values), -1).any(axis=1))


def _density(model: ForwardModel) -> Any:
    """Compiled `(flat, mu, data) -> log likelihood` of one simulation's data."""

    def one(flat: Array, mu: Array, data: Data) -> Array:
        space = coordinates(model)
        seen = model.likelihood(space.latents(space.constrain(flat), data), mu, data).mask(data.record.mask)
        return jnp.sum(jnp.where(data.record.mask, seen.log_prob(data.record.values), 0.0))

    return compiled(model, "log_likelihood_at", lambda: jax.jit(one))


def _with(model: ForwardModel, values: np.ndarray) -> ForwardModel:
    """The model for other recorded numbers; its population stays the old one, and so it cannot travel."""
    other = object.__new__(type(model))
    other.__dict__.update(model.__dict__)
    other._made_from = None
    other.data = model.data._replace(record=model.data.record._replace(values=jnp.asarray(values)))
    return other


GIVEN = ("parameter", "group", "own", "hyper", "mu0", "mu", "value")
"""What further quantities may look at: what is of the same kind for a truth and for a draw."""


def _quantities(
    model: ForwardModel, implied: Mapping[str, np.ndarray], record: np.ndarray, at: np.ndarray, more: Quantities | None
) -> dict[str, np.ndarray]:
    """What is ranked, by name: `(n,)` each.

    Raises
    ------
    InputError : for further quantities of another shape, that are not finite where all is solved, or whose name is taken.
    """
    population = model.population
    found: dict[str, np.ndarray] = {}

    def add(name: str, values: np.ndarray, labels: list[list[str]]) -> None:
        """Every entry of `values (n, ...)` under its labels along each axis."""
        for index in np.ndindex(values.shape[1:]):
            named = ", ".join([names[i] for names, i in zip(labels, index, strict=True) if names[i]])
            label = f"{name}[{named}]" if named else name
            assert label not in found, label
            found[label] = values[(slice(None), *index)]

    for key, values in implied.items():
        kind, _, name = key.partition("/")
        if kind in ("parameter", "group") and model.bound[name].priors:
            several = model.varies_by_trajectory(name) if kind == "parameter" else model.group_varies(name)
            names = [list(population.trajectories)] if several else []
            axis = 1 + len(names)
            constant = model.bound[name].is_constant
            values = values.take([0] if constant else at, axis=axis)
            names.append([""] if constant else [_short(t) for t in population.times[at]])
            names += [[str(i) for i in range(size)] for size in values.shape[axis + 1 :]]
            add(name if kind == "parameter" else f"{name}_group", values, names)
        elif kind in ("own", "hyper"):
            add(name, values, [[str(i) for i in range(size)] for size in values.shape[1:]])
        elif kind == "mu0":
            add(kind, values, [list(population.trajectories), list(model.initial.unknown_states(population))])
    found["log_likelihood"] = implied["log_likelihood"].reshape(len(implied["mu"]), -1).sum(axis=1)
    given = {key: values for key, values in implied.items() if key.partition("/")[0] in GIVEN}
    solved = (implied["solver/code"] == Code.CONVERGED).all(axis=-1)
    for name, values in (more({**given, "record": record}) if more else {}).items():
        if np.shape(values) != (len(implied["mu"]),):
            raise InputError(f"check: quantity {name!r} has shape {np.shape(values)}; ({len(implied['mu'])},) is needed.")
        if name in found:
            raise InputError(f"check: quantity {name!r} is ranked already; give it another name.")
        if not np.isfinite(np.asarray(values, float)[solved]).all():
            raise InputError(f"check: quantity {name!r} is not finite for every draw, and cannot be ranked.")
        found[name] = np.asarray(values, float)
    return found


def _short(time: float) -> str:
    """A time with as few digits as leave it what it is to nine."""
    return next(text for digits in range(3, 18) if abs(float(text := f"{time:.{digits}g}") - time) <= 1e-9 * abs(time))


@dataclasses.dataclass(frozen=True)
class _Job:
    """One simulation to fit and rank, as it travels to a worker."""

    number: int
    method: str | Sampler
    seed: int
    recorded: np.ndarray
    truth: Mapping[str, float]
    at: np.ndarray
    draws: int
    quantities: Quantities | None
    options: Mapping[str, Any]


def _work(parcel: Parcel, job: _Job) -> dict[str, Any]:
    """What a worker does."""
    with ONE_AT_A_TIME:
        return _ranked(parcel.model, job)


def _done(
    model: ForwardModel, jobs: list[_Job], executor: concurrent.futures.Executor | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Results as they come."""
    if executor is None:
        yield from ((job.number, _ranked(model, job)) for job in jobs)
        return
    parcel = Parcel(model)
    if isinstance(executor, concurrent.futures.ProcessPoolExecutor) and jobs:
        travels(parcel, jobs[0])
    running = {executor.submit(_work, parcel, job): job.number for job in jobs}
    try:
        for future in concurrent.futures.as_completed(running):
            yield running[future], future.result()
    finally:
        for future in running:
            future.cancel()


def _ranked(model: ForwardModel, job: _Job) -> dict[str, Any]:
    """Fit one simulation's data, and rank its truth among the draws."""
    begin = time.perf_counter()
    mine = _with(model, job.recorded)
    seed = int(np.random.default_rng([job.seed, job.number]).integers(2**31))
    facts: dict[str, Any] = {}
    weighted = np.inf
    try:
        if callable(job.method):
            flat = np.asarray(job.method(mine, seed=seed))
            if flat.ndim != 3 or flat.shape[-1] != coordinates(model).size:
                raise InputError(
                    f"check: the sampler gave shape {flat.shape}; (chain, draw, {coordinates(model).size}) is needed."
                )
        else:
            flat, stats, settings, _ = draw(mine, job.method, seed=seed, progress=False, **job.options)
            facts = {name: int(np.sum(stats[name])) for name in ("diverging", "failed_solve") if stats and name in stats}
            facts |= _judged(settings)
            weighted = settings["importance_ess"] if settings.get("importance") else np.inf
            if settings.get("interrupted"):
                raise KeyboardInterrupt
        chains, count, size = flat.shape
        if chains * count < job.draws:
            raise FitError(f"{job.draws} draws are to be ranked among, and the fit has {chains * count}.")
        implied = derived(mine, flat.reshape(-1, size), seed)
        source = mended((implied["solver/code"] != Code.CONVERGED).any(axis=-1).reshape(chains, count)).reshape(-1)
        implied = {name: x[source] for name, x in implied.items()}
    except InputError:
        raise  # of the question, not of this simulation
    except Exception as error:  # one simulation of hundreds: it counts as failed, with its reason
        called = "" if isinstance(error, FitError) else f"{type(error).__name__}: "
        log.warning("simulation %d failed", job.number, exc_info=not isinstance(error, FitError))
        return {"outcome": f"fit failed: {called}{error}", "seconds": time.perf_counter() - begin}
    among = _quantities(
        mine, implied, np.broadcast_to(job.recorded, (chains * count, *job.recorded.shape)), job.at, job.quantities
    )
    all_ = np.stack([among[name] for name in job.truth], axis=-1)
    chosen = all_[np.linspace(0, len(all_) - 1, job.draws).round().astype(int)]
    truth = np.array(list(job.truth.values()))
    ess = np.array([float(array_stats.ess(x, chain_axis=0, draw_axis=1)) for x in all_.T.reshape(-1, chains, count)])
    ess = np.minimum(ess, weighted)
    return {
        "outcome": RANKED,
        "seconds": time.perf_counter() - begin,
        "rank": rank(truth, chosen, np.random.default_rng([job.seed, job.number, 1])),
        "mean": all_.mean(axis=0),
        "sd": all_.std(axis=0, ddof=1),
        "fit_draws": chains * count,
        "each_ess": ess,
        "ess": float(np.nanmin(ess, initial=np.inf)),
        **facts,
    }


def _judged(settings: Mapping[str, Any]) -> dict[str, float]:
    """Pareto k of a guide and the limit above which `fit` warns of it; infinite where so few importance ratios count that they have none."""
    if "pareto_k_limit" not in settings:
        return {}
    enough = settings["num_samples"] >= svi.FEWEST
    return {"pareto_k": settings.get("pareto_k", np.inf if enough else np.nan), "pareto_k_limit": settings["pareto_k_limit"]}


def _packed(result: Mapping[str, Any], truth: Mapping[str, float]) -> dict[str, Any]:
    ranked = {"quantities": list(truth), "truth": list(truth.values())}
    return {name: np.asarray(x) for name, x in (dict(result) | ranked).items()}


def _unpacked(arrays: Mapping[str, np.ndarray], truth: Mapping[str, float]) -> dict[str, Any]:
    """A result that was kept.

    Raises
    ------
    InputError : when it is not of this truth.
    """
    found = {name: x if x.ndim else x.item() for name, x in arrays.items()}
    same = list(found.pop("quantities")) == list(truth)
    if not same or not np.allclose(found.pop("truth"), list(truth.values()), rtol=1e-9):
        raise InputError("check: the checkpoint holds ranks of other quantities or truths; start anew in another folder.")
    return found


def _gathered(
    model: ForwardModel,
    truths: _Truths,
    results: Mapping[int, Mapping[str, Any]],
    method: str,
    seed: int,
    draws: int,
    options: dict[str, Any],
    seconds: float,
) -> Check:
    """The result of all simulations.

    Raises
    ------
    FitError : when none could be ranked.
    """
    count = len(truths.recorded)
    rows = {k: {"outcome": truths.outcome[k]} for k in truths.outcome} | {
        k: {name: x for name, x in result.items() if np.ndim(x) == 0} for k, result in results.items()
    }
    outcomes = pd.DataFrame.from_dict({k: rows[k] for k in range(count)}, orient="index").rename_axis("simulation")
    ranked = [k for k in truths.ready if results[k]["outcome"] == RANKED]
    if not ranked:
        raise FitError(f"check: none of {count} simulations could be ranked; the first: {outcomes['outcome'].iloc[0]}.")
    names = list(truths.point[ranked[0]])
    index = pd.Index(ranked, name="simulation")
    untold = np.full(len(names), np.nan)  # of simulations that were kept before this was
    frames = {
        part: pd.DataFrame([results[k].get(part, untold) for k in ranked], index=index, columns=names)
        for part in ("rank", "mean", "sd", "each_ess")
    }
    found = Check(
        method=method,
        draws=draws,
        seed=seed,
        options=json.loads(json.dumps(options, default=str)),
        outcomes=outcomes,
        ranks=frames["rank"],
        truth=pd.DataFrame([truths.point[k] for k in ranked], index=index),
        mean=frames["mean"],
        sd=frames["sd"],
        ess=frames["each_ess"],
        prior_predictive=_prior_predictive(model, truths.replicate),
        model=describe(model),
        seconds=seconds,
    )
    for sentence in found.warnings:
        log.warning("%s", sentence)
    return found


def _prior_predictive(model: ForwardModel, replicate: np.ndarray) -> pd.DataFrame:
    """Where the data that were observed lie among data from the prior, by state: share of them inside central intervals, and below and above all."""
    record = model.data.record
    if len(replicate) < 2:
        return pd.DataFrame()
    observed = np.asarray(record.values, float)
    mask = np.asarray(record.mask)
    seen = np.broadcast_to(mask if mask.ndim == observed.ndim else mask[..., None], observed.shape)
    rows = {}
    for j, state in itertools.islice(enumerate(model.columns), observed.shape[-1]):
        here = seen[..., j]
        if not here.any():
            continue
        drawn, real = replicate[..., j][:, here], observed[..., j][here]
        row: dict[str, float] = {"observations": int(here.sum())}
        for share in (0.5, 0.9):
            low, high = np.quantile(drawn, [0.5 - 0.5 * share, 0.5 + 0.5 * share], axis=0)
            row[f"inside{100 * share:.0f}"] = float(((low <= real) & (real <= high)).mean())
        row["below_all"], row["above_all"] = float((real < drawn.min(axis=0)).mean()), float((real > drawn.max(axis=0)).mean())
        rows[state] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("state")
