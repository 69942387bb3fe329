"""What `identifiability` found: directions, verdicts, and where not to believe the linearisation."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .files import write_whole

if TYPE_CHECKING:
    from .identifiability_prior import OverPrior

SMALL, MOST_TOLD = 0.1, 8
"""Change of an unknown, in prior sds, up to which a direction is not told by itself; and how many are, at most, besides invariances."""


@dataclasses.dataclass(frozen=True, eq=False)
class Direction:
    """A direction in the space of all unknowns, one prior sd long.

    Attributes
    ----------
    singular_value : of the sensitivities of what is observed in this direction, in sds of the observation per prior sd.
    kind : "invariant" (the game declares it), "null" (zero to rounding), "weak" (a singular value of at most 1: the data hold no more than the
        prior) or "informed".
    size : largest change of any unknown at any time, in its own prior sds; small where only raw coordinates move, such as high frequencies.
    sentence : the direction in words.
    shares : unknown -> squared part of the direction; their sum is 1.
    change : unknown -> what the direction adds to it, of the unknown's shape: `(T,)`, `(T, d)`, ...
    profile : unknown -> size of the change at each time, `(T,)`, in prior sds; of those that vary.
    """

    singular_value: float
    kind: str
    size: float
    sentence: str
    shares: dict[str, float]
    change: dict[str, np.ndarray]
    profile: dict[str, np.ndarray]

    @property
    def ratio(self) -> float:
        """Posterior over prior sd in this direction."""
        return 1.0 / float(np.sqrt(1.0 + self.singular_value**2))


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
    """What the data can say about one unknown.

    Attributes
    ----------
    verdict : "identified", "weak" or "prior-driven"; "unknown" where it does not move at the point.
    cause : of what is not identified: "invariant" (a change that the game declares moves it), "null" (a change without any trace moves it),
        "confounded" (with others known it would be narrow), "little seen" (what is observed hardly moves with it); "" where it is identified.
    partners : the others that move with it.
    ratio : posterior over prior sd, by linearisation, of the unknown's shape.
    sway : by how many posterior sds it moves, at most, when prior means move by one prior sd, of the unknown's shape; never below the ratio but for
        priors that are far from normal, and 1 where it is as wide as another unknown's prior leaves it.
    alone : the ratio if all other unknowns were known.
    curved : factor, by which the ratio differs between points of the linearised posterior, of the unknown's shape: 1 where linear, NaN where not
        checked.
    counted : what the verdict counts, of the unknown's shape: all up to the last datum but entries that do not enter or are known.
    axis : number of the axis of time in all of these, None where there is none.
    reason : the sentence.
    """

    verdict: str
    cause: str
    partners: tuple[str, ...]
    ratio: np.ndarray
    sway: np.ndarray
    alone: np.ndarray
    curved: np.ndarray
    counted: np.ndarray
    axis: int | None
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Identifiability:
    """What the data of a model can tell about its unknowns, from exact sensitivities and the expected information of its observation model.

    Attributes
    ----------
    at : the point, in words.
    singular_values : `(size,)`, falling: of the sensitivities of what is observed, in sds of the observation, by unknowns in prior sds. Their squares
        are the eigenvalues of the expected Fisher information scaled by the prior's covariance.
    directions : the least informed first.
    verdicts : unknown -> verdict. Unknowns are the game's parameters, the observation model's own, and "mu0", the initial shares.
    times : the grid's, `(T,)`.
    sd : unknown -> linearised posterior sd on its own scale, of its shape; of `values`.
    values : unknown -> value at the point.
    coordinates : names of the unconstrained coordinates, `(size,)`.
    prior_covariance, covariance : of these, `(size, size)`, before and after the data.
    warnings : sentences that a reader must know.
    model : the model in words.
    """

    at: str
    singular_values: np.ndarray
    directions: tuple[Direction, ...]
    verdicts: dict[str, Verdict]
    times: np.ndarray
    sd: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    coordinates: list[str]
    prior_covariance: np.ndarray
    covariance: np.ndarray
    warnings: tuple[str, ...]
    model: dict[str, Any]

    @property
    def informed(self) -> int:
        """Number of directions in which the data hold more than the prior: eigenvalues of the prior-scaled information above 1."""
        return int(np.sum(self.singular_values > 1.0))

    @property
    def effective(self) -> float:
        """Effective number of directions that the data decide, the sum of `l / (1 + l)` over the eigenvalues `l`."""
        squares = self.singular_values**2
        return float(np.sum(squares / (1.0 + squares)))

    @property
    def told(self) -> tuple[Direction, ...]:
        """The directions without much information that sentences and figures show: those that move unknowns most, the largest first."""
        some = sorted((d for d in self.directions if d.kind != "informed" and d.size > SMALL), key=lambda d: -d.size)
        known = [d for d in some if d.kind == "invariant"]
        return (*known, *[d for d in some if d.kind != "invariant"][:MOST_TOLD])

    @property
    def sentences(self) -> list[str]:
        """The result in words: numbers of directions, null and weak ones, one sentence for every unknown, and the warnings."""
        size = len(self.singular_values)
        told = [
            f"At {self.at}: of {size} directions of the unknowns the data hold more than the prior in {self.informed}; effectively they decide "
            f"{self.effective:.1f}."
        ]
        counted: dict[str, int] = {}
        for direction in self.told:
            counted[direction.sentence] = counted.get(direction.sentence, 0) + 1
        told += [f"{sentence[:-1]} ({count} directions)." if count > 1 else sentence for sentence, count in counted.items()]
        left = sum(d.kind != "informed" for d in self.directions) - len(self.told)
        told += [f"{left} more directions without much information move unknowns less than these."] if left else []
        return [*told, *(verdict.reason for verdict in self.verdicts.values()), *self.warnings]

    def table(self) -> pd.DataFrame:
        """One row per unknown.

        Columns: `verdict`, `cause`, `partners`; `ratio`, the median over times and entries of posterior over prior sd, with `least` and `most`;
        `sway`, the median of what other priors would move in posterior sds; `alone`, the ratio if all other unknowns were known; `contraction`,
        1 minus `ratio` (a report of a fit has 1 minus the mean ratio); and `curved`, the largest factor by which the ratio differs within the
        linearised posterior. All but the last of what the verdict counts.
        """
        rows = {}
        for name, v in self.verdicts.items():
            ratio = _finite(v.ratio[v.counted])
            rows[name] = {
                "verdict": v.verdict,
                "cause": v.cause,
                "partners": ", ".join(v.partners),
                "ratio": float(np.median(ratio)),
                "least": float(ratio.min()),
                "most": float(ratio.max()),
                "sway": float(np.median(_finite(v.sway[v.counted]))),
                "alone": float(np.median(_finite(v.alone[v.counted]))),
                "contraction": float(1.0 - np.median(ratio)),
                "curved": float(_finite(v.curved).max()),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("unknown")

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Write the spectrum, the widths over time, and the null and weak directions over time as one SVG picture.

        Raises
        ------
        InputError : when the folder does not exist.
        """
        from .identifiability_page import picture

        return write_whole(path, picture(self))

    def report(self, path: str | os.PathLike[str], over: "OverPrior | None" = None) -> Path:
        """Write sentences, figures and tables as one self-contained HTML page, with the answers over the prior where these are given.

        Raises
        ------
        InputError : when the folder does not exist.
        """
        from .identifiability_page import page

        return write_whole(path, page(self, over))

    def __repr__(self) -> str:
        found = ", ".join(f"{name}: {v.verdict}" for name, v in self.verdicts.items())
        return f"Identifiability({self.informed} of {len(self.singular_values)} directions; {found})"


def _finite(values: np.ndarray) -> np.ndarray:
    """What there is; one NaN where there is nothing."""
    some = values[~np.isnan(values)]
    return some if some.size else np.full(1, np.nan)
