"""What every game around a game shares: states, parameters and constants are those of the game inside."""

from collections.abc import Mapping

from jax import Array

from .base import Game, Parameter


class Around(Game):
    """A game that plays another one in some other way.

    Parameters
    ----------
    game : the game inside.
    """

    game: Game

    @property
    def state_names(self) -> tuple[str, ...]:
        return self.game.state_names

    @property
    def required(self) -> tuple[Parameter, ...]:
        return self.game.required

    @property
    def parameters(self) -> dict[str, Parameter]:
        # `optional` stays empty: the constants are the inner game's, which has checked them.
        return self.game.parameters

    def constant(self, params: Mapping[str, Array], name: str) -> Array:
        return self.game.constant(params, name)

    @property
    def costs(self) -> tuple[str, ...]:
        return self.game.costs
