"""Small dense linear algebra over many time intervals at once.

Matrices are stored with the interval axis last, `(d, d, M)`: products are then sums of elementwise products over long contiguous
rows, which XLA fuses and vectorises; calls into LAPACK for thousands of 3 x 3 blocks cost ten to a hundred times the arithmetic.
Above `LIBRARY` rows blocks are large enough for library calls.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

LIBRARY = 8
"""Rows above which products and inverses are left to a library."""


def matmul(a: Array, b: Array) -> Array:
    """Product of two matrices `(p, q) x (q, r)`, or of two stacks of them, `(p, q, M) x (q, r, M) -> (p, r, M)`."""
    inner = a.shape[1]
    if inner > LIBRARY:
        return a @ b if a.ndim == 2 else jnp.einsum("ijm,jkm->ikm", a, b)
    return functools.reduce(jnp.add, (a[:, k, None] * b[None, k] for k in range(inner)))


def matvec(a: Array, x: Array) -> Array:
    """Product of a matrix with a vector, `(p, q) x (q,)`, or of a stack of matrices with one of vectors, `(p, q, M) x (q, M) -> (p, M)`."""
    if a.ndim == 2 and a.shape[1] > LIBRARY:
        return a @ x
    return jnp.sum(a * x[None], axis=1)


def _small_inverse(a: Array) -> Array:
    """Inverse of one `(k, k)` matrix that is close to the identity.

    Small blocks: Gauss-Jordan without pivoting, as elementwise arithmetic; the caller's residual test guards its accuracy. Large: LU with pivoting.
    """
    k = a.shape[0]
    if k > LIBRARY:
        return jnp.linalg.inv(a)
    eye = jnp.eye(k, dtype=a.dtype)
    both = jnp.concatenate([a, eye], axis=1)
    for p in range(k):
        row = both[p] / both[p, p]
        both = both - (both[:, p] - eye[p])[:, None] * row[None, :]
    return both[:, k:]


def backward_recursion(p: Array, c: Array, last: Array) -> Array:
    """`u[n] = P[n] u[n+1] + c[n]` from `u[M] = last`; `p (d, d, M)`, `c (d, M)`; returns `(d, M + 1)`."""

    def step(u: Array, interval: tuple[Array, Array]) -> tuple[Array, Array]:
        p_n, c_n = interval
        u = matvec(p_n, u) + c_n
        return u, u

    _, path = lax.scan(step, last, (jnp.moveaxis(p, -1, 0), c.T), reverse=True)
    return jnp.concatenate([path.T, last[:, None]], axis=1)


def forward_recursion(p: Array, first: Array, c: Array | None = None) -> Array:
    """`mu[n+1] = P[n]' mu[n] + c[n]` from `mu[0] = first`; `p (d, d, M)`, `c (d, M)` or nothing; returns `(d, M + 1)`."""

    def step(mu: Array, interval: tuple[Array, Array | None]) -> tuple[Array, Array]:
        p_n, c_n = interval
        mu = matvec(p_n, mu)
        mu = mu if c_n is None else mu + c_n
        return mu, mu

    _, path = lax.scan(step, first, (jnp.transpose(p, (2, 1, 0)), None if c is None else c.T))
    return jnp.concatenate([first[:, None], path.T], axis=1)


class Linearisation(NamedTuple):
    """Derivative of the local maps `(mu[n], u[n], mu[n+1], u[n+1]) -> (mu[n+1], u[n])` and of the terminal cost.

    `left` and `right` are `(2d, 2d, M)`: rows are the outputs `(mu[n+1], u[n])`, columns `(mu, u)` at the left and at the right end of
    the interval. `terminal (d, d)` is the derivative of the terminal cost with respect to the last population.
    """

    left: Array
    right: Array
    terminal: Array


def factorise(blocks: Linearisation) -> Callable[[tuple[Array, Array]], tuple[Array, Array]]:
    """Eliminate the block-tridiagonal system `z - map'(z) z = r` once; return the solve for any right-hand side.

    Backward in time, `du[n] = X[n] dmu[n] + x[n]` is kept as a linear feedback; forward in time, the populations follow. Own derivation:
    substitute the feedback at `n + 1` into the two equations of interval `n` and solve the `2d x 2d` system for `(dmu[n+1], du[n])`.
    The returned function takes and returns `(dmu, du)`, each `(d, M + 1)`, and is linear, so that JAX can transpose it.
    """
    d = blocks.terminal.shape[0]
    left = jnp.moveaxis(blocks.left, -1, 0)
    right = jnp.moveaxis(blocks.right, -1, 0)
    eye = jnp.eye(2 * d, dtype=left.dtype)

    def eliminate(x: Array, interval: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array, Array]]:
        a, b = interval
        own = b[:, :d] + matmul(b[:, d:], x)
        inverse = _small_inverse(eye - jnp.concatenate([own, a[:, d:]], axis=1))
        gain = matmul(inverse, a[:, :d])
        return gain[d:], (inverse, gain[:d], gain[d:])

    _, (inverse, transfer, feedback) = lax.scan(eliminate, blocks.terminal, (left, right), reverse=True)
    feedback = jnp.concatenate([feedback, blocks.terminal[None]], axis=0)
    value_right = right[:, :, d:]

    def solve(rhs: tuple[Array, Array]) -> tuple[Array, Array]:
        r_mu, r_u = rhs

        def backward(x: Array, interval: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            inv_n, b_u, r_n = interval
            both = matvec(inv_n, r_n + matvec(b_u, x))
            return both[d:], (both[:d], both[d:])

        local = jnp.concatenate([r_mu[:, 1:], r_u[:, :-1]], axis=0).T
        _, (y, x) = lax.scan(backward, r_u[:, -1], (inverse, value_right, local), reverse=True)
        x = jnp.concatenate([x, r_u[:, -1][None]], axis=0)

        def forward(mu: Array, interval: tuple[Array, Array]) -> tuple[Array, Array]:
            transfer_n, y_n = interval
            mu = matvec(transfer_n, mu) + y_n
            return mu, mu

        _, mu = lax.scan(forward, r_mu[:, 0], (transfer, y))
        mu = jnp.concatenate([r_mu[:, 0][None], mu], axis=0)
        u = jnp.sum(feedback * mu[:, None, :], axis=2) + x
        return mu.T, u.T

    return solve


def transpose_of(
    solve: Callable[[tuple[Array, Array]], tuple[Array, Array]], example: tuple[Array, Array]
) -> Callable[[tuple[Array, Array]], tuple[Array, Array]]:
    """The transposed linear map, derived by JAX from the solve itself."""
    transposed = jax.linear_transpose(solve, example)
    return lambda rhs: transposed(rhs)[0]
