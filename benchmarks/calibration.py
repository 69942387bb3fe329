"""Simulation-based calibration of NUTS and of every SVI guide, on models small enough for hundreds of fits.

    python -m benchmarks.calibration lq
    python -m benchmarks.calibration sir
    python -m benchmarks.calibration lq --method svi --guide laplace

Unknowns are drawn from the model's own prior, data from these, and the truth is ranked among 99 draws of the fit: every parameter, gamma at five
times, the log likelihood. Exact inference gives uniform ranks. For every quantity the table has the p-value of that (simultaneous band of the
ranks' empirical distribution), coverage of 50, 80 and 90 % intervals, the mean error of posterior means in sds, the contraction from prior to
posterior, and the least effective sample size of any fit.

- lq: linear-quadratic game, gamma(t) a Gaussian process, unknown noise, two trajectories from known starts, eleven times.
- pooled: linear-quadratic game, a constant gamma for each of five trajectories, partially pooled, six times, known noise.
- sir: constant contagion, recovery and contact cost and an unknown start; counts of the infected, of 500 people, on 12 of 16 days.

Fits run in as many processes as there are cores. Seed 0 throughout. With `--out DIR` the folder gets `<case>-<method>.json` and `.svg`; with
`--checkpoint DIR` the same command goes on where it was stopped.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd

import bayes_mfg as bm

NUTS = {"num_chains": 1, "num_warmup": 200, "num_samples": 500, "starts": 1}
SVI = {"num_samples": 500, "starts": 1}


def lq() -> bm.models.Calibration:
    """gamma(t) of the linear-quadratic game."""
    starts = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    times = np.linspace(0.0, 1.0, 11)
    path = bm.paths.GaussianProcess(length_scale=0.5, scale=0.5, level=1.5, level_scale=0.3)
    return bm.models.Calibration(
        bm.games.LinearQuadratic(),
        _blank(times, starts, ("0", "1", "2")),
        {"gamma": path},
        bm.models.Dirichlet(noise=dist.LogNormal(np.log(2e-3), 0.3)),
        initial=starts,
        substeps=2,
    )


def pooled() -> bm.models.Calibration:
    """A constant gamma for every trajectory, around a typical one."""
    starts = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3], [0.1, 0.2, 0.7]])
    path = bm.paths.Pooled(bm.paths.Constant(level=1.5, level_scale=0.3), scale=dist.HalfNormal(1.0))
    return bm.models.Calibration(
        bm.games.LinearQuadratic(),
        _blank(np.linspace(0.0, 1.0, 6), starts, ("0", "1", "2")),
        {"gamma": path},
        bm.models.Dirichlet(noise=2e-3),
        initial=starts,
        substeps=4,
    )


def sir() -> bm.models.Calibration:
    """Constant parameters of an epidemic of which some days are seen."""
    days = np.arange(16.0)
    mask = np.zeros((1, 16, 3), bool)
    mask[:, :, 1] = True
    mask[:, [3, 6, 7, 11], 1] = False
    counts = np.where(mask, 10, 0)
    population = bm.data.Population(days, counts=counts, totals=np.full((1, 16), 500), states=("S", "I", "R"), mask=mask)
    return bm.models.Calibration(
        bm.games.SIR(infection_cost=1.0),
        population,
        {"beta": dist.LogNormal(0.3, 0.3), "recovery": dist.LogNormal(-0.9, 0.3), "contact_cost": dist.LogNormal(0.0, 0.7)},
        bm.models.BetaBinomial(states=["I"], concentration=dist.LogNormal(4.0, 0.7)),
        initial=bm.models.Seeded(seed="I", rest="S"),
        substeps=2,
    )


def _blank(times: np.ndarray, starts: np.ndarray, states: tuple[str, ...]) -> bm.data.Population:
    """Data of a model's shape; a check looks at times and gaps only, and, for the prior predictive figures, at the numbers."""
    shares = np.repeat(starts[:, None], len(times), axis=1)
    return bm.data.Population(times, proportions=shares, states=states)


CASES: dict[str, Callable[[], bm.models.Calibration]] = {"lq": lq, "pooled": pooled, "sir": sir}


def main() -> int:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--method", choices=["nuts", "svi"], default="nuts")
    parser.add_argument("--guide", default="full", help="of svi")
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--workers", type=int, help="processes; by default one per core")
    parser.add_argument("--checkpoint", help="folder that keeps every simulation, and from which a stopped run goes on")
    parser.add_argument("--out", help="folder for figures and picture")
    options = parser.parse_args()
    settings = NUTS if options.method == "nuts" else {**SVI, "guide": options.guide}
    with bm.inference.processes(options.workers) as pool:
        found = bm.inference.check(
            CASES[options.case](),
            options.method,
            simulations=options.simulations,
            executor=pool,
            checkpoint=options.checkpoint,
            resume=options.checkpoint is not None,
            **settings,
        )
    pd.set_option("display.width", 200, "display.max_columns", 20, "display.float_format", "{:.3f}".format)
    columns = ["p_value", "coverage50", "coverage80", "coverage90", "bias", "contraction", "least_ess"]
    print(found.table()[columns])
    print(found.outcomes["outcome"].value_counts().to_string())
    print(found.outcomes.drop(columns="outcome").agg(["min", "median", "max", "sum"]))
    print(f"{found.seconds:.0f} s; warnings:", *(found.warnings or ["none"]), sep="\n- ")
    if options.out:
        name = options.case + "-" + (options.method if options.method == "nuts" else options.guide)
        folder = Path(options.out)
        folder.mkdir(exist_ok=True, parents=True)
        found.save(folder / f"{name}.json")
        print(found.plot(folder / f"{name}.svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
