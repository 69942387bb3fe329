"""Protects the ladder of guides: exact densities of the flow, updates that end when the ELBO has settled, a point mass that is the mode."""

import json
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from one_unknown import NOISE, STARTS, calibration, log_gamma, simulated

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.inference import fit, stopping, svi
from bayes_mfg.inference.flow import Flow
from bayes_mfg.inference.report import render
from bayes_mfg.inference.stopping import settled
from bayes_mfg.paths import GaussianProcess

# The flow.


def params_of(flow, scale, seed=0):
    """The parameters of a flow at its start, with normal noise of a scale."""
    trace = handlers.trace(handlers.seed(flow, jax.random.key(seed))).get_trace()
    start = {name: site["value"] for name, site in trace.items() if site["type"] == "param"}
    flat, unravel = ravel_pytree(start)
    return unravel(flat + scale * jax.random.normal(jax.random.key(seed + 1), flat.shape))


def transported(flow, params):
    """The flow's map from standard normal draws, one at a time."""
    with handlers.substitute(data=params):
        layers = flow._distribution().transforms

    def one(z):
        for layer in layers:
            z = layer(z)
        return z

    return one


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_flow_begins_as_the_standard_normal(size):
    flow = Flow(size)
    x, log_density = flow.draws(jax.random.key(0), params_of(flow, 0.0), 50)
    np.testing.assert_allclose(log_density, -0.5 * (x**2).sum(-1) - 0.5 * size * np.log(2 * np.pi), rtol=1e-12)
    assert x.shape == (50, size) and abs(float(x.mean())) < 5 / np.sqrt(50 * size)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_density_of_a_flow_is_that_of_its_jacobian(size):
    flow = Flow(size)
    params = params_of(flow, 0.5)
    key = jax.random.key(3)
    x, log_density = flow.draws(key, params, 20)
    one = transported(flow, params)
    z = jax.random.normal(key, (20, size))
    np.testing.assert_allclose(jax.vmap(one)(z), x, rtol=1e-10)
    logdet = jnp.linalg.slogdet(jax.vmap(jax.jacobian(one))(z))[1]
    wanted = -0.5 * (z**2).sum(-1) - 0.5 * size * jnp.log(2 * jnp.pi) - logdet
    np.testing.assert_allclose(log_density, wanted, rtol=1e-9)
    assert float(jnp.abs(logdet).max()) > 0.5  # far from its start


def test_the_density_of_a_flow_of_one_unknown_integrates_to_one():
    flow = Flow(1)
    one = transported(flow, params_of(flow, 0.5))
    z = jnp.linspace(-9.0, 9.0, 4001)
    x = jax.vmap(lambda z: one(z[None])[0])(z)
    slope = jax.vmap(jax.grad(lambda z: one(z[None])[0]))(z)
    assert float(slope.min()) > 0  # one to one
    assert float(jnp.trapezoid(jnp.exp(-0.5 * z**2) / jnp.sqrt(2 * jnp.pi) / slope, x)) == pytest.approx(1.0, abs=1e-4)


def seeing(time):
    """One datum of the second trajectory: halfway, it allows gammas of three orders of magnitude."""
    whole = simulated(noise="dirichlet", size=NOISE, seed=1)
    mask = np.zeros(whole.shares.shape, bool)
    mask[1, time] = True
    part = Population(whole.times, proportions=whole.shares, states=whole.states, trajectories=whole.trajectories, mask=mask)
    return calibration(part, initial=STARTS)


@pytest.fixture(scope="module")
def model():
    return seeing(5)


def settings_of(result):
    return json.loads(result.tree.attrs["inference"])


