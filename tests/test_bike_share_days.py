"""Protects benchmarks/bike_share.py: all scores of a row are of one forecast."""

import numpy as np
import pytest

from bayes_mfg.data import Population
from bayes_mfg.inference.scores import covered
from benchmarks import bike_share
from benchmarks.bike_share import SETS, crps_of_members, divided, plain_rows, regressed


@pytest.mark.parametrize("name", ["persistence", "historical"])
def test_errors_and_bands_of_plain_forecasts_are_of_one_ensemble(name):
    """Days that all climb alike: the ensemble knows the next one exactly, and errors and CRPS say both that it does."""
    climb = np.array([0.0, 0.1, 0.25])
    offsets = {"training": (0.1, 0.2, 0.3), "weekdays": (0.4,), "weekends": (0.2,)}
    if name == "historical":  # which knows no offset
        offsets = dict.fromkeys(SETS, (0.2, 0.2, 0.2))
    sets = {}
    for part, starts in offsets.items():
        first = np.array(starts)[:, None] + climb
        days = [f"{part} {number}" for number in range(len(starts))]
        sets[part] = Population([0.0, 1.0, 2.0], proportions=np.stack([first, 1 - first], axis=-1), trajectories=days)
    rows = plain_rows(name, sets)
    assert [row["day"] for row in rows] == [day for part in sets.values() for day in part.trajectories]
    for row in rows:
        assert row["crps"] == pytest.approx(0.0, abs=1e-15)
        assert row["mu_error"] == pytest.approx(0.0, abs=1e-15)
        assert row["relative_error"] == pytest.approx(0.0, abs=1e-15)


def scattered(part, count, seed):
    """Days of three shares at four times around one course, and what is left to say about them."""
    rng = np.random.default_rng(seed)
    course = np.array([[0.5, 0.3, 0.2], [0.4, 0.3, 0.3], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]])
    shares = np.array([[rng.dirichlet(200 * row) for row in course] for _ in range(count)])
    return Population(np.arange(4.0), proportions=shares, trajectories=[f"{part} {number}" for number in range(count)])


@pytest.fixture(scope="module")
def sets():
    return {part: scattered(part, count, seed) for seed, (part, count) in enumerate(zip(SETS, (40, 25, 10), strict=True))}


def test_training_days_are_left_out_of_what_predicts_them(sets):
    rows = [row for row in plain_rows("historical", sets) if row["set"] == "training"]
    past = sets["training"].shares
    for number, row in enumerate(rows):
        others = np.array([day for k, day in enumerate(past) if k != number])
        error = np.mean([np.sum((others[:, t].mean(axis=0) - past[number, t]) ** 2) for t in range(4)])
        assert row["mu_error"] == pytest.approx(error)


def test_bands_of_a_right_ensemble_hold_what_they_say(sets):
    """Held-out days are drawn as the training days are: 25 days of 9 cells, of which rows are independent."""
    rows = [row for row in plain_rows("historical", sets) if row["set"] == "weekdays"]
    assert np.mean([row["coverage50"] for row in rows]) == pytest.approx(0.5, abs=0.12)
    assert np.mean([row["coverage90"] for row in rows]) == pytest.approx(0.9, abs=0.08)


def test_few_members_hold_what_they_say():
    rng = np.random.default_rng(0)
    members, truth = rng.standard_normal((19, 20_000)), rng.standard_normal(20_000)
    for level in (0.5, 0.9):
        assert covered(members, truth, level).mean() == pytest.approx(level, abs=0.012)


def test_crps_of_members_is_that_of_their_step_function():
    members, truth = np.array([[0.1], [0.4], [0.45]]), np.array([0.3])
    x = np.linspace(-1.0, 2.0, 300_001)
    steps = (x[:, None] >= members[:, 0]).mean(axis=1) - (x >= truth[0])
    assert crps_of_members(members, truth)[0] == pytest.approx(np.trapezoid(steps**2, x), abs=1e-4)


def test_regression_is_ridge_with_errors_of_days_left_out(sets, monkeypatch):
    """One weight, and every day left out by fitting anew."""
    monkeypatch.setattr(bike_share, "WEIGHTS", np.array([0.3]))
    days = sets["training"].shares[:12]
    first = np.array([0.5, 0.25, 0.25])
    spread = np.mean(np.var(days[:, 0], axis=0)) * len(days)

    def ridge(x, y, at):
        # The mean is not shrunk: a penalty that spares the first column.
        design = np.column_stack([np.ones(len(x)), x])
        penalty = 0.3 * spread * np.diag([0.0, 1.0, 1.0, 1.0])
        return np.r_[1.0, at] @ np.linalg.solve(design.T @ design + penalty, design.T @ y)

    x, y = days[:, 0], days.reshape(12, -1)
    errors = np.array([y[k] - ridge(np.delete(x, k, 0), np.delete(y, k, 0), x[k]) for k in range(12)])
    right = (ridge(x, y, first) + errors - errors.mean(axis=0)).reshape(days.shape)
    made = regressed(days, first)
    np.testing.assert_allclose(made[:, 1:], right[:, 1:], rtol=1e-8)
    np.testing.assert_array_equal(made[:, 0], np.tile(first, (12, 1)))


def test_training_days_are_the_first_weekdays_and_nothing_else(monkeypatch):
    names = [f"2024-09-{day:02d}" for day in range(2, 16)]
    kinds = ["weekday" if day < 5 else "weekend" for day in [0, 1, 2, 3, 4, 5, 6] * 2]
    shares = np.full((14, 2, 2), 0.5)
    every = Population([0.0, 1.0], proportions=shares, trajectories=names)
    monkeypatch.setattr(
        bike_share.bm.data, "days_of", lambda _, kind: tuple(name for name, own in zip(names, kinds, strict=True) if own == kind)
    )
    parts = divided(every)
    assert parts["training"].trajectories == tuple(name for name, kind in zip(names, kinds, strict=True) if kind == "weekday")[:7]
    assert not set(parts["training"].trajectories) & set(parts["weekdays"].trajectories)
    assert set(parts["weekends"].trajectories) == {name for name, kind in zip(names, kinds, strict=True) if kind == "weekend"}
