"""Interventions on a fit: every posterior draw's equilibrium solved again in a changed game, against the same draw's baseline."""

import collections
import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax import Array

from bayes_mfg.equilibrium import Code, Equilibrium, ExponentialMidpoint, TimeGrid, solve
from bayes_mfg.errors import InputError
from bayes_mfg.games import Closed, Game
from bayes_mfg.models import Calibration, Data

from .assemble import CHUNK
from .coordinates import compiled, coordinates
from .errors import FitError
from .intervention_result import Intervention, counted
from .interventions import AnyIntervention, Belief, Change, Close, Start, altered
from .options import whole
from .predict import branch_keys, chosen_draws, chosen_numbers, distributions, renewed
from .report_page import plural

if TYPE_CHECKING:
    from .result import Fit

log = logging.getLogger(__name__)

MOST_LOST, WORTH_A_WARNING = 0.5, 0.01
"""Shares of draws without a result above which there is none at all, and above which a warning says so."""

KEPT = 8
"""Compiled plans that a model keeps."""

OTHER_BRANCH = max(Code) + 1
"""Beside the codes of solves: the baseline is not the draw's own equilibrium."""

_WHY = {Code.OUT_OF_RANGE: "a parameter left its range", OTHER_BRANCH: "the baseline's own equilibrium was not found again"}

SAME_BRANCH = 1e-3
"""Largest difference of a population from that of the draw's own equilibrium up to which the baseline is taken to be the same one of several."""


