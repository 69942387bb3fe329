"""Criteria of designs at many points, and the search for the set of candidates that is best by one: greedy, exchange, exhaustive."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from bayes_mfg.errors import InputError

from .design_plan import Local

type Loss = Callable[[tuple[int, ...]], np.ndarray]
"""`chosen -> (draws,)`: what a design leaves undecided at every draw, in nats; lower is better."""

MOST_SETS = 200_000
"""Sets that an exhaustive search looks at."""

BETTER = 1e-9
"""Improvement, in nats, under which an exchange is none: rounding."""


class Linearised:
    """Loss of designs by the linearised posterior.

    In coordinates that the prior has made round, and with `I` the information of what is there and of what is chosen, the posterior covariance is
    `(1 + I)^-1`. Criterion "D" is `-1/2 log det(1 + I)`: the entropy of that posterior, less the prior's. Criterion "A" is half the logarithm of
    the mean over the quantities asked for of `j (1 + I)^-1 j' / j j'`: the logarithm of the root mean square of their posterior over prior sds.

    Parameters
    ----------
    points : what `at_point` found.
    criterion : "D" or "A".

    Raises
    ------
    InputError : when nothing that is asked moves at some point.
    """

    def __init__(self, points: Sequence[Local], criterion: str) -> None:
        self.criterion = criterion
        size = points[0].there.shape[1]
        self.there = np.stack([np.eye(size) + p.there.T @ p.there for p in points])
        self.added = [np.stack([p.roots[k].T @ p.roots[k] for p in points]) for k in range(len(points[0].roots))]
        self.goals: list[np.ndarray] = []
        if criterion == "A":
            for p in points:
                assert p.goal is not None
                length = np.linalg.norm(p.goal, axis=1)
                moving = length > 1e-9 * max(float(length.max(initial=0.0)), 1e-300)
                if not moving.any() or length.max() == 0:
                    raise InputError(
                        "design: what the goal asks for does not depend on the unknowns; no design can tell more of it."
                    )
                self.goals.append(p.goal[moving] / length[moving, None])
        self._seen: dict[tuple[int, ...], np.ndarray] = {}

    def __call__(self, chosen: tuple[int, ...]) -> np.ndarray:
        """Loss at every draw, `(draws,)`."""
        key = tuple(sorted(chosen))
        if key not in self._seen:
            self._seen[key] = self._loss(self.there + sum(self.added[k] for k in key))
        return self._seen[key]

    def _loss(self, precision: np.ndarray) -> np.ndarray:
        lower = np.linalg.cholesky(precision)
        if self.criterion == "D":
            return -np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
        return np.array(
            [
                0.5 * np.log(np.mean(np.sum(np.linalg.solve(low, goal.T) ** 2, axis=0)))
                for low, goal in zip(lower, self.goals, strict=True)
            ]
        )


class Problem:
    """What may be chosen: costs, a budget, and candidates that exclude each other.

    Parameters
    ----------
    costs : of every candidate.
    budget : most that a set may cost.
    clashes : candidate -> those that cannot be carried out beside it.
    loss : of a set.
    worst : judge a set by its worst draw in place of the mean.
    """

    def __init__(self, costs: Sequence[float], budget: float, clashes: Sequence[frozenset[int]], loss: Loss, worst: bool) -> None:
        self.costs, self.budget, self.clashes, self.loss, self.worst = np.asarray(costs, float), budget, clashes, loss, worst

    def value(self, chosen: tuple[int, ...]) -> float:
        """The loss of a set over all draws; infinite where it is none at any draw, so that no search prefers it."""
        each = self.loss(chosen)
        value = float(each.max() if self.worst else each.mean())
        return value if math.isfinite(value) else math.inf

    def fits(self, chosen: Sequence[int]) -> bool:
        """Whether a set stays in the budget and can be carried out."""
        within = self.costs[list(chosen)].sum() <= self.budget * (1 + 1e-12)
        return bool(within) and not any(self.clashes[k] & set(chosen) for k in chosen)

    def room(self, chosen: Sequence[int]) -> list[int]:
        """Candidates that can be added."""
        return [k for k in range(len(self.costs)) if k not in chosen and self.fits([*chosen, k])]


def greedy(problem: Problem, by_cost: bool = False) -> tuple[int, ...]:
    """The set that grows by the candidate that gains most, or most per cost, until the budget is spent or nothing gains."""
    chosen: tuple[int, ...] = ()
    now = problem.value(chosen)
    while room := problem.room(chosen):
        gains = [now - problem.value((*chosen, k)) for k in room]
        best = int(np.argmax(np.asarray(gains) / (problem.costs[room] if by_cost else 1.0)))
        if not gains[best] > BETTER:
            break
        chosen, now = (*chosen, room[best]), now - gains[best]
    return chosen


def exchange(problem: Problem, chosen: tuple[int, ...]) -> tuple[int, ...]:
    """Swap one for another, the best swap of each round, and add what there is room for, until nothing gains."""
    now = problem.value(chosen)
    while True:
        moves = [(*chosen, k) for k in problem.room(chosen)]
        for out in chosen:
            rest = tuple(k for k in chosen if k != out)
            moves += [(*rest, k) for k in problem.room(rest) if k != out]
        if not moves:
            return chosen
        values = [problem.value(move) for move in moves]
        best = int(np.argmin(values))
        if not now - values[best] > BETTER:  # also of two that are infinite
            return chosen
        chosen, now = moves[best], values[best]


def searched(problem: Problem) -> tuple[int, ...]:
    """The better of two greedy sets, each improved by exchanges."""
    starts = {tuple(sorted(greedy(problem, by_cost))) for by_cost in (False, True)}
    best: tuple[int, ...] = min((exchange(problem, start) for start in sorted(starts)), key=problem.value)
    return tuple(sorted(best))


def exhaustive(problem: Problem) -> tuple[int, ...]:
    """The best of all sets: the slow and obvious way.

    Raises
    ------
    InputError : where there are more than `MOST_SETS` sets.
    """
    count = len(problem.costs)
    most = min(count, int(problem.budget / problem.costs.min() + 1e-9))
    if sum(math.comb(count, k) for k in range(most + 1)) > MOST_SETS:
        raise InputError(
            f"design: of {count} candidates there are more than {MOST_SETS} sets to look at; search by exchange instead."
        )
    sets = (tuple(s) for k in range(most + 1) for s in itertools.combinations(range(count), k))
    return min((s for s in sets if problem.fits(s)), key=lambda s: problem.value(s))


def spread(problem: Problem, order: Sequence[int]) -> tuple[int, ...]:
    """The best even design that spends the budget.

    As many candidates as the budget allows are spread evenly in an order; then those farthest from them are added until none can be afforded.
    Candidates that exclude each other are alternatives, such as numbers of agents. Even designs are made with the first, the second, ... of
    each, with the best and with the best for its cost; the one of least loss is the rival.

    Returns
    -------
    Numbers of candidates, rising; of none only where none can be afforded.
    """
    slots: list[list[int]] = []
    for k in order:
        home = next((slot for slot in slots if problem.clashes[k] & set(slot)), None)
        if home is None:
            slots.append([k])
        else:
            home.append(k)
    place = {k: s for s, slot in enumerate(slots) for k in slot}
    listed = {k: slot.index(k) for slot in slots for k in slot}
    most = max(map(len, slots))

    def listed_as(number: int) -> Callable[[int], float]:
        return lambda k: abs(listed[k] - min(number, len(slots[place[k]]) - 1))

    likings = [listed_as(number) for number in range(most)]
    if most > 1:
        alone = {k: problem.value((k,)) - problem.value(()) for k in order}
        likings += [lambda k: alone[k], lambda k: alone[k] / problem.costs[k]]
    return min((_even(problem, slots, place, liking) for liking in likings), key=problem.value)


def _even(problem: Problem, slots: list[list[int]], place: dict[int, int], liking: Callable[[int], float]) -> tuple[int, ...]:
    """One even design that takes of alternatives those that are liked, by least `liking`."""
    first = [min(slot, key=liking) for slot in slots]
    chosen: tuple[int, ...] = ()
    for count in range(len(slots), 0, -1):
        places = np.linspace(0, len(slots) - 1, count) if count > 1 else np.array([(len(slots) - 1) / 2])
        some = tuple(first[p] for p in np.floor(places + 0.5).astype(int))
        if problem.fits(some):
            chosen = some
            break
    middle = (len(slots) - 1) / 2
    while room := [k for k in problem.room(chosen) if k in place]:
        taken = [place[c] for c in chosen]
        near = {k: -min(abs(place[k] - s) for s in taken) if taken else abs(place[k] - middle) for k in room}
        chosen = (*chosen, min(room, key=lambda k: (near[k], liking(k), k)))
    return tuple(sorted(chosen))
