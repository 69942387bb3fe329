"""Population: what it holds, what it refuses, and that tables and datasets give it back exactly."""

import dataclasses
import gzip
import re
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_mfg.data import Population, read_table
from bayes_mfg.errors import DataError

SHARES = [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]]
COUNTS = [[5, 3, 2], [4, 4, 2]]
SIR = ("S", "I", "R")
ONLY_I = np.array([False, True, False])


def same(a: Population, b: Population) -> bool:
    arrays = ("times", "proportions", "counts", "totals", "mask")
    names = ("states", "trajectories", "time_unit", "provenance")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays) and all(
        getattr(a, name) == getattr(b, name) for name in names
    )


def test_attributes():
    population = Population([0, 1.5], counts=[COUNTS, COUNTS], states=SIR, trajectories=("a", "b"), time_unit="day")
    assert (population.n_trajectories, population.n_times, population.n_states) == (2, 2, 3)
    assert population.counts is not None
    assert population.counts.dtype == np.int64
    assert population.totals is not None
    np.testing.assert_array_equal(population.totals, np.full((2, 2), 10))
    np.testing.assert_array_equal(population.shares[0], np.array(COUNTS) / 10)
    assert population.fully_observed
    assert population.proportions is None
    assert population.provenance == {}


def test_two_dimensions_are_one_trajectory_and_names_default_to_numbers():
    population = Population([0, 1], proportions=SHARES)
    assert population.trajectories == ("0",)
    assert population.states == ("0", "1", "2")
    assert population.totals is None
    np.testing.assert_array_equal(population.shares, [SHARES])


