"""Protects interventions where a slip leaves no trace: paths of the population, planners, schemes and branches by hand; and what results say."""

import dataclasses
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

from bayes_mfg.data import Population
from bayes_mfg.equilibrium import TimeGrid, solve
from bayes_mfg.errors import InputError
from bayes_mfg.games import Closed, Emissions, LinearQuadratic
from bayes_mfg.inference import Change, Close, Fit, FitError, flows, report_findings
from bayes_mfg.inference.assemble import assemble
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.intervention_result import Intervention
from bayes_mfg.inference.predict import branch_keys
from bayes_mfg.models import Calibration, Gaussian, Multinomial
from bayes_mfg.paths import Spline

module = importlib.import_module("bayes_mfg.inference.intervene")
MU0 = np.array([0.3, 0.7])
GAME = LinearQuadratic(2, base_rate=0.6, terminal_slope=1.5, congestion=1.0)


def given(path, draws=2, **options):
    """A fit with the draws alone, of a model of two states on times from 3.0 to 4.2; and what a path is in the last draw."""
    grid = TimeGrid(1.2, 5, 1, start=3.0)
    seen = Population(grid.times, counts=np.tile([60, 140], (1, 5, 1)), totals=np.full((1, 5), 200), states=["A", "B"])
    model = Calibration(GAME, seen, {"gamma": path}, Multinomial(), initial=MU0, substeps=1, method="anderson", **options)
    space = coordinates(model)
    flat = 0.8 * np.random.default_rng(0).standard_normal((1, draws, space.size))
    tree = xr.DataTree.from_dict({"unconstrained_posterior": xr.Dataset({"latent": (("chain", "draw", "coordinate"), flat)})})
    tree.attrs = {"seed": 0, "warnings": json.dumps(["The chains disagree."])}
    latents = space.latents(space.constrain(jnp.asarray(flat[0, -1])), model.data)
    return Fit(tree, model), model.parameters(latents, 0)["gamma"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["exponential", "paper"])
def test_a_closure_and_its_end_by_surprise_are_three_games_one_after_the_other(scheme: str) -> None:
    """A planner's, with a path of the population, and news between the points of a grid that does not begin at zero."""
    fitted, gamma = given(Spline(input="population", level=1.0, scale=1.5), scheme=scheme, control=True)
    assert abs(gamma(3.0, jnp.array([0.3, 0.7])) - gamma(3.0, jnp.array([0.8, 0.2]))) > 0.05
    found = fitted.intervene(Close("B", 3.35, 3.75, announced=False, end_known=False), flows=False)
    assert found.lost == {} and found.cautions == ("The chains disagree.",)
    assert found.news == (3.35, 3.75)
    nodes = np.union1d(fitted.model.grid.fine_times, [3.35, 3.75])
    shut, opened = np.searchsorted(nodes, [3.35, 3.75])

    def by_hand(game, mu0, first):
        return solve(
            game, {"gamma": gamma}, mu0, TimeGrid.from_times(nodes[first:]), method="anderson", scheme=scheme, control=True
        )

    before = by_hand(GAME, MU0, 0)
    within = by_hand(Closed(GAME, "1", 3.35), before.mu[shut], shut)
    after = by_hand(GAME, within.mu[opened - shut], opened)
    at = np.searchsorted(nodes, fitted.model.grid.times - 1e-9)
    for name in ("mu", "value"):
        pieces = getattr(before, name)[:shut], getattr(within, name)[: opened - shut], getattr(after, name)
        np.testing.assert_allclose(found.changed[name][-1, 0], np.concatenate(pieces)[at], atol=1e-9)
        np.testing.assert_allclose(found.baseline[name][-1, 0], getattr(before, name)[at], atol=1e-9)
    assert np.abs(found.difference["mu"]).max() > 0.01


@pytest.mark.slow
def test_a_path_of_the_observed_population_stays_and_is_named() -> None:
    fitted, _ = given(Spline(input="observed", level=1.0, scale=1.5), draws=1)
    found = fitted.intervene(Close("B", 3.3, announced=False), flows=False)
    assert found.fixed_paths == ("gamma",)
    assert "gamma follows the observed population and does not answer to the intervention." in found.sentences
    assert found.sentences[-1] == "The fit warns: The chains disagree."


SIZE, BRANCHES = 12, TimeGrid(4.0, 9, 2)


