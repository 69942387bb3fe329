"""A forward model without a game, whose populations are a path itself: what pooling does, without the time that equilibria take."""

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.data import Population
from bayes_mfg.games import Parameter
from bayes_mfg.models import ForwardModel, Gaussian, Trajectories
from bayes_mfg.paths import PooledPath

SLOPE = 0.04
TIMES = np.linspace(0.0, 1.0, 5)


class Direct(ForwardModel):
    """Shares `0.5 + SLOPE x_r(t)` and `0.5 - SLOPE x_r(t)` of two states, the first observed, with the real parameter x."""

    has_value = False

    def __init__(self, population, path, noise):
        starts = np.full((population.n_trajectories, 2), 0.5)
        parameters = {"x": Parameter("x")}
        super().__init__(population, {"x": path}, parameters, Gaussian(scale=noise), initial=starts, horizon=None, substeps=1)

    def trajectories(self, latents, data=None, key=None):
        path, raw, times = self.bound["x"], latents["raw"]["x"], jnp.asarray(self.grid.times)
        nobody, count = jnp.full(2, 0.5), len(latents["mu0"])

        def along(function):
            return jax.vmap(lambda t: function(t, nobody))(times)

        groups = {"x": along(path.function(raw))} if path.has_group else {}
        if isinstance(path, PooledPath):
            x = jax.vmap(lambda own: along(path.inner.function(own)))(path.by_trajectory(raw))
        else:
            x = jnp.broadcast_to(along(path.function(raw)), (count, len(times)))
        mu = 0.5 + SLOPE * jnp.stack([x, -x], axis=-1)
        nothing = jnp.zeros(count)
        reported = {"x": x if isinstance(path, PooledPath) else x[0]}
        return Trajectories(reported, mu, 0.0 * mu, nothing.astype(int), nothing, jnp.zeros((count, 3), int), groups=groups)

    @property
    def about(self):
        return {
            "name": "Direct",
            "states": ["a", "b"],
            "parameters": [{"name": "x", "lower": -np.inf, "upper": np.inf}],
            "constants": {},
        }

    @property
    def solver(self):
        return {"method": "none"}


def seen(x, noise, seed):
    """Data of true paths `(R, T)` or constants `(R,)`."""
    x = np.asarray(x)
    x = x if x.ndim == 2 else np.repeat(x[:, None], len(TIMES), axis=1)
    shares = 0.5 + SLOPE * x + noise * np.random.default_rng(seed).standard_normal(x.shape)
    mask = np.broadcast_to([True, False], (*x.shape, 2))
    return Population(TIMES, proportions=np.stack([shares, 1.0 - shares], axis=-1), states=["a", "b"], mask=mask)
