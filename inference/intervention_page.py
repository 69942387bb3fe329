"""Figures and page of interventions: both sides and their difference over time, from results or from what a fit's tree keeps of them."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from bayes_mfg.errors import InputError

from .files import write_whole
from .intervention_result import BAND, Intervention
from .report_page import charts, document, escape, figure, legend, number, paragraph, table
from .report_svg import HEIGHT, WIDTH, Band, Floats, Layer, Line, chart, mosaic, view

MOST_STATES, MOST_RESULTS = 3, 4
"""States that a picture shows, the most changed ones; and results in one picture, for want of colours."""

MOST_FIGURES = 6
"""States that a page shows."""

KEPT = "intervention"
"""Group of a fit's tree."""

PROBS = (0.5 - BAND / 2, 0.5, 0.5 + BAND / 2)

_COLOURS = ("#14638f", "#c2410c", "#2f7d4f", "#8a4fa3")
_STYLE = ".window { fill: #eef1f4; } .news { stroke: #5b6670; stroke-dasharray: 2 3; } .zero { stroke: #5b6670; } " + " ".join(
    f".line.s{k} {{ stroke: {c}; stroke-width: 2; }} .area.s{k} {{ fill: {c}; fill-opacity: .2; }} "
    f".base.s{k} {{ stroke: {c}; stroke-width: 1.5; stroke-dasharray: 5 3; }}"
    for k, c in enumerate(_COLOURS)
)


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """What is drawn of one result: quantiles `(3, T, d)` of shares on both sides and of their difference."""

    times: Floats
    states: tuple[str, ...]
    baseline: Floats
    changed: Floats
    difference: Floats
    windows: tuple[tuple[float, float], ...]
    news: tuple[float, ...]
    banded: bool = True

    @classmethod
    def of(cls, found: Intervention, trajectory: str | None) -> "Shown":
        """Of one trajectory, or of the mean over all.

        Raises
        ------
        InputError : when there is no such trajectory.
        """
        names = [str(name) for name in found.baseline["trajectory"].to_numpy()]
        if trajectory is not None and trajectory not in names:
            raise InputError(f"plot: there is no trajectory {trajectory!r}; the result has {', '.join(names)}.")
        before, after = (
            (
                side["mu"].mean("trajectory") if trajectory is None else side["mu"].isel(trajectory=names.index(trajectory))
            ).to_numpy()
            for side in (found.baseline, found.changed)
        )
        states = tuple(str(name) for name in found.baseline["state"].to_numpy())
        before90, after90, moved90 = (np.quantile(values, PROBS, axis=0) for values in (before, after, after - before))
        return cls(found.baseline["time"].to_numpy(), states, before90, after90, moved90, found.windows, found.news, found.banded)


def stored(found: Intervention, name: str = "") -> xr.Dataset:
    """What a fit's tree keeps of a result under its scenario's name: quantiles of the mean over trajectories, sentences and the table."""
    shown = Shown.of(found, None)
    sides = np.stack([shown.baseline, shown.changed, shown.difference])
    table = found.table() if found.banded else found.table().drop(columns=["low", "high"])
    rows = table.reset_index().to_dict("split", index=False)
    said = {"sentences": found.sentences, "windows": shown.windows, "news": shown.news, "table": rows, "banded": found.banded}
    return xr.Dataset(
        {"share": (("side", "quantile", "time", "state"), sides)},
        coords={
            "side": ["baseline", "changed", "difference"],
            "quantile": list(PROBS),
            "time": shown.times,
            "state": list(shown.states),
        },
        attrs={"name": name, **{key: json.dumps(value) for key, value in said.items()}},
    )


def picture(results: Mapping[str, Intervention], trajectory: str | None) -> str:
    """One SVG picture: the shares of the most changed states on both sides, and under them their differences.

    Raises
    ------
    InputError : for more results than there are colours, and for results with different states.
    """
    if len(results) > MOST_RESULTS:
        raise InputError(f"plot: {len(results)} results are given; at most {MOST_RESULTS} can be told apart.")
    shown = {name: Shown.of(found, trajectory) for name, found in results.items()}
    first = next(iter(shown.values()))
    for name, one in shown.items():
        if one.states != first.states:
            raise InputError(
                f"plot: {name!r} has the states {', '.join(one.states)}; the first result has {', '.join(first.states)}."
            )
    states = _most_changed(list(shown.values()), MOST_STATES)
    values = list(shown.values())
    shares = [(f"share in {first.states[s]}", _panel(values, s, first.states[s], difference=False)) for s in states]
    moved = [(f"difference in {first.states[s]}", _panel(values, s, first.states[s], difference=True)) for s in states]
    return mosaic([*shares, ("", _key(list(shown))), *moved], style=_STYLE, columns=len(states) + 1)


def _most_changed(shown: Sequence[Shown], most: int) -> list[int]:
    change = np.max([np.abs(one.difference[1]).max(axis=0) for one in shown], axis=0)
    return sorted(int(s) for s in np.argsort(-change, kind="stable")[:most])


