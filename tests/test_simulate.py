"""Protects simulated data: they are equilibria, noise is what it says, the truth is kept, and what is written reads back."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bayes_mfg.data import Population, read_table, simulate
from bayes_mfg.data.simulate import Arc, Bell, OfPopulation
from bayes_mfg.equilibrium import TimeGrid, solve
from bayes_mfg.errors import DataError, InputError
from bayes_mfg.games import SIR, LinearQuadratic

GAME = LinearQuadratic()
GRID = TimeGrid(horizon=2.0, points=21)
STARTS = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
ARC = Arc(0.1, 2.9, horizon=2.0)


def made(**options: Any) -> Population:
    return simulate(GAME, {"gamma": ARC}, STARTS, GRID, **options)


@pytest.mark.parametrize(
    ("params", "scheme"),
    [({"gamma": 1.55}, "exponential"), ({"gamma": ARC}, "paper"), ({"gamma": OfPopulation(0.1, 2.9)}, "exponential")],
    ids=["constant", "arc", "population"],
)
def test_without_noise_the_equilibria_are_observed(params: dict[str, Any], scheme: str) -> None:
    population = simulate(GAME, params, STARTS, GRID, scheme=scheme)
    assert population.proportions is not None
    for r, start in enumerate(STARTS):
        eq = solve(GAME, params, start, GRID, scheme=scheme)
        np.testing.assert_allclose(population.proportions[r], eq.mu, atol=1e-9)
    assert population.states == GAME.state_names
    assert population.trajectories == ("1", "2")


def test_shapes_are_those_of_the_benchmarks() -> None:
    t, mu = jnp.linspace(0, 2, 5), jnp.array([0.25, 0.25, 0.5])
    np.testing.assert_allclose(ARC(t, mu), 0.1 + 2.9 * (4 / 2**2) * t * (2 - t), rtol=1e-12)
    np.testing.assert_allclose(Bell(0.1, 2.9, horizon=2.0)(t, mu), 0.1 + 2.9 * np.exp(-10 * (np.asarray(t) - 1) ** 2), rtol=1e-12)
    assert float(OfPopulation(0.1, 2.9, state=2)(0.0, mu)) == pytest.approx(0.1 + 2.9 * 0.5)
    np.testing.assert_allclose(Arc(0.1, 2.9, horizon=2.0, start=5.0)(t + 5, mu), ARC(t, mu), rtol=1e-12)


def test_truth_is_kept() -> None:
    kept = made(noise="dirichlet", size=1e-3, seed=3).provenance
    np.testing.assert_allclose(kept["parameters"]["gamma"], ARC(jnp.asarray(GRID.times), jnp.zeros(3)))
    assert (kept["noise"], kept["noise_size"], kept["seed"], kept["game"]) == ("dirichlet", 1e-3, 3, "LinearQuadratic")
    np.testing.assert_allclose(kept["initial"], STARTS)
    assert kept["constants"]["terminal_slope"] == 5.0
    of_population = simulate(GAME, {"gamma": OfPopulation(0.1, 2.9)}, STARTS, GRID)
    gamma = np.asarray(of_population.provenance["parameters"]["gamma"])
    np.testing.assert_allclose(gamma, 0.1 + 2.9 * of_population.shares[..., 0], atol=1e-9)
    assert simulate(GAME, {"gamma": 1.5}, STARTS, GRID).provenance["parameters"] == {"gamma": 1.5}


# Variance of one cell around the equilibrium share m.
VARIANCES = {
    "dirichlet": (1e-2, lambda m: m * (1 - m) * 1e-2 / (1 + 1e-2)),
    "multinomial": (200, lambda m: m * (1 - m) / 200),
}


@pytest.mark.parametrize("noise", VARIANCES)
def test_noise_has_the_mean_and_the_variance_that_it_states(noise: str) -> None:
    """The false-alarm rate is below 1e-4 for both bounds: 5 standard errors for the mean of a state's 400 cells; the mean of the
    1,200 squared z-scores has a standard error of about 0.06 (kurtosis below 6), and 0.3 is 5 of them."""
    size, variance = VARIANCES[noise]
    starts = np.repeat(STARTS[:1], 20, axis=0)
    exact = simulate(GAME, {"gamma": ARC}, starts, GRID).shares[:, 1:]
    noisy = simulate(GAME, {"gamma": ARC}, starts, GRID, noise=noise, size=size, seed=1).shares[:, 1:]
    z = (noisy - exact) / np.sqrt(variance(exact))
    assert abs(z.mean(axis=(0, 1))).max() < 5 / np.sqrt(z[..., 0].size)
    assert abs(np.mean(z**2) - 1) < 0.3


def test_counts_have_the_total_and_gaussian_shares_sum_to_one() -> None:
    counts = made(noise="multinomial", size=50)
    assert counts.counts is not None and np.all(counts.counts.sum(axis=-1) == 50)
    shares = made(noise="gaussian", size=0.5).proportions
    assert shares is not None and np.all(shares >= 0)
    np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-12)


def test_a_state_without_anyone_stays_without() -> None:
    game, grid = SIR(), TimeGrid(horizon=10.0, points=6)
    population = simulate(game, {"beta": 0.6, "recovery": 0.1}, [0.99, 0.01, 0.0], grid, noise="dirichlet", size=1e-2)
    assert population.proportions is not None
    assert population.proportions[0, 0, 2] == 0.0
    assert np.isfinite(population.proportions).all()


def test_the_seed_decides_the_noise_alone() -> None:
    one, same, other = (made(noise="dirichlet", size=1e-3, seed=s).shares for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(made(seed=0).shares, made(seed=1).shares)


def test_every_so_many_grid_points_are_observed() -> None:
    some = made(observe_every=5)
    np.testing.assert_allclose(some.times, GRID.times[::5])
    np.testing.assert_allclose(some.shares, made().shares[:, ::5])


def test_a_failed_solve_names_its_trajectory() -> None:
    with pytest.raises(DataError, match=r"trajectory 'b': The equilibrium was not found: the iterations ran out"):
        simulate(
            LinearQuadratic(congestion=20.0, terminal_congestion=20.0),
            {"gamma": 0.1},
            STARTS,
            TimeGrid(horizon=5.0, points=21),
            method="anderson",
            trajectories=["b", "c"],
        )


BAD: list[tuple[dict[str, Any], str]] = [
    ({"mu0": [0.5, 0.5]}, "mu0 has shape"),
    ({"mu0": [0.5, 0.1, 0.1]}, "sum to 1"),
    ({"mu0": [np.nan, 0.5, 0.5]}, "nan"),
    ({"noise": "poisson"}, "'poisson'"),
    ({"noise": "dirichlet"}, "size is None"),
    ({"noise": "dirichlet", "size": -1.0}, "size is -1.0"),
    ({"noise": "multinomial", "size": 2.5}, "whole number of individuals"),
    ({"size": 1.0}, "there is no noise"),
    ({"observe_every": 0}, "observe_every is 0"),
    ({"observe_every": 21}, "two observed"),
    ({"seed": -1}, "seed is -1"),
    ({"trajectories": ["a", "b"]}, "2 names"),
    ({"params": {"delta": 1.0}}, "no parameter 'delta'"),
    ({"method": "magic"}, "Unknown method 'magic'"),
]


@pytest.mark.parametrize(("options", "fragment"), BAD, ids=[fragment for _, fragment in BAD])
def test_bad_arguments_are_refused(options: dict[str, Any], fragment: str) -> None:
    mu0, params = options.pop("mu0", STARTS[0]), options.pop("params", {"gamma": 1.0})
    with pytest.raises(InputError) as caught:
        simulate(GAME, params, mu0, GRID, **options)
    assert fragment in str(caught.value)


@pytest.mark.parametrize("options", [{"noise": "dirichlet", "size": 1e-3}, {"noise": "multinomial", "size": 100}], ids=str)
def test_what_is_simulated_reads_back_from_a_table(options: dict[str, Any], tmp_path: Path) -> None:
    population = made(**options)
    file = tmp_path / "x.csv"
    population.to_table().to_csv(file, index=False)
    again = read_table(file)
    np.testing.assert_array_equal(again.times, population.times)
    np.testing.assert_array_equal(again.shares, population.shares)
    assert (again.states, again.trajectories) == (population.states, population.trajectories)


def test_parameters_outside_their_support_are_refused() -> None:
    with pytest.raises(InputError, match="LinearQuadratic: gamma is -1"):
        simulate(LinearQuadratic(), {"gamma": -1.0}, [0.2, 0.3, 0.5], TimeGrid(1.0, 5))
