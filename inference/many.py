"""Posteriors of many trajectories, each by itself, under one normal prior: modes together, then importance draws."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy.special import gammaln, logsumexp

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.models import Data, ForwardModel, Known

from .coordinates import compiled, coordinates
from .sensitivity import Expansion, Outputs, Tilt
from .svi import psis, reliable

BATCH = 16
"""Trajectories per compiled call; a call is filled up to it, so that one program serves any number."""

DEGREES = 7.0
"""Degrees of freedom of the Student t that draws are proposed from: heavier tails than the posterior's, and still a variance."""

ROUNDS = 3
"""Proposals that are tried for one trajectory: at the mode, then twice from the weighted draws of the one before."""

STEPS = 60
"""Steps of the search for modes, at most."""

SETTLED = 1e-3
"""Length of the Newton step left, in posterior sds, at which a mode counts as found."""


class Normal(NamedTuple):
    """A normal prior of the unknowns, `location (k,)` and `root (k, k)` with `root @ root.T` the covariance."""

    location: np.ndarray
    root: np.ndarray


class Modes(NamedTuple):
    """Modes of many posteriors, in the prior's standard coordinates.

    Attributes
    ----------
    points, curvature : `(R, k)` and `(R, k, k)`.
    settled : whether the search ended at the mode, `(R,)`.
    lost : whether there is no equilibrium where the search sets out, the prior's location, `(R,)`.
    """

    points: np.ndarray
    curvature: np.ndarray
    settled: np.ndarray
    lost: np.ndarray


