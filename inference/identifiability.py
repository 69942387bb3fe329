"""What can the data of a model tell about its unknowns? Exact sensitivities, expected information, and the prior."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel, describe

from .coordinates import coordinates
from .errors import FitError
from .identifiability_points import located
from .identifiability_result import Identifiability
from .identifiability_verdicts import CURVED, bent, directions, uneven, verdicts
from .identifiability_words import listing
from .linearised import Point, Widths, blocks, heavy_tailed, prior_scale, prior_spread, rows, score_root, widths
from .options import whole
from .progress import bar
from .sensitivity import Sensitivities, sensitivities

UNCHECKED = "Whether the linearisation can be trusted was not checked (checked=0)."

MOST_DENSE = 1000
"""Unknowns up to which the sensitivities to all of them are kept."""


def identifiability(
    model: ForwardModel,
    at: Any = None,
    *,
    checked: int = 8,
    seed: int = 0,
    progress: bool | None = None,
) -> Identifiability:
    """What the data of a model can tell about its unknowns, before or after they are seen.

    The design is the model's own: its times, trajectories, sizes, gaps and observation model. The observed numbers themselves do not enter, but for
    initial populations that are taken from them, paths of the observed population, which is held as it was observed, and the choice between several
    `branches`; warnings tell of the latter two. With `J` the exact derivatives of the observation's distributions by the unconstrained coordinates,
    by forward mode through the equilibrium, `I` the expected Fisher information of these distributions and `L L'` the prior covariance of the
    coordinates, the singular values are those of `I^(1/2) J L`: sds of the observation per prior sd. Linearised, the posterior covariance is
    `L (1 + L' J' I J L)^-1 L'`, from which widths, verdicts and directions follow.

    Like every linearisation this is of one point: where the prior is wide, ask at several, such as draws of it. What a game declares as invariant
    and the unknowns can reach is named as such. Whether the linearisation can be trusted is asked of itself: at `checked` points of the linearised
    posterior the widths are computed once more, and should be the same.

    Parameters
    ----------
    model : the model. With several `branches` the one most probable by the observed numbers is taken as known, which overstates what the data say.
    at : the point: None (the prior median, coordinate by coordinate), a fit of this model (its mode, or the median of its draws), a dict of values by
        name - of parameters (numbers, or paths `(T, ...)` on the model's grid), of the observation model's own unknowns, of "mu0" - with the prior
        median for the rest; or an array `(size,)` of unconstrained coordinates.
    checked : points of the linearised posterior; 0 for none, which a warning tells.
    seed : of their draws.
    progress : show progress; by default on a terminal only.

    Returns
    -------
    Identifiability

    Raises
    ------
    InputError : for a model, a point or an option that does not fit, and in single precision, whose rounding looks like a trace.
    FitError : when there is no equilibrium at the point, or its derivatives are not finite.

    References
    ----------
    Spectra of prior-scaled information: Spantini, Solonen, Cui, Martin, Tenorio and Marzouk, Optimal low-rank approximations of Bayesian linear
    inverse problems, SIAM J. Sci. Comput. 37 (2015), arXiv 1407.3463. Thresholds of verdicts: own derivation, see `identifiability_words.IDENTIFIED`.
    """
    if not isinstance(model, ForwardModel):
        raise InputError(
            f"identifiability: model is {type(model).__name__}; a bayes_mfg.models.Calibration (or NeuralODE) is needed."
        )
    if jnp.zeros(()).dtype != jnp.float64:
        raise InputError('identifiability: double precision is needed; jax.config.update("jax_enable_x64", True) first.')
    if model.joint is not None:
        raise InputError(
            "identifiability: the model has one prior of all unknowns together (with_prior); look at it before that."
        )
    for name, value, least in (("checked", checked, 0), ("seed", seed, 0)):
        if not whole(value) or value < least:
            raise InputError(f"identifiability: {name} is {value!r}; a whole number of at least {least} is needed.")
    space = coordinates(model)
    if not 1 <= space.size <= MOST_DENSE:
        raise InputError(f"identifiability: the model has {space.size} unknowns; from 1 to {MOST_DENSE} can be looked at.")
    point, name, told = located(model, at, "identifiability")
    scale, parts = prior_scale(model), blocks(model)
    with bar(1 + checked, "identifiability", progress) as shown:
        first, fault = _at(model, point, scale, parts)
        shown.update()
        if first is None:
            raise FitError(f"{fault} at {name}; identifiability needs one that has both: give another point by at=...")
        covariance = posterior(first.score)
        curved, lost = _curvature(model, point, scale, covariance, checked, seed, first.widths, parts, shown)
    if not checked:
        told.append(UNCHECKED)
    if lost:
        told.append(
            f"{lost} of {checked} points of the linearised posterior have no equilibrium or no finite derivatives: it reaches too far."
        )
    if getattr(model, "branches", None) is not None:
        told.append(
            "Which of several equilibria each trajectory follows is decided by the observed numbers and taken as known here: the data say less "
            "than this."
        )
    if seeing := [n for n, path in model.bound.items() if path.needs_observed]:
        told.append(
            f"The path of {listing(seeing)} is one of the observed population, held as it was observed: the observed numbers enter, and other data "
            "of the same design would say something else."
        )
    unknowns = first.unknowns
    spread = prior_spread(model, {n: u.values for n, u in unknowns.items()})
    told += [
        f"The prior of {n} has tails so heavy that its draws agree on no sd; half of the width of its central 68 % stands for it."
        for n in heavy_tailed(model)
    ]
    told += uneven(model, unknowns, scale, spread)
    every = directions(model, first, scale, parts)
    judged = verdicts(model, first, curved, every, scale, parts, spread)
    told += [bent(model, n, unknowns[n], v) for n, v in judged.items() if (v.curved > CURVED).any()]
    after = scale @ covariance @ scale.T
    return Identifiability(
        at=name,
        singular_values=np.linalg.svd(first.score, compute_uv=False),
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


def _at(model: ForwardModel, point: np.ndarray, scale: np.ndarray, parts: dict[str, np.ndarray]) -> tuple[Point | None, str]:
    """One point, or what is missing there."""
    found: Sensitivities = jax.tree.map(np.asarray, sensitivities(model)(jnp.asarray(point), model.data))
    if not bool(found.found):
        return None, "No equilibrium was found"
    score = score_root(model, found) @ scale if _finite(found) else np.full((1, 1), np.nan)
    if not np.isfinite(score).all():
        return None, "There are no finite derivatives"
    unknowns = rows(model, found)
    return Point(score, unknowns, widths(score, scale, unknowns, parts), found), ""


def _finite(found: Sensitivities) -> bool:
    return all(np.isfinite(x).all() for x in jax.tree.leaves((found.implied, found.moved)))


def posterior(score: np.ndarray) -> np.ndarray:
    """Covariance of whitened coordinates, `(1 + A' A)^-1`."""
    _, s, vectors = np.linalg.svd(score)
    return (vectors.T / (1.0 + s**2)) @ vectors


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
    around = point + (normal * np.sqrt(np.maximum(values, 0.0))) @ vectors.T @ scale.T
    every = []
    for there in around:
        found, _ = _at(model, there, scale, parts)
        shown.update()
        every += [found.widths] if found is not None else []
    return {name: factors(width, [w[name] for w in every], count) for name, width in centre.items()}, count - len(every)


def factors(centre: Widths, others: list[Widths], count: int) -> np.ndarray:
    """Root mean square factors between sds at other points and at the centre: infinite where a point has none, NaN where nobody looked.

    NaN, too, where the centre has none.
    """
    if not others:
        return np.full_like(centre.posterior, np.inf if count else np.nan)
    found = np.exp(np.sqrt(np.mean(np.square([0.5 * np.log(w.posterior / centre.posterior) for w in others]), axis=0)))
    return np.where(np.isnan(found) & np.isfinite(centre.posterior), np.inf, found)