@pytest.fixture(scope="module")
def several():
    """A fit with two equilibria of which either is likely: firms keep to the cap, or exceed it."""
    d, start = 4, np.eye(4)[0]
    beliefs = []
    for end in (0, d - 1):
        guess = np.tile(np.eye(d)[end] * 0.8 + 0.05, (9, 1)), np.tile(np.abs(np.arange(d) - end), (9, 1)).astype(float)
        eq = solve(Emissions(d, cap=1.5, price=3.5, base_rate=1.1), {}, start, BRANCHES, method="anderson", guess=guess)
        beliefs.append((eq.mu, eq.value))
    assert float(jnp.abs(beliefs[0][0] - beliefs[1][0]).max()) > 0.3
    shares = np.maximum(np.asarray(0.5 * (beliefs[0][0] + beliefs[1][0])), 0.0)
    seen = Population(BRANCHES.times, proportions=(shares / shares.sum(-1, keepdims=True))[None])
    model = Calibration(
        Emissions(d, cap=1.5, price=3.5, base_rate=1.1),
        seen,
        {"price": dist.LogNormal(np.log(3.5), 0.1)},
        Gaussian(scale=0.5),
        initial=start,
        substeps=2,
        method="anderson",
        branches=beliefs,
    )
    flat = 0.05 * np.random.default_rng(0).standard_normal((1, SIZE, coordinates(model).size)) + np.log(3.5)
    return Fit(assemble(model, flat, method="nuts", seed=7, wall_time=0.0, settings={}, prior_samples=0), model)


@pytest.mark.slow
def test_every_draw_stays_on_the_branch_that_the_fit_drew_for_it(several) -> None:
    """Whatever the seed, and whichever draws are chosen, which keep their numbers; in flows and predictions, too."""
    kept = several.tree["posterior"]["mu"].to_numpy()[0]
    assert 2 < (kept[:, 0, -1] @ np.arange(4) > 1.8).sum() < SIZE - 2  # draws on either branch
    every = several.intervene(Change("price", factor=1.1), flows=False)
    some = several.intervene(Change("price", factor=1.1), flows=False, seed=3, num_draws=4)
    assert every.lost == some.lost == {}
    np.testing.assert_allclose(every.baseline["mu"], kept, atol=1e-9)
    np.testing.assert_allclose(some.baseline["mu"], kept[[0, 4, 7, 11]], atol=1e-9)
    np.testing.assert_array_equal(some.baseline["draw"], [0, 4, 7, 11])
    apart = every.difference - some.difference
    assert apart["draw"].to_numpy().tolist() == [0, 4, 7, 11]
    assert np.abs(apart["mu"]).max() < 1e-9 and np.abs(every.difference["mu"]).max() > 1e-4
    moved = flows(several, num_draws=4)
    np.testing.assert_allclose(moved.data["mu"], kept[[0, 4, 7, 11]].mean(axis=1), atol=1e-9)
    np.testing.assert_array_equal(moved.data["draw"], [0, 4, 7, 11])
    ahead = several.predict(num_draws=4)
    np.testing.assert_allclose(ahead["mu"], kept[[0, 4, 7, 11]], atol=1e-9)
    np.testing.assert_array_equal(ahead["draw"], [0, 4, 7, 11])


@pytest.mark.slow
def test_a_baseline_on_another_branch_is_no_baseline(several, monkeypatch) -> None:
    monkeypatch.setattr(module, "SAME_BRANCH", -1.0)
    with pytest.raises(FitError, match="the baseline's own equilibrium was not found again in 2; with 2 of 2 draws lost"):
        several.intervene(Change("price", factor=1.2), flows=False, num_draws=2)


def test_a_draw_that_stands_in_for_a_lost_one_brings_its_branch(several) -> None:
    tree = several.tree.copy(deep=True)
    lost = np.arange(SIZE)[None] == 5
    tree["sample_stats"] = xr.DataTree(xr.Dataset({"replaced": (("chain", "draw"), lost)}))
    own, again = (jax.random.key_data(branch_keys(fit)) for fit in (several, Fit(tree, several.model)))
    np.testing.assert_array_equal(again, own[np.where(lost[0], 4, np.arange(SIZE))])


# What is said of results, made up here.


def result(moved):
    """A result with shares 0.5 of two states, and `moved` (draw, trajectory, time) from the second into the first."""
    moved = np.asarray(moved, dtype=float)
    names = ("draw", "trajectory", "time", "state")
    coords = {"trajectory": [str(r) for r in range(moved.shape[1])], "time": np.arange(moved.shape[2]) / 2, "state": ["A", "B"]}
    sides = []
    for shift in (0.0 * moved, moved):
        costs = xr.DataArray(np.ones(moved.shape[:2]), dims=names[:2])
        mu = (names, np.stack([0.5 + shift, 0.5 - shift], axis=-1))
        sides.append(xr.Dataset({"mu": mu, "cost": costs, "expected_cost": costs}, coords=coords))
    return Intervention((Change("x", factor=2.0),), *sides, {}, (0.0,), 1.0)


