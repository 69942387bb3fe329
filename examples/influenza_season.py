"""Influenza forecasts: the prior of a season is learned from earlier ones, and the next four weeks are forecast from four origins of a later one.

    python -m bayes_mfg.examples.influenza_season --data ICL_NREVSS_Clinical_Labs.csv.gz --state Colorado --season 2022

The file is CDC's FluView download (clinical laboratories), as CSV, packed with gzip, or the zip archive itself. The figure has the weekly share of
specimens that are positive for influenza A, and at each origin the bands of the forecast; docs/influenza.md says what to read from it, and how such
forecasts compare with simpler ones on all states.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as dist

import bayes_mfg as bm
from bayes_mfg.inference.report_svg import Band, Layer, Line, Points, chart, mosaic

ORIGINS = (3, 7, 11, 15)
"""Weeks since the onset, from 0, of which the last is known when the forecast is made."""

TRAINING = range(2015, 2022)


def season_model(population: bm.data.Population, behaviour: bool = True) -> bm.models.Calibration:
    """The SIR game of one state's season, or with `behaviour=False` the same epidemic among people who do not react.

    The share of specimens that are positive stands for the share of people who are infected; examples/influenza_state.toml says what that means for
    the parameters. The priors are where learning starts from.
    """
    paths = {
        # Contagion per week: its logarithm is piecewise linear in the weeks since the onset, with a piece for each five weeks.
        "beta": bm.paths.RandomWalk(knots=6, level=0.7, level_scale=0.5, scale=2.0),
        "recovery": dist.LogNormal(-0.9, 0.5),
    }
    game = bm.games.SIR(infection_cost=1.0)  # the scale of all costs
    return bm.models.Calibration(
        game if behaviour else bm.games.ForwardDynamics(game),
        population.select([population.trajectories[0]]),
        paths={**paths, "contact_cost": dist.LogNormal(1.0, 1.0)} if behaviour else paths,
        observation=bm.models.BetaBinomial(states=["I"], concentration=dist.LogNormal(5.0, 1.0)),
        initial=bm.models.Seeded(seed="I", rest="S", share=dist.LogUniform(1e-3, 0.3)),
        horizon=33.0,  # people look ahead to here; the record ends at week 29
        substeps=2,
        method="anderson",
    )


def seasons_of(population: bm.data.Population) -> list[str]:
    """The season of every trajectory, "2017-18"."""
    return [name.rpartition(" ")[2] for name in population.trajectories]


def figure(table, population: bm.data.Population, path: str | os.PathLike[str]) -> None:
    """The record of one trajectory, and the bands of the forecasts from every origin, as an SVG picture."""
    (name,) = set(table["trajectory"])
    record = population.select([name])
    layers: list[Layer] = []
    for origin, part in table.groupby("origin"):
        weeks = (origin + part["horizon"]).to_numpy(float)
        low90, low50, median, high50, high90 = (
            100 * part[column].to_numpy(float) for column in ("low90", "low50", "median", "high50", "high90")
        )
        layers += [Band(weeks, low90, high90, "post90"), Band(weeks, low50, high50, "post50"), Line(weeks, median, "median")]
    seen = 100 * record.shares[0, :, 1]
    layers.append(Points(record.times, seen, "data"))
    origins = ", ".join(f"{origin:g}" for origin in sorted(set(table["origin"])))
    drawing = chart(
        layers,
        title=f"{name}: four weeks ahead",
        description=f"Specimens positive for influenza A, %, and forecasts made after weeks {origins}.",
        x_label="weeks since the onset",
        x_range=(float(record.times[0]), float(record.times[-1])),
        y_range=(0.0, 1.05 * float(max(np.nanmax(seen), 100 * table["high90"].max()))),
    )
    caption = f"{name}: % positive, four weeks ahead from weeks {origins}"
    Path(path).write_text(mosaic([(caption, drawing)]), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Learn, forecast, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="FluView's clinical laboratories")
    parser.add_argument("--state", default="Colorado")
    parser.add_argument("--season", type=int, default=2022, help="first year of the season that is forecast")
    parser.add_argument(
        "--training", type=int, nargs="+", default=list(TRAINING), help="first years of the seasons that are learned from"
    )
    parser.add_argument("--regions", nargs="+", help="states to learn from; by default all")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--out", default="influenza_season.svg")
    given = parser.parse_args(arguments)
    if given.season <= max(given.training):
        parser.error(f"--season {given.season} is not after all seasons that are learned from; the last is {max(given.training)}")
    jax.config.update("jax_enable_x64", True)

    training = bm.data.read_fluview(given.data, regions=given.regions, seasons=given.training)
    # Nothing is asked of the weeks to come: a season is taken as soon as it has begun.
    later = bm.data.read_fluview(given.data, regions=given.state, seasons=given.season, min_weeks=1)
    model = season_model(training)
    prior = bm.inference.learn_prior(model, training, groups=seasons_of(training), num_draws=given.draws)
    table = bm.inference.forecast_origins(model, later, prior, origins=ORIGINS, num_draws=given.draws)
    print(table[["origin", "horizon", "low90", "median", "high90", "share", "wis", "pareto_k"]].round(3).to_string(index=False))
    figure(table, later, given.out)
    print(Path(given.out))


if __name__ == "__main__":
    main()
