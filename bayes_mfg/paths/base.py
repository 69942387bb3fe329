"""What every parameter path has in common: the context it is bound to, its priors, and the function it becomes."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpyro.distributions import Distribution

from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Parameter

from .inputs import InputPlan, Inputs


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What a path may know before anything is fitted: the clock, where data lie, and the names of the states.

    Parameters
    ----------
    times : `(T,)`, increasing; the grid with any forecast horizon.
    data_times : `(T_obs,)`, increasing; the times of the data.
    states : names of the `d` states, in the order of the population.
    trajectories : number of trajectories.

    Raises
    ------
    InputError : when times are not finite and increasing, or no datum lies after the first grid time.
    """

    times: np.ndarray
    data_times: np.ndarray
    states: tuple[str, ...]
    trajectories: int = 1

    def __post_init__(self) -> None:
        for name, least in (("times", 2), ("data_times", 1)):
            values = np.asarray(getattr(self, name), dtype=float)
            if values.ndim != 1 or values.size < least:
                raise InputError(f"Context: {name} has shape {values.shape}; at least {least} in one dimension are needed.")
            if not np.all(np.isfinite(values)) or np.any(np.diff(values) <= 0):
                raise InputError(f"Context: {name} must be finite and increasing; got {values}.")
            object.__setattr__(self, name, values)
        object.__setattr__(self, "states", tuple(self.states))
        if self.data_times[-1] <= self.times[0]:
            raise InputError(f"Context: data_times end at {self.data_times[-1]:g}, not after the first time {self.times[0]:g}.")

    @property
    def start(self) -> float:
        """First grid time."""
        return float(self.times[0])

    @property
    def end(self) -> float:
        """Last grid time, forecast horizon included."""
        return float(self.times[-1])

    @property
    def data_end(self) -> float:
        """Last time with data inside the grid; a longer forecast leaves default length scales and numbers of pieces as they are."""
        return float(min(self.data_times[-1], self.times[-1]))


@dataclasses.dataclass(frozen=True)
class Conditional:
    """Prior of a raw parameter that depends on raw parameters drawn before it (centred paths with an uncertain scale).

    Attributes
    ----------
    given : maps the raw parameters drawn so far to the distribution.
    shape : shape of one draw.
    """

    given: Callable[[Mapping[str, Array]], Distribution]
    shape: tuple[int, ...]


type Prior = Distribution | Conditional


class PathFunction(eqx.Module):
    """A path with its raw parameters filled in: a pytree whose leaves are arrays."""

    @abc.abstractmethod
    def __call__(self, t: ArrayLike, mu: ArrayLike) -> Array:
        """Value of the parameter at scalar time `t` and population `mu` `(d,)`; of the parameter's shape."""


@dataclasses.dataclass(frozen=True, eq=False)
class BoundPath:
    """A path bound to one parameter and one context: priors of its raw parameters, and a pure function of them.

    Attributes
    ----------
    parameter : the game parameter.
    priors : raw name -> prior, hyperparameters first. Values are NumPyro distributions; only a centred path with an uncertain
        scale has a `Conditional`. `sample` deals with both.
    build : raw parameters and inputs -> function; use `function`.
    plan : the inputs; use the properties below.
    description : one sentence for the report.
    is_constant : True when the value depends on neither time nor population.
    """

    parameter: Parameter
    priors: dict[str, Prior]
    build: Callable[[Mapping[str, Array], Inputs], PathFunction]
    plan: InputPlan
    description: str
    is_constant: bool = False

    @property
    def depends_on_population(self) -> bool:
        """True when the equilibrium population enters: the path must then be evaluated inside the fixed point."""
        return "population" in self.plan.kinds

    @property
    def needs_observed(self) -> bool:
        """True when `function` must be given the observed population."""
        return "observed" in self.plan.kinds

    @property
    def has_group(self) -> bool:
        """True when trajectories deviate from a shared path, which is what `function` gives."""
        return False

    @property
    def local(self) -> tuple[str, ...]:
        """Raw names whose first axis are the trajectories, each seen by its own trajectory alone."""
        return ()

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Raw names of uncertain scales and length scales: numbers that are of interest themselves."""
        return tuple(name for name in ("scale", "length_scale") if name in self.priors)

    @property
    def raw_shapes(self) -> dict[str, tuple[int, ...]]:
        """Raw name -> shape of one draw."""
        return {name: prior.shape if isinstance(prior, Conditional) else prior.shape() for name, prior in self.priors.items()}

    def sample(self, draw: Callable[[str, Distribution], Any]) -> dict[str, Any]:
        """Walk through the priors in order.

        Parameters
        ----------
        draw : `(name, distribution) -> value`, for example `lambda name, prior: numpyro.sample(f"beta/{name}", prior)`.

        Returns
        -------
        dict : raw name -> value, as `function` takes it.
        """
        raw: dict[str, Any] = {}
        for name, prior in self.priors.items():
            raw[name] = draw(name, prior.given(raw) if isinstance(prior, Conditional) else prior)
        return raw

    def sample_prior(self, key: Array) -> dict[str, Array]:
        """One draw of all raw parameters from the prior."""
        keys = dict(zip(self.priors, jax.random.split(key, max(len(self.priors), 1)), strict=False))
        return self.sample(lambda name, prior: prior.sample(keys[name]))

    def function(self, raw: Mapping[str, ArrayLike], observed: tuple[ArrayLike, ArrayLike] | None = None) -> PathFunction:
        """The path as a function of time and population.

        Parameters
        ----------
        raw : raw name -> value of the shape in `raw_shapes`; their dtype decides the dtype of the value.
        observed : `(T_obs,)` times and `(T_obs, d)` shares, all finite, of one trajectory, interpolated linearly and held
            constant beyond the ends; needed when `needs_observed`.

        Returns
        -------
        PathFunction : `(t, mu) -> value` of shape `parameter.shape`; a pytree.

        Raises
        ------
        InputError : when a raw parameter is missing, unknown or of the wrong shape, or `observed` is missing or malformed.
        """
        where = f"path of parameter {self.parameter.name!r}"
        shapes = self.raw_shapes
        if set(raw) != set(shapes):
            raise InputError(f"The {where} takes the raw parameters {sorted(shapes)}; got {sorted(raw)}.")
        for name, shape in shapes.items():
            if jnp.shape(raw[name]) != shape:
                raise InputError(f"The {where} needs raw parameter {name!r} of shape {shape}; got {jnp.shape(raw[name])}.")
        dtype = jnp.result_type(float, *raw.values()) if not raw else jnp.result_type(*raw.values())
        if not jnp.issubdtype(dtype, jnp.floating):
            dtype = jnp.result_type(float)
        arrays = {name: jnp.asarray(value, dtype) for name, value in raw.items()}
        return self.build(arrays, self.plan.inputs(observed, where))


class Path(eqx.Module):
    """A prior over functions gamma(t, mu) for one game parameter; a frozen pytree whose fields are the hyperparameters."""

    @abc.abstractmethod
    def bind(self, parameter: Parameter, context: Context) -> BoundPath:
        """Check every field against the parameter and the context, and fix knots, bases and priors.

        Raises
        ------
        InputError : when a field does not fit; the sentence names the family, the parameter, the field and its value.
        """

    def __repr__(self) -> str:
        parts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (Distribution, Array, np.ndarray)) or value != field.default:
                parts.append(f"{field.name}={describe(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"


def describe(value: Any) -> str:
    """A field in words: numbers as they are, a distribution as `Family(argument=value)`."""
    if isinstance(value, Distribution):
        names = [name for name in value.arg_constraints if np.size(getattr(value, name, ())) == 1]
        inside = ", ".join(f"{name}={float(np.asarray(getattr(value, name)).reshape(())):g}" for name in names)
        return f"{type(value).__name__}({inside})"
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float)):
        return repr(value)
    return f"{value:g}"
