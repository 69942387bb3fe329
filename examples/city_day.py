"""A day of a city: where people or bikes go, hour by hour, what moves them, and who goes where; from counts alone.

    python -m bayes_mfg.examples.city_day bay_area --data FOLDER --out bay_area_day.svg
    python -m bayes_mfg.examples.city_day auckland --out auckland_day.svg

bay_area: evenings of eight weekdays of May 2014 in San Francisco, four zones of stations and bikes under way, half hours from four to eight; the
folder holds your copy of Bay Area Bike Share's trips and stations of 2014. auckland: pedestrians at five places of the centre on eight weekdays of
March 2024, hour by hour from seven to seven (`pip install "bayes-mfg[auckland]"`). docs/examples.md says what to read from the figures.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions as dist

import bayes_mfg as bm

SENSORS = ("107 Quay Street", "45 Queen Street", "210 Queen Street", "61 Federal Street", "183 K Road")


def bay_area(folder: Path) -> bm.data.Population:
    """Bikes in four zones of San Francisco and under way."""
    return bm.data.read_bay_area(
        folder / "bay_area_bikeshare_2014_trips.csv.gz",
        bm.data.Places(zones=4, external=False),
        station_table=folder / "bay_area_bikeshare_2014_stations.csv",
        city="San Francisco",
        days=bm.data.Days(first="2014-05-05", last="2014-05-14", kind="weekday", opens="16:00", closes="20:00", minutes=30),
        fleet=350,
    )


def auckland() -> bm.data.Population:
    """Pedestrians at five places; a place's share is that of everybody who was counted in the hour."""
    days = bm.data.Days(first="2024-03-04", last="2024-03-13", kind="weekday", opens="07:00", closes="19:00", minutes=60)
    return bm.data.load_auckland_pedestrians(SENSORS, days)


def fitted(population: bm.data.Population, draws: int = 200, seed: int = 0) -> bm.inference.Fit:
    """Base rates between all places, what crowds cost, and what it costs to end the day in each place; by Laplace's approximation."""
    # Effort is the unit of cost. A little smoothing, so that the likelihood has no kinks where rates reach zero.
    game = bm.games.BikeShare(population.n_states, effort=1.0, states=population.states, smoothing=0.03)
    model = bm.models.Calibration(
        game,
        population,
        {
            "base_rate": dist.LogNormal(np.log(0.3), 1.0),
            "congestion": dist.LogNormal(0.0, 1.0),
            "terminal_cost": dist.Normal(0.0, 2.0),
        },
        bm.models.DirichletMultinomial(concentration=dist.LogNormal(np.log(100.0), 1.5)),
        initial="observed",
        substeps=2,
        method="anderson",
    )
    return bm.inference.fit(model, "svi", guide="laplace", starts=1, num_samples=draws, seed=seed, prior_samples=0)


def main() -> None:
    """Run the example from the shell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("city", choices=["bay_area", "auckland"])
    parser.add_argument("--data", type=Path, help="folder with the files of Bay Area Bike Share")
    parser.add_argument("--out", type=Path, help="the figure (default: CITY_day.svg)")
    options = parser.parse_args()
    if options.city == "bay_area" and options.data is None:
        parser.error("bay_area needs --data FOLDER")
    jax.config.update("jax_enable_x64", True)
    fit = fitted(bay_area(options.data) if options.city == "bay_area" else auckland())
    moved = bm.inference.flows(fit)
    print("\n".join([*moved.sentences, *(f"warning: {text}" for text in fit.warnings)]))
    print(moved.table().head(12).to_string(float_format=lambda x: f"{x:.3g}"))
    print(moved.plot(options.out or Path(f"{options.city}_day.svg")))


if __name__ == "__main__":
    main()
