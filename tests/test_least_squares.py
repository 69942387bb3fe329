"""Protects the windowed least squares of arXiv 2606.23155: it finds gamma from exact data, ignores what is masked, and counts failed solves."""

import jax
import numpy as np
import pytest
from one_unknown import GAMMA, NOISE, Fragile, calibration, log_gamma, simulated

from bayes_mfg.data import Population
from bayes_mfg.inference import fit
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.paper import fit_paper


@pytest.fixture(scope="module")
def model():
    return calibration(simulated(noise="dirichlet", size=NOISE, seed=1))


def test_least_squares_recover_gamma_from_what_is_not_masked(model):
    exact = simulated()
    mask = np.random.default_rng(0).random(exact.shares.shape) < 0.6
    exact = Population(
        exact.times, exact.shares, states=exact.states, trajectories=exact.trajectories, mask=mask | (np.arange(11) == 0)[:, None]
    )
    found = fit_paper(model.with_population(exact), epochs=400, learning_rate=0.03, window=0.5, held_out=0.0, patience=None)
    assert np.exp(found.location[0]) == pytest.approx(GAMMA, abs=1e-2)
    assert found.history.shape == (1, 400)
    assert found.history[0, -50:].mean() < 0.01 * found.history[0, :5].mean()
    assert found.loss == found.checks.min()
    assert found.loss < 1e-6
    assert found.skipped[0] == 0


@pytest.mark.slow
def test_a_point_fit_with_the_papers_objective_keeps_loss_and_epochs(model):
    exact = model.with_population(simulated())
    result = fit(
        exact,
        method="point",
        objective="paper",
        epochs=400,
        learning_rate=0.03,
        batch=1,
        held_out=0.0,
        patience=None,
        prior_samples=0,
    )
    assert float(np.exp(log_gamma(result))[0, 0]) == pytest.approx(GAMMA, abs=1e-2)
    assert '"epochs": 400' in result.tree.attrs["inference"]
    assert '"skipped_updates": 0' in result.tree.attrs["inference"]


@pytest.mark.slow
def test_least_squares_skip_and_count_updates_without_an_equilibrium():
    """The data ask for a gamma beyond the limit: the steps go over it, and the best that was solved is kept."""
    model = calibration(simulated(3.0), Fragile(2.0))
    seed = next(s for s in range(20) if float(coordinates(model).draw_prior(jax.random.key(s))["gamma/value"]) < 1.8)
    found = fit_paper(model, seed=seed, epochs=60, learning_rate=0.2, held_out=0.0, patience=None)
    assert 0 < found.skipped[0] < 60
    assert np.exp(found.location[0]) <= 2.0
    assert np.isfinite(found.loss)
