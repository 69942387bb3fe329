"""Protects leaving data out: densities of what was left out are those of integrals and exact refits, and failures of reweighting are told."""

import json

import arviz as az
import direct
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
import xarray as xr
from relaxing import GAMMA, REST, TIMES, Relaxing, given, mu_of, simulated
from scipy.special import logsumexp

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.inference import Fit, fit, leave_future_out, log_likelihood, loo
from bayes_mfg.inference.local import Local
from bayes_mfg.models import Calibration, Dirichlet, Gaussian, Multinomial, Trajectories
from bayes_mfg.paths import Constant, Pooled

STARTS = np.array([[0.2, 0.35, 0.45], [0.6, 0.25, 0.15], [0.25, 0.6, 0.15], [0.15, 0.25, 0.6]])
SCALE, DRAWS = 0.04, 4000
U = np.linspace(-5.0, 4.0, 9001)  # log(gamma)


def densities(population, starts=STARTS, scale=SCALE):
    """Log densities `(grid, R, T, 3)` of normal shares, from the formula alone."""
    mu = REST + (starts[:, None] - REST) * np.exp(-np.exp(U)[:, None, None, None] * population.times[:, None])
    return scipy.stats.norm.logpdf(population.shares, mu, scale)


def left_out(log_unit, log_rest):
    """Log predictive density of a unit given the rest, by quadrature over log(gamma), which is standard normal a priori."""
    weight = scipy.stats.norm.logpdf(U) + log_rest
    return logsumexp(weight + log_unit) - logsumexp(weight)


def exact_draws(log_all, count=DRAWS, seed=0):
    """Independent posterior draws of log(gamma) by inversion."""
    mass = np.exp(scipy.stats.norm.logpdf(U) + log_all - log_all.max())
    cumulative = np.cumsum(mass) / mass.sum()
    return np.interp(np.random.default_rng(seed).uniform(size=count), cumulative, U)


@pytest.fixture(scope="module")
def data():
    return simulated("gaussian", SCALE, seed=1, starts=STARTS)


@pytest.fixture(scope="module")
def density(data):
    return densities(data)


@pytest.fixture(scope="module")
def fitted(data, density):
    """Draws from the exact posterior."""
    model = Relaxing(data, Gaussian(scale=SCALE), initial=STARTS)
    return given(model, exact_draws(density.sum(axis=(1, 2, 3)))[:, None])


def tolerance(log_unit_of_draws):
    """Five standard errors of the plain harmonic mean."""
    weights = np.exp(-(log_unit_of_draws - log_unit_of_draws.min()))
    return 5 * weights.std() / weights.mean() / np.sqrt(len(weights)) + 1e-9


# Pointwise densities.


def test_log_likelihoods_on_demand_are_those_of_the_fit_and_the_constant_ones(fitted, data, density):
    every, kept = log_likelihood(fitted, chunk=37), fitted.tree["log_likelihood"]["proportions"]
    assert every.sizes["observation"] == data.shares.size > kept.sizes["observation"]
    later = every["time"].to_numpy() > 0
    np.testing.assert_allclose(every.to_numpy()[..., later], kept.to_numpy(), rtol=1e-12)
    assert every.to_numpy()[0, 0, ~later].sum() == pytest.approx(kept.attrs["constant"], rel=1e-12)
    draw = fitted.tree["unconstrained_posterior"]["latent"].to_numpy()[0, 7, 0]
    exact = scipy.stats.norm.logpdf(data.shares, mu_of(np.exp(draw), STARTS), SCALE)
    np.testing.assert_allclose(every.to_numpy()[0, 7], exact.ravel(), rtol=1e-9)


def test_other_data_of_the_same_shape_have_log_likelihoods_too(fitted, data):
    fresh = simulated("gaussian", SCALE, seed=2, starts=STARTS)
    mask = np.ones(fresh.shares.shape, bool)
    mask[1, 4] = False
    some = Population(fresh.times, proportions=fresh.shares, mask=mask)
    found = log_likelihood(fitted, some)
    assert found.sizes["observation"] == mask.sum()
    draw = fitted.tree["unconstrained_posterior"]["latent"].to_numpy()[0, 7, 0]
    exact = scipy.stats.norm.logpdf(fresh.shares, mu_of(np.exp(draw), STARTS), SCALE)
    np.testing.assert_allclose(found.to_numpy()[0, 7], exact[mask], rtol=1e-9)
    with pytest.raises(InputError, match="times"):
        log_likelihood(fitted, data.until(1.0))


