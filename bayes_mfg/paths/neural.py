"""Small neural networks as priors over functions."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Parameter

from .base import BoundPath, Context, PathFunction, Prior
from .inputs import Inputs
from .links import Softplus
from .priors import check_choice, check_count, check_positive, normal
from .varying import Varying

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "softplus": jax.nn.softplus,
    "sin": jnp.sin,
    "relu": jax.nn.relu,
}


class Network(eqx.Module):
    """A multilayer perceptron on features normalised to `[-1, 1]`."""

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    start: tuple[float, ...] = eqx.field(static=True)
    width: tuple[float, ...] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __call__(self, features: Array) -> Array:
        dtype = features.dtype
        hidden = 2.0 * (features - jnp.asarray(self.start, dtype)) / jnp.asarray(self.width, dtype) - 1.0
        for weight, bias in zip(self.weights[:-1], self.biases, strict=True):
            hidden = ACTIVATIONS[self.activation](jnp.matmul(hidden, weight, precision="highest") + bias)
        return jnp.matmul(hidden, self.weights[-1], precision="highest").reshape(self.shape)


def root_mean_square(activation: str, depth: int, weight_scale: float) -> float:
    """Root-mean-square of the last hidden layer under the prior, in the limit of infinite width.

    Own derivation, by the recursion of the limiting Gaussian process (Lee et al., Deep Neural Networks as Gaussian Processes,
    ICLR 2018, equation 5): pre-activations have variance `q_1(x) = s^2 (x^2 + 1)` and `q_{l+1} = s^2 (E[a(sqrt(q_l) z)^2] + 1)`
    with weights and biases of scale `s`; averaged over inputs uniform on [-1, 1].
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    weights = weights / weights.sum()
    inputs = np.linspace(-1.0, 1.0, 101)
    with jax.ensure_compile_time_eval():
        second = inputs**2
        for _ in range(depth):
            sd = weight_scale * np.sqrt(second + 1.0)
            second = np.asarray(ACTIVATIONS[activation](jnp.asarray(sd[:, None] * nodes))) ** 2 @ weights
    return float(np.sqrt(second.mean()))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Body:
    """Hidden layers that are known: raw parameters of a `Neural` path, as its priors scale them.

    Attributes
    ----------
    weights : per hidden layer `(units before, units)`.
    biases : per hidden layer `(units,)`.
    origin : where they come from, in words that follow "its body".
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    origin: str

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any], origin: str) -> "Body":
        """The body among the raw parameters of a path, "weights_0", "biases_0", ...; the output's weights are no part of it."""
        depth = sum(name.startswith("biases_") for name in raw)
        layers = range(depth)
        weights, biases = ([np.array(raw[f"{kind}_{k}"], float) for k in layers] for kind in ("weights", "biases"))
        return cls(tuple(weights), tuple(biases), origin)

    @property
    def raw(self) -> dict[str, np.ndarray]:
        """Raw name -> value."""
        named = [(f"{kind}_{k}", x) for kind in ("weights", "biases") for k, x in enumerate(getattr(self, kind))]
        return dict(named)

    @property
    def fingerprint(self) -> str:
        """Eight characters that tell bodies apart."""
        seen = hashlib.sha256()
        for array in (*self.weights, *self.biases):
            seen.update(f"{array.shape}".encode())
            seen.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
        return seen.hexdigest()[:8]

    def __repr__(self) -> str:
        return f"Body({self.origin}, fingerprint {self.fingerprint})"


