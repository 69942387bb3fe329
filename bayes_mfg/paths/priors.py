"""Supports of distributions, and the numbers-or-distributions that users give as hyperparameters."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from bayes_mfg.errors import InputError

from .base import describe


def support_bounds(prior: dist.Distribution) -> tuple[float, float] | None:
    """Smallest interval that holds the support of `prior`, or None where its constraint does not tell.

    A chain of elementwise transforms is followed end to end, because an affine last step has the codomain "real" whatever
    precedes it.
    """
    if isinstance(prior, (dist.ExpandedDistribution, dist.Independent, dist.MaskedDistribution)):
        return support_bounds(prior.base_dist)
    if isinstance(prior, dist.Delta):
        value = np.asarray(prior.v)
        return float(value.min()), float(value.max())
    if isinstance(prior, dist.TransformedDistribution):
        ends = support_bounds(prior.base_dist)
        if ends is not None and all(step.domain.event_dim == 0 for step in prior.transforms):
            low, high = np.asarray(ends[0]), np.asarray(ends[1])
            with np.errstate(all="ignore"):
                for step in prior.transforms:
                    one, two = np.asarray(step(jnp.asarray(low))), np.asarray(step(jnp.asarray(high)))
                    low, high = np.minimum(one, two).min(), np.maximum(one, two).max()
            if not (np.isnan(low) or np.isnan(high)):
                return float(low), float(high)
    constraint: Any = prior.support
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    if hasattr(constraint, "lower_bound") and hasattr(constraint, "upper_bound"):
        return float(np.min(constraint.lower_bound)), float(np.max(constraint.upper_bound))
    if hasattr(constraint, "lower_bound"):
        return float(np.min(constraint.lower_bound)), math.inf
    if hasattr(constraint, "upper_bound"):
        return -math.inf, float(np.max(constraint.upper_bound))
    if constraint is constraints.simplex:
        return 0.0, 1.0
    if constraint is constraints.real or constraint is constraints.real_vector:
        return -math.inf, math.inf
    return None


def check_prior(prior: dist.Distribution, lower: float, upper: float, where: str, needed: str) -> None:
    """Refuse a discrete prior and a prior that can leave `(lower, upper)`; ends of no mass are let through.

    Raises
    ------
    InputError : naming the prior, its support and the support that is needed.
    """
    with jax.ensure_compile_time_eval():
        if prior.support is None or prior.support.is_discrete:
            raise InputError(f"{where}: prior {describe(prior)} is discrete; {needed} is continuous.")
        bounds = support_bounds(prior)
        if bounds is None:  # an unusual constraint: look at what the prior draws
            draws = np.asarray(prior.sample(jax.random.key(0), (1000,)))
            bounds = float(draws.min()), float(draws.max())
        if not (bounds[0] >= lower and bounds[1] <= upper):
            raise InputError(
                f"{where}: prior {describe(prior)} has its support in ({bounds[0]:g}, {bounds[1]:g}), "
                f"but {needed} lives in ({lower:g}, {upper:g})."
            )
        if isinstance(prior, dist.Delta):
            raise InputError(f"{where}: prior {describe(prior)} is a point; give the number itself where {needed} is known.")
        draws = np.asarray(prior.sample(jax.random.key(0), (1000,)))
        if np.any((draws < lower) | (draws > upper)):  # a transform that is not monotonic hides its range from the ends
            outside = float(draws[(draws < lower) | (draws > upper)].flat[0])
            raise InputError(
                f"{where}: prior {describe(prior)} draws values such as {outside:g}, but {needed} lives in ({lower:g}, {upper:g})."
            )
        if not np.all(np.isfinite(draws)):
            raise InputError(f"{where}: prior {describe(prior)} draws values that are not finite.")


def check_amount(value: Any, field: str, where: str) -> float | dist.Distribution:
    """A positive hyperparameter: a positive number is fixed, a scalar distribution on the positive numbers is its prior.

    Raises
    ------
    InputError : on anything else.
    """
    if isinstance(value, dist.Distribution):
        if value.shape() != ():
            raise InputError(f"{where}: {field} has a prior of shape {value.shape()}; a scalar prior is needed.")
        check_prior(value, 0.0, math.inf, where, field)
        return value
    return check_positive(value, field, where)


def check_positive(value: Any, field: str, where: str) -> float:
    """A finite positive number, or an `InputError`."""
    if isinstance(value, bool) or np.ndim(value) != 0 or not np.issubdtype(np.asarray(value).dtype, np.number):
        raise InputError(f"{where}: {field} is {value!r}; a positive number is needed.")
    if not (math.isfinite(float(value)) and float(value) > 0.0):
        raise InputError(f"{where}: {field} is {value}; a positive number is needed.")
    return float(value)


def check_count(value: Any, field: str, where: str, least: int = 1) -> int:
    """A whole number of at least `least`, or an `InputError`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{where}: {field} is {value!r}; a whole number of at least {least} is needed.")
    return int(value)


def check_choice(value: Any, choices: tuple[str, ...], field: str, where: str) -> str:
    """One of `choices`, or an `InputError`."""
    if value not in choices:
        raise InputError(f"{where}: {field} is {value!r}; it is one of {', '.join(choices)}.")
    return str(value)


def amount(value: float | dist.Distribution, raw: Mapping[str, Array], name: str) -> Array | float:
    """The hyperparameter itself: the fixed number, or what was drawn for it."""
    return raw[name] if isinstance(value, dist.Distribution) else value


def quantiles(value: float | dist.Distribution, levels: tuple[float, float]) -> tuple[float, float]:
    """Two quantiles of a hyperparameter, by inversion or from 4,000 draws with a fixed key."""
    if not isinstance(value, dist.Distribution):
        return value, value
    with jax.ensure_compile_time_eval():
        try:
            ends = np.asarray([float(value.icdf(level)) for level in levels])
        except (NotImplementedError, AttributeError, ImportError):  # some inverses need packages that are not ours
            ends = np.full(2, np.nan)
        if not np.all(np.isfinite(ends)):
            ends = np.quantile(np.asarray(value.sample(jax.random.key(0), (4000,))), levels)
    return float(ends[0]), float(ends[1])


def normal(shape: tuple[int, ...]) -> dist.Distribution:
    """Independent standard normals, one event of the given shape."""
    return dist.Normal(0.0, 1.0).expand(shape).to_event(len(shape))
