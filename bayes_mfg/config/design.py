"""The table [design] of a config: candidates, budget and goal of `bayes-mfg design`."""

import os
from collections.abc import Mapping
from typing import Any

from bayes_mfg.errors import ConfigError, InputError
from bayes_mfg.inference import Design, Experiment, Fit, MeanOf, Observe, ShareOf, ValueOf, design, observations
from bayes_mfg.inference.design import data_count
from bayes_mfg.models import Calibration

from .files import read_toml
from .values import Place, arguments, check_keys, choose, construct, convert, shown

GOALS = {kind.__name__: kind for kind in (ValueOf, MeanOf, ShareOf)}

_OPTIONS = ("budget", "criterion", "draws", "worst", "search", "inner", "given")

_CANDIDATES = ("times", "trajectories", "states", "totals", "costs", "starts", "scenarios", "goal", "against")

_LEFT = ("model", "at", "candidates", "goal", "scenarios", "against", "seed", "progress")


def run_design(
    path: str | os.PathLike[str], model: Calibration, *, at: Fit | None = None, seed: int = 0, progress: bool | None = None
) -> Design:
    """The design that a config asks for.

    Parameters
    ----------
    path : the config, whose other tables made the model.
    model : that model.
    at, seed, progress : of `design`.

    Raises
    ------
    ConfigError : one sentence that names the file, the key, the value, and what is accepted.
    """
    _, content = read_toml(path)
    place = Place(str(path)).inside("design")
    table = content.get("design")
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: the table [design] is missing; it says what could be observed and what it may cost.")
    check_keys(table, [*_CANDIDATES, *_OPTIONS], place)
    options = arguments(design, {k: v for k, v in table.items() if k in _OPTIONS}, place, leave=_LEFT)
    starts = [_start(one, place, f"starts[{k}]") for k, one in enumerate(_list(table, "starts", place))]
    scenarios = [_start(one, place, f"scenarios[{k}]") for k, one in enumerate(_list(table, "scenarios", place))]
    names = [convert(x, str, place, "trajectories") for x in _list(table, "trajectories", place)]
    who = [*(names if "trajectories" in table else model.population.trajectories), *starts]
    times = [convert(x, float, place, "times") for x in _list(table, "times", place)]
    given = options.get("given", data_count(model, at))
    states: list[tuple[str, ...] | None] = [
        tuple(convert(s, str, place, "states") for s in (some if isinstance(some, list) else [some]))
        for some in _list(table, "states", place)
    ]
    totals: list[int | None] = [convert(x, int, place, "totals") for x in _list(table, "totals", place)]
    costs = [convert(x, float, place, "costs") for x in _list(table, "costs", place)]
    if len(costs) != (len(totals) if len(totals) > 1 or costs else 0):
        raise ConfigError(f"{place.at('costs')} = {shown(costs)}; one number for each of totals, {shown(totals)}, is needed.")
    goals = table.get("goal")
    listed = goals if isinstance(goals, list) else [goals] if goals is not None else []
    try:
        kinds: dict[str, Any] = {"states": states or [None], "totals": totals or [None], "cost": costs or 1.0}
        candidates = [c for one in who for c in observations(times or _free(model, one, given), [one], **kinds)]
        if not candidates:
            raise ConfigError(
                f"{place} every time was observed already; times after the data, starts, or given = false are needed."
            )
        return design(
            model,
            at,
            candidates=candidates,
            goal=[_goal(one, place, k) for k, one in enumerate(listed)] or None,
            scenarios=scenarios,
            against=_rival(table, candidates, place) if "against" in table else None,
            seed=seed,
            progress=progress,
            **options,
        )
    except ConfigError:
        raise
    except InputError as error:
        raise ConfigError(f"{place} {error}") from error


def _rival(table: Mapping[str, Any], candidates: list[Observe], place: Place) -> list[Observe]:
    """The candidates that a config holds the design against, by their numbers."""
    numbers = [convert(x, int, place, "against") for x in _list(table, "against", place)]
    if any(not 0 <= k < len(candidates) for k in numbers):
        raise ConfigError(
            f"{place.at('against')} = {shown(numbers)}; numbers of the {len(candidates)} candidates, from 0 to {len(candidates) - 1}, are needed."
        )
    return [candidates[k] for k in numbers]


def _free(model: Calibration, who: str | Experiment, given: bool) -> list[float]:
    """Times after the first at which a trajectory was not observed; where there are none, those of the grid after the data."""
    data = model.population
    later = list(data.times[1:])
    if not given or who not in data.trajectories:
        return later
    seen = data.mask[data.trajectories.index(str(who))].any(axis=-1)[1:]
    return [t for t, known in zip(later, seen, strict=True) if not known] or list(model.grid.times[data.n_times :])


def _list(table: Mapping[str, Any], key: str, place: Place) -> list[Any]:
    value = table.get(key, [])
    if not isinstance(value, list):
        raise ConfigError(f"{place.at(key)} = {shown(value)}; a list is needed.")
    return value


def _start(table: Any, place: Place, key: str) -> Experiment:
    if not isinstance(table, dict):
        raise ConfigError(
            f'{place.at(key)} = {shown(table)}; a table such as {{name = "new", shares = [0.9, 0.1, 0.0]}} is needed.'
        )
    here = place.inside(key)
    check_keys(table, ["name", "shares", "parameters"], here)
    if "name" not in table:
        raise ConfigError(f"{here} needs the key 'name'.")
    shares = None if "shares" not in table else tuple(convert(x, float, here, "shares") for x in _list(table, "shares", here))
    parameters = table.get("parameters", {})
    if not isinstance(parameters, dict):
        raise ConfigError(f"{here.at('parameters')} = {shown(parameters)}; a table of names and numbers is needed.")
    set_to = {name: convert(x, float, here.inside("parameters"), name) for name, x in parameters.items()}
    try:
        return Experiment(convert(table["name"], str, here, "name"), shares, set_to)
    except InputError as error:
        raise ConfigError(f"{here} {error}") from error


def _goal(table: Any, place: Place, number: int) -> Any:
    here = place.inside("goal")
    if not isinstance(table, dict) or "kind" not in table:
        raise ConfigError(
            f'{place.at("goal")} = {shown(table)}; a table such as {{kind = "ValueOf", name = "beta", time = 5.0}} is needed, kinds are '
            f"{', '.join(GOALS)}."
        )
    return construct(GOALS[choose(table["kind"], GOALS, here.at("kind"))], table, here, also=["kind"])
