"""Games with several equilibria: which there are, and which of them attract."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs

from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Game

from .blocks import Linearisation, factorise
from .exploitability import exploitability
from .grid import TimeGrid
from .problem import Problem, build
from .schemes import Pair, Scheme, get_scheme
from .solve import MAX_STEPS, Equilibrium, _solve, default_tolerance

log = logging.getLogger(__name__)

REPLIES = 8
"""Backward sweeps that turn a believed population into the value that answers it; more than enough for a starting guess."""

BETWEEN = (0.25, 0.5, 0.75)
"""Where between two equilibria Newton looks for those that repel."""

NEWTON_STEPS = 20
"""Newton's iterations from a point between two equilibria: near a root few are enough."""


@dataclasses.dataclass(frozen=True)
class Branch:
    """One of the equilibria of a game.

    Attributes
    ----------
    equilibrium : the solution.
    residual : its largest defect.
    exploitability : what one agent could gain by leaving it, in units of cost; NaN for a social planner's solution.
    spectral_radius : of the map from a believed population, by the value that answers it, to the population that follows, linearised here.
    attracts : whether that radius is below one, so that beliefs close to this equilibrium lead to it; False where the radius was not found (NaN).
    starts : number of starts, and of points between other equilibria, that ended here.
    """

    equilibrium: Equilibrium
    residual: float
    exploitability: float
    spectral_radius: float
    attracts: bool
    starts: int


def enumerate(  # the field's word, used as `bm.equilibrium.enumerate`
    game: Game,
    params: Mapping[str, Any],
    mu0: Any,
    grid: TimeGrid,
    *,
    starts: int = 16,
    guesses: Sequence[Any] = (),
    seed: int = 0,
    scheme: str | Scheme = "exponential",
    control: bool = False,
    tol: float | None = None,
    max_steps: int | None = None,
    distinct: float = 1e-5,
) -> tuple[Branch, ...]:
    """Search for all equilibria of a game, from many beliefs about where everybody will end.

    Starts are a flat value, the belief that everybody ends in one state (each state, or an even choice of them), and beliefs in random ends;
    each is followed by sweeps and then Newton. From points between any two equilibria found so, Newton alone looks for those that repel.
    There is no proof that all have been found.

    Parameters
    ----------
    game, params, mu0, grid, scheme, control, tol : as in `solve`.
    starts : number of beliefs, at least 1.
    guesses : further starts: pairs `(mu, value)`, each `(T, d)`, equilibria, or what `enumerate` returned before.
    seed : of the random beliefs.
    max_steps : iterations allowed to each method.
    distinct : two solutions are one where their populations differ by at most this in every state at every node.

    Returns
    -------
    tuple of Branch
        Ordered by the mean state at the end; empty where no start converged.

    Raises
    ------
    InputError : as `solve`, and for `starts` below 1.
    """
    if isinstance(starts, bool) or not isinstance(starts, int) or starts < 1:
        raise InputError(f"enumerate: starts is {starts!r}; a whole number of at least 1 is needed.")
    if tol is not None and not (np.isfinite(tol) and tol > 0):
        raise InputError(f"enumerate: tol is {tol!r}; a positive number is needed.")
    if max_steps is not None and (isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1):
        raise InputError(f"enumerate: max_steps is {max_steps!r}; a whole number of at least 1 is needed.")
    if not (np.isfinite(distinct) and distinct > 0):
        raise InputError(f"enumerate: distinct is {distinct!r}; a positive number is needed.")
    problem = build(game, params, mu0, grid, control)
    chosen = get_scheme(scheme)
    tolerance = default_tolerance(problem.mu0.dtype) if tol is None else float(tol)
    steps = MAX_STEPS["auto"] if max_steps is None else int(max_steps)
    distinct = max(distinct, 100 * tolerance)  # in single precision two ends of one search differ by the tolerance
    nodes = [tuple(_nodes(path, grid, problem) for path in _belief(guess)) for guess in guesses]
    beliefs = _reply(problem, chosen, jnp.asarray(_ends(problem.mu0.size, starts - 1, seed), problem.mu0.dtype))
    if nodes:
        mu, value = (jnp.stack([node[k] for node in nodes]) for k in (0, 1))
        beliefs = jnp.concatenate([beliefs[0], mu]), jnp.concatenate([beliefs[1], value])
    first = _solve(problem, None, "auto", chosen, tolerance, steps)
    found: list[tuple[Equilibrium, int]] = []
    lost = _collect(found, [first], distinct) + _collect(
        found, _many(problem, beliefs, "auto", chosen, tolerance, steps), distinct
    )
    if len(found) > 1:
        pairs = [(a, b) for k, (a, _) in _count(found) for b, _ in found[:k]]
        blends = [
            tuple(((1 - share) * x + share * y).T for x, y in zip(a.nodes, b.nodes, strict=True))
            for a, b in pairs
            for share in BETWEEN
        ]
        between = jnp.stack([mu for mu, _ in blends]), jnp.stack([u for _, u in blends])
        _collect(found, _many(problem, between, "newton", chosen, tolerance, min(steps, NEWTON_STEPS)), distinct)
    log.info("enumerate: %d equilibria; %d of %d starts did not converge.", len(found), lost, 1 + len(beliefs[0]))
    ladder = np.arange(problem.mu0.size)
    found.sort(key=lambda pair: float(np.asarray(pair[0].mu[-1]) @ ladder))
    return tuple(_branch(game, eq, count) for eq, count in found)


