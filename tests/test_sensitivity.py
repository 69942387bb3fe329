"""Protects the Gauss-Newton expansion of the posterior, the mode search on it, and the Laplace approximation with its importance weights."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from one_unknown import NOISE, calibration, log_gamma, simulated

from bayes_mfg.data import Population, simulate
from bayes_mfg.equilibrium import TimeGrid
from bayes_mfg.errors import InputError
from bayes_mfg.games import SIR, Emissions
from bayes_mfg.inference import find_mode, fit, point
from bayes_mfg.inference.coordinates import coordinates, value_and_gradient
from bayes_mfg.inference.point import exact_curvature
from bayes_mfg.inference.sensitivity import quadratic
from bayes_mfg.inference.svi import potentials, psis
from bayes_mfg.models import Binomial, Calibration, Dirichlet, Gaussian, Seeded
from bayes_mfg.paths import Neural

DATA = simulated(noise="dirichlet", size=NOISE, seed=1)
SHARP, DRAWS = 1e-3, 1000


@functools.cache
def known():
    """One unknown, with a wide prior."""
    data = simulated(noise="dirichlet", size=SHARP, seed=1)
    return calibration(data, gamma=dist.LogNormal(0.0, 3.0), observation=Dirichlet(noise=SHARP))


@functools.cache
def unknown():
    """Gamma and the noise, which both trajectories share, and the start of each."""
    return calibration(DATA, observation=Dirichlet(), initial=None, method="newton")


@functools.cache
def crowded():
    """A parameter that follows the population, hence differs between trajectories."""
    return calibration(DATA, gamma=Neural(width=2, input="population"), observation=Gaussian(scale=dist.HalfNormal(0.1)))


@functools.cache
def seeded():
    """An epidemic from unknown seeds; counts of one state, some of them not seen."""
    grid = TimeGrid(20.0, 11)
    params = {"beta": 0.6, "recovery": 0.1}
    seen = simulate(
        SIR(), params, np.array([[0.98, 0.02, 0.0], [0.9, 0.1, 0.0], [0.95, 0.05, 0.0]]), grid, noise="multinomial", size=500
    )
    mask = np.random.default_rng(0).random(seen.mask.shape) < 0.8
    data = Population(seen.times, counts=seen.counts, totals=seen.totals, states=seen.states, mask=mask)
    paths = {"beta": dist.LogNormal(-0.5, 0.3), "recovery": dist.LogNormal(-2.3, 0.3), "infection_cost": 0.1}
    start = Seeded(share=dist.LogUniform(1e-3, 0.3))
    return Calibration(SIR(), data, paths, Binomial(states=["I"]), initial=start, substeps=4, method="newton")


@functools.cache
def branched():
    """Emissions with two equilibria that attract; one trajectory each, and so much noise that both count."""
    d, grid = 10, TimeGrid(4.0, 11, 4)
    game, mu0 = Emissions(d, cap=3.0, price=3.0), np.eye(d)[1]
    beliefs, shares = [], []
    for end in (2, 6):
        target = np.eye(d)[end]
        mu = mu0 + (target - mu0) * (grid.times / grid.horizon)[:, None]
        value = np.tile(np.asarray(game.terminal_cost(0.0, jnp.asarray(target), {})), (11, 1))
        beliefs.append((mu, value))
        shares.append(simulate(game, {}, mu0, grid, guess=(mu, value)).shares[0])
    assert np.abs(shares[0] - shares[1]).max() > 0.1
    data = Population(grid.times, proportions=np.stack(shares), states=game.state_names)
    observation = Gaussian(scale=dist.LogNormal(np.log(0.2), 0.3))
    return Calibration(
        game, data, {"price": dist.LogNormal(np.log(3.0), 0.05)}, observation, initial=mu0, substeps=4, branches=beliefs
    )


SLOW = [pytest.param(make, marks=pytest.mark.slow) for make in (crowded, seeded, branched)]


def places(model):
    """The prior's median, and two points around it."""
    median = coordinates(model).prior_median()
    rng = np.random.default_rng(0)
    return [jnp.asarray(median + 0.3 * k * rng.standard_normal(median.size)) for k in range(3)]


# The expansion.


@pytest.mark.parametrize("make", [known, unknown, *SLOW])
def test_value_and_gradient_are_those_of_the_potential(make):
    model = make()
    for x in places(model):
        found = quadratic(model)(x, model.data)
        value, gradient = value_and_gradient(model)(x, model.data)
        assert float(found.value) == pytest.approx(float(value), rel=1e-10)
        np.testing.assert_allclose(found.gradient, gradient, rtol=1e-10, atol=1e-10 * float(jnp.abs(gradient).max()))


