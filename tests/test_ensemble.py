"""Protects ensembles of point fits: exact on a linear-Gaussian model, honest about members that fail, and judged on paths."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from linear_model import SCALE, SIZE, Linear, population, posterior

from bayes_mfg.errors import InputError
from bayes_mfg.inference import FitError, ensemble, find_mode, fit, load
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.sensitivity import quadratic
from bayes_mfg.models import Dirichlet, Gaussian

MEMBERS = 400


@pytest.fixture(scope="module")
def model():
    return Linear(population())


@pytest.fixture(scope="module")
def fitted(model):
    return fit(model, "ensemble", members=8, seed=3, prior_samples=10)


def locations(result):
    return result.tree["unconstrained_posterior"]["latent"].to_numpy()[0]


def test_members_of_a_linear_gaussian_model_are_posterior_draws(model):
    """Squared distances from the known mean in the known metric are chi-squared, and so is their sum; each figure is checked at a false-alarm
    rate of 1e-4."""
    mean, covariance = posterior(model.population)
    flat = locations(fit(model, "ensemble", members=MEMBERS, seed=0, prior_samples=0))
    white = np.linalg.solve(np.linalg.cholesky(covariance), (flat - mean).T).T
    assert np.all(np.abs(white.mean(axis=0)) * np.sqrt(MEMBERS) < scipy.stats.norm.isf(0.25e-4))
    low, high = scipy.stats.chi2.ppf([0.5e-4, 1 - 0.5e-4], 2 * MEMBERS) / (2 * MEMBERS)
    assert low < np.mean(white**2) < high
    assert scipy.stats.kstest(np.sum(white**2, axis=1), scipy.stats.chi2(2).cdf).pvalue > 1e-4
    assert abs(np.corrcoef(white.T)[0, 1]) * np.sqrt(MEMBERS) < scipy.stats.norm.isf(0.5e-4)


def test_with_the_prior_alone_the_spread_is_too_small_by_a_known_factor(model):
    """Covariance C of the posterior, and C C of the members, since the prior's is one; false-alarm rate 1e-4."""
    mean, covariance = posterior(model.population)
    flat = locations(fit(model, "ensemble", members=MEMBERS, randomised="prior", seed=0, prior_samples=0))
    white = np.linalg.solve(covariance, (flat - mean).T).T
    # Member by member: the posterior's mean, had the prior been centred at the member's own draw.
    starts, _ = ensemble.randomisation(model, None, "prior", MEMBERS, 0)
    np.testing.assert_allclose(white, starts, atol=1e-3)
    low, high = scipy.stats.chi2.ppf([0.5e-4, 1 - 0.5e-4], 2 * MEMBERS) / (2 * MEMBERS)
    assert low < np.mean(white**2) < high


def test_without_randomisation_all_members_find_the_one_mode(model):
    mean, _ = posterior(model.population)
    result = fit(model, "ensemble", members=5, randomised="none", prior_samples=0)
    np.testing.assert_allclose(locations(result), np.tile(mean, (5, 1)), atol=1e-5)
    assert list(result.summary().index) == ["a", "b"]


def test_scores_of_dirichlet_data_have_the_fisher_information(model):
    """Covariance of the tilts against the Gauss-Newton curvature, which for a Dirichlet does not depend on the data; entries of the whitened
    sample covariance of 4,000 have errors of at most about 0.03."""
    noisy = Linear(population(), observation=Dirichlet(noise=1e-3))
    at = find_mode(noisy, starts=1).location
    _, tilts = ensemble.randomisation(noisy, at, "both", 4000, 1)
    space = coordinates(noisy)
    slope = jax.jacfwd(lambda x: noisy.trajectories(space.latents(space.constrain(x), noisy.data)).mu)(jnp.asarray(at))
    total = np.einsum("rtdk,nrtd->nk", slope, tilts.mu) + np.asarray(tilts.flat)
    curvature = np.asarray(quadratic(noisy)(jnp.asarray(at), noisy.data).curvature)
    white = np.linalg.solve(np.linalg.cholesky(curvature), total.T)
    np.testing.assert_allclose(np.cov(white), np.eye(2), atol=0.15)
    assert np.all(np.abs(white.mean(axis=1)) < 4 / np.sqrt(4000))


def test_an_unknown_noise_is_randomised_in_the_coordinate_that_is_sampled():
    """Scores of log noise have mean zero and variance `2 n` for `n` Gaussian data; false-alarm rate of each 1e-4 or below."""
    model = Linear(population(), observation=type(Linear(population()).observation)(scale=dist.LogNormal(np.log(SCALE), 1.0)))
    at = find_mode(model, starts=1).location
    _, tilts = ensemble.randomisation(model, at, "both", 2000, 1)
    _, priors = ensemble.randomisation(model, None, "prior", 2000, 1)
    place = coordinates(model).names.index("scale")
    score = np.asarray(tilts.flat - priors.flat)[:, place]
    count = model.population.shares.size
    assert abs(score.mean()) < 4 * np.sqrt(2 * count / 2000)
    assert 0.8 < score.var() / (2 * count) < 1.2
    others = [k for k in range(len(at)) if k != place]
    assert not np.any(np.asarray(tilts.flat - priors.flat)[:, others])


def test_an_unknown_noise_is_randomised_under_a_prior_of_all_unknowns_together():
    """The same normal prior, written piece by piece and as one: scores of drawn data are the same."""
    pieces = Linear(population(), observation=Gaussian(scale=dist.LogNormal(np.log(SCALE), 1.0)))
    whole = pieces.with_prior([0.0, 0.0, np.log(SCALE)], np.eye(3))
    assert coordinates(pieces).names == ["a/level", "b/level", "scale"]
    at, scores = np.array([0.5, -0.5, np.log(SCALE)]), []
    for each in (pieces, whole):
        both, prior = (ensemble.randomisation(each, at, randomised, 3, 1)[1] for randomised in ("both", "prior"))
        scores.append((both.flat - prior.flat, both.mu))
    for one, other in zip(*scores, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)
    assert np.all(scores[1][0][:, 2] != 0.0)


