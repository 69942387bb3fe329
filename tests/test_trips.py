"""Trips to populations: every bike is somewhere at every time, every row is accounted for."""

import dataclasses
import itertools
import json
import re
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trip_files import STATIONS, counted, gzipped, made_up, text, write, zipped

from bayes_mfg.data import Days, Places, days_of, read_trips, trips
from bayes_mfg.data.days import clock_change, to_date
from bayes_mfg.data.places import k_means, kilometres
from bayes_mfg.data.stocks import book, spread
from bayes_mfg.errors import DataError

NAMES = {"start_time": "start", "end_time": "end", "start_place": "origin", "end_place": "destination"}
ALL = Places(stations=list(STATIONS))


def read(trips, places=ALL, **options):
    return read_trips(trips, places, **NAMES, **options)


def trip(start, end, origin="A", destination="B"):
    return {"start": pd.Timestamp(start), "end": pd.Timestamp(end), "origin": origin, "destination": destination}


def table(*trips):
    return pd.DataFrame(list(trips))


def reconciles(population):
    trips = population.provenance["trips"]
    assert trips["read"] == trips["kept"] + sum(trips["dropped"].values()) == sum(population.provenance["files"].values())
    json.dumps(population.provenance)
    return trips


def test_stocks_are_the_trips_counted_by_hand():
    """A has one bike at six, which is gone from 6:20 to 9:00; B lends one out that was not there before 8."""
    population = read(
        table(
            trip("2024-09-03 06:20", "2024-09-03 06:50", "A", "B"),
            trip("2024-09-03 08:00", "2024-09-03 09:00", "B", "A"),
        ),
        Places(stations=["A", "B"]),
        days=Days(minutes=60, closes="10:00"),
    )
    assert population.states == ("A", "B", "In transit")
    assert population.provenance["external"] is False  # every place is a state
    np.testing.assert_array_equal(population.counts[0], [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(population.times, [0, 1, 2, 3, 4])
    assert population.time_unit == "hour"
    assert population.trajectories == ("2024-09-03",)


def test_an_event_belongs_to_the_step_in_which_it_happens():
    """At six and at the end of a step: half-open intervals, so that pandas' floor counts the same."""
    population = read(
        table(
            trip("2024-09-03 06:00:00", "2024-09-03 06:14:59.999", "A", "B"),
            trip("2024-09-03 06:15:00", "2024-09-03 21:59:59.999", "B", "A"),
            trip("2024-09-03 05:59:59.999", "2024-09-03 22:00:00", "A", "B"),
        ),
        Places(stations=["A", "B"]),
    )
    counts = population.counts[0]
    assert counts[0].tolist() == [1, 0, 1]  # the bike of the third row is under way from six to ten
    assert counts[1].tolist() == [0, 1, 1]
    assert counts[2].tolist() == [0, 0, 2]
    assert counts[-1].tolist() == [1, 0, 1]
    assert reconciles(population)["kept"] == 3


def test_a_trip_under_way_all_day_is_kept():
    population = read(table(trip("2024-09-03 05:00", "2024-09-03 22:30")), Places(stations=["A", "B"]))
    assert reconciles(population) == {"read": 1, "kept": 1, "dropped": {}}
    assert (population.counts[0, :, 2] == 1).all()


def test_no_place_is_short_of_a_bike_within_a_step():
    """Two bikes leave A and are back before the step ends: they must have been there."""
    rows = [trip("2024-09-03 08:01", "2024-09-03 08:05", "A", "B"), trip("2024-09-03 08:06", "2024-09-03 08:10", "B", "A")] * 2
    population = read(table(*rows), Places(stations=["A", "B"]))
    assert (population.counts[0] == [2, 0, 0]).all()


@pytest.mark.parametrize("in_transit", [True, False])
def test_totals_are_those_of_pandas(in_transit):
    """Flows of the chosen places and bikes under way at many times, against a brute-force count."""
    trips = made_up()
    chosen = ["City Hall", "Pier & 1st"]
    population = read(trips, Places(stations=chosen, in_transit=in_transit))
    touching = trips[trips["origin"].isin(chosen) | trips["destination"].isin(chosen)]
    others = [name for name in STATIONS if name not in chosen]
    assert population.trajectories == tuple(f"2024-09-0{day}" for day in range(2, 7))
    assert population.states == (*chosen, "External", *(["In transit"] if in_transit else []))
    for r, day in enumerate(population.trajectories):
        for step in (0, 1, 13, 40, 64):
            change = population.counts[r, step] - population.counts[r, 0]
            clock = (6 + step // 4, 15 * (step % 4))
            for x, state in enumerate(chosen):
                assert change[x] == counted(touching, [state], day, *clock)[0]
            net, under_way = counted(touching, others, day, *clock)
            if in_transit:
                assert change[2] == net
                assert population.counts[r, step, 3] == under_way
            else:
                assert change[2] == net + under_way - counted(touching, others, day, 6)[1]
    assert population.provenance["external"] is True
    foreign = ~trips["origin"].isin(chosen) & ~trips["destination"].isin(chosen)
    assert reconciles(population)["dropped"]["between two places that are no state"] == foreign.sum()
    flows = pd.DataFrame(population.provenance["flows"]["trips"])
    assert flows.to_numpy().sum() == population.provenance["trips"]["kept"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 80), st.booleans(), st.booleans())
def test_mass_is_conserved_and_no_stock_is_negative_or_clipped(seed, n, external, in_transit):
    trips = made_up(n, seed)
    places = Places(stations=["Pier & 1st", "Park, North"], external=external, in_transit=in_transit or not external)
    ends = trips[["origin", "destination"]].isin(places.stations).sum(axis=1)
    kept = trips[ends >= (1 if external else 2)]
    late = kept["end"].dt.normalize() + pd.Timedelta(hours=6)
    by_day = ((moments := pd.concat([kept["start"], kept["end"]])) - moments.dt.normalize()) // pd.Timedelta(hours=1)
    if set(places.stations) - set(trips[["origin", "destination"]].to_numpy().ravel()) or not (
        by_day.between(6, 21).any() or ((kept["start"] < late) & (late <= kept["end"])).any()
    ):
        with pytest.raises(DataError, match=r"None of the|is not in the trips"):
            read(trips, places)
        return
    population = read(trips, places)
    fleet = population.provenance["stock"]["fleet"]
    assert (population.counts >= 0).all()
    np.testing.assert_array_equal(population.counts.sum(axis=2), fleet)
    assert population.fully_observed
    assert max(day["fleet_needed"] for day in population.provenance["days"].values()) == fleet
    reconciles(population)


@pytest.mark.parametrize(("kind", "extra"), [("all", 0), ("weekday", 0), ("weekday", 37)])
def test_stocks_are_those_of_a_count_by_minutes(kind, extra):
    """Whole counts, opening stocks included, with trips of several days and over midnight: minute by minute in pandas."""
    trips = made_up(600, first="2024-09-05", days=5)  # Thursday to Monday
    trips.loc[::7, "end"] += pd.Timedelta(hours=40)
    trips.loc[::5, "end"] += pd.Timedelta(hours=9)
    chosen = list(STATIONS)[:3]
    own = trips[trips["origin"].isin(chosen) | trips["destination"].isin(chosen)]
    days = Days(kind=kind, last="2024-09-09", longest=60)
    smallest = read(trips, Places(stations=chosen), days=days)
    fleet = int(smallest.totals[0, 0]) + extra
    population = read(trips, Places(stations=chosen), days=days, fleet=fleet)
    dates = [day for day in pd.date_range("2024-09-05", "2024-09-09") if kind == "all" or day.day_of_week < 5]
    assert population.trajectories == tuple(str(day.date()) for day in dates)
    groups = [[name] for name in chosen] + [[name for name in STATIONS if name not in chosen]]
    opening, paths = [], []
    for day in dates:
        minutes = day + pd.to_timedelta(np.arange(6 * 60, 22 * 60 + 1), "min")

        def happened(column, mine, minutes=minutes):
            moments = np.sort(mine[column].to_numpy("datetime64[ns]"))
            until = np.searchsorted(moments, minutes.to_numpy("datetime64[ns]"), "left")
            return until - until[0]

        net = [
            happened("end", own[own["destination"].isin(group)]) - happened("start", own[own["origin"].isin(group)])
            for group in groups
        ]
        riding = [int(((own["start"] < moment) & (own["end"] >= moment)).sum()) for moment in minutes[::15]]
        opening.append([max(0, -int(path.min())) for path in net])
        paths.append((net, riding))
    needed = [sum(stock) + path[1][0] for stock, path in zip(opening, paths, strict=True)]
    assert [day["fleet_needed"] for day in population.provenance["days"].values()] == needed
    assert fleet == max(needed) + extra
    weights = np.mean(opening, axis=0)
    for r, (stock, (net, riding)) in enumerate(zip(opening, paths, strict=True)):
        spare = (fleet - needed[r]) * weights / weights.sum()
        assert (abs(population.counts[r, 0, :4] - stock - spare) < 1).all()
        given = population.counts[r, 0, :4] - stock
        assert given.sum() == fleet - needed[r]
        for x, path in enumerate(net):
            np.testing.assert_array_equal(population.counts[r, :, x], stock[x] + given[x] + path[::15])
        np.testing.assert_array_equal(population.counts[r, :, 4], riding)


def test_dates_without_times_are_refused():
    """A spreadsheet dropped the clocks: every trip would begin at midnight."""
    trips = made_up()
    for column in ("start", "end"):
        dates = {column: trips[column].dt.strftime("%Y-%m-%d")}
        for one in (trips.assign(**dates), trips.assign(**{column: trips[column].dt.normalize()})):
            with pytest.raises(DataError, match=rf"column '{column}': all 400 times are midnight; expected times of day"):
                read(one)


def test_a_frame_is_refused_in_words():
    trips = made_up(5)
    far = trips.astype({"end": "datetime64[s]"})
    far.loc[2, "end"] = pd.Timestamp("9999-12-31").as_unit("s")
    with pytest.raises(DataError, match=r"column 'end': .*; expected dates from 1970 to 2105"):
        read(far)
    with pytest.raises(DataError, match="column 'end' occurs 2 times"):
        read(pd.concat([trips, trips[["end"]]], axis=1))
    with pytest.raises(DataError, match="column '0' occurs 0 times as text"):
        read_trips(trips.set_axis([0, 1, 2, 3], axis=1), ALL, "0", "1", "2", "3")
    mixed = trips.astype({"start": str}).astype({"start": object})
    mixed["start"] = ["2024-09-02 08:00", "2024-09-02 09:00:01.5", "2024-09-02 10:00", "9/2/2024 11:00", "2024-09-02 12:00"]
    with pytest.raises(DataError, match=r"column 'start': '9/2/2024 11:00'; expected a date with a local time"):
        read(mixed)
    with pytest.raises(DataError, match=r"'9/2/2024 11:00'; expected .*, all in one format, as in '2024-09-02 08:00'"):
        read(mixed, time_formats=["%m/%d/%Y %H:%M"])


def test_a_full_disk_is_told(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bayes_mfg.data.triplog.tempfile.TemporaryFile", full)
    with pytest.raises(DataError, match=r"does not take the trips \(No space left on device\).* TMPDIR"):
        read(made_up())


def test_days_that_open_alike_know_nothing_of_their_hours():
    """What a day takes later on does not move its first row, and differences in time are those of days that open with their own."""
    trips = made_up(2000)
    own, common = (read(trips, days=Days(minutes=30, opening=opening)) for opening in ("own", "common"))
    assert common.provenance["stock"]["opening"] == "common"
    reconciles(common)
    np.testing.assert_array_equal(np.diff(common.counts, axis=1), np.diff(own.counts, axis=1))
    assert (common.counts >= 0).all()
    first = common.counts[:, 0, :-1]
    under_way = common.counts[:, 0, -1]
    # Fewer under way is more that stands somewhere.
    for day in range(1, len(first)):
        assert abs(first[day] - first[0]).sum() == abs(int(under_way[day]) - int(under_way[0]))
    # No smaller common opening would do: every place is without a bike on some day, but for the spare ones.
    spare = first.sum(axis=1) - min(first.sum(axis=1))
    assert (common.counts[:, :, :-1].min(axis=(0, 1)) <= spare.max() + 2).all()
    with pytest.raises(DataError, match="opening is 'alike'; expected one of own, common"):
        Days(opening="alike")


def test_the_fleet_is_the_smallest_or_the_one_given():
    trips = made_up()
    smallest = read(trips)
    stock = smallest.provenance["stock"]
    needed = [day["fleet_needed"] for day in smallest.provenance["days"].values()]
    assert stock["fleet"] == max(needed)
    # On the day that needs the whole fleet every place is without a bike at some minute, or was never left by more than came.
    day = needed.index(max(needed))
    assert (smallest.counts[day].min(axis=0) <= 2).all()
    more = read(trips, fleet=stock["fleet"] + 10)
    assert set(more.totals.ravel()) == {stock["fleet"] + 10}
    np.testing.assert_array_equal(np.diff(more.counts, axis=1), np.diff(smallest.counts, axis=1))
    with pytest.raises(DataError, match=rf"fleet is {stock['fleet'] - 1}; 2024-09-0\d cannot have happened with fewer than"):
        read(trips, fleet=stock["fleet"] - 1)


def test_bikes_that_a_day_does_not_need_stand_where_they_are_needed_on_average():
    assert spread(10, np.array([3.0, 1.0, 0.0])).tolist() == [8, 2, 0]
    assert spread(1, np.array([1.0, 1.0, 1.0])).tolist() == [1, 0, 0]
    assert spread(2, np.array([1.0, 1.0, 8.0])).tolist() == [0, 0, 2]
    assert spread(0, np.array([1.0, 2.0])).tolist() == [0, 0]


def test_bikes_to_spare_are_spread_over_the_places_that_exist():
    rows = [*[trip("2024-09-03 08:00", "2024-09-03 09:00", "A", "B")] * 3, trip("2024-09-03 08:00", "2024-09-03 09:00", "B", "A")]
    population = read(table(*rows), Places(stations=["A", "B"]), fleet=8)
    assert population.counts[0, 0].tolist() == [6, 2, 0]
    unneeded = read(table(trip("2024-09-03 05:00", "2024-09-03 07:00")), Places(stations=["A", "B"], external=False), fleet=4)
    assert unneeded.counts[0, 0].tolist() == [2, 1, 1]


def test_bikes_moved_without_a_trip_are_told():
    """One bike goes from A to B on each of two days: somebody brought it back."""
    population = read(
        table(
            trip("2024-09-03 08:00", "2024-09-03 08:30", "A", "B"),
            trip("2024-09-04 08:00", "2024-09-04 08:30", "A", "B"),
        ),
        Places(stations=["A", "B"]),
    )
    stock = population.provenance["stock"]
    assert stock["moved_without_a_trip_overnight"] == {"nights": 1, "mean": 1.0, "largest": 1, "by_morning": {"2024-09-04": 1}}
    assert stock["net_flow"] == {"A": -2, "B": 2}
    night = table(
        trip("2024-09-03 08:00", "2024-09-03 08:30", "A", "B"),
        trip("2024-09-03 23:00", "2024-09-03 23:30", "B", "A"),
        trip("2024-09-04 08:00", "2024-09-04 08:30", "A", "B"),
    )
    quiet = read(night, Places(stations=["A", "B"]))
    assert quiet.provenance["stock"]["moved_without_a_trip_overnight"]["largest"] == 0
    assert quiet.provenance["trips"]["dropped"] == {"outside the hours": 1}


def test_every_row_is_kept_or_dropped_for_one_reason():
    good = trip("2024-09-03 08:00", "2024-09-03 08:30")
    rows = [
        good,
        {**good, "start": pd.NaT},
        {**good, "end": pd.NaT},
        {**good, "origin": None},
        {**good, "destination": "  "},
        {**good, "destination": None, "end": pd.NaT},
        trip("2024-09-03 08:00", "2024-09-03 07:30"),
        trip("2024-09-03 08:00", "2024-09-04 08:01"),
        trip("2024-09-03 08:00", "2024-09-04 08:00"),
        trip("2024-09-03 03:00", "2024-09-03 04:00"),
        trip("2024-08-31 08:00", "2024-08-31 09:00"),
        trip("2024-09-07 08:00", "2024-09-07 09:00"),
        trip("2024-09-03 08:00", "2024-09-03 09:00", "A", "C"),
        trip("2024-09-03 08:00", "2024-09-03 09:00", "C", "C"),
    ]
    population = read(
        pd.DataFrame(rows),
        Places(stations=["A", "B"], external=False),
        days=Days(first="2024-09-01", last="2024-09-07", kind="weekday"),
    )
    assert reconciles(population) == {
        "read": 14,
        "kept": 2,
        "dropped": {
            "no start time": 1,
            "no start place": 1,
            "no end time": 2,
            "no end place": 1,
            "ends before it starts": 1,
            "longer than 24 hours": 1,
            "from or to a place that is no state": 1,
            "between two places that are no state": 1,
            "outside the dates": 1,
            "on a day that was not chosen": 1,
            "outside the hours": 1,
        },
    }
    assert population.trajectories == ("2024-09-03", "2024-09-04")


def test_counts_that_do_not_add_up_are_no_population(monkeypatch):
    """Should a trip ever be lost between reading and booking, there is no result."""
    monkeypatch.setattr(trips, "book", lambda *given: _one_lost(book(*given)))
    with pytest.raises(RuntimeError, match=r"2 trips were read, 1 kept and .* dropped: they do not reconcile"):
        read(
            table(trip("2024-09-03 07:00", "2024-09-03 07:10"), trip("2024-09-03 08:00", "2024-09-03 08:10")),
            Places(stations=["A", "B"]),
        )


def _one_lost(flows):
    return dataclasses.replace(flows, kept=flows.kept - 1)


def test_days_without_trips_are_told_and_are_no_trajectories():
    rows = table(
        trip("2024-09-02 08:00", "2024-09-02 08:30"),
        trip("2024-09-05 08:00", "2024-09-05 08:30"),
        trip("2024-09-04 02:00", "2024-09-04 03:00"),
    )
    population = read(rows, Places(stations=["A", "B"]))
    assert population.trajectories == ("2024-09-02", "2024-09-05")
    assert population.provenance["days_without_trips"] == ["2024-09-03", "2024-09-04"]


def test_days_know_what_they_are():
    population = read(made_up(days=7), days=Days(holidays=["2024-09-02"]))
    assert population.provenance["days"]["2024-09-02"]["weekday"] == "Monday"
    assert days_of(population, "weekend") == ("2024-09-02", "2024-09-07", "2024-09-08")
    weekdays = population.select(days_of(population, "weekday"))
    assert weekdays.trajectories == tuple(f"2024-09-0{day}" for day in range(3, 7))
    only = read(made_up(days=7), days=Days(kind="weekend"))
    assert only.trajectories == ("2024-09-07", "2024-09-08")
    with pytest.raises(DataError, match="kind is 'monday'"):
        days_of(population, "monday")


def test_on_the_night_when_clocks_go_back_a_trip_may_end_before_it_starts():
    rows = table(
        trip("2024-11-03 01:50", "2024-11-03 01:10"),  # twenty minutes
        trip("2024-11-03 01:50", "2024-11-03 00:40"),  # impossible
        trip("2024-11-04 01:50", "2024-11-04 01:10"),  # another night
        trip("2024-11-03 15:00", "2024-11-03 14:30"),  # the same day, another hour
        trip("2024-11-03 02:10", "2024-11-03 01:50"),  # after the hour that came twice
        trip("2024-11-03 01:10", "2024-11-03 00:50"),  # before it
        trip("2024-11-03 12:00", "2024-11-03 12:30"),
    )
    zoned = Days(opens="00:00", closes="24:00", time_zone="America/New_York", last="2024-11-03")
    population = read(rows, Places(stations=["A", "B"]), days=zoned)
    assert population.provenance["repairs"] == {
        "ended before it started because clocks went back: end booked at the start (rows)": 1
    }
    assert reconciles(population)["dropped"] == {"ends before it starts": 5}
    assert population.provenance["clock_changes"] == ["2024-11-03"]
    assert population.counts[0, -1].tolist() == [0, 2, 0]
    plain = read(rows, Places(stations=["A", "B"]))
    assert plain.provenance["trips"]["dropped"]["ends before it starts"] == 6


@pytest.mark.parametrize(("day", "change"), [("2024-03-10", 3600), ("2024-11-03", -3600), ("2024-07-01", 0)])
def test_clock_changes(day, change):
    assert clock_change(to_date(day), "America/New_York") == change


def test_times_of_utc_become_local():
    rows = table(
        trip("2014-07-02 03:00", "2014-07-02 03:30"),  # 20:00 of 1 July in California
        trip("2014-01-02 15:00", "2014-01-02 15:30"),  # 7:00
        trip("2014-11-02 08:50", "2014-11-02 09:10"),  # 1:50 to 1:10 as clocks go back
    )
    days = Days(time_zone="America/Los_Angeles", opens="00:00", closes="24:00")
    population = read(rows, Places(stations=["A", "B"]), utc=True, days=days)
    assert population.trajectories == ("2014-01-02", "2014-07-01", "2014-11-02")
    np.testing.assert_array_equal(np.flatnonzero(np.diff(population.counts[:, :, 2], axis=1)[0]), [28, 30])
    assert sum(population.provenance["repairs"].values()) == 1
    assert [hour for hour, n in enumerate(population.provenance["starts_by_hour"]) if n] == [1, 7, 20]
    with pytest.raises(DataError, match="utc is true; expected days with a time_zone"):
        read(rows, Places(stations=["A", "B"]), utc=True)


def test_times_that_say_that_they_are_utc_become_local(tmp_path):
    """With a zone in the type or in the text, whatever the file, and whatever the zone: moments are moments."""
    rows = table(
        trip("2014-07-02 03:00", "2014-07-02 03:30"), trip("2014-07-02 15:00", "2014-07-02 15:30"), trip("2014-07-02 16:00", None)
    )
    days = Days(time_zone="America/Los_Angeles", opens="00:00", closes="24:00")
    options = {"places": Places(stations=["A", "B"]), "utc": True, "days": days}
    plain = read(rows, **options)
    moments = rows.assign(start=rows["start"].dt.tz_localize("UTC"), end=rows["end"].dt.tz_localize("UTC"))
    abroad = rows.assign(start=moments["start"].dt.tz_convert("Europe/Paris"), end=moments["end"].dt.tz_convert("Asia/Kolkata"))
    text_z = rows.assign(
        start=rows["start"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"), end=rows["end"].dt.strftime("%Y-%m-%d %H:%M:%S+00:00")
    )
    half = text_z.assign(end=rows["end"].dt.strftime("%Y-%m-%d %H:%M"))
    late = text_z.iloc[[2, 0, 1]]  # the first line has no end
    moments.to_parquet(tmp_path / "utc.parquet")
    for name, frame in (("z", text_z), ("half", half), ("late", late)):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    packed = write(tmp_path, "z.zip", zipped({"z.csv": text_z.to_csv(index=False)}))
    files = [tmp_path / "utc.parquet", tmp_path / "z.csv", tmp_path / "half.csv", tmp_path / "late.csv", packed]
    for path in (moments, abroad, text_z, half, late, *files):
        again = read(path, **options)
        np.testing.assert_array_equal(again.counts, plain.counts)
        assert again.provenance["starts"] == plain.provenance["starts"] == ["2014-07-01 20:00:00", "2014-07-02 08:00:00"]
    with pytest.raises(DataError, match=r"carries the time zone UTC; expected local times without a zone, .* \(or utc=True"):
        read(tmp_path / "utc.parquet", Places(stations=["A", "B"]))
    mixed = text_z.assign(start=["2014-07-02T03:00:00Z", "2014-07-02 15:00", None])
    mixed.to_csv(tmp_path / "mixed.csv", index=False)
    for path in (mixed, tmp_path / "mixed.csv"):
        with pytest.raises(DataError, match="column 'start': '2014-07-02 15:00'; expected a date with a time of UTC, such as"):
            read(path, **options)


def test_days_that_the_records_cut_are_told():
    """September in UTC, in New York: its first day begins at eight in the evening of 31 August, its last one ends there."""
    start = pd.date_range("2024-09-01", "2024-09-30 23:50", freq="10min")
    rows = pd.DataFrame({"start": start, "end": start + pd.Timedelta(minutes=5), "origin": "A", "destination": "B"})
    days = Days(time_zone="America/New_York")
    provenance = read(rows, Places(stations=["A", "B"]), utc=True, days=days).provenance
    assert provenance["starts"] == ["2024-08-31 20:00:00", "2024-09-30 19:50:00"]
    assert provenance["days_that_may_be_cut"] == ["2024-08-31", "2024-09-30"]
    whole = read(rows, Places(stations=["A", "B"])).provenance
    assert whole["days_that_may_be_cut"] == []
    assert whole["starts"] == ["2024-09-01 00:00:00", "2024-09-30 23:50:00"]


ZONES = {"Pier & 1st": "south", "Park, North": "south", "City Hall": "north", "Terminal": "north"}


def test_zones_are_sums_of_their_stations():
    trips = made_up()
    zones = read(trips, Places(zones=ZONES))
    assert zones.states == ("south", "north", "External", "In transit")
    renamed = trips.assign(**{end: trips[end].map({**ZONES, "4th Ave": "far"}) for end in ("origin", "destination")})
    by_column = read(renamed, Places(stations=["south", "north"]))
    np.testing.assert_array_equal(zones.counts, by_column.counts)
    assert zones.provenance["flows"] == by_column.provenance["flows"]
    assert sorted(zones.provenance["places"]["south"]["stations"]) == ["Park, North", "Pier & 1st"]


COORDINATES = {f"{end}_{axis}": f"{end}_{axis}" for end in ("start", "end") for axis in ("latitude", "longitude")}


def located(trips, stations=STATIONS):
    where = {
        f"{side}_{axis}": trips[place].map({name: values[column] for name, values in stations.items()})
        for side, place in (("start", "origin"), ("end", "destination"))
        for axis, column in (("latitude", 1), ("longitude", 2))
    }
    return trips.assign(**where)


def test_zones_by_clustering_find_the_towns():
    population = read(located(made_up()), Places(zones=3), **COORDINATES)
    together = {tuple(sorted(place["stations"])) for place in population.provenance["places"].values()}
    assert together == {("Park, North", "Pier & 1st"), ("City Hall", "Terminal"), ("4th Ave",)}
    assert population.states == (*population.provenance["places"], "In transit")
    assert all(name in place["stations"][0] for name, place in population.provenance["places"].items())
    place = population.provenance["places"]["4th Ave"]
    assert (place["latitude"], place["longitude"]) == (40.77, -73.96)


@pytest.mark.parametrize("seed", range(12))
def test_k_means_finds_the_best_of_all_groupings(seed):
    """Against every partition of eight points into two, with weights that differ a hundredfold."""
    random = np.random.default_rng(seed)
    points, weights = random.normal(size=(8, 2)), 10 ** random.uniform(0, 2, 8)

    def cost(labels):
        found = 0.0
        for label in range(2):
            mine = labels == label
            if mine.any():
                centre = np.average(points[mine], axis=0, weights=weights[mine])
                found += (weights[mine] * ((points[mine] - centre) ** 2).sum(axis=1)).sum()
        return found

    best = min(cost(np.array(labels)) for labels in itertools.product(range(2), repeat=8))
    assert cost(k_means(points, weights, 2, 0)) == pytest.approx(best)
    np.testing.assert_array_equal(k_means(points, weights, 2, 5), k_means(points, weights, 2, 5))


def test_kilometres_are_those_of_the_globe():
    plane = kilometres(np.array([[37.7749, -122.4194], [37.3382, -121.8863]]))
    assert np.hypot(*(plane[0] - plane[1])) == pytest.approx(67.6, abs=0.5)  # San Francisco to San Jose


def test_a_table_of_stations_has_coordinates_and_zones(tmp_path):
    lines = [["name", "latitude", "longitude", "town"]]
    lines += [
        [name, lat, lng, {"J": "Jersey City", "H": "Hoboken", "5": ""}[key[0]]] for name, (key, lat, lng) in STATIONS.items()
    ]
    stations = write(tmp_path, "stations.csv", text(lines))
    population = read(made_up(), Places(zones="town"), station_table=stations)
    assert sorted(population.states[:2]) == ["Hoboken", "Jersey City"]
    assert population.provenance["places_without_zone"] == ["4th Ave"]
    np.testing.assert_array_equal(
        population.in_order_of(sorted(population.states)).counts,
        read(
            made_up(),
            Places(
                zones={
                    name: {"J": "Jersey City", "H": "Hoboken"}[key[0]] for name, (key, *_) in STATIONS.items() if key[0] != "5"
                }
            ),
        )
        .in_order_of(sorted(population.states))
        .counts,
    )
    assert read(made_up(), Places(zones=2), station_table=stations).n_states == 3
    short = write(tmp_path, "short.csv", text(lines[:-1]))
    repairs = read(made_up(), Places(zones="town"), station_table=short).provenance["repairs"]
    assert repairs == {"places_not_in_the_table_of_stations": ["4th Ave"]}
    other = write(tmp_path, "other.csv", text([lines[0], ["Elsewhere", 1, 2, "x"]]))
    with pytest.raises(
        DataError, match=r"5 of the 5 places of the trips, such as .* are not in the table; expected a table of the same city"
    ):
        read(made_up(), Places(stations=2), station_table=other)
    with pytest.raises(
        DataError, match=re.escape("zones is 'twon', which is no column of the table of stations (did you mean 'town'?)")
    ):
        read(made_up(), Places(zones="twon"), station_table=stations)


def test_a_column_of_zones(tmp_path):
    """Whatever its capitals, as headers have them; refused where it is empty everywhere."""
    lines = [["Name", "Town", "Empty"], *([name, key[0], ""] for name, (key, *_) in STATIONS.items())]
    stations = write(tmp_path, "stations.csv", text(lines))
    assert set(read(made_up(), Places(zones="Town"), station_table=stations).states) == {"J", "H", "5", "In transit"}
    with pytest.raises(DataError, match=r"the column 'empty' of the table of stations is empty for all 5 places"):
        read(made_up(), Places(zones="Empty"), station_table=stations)


def test_the_most_used_stations_are_chosen_and_named():
    trips = made_up()
    use = pd.concat([trips["origin"], trips["destination"]]).value_counts()
    population = read(trips, Places(stations=3))
    assert sorted(population.states[:3]) == sorted(use.index[:3])
    assert population.provenance["places"][use.index[0]]["starts_and_ends"] == use.iloc[0]


CSV = {"start_time": "from", "start_place": "a", "end_time": "to", "end_place": "b"}
LINES = [
    ["id", "from", "a", "to", "b"],
    ["x", "2024-09-03T08:00:00", "A", "2024-09-03 08:20", "B"],
    ["y", "2024-09-03 09:00", " A ", "2024-09-03 09:20", "B"],
]


def test_every_wrapping_reads_the_same(tmp_path):
    content = text(LINES)
    places = Places(stations=["A", "B"])
    plain = read_trips(write(tmp_path, "plain.csv", content), places, **CSV)
    assert plain.counts[0, -1].tolist() == [0, 2, 0]
    assert plain.provenance["repairs"] == {"names of places with blanks to spare (spellings, not rows)": 1}
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder, "one.csv", text(LINES[:2]))
    write(folder, "two.csv.gz", gzipped(text([LINES[0], LINES[2]])))
    frame = pd.DataFrame(LINES[1:], columns=LINES[0])
    typed = frame.assign(**{name: pd.to_datetime(frame[name], format="ISO8601") for name in ("from", "to")})
    parquet = tmp_path / "trips.parquet"
    typed.to_parquet(parquet)
    inner = zipped({"202409-trips.csv": content, "__MACOSX/._202409-trips.csv": b"\0\1"})
    for path in (
        write(tmp_path, "windows.csv", "\ufeff" + content.replace("\n", "\r\n")),
        write(tmp_path, "packed", gzipped(content)),
        write(tmp_path, "archive", inner),
        write(tmp_path, "nested.zip", zipped({"2024/202409.zip": inner, "readme.txt": "x"})),
        folder,
        [folder / "one.csv", str(folder / "two.csv.gz")],
        parquet,
        frame,
        typed,
    ):
        again = read_trips(path, places, **CSV)
        np.testing.assert_array_equal(again.counts, plain.counts)
        assert reconciles(again)["read"] == 2


def test_the_same_table_is_not_read_twice(tmp_path):
    """Packed and unpacked, downloaded twice, by two ways to one file, or twice in an archive."""
    content, places = text(LINES), Places(stations=["A", "B"])

    def refused(path, expected):
        with pytest.raises(DataError, match=expected) as caught:
            read_trips(path, places, **CSV)
        assert "\n" not in str(caught.value)

    for number, again in enumerate(["trips.csv.zip", "trips (1).csv", "trips.csv (1).zip", "trips.csv.gz", "TRIPS.zip"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, "trips.csv", content)
        write(folder, again, zipped({"x.csv": content}) if again.endswith("zip") else content)
        refused(folder, "is called the same")
    refused([tmp_path / "0" / "trips.csv", tmp_path / "1" / ".." / "0" / "trips.csv"], "the file is named 2 times")
    write(tmp_path, "september.zip", zipped({"2024/trips.csv": content}))
    refused(
        [tmp_path / "september.zip", tmp_path / "0" / "trips.csv"],
        r"0/trips\.csv: .*september\.zip \(2024/trips\.csv\) is called the same",
    )
    refused(write(tmp_path, "both.zip", zipped({"a/trips.csv": content, "b/trips.csv": content})), "is called the same")
    with zipfile.ZipFile(tmp_path / "repeated.zip", "w") as archive:
        archive.writestr("trips.csv", content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("trips.csv", content)
    refused(tmp_path / "repeated.zip", "is called the same")


def rides(first, last):
    """One ride from A to B every seven minutes, by their numbers."""
    start = pd.Timestamp("2024-09-03 08:00") + pd.to_timedelta(7 * np.arange(first, last), "min")
    ends = {"a": "A", "to": start + pd.Timedelta("13min"), "b": "B"}
    return pd.DataFrame({"id": np.arange(first, last), "from": start, **ends}).to_csv(index=False)


@pytest.mark.parametrize("sample", [1 << 14, 64])
@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        (
            [(0, 20), (0, 20)],
            r"all\.zip \(1/part\.csv\): 20 of 20 trips that were compared are in .*all\.zip \(0/month\.csv\), too",
        ),
        ([(0, 1000), (0, 400), (400, 1000)], r"all\.zip \(1/part\.csv\): (\d+) of \1 trips"),
        (
            [(400, 1000), (0, 400), (0, 1000)],
            r"all\.zip \(2/rest\.csv\): (\d+) of \1 trips .* are in .*all\.zip \(0/month\.csv\)",
        ),
        ([(0, 600), (400, 1000)], r"all\.zip \(1/part\.csv\): \d+ of \d+ trips"),
    ],
)
def test_the_same_trips_are_not_read_twice_under_two_names(tmp_path, monkeypatch, sample, tables, expected):
    """Equal tables, a month beside its parts, before and after them, and records that overlap; all trips compared, and a sample of them."""
    monkeypatch.setattr("bayes_mfg.data.overlap.SAMPLE", sample)
    names = ["0/month.csv", "1/part.csv", "2/rest.csv"]
    packed = {name: rides(*numbers) for name, numbers in zip(names, tables, strict=False)}
    with pytest.raises(DataError, match=expected):
        read_trips(write(tmp_path, "all.zip", zipped(packed)), Places(stations=["A", "B"]), **CSV)


@pytest.mark.parametrize("sample", [1 << 14, 64])
def test_a_table_that_was_appended_to_itself_is_refused(tmp_path, monkeypatch, sample):
    monkeypatch.setattr("bayes_mfg.data.overlap.SAMPLE", sample)
    twice = rides(0, 400) + rides(0, 400).split("\n", 1)[1]
    count = "400 of 800" if sample > 800 else r"64 of 128"
    with pytest.raises(DataError, match=f"{count} trips that were compared repeat an earlier one"):
        read_trips(write(tmp_path, "trips.csv", twice), Places(stations=["A", "B"]), **CSV)
    some = rides(0, 400) + rides(0, 15).split("\n", 1)[1]
    population = read_trips(write(tmp_path, "trips.csv", some), Places(stations=["A", "B"]), **CSV)
    assert reconciles(population)["read"] == 415
    told = "more than once in one table, with the same places and seconds: all kept (trips of a sample)"
    assert population.provenance["repairs"].get(told, 0) == 15 or sample == 64


def test_a_few_trips_of_two_tables_are_kept_and_told(tmp_path):
    """As of the hours where two months meet; tables that only meet share nothing."""
    told = "in an earlier table, too, with the same places and seconds: both kept (trips of a sample)"
    for first, repairs in ((395, {told: 5}), (400, {})):
        packed = zipped({"1.csv": rides(0, 400), "2.csv": rides(first, 1000)})
        population = read_trips(write(tmp_path, "all.zip", packed), Places(stations=["A", "B"]), **CSV)
        assert reconciles(population)["read"] == 1400 - first
        assert population.provenance["repairs"] == repairs


def test_rows_of_every_table_are_told(tmp_path):
    """Members of one name in their folders' archives, and files in folders with brackets."""
    folder = tmp_path / "months (old)"
    folder.mkdir()
    lines = {
        "x/1.csv": text(LINES),
        "x/2.csv": text(LINES[:2]).replace("09-03", "09-04"),
        "y/3.zip": zipped({"z/4.csv": text(LINES).replace("09-03", "09-05")}),
    }
    population = read_trips(write(folder, "all.zip", zipped(lines)), Places(stations=["A", "B"]), **CSV)
    assert population.provenance["files"] == {"all.zip (x/1.csv)": 2, "all.zip (x/2.csv)": 1, "all.zip (y/3.zip) (z/4.csv)": 2}
    reconciles(population)


def test_a_table_larger_than_a_block_is_read_in_pieces(tmp_path, monkeypatch):
    """Small blocks, and small pieces of the log: nothing depends on where a piece ends."""
    trips = made_up(3000)
    path = tmp_path / "trips.csv"
    trips.to_csv(path, index=False)
    whole = read(path)
    monkeypatch.setattr("bayes_mfg.data.arrow.BLOCK", 4096)
    monkeypatch.setattr("bayes_mfg.data.triplog.CHUNK", 100)
    pieces = read(path)
    np.testing.assert_array_equal(pieces.counts, whole.counts)
    assert pieces.provenance == whole.provenance


GOOD = text(LINES)
BAD_FILES = [
    ("", "the file is empty"),
    ("PKW,b\n1,2\n", "column 'from' is missing; the columns are PKW, b"),
    (text(LINES[:1]), "there is no line after the header"),
    (GOOD.replace('"from"', '"form"'), "column 'from' is missing (did you mean 'form'?); the columns are id, form, a, to, b"),
    (GOOD.replace('"id"', '"from"'), "column 'from' occurs 2 times"),
    (GOOD.replace(",", ";"), "the columns are separated by semicolons"),
    (
        GOOD.replace("2024-09-03 09:00", "04:50.2"),
        "column 'from': '04:50.2'; expected a date with a local time, such as 2024-09-01 18:31:52",
    ),
    (GOOD.replace("2024-09-03 09:20", "2024-13-03 09:20"), "column 'to': '2024-13-03 09:20'; expected a date with a local time"),
    (
        GOOD.replace("2024-09-03 09:20", "2024-09-03 09:20:00Z"),
        "column 'to': '2024-09-03 09:20:00Z'; expected a date with a local time",
    ),
    (GOOD.replace("2024-09-03 09", "1924-09-03 09"), "a trip is dated 1924-09-03; expected dates from 1970 to 2105"),
    (GOOD[:-5].rsplit(",", 2)[0], "a line has 2 cells"),
    (gzipped(GOOD)[:-12], "the packed file is damaged or cut short"),
    (gzipped(GOOD)[:30], "the packed file is damaged or cut short"),
    (zipped({"a.csv": GOOD})[:-30], "the packed file is damaged or cut short"),
    (zipped({"a.txt": GOOD}), "the archive holds a.txt; expected a CSV file"),
    (GOOD.encode().replace(b'"A"', b'"\xff\xfe"'), "expected text in UTF-8"),
    (b"\xff\xfe\x00\x01", "expected a header line of comma-separated columns"),
    (b"PAR1 and then nothing", "the Parquet file is damaged or cut short"),
]


@pytest.mark.parametrize(("content", "expected"), BAD_FILES)
def test_refuses_a_file(tmp_path, content, expected):
    path = write(tmp_path, "trips", content)
    with pytest.raises(DataError, match=re.escape(expected)) as caught:
        read_trips(path, Places(stations=["A", "B"]), **CSV)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_zip_that_is_damaged_within_is_refused(tmp_path):
    """Stored without compression and changed: only the checksum tells."""

    path = tmp_path / "trips.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", GOOD)
    path.write_bytes(path.read_bytes().replace(b"09:20", b"09:21"))
    with pytest.raises(DataError, match=re.escape("trips.zip (a.csv): the packed file is damaged or cut short (Bad CRC-32")):
        read_trips(path, Places(stations=["A", "B"]), **CSV)


@pytest.mark.parametrize(
    ("places", "options", "expected"),
    [
        (Places(stations=["Pier & 2nd"]), {}, "station 'Pier & 2nd' is not in the trips (did you mean 'Pier & 1st'?)"),
        (Places(stations=["Union Sq"]), {}, "(is it a file of another city?)"),
        (Places(stations=9), {}, "stations is 9; the trips have 5 places"),
        (Places(zones={"Union Sq": "x"}), {}, "none of the 1 places that zones names, such as 'Union Sq', is in the trips"),
        (Places(zones={"City Hall": "a", "Union Sq": "x"}), {}, "no place of zone 'x' is in the trips"),
        (Places(zones={"City Hall": "External"}), {}, "a state is called 'External'"),
        (Places(zones=2), {}, "zones is a number, and no place has coordinates"),
        (Places(zones="town"), {}, "no table was given"),
        (Places(stations=5, in_transit=False), {}, "bikes under way have no state to be in"),
        (ALL, {"days": Days(first="2025-01-01")}, "the trips are of 2024-09-02 to 2024-09-06"),
        (ALL, {"days": Days(first="2025-01-01", last="2025-01-02")}, "None of the 400 trips read is on a day from 2025-01-01"),
        (ALL, {"days": Days(first="1970-01-01")}, "take more than 512 MB; expected fewer places"),
        (ALL, {"days": {"minutes": 5}}, "days is {'minutes': 5}; expected bm.data.Days"),
        (3, {}, "places is 3; expected bm.data.Places"),
        (ALL, {"fleet": 2.5}, "fleet is 2.5"),
        (ALL, {"start_latitude": "lat"}, "column 'lat' is missing"),
    ],
)
def test_refuses_an_argument(places, options, expected):
    with pytest.raises(DataError, match=re.escape(expected)):
        read(made_up(), places, **options)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Places(), "neither stations nor zones is given"),
        (lambda: Places(stations=0), "stations is 0"),
        (lambda: Places(stations="A"), "stations is 'A'; expected a number or a list"),
        (lambda: Places(stations=["A", "A"]), "station 'A' is named 2 times"),
        (lambda: Places(zones=2.5), "zones is 2.5"),
        (lambda: Places(zones={2: "north"}), "zones has the key 2; expected names of places"),
        (lambda: Places(zones={"A": "x", " A ": "y"}), "zones has 'A' and ' A ', which are one place"),
        (lambda: Places(zones={"A": 3}), "zone 3 of place 'A' is no name"),
        (lambda: Places(stations=2, external=False, in_transit=False), "external and in_transit are both false"),
        (lambda: Days(opens="6"), "opens is '6'; expected a time of day"),
        (lambda: Days(opens="22:00"), "closes is '22:00'; expected a time after opens"),
        (lambda: Days(closes="24:01"), "closes is '24:01'"),
        (lambda: Days(minutes=7), "minutes is 7; expected a whole number that divides the 960 minutes"),
        (lambda: Days(kind="monday"), "kind is 'monday'; expected one of all, weekday, weekend"),
        (lambda: Days(first="09/01/2024"), "first is '09/01/2024'; expected a date such as 2024-09-01"),
        (lambda: Days(first="2024-09-02", last="2024-09-01"), "last is 2024-09-01; expected a date not before first"),
        (lambda: Days(holidays="2024-09-02"), "holidays is '2024-09-02'; expected a list"),
        (lambda: Days(longest=0), "longest is 0"),
        (lambda: Days(time_zone="Mars/Olympus"), "time_zone is 'Mars/Olympus'"),
    ],
)
def test_refuses_an_option(make, expected):
    with pytest.raises(DataError, match=re.escape(expected)):
        make()


