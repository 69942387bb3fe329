"""Links: smooth increasing maps from the real line onto the support of a parameter."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Parameter


class Link(eqx.Module):
    """A smooth increasing map from the real line onto the open interval `(lower, upper)`.

    `__call__` is the map, in JAX; `inverse` its inverse for numbers known before fitting, in NumPy.
    """

    @property
    @abc.abstractmethod
    def interval(self) -> tuple[float, float]:
        """Ends of the image, infinite where unbounded."""

    @property
    @abc.abstractmethod
    def default_level(self) -> float:
        """Median that a path takes where the user gives none."""

    @property
    def default_level_scale(self) -> float:
        """Prior sd of the level on the link's real line where the user gives none."""
        return 1.0

    @property
    @abc.abstractmethod
    def scale_name(self) -> str:
        """The real line in words, for reports."""

    @abc.abstractmethod
    def __call__(self, x: Array) -> Array:
        """From the real line to the parameter."""

    @abc.abstractmethod
    def inverse(self, value: ArrayLike) -> np.ndarray:
        """From the parameter to the real line."""


class Identity(Link):
    """The real line itself."""

    @property
    def interval(self) -> tuple[float, float]:
        return -math.inf, math.inf

    @property
    def default_level(self) -> float:
        return 0.0

    @property
    def scale_name(self) -> str:
        return "own"

    def __call__(self, x: Array) -> Array:
        return x

    def inverse(self, value: ArrayLike) -> np.ndarray:
        return np.asarray(value, dtype=float)


class Positive(Link):
    """`lower + exp(x)`: log-normal levels, variation in factors.

    Parameters
    ----------
    lower : lower end of the support.
    """

    lower: float = eqx.field(default=0.0, static=True)

    @property
    def interval(self) -> tuple[float, float]:
        return self.lower, math.inf

    @property
    def default_level(self) -> float:
        return self.lower + 1.0

    @property
    def scale_name(self) -> str:
        return "log"

    def __call__(self, x: Array) -> Array:
        return self.lower + jnp.exp(x)

    def inverse(self, value: ArrayLike) -> np.ndarray:
        return np.log(np.asarray(value, dtype=float) - self.lower)


class Below(Link):
    """`upper - exp(-x)`, for parameters bounded from above only.

    Parameters
    ----------
    upper : upper end of the support.
    """

    upper: float = eqx.field(default=0.0, static=True)

    @property
    def interval(self) -> tuple[float, float]:
        return -math.inf, self.upper

    @property
    def default_level(self) -> float:
        return self.upper - 1.0

    @property
    def scale_name(self) -> str:
        return "log"

    def __call__(self, x: Array) -> Array:
        return self.upper - jnp.exp(-x)

    def inverse(self, value: ArrayLike) -> np.ndarray:
        return -np.log(self.upper - np.asarray(value, dtype=float))


class Softplus(Link):
    """`floor + log(1 + exp(x))`: like `Positive` near the floor, linear far from it. The paper's output with `floor=0.1`.

    Source: arXiv 2606.23155, network output of the benchmarks.

    Parameters
    ----------
    floor : lower end of the image.
    """

    floor: float = eqx.field(default=0.0, static=True)

    @property
    def interval(self) -> tuple[float, float]:
        return self.floor, math.inf

    @property
    def default_level(self) -> float:
        return self.floor + 1.0

    @property
    def scale_name(self) -> str:
        return "softplus"

    def __call__(self, x: Array) -> Array:
        return self.floor + jax.nn.softplus(x)

    def inverse(self, value: ArrayLike) -> np.ndarray:
        above = np.asarray(value, dtype=float) - self.floor
        return above + np.log(-np.expm1(-above))  # log(exp(y) - 1) without overflow


class Bounded(Link):
    """`lower + (upper - lower) / (1 + exp(-x))`: a scaled logistic.

    Parameters
    ----------
    lower, upper : ends of the support, finite.
    """

    lower: float = eqx.field(default=0.0, static=True)
    upper: float = eqx.field(default=1.0, static=True)

    @property
    def interval(self) -> tuple[float, float]:
        return self.lower, self.upper

    @property
    def default_level(self) -> float:
        return 0.5 * (self.lower + self.upper)

    @property
    def default_level_scale(self) -> float:
        return 1.5  # close to uniform on the interval

    @property
    def scale_name(self) -> str:
        return "logit"

    def __call__(self, x: Array) -> Array:
        return self.lower + (self.upper - self.lower) * jax.nn.sigmoid(x)

    def inverse(self, value: ArrayLike) -> np.ndarray:
        value = np.asarray(value, dtype=float)
        return np.log(value - self.lower) - np.log(self.upper - value)


def resolve_link(link: Link | None, parameter: Parameter, where: str) -> Link:
    """The link of a path: the user's, checked against the parameter's support, or the support's own.

    Raises
    ------
    InputError : when the link can leave the support, or its interval is empty.
    """
    low, high = parameter.lower, parameter.upper
    if link is None:
        if math.isfinite(low) and math.isfinite(high):
            return Bounded(low, high)
        if math.isfinite(low):
            return Positive(low)
        return Below(high) if math.isfinite(high) else Identity()
    if not isinstance(link, Link):
        raise InputError(f"{where}: link is {link!r}; one of Positive(), Softplus(), Bounded(), Identity() is needed.")
    lower, upper = link.interval
    if not lower < upper:
        raise InputError(f"{where}: link {link!r} has the empty interval ({lower:g}, {upper:g}).")
    if not (lower >= low and upper <= high):
        raise InputError(
            f"{where}: link {link!r} reaches ({lower:g}, {upper:g}), but the parameter lives in ({low:g}, {high:g})."
        )
    return link
