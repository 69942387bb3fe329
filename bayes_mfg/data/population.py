"""Observed populations: who was where, when, out of how many, and what was not seen."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayes_mfg.errors import DataError

from .checks import (
    Place,
    check_cells,
    check_counts,
    check_mask,
    check_names,
    check_provenance,
    check_sums,
    check_times,
    check_totals,
    check_unit,
    check_values,
)
from .tidy import population_from_table
from .wording import listed, number_of, position


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
        clock = check_times(times)
        kind, values = check_values(proportions, counts, clock)
        size, _, width = values.shape
        state_names = check_names("states", states, width)
        trajectory_names = check_names("trajectories", trajectories, size)
        place = Place(trajectory_names, clock, state_names)
        observed = check_mask(mask, values.shape)
        check_cells(kind, values, observed, place)
        values = np.where(observed, values, 0.0)
        sizes = check_totals(totals, size, clock.size, observed, place)
        if kind == "counts":
            sizes = check_counts(values, sizes, observed, place)
        else:
            check_sums(values, observed, place)

        store = object.__setattr__
        store(self, "times", frozen(clock))
        store(self, "proportions", frozen(values) if kind == "proportions" else None)
        store(self, "counts", frozen(values.astype(np.int64)) if kind == "counts" else None)
        store(self, "totals", None if sizes is None else frozen(sizes))
        store(self, "states", state_names)
        store(self, "trajectories", trajectory_names)
        store(self, "mask", frozen(observed))
        store(self, "time_unit", check_unit(time_unit))
        store(self, "provenance", check_provenance(provenance))

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
                f"The dataset has no variable 'counts' or 'proportions'; it has {listed(map(str, dataset.data_vars))}."
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
                raise DataError(f"The dataset has no coordinate '{name}'; it has {listed(map(str, dataset.coords))}.")
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
        rows = [position(name, self.trajectories, "trajectory", "Selection") for name in names]
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

    def until(self, time: float) -> "Population":
        """What was observed up to a time, which is included; `after(time)` is the rest.

        Raises
        ------
        DataError
            Where no time is left, or the time is no number.
        """
        return self.select(times=slice(0, self._times_until(time)))

    def after(self, time: float) -> "Population":
        """What was observed after a time, which is not included; see `until`.

        Raises
        ------
        DataError
            Where no time is left, or the time is no number.
        """
        return self.select(times=slice(self._times_until(time), None))

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
            f"{kind} of {number_of(self.n_trajectories, 'trajectory', 'trajectories')}"
            f" x {number_of(self.n_times, 'time', 'times')} x {number_of(self.n_states, 'state', 'states')}",
            f"times {self.times[0]:g} to {self.times[-1]:g}" + (f" [{self.time_unit}]" if self.time_unit else ""),
            f"states {listed(self.states, 8)}",
            f"trajectories {listed(self.trajectories, 4)}",
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

    def _times_until(self, time: float) -> int:
        """How many times lie at or before one; rounding of times that are products of steps does not count."""
        if not isinstance(time, int | float | np.number) or isinstance(time, bool) or np.isnan(time):
            raise DataError(f"time is {time!r}; a number is needed.")
        slack = 1e-9 * (self.times[-1] - self.times[0])
        return int(np.searchsorted(self.times, float(time) + slack, side="right"))

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


def frozen[S: np.generic](array: NDArray[S]) -> NDArray[S]:
    """The array, read-only."""
    array.setflags(write=False)
    return array
