"""Adjoint equations of an equilibrium by sweeps: what direct elimination does, where blocks are large.

Eliminating the equations of one interval takes the derivatives of its maps in `2d` directions, a sweep through all intervals in one. Krylov's
method needs about as many sweeps as the equilibrium took, whatever the number of states. The other way, from parameters to equilibria,
elimination stays: derivatives are then asked for in many directions at once, which share it.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.sparse.linalg import gmres

from .blocks import factorise, matvec, transpose_of
from .problem import Problem
from .schemes import Pair, Scheme, residual

ELIMINATED = 16
"""States up to which elimination is no slower (`python -m benchmarks.speed gradient --states 16`)."""

SWEEPS = 40
"""Sweeps after which elimination takes over."""


def _frozen(forward: Array, backward: Array, rhs: Pair) -> Pair:
    """`dmu[n+1] = F[n]' dmu[n] + r` and `du[n] = B[n] du[n+1] + r`: the equations at fixed rates, which uncouples them."""
    r_mu, r_u = rhs

    def forth(mu: Array, interval: Pair) -> Pair:
        p, r = interval
        mu = matvec(p.T, mu) + r
        return mu, mu

    def back(u: Array, interval: Pair) -> Pair:
        p, r = interval
        u = matvec(p, u) + r
        return u, u

    _, mu = lax.scan(forth, r_mu[:, 0], (jnp.moveaxis(forward, -1, 0), r_mu[:, 1:].T))
    _, u = lax.scan(back, r_u[:, -1], (jnp.moveaxis(backward, -1, 0), r_u[:, :-1].T), reverse=True)
    return jnp.concatenate([r_mu[:, :1], mu.T], axis=1), jnp.concatenate([u.T, r_u[:, -1:]], axis=1)


def by_sweeps(scheme: Scheme, problem: Problem, mu: Array, u: Array, rhs: Pair, tol: float) -> Pair:
    """Solve the transposed linearised equations, `R'(z)^T w = rhs`, all `(d, M + 1)`.

    GMRES, preconditioned by the transposed equations at fixed rates: one forward and one backward pass.
    Where `SWEEPS` of these leave more than ten times `tol` of the right-hand side, blocks are eliminated instead. NaN stays NaN.
    """
    spread = jnp.max(jnp.max(u, axis=0) - jnp.min(u, axis=0))
    unit = jnp.where(spread > 0, spread, 1.0)
    _, pull = jax.vjp(lambda z: residual(scheme, problem, *z), (mu, u))
    transitions = scheme.transitions(problem, mu, u)
    sweep = transpose_of(lambda r: _frozen(*transitions, r), (mu, u))

    # Populations and values have units of their own; with values counted in `unit` one norm holds both.
    def scaled(z: Pair) -> Pair:
        return z[0], z[1] * unit

    def natural(z: Pair) -> Pair:
        return z[0], z[1] / unit

    def equations(w: Pair) -> Pair:
        return scaled(pull(natural(w))[0])

    def size(r: Pair) -> Array:
        return jnp.sqrt(jnp.sum(r[0] ** 2) + jnp.sum(r[1] ** 2))

    wanted = scaled(rhs)
    found, _ = gmres(equations, wanted, tol=tol, restart=SWEEPS, maxiter=1, M=sweep, solve_method="incremental")
    asked, left = size(sweep(wanted)), size(sweep(jax.tree.map(jnp.subtract, wanted, equations(found))))
    # GMRES takes a residual that is no number for none at all, and answers zero.
    numbers = jnp.isfinite(asked + jnp.sum(mu) + jnp.sum(u))
    found = jax.tree.map(lambda w: jnp.where(numbers, w, jnp.nan), found)
    lost = numbers & ~(left <= 10.0 * tol * asked)

    # In a batch the body of a loop runs only while one of its members asks for it; both branches of a `cond` would. What a body leaves as it was
    # XLA computes with ahead of the loop, asked or not; hence `at`, which is put to no use once it is changed.
    def eliminate(carry: tuple[Array, Pair, Pair]) -> tuple[Array, Pair, Pair]:
        _, at, _ = carry
        w = transpose_of(factorise(scheme.linearise(problem, *at)), rhs)(rhs)
        return jnp.zeros((), bool), w, w

    return lax.while_loop(lambda carry: carry[0], eliminate, (lost, (mu, u), natural(found)))[2]
