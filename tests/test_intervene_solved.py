"""Protects interventions where a slip leaves no trace: paths of the population, planners, schemes and branches, each solved once more by hand."""

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
from bayes_mfg.games import Closed, Emissions, LinearQuadratic
from bayes_mfg.inference import Change, Close, Fit, FitError, flows
from bayes_mfg.inference.assemble import assemble
from bayes_mfg.inference.coordinates import coordinates
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
