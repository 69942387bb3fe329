"""Citi Bike's two schemas: one city, read by the names of its stations."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trip_files import NEWER, STATIONS, counted, gzipped, made_up, newer, older, write, zipped

from bayes_mfg.data import Days, Places, read_citibike, read_trips
from bayes_mfg.errors import DataError

REAL = Path(__file__).resolve().parents[2] / "shared/data/citibike"
needs_real = pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not here (data for development, not part of the project)")
ALL = Places(stations=list(STATIONS))


def reconciles(population):
    trips = population.provenance["trips"]
    assert trips["read"] == trips["kept"] + sum(trips["dropped"].values())
    return trips


@pytest.mark.parametrize("schema", [newer, older])
def test_both_schemas_read_as_any_table_does(tmp_path, schema):
    trips = made_up()
    population = read_citibike(write(tmp_path, "202409-citibike-tripdata.csv", schema(trips)), ALL)
    plain = read_trips(trips, ALL, "start", "origin", "end", "destination")
    np.testing.assert_array_equal(population.counts, plain.counts)
    assert reconciles(population) == plain.provenance["trips"]
    assert population.provenance["places"]["Terminal"]["latitude"] == 40.741
    assert population.provenance["dates"] == ["2024-09-01", "2024-09-30"]


def test_months_of_both_schemas_join_by_the_names_of_stations(tmp_path):
    """Numbers differ between the months, and within one a station has two, and a number two stations."""
    august, september = made_up(first="2024-08-20"), made_up(seed=1)
    files = {
        "202408-citibike-tripdata.csv.gz": gzipped(older(august)),
        "JC-202409-citibike-tripdata.csv.zip": zipped(
            {"202409.csv": newer(september), "__MACOSX/._202409.csv": b"\0\1\2", ".DS_Store": b"\0"}
        ),
    }
    for name, content in files.items():
        write(tmp_path, name, content)
    population = read_citibike(tmp_path, ALL)
    both = read_trips(pd.concat([august, september]), ALL, "start", "origin", "end", "destination")
    np.testing.assert_array_equal(population.counts, both.counts)
    assert population.provenance["dates"] == ["2024-08-01", "2024-09-30"]
    assert population.provenance["files"] == {
        "202408-citibike-tripdata.csv.gz": 400,
        "JC-202409-citibike-tripdata.csv.zip (202409.csv)": 400,
    }
    repairs = population.provenance["repairs"]
    assert set(repairs["names_with_several_ids"]["Pier & 1st"]) == {"JC001", "3000"}
    assert set(repairs["names_with_several_ids"]) == set(STATIONS)
    assert repairs["ids_with_several_names"] == {}


def test_another_city_s_trips_with_the_same_columns_are_refused(tmp_path):
    chicago = newer(made_up()).replace(",40.7", ",41.8").replace(",-74.0", ",-87.6").replace(",-73.9", ",-87.5")
    with pytest.raises(
        DataError, match=r"the middle of the stations is 41\.8\d, -87\.6\d, 11\d\d km from New York; expected Citi Bike"
    ):
        read_citibike(write(tmp_path, "202409-divvy-tripdata.csv", chicago), Places(stations=5))


def test_no_day_of_a_month_between_is_a_date(tmp_path):
    """January and September: a trip of August in September's file is outside, and nothing is told of February."""
    tail = made_up(20, first="2024-08-30", days=1)
    write(tmp_path, "202401.csv", newer(made_up(40, first="2024-01-30", days=2)))
    write(tmp_path, "202409.csv", newer(pd.concat([tail, made_up(first="2024-09-01", days=2, seed=1)])))
    population = read_citibike(tmp_path, ALL)
    assert population.trajectories == ("2024-01-30", "2024-01-31", "2024-09-01", "2024-09-02")
    assert reconciles(population)["dropped"]["outside the dates"] == 20
    quiet = population.provenance["days_without_trips"]
    assert {day[:7] for day in quiet} == {"2024-01", "2024-09"}
    assert len(quiet) == 31 + 30 - 4
    # Dates that are asked for are not between.
    earlier = read_citibike(tmp_path, ALL, days=Days(first="2023-12-31", last="2024-09-01"))
    assert earlier.trajectories == ("2024-01-30", "2024-01-31", "2024-09-01")
    assert earlier.provenance["days_without_trips"][0] == "2023-12-31"


