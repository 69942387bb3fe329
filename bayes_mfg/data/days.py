"""Which days are trajectories, between which hours, in which steps."""

import dataclasses
import datetime
import re
import zoneinfo
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayes_mfg.errors import DataError

from .population import Population

DAY = 86_400
EPOCH = datetime.date(1970, 1, 1)
KINDS = ("all", "weekday", "weekend")


OPENINGS = ("own", "common")


@dataclasses.dataclass(frozen=True)
class Days:
    """Days as trajectories: the hours that are looked at, the step between two times, and the days that are chosen.

    Parameters
    ----------
    opens, closes : local time of day at which a trajectory begins and ends, as "06:00"; "24:00" is midnight. An event at `opens` is
        inside, one at `closes` is not.
    minutes : step between two times, a whole number of minutes that divides the hours evenly.
    first, last : first and last date, both included, as "2024-09-01" or a `datetime.date`; those of the files where absent.
    kind : "all", "weekday" (Monday to Friday, without holidays) or "weekend" (Saturdays, Sundays and holidays).
    holidays : dates that count as weekend.
    longest : hours; a trip that takes longer is no ride (a bike that was not locked, or stolen) and is dropped, counted.
    time_zone : name such as "America/New_York". Times are read as clocks on the wall showed them; the zone tells the nights on which
        clocks go back, when a trip may end before it starts. No trip is repaired where it is absent.
    opening : how many bikes a place has when a day opens, which trips do not say: "own", the fewest with which that day never runs out, or "common",
        the fewest with which no day does. The former knows of the day's later hours, and so does a forecast from it; with the latter days open
        alike, but for bikes under way.

    Raises
    ------
    DataError
        A value outside its range.
    """

    opens: str = "06:00"
    closes: str = "22:00"
    minutes: int = 15
    first: str | datetime.date | None = None
    last: str | datetime.date | None = None
    kind: str = "all"
    holidays: Sequence[str | datetime.date] = ()
    longest: float = 24.0
    time_zone: str | None = None
    opening: str = "own"

    def __post_init__(self) -> None:
        begin, end = _minute(self.opens, "opens"), _minute(self.closes, "closes")
        if end <= begin:
            raise DataError(f"Days: closes is {self.closes!r}; expected a time after opens ({self.opens!r}).")
        if not isinstance(self.minutes, int) or self.minutes < 1 or (end - begin) % self.minutes:
            raise DataError(
                f"Days: minutes is {self.minutes!r}; expected a whole number that divides the {end - begin} minutes from"
                f" {self.opens} to {self.closes}."
            )
        if self.kind not in KINDS:
            raise DataError(f"Days: kind is {self.kind!r}; expected one of {', '.join(KINDS)}.")
        if self.opening not in OPENINGS:
            raise DataError(f"Days: opening is {self.opening!r}; expected one of {', '.join(OPENINGS)}.")
        if isinstance(self.longest, bool) or not isinstance(self.longest, int | float) or not self.longest > 0:
            raise DataError(f"Days: longest is {self.longest!r}; expected a positive number of hours.")
        if isinstance(self.holidays, str) or not isinstance(self.holidays, Sequence):
            raise DataError(f"Days: holidays is {self.holidays!r}; expected a list of dates.")
        for name, day in (("first", self.first), ("last", self.last), *(("holidays", day) for day in self.holidays)):
            if day is not None:
                to_date(day, f"Days: {name}")
        if self.first is not None and self.last is not None and to_date(self.last) < to_date(self.first):
            raise DataError(f"Days: last is {self.last}; expected a date not before first ({self.first}).")
        if self.time_zone is not None:
            zone(self.time_zone)

    @property
    def open_second(self) -> int:
        """Seconds from midnight to the beginning."""
        return 60 * _minute(self.opens, "opens")

    @property
    def close_second(self) -> int:
        """Seconds from midnight to the end."""
        return 60 * _minute(self.closes, "closes")

    @property
    def n_steps(self) -> int:
        """Number of steps; there is one time more."""
        return (self.close_second - self.open_second) // (60 * self.minutes)

    @property
    def hours(self) -> NDArray[np.float64]:
        """Times (T,), in hours since the beginning."""
        return np.arange(self.n_steps + 1, dtype=np.float64) * (self.minutes / 60)

    def kind_of(self, day: datetime.date) -> str:
        """Whether a date is a "weekday" or "weekend"."""
        off = day.isoweekday() > 5 or day in {to_date(holiday) for holiday in self.holidays}
        return "weekend" if off else "weekday"

    def takes(self, day: datetime.date) -> bool:
        """Whether a date within the range is of the kind that is chosen."""
        return self.kind == "all" or self.kind == self.kind_of(day)


