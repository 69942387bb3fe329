"""Coverage of profile confidence sets over simulated data sets: linear-quadratic game with constant gamma, and SIR with constant beta and recovery.

    python -m benchmarks.profiles lq --sets 300
    python -m benchmarks.profiles small --sets 300
    python -m benchmarks.profiles sir --sets 500

`lq`: gamma = 1.55, five trajectories of 21 times on [0, 2], Dirichlet noise of 1e-2 that is unknown, too. `small`: the same with one trajectory of
six times. `sir`: beta = 0.4, recovery = 0.125, two trajectories of 21 times on [0, 40], counts of 200 individuals drawn anew at each time. Initial
populations are known, and data are simulated on the solver's own steps, so that nothing but the number of data stands between the sets and their
nominal level.

For each level and unknown: the share of sets that hold the truth, with the binomial standard error at the nominal rate; the mean width of the 95 %
sets over that of the estimates' scatter; sets that are open or have several intervals, data sets without a maximum, failed solves. Seeds are 0, 1,
2, ...
"""

import argparse
import json
import sys
import time
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist

import bayes_mfg as bm

LEVELS = (0.9, 0.95)
TRUTH = {"lq": {"gamma": 1.55, "noise": 1e-2}, "small": {"gamma": 1.55, "noise": 1e-2}, "sir": {"beta": 0.4, "recovery": 0.125}}
STARTS = np.random.default_rng(0).dirichlet(np.ones(3), 5)
SEEDED = np.array([[0.95, 0.05, 0.0], [0.8, 0.1, 0.1]])


def data_set(case: str, seed: int) -> bm.data.Population:
    """One simulated data set."""
    if case == "sir":
        grid = bm.equilibrium.TimeGrid(40.0, 21, substeps=5)
        return bm.data.simulate(bm.games.SIR(), TRUTH[case], SEEDED, grid, noise="multinomial", size=200, seed=seed)
    points, count = (21, 5) if case == "lq" else (6, 1)
    grid = bm.equilibrium.TimeGrid(2.0, points, substeps=40 // (points - 1))
    gamma = {"gamma": TRUTH[case]["gamma"]}
    return bm.data.simulate(
        bm.games.LinearQuadratic(), gamma, STARTS[:count], grid, noise="dirichlet", size=TRUTH[case]["noise"], seed=seed
    )


def model_of(case: str, population: bm.data.Population) -> bm.models.Calibration:
    """The model that is profiled; priors of numbers only say where the search sets out."""
    wide = dist.LogNormal(0.0, 1.0)
    if case == "sir":
        paths = {"beta": wide, "recovery": dist.LogNormal(-2.0, 1.0)}
        return bm.models.Calibration(bm.games.SIR(), population, paths, bm.models.Multinomial(), initial=SEEDED, substeps=5)
    steps = 40 // (population.n_times - 1)
    noise = bm.models.Dirichlet(noise=dist.LogNormal(np.log(1e-2), 1.0))
    starts = STARTS[: population.n_trajectories]
    return bm.models.Calibration(bm.games.LinearQuadratic(), population, {"gamma": wide}, noise, initial=starts, substeps=steps)


def study(case: str, sets: int, first: int = 0, told: bool = False) -> list[dict[str, Any]]:
    """Profile every unknown in each data set; one row each."""
    model, rows = None, []
    for seed in range(first, first + sets):
        begin = time.perf_counter()
        population = data_set(case, seed)
        model = model_of(case, population) if model is None else model.with_population(population)
        row: dict[str, Any] = {"seed": seed}
        try:
            found = bm.inference.profiles(model, list(TRUTH[case]), levels=LEVELS, starts=1, progress=False)
        except bm.inference.FitError as error:
            rows.append({**row, "error": str(error)})
            continue
        for name, profile in found.items():
            held = {str(level): TRUTH[case][name] in profile.sets[level] for level in LEVELS}
            odd = sum(s.open_below or s.open_above or len(s.intervals) > 1 for s in profile.sets.values())
            row[name] = {"estimate": profile.estimate, "odd": odd, "failed": profile.failed_solves, **held}
            row[name]["unsettled"] = profile.unsettled
            row[name]["width"] = profile.sets[0.95].intervals[-1][1] - profile.sets[0.95].intervals[0][0]
        row["seconds"] = time.perf_counter() - begin
        rows.append(row)
        if told and len(rows) % 25 == 0:
            print(json.dumps({"done": len(rows), **rates(case, rows)}), flush=True)
    return rows


def rates(case: str, rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Share of sets that hold the truth, by unknown and level."""
    done = [row for row in rows if "error" not in row]
    return {
        name: {str(level): float(np.mean([row[name][str(level)] for row in done])) for level in LEVELS} for name in TRUTH[case]
    }


def main() -> int:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=sorted(TRUTH))
    parser.add_argument("--sets", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="seed of the first data set, to share the work between processes")
    options = parser.parse_args()
    rows = study(options.case, options.sets, options.first, told=True)
    done = [row for row in rows if "error" not in row]
    for name, shares in rates(options.case, rows).items():
        estimates = np.array([row[name]["estimate"] for row in done])
        line: dict[str, Any] = {
            "case": options.case,
            "unknown": name,
            "sets": len(done),
            "without a maximum": len(rows) - len(done),
        }
        line |= {f"coverage {level}": round(share, 4) for level, share in shares.items()}
        line |= {f"standard error {level}": round(float(np.sqrt(level * (1 - level) / len(done))), 4) for level in LEVELS}
        line |= {"mean estimate": float(estimates.mean()), "sd": float(estimates.std(ddof=1)), "truth": TRUTH[options.case][name]}
        # A set that knew the sd of the estimates would be as wide as this.
        line["width of the 95 % sets over 3.92 sd"] = float(
            np.mean([row[name]["width"] for row in done]) / (3.92 * estimates.std(ddof=1))
        )
        line |= {key: int(sum(row[name][key] for row in done)) for key in ("odd", "failed", "unsettled")}
        line["median seconds"] = round(float(np.median([row["seconds"] for row in done])), 2)
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
