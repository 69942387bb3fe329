"""Sections of the report that are made of charts: parameters, predictions, population and value."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from bayes_mfg.errors import InputError

from .report_page import charts, figure, interval, legend, number, paragraph, plural, table
from .report_stats import (
    MOST_PANELS,
    Floats,
    Quantity,
    coverage,
    data_end,
    decode,
    density,
    draws,
    group,
    labels,
    matching,
    observation,
    pick,
    quantiles,
    quantities,
    times,
)
from .report_svg import HEIGHT, Band, Layer, Line, Points, chart, mosaic, view
from .stopping import BATCH, batches

_REACH = (
    1.0  # how far, in heights of the posterior's band, a chart follows the prior's; a single draw has no band and no such limit
)
_MOST_STATES = 8
_PRIOR = ("prior90", "prior, 90 % band")
_POSTERIOR = [("median", "posterior median"), ("post50", "50 % band"), ("post90", "90 % band")]
_SWITCH = "The prior’s band runs beyond the frame of some charts, which follow the posterior."


def absent(text: str) -> str:
    """Sentence that stands where a part of the tree is missing."""
    return paragraph(text, "absent")


def time_label(tree: xr.DataTree) -> str:
    """Title of time axes."""
    unit = decode(tree.attrs, "data", dict).get("time_unit")
    return f"time ({unit})" if unit else "time"


def _range(x: Floats) -> tuple[float, float]:
    return (float(x.min()), float(x.max())) if x.size else (0.0, 1.0)


def _end(x: Floats, until: float | None) -> float | None:
    """Where to mark the end of the data: only inside the axis."""
    return until if until is not None and x.size and x.min() <= until < x.max() - 1e-9 else None


def _bands(x: Floats, q: Floats) -> list[Layer]:
    """90 % band, 50 % band and median from quantiles `(5, T)`; the median alone where there is no spread."""
    spread = np.any(q[4] - q[0] > 0)
    bands: list[Layer] = [Band(x, q[0], q[4], "post90"), Band(x, q[1], q[3], "post50")] if spread else []
    return [*bands, Line(x, q[2], "median")]


def _reach(q: Floats, reach: float) -> float:
    """How far to follow the prior: all the way where quantiles `(5, ...)` have no spread to compare with."""
    return reach if np.any(q[4] > q[0]) else np.inf


def _story(x: Floats, q: Floats) -> str:
    """Description of a band for people who do not see it."""
    there = np.flatnonzero(np.isfinite(q[2]))
    if not there.size:
        return "No finite values."
    return "; ".join(
        f"at {number(float(x[i]))} median {number(float(q[2, i]))}, 90 % interval {interval(float(q[0, i]), float(q[4, i]))}"
        for i in dict.fromkeys((int(there[0]), int(there[there.size // 2]), int(there[-1])))
    )


def parameters(tree: xr.DataTree) -> str:
    """Posterior of each parameter against its prior."""
    found = quantities(tree)
    if not found:
        return absent("This fit holds no posterior draws of parameters.")
    figures, styles, cut, hidden = [], set(), False, []
    for quantity in found:
        detail = "; ".join(t for t in (quantity.description, quantity.path) if t)
        if quantity.total > len(quantity.panels):
            hidden.append(f"{quantity.name}: {len(quantity.panels)} of {quantity.total} components shown.")
        if quantity.fixed:
            hidden.append(f"{quantity.name} is held fixed and has no chart.")
        for name, drawing, style, beyond in _drawn(tree, quantity):
            figures.append(figure(drawing, name, quantity.unit, detail))
            styles.add(style)
            cut = cut or beyond
    spread = any(q.posterior.shape[0] > 1 for q in found)
    entries = [*(_POSTERIOR if spread else [("median", "estimate")])] if "path" in styles else []
    if any(q.members is not None and not q.constant for q in found):
        entries += [("member", "medians of the trajectories")]
    entries += [_PRIOR] if "path" in styles and any(q.prior is not None for q in found) else []
    if "density" in styles and spread:
        entries += [("density", "posterior density")]
    if styles & {"density", "interval"}:
        entries += [("bar50", "50 % interval"), ("bar90", "90 % interval")] if spread else []
        entries += [("bar-prior", "prior, 90 % interval")]
    notes = paragraph(" ".join(([_SWITCH] if cut else []) + hidden), "small") if cut or hidden else ""
    still = "Quantities that do not change over time are shown by their density and intervals. " if styles - {"path"} else ""
    if all(q.prior is None for q in found):
        still += "The prior was not saved with this fit."
    return (paragraph(still, "small") if still else "") + legend(entries) + charts(figures) + notes


def _drawn(tree: xr.DataTree, quantity: Quantity) -> list[tuple[str, str, str, bool]]:
    """Charts of a quantity: name, drawing, style, and whether the prior's band leaves the frame."""
    if quantity.fixed:
        return []
    if quantity.constant and len(quantity.panels) == 1:
        return [(quantity.name, _density(quantity), "density", False)]
    if quantity.constant:
        return [(quantity.name, _intervals(quantity), "interval", False)]
    until, axis = data_end(tree), time_label(tree)
    paths = [_path(quantity, p, until, axis) for p in range(len(quantity.panels))]
    names = [f"{quantity.name} · {panel}" if panel else quantity.name for panel in quantity.panels]
    return [(name, drawing, "path", beyond) for name, (drawing, beyond) in zip(names, paths, strict=True)]


