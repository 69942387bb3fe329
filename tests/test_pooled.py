"""Protects pooling over trajectories: priors as documented, paths at `raw + tau z`, one posterior centred or not, new trajectories."""

import functools
import json

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from direct import SLOPE, TIMES, Direct, seen
from numpyro.infer.util import log_density

from bayes_mfg.config.calibration import build_model, load_config
from bayes_mfg.data import Population, simulate
from bayes_mfg.equilibrium import TimeGrid
from bayes_mfg.errors import InputError
from bayes_mfg.games import LinearQuadratic, Parameter
from bayes_mfg.inference import check, find_mode, fit, load, scores
from bayes_mfg.inference.centring import centring, shares
from bayes_mfg.inference.coordinates import coordinates, potential, value_and_gradient
from bayes_mfg.inference.sensitivity import quadratic
from bayes_mfg.models import Calibration, Dirichlet
from bayes_mfg.paths import (
    FAMILIES,
    Constant,
    Context,
    GaussianProcess,
    Neural,
    PiecewiseConstant,
    Pooled,
    PooledPath,
    RandomWalk,
    Spline,
)
from benchmarks.calibration import pooled

STATES = ("a", "b")
CONTEXT = Context(np.linspace(0.0, 2.0, 11), np.linspace(0.0, 2.0, 11), STATES, 3)
BETA, REAL = Parameter("beta", lower=0.0), Parameter("x")
MU = jnp.array([0.3, 0.7])
UNCERTAIN = dist.HalfNormal(1.0)
INSIDE = {
    "constant": Constant(level=2.0, level_scale=0.7),
    "constant, prior": Constant(dist.Gamma(3.0, 2.0)),
    "pieces": PiecewiseConstant(3),
    "walk": RandomWalk(3, scale=UNCERTAIN),
    "process": GaussianProcess(dist.LogNormal(0.0, 0.3), scale=UNCERTAIN, basis=4),
    "spline": Spline(3, input="population"),
    "network": Neural(3, scale=UNCERTAIN, input=("time", "population")),
}


def some_raw(bound, seed):
    """Raw parameters that every prior allows, without compiling its sampler."""
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.uniform(0.2, 1.4, shape)) for name, shape in bound.raw_shapes.items()}


# The path.


def test_every_family_is_tried():
    assert {type(path) for path in INSIDE.values()} == set(FAMILIES.values())


@pytest.mark.parametrize("path", INSIDE.values(), ids=INSIDE)
def test_a_trajectory_s_path_is_the_path_inside_at_shared_raw_plus_tau_z(path):
    """The slow obvious way: one trajectory at a time, through the unpooled path alone."""
    bound, alone = Pooled(path).bind(BETA, CONTEXT), path.bind(BETA, CONTEXT)
    raw = some_raw(bound, 0)
    every = bound.by_trajectory(raw)
    for r in range(3):
        mine = {}
        for name in alone.priors:
            if name in alone.hyperparameters:
                mine[name] = raw[name]
            elif name == "value":  # Gamma: the logarithm, in units of half the distance of its quantiles at one normal sd
                low, high = scipy.stats.gamma(3.0, scale=0.5).ppf(scipy.stats.norm.cdf([-1.0, 1.0]))
                unit = 0.5 * np.log(high / low)
                mine[name] = raw[name] * np.exp(unit * raw["pooling_scale"] * raw["value_by_trajectory"][r])
            else:
                mine[name] = raw[name] + raw["pooling_scale"] * raw[f"{name}_by_trajectory"][r]
        function = bound.inner.function({name: x[r] for name, x in every.items()})
        for t in (0.0, 0.7, 2.0):
            # The Gamma's quantiles come from 4,000 draws where NumPyro has no inverse.
            close = 2e-2 if "value" in mine else 1e-12
            np.testing.assert_allclose(function(t, MU), alone.function(mine)(t, MU), rtol=close)
    typical = {name: raw[name] for name in alone.priors}
    np.testing.assert_allclose(bound.function(raw)(0.7, MU), alone.function(typical)(0.7, MU), rtol=1e-12)


