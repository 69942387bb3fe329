"""One replicate of a study: a truth, its data, a fit, and how far the fit is from the truth."""

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from bayes_mfg.equilibrium import Code
from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel

from .assemble import derived
from .checks import _underflown, _with
from .coordinates import compiled, coordinates
from .errors import FitError
from .fit import draw
from .identifiability_points import located
from .scores import crps_of_draws

MOST_DRAWS = 1000
"""Draws of a fit that are scored."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """`(seed, **cell) -> scores` of models whose truths are drawn from their priors, or given.

    The scores, with `p` the path of an unknown parameter, over all unknown parameters, trajectories and grid times up to the last datum:

    - `gamma_error`: `||median - p|| / ||p||`;
    - `coverage90`, `width90`: part of the values inside the central 90 % band, and its mean width over the mean size of the truth; NaN of points;
    - `crps`: continuous ranked probability score, mean, in the parameters' units; of a point its distance;
    - `mu_error`: mean over trajectories and observed times of `sum_x (m - mu)^2`, with the posterior mean `m` of the population and the true one;
    - `noise_floor`: the same of what was recorded in place of `m`, over what was observed, as shares;
    - `failed_solves`: draws without an equilibrium, which are left out of the scores; `pareto_k`, `diverging` where the method has them;
    - `fit_seconds`: of the fit; the first of a process includes compiling.

    Attributes
    ----------
    model_of : `(**cell) -> model`.
    method, options : of `fit`.
    truth : values by name, None for draws from the prior.
    """

    model_of: Callable[..., ForwardModel]
    method: str
    truth: dict[str, Any] | None
    options: Mapping[str, Any]

    def __call__(self, seed: int, **cell: Any) -> dict[str, Any]:
        """Scores of one replicate.

        Raises
        ------
        InputError : where the function gives no model.
        FitError : where a truth has no equilibrium, data are out of range, or the fit fails.
        """
        model = _model(self.model_of, json.dumps(cell))
        point = _truth(model, self.truth, seed)
        true = derived(model, point[None], seed + 1, given_data=False)
        if np.any(true["solver/code"] != Code.CONVERGED):
            raise FitError("no equilibrium at the truth")
        recorded = true["replicate"][0]
        record = model.data.record
        mask = np.asarray(record.mask)
        seen = np.broadcast_to(mask if mask.ndim == 3 else mask[..., None], recorded.shape)
        if _underflown(np.where(seen, recorded, 1)[None])[0]:
            raise FitError("data out of range: a share is too small for floating point numbers")
        mine = _with(model, np.where(seen, recorded, np.asarray(record.values)).astype(np.asarray(record.values).dtype))
        begin = time.perf_counter()
        flat, stats, settings, _ = draw(mine, self.method, seed=seed, progress=False, **self.options)
        if settings.get("interrupted"):
            raise KeyboardInterrupt
        seconds = time.perf_counter() - begin
        flat = flat.reshape(-1, flat.shape[-1])
        flat = flat[np.linspace(0, len(flat) - 1, min(len(flat), MOST_DRAWS)).round().astype(int)]
        implied = derived(mine, flat, seed)
        good = (implied["solver/code"] == Code.CONVERGED).all(axis=-1)
        if not good.any():
            raise FitError("no draw of the fit has an equilibrium")
        found = judged(model, true, {name: x[good] for name, x in implied.items()})
        if "diverging" in (stats or {}):
            found["diverging"] = int(np.sum((stats or {})["diverging"]))
        if "pareto_k" in settings:
            found["pareto_k"] = float(settings["pareto_k"])
        floor = _floor(model, true["mu"][0], recorded, seen)
        return {**found, "noise_floor": floor, "failed_solves": int((~good).sum()), "fit_seconds": seconds}


@functools.lru_cache(maxsize=2)
def _model(model_of: Callable[..., ForwardModel], cell: str) -> ForwardModel:
    """The model of a cell, made and compiled once while the cell is worked on."""
    model = model_of(**json.loads(cell))
    if not isinstance(model, ForwardModel):
        raise InputError(f"study: the function gave {type(model).__name__}; a bayes_mfg.models.Calibration is needed.")
    if any(path.needs_observed for path in model.bound.values()):
        raise InputError("study: a path takes the observed population as input; such a model cannot make data.")
    return model


def _truth(model: ForwardModel, given: dict[str, Any] | None, seed: int) -> np.ndarray:
    """Coordinates of a truth: a draw from the prior, in which what is given is known."""
    space = coordinates(model)
    if given is None:
        one = compiled(model, "prior_draw", lambda: jax.jit(lambda key: space.unconstrain(space.draw_prior(key))))
        return np.asarray(one(jax.random.key(seed)))
    return located(model, given, "study")[0]


def judged(model: ForwardModel, true: Mapping[str, np.ndarray], drawn: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Scores of parameters and populations, of draws with the leading axis `n`, against a truth with a leading axis of one."""
    last = int(np.searchsorted(model.grid.times, model.population.times[-1] * (1 + 1e-12)))
    square = size_square = 0.0
    inside, width, size, crps = [], [], [], []
    count = len(drawn["mu"])
    for name, path in model.bound.items():
        if not path.priors:
            continue
        axis = 1 + int(model.varies_by_trajectory(name))
        here = [0] if path.is_constant else np.arange(max(last, 1))
        truth = true[f"parameter/{name}"].take(here, axis=axis)[0].reshape(-1)
        some = drawn[f"parameter/{name}"].take(here, axis=axis).reshape(count, -1)
        middle = np.median(some, axis=0)
        # A constant counts as much as a path: once for every time.
        weight = max(last, 1) if path.is_constant else 1
        square += weight * float(np.sum((middle - truth) ** 2))
        size_square += weight * float(np.sum(truth**2))
        low, high = np.quantile(some, (0.05, 0.95), axis=0)
        inside.append(float(np.mean((low <= truth) & (truth <= high))))
        width.append(float(np.mean(high - low)))
        size.append(float(np.mean(np.abs(truth))))
        crps.append(float((crps_of_draws(some, truth) if count > 1 else np.abs(some[0] - truth)).mean()))
    mean = drawn["mu"].mean(axis=0)
    rows = model.data_index
    return {
        "gamma_error": math.sqrt(square / size_square),
        "coverage90": float(np.mean(inside)) if count > 1 else math.nan,
        "width90": float(np.sum(width) / np.sum(size)) if count > 1 else math.nan,
        "crps": float(np.mean(crps)),
        "mu_error": float(np.mean(np.sum((mean[:, rows] - true["mu"][0][:, rows]) ** 2, axis=-1))),
    }


def _floor(model: ForwardModel, mu: np.ndarray, recorded: np.ndarray, seen: np.ndarray) -> float:
    """Mean over observed times of the squared distance of recorded shares and the true population, over the states that are looked at."""
    sizes = np.maximum(np.asarray(model.data.record.totals, float), 1.0)[..., None]
    index = [model.population.states.index(s) for s in model.columns if s in model.population.states]
    shares = (recorded / sizes)[..., : len(index)]
    off = np.where(seen[..., : len(index)], shares - mu[:, model.data_index][..., index], 0.0)
    rows = seen.any(axis=-1)
    return float(np.sum(off**2, axis=-1)[rows].mean()) if rows.any() else math.nan
