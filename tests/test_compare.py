"""Protects comparisons: the model that made the data is preferred where it matters, equals are undecided, and unlike fits are refused."""

import re

import arviz as az
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from relaxing import GAMMA, TIMES, Relaxing, given, simulated

from bayes_mfg.data import Population, simulate
from bayes_mfg.equilibrium import TimeGrid
from bayes_mfg.errors import InputError
from bayes_mfg.games import ForwardDynamics, LinearQuadratic
from bayes_mfg.inference import Fit, compare, fit, loo
from bayes_mfg.models import Binomial, Calibration, Dirichlet, Gaussian, Multinomial

STARTS = np.array([[0.2, 0.35, 0.45], [0.6, 0.25, 0.15], [0.25, 0.6, 0.15], [0.15, 0.25, 0.6]])
SCALE = 0.04


def posterior(population=None, gamma=GAMMA, seed=0, observation=None, initial=STARTS, **options):
    """Draws around a given gamma."""
    population = population or DATA
    model = Relaxing(population, observation or Gaussian(scale=SCALE), initial=initial, **options)
    draws = np.log(gamma) + 0.05 * np.random.default_rng(seed).standard_normal((400, 1))
    return given(model, draws)


DATA = simulated("gaussian", SCALE, seed=1, starts=STARTS)


@pytest.fixture(scope="module")
def right():
    return posterior()


@pytest.fixture(scope="module")
def wrong():
    return posterior(gamma=0.5, seed=1)


# The table.


@pytest.mark.parametrize("by", ["trajectory", "time", "observation"])
def test_the_table_is_that_of_arviz(right, wrong, by):
    table = compare({"wrong": wrong, "right": right}, by)
    theirs = az.compare({"wrong": loo(wrong, by), "right": loo(right, by)}, round_to="none")
    assert list(table.index) == list(theirs.index) == ["right", "wrong"]
    for name in ("rank", "elpd_diff", "dse", "p", "elpd", "se"):
        np.testing.assert_allclose(table[name].astype(float), theirs[name].astype(float), rtol=1e-9)
    # ArviZ's weights where densities are too large for exponentials are not its own.
    assert table["weight"]["right"] > 0.9 and table["weight"].sum() == pytest.approx(1.0, abs=1e-6)
    assert table.attrs["n_units"] == loo(right, by).n_data_points
    difference = loo(wrong, by).elpd_i.to_numpy() - loo(right, by).elpd_i.to_numpy()
    assert table["elpd_diff"]["wrong"] == pytest.approx(difference.sum(), rel=1e-9)
    assert table["dse"]["wrong"] == pytest.approx(np.sqrt(len(difference)) * difference.std(), rel=1e-9)


def test_densities_of_whole_trajectories_do_not_overflow():
    """exp(elpd) of one trajectory is beyond the largest number: 330 shares of scale 1e-4."""
    times = np.linspace(0.0, 2.0, 111)
    mu = np.array([0.5, 0.3, 0.2]) + (STARTS[:, None] - [0.5, 0.3, 0.2]) * np.exp(-GAMMA * times)[:, None]
    exact = Population(times, proportions=mu)
    pair = {name: posterior(exact, gamma=g, observation=Gaussian(scale=1e-2)) for name, g in (("right", GAMMA), ("wrong", 1.0))}
    assert loo(pair["right"], "trajectory").elpd_i.min() > 710
    table = compare(pair)
    assert table["weight"]["right"] == pytest.approx(1.0, abs=1e-3) and np.isfinite(table["elpd"]).all()
    for method in ("pseudo-bma", "BB-pseudo-BMA"):
        assert compare(pair, method=method)["weight"]["right"] == pytest.approx(1.0, abs=1e-3)