@dataclasses.dataclass(frozen=True)
class Posteriors:
    """Weighted draws of every trajectory's posterior.

    Attributes
    ----------
    flat : unconstrained draws, `(R, n, k)`.
    weights : `(R, n)`, each row sums to one.
    evidence : log density of each trajectory's data under the prior, `(R,)`; the estimate of importance sampling.
    pareto_k : of the importance ratios, `(R,)`.
    modes : where the draws were proposed from.

    Of a trajectory whose draws hardly ever have an equilibrium the draws stand at the prior's location, weights are NaN, the Pareto k is infinite.
    """

    flat: np.ndarray
    weights: np.ndarray
    evidence: np.ndarray
    pareto_k: np.ndarray
    modes: Modes

    @property
    def failed(self) -> np.ndarray:
        """Which trajectories have no posterior, `(R,)`."""
        return ~np.isfinite(self.weights).all(axis=1)

    @property
    def reliable(self) -> np.ndarray:
        """Where the Pareto k is below the limit for so many draws, `(R,)`."""
        return np.asarray(self.pareto_k <= reliable(self.flat.shape[1]))

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Means `(R, k)` and covariances `(R, k, k)`."""
        mean = np.einsum("rn,rnk->rk", self.weights, self.flat)
        apart = self.flat - mean[:, None]
        return mean, np.einsum("rn,rnk,rnl->rkl", self.weights, apart, apart)

    def resampled(self, seed: int) -> np.ndarray:
        """Draws of equal weight `(R, n, k)`, by systematic resampling; those of a failed trajectory as they are."""
        rng = np.random.default_rng(seed)
        n = self.weights.shape[1]
        places = (rng.uniform(size=(len(self.weights), 1)) + np.arange(n)) / n
        weights = np.where(self.failed[:, None], 1.0 / n, self.weights)
        found = [np.minimum(np.searchsorted(np.cumsum(own), at), n - 1) for own, at in zip(weights, places, strict=True)]
        return np.stack([draws[rng.permutation(own)] for draws, own in zip(self.flat, found, strict=True)])


class _Likelihood(Expansion):
    """The expansion of the negative log likelihood alone."""

    def prior(self, flat: Array, data: Data, tilt: Tilt | None) -> Array:
        return 0.0 * jnp.sum(flat)


class Many:
    """Data of many trajectories, each an instance of one model of a single trajectory.

    Parameters
    ----------
    model : a model of one trajectory; its own data count for nothing but the shapes.
    population : the trajectories, with the model's times and states.
    where : who asks, for messages.

    Raises
    ------
    InputError : when the model has several trajectories or equilibria to choose from, or the population does not suit it.
    """

    def __init__(self, model: ForwardModel, population: Population, where: str) -> None:
        if not isinstance(model, ForwardModel):
            raise InputError(f"{where}: model is {model!r}; a bayes_mfg.models.Calibration is needed.")
        if model.population.n_trajectories != 1:
            raise InputError(
                f"{where}: the model is of {model.population.n_trajectories} trajectories; one is needed, the pattern of each."
            )
        if getattr(model, "branches", None) is not None:
            raise InputError(f"{where}: the model chooses between several equilibria; one is needed.")
        if model.joint is not None:
            raise InputError(f"{where}: the model has a prior of with_prior; one with priors of its pieces is needed.")
        if not isinstance(population, Population):
            raise InputError(f"{where}: population is {population!r}; a bayes_mfg.data.Population is needed.")
        if population.n_states == model.population.n_states:
            population = model.arranged(population)
        fits = (
            population.states == model.population.states
            and np.array_equal(population.times, model.population.times)
            and model.observation.columns(population) == model.columns
        )
        if not fits:
            raise InputError(f"{where}: times and states of the population must be those of the model's own data.")
        self.model, self.population = model, population
        self.space = coordinates(model)
        if not self.space.size:
            raise InputError(f"{where}: the model has no unknowns.")
        # One axis more: each trajectory is a population of its own. Starts that are known are the model's.
        start = Known(model.data.initial[0]) if isinstance(model.initial, Known) else model.initial
        self.data: Data = jax.tree.map(lambda x: x[:, None], model.arrays(population, start))

    @property
    def count(self) -> int:
        """Number of trajectories `R`."""
        return self.population.n_trajectories

    def own_prior(self, draws: int = 4000) -> Normal:
        """The normal with the mean and the covariance of the model's own prior, from draws with a fixed key."""
        space = self.space
        keys = jax.random.split(jax.random.key(0), draws)
        flat = np.asarray(jax.jit(jax.vmap(lambda key: space.unconstrain(space.draw_prior(key))))(keys))
        return Normal(flat.mean(axis=0), np.linalg.cholesky(np.cov(flat, rowvar=False).reshape(space.size, space.size)))

    def expanded(self, flat: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Negative log likelihoods of rows at `flat (len(rows), k)`, gradients and Gauss-Newton curvatures; NaN where a solve fails."""
        expansion = _Likelihood(self.model)
        many = compiled(
            self.model,
            "many/expanded",
            lambda: jax.jit(lambda flat, data: lax.map(lambda own: expansion(*own), (flat, data))),
        )
        found = []
        for part, data in self._batches(rows):
            x = np.concatenate([flat[part], np.repeat(flat[part[-1:]], BATCH - len(part), axis=0)])
            found.append([np.asarray(y)[: len(part)] for y in many(jnp.asarray(x), data)])
        return tuple(np.concatenate(y) for y in zip(*found, strict=True))  # type: ignore[return-value]

    def _batches(self, rows: np.ndarray) -> list[tuple[np.ndarray, Data]]:
        """Parts of `BATCH` of some rows, numbered by their place among these, with their data; the last is filled up."""
        found = []
        for first in range(0, len(rows), BATCH):
            part = np.arange(first, min(first + BATCH, len(rows)))
            own = rows[np.concatenate([part, np.repeat(part[-1:], BATCH - len(part))])]
            found.append((part, jax.tree.map(lambda x, own=own: x[own], self.data)))
        return found

    def implied(self, flat: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Negative log likelihoods `(len(rows), n)` of draws `(len(rows), n, k)`, infinite where a solve fails, and populations `(.., T, d)`."""
        expansion = _Likelihood(self.model)

        def one(x: Array, data: Data) -> tuple[Array, Array]:
            outputs: Outputs
            outputs, found = expansion.seen(x, data)
            value = expansion.misfit(outputs, data, None)
            return jnp.where(found & jnp.isfinite(value), value, jnp.inf), outputs[0][0]

        def draws(own: tuple[Array, Data]) -> tuple[Array, Array]:
            return lax.map(lambda x: one(x, own[1]), own[0])

        many = compiled(self.model, "many/implied", lambda: jax.jit(lambda flat, data: lax.map(draws, (flat, data))))
        parts = []
        for part, data in self._batches(rows):
            x = np.concatenate([flat[part], np.repeat(flat[part[-1:]], BATCH - len(part), axis=0)])
            parts.append([np.asarray(y)[: len(part)] for y in many(jnp.asarray(x), data)])
        value, mu = (np.concatenate(y) for y in zip(*parts, strict=True))
        return value, mu

    def named(self, rows: np.ndarray, most: int = 5) -> str:
        """Some trajectories, chosen by a mask `(R,)`, by name."""
        names = [repr(self.population.trajectories[row]) for row in np.flatnonzero(rows)]
        return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

    def modes(self, prior: Normal, start: np.ndarray | None = None) -> Modes:
        """Modes and curvatures in the prior's standard coordinates, where the prior is `Normal(0, 1)`.

        Levenberg-Marquardt on the Gauss-Newton curvature, all trajectories together, those that have settled left out. The curvature of the
        likelihood is taken where it is positive: no direction is wider than the prior.
        """
        k, root = self.space.size, prior.root
        z = np.zeros((self.count, k)) if start is None else start.copy()

        def at(z: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            value, gradient, curvature = self.expanded(prior.location + z @ root.T, rows)
            bent = root.T @ np.nan_to_num(curvature) @ root
            size, vectors = np.linalg.eigh(0.5 * (bent + np.swapaxes(bent, 1, 2)))
            bent = np.einsum("rik,rk,rjk->rij", vectors, np.maximum(size, 0.0) + 1.0, vectors)
            return value + 0.5 * np.sum(z**2, axis=1), np.nan_to_num(gradient) @ root + z, bent

        rows = np.arange(self.count)
        height, slope, bent = at(z, rows)
        lost = ~np.isfinite(height)
        if lost.any() and start is not None:
            z[lost] = 0.0
            height, slope, bent = at(z, rows)
            lost = ~np.isfinite(height)
        slope[lost], bent[lost] = 0.0, np.eye(k)
        damping = np.full(self.count, 1e-3)
        for count in range(STEPS + 1):
            full = np.linalg.solve(bent, slope[..., None])[..., 0]
            apart = np.sqrt(np.sum(full * slope, axis=1)) > SETTLED
            rows = np.flatnonzero(apart & (damping < 1e8))
            if not rows.size or count == STEPS:
                break
            held = bent[rows] + damping[rows, None, None] * np.eye(k)
            step = np.linalg.solve(held, slope[rows][..., None])[..., 0]
            found = at(z[rows] - step, rows)
            better = np.isfinite(found[0]) & (found[0] <= height[rows])
            good = rows[better]
            z[good] -= step[better]
            height[good], slope[good], bent[good] = (part[better] for part in found)
            damping[rows] = np.where(better, damping[rows] / 5, np.maximum(damping[rows], 1e-2) * 8)
        return Modes(z, bent, ~apart & ~lost, lost)

    def posteriors(self, prior: Normal, num_draws: int, seed: int, start: np.ndarray | None = None) -> Posteriors:
        """Draws of every trajectory's posterior by importance sampling from a Student t at its mode.

        Where the Pareto k of the ratios says that the proposal does not do, another is made from the mean and covariance of the weighted draws, and
        the better of them is kept (adaptive importance sampling; Cappe et al., Population Monte Carlo, JCGS 13, 2004).
        """
        modes = self.modes(prior, start)
        k, bent = self.space.size, modes.curvature
        centre, root = modes.points.copy(), np.linalg.inv(np.linalg.cholesky(bent)).swapaxes(1, 2)
        z = np.zeros((self.count, num_draws, k))
        weights, evidence = np.full((self.count, num_draws), np.nan), np.full(self.count, -np.inf)
        best = np.full(self.count, np.inf)
        rng = np.random.default_rng(seed)
        rows = np.flatnonzero(~modes.lost)
        for _ in range(ROUNDS):
            if not rows.size:
                break
            normal = rng.standard_normal((len(rows), num_draws, k))
            chi = rng.chisquare(DEGREES, (len(rows), num_draws)) / DEGREES
            step = normal / np.sqrt(chi)[..., None]
            drawn = centre[rows, None] + np.einsum("rij,rnj->rni", root[rows], step)
            log_proposal = _student(step) - np.linalg.slogdet(root[rows])[1][:, None]
            misfit, _ = self.implied(prior.location + drawn @ prior.root.T, rows)
            log_target = -misfit - 0.5 * np.sum(drawn**2, axis=-1) - 0.5 * k * math.log(2 * math.pi)
            ratios = log_target - log_proposal
            for row, x, ratio in zip(rows, drawn, ratios, strict=True):
                if not np.isfinite(ratio).sum() > k:
                    continue
                # A draw without an equilibrium has no weight; the smoothing looks at the upper tail alone.
                own, shape = psis(np.where(np.isfinite(ratio), ratio, ratio[np.isfinite(ratio)].min() - 100.0))
                shape = np.inf if np.isnan(shape) else shape
                mean = own @ x
                spread = np.einsum("n,ni,nj->ij", own, x - mean, x - mean)
                centre[row] = mean
                root[row] = np.linalg.cholesky(spread + 1e-2 * np.linalg.inv(bent[row]))
                if shape < best[row] or np.isnan(weights[row, 0]):
                    best[row], z[row], weights[row] = shape, x, own
                    evidence[row] = logsumexp(ratio) - math.log(num_draws)
            rows = np.flatnonzero((best > reliable(num_draws)) & ~modes.lost)
        return Posteriors(prior.location + z @ prior.root.T, weights, evidence, best, modes)


def _student(x: np.ndarray) -> np.ndarray:
    """Log density of a standard multivariate Student t with `DEGREES` degrees of freedom, over the last axis."""
    k = x.shape[-1]
    constant = gammaln((DEGREES + k) / 2) - gammaln(DEGREES / 2) - 0.5 * k * math.log(DEGREES * math.pi)
    return np.asarray(constant - 0.5 * (DEGREES + k) * np.log1p(np.sum(x**2, axis=-1) / DEGREES))
