"""Protects network paths with a known body, and that convergence is judged on paths and never on weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_model import Linear, population

from bayes_mfg.errors import InputError
from bayes_mfg.games import Parameter
from bayes_mfg.inference import Fit, fit, last_layer, load
from bayes_mfg.inference.assemble import assemble
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.point import _distances
from bayes_mfg.inference.report import render
from bayes_mfg.inference.report_stats import convergence, identified
from bayes_mfg.models import Dirichlet, NeuralODE
from bayes_mfg.paths import Body, Constant, Context, Neural

CONTEXT = Context(np.linspace(0.0, 10.0, 21), np.linspace(0.0, 10.0, 21), ("S", "I"))
REAL, POSITIVE = Parameter("p"), Parameter("p", lower=0.0)
MU = jnp.array([0.3, 0.7])


def along(bound, raw):
    return np.asarray(jax.vmap(bound.function(raw), (0, None))(jnp.asarray(CONTEXT.times), MU))


def some_raw(bound, seed=0):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.standard_normal(shape)) for name, shape in bound.raw_shapes.items()}


# --- paths


@pytest.mark.parametrize("options", [{}, {"depth": 2, "activation": "silu"}, {"input": ("time", "population")}], ids=str)
def test_a_network_with_its_body_fixed_is_the_same_function(options):
    whole = Neural(5, **options).bind(POSITIVE, CONTEXT)
    raw = some_raw(whole)
    depth = options.get("depth", 1)
    fixed = Neural(5, **options, body=Body.from_raw(raw, "known")).bind(POSITIVE, CONTEXT)
    last = {name: raw[name] for name in ("level", f"weights_{depth}")}
    assert fixed.raw_shapes == {"level": (), f"weights_{depth}": (5, 1)}
    np.testing.assert_allclose(along(fixed, last), along(whole, raw), rtol=1e-14)


@pytest.mark.parametrize("body", ["random", "known"])
def test_with_a_known_body_a_path_is_linear_before_its_link(body):
    whole = Neural(4, 2).bind(REAL, CONTEXT)
    known = Body.from_raw(some_raw(whole, 7), "known") if body == "known" else body
    bound = Neural(4, 2, body=known, level=0.3).bind(REAL, CONTEXT)
    one, two = (some_raw(bound, seed) for seed in (1, 2))
    both = {name: 2.0 * one[name] - 3.0 * two[name] for name in one}
    nothing = along(bound, {name: jnp.zeros(shape) for name, shape in bound.raw_shapes.items()})
    right = 2.0 * (along(bound, one) - nothing) - 3.0 * (along(bound, two) - nothing)
    np.testing.assert_allclose(along(bound, both) - nothing, right, rtol=1e-12, atol=1e-12)
    assert np.ptp(right) > 0.1


def test_a_random_body_is_a_standard_normal_draw_of_its_seed():
    one, again, other = (Neural(2000, body="random", body_seed=s).bind(REAL, CONTEXT).description for s in (1, 1, 2))
    assert one == again != other
    assert "a prior draw of seed 1" in one
    body = Neural(2000, body="random", body_seed=1)._known_body({"weights_0": (1, 2000), "biases_0": (2000,)}, "here")
    for part in body.raw.values():
        assert abs(part.mean()) < 4 / math.sqrt(2000) and abs(part.std() - 1) < 4 / math.sqrt(4000)


def test_over_bodies_the_output_has_the_stated_scale():
    """Mean over 300 bodies of the squared prior sd, averaged over inputs, within four standard errors (false-alarm rate 6e-5) and the
    one percent by which the grid of inputs is coarse."""
    squares = []
    for seed in range(300):
        bound = Neural(16, scale=0.8, body="random", body_seed=seed).bind(REAL, CONTEXT)
        function = bound.function({"level": jnp.zeros(()), "weights_1": jnp.ones((16, 1))})
        features = function.variation
        hidden = np.tanh(np.outer(CONTEXT.times / 5 - 1, features.weights[0][0]) + features.biases[0])
        squares.append(np.mean((hidden * np.asarray(features.weights[1])[:, 0]) ** 2) * 16)
    error = np.std(squares) / math.sqrt(300)
    assert abs(np.mean(squares) - 0.64) < 4 * error + 0.0064


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (Neural(3, body="fitted"), "body is 'fitted'"),
        (Neural(3, body=3), "body is 3"),
        (Neural(3, body="random", body_seed=-1), "body_seed is -1"),
        (Neural(3, body=Body((np.zeros((1, 2)),), (np.zeros(2),), "known")), r"layers of shapes .*\(1, 2\)"),
        (Neural(3, body=Body((np.full((1, 3), np.nan),), (np.zeros(3),), "known")), "not finite"),
    ],
    ids=repr,
)
def test_a_body_that_does_not_fit_is_refused(path, words):
    with pytest.raises(InputError, match=words):
        path.bind(REAL, CONTEXT)


# --- models


@pytest.fixture(scope="module")
def network():
    return Linear(population(), {"a": Neural(3), "b": Constant()})


@pytest.fixture(scope="module")
def found(network):
    return fit(network, "point", prior_samples=0, seed=4)


@pytest.fixture(scope="module")
def middle(found):
    return fit(last_layer(found), "svi", guide="laplace", num_samples=50, starts=1, prior_samples=0)


def test_the_model_of_the_last_layer_has_nothing_else_unknown(found):
    model = last_layer(found)
    assert coordinates(model).names == ["a/level", "a/weights_1[0,0]", "a/weights_1[1,0]", "a/weights_1[2,0]", "b/level"]
    assert "its body as a fit by point of seed 4 found it" in model.bound["a"].description
    assert model.population is found.model.population and model.compiled is not found.model.compiled


def test_the_last_layer_passes_through_the_fit_that_gave_its_body(network):
    """The draw of the highest density, and no other, gives the body; here with weights that are not small, as those of a mode may be."""
    names = coordinates(network).names
    flat = 1.0 + 0.5 * np.random.default_rng(2).standard_normal((1, 2, len(names)))
    stats = {"lp": np.array([[-1.0, -2.0]])}
    known = {"method": "svi", "seed": 0, "wall_time": 0.0, "settings": {}, "prior_samples": 0}
    first = Fit(assemble(network, flat, stats=stats, **known), network)
    model = last_layer(first)
    values = dict(zip(names, flat[0, 0], strict=True))
    space = coordinates(model)
    at = jnp.asarray([values[name] for name in space.names])
    path = model.trajectories(space.latents(space.constrain(at), model.data)).parameters["a"]
    np.testing.assert_allclose(path, first.tree["posterior"]["a"][0, 0], rtol=1e-12)
    assert np.ptp(path) > 0.01


def test_a_fit_of_the_last_layer_is_saved_and_loaded(found, middle, tmp_path):
    path = middle.save(tmp_path / "fit.nc")
    again = load(path, last_layer(load(found.save(tmp_path / "first.nc"), found.model)))
    np.testing.assert_array_equal(again.tree["posterior"]["a"], middle.tree["posterior"]["a"])
    with pytest.raises(InputError, match="unknowns"):
        load(path, found.model)


def test_what_has_no_body_to_fix_is_refused(found, middle, tmp_path):
    with pytest.raises(InputError, match="a Fit is needed"):
        last_layer(found.model)
    with pytest.raises(InputError, match="without its model"):
        last_layer(load(found.save(tmp_path / "fit.nc")))
    with pytest.raises(InputError, match="no Neural path whose body is unknown"):
        last_layer(middle)


def test_with_paths_refuses_what_is_not_there(network):
    with pytest.raises(InputError, match="'c' is"):
        network.with_paths({"c": Constant()})
    with pytest.raises(InputError, match=r"'a' is 1\.0"):
        network.with_paths({"a": 1.0})


def test_a_neural_ode_keeps_its_words():
    model = NeuralODE(population(), width=2, observation=Dirichlet(noise=1e-2))
    other = model.with_paths({"rates": Neural(2, input=("time", "population"), link=model.paths["rates"].link, body="random")})
    assert "the population" in other.bound["rates"].description and "equilibrium" not in other.bound["rates"].description
    assert set(other.bound["rates"].raw_shapes) == {"level", "weights_1"}


# --- convergence


def flipped(names, flat):
    """The same function by other weights: all signs of the hidden units of `a` are turned."""
    sign = np.array([-1.0 if name.startswith(("a/weights", "a/biases")) else 1.0 for name in names])
    return flat * sign


def test_convergence_is_judged_on_the_path_and_not_on_weights(network):
    """Two chains about the same functions with the signs of all units turned: converged, and the report must not say otherwise."""
    names = coordinates(network).names
    rng = np.random.default_rng(0)
    one = 1.0 + 0.1 * rng.standard_normal((2, 300, len(names)))
    one[1] = flipped(names, one[1])
    tree = assemble(network, one, method="nuts", seed=0, wall_time=0.0, settings={}, prior_samples=0)
    judged = {row.name: row for row in convergence(tree["posterior"].to_dataset())}
    assert judged["a"].r_hat < 1.02
    assert convergence(tree["unconstrained_posterior"].to_dataset())[0].r_hat > 1.5  # by ranks it is bounded
    kept, left_out = identified(tree["unconstrained_posterior"].to_dataset())
    assert left_out == 9 and list(kept["coordinate"].to_numpy()) == ["a/level", "b/level"]
    assert convergence(kept)[0].r_hat < 1.02
    page = render(tree)
    assert "9 weights and biases of networks are left out" in page
    assert not [name for name in Fit(tree, network).summary().index if "weights" in name or "biases" in name]


def test_weights_on_a_known_body_are_judged(middle):
    latents = middle.tree["unconstrained_posterior"].to_dataset()
    assert identified(latents)[1] == 0


def test_modes_that_differ_in_weights_alone_are_one(network):
    names = coordinates(network).names
    at, factor = 1.0 + 0.3 * np.random.default_rng(0).standard_normal(len(names)), 0.1 * np.eye(len(names))
    other = flipped(names, at)
    assert np.linalg.norm(other - at) / 0.1 > 10
    assert _distances(network, factor, at, [at, other]).max() < 1e-8
    moved = at + 0.3 * np.array([name == "b/level" for name in names])
    assert _distances(network, factor, at, [at, moved]).max() == pytest.approx(3.0)
    # A difference of the path counts in sds of the path, here from other draws.
    raised = at + 0.7 * np.array([name == "a/level" for name in names])
    space = coordinates(network)
    path = jax.vmap(lambda x: network.trajectories(space.latents(space.constrain(x), network.data)).parameters["a"])
    draws = at + 0.1 * np.random.default_rng(1).standard_normal((4000, len(names)))
    right = float(np.max(0.7 / np.std(path(jnp.asarray(draws)), axis=0)))
    assert _distances(network, factor, at, [raised]).max() == pytest.approx(right, rel=0.25)


def test_without_networks_modes_are_compared_in_all_coordinates():
    model = Linear(population())
    assert _distances(model, np.diag([0.1, 0.2]), np.zeros(2), [np.zeros(2), np.array([0.3, 0.8])]).max() == pytest.approx(5.0)
