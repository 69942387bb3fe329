"""The smallest model with a posterior, which several test files share: gamma of the linear-quadratic game, from two trajectories of eleven times."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from bayes_mfg.data import simulate
from bayes_mfg.equilibrium import TimeGrid
from bayes_mfg.games import LinearQuadratic
from bayes_mfg.models import Calibration, Dirichlet

GRID = TimeGrid(horizon=2.0, points=11)
STARTS = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
GAMMA, NOISE = 1.5, 1e-2


class Fragile(LinearQuadratic):
    """The linear-quadratic game, whose cost is not a number where gamma exceeds a limit."""

    limit: float = eqx.field(static=True)

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def running_cost(self, t, control, mu, params):
        return super().running_cost(t, control, mu, params) + jnp.where(params["gamma"] > self.limit, jnp.nan, 0.0)


def simulated(gamma=GAMMA, **noise):
    return simulate(LinearQuadratic(), {"gamma": gamma}, STARTS, GRID, **noise)


def calibration(population, game=None, **options):
    prior = {"gamma": options.pop("gamma", dist.LogNormal(0.0, 1.0))}
    observation = options.pop("observation", Dirichlet(noise=NOISE))
    # Sweeps alone compile in half the time of the automatic choice, and are what that comes to here.
    options = {"initial": STARTS, "substeps": 1, "method": "anderson", **options}
    return Calibration(game or LinearQuadratic(), population, prior, observation, **options)


def log_gamma(result):
    return np.log(result.tree["posterior"]["gamma"].isel(time=0).to_numpy())