def intervene(
    fit: "Fit",
    *interventions: AnyIntervention,
    initial: Any = None,
    num_draws: int | None = None,
    seed: int = 0,
    flows: bool = True,
) -> Intervention:
    """What would happen if the game were changed: populations, flows and costs of every posterior draw, against the same draw's baseline.

    The news arrive in order. Until the first of them agents play the baseline's equilibrium. With each, the game that they now know of is solved from
    the population of that moment to the horizon, and played until the next: what is announced for later is anticipated, what is not comes as a
    surprise. What is announced from the beginning is one solve of the whole game. Every agent hears of all news at once, expects no other, and
    knows how all others will answer. Parameters are those of the draw: paths that depend on the population answer to the changed one; paths of time
    alone, and of the observed population, do not.

    Parameters
    ----------
    fit : a fit of a `Calibration`, with its model.
    interventions : `Close`, `Change` and `Start`, any number of them, which act together; changes of one parameter in the order given. Their times
        are on the clock of the data; those that are no nodes of the solver's grid are made ones, for the baseline, too.
    initial : new initial populations `(d,)` or `(R, d)` for both sides, as in `predict`; `Start` is another one for the changed side alone.
    num_draws : posterior draws to use, spread evenly; by default all. They keep their numbers among all draws, chain after chain, so that results
        with other numbers of draws can be compared draw by draw. Flows take `draws x trajectories x times x d^2` numbers on either side.
    seed : of new trajectories' deviations, and of nothing else: a draw has the same ones whatever `num_draws` is.
    flows : whether to keep them; what is printed and drawn needs none.

    Returns
    -------
    Intervention
        Draws in which any of these solves failed, or a parameter left its range, are left out and counted, by reason, in `lost`.

    Raises
    ------
    InputError : when the fit has no model with a game, interventions or options do not fit it, or times lie outside its grid.
    FitError : when more than half of the draws are lost.

    Notes
    -----
    Every solve sets out from what was believed before, so that in a game with several equilibria it stays near the one that was played, if that one
    is still there. With `branches`, the baseline is the draw's own branch; a draw in which the solver does not find it again counts as failed.
    """
    model = fit.model
    if model is None:
        raise InputError("This fit was loaded without its model; use load(path, model=...) to intervene.")
    if not isinstance(model, Calibration):
        raise InputError(
            f"intervene: the fit is one of {type(model).__name__}; a Calibration, which has a game to change, is needed."
        )
    if not whole(seed) or not 0 <= seed <= 2**32:
        raise InputError(f"intervene: seed is {seed!r}; a whole number from 0 to {2**32} is needed.")
    if not isinstance(flows, bool):
        raise InputError(f"intervene: flows is {flows!r}; True or False is needed.")
    fresh, names = None, list(model.population.trajectories)
    if initial is not None:
        if model.branches is not None:
            raise InputError("intervene: which of several equilibria is played from a new initial population is not known.")
        if any(path.needs_observed for path in model.bound.values()):
            raise InputError(
                "intervene: a path takes the observed population as input, which a new initial population does not have."
            )
        fresh = distributions(initial, model.population.n_states, "intervene")
        names = [f"initial {k}" for k in range(len(fresh))]
    plan = make_plan(model, interventions, len(names))
    start = _start(plan, len(names))
    flat, numbers = chosen_draws(fit, num_draws, "intervene"), chosen_numbers(fit, num_draws, "intervene")
    data = model.data
    if fresh is not None:
        data = data._replace(observed=jnp.zeros((len(fresh), *data.observed.shape[1:])))
    # Another start is an argument of the compiled function, whatever it holds.
    key = f"intervene {flows} {[one for one in plan.interventions if not isinstance(one, Start)]!r}"
    older = [name for name in model.compiled if name.startswith("intervene ") and name != key]
    for name in older[: max(0, len(older) + 1 - KEPT)]:
        del model.compiled[name]
    many = compiled(model, key, lambda: jax.jit(jax.vmap(_one(model, plan, flows), in_axes=(0, 0, None, None, None))))
    every = len(chosen_numbers(fit, None))
    keys = (jax.random.split(jax.random.key(seed), every) if model.branches is None else branch_keys(fit))[numbers]
    starts = None if fresh is None else jnp.asarray(fresh), None if start is None else jnp.asarray(start)
    filled: Any = None
    for first in range(0, len(flat), CHUNK):
        x, k = jnp.asarray(flat[first : first + CHUNK]), keys[first : first + CHUNK]
        used = len(x)
        if len(flat) > CHUNK and used < CHUNK:
            # The last chunk is filled up, so that one compiled function serves all.
            x, k = (
                jnp.concatenate([x, jnp.repeat(x[-1:], CHUNK - used, 0)]),
                jnp.concatenate([k, jnp.repeat(k[-1:], CHUNK - used)]),
            )
        part = many(x, k, data, *starts)
        if filled is None:
            filled = jax.tree.map(lambda a: np.empty((len(flat), *a.shape[1:]), a.dtype), part)
        for target, values in zip(jax.tree.leaves(filled), jax.tree.leaves(part), strict=True):
            target[first : first + used] = np.asarray(values)[:used]
    codes = filled.pop("code")
    good = codes == Code.CONVERGED
    lost = _reasons(codes)
    if np.mean(~good) > MOST_LOST:
        raise FitError(
            f"intervene: {counted(lost)}; with {(~good).sum()} of {plural(len(good), 'draw')} lost, what is left says nothing of the posterior."
        )
    if np.mean(~good) > WORTH_A_WARNING:
        log.warning("intervene: %d of %s lost: %s.", (~good).sum(), plural(len(good), "draw"), counted(lost))
    coords = {
        "draw": numbers[good],
        "trajectory": names,
        "time": model.grid.times,
        "state": list(model.population.states),
        "origin": list(model.population.states),
        "destination": list(model.population.states),
    }
    baseline, changed = (
        xr.Dataset(
            {name: (_DIMS[name], values if good.all() else values[good]) for name, values in filled[side].items()},
            coords=coords if flows else {name: c for name, c in coords.items() if name not in ("origin", "destination")},
        )
        for side in ("baseline", "changed")
    )
    frozen = tuple(name for name, path in model.bound.items() if path.needs_observed)
    # New populations have no data, after which a forecast could begin.
    seen = np.inf if fresh is not None else float(model.population.times[-1])
    return Intervention(
        plan.interventions,
        baseline,
        changed,
        lost,
        plan.news,
        float(model.grid.times[-1]),
        frozen,
        seen=seen,
        cautions=tuple(fit.warnings),
    )


def _reasons(codes: np.ndarray) -> dict[str, int]:
    """How many draws were lost why, by the codes of their solves."""
    found = collections.Counter(_WHY.get(int(code), "an equilibrium was not found") for code in codes if code != Code.CONVERGED)
    return dict(found.most_common())


_DIMS = {
    "mu": ("draw", "trajectory", "time", "state"),
    "value": ("draw", "trajectory", "time", "state"),
    "flow": ("draw", "trajectory", "time", "origin", "destination"),
    "cost": ("draw", "trajectory"),
    "expected_cost": ("draw", "trajectory"),
}


