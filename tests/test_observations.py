"""Protects the likelihoods and initial conditions: densities against SciPy, masks, subsets of states, variances, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.models import (
    BetaBinomial,
    Binomial,
    Dirichlet,
    DirichletMultinomial,
    FirstObserved,
    Gaussian,
    Known,
    Multinomial,
    Seeded,
    SimplexGaussian,
    UnknownShares,
)

RNG = np.random.default_rng(0)
TIMES = np.array([0.0, 1.0, 2.5])
STATES = ["S", "I", "R"]
MU = RNG.dirichlet(np.ones(3), (2, 3))
TOTALS = np.array([[50, 60, 70], [20, 30, 40]])
COUNTS = np.array([[RNG.multinomial(TOTALS[r, t], MU[r, t]) for t in range(3)] for r in range(2)])
SHARES = np.array([[RNG.dirichlet(20 * MU[r, t]) for t in range(3)] for r in range(2)])
HOLES = np.ones((2, 3, 3), bool)
HOLES[0, 1, 2] = HOLES[1, 0] = False
NO_I = np.broadcast_to(np.arange(3) != 1, (3, 3))


def counts(**options):
    return Population(TIMES, counts=COUNTS, totals=TOTALS, states=STATES, **options)


def shares(**options):
    return Population(TIMES, proportions=SHARES, states=STATES, **options)


def log_density(observation, population, mu=MU, own=None):
    """Log densities where the record counts, zero elsewhere."""
    record = observation.record(population)
    seen = observation.distribution(jnp.asarray(mu), record.totals, own or {}, observation.index(population))
    assert seen.batch_shape == record.mask.shape
    return np.asarray(seen.mask(record.mask).log_prob(record.values))


def rows(function, *arrays):
    """A density of rows, `(2, 3)`."""
    return np.array([[function(*(a[r, t] for a in arrays)) for t in range(3)] for r in range(2)])


def test_gaussian_is_scipys_normal():
    np.testing.assert_allclose(log_density(Gaussian(scale=0.05), shares()), scipy.stats.norm.logpdf(SHARES, MU, 0.05))
    as_shares = scipy.stats.norm.logpdf(COUNTS / TOTALS[..., None], MU, 0.05)
    np.testing.assert_allclose(log_density(Gaussian(scale=0.05), counts()), as_shares)


def test_dirichlet_is_scipys():
    right = rows(lambda x, m: scipy.stats.dirichlet.logpdf(x / x.sum(), m / 0.02), SHARES, MU)
    np.testing.assert_allclose(log_density(Dirichlet(noise=0.02), shares()), right, rtol=1e-8)


def test_multinomial_is_scipys_over_all_states_and_over_some_and_the_rest():
    right = rows(lambda x, n, m: scipy.stats.multinomial.logpmf(x, n, m / m.sum()), COUNTS, TOTALS, MU)
    np.testing.assert_allclose(log_density(Multinomial(), counts()), right, rtol=1e-8)

    def with_rest(x, n, m):
        return scipy.stats.multinomial.logpmf([x[1], n - x[1]], n, [m[1], 1 - m[1]])

    some = Multinomial(states=["I"])
    assert some.columns(counts()) == ("I", "other")
    np.testing.assert_allclose(log_density(some, counts()), rows(with_rest, COUNTS, TOTALS, MU), rtol=1e-8)


def test_dirichlet_multinomial_is_scipys_and_samples_with_totals_known_late():
    right = rows(lambda x, n, m: scipy.stats.dirichlet_multinomial.logpmf(x, 30.0 * m / m.sum(), n), COUNTS, TOTALS, MU)
    model = DirichletMultinomial(concentration=30.0)
    np.testing.assert_allclose(log_density(model, counts()), right, rtol=1e-8)

    @jax.jit
    def draw(totals):
        seen = model.distribution(jnp.asarray(MU), totals, {}, np.arange(3))
        return seen.sample(jax.random.key(0), (4000,))

    drawn = np.asarray(draw(jnp.asarray(TOTALS)))
    np.testing.assert_array_equal(drawn.sum(-1), np.broadcast_to(TOTALS, (4000, 2, 3)))
    n, probs = TOTALS[..., None], MU
    variance = n * probs * (1 - probs) * (1 + (n - 1) / 31.0)
    np.testing.assert_allclose(drawn.mean(0), n * probs, atol=5 * np.sqrt(variance.max() / 4000))
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.15, atol=0.05)


def test_a_state_may_be_called_other():
    states = ["other", "A", "B"]
    population = Population(TIMES, counts=COUNTS, totals=TOTALS, states=states)
    model = Multinomial(states=["other", "A"])
    assert model.columns(population) == ("other", "A", "other states")
    assert list(model.index(population)) == [0, 1]
    right = rows(lambda x, n, m: scipy.stats.multinomial.logpmf(x, n, m / m.sum()), COUNTS, TOTALS, MU)
    np.testing.assert_allclose(log_density(model, population), right, rtol=1e-8)


def test_rows_that_do_not_count_are_predicted_all_the_same():
    record = Multinomial().record(counts(mask=HOLES))
    np.testing.assert_array_equal(record.totals[0], TOTALS[0])


def test_the_start_that_is_taken_from_the_data_is_not_scored():
    from bayes_mfg.games import LinearQuadratic
    from bayes_mfg.models import Calibration

    model = Calibration(LinearQuadratic(), shares(), {"gamma": 1.0}, Gaussian(scale=dist.HalfNormal(0.1)), initial="observed")
    assert not np.asarray(model.data.record.mask)[:, 0].any() and np.asarray(model.data.record.mask)[:, 1:].all()


@pytest.mark.parametrize("states", [None, ["I"], ["R", "S"]])
def test_binomials_are_scipys_for_any_states(states):
    index = [STATES.index(s) for s in states or STATES]
    x, n, m = COUNTS[..., index], TOTALS[..., None], MU[..., index]
    np.testing.assert_allclose(log_density(Binomial(states=states), counts()), scipy.stats.binom.logpmf(x, n, m), rtol=1e-8)
    right = scipy.stats.betabinom.logpmf(x, n, 30.0 * m, 30.0 * (1 - m))
    np.testing.assert_allclose(log_density(BetaBinomial(concentration=30.0, states=states), counts()), right, rtol=1e-7)


@pytest.mark.parametrize(
    ("name", "observation", "population"),
    [
        ("scale", Gaussian, shares()),
        ("noise", Dirichlet, shares()),
        ("concentration", BetaBinomial, counts()),
    ],
)
def test_a_prior_is_one_unknown_whose_value_is_used(name, observation, population):
    unknown = observation(**{name: dist.LogNormal(0.0, 1.0)})
    assert list(unknown.priors) == [name]
    given = log_density(unknown, population, own={name: jnp.asarray(0.3)})
    np.testing.assert_allclose(given, log_density(observation(**{name: 0.3}), population))
    assert observation(**{name: 0.3}).priors == {}


@pytest.mark.parametrize(
    "observation", [Gaussian(), Dirichlet(noise=0.01), Multinomial(), Binomial(), BetaBinomial(concentration=9.0)]
)
def test_what_is_masked_counts_nothing_whatever_stands_there(observation):
    make = counts if observation.variable == "counts" else shares
    masked, whole = log_density(observation, make(mask=HOLES)), log_density(observation, make())
    seen = np.asarray(observation.record(make(mask=HOLES)).mask)
    np.testing.assert_array_equal(seen, HOLES if seen.ndim == 3 else HOLES.all(axis=-1))
    np.testing.assert_allclose(masked[seen], whole[seen])
    assert (masked[~seen] == 0).all()


@pytest.mark.parametrize(
    "observation", [Gaussian(), Dirichlet(noise=0.01), Multinomial(), Binomial(), BetaBinomial(concentration=9.0)]
)
def test_empty_and_full_states_have_finite_densities_and_gradients(observation):
    """A population at the edge of the simplex, where states that were seen are held empty; and masked cells carry no gradient."""
    population = (counts if observation.variable == "counts" else shares)(mask=HOLES)
    edge = jnp.broadcast_to(jnp.array([1.0, 0.0, 0.0]), (2, 3, 3))
    record = observation.record(population)

    def total(mu):
        seen = observation.distribution(mu, record.totals, {}, observation.index(population))
        return seen.mask(record.mask).log_prob(record.values).sum()

    value, gradient = jax.value_and_grad(total)(edge)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[1, 0] == 0).all()


@pytest.mark.parametrize(
    ("observation", "totals", "variance"),
    [
        (Gaussian(scale=0.1), 1, lambda m, n: np.full(3, 0.01)),
        (Dirichlet(noise=0.25), 1, lambda m, n: m * (1 - m) * 0.25 / 1.25),
        (Multinomial(), 40, lambda m, n: n * m * (1 - m)),
        (Binomial(), 40, lambda m, n: n * m * (1 - m)),
        (BetaBinomial(concentration=9.0), 40, lambda m, n: n * m * (1 - m) * (1 + (n - 1) / 10)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_replicates_have_the_stated_mean_and_variance(observation, totals, variance):
    """20,000 draws: means within 5 standard errors, variances within 6 % (of normal-like data, 6 standard errors)."""
    mu = np.array([0.2, 0.3, 0.5])
    seen = jax.jit(
        lambda m, n: observation.distribution(m, n, {}, np.arange(3)).sample(jax.random.key(0)),
    )(jnp.broadcast_to(mu, (20000, 1, 3)), jnp.full((20000, 1), float(totals)))
    draws = np.asarray(seen)[:, 0]
    right = variance(mu, totals)
    np.testing.assert_allclose(draws.mean(axis=0), totals * mu, atol=float(5 * np.sqrt(right.max() / 20000)))
    np.testing.assert_allclose(draws.var(axis=0), right, rtol=0.06)
    if isinstance(observation, Multinomial):
        assert (draws.sum(axis=-1) == totals).all()


PROPORTIONS_WITH_ZERO = np.where(np.arange(3) == 1, 0.0, 0.5) * np.ones((2, 3, 3))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Gaussian(scale=-0.1), "scale is -0.1"),
        (lambda: Gaussian(scale=True), "scale is True"),
        (lambda: Gaussian(scale="wide"), "scale is 'wide'"),
        (lambda: Dirichlet(noise=np.nan), "noise is nan"),
        (lambda: Dirichlet(noise=dist.Normal(0.0, 1.0)), "support"),
        (lambda: Gaussian(scale=dist.Poisson(3.0)), "is discrete"),
        (lambda: BetaBinomial(concentration=dist.TruncatedNormal(0.0, 1.0, low=-3.0)), "support"),
        (lambda: BetaBinomial(concentration=dist.LogNormal(jnp.zeros(2), 1.0)), "shape (2,)"),
        (lambda: Binomial(states="I"), "a list of names"),
        (lambda: Binomial(states=5), "a list of names"),
        (lambda: Binomial(states=[["I"]]), "names are needed"),
        (lambda: Binomial(states=[]), "at least one name"),
        (lambda: Binomial(states=["I", "I"]), "none twice"),
        (lambda: Binomial(states=["E"]).columns(counts()), "no state 'E'"),
        (lambda: Binomial(states=["I"]).columns(counts(mask=NO_I)), "'I' is never observed"),
        (lambda: Binomial().record(shares()), "counts with totals are needed"),
        (lambda: Multinomial().record(shares()), "counts with totals are needed"),
        (lambda: Multinomial(states=["S", "I"]).record(counts(mask=rows_without_i())), "no time has all of its states"),
        (lambda: Dirichlet().record(shares(mask=NO_I)), "no time has all states observed"),
        (lambda: Dirichlet().record(Population(TIMES, proportions=PROPORTIONS_WITH_ZERO, states=STATES)), "state 'I'"),
        (lambda: Known([0.5, 0.6, 0.1]).fixed(counts()), "sum to one"),
        (lambda: Known([[0.5, 0.5], [1.0]]).fixed(counts()), "an array of shares"),
        (lambda: Known([0.5, 0.5]).fixed(counts()), "shape (2,)"),
        (lambda: FirstObserved().fixed(counts(mask=HOLES)), "not fully observed"),
        (lambda: UnknownShares(concentration=0.0), "concentration is 0.0"),
        (lambda: Seeded(seed="E").fixed(counts()), "no state 'E'"),
        (lambda: UnknownShares(concentration="x"), "concentration is 'x'"),
        (lambda: Seeded(share=dist.LogNormal(0.0, 1.0)), "lives in (0, 1)"),
        (lambda: Seeded(share=dist.Beta(jnp.ones(2), 1.0)), "a scalar prior"),
        (lambda: Seeded(seed="I", rest="I"), "both 'I'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def rows_without_i():
    """S and I are both seen, but never at once."""
    mask = np.ones((2, 3, 3), bool)
    mask[:, 0, 1] = mask[:, 1:, 0] = False
    return mask


def sampled(initial, population, seed=0):
    """Initial populations, and the names of what was drawn."""
    drawn = {}

    def draw(name, prior):
        drawn[name] = prior.sample(jax.random.key(seed))
        return drawn[name]

    return np.asarray(initial.sample(draw, jnp.asarray(initial.fixed(population)))), drawn


@pytest.mark.parametrize(
    "initial", [Known([0.9, 0.1, 0.0]), FirstObserved(), UnknownShares(), Seeded()], ids=lambda x: type(x).__name__
)
def test_initial_populations_are_distributions(initial):
    mu0, drawn = sampled(initial, shares())
    assert mu0.shape == (2, 3)
    assert (mu0 >= 0).all()
    np.testing.assert_allclose(mu0.sum(axis=-1), 1.0)
    assert len(drawn) == isinstance(initial, UnknownShares | Seeded)


def test_known_initial_populations_are_taken_as_they_are():
    two = RNG.dirichlet(np.ones(3), 2)
    np.testing.assert_allclose(sampled(Known(two), counts())[0], two)
    np.testing.assert_allclose(sampled(FirstObserved(), counts())[0], COUNTS[:, 0] / TOTALS[:, 0, None])


def test_seeds_are_a_share_for_each_trajectory_and_nothing_elsewhere():
    mu0, drawn = sampled(Seeded(seed="R", rest="I"), counts())
    np.testing.assert_allclose(mu0, np.stack([np.zeros(2), 1 - drawn["seed"], drawn["seed"]], axis=-1))
    assert drawn["seed"][0] != drawn["seed"][1]


def test_a_scaled_prior_is_a_prior_on_the_positive_numbers():
    scaled = dist.TransformedDistribution(dist.HalfNormal(1.0), dist.transforms.AffineTransform(0.0, 0.1))
    assert list(Gaussian(scale=scaled).priors) == ["scale"]


@pytest.mark.parametrize("scales", [0.03, np.array([0.01, 0.03, 0.1])])
def test_errors_of_shares_are_normal_given_that_they_sum_to_zero(scales):
    """The density of two of three shares, with the covariance of independent errors given their sum."""
    observation = SimplexGaussian(scale=dist.LogNormal(-3.0, 1.0), by_state=np.ndim(scales) > 0)
    square = np.broadcast_to(scales, 3) ** 2
    covariance = np.diag(square) - np.outer(square, square) / square.sum()
    right = rows(lambda x, m: scipy.stats.multivariate_normal.logpdf(x[:2], m[:2], covariance[:2, :2]), SHARES, MU)
    own = {"scale": jnp.asarray(scales)}
    np.testing.assert_allclose(log_density(observation, shares(), own=own), right)
    seen = observation.distribution(jnp.asarray(MU), None, own, np.arange(3))
    drawn = np.asarray(seen.sample(jax.random.key(0), (20_000,))) - MU
    np.testing.assert_allclose(drawn.sum(axis=-1), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.cov(drawn[:, 0, 0].T), covariance, atol=0.03 * covariance.max())


def test_rows_with_gaps_say_nothing_about_errors_that_sum_to_zero():
    record = SimplexGaussian().record(shares(mask=HOLES))
    np.testing.assert_array_equal(record.mask, HOLES.all(axis=-1))
    with pytest.raises(InputError, match="no time has all states"):
        SimplexGaussian().record(shares(mask=np.broadcast_to(NO_I, (2, 3, 3))))


def test_priors_of_scales_are_one_or_one_for_every_state():
    prior = dist.LogNormal(-3.0, 1.0)
    assert SimplexGaussian(scale=prior, by_state=True).drawn(3)["scale"].event_shape == (3,)
    assert SimplexGaussian(scale=prior).drawn(3)["scale"].shape() == ()


@pytest.mark.parametrize("options", [{"scale": 0.1, "by_state": True}, {"by_state": "yes"}])
def test_scales_by_state_need_a_prior(options):
    with pytest.raises(InputError, match="by_state"):
        SimplexGaussian(**options)


def test_one_noise_for_all_shares_is_no_matter_where_all_sizes_are_one():
    even = Population(TIMES, counts=np.full((2, 3, 3), 20), totals=np.full((2, 3), 60), states=STATES)
    assert SimplexGaussian().remarks(even) == []
    assert "whatever their totals" in SimplexGaussian().remarks(counts())[0]


def test_independent_shares_that_sum_to_one_are_told():
    assert "counts 3/2 times, and sds are too narrow by 18 %" in Gaussian().remarks(shares())[0]
    assert Gaussian().remarks(shares(mask=np.broadcast_to(NO_I, (2, 3, 3)))) == []
