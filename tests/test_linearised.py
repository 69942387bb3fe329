"""Protects the algebra of `identifiability` on small matrices: widths, what other priors would move, verdicts, traceless spaces, roots."""

import types

import numpy as np
import pytest

from bayes_mfg.equilibrium import TimeGrid
from bayes_mfg.games import BikeShare, LinearQuadratic
from bayes_mfg.inference import identifiability_words as words
from bayes_mfg.inference.identifiability import factors
from bayes_mfg.inference.identifiability_verdicts import Judged, last_datum, reason, without_trace
from bayes_mfg.inference.information import root
from bayes_mfg.inference.linearised import Reached, Rows, Widths, _solutions, widths

RNG = np.random.default_rng(0)


def two(first, second, score):
    """Widths of two numbers with these prior sds."""
    unknowns = {"a": Rows(np.array(1.0), np.array([[1.0, 0.0]]), None), "b": Rows(np.array(1.0), np.array([[0.0, 1.0]]), None)}
    scale = np.diag([first, second])
    return widths(np.asarray(score, float) @ scale, scale, unknowns, {"a": np.array([0]), "b": np.array([1])})


def test_of_a_product_the_narrower_share_is_not_identified():
    """Only `a + b` is seen, sds 3 and 0.8: a keeps 0.26 of its sd, and all of that is the prior of b."""
    found = two(3.0, 0.8, [[1e4, 1e4], [0.0, 0.0]])["a"]
    assert np.sqrt(found.posterior[0]) == pytest.approx(0.8 / np.hypot(3.0, 0.8), rel=1e-6)
    assert found.sway[0] == pytest.approx(1.0, rel=1e-6)
    assert words.overall(np.sqrt(found.posterior), found.sway) == "weak"
    # Both seen: the ratio is what counts.
    found = two(3.0, 0.8, [[1.0, 0.0], [0.0, 1e4]])["a"]
    assert found.sway[0] == pytest.approx(1 / np.sqrt(10.0), rel=1e-9)
    assert found.sway[0] == pytest.approx(np.sqrt(found.posterior[0]), rel=1e-9)


def test_sway_is_the_largest_move_of_the_posterior_mean_by_a_prior_mean():
    """Against the brute force of many prior means, in a linear model of five numbers; and never below the ratio of sds."""
    score = RNG.standard_normal((5, 5)) * np.array([3.0, 1.0, 0.3, 0.1, 0.0])
    slopes = RNG.standard_normal((4, 5))
    found = widths(score, np.eye(5), {"a": Rows(np.zeros(4), slopes, None)}, {"a": np.arange(5)})["a"]
    covariance = np.linalg.inv(np.eye(5) + score.T @ score)
    moved = slopes @ covariance
    sd = np.sqrt(np.sum(moved * slopes, axis=1))
    directions = RNG.standard_normal((5, 200_000))
    directions /= np.linalg.norm(directions, axis=0)
    brute = (np.abs(moved @ directions) / sd[:, None]).max(axis=1)
    assert (brute <= found.sway * (1 + 1e-12)).all()
    np.testing.assert_allclose(found.sway, brute, rtol=0.01)
    np.testing.assert_allclose(np.sqrt(found.posterior), sd / np.linalg.norm(slopes, axis=1), rtol=1e-12)
    assert (found.sway >= np.sqrt(found.posterior)).all()


def test_the_shape_of_a_paths_own_prior_is_not_held_against_it_but_other_unknowns_are():
    score, slopes = np.diag([1e3, 1e-3, 0.0]), np.array([[1.0, 0.05, 0.0]])
    alone = widths(score, np.eye(3), {"a": Rows(np.zeros(1), slopes, 0)}, {"a": np.array([0, 1]), "b": np.array([2])})["a"]
    np.testing.assert_allclose(alone.sway, np.sqrt(alone.posterior), rtol=1e-9)
    other = widths(score, np.eye(3), {"a": Rows(np.zeros(1), slopes, 0)}, {"a": np.array([0]), "b": np.array([1, 2])})["a"]
    assert other.sway[0] > 0.99


def test_widths_are_never_negative_and_what_is_not_known_is_not_identified():
    """Information of 1e20 against a prior of 1, in a direction that nothing sees: rounding of the normal equations would leave anything."""
    turn = np.linalg.qr(RNG.standard_normal((3, 3)))[0]
    score = np.diag([1e10, 1e9, 0.0]) @ turn.T
    slopes = np.concatenate([turn.T, np.zeros((1, 3))])
    found = widths(score, np.eye(3), {"a": Rows(np.zeros(4), slopes, None)}, {"a": np.arange(3)})["a"]
    np.testing.assert_allclose(np.sqrt(found.posterior[:3]), [1e-10, 1e-9, 1.0], rtol=1e-5)
    assert np.isnan(found.posterior[3]) and np.isnan(found.sway[3])
    nothing = np.full(3, np.nan)
    assert words.overall(nothing, nothing) == "unknown"
    assert words.overall(np.array([0.1, np.nan]), np.array([0.1, np.nan])) == "weak"
    assert words.overall(np.array([0.1, 0.1]), np.array([0.1, np.nan])) == "weak"


