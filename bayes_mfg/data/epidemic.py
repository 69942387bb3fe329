"""A simulated epidemic among agents that walk on a torus: population data that no finite-state game has made."""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bayes_mfg.errors import DataError

from .population import Population

SUSCEPTIBLE, INFECTIOUS, RECOVERED = 0, 1, 2

_MARGIN = 1.001
"""Cells are wider than the radius by this factor, so that rounding never puts two neighbours two cells apart."""


@dataclasses.dataclass(frozen=True)
class Rules:
    """Everything but chance that decides an epidemic; as `simulate_epidemic` takes them."""

    agents: int
    steps: int
    box: float
    radius: float
    infection: float
    duration: int
    step_lengths: tuple[float, float, float]
    avoid: bool
    avoidance_radius: float
    avoidance_factor: float


class Agents(NamedTuple):
    """Where agents are, `x` and `y` in `[0, box)`; their state, S = 0, I = 1, R = 2; steps since infection (of the infectious). All `(N,)`."""

    x: Array
    y: Array
    state: Array
    age: Array


class Chance(NamedTuple):
    """Random numbers of one step, `(N,)` each, uniform on [0, 1): `heading` for the direction, `luck` for the infection."""

    heading: Array
    luck: Array


def simulate_epidemic(
    *,
    agents: int = 1500,
    trajectories: int = 20,
    avoid: bool = False,
    steps: int = 100,
    horizon: float = 20.0,
    seed: int = 0,
    box: float = 10.0,
    radius: float = 0.2,
    infection: float = 0.3,
    duration: int = 14,
    step_lengths: Sequence[float] = (0.02, 0.01, 0.02),
    avoidance_radius: float = 0.4,
    avoidance_factor: float = 1.0,
) -> Population:
    """Counts of the susceptible, infectious and recovered among agents that walk on a torus.

    Every trajectory has positions, ages, initial numbers and steps of its own. At the start agents are uniform on the torus; the number of
    infectious is uniform on 1, ..., `agents // 3`, that of recovered on 0, ..., `agents // 3`; the infectious have been so for a number of
    steps that is uniform on 0, ..., `duration - 1`: the epidemic is under way, and its first cases do not recover all at once.

    Everything in a step follows from positions and states at its beginning:

    - a susceptible with `k` infectious agents within `radius` is infected with probability `1 - (1 - infection)^k`;
    - an agent that has been infectious for `duration` steps recovers: infected at step n, it counts as I at n, ..., n + `duration` - 1;
    - all move by the step length of their state, in a direction uniform on the circle. With `avoid`, a susceptible with infectious agents
      within `avoidance_radius` moves `avoidance_factor` times its step length instead, straight away from the mean of their positions
      relative to its own (in a random direction where that mean is exactly zero).

    Parameters
    ----------
    agents : number of agents in each trajectory, at least 3.
    trajectories : how many.
    avoid : whether the susceptible steer away from the infectious.
    steps : number of steps; there is one more observed time.
    horizon : time of the last step; the first observed time is 0.
    seed : a whole number from 0 to 4294967295. The first trajectories do not depend on how many there are.
    box : side of the torus.
    radius : within which an infectious agent infects; at most half the box.
    infection : probability, for each infectious neighbour and step.
    duration : steps from infection to recovery.
    step_lengths : of the susceptible, the infectious and the recovered.
    avoidance_radius : within which the susceptible see infectious agents when they `avoid`; at most half the box.
    avoidance_factor : length of a step away, relative to the step length of the susceptible.

    Returns
    -------
    Population
        Counts of states S, I, R with totals `agents`, at times `linspace(0, horizon, steps + 1)`. Memory grows linearly with `agents`.
        The same seed gives the same counts at the same floating-point precision, which is JAX's default one.

    Raises
    ------
    DataError
        A bad argument.

    Notes
    -----
    Source: arXiv 2606.23155, agent-based epidemic, for the defaults. Its published data reuse one set of positions and random numbers for
    all trajectories; these do not. The ages at the start, the order within a step and the rule of avoidance are this library's own.
    """
    at_least = {"agents": (agents, 3), "trajectories": (trajectories, 1), "steps": (steps, 1), "duration": (duration, 1)}
    for name, (number, least) in at_least.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
            raise DataError(f"simulate_epidemic: {name} is {number!r}; expected a whole number of at least {least}.")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise DataError(f"simulate_epidemic: seed is {seed!r}; expected a whole number from 0 to 4294967295.")
    if not isinstance(avoid, bool | np.bool_):
        raise DataError(f"simulate_epidemic: avoid is {avoid!r}; expected True or False.")
    for name, value in {"horizon": horizon, "box": box}.items():
        if not _is_number(value) or value <= 0:
            raise DataError(f"simulate_epidemic: {name} is {value!r}; expected a positive number.")
    for name, value in {"radius": radius, "avoidance_radius": avoidance_radius}.items():
        if not _is_number(value) or not 0 < value <= 0.5 * box:
            raise DataError(
                f"simulate_epidemic: {name} is {value!r}; expected a positive number of at most {0.5 * box:g}, half the box."
            )
    if not _is_number(infection) or not 0 <= infection <= 1:
        raise DataError(f"simulate_epidemic: infection is {infection!r}; expected a probability.")
    lengths = list(step_lengths) if isinstance(step_lengths, Sequence | np.ndarray) else []
    if len(lengths) != 3 or not all(_is_number(length) and length >= 0 for length in lengths):
        raise DataError(
            f"simulate_epidemic: step_lengths is {step_lengths!r}; expected three numbers of at least 0, for S, I and R."
        )
    if not _is_number(avoidance_factor) or avoidance_factor < 0:
        raise DataError(f"simulate_epidemic: avoidance_factor is {avoidance_factor!r}; expected a number of at least 0.")

    rules = Rules(
        agents=int(agents),
        steps=int(steps),
        box=float(box),
        radius=float(radius),
        infection=float(infection),
        duration=int(duration),
        step_lengths=(float(lengths[0]), float(lengths[1]), float(lengths[2])),
        avoid=bool(avoid),
        avoidance_radius=float(avoidance_radius),
        avoidance_factor=float(avoidance_factor),
    )
    counts = np.asarray(epidemics(seeds_of(int(seed), int(trajectories)), rules))
    return Population(
        np.linspace(0.0, horizon, rules.steps + 1),
        counts=counts,
        totals=rules.agents,
        states=("S", "I", "R"),
        trajectories=tuple(str(r + 1) for r in range(len(counts))),
        provenance={
            "source": "simulated agents on a torus",
            **dataclasses.asdict(rules),
            "horizon": float(horizon),
            "seed": int(seed),
            "precision": str(jnp.zeros(()).dtype),
        },
    )


