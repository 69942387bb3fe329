"""Configs of calibrations: from a TOML file to a `Calibration` and the options of `fit`."""

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np

from bayes_mfg import data, games, models, paths
from bayes_mfg.data import Population
from bayes_mfg.equilibrium.schemes import get_scheme
from bayes_mfg.equilibrium.solve import MAX_STEPS
from bayes_mfg.errors import ConfigError, DataError, InputError
from bayes_mfg.games import Game
from bayes_mfg.inference import Change, Close, Fit, Start, ensemble, nuts, paper, point, svi
from bayes_mfg.inference.assemble import KEEP
from bayes_mfg.inference.fit import METHODS
from bayes_mfg.inference.fit import fit as fit_function
from bayes_mfg.inference.intervene import make_plan
from bayes_mfg.inference.interventions import AnyIntervention
from bayes_mfg.models import Calibration

from .files import read_toml, tables, write_toml
from .report import asked_findings
from .values import Place, arguments, check_keys, choose, construct, convert, shown

READERS: dict[str, Callable[..., Population]] = {
    "school_influenza": data.load_school_influenza,
    "fluview": data.read_fluview,
    "table": data.read_table,
    "trips": data.read_trips,
    "citibike": data.read_citibike,
    "bay_area": data.read_bay_area,
    "auckland_pedestrians": data.load_auckland_pedestrians,
    "cumulative_cases": data.read_cumulative_cases,
    "blank": data.blank_population,
}
"""Readers of data by the names that a config uses."""

GAMES: dict[str, type[Game]] = {
    name: kind
    for name in games.__all__
    if isinstance(kind := getattr(games, name), type)
    and issubclass(kind, Game)
    and not inspect.isabstract(kind)
    and kind not in (games.Closed, games.ForwardDynamics)
}
"""Games by name; not those that are made from another game, which a table of constants cannot hold."""

_TABLES = {
    "data": True,
    "game": True,
    "paths": True,
    "observation": True,
    "initial": False,
    "grid": False,
    "inference": False,
    "output": False,
    "report": False,
    "intervention": False,
    "design": False,
}

INTERVENTIONS = {kind.__name__: kind for kind in (Close, Change, Start)}
"""What the kind of a table [[intervention]] may be."""


@dataclasses.dataclass(frozen=True)
class Config:
    """A checked config of a calibration.

    Attributes
    ----------
    file : the config, as the user named it.
    text : the TOML text that makes this config again: the file's own, or with overrides and data paths as used.
    content : the TOML tables, overrides applied.
    reader : name of the reader.
    reader_options : its arguments; the path, where it has one, is absolute or relative to the current folder.
    game, paths, observation, initial : what a `Calibration` is made of.
    grid : keyword arguments of `Calibration`: horizon, substeps, scheme, method, control.
    method : "nuts", "svi", "point" or "ensemble".
    seed : of everything random.
    prior_samples : draws of the prior.
    options : of the method.
    title : for the report.
    findings : names of what the report tells of the fit besides, in order; see `bayes_mfg.config.report`.
    interventions : scenario -> what is changed in it, together; a scenario without a name is "".
    notes : sentences for the user, such as options that an override made meaningless.
    """

    file: str
    text: str
    content: dict[str, Any]
    reader: str
    reader_options: dict[str, Any]
    game: Game
    paths: dict[str, Any]
    observation: models.Observation
    initial: Any
    grid: dict[str, Any]
    method: str
    seed: int
    prior_samples: int
    options: dict[str, Any]
    title: str
    findings: tuple[str, ...] = ()
    interventions: "dict[str, Scenario]" = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return Path(self.file).stem


def load_config(
    path: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    method: str | None = None,
    seed: int | None = None,
) -> Config:
    """Read and check a config; nothing slow happens, and the data are not read.

    Parameters
    ----------
    path : the TOML file.
    data, method, seed : what replaces the config's own [data] path and [inference] method and seed. Where the method is another
        one than the config's, the options that belong to the config's method are left out, and a note says so.

    Returns
    -------
    Config

    Raises
    ------
    ConfigError : one sentence that names the file, the table, the key, the value, and what is accepted.
    """
    text, content = read_toml(path)
    top = Place(str(path))
    parts = tables(content, _TABLES, top, text=("initial",), several=("intervention",))
    notes: list[str] = []
    if data is not None:
        parts["data"] = {**parts["data"], "path": str(Path(data).absolute())}
    if method is not None:
        left = _override_method(parts, method, top.inside("inference"))
        if left:
            notes.append(f"--method {method}: the config's options for another method were left out ({', '.join(left)}).")
    if seed is not None:
        parts["inference"] = {**parts["inference"], "seed": seed}

    game = load_game(parts["game"], top.inside("game"))
    path_priors = _paths(parts["paths"], parts["game"], game, top.inside("paths"))
    observation = _kind(parts["observation"], models.OBSERVATIONS, top.inside("observation"))
    initial = _initial(parts["initial"], top)
    grid = _grid(parts["grid"], top.inside("grid"))
    method, seed, prior_samples, options = _inference(parts["inference"], top.inside("inference"))
    output = _output(parts["output"], top.inside("output"))
    reader, reader_options = _reader(parts["data"], top.inside("data"), Path(path).parent, data)
    used = _used(parts, reader_options)
    return Config(
        file=str(path),
        text=text if used == content else f"# {Path(path).name} with the values as used\n{write_toml(used)}",
        content=used,
        reader=reader,
        reader_options=reader_options,
        game=game,
        paths=path_priors,
        observation=observation,
        initial=initial,
        grid=grid,
        method=method,
        seed=seed,
        prior_samples=prior_samples,
        options=options,
        title=output,
        findings=asked_findings(parts["report"], top.inside("report")),
        interventions=scenarios(parts["intervention"], top),
        notes=tuple(notes),
    )


