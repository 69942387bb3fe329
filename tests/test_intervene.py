"""Protects interventions: each is the equilibrium of the changed game, solved here once more by hand, draw by draw."""

import dataclasses
import importlib
import types

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

from bayes_mfg.data import Population, simulate
from bayes_mfg.equilibrium import TimeGrid, solve
from bayes_mfg.errors import InputError
from bayes_mfg.games import Closed, LinearQuadratic
from bayes_mfg.inference import Change, Close, Fit, FitError, Start, intervene
from bayes_mfg.inference.assemble import assemble
from bayes_mfg.inference.intervene import make_plan
from bayes_mfg.inference.interventions import Altered, Held
from bayes_mfg.models import Calibration, Multinomial, NeuralODE
from bayes_mfg.paths import Pooled

module = importlib.import_module("bayes_mfg.inference.intervene")
GRID = TimeGrid(horizon=2.4, points=13, substeps=2)
OPENS, SHUTS = GRID.fine_times[14], GRID.fine_times[8]  # 1.4 and 0.8 to the last digit, as a window is understood
STARTS = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
DRAWS = 4


class Fragile(LinearQuadratic):
    """The linear-quadratic game, without an equilibrium where gamma exceeds 1.5 while state 0 holds more than 0.8."""

    crowd: float = eqx.field(static=True, default=0.8)

    def running_cost(self, t, control, mu, params):
        bad = (params["gamma"] > 1.5) & (mu[0] > self.crowd)
        return super().running_cost(t, control, mu, params) + jnp.where(bad, jnp.nan, 0.0)


GAME = Fragile(base_rate=0.6, terminal_slope=1.5, congestion=1.0)


def solved(game, params, mu0, grid=GRID):
    return solve(game, params, mu0, grid, method="anderson")


@pytest.fixture(scope="module")
def model():
    whole = simulate(GAME, {"gamma": 1.5}, STARTS, GRID, noise="multinomial", size=200, seed=1)
    seen = Population(whole.times[:11], counts=whole.counts[:, :11], states=["A", "B", "C"], trajectories=["north", "south"])
    paths = {"gamma": Pooled(dist.LogNormal(0.0, 1.0))}
    return Calibration(GAME, seen, paths, Multinomial(), initial=STARTS, horizon=2.4, substeps=2, method="anderson")


@pytest.fixture(scope="module")
def fitted(model):
    """A fit whose draws are given: two trajectories with a gamma of their own, from 1.1 to 1.9."""
    from bayes_mfg.inference.coordinates import coordinates

    rng = np.random.default_rng(0)
    flat = 0.15 * rng.standard_normal((1, DRAWS, coordinates(model).size))
    flat[..., 0] += np.log(1.5)
    tree = assemble(model, flat, method="nuts", seed=0, wall_time=0.0, settings={}, prior_samples=0)
    return Fit(tree, model)


@pytest.fixture(scope="module")
def gammas(fitted):
    return fitted.tree["posterior"]["gamma"].isel(time=0).to_numpy()[0]


SURPRISE = (Close("B", 0.8, 1.4, announced=False), Change("terminal_slope", factor=2.0, start=0.4, announced=False))


@pytest.fixture(scope="module")
def surprised(fitted):
    return fitted.intervene(*SURPRISE)


@pytest.fixture(scope="module")
def announced(fitted):
    return fitted.intervene(Close("B", 0.8, 1.4))


def index(time):
    return int(np.argmin(np.abs(GRID.times - time)))


def test_the_baseline_is_the_fit(fitted, surprised, announced) -> None:
    for found in (surprised, announced):
        assert found.seen == pytest.approx(2.0) and found.cautions == ()
        for name in ("mu", "value"):
            np.testing.assert_allclose(found.baseline[name], fitted.tree["posterior"][name].to_numpy()[0], atol=1e-9)
        assert found.failed_solves == 0
        assert found.baseline["mu"].dims == ("draw", "trajectory", "time", "state")
        assert list(found.changed["state"].to_numpy()) == ["A", "B", "C"]
        assert list(found.changed["trajectory"].to_numpy()) == ["north", "south"]
        np.testing.assert_allclose(found.changed["time"], GRID.times, atol=1e-12)


