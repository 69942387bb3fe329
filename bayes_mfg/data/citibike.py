"""Citi Bike's published trips, in both schemas."""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from bayes_mfg.errors import DataError

from .days import Days
from .places import FARTHEST, Places, kilometres, read_stations
from .population import Population
from .sources import Label
from .triplog import Columns, TripLog, read_log
from .trips import population_of
from .wording import closest, listed

_NEWER = Columns(
    "started_at",
    "start_station_name",
    "ended_at",
    "end_station_name",
    "start_lat",
    "start_lng",
    "end_lat",
    "end_lng",
    "start_station_id",
    "end_station_id",
)
_OLDER = Columns(
    "starttime",
    "start station name",
    "stoptime",
    "end station name",
    "start station latitude",
    "start station longitude",
    "end station latitude",
    "end station longitude",
    "start station id",
    "end station id",
)
_CENTRE = (40.73, -73.99)
# Months of 2014 to 2016 that have American dates.
_FORMATS = ("%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M")


def read_citibike(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    places: Places,
    station_table: str | os.PathLike[str] | None = None,
    days: Days = Days(),
    fleet: int | None = None,
    progress: bool | None = None,
) -> Population:
    """Days of Citi Bike (New York City, Jersey City, Hoboken) from the trips that it publishes.

    Parameters
    ----------
    path : a month or more as downloaded (zip), unpacked (CSV) or packed with gzip; a folder of them, or a list. Both schemas are read,
        with `started_at` or with `starttime`, and months of both go together: stations are told by their names, because their ids
        (read as text) were renumbered.
    places, station_table, days, fleet, progress : as in `read_trips`. The dates are those of the months in the names of the files
        ("JC-202409-citibike-tripdata.csv.zip") where `days` does not give them and every name has one: a few trips of a file begin
        in the month before. The time zone is New York's.

    Returns
    -------
    Population
        As from `read_trips`. Trips without an end station (lost bikes, and bikes locked elsewhere) are dropped and counted; ids that
        carry several names, and names that carry several ids, are told in the provenance's `repairs`.

    Raises
    ------
    DataError
        See `read_trips`; stations far from New York; a month that a spreadsheet ruined is refused with a sample of its times.
    """
    zoned = _zoned(days)
    table = None if station_table is None else read_stations(station_table, "name")
    with read_log(path, _columns, zoned, "read_citibike", _FORMATS, progress) as log:
        _of_new_york(log)
        months = [_month(name) for name in log.rows]
        carried: dict[str, list[str]] = {}
        for name, ids in zip(log.places, log.aliases, strict=True):
            for one in ids:
                carried.setdefault(one, []).append(name)
        repairs = {
            "names_with_several_ids": {name: ids for name, ids in zip(log.places, log.aliases, strict=True) if len(ids) > 1},
            "ids_with_several_names": {one: names for one, names in carried.items() if len(names) > 1},
        }
        return population_of(
            log,
            places,
            zoned,
            fleet,
            "Citi Bike",
            table=table,
            months=[month for month in months if month] if all(months) else (),
            repairs=repairs,
        )


def _of_new_york(log: TripLog) -> None:
    """Refuses the trips of another city whose columns are the same, as this one's clocks and names are not theirs."""
    size = len(log.places)
    known = np.isfinite(log.coordinates[:size]).all(axis=1) & (log.use[:size] > 0)
    if not known.any():
        return
    middle = np.median(log.coordinates[:size][known], axis=0)
    distance = float(np.hypot(*np.diff(kilometres(np.stack([np.array(_CENTRE), middle])), axis=0)[0]))
    if distance > FARTHEST:
        raise DataError(
            f"read_citibike: the middle of the stations is {middle[0]:.2f}, {middle[1]:.2f}, {distance:.0f} km from New York; expected Citi"
            " Bike's trips (read_trips reads those of other cities with the same columns)."
        )


def _zoned(days: Days) -> Days:
    if not isinstance(days, Days):
        raise DataError(f"read_citibike: days is {days!r}; expected bm.data.Days(...).")
    return days if days.time_zone is not None else dataclasses.replace(days, time_zone="America/New_York")


def _columns(name: str, header: Sequence[str]) -> Columns:
    """The columns of a file, by whichever schema it has; capitals and separators do not matter."""
    plain = {_plain(column): column for column in header}
    have = [sum(_plain(wanted) in plain for wanted in schema.kinds()) for schema in (_NEWER, _OLDER)]
    schema = _NEWER if have[0] >= have[1] else _OLDER
    for wanted in schema.kinds():
        if _plain(wanted) not in plain:
            raise DataError(
                f"{name}: column {wanted!r} is missing{closest(wanted, header)}; the columns are {listed(header, 20)}"
                " (expected Citi Bike's trips, with started_at or with starttime)."
            )
    named: dict[str, Any] = {
        field.name: plain[_plain(getattr(schema, field.name))] for field in dataclasses.fields(schema) if field.name != "utc"
    }
    return Columns(**named)


def _plain(column: str) -> str:
    return re.sub(r"[\s_]", "", column).casefold()


def _month(name: str) -> tuple[int, int] | None:
    """Year and month in the name of a file or a member of an archive."""
    # Not in those of folders above it, which are the user's; the innermost member knows best.
    for text in (*reversed(name.members), name.file.name) if isinstance(name, Label) else ():
        if found := re.findall(r"(?<!\d)(20[0-3]\d)-?(0[1-9]|1[0-2])(?!\d)", text):
            return int(found[-1][0]), int(found[-1][1])
    return None
