"""The games of the systems beyond LQ and SIR: responses, flows, convergence, order, derivatives, and what is known of each alone."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from scipy.linalg import expm

from bayes_mfg.config.calibration import GAMES
from bayes_mfg.config.values import Place, construct
from bayes_mfg.equilibrium import TimeGrid, exploitability, solve
from bayes_mfg.errors import InputError
from bayes_mfg.games import (
    SIR,
    BikeShare,
    Cybersecurity,
    ElFarol,
    Emissions,
    ForwardDynamics,
    Game,
    LinearQuadratic,
    MeetingArrival,
)
from bayes_mfg.reproduce.systems import VIRUS

BASE = np.random.default_rng(3).uniform(0.3, 2.0, (6, 6))
BIKES = BikeShare(effort=0.5, congestion=2.0, terminal_cost=[0.0, 1.0, 0.5, 1.5, 0.2, 0.8])
BAR = {"threshold": 0.6, "crowding": 4.0, "regret": 3.0, "switching_cost": 0.5}
MEETING = {"quorum": 0.5, "lateness": 12.0, "absence": 8.0, "waiting": 2.0}


def _at(d: int, x: int) -> np.ndarray:
    return np.eye(d)[x]


@dataclasses.dataclass(frozen=True)
class Setting:
    """A game as it is played, a smaller one to differentiate, and the controls that its agents choose."""

    game: Game
    params: dict[str, Any]
    mu0: np.ndarray
    grid: TimeGrid
    small: Game
    small_mu0: np.ndarray
    small_grid: TimeGrid
    small_params: dict[str, Any]
    controls: tuple[tuple[int, ...], ...]
    largest: float


SETTINGS = {
    "Cybersecurity": Setting(
        Cybersecurity(),
        VIRUS,
        np.array([0.1, 0.6, 0.1, 0.2]),
        TimeGrid(10.0, 100),
        Cybersecurity(temperature=0.05),
        np.array([0.1, 0.6, 0.1, 0.2]),
        TimeGrid(5.0, 51),
        {**VIRUS, "defence_cost": 0.3, "infection_cost": 0.5, "switch_rate": 0.8, "attack_intensity": 0.6},
        tuple((x,) for x in range(4)),
        1.0,
    ),
    "BikeShare": Setting(
        BIKES,
        {"base_rate": BASE},
        np.array([0.3, 0.1, 0.1, 0.1, 0.1, 0.3]),
        TimeGrid(1.0, 64),
        BikeShare(3),
        np.array([0.5, 0.3, 0.2]),
        TimeGrid(1.0, 31),
        {
            "base_rate": BASE[:3, :3],
            "effort": 0.5,
            "congestion": 0.8,
            "terminal_cost": np.array([0.0, 1.0, 0.4]),
            "edge_value": BASE[3:, 3:] - 1.0,
        },
        tuple((x, y) for x in range(6) for y in range(6) if x != y),
        20.0,
    ),
    "Emissions": Setting(
        Emissions(),
        {},
        _at(20, 3),
        TimeGrid(6.0, 150),
        Emissions(5),
        np.array([0.2, 0.5, 0.2, 0.06, 0.04]),
        TimeGrid(3.0, 41),
        {"cap": 1.3, "price": 0.6, "base_rate": 0.9, "sharpness": 1.4},
        tuple((x,) for x in range(19)),
        1.0,
    ),
    "ElFarol": Setting(
        ElFarol(),
        BAR,
        np.array([0.9, 0.1]),
        TimeGrid(4.0, 101),
        ElFarol(),
        np.array([0.9, 0.1]),
        TimeGrid(4.0, 101),
        BAR,
        ((0,), (1,)),
        10.0,
    ),
    "MeetingArrival": Setting(
        MeetingArrival(),
        MEETING,
        np.array([0.0, 0.0, 0.0, 0.25, 0.25, 0.25, 0.25, 0.0, 0.0, 0.0]),
        TimeGrid(3.0, 101),
        MeetingArrival(4, width=0.05, schedule_width=0.1),
        np.array([0.05, 0.1, 0.3, 0.55]),
        TimeGrid(3.0, 101),
        {**MEETING, "schedule": 1.1},
        tuple((x,) for x in range(1, 10)),
        20.0,
    ),
}
# What an agent could gain at most at these settings, in units of cost: twice what was measured.
WORTH_LEAVING = {"Cybersecurity": 3e-8, "BikeShare": 1.4e-7, "Emissions": 1e-9, "ElFarol": 1e-7, "MeetingArrival": 5e-6}
each_game = pytest.mark.parametrize("name", SETTINGS)
# Three games in the quick run, the others' programs take long to compile.
each_gradient = pytest.mark.parametrize(
    "name",
    [
        "LQ",
        *(name if name in ("ElFarol", "MeetingArrival") else pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS),
    ],
)


# The agents' choice, and where it leads.


def _draws(name: str, n: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Random values and populations, with the setting's parameters scaled up and down within their ranges, stacked."""
    rng, setting = np.random.default_rng(7), SETTINGS[name]
    d = setting.game.n_states
    # The defence is worth about a hundredth of the cost of most other choices.
    scale = 0.01 if name == "Cybersecurity" else 3.0
    params = {k: np.stack([v * rng.uniform(0.7, 1.4) for _ in range(n)]) for k, v in setting.params.items()}
    return rng.normal(0.0, scale, (n, d)), rng.dirichlet(np.ones(d), n), params


