"""Protects the search for several equilibria, the figure that says which of them attract, and their summing out of a posterior."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
from jax import lax
from systems import RADII, RADIUS_CASES, solved

from bayes_mfg.data import Population, simulate
from bayes_mfg.equilibrium import Code, Status, TimeGrid, solve, spectral_radius
from bayes_mfg.equilibrium import enumerate as all_equilibria
from bayes_mfg.equilibrium.schemes import residual
from bayes_mfg.errors import InputError
from bayes_mfg.games import Emissions
from bayes_mfg.inference import fit
from bayes_mfg.inference.coordinates import coordinates, value_and_gradient
from bayes_mfg.models import Calibration, Gaussian

D, GRID = 10, TimeGrid(4.0, 41)
MU0 = np.eye(D)[1]
STARTS = 8
PATHS = {"price": dist.LogNormal(np.log(2.9), 0.1)}


def bandwagon(price=3.0):
    """Two equilibria attract: firms keep to the cap of 3, because all do and who does not is fined, or all exceed it."""
    return Emissions(D, cap=3.0, price=float(price), base_rate=1.1)


def mean(eq):
    return float(np.asarray(eq.mu[-1]) @ np.arange(D))


def far(a, b):
    return float(jnp.max(jnp.abs(a.mu - b.mu)))


@pytest.fixture(scope="module")
def branches():
    return all_equilibria(bandwagon(), {}, MU0, GRID, starts=STARTS)


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


@jax.jit
def played(eq, mu):
    """Where 60 rounds of best responses lead from a believed population `(d, M + 1)`, each round solved by as many passes as it takes."""

    def sweep(mu, value):
        return eq.scheme.sweep(eq.problem, mu, value)[0]

    def round_of(_, z):
        mu, value = z
        value = lax.fori_loop(0, 25, lambda _, v: sweep(mu, v)[1], value)
        return lax.fori_loop(0, 25, lambda _, m: sweep(m, value)[0], mu), value

    return lax.fori_loop(0, 60, round_of, (mu, eq.nodes[1].T))[0]


def test_beliefs_close_to_an_equilibrium_return_to_it_only_where_it_attracts(branches):
    """What the spectral radius says, by playing the game."""
    low, between, high = (branch.equilibrium for branch in branches)
    shift = 1e-3 * (high.nodes[0].T - low.nodes[0].T)
    for eq in (low, high):
        end = played(eq, eq.nodes[0].T + shift)
        assert float(jnp.max(jnp.abs(end - eq.nodes[0].T))) < 1e-8
    for sign, home in ((-1, low), (1, high)):
        end = played(between, between.nodes[0].T + sign * shift)
        assert float(jnp.max(jnp.abs(end - home.nodes[0].T))) < 1e-6


def test_the_same_search_finds_the_same(branches):
    again = all_equilibria(bandwagon(), {}, MU0, GRID, starts=STARTS)
    for a, b in zip(branches, again, strict=True):
        assert (a.residual, a.spectral_radius, a.starts) == (b.residual, b.spectral_radius, b.starts)
        np.testing.assert_array_equal(a.equilibrium.mu, b.equilibrium.mu)


def test_where_nobody_is_fined_there_is_one_equilibrium():
    (only,) = all_equilibria(bandwagon(price=0.0), {}, MU0, GRID, starts=STARTS)
    assert only.starts == STARTS
    assert only.attracts and only.spectral_radius == 0.0
    # All climb at the base rate.
    assert mean(only.equilibrium) == pytest.approx(1 + 1.1 * 4, abs=0.1)


def test_guesses_are_starts_like_others(branches):
    """From one belief the search finds what that leads to; a guess of the other equilibrium adds it, and with it the one between."""
    high = branches[2].equilibrium
    guess = [branches[2]] * (STARTS - 1)
    found = all_equilibria(bandwagon(), {}, MU0, GRID, starts=1, guesses=guess)
    assert far(found[-1].equilibrium, high) < 1e-8
    assert found[-1].starts >= STARTS - 1
    between = branches[1].equilibrium
    found = all_equilibria(bandwagon(), {}, MU0, GRID, starts=1, guesses=[between] + [(between.mu, between.value)] * (STARTS - 2))
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
        all_equilibria(bandwagon(), {}, MU0, GRID, **{"starts": STARTS, **options})


def test_parameters_are_checked_as_in_solve():
    with pytest.raises(InputError):
        all_equilibria(bandwagon(), {"prize": 1.0}, MU0, GRID)


@pytest.mark.slow
def test_the_papers_scheme_has_the_same_equilibria_to_its_order(branches):
    found = all_equilibria(bandwagon(), {}, MU0, GRID, starts=STARTS, scheme="paper")
    check(found)
    for a, b in zip(branches, found, strict=True):
        assert far(a.equilibrium, b.equilibrium) < 0.05


@pytest.mark.slow
def test_a_planner_has_no_exploitability():
    found = all_equilibria(bandwagon(), {}, MU0, GRID, starts=3, control=True)
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
    failed = dataclasses.replace(solved(RADIUS_CASES[0]), status=Status(jnp.asarray(Code.MAX_STEPS)))
    assert np.isnan(spectral_radius(failed))


# Several equilibria in a posterior.

PRICE, NOISE, EVERY = 3.0, 1e-3, 4


def beliefs(branches):
    """The two that attract, on the points of the data."""
    return [(branch.equilibrium.mu[::EVERY], branch.equilibrium.value[::EVERY]) for branch in (branches[0], branches[2])]


def observed(branches, which, seed=0):
    """Noisy populations that follow the branches named, one trajectory each."""
    shares = []
    for r, k in enumerate(which):
        eq = branches[k].equilibrium
        one = simulate(
            bandwagon(),
            {"price": PRICE},
            MU0,
            GRID,
            noise="gaussian",
            size=NOISE,
            seed=seed + r,
            observe_every=EVERY,
            guess=(eq.mu, eq.value),
        )
        shares.append(one.shares[0])
    return Population(GRID.times[::EVERY], proportions=np.stack(shares), states=one.states)


@pytest.fixture(scope="module")
def model(branches):
    """One trajectory keeps to the cap, the other exceeds it; unknown are the price, the noise, and which does what."""
    return Calibration(
        bandwagon(),
        observed(branches, (0, 2)),
        {"price": dist.LogNormal(np.log(2.9), 0.1)},
        Gaussian(scale=dist.LogNormal(np.log(0.01), 2.0)),
        initial=MU0,
        substeps=EVERY,
        branches=beliefs(branches),
    )


def place(model, price, scale):
    sites = {"price/value": jnp.asarray(price), "scale": jnp.asarray(scale)}
    return coordinates(model).unconstrain(sites)


@pytest.mark.parametrize("scale", [NOISE, 0.3], ids=["sharp", "vague"])
def test_the_density_is_the_mean_over_branches(model, branches, scale):
    """Of the densities of each alone, trajectory by trajectory; with much noise both branches count."""
    price = 3.05
    x = place(model, price, scale)
    value, _ = value_and_gradient(model)(x, model.data)
    found = float(coordinates(model).prior_potential(x, model.data) - value)
    alone = np.array(
        [
            [scipy.stats.norm.logpdf(shares, eq.mu[::EVERY], scale).sum() for shares in model.population.shares]
            for eq in (
                solve(bandwagon(price), {}, MU0, GRID, guess=(b.equilibrium.mu, b.equilibrium.value))
                for b in (branches[0], branches[2])
            )
        ]
    )
    assert alone.shape == (2, 2)
    assert found == pytest.approx(np.sum(scipy.special.logsumexp(alone, axis=0) - np.log(2)), rel=1e-9)
    if scale == 0.3:  # or the mean would be no more than the larger
        assert abs(alone[0] - alone[1]).max() < 12


@pytest.mark.parametrize("scale", [3e-3, 0.3], ids=["sharp", "vague"])
def test_the_gradient_goes_through_all_branches(model, scale):
    function = value_and_gradient(model)
    x, h = place(model, 2.95, scale), 1e-5
    exact = np.asarray(function(x, model.data)[1])
    differences = [
        (float(function(x + h * e, model.data)[0]) - float(function(x - h * e, model.data)[0])) / (2 * h) for e in jnp.eye(2)
    ]
    np.testing.assert_allclose(exact, differences, rtol=1e-5, atol=1e-5)


def test_a_failed_branch_makes_the_density_not_a_number(model):
    """A price that is not a number has no equilibrium in any branch."""
    assert np.isnan(float(value_and_gradient(model)(jnp.array([jnp.nan, 0.0]), model.data)[0]))


def check_branches(result, model):
    posterior = result.tree["posterior"]
    assert posterior["branch"].dims == ("chain", "draw", "trajectory", "equilibrium")
    np.testing.assert_allclose(posterior["branch"].sum("equilibrium"), 1.0, atol=1e-12)
    np.testing.assert_allclose(posterior["branch"].mean(("chain", "draw")), np.eye(2), atol=1e-6)
    # The populations reported are those of the branches that the data follow.
    seen = posterior["mu"].mean(("chain", "draw"))
    np.testing.assert_allclose(seen, model.population.shares, atol=6 * NOISE)


@pytest.mark.slow
def test_a_point_fit_finds_the_branch_of_every_trajectory_and_the_price(model):
    result = fit(model, method="point", prior_samples=0)
    check_branches(result, model)
    assert float(result.tree["posterior"]["price"].isel(chain=0, draw=0, time=0)) == pytest.approx(PRICE, abs=0.05)
    assert float(result.tree["posterior"]["scale"].isel(chain=0, draw=0)) == pytest.approx(NOISE, rel=0.3)


@pytest.mark.slow
def test_either_branch_is_recognised_by_itself(model, branches):
    for k, which in ((0, (0, 0)), (1, (2, 2))):
        other = model.with_population(observed(branches, which, seed=10))
        posterior = fit(other, method="point", prior_samples=0).tree["posterior"]
        assert (posterior["branch"].isel(equilibrium=k) > 1 - 1e-6).all()


@pytest.mark.slow
def test_nuts_sums_the_branches_out(model):
    """At 4 sds the price's check fails by chance 6 times in 1e5."""
    result = fit(model, num_chains=2, num_warmup=80, num_samples=100, prior_samples=0, seed=1)
    check_branches(result, model)
    price = result.tree["posterior"]["price"].to_numpy()
    assert abs(price.mean() - PRICE) < 4 * price.std()
    assert 0 < price.std() < 0.05
    assert not result.tree["sample_stats"]["failed_solve"].any()


