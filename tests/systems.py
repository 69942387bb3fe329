"""The cases that the equilibrium tests share, and the equations once more in plain NumPy, as the slow obvious version."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from bayes_mfg.equilibrium import Equilibrium, TimeGrid, solve
from bayes_mfg.games import SIR, Game, LinearQuadratic


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One equilibrium problem: what `solve` takes."""

    name: str
    game: Game
    params: dict[str, Any]
    mu0: np.ndarray
    grid: TimeGrid

    def __str__(self) -> str:
        return self.name


def arc(horizon: float, points: int) -> np.ndarray:
    """The arc of the linear-quadratic benchmark on a grid."""
    t = np.linspace(0.0, horizon, points)
    return 0.1 + 2.9 * 4.0 / horizon**2 * t * (horizon - t)


def ascending(d: int) -> np.ndarray:
    """An initial population proportional to 1..d."""
    return np.arange(1.0, d + 1.0) / (d * (d + 1) / 2)


def lq_case(d: int, c: float, c_terminal: float, gamma: float | str, horizon: float, points: int = 100) -> Case:
    """One line (d, c, c_T, gamma, T) of the table of linear-quadratic games."""
    path = arc(horizon, points) if gamma == "arc" else gamma
    game = LinearQuadratic(d, congestion=float(c), terminal_congestion=float(c_terminal))
    name = f"LQ d={d} c={c} c_T={c_terminal} gamma={gamma} T={horizon}"
    return Case(name, game, {"gamma": path}, ascending(d), TimeGrid(float(horizon), points))


def radius_case(s: float, b: float, c: float, c_terminal: float, gamma: float) -> Case:
    """One line (s, b, c, c_T, gamma) of the games whose sweep repels, d = 3, N = 100, T = 2."""
    game = LinearQuadratic(
        terminal_slope=float(s), base_rate=float(b), congestion=float(c), terminal_congestion=float(c_terminal)
    )
    return Case(f"LQ s={s} b={b} c={c} c_T={c_terminal} gamma={gamma}", game, {"gamma": gamma}, ascending(3), TimeGrid(2.0, 100))


def sir_case(beta: float, recovery: float, contact_cost: float, infection_cost: float) -> Case:
    """One line (beta, recovery, c_a, c_I) of the SIR games, T = 40."""
    game = SIR(float(contact_cost), float(infection_cost))
    params = {"beta": beta, "recovery": recovery}
    name = f"SIR beta={beta} recovery={recovery} c_a={contact_cost} c_I={infection_cost}"
    return Case(name, game, params, np.array([0.95, 0.05, 0.0]), TimeGrid(40.0, 100))


LQ_CASES = [
    lq_case(3, 0.1, 1, 1.55, 2),
    lq_case(3, 50, 20, 1.55, 2),
    lq_case(8, 50, 50, 0.5, 2),
    lq_case(3, 20, 20, 0.1, 5),
    lq_case(4, 200, 1, 1.55, 4, 200),
    lq_case(8, 0.1, 1, "arc", 2),
    lq_case(32, 10, 10, 1.55, 2),
    lq_case(32, 0.1, 1, 0.1, 2),
]
RADIUS_CASES = [radius_case(0, 0.3, 20, 1, 0.1), radius_case(5, 2, 20, 20, 0.2)]
RADII = [97.0, 11.0]
SIR_CASES = [sir_case(0.6, 0.1, 1, 0.1), sir_case(1.5, 0.1, 0.1, 1), sir_case(1.5, 0.1, 0.1, 5)]
TABLE = [(case, "exponential") for case in (*LQ_CASES, *RADIUS_CASES, *SIR_CASES)] + [(case, "paper") for case in RADIUS_CASES]


@functools.cache
def solved(case: Case, method: str = "auto", scheme: str = "exponential") -> Equilibrium:
    """The solution of a case, found once per test run."""
    return solve(case.game, case.params, case.mu0, case.grid, method=method, scheme=scheme)


# The games, state by state.