def test_draws_without_an_equilibrium_are_replaced_by_neighbours_and_many_refused(data):
    model = Relaxing(data, Gaussian(scale=SCALE), initial=STARTS)
    draws = np.full((200, 1), np.log(GAMMA))
    good = given(model, draws)
    draws[5] = np.log(1000.0)  # has none
    tree = good.tree.copy()
    tree["unconstrained_posterior"] = xr.DataTree(
        tree["unconstrained_posterior"].to_dataset().assign(latent=(("chain", "draw", "coordinate"), draws[None]))
    )
    found = log_likelihood(Fit(tree, model))
    np.testing.assert_array_equal(found.to_numpy()[0, 5], found.to_numpy()[0, 4])


# By observation, trajectory and time.


def test_by_observation_it_is_arviz(fitted):
    ours, theirs = loo(fitted), az.loo(fitted.tree, pointwise=True)
    for name in ("elpd", "se", "p", "good_k", "n_samples", "n_data_points", "warning"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-12)
    np.testing.assert_array_equal(ours.elpd_i, theirs.elpd_i)
    np.testing.assert_array_equal(ours.pareto_k, theirs.pareto_k)
    assert set(ours.elpd_i.coords) == {"trajectory", "time", "state"}


def test_a_fit_without_kept_log_likelihoods_gives_the_same(fitted):
    bare = Fit(xr.DataTree.from_dict({name: group.to_dataset() for name, group in fitted.tree.children.items()}), fitted.model)
    bare.tree.attrs = fitted.tree.attrs
    del bare.tree["log_likelihood"]
    assert loo(bare).elpd == pytest.approx(loo(fitted).elpd, rel=1e-12)


def test_by_trajectory_it_is_the_integral_over_the_posterior_of_the_others(fitted, data, density):
    """Four checks at five standard errors of the harmonic mean, which the smoothed one does not exceed by much."""
    result = loo(fitted, "trajectory")
    assert list(result.elpd_i["trajectory"].to_numpy()) == list(data.trajectories)
    assert float(result.pareto_k.max()) < 0.9 and result.n_data_points == 4
    units = density[:, :, 1:].sum(axis=(2, 3))  # first observations are constants
    drawn = exact_draws(density.sum(axis=(1, 2, 3)))
    for r in range(4):
        exact = left_out(units[:, r], np.delete(units, r, axis=1).sum(axis=1))
        assert abs(float(result.elpd_i[r]) - exact) < tolerance(np.interp(drawn, U, units[:, r]))
    in_sample = logsumexp([np.interp(drawn, U, units[:, r]) for r in range(4)], axis=1) - np.log(DRAWS)
    assert result.p == pytest.approx(in_sample.sum() - result.elpd, abs=1e-3)
    assert result.se == pytest.approx(2 * np.std(result.elpd_i.to_numpy(), ddof=1), rel=1e-9)


def test_by_block_of_times_it_is_the_integral_over_the_posterior_of_the_other_times(fitted, density):
    result = loo(fitted, "time", blocks=4)
    blocks = np.array_split(np.arange(1, 11), 4)
    assert list(result.elpd_i["start"].to_numpy()) == [TIMES[block[0]] for block in blocks]
    assert list(result.elpd_i["stop"].to_numpy()) == [TIMES[block[-1]] for block in blocks]
    assert any("interpolation" in sentence for sentence in result.elpd_i.attrs["warnings"])
    drawn = exact_draws(density.sum(axis=(1, 2, 3)))
    units = np.stack([density[:, :, block].sum(axis=(1, 2, 3)) for block in blocks], axis=1)
    for b in range(4):
        exact = left_out(units[:, b], np.delete(units, b, axis=1).sum(axis=1))
        assert abs(float(result.elpd_i[b]) - exact) < tolerance(np.interp(drawn, U, units[:, b]))


