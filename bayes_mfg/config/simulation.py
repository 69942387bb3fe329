"""Configs of simulations: a game, true parameters, initial populations, noise."""

import dataclasses
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bayes_mfg.data import Population, simulate
from bayes_mfg.data.simulate import NOISES, Arc, Bell, OfPopulation
from bayes_mfg.equilibrium import TimeGrid
from bayes_mfg.errors import ConfigError, InputError
from bayes_mfg.games import Game

from .calibration import check_grid, load_game
from .files import read_toml, tables
from .values import Place, arguments, check_keys, choose, convert, shown

SHAPES = {"arc": Arc, "bell": Bell, "population": OfPopulation}
"""Shapes of a true parameter that varies."""

MOST_TRAJECTORIES = 10**6

_SOLVER = ("scheme", "method", "control")

_TABLES = {"game": True, "parameters": True, "initial": True, "grid": True, "noise": False, "simulation": False}


@dataclasses.dataclass(frozen=True)
class Simulation:
    """A checked config of a simulation.

    Attributes
    ----------
    file : the config, as the user named it.
    game : the game.
    params : its true parameters.
    mu0 : initial populations `(R, d)`.
    grid : the time grid.
    options : keyword arguments of `simulate`.
    """

    file: str
    game: Game
    params: dict[str, Any]
    mu0: np.ndarray
    grid: TimeGrid
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return Path(self.file).stem

    def run(self) -> Population:
        """The simulated population.

        Raises
        ------
        InputError : when an equilibrium is not found, or an argument does not fit.
        """
        try:
            return simulate(self.game, self.params, self.mu0, self.grid, **self.options)
        except InputError as error:
            raise ConfigError(f"{self.file}: {error}") from error


def load_simulation(path: str | os.PathLike[str], *, seed: int | None = None) -> Simulation:
    """Read and check the config of a simulation.

    Parameters
    ----------
    path : the TOML file.
    seed : replaces the config's own.

    Raises
    ------
    ConfigError : one sentence that names the file, the table, the key, the value, and what is accepted.
    """
    top = Place(str(path))
    _, content = read_toml(path)
    parts = tables(content, _TABLES, top)
    game = load_game(parts["game"], top.inside("game"))
    keys = ("horizon", "points", "substeps", "start")
    grid_place = top.inside("grid")
    solver = arguments(simulate, _part(parts["grid"], _SOLVER), grid_place, leave=_others(_SOLVER))
    check_keys(parts["grid"], [*keys, *_SOLVER], grid_place)
    check_grid(solver, grid_place)
    try:
        grid = TimeGrid(**arguments(TimeGrid, _part(parts["grid"], keys), grid_place, leave=["nodes"]))
    except InputError as error:
        raise ConfigError(f"{grid_place} {error}") from error
    general = parts["simulation"]
    place = top.inside("simulation")
    check_keys(general, ["seed", "observe_every", "time_unit"], place)
    options = arguments(simulate, general, place, leave=_others(("seed", "observe_every", "time_unit")))
    if seed is not None:
        options["seed"] = seed
    if not 0 <= options.setdefault("seed", 0) < 2**32:
        raise ConfigError(f"{place.at('seed')} = {options['seed']}; a whole number from 0 to 4294967295 is needed.")
    options |= _noise(parts["noise"], top.inside("noise")) | solver
    return Simulation(
        str(path),
        game,
        _params(parts["parameters"], game, grid, top.inside("parameters")),
        _initial(parts["initial"], game, options["seed"], top.inside("initial")),
        grid,
        options,
    )


def _part(table: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key in keys}


def _others(keys: tuple[str, ...]) -> set[str]:
    return set(inspect.signature(simulate).parameters) - set(keys)


def _noise(table: Mapping[str, Any], place: Place) -> dict[str, Any]:
    check_keys(table, ["kind", "size"], place)
    kind = choose(table.get("kind", "none"), NOISES, place.at("kind"))
    if kind != "none" and "size" not in table:
        raise ConfigError(f"{place} needs the key 'size' for {kind} noise.")
    if "size" in table:
        convert(table["size"], float, place, "size")
    return {"noise": kind, "size": table.get("size")}


def _params(table: Mapping[str, Any], game: Game, grid: TimeGrid, place: Place) -> dict[str, Any]:
    check_keys(table, game.parameters, place)
    found: dict[str, Any] = {}
    for name, value in table.items():
        if not isinstance(value, dict):
            found[name] = np.asarray(convert(value, np.ndarray | float | complex, place, name))
            low, high = game.parameters[name].lower, game.parameters[name].upper
            if np.any(found[name] < low) or np.any(found[name] > high):
                raise ConfigError(f"{place.at(name)} = {shown(value)}; it must lie between {low:g} and {high:g}.")
            own = game.parameters[name].shape
            if found[name].ndim and found[name].shape != own and found[name].shape[0] != grid.points:
                raise ConfigError(f"{place.at(name)} holds {len(value)} values; the grid has {grid.points} points.")
            continue
        where = place.inside(name)
        if "shape" not in value:
            raise ConfigError(f"{where} needs the key 'shape'; it is one of {', '.join(SHAPES)}.")
        kind = SHAPES[choose(value["shape"], SHAPES, where.at("shape"))]
        fields = {key: item for key, item in value.items() if key != "shape"}
        if kind is OfPopulation:
            state = choose(fields.pop("state", game.state_names[0]), game.state_names, where.at("state"))
            arguments(kind, fields, where, leave=["state"])
            found[name] = OfPopulation(**fields, state=game.state_names.index(state))
        else:
            arguments(kind, fields, where, leave=["horizon", "start"])
            found[name] = kind(**fields, horizon=grid.horizon, start=grid.start)
    try:
        game.check_parameters(found)
    except InputError as error:
        raise ConfigError(f"{place} {error}") from error
    return found


def _initial(table: Mapping[str, Any], game: Game, seed: int, place: Place) -> np.ndarray:
    """Initial populations: given as `mu0`, or `trajectories` draws from a Dirichlet distribution."""
    if "mu0" in table:
        check_keys(table, ["mu0"], place)
        return np.atleast_2d(np.asarray(convert(table["mu0"], np.ndarray | float | complex, place, "mu0"), dtype=float))
    check_keys(table, ["trajectories", "concentration"], place)
    if "trajectories" not in table:
        raise ConfigError(f"{place} needs the key 'trajectories' (how many are drawn) or 'mu0' (the shares themselves).")
    count = convert(table["trajectories"], int, place, "trajectories")
    concentration = convert(table.get("concentration", 1.0), float, place, "concentration")
    if not 1 <= count <= MOST_TRAJECTORIES:
        raise ConfigError(f"{place.at('trajectories')} = {count}; a whole number from 1 to {MOST_TRAJECTORIES} is needed.")
    if concentration <= 0:
        raise ConfigError(f"{place.at('concentration')} = {concentration:g}; a positive number is needed.")
    # A stream of its own, so that the noise does not depend on how the populations came about.
    rng = np.random.default_rng([seed, 1])
    return rng.dirichlet(np.full(game.n_states, concentration), size=count)
