"""Figures and page of what `identifiability` found."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from .identifiability_prior import OverPrior
from .identifiability_result import Direction, Identifiability
from .identifiability_words import IDENTIFIED, PRIOR_DRIVEN, SHARE
from .report_page import charts, document, escape, facts, figure, legend, number, paragraph, table
from .report_svg import Layer, Line, Points, chart, mosaic

MOST_FIGURES = 12
"""Directions that are drawn, of those that are told."""

type Figures = list[tuple[str, str]]
type Section = tuple[str, str, str]


def _spectrum(found: Identifiability) -> tuple[str, str]:
    values = np.maximum(found.singular_values, 1e-12 * max(float(found.singular_values[0]), 1e-300))
    x = np.arange(1, len(values) + 1)
    ends = (0.5, len(values) + 0.5)
    layers: list[Layer] = [Line(ends, (1.0, 1.0), "prior90"), Points(x, values, "dot")]
    words = f"singular values of {len(values)} directions, in sds of the observation per prior sd, and the line at 1 above which the data hold more"
    low, high = min(float(values.min()), 0.5) / 2, 2 * max(float(values.max()), 2.0)
    drawn = chart(layers, title="spectrum", description=words, x_label="direction", x_range=ends, y_range=(low, high), y_log=True)
    return "Singular values, prior sds to sds of observation", drawn


def _lines(values: np.ndarray, axis: int) -> Iterable[np.ndarray]:
    """Lines over time of an array with this axis of time."""
    return np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])[:12]


def _widths(found: Identifiability) -> Figures:
    """Posterior over prior sd over time, of all unknowns that vary."""
    times, drawn = found.times, []
    ends = (float(times[0]), float(times[-1]))
    for name, verdict in found.verdicts.items():
        if verdict.axis is None:
            continue
        limits: list[Layer] = [Line(ends, (y, y), "prior90") for y in (IDENTIFIED, PRIOR_DRIVEN)]
        layers = [*limits, *(Line(times, line, "median") for line in _lines(verdict.ratio, verdict.axis))]
        words = f"posterior over prior sd of {name} over time; what is identified is below {IDENTIFIED}, above {PRIOR_DRIVEN} the prior decides"
        drawn.append(
            (
                f"{name}: posterior sd / prior sd",
                chart(layers, title=name, description=words, x_label="time", x_range=ends, y_range=(0.0, 1.05)),
            )
        )
    return drawn


def _directions(found: Identifiability) -> Figures:
    """What each null or weak direction adds to the unknowns that it moves: over time, or as one figure."""
    return [_direction(found, direction) for direction in found.told[:MOST_FIGURES]]


def _direction(found: Identifiability, direction: Direction) -> tuple[str, str]:
    times = found.times
    ends = (float(times[0]), float(times[-1]))
    layers: list[Layer] = [Line(ends, (0.0, 0.0), "grid")]
    named = sorted((n for n, share in direction.shares.items() if share >= SHARE), key=lambda n: -direction.shares[n])
    styles = ("median", "prior90")
    for k, name in enumerate(named[:2]):
        moved, sd = (
            direction.change[name],
            found.sd[name] / np.where(found.verdicts[name].ratio > 0, found.verdicts[name].ratio, 1.0),
        )
        relative = moved / np.where(sd > 0, sd, 1.0)
        if (axis := found.verdicts[name].axis) is not None:
            layers += [Line(times, line, styles[k]) for line in _lines(relative, axis)]
        else:
            layers += [Line(ends, (value, value), styles[k]) for value in np.ravel(relative)[:12]]
    words = f"{direction.sentence} Change of {' and '.join(named[:2])} in prior sds over time."
    label = f"time; {', '.join(f'{n} {w}' for n, w in zip(named[:2], ('solid', 'dashed'), strict=False))}"
    drawn = chart(layers, title=direction.kind, description=words, x_label=label, x_range=ends, y_range=(-1.05, 1.05))
    return direction.sentence.split(":")[0], drawn


def picture(found: Identifiability) -> str:
    """One SVG picture: spectrum, widths over time, directions over time."""
    return mosaic([_spectrum(found), *_widths(found), *_directions(found)])


def page(found: Identifiability | None, over: OverPrior | None = None) -> str:
    """HTML page: verdicts, spectrum, widths and directions at one point, and the answers over the prior; one of the two may be missing."""
    model = found.model if found is not None else over.found[0].model if over is not None else {}
    sections = [*(_point(found) if found is not None else []), *([_over_prior(over)] if over is not None else [])]
    sections.append(("model", "Model", facts({k: model[k] for k in ("paths", "observation", "initial")}, "model")))
    return document(f"What the data identify: {model['game']['name']}", "bayes-mfg identify", sections)


def _over_prior(over: OverPrior) -> Section:
    return (
        "prior",
        "Over the prior",
        _sentences(over.sentences) + _verdicts(over.table(), "verdicts over the prior", "partners"),
    )


def _sentences(told: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in told)}</ul>"


def _verdicts(frame: pd.DataFrame, label: str, *words: str) -> str:
    """Table of a frame with one row per unknown, of which these columns are words."""
    rows = [[str(name), *[number(x) for x in row]] for name, row in zip(frame.index, frame.to_numpy(), strict=True)]
    head = ["unknown", *map(str, frame.columns)]
    return table(head, rows, label=label, text_columns=(0, *(head.index(word) for word in words)))


def _point(found: Identifiability) -> list[Section]:
    numbers = {
        "at": found.at,
        "unknowns": len(found.singular_values),
        "directions in which the data hold more than the prior": found.informed,
        "effective number of directions": found.effective,
    }
    key = [
        ("median", "posterior sd / prior sd"),
        ("prior90", f"{IDENTIFIED}: identified are below; {PRIOR_DRIVEN}: prior-driven above"),
    ]
    over_time = charts(figure(drawn, caption) for caption, drawn in _widths(found))
    told = charts(figure(drawn, caption) for caption, drawn in _directions(found))
    return [
        ("summary", "Summary", _sentences(found.sentences) + facts(numbers, "numbers")),
        ("verdicts", "Verdicts", _verdicts(found.table(), "verdicts", "verdict", "cause", "partners")),
        ("spectrum", "Spectrum", charts([figure(_spectrum(found)[1], _spectrum(found)[0])])),
        (
            "widths",
            "Widths over time",
            legend(key) + over_time if over_time.count("<svg") else paragraph("No unknown varies.", "absent"),
        ),
        (
            "directions",
            "Directions without much information",
            paragraph("What one prior sd along the direction adds to the unknowns that it moves, in their prior sds.") + told
            if told.count("<svg")
            else paragraph("There are none.", "absent"),
        ),
    ]
