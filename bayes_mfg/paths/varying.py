"""What all varying families share: `value = link(level + variation(inputs))`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Parameter

from .base import Context, Path, PathFunction, Prior, describe
from .inputs import InputPlan, Inputs, plan_inputs
from .links import Link, resolve_link
from .priors import amount, check_amount, check_positive, normal


class LinkedFunction(PathFunction):
    """`link(level + variation(features))`."""

    level: Array
    variation: eqx.Module
    inputs: Inputs
    link: Link

    def __call__(self, t: ArrayLike, mu: ArrayLike) -> Array:
        features = self.inputs(t, mu, self.level.dtype)
        return self.link(self.level + self.variation(features))  # type: ignore[operator]


@dataclasses.dataclass(frozen=True)
class Level:
    """Prior of the level on the link's real line: Normal(`location`, `scale`) per entry of the parameter."""

    location: np.ndarray
    scale: float

    def at(self, raw: Mapping[str, Array]) -> Array:
        """The level from its standardised raw parameter."""
        return jnp.asarray(self.location, raw["level"].dtype) + self.scale * raw["level"]

    def words(self, link: Link) -> str:
        """The prior in words."""
        with jax.ensure_compile_time_eval():
            medians = np.unique(np.asarray(link(jnp.asarray(self.location))))
        median = f"{medians[0]:.4g}" if medians.size == 1 else f"{medians[0]:.4g} to {medians[-1]:.4g}"
        return f"median {median} and sd {self.scale:g}"


def resolve_level(level: Any, level_scale: Any, link: Link, parameter: Parameter, where: str) -> Level:
    """Check the fields `level` and `level_scale`.

    Raises
    ------
    InputError : when the level is not a number (or an array of the parameter's shape) inside the link's interval.
    """
    lower, upper = link.interval
    values = np.asarray(link.default_level if level is None else level)
    if not np.issubdtype(values.dtype, np.number):
        raise InputError(f"{where}: level is {level!r}; a number on the parameter's own scale is needed.")
    if values.shape not in ((), parameter.shape):
        raise InputError(f"{where}: level has shape {values.shape}; a number or an array of shape {parameter.shape} is needed.")
    if not np.all(np.isfinite(values) & (values > lower) & (values < upper)):
        raise InputError(f"{where}: level is {level if level is not None else values}; it must lie in ({lower:g}, {upper:g}).")
    sd = link.default_level_scale if level_scale is None else check_positive(level_scale, "level_scale", where)
    return Level(np.broadcast_to(link.inverse(values), parameter.shape), sd)


@dataclasses.dataclass(frozen=True)
class Frame:
    """The checked common fields of a varying path."""

    where: str
    parameter: Parameter
    link: Link
    level: Level
    scale: float | dist.Distribution
    plan: InputPlan

    @property
    def hyperpriors(self) -> dict[str, Prior]:
        """Prior of the scale where it is uncertain."""
        return {"scale": self.scale} if isinstance(self.scale, dist.Distribution) else {}

    @property
    def priors(self) -> dict[str, Prior]:
        """Priors of the scale and of the standardised level."""
        return {**self.hyperpriors, "level": normal(self.parameter.shape)}

    def scale_at(self, raw: Mapping[str, Array]) -> Array | float:
        """The scale: fixed, or as drawn."""
        return amount(self.scale, raw, "scale")

    def linked(self, level: Array, variation: eqx.Module, inputs: Inputs) -> LinkedFunction:
        """The finished function."""
        return LinkedFunction(level, variation, inputs, self.link)

    def sentence(self, family: str) -> str:
        """Description for the report; `family` says what varies and how."""
        return (
            f"{self.parameter.name}: {family} over {self.plan.words}, of prior sd {describe(self.scale)} "
            f"on the {self.link.scale_name} scale around a level of {self.level.words(self.link)}."
        )


class Varying(Path):
    """Fields that all varying families share.

    Parameters
    ----------
    scale : prior sd of the variation on the link's real line (for a positive parameter: of its logarithm), in the sense that the
        family states. A number is fixed; a NumPyro distribution on the positive numbers makes it a hyperparameter.
    level : prior median on the parameter's own scale; a number or an array of the parameter's shape. Default: the link's
        (`lower + 1` for a parameter with only a lower bound, the middle of a bounded one, 0 on the real line).
    level_scale : prior sd of the level on the link's real line; default 1 (1.5 on a bounded support).
    link : map from the real line to the parameter; default by support: `Positive`, `Bounded` or `Identity`.
    input : "time"; "population" (equilibrium, inside the fixed point); "observed" (observed population, interpolated).
    states : names of the states whose shares enter where the input is a population; default all. The shares enter additively,
        each with `scale / sqrt(number of shares)`.
    """

    scale: float | dist.Distribution = eqx.field(default=0.5, kw_only=True)
    level: Any = eqx.field(default=None, kw_only=True)
    level_scale: float | None = eqx.field(default=None, kw_only=True)
    link: Link | None = eqx.field(default=None, kw_only=True)
    input: str | tuple[str, ...] = eqx.field(default="time", static=True, kw_only=True)
    states: Sequence[str] | None = eqx.field(default=None, static=True, kw_only=True)

    def _frame(self, parameter: Parameter, context: Context, several: bool = False) -> Frame:
        where = f"{type(self).__name__} for parameter {parameter.name!r}"
        link = resolve_link(self.link, parameter, where)
        return Frame(
            where,
            parameter,
            link,
            resolve_level(self.level, self.level_scale, link, parameter, where),
            check_amount(self.scale, "scale", where),
            plan_inputs(self.input, self.states, context, where, several),
        )
