"""Trips to populations: any table with a start and an end for each trip."""

import datetime
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayes_mfg.errors import DataError

from .arrow import find_column
from .days import DAY, EPOCH, Days, clock_change, to_date
from .places import EXTERNAL, IN_TRANSIT, Assignment, Places, StationTable, assign, read_stations
from .population import Population
from .sources import Label
from .stocks import Flows, Stocks, book, net_flows, overnight, reconstruct
from .triplog import Columns, TripLog, read_log

STOCK_MODEL = (
    "Counts are bikes at the end of each step: the stock at opening, and arrivals less departures since, each booked when it happens. The"
    " stock at opening is inferred, {how}: the smallest with which no place is ever without a bike that leaves it, and"
    " bikes that are not needed in proportion to what places need on average."
)
HOW = {"own": "for each day by itself", "common": "one for all days"}
AS = {"own": "", "common": ", all from one opening"}


_SILENCE = 3600
"""Seconds without a start, at the beginning or the end of the records, that are no sign of a day that was cut."""


def read_trips(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | pd.DataFrame,
    places: Places,
    start_time: str = "start_time",
    start_place: str = "start_place",
    end_time: str = "end_time",
    end_place: str = "end_place",
    start_latitude: str | None = None,
    start_longitude: str | None = None,
    end_latitude: str | None = None,
    end_longitude: str | None = None,
    utc: bool = False,
    station_table: str | os.PathLike[str] | None = None,
    days: Days = Days(),
    fleet: int | None = None,
    time_formats: Sequence[str] = (),
    progress: bool | None = None,
) -> Population:
    """Days of a bike-share system, or of anything that travels between places, from a table of trips.

    Parameters
    ----------
    path : CSV (plain, gzip, zip) or Parquet: a file, a folder with files, or a list of files of one city; or a DataFrame. Files may
        be larger than memory.
    places : which places are states.
    utc : whether times are UTC, or have a zone ("2024-09-01T18:31:52Z", a column with a time zone); they are turned into local ones of the time
        zone in `days`, which is then needed.
    start_time, end_time : columns of local times, as clocks on the wall showed them, "2024-09-01 18:31:52.133"; fractions are optional.
    start_place, end_place : columns of places, read as text. A column of zones or cities makes zones the places.
    start_latitude, start_longitude, end_latitude, end_longitude : columns of degrees, for zones by clustering and for maps.
    station_table : CSV with a column `name` that holds the places, optionally `latitude` and `longitude` (which take precedence over
        those of the trips), and columns such as a city for `Places(zones="city")`.
    days : hours, step, and which days; each is a trajectory.
    fleet : number of bikes. The smallest with which every day can have happened where absent.
    time_formats : formats of times beside ISO 8601, as for `strptime`.
    progress : show a progress bar; by default on a terminal only.

    Returns
    -------
    Population
        One trajectory for each day with trips, named by its date; times (T,) in hours since the day opens; states: the places, zones or
        stations, then "External" and "In transit" where they exist (`external`: whether a place
        with trips is no state). Counts of bikes that sum to the fleet at every time, none of them
        negative or clipped; `bayes_mfg.data.stocks` says how they come from trips, which are flows. `provenance` says of `trips` how
        many were read, kept, and dropped for which reason (read = kept + the sum of those dropped), of `repairs`, `days` (weekday,
        weekday or weekend, departures, arrivals, and the fleet that the day needs), `starts` (the first and the last),
        `days_that_may_be_cut` (the records begin or end within their hours), `places` (coordinates, stations, use), `flows`
        (trips between states) and `stock` (fleet, and bikes that moved overnight without a trip).

    Raises
    ------
    DataError
        A file that is missing, damaged, or of another kind; a column that is missing; a value that is no time; a place that is not
        there; a fleet that is too small; or no trip that is left. The sentence names file, column and value.
    """
    columns = Columns(
        start_time,
        start_place,
        end_time,
        end_place,
        start_latitude,
        start_longitude,
        end_latitude,
        end_longitude,
        utc=utc,
    )
    if utc and getattr(days, "time_zone", None) is None:
        raise DataError("read_trips: utc is true; expected days with a time_zone, such as Days(time_zone='Europe/Paris').")

    def choose(name: str, header: Sequence[str]) -> Columns:
        for column in columns.kinds():
            find_column(name, header, column)
        return columns

    table = None if station_table is None else read_stations(station_table, "name")
    with read_log(path, choose, days, "read_trips", time_formats, progress) as log:
        return population_of(log, places, days, fleet, "trips", table=table)


