"""Does a design that the tool chose tell what it promised? Carried out by simulation on truths from the prior, against an even spread.

    python -m benchmarks.design --truths 50
    python -m benchmarks.design --truths 50 --laplace

Linear-quadratic game, d = 3, horizon 1, gamma(t) a Gaussian process on the logarithmic scale (median 1.5, sd 0.5 over time and 0.3 of its level,
length scale 0.4). Asked for is log gamma(0.5). There are three possible trajectories, from (0.2, 0.3, 0.5), (0.8, 0.1, 0.1) and (0.1, 0.1, 0.8), each
of which could be counted, 1,000 agents drawn anew, at ten times: six of these thirty counts may be made. The design is chosen on 32 prior draws and
its factor told by 32 others (seed 0). Then, for every truth (seeds 1000, 1001, ...), data are simulated under the chosen design and under six counts
spread evenly over the thirty, both are fitted by NUTS (one chain, warm-up 300, 600 draws; with `--laplace` by SVI's guide "laplace"), and the
posterior sds of log gamma(0.5) compared.

Printed are the geometric mean of sd(chosen) / sd(even), of each over the prior's, the predicted ones, and their ratios, with standard errors over
truths, and the least effective sample size and the largest R-hat (of the chain's halves) of the target. Exit status 1 unless there are at least 50
truths, the measured ratio is the predicted one within two standard errors and within 15 %, the chosen design is the narrower one on average by two,
and every NUTS fit has an effective sample size of at least 100 and an R-hat of at most 1.05, none diverging in more than 1 % of its draws. With
`--checkpoint DIR` the same command goes on where it was stopped; fits run in as many processes as there are cores.
"""

import argparse
import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base import array_stats

import bayes_mfg as bm
from bayes_mfg.inference import Experiment, ValueOf, observations
from bayes_mfg.inference.assemble import derived
from bayes_mfg.inference.checks import _with
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.design_plan import planned
from bayes_mfg.inference.fit import draw

TIMES = np.linspace(0.0, 1.0, 11)
FIRST, OTHERS = (0.2, 0.3, 0.5), {"2": (0.8, 0.1, 0.1), "3": (0.1, 0.1, 0.8)}
AGENTS, BUDGET, TARGET, FIRST_SEED = 1000, 6, 0.5, 1000
NUTS = {"num_chains": 1, "num_warmup": 300, "num_samples": 600, "starts": 1}
LEAST_TRUTHS, LEAST_ESS, MOST_R_HAT, MOST_OFF = 50, 100, 1.05, 0.15
LAPLACE = {"guide": "laplace", "num_samples": 600, "starts": 1}


def model() -> bm.models.Calibration:
    """The model before anything is observed."""
    counts = np.repeat((AGENTS * np.array([FIRST]))[:, None].round().astype(int), len(TIMES), axis=1)
    path = bm.paths.GaussianProcess(length_scale=0.4, scale=0.5, level=1.5, level_scale=0.3)
    return bm.models.Calibration(
        bm.games.LinearQuadratic(),
        bm.data.Population(TIMES, counts=counts, trajectories=["1"]),
        {"gamma": path},
        bm.models.Multinomial(),
        initial=np.array([FIRST]),
        substeps=4,
    )


def candidates() -> list[bm.inference.Observe]:
    """Ten counts in each of three trajectories."""
    return observations(TIMES[1:], ["1", *(Experiment(name, shares) for name, shares in OTHERS.items())])


def chosen() -> bm.inference.Design:
    """The design."""
    return bm.inference.design(
        model(), candidates=candidates(), budget=BUDGET, goal=ValueOf("gamma", TARGET), given=False, draws=64, seed=0
    )


@functools.cache
def plan() -> Any:
    """Everything that could be observed, without the search: for workers. All designs share what is compiled for it."""
    return planned(model(), candidates(), [], given=False)


