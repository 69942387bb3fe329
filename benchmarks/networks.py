"""Ways to fit a network path beside each other, judged on gamma(t): linear-quadratic game, the arc, Dirichlet noise 1e-3.

    python -m benchmarks.networks
    python -m benchmarks.networks nuts fitted --sets 3

Five trajectories of 21 times from known initial populations, simulated on a grid eight times finer; the size of the noise is unknown in
every fit, the solver takes two steps per observation time. The networks have one hidden layer of eight tanh units (`random-32`: of 32) and
prior sd 1.5 of log gamma.

gp             Gaussian process, Matern-3/2 with length scale 0.3 and sd 1.5, by NUTS: the yardstick
nuts           the whole network by NUTS
svi-full       the whole network, full-rank guide
svi-laplace    the whole network, Gaussian at the mode
random         body drawn from the prior (seed 0), last layer by NUTS
random-32      the same with 32 units
fitted         body of the mode of the whole network, last layer by NUTS; seconds include the search for the mode
both           ensemble of 20 point fits, prior and data randomised
prior          ensemble of 20 point fits, prior randomised
none           ensemble of 20 point fits that differ by their starts
point          the mode alone

Every fit is one row of JSON: relative error of the median of gamma(t), share of times at which the central 90 % interval holds the truth
(over all times, before t = 1 and after), mean width of that interval of log gamma, worst R-hat and ESS of gamma(t) over times where there are
chains, strays and unfinished members of ensembles, and seconds. In the first set of a way these include compiling (in that of a last layer on
a fitted body, in every set: the body is part of the program). NUTS: two chains of 150 and 200 transitions, trees of depth 8 at most. Seeds are
0, 1, 2, ... for data sets and fits alike. Then follow means over sets.
"""

import argparse
import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import bayes_mfg as bm
from bayes_mfg.inference.report_stats import convergence
from benchmarks.coverage import HALF, HORIZON, LENGTH, NOISE, SCALE, populations, truth

POINTS, TRAJECTORIES, FINER, SUBSTEPS = 21, 5, 8, 2
WIDTH = 8
NUTS: dict[str, Any] = {"num_chains": 2, "num_warmup": 150, "num_samples": 200, "max_tree_depth": 8, "starts": 1}

network = bm.paths.Neural
PATHS: dict[str, bm.paths.Path] = {
    "gp": bm.paths.GaussianProcess(length_scale=LENGTH, scale=SCALE, kernel="matern32"),
    "whole": network(WIDTH, scale=SCALE),
    "random": network(WIDTH, scale=SCALE, body="random"),
    "random-32": network(32, scale=SCALE, body="random"),
}
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gp": ("gp", "nuts", NUTS),
    "nuts": ("whole", "nuts", NUTS),
    "svi-full": ("whole", "svi", {"guide": "full", "num_steps": 1000, "starts": 1}),
    "svi-laplace": ("whole", "svi", {"guide": "laplace", "starts": 1}),
    "random": ("random", "nuts", NUTS),
    "random-32": ("random-32", "nuts", NUTS),
    "fitted": ("whole", "nuts", NUTS),
    "both": ("whole", "ensemble", {"randomised": "both", "starts": 1}),
    "prior": ("whole", "ensemble", {"randomised": "prior"}),
    "none": ("whole", "ensemble", {"randomised": "none"}),
    "point": ("whole", "point", {"starts": 1}),
}
"""Way -> name of its path, method, options."""


def data_set(seed: int) -> tuple[bm.data.Population, np.ndarray, np.ndarray]:
    """One simulated data set, the initial populations, and the true gamma at its times."""
    rng = np.random.default_rng(seed)
    mu0 = rng.dirichlet(np.ones(3), TRAJECTORIES)
    grid = bm.equilibrium.TimeGrid(HORIZON, POINTS, substeps=FINER)
    gamma = truth("arc", grid.fine_times, rng)
    mu = np.asarray(populations(grid)(jnp.asarray(mu0), jnp.asarray(gamma)))
    noisy = np.maximum(np.stack([[rng.dirichlet(row / NOISE) for row in path] for path in mu]), 1e-12)
    population = bm.data.Population(grid.times, proportions=noisy / noisy.sum(-1, keepdims=True))
    return population, mu0, gamma[::FINER]