def population_of(
    log: TripLog,
    places: Places,
    days: Days,
    fleet: int | None,
    source: str,
    *,
    names: Sequence[str] | None = None,
    inside: NDArray[np.bool_] | None = None,
    table: StationTable | None = None,
    months: Sequence[tuple[int, int]] = (),
    repairs: Mapping[str, Any] | None = None,
) -> Population:
    """The population of a log of trips.

    Parameters
    ----------
    log : what was read.
    places, days, fleet : as in `read_trips`.
    source : for the provenance.
    names : (places,) what places are called; their keys where absent.
    inside : (places,) whether a place may be chosen; all where absent.
    table : of stations, by the keys of places.
    months : (year, month) that the files are of: their days are the dates where `days` says nothing. No day of a month between two of
        them is a date.
    repairs : what the reader repaired, for the provenance.

    Raises
    ------
    DataError
        See `read_trips`.
    """
    if not isinstance(places, Places):
        raise DataError(f"places is {places!r}; expected bm.data.Places(...).")
    called, told = list(names or log.places), dict(repairs or {})
    position, columns = log.coordinates[: len(called)], {}
    if table is not None:
        position = _positions(log, table, position)
        if absent := [key for key in log.places if key not in table.rows]:
            told["places_not_in_the_table_of_stations"] = absent
        columns = {
            column: [table.rows.get(key, {}).get(column, "") for key in log.places] for column in next(iter(table.rows.values()))
        }
    allowed = np.ones(len(called), bool) if inside is None else inside
    chosen = assign(log, places, called, position, columns, allowed)
    first, last = _range(log, days, months)
    within = _within(first, last, months)
    flows = book(log, chosen.of, len(chosen.states), days, places.external, first, last, within)
    if not flows.dates:
        raise DataError(
            f"None of the {log.n_read} trips read is on a day from {first} to {last} of kind {days.kind!r}, between {days.opens} and"
            f" {days.closes}; expected at least one."
        )
    external = bool(places.external and chosen.report["places_outside"])
    if not external and not places.in_transit:
        raise DataError("Places: in_transit is false and every place is a state: bikes under way have no state to be in.")
    stocks = reconstruct(flows, days, fleet, external)
    counts = stocks.counts
    outside = [EXTERNAL] if external else []
    if not places.in_transit:
        counts = np.concatenate([counts[..., :-2], counts[..., -2:].sum(axis=-1, keepdims=True)], axis=-1)
    elif not external:
        counts = np.delete(counts, -2, axis=-1)
    return Population(
        times=days.hours,
        counts=counts,
        totals=stocks.fleet,
        states=(*chosen.states, *outside, *([IN_TRANSIT] if places.in_transit else [])),
        trajectories=tuple(map(str, flows.dates)),
        time_unit="hour",
        provenance=_provenance(log, chosen, days, flows, stocks, source, fleet, external, told, (first, last)),
    )


