"""Inputs of a path: time, the equilibrium population, the observed population."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from bayes_mfg.errors import InputError

KINDS = ("time", "population", "observed")


class Clock(Protocol):
    """The part of `Context` that inputs need."""

    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...
    @property
    def data_end(self) -> float: ...
    @property
    def states(self) -> tuple[str, ...]: ...


def linear(t: ArrayLike, times: Array, values: Array) -> Array:
    """Values `(T, ...)` at times `(T,)`, linear in between and constant beyond the ends, at one time.

    As `values_0 + sum_j clip((t - t_j) / (t_{j+1} - t_j), 0, 1) (values_{j+1} - values_j)`: a product, no search.
    """
    passed = jnp.clip((jnp.asarray(t, times.dtype) - times[:-1]) / jnp.diff(times), 0.0, 1.0)
    return values[0] + jnp.tensordot(passed, jnp.diff(values, axis=0), 1, precision="highest")


class Inputs(eqx.Module):
    """Features of one moment: `(t, mu) -> (F,)`; observed shares are those of `linear`."""

    observed_times: Array | None
    observed_shares: Array | None
    kinds: tuple[str, ...] = eqx.field(static=True)
    columns: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, t: ArrayLike, mu: ArrayLike, dtype: DTypeLike) -> Array:
        parts: list[Array] = []
        for kind in self.kinds:
            if kind == "time":
                parts.append(jnp.asarray(t, dtype))
            else:
                shares = jnp.asarray(mu if kind == "population" else self._observed(t, dtype), dtype)
                parts.extend(shares[column] for column in self.columns)
        return jnp.stack(parts) if parts else jnp.zeros((0,), dtype)

    def _observed(self, t: ArrayLike, dtype: DTypeLike) -> Array:
        return linear(t, jnp.asarray(self.observed_times, dtype), jnp.asarray(self.observed_shares, dtype))


@dataclasses.dataclass(frozen=True)
class InputPlan:
    """Which features enter a path, and the interval on which each lives.

    Attributes
    ----------
    kinds : some of "time", "population", "observed", in this order of features.
    columns : indices of the states whose shares enter.
    states : names of all states.
    names : one name per feature.
    start, end : ends of the features' domains, `(F,)`; time runs to the forecast horizon.
    reference : lengths, `(F,)`, to which priors are scaled: from the first grid time to the last datum, and 1 for a share.
    """

    kinds: tuple[str, ...]
    columns: tuple[int, ...]
    states: tuple[str, ...]
    names: tuple[str, ...]
    start: tuple[float, ...]
    end: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def features(self) -> int:
        """Number of features `F`."""
        return len(self.names)

    @property
    def words(self) -> str:
        """The inputs in words."""
        named = {"time": "time", "population": "the equilibrium population", "observed": "the observed population"}
        text = " and ".join(named[kind] for kind in self.kinds)
        some = len(self.columns) < len(self.states) and set(self.kinds) != {"time"}
        return f"{text} ({', '.join(self.states[c] for c in self.columns)})" if some else text

    def inputs(self, observed: tuple[ArrayLike, ArrayLike] | None, where: str) -> Inputs:
        """The feature map, with the observed population filled in where it is an input.

        Raises
        ------
        InputError : when the observed population is missing, of the wrong shape, or not finite.
        """
        if "observed" not in self.kinds:
            return Inputs(None, None, self.kinds, self.columns)
        if observed is None:
            raise InputError(f"The {where} takes the observed population as input; pass observed=(times, shares).")
        times, shares = jnp.asarray(observed[0]), jnp.asarray(observed[1])
        if times.ndim != 1 or times.size < 1 or shares.shape != (times.size, len(self.states)):
            raise InputError(
                f"The {where} needs observed times (T_obs,) and shares (T_obs, {len(self.states)}); "
                f"got {times.shape} and {shares.shape}."
            )
        for name, values in (("times", observed[0]), ("shares", observed[1])):
            if not isinstance(values, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(values))):
                raise InputError(f"The {where} needs finite observed {name}; fill or drop missing cells first.")
        return Inputs(times, shares, self.kinds, self.columns)


NO_INPUT = InputPlan((), (), (), (), (), (), ())


def plan_inputs(
    kinds: str | Sequence[str], states: Sequence[str] | None, clock: Clock, where: str, several: bool = False
) -> InputPlan:
    """Check the `input` and `states` fields of a path and lay the features out.

    Parameters
    ----------
    kinds : the user's `input`.
    states : the user's `states`; None for all.
    clock : the context.
    where : beginning of error messages.
    several : whether more than one kind of input is allowed.

    Raises
    ------
    InputError : on an unknown input or state, repeated ones, or several inputs where one is allowed.
    """
    chosen = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in chosen:
        if kind not in KINDS:
            raise InputError(f"{where}: input {kind!r} is unknown; it is one of {', '.join(KINDS)}.")
    if not chosen or len(set(chosen)) < len(chosen) or (len(chosen) > 1 and not several):
        allowed = "one or more different ones" if several else "exactly one"
        raise InputError(f"{where}: input is {kinds!r}; {allowed} of {', '.join(KINDS)} is needed.")
    if states is not None:
        if set(chosen) == {"time"}:
            raise InputError(f"{where}: states={states!r} has no meaning for input 'time'.")
        states = (states,) if isinstance(states, str) else tuple(states)
        for state in states:
            if state not in clock.states:
                raise InputError(f"{where}: state {state!r} is unknown; the states are {', '.join(clock.states)}.")
        if not states or len(set(states)) < len(states):
            raise InputError(f"{where}: states is {states!r}; one or more different states are needed.")
    columns = tuple(range(len(clock.states))) if states is None else tuple(clock.states.index(state) for state in states)
    names: list[str] = []
    start: list[float] = []
    end: list[float] = []
    reference: list[float] = []
    for kind in chosen:
        if kind == "time":
            names, start, end = [*names, "time"], [*start, clock.start], [*end, clock.end]
            reference.append(clock.data_end - clock.start)
        else:
            names += [f"{kind}[{clock.states[c]}]" for c in columns]
            start, end = [*start, *[0.0] * len(columns)], [*end, *[1.0] * len(columns)]
            reference += [1.0] * len(columns)
    return InputPlan(chosen, columns, tuple(clock.states), tuple(names), tuple(start), tuple(end), tuple(reference))
