"""A fit to the noise floor whose parameter is wrong: why, what the data do determine, what to observe to mend it, and the mend carried out.

    python -m bayes_mfg.examples.tutorial --nuts --out docs/tutorial.svg

The arc of arXiv 2606.23155: a linear-quadratic game of three states over [0, 2], gamma(t) = 0.1 + 2.9 t (2 - t), shares with Dirichlet noise of 1e-3.
Here with 10 trajectories at 41 times in place of 200 at 100. docs/tutorial.md tells what is printed. The options make everything smaller.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as dist

import bayes_mfg as bm
from bayes_mfg.inference import Experiment, ValueOf, observations
from bayes_mfg.inference.report_svg import Band, Layer, Line, chart, mosaic

GAME = bm.games.LinearQuadratic()
HORIZON, NOISE = 2.0, 1e-3
ARC = bm.data.Arc(0.1, 2.9, HORIZON)
SPREAD, LEVEL_SPREAD = 1.5, 1.0
"""Prior sds of log gamma: over time, and of its level."""

PRIOR_SD = float(np.hypot(SPREAD, LEVEL_SPREAD))
EARLY, ASKED = (0.1, 0.4, 0.7, 1.0), (0.1, 0.4, 0.7, 1.0, 1.3, 1.6, 1.9)
"""Times at which gamma shall be known, and those that are told."""

CROWD = (0.96, 0.02, 0.02)
EXPERIMENTS = [
    Experiment("the same again", CROWD),
    Experiment("other ends", CROWD, {"terminal_slope": -5.0}),
    Experiment("crowds cost", CROWD, {"congestion": 5.0}),
    Experiment("slow", CROWD, {"base_rate": 0.3}),
]
"""What could be done: nearly all begin in one state, and as before; what counts in the end turned round; crowding at fifty times its cost; the rate
of moving that costs nothing at 0.3 in place of 2."""

BUDGET = 8


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was found; fits by name: "before", "even", "design"."""

    model: bm.models.Calibration
    estimates: dict[str, bm.inference.Fit]
    identified: bm.inference.Identifiability
    design: bm.inference.Design
    fits: dict[str, bm.inference.Fit]
    linear: dict[str, np.ndarray]
    """Linearised posterior over prior sds of log gamma at the true arc, `(T,)`, by name of the fit; "slow": spread over this experiment."""

    def sd(self, name: str) -> np.ndarray:
        """Posterior sd of log gamma, `(T,)`."""
        return np.log(paths(self.fits[name])).std(axis=0)

    def early(self, ratios: np.ndarray) -> float:
        """Root mean square over the early times, of `(T,)`."""
        return float(np.sqrt(np.mean(ratios[places(self.model, EARLY)] ** 2)))

    def plot(self, path: Path) -> Path:
        """Bands before and after under the true arc, and the widths, as one SVG picture."""
        path.write_text(picture(self))
        return path


def places(model: bm.models.Calibration, times: tuple[float, ...]) -> list[int]:
    """Numbers of times on the model's grid."""
    return [int(np.argmin(np.abs(model.grid.times - t))) for t in times]


def arc(model: bm.models.Calibration) -> np.ndarray:
    """The true path on the model's grid."""
    return np.asarray(ARC(model.grid.times, None))


def paths(fit: bm.inference.Fit) -> np.ndarray:
    """Draws of gamma, `(n, T)`; of a point estimate that also depends on the population one row for each trajectory."""
    gamma = fit.tree["posterior"]["gamma"].to_numpy()
    return gamma.reshape(-1, gamma.shape[-1])


def modelled(data: bm.data.Population, starts: np.ndarray, gamma: bm.paths.Path, noise: float | dist.Distribution):
    """A model of these data."""
    return bm.models.Calibration(GAME, data, {"gamma": gamma}, bm.models.Dirichlet(noise=noise), initial=starts, substeps=2)