def build_model(config: Config) -> Calibration:
    """Read the data and put the calibration together.

    Raises
    ------
    InputError : when the data are bad, or the parts do not fit them; the sentence names the file and, for a part, its table.
    """
    top = Place(config.file)
    try:
        population = READERS[config.reader](**config.reader_options)
    except DataError as error:
        # A reader names the data file by itself; what else it refuses is an option.
        files = [config.reader_options[key] for key in _files(READERS[config.reader], config.reader_options)]
        if str(error).startswith(tuple(one for given in files for one in ([given] if isinstance(given, str) else given))):
            raise
        raise ConfigError(f"{top.inside('data')} {error}") from error
    place = top.inside("data")
    if population.n_states != config.game.n_states:
        raise ConfigError(
            f"{place} the data have {population.n_states} states ({', '.join(population.states)}), the game "
            f"{type(config.game).__name__} has {config.game.n_states} ({', '.join(config.game.state_names)})."
        )
    end, horizon = population.times[-1], config.grid.get("horizon")
    if horizon is not None and horizon < end:
        raise ConfigError(f"{top.inside('grid').at('horizon')} = {shown(horizon)}; the data go on until {end:g}.")
    times = population.times if horizon is None or horizon == end else np.append(population.times, horizon)
    _with_place(top.inside("data"), lambda: paths.Context(times, population.times, population.states, population.n_trajectories))
    context = paths.Context(times, population.times, population.states, population.n_trajectories)
    for name, path in config.paths.items():
        parameter = config.game.parameters[name]
        _with_place(top.inside(f"paths.{name}"), partial(path.bind, parameter, context))
    _with_place(top.inside("observation"), lambda: config.observation.record(population))
    _with_place(top.inside("initial"), lambda: models.initial.resolve_initial(config.initial, population).fixed(population))
    model: Calibration = _with_place(
        Place(config.file),
        lambda: Calibration(config.game, population, config.paths, config.observation, initial=config.initial, **config.grid),
    )
    for scenario in config.interventions.values():
        _with_place(top.inside("intervention"), partial(make_plan, model, scenario.changes))
    return model


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Interventions that act together.

    Attributes
    ----------
    changes : the interventions.
    draws : how many posterior draws to use at most, spread evenly; None for all.
    """

    changes: tuple[AnyIntervention, ...]
    draws: int | None = None

    def number(self, fitted: Fit) -> int | None:
        """How many draws of a fit are used; None for all."""
        sizes = fitted.tree["posterior"].sizes
        return None if self.draws is None else min(self.draws, sizes["chain"] * sizes["draw"])


def load_scenarios(path: str | os.PathLike[str]) -> dict[str, Scenario]:
    """Interventions of a TOML file that holds tables [[intervention]] and nothing else, by scenario.

    Raises
    ------
    ConfigError : as `load_config`.
    """
    _, content = read_toml(path)
    top = Place(str(path))
    return scenarios(tables(content, {"intervention": True}, top, several=("intervention",))["intervention"], top)


def scenarios(found: list[dict[str, Any]], top: Place) -> dict[str, Scenario]:
    """Interventions of tables [[intervention]]; those with one `scenario` act together, on the `draws` that one of them names.

    Raises
    ------
    ConfigError : for an unknown kind or key, and what the intervention itself refuses.
    """
    together: dict[str, Scenario] = {}
    for k, table in enumerate(found, 1):
        place = top.inside(f"intervention {k}")
        name = convert(table.get("scenario", ""), str, place, "scenario")
        before = together.get(name, Scenario(()))
        draws = convert(table.get("draws", before.draws or 1), int, place, "draws")
        if draws < 1 or ("draws" in table and before.draws not in (None, draws)):
            other = f"; another table of the scenario has {before.draws}" if draws >= 1 else "; a number of at least 1 is needed"
            raise ConfigError(f"{place.at('draws')} = {draws}{other}.")
        own = {key: value for key, value in table.items() if key not in ("scenario", "draws")}
        changes = (*before.changes, _kind(own, INTERVENTIONS, place))
        together[name] = Scenario(changes, draws if "draws" in table else before.draws)
    return together


def _with_place(place: Place, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (InputError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{place} {error}") from error


def load_game(table: Mapping[str, Any], place: Place) -> Game:
    """The game of a table with `name` and constants.

    Raises
    ------
    ConfigError : for an unknown game, an unknown constant, or one outside its support.
    """
    game: Game = _kind(table, GAMES, place, key="name")
    return game


def _kind(table: Mapping[str, Any], registry: Mapping[str, Any], place: Place, key: str = "kind") -> Any:
    """An object of one of the registry's classes, chosen by a key of the table and made from the others."""
    if key not in table:
        raise ConfigError(f"{place} needs the key {key!r}; it is one of {', '.join(registry)}.")
    name = choose(table[key], registry, place.at(key))
    return construct(registry[name], table, place, also=[key])


