"""Protects closures: nobody arrives, and what agents do and pay is the optimum among what is left to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes_mfg.equilibrium import TimeGrid, exploitability, solve
from bayes_mfg.equilibrium.schemes import exponential
from bayes_mfg.errors import InputError
from bayes_mfg.games import (
    SIR,
    BikeShare,
    Closed,
    Cybersecurity,
    ElFarol,
    Emissions,
    ForwardDynamics,
    LinearQuadratic,
    MeetingArrival,
)

GRID = TimeGrid(2.0, 41)
MU0 = np.array([0.2, 0.3, 0.5])
RATES = np.array([[0.0, 2.0, 1.0], [0.5, 0.0, 1.5], [1.0, 2.5, 0.0]])
LQ = LinearQuadratic(control_weight=0.4, destination_congestion=3.0, base_rate=1.2)
BIKES = BikeShare(3, effort=0.7, congestion=0.5, terminal_cost=[0.0, 1.0, 2.0], edge_value=0.3 * RATES)
SMOOTH = BikeShare(3, effort=0.7, congestion=0.5, terminal_cost=[0.0, 1.0, 2.0], edge_value=0.3 * RATES, smoothing=0.2)
BAR = {"threshold": 0.5, "crowding": 3.0, "regret": 2.0, "switching_cost": 0.6}
MEETING = {"quorum": 0.5, "lateness": 1.0, "absence": 1.0, "waiting": 1.0}
# name -> game, parameters, closed state, largest control, control of a closed move
CASES = {
    "LQ": (LQ, {"gamma": 0.9}, "1", 100.0, 0.0),
    "bikes": (BIKES, {"base_rate": RATES}, "1", np.inf, 0.0),
    "smooth bikes": (SMOOTH, {"base_rate": RATES}, "1", np.inf, 0.0),
    "bar": (ElFarol(max_rate=2.0), BAR, "bar", 2.0, 0.0),
    "meeting": (MeetingArrival(4, max_rate=2.0), MEETING, "1", 2.0, 0.0),
    "emissions": (Emissions(5, base_rate=1.3), {}, "3", 1.3, 1.3),
}


def arrivals(game, control_shape, place):
    """Controls that move agents into a state: `True` where they do."""
    if len(control_shape) == 2:
        return np.arange(game.n_states)[None, :] == np.full((game.n_states, 1), place)
    origin = {"ElFarol": 1 - place, "MeetingArrival": place + 1, "Emissions": place - 1}[type(game).__name__]
    return np.arange(game.n_states) == origin


@pytest.mark.parametrize("paid", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_no_control_that_is_left_is_cheaper(name: str, paid: bool) -> None:
    """Brute force over 4,000 controls that bring nobody in, straight from the interface of the game without closure."""
    game, params, state, most, still = CASES[name]
    closed, place = Closed(game, state, 0.5, 1.0, paid), game.state_names.index(state)
    params = {key: jnp.asarray(value) for key, value in params.items()}
    rng, d = np.random.default_rng(0), game.n_states

    def hamiltonian(control, value, mu):
        gain = closed.rates(0.7, control, mu, params) * (value[None, :] - value[:, None])
        return closed.running_cost(0.7, control, mu, params) + jnp.sum(gain, axis=1)

    every = jax.jit(jax.vmap(hamiltonian, in_axes=(0, None, None)))
    for _ in range(4):
        value, mu = jnp.asarray(rng.normal(0.0, 2.0, d)), jnp.asarray(rng.dirichlet(np.ones(d)))
        best = closed.best_response(0.7, value, mu, params)
        into = arrivals(game, best.shape, place)
        assert np.all(np.asarray(best)[into] == still)
        assert np.all(np.asarray(closed.rates(0.7, best, mu, params))[:, place] == 0.0)
        near = np.asarray(best) + rng.normal(0.0, 0.3, (2000, *best.shape))
        low = 1e-9 if name == "smooth bikes" else 0.0  # riding that nobody closed has no end at zero there
        trials = np.clip(np.concatenate([near, rng.uniform(0.0, min(most, 5.0), (2000, *best.shape))]), low, most)
        trials[:, into] = still
        if best.ndim == 2:
            trials *= 1.0 - np.eye(d)
        costs, least = np.asarray(every(jnp.asarray(trials), value, mu)), np.asarray(hamiltonian(best, value, mu))
        assert np.all(costs >= least - 1e-12)
        assert np.any(costs < least + 0.05)  # the trials come close
        # What the constraint costs: the same game with the rate of zero, or without its term.
        own = np.asarray(game.running_cost(0.7, best, mu, params))
        missing = own - np.asarray(closed.running_cost(0.7, best, mu, params))
        if paid or name in ("bar", "meeting", "emissions"):
            assert np.all(missing == 0.0)
        elif name == "LQ":
            term = 0.4 * 0.9 * 1.2**2 * (1.0 + 3.0 * mu[place])
            np.testing.assert_allclose(missing, term * (np.arange(d) != place), rtol=1e-12)
        else:
            np.testing.assert_allclose(missing, 0.7 * RATES[:, place] ** 2, rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_outside_the_window_it_is_the_game(name: str) -> None:
    """To the last bit: before it, at its end (which is open), and after."""
    game, params, state, _, _ = CASES[name]
    closed = Closed(game, state, 0.5, 1.0)
    params = {key: jnp.asarray(value) for key, value in params.items()}
    rng, d = np.random.default_rng(1), game.n_states
    value, mu = jnp.asarray(rng.normal(0.0, 2.0, d)), jnp.asarray(rng.dirichlet(np.ones(d)))
    value = value.at[game.state_names.index(state)].set(-6.0)  # where everybody wants to go
    for t in (0.0, 0.4999, 1.0, 3.0):
        control = game.best_response(t, value, mu, params)
        np.testing.assert_array_equal(closed.best_response(t, value, mu, params), control)
        np.testing.assert_array_equal(closed.running_cost(t, control, mu, params), game.running_cost(t, control, mu, params))
    at = closed.best_response(0.5, value, mu, params)
    assert np.any(np.asarray(at) != np.asarray(game.best_response(0.5, value, mu, params)))
    np.testing.assert_array_equal(closed.terminal_cost(0.7, mu, params), game.terminal_cost(0.7, mu, params))


@pytest.mark.parametrize(("smoothing", "better"), [(0.0, False), (0.3, True)])
def test_a_closure_that_is_paid_never_helps_agents_but_by_what_smoothing_costs(smoothing: float, better: bool) -> None:
    """One agent's Hamiltonian at given populations and values, open and closed, where some rides are hardly wanted."""
    rng, params = np.random.default_rng(0), {"base_rate": jnp.asarray(RATES)}
    game = BikeShare(3, congestion=0.5, edge_value=-2.0 * RATES, smoothing=smoothing)
    closed, gains = Closed(game, "1", paid=True), []
    for _ in range(20):
        value, mu = jnp.asarray(rng.normal(0.0, 2.0, 3)), jnp.asarray(rng.dirichlet(np.ones(3)))
        cost = []
        for one in (game, closed):
            control = one.best_response(0.0, value, mu, params)
            moves = jnp.sum(control * (value[None, :] - value[:, None]), axis=1)
            cost.append(one.running_cost(0.0, control, mu, params) + moves)
        gains.append(np.asarray(cost[0] - cost[1]))
    assert (np.max(gains) > 0.01) == better


