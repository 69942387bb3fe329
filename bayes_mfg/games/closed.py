"""A game in which a state is closed for a while: nobody may move into it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from bayes_mfg.errors import InputError

from .around import Around
from .base import Game, Parameter
from .forward_dynamics import ForwardDynamics

PROBES = 3
"""Moments at which a closure is tried before anything is solved."""

PRICES = (1e6, 1e3, 30.0)
"""What arriving costs more in these trials, the first under which nobody arrives."""


class Closed(Around):
    """Any game, with one state closed to arrivals from `start` until just before `end`.

    While it is closed, no agent may choose a control that moves it there. Who is inside may stay, at the state's usual costs, and may leave, but
    cannot come back before the end. Agents know the window from the start of the game, and play the best response among the controls that are
    left: the minimiser of the Hamiltonian under rates of zero into the closed state. Nothing else is forbidden; the terminal cost is the game's own.

    What not going there costs is left out, too: a closed destination is no choice any more, and in games with base rates (`BikeShare`,
    `LinearQuadratic`) the term of its deviation from the base rate goes, as if the base rate to it were zero. With `paid=True` agents go on paying
    it, as for demand that is not met: the same game, minimised under the constraint. The first can make agents better off, the second, at given
    populations, never does; only a smooth `BikeShare`, in which no ride at all has an infinite price, takes the price of its smoothing off either
    way, and so can be better off closed. Where a rate of zero costs nothing (`ElFarol`, `MeetingArrival`) the two are one; in `Emissions` firms
    below a closed rung have to abate in full and always pay for that.

    A state into which agents are moved whether they want or not, as by infection, cannot be closed. Games say in `closed_response` and
    `closed_cost` what a closure means; closures can be nested.

    The window's ends should be nodes of the solver's grid, to the last digit: a step is open or closed by its middle (in the paper's scheme by its
    left end), so that an end inside a step is moved to one of its ends, an error of first order.

    Source: own derivation; closed stations as in arXiv 2606.23155, bike-share application.

    Parameters
    ----------
    game : the game.
    state : name of the state.
    start, end : the window, `start <= t < end`; by default from the beginning and for ever.
    paid : whether agents go on paying what a rate of zero into the closed state costs.

    Raises
    ------
    InputError : when `game` is no game or has no such state, the window is empty, nobody can be kept from moving into the state, or trials show that
        `closed_response` is not the best that is left, or (without `paid`) that `closed_cost` does not leave out what not going there costs.
    """

    # Invariances are not the inner game's: a window breaks some.
    state: str = eqx.field(static=True)
    start: ArrayLike = -math.inf
    end: ArrayLike = math.inf
    paid: bool = eqx.field(static=True, default=False)

    def __check_init__(self) -> None:
        if not isinstance(self.game, Game):
            raise InputError(f"Closed: game is {self.game!r}; a Game is needed.")
        if self.state not in self.game.state_names:
            raise InputError(f"Closed: there is no state {self.state!r}; the game has {', '.join(self.game.state_names)}.")
        for name in ("start", "end"):
            time = getattr(self, name)
            if isinstance(time, jax.core.Tracer):
                continue
            if isinstance(time, bool) or not isinstance(time, int | float | np.number | Array) or np.shape(time) != ():
                raise InputError(f"Closed: {name} is {time!r}; a time is needed.")
        if not isinstance(self.paid, bool):
            raise InputError(f"Closed: paid is {self.paid!r}; True or False is needed.")
        if isinstance(self.start, jax.core.Tracer) or isinstance(self.end, jax.core.Tracer):
            return
        start, end = float(np.asarray(self.start)), float(np.asarray(self.end))
        if not start < end:
            raise InputError(f"Closed: the window from {start:g} to {end:g} is empty.")
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(self.game)):
            self._try()

    def _try(self) -> None:
        """Refuse a closure under which agents still arrive, do not choose the best of what is left, or pay for what is said to be free."""
        rng = np.random.default_rng(0)
        # Agents of the forward dynamics see no value: what they do is asked of the game inside.
        game = self.game.game if isinstance(self.game, ForwardDynamics) else self.game
        d, place = game.n_states, game.state_names.index(self.state)
        with jax.ensure_compile_time_eval():
            for k in range(PROBES):
                params = {p.name: jnp.asarray(_inside(p, rng)) for p in game.required}
                mu, value = jnp.asarray(rng.dirichlet(np.ones(d))), jnp.asarray(rng.normal(0.0, 1.0 + k, d))
                closed = (jnp.arange(d) == place).astype(mu.dtype)
                control = game.closed_response(0.0, value, mu, params, closed)
                rates = np.asarray(game.rates(0.0, control, mu, params))
                if np.any(rates[:, place] != 0):
                    origin = game.state_names[int(np.flatnonzero(rates[:, place])[0])]
                    raise InputError(
                        f"Closed: {self.state!r} of {type(game).__name__} cannot be closed; agents move there from {origin!r} all the same."
                    )
                _check_response(game, place, value, mu, params, rates)
                if not self.paid and np.shape(control) == (d, d):
                    _check_cost(self.game, place, control, mu, params, closed)

    def _shut(self, t: ArrayLike, mu: Array) -> Array:
        """1 for the state while it is closed, `(d,)`."""
        place = self.state_names.index(self.state)
        within = (t >= jnp.asarray(self.start, mu.dtype)) & (t < jnp.asarray(self.end, mu.dtype))
        return jnp.zeros_like(mu).at[place].set(jnp.where(within, 1.0, 0.0))

    def best_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array]) -> Any:
        return self.game.closed_response(t, value, mu, params, self._shut(t, mu))

    def closed_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array], closed: Array) -> Any:
        return self.game.closed_response(t, value, mu, params, jnp.maximum(closed, self._shut(t, mu)))

    def rates(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        return self.game.rates(t, control, mu, params)

    def running_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        return self.closed_cost(t, control, mu, params, jnp.zeros_like(mu))

    def closed_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array], closed: Array) -> Array:
        free = closed if self.paid else jnp.maximum(closed, self._shut(t, mu))
        return self.game.closed_cost(t, control, mu, params, free)

    def terminal_cost(self, t: ArrayLike, mu: Array, params: Mapping[str, Array]) -> Array:
        return self.game.terminal_cost(t, mu, params)


def _inside(parameter: Parameter, rng: np.random.Generator) -> np.ndarray:
    """Values inside a parameter's support."""
    low, high, share = parameter.lower, parameter.upper, rng.uniform(0.2, 0.8, parameter.shape)
    if math.isfinite(low) and math.isfinite(high):
        return low + (high - low) * share
    return low + 2.0 * share if math.isfinite(low) else high - 2.0 * share if math.isfinite(high) else 2.0 * share - 1.0


