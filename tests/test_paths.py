"""Paths: priors mean what they say, functions are smooth, cheap to transform and of the right dtype, bad fields are refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree

from bayes_mfg.errors import InputError
from bayes_mfg.games import Parameter
from bayes_mfg.paths import (
    FAMILIES,
    Below,
    Bounded,
    Constant,
    Context,
    GaussianProcess,
    Identity,
    Neural,
    PiecewiseConstant,
    Positive,
    RandomWalk,
    Softplus,
    Spline,
)
from bayes_mfg.paths.gaussian_process import root_spectral_density
from bayes_mfg.paths.splines import bspline_basis

STATES = ("S", "I", "R")
CONTEXT = Context(np.linspace(0.0, 14.0, 57), np.linspace(0.0, 10.0, 11), STATES)
GRID = np.linspace(0.0, 10.0, 41)
OBSERVED = (CONTEXT.data_times, np.random.default_rng(0).dirichlet(np.ones(3), 11))
REAL = Parameter("x")
BETA = Parameter("beta", lower=0.0)
MU = np.array([0.55, 0.3, 0.15])
KERNELS = {
    "squared_exponential": lambda r: np.exp(-(r**2) / 2),
    "matern32": lambda r: (1 + math.sqrt(3) * r) * np.exp(-math.sqrt(3) * r),
    "matern52": lambda r: (1 + math.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-math.sqrt(5) * r),
}
UNCERTAIN = dist.HalfNormal(1.0)
PATHS = {
    "constant": Constant(),
    "constant, prior": Constant(dist.LogNormal(0.0, 0.5)),
    "pieces": PiecewiseConstant((3.0, 7.0)),
    "pieces, observed": PiecewiseConstant(4, input="observed", states=("I",)),
    "walk": RandomWalk(5, scale=UNCERTAIN),
    "walk, centered": RandomWalk(5, scale=UNCERTAIN, centered=True),
    "walk, population": RandomWalk(5, input="population"),
    "spline": Spline(5, scale=UNCERTAIN),
    "spline, population": Spline(4, input="population", states=("S", "I"), prior="independent"),
    "spline, centered": Spline(4, prior="independent", centered=True),
    "process": GaussianProcess(dist.LogNormal(1.0, 0.3), scale=UNCERTAIN),
    "process, centered": GaussianProcess(4.0, scale=UNCERTAIN, centered=True, kernel="matern32"),
    "process, population": GaussianProcess(0.5, input="population", kernel="squared_exponential"),
    "process, observed": GaussianProcess(0.5, input="observed", states=("I",)),
    "network": Neural(6, scale=UNCERTAIN),
    "network, both": Neural(5, 2, input=("time", "population"), activation="silu"),
    "network, observed": Neural.published(width=6),
}


def some_raw(bound, seed):
    """Raw parameters that every prior allows, without compiling its sampler."""
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.uniform(0.2, 1.4, shape)) for name, shape in bound.raw_shapes.items()}


def covariance(path, context=CONTEXT, grid=GRID):
    """Exact prior covariance of a real non-centred path over time, level left out: the path is linear in its raw parameters."""
    bound = path.bind(REAL, context)
    raw = {name: jnp.zeros(shape) for name, shape in bound.raw_shapes.items()}
    (name,) = set(raw) - {"level"}
    slope = jax.jit(jax.jacobian(lambda z: jax.vmap(lambda t: bound.function({**raw, name: z})(t, MU))(jnp.asarray(grid))))
    slope = np.asarray(slope(raw[name])).reshape(len(grid), -1)
    return slope @ slope.T


# --- links


@pytest.mark.parametrize("link", [Identity(), Positive(), Positive(2.0), Below(1.0), Softplus(0.1), Bounded(-1.0, 3.0)], ids=repr)
def test_a_link_inverts_and_stays_inside_its_interval(link):
    x = jnp.linspace(-12.0, 12.0, 49)
    value = link(x)
    low, high = link.interval
    assert np.all((value > low) & (value < high))
    assert np.all(np.diff(value) > 0)
    np.testing.assert_allclose(link.inverse(value), x, rtol=0, atol=1e-8)
    assert low < link.default_level < high


@pytest.mark.parametrize(
    ("bounds", "kind"),
    [((0.0, math.inf), Positive), ((2.0, math.inf), Positive), ((0.0, 1.0), Bounded), ((-math.inf, 1.0), Below)],
)
def test_the_default_link_follows_the_support(bounds, kind):
    parameter = Parameter("p", *bounds)
    bound = RandomWalk(4, scale=2.0).bind(parameter, CONTEXT)
    function = bound.function(some_raw(bound, 0))
    assert isinstance(function.link, kind)
    values = jax.jit(jax.vmap(function, (0, None)))(GRID, MU)
    assert np.all((values > bounds[0]) & (values < bounds[1]))


# --- priors


def test_the_default_constant_is_lognormal_with_median_one():
    """Kolmogorov-Smirnov at 4,000 draws; false-alarm rate 1e-4 (critical value 2.23 / sqrt(n))."""
    bound = Constant().bind(BETA, CONTEXT)
    draws = jax.jit(jax.vmap(lambda key: bound.function(bound.sample_prior(key))(0.0, MU)))(
        jax.random.split(jax.random.key(1), 4000)
    )
    uniform = np.sort(np.asarray(dist.LogNormal(0.0, 1.0).cdf(draws)))
    steps = np.arange(4001) / 4000
    assert max(np.max(uniform - steps[:-1]), np.max(steps[1:] - uniform)) < 2.23 / math.sqrt(4000)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("length_scale", [0.7, 1.5, 4.0, 20.0])
def test_the_process_has_the_kernel_it_names(kernel, length_scale):
    distance = np.abs(np.subtract.outer(GRID, GRID)) / length_scale
    got = covariance(GaussianProcess(length_scale, kernel=kernel, scale=1.3))
    np.testing.assert_allclose(got / 1.69, KERNELS[kernel](distance), rtol=0, atol=0.02)


def test_the_process_has_the_prior_sd_it_names_in_simulation():
    """Chi-square of 4,000 draws at two times and of their sum over the parameter's entries; false-alarm rate 1e-4 each (4 sd)."""
    bound = GaussianProcess(3.0, scale=0.4, level=2.0, level_scale=0.3).bind(BETA, CONTEXT)

    def sample(key):
        return jax.vmap(lambda t: jnp.log(bound.function(bound.sample_prior(key))(t, MU)))(jnp.array([1.0, 9.0]))

    draws = np.asarray(jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(2), 4000)))
    variance = 0.4**2 + 0.3**2
    assert np.all(np.abs(draws.var(axis=0) / variance - 1) < 4 * math.sqrt(2 / 4000) + 0.01)  # 1 %: the expansion itself
    assert np.all(np.abs(draws.mean(axis=0) - math.log(2.0)) < 4 * math.sqrt(variance / 4000))


