"""Solve a game for its equilibrium, with exact derivatives."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from bayes_mfg.errors import InputError
from bayes_mfg.games.base import Game

from . import adjoint, methods
from .blocks import factorise, transpose_of
from .grid import TimeGrid
from .problem import Problem, build
from .schemes import Pair, Scheme, get_scheme, residual
from .status import Code, Status

log = logging.getLogger(__name__)

MAX_STEPS = {"auto": 60, "newton": 60, "anderson": 200, "picard": 2000}


class Equilibrium(eqx.Module):
    """An equilibrium on the grid points; a pytree, so that it passes through `jit` and `vmap`.

    Attributes
    ----------
    mu : population `(T, d)`; NaN where the solve failed.
    value : cost-to-go `(T, d)`; NaN where the solve failed.
    rates : transition rates under the best response `(T, d, d)`.
    status : how the solve ended, with a sentence in `status.message`.
    residual : largest defect of the discrete equations, relative to max(1, |value|).
    iterations : `(3,)`, iterations of picard, anderson and newton.
    nodes : population and value on all solver nodes, each `(M + 1, d)`.
    problem : game, parameters and initial population as solved.
    grid : the time grid.
    scheme : the time scheme.
    tolerance : the residual asked for.
    """

    mu: Array
    value: Array
    rates: Array
    status: Status
    residual: Array
    iterations: Array
    nodes: tuple[Array, Array]
    problem: Problem
    grid: TimeGrid = eqx.field(static=True)
    scheme: Scheme = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    @property
    def times(self) -> np.ndarray:
        """Grid points `(T,)`."""
        return self.grid.times

    @property
    def converged(self) -> Array:
        """Whether the residual is below the tolerance."""
        return self.status.converged


def default_tolerance(dtype: Any) -> float:
    """Residual asked for by default: 1e-11 in double, 1e-5 in single precision."""
    return 1e-11 if jnp.finfo(dtype).bits >= 64 else 1e-5


def solve(
    game: Game,
    params: Mapping[str, Any],
    mu0: Any,
    grid: TimeGrid,
    *,
    method: str = "auto",
    scheme: str | Scheme = "exponential",
    control: bool = False,
    tol: float | None = None,
    max_steps: int | None = None,
    guess: tuple[Array, Array] | None = None,
) -> Equilibrium:
    """Find the equilibrium of a finite-state mean field game.

    Differentiable in forward and reverse mode and to any order with respect to `params` (arrays, and whatever functions carry), `mu0` and the
    game's constants, through the implicit function theorem; works under `jit`, `vmap` and `grad`. A solve that fails gives NaN, with NaN
    derivatives, and a status that says why.

    Parameters
    ----------
    game : the game.
    params : for each parameter a constant, an array with leading axis `(T,)`, or a function `(t, mu) -> value` that is evaluated inside the
        fixed point.
    mu0 : initial population `(d,)`.
    grid : time grid with `T` points.
    method : "auto" (Anderson sweeps, then Newton; then damped marches from the start and Newton again; then Newton from where it was stopped),
        "newton", "anderson" or "picard".
    scheme : "exponential" (second order, positive, conservative) or "paper" (explicit Euler), or a `Scheme`.
    control : mean field control: a social planner chooses for everybody, and `value` is the planner's adjoint, in which agents also
        count what they cost others.
    tol : residual to reach, relative to max(1, |value|); by default 1e-11 in double and 1e-5 in single precision.
    max_steps : iterations allowed to each method; to Newton, in "auto", each of up to three times.
    guess : starting `(mu, value)`, each `(T, d)`; by default flat.

    Returns
    -------
    Equilibrium

    Raises
    ------
    InputError : for unknown methods, schemes and parameters, and for wrong shapes.
    """
    if method not in MAX_STEPS:
        raise InputError(f"Unknown method {method!r}; choose one of {', '.join(MAX_STEPS)}.")
    if not isinstance(control, bool):
        raise InputError(f"control is {control!r}; True or False is needed.")
    problem = build(game, params, mu0, grid, control)
    chosen = get_scheme(scheme)
    tolerance = default_tolerance(problem.mu0.dtype) if tol is None else float(tol)
    if tol is None and tolerance > 1e-11:
        log.info("mu0 is in single precision: the residual asked for is %.0e.", tolerance)
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tol is {tol!r}; a positive number is needed.")
    steps = MAX_STEPS[method] if max_steps is None else int(max_steps)
    if steps < 1:
        raise InputError(f"max_steps is {max_steps!r}; a whole number of at least 1 is needed.")
    start = None
    if guess is not None:
        if any(np.shape(part) != (grid.points, game.n_states) for part in guess):
            raise InputError(f"guess must hold two arrays of shape {(grid.points, game.n_states)}.")
        parts = [jnp.asarray(part, problem.mu0.dtype) for part in guess]
        if grid.substeps > 1:
            interpolation = jnp.asarray(grid.interpolation, problem.mu0.dtype)
            parts = [interpolation @ part for part in parts]
        start = parts[0].T, parts[1].T
    return _solve(problem, start, method, chosen, tolerance, steps)


@eqx.filter_jit
def _solve(
    problem: Problem, start: tuple[Array, Array] | None, method: str, scheme: Scheme, tolerance: float, max_steps: int
) -> Equilibrium:
    slack = max(1e-6, 10 * tolerance)
    numbers, rest = eqx.partition(problem, eqx.is_inexact_array)

    def found(numbers: Problem, start: tuple[Array, Array] | None) -> tuple[Array, Array, dict[str, Array]]:
        """Population and value on all nodes, and a report of the solve."""
        problem = eqx.combine(numbers, rest)
        state = methods.start(scheme, problem, start)
        state = methods.METHODS[method](scheme, problem, state, tol=tolerance, max_steps=max_steps)
        u = state.z[1]
        mu = scheme.finish(problem, *state.z)
        size = methods.size_of(residual(scheme, problem, mu, u), u, state.unit)
        # The last forward pass restores sign and mass to rounding; where it costs accuracy the iterate itself is kept.
        keep = (size <= jnp.maximum(tolerance, state.size)) & jnp.isfinite(size)
        mu = jnp.where(keep, mu, state.z[0])
        size = jnp.where(keep, size, state.size)
        sweeps = {"picard": 0, "anderson": 1}.get(method)
        lost = sweeps is not None and state.steps[sweeps] < max_steps
        ended = jnp.where(lost, Code.DIVERGED, Code.MAX_STEPS)
        code = jnp.where(
            size <= tolerance,
            Code.CONVERGED,
            jnp.where(~jnp.isfinite(size), Code.NOT_FINITE, jnp.where(state.stalled, Code.STALLED, ended)),
        )
        # An explicit scheme can reproduce its own recursion exactly while shares explode.
        mass = jnp.sum(problem.mu0)
        outside = ~((jnp.min(mu) >= -slack) & (jnp.max(jnp.abs(jnp.sum(mu, axis=0) - mass)) <= slack))
        nodes = jnp.asarray(problem.grid.fine_times, mu.dtype)
        moving, inside = problem.admissible(nodes, u, mu)
        someone = (jnp.min(problem.mu0) >= -slack) & (jnp.abs(mass - 1.0) <= 1e-5)
        # An iterate that solves the equations is an equilibrium only where all of these hold; the last that does not is reported.
        for holds, otherwise in (
            (moving, Code.NEGATIVE_RATES),
            (inside, Code.OUT_OF_RANGE),
            (~outside, Code.OFF_SIMPLEX),
            (someone, Code.NO_DISTRIBUTION),
        ):
            solved = (size <= tolerance) & jnp.isfinite(size)
            code = jnp.where(solved & ~holds, otherwise, code)
        failed = code != Code.CONVERGED
        report = {"code": code, "residual": size, "iterations": state.steps}
        return jnp.where(failed, jnp.nan, mu), jnp.where(failed, jnp.nan, u), report

    @jax.custom_jvp
    def equilibrium(numbers: Problem, start: tuple[Array, Array] | None) -> tuple[Array, Array, dict[str, Array]]:
        return found(numbers, start)

    @equilibrium.defjvp
    def implicit(primals: tuple, tangents: tuple) -> tuple:
        """Implicit function theorem on the residual: `R'(z) dz = -dR`, solved by elimination of blocks or, transposed with large ones, by sweeps.

        The root does not depend on where the search for it began.
        """
        (numbers, start), (d_numbers, _) = primals, tangents
        mu, u, report = equilibrium(numbers, start)
        _, push = jax.jvp(lambda n: residual(scheme, eqx.combine(n, rest), mu, u), (numbers,), (d_numbers,))
        problem = eqx.combine(numbers, rest)
        fixed_numbers, fixed_mu, fixed_u = jax.tree.map(lax.stop_gradient, (numbers, mu, u))
        fixed = eqx.combine(fixed_numbers, rest)

        def elimination() -> Callable[[Pair], Pair]:
            return factorise(scheme.linearise(fixed, fixed_mu, fixed_u))

        if mu.shape[0] > adjoint.ELIMINATED:

            def forwards(_: Any, b: Pair) -> Pair:
                return elimination()(b)

            def backwards(_: Any, b: Pair) -> Pair:
                return adjoint.by_sweeps(scheme, fixed, fixed_mu, fixed_u, b)
        else:
            direct = elimination()

            def forwards(_: Any, b: Pair) -> Pair:
                return direct(b)

            def backwards(_: Any, b: Pair) -> Pair:
                return transpose_of(direct, b)(b)

        def matvec(z: tuple[Array, Array]) -> tuple[Array, Array]:
            return jax.jvp(lambda m, v: residual(scheme, problem, m, v), (mu, u), z)[1]

        # JAX transposes the solve only where every part of its right-hand side depends on the tangents; costs alone move the value's part only.
        nothing = 0.0 * (push[0][0, 0] + push[1][0, 0])
        rhs = jax.tree.map(lambda r: nothing - r, push)
        d_mu, d_u = lax.custom_linear_solve(matvec, rhs, solve=forwards, transpose_solve=backwards)
        zeros = {
            name: jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.inexact) else np.zeros(x.shape, jax.dtypes.float0)
            for name, x in report.items()
        }
        return (mu, u, report), (d_mu, d_u, zeros)

    mu, u, report = equilibrium(numbers, start)
    grid = problem.grid
    coarse = slice(None, None, grid.substeps)
    nodes = mu.T, u.T
    mu, u = mu[:, coarse], u[:, coarse]
    arrays = {name: a[..., coarse] for name, a in problem.arrays.items()}
    rates, _ = problem.generators(jnp.asarray(grid.times, mu.dtype), u, mu, arrays)
    rates = jnp.where(report["code"] == Code.CONVERGED, rates, jnp.nan)
    return Equilibrium(
        mu.T,
        u.T,
        jnp.moveaxis(rates, -1, 0),
        Status(report["code"]),
        report["residual"],
        report["iterations"],
        nodes,
        problem,
        grid,
        scheme,
        tolerance,
    )
