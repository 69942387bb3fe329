"""Block linear algebra: the elimination, its transpose, the products and the recursions against dense NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes_mfg.equilibrium import TimeGrid, adjoint
from bayes_mfg.equilibrium.blocks import backward_recursion, factorise, forward_recursion, matmul, matvec, transpose_of
from bayes_mfg.equilibrium.problem import build
from bayes_mfg.equilibrium.schemes import get_scheme, residual
from bayes_mfg.games import LinearQuadratic

INTERVALS = 8


def _point(d: int, scheme: str) -> tuple:
    """Scheme, problem, a random point off its solution, `(mu, u)`, and a right-hand side."""
    rng = np.random.default_rng(d)
    game = LinearQuadratic(d, congestion=3.0, terminal_congestion=2.0, destination_congestion=0.5)
    # Unequal steps and a moving gamma, so that no two blocks are alike.
    grid = TimeGrid.from_times(np.cumsum(rng.uniform(0.02, 0.06, INTERVALS + 1)))
    problem = build(game, {"gamma": np.linspace(1.0, 2.0, INTERVALS + 1)}, np.full(d, 1.0 / d), grid)
    mu = jnp.asarray(rng.dirichlet(np.full(d, 5.0), INTERVALS + 1).T)
    u = jnp.asarray(rng.normal(size=(d, INTERVALS + 1)))
    return get_scheme(scheme), problem, (mu, u), (jnp.asarray(rng.normal(size=mu.shape)), jnp.asarray(rng.normal(size=mu.shape)))


@functools.cache
def _system(d: int, scheme: str) -> tuple:
    """Right-hand side, dense Jacobian of the residual by JAX, and the block solves."""
    chosen, problem, (mu, u), rhs = _point(d, scheme)
    size = mu.size

    def flat_residual(z: jax.Array) -> jax.Array:
        parts = residual(chosen, problem, z[:size].reshape(mu.shape), z[size:].reshape(mu.shape))
        return jnp.concatenate([part.reshape(-1) for part in parts])

    @jax.jit
    def everything(mu: jax.Array, u: jax.Array, rhs: tuple) -> tuple:
        dense = jax.jacobian(flat_residual)(jnp.concatenate([mu.reshape(-1), u.reshape(-1)]))
        solve = factorise(chosen.linearise(problem, mu, u))
        return dense, solve(rhs), transpose_of(solve, rhs)(rhs)

    return rhs, *everything(mu, u, rhs)


def _flat(pair: tuple) -> np.ndarray:
    return np.concatenate([np.asarray(part).reshape(-1) for part in pair])


@pytest.mark.parametrize("scheme", ["exponential", "paper"])
@pytest.mark.parametrize("d", [3, 6, 10])
def test_elimination_is_the_dense_solve(d: int, scheme: str) -> None:
    """Newton's direction and the implicit derivative solve `J z = r` for the true Jacobian of the residual."""
    rhs, dense, direct, _ = _system(d, scheme)
    expected = np.linalg.solve(dense, _flat(rhs))
    assert np.abs(_flat(direct) - expected).max() <= 1e-11 * np.abs(expected).max()


@pytest.mark.parametrize("scheme", ["exponential", "paper"])
@pytest.mark.parametrize("d", [3, 6, 10])
def test_transposed_elimination_is_the_dense_transposed_solve(d: int, scheme: str) -> None:
    """Reverse mode solves `J' z = r` with the same factorisation."""
    rhs, dense, _, transposed = _system(d, scheme)
    expected = np.linalg.solve(np.asarray(dense).T, _flat(rhs))
    assert np.abs(_flat(transposed) - expected).max() <= 1e-11 * np.abs(expected).max()


def _swept(d: int, scheme: str, spread: float = 1.0, by: float = 1.0, only: int | None = None) -> float:
    """Relative error of the adjoint by sweeps, the larger of its two parts, at values of a given spread."""
    chosen, problem, (mu, u), rhs = _point(d, scheme)
    u, size = u * spread, mu.size
    some = tuple(by * (r if only in (None, k) else 0.0 * r) for k, r in enumerate(rhs))

    def flat_residual(z: jax.Array) -> jax.Array:
        parts = residual(chosen, problem, z[:size].reshape(mu.shape), z[size:].reshape(mu.shape))
        return jnp.concatenate([part.reshape(-1) for part in parts])

    dense = np.asarray(jax.jit(jax.jacobian(flat_residual))(jnp.concatenate([mu.reshape(-1), u.reshape(-1)])))
    found = jax.jit(lambda mu, u, r: adjoint.by_sweeps(chosen, problem, mu, u, r))(mu, u, some)
    expected = np.linalg.solve(dense.T, _flat(some))
    return max(
        np.abs(a - b).max() / np.abs(b).max() for a, b in zip(np.split(_flat(found), 2), np.split(expected, 2), strict=True)
    )


