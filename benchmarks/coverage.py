"""Coverage of the 90 % bands over simulated data sets: linear-quadratic game, Dirichlet noise, ten trajectories.

    python -m benchmarks.coverage constant --sets 40
    python -m benchmarks.coverage arc --sets 20
    python -m benchmarks.coverage arc --sets 20 --smooth
    python -m benchmarks.coverage prior --sets 20

Data are simulated on a grid eight times finer than the observation times (`--finer 1`: on the observation times themselves), from initial
populations that the fit does not know; the fit solves on the default grid of about a hundred steps. The truth is a constant, an arc, or (`prior`)
for every data set another draw from the fit's own prior, noise included: the one case in which Bayes' rule promises the nominal rate. There the
prior is narrower (median 1.5, sd of log gamma 0.5 over time and 0.3 for its level): draws of the arc's prior reach from 0.02 to 50, and where gamma
is small everyone ends in one state, whose neighbours' shares are far below the noise; a Dirichlet density is then all but singular.

The prior of the arc is a Matern-3/2 process on log gamma with length scale 0.3 and sd 1.5. It was chosen after a first run on two arcs with
Matern-5/2 and length scale 0.5, which lost coverage: the arc is steep at its ends. `--smooth` fits with that first prior.

For every data set the share of times at which the central 90 % interval of gamma(t) holds the truth is printed, over all times and over those
before and after t = 1 with the mean width of the band (of log gamma): in the first half the data say little, in the second much. Then follow means
with standard errors. Seeds are 0, 1, 2, ... for data sets and fits alike; fits whose R-hat is above 1.01 are counted, not left out.
"""

import argparse
import functools
import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import bayes_mfg as bm
from bayes_mfg.inference.report_stats import R_HAT, convergence

HORIZON, POINTS, TRAJECTORIES, NOISE = 2.0, 51, 10, 1e-3
LENGTH, SCALE = 0.3, 1.5
MEDIAN, NARROW, NARROW_LEVEL, NARROW_NOISE = 1.5, 0.5, 0.3, 0.5
HALF = 1.0