@pytest.mark.long
@pytest.mark.slow
def test_a_flow_has_the_tails_that_a_normal_lacks(model):
    """Pareto k; seed 0, and no other was tried. In the bulk this posterior is nearly normal, and quantiles of both guides are alike.

    Those of the flow against quadrature: 4 standard errors of the 5 % quantile of a normal, and a twentieth of an sd for what the flow gets wrong.
    """
    options = {"method": "svi", "num_samples": 2000, "prior_samples": 0, "starts": 1, "seed": 0}
    found = {guide: fit(model, guide=guide, **options) for guide in ("full", "flow")}
    told = {guide: settings_of(result) for guide, result in found.items()}
    assert told["flow"]["pareto_k"] < 0.7 < told["full"]["pareto_k"]
    assert told["flow"]["settled"] and told["full"]["settled"]
    assert [sentence for sentence in found["full"].warnings if "do not trust its widths" in sentence]
    assert found["flow"].warnings == []
    u = np.linspace(-7.0, 4.0, 1500)
    density = -svi.potentials(model, u[:, None])
    mass = np.exp(density - density.max())
    mass = mass / mass.sum()
    assert max(mass[0], mass[-1]) < 1e-5
    sd = np.sqrt(np.sum(mass * u**2) - np.sum(mass * u) ** 2)
    levels = [0.05, 0.25, 0.75, 0.95]
    wrong = np.quantile(log_gamma(found["flow"]), levels) - np.interp(levels, np.cumsum(mass), u)
    assert np.abs(wrong).max() < (4 * np.sqrt(0.05 * 0.95 / 2000) / 0.103 + 0.05) * sd


def test_a_flow_of_many_unknowns_is_refused_before_anything_is_fitted(model):
    many = calibration(model.population, gamma=GaussianProcess(length_scale=0.2, kernel="matern32", basis=60))
    with pytest.raises(InputError, match="the model has 61 unknowns, and a flow is for at most 50"):
        fit(many, "svi", guide="flow")


# The point mass.


def test_a_point_mass_is_the_mode(model):
    options = {"prior_samples": 0, "starts": 2, "seed": 5}
    mass, point = fit(model, "svi", guide="point-mass", **options), fit(model, "point", **options)
    np.testing.assert_array_equal(mass.tree["unconstrained_posterior"]["latent"], point.tree["unconstrained_posterior"]["latent"])
    np.testing.assert_array_equal(mass.tree["posterior"]["gamma"], point.tree["posterior"]["gamma"])
    assert mass.summary().equals(point.summary())
    assert mass.method == "point" and settings_of(mass)["guide"] == "point-mass"
    assert svi.NO_WIDTHS in mass.warnings and "elbo" not in mass.tree.children
    assert float(mass.tree["sample_stats"]["lp"][0, 0]) == pytest.approx(-settings_of(point)["potential"], rel=1e-12)
    assert "A point estimate says nothing about uncertainty" in render(mass.tree)
    with pytest.raises(InputError, match="a point mass has one"):
        fit(model, "svi", guide="point-mass", importance=True)


# Updates end when the ELBO has settled.

CHECKS = range(stopping.FEWEST, 3001, 100)


def stops(trend, noise, tolerance=0.1, seed=0, repeats=100):
    """Update at which each of many traces would end, infinite where it would not."""
    rng = np.random.default_rng(seed)
    traces = trend(np.arange(CHECKS[-1])) + noise * rng.standard_normal((repeats, CHECKS[-1]))
    return np.array([next((float(t) for t in CHECKS if settled(trace[:t], tolerance)), np.inf) for trace in traces])


def test_a_trace_that_is_flat_but_for_noise_ends():
    """At a noise of 0.1 at once; the noise that 3,000 updates can still average out is 0.4."""
    assert np.quantile(stops(np.zeros_like, 0.1), 0.95) <= stopping.FEWEST + 100
    at_large = stops(np.zeros_like, 0.4)
    assert np.isfinite(at_large).mean() > 0.9 and np.median(at_large) > stopping.FEWEST + 100


@pytest.mark.parametrize("noise", [0.02, 0.3])
def test_a_slow_trend_goes_on(noise):
    """A change of just the tolerance between the first two quarters that are looked at, growing from there.

    The first check errs in at most 5 % of traces, and later ones hardly add: 12 of 100 or more by chance 1 time in 200.
    """
    slope = 0.1 / (stopping.FEWEST / 4)
    assert np.isfinite(stops(lambda t: -slope * t, noise)).sum() < 12


def test_a_trend_upwards_of_the_loss_is_not_settled():
    assert np.isinf(stops(lambda t: 2e-3 * t, 0.05, repeats=10)).all()


