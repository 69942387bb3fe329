"""Forecasts of influenza, four weeks ahead: the game, the epidemic without behaviour, and forecasts without a mechanism, on FluView.

    python -m benchmarks.influenza --data ICL_NREVSS_Clinical_Labs.csv.gz --out runs/influenza
    python -m benchmarks.influenza --data FILE --out DIR --regions Colorado Ohio      some states of the test seasons only

What is learned comes from the seasons 2015-16 to 2021-22 (complete windows of 30 weeks from the onset: 217 state-seasons), what is scored is every
state-season from 2022-23 on that has an onset, from the weeks 3, 7, 11 and 15 after it, so that the onset (two weeks in a row) has been seen. Scores
are of the share of the week's specimens that are positive, given how many were tested. `--out` keeps the learned priors and the scores of every
origin as they are done; the same command goes on from there, and prints the tables from what is there when all is. A folder of another experiment -
other data, states, origins, draws or model - is refused.
"""

import argparse
import concurrent.futures
import functools
import hashlib
import json
import math
import os
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import scipy.stats

import bayes_mfg as bm
from bayes_mfg.errors import InputError
from bayes_mfg.examples.influenza_season import ORIGINS, TRAINING, season_model, seasons_of
from bayes_mfg.inference.parallel import fingerprint

TEST = (2022, 2023, 2024)
MECHANISMS = {"game": True, "no behaviour": False}
DRAWS = 300
KEY = ["trajectory", "origin", "horizon"]


@functools.cache
def training_of(path: str) -> bm.data.Population:
    """State-seasons to learn from."""
    return bm.data.read_fluview(path, seasons=list(TRAINING))


@functools.cache
def test_of(path: str, regions: tuple[str, ...]) -> bm.data.Population:
    """State-seasons to forecast."""
    return bm.data.read_fluview(path, regions=list(regions) or None, seasons=list(TEST), min_weeks=1)


@functools.cache
def model_of(path: str, name: str) -> bm.models.Calibration:
    """One model for each process."""
    return season_model(training_of(path), MECHANISMS[name])


def learn(path: str, name: str, target: str) -> float:
    """Learn a prior and keep it; the seconds."""
    begin = time.perf_counter()
    training = training_of(path)
    bm.inference.learn_prior(model_of(path, name), training, groups=seasons_of(training), num_draws=DRAWS).save(target)
    return time.perf_counter() - begin


def forecast(path: str, regions: tuple[str, ...], name: str, origin: int, prior: str, target: str) -> float:
    """Scores from one origin; the seconds."""
    begin = time.perf_counter()
    test = test_of(path, regions)
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
    """Scores of forecasts that know no mechanism; a matter of a minute."""
    training, test = training_of(path), test_of(path, regions)
    kinds = {
        "persistence": bm.inference.Persistence.learn(training, origins=ORIGINS),
        "drifting persistence": bm.inference.Persistence.learn(training, origins=ORIGINS, drifting=True),
        "historical": bm.inference.Historical.learn(training, groups=seasons_of(training)),
    }
    return {name: kind.scores(test, origins=ORIGINS) for name, kind in kinds.items()}


def experiment(path: str, regions: tuple[str, ...]) -> dict[str, object]:
    """What must be the same for files of a folder to belong together."""
    return {
        "data": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "regions": sorted(regions),
        "training": list(TRAINING),
        "test": list(TEST),
        "origins": list(ORIGINS),
        "draws": DRAWS,
        "version": bm.__version__,
        "models": {name: fingerprint(model_of(path, name)) for name in MECHANISMS},
    }