def test_observations_that_are_constants_count_where_they_differ(right):
    """The other fit starts elsewhere: its first observations are less probable, in every draw the same."""
    elsewhere = np.roll(STARTS, 1, axis=1)
    other = posterior(initial=elsewhere)
    table = compare({"right": right, "elsewhere": other})
    first = (
        scipy.stats.norm.logpdf(DATA.shares[:, 0], STARTS, SCALE),
        scipy.stats.norm.logpdf(DATA.shares[:, 0], elsewhere, SCALE),
    )
    later = loo(right, "trajectory").elpd - loo(other, "trajectory").elpd
    assert -table["elpd_diff"]["elsewhere"] == pytest.approx(later + first[0].sum() - first[1].sum(), rel=1e-9)
    with pytest.raises(InputError, match="without its model"):
        compare({"right": Fit(right.tree), "elsewhere": Fit(other.tree)})
    # Where they are the same no model is needed.
    assert compare({"a": Fit(right.tree), "b": Fit(right.tree)})["elpd_diff"].abs().max() == 0.0


def test_equals_are_undecided(right):
    """Two sets of draws of one posterior: what is left is the draws' own error."""
    pair = {"one": right, "two": posterior(seed=2)}
    assert compare(pair)["elpd_diff"].abs().max() < 0.2
    # Stacking may give either everything: its optimum is flat. Weights by differences and their errors may not.
    for method in ("pseudo-bma", "BB-pseudo-BMA"):
        np.testing.assert_allclose(compare(pair, method=method)["weight"], 0.5, atol=0.05)


def test_order_of_trajectories_and_states_makes_no_difference(right, wrong):
    turned = DATA.select(["3", "1", "0", "2"])
    model = Relaxing(turned, Gaussian(scale=SCALE), initial=STARTS[[3, 1, 0, 2]])
    other = given(model, wrong.tree["unconstrained_posterior"]["latent"].to_numpy()[0])
    for by in ("trajectory", "observation"):
        again, before = compare({"right": right, "other": other}, by), compare({"right": right, "other": wrong}, by)
        np.testing.assert_allclose(
            again[["elpd_diff", "dse", "elpd"]].astype(float), before[["elpd_diff", "dse", "elpd"]].astype(float), rtol=1e-9
        )


# Refusals.


def changed(**change):
    shares = DATA.shares.copy()
    shares[1, 2, [0, 1]] += [0.01, -0.01]
    return {
        "value": lambda: posterior(Population(TIMES, proportions=shares)),
        "name": lambda: posterior(Population(TIMES, proportions=DATA.shares, trajectories=["0", "1", "2", "x"])),
        "times": lambda: posterior(DATA.until(1.0)),
        "counts": lambda: posterior(simulated("multinomial", 50, seed=1, starts=STARTS), observation=Multinomial()),
        "rows": lambda: posterior(observation=Dirichlet(noise=1e-2)),
        "start": lambda: posterior(initial="observed"),
    }


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("value", "trajectory 1, time 0.4, state 0"),
        ("name", "only one of them has the trajectory 3"),
        ("times", "only one of them has the time 1.2"),
        ("counts", "proportions and of counts"),
        ("rows", "single states and of whole rows"),
        ("start", "density for 0, 0, 0"),
    ],
)
def test_fits_of_different_things_are_refused(right, kind, words):
    with pytest.raises(InputError) as error:
        compare({"one": right, "two": changed()[kind]()})
    text = str(error.value)
    assert words in text and "'one' and 'two'" in text
    assert "\n" not in text and text.endswith(".") and not re.search(r"[.!?]\s+[A-Z]", text)


def test_totals_are_part_of_the_data():
    counted = simulated("multinomial", 50, seed=1, starts=STARTS)
    mask = np.ones(counted.counts.shape, bool)
    mask[..., 2] = False
    pair = [
        posterior(Population(TIMES, counts=counted.counts, totals=n, mask=mask), observation=Binomial(states=["0", "1"]))
        for n in (50, 51)
    ]
    with pytest.raises(InputError, match="totals behind"):
        compare(dict(zip("ab", pair, strict=True)))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda f: compare({"one": f}), "at least two"),
        (lambda f: compare([f, f]), "dict"),
        (lambda f: compare({"one": f, "two": 2}), "'two'"),
        (lambda f: compare({"one": f, "two": f}, by="state"), "observation, trajectory, time"),
        (lambda f: compare({"one": f, "two": f}, method="best"), "stacking"),
    ],
)
def test_what_cannot_be_compared_is_refused(right, call, word):
    with pytest.raises(InputError, match=word):
        call(right)


# Games against forward dynamics.

