"""Iterations that find a fixed point: damped Picard, Anderson-accelerated sweeps, and Newton with a line search.

Each is one `lax.while_loop` that does nothing when it is handed a state that is already finished, so that they chain without branches and
work under `vmap`. All end on the residual, never on the length of a step.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .blocks import factorise
from .problem import Problem
from .schemes import Pair, Scheme, residual

MEMORY = 6
HALVINGS = 14
SWEEPS_BEFORE_NEWTON = 25
RESCUE_MARCHES = 150
PATIENCE = 5
CRAWL = 0.75


class State(NamedTuple):
    """Where an iteration stands.

    Attributes
    ----------
    z : `(mu, u)`, each `(d, M + 1)`, the best iterate so far.
    size : its residual, relative to max(1, |u|).
    steps : iterations done by each method so far: picard, anderson, newton, `(3,)`.
    stalled : whether Newton's line search has failed at this iterate.
    unit : by how much values differ between states at the start: the unit of cost in which defects of the value are weighed against those of
        the population.
    """

    z: Pair
    size: Array
    steps: Array
    stalled: Array
    unit: Array


def size_of(defects: Pair, u: Array, unit: Array) -> Array:
    """Largest defect: of the population absolutely, of the value relative to max(min(1, unit), |u|). Infinite where not finite."""
    r_mu, r_u = defects
    size = jnp.maximum(jnp.max(jnp.abs(r_mu)), jnp.max(jnp.abs(r_u)) / jnp.maximum(jnp.minimum(1.0, unit), jnp.max(jnp.abs(u))))
    # A maximum does not do to find a NaN: XLA's vectorised one on the CPU drops it in large batches. A sum keeps it.
    finite = jnp.isfinite(jnp.sum(r_mu) + jnp.sum(r_u)) & jnp.isfinite(size)
    return jnp.where(finite, size, jnp.inf)


def start(scheme: Scheme, problem: Problem, guess: Pair | None = None) -> State:
    """Start from a given guess, each `(d, M + 1)`, or from one march through time with a flat value."""
    if guess is None:
        flat = jnp.broadcast_to(problem.terminal_cost(problem.mu0)[:, None], (problem.mu0.size, problem.grid.intervals + 1))
        guess = scheme.march(problem, flat)
    mu, u = guess
    spread = jnp.max(jnp.max(u, axis=0) - jnp.min(u, axis=0))
    unit = jnp.where(jnp.isfinite(spread) & (spread > 0), spread, 1.0)
    size = size_of(residual(scheme, problem, mu, u), u, unit)
    return State(guess, size, jnp.zeros(3, int), jnp.zeros((), bool), unit)


def _select(condition: Array, a: Pair, b: Pair) -> Pair:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def _best(best: State, z: Pair, size: Array, method: int) -> State:
    """The better of two iterates, one step of a method further."""
    better = size <= best.size
    return best._replace(
        z=_select(better, z, best.z), size=jnp.where(better, size, best.size), steps=best.steps.at[method].add(1)
    )


def picard(scheme: Scheme, problem: Problem, state: State, *, tol: float, max_steps: int, damping: float = 0.5) -> State:
    """Damped Picard iteration: move a share `1 - damping` of the way to the sweep of the current iterate."""

    def step(carry: tuple[State, Pair]) -> tuple[State, Pair]:
        best, z = carry
        image, defects = scheme.sweep(problem, *z)
        best = _best(best, z, size_of(defects, z[1], best.unit), method=0)
        return best, jax.tree.map(lambda old, new: damping * old + (1.0 - damping) * new, z, image)

    def unfinished(carry: tuple[State, Pair]) -> Array:
        best, (mu, u) = carry
        return (best.size > tol) & (best.steps[0] < max_steps) & jnp.all(jnp.isfinite(mu)) & jnp.all(jnp.isfinite(u))

    return lax.while_loop(unfinished, step, (state, state.z))[0]


def anderson(scheme: Scheme, problem: Problem, state: State, *, tol: float, max_steps: int | Array) -> State:
    """Sweeps with Anderson acceleration (type II, least squares on the last `MEMORY` differences).

    Source: Walker and Ni, SIAM J. Numer. Anal. 49 (2011). Ends early when the residual has grown a thousandfold over its best.
    """
    shape = state.z[0].shape
    length = state.z[0].size

    def pack(z: Pair) -> Array:
        return jnp.concatenate([z[0].reshape(-1), z[1].reshape(-1) / state.unit])

    def unpack(x: Array) -> Pair:
        return x[:length].reshape(shape), state.unit * x[length:].reshape(shape)

    def step(carry: tuple) -> tuple:
        best, x, last_x, last_f, dx, df, gram, count = carry
        z = unpack(x)
        image, defects = scheme.sweep(problem, *z)
        size = size_of(defects, z[1], best.unit)
        best = _best(best, z, size, method=1)
        f = pack(image) - x
        # The oldest difference makes room. Written as a choice: side by side, solves would make a slow scatter of an indexed update.
        oldest = jnp.arange(MEMORY) == count % MEMORY
        change = jnp.where(count > 0, f - last_f, 0.0)
        dx = jnp.where(oldest[:, None], jnp.where(count > 0, x - last_x, 0.0), dx)
        df = jnp.where(oldest[:, None], change, df)
        products = jnp.sum(df * change, axis=-1)
        gram = jnp.where(oldest[:, None], products[None, :], jnp.where(oldest[None, :], products[:, None], gram))
        scale = jnp.trace(gram)
        ridge = jnp.where(scale > 0, 1e-14 * scale, 1.0)
        weights = _solve_spd(gram + ridge * jnp.eye(MEMORY, dtype=gram.dtype), jnp.sum(df * f, axis=-1))
        new_x = x + f - jnp.sum(weights[:, None] * (dx + df), axis=0)
        lost = ~(size < 1e3 * best.size)
        return best, jnp.where(lost, jnp.nan, new_x), x, f, dx, df, gram, count + 1

    def unfinished(carry: tuple) -> Array:
        best, x = carry[0], carry[1]
        return (best.size > tol) & (best.steps[1] < max_steps) & jnp.isfinite(x[0])

    x = pack(state.z)
    history = jnp.zeros((MEMORY, 2 * length), x.dtype)
    none = jnp.zeros((MEMORY, MEMORY), x.dtype)
    return lax.while_loop(unfinished, step, (state, x, x, jnp.zeros_like(x), history, history, none, jnp.zeros((), int)))[0]


def _solve_spd(a: Array, b: Array) -> Array:
    """Solve one small positive definite system by elimination, written out to stay out of LAPACK inside a loop."""
    n = b.shape[0]
    for p in range(n):
        factor = a[:, p] / a[p, p] * (jnp.arange(n) != p)
        a = a - factor[:, None] * a[p][None, :]
        b = b - factor * b[p]
    return b / jnp.diagonal(a)


def marches(scheme: Scheme, problem: Problem, state: State, *, tol: float, max_steps: int | Array, damping: float = 0.9) -> State:
    """Damped fictitious play: march the population under the current value, then move the value a little towards the answer to it.

    Slow, but it follows an epidemic's front where frozen sweeps and Newton lose it; a rescue for strong coupling over long horizons. Ends, too,
    when the value has settled to a thousandth of its size: Newton finishes from there.
    """

    def step(carry: tuple[State, Array]) -> tuple[State, Array]:
        state, _ = carry
        old = state.z[1]
        mu, new = scheme.march(problem, old)
        u = damping * old + (1.0 - damping) * new
        moved = jnp.max(jnp.abs(new - old)) / jnp.maximum(jnp.minimum(1.0, state.unit), jnp.max(jnp.abs(old)))
        return state._replace(z=(mu, u), steps=state.steps.at[0].add(1)), moved

    def unfinished(carry: tuple[State, Array]) -> Array:
        state, moved = carry
        return (state.size > tol) & (moved > 1e-3) & (state.steps[0] < max_steps)

    z = lax.while_loop(unfinished, step, (state, jnp.asarray(jnp.inf, state.size.dtype)))[0]
    size = jnp.where(z.steps[0] > state.steps[0], size_of(residual(scheme, problem, *z.z), z.z[1], z.unit), state.size)
    return z._replace(size=size, stalled=jnp.zeros((), bool))


def newton(
    scheme: Scheme, problem: Problem, state: State, *, tol: float, max_steps: int, patience: int | Array | None = None
) -> State:
    """Newton's method on the block-tridiagonal system, with a backtracking line search on the residual.

    A step is halved up to `HALVINGS` times until the sum of squared defects falls (Armijo, factor 1e-4); if it never does, the iteration has
    stalled. With `patience` it ends, too, when that many steps in a row together have not brought the sum below `CRAWL` of what it was: where the
    equilibrium that the start belonged to is gone, it crawls towards a minimum that is no zero.
    """
    patience = max_steps if patience is None else patience

    def merit(defects: Pair) -> Array:
        return jnp.sum(defects[0] ** 2) + jnp.sum((defects[1] / state.unit) ** 2)

    def step(carry: tuple[State, Pair, Array, Array, Array]) -> tuple[State, Pair, Array, Array, Array]:
        state, defects, taken, level, since = carry
        direction = factorise(scheme.linearise(problem, *state.z))(defects)
        before = merit(defects)

        def too_far(search: tuple[Array, Pair, Pair, Array]) -> Array:
            length, _, after, halvings = search
            return ~(merit(after) <= (1.0 - 1e-4 * length) * before) & (halvings < HALVINGS)

        def halve(search: tuple[Array, Pair, Pair, Array]) -> tuple[Array, Pair, Pair, Array]:
            length = search[0] * 0.5
            z = jax.tree.map(lambda x, dx: x - length * dx, state.z, direction)
            return length, z, residual(scheme, problem, *z), search[3] + 1

        # The full step is the first trial of the loop, so that the residual is compiled once.
        twice = (jnp.asarray(2.0, before.dtype), state.z, defects, jnp.asarray(-1))
        _, z, after, _ = lax.while_loop(too_far, halve, twice)
        moved = merit(after) < before
        z, defects = _select(moved, z, state.z), _select(moved, after, defects)
        size = size_of(defects, z[1], state.unit)
        now = merit(defects)
        pays = now < CRAWL * level
        level, since = jnp.where(pays, now, level), jnp.where(pays, 0, since + 1)
        return state._replace(z=z, size=size, steps=state.steps.at[2].add(1), stalled=~moved), defects, taken + 1, level, since

    def unfinished(carry: tuple[State, Pair, Array, Array, Array]) -> Array:
        state, _, taken, _, since = carry
        return (state.size > tol) & (taken < max_steps) & (since < patience) & ~state.stalled & jnp.isfinite(state.size)

    first = residual(scheme, problem, *state.z)
    none = jnp.zeros((), int)
    return lax.while_loop(unfinished, step, (state, first, none, merit(first), none))[0]


def automatic(scheme: Scheme, problem: Problem, state: State, *, tol: float, max_steps: int) -> State:
    """Anderson sweeps while they pay, then Newton while it pays; where that fails, damped marches from the start, then Newton again.

    Where these fail, too, Newton goes on from where it was stopped.
    """
    first = state

    def attempt(carry: tuple[State, State, Array]) -> tuple[State, State, Array]:
        state, left, number = carry
        sweeps = jnp.where(number == 0, min(SWEEPS_BEFORE_NEWTON, max_steps), 0)
        state = anderson(scheme, problem, state, tol=tol, max_steps=sweeps)
        rescue = jnp.where(number == 1, RESCUE_MARCHES, 0)
        from_start, from_left = (x._replace(steps=state.steps) for x in (first, left))
        state = jax.tree.map(
            lambda now, new, old: jnp.where(number == 0, now, jnp.where(number == 1, new, old)), state, from_start, from_left
        )
        state = marches(scheme, problem, state, tol=tol, max_steps=rescue)
        patience = jnp.where(number == 0, PATIENCE, max_steps)
        state = newton(scheme, problem, state, tol=tol, max_steps=max_steps, patience=patience)
        return state, jax.tree.map(lambda new, old: jnp.where(number == 0, new, old), state, left), number + 1

    def unfinished(carry: tuple[State, State, Array]) -> Array:
        state, _, number = carry
        return (state.size > tol) & (number < 3)

    return lax.while_loop(unfinished, attempt, (state, state, jnp.zeros((), int)))[0]


METHODS: dict[str, Callable[..., State]] = {"auto": automatic, "newton": newton, "anderson": anderson, "picard": picard}
