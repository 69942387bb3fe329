"""The time schemes: what each interval computes, what it conserves, and how fast it approaches continuous time."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from systems import LQ_CASES, Case, arc, paper_picard, scheme_defect, solved

from bayes_mfg.equilibrium import Equilibrium, ExponentialMidpoint, TimeGrid, exploitability, solve
from bayes_mfg.equilibrium.problem import build
from bayes_mfg.equilibrium.schemes import exponential
from bayes_mfg.errors import InputError
from bayes_mfg.games import SIR, LinearQuadratic

MU0 = np.array([0.2, 0.3, 0.5])
CONVERGENCE = {
    "LQ constant": (LinearQuadratic(), {"gamma": 1.55}, MU0, 2.0),
    "LQ arc": (LinearQuadratic(), {"gamma": arc}, MU0, 2.0),
    "SIR": (SIR(), {"beta": 0.6, "recovery": 0.1}, np.array([0.95, 0.05, 0.0]), 40.0),
}


@functools.cache
def _at(name: str, points: int, substeps: int = 1) -> Equilibrium:
    game, params, mu0, horizon = CONVERGENCE[name]
    grid = TimeGrid(horizon, points, substeps)
    nodes = grid.intervals + 1
    values = {key: arc(horizon, nodes) if callable(given) else np.full(nodes, given) for key, given in params.items()}
    eq = solve(game, values, mu0, grid, method="anderson")
    assert bool(eq.converged), eq.status.message
    return eq


# The paper's scheme.


@pytest.mark.parametrize(
    "case",
    [
        Case("LQ constant", LinearQuadratic(), {"gamma": 1.55}, MU0, TimeGrid(2.0, 41)),
        Case("LQ arc", LinearQuadratic(), {"gamma": 0.5 + arc(2.0, 41)}, MU0, TimeGrid(2.0, 41)),
        Case("SIR", SIR(), {"beta": 0.6, "recovery": 0.1}, np.array([0.95, 0.05, 0.0]), TimeGrid(40.0, 41)),
        # The value that solves start from asks for rates of 130, a step being 0.02: the population explodes there, and not at the equilibrium.
        Case("LQ ten states", LinearQuadratic(10), {"gamma": 1.0}, np.ones(10) / 10, TimeGrid(0.5, 26)),
    ],
    ids=str,
)
def test_paper_scheme_reproduces_its_own_recursion(case: Case) -> None:
    """The answer is the fixed point of the published loops, to rounding; the loops are written out in systems.py."""
    eq = solve(case.game, case.params, case.mu0, case.grid, scheme="paper", tol=1e-14)
    mu, value = paper_picard(case)
    assert bool(eq.converged), eq.status.message
    assert scheme_defect(case, "paper", np.asarray(eq.mu), np.asarray(eq.value)) <= 1e-13
    np.testing.assert_allclose(eq.mu, mu, atol=1e-12, rtol=0)
    np.testing.assert_allclose(eq.value, value, atol=1e-12 * max(1.0, np.abs(value).max()), rtol=0)


# The exponential of the default scheme.


def _random_generator(rng: np.random.Generator, d: int, intervals: int, largest: float) -> np.ndarray:
    rates = rng.uniform(0.0, largest, (d, d, intervals))
    rates[np.arange(d), np.arange(d)] = 0.0
    return rates


@pytest.mark.parametrize(("d", "squarings"), [(2, 3), (3, 3), (4, 3), (12, 5)])
def test_exponential_and_integral_against_scipy(d: int, squarings: int) -> None:
    """At moderate dt times rate, `P` is scipy's expm and `c` the integral, by an augmented expm and by quadrature."""
    rng = np.random.default_rng(d)
    rates = _random_generator(rng, d, 4, 2.0 / d)
    cost, dt = rng.normal(size=(d, 4)), np.array([0.05, 0.1, 0.2, 0.3])
    p, c = (np.asarray(part) for part in jax.jit(exponential, static_argnums=3)(rates, cost, dt, squarings))
    for n in range(4):
        q = rates[:, :, n] - np.diag(rates[:, :, n].sum(axis=1))
        np.testing.assert_allclose(p[:, :, n], scipy.linalg.expm(dt[n] * q), atol=2e-8)
        augmented = scipy.linalg.expm(dt[n] * np.block([[q, cost[:, n : n + 1]], [np.zeros((1, d + 1))]]))
        np.testing.assert_allclose(c[:, n], augmented[:d, d], atol=2e-8)
        quadrature, _ = scipy.integrate.quad_vec(
            lambda s, q=q, f=cost[:, n]: scipy.linalg.expm(s * q) @ f, 0.0, dt[n], epsabs=1e-12
        )
        np.testing.assert_allclose(c[:, n], quadrature, atol=2e-8)