def test_ids_that_carry_two_names_are_told(tmp_path):
    content = newer(made_up()).replace('"JC002"', '"JC001"')
    population = read_citibike(write(tmp_path, "202409.csv", content), ALL)
    names = population.provenance["repairs"]["ids_with_several_names"]
    assert {key: set(value) for key, value in names.items()} == {"JC001": {"Pier & 1st", "Park, North"}}
    assert population.n_states == 6


def test_rows_that_begin_in_another_month_are_told(tmp_path):
    """The file's name says its month; a trip over midnight of the first still brings its bike."""
    before = made_up(20, first="2024-08-30", days=1)
    over = pd.DataFrame(
        {
            "start": pd.Timestamp("2024-08-31 23:50"),
            "end": pd.Timestamp("2024-09-01 06:10"),
            "origin": "Terminal",
            "destination": ["City Hall"],
        }
    )
    trips = pd.concat([before, over, made_up()], ignore_index=True)
    population = read_citibike(write(tmp_path, "JC-202409-citibike-tripdata.csv", newer(trips)), ALL)
    assert reconciles(population)["dropped"]["outside the dates"] == 20
    assert population.provenance["days"]["2024-09-01"]["arrivals"] == 1
    assert population.trajectories[0] == "2024-09-01"
    nameless = read_citibike(write(tmp_path, "trips.csv", newer(trips)), ALL)
    assert nameless.trajectories[0] == "2024-08-30"


def test_the_month_is_in_the_name_of_the_file_not_of_its_folder(tmp_path):
    folder = tmp_path / "202301"
    folder.mkdir()
    assert read_citibike(write(folder, "trips.csv", newer(made_up())), ALL).provenance["dates"] == ["2024-09-02", "2024-09-06"]
    bracketed = tmp_path / "trips (old)" / "202301"
    bracketed.mkdir(parents=True)
    assert read_citibike(write(bracketed, "trips.csv", newer(made_up())), ALL).provenance["dates"][0] == "2024-09-02"
    inner = zipped({"JC-202409-tripdata.csv": newer(made_up())})
    assert read_citibike(write(bracketed, "202408.zip", inner), ALL).provenance["dates"] == ["2024-09-01", "2024-09-30"]


def test_rows_without_an_end_station_are_dropped_and_counted(tmp_path):
    trips = made_up()
    trips.loc[:6, "destination"] = ""
    population = read_citibike(write(tmp_path, "202409.csv", newer(trips)), ALL)
    assert reconciles(population)["dropped"]["no end place"] == 7
    null = older(made_up()).replace('"City Hall"', "NULL")
    ends = (made_up()[["origin", "destination"]] == "City Hall").any(axis=1).sum()
    dropped = reconciles(read_citibike(write(tmp_path, "null.csv", null), Places(stations=["Terminal"])))["dropped"]
    assert dropped["no end place"] + dropped["no start place"] == ends


def test_american_dates_of_older_months(tmp_path):
    content = older(made_up(40, first="2024-09-02", days=1))
    american = re.sub(r"2024-(\d\d)-(\d\d) (\d\d:\d\d):\d\d\.\d+", lambda m: f"{int(m[1])}/{int(m[2])}/2024 {m[3]}", content)
    assert "9/2/2024" in american
    population = read_citibike(write(tmp_path, "201409.csv", american), ALL, days=Days(first="2024-09-01", last="2024-09-30"))
    assert (
        population.provenance["days"]["2024-09-02"]["departures"] + reconciles(population)["dropped"].get("outside the hours", 0)
        == 40
    )


