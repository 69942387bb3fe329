"""One model that holds everything a design could observe, and what each candidate would add to the information at a point."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.models import Calibration, FirstObserved, ForwardModel, Known, Started
from bayes_mfg.paths import Given

from .coordinates import coordinates
from .design_candidates import Experiment, Goal, Observe, grid_place
from .information import information, root
from .linearised import columns, prior_scale
from .sensitivity import Sensitivities, sensitivities

CELLWISE = ("Gaussian", "Binomial", "BetaBinomial")
"""Observation models that take states as independent, so that some of them can be observed alone."""


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A model of all trajectories, own and proposed, with the cells that each candidate observes.

    Attributes
    ----------
    model : the model, on blank data in which everything is observed that is there or proposed.
    blank : its population.
    there : cells `(R, T, d)` of the data that are there already.
    cells : of every candidate, `(R, T, d)` numbers of cells in flat order.
    totals : of every candidate, `(R, T)` numbers of agents, 0 where it observes nothing; None where the data have none.
    candidates : as they were given.
    layers : numbers of agents `(R, T)`, in as many layers as a cell has alternatives, the first that of the data that are there; or one None.
    layer : of every candidate, the number of its layer.
    data : the model's own.
    """

    model: ForwardModel
    blank: Population
    there: np.ndarray
    cells: tuple[np.ndarray, ...]
    totals: tuple[np.ndarray, ...] | None
    candidates: tuple[Observe, ...]
    layers: tuple[np.ndarray | None, ...]
    layer: tuple[int, ...]
    data: Population

    def clash(self, one: int, other: int) -> bool:
        """Whether two candidates see the same cell, so that only one of them can be carried out."""
        return one != other and bool(np.intersect1d(self.cells[one], self.cells[other]).size)

    def population(self, chosen: Sequence[int]) -> Population:
        """Blank data of a choice, with what is there already: the shape of what would be recorded, numbers without meaning."""
        mask = self.there.copy()
        for k in chosen:
            mask.reshape(-1)[self.cells[k]] = True
        if not mask.any():
            raise InputError("A design that observes nothing has no data.")
        sizes = self.blank.totals
        if self.totals is not None and sizes is not None:
            sizes = np.where(self.there.any(axis=-1), sizes, 0)
            for k in chosen:
                sizes = np.where(self.totals[k] > 0, self.totals[k], sizes)
        return _blank(self.blank.times, mask, sizes, self.data, self.blank.trajectories, self.there)

    def carried(self, chosen: Sequence[int]) -> ForwardModel:
        """The model of a choice, sharing what is compiled where it can."""
        return with_data(self.model, self.population(chosen))


def with_data(model: ForwardModel, population: Population) -> ForwardModel:
    """The model for other data of the same times and trajectories; made anew where other states are seen than before."""
    if model.observation.columns(population) == model.columns:
        return model.with_population(population)
    if not isinstance(model, Calibration):
        raise InputError(f"design: a {type(model).__name__} cannot be given data of other states.")
    return _rebuilt(model, population, dict(model.paths), model.initial)


def _rebuilt(model: Calibration, population: Population, paths: dict[str, Any], initial: Any) -> Calibration:
    beyond = model.grid.times[-1]
    made = Calibration(
        model.game,
        population,
        paths,
        model.observation,
        initial=initial,
        horizon=None if population.times[-1] == beyond else float(beyond),
        substeps=model.grid.substeps,
        scheme=model.scheme,
        method=model.method,
        control=model.control,
    )
    for name, path in made.bound.items():
        if name in model.bound and not isinstance(made.paths[name], Given) and path.description != model.bound[name].description:
            raise InputError(
                f"design: with data at later times the path of {name} is another one ({path.description}); give it a length scale of its own."
            )
    return made