_FAMILIES = {**paths.FAMILIES, paths.Pooled.__name__: paths.Pooled}
"""What [paths.NAME] family may be: the families, and any of them pooled."""


def _paths(table: Mapping[str, Any], constants: Mapping[str, Any], game: Game, place: Place) -> dict[str, Any]:
    check_keys(table, game.parameters, place)
    found: dict[str, Any] = {}
    for name, fields in table.items():
        where = place.inside(name)
        if not isinstance(fields, dict):
            raise ConfigError(
                f"{place.at(name)} = {shown(fields)}; a table [{where.table}] is needed, with a family or a known value."
            )
        if name in constants:
            raise ConfigError(f"{place.file}: {name} stands in [game] and in [{where.table}]; give it once.")
        if "value" in fields:
            check_keys(fields, ["value"], where)
            found[name] = paths.Constant(prior=convert(fields["value"], np.ndarray | float | complex, where, "value"))
        elif "family" in fields:
            found[name] = _kind(fields, _FAMILIES, where, key="family")
        else:
            raise ConfigError(f"{where} needs the key 'family' (one of {', '.join(_FAMILIES)}), or 'value' for a known number.")
    try:
        game.check_parameters(found)
    except InputError as error:
        raise ConfigError(f"{place} {error}") from error
    return found


def _initial(table: Any, top: Place) -> Any:
    place = top.inside("initial")
    if table == {}:
        return None
    if isinstance(table, str):
        if table != "observed":
            raise ConfigError(f'{top.at("initial")} = {shown(table)}; "observed" or a table [initial] with a kind is needed.')
        return table
    return _kind(table, models.INITIALS, place)


def _grid(table: Mapping[str, Any], place: Place) -> dict[str, Any]:
    keys = ("horizon", "substeps", "scheme", "method", "control")
    found = arguments(Calibration, table, place, leave=set(inspect.signature(Calibration).parameters) - set(keys))
    check_grid(found, place)
    return found


def check_grid(table: Mapping[str, Any], place: Place) -> None:
    """Refuse unknown schemes and solver methods, and numbers outside their ranges, before anything is solved.

    Raises
    ------
    ConfigError : naming the key.
    """
    if "method" in table:
        choose(table["method"], MAX_STEPS, place.at("method"))
    if "scheme" in table:
        _with_place(place, lambda: get_scheme(table["scheme"]))
    if table.get("substeps", 1) < 1:
        raise ConfigError(f"{place.at('substeps')} = {shown(table['substeps'])}; a whole number of at least 1 is needed.")


def _reader(
    table: Mapping[str, Any], place: Place, folder: Path, given: str | os.PathLike[str] | None
) -> tuple[str, dict[str, Any]]:
    if "reader" not in table:
        raise ConfigError(f"{place} needs the key 'reader'; it is one of {', '.join(READERS)}.")
    name = choose(table["reader"], READERS, place.at("reader"))
    reader = READERS[name]
    if "path" in inspect.signature(reader).parameters:
        if "path" not in table:
            raise ConfigError(f"{place} needs the key 'path', or --data PATH on the command line: reader {name!r} reads a file.")
    elif given is not None:
        raise ConfigError(f"{place} reader {name!r} reads no file, so --data {given} has no meaning.")
    options = arguments(reader, table, place, also=["reader"], leave=["progress"])
    for key in _files(reader, options):
        value = options[key]
        options[key] = [str(folder / one) for one in value] if isinstance(value, list) else str(folder / value)
    if "path" in options and given is not None:
        options["path"] = str(given)
    return name, options