def test_what_was_not_observed_is_no_unit(data):
    mask = np.ones(data.shares.shape, bool)
    mask[2] = False
    mask[:, 6:] = False
    some = Population(data.times, proportions=data.shares, mask=mask, trajectories=["a", "b", "c", "d"])
    part = given(Relaxing(some, Gaussian(scale=SCALE), initial=STARTS), np.log(GAMMA) + 0.1 * np.linspace(-1, 1, 50)[:, None])
    assert list(loo(part, "trajectory").elpd_i["trajectory"].to_numpy()) == ["a", "b", "d"]
    assert float(loo(part, "time").elpd_i["stop"][-1]) == TIMES[5]


def test_where_no_draw_differs_nothing_is_reweighted(data):
    """A comparator without unknowns that matter, such as forward dynamics under known noise."""
    same = given(Relaxing(data, Gaussian(scale=SCALE), initial=STARTS), np.full((50, 1), np.log(GAMMA)))
    result = loo(same, "trajectory")
    exact = scipy.stats.norm.logpdf(data.shares, mu_of(GAMMA, STARTS), SCALE).sum(axis=(1, 2))
    np.testing.assert_allclose(result.elpd_i, exact, rtol=1e-9)
    assert not result.warning and abs(result.p) < 1e-9


# Refits.


@pytest.fixture(scope="module")
def precise():
    """One trajectory has nearly all the information: the others' posterior is another one."""
    mask = np.ones((4, 11, 3), bool)
    mask[1:, 2:] = False
    whole = simulated("gaussian", 0.02, seed=3, starts=STARTS)
    return Population(whole.times, proportions=whole.shares, mask=mask)


@pytest.mark.slow
def test_units_that_cannot_be_reweighted_are_named_and_refitted(precise, caplog):
    """A refit's density has a standard error of a few percent with 1,000 draws; within 0.5 is far beyond it, and reweighting is further off."""
    log_each = np.where(precise.mask, densities(precise, scale=0.02), 0.0)
    model = Relaxing(precise, Gaussian(scale=0.02), initial=STARTS)
    own = given(model, exact_draws(log_each.sum(axis=(1, 2, 3)))[:, None])
    units = log_each[:, :, 1:].sum(axis=(2, 3))
    exact = left_out(units[:, 0], units[:, 1:].sum(axis=1))
    plain = loo(own, "trajectory")
    assert plain.warning and float(plain.pareto_k[0]) > plain.good_k
    assert any("(0)" in sentence and "refit=True" in sentence for sentence in plain.elpd_i.attrs["warnings"])
    assert "refit=True" in caplog.text
    again = loo(own, "trajectory", refit=True, num_chains=2, num_samples=2000, progress=False)
    assert again.elpd_i.attrs["refitted"] == ["0"]
    assert abs(float(again.elpd_i[0]) - exact) < 0.5
    np.testing.assert_array_equal(again.elpd_i[1:], plain.elpd_i[1:])


@pytest.mark.slow
def test_the_future_left_out_is_the_integral_over_the_posterior_of_the_past(fitted, density):
    """Log densities of averages over 2,000 correlated draws, each within a few percent: 0.2 is many standard errors."""
    result = leave_future_out(fitted, blocks=4, least=2, num_chains=2, num_samples=1000, progress=False)
    blocks = np.array_split(np.arange(1, 11), 4)
    units = np.stack([density[:, :, block].sum(axis=(1, 2, 3)) for block in blocks], axis=1)
    exact = [left_out(units[:, b], units[:, :b].sum(axis=1)) for b in (2, 3)]
    np.testing.assert_allclose(result.elpd_i, exact, atol=0.2)
    assert list(result.elpd_i["start"].to_numpy()) == [TIMES[blocks[b][0]] for b in (2, 3)]
    assert result.kind == "lfo_cv" and result.n_refits == 2