def test_arrays_are_read_only_copies():
    counts = np.array(COUNTS)
    population = Population([0, 1], counts=counts)
    counts[:] = 0
    assert population.counts is not None
    assert population.counts.sum() == 20
    for name in ("times", "counts", "totals", "mask"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(population, name)[...] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        population.time_unit = "day"  # type: ignore[misc]


def test_masked_cells_are_stored_as_zero_and_shown_as_nan():
    counts = np.array(COUNTS, float)
    counts[1] = [np.nan, 4, -7]
    population = Population([0, 1], counts=counts, totals=10, mask=np.array([[True] * 3, ONLY_I]))
    np.testing.assert_array_equal(population.counts, [[[5, 3, 2], [0, 4, 0]]])
    np.testing.assert_array_equal(population.shares, [[[0.5, 0.3, 0.2], [np.nan, 0.4, np.nan]]])
    assert not population.fully_observed


@pytest.mark.parametrize(
    ("mask", "observed"),
    [
        (np.array([True, False]), [[True] * 3, [False] * 3]),
        (ONLY_I, [[False, True, False]] * 2),
        (np.array([ONLY_I, ~ONLY_I]), [[False, True, False], [True, False, True]]),
    ],
    ids=["times", "states", "cells"],
)
def test_mask_broadcasts(mask, observed):
    population = Population([0, 1], counts=[COUNTS, COUNTS], totals=10, mask=mask)
    np.testing.assert_array_equal(population.mask, [observed, observed])


@pytest.mark.parametrize("totals", [10, [10, 12], [[10, 10], [12, 12]]], ids=["scalar", "trajectories", "rows"])
def test_totals_broadcast(totals):
    population = Population([0, 1], counts=[COUNTS, COUNTS], totals=totals, mask=ONLY_I)
    np.testing.assert_array_equal(population.totals, [[10, 10], [10, 10] if totals == 10 else [12, 12]])


def test_a_row_without_observations_may_have_a_total_or_none():
    mask = np.array([True, False])
    np.testing.assert_array_equal(Population([0, 1], counts=COUNTS, mask=mask).totals, [[10, 0]])
    np.testing.assert_array_equal(Population([0, 1], counts=COUNTS, totals=[10, np.nan], mask=mask).totals, [[10, 0]])
    np.testing.assert_array_equal(Population([0, 1], counts=COUNTS, totals=10, mask=mask).totals, [[10, 10]])


def test_nothing_is_rescaled():
    shares = np.array(SHARES) * (1 + 5e-7)
    np.testing.assert_array_equal(Population([0, 1], proportions=shares).proportions, [shares])


def bad(expected, /, times=(0, 1), **arguments):
    return pytest.param({"times": times, **arguments}, expected, id=expected[:60])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        bad("exactly one of the two; neither was given"),
        bad("exactly one of the two; both were given", proportions=SHARES, counts=COUNTS),
        bad("times has shape (1, 2); expected a list (T,)", times=[[0, 1]], counts=COUNTS),
        bad("times[1] is nan; expected a finite number", times=[0, np.nan], counts=COUNTS),
        bad("times[1] is 0 and follows 1; expected times that increase strictly", times=[1, 0], counts=COUNTS),
        bad("times[1] is 1 and follows 1; expected times that increase strictly", times=[1, 1], counts=COUNTS),
        bad("times[0] is 'a'; expected a number", times=["a", "b"], counts=COUNTS),
        bad("times[0] is datetime.date(2020, 1, 1); expected a number", times=np.array(["2020-01-01"], "M8[D]"), counts=COUNTS),
        bad("counts has shape (2,); expected (trajectories, times, states) or (times, states)", counts=[1, 2]),
        bad("counts has shape (1, 2, 3) (trajectories, times, states) and times has shape (3,)", times=[0, 1, 2], counts=COUNTS),
        bad("counts has shape (1, 2, 0) (trajectories, times, states); expected at least one of each", counts=np.zeros((2, 0))),
        bad("counts is no array of numbers", counts=[[1, 2], [3]]),
        bad("counts is a numpy masked array", counts=np.ma.MaskedArray(COUNTS)),
        bad("counts[1, 0] is 'X'; expected a number", counts=np.array([[1, 2], ["X", 3]], object)),
        bad("counts[0, 1] is None; expected a number", counts=np.array([[1, None], [2, 3]])),
        bad(
            "Trajectory 'b', time 1, state 'I': the count is -4; expected a whole number",
            counts=[COUNTS, [[5, 3, 2], [4, -4, 2]]],
            states=SIR,
            trajectories=("a", "b"),
        ),
        bad(
            "Trajectory '0', time 0, state 'S': the count is 5.5; expected a whole number",
            counts=[[5.5, 3, 2], [4, 4, 2]],
            states=SIR,
        ),
        bad("Trajectory '0', time 0, state '0': the count is inf; expected a whole", counts=[[np.inf, 3, 2], [4, 4, 2]]),
        bad("Trajectory '0', time 0, state '0': the count is 1e+17; expected", counts=[[1e17, 3, 2], [4, 4, 2]]),
        bad(
            "Trajectory '0', time 0, state '1': the count is NaN; expected a number, or mask False",
            counts=[[5, np.nan, 2], [4, 4, 2]],
        ),
        bad(
            "Trajectory '0', time 1, state '1': the count is 800; expected at most the total of 763",
            counts=[[0, 3], [0, 800]],
            totals=763,
            mask=np.array([[False, True]] * 2),
        ),
        bad(
            "Trajectory '0', time 1: the counts sum to 12; expected at most the total of 10",
            counts=[[0, 5, 5], [0, 6, 6]],
            totals=10,
            mask=np.array([False, True, True]),
        ),
        bad(
            "Trajectory '0', time 1: the counts sum to 10; expected the total of 11, as every state",
            counts=COUNTS,
            totals=[10, 11],
        ),
        bad(
            "Trajectory '0', time 0: only I of the states S, I, R was observed; expected totals",
            counts=COUNTS,
            mask=ONLY_I,
            states=SIR,
        ),
        bad("Trajectory '0', time 1: the counts are all 0; expected at least one individual", counts=[[1, 2, 3], [0, 0, 0]]),
        bad("Trajectory '0', time 1: the total is 0; expected a positive whole number", counts=COUNTS, totals=[10, 0]),
        bad("Trajectory '0', time 0: the total is nan; expected a positive whole number", counts=COUNTS, totals=np.nan),
        bad("Trajectory '0', time 0: the total is 10.5; expected a positive whole number", counts=COUNTS, totals=10.5),
        bad("totals has shape (3,) and the data have (1, 2) trajectories and times", counts=COUNTS, totals=[1, 2, 3]),
        bad(
            "Trajectory '0', time 1, state '2': the proportion is -0.1; expected a proportion in [0, 1]",
            proportions=[[0.5, 0.3, 0.2], [0.7, 0.4, -0.1]],
        ),
        bad(
            "Trajectory '0', time 0, state '0': the proportion is 1.5; expected a proportion in [0, 1]",
            proportions=[[1.5, 0], [0, 1]],
        ),
        bad("Trajectory '0', time 1: the proportions sum to 0.9; expected 1 within 1e-06", proportions=[[0.5, 0.5], [0.5, 0.4]]),
        bad("Trajectory '0', time 1: the proportions sum to 1.00001; expected 1", proportions=[[0.5, 0.5], [0.5, 0.50001]]),
        bad(
            "Trajectory '0', time 0: the observed proportions sum to 1.2; expected at most 1",
            proportions=[[0.6, 0.6, 0], SHARES[0]],
            mask=np.array([True, True, False]),
        ),
        bad("states holds 2 names (S, I); expected 3, as many as the data have", counts=COUNTS, states=("S", "I")),
        bad("states[2] is 'S', a name that stands there already", counts=COUNTS, states=("S", "I", "S")),
        bad("states[0] is 0; expected a name (text)", counts=COUNTS, states=(0, 1, 2)),
        bad("states is the text 'SIR'; expected a list of names", counts=COUNTS, states="SIR"),
        bad("trajectories[1] is 'a', a name that stands there already", counts=[COUNTS] * 2, trajectories=("a", "a")),
        bad("trajectories holds 2 names (a, b); expected 1, as many", counts=COUNTS, trajectories=("a", "b")),
        bad("mask has shape (4,) and the data have shape (1, 2, 3)", counts=COUNTS, mask=np.ones(4, bool)),
        bad("mask has shape (2,), which could mean times or states", counts=[[1, 2], [3, 4]], mask=np.ones(2, bool)),
        bad("mask is an array of type int64; expected True where a cell was observed", counts=COUNTS, mask=np.ones((2, 3), int)),
        bad("mask is False everywhere: nothing was observed", counts=COUNTS, mask=np.zeros((2, 3), bool)),
        bad("time_unit is 7; expected text", counts=COUNTS, time_unit=7),
        bad("provenance cannot be written as JSON", counts=COUNTS, provenance={"x": object()}),
        bad("provenance is [1]; expected a dictionary", counts=COUNTS, provenance=[1]),
    ],
)
def test_refuses(arguments, expected):
    with pytest.raises(DataError, match=re.escape(expected)) as caught:
        Population(**arguments)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=4)


