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
from bayes_mfg.paths.given import Tabulated

from .assemble import derived
from .checks import _underflown, _with
from .coordinates import prior_points
from .errors import FitError
from .fit import draw, refuse_options
from .identifiability_points import located
from .identifiability_words import listing
from .linearised import blocks
from .scores import crps_of_draws

MOST_DRAWS = 1000
"""Draws of a fit that are scored."""


@dataclasses.dataclass(frozen=True)
class Scored:
    """`(seed, **cell) -> scores` of models whose truths are drawn from their priors, or given.

    The scores, with `p` the path of an unknown parameter at all trajectories, entries and grid times up to the last datum:

    - `gamma_error`: `||median - p|| / ||p||` over all values of all unknown parameters; NaN where these are zero;
    - `coverage90`: part of the values inside the central 90 % band, of each unknown parameter, then the mean over parameters, so that a constant
      counts as much as a path of many trajectories; NaN of points;
    - `width90`: mean width of these bands, summed over unknown parameters, over the mean sizes of the true values, summed; NaN of points;
    - `crps`: continuous ranked probability score, of a point its distance: mean over the values of each unknown parameter in its own unit, then the
      plain mean over parameters, which only cells with the same unknowns have in common;
    - `mu_error`: mean over trajectories and observed times of `sum_x (m - mu)^2`, with the posterior mean `m` of the population and the true one;
    - `noise_floor`: the same of what was recorded in place of `m`, see `noise_floor`;
    - `failed_solves`: draws without an equilibrium, which are left out of the scores; `pareto_k`, `diverging` where the method has them;
    - `fit_seconds`: of the fit; the first of a process includes compiling.

    Attributes
    ----------
    model_of : `(**cell) -> model`.
    method, options : of `fit`.
    truth : values by name, None for draws from the prior. Data are simulated at given paths themselves, whether or not a family can follow them; what
        is not given is drawn from the prior.
    """

    model_of: Callable[..., ForwardModel]
    method: str
    truth: dict[str, Any] | None
    options: Mapping[str, Any]

    def check(self, cell: Mapping[str, Any]) -> None:
        """Refuse what would fail in every replicate, by the model of one cell.

        Raises
        ------
        InputError : for a function that makes no model of the cell, options that the method does not have, and truths that are none of the model's.
        """
        try:
            model = _model(self.model_of, json.dumps(cell))
        except InputError:
            raise
        except Exception as error:  # of whatever kind the user's function raises
            what = f"{type(error).__name__}: {error}"
            raise InputError(f"study: the function makes no model of the first cell, {dict(cell)}: {what}") from error
        refuse_options(model, self.method, self.options)
        if "start" in self.options:
            raise InputError("study: start is no option of the fits inside a study.")
        if self.truth is not None:
            _point(model, _followed(model, self.truth), self.truth, 0)

    def __call__(self, seed: int, **cell: Any) -> dict[str, Any]:
        """Scores of one replicate.

        Raises
        ------
        InputError : where the function gives no model.
        FitError : where a truth has no equilibrium, data are out of range, or the fit fails.
        """
        model = _model(self.model_of, json.dumps(cell))
        source = model if self.truth is None else _source(self.model_of, json.dumps(cell), _written(self.truth))
        true = derived(source, _point(model, source, self.truth or {}, seed)[None], seed + 1, given_data=False)
        for name in model.bound:
            if model.varies_by_trajectory(name) and not source.varies_by_trajectory(name):
                true[f"parameter/{name}"] = np.repeat(true[f"parameter/{name}"][:, None], model.population.n_trajectories, axis=1)
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
        return {
            **found,
            "noise_floor": noise_floor(mine, true["mu"][0]),
            "failed_solves": int((~good).sum()),
            "fit_seconds": seconds,
        }


@functools.lru_cache(maxsize=2)
def _model(model_of: Callable[..., ForwardModel], cell: str) -> ForwardModel:
    """The model of a cell, made and compiled once while the cell is worked on."""
    model = model_of(**json.loads(cell))
    if not isinstance(model, ForwardModel):
        raise InputError(f"study: the function gave {type(model).__name__}; a bayes_mfg.models.Calibration is needed.")
    if any(path.needs_observed for path in model.bound.values()):
        raise InputError("study: a path takes the observed population as input; such a model cannot make data.")
    return model


