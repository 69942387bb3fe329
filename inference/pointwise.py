"""Log densities of single observations under a posterior, on demand and in chunks."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_mfg.data import Population
from bayes_mfg.equilibrium import Code
from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel

from .assemble import CHUNK, derived, mended, pointwise
from .options import whole

if TYPE_CHECKING:
    from .result import Fit


def log_likelihood(fit: "Fit", population: Population | None = None, *, chunk: int = CHUNK) -> xr.DataArray:
    """Log density of every observation under every posterior draw, of the fit's own data or of others of the same shape.

    A fit keeps those of its own data in `fit.tree["log_likelihood"]`, without the observations whose density is the same in every draw; here they are
    all. With several `branches` the equilibrium is one drawn by its probability given the draw and the data.

    Memory: `chunk` solves of all trajectories at a time, and a few copies of the result, 8 bytes for each draw of each cell of the record.

    Parameters
    ----------
    fit : a fit with its model.
    population : other data with the times, states and number of trajectories of the fit's own (see `ForwardModel.with_population`); what is masked
        may differ. By default the fit's own.
    chunk : draws that are solved at once, at most 100.

    Returns
    -------
    DataArray
        (chain, draw, observation), with the coordinates `trajectory`, `time` and, where each state is an observation of its own, `state`.

    Raises
    ------
    InputError : when the fit has no model, or population or chunk do not fit.
    FitError : when more than 1 % of the draws have no equilibrium; those of fewer are replaced by neighbours.
    """
    model = needed(fit, "log_likelihood")
    if not (whole(chunk) and 1 <= chunk <= CHUNK):
        raise InputError(f"log_likelihood: chunk is {chunk!r}; a whole number from 1 to {CHUNK} is needed.")
    if population is not None:
        model = model.with_population(population)
    flat = fit.tree["unconstrained_posterior"]["latent"].to_numpy()
    values = evaluated(model, flat.reshape(-1, flat.shape[-1]), int(fit.tree.attrs["seed"]), lambda log, _: log, chunk)
    kept = values.reshape(*flat.shape[:2], *values.shape[1:])
    source = mended(np.isnan(kept.reshape(*flat.shape[:2], -1)).any(axis=-1))
    return pointwise(model, values[source.reshape(-1)], (flat.shape[0], flat.shape[1]))


def needed(fit: "Fit", what: str) -> ForwardModel:
    """The fit's model.

    Raises
    ------
    InputError : when it was loaded without.
    """
    if fit.model is None:
        raise InputError(f"This fit was loaded without its model; use load(path, model=...) for {what}.")
    return fit.model


def independent_in_time(model: ForwardModel, where: str, instead: str) -> None:
    """Refuse an observation model whose errors persist, where rows of a trajectory are taken apart.

    Raises
    ------
    InputError : saying what to do instead.
    """
    if model.observation.persists:
        raise InputError(
            f"{where}: errors of this model's observations persist, so that rows of a trajectory are no evidence of their own; {instead}."
        )


def evaluated(
    model: ForwardModel,
    flat: np.ndarray,
    seed: int,
    reduce: Callable[[np.ndarray, np.ndarray], np.ndarray],
    chunk: int = CHUNK,
) -> np.ndarray:
    """What `reduce` makes of the log densities `(n, R, T[, k])` of the record and of what summing over several branches adds, `(n, R)`.

    NaN where a draw has no equilibrium. Unobserved cells have log density 0.
    """
    parts = []
    for first in range(0, len(flat), chunk):
        some = flat[first : first + chunk]
        # The last chunk is filled up, so that one compiled function serves all.
        filled = some if len(flat) <= chunk else np.concatenate([some, np.repeat(some[-1:], chunk - len(some), axis=0)])
        result = derived(model, filled, seed + first)
        mask = np.asarray(model.data.record.mask)
        log = np.where(mask, result["log_likelihood"], 0.0)
        lost = (result["solver/code"] != Code.CONVERGED).any(axis=-1)
        log[lost] = np.nan
        added = result.get("correction", np.zeros((len(log), log.shape[1])))
        parts.append(reduce(log, added)[: len(some)])
    return np.concatenate(parts)