@pytest.mark.parametrize("largest", [1e-300, 1.0, 1e4, 1e9])
def test_exponential_is_a_stochastic_matrix_for_any_rates(largest: float) -> None:
    """No entry is negative and rows sum to one however large dt times rate; without rates nothing moves."""
    rates = _random_generator(np.random.default_rng(0), 3, 5, largest)
    rates[:, :, 0] = 0.0
    p, c = (np.asarray(part) for part in jax.jit(exponential, static_argnums=3)(rates, np.ones((3, 5)), np.full(5, 0.1), 3))
    assert (p >= 0.0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-15)
    np.testing.assert_array_equal(p[:, :, 0], np.eye(3))
    # A constant cost of one costs dt, whatever the moves.
    np.testing.assert_allclose(c, 0.1, rtol=1e-12)


def test_squarings_refine_the_exponential_and_are_checked() -> None:
    """Each squaring divides the exponential's error by at least eight; fewer than one is refused."""
    rates = np.array([[0.0, 8.0, 1.0], [2.0, 0.0, 5.0], [0.5, 3.0, 0.0]])
    exact = scipy.linalg.expm(0.2 * (rates - np.diag(rates.sum(axis=1))))
    errors = []
    for squarings in (2, 3, 4):
        p, _ = exponential(jnp.asarray(rates[:, :, None]), jnp.zeros((3, 1)), jnp.asarray([0.2]), squarings)
        errors.append(np.abs(p[:, :, 0] - exact).max())
    assert errors[0] / errors[1] >= 8 and errors[1] / errors[2] >= 8
    with pytest.raises(InputError, match="squarings is 0; at least 1"):
        ExponentialMidpoint(squarings=0)


@pytest.mark.parametrize("case", [LQ_CASES[0], LQ_CASES[1]], ids=str)
def test_hjb_and_kolmogorov_steps_are_adjoint(case: Case) -> None:
    """<mu[n+1], u[n+1]> + <mu[n], c[n]> = <mu[n], u[n]> on every interval: the cost that is paid is the cost that was planned."""
    eq = solved(case)
    mu, value = (np.asarray(part).T for part in eq.nodes)
    problem = build(case.game, case.params, case.mu0, case.grid)
    mid_mu, mid_u = 0.5 * (mu[:, 1:] + mu[:, :-1]), 0.5 * (value[:, 1:] + value[:, :-1])
    # The steps themselves, at the midpoints of the solution, applied to its ends.
    p, c = (np.asarray(part) for part in jax.jit(ExponentialMidpoint()._propagators)(problem, mid_mu, mid_u))
    forward = np.einsum("xyn,xn->yn", p, mu[:, :-1])
    backward = np.einsum("xyn,yn->xn", p, value[:, 1:]) + c
    scale = np.abs(value).max()
    assert np.abs(forward - mu[:, 1:]).max() <= 1e-10 and np.abs(backward - value[:, :-1]).max() <= 1e-10 * scale
    paid = np.sum(forward * value[:, 1:], axis=0) + np.sum(mu[:, :-1] * c, axis=0)
    planned = np.sum(mu[:, :-1] * backward, axis=0)
    assert np.abs(paid - planned).max() <= 1e-14 * scale
    # Hence over the whole horizon: the value at the start is the cost along the way.
    total = np.sum(mu[:, -1] * value[:, -1]) + np.sum(mu[:, :-1] * c)
    assert total == pytest.approx(np.sum(mu[:, 0] * value[:, 0]), rel=1e-10)


@pytest.mark.parametrize("case", [LQ_CASES[0], LQ_CASES[-1]], ids=str)
def test_mass_and_sign(case: Case) -> None:
    """d = 3, and d = 32 with exit rates of hundreds per step, where explicit Euler explodes: mu >= 0, mass within 1e-12."""
    mu = np.asarray(solved(case).nodes[0])
    assert mu.min() >= 0.0
    assert np.abs(mu.sum(axis=1) - 1.0).max() <= 1e-12


# Convergence to continuous time.


