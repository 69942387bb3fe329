"""What could be observed next, and what is asked about, in plain words: candidates and goals of `design`."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_mfg.errors import InputError


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A trajectory that is not there yet: a population that could be followed from a start of one's choice, or under changed conditions.

    Parameters
    ----------
    name : of the trajectory; none that the model's data have.
    shares : known initial shares, in the order of the model's states; None where the start is as unknown as those of the model's own trajectories.
    parameters : known parameters or constants of the game that are set to other values in this trajectory: name -> value. An experiment.
    """

    name: str
    shares: tuple[float, ...] | None = None
    parameters: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"Experiment: name is {self.name!r}; the name of a new trajectory is needed.")
        if self.shares is not None:
            shares = _numbers(self.shares, "Experiment: shares")
            if np.any(shares < 0) or abs(shares.sum() - 1) > 1e-6:
                raise InputError(f"Experiment: shares is {self.shares!r}; numbers of at least 0 that sum to one are needed.")
            object.__setattr__(self, "shares", tuple(float(x) for x in shares))
        if not isinstance(self.parameters, Mapping):
            raise InputError(f"Experiment: parameters is {self.parameters!r}; a dict from names to values is needed.")
        object.__setattr__(self, "parameters", dict(self.parameters))

    def __hash__(self) -> int:
        return hash((self.name, self.shares, tuple(sorted(self.parameters))))


@dataclasses.dataclass(frozen=True)
class Observe:
    """One thing that could be observed: a trajectory at one time or at several together.

    Parameters
    ----------
    trajectory : name of one of the model's, or an `Experiment`.
    times : a time or several, of the model's grid; they are observed together or not at all.
    states : names of the states that are observed; None for all that the observation model looks at. Some of them only where the model takes states
        as independent (`Gaussian`, `Binomial`, `BetaBinomial`).
    total : number of agents behind the counts; by default that of the trajectory's data at this time, or the one that all data have. Models of
        shares have none: their noise is one unknown of the model, and to compare noises is to compare models.
    cost : in units of the budget.
    """

    trajectory: str | Experiment
    times: float | tuple[float, ...]
    states: tuple[str, ...] | None = None
    total: int | None = None
    cost: float = 1.0

    def __post_init__(self) -> None:
        times = np.atleast_1d(_numbers(self.times, "Observe: times"))
        if not isinstance(self.trajectory, str | Experiment):
            raise InputError(
                f"Observe: trajectory is {self.trajectory!r}; the name of a trajectory, or an Experiment, is needed."
            )
        if times.ndim != 1 or not times.size:
            raise InputError(f"Observe: times is {self.times!r}; at least one time is needed.")
        object.__setattr__(self, "times", tuple(float(t) for t in times))
        if self.states is not None:
            if isinstance(self.states, str) or not all(isinstance(s, str) for s in self.states) or not len(self.states):
                raise InputError(f"Observe: states is {self.states!r}; a list of names is needed.")
            object.__setattr__(self, "states", tuple(self.states))
        if self.total is not None and not (isinstance(self.total, int | np.integer) and self.total > 0):
            raise InputError(f"Observe: total is {self.total!r}; a positive whole number of agents is needed.")
        if not (isinstance(self.cost, int | float) and math.isfinite(self.cost) and self.cost > 0):
            raise InputError(f"Observe: cost is {self.cost!r}; a positive number is needed.")

    @property
    def place(self) -> str:
        """Name of the trajectory."""
        return self.trajectory.name if isinstance(self.trajectory, Experiment) else self.trajectory

    @property
    def moments(self) -> tuple[float, ...]:
        """The times, as a tuple also where there is one."""
        assert isinstance(self.times, tuple)
        return self.times

    def __str__(self) -> str:
        when = ", ".join(f"{t:g}" for t in self.moments[:6]) + (", ..." if len(self.moments) > 6 else "")
        what = f", {', '.join(self.states)} alone" if self.states else ""
        many = f", {self.total} agents" if self.total else ""
        return f"trajectory {self.place} at {when}{what}{many}"


def observations(
    times: Iterable[float],
    trajectories: Iterable[str | Experiment],
    *,
    states: Iterable[tuple[str, ...] | None] = (None,),
    totals: Iterable[int | None] = (None,),
    cost: float | Sequence[float] = 1.0,
) -> list[Observe]:
    """Every combination of trajectories, times, sets of states and totals as a candidate of its own.

    Parameters
    ----------
    times : of the model's grid.
    trajectories : names of the model's trajectories, and `Experiment`s.
    states, totals : alternatives; of those that see the same cell, one at most is chosen.
    cost : of each; or one for each of `totals`, which several need.

    Raises
    ------
    InputError : for another number of costs than there are totals.
    """
    sizes = list(totals)
    costs = list(cost) if isinstance(cost, list | tuple | np.ndarray) else [cost] * len(sizes)
    if len(costs) != len(sizes):
        raise InputError(f"observations: cost is {cost!r}; a number, or one for each of {len(sizes)} totals, is needed.")
    product = itertools.product(list(trajectories), list(times), list(states), list(zip(sizes, costs, strict=True)))
    return [Observe(who, when, what, many, price) for who, when, what, (many, price) in product]


