"""Protects scores of forecasts: the rules they are named after, horizons counted from the data, and bands that cover what they say."""

import numpy as np
import pytest
import scipy.stats
from relaxing import GAMMA, REST, TIMES, Relaxing, given

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.inference import Fit, crps_of_draws, energy_of_draws, forecast_scores, scores, wis_of_draws
from bayes_mfg.inference.forecast import ALPHAS
from bayes_mfg.models import Binomial, Dirichlet, Gaussian, Multinomial

STARTS = np.array([[0.2, 0.35, 0.45], [0.6, 0.25, 0.15]])
SCALE = 0.02
NAMES = ["north", "south"]


def mu_of(gamma, times=TIMES):
    return REST + (STARTS[:, None] - REST) * np.exp(-gamma * times)[:, None]


def noisy(seed, gamma=GAMMA):
    """Shares of which one state is left out of each row, so that rows need not sum to one."""
    shares = mu_of(gamma) + SCALE * np.random.default_rng(seed).standard_normal((2, len(TIMES), 3))
    mask = np.ones(shares.shape, bool)
    mask[..., 2] = False
    return Population(TIMES, proportions=shares, mask=mask, trajectories=NAMES)


@pytest.fixture(scope="module")
def model():
    return Relaxing(noisy(0).until(1.0), Gaussian(scale=SCALE), initial=STARTS, horizon=2.0)


@pytest.fixture(scope="module")
def fitted(model):
    return given(model, np.log(GAMMA) + 0.3 * np.random.default_rng(1).standard_normal((500, 1)))


# Rules.


def slow_wis(x, y, alphas):
    """By definition, one interval at a time."""
    total = 0.5 * abs(y - np.median(x))
    for alpha in alphas:
        low, high = np.quantile(x, alpha / 2), np.quantile(x, 1 - alpha / 2)
        score = high - low
        if y < low:
            score += 2 / alpha * (low - y)
        if y > high:
            score += 2 / alpha * (y - high)
        total += alpha / 2 * score
    return total / (len(alphas) + 0.5)


def test_the_weighted_interval_score_is_its_definition():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((101, 4, 5)), 2 * rng.standard_normal((4, 5))
    assert len(ALPHAS) == 11
    slow = [[slow_wis(x[:, i, j], y[i, j], ALPHAS) for j in range(5)] for i in range(4)]
    np.testing.assert_allclose(wis_of_draws(x, y), slow, rtol=1e-12)
    np.testing.assert_allclose(wis_of_draws(x[:, 0, 0], y[0, 0], [0.3]), slow_wis(x[:, 0, 0], y[0, 0], [0.3]), rtol=1e-12)


def test_the_weighted_interval_score_of_normal_quantiles_is_known():
    """Numbers that the 23 quantiles of a standard normal distribution give at y = 0 and y = 3, from scipy's quantiles."""
    x = scipy.stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    for y in (0.0, 3.0):
        ends = [scipy.stats.norm.interval(1 - alpha) for alpha in ALPHAS]
        parts = [a / 2 * (high - low) + max(low - y, 0) + max(y - high, 0) for a, (low, high) in zip(ALPHAS, ends, strict=True)]
        assert wis_of_draws(x, y) == pytest.approx((abs(y) / 2 + sum(parts)) / 11.5, rel=1e-4)


def test_with_many_quantiles_it_is_the_crps():
    x = scipy.stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    for y in (-2.0, 0.0, 0.7, 5.0):
        exact = y * (2 * scipy.stats.norm.cdf(y) - 1) + 2 * scipy.stats.norm.pdf(y) - 1 / np.sqrt(np.pi)
        alphas = 2 * np.arange(1, 500) / 1000
        # Bracher et al.: twice the mean quantile loss over evenly spaced levels, which is the Riemann sum of the CRPS.
        assert wis_of_draws(x, y, alphas) == pytest.approx(exact, rel=0.01)
        assert crps_of_draws(x, y) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("n", [2, 3, 17])
