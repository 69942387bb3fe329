"""Every variational guide beside NUTS: what it says of widths, how far it can be trusted, what it costs.

    python -m benchmarks.guides
    python -m benchmarks.guides school --guides full,flow --seeds 3

Problems: "late", one unknown of which a single datum says little (skewed, heavy tails); "school", the demo's outbreak with constant parameters, five
unknowns (skewed); "path", a linear-quadratic game with a Gaussian process of nine basis functions, ten unknowns; "rough", the same with 44. NUTS
draws 2 chains of 500 first. One row of JSON per guide and seed, ratios to NUTS first: `sd_error` is the root mean square of log(sd / sd of NUTS)
over the unconstrained coordinates, `sd_ratio_low` and `sd_ratio_high` are the smallest and the largest ratio, `mean_error` is the largest distance of
means in sds of NUTS. NUTS itself has a Monte Carlo error of a few percent of an sd. `speed` is the time of NUTS over that of the guide's updates,
or of the curvature for "laplace", without compiling; the search for the mode and what follows the draws are left out of both.
"""

import argparse
import collections
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist

from bayes_mfg import data, games, models, paths
from bayes_mfg.equilibrium import TimeGrid
from bayes_mfg.inference import FitError, find_mode, nuts, svi
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.flow import MOST_UNKNOWNS
from bayes_mfg.inference.point import Mode
from bayes_mfg.models import Calibration

STARTS = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
NOISE = 1e-2


def _school() -> Calibration:
    return Calibration(
        games.SIR(infection_cost=1.0),
        data.load_school_influenza(),
        {"beta": dist.LogNormal(0.405, 0.5), "recovery": dist.LogNormal(-0.916, 0.5), "contact_cost": dist.LogNormal(0.0, 2.0)},
        models.BetaBinomial(states=["I"]),
        initial=models.Seeded(seed="I", rest="S"),
        horizon=20.0,
    )


def _linear_quadratic(prior: Any, only: tuple[int, int] | None = None) -> Calibration:
    """Two trajectories of eleven times with gamma = 1.5; of these, `only` one datum (trajectory, time) is seen."""
    seen = data.simulate(
        games.LinearQuadratic(), {"gamma": 1.5}, STARTS, TimeGrid(2.0, 11), noise="dirichlet", size=NOISE, seed=1
    )
    if only is not None:
        mask = np.zeros(seen.shares.shape, bool)
        mask[only] = True
        seen = data.Population(seen.times, proportions=seen.shares, states=seen.states, trajectories=seen.trajectories, mask=mask)
    return Calibration(games.LinearQuadratic(), seen, {"gamma": prior}, models.Dirichlet(noise=NOISE), initial=STARTS, substeps=1)


PROBLEMS = {
    "late": lambda: _linear_quadratic(dist.LogNormal(0.0, 1.0), (1, 5)),
    "school": _school,
    "path": lambda: _linear_quadratic(paths.GaussianProcess(length_scale=0.6, scale=1.5, kernel="squared_exponential", basis=9)),
    "rough": lambda: _linear_quadratic(paths.GaussianProcess(length_scale=0.3, scale=1.5, kernel="matern32")),
}


class Clock:
    """Seconds of calls by thread; of each thread the first call, which compiles, counts as the mean of its others."""

    def __init__(self) -> None:
        self.calls: dict[int, list[float]] = collections.defaultdict(list)

    def around(self, owner: Any, name: str) -> Any:
        """Time a method of a class from now on; call what is returned to end it."""
        method = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            found = method(*args, **options)
            self.calls[threading.get_ident()].append(time.perf_counter() - begin)
            return found

        setattr(owner, name, timed)
        return lambda: setattr(owner, name, method)

    @property
    def seconds(self) -> float:
        """Of the slowest thread."""
        return max((len(calls) * float(np.mean(calls[1:] or calls)) for calls in self.calls.values()), default=0.0)


def timed(owner: Any, name: str, run: Any) -> tuple[Any, float]:
    """What `run` returns, and the seconds spent in a method of a class."""
    clock = Clock()
    end = clock.around(owner, name)
    try:
        return run(), clock.seconds
    finally:
        end()


def compare(model: Calibration, mode: Mode, reference: np.ndarray, guide: str, seed: int) -> tuple[dict[str, Any], float]:
    """One guide beside draws of NUTS `(draw, size)`; and its seconds."""

    def run() -> svi.Approximation:
        return svi.approximate(model, mode, guide=guide, seed=seed, progress=False)

    if guide == "laplace":
        run()
        begin = time.perf_counter()
        svi.exact_curvature(model, mode.location)
        seconds, found = time.perf_counter() - begin, run()
    else:
        found, seconds = timed(svi._Updates, "go_on", run)
    logs = np.log(found.flat.std(axis=0) / reference.std(axis=0))
    told = {
        "sd_error": float(np.sqrt(np.mean(logs**2))),
        "sd_ratio_low": float(np.exp(logs.min())),
        "sd_ratio_high": float(np.exp(logs.max())),
        "mean_error": float(np.abs((found.flat.mean(axis=0) - reference.mean(axis=0)) / reference.std(axis=0)).max()),
        **{name: found.settings.get(name) for name in ("pareto_k", "importance_ess", "elbo", "num_steps", "settled")},
        "rejected_draws": found.settings["rejected_draws"],
        "skipped_updates": found.settings.get("skipped_updates", 0),
    }
    return told, seconds


def rows(problem: str, guides: list[str], seeds: int) -> Iterator[dict[str, Any]]:
    """NUTS on a problem, then a row for every guide and seed."""
    model = PROBLEMS[problem]()
    mode = find_mode(model, progress=False)
    sampled, slow = timed(
        nuts._Chains,
        "go_on",
        lambda: nuts.sample(model, mode, num_chains=2, num_samples=500, target_accept_prob=0.9, progress=False),
    )
    size = coordinates(model).size
    about = {
        "problem": problem,
        "unknowns": size,
        "nuts_seconds": slow,
        "nuts_divergences": int(sampled.stats["diverging"].sum()),
    }
    reference = sampled.flat.reshape(-1, size)
    for guide in guides:
        for seed in range(seeds if guide != "laplace" else 1):
            if guide == "flow" and size > MOST_UNKNOWNS:
                continue
            try:
                told, seconds = compare(model, mode, reference, guide, seed)
            except FitError as error:
                yield {"guide": guide, "seed": seed, "failed": str(error), **about}
                continue
            yield {"guide": guide, "seed": seed, **told, "speed": slow / seconds, "seconds": seconds, **about}


def main() -> int:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", nargs="*", choices=[*PROBLEMS, []], help="some of the problems (default: all)")
    parser.add_argument("--guides", default=",".join(svi.GUIDES[1:]), help="names with commas between (default: all with widths)")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of every guide, from 0")
    options = parser.parse_args()
    for problem in options.problem or PROBLEMS:
        for row in rows(problem, options.guides.split(","), options.seeds):
            print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
