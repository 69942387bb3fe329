"""Anderson's acceleration, whose least squares are kept up by pieces inside a loop, against the plain one in NumPy; what iterations cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes_mfg.equilibrium import TimeGrid, methods, solve
from bayes_mfg.equilibrium.problem import build
from bayes_mfg.equilibrium.schemes import get_scheme
from bayes_mfg.games import LinearQuadratic


def test_accelerated_sweeps_are_those_of_plain_least_squares() -> None:
    """The iterate after every number of steps, also when the memory has been overwritten more than once."""
    scheme = get_scheme("exponential")
    game = LinearQuadratic(3, congestion=2.0, terminal_congestion=3.0)
    problem = build(game, {"gamma": 0.8}, jnp.asarray([0.2, 0.3, 0.5]), TimeGrid(horizon=1.0, points=6), False)
    start = methods.start(scheme, problem)
    shape, length, unit = start.z[0].shape, start.z[0].size, float(start.unit)

    @jax.jit
    def after(steps: jax.Array) -> jax.Array:
        """The best of the iterates that so many steps look at."""
        mu, u = methods.anderson(scheme, problem, start, tol=0.0, max_steps=steps).z
        return jnp.concatenate([mu.reshape(-1), u.reshape(-1) / unit])

    @jax.jit
    def swept(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = x[:length].reshape(shape), unit * x[length:].reshape(shape)
        image, defects = scheme.sweep(problem, *z)
        return jnp.concatenate([image[0].reshape(-1), image[1].reshape(-1) / unit]), methods.size_of(defects, z[1], start.unit)

    points, moves, sizes = [np.asarray(after(jnp.asarray(0)))], [], []
    for _ in range(2 * methods.MEMORY):
        image, size = swept(points[-1])
        moves.append(np.asarray(image) - points[-1])
        sizes.append(float(size))
        last = slice(-methods.MEMORY, None)
        dx, df = (np.diff(history, axis=0)[last] for history in (np.array(points), np.array(moves)))
        weights = np.linalg.lstsq(df.T, moves[-1], rcond=None)[0] if len(df) else np.zeros(0)
        points.append(points[-1] + moves[-1] - weights @ (dx + df))
    assert sizes[11] < 1e-3 * sizes[5], "too easy or too hard a case to see the memory overwritten"
    for steps in (2, 4, 7, 8, 10, 12):
        best = int(np.argmin(sizes[:steps]))
        assert best == steps - 1
        assert np.asarray(after(jnp.asarray(steps))) == pytest.approx(points[best], abs=1e-3 * np.linalg.norm(moves[best])), steps


@pytest.mark.slow
def test_memory_of_a_gradient_does_not_grow_with_the_iterations() -> None:
    """An unrolled solver would keep every iterate for the way back."""
    grid = TimeGrid(horizon=1.0, points=6)

    def temporary(steps: int) -> int:
        def share(gamma: jax.Array) -> jax.Array:
            eq = solve(
                LinearQuadratic(), {"gamma": gamma}, jnp.asarray([0.2, 0.3, 0.5]), grid, method="anderson", max_steps=steps
            )
            return eq.mu[-1, 0]

        return int(jax.jit(jax.grad(share)).lower(jnp.asarray(1.5)).compile().memory_analysis().temp_size_in_bytes)

    assert temporary(2000) <= 1.1 * temporary(20)
