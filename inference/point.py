"""Point estimates: the posterior mode with its curvature, and the windowed least-squares fit of the paper."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from jax import Array, lax

from bayes_mfg.equilibrium import Code
from bayes_mfg.models import Calibration, Data
from bayes_mfg.models.observations import Record

from .coordinates import coordinates, value_and_gradient
from .errors import FitError
from .progress import bar

log = logging.getLogger(__name__)

WORST = 1e10
"""Potential given to the optimiser where a solve fails, so that its line search turns back."""


@dataclasses.dataclass(frozen=True)
class Mode:
    """A posterior mode in unconstrained coordinates.

    Attributes
    ----------
    location : `(size,)`.
    potential : negative log density there.
    covariance : inverse curvature `(size, size)`, positive definite.
    factor : `(size, size)` with `factor @ factor.T = covariance`.
    gradient_norm : of the potential in the metric of the covariance; about 0 at a mode.
    evaluations : gradients spent.
    failed_solves : points at which a solve failed on the way.
    starts : potentials that the starts ended with.
    distance : of the farthest end of a start whose potential is within 2 of the best, in the metric of the covariance.
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


class _Objective:
    """The potential as scipy wants it, counting evaluations and failures."""

    def __init__(self, model: Calibration) -> None:
        self.function = value_and_gradient(model)
        self.data = model.data
        self.evaluations = 0
        self.failures = 0

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.function(jnp.asarray(flat), self.data)
        self.evaluations += 1
        value, gradient = float(value), np.asarray(gradient, dtype=float)
        if not (np.isfinite(value) and np.all(np.isfinite(gradient))):
            self.failures += 1
            return WORST, np.zeros_like(gradient)
        return value, gradient


def find_mode(model: Calibration, *, seed: int = 0, starts: int = 3, max_steps: int = 500, progress: bool | None = None) -> Mode:
    """Posterior mode in unconstrained coordinates, and the curvature there.

    L-BFGS from the prior median and from prior draws; the best end is refined in coordinates whitened by the curvature, which is taken from
    central differences of the exact gradient.

    Parameters
    ----------
    model : the model.
    seed : of the prior draws.
    starts : number of starts, at least 1.
    max_steps : L-BFGS iterations per start.
    progress : show a progress bar; by default on a terminal only.

    Raises
    ------
    FitError : when no start reaches a point at which every equilibrium is found.
    """
    space = coordinates(model)
    objective = _Objective(model)
    points = [space.prior_median()]
    keys = jax.random.split(jax.random.key(seed), max(starts - 1, 0))
    points += [np.asarray(space.unconstrain(space.draw_prior(key))) for key in keys]
    ends = []
    with bar(len(points) + 2, "mode", progress) as shown:
        for point in points:
            start = _solvable(objective, point, points[0])
            if start is not None:
                ends.append(_minimise(objective, start, max_steps))
            shown.update()
        if not ends:
            raise FitError(
                "No start of the mode search reached parameters at which all equilibria were found; narrow the priors or start nearer the data."
            )
        best = min(ends, key=lambda end: end[0])[1]
        covariance, factor = _curvature(objective, best)
        shown.update()
        # Whitened by the curvature the problem is round, and a second run converges to the mode in a few steps.
        for _ in range(3):
            _, step = _minimise(lambda x, at=best, by=factor: _whitened(objective, x, at, by), np.zeros(space.size), max_steps)
            best = best + factor @ step
            if np.linalg.norm(step) < 1e-2:
                break
            covariance, factor = _curvature(objective, best)
        shown.update()
    value, gradient = objective(best)
    level = min(end[0] for end in ends) + 2.0
    apart = [float(np.linalg.norm(np.linalg.solve(factor, end - best))) for height, end in ends if height <= level]
    return Mode(
        best,
        value,
        covariance,
        factor,
        float(np.linalg.norm(factor.T @ gradient)),
        objective.evaluations,
        objective.failures,
        tuple(end[0] for end in ends),
        max(apart),
    )


def _whitened(objective: _Objective, x: np.ndarray, at: np.ndarray, by: np.ndarray) -> tuple[float, np.ndarray]:
    value, gradient = objective(at + by @ x)
    return value, by.T @ gradient


def _solvable(objective: _Objective, point: np.ndarray, centre: np.ndarray) -> np.ndarray | None:
    """The point, or the first on the way to the prior's centre at which all solves succeed."""
    for share in (1.0, 0.5, 0.25, 0.0):
        candidate = centre + share * (point - centre)
        if objective(candidate)[0] < WORST:
            return candidate
    return None


def _minimise(objective: object, start: np.ndarray, max_steps: int) -> tuple[float, np.ndarray]:
    found = scipy.optimize.minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": max_steps, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-7}
    )
    return float(found.fun), np.asarray(found.x)


def _curvature(objective: _Objective, at: np.ndarray, step: float = 1e-4) -> tuple[np.ndarray, np.ndarray]:
    """Inverse Hessian and a square root of it; directions of negative or no curvature get the prior's unit scale.

    Coordinates are of order one under the prior, so one step length serves all. It is the preconditioner of samplers, which needs three
    digits, and central differences of an exact gradient give six.
    """
    size = at.size
    hessian = np.empty((size, size))
    for k in range(size):
        width = step
        for _ in range(4):
            shift = np.zeros(size)
            shift[k] = width
            (high, up), (low, down) = objective(at + shift), objective(at - shift)
            if max(high, low) < WORST:
                break
            width /= 10
        hessian[k] = (up - down) / (2 * width)
    hessian = 0.5 * (hessian + hessian.T)
    values, vectors = np.linalg.eigh(hessian)
    values = np.where(values > 1e-2, values, 1.0)
    factor = vectors / np.sqrt(values)
    return factor @ factor.T, factor