@st.composite
def populations(draw, every_row_seen: bool = False) -> Population:
    size, n_times, n_states = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(2, 4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (size, n_times, n_states)
    mask = generator.random(shape) < draw(st.sampled_from([0.4, 1.0]))
    mask[0, 0, 0] = True
    if every_row_seen:
        mask[:, :, 0] = True
    counts = generator.integers(0, 10 ** draw(st.integers(1, 12)), shape)
    counts[..., 0] += 1
    kind = draw(st.sampled_from(["counts", "proportions", "proportions with totals"]))
    totals = counts.sum(axis=2)
    shares = counts / totals[..., None]
    return Population(
        np.cumsum(generator.random(n_times) + 0.01),
        **({"counts": counts} if kind == "counts" else {"proportions": shares}),
        totals=None if kind == "proportions" else totals,
        states=draw(st.lists(names, min_size=n_states, max_size=n_states, unique=True)),
        trajectories=draw(st.lists(names, min_size=size, max_size=size, unique=True)),
        mask=mask,
        time_unit=draw(names),
        provenance={"source": draw(names), "weeks": [1, 2.5, None]},
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(populations())
def test_xarray_gives_the_population_back(population):
    dataset = population.to_xarray()
    assert same(Population.from_xarray(dataset), population)
    np.testing.assert_array_equal(np.isnan(dataset["counts" if "counts" in dataset else "proportions"]), ~population.mask)
    assert same(Population.from_xarray(dataset.drop_vars("mask")), population)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(populations(every_row_seen=True))
def test_table_gives_the_population_back_in_any_order_of_its_rows(population):
    table = population.to_table().sample(frac=1, random_state=0)
    again = Population.from_table(
        table,
        states=population.states,
        trajectories=population.trajectories,
        time_unit=population.time_unit,
        provenance=population.provenance,
    )
    assert same(again, population)


def test_netcdf_gives_the_population_back(tmp_path):
    mask = np.array([True, False])
    population = Population([0, 1], counts=COUNTS, totals=10, mask=mask, states=SIR, time_unit="days", provenance={"a": [1]})
    population.to_xarray().to_netcdf(tmp_path / "population.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "population.nc", engine="h5netcdf") as dataset:
        assert same(Population.from_xarray(dataset), population)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda ds: ds.drop_vars("counts"), "The dataset has no variable 'counts' or 'proportions'; it has mask, totals"),
        (lambda ds: ds.isel(trajectory=0), "Variable 'counts' of the dataset has dimensions ('time', 'state')"),
        (lambda ds: ds.drop_vars("state"), "The dataset has no coordinate 'state'"),
        (lambda ds: ds.assign_attrs(provenance="{"), "Attribute 'provenance' of the dataset is not JSON text"),
        (lambda ds: ds.assign(proportions=ds["counts"] / 10), "both were given"),
    ],
)
def test_from_xarray_refuses(change, expected):
    with pytest.raises(DataError, match=re.escape(expected)):
        Population.from_xarray(change(Population([0, 1], counts=COUNTS).to_xarray()))