def test_an_announced_closure_is_one_solve_of_the_closed_game(announced, gammas) -> None:
    for k, r in ((0, 0), (3, 1)):
        eq = solved(Closed(GAME, "1", SHUTS, OPENS), {"gamma": gammas[k, r]}, STARTS[r])
        np.testing.assert_allclose(announced.changed["mu"][k, r], eq.mu, atol=1e-9)
        np.testing.assert_allclose(announced.changed["value"][k, r], eq.value, atol=1e-9)
        flow = np.asarray(eq.mu)[:, :, None] * np.asarray(eq.rates)
        np.testing.assert_allclose(announced.changed["flow"][k, r], flow, atol=1e-9)
        assert float(announced.changed["cost"][k, r]) == pytest.approx(float(eq.mu[0] @ eq.value[0]), abs=1e-9)
        assert float(announced.changed["expected_cost"][k, r]) == pytest.approx(float(eq.mu[0] @ eq.value[0]), abs=1e-9)
    assert announced.news == (0.0,)
    moved = np.abs(announced.difference["mu"].to_numpy())
    assert moved[:, :, 1 : index(0.8) + 1].max() > 1e-4  # anticipation
    assert moved.max() > 0.02


def test_a_surprise_is_a_game_played_from_where_the_news_find_the_population(surprised, gammas) -> None:
    """Three stages by hand: the baseline to 0.4, the doubled slope without a thought of the closure to 0.8, and both from there."""
    fine = GRID.fine_times
    assert surprised.news == (pytest.approx(0.4), pytest.approx(0.8))
    for k, r in ((0, 0), (3, 1)):
        params = {"gamma": gammas[k, r]}
        steeper = Fragile(base_rate=0.6, terminal_slope=3.0, congestion=1.0)
        first = solved(GAME, params, STARTS[r], TimeGrid.from_times(fine))
        second = solved(steeper, params, first.mu[4], TimeGrid.from_times(fine[4:]))
        third = solved(Closed(steeper, "1", SHUTS, OPENS), params, second.mu[4], TimeGrid.from_times(fine[8:]))
        for name in ("mu", "value"):
            by_hand = np.concatenate([getattr(first, name)[:4], getattr(second, name)[:4], getattr(third, name)])[::2]
            np.testing.assert_allclose(surprised.changed[name][k, r], by_hand, atol=1e-9)
        # What is spent, summed over the middles of intervals with the game's own running cost.
        spent = sum(
            _spent(eq, game, gammas[k, r], count)
            for eq, game, count in ((first, GAME, 4), (second, steeper, 4), (third, Closed(steeper, "1", SHUTS, OPENS), 16))
        )
        end = float(third.mu[-1] @ steeper.terminal_cost(2.4, third.mu[-1], params))
        assert float(surprised.changed["cost"][k, r]) == pytest.approx(spent + end, rel=2e-3)
        assert float(surprised.changed["expected_cost"][k, r]) == pytest.approx(float(first.mu[0] @ first.value[0]), abs=1e-9)
    assert abs(float(surprised.difference["expected_cost"].max())) < 1e-9


def _spent(eq, game, gamma, count):
    mu, value, total = np.asarray(eq.mu), np.asarray(eq.value), 0.0
    for n in range(count):
        t, m, v = 0.5 * (eq.times[n] + eq.times[n + 1]), 0.5 * (mu[n] + mu[n + 1]), 0.5 * (value[n] + value[n + 1])
        control = game.best_response(t, jnp.asarray(v), jnp.asarray(m), {"gamma": gamma})
        cost = np.asarray(game.running_cost(t, control, jnp.asarray(m), {"gamma": gamma}))
        total += (eq.times[n + 1] - eq.times[n]) * float(m @ cost)
    return total


def test_nothing_moves_before_the_news_and_nobody_moves_into_what_is_closed(surprised, announced) -> None:
    moved = surprised.difference["mu"].to_numpy()
    assert np.abs(moved[:, :, : index(0.4) + 1]).max() < 1e-12
    assert np.abs(moved[:, :, index(0.6)]).max() > 1e-5
    for found in (surprised, announced):
        into = found.changed["flow"].sel(destination="B").to_numpy()
        assert np.all(into[:, :, index(0.8) : index(1.4)] == 0.0)
        assert np.all(into[:, :, index(1.4) :].sum(axis=-1) > 0.0)
        assert np.all(found.changed["flow"].sel(origin="B").isel(time=index(1.0)).sum("destination") > 0.0)
        np.testing.assert_allclose(found.changed["mu"].sum("state"), 1.0, atol=1e-11)
        np.testing.assert_allclose(found.difference["mu"].sum("state"), 0.0, atol=1e-11)


