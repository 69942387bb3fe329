"""Priors learned from many trajectories, and forecasts of each from several origins, where all is linear and normal and known in closed form."""

import numpy as np
import pytest
from linear_model import SCALE, SIZE, TIMES, Linear

import bayes_mfg as bm
from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.inference import Historical, LearnedPrior, Persistence, forecast_origins, learn_prior
from bayes_mfg.inference.many import Many, Normal
from bayes_mfg.inference.origins import until

LOCATION = np.array([1.0, -0.5])
ROOT = np.array([[0.8, 0.0], [0.3, 0.5]])
COUNT = 40
DESIGN = SIZE * np.stack([np.ones_like(TIMES), TIMES], axis=1)
"""Derivative of the first share by the two unknowns; the second share is its mirror image, recorded with noise of its own."""


def trajectories(count=COUNT, seed=3):
    """Lines whose coefficients scatter, seen with noise in both states; the last trajectory lacks its second half."""
    rng = np.random.default_rng(seed)
    unknowns = LOCATION + rng.standard_normal((count, 2)) @ ROOT.T
    share = 0.5 + unknowns @ DESIGN.T
    values = np.stack([share, 1 - share], axis=-1)
    noise = SCALE * rng.standard_normal(share.shape)
    mask = np.ones(values.shape, bool)
    mask[-1, 5:] = False
    return Population(TIMES, proportions=values + np.stack([noise, -noise], axis=-1), mask=mask)


DATA = trajectories()
MODEL = Linear(DATA.select(["0"]))


def exact(prior, population=DATA):
    """Posterior means and covariances, and log densities of the data, of all trajectories under a normal prior."""
    means, spreads, evidence = [], [], []
    for shares, mask in zip(population.shares, population.mask, strict=True):
        rows = mask[:, 0]
        design = np.concatenate([DESIGN[rows], -DESIGN[rows]])
        y = np.concatenate([shares[rows, 0], shares[rows, 1]]) - 0.5
        covariance = prior.root @ prior.root.T
        total = design @ covariance @ design.T + SCALE**2 * np.eye(len(y))
        gain = covariance @ design.T @ np.linalg.inv(total)
        left = y - design @ prior.location
        means.append(prior.location + gain @ left)
        spreads.append(covariance - gain @ design @ covariance)
        evidence.append(-0.5 * (left @ np.linalg.solve(total, left) + np.linalg.slogdet(2 * np.pi * total)[1]))
    return np.array(means), np.array(spreads), np.array(evidence)


@pytest.fixture(scope="module")
def learned():
    return learn_prior(MODEL, DATA, iterations=200, tolerance=1e-4, refinements=2, num_draws=400)


def test_posteriors_of_all_trajectories_are_exact():
    prior = Normal(LOCATION, ROOT)
    found = Many(MODEL, DATA, "test").posteriors(prior, 4000, seed=0)
    means, spreads, evidence = exact(prior)
    got, around = found.moments()
    sds = np.sqrt(np.einsum("rii->ri", spreads))
    assert np.abs((got - means) / sds).max() < 0.12  # 80 means, each with an error of about 0.02
    assert np.abs(around / (sds[:, :, None] * sds[:, None, :]) - spreads / (sds[:, :, None] * sds[:, None, :])).max() < 0.2
    assert np.abs(found.evidence - evidence).max() < 0.05
    assert found.reliable.all()
    again = found.resampled(0)
    assert np.abs((again.mean(axis=1) - got) / sds).max() < 0.05


def test_modes_and_curvatures_are_exact():
    prior = Normal(LOCATION, ROOT)
    z, bent = Many(MODEL, DATA, "test").modes(prior)
    means, spreads, _ = exact(prior)
    np.testing.assert_allclose(prior.location + z @ prior.root.T, means, atol=1e-3)  # modes are found to a thousandth of an sd
    np.testing.assert_allclose(prior.root @ np.linalg.inv(bent) @ prior.root.T, spreads, rtol=1e-6, atol=1e-9)


