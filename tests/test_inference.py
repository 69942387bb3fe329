"""Protects inference: modes and draws are those of the posterior, failures are counted, and a fit survives being written and read."""

import dataclasses
import json
import os
import re
from pathlib import Path

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
import xarray as xr
from linear_model import Linear, population
from one_unknown import GRID, NOISE, STARTS, Fragile, calibration, log_gamma, simulated

from bayes_mfg import inference
from bayes_mfg.data import Population
from bayes_mfg.equilibrium import solve
from bayes_mfg.errors import InputError
from bayes_mfg.games import LinearQuadratic
from bayes_mfg.inference import FitError, find_mode, fit, load
from bayes_mfg.inference.assemble import assemble, convergence_warnings, derived, prior_draws
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.fit import _best_draw
from bayes_mfg.inference.paper import fit_paper
from bayes_mfg.inference.point import exact_curvature, flat_directions
from bayes_mfg.inference.result import _varies
from bayes_mfg.inference.svi import _judged, potentials, psis
from bayes_mfg.models import Dirichlet
from bayes_mfg.paths import GaussianProcess, PiecewiseConstant

QUICK = {"num_chains": 2, "num_warmup": 150, "num_samples": 100, "prior_samples": 100, "seed": 3}


@pytest.fixture(scope="module")
def model():
    """One unknown, gamma, with a lognormal prior; noise and starts are known."""
    return calibration(simulated(noise="dirichlet", size=NOISE, seed=1))


@pytest.fixture(scope="module")
def mode(model):
    return find_mode(model)


@pytest.fixture(scope="module")
def fitted(model):
    return fit(model, **QUICK)


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    return fitted.save(tmp_path_factory.mktemp("fit") / "fit.nc")


@pytest.fixture(scope="module")
def posterior(model):
    """log(gamma) on a fine grid, and its normalised posterior mass there, from the formulas alone."""
    u = np.linspace(np.log(0.3), np.log(8.0), 2001)

    def populations(log_gamma):
        return jnp.stack([solve(LinearQuadratic(), {"gamma": jnp.exp(log_gamma)}, start, GRID).mu for start in STARTS])

    mu = np.asarray(jax.jit(lambda many: jax.lax.map(populations, many, batch_size=100))(jnp.asarray(u)))
    alpha, shares = mu / NOISE, model.population.shares
    log_beta = scipy.special.gammaln(alpha).sum(-1) - scipy.special.gammaln(alpha.sum(-1))
    density = scipy.stats.norm.logpdf(u) + np.sum(((alpha - 1.0) * np.log(shares)).sum(-1) - log_beta, axis=(1, 2))
    mass = np.exp(density - density.max())
    assert max(mass[0], mass[-1]) < 1e-8
    return u, mass / mass.sum()


def moments(u, mass):
    mean = np.sum(mass * u)
    return mean, np.sqrt(np.sum(mass * (u - mean) ** 2))


def one_sentence(error):
    """One line that ends where its only sentence ends."""
    text = str(error.value)
    return "\n" not in text and text.endswith(".") and not re.search(r"[.!?]\s+[A-Z]", text)


def refuses(call):
    with pytest.raises(InputError) as error:
        call()
    assert one_sentence(error), str(error.value)


# The mode.


def test_the_gradient_vanishes_at_the_mode(model, mode):
    gradient = jax.grad(coordinates(model).potential)(jnp.asarray(mode.location), model.data)
    assert np.linalg.norm(mode.factor.T @ np.asarray(gradient)) < 1e-4
    assert mode.gradient_norm < 1e-4
    assert np.ptp(mode.starts) < 1e-4
    assert mode.failed_solves == 0


def test_the_mode_is_where_a_fine_grid_has_its_maximum(model, mode, posterior):
    u, mass = posterior
    k = int(np.argmax(mass))
    bend = np.polyfit(u[k - 2 : k + 3] - u[k], np.log(mass[k - 2 : k + 3]), 2)
    np.testing.assert_allclose(mode.location, [u[k] - bend[1] / (2 * bend[0])], atol=1e-4)
    np.testing.assert_allclose(exact_curvature(model, mode.location)[0], [[-0.5 / bend[0]]], rtol=1e-3)
    # The mode's own curvature leaves out second derivatives of the equilibrium: a preconditioner, not a width.
    np.testing.assert_allclose(mode.covariance, [[-0.5 / bend[0]]], rtol=0.2)


