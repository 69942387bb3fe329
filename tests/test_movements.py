"""Protects flows between states: they are the integrals of share times rate, add up to changes of the population, and are drawn where places are."""

import json

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

from bayes_mfg.data import Population, simulate
from bayes_mfg.equilibrium import TimeGrid, solve
from bayes_mfg.errors import InputError
from bayes_mfg.games import LinearQuadratic
from bayes_mfg.inference import Fit, FitError, flows, movement_map
from bayes_mfg.inference.assemble import assemble
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.movements import Flows, moves, on_branch
from bayes_mfg.models import Calibration, Multinomial
from bayes_mfg.paths import Pooled

GRID = TimeGrid(horizon=1.2, points=7, substeps=4)
STARTS = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
GAME = LinearQuadratic(base_rate=0.6, terminal_slope=1.5, congestion=1.0)
PLACES = {"A": (-122.42, 37.80), "B": (-122.40, 37.78)}
DRAWS = 24


@pytest.fixture(scope="module")
def fitted():
    """A fit whose draws are given: two trajectories with a gamma of their own, around 1.5."""
    whole = simulate(GAME, {"gamma": 1.5}, STARTS, GRID, noise="multinomial", size=200, seed=1)
    places = {name: {"longitude": x, "latitude": y} for name, (x, y) in PLACES.items()}
    places["C"] = {"longitude": None, "latitude": None}
    seen = Population(
        whole.times, counts=whole.counts, states=["A", "B", "C"], trajectories=["north", "south"], provenance={"places": places}
    )
    paths = {"gamma": Pooled(dist.LogNormal(0.0, 1.0))}
    model = Calibration(GAME, seen, paths, Multinomial(), initial=STARTS, substeps=4, method="anderson")
    flat = 0.15 * np.random.default_rng(0).standard_normal((1, DRAWS, coordinates(model).size))
    flat[..., 0] += np.log(1.5)
    return Fit(assemble(model, flat, method="nuts", seed=0, wall_time=0.0, settings={}, prior_samples=0), model)


@pytest.fixture(scope="module")
def found(fitted):
    return flows(fitted)


def by_hand(gamma, mu0, substeps):
    """Trapezoidal integrals of share times rate between the points of the grid, on a finer one."""
    fine = TimeGrid(horizon=1.2, points=6 * substeps + 1)
    eq = solve(GAME, {"gamma": gamma}, mu0, fine, method="anderson")
    rate = np.asarray(eq.mu)[:, :, None] * np.asarray(eq.rates)
    pieces = 0.5 * (rate[1:] + rate[:-1]) * np.diff(fine.times)[:, None, None]
    return pieces.reshape(6, substeps, 3, 3).sum(axis=1)


def test_flows_are_integrals_of_share_times_rate(fitted, found) -> None:
    gammas = fitted.tree["posterior"]["gamma"].isel(chain=0, time=0).to_numpy()
    for draw in (0, DRAWS - 1):
        right = np.mean([by_hand(gamma, mu0, 40) for gamma, mu0 in zip(gammas[draw], STARTS, strict=True)], axis=0)
        away = np.abs(found.data["moved"].isel(draw=draw).to_numpy() - right)
        assert np.median(away) < 1e-5 and away.max() < 3e-4  # largest where a rate reaches zero inside a step
    assert found.data["moved"].dims == ("draw", "interval", "origin", "destination")
    np.testing.assert_allclose(np.einsum("ntii->nti", found.data["moved"].to_numpy()), 0.0, atol=0)
    np.testing.assert_allclose(found.data["interval"], 0.5 * (GRID.times[1:] + GRID.times[:-1]))


def test_net_flows_add_up_to_the_change_of_the_population(fitted, found) -> None:
    changed = np.diff(found.data["mu"].to_numpy(), axis=1)
    np.testing.assert_allclose(found.net.transpose("draw", "interval", "state"), changed, atol=3e-4)
    np.testing.assert_allclose(found.net.sum("state"), 0.0, atol=1e-14)
    np.testing.assert_allclose(found.data["mu"], fitted.tree["posterior"]["mu"].isel(chain=0).mean("trajectory"), atol=1e-9)


