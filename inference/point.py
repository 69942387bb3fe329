"""Point estimates: the posterior mode with its curvature."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_mfg.errors import InputError
from bayes_mfg.models import Data, ForwardModel

from .coordinates import compiled, coordinates, potential, value_and_gradient
from .errors import FitError
from .objective import Expanded, Objective, differenced, first_order, nearest_solvable, refined, square_root
from .progress import bar
from .report_stats import of_networks, quantiles
from .sensitivity import Tilt, quadratic, tilted_quadratic, tilted_value_and_gradient

FEW = 30
"""Unknowns up to which first-order search and differences of the gradient are cheaper than compiling the sensitivities."""

MOST_DENSE = 600
"""Unknowns up to which the mode search takes sensitivities to all of them."""

NEAR = 0.1
"""Length of the Newton step left, in posterior sds, up to which a point is taken for the mode."""

RIVAL = 2.0
"""Nats below the best up to which the end of a start is a mode to be reckoned with."""

APART = 3.0
"""Posterior sds beyond which two ends are two modes."""


@dataclasses.dataclass(frozen=True)
class Mode:
    """A posterior mode in unconstrained coordinates.

    Attributes
    ----------
    location : `(size,)`.
    potential : negative log density there.
    covariance : inverse curvature `(size, size)`, positive definite; Gauss-Newton's where a search of second order got there by it, else exact, see
        `exact_curvature`.
    factor : `(size, size)` with `factor @ factor.T = covariance`.
    gradient_norm : of the potential in the metric of the covariance; about 0 at a mode.
    evaluations : gradients spent.
    failed_solves : points at which a solve failed on the way.
    starts : potentials that the starts ended with.
    distance : of the farthest end of a start whose potential is within 2 of the best, in the metric of the covariance; with networks, whose weights
        have many optima for one path, the largest difference of a path at any time (or of another unknown) in its sds.
    converged : whether the search ended at a minimum, and not at its limit of steps or where no step helped.
    flat : directions in which the curvature is flat, negative or could not be taken; they have unit scale.
    others : ends of starts `(m, size)` within `RIVAL` of the best and more than `APART` away from it and from one another, the most probable first.
    """

    location: np.ndarray
    potential: float
    covariance: np.ndarray
    factor: np.ndarray
    gradient_norm: float
    evaluations: int
    failed_solves: int
    starts: tuple[float, ...]
    distance: float
    converged: bool
    flat: int
    others: np.ndarray


def _sloped(model: ForwardModel, tilt: Tilt | None = None) -> Callable[[np.ndarray], Any]:
    """The potential of a model and its exact gradient, tilted where that is asked for."""
    if tilt is None:
        return lambda flat: value_and_gradient(model)(jnp.asarray(flat), model.data)
    return lambda flat: tilted_value_and_gradient(model)(jnp.asarray(flat), model.data, tilt)


def _expanded(model: ForwardModel, tilt: Tilt | None = None) -> Expanded:
    """The same with the Gauss-Newton curvature."""
    if tilt is None:
        return Expanded(lambda flat: quadratic(model)(jnp.asarray(flat), model.data), _sloped(model))
    return Expanded(lambda flat: tilted_quadratic(model)(jnp.asarray(flat), model.data, tilt), _sloped(model, tilt))


def flat_directions(mode: Mode) -> list[str]:
    """A sentence where the curvature at a mode says nothing."""
    return [
        f"The curvature at the mode says nothing in {mode.flat} of {mode.location.size} directions (flat, negative, or without equilibria beside the "
        "mode); these have the prior's unit scale."
    ][: bool(mode.flat)]


def find_mode(
    model: ForwardModel,
    *,
    seed: int = 0,
    starts: int = 3,
    start: np.ndarray | None = None,
    screened: int = 0,
    max_steps: int = 500,
    curvature: bool = True,
    progress: bool | None = None,
) -> Mode:
    """Posterior mode in unconstrained coordinates, and the curvature there.

    With more than `FEW` unknowns second order: a trust region on the Gauss-Newton curvature from exact forward sensitivities (`sensitivity.py`), from
    the prior median and from prior draws, and BFGS where that creeps, as it does where a model fits badly. With few, compiling those takes longer
    than it saves, and beyond `MOST_DENSE` there are too many: L-BFGS then, and with several equilibria, refined in coordinates whitened by the
    curvature at its end, which central differences of the exact gradient give.

    Parameters
    ----------
    model : the model.
    seed : of the prior draws.
    starts : number of starts, at least 1, or with a `start` of one's own at least 0.
    start : `(size,)`, one start more, before the others, such as the mode of a model that is like this one.
    screened : the prior draws among the starts are the most probable of so many, with those left out at which a solve fails; 0 takes them as they
        come.
    max_steps : iterations per start.
    curvature : whether the curvature is needed; beyond `MOST_DENSE` unknowns a mode without it is much cheaper, and its covariance is the identity.
    progress : show a progress bar; by default on a terminal only.

    Raises
    ------
    InputError : for a start of another shape, no start at all, and for screened draws of which none can be a start.
    FitError : when no start reaches a point at which every equilibrium is found.
    """
    if starts < (start is None):
        raise InputError(f"find_mode: starts is {starts}; at least 1 is needed, or a start.")
    if screened and starts < 2:
        raise InputError(
            f"find_mode: screened is {screened}, but starts is 1, the prior median alone; starts of at least 2 are needed."
        )
    space = coordinates(model)
    centre = space.prior_median()
    points = [centre]
    if start is not None:
        if np.shape(start) != (space.size,) or not np.all(np.isfinite(start)):
            raise InputError(f"find_mode: start has shape {np.shape(start)}; {space.size} finite numbers are needed.")
        points = [np.asarray(start, float), centre][: 1 + starts]
    keys = jax.random.split(jax.random.key(seed), max(starts - 1, screened, 0))
    draws = [np.asarray(space.unconstrain(space.draw_prior(key))) for key in keys]
    # Between several equilibria the Gauss-Newton curvature jumps where another becomes the most probable, and the search may stop short.
    smooth = getattr(model, "branches", None) is None
    objective = _expanded(model) if smooth and FEW < space.size <= MOST_DENSE else Objective(_sloped(model))
    minimise = objective.minimise if isinstance(objective, Expanded) else functools.partial(first_order, objective)
    points += _most_probable(model, draws, progress)[: starts - 1] if screened else draws
    ends = []
    with bar(len(points) + 1, "mode", progress) as shown:
        for point in points:
            solvable = nearest_solvable(objective, point, centre)
            if solvable is not None:
                begin, height = solvable
                end = minimise(begin, max_steps)
                # A line search that gives up may leave off where solves fail.
                ends.append(end if end[0] <= height else (height, begin, True))
            shown.update()
        if not ends:
            raise FitError(
                "No start of the mode search reached parameters at which all equilibria were found; narrow the priors or start nearer the data."
            )
        _, best, limited = min(ends, key=lambda end: end[0])
        flat, measured = 0, True
        if isinstance(objective, Expanded):
            # Where Gauss-Newton crept it is no measure of the curvature either.
            exact = curvature and objective.crept
            covariance, factor, flat = exact_curvature(model, best) if exact else square_root(objective.at(best)[2])
        elif curvature or space.size <= FEW:
            best, covariance, factor, flat = refined(objective, best, max_steps)
        else:
            covariance = factor = np.eye(space.size)
            measured = False
        shown.update()
    value, gradient = objective(best)
    left = float(np.linalg.norm(factor.T @ gradient))
    level = min(end[0] for end in ends) + RIVAL
    rivals = [end for height, end, _ in sorted(ends, key=lambda end: end[0]) if height <= level]
    apart = _distances(model, factor, best, rivals)
    return Mode(
        best,
        value,
        covariance,
        factor,
        left,
        objective.evaluations,
        objective.failures,
        tuple(end[0] for end in ends),
        float(np.max(apart, initial=0.0)),
        # Without a curvature a gradient has no scale: then the search's own limit has to tell.
        left <= NEAR if measured else not limited,
        flat,
        _distinct(model, factor, best, [end for end, far in zip(rivals, apart, strict=True) if far > APART]),
    )


PATH_DRAWS = 200
"""Draws around a mode from which the sds of paths are taken."""


def _distances(model: ForwardModel, factor: np.ndarray, centre: np.ndarray, ends: list[np.ndarray]) -> np.ndarray:
    """How far some ends lie from a centre, in posterior sds; see `Mode.distance`."""
    space = coordinates(model)
    hidden = of_networks(space.names)
    far = [float(np.linalg.norm(np.linalg.solve(factor, end - centre))) for end in ends]
    if not any(far) or not hidden.any():
        return np.array(far)
    networks = {name.split("/")[0] for name, is_hidden in zip(space.names, hidden, strict=True) if is_hidden}
    rest = np.array([name.split("/")[0] not in networks for name in space.names])

    def paths(flat: Array, data: Data) -> dict[str, Array]:
        found = model.trajectories(space.latents(space.constrain(flat), data), data).parameters
        return {name: found[name] for name in networks}

    along = compiled(model, "network_paths", lambda: jax.jit(jax.vmap(paths, in_axes=(0, None))))
    around = centre + np.random.default_rng(0).standard_normal((PATH_DRAWS, centre.size)) @ factor.T
    values = along(jnp.asarray(np.concatenate([[centre], ends, around])), model.data)
    joint = np.concatenate([np.reshape(value, (len(value), -1)) for value in values.values()], axis=1)
    low, high = quantiles(joint[1 + len(ends) :], (0.1587, 0.8413))  # tails of a path behind a link are heavy
    with np.errstate(divide="ignore", invalid="ignore"):
        along_paths = np.nan_to_num(np.abs(joint[1 : 1 + len(ends)] - joint[0]) / (0.5 * (high - low))).max(axis=1)
    sds = np.linalg.norm(factor, axis=1)[rest]
    elsewhere = [float(np.max(np.abs(end - centre)[rest] / sds, initial=0.0)) for end in ends]
    return np.maximum(along_paths, elsewhere)


def _distinct(model: ForwardModel, factor: np.ndarray, best: np.ndarray, ends: list[np.ndarray]) -> np.ndarray:
    """Of ends that are far from the best, those that are far from one another, too, `(m, size)`; the first of each group."""
    found: list[np.ndarray] = []
    while ends:
        found.append(ends[0])
        far = _distances(model, factor, ends[0], ends)
        ends = [end for end, distance in zip(ends, far, strict=True) if distance > APART]
    return np.array(found).reshape(len(found), best.size)


@dataclasses.dataclass(frozen=True)
class Descent:
    """The end of one search for the minimum of a tilted potential.

    Attributes
    ----------
    location : `(size,)`; None where no point on the way from the start to the prior median has all equilibria.
    converged : whether it ended at a minimum, and not at its limit of steps or where no step helped.
    evaluations, failed_solves : as in `Mode`.
    """

    location: np.ndarray | None
    converged: bool
    evaluations: int
    failed_solves: int


def descend(model: ForwardModel, start: np.ndarray, tilt: Tilt, *, max_steps: int = 500) -> Descent:
    """Minimum of a tilted potential from one start, of second order wherever that can be; compiled once for all tilts.

    Parameters
    ----------
    model : the model.
    start : `(size,)`; where its equilibria are not found, the search sets out nearer to the prior median.
    tilt : the linear terms.
    max_steps : iterations.
    """
    smooth = getattr(model, "branches", None) is None
    objective = _expanded(model, tilt) if smooth and len(start) <= MOST_DENSE else Objective(_sloped(model, tilt))
    solvable = nearest_solvable(objective, start, coordinates(model).prior_median())
    if solvable is None:
        return Descent(None, False, objective.evaluations, objective.failures)
    begin, height = solvable
    if isinstance(objective, Expanded):
        end, location, _ = objective.minimise(begin, max_steps)
        location = location if end <= height else begin
        _, gradient, curvature = objective.at(location)
        converged = bool(np.linalg.norm(square_root(curvature)[1].T @ gradient) <= NEAR)
    else:
        end, location, limited = first_order(objective, begin, max_steps)
        location, converged = (location, not limited) if end <= height else (begin, False)
    return Descent(location, converged, objective.evaluations, objective.failures)


def _most_probable(model: ForwardModel, points: list[np.ndarray], progress: bool | None) -> list[np.ndarray]:
    """The points at which all solves succeed, the most probable first."""
    function = potential(model)
    heights = []
    with bar(len(points), "screening", progress) as shown:
        for point in points:
            heights.append(float(function(jnp.asarray(point), model.data)))
            shown.update()
    return [points[k] for k in np.argsort(heights, kind="stable") if np.isfinite(heights[k])]


def exact_curvature(model: ForwardModel, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Inverse of the exact Hessian of the potential `(size, size)`, by central differences of the exact gradient, a square root, and flat directions.

    Directions that are flat or of negative curvature (`FLAT`), of which there are none at a mode, and those whose differences could not be taken get
    unit scale; the last value says how many these are.
    """
    return differenced(Objective(_sloped(model)), at)