def one(seed: int, design: str, picked: str, even: str, sampler: str) -> dict[str, float]:
    """Posterior mean and sd of the target for one truth under one design."""
    mine = plan().carried([int(k) for k in (picked if design == "chosen" else even).split()])
    space = coordinates(mine)
    truth = np.asarray(space.unconstrain(space.draw_prior(jax.random.key(seed))))
    made = derived(mine, truth[None], seed, given_data=False)
    if np.any(made["solver/code"] != 0):
        raise bm.inference.FitError("no equilibrium at the truth")
    mask = np.asarray(mine.data.record.mask)[..., None]
    mine = _with(mine, np.where(mask, made["replicate"][0], np.asarray(mine.data.record.values)))
    flat, stats, _, _ = draw(mine, sampler, seed=seed, progress=False, **(NUTS if sampler == "nuts" else LAPLACE))
    place = int(np.argmin(np.abs(TIMES - TARGET)))
    path = mine.bound["gamma"].function
    values = np.asarray(
        jax.vmap(
            lambda x: jnp.log(path(space.latents(space.constrain(x), mine.data)["raw"]["gamma"])(TIMES[place], jnp.ones(3) / 3))
        )(jnp.asarray(flat.reshape(-1, flat.shape[-1])))
    )
    return {
        "truth": float(np.log(made["parameter/gamma"][0, place])),
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)),
        "ess": float(array_stats.ess(values[None], chain_axis=0, draw_axis=1)),
        "r_hat": float(array_stats.rhat(values.reshape(2, -1), chain_axis=0, draw_axis=1)),
        "diverging": int(np.sum(stats["diverging"])) if stats and "diverging" in stats else 0,
    }


def main() -> int:
    """Command line."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truths", type=int, default=50)
    parser.add_argument("--laplace", action="store_true", help="fit by the Laplace approximation in place of NUTS")
    parser.add_argument("--workers", type=int, help="processes; by default one per core")
    parser.add_argument("--checkpoint", help="folder that keeps every fit, and from which a stopped run goes on")
    options = parser.parse_args()
    found = chosen()
    print(*found.sentences, sep="\n", flush=True)
    words = {"picked": " ".join(map(str, found.picked)), "even": " ".join(map(str, found.spread))}
    with bm.inference.processes(options.workers) as pool:
        study = bm.inference.study(
            one,
            {"design": ["chosen", "uniform"]},
            replicates=options.truths,
            seed=FIRST_SEED,
            executor=pool,
            checkpoint=options.checkpoint,
            resume=options.checkpoint is not None,
            **words,
            sampler="svi" if options.laplace else "nuts",
        )
    rows = study.rows[study.rows["outcome"] == "done"].pivot(index="replicate", columns="design", values="sd").dropna()
    prior = float(np.hypot(0.5, 0.3))
    ratio = np.log(rows["chosen"] / rows["uniform"]).to_numpy()
    predicted = found.against_uniform
    print(f"{len(rows)} truths of {options.truths}; {study.warnings or ''}")
    gap = ratio.mean() - np.log(predicted.value)
    error = np.hypot(ratio.std(ddof=1) / np.sqrt(len(ratio)), predicted.error / predicted.value)
    print(f"sd chosen / sd even: measured {np.exp(ratio.mean()):.3f}, predicted {predicted.value:.3f} (se {predicted.error:.3f})")
    narrower = int((ratio < 0).sum())
    print(
        f"measured over predicted {np.exp(gap):.3f} (se {error * np.exp(gap):.3f}); chosen narrower in {narrower} of {len(ratio)}"
    )
    done = study.rows[study.rows["outcome"] == "done"]
    for name, expected in (("chosen", found.sd_ratio.value), ("uniform", found.sd_ratio.value / predicted.value)):
        own = np.log(rows[name] / prior).to_numpy()
        spread = np.exp(own.mean()) * own.std(ddof=1) / np.sqrt(len(own))
        print(f"sd {name} / prior sd: measured {np.exp(own.mean()):.3f} (se {spread:.3f}), predicted {expected:.3f}")
        part = done[done["design"] == name]
        off = (part["truth"] - part["mean"]).to_numpy()
        print(
            f"{name}: root mean square error {np.sqrt((off**2).mean()):.3f}, in sds {np.sqrt(((off / part['sd']) ** 2).mean()):.2f}"
        )
    print(f"divergences {int(done['diverging'].sum())}; seconds per fit, median {done['seconds'].median():.1f}")
    print(f"least effective sample size {done['ess'].min():.0f}, largest R-hat {done['r_hat'].max():.3f}")
    own = ratio.std(ddof=1) / np.sqrt(len(ratio))
    wrong = {
        f"fewer than {LEAST_TRUTHS} truths": len(rows) < LEAST_TRUTHS,
        "the measured ratio is not the predicted one": abs(gap) > 2 * error,
        f"the measured ratio is off the predicted one by more than {MOST_OFF:.0%}": abs(np.expm1(gap)) > MOST_OFF,
        "the chosen design is not narrower": ratio.mean() > -2 * own,
        "chains that did not converge": not options.laplace
        and not (done["ess"].min() >= LEAST_ESS and done["r_hat"].max(skipna=False) <= MOST_R_HAT),
        "divergences": not options.laplace and done["diverging"].max() > 0.01 * NUTS["num_samples"],
    }
    print("; ".join(f"failed: {name}" for name, failed in wrong.items() if failed) or "passed")
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