def claim(folder: Path, about: dict[str, object]) -> bool:
    """Mark a folder as that of an experiment; whether it was before.

    Raises
    ------
    InputError : when it holds files of another experiment, or of an unknown one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "experiment.json"
    if not target.exists():
        if next(folder.glob("*.csv"), None) or next(folder.glob("*.json"), None):
            raise InputError(f"{folder} holds files of an unknown experiment (no experiment.json); choose another folder.")
        target.write_text(json.dumps(about, indent=1), encoding="utf-8")
        return False
    kept = json.loads(target.read_text(encoding="utf-8"))
    differ = [name for name, value in about.items() if kept.get(name) != value]
    if differ:
        raise InputError(f"{folder} is of another experiment: {', '.join(differ)} differ; choose another folder.")
    return True


def alike(tables: dict[str, pd.DataFrame]) -> None:
    """Refuse forecasts that were not scored on the same observations.

    Raises
    ------
    InputError : when one of them has others, or one twice.
    """
    sets = {}
    for name, table in tables.items():
        rows = table.loc[table["share"].notna(), KEY]
        if rows.duplicated().any():
            raise InputError(f"{name} has forecasts twice.")
        sets[name] = set(rows.itertuples(index=False, name=None))
    first = next(iter(sets))
    for name, rows in sets.items():
        if rows != sets[first]:
            raise InputError(
                f"{name} and {first} were scored on different observations ({len(rows ^ sets[first])} are in one only)."
            )


def in_common(tables: dict[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], dict[str, int]]:
    """The observed forecasts that all have scores of, and how many each lacks: one that fails where it is hard must not gain by it."""
    alike(tables)
    indexed = {name: table.loc[table["share"].notna()].set_index(KEY).sort_index() for name, table in tables.items()}
    whole = {name: table[["wis", "log_score"]].notna().all(axis=1) for name, table in indexed.items()}
    every = pd.concat(whole, axis=1).all(axis=1)
    return {name: table[every].reset_index() for name, table in indexed.items()}, {n: int((~w).sum()) for n, w in whole.items()}


def summary(tables: dict[str, pd.DataFrame], by: str | None = None) -> pd.DataFrame:
    """Mean scores of every forecast, over all or by a column."""
    columns = {"wis": "WIS, %", "log_score": "log score", "coverage50": "in 50 %", "coverage90": "in 90 %"}
    rows = {}
    for name, table in tables.items():
        for value, part in [("all", table)] if by is None else table.groupby(by):
            means = part[list(columns)].mean().rename(columns)
            rows[(name,) if by is None else (name, value)] = means.mul([100, 1, 100, 100]).to_dict() | {
                "forecasts": int(part["wis"].notna().sum())
            }
    return pd.DataFrame.from_dict(rows, orient="index")


def differences(tables: dict[str, pd.DataFrame], score: str, reference: str = "game") -> pd.DataFrame:
    """Paired differences of a score, the game's less the other's, with errors by clusters of states and of seasons.

    Weeks, origins and states of one season are not independent, nor are seasons of one state. The variance is that of two-way clusters, by states
    plus by seasons less by both at once; where that is below one of the two it is the larger of them. The interval takes Student's 97.5 % quantile
    for the smaller number of clusters, less one: 4.3 for three seasons. Of fewer than two seasons or states nothing can be told.

    Source: Cameron, Gelbach and Miller, Robust inference with multiway clustering, Journal of Business and Economic Statistics 29 (2011).
    """
    own = tables[reference].set_index(KEY)[score]
    rows = {}
    for name, table in tables.items():
        if name == reference:
            continue
        apart = (own - table.set_index(KEY)[score]).dropna()
        names = apart.index.get_level_values("trajectory").to_numpy(str)
        season, state = (np.array([text.rpartition(" ")[part] for text in names]) for part in (2, 0))
        by_state, by_season, by_both = (_variance(apart, labels) for labels in (state, season, names))
        error = math.sqrt(max(by_state + by_season - by_both, by_state, by_season))
        fewest = min(len(set(state)), len(set(season)))
        half = scipy.stats.t.ppf(0.975, fewest - 1) * error if fewest > 1 else math.inf
        told = "no difference shown" if abs(apart.mean()) <= half else "lower" if apart.mean() < 0 else "higher"
        rows[f"{reference} - {name}"] = {
            "mean": apart.mean(),
            "error by state": math.sqrt(by_state),
            "error by season": math.sqrt(by_season),
            "error": error,
            "95 %": f"{apart.mean() - half:.4f} to {apart.mean() + half:.4f}",
            "by season": ", ".join(f"{label} {value:+.4f}" for label, value in apart.groupby(season).mean().items()),
            "game is": told if fewest > 1 else "cannot be told",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _variance(values: pd.Series, labels: np.ndarray) -> float:
    """Variance of a mean, with clusters; 0 of a single one."""
    sums = (values - values.mean()).groupby(labels).sum()
    count = len(sums)
    return float((sums**2).sum() * count / max(count - 1, 1) / len(values) ** 2)


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
    folder, regions = Path(given.out), tuple(given.regions)
    try:
        resumed = claim(folder, experiment(given.data, regions))
    except InputError as error:
        sys.exit(str(error))
    training, test = training_of(given.data), test_of(given.data, regions)
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
        seconds = finish(waiting)
        waiting = {
            pool.submit(forecast, given.data, regions, name, origin, str(priors[name]), str(target)): f"{name}, week {origin}"
            for (name, origin), target in kept.items()
            if not target.exists()
        }
        seconds += finish(waiting)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"{'resumed: the work that was missing' if resumed else 'the whole work, in one run'} took {seconds:.0f} s of its processes' clocks, "
        f"{time.perf_counter() - begin:.0f} s on the wall, with {given.workers} workers and {cores} cores that others may share\n",
        flush=True,
    )
    if given.only:
        return
    tables = {name: pd.concat([pd.read_csv(kept[name, origin]) for origin in ORIGINS]) for name in MECHANISMS}
    tables |= without_mechanism(given.data, regions)
    report(tables, priors)


def finish(waiting: dict[concurrent.futures.Future, str]) -> float:
    """Wait for all, with a line for each; the sum of their seconds."""
    for future in concurrent.futures.as_completed(waiting):
        print(f"{waiting[future]}: {future.result():.0f} s", flush=True)
    return float(sum(future.result() for future in waiting))


def report(tables: dict[str, pd.DataFrame], priors: dict[str, Path]) -> None:
    """Print what the tables say."""
    tables, lacking = in_common(tables)
    told = {name: count for name, count in lacking.items() if count}
    print(f"forecasts without a score, left out of all: {json.dumps(told) if told else 'none'}")
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
