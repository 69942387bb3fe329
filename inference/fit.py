"""`fit`: one call from a model to a `Fit`."""

import contextlib
import dataclasses
import importlib.metadata
import inspect
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel, describe

from . import ensemble, nuts, paper, point, svi
from .assemble import KEEP, PACKAGES, assemble, convergence_warnings
from .checkpoint import Checkpoint, digest
from .coordinates import coordinates, potential
from .options import check
from .parallel import cores, processor
from .result import Fit, best_draw

log = logging.getLogger(__name__)

METHODS = ("nuts", "svi", "point", "ensemble")

OBJECTIVES = ("map", "paper")


def fit(
    model: ForwardModel,
    method: str = "nuts",
    *,
    seed: int = 0,
    progress: bool | None = None,
    prior_samples: int = 500,
    keep: str = "all",
    title: str = "",
    config: str = "",
    start: Fit | np.ndarray | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    **options: Any,
) -> Fit:
    """Fit a calibration model.

    What a reader of the result must know is in `Fit.warnings`, and is logged as warnings of the logger "bayes_mfg".

    Parameters
    ----------
    model : the model.
    method : "nuts" (full posterior by sampling), "svi" (variational), "point" (the posterior's mode in the unconstrained coordinates that
        are sampled, Jacobians included; or the paper's least squares), or "ensemble" (many such modes, each of a randomised posterior).
    seed : of everything random; the same seed, versions and machine give the same fit.
    progress : show progress; by default on a terminal only.
    prior_samples : draws of the prior kept beside the posterior; 0 for none.
    keep : "all", or "parameters": of every draw its unknowns and parameter paths alone, without the populations, values, replicates and log
        likelihoods that they imply, which are about `4 R T d` numbers for each of R trajectories, T times and d states. `predict`, `flows`,
        `log_likelihood`, `loo`, `scores` and `intervene` compute these again, in chunks; the report leaves out what it would draw of them, and
        convergence is judged on parameters alone.
    title, config : kept with the fit, for reports.
    start : a fit of a model with the same paths and initial populations; the search for the mode sets out from its best draw, too, beside the prior
        median, which is left out with `starts=0`. With games whose agents decide almost at once, fit a softer game first. Or unconstrained
        coordinates `(size,)` (`unconstrained_posterior` names them), such as those of the mode of a simpler model. Not for the paper's least squares.
    checkpoint : a folder, new or empty, in which the fit keeps what it has: the mode, every 50 transitions of NUTS, every 100 updates of SVI,
        members of an ensemble. It stays when the fit is done; remove it then. Not for the paper's least squares.
    resume : go on from what the checkpoint holds, if anything: the draws are those of a fit that was never stopped. The model, data, method,
        options, seed, versions of the packages that compute, backend, kind of processor and number of cores have to be the same, and are compared;
        the model by its words and by the density of its mode.
    **options : of the method.

        - all but the paper's least squares: `starts=3` searches for the mode, from the prior median and from prior draws, `screened=0`: so many
          prior draws are looked at, and the searches set out from the most probable of them. Screen where equilibria jump as parameters change,
          so that a search from far away does not get near. `max_steps=500` for each.
        - nuts: `num_chains=4, num_warmup=300, num_samples=500, target_accept_prob=0.8, max_tree_depth=10`.
        - svi: `guide="full"`, `importance=False` (resample by importance ratios), `num_steps=5000` (updates, at most), `tolerance=0.1` (nats to
          which the ELBO has settled when updates end, see `bayes_mfg.inference.stopping`; 0.02 for the flow; 0 makes all updates, at a learning rate
          that falls to a tenth), `learning_rate=0.01, num_particles=8, num_samples=1000`. Guides, from the poorest to the richest; docs/guides.md
          has what each was measured to get wrong:

          - "point-mass": the mode, as method "point" finds it, and recorded as such: no widths, nothing to judge it by.
          - "laplace": the normal at the mode with the curvature there. No updates; blind to everything that is not near the mode.
          - "mean-field": a diagonal normal in coordinates whitened at the mode; it corrects place and widths, not correlations.
          - "low-rank": the same with correlations in about as many directions as the root of the number of unknowns.
          - "full": any normal. Skewness, heavy tails and bent ridges are beyond it.
          - "flow": a normalising flow that begins as the normal at the mode, for few unknowns; skewness, tails and bends, not separate modes.

          The Pareto k of the importance ratios is the judge of all but the first: where it is above its limit, `Fit.warnings` says not to trust
          the widths.
        - point: `objective="map"`, or `objective="paper"` with
          `seeds=1, epochs=500, learning_rate=1e-3, batch=10, window=0.2, held_out=0.1, patience=100`; see
          `bayes_mfg.inference.paper.fit_paper`. With several seeds the fit is the one with the lowest loss, and the settings say how far
          the seeds' paths lie apart.
        - ensemble: `members=20, randomised="both", max_steps=500`. With "both" prior and data are randomised for every member (draws from the
          posterior where all is linear and Gaussian), with "prior" the prior alone, with "none" members differ by their start; only "both"
          searches for the mode first. See `bayes_mfg.inference.ensemble`.

    Returns
    -------
    Fit

    Raises
    ------
    InputError : for an unknown method or option, or a model without unknowns.
    FitError : when no point can be found at which the equilibria exist.
    KeyboardInterrupt : when interrupted before there are draws, or after the sampling, while populations are made of them (with a checkpoint no draw
        is lost). In between, an interrupt (Ctrl-C) ends the sampling, and the fit is of the draws so far and says so; `Fit.interrupted` tells.
    """
    if method not in METHODS:
        raise InputError(f"Unknown method {method!r}; choose one of {', '.join(METHODS)}.")
    if not isinstance(model, ForwardModel):
        raise InputError(f"model is {type(model).__name__}; a bayes_mfg.models.Calibration (or NeuralODE) is needed.")
    if not coordinates(model).size:
        raise InputError("The model has no unknowns: every path, the initial populations and the observation model are known.")
    check({"seed": seed, "prior_samples": prior_samples, **options})
    if keep not in KEEP:
        raise InputError(f"fit: keep is {keep!r}; it is one of {', '.join(KEEP)}.")
    if not isinstance(title, str) or not title.isprintable():
        raise InputError(f"fit: title is {title!r}; text without control characters is needed.")
    if method == "nuts" and options.get("num_samples", 4) < 4:
        raise InputError(f"fit: num_samples is {options['num_samples']}; at least 4 are needed for NUTS.")
    if start is not None:
        if options.get("objective") == "paper":
            raise InputError('fit: the objective "paper" starts from random networks; start is not for it.')
        options["start"] = start if isinstance(start, np.ndarray) else _best_draw(start, model)
    if resume and checkpoint is None:
        raise InputError("fit: resume=True needs the folder of a checkpoint.")
    begin = time.perf_counter()
    if checkpoint is not None:
        if options.get("objective") == "paper":
            raise InputError('fit: the objective "paper" keeps no checkpoints.')
        options["checkpoint"] = Checkpoint(checkpoint, _about(model, method, seed, options), resume=resume)
    with options["checkpoint"].held() if checkpoint is not None else contextlib.nullcontext():
        flat, stats, settings, warnings = draw(model, method, seed=seed, progress=progress, **options)
    if jnp.zeros(()).dtype != jnp.float64:
        warnings.append(
            "Fitted in single precision: the solver's tolerance is 1e-5; switch on jax_enable_x64 for trustworthy posteriors."
        )
    warnings += model.observation.remarks(model.population)
    asked = {name: value for name, value in options.items() if name not in ("start", "checkpoint")}
    settings = {**settings, "asked": asked, "backend": jax.default_backend()}
    elbo = (stats or {}).pop("elbo", None)
    if isinstance(start, Fit):
        settings["start"] = {name: start.tree.attrs[name] for name in ("title", "method", "seed", "created")}
    tree = assemble(
        model,
        flat,
        method="point" if options.get("guide") == "point-mass" else method,
        seed=seed,
        wall_time=time.perf_counter() - begin,
        settings=settings,
        stats=stats,
        warnings=warnings,
        elbo=elbo,
        prior_samples=prior_samples,
        title=title,
        config=config,
        keep=keep,
    )
    result = Fit(tree, model)
    if method == "nuts":
        told = [*result.warnings, *convergence_warnings(tree, options.get("max_tree_depth", 10))]
        tree.attrs["warnings"] = json.dumps(told)
    for sentence in result.warnings:
        log.warning("%s", sentence)
    return result


