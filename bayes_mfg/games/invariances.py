"""What a game knows cannot be identified: changes of its parameters that leave every equilibrium population as it is."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

type Params = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Invariance:
    """A family of changes of a game's parameters under which the population of every equilibrium, from every start, stays the same.

    Attributes
    ----------
    name : what is changed, in words, such as "all costs times a common factor".
    parameters : names of the parameters that change, constants of the constructor among them.
    change : `(params, amount) -> params` at one moment, from a dict of all that the game accepts and an array of `shape`; amounts of zero change
        nothing. The dict that comes back holds what changed.
    shape : shape of the amounts. Several amounts may describe one change: what counts is what they reach.
    pointwise : whether the amounts may differ from one moment to the next; elsewhere they are the same at all times.
    flat : whether a value that is the same in every state stays so, and with it whether `ForwardDynamics` has the invariance, too.
    exact : whether every time scheme has it to rounding; elsewhere to the scheme's own error.
    """

    name: str
    parameters: tuple[str, ...]
    change: Callable[[Params, Array], dict[str, Array]]
    shape: tuple[int, ...] = ()
    pointwise: bool = False
    flat: bool = True
    exact: bool = True

    def __call__(self, params: Params, amount: Any) -> dict[str, Array]:
        """All parameters after the change."""
        return {**params, **self.change(params, jnp.asarray(amount))}

    def generators(self, params: Params) -> dict[str, Array]:
        """Derivatives of the changed parameters by the amounts, where these are zero: name -> `(*shape of the parameter, *shape)`."""
        given = {name: jnp.asarray(value, float) for name, value in params.items()}
        return jax.jacfwd(lambda amount: self.change(given, amount))(jnp.zeros(self.shape))


def common_factor(name: str, *parameters: str) -> Invariance:
    """Parameters times one factor, the same at all times."""
    return Invariance(name, parameters, lambda params, amount: {p: params[p] * jnp.exp(amount) for p in parameters})


def only_product(factor: str, *parameters: str) -> Invariance:
    """One factor of parameters, which enters in its products with them alone: it up, they down, at every moment."""
    return Invariance(
        f"only {factor} times {' and '.join(parameters)} counts",
        (*parameters, factor),
        lambda params, amount: {
            factor: params[factor] * jnp.exp(amount),
            **{p: params[p] * jnp.exp(-amount) for p in parameters},
        },
        pointwise=True,
    )


def without_effect(parameter: str, words: str, shape: tuple[int, ...] = ()) -> Invariance:
    """A parameter that does not enter at all, at any moment."""
    return Invariance(
        words, (parameter,), lambda params, amount: {parameter: params[parameter] + amount}, shape=shape, pointwise=True
    )
