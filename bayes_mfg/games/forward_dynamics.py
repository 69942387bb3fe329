"""The forward mean-field dynamics of a game: its flows without its foresight."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from bayes_mfg.errors import InputError

from .around import Around
from .base import Game
from .invariances import Invariance


class ForwardDynamics(Around):
    """Any game, played by agents who see no difference between states: the baseline that a game has to beat.

    Rates are those of the best response to a flat value; all costs are zero, so that the value stays zero and the population follows from `mu0`
    in one pass. Of `SIR` it is the epidemic without avoidance, of `LinearQuadratic` motion at the base rate, of `BikeShare` the rides at the base
    rates (and their worth, where one is given). Of `Cybersecurity` at a temperature above zero agents switch at half the largest rate, and never at
    temperature zero.

    It takes the parameters of the game, costs included, so that one set of paths and priors serves both. Not identified: whatever enters the
    game only through costs; its posterior is its prior.

    Source: arXiv 2606.23155, the baseline "without a game".

    Parameters
    ----------
    game : the game.

    Raises
    ------
    InputError : when `game` is no game.
    """

    def __check_init__(self) -> None:
        if not isinstance(self.game, Game):
            raise InputError(f"ForwardDynamics: game is {self.game!r}; a Game is needed.")

    @property
    def invariances(self) -> tuple[Invariance, ...]:
        return self.game.invariances_of_flow

    def best_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array]) -> Any:
        return self.game.best_response(t, jnp.zeros_like(value), mu, params)

    def closed_response(self, t: ArrayLike, value: Array, mu: Array, params: Mapping[str, Array], closed: Array) -> Any:
        return self.game.closed_response(t, jnp.zeros_like(value), mu, params, closed)

    def rates(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        return self.game.rates(t, control, mu, params)

    def running_cost(self, t: ArrayLike, control: Any, mu: Array, params: Mapping[str, Array]) -> Array:
        return jnp.zeros_like(mu)

    def terminal_cost(self, t: ArrayLike, mu: Array, params: Mapping[str, Array]) -> Array:
        return jnp.zeros_like(mu)