def test_opposite_moves_do_not_cancel() -> None:
    """Neither of two trajectories, nor in a draw that most others do not share."""
    text = " ".join(result([[[0.0, 0.2, 0.0], [0.0, -0.2, 0.0]]] * 20).sentences)
    assert "At the peak, at time 0.500, it has moved 0.200 (0.200 to 0.200)" in text and "on average over trajectories" in text
    text = " ".join(result([[[0.0, 0.0, 0.1]], [[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]]).sentences)
    assert "It moves nobody" not in text and "At the peak, at time 1.00," in text and "trajectories" not in text
    assert "It moves nobody." in result(np.zeros((2, 1, 3))).sentences


def test_what_was_announced_and_what_was_not_are_told_apart() -> None:
    """Before the first begins only those move who knew of something; nobody says that they knew of what came by surprise."""
    moved = result([[[0.0, 0.1, 0.2]]] * 20)

    def ahead(*interventions, news=(0.0,)):
        told = dataclasses.replace(moved, interventions=interventions, news=news).sentences
        return [text for text in told if text.startswith("Before it begins")]

    by_surprise, known = Close("A", 0.5, announced=False), Change("x", factor=2.0, start=0.75)
    assert ahead(by_surprise, known, news=(0.0, 0.5)) == []
    first = "Before it begins, at time 0.500, 0.100 (0.100 to 0.100) of the population has moved: agents knew from time"
    assert ahead(Close("A", 0.5)) == [f"{first} 0."]
    assert ahead(Close("A", 0.5, announced=0.25), Close("B", 0.75, announced=False), news=(0.25, 0.75)) == [f"{first} 0.250."]
    assert ahead(Close("A", 0.5, announced=0.25), known, news=(0.0, 0.25)) == [f"{first} 0.250, and of what begins later, too."]
    assert Close("A", 0.3, announced=0.1 + 0.2).announced > 0.3  # later by its last digit alone


def test_few_draws_forecasts_and_warnings_of_the_fit_are_told(tmp_path) -> None:
    told = dataclasses.replace(result([[[0.0, 0.1, 0.2]]] * 19), seen=0.5, cautions=("The chains disagree.",))
    assert told.sentences[-3:] == [
        "These are 19 draws, too few for bands.",
        "The data end at time 0.500: on both sides, what comes after is a forecast.",
        "The fit warns: The chains disagree.",
    ]
    assert "it has moved 0.200 of the population" in told.sentences[1]
    page = told.report(tmp_path / "few.html").read_text()
    assert "The fit warns: The chains disagree." in page and 'area s0"' not in page and "90% band" not in page
    assert "<th>low" not in page and ">low<" not in page
    enough = result([[[0.0, 0.1, 0.2]], [[0.0, 0.2, 0.3]]] * 10)
    page = enough.report(tmp_path / "enough.html").read_text()
    assert 'area s0"' in page and "90% band" in page and ">low<" in page
    assert not any("forecast" in text or "too few" in text or "warns" in text for text in enough.sentences)


def test_a_change_without_effect_is_explained() -> None:
    still = result(np.zeros((20, 1, 3)))
    hint = "only the terminal cost reads has to be changed at the horizon"
    assert not any(hint in text for text in still.sentences)
    inside = dataclasses.replace(still, interventions=(Change("x", factor=2.0, end=0.5),))
    assert any(hint in text for text in inside.sentences)
    dearer = inside.changed.assign(cost=inside.changed["cost"] + 1.0)
    assert not any(hint in text for text in dataclasses.replace(inside, changed=dearer).sentences)


@pytest.mark.parametrize("ci_prob", [95, "x", 0.0, 1.0, True, None, np.nan])
def test_intervals_of_no_probability_are_refused(ci_prob) -> None:
    with pytest.raises(InputError, match=r"table: ci_prob is .*; a probability between 0 and 1 is needed"):
        result(np.zeros((2, 1, 3))).table(ci_prob)


def test_two_results_need_two_names(tmp_path) -> None:
    one = result([[[0.0, 0.1, 0.2]]])
    with pytest.raises(InputError, match="'a' is the name of this result and of one beside it"):
        one.plot(tmp_path / "x.svg", name="a", beside={"a": one})
    assert not (tmp_path / "x.svg").exists()
    assert one.plot(tmp_path / "x.svg", name="a", beside={"b": one}).exists()


def test_a_report_holds_a_result_as_its_own_page_does() -> None:
    ((name, title, body),) = report_findings.sections([result([[[0.0, 0.1, 0.2]]] * 20)])
    assert name == "finding0" and title == "What if: X times 2, announced from the beginning"
    assert body.count("<figure>") == 4 and "At the peak" in body and "share of" in body