@pytest.mark.parametrize("name", [*SETTINGS, "hard Cybersecurity"])
def test_best_response_minimises_the_hamiltonian(name: str) -> None:
    """No control on a dense grid is cheaper, entry by entry (the cost is separable), and the cheapest lies next to the response.

    The rates that follow are `(d, d)`, non-negative, zero on the diagonal.
    """
    hard, name = name.startswith("hard"), name.split()[-1]
    setting = SETTINGS[name]
    game = Cybersecurity(temperature=0.0) if hard else setting.game
    dense = np.linspace(0.0, setting.largest, 801)
    entries = np.array(setting.controls).T

    @jax.jit
    def tried(draws: tuple) -> tuple[Array, ...]:
        def one(draw: tuple) -> tuple[Array, ...]:
            value, mu, params = draw
            best = game.best_response(0.3, value, mu, params)

            def cost(control: Array) -> Array:
                rates = game.rates(0.3, control, mu, params)
                return game.running_cost(0.3, control, mu, params) + jnp.sum(rates * (value[None, :] - value[:, None]), axis=1)

            def along(*entry: Array) -> Array:
                return jax.vmap(lambda a: cost(best.at[entry].set(a))[entry[0]])(dense)

            return best[tuple(entries)], cost(best)[entries[0]], jax.vmap(along)(*entries), game.rates(0.3, best, mu, params)

        return lax.map(one, draws)

    best, least, trials, rates = (np.asarray(part) for part in tried(_draws(name, 6)))
    assert (trials.min(axis=-1) >= least - 1e-12 * np.maximum(1.0, np.abs(least))).all()
    assert np.abs(dense[trials.argmin(axis=-1)] - best).max() <= dense[1]
    assert best.min() < 0.1 * setting.largest and best.max() > 0.3 * setting.largest
    d = game.n_states
    assert rates.shape == (6, d, d) and rates.min() >= 0.0
    assert (np.diagonal(rates, axis1=1, axis2=2) == 0.0).all()


@functools.cache
def _solved(name: str) -> Any:
    setting = SETTINGS[name]
    return solve(setting.game, setting.params, setting.mu0, setting.grid)


@each_game
def test_equilibrium_is_found(name: str) -> None:
    """The default scheme and method converge at the stated settings; nobody is lost, no share is negative, and leaving the crowd does not pay."""
    eq = _solved(name)
    assert bool(eq.converged), eq.status.message
    assert float(eq.residual) < 1e-9
    assert np.asarray(eq.mu).min() >= 0.0
    np.testing.assert_allclose(np.sum(eq.mu, axis=1), 1.0, atol=1e-12)
    assert abs(float(exploitability(SETTINGS[name].game, eq, refine=4))) < WORTH_LEAVING[name]