class Neural(Varying):
    """A network with Gaussian priors on weights and biases; its output is added to the level on the link's real line.

    Inputs are normalised to [-1, 1] (time: from the first grid time to the last datum). Weights have prior sd
    `weight_scale / sqrt(fan_in)`, biases `weight_scale`; output weights are scaled such that the prior sd of the output, averaged
    over the inputs, is `scale` whatever the width. Larger `weight_scale` gives functions that vary faster. Weights have no
    meaning of their own and many optima: judge convergence on the path.
    Raw parameters, all standard normal: "level", "weights_0", "biases_0", ..., "weights_<depth>".

    With a `body` the hidden layers are constants, and "level" and "weights_<depth>" (and an uncertain scale) are all that is unknown: a Bayesian
    last layer, linear in what is unknown before the link, so that the posterior is a simple one. The price: that the hidden layers are uncertain,
    too, is left out, and bands are too narrow where the data say little. With a random body the prior sd of the output is `scale` on average over
    bodies; that of one body differs from it, the more the fewer its units.
    Source: Neal, Bayesian Learning for Neural Networks (1996), chapter 2, for the scaling with the width; Rahimi and Recht, Random features for
    large-scale kernel machines (NIPS 2007), for random bodies; Snoek et al., Scalable Bayesian optimization using deep neural networks (ICML
    2015), for fitted ones.

    Parameters
    ----------
    width : units per hidden layer.
    depth : number of hidden layers.
    activation : "tanh", "silu", "gelu", "softplus", "sin" or "relu" (whose output has kinks).
    weight_scale : scale of weights and biases of the hidden layers.
    input : one of "time", "population", "observed", or a tuple of them.
    body : None, where the hidden layers are unknown; "random", a prior draw that is fixed; or a `Body`, such as
        `bayes_mfg.inference.last_layer` takes from a fit.
    body_seed : of the random body.
    """

    width: int = eqx.field(default=16, static=True)
    depth: int = eqx.field(default=1, static=True)
    activation: str = eqx.field(default="tanh", static=True, kw_only=True)
    weight_scale: float = eqx.field(default=2.0, kw_only=True)
    body: Any = eqx.field(default=None, static=True, kw_only=True)
    body_seed: int = eqx.field(default=0, static=True, kw_only=True)

    @classmethod
    def published(cls, **fields: Any) -> "Neural":
        """The paper's network: two hidden layers of 64 units on time and observed population, output `softplus + 0.1`.

        With a point fit on the likelihood alone the priors do not enter, except that they draw the start.
        Source: arXiv 2606.23155. Fields given here replace the published ones.
        """
        return cls(**{"width": 64, "depth": 2, "link": Softplus(0.1), "input": ("time", "observed"), **fields})

    def bind(self, parameter: Parameter, context: Context) -> BoundPath:
        frame = self._frame(parameter, context, several=True)
        where, plan, shape = frame.where, frame.plan, parameter.shape
        width = check_count(self.width, "width", where)
        depth = check_count(self.depth, "depth", where)
        if depth > 10:
            raise InputError(f"{where}: depth is {depth}; 1 to 10 is needed.")
        activation = check_choice(self.activation, tuple(ACTIVATIONS), "activation", where)
        weight_scale = check_positive(self.weight_scale, "weight_scale", where)
        sizes = [plan.features, *[width] * depth, int(np.prod(shape, dtype=int))]
        unit = 1.0 / root_mean_square(activation, depth, weight_scale)

        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(depth):
            shapes |= {f"weights_{layer}": (sizes[layer], width), f"biases_{layer}": (width,)}
        body = self._known_body(shapes, where)
        priors: dict[str, Prior] = dict(frame.priors)
        if body is None:
            priors |= {name: normal(size) for name, size in shapes.items()}
        priors[f"weights_{depth}"] = normal((width, sizes[-1]))
        known = {} if body is None else body.raw

        def build(raw: Mapping[str, Array], inputs: Inputs) -> PathFunction:
            raw = {**raw, **{name: jnp.asarray(x, raw["level"].dtype) for name, x in known.items()}}
            output = frame.scale_at(raw) * unit
            weights = [raw[f"weights_{layer}"] * (weight_scale / float(np.sqrt(sizes[layer]))) for layer in range(depth)]
            weights.append(raw[f"weights_{depth}"] * (output / float(np.sqrt(width))))
            biases = [raw[f"biases_{layer}"] * weight_scale for layer in range(depth)]
            network = Network(tuple(weights), tuple(biases), plan.start, plan.reference, shape, activation)
            return frame.linked(frame.level.at(raw), network, inputs)

        text = f"{activation} network with {depth} hidden layer{'s' if depth > 1 else ''} of {width} units"
        text += "" if body is None else f" (its body {body.origin}, fingerprint {body.fingerprint})"
        return BoundPath(parameter, priors, build, plan, frame.sentence(text))

    def _known_body(self, shapes: Mapping[str, tuple[int, ...]], where: str) -> Body | None:
        """The constants of the hidden layers, None where these are unknown.

        Raises
        ------
        InputError : for what is no body, and one of other layers.
        """
        if self.body is None:
            return None
        if isinstance(self.body, str) and self.body == "random":
            seed = check_count(self.body_seed, "body_seed", where, least=0)
            rng = np.random.default_rng(seed)
            return Body.from_raw(
                {name: rng.standard_normal(shape) for name, shape in shapes.items()}, f"a prior draw of seed {seed}"
            )
        if not isinstance(self.body, Body):
            raise InputError(f'{where}: body is {self.body!r}; None, "random" or a Body is needed.')
        found = {name: x.shape for name, x in self.body.raw.items()}
        if found != dict(shapes):
            raise InputError(f"{where}: body has layers of shapes {found}; {dict(shapes)} are needed.")
        if not all(np.all(np.isfinite(x)) for x in self.body.raw.values()):
            raise InputError(f"{where}: body holds numbers that are not finite.")
        return self.body
