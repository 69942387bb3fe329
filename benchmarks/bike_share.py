"""Real days of bike share: game, forward dynamics, neural ODE, persistence and historical mean on training days, held-out weekdays and weekends.

    python -m benchmarks.bike_share bay_area --data FOLDER
    python -m benchmarks.bike_share jersey_city --data FOLDER --models game-linear forward-linear persistence

bay_area: San Francisco, April to June 2014, six zones by k-means and bikes under way; the folder holds
`bay_area_bikeshare_2014_trips.csv.gz` and `bay_area_bikeshare_2014_stations.csv`. jersey_city: Jersey City and Hoboken, September 2024, six zones
and bikes under way; the folder holds `JC-202409-citibike-tripdata.csv.zip`. Days from six to ten in the evening in half hours.
The first three quarters of the weekdays are fitted; the other weekdays and all weekends are predicted from their first observation. All models
share the rates' priors and normal errors of shares with an unknown sd for every place, as days differ far more in some places than in others of the
same size, which no Dirichlet has; and errors persist for an unknown time, as a day that is unlike others is so for hours. (Taken as independent they
count the same evidence some thirty times, and posteriors have many sharp modes.)

forward-*   base rates alone: constant, linear in time, a cubic spline of four pieces, or a network of time with eight hidden units
game-*      the same with congestion and a terminal cost for every place, known effort (the scale), and a smoothing of 0.03 rides per hour, without
            which likelihoods have kinks wherever a rate comes to zero, and the search for the mode does not converge
game-edge   constant base rates and a network for the worth of rides, of time and population
neural-ode  rates by a network of time and population with eight hidden units
persistence the first observation and how far each training day had come from its own by that time
historical  training days at that time
regression  ridge regression of every later share on the first ones, its weight and its errors by leaving training days out

No file of trips says how many bikes stand where. Here all days open with the fewest with which none runs out, and the smallest fleet for that, so
that mornings know nothing of their day but the bikes under way. With `--opening own` each day opens with the fewest for itself (of San Francisco's
350): the first observation then knows something of the later hours, held out or not, and `regression` shows how much. Zones and fleet are those of
all days. Training days are predicted by the others in the baselines, by all in fits.

Posteriors are Laplace's, those of networks points. Searches for the mode set out from the prior median (and from prior draws, with `--starts`); those
for rates that change and for worths set out from the mode with constant rates alone: from the median they end in worse ones. Rows of JSON go to
`--out` as they are done, and rows that are there are not made again: mean squared error (the paper's mu error), its relative error, log score (of
every observation given those before it), CRPS, coverage of 50 % and 90 % bands. At the end, paired differences of days: scores of each model less
those of the game of the same rates, or of the first game of LEADING that was fitted, with standard errors over days; neighbouring days are not
independent, and these errors are then too small.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd

import bayes_mfg as bm
from bayes_mfg.inference.coordinates import coordinates
from bayes_mfg.inference.files import replacing
from bayes_mfg.inference.scores import covered

LEVEL, LEVEL_SCALE = 0.3, 1.5
"""Median of a rate per hour, and the sd of its logarithm."""
RATES = {
    "constant": lambda: bm.paths.Constant(dist.LogNormal(np.log(LEVEL), LEVEL_SCALE)),
    "linear": lambda: bm.paths.Spline(1, 1, level=LEVEL, level_scale=LEVEL_SCALE, scale=1.0),
    "smooth": lambda: bm.paths.Spline(4, 3, level=LEVEL, level_scale=LEVEL_SCALE, scale=1.0),
    "neural": lambda: bm.paths.Neural(8, level=LEVEL, level_scale=LEVEL_SCALE, scale=1.0),
}
SMOOTHING = 0.03
POINT: dict[str, Any] = {"method": "point", "max_steps": 2000, "prior_samples": 0, "seed": 0}
LAPLACE: dict[str, Any] = {**POINT, "method": "svi", "guide": "laplace", "num_samples": 200}
KEPT = ("pareto_k", "mode_potential", "mode_evaluations")
"""What rows say of the fit itself."""
MODELS = (
    *(f"{kind}-{rates}" for rates in RATES for kind in ("forward", "game")),
    "game-edge",
    "neural-ode",
    "persistence",
    "historical",
    "regression",
)
PLAIN = ("persistence", "historical", "regression")
NETWORKS = ("forward-neural", "game-neural", "game-edge", "neural-ode")
WEIGHTS = np.logspace(-4, 2, 25)
"""Of ridge regression, per training day, relative to the variance of first shares."""
SETS = ("training", "weekdays", "weekends")
LEADING = ("game-linear", "game-constant", "game-smooth", "game-neural", "game-edge")
"""Games that models without one of their own are compared with: the first that was fitted."""


def population(case: str, folder: Path, opening: str = "common") -> bm.data.Population:
    """All days of a case."""
    days: dict[str, Any] = {"minutes": 30, "opening": opening}
    if case == "bay_area":
        return bm.data.read_bay_area(
            folder / "bay_area_bikeshare_2014_trips.csv.gz",
            bm.data.Places(zones=6, external=False),
            station_table=folder / "bay_area_bikeshare_2014_stations.csv",
            city="San Francisco",
            days=bm.data.Days(first="2014-04-01", last="2014-06-30", holidays=("2014-05-26",), **days),
            fleet=350 if opening == "own" else None,
        )
    return bm.data.read_citibike(
        folder / "JC-202409-citibike-tripdata.csv.zip",
        bm.data.Places(zones=6, external=False),
        days=bm.data.Days(first="2024-09-01", last="2024-09-30", holidays=("2024-09-02",), **days),
    )


def divided(every: bm.data.Population) -> dict[str, bm.data.Population]:
    """Training days, other weekdays, weekends."""
    weekdays, weekends = (bm.data.days_of(every, kind) for kind in ("weekday", "weekend"))
    count = int(0.75 * len(weekdays))
    return {name: every.select(days) for name, days in zip(SETS, (weekdays[:count], weekdays[count:], weekends), strict=True)}


def model_of(name: str, data: bm.data.Population) -> bm.models.ForwardModel:
    """A model with dynamics of the training days."""
    lasting = dist.LogNormal(np.log(3.0), 1.0)
    observation = bm.models.SimplexGaussian(dist.LogNormal(np.log(0.03), 1.0), by_state=True, persistence=lasting)
    if name == "neural-ode":
        return bm.models.NeuralODE(data, width=8, observation=observation, initial="observed", substeps=4)
    game: bm.games.Game = bm.games.BikeShare(data.n_states, effort=1.0, states=data.states, smoothing=SMOOTHING)
    if name == "game-edge":
        worth = bm.paths.Neural(8, input=("time", "population"), scale=1.0)
        paths: dict[str, Any] = {"base_rate": RATES["constant"](), "edge_value": worth}
        return bm.models.Calibration(game, data, paths, observation, initial="observed", substeps=2)
    kind, rates = name.split("-")
    paths = {"base_rate": RATES[rates]()}
    if kind == "game":
        costs = {"congestion": dist.LogNormal(0.0, 1.0), "terminal_cost": dist.Normal(0.0, 2.0)}
        return bm.models.Calibration(game, data, paths | costs, observation, initial="observed", substeps=2)
    hard = bm.games.BikeShare(
        data.n_states, effort=1.0, states=data.states
    )  # base rates are positive: there is nothing to smooth
    return bm.models.Calibration(bm.games.ForwardDynamics(hard), data, paths, observation, initial="observed", substeps=2)


def simpler(name: str) -> str | None:
    """The model whose mode is where the search of this one begins."""
    kind, _, rates = name.partition("-")
    if name == "game-edge":
        return "forward-constant"
    return f"{kind}-constant" if rates in RATES and rates != "constant" else None


def beginning(model: bm.models.ForwardModel, known: bm.inference.Fit) -> np.ndarray:
    """Coordinates `(size,)` at which a model is a simpler one at its mode; hidden units of networks are drawn from the prior, and have no weight."""
    space, latent = coordinates(model), known.tree["unconstrained_posterior"]["latent"]
    mode = dict(zip(latent["coordinate"].to_numpy().tolist(), latent.to_numpy()[0, 0], strict=True))
    drawn = np.asarray(space.unconstrain(space.draw_prior(jax.random.key(0))))
    flat = space.prior_median()
    for k, name in enumerate(space.names):
        if "weights_0" in name or "biases_0" in name:
            flat[k] = drawn[k]
        elif name in mode:
            flat[k] = mode[name]
        elif name.startswith("base_rate/level"):  # standard normal, of the logarithm
            flat[k] = (mode[name.replace("level", "value")] - np.log(LEVEL)) / LEVEL_SCALE
    return flat


def fitted_rows(name: str, sets: dict[str, bm.data.Population], starts: int) -> list[dict[str, Any]]:
    """Scores of a model for every day."""
    begin = time.perf_counter()
    model = model_of(name, sets["training"])
    options: dict[str, Any] = {"starts": starts}
    if before := simpler(name):
        known = bm.inference.fit(model_of(before, sets["training"]), starts=starts, **POINT)
        options = {"starts": 0, "start": beginning(model, known)}
    fit = bm.inference.fit(model, **options, **(POINT if name in NETWORKS else LAPLACE))
    seconds = time.perf_counter() - begin
    about = {"model": name, "seconds": round(seconds, 1), "warnings": fit.warnings}
    about |= {n: x for n, x in json.loads(fit.tree.attrs["inference"]).items() if n in KEPT}
    rows = []
    for part, days in sets.items():
        for day in days.trajectories:
            try:
                score = bm.inference.scores(fit, days.select([day]), initial="observed", seed=0).iloc[0].to_dict()
            except bm.inference.FitError:
                score = {"failed": 1}  # no equilibrium from where this day starts
            rows.append({**about, "set": part, "day": day, **score})
    return rows


def plain_rows(name: str, sets: dict[str, bm.data.Population]) -> list[dict[str, Any]]:
    """Scores of what knows training days alone: each is a member of the predictive ensemble, whose mean all errors are of."""
    past = sets["training"].shares
    rows = []
    for part, days in sets.items():
        for number, (day, shares) in enumerate(zip(days.trajectories, days.shares, strict=True)):
            members = np.delete(past, number, axis=0) if part == "training" else past
            if name == "persistence":
                members = members - members[:, :1] + shares[0]
            if name == "regression":
                members = regressed(members, shares[0])
            ahead, truth = members[:, 1:].reshape(len(members), -1), shares[1:].reshape(-1)
            squared = (members.mean(axis=0) - shares) ** 2
            rows.append(
                {
                    "model": name,
                    "set": part,
                    "day": day,
                    "mu_error": float(squared.sum(axis=1).mean()),
                    "relative_error": float((squared / (shares**2 + 1e-4)).mean()),
                    "crps": float(crps_of_members(ahead, truth).mean()),
                    "coverage50": float(covered(ahead, truth, 0.5).mean()),
                    "coverage90": float(covered(ahead, truth, 0.9).mean()),
                }
            )
    return rows


def crps_of_members(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """CRPS of a forecast that is its `n` members `(n, cells)`, and not a distribution that they are draws from."""
    fair = bm.inference.crps_of_draws(members, truth)
    return fair + (np.abs(members - truth).mean(axis=0) - fair) / len(members)


def regressed(days: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Members `(R, T, d)` from first shares `(d,)`: ridge regression on those of days `(R, T, d)`, with these days' errors when left out."""
    x, y = days[:, 0], days.reshape(len(days), -1)
    centre, spread = x.mean(axis=0), np.mean(np.var(x, axis=0)) * len(x)
    best: tuple[float, np.ndarray] = (np.inf, days)
    for weight in WEIGHTS:
        inner = np.linalg.solve((x - centre).T @ (x - centre) + weight * spread * np.eye(x.shape[1]), (x - centre).T)
        hat = (x - centre) @ inner + 1.0 / len(x)
        errors = (y - hat @ y) / (1.0 - np.diag(hat))[:, None]
        if (score := float(np.mean(errors**2))) < best[0]:
            centred = errors - errors.mean(axis=0)
            best = score, (y.mean(axis=0) + (first - centre) @ inner @ y + centred).reshape(days.shape)
    members = best[1].copy()
    members[:, 0] = first
    return members


