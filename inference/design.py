"""What should be observed next? The best set of candidates by what their data would tell, and its gain over even spreading."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayes_mfg.data.blank import BLANK
from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel

from .coordinates import coordinates, prior_points
from .design_candidates import Experiment, MeanOf, Observe, ShareOf, ValueOf
from .design_plan import Local, Plan, all_values, at_point, planned, several
from .design_result import Design, Judged
from .design_search import Linearised, Problem, exhaustive, greedy, searched, spread
from .errors import FitError
from .expected_gain import Table, expected_gain, solvable
from .identifiability_points import located
from .options import whole
from .pointwise import independent_in_time
from .progress import bar
from .report_page import plural
from .result import Fit

CRITERIA = ("D", "A", "eig")

SEARCHES: dict[str, Callable[[Problem], tuple[int, ...]]] = {"exchange": searched, "greedy": greedy, "exhaustive": exhaustive}


def design(
    model: ForwardModel,
    at: Any = None,
    *,
    candidates: Sequence[Observe],
    budget: float,
    criterion: str | None = None,
    goal: Any = None,
    given: bool | None = None,
    scenarios: Sequence[Experiment] = (),
    draws: int = 32,
    worst: bool = False,
    search: str = "exchange",
    against: Sequence[Observe] | None = None,
    inner: int = 200,
    seed: int = 0,
    progress: bool | None = None,
) -> Design:
    """Choose what to observe: the affordable set of candidates whose data would tell most.

    Every candidate adds the expected Fisher information of the model's own observations, from exact sensitivities of the equilibrium, to that of
    the prior and of the data that are there. Observations are independent in the models: the same agents counted again tell less than this.

    Half of the draws are searched on; the gains are told by the other half, which the search has not seen.

    Parameters
    ----------
    model : the model. Its data, where they are there already, count by their design, see `given`; else they only say how data look: times, totals,
        starts.
    at : where the information is taken: None, draws from the prior; a `Fit` of this model, its draws (of a point fit the mode); or one point, a dict
        of values or coordinates as `identifiability` takes them.
    candidates : what could be observed, see `Observe`, `Experiment` and `observations`.
    budget : most that the chosen ones may cost together; each costs 1 by default.
    criterion : "D", the volume of the posterior of all unknowns (half the log determinant of prior-scaled information, which is the expected
        information gain where all is linear); "A", the root mean square of posterior over prior sds of what the goal asks for; or "eig", the expected
        information gain by nested Monte Carlo, see `expected_gain`, of truths and data from the prior. "D" by default, with a goal "A".
    goal : what "A" is about: a `ValueOf`, `MeanOf` or `ShareOf`, several of them, or a smooth function `(values, mu) -> array` in `jax.numpy` of the
        unknowns' values by name, `(T, ...)`, and of populations `(T, d)` by trajectory - such as the difference that an experiment makes. By default
        every unknown parameter at every time.
    given : whether the model's own data are there already, so that gains come on top of them; by default they are, but for blank ones
        (`bm.data.blank_population`). With False they only say how data look.
    scenarios : trajectories that the goal asks about and nobody observes.
    draws : number of draws, at least 2; with one point there is nothing to draw.
    worst : choose by the worst draw in place of the mean.
    search : "exchange" (greedy, then swaps until none gains), "greedy", or "exhaustive" for a few candidates.
    against : the design to compare with, within the budget; by default as many candidates as the budget allows, evenly spread over them, trajectory
        by trajectory, see `spread`.
    inner : inner points for each draw of "eig".
    seed : of draws and simulated data.
    progress : show progress; by default on a terminal only.

    Returns
    -------
    Design

    Raises
    ------
    InputError : for candidates, goals and options that do not fit, and in single precision.
    FitError : where there is no equilibrium, or no finite derivatives, at any draw.

    References
    ----------
    Chaloner and Verdinelli, Bayesian experimental design: a review, Statistical Science 10 (1995); exchange: Fedorov, Theory of optimal experiments
    (1972); goals: Attia, Alexanderian and Saibaba, Goal-oriented optimal design of experiments for large-scale Bayesian linear inverse problems,
    Inverse Problems 34 (2018).
    """
    criterion = ("D" if goal is None else "A") if criterion is None else criterion
    _refuse(model, candidates, budget, criterion, goal, search, {"draws": (draws, 2), "inner": (inner, 2), "seed": (seed, 0)})
    given = data_count(model, at) if given is None else given
    if criterion == "eig" and (given or at is not None):
        raise InputError(
            'design: criterion "eig" is of truths from the prior, before any data; leave out at, and say given=False.'
        )
    rival = _rival(against, budget)
    plan = planned(model, [*candidates, *rival], list(scenarios), given)
    count = len(candidates)
    _refuse_agents_for_nothing(plan, count)
    clashes = [frozenset(j for j in range(len(plan.cells)) if plan.clash(k, j)) for k in range(len(plan.cells))]
    for k in range(count, len(plan.cells)):
        if other := [j for j in clashes[k] if j >= count]:
            raise InputError(
                f"design: against has {plan.candidates[k]} and {plan.candidates[other[0]]}, which see the same cell."
            )
    asked = _goal(plan, goal) if criterion == "A" else None
    flat, name, told = _points(model, plan, at, draws, seed)
    points, kept = [], []
    with bar(len(flat), "design", progress) as shown:
        for k, x in enumerate(flat):
            found = at_point(plan, x, asked)
            if found is not None:
                points.append(found)
                kept.append(k)
            shown.update()
    if len(points) < min(2, len(flat)):
        raise FitError(
            f"design: at {len(flat) - len(points)} of {len(flat)} points there is no equilibrium, or it has no finite derivatives."
        )
    if len(points) < len(flat):
        told.append(
            f"{len(flat) - len(points)} of {len(flat)} draws have no equilibrium or no finite derivatives; they are left out."
        )
    flat = flat[kept]
    share = solvable(plan, max(inner, 200), seed) if criterion == "eig" else 1.0
    if share < 1:
        told.append(
            f"{100 * share:.0f} % of the prior have an equilibrium; the expected information gain is that of a prior of these alone."
        )
    looked, fresh = (slice(0, None, 2), slice(1, None, 2)) if len(points) > 1 else (slice(None), slice(None))
    costs = [c.cost for c in plan.candidates]
    rivals = [k for k in range(len(plan.cells)) if k < count]
    loss: Any
    if criterion == "eig":
        part = min(1.0, budget / sum(costs[:count]))
        loss = Table(plan, flat[looked], points[looked], part, inner, seed, share)
        if loss.lost:
            told.append(
                f"{loss.lost} of {len(points[looked])} truths had no inner point with an equilibrium; the search leaves them out."
            )
    else:
        loss = Linearised(points[looked], criterion)
    problem = Problem(costs[:count], budget, [c & frozenset(rivals) for c in clashes[:count]], loss, worst)
    if not problem.room(()):
        raise InputError(f"design: budget is {budget:g}, less than the cheapest candidate, {min(costs[:count]):g}.")
    chosen = SEARCHES[search](problem)
    if not chosen:
        raise InputError("design: no candidate adds anything to what is known; where does the goal leave a trace?")
    order = sorted(
        rivals, key=lambda k: ([*plan.blank.trajectories].index(plan.candidates[k].place), plan.candidates[k].moments[0], k)
    )
    uniform = tuple(range(count, len(plan.cells))) if rival else spread(problem, order)
    judged = _judged(plan, criterion, points[fresh], flat[fresh], chosen, uniform, inner, seed + 1, share)
    singles = np.array([problem.value(()) - problem.value((k,)) for k in rivals])
    singles[~np.isfinite(singles)] = np.nan
    last = {k: problem.value(tuple(j for j in chosen if j != k)) - problem.value(chosen) for k in chosen}
    told += [*judged.warnings, *_remarks(plan, chosen)]
    return Design(
        plan=plan,
        criterion=criterion,
        goal="" if criterion != "A" else _words(goal),
        at=name,
        picked=chosen,
        spread=uniform,
        budget=float(budget),
        judged=judged,
        alone=singles,
        last=last,
        searched=search,
        worst=worst,
        warnings=tuple(told),
        offered=count,
        recorded=_recorded(plan, model),
        rival="the design that it is held against" if rival else "an even spread of the same budget",
    )


def data_count(model: ForwardModel, at: Any) -> bool:
    """Whether the model's data are there already, where nobody says: they are not where they are blank."""
    return isinstance(at, Fit) or model.population.provenance.get("source") != BLANK


