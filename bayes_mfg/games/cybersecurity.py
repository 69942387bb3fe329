"""The cybersecurity game: computers choose whether to pay for a defence while an attacker and the infected spread malware."""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from bayes_mfg.errors import InputError

from .base import Game, Parameter
from .invariances import Invariance, common_factor, only_product

# DI, DS, UI, US: the state on the other side of the defence.
_OTHER = np.array([2, 3, 0, 1])
_DEFENDED = np.array([1.0, 1.0, 0.0, 0.0])
_INFECTED = np.array([1.0, 0.0, 1.0, 0.0])


class Cybersecurity(Game):
    """Defended or undefended (D, U), infected or susceptible (I, S); agents choose `alpha` in `[0, 1]`, how hard they try to switch sides.

    Rates: `switch_rate alpha(x)` from every state to the one across the defence (DI <-> UI, DS <-> US); recovery `DI -> DS: q_rec_D`,
    `UI -> US: q_rec_U`; infection `DS -> DI: v q_inf_D + beta_DD mu(DI) + beta_UD mu(UI)`,
    `US -> UI: v q_inf_U + beta_UU mu(UI) + beta_DU mu(DI)` with `v` the attack intensity. Running cost `defence_cost` in D states plus
    `infection_cost` in I states; no terminal cost.

    The Hamiltonian `switch_rate alpha (u(other) - u(x))` is linear in `alpha`: its minimiser jumps from 0 to 1 where the two values cross, and an
    equilibrium jumps with it as a function of the parameters. With a temperature `tau > 0` agents also pay
    `tau [alpha log(2 alpha) + (1 - alpha) log(2 (1 - alpha))]`, the relative entropy of their choice to a fair coin (between 0 and
    `tau log 2`). The exact minimiser is then smooth, `alpha = 1 / (1 + exp(switch_rate (u(other) - u(x)) / tau))`, and an equilibrium is one of
    that regularised game. `tau = 0` is the hard response, `alpha = 1` where switching lowers the value and 0 otherwise, at ties too: for
    simulation, not for derivatives.

    The default temperature is small enough to leave the equilibrium of the paper's settings (constant parameters, horizon 10, 100 points)
    within 1e-3 of the hard one, and no smaller, because sharpness costs smooth gradients. Measured there in `max |mu|`: 0.21 at `tau = 0.3`, 0.12
    at 0.1, 0.038 at 0.03, 0.012 at 0.01, 8.6e-4 at 0.003, 1.2e-4 at the default 0.002. The difference lies at the end, where values meet for want
    of a terminal cost and agents are undecided for about `tau / (switch_rate defence_cost)` time units: on much finer grids it is `1.3 tau`, 2.6e-3
    at the default, and until one time unit before the end it is below 1e-8 for `tau <= 0.01`. Where parameters make values cross before the end, so
    sharp a response turns within one step of a grid; raise the temperature to about `switch_rate defence_cost` times the step for gradients that
    vary smoothly, at the price of a changed game.

    Not identified: the attack intensity from `q_inf_D` and `q_inf_U` (only their products enter); at `tau = 0` a common factor of both costs, and
    either cost at all while the optimal switches do not depend on it, as in the paper's settings. Where nobody is ever defended, `beta_DD`,
    `beta_DU`, `beta_UD`, `q_rec_D` and `q_inf_D` leave no trace.

    Source: Kolokoltsov and Bensoussan, Appl. Math. Optim. 74 (2016); Carmona and Delarue, Probabilistic Theory of Mean Field Games I (2018),
    section 7.2.3; settings of arXiv 2606.23155. The entropy-regularised response: own derivation, from
    `switch_rate (u(other) - u(x)) + tau log(alpha / (1 - alpha)) = 0`.

    Parameters
    ----------
    defence_cost : cost per time of being defended.
    infection_cost : cost per time of being infected.
    switch_rate : largest rate of switching the defence on or off, 1/time.
    attack_intensity : `v`, factor of both direct infection rates.
    temperature : `tau`, cost per time, at least 0; exactly 0 is the hard response.

    Raises
    ------
    InputError : when a constant is outside its range.
    """

    defence_cost: ArrayLike
    infection_cost: ArrayLike
    switch_rate: ArrayLike
    attack_intensity: ArrayLike
    temperature: ArrayLike
    hard: bool = eqx.field(static=True)

    def __init__(
        self,
        defence_cost: ArrayLike = 0.3,
        infection_cost: ArrayLike = 0.5,
        switch_rate: ArrayLike = 0.8,
        attack_intensity: ArrayLike = 0.6,
        temperature: ArrayLike = 0.002,
    ) -> None:
        Parameter("temperature", lower=0.0).check(temperature, "Cybersecurity")
        if np.shape(temperature) != ():
            raise InputError(f"Cybersecurity: temperature has shape {np.shape(temperature)}; () is needed.")
        self.defence_cost = defence_cost
        self.infection_cost = infection_cost
        self.switch_rate = switch_rate
        self.attack_intensity = attack_intensity
        self.temperature = temperature
        # Zero is another formula, so it is decided here and not where the temperature is traced.
        self.hard = not isinstance(temperature, jax.core.Tracer) and float(np.asarray(temperature)) == 0.0

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("DI", "DS", "UI", "US")

    @property
    def required(self) -> tuple[Parameter, ...]:
        def rate(name: str, description: str) -> Parameter:
            return Parameter(name, lower=0.0, unit="1/time", description=description)

        return (
            rate("q_rec_D", "recovery rate of the defended"),
            rate("q_rec_U", "recovery rate of the undefended"),
            rate("q_inf_D", "direct infection rate of the defended at attack intensity one"),
            rate("q_inf_U", "direct infection rate of the undefended at attack intensity one"),
            rate("beta_DD", "contagion rate from defended to defended"),
            rate("beta_DU", "contagion rate from defended to undefended"),
            rate("beta_UU", "contagion rate from undefended to undefended"),
            rate("beta_UD", "contagion rate from undefended to defended"),
        )

    @property
    def optional(self) -> tuple[Parameter, ...]:
        return (
            Parameter("defence_cost", lower=0.0, unit="cost/time", description="cost of being defended"),
            Parameter("infection_cost", lower=0.0, unit="cost/time", description="cost of being infected"),
            Parameter("switch_rate", lower=0.0, unit="1/time", description="largest rate of switching the defence"),
            Parameter("attack_intensity", lower=0.0, description="factor of the direct infection rates"),
        )

    @property
    def invariances(self) -> tuple[Invariance, ...]:
        # The temperature is a cost, too, and no parameter: above zero it fixes the scale.
        scale = (common_factor("both costs times a common factor", "defence_cost", "infection_cost"),) if self.hard else ()
        return (only_product("attack_intensity", "q_inf_D", "q_inf_U"), *scale)

    @property
    def costs(self) -> tuple[str, ...]:
        # The hard response to a flat value is never to switch.
        return ("defence_cost", "infection_cost", *(("switch_rate",) if self.hard else ()))

    def best_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array]) -> Array:
        gain = self.constant(params, "switch_rate") * (value - value[_OTHER])
        if self.hard:
            return jnp.where(gain > 0, 1.0, 0.0).astype(value.dtype)
        return jax.nn.sigmoid(gain / self.temperature)

    def rates(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        switch = self.constant(params, "switch_rate") * control
        attack = self.constant(params, "attack_intensity")
        infection_d = attack * params["q_inf_D"] + params["beta_DD"] * mu[0] + params["beta_UD"] * mu[2]
        infection_u = attack * params["q_inf_U"] + params["beta_UU"] * mu[2] + params["beta_DU"] * mu[0]
        zero = jnp.zeros_like(infection_d)
        recovery_d, recovery_u = params["q_rec_D"] + zero, params["q_rec_U"] + zero
        return jnp.stack(
            [
                jnp.stack([zero, recovery_d, switch[0], zero]),
                jnp.stack([infection_d, zero, zero, switch[1]]),
                jnp.stack([switch[2], zero, zero, recovery_u]),
                jnp.stack([zero, switch[3], infection_u, zero]),
            ]
        )

    def running_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        defended, infected = jnp.asarray(_DEFENDED, mu.dtype), jnp.asarray(_INFECTED, mu.dtype)
        cost = self.constant(params, "defence_cost") * defended + self.constant(params, "infection_cost") * infected
        if self.hard:
            return cost + jnp.zeros_like(control)
        choice = _plogp(control) + _plogp(1.0 - control) + math.log(2.0)
        return cost + self.temperature * choice

    def terminal_cost(self, t: ArrayLike, mu: Array, params: Mapping[str, Array]) -> Array:
        return jnp.zeros_like(mu)


def _plogp(p: Array) -> Array:
    """`p log p`, 0 with derivative 0 at `p = 0`: a response that rounds to certainty no longer moves with the value."""
    inside = p > 0
    return jnp.where(inside, p * jnp.log(jnp.where(inside, p, 1.0)), 0.0)