def tables(rows: list[dict[str, Any]]) -> str:
    """Means over days, and paired differences of the CRPS."""
    frame = pd.DataFrame(rows)
    columns = ["mu_error", "relative_error", "log_score", "crps", "coverage50", "coverage90"]
    columns = [name for name in columns if name in frame]
    means = frame.groupby(["set", "model"], sort=False)[columns].mean()
    if "failed" in frame:  # means are over the other days
        means["failed"] = frame.groupby(["set", "model"], sort=False)["failed"].sum()
    text = [means.to_string(float_format=lambda x: f"{x:.4g}")]
    games = [name for name in frame["model"].unique() if name.startswith("game")]
    for name in frame["model"].unique():
        rival = (
            name.replace("forward", "game")
            if name.startswith("forward")
            else next((one for one in LEADING if one in games), None)
        )
        if rival not in games or rival == name:
            continue
        text.append(f"{name} less {rival}, mean over days (standard error):")
        for part in SETS:
            own = frame[frame["set"] == part].pivot_table(index="day", columns="model", values=columns)
            told = []
            for score in ("mu_error", "relative_error", "log_score", "crps"):
                if (score, name) not in own or (score, rival) not in own:
                    continue
                apart = (own[score, name] - own[score, rival]).dropna()
                told.append(f"{score} {apart.mean():+.4g} ({apart.std(ddof=1) / np.sqrt(len(apart)):.2g})")
            text.append(f"  {part}, {len(own)} days: " + ", ".join(told))
    return "\n".join(text)


def main() -> int:
    """Run the comparison."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=("bay_area", "jersey_city"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--opening", choices=bm.data.days.OPENINGS, default="common")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sets = divided(population(options.case, options.data, options.opening))
    print({name: f"{days.n_trajectories} days" for name, days in sets.items()}, sets["training"].states, flush=True)
    about = {
        "case": options.case,
        "opening": options.opening,
        "observation": model_of("forward-constant", sets["training"]).observation.words,
    }
    rows: list[dict[str, Any]] = json.loads(options.out.read_text()) if options.out and options.out.exists() else []
    if any(row.get(name) != value for row in rows for name, value in about.items()):
        sys.exit(f"{options.out} holds rows of another city, opening or observation model; choose another file.")
    for name in options.models:
        if any(row["model"] == name for row in rows):
            continue
        made = plain_rows(name, sets) if name in PLAIN else fitted_rows(name, sets, options.starts)
        rows += [{**about, **row} for row in made]
        print(name, rows[-1].get("seconds", ""), "s", rows[-1].get("warnings", ""), flush=True)
        if options.out:
            with replacing(options.out) as part:
                part.write_text(json.dumps(rows))
    print(tables(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
