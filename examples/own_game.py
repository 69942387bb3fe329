"""A game of one's own in fifty lines, from its equations to a posterior: commuters choose between bicycle, bus and car.

    python -m bayes_mfg.examples.own_game --out own_game.svg

A commuter who uses x pays a crowding cost for it, and a cost for every change of habit. What crowding costs, and how hard habits change, is inferred
from how many use what. docs/examples.md says what to read from the figure.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import bayes_mfg as bm


class Commuters(bm.games.Game):
    """Rates `a(x, y) = max(0, (u(x) - u(y)) / habit)` minimise `habit a^2 / 2 + a (u(y) - u(x))`."""

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("bicycle", "bus", "car")

    @property
    def required(self) -> tuple[bm.games.Parameter, ...]:
        return (
            bm.games.Parameter("habit", lower=0.0, closed=False, unit="cost x month", description="weight of changing a habit"),
            bm.games.Parameter("crowding", lower=0.0, unit="cost/month", description="cost of a full bus or road"),
        )

    def best_response(self, t, value, mu, params):
        return jnp.maximum(value[:, None] - value[None, :], 0.0) / params["habit"]

    def rates(self, t, control, mu, params):
        return control

    def running_cost(self, t, control, mu, params):
        effort = 0.5 * params["habit"] * jnp.sum(control**2, axis=1)
        return effort + jnp.array([1.0, 0.6, 0.4]) + params["crowding"] * jnp.array([0.0, 0.5, 1.0]) * mu

    def terminal_cost(self, t, mu, params):
        return jnp.zeros_like(mu)


def fitted(count: int = 300, draws: int = 500, seed: int = 0) -> bm.inference.Fit:
    """Two towns, `count` people asked every two months for two years; a posterior by NUTS, the first shares unknown as well."""
    grid = bm.equilibrium.TimeGrid(horizon=24.0, points=13)
    truth = {"habit": 20.0, "crowding": 1.5}
    towns = np.array([[0.1, 0.2, 0.7], [0.5, 0.4, 0.1]])
    asked = bm.data.simulate(Commuters(), truth, towns, grid, noise="multinomial", size=count, seed=seed, time_unit="months")
    priors = {"habit": dist.LogNormal(np.log(10.0), 1.0), "crowding": dist.LogNormal(0.0, 1.0)}
    model = bm.models.Calibration(Commuters(), asked, priors, bm.models.Multinomial(), substeps=2)
    return bm.inference.fit(model, num_chains=2, num_warmup=150, num_samples=draws, starts=1, seed=seed)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", default="own_game.svg")
    result = fitted()
    print(result.summary().to_string(), "\n".join(bm.inference.contraction(result).sentences), sep="\n")
    print(result.plot(parser.parse_args().out))
