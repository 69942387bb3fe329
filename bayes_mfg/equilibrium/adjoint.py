"""Adjoint equations of an equilibrium by sweeps: what direct elimination does, where blocks are large.

Eliminating the equations of one interval takes the derivatives of its maps in `2d` directions, a sweep through all intervals in one. Krylov's
method needs about as many sweeps as the equilibrium took, whatever the number of states. The other way, from parameters to equilibria,
elimination stays: derivatives are then asked for in many directions at once, which share it. A Hessian takes sweeps for each direction.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.sparse.linalg import gmres

from .blocks import backward_recursion, factorise, forward_recursion, transpose_of
from .problem import Problem
from .schemes import Pair, Scheme, residual

ELIMINATED = 16
"""States up to which elimination is no slower (`python -m benchmarks.speed gradient --states 16`)."""

SWEEPS = 40
"""Sweeps after which elimination takes over."""


def _at_fixed_rates(forward: Array, backward: Array, rhs: Pair) -> Pair:
    """`dmu[n+1] = F[n]' dmu[n] + r` and `du[n] = B[n] du[n+1] + r`: the linearised equations at fixed rates, which uncouples them."""
    r_mu, r_u = rhs
    return forward_recursion(forward, r_mu[:, 0], r_mu[:, 1:]), backward_recursion(backward, r_u[:, :-1], r_u[:, -1])


def by_sweeps(scheme: Scheme, problem: Problem, mu: Array, u: Array, rhs: Pair) -> Pair:
    """Solve the transposed linearised equations, `R'(z)^T w = rhs`, all `(d, M + 1)`.

    GMRES, preconditioned by the transposed equations at fixed rates: one forward and one backward pass. Where `SWEEPS` of these leave of either
    part of the answer more than 1e-10 of its own norm (1e-5 in single precision), blocks are eliminated instead. NaN stays NaN.
    """
    tol = 1e-11 if jnp.finfo(u.dtype).bits >= 64 else 1e-6
    _, pull = jax.vjp(lambda z: residual(scheme, problem, *z), (mu, u))
    transitions = scheme.transitions(problem, mu, u)
    sweep = transpose_of(lambda r: _at_fixed_rates(*transitions, r), (mu, u))

    def minus(a: Pair, b: Pair) -> Pair:
        return a[0] - b[0], a[1] - b[1]

    def sizes(w: Pair) -> Pair:
        return jnp.linalg.norm(w[0]), jnp.linalg.norm(w[1])

    def times(w: Pair, by: Pair) -> Pair:
        return w[0] * by[0], w[1] * by[1]

    # What follows population and value have units of their own. One norm does for both where the answer to the first sweeps is one in either part.
    largest = jnp.maximum(jnp.max(jnp.abs(rhs[0])), jnp.max(jnp.abs(rhs[1])))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0)
    wanted = rhs[0] / scale, rhs[1] / scale
    first = sweep(wanted)
    second = minus(first, sweep(minus(pull(first)[0], wanted)))
    of_mu, of_u = (jnp.where((n > 0) & jnp.isfinite(n), n, 1.0) for n in sizes(second))
    units, inverse = (of_mu, of_u), (1.0 / of_mu, 1.0 / of_u)

    def equations(w: Pair) -> Pair:
        return pull(times(w, units))[0]

    def preconditioner(r: Pair) -> Pair:
        return times(sweep(r), inverse)

    found, _ = gmres(equations, wanted, tol=tol, restart=SWEEPS, maxiter=1, M=preconditioner, solve_method="incremental")
    left, whole = sizes(preconditioner(minus(wanted, equations(found)))), sizes(found)
    # GMRES takes a residual that is no number for none at all, and answers zero.
    numbers = jnp.isfinite(jnp.sum(rhs[0]) + jnp.sum(rhs[1]) + jnp.sum(mu) + jnp.sum(u))
    answer = jax.tree.map(lambda w: jnp.where(numbers, w * scale, jnp.nan), times(found, units))
    lost = numbers & ~((left[0] <= 10.0 * tol * whole[0]) & (left[1] <= 10.0 * tol * whole[1]))

    # In a batch the body of a loop runs only while one of its members asks for it; both branches of a `cond` would. What a body leaves as it was
    # XLA computes with ahead of the loop, asked or not; hence `at`, which is put to no use once it is changed.
    def eliminate(carry: tuple[Array, Pair, Pair]) -> tuple[Array, Pair, Pair]:
        _, at, _ = carry
        w = transpose_of(factorise(scheme.linearise(problem, *at)), rhs)(rhs)
        return jnp.zeros((), bool), w, w

    return lax.while_loop(lambda carry: carry[0], eliminate, (lost, (mu, u), answer))[2]
