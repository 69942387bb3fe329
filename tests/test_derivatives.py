"""Exact derivatives of the equilibrium against differences, to first and second order, in both modes.

One compiled family serves every case of a game, scheme and method: `theta` holds parameters, game constants and the initial
population together. The time-varying parameter is a function `level + bend * arc(t) + slope * mu` inside the fixed point, so that
constant, arc and population-dependent path are three values of `theta`; another parameter goes in as an array over time.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from bayes_mfg.equilibrium import Equilibrium, TimeGrid, adjoint, solve
from bayes_mfg.games import SIR, LinearQuadratic

# theta of LQ: level, bend, slope of gamma; slope, congestion, terminal congestion, base rate, crowding at the destination; mu0
# theta of SIR: level, bend, slope of beta; recovery; contact_cost, infection_cost; mu0.
THETAS = {
    "LQ": {
        "constant": [1.55, 0.0, 0.0, 3.0, 0.1, 1.0, 2.0, 0.05, 0.2, 0.3],
        "arc": [0.8, 1.7, 0.0, 3.0, 0.1, 1.0, 2.0, 0.1, 0.2, 0.3],
        "population": [0.9, 0.0, 2.0, 3.0, 0.5, 1.0, 2.0, 0.2, 0.5, 0.3],
        "strong": [1.1, 0.3, 0.5, 4.0, 25.0, 12.0, 2.5, 0.5, 0.15, 0.35],
        "repelling": [0.1, 0.0, 0.0, 0.0, 20.0, 1.0, 0.3, 0.01, 1 / 6, 1 / 3],  # spectral radius of the sweep 97
    },
    "SIR": {
        "constant": [0.6, 0.0, 0.0, 0.1, 1.0, 0.1, 0.93, 0.06],
        "arc": [0.3, 0.3, 0.0, 0.12, 1.0, 0.2, 0.93, 0.06],
        "population": [0.5, 0.1, 0.4, 0.1, 0.8, 0.2, 0.93, 0.06],
        "strong": [1.3, 0.1, 0.2, 0.1, 0.5, 1.0, 0.9, 0.08],
    },
}
GRIDS = {"LQ": TimeGrid(2.0, 41), "SIR": TimeGrid(20.0, 41)}
SCHEMES = ("exponential", "paper")
QUICK = [(game, "exponential", "auto") for game in THETAS]
OTHERS = [
    (game, scheme, method)
    for game in THETAS
    for scheme in SCHEMES
    # The rule knows neither the method nor, beyond its equations, the scheme: one method is enough where both are new.
    for method in (("auto", "newton", "anderson", "picard") if scheme == "exponential" else ("auto",))
    if (game, scheme, method) not in QUICK
]
TOLERANCE = 1e-13
# Nearly all of the time here is compilation, of programs that run once or a few times.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# Beyond one method by itself, from a cold start; "auto" solves them all.
TOO_HARD = {
    *(("LQ", scheme, method, "repelling") for scheme in ("exponential", "paper") for method in ("anderson", "picard")),
    ("SIR", "exponential", "newton", "strong"),
    ("SIR", "exponential", "picard", "strong"),
    ("SIR", "paper", "newton", "strong"),
}
# Second derivatives go through the same rule whichever method found the solution, and take a minute each to compile: one method, which
# solves all of a game's cases and compiles faster than "auto". Reverse over reverse and one Hessian of "auto" stand beside it.
ALONE = {"LQ": "newton", "SIR": "anderson"}
ONE_METHOD = [(game, scheme, ALONE[game]) for game in THETAS for scheme in SCHEMES]


def _arc(t: Array, horizon: float) -> Array:
    return 4.0 / horizon**2 * t * (horizon - t)


def _solve(game: str, scheme: str, method: str, theta: Array) -> Equilibrium:
    grid = GRIDS[game]
    mu0 = jnp.stack([theta[-2], theta[-1], 1.0 - theta[-2] - theta[-1]])
    if game == "LQ":
        slope, congestion, terminal, base_rate, crowding = theta[3:8]
        # Two constants go in through the constructor, one as a number and one as an array over time.
        played = LinearQuadratic(terminal_slope=slope, congestion=congestion, terminal_congestion=terminal)
        varying = {"gamma": lambda t, mu: theta[0] + theta[1] * _arc(t, grid.horizon) + theta[2] * mu[0]}
        fixed = {"destination_congestion": crowding, "base_rate": base_rate * jnp.linspace(1.0, 1.1, grid.points)}
    else:
        recovery, contact_cost, infection_cost = theta[3:6]
        played = SIR(contact_cost=contact_cost)
        varying = {"beta": lambda t, mu: theta[0] + theta[1] * _arc(t, grid.horizon) + theta[2] * mu[1]}
        fixed = {"infection_cost": infection_cost, "recovery": recovery * jnp.linspace(1.0, 1.2, grid.points)}
    return solve(played, {**varying, **fixed}, mu0, grid, method=method, scheme=scheme, tol=TOLERANCE)


def _loss(game: str, scheme: str, method: str) -> Callable[[Array], tuple[Array, Array]]:
    """A smooth function of the whole solution, populations and values, and whether the solve converged."""
    grid = GRIDS[game]
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(2, grid.points, 3))

    def loss(theta: Array) -> tuple[Array, Array]:
        eq = _solve(game, scheme, method, theta)
        fit = (
            jnp.sum(weights[0] * eq.mu)
            + 5.0 * jnp.sum(eq.mu**2)
            + 0.1 * jnp.sum(weights[1] * eq.value)
            + 0.5 * jnp.sum(eq.mu * eq.value)
        )
        return fit / grid.points, eq.converged

    return loss


@functools.cache
def _gradients(game: str, scheme: str, method: str) -> Callable:
    """Values, reverse-mode gradients and convergence at many points at once, `(K, n)`, which the differences are taken from."""
    return jax.jit(jax.vmap(jax.value_and_grad(_loss(game, scheme, method), has_aux=True)), compiler_options=QUICKLY)


@functools.cache
def _forward(game: str, scheme: str, method: str) -> Callable:
    return jax.jit(jax.jacfwd(_loss(game, scheme, method), has_aux=True), compiler_options=QUICKLY)


@functools.cache
def _hessian(game: str, scheme: str, method: str) -> Callable:
    """Forward over reverse."""
    loss = _loss(game, scheme, method)
    return jax.jit(jax.hessian(lambda theta: loss(theta)[0]), compiler_options=QUICKLY)


@functools.cache
def _reverse_twice(game: str, scheme: str, method: str) -> Callable:
    loss = _loss(game, scheme, method)
    return jax.jit(jax.jacrev(jax.jacrev(lambda theta: loss(theta)[0])), compiler_options=QUICKLY)


@functools.cache
def _differences(game: str, scheme: str, method: str, path: str, scale: float) -> tuple[np.ndarray, ...]:
    """Gradient by reverse mode; gradient and Hessian by fourth-order central differences of the value and of that gradient."""
    theta = np.asarray(THETAS[game][path])
    steps = scale * np.maximum(0.1, np.abs(theta))
    points = [theta] + [theta + k * steps[i] * np.eye(theta.size)[i] for i in range(theta.size) for k in (-2, -1, 1, 2)]
    (values, converged), gradients = _gradients(game, scheme, method)(np.stack(points))
    assert np.asarray(converged).all()
    weights = np.array([1.0, -8.0, 8.0, -1.0]) / 12.0
    values, gradients = np.asarray(values), np.asarray(gradients)
    d_value = weights @ values[1:].reshape(-1, 4).T / steps
    d_gradient = np.einsum("k,ikj->ij", weights, gradients[1:].reshape(theta.size, 4, theta.size)) / steps[:, None]
    return gradients[0], d_value, d_gradient


def _error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(b))


def _cases(families: list[tuple[str, str, str]]) -> list:
    """Every path of each game, scheme and method, Picard and Anderson where they converge."""
    return [
        pytest.param(*family, path, id="-".join((*family, path)))
        for family in families
        for path in THETAS[family[0]]
        if (*family, path) not in TOO_HARD
    ]


def _check_gradient(game: str, scheme: str, method: str, path: str) -> None:
    reverse, expected, _ = _differences(game, scheme, method, path, 2e-4)
    forward, converged = _forward(game, scheme, method)(np.asarray(THETAS[game][path]))
    assert bool(np.all(converged))
    assert _error(reverse, expected) <= 1e-7
    assert _error(forward, expected) <= 1e-7
    assert _error(forward, reverse) <= 1e-10


@pytest.mark.parametrize(("game", "scheme", "method", "path"), _cases(QUICK))
def test_gradient(game: str, scheme: str, method: str, path: str) -> None:
    """Forward and reverse mode within 1e-7 of differences, for parameters, game constants and mu0 together."""
    _check_gradient(game, scheme, method, path)


@pytest.mark.slow
@pytest.mark.parametrize(("game", "scheme", "method", "path"), _cases(OTHERS))
def test_gradient_of_every_scheme_and_method(game: str, scheme: str, method: str, path: str) -> None:
    """As `test_gradient`, crossed with the paper's scheme and with each method by itself."""
    _check_gradient(game, scheme, method, path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("game", "scheme", "method", "path"),
    [*_cases(ONE_METHOD), pytest.param("SIR", "exponential", "auto", "strong", id="SIR-exponential-auto-strong")],
)
def test_hessian(game: str, scheme: str, method: str, path: str) -> None:
    """Forward over reverse within 1e-5 of differences of the gradient, and symmetric."""
    _, _, expected = _differences(game, scheme, method, path, 2e-4)
    hessian = np.asarray(_hessian(game, scheme, method)(np.asarray(THETAS[game][path])))
    assert _error(hessian, expected) <= 1e-5
    assert _error(hessian, hessian.T) <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("path", ["population", "strong"])