@pytest.mark.parametrize("wrong", ["one", "shape", "nan", "triple"])
def test_branches_must_be_several_and_on_the_models_grid(model, branches, wrong):
    low, high = beliefs(branches)
    given, word = {
        "one": ([low], "at least two"),
        "shape": ([low, (high[0][:-1], high[1])], "branch 1 must be"),
        "nan": ([low, (high[0] * jnp.nan, high[1])], "branch 1 must be"),
        "triple": ([(*low, low[0]), high], "branch 0 must be"),
    }[wrong]
    with pytest.raises(InputError, match=word):
        Calibration(bandwagon(), model.population, PATHS, Gaussian(), initial=MU0, substeps=EVERY, branches=given)


def test_branches_may_be_equilibria_on_the_models_grid(branches):
    """As `enumerate` gives them; a model on another grid refuses them."""
    equilibria = [branches[0].equilibrium, branches[2].equilibrium]
    shares = np.stack([np.asarray(eq.mu) for eq in equilibria])
    fine = Population(GRID.times, proportions=np.maximum(shares, 0), states=bandwagon().state_names)
    model = Calibration(bandwagon(), fine, PATHS, Gaussian(), initial=MU0, substeps=1, branches=equilibria)
    assert model.solver["branches"] == 2
    for part, name in zip(model.branches, ("mu", "value"), strict=True):
        np.testing.assert_array_equal(part, np.stack([getattr(eq, name) for eq in equilibria]))
    coarse = Population(fine.times[::EVERY], proportions=fine.shares[:, ::EVERY], states=fine.states)
    with pytest.raises(InputError, match="branch 0 must be an equilibrium on the model's grid"):
        Calibration(bandwagon(), coarse, PATHS, Gaussian(), initial=MU0, substeps=EVERY, branches=equilibria)


# Where a branch has gone.


def test_newton_gives_up_where_a_branch_is_gone_and_the_solver_goes_on(branches) -> None:
    """Past a fold Newton's method crawls to the end of its 60 steps; the automatic choice stops it, and its marches find what is left."""
    left, _, gone = (branch.equilibrium for branch in branches)
    found, there = (solve(bandwagon(8.0), {}, MU0, GRID, guess=(eq.mu, eq.value)) for eq in (gone, left))
    assert bool(found.converged)
    assert int(found.iterations[0]) > 0  # marches
    assert int(found.iterations[2]) < 15
    assert far(found, there) < 1e-8
