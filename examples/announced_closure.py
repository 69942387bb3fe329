"""A place closes for a while: agents who know of it, agents who are surprised, and a baseline that can only react.

    python -m bayes_mfg.examples.announced_closure --out docs/announced_closure.svg

simulates days of a small bike-share system, fits the game and the forward dynamics to their counts, closes the busiest place in the afternoon, and
draws what either says would happen. docs/interventions.md shows the figure and says how to read it.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as dist

import bayes_mfg as bm

PLACES = ("Station", "Centre", "Park")
RIDES = np.array([[0.0, 2.0, 0.8], [1.0, 0.0, 1.0], [0.6, 2.0, 0.0]])
"""Base rates of riding, per day; known, as from days on which nothing is at stake."""

EVENING = [1.0, 0.0, 0.8]
"""What it costs to end the day in each place; known."""

CONGESTION = 2.0
"""True cost of riding to a place where everybody is."""

CLOSURE = ("Centre", 0.5, 0.8)


def simulated(days: int, points: int, size: int, seed: int) -> bm.data.Population:
    """Counts of bicycles by place and time, on several days with different mornings."""
    game = bm.games.BikeShare(3, effort=0.5, terminal_cost=EVENING, states=PLACES)
    grid = bm.equilibrium.TimeGrid(1.0, points)
    mornings = np.random.default_rng(seed).dirichlet([6.0, 2.0, 4.0], days)
    truth = {"base_rate": RIDES, "congestion": CONGESTION}
    return bm.data.simulate(game, truth, mornings, grid, noise="multinomial", size=size, seed=seed, time_unit="days")


def fitted(population: bm.data.Population, forward: bool, draws: int, seed: int) -> bm.inference.Fit:
    """A Laplace fit of the game, or of its forward dynamics, with unknown effort and congestion, of which the latter know nothing."""
    game: bm.games.Game = bm.games.BikeShare(3, terminal_cost=EVENING, states=PLACES)
    model = bm.models.Calibration(
        bm.games.ForwardDynamics(game) if forward else game,
        population,
        {"base_rate": RIDES, "effort": dist.LogNormal(-0.5, 0.7), "congestion": dist.LogNormal(0.5, 0.7)},
        bm.models.Multinomial(),
        initial="observed",
        substeps=2,
        method="anderson",
    )
    return bm.inference.fit(model, "svi", guide="laplace", num_samples=draws, seed=seed, prior_samples=0, progress=False)


def closures(
    days: int = 8, points: int = 41, size: int = 400, draws: int = 200, seed: int = 0
) -> dict[str, bm.inference.Intervention]:
    """The closure, announced and by surprise, in the game, and in the forward dynamics, which knows no difference."""
    population = simulated(days, points, size, seed)
    game, forward = (fitted(population, one, draws, seed) for one in (False, True))
    return {
        "game, announced": game.intervene(bm.inference.Close(*CLOSURE)),
        "game, by surprise": game.intervene(bm.inference.Close(*CLOSURE, announced=False)),
        "forward dynamics": forward.intervene(bm.inference.Close(*CLOSURE)),
    }


def main() -> None:
    """Run the example from the shell."""
    parser = argparse.ArgumentParser(description="Close a place of a simulated bike-share system.")
    parser.add_argument(
        "--out", type=Path, default=Path("announced_closure.svg"), help="the figure (default: announced_closure.svg)"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    results = closures(seed=options.seed)
    for name, found in results.items():
        print(f"{name}:", *found.sentences, sep="\n  ")
    name, first = next(iter(results.items()))
    print(first.plot(options.out, beside={key: found for key, found in results.items() if key != name}, name=name))


if __name__ == "__main__":
    main()