def test_the_tree_says_how_the_members_were_made(fitted, tmp_path):
    told = json.loads(fitted.tree.attrs["inference"])
    assert (fitted.method, told["members"], told["randomised"], told["failed_members"]) == ("ensemble", 8, "both", 0)
    assert fitted.tree["posterior"]["a"].shape[:2] == (1, 8)
    assert any("expected to hold 70 %" in sentence for sentence in fitted.warnings)
    table = fitted.summary()
    assert {"mean", "sd", "median"} <= set(table) and not {"r_hat", "ess_bulk", "ess_tail"} & set(table)
    page = fitted.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "ensemble of independent point fits" in page and "8 draws" in page
    assert "Largest R-hat" not in page and "variational" not in page
    again = load(fitted.save(tmp_path / "fit.nc"), fitted.model)
    np.testing.assert_array_equal(locations(again), locations(fitted))


def test_lp_is_the_log_density_that_nothing_tilts(fitted):
    space = coordinates(fitted.model)
    right = [-float(space.potential(jnp.asarray(x), fitted.model.data)) for x in locations(fitted)]
    np.testing.assert_allclose(fitted.tree["sample_stats"]["lp"][0], right, rtol=1e-10)


def failing(monkeypatch, numbers):
    """Let members of these numbers fail."""
    calls, right = [], ensemble.descend

    def descend(*args, **options):
        calls.append(0)
        end = right(*args, **options)
        return dataclasses.replace(end, location=None, converged=False) if len(calls) - 1 in numbers else end

    monkeypatch.setattr(ensemble, "descend", descend)


def test_members_that_fail_are_counted_and_left_out(model, fitted, monkeypatch):
    failing(monkeypatch, {1, 4})
    result = fit(model, "ensemble", members=8, seed=3, prior_samples=0)
    np.testing.assert_array_equal(locations(result), locations(fitted)[[0, 2, 3, 5, 6, 7]])
    assert json.loads(result.tree.attrs["inference"])["failed_members"] == 2
    assert any(sentence.startswith("2 of 8 members failed") for sentence in result.warnings)
    assert any("An ensemble of 6" in sentence for sentence in result.warnings)


def test_fewer_than_two_members_are_no_ensemble(model, monkeypatch):
    failing(monkeypatch, {0, 1, 3})
    with pytest.raises(FitError, match="1 of 4 members"):
        fit(model, "ensemble", members=4, prior_samples=0)


def test_members_set_out_nearer_to_the_median_where_their_draw_has_no_equilibrium():
    result = fit(Linear(population(), limit=0.9), "ensemble", members=12, seed=1, prior_samples=0)
    assert np.all(result.tree["posterior"]["a"].to_numpy() <= 0.9)
    assert json.loads(result.tree.attrs["inference"])["failed_solves"] > 0


def test_strays_and_members_without_a_minimum_are_told(model, monkeypatch):
    right = ensemble.descend
    calls = []

    def descend(*args, **options):
        calls.append(0)
        end = right(*args, **options)
        return dataclasses.replace(end, location=end.location + 50.0, converged=False) if len(calls) == 3 else end

    monkeypatch.setattr(ensemble, "descend", descend)
    result = fit(model, "ensemble", members=5, prior_samples=0)
    assert any(sentence.startswith("1 of 5 members did not converge") for sentence in result.warnings)
    assert any(sentence.startswith("1 of 5 members ended where the posterior is all but zero") for sentence in result.warnings)
    np.testing.assert_array_equal(result.tree["sample_stats"]["converged"][0], [1, 1, 0, 1, 1])


def test_an_interrupted_ensemble_goes_on_from_its_checkpoint(model, fitted, tmp_path, monkeypatch):
    right, calls = ensemble.descend, []

    def descend(*args, **options):
        calls.append(0)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return right(*args, **options)

    monkeypatch.setattr(ensemble, "descend", descend)
    options = {"members": 8, "seed": 3, "prior_samples": 0, "checkpoint": tmp_path / "kept"}
    first = fit(model, "ensemble", **options)
    assert first.interrupted and len(locations(first)) == 3
    assert any("first 3 of 8 members" in sentence for sentence in first.warnings)
    monkeypatch.setattr(ensemble, "descend", right)
    again = fit(model, "ensemble", resume=True, **options)
    np.testing.assert_array_equal(locations(again), locations(fitted))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"randomised": "data"}, "randomised is 'data'"),
        ({"members": 1}, "members is 1"),
        ({"objective": "paper"}, "objective"),
        ({"randomised": "none", "starts": 2}, "starts is for the search for the mode"),
        ({"randomised": "prior", "screened": 5}, "screened is for the search for the mode"),
        ({"num_samples": 5}, "num_samples"),
    ],
)
def test_what_an_ensemble_does_not_take_is_refused(model, options, words):
    with pytest.raises(InputError, match=words):
        fit(model, "ensemble", prior_samples=0, **options)


def test_randomised_data_are_refused_where_there_are_several_equilibria(model):
    several = object.__new__(Linear)
    several.__dict__.update(model.__dict__)
    several.branches = ()
    with pytest.raises(InputError, match="several equilibria"):
        fit(several, "ensemble")


def test_the_known_posterior_is_not_the_prior():
    """Else the tests above would say little."""
    assert np.all(np.diag(posterior(population())[1]) < 0.5) and SIZE > 0
