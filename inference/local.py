"""Unknowns that belong to one trajectory: their prior, and a normal regression on the others, in unconstrained coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import scipy.stats
from jax import Array
from numpyro.distributions import biject_to

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel

from .coordinates import coordinates

PER_COORDINATE = 10
"""Draws for each coordinate that a regression takes at least; with fewer, the mean of the trajectory's unknowns does not depend on the others."""

FREEDOM = 5
"""Degrees of freedom of proposals: tails heavier than those of any posterior of a share."""


class Local:
    """Unknowns of a model that belong to one trajectory, trajectory by trajectory: initial populations, and what is pooled or separate in paths.

    Attributes
    ----------
    columns : coordinates of each trajectory's own unknowns, `(R, k)`.
    rest : coordinates of everything else.
    size : `k`.

    Raises
    ------
    InputError : when such unknowns have no prior of their own, but one with all others (`with_prior`).
    """

    def __init__(self, model: ForwardModel) -> None:
        self.model = model
        self.priors: dict[str, dist.Distribution] = {}

        def draw(name: str, prior: dist.Distribution) -> Array:
            self.priors[name] = prior.base_dist
            return prior.sample(jax.random.key(0))

        model.initial.sample(draw, model.data.initial)
        for name, path in model.bound.items():
            for raw_name in path.local:
                prior = path.priors[raw_name]
                assert isinstance(prior, dist.Independent)  # trajectories are independent, and are the first axis
                self.priors[f"{name}/{raw_name}"] = prior.base_dist
        if model.joint is not None and self.priors:
            raise InputError(
                f"loo: {next(iter(self.priors))} belongs to one trajectory and has one prior with all other unknowns (with_prior), so that a "
                "trajectory's own unknowns cannot be integrated out; leave out observations or blocks of times."
            )
        space, count = coordinates(model), model.population.n_trajectories
        places = [space.offsets[n] + np.arange(np.prod(space.shapes[n], dtype=int)).reshape(count, -1) for n in self.priors]
        self.columns = np.concatenate([np.zeros((count, 0), int), *places], axis=1)
        self.rest = np.setdiff1d(np.arange(space.size), self.columns)
        self.size = self.columns.shape[1]

    def log_prior(self, flat: np.ndarray) -> np.ndarray:
        """Log prior density of every trajectory's own coordinates, Jacobians included: `(n, R)` of draws `(n, size)`."""
        space = coordinates(self.model)

        def one(x: Array) -> Array:
            total = jnp.zeros(len(self.columns))
            for name, prior in self.priors.items():
                transform, z = biject_to(prior.support), space.split(x)[name]
                value = transform(z)
                for part in (prior.log_prob(value), transform.log_abs_det_jacobian(z, value)):
                    total = total + part.reshape(len(self.columns), -1).sum(axis=1)
            return total

        return np.array(jax.vmap(one)(jnp.asarray(flat)))

    def weights(self, latent: np.ndarray) -> np.ndarray:
        """`log p(z_r) - log q(z_r | others)` of draws `(chain, draw, size)`: `(chain, draw, R)`.

        The regressions are fitted to the first halves of the chains for the second, and the other way round: `q` must not know the draw.
        """
        chains, draws, size = latent.shape
        result = self.log_prior(latent.reshape(-1, size)).reshape(chains, draws, -1)
        halves = np.array_split(np.arange(draws), 2)
        for own, other in (halves, halves[::-1]):
            here, there = latent[:, own].reshape(-1, size), latent[:, other].reshape(-1, size)
            for r, columns in enumerate(self.columns):
                mean, covariance = self._regressed(there, columns)
                away = here[:, columns] - mean(here)
                log_q = scipy.stats.multivariate_normal(np.zeros(self.size), covariance).logpdf(away)
                result[:, own, r] -= log_q.reshape(chains, len(own))
        return result

    def proposed(self, latent: np.ndarray, flat: np.ndarray, row: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws `flat (n, size)` with the unknowns of one trajectory drawn near their posterior, and `log p(z_r) - log q(z_r | others)`, `(n,)`.

        Parameters
        ----------
        latent : posterior draws `(chain, draw, size)` with the trajectory.
        flat : posterior draws without it.
        """
        columns = self.columns[row]
        mean, covariance = self._regressed(latent.reshape(-1, latent.shape[-1]), columns)
        tails = scipy.stats.multivariate_t(np.zeros(self.size), covariance, df=FREEDOM, seed=np.random.default_rng(seed))
        away = tails.rvs(len(flat)).reshape(len(flat), self.size)
        moved = flat.copy()
        moved[:, columns] = mean(flat) + away
        return moved, self.log_prior(moved)[:, row] - tails.logpdf(away)

    def _regressed(self, draws: np.ndarray, columns: np.ndarray) -> tuple:
        """Conditional mean of a trajectory's own coordinates as a function of draws `(n, size)`, and the covariance around it.

        Raises
        ------
        InputError : when there are too few draws for a covariance.
        """
        n, p = len(draws), len(self.rest) + 1
        if n < self.size + 2:
            raise InputError(
                f"loo: {n} draws are too few to integrate out the {self.size} unknowns of a trajectory of its own; more than "
                f"{2 * (self.size + 2)} in all are needed."
            )
        rest = self.rest if n >= PER_COORDINATE * p else self.rest[:0]
        centre, scale = draws[:, rest].mean(axis=0), np.maximum(draws[:, rest].std(axis=0), 1e-300)

        def features(some: np.ndarray) -> np.ndarray:
            return np.concatenate([np.ones((len(some), 1)), (some[:, rest] - centre) / scale], axis=1)

        own = draws[:, columns]
        slope = np.linalg.lstsq(features(draws), own, rcond=1e-8)[0]
        left = own - features(draws) @ slope
        covariance = np.atleast_2d(left.T @ left) / max(1, n - len(rest) - 1)
        # Any density serves; it must not be singular.
        ridge = max(1e-10 * float(np.trace(covariance)) / self.size, 1e-300)
        return (lambda some: features(some) @ slope), covariance + ridge * np.eye(self.size)