@pytest.fixture(scope="module")
def window(fitted):
    """Four changes at once, of a path and of constants, with ends inside steps; and another start."""
    return fitted.intervene(
        Start([0.1, 0.8, 0.1]),
        Change("gamma", factor=1.2, start=0.55, end=1.33),
        Change("gamma", add=0.1, end=1.33),
        Change("congestion", value=2.0, start=1.33),
        num_draws=2,
    )


def test_a_change_in_a_window_is_a_path_that_jumps(window, gammas) -> None:
    """By hand on the grid with the two ends added, its steps open or closed as wholes."""
    from bayes_mfg.equilibrium import Sampled

    nodes = np.union1d(GRID.fine_times, [0.55, 1.33])
    grid = TimeGrid.from_times(nodes)
    middles = 0.5 * (nodes[1:] + nodes[:-1])
    gamma = gammas[-1, 1]

    def gamma_at(t):
        return gamma * np.where((t >= 0.55) & (t < 1.33), 1.2, 1.0) + np.where(t < 1.33, 0.1, 0.0)

    params = {"gamma": Sampled(gamma_at(nodes), gamma_at(middles))}
    params["congestion"] = Sampled(np.where(nodes < 1.33, 1.0, 2.0), np.where(middles < 1.33, 1.0, 2.0))
    eq = solved(GAME, params, np.array([0.1, 0.8, 0.1]), grid)
    at = np.searchsorted(nodes, GRID.times - 1e-9)
    np.testing.assert_allclose(window.changed["mu"][-1, 1], eq.mu[at], atol=1e-9)
    np.testing.assert_allclose(window.changed["value"][-1, 1], eq.value[at], atol=1e-9)
    base = solved(GAME, {"gamma": gamma}, STARTS[1], grid)
    np.testing.assert_allclose(window.baseline["mu"][-1, 1], base.mu[at], atol=1e-9)
    assert float(window.baseline["cost"][-1, 1]) == pytest.approx(float(base.mu[0] @ base.value[0]), abs=1e-9)
    assert "start from 0.1 in A, 0.8 in B, 0.1 in C" in window.description
    np.testing.assert_array_equal(window.difference["draw"], [0, DRAWS - 1])  # as the posterior counts them


def test_the_whole_changes_nothing_where_nothing_is_changed(fitted) -> None:
    same = fitted.intervene(Change("gamma", factor=1.0, start=0.6, announced=False), num_draws=3, initial=[0.3, 0.3, 0.4])
    for name in ("mu", "value", "flow", "cost", "expected_cost"):
        assert np.abs(same.difference[name]).max() < 1e-9
    assert same.sentences[1] == "It moves nobody."
    assert list(same.baseline["trajectory"].to_numpy()) == ["initial 0"]
    np.testing.assert_allclose(same.baseline["mu"][:, 0, 0], np.broadcast_to([0.3, 0.3, 0.4], (3, 3)), atol=1e-12)


def test_draws_without_an_equilibrium_are_left_out_and_counted(fitted, gammas, caplog, monkeypatch) -> None:
    """The changed start is beyond the game where gamma exceeds 1.5 in either trajectory."""
    bad = (gammas > 1.5).any(axis=1)
    assert 0 < bad.sum() < DRAWS
    found = fitted.intervene(Start([[0.9, 0.05, 0.05], [0.95, 0.03, 0.02]]))
    assert found.failed_solves == bad.sum()
    np.testing.assert_array_equal(found.baseline["draw"], np.flatnonzero(~bad))
    assert np.isfinite(found.changed["mu"]).all() and np.isfinite(found.baseline["mu"]).all()
    assert found.lost == {"an equilibrium was not found": bad.sum()}
    assert any(
        text.startswith(f"{bad.sum()} of {DRAWS} draws are left out: an equilibrium was not found in {bad.sum()}. What is shown")
        for text in found.sentences
    )
    assert any("intervene" in record.message and "lost" in record.message for record in caplog.records)
    monkeypatch.setattr(module, "MOST_LOST", 0.2)
    with pytest.raises(FitError, match="what is left says nothing of the posterior"):
        fitted.intervene(Start({"A": 1.0}))