def test_learning_ends_where_an_exact_em_ends(learned):
    """The same iteration with exact moments; the refinements leave the noise of 400 draws of 40 trajectories."""
    own = Many(MODEL, DATA, "test").own_prior()
    prior = own
    for _ in range(400):
        mean, spread, _ = exact(prior)
        location = (mean.sum(axis=0) + own.location) / (COUNT + 1)
        apart, away = mean - location, own.location - location
        scatter = spread.sum(axis=0) + apart.T @ apart + own.root @ own.root.T + np.outer(away, away)
        prior = Normal(location, np.linalg.cholesky(scatter / (COUNT + 1)))
    sds = np.sqrt(np.diag(prior.root @ prior.root.T))
    assert np.abs((learned.location - prior.location) / sds).max() < 0.01
    np.testing.assert_allclose(learned.covariance / np.outer(sds, sds), prior.root @ prior.root.T / np.outer(sds, sds), atol=0.03)
    # Forty log means of 400 weights, each with an error of about 0.02.
    assert learned.evidence[-1] == pytest.approx(exact(prior)[2].sum(), abs=0.5)
    assert learned.warnings == ()


def test_groups_widen_the_error_of_the_location(learned):
    """With independent trajectories it is that of a mean, whose information misses what the noise of the data takes away."""
    expected = learned.covariance / COUNT
    ratio = np.diag(learned.uncertainty) / np.diag(expected)
    assert np.all((ratio > 0.6) & (ratio < 3.0)), ratio
    same = learn_prior(MODEL, DATA, groups=["a"] * 20 + ["b"] * 20, iterations=3, refinements=0)
    assert same.groups == 2 and np.linalg.matrix_rank(same.uncertainty, tol=1e-10) == 1
    assert "still moved" in same.warnings[0]


def test_it_can_be_kept(learned, tmp_path):
    learned.save(tmp_path / "prior.json")
    again = LearnedPrior.load(tmp_path / "prior.json")
    np.testing.assert_array_equal(again.predictive, learned.predictive)
    assert again.names == learned.names and again.evidence == learned.evidence
    with pytest.raises(InputError, match="holds no learned prior"):
        LearnedPrior.load(tmp_path / "nothing.json")


