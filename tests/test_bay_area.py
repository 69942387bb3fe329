"""Bay Area Bike Share: numbers with two names, cities, and a year in UTC."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trip_files import counted, gzipped, text, write

from bayes_mfg.data import Days, Places, read_bay_area
from bayes_mfg.errors import DataError

REAL = Path(__file__).resolve().parents[2] / "shared/data/bay_area"
TRIPS, STATIONS = REAL / "bay_area_bikeshare_2014_trips.csv.gz", REAL / "bay_area_bikeshare_2014_stations.csv"
needs_real = pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not here (data for development, not part of the project)")

HEADER = [
    "trip_id",
    "duration",
    "start_date",
    "start_station",
    "start_terminal",
    "end_date",
    "end_station",
    "end_terminal",
    "bike_id",
    "subscription_type",
    "zip_code",
]


def row(start, origin, end, destination):
    return [1, 60, start, *origin, end, *destination, 473, "Subscriber", "94612"]


PIER, PARK, HALL = ("Pier", 2), ("Park at Kearney", 46), ("City Hall", 80)
ROWS = [
    HEADER,
    row("2014-01-01 16:14:00", PIER, "2014-01-01 16:21:00", PARK),
    row("2014-01-01 17:14:00", ("Park at Kearny", 46), "2014-01-01 17:21:00", HALL),
    row("2014-01-02 01:00:00", HALL, "2014-01-02 01:21:00", PIER),
]
TABLE = [
    ["station_id", "name", "lat", "long", "dock_count", "landmark", "install_date"],
    [2, "Pier", 37.79, -122.39, 19, "San Francisco", "2013-08-20"],
    [46, "Park at Kearney", 37.78, -122.40, 19, "San Francisco", "2013-08-20"],
    [46, "Park at Kearney", 37.781, -122.40, 19, "San Francisco", "2014-08-20"],
    [80, "City Hall", 37.33, -121.88, 19, "San Jose", "2013-08-20"],
]


@pytest.fixture
def files(tmp_path):
    return write(tmp_path, "trips.csv.gz", gzipped(text(ROWS))), write(tmp_path, "stations.csv", text(TABLE))


def test_numbers_are_places_under_their_names(files):
    population = read_bay_area(files[0], Places(stations=["Pier", "Park at Kearney"]), files[1])
    assert population.states == ("Pier", "Park at Kearney", "External", "In transit")
    assert population.trajectories == ("2014-01-01",)  # 8:14, 9:14 and 17:00 in California
    assert population.counts[0, 0].tolist() == [1, 0, 0, 0]
    assert population.counts[0, 14].tolist() == [0, 0, 1, 0]
    assert population.counts[0, -1].tolist() == [1, 0, 0, 0]
    repairs = population.provenance["repairs"]
    assert {key: sorted(names) for key, names in repairs["ids_with_several_names"].items()} == {
        "46": ["Park at Kearney", "Park at Kearny"]
    }
    assert list(repairs["stations_with_several_lines_the_last_holds"]) == ["46"]
    assert population.provenance["places"]["Park at Kearney"]["latitude"] == 37.781
    by_number = read_bay_area(files[0], Places(stations=["2", "46"]))
    np.testing.assert_array_equal(by_number.counts, population.counts)


def test_local_times_are_read_as_such(files):
    population = read_bay_area(files[0], Places(stations=3), utc=False, days=Days(opens="00:00", closes="24:00"))
    assert population.trajectories == ("2014-01-01", "2014-01-02")


def test_cities_are_zones_or_limit_what_is_chosen(files):
    cities = read_bay_area(files[0], Places(zones="landmark"), files[1])
    assert set(cities.states) == {"San Francisco", "San Jose", "In transit"}
    inside = read_bay_area(files[0], Places(zones=2), files[1], city="San Francisco")
    assert set(inside.states) == {"Pier", "Park at Kearney", "External", "In transit"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"city": "San Fransisco"}, "city is 'San Fransisco' (did you mean 'San Francisco'?)"),
        ({"city": "San Jose", "station_table": None}, "expected station_table, too"),
        ({"days": 3}, "days is 3"),
    ],
)
def test_refuses_an_argument(files, options, expected):
    with pytest.raises(DataError, match=re.escape(expected)):
        read_bay_area(files[0], Places(stations=2), **{"station_table": files[1], **options})


def test_a_name_of_two_stations_is_refused(files, tmp_path):
    """Either is meant by its number; one station in two zones is refused, too."""
    table = [*TABLE[:-1], [80, "Pier", *TABLE[-1][2:]]]
    stations = write(tmp_path, "twins.csv", text(table))
    with pytest.raises(DataError, match=r"station 'Pier' is the name of 2, 80; expected one of these instead"):
        read_bay_area(files[0], Places(stations=["Pier"]), stations)
    assert read_bay_area(files[0], Places(stations=["80"]), stations).states[0] == "Pier"
    with pytest.raises(DataError, match=r"zones has 'Pier' and '2', the name and the key of one place, in two zones"):
        read_bay_area(files[0], Places(zones={"2": "a", "Pier": "b", "46": "a"}), files[1])


def test_refuses_stations_of_another_city(files, tmp_path):
    table = [TABLE[0], *([900 + i, *line[1:]] for i, line in enumerate(TABLE[1:]))]
    with pytest.raises(DataError, match=re.escape("station 2 of the trips ('Pier') is not in the table (did you mean 'Pier'")):
        read_bay_area(files[0], Places(stations=2), write(tmp_path, "other.csv", text(table)))
    with pytest.raises(DataError, match="column 'station_id' is missing; the columns are name"):
        read_bay_area(files[0], Places(stations=2), write(tmp_path, "none.csv", "name,lat\nPier,3\n"))
    bad = text(TABLE).replace("37.33", "north")
    with pytest.raises(DataError, match="latitude of station '80' is 'north'; expected a number of degrees"):
        read_bay_area(files[0], Places(stations=2), write(tmp_path, "bad.csv", bad))


def test_refuses_a_file_without_its_columns(tmp_path):
    path = write(tmp_path, "trips.csv", text(ROWS).replace("start_terminal", "start_number"))
    with pytest.raises(DataError, match=re.escape("column 'start_terminal' is missing (did you mean 'end_")):
        read_bay_area(path, Places(stations=2))


@pytest.fixture(scope="module")
def year():
    table = pd.read_csv(TRIPS)
    local = {
        side: pd.to_datetime(table[f"{side}_date"])
        .dt.tz_localize("UTC")
        .dt.tz_convert("America/Los_Angeles")
        .dt.tz_localize(None)
        for side in ("start", "end")
    }
    minutes = (pd.to_datetime(table["end_date"]) - pd.to_datetime(table["start_date"])).dt.total_seconds() / 60
    return pd.DataFrame({**local, "origin": table["start_terminal"], "destination": table["end_terminal"], "minutes": minutes})


@needs_real
def test_the_year_2014_is_that_of_pandas(year):
    """Eight zones of San Francisco: stocks of sample days and every dropped row."""
    places = Places(zones=8, external=False)
    population = read_bay_area(TRIPS, places, STATIONS, city="San Francisco")
    table = pd.read_csv(STATIONS)
    inside = set(table[table["landmark"] == "San Francisco"]["station_id"])
    trips = population.provenance["trips"]
    assert trips["read"] == 326_339 == trips["kept"] + sum(trips["dropped"].values())
    assert trips["dropped"]["longer than 24 hours"] == (year["minutes"] > 1440).sum() == 137
    sound = year[year["minutes"] <= 1440]
    ends = sound[["origin", "destination"]].isin(inside).sum(axis=1)
    assert trips["dropped"]["between two places that are no state"] == (ends == 0).sum()
    assert trips["dropped"]["from or to a place that is no state"] == (ends == 1).sum()
    assert population.n_trajectories == 365
    assert population.n_states == 9
    within = sound[ends == 2]
    number = table.drop_duplicates("station_id", keep="last").set_index("name")["station_id"].to_dict()
    for day in ("2014-03-10", "2014-11-02", "2014-12-31"):
        r = population.trajectories.index(day)
        for x, (name, place) in enumerate(population.provenance["places"].items()):
            assert name == population.states[x]
            members = [number[station] for station in place["stations"]]
            net, under_way = counted(within, members, day, 18, 15)
            assert population.counts[r, 49, x] - population.counts[r, 0, x] == net
            assert population.counts[r, 49, -1] == under_way
    np.testing.assert_array_equal(population.counts.sum(axis=2), population.provenance["stock"]["fleet"])
    # People ride to work at eight and home at five: the times of the file are UTC.
    hours = population.provenance["starts_by_hour"]
    assert {int(hour) for hour in np.argsort(hours)[-2:]} == {8, 17}
    assert population.provenance["dates"] == ["2014-01-01", "2014-12-31"]


@needs_real
def test_duplicate_stations_of_2014_are_told():
    population = read_bay_area(TRIPS, Places(zones="landmark"), STATIONS)
    repairs = population.provenance["repairs"]
    assert set(repairs["ids_with_several_names"]) == {"25", "46", "47", "80"}
    assert set(repairs["stations_with_several_lines_the_last_holds"]) == {"23", "25", "49", "69", "72", "80"}
    assert set(population.states) == {"San Francisco", "San Jose", "Mountain View", "Palo Alto", "Redwood City", "In transit"}
    assert sum(len(place["stations"]) for place in population.provenance["places"].values()) == 70