GRID = TimeGrid(horizon=2.0, points=11)
PRIOR = {"gamma": dist.LogNormal(0.0, 2.0)}
SETTINGS = {"num_chains": 2, "num_samples": 500, "prior_samples": 0, "progress": False}


def game_data(gamma):
    return simulate(LinearQuadratic(), {"gamma": gamma}, STARTS, GRID, noise="dirichlet", size=1e-2, seed=1)


@pytest.fixture(scope="module")
def calibrated():
    """Two models of the same data and priors, with foresight and without."""
    options = {"observation": Dirichlet(noise=1e-2), "initial": STARTS, "substeps": 1, "method": "anderson"}
    games = {"game": LinearQuadratic(), "forward": ForwardDynamics(LinearQuadratic())}
    return {name: Calibration(game, game_data(1.5), PRIOR, **options) for name, game in games.items()}


@pytest.fixture(scope="module")
def strategic(calibrated):
    return {name: fit(model, seed=0, **SETTINGS) for name, model in calibrated.items()}


@pytest.mark.long
@pytest.mark.slow
def test_the_game_that_made_the_data_is_preferred(strategic):
    table = compare(strategic)
    assert list(table.index) == ["game", "forward"]
    assert -table["elpd_diff"]["forward"] > 4 * table["dse"]["forward"] > 0
    assert table["weight"]["game"] > 0.9


@pytest.mark.slow
def test_where_the_game_hardly_matters_it_is_undecided(calibrated):
    """Moves that cost a thousand times as much: agents hardly respond, and the game's populations are those of forward dynamics."""
    same = game_data(1000.0)
    table = compare({name: fit(model.with_population(same), seed=0, **SETTINGS) for name, model in calibrated.items()}, by="time")
    assert abs(table["elpd_diff"].iloc[1]) < 2 * table["dse"].iloc[1] + 0.1


@pytest.mark.slow
def test_by_trajectory_the_game_agrees_with_exact_refits(strategic):
    """Four refits of 1,000 draws; both estimates have standard errors of a few hundredths."""
    one = strategic["game"]
    result, model = loo(one, "trajectory"), one.model
    for r, name in enumerate(model.population.trajectories):
        mask = np.ones(model.population.mask.shape, bool)
        mask[r] = False
        shares = np.where(mask, model.population.shares, 0.0)
        rest = Population(
            GRID.times, proportions=shares, mask=mask, states=model.population.states, trajectories=model.population.trajectories
        )
        again = fit(model.with_population(rest), seed=1, **SETTINGS)
        exact = from_draws(again, model, r)
        assert abs(float(result.elpd_i.sel(trajectory=name)) - exact) < 0.2
    blocks = loo(one, "time", blocks=4)
    for b in range(4):
        mask = np.ones(model.population.mask.shape, bool)
        mask[
            :, (GRID.times >= float(blocks.elpd_i["start"][b]) - 1e-9) & (GRID.times <= float(blocks.elpd_i["stop"][b]) + 1e-9)
        ] = False
        shares = np.where(mask, model.population.shares, 0.0)
        rest = Population(
            GRID.times, proportions=shares, mask=mask, states=model.population.states, trajectories=model.population.trajectories
        )
        again = fit(model.with_population(rest), seed=1, **SETTINGS)
        if float(blocks.pareto_k[b]) < blocks.good_k:
            assert abs(float(blocks.elpd_i[b]) - from_draws(again, model, ~mask[..., 0])) < 0.2


def from_draws(again, model, which):
    """Log of the mean over draws of the density of a trajectory, or of rows, from the populations that the fit kept; the first time left out."""
    mu = again.tree["posterior"]["mu"].to_numpy().reshape(-1, *model.population.shares.shape)
    rows = np.zeros(mu.shape[1:3], bool)
    rows[which] = True
    rows[:, 0] = False
    alpha = mu[:, rows] / 1e-2
    log = scipy.special.gammaln(alpha.sum(-1)) - scipy.special.gammaln(alpha).sum(-1)
    log = (log + ((alpha - 1) * np.log(model.population.shares[rows])).sum(-1)).sum(-1)
    return scipy.special.logsumexp(log) - np.log(len(log))