def test_a_search_that_ends_above_its_start_ends_there(model, monkeypatch):
    """Line searches that give up leave off anywhere, also where solves fail."""
    minimise, searches = inference.point.first_order, []

    def lost(objective, start, max_steps):
        searches.append(start)
        return (1e10, start + 50.0, False) if len(searches) == 1 else minimise(objective, start, max_steps)

    monkeypatch.setattr("bayes_mfg.inference.point.first_order", lost)
    found = find_mode(model, starts=1)
    begin = coordinates(model).prior_median()
    np.testing.assert_array_equal(searches[0], begin)
    assert found.starts == (float(potentials(model, begin[None])[0]),)
    assert found.converged  # from there the refinement finds the mode


def test_searches_set_out_from_the_most_probable_of_the_screened_draws(model, monkeypatch):
    fragile = calibration(model.population, Fragile(1.6))
    tried = []

    def solvable(objective, point, centre):
        tried.append(point)
        return original(objective, point, centre)

    original = inference.point.nearest_solvable
    monkeypatch.setattr("bayes_mfg.inference.point.nearest_solvable", solvable)
    find_mode(fragile, starts=3, screened=12, seed=4)
    space = coordinates(fragile)
    draws = [np.asarray(space.unconstrain(space.draw_prior(key))) for key in jax.random.split(jax.random.key(4), 12)]
    heights = potentials(fragile, np.stack(draws))
    assert 0 < np.isnan(heights).sum() < 11
    expected = [space.prior_median(), *(draws[k] for k in np.argsort(heights)[:2])]
    np.testing.assert_allclose(tried, expected)
    with pytest.raises(InputError, match="screened is 12, but starts is 1"):
        find_mode(fragile, starts=1, screened=12)


@pytest.mark.slow
def test_the_exact_curvature_is_the_inverse_of_the_hessian_and_the_modes_own_is_close(model):
    many = calibration(model.population, gamma=PiecewiseConstant(knots=[1.0]), observation=Dirichlet(), initial=None)
    mode = find_mode(many, starts=1)
    space = coordinates(many)
    assert space.size > 4
    hessian = np.asarray(jax.jit(jax.hessian(space.potential))(jnp.asarray(mode.location), many.data))
    inverse = np.linalg.inv(hessian)
    covariance, factor, flat = exact_curvature(many, mode.location)
    assert flat == 0
    np.testing.assert_allclose(covariance, inverse, rtol=1e-3, atol=1e-3 * np.abs(inverse).max())
    np.testing.assert_allclose(factor.T @ hessian @ factor, np.eye(space.size), atol=1e-3)
    seen = np.linalg.eigvalsh(mode.factor.T @ hessian @ mode.factor)
    assert seen.min() > 0.5 and seen.max() < 2.0
    assert mode.gradient_norm < 1e-3


def test_point_fits_report_the_mode(model, mode):
    result = fit(model, method="point", prior_samples=0)
    assert float(log_gamma(result)[0, 0]) == pytest.approx(mode.location[0], abs=1e-6)
    assert result.tree["posterior"].sizes["chain"] == result.tree["posterior"].sizes["draw"] == 1
    assert "prior" not in result.tree.children
    table = result.summary()
    assert list(table.index) == ["gamma"]
    assert table.loc["gamma", "estimate"] == pytest.approx(np.exp(mode.location[0]), rel=1e-6)


# NUTS.


@pytest.mark.slow
def test_nuts_draws_from_the_posterior_that_quadrature_finds(model, posterior):
    """At 4 standard errors each of five figures fails by chance 6 times in 1e5."""
    draws = log_gamma(fit(model, **{**QUICK, "num_samples": 2000}))
    check_draws(draws, *posterior)


def check_draws(draws, u, mass):

    mean, sd = moments(u, mass)
    assert abs(draws.mean() - mean) < 4 * sd / np.sqrt(float(az.ess(draws, method="mean")))
    assert draws.std() == pytest.approx(sd, rel=max(0.04, 4 / np.sqrt(2 * float(az.ess(draws, method="sd")))))
    for p in (0.05, 0.5, 0.95):
        below = draws <= np.interp(p, np.cumsum(mass), u)
        assert abs(below.mean() - p) < 4 * np.sqrt(p * (1 - p) / float(az.ess(below.astype(float), method="mean")))