@pytest.mark.parametrize("knots", [1, 4, 13, (1.0, 4.0, 9.0)])
def test_the_walk_varies_in_proportion_to_time_whatever_the_knots(knots):
    context = Context(CONTEXT.data_times, CONTEXT.data_times, STATES)
    nodes = np.linspace(0, 10, knots + 1) if isinstance(knots, int) else np.array([0.0, *knots, 10.0])
    expected = 0.49 * np.minimum.outer(nodes, nodes) / 10.0
    np.testing.assert_allclose(covariance(RandomWalk(knots, scale=0.7), context, nodes), expected, atol=1e-12)


def test_the_walk_goes_on_to_vary_beyond_the_data_and_a_horizon_changes_nothing_before():
    long = np.linspace(0.0, 14.0, 29)
    got = covariance(RandomWalk(5, scale=1.0), CONTEXT, long)
    np.testing.assert_allclose(got[-1, -1], 1.4, atol=1e-12)
    short = covariance(RandomWalk(5, scale=1.0), Context(GRID, CONTEXT.data_times, STATES), long[:21])
    np.testing.assert_allclose(got[:21, :21], short, atol=1e-12)


def test_one_change_has_the_sd_that_is_named_and_happens_at_its_time():
    got = covariance(PiecewiseConstant((4.0,), scale=0.6), grid=np.array([0.0, 3.999, 4.0, 14.0]))
    np.testing.assert_allclose(np.diag(got), [0.0, 0.0, 0.36, 0.36], atol=1e-12)


def test_spline_priors_have_the_sd_they_name():
    walk = covariance(Spline(6, scale=0.7), Context(GRID, CONTEXT.data_times, STATES))
    np.testing.assert_allclose(np.sqrt(np.diag(walk))[[0, -1]], [0.0, 0.7], atol=1e-12)
    independent = covariance(Spline(6, scale=0.7, prior="independent"), grid=np.linspace(0.0, 10.0 * 9 / 6, 2001)[:1868])
    assert math.sqrt(np.diag(independent).mean()) == pytest.approx(0.7, rel=0.02)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5])