def lq_moment(game: LinearQuadratic, value: np.ndarray, mu: np.ndarray, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Rates `(d, d)` and running cost `(d,)` of the linear-quadratic game under the best response."""
    d = len(mu)
    b, weight = float(game.base_rate), float(game.control_weight) * gamma
    rates = np.zeros((d, d))
    cost = float(game.congestion) * mu**game.congestion_power
    for x in range(d):
        for y in range(d):
            if y != x:
                rho = 1.0 + float(game.destination_congestion) * mu[y]
                a = b - (value[y] - value[x]) / (2.0 * weight * rho)
                rates[x, y] = min(max(a, 0.0), float(game.max_rate))
                cost[x] += weight * (rates[x, y] - b) ** 2 * rho
    return rates, cost


def lq_terminal(game: LinearQuadratic, mu: np.ndarray) -> np.ndarray:
    ladder = np.array([float(game.terminal_slope) * (len(mu) - 1 - x) for x in range(len(mu))])
    return ladder + float(game.terminal_congestion) * mu**game.congestion_power


def sir_moment(game: SIR, value: np.ndarray, mu: np.ndarray, beta: float, recovery: float) -> tuple[np.ndarray, np.ndarray]:
    """Rates `(3, 3)` and running cost `(3,)` of the SIR game under the best response."""
    c_a, c_i = float(game.contact_cost), float(game.infection_cost)
    alpha = min(max(1.0 - beta * mu[1] * (value[1] - value[0]) / c_a, 0.0), 1.0)
    rates = np.zeros((3, 3))
    rates[0, 1] = beta * alpha * mu[1]
    rates[1, 2] = recovery
    return rates, np.array([0.5 * c_a * (1.0 - alpha) ** 2, c_i, 0.0])


def moment(game: Game, value: np.ndarray, mu: np.ndarray, params: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Rates and running cost of either game."""
    return (lq_moment if isinstance(game, LinearQuadratic) else sir_moment)(game, value, mu, **params)


def terminal(game: Game, mu: np.ndarray) -> np.ndarray:
    """Terminal cost of either game."""
    return lq_terminal(game, mu) if isinstance(game, LinearQuadratic) else np.zeros(3)


def at_nodes(case: Case) -> list[dict[str, float]]:
    """Parameters at every grid point; for grids without substeps."""
    points = case.grid.points
    paths = {name: np.broadcast_to(np.asarray(path, float), (points,)) for name, path in case.params.items()}
    return [{name: float(path[n]) for name, path in paths.items()} for n in range(points)]


# The schemes, interval by interval.


def propagators(rates: np.ndarray, cost: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """`exp(dt Q)` and the integral of `exp(s Q) f` as the default scheme defines them, for one interval."""
    d = len(cost)
    squarings = 3 + max(0, math.ceil(math.log2(d / 4)))
    h = dt / 2**squarings
    exits = rates.sum(axis=1)
    bound = exits.max() * np.sum((exits / exits.max()) ** 8) ** 0.125 if exits.max() > 0 else 0.0
    b = h * (rates - np.diag(exits) + bound * np.eye(d))
    p = sum(np.linalg.matrix_power(b, k) / math.factorial(k) for k in range(5))
    p = p / sum((h * bound) ** k / math.factorial(k) for k in range(5))
    c = (2.0 * h / 6.0) * (cost + 4.0 * p @ cost + p @ p @ cost)
    p = p @ p
    for _ in range(squarings - 1):
        c = c + p @ c
        p = p @ p
    return p, c


def scheme_defect(case: Case, scheme: str, mu: np.ndarray, value: np.ndarray) -> float:
    """Largest defect of `(T, d)` paths in the equations of a scheme; of the value relative to max(1, |value|)."""
    params, times = at_nodes(case), case.grid.times
    d_mu = [mu[0] - case.mu0]
    d_value = [value[-1] - terminal(case.game, mu[-1])]
    for n in range(case.grid.points - 1):
        dt = times[n + 1] - times[n]
        if scheme == "paper":
            next_mu = mu[n] + dt * kolmogorov(moment(case.game, value[n], mu[n], params[n])[0], mu[n])
            earlier = value[n + 1] + dt * hjb(*moment(case.game, value[n + 1], mu[n], params[n]), value[n + 1])
        else:
            middle = {name: 0.5 * (params[n][name] + params[n + 1][name]) for name in params[n]}
            mid_value, mid_mu = 0.5 * (value[n] + value[n + 1]), 0.5 * (mu[n] + mu[n + 1])
            p, c = propagators(*moment(case.game, mid_value, mid_mu, middle), dt)
            next_mu, earlier = p.T @ mu[n], p @ value[n + 1] + c
        d_mu.append(mu[n + 1] - next_mu)
        d_value.append(value[n] - earlier)
    return max(np.max(np.abs(d_mu)), np.max(np.abs(d_value)) / max(1.0, np.max(np.abs(value))))


def hjb(rates: np.ndarray, cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Right-hand side of the Hamilton-Jacobi-Bellman equation, backward in time."""
    d = len(value)
    return np.array([cost[x] + sum(rates[x, y] * (value[y] - value[x]) for y in range(d)) for x in range(d)])


def kolmogorov(rates: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """Inflow less outflow of every state."""
    d = len(mu)
    return np.array([sum(mu[x] * rates[x, y] for x in range(d)) - mu[y] * sum(rates[y, z] for z in range(d)) for y in range(d)])


def paper_picard(case: Case, damping: float = 0.5, tol: float = 1e-14, sweeps: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Equilibrium of the paper's explicit Euler recursion by damped Picard iteration on mu, in loops."""
    params, times = at_nodes(case), case.grid.times
    last = case.grid.points - 1
    mu = np.tile(case.mu0, (case.grid.points, 1))
    for _ in range(sweeps):
        value = np.zeros_like(mu)
        value[last] = terminal(case.game, mu[last])
        for n in reversed(range(last)):
            dt = times[n + 1] - times[n]
            value[n] = value[n + 1] + dt * hjb(*moment(case.game, value[n + 1], mu[n], params[n]), value[n + 1])
        new = np.zeros_like(mu)
        new[0] = case.mu0
        for n in range(last):
            dt = times[n + 1] - times[n]
            new[n + 1] = new[n] + dt * kolmogorov(moment(case.game, value[n], new[n], params[n])[0], new[n])
        if np.max(np.abs(new - mu)) <= tol:
            return new, value
        mu = damping * mu + (1.0 - damping) * new
    raise AssertionError(f"{case}: the plain Picard iteration did not settle")