def test_a_fit_has_the_documented_groups_and_dimensions(model, fitted):
    tree = fitted.tree
    assert {
        "posterior",
        "unconstrained_posterior",
        "posterior_predictive",
        "prior",
        "prior_predictive",
        "sample_stats",
        "solver",
        "log_likelihood",
        "observed_data",
        "constant_data",
    } == set(tree.children)
    full = ("chain", "draw", "trajectory", "time", "state")
    for group in ("posterior", "prior"):
        assert tree[group]["gamma"].dims == ("chain", "draw", "time")
        assert tree[group]["mu"].dims == tree[group]["value"].dims == full
    for group in ("posterior_predictive", "prior_predictive"):
        assert tree[group]["proportions"].dims == full
    assert tree["posterior"]["mu"].shape == (2, 100, 2, 11, 3)
    np.testing.assert_array_equal(tree["posterior"]["time"], GRID.times)
    assert list(tree["posterior"]["trajectory"].to_numpy()) == ["1", "2"]
    assert list(tree["posterior"]["state"].to_numpy()) == ["0", "1", "2"]
    assert tree["prior"].sizes["draw"] == 100
    np.testing.assert_allclose(tree["observed_data"]["proportions"], model.population.shares)
    assert tree["constant_data"]["totals"].dims == ("trajectory", "time")
    assert np.isfinite(tree["posterior"]["mu"]).all()
    np.testing.assert_allclose(tree["posterior"]["mu"].sum("state"), 1.0, atol=1e-9)


def test_a_fit_can_keep_parameters_alone_and_everything_else_comes_from_its_draws(model, fitted, tmp_path):
    lean = fit(model, **QUICK, keep="parameters")
    assert not {"posterior_predictive", "prior_predictive", "log_likelihood"} & set(lean.tree.children)
    assert not {"mu", "value"} & set(lean.tree["posterior"].data_vars) and not {"mu", "value"} & set(lean.tree["prior"].data_vars)
    for group in ("posterior", "prior", "unconstrained_posterior"):
        for name, values in lean.tree[group].data_vars.items():
            np.testing.assert_array_equal(values, fitted.tree[group][name])
    np.testing.assert_array_equal(lean.summary()["mean"]["gamma"], fitted.summary()["mean"]["gamma"])
    lean.report(tmp_path / "lean.html")
    again = load(lean.save(tmp_path / "lean.nc"), model)
    np.testing.assert_allclose(inference.contraction(again).power, inference.contraction(fitted).power, rtol=1e-6)
    np.testing.assert_allclose(
        inference.loo(again, by="observation").elpd, inference.loo(fitted, by="observation").elpd, rtol=1e-9
    )
    others = calibration(model.population, initial=STARTS[::-1])
    with pytest.raises(InputError, match="their equilibria differ"):
        load(tmp_path / "lean.nc", others)
    with pytest.raises(InputError, match="keep is 'some'; it is one of all, parameters"):
        fit(model, keep="some")


def test_sample_stats_say_how_every_draw_was_made(fitted):
    stats = fitted.tree["sample_stats"].to_dataset()
    for name in ("diverging", "failed_solve", "energy", "n_steps", "tree_depth", "acceptance_rate", "lp", "step_size"):
        assert stats[name].dims == ("chain", "draw")
        assert np.isfinite(stats[name]).all()
    assert stats["diverging"].dtype == stats["failed_solve"].dtype == bool
    assert not stats["failed_solve"].any()
    assert ((stats["acceptance_rate"] >= 0) & (stats["acceptance_rate"] <= 1)).all()
    assert (stats["n_steps"] >= 1).all()
    assert (2 ** stats["tree_depth"] - 1 >= stats["n_steps"]).all() and (2 ** (stats["tree_depth"] - 1) <= stats["n_steps"]).all()
    # Energy is potential plus kinetic energy, never below the potential.
    assert (stats["energy"] >= -stats["lp"] - 1e-9).all()


