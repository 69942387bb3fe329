"""Picture of a design: when and where to observe, what each candidate would tell by itself, and the gain over an even spread."""

import numpy as np

from .design_result import Design
from .report_svg import Layer, Line, Points, chart, mosaic


def picture(found: Design) -> str:
    """One SVG picture."""
    return mosaic([_where(found), *_alone(found), _against(found)])


def _where(found: Design) -> tuple[str, str]:
    """Chosen and even times of every trajectory that is observed by either."""
    names = [n for n in found.plan.blank.trajectories if any(c.place == n for c in (*found.chosen, *found.uniform))]
    times = found.plan.model.grid.times
    layers: list[Layer] = []
    for some, style, shift in ((found.uniform, "prior90", 0.15), (found.chosen, "dot", -0.15)):
        places = [(t, names.index(c.place) + shift) for c in some for t in c.moments]
        x, y = np.array(places).T
        layers.append(Points(x, y, style))
    words = f"times to observe, by trajectory ({len(found.chosen)} chosen, filled), beside {found.rival} (open)"
    drawn = chart(
        layers,
        title="design",
        description=words,
        x_label=f"time; filled: chosen, open: {found.rival}",
        x_range=(float(times[0]), float(times[-1])),
        y_range=(-0.6, len(names) - 0.4),
        y_labels=names,
    )
    return "What to observe", drawn


def _alone(found: Design) -> list[tuple[str, str]]:
    """Gain of every candidate alone, over time, for each trajectory."""
    drawn: list[tuple[str, str]] = []
    times = found.plan.model.grid.times
    top = 1.05 * max(float(np.nanmax(found.alone)), 1e-12)
    low = min(0.0, 1.05 * float(np.nanmin(found.alone)))
    for name in found.plan.blank.trajectories:
        mine = [k for k, c in enumerate(found.plan.candidates[: found.offered]) if c.place == name and len(c.moments) == 1]
        if not mine or len(drawn) >= 6:
            continue
        x = np.array([found.plan.candidates[k].moments[0] for k in mine])
        order = np.argsort(x)
        y = found.alone[mine]
        layers: list[Layer] = []
        if len(np.unique(x)) == len(x):
            layers.append(Line(x[order], y[order], "median"))
        picked = np.array([k in found.picked for k in mine])
        layers.append(Points(x[picked], y[picked], "dot"))
        words = f"gain in nats of each observation of trajectory {name} by itself; those chosen are marked"
        ends = (float(times[0]), float(times[-1]))
        drawn.append(
            (
                f"Trajectory {name}: gain alone, nats",
                chart(layers, title=name, description=words, x_label="time", x_range=ends, y_range=(low, top)),
            )
        )
    return drawn


def _against(found: Design) -> tuple[str, str]:
    """Chosen against even design at every draw that the search has not seen."""
    gains = [found.judged.before - x for x in (found.judged.uniform, found.judged.chosen)]
    high = 1.05 * max(float(g.max()) for g in gains)
    low = min(0.0, *(1.05 * float(g.min()) for g in gains))
    layers: list[Layer] = [Line((low, high), (low, high), "prior90"), Points(gains[0], gains[1], "dot")]
    words = (
        "gain in nats of the chosen design by that of the other, one point for each draw; above the line the chosen one is better"
    )
    drawn = chart(layers, title="gain", description=words, x_label=found.rival, x_range=(low, high), y_range=(low, high))
    return "Gain of the chosen design, nats", drawn