@pytest.mark.slow
def test_exploitability_falls_with_the_grid() -> None:
    """Halving the step takes nine tenths of what an agent could gain by deviating: it is of fourth order in the step.

    Of the game that compiles quickest; all five fell by a factor of 16 when this was written.
    """
    setting = SETTINGS["ElFarol"]
    half = dataclasses.replace(setting.grid, points=51)
    coarse = solve(setting.game, setting.params, setting.mu0, half, method="anderson")
    gains = [float(exploitability(setting.game, eq, refine=4)) for eq in (coarse, _solved("ElFarol"))]
    assert gains[0] >= 10.0 * gains[1] > 0.0, gains


# Derivatives.


@each_gradient
def test_gradient_by_every_parameter(name: str) -> None:
    """Reverse mode within 1e-6 of fourth-order central differences, block by block: required and optional parameters, and mu0.

    By explicit Euler, which compiles in half the time: test_derivatives.py has the schemes. MeetingArrival goes without mu0, LQ by a single cost:
    where only costs are differentiated, only the equation of the value moves.
    """
    if name == "LQ":
        game, mu0, grid, params = LinearQuadratic(), np.array([0.2, 0.3, 0.5]), TimeGrid(2.0, 41), {"congestion": 2.0}
        fixed: dict[str, Any] = {"gamma": 1.0, "mu0": mu0}
    else:
        setting = SETTINGS[name]
        game, mu0, grid, params = setting.small, setting.small_mu0, setting.small_grid, setting.small_params
        assert set(params) == set(game.parameters)
        fixed = {"mu0": mu0} if name == "MeetingArrival" else {}
    blocks = {**params, "mu0": mu0, **fixed}
    start, unravel = ravel_pytree({key: jnp.asarray(x) for key, x in blocks.items() if key not in fixed})
    weights = np.random.default_rng(5).normal(size=(grid.points, game.n_states))

    def loss(theta: Array) -> tuple[Array, Array]:
        given = {**fixed, **unravel(theta)}
        mu0 = given.pop("mu0")
        eq = solve(game, given, mu0 / jnp.sum(mu0), grid, method="newton", scheme="paper", tol=1e-13)
        return jnp.sum(weights * eq.mu + eq.mu**2), eq.converged

    theta = np.asarray(start)
    steps = 2e-4 * np.maximum(0.1, np.abs(theta))
    moved = [theta + k * steps[i] * np.eye(theta.size)[i] for i in range(theta.size) for k in (-2, -1, 1, 2)]
    (values, converged), gradients = jax.jit(jax.vmap(jax.value_and_grad(loss, has_aux=True)))(np.stack([theta, *moved]))
    assert np.asarray(converged).all()
    differences = np.asarray(values)[1:].reshape(-1, 4) @ (np.array([1.0, -8.0, 8.0, -1.0]) / 12.0) / steps
    found, expected = unravel(gradients[0]), unravel(jnp.asarray(differences))
    for key in found:
        size = np.linalg.norm(expected[key])
        assert size > 1e-4, key
        assert np.linalg.norm(found[key] - expected[key]) <= 1e-6 * size, key


def test_gradients_at_a_certain_choice_are_finite() -> None:
    """A response that rounds to 0 or 1 leaves finite derivatives of the entropy, in the game and through the equilibrium."""
    game, value, mu = Cybersecurity(temperature=1e-4), jnp.array([3.0, 1.0, -3.0, -3.0]), jnp.full(4, 0.25)

    def cost(value: Array, temperature: Array) -> Array:
        played = Cybersecurity(temperature=temperature)
        control = played.best_response(0.0, value, mu, VIRUS)
        return jnp.sum(played.running_cost(0.0, control, mu, VIRUS))

    assert set(np.asarray(game.best_response(0.0, value, mu, VIRUS))) == {0.0, 1.0}
    assert all(np.isfinite(part).all() for part in jax.grad(cost, argnums=(0, 1))(value, jnp.asarray(1e-4)))


# What is known of each game alone.