def picture(tree: xr.DataTree, what: str) -> str:
    """One SVG picture of a fit's parameters or of its predictions.

    Raises
    ------
    InputError : for something else, and where the fit holds nothing of the kind.
    """
    if what == "parameters":
        drawings = [(name, drawing) for quantity in quantities(tree) for name, drawing, _, _ in _drawn(tree, quantity)]
    elif what == "predictions":
        drawings = [(name, drawing) for name, drawing, _ in _predicted(tree)]
    else:
        raise InputError(f"plot: what is {what!r}; 'parameters' or 'predictions' is needed.")
    if not drawings:
        raise InputError(f"plot: this fit holds no {what}.")
    return mosaic(drawings)


def _path(quantity: Quantity, panel: int, until: float | None, axis: str) -> tuple[str, bool]:
    """Bands of one path over time, and whether the prior's band leaves the frame."""
    x, q = quantity.times, quantiles(quantity.posterior[:, panel])
    before = quantiles(quantity.prior[:, panel]) if quantity.prior is not None else None
    extra = [before[0], before[4]] if before is not None else []
    q_positive = q[np.isfinite(q)]
    log = bool(quantity.log and q_positive.size and q_positive.min() > 0 and q_positive.max() > 30 * q_positive.min())
    low, high, cut = view([q], extra, _reach(q, _REACH), log)
    layers: list[Layer] = [Band(x, before[0], before[4], "prior90")] if before is not None else []
    members = [] if quantity.members is None else list(quantity.members[panel])
    if members:
        low, high, cut = view([q, *members], extra, _reach(q, _REACH), log)
    drawing = chart(
        [*layers, *_bands(x, q), *(Line(x, member, "member") for member in members)],
        title=f"{quantity.name} {quantity.panels[panel]} over time",
        description=f"Posterior {_story(x, q)}." + (f" Prior {_story(x, before)}." if before is not None else ""),
        x_label=axis,
        x_range=_range(x),
        y_range=(low, high),
        y_log=log,
        data_end=_end(x, until),
    )
    return drawing, cut


def _flat(quantity: Quantity) -> tuple[Floats, Floats | None]:
    """Draws of a constant quantity: posterior `(S, P)` and prior `(K, P)`."""
    return quantity.posterior[..., 0], quantity.prior[..., 0] if quantity.prior is not None else None


