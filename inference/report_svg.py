"""Small line, band and interval charts as inline SVG.

Colours, line widths and fonts come from classes in `report.css`, so that one drawing serves light and dark screens and paper; a
plotting library would fix them at drawing time. Coordinates are rounded to a tenth of a unit, which keeps a page of charts small.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .report_page import escape, shorten

WIDTH, HEIGHT = 380, 224
_RIGHT, _TOP, _BOTTOM = 12, 10, 36
_CHARACTER = 6.4  # width of a digit at the font size of report.css
_MOST_POINTS = 400

_COLUMNS, _CAPTION = 4, 22
_STYLE = """
text { font: 11.5px system-ui, sans-serif; fill: #5b6670; } .caption { font-weight: 600; fill: #1c2329; font-size: 13px; }
path, circle { fill: none; stroke-linejoin: round; } .grid { stroke: #e9ecef; } .axis { stroke: #5b6670; }
.prior90 { fill: #8b7d66; fill-opacity: .17; stroke: #8b7d66; stroke-opacity: .75; stroke-dasharray: 4 3; }
.dot { fill: #14638f; } .median { stroke: #14638f; stroke-width: 2; } .density { fill: #14638f; fill-opacity: .25; stroke: #14638f; }
"""

type Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """Area between two curves."""

    x: ArrayLike
    low: ArrayLike
    high: ArrayLike
    style: str


@dataclass(frozen=True)
class Line:
    """Curve through points; broken where a value is not finite."""

    x: ArrayLike
    y: ArrayLike
    style: str


@dataclass(frozen=True)
class Points:
    """Separate points; those that are not finite are left out."""

    x: ArrayLike
    y: ArrayLike
    style: str


type Layer = Band | Line | Points


@dataclass(frozen=True)
class _Scale:
    """Map of one axis from data to drawing units, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: ArrayLike) -> Floats:
        v = np.asarray(values, float)
        low, high = self.low, self.high
        if self.log:
            with np.errstate(all="ignore"):
                v = np.log(v)
            low, high = math.log(low), math.log(high)
        drawn = self.start + (v - low) / (high - low) * (self.end - self.start)
        # Far outside the frame all places look the same, and enormous coordinates upset some renderers.
        return np.clip(drawn, -1e4, 1e4)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) from `low` to `high`, at most about `most` of them."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    base = 10.0 ** math.floor(math.log10(span / most))
    step = next(m * base for m in (1, 2, 5, 10, 20) if span / (m * base) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Powers of ten, with their doubles and fives where there is room, from `low` to `high`."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**e for e in range(first, last + 1) for m in multiples if low <= m * 10.0**e <= high]
        if len(found) <= most:
            break
    stride = max(1, math.ceil(len(found) / most))
    return found[::stride] if len(found) >= 2 else ticks(low, high)


def tick_labels(values: Sequence[float], log: bool = False) -> list[str]:
    """Labels of ticks with as many digits as tell them apart."""
    if log or len(values) < 2:
        return [f"{v:.3g}".replace("-", "−") for v in values]
    step, largest = abs(values[1] - values[0]), max(abs(v) for v in values)
    if largest >= 1e5 or step < 1e-4:
        digits = max(0, math.ceil(math.log10(max(largest / step, 1.0)) - 1e-9))
        texts = [f"{v:.{digits}e}" if v else "0" for v in values]
        texts = [t.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e") for t in texts]
    else:
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        texts = [f"{v:.{decimals}f}" for v in values]
    return [t.replace("-", "−") for t in texts]


def view(
    core: Sequence[ArrayLike], extra: Sequence[ArrayLike] = (), reach: float = 1.0, log: bool = False
) -> tuple[float, float, bool]:
    """Range of an axis that shows all of `core`, and of `extra` at most `reach` times the height of `core` beyond it.

    On a logarithmic axis heights are those of logarithms, and only positive values count.

    Returns
    -------
    low, high, cut : the range with a margin, and whether `extra` runs out of it.
    """
    if log:
        with np.errstate(all="ignore"):
            low, high, cut = view([np.log(a) for a in core], [np.log(a) for a in extra], reach)
        return math.exp(low), math.exp(high), cut
    low, high = _extent(core)
    beyond_low, beyond_high = _extent(extra) if extra else (low, high)
    if not math.isfinite(low):
        low, high = beyond_low, beyond_high
    if not math.isfinite(low):
        return 0.0, 1.0, False
    span = high - low or max(abs(high) * 0.1, 1e-12)
    cut = beyond_low < low - reach * span or beyond_high > high + reach * span
    bottom = min(low, max(beyond_low, low - reach * span)) if math.isfinite(beyond_low) else low
    top = max(high, min(beyond_high, high + reach * span)) if math.isfinite(beyond_high) else high
    margin = 0.05 * (top - bottom) or 0.1 * abs(top) or 1.0
    # A margin below zero would suggest that negative values were possible.
    return (max(bottom - margin, 0.0) if bottom >= 0 else bottom - margin), top + margin, cut


def _extent(arrays: Sequence[ArrayLike]) -> tuple[float, float]:
    """Smallest and largest finite number; NaN where there is none."""
    flat = np.concatenate([np.asarray(a, float).ravel() for a in arrays]) if arrays else np.empty(0)
    flat = flat[np.isfinite(flat)]
    return (float(flat.min()), float(flat.max())) if flat.size else (math.nan, math.nan)


def _thin(size: int) -> NDArray[np.intp]:
    """Indices of at most `_MOST_POINTS` evenly spaced points, the ends among them."""
    return np.unique(np.linspace(0, size - 1, min(size, _MOST_POINTS)).round().astype(np.intp))


def _runs(*columns: Floats) -> list[slice]:
    """Stretches in which all columns are finite."""
    good = np.concatenate([[False], np.all(np.isfinite(np.stack(columns)), axis=0), [False]]).astype(int)
    edges = np.flatnonzero(np.diff(good))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _track(x: Floats, y: Floats) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _dots(layer: Points, along: _Scale, up: _Scale) -> str:
    """Points inside the frame."""
    x, y = (np.atleast_1d(np.asarray(v, float)) for v in (layer.x, layer.y))
    slack = 1e-9 * (along.high - along.low)
    inside = (x >= along.low - slack) & (x <= along.high + slack) & (y >= up.low) & (y <= up.high)
    places = zip(along(x[inside]), up(y[inside]), strict=True)
    return "".join(f'<circle class="{layer.style}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in places)


def _draw(layer: Band | Line, along: _Scale, up: _Scale) -> str:
    """Band or line as paths."""
    x = np.atleast_1d(np.asarray(layer.x, float))
    keep = _thin(x.size)
    px = along(x)[keep]
    pieces = []
    if isinstance(layer, Line):
        py = up(layer.y)[keep]
        for run in _runs(px, py):
            if run.stop - run.start == 1:
                pieces.append(f'<circle class="{layer.style} lone" cx="{px[run][0]:.1f}" cy="{py[run][0]:.1f}" r="2.5"/>')
            else:
                pieces.append(f'<path class="{layer.style}" d="M{_track(px[run], py[run])}"/>')
        return "".join(pieces)
    low, high = up(layer.low)[keep], up(layer.high)[keep]
    for run in _runs(px, low, high):
        left, bottom, top = px[run], low[run], high[run]
        if left.size == 1:  # one time alone has no width: draw a bar
            left, bottom, top = np.array([left[0] - 4, left[0] + 4]), np.repeat(bottom, 2), np.repeat(top, 2)
        pieces.append(f'<path class="{layer.style}" d="M{_track(left, top)} L{_track(left[::-1], bottom[::-1])}Z"/>')
    return "".join(pieces)


def chart(
    layers: Sequence[Layer],
    *,
    title: str,
    description: str,
    x_label: str = "",
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_log: bool = False,
    y_log: bool = False,
    y_labels: Sequence[str] | None = None,
    data_end: float | None = None,
    height: int = HEIGHT,
) -> str:
    """Draw one chart.

    Parameters
    ----------
    layers : what to draw, from back to front.
    title, description : for people who do not see the drawing; plain text, escaped here.
    x_label : text under the axis; plain text, escaped here.
    x_range, y_range : lowest and highest value shown; what lies beyond is clipped.
    x_log, y_log : whether an axis is logarithmic (its range positive).
    y_labels : names of the rows 0, 1, ... of an interval chart, in place of numbers; empty for a vertical axis without any.
    data_end : where the data end, if the horizontal axis goes on beyond.
    height : of the drawing; its width is `WIDTH`.

    Returns
    -------
    an `svg` element for inclusion in HTML.
    """
    x_range, y_range = (r if r[1] > r[0] else (r[0] - 0.5, r[0] + 0.5) for r in (x_range, y_range))
    if y_labels is None:
        y_ticks = (log_ticks if y_log else ticks)(*y_range)
        names = tick_labels(y_ticks, y_log)
    else:
        y_ticks, names = [float(i) for i in range(len(y_labels))], [shorten(name, 18) for name in y_labels]
    left = min(130.0, 14 + _CHARACTER * max((len(name) for name in names), default=0))
    along = _Scale(*x_range, left, WIDTH - _RIGHT, x_log)
    up = _Scale(*y_range, height - _BOTTOM, _TOP, y_log)
    frame = f'x="{left:.1f}" y="{_TOP}" width="{WIDTH - _RIGHT - left:.1f}" height="{height - _TOP - _BOTTOM}"'
    floor = height - _BOTTOM
    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img"><title>{escape(title)}</title><desc>{escape(description)}</desc>']
    if data_end is not None:
        edge = float(along(data_end))
        out.append(
            f'<rect class="beyond" x="{edge:.1f}" y="{_TOP}" width="{WIDTH - _RIGHT - edge:.1f}" height="{floor - _TOP}"/>'
        )
    for value, name in zip(y_ticks, names, strict=True):
        y = float(up(value))
        out.append(f'<path class="grid" d="M{left:.1f},{y:.1f} H{WIDTH - _RIGHT}"/>')
        out.append(f'<text class="tick" x="{left - 6:.1f}" y="{y + 3.8:.1f}" text-anchor="end">{escape(name)}</text>')
    # A nested drawing clips what leaves its viewport, with no need for identifiers that must be unique on the page.
    inner_along = _Scale(*x_range, 0, WIDTH - _RIGHT - left, x_log)
    inner_up = _Scale(*y_range, floor - _TOP, 0, y_log)
    areas = [layer for layer in layers if not isinstance(layer, Points)]
    out.append(f"<svg {frame}>" + "".join(_draw(layer, inner_along, inner_up) for layer in areas) + "</svg>")
    out.append(f'<path class="axis" d="M{left:.1f},{floor} H{WIDTH - _RIGHT}"/>')
    x_ticks = (log_ticks if x_log else ticks)(*x_range, most=6)
    for value, name in zip(x_ticks, tick_labels(x_ticks, x_log), strict=True):
        x = float(along(value))
        out.append(f'<path class="axis" d="M{x:.1f},{floor} v4"/>')
        out.append(f'<text class="tick" x="{x:.1f}" y="{floor + 16}" text-anchor="middle">{name}</text>')
    out += [_dots(layer, along, up) for layer in layers if isinstance(layer, Points)]  # whole at the edges too
    middle = (left + WIDTH - _RIGHT) / 2
    out.append(
        f'<text class="label" x="{middle:.1f}" y="{height - 4}" text-anchor="middle">{escape(shorten(x_label, 50))}</text>'
    )
    if data_end is not None:
        place = f'x="{edge + 4:.1f}"' if WIDTH - _RIGHT - edge > 60 else f'x="{edge - 4:.1f}" text-anchor="end"'
        word = "forecast" if WIDTH - _RIGHT - edge > 60 else "data end"
        out.append(f'<path class="end" d="M{edge:.1f},{_TOP} V{floor}"/><text class="note" {place} y="{_TOP + 11}">{word}</text>')
    return "".join(out) + "</svg>"


def mosaic(drawings: Sequence[tuple[str, str]], style: str = "", columns: int = _COLUMNS) -> str:
    """One SVG picture of several charts under their captions, with colours of its own; captions are plain text, escaped here.

    Parameters
    ----------
    drawings : caption and `svg` element of each.
    style : rules for classes that only these drawings have.
    columns : drawings in a row.
    """
    columns = min(columns, len(drawings))
    rows = math.ceil(len(drawings) / columns)
    parts = []
    for k, (caption, inner) in enumerate(drawings):
        x, y = (k % columns) * WIDTH, (k // columns) * (HEIGHT + _CAPTION)
        parts.append(f'<text class="caption" x="{x + 20}" y="{y + 16}">{escape(shorten(caption, 60))}</text>')
        parts.append(inner.replace("<svg ", f'<svg x="{x}" y="{y + _CAPTION}" width="{WIDTH}" height="{HEIGHT}" ', 1))
    size = f"{columns * WIDTH} {rows * (HEIGHT + _CAPTION)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}"><style>{_STYLE}{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )
