"""Numbers of the report: bands, what the data say about each parameter, coverage and convergence, from a fit's tree alone."""

import itertools
import json
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import arviz
import numpy as np
import xarray as xr
from numpy.typing import NDArray

type Floats = NDArray[np.float64]

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_PANELS = 12
MOST_CELLS = 600
R_HAT, ESS, E_BFMI = 1.01, 400.0, 0.3
INFORMED, PARTLY, SHIFTED = 0.5, 0.2, 1.0
_POPULATION = ("mu", "value")


def decode(attrs: Mapping[Any, Any], name: str, kind: type) -> Any:
    """Attribute that holds JSON, as `kind`; an empty `kind` where it is missing or holds something else."""
    raw = attrs.get(name)
    try:
        found = json.loads(raw) if isinstance(raw, str) else raw
    except ValueError:
        found = None
    if kind is list and isinstance(found, str | np.ndarray):
        found = [found] if isinstance(found, str) else found.tolist()
    return found if isinstance(found, kind) else kind()


def group(tree: xr.DataTree, name: str) -> xr.Dataset:
    """Dataset of a group; an empty one where the group is missing."""
    return tree[name].to_dataset() if name in tree.children else xr.Dataset()


def identified(latents: xr.Dataset) -> tuple[xr.Dataset, int]:
    """Latent variables without weights and biases of networks whose hidden layers are unknown, and how many these are."""
    if "coordinate" not in latents.coords:
        return latents, 0
    names = [str(name) for name in latents["coordinate"].values]
    keep = ~of_networks(names)
    return latents.isel(coordinate=keep) if keep.any() else xr.Dataset(), int((~keep).sum())


def of_networks(names: Sequence[str]) -> NDArray[np.bool_]:
    """Which coordinates are weights or biases of networks whose hidden layers are unknown: these, and never their paths, have symmetries.

    A network with a known body has no unknown biases, and its output's weights are as identified as coefficients of a basis.
    """
    owners = {found[1] for name in names if (found := re.fullmatch(r"(.+)/biases_\d+(?:_by_trajectory)?\[.*\]", name))}
    parts = [re.fullmatch(r"(.+)/(?:weights|biases)_\d+(?:_by_trajectory)?\[.*\]", name) for name in names]
    return np.array([part is not None and part[1] in owners for part in parts], bool)


def paths(tree: xr.DataTree) -> dict[str, str]:
    """What each parameter's path is, in words that can stand inside a sentence."""
    found = decode(tree.attrs, "paths", dict)
    return {str(n): str(how or "").removeprefix(f"{n}: ").rstrip(". ") for n, how in found.items()}


def labels(array: xr.DataArray, dim: str) -> list[str]:
    """Names along a dimension; numbers from 1 where it has none."""
    if dim not in array.dims:
        return []
    return [str(v) for v in array[dim].values] if dim in array.coords else [str(i + 1) for i in range(array.sizes[dim])]


def times(array: xr.DataArray) -> Floats:
    """Times of an array as numbers: dates become days since the first of them."""
    if "time" not in array.coords:
        return np.arange(array.sizes.get("time", 1), dtype=float)
    found = np.atleast_1d(array["time"].values)
    if np.issubdtype(found.dtype, np.datetime64):
        found = (found - found[0]) / np.timedelta64(1, "D")
    try:
        return found.astype(float)
    except (TypeError, ValueError):
        return np.arange(found.size, dtype=float)


def draws(array: xr.DataArray, last: Sequence[str]) -> Floats:
    """Values of an array as `(draw, other dimensions, *last)`; dimensions of `last` that it lacks get size 1."""
    sample = [d for d in ("chain", "draw") if d in array.dims and d not in last]
    array = array.expand_dims([d for d in last if d not in array.dims])
    other = [d for d in array.dims if d not in sample and d not in last]
    values = np.asarray(array.transpose(*sample, *other, *last).values, float)
    shape = [array.sizes[d] for d in last]
    size = math.prod(array.sizes[d] for d in other)
    return values.reshape((-1, size, *shape)) if values.size else np.full((1, size, *shape), np.nan)