def test_curvature_that_nobody_looked_at_is_not_one():
    centre = Widths(np.array([0.25]), np.array([0.5]), np.array([0.25]), {})
    wider = Widths(np.array([1.0]), np.array([1.0]), np.array([1.0]), {})
    assert np.isnan(factors(centre, [], 0)).all() and np.isinf(factors(centre, [], 8)).all()
    assert factors(centre, [wider, wider], 2)[0] == pytest.approx(2.0)


def test_a_traceless_space_is_found_whatever_its_basis():
    """A reached space of three of which only a mixture of two leaves no trace, given in bases that do not show it."""
    score = np.diag([1.0, 1.0, 1.0, 1.0])
    score[2:, 2:] = [[1.0, -1.0], [0.0, 0.0]]
    reached = np.eye(4)[:, [0, 2, 3]]
    for turn in (np.eye(3), *(np.linalg.qr(RNG.standard_normal((3, 3)))[0] for _ in range(2))):
        found = without_trace(score, reached @ turn, np.zeros((4, 0)), 1e-9)
        assert found.shape == (4, 1)
        np.testing.assert_allclose(np.abs(found[:, 0]), np.sqrt([0.0, 0.0, 0.5, 0.5]), rtol=1e-9, atol=1e-12)
        assert without_trace(score, reached @ turn, found, 1e-9).shape == (4, 0)


def test_combinations_of_declared_changes_are_found():
    """gamma known, all other costs and the weight unknown: the common factor and the product reach one direction together, and none alone."""
    game = LinearQuadratic()
    params = {
        n: float(v) for n, v in {"gamma": 1.5, **{n: game.constant({}, n) for n in game.parameters if n != "gamma"}}.items()
    }
    names = [n for n in params if n != "gamma"]
    left = np.zeros((len(params), len(names)))
    for k, name in enumerate(names):
        left[list(params).index(name), k] = 1.0
    right = -np.array([[float(np.asarray(i.generators(params).get(n, 0.0))) for i in game.invariances] for n in params])
    basis = _solutions(left, right)
    assert basis.shape[1] == 1
    assert _solutions(left, right[:, :1]).shape[1] == _solutions(left, right[:, 1:]).shape[1] == 0
    some = Reached(tuple(game.invariances), basis, left, right, np.array([0, 1]))
    assert [i.name for i in some.used(basis[:, 0])] == [i.name for i in game.invariances]


def test_stations_without_rides_crash_no_invariance():
    game = BikeShare(3)
    rates = np.array([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.5, 0.0]])
    params = {"base_rate": rates, "effort": 0.8, "congestion": 0.7, "edge_value": np.zeros((3, 3)), "terminal_cost": np.ones(3)}
    for invariance in game.invariances:
        found = invariance.generators(params)
        assert all(np.isfinite(g).all() for g in found.values()), invariance.name
        if invariance.name.startswith("squares"):
            assert not any(np.asarray(g).any() for g in found.values())


def test_roots_of_matrices_whose_entries_differ_by_many_orders():
    """The small eigenvalue, of 1e-24 of the large one, is kept."""
    matrix = np.array([[1e12, 1e-1], [1e-1, 1e-12 * 2]])
    half = root(matrix)
    np.testing.assert_allclose(half.T @ half, matrix, rtol=1e-6)
    assert not root(np.zeros((2, 2))).any()


def judged(**changes):
    given = {
        "name": "a",
        "unknown": Rows(np.zeros(4), np.zeros((4, 1)), 0),
        "verdict": "identified",
        "cause": "",
        "partners": (),
        "ratio": np.array([0.1, 0.1, 0.9, 1.0]),
        "sway": np.array([0.1, 0.1, 0.9, 1.0]),
        "alone": np.ones(4),
        "counted": np.array([True, True, False, False]),
        "later": np.array([False, False, True, True]),
        "idle": np.zeros(4, bool),
        "known": np.zeros(4, bool),
        "floor": 0.7,
    }
    return Judged(**{**given, **changes})


def test_sentences_count_to_the_last_datum_and_claim_no_more_than_is_known():
    times = np.arange(4.0)
    assert reason(times, judged(), []) == (
        "a: identified; the posterior's sd is 0.1 of the prior's; after the last datum, which is not counted, it is 0.9 to 1."
    )
    weak = judged(verdict="weak", cause="confounded", ratio=np.full(4, 0.5), sway=np.ones(4), later=np.zeros(4, bool))
    assert "it is confounded with combinations of the others" in reason(times, weak, [])
    assert "below 0.7" in reason(times, judged(verdict="weak", cause="invariant"), [])
    assert "does not move" in reason(times, judged(verdict="unknown"), [])
    assert "1 of 4 entries do not enter" in reason(times, judged(idle=np.array([True, False, False, False])), [])


def test_the_last_datum_is_the_last_that_is_not_masked():
    mask = np.zeros((2, 4, 3), bool)
    mask[1, :3, 2] = True
    model = types.SimpleNamespace(
        data=types.SimpleNamespace(record=types.SimpleNamespace(mask=mask)),
        population=types.SimpleNamespace(times=TimeGrid(3.0, 4).times),
    )
    assert last_datum(model) == pytest.approx(2.0)


def test_turns_are_counted_along_time():
    """Of a vector path `(T, d)`, the entry that moves most."""
    wave = np.stack([np.zeros(40), np.sin(np.linspace(0.0, 3 * np.pi, 40))], axis=1)
    assert words._turns(wave, 0) == words._turns(wave.T, 1) == 2