def _panel(shown: Sequence[Shown], state: int, name: str, *, difference: bool) -> str:
    """One state over time in every result: shares with dashed baselines, or differences."""
    low, high, _ = view([one.difference[:, :, state] if difference else _both(one, state) for one in shown], [], 0.0)
    ends = float(min(one.times[0] for one in shown)), float(max(one.times[-1] for one in shown))
    layers: list[Layer] = [
        Band(window, (low, low), (high, high), "window") for window in sorted({w for one in shown for w in one.windows})
    ]
    layers += [Line((t, t), (low, high), "news") for t in sorted({t for one in shown for t in one.news if t > ends[0]})]
    layers += [Line(ends, (0.0, 0.0), "zero")] if difference else []
    told = []
    for k, one in enumerate(shown):
        side = one.difference if difference else one.changed
        low90, middle, high90 = side[:, :, state]
        if one.banded and np.any(high90 > low90):
            layers.append(Band(one.times, low90, high90, f"area s{k}"))
        same = any(
            other.baseline.shape == one.baseline.shape and np.allclose(other.baseline, one.baseline, atol=1e-6)
            for other in shown[:k]
        )
        if not difference and not same:
            layers.append(Line(one.times, one.baseline[1, :, state], f"base s{k}"))
        layers.append(Line(one.times, middle, f"line s{k}"))
        at = int(np.argmax(np.abs(one.difference[1, :, state])))
        band = f", from {number(float(low90[at]))} to {number(float(high90[at]))}" if one.banded else ""
        told.append(f"at {number(float(one.times[at]))} median {number(float(middle[at]))}{band}")
    words = f"{'Difference from the baseline' if difference else 'Share'} over time where it differs most: {'; '.join(told)}."
    return chart(layers, title=name, description=words, x_label="time", x_range=ends, y_range=(low, high))


def _both(one: Shown, state: int) -> Floats:
    return np.concatenate([one.baseline[1:2, :, state], one.changed[:, :, state]])


def _key(names: Sequence[str]) -> str:
    """What the colours are, in a panel of its own."""
    rows = [(f"line s{k}", name) for k, name in enumerate(names)]
    rows += [("base s0", "dashed: its baseline"), ("news", "dotted: news arrive"), ("window", "shaded: the window")]
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}">']
    for k, (style, text) in enumerate(rows):
        y = 26 + 22 * k
        mark = (
            f'<rect class="window" x="14" y="{y - 10}" width="30" height="12"/>'
            if style == "window"
            else f'<path class="{style}" d="M14,{y - 4} h30"/>'
        )
        parts.append(f'{mark}<text x="54" y="{y}">{escape(text)}</text>')
    return "".join(parts) + "</svg>"


def section(kept: xr.Dataset) -> str:
    """Sentences, figures and table of one result that a tree keeps."""
    said = {name: json.loads(kept.attrs[name]) for name in ("sentences", "windows", "news", "table")}
    before, after, moved = kept["share"].transpose("side", "quantile", "time", "state").to_numpy()
    states = tuple(str(name) for name in kept["state"].to_numpy())
    windows = tuple((float(a), float(b)) for a, b in said["windows"])
    banded = bool(json.loads(kept.attrs.get("banded", "true")))  # older fits say nothing of it
    shown = Shown(kept["time"].to_numpy(), states, before, after, moved, windows, tuple(said["news"]), banded)
    figures = []
    for s in _most_changed([shown], MOST_FIGURES):
        figures.append(figure(_panel([shown], s, states[s], difference=False), states[s], "share"))
        figures.append(figure(_panel([shown], s, states[s], difference=True), states[s], "difference in share"))
    frame = pd.DataFrame(said["table"]["data"], columns=said["table"]["columns"])
    rows = [[str(row[0]), str(row[1]), *[number(float(x)) for x in row[2:]]] for row in frame.itertuples(index=False)]
    words = "".join(f"<li>{escape(text)}</li>" for text in said["sentences"][1:])
    lead = paragraph(
        f"{said['sentences'][0]} Shares are means over trajectories{f', bands hold {BAND:.0%} of the draws' if banded else ''}."
    )
    band = [("area s0", f"{BAND:.0%} band")] if banded else []
    key = legend([("line s0", "with the intervention"), ("base s0", "baseline of the same draws"), *band])
    return (
        lead
        + f'<ul class="prose">{words}</ul>'
        + key
        + charts(figures)
        + table([*map(str, frame.columns)], rows, label="Differences", text_columns=(0, 1))
    )


def write_page(results: Mapping[str, Intervention], path: str | os.PathLike[str]) -> Path:
    """Write an HTML page of results by the names of their scenarios; it appears whole or not at all.

    Raises
    ------
    InputError : when the folder does not exist.
    """
    parts = [
        (f"scenario-{k}", name or found.description, section(stored(found, name)))
        for k, (name, found) in enumerate(results.items())
    ]
    return write_whole(path, document("Interventions", "bayes-mfg intervene", parts))


def sections(tree: xr.DataTree) -> str:
    """All results that a fit's tree keeps; empty where there are none."""
    if KEPT not in tree.children:
        return ""
    kept = [node.to_dataset() for node in tree[KEPT].children.values()]
    return "".join((f"<h3>{escape(one.attrs['name'])}</h3>" if one.attrs["name"] else "") + section(one) for one in kept)


def keep(tree: xr.DataTree, results: Mapping[str, Intervention]) -> None:
    """Put results into a fit's tree, by the names of their scenarios, in place of earlier ones."""
    tree[KEPT] = xr.DataTree.from_dict({f"/{k}": stored(found, name) for k, (name, found) in enumerate(results.items())})