@pytest.fixture(scope="module")
def bikes():
    closed = Closed(BIKES, "1", 0.5, 1.0, paid=True)
    return closed, solve(closed, {"base_rate": RATES}, MU0, GRID, method="anderson")


def test_nobody_arrives_and_mass_is_conserved(bikes) -> None:
    _, eq = bikes
    assert bool(eq.converged)
    window = (GRID.times >= 0.5) & (GRID.times < 1.0)
    rates = np.asarray(eq.rates)
    assert np.all(rates[window][:, :, 1] == 0.0)
    assert np.all(rates[~window][:, [0, 2], 1] > 0.0)
    np.testing.assert_allclose(np.asarray(eq.mu).sum(axis=1), 1.0, atol=1e-12)
    inside = np.asarray(eq.mu)[:, 1]
    assert np.all(np.diff(inside[(GRID.times >= 0.5) & (GRID.times <= 1.0)]) < 0.0)  # they leave


def test_no_policy_that_is_left_is_cheaper_over_time(bikes) -> None:
    """An agent's cost, simulated in NumPy under 60 policies that keep out of the closed state, against the value of the equilibrium."""
    _, eq = bikes
    mu, value = np.asarray(eq.mu), np.asarray(eq.value)
    mid_mu, mid_value, times = 0.5 * (mu[1:] + mu[:-1]), 0.5 * (value[1:] + value[:-1]), 0.5 * (GRID.times[1:] + GRID.times[:-1])
    worth = 0.3 * RATES[None] - 0.5 * mid_mu[:, None, :]
    policy = np.maximum(RATES + (worth + mid_value[:, :, None] - mid_value[:, None, :]) / 1.4, 0.0) * (1 - np.eye(3))
    shut = (times > 0.5) & (times < 1.0)
    policy[shut, :, 1] = 0.0
    dt = GRID.horizon / GRID.intervals

    @jax.jit
    def cost(control):
        spent = ((0.7 * (control - RATES) ** 2 - worth * control) * (1 - np.eye(3))).sum(axis=2)
        p, c = exponential(jnp.moveaxis(control, 0, -1), spent.T, dt, 3)
        total = jnp.array([0.0, 1.0, 2.0])
        for n in reversed(range(len(times))):
            total = p[:, :, n] @ total + c[:, n]
        return MU0 @ total

    best = float(cost(policy))
    assert best == pytest.approx(float(mu[0] @ value[0]), abs=1e-9)
    rng = np.random.default_rng(0)
    for size in (0.1, 0.5, 2.0):
        for _ in range(20):
            other = np.maximum(policy + size * rng.normal(size=policy.shape), 0.0) * (1 - np.eye(3))
            other[shut, :, 1] = 0.0
            assert float(cost(other)) > best


