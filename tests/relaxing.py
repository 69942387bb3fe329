"""A model whose posterior can be written down and which compiles at once, for tests of what is made of fits."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from bayes_mfg.data import Population
from bayes_mfg.equilibrium import Code
from bayes_mfg.games.base import Parameter
from bayes_mfg.inference import Fit
from bayes_mfg.inference.assemble import assemble
from bayes_mfg.models import ForwardModel, Trajectories
from bayes_mfg.paths import Constant

TIMES = np.linspace(0.0, 2.0, 11)
STARTS = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
FRESH = np.array([[0.1, 0.8, 0.1], [0.4, 0.2, 0.4], [0.3, 0.3, 0.4]])
REST = np.array([0.5, 0.3, 0.2])
GAMMA, NOISE = 1.5, 1e-2


class Relaxing(ForwardModel):
    """Populations that approach a resting one at the rate gamma: a model whose scores can be written down. Above gamma = 100 there are none."""

    def __init__(self, population, observation, initial=STARTS, horizon=None):
        path, about = Constant(prior=dist.LogNormal(0.0, 1.0)), Parameter("gamma", lower=0.0)
        super().__init__(population, {"gamma": path}, {"gamma": about}, observation, initial=initial, horizon=horizon, substeps=1)

    def trajectories(self, latents, data=None, key=None):
        start, times = latents["mu0"], jnp.asarray(self.grid.times)
        gamma = self.bound["gamma"].function(latents["raw"]["gamma"])(0.0, REST)
        mu = REST + (start[:, None] - REST) * jnp.exp(-gamma * times)[:, None]
        code = jnp.full(len(start), jnp.where(gamma > 100.0, Code.STALLED, Code.CONVERGED))
        zeros = jnp.zeros(len(start))
        return Trajectories({"gamma": jnp.full(len(times), gamma)}, mu, 0.0 * mu, code, zeros, jnp.zeros((len(start), 3), int))

    @property
    def about(self):
        return {"name": "Relaxing", "states": list(self.population.states), "parameters": [], "constants": {}}

    @property
    def solver(self):
        return {}


def mu_of(gamma, starts):
    return REST + (np.asarray(starts)[:, None] - REST) * np.exp(-gamma * TIMES)[:, None]


def simulated(noise="none", size=0.0, seed=0, starts=STARTS):
    mu, rng = mu_of(GAMMA, starts), np.random.default_rng(seed)
    if noise == "multinomial":
        return Population(TIMES, counts=rng.multinomial(size, mu))
    if noise == "dirichlet":
        mu = np.array([[rng.dirichlet(row / size) for row in one] for one in mu])
    if noise == "gaussian":
        error = size * rng.standard_normal(mu.shape)
        mu = mu + error - error.mean(axis=-1, keepdims=True)
    return Population(TIMES, proportions=mu)


def given(model, draws):
    """A fit whose draws of the unknowns are given, `(n, size)`."""
    flat = np.atleast_2d(np.asarray(draws, float))[None]
    return Fit(assemble(model, flat, method="nuts", seed=0, wall_time=0.0, settings={}, prior_samples=0), model)
