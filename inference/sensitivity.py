"""Exact sensitivities of the populations to all unknowns, and the Gauss-Newton curvature of the posterior.

The likelihood sees the unknowns through the populations at the observed times and through its own parameters. With `J` the derivative of these
with respect to the unconstrained coordinates, by forward mode through the equilibrium, the posterior's curvature is `J' W J + prior`, where `W` is
the likelihood's own second derivative. What is left out are second derivatives of the equilibrium, of the maps to the unknowns' supports, and of the
sum over several equilibria, times the misfit. All columns of `J` share one linearisation of every equilibrium. Coordinates of initial populations
and of pooled paths' deviations belong to one trajectory each, as the model declares: one pass serves all trajectories at once.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bayes_mfg.equilibrium import Code
from bayes_mfg.models import Data, ForwardModel, Trajectories

from .coordinates import Coordinates, compiled, coordinates
from .information import natural

COLUMNS = 8
"""Directions pushed through the equilibrium at a time; memory grows with them."""


class Quadratic(NamedTuple):
    """The potential around one point.

    Attributes
    ----------
    value : negative log density; NaN where a solve fails.
    gradient : `(size,)`, exact.
    curvature : Gauss-Newton curvature `(size, size)`.
    """

    value: Array
    gradient: Array
    curvature: Array


class Tilt(NamedTuple):
    """Linear terms that are taken off the potential, which moves its minimum and leaves its curvature.

    Attributes
    ----------
    flat : per unconstrained coordinate, `(size,)`.
    mu : per share of every population on the grid, `(R, T, d)`.
    """

    flat: Array
    mu: Array


class Sensitivities(NamedTuple):
    """First derivatives of what a model implies at one point, by all unconstrained coordinates.

    Attributes
    ----------
    implied : what is implied: "mu" `(R, T, d)`, "natural", the parameters of the observation's distributions as `information.natural` has them,
        "parameter/<name>", paths on the grid, `(T, ...)` or `(R, T, ...)`, and "own/<name>", the observation model's own unknowns.
    moved : its derivatives, with a leading axis of the shared coordinates, then of those that belong to one trajectory each.
    found : whether all equilibria were found.
    """

    implied: dict[str, Array]
    moved: dict[str, Array]
    found: Array


type Outputs = tuple[Array, Array, dict[str, Array]]


def quadratic(model: ForwardModel) -> Any:
    """Compiled `(flat, data) -> Quadratic`."""
    return compiled(model, "quadratic", lambda: jax.jit(Expansion(model).__call__))


def sensitivities(model: ForwardModel) -> Any:
    """Compiled `(flat, data) -> Sensitivities`."""
    return compiled(model, "sensitivities", lambda: jax.jit(Expansion(model).sensitivities))


def tilted_quadratic(model: ForwardModel) -> Any:
    """Compiled `(flat, data, tilt) -> Quadratic` of the tilted potential."""
    return compiled(model, "tilted_quadratic", lambda: jax.jit(Expansion(model).__call__))


def tilted_value_and_gradient(model: ForwardModel) -> Any:
    """Compiled `(flat, data, tilt) -> (potential, gradient)` of the tilted potential."""
    return compiled(model, "tilted_value_and_gradient", lambda: jax.jit(jax.value_and_grad(Expansion(model).potential)))


def _flat(x: Array) -> Array:
    return x.reshape(len(x), math.prod(x.shape[1:]))


class Expansion:
    """Gauss-Newton expansion of one model's potential."""

    def __init__(self, model: ForwardModel) -> None:
        self.model = model
        self.space: Coordinates = coordinates(model)
        # (k, R): coordinate of every local direction in every trajectory.
        self.local = self.space.local
        self.shared = np.setdiff1d(np.arange(self.space.size), self.local)

    def implied(self, flat: Array, data: Data) -> tuple[Trajectories, dict[str, Array], Array]:
        """What the unknowns imply, the likelihood's own unknowns, and whether all solves succeeded."""
        latents = self.space.latents(self.space.constrain(flat), data)
        result = self.model.trajectories(latents, data)
        return result, latents["own"], jnp.all(result.code == Code.CONVERGED)

    def seen(self, flat: Array, data: Data) -> tuple[Outputs, Array]:
        """What the likelihood looks at - populations, what other branches add, its own unknowns - and whether all solves succeeded."""
        result, own, found = self.implied(flat, data)
        added = jnp.zeros(len(result.mu), result.mu.dtype) if result.correction is None else result.correction
        return (result.mu, added, own), found

    def directions(self, dtype: Any) -> Array:
        """One direction for each shared coordinate, then those in which all trajectories' own coordinates move at once, `(n + k, size)`."""
        eye = jnp.eye(self.space.size, dtype=dtype)
        together = jnp.zeros((len(self.local), self.space.size), dtype)
        together = together.at[np.arange(len(self.local))[:, None], self.local].set(1.0)
        return jnp.concatenate([eye[self.shared], together])

    def sensitivities(self, flat: Array, data: Data) -> Sensitivities:
        """Derivatives of populations, paths and the distribution of what is observed."""

        def told(flat: Array) -> tuple[dict[str, Array], Array]:
            result, own, found = self.implied(flat, data)
            seen = {"mu": result.mu, "natural": natural(self.model.likelihood({"own": own}, result.mu, data))}
            paths = {f"parameter/{name}": path for name, path in result.parameters.items()}
            return {**seen, **paths, **{f"own/{name}": value for name, value in own.items()}}, found

        implied, push, found = jax.linearize(told, flat, has_aux=True)
        return Sensitivities(implied, lax.map(push, self.directions(flat.dtype), batch_size=COLUMNS), found)

    def misfit(self, outputs: Outputs, data: Data, tilt: Tilt | None) -> Array:
        """Negative log likelihood of what it looks at, tilted."""
        mu, added, own = outputs
        likelihood = self.model.likelihood({"own": own}, mu, data).mask(data.record.mask)
        value = -jnp.sum(jnp.where(data.record.mask, likelihood.log_prob(data.record.values), 0.0)) - jnp.sum(added)
        return value if tilt is None else value - jnp.sum(tilt.mu * mu)

    def prior(self, flat: Array, data: Data, tilt: Tilt | None) -> Array:
        """Negative log prior density, tilted."""
        value = self.space.prior_potential(flat, data)
        return value if tilt is None else value - jnp.sum(tilt.flat * flat)

    def potential(self, flat: Array, data: Data, tilt: Tilt | None = None) -> Array:
        """Negative log density, tilted; NaN where a solve fails."""
        outputs, found = self.seen(flat, data)
        return jnp.where(found, self.misfit(outputs, data, tilt) + self.prior(flat, data, tilt), jnp.nan)

    def __call__(self, flat: Array, data: Data, tilt: Tilt | None = None) -> Quadratic:
        def seen(flat: Array) -> tuple[Outputs, Array]:
            return self.seen(flat, data)

        def misfit(outputs: Outputs) -> Array:
            return self.misfit(outputs, data, tilt)

        def prior(flat: Array) -> Array:
            return self.prior(flat, data, tilt)

        outputs, push, found = jax.linearize(seen, flat, has_aux=True)
        slope = jax.grad(misfit)
        gradient_seen = slope(outputs)

        def column(direction: Array) -> tuple[Any, Any]:
            moved = push(direction)
            return moved, jax.jvp(slope, (outputs,), (moved,))[1]

        size, dtype = self.space.size, flat.dtype
        moved, bent = lax.map(column, self.directions(dtype), batch_size=COLUMNS)
        n = len(self.shared)

        def dot(a: Any, b: Any) -> Array:
            """Products of all pairs of shared columns."""
            parts = jax.tree.map(lambda x, y: _flat(x) @ _flat(y).T, a, b)
            return jax.tree.reduce(jnp.add, parts)

        some = jax.tree.map(lambda x: x[:n], (moved, bent))
        curvature = jnp.zeros((size, size), dtype).at[np.ix_(self.shared, self.shared)].set(dot(*some))
        gradient = jnp.zeros(size, dtype).at[self.shared].set(dot(some[0], jax.tree.map(lambda x: x[None], gradient_seen))[:, 0])
        if len(self.local):
            mine, theirs = moved[0][n:], bent[0][n:]
            inner = jnp.einsum("krtx,lrtx->klr", mine, theirs)
            cross = jnp.einsum("irtx,krtx->ikr", some[1][0], mine)
            curvature = curvature.at[self.local[:, None, :], self.local[None, :, :]].set(inner)
            curvature = curvature.at[self.shared[:, None, None], self.local[None]].set(cross)
            curvature = curvature.at[self.local[None], self.shared[:, None, None]].set(cross)
            slopes = jnp.einsum("krtx,rtx->kr", mine, gradient_seen[0]) + moved[1][n:] * gradient_seen[1]
            gradient = gradient.at[self.local].set(slopes)
        value = jnp.where(found, misfit(outputs) + prior(flat), jnp.nan)
        curvature = 0.5 * (curvature + curvature.T) + jax.hessian(prior)(flat)
        return Quadratic(value, gradient + jax.grad(prior)(flat), curvature)
