"""Places and what moves between them, as an SVG drawing: a map where the data know where places are, a ring of states elsewhere."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from .report_page import escape, number, shorten
from .report_svg import WIDTH, Floats, mosaic

BAND = 0.9
"""Probability of the band that decides whether a state gains or loses for sure."""

TALL = 300
"""Height of the drawing; its width is `WIDTH`."""

MOST_LINES = 15
"""Pairs of states between which a line is drawn, those with the largest net flow."""

_SMALLEST, _LARGEST = 5.0, 22.0
_MARGIN = 44.0
_STYLE = (
    ".gains { fill: #14638f; } .loses { fill: #c2410c; } .gains, .loses { stroke: #fff; } .unsure { fill-opacity: .25; } "
    ".net { stroke: #5b6670; stroke-opacity: .6; fill: none; } .net.unsure { stroke-opacity: .2; } "
    ".head { fill: #5b6670; stroke: none; } .place { fill: #1c2329; "
    "paint-order: stroke; stroke: #fff; stroke-width: 3px; } "
    ".zero { stroke: #5b6670; } .post90 { fill: #14638f; fill-opacity: .2; }"
)


def located(data: xr.Dataset, places: Mapping[str, tuple[float, float]]) -> bool:
    """Whether there is a map: at least two states have places of their own."""
    return len({places[name] for name in map(str, data["state"].to_numpy()) if name in places}) > 1


def layout(names: Sequence[str], places: Mapping[str, tuple[float, float]]) -> Floats:
    """Where states are drawn `(d, 2)`: by longitude and latitude, the others in a row below; on a ring where nobody has a place."""
    inside = np.array([_MARGIN, _MARGIN]), np.array([WIDTH - _MARGIN, TALL - _MARGIN - 12.0])
    known = [k for k, name in enumerate(names) if name in places]
    if len({places[names[k]] for k in known}) < 2:
        angle = 2 * np.pi * np.arange(len(names)) / len(names) - np.pi / 2
        middle, half = 0.5 * (inside[0] + inside[1]), 0.5 * (inside[1] - inside[0])
        return np.asarray(middle + half * np.stack([np.cos(angle), np.sin(angle)], 1))
    at = np.array([places[names[k]] for k in known])
    # A degree of longitude is shorter than one of latitude, by the cosine of the latitude.
    plane = np.stack([at[:, 0] * np.cos(np.radians(at[:, 1].mean())), -at[:, 1]], 1)
    low, span = plane.min(0), np.maximum(np.ptp(plane, axis=0), 1e-12)
    others = [k for k in range(len(names)) if k not in known]
    room = inside[1] - inside[0] - np.array([0.0, 46.0 if others else 0.0])
    scale = float(np.min(room / span))
    drawn = np.empty((len(names), 2))
    drawn[known] = inside[0] + 0.5 * (room - scale * span) + scale * (plane - low)
    for i, k in enumerate(others):
        drawn[k] = (inside[0][0] + (i + 0.5) / len(others) * room[0], inside[1][1])
    return drawn


def panel(data: xr.Dataset, net: xr.DataArray, places: Mapping[str, tuple[float, float]], banded: bool = True) -> str:
    """Circles of the states and arrows of net flow between them; pale where the band holds zero, and everywhere where there are no bands.

    Parameters
    ----------
    data : `moved` (draw, interval, origin, destination) and `mu` (draw, time, state).
    net : what each state gains (draw, interval, state).
    places : longitude and latitude by state.
    """
    names = [str(name) for name in data["state"].to_numpy()]
    at = layout(names, places)
    share = data["mu"].mean("time").median("draw").to_numpy()
    distances = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)) + np.diag(np.full(len(names), np.inf))
    largest = np.clip(0.45 * float(distances.min()), 2 * _SMALLEST, _LARGEST)  # neighbours stay apart where they can
    radius = np.maximum(_SMALLEST, largest * np.sqrt(np.clip(share, 0, None) / max(float(share.max()), 1e-12)))
    tail = 0.5 * (1 - BAND)
    low, middle, high = net.sum("interval").quantile([tail, 0.5, 1 - tail], "draw").to_numpy()
    whole = data["moved"].sum("interval").transpose("draw", "origin", "destination").to_numpy()
    least, between = np.quantile(whole - whole.swapaxes(1, 2), [tail, 0.5], axis=0)
    order = np.argsort(-between, axis=None, kind="stable")[:MOST_LINES]
    lines = [(int(k) // len(names), int(k) % len(names)) for k in order if between.flat[k] > 0]
    widest = max((between[i, j] for i, j in lines), default=1.0)
    told = (
        f"Largest net flow: {names[lines[0][0]]} to {names[lines[0][1]]}, {number(float(widest))}." if lines else "No net flows."
    )
    out = [f'<svg viewBox="0 0 {WIDTH} {TALL}" role="img"><title>Places and net flows</title><desc>{escape(told)}</desc>']
    for i, j in reversed(lines):
        sure = banded and least[i, j] > 0
        out.append(_arrow(at[i], at[j], float(radius[i]), float(radius[j]), float(between[i, j] / widest), sure))
    for k, name in enumerate(names):
        style = ("gains" if middle[k] > 0 else "loses") + ("" if banded and (low[k] > 0 or high[k] < 0) else " unsure")
        tip = f"{name}: mean share {number(float(share[k]))}; net {number(float(middle[k]))}, {number(float(low[k]))} to {number(float(high[k]))}"
        out.append(
            f'<circle class="{style}" cx="{at[k, 0]:.1f}" cy="{at[k, 1]:.1f}" r="{radius[k]:.1f}"><title>{escape(tip)}</title></circle>'
        )
    for k, name in enumerate(names):
        x = float(np.clip(at[k, 0], 50, WIDTH - 50))
        y = at[k, 1] + radius[k] + 13
        out.append(f'<text class="place" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(shorten(name, 18))}</text>')
    return "".join(out) + "</svg>"


def _arrow(start: Floats, end: Floats, clear: float, reach: float, share: float, sure: bool) -> str:
    """A line from one circle's edge to another's with a head; nothing where circles touch."""
    along = end - start
    length = float(np.hypot(*along))
    width = 0.8 + 4.2 * share
    head = 4.0 + 1.5 * width
    if length <= clear + reach + head:
        return ""
    unit = along / length
    side = np.array([-unit[1], unit[0]])
    first, tip = start + clear * unit, end - reach * unit
    base = tip - head * unit
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in (tip, base + 0.5 * head * side, base - 0.5 * head * side))
    pale = "" if sure else " unsure"
    line = f'<path class="net{pale}" style="stroke-width:{width:.1f}" d="M{first[0]:.1f},{first[1]:.1f} L{base[0]:.1f},{base[1]:.1f}"/>'
    return f'{line}<polygon class="head{pale}" points="{corners}"/>'


def picture(drawn: str, over_time: Sequence[tuple[str, str]]) -> str:
    """One SVG of the map and the net flows over time."""
    return mosaic(
        [("places and net flows", drawn), *((f"net flow into {name}", one) for name, one in over_time)], style=_STYLE, columns=3
    )