def _density(quantity: Quantity) -> str:
    """Densities of posterior and prior of one number, with their intervals underneath."""
    post, prior = _flat(quantity)
    q = quantiles(post)[:, 0]
    extra = quantiles(prior)[:, 0] if prior is not None else None
    # On a linear axis an interval over more than a decade would be a spike at the left edge.
    log = bool(quantity.log and q[0] > 0 and q[4] > 10 * q[0])
    low, high, _ = view([quantiles(post, (0.002, 0.998))], [extra[[0, 4]]] if extra is not None else [], _reach(q, 2.0), log)
    grid = np.geomspace(low, high, 241) if log else np.linspace(low, high, 241)
    unit = grid if log else np.ones_like(grid)  # per unit of the logarithm, so that areas are probabilities there, too
    mine = unit * density(post, grid, quantity.log)
    theirs = unit * density(prior, grid, quantity.log) if prior is not None else np.zeros_like(grid)
    top = float(max(mine.max(), theirs.max())) or 1.0
    layers: list[Layer] = [Band(grid, np.zeros_like(grid), theirs, "prior90")] if theirs.any() else []
    layers += [Band(grid, np.zeros_like(grid), mine, "density")] if mine.any() else [Line([q[2], q[2]], [0, top], "median")]
    layers += _bar(q, extra, -0.1 * top, -0.19 * top)
    return chart(
        layers,
        title=f"Density of {quantity.name}",
        description=f"Posterior median {number(float(q[2]))}, 90 % interval {interval(float(q[0]), float(q[4]))}."
        + (
            f" Prior median {number(float(extra[2]))}, 90 % interval {interval(float(extra[0]), float(extra[4]))}."
            if extra is not None
            else ""
        ),
        x_label=(quantity.unit or quantity.name) + (" (log scale)" if log else ""),
        x_range=(low, high),
        x_log=log,
        y_range=(-0.27 * top, 1.06 * top),
        y_labels=(),
    )


def _bar(q: Floats, prior: Floats | None, at: float, below: float) -> list[Layer]:
    """Interval bars of the posterior, and of the prior underneath."""
    bars: list[Layer] = [Line([prior[0], prior[4]], [below, below], "bar-prior")] if prior is not None else []
    if q[4] > q[0]:
        bars += [Line([q[0], q[4]], [at, at], "bar90"), Line([q[1], q[3]], [at, at], "bar50")]
    return [*bars, Points([q[2]], [at], "dot")]


def _intervals(quantity: Quantity) -> str:
    """Interval chart of a constant quantity with several components, one row each."""
    post, prior = _flat(quantity)
    q = quantiles(post)
    before = quantiles(prior) if prior is not None else None
    count = len(quantity.panels)
    low, high, _ = view([q], [before[[0, 4]]] if before is not None else [], _reach(q, 1.0))
    layers: list[Layer] = []
    for p in range(count):
        row = count - 1 - p  # the first on top
        layers += _bar(q[:, p], before[:, p] if before is not None else None, row + 0.1, row - 0.22)
    return chart(
        layers,
        title=f"Intervals of {quantity.name}",
        description="; ".join(
            f"{name}: median {number(float(q[2, p]))}, 90 % interval {interval(float(q[0, p]), float(q[4, p]))}"
            for p, name in enumerate(quantity.panels)
        ),
        x_label=quantity.unit or quantity.name,
        x_range=(low, high),
        y_range=(-0.6, count - 0.4),
        y_labels=quantity.panels[::-1],
        height=max(HEIGHT, 60 + 26 * count),
    )


def _most(array: xr.DataArray, most: int) -> list[int]:
    """Positions of the states with the greatest average, at most `most`, in the order of the array."""
    if array.sizes.get("state", 1) <= most:
        return list(range(array.sizes.get("state", 1)))
    means = np.nan_to_num(np.asarray(array.mean([d for d in array.dims if d != "state"]).values, float), nan=-np.inf)
    return sorted(int(i) for i in np.argsort(-means, kind="stable")[:most])


def _shown(total: int, shown: int, noun: str) -> list[str]:
    return [f"Shown are {shown} of {plural(total, noun)}."] if total > shown else []