def test_closures_nest_and_what_is_paid_is_each_ones_own() -> None:
    params = {"base_rate": jnp.asarray(RATES)}
    both = Closed(Closed(BIKES, "0", 0.0, 2.0, paid=True), "2", 1.0, 3.0)
    value, mu = jnp.asarray([1.0, -1.0, 0.5]), jnp.asarray(MU0)
    free = np.asarray(BIKES.best_response(0.0, value, mu, params))
    for t, shut in ((0.5, [0]), (1.5, [0, 2]), (2.5, [2]), (3.5, [])):
        control = np.asarray(both.best_response(t, value, mu, params))
        assert np.all(control[:, shut] == 0.0)
        others = [k for k in range(3) if k not in shut]
        np.testing.assert_array_equal(control[:, others], free[:, others])
        left_out = [2] if 2 in shut else []
        spared = (BIKES.running_cost(t, control, mu, params) - both.running_cost(t, jnp.asarray(control), mu, params)).sum()
        assert float(spared) == pytest.approx(0.7 * (RATES[:, left_out] ** 2).sum())


def test_the_forward_dynamics_react_alone() -> None:
    """A closure of the baseline is the baseline of the closed game: agents who see no value, and so no closure that is to come."""
    params, mu = {"base_rate": jnp.asarray(RATES)}, jnp.asarray(MU0)
    games = Closed(ForwardDynamics(BIKES), "1", 0.5, 1.0), ForwardDynamics(Closed(BIKES, "1", 0.5, 1.0))
    for t in (0.2, 0.7):
        expected = ForwardDynamics(BIKES).best_response(t, mu, mu, params) * (1.0 if t < 0.5 else np.array([1.0, 0.0, 1.0]))
        for game in games:
            control = game.best_response(t, jnp.asarray([3.0, -1.0, 0.0]), mu, params)
            np.testing.assert_array_equal(control, expected)
            np.testing.assert_array_equal(game.rates(t, control, mu, params), expected)
            np.testing.assert_array_equal(game.running_cost(t, control, mu, params), 0.0)


