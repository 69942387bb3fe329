"""Priors learned from many trajectories, and forecasts of each from several origins, where all is linear and normal and known in closed form."""

import json

import numpy as np
import pandas as pd
import pytest
from linear_model import SCALE, SIZE, TIMES, Linear
from scipy import integrate, stats

import bayes_mfg as bm
from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.inference import FitError, Historical, LearnedPrior, Persistence, forecast_origins, learn_prior
from bayes_mfg.inference.baselines import _around, _Expected
from bayes_mfg.inference.learned import _moved, _Own
from bayes_mfg.inference.many import Many, Normal
from bayes_mfg.inference.origins import BANDS, SCORES, until
from bayes_mfg.inference.parallel import fingerprint
from bayes_mfg.models import describe

LOCATION = np.array([1.0, -0.5])
ROOT = np.array([[0.8, 0.0], [0.3, 0.5]])
COUNT = 40
KEYS = ["trajectory", "origin", "horizon", "state"]
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
    return learn_prior(MODEL, DATA, iterations=200, tolerance=0.005, refinements=2, num_draws=400)


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
    z, bent, settled, lost = Many(MODEL, DATA, "test").modes(prior)
    means, spreads, _ = exact(prior)
    np.testing.assert_allclose(prior.location + z @ prior.root.T, means, atol=1e-3)  # modes are found to a thousandth of an sd
    np.testing.assert_allclose(prior.root @ np.linalg.inv(bent) @ prior.root.T, spreads, rtol=1e-6, atol=1e-9)
    assert settled.all() and not lost.any()


def ended(population, strength=1.0, steps=800):
    """Where the iteration with exact moments ends, from sums direction by direction."""
    own = Many(MODEL, population, "test").own_prior()
    inverse = np.linalg.inv(own.root)
    part, axes = np.linalg.eigh(inverse @ exact(own, population)[1].mean(axis=0) @ inverse.T)
    to = inverse.T @ axes
    prior = own
    for _ in range(steps):
        mean, spread, _ = exact(prior, population)
        z = (mean - own.location) @ to
        middle, scatter = np.empty(2), np.empty((2, 2))
        for i in range(2):
            middle[i] = z[:, i].sum() / (COUNT + strength * part[i])
        for i in range(2):
            for j in range(2):
                count = np.sqrt((COUNT + strength * part[i]) * (COUNT + strength * part[j]))
                seen = sum((row[i] - middle[i]) * (row[j] - middle[j]) for row in z) + sum((to.T @ s @ to)[i, j] for s in spread)
                ours = strength * np.sqrt(part[i] * part[j]) * (middle[i] * middle[j] + (i == j))
                scatter[i, j] = (seen + ours) / count
        back = own.root @ axes
        prior = Normal(own.location + back @ middle, np.linalg.cholesky(back @ scatter @ back.T))
    return prior


def settled(own, population, start, steps):
    """Location and sds to which exact moments lead the library's step."""
    prior = start
    for _ in range(steps):
        prior = own.maximised(*exact(prior, population)[:2])
    return prior.location, np.sqrt(np.diag(prior.root @ prior.root.T))


def test_a_wide_prior_does_not_widen_what_the_data_determine():
    """Sds of 20 are as good as nothing; as one trajectory of forty in every direction they would make sds several times too large."""
    wide = Normal(np.zeros(2), 20.0 * np.eye(2))
    spread = exact(wide)[1]
    location, sds = settled(_Own.weighed(wide, spread, 1.0), DATA, wide, 100)
    most, right = settled(_Own.weighed(wide, spread, 1e-9), DATA, wide, 100)
    np.testing.assert_allclose(sds, right, rtol=0.03)
    np.testing.assert_allclose(location, most, atol=0.02)
    assert np.all(settled(_Own.alike(wide, 1.0), DATA, wide, 100)[1] > 2.0 * right)