def planned(model: ForwardModel, candidates: Sequence[Observe], scenarios: Sequence[Experiment], given: bool) -> Plan:
    """The plan of candidates and of trajectories that goals ask about.

    Parameters
    ----------
    model : the model.
    candidates : at least one.
    scenarios : trajectories that nobody observes.
    given : whether the model's own observations are there already.

    Raises
    ------
    InputError : for a candidate that does not fit the model.
    """
    if getattr(model, "branches", None) is not None:
        raise InputError("design: models with several branches are not designed for; leave branches out, and take one as known.")
    for name, path in model.bound.items():
        if path.needs_observed:
            raise InputError(
                f"design: the path of {name} takes the observed population as input; such a model cannot foretell data."
            )
    starts = _starts(model, candidates, scenarios)
    names = (*model.population.trajectories, *starts)
    times = model.population.times
    late = max((t for c in candidates for t in c.moments), default=-np.inf)
    if late > times[-1] * (1 + 1e-12):
        times = model.grid.times
    anew = isinstance(model.initial, FirstObserved) or bool(starts) or len(times) > model.population.n_times
    if anew and type(model) is not Calibration:
        raise InputError(f"design: a {type(model).__name__} can only be observed at its own times in its own trajectories.")
    blank, there, cells, totals = _cells(model, candidates, names, times, given)
    if anew:
        assert isinstance(model, Calibration)
        made: ForwardModel = _rebuilt(model, blank, _paths(model, starts), _initial(model, starts))
    else:
        made = with_data(model, blank)
    layers, layer = _layers(blank, there, totals, len(cells))
    return Plan(made, blank, there, cells, totals, tuple(candidates), layers, layer, model.population)


def _layers(
    blank: Population, there: np.ndarray, totals: tuple[np.ndarray, ...] | None, count: int
) -> tuple[tuple[np.ndarray | None, ...], tuple[int, ...]]:
    """Numbers of agents of all candidates in as few arrays as hold them, and the array of each."""
    if totals is None or blank.totals is None:
        return (None,), (0,) * count
    layers = [np.where(there.any(axis=-1), blank.totals, 0)]
    found = []
    for many in totals:
        free = (k for k, have in enumerate(layers) if not np.any((many > 0) & (have > 0) & (have != many)))
        place = next(free, len(layers))
        if place == len(layers):
            layers.append(np.zeros_like(many))
        layers[place] = np.where(many > 0, many, layers[place])
        found.append(place)
    return tuple(layers), tuple(found)


def _starts(model: ForwardModel, candidates: Sequence[Observe], scenarios: Sequence[Experiment]) -> dict[str, Experiment]:
    """The proposed trajectories by name."""
    found: dict[str, Experiment] = {}
    for start in [*(c.trajectory for c in candidates if isinstance(c.trajectory, Experiment)), *scenarios]:
        if start.name in model.population.trajectories:
            raise InputError(
                f"Experiment: name is {start.name!r}, which is a trajectory of the model's data; another name is needed."
            )
        if found.setdefault(start.name, start) != start:
            raise InputError(f"Experiment: two different trajectories are called {start.name!r}; names of their own are needed.")
        if start.shares is not None and len(start.shares) != model.population.n_states:
            raise InputError(f"Experiment: shares is {start.shares}; {model.population.n_states} are needed.")
    for candidate in candidates:
        if candidate.place not in (*model.population.trajectories, *found):
            raise InputError(
                f"Observe: trajectory is {candidate.place!r}; the model has {', '.join(model.population.trajectories)}, and no Experiment has it."
            )
    return found