@dataclasses.dataclass(frozen=True)
class Stage:
    """From one piece of news to the next.

    Attributes
    ----------
    first, last : nodes at which it begins and at which the next begins.
    beliefs : what agents believe in it.
    game : the game that they play, closures included.
    """

    first: int
    last: int
    beliefs: tuple[Belief, ...]
    game: Game


@dataclasses.dataclass(frozen=True)
class Plan:
    """The nodes, and who believes what when.

    Attributes
    ----------
    interventions : as given.
    nodes : of the solver, `(M + 1,)`.
    points : places of the model's grid points among them.
    stages : in order of time; the first begins at the first node.
    """

    interventions: tuple[AnyIntervention, ...]
    nodes: np.ndarray
    points: np.ndarray
    stages: tuple[Stage, ...]

    @property
    def news(self) -> tuple[float, ...]:
        """Times at which agents hear of something."""
        told = [stage for k, stage in enumerate(self.stages) if k or stage.beliefs]
        return tuple(float(self.nodes[stage.first]) for stage in told)


def make_plan(model: Calibration, interventions: Sequence[Any], count: int | None = None) -> Plan:
    """Check interventions against a model, and lay out what happens when.

    Parameters
    ----------
    model : the model.
    interventions : what is changed.
    count : number of trajectories; by default that of the data.

    Raises
    ------
    InputError : for unknown states and parameters, numbers that do not fit, times outside the grid, and none or two starts.
    """
    if not interventions:
        raise InputError("intervene: no intervention is given; one of Close, Change and Start is needed.")
    for one in interventions:
        if not isinstance(one, Close | Change | Start):
            raise InputError(f"intervene: {one!r} is no intervention; one of Close, Change and Start is needed.")
    if sum(isinstance(one, Start) for one in interventions) > 1:
        raise InputError("intervene: more than one Start is given; a population starts once.")
    states, known_as = model.population.states, model.game.state_names
    interventions = [
        one.fitted(states, known_as, count or model.population.n_trajectories) if isinstance(one, Start) else one
        for one in interventions
    ]
    nodes, slack = model.grid.fine_times, 1e-9 * model.grid.horizon
    begin, horizon = float(nodes[0]), float(nodes[-1])
    extra: list[float] = []

    def placed(time: float, what: str) -> float:
        if not begin - slack <= time <= horizon + slack:
            raise InputError(
                f"intervene: {what} is {time:g}; the model covers {begin:g} to {horizon:g} (see `horizon` of Calibration)."
            )
        known = np.append(nodes, extra)
        near = float(known[np.argmin(np.abs(known - time))])
        if abs(near - time) <= slack:
            return near
        extra.append(float(time))
        return float(time)

    windows: list[tuple[Belief, float, bool]] = []
    for one in interventions:
        if isinstance(one, Start):
            continue
        kind = type(one).__name__
        start = -math.inf if one.start is None else placed(one.start, f"start of {kind}")
        end = math.inf if one.end is None else placed(one.end, f"end of {kind}")
        if end <= max(start, begin):
            raise InputError(
                f"intervene: the window of {kind} from {max(start, begin):g} to {end:g} is empty on the model's grid, which begins at {begin:g}."
            )
        if isinstance(one, Close):
            _known_state(model, one.state)
        else:
            known = model.game.parameters
            if one.parameter not in known:
                raise InputError(
                    f"intervene: {type(model.game).__name__} has no parameter {one.parameter!r}; it takes {', '.join(known)}."
                )
            one.check(known[one.parameter])
        first = max(start, begin)
        told = (
            begin if one.announced is True else first if one.announced is False else placed(one.announced, f"announced of {kind}")
        )
        # What agents know in advance may change at the end alone, where the terminal cost is paid.
        if first >= horizon and (isinstance(one, Close) or told >= horizon):
            raise InputError(
                f"intervene: start of {kind} is {start:g}, the end of the model's grid (see `horizon` of Calibration)."
            )
        if told > first:
            raise InputError(f"intervene: {kind} is announced at {told:g}, after its start at {first:g}.")
        windows.append((Belief(one, start, math.inf if end >= horizon else end), told, one.end_known))
    if extra:
        nodes = np.union1d(nodes, extra)
    moments = {begin, *(told for _, told, _ in windows), *(b.end for b, _, known in windows if not known and b.end < horizon)}

    def believed(now: float) -> tuple[Belief, ...]:
        found = []
        for belief, told, known in windows:
            if told <= now < belief.end:
                found.append(belief if known else dataclasses.replace(belief, end=math.inf))
        return tuple(found)

    stages: list[tuple[float, tuple[Belief, ...]]] = []
    for now in sorted(moments):
        # What is over changes nothing any more.
        if not stages or tuple(b for b in stages[-1][1] if b.end > now) != believed(now):
            stages.append((now, believed(now)))
    at = [int(np.argmin(np.abs(nodes - now))) for now, _ in stages]
    made = [
        Stage(first, last, beliefs, _game(model, beliefs))
        for first, last, (_, beliefs) in zip(at, [*at[1:], len(nodes) - 1], stages, strict=True)
    ]
    points = np.searchsorted(nodes, model.grid.times - slack)
    return Plan(tuple(interventions), nodes, points, tuple(made))


