"""Protects scores: the formulas they are named after, held-out data that enter only where they may, and bands that cover what they say."""

import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from relaxing import FRESH, GAMMA, NOISE, STARTS, Relaxing, given, mu_of, simulated
from scipy.special import gammaln, logsumexp

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.inference import Fit, crps_of_draws, scores
from bayes_mfg.models import BetaBinomial, Binomial, Dirichlet, Gaussian, Multinomial

MODELS = {}


def fitted(observation, draws, population=None, **options):
    """One model for all data of a kind, because most of a test's time is compilation."""
    population = population or simulated()
    kind = repr((observation, options, population.counts is None))
    if kind not in MODELS:
        MODELS[kind] = Relaxing(population, observation, **options)
    return given(MODELS[kind].with_population(population), np.reshape(draws, (-1, 1)))


# CRPS.


@pytest.mark.parametrize("n", [2, 3, 17])
def test_crps_is_the_double_sum_over_pairs(n):
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((n, 4, 5)).round(1), rng.standard_normal((4, 5))  # with ties
    pairs = np.abs(x[:, None] - x[None, :]).sum(axis=(0, 1)) / (n * (n - 1))
    np.testing.assert_allclose(crps_of_draws(x, y), np.abs(x - y).mean(axis=0) - 0.5 * pairs, rtol=1e-12, atol=1e-13)


def test_crps_of_normal_draws_is_unbiased():
    """Gneiting and Raftery (2007), section 4.2. A mean 5 standard errors off has a chance of 6e-7."""
    y = 0.7
    exact = y * (2 * scipy.stats.norm.cdf(y) - 1) + 2 * scipy.stats.norm.pdf(y) - 1 / np.sqrt(np.pi)
    few = crps_of_draws(np.random.default_rng(0).standard_normal((5, 40_000)), np.full(40_000, y))
    assert abs(few.mean() - exact) < 5 * few.std() / np.sqrt(few.size)
    biased = few.mean() + 0.5 * (2 / np.sqrt(np.pi)) / 5  # what the plain estimator of five draws would give
    assert abs(biased - exact) > 20 * few.std() / np.sqrt(few.size)


@pytest.mark.parametrize(("draws", "truth"), [([1.0], 0.0), (1.0, 0.0), (np.zeros((3, 2)), np.zeros(3))])
def test_crps_refuses_shapes_that_do_not_match(draws, truth):
    with pytest.raises(InputError, match="crps_of_draws"):
        crps_of_draws(draws, truth)


# Errors and densities, from formulas.


def test_errors_are_those_of_the_mean_population():
    held = simulated(starts=FRESH, noise="gaussian", size=0.05, seed=3)
    gammas = np.array([1.0, 1.5, 2.5])
    table = scores(fitted(Gaussian(scale=0.02), np.log(gammas)), held, initial=FRESH)
    mean = np.mean([mu_of(gamma, FRESH) for gamma in gammas], axis=0)
    squared = (mean - held.shares) ** 2
    assert table.shape[0] == 1
    assert table["mu_error"][0] == pytest.approx(squared.sum(-1).mean(), rel=1e-6)
    assert table["relative_error"][0] == pytest.approx((squared / (held.shares**2 + 1e-4)).mean(), rel=1e-6)
    assert table["failed_solves"][0] == 0
    assert table["observations"][0] == held.shares.size


def test_the_log_score_is_that_of_the_mixture_over_draws():
    held = simulated(starts=FRESH, noise="dirichlet", size=NOISE, seed=4)
    gammas = np.array([1.3, 1.5, 1.6])
    densities = []
    for gamma in gammas:
        alpha = mu_of(gamma, FRESH) / NOISE
        densities.append(gammaln(alpha.sum(-1)) - gammaln(alpha).sum(-1) + ((alpha - 1) * np.log(held.shares)).sum(-1))
    mixture = logsumexp(densities, axis=0) - np.log(3)
    table = scores(fitted(Dirichlet(noise=NOISE), np.log(gammas)), held, initial=FRESH)
    assert table["log_score"][0] == pytest.approx(mixture.mean(), rel=1e-6)
    assert table["observations"][0] == mixture.size


@pytest.mark.slow
def test_counts_have_the_sizes_of_what_is_scored():
    """Sizes of the held-out rows enter, not those of the fit's data: shares of larger samples are nearer to the population."""
    small = simulated(noise="multinomial", size=20, seed=1)
    large = simulated(starts=FRESH[:2], noise="multinomial", size=500, seed=2)
    fit = fitted(Multinomial(), [np.log(GAMMA)], population=small)
    table = scores(fit, large, initial=FRESH[:2])
    exact = scipy.stats.multinomial.logpmf(large.counts, 500, mu_of(GAMMA, FRESH[:2])).mean()
    assert table["log_score"][0] == pytest.approx(exact, rel=1e-6)
    assert table["crps"][0] < 0.3 * scores(fit, small)["crps"][0]


