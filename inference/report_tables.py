"""Sections of the report that are made of words and tables: summary, what the data say, convergence, solver, data, settings."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayes_mfg.equilibrium import Status

from .report_charts import absent, elbo
from .report_page import escape, exact, facts, fold, interval, listing, number, paragraph, plural, table, tiles
from .report_stats import (
    E_BFMI,
    ESS,
    INFORMED,
    PARTLY,
    R_HAT,
    SHIFTED,
    Convergence,
    Floats,
    Learning,
    bfmi,
    convergence,
    coverage,
    data_end,
    decode,
    group,
    identified,
    labels,
    learning,
    lost_to_solves,
    observation,
    paths,
    quantities,
)

_METHODS = {
    "nuts": "NUTS (Hamiltonian Monte Carlo)",
    "svi": "stochastic variational inference",
    "point": "a point estimate (posterior mode)",
    "ensemble": "an ensemble of point fits",
}

_RANDOMISED = {
    "both": "Prior and data were randomised for every member: draws from the posterior if the model were linear and Gaussian, near that elsewhere.",
    "prior": "The prior was randomised for every member and the data were not: the spread is smaller than the posterior's.",
    "none": "Members differ by their starts alone: their spread is that of optima, and no posterior.",
}


def sampled(tree: xr.DataTree) -> bool:
    """Whether the draws come from Markov chains, so that R-hat and ESS mean something."""
    method = tree.attrs.get("method")
    return method == "nuts" or (method not in _METHODS and group(tree, "posterior").sizes.get("draw", 1) > 1)


def _total(tree: xr.DataTree, name: str) -> int | None:
    """Sum of a sampler statistic; None where it was not kept."""
    stats = group(tree, "sample_stats")
    return int(np.nansum(np.asarray(stats[name].values, float))) if name in stats else None


def summary(tree: xr.DataTree, rows: Sequence[Convergence], found: Sequence[str] = ()) -> str:
    """What was fitted to what, how, and whether it converged; with the fit's warnings, and those that were `found` since."""
    head, problems = _figures(tree, rows)
    parts = [paragraph(_story(tree))]
    if not group(tree, "posterior").data_vars:
        parts.append('<p class="verdict bad">This fit holds no posterior.</p>')
    elif tree.attrs.get("method") == "point":
        text = "A point estimate says nothing about uncertainty: this page shows one value for each parameter, without bands."
        parts.append(paragraph(text))
    elif tree.attrs.get("method") == "ensemble":
        how = _RANDOMISED.get(str(decode(tree.attrs, "inference", dict).get("randomised")), "")
        parts.append(paragraph(f"An ensemble of independent point fits: R-hat and ESS do not apply. {how}".strip()))
    elif not sampled(tree):
        parts.append(
            paragraph(
                "The posterior is a variational approximation, drawn independently: R-hat and ESS do not apply, and variational bands tend to be "
                f"too narrow. {_pareto(tree)}"
            )
        )
    elif not problems:
        text = "No convergence check failed: what was recorded of R-hat, ESS, divergences and failed solves is within limits."
        parts.append(paragraph(text, "verdict good"))
    if problems:
        items = "".join(f"<li>{escape(p)}</li>" for p in problems)
        parts.append(
            paragraph("Look at the following before relying on this fit.", "verdict bad") + f'<ul class="prose">{items}</ul>'
        )
    heard = [*(str(w) for w in decode(tree.attrs, "warnings", list)), *found]
    if heard:
        items = "".join(f"<li>{escape(w)}</li>" for w in heard)
        parts.append(f'<div class="warnings" role="note"><strong>Warnings</strong><ul>{items}</ul></div>')
    return "".join(parts) + tiles(head)


def _pareto(tree: xr.DataTree) -> str:
    """What the importance ratios say of a guide."""
    settings = decode(tree.attrs, "inference", dict)
    k, limit = settings.get("pareto_k"), settings.get("pareto_k_limit")
    if k is None or limit is None:
        return "How close it is to the posterior could not be judged by its importance ratios."
    if k > limit:
        return f"It is far from the posterior: Pareto k of its importance ratios is {k:.2f}, and up to {limit:.2f} would do."
    weighted = (
        "the draws were reweighted by them" if settings.get("importance") else "importance=True would reweight the draws by them"
    )
    return f"Pareto k of its importance ratios is {k:.2f}; up to {limit:.2f} they can be trusted, and {weighted}."


