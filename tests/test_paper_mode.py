"""Protects the paper's point-estimate mode: seeds at once, windows, held-out trajectories, early stopping, the best checkpoint.

The fits share two models and one shape of everything, because most of a test's time is compilation.
"""

import json

import jax
import numpy as np
import numpyro.distributions as dist
import pytest

from bayes_mfg.data import Population, simulate
from bayes_mfg.equilibrium import TimeGrid
from bayes_mfg.errors import InputError
from bayes_mfg.games import LinearQuadratic
from bayes_mfg.inference import fit, paper
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.paper import fit_paper
from bayes_mfg.models import Calibration, Gaussian
from bayes_mfg.paths import Constant, Neural

GAMMA = 1.55
GRID = TimeGrid(horizon=2.0, points=21)
STARTS = np.random.default_rng(0).dirichlet(np.ones(3), 12)
SMALL = {"batch": 4, "window": 0.2}
LENGTH = 4


def population(gamma=GAMMA, **noise):
    return simulate(LinearQuadratic(), {"gamma": gamma}, STARTS, GRID, scheme="paper", method="anderson", **noise)


def altered(old, shares):
    return Population(old.times, shares, states=old.states, trajectories=old.trajectories)


def calibration(path, data, **options):
    options = {"initial": STARTS, "scheme": "paper", "method": "anderson", "substeps": 1, **options}
    return Calibration(LinearQuadratic(), data, {"gamma": path}, options.pop("observation", Gaussian(0.01)), **options)


def gamma_at(model, flat):
    """Gamma of a constant path."""
    space = coordinates(model)
    raw = space.latents(space.constrain(flat), model.data)["raw"]["gamma"]
    return float(model.bound["gamma"].function(raw, None)(0.0, STARTS[0]))


@pytest.fixture(scope="module")
def network():
    return calibration(Neural.published(width=8), population(noise="dirichlet", size=1e-2, seed=1))


@pytest.fixture(scope="module")
def constant():
    return calibration(Constant(), population())


def test_seeds_at_once_are_the_single_runs(network):
    together = fit_paper(network, seed=3, seeds=2, epochs=6, learning_rate=0.01, **SMALL)
    for k in range(2):
        alone = fit_paper(network, seed=3 + k, epochs=6, learning_rate=0.01, **SMALL)
        np.testing.assert_allclose(alone.history[0], together.history[k], rtol=0, atol=1e-10)
        np.testing.assert_allclose(alone.checks[0], together.checks[k], rtol=0, atol=1e-10)
        np.testing.assert_allclose(alone.location, together.locations[k], rtol=0, atol=1e-10)
        assert alone.loss == pytest.approx(together.losses[k], abs=1e-10)
    assert not np.allclose(together.locations[0], together.locations[1])
    assert together.best == np.argmin(together.losses)
    assert together.loss == together.losses[together.best]
    np.testing.assert_array_equal(together.location, together.locations[together.best])


def test_a_seed_stops_when_its_held_out_loss_no_longer_falls_and_keeps_its_best_checkpoint(network):
    """Noise leaves a floor to the loss; each of two seeds stops by itself, and after that neither its losses nor its end change."""
    options = {"seed": 3, "learning_rate": 0.03, **SMALL}
    together = fit_paper(network, seeds=2, epochs=300, patience=4, **options)
    assert (together.stopped_after < 300).all()
    assert together.checks.shape == (2, together.stopped_after.max())
    for k, stop in enumerate(together.stopped_after):
        checks = together.checks[k]
        assert np.isfinite(checks[:stop]).all() and np.isnan(checks[stop:]).all()
        assert together.losses[k] == checks[:stop].min()
        assert stop == np.argmin(checks[:stop]) + 1 + 4
        assert np.isnan(together.history[k, stop:]).all()
    # The checkpoint is where the run stood at its lowest loss.
    first = int(np.nanargmin(together.checks[0])) + 1
    short = fit_paper(network, epochs=first, patience=None, **options)
    np.testing.assert_allclose(short.location, together.locations[0], rtol=0, atol=1e-8)
    assert short.stopped_after[0] == first


def test_a_seed_that_has_lost_all_equilibria_goes_back_to_find_them(network):
    """The first steps of this seed are so long that explicit Euler on 21 points has no equilibrium there: without a gradient it would stay."""
    found = fit_paper(network, seed=5, epochs=12, learning_rate=0.1, patience=None, **SMALL)
    lost = np.isnan(found.history[0])
    assert lost.any()
    assert np.isfinite(found.checks[0, -1])
    # Two updates an epoch.
    assert 2 * lost.sum() <= found.skipped[0] < 24
    assert found.loss == np.nanmin(found.checks)


def test_without_patience_all_epochs_are_run(constant):
    found = fit_paper(constant, epochs=30, learning_rate=0.5, patience=None, **SMALL)
    assert found.stopped_after[0] == 30
    assert np.argmin(found.checks[0]) < 29


def test_data_of_held_out_trajectories_enter_no_gradient(network):
    """Other data there change what is measured, and nothing of the training."""
    options = {"seed": 2, "epochs": 5, "learning_rate": 0.01, **SMALL}
    found = fit_paper(network, **options)
    assert found.held_out.shape == (1,)
    shares = network.population.shares.copy()
    shares[found.held_out] = shares[found.held_out][..., ::-1]
    other = fit_paper(network.with_population(altered(network.population, shares)), **options)
    np.testing.assert_array_equal(found.held_out, other.held_out)
    np.testing.assert_array_equal(found.history, other.history)
    assert (found.checks != other.checks).all()
    # The data of the others do enter.
    shares = network.population.shares.copy()
    trained = np.setdiff1d(np.arange(12), found.held_out)
    shares[trained] = shares[trained][..., ::-1]
    other = fit_paper(network.with_population(altered(network.population, shares)), **options)
    assert (found.history != other.history).all()