@pytest.mark.slow
def test_what_was_not_observed_does_not_count():
    held = simulated(noise="multinomial", size=200, seed=5)
    mask = np.ones(held.counts.shape, bool)
    mask[:, :, 2] = False
    mask[0, 3:] = False
    part = Population(held.times, counts=held.counts, totals=200, mask=mask, trajectories=held.trajectories)
    fit = fitted(Binomial(states=["0", "1"]), [np.log(GAMMA)], population=held)
    table = scores(fit, part, initial=STARTS)
    squared = np.where(mask, (mu_of(GAMMA, STARTS) - held.shares) ** 2, 0).sum(-1)
    assert table["mu_error"][0] == pytest.approx((squared[0, :3].mean() + squared[1].mean()) / 2, rel=1e-6)
    log = scipy.stats.binom.logpmf(held.counts, 200, np.clip(mu_of(GAMMA, STARTS), 1e-10, 1))
    assert table["log_score"][0] == pytest.approx(log[mask].mean(), rel=1e-6)
    assert table["observations"][0] == mask.sum()


# Starts.


def test_held_out_trajectories_start_at_their_first_observation_which_is_then_no_evidence():
    held = simulated(starts=FRESH, noise="gaussian", size=0.02, seed=6)
    fit = fitted(Gaussian(scale=0.02), [np.log(GAMMA)])
    table = scores(fit, held)
    assert table.equals(scores(fit, held, initial="observed"))
    mean = mu_of(GAMMA, held.shares[:, 0])
    assert table["mu_error"][0] == pytest.approx(((mean - held.shares) ** 2).sum(-1).mean(), rel=1e-6)
    log = scipy.stats.norm.logpdf(held.shares, mean, 0.02)[:, 1:]
    assert table["log_score"][0] == pytest.approx(log.mean(), rel=1e-6)
    assert table["observations"][0] == log.size


def test_the_fits_own_data_start_where_the_fit_says():
    own = simulated(noise="gaussian", size=0.02, seed=7)
    known = fitted(Gaussian(scale=0.02), [np.log(GAMMA)], population=own)
    table = scores(known, own)
    squared = (mu_of(GAMMA, STARTS) - own.shares) ** 2
    assert table["mu_error"][0] == pytest.approx(squared.sum(-1).mean(), rel=1e-6)
    assert table["observations"][0] == own.shares.size
    taken = fitted(Gaussian(scale=0.02), [np.log(GAMMA)], population=own, initial="observed")
    assert scores(taken, own)["observations"][0] == own.shares[:, 1:].size
    assert scores(taken, own).equals(scores(known, own, initial="observed"))


def test_states_in_another_order_and_times_between_the_grids_are_the_same_population():
    held = simulated(starts=FRESH)
    fit = fitted(Gaussian(scale=0.02), [np.log(GAMMA)])
    assert scores(fit, held, initial=FRESH)["mu_error"][0] < 1e-15
    assert scores(fit, held.in_order_of(["2", "0", "1"]), initial=FRESH)["mu_error"][0] < 1e-15
    some = Population(held.times[[0, 4, 7]], proportions=held.shares[:, [0, 4, 7]])
    assert scores(fit, some, initial=FRESH)["mu_error"][0] < 1e-15


def test_own_unknowns_of_the_observation_model_enter_draw_by_draw():
    """One draw has the true gamma and little noise, one much: the mixture knows both."""
    own = simulated(noise="gaussian", size=0.02, seed=8)
    model = Relaxing(own, Gaussian(scale=dist.LogNormal(-3.0, 1.0)))
    draws = np.log([[GAMMA, 0.02], [GAMMA, 0.2]])
    mean = mu_of(GAMMA, STARTS)
    log = logsumexp([scipy.stats.norm.logpdf(own.shares, mean, s) for s in (0.02, 0.2)], axis=0) - np.log(2)
    assert scores(given(model, draws), own)["log_score"][0] == pytest.approx(log.mean(), rel=1e-6)


# Bands.


