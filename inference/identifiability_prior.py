"""What the data of a model can tell wherever its prior says that the unknowns may be: the linearised answer at draws of the prior."""

import dataclasses
import os
import re
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pandas as pd

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel

from .coordinates import prior_points
from .errors import FitError
from .files import write_whole
from .identifiability import UNCHECKED, identifiability
from .identifiability_result import MOST_TOLD, Identifiability
from .options import whole
from .progress import bar
from .report_page import number, plural

VERDICTS = ("identified", "weak", "prior-driven", "unknown")

TRACELESS = ("invariant", "null")
"""Kinds of directions of which the draws are counted that have them."""

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
"""A number in a sentence, and not one in a name."""

TAIL = 0.1
"""Share of draws beyond either end of what is told of a ratio."""


@dataclasses.dataclass(frozen=True, eq=False)
class OverPrior:
    """Answers of `identifiability` at draws of the prior, side by side.

    They are counted and not averaged: a direction that is null at every draw, but another one at each, is lost in an average of information.

    Attributes
    ----------
    found : the answer at every draw.
    failed : draws without an equilibrium, or without finite derivatives.
    """

    found: tuple[Identifiability, ...]
    failed: int

    def table(self) -> pd.DataFrame:
        """One row per unknown.

        Columns: the share of draws with each verdict; `ratio`, the median over draws of posterior over prior sd (itself a median over times), with
        `low` and `high`, between which eight of ten draws lie; `partners`, the other with which it was confounded most often.
        """
        tables = [one.table() for one in self.found]
        rows = {}
        for name in tables[0].index:
            verdicts = Counter(str(table.loc[name, "verdict"]) for table in tables)
            judged = [one.verdicts[name] for one in self.found]
            partners = Counter(partner for verdict in judged if verdict.cause == "confounded" for partner in verdict.partners)
            low, middle, high = np.nanquantile([float(table.loc[name, "ratio"]) for table in tables], [TAIL, 0.5, 1 - TAIL])
            rows[name] = {
                **{verdict: verdicts[verdict] / len(tables) for verdict in VERDICTS},
                "ratio": float(middle),
                "low": float(low),
                "high": float(high),
                "partners": partners.most_common(1)[0][0] if partners else "",
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("unknown")

    @property
    def sentences(self) -> list[str]:
        """The same in words: how many directions the data decide, which leave no trace, one sentence per unknown, and the warnings."""
        informed = np.quantile([one.effective for one in self.found], [TAIL, 0.5, 1 - TAIL])
        low, middle, high = (number(float(x)) for x in informed)
        size, count = len(self.found[0].singular_values), len(self.found)
        said = [
            f"At {plural(count, 'draw')} of the prior the data effectively decide {middle} of {size} directions (median; {low} to {high})."
        ]
        told = _counted([{d.sentence for d in one.told if d.kind in TRACELESS} for one in self.found])
        said += told[:MOST_TOLD]
        if len(told) > MOST_TOLD:
            said.append(f"{plural(len(told) - MOST_TOLD, 'more direction')} without a trace at fewer draws.")
        for name, row in self.table().iterrows():
            verdicts = [f"{verdict} at {round(row[verdict] * count)}" for verdict in VERDICTS if row[verdict] > 0]
            what = f"{name}: {', '.join(verdicts)} of {count}; the posterior's sd is {number(float(row['ratio']))} of the prior's"
            whom = f"; where it is confounded, mostly with {row['partners']}" if row["partners"] else ""
            said.append(f"{what} (median; {number(float(row['low']))} to {number(float(row['high']))}){whom}.")
        said += _counted([{w for w in one.warnings if w != UNCHECKED} for one in self.found])
        if any(UNCHECKED in one.warnings for one in self.found):
            said.append(
                "Whether the linearisation can be trusted was checked at none of these draws; identifiability checks it at one point."
            )
        if self.failed:
            said.append(
                f"{self.failed} of {plural(count + self.failed, 'draw')} left out: no equilibrium or no finite derivatives there."
            )
        return said

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write sentences and table as one self-contained HTML page; `Identifiability.report(path, over=...)` adds them to the page of one point.

        Raises
        ------
        InputError : when the folder does not exist.
        """
        from .identifiability_page import page

        return write_whole(path, page(None, self))


def _counted(told: list[set[str]]) -> list[str]:
    """Sentences with the number of draws at which they were told, most often told first; those that differ in numbers only are one."""
    alike: dict[str, list[str]] = {}
    for some in told:
        for pattern, text in {NUMBER.sub("#", text): text for text in sorted(some)}.items():
            alike.setdefault(pattern, []).append(text)
    out = []
    for texts in sorted(alike.values(), key=len, reverse=True):
        figures = "" if len(set(texts)) == 1 else ", figures of one of them"
        out.append(f"{texts[0].removesuffix('.')} (at {len(texts)} of {plural(len(told), 'draw')}{figures}).")
    return out


def identifiability_over_prior(model: ForwardModel, draws: int = 32, *, seed: int = 0, progress: bool | None = None) -> OverPrior:
    """What the data of a model can tell about its unknowns, at draws of the prior: how often each is identified, weak, or prior-driven.

    Parameters
    ----------
    model : the model.
    draws : of the prior.
    seed : of these.
    progress : show progress; by default on a terminal only.

    Returns
    -------
    OverPrior
        With `table()` and `sentences`; `found` holds the whole answer at every draw.

    Raises
    ------
    InputError : for a model or an option that does not fit, as in `identifiability`.
    FitError : when there is no draw with an equilibrium and finite derivatives.
    """
    for name, value, least in (("draws", draws, 1), ("seed", seed, 0)):
        if not whole(value) or value < least:
            raise InputError(f"identifiability_over_prior: {name} is {value!r}; a whole number of at least {least} is needed.")
    if not isinstance(model, ForwardModel):
        raise InputError(
            f"identifiability_over_prior: model is {type(model).__name__}; a bayes_mfg.models.Calibration is needed."
        )
    found: list[Identifiability] = []
    failed = 0
    with bar(draws, "identifiability", progress) as shown:
        for point in prior_points(model, jax.random.split(jax.random.key(seed), draws)):
            try:
                found.append(identifiability(model, point, checked=0, seed=seed, progress=False))
            except FitError:
                failed += 1
            shown.update()
    if not found:
        raise FitError("identifiability_over_prior: no draw of the prior has an equilibrium and finite derivatives.")
    return OverPrior(tuple(found), failed)
