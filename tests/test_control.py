"""Protects mean field control: the planner's solution is stationary for the cost of all, counted without the library, and costs them less."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax import lax
from systems import ascending

from bayes_mfg.data import Population, simulate
from bayes_mfg.equilibrium import TimeGrid, exploitability, solve
from bayes_mfg.equilibrium.problem import build
from bayes_mfg.errors import InputError
from bayes_mfg.games import SIR, Emissions, LinearQuadratic
from bayes_mfg.inference import fit
from bayes_mfg.models import Calibration, Gaussian

GRID = TimeGrid(1.0, 101)
STARTS = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])


class Crowded(eqx.Module):
    """`low + rise mu[state]^2 + tilt t`: a parameter that follows the population and time. Arrays, so that all share one compiled solve."""

    low: jax.Array = eqx.field(converter=jnp.asarray)
    rise: jax.Array = eqx.field(default=0.0, converter=jnp.asarray)
    tilt: jax.Array = eqx.field(default=0.0, converter=jnp.asarray)
    state: int = eqx.field(default=2, static=True)

    def __call__(self, t, mu):
        return self.low + self.rise * mu[self.state] ** 2 + self.tilt * t


def lq(**constants):
    """A game of the one structure that these tests compile."""
    floats = {name: float(x) for name, x in constants.items()}
    return LinearQuadratic(congestion_power=2, **floats)


def solved(game, control, gamma=1.55, scheme="exponential"):
    eq = solve(game, {"gamma": Crowded(gamma)}, ascending(3), GRID, scheme=scheme, control=control)
    assert bool(eq.converged)
    return eq


# What the planner pays for others, where a game knows it.


@pytest.mark.parametrize("scheme", ["exponential", pytest.param("paper", marks=pytest.mark.slow)])
def test_a_planner_under_congestion_is_an_equilibrium_of_more_congestion(scheme):
    """`d/dmu(x) sum_y mu(y) c mu(y)^p = (1 + p) c mu(x)^p`, and nothing else depends on the population."""
    c, p = 2.0, 2
    rest = {"terminal_slope": 0, "base_rate": 0.3, "terminal_congestion": 0}
    planner = solved(lq(congestion=c, **rest), True, scheme=scheme)
    crowd = solved(lq(congestion=(1 + p) * c, **rest), False, scheme=scheme)
    np.testing.assert_allclose(planner.mu, crowd.mu, atol=1e-10)
    np.testing.assert_allclose(planner.value, crowd.value, atol=1e-10)
    np.testing.assert_allclose(planner.rates, crowd.rates, atol=1e-10)
    plain = solved(lq(congestion=c, **rest), False, scheme=scheme)
    assert float(jnp.max(jnp.abs(planner.mu - plain.mu))) > 1e-2


def test_a_planner_without_externalities_does_what_everyone_would():
    game = lq(congestion=0, terminal_congestion=0)
    planner, crowd = (solved(game, control) for control in (True, False))
    np.testing.assert_allclose(planner.mu, crowd.mu, atol=1e-12)
    np.testing.assert_allclose(planner.value, crowd.value, atol=1e-10)


# Brute force: everybody's cost of a control over time, by Runge-Kutta steps on formulas written out here.

STEPS = 800


def sir_flow(alpha, mu):
    """Change of the population and cost per time, at contact `alpha ()`; beta, recovery, c_a and c_I as in `SOCIAL`."""
    infection = 0.6 * alpha * mu[0] * mu[1]
    recovery = 0.1 * mu[1]
    return jnp.stack([-infection, infection - recovery, recovery]), mu[0] * 0.5 * (1 - alpha) ** 2 + 0.1 * mu[1]


def lq_flow(a, mu):
    """The same for rates `a (3, 3)` with destination congestion 2 and a gamma of the population."""
    a = a * (1 - jnp.eye(3))
    gamma = 0.8 + 1.5 * mu[2] ** 2
    effort = sum(gamma * (a[:, y] - 2.0) ** 2 * (1 + 2.0 * mu[y]) * (jnp.arange(3) != y) for y in range(3))
    return mu @ a - mu * a.sum(axis=1), mu @ (effort + 0.5 * mu**2)


def lq_end(mu):
    return mu @ (jnp.array([4.0, 2.0, 0.0]) + 1.0 * mu**2)


SOCIAL = {
    "SIR": (
        SIR(contact_cost=1.0, infection_cost=0.1),
        {"beta": 0.6, "recovery": 0.1},
        np.array([0.9, 0.1, 0.0]),
        TimeGrid(20.0, 201),
        sir_flow,
        lambda mu: 0.0,
    ),
    "LQ": (
        lq(terminal_slope=2.0, congestion=0.5, destination_congestion=2.0),
        {"gamma": Crowded(0.8, 1.5)},
        ascending(3),
        GRID,
        lq_flow,
        lq_end,
    ),
}


def cost_of_all(flow, end, start, horizon):
    """`J(control)` of a control `(T, ...)` that is linear between the points of an even grid."""

    def cost(control):
        h = horizon / STEPS
        last = len(control) - 1

        def at(t):
            place = jnp.clip(t / horizon * last, 0, last)
            left = jnp.minimum(place.astype(int), last - 1)
            share = place - left
            return (1 - share) * control[left] + share * control[left + 1]

        def step(state, n):
            mu, paid = state
            first, middle, second = at(n * h), at((n + 0.5) * h), at((n + 1) * h)
            k1, c1 = flow(first, mu)
            k2, c2 = flow(middle, mu + 0.5 * h * k1)
            k3, c3 = flow(middle, mu + 0.5 * h * k2)
            k4, c4 = flow(second, mu + h * k3)
            return (mu + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), paid + h / 6 * (c1 + 2 * c2 + 2 * c3 + c4)), None

        (mu, paid), _ = lax.scan(step, (jnp.asarray(start), jnp.zeros(())), jnp.arange(STEPS))
        return paid + end(mu)

    return cost


def control_of(game, eq):
    """The contact factor `(T,)`, or the rates `(T, 3, 3)`, that a solution chooses."""
    if isinstance(game, LinearQuadratic):
        return eq.rates
    risk = 0.6 * eq.mu[:, 1] * (eq.value[:, 1] - eq.value[:, 0])
    return jnp.clip(1.0 - risk, 0.0, 1.0)


@pytest.mark.parametrize("name", ["LQ", pytest.param("SIR", marks=pytest.mark.slow)])
def test_no_change_of_the_control_helps_everybody_at_the_planners_solution(name):
    """Where the planner stands the cost of all is level, to the discretisation; at the equilibrium it falls."""
    game, params, start, grid, flow, end = SOCIAL[name]
    planner, crowd = (solve(game, params, start, grid, control=control) for control in (True, False))
    assert bool(planner.converged) and bool(crowd.converged)
    at_planner, at_crowd = control_of(game, planner), control_of(game, crowd)
    for control in (at_planner, at_crowd):  # nothing at its bounds
        off = control if control.ndim == 1 else control[:, ~np.eye(3, dtype=bool)]
        assert float(off.min()) > 0.01
    cost = jax.jit(cost_of_all(flow, end, start, grid.horizon))
    assert float(cost(at_planner)) < float(cost(at_crowd)) - 1e-4
    # Smooth random changes of the control: sines of a few periods.
    rng = np.random.default_rng(0)
    waves = np.sin(np.pi * np.outer(np.linspace(0, 1, grid.points), np.arange(1, 7)) + rng.uniform(0, np.pi, 6))
    changes = np.einsum("tk,k...->t...", waves, rng.standard_normal((6, 12, *at_planner.shape[1:])))
    changes = np.moveaxis(changes, 1, 0)
    slope = jax.jit(jax.grad(cost))
    along = [np.tensordot(changes, np.asarray(slope(control)), axes=at_planner.ndim) for control in (at_planner, at_crowd)]
    assert np.linalg.norm(along[0]) < 0.02 * np.linalg.norm(along[1])
    # The derivative is that of the cost: central differences.
    epsilon = 1e-5
    difference = (float(cost(at_crowd + epsilon * changes[0])) - float(cost(at_crowd - epsilon * changes[0]))) / (2 * epsilon)
    assert along[1][0] == pytest.approx(difference, rel=1e-5)


# The adjoint at one moment.

ADJOINT = {
    "SIR": (
        SIR(),
        {
            "beta": Crowded(0.6, 0.7, 0.1, 1),
            "recovery": Crowded(0.1, 0.3, 0.0, 0),
            "contact_cost": 1.3,
            "infection_cost": Crowded(0.2, 0.4),
        },
    ),
    "LQ": (
        LinearQuadratic(destination_congestion=1.5, congestion_power=2, congestion=3.0),
        {
            "gamma": Crowded(0.9, 0.8, 0.2, 0),
            "base_rate": Crowded(1.0, 0.5, 0.0, 2),
            "terminal_slope": Crowded(2.0, 1.0, 0.0, 0),
            "congestion": 0.7,
        },
    ),
    "Emissions": (
        Emissions(6, cap=2.5),
        {
            "price": Crowded(3.0, 2.0, 0.1, 4),
            "base_rate": Crowded(1.0, 2.0, 0.0, 1),
            "sharpness": Crowded(2.0, 0.5, 0.0, 5),
            "cap": 2.3,
        },
    ),
}


@pytest.mark.parametrize("name", ADJOINT)
def test_the_adjoint_counts_every_way_in_which_one_agent_touches_the_others(name):
    """Costs, rates and parameters that depend on the population, against central differences at the control as it is."""
    game, params = ADJOINT[name]
    d = game.n_states
    rng = np.random.default_rng(1)
    mu, value = rng.dirichlet(np.full(d, 5.0)), 0.4 * rng.standard_normal(d)
    problem = build(game, params, mu, TimeGrid(1.0, 5), True)
    selfish = build(game, params, mu, TimeGrid(1.0, 5))
    t, now = jnp.asarray(0.25), {key: a[..., 1] for key, a in problem.arrays.items()}

    def given(m):
        return {key: path(t, m) if callable(path) else jnp.asarray(path) for key, path in params.items()}

    control = game.best_response(t, jnp.asarray(value), jnp.asarray(mu), given(jnp.asarray(mu)))

    def hamiltonian(m):
        """`sum_y mu(y) (f(y) + sum_z q(y, z) (u(z) - u(y)))` with costs and rates of the population `m`."""
        rates = np.asarray(game.rates(t, control, m, given(m)))
        gain = [sum(rates[y, z] * (value[z] - value[y]) for z in range(d)) for y in range(d)]
        return float(mu @ (np.asarray(game.running_cost(t, control, m, given(m))) + gain))

    def ending(m):
        return float(mu @ np.asarray(game.terminal_cost(jnp.asarray(1.0), m, {**given(m), **last(m)})))

    def last(m):
        return {key: path(jnp.asarray(1.0), m) for key, path in params.items() if callable(path)}

    def slopes(function, h=1e-5):
        return np.array([(function(jnp.asarray(mu + h * e)) - function(jnp.asarray(mu - h * e))) / (2 * h) for e in np.eye(d)])

    rates, cost = problem.generator(t, jnp.asarray(value), jnp.asarray(mu), now)
    own_rates, own_cost = selfish.generator(t, jnp.asarray(value), jnp.asarray(mu), now)
    np.testing.assert_array_equal(rates, own_rates)
    pull = slopes(hamiltonian)
    np.testing.assert_allclose(cost - own_cost, pull, atol=1e-8)
    assert np.abs(pull).max() > 1e-2
    end = problem.terminal_cost(jnp.asarray(mu)) - selfish.terminal_cost(jnp.asarray(mu))
    np.testing.assert_allclose(end, slopes(ending), atol=1e-8)


# Derivatives.


@pytest.mark.slow
def test_derivatives_of_the_planners_population_are_exact():
    weights = np.random.default_rng(0).standard_normal((2, 3))

    def some(theta):
        game = LinearQuadratic(congestion_power=2, congestion=theta[2], destination_congestion=theta[3])
        mu0 = jnp.asarray(ascending(3)) + theta[4] * jnp.array([1.0, -1.0, 0.0])
        return solve(game, {"gamma": Crowded(theta[0], theta[1])}, mu0, GRID, control=True).mu[jnp.array([50, 100])]

    @jax.jit
    def derivatives(theta):
        _, push = jax.linearize(some, theta)
        return jax.vmap(push, out_axes=-1)(jnp.eye(5)), jax.linear_transpose(push, theta)(jnp.asarray(weights))[0]

    theta, h = jnp.array([1.2, 0.8, 2.0, 0.7, 0.02]), 1e-4
    forward, backward = derivatives(theta)
    differences = np.stack([(some(theta + h * e) - some(theta - h * e)) / (2 * h) for e in jnp.eye(5)], axis=-1)
    np.testing.assert_allclose(forward, differences, atol=1e-6)
    assert (np.abs(forward).max(axis=(0, 1)) > 1e-4).all()
    np.testing.assert_allclose(backward, np.tensordot(weights, forward, axes=2), atol=1e-10)


# Around the solver.


def test_a_planners_solution_has_no_exploitability():
    game = lq()
    with pytest.raises(InputError, match="social planner"):
        exploitability(game, solved(game, True))


CROWDED = lq(congestion=20, terminal_congestion=5)


def test_what_a_planner_did_is_calibrated_as_such():
    """From exact data of a planner, which no equilibrium with this gamma would give, the planner's model finds gamma."""
    grid = TimeGrid(1.0, 11)
    data = simulate(CROWDED, {"gamma": 1.55}, STARTS, grid, control=True)
    assert data.provenance["control"] is True
    model = Calibration(
        CROWDED,
        data,
        {"gamma": dist.LogNormal(0.0, 1.0)},
        Gaussian(scale=1e-6),
        initial=STARTS,
        substeps=1,
        control=True,
    )
    assert model.solver["control"]
    posterior = fit(model, method="point", prior_samples=0).tree["posterior"]
    assert float(posterior["gamma"].isel(chain=0, draw=0, time=0)) == pytest.approx(1.55, abs=1e-5)
    np.testing.assert_allclose(posterior["mu"].isel(chain=0, draw=0), data.shares, atol=1e-7)


@pytest.mark.slow
def test_simulated_planners_are_those_that_solve_finds():
    data = simulate(CROWDED, {"gamma": Crowded(1.55)}, ascending(3), GRID, control=True)
    np.testing.assert_allclose(data.shares[0], solved(CROWDED, True).mu, atol=1e-10)
    assert float(np.abs(data.shares[0] - solved(CROWDED, False).mu).max()) > 1e-2


def test_control_is_a_yes_or_no():
    data = Population([0.0, 1.0], proportions=STARTS[None])
    with pytest.raises(InputError, match="control is 'yes'"):
        Calibration(CROWDED, data, {"gamma": 1.0}, Gaussian(), control="yes")
