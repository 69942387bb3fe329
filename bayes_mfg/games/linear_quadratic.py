"""The linear-quadratic game: quadratic cost of moving away from a base rate, linear terminal reward, crowding."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from .base import Game, Parameter, check_size
from .invariances import Invariance, common_factor, only_product


class LinearQuadratic(Game):
    """Agents choose every transition rate `a(x, y)` in `[0, max_rate]`.

    Running cost `w gamma sum_{y != x} (a(x, y) - b)^2 (1 + kappa mu(y)) + c mu(x)^p`, terminal cost
    `s (d - 1 - x) + c_T mu(x)^p`, best response `clip(b - (u(y) - u(x)) / (2 w gamma (1 + kappa mu(y))), 0, max_rate)`.
    Not identified: a common factor of `gamma`, `s`, `c` and `c_T`; `gamma` and `w` but for their product.

    Source: arXiv 2606.23155, linear-quadratic benchmark.

    Parameters
    ----------
    n_states : number of states `d`, at least 2.
    terminal_slope : `s`, cost per state.
    congestion, congestion_power : `c` and `p` of the crowding cost; the power is a fixed number.
    control_weight : `w`.
    terminal_congestion : `c_T`.
    destination_congestion : `kappa`.
    base_rate : `b`, 1/time.
    max_rate : upper bound of every rate, 1/time.
    """

    terminal_slope: ArrayLike
    congestion: ArrayLike
    control_weight: ArrayLike
    terminal_congestion: ArrayLike
    destination_congestion: ArrayLike
    base_rate: ArrayLike
    max_rate: ArrayLike
    congestion_power: float = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def __init__(
        self,
        n_states: int = 3,
        terminal_slope: ArrayLike = 5.0,
        congestion: ArrayLike = 0.1,
        congestion_power: float = 1,
        control_weight: ArrayLike = 1.0,
        terminal_congestion: ArrayLike = 1.0,
        destination_congestion: ArrayLike = 0.0,
        base_rate: ArrayLike = 2.0,
        max_rate: ArrayLike = 100.0,
    ) -> None:
        Parameter("congestion_power", lower=0.0, closed=False).check(congestion_power, "LinearQuadratic")
        Parameter("max_rate", lower=0.0, closed=False).check(max_rate, "LinearQuadratic")
        self.size = check_size(n_states, "LinearQuadratic")
        self.terminal_slope = terminal_slope
        self.congestion = congestion
        self.congestion_power = congestion_power
        self.control_weight = control_weight
        self.terminal_congestion = terminal_congestion
        self.destination_congestion = destination_congestion
        self.base_rate = base_rate
        self.max_rate = max_rate

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(str(x) for x in range(self.size))

    @property
    def required(self) -> tuple[Parameter, ...]:
        return (Parameter("gamma", lower=0.0, closed=False, unit="cost x time", description="weight of the control cost"),)

    @property
    def optional(self) -> tuple[Parameter, ...]:
        return (
            Parameter("terminal_slope", unit="cost", description="terminal cost per state below the top"),
            Parameter("congestion", lower=0.0, unit="cost/time", description="running cost of crowding"),
            Parameter("control_weight", lower=0.0, closed=False, description="common factor of the control cost"),
            Parameter("terminal_congestion", lower=0.0, unit="cost", description="terminal cost of crowding"),
            Parameter("destination_congestion", lower=0.0, description="crowding at the destination in the control cost"),
            Parameter("base_rate", lower=0.0, unit="1/time", description="rate that costs nothing"),
        )

    @property
    def invariances(self) -> tuple[Invariance, ...]:
        costs = ("gamma", "terminal_slope", "congestion", "terminal_congestion")
        return (common_factor("all costs times a common factor", *costs), only_product("control_weight", "gamma"))

    @property
    def costs(self) -> tuple[str, ...]:
        return tuple(name for name in self.parameters if name != "base_rate")

    def _weight(self, mu: Array, params: Mapping[str, Array]) -> Array:
        """Factor of the squared deviation of the rate into each destination, `(d,)`."""
        crowding = 1.0 + self.constant(params, "destination_congestion") * mu
        return self.constant(params, "control_weight") * params["gamma"] * crowding

    def best_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array]) -> Array:
        gain = value[:, None] - value[None, :]
        rate = self.constant(params, "base_rate") + gain / (2.0 * self._weight(mu, params))
        return jnp.clip(rate, 0.0, self.max_rate) * (1.0 - jnp.eye(self.size, dtype=value.dtype))

    def rates(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        return control

    def running_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        crowding = self.constant(params, "congestion") * mu**self.congestion_power
        return jnp.sum(self._effort(control, mu, params), axis=1) + crowding

    def _effort(self, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        """Cost of the rate into each destination, `(d, d)`."""
        off_diagonal = 1.0 - jnp.eye(self.size, dtype=mu.dtype)
        return (control - self.constant(params, "base_rate")) ** 2 * off_diagonal * self._weight(mu, params)[None, :]

    def closed_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array], closed: Array) -> Array:
        # Taken off and not left out, so that whatever else a subclass adds to the running cost stays.
        return self.running_cost(t, control, mu, params) - jnp.sum(self._effort(control, mu, params) * closed[None, :], axis=1)

    def terminal_cost(self, t: ArrayLike, mu: Array, params: Mapping[str, Array]) -> Array:
        ladder = jnp.arange(self.size - 1, -1, -1, dtype=mu.dtype)
        crowding = self.constant(params, "terminal_congestion") * mu**self.congestion_power
        return self.constant(params, "terminal_slope") * ladder + crowding
