"""Forecasts of influenza, four weeks ahead: the game, the epidemic without behaviour, and forecasts without a mechanism, on FluView.

    python -m benchmarks.influenza --data ICL_NREVSS_Clinical_Labs.csv.gz --out runs/influenza
    python -m benchmarks.influenza --data FILE --out DIR --regions Colorado Ohio      some states of the test seasons only

What is learned comes from the seasons 2015-16 to 2021-22 (complete windows of 30 weeks from the onset: 217 state-seasons), what is scored is every
state-season from 2022-23 on that has an onset, from the weeks 3, 7, 11 and 15 after it, so that the onset (two weeks in a row) has been seen. Scores
are of the share of the week's specimens that are positive, given how many were tested. `--out` keeps the learned priors and the scores of every
origin as they are done; the same command goes on from there, and prints the tables from what is there when all is.
"""

import argparse
import concurrent.futures
import functools
import json
import math
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import scipy.stats

import bayes_mfg as bm
from bayes_mfg.examples.influenza_season import ORIGINS, TRAINING, season_model, seasons_of

TEST = (2022, 2023, 2024)
MECHANISMS = {"game": True, "no behaviour": False}
DRAWS = 300


@functools.cache
def populations(path: str, regions: tuple[str, ...]) -> tuple[bm.data.Population, bm.data.Population]:
    """Training and test state-seasons."""
    training = bm.data.read_fluview(path, seasons=list(TRAINING))
    return training, bm.data.read_fluview(path, regions=list(regions) or None, seasons=list(TEST), min_weeks=1)


@functools.cache
def model_of(path: str, name: str) -> bm.models.Calibration:
    """One model for each process."""
    return season_model(populations(path, ())[0], MECHANISMS[name])


def learn(path: str, name: str, target: str) -> float:
    """Learn a prior and keep it; the seconds."""
    begin = time.perf_counter()
    training = populations(path, ())[0]
    bm.inference.learn_prior(model_of(path, name), training, groups=seasons_of(training), num_draws=DRAWS).save(target)
    return time.perf_counter() - begin


def forecast(path: str, regions: tuple[str, ...], name: str, origin: int, prior: str, target: str) -> float:
    """Scores from one origin; the seconds."""
    begin = time.perf_counter()
    test = populations(path, regions)[1]
    learned = bm.inference.LearnedPrior.load(prior)
    table = bm.inference.forecast_origins(model_of(path, name), test, learned, origins=[origin], num_draws=DRAWS)
    whole(table, target)
    return time.perf_counter() - begin


def whole(table: pd.DataFrame, target: str) -> None:
    """A table appears whole or not at all."""
    partial = Path(f"{target}.part")
    table.to_csv(partial, index=False)
    partial.replace(target)