def _paths(model: Calibration, starts: dict[str, Experiment]) -> dict[str, Any]:
    """Paths of all trajectories: what an experiment sets is known, and may differ between them."""
    paths: dict[str, Any] = dict(model.paths)
    changed = dict.fromkeys(name for start in starts.values() for name in start.parameters)
    for name in changed:
        parameter = model.game.parameters.get(name)
        if parameter is None:
            raise InputError(
                f"Experiment: {type(model.game).__name__} has no parameter or constant {name!r}; it has {', '.join(model.game.parameters)}."
            )
        if name in model.bound and (model.bound[name].priors or not model.bound[name].is_constant):
            raise InputError(f"Experiment: {name} is unknown in this model; an experiment can only set what is known.")
        own = model.paths.get(name)
        if isinstance(own, Given):
            known = [np.asarray(x, float) for x in np.asarray(own.values)]
        else:
            value: Any = np.asarray(getattr(model.game, name) if own is None else own.prior)  # type: ignore[attr-defined]
            known = [np.broadcast_to(value.astype(float), parameter.shape)] * model.population.n_trajectories
        for start in starts.values():
            if name not in start.parameters:
                _refuse_guess(name, start, known[: model.population.n_trajectories])
            set_to = np.asarray(start.parameters.get(name, known[0]), float)
            if set_to.shape not in ((), parameter.shape):
                raise InputError(f"Experiment: {name} has shape {set_to.shape}; {parameter.shape} is needed.")
            known.append(np.broadcast_to(set_to, parameter.shape))
        paths[name] = Given(np.stack(known))
    for name, path in model.paths.items():
        if isinstance(path, Given) and name not in changed:
            values = np.asarray(path.values, float)
            for start in starts.values():
                _refuse_guess(name, start, values)
            paths[name] = Given(np.concatenate([values, np.repeat(values[:1], len(starts), axis=0)]))
    return paths


def _refuse_guess(name: str, start: Experiment, known: Any) -> None:
    """Refuse an experiment that does not say what is set in it where the model's own trajectories differ in that.

    Raises
    ------
    InputError : naming the parameter.
    """
    if any(not np.array_equal(value, known[0]) for value in known):
        raise InputError(
            f"Experiment: {start.name!r} sets no {name}, which differs between the model's trajectories; parameters with one is needed."
        )


def _initial(model: Calibration, starts: dict[str, Experiment]) -> Any:
    """Starts of all trajectories."""
    initial = model.initial
    if isinstance(initial, FirstObserved | Known):
        rows = initial.fixed(model.population)
        for start in starts.values():
            if start.shares is None:
                raise InputError(
                    f"Experiment: {start.name!r} has no shares; those of the model's own trajectories are known, and so must these be."
                )
        return Known(np.concatenate([rows, *[np.array([s.shares]) for s in starts.values()]]))
    rows = np.full((model.population.n_trajectories + len(starts), model.population.n_states), np.nan)
    if isinstance(initial, Started):
        rows[: model.population.n_trajectories], initial = np.asarray(initial.mu0), initial.rest
    for r, start in enumerate(starts.values(), model.population.n_trajectories):
        if start.shares is not None:
            rows[r] = start.shares
    return initial if np.isnan(rows).all() else Started(initial, rows)


def _cells(
    model: ForwardModel, candidates: Sequence[Observe], names: Sequence[str], times: np.ndarray, given: bool
) -> tuple[Population, np.ndarray, tuple[np.ndarray, ...], tuple[np.ndarray, ...] | None]:
    """Blank data with everything observed, cells that are there, and cells and totals of every candidate."""
    population = model.population
    shape = (len(names), len(times), population.n_states)
    before = np.zeros(shape, bool)
    before[: population.n_trajectories, : population.n_times] = population.mask
    taken = isinstance(model.initial, FirstObserved)
    if taken:
        before[:, 0] = False  # what the start is taken from is no evidence about it
    counted = model.observation.variable == "counts"
    sizes = np.zeros(shape[:2], np.int64)
    if counted:
        assert population.totals is not None
        sizes[: population.n_trajectories, : population.n_times] = population.totals
    known = np.unique(sizes[sizes > 0])
    there = before & given
    named = getattr(model.observation, "states", None)
    seen = [population.states.index(s) for s in (named or population.states)]
    cells, totals = [], []
    for candidate in candidates:
        r = list(names).index(candidate.place)
        some = seen
        if candidate.states is not None:
            some = [_state(s, model, seen) for s in candidate.states]
            if len(some) < len(seen) and type(model.observation).__name__ not in CELLWISE:
                raise InputError(
                    f"Observe: states is {list(candidate.states)}; {type(model.observation).__name__} sees all of its states together, "
                    f"{', '.join(population.states[x] for x in seen)}."
                )
        mine, many = np.zeros(shape, bool), np.zeros(shape[:2], np.int64)
        for time in candidate.moments:
            t = grid_place(time, times, "Observe: times")
            if taken and t == 0 and r < population.n_trajectories:
                raise InputError(
                    f"Observe: {candidate.place} starts at its first observation, at {time:g}, which is taken as the truth; other times are needed."
                )
            if there[r, t].any():
                raise InputError(
                    f"Observe: {candidate.place} was observed at {time:g} already; other times are needed, or given=False."
                )
            mine[r, t, some] = True
            if counted:
                many[r, t] = candidate.total or sizes[r, t] or (known[0] if len(known) == 1 else 0)
                if not many[r, t]:
                    raise InputError(
                        f"Observe: {candidate} needs a total, the number of agents that are counted; the data have no single one."
                    )
        if candidate.total is not None and not counted:
            raise InputError(
                f"Observe: total is {candidate.total}, but {type(model.observation).__name__} is a model of shares, whose noise knows no agents."
            )
        cells.append(np.flatnonzero(mine))
        totals.append(many)
    everything = there.copy()
    for k in cells:
        everything.reshape(-1)[k] = True
    for many in totals:
        sizes = np.where((many > 0) & ~there.any(axis=-1), many, sizes)
    made = _blank(times, everything, sizes if counted else None, population, names, there)
    return made, there, tuple(cells), tuple(totals) if counted else None


