"""Searches for a minimum: by Gauss-Newton where that serves, by BFGS where it creeps, and with solves that fail on the way."""

import numpy as np
import pytest

from bayes_mfg.inference import objective as searches
from bayes_mfg.inference.objective import CLOSE, Expanded

BEND = np.logspace(-1.0, 4.0, 40)
"""How fast the response bends in each direction."""


def misfitted(x, misfit=1.0):
    """Half the squares of `x - 1` and of a response that bends with `x` and never comes near its data; what Gauss-Newton sees of it is little."""
    apart = misfit + 0.5 * np.sum(BEND * x**2)
    jacobian = np.concatenate([np.eye(x.size), (BEND * x)[None]])
    value = 0.5 * np.sum((x - 1.0) ** 2) + 0.5 * apart**2
    return value, jacobian.T @ np.append(x - 1.0, apart), jacobian.T @ jacobian


def curvature(x, misfit=1.0):
    """All of it."""
    return misfitted(x, misfit)[2] + (misfit + 0.5 * np.sum(BEND * x**2)) * np.diag(BEND)


@pytest.mark.parametrize("slope", [None, lambda x: misfitted(x)[:2]], ids=["one function", "cheaper gradient"])
def test_a_search_ends_at_the_minimum_where_gauss_newton_creeps(slope, monkeypatch):
    begin = np.full(BEND.size, 0.5)
    search = Expanded(misfitted, slope)
    value, point, limited = search.minimise(begin, 500)
    _, gradient, _ = misfitted(point)
    assert search.crept and not limited and search.settled(point)
    assert np.sqrt(gradient @ np.linalg.solve(curvature(point), gradient)) < CLOSE
    # Without the other search it does not get there.
    monkeypatch.setattr(searches, "PATIENCE", 500)
    alone = Expanded(misfitted)
    worse, _, limited = alone.minimise(begin, 500)
    assert limited and worse > value and not alone.crept


def test_points_without_a_solution_turn_both_searches_back():
    begin = np.full(BEND.size, 0.5)
    best = Expanded(misfitted).minimise(begin, 500)[1]
    walls = []

    def walled(x):
        """No solution on the far side of a plane beyond the minimum."""
        beyond = np.sum(x) < np.sum(best) - 0.05
        walls.append(bool(beyond))
        return tuple(np.nan * part if beyond else part for part in misfitted(x))

    search = Expanded(walled, lambda x: walled(x)[:2])
    _, point, limited = search.minimise(begin, 500)
    assert search.settled(point) and not limited
    np.testing.assert_allclose(point, best, atol=1e-4)
    assert search.failures == sum(walls) > 0
    assert search.evaluations == len(walls)


def test_a_limit_of_steps_holds_for_both_searches_together():
    search = Expanded(misfitted)
    _, _, limited = search.minimise(np.full(BEND.size, 0.5), searches.PATIENCE + 3)
    assert limited and search.crept and not search.failed
