"""The emissions regulation game: firms on a ladder of emissions slow their climb; a regulator fines them by how the crowd has done."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from bayes_mfg.errors import InputError

from .base import Game, Parameter, check_size

VARIANTS = {"bandwagon": -1.0, "deterrent": 1.0}
"""Sign of the crowd's mean in the fine."""


class Emissions(Game):
    """Emissions `x = 0..d-1` grow by one at rate `b - alpha(x)`; agents choose the abatement `alpha` in `[0, b]`.

    Running cost `alpha^2 / 2`; terminal cost `lam max(x - Lam, 0) s` with the cap `Lam`, the price `lam` and, of the mean emissions
    `m = sum_x x mu_T(x)`, `s = 1 / (1 + exp(-k (m - Lam)))` in the variant "deterrent" (fined when the crowd is above the cap) or
    `s = 1 / (1 + exp(-k (Lam - m)))` in the variant "bandwagon" (fined when the crowd keeps to it, let off when all exceed it). The top state is
    absorbing. Best response `clip(u(x + 1) - u(x), 0, b)`, 0 at the top.

    "bandwagon" rewards doing as the others do and has several equilibria for one set of parameters: `solve` finds one, and which one depends on its
    `guess`; from a population that starts at `x = 3` with horizon 6, one has a mean near 5.6 and one near 8.9. A posterior
    by one branch says nothing of the others. "deterrent" has one equilibrium, beyond Picard iteration at every damping for a sharpness of 20.

    The cap has a kink at whole numbers, where a derivative by it is the mean of those from both sides.

    Not identified: the price from the sharpness where the mean stays on one side of the cap; a cap above the largest emissions reached;
    anything but the product `lam s` from a single population. There is no free scale of costs: the weight of `alpha^2` is fixed at 1/2.

    Source: Carmona, Delarue and Lachapelle, Math. Financ. Econ. 7 (2013), as a ladder in arXiv 2606.23155; the response is the first-order
    condition of the convex Hamiltonian.

    Parameters
    ----------
    n_states : number of rungs `d`, from 2 to 10000.
    base_rate : `b`, 1/time.
    variant : "bandwagon" or "deterrent".
    sharpness : `k`, how suddenly the regulator's judgement turns, per rung.
    cap : `Lam`, rungs.
    price : `lam`, cost per rung above the cap.

    Raises
    ------
    InputError : when a constant is outside its range.
    """

    base_rate: ArrayLike
    sharpness: ArrayLike
    cap: ArrayLike
    price: ArrayLike
    variant: str = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def __init__(
        self,
        n_states: int = 20,
        base_rate: ArrayLike = 1.0,
        variant: str = "bandwagon",
        sharpness: ArrayLike = 2.0,
        cap: ArrayLike = 6.0,
        price: ArrayLike = 5.0,
    ) -> None:
        if variant not in VARIANTS:
            raise InputError(f"Emissions: variant is {variant!r}; it is one of {', '.join(VARIANTS)}.")
        self.size = check_size(n_states, "Emissions")
        self.base_rate = base_rate
        self.variant = variant
        self.sharpness = sharpness
        self.cap = cap
        self.price = price

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(str(x) for x in range(self.size))

    @property
    def required(self) -> tuple[Parameter, ...]:
        return ()

    @property
    def optional(self) -> tuple[Parameter, ...]:
        return (
            Parameter("cap", lower=0.0, unit="rungs", description="emissions above which a firm can be fined"),
            Parameter("price", lower=0.0, unit="cost/rung", description="fine per rung above the cap"),
            Parameter("base_rate", lower=0.0, unit="1/time", description="rate of growth without abatement"),
            Parameter("sharpness", lower=0.0, unit="1/rung", description="how suddenly the regulator's judgement turns"),
        )

    @property
    def costs(self) -> tuple[str, ...]:
        return ("cap", "price", "sharpness")

    def best_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array]) -> Array:
        climb = jnp.concatenate([value[1:] - value[:-1], jnp.zeros(1, value.dtype)])
        return jnp.clip(climb, 0.0, self.constant(params, "base_rate"))

    def closed_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array], closed: Array) -> Array:
        # Emissions grow unless they are abated: below a closed rung firms have to abate in full, and pay for it.
        above = jnp.concatenate([closed[1:], jnp.zeros(1, closed.dtype)])
        return jnp.where(above > 0, self.constant(params, "base_rate"), self.best_response(t, value, mu, params))

    def rates(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        return jnp.diag((self.constant(params, "base_rate") - control)[:-1], k=1)

    def running_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        return 0.5 * control**2

    def terminal_cost(self, t: ArrayLike, mu: Array, params: Mapping[str, Array]) -> Array:
        rungs, cap = jnp.arange(self.size, dtype=mu.dtype), self.constant(params, "cap")
        beyond = VARIANTS[self.variant] * (jnp.sum(rungs * mu) - cap)
        judgement = jax.nn.sigmoid(self.constant(params, "sharpness") * beyond)
        return self.constant(params, "price") * jnp.maximum(rungs - cap, 0.0) * judgement