def test_every_forecast_of_the_future_sees_the_past_alone(fitted, monkeypatch):
    hidden = []

    def spied(fit, model, gone, seed, options):
        hidden.append(gone)
        return fit.tree["unconstrained_posterior"]["latent"].to_numpy()[0, :100], ["It did not settle."]

    monkeypatch.setattr("bayes_mfg.inference.leave_out._refitted", spied)
    result = leave_future_out(fitted, blocks=3)
    assert [told for told in result.elpd_i.attrs["warnings"] if told.endswith("It did not settle.")] == [
        "The refit before 1 to 1.4: It did not settle.",
        "The refit before 1.6 to 2: It did not settle.",
    ]
    assert len(hidden) == 2
    for gone, start in zip(hidden, result.elpd_i["start"].to_numpy(), strict=True):
        np.testing.assert_array_equal(gone, np.broadcast_to((start <= TIMES)[:, None], gone.shape))


def test_refits_take_the_options_that_were_asked_for(fitted, monkeypatch):
    """A fit that settled after 600 updates, or was interrupted, does not shorten its refits."""
    given = {}

    class EnoughError(Exception):
        """The options have been seen."""

    def spied(model, method, **options):
        given.update(options, method=method)
        raise EnoughError

    monkeypatch.setattr("bayes_mfg.inference.leave_out.refit_model", spied)
    tree = fitted.tree.copy()
    came = {"guide": "full", "num_steps": 600, "importance": False, "num_samples": 12}
    asked = {"guide": "full", "importance": True, "tolerance": 0.2}
    tree.attrs = {**tree.attrs, "method": "svi", "inference": json.dumps({**came, "asked": asked})}
    with pytest.raises(EnoughError):
        leave_future_out(Fit(tree, fitted.model), blocks=3, num_particles=4)
    assert {name: given[name] for name in (*asked, "num_particles", "method")} == {**asked, "num_particles": 4, "method": "svi"}
    assert "num_steps" not in given and "num_samples" not in given


def test_an_interrupted_refit_is_no_fit(fitted, monkeypatch):
    """Ctrl-C ends a refit with the draws so far, and all that leaves out with it."""
    part = Fit(fitted.tree.copy(), fitted.model)
    part.tree.attrs = {**fitted.tree.attrs, "inference": json.dumps({"interrupted": True})}
    monkeypatch.setattr("bayes_mfg.inference.leave_out.refit_model", lambda *_, **__: part)
    with pytest.raises(KeyboardInterrupt):
        leave_future_out(fitted, blocks=3)


# Unknown initial populations.


def marginal(row, gamma, scale):
    """Log density of a trajectory's shares `(T, 3)` given gamma `(n,)`, its start integrated over the simplex with a uniform prior."""
    edge = (np.arange(400) + 0.5) / 400
    a, b = np.meshgrid(edge, edge, indexing="ij")
    inside = a + b < 1
    start = np.stack([a[inside], b[inside], 1 - a[inside] - b[inside]], axis=-1)
    values = []
    for g in gamma:
        mu = REST + (start[:, None] - REST) * np.exp(-g * TIMES)[:, None]
        values.append(logsumexp(scipy.stats.norm.logpdf(row, mu, scale).sum(axis=(1, 2))) - np.log(len(start)))
    return np.array(values)


@pytest.fixture(scope="module")
def unknown_starts(data):
    model = Relaxing(data, Gaussian(scale=SCALE), initial=None)
    return fit(model, num_chains=4, num_samples=1000, prior_samples=0, seed=0, progress=False)


@pytest.fixture(scope="module")
def exact_with_unknown_starts(data):
    grid = np.linspace(np.log(0.3), np.log(8.0), 61)
    units = np.stack([marginal(row, np.exp(grid), SCALE) for row in data.shares], axis=1)
    prior = scipy.stats.norm.logpdf(grid)
    result = []
    for r in range(4):
        weight = prior + np.delete(units, r, axis=1).sum(axis=1)
        result.append(logsumexp(weight + units[:, r]) - logsumexp(weight))
    return np.array(result)