def test_what_a_table_does_not_hold_is_masked():
    table = pd.DataFrame({"time": [0, 0, 1], "state": ["S", "I", "I"], "count": [7, 3, 4], "total": [10, 10, 10]})
    population = Population.from_table(table, states=SIR, times=[0, 1, 2])
    np.testing.assert_array_equal(population.counts, [[[7, 3, 0], [0, 4, 0], [0, 0, 0]]])
    np.testing.assert_array_equal(population.mask, [[[True, True, False], [False, True, False], [False] * 3]])
    np.testing.assert_array_equal(population.totals, [[10, 10, 0]])


TIDY = {"trajectory": ["a"] * 4, "time": [0, 0, 1, 1], "state": ["S", "I"] * 2, "count": [7, 3, 6, 4], "total": [10] * 4}


@pytest.mark.parametrize(
    ("change", "arguments", "expected"),
    [
        ({"counts": [1] * 4}, {}, "Column 'counts' is not known (did you mean 'count'?)"),
        ({"time": None}, {}, "Column 'time' is missing; the columns are trajectory, state, count, total"),
        ({"count": None}, {}, "neither column 'count' and 'share'; expected exactly one"),
        ({"share": [0.7, 0.3] * 2}, {}, "both columns 'count' and 'share'"),
        ({"count": [7, "X", 6, 4]}, {}, "Row 1 of the table, column 'count': 'X'; expected a whole number of at least 0"),
        ({"count": [7, np.nan, 6, 4]}, {}, "Row 1 of the table, column 'count': nan; expected a whole number"),
        ({"count": [7, 3, -6, 4]}, {}, "Row 2 of the table, column 'count': -6; expected a whole number of at least 0"),
        ({"count": [7, 3, 6, 4.5]}, {}, "Row 3 of the table, column 'count': 4.5; expected a whole number"),
        ({"count": ["7", "1_000", "6", "4"]}, {}, "Row 1 of the table, column 'count': '1_000'"),
        ({"count": None, "share": [0.7, 1.3, 1, 0]}, {}, "Row 1 of the table, column 'share': 1.3; expected a number in [0, 1]"),
        ({"total": [10, 10, 10, 0]}, {}, "Row 3 of the table, column 'total': 0; expected a positive whole number"),
        ({"total": [10, 11, 10, 10]}, {}, "Row 1 of the table, column 'total': 11 differs from the 10"),
        ({"time": [0, 0, "04:50.2", 1]}, {}, "Row 2 of the table, column 'time': '04:50.2'; expected a finite number"),
        ({"time": pd.date_range("2020", periods=4)}, {}, "Row 0 of the table, column 'time': Timestamp("),
        ({"state": ["S", "I", "S", None]}, {}, "Row 3 of the table, column 'state'"),
        (
            {"state": ["S", "I", "S", "S"]},
            {},
            "Row 3 of the table: trajectory 'a', time 1, state 'S' stands in the table already",
        ),
        ({}, {"states": ("s", "i")}, "Row 0 of the table, column 'state': state 'S' is not known (did you mean 's'?)"),
        ({}, {"states": "SI"}, "states is the text 'SI'"),
        ({}, {"times": [0, 2]}, "Row 2 of the table, column 'time': 1 is not among the times given"),
        ({}, {"trajectories": ["b"]}, "Row 0 of the table, column 'trajectory': trajectory 'a' is not known"),
        ({"count": [7, 3, 6, 5]}, {}, "Trajectory 'a', time 1: the counts sum to 11; expected at most the total of 10"),
    ],
)
def test_from_table_refuses(change, arguments, expected):
    table = pd.DataFrame({name: values for name, values in {**TIDY, **change}.items() if values is not None})
    with pytest.raises(DataError, match=re.escape(expected)):
        Population.from_table(table, **arguments)