def test_an_approach_ends_with_little_left_of_it():
    """An exponential one: less than the tolerance; one as slow as 1/updates: some twice as much."""
    ends = stops(lambda t: 5.0 * np.exp(-t / 200.0), 0.05, repeats=20)
    assert np.isfinite(ends).all() and (5.0 * np.exp(-ends / 200.0)).max() < 0.1
    ends = stops(lambda t: 200.0 / (t + 100.0), 0.02, repeats=20)
    assert np.isfinite(ends).all() and (200.0 / (ends + 100.0)).max() < 0.3


def test_skipped_updates_and_draws_far_out_do_not_disturb():
    rng = np.random.default_rng(0)
    losses = 0.05 * rng.standard_normal(1000)
    losses[rng.choice(1000, 100, replace=False)] = np.nan
    losses[rng.choice(1000, 30, replace=False)] = 1e6
    assert settled(losses, 0.1)
    assert not settled(np.full(1000, np.nan), 0.1)
    assert not settled(losses, 0.0)
    assert not settled(losses[: stopping.FEWEST - 1], 0.1)
    assert settled(np.ones(1000), 0.1)


QUICK = {
    "method": "svi",
    "guide": "mean-field",
    "tolerance": 0.1,
    "num_samples": 50,
    "num_particles": 2,
    "prior_samples": 0,
    "starts": 1,
}


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["mean-field", "flow"])
def test_updates_end_early_and_a_resumed_fit_ends_at_the_same_update(model, guide, tmp_path):
    """The trace that is kept is the one that the rule decided by."""
    options = QUICK | {"guide": guide, "num_steps": 2000, "checkpoint": tmp_path / "c"}
    result = fit(model, **options)
    told, elbo = settings_of(result), result.tree["elbo"]["elbo"].to_numpy()
    assert told["settled"] is True and len(elbo) == told["num_steps"] < 2000
    assert not [sentence for sentence in result.warnings if "settled" in sentence]
    assert settled(-elbo, 0.1) and not settled(-elbo[:-100], 0.1)
    assert "ELBO of" in render(result.tree)
    for path in sorted((tmp_path / "c").glob("svi-*.npz"))[-2:]:
        path.unlink()
    again = fit(model, **options, resume=True)
    for group in ("unconstrained_posterior", "elbo"):
        assert again.tree[group].to_dataset().identical(result.tree[group].to_dataset())


@pytest.mark.slow
def test_a_limit_that_comes_first_is_told(model):
    result = fit(model, **QUICK, num_steps=150)
    assert settings_of(result)["settled"] is False and not result.interrupted
    assert [sentence for sentence in result.warnings if sentence.startswith("The ELBO had not settled to 0.1 nats within 150")]
    whole = fit(model, **QUICK | {"num_steps": 150, "tolerance": 0})
    assert "settled" not in settings_of(whole) and whole.tree["elbo"].sizes["update"] == 150
    assert not [sentence for sentence in whole.warnings if "settled" in sentence]


@pytest.mark.parametrize("tolerance", [-1.0, "no", True, np.inf, np.nan])
def test_a_tolerance_that_means_nothing_is_refused(model, tolerance):
    with pytest.raises(InputError, match="tolerance is"):
        fit(model, "svi", tolerance=tolerance)


class State(NamedTuple):
    optim_state: jax.Array


class Counting:
    """Stands in for NumPyro's SVI: its only parameter counts the updates."""

    optim = SimpleNamespace(get_params=lambda state: {"count": state})

    def stable_update(self, state, data):
        return State(state.optim_state + 1.0), jnp.where(state.optim_state == 7.0, jnp.nan, 1.0)

    def constrain_fn(self, params):
        return params

    def get_params(self, state):
        return self.optim.get_params(state.optim_state)


@pytest.mark.parametrize(("averaged", "count"), [(True, np.mean(np.arange(201, 351))), (False, 350.0)])
def test_the_guide_is_the_average_over_the_last_half_or_the_last(averaged, count):
    """Of four parts two, the last of them shorter."""
    updates = svi._Updates(svi._Optimiser(None, Counting(), averaged), State(jnp.asarray(0.0)))
    for length in (100, 100, 100, 50):
        updates.take(updates.go_on(length, (None,)))
    assert float(updates.params()["count"]) == pytest.approx(count, rel=1e-14)
    assert (updates.count, updates.skipped) == (350, 1)