@pytest.mark.slow
def test_unknown_starts_are_integrated_out(unknown_starts, exact_with_unknown_starts):
    """4,000 draws, whose weights differ by what a trajectory says of gamma alone; plain importance sampling fails on more."""
    result = loo(unknown_starts, "trajectory")
    good = result.pareto_k.to_numpy() < result.good_k
    assert good.sum() >= 3
    np.testing.assert_allclose(result.elpd_i[good], exact_with_unknown_starts[good], atol=0.1)
    single = unknown_starts.tree["log_likelihood"]["proportions"]
    plain = single.groupby("trajectory").sum().rename("unit")
    groups = {"posterior": unknown_starts.tree["unconstrained_posterior"].to_dataset(), "log_likelihood": plain.to_dataset()}
    with pytest.warns(UserWarning, match="shape parameter"):
        naive = az.loo(xr.DataTree.from_dict(groups), pointwise=True, var_name="unit")
    assert (naive.pareto_k.to_numpy() > naive.good_k).sum() > (~good).sum()
    assert float(np.abs(naive.elpd_i - exact_with_unknown_starts).max()) > 0.3


@pytest.mark.slow
def test_refits_without_a_trajectory_integrate_its_start(unknown_starts, exact_with_unknown_starts, monkeypatch):
    monkeypatch.setattr("bayes_mfg.inference.leave_out._good", lambda draws: -10.0)
    result = loo(unknown_starts, "trajectory", refit=True, num_chains=2, progress=False)
    assert len(result.elpd_i.attrs["refitted"]) == 4
    np.testing.assert_allclose(result.elpd_i, exact_with_unknown_starts, atol=0.15)
    assert float(result.pareto_k.max()) < 0.7


def test_the_prior_of_a_start_is_the_models(data):
    """The potential of the priors is the sum of what belongs to trajectories and what does not."""
    from bayes_mfg.inference.coordinates import coordinates
    from bayes_mfg.inference.local import Local
    from bayes_mfg.models import Seeded

    x = np.random.default_rng(0).standard_normal((3, 9))
    for initial in (None, Seeded(seed="0", rest="1")):
        model = Relaxing(data, Gaussian(scale=SCALE), initial=initial)
        space, local = coordinates(model), Local(model)
        flat = x[:, : space.size]
        own = local.log_prior(flat)
        assert own.shape == (3, 4) and local.columns.shape == (4, 2 if initial is None else 1)
        whole = [-float(space.prior_potential(row, model.data)) for row in flat]
        np.testing.assert_allclose(own.sum(axis=1) + scipy.stats.norm.logpdf(flat[:, local.rest[0]]), whole, rtol=1e-10)
    assert Local(Relaxing(data, Gaussian(scale=SCALE), initial=STARTS)).size == 0


# Parts of paths that are a trajectory's own.


@pytest.mark.parametrize("pooling", ["partial", "separate"])
def test_what_is_pooled_or_separate_is_integrated_out(pooling):
    """All is linear and normal: exact draws, and exact densities of each trajectory given the others.

    A trajectory's data determine its own constant to a tenth of its prior's sd, so that plain importance sampling fails.
    """
    tau, noise, count, rng = 0.8, 0.01, 5, np.random.default_rng(0)
    population = direct.seen(rng.standard_normal(count), noise, seed=1)
    y, times = (population.shares[..., 0] - 0.5).ravel(), len(direct.TIMES)
    if pooling == "partial":
        path = Pooled(Constant(level=0.0, level_scale=1.0), scale=tau)
        design = direct.SLOPE * np.repeat(np.concatenate([np.ones((count, 1)), tau * np.eye(count)], axis=1), times, axis=0)
    else:
        path = Pooled(Constant(level=0.0, level_scale=1.0), "separate")
        design = direct.SLOPE * np.repeat(np.eye(count), times, axis=0)
    model = direct.Direct(population, path, noise)
    precision = np.eye(design.shape[1]) + design.T @ design / noise**2
    covariance = np.linalg.inv(precision)
    draws = rng.multivariate_normal(covariance @ design.T @ y / noise**2, covariance, DRAWS)
    whole = design @ design.T + noise**2 * np.eye(len(y))

    def log_density(rows):
        keep = np.repeat(np.isin(np.arange(count), rows), times)
        return scipy.stats.multivariate_normal(np.zeros(keep.sum()), whole[np.ix_(keep, keep)]).logpdf(y[keep])

    exact = [log_density(range(count)) - log_density([k for k in range(count) if k != r]) for r in range(count)]
    own = given(model, draws)
    result = loo(own, "trajectory")
    np.testing.assert_allclose(result.elpd_i, exact, atol=0.1)
    assert float(result.pareto_k.max()) < result.good_k
    single = own.tree["log_likelihood"]["proportions"].groupby("trajectory").sum()
    plain = -(logsumexp(-single, axis=(0, 1)) - np.log(DRAWS))
    assert np.abs(plain - exact).max() > 0.3
    with pytest.raises(InputError, match="without its model"):
        loo(Fit(own.tree), "trajectory")