@pytest.mark.parametrize("make", [unknown, *SLOW])
def test_the_curvature_is_built_of_derivatives_of_the_pieces(make):
    """`J' W J + prior` with every piece dense, by JAX alone: no unknown is taken to belong to one trajectory."""
    model = make()
    space = coordinates(model)
    names = list(model.observation.priors)

    def outputs(x):
        sites = space.constrain(x)
        result = model.trajectories(space.latents(sites, model.data))
        added = jnp.zeros(0) if result.correction is None else result.correction
        own = jnp.stack([sites[name] for name in names]) if names else jnp.zeros(0)
        return jnp.concatenate([jnp.ravel(result.mu), own, jnp.ravel(added)])

    shape = (model.population.n_trajectories, model.grid.points, model.population.n_states)
    count = int(np.prod(shape))

    def misfit(y):
        own = {name: y[count + k] for k, name in enumerate(names)}
        seen = model.likelihood({"own": own}, y[:count].reshape(shape), model.data).mask(model.data.record.mask)
        return -jnp.sum(seen.log_prob(model.data.record.values)) - jnp.sum(y[count + len(names) :])

    @jax.jit
    def brute(x):
        jacobian, y = jax.jacfwd(lambda x: (outputs(x),) * 2, has_aux=True)(x)
        prior = jax.hessian(lambda x: space.prior_potential(x, model.data))(x)
        return jacobian.T @ jax.hessian(misfit)(y) @ jacobian + prior

    for x in places(model)[:2]:
        found, right = np.asarray(quadratic(model)(x, model.data).curvature), np.asarray(brute(x))
        np.testing.assert_allclose(found, right, rtol=1e-8, atol=1e-9 * np.abs(right).max())
        np.testing.assert_array_equal(found, found.T)


def test_unknowns_of_one_trajectory_have_no_curvature_with_those_of_another():
    model = unknown()
    space = coordinates(model)
    x = places(model)[1]
    curvature = np.asarray(quadratic(model)(x, model.data).curvature)
    first = space.offsets["mu0"] + np.arange(4).reshape(2, 2)
    assert not curvature[np.ix_(first[0], first[1])].any()
    assert np.abs(curvature[np.ix_(first[0], first[0])]).min() > 0
    shared = [k for k in range(space.size) if k not in first]
    assert np.abs(curvature[np.ix_(shared, first.reshape(-1))]).max() > 0


def test_where_a_solve_fails_the_value_is_not_a_number():
    model = known()
    assert np.isnan(float(quadratic(model)(jnp.array([jnp.nan]), model.data).value))


# The mode.


@pytest.mark.parametrize("make", [unknown, SLOW[1]])
def test_first_and_second_order_find_the_same_mode(make, monkeypatch):
    model = make()
    first = find_mode(model, starts=2)
    monkeypatch.setattr(point, "FEW", 0)
    second = find_mode(model, starts=2)
    np.testing.assert_allclose(np.linalg.solve(second.factor, first.location - second.location), 0.0, atol=1e-3)
    assert second.potential == pytest.approx(first.potential, abs=1e-5)
    assert max(first.gradient_norm, second.gradient_norm) < 1e-3
    assert second.evaluations < first.evaluations
    # Gauss-Newton leaves out the equilibrium's second derivative times the misfit: little, where the data fit.
    spread = np.sqrt(np.diag(second.covariance)) / np.sqrt(np.diag(first.covariance))
    assert (np.abs(np.log(spread)) < 0.2).all()
    np.testing.assert_allclose(
        exact_curvature(model, first.location)[0], first.covariance, rtol=1e-2, atol=1e-3 * np.abs(first.covariance).max()
    )


def test_where_gauss_newton_creeps_the_mode_is_the_same_and_its_curvature_exact(monkeypatch):
    model = unknown()
    monkeypatch.setattr(point, "FEW", 0)
    known = find_mode(model, starts=1)
    monkeypatch.setattr("bayes_mfg.inference.objective.PATIENCE", 1)
    crept = find_mode(model, starts=1)
    np.testing.assert_allclose(np.linalg.solve(known.factor, crept.location - known.location), 0.0, atol=1e-3)
    assert crept.converged and crept.gradient_norm < 1e-3
    np.testing.assert_allclose(crept.covariance, exact_curvature(model, crept.location)[0], rtol=1e-9)
    assert not np.allclose(crept.covariance, known.covariance, rtol=1e-6)


# Importance weights.


