"""Protects the calibration model: its density is prior times likelihood of the equilibrium, its derivative is exact, misfits are refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro import handlers
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import log_density

from bayes_mfg.data import Population, simulate
from bayes_mfg.equilibrium import TimeGrid, solve
from bayes_mfg.errors import InputError
from bayes_mfg.games import SIR, LinearQuadratic
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.models import Binomial, Calibration, Dirichlet, Gaussian, Seeded
from bayes_mfg.paths import Constant, GaussianProcess, Neural

GAME = LinearQuadratic()
GRID = TimeGrid(2.0, 9)
STARTS = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
DATA = simulate(GAME, {"gamma": 1.5}, STARTS, GRID, noise="dirichlet", size=0.01, seed=1)


DIRTY = Population(DATA.times, proportions=DATA.shares, states=["S", "I", "X"])
HOLE = np.ones((2, 9, 3), bool)
HOLE[0, 3, 1] = False


def only(r):
    """One trajectory of the data."""
    return Population(DATA.times, proportions=DATA.shares[r : r + 1], states=DATA.states)


def calibration(population=DATA, gamma=None, **options):
    options = {"initial": STARTS, "substeps": 1, **options}
    observation = options.pop("observation", Dirichlet(noise=0.01))
    gamma = dist.LogNormal(0.0, 1.0) if gamma is None else gamma
    options.setdefault("method", "anderson")  # compiles in half the time
    return Calibration(options.pop("game", GAME), population, {"gamma": gamma}, observation, **options)


def density(model, **sites):
    return float(log_density(model, (), {}, sites)[0])


@pytest.fixture(scope="module")
def model():
    return calibration()


def test_the_density_is_prior_times_likelihood_of_the_equilibrium(model):
    mu = np.stack([solve(GAME, {"gamma": 1.3}, start, GRID).mu for start in STARTS])
    likelihood = sum(
        scipy.stats.dirichlet.logpdf(DATA.shares[r, t] / DATA.shares[r, t].sum(), mu[r, t] / mu[r, t].sum() / 0.01)
        for r in range(2)
        for t in range(9)
    )
    prior = scipy.stats.lognorm.logpdf(1.3, 1.0)
    assert density(model, **{"gamma/value": jnp.asarray(1.3)}) == pytest.approx(prior + likelihood, rel=1e-9)


def test_trajectories_add_up():
    gamma = {"gamma/value": jnp.asarray(1.3)}
    prior = scipy.stats.lognorm.logpdf(1.3, 1.0)
    one, two = (density(calibration(only(r), initial=STARTS[r]), **gamma) - prior for r in range(2))
    assert density(calibration(), **gamma) - prior == pytest.approx(one + two, rel=1e-10)


def test_unknown_initial_populations_have_a_flat_density(model):
    """Uniform over the simplex of three states: density 2 each."""
    free = calibration(initial=None)
    sites = {"gamma/value": jnp.asarray(1.3), "mu0": jnp.asarray(STARTS)}
    assert density(free, **sites) == pytest.approx(density(model, **{"gamma/value": jnp.asarray(1.3)}) + 2 * np.log(2.0))


def test_masked_times_leave_the_rest_as_it_is(model):
    mask = np.ones((2, 9, 3), bool)
    mask[1, 4:] = False
    masked = Population(DATA.times, proportions=DATA.shares, states=DATA.states, mask=mask)
    gamma = {"gamma/value": jnp.asarray(1.3)}
    mu = solve(GAME, {"gamma": 1.3}, STARTS[1], GRID).mu
    lost = sum(
        scipy.stats.dirichlet.logpdf(DATA.shares[1, t] / DATA.shares[1, t].sum(), mu[t] / mu[t].sum() / 0.01) for t in range(4, 9)
    )
    assert density(calibration(masked), **gamma) == pytest.approx(density(model, **gamma) - lost, rel=1e-9)


def test_the_horizon_goes_beyond_the_data_in_steps_like_theirs():
    longer = calibration(horizon=3.0)
    np.testing.assert_allclose(longer.grid.times, np.linspace(0.0, 3.0, 13))
    np.testing.assert_allclose(longer.grid.times[longer.data_index], DATA.times)
    result = longer.trajectories({"raw": {"gamma": {"value": jnp.asarray(1.3)}}, "own": {}, "mu0": jnp.asarray(STARTS)})
    right = solve(GAME, {"gamma": 1.3}, STARTS[0], TimeGrid(3.0, 13)).mu
    np.testing.assert_allclose(result.mu[0], right, atol=1e-9)


def test_other_data_share_what_is_compiled_and_are_what_is_fitted(model):
    other = simulate(GAME, {"gamma": 0.7}, STARTS, GRID, noise="dirichlet", size=0.01, seed=2)
    again = model.with_population(other)
    assert again.compiled is model.compiled
    gamma = {"gamma/value": jnp.asarray(1.3)}
    assert density(again, **gamma) == pytest.approx(density(calibration(other), **gamma), rel=1e-12)
    with pytest.raises(InputError, match="with_population"):
        model.with_population(only(0))
    with pytest.raises(InputError, match="with_population"):
        model.with_population(Population(DATA.times + 1.0, proportions=DATA.shares))


class Fragile(LinearQuadratic):
    """A game without costs, hence without an equilibrium, where gamma exceeds 1."""

    def running_cost(self, t, control, mu, params):
        return super().running_cost(t, control, mu, params) + jnp.where(params["gamma"] > 1.0, jnp.nan, 0.0)


def test_a_density_without_an_equilibrium_is_not_a_number():
    fragile = calibration(game=Fragile())
    assert np.isfinite(density(fragile, **{"gamma/value": jnp.asarray(0.9)}))
    assert np.isnan(density(fragile, **{"gamma/value": jnp.asarray(1.1)}))
    at = jnp.log(jnp.asarray([1.1]))
    value, gradient = jax.jit(jax.value_and_grad(coordinates(fragile).potential))(at, fragile.data)
    assert np.isnan(value)
    assert np.isnan(gradient).all()


PATHS = {
    "constant": lambda: Constant(),
    "process": lambda: GaussianProcess(length_scale=1.0),
    "network of time": lambda: Neural(width=4),
    "network of the equilibrium": lambda: Neural(width=4, input=("time", "population")),
    "network of the observed": lambda: Neural(width=4, input=("time", "observed")),
}


@pytest.mark.parametrize("kind", PATHS)
def test_the_gradient_agrees_with_central_differences(kind):
    """At prior draws, over all unknowns, the initial populations among them, along random directions."""
    made = calibration(gamma=PATHS[kind](), initial=None)
    space = coordinates(made)
    at = space.unconstrain(space.draw_prior(jax.random.key(3)))
    along = jax.random.normal(jax.random.key(4), at.shape)
    potential = jax.jit(space.potential)
    # Fourth order in the step.
    step = 1e-4
    line = [float(potential(at + k * step * along, made.data)) for k in (-2, -1, 1, 2)]
    right = (line[0] - 8 * line[1] + 8 * line[2] - line[3]) / (12 * step)
    found = float(jax.jit(jax.grad(space.potential))(at, made.data) @ along)
    assert np.isfinite(right)
    assert found == pytest.approx(right, rel=1e-6, abs=1e-6)


def test_paths_of_the_population_differ_between_trajectories():
    made = calibration(gamma=PATHS["network of the observed"](), initial=None)
    assert made.varies_by_trajectory("gamma")
    space = coordinates(made)
    result = made.trajectories(space.latents(space.draw_prior(jax.random.key(3)), made.data))
    assert result.parameters["gamma"].shape == (2, 9)
    assert not np.allclose(result.parameters["gamma"][0], result.parameters["gamma"][1])


def test_a_path_of_the_equilibrium_is_evaluated_inside_the_fixed_point():
    """The density with a network of (time, population) is that of a solve with the same function."""
    made = calibration(gamma=PATHS["network of the equilibrium"]())
    space = coordinates(made)
    sites = space.draw_prior(jax.random.key(3))
    latents = space.latents(sites, made.data)
    gamma = made.bound["gamma"].function(latents["raw"]["gamma"], None)
    mu = np.stack([solve(GAME, {"gamma": gamma}, start, GRID).mu for start in STARTS])
    likelihood = sum(
        scipy.stats.dirichlet.logpdf(DATA.shares[r, t] / DATA.shares[r, t].sum(), mu[r, t] / mu[r, t].sum() / 0.01)
        for r in range(2)
        for t in range(9)
    )
    prior = sum(float(site["fn"].log_prob(site["value"]).sum()) for site in priors_of(made, sites))
    assert density(made, **sites) == pytest.approx(prior + likelihood, rel=1e-8)


def priors_of(model, sites):
    """What the model's priors are, at given values."""
    trace = handlers.trace(handlers.substitute(model, data=sites)).get_trace()
    return [trace[name] for name in sites]


