"""The El Farol bar: pleasant while it is not crowded."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from .base import Game, Parameter
from .invariances import Invariance, common_factor


class ElFarol(Game):
    """Agents at home or at the bar choose the rate `a` in `[0, max_rate]` at which they go to the other place.

    Running cost `k a^2 / 2` plus crowding `p (mu(bar) - theta)_+` at the bar, regret `r (theta - mu(bar))_+` at home; no terminal cost. The positive
    part is smoothed, `(z)_+ = width log(1 + exp(z / width))`, which is off by at most `0.69 width` and has no kink in the threshold. Best
    response `clip((u(x) - u(other)) / k, 0, max_rate)`.

    Not identified: a common factor of `p`, `r` and `k`; the crowding cost while the bar stays below the threshold, and the regret while it
    stays above, but for the smoothing's width.

    Source: Arthur, Am. Econ. Rev. 84 (1994); as a mean field game in arXiv 2504.13228; the response is the first-order condition of the
    convex Hamiltonian.

    Parameters
    ----------
    max_rate : upper bound of the switching rate, 1/time.
    width : shares over which the positive parts are smoothed.

    Raises
    ------
    InputError : when a constant is outside its range.
    """

    max_rate: ArrayLike = 10.0
    width: ArrayLike = 0.02

    def __check_init__(self) -> None:
        Parameter("max_rate", lower=0.0, closed=False).check(self.max_rate, "ElFarol")
        Parameter("width", lower=0.0, closed=False).check(self.width, "ElFarol")

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("home", "bar")

    @property
    def required(self) -> tuple[Parameter, ...]:
        return (
            Parameter("threshold", lower=0.0, upper=1.0, unit="share", description="share at the bar that makes it crowded"),
            Parameter("crowding", lower=0.0, unit="cost/time", description="cost at the bar per share above the threshold"),
            Parameter("regret", lower=0.0, unit="cost/time", description="cost at home per share below the threshold"),
            Parameter("switching_cost", lower=0.0, closed=False, unit="cost x time", description="weight of the squared rate"),
        )

    @property
    def invariances(self) -> tuple[Invariance, ...]:
        return (common_factor("all costs times a common factor", "crowding", "regret", "switching_cost"),)

    @property
    def costs(self) -> tuple[str, ...]:
        return tuple(self.parameters)

    def best_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array]) -> Array:
        return jnp.clip((value - value[::-1]) / params["switching_cost"], 0.0, self.max_rate)

    def closed_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array], closed: Array) -> Array:
        return self.best_response(t, value, mu, params) * (1.0 - closed[::-1])

    def rates(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        zero = jnp.zeros_like(control[0])
        return jnp.stack([jnp.stack([zero, control[0]]), jnp.stack([control[1], zero])])

    def running_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        above = mu[1] - params["threshold"]
        home = params["regret"] * self.width * jax.nn.softplus(-above / self.width)
        bar = params["crowding"] * self.width * jax.nn.softplus(above / self.width)
        return 0.5 * params["switching_cost"] * control**2 + jnp.stack([home, bar])

    def terminal_cost(self, t: ArrayLike, mu: Array, params: Mapping[str, Array]) -> Array:
        return jnp.zeros_like(mu)
