"""Protects prediction: the populations of the same draws, forecasts up to the horizon, replicates that scatter around them."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

from bayes_mfg.data import Population, simulate
from bayes_mfg.equilibrium import TimeGrid, solve
from bayes_mfg.errors import InputError
from bayes_mfg.games import LinearQuadratic
from bayes_mfg.inference import Fit, scores
from bayes_mfg.inference.assemble import assemble
from bayes_mfg.models import Binomial, Calibration, Multinomial

GRID = TimeGrid(horizon=2.4, points=13)
STARTS = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
SIZE = 200
DRAWS = 40


class Fragile(LinearQuadratic):
    """The linear-quadratic game, without an equilibrium where gamma exceeds 1.5 while state 0 holds more than 0.8."""

    crowd: float = eqx.field(static=True, default=0.8)

    def running_cost(self, t, control, mu, params):
        bad = (params["gamma"] > 1.5) & (mu[0] > self.crowd)
        return super().running_cost(t, control, mu, params) + jnp.where(bad, jnp.nan, 0.0)


# Slow moves: a crowd lasts longer than a step.
GAME = Fragile(base_rate=0.2, terminal_slope=0.5)


@pytest.fixture(scope="module")
def model():
    """Counts of 11 times up to 2.0; the game goes on until 2.4."""
    whole = simulate(GAME, {"gamma": 1.5}, STARTS, GRID, noise="multinomial", size=SIZE, seed=1)
    seen = Population(whole.times[:11], counts=whole.counts[:, :11], states=whole.states, trajectories=["north", "south"])
    return Calibration(GAME, seen, {"gamma": dist.LogNormal(0.0, 1.0)}, Binomial(), initial=STARTS, horizon=2.4, substeps=1)


@pytest.fixture(scope="module")
def fitted(model):
    """A fit whose draws are given: prediction takes any."""
    flat = np.log(1.5) + 0.1 * np.random.default_rng(0).standard_normal((2, DRAWS // 2, 1))
    tree = assemble(model, flat, method="nuts", seed=0, wall_time=0.0, settings={}, prior_samples=0)
    return Fit(tree, model)


@pytest.fixture(scope="module")
def default(fitted):
    return fitted.predict()


@pytest.fixture(scope="module")
def between(fitted):
    """Predictions between grid times and beyond the data."""
    return fitted.predict([0.0, 0.35, 1.1, 2.2, 2.3])


def of_draws(fitted, name):
    """`(draw, trajectory, time, state)` of a fit, chain after chain."""
    values = fitted.tree["posterior"][name].to_numpy()
    return values.reshape(-1, *values.shape[2:])


def refuses(call, word):
    with pytest.raises(InputError, match=word) as error:
        call()
    assert "\n" not in str(error.value)
    assert str(error.value).endswith((".", ")."))


def test_grid_times_give_the_populations_of_the_same_draws(model, fitted, default):
    np.testing.assert_allclose(default["time"], GRID.times, atol=1e-12)
    for name in ("mu", "value"):
        assert default[name].dims == ("draw", "trajectory", "time", "state")
        np.testing.assert_allclose(default[name], of_draws(fitted, name), rtol=1e-9, atol=1e-12)
    gamma = float(fitted.tree["posterior"]["gamma"].isel(chain=1, draw=3, time=0))
    np.testing.assert_allclose(
        default["mu"][DRAWS // 2 + 3, 1], solve(model.game, {"gamma": gamma}, STARTS[1], GRID).mu, atol=1e-9
    )
    assert list(default["trajectory"].to_numpy()) == ["north", "south"]
    assert list(default["state"].to_numpy()) == list(default["observed_state"].to_numpy()) == ["0", "1", "2"]
    assert default.attrs["failed_solves"] == 0
    assert default.attrs["data_end"] == pytest.approx(2.0)


def test_populations_are_linear_between_grid_times(fitted, between):
    for name in ("mu", "value"):
        path = fitted.tree["posterior"][name].stack(n=("chain", "draw")).transpose("n", "trajectory", "time", "state")
        np.testing.assert_allclose(between[name], path.interp(time=between["time"]).to_numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(between["mu"].sum("state"), 1.0, atol=1e-9)


def test_forecasts_end_at_the_horizon(fitted, default, between):
    assert float(default["time"][-1]) == pytest.approx(2.4)
    assert int((default["time"] > default.attrs["data_end"]).sum()) == 2
    assert np.isfinite(between["mu"].sel(time=2.3)).all()


@pytest.mark.parametrize(
    ("times", "word"),
    [
        ([2.0, 2.5], "horizon"),
        ([-0.1, 1.0], "covers"),
        ([1.0, 1.0], "increasing"),
        ([1.0, 0.5], "increasing"),
        ([np.nan], "finite"),
        ([[0.0, 1.0]], "times"),
        ([], "times"),
        ("soon", "times"),
    ],
)
def test_times_that_the_model_does_not_cover_are_refused(fitted, times, word):
    refuses(lambda: fitted.predict(times), word)


def test_the_horizon_is_covered_whatever_its_last_digit(fitted):
    """0.1 * 24 is a rounding error above 2.4; it is meant to be the horizon."""
    assert fitted.predict([1.0, 0.1 * 24], num_draws=1).sizes["time"] == 2


def test_seeds_decide_the_replicates_and_nothing_else(fitted, between):
    times = between["time"].to_numpy()
    xr.testing.assert_identical(fitted.predict(times), between)
    other = fitted.predict(times, seed=1)
    np.testing.assert_array_equal(other["mu"], between["mu"])
    assert not np.array_equal(other["counts"], between["counts"])


def test_replicates_scatter_around_the_populations(default):
    """Each of 78 z-scores exceeds 4.5 by chance 7 times in a million."""
    mu, counts = default["mu"].to_numpy(), default["counts"].to_numpy()
    assert default["counts"].dims == ("draw", "trajectory", "time", "observed_state")
    assert ((counts >= 0) & (counts <= SIZE)).all()
    z = (counts - SIZE * mu).sum(axis=0) / np.sqrt((SIZE * mu * (1 - mu)).sum(axis=0))
    assert np.abs(z).max() < 4.5
    assert 0.7 < z.std() < 1.3


def test_totals_are_the_sizes_behind_replicates(fitted):
    """Each of 12 z-scores exceeds 4.5 by chance 7 times in a million."""
    two = fitted.predict([1.0, 2.4], totals=[10, 1000])
    sizes = np.array([10, 1000])[:, None, None]
    mu, counts = two["mu"].to_numpy(), two["counts"].to_numpy()
    assert (counts <= sizes).all()
    assert np.abs((counts - sizes * mu).sum(axis=0) / np.sqrt((sizes * mu * (1 - mu)).sum(axis=0))).max() < 4.5
    one = fitted.predict([2.4], totals=7, num_draws=3)
    assert (one["counts"] <= 7).all()


@pytest.mark.parametrize(
    "totals",
    [
        -1,
        [1, 2, 3],
        np.nan,
        np.inf,
        "many",
    ],
    ids=str,
)
def test_bad_totals_are_refused(fitted, totals):
    refuses(lambda: fitted.predict([0.0], totals=totals, num_draws=1), "totals")


def test_some_draws_are_spread_evenly(fitted):
    few = fitted.predict([1.0], num_draws=5)
    chosen = np.linspace(0, DRAWS - 1, 5).round().astype(int)
    k = int(np.argmin(np.abs(GRID.times - 1.0)))
    np.testing.assert_allclose(few["mu"][:, :, 0], of_draws(fitted, "mu")[chosen][:, :, k], atol=1e-12)
    np.testing.assert_array_equal(few["draw"], chosen)  # as the posterior counts them, chain after chain


@pytest.mark.parametrize("num_draws", [0, -1, DRAWS + 1, 2.5])
def test_bad_numbers_of_draws_are_refused(fitted, num_draws):
    refuses(lambda: fitted.predict([0.0], num_draws=num_draws), "num_draws")


def test_new_initial_populations_start_where_they_are_told(model, fitted):
    start = np.array([0.1, 0.1, 0.8])
    fresh = fitted.predict([0.0, 1.0, 2.4], initial=start, num_draws=3)
    assert fresh.sizes["trajectory"] == 1
    np.testing.assert_allclose(fresh["mu"].sel(time=0.0).to_numpy(), np.broadcast_to(start, (3, 1, 3)), atol=1e-12)
    gamma = float(fitted.tree["posterior"]["gamma"].isel(chain=0, draw=0, time=0))
    np.testing.assert_allclose(fresh["mu"][0, 0, -1], solve(model.game, {"gamma": gamma}, start, GRID).mu[-1], atol=1e-9)
    assert 0.5 * SIZE < float(fresh["counts"].sel(observed_state="2").max()) <= SIZE


@pytest.fixture(scope="module")
def unequal():
    """Counts of two trajectories of different sizes."""
    rows = np.array([[4, 3, 3], [50, 25, 25]])
    seen = Population(GRID.times[:2], counts=np.stack([rows, rows], axis=1), trajectories=["north", "south"])
    model = Calibration(GAME, seen, {"gamma": dist.LogNormal(0.0, 1.0)}, Multinomial(), initial=STARTS, substeps=1)
    tree = assemble(model, np.zeros((1, 3, 1)), method="nuts", seed=0, wall_time=0.0, settings={}, prior_samples=0)
    return Fit(tree, model)


def test_sizes_of_new_trajectories_are_not_guessed(unequal):
    """Neither from as many fitted ones nor from the first; scores, which have the record's own sizes, do not ask."""
    for starts in (STARTS[0], STARTS, [*STARTS, STARTS[0]]):
        refuses(lambda starts=starts: unequal.predict([0.1], initial=starts), "totals is not given, .* 2 sizes, from 10 to 100")
    assert (unequal.predict([0.1], initial=STARTS, totals=[7, 9])["counts"].sum("observed_state") == [[[7], [9]]]).all()
    assert (unequal.predict([0.1])["counts"].sum("observed_state") == [[[10], [100]]]).all()
    assert scores(unequal, unequal.model.population, initial=STARTS)["failed_solves"][0] == 0


