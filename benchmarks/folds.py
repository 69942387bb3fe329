"""How near equilibria are to a fold: singular values and spectral radii, in games of one equilibrium and along the branches of one that has three.

    python -m benchmarks.folds

The bandwagon of emissions (10 rungs, cap 3, base rate 1.1, horizon 4, all on rung 1 at the start) is followed from a price of 3 along each
equilibrium, upwards and downwards, until Newton loses it. A row of JSON for each point.
"""

import json
import sys
from collections.abc import Iterator

import jax
import numpy as np

from bayes_mfg.equilibrium import Equilibrium, TimeGrid, conditioning, enumerate, solve, spectral_radius
from bayes_mfg.games import SIR, Emissions, Game, LinearQuadratic

START, GRID = np.eye(10)[1], TimeGrid(4.0, 41)


def bandwagon(price: float) -> Game:
    """The game at a price."""
    return Emissions(10, cap=3.0, price=price, base_rate=1.1)


def mean(eq: Equilibrium) -> float:
    """Mean emissions at the end."""
    return float(np.asarray(eq.mu[-1]) @ np.arange(10))


def followed(eq: Equilibrium, step: float) -> Iterator[tuple[float, Equilibrium]]:
    """Prices and equilibria of one branch, from a price of 3 on."""
    for k in range(1, 60):
        price = 3.0 + k * step
        new = solve(bandwagon(price), {}, START, GRID, guess=(eq.mu, eq.value), method="newton")
        if price <= 0 or not bool(new.converged) or abs(mean(new) - mean(eq)) > 0.5:
            return
        eq = new
        yield price, eq


def main() -> None:
    """Print the rows."""
    jax.config.update("jax_enable_x64", True)

    def told(name: str, eq: Equilibrium, **more: float) -> None:
        found = conditioning(eq)
        row = {"game": name, **more, "margin": found.margin, "smallest": found.smallest, "spectral radius": spectral_radius(eq)}
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()

    grid, start = TimeGrid(2.0, 100), np.array([1.0, 2.0, 3.0]) / 6.0
    weak, strong = LinearQuadratic(), LinearQuadratic(congestion=20.0, terminal_congestion=20.0)
    told("linear-quadratic, gamma 1.55", solve(weak, {"gamma": 1.55}, start, grid))
    told("linear-quadratic, strong coupling, gamma 0.2", solve(strong, {"gamma": 0.2}, start, grid))
    rare = LinearQuadratic(terminal_slope=0.0, base_rate=0.3, congestion=20.0)
    told("linear-quadratic, strong running coupling, gamma 0.1", solve(rare, {"gamma": 0.1}, start, grid))
    epidemic = solve(SIR(), {"beta": 0.6, "recovery": 0.1}, np.array([0.95, 0.05, 0.0]), TimeGrid(40.0, 100))
    told("epidemic, beta 0.6, recovery 0.1", epidemic)
    for branch in enumerate(bandwagon(3.0), {}, START, GRID, starts=8):
        name = f"bandwagon, mean {mean(branch.equilibrium):.2f} at a price of 3"
        told(name, branch.equilibrium, price=3.0)
        for step in (-0.25, 0.25):
            for price, eq in followed(branch.equilibrium, step):
                told(name, eq, price=price)


if __name__ == "__main__":
    main()