def _recorded(plan: Plan, model: ForwardModel) -> str:
    """A sentence on the data that are there, empty where there are none."""
    if plan.there.any():
        return f"The {plural(int(plan.there.any(axis=-1).sum()), 'observation')} that are there were used: the design is for what to add to them."
    if not data_count(model, None):
        return ""
    return f"The {plural(int(model.population.mask.any(axis=-1).sum()), 'observation')} of the model were not used: they only say how data look."


def _rival(against: Any, budget: float) -> list[Observe]:
    """The design to compare with, as it was given.

    Raises
    ------
    InputError : for what is none of this budget.
    """
    if against is None:
        return []
    if not isinstance(against, list | tuple) or not against or not all(isinstance(c, Observe) for c in against):
        raise InputError(f"design: against is {against!r}; a list of at least one bayes_mfg.inference.Observe is needed.")
    cost = sum(c.cost for c in against)
    if cost > budget * (1 + 1e-12):
        raise InputError(f"design: against costs {cost:g}, more than the budget of {budget:g}.")
    return list(against)


def _refuse_agents_for_nothing(plan: Plan, count: int) -> None:
    """Refuse numbers of agents that cost the same: the largest would always be chosen.

    Raises
    ------
    InputError : naming both numbers.
    """
    first: dict[tuple[bytes, float], int] = {}
    for k, candidate in enumerate(plan.candidates[:count] if plan.totals is not None else ()):
        assert plan.totals is not None
        j = first.setdefault((plan.cells[k].tobytes(), candidate.cost), k)
        few, many = sorted(int(plan.totals[x].max()) for x in (j, k))
        if few < many:
            raise InputError(
                f"design: trajectory {candidate.place} at {candidate.moments[0]:g} is offered with {few} and with {many} agents at the same cost, "
                f"{candidate.cost:g}; numbers of agents need costs of their own."
            )


