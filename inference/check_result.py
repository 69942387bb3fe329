"""What `check` found: ranks, outcomes, and what they say."""

import dataclasses
import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayes_mfg.errors import InputError

from .files import write_whole
from .svi import FEWEST, approximate, reliable
from .uniformity import covered, p_value

RANKED = "ranked"

LEVELS = (0.5, 0.8, 0.9)
"""Central intervals whose coverage is told."""

FEW, ENOUGH = 0.2, 3.0
"""Share of the ranks' draws below which the effective sample size of a single fit is told, and multiple of them that the fit must have drawn: of 99
independent draws one estimate in a hundred is below 20, of 300 none in thousands."""

FRAMES = ("outcomes", "ranks", "truth", "mean", "sd", "ess", "prior_predictive")


@dataclasses.dataclass(frozen=True, eq=False)
class Check:
    """Ranks of truths among draws, over many simulations.

    Attributes
    ----------
    method : what was checked.
    draws : number of draws that each truth was ranked among, the largest possible rank.
    seed, options : of the check and of its fits.
    outcomes : one row per simulation: outcome, seconds, fit_draws, ess (the least effective sample size of any quantity), diverging, failed_solve,
        and pareto_k with pareto_k_limit where the method has them; the k of a guide of whose importance ratios too few count for one is infinite.
    ranks, truth, mean, sd, ess : one row per ranked simulation, one column per quantity: rank, true value, posterior mean, sd and effective sample
        size (NaN in checks that were saved before it was kept).
    prior_predictive : by state, the share of the observed numbers inside central intervals of data simulated from the prior, and below and above
        all of them.
    model : the model in words.
    seconds : wall time; less than the sum over simulations where these ran side by side.
    """

    method: str
    draws: int
    seed: int
    options: dict[str, Any]
    outcomes: pd.DataFrame
    ranks: pd.DataFrame
    truth: pd.DataFrame
    mean: pd.DataFrame
    sd: pd.DataFrame
    prior_predictive: pd.DataFrame
    model: dict[str, Any]
    seconds: float
    ess: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)

    def table(self) -> pd.DataFrame:
        """One row per quantity.

        Columns: `p_value` (of uniform ranks, see `bayes_mfg.inference.uniformity.p_value`), `coverage50`, `coverage80`, `coverage90` with the share
        that exact inference would cover in `nominal...` (the same unless the number of draws is odd for it) and the binomial standard error of the
        last as `se90`, `bias` (mean of posterior mean minus truth, in posterior sds; 0 within two over the root of the number of simulations),
        `contraction` (1 minus the ratio of mean posterior variance to the variance of the truths: 0 where the data say nothing, 1 where all),
        and `least_ess` (the least effective sample size in any simulation).
        """
        rows = {}
        for name in self.ranks:
            ranks = self.ranks[name].to_numpy()
            row: dict[str, float] = {"p_value": p_value(ranks, self.draws)}
            for level in LEVELS:
                share, nominal = covered(ranks, self.draws, level)
                row[f"coverage{100 * level:.0f}"], row[f"nominal{100 * level:.0f}"] = share, nominal
            row["se90"] = float(np.sqrt(row["nominal90"] * (1 - row["nominal90"]) / len(ranks)))
            if name in self.sd:
                sd = self.sd[name].to_numpy()
                off, spread = (self.mean[name] - self.truth[name]).to_numpy(), np.var(self.truth[name].to_numpy())
                some = sd > 0  # what depends on the data alone has no spread
                row["bias"] = float(np.mean(off[some] / sd[some])) if some.any() else np.nan
                row["contraction"] = float(1.0 - np.mean(sd**2) / spread) if spread > 0 else np.nan
            if name in self.ess:
                row["least_ess"] = float(self.ess[name].min())
            rows[name] = row
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("quantity")

    def uniform(self, prob: float = 0.99) -> pd.Series:
        """Whether the ranks of each quantity lie inside the simultaneous band of a probability."""
        return self.table()["p_value"] > 1.0 - prob

    @property
    def far(self) -> pd.Series:
        """Of every fit by a guide: whether its Pareto k is above the limit up to which `fit` trusts it, or cannot be had; empty for other methods."""
        fits = self.outcomes[self.outcomes["outcome"] == RANKED]
        if self.method != "svi":
            return pd.Series(dtype=bool)
        # Checks that were saved before limits were: that of the draws asked for, all of which the guide is taken to have given.
        asked = self.options.get("num_samples", inspect.signature(approximate).parameters["num_samples"].default)
        k, limit = (fits.get(name, pd.Series(np.nan, fits.index)).astype(float) for name in ("pareto_k", "pareto_k_limit"))
        judged = k.notna() | (limit.isna() & (asked >= FEWEST))
        return ~(k <= limit.fillna(reliable(asked)))[judged]

    def _drawn(self) -> pd.Series:
        """How many draws each fit has; in checks that were saved before it was kept, how many were asked for, where they were."""
        asked = self.options.get("num_samples", np.nan) * self.options.get("num_chains", 1)
        return self.outcomes.get("fit_draws", pd.Series(np.nan, self.outcomes.index)).fillna(asked)

    @property
    def warnings(self) -> list[str]:
        """What a reader must know: quantities whose ranks are not uniform, fits that failed, draws that are not independent enough."""
        told = []
        table = self.table()
        # Holm's step-down: the chance of any false sentence is 1 %, whatever the dependence between quantities.
        order = table["p_value"].sort_values()
        for k, (name, p) in enumerate(order.items()):
            if p > 0.01 / (len(order) - k):
                break
            told.append(f"{name}: ranks are not uniform (p = {p:.2g}): {_how(table.loc[name])}.")
        outcomes = self.outcomes["outcome"].str.split(":").str[0].value_counts()
        for words, count in outcomes.items():
            if words != RANKED:
                told.append(f"{count} of {len(self.outcomes)} simulations: {words}.")
        ess = self.outcomes["ess"].dropna() if "ess" in self.outcomes else pd.Series(dtype=float)
        if (far := self.far).any():
            told.append(
                f"In {int(far.sum())} of {len(far)} fits the Pareto k of the guide is above the limit for so many draws: far from the posterior."
            )
        few = int((ess < 0.5 * self.draws).sum())
        if few > 0.2 * len(ess):  # estimates from few draws are rough themselves
            told.append(
                f"In {few} of {len(ess)} fits the least effective sample size is below half of the {self.draws} draws that are ranked among: ranks "
                "spread more than uniform ones from that alone; run longer chains."
            )
        if (poor := int((ess < FEW * self.draws)[self._drawn().reindex(ess.index) >= ENOUGH * self.draws].sum())) > 0:
            told.append(
                f"In {poor} of {len(ess)} fits the least effective sample size is below a fifth of the {self.draws} draws that are ranked among "
                f"({ess.min():.2g} at worst): these fits alone are not to be trusted."
            )
        return told

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write rank and ECDF plots and all tables as one self-contained HTML page.

        Raises
        ------
        InputError : when the folder does not exist.
        """
        from .check_page import page

        return write_whole(path, page(self))

    def plot(self, path: str | os.PathLike[str], names: Sequence[str] | None = None, kind: str = "ecdf") -> Path:
        """Write ECDF-difference or rank plots of quantities as one SVG picture.

        Parameters
        ----------
        path : the picture.
        names : quantities; by default all.
        kind : "ecdf" (empirical distribution minus the uniform one, with the simultaneous 99 % band) or "rank" (histogram).

        Raises
        ------
        InputError : for an unknown quantity or kind, and when the folder does not exist.
        """
        from .check_page import picture

        return write_whole(path, picture(self, names, kind))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything as one JSON file, whole or not at all."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        frames = {
            name: {"index": list(frame.index), "columns": list(frame.columns), "data": frame.to_numpy().tolist()}
            for name, frame in ((name, plain[name]) for name in FRAMES)
        }
        return write_whole(path, json.dumps({**plain, **frames}))


def load_check(path: str | os.PathLike[str]) -> Check:
    """Read what `Check.save` wrote.

    Raises
    ------
    InputError : when the file is missing or is no saved check.
    """
    source = Path(path)
    try:
        found = json.loads(source.read_text(encoding="utf-8"))
        frames = {}
        for name in FRAMES:
            if name == "ess" and name not in found:  # saved before it was kept
                continue
            frame = pd.DataFrame(**found[name]).infer_objects()
            frames[name] = frame.rename_axis("state" if name == "prior_predictive" else "simulation")
        return Check(**{**found, **frames})
    except FileNotFoundError as error:
        raise InputError(f"{source}: no such file.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{source}: not a saved check ({error}).") from error


def _how(row: pd.Series) -> str:
    """In what way ranks are not uniform, as far as coverage and bias tell."""
    off = (row["coverage90"] - row["nominal90"]) / row["se90"]
    said = [f"90 % intervals cover {100 * row['coverage90']:.0f} % ({100 * row['nominal90']:.0f} % expected)"]
    if off < -3:
        said.append("draws are too narrow or beside the truth")
    elif off > 2:
        said.append("draws are too wide")
    if abs(row.get("bias", 0.0)) > 0.25:
        said.append(
            f"posterior means are {'above' if row['bias'] > 0 else 'below'} the truth by {abs(row['bias']):.2f} sds on average"
        )
    return ", ".join(said)