def normal_logpdf(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - np.log(sd * np.sqrt(2 * np.pi))


def test_importance_weights_turn_one_normal_into_another():
    """Checks at 4 standard errors; together they fail by chance 2 times in 1e4."""
    x = np.random.default_rng(0).standard_normal(5000)
    ratios = normal_logpdf(x, 0.3, 0.8) - normal_logpdf(x, 0.0, 1.0)
    weights, pareto_k = psis(ratios)
    assert weights.sum() == pytest.approx(1.0) and (weights >= 0).all()
    ess = 1 / np.sum(weights**2)
    assert ess < 5000
    assert np.sum(weights * x) == pytest.approx(0.3, abs=4 * 0.8 / np.sqrt(ess))
    assert np.sqrt(np.sum(weights * (x - 0.3) ** 2)) == pytest.approx(0.8, abs=4 * 0.8 / np.sqrt(2 * ess))
    assert pareto_k < 0.4
    # All but the largest are the plain weights.
    plain = np.exp(ratios)
    body = plain < np.quantile(plain, 0.9)
    share = weights[body] / plain[body]
    np.testing.assert_allclose(share, share[0], rtol=1e-9)
    # Smoothing keeps the order, up to ties at the cap of the largest.
    assert (np.diff(weights[np.argsort(plain)]) >= -1e-12).all()


def test_weights_do_not_depend_on_the_unknown_evidence():
    x = np.random.default_rng(1).standard_normal(1000)
    ratios = normal_logpdf(x, 0.5, 1.1) - normal_logpdf(x, 0.0, 1.0)
    weights, pareto_k = psis(ratios)
    moved, same = psis(ratios - 1234.5)
    np.testing.assert_allclose(moved, weights, rtol=1e-8)
    assert same == pytest.approx(pareto_k, abs=1e-8)


def test_a_guide_much_narrower_than_its_target_has_a_large_pareto_k():
    x = 0.3 * np.random.default_rng(0).standard_normal(5000)
    _, pareto_k = psis(normal_logpdf(x, 0.0, 1.0) - normal_logpdf(x, 0.0, 0.3))
    assert pareto_k > 0.7


# The Laplace approximation, against quadrature over the one unknown.

# Between these gammas lies what the data allow; as many points as draws, so that both share a compiled function.
LOG_GAMMAS = np.linspace(-0.6, 1.6, DRAWS)


def seeing(time):
    """The model whose data are the second trajectory's at one time."""
    data = known().population
    mask = np.zeros(data.shares.shape, bool)
    mask[1, time] = True
    part = Population(data.times, proportions=data.shares, states=data.states, trajectories=data.trajectories, mask=mask)
    return known().with_population(part)


def quadrature(model):
    """Mean and sd of log(gamma)."""
    u = LOG_GAMMAS
    density = -potentials(model, u[:, None])
    mass = np.exp(density - density.max())
    mass = mass / mass.sum()
    assert max(mass[0], mass[-1]) < 1e-6
    mean = np.sum(mass * u)
    return mean, np.sqrt(np.sum(mass * (u - mean) ** 2))


def laplace(model, **options):
    result = fit(model, method="svi", guide="laplace", num_samples=DRAWS, prior_samples=0, starts=1, seed=2, **options)
    return result, log_gamma(result)[0], json.loads(result.tree.attrs["inference"])


def test_laplace_is_right_about_a_nearly_normal_posterior():
    """Two checks at 4 standard errors fail by chance 1 time in 1e4; a twentieth of an sd is left for what is not normal."""
    model = known().with_population(simulated(2.0, noise="dirichlet", size=SHARP, seed=1))
    mean, sd = quadrature(model)
    result, draws, settings = laplace(model)
    assert abs(draws.mean() - mean) < (4 / np.sqrt(DRAWS) + 0.05) * sd
    assert draws.std() == pytest.approx(sd, rel=4 / np.sqrt(2 * DRAWS) + 0.05)
    assert settings["guide"] == "laplace" and settings["importance"] is False
    assert settings["pareto_k"] < 0.7 and settings["importance_ess"] > 0.9 * DRAWS
    assert result.warnings == []
    assert len(set(draws)) == DRAWS
    # lp is the density of the draws.
    lp = -potentials(model, result.tree["unconstrained_posterior"]["latent"].to_numpy()[0])
    np.testing.assert_allclose(result.tree["sample_stats"]["lp"].to_numpy()[0], lp, rtol=1e-12)


def test_importance_weights_mend_laplace_where_the_posterior_is_not_normal():
    """One late datum: rates at their bound bend the density off the mode. Two checks at 4 standard errors fail by chance 1 time in 1e4."""
    model = seeing(10)
    mean, sd = quadrature(model)
    _, plain, _ = laplace(model)
    result, draws, settings = laplace(model, importance=True)
    assert settings["importance"] is True and settings["pareto_k"] < 0.7
    assert result.warnings == []
    ess = settings["importance_ess"]
    assert plain.std() > 1.12 * sd
    assert draws.std() == pytest.approx(sd, rel=4 / np.sqrt(2 * ess))
    assert abs(draws.mean() - mean) < 4 * sd / np.sqrt(ess)
    # Resampled, not moved: all are draws of the guide, some of them more than once.
    assert set(draws) < set(plain) and len(draws) == DRAWS


def test_a_guide_that_is_far_off_says_so_and_is_not_reweighted():
    """Halfway through the data allow gammas of three orders of magnitude."""
    model = seeing(5)
    for importance in (False, True):
        result, draws, settings = laplace(model, importance=importance)
        assert settings["pareto_k"] > 0.7
        assert settings["importance"] is False
        (sentence,) = [told for told in result.warnings if told.startswith("The guide")]
        assert sentence.startswith("The guide is far from the posterior: Pareto k")
        assert f"{settings['pareto_k']:.2f}" in sentence
        assert ("not reweighted" in sentence) is importance
        assert len(set(draws)) == len(draws)


def test_importance_is_a_yes_or_no():
    with pytest.raises(InputError, match="importance is 'yes'"):
        laplace(known(), importance="yes")