def _remarks(plan: Plan, chosen: tuple[int, ...]) -> list[str]:
    """What a user of the observation model on the data of this design must know."""
    told: list[str] = plan.model.observation.remarks(plan.population(chosen))
    return told


def _refuse(
    model: Any, candidates: Any, budget: Any, criterion: str, goal: Any, search: str, numbers: dict[str, tuple[Any, int]]
) -> None:
    """Refuse what no design can be made of.

    Raises
    ------
    InputError : naming what was given.
    """
    if not isinstance(model, ForwardModel):
        raise InputError(f"design: model is {type(model).__name__}; a bayes_mfg.models.Calibration is needed.")
    if jnp.zeros(()).dtype != jnp.float64:
        raise InputError('design: double precision is needed; jax.config.update("jax_enable_x64", True) first.')
    if not isinstance(candidates, list | tuple) or not candidates or not all(isinstance(c, Observe) for c in candidates):
        raise InputError(f"design: candidates is {candidates!r}; a list of at least one bayes_mfg.inference.Observe is needed.")
    if not isinstance(budget, int | float) or isinstance(budget, bool) or not np.isfinite(budget) or budget <= 0:
        raise InputError(f"design: budget is {budget!r}; a positive number is needed.")
    if criterion not in CRITERIA:
        raise InputError(f"design: criterion is {criterion!r}; choose one of {', '.join(CRITERIA)}.")
    if goal is not None and criterion != "A":
        raise InputError(f"design: criterion {criterion!r} is about all unknowns; a goal belongs to criterion 'A'.")
    if search not in SEARCHES:
        raise InputError(f"design: search is {search!r}; choose one of {', '.join(SEARCHES)}.")
    for name, (value, least) in numbers.items():
        if not whole(value) or value < least:
            raise InputError(f"design: {name} is {value!r}; a whole number of at least {least} is needed.")
    if not coordinates(model).size:
        raise InputError("design: the model has no unknowns.")
    independent_in_time(model, "design", "leave the persistence out of the observation model to plan with independent errors")


def _goal(plan: Plan, goal: Any) -> Any:
    """One function of values and populations from what a user asks for."""
    if goal is None:
        return all_values(plan)
    parts = list(goal) if isinstance(goal, list | tuple) else [goal]
    functions = []
    for part in parts:
        if isinstance(part, ValueOf | MeanOf | ShareOf):
            functions.append(part.bind(plan.model.grid.times, plan.blank.states, several(plan.model)))
        elif callable(part):
            functions.append(part)
        else:
            raise InputError(
                f"design: goal is {part!r}; a ValueOf, MeanOf, ShareOf, or a function (values, mu) -> array is needed."
            )
    return lambda values, mu: jnp.concatenate([jnp.ravel(jnp.asarray(f(values, mu), float)) for f in functions])


