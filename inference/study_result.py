"""What a study found: one row for each replicate of each cell, medians with their uncertainty, pictures."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayes_mfg.errors import InputError

from .files import write_whole
from .report_svg import Band, Layer, Line, Points, chart, mosaic

MOST_LINES = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """All replicates of all cells.

    Attributes
    ----------
    rows : tidy table: a column for every name of the grid, `replicate`, `outcome` ("done" or why not), `seconds`, and one for every score.
    names : names of the grid.
    about : what was studied, JSON-able.
    seconds : wall time of this run.
    """

    rows: pd.DataFrame
    names: tuple[str, ...]
    about: dict[str, Any]
    seconds: float

    @property
    def scores(self) -> list[str]:
        """Columns of numbers that are scores."""
        left = {*self.names, "replicate", "outcome", "seconds"}
        done = self.rows[self.rows["outcome"] == "done"].infer_objects()  # truth values beside gaps of what failed are objects
        return [str(n) for n in self.rows.columns if n not in left and len(done) and pd.api.types.is_numeric_dtype(done[n])]

    @property
    def warnings(self) -> list[str]:
        """Sentences that a reader must know: what failed, and how."""
        lost = self.rows[self.rows["outcome"] != "done"]
        return [
            f"{len(lost)} of {len(self.rows)} replicates have no scores; the first: {lost['outcome'].iloc[0]}."
            for _ in range(bool(len(lost)))
        ]

    def table(self) -> pd.DataFrame:
        """One row per cell.

        Columns: the grid's names, how many replicates were `scored` and how many `failed`, and of every score the mean, its standard error
        (`_error`) and the median (`_median`).
        """
        rows = []
        for values, part in self.rows.groupby(list(self.names), sort=False, dropna=False):
            good = part[part["outcome"] == "done"]
            row: dict[str, Any] = dict(zip(self.names, values, strict=True)) | {
                "scored": len(good),
                "failed": len(part) - len(good),
            }
            for name in self.scores:
                numbers = good[name].dropna().to_numpy(float)
                row[name] = float(numbers.mean()) if numbers.size else float("nan")
                row[f"{name}_error"] = float(numbers.std(ddof=1) / np.sqrt(numbers.size)) if numbers.size > 1 else float("nan")
                row[f"{name}_median"] = float(np.median(numbers)) if numbers.size else float("nan")
            rows.append(row)
        return pd.DataFrame(rows)

    def plot(self, path: str | os.PathLike[str], *, x: str | None = None, scores: list[str] | None = None) -> Path:
        """Write the scores against one name of the grid as one SVG picture: medians, the middle half of the replicates, every replicate.

        Parameters
        ----------
        path : the picture.
        x : name of the grid on the horizontal axis; by default the first with several values. One line for every combination of the others.
        scores : which; by default all.

        Raises
        ------
        InputError : for an unknown name, and when the folder does not exist.
        """
        several = [n for n in self.names if len(self.rows[n].unique()) > 1]
        along = (several or list(self.names))[0] if x is None else x
        if along not in self.names:
            raise InputError(f"Study: x is {x!r}; the grid has {', '.join(self.names)}.")
        for name in scores or []:
            if name not in self.scores:
                raise InputError(f"Study: scores has {name!r}; there are {', '.join(self.scores)}.")
        drawn = [figure for name in (scores or self.scores) if (figure := _figure(self, along, name)) is not None]
        if not drawn:
            raise InputError("Study: no replicate was scored; there is nothing to draw.")
        return write_whole(path, mosaic(drawn))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the rows as CSV, with what was studied beside them as `.json`.

        Raises
        ------
        InputError : when the folder does not exist.
        """
        target = write_whole(path, self.rows.to_csv(index=False, lineterminator="\n"))
        write_whole(target.with_suffix(".json"), json.dumps(self.about, indent=1, default=str) + "\n")
        return target

    def __repr__(self) -> str:
        good = int((self.rows["outcome"] == "done").sum())
        return f"Study({good} of {len(self.rows)} replicates scored; grid of {', '.join(self.names)})"


def _figure(study: Study, along: str, score: str) -> tuple[str, str] | None:
    good = study.rows[study.rows["outcome"] == "done"].dropna(subset=[score])
    if not len(good):
        return None
    levels = list(dict.fromkeys(study.rows[along]))
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in levels)
    place = {v: float(v) if numeric else float(k) for k, v in enumerate(levels)}
    values = good[score].to_numpy(float)
    positive = bool((values > 0).all()) and values.max() > 20 * values.min()
    spread = sorted(place.values())
    x_log = numeric and spread[0] > 0 and spread[-1] >= 8 * spread[0]
    layers: list[Layer] = [Points(good[along].map(place).to_numpy(float), values, "dot")]
    others = [n for n in study.names if n != along]
    groups = [part for _, part in good.groupby(others, sort=False, dropna=False)] if others else [good]
    for part in groups[:MOST_LINES]:
        # Median, and the middle half of the replicates.
        lines = [
            (place[v], *np.quantile(part.loc[part[along] == v, score].to_numpy(float), (0.25, 0.5, 0.75)))
            for v in levels
            if (part[along] == v).any()
        ]
        x, low, middle, high = np.array(sorted(lines)).T
        layers = [Band(x, low, high, "prior90"), *layers, Line(x, middle, "median")] if len(x) > 1 else layers
    pad = 1.3 if positive else 1.05
    low, high = (
        (float(values.min()) / pad, float(values.max()) * pad)
        if positive
        else (min(0.0, float(values.min())), pad * float(values.max()))
    )
    if score.startswith("coverage"):
        low, high = 0.0, 1.02
        layers = [Line((spread[0], spread[-1]), (0.9, 0.9), "grid"), *layers]
    ends = (
        (spread[0] / 1.2, spread[-1] * 1.2)
        if x_log
        else (spread[0] - 0.05 * max(spread[-1] - spread[0], 1e-9), spread[-1] + 0.05 * max(spread[-1] - spread[0], 1e-9))
    )
    label = along if numeric else f"{along}: {', '.join(f'{k} = {v}' for k, v in enumerate(levels))}"
    words = f"{score} by {along}: replicates, their medians, and the middle half of them"
    return score, chart(
        layers, title=score, description=words, x_label=label, x_range=ends, y_range=(low, high), x_log=x_log, y_log=positive
    )