def test_bsplines_sum_to_one_and_match_scipy(degree):
    from scipy.interpolate import BSpline

    points = (0.0, 1.0, 1.5, 4.0, 5.0)
    x = np.concatenate([np.linspace(0.0, 5.0, 53), points])
    evaluate = jax.jit(jax.vmap(lambda v: bspline_basis(v, points, degree)))
    basis = np.asarray(evaluate(jnp.asarray(x)))
    assert np.all(basis >= 0)
    np.testing.assert_allclose(basis.sum(axis=1), 1.0, atol=1e-14)
    knots = np.array([points[0]] * degree + list(points) + [points[-1]] * degree)
    np.testing.assert_allclose(basis, BSpline.design_matrix(x, knots, degree).toarray(), atol=1e-13)
    beyond = np.asarray(evaluate(jnp.array([-1.0, 6.0])))
    ends = np.asarray(evaluate(jnp.array([0.0, 5.0])))
    np.testing.assert_array_equal(beyond, ends)


@pytest.mark.parametrize(
    "path", [RandomWalk(4, scale=0.7), Spline(4, scale=0.7), Spline(3, scale=0.7, prior="independent")], ids=repr
)
def test_centered_is_the_same_prior(path):
    fields = {name: getattr(path, name) for name in ("knots", "scale")} | (
        {"prior": path.prior} if isinstance(path, Spline) else {}
    )
    bound = type(path)(**fields, centered=True, level=1.5, level_scale=0.4).bind(REAL, CONTEXT)
    prior = bound.priors["coefficients"]
    count = bound.raw_shapes["coefficients"][0]
    values = jax.vmap(lambda z: jax.vmap(lambda t: bound.function({"coefficients": z})(t, MU))(GRID))
    slope = jax.jit(values)(jnp.eye(count)).T
    np.testing.assert_allclose(slope @ prior.covariance_matrix @ slope.T, covariance(path) + 0.4**2, atol=1e-10)
    np.testing.assert_allclose(slope @ prior.mean, 1.5, atol=1e-12)


@pytest.mark.parametrize("family", [RandomWalk, GaussianProcess])
def test_a_centered_path_takes_its_uncertain_scale_from_the_draw(family):
    name = "basis" if family is GaussianProcess else "coefficients"
    bound = family(centered=True, scale=UNCERTAIN).bind(REAL, CONTEXT)
    assert next(iter(bound.priors)) == "scale"
    small, large = (bound.priors[name].given({"scale": jnp.asarray(s)}) for s in (0.1, 10.0))
    assert np.all(np.asarray(large.variance).max() > 100 * np.asarray(small.variance).min())
    raw = bound.sample_prior(jax.random.key(0))
    assert {k: v.shape for k, v in raw.items()} == bound.raw_shapes


@pytest.mark.parametrize(("activation", "depth"), [("tanh", 1), ("relu", 1), ("silu", 2)])
def test_the_network_prior_does_not_depend_on_its_width(activation, depth):
    """Root mean square over inputs from 4,000 networks: sd about 0.02 for width 8; bound 0.12, false-alarm rate below 1e-4."""
    inputs = jnp.linspace(0.0, 10.0, 11)
    got = {}
    for width in (8, 128):
        bound = Neural(width, depth, activation=activation, scale=0.8, level_scale=1e-6).bind(REAL, CONTEXT)

        def sample(key, bound=bound):
            return jax.vmap(bound.function(bound.sample_prior(key)), (0, None))(inputs, MU)

        draws = np.asarray(jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(3), 4000)))
        got[width] = math.sqrt(np.mean(draws**2)) / 0.8
    assert got[8] == pytest.approx(1.0, abs=0.12)
    assert got[128] == pytest.approx(1.0, abs=0.06)


# --- functions


@pytest.mark.parametrize("shape", [(), (2, 2)], ids=str)
@pytest.mark.parametrize("name", PATHS)
def test_raw_parameters_and_values_have_the_stated_shapes(name, shape):
    bound = PATHS[name].bind(Parameter("beta", lower=0.0, shape=shape), CONTEXT)
    observed = OBSERVED if bound.needs_observed else None
    raw = jax.eval_shape(bound.sample_prior, jax.random.key(4))
    assert {k: v.shape for k, v in raw.items()} == bound.raw_shapes
    assert jax.eval_shape(lambda r: bound.function(r, observed)(1.0, MU), raw).shape == shape
    assert bound.description.startswith("beta: ")
    assert bound.description.endswith(".")