def _story(tree: xr.DataTree) -> str:
    """Sentences: the game and the data, what is estimated, what is fixed, how."""
    game, data = (decode(tree.attrs, n, dict) for n in ("game", "data"))
    states = [str(s) for s in game.get("states") or []]
    observed = observation(tree, "observed_data")
    text = f"The {game.get('kind', 'game')} {game['name']}" if game.get("name") else "A mean field game"
    text += f" with states {listing(states)}" if 0 < len(states) <= 12 else f" with {len(states)} states" if states else ""
    text += " was fitted"
    nouns = {"n_trajectories": "trajectory", "n_times": "time"}
    sizes = [plural(int(data[k]), noun) for k, noun in nouns.items() if _whole(data.get(k))]
    if sizes:
        text += f" to {' of '.join(sizes)}"
    if observed is not None:
        cells, seen = int(np.isfinite(np.asarray(observed.values, float)).sum()), labels(observed, "state")
        what = f" of {listing(seen)}" if 0 < len(seen) <= 12 else f" of {len(seen)} states" if seen else ""
        text += f"{',' if sizes else ' to'} {plural(cells, 'observed cell')}{what} ({observed.name})"
    text += f", with the observation model {tree.attrs['observation']}" if tree.attrs.get("observation") else ""
    sentences = [text]
    known = paths(tree)
    if known:
        sentences.append("Parameters: " + "; ".join(f"{name} ({how})" if how else name for name, how in known.items()))
    constants = game.get("constants")
    if isinstance(constants, dict) and constants:
        sentences.append("Held fixed: " + ", ".join(f"{name} = {exact(v)}" for name, v in constants.items()))
    posterior = group(tree, "posterior")
    how = _METHODS.get(str(tree.attrs.get("method")), str(tree.attrs.get("method", "")))
    if how:
        count = [plural(int(posterior.sizes[d]), d) for d in ("chain", "draw") if posterior.sizes.get(d, 0)]
        shown = count if sampled(tree) else count[-1:] if tree.attrs.get("method") in ("svi", "ensemble") else []
        sentences.append(", ".join([f"Method: {how}", " of ".join(shown)] if shown else [f"Method: {how}"]))
    end = data_end(tree)
    if end is not None:
        unit = f" ({data['time_unit']})" if data.get("time_unit") else ""
        sentences.append(f"The last observation is at time {exact(end)}{unit}")
    return ". ".join(sentences) + "."


def _r_hat(value: float) -> str:
    return f"{value:.3f}" if value < 100 else number(value)