def without_mechanism(path: str, regions: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """Scores of forecasts that know no mechanism; seconds."""
    training, test = populations(path, regions)
    kinds = {
        "persistence": bm.inference.Persistence.learn(training, origins=ORIGINS),
        "drifting persistence": bm.inference.Persistence.learn(training, origins=ORIGINS, drifting=True),
        "historical": bm.inference.Historical.learn(training),
    }
    return {name: kind.scores(test, origins=ORIGINS) for name, kind in kinds.items()}


def summary(tables: dict[str, pd.DataFrame], by: str | None = None) -> pd.DataFrame:
    """Mean scores of every forecast, over all or by a column."""
    columns = {"wis": "WIS, %", "log_score": "log score", "coverage50": "in 50 %", "coverage90": "in 90 %"}
    rows = {}
    for name, table in tables.items():
        for value, part in [("all", table)] if by is None else table.groupby(by):
            means = part[list(columns)].mean().rename(columns)
            rows[(name,) if by is None else (name, value)] = means.mul([100, 1, 100, 100]).to_dict() | {"forecasts": len(part)}
    return pd.DataFrame.from_dict(rows, orient="index")


def differences(tables: dict[str, pd.DataFrame], score: str, reference: str = "game") -> pd.DataFrame:
    """Paired differences of a score, the game's less the other's, with errors by clusters of states and of seasons.

    Weeks, origins and states of one season are not independent. The interval is the wider of two: 1.96 standard errors with each state a cluster, and
    Student's 97.5 % quantile for as many seasons, less one, with each season a cluster. Of three seasons that quantile is 4.3.
    """
    key = ["trajectory", "origin", "horizon"]
    own = tables[reference].set_index(key)[score]
    rows = {}
    for name, table in tables.items():
        if name == reference:
            continue
        apart = (own - table.set_index(key)[score]).dropna()
        names = apart.index.get_level_values("trajectory")
        errors = {}
        for cluster, labels in (("state", names.str.rpartition(" ").get_level_values(0)), ("season", names.str[-7:])):
            sums = (apart - apart.mean()).groupby(np.asarray(labels)).sum()
            count = len(sums)
            errors[cluster] = (math.sqrt((sums**2).sum() * count / max(count - 1, 1)) / len(apart), count)
        seasons = apart.groupby(np.asarray(names.str[-7:])).mean()
        by_season = errors["season"][0] * scipy.stats.t.ppf(0.975, max(errors["season"][1] - 1, 1))
        half = max(1.96 * errors["state"][0], by_season)
        word = "no difference shown" if abs(apart.mean()) <= half else "lower" if apart.mean() < 0 else "higher"
        rows[f"{reference} - {name}"] = {
            "mean": apart.mean(),
            "error by state": errors["state"][0],
            "error by season": errors["season"][0],
            "95 %, the wider": f"{apart.mean() - half:.4f} to {apart.mean() + half:.4f}",
            "by season": ", ".join(f"{season} {value:+.4f}" for season, value in seasons.items()),
            "game is": word,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="FluView's clinical laboratories")
    parser.add_argument("--out", default="runs/influenza", help="folder of what is kept")
    parser.add_argument("--regions", nargs="*", default=[], help="states of the test seasons; by default all")
    parser.add_argument("--only", choices=MECHANISMS, help="run what is missing of one, and print no tables")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    folder = Path(given.out)
    folder.mkdir(parents=True, exist_ok=True)
    regions = tuple(given.regions)
    training, test = populations(given.data, regions)
    print(f"{training.n_trajectories} state-seasons to learn from, {test.n_trajectories} to forecast", flush=True)
    begin = time.perf_counter()
    asked = [given.only] if given.only else list(MECHANISMS)
    priors = {name: folder / f"{name.replace(' ', '-')}.json" for name in asked}
    kept = {(name, origin): folder / f"{name.replace(' ', '-')}-{origin}.csv" for name in asked for origin in ORIGINS}
    with bm.inference.processes(given.workers) as pool:
        waiting = {
            pool.submit(learn, given.data, name, str(target)): f"prior of {name}"
            for name, target in priors.items()
            if not target.exists()
        }
        finish(waiting)
        waiting = {
            pool.submit(forecast, given.data, regions, name, origin, str(priors[name]), str(target)): f"{name}, week {origin}"
            for (name, origin), target in kept.items()
            if not target.exists()
        }
        finish(waiting)
    print(f"{time.perf_counter() - begin:.0f} s in all\n", flush=True)
    if given.only:
        return
    tables = {name: pd.concat([pd.read_csv(kept[name, origin]) for origin in ORIGINS]) for name in MECHANISMS}
    tables |= without_mechanism(given.data, regions)
    report(tables, priors)


def finish(waiting: dict[concurrent.futures.Future, str]) -> None:
    """Wait for all, with a line for each."""
    for future in concurrent.futures.as_completed(waiting):
        print(f"{waiting[future]}: {future.result():.0f} s", flush=True)


def report(tables: dict[str, pd.DataFrame], priors: dict[str, Path]) -> None:
    """Print what the tables say."""
    for name, path in priors.items():
        prior = bm.inference.LearnedPrior.load(path)
        scale = np.sqrt(np.diag(prior.covariance))
        print(
            f"{name}: log evidence {', '.join(f'{value:.1f}' for value in prior.evidence)}; Pareto k {json.dumps(spread(prior.pareto_k))}"
        )
        error = np.sqrt(np.diag(prior.uncertainty))
        print(
            pd.DataFrame({"location": prior.location, "error": error, "scatter": scale}, index=prior.names).round(3).to_string()
        )
        for sentence in prior.warnings:
            print(sentence)
    for name in MECHANISMS:
        print(f"{name}: Pareto k of the forecasts' posteriors {json.dumps(spread(tables[name]['pareto_k'].to_numpy()))}")
    with pd.option_context("display.width", 200, "display.max_colwidth", 100):
        print("\n", summary(tables).round(3).to_string(), sep="")
        for by in ("horizon", "origin"):
            print("\n", summary(tables, by).round(3).to_string(), sep="")
        for score in ("wis", "log_score"):
            print(f"\n{score}\n{differences(tables, score).round(4).to_string()}")


def spread(k: np.ndarray) -> dict[str, float]:
    """How good importance draws are."""
    return {
        "median": round(float(np.median(k)), 2),
        "above 0.6": round(float(np.mean(k > 0.6)), 3),
        "above 0.7": round(float(np.mean(k > 0.7)), 3),
    }


if __name__ == "__main__":
    main()