def predictions(tree: xr.DataTree) -> str:
    """Posterior predictive bands against the data."""
    observed, predicted = observation(tree, "observed_data"), observation(tree, "posterior_predictive")
    source = observed if observed is not None else predicted
    if source is None:
        return absent("This fit holds neither observed data nor predictions.")
    before = observation(tree, "prior_predictive")
    tracks, states = labels(source, "trajectory") or [""], labels(source, "state") or [""]
    unit = "count" if source.name == "counts" else "proportion"
    drawn = _predicted(tree)
    entries = [("data", "data")] if observed is not None else []
    if predicted is not None:
        spread = predicted.sizes.get("chain", 1) * predicted.sizes.get("draw", 1) > 1
        entries += [("median", "predictive median"), *_POSTERIOR[1:]] if spread else [("median", "one predictive draw")]
    entries += [("prior90", "prior predictive, 90 % band")] if before is not None else []
    notes = _shown(len(tracks), min(len(tracks), MOST_PANELS), "trajectory")
    notes += _shown(len(states), len(_most(source, _MOST_STATES)), "observed state")
    notes += [_SWITCH] if any(beyond for *_, beyond in drawn) else []
    lead = (
        _covered(tree, unit)
        if predicted is not None
        else absent("This fit holds no predictions: the charts show the data alone.")
    )
    if observed is None:
        lead = absent("This fit holds no observed data: the charts show predictions alone.")
    figures = [figure(drawing, name, unit) for name, drawing, _ in drawn]
    return lead + legend(entries) + charts(figures) + (paragraph(" ".join(notes), "small") if notes else "")


def _predicted(tree: xr.DataTree) -> list[tuple[str, str, bool]]:
    """Charts of predictions and data, by trajectory and state: name, drawing, and whether the prior's band leaves the frame."""
    observed, predicted = observation(tree, "observed_data"), observation(tree, "posterior_predictive")
    before = observation(tree, "prior_predictive")
    source = observed if observed is not None else predicted
    if source is None:
        return []
    tracks, states = labels(source, "trajectory") or [""], labels(source, "state") or [""]
    axis = time_label(tree)
    found = []
    for r, track in enumerate(tracks[:MOST_PANELS]):
        for s in _most(source, _MOST_STATES):
            core: list[Floats] = []
            layers: list[Layer] = []
            extra: list[Floats] = []
            story, until, x = "", None, times(source)
            replicas = matching(predicted, source, r, s) if predicted is not None else None
            prior = matching(before, source, r, s) if before is not None else None
            if before is not None and prior is not None:
                q = quantiles(prior)
                extra = [q[0], q[4]]
                layers.append(Band(times(before), q[0], q[4], "prior90"))
            if predicted is not None and replicas is not None:
                q, x = quantiles(replicas), times(predicted)
                core.append(q)
                layers += _bands(x, q)
                story = f"Prediction {_story(x, q)}."
            if observed is not None:
                seen, at = pick(observed, r, s)[0], times(observed)
                core.append(seen)
                layers.append(Points(at, seen, "data"))
                until = float(at[np.isfinite(seen)][-1]) if np.isfinite(seen).any() else None
                x = np.union1d(x, at)
                story += f" {plural(int(np.isfinite(seen).sum()), 'observation')}."
            low, high, beyond = view(core, extra, 0.35)
            name = " · ".join(([track] if len(tracks) > 1 else []) + [states[s]])
            drawing = chart(
                layers, title=f"Predictions and data: {name}", description=story.strip(), x_label=axis,
                x_range=_range(x), y_range=(low, high), data_end=_end(x, until),
            )  # fmt: skip
            found.append((name, drawing, beyond))
    return found


def _covered(tree: xr.DataTree, unit: str) -> str:
    found = coverage(tree)
    if not found:
        return paragraph("There are too few draws for predictive bands.", "small")
    inside, total = (sum(v[i] for v in found.values()) for i in (0, 1))
    text = (
        f"{inside} of {plural(total, 'observed cell')} ({number(inside / max(total, 1) * 100)} %) lie inside the 90 % predictive "
        "band, which includes observation noise. These are the data that the model was fitted to: a share far from 90 % speaks "
        "against the observation model, and no share proves that forecasts are good."
    )
    if len(found) == 1:
        return paragraph(text)
    rows = [
        (state, str(total), str(inside), f"{number(inside / max(total, 1) * 100)} %") for state, (inside, total) in found.items()
    ]
    return paragraph(text) + table(("state", "observed cells", "inside the 90 % band", "share"), rows, label="Coverage by state")