type Goal = Callable[[Mapping[str, Array], Mapping[str, Array]], Any]
"""`(values, mu) -> array`: a smooth function of the unknowns' values by name, `(T, ...)`, or `(R, T, ...)` where they differ between trajectories,
and of the populations by trajectory, `(T, d)`."""


@dataclasses.dataclass(frozen=True)
class ValueOf:
    """Goal: a parameter's value at a time, on the logarithmic scale by default where it is positive.

    Parameters
    ----------
    name : of a parameter, or of an unknown of the observation model.
    time : of the grid; None for all times.
    log : whether the logarithm is asked for.
    """

    name: str
    time: float | None = None
    log: bool = True

    def bind(self, times: np.ndarray, states: tuple[str, ...], several: Collection[str]) -> Goal:
        """The function of values and populations; paths in `several` have an axis of trajectories before time."""
        at = None if self.time is None else grid_place(self.time, times, "ValueOf: time")

        def goal(values: Mapping[str, Array], mu: Mapping[str, Array]) -> Array:
            path = _named(self.name, values)
            some = path if at is None or path.ndim == 0 else jnp.take(path, at, axis=int(self.name in several))
            return jnp.log(some) if self.log else some

        return goal

    def __str__(self) -> str:
        return f"{'log ' if self.log else ''}{self.name}" + ("" if self.time is None else f" at {self.time:g}")


@dataclasses.dataclass(frozen=True)
class MeanOf:
    """Goal: the mean of a parameter over a span of time, by the trapezoidal rule on the grid.

    Parameters
    ----------
    name : of a parameter.
    start, end : of the grid; by default its ends.
    log : whether its logarithm is asked for.
    """

    name: str
    start: float | None = None
    end: float | None = None
    log: bool = True

    def bind(self, times: np.ndarray, states: tuple[str, ...], several: Collection[str]) -> Goal:
        """The function of values and populations; paths in `several` have an axis of trajectories before time."""
        first = 0 if self.start is None else grid_place(self.start, times, "MeanOf: start")
        last = len(times) - 1 if self.end is None else grid_place(self.end, times, "MeanOf: end")
        if last <= first:
            raise InputError(f"MeanOf: end is {self.end!r}; a time after start, {times[first]:g}, is needed.")
        step = np.diff(times[first : last + 1])
        weights = np.zeros(len(times))
        weights[first:last] += step / 2
        weights[first + 1 : last + 1] += step / 2
        weights /= weights.sum()

        def goal(values: Mapping[str, Array], mu: Mapping[str, Array]) -> Array:
            path = _named(self.name, values)
            mean = jnp.tensordot(jnp.asarray(weights), path, axes=(0, int(self.name in several))) if path.ndim else path
            return jnp.log(mean) if self.log else mean

        return goal

    def __str__(self) -> str:
        ends = f" from {'the start' if self.start is None else f'{self.start:g}'} to {'the end' if self.end is None else f'{self.end:g}'}"
        return f"{'log ' if self.log else ''}mean of {self.name}{ends}"


@dataclasses.dataclass(frozen=True)
class ShareOf:
    """Goal: a forecast, the share of a state at a time in a trajectory of the model or of a candidate.

    Parameters
    ----------
    state : its name.
    time : of the grid.
    trajectory : name.
    """

    state: str
    time: float
    trajectory: str

    def bind(self, times: np.ndarray, states: tuple[str, ...], several: Collection[str]) -> Goal:
        """The function of values and populations; paths in `several` have an axis of trajectories before time."""
        if self.state not in states:
            raise InputError(f"ShareOf: state is {self.state!r}; the model has {', '.join(states)}.")
        at, x = grid_place(self.time, times, "ShareOf: time"), states.index(self.state)

        def goal(values: Mapping[str, Array], mu: Mapping[str, Array]) -> Array:
            if self.trajectory not in mu:
                raise InputError(f"ShareOf: trajectory is {self.trajectory!r}; there are {', '.join(mu)}.")
            return mu[self.trajectory][at, x]

        return goal

    def __str__(self) -> str:
        return f"share of {self.state} at {self.time:g} in trajectory {self.trajectory}"


def grid_place(time: Any, times: np.ndarray, where: str) -> int:
    """Number of a time on the grid.

    Raises
    ------
    InputError : for what is none of its times.
    """
    value = float(_numbers(time, where))
    k = int(np.argmin(np.abs(times - value)))
    if abs(times[k] - value) > 1e-9 * (times[-1] - times[0]):
        raise InputError(f"{where} is {value:g}; a time of the model's grid is needed, of which {times[k]:g} is the nearest.")
    return k


def _numbers(value: Any, where: str) -> np.ndarray:
    try:
        numbers = np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} is {value!r}; numbers are needed.") from error
    if not np.all(np.isfinite(numbers)):
        raise InputError(f"{where} is {value!r}; finite numbers are needed.")
    return numbers


def _named(name: str, values: Mapping[str, Array]) -> Array:
    if name not in values:
        raise InputError(f"The goal is of {name!r}; the model has {', '.join(values)}.")
    return jnp.asarray(values[name])
