"""The table of days and its covariates."""

import datetime

import numpy as np
import pandas as pd
import pytest

from bayes_mfg.data import Population, table_of_days
from bayes_mfg.errors import DataError

DATES = ("2024-09-03", "2024-09-01", "2024-09-02")
KNOWN = {
    "2024-09-01": {"weekday": "Sunday", "kind": "weekend", "departures": 5},
    "2024-09-02": {"weekday": "Monday", "kind": "weekday", "departures": 7},
    "2024-09-03": {"weekday": "Tuesday", "kind": "weekday", "departures": 9},
}
WEATHER = pd.DataFrame({"date": ["2024-09-01", "2024-09-02", "2024-09-03", "2024-09-04"], "rain": [0.0, 2.5, 0.1, np.nan]})


def days(known=KNOWN):
    shares = np.full((3, 2, 2), 0.5)
    return Population([0.0, 1.0], proportions=shares, trajectories=DATES, provenance={"days": known})


def test_a_row_for_every_day_in_the_order_of_the_population():
    found = table_of_days(days())
    assert tuple(found.index) == DATES
    assert found["departures"].tolist() == [9, 5, 7]


@pytest.mark.parametrize(
    "dates",
    [
        WEATHER["date"],
        pd.to_datetime(WEATHER["date"]),
        [datetime.date(2024, 9, day) for day in range(1, 5)],
    ],
)
@pytest.mark.parametrize("as_index", [True, False])
def test_covariates_stand_beside_by_date_however_dates_are_written(dates, as_index):
    weather = WEATHER.assign(date=dates)[::-1]
    found = table_of_days(days(), weather.set_index("date") if as_index else weather)
    assert found["rain"].tolist() == [0.1, 0.0, 2.5]
    assert found["kind"].tolist() == ["weekday", "weekend", "weekday"]
    assert days().select(found.index[found["rain"] > 1.0]).trajectories == ("2024-09-02",)


@pytest.mark.parametrize(
    ("covariates", "words"),
    [
        (WEATHER[1:], "nothing of the day 2024-09-01; 1 of 3"),
        (pd.concat([WEATHER, WEATHER[:1]]), "2024-09-01 twice"),
        (WEATHER.assign(rain=[0.0, np.nan, 1.0, 1.0]), "'rain' has a gap on 2024-09-02"),
        (WEATHER.assign(rain=[0.0, np.inf, 1.0, 1.0]), "'rain' has a gap on 2024-09-02"),
        (WEATHER.assign(date=[*WEATHER["date"][:3], None]), "a row without a date|need dates"),
        (pd.concat([WEATHER, WEATHER[["rain"]]], axis=1), "two covariates are called 'rain'"),
        (WEATHER.rename(columns={"rain": "kind"}), "name 'kind' of a covariate is taken"),
        (WEATHER.rename(columns={"date": "day"}), "need dates"),
        ([1.0, 2.0, 3.0], "expected a table"),
    ],
)
def test_covariates_that_do_not_fit_are_refused(covariates, words):
    with pytest.raises(DataError, match=words):
        table_of_days(days(), covariates)


def test_a_population_that_knows_nothing_of_days_is_refused():
    with pytest.raises(DataError, match="nothing of the day '2024-09-03'"):
        table_of_days(days(known={}))
