"""Protects simulated data: they are equilibria, noise is what it says, the truth is kept, and what is written reads back."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from bayes_mfg.config.simulation import load_simulation
from bayes_mfg.data import Population, read_table, simulate
from bayes_mfg.data.simulate import Arc, Bell, OfPopulation, _between, _move, _record, _transitions
from bayes_mfg.equilibrium import ExponentialMidpoint, Paper, Scheme, TimeGrid, solve
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


def test_no_one_is_nobody_under_dirichlet_noise() -> None:
    """Shares that underflow are tiny, not zero, which a Dirichlet likelihood could not hold; where there is nobody there stays nobody."""
    rng = np.random.default_rng(0)
    mu = np.tile([1e-6, 0.0, 1.0 - 1e-6], (1, 50, 1))
    shares = _record(mu, "dirichlet", 1e-2, rng)
    assert (shares[..., 0] > 0).all()
    assert (shares[..., 1] == 0).all()
    np.testing.assert_allclose(shares.sum(axis=-1), 1.0)


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


# Agents that play the equilibrium. All share the compiled solves of the tests above.


@pytest.mark.parametrize(("scheme", "observe_every"), [("exponential", 1), ("exponential", 4), ("paper", 1)])
def test_agents_are_the_equilibrium_on_average(scheme: str, observe_every: int) -> None:
    """A million independent agents: each share within 5.6 standard errors. By a union bound over 300 cells the false-alarm rate is below 1e-5."""
    agents = 10**6
    counts = made(noise="agents", size=agents, seed=2, scheme=scheme, observe_every=observe_every).counts
    assert counts is not None and np.all(counts.sum(axis=-1) == agents)
    mu = made(scheme=scheme, observe_every=observe_every).shares
    assert abs((counts - agents * mu) / np.sqrt(agents * mu * (1 - mu))).max() < 5.6


@pytest.mark.parametrize("scheme", [ExponentialMidpoint(), Paper()], ids=["default", "paper"])
def test_transition_probabilities_are_the_exponential_of_the_midpoint_s_rates_or_euler_s_of_the_left(
    scheme: ExponentialMidpoint | Paper,
) -> None:
    """At any population and value, an equilibrium or not: they are the rates' own."""
    rng = np.random.default_rng(0)
    mu, value = rng.dirichlet(np.ones(3), size=21), rng.standard_normal((21, 3))
    given = (jnp.asarray(mu)[None], jnp.asarray(value)[None])
    found = np.asarray(_transitions(GAME, {"gamma": ARC}, jnp.asarray(mu[:1]), GRID, scheme, False, given))[0]
    middle, h = isinstance(scheme, ExponentialMidpoint), 0.1
    for n, p in enumerate(found):
        m, v = (jnp.asarray(0.5 * (a[n] + a[n + 1]) if middle else a[n]) for a in (mu, value))
        t = GRID.times[n] + 0.5 * h * middle
        params = {"gamma": ARC(t, m)}
        q = np.asarray(GAME.rates(t, GAME.best_response(t, v, m, params), m, params))
        q = h * (q - np.diag(q.sum(axis=1)))
        np.testing.assert_allclose(p, expm(q) if middle else np.eye(3) + q, atol=1e-4 if middle else 1e-12)
        assert not middle or p.min() >= 0


def test_transitions_are_composed_between_observed_times() -> None:
    moves = np.random.default_rng(0).dirichlet(np.ones(3), size=(2, 20, 3))
    between = _between(moves, 6, ["1", "2"], GRID, GAME.state_names)
    assert between.shape == (2, 3, 3, 3)
    for r, k in np.ndindex(2, 3):
        np.testing.assert_allclose(between[r, k], np.linalg.multi_dot(moves[r, 6 * k : 6 * k + 6]), rtol=1e-12)


