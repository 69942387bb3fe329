"""Functions that are to be minimised, with what failing solves make of them, and searches on them of first and second order."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize

WORST = 1e10
"""Potential given to the optimiser where a solve fails, so that its line search turns back; more where potentials themselves are large."""

FLAT = 1e-4
"""Curvature up to which a direction counts as flat: coordinates are of order one under most priors."""

CLOSE = 5e-5
"""Length of the Newton step left, in posterior sds, at which the mode counts as found."""

PATIENCE = 40
"""Gauss-Newton steps after which the search goes on by BFGS: where the model fits, a dozen suffice, and where it does not, they creep."""


class Objective:
    """A function and its gradient as scipy wants them, counting evaluations and failures; first order.

    Parameters
    ----------
    function : point `(size,)` -> value and gradient `(size,)`; not finite where a solve fails.
    """

    def __init__(self, function: Callable[[np.ndarray], Any]) -> None:
        self.function = function
        self.evaluations = 0
        self.failures = 0
        self.failed = False
        self.worst = WORST

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = self.function(flat)
        self.evaluations += 1
        value, gradient = float(value), np.asarray(gradient, dtype=float)
        self.failed = not (np.isfinite(value) and np.all(np.isfinite(gradient)))
        if self.failed:
            self.failures += 1
            return self.worst, np.zeros_like(gradient)
        self.worst = max(self.worst, 1e3 * abs(value))
        return value, gradient


class Expanded:
    """A function with gradient and Gauss-Newton curvature, remembered at the last point; counts as `Objective` does.

    Parameters
    ----------
    expand : point `(size,)` -> value, gradient `(size,)` and curvature `(size, size)`; not finite where a solve fails.
    slope : point `(size,)` -> value and gradient alone, where that is cheaper.

    Attributes
    ----------
    crept : whether a search took more Gauss-Newton steps than it has `PATIENCE` for.
    """

    def __init__(self, expand: Callable[[np.ndarray], Any], slope: Callable[[np.ndarray], Any] | None = None) -> None:
        self.expand = expand
        self.slope = slope
        self.evaluations = 0
        self.failures = 0
        self.failed = False
        self.crept = False
        self.worst = WORST
        self.flat: np.ndarray | None = None

    def at(self, flat: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Potential, gradient `(size,)` and curvature `(size, size)`."""
        if self.flat is None or not np.array_equal(flat, self.flat):
            self.flat = np.array(flat)
            self.evaluations += 1
            value, gradient, curvature = (np.asarray(x, float) for x in self.expand(flat))
            self.failed = not (np.isfinite(value) and np.all(np.isfinite(gradient)) and np.all(np.isfinite(curvature)))
            if self.failed:
                self.failures += 1
                self.found = self.worst, np.zeros_like(gradient), np.eye(gradient.size)
            else:
                self.worst = max(self.worst, 1e3 * abs(float(value)))
                self.found = float(value), gradient, curvature
        return self.found

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        return self.at(flat)[:2]

    def sloped(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Potential and gradient `(size,)`, as cheap as can be."""
        if self.slope is None:
            return self(flat)
        self.evaluations += 1
        value, gradient = (np.asarray(x, float) for x in self.slope(flat))
        if np.isfinite(value) and np.all(np.isfinite(gradient)):
            self.worst = max(self.worst, 1e3 * abs(float(value)))
            return float(value), gradient
        self.failures += 1
        return self.worst, np.zeros_like(gradient)

    def minimise(self, start: np.ndarray, max_steps: int) -> tuple[float, np.ndarray, bool]:
        """Trust-region Gauss-Newton (scipy's `trust-exact`), until the step left to the minimum is `CLOSE` posterior sds.

        Its curvature leaves out second derivatives of the equilibrium times the misfit. Where a model fits badly they outweigh it, and steps creep
        along bent valleys: after `PATIENCE` of them BFGS, which learns the whole curvature, goes on in coordinates whitened by Gauss-Newton's, and
        the two take turns until one has settled or neither gets lower.
        """
        point, (value, _) = np.asarray(start, float), self(start)
        left = max_steps
        while not self.settled(point):
            before = value
            value, point, steps = self._gauss_newton(point, value, min(PATIENCE, left))
            left -= steps
            if left <= 0 or self.settled(point):
                break
            self.crept = True
            value, point, steps = self._quasi_newton(point, value, left)
            left -= steps
            if left <= 0 or not value < before:
                break
        return value, point, left <= 0

    def settled(self, point: np.ndarray) -> bool:
        """Whether the step left to the minimum is `CLOSE` posterior sds."""
        _, gradient, curvature = self.at(point)
        return not self.failed and bool(np.linalg.norm(square_root(curvature)[1].T @ gradient) < CLOSE)

    def _gauss_newton(self, point: np.ndarray, value: float, max_steps: int) -> tuple[float, np.ndarray, int]:
        """Value and point at the end of so many steps at most, and how many they were; never higher than the start."""

        def settled(intermediate_result: scipy.optimize.OptimizeResult) -> None:
            if self.settled(intermediate_result.x):
                raise StopIteration

        found = scipy.optimize.minimize(
            self,
            point,
            jac=True,
            hess=lambda x: self.at(x)[2],
            method="trust-exact",
            callback=settled,
            options={"maxiter": max_steps, "gtol": 1e-8, "initial_trust_radius": 1.0, "max_trust_radius": 100.0},
        )
        return (float(found.fun), np.asarray(found.x), found.nit) if found.fun <= value else (value, point, found.nit)

    def _quasi_newton(self, point: np.ndarray, value: float, max_steps: int) -> tuple[float, np.ndarray, int]:
        """The same of BFGS, in coordinates whitened by the curvature at the start."""
        factor = square_root(self.at(point)[2])[1]

        def whitened(x: np.ndarray) -> tuple[float, np.ndarray]:
            height, gradient = self.sloped(point + factor @ x)
            return height, factor.T @ gradient

        found = scipy.optimize.minimize(
            whitened,
            np.zeros(point.size),
            jac=True,
            method="BFGS",
            options={"maxiter": max_steps, "gtol": 0.5 * CLOSE, "norm": 2},
        )
        return (float(found.fun), point + factor @ found.x, found.nit) if found.fun <= value else (value, point, found.nit)


def nearest_solvable(objective: Objective | Expanded, point: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, float] | None:
    """The point, or the first on the way to the prior's centre at which all solves succeed, with its potential."""
    for share in (1.0, 0.5, 0.25, 0.0):
        candidate = centre + share * (point - centre)
        height, _ = objective(candidate)
        if not objective.failed:
            return candidate, height
    return None


def first_order(objective: object, start: np.ndarray, max_steps: int) -> tuple[float, np.ndarray, bool]:
    """Potential and point at the end of a run of L-BFGS, and whether it was its limit of steps that ended it."""
    found = scipy.optimize.minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": max_steps, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-7}
    )
    return float(found.fun), np.asarray(found.x), found.status == 1


def differenced(objective: Objective, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Inverse Hessian, a square root of it, and the number of directions in which it says nothing."""
    hessian, lost = hessian_of(objective, at)
    covariance, factor, flat = square_root(hessian)
    return covariance, factor, flat + lost


def hessian_of(objective: Objective, at: np.ndarray, step: float = 1e-4) -> tuple[np.ndarray, int]:
    """Hessian of the potential `(size, size)`, and in how many coordinates it could not be taken.

    Coordinates are of order one under the prior, so one step length serves all. It is the preconditioner of samplers, which needs three
    digits, and central differences of an exact gradient give six.
    """
    size = at.size
    hessian = np.empty((size, size))
    lost = 0
    for k in range(size):
        width = step
        for _ in range(4):
            shift = np.zeros(size)
            shift[k] = width
            _, up = objective(at + shift)
            failed = objective.failed
            _, down = objective(at - shift)
            if not (failed or objective.failed):
                break
            width /= 10
        else:
            # No difference can be taken at the edge of what can be solved: the prior's unit scale has to do.
            lost += 1
            hessian[k] = np.eye(size)[k]
            continue
        hessian[k] = (up - down) / (2 * width)
    return 0.5 * (hessian + hessian.T), lost


def square_root(curvature: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Inverse of a curvature and a square root of that; directions of negative or no curvature, which are counted, get the prior's unit scale."""
    values, vectors = np.linalg.eigh(0.5 * (curvature + curvature.T))
    flat = int(np.sum(values <= FLAT))
    values = np.where(values > FLAT, values, 1.0)
    factor = vectors / np.sqrt(values)
    return factor @ factor.T, factor, flat


def refined(objective: Objective, best: np.ndarray, max_steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Mode, covariance, factor and flat directions from the end of a first L-BFGS run: whitened by the curvature the problem is round."""
    covariance, factor, flat = differenced(objective, best)
    for _ in range(3):
        _, step, _ = first_order(lambda x, at=best, by=factor: _whitened(objective, x, at, by), np.zeros(best.size), max_steps)
        best = best + factor @ step
        if np.linalg.norm(step) < 1e-2:
            break
        covariance, factor, flat = differenced(objective, best)
    return best, covariance, factor, flat


def _whitened(objective: Objective, x: np.ndarray, at: np.ndarray, by: np.ndarray) -> tuple[float, np.ndarray]:
    value, gradient = objective(at + by @ x)
    return value, by.T @ gradient
