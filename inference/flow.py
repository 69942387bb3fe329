"""A normalising flow as a guide: for posteriors of few unknowns that no normal describes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.example_libraries import stax
from numpyro.distributions.transforms import Transform
from numpyro.nn import AutoregressiveNN

MOST_UNKNOWNS = 50
LAYERS = 4
HIDDEN = 32
BOUNDS = {"location": None, "log_scale": 3.0, "skew": 1.5, "log_tail": 0.7}


class Bend(Transform):
    """One layer of the flow: every coordinate is shifted, scaled, skewed and given other tails, by how much the coordinates before it say.

    `y = location + scale * (sinh(tail * asinh(x) + skew) - sinh(skew)) / (tail * cosh(skew))`, which is `location` with slope `scale` at 0. With skew 0 and tail 1
    this is the inverse autoregressive flow of Kingma et al. (2016).
    """

    domain = dist.constraints.real_vector
    codomain = dist.constraints.real_vector

    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(self, x: Array) -> Array:
        return self.call_with_intermediates(x)[0]

    def call_with_intermediates(self, x: Array) -> tuple[Array, Array]:
        raw = self.network(x)
        location = raw[0]
        log_scale, skew, log_tail = (b * jnp.tanh(r / b) for r, b in zip(raw[1:], (3.0, 1.5, 0.7), strict=True))
        tail = jnp.exp(log_tail)
        bent = tail * jnp.arcsinh(x) + skew
        y = location + jnp.exp(log_scale) * (jnp.sinh(bent) - jnp.sinh(skew)) / (tail * jnp.cosh(skew))
        slope = log_scale + _log_cosh(bent) - _log_cosh(skew) - 0.5 * jnp.log1p(x**2)
        return y, slope

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Array | None = None) -> Array:
        slope = self.call_with_intermediates(x)[1] if intermediates is None else intermediates
        return slope.sum(-1)

    def tree_flatten(self):
        return (), ((), {"network": self.network})


def _log_cosh(x: Array) -> Array:
    return jnp.logaddexp(x, -x) - jnp.log(2.0)


class Flow:
    """A guide of one vector site."""

    def __init__(self, size: int, site: str = "x", layers: int = LAYERS, hidden: int = HIDDEN, depth: int = 1) -> None:
        self.size = size
        self.site = site
        forward = jnp.arange(size)
        self.networks = [
            _network(size, hidden, forward if k % 2 == 0 else forward[::-1], depth) for k in range(layers)
        ]

    def posterior(self) -> dist.Distribution:
        layers = [Bend(numpyro.module(f"flow_{k}", net, (self.size,))) for k, net in enumerate(self.networks)]
        return dist.TransformedDistribution(dist.Normal(jnp.zeros(self.size), 1.0).to_event(1), layers)

    def __call__(self, *_: Any) -> None:
        numpyro.sample(self.site, self.posterior())

    def draws(self, key: Array, params: Any, count: int) -> tuple[Array, Array]:
        with numpyro.handlers.substitute(data=params):
            normal = self.posterior()
        x, between = normal.sample_with_intermediates(key, (count,))
        return x, normal.log_prob(x, between)


def _network(size: int, hidden: int, order: Array, depth: int) -> tuple[Any, Any]:
    init, apply = AutoregressiveNN(size, [max(hidden, size)] * depth, param_dims=[1, 1, 1, 1], permutation=order, nonlinearity=stax.Tanh)

    def start(key: Array, shape: tuple[int, ...]) -> tuple[Any, Any]:
        out, params = init(key, shape)
        return out, [*params[:-1], jax.tree.map(jnp.zeros_like, params[-1])]

    return start, apply
