"""The benchmarks of the paper: settings, rows, and the command that makes them."""

import dataclasses
import json
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from bayes_mfg.cli import main
from bayes_mfg.equilibrium import solve
from bayes_mfg.errors import InputError
from bayes_mfg.inference import find_mode
from bayes_mfg.reproduce import SYSTEMS, Benchmark, Row, benchmark, reproduce, table, training_model


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"system": "lqr"}, "no benchmark system 'lqr'; choose one of lq, mfc"),
        ({"system": "lq", "case": "square"}, "has no case 'square'; choose one of constant, arc, bell, population"),
        ({"system": "lq", "states": 5}, "no version with 5 states"),
        ({"system": "lq", "noise": -1.0}, "noise is -1.0"),
        ({"system": "lq", "noise": math.nan}, "noise is nan"),
        ({"system": "lq", "method": "mcmc"}, "no method 'mcmc'"),
        ({"system": "lq", "seeds": 0}, "seeds is 0"),
        ({"system": "lq", "finer": 1.5}, "finer is 1.5"),
    ],
)
def test_unknown_names_and_numbers_are_refused(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        next(reproduce(**options))


def test_every_case_has_a_prior_for_every_true_parameter() -> None:
    """Emissions searches its equilibria first; it has tests of its own."""
    for system, (_, cases, sizes) in SYSTEMS.items():
        if system == "emissions":
            continue
        for case in cases:
            one = benchmark(system, case, sizes[-1])
            one.game.check_parameters(one.paths)
            assert set(one.truth) <= set(one.paths)
            assert one.game.n_states == one.states
            starts = one.starts(np.random.default_rng(0), 3, one.states)
            assert starts.shape == (3, one.states)
            np.testing.assert_allclose(starts.sum(axis=1), 1.0)


def test_the_live_variant_of_cybersecurity_is_a_game() -> None:
    """Unlike at the paper's values, the optimal switching changes over time, and with the population at the start."""
    switching = {}
    for case in ("constant", "live"):
        one = benchmark("cybersecurity", case)
        params = {name: jnp.asarray(value) for name, value in one.truth.items()}

        @jax.jit
        def response(start: Array, one: Benchmark = one, params: dict = params) -> tuple[Array, Array]:
            eq = solve(one.game, one.truth, start, one.grid)
            return jax.vmap(lambda t, u, m: one.game.best_response(t, u, m, params))(
                one.grid.times, eq.value, eq.mu
            ), eq.converged

        found, converged = zip(*(response(start) for start in np.eye(4)), strict=True)
        assert all(converged)
        switching[case] = np.stack(found)[:, :-1]  # at the last time nothing is left to gain
    change = {case: np.ptp(x, axis=1).max(axis=-1) for case, x in switching.items()}
    assert (change["live"] > 0.5).all()
    assert np.ptp(switching["live"], axis=0).max() > 0.2
    assert np.ptp(switching["constant"][:, :80], axis=1).max() < 1e-3


def test_table_takes_medians_over_seeds() -> None:
    row = Row("lq", "arc", 1e-3, 3, "game", "svi", 0, 1.0, 1.0, 0.1, 0.8, 1.0, 0.1, 0.3, math.nan, 5.0)
    rows = [
        row,
        dataclasses.replace(row, seed=1, gamma_error=0.2, coverage90=0.9),
        dataclasses.replace(row, seed=2, gamma_error=0.9),
    ]
    made = table(rows)
    assert made["gamma_error"].item() == 0.2
    assert made["coverage90"].item() == pytest.approx((0.8 + 0.9 + 0.8) / 3)
    assert made["seeds"].item() == 3


@pytest.mark.slow
def test_a_row_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two small data sets of the constant benchmark: the fit reaches the noise floor, and the rows are whole."""
    target = tmp_path / "rows.json"
    words = [
        "reproduce",
        "lq",
        "--noise",
        "1e-3",
        "--trajectories",
        "5",
        "--seeds",
        "2",
        "--draws",
        "200",
        "--json",
        str(target),
        "--quiet",
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert f"rows: {target}" in printed
    rows = json.loads(target.read_text())
    assert [row["seed"] for row in rows] == [0, 1]
    for row in rows:
        assert set(row) == {field.name for field in dataclasses.fields(Row)}
        assert row["mu_error"] <= 1.05 * row["noise_floor"]
        assert row["gamma_error"] < 0.1
        assert row["coverage90"] in (0.0, 1.0)
        assert row["pareto_k"] < 0.7
        assert row["r_hat"] is None


def test_the_command_refuses_a_bad_place_for_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep = tmp_path / "data.csv"
    keep.write_text("precious")
    assert main(["reproduce", "lq", "--json", str(keep)]) == 2
    assert main(["reproduce", "lq", "--json", str(tmp_path / "no" / "rows.json")]) == 2
    assert keep.read_text() == "precious"
    assert "only an older file of rows (.json) is replaced" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.slow
def test_the_live_game_is_recovered_by_way_of_softer_games() -> None:
    """From the prior median alone the search ends far from there."""
    chosen = benchmark("cybersecurity", "live")
    model = training_model(chosen, "svi", noise=1e-3, trajectories=5)
    alone = find_mode(model, starts=1, curvature=False, progress=False)
    (row,) = reproduce("cybersecurity", case="live", trajectories=5, draws=100, progress=False)
    assert row.mu_error < 1.05 * row.noise_floor
    assert row.gamma_error < 0.1
    (word,) = [word for word in row.warnings if "different log densities" in word]
    highest, other = (float(x) for x in re.findall(r"-?\d+\.\d", word)[:2])
    assert highest > -alone.starts[0] + 1000
    assert other == pytest.approx(-alone.starts[0], abs=0.1)


@pytest.mark.slow
def test_where_the_disease_is_known_the_contact_cost_tells_avoidance() -> None:
    """Beta and recovery are learned where nobody avoids anybody, on data of their own; what is left is the contact cost."""
    found = {}
    for world in ("plain", "avoid"):
        (row,) = reproduce("epidemic", case=f"150-{world}-known", draws=100, progress=False)
        assert set(row.estimates) == {"contact_cost"}
        assert set(row.given) == {"beta", "recovery"}
        found[world] = row
    assert found["avoid"].given == found["plain"].given
    assert found["avoid"].estimates["contact_cost"][2] < found["plain"].estimates["contact_cost"][0]


def test_a_model_with_parameters_of_other_data_is_not_made_without_these() -> None:
    with pytest.raises(InputError, match="learned from data of '150-plain'"):
        training_model(benchmark("epidemic", "150-avoid-known"), "svi")