@pytest.mark.parametrize("name", PATHS)
def test_a_function_gives_the_same_alone_and_under_jit_and_vmap(name):
    bound = PATHS[name].bind(Parameter("beta", lower=0.0, shape=(2,)), CONTEXT)
    raw = some_raw(bound, 4)
    function = bound.function(raw, OBSERVED if bound.needs_observed else None)
    times, mus = jnp.array([1.0, 1.0, 2.5]), jnp.array([MU, MU[::-1], MU])
    values = jax.jit(lambda f: jax.vmap(f)(times, mus))(function)
    np.testing.assert_allclose(values[2], function(2.5, MU), rtol=1e-12)
    assert np.all(values > 0)
    assert np.any(values[0] != values[1]) == bound.depends_on_population
    assert bound.is_constant == (len(bound.plan.kinds) == 0)


@pytest.mark.parametrize("name", PATHS)
def test_gradients_and_hessians_match_finite_differences(name):
    """Central differences in float64; the points lie inside pieces, away from kinks."""
    bound = PATHS[name].bind(BETA, CONTEXT)
    observed = OBSERVED if bound.needs_observed else None
    raw = {k: jnp.asarray(v, float) for k, v in some_raw(bound, 5).items()}
    point, unravel = ravel_pytree((raw, jnp.asarray(4.3), jnp.asarray(MU)))

    def value(z):
        r, t, mu = unravel(z)
        return jnp.log(bound.function(r, observed)(t, mu))

    step = 1e-5
    moves = step * jnp.eye(len(point))
    around = jnp.concatenate([point[None], point + moves, point - moves])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(value)))(around)
    up, down = slice(1, len(point) + 1), slice(len(point) + 1, None)
    np.testing.assert_allclose(gradients[0], (values[up] - values[down]) / (2 * step), rtol=1e-6, atol=1e-8)
    hessian = jax.jit(jax.hessian(value))(point)
    np.testing.assert_allclose(hessian, (gradients[up] - gradients[down]) / (2 * step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["walk, population", "spline, population", "process, population", "network, both"])
def test_the_derivative_at_an_empty_state_is_the_inner_one(name):
    """A population at the edge of the simplex (nobody recovered yet) must not halve or lose the derivative."""
    bound = PATHS[name].bind(BETA, CONTEXT)
    function = bound.function(some_raw(bound, 6))
    edge = jnp.array([1.0, 0.0, 0.0])
    slopes = jax.jit(jax.jacobian(lambda mu: function(1.0, mu)))
    slope, inside = slopes(edge), slopes(jnp.array([1.0 - 1e-9, 1e-9, 1e-9]))
    np.testing.assert_allclose(slope, inside, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", PATHS)
def test_single_precision_is_kept(name):
    bound = PATHS[name].bind(BETA, CONTEXT)
    raw = {k: jnp.asarray(v, jnp.float32) for k, v in some_raw(bound, 7).items()}
    t, mu = jnp.float32(2.2), jnp.asarray(MU, jnp.float32)
    observed = OBSERVED if bound.needs_observed else None
    evaluate = jax.jit(lambda r: bound.function(r, observed)(t, mu))
    single = evaluate(raw)
    assert single.dtype == jnp.float32
    double = evaluate({k: jnp.asarray(v, jnp.float64) for k, v in raw.items()})
    assert double.dtype == jnp.float64
    np.testing.assert_allclose(single, double, rtol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("kernel", KERNELS)
def test_extreme_length_scales_give_no_nan_gradient(kernel, dtype):
    lengths = jnp.asarray(np.logspace(-6, 6, 13), dtype)

    def total(length):
        return jnp.sum(root_spectral_density(kernel, length, 7.0, 20))

    for derivative in (total, jax.grad(total), jax.hessian(total)):
        assert np.all(np.isfinite(jax.jit(jax.vmap(derivative))(lengths)))


def test_the_observed_population_is_interpolated_linearly_and_held():
    bound = Neural(4, input="observed", states=("I",)).bind(BETA, CONTEXT)
    raw = some_raw(bound, 8)
    inputs = bound.function(raw, OBSERVED).inputs
    times = np.array([-1.0, 0.0, 3.25, 7.0, 10.0, 13.0])
    got = jax.vmap(lambda t: inputs(t, MU, jnp.float64))(times)[:, 0]
    np.testing.assert_allclose(got, np.interp(times, OBSERVED[0], OBSERVED[1][:, 1]), atol=1e-14)
    many = jax.vmap(lambda shares: bound.function(raw, (OBSERVED[0], shares))(3.0, MU))(jnp.stack([OBSERVED[1]] * 2))
    np.testing.assert_allclose(many, bound.function(raw, OBSERVED)(3.0, MU), rtol=1e-12)


def test_far_beyond_its_domain_a_process_returns_to_its_level():
    bound = GaussianProcess(3.0).bind(BETA, CONTEXT)
    raw = some_raw(bound, 9)
    np.testing.assert_allclose(bound.function(raw)(1e4, MU), jnp.exp(raw["level"]), rtol=1e-12)


def test_bind_works_while_jax_traces():
    @jax.jit
    def run(key):
        values = [
            path.bind(BETA, CONTEXT).function(path.bind(BETA, CONTEXT).sample_prior(key))(1.0, MU)
            for path in (
                Constant(dist.Gamma(2.0, 1.0)),
                GaussianProcess(dist.Gamma(4.0, 1.0)),
                Neural(),
                Spline(prior="independent"),
            )
        ]
        return jnp.stack(values)

    assert np.all(np.isfinite(run(jax.random.key(0))))


# --- the door


def test_constant_accepts_priors_inside_the_support():
    for prior in (
        dist.Gamma(2.0, 1.0),
        dist.TruncatedNormal(1.0, 1.0, low=0.0),
        dist.Uniform(0.5, 2.0),
        dist.TransformedDistribution(
            dist.Normal(0.0, 1.0), [dist.transforms.ExpTransform(), dist.transforms.AffineTransform(1.0, 2.0)]
        ),
    ):
        bound = Constant(prior).bind(Parameter("beta", lower=0.0, shape=(2,)), CONTEXT)
        assert bound.raw_shapes == {"value": (2,)}
        assert bound.priors["value"].event_shape == (2,)


def test_a_number_fixes_a_constant():
    bound = Constant(0.25).bind(Parameter("beta", lower=0.0, shape=(2,)), CONTEXT)
    assert bound.priors == {}
    np.testing.assert_array_equal(bound.function({})(0.0, MU), [0.25, 0.25])


REFUSED = [
    (
        Constant(dist.Normal(0.0, 1.0)),
        BETA,
        r"'beta': prior Normal\(loc=0, scale=1\) .* \(-inf, inf\), but the parameter lives in \(0, inf\)",
    ),
    (Constant(dist.Uniform(-0.1, 0.5)), Parameter("p", 0.0, 1.0), r"support in \(-0.1, 0.5\)"),
    (Constant(dist.Poisson(3.0)), BETA, "is discrete"),
    (Constant(dist.Gamma(jnp.ones(3), 1.0)), BETA, r"has shape \(3,\)"),
    (Constant(dist.Gamma(1.0, 1.0), level=2.0), BETA, "prior and level were both given"),
    (Constant(-1.0), BETA, "beta is -1.0; its range is"),
    (Constant("wide"), BETA, "'wide'"),
    (Constant(level=-2.0), BETA, r"level is -2.0; it must lie in \(0, inf\)"),
    (RandomWalk(level="one"), BETA, "level is 'one'"),
    (RandomWalk(level=(1.0, 2.0)), BETA, r"level has shape \(2,\)"),
    (RandomWalk(level_scale=0.0), BETA, "level_scale is 0.0; a positive number"),
    (RandomWalk(scale=-1.0), BETA, "scale is -1.0; a positive number"),
    (RandomWalk(scale=True), BETA, "scale is True"),
    (RandomWalk(scale=dist.Normal(0.0, 1.0)), BETA, r"but scale lives in \(0, inf\)"),
    (RandomWalk(scale=dist.HalfNormal(jnp.ones(2))), BETA, "a scalar prior is needed"),
    (RandomWalk(link=Identity()), BETA, r"Identity\(\) reaches \(-inf, inf\), but the parameter lives in \(0, inf\)"),
    (RandomWalk(link="exp"), BETA, "link is 'exp'"),
    (RandomWalk(link=Bounded(2.0, 1.0)), BETA, "empty interval"),
    (RandomWalk(0), BETA, "knots is 0; a whole number of at least 1"),
    (RandomWalk(2.5), BETA, "knots is 2.5"),
    (RandomWalk((5.0, 3.0)), BETA, r"knots is \(5.0, 3.0\)"),
    (RandomWalk((5.0, 30.0)), BETA, r"knot 30 lies outside \[0, 14\]"),
    (RandomWalk(input="space"), BETA, "input 'space' is unknown; it is one of time, population, observed"),
    (RandomWalk(input=("time", "population")), BETA, "exactly one of"),
    (RandomWalk(states=("I",)), BETA, "no meaning for input 'time'"),
    (RandomWalk(input="population", states=("E",)), BETA, "state 'E' is unknown; the states are S, I, R"),
    (RandomWalk(input="population", centered=True), BETA, "centered=True needs one input"),
    (RandomWalk(centered="yes"), BETA, "centered is 'yes'"),
    (PiecewiseConstant(input="population"), BETA, "would jump inside the equilibrium"),
    (Spline(degree=9), BETA, "degree is 9"),
    (Spline(prior="smooth"), BETA, "prior is 'smooth'; it is one of random_walk, independent"),
    (GaussianProcess(0.0), BETA, "length_scale is 0.0"),
    (GaussianProcess(kernel="cubic"), BETA, "kernel is 'cubic'"),
    (GaussianProcess(basis=0), BETA, "basis is 0"),
    (GaussianProcess(boundary=0.5), BETA, "boundary is 0.5"),
    (Neural(0), BETA, "width is 0"),
    (Neural(depth=11), BETA, "depth is 11"),
    (Neural(activation="step"), BETA, "activation is 'step'"),
    (Neural(weight_scale=math.nan), BETA, "weight_scale is nan"),
    (Neural(input=("time", "time")), BETA, "one or more different ones"),
]


@pytest.mark.parametrize(
    ("path", "parameter", "fragment"), REFUSED, ids=[f"{type(p).__name__}-{i}" for i, (p, _, _) in enumerate(REFUSED)]
)
def test_bad_fields_are_refused_with_the_family_and_the_parameter(path, parameter, fragment):
    with pytest.raises(InputError, match=fragment) as caught:
        path.bind(parameter, CONTEXT)
    message = str(caught.value)
    assert message.startswith(f"{type(path).__name__} for parameter {parameter.name!r}: ")
    assert "\n" not in message
    assert message.endswith(".")


def test_bad_raw_parameters_and_observations_are_refused():
    bound = RandomWalk(5, input="observed").bind(BETA, CONTEXT)
    raw = some_raw(bound, 0)
    with pytest.raises(InputError, match=r"takes the raw parameters \['increments', 'level'\]; got \['level'\]"):
        bound.function({"level": raw["level"]}, OBSERVED)
    with pytest.raises(InputError, match=r"'level' of shape \(\); got \(2,\)"):
        bound.function({**raw, "level": np.zeros(2)}, OBSERVED)
    with pytest.raises(InputError, match="takes the observed population"):
        bound.function(raw)
    with pytest.raises(InputError, match=r"got \(11,\) and \(11, 2\)"):
        bound.function(raw, (OBSERVED[0], OBSERVED[1][:, :2]))
    with pytest.raises(InputError, match="finite observed shares"):
        bound.function(raw, (OBSERVED[0], np.full((11, 3), np.nan)))


@pytest.mark.parametrize(
    ("times", "data_times", "fragment"),
    [
        ([0.0], [0.0], "times has shape"),
        ([0.0, 0.0], [1.0], "increasing"),
        ([0.0, 1.0], [math.nan], "finite"),
        ([2.0, 3.0], [1.0], "not after"),
    ],
)
def test_a_bad_context_is_refused(times, data_times, fragment):
    with pytest.raises(InputError, match=fragment):
        Context(np.array(times), np.array(data_times), STATES)


def test_the_registry_holds_the_families_under_the_names_that_users_type():
    assert list(FAMILIES) == ["Constant", "PiecewiseConstant", "RandomWalk", "GaussianProcess", "Spline", "Neural"]
    for family in FAMILIES.values():
        assert family().bind(BETA, CONTEXT).parameter is BETA


def test_a_path_prints_what_was_chosen():
    assert repr(Constant()) == "Constant()"
    path = GaussianProcess(5.0, scale=dist.HalfNormal(0.5))
    assert repr(path) == "GaussianProcess(scale=HalfNormal(scale=0.5), length_scale=5)"