@dataclasses.dataclass(frozen=True)
class PaperFit:
    """Result of the windowed least-squares fit.

    Attributes
    ----------
    location : unconstrained coordinates of the best checkpoint, `(size,)`.
    losses : mean loss of every epoch.
    loss : full-horizon mean squared error of the checkpoint, per time, summed over states.
    skipped : updates skipped because a solve failed.
    """

    location: np.ndarray
    losses: np.ndarray
    loss: float
    skipped: int


def fit_paper(
    model: Calibration,
    *,
    seed: int = 0,
    epochs: int = 500,
    learning_rate: float = 1e-3,
    batch: int = 10,
    window: float = 0.2,
    progress: bool | None = None,
) -> PaperFit:
    """Least squares in random windows with Adam, as in arXiv 2606.23155; priors play no part.

    Every step takes a minibatch of trajectories, solves their equilibria over the whole horizon and compares `mu` with the recorded shares on a
    random window of the observed times. The checkpoint with the lowest loss over the whole horizon is kept.

    Parameters
    ----------
    model : the model; its observation model says which cells count, its likelihood is not used.
    seed : of the initial point (a prior draw of the paths), windows and batches.
    epochs : passes over the trajectories.
    learning_rate : of Adam.
    batch : trajectories per step.
    window : share of the observed times in a window, in (0, 1].
    progress : show a progress bar; by default on a terminal only.

    Raises
    ------
    FitError : when no epoch ends at parameters whose equilibria are all found.
    """
    space = coordinates(model)
    data = model.data
    record, weights = _shares_of(model)
    trajectories, times = record.shape[:2]
    size = min(batch, trajectories)
    steps = max(1, trajectories // size)
    length = max(1, round(window * times))
    optimiser = optax.adam(learning_rate)

    def loss(flat: Array, rows: Array, weight: Array, data: Data) -> Array:
        latents = space.latents(space.constrain(flat), data)
        latents = {**latents, "mu0": latents["mu0"][rows]}
        part = Data(Record(*(x[rows] for x in data.record)), data.initial[rows], data.observed[rows])
        result = model.trajectories(latents, part)
        failed = jnp.any(result.code != Code.CONVERGED)
        squared = weight * (result.mu[:, model.data_index][..., model.state_index] - record[rows]) ** 2
        # Mean over trajectories and over the times that carry weight, sum over states.
        per_time = jnp.maximum(jnp.sum(jnp.any(weight > 0, axis=-1)), 1)
        return jnp.where(failed, jnp.nan, jnp.sum(squared) / per_time)

    def step(carry: tuple, inputs: tuple[Array, Array]) -> tuple[tuple, Array]:
        flat, state, skipped = carry
        rows, first = inputs
        inside = (jnp.arange(times) >= first) & (jnp.arange(times) < first + length)
        value, gradient = jax.value_and_grad(loss)(flat, rows, weights[rows] * inside[None, :, None], data)
        fine = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        updates, new_state = optimiser.update(jnp.where(fine, gradient, 0.0), state, flat)
        flat = jnp.where(fine, optax.apply_updates(flat, updates), flat)
        state = jax.tree.map(lambda new, old: jnp.where(fine, new, old), new_state, state)
        return (flat, state, skipped + ~fine), value

    @jax.jit
    def epoch(carry: tuple, key: Array) -> tuple[tuple, Array, Array]:
        shuffle, place = jax.random.split(key)
        rows = jax.random.permutation(shuffle, trajectories)[: steps * size].reshape(steps, size)
        first = jax.random.randint(place, (steps,), 0, times - length + 1)
        carry, values = lax.scan(step, carry, (rows, first))
        return carry, jnp.nanmean(values), loss(carry[0], jnp.arange(trajectories), weights, data)

    key = jax.random.key(seed)
    start = space.unconstrain(space.draw_prior(key))
    carry = (start, optimiser.init(start), jnp.zeros((), int))
    best, lowest, losses = None, np.inf, []
    with bar(epochs, "adam", progress) as shown:
        for number in range(epochs):
            carry, mean, whole = epoch(carry, jax.random.fold_in(key, number))
            losses.append(float(mean))
            if float(whole) < lowest:
                best, lowest = np.asarray(carry[0]), float(whole)
            shown.update()
    if best is None:
        raise FitError(
            "No epoch of the least-squares fit ended at parameters whose equilibria were all found; try another seed or prior."
        )
    return PaperFit(best, np.asarray(losses), lowest, int(carry[2]))


def _shares_of(model: Calibration) -> tuple[Array, Array]:
    """Recorded shares of the states looked at, `(R, T, k)`, and their weights: one where observed, else zero."""
    shares = model.population.shares[..., model.state_index]
    return jnp.asarray(np.nan_to_num(shares)), jnp.asarray(np.isfinite(shares).astype(float))
