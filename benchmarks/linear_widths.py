"""Linearised posterior widths of gamma(t) against those of NUTS: linear-quadratic game, Gaussian-process path, strongly and weakly informed.

    python -m benchmarks.linear_widths strong
    python -m benchmarks.linear_widths weak
    python -m benchmarks.linear_widths wide

`strong`: eight trajectories from different starts over [0, 1], 21 times, Dirichlet noise 2e-5, base rate 0.3: populations are under way all the
time, and every gamma(t) leaves its trace. `weak`: two trajectories over [0, 2], noise 1e-2, base rate 2: populations rest for half of the time.
`wide`: the same with a prior three times as wide. The path is a Gaussian process on log gamma with length scale 0.5 and sd 0.5, or 1.5; the truth is
an arc from 1 to 2 and back. Initial populations are known, the noise is not. Widths are sds of log gamma(t), linearised at the mode. A row for every
time, then the sentences; those of `identifiability` at the mode, which looks at no draw, come last.
"""

import argparse
import json
import sys

import jax
import numpy as np
import numpyro.distributions as dist

import bayes_mfg as bm

CASES = {"strong": (8, 1.0, 2e-5, 0.3, 0.5), "weak": (2, 2.0, 1e-2, 2.0, 0.5), "wide": (2, 2.0, 1e-2, 2.0, 1.5)}
"""Trajectories, horizon, noise, base rate, prior sd of log gamma."""
POINTS = 21


def model_of(case: str, seed: int = 0) -> bm.models.Calibration:
    """The model with its simulated data."""
    count, horizon, noise, base, spread = CASES[case]
    starts = np.random.default_rng(seed).dirichlet(np.ones(3), count)
    game, grid = bm.games.LinearQuadratic(base_rate=base), bm.equilibrium.TimeGrid(horizon, POINTS, substeps=2)
    gamma = 1.0 + 4.0 * (grid.times / horizon) * (1.0 - grid.times / horizon)
    population = bm.data.simulate(game, {"gamma": gamma}, starts, grid, noise="dirichlet", size=noise, seed=seed)
    path = bm.paths.GaussianProcess(length_scale=0.5, scale=spread, level=1.5, level_scale=spread)
    observation = bm.models.Dirichlet(noise=dist.LogNormal(np.log(noise), 1.0))
    return bm.models.Calibration(game, population, {"gamma": path}, observation, initial=starts, substeps=2)


def main() -> int:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--samples", type=int, default=750, help="draws of each of the four chains")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = model_of(options.case, options.seed)
    fit = bm.inference.fit(
        model,
        num_chains=4,
        num_warmup=400,
        num_samples=options.samples,
        seed=options.seed,
        starts=1,
    )
    found = bm.inference.linear_widths(fit)
    contraction = bm.inference.contraction(fit)
    for k, t in enumerate(found.times):
        row = {"t": float(t), "linearised sd": found.linear["gamma"][k], "sd of the draws": found.drawn["gamma"][k]}
        row |= {"ratio": found.ratio["gamma"][k], "its Monte Carlo error": found.error["gamma"][k]}
        row |= {"posterior over prior sd": contraction.ratio["gamma"][k]}
        print(json.dumps({name: round(float(x), 4) for name, x in row.items()}), flush=True)
    print(json.dumps({"case": options.case, **{k: round(v, 4) for k, v in found.table().loc["gamma"].items()}}))
    for sentence in [*found.sentences, *contraction.sentences, *fit.warnings]:
        print(sentence)
    mode = bm.inference.fit(model, "point", starts=1, prior_samples=0, seed=options.seed)
    print("identifiability:", *bm.inference.identifiability(model, mode).warnings or ("no warning",))
    return 0


if __name__ == "__main__":
    sys.exit(main())