def _state(name: str, model: ForwardModel, seen: Sequence[int]) -> int:
    states = [model.population.states[x] for x in seen]
    if name not in states:
        raise InputError(f"Observe: states has {name!r}; the observation model looks at {', '.join(states)}.")
    return model.population.states.index(name)


def _blank(
    times: np.ndarray, mask: np.ndarray, sizes: np.ndarray | None, like: Population, names: Sequence[str], there: np.ndarray
) -> Population:
    """Data of a mask and totals: what is there already, and everyone spread evenly elsewhere."""
    d = mask.shape[-1]
    numbers: dict[str, Any] = {"proportions": np.full(mask.shape, 1.0 / d)}
    kind = "proportions" if sizes is None else "counts"
    if sizes is not None:
        known = np.where(mask.any(axis=-1), np.maximum(sizes, 1), 0)
        counts = np.repeat(known[..., None] // d, d, axis=-1)
        counts[..., 0] += known - counts.sum(axis=-1)
        numbers = {"counts": counts, "totals": known.astype(float)}
    rows = there[: like.n_trajectories, : like.n_times].any(axis=-1)
    own = np.nan_to_num(like.shares) if like.counts is None or sizes is None else like.counts
    numbers[kind][: like.n_trajectories, : like.n_times][rows] = own[rows]
    return Population(times, **numbers, states=like.states, trajectories=names, mask=mask, time_unit=like.time_unit)


@dataclasses.dataclass(frozen=True, eq=False)
class Local:
    """Everything at one point, in coordinates that the prior has made round.

    Attributes
    ----------
    there : root of the information of the data that are there, `(m, size)`.
    roots : of every candidate, `(m, size)`.
    goal : slopes of what is asked, `(q, size)`; None where nothing is.
    """

    there: np.ndarray
    roots: tuple[np.ndarray, ...]
    goal: np.ndarray | None


def at_point(plan: Plan, point: np.ndarray, goal: Goal | None) -> Local | None:
    """Information and slopes at one point; None where there is no equilibrium, or its derivatives are not finite."""
    model = plan.model
    found: Sensitivities = jax.tree.map(np.asarray, sensitivities(model)(jnp.asarray(point), model.data))
    if not bool(found.found) or not all(np.isfinite(x).all() for x in jax.tree.leaves((found.implied, found.moved))):
        return None
    scale = prior_scale(model)
    slopes = None
    if goal is not None:
        slopes = goal_slopes(plan, found, goal) @ scale
        if not np.isfinite(slopes).all():
            return None
    weights = [_weights(plan, found, sizes) for sizes in plan.layers]
    there = _rows(plan, found, np.flatnonzero(plan.there), weights[0], scale)
    roots = tuple(_rows(plan, found, cells, weights[layer], scale) for cells, layer in zip(plan.cells, plan.layer, strict=True))
    return Local(there, roots, slopes)


def _weights(plan: Plan, found: Sensitivities, sizes: np.ndarray | None) -> np.ndarray:
    """Roots of the expected information of every observation, `(R, T[, k], m, m)`, with these numbers of agents."""
    own = {name.removeprefix("own/"): value for name, value in found.implied.items() if name.startswith("own/")}
    data = plan.model.data
    if sizes is not None:
        data = data._replace(record=data.record._replace(totals=jnp.asarray(np.maximum(sizes, 1), data.record.totals.dtype)))
    return root(information(plan.model.likelihood({"own": own}, found.implied["mu"], data)))


def _rows(plan: Plan, found: Sensitivities, cells: np.ndarray, weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Root `(m, size)` of the information of some cells, whitened by the prior."""
    space = coordinates(plan.model)
    if not cells.size:
        return np.zeros((0, space.size))
    chosen = np.zeros(plan.there.shape, bool)
    chosen.reshape(-1)[cells] = True
    # One row of states is one observation, or every cell is one.
    seen = chosen[..., [plan.blank.states.index(s) for s in plan.model.columns]] if weights.ndim == 5 else chosen.any(axis=-1)
    rows = []
    for r in np.flatnonzero(chosen.any(axis=(1, 2))):
        moved = np.asarray(found.moved["natural"])[:, r][:, seen[r]]
        rows.append(columns(space, np.einsum("nab,dnb->dna", weights[r][seen[r]], moved), int(r)))
    return np.concatenate(rows) @ scale


def goal_slopes(plan: Plan, found: Sensitivities, goal: Goal) -> np.ndarray:
    """Derivatives `(q, size)` of a goal by the unconstrained coordinates, by the chain rule through what is implied."""
    model, space = plan.model, coordinates(plan.model)
    names = [key for key in found.implied if key.startswith(("parameter/", "own/"))]
    implied = {key: jnp.asarray(found.implied[key]) for key in (*names, "mu")}

    def told(implied: dict[str, jax.Array]) -> jax.Array:
        return jnp.ravel(jnp.asarray(asked(plan, implied, goal), float))

    slopes = jax.jacrev(told)(implied)
    total = np.zeros((len(next(iter(slopes.values()))), space.size))
    for key, slope in slopes.items():
        moved = np.asarray(found.moved[key])
        several = key == "mu" or (key.startswith("parameter/") and model.varies_by_trajectory(key.partition("/")[2]))
        flat = np.asarray(slope).reshape(len(total), *moved.shape[1:])
        for part, own, r in _parts(flat, moved, several):
            total += part.reshape(len(total), -1) @ columns(space, own, r)
    return total


def _parts(slope: np.ndarray, moved: np.ndarray, several: bool) -> Iterator[tuple[np.ndarray, np.ndarray, int | None]]:
    if not several:
        yield slope, moved, None
        return
    yield from ((slope[:, r], moved[:, r], r) for r in range(moved.shape[1]))


def asked(plan: Plan, implied: dict[str, Any], goal: Goal) -> Any:
    """The goal of what is implied (keys as in `Sensitivities.implied`)."""
    values = {key.partition("/")[2]: x for key, x in implied.items() if key.startswith(("parameter/", "own/"))}
    return goal(values, dict(zip(plan.blank.trajectories, implied["mu"], strict=True)))


def several(model: ForwardModel) -> frozenset[str]:
    """Parameters whose paths have an axis of trajectories."""
    return frozenset(name for name in model.bound if model.varies_by_trajectory(name))


def all_values(plan: Plan) -> Callable[..., Any]:
    """What A-optimality is about where nothing is asked: every unknown parameter at every time, positive ones on the logarithmic scale."""
    names = [name for name, path in plan.model.bound.items() if path.priors]
    known = {name: path.parameter.lower >= 0 and not np.isfinite(path.parameter.upper) for name, path in plan.model.bound.items()}
    varied = several(plan.model)

    def goal(values: Any, mu: Any) -> Any:
        parts = []
        for name in names:
            path = values[name]
            if plan.model.bound[name].is_constant:
                path = path[:, 0] if name in varied else path[0]
            parts.append(jnp.ravel(jnp.log(path) if known[name] else path))
        return jnp.concatenate(parts)

    return goal