def test_the_end_may_come_as_a_surprise(model) -> None:
    """Agents believe that a closure lasts to the horizon until it ends; news that are over change nothing."""
    plan = make_plan(model, (Close("B", 0.8, 1.4, announced=0.4, end_known=False), Change("gamma", factor=2.0, end=0.2)))
    told = [[(type(b.what).__name__, b.start, b.end) for b in stage.beliefs] for stage in plan.stages]
    assert told[0] == [("Change", -np.inf, pytest.approx(0.2))]
    assert told[1] == [("Close", pytest.approx(0.8), np.inf)]
    assert told[2] == []
    assert plan.news == (0.0, pytest.approx(0.4), pytest.approx(1.4))
    assert [(stage.first, stage.last) for stage in plan.stages] == [(0, 4), (4, 14), (14, 24)]
    assert isinstance(plan.stages[1].game, Closed) and plan.stages[2].game is model.game
    late = make_plan(model, (Change("gamma", factor=2.0, start=2.4),))  # where the terminal cost is paid
    assert late.stages[0].beliefs[0].start == 2.4 and late.news == (0.0,)
    near = make_plan(model, (Close("B", 0.33 + 1e-15, announced=False), Change("gamma", factor=2.0, start=0.33, announced=False)))
    assert len(near.news) == 1
    known = make_plan(model, (Close("B", 0.8, 1.4, announced=0.4),))
    assert known.news == (pytest.approx(0.4),)
    whole = make_plan(model, (Close("B", 0.8, 2.4),))
    assert whole.stages[0].beliefs[0].end == np.inf


def test_news_of_two_interventions_arrive_in_order(model) -> None:
    plan = make_plan(
        model, (Close("A", 1.0, 1.4, announced=False), Close("B", 0.8, 2.0, announced=0.2), Close("C", 1.0, paid=True))
    )
    told = [[b.what.state for b in stage.beliefs] for stage in plan.stages]
    assert told == [["C"], ["B", "C"], ["A", "B", "C"]]
    assert plan.news == (0.0, pytest.approx(0.2), pytest.approx(1.0))


def test_results_have_bands_tables_and_words(announced, surprised) -> None:
    bands = announced.bands()
    assert bands["mu"].sizes["quantile"] == 3
    np.testing.assert_allclose(
        bands["mu"].sel(quantile=0.5), np.median(announced.changed["mu"] - announced.baseline["mu"], axis=0), atol=1e-12
    )
    table = announced.table()
    assert list(table.index[:4]) == [("north", "A"), ("north", "B"), ("north", "C"), ("north", "cost")]
    row = table.loc[("south", "B")]
    k = index(row["at"])
    draws = announced.difference["mu"].sel(trajectory="south", state="B").to_numpy()
    assert row["difference"] == pytest.approx(np.median(draws[:, k]))
    assert abs(row["difference"]) == pytest.approx(np.abs(np.median(draws, axis=0)).max())
    assert row["low"] <= row["difference"] <= row["high"]
    first, *rest = announced.sentences
    assert first == "Closing B from 0.8 to 1.4, announced from the beginning."
    assert any("of the population has moved: agents knew from time 0" in text for text in rest)
    assert any(text.startswith("The mean cost of an agent") for text in rest)
    assert not any("surprise" in text for text in rest)
    assert surprised.sentences[0] == "Closing B from 0.8 to 1.4, by surprise and terminal_slope times 2 from 0.4 on, by surprise."
    assert any("some of it came as a surprise" in text for text in surprised.sentences)