def truth(case: str, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Constant 1.55; the arc that rises from 0.1 to 3 and falls again; or a draw from the prior, by its exact covariance."""
    if case == "constant":
        return np.full(times.shape, 1.55)
    if case == "arc":
        return 0.1 + 2.9 * (4 / HORIZON**2) * times * (HORIZON - times)
    distance = np.sqrt(3.0) * np.abs(times[:, None] - times) / LENGTH
    covariance = NARROW**2 * (1 + distance) * np.exp(-distance) + 1e-10 * np.eye(times.size)
    return MEDIAN * np.exp(
        NARROW_LEVEL * rng.standard_normal() + np.linalg.cholesky(covariance) @ rng.standard_normal(times.size)
    )


@functools.cache
def populations(grid: bm.equilibrium.TimeGrid, states: int = 3) -> Any:
    """Compiled `(mu0 (R, d), gamma (M + 1,)) -> mu (R, T, d)`."""
    game = bm.games.LinearQuadratic(states)
    return jax.jit(jax.vmap(lambda m, g: bm.equilibrium.solve(game, {"gamma": g}, m, grid).mu, in_axes=(0, None)))


def data_set(case: str, seed: int, finer: int = 8, states: int = 3) -> tuple[bm.data.Population, np.ndarray]:
    """One simulated data set, and the true gamma at its times."""
    rng = np.random.default_rng(seed)
    mu0 = rng.dirichlet(np.ones(states), TRAJECTORIES)
    grid = bm.equilibrium.TimeGrid(HORIZON, POINTS, substeps=finer)
    gamma = truth(case, grid.fine_times, rng)
    noise = NOISE * np.exp(NARROW_NOISE * rng.standard_normal()) if case == "prior" else NOISE
    mu = np.asarray(populations(grid, states)(jnp.asarray(mu0), jnp.asarray(gamma)))
    if not np.isfinite(mu).all():
        raise RuntimeError(f"The truth of data set {seed} has no equilibrium that the solver finds.")
    noisy = np.maximum(np.stack([[rng.dirichlet(row / noise) for row in path] for path in mu]), 1e-12)
    population = bm.data.Population(grid.times, proportions=noisy / noisy.sum(-1, keepdims=True))
    return population, gamma[::finer]


def model_of(case: str, population: bm.data.Population, smooth: bool = False) -> bm.models.Calibration:
    """The model that is fitted: the noise and the initial populations are unknown."""
    path: bm.paths.Path
    if case == "constant":
        path = bm.paths.Constant(prior=dist.LogNormal(0.0, 1.0))
    elif case == "prior":
        path = bm.paths.GaussianProcess(
            length_scale=LENGTH, scale=NARROW, level=MEDIAN, level_scale=NARROW_LEVEL, kernel="matern32"
        )
    else:
        path = bm.paths.GaussianProcess(
            length_scale=0.5 if smooth else LENGTH, scale=SCALE, kernel="matern52" if smooth else "matern32"
        )
    return bm.models.Calibration(
        bm.games.LinearQuadratic(population.n_states),
        population,
        {"gamma": path},
        bm.models.Dirichlet(noise=dist.LogNormal(np.log(NOISE), NARROW_NOISE if case == "prior" else 1.0)),
    )


def study(
    case: str,
    sets: int,
    first: int = 0,
    num_samples: int = 200,
    num_warmup: int = 150,
    finer: int = 8,
    smooth: bool = False,
) -> list[dict[str, float]]:
    """Fit `sets` data sets; one row each."""
    model, rows = None, []
    for seed in range(first, first + sets):
        begin = time.perf_counter()
        population, right = data_set(case, seed, finer)
        model = model_of(case, population, smooth) if model is None else model.with_population(population)
        fit = bm.inference.fit(
            model, seed=seed, num_chains=2, num_samples=num_samples, num_warmup=num_warmup, prior_samples=0, starts=1
        )
        if fit.interrupted:
            raise KeyboardInterrupt  # part of a fit is no row of a study
        gamma = fit.tree["posterior"].to_dataset()[["gamma"]].sel(time=population.times)
        low, mid, high = gamma["gamma"].quantile([0.05, 0.5, 0.95], ("chain", "draw")).values
        inside, width = (low <= right) & (right <= high), np.log(high / low)
        early = population.times < HALF
        if case == "constant":
            inside, width, early = inside[:1], width[:1], early[:1]
        stats = fit.tree["sample_stats"]
        row = {
            "seed": seed,
            "coverage": float(inside.mean()),
            "log_width": float(width.mean()),
            "gamma_error": float(np.linalg.norm(mid - right) / np.linalg.norm(right)),
            "r_hat": convergence(gamma)[0].r_hat,
            "steps": float(stats["n_steps"].mean()),
            "diverging": int(stats["diverging"].sum()),
            "failed_solves": int(stats["failed_solve"].sum()),
            "seconds": time.perf_counter() - begin,
        }
        if case != "constant":
            row["coverage_early"], row["coverage_late"] = float(inside[early].mean()), float(inside[~early].mean())
            row["log_width_early"], row["log_width_late"] = float(width[early].mean()), float(width[~early].mean())
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> int:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["constant", "arc", "prior"])
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed of the first data set, to share the work between processes")
    parser.add_argument("--finer", type=int, default=8, help="solver steps of the simulation per observation time")
    parser.add_argument("--smooth", action="store_true", help="fit with Matern-5/2 and length scale 0.5")
    options = parser.parse_args()
    rows = study(options.case, options.sets, options.first, finer=options.finer, smooth=options.smooth)
    for name in ("coverage", "coverage_early", "coverage_late", "log_width", "log_width_early", "log_width_late"):
        if name in rows[0]:
            values = np.array([row[name] for row in rows])
            print(f"{options.case}: {name} {values.mean():.3f} +- {values.std(ddof=1) / np.sqrt(len(rows)):.3f}")
    print(f"median gamma error of the posterior median {np.median([row['gamma_error'] for row in rows]):.3f}")
    print(f"{len(rows)} data sets; R-hat of gamma above {R_HAT} in {sum(row['r_hat'] > R_HAT for row in rows)}")
    print(f"divergences {sum(row['diverging'] for row in rows)}, failed solves {sum(row['failed_solves'] for row in rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