def _check_response(game: Game, place: int, value: Array, mu: Array, params: Mapping[str, Array], rates: np.ndarray) -> None:
    """Refuse a closed response that is not the best among controls that bring nobody in.

    The best of them is the best response where arriving costs more than anything: the Hamiltonian knows the value only as what rates are multiplied
    by. Where a price keeps nobody out, nothing can be compared.
    """
    others = np.arange(len(rates)) != place
    for price in PRICES:
        dear = value.at[place].add(price)
        best = np.asarray(game.rates(0.0, game.best_response(0.0, dear, mu, params), mu, params))[others]
        if not np.all(np.isfinite(best)) or np.any(np.abs(best[:, place]) > 1e-9):
            continue
        if not np.allclose(rates[others], best, rtol=1e-3, atol=1e-4 * max(1.0, float(np.abs(best).max()))):
            raise InputError(
                f"Closed: the closed_response of {type(game).__name__} is not the best that agents can do when {game.state_names[place]!r} is "
                "closed; the default serves only costs that are a sum over destinations, others have to say it themselves."
            )
        return


def _check_cost(game: Game, place: int, control: Array, mu: Array, params: Mapping[str, Array], closed: Array) -> None:
    """Refuse costs that go on where nothing is to be paid for not going to a closed state."""
    into = jnp.zeros_like(control).at[:, place].set(1.0).at[place, place].set(0.0)

    def slope(cost: Callable[[Array], Array]) -> np.ndarray:
        return np.asarray(jax.jvp(cost, (control,), (into,))[1])

    whole = slope(lambda c: game.running_cost(0.0, c, mu, params))
    left = slope(lambda c: game.closed_cost(0.0, c, mu, params, closed))
    slack = 1e-5 * (1.0 + np.abs(whole))
    # What falls with the rate would have been cheaper; of what is left out, no part may stay.
    if np.any(left < -slack) or np.any((np.abs(left - whole) > slack) & (np.abs(left) > slack)):
        raise InputError(
            f"Closed: agents of {type(game).__name__} go on paying for not moving to {game.state_names[place]!r}; its closed_cost has to leave out "
            "exactly these terms, or paid has to be True."
        )
