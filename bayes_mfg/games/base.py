"""The interface that every finite-state mean field game shares."""

import abc
import dataclasses
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

from .invariances import Invariance, without_effect


@dataclasses.dataclass(frozen=True)
class Parameter:
    """What a game says about one of its parameters.

    Attributes
    ----------
    name : the key under which the parameter is passed.
    lower, upper : ends of the support; infinite where unbounded.
    unit : unit in words, for tables and reports ("1/time", "cost", "share").
    description : one line for tables and reports.
    shape : shape of the value at one time; `()` for a scalar.
    closed : whether finite ends belong to the support; not where the game divides by the parameter.
    diagonal : whether the diagonal of a matrix enters the game; where it does not, it may hold any number.
    """

    name: str
    lower: float = -math.inf
    upper: float = math.inf
    unit: str = ""
    description: str = ""
    shape: tuple[int, ...] = ()
    closed: bool = True
    diagonal: bool = True

    def contains(self, value: Any) -> Any:
        """Whether values lie in the support, elementwise; False for NaN, True on a diagonal that does not enter."""
        above, below = (value >= self.lower, value <= self.upper) if self.closed else (value > self.lower, value < self.upper)
        inside = above & below
        if self.diagonal or np.shape(value)[-2:] != self.shape:
            return inside
        return inside | np.eye(self.shape[0], dtype=bool)

    def check(self, value: Any, where: str) -> None:
        """Refuse numbers outside the support, or not finite; what is being traced or transformed by JAX passes.

        Raises
        ------
        InputError : naming the place and the first bad value.
        """
        if isinstance(value, jax.core.Tracer):
            return
        try:
            numbers = np.asarray(value)
            if not np.issubdtype(numbers.dtype, np.number):  # True and False are no numbers here
                raise TypeError(numbers.dtype)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: {self.name} is {value!r}; a number is needed.") from error
        bad = ~(np.isfinite(numbers) & np.asarray(self.contains(numbers)))
        if bad.any():
            ends = "[]" if self.closed else "()"
            raise InputError(
                f"{where}: {self.name} is {float(numbers[bad].flat[0])!r}; its range is {ends[0]}{self.lower:g}, {self.upper:g}{ends[1]}."
            )


def check_size(n_states: Any, where: str) -> int:
    """The number of states that a constructor was given.

    Raises
    ------
    InputError : when it is no whole number from 2 to 10000.
    """
    if isinstance(n_states, bool) or not isinstance(n_states, int | np.integer) or not 2 <= n_states <= 10_000:
        raise InputError(f"{where}: n_states is {n_states!r}; from 2 to 10000 states are possible.")
    return int(n_states)


