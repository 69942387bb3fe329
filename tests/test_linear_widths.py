"""Protects the comparison of linearised widths with those of draws: right where all is linear, and told where they differ."""

import dataclasses
import importlib

import numpy as np
import pytest
from linear_model import Linear, population, posterior

import bayes_mfg as bm
from bayes_mfg.errors import InputError
from bayes_mfg.inference import FitError, LinearWidths, linear_widths

MODULE = importlib.import_module("bayes_mfg.inference.linear_widths")


@pytest.fixture(scope="module")
def fit():
    """Beside the two constants a path that no population shows: its posterior is its prior."""
    paths = {"a": bm.paths.Constant(), "b": bm.paths.Constant(), "c": bm.paths.PiecewiseConstant(knots=2)}
    return bm.inference.fit(
        Linear(population(), paths=paths),
        num_chains=2,
        num_warmup=200,
        num_samples=2000,
        seed=0,
        starts=1,
        prior_samples=0,
        progress=False,
    )


def test_in_a_linear_model_they_are_the_same(fit):
    """4,000 draws: an sd is right to 1.5 %, and 8 % is beyond 5 standard errors."""
    found = linear_widths(fit)
    assert found.paths == ("c",)
    exact = np.sqrt(np.diag(posterior(population())[1]))
    for name, sd in zip(("a", "b"), exact, strict=True):
        assert float(found.linear[name]) == pytest.approx(sd, rel=1e-5)
        assert float(found.drawn[name]) == pytest.approx(sd, rel=0.08)
        assert 0.005 < float(found.error[name]) < 0.03
        assert found.agrees(name).all()
    same = "the linearised sd is that of the draws within 10 %"
    assert found.sentences == [f"a: {same}.", f"b: {same}.", f"c: {same} at all times."]
    assert list(found.table().index) == ["a", "b", "c"] and (found.table()["share"] == 1.0).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda mode: {"converged": False}, "the search ended with a gradient"),
        (lambda mode: {"flat": 1}, "flat or negative in 1 directions"),
        (lambda mode: {"location": mode.location + 9.0 * (np.arange(mode.location.size) == 1)}, "it has b/level at 8"),
        (lambda mode: {"potential": 1e3}, "most of these have a higher density"),
    ],
)
def test_a_mode_that_is_not_that_of_the_draws_is_refused(fit, monkeypatch, changed, message):
    mode = MODULE.find_mode(fit.model, starts=1)
    monkeypatch.setattr(MODULE, "find_mode", lambda *_, **options: dataclasses.replace(mode, **changed(mode)))
    with pytest.raises(FitError, match=f"no mode was found near the draws; .*{message}"):
        linear_widths(fit)


def test_a_vector_of_as_many_entries_as_there_are_times_is_no_path():
    vector = {"rates": np.array([0.5, 1.0, 1.0])}
    found = LinearWidths(np.arange(3.0), vector, {"rates": np.ones(3)}, {"rates": np.full(3, 0.01)})
    assert found.sentences == ["rates: the linearised sd is 0.5, 1 and 1 of that of the draws."]


def test_where_they_differ_is_told():
    times = np.array([0.0, 1.0, 2.0, 3.0])
    found = LinearWidths(
        times,
        {"gamma": np.array([0.5, 0.8, 1.05, 1.2]), "noise": np.array(0.7)},
        {"gamma": np.ones(4), "noise": np.array(1.0)},
        {"gamma": np.full(4, 0.01), "noise": np.array(0.2)},
        ("gamma",),
    )
    assert found.sentences == [
        "gamma: the linearised sd is too narrow until t = 1, right within 10 % at t = 2, too wide at t = 3; "
        "it is from 0.5 to 1.2 of that of the draws.",
        "noise: the linearised sd is 0.7 of that of the draws (known to 20 % only).",
    ]
    assert found.table().loc["gamma", "share"] == 0.25
    np.testing.assert_array_equal(found.agrees("gamma"), [False, False, True, False])


def test_entries_that_do_not_move_are_left_out():
    base = np.array([[0.0, 1.0], [1.05, 0.0]])
    found = LinearWidths(np.array([0.0]), {"base": base, "none": np.zeros(2)}, {"base": 1.0 * (base > 0), "none": np.zeros(2)},
                         {"base": np.where(base > 0, 0.01, np.nan), "none": np.full(2, np.nan)})  # fmt: skip
    assert found.sentences == [
        "base: the linearised sd is that of the draws within 10 %; 2 of 4 entries have no sd to compare.",
        "none: no sd to compare.",
    ]
    row = found.table().loc["base"]
    assert row["share"] == 1.0 and (row["least"], row["most"], row["error"]) == (1.0, 1.05, 0.01)


def test_what_has_no_draws_is_refused():
    point = bm.inference.fit(Linear(population()), method="point", starts=1, prior_samples=0)
    with pytest.raises(InputError, match="the fit has 1 draws; at least 100"):
        linear_widths(point)
    with pytest.raises(InputError, match="fit is str"):
        linear_widths("fit")