def test_draws_without_an_equilibrium_are_left_out_and_counted(fitted):
    fresh = fitted.predict([0.0, 1.0], initial=[[0.9, 0.05, 0.05], [0.2, 0.3, 0.5]])
    good = (fitted.tree["posterior"]["gamma"].isel(time=0) <= 1.5).to_numpy().ravel()
    assert 0 < good.sum() < DRAWS
    assert fresh.attrs["failed_solves"] == int((~good).sum())
    np.testing.assert_array_equal(fresh["draw"], np.flatnonzero(good))
    assert np.isfinite(fresh["mu"]).all()


@pytest.mark.parametrize(
    "initial",
    [
        [0.5, 0.5],
        [0.5, 0.6, 0.1],
        [-0.1, 0.6, 0.5],
        [np.nan, 0.5, 0.5],
        np.full((1, 1, 3), 1 / 3),
        "observed",
    ],
    ids=["short", "heavy", "negative", "nan", "deep", "word"],
)
def test_bad_initial_populations_are_refused(fitted, initial):
    refuses(lambda: fitted.predict([0.0], initial=initial, num_draws=1), "initial")


def test_a_fit_without_its_model_cannot_predict(fitted):
    refuses(lambda: Fit(fitted.tree).predict(), "model")


def test_multinomial_counts_can_be_predicted(model):
    """Replicates of a row add up to its total."""
    multinomial = Calibration(
        LinearQuadratic(), model.population, {"gamma": 1.5}, Multinomial(), initial=STARTS, substeps=1, method="picard"
    )
    draws = np.zeros((1, 2, 0))
    tree = assemble(multinomial, draws, method="point", seed=0, wall_time=0.0, settings={}, prior_samples=0)
    assert (tree["posterior_predictive"]["counts"].sum("state") == SIZE).all()
