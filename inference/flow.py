"""A normalising flow as a guide, for posteriors of few unknowns that no normal describes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.example_libraries import stax
from numpyro import handlers
from numpyro.distributions.transforms import Transform
from numpyro.nn import AutoregressiveNN

MOST_UNKNOWNS = 50
"""Unknowns that a flow is for, see docs/guides.md."""

LAYERS = 4
"""Layers of a flow; every other one takes the coordinates in reverse order."""

HIDDEN = 32
"""Hidden units of a layer's network, or as many as there are unknowns."""

MOST_LOG_SCALE, MOST_SKEW, MOST_LOG_TAIL = 3.0, 1.5, 0.7
"""Bounds that a layer's figures approach: one bad update must not throw the draws out of what can be solved."""


class Bend(Transform):
    """One layer: every coordinate is moved, scaled, skewed and given other tails, by figures that are functions of the coordinates before it.

    `y = location + scale (sinh(tail asinh(x) + skew) - sinh(skew)) / (tail cosh(skew))`: at 0 this is `location`, with the slope `scale`; far out it
    grows as `|x|^tail`. The Jacobian is triangular, and its determinant exact.

    Sources: the inverse autoregressive flow of Kingma et al. (NeurIPS 2016), which this is with skew 0 and tail 1; the sinh-arcsinh transformation of
    Jones and Pewsey, Biometrika 96 (2009). Location and scale alone leave the first coordinate normal.

    Parameters
    ----------
    network : `x (..., size) -> ` raw location, log scale, skew and log tail, `(..., size)` each; those of a coordinate depend on earlier ones only.
    """

    domain = dist.constraints.real_vector
    codomain = dist.constraints.real_vector

    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(self, x: Array) -> Array:
        return self.call_with_intermediates(x)[0]

    def call_with_intermediates(self, x: Array) -> tuple[Array, Array]:
        """The image of `x`, and the log slope of every coordinate."""
        location, *raw = self.network(x)
        log_scale, skew, log_tail = (
            most * jnp.tanh(value / most) for value, most in zip(raw, (MOST_LOG_SCALE, MOST_SKEW, MOST_LOG_TAIL), strict=True)
        )
        tail = jnp.exp(log_tail)
        bent = tail * jnp.arcsinh(x) + skew
        y = location + jnp.exp(log_scale) * (jnp.sinh(bent) - jnp.sinh(skew)) / (tail * jnp.cosh(skew))
        return y, log_scale + _log_cosh(bent) - _log_cosh(skew) - 0.5 * jnp.log1p(x**2)

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Array | None = None) -> Array:
        slopes = self.call_with_intermediates(x)[1] if intermediates is None else intermediates
        return slopes.sum(-1)

    def tree_flatten(self) -> tuple:
        return (), ((), {"network": self.network})


class Flow:
    """A guide of one vector site, a standard normal to begin with: the last layer of every network starts at zero.

    Parameters
    ----------
    size : of the site.
    site : its name.
    layers, hidden : layers, and hidden units of each.
    """

    def __init__(self, size: int, site: str = "x", layers: int = LAYERS, hidden: int = HIDDEN) -> None:
        self.size = size
        self.site = site
        order = jnp.arange(size)
        self.networks = [_network(size, max(hidden, size), order if k % 2 == 0 else order[::-1]) for k in range(layers)]

    def __call__(self, *_: Any) -> None:
        numpyro.sample(self.site, self._distribution())

    def draws(self, key: Array, params: Any, count: int) -> tuple[Array, Array]:
        """Draws `(count, size)` with their exact log densities `(count,)`, for parameters as SVI keeps them."""
        with handlers.substitute(data=params):
            distribution = self._distribution()
        x, between = distribution.sample_with_intermediates(key, (count,))
        return x, distribution.log_prob(x, between)

    def _distribution(self) -> dist.TransformedDistribution:
        layers = [Bend(numpyro.module(f"layer_{k}", network, (self.size,))) for k, network in enumerate(self.networks)]
        return dist.TransformedDistribution(dist.Normal(jnp.zeros(self.size), 1.0).to_event(1), layers)


def _network(size: int, hidden: int, order: Array) -> tuple[Any, Any]:
    """A masked network as stax has them, `(init, apply)`, whose outputs start at zero."""
    init, apply = AutoregressiveNN(size, [hidden], param_dims=[1, 1, 1, 1], permutation=order, nonlinearity=stax.Tanh)

    def start(key: Array, shape: tuple[int, ...]) -> tuple[Any, Any]:
        out, params = init(key, shape)
        return out, [*params[:-1], jax.tree.map(jnp.zeros_like, params[-1])]

    return start, apply


def _log_cosh(x: Array) -> Array:
    return jnp.logaddexp(x, -x) - jnp.log(2.0)
