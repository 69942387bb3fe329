"""Data that are not there yet: times, states and totals of what could be observed, for questions that are asked before any data."""

from collections.abc import Sequence

import numpy as np

from bayes_mfg.errors import DataError

from .population import Population

BLANK = "blank: nothing was observed"
"""The provenance's source of blank data."""


def blank_population(
    times: Sequence[float],
    states: Sequence[str],
    *,
    total: int | None = None,
    trajectories: Sequence[str] = ("1",),
    time_unit: str = "",
) -> Population:
    """A population that says what could be observed, with everyone spread evenly: for `identifiability`, `design` and studies.

    Parameters
    ----------
    times : `(T,)`, increasing.
    states : names.
    total : number of individuals counted each time, at least one; without it there are shares.
    trajectories : names.
    time_unit : such as "day".

    Raises
    ------
    DataError : for a total that is no positive whole number, and as `Population` does.
    """
    if total is not None and (isinstance(total, bool) or not isinstance(total, int | np.integer) or total < 1):
        raise DataError(f"blank_population: total is {total!r}; a positive whole number is needed.")
    shape = (len(tuple(trajectories)), np.size(np.asarray(times)), len(tuple(states)))
    about = {"states": states, "trajectories": trajectories, "time_unit": time_unit, "provenance": {"source": BLANK}}
    if total is None:
        return Population(times, proportions=np.full(shape, 1.0 / shape[-1]), **about)  # type: ignore[arg-type]
    counts = np.full(shape, total // shape[-1])
    counts[..., 0] += total - shape[-1] * (total // shape[-1])
    return Population(times, counts=counts, **about)  # type: ignore[arg-type]