def _files(reader: Callable[..., Population], options: Mapping[str, Any]) -> list[str]:
    """Options that name files, relative to the config."""
    parameters = inspect.signature(reader, eval_str=True).parameters
    return [key for key in options if _holds_paths(parameters[key].annotation)]


def _holds_paths(annotation: Any) -> bool:
    return get_origin(annotation) is os.PathLike or any(map(_holds_paths, get_args(annotation)))


# Numbers of an option that is not here are positive. (lowest, highest, in words); ends that are not reached are open.
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": (lambda x: 0 <= x < 2**32, "a whole number from 0 to 4294967295"),
    "prior_samples": (lambda x: x >= 0, "a whole number of at least 0"),
    "members": (lambda x: x >= 2, "a whole number of at least 2"),
    "screened": (lambda x: x >= 0, "a whole number of at least 0"),
    "tolerance": (lambda x: x >= 0, "a number of at least 0"),
    "target_accept_prob": (lambda x: 0 < x < 1, "a number above 0 and below 1"),
    "held_out": (lambda x: 0 <= x < 1, "a number of at least 0 and below 1"),
    "window": (lambda x: 0 < x <= 1, "a number above 0 and at most 1"),
    "max_tree_depth": (lambda x: 1 <= x <= 20, "a whole number from 1 to 20"),
}


def _method_functions(method: str, table: Mapping[str, Any], place: Place) -> list[tuple[Callable[..., Any], set[str]]]:
    """The functions that take a method's options, and which of their parameters a config gives; () for all."""
    searches = (point.find_mode, {"starts", "screened", "max_steps"})
    if method == "nuts":
        return [searches, (nuts.sample, set())]
    if method == "svi":
        return [searches, (svi.approximate, set())]
    if method == "ensemble":
        return [searches, (ensemble.point_fits, {"members", "randomised"})]
    objective = choose(table.get("objective", "map"), ("map", "paper"), place.at("objective"))
    return [(paper.fit_paper, set())] if objective == "paper" else [searches]


def _option_parameters(method: str, table: Mapping[str, Any], place: Place) -> dict[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for function, names in _method_functions(method, table, place):
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
            if name not in ("model", "mode", "seed", "progress") and (not names or name in names):
                found[name] = parameter
    if method == "point":
        found["objective"] = inspect.Parameter("objective", inspect.Parameter.KEYWORD_ONLY, default="map", annotation=str)
    return found


OWN = ("seed", "prior_samples", "keep")
"""Options of `fit` itself, which every method has."""


def _inference(table: Mapping[str, Any], place: Place) -> tuple[str, int, int, dict[str, Any]]:
    method = choose(table.get("method", "nuts"), METHODS, place.at("method"))
    own = inspect.signature(fit_function, eval_str=True).parameters
    known = {name: own[name] for name in OWN} | _option_parameters(method, table, place)
    check_keys(table, ["method", *known], place)
    found = {name: convert(table[name], known[name].annotation, place, name) for name in known if name in table}
    for name, value in found.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            kind = "a whole number of at least 1" if isinstance(value, int) else "a positive number"
            fine, words = _RANGES.get(name, (lambda x: x > 0, kind))
            if not fine(value):
                raise ConfigError(f"{place.at(name)} = {shown(value)}; {words} is needed.")
    if "guide" in found:
        choose(found["guide"], svi.GUIDES, place.at("guide"))
    if "keep" in found:
        choose(found["keep"], KEEP, place.at("keep"))
    if "randomised" in found:
        choose(found["randomised"], ensemble.RANDOMISED, place.at("randomised"))
    seed, prior_samples = (found.pop(name, own[name].default) for name in ("seed", "prior_samples"))
    return method, seed, prior_samples, found


def _override_method(parts: dict[str, Any], method: str, place: Place) -> list[str]:
    """Put another method into the [inference] table; the options that were left out."""
    table = parts["inference"]
    choose(method, METHODS, "--method")
    if table.get("method", "nuts") == method:
        return []
    _inference(table, place)  # what is refused without the override is refused with it
    kept = {name: value for name, value in table.items() if name in OWN}
    parts["inference"] = {"method": method, **kept}
    return [name for name in table if name not in kept and name != "method"]


def _output(table: Mapping[str, Any], place: Place) -> str:
    check_keys(table, ["title"], place)
    return str(convert(table.get("title", ""), str, place, "title"))


def _used(parts: Mapping[str, Any], reader_options: Mapping[str, Any]) -> dict[str, Any]:
    """The tables as used; the data path is absolute, so that the text serves from any folder."""
    used = {name: table for name, table in parts.items() if table not in ({}, [])}
    for key in _files(READERS[parts["data"]["reader"]], reader_options):
        value = reader_options[key]
        absolute = [str(Path(one).absolute()) for one in value] if isinstance(value, list) else str(Path(value).absolute())
        used["data"] = {**used["data"], key: absolute}
    return used
