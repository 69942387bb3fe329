"""A model without a game whose populations are linear in two paths: with Gaussian noise and real constants its posterior is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.data import Population
from bayes_mfg.equilibrium import Code
from bayes_mfg.games import Parameter
from bayes_mfg.models import ForwardModel, Gaussian, Trajectories
from bayes_mfg.paths import Constant

TIMES = np.linspace(0.0, 1.0, 9)
SCALE, SIZE = 0.02, 0.02
"""Noise of a share, and what one unit of a parameter moves it by."""


class Linear(ForwardModel):
    """Share of the first of two states: `0.5 + SIZE (a(t) + b(t) t)`; it cannot be solved where `a` exceeds the limit at any time."""

    has_value = False

    def __init__(self, population, paths=None, observation=None, limit=np.inf, initial=None):
        self.limit = limit
        paths = paths or {"a": Constant(), "b": Constant()}
        parameters = {name: Parameter(name) for name in paths}
        super().__init__(
            population,
            paths,
            parameters,
            observation or Gaussian(scale=SCALE),
            initial=population.shares[:, 0] if initial is None else initial,
            horizon=None,
            substeps=1,
        )

    def trajectories(self, latents, data=None, key=None):
        times = jnp.asarray(self.grid.times)
        along = {
            name: jax.vmap(path.function(latents["raw"][name]), (0, None))(times, jnp.zeros(2))
            for name, path in self.bound.items()
        }
        share = 0.5 + SIZE * (along["a"] + along.get("b", 0.0) * times)
        mu = jnp.stack([share, 1.0 - share], axis=-1)[None]
        failed = jnp.any(along["a"] > self.limit)
        code = jnp.where(failed, Code.NOT_FINITE, Code.CONVERGED)[None]
        mu = jnp.where(failed, jnp.nan, mu)
        return Trajectories(along, mu, jnp.zeros_like(mu), code, jnp.zeros(1), jnp.zeros((1, 3), int))

    @property
    def about(self):
        return {"name": "Linear", "states": list(self.population.states), "parameters": [], "constants": {}}

    @property
    def solver(self):
        return {"equilibria": "none", "substeps": 1}


def population(seed=0, a=0.8, b=-0.5):
    share = 0.5 + SIZE * (a + b * TIMES) + SCALE * np.random.default_rng(seed).standard_normal(TIMES.size)
    return Population(TIMES, proportions=np.stack([share, 1.0 - share], axis=-1))


def posterior(data):
    """Mean and covariance of `(a, b)`: both shares are data, and priors are standard normal."""
    slope = SIZE * np.stack([np.ones_like(TIMES), TIMES], axis=1)
    slope = np.concatenate([slope, -slope])
    rest = (data.shares[0] - 0.5).T.reshape(-1)
    covariance = np.linalg.inv(slope.T @ slope / SCALE**2 + np.eye(2))
    return covariance @ slope.T @ rest / SCALE**2, covariance