def test_what_is_left_falls_with_the_square_of_the_step() -> None:
    left = []
    for substeps in (1, 2):
        eq = solve(GAME, {"gamma": 1.5}, STARTS[0], TimeGrid(horizon=1.2, points=7, substeps=substeps), method="anderson")
        moved = np.asarray(moves(eq))
        net = moved.sum(axis=1) - moved.sum(axis=2)
        left.append(np.abs(net - np.diff(np.asarray(eq.mu), axis=0)).max())
    assert 3.3 < left[0] / left[1] < 4.7


def test_trajectories_and_draws_can_be_chosen(fitted, found) -> None:
    each = [flows(fitted, trajectories=[name], num_draws=2) for name in ("north", "south")]
    assert [one.data.sizes["draw"] for one in each] == [2, 2]
    both = 0.5 * (each[0].data["moved"].to_numpy() + each[1].data["moved"].to_numpy())
    np.testing.assert_allclose(both, found.data["moved"].isel(draw=[0, DRAWS - 1]), atol=1e-12)
    assert not np.allclose(each[0].data["moved"], each[1].data["moved"], atol=1e-3)
    assert each[1].trajectories == ("south",)
    np.testing.assert_array_equal(each[0].data["draw"], [0, DRAWS - 1])  # as the posterior counts them
    for wrong in ({"trajectories": ["west"]}, {"trajectories": []}, {"num_draws": DRAWS + 1}):
        with pytest.raises(InputError, match="flows:"):
            flows(fitted, **wrong)
    with pytest.raises(InputError, match="loaded without its model"):
        flows(Fit(fitted.tree))


def test_table_and_sentences_name_the_largest(found) -> None:
    table = found.table()
    assert list(table["moved"]) == sorted(table["moved"], reverse=True) and len(table) == 6
    whole = found.data["moved"].sum("interval")
    for wrong in (90, "x"):
        with pytest.raises(InputError, match="table: ci_prob is"):
            found.table(wrong)
    first = table.iloc[0]
    a, b = table.index[0].split(" to ")
    np.testing.assert_allclose(first["moved"], float(whole.sel(origin=a, destination=b).median()))
    assert first["low"] <= first["moved"] <= first["high"]
    middle = found.data["moved"].sel(origin=a, destination=b).median("draw")
    assert first["busiest"] == float(middle["interval"][int(np.argmax(middle.to_numpy()))])
    assert any(table.index[0] in sentence for sentence in found.sentences)
    net = found.net.sum("interval").quantile([0.05, 0.95], "draw")
    for k, word in ((0, "gain"), (1, "lose")):
        sure = [s for s in "ABC" if (float(net.sel(state=s)[0]) > 0, float(net.sel(state=s)[1]) < 0)[k]]
        told = [sentence for sentence in found.sentences if f" {word}" in sentence]
        assert bool(told) == bool(sure) and all(f"{s} (" in told[0] for s in sure)


def test_places_are_drawn_where_they_are(fitted, found, tmp_path) -> None:
    assert found.places == PLACES
    at = movement_map.layout(["A", "B", "C"], PLACES)
    assert at[0, 0] < at[1, 0] and at[0, 1] < at[1, 1]  # A is the western and the northern one; y runs downwards
    # Lengths on the ground: 0.02 degrees of longitude at this latitude are 0.79 times as many of latitude.
    np.testing.assert_allclose((at[1, 0] - at[0, 0]) / (at[1, 1] - at[0, 1]), np.cos(np.radians(37.79)), rtol=1e-6)
    assert at[2, 1] > at[1, 1]  # no place: below the map
    ring = movement_map.layout(["A", "B", "C"], {})
    assert len({tuple(p) for p in ring.round(3)}) == 3
    path = tmp_path / "report.html"
    fitted.report(path, also=[found])
    page = path.read_text(encoding="utf-8")
    assert "Who moves where" in page and page.count('<circle class="gains') + page.count('<circle class="loses') == 3
    assert "Map" in page and found.sentences[1].split(" (")[0] in page
    drawn = found.plot(tmp_path / "flows.svg").read_text(encoding="utf-8")
    assert drawn.startswith("<svg") and "net flow into A" in drawn