def _known_state(model: Calibration, state: str) -> str:
    """The game's name of a state that is named as in the data, or as in the game."""
    for names in (model.population.states, model.game.state_names):
        if state in names:
            return model.game.state_names[names.index(state)]
    raise InputError(f"intervene: there is no state {state!r}; the model has {', '.join(model.population.states)}.")


def _game(model: Calibration, beliefs: Sequence[Belief]) -> Game:
    game = model.game
    for belief in beliefs:
        if isinstance(belief.what, Close):
            game = Closed(game, _known_state(model, belief.what.state), belief.start, belief.end, belief.what.paid)
    return game


def _start(plan: Plan, count: int) -> np.ndarray | None:
    """Initial populations `(R, d)` of the changed side, None where they are the baseline's."""
    for one in plan.interventions:
        if isinstance(one, Start):
            shares = np.asarray(one.mu0, dtype=float)
            return np.broadcast_to(shares, (count, shares.shape[-1]))
    return None


def _one(model: Calibration, plan: Plan, flows: bool) -> Any:
    """Function from one draw to both sides, and how its solves ended: the first code that is not that of an equilibrium."""
    space = coordinates(model)
    # Grid values to nodes, for guesses.
    between = np.stack([np.interp(plan.nodes, model.grid.times, row) for row in np.eye(model.grid.points)], axis=1)

    def one(x: Array, key: Array, data: Data, fresh: Array | None, start: Array | None) -> dict[str, Any]:
        latents = space.latents(space.constrain(x), data)
        if fresh is not None:
            raw = renewed(model, latents["raw"], jax.random.fold_in(key, 2), len(fresh))
            latents = {**latents, "mu0": fresh.astype(latents["mu0"].dtype), "raw": raw}
        belief = None
        if model.branches is not None:
            chosen = model.trajectories(latents, data, jax.random.fold_in(key, 1))
            belief = chosen.mu, chosen.value
        mu0 = latents["mu0"]
        changed = mu0 if start is None else start.astype(mu0.dtype)

        def single(
            mu0: Array, changed: Array, observed: Array, own: dict[str, Any], belief: tuple[Array, Array] | None
        ) -> dict[str, Any]:
            functions, _ = model.functions(latents["raw"], observed, own)
            guess = None if belief is None else tuple(jnp.asarray(between, mu0.dtype) @ part for part in belief)
            base = _solved(model, model.game, functions, (), mu0, plan.nodes, guess)
            code = _code(base)
            if belief is not None:
                same = jnp.max(jnp.abs(base.mu[plan.points] - belief[0])) <= SAME_BRANCH
                code = jnp.where((code == Code.CONVERGED) & ~same, OTHER_BRANCH, code)
            before = _followed(plan, [(Stage(0, len(plan.nodes) - 1, (), model.game), base)], model, flows)
            parts: list[tuple[Stage, Equilibrium]] = []
            now, here = base, changed
            for k, stage in enumerate(plan.stages):
                if stage.beliefs or k or start is not None:
                    first = stage.first - (parts[-1][0].first if parts else 0)
                    guess = now.mu[first:], now.value[first:]
                    now = _solved(model, stage.game, functions, stage.beliefs, here, plan.nodes[stage.first :], guess)
                    code = jnp.where(code == Code.CONVERGED, _code(now), code)
                here = now.mu[stage.last - stage.first]
                parts.append((stage, now))
            return {"baseline": before, "changed": _followed(plan, parts, model, flows), "code": code}

        found = jax.vmap(single)(mu0, changed, data.observed, model.own_raw(latents["raw"]), belief)
        return {**found, "code": jnp.max(found["code"])}

    return one