def quantiles(values: Floats, levels: Sequence[float] = LEVELS) -> Floats:
    """Quantiles over the first axis; NaN draws are left out, and NaN comes where no draw is left."""
    if np.isfinite(values).all():
        return np.quantile(values, levels, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # slices without any number
        return np.nanquantile(np.where(np.isfinite(values), values, np.nan), levels, axis=0)


def _moment(values: Floats, name: str) -> Floats:
    """Mean (`mean`) or standard deviation (`sd`) over the first axis without NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=0) if name == "mean" else np.nanstd(values, axis=0, ddof=min(1, values.shape[0] - 1))


def data_end(tree: xr.DataTree) -> float | None:
    """Last time at which anything was observed."""
    observed = observation(tree, "observed_data")
    if observed is None or "time" not in observed.dims:
        return None
    seen = np.isfinite(draws(observed, ("time",))).any(axis=(0, 1))
    return float(times(observed)[seen][-1]) if seen.any() else None


def observation(tree: xr.DataTree, name: str) -> xr.DataArray | None:
    """Observed variable (`counts` or `proportions`) of a group."""
    found = group(tree, name)
    return next((found[v] for v in ("counts", "proportions") if v in found), None)


@dataclass(frozen=True)
class Quantity:
    """A parameter, as a path over time or as one number.

    Attributes
    ----------
    name, unit, description, path : text for people.
    times : `(T,)`; a quantity without time has `T = 1`.
    panels : what tells the `P` components apart (trajectory and further dimensions), `[""]` for one; the first of them, as many as were asked for.
    total : number of components before that cut.
    posterior, prior : draws `(S, P, T)`; the prior is None where it was not saved.
    log : whether spread is judged on the log scale (a positive quantity without an upper bound).
    members : for the path of a typical trajectory, posterior medians of those of the trajectories `(P, R, T)`.
    """

    name: str
    unit: str
    description: str
    path: str
    times: Floats
    panels: list[str]
    total: int
    posterior: Floats
    prior: Floats | None
    log: bool
    members: Floats | None = None

    @property
    def constant(self) -> bool:
        """Whether every draw is the same at all times."""
        both = [self.posterior] if self.prior is None else [self.posterior, self.prior]
        with np.errstate(invalid="ignore"):
            return all(np.all((np.abs(v - v[..., :1]) <= 1e-9 * np.abs(v)) | ~np.isfinite(v)) for v in both)

    @property
    def fixed(self) -> bool:
        """Whether prior and posterior are one and the same value, draw by draw."""
        first = self.posterior[:1]
        return self.prior is not None and bool(np.all(self.posterior == first) and np.all(self.prior == first))


def quantities(tree: xr.DataTree, most: int | None = MOST_PANELS) -> list[Quantity]:
    """Parameters of the game in its order, then the rest of the posterior except population and value; of each the first `most` panels."""
    posterior, prior = group(tree, "posterior"), group(tree, "prior")
    game, how = decode(tree.attrs, "game", dict), paths(tree)
    known = {p["name"]: p for p in game.get("parameters") or [] if isinstance(p, dict) and "name" in p}
    shown = [str(n) for n, a in posterior.data_vars.items() if n not in _POPULATION and a.size and a.dtype.kind in "fiub"]
    of = {n: str(posterior[n].attrs.get("group_of", n)) for n in shown}
    clock = decode(tree.attrs, "data", dict).get("time_unit")
    names = [n for k in known for n in sorted(shown, key=lambda n: n == k) if of[n] == k]
    names += [n for n in shown if n not in names]
    found = []
    for n in names:
        about = (
            known.get(of[n], {}) if of[n] == n else {**known.get(of[n], {}), "description": posterior[n].attrs.get("description")}
        )
        quantity = _quantity(n, posterior[n], prior.get(n), about, how.get(of[n], ""), most)
        unit = quantity.unit.replace("time", clock) if isinstance(clock, str) and clock else quantity.unit
        members = None if of[n] == n else _members(posterior[n], posterior.get(of[n]), most)
        found.append(replace(quantity, unit=unit, members=members))
    return found


def _members(group: xr.DataArray, own: xr.DataArray | None, most: int | None) -> Floats | None:
    """Posterior medians of the trajectories' paths `(P, R, T)`; None where the typical one differs between trajectories, too."""
    if own is None or "trajectory" in group.dims or "trajectory" not in own.dims:
        return None
    return quantiles(draws(own, ("trajectory", "time"))[:, :most], (0.5,))[0]


def _quantity(
    name: str, post: xr.DataArray, prior: xr.DataArray | None, about: Mapping[str, Any], path: str, most: int | None
) -> Quantity:
    other = [d for d in post.dims if d not in ("chain", "draw", "time")]
    panels = [" · ".join(p) for p in itertools.product(*(labels(post, str(d)) for d in other))]
    at = times(post)
    values = draws(post, ("time",))[:, :most]
    before = None
    if prior is not None and {d: prior.sizes.get(d) for d in other} == {d: post.sizes[d] for d in other}:
        before = draws(prior.transpose(..., *other), ("time",))[:, :most]
        before = (
            _onto(before, times(prior), at) if "time" in prior.dims else np.broadcast_to(before, (*before.shape[:2], at.size))
        )
    lower, upper = about.get("lower"), about.get("upper")
    positive = all(np.all(v[np.isfinite(v)] > 0) for v in (values, before) if v is not None)
    unbounded = upper is None or (isinstance(upper, int | float) and math.isinf(upper))
    declared = not about or (isinstance(lower, int | float) and lower >= 0 and unbounded)
    description = str(about.get("description") or post.attrs.get("description", ""))
    return Quantity(
        name, str(about.get("unit") or ""), description, path, at, panels[:most], len(panels),
        values, before, bool(positive and declared),
    )  # fmt: skip


def _onto(values: Floats, old: Floats, new: Floats) -> Floats:
    """Values on the times `old` at the times `new`; NaN where `old` has no such time."""
    if old.shape == new.shape and np.allclose(old, new):
        return values
    out = np.full((*values.shape[:-1], new.size), np.nan)
    if old.size:
        nearest = np.abs(new[:, None] - old[None, :]).argmin(axis=1)
        same = np.isclose(old[nearest], new, rtol=1e-9, atol=1e-9 * max(1.0, float(np.ptp(new))))
        out[..., same] = values[..., nearest[same]]
    return out


@dataclass(frozen=True)
class Learning:
    """What the data say about one component of a quantity; averages over the times that have data."""

    label: str
    unit: str
    median: float
    low: float
    high: float
    log: bool
    prior_sd: float
    posterior_sd: float
    contraction: float
    lowest: float
    highest: float
    shift: float
    verdict: str


def learning(quantity: Quantity, until: float | None) -> list[Learning]:
    """Compare posterior and prior of a quantity.

    Contraction is `1 - sd_posterior / sd_prior`, shift is `|mean_posterior - mean_prior| / sd_prior`, both on the log scale where
    `quantity.log`, time by time up to `until`, then averaged.
    """
    use = quantity.times <= until + 1e-9 if until is not None and quantity.times.size > 1 else np.ones(quantity.times.size, bool)
    use = use if use.any() else ~use
    post = quantity.posterior[..., use]
    middle = quantiles(_moment(np.moveaxis(post, -1, 0), "mean"), (0.05, 0.5, 0.95))
    change = np.log if quantity.log else np.asarray
    mean = _moment(change(post), "mean")
    single = post.shape[0] == 1
    sd = np.full_like(mean, np.nan) if single else _moment(change(post), "sd")
    known, known_mean = np.full_like(sd, np.nan), np.full_like(sd, np.nan)
    if quantity.prior is not None:
        before = change(quantity.prior[..., use])
        known, known_mean = _moment(before, "sd"), _moment(before, "mean")
    rows = []
    for p, panel in enumerate(quantity.panels):
        label = f"{quantity.name} · {panel}" if panel else quantity.name
        ok = np.isfinite(known[p]) & (known[p] > 1e-9 * (np.abs(known_mean[p]) + 1e-300))
        shrink = 1 - sd[p][ok] / known[p][ok]
        shrink = shrink[np.isfinite(shrink)]
        shift = _mean(np.abs(mean[p][ok] - known_mean[p][ok]) / known[p][ok])
        if quantity.prior is None:
            verdict = "prior not saved"
        elif not ok.any():
            verdict = "held fixed"
        elif single:
            verdict = "not assessed: one draw"
        else:
            verdict = judged(_mean(shrink), shift)
        low, median, high = (float(v) for v in middle[:, p])
        lowest, highest = (float(shrink.min()), float(shrink.max())) if shrink.size else (math.nan, math.nan)
        rows.append(
            Learning(
                label=label,
                unit=quantity.unit,
                median=median,
                low=math.nan if single else low,
                high=math.nan if single else high,
                log=quantity.log,
                prior_sd=_mean(known[p]),
                posterior_sd=_mean(sd[p]),
                contraction=_mean(shrink),
                lowest=lowest,
                highest=highest,
                shift=shift,
                verdict=verdict,
            )
        )
    return rows


def judged(contraction: float, shift: float) -> str:
    """Verdict on what the data did, from mean contraction and shift."""
    if contraction >= INFORMED:
        return "informed by the data"
    return "partly informed" if contraction >= PARTLY or shift >= SHIFTED else "prior-driven"


def _mean(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def coverage(tree: xr.DataTree, level: float = 0.9) -> dict[str, tuple[int, int]] | None:
    """Observed cells inside the predictive band, as (inside, observed) for each observed state; None where it cannot be said.

    A band wants at least 20 draws.
    """
    observed, predicted = observation(tree, "observed_data"), observation(tree, "posterior_predictive")
    if observed is None or predicted is None or predicted.sizes.get("chain", 1) * predicted.sizes.get("draw", 1) < 20:
        return None
    out = {}
    ends = ((1 - level) / 2, (1 + level) / 2)
    for s, state in enumerate(labels(observed, "state") or [""]):
        inside = total = 0
        for r in range(observed.sizes.get("trajectory", 1)):
            seen = pick(observed, r, s)
            replicas = matching(predicted, observed, r, s)
            if replicas is None:
                return None
            low, high = quantiles(_onto(replicas, times(predicted), times(observed)), ends)
            there = np.isfinite(seen[0]) & np.isfinite(low)
            inside += int(((seen[0] >= low) & (seen[0] <= high))[there].sum())
            total += int(there.sum())
        out[state] = (inside, total)
    return out


def pick(array: xr.DataArray, trajectory: int, state: int) -> Floats:
    """Draws `(S, T)` of one trajectory and one state, by position."""
    where = {d: i for d, i in (("trajectory", trajectory), ("state", state)) if d in array.dims}
    return draws(array.isel(where), ("time",))[:, 0]


def matching(array: xr.DataArray, like: xr.DataArray, trajectory: int, state: int) -> Floats | None:
    """Draws `(S, T)` of `array` for the trajectory and state that stand at these positions of `like`; None where it has none."""
    place = []
    for dim, i in (("trajectory", trajectory), ("state", state)):
        mine, theirs = labels(array, dim), labels(like, dim)
        if mine and theirs and len(set(mine)) == len(mine) and theirs[i] in mine:
            i = mine.index(theirs[i])
        elif mine and len(mine) != max(len(theirs), 1):
            return None
        place.append(i)
    return pick(array, place[0], place[1])


@dataclass(frozen=True)
class Convergence:
    """Sampling diagnostics of one variable, the worst over its components.

    `mean`, `sd`, `low` and `high` describe the variable's average over time and are NaN where it has further dimensions. Of its
    `cells` components `checked` were judged (constants are not, nor all where there are very many); `missing` of these hold
    a draw that is not finite.
    """

    name: str
    mean: float
    sd: float
    low: float
    high: float
    ess_bulk: float
    ess_tail: float
    r_hat: float
    worst: str
    cells: int
    checked: int
    missing: int


def lost_to_solves(tree: xr.DataTree) -> str:
    """How many transitions of NUTS ended at parameters without an equilibrium, as a share of all, and how many of the warm-up ended badly."""
    stats = group(tree, "sample_stats")
    if "failed_solve" not in stats:
        return ""
    failed, count = int(np.nansum(stats["failed_solve"].values)), stats["failed_solve"].size
    text = (
        f"{failed} of {count} transitions ({100 * failed / max(count, 1):.2g} %) met parameters whose equilibrium was not found"
    )
    settings = decode(tree.attrs, "inference", dict)
    bad, warmup = settings.get("warmup_bad_transitions"), settings.get("warmup_transitions")
    return text if not bad else f"{text}; of {warmup} in the warm-up {bad} did so or diverged"


def convergence(dataset: xr.Dataset, chains: bool = True) -> list[Convergence]:
    """Mean, sd, 90 % interval, ESS and R-hat of each variable; without `chains` (independent draws) no ESS and no R-hat."""
    return [
        _convergence(str(n), a, chains)
        for n, a in dataset.data_vars.items()
        if "draw" in a.dims and a.size and a.dtype.kind in "fiub"
    ]


def _convergence(name: str, array: xr.DataArray, chains: bool) -> Convergence:
    if "chain" not in array.dims:
        array = array.expand_dims("chain")
    other = [d for d in array.dims if d not in ("chain", "draw")]
    cells = math.prod(array.sizes[d] for d in other)
    low = high = mean = sd = math.nan
    if all(d == "time" for d in other):
        average = _moment(np.moveaxis(draws(array, ("time",))[:, 0], -1, 0), "mean")
        low, high = quantiles(average, (0.05, 0.95))
        mean, sd = float(_moment(average, "mean")), float(_moment(average, "sd"))
        low, high, sd = (float(low), float(high), sd) if average.size > 1 else (math.nan, math.nan, math.nan)
    if not chains or array.sizes["draw"] < 4:
        return Convergence(name, mean, sd, low, high, math.nan, math.nan, math.nan, "", cells, 0, 0)
    for dim in sorted(other, key=lambda d: d != "time"):  # first thin the times, then what else is long
        size = math.prod(array.sizes[d] for d in other)
        if size > MOST_CELLS:
            keep = max(5, array.sizes[dim] * MOST_CELLS // size)
            array = array.isel({dim: np.unique(np.linspace(0, array.sizes[dim] - 1, keep).round().astype(int))})
    axes = [labels(array, str(d)) for d in other]
    places = list(itertools.product(*axes))
    x = np.asarray(array.transpose("chain", "draw", *other).values, float).reshape(array.sizes["chain"], array.sizes["draw"], -1)
    finite = np.isfinite(x).all(axis=(0, 1))
    with np.errstate(invalid="ignore"):
        varying = ~finite | (np.ptp(x, axis=(0, 1)) > 1e-12 * np.abs(x).max(axis=(0, 1)))
    missing = int((~finite).sum())
    judged = np.flatnonzero(finite & varying)
    bulk = tail = r_hat = math.nan
    worst = ""
    if judged.size:
        chosen = x[..., judged]
        where = {"chain_axis": 0, "draw_axis": 1}
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            each_r = np.atleast_1d(arviz.rhat(chosen, **where))
            each_bulk = np.atleast_1d(arviz.ess(chosen, method="bulk", **where))
            each_tail = np.atleast_1d(arviz.ess(chosen, method="tail", prob=(0.05, 0.95), **where))
        # Chains that are stuck, each at a place of its own, have no variance within: R-hat is without bound, whatever comes out.
        r_hat = float(np.where(np.isnan(each_r), np.inf, each_r).max())
        bulk, tail = (
            float(each[np.isfinite(each)].min()) if np.isfinite(each).any() else math.nan for each in (each_bulk, each_tail)
        )
        if other and np.isfinite(each_bulk).any():
            place = places[judged[int(np.nanargmin(each_bulk))]]
            worst = ", ".join(f"{d} {shown}" for d, shown in zip(other, place, strict=True) if array.sizes[d] > 1)
    return Convergence(name, mean, sd, low, high, bulk, tail, r_hat, worst, cells, int(varying.sum()), missing)


def density(values: Floats, grid: Floats, log: bool) -> Floats:
    """Gaussian kernel density of draws on a grid, found on the log scale if `log` (so that no mass leaks below zero)."""
    x = values[np.isfinite(values)]
    x = x[:: max(1, x.size // 2000)]
    if log:
        x, grid, jacobian = np.log(x), np.log(np.maximum(grid, 1e-300)), 1 / np.maximum(grid, 1e-300)
    else:
        jacobian = np.ones_like(grid)
    if x.size < 2:
        return np.zeros_like(grid)
    quarter = np.subtract(*np.quantile(x, (0.75, 0.25))) / 1.34
    spread = min(float(np.std(x, ddof=1)), float(quarter) or math.inf)  # Silverman's rule
    if not spread > 0:
        return np.zeros_like(grid)
    width = 0.9 * spread * x.size**-0.2
    out: Floats = np.exp(-0.5 * ((grid[:, None] - x) / width) ** 2).mean(axis=1) / (width * math.sqrt(2 * math.pi)) * jacobian
    return out


def bfmi(energy: Floats) -> float:
    """Energy Bayesian fraction of missing information (Betancourt 2016, arXiv 1604.00695, equation 6)."""
    spread = float(np.var(energy)) if energy.size > 2 and np.isfinite(energy).all() else 0.0
    return float(np.mean(np.diff(energy) ** 2)) / spread if spread > 0 else math.nan
