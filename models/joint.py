"""One normal prior of all unknowns together, in place of the separate priors of the pieces."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import biject_to

from bayes_mfg.errors import InputError

from .initial import Draw

UNKNOWNS = "unknowns"
"""Name of the one site that takes the place of all others."""


class JointPrior:
    """Normal prior of all unknowns in their unconstrained coordinates, in the order in which a model draws them.

    Parameters
    ----------
    location : `(size,)`.
    covariance : `(size, size)`, positive definite.

    Raises
    ------
    InputError : for arrays that are no mean and covariance.
    """

    def __init__(self, location: Any, covariance: Any) -> None:
        try:
            self.location, self.covariance = np.asarray(location, float), np.asarray(covariance, float)
        except (TypeError, ValueError) as error:
            raise InputError("with_prior: location and covariance are needed as arrays of numbers.") from error
        size = self.location.size
        if self.location.shape != (size,) or self.covariance.shape != (size, size):
            raise InputError(
                f"with_prior: location has shape {self.location.shape} and covariance {self.covariance.shape}; (k,) and (k, k) are needed."
            )
        if not (np.all(np.isfinite(self.location)) and np.all(np.isfinite(self.covariance))):
            raise InputError("with_prior: location or covariance holds a number that is not finite.")
        symmetric = np.allclose(self.covariance, self.covariance.T, rtol=1e-8, atol=0.0)
        if not symmetric or np.linalg.eigvalsh(self.covariance).min() <= 0:
            raise InputError("with_prior: covariance is not symmetric and positive definite.")
        self.root = np.linalg.cholesky(self.covariance)

    @property
    def words(self) -> str:
        """One line for reports, with a fingerprint of all numbers: priors that differ anywhere differ in it."""
        numbers = hashlib.sha256(self.location.tobytes() + self.covariance.tobytes()).hexdigest()[:16]
        return f"one normal prior of all unknowns together, in place of those of the pieces (fingerprint {numbers})"

    def check(self, draw_all: Callable[[Draw], Any]) -> None:
        """Count the unknowns that a model draws.

        Raises
        ------
        InputError : when there are more or fewer than the prior is of.
        """
        count = 0

        def counted(name: str, prior: dist.Distribution) -> Array:
            nonlocal count
            with jax.ensure_compile_time_eval():
                value = prior.sample(jax.random.key(0))
            transform: Any = biject_to(prior.support)
            count += math.prod(transform.inverse_shape(prior.shape()))
            return value

        draw_all(counted)
        if count != self.location.size:
            raise InputError(f"with_prior: the prior is of {self.location.size} unknowns, the model has {count}.")

    def drawing(self, draw: Draw) -> Draw:
        """A way to draw that takes the value of every site from one draw of all unknowns."""
        normal = dist.MultivariateNormal(jnp.asarray(self.location), scale_tril=jnp.asarray(self.root))
        flat = draw(UNKNOWNS, normal)
        place = 0

        def part(name: str, prior: dist.Distribution) -> Array:
            nonlocal place
            transform: Any = biject_to(prior.support)
            shape = transform.inverse_shape(prior.shape())
            size = math.prod(shape)
            value = flat[place : place + size].reshape(shape)
            place += size
            return jnp.asarray(transform(value))

        return part
