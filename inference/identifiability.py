"""What can the data of a model tell about its unknowns? Exact sensitivities, expected information, and the prior."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel, describe

from .coordinates import coordinates
from .errors import FitError
from .identifiability_points import drawn, located
from .identifiability_result import Identifiability
from .identifiability_verdicts import CURVED, bent, directions, verdicts
from .linearised import Point, Widths, blocks, prior_scale, rows, score_root, widths
from .options import whole
from .progress import bar
from .sensitivity import Sensitivities, sensitivities

MOST_DENSE = 1000
"""Unknowns up to which the sensitivities to all of them are kept."""


def identifiability(
    model: ForwardModel,
    at: Any = None,
    *,
    draws: int = 50,
    checked: int = 8,
    seed: int = 0,
    progress: bool | None = None,
) -> Identifiability:
    """What the data of a model can tell about its unknowns, before or after they are seen.

    The design is the model's own: its times, trajectories, sizes, gaps and observation model; the observed numbers themselves do not enter (but for
    initial populations that are taken from them). With `J` the exact derivatives of the observation's distributions by the unconstrained coordinates,
    by forward mode through the equilibrium, `I` the expected Fisher information of these distributions and `L L'` the prior covariance of the
    coordinates, the singular values are those of `I^(1/2) J L`: sds of the observation per prior sd. Linearised, the posterior covariance is
    `L (1 + L' J' I J L)^-1 L'`, from which widths, verdicts and directions follow.

    What a game declares as invariant and the unknowns can reach is named as such. Whether the linearisation can be trusted is asked of itself: at
    `checked` points of the linearised posterior the widths are computed once more, and should be the same.

    Parameters
    ----------
    model : the model. With several `branches` the most probable one is taken as known, which overstates what the data say.
    at : the point: None (the prior median, coordinate by coordinate), a fit of this model (its mode, or the median of its draws), a dict of values by
        name - of parameters (numbers, or paths `(T, ...)` on the model's grid), of the observation model's own unknowns, of "mu0" - with the prior
        median for the rest; an array `(size,)` of unconstrained coordinates; or "prior", which averages over draws.
    draws : of the prior, for `at="prior"`. What is averaged are posterior covariances, over prior covariances.
    checked : points of the linearised posterior; 0 for none.
    seed : of all draws.
    progress : show progress; by default on a terminal only.

    Returns
    -------
    Identifiability

    Raises
    ------
    InputError : for a model, a point or an option that does not fit.
    FitError : when there is no equilibrium at the point, or at none of the draws.

    References
    ----------
    Spectra of prior-scaled information: Spantini, Solonen, Cui, Martin, Tenorio and Marzouk, Optimal low-rank approximations of Bayesian linear
    inverse problems, SIAM J. Sci. Comput. 37 (2015), arXiv 1407.3463. Thresholds of verdicts: own derivation, see `identifiability_words.IDENTIFIED`.
    """
    if not isinstance(model, ForwardModel):
        raise InputError(
            f"identifiability: model is {type(model).__name__}; a bayes_mfg.models.Calibration (or NeuralODE) is needed."
        )
    for name, value, least in (("draws", draws, 1), ("checked", checked, 0), ("seed", seed, 0)):
        if not whole(value) or value < least:
            raise InputError(f"identifiability: {name} is {value!r}; a whole number of at least {least} is needed.")
    space = coordinates(model)
    if not 1 <= space.size <= MOST_DENSE:
        raise InputError(f"identifiability: the model has {space.size} unknowns; from 1 to {MOST_DENSE} can be looked at.")
    averaged = isinstance(at, str)
    points, name, told = drawn(model, at, draws, seed) if averaged else located(model, at)
    scale, parts = prior_scale(model), blocks(model)
    with bar(len(points) + (0 if averaged else checked), "identifiability", progress) as shown:
        good = [one for one in _at_all(model, points, scale, parts, shown) if one is not None]
        if not good:
            raise FitError(f"No equilibrium was found at {name}; identifiability needs one: give another point by at=...")
        failed = len(points) - len(good)
        average = _average([g.widths for g in good])
        score = good[0].score if not averaged else _effective([g.score for g in good])
        covariance = _posterior(score)
        curved = {key: np.ones_like(w.posterior) for key, w in average.items()}
        if checked and not averaged:
            more, lost = _curvature(model, points[0], scale, covariance, checked, seed, average, parts, shown)
            curved = more
            if lost:
                told.append(
                    f"At {lost} of {checked} points of the linearised posterior there is no equilibrium: it reaches too far."
                )
    if failed:
        told.append(f"At {failed} of {len(points)} draws of the prior the solver finds no equilibrium; they are left out.")
    if getattr(model, "branches", None) is not None:
        told.append("Which of several equilibria each trajectory follows is taken as known here: the data say less than this.")
    first = good[0]
    unknowns = first.unknowns
    every = directions(model, first, score, scale, parts)
    judged = verdicts(model, unknowns, average, curved, every, scale, parts)
    told += [bent(model, n, unknowns[n], v) for n, v in judged.items() if np.nanmax(v.curved) > CURVED]
    after = scale @ covariance @ scale.T
    return Identifiability(
        at=name,
        draws=len(points),
        failed_solves=failed,
        singular_values=np.linalg.svd(score, compute_uv=False),
        directions=tuple(direction for direction, _ in every),
        verdicts=judged,
        times=np.asarray(model.grid.times),
        sd={n: np.sqrt(np.einsum("ij,jk,ik->i", u.slopes, after, u.slopes)).reshape(u.values.shape) for n, u in unknowns.items()},
        values={n: u.values for n, u in unknowns.items()},
        coordinates=list(space.names),
        prior_covariance=scale @ scale.T,
        covariance=after,
        warnings=tuple(told),
        model=describe(model),
    )


def _at_all(
    model: ForwardModel, points: list[np.ndarray], scale: np.ndarray, parts: dict[str, np.ndarray], shown: Any
) -> Iterator[Point | None]:
    """Each point in turn; None where an equilibrium was not found."""
    function = sensitivities(model)
    for point in points:
        found: Sensitivities = jax.tree.map(np.asarray, function(jnp.asarray(point), model.data))
        shown.update()
        if not bool(found.found) or not all(np.isfinite(x).all() for x in jax.tree.leaves((found.implied, found.moved))):
            yield None
            continue
        score, unknowns = score_root(model, found) @ scale, rows(model, found)
        yield Point(score, unknowns, widths(score, scale, unknowns, parts), found)


def _average(every: list[dict[str, Widths]]) -> dict[str, Widths]:
    """Means of ratios of variances."""
    return {
        name: Widths(
            np.mean([w[name].posterior for w in every], axis=0),
            np.mean([w[name].alone for w in every], axis=0),
            {other: np.mean([w[name].given[other] for w in every], axis=0) for other in first.given},
        )
        for name, first in every[0].items()
    }


def _posterior(score: np.ndarray) -> np.ndarray:
    """Covariance of whitened coordinates, `(1 + A' A)^-1`."""
    _, s, vectors = np.linalg.svd(score)
    return (vectors.T / (1.0 + s**2)) @ vectors


def _effective(scores: list[np.ndarray]) -> np.ndarray:
    """The root of information whose posterior covariance is the mean of the given ones'."""
    values, vectors = np.linalg.eigh(np.mean([_posterior(score) for score in scores], axis=0))
    return np.sqrt(np.maximum(1.0 / np.clip(values, 1e-300, 1.0) - 1.0, 0.0))[:, None] * vectors.T


def _curvature(
    model: ForwardModel,
    point: np.ndarray,
    scale: np.ndarray,
    covariance: np.ndarray,
    count: int,
    seed: int,
    centre: dict[str, Widths],
    parts: dict[str, np.ndarray],
    shown: Any,
) -> tuple[dict[str, np.ndarray], int]:
    """Root mean square factors between the sds at points of the linearised posterior and at its centre, and the points without equilibria."""
    values, vectors = np.linalg.eigh(covariance)
    normal = np.random.default_rng(seed).standard_normal((count, len(point)))
    around = list(point + (normal * np.sqrt(np.maximum(values, 0.0))) @ vectors.T @ scale.T)
    every = [found.widths for found in _at_all(model, around, scale, parts, shown) if found is not None]
    factors = {}
    for name, width in centre.items():
        logs = [0.5 * np.log(w[name].posterior / width.posterior) for w in every]
        factors[name] = np.exp(np.sqrt(np.mean(np.square(logs), axis=0))) if logs else np.full_like(width.posterior, np.inf)
    return factors, count - len(every)
