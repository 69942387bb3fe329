"""A parameter that never changes."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Parameter

from .base import BoundPath, Context, Path, PathFunction, Prior, describe
from .inputs import NO_INPUT, Inputs
from .links import Link, resolve_link
from .priors import check_prior, normal
from .varying import resolve_level


class ConstantFunction(PathFunction):
    """The same value always."""

    value: Array

    def __call__(self, t: ArrayLike, mu: ArrayLike) -> Array:
        return self.value


class Constant(Path):
    """One unknown value.

    Without a `prior`, the value is `link(Normal(link^-1(level), level_scale))`: for a positive parameter LogNormal with median 1
    and log-sd 1 (the central 95 % span 0.14 to 7.1), for a bounded one a logit-normal close to uniform, for a real one Normal(0,
    1).
    Raw parameters: "level", standard normal; or "value", on the parameter's own scale, where a `prior` is given; or none.

    Parameters
    ----------
    prior : a NumPyro distribution on the parameter's own scale: scalar (independent and the same for every entry) or of the
        parameter's shape. A number (or an array of the parameter's shape) fixes the value.
    level, level_scale : median on the own scale and sd on the link's real line of the default prior.
    link : link of the default prior.

    Raises
    ------
    InputError : at `bind`, when the prior has support where the parameter cannot live.
    """

    prior: Any = None
    level: Any = None
    level_scale: float | None = None
    link: Link | None = None

    def bind(self, parameter: Parameter, context: Context) -> BoundPath:
        where = f"Constant for parameter {parameter.name!r}"
        shape = parameter.shape
        if self.prior is None:
            link = resolve_link(self.link, parameter, where)
            level = resolve_level(self.level, self.level_scale, link, parameter, where)
            text = f"constant of {level.words(link)} on the {link.scale_name} scale"
            return self._bound(parameter, {"level": normal(shape)}, lambda raw: link(level.at(raw)), text)
        for name in ("level", "level_scale", "link"):
            if getattr(self, name) is not None:
                raise InputError(f"{where}: prior and {name} were both given; {name} belongs to the default prior.")
        if not isinstance(self.prior, dist.Distribution):
            fixed = self._fixed(parameter, where)
            return self._bound(
                parameter, {}, lambda raw: jnp.asarray(fixed), f"fixed at {np.array2string(fixed, separator=', ')}"
            )
        if self.prior.shape() not in ((), shape):
            raise InputError(f"{where}: prior {describe(self.prior)} has shape {self.prior.shape()}; {_shapes(shape)} is needed.")
        check_prior(self.prior, parameter.lower, parameter.upper, where, "the parameter")
        prior = self.prior if self.prior.shape() == shape else self.prior.expand(shape)
        if prior.batch_shape:
            prior = prior.to_event(len(prior.batch_shape))
        return self._bound(parameter, {"value": prior}, lambda raw: raw["value"], f"constant with prior {describe(self.prior)}")

    def _fixed(self, parameter: Parameter, where: str) -> np.ndarray:
        try:
            values = np.asarray(self.prior)
        except ValueError as error:  # lists of unequal lengths
            raise InputError(f"{where}: prior is {self.prior!r}; a NumPyro distribution or a number is needed.") from error
        if not np.issubdtype(values.dtype, np.number) or values.dtype == bool:
            raise InputError(f"{where}: prior is {self.prior!r}; a NumPyro distribution or a number is needed.")
        if values.shape not in ((), parameter.shape):
            raise InputError(f"{where}: the fixed value has shape {values.shape}; {_shapes(parameter.shape)} is needed.")
        parameter.check(values, where)
        return np.broadcast_to(values.astype(float), parameter.shape)

    @staticmethod
    def _bound(parameter: Parameter, priors: dict[str, Prior], value: Any, text: str) -> BoundPath:
        def build(raw: Mapping[str, Array], inputs: Inputs) -> PathFunction:
            return ConstantFunction(value(raw))

        return BoundPath(parameter, priors, build, NO_INPUT, f"{parameter.name}: {text}.", is_constant=True)


def _shapes(shape: tuple[int, ...]) -> str:
    return f"() or {shape}" if shape else "()"
