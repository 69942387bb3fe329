"""Which of several models predicts left-out data best."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.utils import ELPDDataLOO

from bayes_mfg.errors import InputError

from .leave_out import checked, leave_out, observations

if TYPE_CHECKING:
    from .result import Fit

METHODS = ("stacking", "bb-pseudo-bma", "pseudo-bma")

SAME = 1e-12
"""Difference of recorded numbers that counts as none: one fit may have them from shares, the other from counts."""


def compare(
    fits: "Mapping[str, Fit]",
    by: str = "trajectory",
    *,
    blocks: int = 5,
    refit: bool = False,
    method: str = "stacking",
    seed: int = 0,
) -> pd.DataFrame:
    """Table of `arviz.compare` for fits of the same data, best first: a game against its comparators.

    The units that are left out are those of `loo`: by default whole trajectories, which differ in what is being compared - how a population moves
    from where it starts - and are independent where observations of one trajectory are not. The standard error of a difference (`dse`) is over the
    units; it is ArviZ's, which divides by their number, and too small by the root of n / (n - 1) where there are few. Observations whose density is
    the same in every draw count where they are not the same in all fits.

    Parameters
    ----------
    fits : name -> fit, at least two.
    by, blocks, refit, seed : as in `loo`, for each fit.
    method : of the weights: "stacking", "bb-pseudo-bma" or "pseudo-bma".

    Returns
    -------
    DataFrame
        Index: the names. Columns of `arviz.compare`, not rounded: `rank`, `elpd_diff` to the best (negative) with its standard error `dse`, `p_worse`
        (normal approximation; `diag_diff` says "N < 100" where there are too few units for it), `diag_elpd` (how many Pareto k are too large), `p`,
        `elpd`, `se`, `weight`. `attrs["warnings"]` holds what `loo` says of each fit, `attrs["n_units"]` the number of units.

    Raises
    ------
    InputError : when fewer than two fits are given, when they are not of the same observations, whose densities then do not compare - the sentence
        names what differs - and as `loo` does.
    """
    if not isinstance(fits, Mapping) or len(fits) < 2:
        raise InputError("compare: a dict from at least two names to fits is needed.")
    if not isinstance(method, str) or method.lower() not in METHODS:
        raise InputError(f"compare: unknown method {method!r}; choose one of {', '.join(METHODS)}.")
    for name, fit in fits.items():
        if not hasattr(fit, "tree"):
            raise InputError(f"compare: {name!r} is {type(fit).__name__}; a Fit is needed.")
        checked(fit, by, blocks)
        if fit.model is not None and (seeing := [p for p, path in fit.model.bound.items() if path.needs_observed]):
            raise InputError(
                f"compare: in {name!r} the path of {seeing[0]} takes the observed population as input, and so has seen what is left out."
            )
    (first, one), *others = fits.items()
    for name, other in others:
        _same_record(first, one, name, other)
    constants = _constants_matter(fits)
    for name, other in others:
        _same_places(first, observations(one, constants), name, observations(other, constants))
    left = {name: leave_out(fit, by, blocks, refit=refit, seed=seed, constants=constants) for name, fit in fits.items()}
    return _table(left, by, method)


def _table(left: dict[str, ELPDDataLOO], by: str, method: str) -> pd.DataFrame:
    """The table, with units in the order of the first."""
    if by != "time":
        order = _keys(next(iter(left.values())).elpd_i)
        left = {name: _in_order(one, order) for name, one in left.items()}
    shifted = left
    if method.lower() == "stacking":
        # ArviZ takes exponentials of what is left out, which of whole trajectories overflow. Stacking weights do not change when one number is
        # taken off the same unit of every model.
        top = np.max([one.elpd_i.to_numpy() for one in left.values()], axis=0)
        shifted = {
            name: dataclasses.replace(one, elpd=one.elpd - top.sum(), elpd_i=one.elpd_i - top) for name, one in left.items()
        }
    with np.errstate(divide="ignore", invalid="ignore"):
        table = az.compare(shifted, method=method, round_to="none")
    if method.lower() == "stacking":
        for name, one in left.items():
            table.loc[name, ["elpd", "se"]] = one.elpd, one.se
    told = [f"{name}: {sentence}" for name, one in left.items() for sentence in one.elpd_i.attrs["warnings"]]
    table.attrs = {"warnings": told, "n_units": next(iter(left.values())).n_data_points}
    return table


def _in_order(one: ELPDDataLOO, order: list[tuple]) -> ELPDDataLOO:
    """The same with its units in another order."""
    places = {key: k for k, key in enumerate(_keys(one.elpd_i))}
    at = {one.elpd_i.dims[0]: [places[key] for key in order]}
    return dataclasses.replace(one, elpd_i=one.elpd_i.isel(at), pareto_k=one.pareto_k.isel(at))


def _constants_matter(fits: "Mapping[str, Fit]") -> bool:
    """Whether observations with the same density in every draw must be counted: they are not the same ones, or not equally probable."""
    kept = [observations(fit) for fit in fits.values()]
    constants = [float(one.attrs.get("constant", np.nan)) for one in kept]
    return not all(
        set(_keys(a)) == set(_keys(b)) and abs(c - d) <= 1e-9 * max(1.0, abs(c))
        for (a, c), (b, d) in itertools.pairwise(zip(kept, constants, strict=True))
    )


def _keys(single: xr.DataArray) -> list[tuple]:
    names = [name for name in ("trajectory", "time", "state") if name in single.coords]
    return list(zip(*[single[name].to_numpy().tolist() for name in names], strict=True))


def _same_record(first: str, one: "Fit", name: str, other: "Fit") -> None:
    """Refuse fits that are not of the same numbers.

    Raises
    ------
    InputError : naming the first difference.
    """
    a, b = (fit.tree["observed_data"].to_dataset() for fit in (one, other))
    (kind_a, seen_a), (kind_b, seen_b) = (next(iter(part.data_vars.items())) for part in (a, b))
    pair = f"compare: {first!r} and {name!r}"
    if kind_a != kind_b:
        raise InputError(f"{pair} are fits of {kind_a} and of {kind_b}, whose densities do not compare.")
    for dim in ("trajectory", "time", "state"):
        labels_a, labels_b = (part[dim].to_numpy().tolist() for part in (a, b))
        odd = sorted(set(labels_a) ^ set(labels_b), key=str)
        if odd:
            raise InputError(f"{pair} are not fits of the same data: only one of them has the {dim} {odd[0]}.")
    order = {dim: seen_a[dim].to_numpy() for dim in ("trajectory", "time", "state")}
    x, y = seen_a.to_numpy(), seen_b.sel(order).to_numpy()
    different = ~((np.isnan(x) & np.isnan(y)) | (np.abs(x - y) <= SAME))
    if different.any():
        at = [order[dim][k] for dim, k in zip(order, np.argwhere(different)[0], strict=True)]
        was = x[different][0], y[different][0]
        raise InputError(
            f"{pair} are not fits of the same data: trajectory {at[0]!s}, time {at[1]:g}, state {at[2]!s} is {was[0]:g} in one "
            f"and {was[1]:g} in the other."
        )
    if kind_a == "counts":
        sizes = {dim: order[dim] for dim in ("trajectory", "time")}
        n, m = one.tree["constant_data"]["totals"].to_numpy(), other.tree["constant_data"]["totals"].sel(sizes).to_numpy()
        rows = ~np.isnan(x).all(axis=-1)
        if np.any(n[rows] != m[rows]):
            raise InputError(f"{pair} are not fits of the same data: the totals behind their counts differ.")


def _same_places(first: str, one: xr.DataArray, name: str, other: xr.DataArray) -> None:
    """Refuse fits whose observation models look at different things.

    Raises
    ------
    InputError : naming the first difference.
    """
    pair = f"compare: {first!r} and {name!r}"
    cells = ["state" in single.coords for single in (one, other)]
    if cells[0] != cells[1]:
        a, b = ("single states" if is_cell else "whole rows" for is_cell in cells)
        raise InputError(f"{pair} have observation models of {a} and of {b}, whose densities do not compare.")
    odd = sorted(set(_keys(one)) ^ set(_keys(other)), key=str)
    if odd:
        place = ", ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in odd[0])
        raise InputError(
            f"{pair} do not look at the same observations: only one of them has a density for {place}, one of {len(odd)} differences (first "
            "observations that are taken as starts have none)."
        )