def _solved(
    model: Calibration, game: Game, functions: Any, beliefs: tuple[Belief, ...], mu0: Array, nodes: np.ndarray, guess: Any
) -> Equilibrium:
    grid = TimeGrid.from_times(nodes)
    params = model.sampled(altered(functions, model.game, beliefs, mu0.dtype), grid, mu0.dtype)
    return solve(game, params, mu0, grid, scheme=model.scheme, method=model.method, control=model.control, guess=guess)


def _code(eq: Equilibrium) -> Array:
    """How a solve ended; where it failed with parameters outside their range, that is why.

    Paths of time alone are judged on all nodes. What a path of the population does on the way is not known where there is no equilibrium: it is
    judged at the first moment.
    """
    problem = eq.problem
    first = problem.values(jnp.asarray(eq.times[0], problem.mu0.dtype), problem.mu0, {})
    along = {name: jnp.moveaxis(values, -1, 0) for name, values in problem.arrays.items()}
    inside = jnp.array([jnp.all(problem.game.parameters[name].contains(given)) for name, given in {**first, **along}.items()])
    ended: Array = eq.status.code
    return jnp.where((ended != Code.CONVERGED) & ~jnp.all(inside), int(Code.OUT_OF_RANGE), ended)


def _followed(plan: Plan, parts: Sequence[tuple[Stage, Equilibrium]], model: Calibration, flows: bool) -> dict[str, Array]:
    """What happens along the stages, at the model's grid points; at the moment of news what holds after it."""
    pieces: dict[str, list[Array]] = {"mu": [], "value": [], **({"flow": []} if flows else {})}
    cost = jnp.zeros(())
    for k, (stage, eq) in enumerate(parts):
        last = k == len(parts) - 1
        inside = plan.points[(plan.points >= stage.first) & ((plan.points < stage.last) | last)] - stage.first
        pieces["mu"].append(eq.mu[inside])
        pieces["value"].append(eq.value[inside])
        if flows:
            pieces["flow"].append(eq.mu[inside][:, :, None] * eq.rates[inside])
        cost = cost + _spent(eq, stage.last - stage.first, model, last)
    first = parts[0][1]
    # By the same quadrature as what is spent, so that the two differ by surprises alone.
    expected = _spent(first, len(first.times) - 1, model, True)
    return {**{name: jnp.concatenate(found) for name, found in pieces.items()}, "cost": cost, "expected_cost": expected}


def _spent(eq: Equilibrium, last: int, model: Calibration, ends: bool) -> Array:
    """Mean cost of an agent from the first node to another, and at the end the terminal cost.

    HJB and Kolmogorov steps of the exponential scheme are adjoint, so that what is spent between two nodes is the fall of `mu . u`, to rounding. The
    paper's scheme is not, and a planner's value is no cost: there costs are summed over the middles of intervals, an error of second order.
    """
    problem = eq.problem
    if isinstance(model.scheme, ExponentialMidpoint) and not model.control:
        falls = jnp.sum(eq.mu[0] * eq.value[0])
        return falls if ends else falls - jnp.sum(eq.mu[last] * eq.value[last])
    nodes = eq.times
    times, steps = (
        jnp.asarray(0.5 * (nodes[1:] + nodes[:-1]), eq.mu.dtype)[:last],
        jnp.asarray(np.diff(nodes), eq.mu.dtype)[:last],
    )
    mu, value = (0.5 * (path[:last] + path[1 : last + 1]) for path in (eq.mu, eq.value))
    middles = {name: jnp.moveaxis(a, -1, 0)[:last] for name, a in problem.middles.items()}

    def cost(t: Array, m: Array, v: Array, arrays: dict[str, Array]) -> Array:
        params = problem.values(t, m, arrays)
        control = problem.game.best_response(t, v, m, params)
        return jnp.sum(m * problem.game.running_cost(t, control, m, params))

    total = jnp.sum(steps * jax.vmap(cost)(times, mu, value, middles))
    if not ends:
        return total
    t = jnp.asarray(nodes[-1], eq.mu.dtype)
    params = problem.values(t, eq.mu[-1], {name: a[..., -1] for name, a in problem.arrays.items()})
    return total + jnp.sum(eq.mu[-1] * problem.game.terminal_cost(t, eq.mu[-1], params))
