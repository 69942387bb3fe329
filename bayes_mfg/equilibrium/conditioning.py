"""How near an equilibrium is to one that vanishes: singular values of its discrete equations, and the games' monotonicity on pairs of populations."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bayes_mfg.errors import InputError

from .blocks import factorise
from .problem import Problem
from .schemes import Pair, Scheme
from .solve import Equilibrium

LANCZOS = 24
"""Steps of the Lanczos iteration; the largest singular value of an inverse is found to 1e-6 and better in far fewer."""


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """How far the linearised equations of an equilibrium are from singular.

    Attributes
    ----------
    smallest : singular value of the equations of the whole equilibrium. A solution is measured by its root mean square over time, populations as
        shares and values in units of their own spread over states and time; a defect of the dynamics by the root mean square of its rate, on a clock
        from 0 to 1, one of the start or of the terminal cost as it is: the figure belongs to the game and not to the grid. The solution moves by at
        most `1 / smallest` where the equations are off by one.
    margin : smallest singular value of `1 - K`, with `K` the best-response map linearised here (see `spectral_radius`): what is left of the equations
        with the value eliminated. Populations are measured by the mean square over time plus the square at the end, where the terminal cost looks at
        them. It is 1 where nobody's answer reaches the population; a disturbance of the population grows by a factor of at most `1 / margin` through
        agents' answers to one another.

    Both are 0 at a fold, where two equilibria meet and vanish, and nowhere else; `smallest` is small, too, where costs answer populations strongly
    and controls are at their bounds, so that nothing comes back, and `margin` tells these two apart.
    """

    smallest: float
    margin: float


def conditioning(equilibrium: Equilibrium) -> Conditioning:
    """Smallest singular values of the equilibrium's Jacobian, and of what is left of it with the value eliminated.

    Lanczos iteration with the factorised equations and their transpose, both exact. With `A` the population's equations given the value, `(1 - K)^-1
    x` is the population's part of the solution for the defects `(A x, 0)`.

    Parameters
    ----------
    equilibrium : a converged solution (not a batch).

    Returns
    -------
    Conditioning
        NaN where the solve failed.
    """
    if not bool(equilibrium.converged):
        return Conditioning(float("nan"), float("nan"))
    mu, value = (x.T for x in equilibrium.nodes)
    smallest, margin = _smallest(equilibrium.problem, equilibrium.scheme, mu, value)
    return Conditioning(float(smallest), float(margin))


def _weights(problem: Problem, value: Array) -> tuple[Pair, Pair]:
    """Square roots of the weights of solutions and of defects, each for population and value, `(M + 1,)`."""
    dt = np.diff(problem.grid.fine_times)
    share = dt / dt.sum()
    nodes = np.sqrt(0.5 * (np.append(share, 0.0) + np.insert(share, 0, 0.0)))
    spread = jnp.max(value) - jnp.min(value)
    unit = jnp.where(spread > 0, spread, 1.0)
    rate = 1.0 / np.sqrt(share)
    into_mu, into_u = np.insert(rate, 0, 1.0), np.append(rate, 1.0)
    return (jnp.asarray(nodes), jnp.asarray(nodes) / unit), (jnp.asarray(into_mu), jnp.asarray(into_u) / unit)


@eqx.filter_jit
def _smallest(problem: Problem, scheme: Scheme, mu: Array, value: Array) -> Pair:
    blocks = scheme.linearise(problem, mu, value)
    solve, shape, d = factorise(blocks), mu.shape, mu.shape[0]
    solution, defect = _weights(problem, value)
    here, across = blocks.left[:d, :d], blocks.right[:d, :d]
    size = jnp.sqrt(solution[0] ** 2 + jnp.zeros_like(solution[0]).at[-1].set(1.0))

    def whole(x: Array) -> Array:
        """Weighted defects to the weighted solution."""
        r = x.reshape(2, *shape)
        z = solve((r[0] / defect[0], r[1] / defect[1]))
        return jnp.stack([solution[0] * z[0], solution[1] * z[1]]).reshape(-1)

    def answered(x: Array) -> Array:
        """A disturbance of the population, to the population after all answers."""
        m = x.reshape(shape) / size
        carried = jnp.einsum("ijm,jm->im", here, m[:, :-1]) + jnp.einsum("ijm,jm->im", across, m[:, 1:])
        own = m - jnp.concatenate([jnp.zeros((d, 1), m.dtype), carried], axis=1)
        return (size * solve((own, jnp.zeros_like(own)))[0]).reshape(-1)

    return 1.0 / _norm(whole, 2 * mu.size, mu.dtype), 1.0 / _norm(answered, mu.size, mu.dtype)


def _norm(apply: Callable[[Array], Array], size: int, dtype: jnp.dtype) -> Array:
    """Largest singular value of a linear map."""
    transposed = jax.linear_transpose(apply, jnp.zeros(size, dtype))
    return jnp.sqrt(_largest(lambda x: transposed(apply(x))[0], size, dtype))


def _largest(apply: Callable[[Array], Array], size: int, dtype: jnp.dtype) -> Array:
    """Largest eigenvalue of a symmetric positive map, by Lanczos with full reorthogonalisation."""
    steps = min(LANCZOS, size)
    start = jnp.asarray(np.random.default_rng(0).standard_normal(size), dtype)
    basis = jnp.zeros((steps, size), dtype).at[0].set(start / jnp.linalg.norm(start))

    def step(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
        basis, images = carry
        image = apply(basis[k])
        rest = image - basis.T @ (basis @ image)
        rest = rest - basis.T @ (basis @ rest)
        length = jnp.linalg.norm(rest)
        # An exhausted space adds nothing.
        new = jnp.where(length > 1e-12 * jnp.linalg.norm(image), rest / jnp.where(length > 0, length, 1.0), 0.0)
        basis = jnp.where(k + 1 < steps, basis.at[jnp.minimum(k + 1, steps - 1)].set(new), basis)
        return (basis, images.at[k].set(image)), None

    (basis, images), _ = lax.scan(step, (basis, jnp.zeros_like(basis)), jnp.arange(steps))
    small = basis @ images.T
    return jnp.linalg.eigvalsh(0.5 * (small + small.T))[-1]


@dataclasses.dataclass(frozen=True)
class Monotonicity:
    """The least of the game's monotonicity terms over random pairs; negative where a pair violates it.

    Attributes
    ----------
    pairs : number of pairs of each kind.
    costs : at equal values, at the worst moment: that of the costs and of everything else that the population enters (Lasry and Lions).
    dynamics : at values that differ, too, at the worst moment.
    terminal : of the terminal cost.
    """

    pairs: int
    costs: float
    dynamics: float
    terminal: float

    @property
    def violated(self) -> bool:
        """Whether any pair violates it, beyond rounding."""
        return min(self.costs, self.dynamics, self.terminal) < -1e-9


def monotonicity(equilibrium: Equilibrium, *, pairs: int = 64, seed: int = 0) -> Monotonicity:
    """Monotonicity of a game at the parameters of an equilibrium, on random pairs of populations and values.

    With `H(x, u, mu)` the least of running cost and drift of the value, and `Q` the rates under the best response, two equilibria from one start obey

        <g(mu1) - g(mu2), mu1 - mu2>(T) + integral of L dt = 0,
        L = <H(u1, mu1) - H(u2, mu2), mu1 - mu2> - <u1 - u2, Q1' mu1 - Q2' mu2>,

    so that there is one equilibrium only where `L`, at every moment, and the terminal term are positive for all pairs that differ: two equilibria may
    be apart for a moment only, and an integral over pairs that stay apart could hide where `L` is negative. At equal values and with the
    population in the running cost alone, `L` is `<f(mu1) - f(mu2), mu1 - mu2>`, the condition of Lasry and Lions; where it enters the rates or the
    control's cost, `L` is what counts. Pairs of populations are drawn evenly from the simplex and stay the same over time, along the equilibrium's
    value and (`dynamics`) along values that differ from it by up to its spread. Figures are per squared distance, in units of the value's spread
    (and over the horizon, for `L`). A violation does not prove that there are several equilibria, and its absence on some pairs proves
    nothing.

    Own derivation: the derivative over time of `<u1 - u2, mu1 - mu2>`, after Lasry and Lions, Mean field games, Japan. J. Math. 2 (2007), and Gomes,
    Mohr and Souza, Continuous time finite state mean field games, Appl. Math. Optim. 68 (2013).

    Parameters
    ----------
    equilibrium : a converged solution (not a batch).
    pairs : number of pairs of each kind, at least 1.
    seed : of the pairs.

    Raises
    ------
    InputError : for a social planner's solution, for which it says nothing, one that did not converge, and less than one pair.
    """
    if equilibrium.problem.control:
        raise InputError(
            "monotonicity: this is a social planner's solution (control=True), which is an optimum and no equilibrium."
        )
    if isinstance(pairs, bool) or not isinstance(pairs, int) or pairs < 1:
        raise InputError(f"monotonicity: pairs is {pairs!r}; a whole number of at least 1 is needed.")
    if not bool(equilibrium.converged):
        raise InputError("monotonicity: the solve did not converge.")
    d = equilibrium.problem.mu0.size
    rng = np.random.default_rng(seed)
    mu = jnp.asarray(rng.dirichlet(np.ones(d), (pairs, 2)))
    moved = jnp.asarray(rng.uniform(-1.0, 1.0, (pairs, 2, d)))
    value = equilibrium.nodes[1].T
    least = _terms(equilibrium.problem, value, mu, moved)
    return Monotonicity(pairs, *(float(jnp.min(x)) for x in least))


@eqx.filter_jit
def _terms(problem: Problem, value: Array, mu: Array, moved: Array) -> tuple[Array, Array, Array]:
    """The three terms of every pair: at equal values, at values that differ, and of the terminal cost."""
    times = problem.grid.fine_times
    middles = jnp.asarray(0.5 * (times[:-1] + times[1:]), value.dtype)
    halfway = 0.5 * (value[:, :-1] + value[:, 1:])
    spread = jnp.max(value) - jnp.min(value)
    unit = jnp.where(spread > 0, spread, 1.0)
    horizon = float(times[-1] - times[0])

    def moment(t: Array, u: Array, m: Array, arrays: dict[str, Array]) -> Pair:
        rates, cost = problem.generator(t, u, m, arrays)
        gain = jnp.sum(rates * (u[None, :] - u[:, None]), axis=1)
        flow = m[:, None] * rates
        return cost + gain, jnp.sum(flow, axis=0) - jnp.sum(flow, axis=1)

    def along(m: Array, shift: Array) -> Pair:
        u = halfway + unit * shift[:, None]
        path = jnp.broadcast_to(m[:, None], u.shape)
        return jax.vmap(moment, in_axes=(0, -1, -1, -1), out_axes=-1)(middles, u, path, dict(problem.middles))

    def term(pair: Array, shifts: Array) -> Array:
        (h1, q1), (h2, q2) = along(pair[0], shifts[0]), along(pair[1], shifts[1])
        apart, other = pair[0] - pair[1], unit * (shifts[0] - shifts[1])
        each = apart @ (h1 - h2) - other @ (q1 - q2)
        size = jnp.sum(apart**2) + jnp.sum((other / unit) ** 2)
        return jnp.min(each) * horizon / (unit * size)

    def end(pair: Array) -> Array:
        apart = pair[0] - pair[1]
        return apart @ (problem.terminal_cost(pair[0]) - problem.terminal_cost(pair[1])) / (unit * jnp.sum(apart**2))

    still = jnp.zeros_like(moved)
    # One pair after the other: memory does not grow with their number.
    equal = lax.map(lambda x: term(*x), (mu, still))
    different = lax.map(lambda x: term(*x), (mu, moved))
    return equal, different, lax.map(end, mu)
