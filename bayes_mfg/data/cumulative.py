"""Cumulative case series: differences, and what is wrong with them."""

import datetime
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bayes_mfg.errors import DataError

from .days import to_date
from .population import Population
from .table import read_lines
from .wording import closest, listed, to_number


def read_cumulative_cases(
    path: str | os.PathLike[str],
    population: int,
    column: str | None = None,
    date: str = "date",
    name: str | None = None,
    first: str | datetime.date | None = None,
    last: str | datetime.date | None = None,
    every: int = 1,
) -> Population:
    """New cases of an epidemic from a series of cumulative ones in a table with a line for each day.

    Johns Hopkins CSSE's files have a column for each day: turn them first, `pandas.read_csv(path).melt(...)`, and choose a country.

    Parameters
    ----------
    path : CSV (plain or gzip) with a line for each day: a date such as 2020-01-22 and the cases confirmed until then.
    population : inhabitants.
    column : column of the cumulative cases; the only one beside the date where absent.
    date : column of the dates.
    name : of the trajectory; the file's name without ending where absent.
    first, last : first and last day of which new cases are wanted, both included; the second day of the file and its last one where
        absent, as new cases are the difference to the day before.
    every : days that one time sums up. With 7, reporting by weekday is gone; days at the end that make no whole interval are left
        out, counted.

    Returns
    -------
    Population
        One trajectory; times in days, the number of the interval's last day since `first`; states S, I and R, of which I alone is
        observed: new cases of the interval, which stand for those who are infectious in it where an infectious person is so for about
        `every` days. Totals are the inhabitants. An interval of which a day is missing, or in which corrections outweigh the new
        cases, is masked. `provenance` says how many days were read, kept and dropped, and lists the days with negative differences
        (corrections), with their sum: first cumulative value + sum of all differences = last one.

    Raises
    ------
    DataError
        A file that is missing or damaged, a column that is missing, dates that are none or not in order, numbers that are not whole
        and at least 0, or more new cases than inhabitants.
    """
    for label, value in (("population", population), ("every", every)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DataError(f"read_cumulative_cases: {label} is {value!r}; expected a whole number of at least 1.")
    days, total = _series(path, column, date)
    begin = days[0] + datetime.timedelta(days=1) if first is None else to_date(first, "read_cumulative_cases: first")
    end = days[-1] if last is None else to_date(last, "read_cumulative_cases: last")
    value_of = dict(zip(days, total, strict=True))
    n_intervals = ((end - begin).days + 1) // every
    if n_intervals < 1 or end < days[0] or begin > days[-1]:
        raise DataError(
            f"{path}: {begin} to {end} holds no interval of {every} days with data, which go from {days[0]} to {days[-1]}; expected one."
        )
    counts, mask = np.zeros((1, n_intervals, 3)), np.zeros((1, n_intervals, 3), bool)
    corrections: dict[str, int] = {}
    dropped = {
        "missing day, or the day after one": 0,
        "in an interval with a missing day": 0,
        "corrections outweigh new cases": 0,
    }
    for interval in range(n_intervals):
        inside = [begin + datetime.timedelta(days=interval * every + day) for day in range(every)]
        new = []
        for day in inside:
            before = day - datetime.timedelta(days=1)
            if day in value_of and before in value_of:
                new.append(value_of[day] - value_of[before])
                if new[-1] < 0:
                    corrections[str(day)] = new[-1]
        if len(new) < every:
            dropped["missing day, or the day after one"] += every - len(new)
            dropped["in an interval with a missing day"] += len(new)
        elif sum(new) < 0:
            dropped["corrections outweigh new cases"] += every
        else:
            counts[0, interval, 1], mask[0, interval, 1] = sum(new), True
    known = [value_of[day] for day in days if begin - datetime.timedelta(days=1) <= day <= end]
    if len(known) > 1 and (largest := max(known) - known[0]) > population:
        raise DataError(f"{path}: {largest} new cases from {begin} to {end}; expected at most the population of {population}.")
    if not mask.any():
        raise DataError(f"{path}: no interval of {every} days is left from {begin} to {end}; expected at least one.")
    asked = (end - begin).days + 1
    left_over = asked - n_intervals * every
    lost = {reason: count for reason, count in {**dropped, "after the last whole interval": left_over}.items() if count}
    return Population(
        times=np.arange(1, n_intervals + 1) * every - 1,
        counts=counts,
        totals=population,
        states=("S", "I", "R"),
        trajectories=(Path(path).name.split(".")[0] if name is None else name,),
        mask=mask,
        time_unit="day",
        provenance={
            "source": "cumulative cases",
            "file": Path(path).name,
            "observed": f"I: new cases of {every} day{'s' if every > 1 else ''}",
            "first_day": str(begin),
            "population": population,
            "days": {"asked": asked, "kept": int(mask.sum()) * every, "dropped": lost},
            "rows_read": len(days),
            "negative_corrections": {"days": len(corrections), "sum": sum(corrections.values()), "by_day": corrections},
        },
    )


def _series(path: str | os.PathLike[str], column: str | None, date: str) -> tuple[Sequence[datetime.date], Sequence[int]]:
    lines = read_lines(path)
    header = [cell.strip() for cell in lines[0][1]] if lines else []
    if date not in header:
        raise DataError(f"{path}: column {date!r} is missing{closest(date, header)}; the columns are {listed(header) or 'none'}.")
    others = [name for name in header if name != date]
    if column is None and len(others) != 1:
        raise DataError(
            f"{path}: the columns beside {date!r} are {listed(others) or 'none'}; expected column to name one of them."
        )
    wanted = others[0] if column is None else column
    if wanted not in header:
        raise DataError(f"{path}: column {wanted!r} is missing{closest(wanted, header)}; the columns are {listed(header)}.")
    days: list[datetime.date] = []
    total: list[int] = []
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise DataError(f"{path}, line {line}: {len(cells)} cells; expected {len(header)}, as in the header.")
        day = to_date(cells[header.index(date)].strip(), f"{path}, line {line}: {date}")
        if days and day <= days[-1]:
            raise DataError(f"{path}, line {line}: {day} follows {days[-1]}; expected one line for each day, in order.")
        text = cells[header.index(wanted)]
        number = to_number(text)
        if number is None or not 0 <= number <= 2**53 or number != int(number):
            raise DataError(f"{path}, line {line}, column {wanted!r}: {text!r}; expected a whole number of at least 0.")
        days.append(day)
        total.append(int(number))
    if len(days) < 2:
        raise DataError(f"{path}: {len(days)} days; expected at least 2, as new cases are differences.")
    return days, total