def test_an_empty_table_is_refused():
    with pytest.raises(DataError, match="The table has no rows"):
        Population.from_table(pd.DataFrame(TIDY).iloc[:0])


@pytest.mark.parametrize("packed", [False, True])
def test_a_csv_file_gives_the_population_back(tmp_path, packed):
    states, trajectories = ("1", "NA", 'a "b", c'), ("x, y", "é")
    population = Population(
        [0.1, 1 / 3],
        proportions=[SHARES] * 2,
        totals=[7, 9],
        states=states,
        trajectories=trajectories,
        provenance={"file": "p.csv"},
    )
    path = tmp_path / "p.csv"
    text = population.to_table().to_csv(index=False)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert same(read_table(path), population)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"time,state,count\n", "The table has no rows"),
        (b"time,state\n0,S\n", "neither column 'count' and 'share'"),
        (b"time,state,cuont\n0,S,1\n", "Column 'cuont' is not known (did you mean 'count'?)"),
        (b"time,state,count\n0,S,1\n0,I,X\n", "line 3, column 'count': 'X'; expected a whole number"),
        (b"time,state,count\n\n0,S,-1\n", "line 3, column 'count': '-1'; expected a whole number"),
        (b"time,state,count\n0,S,1\n0,I\n", "line 3: 2 cells; expected 3, as in the header (time, state, count)"),
        (b"time,state,count\n0,S,\n", "line 2, column 'count': ''; expected"),
        (b"time,state,count\n0,S,1\n0,S,2\n", "line 3: trajectory '0', time 0, state 'S' stands in the table already (line 2)"),
        (b"time,state,count,total\n0,S,1,3\n0,I,1,3\n", "the counts sum to 2; expected the total of 3"),
        (b'time,state,count\n0,"S,1\n', "line 2: unexpected end of data"),
        (b"time,state,count\n0,\xff,1\n", "byte 19 is not text in UTF-8"),
        (gzip.compress(b"time,state,count\n0,S,1\n", mtime=0)[:-9], "the packed file is damaged or cut short"),
        (b"PK\x03\x04rest", "the file is a zip archive; expected a CSV file"),
    ],
)
def test_read_table_refuses(tmp_path, content, expected):
    path = tmp_path / "counts.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(expected)) as caught:
        read_table(path)
    assert str(caught.value).startswith(str(path))


def test_read_table_names_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: there is no such file"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="the file cannot be read"):
        read_table(tmp_path)


