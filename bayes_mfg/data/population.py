"""Observed populations: who was where, when, out of how many, and what was not seen."""

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayes_mfg.errors import DataError

# Shares are often stored in single precision or written with seven digits; anything further from one is a mistake in the data.
SUM_TOLERANCE = 1e-6
# Above this a count is no longer exact in double precision, which tables, xarray and JAX use.
LARGEST_COUNT = 2**53


@dataclasses.dataclass(frozen=True, init=False, repr=False, eq=False)
class Population:
    """Population shares or counts of `R` trajectories at `T` times in `d` states, with a mask for what was not observed.

    Parameters
    ----------
    times : (T,), finite, strictly increasing, in units of `time_unit`; shared by all trajectories.
    proportions : (R, T, d) or (T, d) for one trajectory, in [0, 1]. A fully observed row sums to one within 1e-6: nothing is
        rescaled. Exactly one of `proportions` and `counts` is given.
    counts : (R, T, d) or (T, d), whole numbers of at least 0.
    totals : (R, T), or (R,), or a scalar; with one trajectory also (T,). Number of individuals (or specimens) that the row's
        counts are part of, a positive whole number. Needed where a row of counts is observed in part; equal to the sum of the row
        where it is observed in full, and then optional. With proportions: the sizes behind the shares, optional. In a row without
        any observed cell NaN or 0 stands for an unknown total.
    states : d unique names; "0", "1", ... where absent.
    trajectories : R unique names; "0", "1", ... where absent.
    mask : True where a cell was observed; (R, T, d), (T, d), or, where T and d differ, (T,) or (d,). Everything is observed where
        absent. NaN is accepted only in cells that are masked out.
    time_unit : name of the unit of time, such as "day".
    provenance : where the data come from: a dictionary that JSON can hold.

    Attributes
    ----------
    times : (T,) float64.
    counts : (R, T, d) int64, or None.
    proportions : (R, T, d) float64, or None.
    totals : (R, T) int64, or None where no size is known; 0 in rows whose total is unknown.
    mask : (R, T, d) bool, True = observed.
    states, trajectories : tuples of str.
    time_unit : str.
    provenance : dict, a copy as JSON holds it (tuples become lists).

    All arrays are read-only copies. Cells that were not observed are stored as 0, so that likelihoods stay finite before the mask
    is applied; `shares` and `to_xarray` show them as NaN.

    Raises
    ------
    DataError
        Where any of the conditions above is not met; the message names the trajectory, the time, the state and the value.
    """

    times: NDArray[np.float64]
    proportions: NDArray[np.float64] | None
    counts: NDArray[np.int64] | None
    totals: NDArray[np.int64] | None
    states: tuple[str, ...]
    trajectories: tuple[str, ...]
    mask: NDArray[np.bool_]
    time_unit: str
    provenance: dict[str, Any]

    def __init__(
        self,
        times: ArrayLike,
        proportions: ArrayLike | None = None,
        counts: ArrayLike | None = None,
        totals: ArrayLike | None = None,
        states: Sequence[str] | None = None,
        trajectories: Sequence[str] | None = None,
        mask: ArrayLike | None = None,
        time_unit: str = "",
        provenance: Mapping[str, Any] | None = None,
    ):
        clock = _check_times(times)
        kind, values = _check_values(proportions, counts, clock)
        size, _, width = values.shape
        state_names = _check_names("states", states, width)
        trajectory_names = _check_names("trajectories", trajectories, size)
        place = _Place(trajectory_names, clock, state_names)
        observed = _check_mask(mask, values.shape)
        _check_cells(kind, values, observed, place)
        values = np.where(observed, values, 0.0)
        sizes = _check_totals(totals, size, clock.size, observed, place)
        if kind == "counts":
            sizes = _check_counts(values, sizes, observed, place)
        else:
            _check_sums(values, observed, place)

        store = object.__setattr__
        store(self, "times", _frozen(clock))
        store(self, "proportions", _frozen(values) if kind == "proportions" else None)
        store(self, "counts", _frozen(values.astype(np.int64)) if kind == "counts" else None)
        store(self, "totals", None if sizes is None else _frozen(sizes))
        store(self, "states", state_names)
        store(self, "trajectories", trajectory_names)
        store(self, "mask", _frozen(observed))
        store(self, "time_unit", _check_unit(time_unit))
        store(self, "provenance", _check_provenance(provenance))

    @property
    def n_trajectories(self) -> int:
        """Number of trajectories `R`."""
        return len(self.trajectories)

    @property
    def n_times(self) -> int:
        """Number of times `T`."""
        return int(self.times.size)

    @property
    def n_states(self) -> int:
        """Number of states `d`."""
        return len(self.states)

    @property
    def fully_observed(self) -> bool:
        """Whether every state of every trajectory was observed at every time."""
        return bool(self.mask.all())

    @property
    def shares(self) -> NDArray[np.float64]:
        """Observed shares of the population: (R, T, d), proportions or counts / totals, NaN where not observed."""
        if self.counts is None or self.totals is None:
            return np.where(self.mask, self._values, np.nan)
        # The total is 0 only in rows without an observed cell, which become NaN all the same.
        return np.where(self.mask, self.counts / np.maximum(self.totals, 1)[:, :, None], np.nan)

    def to_table(self) -> pd.DataFrame:
        """Tidy table of the observed cells.

        Returns
        -------
        DataFrame
            Columns `trajectory`, `time`, `state`, `count` or `share`, and `total` where totals are known; one row for each
            observed cell, in the order of the arrays. What was not observed has no row: trajectories, times and states of which
            nothing was observed, and totals of rows of which nothing was observed, are not in the table (`to_xarray` holds them).
        """
        r, t, x = np.nonzero(self.mask)
        columns: dict[str, Any] = {
            "trajectory": np.array(self.trajectories, object)[r],
            "time": self.times[t],
            "state": np.array(self.states, object)[x],
            "share" if self.counts is None else "count": self._values[r, t, x],
        }
        if self.totals is not None:
            columns["total"] = self.totals[r, t]
        return pd.DataFrame(columns)

    @classmethod
    def from_table(
        cls,
        table: pd.DataFrame,
        *,
        states: Sequence[str] | None = None,
        trajectories: Sequence[str] | None = None,
        times: ArrayLike | None = None,
        time_unit: str = "",
        provenance: Mapping[str, Any] | None = None,
    ) -> "Population":
        """Population from a tidy table, one row for each observed cell; what has no row is masked.

        Parameters
        ----------
        table : columns `time`, `state`, one of `count` and `share`, and optionally `trajectory` (one trajectory where absent) and
            `total`. Rows may stand in any order.
        states, trajectories : names in the order of the arrays, with those that have no row; in order of appearance where absent.
        times : (T,), with those that have no row; the sorted times of the table where absent.
        time_unit, provenance : as in `Population`.

        Raises
        ------
        DataError
            An unknown or missing column, text or NaN where a number must be, a cell with two rows, an unknown state, trajectory
            or time, or numbers that describe no population. Rows are counted from 0, as in `table.iloc`.
        """
        return population_from_table(
            cls,
            table,
            lambda row: f"Row {row} of the table",
            states=states,
            trajectories=trajectories,
            times=times,
            time_unit=time_unit,
            provenance=provenance,
        )

    def to_xarray(self) -> xr.Dataset:
        """Dataset with dimensions `trajectory`, `time` and `state`.

        Returns
        -------
        Dataset
            Variables `counts` or `proportions` (float, NaN where not observed), `mask`, and `totals` (float, NaN where unknown);
            attributes `time_unit` and `provenance` (as JSON text). It can be written to netCDF.
        """
        cells, rows = ("trajectory", "time", "state"), ("trajectory", "time")
        variables: dict[str, Any] = {
            "proportions" if self.counts is None else "counts": (cells, np.where(self.mask, self._values, np.nan)),
            "mask": (cells, self.mask.copy()),
        }
        if self.totals is not None:
            variables["totals"] = (rows, np.where(self.totals > 0, self.totals, np.nan))
        return xr.Dataset(
            variables,
            coords={"trajectory": list(self.trajectories), "time": self.times.copy(), "state": list(self.states)},
            # Not as `units` of the coordinate: xarray reads a netCDF coordinate in "days" back as time differences in
            # nanoseconds.
            attrs={"time_unit": self.time_unit, "provenance": json.dumps(self.provenance)},
        )

    @classmethod
    def from_xarray(cls, dataset: xr.Dataset) -> "Population":
        """Population from a dataset in the layout of `to_xarray`; where `mask` is absent, NaN stands for what was not observed.

        Raises
        ------
        DataError
            A missing variable or dimension, provenance that is no JSON, or numbers that describe no population.
        """
        kinds = [name for name in ("counts", "proportions") if name in dataset]
        if not kinds:
            raise DataError(
                f"The dataset has no variable 'counts' or 'proportions'; it has {_listed(map(str, dataset.data_vars))}."
            )
        arrays: dict[str, Any] = {}
        for name in (*kinds, "mask", "totals"):
            dimensions = ("trajectory", "time") if name == "totals" else ("trajectory", "time", "state")
            if name not in dataset:
                continue
            if set(dataset[name].dims) != set(dimensions):
                raise DataError(f"Variable '{name}' of the dataset has dimensions {dataset[name].dims}; expected {dimensions}.")
            arrays[name] = dataset[name].transpose(*dimensions).to_numpy()
        for name in ("trajectory", "time", "state"):
            if name not in dataset.coords:
                raise DataError(f"The dataset has no coordinate '{name}'; it has {_listed(map(str, dataset.coords))}.")
        arrays.setdefault("mask", ~np.isnan(np.asarray(arrays[kinds[0]], float)))
        try:
            provenance = json.loads(dataset.attrs.get("provenance", "{}"))
        except (TypeError, ValueError) as error:
            raise DataError(f"Attribute 'provenance' of the dataset is not JSON text: {error}.") from None
        return cls(
            dataset["time"].to_numpy(),
            **arrays,
            states=[str(name) for name in dataset["state"].to_numpy()],
            trajectories=[str(name) for name in dataset["trajectory"].to_numpy()],
            time_unit=dataset.attrs.get("time_unit", ""),
            provenance=provenance,
        )

    def select(
        self, trajectories: str | Sequence[str] | None = None, times: slice | tuple[float, float] | None = None
    ) -> "Population":
        """Part of the population.

        Parameters
        ----------
        trajectories : a name or names, in the order wanted; all where absent.
        times : a slice of positions, or bounds `(start, stop)` in time units, both included; all where absent.

        Raises
        ------
        DataError
            An unknown trajectory, or a selection that holds no time or nothing observed.
        """
        names = [trajectories] if isinstance(trajectories, str) else self.trajectories if trajectories is None else trajectories
        rows = [_position(name, self.trajectories, "trajectory", "Selection") for name in names]
        columns = self._select_times(times)
        if not rows or not columns.size:
            raise DataError(
                f"The selection of trajectories {list(names)} and times {times} is empty; {self!r} has more to offer."
            )

        def part(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if array is None else array[np.ix_(rows, columns)]

        return Population(
            self.times[columns],
            proportions=part(self.proportions),
            counts=part(self.counts),
            totals=part(self.totals),
            states=self.states,
            trajectories=[self.trajectories[row] for row in rows],
            mask=part(self.mask),
            time_unit=self.time_unit,
            provenance=self.provenance,
        )

    def in_order_of(self, states: Sequence[str]) -> "Population":
        """The same population with its states in another order.

        Raises
        ------
        DataError : when `states` are not the population's own.
        """
        if sorted(states) != sorted(self.states):
            raise DataError(f"The data have the states {', '.join(self.states)}, not {', '.join(states)}.")
        order = [self.states.index(name) for name in states]

        def part(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if array is None else array[..., order]

        return Population(
            self.times,
            proportions=part(self.proportions),
            counts=part(self.counts),
            totals=self.totals,
            states=states,
            trajectories=self.trajectories,
            mask=part(self.mask),
            time_unit=self.time_unit,
            provenance=self.provenance,
        )

    def __repr__(self) -> str:
        kind = "proportions" if self.counts is None else "counts"
        parts = [
            f"{kind} of {_number_of(self.n_trajectories, 'trajectory', 'trajectories')}"
            f" x {_number_of(self.n_times, 'time', 'times')} x {_number_of(self.n_states, 'state', 'states')}",
            f"times {self.times[0]:g} to {self.times[-1]:g}" + (f" [{self.time_unit}]" if self.time_unit else ""),
            f"states {_listed(self.states, 8)}",
            f"trajectories {_listed(self.trajectories, 4)}",
        ]
        if self.totals is not None:
            known = self.totals[self.totals > 0]
            parts.append(f"totals {known.min()}" + (f" to {known.max()}" if known.min() < known.max() else ""))
        if not self.fully_observed:
            parts.append(f"{int(self.mask.sum())} of {self.mask.size} cells observed")
        return f"Population({'; '.join(parts)})"

    @property
    def _values(self) -> NDArray[Any]:
        values = self.proportions if self.counts is None else self.counts
        assert values is not None
        return values

    def _select_times(self, times: slice | tuple[float, float] | None) -> NDArray[np.intp]:
        everything = np.arange(self.n_times)
        if times is None:
            return everything
        if isinstance(times, slice):
            return everything[times]
        try:
            start, stop = (float(bound) for bound in times)
        except (TypeError, ValueError):
            raise DataError(f"times is {times!r}; expected a slice of positions or bounds (start, stop) in time units.") from None
        return np.flatnonzero((self.times >= start) & (self.times <= stop))


def population_from_table(
    cls: type[Population],
    table: pd.DataFrame,
    where: Callable[[int], str],
    *,
    states: Sequence[str] | None,
    trajectories: Sequence[str] | None,
    times: ArrayLike | None,
    time_unit: str,
    provenance: Mapping[str, Any] | None,
) -> Population:
    """Population from a tidy table whose row `i` is called `where(i)` in messages; see `Population.from_table`."""
    value_column = _check_columns(table)
    if not len(table):
        raise DataError(f"The table has no rows; expected one row for each observed {value_column}.")
    if "trajectory" in table:
        row_trajectories = _name_column(table, "trajectory", where)
    else:
        row_trajectories = [trajectories[0] if trajectories is not None and len(trajectories) == 1 else "0"] * len(table)
    row_states = _name_column(table, "state", where)
    row_times = _number_column(table, "time", where, lambda value: math.isfinite(value), "a finite number")
    values = (
        _number_column(
            table, "count", where, lambda value: value >= 0 and value == math.floor(value), "a whole number of at least 0"
        )
        if value_column == "count"
        else _number_column(table, "share", where, lambda value: 0 <= value <= 1, "a number in [0, 1]")
    )
    state_names = tuple(dict.fromkeys(row_states)) if states is None else _check_list("states", states)
    trajectory_names = (
        tuple(dict.fromkeys(row_trajectories)) if trajectories is None else _check_list("trajectories", trajectories)
    )
    clock = np.unique(row_times) if times is None else _check_times(times)
    positions = {time: index for index, time in enumerate(clock.tolist())}

    shape = (len(trajectory_names), clock.size, len(state_names))
    cells, mask = np.zeros(shape), np.zeros(shape, bool)
    first_row: dict[tuple[int, int, int], int] = {}
    for row, (trajectory, time, state, value) in enumerate(zip(row_trajectories, row_times, row_states, values, strict=True)):
        if time not in positions:
            raise DataError(
                f"{where(row)}, column 'time': {shown(time)} is not among the times given"
                f" ({shown(clock[0])} to {shown(clock[-1])})."
            )
        cell = (
            _position(trajectory, trajectory_names, "trajectory", f"{where(row)}, column 'trajectory'"),
            positions[time],
            _position(state, state_names, "state", f"{where(row)}, column 'state'"),
        )
        if cell in first_row:
            raise DataError(
                f"{where(row)}: trajectory {trajectory!r}, time {shown(time)}, state {state!r} stands in the table already"
                f" ({where(first_row[cell])}); expected one row for each."
            )
        first_row[cell] = row
        cells[cell], mask[cell] = value, True

    totals = _table_totals(table, where, first_row, shape) if "total" in table else None
    return cls(
        clock,
        proportions=cells if value_column == "share" else None,
        counts=cells if value_column == "count" else None,
        totals=totals,
        states=state_names,
        trajectories=trajectory_names,
        mask=mask,
        time_unit=time_unit,
        provenance=provenance,
    )


def _table_totals(
    table: pd.DataFrame, where: Callable[[int], str], rows: Mapping[tuple[int, int, int], int], shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    values = _number_column(
        table, "total", where, lambda value: value >= 1 and value == math.floor(value), "a positive whole number"
    )
    totals = np.zeros(shape[:2])
    source: dict[tuple[int, int], int] = {}
    for (r, t, _), row in rows.items():
        if totals[r, t] not in (0, values[row]):
            raise DataError(
                f"{where(row)}, column 'total': {shown(values[row])} differs from the {shown(totals[r, t])} that"
                f" the same trajectory and time have elsewhere ({where(source[r, t])})."
            )
        totals[r, t], source[r, t] = values[row], row
    return totals


def _check_columns(table: pd.DataFrame) -> str:
    """Name of the column that holds the values, after the columns were checked."""
    known = ("trajectory", "time", "state", "count", "share", "total")
    columns = [str(column) for column in table.columns]
    for column in columns:
        if column not in known:
            raise DataError(f"Column {column!r} is not known{_closest(column, known)}; expected columns {_listed(known)}.")
        if columns.count(column) > 1:
            raise DataError(f"Column {column!r} occurs {columns.count(column)} times; expected it once.")
    for column in ("time", "state"):
        if column not in columns:
            raise DataError(f"Column {column!r} is missing; the columns are {_listed(columns)}.")
    values = [column for column in ("count", "share") if column in columns]
    if len(values) != 1:
        raise DataError(
            f"The table has {'both columns' if values else 'neither column'} 'count' and 'share'; expected exactly one of the two"
            f" (its columns are {_listed(columns)})."
        )
    return values[0]


def _name_column(table: pd.DataFrame, column: str, where: Callable[[int], str]) -> list[str]:
    names = []
    for row, value in enumerate(table[column].tolist()):
        if not isinstance(value, (str, int)) or isinstance(value, bool) or value == "":
            raise DataError(f"{where(row)}, column '{column}': {value!r} is no name; expected text.")
        names.append(str(value))
    return names


def _number_column(
    table: pd.DataFrame, column: str, where: Callable[[int], str], accepts: Callable[[float], bool], expected: str
) -> NDArray[np.float64]:
    numbers = np.zeros(len(table))
    for row, value in enumerate(table[column].tolist()):
        number = to_number(value)
        if number is None or not math.isfinite(number) or not accepts(number):
            raise DataError(f"{where(row)}, column '{column}': {value!r}; expected {expected}.")
        numbers[row] = number
    return numbers


def to_number(value: Any) -> float | None:
    """`value` as a float, or None where it is neither a number nor text that reads as one."""
    # Python reads "1_000" as a thousand; in a data file it is a mistake. NaT and dates are no numbers, though NumPy converts
    # them.
    if (
        isinstance(value, bool)
        or (isinstance(value, str) and "_" in value)
        or not isinstance(value, (str, int, float, np.number))
    ):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


@dataclasses.dataclass(frozen=True)
class _Place:
    """Names a cell or a row of the arrays in a message."""

    trajectories: tuple[str, ...]
    times: NDArray[np.float64]
    states: tuple[str, ...]

    def __call__(self, r: int, t: int, x: int | None = None) -> str:
        row = f"Trajectory {self.trajectories[r]!r}, time {shown(self.times[t])}"
        return row if x is None else f"{row}, state {self.states[x]!r}"

    def first(self, bad: NDArray[np.bool_]) -> tuple[tuple[int, ...], str] | None:
        """Index and name of the first True entry, or None."""
        if not bad.any():
            return None
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        return index, self(*index)


def _check_times(times: ArrayLike) -> NDArray[np.float64]:
    clock = _numbers("times", times)
    if clock.ndim != 1 or not clock.size:
        raise DataError(f"times has shape {clock.shape}; expected a list (T,) of at least one time.")
    if not np.isfinite(clock).all():
        index = int(np.argmin(np.isfinite(clock)))
        raise DataError(f"times[{index}] is {shown(clock[index])}; expected a finite number.")
    steps = np.diff(clock)
    if (steps <= 0).any():
        index = int(np.argmax(steps <= 0))
        raise DataError(
            f"times[{index + 1}] is {shown(clock[index + 1])} and follows {shown(clock[index])};"
            " expected times that increase strictly."
        )
    return clock


def _check_values(
    proportions: ArrayLike | None, counts: ArrayLike | None, times: NDArray[np.float64]
) -> tuple[str, NDArray[np.float64]]:
    if (proportions is None) == (counts is None):
        given = "neither was" if counts is None else "both were"
        raise DataError(f"A population holds either proportions or counts, exactly one of the two; {given} given.")
    kind = "proportions" if counts is None else "counts"
    values = _numbers(kind, proportions if counts is None else counts)
    if values.ndim not in (2, 3):
        raise DataError(f"{kind} has shape {values.shape}; expected (trajectories, times, states) or (times, states).")
    if values.ndim == 2:
        values = values[None]
    if values.shape[1] != times.size:
        raise DataError(
            f"{kind} has shape {values.shape} (trajectories, times, states) and times has shape {times.shape};"
            " expected as many times in both."
        )
    if not values.size:
        raise DataError(f"{kind} has shape {values.shape} (trajectories, times, states); expected at least one of each.")
    return kind, values


def _numbers(name: str, values: Any) -> NDArray[np.float64]:
    """`values` as a fresh float64 array."""
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(
            f"{name} is a numpy masked array, whose mask marks what is missing; pass its data, and as mask what was observed."
        )
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        raise DataError(f"{name} is no array of numbers; expected nested lists of equal lengths, or an array.") from None
    if array.dtype.kind not in "iuf":
        _not_numbers(name, array)
    return np.array(array, np.float64)


def _not_numbers(name: str, array: NDArray[Any]) -> NoReturn:
    for index in np.ndindex(array.shape):
        value = array[index]
        if isinstance(value, (str, bytes, np.bool_)) or to_number(value) is None:
            plain = value.item() if isinstance(value, np.generic) else value
            raise DataError(f"{name}{list(index) or ''} is {plain!r}; expected a number.")
    raise DataError(f"{name} is an array of type {array.dtype}; expected an array of numbers, such as float64.")


def _check_names(name: str, names: Sequence[str] | None, size: int) -> tuple[str, ...]:
    if names is None:
        return tuple(str(index) for index in range(size))
    kept = _check_list(name, names)
    for index, item in enumerate(kept):
        if not isinstance(item, str) or not item:
            raise DataError(f"{name}[{index}] is {item!r}; expected a name (text).")
        if item in kept[:index]:
            raise DataError(f"{name}[{index}] is {item!r}, a name that stands there already; expected unique names.")
    if len(kept) != size:
        raise DataError(f"{name} holds {len(kept)} names ({_listed(kept)}); expected {size}, as many as the data have.")
    return tuple(str(item) for item in kept)


def _check_list(name: str, names: Sequence[str]) -> tuple[str, ...]:
    # Text is a sequence too: "SIR" would become the states S, I and R.
    if isinstance(names, str):
        raise DataError(f"{name} is the text {names!r}; expected a list of names.")
    return tuple(names)


def _check_mask(mask: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if mask is None:
        return np.ones(shape, bool)
    array = np.asarray(mask)
    _, n_times, n_states = shape
    if array.dtype != bool:
        raise DataError(f"mask is an array of type {array.dtype}; expected True where a cell was observed and False elsewhere.")
    if array.shape == (n_times,) == (n_states,):
        raise DataError(
            f"mask has shape {array.shape}, which could mean times or states because there are {n_times} of each;"
            f" expected shape ({n_times}, {n_states})."
        )
    if array.shape == (n_times,):
        array = array[:, None]
    elif array.shape not in ((n_states,), (n_times, n_states), shape):
        raise DataError(
            f"mask has shape {array.shape} and the data have shape {shape} (trajectories, times, states);"
            f" expected {shape}, ({n_times}, {n_states}), ({n_times},) or ({n_states},)."
        )
    if not array.any():
        raise DataError("mask is False everywhere: nothing was observed; expected at least one observed cell.")
    return np.broadcast_to(array, shape).copy()


def _check_cells(kind: str, values: NDArray[np.float64], observed: NDArray[np.bool_], place: _Place) -> None:
    singular = kind[:-1]
    found = place.first(observed & np.isnan(values))
    if found:
        raise DataError(f"{found[1]}: the {singular} is NaN; expected a number, or mask False where nothing was observed.")
    # NaN under the mask compares as False, with a warning from some operations: neutral values first.
    seen = np.where(observed, values, 0.0)
    if kind == "proportions":
        found, expected = place.first((seen < 0) | (seen > 1)), "a proportion in [0, 1]"
    else:
        whole = (seen >= 0) & (seen <= LARGEST_COUNT) & (seen == np.floor(seen))
        found, expected = place.first(~whole), "a whole number of at least 0 (and at most 2^53)"
    if found:
        raise DataError(f"{found[1]}: the {singular} is {shown(seen[found[0]])}; expected {expected}.")


def _check_totals(
    totals: ArrayLike | None, size: int, n_times: int, observed: NDArray[np.bool_], place: _Place
) -> NDArray[np.int64] | None:
    """Totals (R, T), 0 where unknown; None where not given."""
    if totals is None:
        return None
    array = _numbers("totals", totals)
    if array.shape == (n_times,) and size == 1:
        array = array[None]
    elif array.shape == (size,):
        array = array[:, None]
    elif array.shape not in ((), (size, n_times)):
        raise DataError(
            f"totals has shape {array.shape} and the data have {(size, n_times)} trajectories and times;"
            f" expected shape {(size, n_times)}, ({size},) or one number."
        )
    array = np.broadcast_to(array, (size, n_times))
    # A total of 0 says "unknown", as NaN does, and only a row without an observed cell may leave its total open.
    array = np.where(~observed.any(axis=2) & np.isnan(array), 0.0, array)
    lowest = np.where(observed.any(axis=2), 1, 0)
    found = place.first(~((array >= lowest) & (array == np.floor(array)) & (array <= LARGEST_COUNT)))
    if found:
        raise DataError(f"{found[1]}: the total is {shown(array[found[0]])}; expected a positive whole number.")
    return array.astype(np.int64)


def _check_counts(
    counts: NDArray[np.float64], totals: NDArray[np.int64] | None, observed: NDArray[np.bool_], place: _Place
) -> NDArray[np.int64]:
    """Totals (R, T) of the counts, which are 0 in masked cells."""
    sums = counts.sum(axis=2)
    full, some = observed.all(axis=2), observed.any(axis=2)
    if totals is None:
        found = place.first(some & ~full)
        if found:
            seen = _listed(np.array(place.states)[observed[found[0]]])
            raise DataError(
                f"{found[1]}: only {seen} of the states {_listed(place.states)} was observed; expected totals to be given."
            )
        found = place.first(full & (sums == 0))
        if found:
            raise DataError(f"{found[1]}: the counts are all 0; expected at least one individual, or mask False.")
        return sums.astype(np.int64)
    found = place.first(observed & (counts > totals[:, :, None]))
    if found:
        r, t, x = found[0]
        raise DataError(f"{found[1]}: the count is {shown(counts[r, t, x])}; expected at most the total of {totals[r, t]}.")
    found = place.first(some & (sums > totals))
    if found:
        raise DataError(
            f"{found[1]}: the counts sum to {shown(sums[found[0]])}; expected at most the total of {totals[found[0]]}."
        )
    found = place.first(full & (sums != totals))
    if found:
        raise DataError(
            f"{found[1]}: the counts sum to {shown(sums[found[0]])}; expected the total of {totals[found[0]]},"
            " as every state was observed."
        )
    return totals


def _check_sums(proportions: NDArray[np.float64], observed: NDArray[np.bool_], place: _Place) -> None:
    sums = proportions.sum(axis=2)
    found = place.first(observed.all(axis=2) & (abs(sums - 1) > SUM_TOLERANCE))
    if found:
        raise DataError(f"{found[1]}: the proportions sum to {sums[found[0]]:.10g}; expected 1 within {SUM_TOLERANCE:g}.")
    found = place.first(sums > 1 + SUM_TOLERANCE)
    if found:
        raise DataError(f"{found[1]}: the observed proportions sum to {sums[found[0]]:.10g}; expected at most 1.")


def _check_unit(time_unit: str) -> str:
    if not isinstance(time_unit, str):
        raise DataError(f"time_unit is {time_unit!r}; expected text, such as 'day'.")
    return time_unit


def _check_provenance(provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    if provenance is None:
        return {}
    try:
        copy = json.loads(json.dumps(provenance, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"provenance cannot be written as JSON ({error}); expected a dictionary of texts, numbers and lists."
        ) from None
    if not isinstance(copy, dict):
        raise DataError(f"provenance is {provenance!r}; expected a dictionary.")
    return copy


def shown(number: float) -> str:
    """A number as a person would write it: every digit that matters, and no ".0"."""
    return repr(float(number)).removesuffix(".0")


def _frozen[S: np.generic](array: NDArray[S]) -> NDArray[S]:
    array.setflags(write=False)
    return array


def _position(name: str, names: Sequence[str], noun: str, place: str) -> int:
    if name not in names:
        raise DataError(f"{place}: {noun} {name!r} is not known{_closest(str(name), names)}; expected one of {_listed(names)}.")
    return list(names).index(name)


def _closest(name: str, names: Iterable[str]) -> str:
    close = close_matches(name, names)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


def close_matches(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that resemble `name`, whatever the case of the letters."""
    folded = {item.casefold(): item for item in names}
    return [folded[item] for item in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)]


def _listed(names: Iterable[str], limit: int = 12) -> str:
    items = list(names)
    shown = ", ".join(items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown


def _number_of(count: int, singular: str, plural: str) -> str:
    return f"{count} {singular if count == 1 else plural}"
