"""What a model is made of, checked before anything is built."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpyro.distributions as dist

from bayes_mfg.data import Population
from bayes_mfg.equilibrium import Branch, Equilibrium
from bayes_mfg.errors import InputError
from bayes_mfg.games import Game
from bayes_mfg.paths import Constant, Path

from .observations import Observation


def check_pieces(population: Any, observation: Any) -> None:
    """Refuse what is no population and what is no observation model.

    Raises
    ------
    InputError : naming what was given.
    """
    if not isinstance(observation, Observation):
        raise InputError(f"observation is {observation!r}; an observation model such as bayes_mfg.models.Gaussian() is needed.")
    if not isinstance(population, Population):
        raise InputError(f"population is {population!r}; a bayes_mfg.data.Population is needed.")


def in_order_of_game(population: Population, game: Game) -> Population:
    """The population with its states in the order of the game's.

    The same names in another order are put into the game's. Numbers are names that nobody gave: data without names, and data with names for a game
    without, are matched by place.

    Raises
    ------
    InputError : when both have names and these differ.
    """
    numbers = tuple(str(x) for x in range(game.n_states))
    if sorted(population.states) == sorted(game.state_names):
        return population if population.states == game.state_names else population.in_order_of(game.state_names)
    if numbers not in (population.states, game.state_names):
        raise InputError(
            f"{type(game).__name__} has the states {', '.join(game.state_names)}; the data have {', '.join(population.states)}: "
            "give them the game's names."
        )
    return population


def as_path(path: Any, name: str) -> Path:
    """A path from what a user passed for a parameter: a distribution is a constant with that prior, a number is known.

    Raises
    ------
    InputError : for anything else.
    """
    if isinstance(path, Path):
        return path
    if isinstance(path, dist.Distribution | int | float | np.ndarray) and not isinstance(path, bool):
        return Constant(prior=path)
    raise InputError(f"paths[{name!r}] is {path!r}; a bayes_mfg.paths path, a NumPyro distribution or a number is needed.")


def beliefs(branches: Sequence[Any] | None, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """Populations and values `(K, T, d)` that the solver sets out from, None where it starts by itself.

    Raises
    ------
    InputError : for what is neither an equilibrium nor a pair of arrays of the grid's shape, and for a single branch.
    """
    if branches is None or not len(branches):
        return None
    solved = [b.equilibrium if isinstance(b, Branch) else b for b in branches]
    pairs = [(b.mu, b.value) if isinstance(b, Equilibrium) else b for b in solved]
    if len(pairs) < 2:
        raise InputError("Calibration: branches holds one; at least two are needed to choose between, or none.")
    for k, pair in zip(range(len(pairs)), pairs, strict=True):
        if (
            not isinstance(pair, tuple | list)
            or len(pair) != 2
            or any(np.shape(part) != shape or not np.all(np.isfinite(part)) for part in pair)
        ):
            raise InputError(
                f"Calibration: branch {k} must be an equilibrium on the model's grid, or two finite arrays of shape {shape}."
            )
    return np.stack([np.asarray(mu) for mu, _ in pairs]), np.stack([np.asarray(value) for _, value in pairs])