def to_date(day: str | datetime.date, place: str = "") -> datetime.date:
    """A date from its text.

    Raises
    ------
    DataError
        Anything that is no date.
    """
    if isinstance(day, datetime.date) and not isinstance(day, datetime.datetime):
        return day
    try:
        return datetime.date.fromisoformat(day)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise DataError(f"{place} is {day!r}; expected a date such as 2024-09-01.") from None


def zone(name: str) -> zoneinfo.ZoneInfo:
    """A time zone by name.

    Raises
    ------
    DataError
        An unknown one.
    """
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise DataError(f"Days: time_zone is {name!r}; expected a name such as 'America/New_York'.") from None


def clock_change(day: datetime.date, name: str) -> int:
    """Seconds by which clocks are put forward on a day; negative where they are put back, 0 on most days."""
    midnights = (datetime.datetime.combine(one, datetime.time(), zone(name)) for one in (day, day + datetime.timedelta(days=1)))
    before, after = (moment.utcoffset() or datetime.timedelta() for moment in midnights)
    return int((after - before).total_seconds())


def table_of_days(population: Population, covariates: pd.DataFrame | None = None) -> pd.DataFrame:
    """What is known of every day, a row for each trajectory in the population's order.

    Columns are those of `provenance["days"]`: weekday, kind, and what the reader counted; then covariates of the days, such as the weather. Days
    are chosen by them (`population.select(days.index[days["rain"] > 1.0])`), and known numbers go into a game by them
    (`bm.paths.Given(days["temperature"])`).

    Parameters
    ----------
    population : from a reader whose trajectories are days.
    covariates : a row for each date, its index or its column "date" the dates; dates that are no trajectory are left out.

    Raises
    ------
    DataError
        A population whose provenance says nothing of days; covariates without dates, with a date twice, without a day of the population, with
        a gap on such a day, or with a name that is taken.
    """
    known = population.provenance.get("days", {})
    missing = [name for name in population.trajectories if name not in known]
    if missing:
        raise DataError(f"The provenance says nothing of the day {missing[0]!r}; expected a population of days.")
    days = pd.DataFrame([known[name] for name in population.trajectories], index=pd.Index(population.trajectories, name="date"))
    if covariates is None:
        return days
    if not isinstance(covariates, pd.DataFrame):
        raise DataError(f"table_of_days: covariates is {covariates!r}; expected a table with a row for each date.")
    table = covariates.set_index("date") if "date" in covariates else covariates
    try:
        dates = pd.to_datetime(pd.Index(table.index).astype(str), format="%Y-%m-%d").strftime("%Y-%m-%d")
    except ValueError as error:
        raise DataError(
            f"table_of_days: covariates need dates such as '2024-09-01' as their index or in a column 'date': {error}."
        ) from error
    if dates.hasnans:
        raise DataError("table_of_days: covariates have a row without a date.")
    if (twice := table.columns[table.columns.duplicated()]).size:
        raise DataError(f"table_of_days: two covariates are called {twice[0]!r}.")
    if taken := [str(name) for name in table.columns if name in days]:
        raise DataError(f"table_of_days: the name {taken[0]!r} of a covariate is taken; the days have {', '.join(days)} already.")
    if (again := dates[dates.duplicated()]).size:
        raise DataError(f"table_of_days: covariates have the date {again[0]} twice.")
    table = table.set_axis(dates)
    if absent := [name for name in population.trajectories if name not in table.index]:
        raise DataError(
            f"table_of_days: covariates say nothing of the day {absent[0]}; {len(absent)} of {len(days)} days are absent."
        )
    table = table.loc[list(population.trajectories)]
    gaps = table.isna() | table.isin([np.inf, -np.inf])
    for name in table.columns[gaps.any()]:
        gap = table.index[gaps[name]][0]
        raise DataError(f"table_of_days: the covariate {name!r} has a gap on {gap}; leave the day out, or say what it was.")
    return days.join(table)


def days_of(population: Population, kind: str) -> tuple[str, ...]:
    """Trajectories that are weekdays, or weekends and holidays: `population.select(days_of(population, "weekday"))`.

    Parameters
    ----------
    population : from a reader whose trajectories are days: its provenance says what kind each is.
    kind : "weekday" or "weekend".

    Raises
    ------
    DataError
        Another kind, or a population whose provenance says nothing of days.
    """
    if kind not in KINDS[1:]:
        raise DataError(f"days_of: kind is {kind!r}; expected 'weekday' or 'weekend'.")
    days = table_of_days(population)
    return tuple(days.index[days["kind"] == kind])


def _minute(text: str, name: str) -> int:
    found = re.fullmatch(r"(\d\d):(\d\d)", text) if isinstance(text, str) else None
    minute = 60 * int(found[1]) + int(found[2]) if found and int(found[2]) < 60 else -1
    if not 0 <= minute <= 1440:
        raise DataError(f"Days: {name} is {text!r}; expected a time of day such as '06:00', at most '24:00'.")
    return minute
