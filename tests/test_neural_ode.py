"""Protects the neural ODE: a distribution at every step whatever the weights, exact derivatives, and the same road as any calibration."""

import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.integrate
import scipy.linalg

from bayes_mfg.data import Population
from bayes_mfg.equilibrium import Code
from bayes_mfg.errors import InputError
from bayes_mfg.inference import fit, load, scores
from bayes_mfg.inference.assemble import assemble
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.models import Calibration, Dirichlet, ForwardModel, Gaussian, NeuralODE, describe
from bayes_mfg.models.neural_ode import settle
from bayes_mfg.paths import Pooled

TIMES = np.linspace(0.0, 2.0, 11)
NAMES = ["S", "I", "R"]
# A Markov chain with constant rates.
Q = np.array([[-0.9, 0.6, 0.3], [0.2, -1.0, 0.8], [0.5, 0.1, -0.6]])
STARTS = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.4, 0.3, 0.3], [0.05, 0.45, 0.5]])
FRESH = np.array([[0.6, 0.3, 0.1], [0.2, 0.1, 0.7]])
NOISE = 0.005


def chain(starts):
    """Shares `(R, T, 3)` of the chain, exactly."""
    return np.stack([starts @ scipy.linalg.expm(t * Q) for t in TIMES], axis=1)


def observed(starts, seed=None):
    shares = chain(starts)
    if seed is not None:
        rng = np.random.default_rng(seed)
        shares = np.stack([[rng.dirichlet(row / NOISE**2) for row in one] for one in shares])
    return Population(TIMES, proportions=shares, states=NAMES)


def neural(population=None, **options):
    options = {"width": 4, "observation": Gaussian(scale=NOISE), "initial": STARTS, "substeps": 5, **options}
    return NeuralODE(population or observed(STARTS, seed=1), **options)


def latents(model, seed, times=1.0):
    space = coordinates(model)
    flat = times * jax.random.normal(jax.random.key(seed), (space.size,))
    return space.latents(space.constrain(flat), model.data)


@pytest.fixture(scope="module")
def model():
    return neural()


@pytest.fixture(scope="module")
def fitted(model):
    return fit(model, method="point", starts=1, max_steps=150, prior_samples=20, seed=1)


# The simplex.


def test_shares_stay_a_distribution_whatever_the_weights():
    model = neural(substeps=200)
    run = jax.jit(model.trajectories)
    for seed in range(12):
        result = run(latents(model, seed, (1.0, 3.0, 10.0)[seed % 3]))
        assert np.all(np.asarray(result.code) == Code.CONVERGED)
        assert np.min(result.mu) > 0
        assert np.abs(np.asarray(result.mu).sum(-1) - 1).max() < 1e-12
        assert np.min(result.parameters["rates"]) > 0


def test_steps_that_are_too_long_fail_and_are_no_numbers():
    """Wild weights at few steps: every trajectory is a distribution or NaN with a code that says so, and the density is NaN."""
    model = neural(substeps=1)
    space, codes = coordinates(model), []

    @jax.jit
    def run(flat):
        return model.trajectories(space.latents(space.constrain(flat), model.data)), space.potential(flat, model.data)

    for seed in range(10):
        result, potential = run(30.0 * jax.random.normal(jax.random.key(seed), (space.size,)))
        good = np.asarray(result.code) == Code.CONVERGED
        codes += np.asarray(result.code).tolist()
        assert np.isnan(result.mu[~good]).all()
        assert np.all(np.asarray(result.mu)[good] >= 0)
        np.testing.assert_allclose(np.asarray(result.mu)[good].sum(-1), 1, atol=1e-12)
        assert np.isfinite(potential) == good.all()
    assert {int(Code.OFF_SIMPLEX)} <= set(codes) <= {int(Code.OFF_SIMPLEX), int(Code.NOT_FINITE), int(Code.CONVERGED)}


def test_only_errors_of_the_integration_are_taken_off():
    start = np.array([0.2, 0.8, 0.0])
    slight, far = np.array([0.3, 0.7 + 1e-8, -1e-8]), np.array([0.3, 0.7 + 1e-5, -1e-5])
    mu, code = settle(jnp.stack([start, slight]))
    assert code == Code.CONVERGED
    np.testing.assert_allclose(mu[1], [0.3, 0.7, 0.0], atol=2e-8)
    assert mu[1].min() == 0 and abs(mu[1].sum() - 1) < 1e-15
    for bad, expected in [([start, far], Code.OFF_SIMPLEX), ([start, np.full(3, np.nan)], Code.NOT_FINITE),
                          ([far, far], Code.NO_DISTRIBUTION), ([0.5 * start, 0.5 * start], Code.NO_DISTRIBUTION)]:  # fmt: skip
        mu, code = settle(jnp.stack(bad))
        assert code == expected
        assert np.isnan(mu).all()


