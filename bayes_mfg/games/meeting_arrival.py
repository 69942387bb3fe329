"""The meeting arrival game: when to come to a meeting that starts once enough people are there."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from .base import Game, Parameter, check_size


class MeetingArrival(Game):
    """Agents at distance `x = d-1..0` choose the rate `a` in `[0, max_rate]` of coming one step nearer.

    State "0", the first in all arrays, has arrived and stays: an array's index is the distance. Running cost `a^2 / 2`; the not arrived also pay
    `c1 1{t > schedule} + c2 s((mu(0) - theta) / width)`, lateness against the schedule and absence from a meeting that has started; the arrived
    pay `c3 s((theta - mu(0)) / width)`, waiting for it to start. `s` is the logistic function; the meeting starts when a share `theta` is there. No
    terminal cost. Best response `clip(u(x) - u(x - 1), 0, max_rate)`.

    The step in time is smoothed as well, `s((t - schedule) / schedule_width)`: a jump inside a step of the grid would cost the scheme its second
    order, and a derivative by the schedule would not exist. Take steps of at most twice the width near the schedule to see the order.

    Not identified: `c2` where the quorum is never reached, `c3` where it is there from the start; `c1` from the schedule when only late
    arrivals are seen. There is no free scale of costs: the weight of `a^2` is fixed at 1/2.

    Source: Guéant, Lasry and Lions, Mean field games and applications (2011), the meeting; in arXiv 2504.13228; as a ladder with local running
    costs: own derivation (lateness and waiting are integrals over time of being in a state). The response is the first-order condition of the
    convex Hamiltonian.

    Parameters
    ----------
    n_states : number of distances `d`, arrived included, from 2 to 10000.
    schedule : the announced time.
    width : shares over which the start is smoothed.
    schedule_width : time over which lateness sets in.
    max_rate : upper bound of the rate, 1/time.

    Raises
    ------
    InputError : when a constant is outside its range.
    """

    schedule: ArrayLike
    width: ArrayLike
    schedule_width: ArrayLike
    max_rate: ArrayLike
    size: int = eqx.field(static=True)

    def __init__(
        self,
        n_states: int = 10,
        schedule: ArrayLike = 1.0,
        width: ArrayLike = 0.02,
        schedule_width: ArrayLike = 0.02,
        max_rate: ArrayLike = 100.0,
    ) -> None:
        for name, value in (("width", width), ("schedule_width", schedule_width), ("max_rate", max_rate)):
            Parameter(name, lower=0.0, closed=False).check(value, "MeetingArrival")
        self.size = check_size(n_states, "MeetingArrival")
        self.schedule = schedule
        self.width = width
        self.schedule_width = schedule_width
        self.max_rate = max_rate

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(str(x) for x in range(self.size))

    @property
    def required(self) -> tuple[Parameter, ...]:
        return (
            Parameter("quorum", lower=0.0, upper=1.0, unit="share", description="share whose arrival starts the meeting"),
            Parameter("lateness", lower=0.0, unit="cost/time", description="cost of not being there after the schedule"),
            Parameter("absence", lower=0.0, unit="cost/time", description="cost of not being there after the start"),
            Parameter("waiting", lower=0.0, unit="cost/time", description="cost of being there before the start"),
        )

    @property
    def optional(self) -> tuple[Parameter, ...]:
        return (Parameter("schedule", unit="time", description="announced time of the meeting"),)

    @property
    def costs(self) -> tuple[str, ...]:
        return tuple(self.parameters)

    def best_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array]) -> Array:
        nearer = jnp.concatenate([jnp.zeros(1, value.dtype), value[1:] - value[:-1]])
        return jnp.clip(nearer, 0.0, self.max_rate)

    def closed_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array], closed: Array) -> Array:
        nearer = jnp.concatenate([jnp.zeros(1, closed.dtype), closed[:-1]])
        return self.best_response(t, value, mu, params) * (1.0 - nearer)

    def rates(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        return jnp.diag(control[1:], k=-1)

    def running_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        late = jax.nn.sigmoid((t - self.constant(params, "schedule")) / self.schedule_width)
        ahead = (mu[0] - params["quorum"]) / self.width
        away = params["lateness"] * late + params["absence"] * jax.nn.sigmoid(ahead)
        there = params["waiting"] * jax.nn.sigmoid(-ahead)
        arrived = jnp.arange(self.size) == 0
        return 0.5 * control**2 + jnp.where(arrived, there, away)

    def terminal_cost(self, t: ArrayLike, mu: Array, params: Mapping[str, Array]) -> Array:
        return jnp.zeros_like(mu)