def test_a_draw_without_an_equilibrium_is_counted(fitted) -> None:
    tree = fitted.tree.copy(deep=True)
    tree["unconstrained_posterior"]["latent"][0, 2] = np.nan
    left = flows(Fit(tree, fitted.model))
    assert left.lost == 1 and left.data["draw"].to_numpy().tolist() == [0, 1, *range(3, DRAWS)]
    assert any("1 draw left out" in sentence for sentence in left.sentences)
    assert json.dumps(left.sentences)
    tree["unconstrained_posterior"]["latent"][0, : DRAWS // 2 + 1] = np.nan
    with pytest.raises(FitError, match="flows: an equilibrium was not found again in 13 of 24 draws; what is left says nothing"):
        flows(Fit(tree, fitted.model))


def test_flows_of_another_branch_are_none() -> None:
    moved, mu = np.full((2, 3, 3), 0.1), np.full((3, 3), 1 / 3)
    np.testing.assert_array_equal(on_branch(moved, mu + 1e-6, mu), moved)
    other = mu + np.array([[0.0] * 3, [0.0] * 3, [0.01, -0.01, 0.0]])
    assert np.isnan(on_branch(moved, other, mu)).all()


def test_a_point_has_no_bands(fitted) -> None:
    tree = fitted.tree.copy(deep=True)
    tree.attrs["warnings"] = json.dumps(["The guide is far from the posterior."])
    one = flows(Fit(tree, fitted.model), num_draws=1)
    assert not one.banded and "without bands" in one.sentences[0]
    assert not any("the band says" in text or " to 0." in text for text in one.sentences)
    assert one.sentences[-1] == "The fit warns: The guide is far from the posterior."
    assert one.drawn.count("<circle") == one.drawn.count('loses unsure"') + one.drawn.count('gains unsure"') == 3
    assert one.drawn.count('class="net') == one.drawn.count('class="net unsure"') > 0
    assert "post90" not in one.figures


def test_arrows_go_by_the_draws_net_flows() -> None:
    """Differences of medians are no medians of differences."""
    moved = np.zeros((3, 1, 2, 2))
    moved[:, 0, 0, 1], moved[:, 0, 1, 0] = (0.30, 0.20, 0.10), (0.25, 0.15, 0.40)
    states = ["A", "B"]
    data = xr.Dataset(
        {
            "moved": (("draw", "interval", "origin", "destination"), moved),
            "mu": (("draw", "time", "state"), np.full((3, 2, 2), 0.5)),
        },
        coords={"interval": [5.0], "time": [0.0, 10.0], "origin": states, "destination": states, "state": states},
    )
    found = Flows(data, ("day",), {}, seen=4.0)
    assert "Largest net flow: A to B, 0.0500" in found.drawn
    assert found.sentences[0].startswith("Flows from 0 to 10.0, from 4.00 on a forecast: means over 1 trajectory")


def test_the_busiest_interval_is_that_of_the_fastest_flow() -> None:
    moved = np.zeros((1, 2, 2, 2))
    moved[0, :, 0, 1] = 0.1, 0.2
    data = xr.Dataset(
        {
            "moved": (("draw", "interval", "origin", "destination"), moved),
            "mu": (("draw", "time", "state"), np.full((1, 3, 2), 0.5)),
        },
        coords={"interval": [0.5, 5.5], "time": [0.0, 1.0, 10.0], "origin": [0, 1], "destination": [0, 1], "state": [0, 1]},
    )
    assert Flows(data, ("day",), {}).table().loc["0 to 1", "busiest"] == 0.5