def test_of_what_the_data_do_not_see_the_own_prior_stays():
    blind = DATA.proportions.copy()
    mask = DATA.mask.copy()
    mask[:, 1:] = False  # the slope shows at later times only
    population = Population(TIMES, proportions=blind, mask=mask)
    own = Normal(np.array([0.0, 0.7]), np.diag([1.5, 0.4]))
    weighed = _Own.weighed(own, exact(own, population)[1], 1.0)
    location, sds = settled(weighed, population, own, 100)
    assert location[1] == pytest.approx(0.7, abs=1e-6) and sds[1] == pytest.approx(0.4, rel=1e-6)
    assert np.sort(weighed.weights)[-1] == pytest.approx(1.0) and np.sort(weighed.weights)[0] < 0.2


def test_short_steps_do_not_pass_for_the_end():
    """Where the data say little steps are short long before the end: what is left is told, and the default ends where it says."""
    mask = DATA.mask.copy()
    mask[:, 4:] = False
    scarce = Population(TIMES, proportions=DATA.proportions, mask=mask)
    end = ended(scarce)

    def left(found):
        at = Normal(found.location, np.linalg.cholesky(found.covariance))
        return _moved(at, end)

    found = learn_prior(MODEL, scarce, iterations=500, refinements=0)
    assert found.warnings == () and left(found) < 2 * 0.03 and found.remaining <= 0.03
    soon = learn_prior(MODEL, scarce, iterations=8, refinements=0)
    assert "had not settled after 8 iterations" in soon.warnings[0] and "raise iterations" in soon.warnings[0]
    assert soon.remaining > 0.5 * left(soon) > 0.1  # so early it is told by its order of magnitude, and from above
    assert "raise refinements" in learn_prior(MODEL, scarce, iterations=8, refinements=2, num_draws=400).warnings[1]


def test_learning_ends_where_an_exact_em_ends(learned):
    """The same iteration with exact moments; the refinements leave the noise of 400 draws of 40 trajectories."""
    prior = ended(DATA, steps=400)
    sds = np.sqrt(np.diag(prior.root @ prior.root.T))
    assert np.abs((learned.location - prior.location) / sds).max() < 0.01
    np.testing.assert_allclose(learned.covariance / np.outer(sds, sds), prior.root @ prior.root.T / np.outer(sds, sds), atol=0.03)
    # Forty log means of 400 weights, each with an error of about 0.02.
    assert learned.evidence[-1] == pytest.approx(exact(prior)[2].sum(), abs=0.5)
    assert learned.warnings == ()


def test_groups_widen_the_error_of_the_location(learned):
    """With independent trajectories it is that of a mean, whose information misses what the noise of the data takes away."""
    _, spreads, _ = exact(Normal(learned.location, np.linalg.cholesky(learned.covariance)))
    inverse = np.linalg.inv(learned.covariance)
    information = (COUNT + 1) * inverse - np.einsum("ij,rjk,kl->il", inverse, spreads, inverse)
    ratio = np.diag(learned.uncertainty) / np.diag(np.linalg.inv(information))
    assert np.all((ratio > 0.6) & (ratio < 1.6)), ratio  # a variance estimated from 40 scores has an error of 22 %
    same = learn_prior(MODEL, DATA, groups=["a"] * 20 + ["b"] * 20, iterations=3, refinements=0)
    assert same.groups == 2 and np.linalg.matrix_rank(same.uncertainty, tol=1e-10) == 1
    assert "had not settled" in same.warnings[0]


def test_it_can_be_kept(learned, tmp_path):
    learned.save(tmp_path / "prior.json")
    again = LearnedPrior.load(tmp_path / "prior.json")
    np.testing.assert_array_equal(again.predictive, learned.predictive)
    assert again.names == learned.names and again.evidence == learned.evidence and again.remaining == learned.remaining
    again.check(Linear(DATA.select(["3"])), "test")  # other data are no other model
    for other in (
        {"paths": {"a": bm.paths.Constant(), "b": bm.paths.Constant(level_scale=2.0)}},
        {"observation": bm.models.Gaussian(scale=0.1)},
    ):
        with pytest.raises(InputError, match=f"learned for another model; their {next(iter(other))} differ"):
            again.applied(Linear(DATA.select(["0"]), **other))
        with pytest.raises(InputError, match="forecast_origins: the prior was learned for another model"):
            forecast_origins(Linear(DATA.select(["0"]), **other), DATA, again, origins=[4])
    with pytest.raises(InputError, match="their time grid differ"):
        again.applied(Linear(Population(2 * TIMES, proportions=DATA.proportions[:1])))
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