def test_a_file_of_another_city_is_refused(tmp_path):
    """By its places where files are joined, by their distance where they are clustered."""
    here = write(tmp_path, "here.csv", GOOD)
    there = write(tmp_path, "there.csv", GOOD.replace('"A"', '"C"').replace('" A "', '"C"').replace('"B"', '"D"'))
    with pytest.raises(DataError, match=r"there\.csv: none of its 2 places, such as 'C', is in the files before it"):
        read_trips([here, there], Places(stations=["A", "B"]), **CSV)
    far = {**STATIONS, "4th Ave": ("x", 37.77, -122.4)}
    with pytest.raises(DataError, match=r"'4th Ave' at 37\.7700, -122\.4000 lies \d+ km from the middle of the others"):
        read(located(made_up(), far), Places(zones=2), **COORDINATES)
    with pytest.raises(DataError, match=r"'4th Ave' at 37\.7700, -122\.4000 lies \d+ km from the middle of the others"):
        read(located(made_up(), far), Places(stations=5), **COORDINATES)
    assert read(located(made_up(), far), Places(stations=list(STATIONS)[:4]), **COORDINATES).n_states == 6


def test_positions_that_are_none_are_not_averaged():
    trips = located(made_up())
    trips.loc[trips.index[::3], ["start_latitude", "start_longitude"]] = 0.0
    trips.loc[trips.index[1::3], ["end_latitude", "end_longitude"]] = np.nan
    place = read(trips, Places(stations=["City Hall"]), **COORDINATES).provenance["places"]["City Hall"]
    assert (place["latitude"], place["longitude"]) == (40.74, -74.03)
    trips.loc[0, "start_latitude"] = 400.0
    with pytest.raises(DataError, match=r"column 'start_latitude': 400; expected degrees, -90 to 90"):
        read(trips, Places(stations=["City Hall"]), **COORDINATES)


def test_without_pyarrow_the_sentence_says_what_to_install(monkeypatch, tmp_path):

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=re.escape('pip install "bayes-mfg[arrow]"')):
        read_trips(write(tmp_path, "a.csv", GOOD), Places(stations=1), **CSV)


def test_progress_is_told_on_request_only(tmp_path, capsys):
    path = write(tmp_path, "a.csv", GOOD)
    read_trips(path, Places(stations=["A", "B"]), **CSV)
    assert capsys.readouterr() == ("", "")
    read_trips(path, Places(stations=["A", "B"]), **CSV, progress=True)
    assert "read_trips" in capsys.readouterr().err