@pytest.mark.parametrize(("d", "scheme"), [(3, "exponential"), (3, "paper"), (10, "exponential")])
def test_adjoint_by_sweeps_is_the_dense_transposed_solve(d: int, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps solve `J' z = r`, too, and without eliminating anything."""
    monkeypatch.setattr(adjoint, "factorise", lambda blocks: lambda rhs: jax.tree.map(lambda r: r * jnp.nan, rhs))
    assert _swept(d, scheme) <= 1e-9


@pytest.mark.parametrize(("spread", "by", "only"), [(1e-12, 1.0, 0), (1e-12, 1.0, 1), (1.0, 1e-200, None), (1.0, 1e200, None)])
def test_adjoint_by_sweeps_knows_no_scale(spread: float, by: float, only: int | None) -> None:
    """Agents who are all but indifferent, and cotangents however small or large: each part of the answer is right by its own measure."""
    assert _swept(3, "exponential", spread, by, only) <= 1e-9


def test_where_sweeps_do_not_come_near_blocks_are_eliminated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adjoint, "SWEEPS", 2)
    assert _swept(3, "exponential") <= 1e-10


@pytest.mark.parametrize("scheme", ["exponential", "paper"])
def test_transitions_are_what_a_sweep_does(scheme: str) -> None:
    """They bring the population on, and, by the envelope theorem for the explicit steps, are the derivative of the value by the next one."""
    chosen, problem, (mu, u), (_, direction) = _point(3, scheme)
    forward, backward = chosen.transitions(problem, mu, u)
    np.testing.assert_allclose(matvec(jnp.swapaxes(forward, 0, 1), mu[:, :-1]), chosen.local_maps(problem, mu, u)[0], atol=1e-13)
    np.testing.assert_allclose(np.sum(backward, axis=1), 1.0, atol=1e-13)
    if scheme == "paper":
        _, moved = jax.jvp(lambda v: chosen.local_maps(problem, mu, v)[1], (u,), (direction,))
        np.testing.assert_allclose(matvec(backward, direction[:, 1:]), moved, atol=1e-12)
    else:
        np.testing.assert_array_equal(forward, backward)


# Inner sizes on both sides of the switch from written-out arithmetic to library calls.
@pytest.mark.parametrize(("p", "q", "r"), [(3, 3, 3), (2, 5, 3), (4, 12, 2)])
def test_products(p: int, q: int, r: int) -> None:
    rng = np.random.default_rng(0)
    a, b, x = rng.normal(size=(p, q, 7)), rng.normal(size=(q, r, 7)), rng.normal(size=(q, 7))
    np.testing.assert_allclose(matmul(jnp.asarray(a), jnp.asarray(b)), np.einsum("ijm,jkm->ikm", a, b), atol=1e-13)
    np.testing.assert_allclose(matvec(jnp.asarray(a), jnp.asarray(x)), np.einsum("ijm,jm->im", a, x), atol=1e-13)
    a, b, x = a[..., 0], b[..., 0], x[..., 0]
    np.testing.assert_allclose(matmul(jnp.asarray(a), jnp.asarray(b)), a @ b, atol=1e-13)
    np.testing.assert_allclose(matvec(jnp.asarray(a), jnp.asarray(x)), a @ x, atol=1e-13)


@pytest.mark.parametrize("d", [3, 12])
def test_recursions(d: int) -> None:
    """Backward `u[n] = P[n] u[n+1] + c[n]` and forward `mu[n+1] = P[n]' mu[n]`, both against a loop."""
    rng = np.random.default_rng(d)
    p, c, end = rng.uniform(size=(d, d, 6)) / d, rng.normal(size=(d, 6)), rng.normal(size=d)
    u, mu = np.zeros((d, 7)), np.zeros((d, 7))
    u[:, 6], mu[:, 0] = end, end
    for n in range(6):
        mu[:, n + 1] = p[:, :, n].T @ mu[:, n]
    for n in reversed(range(6)):
        u[:, n] = p[:, :, n] @ u[:, n + 1] + c[:, n]
    np.testing.assert_allclose(backward_recursion(jnp.asarray(p), jnp.asarray(c), jnp.asarray(end)), u, atol=1e-13)
    np.testing.assert_allclose(forward_recursion(jnp.asarray(p), jnp.asarray(end)), mu, atol=1e-13)
