"""What is known of a parameter: a value for every trajectory, which an experimenter set, or a path along time."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Parameter

from .base import BoundPath, Context, Path, PathFunction
from .constant import ConstantFunction
from .inputs import NO_INPUT, Inputs, linear
from .pooled import PooledPath
from .priors import normal


def _numbers(values: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: values is {values!r}; numbers are needed.") from error


@dataclasses.dataclass(frozen=True, eq=False)
class GivenPath(PooledPath):
    """Known values of every trajectory, bound to one parameter; it has no unknowns.

    Attributes
    ----------
    values : `(R, ...)`, of the parameter's shape in each trajectory.
    """

    values: np.ndarray = dataclasses.field(kw_only=True)

    @property
    def local(self) -> tuple[str, ...]:
        return ()

    def by_trajectory(self, raw: Mapping[str, Array]) -> dict[str, Array]:
        return {"value": jnp.asarray(self.values)}

    def renewed(self, raw: Mapping[str, Array], key: Array, count: int) -> dict[str, Array]:
        """The unknowns of other trajectories, of which nobody said what was set there.

        Raises
        ------
        InputError : for another number of trajectories than values.
        """
        if count != len(self.values):
            raise InputError(
                f"{self.parameter.name} is known for {len(self.values)} trajectories, each with a value of its own; there is none for {count}."
            )
        return dict(raw)


class Given(Path):
    """A known constant for every trajectory: experiments that differ in a cost or a rate, fitted together.

    Parameters
    ----------
    values : `(R,)`, or `(R, ...)` with the parameter's shape: one known value for each trajectory, in the data's order.

    Raises
    ------
    InputError : at `bind`, for another number of values than the data have trajectories, and values outside the parameter's range.
    """

    values: Any

    def bind(self, parameter: Parameter, context: Context) -> GivenPath:
        where = f"Given for parameter {parameter.name!r}"
        values = _numbers(self.values, where)
        shape = (context.trajectories, *parameter.shape)
        if values.shape != shape:
            raise InputError(f"{where}: values has shape {values.shape}; {shape} is needed, one for each trajectory of the data.")
        parameter.check(values, where)
        # A constant whose value is the trajectory's own; the prior only tells its shape, for nothing is ever drawn from it.
        inner = BoundPath(parameter, {"value": normal(parameter.shape)}, _constant, NO_INPUT, "", is_constant=True)
        text = f"{parameter.name}: known for every trajectory, from {values.min():g} to {values.max():g}."
        return GivenPath(
            parameter, {}, _constant, NO_INPUT, text, True,
            inner=inner, trajectories=len(values), partial=False, values=values,
        )  # fmt: skip


class TabulatedFunction(PathFunction):
    """Values at times, linear in between and constant beyond the ends."""

    times: Array
    values: Array

    def __call__(self, t: ArrayLike, mu: ArrayLike) -> Array:
        return linear(t, self.times, self.values)


class Tabulated(Path):
    """A known path along time, the same in every trajectory: the truth of a simulation, whatever family a model has for it.

    Parameters
    ----------
    values : a value of the parameter's shape, or one for every time of the grid, `(T, ...)`; linear in between.

    Raises
    ------
    InputError : at `bind`, for another shape, and values outside the parameter's range.
    """

    values: Any

    def bind(self, parameter: Parameter, context: Context) -> BoundPath:
        where = f"Known path of parameter {parameter.name!r}"
        values = _numbers(self.values, where)
        shape = (len(context.times), *parameter.shape)
        if values.shape not in (parameter.shape, shape):
            raise InputError(f"{where}: values has shape {values.shape}; {parameter.shape} or {shape} is needed.")
        if not np.all(np.isfinite(values)):
            raise InputError(f"{where}: values is {values.tolist()}; finite numbers are needed.")
        parameter.check(values, where)
        along = np.broadcast_to(values, shape)

        def build(raw: Mapping[str, Array], inputs: Inputs) -> PathFunction:
            return TabulatedFunction(jnp.asarray(context.times, float), jnp.asarray(along))

        text = f"{parameter.name}: known, from {values.min():g} to {values.max():g}."
        return BoundPath(parameter, {}, build, NO_INPUT, text, is_constant=values.shape == parameter.shape)


def _constant(raw: Mapping[str, Array], inputs: Inputs) -> PathFunction:
    return ConstantFunction(raw["value"])