def test_exploitability_sees_the_closure(bikes) -> None:
    """It falls with the grid, as without a closure, and is that of this game alone."""
    closed, eq = bikes
    assert abs(float(exploitability(closed, eq))) < 1e-4
    with pytest.raises(InputError, match="other constants"):
        exploitability(Closed(BIKES, "1", 0.5, 1.1, paid=True), eq)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Closed(SIR(), "I"), "SIR: no state can be closed"),
        (lambda: Closed(ForwardDynamics(SIR()), "I"), "SIR: no state can be closed"),
        (lambda: Closed(Cybersecurity(), "US"), "Cybersecurity: no state can be closed"),
        (lambda: Closed(LQ, "3"), "there is no state '3'; the game has 0, 1, 2"),
        (lambda: Closed("LQ", "1"), "a Game is needed"),
        (lambda: Closed(LQ, "1", 1.0, 1.0), "from 1 to 1 is empty"),
        (lambda: Closed(LQ, "1", "noon"), "start is 'noon'"),
        (lambda: Closed(LQ, "1", end=True), "end is True"),
        (lambda: Closed(LQ, "1", paid=1), "paid is 1"),
    ],
)
def test_what_cannot_be_closed_is_refused(make, words: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert words in str(error.value)


class Taxed(LinearQuadratic):
    """A user's own game on top of one of the library's."""

    def running_cost(self, t, control, mu, params):
        return super().running_cost(t, control, mu, params) + jnp.array([5.0, 0.0, 0.0])


def test_costs_that_a_subclass_adds_stay() -> None:
    args = (0.0, jnp.zeros((3, 3)), jnp.asarray(MU0), {"gamma": jnp.asarray(0.9)})
    more = Closed(Taxed(), "1").running_cost(*args) - Closed(LinearQuadratic(), "1").running_cost(*args)
    np.testing.assert_allclose(more, [5.0, 0.0, 0.0], atol=1e-12)


class Leaky(LinearQuadratic):
    """Agents fall into state 0 whether they want or not."""

    def rates(self, t, control, mu, params):
        return control.at[1:, 0].add(0.3)


def test_a_state_that_agents_are_moved_into_cannot_be_closed() -> None:
    with pytest.raises(InputError, match="'0' of Leaky cannot be closed; agents move there from '1' all the same"):
        Closed(Leaky(), "0")
    assert Closed(Leaky(), "1").state == "1"


class Budget(LinearQuadratic):
    """Agents share one unit of rate among destinations, so that what is not spent on one goes to the others."""

    def best_response(self, t, value, mu, params):
        off = jnp.where(jnp.eye(3, dtype=bool), -jnp.inf, 0.0)
        return jax.nn.softmax(off - value[None, :], axis=1)


class Tripled(LinearQuadratic):
    """All costs count three times, those that a closure leaves out only once."""

    def running_cost(self, t, control, mu, params):
        return 3.0 * super().running_cost(t, control, mu, params)


class Halved(LinearQuadratic):
    """All costs count half, those that a closure leaves out whole."""

    def running_cost(self, t, control, mu, params):
        return 0.5 * super().running_cost(t, control, mu, params)


class Silent(LinearQuadratic):
    """It says nothing of what a closure spares agents."""

    def closed_cost(self, t, control, mu, params, closed):
        return self.running_cost(t, control, mu, params)


@pytest.mark.parametrize(
    ("game", "paid", "words"),
    [
        (Budget(), False, "closed_response of Budget is not the best"),
        (ForwardDynamics(Budget()), True, "closed_response of Budget is not the best"),
        (Silent(base_rate=0.6), False, "agents of Silent go on paying for not moving to '1'"),
        (Tripled(base_rate=0.6), False, "agents of Tripled go on paying"),
        (Halved(base_rate=0.6), False, "agents of Halved go on paying"),
    ],
)
def test_a_closure_that_the_game_gets_wrong_is_refused(game, paid: bool, words: str) -> None:
    with pytest.raises(InputError) as error:
        Closed(game, "1", paid=paid)
    assert words in str(error.value)


def test_a_base_rate_that_is_paid_is_no_error() -> None:
    assert Closed(Silent(base_rate=0.6), "1", paid=True).paid
    assert Closed(Silent(base_rate=0.0), "1").paid is False  # a rate of zero costs nothing there


def test_a_diagonal_that_does_not_enter_has_no_range() -> None:
    rate, worth = BIKES.required[0], BIKES.parameters["edge_value"]
    lower = RATES - 0.4
    assert bool(np.all(rate.contains(lower))) and not bool(np.all(rate.contains(lower - 0.2)))
    assert rate.contains(np.stack([lower, lower - 0.2])).shape == (2, 3, 3)
    assert not rate.contains(-1.0) and not worth.diagonal