@pytest.mark.parametrize("scheme", ["exponential", "paper"])
@pytest.mark.parametrize("game", ["LQ", "SIR"])
def test_reverse_over_reverse_agrees(game: str, scheme: str, path: str) -> None:
    """The other order of modes gives the same Hessian; the rule does not depend on the method that found the solution."""
    theta = np.asarray(THETAS[game][path])
    reverse, forward = (family(game, scheme, ALONE[game])(theta) for family in (_reverse_twice, _hessian))
    assert _error(reverse, forward) <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["exponential", "paper"])
@pytest.mark.parametrize("game", ["LQ", "SIR"])
def test_forward_and_reverse_are_adjoint(game: str, scheme: str) -> None:
    """<J v, w> = <v, J' w> to 1e-12: the transposed elimination is the transpose."""

    def both(theta: Array) -> tuple[Array, Array]:
        eq = _solve(game, scheme, ALONE[game], theta)
        return eq.mu, eq.value

    @jax.jit
    def products(theta: Array, v: Array, w: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        return jax.jvp(both, (theta,), (v,))[1], jax.vjp(both, theta)[1](w)[0]

    rng = np.random.default_rng(9)
    points = GRIDS[game].points
    for path, theta in THETAS[game].items():
        v, w = rng.normal(size=len(theta)), (rng.normal(size=(points, 3)), rng.normal(size=(points, 3)))
        pushed, pulled = products(np.asarray(theta), v, w)
        left = sum(float(np.sum(np.asarray(a) * b)) for a, b in zip(pushed, w, strict=True))
        size = sum(float(np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(pushed, w, strict=True))
        assert abs(left - float(np.dot(v, pulled))) <= 1e-12 * size, path


@pytest.mark.slow
def test_second_order_through_vmap() -> None:
    """A batch of Hessians is the Hessians one by one; they also come out of a Hessian of the batch's sum, block by block."""
    loss = _loss("SIR", "paper", ALONE["SIR"])
    thetas = np.asarray([THETAS["SIR"][path] for path in ("constant", "arc", "strong")])
    batch = jax.jit(jax.vmap(jax.hessian(lambda theta: loss(theta)[0])))(thetas)
    whole = jax.jit(jax.hessian(lambda ts: jnp.sum(jax.vmap(lambda theta: loss(theta)[0])(ts))))(thetas)
    for k, theta in enumerate(thetas):
        alone = _hessian("SIR", "paper", ALONE["SIR"])(theta)
        assert _error(batch[k], alone) <= 1e-9
        assert _error(whole[k, :, k], alone) <= 1e-9
    assert np.abs(whole[0, :, 1]).max() <= 1e-12 * np.abs(whole[0, :, 0]).max()


@pytest.mark.slow
def test_derivative_at_the_default_tolerance() -> None:
    """What users get without asking for more: gradients at the default tolerance are those at 1e-13 within 1e-8."""
    grid = GRIDS["LQ"]

    def loss(gamma: Array, tol: float | None) -> Array:
        return jnp.sum(solve(LinearQuadratic(), {"gamma": gamma}, np.array([0.2, 0.3, 0.5]), grid, tol=tol).mu[:, 0] ** 2)

    default, exact = (float(jax.jit(jax.grad(functools.partial(loss, tol=tol)))(1.55)) for tol in (None, TOLERANCE))
    assert default == pytest.approx(exact, rel=1e-8)


def test_adjoint_by_sweeps_gives_the_derivatives_of_elimination(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of a batch against forward mode, which eliminates; the Hessian against differences; NaN where a solve failed."""
    monkeypatch.setattr(adjoint, "ELIMINATED", 0)
    # Of sweeps alone: what they would leave to elimination is NaN. Forward mode has its own.
    monkeypatch.setattr(adjoint, "factorise", lambda blocks: lambda rhs: jax.tree.map(lambda r: r * jnp.nan, rhs))
    by_sweeps, calls = adjoint.by_sweeps, []
    monkeypatch.setattr(adjoint, "by_sweeps", lambda *args: calls.append(1) or by_sweeps(*args))
    grid, tol = TimeGrid(1.0, 6), 2e-13  # of no other test: nothing compiled for elimination is taken

    def loss(theta: Array) -> Array:
        game = LinearQuadratic(congestion=theta[1])
        starts = jnp.stack([jnp.array([0.2, 0.3, 0.5]), jnp.stack([theta[2], 0.5 - theta[2], jnp.asarray(0.5)])])
        found = jax.vmap(lambda mu0: solve(game, {"gamma": theta[0] * (1.0 + jnp.arange(6.0))}, mu0, grid, tol=tol))(starts)
        return jnp.sum(found.mu[:, 1:, 0] ** 2) + jnp.sum(jnp.sin(found.value[:, 2]))

    theta = jnp.array([1.3, 2.0, 0.4])
    gradient = jax.jit(jax.grad(loss), compiler_options=QUICKLY)
    forward = jax.jit(jax.jacfwd(loss), compiler_options=QUICKLY)(theta)
    assert _error(gradient(theta), forward) <= 1e-10
    h = 1e-5
    second = np.stack([(gradient(theta + h * e) - gradient(theta - h * e)) / (2 * h) for e in np.eye(3)])
    assert _error(jax.jit(jax.hessian(loss), compiler_options=QUICKLY)(theta), second) <= 1e-7
    assert np.isnan(gradient(theta.at[2].set(-0.1))).all()
    assert calls
