"""Interventions: what is changed in a game, when, and when agents hear of it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from bayes_mfg.errors import InputError
from bayes_mfg.games import Game, Parameter
from bayes_mfg.paths import PathFunction

OPERATIONS = {"factor": "times", "value": "set to", "add": "plus"}
"""How a parameter is changed, and the words for it."""


@dataclasses.dataclass(frozen=True)
class _Timed:
    """A window of time, and when agents hear of it."""

    def _check(self) -> None:
        kind = type(self).__name__
        start, end, announced = (getattr(self, name) for name in ("start", "end", "announced"))
        for name, time in (("start", start), ("end", end)):
            if time is not None and (isinstance(time, bool) or not _is_time(time)):
                raise InputError(f"{kind}: {name} is {time!r}; a finite time, or nothing, is needed.")
        if start is not None and end is not None and not start < end:
            raise InputError(f"{kind}: the window from {start:g} to {end:g} is empty.")
        if not (isinstance(announced, bool) or _is_time(announced)):
            raise InputError(f"{kind}: announced is {announced!r}; True, False or a time is needed.")
        # 0.1 + 0.2 is no later than 0.3.
        if not isinstance(announced, bool) and start is not None and announced - start > 1e-9 * max(abs(announced), abs(start)):
            raise InputError(
                f"{kind}: announced at {announced:g}, after the start at {start:g}; False means by surprise at the start."
            )
        if not isinstance(self.end_known, bool):  # type: ignore[attr-defined]
            raise InputError(f"{kind}: end_known is {self.end_known!r}; True or False is needed.")  # type: ignore[attr-defined]

    @property
    def _when(self) -> str:
        start, end, announced = (getattr(self, name) for name in ("start", "end", "announced"))
        window = "" if start is None and end is None else f" until {end:g}" if start is None else f" from {start:g}"
        window += f" to {end:g}" if start is not None and end is not None else " on" if start is not None else ""
        if announced is True:
            told = "announced from the beginning"
        elif announced is False:
            told = "by surprise" if start is not None else "from the beginning"
        else:
            told = f"announced at {announced:g}"
        if end is not None and not self.end_known:  # type: ignore[attr-defined]
            told += ", its end by surprise"
        return f"{window}, {told}"


@dataclasses.dataclass(frozen=True)
class Close(_Timed):
    """Close a state for a while: nobody may move into it; who is there may stay, or leave. See `bayes_mfg.games.Closed`.

    Parameters
    ----------
    state : name of the state.
    start, end : the window, `start <= t < end`; by default from the beginning and to the horizon.
    announced : True where agents know of it from the beginning of the game, False where they hear of it when it starts, or the time at which
        they hear of it.
    end_known : whether agents learn the end with the news. Otherwise they believe that it lasts to the horizon until the end takes them by
        surprise.
    paid : whether agents go on paying what a rate of zero into the closed state costs (but for the log term of a smooth `BikeShare`).

    Raises
    ------
    InputError : for an empty window, and for an announcement after the start.
    """

    state: str
    start: float | None = None
    end: float | None = None
    announced: bool | float = True
    end_known: bool = True
    paid: bool = False

    def __post_init__(self) -> None:
        self._check()
        if not isinstance(self.state, str):
            raise InputError(f"Close: state is {self.state!r}; the name of a state is needed.")
        if not isinstance(self.paid, bool):
            raise InputError(f"Close: paid is {self.paid!r}; True or False is needed.")

    @property
    def description(self) -> str:
        """The intervention in plain words."""
        return f"closing {self.state}{self._when}"


@dataclasses.dataclass(frozen=True)
class Change(_Timed):
    """Change a parameter of the game for a while: a cost, a capacity, a rate.

    It may be inferred, known, or a constant that the game lists among its parameters.

    Parameters
    ----------
    parameter : name of the parameter.
    factor, value, add : what its values are multiplied by, replaced by, or raised by; exactly one of the three, a number or an array of the
        parameter's shape.
    start, end : the window, `start <= t < end`; by default from the beginning and to the horizon, end included. A parameter that only the terminal
        cost reads has to be changed at the horizon; where that is announced, `start` may be the horizon itself.
    announced, end_known : as in `Close`.

    Raises
    ------
    InputError : for none or several of factor, value and add, numbers that are not finite, an empty window, and an announcement after the start.
    """

    parameter: str
    factor: ArrayLike | None = None
    value: ArrayLike | None = None
    add: ArrayLike | None = None
    start: float | None = None
    end: float | None = None
    announced: bool | float = True
    end_known: bool = True

    def __post_init__(self) -> None:
        self._check()
        if not isinstance(self.parameter, str):
            raise InputError(f"Change: parameter is {self.parameter!r}; the name of a parameter is needed.")
        given = [name for name in OPERATIONS if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"Change: {' and '.join(given) or 'nothing'} given for {self.parameter!r}; one of factor, value and add is needed."
            )
        object.__setattr__(self, given[0], _frozen(getattr(self, given[0]), f"Change: {given[0]} of {self.parameter!r}"))

    @property
    def operation(self) -> tuple[str, np.ndarray]:
        """Which of factor, value and add it is, and the numbers."""
        name = next(name for name in OPERATIONS if getattr(self, name) is not None)
        return name, np.asarray(getattr(self, name), dtype=float)

    @property
    def description(self) -> str:
        """The intervention in plain words."""
        name, amount = self.operation
        told = f"{float(amount):g}" if amount.ndim == 0 else f"an array of {' x '.join(map(str, amount.shape))}"
        return f"{self.parameter} {OPERATIONS[name]} {told}{self._when}"

    def check(self, parameter: Parameter) -> None:
        """Refuse numbers that do not fit the parameter.

        Raises
        ------
        InputError : for another shape, and for a value outside the support.
        """
        name, amount = self.operation
        if amount.shape not in ((), parameter.shape):
            raise InputError(
                f"Change: {name} of {self.parameter!r} has shape {amount.shape}; a number or shape {parameter.shape} is needed."
            )
        if name == "value":
            parameter.check(amount, "Change")


@dataclasses.dataclass(frozen=True)
class Start:
    """Start from another initial population, which everybody knows from the beginning.

    Parameters
    ----------
    mu0 : `{state: share}` for all trajectories, where states that are not named hold nobody; or shares in the order of the model's states, `(d,)` for
        all trajectories or `(R, d)` for each.

    Attributes
    ----------
    states : names of the states where they were given.

    Raises
    ------
    InputError : when a row is no distribution, or a state has something else than one number.
    """

    mu0: ArrayLike | Mapping[str, float]
    states: tuple[str, ...] | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        if isinstance(self.mu0, Mapping):
            for name, share in self.mu0.items():
                if isinstance(share, bool) or not isinstance(share, int | float | np.number):
                    raise InputError(
                        f"Start: the share of {name!r} is {share!r}; by names of states, one number for all trajectories is needed."
                    )
            object.__setattr__(self, "states", tuple(map(str, self.mu0)))
            object.__setattr__(self, "mu0", list(self.mu0.values()))
        shares = np.asarray(_frozen(self.mu0, "Start: mu0"), dtype=float)
        if shares.ndim not in (1, 2) or np.any(shares < 0) or np.any(np.abs(shares.sum(axis=-1) - 1.0) > 1e-6):
            raise InputError("Start: every row of mu0 must be non-negative and sum to one.")
        object.__setattr__(self, "mu0", _frozen(shares / shares.sum(axis=-1, keepdims=True), "Start: mu0"))

    @property
    def description(self) -> str:
        """The intervention in plain words."""
        shares = np.asarray(self.mu0)
        if shares.ndim != 1 or shares.size > 8:
            return "a start from given populations"
        places = [""] * shares.size if self.states is None else [f" in {name}" for name in self.states]
        return f"a start from {', '.join(f'{x:.3g}{place}' for x, place in zip(shares, places, strict=True))}"

    def fitted(self, states: Sequence[str], also: Sequence[str], count: int) -> "Start":
        """The same with the shares of every state of a model, in its order.

        Parameters
        ----------
        states, also : names of the model's `d` states, and others by which they may be called.
        count : number of trajectories.

        Raises
        ------
        InputError : for unknown states, and for shares of another shape.
        """
        if self.states is not None:
            order = next((names for names in (states, also) if set(self.states) <= set(names)), None)
            if order is None:
                unknown = next(name for name in self.states if name not in states)
                raise InputError(f"intervene: there is no state {unknown!r} for Start; the model has {', '.join(states)}.")
            given = dict(zip(self.states, np.asarray(self.mu0, dtype=float).tolist(), strict=True))
            return Start({state: given.get(name, 0.0) for state, name in zip(states, order, strict=True)})
        shares, d = np.asarray(self.mu0, dtype=float), len(states)
        shape = shares.shape
        if shape not in ((d,), (count, d)):
            raise InputError(f"intervene: mu0 of Start has shape {shape}; {(d,)} or {(count, d)} is needed.")
        return Start(dict(zip(states, shares.tolist(), strict=True))) if len(shape) == 1 else self


type AnyIntervention = Close | Change | Start


@dataclasses.dataclass(frozen=True)
class Belief:
    """What agents believe of an intervention from some moment on: the window, on the clock of the data.

    Attributes
    ----------
    what : the intervention.
    start, end : the window; infinite where it begins with the game or lasts to its end.
    """

    what: Close | Change
    start: float
    end: float


class Held(PathFunction):
    """A constant as a path."""

    value: Array

    def __call__(self, t: ArrayLike, mu: ArrayLike) -> Array:
        return self.value


class Altered(PathFunction):
    """A path that is changed inside a window."""

    path: Any
    amount: Array
    start: float = eqx.field(static=True)
    end: float = eqx.field(static=True)
    operation: str = eqx.field(static=True)

    def __call__(self, t: ArrayLike, mu: ArrayLike) -> Array:
        old = jnp.asarray(self.path(t, mu))
        amount = jnp.asarray(self.amount, old.dtype)
        new = {"factor": old * amount, "add": old + amount, "value": jnp.broadcast_to(amount, old.shape)}[self.operation]
        t = jnp.asarray(t)
        within = (t >= jnp.asarray(self.start, t.dtype)) & (t < jnp.asarray(self.end, t.dtype))
        return jnp.where(within, new, old)


def altered(functions: dict[str, Any], game: Game, beliefs: tuple[Belief, ...], dtype: Any) -> dict[str, Any]:
    """Parameters as functions `(t, mu)` under what is believed; changed constants of the game among them."""
    found = dict(functions)
    for belief in beliefs:
        if isinstance(belief.what, Change):
            name = belief.what.parameter
            if name not in found:
                found[name] = Held(jnp.asarray(game.constant({}, name), dtype))
            operation, amount = belief.what.operation
            found[name] = Altered(found[name], jnp.asarray(amount, dtype), belief.start, belief.end, operation)
    return found


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _frozen(value: Any, what: str) -> Any:
    """Numbers as nested tuples, so that what holds them can be compared and hashed; texts and truths are none."""
    try:
        if np.asarray(value).dtype.kind not in "iuf":
            raise TypeError(type(value))
        numbers = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} is {value!r}; numbers are needed.") from error
    if not np.all(np.isfinite(numbers)):
        raise InputError(f"{what} is {value!r}; finite numbers are needed.")

    def tuples(x: Any) -> Any:
        return tuple(tuples(y) for y in x) if isinstance(x, list) else x

    return tuples(numbers.tolist())
