"""The unconstrained coordinates of a model's unknowns, and its potential (negative log density) in them."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer.util import potential_energy

from bayes_mfg.models import Data, ForwardModel

PRIOR_DRAWS_FOR_MEDIAN = 101


class Coordinates:
    """Map between a flat real vector and the values of a model's sample sites.

    Parameters
    ----------
    model : the model; its sites, their shapes and supports are read off one trace of the priors.
    """

    def __init__(self, model: ForwardModel) -> None:
        self.model = model
        trace = handlers.trace(handlers.seed(self._priors, jax.random.key(0))).get_trace()
        sites = {name: site for name, site in trace.items() if site["type"] == "sample"}
        self.transforms = {name: biject_to(site["fn"].support) for name, site in sites.items()}
        self.shapes = {name: jnp.shape(self.transforms[name].inv(site["value"])) for name, site in sites.items()}
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.offsets = dict(zip(self.shapes, (sum(sizes[:k]) for k in range(len(sizes))), strict=True))
        self.size = int(sum(sizes))
        self.names = [
            name + (f"[{','.join(map(str, index))}]" if shape else "")
            for name, shape in self.shapes.items()
            for index in np.ndindex(shape)
        ]

    def _priors(self) -> None:
        self.model.latents(numpyro.sample, self.model.data)

    @property
    def local(self) -> np.ndarray:
        """Coordinates that belong to one trajectory each, `(k, R)`."""
        count = self.model.population.n_trajectories
        places = [
            self.offsets[name] + np.arange(math.prod(self.shapes[name])).reshape(count, -1)
            for name in self.model.local_sites
            if name in self.shapes
        ]
        return np.concatenate([p.T for p in places]) if places else np.zeros((0, count), int)

    def split(self, flat: Array) -> dict[str, Array]:
        """Unconstrained value of every site."""
        return {
            name: flat[self.offsets[name] : self.offsets[name] + math.prod(shape)].reshape(shape)
            for name, shape in self.shapes.items()
        }

    def constrain(self, flat: Array) -> dict[str, Array]:
        """Value of every site from the flat vector `(size,)`."""
        return {name: self.transforms[name](value) for name, value in self.split(flat).items()}

    def unconstrain(self, sites: Mapping[str, Array]) -> Array:
        """The flat vector of given site values."""
        return jnp.concatenate([jnp.ravel(self.transforms[name].inv(sites[name])) for name in self.shapes] or [jnp.zeros(0)])

    def draw_prior(self, key: Array) -> dict[str, Array]:
        """One prior draw of all sites."""
        trace = handlers.trace(handlers.seed(self._priors, key)).get_trace()
        return {name: trace[name]["value"] for name in self.shapes}

    def latents(self, sites: Mapping[str, Array], data: Data) -> dict[str, Any]:
        """The unknowns in the form that the model works with, from site values."""
        return self.model.latents(lambda name, _: sites[name], data)

    def potential(self, flat: Array, data: Data) -> Array:
        """Negative log density of the flat vector, Jacobian terms included; NaN where a solve fails."""
        return potential_energy(self.model, (data,), {}, self.split(flat))

    def prior_potential(self, flat: Array, data: Data) -> Array:
        """Negative log prior density of the flat vector, Jacobian terms included."""
        return potential_energy(lambda data: self.model.latents(numpyro.sample, data), (data,), {}, self.split(flat))

    def prior_median(self) -> np.ndarray:
        """Coordinatewise prior median, where fits start."""
        return np.median(prior_points(self.model, jax.random.split(jax.random.key(0), PRIOR_DRAWS_FOR_MEDIAN)), axis=0)


def compiled(model: ForwardModel, name: str, make: Any) -> Any:
    """A compiled function of the model's structure, made once and shared with `model.with_population(...)`."""
    if name not in model.compiled:
        model.compiled[name] = make()
    return model.compiled[name]


def coordinates(model: ForwardModel) -> Coordinates:
    """The model's coordinates, made once."""
    return compiled(model, "coordinates", lambda: Coordinates(model))


def prior_points(model: ForwardModel, keys: Array) -> np.ndarray:
    """Draws from the prior in unconstrained coordinates `(n, size)`, one for each of the keys `(n,)`."""
    space = coordinates(model)
    many = compiled(model, "prior", lambda: jax.jit(jax.vmap(lambda key: space.unconstrain(space.draw_prior(key)))))
    return np.asarray(many(keys))


def potential(model: ForwardModel) -> Any:
    """Compiled `(flat, data) -> potential`."""
    return compiled(model, "potential", lambda: jax.jit(coordinates(model).potential))


def value_and_gradient(model: ForwardModel) -> Any:
    """Compiled `(flat, data) -> (potential, gradient)`."""
    return compiled(model, "value_and_gradient", lambda: jax.jit(jax.value_and_grad(coordinates(model).potential)))