def test_log_densities_of_draws_are_those_of_the_model(model, fitted):
    flat = fitted.tree["unconstrained_posterior"]["latent"].to_numpy()
    some = [(0, 0), (0, 99), (1, 50)]
    lp = [-float(coordinates(model).potential(jnp.asarray(flat[place]), model.data)) for place in some]
    np.testing.assert_allclose([fitted.tree["sample_stats"]["lp"].to_numpy()[place] for place in some], lp, rtol=1e-9)
    prior = scipy.stats.norm.logpdf(flat[..., 0])
    pointwise = fitted.tree["log_likelihood"]["proportions"]
    total = pointwise.sum("observation").to_numpy() + pointwise.attrs["constant"]
    np.testing.assert_allclose(total + prior, fitted.tree["sample_stats"]["lp"], rtol=1e-9)
    # The start is known and so is the noise: the first time's density is the same in every draw.
    assert pointwise.sizes["observation"] == 2 * 10 and float(pointwise["time"].min()) > 0


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")
def test_log_likelihoods_suit_importance_sampling_and_follow_the_mask(model, fitted):
    flat = fitted.tree["unconstrained_posterior"]["latent"].to_numpy()
    population = model.population
    mask = population.mask.copy()
    mask[0, 3] = False
    first = population.trajectories[0]
    part = Population(population.times, proportions=population.proportions, trajectories=population.trajectories, mask=mask)
    options = {"method": "nuts", "seed": 0, "wall_time": 0.0, "settings": {}, "prior_samples": 0}
    for holes in (model.with_population(part), calibration(part)):
        tree = assemble(holes, flat, **options)
        pointwise = tree["log_likelihood"]["proportions"]
        assert pointwise.sizes["observation"] == 19
        assert not ((pointwise["time"] == population.times[3]) & (pointwise["trajectory"] == first)).any()
        whole = fitted.tree["log_likelihood"]["proportions"]
        kept = whole[..., ~((whole["time"] == population.times[3]) & (whole["trajectory"] == first)).to_numpy()]
        np.testing.assert_allclose(pointwise, kept, rtol=1e-9)
        assert np.isfinite(az.loo(tree).elpd)
    assert np.isfinite(az.loo(fitted.tree).elpd)


@pytest.mark.parametrize("count", [1, 101, 149, 250])
def test_any_number_of_draws_is_worked_out_in_chunks(model, fitted, count):
    flat = fitted.tree["unconstrained_posterior"]["latent"].to_numpy().reshape(200, -1)
    some = flat[np.arange(count) % 200]
    gamma = derived(model, some, 0)["parameter/gamma"]
    assert gamma.shape[0] == count
    np.testing.assert_allclose(gamma[:, 0], np.exp(some[:, 0]), rtol=1e-10)


def test_seeds_decide_the_draws(model, fitted):
    xr.testing.assert_identical(fit(model, **QUICK).tree["posterior"].to_dataset(), fitted.tree["posterior"].to_dataset())
    other = fit(model, **{**QUICK, "seed": 4})
    assert not np.any(log_gamma(other) == log_gamma(fitted))
    assert not np.array_equal(log_gamma(fitted)[0], log_gamma(fitted)[1])


def test_summaries_have_a_row_for_every_parameter_and_tell_of_convergence(fitted):
    table = fitted.summary(ci_prob=0.8)
    assert list(table.index) == ["gamma"]
    assert {"mean", "sd", "eti80_lb", "eti80_ub", "r_hat", "ess_bulk", "ess_tail"} <= set(table.columns)
    assert 0.99 < table.loc["gamma", "r_hat"] < 1.1
    gamma = fitted.tree["posterior"]["gamma"].isel(time=0).to_numpy()
    assert table.loc["gamma", "mean"] == pytest.approx(gamma.mean())
    np.testing.assert_allclose(
        table.loc["gamma", ["eti80_lb", "eti80_ub"]].astype(float), np.quantile(gamma, [0.1, 0.9]), rtol=0.02
    )
    assert any("effective sample size" in sentence for sentence in fitted.warnings)


def test_everything_that_is_inferred_is_judged(fitted):
    """Chains that disagree about the noise alone, a tree that is always too deep, an energy that never moves."""
    tree = fitted.tree.copy(deep=True)
    posterior = tree["posterior"].to_dataset()
    shape = (posterior.sizes["chain"], posterior.sizes["draw"])
    rng = np.random.default_rng(0)
    noise = np.exp(0.1 * rng.standard_normal(shape) + 2.0 * np.arange(shape[0])[:, None])
    tree["posterior"] = xr.DataTree(posterior.assign(noise=(("chain", "draw"), noise)))
    stats = tree["sample_stats"].to_dataset()
    drift = np.cumsum(0.01 * rng.standard_normal(shape), axis=1)
    tree["sample_stats"] = xr.DataTree(stats.assign(tree_depth=stats["tree_depth"] * 0 + 10, energy=(("chain", "draw"), drift)))
    told = " ".join(convergence_warnings(tree))
    assert "(noise)" in told and "tree depth" in told and "E-BFMI" in told


