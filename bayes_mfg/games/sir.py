"""The SIR epidemic game: the susceptible avoid contact at a cost."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from .base import Game, Parameter
from .invariances import Invariance, common_factor


class SIR(Game):
    """Susceptible agents choose a contact factor `alpha` in `[0, 1]`.

    Rates `S -> I: beta alpha mu(I)`, `I -> R: recovery`; running costs `c_a / 2 (1 - alpha)^2` in S, `c_I` in I; no terminal cost.
    Best response `alpha = clip(1 - beta mu(I) (u(I) - u(S)) / c_a, 0, 1)`.
    Source: arXiv 2606.23155, epidemic benchmark; the closed form is the first-order condition of the convex Hamiltonian in `alpha`.

    Multiplying both costs by one factor changes nothing: fix at least one of them.

    Parameters
    ----------
    contact_cost : `c_a`, cost per time of a full reduction of contact, times two.
    infection_cost : `c_I`, cost per time of being infected.
    """

    contact_cost: ArrayLike = 1.0
    infection_cost: ArrayLike = 0.1

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("S", "I", "R")

    @property
    def required(self) -> tuple[Parameter, ...]:
        return (
            Parameter("beta", lower=0.0, unit="1/time", description="contagion rate at full contact"),
            Parameter("recovery", lower=0.0, unit="1/time", description="recovery rate"),
        )

    @property
    def optional(self) -> tuple[Parameter, ...]:
        return (
            Parameter("contact_cost", lower=0.0, closed=False, unit="cost/time", description="cost of reducing contact"),
            Parameter("infection_cost", lower=0.0, unit="cost/time", description="cost of being infected"),
        )

    @property
    def invariances(self) -> tuple[Invariance, ...]:
        return (common_factor("both costs times a common factor", *self.costs),)

    @property
    def costs(self) -> tuple[str, ...]:
        return ("contact_cost", "infection_cost")

    def best_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array]) -> Array:
        risk = params["beta"] * mu[1] * (value[1] - value[0])
        return jnp.clip(1.0 - risk / self.constant(params, "contact_cost"), 0.0, 1.0)

    def rates(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        infection = params["beta"] * control * mu[1]
        zero = jnp.zeros_like(infection)
        recovery = params["recovery"] + zero
        return jnp.stack([jnp.stack([zero, infection, zero]), jnp.stack([zero, zero, recovery]), jnp.stack([zero, zero, zero])])

    def running_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        avoidance = 0.5 * self.constant(params, "contact_cost") * (1.0 - control) ** 2
        infection = self.constant(params, "infection_cost") + jnp.zeros_like(avoidance)
        return jnp.stack([avoidance, infection, jnp.zeros_like(avoidance)])

    def terminal_cost(self, t: ArrayLike, mu: Array, params: Mapping[str, Array]) -> Array:
        return jnp.zeros_like(mu)
