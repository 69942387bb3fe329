"""Protects the search for several equilibria, the figure that says which of them attract, and their summing out of a posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from systems import RADII, RADIUS_CASES, solved

from bayes_mfg.data import simulate
from bayes_mfg.equilibrium import TimeGrid, enumerate, solve, spectral_radius
from bayes_mfg.equilibrium.schemes import residual
from bayes_mfg.errors import InputError
from bayes_mfg.games import Emissions, LinearQuadratic
from bayes_mfg.inference import fit
from bayes_mfg.inference.coordinates import coordinates, value_and_gradient
from bayes_mfg.models import Calibration, Gaussian

D, GRID = 10, TimeGrid(4.0, 41)
MU0 = np.eye(D)[1]
STARTS = 8


def bandwagon(price=3.0):
    """Two equilibria attract: firms keep to the cap of 3, because all do and who does not is fined, or all exceed it."""
    return Emissions(D, cap=3.0, price=float(price), base_rate=1.0)


def mean(eq):
    return float(np.asarray(eq.mu[-1]) @ np.arange(D))


def far(a, b):
    return float(jnp.max(jnp.abs(a.mu - b.mu)))


@pytest.fixture(scope="module")
def branches():
    return enumerate(bandwagon(), {}, MU0, GRID, starts=STARTS)


# The search.


def check(found):
    low, between, high = found
    assert mean(low.equilibrium) < 3.0 < mean(between.equilibrium) < mean(high.equilibrium)
    for branch in found:
        assert bool(branch.equilibrium.converged)
        assert branch.residual == float(branch.equilibrium.residual) < 1e-10
        assert abs(branch.exploitability) < 1e-3
        assert branch.starts >= 1
        assert branch.attracts == (branch.spectral_radius < 1.0)
        # The equations hold, whatever the solver says of itself.
        eq = branch.equilibrium
        defects = residual(eq.scheme, eq.problem, *(x.T for x in eq.nodes))
        assert max(float(jnp.max(jnp.abs(part))) for part in defects) < 1e-9
    assert low.attracts and high.attracts
    assert between.spectral_radius > 1.0 and not between.attracts


def test_both_equilibria_that_attract_are_found_and_the_one_between_that_does_not(branches):
    check(branches)
    assert all(abs(branch.exploitability) < 1e-6 for branch in branches)
    assert branches[0].starts + branches[2].starts >= STARTS - 1


def test_beliefs_close_to_an_equilibrium_return_to_it_only_where_it_attracts(branches):
    """What the spectral radius says, by playing it: sweeps from a population that is a little off."""
    low, between, high = (branch.equilibrium for branch in branches)
    for eq, home in ((low, low), (between, None), (high, high)):
        mu, value = (x.T for x in eq.nodes)
        shift = 1e-3 * (high.nodes[0].T - low.nodes[0].T)
        mu, best = mu - shift, jax.jit(lambda z, eq=eq: eq.scheme.sweep(eq.problem, *z)[0])
        z = mu, value
        for _ in range(200):
            z = best(z)
        moved = float(jnp.max(jnp.abs(z[0] - eq.nodes[0].T)))
        assert moved < 1e-5 if home is not None else moved > 0.1


def test_the_same_search_finds_the_same(branches):
    again = enumerate(bandwagon(), {}, MU0, GRID, starts=STARTS)
    for a, b in zip(branches, again, strict=True):
        assert (a.residual, a.spectral_radius, a.starts) == (b.residual, b.spectral_radius, b.starts)
        np.testing.assert_array_equal(a.equilibrium.mu, b.equilibrium.mu)


def test_where_nobody_is_fined_there_is_one_equilibrium():
    (only,) = enumerate(bandwagon(price=0.0), {}, MU0, GRID, starts=STARTS)
    assert only.starts == STARTS
    assert only.attracts and only.spectral_radius == 0.0
    # All climb at the base rate.
    assert mean(only.equilibrium) == pytest.approx(5.0, abs=0.05)


def test_guesses_are_starts_like_others(branches):
    """From one belief the search finds what that leads to; a guess of the other equilibrium adds it, and with it the one between."""
    high = branches[2].equilibrium
    guess = [(high.mu, high.value)] * (STARTS - 1)
    found = enumerate(bandwagon(), {}, MU0, GRID, starts=1, guesses=guess)
    assert far(found[-1].equilibrium, high) < 1e-8
    assert found[-1].starts >= STARTS - 1
    between = branches[1].equilibrium
    found = enumerate(bandwagon(), {}, MU0, GRID, starts=1, guesses=[(between.mu, between.value)] * (STARTS - 1))
    assert any(far(branch.equilibrium, between) < 1e-8 for branch in found)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"starts": 0}, "starts is 0"),
        ({"starts": True}, "starts is True"),
        ({"starts": 2.5}, "starts is 2.5"),
        ({"scheme": "euler"}, "Unknown scheme"),
        ({"guesses": [(np.zeros((41, 3)), np.zeros((41, D)))]}, "a guess has an array"),
    ],
)
def test_wrong_arguments_are_refused(options, word):
    with pytest.raises(InputError, match=word):
        enumerate(bandwagon(), {}, MU0, GRID, **options)


def test_parameters_are_checked_as_in_solve():
    with pytest.raises(InputError):
        enumerate(bandwagon(), {"prize": 1.0}, MU0, GRID)


@pytest.mark.slow
def test_the_papers_scheme_has_the_same_equilibria_to_its_order(branches):
    found = enumerate(bandwagon(), {}, MU0, GRID, starts=STARTS, scheme="paper")
    check(found)
    for a, b in zip(branches, found, strict=True):
        assert far(a.equilibrium, b.equilibrium) < 0.05


@pytest.mark.slow
def test_a_planner_has_no_exploitability():
    found = enumerate(bandwagon(), {}, MU0, GRID, starts=3, control=True)
    assert found
    for branch in found:
        assert branch.equilibrium.problem.control
        assert np.isnan(branch.exploitability)
        assert branch.residual < 1e-10


# The spectral radius.


@jax.jit
def best_response_jacobian(eq):
    """The map `dmu -> du -> dmu` as one dense matrix, from the derivative of all defects by all unknowns."""
    mu, value = (x.T for x in eq.nodes)
    size = mu.size

    def defects(mu, value):
        r_mu, r_u = residual(eq.scheme, eq.problem, mu.reshape(value.shape), value)
        return r_mu.reshape(-1), r_u.reshape(-1)

    def flat(x, y):
        return defects(x.reshape(mu.shape), y.reshape(mu.shape))

    (mu_mu, mu_u), (u_mu, u_u) = jax.jacfwd(flat, (0, 1))(mu.reshape(-1), value.reshape(-1))
    assert mu_mu.shape == (size, size)
    return jnp.linalg.solve(mu_mu, mu_u) @ jnp.linalg.solve(u_u, u_mu)


def dense_radius(eq):
    return np.abs(np.linalg.eigvals(np.asarray(best_response_jacobian(eq)))).max()


@pytest.mark.parametrize("scheme", ["exponential", pytest.param("paper", marks=pytest.mark.slow)])
def test_the_spectral_radius_is_that_of_the_dense_matrix(scheme):
    for case, published in zip(RADIUS_CASES, RADII, strict=True):
        eq = solved(case, scheme=scheme)
        radius = spectral_radius(eq)
        assert radius == pytest.approx(dense_radius(eq), rel=1e-4)
        assert radius == pytest.approx(published, rel=0.2)


def test_the_spectral_radius_of_every_branch_is_that_of_the_dense_matrix(branches):
    for branch in branches:
        assert branch.spectral_radius == pytest.approx(dense_radius(branch.equilibrium), rel=1e-4, abs=1e-6)


def test_a_failed_solve_has_no_spectral_radius():
    case = RADIUS_CASES[0]
    eq = solve(case.game, case.params, case.mu0, case.grid, max_steps=1)
    assert not bool(eq.converged)
    assert np.isnan(spectral_radius(eq))


# Several equilibria in a posterior.

PATHS = {"price": dist.LogNormal(np.log(3.0), 0.1)}
NOISE = 1e-2


def observed(branch, seed=0, **noise):
    eq = branch.equilibrium
    noise = noise or {"noise": "gaussian", "size": NOISE, "seed": seed}
    return simulate(bandwagon(), {"price": 3.0}, MU0, GRID, observe_every=4, guess=(eq.mu, eq.value), **noise)