@pytest.mark.parametrize("path", INSIDE.values(), ids=INSIDE)
def test_separate_paths_share_nothing(path):
    bound, alone = Pooled(path, "separate").bind(BETA, CONTEXT), path.bind(BETA, CONTEXT)
    assert set(bound.priors) == {f"{name}_by_trajectory" for name in alone.priors} == set(bound.local)
    raw = some_raw(bound, 0)
    every = bound.by_trajectory(raw)
    for r in range(3):
        mine = {name: raw[f"{name}_by_trajectory"][r] for name in alone.priors}
        np.testing.assert_allclose(
            bound.inner.function({name: x[r] for name, x in every.items()})(0.7, MU), alone.function(mine)(0.7, MU), rtol=1e-12
        )
    drawn = bound.sample_prior(jax.random.key(0))
    for name, prior in alone.priors.items():
        own = drawn[f"{name}_by_trajectory"]
        density = sum(float(jnp.sum(prior.log_prob(own[r]))) for r in range(3))
        assert float(bound.priors[f"{name}_by_trajectory"].log_prob(own)) == pytest.approx(density, rel=1e-6)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        (GaussianProcess(0.6, scale=0.8, level_scale=0.5), "process"),
        (RandomWalk(4, scale=1.2, level_scale=0.3), "walk"),
        (Constant(dist.LogNormal(0.3, 0.6)), 0.6),
    ],
)
def test_the_prior_of_one_trajectory_is_that_inside_with_its_covariance_times_one_plus_tau_squared(path, unit):
    """20,000 draws: sds within 2.5 % (5 standard errors), correlations within 0.04."""
    tau, count = 0.7, 20_000
    bound, alone = Pooled(path, scale=tau).bind(BETA, CONTEXT), path.bind(BETA, CONTEXT)
    times = jnp.array([0.2, 1.0, 1.9])

    def logs(function):
        return jnp.log(jax.vmap(lambda t: function(t, MU))(times))

    def draw(key):
        one, two = jax.random.split(key)
        every = bound.by_trajectory(bound.sample_prior(one))
        return jax.vmap(lambda own: logs(bound.inner.function(own)))(every), logs(alone.function(alone.sample_prior(two)))

    pooled, inside = (np.asarray(x) for x in jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), count)))
    ratio = pooled[:, 0].std(axis=0) / inside.std(axis=0)
    np.testing.assert_allclose(ratio, np.sqrt(1 + tau**2), rtol=0.025)
    np.testing.assert_allclose(pooled[:, 0].mean(axis=0), inside.mean(axis=0), atol=0.06)
    np.testing.assert_allclose(np.corrcoef(pooled[:, 0].T), np.corrcoef(inside.T), atol=0.04)
    between = [np.corrcoef(pooled[:, 0, k], pooled[:, 1, k])[0, 1] for k in range(3)]
    np.testing.assert_allclose(between, 1 / (1 + tau**2), atol=0.04)
    if not isinstance(unit, str):
        np.testing.assert_allclose(inside.std(axis=0), unit, rtol=0.025)


REFUSED = [
    (Pooled(Constant(2.0)), CONTEXT, "known; there is nothing to pool"),
    (Pooled(2.0), CONTEXT, "path is 2.0"),
    (Pooled(Pooled(Constant())), CONTEXT, "a path that is not pooled"),
    (Pooled(RandomWalk(3, centered=True)), CONTEXT, "the path inside is centred"),
    (Pooled(Constant(), "shared"), CONTEXT, "one of partial, separate"),
    (Pooled(Constant(), scale=-1.0), CONTEXT, "scale is -1"),
    (Pooled(Constant(), scale=dist.Normal(0.0, 1.0)), CONTEXT, "scale lives in"),
    (Pooled(Constant(), centered="yes"), CONTEXT, "centered is 'yes'"),
    (Pooled(Constant(), "separate", scale=1.0), CONTEXT, "scale has no meaning for separate"),
    (Pooled(Constant(), "separate", centered=True), CONTEXT, "centered has no meaning for separate"),
    (Pooled(Constant(), scale=0.4, centered=True), CONTEXT, "the scale is known; there is nothing to centre for"),
    (Pooled(Constant()), Context(CONTEXT.times, CONTEXT.data_times, STATES), "have one trajectory"),
]