def test_agents_have_the_variances_and_covariances_of_a_markov_chain() -> None:
    """Products of deviations over 5,000 trajectories: at one time `n mu (1 - mu)`, at successive times `n mu(x) (P(x, x) - mu'(x))`, where
    samples drawn anew would have 0. By a union bound over 33 statistics within 5.6 standard errors, the false-alarm rate is below 1e-5."""
    runs, agents = 5000, 50
    between = np.random.default_rng(0).dirichlet(np.full(3, 0.5), size=(5, 3)) / 2 + np.eye(3) / 2
    mu = [STARTS[0]]
    for p in between:
        mu.append(mu[-1] @ p)
    shares, stay = np.array(mu), np.einsum("txx->tx", between)
    starts, moves = np.repeat(STARTS[:1], runs, axis=0), np.repeat(between[None], runs, axis=0)
    centred = _move(starts, moves, agents, np.random.default_rng(1)) - agents * shares
    for product, expected in (
        (centred**2, agents * shares * (1 - shares)),
        (centred[:, 1:] * centred[:, :-1], agents * shares[:-1] * (stay - shares[1:])),
    ):
        error = product.std(axis=0) / np.sqrt(runs)
        assert abs((product.mean(axis=0) - expected) / error).max() < 5.6
        assert expected.min() > 0


def test_agents_do_not_leave_an_absorbing_state_nor_enter_one_without_entry() -> None:
    grid, params = TimeGrid(horizon=10.0, points=6), {"beta": 0.6, "recovery": 0.1}
    for seed in range(10):
        counts = simulate(SIR(), params, [0.9, 0.1, 0.0], grid, noise="agents", size=200, seed=seed).counts
        assert counts is not None and np.all(counts.sum(axis=-1) == 200)
        assert np.all(np.diff(counts[0, :, 2]) >= 0) and np.all(np.diff(counts[0, :, 0]) <= 0)
        assert counts[0, 0, 2] == 0 and counts[0, -1, 2] > 0


@pytest.mark.slow
def test_agents_in_single_precision() -> None:
    with jax.enable_x64(False):
        population = made(noise="agents", size=1000, seed=1, method="anderson")
    assert population.counts is not None and np.all(population.counts.sum(axis=-1) == 1000)


def test_negative_probabilities_are_refused() -> None:
    """As Euler's are where an exit rate times the step exceeds one."""
    moves = np.broadcast_to(np.eye(3), (2, 20, 3, 3)).copy()
    moves[1, 3, 0] = [-0.25, 0.25, 1.0]
    with pytest.raises(
        DataError, match=r"trajectory 'b': the probability to move from 0 to 0 at time 0\.3\d* is -0\.25.* more substeps"
    ):
        _between(moves, 2, ["a", "b"], GRID, GAME.state_names)


def test_agents_need_a_scheme_with_transition_probabilities() -> None:
    other = type("Other", (Scheme,), dict.fromkeys(Scheme.__abstractmethods__))()
    with pytest.raises(DataError, match=r"Other.* has no transition probabilities"):
        made(noise="agents", size=10, scheme=other)


def test_agents_from_a_config(tmp_path: Path) -> None:
    text = """
        game = {name = "LinearQuadratic"}
        parameters = {gamma = {shape = "arc", low = 0.1, rise = 2.9}}
        initial = {mu0 = [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]}
        grid = {horizon = 2.0, points = 21}
        noise = {kind = "agents", size = 30}
    """
    file = tmp_path / "agents.toml"
    file.write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(load_simulation(file).run().shares, made(noise="agents", size=30).shares)
    file.write_text(text.replace("30", "2.5"), encoding="utf-8")
    with pytest.raises(InputError, match=r"size is 2\.5; expected a positive whole number of agents"):
        load_simulation(file).run()


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
    ({"noise": "agents"}, "size is None"),
    ({"noise": "agents", "size": 2.5}, "whole number of agents"),
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


@pytest.mark.parametrize(
    "options",
    [{"noise": "dirichlet", "size": 1e-3}, {"noise": "multinomial", "size": 100}, {"noise": "agents", "size": 100}],
    ids=str,
)
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