def test_the_elbo_is_a_bound_on_the_evidence(model):
    """Which quadrature over the one unknown gives."""
    space = coordinates(model)
    u = np.linspace(-1.5, 2.5, 2001)
    density = -np.asarray(jax.jit(lambda many: jax.lax.map(lambda x: space.potential(x[None], model.data), many))(jnp.asarray(u)))
    evidence = float(np.log(np.sum(np.exp(density - density.max())) * (u[1] - u[0])) + density.max())
    result = fit(model, method="svi", num_steps=300, num_samples=400, prior_samples=0, seed=0)
    elbo = json.loads(result.tree.attrs["inference"])["elbo"]
    assert evidence - 0.3 < elbo < evidence + 0.02  # above by the noise of its draws, at most


def test_nothing_is_printed_without_a_terminal(model, fitted, capfd):
    fit(model, **QUICK)
    fit(model, method="point", prior_samples=0)
    fitted.summary()
    assert capfd.readouterr() == ("", "")


# Parameters without an equilibrium.


@pytest.fixture(scope="module")
def fragile(model, posterior):
    """The same data; gammas above the 80 % quantile of the posterior have no equilibrium."""
    u, mass = posterior
    return calibration(model.population, Fragile(float(np.exp(np.interp(0.8, np.cumsum(mass), u)))))


def assert_no_nan(result):
    for group in result.tree.subtree:
        for name, variable in group.variables.items():
            if variable.dtype.kind == "f":
                assert not np.isnan(variable.to_numpy()).any(), f"{group.path}/{name}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "failing",
    [
        lambda _: Linear(population(), limit=0.9),
        pytest.param(lambda get: get("fragile"), marks=pytest.mark.long),
    ],
    ids=["without a game", "equilibria"],
)
def test_updates_that_met_failed_solves_are_skipped_and_leave_no_gap(failing, request):
    options = {"num_steps": 300, "num_samples": 100, "prior_samples": 20, "num_particles": 4}
    result = fit(failing(request.getfixturevalue), method="svi", guide="mean-field", seed=0, **options)
    told = json.loads(result.tree.attrs["inference"])
    assert 0 < told["skipped_updates"] < told["num_steps"]
    assert f"{told['skipped_updates']} of {told['num_steps']} updates of the guide" in str(result)
    assert result.tree["elbo"].sizes["update"] == told["num_steps"] - told["skipped_updates"]
    assert_no_nan(result)


@pytest.mark.slow
def test_failed_solves_are_counted_and_the_rest_is_the_truncated_posterior(fragile, posterior):
    result = fit(fragile, **{**QUICK, "num_samples": 1000})
    stats = result.tree["sample_stats"].to_dataset()
    failed = int(stats["failed_solve"].sum())
    assert failed > 50
    assert not (stats["diverging"] & stats["failed_solve"]).any()
    assert int(stats["diverging"].sum()) < 0.01 * failed
    lost = f"{failed} of 2000 transitions ({failed / 20:.2g} %) met parameters whose equilibrium was not found; of 300 in the warm-up "
    assert any(sentence.startswith(lost) for sentence in result.warnings)
    assert result.summary().attrs["failed_solves"].startswith(lost)
    assert_no_nan(result)
    limit = np.log(fragile.game.limit)
    assert (log_gamma(result) <= limit).all()
    lost = 100 - result.tree["prior"].sizes["draw"]
    assert lost > 10
    assert float(result.tree["prior"]["gamma"].max()) <= fragile.game.limit
    assert np.isfinite(result.tree["prior_predictive"]["proportions"]).all()
    assert any(sentence.startswith(f"{lost} of 100 prior draws") for sentence in result.warnings)
    u, mass = posterior
    kept = np.where(u <= limit, mass, 0.0)
    check_draws(log_gamma(result), u, kept / kept.sum())