def test_fits_under_other_joint_priors_are_told_apart(learned, tmp_path):
    """By a fingerprint of the numbers: in words all are the same."""
    model = learned.applied(MODEL)
    other = MODEL.with_prior(learned.location, learned.predictive * (1 + 1e-12))
    assert describe(model) == describe(learned.applied(Linear(DATA.select(["0"]))))
    assert len({json.dumps(describe(each)) for each in (MODEL, model, other)}) == 3
    assert fingerprint(model) != fingerprint(other)
    fit = bm.inference.fit(model, "point", prior_samples=0)
    fit.save(tmp_path / "fit.nc")
    assert bm.inference.load(tmp_path / "fit.nc", model=model).model is model
    for wrong in (MODEL, other):
        with pytest.raises(InputError, match="unknowns differ"):
            bm.inference.load(tmp_path / "fit.nc", model=wrong)
        with pytest.raises(InputError, match="unknowns"):
            bm.inference.fit(wrong, "point", start=fit)


def test_forecasts_know_nothing_of_what_comes(learned):
    """Data after the origin may be anything; the scores are those of the exact predictive distribution."""
    table = forecast_origins(MODEL, DATA, learned, origins=[4], horizons=[1, 3], num_draws=2000)
    rng = np.random.default_rng(8)
    values, mask = DATA.proportions.copy(), DATA.mask.copy()
    values[:, 5:, 0] = rng.uniform(size=(COUNT, 4))
    values[:, 5:, 1] = 1 - values[:, 5:, 0]
    mask[:, 5:] = rng.uniform(size=(COUNT, 4, 1)) < 0.5
    other = Population(TIMES, proportions=values, mask=mask)
    again = forecast_origins(MODEL, other, learned, origins=[4], horizons=[1, 3], num_draws=2000)
    pd.testing.assert_frame_equal(table[[*KEYS, *BANDS, "pareto_k"]], again[[*KEYS, *BANDS, "pareto_k"]], check_exact=True)
    assert len(table) == 2 * 2 * COUNT and np.isfinite(table[list(BANDS)].to_numpy()).all()
    for population, found in ((DATA, table), (other, again)):
        seen = population.mask[found["trajectory"].astype(int), 4 + found["horizon"], found["state"].astype(int)]
        assert (
            found[[*SCORES, "share"]].notna().to_numpy() == seen[:, None]
        ).all()  # a forecast of what was not observed has no score

    prior = Normal(learned.location, np.linalg.cholesky(learned.predictive))
    means, spreads, _ = exact(prior, until(DATA, 4))
    for number, name in ((0, "0"), (7, "7")):
        row = table[(table["trajectory"] == name) & (table["horizon"] == 3) & (table["state"] == "0")].iloc[0]
        mean = 0.5 + DESIGN[7] @ means[number]
        sd = np.sqrt(DESIGN[7] @ spreads[number] @ DESIGN[7] + SCALE**2)
        assert row["median"] == pytest.approx(mean, abs=0.1 * sd)
        left = (row["share"] - mean) / sd
        assert row["log_score"] == pytest.approx(-0.5 * left**2 - np.log(sd * np.sqrt(2 * np.pi)), abs=0.1)