def test_cybersecurity_formulas() -> None:
    """Rates and costs of systems.md, entry by entry: DI pays both, DS and UI one each, US none."""
    game, p = Cybersecurity(temperature=0.0), VIRUS
    mu = np.array([0.1, 0.2, 0.3, 0.4])
    control = game.best_response(0.0, jnp.array([4.0, 2.0, 3.0, 2.0]), mu, p)
    np.testing.assert_array_equal(control, [1.0, 0.0, 0.0, 0.0])  # a tie is no reason to move
    rates = np.zeros((4, 4))
    rates[0, 1], rates[2, 3], rates[0, 2] = 0.5, 0.4, 0.8
    rates[1, 0] = 0.6 * 0.4 + 0.4 * mu[0] + 0.4 * mu[2]
    rates[3, 2] = 0.6 * 0.3 + 0.3 * mu[2] + 0.3 * mu[0]
    np.testing.assert_allclose(game.rates(0.0, control, mu, p), rates, rtol=1e-14)
    np.testing.assert_allclose(game.running_cost(0.0, control, mu, p), [0.8, 0.3, 0.5, 0.0], rtol=1e-14)
    undecided = Cybersecurity(temperature=0.2)
    half = undecided.best_response(0.0, jnp.zeros(4), mu, p)
    np.testing.assert_array_equal(half, np.full(4, 0.5))
    np.testing.assert_allclose(undecided.running_cost(0.0, half, mu, p), [0.8, 0.3, 0.5, 0.0], atol=1e-15)
    sure = undecided.running_cost(0.0, jnp.array([0.0, 1.0, 0.0, 1.0]), mu, p)
    np.testing.assert_allclose(sure, np.array([0.8, 0.3, 0.5, 0.0]) + 0.2 * np.log(2.0), rtol=1e-14)


def test_temperature_of_the_cybersecurity_game() -> None:
    """At the paper's settings the default moves mu by less than 1e-3 from the hard response, and what higher ones do is as documented."""
    setting = SETTINGS["Cybersecurity"]
    hard = solve(Cybersecurity(temperature=0.0), VIRUS, setting.mu0, setting.grid)
    assert bool(hard.converged)
    # The optimum of the paper's settings: leave the defence in D states, stay without it in U states.
    control = np.asarray(hard.rates)[:-1]
    assert np.all(control[:, [0, 1], [2, 3]] == 0.8) and np.all(control[:, [2, 3], [0, 1]] == 0.0)

    def moved(temperature: float) -> np.ndarray:
        eq = solve(Cybersecurity(temperature=temperature), VIRUS, setting.mu0, setting.grid)
        assert bool(eq.converged)
        return np.abs(np.asarray(eq.mu - hard.mu)).max(axis=1)

    measured = {temperature: moved(temperature) for temperature in (0.3, 0.1, 0.03, 0.01)}
    expected = {0.3: 0.21, 0.1: 0.12, 0.03: 0.038, 0.01: 0.012}
    for temperature, difference in measured.items():
        assert 0.8 * expected[temperature] < difference.max() < 1.25 * expected[temperature], temperature
    assert moved(float(Cybersecurity().temperature)).max() < 1e-3
    assert measured[0.01][setting.grid.times < 9.0].max() < 1e-7


def test_bike_share_formulas() -> None:
    """Running cost in loops; without congestion, worth and terminal cost the population follows the base rates' exponential."""
    game = BikeShare(3, effort=0.7, congestion=1.3, edge_value=BASE[:3, :3] - 1.0, states=("North", "South", "External"))
    rng = np.random.default_rng(1)
    mu, control = rng.dirichlet(np.ones(3)), rng.uniform(0.0, 3.0, (3, 3)) * (1.0 - np.eye(3))
    r, k = BASE[3:, 3:], BASE[:3, :3] - 1.0
    cost = [
        sum(
            0.7 * (control[x, y] - r[x, y]) ** 2 + 1.3 * mu[y] * control[x, y] - k[x, y] * control[x, y]
            for y in range(3)
            if y != x
        )
        for x in range(3)
    ]
    np.testing.assert_allclose(game.running_cost(0.0, control, mu, {"base_rate": r}), cost, rtol=1e-13)
    assert game.state_names == ("North", "South", "External")
    setting = SETTINGS["BikeShare"]
    plain = solve(BikeShare(), setting.params, setting.mu0, setting.grid)
    generator = BASE * (1.0 - np.eye(6))
    generator -= np.diag(generator.sum(axis=1))
    np.testing.assert_allclose(plain.mu[-1], expm(generator).T @ setting.mu0, atol=1e-10)
    assert float(jnp.abs(plain.value).max()) == 0.0