# Several equilibria.

OTHER_REST = np.array([0.4, 0.3, 0.3])


class TwoWays(Relaxing):
    """Each trajectory approaches one of two resting populations; which one is summed out, as `Calibration` does it."""

    branches = (REST, OTHER_REST)

    def trajectories(self, latents, data=None, key=None):
        data = self.data if data is None else data
        one = super().trajectories(latents, data)
        times, start = jnp.asarray(self.grid.times), latents["mu0"]
        shape = jnp.exp(-one.parameters["gamma"][0] * times)[:, None]
        mu = jnp.stack([rest + (start[:, None] - rest) * shape for rest in self.branches])
        each = Trajectories({}, mu, 0.0 * mu, *(jnp.stack([x, x]) for x in (one.code, one.residual, one.iterations)))
        return Calibration._summed_out(self, latents, data, each, key)._replace(parameters=one.parameters)


@pytest.fixture(scope="module")
def undecided():
    """Three trajectories, one of which approaches the other rest; draws from the exact posterior."""
    starts = STARTS[:3]
    mu = np.array(
        [
            mu_of(GAMMA, starts)[0],
            OTHER_REST + (starts[1] - OTHER_REST) * np.exp(-GAMMA * TIMES)[:, None],
            mu_of(GAMMA, starts)[2],
        ]
    )
    error = 0.06 * np.random.default_rng(4).standard_normal(mu.shape)
    shares = np.clip(mu + error - error.mean(axis=-1, keepdims=True), 0.0, 1.0)
    data = Population(TIMES, proportions=shares / shares.sum(axis=-1, keepdims=True))
    by_branch = []
    for rest in (REST, OTHER_REST):
        path = rest + (starts[:, None] - rest) * np.exp(-np.exp(U)[:, None, None, None] * TIMES[:, None])
        by_branch.append(scipy.stats.norm.logpdf(data.shares, path, 0.06)[:, :, 1:].sum(axis=(2, 3)))  # the start is known
    density = logsumexp(by_branch, axis=0) - np.log(2.0)
    model = TwoWays(data, Gaussian(scale=0.06), initial=starts)
    return given(model, exact_draws(density.sum(axis=1))[:, None]), density


def test_the_branches_of_a_trajectory_left_out_are_summed_out(undecided):
    """Three checks at five standard errors of the harmonic mean."""
    fit_, density = undecided
    share = fit_.tree["posterior"]["branch"].to_numpy()[..., 0].mean(axis=(0, 1))
    decided = np.minimum(share, 1.0 - share) < 1e-4
    assert decided.any()
    found = loo(fit_, "trajectory")
    exact = np.array([left_out(density[:, r], density.sum(axis=1) - density[:, r]) for r in range(3)])
    drawn = exact_draws(density.sum(axis=1))
    for r in range(3):
        assert abs(float(found.elpd_i[r]) - exact[r]) < tolerance(np.interp(drawn, U, density[:, r]))
    # Where the data decide, draws hold one branch only, and know nothing of the half of the prior that is on the other.
    kept = fit_.tree["log_likelihood"].to_dataset()["proportions"]
    plain = [-(logsumexp(-one.sum("observation").to_numpy()) - np.log(DRAWS)) for _, one in kept.groupby("trajectory")]
    assert np.array(plain)[decided] - exact[decided] == pytest.approx(np.log(2.0), abs=0.1)
    with pytest.raises(InputError, match="without its model"):
        loo(Fit(fit_.tree), "trajectory")


def test_branches_that_have_seen_what_is_left_out_are_told_and_not_refitted(undecided):
    fit_, _ = undecided
    assert any("Which equilibrium" in sentence for sentence in loo(fit_, "time").elpd_i.attrs["warnings"])
    assert not any("Which equilibrium" in sentence for sentence in loo(fit_, "trajectory").elpd_i.attrs["warnings"])
    with pytest.raises(InputError, match="refits are for trajectories, not for by='time'"):
        loo(fit_, "time", refit=True)
    with pytest.raises(InputError, match="several equilibria"):
        leave_future_out(fit_)


