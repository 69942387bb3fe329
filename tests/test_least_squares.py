"""Protects the windowed least squares of arXiv 2606.23155: it finds gamma from exact data, ignores what is masked, and counts failed solves.

Both fits share one model, and so one program; explicit Euler compiles in half the time.
"""

import jax
import numpy as np
import pytest
from one_unknown import GAMMA, STARTS, Fragile, calibration

from bayes_mfg.data import Population, simulate
from bayes_mfg.equilibrium import TimeGrid
from bayes_mfg.games import LinearQuadratic
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.paper import fit_paper

LIMIT, SUBSTEPS = 2.0, 4
EULER = {"scheme": "paper", "method": "anderson"}


def simulated(gamma=GAMMA):
    return simulate(LinearQuadratic(), {"gamma": gamma}, STARTS, TimeGrid(2.0, 11, substeps=SUBSTEPS), **EULER)


@pytest.fixture(scope="module")
def model():
    return calibration(simulated(), Fragile(LIMIT), substeps=SUBSTEPS, **EULER)


@pytest.fixture(scope="module")
def seed(model):
    """One whose start has an equilibrium: below the limit, and no steps of Euler that leave the simplex."""
    starts = (float(coordinates(model).draw_prior(jax.random.key(s))["gamma/value"]) for s in range(20))
    return next(s for s, start in enumerate(starts) if 0.9 < start < 1.8)


def test_least_squares_recover_gamma_from_what_is_not_masked(model, seed):
    """Nothing is held out: the loss of all trajectories decides, over the whole horizon."""
    exact = simulated()
    mask = np.random.default_rng(0).random(exact.shares.shape) < 0.6
    mask |= (np.arange(11) == 0)[:, None]
    exact = Population(exact.times, exact.shares, states=exact.states, trajectories=exact.trajectories, mask=mask)
    options = {"seed": seed, "learning_rate": 0.03, "window": 0.5, "held_out": 0.0, "patience": None}
    found = fit_paper(model.with_population(exact), epochs=400, **options)
    assert np.exp(found.location[0]) == pytest.approx(GAMMA, abs=1e-2)
    assert not found.held_out.size
    assert found.history.shape == (1, 400)
    assert found.history[0, -50:].mean() < 0.01 * found.history[0, :5].mean()
    assert found.loss == found.checks.min()
    assert found.loss < 1e-6
    assert found.skipped[0] == 0
    early = fit_paper(model.with_population(exact), epochs=2, **options)
    squared = np.where(mask, (simulated(np.exp(early.location[0])).shares - exact.shares) ** 2, 0.0)
    assert early.loss == pytest.approx(squared.sum() / mask.any(axis=-1).sum(), rel=1e-6)


def test_least_squares_skip_and_count_updates_without_an_equilibrium(model, seed):
    """The data ask for a gamma beyond the limit: the steps go over it, and the best that was solved is kept."""
    beyond = model.with_population(simulated(3.0))
    found = fit_paper(beyond, seed=seed, epochs=60, learning_rate=0.2, window=0.5, held_out=0.0, patience=None)
    assert 0 < found.skipped[0] < 60
    assert np.exp(found.location[0]) <= LIMIT
    assert np.isfinite(found.loss)
