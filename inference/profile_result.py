"""What `profile` found: the profile of a quantity, confidence sets by the likelihood ratio, and what a reader must know of them."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import chi2

from bayes_mfg.errors import InputError

from .files import write_whole
from .identifiability_words import listing, number
from .point import NEAR
from .report_svg import Layer, Line, Points, chart, mosaic, view


@dataclasses.dataclass(frozen=True, eq=False)
class ConfidenceSet:
    """Values that the likelihood ratio does not reject.

    Attributes
    ----------
    level : of confidence, between 0 and 1.
    intervals : `(low, high)`, rising; more than one where the profile has several hills.
    open_below, open_above : whether the set goes on beyond the last value that was looked at, so that this end is no limit.
    """

    level: float
    intervals: tuple[tuple[float, float], ...]
    open_below: bool
    open_above: bool

    def __contains__(self, value: float) -> bool:
        """Whether a value is in the set; beyond the last value that was looked at on an open side everything is."""
        inside = any(low <= value <= high for low, high in self.intervals)
        below = self.open_below and value < self.intervals[0][0]
        return inside or below or (self.open_above and value > self.intervals[-1][1])

    def __str__(self) -> str:
        last = len(self.intervals) - 1
        parts = []
        for k, (low, high) in enumerate(self.intervals):
            left = "(at most " if self.open_below and k == 0 else "["
            right = " or more)" if self.open_above and k == last else "]"
            parts.append(f"{left}{number(low)}, {number(high)}{right}")
        return " and ".join(parts)


@dataclasses.dataclass(frozen=True, eq=False)
class Profile:
    """The profile of one quantity.

    Attributes
    ----------
    quantity : in words.
    estimate : the quantity at the maximum over all unknowns.
    maximum : the log likelihood there, with the log priors of `priors`.
    values : `(n,)`, rising; the estimate is among them.
    log_likelihood : `(n,)`, the maximum over all other unknowns at each value, with the log priors of `priors`.
    sets : level -> confidence set.
    priors : unknowns whose log priors, as densities of the unconstrained coordinates, were added; empty for the likelihood alone.
    locations : unconstrained coordinates of the maxima, `(n, size)`.
    coordinates : names of these.
    ends : why the search ended below and above: "the level was reached", or a reason that leaves the sets open.
    failed_solves : points without an equilibrium on the way; the search turned back from each.
    unsettled : values at which the search over the other unknowns ended where the likelihood is not level.
    off : largest distance between the quantity and the value it was held at, on the quantity's real line.
    evaluations : of the likelihood with its derivatives.
    left : Newton step left at the maximum, in sds; where it is large the maximum was not reached.
    notes : sentences on jumps, uncertain ends, ranges that were not looked through, and ends of supports.
    """

    quantity: str
    estimate: float
    maximum: float
    values: np.ndarray
    log_likelihood: np.ndarray
    sets: dict[float, ConfidenceSet]
    priors: tuple[str, ...]
    locations: np.ndarray
    coordinates: list[str]
    ends: tuple[str, str]
    failed_solves: int
    unsettled: int
    off: float
    evaluations: int
    left: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def deviance(self) -> np.ndarray:
        """Twice the fall from the maximum, `(n,)`, which is chi-square with one degree of freedom at the true value."""
        return np.maximum(2.0 * (self.maximum - self.log_likelihood), 0.0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that a reader must know."""
        told = list(self.notes)
        if self.left > NEAR:
            told.append(
                f"The search for the maximum ended {number(self.left)} sds before it: falls from it are told too small, and "
                "sets are too wide, if anything."
            )
        widest = self.sets[max(self.sets)]
        for is_open, side, why in ((widest.open_below, "below", self.ends[0]), (widest.open_above, "above", self.ends[1])):
            if is_open:
                told.append(f"The {100 * widest.level:g} % set of {self.quantity} is open {side}: {why}.")
        if self.failed_solves:
            told.append(f"{self.failed_solves} points on the way had no equilibrium; the search turned back from them.")
        if self.unsettled:
            told.append(
                f"At {self.unsettled} of {len(self.values)} values the search over the other unknowns ended where the likelihood is not level: at "
                "a kink of it, as where a control reaches its bound on a coarse grid, or before the maximum; then sets are too narrow, if anything."
            )
        return tuple(told)

    @property
    def sentence(self) -> str:
        """The result in words."""
        found = "; ".join(f"{100 * level:g} % confidence set {found}" for level, found in sorted(self.sets.items()))
        weighed = f"the likelihood times the priors of {listing(list(self.priors))}" if self.priors else "the likelihood"
        return f"{self.quantity}: {number(self.estimate)} at the maximum of {weighed}; {found}."

    def table(self) -> pd.DataFrame:
        """One row per level: `low`, `high` of the first interval to the last, `intervals`, `open_below`, `open_above`."""
        rows = {
            level: {
                "estimate": self.estimate,
                "low": found.intervals[0][0],
                "high": found.intervals[-1][1],
                "intervals": len(found.intervals),
                "open_below": found.open_below,
                "open_above": found.open_above,
            }
            for level, found in sorted(self.sets.items())
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("level")

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Write the fall of the profile from its maximum as an SVG picture, with the levels of the confidence sets.

        Raises
        ------
        InputError : when the folder does not exist.
        """
        return write_whole(path, mosaic([(self.quantity, self.drawn)]))

    @property
    def drawn(self) -> str:
        """The picture's one chart."""
        fall = -0.5 * self.deviance
        limits = {level: -0.5 * float(chi2.ppf(level, 1)) for level in self.sets}
        low, high, _ = view([self.values])
        bottom = 1.3 * min(limits.values())
        layers: list[Layer] = [Line((low, high), (y, y), "prior90") for y in limits.values()]
        layers += [Line(self.values, np.where(fall >= bottom, fall, np.nan), "median"), Points(self.values, fall, "dot")]
        words = ", ".join(f"{100 * level:g} %" for level in sorted(self.sets))
        return chart(
            layers,
            title=f"profile of {self.quantity}",
            description=f"fall of the profile log likelihood of {self.quantity} from its maximum; the lines are the limits of the sets of {words}",
            x_label=self.quantity,
            x_range=(low, high),
            y_range=(bottom, 0.1),
        )

    def __repr__(self) -> str:
        return f"Profile({self.sentence[:-1]})"


def check_levels(levels: object) -> tuple[float, ...]:
    """Levels of confidence, rising.

    Raises
    ------
    InputError : for what is no number between 0 and 1, and no sequence of them.
    """
    try:
        some = sorted({float(level) for level in np.atleast_1d(np.asarray(levels, float))})
    except (TypeError, ValueError) as error:
        raise InputError(f"profile: levels is {levels!r}; numbers between 0 and 1 are needed.") from error
    if not some or not all(0 < level < 1 for level in some):
        raise InputError(f"profile: levels is {levels!r}; numbers between 0 and 1 are needed.")
    return tuple(some)