def test_headers_with_capitals_are_the_older_schema(tmp_path):
    content = older(made_up())
    header, rest = content.split("\n", 1)
    titled = header.replace("starttime", "Start Time").replace("stoptime", "Stop Time").title()
    population = read_citibike(write(tmp_path, "a.csv", f"{titled}\n{rest}"), ALL)
    assert reconciles(population)["read"] == 400


def test_new_york_s_clocks(tmp_path):
    trips = pd.DataFrame(
        {
            "start": pd.to_datetime(["2024-11-03 01:50", "2024-11-03 12:00"]),
            "end": pd.to_datetime(["2024-11-03 01:10", "2024-11-03 12:30"]),
            "origin": "City Hall",
            "destination": "Terminal",
        }
    )
    population = read_citibike(write(tmp_path, "202411.csv", newer(trips)), Places(stations=["City Hall", "Terminal"]))
    assert sum(n for n in population.provenance["repairs"].values() if isinstance(n, int)) == 1
    assert population.provenance["clock_changes"] == ["2024-11-03"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (newer(made_up(5)).replace("started_at", "begun_at"), "column 'started_at' is missing (did you mean"),
        (newer(made_up(5)).replace("end_station_name", "end_name"), "column 'end_station_name' is missing (did you mean"),
        (
            older(made_up(5)).replace("stoptime", "stopped"),
            "column 'stoptime' is missing (did you mean 'starttime' or 'stopped'?); the columns are tripduration, starttime, stopped",
        ),
        ("a,b\n1,2\n", "column 'started_at' is missing; the columns are a, b (expected Citi Bike's trips"),
        (re.sub(r'"2024-09-0\d \d\d:(\d\d:\d\d\.\d)\d+"', r'"\1"', older(made_up(5))), "column 'starttime': '"),
    ],
)
def test_refuses_a_file(tmp_path, content, expected):
    path = write(tmp_path, "202409.csv", content)
    with pytest.raises(DataError, match=re.escape(expected)) as caught:
        read_citibike(path, ALL)
    assert str(caught.value).startswith(str(path))


def test_refuses_days_that_are_none(tmp_path):
    with pytest.raises(DataError, match="read_citibike: days is 15"):
        read_citibike(tmp_path, ALL, days=15)
    with pytest.raises(DataError, match="the folder holds no table"):
        read_citibike(tmp_path, ALL)
    with pytest.raises(DataError, match=r"none\.csv: there is no such file"):
        read_citibike(tmp_path / "none.csv", ALL)
    with pytest.raises(DataError, match="the file is named 2 times"):
        read_citibike([write(tmp_path, "a.csv", newer(made_up()))] * 2, ALL)
    with pytest.raises(DataError, match="expected the name of a file or folder"):
        read_citibike([], ALL)


@pytest.fixture(scope="module")
def september():
    with zipfile.ZipFile(REAL / "JC-202409-citibike-tripdata.csv.zip") as archive:
        table = pd.read_csv(archive.open("JC-202409-citibike-tripdata.csv"), dtype=str)
    trips = pd.DataFrame(
        {
            "start": pd.to_datetime(table["started_at"], format="ISO8601"),
            "end": pd.to_datetime(table["ended_at"], format="ISO8601"),
            "origin": table["start_station_name"].str.strip(),
            "destination": table["end_station_name"].str.strip(),
            "town": table["start_station_id"].str[:2],
            "end_town": table["end_station_id"].str[:2],
        }
    )
    assert len(trips) == 115_558
    return trips


