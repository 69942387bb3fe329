"""Studies from TOML configs: the paper's benchmarks, or any simulation with any fit, over a grid of settings."""

import copy
import dataclasses
import functools
import inspect
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from bayes_mfg.config.calibration import Config, build_model, load_config
from bayes_mfg.config.files import read_toml, tables, write_toml
from bayes_mfg.config.simulation import Simulation, load_simulation
from bayes_mfg.config.values import Place, check_keys, convert, shown
from bayes_mfg.data import Population
from bayes_mfg.equilibrium import Code
from bayes_mfg.errors import ConfigError, InputError
from bayes_mfg.inference import FitError, Study, study
from bayes_mfg.inference.assemble import derived
from bayes_mfg.inference.fit import draw
from bayes_mfg.inference.study_scores import judged, noise_floor
from bayes_mfg.models import Calibration

from .run import reproduce
from .systems import benchmark

_TABLES = {"study": False, "grid": True, "benchmark": False, "simulate": False, "fit": False, "variants": False}

_KEPT = (
    "mu_error",
    "noise_floor",
    "gamma_error",
    "coverage90",
    "width90",
    "crps",
    "pareto_k",
    "r_hat",
    "seconds",
    "lost_draws",
)

_ARGUMENTS = ("system", "case", "noise", "states", "method", "finer", "scheme", "trajectories", "draws")


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """A checked config of a study.

    Attributes
    ----------
    file : the config, as the user named it.
    grid : name -> values.
    replicates, seed : of `study`.
    benchmark : arguments of `reproduce`, where a benchmark is studied.
    content : the tables [simulate], [fit] and [variants], where these are.
    """

    file: str
    grid: dict[str, list[Any]]
    replicates: int
    seed: int
    benchmark: dict[str, Any] | None
    content: dict[str, Any]


def load_study(path: str | os.PathLike[str]) -> StudyConfig:
    """Read and check the config of a study: names and kinds of every value of its grid; nothing is computed.

    Raises
    ------
    ConfigError : one sentence that names the file, the table, the key, the value, and what is accepted.
    """
    _, content = read_toml(path)
    top = Place(str(path))
    parts = tables(content, _TABLES, top)
    place = top.inside("study")
    check_keys(parts["study"], ["replicates", "seed"], place)
    numbers = {"replicates": 5, "seed": 0} | {k: convert(v, int, place, k) for k, v in parts["study"].items()}
    grid = parts["grid"]
    for name, values in grid.items():
        if not isinstance(values, list) or not values or any(isinstance(v, list | dict) for v in values):
            raise ConfigError(f"{top.inside('grid').at(name)} = {shown(values)}; a list of numbers or names is needed.")
    if not grid:
        raise ConfigError(f"{path}: the table [grid] is empty; it holds lists of values to compare.")
    if bool(parts["benchmark"]) == bool(parts["simulate"] or parts["fit"]):
        raise ConfigError(f"{path}: a study has either the table [benchmark], or the tables [simulate] and [fit].")
    made = StudyConfig(
        str(path),
        {name: list(values) for name, values in grid.items()},
        numbers["replicates"],
        numbers["seed"],
        dict(parts["benchmark"]) or None,
        {name: parts[name] for name in ("simulate", "fit", "variants")},
    )
    first = {name: values[0] for name, values in grid.items()}
    # Each value once: a mistyped name is not to be met after hours.
    cells = [first, *({**first, name: value} for name, values in grid.items() for value in values[1:])]
    if made.benchmark is not None:
        known = inspect.signature(reproduce).parameters
        check_keys(made.benchmark, _ARGUMENTS, top.inside("benchmark"))
        check_keys(grid, [name for name in _ARGUMENTS if name in known], top.inside("grid"))
        for cell in cells:
            given = {**made.benchmark, **cell}
            if "system" not in given:
                raise ConfigError(f"{top.inside('benchmark')} needs the key 'system'.")
            try:
                benchmark(given["system"], given.get("case"), given.get("states"))
            except InputError as error:
                raise ConfigError(f"{top.inside('benchmark')} {error}") from error
    else:
        with tempfile.TemporaryDirectory() as folder:
            for cell in cells:
                changed = _changed(made.content, cell, str(path))
                simulation = _simulation(changed["simulate"], Path(folder), made.seed, str(path))
                _config(changed["fit"], simulation.game.state_names, Path(folder), str(path))
    return made