# Refusals.


def test_the_future_is_not_left_out_of_what_has_seen_it(fitted, monkeypatch):
    seeing = type("Seeing", (), {"needs_observed": True})()
    monkeypatch.setattr(fitted.model, "bound", {"gamma": seeing})
    with pytest.raises(InputError, match="the path of gamma takes the observed population"):
        leave_future_out(fitted)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"by": "state"}, "observation, trajectory, time"),
        ({"by": "time", "blocks": 1}, "blocks"),
        ({"by": "time", "blocks": 2.5}, "blocks"),
        ({"by": "time", "blocks": 50}, "10 times"),
        ({"by": "trajectory", "refits": True}, "refits is an option of refits, and refit is false"),
        ({"seed": "x"}, "seed is 'x'"),
    ],
)
def test_what_cannot_be_left_out_is_refused(fitted, options, word):
    with pytest.raises(InputError, match=word):
        loo(fitted, **options)


def test_fits_that_cannot_be_reweighted_are_refused(fitted, data):
    draws = np.linspace(-0.1, 0.1, 30)[:, None]
    one = given(Relaxing(data.select("0"), Gaussian(scale=SCALE), initial=STARTS[0]), draws)
    with pytest.raises(InputError, match="only one trajectory"):
        loo(one, "trajectory")
    point = Fit(fitted.tree.copy(), fitted.model)
    point.tree.attrs = {**fitted.tree.attrs, "method": "point"}
    with pytest.raises(InputError, match="method 'point' are none of a posterior"):
        loo(point)
    with pytest.raises(InputError, match="method 'point' are none of a posterior"):
        leave_future_out(point)
    few = given(Relaxing(data, Gaussian(scale=SCALE), initial=STARTS), draws[:9])
    with pytest.raises(InputError, match="the fit has 9 draws"):
        loo(few)
    with pytest.raises(InputError, match="least"):
        leave_future_out(fitted, least=5)
    unknown = given(Relaxing(data, Gaussian(scale=SCALE), initial=None), np.repeat(draws, 9, axis=1))
    with pytest.raises(InputError, match="without its model"):
        loo(Fit(unknown.tree), "trajectory")
    assert np.isfinite(loo(Fit(fitted.tree), "trajectory").elpd)
    joint = given(unknown.model.with_prior(np.zeros(9), np.eye(9)), np.repeat(draws, 9, axis=1))
    for some in (joint, Fit(joint.tree)):
        with pytest.raises(
            InputError,
            match="without its model" if some.model is None else "mu0 belongs to one trajectory and has one prior with all",
        ):
            loo(some, "trajectory")
    assert np.isfinite(loo(joint, "time").elpd)
    joined = Fit(fitted.tree.copy())
    joined.tree.attrs = {**fitted.tree.attrs, "prior": "one normal prior of all unknowns together"}
    with pytest.raises(InputError, match="without its model"):
        loo(joined, "trajectory")  # names of coordinates do not tell whose they are
    assert Local(fitted.model.with_prior(np.zeros(1), np.eye(1))).size == 0
    with pytest.raises(InputError, match="chunk"):
        log_likelihood(fitted, chunk=0)


def test_rows_of_counts_are_units_as_well():
    counted = simulated("multinomial", 50, seed=1, starts=STARTS)
    rng = np.random.default_rng(0)
    some = given(Relaxing(counted, Multinomial(), initial=STARTS), np.log(GAMMA) + 0.05 * rng.standard_normal((100, 1)))
    assert loo(some, "trajectory").n_data_points == 4
    assert loo(some, "time").n_data_points == 5
    noisy = simulated("dirichlet", 1e-2, seed=1, starts=STARTS)
    prior = Dirichlet(noise=dist.LogNormal(-4.0, 1.0))
    draws = np.log([GAMMA, 1e-2]) + 0.05 * rng.standard_normal((100, 2))
    assert loo(given(Relaxing(noisy, prior, initial=STARTS), draws), "trajectory").n_data_points == 4