@needs_real
def test_september_2024_is_that_of_pandas(september):
    """The five busiest stations and External, at a quarter to nine of every day, and every dropped row."""
    population = read_citibike(REAL / "JC-202409-citibike-tripdata.csv.zip", Places(stations=5, in_transit=False))
    known = september.dropna(subset=["destination"])
    known = known[(known["end"] >= known["start"]) & (known["end"] - known["start"] <= pd.Timedelta(days=1))]
    chosen = population.states[:5]
    use = pd.concat([known["origin"], known["destination"]]).value_counts()
    assert list(chosen) == use.index[:5].tolist()
    trips = reconciles(population)
    assert trips["read"] == 115_558
    assert trips["dropped"]["no end place"] == 250
    touching = known[known["origin"].isin(chosen) | known["destination"].isin(chosen)]
    assert trips["dropped"]["between two places that are no state"] == len(known) - len(touching)
    assert trips["kept"] == sum(sum(row) for row in population.provenance["flows"]["trips"])
    assert population.trajectories == tuple(f"2024-09-{day:02d}" for day in range(1, 31))
    for r in (2, 13, 29):
        for x, state in enumerate(chosen):
            change = population.counts[r, 11, x] - population.counts[r, 0, x]
            assert change == counted(touching, [state], population.trajectories[r], 8, 45)[0]
    np.testing.assert_array_equal(population.counts.sum(axis=2), population.provenance["stock"]["fleet"])


@needs_real
def test_the_two_towns_are_nearly_closed(september):
    """Flows between the towns as shared/data tells them: HB to HB 47,369, JC to JC 51,687, HB to JC 7,895, JC to HB 8,006."""
    ids = {}
    for name, key in (("origin", "town"), ("destination", "end_town")):
        ids |= september.dropna(subset=[name, key]).drop_duplicates(name).set_index(name)[key].to_dict()
    towns = {place: town for place, town in ids.items() if town in ("JC", "HB")}
    population = read_citibike(
        REAL / "JC-202409-citibike-tripdata.csv.zip",
        Places(zones=towns, external=False),
        days=Days(opens="00:00", closes="24:00", first="2024-08-31"),
    )
    order = [population.states.index(town) for town in ("HB", "JC")]
    flows = np.array(population.provenance["flows"]["trips"])[np.ix_(order, order)]
    independent = pd.crosstab(september["origin"].map(towns), september["destination"].map(towns))
    np.testing.assert_array_equal(flows, independent.to_numpy())
    # Those of the README, which counts by the ids of the ends: thirty rows have a name and no id.
    np.testing.assert_allclose(flows, [[47_369, 7_895], [8_006, 51_687]], atol=30)


@needs_real
def test_schemas_of_2019_and_2024_join():
    population = read_citibike(
        [REAL / "JC-201901-citibike-tripdata.csv.gz", REAL / "JC-202409-citibike-tripdata.csv.zip"],
        Places(stations=["Grove St PATH"]),
    )
    trips = reconciles(population)
    assert trips["read"] == 19_676 + 115_558
    months = pd.date_range("2019-01-01", "2019-01-31").append(pd.date_range("2024-09-01", "2024-09-30"))
    assert population.trajectories == tuple(str(day.date()) for day in months)
    assert population.n_trajectories == 31 + 30
    assert population.provenance["days_without_trips"] == []
    assert len(population.provenance["repairs"]["names_with_several_ids"]["Grove St PATH"]) == 2


@needs_real
def test_the_month_that_a_spreadsheet_ruined_is_refused():
    with pytest.raises(
        DataError, match=r"mangled-JC-202001-head\.csv, column 'starttime': '04:50\.2'; expected a date with a local time"
    ):
        read_citibike(REAL / "mangled-JC-202001-head.csv", Places(stations=5))


def test_the_columns_of_the_made_up_files_are_the_published_ones():
    assert NEWER[2:4] == ["started_at", "ended_at"]
    if REAL.exists():
        with zipfile.ZipFile(REAL / "JC-202409-citibike-tripdata.csv.zip") as archive:
            header = archive.open("JC-202409-citibike-tripdata.csv").readline().decode()
        assert sorted(header.strip().replace('"', "").split(",")) == sorted(NEWER)