def model_of(path: bm.paths.Path, population: bm.data.Population, mu0: np.ndarray) -> bm.models.Calibration:
    """The model that is fitted."""
    noise = bm.models.Dirichlet(noise=dist.LogNormal(np.log(NOISE), 1.0))
    return bm.models.Calibration(bm.games.LinearQuadratic(), population, {"gamma": path}, noise, initial=mu0, substeps=SUBSTEPS)


def fitted(way: str, model: bm.models.Calibration, seed: int) -> bm.inference.Fit:
    """The fit of one way."""
    _, method, options = WAYS[way]
    chosen: Any = model
    if way == "fitted":
        chosen = bm.inference.last_layer(bm.inference.fit(model, "point", seed=seed, starts=1, prior_samples=0))
    return bm.inference.fit(chosen, method, seed=seed, prior_samples=0, progress=False, **options)


def row_of(way: str, seed: int, fit: bm.inference.Fit, right: np.ndarray, seconds: float) -> dict[str, Any]:
    """What is told of one fit."""
    gamma = fit.tree["posterior"].to_dataset()[["gamma"]]
    times = gamma["time"].to_numpy()
    low, mid, high = gamma["gamma"].quantile([0.05, 0.5, 0.95], ("chain", "draw")).values
    row: dict[str, Any] = {"way": way, "seed": seed, "gamma_error": float(np.linalg.norm(mid - right) / np.linalg.norm(right))}
    if way != "point":
        inside, early = (low <= right) & (right <= high), times < HALF
        row |= {"coverage": float(inside.mean()), "early": float(inside[early].mean()), "late": float(inside[~early].mean())}
        row |= {"log_width": float(np.log(high / low).mean())}
    settings = json.loads(fit.tree.attrs["inference"])
    if fit.method == "nuts":
        judged = convergence(gamma)[0]
        row |= {"r_hat": judged.r_hat, "ess": min(judged.ess_bulk, judged.ess_tail)}
        row |= {
            "diverging": int(fit.tree["sample_stats"]["diverging"].sum()),
            "steps": float(fit.tree["sample_stats"]["n_steps"].mean()),
        }
    row |= {name: settings[name] for name in ("failed_members", "unfinished_members", "stray_members") if name in settings}
    return row | {"seconds": round(seconds, 1)}


def study(ways: list[str], sets: int, first: int = 0) -> list[dict[str, Any]]:
    """One row per way and data set."""
    models: dict[str, bm.models.Calibration] = {}
    rows = []
    for way in ways:
        name = WAYS[way][0]
        for seed in range(first, first + sets):
            population, mu0, right = data_set(seed)
            model = models.get(name)
            model = model_of(PATHS[name], population, mu0) if model is None else model.with_population(population, initial=mu0)
            models[name] = model
            begin = time.perf_counter()
            fit = fitted(way, model, seed)
            if fit.interrupted:
                raise KeyboardInterrupt  # part of a fit is no row of a study
            rows.append(row_of(way, seed, fit, right, time.perf_counter() - begin))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> int:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"some of {', '.join(WAYS)} (default: all)")
    parser.add_argument("--sets", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed of the first data set")
    options = parser.parse_args()
    if unknown := [way for way in options.ways if way not in WAYS]:
        parser.error(f"unknown way {unknown[0]}; choose from {', '.join(WAYS)}")
    rows = study(options.ways or list(WAYS), options.sets, options.first)
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        means = {
            name: round(float(np.mean([row[name] for row in own])), 3)
            for name in own[0]
            if name not in ("way", "seed", "seconds")
        }
        print(json.dumps({"way": way, "sets": len(own), **means, "seconds": [row["seconds"] for row in own]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