def test_bike_share_can_be_smooth() -> None:
    """The smooth response minimises its own cost, is the hard one in the limit, and a solve with it stays near the hard one."""
    rng = np.random.default_rng(3)
    value, mu, r = rng.normal(size=3), rng.dirichlet(np.ones(3)), BASE[3:, 3:]
    hard = BikeShare(3, effort=0.7, congestion=1.3, edge_value=BASE[:3, :3] - 1.0)
    expected = np.asarray(hard.best_response(0.0, value, mu, {"base_rate": r}))
    for smoothing in (0.3, 0.01):
        game = BikeShare(3, effort=0.7, congestion=1.3, edge_value=BASE[:3, :3] - 1.0, smoothing=smoothing)
        found = np.asarray(game.best_response(0.0, value, mu, {"base_rate": r}))
        away = ~np.eye(3, dtype=bool)
        assert found[away].min() > 0 and not found[~away].any()
        assert (found - expected)[away].min() >= 0 and np.abs(found - expected).max() <= smoothing

        def total(control: Any, game: BikeShare = game) -> Any:
            jumps = (control * (value[None, :] - value[:, None])).sum()
            return game.running_cost(0.0, control, mu, {"base_rate": r}).sum() + jumps

        slope = np.asarray(jax.grad(total)(jnp.asarray(found)))
        np.testing.assert_allclose(slope[away], 0.0, atol=1e-12)
    # Far below zero, where a plain sum of the two roots would cancel.
    steep = game.best_response(0.0, jnp.array([0.0, 1e6, 0.0]), mu, {"base_rate": r})
    np.testing.assert_allclose(steep[0, 1], 0.01**2 / (1e6 / 1.4), rtol=1e-4)


def test_what_smoothing_costs_depends_on_base_rates() -> None:
    """The value without congestion, worths and terminal cost stays flat where all stations have the same base rates; in the hard game always."""
    mu, flat = np.full(3, 1 / 3), jnp.zeros(3)
    same = np.array([[0.0, 0.4, 1.2], [1.2, 0.0, 0.4], [0.4, 1.2, 0.0]])
    for smoothing, base_rate, differs in ((0.0, BASE[3:, 3:], False), (0.3, same, False), (0.3, BASE[3:, 3:], True)):
        game, params = BikeShare(3, smoothing=smoothing), {"base_rate": jnp.asarray(base_rate)}
        cost = game.running_cost(0.0, game.best_response(0.0, flat, mu, params), mu, params)
        assert (np.ptp(cost) > 1e-3) == differs


def _mean(mu: Any) -> float:
    return float(np.asarray(mu)[-1] @ np.arange(20))


def _two_guesses(game: Emissions, grid: TimeGrid) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """A crowd that stays below the cap and fears the fine; one far above it that does not."""
    fine = float(game.price) * np.maximum(np.arange(20) - float(game.cap), 0.0)
    return tuple((np.tile(_at(20, x), (grid.points, 1)), np.tile(fear * fine, (grid.points, 1))) for x, fear in ((3, 1), (15, 0)))


@pytest.mark.parametrize(
    ("scheme", "means"), [("paper", (5.65, 8.92)), pytest.param("exponential", None, marks=pytest.mark.slow)]
)
def test_bandwagon_has_two_equilibria(scheme: str, means: tuple[float, float] | None) -> None:
    """Keeping to the cap and exceeding it are both equilibria for the same parameters; the guess decides which is found."""
    setting = SETTINGS["Emissions"]
    game = Emissions()
    found = []
    for guess in _two_guesses(game, setting.grid):
        eq = solve(game, {}, setting.mu0, setting.grid, scheme=scheme, guess=guess)
        assert bool(eq.converged), eq.status.message
        found.append(_mean(eq.mu))
    if means is None:
        assert found[0] < 6.0 < 8.0 < found[1], found
    else:
        assert found == pytest.approx(means, abs=0.01)


