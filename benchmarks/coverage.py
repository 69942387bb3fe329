"""Coverage of the 90 % bands over simulated data sets: linear-quadratic game, Dirichlet noise 1e-3, ten trajectories.

    python -m benchmarks.coverage constant --sets 20
    python -m benchmarks.coverage arc --sets 20

Data are simulated on a grid eight times finer than the observation times (`--finer 1`: on the observation times themselves), from initial
populations that the fit does not know; the fit solves on the default grid of about a hundred steps. The prior of the arc is a Matern-3/2
process on log gamma: the arc is steep at its ends, and smoother priors lose coverage there. The share of times at which the central 90 %
interval of gamma(t) holds the truth is printed for every data set, then their mean with its standard error.
Seeds are 0, 1, 2, ... for data sets and fits alike.
"""

import argparse
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import bayes_mfg as bm

HORIZON, POINTS, TRAJECTORIES, NOISE = 2.0, 51, 10, 1e-3


def truth(case: str, times: np.ndarray) -> np.ndarray:
    """Constant 1.55, or the arc that rises from 0.1 to 3 and falls again."""
    if case == "constant":
        return np.full(times.shape, 1.55)
    return 0.1 + 2.9 * (4 / HORIZON**2) * times * (HORIZON - times)


def data_set(case: str, seed: int, finer: int = 8) -> bm.data.Population:
    """One simulated data set."""
    rng = np.random.default_rng(seed)
    mu0 = rng.dirichlet(np.ones(3), TRAJECTORIES)
    grid = bm.equilibrium.TimeGrid(HORIZON, POINTS, substeps=finer)
    gamma = jnp.asarray(truth(case, grid.fine_times))
    solve = jax.jit(jax.vmap(lambda m: bm.equilibrium.solve(bm.games.LinearQuadratic(), {"gamma": gamma}, m, grid).mu))
    mu = np.asarray(solve(jnp.asarray(mu0)))
    noisy = np.stack([[rng.dirichlet(row / NOISE) for row in path] for path in mu])
    return bm.data.Population(grid.times, proportions=np.maximum(noisy, 1e-12) / np.maximum(noisy, 1e-12).sum(-1, keepdims=True))


def model_of(case: str, population: bm.data.Population) -> bm.models.Calibration:
    """The model that is fitted: the noise and the initial populations are unknown."""
    path = (
        bm.paths.Constant(prior=dist.LogNormal(0.0, 1.0))
        if case == "constant"
        else bm.paths.GaussianProcess(length_scale=0.3, scale=1.5, kernel="matern32")
    )
    return bm.models.Calibration(
        bm.games.LinearQuadratic(),
        population,
        {"gamma": path},
        bm.models.Dirichlet(noise=dist.LogNormal(np.log(1e-3), 1.0)),
    )


def study(
    case: str, sets: int, first: int = 0, num_samples: int = 200, num_warmup: int = 150, finer: int = 8
) -> list[dict[str, float]]:
    """Fit `sets` data sets; one row each."""
    model, rows = None, []
    for seed in range(first, first + sets):
        begin = time.perf_counter()
        population = data_set(case, seed, finer)
        model = model_of(case, population) if model is None else model.with_population(population)
        fit = bm.inference.fit(
            model, seed=seed, num_chains=2, num_samples=num_samples, num_warmup=num_warmup, prior_samples=0, starts=1
        )
        gamma = fit.tree["posterior"]["gamma"]
        low, mid, high = gamma.quantile([0.05, 0.5, 0.95], ("chain", "draw")).values
        right = truth(case, model.grid.times)
        inside = (low <= right) & (right <= high)
        if case == "constant":
            inside = inside[:1]
        stats = fit.tree["sample_stats"]
        rows.append(
            {
                "seed": seed,
                "coverage": float(inside.mean()),
                "gamma_error": float(np.linalg.norm(mid - right) / np.linalg.norm(right)),
                "log_width": float(np.mean(np.log(high / low))),
                "steps": float(stats["n_steps"].mean()),
                "diverging": int(stats["diverging"].sum()),
                "failed_solves": int(stats["failed_solve"].sum()),
                "warnings": len(fit.warnings),
                "seconds": time.perf_counter() - begin,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> int:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=["constant", "arc"])
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--finer", type=int, default=8, help="solver steps of the simulation per observation time")
    options = parser.parse_args()
    rows = study(options.case, options.sets, finer=options.finer)
    coverage = np.array([row["coverage"] for row in rows])
    error = coverage.std(ddof=1) / np.sqrt(len(rows))
    print(f"{options.case}: mean coverage of the 90 % band {coverage.mean():.3f} +- {error:.3f} over {len(rows)} data sets")
    print(f"median gamma error of the posterior median {np.median([row['gamma_error'] for row in rows]):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