def test_windows_have_the_length_asked_for(constant):
    """Data that the start explains but for one time: a window's loss is zero without that time, else the error there over the length."""
    space = coordinates(constant)
    starts = (gamma_at(constant, space.unconstrain(space.draw_prior(jax.random.key(seed)))) for seed in range(20))
    # Below that, explicit Euler leaves the simplex.
    seed, start = next((seed, start) for seed, start in enumerate(starts) if start > 1.2)
    exact = population(start)
    shares = exact.shares.copy()
    shares[:, 10] += [0.01, -0.01, 0.0]
    epochs, steps = 60, 2
    found = fit_paper(
        constant.with_population(altered(exact, shares)), seed=seed, epochs=epochs, learning_rate=0.0, patience=None, **SMALL
    )
    hits = found.history[0] / (2e-4 / LENGTH) * steps
    np.testing.assert_allclose(hits, np.round(hits), atol=1e-6)
    assert set(np.round(hits).astype(int)) == {0, 1, 2}
    # 18 places, 4 of which hold the time: 4 sds of a binomial count, a false alarm in 16,000 seeds.
    expected = LENGTH / (21 - LENGTH + 1)
    assert abs(hits.mean() / steps - expected) < 4 * np.sqrt(expected * (1 - expected) / (epochs * steps))
    assert found.loss == pytest.approx(2e-4 / 21, rel=1e-6)


def test_a_constant_path_recovers_gamma_from_exact_data(constant):
    found = fit_paper(constant, epochs=500, learning_rate=0.05, patience=None, **SMALL)
    assert gamma_at(constant, found.location) == pytest.approx(GAMMA, abs=1e-3)


def test_what_is_held_out_is_drawn_once_and_spares_trajectories_without_data(constant):
    weights = np.ones((12, 21, 3))
    weights[[0, 7]] = 0.0
    for share, count in ((0.0, 0), (0.01, 1), (0.1, 1), (0.5, 5), (0.99, 9)):
        train, held = paper._split(constant, weights, share)
        assert len(held) == count
        np.testing.assert_array_equal(np.sort([*train, *held]), [1, 2, 3, 4, 5, 6, 8, 9, 10, 11])
    assert not len(paper._split(constant, weights[:1] + 1, 0.5)[1])
    # The start of a held-out trajectory would never be fitted.
    unknown = calibration(Constant(), population(), initial=None)
    assert not len(paper._split(unknown, weights, 0.5)[1])


def test_what_does_not_enter_the_populations_starts_at_its_prior_median():
    model = calibration(Neural.published(width=3), population(), observation=Gaussian(scale=dist.LogNormal(-4.0, 1.0)))
    space = coordinates(model)
    keys = jax.numpy.stack([jax.random.key(k) for k in range(2)])
    median = space.prior_median()
    points = np.asarray(paper._initial_points(model, space, keys, median))
    own = [k for k, name in enumerate(space.names) if name.split("/")[0] != "gamma"]
    assert own
    np.testing.assert_array_equal(points[:, own], np.tile(median[own], (2, 1)))
    rest = np.setdiff1d(np.arange(space.size), own)
    np.testing.assert_array_equal(points[1, rest], np.asarray(space.unconstrain(space.draw_prior(keys[1])))[rest])


@pytest.mark.parametrize(
    "option",
    [
        {"seeds": 0},
        {"seeds": 1.5},
        {"seeds": True},
        {"held_out": 1.0},
        {"held_out": -0.1},
        {"held_out": "none"},
        {"held_out": True},
        {"held_out": float("nan")},
        {"held_out": None},
        {"patience": 0},
        {"patience": 2.5},
        {"patience": "long"},
        {"folds": 3},
    ],
    ids=str,
)
def test_options_are_refused_in_one_sentence(constant, option):
    with pytest.raises(InputError, match=next(iter(option))) as error:
        fit(constant, method="point", objective="paper", **option)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_fit_with_several_seeds_keeps_the_best_and_says_how_far_they_lie_apart(network):
    """Ten epochs leave the seeds apart, which is told as a warning."""
    options = {"seeds": 2, "epochs": 10, "patience": None, **SMALL}
    result = fit(network, method="point", objective="paper", prior_samples=0, **options)
    found = fit_paper(network, **options)
    told = json.loads(result.tree.attrs["inference"])
    assert result.tree["posterior"].sizes["draw"] == result.tree["posterior"].sizes["chain"] == 1
    assert told["seeds"] == 2
    assert told["epochs"] == 10
    assert told["skipped_updates"] == found.skipped.sum()
    assert told["losses"] == pytest.approx(found.losses)
    assert told["loss"] == told["held_out_loss"] == pytest.approx(min(found.losses))
    assert told["best_seed"] == found.best
    assert told["stopped_after"] == [10, 10]
    assert told["held_out"] == [network.population.trajectories[found.held_out[0]]]
    paths = paper.paths_of_seeds(network, found)["gamma"]
    assert paths.shape == (2, 12, 21)
    np.testing.assert_allclose(paths[found.best], result.tree["posterior"]["gamma"].to_numpy()[0, 0], rtol=1e-8)
    apart = np.linalg.norm(paths.std(axis=0, ddof=1)) / np.linalg.norm(paths.mean(axis=0))
    assert told["seed_spread"]["gamma"] == pytest.approx(apart)
    assert apart > 0.1
    assert any("from 2 seeds differ by" in sentence for sentence in result.warnings)