def run_study(
    config: StudyConfig,
    *,
    executor: Executor | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Study:
    """Run a study's config; with a checkpoint, go on from what it holds.

    Raises
    ------
    InputError : for what does not fit, in the config's words.
    """
    function: Any = (
        functools.partial(benchmark_row, **config.benchmark)
        if config.benchmark is not None
        else _Row(json.dumps(config.content), config.file)
    )
    # Names with dots are no Python names; functions take them by keyword all the same.
    return study(
        function,
        config.grid,
        replicates=config.replicates,
        seed=config.seed,
        executor=executor,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
        progress=progress,
    )


@dataclasses.dataclass(frozen=True)
class _Row:
    """`config_row` of a config; how the file was spelt does not make another study of it."""

    content: str
    file: str = dataclasses.field(compare=False)

    def __call__(self, seed: int, **cell: Any) -> dict[str, Any]:
        return config_row(seed, self.content, self.file, **cell)


def benchmark_row(seed: int, **settings: Any) -> dict[str, Any]:
    """One data set of a benchmark: the figures of `reproduce`'s row, for `bayes_mfg.inference.study`.

    Parameters
    ----------
    seed : of data and fit.
    settings : arguments of `reproduce`.
    """
    row = next(iter(reproduce(**settings, seeds=1, first=seed, progress=False)))
    kept = {name: getattr(row, name) for name in _KEPT}
    return {**{name: x for name, x in kept.items() if name != "seconds"}, "fit_seconds": row.seconds}


def config_row(seed: int, content: str, file: str, **cell: Any) -> dict[str, Any]:
    """One replicate of a simulation and a fit that tables of a config describe, for `bayes_mfg.inference.study`.

    Parameters
    ----------
    seed : of data and fit.
    content : JSON of the tables [simulate], [fit] and [variants].
    file : name of the config, for messages.
    cell : values of the grid by their names in the config, such as "simulate.noise.size".

    Raises
    ------
    ConfigError : for tables that do not fit.
    FitError : where the fit fails.
    """
    changed = _changed(json.loads(content), cell, file)
    with tempfile.TemporaryDirectory() as folder:
        simulation = _simulation(changed["simulate"], Path(folder), seed, file)
        population = simulation.run()
        clean = dataclasses.replace(simulation, options={**simulation.options, "noise": "none", "size": None}).run()
        model, method, options = _model(changed["fit"], simulation, population, Path(folder), json.dumps([content, cell]), file)
    begin = time.perf_counter()
    flat, stats, settings, _ = draw(model, method, seed=seed, progress=False, **options)
    if settings.get("interrupted"):
        raise KeyboardInterrupt
    seconds = time.perf_counter() - begin
    implied = derived(model, flat.reshape(-1, flat.shape[-1]), seed)
    good = (implied["solver/code"] == Code.CONVERGED).all(axis=-1)
    if not good.any():
        raise FitError("no draw of the fit has an equilibrium")
    true = _true(model, simulation, clean)
    found = judged(model, true, {name: x[good] for name, x in implied.items()})
    more = {"diverging": int(np.sum(stats["diverging"]))} if stats and "diverging" in stats else {}
    return {
        **found,
        **more,
        "noise_floor": noise_floor(model, true["mu"][0]),
        "failed_solves": int((~good).sum()),
        "fit_seconds": seconds,
    }


def _changed(content: Mapping[str, Any], cell: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The tables with the values of a cell; a name of [variants] stands for a whole table.

    Raises
    ------
    ConfigError : for a name of the grid that leads nowhere.
    """
    made: dict[str, Any] = copy.deepcopy(dict(content))
    variants = made.pop("variants", {})
    for name, value in cell.items():
        first, *rest = name.split(".")
        if first not in ("simulate", "fit") or not rest:
            raise ConfigError(
                f"{file}: [grid] {name!r} is not known; it begins with simulate. or fit., such as simulate.noise.size."
            )
        here = made[first]
        for key in rest[:-1]:
            here = here.setdefault(key, {})
            if not isinstance(here, dict):
                raise ConfigError(f"{file}: [grid] {name!r} leads through {key!r}, which is no table.")
        here[rest[-1]] = variants[value] if isinstance(value, str) and value in variants else value
    return made


def _simulation(content: Mapping[str, Any], folder: Path, seed: int, file: str) -> Simulation:
    place = folder / "simulate.toml"
    place.write_text(write_toml(content), encoding="utf-8")
    try:
        return load_simulation(place, seed=seed)
    except InputError as error:
        raise ConfigError(str(error).replace(str(place), f"{file}: in [simulate]")) from error


@functools.lru_cache(maxsize=2)
def _first(key: str) -> list[Calibration]:
    """The model of a cell, kept by a process while the cell is worked on: what is compiled for it serves every replicate."""
    return []


def _model(
    content: Mapping[str, Any], simulation: Simulation, population: Population, folder: Path, key: str, file: str
) -> tuple[Calibration, str, dict[str, Any]]:
    """The model of a replicate's data, and how it is fitted."""
    true_starts = content.get("initial") == "true"
    place, data = folder / "fit.toml", folder / "data.csv"
    data.write_text(population.to_table().to_csv(index=False), encoding="utf-8")
    config = _config(content, population.states, folder, file)
    try:
        if true_starts:
            config = dataclasses.replace(config, initial=simulation.mu0)
        kept = _first(key)
        if not kept:
            kept.append(build_model(config))
        known = simulation.mu0 if true_starts else None
        return kept[0].with_population(population, known), config.method, config.options
    except InputError as error:
        raise ConfigError(str(error).replace(str(place), f"{file}: in [fit]")) from error


def _config(content: Mapping[str, Any], states: Sequence[str], folder: Path, file: str) -> Config:
    """The config of a fit to data.csv of a folder; the data are not read."""
    tables = {name: value for name, value in content.items() if name != "data"}
    if tables.get("initial") == "true":
        del tables["initial"]
    place = folder / "fit.toml"
    reader = {"reader": "table", "path": "data.csv", "states": list(states), **content.get("data", {})}
    place.write_text(write_toml({"data": reader, **tables}), encoding="utf-8")
    try:
        return load_config(place)
    except InputError as error:
        raise ConfigError(str(error).replace(str(place), f"{file}: in [fit]")) from error


def _true(model: Calibration, simulation: Simulation, clean: Population) -> dict[str, np.ndarray]:
    """True paths and populations, in the layout of `derived`, with a leading axis of one."""
    times = model.grid.times
    clock = np.asarray(clean.provenance["parameter_times"])
    found: dict[str, np.ndarray] = {}
    for name in simulation.params:
        values = np.asarray(clean.provenance["parameters"][name], float)
        own = model.bound[name].parameter.shape if name in model.bound else ()
        if values.shape == own:
            values = np.broadcast_to(values, (len(clock), *own))
        several = values.ndim == 2 + len(own)
        at = np.clip(np.searchsorted(clock, times - 1e-9), 0, len(clock) - 1)
        path = values.take(at, axis=int(several))
        if name in model.bound and model.varies_by_trajectory(name) and not several:
            path = np.broadcast_to(path, (clean.n_trajectories, *path.shape))
        found[f"parameter/{name}"] = path[None]
    mu = np.full((clean.n_trajectories, len(times), clean.n_states), np.nan)
    mu[:, model.data_index] = clean.shares
    return {**found, "mu": mu[None]}