def _whole(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _figures(tree: xr.DataTree, rows: Sequence[Convergence]) -> tuple[list[tuple[str, str, str, str]], list[str]]:
    """Key figures for the tiles, and the sentences about checks that failed."""
    head: list[tuple[str, str, str, str]] = []
    problems: list[str] = []

    def add(label: str, value: str, remark: str, bad: bool, sentence: str) -> None:
        head.append((label, value, remark, "bad" if bad else "good"))
        if bad:
            problems.append(sentence)

    if sampled(tree) and rows:
        r_hats = [r for r in rows if not math.isnan(r.r_hat)]
        if r_hats:
            worst = max(r_hats, key=lambda r: r.r_hat)
            text = _r_hat(worst.r_hat)
            add("Largest R-hat", text, f"{worst.name}; at most {R_HAT} wanted", worst.r_hat > R_HAT,
                f"R-hat is {text} for {worst.name}: the chains disagree; run longer or look at the model.")  # fmt: skip
        for label, name in (("bulk", "ess_bulk"), ("tail", "ess_tail")):
            sizes = {r.name: float(getattr(r, name)) for r in rows if math.isfinite(getattr(r, name))}
            if sizes:
                who, least = min(sizes.items(), key=lambda item: item[1])
                add(f"Smallest {label} ESS", f"{least:.0f}", f"{who}; at least {ESS:.0f} wanted", least < ESS,
                    f"The {label} effective sample size of {who} is {least:.0f}: take more draws.")  # fmt: skip
        if not r_hats:
            problems.append("R-hat could not be computed: too few draws, or all of them the same.")
        missing = [r.name for r in rows if r.missing]
        if missing:
            problems.append(f"Some draws of {listing(missing)} are not finite.")
    diverging = _total(tree, "diverging") if sampled(tree) else None
    if diverging is not None:
        text = f"{plural(diverging, 'transition')} diverged: parts of the posterior may be missed."
        add("Divergences", str(diverging), "none wanted", diverging > 0, text)
    failed = _total(tree, "failed_solve")
    if failed is not None:
        text = f"{lost_to_solves(tree)}; these proposals were rejected."
        add("Failed solves", str(failed), "transitions that met one; none wanted", failed > 0, text)
    covered = coverage(tree)
    if covered:
        inside, total = (sum(v[i] for v in covered.values()) for i in (0, 1))
        share = f"{number(inside / total * 100)} % of observed cells" if total else "nothing observed"
        head.append(("Inside the 90 % predictive band", f"{inside} of {total}", share, ""))
    seconds = tree.attrs.get("wall_time_seconds")
    if _whole(seconds) and seconds is not None:
        head.append(("Time of the fit", duration(float(seconds)), "", ""))
    return head, problems


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{number(seconds)} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def data_say(tree: xr.DataTree) -> str:
    """Table of how far the data moved and narrowed each parameter, with a verdict."""
    found = quantities(tree)
    if not found:
        return absent("This fit holds no posterior draws of parameters.")
    until = data_end(tree)
    rows = []
    for quantity in found:
        for r in learning(quantity, until):
            unit = f" {r.unit}" if r.unit else ""
            rows.append((r.label, number(r.median) + unit, interval(r.low, r.high), "log" if r.log else "natural",
                         number(r.prior_sd), number(r.posterior_sd), _shrink(r), _two(r.shift), r.verdict))  # fmt: skip
    head = (
        "parameter",
        "posterior median",
        "90 % interval",
        "scale",
        "prior sd",
        "posterior sd",
        "contraction",
        "shift",
        "verdict",
    )
    body = table(head, rows, label="How much the data say about each parameter", text_columns=(0, 3, 6, 8), html_columns=(6,))
    note = (
        "Contraction is 1 − posterior sd / prior sd: 1 means that the data say everything, 0 that they add nothing to the prior. "
        "Shift is the distance between the means of posterior and prior, in prior sd. Both are computed on the stated scale, for "
        "paths at each time up to the last observation, then averaged (in brackets the range of contraction over these times); "
        "median and interval are those of the average over these times. Verdict: contraction of "
        f"{INFORMED} and more is “informed by the data”; from {PARTLY}, or a shift of {SHIFTED} and more, is “partly informed”; "
        "below both is “prior-driven”."
    )
    hidden = [f"{q.name}: the first {len(q.panels)} of {q.total} components." for q in found if q.total > len(q.panels)]
    return body + paragraph(note, "small") + (paragraph(" ".join(hidden), "small") if hidden else "")


def _two(value: float) -> str:
    """Number with two decimals, as contraction and shift deserve no more."""
    return f"{value:.2f}".replace("-", "−") if math.isfinite(value) else "–"


def _shrink(row: Learning) -> str:
    """Contraction as a small bar, a number, and its range over time; markup."""
    if not math.isfinite(row.contraction):
        return "–"
    bar = f'<span class="meter" aria-hidden="true"><i style="width:{100 * min(max(row.contraction, 0.0), 1.0):.0f}%"></i></span>'
    low, high = _two(row.lowest), _two(row.highest)
    text = _two(row.contraction) + (f" ({low} to {high})" if low != high else "")
    return f'<span class="whole">{bar}{escape(text)}</span>'


def diagnostics(tree: xr.DataTree, rows: Sequence[Convergence]) -> str:
    """Convergence of every reported variable, and the sampler's statistics by chain."""
    if not rows:
        return absent("This fit holds no posterior draws.") + _by_chain(tree)
    chains = sampled(tree)
    whole = any(row.name == "mu" for row in rows)
    parts = [_judged(rows, chains, "Convergence of parameters, population and value" if whole else "Convergence of parameters")]
    if chains:
        text = (
            f"R-hat (rank-normalised, split) of at most {R_HAT} and bulk and tail ESS of at least {ESS:.0f} are wanted. For "
            "paths and trajectories R-hat and ESS are the worst over all times and components, the place is that of the smallest "
            "bulk ESS, and mean, sd and interval are those of the average over time. Components that are constants (a known "
            "start, a terminal cost) are left out; where there are very many components, evenly spaced ones are judged."
        )
        parts.append(paragraph(text, "small"))
    else:
        parts.append(paragraph("R-hat and ESS judge Markov chains and do not apply to this method.", "small"))
    parts += [_by_chain(tree), elbo(tree)]
    latents, left_out = identified(group(tree, "unconstrained_posterior"))
    if latents.data_vars and chains:
        found = convergence(latents)
        table_of = _judged(found, chains, "Convergence of latent variables") if found else ""
        if left_out:
            text = (
                f"{left_out} weights and biases of networks are left out: units can change places and signs without a change of the path, so that "
                "chains may disagree about weights and agree about all that is estimated."
            )
            table_of += paragraph(text, "small")
        parts.append(fold(f"Latent variables ({len(found)})", table_of))
    return "".join(parts)


def _judged(rows: Sequence[Convergence], chains: bool, label: str) -> str:
    def flag(text: str, bad: bool) -> str:
        return f'<span class="flag">{escape(text)}</span>' if bad else escape(text)

    def size(value: float) -> str:
        return flag(f"{value:.0f}", value < ESS) if math.isfinite(value) else "–"

    cells = []
    for r in rows:
        row = [r.name, number(r.mean), number(r.sd), interval(r.low, r.high)]
        if chains:
            rest = f"{r.checked} of {r.cells}" if r.checked != r.cells else str(r.cells)
            rest += f"; {r.missing} not finite" if r.missing else ""
            r_hat = flag(_r_hat(r.r_hat), r.r_hat > R_HAT) if not math.isnan(r.r_hat) else "–"
            row += [size(r.ess_bulk), size(r.ess_tail), r_hat, rest, r.worst or "–"]
        cells.append(row)
    head = ["quantity", "mean", "sd", "90 % interval"]
    head += ["bulk ESS", "tail ESS", "R-hat", "judged", "worst at"] if chains else []
    return table(head, cells, label=label, text_columns=(0, 8), html_columns=(4, 5, 6))


def _by_chain(tree: xr.DataTree) -> str:
    stats = group(tree, "sample_stats")
    columns: dict[str, tuple[str, Callable[[Floats], int | float]]] = {
        "diverging": ("divergences", _count),
        "failed_solve": ("failed solves", _count),
        "acceptance_rate": ("mean acceptance", _average),
        "n_steps": ("mean leapfrog steps", _average),
        "step_size": ("step size", _average),
        "lp": ("mean log density", _average),
        "energy": ("E-BFMI", bfmi),
    }
    there = {n: np.asarray(stats[n].transpose("chain", "draw").values, float) for n in columns
             if n in stats and set(stats[n].dims) == {"chain", "draw"}}  # fmt: skip
    if not there or not sampled(tree):
        return absent("This fit holds no sampler statistics.") if sampled(tree) else ""
    rows = [[str(c + 1), *(number(columns[n][1](v[c])) for n, v in there.items())] for c in range(stats.sizes["chain"])]
    head = ["chain", *(columns[n][0] for n in there)]
    text = f"E-BFMI below {E_BFMI} points at a posterior whose energy the sampler explores badly."
    note = paragraph(text, "small") if "energy" in there else ""
    return "<h3>Sampler by chain</h3>" + table(head, rows, label="Sampler statistics by chain") + note


def _count(values: Floats) -> int:
    return int(np.nansum(values))


def _average(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def has_equilibria(tree: xr.DataTree) -> bool:
    """Whether the populations are equilibria; those of a comparator may follow an equation forward in time."""
    return group(tree, "solver").attrs.get("equilibria") != "none"


def solver(tree: xr.DataTree) -> str:
    """Accuracy and effort of the equilibrium solves behind the posterior draws."""
    found = group(tree, "solver")
    if not has_equilibria(tree):
        settings = [(str(k), exact(v)) for k, v in found.attrs.items()]
        return table(("integration", "value"), settings, label="Integration of the populations", text_columns=(0, 1))
    if not found.data_vars and not found.attrs:
        return absent("This fit holds no record of the equilibrium solver.")
    rows: list[tuple[str, str]] = [(str(k), exact(v)) for k, v in found.attrs.items()]
    for name, title, digits in (("residual", "residual", 2), ("iterations", "iterations", 3)):
        if name in found:
            values = np.asarray(found[name].values, float)
            finite = values[np.isfinite(values)]
            if finite.size:
                spread = f"{number(float(np.median(finite)), digits)}, {number(float(finite.max()), digits)}"
                rows.append((f"{title}: median, largest", spread))
            if finite.size < values.size:
                rows.append((f"{title}: not finite", f"{values.size - finite.size} of {values.size}"))
    if "status" in found:
        rows.append(("solves behind the posterior draws", str(found["status"].size)))
        rows += _endings(np.asarray(found["status"].values))
    return table(("equilibrium solver", "value"), rows, label="Equilibrium solver", text_columns=(0, 1))


def _endings(status: np.ndarray) -> list[tuple[str, str]]:
    """How often solves ended in each way."""
    rows = []
    for code, count in zip(*np.unique(status[status == status], return_counts=True), strict=True):
        try:
            sentence = Status(np.asarray(int(code))).message  # type: ignore[arg-type]
        except (ValueError, TypeError, KeyError):
            sentence = f"Status {code}"
        rows.append((sentence, f"{count} of {status.size}"))
    return rows


def data(tree: xr.DataTree) -> str:
    """Sizes and provenance of the data."""
    about = dict(decode(tree.attrs, "data", dict))
    provenance = about.pop("provenance", None)
    words: dict[Any, str] = {
        "n_trajectories": "trajectories",
        "n_times": "times",
        "n_states": "states",
        "time_unit": "unit of time",
    }
    rows: dict[str, Any] = {words.get(k, str(k)): v for k, v in about.items()}
    observed = observation(tree, "observed_data")
    if observed is not None:
        seen = int(np.isfinite(np.asarray(observed.values, float)).sum())
        rows |= {"observed variable": str(observed.name), "observed states": labels(observed, "state")[:40]}
        rows |= {"observed cells": seen, "missing cells among these states": observed.size - seen}
    totals = group(tree, "constant_data").get("totals")
    if totals is not None and np.isfinite(np.asarray(totals.values, float)).any():
        values = np.asarray(totals.values, float)
        rows["agents observed (smallest, largest total)"] = [float(np.nanmin(values)), float(np.nanmax(values))]
    parts = [facts(rows, "Data") if rows else absent("This fit holds no description of its data.")]
    if isinstance(provenance, dict) and provenance:
        parts.append("<h3>Provenance</h3>" + facts(provenance, "Provenance of the data"))
    else:
        parts.append(paragraph(str(provenance)) if provenance else absent("The provenance of the data was not recorded."))
    return "".join(parts)


def settings(tree: xr.DataTree) -> str:
    """Settings, versions and config of the run."""
    rows: dict[str, Any] = {
        k: tree.attrs[k] for k in ("method", "seed", "created", "wall_time_seconds", "initial", "prior") if k in tree.attrs
    }
    rows |= decode(tree.attrs, "inference", dict)
    parts = [facts(rows, "Settings of the inference") if rows else absent("The settings were not recorded.")]
    versions = decode(tree.attrs, "versions", dict)
    parts.append("<h3>Versions</h3>" + (facts(versions, "Versions") if versions else absent("Versions were not recorded.")))
    config = str(tree.attrs.get("config") or "")
    if config.strip():
        parts.append(fold("Configuration of this run (TOML)", f"<pre><code>{escape(config)}</code></pre>"))
    return "".join(parts)
