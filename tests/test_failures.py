"""Protects the promise that a failed solve is never a number: NaN, negative rates, ranges, bad starts, stale functions, units of cost, jumps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes_mfg.equilibrium import Code, Sampled, TimeGrid, exploitability, solve
from bayes_mfg.errors import InputError
from bayes_mfg.games import SIR, LinearQuadratic

GRID, MU0 = TimeGrid(2.0, 21), np.array([0.2, 0.3, 0.5])
GAME = LinearQuadratic(congestion=0.5)
EPIDEMIC, SICK = TimeGrid(10.0, 11), np.array([0.9, 0.1, 0.0])


@pytest.fixture(scope="module")
def epidemic():
    """Share of the susceptible at the end, and the solve, as a compiled function of contagion and recovery."""
    return jax.jit(lambda p: solve(SIR(), {"beta": p[0], "recovery": p[1]}, SICK, EPIDEMIC))


@pytest.mark.parametrize(
    ("recovery", "code"),
    [(np.nan, Code.NOT_FINITE), (np.inf, Code.NOT_FINITE), (-np.inf, Code.OUT_OF_RANGE), (-1.0, Code.OUT_OF_RANGE)],
)
def test_a_parameter_that_enters_through_rates_alone_poisons_the_solve(epidemic, recovery, code):
    eq = epidemic(jnp.array([0.6, recovery]))
    assert eq.status.code == code
    for part in (eq.mu, eq.value, eq.rates):
        assert np.isnan(part).all()
    gradient = jax.grad(lambda p: epidemic(p).mu[-1, 0])(jnp.array([0.6, recovery]))
    assert np.isnan(gradient).any()


class Leaking(LinearQuadratic):
    """A game whose author forgot that a rate cannot be negative."""

    def rates(self, t, control, mu, params):
        return super().rates(t, control, mu, params).at[0, 1].add(-3.0)


def test_negative_rates_at_the_solution_are_no_equilibrium():
    eq = solve(Leaking(base_rate=0.1), {"gamma": 1.55}, MU0, GRID)
    assert eq.status.code == Code.NEGATIVE_RATES
    assert np.isnan(eq.mu).all()
    assert "negative" in eq.status.message


@pytest.mark.parametrize("method", ["auto", "newton"])
def test_where_nobody_moves_derivatives_exist(method):
    """Without contagion and recovery nothing ever happens; to first order, contagion moves share S at the rate of S times I."""

    def end(p):
        return solve(SIR(), {"beta": p[0], "recovery": p[1]}, SICK, EPIDEMIC, method=method).mu[-1]

    at = jnp.zeros(2)
    np.testing.assert_allclose(end(at), SICK, atol=1e-12)
    jacobian = np.asarray(jax.jit(jax.jacrev(end))(at))
    # 10 time units; 0.9 * 0.1 per unit become ill, 0.1 recover.
    np.testing.assert_allclose(jacobian, [[-0.9, 0.0], [0.9, -1.0], [0.0, 1.0]], atol=1e-9)
    hessian = jax.jit(jax.hessian(lambda p: end(p)[0]))(at)
    assert np.isfinite(hessian).all()


def test_a_time_without_moves_can_be_solved_through():
    """Nobody can be infected in the first part; Newton must find a direction there."""
    beta = np.where(EPIDEMIC.times < 4.0, 0.0, 0.8)
    recovery = np.where(EPIDEMIC.times < 4.0, 0.0, 0.2)
    newton = solve(SIR(), {"beta": beta, "recovery": recovery}, SICK, EPIDEMIC, method="newton")
    auto = solve(SIR(), {"beta": beta, "recovery": recovery}, SICK, EPIDEMIC)
    assert newton.converged and auto.converged
    np.testing.assert_allclose(newton.mu, auto.mu, atol=1e-9)
    np.testing.assert_allclose(auto.mu[3], SICK, atol=1e-12)


def test_functions_out_of_range_or_of_another_shape_are_refused():
    eq = solve(GAME, {"gamma": lambda t, mu: -1.55 + 0 * t}, MU0, GRID)
    assert eq.status.code == Code.OUT_OF_RANGE
    with pytest.raises(InputError, match=r"'gamma': the function returns an array of shape \(3,\); \(\) is needed"):
        solve(GAME, {"gamma": lambda t, mu: 1.0 + mu}, MU0, GRID)


level = 1.0


class Holder:
    """Something whose method is a parameter."""

    def __init__(self, value):
        self.value = value

    def path(self, t, mu):
        return self.value + 0.0 * t


def test_functions_are_read_anew_at_every_solve(monkeypatch):
    right = {value: solve(GAME, {"gamma": value}, MU0, GRID).mu for value in (1.0, 3.0)}
    by_global, holder = (lambda t, mu: level + 0.0 * t), Holder(1.0)
    for value in (1.0, 3.0):
        monkeypatch.setitem(globals(), "level", value)
        holder.value = value
        for function in (by_global, holder.path, lambda t, mu, *, a=value: a + 0.0 * t):
            np.testing.assert_allclose(solve(GAME, {"gamma": function}, MU0, GRID).mu, right[value], atol=1e-10)


def test_gradients_go_through_what_a_method_carries():
    def share(gamma):
        return solve(GAME, {"gamma": Holder(gamma).path}, MU0, GRID).mu[-1, 0]

    right = jax.grad(lambda gamma: solve(GAME, {"gamma": gamma}, MU0, GRID).mu[-1, 0])(1.5)
    np.testing.assert_allclose(jax.grad(share)(1.5), right, rtol=1e-8)


@pytest.mark.parametrize("mu0", [[0.333333, 0.333333, 0.333333], [0.2, 0.3, 0.499995]])
def test_shares_written_with_few_digits_are_a_distribution(mu0):
    eq = solve(GAME, {"gamma": 1.0}, mu0, GRID)
    assert eq.converged
    np.testing.assert_allclose(eq.mu.sum(axis=1), 1.0, atol=1e-12)


def test_a_traced_start_that_is_no_distribution_is_named():
    run = jax.jit(lambda mu0: solve(GAME, {"gamma": 1.0}, mu0, GRID))
    for mu0 in ([0.5, 0.5, 0.5], [1.2, -0.2, 0.0]):
        assert run(jnp.array(mu0)).status.code == Code.NO_DISTRIBUTION
    assert run(jnp.asarray(MU0)).converged


def test_sweeps_that_explode_are_not_said_to_have_run_out():
    eq = solve(
        LinearQuadratic(8, congestion=50.0), {"gamma": 0.1}, np.ones(8) / 8, TimeGrid(2.0, 41), scheme="paper", method="anderson"
    )
    assert eq.status.code in (Code.DIVERGED, Code.NOT_FINITE)
    assert "ran out" not in eq.status.message


@pytest.mark.parametrize("method", ["auto", "newton"])
@pytest.mark.parametrize("unit", [1e-6, 1e3])
def test_the_unit_of_cost_changes_nothing(method, unit):
    """Neither the population nor the work."""

    def play(k):
        game = LinearQuadratic(congestion=20.0 * k, terminal_congestion=5.0 * k, terminal_slope=5.0 * k)
        return solve(game, {"gamma": 0.5 * k}, MU0, TimeGrid(2.0, 51), method=method)

    one, other = play(1.0), play(unit)
    assert one.converged and other.converged
    np.testing.assert_allclose(other.mu, one.mu, atol=1e-9)
    np.testing.assert_allclose(other.value / unit, one.value, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(other.iterations, one.iterations)


def test_jumps_at_nodes_are_of_second_order():
    def jump(t):
        return jnp.where(t >= 1.0 - 1e-9, 3.0, 0.5)

    def path(points):
        grid = TimeGrid(2.0, points)
        nodes = jnp.asarray(grid.fine_times)
        gamma = Sampled(jump(nodes), jump(0.5 * (nodes[1:] + nodes[:-1])))
        return np.asarray(solve(GAME, {"gamma": gamma}, MU0, grid).mu[:: (points - 1) // 20])

    right = path(1281)
    errors = [np.abs(path(points) - right).max() for points in (41, 81, 161)]
    assert np.all(np.log2(np.divide(errors[:-1], errors[1:])) > 1.9)


def test_exploitability_belongs_to_the_constants_too():
    eq = solve(GAME, {"gamma": 1.0}, MU0, GRID)
    with pytest.raises(InputError, match="other constants"):
        exploitability(LinearQuadratic(congestion=50.0), eq)


@pytest.mark.parametrize(
    ("options", "words"), [({"tol": np.inf}, "tol is inf"), ({"tol": -1.0}, "tol is -1"), ({"max_steps": 0}, "max_steps is 0")]
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        solve(GAME, {"gamma": 1.0}, MU0, GRID, **options)


def test_grids_whose_times_do_not_increase_are_refused():
    with pytest.raises(InputError, match="do not increase"):
        TimeGrid(2.0, 5, nodes=(0.0, 0.5, 0.4, 1.0, 2.0))
    with pytest.raises(InputError, match="do not increase"):
        TimeGrid(2.0, 5, start=1e17)
    with pytest.raises(InputError, match="holds 3 times"):
        TimeGrid(2.0, 5, nodes=(0.0, 1.0, 2.0))
    assert TimeGrid(2.0, 5.0, 2.0).fine_times.shape == (9,)


def test_whole_number_constants_can_be_mapped_over():
    def share(congestion, gamma):
        return solve(LinearQuadratic(congestion=congestion), {"gamma": gamma}, MU0, GRID).mu[-1, 0]

    found = jax.vmap(jax.grad(share, argnums=1), in_axes=(0, None))(jnp.arange(1, 3), 2.0)
    np.testing.assert_allclose(found, [jax.grad(share, argnums=1)(c, 2.0) for c in (1.0, 2.0)], rtol=1e-8)
