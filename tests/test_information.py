"""Protects the expected information of the observation models: against the score's outer products, by simulation and by summing over all records."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from bayes_mfg.errors import InputError
from bayes_mfg.inference.information import information, natural, root
from bayes_mfg.models import BetaBinomial, Binomial, Dirichlet, DirichletMultinomial, Gaussian, Multinomial, SimplexGaussian
from bayes_mfg.models.observations import SimplexNormal

MU = jnp.array([0.2, 0.5, 0.3])
SOME = np.array([0, 2])
PRIOR = dist.HalfNormal(1.0)
# Observation model, its own unknown with a value, the numbers of the observed states, the total.
MODELS = {
    "gaussian": (Gaussian(scale=PRIOR), {"scale": 0.1}, SOME, 1),
    "simplex gaussian": (SimplexGaussian(scale=PRIOR), {"scale": 0.1}, np.arange(3), 1),
    "dirichlet": (Dirichlet(noise=PRIOR), {"noise": 0.05}, np.arange(3), 1),
    "sharp dirichlet": (Dirichlet(noise=PRIOR), {"noise": 1e-3}, np.arange(3), 1),
    "multinomial": (Multinomial(), {}, np.arange(3), 40),
    "multinomial of some": (Multinomial(states=["a", "c"]), {}, SOME, 40),
    "dirichlet-multinomial": (DirichletMultinomial(concentration=PRIOR), {"concentration": 12.0}, np.arange(3), 30),
    "binomial": (Binomial(states=["a", "c"]), {}, SOME, 50),
    "beta-binomial": (BetaBinomial(concentration=PRIOR, states=["a", "c"]), {"concentration": 8.0}, SOME, 25),
}
COUNT = 20_000


def pieces(name):
    """The distribution as a function of `(mu, own)` in one vector, and that vector."""
    model, own, index, total = MODELS[name]
    names = list(own)
    start = jnp.concatenate([MU, jnp.array([own[n] for n in names])])
    totals = jnp.full((1, 1), total, float)

    def distribution(x):
        return model.distribution(x[None, None, :3], totals, dict(zip(names, x[3:], strict=True)), index)

    return distribution, start


def expected(name):
    """Information in `(mu, own)`, through the parameters of the distribution."""
    distribution, start = pieces(name)
    slopes = np.asarray(jax.jacfwd(lambda x: natural(distribution(x)))(start))
    inner = information(distribution(start))
    assert slopes.shape[:-1] == inner.shape[:-1]
    some = slopes.reshape(-1, *slopes.shape[-2:])
    return np.einsum("nai,nab,nbj->ij", some, inner.reshape(len(some), *inner.shape[-2:]), some)


@pytest.mark.parametrize("name", MODELS)
def test_information_is_the_mean_of_the_scores_outer_products(name):
    """Simulated records of the model itself. No entry of at most 10 of a matrix is off by 5 standard errors but by chance, 5e-5 over all models."""
    distribution, start = pieces(name)
    records = distribution(start).sample(jax.random.key(1), (COUNT,))
    scores = np.asarray(jax.jit(jax.vmap(jax.grad(lambda x, y: distribution(x).log_prob(y).sum()), (None, 0)))(start, records))
    products = scores[:, :, None] * scores[:, None, :]
    error = products.std(axis=0) / np.sqrt(COUNT)
    off = np.abs(products.mean(axis=0) - expected(name))
    assert (off <= 5 * error + 1e-9 * np.abs(expected(name)).max()).all()


@pytest.mark.parametrize("name", ["dirichlet-multinomial", "beta-binomial", "multinomial", "binomial"])
def test_information_of_counts_is_exact(name, monkeypatch):
    """The sum over all records of a small total."""
    model, own, index, _ = MODELS[name]
    monkeypatch.setitem(MODELS, name, (model, own, index, 6))
    distribution, start = pieces(name)
    each = range(7)
    if "multinomial" in name:
        records = np.array([y for y in itertools.product(each, repeat=3) if sum(y) == 6])
    else:
        records = np.array(list(itertools.product(each, repeat=2)))
    records = jnp.asarray(records)[:, None, None, :]
    log = jax.jit(jax.vmap(lambda x, y: distribution(x).log_prob(y).sum(), (None, 0)))
    mass = np.exp(np.asarray(log(start, records)))
    # JAX's log-beta function, in NumPyro's beta-binomial, is good to about 1e-6.
    exact = 1e-5 if name == "beta-binomial" else 1e-9
    assert mass.sum() == pytest.approx(1.0, abs=exact)
    scores = np.asarray(jax.vmap(jax.grad(lambda x, y: distribution(x).log_prob(y).sum()), (None, 0))(start, records))
    np.testing.assert_allclose(expected(name), np.einsum("n,ni,nj->ij", mass, scores, scores), rtol=exact, atol=exact)


def test_totals_differ_between_cells_and_none_is_no_information(monkeypatch):
    """Also where the sums run in many chunks."""
    from bayes_mfg.inference import information as module

    totals = np.array([0, 1, 7, 300, 7])
    a = np.array([0.3, 2.0, 5.0, 20.0, 5.0])
    every = information(dist.BetaBinomial(a, 2 * a, totals))
    assert not every[0].any()
    np.testing.assert_allclose(every[2], every[4])
    for k in range(5):
        np.testing.assert_allclose(every[k], information(dist.BetaBinomial(a[k : k + 1], 2 * a[k : k + 1], totals[k : k + 1]))[0])
    monkeypatch.setattr(module, "TERMS", 50)
    np.testing.assert_allclose(information(dist.BetaBinomial(a, 2 * a, totals)), every)


def test_large_concentrations_are_the_binomial():
    """Of a share alone: the beta-binomial's information tends to the binomial's as overdispersion vanishes."""
    p, n, c = 0.3, 50, 1e7
    across = np.array([c, -c])
    found = across @ information(dist.BetaBinomial(c * p, c * (1 - p), n)) @ across
    assert found == pytest.approx(n / (p * (1 - p)), rel=1e-4)


def test_roots_square_to_the_matrices():
    matrices = information(dist.Dirichlet(jnp.array([[2.0, 3.0, 4.0], [0.1, 1e3, 5.0]])))
    half = root(matrices)
    np.testing.assert_allclose(np.swapaxes(half, -1, -2) @ half, matrices, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ask", [natural, information])
def test_a_distribution_without_known_information_is_refused(ask):
    with pytest.raises(InputError, match="no expected information is known of Cauchy"):
        ask(dist.Cauchy(0.0, 1.0))


def test_information_of_errors_that_sum_to_zero_is_that_of_the_scores_in_every_spread():
    at = jnp.concatenate([MU, jnp.array([0.02, 0.1, 0.05])])
    records = SimplexNormal(at[:3], at[3:]).sample(jax.random.key(2), (COUNT,))
    scores = np.asarray(jax.vmap(jax.grad(lambda x, y: SimplexNormal(x[:3], x[3:]).log_prob(y)), (None, 0))(at, records))
    products = scores[:, :, None] * scores[:, None, :]
    off = np.abs(products.mean(axis=0) - information(SimplexNormal(at[:3], at[3:])))
    assert (off <= 5 * products.std(axis=0) / np.sqrt(COUNT)).all()