def _is_number(value: Any) -> bool:
    # Not by isfinite, which does not take whole numbers beyond floating point.
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return real and bool(abs(value) <= sys.float_info.max)


def seeds_of(seed: int, trajectories: int) -> Array:
    """One random key for each trajectory, whatever their number."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
        jax.random.key(np.uint32(seed), impl="threefry2x32"), jnp.arange(trajectories, dtype=jnp.uint32)
    )


@functools.partial(jax.jit, static_argnames="rules")
def epidemics(keys: Array, rules: Rules) -> Array:
    """Counts `(R, steps + 1, 3)`, one trajectory for each key."""

    def one(key: Array) -> Array:
        first = begin(jax.random.fold_in(key, 0), rules)

        def forth(agents: Agents, n: Array) -> tuple[Agents, Array]:
            agents = step(agents, chance(jax.random.fold_in(key, n), rules), rules)
            return agents, count(agents)

        _, later = lax.scan(forth, first, jnp.arange(1, rules.steps + 1, dtype=jnp.uint32))
        return jnp.concatenate([count(first)[None], later])

    return lax.map(one, keys)


def begin(key: Array, rules: Rules) -> Agents:
    """Agents at the start."""
    n = rules.agents
    places, infectious, recovered, ages = jax.random.split(key, 4)
    x, y = _wrapped(rules.box * jax.random.uniform(places, (2, n)), rules.box)
    i = jax.random.randint(infectious, (), 1, n // 3 + 1, jnp.int32)
    r = jax.random.randint(recovered, (), 0, n // 3 + 1, jnp.int32)
    # Positions are drawn without regard to the order of the agents.
    who = jnp.arange(n, dtype=jnp.int32)
    state = jnp.where(who < i, INFECTIOUS, jnp.where(who < i + r, RECOVERED, SUSCEPTIBLE)).astype(jnp.int32)
    return Agents(x, y, state, jax.random.randint(ages, (n,), 0, rules.duration, jnp.int32))


def chance(key: Array, rules: Rules) -> Chance:
    """Random numbers of one step."""
    return Chance(*jax.random.uniform(key, (2, rules.agents)))


def count(agents: Agents) -> Array:
    """Numbers of S, I and R."""
    return jnp.stack([jnp.sum(agents.state == state, dtype=jnp.int32) for state in (SUSCEPTIBLE, INFECTIOUS, RECOVERED)])


def step(agents: Agents, draws: Chance, rules: Rules) -> Agents:
    """Agents one step later."""
    x, y, state, age = agents
    susceptible = state == SUSCEPTIBLE
    reach = rules.avoidance_radius if rules.avoid else None
    near, (ahead_x, ahead_y) = neighbours(x, y, state == INFECTIOUS, susceptible, radius=rules.radius, box=rules.box, reach=reach)

    angle = 2 * jnp.pi * draws.heading
    length = jnp.asarray(rules.step_lengths, x.dtype)[state]
    move_x, move_y = length * jnp.cos(angle), length * jnp.sin(angle)
    if rules.avoid:
        far = jnp.sqrt(ahead_x**2 + ahead_y**2)
        flees = susceptible & (far > 0)
        flight = -rules.avoidance_factor * length / jnp.where(flees, far, 1.0)
        move_x, move_y = jnp.where(flees, flight * ahead_x, move_x), jnp.where(flees, flight * ahead_y, move_y)

    infected = susceptible & (draws.luck < 1 - (1 - rules.infection) ** near)
    older = age + 1
    recovers = (state == INFECTIOUS) & (older >= rules.duration)
    state = jnp.where(infected, INFECTIOUS, jnp.where(recovers, RECOVERED, state)).astype(state.dtype)
    age = jnp.where(infected, 0, older)
    return Agents(_wrapped(x + move_x, rules.box), _wrapped(y + move_y, rules.box), state, age)


def neighbours(
    x: Array, y: Array, seen: Array, asking: Array, *, radius: float, box: float, reach: float | None = None
) -> tuple[Array, tuple[Array, Array]]:
    """How many of the agents `seen` are within `radius` of every agent `asking`, and where those within `reach` are.

    The torus is cut into square cells no smaller than the larger radius, and the agents seen are sorted by cell. Of the up to nine cells
    around it an agent looks at the first occupant of each, then at the second, until the fullest of them is exhausted: the number of passes
    follows the data, no cell has a capacity to overflow, and memory is linear in the number of agents.

    Parameters
    ----------
    x, y : positions `(N,)` in `[0, box)`.
    seen, asking : which agents, `(N,)` bool; an agent that is both sees itself.
    radius, reach : at most half the box.

    Returns
    -------
    `(N,)` whole numbers, and the sum of the displacements `(N,)` in x and in y to those within `reach`; all are 0 for agents that do not ask,
    the displacements also where `reach` is None.
    """
    n, integer = x.shape[0], jnp.int32
    side = cells_per_side(n, max(radius, reach or 0.0), box)
    column, row = (jnp.minimum((a * (side / box)).astype(integer), side - 1) for a in (x, y))
    cell = jnp.where(seen, row * side + column, side**2)  # a last cell for those who are not seen
    order = jnp.argsort(cell)
    seen_x, seen_y = x[order], y[order]
    occupants = jnp.zeros(side**2 + 1, integer).at[cell].add(1)
    first = jnp.cumsum(occupants, dtype=integer) - occupants
    # On a torus of one or two cells to a side the cells around are not nine different ones.
    around = {1: (0,), 2: (0, 1)}.get(side, (-1, 0, 1))
    near = jnp.stack([((row + a) % side) * side + (column + b) % side for a in around for b in around])
    place, number = first[near], jnp.where(asking, occupants[near], 0)

    def one_more(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        k, found, ahead_x, ahead_y = carry
        at = jnp.minimum(place + k, n - 1)
        dx, dy = _shortest(seen_x[at] - x, box), _shortest(seen_y[at] - y, box)
        distance2 = dx**2 + dy**2
        real = k < number
        found = found + jnp.sum(real & (distance2 <= radius**2), axis=0, dtype=integer)
        if reach is not None:
            within = real & (distance2 <= reach**2)
            ahead_x = ahead_x + jnp.sum(jnp.where(within, dx, 0.0), axis=0)
            ahead_y = ahead_y + jnp.sum(jnp.where(within, dy, 0.0), axis=0)
        return k + 1, found, ahead_x, ahead_y

    most = jnp.max(number)
    nothing = jnp.zeros((), integer), jnp.zeros(n, integer), jnp.zeros_like(x), jnp.zeros_like(y)
    _, found, ahead_x, ahead_y = lax.while_loop(lambda carry: carry[0] < most, one_more, nothing)
    return found, (ahead_x, ahead_y)


def cells_per_side(agents: int, radius: float, box: float) -> int:
    """Cells no smaller than the radius, and no more of them than about one for each agent."""
    return max(1, min(int(box / (_MARGIN * radius)), int(np.ceil(np.sqrt(agents)))))


def _shortest(displacement: Array, box: float) -> Array:
    """Of all displacements between two points of a torus the shortest."""
    return displacement - box * jnp.round(displacement / box)


def _wrapped(a: Array, box: float) -> Array:
    a = a - box * jnp.floor(a / box)
    # Just below zero, rounding gives the box itself.
    return jnp.where((a >= box) | (a < 0), 0.0, a)
