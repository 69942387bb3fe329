"""Protects errors that persist: their density, draws and information against dense normals, their posteriors, their forecasts, what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from relaxing import REST, STARTS, TIMES, Relaxing, mu_of

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.inference import design, fit, forecast_scores, identifiability, leave_future_out, loo, predict, scores
from bayes_mfg.inference.design_candidates import Observe
from bayes_mfg.inference.information import information, natural
from bayes_mfg.models import SimplexGaussian
from bayes_mfg.models.simplex import SimplexWalk

ELAPSED = np.array([0.0, 0.2, 0.5, 0.6, 1.4])
LATER = ELAPSED + 0.3
SPREAD = np.array([0.02, 0.1, 0.05])
MEMORY = 0.7
MU = np.random.default_rng(0).dirichlet(np.ones(3), 5)
STATES = ["a", "b", "c"]
PRIOR = dist.LogNormal(np.log(0.03), 1.0)


def dense(spread, memory, elapsed, from_start):
    """Covariance of all errors but those of the last state, `(T * 2, T * 2)`."""
    square = spread**2
    alike = np.diag(square) - np.outer(square, square) / square.sum()
    kept = np.exp(-np.abs(elapsed[:, None] - elapsed[None, :]) / memory)
    if from_start:
        kept = kept - np.exp(-(elapsed[:, None] + elapsed[None, :]) / memory)
    return np.kron(kept, alike[:2, :2])


@pytest.mark.parametrize(("elapsed", "from_start"), [(ELAPSED, False), (LATER, False), (LATER, True)])
def test_the_density_is_that_of_a_dense_normal(elapsed, from_start):
    errors = np.random.default_rng(1).normal(size=(5, 3)) * SPREAD
    errors -= errors.mean(axis=-1, keepdims=True)
    walk = SimplexWalk(jnp.asarray(MU), jnp.asarray(SPREAD), MEMORY, jnp.asarray(elapsed), from_start)
    right = scipy.stats.multivariate_normal(np.zeros(10), dense(SPREAD, MEMORY, elapsed, from_start)).logpdf(
        errors[:, :2].ravel()
    )
    assert float(walk.log_prob(MU + errors).sum()) == pytest.approx(right, rel=1e-9)


def test_from_a_start_that_is_seen_the_other_rows_have_the_density_given_it():
    errors = np.random.default_rng(1).normal(size=(5, 3)) * SPREAD
    errors -= errors.mean(axis=-1, keepdims=True)
    errors[0] = 0.0
    walk = SimplexWalk(jnp.asarray(MU), jnp.asarray(SPREAD), MEMORY, jnp.asarray(ELAPSED), True)
    right = scipy.stats.multivariate_normal(np.zeros(8), dense(SPREAD, MEMORY, ELAPSED[1:], True)).logpdf(errors[1:, :2].ravel())
    assert float(walk.log_prob(MU + errors)[1:].sum()) == pytest.approx(right, rel=1e-9)
    # The first row is no evidence, and no reason for a derivative that is not a number either.
    slope = jax.grad(
        lambda m: SimplexWalk(jnp.asarray(MU), jnp.asarray(SPREAD), m, jnp.asarray(ELAPSED), True).log_prob(MU + errors)[1:].sum()
    )
    step = 1e-5
    ends = [
        scipy.stats.multivariate_normal(np.zeros(8), dense(SPREAD, MEMORY + side, ELAPSED[1:], True)).logpdf(
            errors[1:, :2].ravel()
        )
        for side in (-step, step)
    ]
    assert float(slope(MEMORY)) == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-5)


def test_memories_of_no_time_are_independent_errors():
    errors = 0.01 * (MU - MU.mean(axis=0))
    walk = SimplexWalk(jnp.asarray(MU), jnp.asarray(SPREAD), 1e-6, jnp.asarray(ELAPSED), False)
    plain = SimplexGaussian(scale=0.1).distribution(jnp.asarray(MU[None]), None, {}, np.arange(3)).log_prob(MU + errors)[0]
    same = SimplexWalk(jnp.asarray(MU), jnp.asarray(0.1), 1e-6, jnp.asarray(ELAPSED), False).log_prob(MU + errors)
    np.testing.assert_allclose(same, plain, rtol=1e-12)
    assert np.isfinite(walk.log_prob(MU + errors)).all()


@pytest.mark.parametrize(("elapsed", "from_start"), [(ELAPSED, False), (LATER, True), (ELAPSED, True)])
def test_draws_have_the_covariance_of_the_dense_normal(elapsed, from_start):
    walk = SimplexWalk(jnp.asarray(MU), jnp.asarray(SPREAD), MEMORY, jnp.asarray(elapsed), from_start)
    count = 40_000
    errors = np.asarray(walk.sample(jax.random.key(0), (count,))) - MU
    np.testing.assert_allclose(errors.sum(axis=-1), 0.0, atol=1e-12)
    flat = errors[..., :2].reshape(count, -1)
    right = dense(SPREAD, MEMORY, elapsed, from_start)
    size = np.sqrt(np.diag(right))
    assert np.all(np.abs(np.cov(flat.T) - right) <= 5.0 / np.sqrt(count) * np.outer(size, size) * np.sqrt(2) + 1e-15)
    np.testing.assert_allclose(flat.mean(axis=0), 0.0, atol=5 * size.max() / np.sqrt(count))
    if from_start and elapsed[0] == 0.0:
        assert not errors[:, 0].any()


@pytest.mark.parametrize(("elapsed", "from_start"), [(ELAPSED, False), (LATER, True)])
def test_the_information_is_that_of_the_dense_normal(elapsed, from_start):
    """Of mean, spread and memory together, with derivatives of the dense normal by differences."""
    bend = np.random.default_rng(2).normal(size=(5, 3))
    bend -= bend.mean(axis=-1, keepdims=True)

    def walk(x):
        return SimplexWalk(
            MU + x[0] * bend, jnp.asarray(SPREAD) * jnp.exp(x[1:4]), MEMORY * jnp.exp(x[4]), jnp.asarray(elapsed), from_start
        )

    at = jnp.zeros(5)
    moved = np.asarray(jax.jacfwd(lambda x: natural(walk(x)))(at))
    found = np.einsum("tix,tij,tjy->xy", moved, information(walk(at)), moved)

    def covariance(x):
        return dense(SPREAD * np.exp(x[1:4]), MEMORY * np.exp(x[4]), elapsed, from_start)

    inverse = np.linalg.inv(covariance(np.zeros(5)))
    step = 1e-5 * np.eye(5)
    slopes = [(covariance(e) - covariance(-e)) / 2e-5 for e in step]
    right = np.array([[0.5 * np.trace(inverse @ a @ inverse @ b) for b in slopes] for a in slopes])
    across = bend[:, :2].ravel()
    right[0, 0] += across @ inverse @ across
    np.testing.assert_allclose(found, right, rtol=1e-6, atol=1e-6 * np.abs(right).max())


# Models.


def lasting(gamma, seed, count=2, memory=0.8, scale=0.03, times=TIMES, seen_start=True):
    """Populations with errors that persist, from the dense normal by NumPy alone."""
    rng = np.random.default_rng(seed)
    starts = np.resize(STARTS, (count, 3))
    first = 1 if seen_start else 0
    root = np.linalg.cholesky(dense(np.full(3, scale), memory, times[first:] - times[0], seen_start))
    errors = np.zeros((count, len(times), 3))
    errors[:, first:, :2] = (rng.standard_normal((count, len(root))) @ root.T).reshape(count, -1, 2)
    errors[..., 2] = -errors[..., :2].sum(axis=-1)
    mu = REST + (starts[:, None] - REST) * np.exp(-gamma * (times - times[0]))[:, None]
    return Population(times, proportions=mu + errors, states=STATES)


def observed(**options):
    return SimplexGaussian(**{"scale": PRIOR, "persistence": dist.LogNormal(0.0, 1.0), **options})


@pytest.fixture(scope="module")
def model():
    return Relaxing(lasting(1.5, 0, count=6, times=np.linspace(0, 6, 31)), observed(), initial="observed")


@pytest.fixture(scope="module")
def fitted(model):
    return fit(model, "svi", guide="laplace", num_samples=1000, prior_samples=50)


def test_scale_and_memory_are_recovered(fitted):
    for name, truth in (("scale", 0.03), ("persistence", 0.8)):
        log = np.log(fitted.tree["posterior"][name].to_numpy())
        assert abs(log.mean() - np.log(truth)) < 3.0 * log.std() < 1.0
    assert {"scale", "persistence"} <= set(fitted.summary().index)


def test_replicates_grow_from_the_start_that_was_seen(fitted):
    ahead = predict(fitted, seed=1)
    apart = ahead["proportions"].to_numpy() - ahead["mu"].to_numpy()
    spread = apart.std(axis=(0, 1, 3))
    elapsed = ahead["time"].to_numpy()
    right = np.sqrt(1.0 - np.exp(-2.0 * elapsed / 0.8))
    assert spread[0] == 0.0
    np.testing.assert_allclose(spread[1:] / spread[-1], right[1:], atol=0.1)
    fresh = predict(fitted, times=[0.0, 0.2, 5.0], initial=[0.2, 0.3, 0.5], seed=1)
    again = (fresh["proportions"].to_numpy() - fresh["mu"].to_numpy()).std(axis=(0, 1, 3))
    assert again[0] == 0.0
    np.testing.assert_allclose(again[1] / again[2], np.sqrt(1.0 - np.exp(-0.4 / 0.8)), atol=0.1)


def test_bands_of_new_trajectories_hold_what_they_say(fitted):
    new = lasting(1.5, 5, count=6, times=np.linspace(0, 6, 31))
    table = scores(fitted, new, initial="observed")
    # Errors of six trajectories that persist are few: 6 * 6 / 0.8 / 2 of each state.
    assert abs(table["coverage50"][0] - 0.5) < 0.2 and table["coverage90"][0] > 0.75
    plain = scores(
        fit(Relaxing(new, SimplexGaussian(PRIOR), initial="observed"), "svi", guide="laplace", num_samples=1000, prior_samples=0),
        new,
    )
    # Given the row before, a row is far better known.
    assert table["log_score"][0] > plain["log_score"][0] + 0.5


def test_posteriors_hold_the_truth_where_independent_errors_do_not():
    """Over data sets from the prior of gamma: 90 % intervals hold 90 %, and those of independent errors far fewer; standard error 2.1 %."""
    sets, inside = 200, {True: 0, False: 0}
    rng = np.random.default_rng(3)
    grid = np.exp(scipy.stats.norm.ppf((np.arange(400) + 0.5) / 400))
    mu = np.stack([mu_of(g, STARTS) for g in grid])
    models = {
        True: SimplexGaussian(scale=0.03, persistence=0.8),
        False: SimplexGaussian(scale=0.03),
    }
    clock = Relaxing(lasting(1.0, 0), models[True], initial="observed").clock(TIMES)
    densities = {
        lasts: jax.jit(
            jax.vmap(lambda y, m, o=one: o.distribution(m, None, {}, np.arange(3), clock).log_prob(y)[:, 1:].sum(), (None, 0))
        )
        for lasts, one in models.items()
    }
    for seed in range(sets):
        truth = rng.integers(0, len(grid))
        values = lasting(grid[truth], seed).shares
        for lasts, density in densities.items():
            log = np.asarray(density(jnp.asarray(values), jnp.asarray(mu)))
            weight = np.exp(log - log.max())
            below = (weight[:truth].sum() + rng.uniform() * weight[truth]) / weight.sum()
            inside[lasts] += 0.05 < below < 0.95
    assert abs(inside[True] / sets - 0.9) < 3 * np.sqrt(0.09 / sets)
    assert inside[False] / sets < 0.75


def test_the_data_tell_of_the_memory_and_the_ranking_can_be_checked(model):
    found = identifiability(model, at={"gamma": 1.5, "scale": 0.03, "persistence": 0.8})
    assert found.verdicts["persistence"].verdict in ("identified", "weak")


def test_evidence_is_of_trajectories_and_of_the_future(fitted):
    assert np.isfinite(loo(fitted, "trajectory").elpd)
    with pytest.raises(InputError, match="rows of a trajectory are no evidence of their own"):
        loo(fitted, "observation")
    assert np.isfinite(leave_future_out(fitted, blocks=3).elpd)


def test_what_takes_rows_apart_is_refused(model, fitted):
    with pytest.raises(InputError, match="design: errors of this model"):
        design(model, candidates=[Observe("0", 1.0)], budget=1.0)
    with pytest.raises(InputError, match="forecast_scores: errors"):
        forecast_scores(fitted, model.population)


def test_gaps_and_numbers_that_are_no_times_are_refused():
    population = lasting(1.5, 0)
    mask = np.ones((2, len(TIMES), 3), bool)
    mask[1, 4:] = False
    shares = np.where(mask, population.shares, np.nan)
    ends = Population(TIMES, proportions=shares, states=STATES, mask=mask)
    assert SimplexGaussian(persistence=1.0).record(ends).mask.sum() == len(TIMES) + 4
    mask[0, 3, 1] = False
    with pytest.raises(InputError, match=r"trajectory '0' is seen at 0\.8 and not in full at 0\.6"):
        SimplexGaussian(persistence=1.0).record(Population(TIMES, proportions=shares, states=STATES, mask=mask))
    for wrong in (0.0, -1.0, "long", dist.Normal(0.0, 1.0)):
        with pytest.raises(InputError, match="persistence"):
            SimplexGaussian(persistence=wrong)
    with pytest.raises(InputError, match="need the times"):
        SimplexGaussian(scale=0.1, persistence=1.0).distribution(jnp.asarray(MU[None]), None, {}, np.arange(3))