def _about(model: ForwardModel, method: str, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a checkpoint to give the same draws, in words and numbers."""
    given = {name: digest(value) if isinstance(value, np.ndarray) else value for name, value in options.items()}
    words = describe(model)
    return {
        **words,
        "solver": model.solver,
        "data": digest((model.data, getattr(model, "branches", None))),
        "method": method,
        "seed": seed,
        "options": given,
        "grid": digest(model.grid.fine_times),
        "versions": {name: importlib.metadata.version(name) for name in (*PACKAGES, "jaxlib", "optax", "equinox", "scipy")},
        "precision": str(jnp.zeros(()).dtype),
        "machine": [jax.default_backend(), platform.machine(), processor(), len(cores())],
        "flags": [
            os.environ.get("XLA_FLAGS", ""),
            jax.config.jax_threefry_partitionable,
            jax.config.jax_default_prng_impl,
            jax.config.jax_default_matmul_precision,
        ],
    }


def _best_draw(start: Any, model: ForwardModel) -> np.ndarray:
    """The draw of the highest density of an earlier fit, or its last where densities are not known, in the coordinates of `model`.

    Raises
    ------
    InputError : for what is no fit, and one of other unknowns or under other priors, whose coordinates mean something else.
    """
    if not isinstance(start, Fit):
        raise InputError(f"fit: start is {type(start).__name__}; an earlier Fit or an array of coordinates is needed.")
    latent = start.tree["unconstrained_posterior"]["latent"]
    names, wanted = [str(name) for name in latent["coordinate"].to_numpy()], coordinates(model).names
    if names != wanted:
        odd = next(iter(sorted(set(names) ^ set(wanted))), "their order")
        raise InputError(f"fit: start is the fit of a model with other unknowns; {odd} differs.")
    words, known = describe(model), start.tree.attrs
    alike = {
        "paths": json.loads(known["paths"]) == words["paths"],
        "observation models": known["observation"] == words["observation"],
        "initial populations": known["initial"] == words["initial"],
        "priors of all unknowns": known.get("prior") == words.get("prior"),
    }
    for what, same in alike.items():
        if not same:
            raise InputError(f"fit: start is the fit of another model; their {what} differ.")
    return best_draw(start)


def draw(
    model: ForwardModel, method: str, *, seed: int, progress: bool | None, **options: Any
) -> tuple[np.ndarray, dict[str, np.ndarray] | None, dict[str, Any], list[str]]:
    """Unconstrained draws `(chain, draw, size)` with their statistics, settings and warnings; `fit` without the tree of everything that follows.

    Statistics are `(chain, draw)`, but for the "elbo" of variational updates, `(update,)`.
    """
    run: Callable[..., tuple] = {"nuts": _nuts, "svi": _svi, "point": _point, "ensemble": _ensemble}[method]
    with _named(method):
        return run(model, seed=seed, progress=progress, **options)


def refuse_options(model: ForwardModel, method: str, options: Mapping[str, Any]) -> None:
    """Refuse options that `draw` would refuse by nuts, svi or point, before anything is computed.

    Raises
    ------
    InputError : naming the first that the method does not have, or that is out of range.
    """
    check(options)
    objective = options.get("objective", "map")
    if method == "point" and objective not in OBJECTIVES:
        raise InputError(_no_objective(objective))
    after: dict[str, Callable[..., Any]] = {"nuts": nuts.sample, "svi": svi.approximate}
    then = after.get(method)
    taken: tuple[str, ...] = SEARCH
    if method == "point":
        then = paper.fit_paper if objective == "paper" else None
        taken = ("objective",) if objective == "paper" else ("objective", *SEARCH)
    with _named(method):
        _only({name: x for name, x in options.items() if name not in taken}, then)
    if method == "svi":
        svi.check(model, options.get("guide", "full"), options.get("importance", False))


@contextlib.contextmanager
def _named(method: str) -> Iterator[None]:
    """An option that a method does not have, told with the method."""
    try:
        yield
    except _UnknownOptionError as error:
        raise InputError(
            f"Method {method!r} has no option {error.args[0]!r}; see the docstring of fit for its options."
        ) from error


class _UnknownOptionError(Exception):
    """An option, named, that a method does not have."""


def _only(options: Mapping[str, Any], function: Callable[..., Any] | None) -> None:
    """Refuse options that a function does not have, or that are not for users to give.

    Raises
    ------
    _UnknownOptionError : naming the first.
    """
    known = set() if function is None else set(inspect.signature(function).parameters) - {"model", "mode", "seed", "progress"}
    for name in options:
        if name not in known:
            raise _UnknownOptionError(name)


SEARCH = ("starts", "start", "screened", "max_steps")
"""Options of the search for the mode that every method takes."""


def _mode(
    model: ForwardModel,
    options: dict[str, Any],
    seed: int,
    progress: bool | None,
    *,
    then: Callable[..., Any] | None = None,
    curvature: bool = True,
) -> tuple[point.Mode, dict[str, Any], Checkpoint | None]:
    """The mode, from the checkpoint if it is there; the options of what comes `then`; the checkpoint.

    Raises
    ------
    _UnknownOptionError : for an option that neither the search nor what comes then has.
    InputError : when the model gives the kept mode another density.
    """
    options = dict(options)
    checkpoint = options.pop("checkpoint", None)
    search = {name: options.pop(name) for name in SEARCH if name in options}
    _only(options, then)
    known = [] if checkpoint is None else checkpoint.read("mode")
    if known:
        mode = point.Mode(**{name: x.tolist() if x.ndim < 2 and name != "location" else x for name, x in known[0].items()})
        height = float(potential(model)(jnp.asarray(mode.location), model.data))
        if not abs(height - mode.potential) <= SAME_HEIGHT * max(1.0, abs(height)):
            raise InputError(
                f"{checkpoint.folder} is the checkpoint of another fit: its mode has the potential {mode.potential:g}, and {height:g} here."
            )
        return mode, options, checkpoint
    mode = point.find_mode(model, seed=seed, progress=progress, curvature=curvature, **search)
    if checkpoint is not None:
        checkpoint.write("mode", 0, dataclasses.asdict(mode))
    return mode, options, checkpoint


SAME_HEIGHT = 1e-6
"""Relative difference of the potential up to which a checkpoint's mode is one of the model that is given."""


def _nuts(model: ForwardModel, *, seed: int, progress: bool | None, **options: Any) -> tuple:
    mode, options, checkpoint = _mode(model, options, seed, progress, then=nuts.sample)
    draws = nuts.sample(model, mode, seed=seed, progress=progress, checkpoint=checkpoint, **options)
    chains, count = draws.flat.shape[:2]
    settings = {
        **options,
        "num_chains": chains,
        "num_samples": count,
        "chain_method": draws.chain_method,
        "warmup_leapfrog_steps": draws.warmup_steps,
        "warmup_bad_transitions": draws.warmup_bad,
        "warmup_transitions": chains * options.get("num_warmup", nuts.NUM_WARMUP),
        "mode_evaluations": mode.evaluations,
        "mode_failed_solves": mode.failed_solves,
        "mode_potential": mode.potential,
        **({"centring": draws.centring} if draws.centring else {}),
    }
    near = min(len(mode.others) + 1, chains)
    warnings = [
        *_doubts(mode, f"chains start near {near} of them: R-hat says whether they went from one to the other"),
        *point.flat_directions(mode),
    ]
    if draws.interrupted:
        settings["interrupted"] = True
        warnings.append(f"Interrupted: the chains ended after {count} draws each.")
    return draws.flat, draws.stats, settings, warnings


def _svi(model: ForwardModel, *, seed: int, progress: bool | None, **options: Any) -> tuple:
    guide = options.get("guide", "full")
    svi.check(model, guide, options.get("importance", False))
    mode, options, checkpoint = _mode(model, options, seed, progress, then=svi.approximate, curvature=guide != "point-mass")
    approximation = svi.approximate(model, mode, seed=seed, progress=progress, checkpoint=checkpoint, **options)
    settings = {**options, **approximation.settings}
    stats = approximation.stats | ({} if approximation.elbo is None else {"elbo": approximation.elbo})
    return approximation.flat[None], stats, settings, [*_doubts(mode), *approximation.warnings]


def _ensemble(model: ForwardModel, *, seed: int, progress: bool | None, randomised: str = "both", **options: Any) -> tuple:
    ensemble.check(model, randomised)
    mode, checkpoint = None, options.pop("checkpoint", None)
    limit = {name: options[name] for name in ("max_steps",) if name in options}  # of the members, too
    if randomised == "both":
        searched = {**options, "checkpoint": checkpoint}
        mode, options, _ = _mode(model, searched, seed, progress, then=ensemble.point_fits, curvature=False)
        options |= limit
    elif given := [name for name in SEARCH if name in options and name not in limit]:
        raise InputError(f'fit: {given[0]} is for the search for the mode, which an ensemble makes with randomised="both" alone.')
    else:
        _only(options, ensemble.point_fits)
    found = ensemble.point_fits(
        model, mode, randomised=randomised, seed=seed, progress=progress, checkpoint=checkpoint, **options
    )
    warnings = [*([] if mode is None else _doubts(mode)), *found.warnings]
    return found.flat[None], {name: x[None] for name, x in found.stats.items()}, {**options, **found.settings}, warnings


def _point(model: ForwardModel, *, seed: int, progress: bool | None, objective: Any = "map", **options: Any) -> tuple:
    if objective == "map":
        mode, _, _ = _mode(model, options, seed, progress, curvature=False)
        settings = {
            "objective": objective,
            "potential": mode.potential,
            "gradient_norm": mode.gradient_norm,
            "evaluations": mode.evaluations,
            "failed_solves": mode.failed_solves,
        }
        return mode.location[None, None], None, settings, _doubts(mode)
    if objective == "paper":
        _only(options, paper.fit_paper)
        found = paper.fit_paper(model, seed=seed, progress=progress, **options)
        spread = paper.spread(model, found)
        settings = {"objective": objective, **options, **_facts(model, found, spread)}
        return found.location[None, None], None, settings, _seeds_disagree(found, spread)
    raise InputError(_no_objective(objective))


def _no_objective(objective: Any) -> str:
    return f'Unknown objective {objective!r}; choose "map" or "paper".'


def _facts(model: ForwardModel, found: paper.PaperFit, spread: dict[str, float]) -> dict[str, Any]:
    """What is kept of a least-squares fit beside its location; lists have one entry per seed, and a seed without a loss found no equilibria."""
    told: dict[str, Any] = {
        "loss": found.loss,
        "seeds": len(found.losses),
        "losses": [float(loss) if np.isfinite(loss) else None for loss in found.losses],
        "best_seed": found.best,
        "stopped_after": found.stopped_after.tolist(),
        "skipped_updates": int(found.skipped.sum()),
        "held_out": [model.population.trajectories[r] for r in found.held_out],
    }
    if len(found.held_out):
        told["held_out_loss"] = found.loss
    if spread:
        told["seed_spread"] = spread
    return told


def _seeds_disagree(found: paper.PaperFit, spread: dict[str, float]) -> list[str]:
    """A sentence for every parameter whose path depends on the seed of a least-squares fit."""
    ends = [f"{loss:.2g}" for loss in found.losses if np.isfinite(loss)]
    return [
        f"The paths of {name} from {len(ends)} seeds differ by {100 * share:.0f} % (sd over seeds, relative to their mean) at losses of "
        f"{', '.join(ends)}; where these are alike, the populations do not determine the path, and its form is the start's."
        for name, share in spread.items()
        if share > 0.1
    ]


def _doubts(mode: point.Mode, then: str = "the fit is about one of them") -> list[str]:
    """Sentences on a mode that was not reached, or of which there are several, and what the method does about these."""
    if mode.converged:
        return _starts_disagree(mode, then)
    return [
        f"The mode search did not converge: it ended with a gradient of {mode.gradient_norm:.2g} (in posterior sds, where the curvature is known) "
        "at its limit of steps, or where no step helped.",
        *_starts_disagree(mode, then),
    ]


def _starts_disagree(mode: point.Mode, then: str) -> list[str]:
    """A sentence when the starts of the mode search ended in different places."""
    spread = np.ptp(mode.starts)
    ends = ", ".join(f"{-end:.1f}" for end in mode.starts)
    if mode.distance > point.APART:
        return [
            f"The mode search ended {mode.distance:.0f} posterior sds apart at similar log densities ({ends}); there are several modes, and {then}."
        ]
    if len(mode.starts) > 1 and spread > point.RIVAL:
        return [
            f"The mode search ended at different log densities from different starts ({ends}); "
            "there may be several modes, and the fit is about the highest."
        ]
    return []