@pytest.mark.slow
def test_a_fit_without_any_equilibrium_says_so(model):
    hopeless = calibration(model.population, Fragile(1e-12))
    with pytest.raises(FitError) as error:
        find_mode(hopeless)
    assert "\n" not in str(error.value)
    with pytest.raises(FitError, match="No prior draw"):
        prior_draws(hopeless, 5, 0)
    with pytest.raises(FitError, match="No epoch"):
        fit_paper(hopeless, epochs=2)


def test_a_fit_whose_prior_has_no_equilibrium_is_kept(model):
    """The prior lies far above the largest gamma that can be solved, the draws below."""
    beyond = calibration(model.population, Fragile(2.0), gamma=dist.LogNormal(5.0, 0.1))
    tree = assemble(beyond, np.full((1, 2, 1), np.log(1.5)), method="nuts", seed=1, wall_time=0.0, settings={}, prior_samples=5)
    assert "prior" not in tree.children
    assert "No prior draw" in json.loads(tree.attrs["warnings"])[0]


def test_a_rare_draw_that_cannot_be_solved_again_is_replaced_by_the_one_before(model):
    fragile = calibration(model.population, Fragile(2.0))
    flat = np.log(np.linspace(1.0, 1.9, 300)).reshape(2, 150, 1)
    lp = np.arange(300.0).reshape(2, 150)
    broken = flat.copy()
    broken[0, 0], broken[1, 70] = np.log(3.0), np.log(3.0)
    options = {"method": "nuts", "seed": 1, "wall_time": 0.0, "settings": {}, "prior_samples": 0}
    tree = assemble(fragile, broken, stats={"lp": lp}, **options)
    wanted, wanted_lp = flat.copy(), lp.copy()
    wanted[0, 0], wanted_lp[0, 0] = flat[0, 1], lp[0, 1]  # nothing stands before it
    wanted[1, 70], wanted_lp[1, 70] = flat[1, 69], lp[1, 69]
    np.testing.assert_array_equal(tree["unconstrained_posterior"]["latent"], wanted)
    np.testing.assert_array_equal(tree["sample_stats"]["lp"], wanted_lp)
    np.testing.assert_array_equal(np.argwhere(tree["sample_stats"]["replaced"].to_numpy()), [[0, 0], [1, 70]])
    np.testing.assert_allclose(tree["posterior"]["gamma"].to_numpy().reshape(2, 150, -1)[..., :1], np.exp(wanted), rtol=1e-12)
    assert np.isfinite(tree["posterior"]["mu"]).all()
    assert json.loads(tree.attrs["warnings"])[0].startswith("2 of 300 posterior draws")
    broken[1, 75:78] = np.log(3.0)
    with pytest.raises(FitError, match="5 of 300 posterior draws"):
        assemble(fragile, broken, **options)
    with pytest.raises(FitError, match="1 of 1 posterior draws"):
        assemble(fragile, broken[:1, :1], **options)


def test_a_fit_sets_out_from_an_earlier_one(model):
    options = {"method": "point", "starts": 1, "prior_samples": 0}
    first = fit(model, **options)
    again = fit(model, start=first, **options)
    cost, less = (json.loads(found.tree.attrs["inference"])["evaluations"] for found in (first, again))
    assert less > cost  # one start more
    assert json.loads(again.tree.attrs["inference"])["start"]["method"] == "point"
    np.testing.assert_allclose(log_gamma(again), log_gamma(first), atol=1e-6)
    with pytest.raises(InputError, match="start is str"):
        fit(model, start="before", **options)
    with pytest.raises(InputError, match="other unknowns; gamma/"):
        fit(calibration(model.population, gamma=GaussianProcess(length_scale=0.5)), start=first, **options)
    with pytest.raises(InputError, match="their paths differ"):
        fit(calibration(model.population, gamma=dist.LogNormal(3.0, 0.1)), start=first, **options)
    with pytest.raises(InputError, match="random networks"):
        fit(model, start=first, method="point", objective="paper")
    with pytest.raises(InputError, match="finite numbers"):
        find_mode(model, start=np.zeros(7))


def test_a_search_from_a_start_of_ones_own_alone(model, mode):
    near = mode.location + 0.01
    found = find_mode(model, start=near, starts=0)
    assert len(found.starts) == 1
    np.testing.assert_allclose(found.location, mode.location, atol=1e-4)
    with pytest.raises(InputError, match="starts is 0; at least 1 is needed, or a start"):
        find_mode(model, starts=0)
    point = fit(model, "point", start=near, starts=0, prior_samples=0)
    np.testing.assert_allclose(point.tree["unconstrained_posterior"]["latent"].to_numpy()[0, 0], mode.location, atol=1e-4)