def test_a_fit_under_it_is_that_of_the_same_normal(learned):
    model = learned.applied(MODEL)
    mode = bm.inference.find_mode(model, starts=1)
    means, spreads, _ = exact(Normal(learned.location, np.linalg.cholesky(learned.predictive)), DATA.select(["0"]))
    np.testing.assert_allclose(mode.location, means[0], atol=1e-3)
    np.testing.assert_allclose(mode.covariance, spreads[0], rtol=1e-4)
    with pytest.raises(InputError, match="the prior is of 2 unknowns, the model has 1"):
        Linear(DATA.select(["0"]), paths={"a": bm.paths.Constant()}).with_prior(learned.location, learned.covariance)
    with pytest.raises(InputError, match="positive definite"):
        MODEL.with_prior([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(InputError, match="the model has a prior of with_prior"):
        learn_prior(model, DATA)


def test_forecasts_know_nothing_of_what_comes(learned):
    """Data after the origin may be anything; the scores are those of the exact predictive distribution."""
    table = forecast_origins(MODEL, DATA, learned, origins=[4], horizons=[1, 3], num_draws=2000)
    changed = DATA.shares.copy()
    changed[:, 6] = 0.5
    other = Population(TIMES, proportions=changed, mask=DATA.mask)
    again = forecast_origins(MODEL, other, learned, origins=[4], horizons=[1, 3], num_draws=2000)
    some = table["horizon"] == 3
    np.testing.assert_array_equal(table.loc[some, "median"], again.loc[some, "median"])
    np.testing.assert_array_equal(table.loc[~some, "log_score"], again.loc[~some, "log_score"])
    assert len(table) == 2 * 2 * (COUNT - 1)  # the last trajectory was not observed then

    prior = Normal(learned.location, np.linalg.cholesky(learned.predictive))
    means, spreads, _ = exact(prior, until(DATA, 4))
    for number, name in ((0, "0"), (7, "7")):
        row = table[(table["trajectory"] == name) & (table["horizon"] == 3) & (table["state"] == "0")].iloc[0]
        mean = 0.5 + DESIGN[7] @ means[number]
        sd = np.sqrt(DESIGN[7] @ spreads[number] @ DESIGN[7] + SCALE**2)
        assert row["median"] == pytest.approx(mean, abs=0.1 * sd)
        left = (row["share"] - mean) / sd
        assert row["log_score"] == pytest.approx(-0.5 * left**2 - np.log(sd * np.sqrt(2 * np.pi)), abs=0.1)


def test_bad_requests_are_refused(learned):
    with pytest.raises(InputError, match="one is needed"):
        learn_prior(of_two(), DATA)
    with pytest.raises(InputError, match="times and states"):
        learn_prior(MODEL, DATA.until(0.5))
    with pytest.raises(InputError, match="groups has 1 names"):
        learn_prior(MODEL, DATA, groups=["a"])
    with pytest.raises(InputError, match="one trajectory or group"):
        learn_prior(MODEL, DATA.select(["0"]))
    with pytest.raises(InputError, match="num_draws is 3"):
        learn_prior(MODEL, DATA, num_draws=3)
    with pytest.raises(InputError, match="strength is 0"):
        learn_prior(MODEL, DATA, strength=0)
    with pytest.raises(InputError, match="origins from 0 to 7"):
        forecast_origins(MODEL, DATA, learned, origins=[8])
    with pytest.raises(InputError, match="list of whole numbers"):
        forecast_origins(MODEL, DATA, learned, origins=[0.5])


def of_two():
    two = DATA.select(["0", "1"])
    model = Linear(DATA.select(["0"]))
    model.population = two
    return model


# Forecasts without a model

WALK, DEGREES = 0.3, 5.0


def walks(count, seed, drift=0.0):
    """Counts of a share whose logit is a random walk with Student steps."""
    rng = np.random.default_rng(seed)
    steps = WALK * rng.standard_t(DEGREES, (count, 12)) + drift
    share = 1 / (1 + np.exp(-(-1.5 + np.cumsum(steps, axis=1))))
    totals = rng.integers(100, 4000, share.shape)
    counts = np.zeros((*share.shape, 2), int)
    counts[..., 0] = rng.binomial(totals, share)
    mask = np.zeros(counts.shape, bool)
    mask[..., 0] = True
    mask[0, 5] = False
    return Population(np.arange(12.0), counts=counts, totals=totals, states=["I", "S"], mask=mask)


@pytest.fixture(scope="module")
def walked():
    return walks(300, 0), walks(200, 1)


def test_persistence_learns_the_steps_of_a_random_walk(walked):
    training, held_out = walked
    found = Persistence.learn(training, origins=[3, 5, 7], horizons=[1, 4])
    assert found.scale[1] == pytest.approx(WALK, rel=0.12)
    assert found.scale[4] == pytest.approx(
        2 * WALK * np.sqrt(DEGREES / (DEGREES - 2)) / np.sqrt(found.degrees[4] / (found.degrees[4] - 2)), rel=0.15
    )
    table = found.scores(held_out, origins=[3, 5, 7], horizons=[1, 4])
    assert len(table) == 3 * 2 * 200  # week 5 of one trajectory is missing, and its last value before stands for it
    for _, part in table.groupby("horizon"):
        assert part["coverage90"].mean() == pytest.approx(0.9, abs=0.05)
        assert part["coverage50"].mean() == pytest.approx(0.5, abs=0.08)
    assert found.drift[3, 1] == 0.0


def test_a_drift_is_learned_where_it_is_asked_for():
    training, held_out = walks(300, 2, drift=0.3), walks(200, 3, drift=0.3)
    origins = [3, 7]
    still = Persistence.learn(training, origins=origins, horizons=[2]).scores(held_out, origins=origins, horizons=[2])
    drifting = Persistence.learn(training, origins=origins, horizons=[2], drifting=True)
    assert drifting.drift[3, 2] == pytest.approx(0.6, abs=0.15)
    assert drifting.scores(held_out, origins=origins, horizons=[2])["wis"].mean() < 0.9 * still["wis"].mean()


def test_history_is_the_shares_of_the_others(walked):
    training, held_out = walked
    table = Historical.learn(training).scores(held_out, origins=[3], horizons=[1])
    past = np.median(training.shares[:, 4, 0])
    assert table["median"].mean() == pytest.approx(past, abs=0.02)
    assert table["coverage90"].mean() == pytest.approx(0.9, abs=0.08)


def test_what_has_no_counts_of_one_state_is_refused(walked):
    with pytest.raises(InputError, match="counts with totals"):
        Persistence.learn(DATA, origins=[3])
    with pytest.raises(InputError, match="was not learned"):
        Persistence.learn(walked[0], origins=[3], horizons=[1]).scores(walked[1], origins=[4], horizons=[1])
    with pytest.raises(InputError, match="has 12 times"):
        Historical(np.full((5, 3), 0.1)).scores(walked[1], origins=[3])