@pytest.mark.parametrize(
    ("noise", "size", "observation"),
    [
        ("gaussian", 1e-3, Gaussian(scale=1e-3)),
        pytest.param("multinomial", 5000, Multinomial(), marks=pytest.mark.slow),
        ("dirichlet", 1e-3, Dirichlet(noise=1e-3)),
    ],
    ids=["gaussian", "multinomial", "dirichlet"],
)
def test_bands_of_the_true_model_cover_what_they_say(noise, size, observation):
    """40 trajectories of ten times: 400 nearly independent rows of three dependent shares. Limits at 4.5 sds of 400 (7 in a million), and ties."""
    starts = np.random.default_rng(9).dirichlet([5, 5, 5], size=40)
    held = simulated(starts=starts, noise=noise, size=size, seed=10)
    own = simulated(noise=noise, size=size, seed=11)
    table = scores(fitted(observation, [np.log(GAMMA)], population=own), held, initial=starts)
    assert abs(table["coverage50"][0] - 0.5) < 4.5 * 0.5 / np.sqrt(400) + 0.02
    assert abs(table["coverage90"][0] - 0.9) < 4.5 * 0.3 / np.sqrt(400) + 0.01
    # The score of a wrong parameter is worse in every respect.
    wrong = scores(fitted(observation, [np.log(3 * GAMMA)], population=own), held, initial=starts)
    assert wrong["log_score"][0] < table["log_score"][0]
    for name in ("crps", "mu_error", "relative_error"):
        assert wrong[name][0] > 1.2 * table[name][0]
    assert wrong["coverage90"][0] < table["coverage90"][0]


def test_the_crps_of_normal_noise_is_its_closed_form():
    """E|X - Y| - E|X - X'| / 2 is sd / sqrt(pi) for equal normals; 1200 terms of sd about 0.5 sd, 4.5 standard errors."""
    starts = np.random.default_rng(12).dirichlet([5, 5, 5], size=40)
    exact = simulated(starts=starts)
    noisy = exact.shares + 1e-3 * np.random.default_rng(13).standard_normal(exact.shares.shape)
    # One state is left out of each row, so that rows need not sum to one.
    mask = np.ones(noisy.shape, bool)
    mask[..., 2] = False
    held = Population(exact.times, proportions=noisy, mask=mask)
    table = scores(fitted(Gaussian(scale=1e-3), [np.log(GAMMA)]), held, initial=starts)
    assert table["crps"][0] == pytest.approx(1e-3 / np.sqrt(np.pi), rel=4.5 * 0.8 / np.sqrt(mask.sum()))


def test_seeds_decide_the_replicates_and_nothing_else():
    own = simulated(noise="gaussian", size=0.02, seed=7)
    fit = fitted(Gaussian(scale=0.02), np.log([1.4, 1.6]), population=own)
    assert scores(fit, own).equals(scores(fit, own))
    first, second = scores(fit, own), scores(fit, own, seed=1)
    assert first["crps"][0] != second["crps"][0]
    assert first["log_score"][0] == second["log_score"][0]


# Refusals.


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda p: {"population": "data"}, "Population"),
        (lambda p: {"population": Population(p.times, proportions=p.shares, states=["a", "b", "c"])}, "states"),
        (lambda p: {"population": Population(p.times + 1.0, proportions=p.shares)}, "covers"),
        (lambda p: {"initial": [0.5, 0.5]}, "initial"),
        (lambda p: {"initial": "soon"}, "initial"),
        (lambda p: {"initial": [0.5, 0.6, 0.1]}, "initial"),
        (lambda p: {"num_draws": 9}, "num_draws"),
    ],
)
def test_what_does_not_fit_is_refused(change, word):
    own = simulated()
    fit = fitted(Gaussian(scale=0.02), [np.log(GAMMA)])
    options = {"population": own, "initial": STARTS, **change(own)}
    with pytest.raises(InputError, match=word):
        scores(fit, options.pop("population"), **options)


def test_a_fit_without_its_model_cannot_be_scored():
    fit = fitted(Gaussian(scale=0.02), [np.log(GAMMA)])
    with pytest.raises(InputError, match="model"):
        scores(Fit(fit.tree), simulated())


@pytest.mark.slow
def test_beta_binomial_counts_of_one_state_can_be_scored():
    own = simulated(noise="multinomial", size=300, seed=1)
    fit = fitted(BetaBinomial(states=["0"], concentration=200.0), [np.log(GAMMA)], population=own)
    share = mu_of(GAMMA, STARTS)[..., 0]
    log = scipy.stats.betabinom.logpmf(own.counts[..., 0], 300, 200 * share, 200 * (1 - share))
    assert scores(fit, own)["log_score"][0] == pytest.approx(log.mean(), rel=1e-6)