@pytest.mark.parametrize(("path", "context", "words"), REFUSED, ids=[words for *_, words in REFUSED])
def test_what_cannot_be_pooled_is_refused(path, context, words):
    with pytest.raises(InputError, match=r"^Pooled for parameter 'beta'") as error:
        path.bind(BETA, context)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_separate_paths_have_no_typical_one():
    bound = Pooled(Constant(), "separate").bind(BETA, CONTEXT)
    with pytest.raises(InputError, match="no typical one"):
        bound.function(some_raw(bound, 0))


# The linear-quadratic game.

GRID = TimeGrid(horizon=1.0, points=6)
STARTS = np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]])
GAMMAS = (1.0, 1.6, 2.4)
NOISE = 3e-3
WIGGLY = RandomWalk(2, scale=UNCERTAIN)


def recorded(rows=slice(None)):
    parts = [
        simulate(LinearQuadratic(2), {"gamma": gamma}, STARTS[r : r + 1], GRID, noise="dirichlet", size=NOISE, seed=r).shares
        for r, gamma in enumerate(GAMMAS)
    ]
    return Population(GRID.times, proportions=np.concatenate(parts)[rows])


@functools.cache
def lq(path, rows=(0, 1, 2), **options):
    rows = list(rows)
    options = {"initial": STARTS[rows], "substeps": 1, "method": "anderson", **options}
    return Calibration(LinearQuadratic(2), recorded(rows), {"gamma": path}, Dirichlet(noise=NOISE), **options)


PARTIAL, SEPARATE = Pooled(WIGGLY), Pooled(WIGGLY, "separate")


def density(model, raw):
    return float(jax.jit(lambda raw: log_density(model, (), {}, {f"gamma/{name}": x for name, x in raw.items()})[0])(raw))


def prior_density(bound, raw):
    return sum(float(jnp.sum(prior.log_prob(raw[name]))) for name, prior in bound.priors.items())


def test_without_deviation_the_likelihood_is_that_of_the_shared_model():
    pooled, shared = lq(PARTIAL), lq(WIGGLY)
    raw = some_raw(pooled.bound["gamma"], 1) | {"pooling_scale": jnp.asarray(1e-12)}
    same = {name: raw[name] for name in shared.bound["gamma"].priors}
    one = density(pooled, raw) - prior_density(pooled.bound["gamma"], raw)
    assert one == pytest.approx(density(shared, same) - prior_density(shared.bound["gamma"], same), rel=1e-9)
    apart = raw | {"pooling_scale": jnp.asarray(0.5)}
    assert abs(density(pooled, apart) - prior_density(pooled.bound["gamma"], apart) - one) > 1.0


def test_separate_paths_have_the_densities_of_single_trajectories():
    model = lq(SEPARATE)
    raw = some_raw(model.bound["gamma"], 2)
    alone = sum(density(lq(WIGGLY, (r,)), {n.removesuffix("_by_trajectory"): x[r] for n, x in raw.items()}) for r in range(3))
    assert density(model, raw) == pytest.approx(alone, rel=1e-9)


# Derivatives.


@functools.cache
def direct(path=None, noise=0.005, count=4, centered=None):
    x = 0.4 + 0.3 * np.random.default_rng(0).standard_normal((count, len(TIMES)))
    path = Pooled(RandomWalk(2, scale=UNCERTAIN), centered=centered) if path is None else path
    return Direct(seen(x, noise, 1), path, dist.HalfNormal(noise))


