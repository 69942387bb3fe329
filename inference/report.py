"""The report of a fit: one self-contained HTML page, made from the fit's tree alone."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import xarray as xr

from . import intervention_page, report_charts, report_findings, report_tables
from .files import write_whole
from .report_page import document
from .report_stats import convergence, group


def render(tree: xr.DataTree, also: Sequence[Any] = ()) -> str:
    """HTML page that describes a fit.

    The page needs no network and no script: style and figures stand in it. It is readable in light and dark, on a phone and on
    paper. Text from the tree is escaped. Where a group or an attribute is missing, the page says so and shows the rest.

    Parameters
    ----------
    tree : a fit's tree (`Fit.tree`, or the same read back from a file).
    also : results on the same fit, see `report_findings`; warnings about the posterior's equilibria stand in the summary, too.

    Returns
    -------
    the page.
    """
    rows = convergence(group(tree, "posterior"), report_tables.sampled(tree))
    rows.sort(key=lambda row: row.name in ("mu", "value"))  # parameters first
    title = str(tree.attrs.get("title") or "Bayesian calibration of a mean field game")
    byline = ["bayes-mfg report"]
    byline += [f"{word} {tree.attrs[k]}" for k, word in (("method", "method"), ("seed", "seed")) if k in tree.attrs]
    byline += [f"created {_moment(tree.attrs['created'])}"] if tree.attrs.get("created") else []
    solved = report_tables.has_equilibria(tree)
    changed = intervention_page.sections(tree)
    interventions = (("interventions", "Interventions", changed),) if changed else ()
    sections = (
        ("summary", "Summary", report_tables.summary(tree, rows, report_findings.warned(also))),
        ("parameters", "Parameters", report_charts.parameters(tree)),
        (
            "learning",
            "What the data say about each parameter",
            report_tables.data_say(tree) + report_findings.in_words(tree, also),
        ),
        *report_findings.sections(also),
        ("predictions", "Predictions and data", report_charts.predictions(tree)),
        ("trajectories", "Population and value" if solved else "Population", report_charts.trajectories(tree)),
        *interventions,
        ("convergence", "Convergence", report_tables.diagnostics(tree, rows)),
        ("solver", "Equilibrium solver" if solved else "Integration", report_tables.solver(tree)),
        ("data", "Data", report_tables.data(tree)),
        ("settings", "Settings and versions", report_tables.settings(tree)),
    )
    return document(title, " · ".join(byline), sections)


def _moment(text: object) -> str:
    """ISO date for people; as it stands where it is something else."""
    try:
        return f"{datetime.fromisoformat(str(text)):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return str(text)


def write_report(tree: xr.DataTree, path: str | os.PathLike[str], also: Sequence[Any] = ()) -> Path:
    """Write the report of a fit; the file appears whole or not at all.

    Parameters
    ----------
    tree : a fit's tree (`Fit.tree`, or the same read back from a file).
    path : where the page goes; an older page there is replaced.
    also : results on the same fit that the page tells, too: of `contraction`, `linear_widths`, `uniqueness`, `profile`,
        `identifiability`, `flows`.

    Returns
    -------
    the path.

    Raises
    ------
    InputError : the folder does not exist, or something in `also` has no sentences.
    OSError : it cannot be written to; a page that was there stays as it was.
    """
    return write_whole(path, render(tree, also))