def test_figures_and_pages_appear(announced, surprised, tmp_path) -> None:
    from xml.etree import ElementTree

    path = announced.plot(tmp_path / "both.svg", beside={"by <surprise>": surprised}, name="announced")
    drawn = ElementTree.parse(path).getroot()
    text = " ".join(drawn.itertext())
    assert "by <surprise>" in text and "announced" in text and "share in B" in text
    page = announced.report(tmp_path / "closure.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "Closing B from 0.8 to 1.4" in page and page.count("<figure>") >= 4
    with pytest.raises(InputError, match="no trajectory 'west'"):
        announced.plot(tmp_path / "x.svg", trajectory="west")
    assert not (tmp_path / "x.svg").exists()


def test_paths_of_the_population_are_changed_where_they_are_evaluated() -> None:
    path = Altered(lambda t, mu: mu[0] + t, jnp.asarray(3.0), 1.0, 2.0, "factor")
    mu = jnp.asarray([0.25, 0.75])
    assert [float(path(t, mu)) for t in (0.5, 1.0, 1.5, 2.0)] == [0.75, 3.75, 5.25, 2.25]
    constant = Altered(Held(jnp.ones((2, 2))), jnp.asarray(3.0), 1.0, np.inf, "value")
    np.testing.assert_array_equal(constant(5.0, mu), np.full((2, 2), 3.0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Close("B", 1.0, 1.0), "the window from 1 to 1 is empty"),
        (lambda: Close("B", np.nan), "start is nan"),
        (lambda: Close(1), "state is 1"),
        (lambda: Close("B", 1.0, announced=1.1), "announced at 1.1, after the start at 1"),
        (lambda: Close("B", announced="soon"), "announced is 'soon'"),
        (lambda: Close("B", end_known=1), "end_known is 1"),
        (lambda: Close("B", paid=None), "paid is None"),
        (lambda: Change("gamma"), "nothing given for 'gamma'"),
        (lambda: Change("gamma", factor=1.0, add=1.0), "factor and add given"),
        (lambda: Change("gamma", value=np.inf), "finite numbers are needed"),
        (lambda: Change("gamma", value="much"), "numbers are needed"),
        (lambda: Change(3, value=1.0), "parameter is 3"),
        (lambda: Start([0.5, 0.6]), "sum to one"),
        (lambda: Start({"A": [0.9, 0.1], "B": [0.1, 0.9]}), "the share of 'A' is [0.9, 0.1]; by names of states, one number"),
        (lambda: Start({"A": True}), "the share of 'A' is True"),
        (lambda: Change("gamma", value="2"), "value of 'gamma' is '2'; numbers are needed"),
        (lambda: Change("gamma", value=True), "value of 'gamma' is True; numbers are needed"),
    ],
)
def test_interventions_that_make_no_sense_are_refused(make, words: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert words in str(error.value)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize(
    ("interventions", "words"),
    [
        ((), "no intervention is given"),
        (("close",), "'close' is no intervention"),
        ((Close("D"),), "there is no state 'D'; the model has A, B, C"),
        ((Close("B", 2.0, 2.5),), "end of Close is 2.5; the model covers 0 to 2.4"),
        ((Close("B", -1.0),), "start of Close is -1"),
        ((Close("B", 2.4),), "the end of the model's grid"),
        ((Change("gamma", factor=2.0, start=2.4, announced=False),), "the end of the model's grid"),
        ((Close("B", 0.8 - 1e-11, 0.8),), "the window of Close from 0.8 to 0.8 is empty on the model's grid"),
        ((Change("gamma", factor=2.0, start=0.83, end=0.83 + 1e-11),), "the window of Change from 0.83 to 0.83 is empty"),
        ((Change("gamma", factor=2.0, end=0.0),), "the window of Change from 0 to 0 is empty"),
        ((Close("B", announced=0.5),), "announced at 0.5, after its start at 0"),
        ((Change("beta", value=1.0),), "Fragile has no parameter 'beta'; it takes gamma"),
        ((Change("gamma", value=-1.0),), "gamma is -1.0; its range"),
        ((Change("gamma", factor=[1.0, 2.0]),), "has shape (2,)"),
        ((Start([0.5, 0.5]),), "shape (2,)"),
        ((Start(np.eye(3)),), "shape (3, 3); (3,) or (2, 3) is needed"),
        ((Start({"A": 0.5, "D": 0.5}),), "no state 'D' for Start; the model has A, B, C"),
        ((Start([0.5, 0.5, 0.0]), Start([0.5, 0.5, 0.0])), "more than one Start"),
    ],
)
def test_interventions_that_do_not_fit_are_refused(model, interventions, words: str) -> None:
    """By the plan, and so before a fit that has them in its config."""
    with pytest.raises(InputError) as error:
        make_plan(model, interventions)
    assert words in str(error.value)
    assert "\n" not in str(error.value) and str(error.value).endswith((".", ")."))


def test_fits_that_have_no_game_to_change_are_refused(fitted, model) -> None:
    with pytest.raises(InputError, match="without its model"):
        intervene(Fit(fitted.tree), Close("B"))
    other = NeuralODE(model.population, observation=Multinomial(), initial=STARTS)
    with pytest.raises(InputError, match="one of NeuralODE; a Calibration"):
        intervene(Fit(fitted.tree, other), Close("B"))
    with pytest.raises(InputError, match="intervene: num_draws is 0"):
        fitted.intervene(Close("B"), num_draws=0)
    with pytest.raises(InputError, match="intervene: initial must hold"):
        fitted.intervene(Close("B"), initial=[0.5, 0.5])
    for option, words in (({"seed": "x"}, "seed is 'x'"), ({"seed": -1}, "seed is -1"), ({"flows": "no"}, "flows is 'no'")):
        with pytest.raises(InputError, match=f"intervene: {words}"):
            fitted.intervene(Close("B"), **option)


def test_starts_may_name_their_states(model) -> None:
    for given in ({"C": 0.75, "A": 0.25}, {"2": 0.75, "0": 0.25}, [0.25, 0.0, 0.75]):
        (start,) = make_plan(model, (Start(given),)).interventions
        assert start.mu0 == (0.25, 0.0, 0.75)
        assert start.description == "a start from 0.25 in A, 0 in B, 0.75 in C"
    assert np.shape(make_plan(model, (Start(np.eye(3)),), 3).interventions[0].mu0) == (3, 3)


@pytest.mark.parametrize(("scheme", "control"), [("paper", False), ("exponential", True)])
def test_what_is_expected_is_the_first_plan_by_the_quadrature_of_what_is_spent(model, scheme: str, control: bool) -> None:
    """The two differ where the plan is given up, and nowhere else."""
    nodes = GRID.fine_times
    plan = make_plan(model, (Close("B", 0.8, 1.4),))
    eq = solve(GAME, {"gamma": 1.2}, STARTS[0], TimeGrid.from_times(nodes), scheme=scheme, method="anderson", control=control)
    assert bool(eq.converged)
    settings = types.SimpleNamespace(scheme=eq.scheme, control=control)
    kept = module._followed(plan, [(module.Stage(0, 24, (), GAME), eq)], settings, False)
    assert float(kept["cost"]) == float(kept["expected_cost"])
    assert "flow" not in kept
    parts = [(module.Stage(0, 8, (), GAME), eq), (module.Stage(8, 24, (), GAME), eq)]  # what follows is another path
    given_up = module._followed(plan, parts, settings, True)
    assert float(given_up["expected_cost"]) == float(kept["cost"])
    assert abs(float(given_up["cost"]) - float(kept["cost"])) > 0.01 and given_up["flow"].shape == (13, 3, 3)


def test_all_draws_lost_is_no_result(fitted) -> None:
    """A rate of zero leaves its range before the solve meets what is not finite."""
    for change in (Change("gamma", add=-50.0), Change("gamma", factor=0.0)):
        with pytest.raises(FitError, match="a parameter left its range in 2; with 2 of 2 draws lost"):
            fitted.intervene(change, num_draws=2)


def test_chunks_of_draws_do_not_show(fitted, announced, monkeypatch) -> None:
    """Four draws by threes: the second chunk is filled up with copies, of which nothing is kept."""
    monkeypatch.setattr(module, "CHUNK", DRAWS - 1)
    found = fitted.intervene(Close("B", 0.8, 1.4))
    assert found.changed.sizes["draw"] == DRAWS
    for side in ("baseline", "changed"):
        xr.testing.assert_allclose(getattr(found, side), getattr(announced, side), atol=1e-9)


def test_new_populations_and_another_start(fitted) -> None:
    """The changed side of one is the baseline of the other where starts are exchanged: trajectories are new, with the same deviations."""
    here, there = [[0.1, 0.2, 0.7], [0.5, 0.4, 0.1], [0.3, 0.3, 0.4]], [0.6, 0.2, 0.2]
    one = fitted.intervene(Start(there), initial=here, seed=3, flows=False)
    assert list(one.baseline["trajectory"].to_numpy()) == ["initial 0", "initial 1", "initial 2"]
    np.testing.assert_allclose(one.baseline["mu"].isel(time=0)[0], here, atol=1e-12)
    np.testing.assert_allclose(one.changed["mu"].isel(time=0)[0], [there] * 3, atol=1e-12)
    other = fitted.intervene(Start(here), initial=[there] * 3, seed=3, flows=False)
    for name in ("mu", "value"):
        np.testing.assert_allclose(one.changed[name], other.baseline[name], atol=1e-9)
        np.testing.assert_allclose(one.baseline[name], other.changed[name], atol=1e-9)
    assert (
        np.abs(
            one.baseline["mu"][:, 0] - fitted.intervene(Start(there), initial=here, seed=4, flows=False).baseline["mu"][:, 0]
        ).max()
        > 1e-3
    )


def test_interventions_are_values() -> None:
    """They can be compared and hashed, and are not changed by mistake."""
    one = Change("gamma", factor=np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert one == Change("gamma", factor=[[1, 2], [3, 4]]) and len({one, one}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.start = 1.0