def test_the_energy_score_is_the_double_sum_over_pairs(n):
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((n, 4, 5, 3)), rng.standard_normal((4, 5, 3))
    slow = np.mean([np.linalg.norm(one - y, axis=-1) for one in x], axis=0)
    for i in range(n):
        for j in range(n):
            slow = slow - np.linalg.norm(x[i] - x[j], axis=-1) / (2 * n * (n - 1))
    np.testing.assert_allclose(energy_of_draws(x, y), slow, rtol=1e-12)


def test_the_energy_score_of_one_state_is_the_crps():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 7)), rng.standard_normal(7)
    np.testing.assert_allclose(energy_of_draws(x[..., None], y[..., None]), crps_of_draws(x, y), rtol=1e-12)


@pytest.mark.parametrize("rule", [wis_of_draws, energy_of_draws])
@pytest.mark.parametrize(("draws", "truth"), [([[1.0]], [0.0]), (1.0, 0.0), (np.zeros((3, 2)), np.zeros(3))])
def test_rules_refuse_shapes_that_do_not_match(rule, draws, truth):
    with pytest.raises(InputError, match=rule.__name__):
        rule(draws, truth)


def test_rules_refuse_numbers_that_mean_nothing():
    for alphas in ([], [0.0], [1.5]):
        with pytest.raises(InputError, match="alphas"):
            wis_of_draws(np.zeros(3), 0.0, alphas)
    with pytest.raises(InputError, match="vectors"):
        energy_of_draws(np.zeros(3), 0.0)


# Forecasts.


def test_every_horizon_has_its_own_row_of_scores(fitted):
    held = noisy(2).after(1.0)
    table = forecast_scores(fitted, held)
    np.testing.assert_allclose(table.index, TIMES[6:] - 1.0)
    assert list(table["observations"]) == [4] * 5
    gammas = np.exp(fitted.tree["unconstrained_posterior"]["latent"].to_numpy()[0, :, 0])
    mu = np.stack([mu_of(gamma, held.times) for gamma in gammas])
    log = scipy.special.logsumexp(scipy.stats.norm.logpdf(held.shares, mu, SCALE), axis=0) - np.log(len(mu))
    np.testing.assert_allclose(table["log_score"], np.nanmean(log, axis=(0, 2)), rtol=1e-6)
    # Pooled rows are means of what they pool.
    pooled = forecast_scores(fitted, held, horizons=[0.4, 1.0])
    for name in ("log_score", "crps", "energy_score", "wis", "coverage50", "coverage90"):
        assert pooled[name].iloc[0] == pytest.approx(table[name].iloc[:2].mean(), rel=1e-9)
        assert pooled[name].iloc[1] == pytest.approx(table[name].iloc[2:].mean(), rel=1e-9)
    assert list(pooled["observations"]) == [8, 12]
    assert list(pooled.index) == [0.4, 1.0], "horizons are called what they were asked by"
    # The scores that `scores` has too are the same numbers.
    also = scores(fitted, held, initial=STARTS)
    whole = forecast_scores(fitted, held, horizons=[1.0])
    for name in ("log_score", "crps", "coverage50", "coverage90", "observations", "failed_solves"):
        assert whole[name].iloc[0] == pytest.approx(also[name][0], rel=1e-9)


def test_trajectories_are_matched_by_name_and_horizons_are_their_own(model):
    """South was last seen at 0.6, north at 1.0."""
    early = noisy(0).until(1.0)
    mask = early.mask.copy()
    mask[1, 4:] = False
    part = model.with_population(
        Population(early.times, proportions=np.nan_to_num(early.shares), mask=mask, trajectories=NAMES, states=early.states)
    )
    fit = given(part, np.full((9, 1), np.log(GAMMA)))
    held = noisy(2)
    south = forecast_scores(fit, held.select("south").after(0.6))
    np.testing.assert_allclose(south.index, TIMES[4:] - 0.6, atol=1e-9)
    log = scipy.stats.norm.logpdf(held.shares, mu_of(GAMMA), SCALE)[..., :2]
    np.testing.assert_allclose(south["log_score"], log[1, 4:].mean(axis=-1), rtol=1e-6)
    both = forecast_scores(fit, held.select(["south", "north"]).after(1.0))
    assert both["observations"].sum() == 20
    assert both.loc[both.index[-1], "log_score"] == pytest.approx(log[1, 10].mean(), rel=1e-6)