def test_shares_stay_positive_where_a_step_is_no_longer_than_a_stay():
    """Heun's step averages Euler steps: at `step * rate = 1` it leaves at least half, and beyond, with rates of one way only, less than nothing."""
    method = diffrax.Heun(scan_kind="bounded")

    def after(rate):
        term = diffrax.ODETerm(lambda t, mu, args: jnp.array([-rate * mu[0], rate * mu[0]]) * jnp.where(t > 0.5, 0.0, 1.0))
        start = jnp.array([1.0, 0.0])
        return method.step(term, 0.0, 1.0, start, None, method.init(term, 0.0, 1.0, start, None), made_jump=False)[0]

    assert after(1.0)[0] == pytest.approx(0.5)
    assert after(2.5)[0] < 0


# The equation.


def rates_by_hand(unknown, t, mu):
    """Tanh network of one hidden layer of four on time (scaled to [-1, 1]) and shares (likewise), softplus, four moves per two units of time."""
    raw = {name: np.asarray(value) for name, value in unknown["raw"]["rates"].items()}
    features = np.concatenate([[t - 1.0], 2 * mu - 1])
    hidden = np.tanh(features @ raw["weights_0"] * (2.0 / 2.0) + 2.0 * raw["biases_0"])
    return raw, hidden


def test_the_integration_agrees_with_another_at_fine_steps():
    """The right-hand side is written again here, as a matrix, for SciPy."""
    model = neural(substeps=500)
    unknown = latents(model, 2)
    result = jax.jit(model.trajectories)(unknown)
    function = eqx.filter_jit(model.bound["rates"].function(unknown["raw"]["rates"]))

    def drift(t, mu):
        rates = np.zeros((3, 3))
        rates[~np.eye(3, dtype=bool)] = function(t, mu)
        return (rates - np.diag(rates.sum(1))).T @ mu

    for r, start in enumerate(STARTS[:2]):
        exact = scipy.integrate.solve_ivp(drift, (0.0, 2.0), start, t_eval=TIMES, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(result.mu[r], exact.y.T, atol=1e-6)
    at = np.asarray(result.parameters["rates"][1, 3])
    np.testing.assert_allclose(at, function(TIMES[3], result.mu[1, 3]), rtol=1e-12)
    # What the network is, from the formula of its docstring, up to the scale of its last layer.
    raw, hidden = rates_by_hand(unknown, TIMES[3], np.asarray(result.mu[1, 3]))
    level = raw["level"] + np.log(np.expm1(0.5))
    output = np.log(np.expm1(at / 2.0)) - level
    ratio = output / (hidden @ raw["weights_1"])
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


def test_halving_the_steps_divides_the_error_by_four():
    unknown = latents(neural(), 3)
    mus = [np.asarray(jax.jit(neural(substeps=n).trajectories)(unknown).mu) for n in (4, 8, 16)]
    assert np.abs(mus[0] - mus[1]).max() / np.abs(mus[1] - mus[2]).max() == pytest.approx(4.0, rel=0.3)


def test_gradients_are_those_of_finite_differences_in_both_modes(model):
    space = coordinates(model)
    at, along = 0.3 * jax.random.normal(jax.random.key(0), (2, space.size))
    potential = jax.jit(lambda x: space.potential(x, model.data))
    (value, slope), gradient = jax.jit(lambda x: (jax.jvp(potential, (x,), (along,)), jax.grad(potential)(x)))(at)
    assert float(slope) == pytest.approx(float(gradient @ along), rel=1e-10)
    h = 1e-5
    assert float(slope) == pytest.approx(float(potential(at + h * along) - potential(at - h * along)) / (2 * h), rel=1e-6)
    assert np.isfinite(value)


# The road of a calibration.


def test_a_point_fit_recovers_a_chain_and_predicts_trajectories_that_it_has_not_seen(fitted):
    """The mean prediction is nearer to the exact chain than a single observation is: sum_x of squared noise is about 1.6e-5."""
    assert scores(fitted, observed(FRESH), initial=FRESH)["mu_error"][0] < 1e-5
    own = scores(fitted, fitted.model.population)
    assert own["mu_error"][0] < 3 * NOISE**2
    assert own["failed_solves"][0] == 0
    assert scores(fitted, observed(FRESH, seed=2))["log_score"][0] > 2.5


def test_prediction_starts_where_it_is_told(fitted):
    ahead = fitted.predict([0.0, 1.0, 2.0], initial=FRESH)
    np.testing.assert_allclose(ahead["mu"].sel(time=0.0)[0], FRESH, atol=1e-15)
    np.testing.assert_allclose(ahead["mu"][0], chain(FRESH)[:, [0, 5, 10]], atol=0.02)
    assert (ahead["value"] == 0).all()
    assert list(ahead["state"].to_numpy()) == NAMES


def test_a_fit_holds_rates_by_name_and_no_value(fitted):
    posterior = fitted.tree["posterior"]
    assert "value" not in posterior
    assert posterior["rates"].dims == ("chain", "draw", "trajectory", "time", "rates_dim_0")
    assert list(posterior["rates_dim_0"].to_numpy()) == ["S to I", "S to R", "I to S", "I to R", "R to S", "R to I"]
    assert any("I to R" in label for label in fitted.summary().index)
    assert fitted.tree.attrs["title"].startswith("NeuralODE comparator fitted to")
    assert json.loads(fitted.tree.attrs["game"])["kind"] == "comparator"
    assert fitted.parameters == ("rates",)
    assert "equilibrium" not in describe(fitted.model)["paths"]["rates"]


def test_a_fit_survives_being_written_and_read(fitted, model, tmp_path):
    path = fitted.save(tmp_path / "fit.nc")
    again = load(path, model)
    assert again.tree["posterior"].to_dataset().identical(fitted.tree["posterior"].to_dataset())
    assert again.predict([1.0])["mu"].equals(fitted.predict([1.0])["mu"])
    with pytest.raises(InputError, match="differ"):
        load(path, neural(width=5))
    with pytest.raises(InputError, match="differ"):
        load(path, neural(scale=1.0))


def test_its_report_speaks_of_no_equilibrium(fitted, tmp_path):
    page = fitted.report(tmp_path / "fit.html").read_text()
    assert "The comparator NeuralODE with states S, I and R was fitted" in page
    assert "Heun" in page
    assert "quilibrium" not in page


def test_other_data_share_what_is_compiled(model):
    other = model.with_population(observed(STARTS, seed=9).in_order_of(["R", "S", "I"]))
    assert type(other) is NeuralODE
    assert other.compiled is model.compiled
    assert other.population.states == tuple(NAMES)
    assert not np.array_equal(other.data.record.values, model.data.record.values)
    with pytest.raises(InputError, match="with_population"):
        model.with_population(observed(FRESH))


@pytest.mark.slow
def test_variational_fits_run_with_uncertain_starts_and_scale():
    data = Population(TIMES[::2], proportions=chain(STARTS)[:, ::2], states=NAMES)
    uncertain = neural(data, width=2, observation=Gaussian(scale=0.02), initial=None, scale=dist.HalfNormal(1.0), horizon=2.4)
    result = fit(uncertain, method="svi", guide="laplace", num_samples=8, starts=1, prior_samples=0)
    posterior = result.tree["posterior"]
    assert np.isfinite(posterior["mu"]).all()
    assert "rates_scale" in posterior
    assert any("cannot be told from 8 draws" in sentence for sentence in result.warnings)
    assert np.isfinite(result.predict([2.4], num_draws=2)["mu"]).all()
    assert scores(result, data)["coverage90"][0] > 0.5


@pytest.mark.slow
def test_draws_of_nuts_hold_the_chain():
    two = neural(observed(STARTS[:2], seed=1), width=2, initial=STARTS[:2])
    result = fit(two, num_chains=1, num_warmup=50, num_samples=20, max_tree_depth=6, starts=1, prior_samples=0)
    assert np.isfinite(result.tree["posterior"]["mu"]).all()
    assert scores(result, observed(STARTS[:2]), initial=STARTS[:2])["mu_error"][0] < 2e-5


@pytest.mark.slow
def test_the_papers_least_squares_take_it():
    result = fit(neural(), method="point", objective="paper", epochs=300, learning_rate=0.05, held_out=0.0, prior_samples=0)
    assert scores(result, observed(STARTS), initial=STARTS)["mu_error"][0] < 1e-3


def test_draws_without_priors_are_assembled(model):
    draws = np.zeros((1, 2, coordinates(model).size))
    tree = assemble(model, draws, method="nuts", seed=0, wall_time=0.0, settings={}, prior_samples=0)
    np.testing.assert_allclose(
        tree["posterior"]["rates"], 1.0
    )  # the prior median: one move per pair and span, times two units of time
    assert tree["posterior"]["rates"].attrs["unit"] == "1/time"


# Refusals.


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"width": 0}, "width"),
        ({"depth": 1.5}, "depth"),
        ({"weight_scale": -1.0}, "weight_scale"),
        ({"scale": dist.Normal(0.0, 1.0)}, "scale"),
        ({"observation": "Gaussian"}, "observation"),
        ({"initial": [0.5, 0.5]}, "mu0"),
        ({"horizon": 1.0}, "horizon"),
        ({"substeps": 0}, "NeuralODE"),
    ],
)
def test_what_does_not_fit_is_refused(options, word):
    with pytest.raises(InputError, match=word):
        neural(**options)


def test_data_that_are_no_population_are_refused():
    with pytest.raises(InputError, match="Population"):
        NeuralODE(chain(STARTS), observation=Dirichlet())
    with pytest.raises(InputError, match="at least two"):
        neural(Population([0.0], proportions=STARTS[:1]))


def test_rates_that_would_be_pooled_are_refused():
    own = neural()
    with pytest.raises(InputError, match="cannot be pooled"):
        own.with_paths({"rates": Pooled(own.paths["rates"])})


def test_both_kinds_are_forward_models():
    assert issubclass(NeuralODE, ForwardModel)
    assert issubclass(Calibration, ForwardModel)
    with pytest.raises(InputError, match="NeuralODE"):
        fit("model")