def test_select():
    counts = np.arange(1, 2 * 4 * 3 + 1).reshape(2, 4, 3)
    population = Population([0, 1, 2, 4], counts=counts, states=SIR, trajectories=("a", "b"), time_unit="day")
    assert same(population.select(), population)
    np.testing.assert_array_equal(population.select("b").counts, counts[1:])
    np.testing.assert_array_equal(population.select(("b", "a"), times=slice(1, 3)).counts, counts[::-1, 1:3])
    bounded = population.select(times=(1, 2))
    np.testing.assert_array_equal(bounded.times, [1, 2])
    np.testing.assert_array_equal(bounded.totals, counts.sum(axis=2)[:, 1:3])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"trajectories": "Colorad"}, "trajectory 'Colorad' is not known (did you mean 'Colorado'?); expected one of Colorado"),
        ({"trajectories": []}, "is empty"),
        ({"times": (5, 9)}, "is empty"),
        ({"times": 3}, "times is 3; expected a slice of positions or bounds"),
    ],
)
def test_select_refuses(arguments, expected):
    with pytest.raises(DataError, match=re.escape(expected)):
        Population([0, 1], counts=COUNTS, trajectories=["Colorado"]).select(**arguments)


def test_repr_says_what_is_in_it():
    population = Population([0, 1], counts=COUNTS, totals=10, mask=ONLY_I, states=SIR, trajectories=["school"], time_unit="day")
    assert repr(population) == (
        "Population(counts of 1 trajectory x 2 times x 3 states; times 0 to 1 [day]; states S, I, R; trajectories school;"
        " totals 10; 2 of 6 cells observed)"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("time;state;share\n0;a;1\n", "separated by semicolons"),
        ("time,state,share\n2024-01-01,a,1\n", "days since the first date"),
        ("time,state,share\n0, a,1\n", "without blanks"),
    ],
)
def test_tables_that_nearly_fit_get_a_hint(content, words, tmp_path):
    (tmp_path / "data.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read_table(tmp_path / "data.csv")


def test_dates_and_names_that_cannot_be_printed_are_refused():
    with pytest.raises(DataError, match="days since the first date"):
        Population(np.array(["2024-01-01", "2024-01-02"], "datetime64[ns]"), [[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(DataError, match="control characters"):
        Population([0.0], [[0.5, 0.5]], states=["a\x00", "b"])


def test_until_and_after_divide_a_record():
    """A time that is a product of steps belongs to the same side as the number it stands for."""
    times = 0.1 * np.arange(1, 8)  # the third is 0.30000000000000004
    whole = Population(times, proportions=np.full((2, 7, 2), 0.5), totals=np.full((2, 7), 10), time_unit="day")
    early, late = whole.until(0.3), whole.after(0.3)
    np.testing.assert_array_equal(early.times, times[:3])
    np.testing.assert_array_equal(late.times, times[3:])
    assert early.time_unit == "day" and late.totals.shape == (2, 4)
    np.testing.assert_array_equal(whole.until(np.inf).times, times)
    np.testing.assert_array_equal(whole.until(0.35).times, times[:3])
    for refused in (lambda: whole.until(0.0), lambda: whole.after(0.7), lambda: whole.after("noon"), lambda: whole.until(np.nan)):
        with pytest.raises(DataError):
            refused()


PARTLY = Population(
    [0, 1.5], counts=[COUNTS, COUNTS], totals=10, states=SIR, trajectories=("a", "1"), mask=ONLY_I, time_unit="day"
)


def test_parquet_gives_back_what_a_table_holds(tmp_path):
    """Named by its first bytes, not by its ending; names that look like numbers stay names, and order is that of the rows."""
    options = {"states": SIR, "time_unit": "day", "provenance": {}}
    path = tmp_path / "tidy"
    PARTLY.to_table().to_parquet(path)
    assert same(read_table(path, **options), PARTLY)
    shares = Population([0, 1.5], SHARES, states=SIR)
    shares.to_table().to_parquet(path)
    assert same(read_table(path, provenance={}), shares)
    assert read_table(path).provenance == {"file": "tidy"}


def test_parquet_refuses_with_the_row(tmp_path, monkeypatch):
    table = PARTLY.to_table()
    path = tmp_path / "tidy.parquet"
    table.assign(count=[1, 2, -3, 4]).to_parquet(path)
    with pytest.raises(DataError, match=re.escape(f"{path}: row 2, column 'count': -3; expected a whole number of at least 0")):
        read_table(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"tidy\.parquet: the Parquet file is damaged or cut short"):
        read_table(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=re.escape('pip install "bayes-mfg[arrow]"')):
        read_table(path)
