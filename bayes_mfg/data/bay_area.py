"""Bay Area Bike Share's trips of 2013 to 2016."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from bayes_mfg.errors import DataError

from .arrow import find_column
from .days import Days
from .places import Places, StationTable, read_stations
from .population import Population
from .triplog import Columns, TripLog, read_log
from .trips import population_of
from .wording import closest, listed

_COLUMNS = Columns(
    "start_date",
    "start_terminal",
    "end_date",
    "end_terminal",
    start_alias="start_station",
    end_alias="end_station",
)


def read_bay_area(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    places: Places,
    station_table: str | os.PathLike[str] | None = None,
    city: str | None = None,
    days: Days = Days(),
    fleet: int | None = None,
    utc: bool = True,
    progress: bool | None = None,
) -> Population:
    """Days of Bay Area Bike Share from the trips that it published, by city where the table of stations is given.

    Parameters
    ----------
    path : table of trips with the columns start_date, start_station, start_terminal, end_date, end_station and end_terminal: CSV (plain,
        gzip, zip), a folder, or a list of files.
    places, days, fleet, progress : as in `read_trips`. The time zone is California's. Stations are told by their numbers (terminals) and
        called by their names.
    station_table : the table of stations with station_id, name, lat, long and landmark, which is the city: needed for zones and for
        `city`; `Places(zones="landmark")` makes each city a state.
    utc : whether times are UTC, as in the edition of 2014 with the columns above (most trips start at 15 and at 0 hours: eight in the
        morning and five in the afternoon in California). False where a file has local times: `provenance["starts_by_hour"]` shows it.
    city : only stations of this city are chosen, such as "San Francisco".

    Returns
    -------
    Population
        As from `read_trips`. Four numbers carry two names, and six stations have two lines in the table because they were moved: each
        number is one place, under its last line in the table. All are told in the provenance's `repairs`.

    Raises
    ------
    DataError
        See `read_trips`; an unknown city, or a station of the trips that the table does not have.
    """
    if not isinstance(days, Days):
        raise DataError(f"read_bay_area: days is {days!r}; expected bm.data.Days(...).")
    zoned = days if days.time_zone is not None else dataclasses.replace(days, time_zone="America/Los_Angeles")
    table = None if station_table is None else read_stations(station_table, "station_id")
    if city is not None and table is None:
        raise DataError(f"read_bay_area: city is {city!r}; expected station_table, too, which has the cities of stations.")

    def columns(name: str, header: Sequence[str]) -> Columns:
        for column in _COLUMNS.kinds():
            find_column(name, header, column, " (expected the trips of Bay Area Bike Share)")
        return dataclasses.replace(_COLUMNS, utc=utc)

    with read_log(path, columns, zoned, "read_bay_area", (), progress) as log:
        names = list(_names(log, table))
        inside = None if city is None or table is None else _inside(log, table, city)
        return population_of(
            log,
            places,
            zoned,
            fleet,
            "Bay Area Bike Share",
            names=names,
            inside=inside,
            table=table,
            repairs=_repairs(log, table),
        )


def _names(log: TripLog, table: StationTable | None) -> Sequence[str]:
    """What the numbers are called."""
    if table is None:
        return [aliases[0] if aliases else key for key, aliases in zip(log.places, log.aliases, strict=True)]
    for key, aliases in zip(log.places, log.aliases, strict=True):
        if key not in table.rows:
            known = [row["name"] for row in table.rows.values()]
            called = aliases[0] if aliases else key
            raise DataError(
                f"{table.file}: station {key} of the trips ({called!r}) is not in the table{closest(called, known)}; expected a line for each"
                " station of the same city."
            )
    return [table.rows[key]["name"] for key in log.places]


def _inside(log: TripLog, table: StationTable, city: str) -> Any:
    if "landmark" not in next(iter(table.rows.values())):
        raise DataError(f"{table.file}: column 'landmark' is missing; expected it, as city is {city!r}.")
    cities = sorted({row["landmark"] for row in table.rows.values()})
    if city not in cities:
        raise DataError(f"read_bay_area: city is {city!r}{closest(city, cities)}; the table of stations has {listed(cities)}.")
    return np.array([table.rows[key]["landmark"] == city for key in log.places])


def _repairs(log: TripLog, table: StationTable | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ids_with_several_names": {key: names for key, names in zip(log.places, log.aliases, strict=True) if len(names) > 1}
    }
    if table is not None:
        found["stations_with_several_lines_the_last_holds"] = {key: list(lines) for key, lines in table.repeated.items()}
    return found