def test_a_fit_sets_out_from_the_best_draw_of_a_posterior(model, fitted):
    best = np.unravel_index(np.argmax(fitted.tree["sample_stats"]["lp"].to_numpy()), (2, 100))
    np.testing.assert_array_equal(_best_draw(fitted, model), fitted.tree["unconstrained_posterior"]["latent"].to_numpy()[best])


def test_a_search_that_was_cut_short_says_so():
    path = GaussianProcess(length_scale=0.3, scale=1.5, kernel="matern32")
    varying = calibration(simulated(noise="dirichlet", size=NOISE, seed=1), gamma=path)
    result = fit(varying, method="point", max_steps=1, starts=1, prior_samples=0)
    assert any("did not converge" in sentence for sentence in result.warnings)


# Variational inference.


@pytest.mark.parametrize("count", [1, 4])
def test_a_few_draws_cannot_judge_a_guide(count):
    """Not even where their ratios agree."""
    weights, pareto_k = psis(np.zeros(count))
    assert np.isnan(pareto_k)
    np.testing.assert_allclose(weights, 1 / count)


def test_a_guide_of_which_one_draw_counts_is_far_from_the_posterior(model, mode):
    """Log ratios that spread over tens of thousands have no Pareto k, which is no want of draws."""
    narrow = dataclasses.replace(mode, factor=1e4 * mode.factor)
    x = np.random.default_rng(0).normal(size=(40, 1)) * 1e-4
    spread = jnp.asarray(1e5 * np.random.default_rng(1).exponential(size=40))
    judged = _judged(model, narrow, x, spread, {}, [], True, 0)
    assert "pareto_k" not in judged.settings and judged.settings["importance"] is False
    assert judged.warnings[-1].startswith(
        "The guide is far from the posterior: of its importance ratios so few count that they have no Pareto k, so"
    )


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["mean-field", "low-rank", "full"])
def test_guides_find_mean_and_sd_of_a_nearly_normal_posterior(model, posterior, guide):
    result = fit(model, method="svi", guide=guide, num_steps=800, num_samples=2000, prior_samples=100)
    mean, sd = moments(*posterior)
    draws = log_gamma(result)
    assert draws.shape == (1, 2000)
    assert abs(draws.mean() - mean) < 0.15 * sd
    assert draws.std() == pytest.approx(sd, rel=0.12)
    assert result.warnings == []
    assert result.summary().loc["gamma", "mean"] == pytest.approx(np.exp(draws).mean())


# Files.


def test_a_saved_fit_reads_back_whole(model, fitted, saved):
    again = load(saved)
    assert set(again.tree.children) == set(fitted.tree.children)
    for name, group in fitted.tree.children.items():
        xr.testing.assert_identical(again.tree[name].to_dataset(), group.to_dataset())
        for variable in group.data_vars:
            assert again.tree[name][variable].dtype == group[variable].dtype
    assert dict(again.tree.attrs) == dict(fitted.tree.attrs)
    assert repr(again) == repr(fitted)
    assert (again.method, again.warnings, again.parameters) == ("nuts", fitted.warnings, ("gamma",))


def test_a_loaded_fit_sums_up_reports_and_says_what_predictions_need(model, fitted, saved, tmp_path):
    again = load(saved)
    assert again.summary().equals(fitted.summary())
    page = again.report(tmp_path / "report.html")
    assert "gamma" in page.read_text()
    with pytest.raises(InputError, match="loaded without its model"):
        again.predict()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"gamma": dist.LogNormal(0.0, 2.0)}, "paths"),
        ({"game": LinearQuadratic(congestion=20.0)}, "games"),
        ({"observation": Dirichlet(noise=0.5)}, "observation models"),
        ({"control": True}, "equilibria"),
        ({"scheme": "paper"}, "equilibria"),
        ({"substeps": 2}, "equilibria"),
        ({"initial": STARTS[::-1]}, "equilibria"),
        ({"horizon": 2.5}, "time grids"),
    ],
)
def test_a_fit_is_not_read_with_another_model(model, saved, change, word):
    with pytest.raises(InputError, match=f"their {word} differ"):
        load(saved, calibration(model.population, **change))


