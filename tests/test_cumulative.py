"""Cumulative cases: differences that add up, corrections told, weekdays summed away."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trip_files import gzipped, write

from bayes_mfg.data import read_cumulative_cases
from bayes_mfg.errors import DataError

REAL = Path(__file__).resolve().parents[2] / "shared/data/epidemics/covid19_confirmed_japan.csv"
needs_real = pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not here (data for development, not part of the project)")
VALUES = [2, 2, 5, 9, 7, 20, 22, 30, 30, 41, 44]


def series(values, first="2020-01-22", skip=()):
    days = pd.date_range(first, periods=len(values)).strftime("%Y-%m-%d")
    rows = [f"{day},{value}" for index, (day, value) in enumerate(zip(days, values, strict=True)) if index not in skip]
    return "\n".join(["date,confirmed", *rows]) + "\n"


def accounted(population):
    days = population.provenance["days"]
    assert days["asked"] == days["kept"] + sum(days["dropped"].values())
    return days


def test_new_cases_are_differences_and_corrections_are_told(tmp_path):
    population = read_cumulative_cases(write(tmp_path, "japan.csv", series(VALUES)), 1000)
    assert population.trajectories == ("japan",)
    assert population.states == ("S", "I", "R")
    np.testing.assert_array_equal(population.times, np.arange(10))
    np.testing.assert_array_equal(population.counts[0, :, 1], [0, 3, 4, 0, 13, 2, 8, 0, 11, 3])
    assert population.mask[0].tolist() == [[False, day != 3, False] for day in range(10)]
    assert set(population.totals.ravel()) == {1000}
    assert population.provenance["negative_corrections"] == {"days": 1, "sum": -2, "by_day": {"2020-01-26": -2}}
    assert accounted(population)["dropped"] == {"corrections outweigh new cases": 1}
    assert VALUES[0] + population.counts[0, :, 1].sum() - 2 == VALUES[-1]


def test_weeks_sum_up_days_and_corrections(tmp_path):
    population = read_cumulative_cases(write(tmp_path, "japan.csv.gz", gzipped(series(VALUES))), 1000, every=3, name="Japan")
    np.testing.assert_array_equal(population.counts[0, :, 1], [7, 13, 19])
    np.testing.assert_array_equal(population.times, [2, 5, 8])
    assert population.fully_observed is False
    assert population.mask[0, :, 1].all()
    assert accounted(population) == {"asked": 10, "kept": 9, "dropped": {"after the last whole interval": 1}}
    assert population.provenance["negative_corrections"]["sum"] == -2


def test_a_missing_day_masks_what_it_touches(tmp_path):
    path = write(tmp_path, "japan.csv", series(VALUES, skip=[5]))
    population = read_cumulative_cases(path, 1000, first="2020-01-23", last="2020-02-01")
    assert population.mask[0, :, 1].tolist() == [True, True, True, False, False, False, True, True, True, True]
    assert accounted(population)["dropped"] == {"missing day, or the day after one": 2, "corrections outweigh new cases": 1}
    sums = read_cumulative_cases(path, 1000, every=4)
    assert sums.mask[0, :, 1].tolist() == [True, False]
    assert sums.counts[0, 0, 1] == 5
    assert accounted(sums)["dropped"] == {
        "missing day, or the day after one": 2,
        "in an interval with a missing day": 2,
        "after the last whole interval": 2,
    }


def test_a_part_of_the_series(tmp_path):
    population = read_cumulative_cases(write(tmp_path, "a.csv", series(VALUES)), 1000, first="2020-01-27", last="2020-01-28")
    np.testing.assert_array_equal(population.counts[0, :, 1], [13, 2])
    assert population.provenance["first_day"] == "2020-01-27"


GOOD = series(VALUES)


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (GOOD.replace("date,", "day,"), {}, "column 'date' is missing; the columns are day, confirmed"),
        (GOOD, {"column": "deaths"}, "column 'deaths' is missing (did you mean 'date'?); the columns are date, confirmed"),
        ("date,a,b\n2020-01-22,1,2\n", {}, "the columns beside 'date' are a, b; expected column to name one"),
        (GOOD.replace("2020-01-24", "1/24/20"), {}, "line 4: date is '1/24/20'; expected a date such as 2024-09-01"),
        (
            GOOD.replace("2020-01-24", "2020-01-22"),
            {},
            "line 4: 2020-01-22 follows 2020-01-23; expected one line for each day, in order",
        ),
        (GOOD.replace(",22\n", ",22.5\n"), {}, "line 8, column 'confirmed': '22.5'; expected a whole number"),
        (GOOD.replace(",22\n", ",-22\n"), {}, "line 8, column 'confirmed': '-22'"),
        (GOOD.replace(",22\n", ",\n"), {}, "line 8, column 'confirmed': ''"),
        (GOOD.replace(",22\n", ",22,3\n"), {}, "line 8: 3 cells; expected 2"),
        ("date,confirmed\n2020-01-22,1\n", {}, "1 days; expected at least 2"),
        ("", {}, "the columns are none"),
        (GOOD, {"population": 41}, "42 new cases from 2020-01-23 to 2020-02-01; expected at most the population of 41"),
        (GOOD, {"first": "2021-01-01"}, "2021-01-01 to 2020-02-01 holds no interval of 1 days with data"),
        (GOOD, {"every": 60}, "holds no interval of 60 days"),
        (gzipped(GOOD)[:-9], {}, "the packed file is damaged or cut short"),
    ],
)
def test_refuses_a_file(tmp_path, content, options, expected):
    path = write(tmp_path, "a.csv", content)
    with pytest.raises(DataError, match=re.escape(expected)) as caught:
        read_cumulative_cases(path, **{"population": 1000, **options})
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("options", [{"population": 0}, {"population": 1.5}, {"every": 0}, {"every": True}])
def test_refuses_an_option(tmp_path, options):
    with pytest.raises(DataError, match=r"read_cumulative_cases: (population|every) is"):
        read_cumulative_cases(write(tmp_path, "a.csv", GOOD), **{"population": 1000, **options})


@needs_real
def test_japan_adds_up():
    table = pd.read_csv(REAL, parse_dates=["date"]).set_index("date")["cumulative_confirmed"]
    daily = read_cumulative_cases(REAL, 125_000_000, name="Japan")
    new = table.diff().iloc[1:]
    np.testing.assert_array_equal(daily.counts[0, :, 1], np.where(new >= 0, new, 0))
    assert daily.provenance["negative_corrections"]["days"] == (new < 0).sum()
    assert daily.provenance["rows_read"] == len(table) == accounted(daily)["asked"] + 1
    weekly = read_cumulative_cases(REAL, 125_000_000, every=7, first="2020-01-27")
    weeks = table.loc["2020-01-26":"2023-03-05"].iloc[::7].diff().iloc[1:]
    np.testing.assert_array_equal(weekly.counts[0, : len(weeks), 1], weeks)