def _written(truth: Mapping[str, Any]) -> str:
    return json.dumps({name: np.asarray(x, float).tolist() for name, x in truth.items()})


@functools.lru_cache(maxsize=2)
def _source(model_of: Callable[..., ForwardModel], cell: str, truth: str) -> ForwardModel:
    """What simulates the data of a cell, made and compiled once while the cell is worked on."""
    return _followed(_model(model_of, cell), json.loads(truth))


def _followed(model: ForwardModel, given: Mapping[str, Any]) -> ForwardModel:
    """The model with given paths in place of its families, but under one prior of all unknowns together, which belongs to these.

    Raises
    ------
    InputError : for what is neither a path nor an unknown of the model, and values that its parameter cannot have.
    """
    known = list(dict.fromkeys([*model.bound, *blocks(model)]))
    for name in given:
        if name not in known:
            raise InputError(f"study: truth has {name!r}; the model has {listing(known)}.")
    paths = {name: Tabulated(x) for name, x in given.items() if name in model.bound}
    return model.with_paths(paths) if paths and model.joint is None else model


def _point(model: ForwardModel, source: ForwardModel, given: Mapping[str, Any], seed: int) -> np.ndarray:
    """Coordinates in `source` of a truth: a draw from the prior, in which what is given is known.

    Raises
    ------
    InputError : for values that the unknowns cannot have.
    """
    flat = np.array(prior_points(source, jax.random.key(seed)[None])[0])
    rest = {name: x for name, x in given.items() if source is model or name not in model.bound}
    if rest:
        at, _, told = located(source, rest, "study", "truth")
        if told:
            raise InputError(f"study: truth is none of this model's, whose unknowns have one prior together. {' '.join(told)}")
        parts = blocks(source)
        for name in rest:
            flat[parts[name]] = at[parts[name]]
    return flat


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
        # Of constants, too: a truth that is none of the family's may move.
        here = np.arange(max(last, 1))
        truth = true[f"parameter/{name}"].take(here, axis=axis)[0].reshape(-1)
        some = drawn[f"parameter/{name}"].take(here, axis=axis).reshape(count, -1)
        middle = np.median(some, axis=0)
        square += float(np.sum((middle - truth) ** 2))
        size_square += float(np.sum(truth**2))
        low, high = np.quantile(some, (0.05, 0.95), axis=0)
        inside.append(float(np.mean((low <= truth) & (truth <= high))))
        width.append(float(np.mean(high - low)))
        size.append(float(np.mean(np.abs(truth))))
        crps.append(float((crps_of_draws(some, truth) if count > 1 else np.abs(some[0] - truth)).mean()))
    mean = drawn["mu"].mean(axis=0)
    rows = model.data_index
    return {
        "gamma_error": math.sqrt(square / size_square) if size_square else math.nan,
        "coverage90": float(np.mean(inside)) if count > 1 else math.nan,
        "width90": float(np.sum(width) / np.sum(size)) if count > 1 and size_square else math.nan,
        "crps": float(np.mean(crps)),
        "mu_error": float(np.mean(np.sum((mean[:, rows] - true["mu"][0][:, rows]) ** 2, axis=-1))),
    }


def noise_floor(model: ForwardModel, mu: np.ndarray) -> float:
    """What the noise of a model's record makes of `mu_error`: mean over trajectories and observed times of `sum_x (recorded share - mu)^2`.

    The sum is over the states that the observation model looks at and that are seen at that time, where `mu_error` is over all states.

    Parameters
    ----------
    model : the model of the recorded data.
    mu : the true populations on its grid, `(R, T, d)`.
    """
    record = model.data.record
    recorded, mask = np.asarray(record.values, float), np.asarray(record.mask)
    seen = np.broadcast_to(mask if mask.ndim == 3 else mask[..., None], recorded.shape)
    sizes = np.maximum(np.asarray(record.totals, float), 1.0)[..., None]
    index = [model.population.states.index(s) for s in model.columns if s in model.population.states]
    shares = (recorded / sizes)[..., : len(index)]
    off = np.where(seen[..., : len(index)], shares - mu[:, model.data_index][..., index], 0.0)
    rows = seen.any(axis=-1)
    return float(np.sum(off**2, axis=-1)[rows].mean()) if rows.any() else math.nan
