"""What is maximised along a profile: the likelihood with the priors of some unknowns, and the surfaces on which a quantity keeps one value."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Distribution

from bayes_mfg.models import Data, ForwardModel

from .coordinates import compiled, coordinates
from .linearised import blocks
from .objective import Expanded, square_root
from .sensitivity import Expansion

REMEMBERED = 8
"""Points whose expansions are kept."""

MOST_CORRECTIONS = 50
"""Newton steps of one number towards the surface."""

ON_SURFACE = 1e-11
"""Largest distance from the surface, in the units of the quantity's real line, relative to its value or to 1."""

type Expansions = tuple[float, np.ndarray, np.ndarray]


class _Penalised(Expansion):
    """Minus the log likelihood and the weighted log priors; weights take the place of a tilt."""

    def misfit(self, outputs: Any, data: Data, tilt: Any) -> Array:
        return super().misfit(outputs, data, None)

    def prior(self, flat: Array, data: Data, tilt: Any) -> Array:
        """Minus the sum over sites of weight times log density of its unconstrained coordinates, Jacobian terms included."""
        raw, terms = self.space.split(flat), {}

        def draw(name: str, prior: Distribution) -> Array:
            transform = self.space.transforms[name]
            value = transform(raw[name])
            terms[name] = jnp.sum(prior.log_prob(value)) + jnp.sum(transform.log_abs_det_jacobian(raw[name], value))
            return value

        self.model.latents(draw, data)
        return -sum((weight * terms[name] for name, weight in zip(self.space.shapes, tilt, strict=True)), jnp.zeros(()))


class Target:
    """The penalised likelihood of one data set; one compiled function for all points, quantities, priors and data sets of one shape.

    Parameters
    ----------
    model : the model.
    kept : unknowns whose priors count, as `linearised.blocks` names them.
    """

    def __init__(self, model: ForwardModel, kept: Iterable[str]) -> None:
        self.model, self.kept = model, tuple(kept)
        space, parts = coordinates(model), blocks(model)
        inside = np.zeros(space.size)
        for name in self.kept:
            inside[parts[name]] = 1.0
        self.weights = jnp.asarray(
            [inside[space.offsets[name]] if np.prod(shape) else 0.0 for name, shape in space.shapes.items()]
        )
        self.function = compiled(model, "penalised", lambda: jax.jit(_Penalised(model).__call__))
        self.evaluations = 0
        self.failures = 0
        self.known: dict[bytes, Expansions] = {}

    def __call__(self, flat: np.ndarray) -> Expansions:
        """Minus the penalised log likelihood, its exact gradient, and its Gauss-Newton curvature; not finite where a solve fails."""
        key = np.asarray(flat, float).tobytes()
        if key not in self.known:
            value, gradient, curvature = self.function(jnp.asarray(flat), self.model.data, self.weights)
            self.evaluations += 1
            self.failures += not bool(jnp.isfinite(value))
            while len(self.known) >= REMEMBERED:
                del self.known[next(iter(self.known))]
            self.known[key] = float(value), np.asarray(gradient, float), np.asarray(curvature, float)
        return self.known[key]


class Surface:
    """Points at which a smooth function has one value, in a chart: coordinates `y` of the tangent, in sds, and a normal that closes the gap.

    `z(y) = anchor + F Q y + s(y) n` with `F F' = C` a covariance, `n = C a / a'C a` for the function's gradient `a` at the anchor, `Q` an orthonormal
    basis of the complement of `F'a`, and `s` such that the function has its value. It eliminates one coordinate, exactly for a coordinate and for
    every linear function. From one constrained minimum, with `C` the inverse curvature there, `z(0)` follows the tangent of the profile. Own
    derivation, by the implicit function theorem: `dz/dy = D = F Q - n (a'F Q) / (a'n)`; with `g`, `B` the gradient and the curvature of what is
    minimised, `l = g'n / a'n` the multiplier and `H` the function's second derivative, gradient `D'g` and curvature `D'(B - l H) D`.

    Parameters
    ----------
    target : what is minimised.
    constraint : point -> value, gradient `(size,)` and second derivative `(size, size)` of the function.
    anchor : `(size,)`, near the surface.
    level : the function's value on it.
    factor : `F (size, size)`.
    """

    def __init__(
        self,
        target: Callable[[np.ndarray], Expansions],
        constraint: Callable[[np.ndarray], Expansions],
        anchor: np.ndarray,
        level: float,
        factor: np.ndarray,
    ) -> None:
        self.target, self.constraint, self.anchor, self.level = target, constraint, np.asarray(anchor, float), level
        slope = factor.T @ constraint(self.anchor)[1]
        length = float(slope @ slope)
        self.normal = factor @ slope / length if length > 0 else np.zeros_like(self.anchor)
        self.tangents = factor @ np.linalg.qr(slope[:, None], mode="complete")[0][:, 1:]

    @property
    def size(self) -> int:
        """Number of coordinates on the surface."""
        return len(self.anchor) - 1

    def point(self, y: np.ndarray) -> np.ndarray | None:
        """The point of the surface at `y (size - 1,)`; None where the normal does not reach it."""
        start = self.anchor + self.tangents @ y
        s = 0.0
        for _ in range(MOST_CORRECTIONS):
            z = start + s * self.normal
            value, gradient, _ = self.constraint(z)
            slope = float(gradient @ self.normal)
            gap = self.level - value
            if abs(gap) <= ON_SURFACE * max(1.0, abs(self.level)):
                return np.asarray(z)
            if not (np.isfinite(gap) and np.isfinite(slope)) or slope <= 0:
                return None
            s += gap / slope
        return None

    def __call__(self, y: np.ndarray) -> Expansions:
        """What is minimised, at `y`, with gradient and curvature in these coordinates."""
        z = self.point(y)
        if z is None:
            return np.nan, np.full(self.size, np.nan), np.full((self.size, self.size), np.nan)
        value, gradient, _ = self.target(z)
        slope = self.constraint(z)[1]
        moved = self.tangents - np.outer(self.normal, slope @ self.tangents) / (slope @ self.normal)
        return value, moved.T @ gradient, moved.T @ self.bent(z) @ moved

    def bent(self, z: np.ndarray) -> np.ndarray:
        """Curvature of the Lagrangian `(size, size)` at a point of the surface."""
        _, gradient, curvature = self.target(z)
        _, slope, second = self.constraint(z)
        multiplier = float(gradient @ self.normal) / float(slope @ self.normal)
        return np.asarray(curvature - multiplier * second)

    def minimum(self, max_steps: int) -> tuple[np.ndarray, float, float] | None:
        """Point, value and step left, in sds, of the minimum found from the anchor's point; None where there is no equilibrium there."""
        search = Expanded(self)
        y = np.zeros(self.size)
        value = search.at(y)[0]
        if search.failed:
            return None
        if self.size:
            end, better, _ = search.minimise(y, max_steps)
            if end <= value:
                value, y = end, better
        _, gradient, curvature = search.at(y)
        z = self.point(y)
        if z is None or search.failed:
            return None
        left = float(np.linalg.norm(square_root(curvature)[1].T @ gradient)) if self.size else 0.0
        return z, value, left
