"""The games: closed forms against brute force, formulas against plain NumPy, and what must change nothing."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import ArrayLike
from systems import lq_moment, lq_terminal, sir_moment

from bayes_mfg.equilibrium import TimeGrid, solve
from bayes_mfg.errors import InputError
from bayes_mfg.games import SIR, Game, LinearQuadratic

GRID = TimeGrid(2.0, 21)
MU0 = np.array([0.2, 0.3, 0.5])
GAMES = {
    "plain": LinearQuadratic(),
    "weighted": LinearQuadratic(control_weight=0.4, destination_congestion=3.0, base_rate=1.2, congestion_power=2),
    "bounded": LinearQuadratic(4, max_rate=2.5, control_weight=0.3),
}


def _draws(d: int, n: int, seed: int) -> list[tuple[np.ndarray, np.ndarray, float]]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(0.0, 5.0, d), rng.dirichlet(np.ones(d)), float(np.exp(rng.normal()))) for _ in range(n)]


def _hamiltonian(game: Any, value: np.ndarray, mu: np.ndarray, params: dict) -> Any:
    """Cost of a control for the agents of each state, `(d,)`, straight from the interface."""

    def cost(control: jax.Array) -> jax.Array:
        rates = game.rates(0.0, control, mu, params)
        return game.running_cost(0.0, control, mu, params) + jnp.sum(rates * (value[None, :] - value[:, None]), axis=1)

    return cost


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES.keys())
def test_linear_quadratic_best_response_minimises_the_hamiltonian(game: LinearQuadratic) -> None:
    """No rate on a dense grid of `[0, max_rate]` is cheaper, rate by rate (the cost is separable), bounds included."""
    at_bounds = set()
    dense = np.concatenate([np.linspace(0.0, min(float(game.max_rate), 20.0), 2001), [float(game.max_rate)]])
    for value, mu, gamma in _draws(game.n_states, 5, 1):
        params = {"gamma": jnp.asarray(gamma)}
        cost = _hamiltonian(game, value, jnp.asarray(mu), params)
        best = game.best_response(0.0, jnp.asarray(value), jnp.asarray(mu), params)
        least = np.asarray(cost(best))
        assert np.asarray(best).min() >= 0.0 and np.asarray(best).max() <= float(game.max_rate)
        at_bounds |= {float(b) for b in (0.0, float(game.max_rate)) if np.any(best[~np.eye(game.n_states, dtype=bool)] == b)}
        for x in range(game.n_states):
            for y in set(range(game.n_states)) - {x}:
                trials = np.asarray(jax.vmap(lambda a, x=x, y=y, best=best, cost=cost: cost(best.at[x, y].set(a))[x])(dense))
                assert trials.min() >= least[x] - 1e-9 * max(1.0, abs(least[x]))
                spacing = dense[1] - dense[0]
                if float(best[x, y]) < 20.0:
                    assert abs(dense[trials.argmin()] - float(best[x, y])) <= spacing
    assert 0.0 in at_bounds
    assert game.max_rate > 50 or float(game.max_rate) in at_bounds


def test_sir_best_response_minimises_the_hamiltonian() -> None:
    """No contact factor on a dense grid of [0, 1] is cheaper; inside, at full contact and at none."""
    rng = np.random.default_rng(2)
    alphas, seen = np.linspace(0.0, 1.0, 4001), []
    for _ in range(60):
        game = SIR(float(np.exp(rng.normal())), 0.5)
        value, mu = rng.normal(0.0, 5.0, 3), jnp.asarray(rng.dirichlet(np.ones(3)))
        params = {"beta": jnp.asarray(np.exp(rng.normal())), "recovery": jnp.asarray(0.3)}
        cost = _hamiltonian(game, value, mu, params)
        best = float(game.best_response(0.0, jnp.asarray(value), mu, params))
        trials = np.asarray(jax.vmap(lambda a, cost=cost: cost(a)[0])(alphas))
        assert trials.min() >= float(cost(jnp.asarray(best))[0]) - 1e-12
        assert abs(alphas[trials.argmin()] - best) <= alphas[1]
        seen.append(best)
    assert 0.0 in seen and 1.0 in seen and any(0.0 < a < 1.0 for a in seen)


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES.keys())
def test_linear_quadratic_formulas(game: LinearQuadratic) -> None:
    """Rates, running and terminal cost are those of systems.md, written out state by state; the diagonal is zero."""
    for value, mu, gamma in _draws(game.n_states, 10, 3):
        params, mu_array = {"gamma": jnp.asarray(gamma)}, jnp.asarray(mu)
        control = game.best_response(0.0, jnp.asarray(value), mu_array, params)
        rates, cost = lq_moment(game, value, mu, gamma)
        np.testing.assert_allclose(game.rates(0.0, control, mu_array, params), rates, rtol=1e-13)
        np.testing.assert_allclose(game.running_cost(0.0, control, mu_array, params), cost, rtol=1e-12)
        np.testing.assert_allclose(game.terminal_cost(0.0, mu_array, params), lq_terminal(game, mu), rtol=1e-13)
        assert (np.diagonal(game.rates(0.0, control, mu_array, params)) == 0.0).all()


def test_sir_formulas() -> None:
    """Rates and costs are those of systems.md; the diagonal is zero and nobody leaves R."""
    game = SIR(0.7, 0.3)
    for value, mu, beta in _draws(3, 10, 4):
        params, mu_array = {"beta": jnp.asarray(beta), "recovery": jnp.asarray(0.2)}, jnp.asarray(mu)
        control = game.best_response(0.0, jnp.asarray(value), mu_array, params)
        rates, cost = sir_moment(game, value, mu, beta, 0.2)
        np.testing.assert_allclose(game.rates(0.0, control, mu_array, params), rates, rtol=1e-13)
        np.testing.assert_allclose(game.running_cost(0.0, control, mu_array, params), cost, rtol=1e-13)
        assert (np.asarray(game.terminal_cost(0.0, mu_array, params)) == 0.0).all()


@pytest.mark.parametrize(
    ("plain", "changed", "required"),
    [
        (
            LinearQuadratic(),
            {
                "terminal_slope": 3.0,
                "congestion": 0.7,
                "control_weight": 0.4,
                "terminal_congestion": 2.0,
                "destination_congestion": 1.5,
                "base_rate": 1.1,
            },
            {"gamma": 0.9},
        ),
        (SIR(), {"contact_cost": 0.4, "infection_cost": 0.6}, {"beta": 0.8, "recovery": 0.2}),
    ],
    ids=["LQ", "SIR"],
)
def test_optional_parameters_override_the_constants(plain: Any, changed: dict, required: dict) -> None:
    """An optional constant given as a parameter acts as the same one given to the constructor, one by one and together."""
    assert set(changed) == {p.name for p in plain.optional}
    value, mu = jnp.asarray([4.0, 7.0, -1.0]), jnp.asarray(MU0)

    def everything(game: Any, params: dict) -> list[np.ndarray]:
        control = game.best_response(0.0, value, mu, params)
        rates, cost = game.rates(0.0, control, mu, params), game.running_cost(0.0, control, mu, params)
        return [np.asarray(part) for part in (control, rates, cost, game.terminal_cost(0.0, mu, params))]

    before = everything(plain, required)
    for subset in (*[{name: changed[name]} for name in changed], changed):
        built, passed = everything(type(plain)(**subset), required), everything(plain, {**required, **subset})
        assert any(np.any(a != b) for a, b in zip(before, passed, strict=True)), subset
        for a, b in zip(built, passed, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize(
    ("game", "names", "sentence"),
    [
        (LinearQuadratic(), [], "LinearQuadratic needs the parameter 'gamma'; got none."),
        (LinearQuadratic(), ["gamma", "kappa"], "LinearQuadratic has no parameter 'kappa'; it takes gamma, terminal_slope"),
        (SIR(), ["beta"], "SIR needs the parameter 'recovery'; got beta."),
        (SIR(), ["beta", "recovery", "gamma"], "SIR has no parameter 'gamma'; it takes beta, recovery"),
    ],
)
def test_wrong_parameter_names_are_refused(game: Any, names: list[str], sentence: str) -> None:
    """The sentence names the game, the parameter and what the game takes."""
    with pytest.raises(InputError, match=sentence):
        game.check_parameters(names)


def test_one_state_is_no_game() -> None:
    with pytest.raises(InputError, match="n_states is 1; from 2 to 10000"):
        LinearQuadratic(n_states=1)


def test_games_describe_themselves() -> None:
    """State names fit the number of states; supports are as the formulas need."""
    assert LinearQuadratic(5).n_states == 5 and SIR().state_names == ("S", "I", "R")
    for game in (LinearQuadratic(), SIR()):
        assert all(p.lower == 0.0 for p in game.required)
        assert list(game.parameters)[: len(game.required)] == [p.name for p in game.required]


# What changes nothing.


def test_common_factor_of_all_costs_changes_nothing() -> None:
    """Every cost and gamma times 7 leaves mu where it was: a cost scale must be fixed before anything is estimated."""
    one = LinearQuadratic(terminal_slope=5.0, congestion=0.5, terminal_congestion=1.0)
    seven = LinearQuadratic(terminal_slope=35.0, congestion=3.5, terminal_congestion=7.0)
    a = solve(one, {"gamma": 1.55}, MU0, GRID, tol=1e-14)
    b = solve(seven, {"gamma": 7 * 1.55}, MU0, GRID, tol=1e-14)
    assert np.abs(a.mu - b.mu).max() <= 1e-13
    np.testing.assert_allclose(b.value, 7 * a.value, rtol=1e-12)


class Taxed(LinearQuadratic):
    """A user's own game: the linear-quadratic one with a tax that is the same in every state."""

    tax: ArrayLike = 0.0

    def __init__(self, tax: ArrayLike, **constants: Any) -> None:
        super().__init__(**constants)
        self.tax = tax

    def running_cost(self, t: ArrayLike, control: Any, mu: jax.Array, params: Mapping[str, jax.Array]) -> jax.Array:
        return super().running_cost(t, control, mu, params) + self.tax * (1.0 + jnp.sin(3.0 * t))

    def terminal_cost(self, t: ArrayLike, mu: jax.Array, params: Mapping[str, jax.Array]) -> jax.Array:
        return super().terminal_cost(t, mu, params) + 2.0 * self.tax