def test_a_fit_is_not_read_with_more_trajectories(model, saved):
    two = model.population
    three = Population(two.times, proportions=two.shares[[0, 1, 0]])
    with pytest.raises(InputError, match="their data differ"):
        load(saved, calibration(three, initial=STARTS[[0, 1, 0]]))


def test_flat_directions_are_told(mode):
    assert flat_directions(mode) == []
    assert "1 of 1 directions" in flat_directions(dataclasses.replace(mode, flat=1))[0]


def test_a_fit_is_not_read_with_other_data(model, saved):
    with pytest.raises(InputError, match="their data differ"):
        load(saved, model.with_population(simulated(noise="dirichlet", size=NOISE, seed=2)))


def test_a_fit_is_not_read_with_a_model_of_other_unknowns(model, saved):
    refuses(lambda: load(saved, calibration(model.population, observation=Dirichlet())).predict([0.0], num_draws=2))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(fitted, tmp_path, monkeypatch):
    target = tmp_path / "fit.nc"
    target.write_bytes(b"old")

    def full_disk(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(xr.DataTree, "to_netcdf", full_disk)
    with pytest.raises(OSError, match="No space left"):
        fitted.save(target)
    assert [path.name for path in tmp_path.iterdir()] == ["fit.nc"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_saved_files_have_the_permissions_of_any_new_file(fitted, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        path = fitted.save(tmp_path / "fit.nc")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode


def test_saving_needs_a_folder(fitted, tmp_path):
    refuses(lambda: fitted.save(tmp_path / "nowhere" / "fit.nc"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "empty", "truncated", "other"])
def test_what_is_not_a_saved_fit_is_refused_in_one_sentence(saved, tmp_path, kind):
    path = tmp_path / "x.nc"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("time,state,share\n0,S,1\n")
    elif kind == "empty":
        path.touch()
    elif kind == "truncated":
        path.write_bytes(saved.read_bytes()[: saved.stat().st_size // 2])
    elif kind == "other":
        xr.Dataset({"x": ("t", [1.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(InputError) as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


# Arguments.

OUT_OF_RANGE = [
    ("nuts", {"num_chains": 0}),
    ("nuts", {"num_chains": 1.5}),
    ("nuts", {"num_samples": 0}),
    ("nuts", {"num_samples": -5}),
    ("nuts", {"num_warmup": -1}),
    ("nuts", {"target_accept_prob": 1.5}),
    ("nuts", {"max_tree_depth": 0}),
    ("nuts", {"starts": 0}),
    ("nuts", {"seed": "zero"}),
    ("nuts", {"seed": 1.5}),
    ("point", {"prior_samples": -1}),
    ("point", {"seed": None}),
    ("point", {"max_steps": 0}),
    ("point", {"objective": "paper", "epochs": 0}),
    ("point", {"objective": "paper", "batch": 0}),
    ("point", {"objective": "paper", "window": 0.0}),
    ("point", {"objective": "paper", "window": 2.0}),
    ("point", {"objective": "paper", "learning_rate": -1.0}),
    ("svi", {"num_steps": 0}),
    ("svi", {"num_samples": 0}),
    ("svi", {"num_particles": 0}),
    ("svi", {"learning_rate": 0.0}),
]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("mcmc", {}),
        (None, {}),
        ("nuts", {"chains": 4}),
        ("point", {"objective": "mle"}),
        ("svi", {"guide": "normal"}),
        *OUT_OF_RANGE,
    ],
    ids=str,
)
def test_bad_arguments_are_refused_in_one_sentence(model, mode, method, options):
    refuses(lambda: fit(model, method, **options))


def test_only_a_calibration_can_be_fitted(model):
    refuses(lambda: fit(model.population))


def test_a_model_without_unknowns_is_refused(model):
    refuses(lambda: fit(calibration(model.population, gamma=1.5), method="point"))


def test_known_values_that_differ_between_trajectories_are_not_summarised():
    known = xr.DataArray(np.broadcast_to([1.0, 2.0], (2, 3, 2)), dims=("chain", "draw", "trajectory"))
    drawn = known + 0.1 * xr.DataArray(np.arange(3.0), dims="draw")
    assert not _varies(known)
    assert _varies(drawn)
