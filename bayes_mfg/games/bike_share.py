"""The bike share game: bicycles move between stations at rates that deviate from a base rate at a cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from bayes_mfg.errors import InputError

from .base import Game, Parameter, check_size
from .invariances import Invariance, common_factor, without_effect


class BikeShare(Game):
    """Agents at station `x` choose the rate `a(x, y) >= 0` of riding to every other station `y`.

    Running cost `B sum_{y != x} (a(x, y) - r(x, y))^2 + C sum_{y != x} mu(y) a(x, y) - sum_{y != x} k(x, y) a(x, y)` with base rates `r`,
    effort weight `B`, congestion `C` at the destination and a worth `k` of each ride; terminal cost `w(x)`; best response
    `a = max(0, r(x, y) + (k(x, y) - C mu(y) - (u(y) - u(x))) / (2 B))`. Both variants of the paper are in it: `k = 0` with a congestion and a
    terminal cost, and `C = 0`, `w = 0` with a neural `k(t, mu)`. With `C`, `k` and `w` all zero and the
    hard response the value is flat, and this is the forward mean-field dynamics at the base rates; a smooth response rides a little more, and
    what that is worth depends on the base rate: its value is flat only where it sums to the same at every station.

    Not identified: diagonals of `r` and `k`, which do not enter; a number added to the whole terminal cost; a common factor of `B`, `C`, `k` and
    `w`; a potential `phi(y) - phi(x)` added to `k` and `phi` to `w`, which the value takes up. The Hamiltonian's minimum over `a` is that of
    `B a^2 - (2 B r + k - C mu - Delta u) a`, plus `B sum_y r^2`: so at every moment `r` counts only through `2 B r + k` and through the differences
    between stations of `B sum_y r(x, y)^2`, which leaves `(d - 1)^2` directions of `r` against `k` without effect (own derivation). The population's
    marginals give `d - 1` equations a step for `d (d - 1)` rates, so priors decide most of `r`; where the value is flat, `r` and `k / (2 B)` enter
    only as their sum, and the congestion not at all while rates stay above zero: the rides that it prevents balance.

    With a `smoothing` rate `e > 0` agents also pay `-2 B e^2 log(a / e)` for each other station to which they ride at all: a last little
    riding is worth much. A closed ride pays none, so that `Closed(..., paid=True)`, too, can spare agents the log term of rides that they hardly
    want. The response is then `a = (m + sqrt(m^2 + 4 e^2)) / 2` with `m` what the maximum above is of: smooth and
    positive, `e` where the hard one has just come to zero, and about `e^2 / m` above it where rides pay. Likelihoods of the hard response have
    kinks wherever a rate reaches zero, which stop searches for modes and bend curvatures; those of the smooth one have none. Invariances are the
    same (own derivation).

    Source: arXiv 2606.23155, bike-share application; the response is the first-order condition of the convex Hamiltonian.

    Parameters
    ----------
    n_states : number of stations `d`, from 2 to 10000.
    effort : `B`, positive.
    congestion : `C`.
    terminal_cost : `w`, `(d,)`; zero unless given. (Kept as `station_cost`, because the method has the name.)
    edge_value : `k`, `(d, d)`; zero unless given. A constant here, or a parameter with any path.
    states : names of the stations, `d` of them; "0", "1", ... unless given.
    smoothing : `e`, a rate; exactly 0, the default, is the hard response of the paper.

    Raises
    ------
    InputError : when a constant has another shape or is outside its range, or names are not `d` different ones.
    """

    effort: ArrayLike
    congestion: ArrayLike
    station_cost: ArrayLike
    edge_value: ArrayLike
    smoothing: ArrayLike
    hard: bool = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        n_states: int = 6,
        effort: ArrayLike = 1.0,
        congestion: ArrayLike = 0.0,
        terminal_cost: ArrayLike | None = None,
        edge_value: ArrayLike | None = None,
        states: Sequence[str] | None = None,
        smoothing: ArrayLike = 0.0,
    ) -> None:
        Parameter("smoothing", lower=0.0).check(smoothing, "BikeShare")
        if np.shape(smoothing) != ():
            raise InputError(f"BikeShare: smoothing has shape {np.shape(smoothing)}; () is needed.")
        size = check_size(n_states, "BikeShare")
        names = tuple(str(x) for x in range(size)) if states is None else tuple(states)
        if len(names) != size or len(set(names)) != size or not all(isinstance(name, str) and name for name in names):
            raise InputError(f"BikeShare: states is {states!r}; {size} different names are needed.")
        self.effort = effort
        self.congestion = congestion
        self.station_cost = _array(np.zeros(size) if terminal_cost is None else terminal_cost)
        self.edge_value = _array(np.zeros((size, size)) if edge_value is None else edge_value)
        self.names = names
        self.smoothing = smoothing
        # Zero is another formula, so it is decided here and not where the rate is traced.
        self.hard = not isinstance(smoothing, jax.core.Tracer) and float(np.asarray(smoothing)) == 0.0

    def __check_init__(self) -> None:
        own = self.parameters["terminal_cost"]
        own.check(self.station_cost, "BikeShare")
        if np.shape(self.station_cost) != own.shape:
            raise InputError(f"BikeShare: terminal_cost has shape {np.shape(self.station_cost)}; {own.shape} is needed.")

    @property
    def state_names(self) -> tuple[str, ...]:
        return self.names

    @property
    def required(self) -> tuple[Parameter, ...]:
        d = len(self.names)
        return (
            Parameter(
                "base_rate",
                lower=0.0,
                unit="1/time",
                description="rates that cost no effort, from row to column",
                shape=(d, d),
                diagonal=False,
            ),
        )

    @property
    def optional(self) -> tuple[Parameter, ...]:
        d = len(self.names)
        return (
            Parameter(
                "effort", lower=0.0, closed=False, unit="cost x time", description="weight of deviating from the base rates"
            ),
            Parameter("congestion", lower=0.0, unit="cost", description="cost of riding to a full station, per share there"),
            Parameter("edge_value", unit="cost", description="worth of a ride from row to column", shape=(d, d), diagonal=False),
        )

    @property
    def parameters(self) -> dict[str, Parameter]:
        # Not among `optional`, which are read by their names: an attribute `terminal_cost` would hide the method.
        terminal = Parameter("terminal_cost", unit="cost", description="cost of ending at each station", shape=(len(self.names),))
        return {**super().parameters, terminal.name: terminal}

    def constant(self, params: Mapping[str, Array], name: str) -> Array:
        if name == "terminal_cost":
            return params[name] if name in params else jnp.asarray(self.station_cost)
        return super().constant(params, name)

    @property
    def invariances(self) -> tuple[Invariance, ...]:
        d = len(self.names)

        def turned(params: Mapping[str, Array], amount: Array) -> dict[str, Array]:
            return self._against_rides(params, _same_length(params["base_rate"], amount * self._elsewhere(amount.dtype)))

        def longer(params: Mapping[str, Array], amount: Array) -> dict[str, Array]:
            squares = jnp.sum(self._elsewhere(amount.dtype) * params["base_rate"] ** 2, axis=1, keepdims=True)
            # A station without base rates has no square to change, and the others may not change without it.
            some = squares > 0
            factor = jnp.sqrt(1.0 + jnp.all(some) * amount / jnp.where(some, squares, 1.0))
            return self._against_rides(params, params["base_rate"] * factor)

        def potential(params: Mapping[str, Array], amount: Array) -> dict[str, Array]:
            return {
                "edge_value": params["edge_value"] + amount[None, :] - amount[:, None],
                "terminal_cost": params["terminal_cost"] + amount,
            }

        rates = ("base_rate", "edge_value")
        return (
            *self._idle,
            Invariance(
                "one number added to the whole terminal cost",
                ("terminal_cost",),
                lambda params, amount: {"terminal_cost": params["terminal_cost"] + amount},
            ),
            common_factor("all costs times a common factor", "effort", "congestion", "edge_value", "terminal_cost"),
            Invariance(
                "base rates against worths of rides, at constant squares", rates, turned, (d, d), pointwise=True, flat=False
            ),
            Invariance(
                "squares of base rates by the same at all stations, against worths", rates, longer, pointwise=True, flat=False
            ),
            Invariance(
                "a potential in worths of rides and terminal cost",
                ("edge_value", "terminal_cost"),
                potential,
                (d,),
                flat=False,
                exact=False,
            ),
        )

    @property
    def costs(self) -> tuple[str, ...]:
        return ("terminal_cost",)

    @property
    def invariances_of_flow(self) -> tuple[Invariance, ...]:
        def moved(params: Mapping[str, Array], amount: Array) -> dict[str, Array]:
            return self._against_rides(params, params["base_rate"] + amount)

        d = len(self.names)
        factor = Invariance(
            "effort, congestion and worths of rides times a common factor",
            ("effort", "congestion", "edge_value"),
            lambda params, amount: {p: params[p] * jnp.exp(amount) for p in ("effort", "congestion", "edge_value")},
            pointwise=True,
        )
        against = Invariance("base rates against worths of rides", ("base_rate", "edge_value"), moved, (d, d), pointwise=True)
        return (
            *self._idle,
            without_effect("terminal_cost", "terminal_cost has no effect without foresight", (d,)),
            factor,
            against,
        )

    @property
    def _idle(self) -> tuple[Invariance, ...]:
        d = len(self.names)

        def added(name: str) -> Invariance:
            def change(params: Mapping[str, Array], amount: Array) -> dict[str, Array]:
                return {name: params[name] + jnp.diag(amount)}

            return Invariance(f"the diagonal of {name} does not enter", (name,), change, (d,), pointwise=True)

        return (added("base_rate"), added("edge_value"))

    def _against_rides(self, params: Mapping[str, Array], base_rate: Array) -> dict[str, Array]:
        """Other base rates off the diagonal, with the worths of rides that leave `2 B r + k` as it is."""
        moved = (base_rate - params["base_rate"]) * self._elsewhere(base_rate.dtype)
        return {"base_rate": params["base_rate"] + moved, "edge_value": params["edge_value"] - 2.0 * params["effort"] * moved}

    def _elsewhere(self, dtype: Any) -> Array:
        return 1.0 - jnp.eye(len(self.names), dtype=dtype)

    def best_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array]) -> Array:
        worth = self.constant(params, "edge_value") - self.constant(params, "congestion") * mu[None, :]
        gain = worth + value[:, None] - value[None, :]
        rate = params["base_rate"] + gain / (2.0 * self.constant(params, "effort"))
        if self.hard:
            return jnp.maximum(rate, 0.0) * self._elsewhere(value.dtype)
        size = jnp.sqrt(rate**2 + 4.0 * self.smoothing**2)
        # Two forms of one number: where the rate is negative the sum would cancel.
        smooth = jnp.where(rate > 0, 0.5 * (rate + size), 2.0 * self.smoothing**2 / (size + jnp.abs(rate)))
        return smooth * self._elsewhere(value.dtype)

    def rates(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        return control

    def running_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        return jnp.sum(self._rides(control, mu, params), axis=1)

    def _rides(self, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        """Cost of the rides to each destination, `(d, d)`."""
        effort = self.constant(params, "effort") * (control - params["base_rate"]) ** 2
        worth = self.constant(params, "edge_value") - self.constant(params, "congestion") * mu[None, :]
        cost = effort - worth * control
        if not self.hard:
            moving = control > 0  # nobody moves on the diagonal and to what is closed
            some = jnp.where(moving, control, self.smoothing)
            cost = cost - 2.0 * self.constant(params, "effort") * self.smoothing**2 * jnp.log(some / self.smoothing)
        return cost * self._elsewhere(mu.dtype)

    def closed_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array], closed: Array) -> Array:
        # Taken off and not left out, so that whatever else a subclass adds to the running cost stays.
        return self.running_cost(t, control, mu, params) - jnp.sum(self._rides(control, mu, params) * closed[None, :], axis=1)

    def terminal_cost(self, t: ArrayLike, mu: Array, params: Mapping[str, Array]) -> Array:
        return self.constant(params, "terminal_cost") + jnp.zeros_like(mu)


def _array(value: Any) -> Any:
    """Lists, as a config has them, and whole numbers as arrays of floats; what is no array of numbers is left to the checks."""
    try:
        return np.asarray(value, dtype=float) if isinstance(value, list | tuple | np.ndarray) else value
    except (TypeError, ValueError):
        return value


def _same_length(rates: Array, moved: Array) -> Array:
    """Base rates with something added, every row scaled to the length that it had off the diagonal."""
    off = 1.0 - jnp.eye(len(rates), dtype=rates.dtype)
    new = rates + moved
    before, after = (jnp.sum(off * x**2, axis=1, keepdims=True) for x in (rates, new))
    some = (before > 0) & (after > 0)  # a row of zeros stays one
    return jnp.where(some, new * jnp.sqrt(jnp.where(some, before, 1.0) / jnp.where(some, after, 1.0)), rates)