SICK = np.array([3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4])


def outbreak(states):
    """The density of an epidemic whose data have their states in a given order."""
    counts = np.stack([np.where(s == "I", SICK, 0) for s in states], axis=-1)[None]
    mask = np.broadcast_to([s == "I" for s in states], (14, 3))
    seen = Population(np.arange(14.0), counts=counts, totals=763, states=states, mask=mask)
    paths = {"beta": dist.LogNormal(0.5, 0.5), "recovery": 0.45}
    made = Calibration(SIR(), seen, paths, Binomial(states=["I"]), initial=Seeded(), substeps=1)
    assert made.population.states == ("S", "I", "R")
    return density(made, **{"beta/value": jnp.asarray(1.7), "seed": jnp.asarray([3 / 763])})


def test_states_are_matched_by_name():
    assert outbreak(["I", "R", "S"]) == pytest.approx(outbreak(["S", "I", "R"]), rel=1e-12)


def test_numbered_states_in_another_order_are_matched_by_name():
    """Whose names are numbers in the game, too."""
    model = calibration(DATA.in_order_of(["2", "0", "1"]))
    assert model.population.states == ("0", "1", "2")
    np.testing.assert_array_equal(model.population.shares, DATA.shares)


def test_states_without_names_are_matched_by_place():
    named = Population(DATA.times, proportions=DATA.shares, states=["north", "south", "west"])
    gamma = {"gamma/value": jnp.asarray(1.3)}
    assert density(calibration(named), **gamma) == pytest.approx(density(calibration(), **gamma), rel=1e-12)


