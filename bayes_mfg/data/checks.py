"""What a population must be: one check for each condition; a message names the trajectory, the time, the state and the value."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayes_mfg.errors import DataError

from .wording import if_a_date, listed, shown, to_number

# Shares are often stored in single precision or written with seven digits; anything further from one is a mistake in the data.
SUM_TOLERANCE = 1e-6
# Above this a count is no longer exact in double precision, which tables, xarray and JAX use.
LARGEST_COUNT = 2**53


@dataclasses.dataclass(frozen=True)
class Place:
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


def check_times(times: ArrayLike) -> NDArray[np.float64]:
    """Times `(T,)`: finite and increasing."""
    clock = numbers("times", times)
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


def check_values(
    proportions: ArrayLike | None, counts: ArrayLike | None, times: NDArray[np.float64]
) -> tuple[str, NDArray[np.float64]]:
    """Kind ("proportions" or "counts") and values `(R, T, d)`, whichever of the two was given."""
    if (proportions is None) == (counts is None):
        given = "neither was" if counts is None else "both were"
        raise DataError(f"A population holds either proportions or counts, exactly one of the two; {given} given.")
    kind = "proportions" if counts is None else "counts"
    values = numbers(kind, proportions if counts is None else counts)
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


def numbers(name: str, values: Any) -> NDArray[np.float64]:
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
            raise DataError(f"{name}{list(index) or ''} is {plain!r}; expected a number{if_a_date(value)}.")
    raise DataError(f"{name} is an array of type {array.dtype}; expected an array of numbers, such as float64.")


def check_names(name: str, names: Sequence[str] | None, size: int) -> tuple[str, ...]:
    """`size` unique names; numbers where none are given."""
    if names is None:
        return tuple(str(index) for index in range(size))
    kept = check_list(name, names)
    for index, item in enumerate(kept):
        if not isinstance(item, str) or not item:
            raise DataError(f"{name}[{index}] is {item!r}; expected a name (text).")
        if not item.isprintable():
            raise DataError(f"{name}[{index}] is {item!r}; expected a name without control characters.")
        if item in kept[:index]:
            raise DataError(f"{name}[{index}] is {item!r}, a name that stands there already; expected unique names.")
    if len(kept) != size:
        raise DataError(f"{name} holds {len(kept)} names ({listed(kept)}); expected {size}, as many as the data have.")
    return tuple(str(item) for item in kept)


def check_list(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """A sequence of names as a tuple."""
    # Text is a sequence too: "SIR" would become the states S, I and R.
    if isinstance(names, str):
        raise DataError(f"{name} is the text {names!r}; expected a list of names.")
    return tuple(names)


def check_mask(mask: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mask `(R, T, d)` from any of the shapes that it may be given in."""
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


def check_cells(kind: str, values: NDArray[np.float64], observed: NDArray[np.bool_], place: Place) -> None:
    """Observed cells are numbers that a population can have."""
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


def check_totals(
    totals: ArrayLike | None, size: int, n_times: int, observed: NDArray[np.bool_], place: Place
) -> NDArray[np.int64] | None:
    """Totals (R, T), 0 where unknown; None where not given."""
    if totals is None:
        return None
    array = numbers("totals", totals)
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


def check_counts(
    counts: NDArray[np.float64], totals: NDArray[np.int64] | None, observed: NDArray[np.bool_], place: Place
) -> NDArray[np.int64]:
    """Totals (R, T) of the counts, which are 0 in masked cells."""
    sums = counts.sum(axis=2)
    full, some = observed.all(axis=2), observed.any(axis=2)
    if totals is None:
        found = place.first(some & ~full)
        if found:
            seen = listed(np.array(place.states)[observed[found[0]]])
            raise DataError(
                f"{found[1]}: only {seen} of the states {listed(place.states)} was observed; expected totals to be given."
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


def check_sums(proportions: NDArray[np.float64], observed: NDArray[np.bool_], place: Place) -> None:
    """Proportions of a row sum to one, or to no more where some are not observed."""
    sums = proportions.sum(axis=2)
    found = place.first(observed.all(axis=2) & (abs(sums - 1) > SUM_TOLERANCE))
    if found:
        raise DataError(f"{found[1]}: the proportions sum to {sums[found[0]]:.10g}; expected 1 within {SUM_TOLERANCE:g}.")
    found = place.first(sums > 1 + SUM_TOLERANCE)
    if found:
        raise DataError(f"{found[1]}: the observed proportions sum to {sums[found[0]]:.10g}; expected at most 1.")


def check_unit(time_unit: str) -> str:
    """The name of a unit of time is text."""
    if not isinstance(time_unit, str):
        raise DataError(f"time_unit is {time_unit!r}; expected text, such as 'day'.")
    return time_unit


def check_provenance(provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of the provenance as JSON holds it."""
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