def _provenance(
    log: TripLog,
    chosen: Assignment,
    days: Days,
    flows: Flows,
    stocks: Stocks,
    source: str,
    fleet: int | None,
    external: bool,
    repairs: Mapping[str, Any],
    span: tuple[datetime.date, datetime.date],
) -> dict[str, Any]:
    dropped = {**log.dropped, **flows.dropped}
    if log.n_read != flows.kept + sum(dropped.values()):
        raise RuntimeError(f"{log.n_read} trips were read, {flows.kept} kept and {dropped} dropped: they do not reconcile.")
    held = [*chosen.states, *([EXTERNAL] if external else [])]
    return {
        "source": source,
        "files": {name.short if isinstance(name, Label) else name: rows for name, rows in log.rows.items()},
        "trips": {"read": log.n_read, "kept": flows.kept, "dropped": dropped},
        "repairs": {**log.repairs, **repairs},
        "hours": [days.opens, days.closes],
        "minutes": days.minutes,
        "dates": [str(span[0]), str(span[1])],
        "days": {
            str(date): {
                "weekday": date.strftime("%A"),
                "kind": days.kind_of(date),
                "departures": int(departures),
                "arrivals": int(arrivals),
                "fleet_needed": int(needed),
            }
            for date, departures, arrivals, needed in zip(
                flows.dates, flows.departures, flows.arrivals, stocks.needed, strict=True
            )
        },
        "starts_by_hour": log.by_hour.tolist(),
        "starts": [_moment(second) for second in log.span or ()],
        "days_that_may_be_cut": _cut(log, days, flows.dates),
        "days_without_trips": [str(date) for date in flows.quiet],
        "clock_changes": _clock_changes(flows.dates, days),
        **chosen.report,
        "external": external,
        "flows": {"states": held, "trips": flows.between[: len(held), : len(held)].tolist()},
        "stock": {
            "model": STOCK_MODEL.format(how=HOW[days.opening]),
            "opening": days.opening,
            "fleet": stocks.fleet,
            "fleet_is": ("the smallest with which every day can have happened" + AS[days.opening]) if fleet is None else "given",
            "moved_without_a_trip_overnight": overnight(flows, stocks),
            "net_flow": net_flows(flows, held),
        },
    }


def _positions(log: TripLog, table: StationTable, position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates of the table, and of the trips where it has none."""
    unknown = [key for key, use in zip(log.places, log.use, strict=False) if use and key not in table.rows]
    if len(unknown) > 0.5 * len(log.places):
        raise DataError(
            f"{table.file}: {len(unknown)} of the {len(log.places)} places of the trips, such as {unknown[0]!r}, are not in the table;"
            " expected a table of the same city."
        )
    own = np.array([[table.number(key, axis) for axis in ("latitude", "longitude")] for key in log.places])
    return np.where(np.isfinite(own), own, position)


def _range(log: TripLog, days: Days, months: Sequence[tuple[int, int]]) -> tuple[datetime.date, datetime.date]:
    assert log.span is not None
    first, last = (EPOCH + datetime.timedelta(days=second // 86_400) for second in log.span)
    if months:
        (year, month), (end_year, end_month) = min(months), max(months)
        first = datetime.date(year, month, 1)
        last = datetime.date(end_year + end_month // 12, end_month % 12 + 1, 1) - datetime.timedelta(days=1)
    given = (days.first and to_date(days.first), days.last and to_date(days.last))
    begin, end = given[0] or first, given[1] or last
    if end < begin:
        raise DataError(f"Days: the trips are of {first} to {last}, and {begin} to {end} is asked for; expected days with trips.")
    return begin, end


def _within(first: datetime.date, last: datetime.date, months: Sequence[tuple[int, int]]) -> NDArray[np.bool_]:
    """Which days from the first to the last are dates: not those of months that are missing between others."""
    dates = [first + datetime.timedelta(days=index) for index in range((last - first).days + 1)]
    if not months:
        return np.ones(len(dates), bool)
    found = [(date.year, date.month) for date in dates]
    return np.array([month in months or not min(months) < month < max(months) for month in found])


def _cut(log: TripLog, days: Days, dates: Sequence[datetime.date]) -> list[str]:
    """Trajectories that the records may hold in part: the first trip of all starts, or the last one, within their hours."""
    assert log.span is not None
    early, late = ((EPOCH + datetime.timedelta(days=second // DAY), second % DAY) for second in log.span)
    cut = {early[0]} if early[1] > days.open_second + _SILENCE else set()
    cut |= {late[0]} if late[1] < days.close_second - _SILENCE else set()
    return [str(date) for date in dates if date in cut]


def _moment(second: int) -> str:
    return str(datetime.datetime.combine(EPOCH, datetime.time()) + datetime.timedelta(seconds=second))


def _clock_changes(dates: Sequence[datetime.date], days: Days) -> list[str]:
    if days.time_zone is None:
        return []
    zone_name = days.time_zone
    return [str(date) for date in dates if clock_change(date, zone_name)]