def test_forecasts_of_counts_know_nothing_of_what_comes():
    """Counts after the origin may be anything; sizes are those of what is scored, and the last or given ones where nothing was observed."""
    rng = np.random.default_rng(4)
    totals = rng.integers(500, 2000, (20, len(TIMES)))
    counts = np.zeros((20, len(TIMES), 2), int)
    counts[..., 0] = rng.binomial(totals, DATA.proportions[:20, :, 0])
    mask = np.broadcast_to([True, False], counts.shape)

    def population(counts, mask=mask):
        return Population(TIMES, counts=counts, totals=totals, mask=mask)

    model = Linear(population(counts).select(["0"]), observation=bm.models.Binomial(states=["0"]), initial=[0.5, 0.5])
    prior = learn_prior(model, population(counts), iterations=3, refinements=0)
    given = {"origins": [4], "horizons": [1, 2, 3], "num_draws": 400}
    table = forecast_origins(model, population(counts), prior, **given)
    changed = counts.copy()
    changed[:, 5:, 0] = rng.binomial(totals[:, 5:], 0.9)
    again = forecast_origins(model, population(changed), prior, **given)
    pd.testing.assert_frame_equal(table[[*KEYS, *BANDS, "pareto_k"]], again[[*KEYS, *BANDS, "pareto_k"]], check_exact=True)
    assert not np.any(table["share"] == again["share"])
    unseen = mask.copy()
    unseen[:, 5:] = False
    by_last = forecast_origins(model, population(counts, unseen), prior, **given)
    assert by_last[list(SCORES)].isna().all().all()
    sizes = totals[by_last["trajectory"].astype(int), 4]
    np.testing.assert_allclose(by_last["median"] * sizes, np.round(by_last["median"] * sizes * 2) / 2, atol=1e-6)
    few = forecast_origins(model, population(counts, unseen), prior, **given, totals=10)
    assert np.all((few["high90"] - few["low90"]) > 2 * (by_last["high90"] - by_last["low90"]))


def test_what_has_no_equilibrium_fails_by_name(learned, caplog):
    """One trajectory whose draws have none leaves the others what they are."""
    table = forecast_origins(MODEL, DATA.select(["0", "1"]), learned, origins=[4], horizons=[1], num_draws=400)

    class Broken(Many):
        def implied(self, flat, rows):
            misfit, mu = super().implied(flat, rows)
            misfit[[self.population.trajectories[row] == "1" for row in rows]] = np.inf
            return misfit, mu

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bayes_mfg.inference.origins.Many", Broken)
        patch.setattr("bayes_mfg.inference.learned.Many", Broken)
        found = forecast_origins(MODEL, DATA.select(["0", "1"]), learned, origins=[4], horizons=[1], num_draws=400)
        with pytest.raises(FitError, match="Trajectory '1' has hardly any draws"):
            learn_prior(MODEL, DATA.select(["0", "1"]), iterations=1, refinements=1)
    assert "equilibrium for '1'." in caplog.text
    lost = found["trajectory"] == "1"
    pd.testing.assert_frame_equal(found[~lost], table[~lost], check_exact=True)
    assert found.loc[lost, [*SCORES, *BANDS]].isna().all().all() and np.isinf(found.loc[lost, "pareto_k"]).all()
    caplog.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bayes_mfg.inference.many.reliable", lambda draws: -9.0)
        forecast_origins(MODEL, DATA.select(["0", "1"]), learned, origins=[4], horizons=[1], num_draws=400)
    assert "of 2 posteriors 2 have a Pareto k above its limit: '0', '1'" in caplog.text
    beyond = Linear(DATA.select(["0"]), limit=-1.0)
    with pytest.raises(FitError, match="no equilibrium at the prior's location"):
        learn_prior(beyond, DATA)


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
    with pytest.raises(InputError, match="tolerance is 0"):
        learn_prior(MODEL, DATA, tolerance=0)
    with pytest.raises(InputError, match="totals is 0"):
        forecast_origins(MODEL, DATA, learned, origins=[4], totals=0)
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


def masked(population, times):
    """With some times not observed."""
    mask = population.mask.copy()
    mask[:, times] = False
    totals = np.where(mask.any(axis=-1), population.totals, 0)
    return Population(population.times, counts=population.counts, totals=totals, states=population.states, mask=mask)