class Game(eqx.Module):
    """A finite-state mean field game in continuous time: agents minimise expected cost.

    A game is a frozen pytree of constants with four pure functions of one moment. With `d` states, population `mu`
    of shape `(d,)`, value (cost-to-go) `value` of shape `(d,)` and `params` a dict of parameter values at time `t`:

    - `best_response(t, value, mu, params)` minimises
      `running_cost(x) + sum_y rates[x, y] (value[y] - value[x])` over the control of every state `x`. It must be a closed form or
      a smooth (entropy-regularised) one: the equilibrium is differentiated through it.
    - `rates(t, control, mu, params)` is `(d, d)`, `rates[x, y]` the rate of leaving `x` for `y`, zero on the diagonal.
    - `running_cost(t, control, mu, params)` is `(d,)`.
    - `terminal_cost(t, mu, params)` is `(d,)`.

    `required` lists the parameters that must be passed. `optional` lists constants of the constructor that may be passed as
    parameters instead; functions read both with `self.constant(params, name)`. `invariances` says what changes of all of these no population shows.
    """

    def __check_init__(self) -> None:
        kind = type(self).__name__
        for parameter in self.optional:
            value = getattr(self, parameter.name)
            parameter.check(value, kind)
            if np.shape(value) != parameter.shape:
                raise InputError(f"{kind}: {parameter.name} has shape {np.shape(value)}; {parameter.shape} is needed.")

    @property
    @abc.abstractmethod
    def state_names(self) -> tuple[str, ...]:
        """Names of the `d` states, in the order of all arrays."""

    @property
    @abc.abstractmethod
    def required(self) -> tuple[Parameter, ...]:
        """Parameters that every solve must be given."""

    @property
    def optional(self) -> tuple[Parameter, ...]:
        """Constructor constants that may be given as parameters instead."""
        return ()

    @property
    def invariances(self) -> tuple[Invariance, ...]:
        """Changes of the parameters that no data on populations can tell: what the game knows cannot be identified.

        Of every game beside these: a running cost `c(t)` that is the same in every state moves the value, and nothing else.
        """
        return ()

    @property
    def costs(self) -> tuple[str, ...]:
        """Parameters that enter through the value alone: where that is flat, as in `ForwardDynamics`, they have no effect."""
        return ()

    @property
    def invariances_of_flow(self) -> tuple[Invariance, ...]:
        """Those of the same game where the value is flat (`ForwardDynamics`): of its own what leaves a flat value flat, and its costs."""
        idle = (
            without_effect(name, f"{name} has no effect without foresight", self.parameters[name].shape) for name in self.costs
        )
        return (*(i for i in self.invariances if i.flat and not set(i.parameters) <= set(self.costs)), *idle)

    @abc.abstractmethod
    def best_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array]) -> Any:
        """Control of every state that minimises the Hamiltonian."""

    @abc.abstractmethod
    def rates(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        """Transition rates `(d, d)` with a zero diagonal."""

    @abc.abstractmethod
    def running_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        """Running cost `(d,)` per unit of time."""

    @abc.abstractmethod
    def terminal_cost(self, t: ArrayLike, mu: Array, params: Mapping[str, Array]) -> Array:
        """Terminal cost `(d,)`."""

    def closed_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array], closed: Array) -> Any:
        """Control of every state that minimises the Hamiltonian among controls under which nobody moves into a closed state; see `Closed`.

        By default that of a game whose control is the matrix of rates `(d, d)`, and whose Hamiltonian is a sum over destinations: the best response
        with rates of zero into closed ones. Any other game says here what its agents do, or has no closures.

        Parameters
        ----------
        t, value, mu, params : as in `best_response`.
        closed : `(d,)`, 1 for a closed destination, 0 for another.

        Raises
        ------
        InputError : where agents do not choose a rate for each destination.
        """
        control = self.best_response(t, value, mu, params)
        if getattr(control, "shape", None) != (self.n_states, self.n_states):
            raise InputError(
                f"{type(self).__name__}: no state can be closed, because its agents do not choose a rate of moving to each state."
            )
        return control * (1.0 - closed)[None, :]

    def closed_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array], closed: Array) -> Array:
        """Running cost `(d,)` where closed destinations are no choice any more, so that nothing is paid for not going there.

        By default the running cost: right where a rate of zero costs nothing. A game in which it does cost something leaves these terms out here.
        """
        return self.running_cost(t, control, mu, params)

    @property
    def n_states(self) -> int:
        """Number of states `d`."""
        return len(self.state_names)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """All parameters that the game accepts, required ones first."""
        return {p.name: p for p in (*self.required, *self.optional)}

    def constant(self, params: Mapping[str, Array], name: str) -> Array:
        """Value of an optional parameter: from `params` where it is given, else the constructor's."""
        return params[name] if name in params else jnp.asarray(getattr(self, name))

    def check_parameters(self, names: Any) -> None:
        """Refuse missing and unknown parameter names.

        Raises
        ------
        InputError : when a required name is missing or a name is not one of the game's.
        """
        names = set(names)
        known = self.parameters
        kind = type(self).__name__
        for name in sorted(names - set(known)):
            raise InputError(f"{kind} has no parameter {name!r}; it takes {', '.join(known)}.")
        for p in self.required:
            if p.name not in names:
                raise InputError(f"{kind} needs the parameter {p.name!r}; got {', '.join(sorted(names)) or 'none'}.")