@pytest.mark.slow
def test_sharp_deterrent_needs_more_than_picard() -> None:
    """A regulator with a sharpness of 20 makes crowd and fine chase each other; the automatic method finds where they meet."""
    game, mu0, grid = Emissions(8, variant="deterrent", sharpness=20.0, cap=3.0), _at(8, 1), TimeGrid(6.0, 41)
    swept = solve(game, {}, mu0, grid, method="picard", max_steps=300)
    eq = solve(game, {}, mu0, grid)
    assert not bool(swept.converged) and np.isnan(np.asarray(swept.mu)).all()
    assert bool(eq.converged), eq.status.message
    assert float(eq.residual) < 1e-9


def test_el_farol_does_not_care_which_place_is_called_the_bar() -> None:
    """With a threshold of one half and equal costs, home and bar may change names."""
    setting, params = SETTINGS["ElFarol"], {**BAR, "threshold": 0.5, "regret": 4.0}
    one, other = (solve(ElFarol(), params, mu0, setting.grid) for mu0 in (np.array([0.9, 0.1]), np.array([0.1, 0.9])))
    np.testing.assert_allclose(one.mu, np.asarray(other.mu)[:, ::-1], atol=1e-10)
    assert float(one.mu[50, 1]) == pytest.approx(0.5, abs=0.02)


def test_meeting_starts_later_with_a_larger_quorum() -> None:
    """Arrival is for good; waiting for more people makes everyone come later."""
    eq = _solved("MeetingArrival")
    setting = SETTINGS["MeetingArrival"]
    more = solve(setting.game, {**MEETING, "quorum": 0.9}, setting.mu0, setting.grid)
    assert bool(more.converged), more.status.message
    there = [np.asarray(part.mu)[:, 0] for part in (eq, more)]
    assert all((np.diff(part) >= -1e-12).all() and part[-1] > 0.5 for part in there)
    assert there[1][50] < there[0][50]


# The dynamics without a game.


def test_forward_dynamics_of_an_epidemic() -> None:
    """Without foresight SIR is the epidemic without avoidance, which is also the game where infection costs nothing."""
    grid, mu0 = TimeGrid(20.0, 41), np.array([0.95, 0.05, 0.0])
    params = {"beta": 0.8, "recovery": 0.2, "contact_cost": 0.5}
    blind = ForwardDynamics(SIR())
    eq, free, careful = (
        solve(game, params, mu0, grid, method="anderson", scheme="paper")
        for game in (blind, SIR(infection_cost=0.0), SIR(infection_cost=1.0))
    )
    assert bool(eq.converged) and float(jnp.abs(eq.value).max()) == 0.0
    np.testing.assert_allclose(eq.mu, free.mu, atol=1e-10)
    assert float(jnp.abs(eq.mu - careful.mu).max()) > 0.1


@each_game
def test_forward_dynamics_wraps_every_game(name: str) -> None:
    """Names, parameters and supports are the game's; the rates are those at a flat value, whatever the value is."""
    setting = SETTINGS[name]
    blind, d = ForwardDynamics(setting.small), setting.small.n_states
    assert blind.state_names == setting.small.state_names and blind.parameters == setting.small.parameters
    assert blind.required == setting.small.required
    for key in blind.parameters:
        np.testing.assert_array_equal(blind.constant(setting.small_params, key), setting.small_params[key])
    moment = (0.3, np.linspace(-3.0, 5.0, d), setting.small_mu0, setting.small_params)
    t, _, mu, params = moment
    rates = blind.rates(t, blind.best_response(*moment), mu, params)
    flat = setting.small.best_response(t, np.ones(d), mu, params)
    np.testing.assert_allclose(rates, setting.small.rates(t, flat, mu, params), rtol=1e-12)
    assert not np.any(blind.running_cost(t, flat, mu, params)) and not np.any(blind.terminal_cost(t, mu, params))