def test_persistence_learns_from_something_or_refuses(walked):
    """A horizon that no origin reaches is left out, as by `forecast_origins`; one that was nowhere observed is not a spread of its own making."""
    found = Persistence.learn(walked[0], origins=[9], horizons=[1, 4])
    assert list(found.scale) == [1]
    assert set(found.scores(walked[1], origins=[9], horizons=[1, 4])["horizon"]) == {1}
    late = masked(walked[0], slice(4, None))
    with pytest.raises(InputError, match=r"origins \[3, 5\] and 1 steps later; horizon 1 cannot be learned"):
        Persistence.learn(late, origins=[5, 3], horizons=[1])
    with pytest.raises(InputError, match="up to time 5 and 1 steps later; a drift"):
        Persistence.learn(late, origins=[2, 5], horizons=[1], drifting=True)
    assert Persistence.learn(late, origins=[2, 5], horizons=[1]).scale[1] > 0


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


@pytest.mark.parametrize(
    ("k", "n", "centre", "spread", "degrees"),
    [(2600, 3000, -1.5, 0.3, 4.0), (0, 3000, -1.5, 0.3, 4.0), (300, 3000, -2.0, 0.1, 30.0), (2, 9, 1.0, 0.5, 2.1)],
)
def test_log_scores_of_persistence_are_integrals(k, n, centre, spread, degrees):
    """Far out in the tails, too, where no quantile is near: against adaptive quadrature."""

    def integrand(u):
        return np.exp(
            stats.binom.logpmf(k, n, 1 / (1 + np.exp(-u))) + stats.t.logpdf((u - centre) / spread, degrees) - np.log(spread) + 20
        )

    peak = np.log((k + 0.5) / (n - k + 0.5))
    found = [
        integrate.quad(
            integrand, a, b, limit=2000, epsabs=0, points=[p for p in (centre, peak, peak - 0.1, peak + 0.1) if a < p < b]
        )[0]
        for a, b in ((-40, -15), (-15, 15))
    ]
    many = _Expected(*(np.full(3, float(x)) for x in (centre, spread / 2, k, n))).log_density(np.full(3, spread), degrees)
    np.testing.assert_allclose(many, np.log(sum(found)) - 20, atol=2e-3)


def test_historical_shares_are_as_wide_as_held_out_ones_ask_for():
    """Counts of two sharply different shares of the past; a count between them is not impossible, and all counts add up to one."""
    rng = np.random.default_rng(5)
    share = rng.beta(60, 140, (200, 2))
    totals = np.full(share.shape, 3000)
    counts = np.zeros((*share.shape, 2), int)
    counts[..., 0] = rng.binomial(totals, share)
    mask = np.broadcast_to([True, False], counts.shape)
    found = Historical.learn(Population([0.0, 1.0], counts=counts, totals=totals, states=["I", "S"], mask=mask))
    every = np.arange(3001)
    density = _around(found.shares[0], found.concentration, every, np.full(3001, 3000), np.ones((200, 3001), bool))
    assert np.exp(density).sum() == pytest.approx(1.0, abs=1e-9)
    exact = stats.betabinom.logpmf(every, 3000, 60, 140)
    within = np.abs(every - 900) < 350  # 3.6 sds
    assert np.abs(density - exact)[within].max() < 1.5
    assert np.sum(np.exp(exact) * (exact - density)) < 0.05  # nats that are lost on average


def test_what_has_no_counts_of_one_state_is_refused(walked):
    with pytest.raises(InputError, match="counts with totals"):
        Persistence.learn(DATA, origins=[3])
    with pytest.raises(InputError, match="was not learned"):
        Persistence.learn(walked[0], origins=[3], horizons=[1]).scores(walked[1], origins=[4], horizons=[1])
    with pytest.raises(InputError, match="has 12 times"):
        Historical(np.full((5, 3), 0.1), 100.0).scores(walked[1], origins=[3])