def _words(goal: Any) -> str:
    if goal is None:
        return "every unknown parameter at every time"
    parts = list(goal) if isinstance(goal, list | tuple) else [goal]
    return ", ".join(str(p) if isinstance(p, ValueOf | MeanOf | ShareOf) else getattr(p, "__name__", "a function") for p in parts)


def _points(model: ForwardModel, plan: Plan, at: Any, draws: int, seed: int) -> tuple[np.ndarray, str, list[str]]:
    """Points in the plan's coordinates `(n, size)`, their name, and what must be said of them."""
    space = coordinates(plan.model)
    prior = prior_points(plan.model, jax.random.split(jax.random.key(seed), draws))
    if at is None:
        return prior, f"{draws} draws from the prior", []
    point, name, told = located(model, at, "design")
    if not isinstance(at, Fit):
        return _embedded(model, plan, point[None], space.prior_median()[None]), name, told
    flat = at.tree["unconstrained_posterior"]["latent"].to_numpy()
    flat = flat.reshape(-1, flat.shape[-1])
    if len(flat) == 1:
        return _embedded(model, plan, point[None], space.prior_median()[None]), name, told
    some = flat[np.linspace(0, len(flat) - 1, min(draws, len(flat))).round().astype(int)]
    return _embedded(model, plan, some, prior[: len(some)]), f"{len(some)} draws of a fit", told


def _embedded(model: ForwardModel, plan: Plan, flat: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Points of the model in the coordinates of the plan; the unknowns of new trajectories are those of `rest`."""
    old, new = coordinates(model), coordinates(plan.model)
    if old.names == new.names:
        return flat
    out = []
    for x, other in zip(flat, rest, strict=True):
        have, sites = old.split(jnp.asarray(x)), dict(new.split(jnp.asarray(other)))
        for name, value in have.items():
            own = sites[name]
            # Sites of trajectories have these on the unconstrained values' first axis.
            sites[name] = value if own.shape == value.shape else own.at[: len(value)].set(value)
        out.append(np.concatenate([np.ravel(sites[name]) for name in new.shapes]))
    return np.stack(out)


def _judged(
    plan: Plan,
    criterion: str,
    points: list[Local],
    flat: np.ndarray,
    chosen: tuple[int, ...],
    uniform: tuple[int, ...],
    inner: int,
    seed: int,
    share: float,
) -> Judged:
    """Losses of the chosen and of the even design where the search has not looked."""
    if criterion != "eig":
        loss = Linearised(points, criterion)
        return Judged(loss(()), loss(chosen), loss(uniform))
    best, even = (expected_gain(plan, some, flat, points, inner, seed, share) for some in (chosen, uniform))
    both = np.isfinite(best.each) & np.isfinite(even.each)
    if not both.any():
        raise FitError(f"design: of {len(flat)} truths none has an expected gain under both designs.")
    told = [f"{int((~both).sum())} of {len(flat)} truths have no expected gain and are left out."] if not both.all() else []
    halves = (best.halves - even.halves)[both]
    shift = (
        float((halves - (best.each - even.each)[both])[np.isfinite(halves)].mean()) if np.isfinite(halves).any() else float("nan")
    )
    told.append(
        f"With half of the inner points the difference between the designs is {shift:+.2g} nats away: about as large is its bias."
    )
    told += [
        f"With half of the inner points the expected gain of the {what} design is {g.bias:+.2f} nats away (standard error {g.error:.2f}): "
        "take more, inner=..."
        for what, g in (("chosen", best), ("other", even))
        if abs(g.bias) > max(2 * g.error, 0.05)
    ]
    told += [
        f"The inner points of the {what} design are worth {g.ess:.0f} of {inner}: the linearised posterior is a poor proposal here."
        for what, g in (("chosen", best), ("other", even))
        if g.ess < 0.05 * inner
    ]
    return Judged(np.zeros(int(both.sum())), -best.each[both], -even.each[both], tuple(told), (best, even))