def test_an_inferred_noise_is_that_of_the_density(model):
    free = calibration(observation=Dirichlet(noise=dist.LogNormal(-4.0, 1.0)))
    at = {"gamma/value": jnp.asarray(1.3), "noise": jnp.asarray(0.01)}
    right = density(model, **{"gamma/value": jnp.asarray(1.3)}) + scipy.stats.lognorm.logpdf(0.01, 1.0, scale=np.exp(-4.0))
    assert density(free, **at) == pytest.approx(right, rel=1e-10)


def test_counts_of_one_state_are_enough():
    """Fourteen counts of the infected: the density is binomial in their share."""
    grid = TimeGrid(13.0, 14)
    sick = np.array([3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4])
    counts = np.stack([np.zeros(14), sick, np.zeros(14)], axis=-1)[None]
    seen = Population(
        grid.times, counts=counts, totals=763, states=["S", "I", "R"], mask=np.broadcast_to([False, True, False], (14, 3))
    )
    epidemic = Calibration(
        SIR(), seen, {"beta": dist.LogNormal(0.5, 0.5), "recovery": 0.45}, Binomial(states=["I"]), initial=Seeded(), substeps=1
    )
    at = {"beta/value": jnp.asarray(1.7), "seed": jnp.asarray([3 / 763])}
    start = np.array([760 / 763, 3 / 763, 0.0])
    mu = solve(SIR(), {"beta": 1.7, "recovery": 0.45}, start, grid).mu[:, 1]
    right = scipy.stats.binom.logpmf(sick, 763, mu).sum() + scipy.stats.lognorm.logpdf(1.7, 0.5, scale=np.exp(0.5))
    right += scipy.stats.loguniform.logpdf(3 / 763, 1e-5, 0.3)
    assert density(epidemic, **at) == pytest.approx(right, rel=1e-8)


@pytest.mark.slow
def test_numpyros_own_sampler_takes_the_model(model):
    sampler = MCMC(NUTS(model), num_warmup=50, num_samples=50, progress_bar=False)
    sampler.run(jax.random.key(0))
    gamma = np.asarray(sampler.get_samples()["gamma/value"])
    assert np.isfinite(gamma).all()
    assert 0.9 < np.median(gamma) < 2.5


class Bare(eqx.Module):
    """Not a game."""


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: calibration(game=Bare()), "Game is needed"),
        (lambda: calibration(game=SIR()), "needs the parameter 'beta'|no parameter 'gamma'"),
        (lambda: Calibration(GAME, DATA, {}, Gaussian()), "needs the parameter 'gamma'"),
        (lambda: Calibration(GAME, DATA, {"gamma": 1.0, "delta": 2.0}, Gaussian()), "no parameter 'delta'"),
        (lambda: calibration(game=LinearQuadratic(4)), "4 states .* the data have 3"),
        (lambda: calibration(observation="Gaussian"), "observation is 'Gaussian'"),
        (lambda: calibration(gamma="high"), "'gamma'.*'high'"),
        (lambda: calibration(gamma=True), "'gamma'.*True"),
        (lambda: calibration(gamma=dist.Normal(0.0, 1.0)), "gamma.*support"),
        (lambda: calibration(gamma=-1.0), "gamma.*-1"),
        (lambda: calibration(gamma=np.nan), "gamma.*nan"),
        (lambda: calibration(5), "population is 5"),
        (
            lambda: Calibration(SIR(), DIRTY, {"beta": 1.0, "recovery": 1.0}, Gaussian()),
            "SIR has the states S, I, R; the data have S, I, X",
        ),
        (lambda: Calibration(GAME, DATA, ["gamma"], Gaussian()), "paths is"),
        (lambda: calibration(horizon=1.0), "horizon is 1"),
        (lambda: calibration(horizon=np.nan), "horizon is nan"),
        (lambda: calibration(horizon=np.inf), "horizon is inf"),
        (lambda: calibration(horizon="3"), "horizon is '3'"),
        (lambda: calibration(substeps=True), "substeps is True"),
        (lambda: calibration(method=["newton"]), "newton"),
        (
            lambda: calibration(Population(DATA.times, proportions=DATA.shares, mask=HOLE), PATHS["network of the observed"]()),
            "observed",
        ),
        (lambda: calibration(substeps=0), "substeps"),
        (lambda: calibration(method="jacobi"), "'jacobi'.*newton"),
        (lambda: calibration(scheme="rk4"), "rk4"),
        (lambda: calibration(initial="flat"), "initial is 'flat'"),
        (lambda: calibration(initial=[0.5, 0.5]), r"shape \(2,\)"),
        (lambda: calibration(Population([0.0], proportions=DATA.shares[:, :1])), "at least two"),
    ],
)
def test_pieces_that_do_not_fit_are_refused_in_one_sentence(make, words):
    with pytest.raises(InputError, match=words) as error:
        make()
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")