def test_the_energy_score_is_of_the_states_that_were_observed(fitted):
    """Each row has two observed states; with one, the energy score is its CRPS."""
    held = noisy(2).after(1.0)
    mask = held.mask.copy()
    mask[..., 1] = False
    one = Population(held.times, proportions=np.nan_to_num(held.shares), mask=mask, trajectories=NAMES)
    table = forecast_scores(fitted, one)
    np.testing.assert_allclose(table["energy_score"], table["crps"], rtol=1e-9)
    assert (forecast_scores(fitted, held)["energy_score"] > table["energy_score"].mean() * 0.5).all()


@pytest.mark.slow
def test_forecasts_of_what_the_draws_themselves_do_are_covered_as_they_say(fitted):
    """400 futures, each of a draw: two trajectories depend on each other, so each future counts once. 4.5 sds: 1 in 15,000 for each figure."""
    rng = np.random.default_rng(3)
    gammas = np.exp(fitted.tree["unconstrained_posterior"]["latent"].to_numpy()[0, :, 0])
    found = []
    for _ in range(400):
        held = noisy(int(rng.integers(2**31)), gamma=rng.choice(gammas)).after(1.0)
        found.append(forecast_scores(fitted, held, seed=int(rng.integers(2**31)))[["coverage50", "coverage90"]].to_numpy())
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(400)
    assert np.all(np.abs(mean - [0.5, 0.9]) < 4.5 * error)
    assert np.all(error < 0.03)


@pytest.mark.parametrize(
    "observation",
    [Multinomial(), Binomial(), pytest.param(Dirichlet(noise=1e-2), marks=pytest.mark.slow)],
    ids=["multinomial", "binomial", "dirichlet"],
)
def test_rows_and_counts_have_scores_of_shares(observation):
    rng = np.random.default_rng(4)
    if isinstance(observation, Dirichlet):
        whole = Population(TIMES, proportions=np.array([[rng.dirichlet(row / 1e-2) for row in one] for one in mu_of(GAMMA)]))
    else:
        whole = Population(TIMES, counts=rng.multinomial(400, mu_of(GAMMA)))
    fit = given(Relaxing(whole.until(1.0), observation, initial=STARTS, horizon=2.0), np.full((50, 1), np.log(GAMMA)))
    table = forecast_scores(fit, whole.after(1.0), horizons=[1.0])
    assert table["observations"].iloc[0] == (30 if isinstance(observation, Binomial) else 10)
    assert 0 < table["crps"].iloc[0] < 0.1 and table["energy_score"].iloc[0] > table["crps"].iloc[0]
    assert table["wis"].iloc[0] == pytest.approx(table["crps"].iloc[0], rel=0.2)


# Refusals.


@pytest.mark.parametrize(
    ("change", "options", "word"),
    [
        (lambda p: p, {}, "is no forecast"),
        (lambda p: "data", {}, "Population"),
        (lambda p: Population(p.times + 5.0, proportions=np.nan_to_num(p.shares), mask=p.mask, trajectories=NAMES), {}, "covers"),
        (
            lambda p: Population(p.times, proportions=np.nan_to_num(p.shares), mask=p.mask, trajectories=["east", "south"]),
            {},
            "'east'",
        ),
        (lambda p: p.after(1.0), {"horizons": [0.5, 0.2]}, "increasing"),
        (lambda p: p.after(1.0), {"horizons": [0.0, 0.2]}, "above 0"),
        (lambda p: p.after(1.0), {"horizons": "soon"}, "numbers"),
        (lambda p: p.after(1.0), {"horizons": [0.1, 1.0]}, "nothing was observed"),
        (lambda p: p.after(1.0), {"num_draws": 0}, "num_draws"),
    ],
)
def test_what_is_no_forecast_is_refused(fitted, change, options, word):
    with pytest.raises(InputError, match=word):
        forecast_scores(fitted, change(noisy(2)), **options)


def test_a_fit_without_its_model_forecasts_nothing(fitted):
    with pytest.raises(InputError, match="model"):
        forecast_scores(Fit(fitted.tree), noisy(2).after(1.0))