def _belief(guess: Any) -> tuple[Any, Any]:
    """Populations and values of a guess."""
    guess = guess.equilibrium if isinstance(guess, Branch) else guess
    if isinstance(guess, Equilibrium):
        return guess.mu, guess.value
    if not isinstance(guess, tuple | list) or len(guess) != 2:
        raise InputError("enumerate: every guess must be a pair (mu, value), an equilibrium or a branch.")
    return guess[0], guess[1]


def _count(items: Sequence[Any]) -> Any:
    return zip(range(len(items)), items, strict=True)


def _ends(d: int, count: int, seed: int) -> np.ndarray:
    """Believed last populations `(count, d)`: one state each, while these last, then random ones."""
    corners = (
        np.eye(d)[np.unique(np.linspace(0, d - 1, min(d, (count + 1) // 2)).round().astype(int))] if count else np.zeros((0, d))
    )
    rng = np.random.default_rng(seed)
    return np.concatenate([corners, rng.dirichlet(np.full(d, 0.5), count - len(corners))])


def _nodes(path: Any, grid: TimeGrid, problem: Problem) -> Array:
    shape = (grid.points, problem.mu0.size)
    if np.shape(path) != shape:
        raise InputError(f"enumerate: a guess has an array of shape {np.shape(path)}; {shape} is needed.")
    dtype = problem.mu0.dtype
    return (jnp.asarray(grid.interpolation, dtype) @ jnp.asarray(path, dtype)).T


@eqx.filter_jit
def _reply(problem: Problem, scheme: Scheme, ends: Array) -> Pair:
    """For every believed end, a population that goes there evenly and the value that answers it, `(K, d, M + 1)` each."""
    share = jnp.linspace(0.0, 1.0, problem.grid.intervals + 1, dtype=ends.dtype)

    def one(end: Array) -> Pair:
        mu = problem.mu0[:, None] * (1.0 - share) + end[:, None] * share
        u = jnp.broadcast_to(problem.terminal_cost(end)[:, None], mu.shape)
        for _ in range(REPLIES):
            (_, u), _ = scheme.sweep(problem, mu, u)
        return mu, u

    return jax.vmap(one)(ends)


def _many(problem: Problem, starts: Pair, method: str, scheme: Scheme, tolerance: float, steps: int) -> list[Equilibrium]:
    """Solutions from several starts `(K, d, M + 1)`."""
    if not len(starts[0]):
        return []
    batch = _solve_all(problem, starts, method, scheme, tolerance, steps)
    return [jax.tree.map(lambda x, k=k: x[k] if eqx.is_array(x) else x, batch) for k in range(len(starts[0]))]


@eqx.filter_jit
def _solve_all(problem: Problem, starts: Pair, method: str, scheme: Scheme, tolerance: float, steps: int) -> Equilibrium:
    # One after the other: side by side, all wait for the slowest, and Newton's blocks of all starts have to fit into memory at once.
    rest: list[Any] = []  # what is no array, such as a plain function among the parameters, is the same for all

    def one(start: Pair) -> Any:
        arrays, other = eqx.partition(_solve(problem, start, method, scheme, tolerance, steps), eqx.is_array)
        rest.append(other)
        return arrays

    arrays = lax.map(one, starts)
    return eqx.combine(arrays, rest[0])


def _collect(found: list[tuple[Equilibrium, int]], solutions: Sequence[Equilibrium], distinct: float) -> int:
    """Add what is new among converged solutions; the number that did not converge."""
    lost = 0
    for eq in solutions:
        if not bool(eq.converged):
            lost += 1
            continue
        for k, (old, count) in _count(found):
            if float(jnp.max(jnp.abs(old.nodes[0] - eq.nodes[0]))) <= distinct:
                found[k] = (old, count + 1)
                break
        else:
            found.append((eq, 1))
    return lost


def _branch(game: Game, eq: Equilibrium, starts: int) -> Branch:
    radius = spectral_radius(eq)
    gain = float("nan") if eq.problem.control else float(exploitability(game, eq))
    return Branch(eq, float(eq.residual), gain, radius, radius < 1.0, starts)


def spectral_radius(equilibrium: Equilibrium) -> float:
    """Spectral radius of the best-response map at an equilibrium: how strongly it attracts (below 1) or repels beliefs.

    The map takes a population path to the value that answers it and on to the population that follows; both halves are linear here and solved
    exactly, so that the figure belongs to the discrete game and not to any iteration.

    Parameters
    ----------
    equilibrium : a converged solution (not a batch).

    Returns
    -------
    float
        Zero where nobody's costs or rates depend on the population; NaN where the solve failed or the eigenvalue was not found.
    """
    if not bool(equilibrium.converged):
        return float("nan")
    mu, value = (x.T for x in equilibrium.nodes)
    apply = _best_response_map(equilibrium.problem, equilibrium.scheme, mu, value)
    size = mu.size

    def matvec(x: np.ndarray) -> np.ndarray:
        return np.asarray(apply(jnp.asarray(x.reshape(mu.shape), mu.dtype)), float).reshape(-1)

    start = np.random.default_rng(0).standard_normal(size)
    if not np.any(np.abs(matvec(matvec(start))) > 1e-12):
        return 0.0
    try:
        found = eigs(LinearOperator((size, size), matvec=matvec, dtype=float), k=1, v0=start, return_eigenvectors=False, tol=1e-6)
    except ArpackNoConvergence as stopped:
        found = stopped.eigenvalues
    return float(np.abs(found).max()) if len(found) else float("nan")


def _best_response_map(problem: Problem, scheme: Scheme, mu: Array, value: Array) -> Any:
    """The linear map `dmu -> du -> dmu` on all nodes, `(d, M + 1)`."""
    blocks = _linearise(problem, scheme, mu, value)
    return lambda d_mu: _answered(blocks, d_mu)


@jax.jit
def _answered(blocks: Linearisation, d_mu: Array) -> Array:
    """The population's answer to the value's answer to a change of the population; compiled once for all games of one shape."""
    d = d_mu.shape[0]
    values, populations = slice(d, 2 * d), slice(0, d)

    def only(rows: slice) -> Linearisation:
        keep = jnp.zeros(2 * d).at[rows].set(1.0).astype(d_mu.dtype)
        mask = keep[:, None, None] * keep[None, :, None]
        return Linearisation(blocks.left * mask, blocks.right * mask, jnp.zeros_like(blocks.terminal))

    def into(rows: slice, columns: slice, x: Array) -> Array:
        left, right = blocks.left[rows, columns], blocks.right[rows, columns]
        return jnp.einsum("ijm,jm->im", left, x[:, :-1]) + jnp.einsum("ijm,jm->im", right, x[:, 1:])

    asked = jnp.concatenate([into(values, populations, d_mu), (blocks.terminal @ d_mu[:, -1])[:, None]], axis=1)
    _, d_u = factorise(only(values))((jnp.zeros_like(d_mu), asked))
    moved = jnp.concatenate([jnp.zeros((d, 1), d_mu.dtype), into(populations, values, d_u)], axis=1)
    return factorise(only(populations))((moved, jnp.zeros_like(d_mu)))[0]


@eqx.filter_jit
def _linearise(problem: Problem, scheme: Scheme, mu: Array, value: Array) -> Linearisation:
    return scheme.linearise(problem, mu, value)
