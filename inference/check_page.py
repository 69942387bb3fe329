"""Rank and ECDF plots of a check, and its page."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import binom

from bayes_mfg.errors import InputError

from .check_result import RANKED, Check
from .report_page import charts, document, escape, facts, figure, legend, number, paragraph, plural, table
from .report_svg import Band, Layer, Line, chart, mosaic
from .uniformity import band

PROB = 0.99
BINS = 20


def _ecdf(check: Check, name: str) -> str:
    """Empirical distribution of the ranks minus the uniform one."""
    ranks = check.ranks[name].to_numpy()
    places, low, high = band(len(ranks), check.draws, PROB)
    reached = np.searchsorted(np.sort(ranks), np.arange(check.draws), side="right") / len(ranks)
    ends = np.array([0.0, *places, 1.0])
    outer = [np.array([0.0, *(x - places), 0.0]) for x in (low, high, reached)]
    layers: list[Layer] = [Band(ends, outer[0], outer[1], "prior90"), Line(ends, outer[2], "median")]
    most = 1.1 * max(float(np.abs(x).max()) for x in outer)
    words = f"empirical distribution of {len(ranks)} ranks minus the uniform one, with the simultaneous {100 * PROB:.0f} % band"
    return chart(
        layers, title=name, description=words, x_label="rank / number of draws", x_range=(0.0, 1.0), y_range=(-most, most)
    )


def _histogram(check: Check, name: str) -> str:
    """Numbers of ranks in bins, with the pointwise band of one bin."""
    ranks = check.ranks[name].to_numpy()
    bins = math.gcd(check.draws + 1, BINS) if math.gcd(check.draws + 1, BINS) >= 5 else min(BINS, check.draws + 1)
    # Bins of unequal numbers of ranks, where these cannot be even, get their own expectation.
    edges = np.round(np.linspace(0, check.draws + 1, bins + 1)).astype(int)
    counts = np.histogram(ranks, edges - 0.5)[0]
    share = np.diff(edges) / (check.draws + 1)
    low, high = binom.interval(PROB, len(ranks), share)
    x = edges / (check.draws + 1)
    layers: list[Layer] = [Band(x[k : k + 2], [0, 0], [count] * 2, "density") for k, count in enumerate(counts)]
    layers.insert(0, Band(np.repeat(x, 2)[1:-1], np.repeat(low, 2), np.repeat(high, 2), "prior90"))
    top = 1.1 * max(float(high.max()), float(counts.max()))
    words = f"{len(ranks)} ranks in {bins} bins, with the {100 * PROB:.0f} % band of one bin"
    return chart(layers, title=name, description=words, x_label="rank / number of draws", x_range=(0.0, 1.0), y_range=(0.0, top))


KINDS = {"ecdf": _ecdf, "rank": _histogram}


def picture(check: Check, names: Sequence[str] | None = None, kind: str = "ecdf") -> str:
    """One SVG picture of several quantities.

    Raises
    ------
    InputError : for an unknown quantity or kind.
    """
    if kind not in KINDS:
        raise InputError(f"plot: unknown kind {kind!r}; choose one of {', '.join(KINDS)}.")
    wanted = list(check.ranks.columns) if names is None else list(names)
    for name in wanted:
        if name not in check.ranks:
            raise InputError(f"plot: no quantity {name!r}; there are {', '.join(check.ranks.columns)}.")
    if not wanted:
        raise InputError("plot: no quantity is named.")
    return mosaic([(name, KINDS[kind](check, name)) for name in wanted])


def page(check: Check) -> str:
    """HTML page of a check: verdict, plots, coverage, outcomes, prior predictive check."""
    model = check.model
    title = f"Calibration of {check.method} on {model['game']['name']}"
    key = [
        ("median", "simulated ranks"),
        ("prior90", f"{100 * PROB:.0f} % of uniform ranks: simultaneous (ECDF), of one bin (ranks)"),
    ]
    pictures = {kind: charts(figure(draw(check, name), name) for name in check.ranks.columns) for kind, draw in KINDS.items()}
    summary = _verdict(check) + facts(
        {
            "simulations": len(check.outcomes),
            "ranked": int((check.outcomes["outcome"] == RANKED).sum()),
            "draws per truth": check.draws,
            "seed": check.seed,
            "wall time": f"{check.seconds:.0f} s",
            "fit": check.options,
        },
        "what was run",
    )
    sections = (
        ("summary", "Summary", summary),
        ("ecdf", "Ranks: distribution minus uniform", legend(key) + pictures["ecdf"]),
        ("coverage", "Coverage, bias, contraction", _frame(check.table(), "quantity", "figures by quantity")),
        ("ranks", "Ranks: histograms", legend(key) + pictures["rank"]),
        ("outcomes", "Outcomes", _outcomes(check)),
        (
            "prior",
            "Prior predictive",
            paragraph("Where the observed numbers lie among data simulated from the prior.")
            + _frame(check.prior_predictive, "state", "prior predictive check"),
        ),
        (
            "model",
            "Model",
            facts({"paths": model["paths"], "observation": model["observation"], "initial": model["initial"]}, "model"),
        ),
    )
    return document(title, "bayes-mfg check", sections)


def _verdict(check: Check) -> str:
    told = check.warnings
    if not told:
        return paragraph(
            f"Nothing speaks against calibration: the ranks of all {plural(len(check.ranks.columns), 'quantity')} look uniform "
            f"in {plural(len(check.ranks), 'simulation')}.",
            "verdict good",
        )
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in told)
    return f'<div class="warnings"><strong>What to know</strong><ul>{items}</ul></div>'


def _frame(frame: pd.DataFrame, head: str, label: str) -> str:
    if frame.empty:
        return paragraph("Nothing to show.", "absent")
    rows = [[str(name), *[number(x) for x in row]] for name, row in zip(frame.index, frame.to_numpy(), strict=True)]
    return table([head, *map(str, frame.columns)], rows, label=label)


def _outcomes(check: Check) -> str:
    counts = check.outcomes["outcome"].value_counts()
    found = table(["outcome", "simulations"], [[str(words), str(count)] for words, count in counts.items()], label="outcomes")
    told = check.outcomes.drop(columns="outcome").apply(pd.to_numeric, errors="coerce")
    if told.columns.size:
        rows = told.agg(["min", "median", "max", "sum"]).T
        found += _frame(rows, "of each simulation", "figures of the fits")
    return found