@pytest.mark.parametrize(("name", "bound"), [("LQ constant", 1e-3), ("LQ arc", 5e-3), ("SIR", 2e-3)])
def test_observed_order_and_error(name: str, bound: float) -> None:
    """Order at least 1.9 by a fit over 101 to 801 points against 3,201, and the stated error at 101 points.

    The linear-quadratic rates reach their bound at zero near the end, a kink whose place between two nodes makes single ratios of
    errors wander (local orders 0.8 to 3.7); at 51 points the arc's last intervals have dt times rate above one.
    """
    fine = np.asarray(_at(name, 3201).mu)
    points = np.array([101, 201, 401, 801])
    errors = [np.abs(np.asarray(_at(name, n).mu) - fine[:: 3200 // (n - 1)]).max() for n in points]
    order = -np.polyfit(np.log(points - 1), np.log(errors), 1)[0]
    assert order >= 1.9, (order, errors)
    assert errors[0] <= bound, errors


def test_fine_grid_agrees_with_an_independent_integrator() -> None:
    """What the schemes converge to is the continuous-time equilibrium: SciPy's boundary value solver finds the same."""

    def right_hand_side(t: np.ndarray, z: np.ndarray) -> np.ndarray:
        mu, u = z[:3], z[3:]
        moves = np.clip(2.0 + (u[:, None] - u[None, :]) / (2.0 * 1.55), 0.0, 100.0) * (1.0 - np.eye(3))[:, :, None]
        effort = 1.55 * (moves - 2.0) ** 2 * (1.0 - np.eye(3))[:, :, None]
        d_u = effort.sum(axis=1) + 0.1 * mu + np.sum(moves * (u[None, :] - u[:, None]), axis=1)
        flow = mu[:, None] * moves
        return np.concatenate([flow.sum(axis=0) - flow.sum(axis=1), -d_u])

    def ends(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([a[:3] - MU0, b[3:] - (5.0 * np.array([2.0, 1.0, 0.0]) + b[:3])])

    eq = _at("LQ constant", 401)
    guess = np.concatenate([np.asarray(eq.mu).T, np.asarray(eq.value).T])
    found = scipy.integrate.solve_bvp(right_hand_side, ends, eq.times, guess, tol=1e-6, max_nodes=20000)
    assert found.success, found.message
    assert np.abs(found.sol(eq.times)[:3].T - np.asarray(eq.mu)).max() <= 1e-4


def test_substeps_equal_a_finer_grid() -> None:
    """51 points with two substeps are 101 points, every other one reported."""
    np.testing.assert_allclose(_at("LQ arc", 51, 2).mu, _at("LQ arc", 101).mu[::2], atol=1e-13)
    np.testing.assert_allclose(_at("LQ arc", 51, 2).nodes[0], _at("LQ arc", 101).nodes[0], atol=1e-13)


def test_non_uniform_grid() -> None:
    """A grid from given times starts where they start, solves the same game, and loses little accuracy."""
    times = 3.0 + 2.0 * (np.linspace(0.0, 1.0, 101) ** 0.8)
    grid = TimeGrid.from_times(times)
    np.testing.assert_array_equal(grid.times, times)
    eq = solve(LinearQuadratic(), {"gamma": 1.55}, MU0, grid, method="anderson")
    assert bool(eq.converged)
    fine = _at("LQ constant", 3201)
    expected = np.stack([np.interp(times - 3.0, fine.times, np.asarray(fine.mu)[:, x]) for x in range(3)], axis=1)
    assert np.abs(np.asarray(eq.mu) - expected).max() <= 1e-3
    assert np.abs(np.asarray(eq.mu).sum(axis=1) - 1.0).max() <= 1e-12


def test_equal_times_given_one_by_one_change_nothing() -> None:
    """`from_times` on equally spaced times is the plain grid; with substeps as well."""
    plain, given = TimeGrid(2.0, 11, 3), TimeGrid.from_times(np.linspace(0.0, 2.0, 11), substeps=3)
    np.testing.assert_allclose(given.fine_times, plain.fine_times, atol=1e-15)
    np.testing.assert_allclose(given.fine_times[::3], given.times, atol=1e-15)
    assert plain.intervals == given.intervals == 30


# Exploitability.


@pytest.mark.parametrize("name", ["LQ constant", "SIR"])
def test_exploitability_is_small_and_falls_with_the_grid(name: str) -> None:
    """No agent gains by leaving, up to a discretisation error that falls at least at second order."""
    game = CONVERGENCE[name][0]
    gains = np.array([float(exploitability(game, _at(name, points))) for points in (51, 101, 201)])
    assert (gains >= 0.0).all()
    assert gains[1] <= 1e-3
    assert np.log2(gains[:-1] / gains[1:]).min() >= 1.9, gains


def test_exploitability_sees_a_wrong_policy() -> None:
    """A policy that answers to a wrong value can be improved upon, the more so the more it is wrong."""
    eq = _at("LQ constant", 51)
    honest = float(exploitability(LinearQuadratic(), eq))
    wrong = [
        eqx.tree_at(lambda e: e.nodes, eq, (eq.nodes[0], eq.nodes[1] * (1.0 - share)))  # agents heed only part of the value
        for share in (0.1, 0.2)
    ]
    gains = [float(exploitability(LinearQuadratic(), e)) for e in wrong]
    assert gains[0] > 10.0 * honest and gains[1] > 2.0 * gains[0], (honest, gains)


def test_exploitability_of_a_failed_solve_is_nan_and_of_another_game_refused() -> None:
    """No figure stands for a solve that failed; the game must be the one that was solved."""
    eq = _at("LQ constant", 51)
    nan = eqx.tree_at(lambda e: e.nodes, eq, jax.tree.map(lambda x: x * jnp.nan, eq.nodes))
    assert np.isnan(exploitability(LinearQuadratic(), nan))
    with pytest.raises(InputError, match="The equilibrium is one of LinearQuadratic, not of SIR"):
        exploitability(SIR(), eq)
    with pytest.raises(InputError, match="refine is 0; at least 1"):
        exploitability(LinearQuadratic(), eq, refine=0)
