"""Quantities that are profiled: an unknown number, a path at a time, a function of them; with exact derivatives by the coordinates."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_mfg.errors import InputError
from bayes_mfg.models import Data, ForwardModel
from bayes_mfg.paths import PooledPath

from .coordinates import compiled, coordinates
from .identifiability_words import listing, number
from .linearised import blocks, without_population
from .profile_target import Expansions

ALONG = (0.25, 0.5, 0.75)
"""Where on the horizon a path is profiled, if nobody says when: not at its ends, where data seldom tell anything."""

type Function = Callable[[Mapping[str, Array]], Array]


@dataclasses.dataclass(frozen=True)
class Value:
    """One number among the unknowns.

    Parameters
    ----------
    name : of a parameter of the game, or of the observation model's own unknowns.
    time : of a path: within the model's grid, linear between its points.
    entry : of what is an array at one time.
    trajectory : of a path that every trajectory has for itself.
    """

    name: str
    time: float | None = None
    entry: tuple[int, ...] = ()
    trajectory: str | None = None

    def __str__(self) -> str:
        entry = f"[{','.join(map(str, self.entry))}]" if self.entry else ""
        inside = [str(self.trajectory)] if self.trajectory is not None else []
        inside += [f"t = {number(self.time)}"] if self.time is not None else []
        return f"{self.name}{entry}" + (f"({', '.join(inside)})" if inside else "")


@dataclasses.dataclass(frozen=True, eq=False)
class Quantity:
    """A quantity of one model, as a profile needs it.

    Attributes
    ----------
    name : in words.
    lower, upper : ends of what it can be.
    function : compiled `(flat, data) -> value, gradient, second derivative` of the quantity on its real line.
    """

    name: str
    lower: float
    upper: float
    function: Any

    def onto_line(self, value: float) -> float:
        """The real line: logarithms of what has one bound, a logit of what has two."""
        return float(_line(jnp.asarray(float(value)), self.lower, self.upper))

    def from_line(self, place: float) -> float:
        """The quantity at a place of its real line."""
        below, above = math.isfinite(self.lower), math.isfinite(self.upper)
        if below and above:
            return float(self.lower + (self.upper - self.lower) / (1.0 + np.exp(-place)))
        if below:
            return float(self.lower + np.exp(place))
        return float(self.upper - np.exp(-place)) if above else float(place)

    def constraint(self, data: Data) -> Callable[[np.ndarray], Expansions]:
        """Point -> place on the real line, gradient and second derivative by the coordinates."""

        def at(flat: np.ndarray) -> Expansions:
            value, gradient, second = self.function(jnp.asarray(flat), data)
            return float(value), np.asarray(gradient, float), np.asarray(second, float)

        return at


def _line(value: Array, lower: float, upper: float) -> Array:
    below, above = math.isfinite(lower), math.isfinite(upper)
    if below and above:
        return jnp.log(value - lower) - jnp.log(upper - value)
    if below:
        return jnp.log(value - lower)
    return -jnp.log(upper - value) if above else value


def quantity(model: ForwardModel, asked: Any) -> Quantity:
    """A quantity from what a user asked for.

    Raises
    ------
    InputError : for what is no quantity of this model, and one that cannot be told without an equilibrium.
    """
    if isinstance(asked, str):
        asked = Value(asked)
    if isinstance(asked, tuple) and len(asked) == 2 and isinstance(asked[0], str):
        asked = Value(asked[0], asked[1])
    if isinstance(asked, Value):
        pick, lower, upper = _picked(model, asked)
        # The row of a trajectory's name may be another in data that share the compiled functions.
        names = list(model.population.trajectories)
        row = names.index(asked.trajectory) if asked.trajectory is not None else None
        return Quantity(str(asked), lower, upper, _compiled(model, f"{asked!r} {row}", pick, lower, upper))
    if not callable(asked):
        raise InputError(f"profile: quantity is {asked!r}; a name, a Value or a function of the unknowns is needed.")
    name = getattr(asked, "__name__", type(asked).__name__)
    # The cache keeps the function, so that no other can have its number.
    return Quantity(name, -math.inf, math.inf, _compiled(model, f"{name} {id(asked)}", asked, -math.inf, math.inf))


def _compiled(model: ForwardModel, key: str, pick: Function, lower: float, upper: float) -> Any:
    space = coordinates(model)

    def place(flat: Array, data: Data) -> Array:
        sites = space.constrain(flat)
        return _line(pick(without_population(model, sites, space.latents(sites, data))), lower, upper)

    try:
        shape = jax.eval_shape(place, jnp.zeros(space.size), model.data).shape
    except KeyError as error:
        known = list(without_population_names(model))
        raise InputError(
            f"profile: the quantity asks for {error}; {listing(known)} can be told without an equilibrium."
        ) from error
    if shape != ():
        raise InputError(f"profile: the quantity has shape {shape}; one number is needed.")

    def every(flat: Array, data: Data) -> tuple[Array, Array, Array]:
        value, gradient = jax.value_and_grad(place)(flat, data)
        return value, gradient, jax.hessian(place)(flat, data)

    return compiled(model, f"quantity {key}", lambda: jax.jit(every))


def without_population_names(model: ForwardModel) -> list[str]:
    """Unknowns that can be told without an equilibrium."""
    space = coordinates(model)

    def told(flat: Array) -> dict[str, Array]:
        sites = space.constrain(flat)
        return without_population(model, sites, space.latents(sites, model.data))

    return list(jax.eval_shape(told, jnp.zeros(space.size)))


def usual_quantities(model: ForwardModel) -> list[Value]:
    """What is profiled if nobody says what: every number among the unknowns, then every path at `ALONG` of the horizon.

    What profiles cannot hold is left out: unknown initial shares, and paths that depend on a population.
    """
    times, parts = np.asarray(model.grid.times), blocks(model)
    moments = [float(times[0] + part * (times[-1] - times[0])) for part in ALONG]
    out = []
    for name in without_population_names(model):
        if name == "mu0" or name not in parts:
            continue
        path = model.bound.get(name)
        shape = coordinates(model).shapes[name] if path is None else path.parameter.shape
        own = model.population.trajectories if isinstance(path, PooledPath) else [None]
        when = moments if _along(path) else [None]
        out += [Value(name, t, entry, who) for t in when for who in own for entry in np.ndindex(*shape)]
    return sorted(out, key=lambda value: value.time is not None)


def _along(path: Any) -> bool:
    """Whether values of an unknown vary in time."""
    return path is not None and not (path.is_constant or (isinstance(path, PooledPath) and path.inner.is_constant))


def _picked(model: ForwardModel, asked: Value) -> tuple[Function, float, float]:
    """The function that picks a value, and the ends of what the value can be."""
    name, where = asked.name, f"profile: {asked.name!r}"
    parts, space = blocks(model), coordinates(model)
    if name == "mu0" or name not in parts:
        known = [n for n in parts if n != "mu0"]
        why = "is known in this model" if name in model.bound else "is no unknown of this model"
        raise InputError(f"{where} {why}; {listing(known) or 'nothing'} can be profiled.")
    if name not in without_population_names(model):
        raise InputError(f"{where} depends on the population, and is no function of the unknowns alone; it cannot be profiled.")
    path = model.bound.get(name)
    lower, upper = (path.parameter.lower, path.parameter.upper) if path is not None else (-math.inf, math.inf)
    if path is None or (path.is_constant and not isinstance(path, PooledPath) and tuple(path.priors) == ("value",)):
        low, high = _ends(model, name if path is None else f"{name}/value")
        lower, upper = max(lower, low), min(upper, high)
    shape = space.shapes[name] if path is None else path.parameter.shape
    if len(asked.entry) != len(shape) or any(not 0 <= k < n for k, n in zip(asked.entry, shape, strict=True)):
        raise InputError(f"{where} has the shape {tuple(shape)} at one time; entry is {asked.entry!r}.")
    own = isinstance(path, PooledPath)
    names = list(model.population.trajectories)
    if own != (asked.trajectory is not None) or (own and asked.trajectory not in names):
        needed = f"one of {listing(names)}" if own else "none, for it is the same in all,"
        raise InputError(f"{where}: trajectory is {asked.trajectory!r}; {needed} is needed.")
    varies = path is not None and not (path.is_constant and not own)
    times = np.asarray(model.grid.times)
    if asked.time is None and _along(path):
        raise InputError(f"{where} varies in time; give the time, from {times[0]:g} to {times[-1]:g}.")
    if asked.time is not None and not _along(path):
        raise InputError(f"{where} does not vary in time; time is {asked.time!r}.")
    time = float(times[0]) if asked.time is None else asked.time
    if not (isinstance(time, int | float | np.number) and times[0] <= time <= times[-1]):
        raise InputError(f"{where}: time is {time!r}; a number from {times[0]:g} to {times[-1]:g} is needed.")
    weights = jnp.asarray([np.interp(time, times, unit) for unit in np.eye(len(times))])
    row = names.index(str(asked.trajectory)) if own else None

    def pick(values: Mapping[str, Array]) -> Array:
        value = values[name] if row is None else values[name][row]
        if varies:
            value = jnp.tensordot(weights, value, axes=1)
        return value[asked.entry] if asked.entry else value

    return pick, lower, upper


def _ends(model: ForwardModel, site: str) -> tuple[float, float]:
    """Ends of the support of a site's entries."""
    space = coordinates(model)
    far = [np.asarray(space.transforms[site](jnp.full(space.shapes[site], end))) for end in (-jnp.inf, jnp.inf)]
    return float(np.min(far)), float(np.max(far))