def run(
    trajectories: int = 10,
    points: int = 41,
    networks: int = 0,
    nuts: bool = False,
    draws: int = 16,
    samples: int = 1000,
    transitions: int = 200,
    seed: int = 0,
) -> Outcome:
    """All of it.

    Parameters
    ----------
    trajectories, points : of the data; points so that multiples of 0.1 are on the grid: 21, 41, ...
    networks : number of the paper's networks that are fitted beside the mode.
    nuts : whether posteriors after the mend are by NUTS in place of Laplace's approximation, by which the first is.
    draws : of the fit, at which the design is chosen and judged.
    samples : of Laplace's approximation, reweighted.
    transitions : of each of NUTS's two chains, and as many in its warm-up.
    seed : of everything; the networks have it and the next ones.
    """
    starts = np.random.default_rng(seed).dirichlet(np.ones(3), trajectories)
    grid = bm.equilibrium.TimeGrid(HORIZON, points, substeps=2)
    data = bm.data.simulate(GAME, {"gamma": ARC}, starts, grid, noise="dirichlet", size=NOISE, seed=seed)
    exact = bm.data.simulate(GAME, {"gamma": ARC}, starts, grid)
    path = bm.paths.GaussianProcess(kernel="matern32", length_scale=0.3, scale=SPREAD, level=1.0, level_scale=LEVEL_SPREAD)
    model = modelled(data, starts, path, dist.LogNormal(np.log(NOISE), 0.5))
    common = {"starts": 1, "prior_samples": 0, "seed": seed}
    by_laplace = {"method": "svi", "guide": "laplace", "importance": True, "num_samples": samples, **common}
    by_nuts = {"method": "nuts", "num_chains": 2, "num_warmup": transitions, "num_samples": transitions, **common}

    heading("1. The trouble: point estimates")
    floor = np.mean(np.sum((exact.proportions - data.proportions) ** 2, axis=-1))
    print(f"squared error of the true populations, which is the noise: {floor:.2e}")
    points_of = {"mode": bm.inference.fit(model, "point", starts=1, prior_samples=0, seed=seed)}
    flexible = modelled(data, starts, bm.paths.Neural.published(), NOISE) if networks else model
    for k in range(seed, seed + networks):
        published = {"objective": "paper", "epochs": 1000, "learning_rate": 5e-3, "prior_samples": 0}
        points_of[f"network, seed {k}"] = bm.inference.fit(flexible, "point", seed=k, **published)
    for name, fit in points_of.items():
        mu = fit.tree["posterior"]["mu"].to_numpy()[0, 0]
        error = np.mean(np.sum((mu - data.proportions) ** 2, axis=-1))
        print(f"{name}: squared error of mu {error:.2e}, error of gamma {off(paths(fit), arc(model)):.2f} of its size")

    heading("2. Why: gamma(t) leaves its trace at the end alone")
    truth = {"gamma": arc(model), "noise": NOISE}
    seen = bm.inference.sensitivity(model, truth)
    print(f"of {points} directions of gamma {seen.rank('gamma', 0.1)} move shares by 10 % of what the strongest does, ", end="")
    print(f"{seen.rank('gamma', 0.01)} by 1 %")
    trace = np.linalg.norm(seen.matrix("gamma"), axis=0)
    print("trace of gamma at t, over that at the end:", at_times(model, trace / trace[-1], ".0e"))
    identified = bm.inference.identifiability(model, truth, checked=0)
    print(identified.sentences[0], identified.verdicts["gamma"].reason, sep="\n")
    linear = {"before": identified.verdicts["gamma"].ratio}
    print("posterior over prior sd of log gamma, linearised:", at_times(model, linear["before"]))

    heading("3. What a posterior says of the same data")
    fits = {"before": bm.inference.fit(model, **by_laplace)}
    shown("before", model, fits["before"])

    heading("4. What to observe next")
    where = model.grid.times[(points - 1) // 20 :: (points - 1) // 20]
    design = bm.inference.design(
        model,
        fits["before"],
        candidates=observations(where, EXPERIMENTS),
        budget=BUDGET,
        goal=[ValueOf("gamma", t) for t in EARLY],
        draws=draws,
        seed=seed,
    )
    print(*design.sentences, sep="\n")
    print("gain of an observation alone, nats, the best time of each:")
    for name, gain in design.table().groupby("trajectory", sort=False)["alone"].max().items():
        print(f"  {name}: {gain:.4f}")

    heading("5. Carried out, by simulation at the true arc")
    for name, uniform in (("even", True), ("design", False)):
        found = design.model(design.simulate(truth, seed=seed, uniform=uniform))
        fits[name] = bm.inference.fit(found, **(by_nuts if nuts else by_laplace))
        shown(name, model, fits[name])
        linear[name] = at_truth(found, truth)
    slow = [k for k, c in enumerate(design.plan.candidates[: design.offered]) if c.place == "slow"]
    slow = [slow[k] for k in np.linspace(0, len(slow) - 1, BUDGET).round().astype(int)]
    linear["slow"] = at_truth(design.plan.carried(slow), truth)

    made = Outcome(model, points_of, identified, design, fits, linear)
    promised = {
        "before": float(np.exp(design.judged.before.mean())),
        "even": float(np.exp(design.judged.uniform.mean())),
        "design": design.sd_ratio.value,
    }
    print("\nposterior over prior sd of log gamma, root mean square over t =", ", ".join(map(str, EARLY)))
    print(f"{'':8}{'predicted':>11}{'at the arc':>12}{'achieved':>10}")
    for name, ratio in promised.items():
        print(f"{name:8}{ratio:11.3f}{made.early(linear[name]):12.3f}{made.early(made.sd(name) / PRIOR_SD):10.3f}")
    print(f"{BUDGET} times evenly over the slow trajectory, at the arc: {made.early(linear['slow']):.3f}")
    return made


def at_truth(model: bm.models.Calibration, truth: dict) -> np.ndarray:
    """Linearised posterior over prior sd of log gamma, `(T,)`."""
    return bm.inference.identifiability(model, truth, checked=0).verdicts["gamma"].ratio


def off(gamma: np.ndarray, true: np.ndarray) -> float:
    """Error of a path `(T,)`, or of one for each trajectory `(R, T)`, relative to the true one's size."""
    return float(np.linalg.norm(gamma - true) / np.linalg.norm(np.broadcast_to(true, gamma.shape)))


def shown(name: str, model: bm.models.Calibration, fit: bm.inference.Fit) -> None:
    """Print what a posterior says."""
    gamma, true = paths(fit), arc(model)
    first = model.grid.times <= 1.0
    low, middle, high = np.quantile(gamma, (0.05, 0.5, 0.95), axis=0)
    print(f"{name}: sd of log gamma {at_times(model, np.log(gamma).std(axis=0))}")
    print(
        f"  error of the median path {off(middle, true):.2f}, until t = 1 {off(middle[first], true[first]):.2f}; the 90 % band holds the arc at "
        f"{np.mean((low <= true) & (true <= high)):.0%} of all times"
    )
    if "pareto_k" in (settings := json.loads(fit.tree.attrs["inference"])):
        k, limit = settings["pareto_k"], settings["pareto_k_limit"]
        print(f"  Pareto k {k:.2f}, {'within' if k <= limit else 'not to be trusted: above'} {limit:.2f}", flush=True)
    else:
        worst, least = fit.summary()["r_hat"].max(), fit.summary()["ess_bulk"].min()
        print(f"  NUTS: largest R-hat {worst:.2f}, least effective sample size {least:.0f}", flush=True)


def at_times(model: bm.models.Calibration, values: np.ndarray, form: str = ".2f") -> str:
    """Values at the times that are told."""
    return ", ".join(f"{values[k]:{form}} at {t:g}" for t, k in zip(ASKED, places(model, ASKED), strict=True))


def heading(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}", flush=True)


def picture(found: Outcome) -> str:
    """One SVG picture: a band for every fit, and the widths over time."""
    times, true = found.model.grid.times, arc(found.model)
    ends, drawn = (0.0, HORIZON), []
    captions = {"before": "before (grey: point estimates)", "even": "after, evenly spread", "design": "after, the design"}
    for name, caption in captions.items():
        low, middle, high = np.quantile(paths(found.fits[name]), (0.05, 0.5, 0.95), axis=0)
        layers: list[Layer] = [Band(times, low, high, "area"), Line(times, middle, "median"), Line(times, true, "true")]
        if name == "before":
            layers += [Line(times, paths(one).mean(axis=0), "point") for one in found.estimates.values()]
        words = f"median and 90 % band of gamma over time, {caption}; dashed: the true arc"
        drawing = chart(layers, title=name, description=words, x_label="time", x_range=ends, y_range=(0.01, 30.0), y_log=True)
        drawn.append((f"gamma, {caption}", drawing))
    widths: list[Layer] = [Line(ends, (PRIOR_SD, PRIOR_SD), "point")]
    widths += [
        Line(times, found.sd(name), style) for name, style in (("before", "before"), ("even", "even"), ("design", "median"))
    ]
    drawing = chart(
        widths,
        title="widths",
        description="posterior sd of log gamma over time: prior, before, even, design",
        x_label="time; dotted: before; green: even; blue: design",
        x_range=ends,
        y_range=(0.02, 3.0),
        y_log=True,
    )
    drawn.append(("sd of log gamma: prior, before, even, design", drawing))
    style = (
        ".area { fill: #14638f; fill-opacity: .2; } .true { stroke: #c2410c; stroke-width: 2; stroke-dasharray: 5 3; } "
        ".point { stroke: #8a939b; stroke-width: 1.5; } .before { stroke: #1c2329; stroke-width: 2; stroke-dasharray: 1 4; } "
        ".even { stroke: #2f7d4f; stroke-width: 2; }"
    )
    return mosaic(drawn, style, columns=2)


def main() -> None:
    """Run the tutorial from the shell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tutorial.svg"), help="the figure (default: tutorial.svg)")
    parser.add_argument("--trajectories", type=int, default=10)
    parser.add_argument("--points", type=int, default=41, help="times of the data: 21, 41, 61, ... (default: 41)")
    parser.add_argument("--networks", type=int, default=0, help="of the paper, to be fitted beside the mode (default: 0)")
    parser.add_argument("--nuts", action="store_true", help="posteriors after the mend by NUTS: some minutes more")
    parser.add_argument("--samples", type=int, default=1000, help="of Laplace's approximation (default: 1000)")
    parser.add_argument("--transitions", type=int, default=200, help="of each of two chains of NUTS (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    sizes = {
        "trajectories": options.trajectories,
        "points": options.points,
        "samples": options.samples,
        "transitions": options.transitions,
    }
    found = run(**sizes, networks=options.networks, nuts=options.nuts, seed=options.seed)
    print(found.plot(options.out))


if __name__ == "__main__":
    main()