def trajectories(tree: xr.DataTree) -> str:
    """Equilibrium population and value of each trajectory."""
    posterior = group(tree, "posterior")
    names = [n for n in ("mu", "value") if n in posterior]
    if not names:
        return absent("This fit holds neither population nor value trajectories.")
    first = posterior[names[0]]
    tracks, states, chosen = labels(first, "trajectory") or [""], labels(first, "state") or [""], _most(first, _MOST_STATES)
    until, axis = data_end(tree), time_label(tree)
    titles = {
        "mu": ("population", "share of the agents in each state"),
        "value": ("value", "expected cost from this time on, by state"),
    }
    figures = []
    for r, track in enumerate(tracks[:MOST_PANELS]):
        for name in names:
            title = " · ".join([titles[name][0], *([track] if len(tracks) > 1 else [])])
            figures.append(figure(_by_state(posterior[name], r, chosen, states, title, axis, until), title, "", titles[name][1]))
    notes = _shown(len(tracks), min(len(tracks), MOST_PANELS), "trajectory")
    if len(states) > len(chosen):
        notes.append(f"Shown are the {len(chosen)} of {len(states)} states with the greatest average {titles[names[0]][0]}.")
    key = legend([(f"line s{k}", states[s]) for k, s in enumerate(chosen)])
    spread = first.sizes.get("chain", 1) * first.sizes.get("draw", 1) > 1
    lead = paragraph("Lines are posterior medians, shaded areas 90 % bands." if spread else "Lines are the estimate.", "small")
    return lead + key + charts(figures) + (paragraph(" ".join(notes), "small") if notes else "")


def elbo(tree: xr.DataTree) -> str:
    """The ELBO over the variational updates; nothing where there were none."""
    found = group(tree, "elbo")
    if "elbo" not in found:
        return ""
    y = batches(np.asarray(found["elbo"].values, float))
    x = found.sizes["update"] - BATCH * np.arange(len(y), dtype=float)[::-1]
    if np.isfinite(y).sum() < 2:
        return ""
    low, high = np.nanquantile(y, 0.05), np.nanmax(y)  # the first updates may lie far below
    margin = 0.1 * max(high - low, 1e-6)
    drawing = chart(
        [Line(x, y, "median")],
        title="ELBO over the updates",
        description=f"From {number(float(y[np.isfinite(y)][0]))} to {number(float(y[np.isfinite(y)][-1]))}.",
        x_label="update",
        x_range=_range(x),
        y_range=(low - margin, high + margin),
    )
    text = f"Medians of {BATCH} updates each. The ELBO is a lower bound on the log evidence; where it still rises, the guide had not settled."
    return charts([figure(drawing, f"ELBO of {plural(int(found.sizes['update']), 'update')}")]) + paragraph(text, "small")


def _by_state(
    array: xr.DataArray, trajectory: int, chosen: Sequence[int], states: Sequence[str], title: str, axis: str, until: float | None
) -> str:
    """Bands of one trajectory, one colour per state."""
    where = {"trajectory": min(trajectory, array.sizes["trajectory"] - 1)} if "trajectory" in array.dims else {}
    values = draws(array.isel(where), ("time", "state"))[:, 0]
    x = times(array)
    q = quantiles(values[..., [s for s in chosen if s < values.shape[-1]]], (0.05, 0.5, 0.95))
    areas: list[Layer] = []
    lines: list[Layer] = []
    for k in range(q.shape[-1]):
        if np.any(q[2, :, k] > q[0, :, k]):
            areas.append(Band(x, q[0, :, k], q[2, :, k], f"area s{k}"))
        lines.append(Line(x, q[1, :, k], f"line s{k}"))
    low, high, _ = view([q])
    ends = "; ".join(
        f"{states[s]}: from {number(float(q[1, 0, k]))} to {number(float(q[1, -1, k]))}"
        for k, s in enumerate(chosen)
        if k < q.shape[-1]
    )
    return chart(
        [*areas, *lines], title=title, description=f"Medians, {ends}.", x_label=axis,
        x_range=_range(x), y_range=(low, high), data_end=_end(x, until),
    )  # fmt: skip