def brute(model, x):
    """Gauss-Newton curvature with every piece dense, by JAX alone: no unknown is taken to belong to one trajectory."""
    space = coordinates(model)
    names = list(model.observation.priors)
    shape = (model.population.n_trajectories, model.grid.points, model.population.n_states)
    count = int(np.prod(shape))

    def outputs(x):
        sites = space.constrain(x)
        result = model.trajectories(space.latents(sites, model.data))
        return jnp.concatenate([jnp.ravel(result.mu), *(sites[name][None] for name in names)])

    def misfit(y):
        likelihood = model.likelihood({"own": dict(zip(names, y[count:], strict=True))}, y[:count].reshape(shape), model.data)
        return -jnp.sum(likelihood.mask(model.data.record.mask).log_prob(model.data.record.values))

    @jax.jit
    def dense(x):
        jacobian, y = jax.jacfwd(lambda x: (outputs(x),) * 2, has_aux=True)(x)
        return jacobian.T @ jax.hessian(misfit)(y) @ jacobian + jax.hessian(lambda x: space.prior_potential(x, model.data))(x)

    return np.asarray(dense(x))


MODELS = [
    pytest.param(lambda: direct(), id="partial"),
    pytest.param(lambda: direct(Pooled(RandomWalk(2, scale=UNCERTAIN), "separate")), id="separate"),
    pytest.param(lambda: lq(PARTIAL), id="LQ, partial", marks=pytest.mark.slow),
    pytest.param(lambda: lq(SEPARATE, initial=None), id="LQ, separate", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("make", MODELS)
def test_gradient_and_curvature_are_those_of_the_whole(make):
    model = make()
    space = coordinates(model)
    x = jnp.asarray(0.3 * np.random.default_rng(0).standard_normal(space.size))
    found = quadratic(model)(x, model.data)
    value, gradient = value_and_gradient(model)(x, model.data)
    assert float(found.value) == pytest.approx(float(value), rel=1e-10)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-9, atol=1e-9 * float(jnp.abs(gradient).max()))
    height = potential(model)
    for k in range(space.size):
        step = jnp.zeros(space.size).at[k].set(1e-5)
        difference = (float(height(x + step, model.data)) - float(height(x - step, model.data))) / 2e-5
        assert difference == pytest.approx(float(gradient[k]), rel=1e-5, abs=1e-4)
    right = brute(model, x)
    np.testing.assert_allclose(found.curvature, right, rtol=1e-8, atol=1e-9 * np.abs(right).max())


def test_the_model_declares_what_one_trajectory_alone_sees():
    model = lq(PARTIAL, initial=None)
    names = {coordinates(model).names[k].split("[")[0] for k in coordinates(model).local.ravel()}
    assert names == {"gamma/level_by_trajectory", "gamma/increments_by_trajectory", "mu0"}
    first = {coordinates(model).names[k] for k in coordinates(model).local[:, 0]}
    assert {name.split("[")[1].split(",")[0].rstrip("]") for name in first} == {"0"}


# Centred coordinates.


def test_centred_coordinates_are_a_change_of_variables():
    model = direct()
    found = centring(model)
    space = coordinates(model)
    flat = jnp.asarray(np.random.default_rng(3).standard_normal(space.size))
    for share in (np.zeros(len(found.each)), np.ones(len(found.each)), np.random.default_rng(4).random(len(found.each))):
        y = found.back(flat, share)
        again, volume = found.out(y, jnp.asarray(share))
        np.testing.assert_allclose(again, flat, rtol=1e-12, atol=1e-12)
        slope = jax.jacobian(lambda y, share=share: found.out(y, jnp.asarray(share))[0])(y)
        assert float(volume) == pytest.approx(np.linalg.slogdet(np.asarray(slope))[1], rel=1e-9, abs=1e-12)
    # Fully centred, a deviation's coordinate is the trajectory's own raw parameter.
    raw = space.latents(space.constrain(flat), model.data)["raw"]["x"]
    own = model.bound["x"].by_trajectory(raw)
    y = space.split(found.back(flat, np.ones(len(found.each))))
    np.testing.assert_allclose(y["x/level_by_trajectory"], own["level"], rtol=1e-12)
    np.testing.assert_allclose(y["x/increments_by_trajectory"], own["increments"], rtol=1e-12)


def test_a_constant_with_a_prior_is_centred_in_its_unconstrained_coordinate():
    model = lq(Pooled(dist.LogNormal(0.2, 0.6)))
    found, space = centring(model), coordinates(model)
    flat = jnp.asarray([0.3, -0.4, 0.1, -1.2, 0.8])
    y = found.back(flat, np.ones(3))
    own = model.bound["gamma"].by_trajectory(space.latents(space.constrain(flat), model.data)["raw"]["gamma"])
    np.testing.assert_allclose(0.6 * y[found.each], np.log(own["value"]), rtol=1e-6)


def constants(noise, count=8, tau=0.3, seed=0):
    """Data of constants around 0.4, their estimates, and the variance of these."""
    x = 0.4 + tau * np.random.default_rng(seed).standard_normal(count)
    data = seen(x, noise, seed + 100)
    estimate = ((data.shares[..., 0] - 0.5) / SLOPE).mean(axis=1)
    return data, estimate, (noise / SLOPE) ** 2 / len(TIMES)


def exact(estimate, variance):
    """Posterior of tau on a grid: the estimates are normal with covariance `1 1' + (tau^2 + variance) I`."""
    tau = np.linspace(1e-4, 3.0, 6001)
    count, mean = len(estimate), estimate.mean()
    apart = tau**2 + variance
    log = -0.5 * (count - 1) * np.log(apart) - 0.5 * np.sum((estimate - mean) ** 2) / apart
    log += scipy.stats.norm.logpdf(mean, 0.0, np.sqrt(1.0 + apart / count)) + scipy.stats.halfnorm.logpdf(tau, scale=0.5)
    mass = np.exp(log - log.max())
    return tau, mass / mass.sum()


MUCH, MIDDLE, LITTLE = 0.001, 0.015, 0.09
"""Noise such that the sd of a trajectory's estimate is 0.01, 0.17 and 1."""


@functools.cache
def sampled(noise, centered):
    data, *_ = constants(noise)
    model = Direct(data, Pooled(Constant(level_scale=1.0), centered=centered), noise)
    return fit(model, num_chains=4, num_warmup=500, num_samples=1000, prior_samples=0, seed=1, starts=1, target_accept_prob=0.9)


def ess(result):
    return float(az.ess(np.log(result.tree["posterior"]["x_pooling_scale"].to_numpy())))


@pytest.mark.slow
@pytest.mark.parametrize("noise", [MUCH, MIDDLE, LITTLE])
@pytest.mark.parametrize("centered", [None, True, False])
def test_the_posterior_of_the_pooling_scale_is_the_exact_one(noise, centered):
    """Quartiles at 4 standard errors by the effective sample size; but for chains stuck in a funnel, which say so."""
    if (noise, centered) in ((LITTLE, True),):
        told = " ".join(sampled(noise, centered).warnings)
        assert "transitions diverged" in told and ("chains disagree" in told or "effective sample size" in told)
        return
    result = sampled(noise, centered)
    draws = result.tree["posterior"]["x_pooling_scale"].to_numpy()
    tau, mass = exact(*constants(noise)[1:])
    for level in (0.25, 0.5, 0.75):
        at = np.interp(level, np.cumsum(mass), tau)
        below = draws < at
        assert below.mean() == pytest.approx(level, abs=4 * 0.5 / np.sqrt(float(az.ess(below.astype(float)))))


@pytest.mark.slow
def test_what_the_data_determine_is_centred_and_the_pooling_scale_is_sampled_better():
    rule, centred, plain = ({noise: sampled(noise, c) for noise in (MUCH, MIDDLE, LITTLE)} for c in (None, True, False))
    much, little = (json.loads(rule[noise].tree.attrs["inference"])["centring"]["x"] for noise in (MUCH, LITTLE))
    assert much > 0.95 and little < 0.4
    assert ess(rule[MUCH]) > 1.5 * ess(plain[MUCH])
    assert ess(rule[LITTLE]) > 1.5 * ess(centred[LITTLE])
    assert ess(rule[MIDDLE]) > 1.5 * ess(centred[MIDDLE])


def test_the_rule_is_the_share_of_the_variance_that_the_data_remove():
    """Constants: `tau^2 I / (1 + tau^2 I)` at the 5 % quantile of tau given the shared level; without data not centred."""
    data, estimate, variance = constants(0.006)
    mask = data.mask.copy()
    mask[3] = False
    data = Population(data.times, proportions=data.shares, states=data.states, mask=mask)
    model = Direct(data, Pooled(Constant(level_scale=1.0)), 0.006)
    mode = find_mode(model, starts=1)
    assert coordinates(model).names[0] == "x/level"
    tau = np.geomspace(1e-4, 10.0, 4001)
    log = scipy.stats.halfnorm.logpdf(tau, scale=0.5) + np.log(tau)  # on a logarithmic grid
    log += sum(scipy.stats.norm.logpdf(x, mode.location[0], np.sqrt(tau**2 + variance)) for x in np.delete(estimate, 3))
    mass = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    low = np.interp(0.05, np.cumsum(mass), tau)
    right = np.full(8, low**2 / (low**2 + variance))
    right[3] = 0.0
    np.testing.assert_allclose(shares(model, mode), right, atol=1e-2)
    for centered in (True, False):
        wished = Direct(data, Pooled(Constant(level_scale=1.0), centered=centered), 0.006)
        np.testing.assert_array_equal(shares(wished, mode), float(centered))


# Fits.


@pytest.fixture(scope="module")
def fitted():
    return fit(direct(), num_chains=2, num_warmup=100, num_samples=100, prior_samples=50, seed=0)


def test_the_posterior_holds_trajectories_group_and_pooling_scale(fitted, tmp_path):
    posterior = fitted.tree["posterior"]
    assert posterior["x"].dims == ("chain", "draw", "trajectory", "time")
    assert posterior["x_group"].dims == ("chain", "draw", "time")
    assert posterior["x_pooling_scale"].dims == posterior["x_scale"].dims == ("chain", "draw")
    space = coordinates(fitted.model)
    latent = fitted.tree["unconstrained_posterior"]["latent"].to_numpy()[1, 7]
    raw = space.latents(space.constrain(jnp.asarray(latent)), fitted.model.data)["raw"]["x"]
    function = fitted.model.bound["x"].function(raw)
    np.testing.assert_allclose(posterior["x_group"][1, 7], [function(t, MU) for t in TIMES], rtol=1e-12)
    # The density that is kept is that of the model's own coordinates.
    lp = fitted.tree["sample_stats"]["lp"].to_numpy()[1, 7]
    assert lp == pytest.approx(-float(potential(fitted.model)(jnp.asarray(latent), fitted.model.data)), rel=1e-9)
    rows = list(fitted.summary().index)
    assert rows[0].startswith("x_group[") and "x_pooling_scale" in rows and any(row.startswith("x[") for row in rows)
    saved = fitted.save(tmp_path / "fit.nc")
    again = load(saved, fitted.model)
    np.testing.assert_array_equal(again.tree["posterior"]["x"], posterior["x"])
    with pytest.raises(InputError, match="unknowns differ"):
        load(saved, direct(RandomWalk(2, scale=UNCERTAIN)))


def test_the_report_has_the_typical_trajectory(fitted, tmp_path):
    page = fitted.report(tmp_path / "fit.html").read_text(encoding="utf-8")
    assert "x_group" in page and "x_pooling_scale" in page and "typical trajectory" in page
    assert "medians of the trajectories" in page


def test_other_data_and_an_earlier_fit_to_start_from(fitted):
    other = fitted.model.with_population(seen(np.full((4, len(TIMES)), 0.2), 0.005, 5))
    assert other.compiled is fitted.model.compiled
    again = fit(other, method="point", start=fitted, starts=1, prior_samples=0)
    assert again.tree["posterior"]["x"].mean() == pytest.approx(0.2, abs=0.1)


def test_a_variational_fit_of_separate_paths_has_a_scale_for_each():
    model = direct(Pooled(RandomWalk(2, scale=UNCERTAIN), "separate"))
    found = fit(model, method="svi", guide="laplace", num_samples=50, prior_samples=0, starts=1)
    posterior = found.tree["posterior"]
    assert posterior["x_scale"].dims == ("chain", "draw", "trajectory")
    assert "x_group" not in posterior and "x_pooling_scale" not in posterior
    assert "x_scale[0]" in found.summary().index


def test_least_squares_refuses_pooled_paths():
    with pytest.raises(InputError, match="pooled path of gamma"):
        fit(lq(PARTIAL), method="point", objective="paper")


# New trajectories.


def test_new_trajectories_scatter_as_the_pooling_scale_says():
    """Draws of new constants are a draw's group plus its tau; sds over 4,000 within 6 % (5 standard errors)."""
    data, *_ = constants(MUCH)
    model = Direct(data, Pooled(Constant(level_scale=1.0)), MUCH)
    result = fit(model, method="svi", guide="laplace", num_samples=4000, prior_samples=0, starts=1, seed=2)
    ahead = result.predict(initial=np.full((2, 2), 0.5), seed=3)
    group = result.tree["posterior"]["x_group"].isel(chain=0, time=0).to_numpy()
    tau = result.tree["posterior"]["x_pooling_scale"].isel(chain=0).to_numpy()
    x = (ahead["mu"].isel(state=0, time=-1).to_numpy() - 0.5) / SLOPE
    z = (x - group[:, None]) / tau[:, None]
    np.testing.assert_allclose(z.std(axis=0), 1.0, rtol=0.06)
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.08 and np.abs(z.mean(axis=0)).max() < 0.08
    # Known trajectories keep their own paths, and so are far more certain.
    known = result.predict()["mu"].isel(state=0, time=-1).to_numpy()
    own = result.tree["posterior"]["x"].isel(chain=0, time=-1).to_numpy()
    np.testing.assert_allclose(known, 0.5 + SLOPE * own, atol=1e-12)
    assert known.std(axis=0).max() < 0.2 * ahead["mu"].isel(state=0, time=-1).std("draw").min()
    other = scores(result, constants(MUCH, seed=9)[0], initial=np.full((8, 2), 0.5), num_draws=200)
    assert 0.5 < other["coverage90"].item() <= 1.0


def test_new_trajectories_of_separate_paths_come_from_the_prior():
    bound = Pooled(Constant(level_scale=0.7), "separate").bind(REAL, CONTEXT)
    raw = {"level_by_trajectory": jnp.full(3, 5.0)}
    drawn = bound.renewed(raw, jax.random.key(0), 4000)["level_by_trajectory"]
    assert drawn.shape == (4000,) and float(drawn.std()) == pytest.approx(1.0, rel=0.06) and abs(float(drawn.mean())) < 0.08


# The linear-quadratic game, from data to posterior.


@pytest.mark.long
@pytest.mark.slow
def test_a_game_s_pooled_parameter_is_recovered():
    """Two data sets of the calibration study's own prior; `python -m benchmarks.calibration pooled` has 200. Five posterior sds are far in a tail."""
    found = check(pooled(), "nuts", simulations=2, seed=0, num_chains=1, num_warmup=150, num_samples=200, starts=1)
    assert {"gamma_group", "gamma_pooling_scale", "gamma[0]", "gamma[4]"} <= set(found.ranks)
    assert (((found.mean - found.truth) / found.sd).abs() < 5.0).all(axis=None)
    assert found.outcomes["diverging"].sum() < 10


@pytest.mark.slow
def test_a_parameter_that_looks_at_the_population_can_be_pooled():
    path = Pooled(RandomWalk(2, input="population", states=("0",)))
    model = lq(path, control=True, initial=None)
    found = fit(model, method="point", starts=1, prior_samples=0, max_steps=5)
    assert found.tree["posterior"]["gamma_group"].dims == ("chain", "draw", "trajectory", "time")


def test_a_pooled_path_can_look_at_the_observed_population():
    path = Pooled(PiecewiseConstant(2, input="observed", states=("0",)), scale=0.4)
    model = lq(path)
    raw = some_raw(model.bound["gamma"], 0)
    latents = {"raw": {"gamma": raw}, "own": {}, "mu0": jnp.asarray(STARTS)}
    result = jax.jit(model.trajectories)(latents)
    assert result.parameters["gamma"].shape == result.groups["gamma"].shape == (3, 6)
    bound, r, t = model.bound["gamma"], 1, 3
    seen_by = (model.population.times, model.population.shares[r])
    own = {name: x[r] for name, x in bound.by_trajectory(raw).items()}
    now = GRID.times[t]
    assert float(result.parameters["gamma"][r, t]) == pytest.approx(
        float(bound.inner.function(own, seen_by)(now, None)), rel=1e-9
    )
    assert float(result.groups["gamma"][r, t]) == pytest.approx(float(bound.function(raw, seen_by)(now, None)), rel=1e-9)


@pytest.mark.slow
def test_several_equilibria_keep_trajectories_and_group():
    """Two beliefs that lead to the one equilibrium of this game change nothing but what the data are compared with twice."""
    plain = lq(PARTIAL)
    raw = some_raw(plain.bound["gamma"], 3)
    latents = {"raw": {"gamma": raw}, "own": {}, "mu0": jnp.asarray(STARTS)}
    right = jax.jit(plain.trajectories)(latents)
    beliefs = [(np.asarray(right.mu[r]), np.asarray(right.value[r])) for r in (0, 1)]
    found = jax.jit(lq.__wrapped__(PARTIAL, branches=beliefs).trajectories)(latents)
    for name in ("parameters", "groups"):
        np.testing.assert_allclose(getattr(found, name)["gamma"], getattr(right, name)["gamma"], rtol=1e-12)
    assert found.parameters["gamma"].shape == (3, 6) and found.groups["gamma"].shape == (6,)
    np.testing.assert_allclose(found.mu, right.mu, atol=1e-9)
    np.testing.assert_allclose(found.correction, 0.0, atol=1e-8)


# Configs.

CONFIG = """
[data]
reader = "table"
path = "lq.csv"

[game]
name = "LinearQuadratic"
n_states = 2

[paths.gamma]
family = "Pooled"
{fields}

[observation]
kind = "Dirichlet"
"""


def written(tmp_path, fields):
    rows = ["trajectory,time,state,share"]
    data = recorded()
    rows += [f"{r},{t},{s},{data.shares[r, i, s]}" for r in range(3) for i, t in enumerate(GRID.times) for s in range(2)]
    (tmp_path / "lq.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    file = tmp_path / "run.toml"
    file.write_text(CONFIG.replace("{fields}", fields), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            'centered = false\n[paths.gamma.path]\nfamily = "GaussianProcess"\nlength_scale = 0.5',
            Pooled(GaussianProcess(0.5), centered=False),
        ),
        (
            'pooling = "separate"\npath = {distribution = "LogNormal", loc = 0.0, scale = 1.0}',
            Pooled(dist.LogNormal(0.0, 1.0), "separate"),
        ),
    ],
)
def test_a_config_can_pool_any_family(fields, expected, tmp_path):
    config = load_config(written(tmp_path, fields))
    model = build_model(config)
    assert isinstance(model.bound["gamma"], PooledPath)
    assert repr(model.paths["gamma"]) == repr(expected)
    (tmp_path / "again.toml").write_text(config.text, encoding="utf-8")
    assert repr(load_config(tmp_path / "again.toml").paths["gamma"]) == repr(expected)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("", ["[paths.gamma] needs the key 'path'"]),
        ("path = 2.0", ["[paths.gamma] path = 2.0", "a table with a family"]),
        ("[paths.gamma.path]\nknots = 3", ["[paths.gamma.path] needs the key 'family'"]),
        ('[paths.gamma.path]\nfamily = "Splin"', ["[paths.gamma.path] family", "did you mean 'Spline'"]),
        ('[paths.gamma.path]\nfamily = "Pooled"', ["[paths.gamma.path] family"]),
        ('pooling = "half"\n[paths.gamma.path]\nfamily = "Constant"', ["[paths.gamma]", "pooling is 'half'"]),
    ],
)
def test_a_bad_config_of_a_pooled_path_is_refused_with_its_place(fields, words, tmp_path):
    with pytest.raises(InputError) as error:
        build_model(load_config(written(tmp_path, fields)))
    assert all(word in str(error.value) for word in words), str(error.value)