@pytest.mark.parametrize("scheme", ["exponential", "paper"])
def test_cost_that_is_the_same_in_every_state_changes_nothing(scheme: str) -> None:
    """A cost c(t) moves the value by its integral and mu not at all; and a game made outside the library works."""
    free, taxed = (solve(Taxed(tax), {"gamma": 1.55}, MU0, GRID, scheme=scheme, tol=1e-14) for tax in (0.0, 3.0))
    assert bool(free.converged) and bool(taxed.converged)
    assert np.abs(free.mu - taxed.mu).max() <= 1e-13
    added = np.asarray(taxed.value - free.value)
    assert np.ptp(added, axis=1).max() <= 1e-12
    expected = 6.0 + 3.0 * (2.0 + (1.0 - np.cos(6.0)) / 3.0)
    assert added[0, 0] == pytest.approx(expected, rel=1e-3 if scheme == "exponential" else 0.05)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SIR(contact_cost=-1.0), "contact_cost is -1.0"),
        (lambda: SIR(contact_cost=0.0), "contact_cost is 0.0"),
        (lambda: SIR(infection_cost=np.nan), "infection_cost is nan"),
        (lambda: SIR(infection_cost="high"), "infection_cost is 'high'"),
        (lambda: SIR(contact_cost="high"), "contact_cost is 'high'"),
        (lambda: SIR(contact_cost=True), "contact_cost is True"),
        (lambda: SIR(contact_cost=np.array([1.0, 2.0])), "contact_cost has shape (2,)"),
        (lambda: LinearQuadratic(2.5), "n_states is 2.5"),
        (lambda: LinearQuadratic(congestion_power=np.nan), "congestion_power is nan"),
        (lambda: LinearQuadratic(max_rate="x"), "max_rate is 'x'"),
        (lambda: LinearQuadratic(control_weight=0.0), "control_weight is 0.0"),
        (lambda: LinearQuadratic(congestion=-0.1), "congestion is -0.1"),
        (lambda: LinearQuadratic(base_rate=-2.0), "base_rate is -2.0"),
        (lambda: LinearQuadratic(max_rate=0.0), "max_rate is 0.0"),
    ],
)
def test_constants_outside_their_range_are_refused(make: Callable[[], Game], words: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert words in str(error.value)


def test_constants_that_are_traced_pass() -> None:
    """Derivatives by a constant build the game inside a transformation."""
    slope = jax.grad(lambda c: LinearQuadratic(congestion=c).terminal_cost(0.0, jnp.ones(3) / 3, {}).sum() + c)(0.1)
    assert float(slope) == 1.0