# Bad input, and configs.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Cybersecurity(temperature=-0.1), "temperature is -0.1"),
        (lambda: Cybersecurity(temperature=np.nan), "temperature is nan"),
        (lambda: Cybersecurity(temperature="hot"), "temperature is 'hot'"),
        (lambda: Cybersecurity(temperature=np.ones(2)), "temperature has shape (2,)"),
        (lambda: Cybersecurity(switch_rate=-1.0), "switch_rate is -1.0"),
        (lambda: BikeShare(1), "n_states is 1"),
        (lambda: BikeShare(effort=0.0), "effort is 0.0"),
        (lambda: BikeShare(smoothing=-0.1), "smoothing is -0.1"),
        (lambda: BikeShare(smoothing=np.zeros(2)), "smoothing has shape (2,)"),
        (lambda: BikeShare(3, terminal_cost=np.zeros(2)), "terminal_cost has shape (2,); (3,) is needed"),
        (lambda: BikeShare(2, terminal_cost=[0.0, np.inf]), "terminal_cost is inf"),
        (lambda: BikeShare(3, edge_value=np.zeros((2, 2))), "edge_value has shape (2, 2)"),
        (lambda: BikeShare(2, terminal_cost=[0.0, "far"]), "terminal_cost"),
        (lambda: BikeShare(2, states=["a", "a"]), "2 different names"),
        (lambda: BikeShare(2, states=["a", "b", "c"]), "2 different names"),
        (lambda: Emissions(1), "n_states is 1"),
        (lambda: Emissions(variant="carrot"), "variant is 'carrot'; it is one of bandwagon, deterrent"),
        (lambda: Emissions(price=-1.0), "price is -1.0"),
        (lambda: Emissions(sharpness=np.inf), "sharpness is inf"),
        (lambda: ElFarol(max_rate=0.0), "max_rate is 0.0"),
        (lambda: ElFarol(width=0.0), "width is 0.0"),
        (lambda: MeetingArrival(2.5), "n_states is 2.5"),
        (lambda: MeetingArrival(width=-0.1), "width is -0.1"),
        (lambda: MeetingArrival(schedule=np.nan), "schedule is nan"),
        (lambda: ForwardDynamics(3.0), "game is 3.0; a Game is needed"),
    ],
)
def test_bad_constants_are_refused(make: Callable[[], Game], words: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("name", "bad", "words"),
    [
        ("Cybersecurity", {"beta_UD": -0.1}, "beta_UD is -0.1"),
        ("BikeShare", {"base_rate": -BASE}, "base_rate is -"),
        ("BikeShare", {"base_rate": BASE[0]}, "'base_rate' has shape (6,)"),
        ("BikeShare", {"terminal_cost": 1.0}, "'terminal_cost' has shape ()"),
        ("Emissions", {"cap": -1.0}, "cap is -1.0"),
        ("ElFarol", {"threshold": 1.2}, "threshold is 1.2; its range is [0, 1]"),
        ("ElFarol", {"switching_cost": 0.0}, "switching_cost is 0.0; its range is (0, inf)"),
        ("MeetingArrival", {"quorum": -0.2}, "quorum is -0.2"),
        ("MeetingArrival", {"haste": 1.0}, "no parameter 'haste'"),
    ],
)
def test_bad_parameters_are_refused(name: str, bad: dict, words: str) -> None:
    setting = SETTINGS[name]
    for game in (setting.game, ForwardDynamics(setting.game)):
        with pytest.raises(InputError) as error:
            solve(game, {**setting.params, **bad}, setting.mu0, setting.grid)
        assert words in str(error.value)


@each_game
def test_games_describe_themselves(name: str) -> None:
    """Every parameter has a description, and a unit unless it is a bare factor; state names fit the arrays."""
    game = SETTINGS[name].game
    assert game.n_states == len(set(game.state_names))
    for parameter in game.parameters.values():
        assert parameter.description and (parameter.unit or parameter.name == "attack_intensity")


@each_game
def test_games_can_be_made_from_a_config(name: str) -> None:
    """A table of constants makes every game with its defaults."""
    assert GAMES[name] is type(SETTINGS[name].game)
    assert isinstance(construct(GAMES[name], {}, Place("config.toml", "game")), Game)


def test_arrays_and_names_of_a_config() -> None:
    """Lists of numbers and of names reach the game; the wrapper of another game stands in no table."""
    table = {"n_states": 2, "terminal_cost": [0, 1], "edge_value": [[0.0, 1.0], [2.0, 0.0]], "states": ["A", "B"]}
    game = construct(BikeShare, table, Place("config.toml", "game"))
    np.testing.assert_array_equal(game.station_cost, [0.0, 1.0])
    assert game.state_names == ("A", "B")
    assert "ForwardDynamics" not in GAMES
