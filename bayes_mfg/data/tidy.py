"""From a tidy table to a population."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bayes_mfg.errors import DataError

from .checks import check_list, check_times
from .wording import closest, if_a_date, listed, position, shown, to_number

if TYPE_CHECKING:
    from .population import Population


def population_from_table(
    cls: "type[Population]",
    table: pd.DataFrame,
    where: Callable[[int], str],
    *,
    states: Sequence[str] | None,
    trajectories: Sequence[str] | None,
    times: ArrayLike | None,
    time_unit: str,
    provenance: Mapping[str, Any] | None,
) -> "Population":
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
    state_names = tuple(dict.fromkeys(row_states)) if states is None else check_list("states", states)
    trajectory_names = (
        tuple(dict.fromkeys(row_trajectories)) if trajectories is None else check_list("trajectories", trajectories)
    )
    clock = np.unique(row_times) if times is None else check_times(times)
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
            position(trajectory, trajectory_names, "trajectory", f"{where(row)}, column 'trajectory'"),
            positions[time],
            position(state, state_names, "state", f"{where(row)}, column 'state'"),
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
            raise DataError(f"Column {column!r} is not known{closest(column, known)}; expected columns {listed(known)}.")
        if columns.count(column) > 1:
            raise DataError(f"Column {column!r} occurs {columns.count(column)} times; expected it once.")
    for column in ("time", "state"):
        if column not in columns:
            raise DataError(f"Column {column!r} is missing; the columns are {listed(columns)}.")
    values = [column for column in ("count", "share") if column in columns]
    if len(values) != 1:
        raise DataError(
            f"The table has {'both columns' if values else 'neither column'} 'count' and 'share'; expected exactly one of the two"
            f" (its columns are {listed(columns)})."
        )
    return values[0]


def _name_column(table: pd.DataFrame, column: str, where: Callable[[int], str]) -> list[str]:
    names = []
    for row, value in enumerate(table[column].tolist()):
        if not isinstance(value, (str, int)) or isinstance(value, bool) or value == "":
            raise DataError(f"{where(row)}, column '{column}': {value!r} is no name; expected text.")
        if isinstance(value, str) and value != value.strip():
            raise DataError(f"{where(row)}, column '{column}': {value!r}; expected a name without blanks around it.")
        names.append(str(value))
    return names


def _number_column(
    table: pd.DataFrame, column: str, where: Callable[[int], str], accepts: Callable[[float], bool], expected: str
) -> NDArray[np.float64]:
    numbers = np.zeros(len(table))
    for row, value in enumerate(table[column].tolist()):
        number = to_number(value)
        if number is None or not math.isfinite(number) or not accepts(number):
            raise DataError(f"{where(row)}, column '{column}': {value!r}; expected {expected}{if_a_date(value)}.")
        numbers[row] = number
    return numbers
