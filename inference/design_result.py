"""What `design` chose: the candidates, their gain over even spreading, and a model that carries the design out."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayes_mfg.data import Population
from bayes_mfg.errors import DataError, InputError
from bayes_mfg.models import ForwardModel

from .assemble import derived
from .design_candidates import Observe
from .design_plan import Plan, with_data
from .files import write_whole
from .identifiability_points import located
from .identifiability_words import number
from .report_page import plural

CAVEAT = "Observations are independent in the model; where the same agents are counted again and again they tell less, of every design."


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """Losses at draws that the search has not seen, in nats, `(n,)` each.

    Attributes
    ----------
    before, chosen, uniform : of no design, the chosen and the even one.
    warnings : sentences on the estimates.
    gains : of "eig", the `Gain` of the chosen and of the even design.
    """

    before: np.ndarray
    chosen: np.ndarray
    uniform: np.ndarray
    warnings: tuple[str, ...] = ()
    gains: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over draws.

    Attributes
    ----------
    value : the mean.
    error : its standard error over draws; NaN of one point.
    low, high : 5 % and 95 % quantiles over draws.
    """

    value: float
    error: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Estimate":
        """Of numbers `(n,)`."""
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
        return cls(float(values.mean()), error, *(float(q) for q in np.quantile(values, (0.05, 0.95))))

    def exp(self) -> "Estimate":
        """Of the exponential: of a mean of logarithms the geometric mean."""
        value = float(np.exp(self.value))
        return Estimate(value, value * self.error, float(np.exp(self.low)), float(np.exp(self.high)))


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
    """A set of observations, and what it is expected to tell.

    Attributes
    ----------
    criterion : "D", "A" or "eig".
    goal : what "A" is about, in words.
    at : the draws or the point, in words.
    budget : as it was given.
    picked, spread : numbers of the candidates that were chosen, and of the even design.
    alone : gain of every candidate by itself, in nats, `(candidates,)`, at the draws that were searched on.
    last : chosen candidate -> what is lost in nats without it.
    judged : losses at draws that the search has not seen.
    searched, worst : how was searched.
    warnings : sentences that a reader must know.
    plan : everything that could be observed.
    offered : number of candidates.
    recorded : a sentence on the data of the model that are there already.
    rival : what the chosen design is held against, in words.
    """

    plan: Plan
    criterion: str
    goal: str
    at: str
    picked: tuple[int, ...]
    spread: tuple[int, ...]
    budget: float
    judged: Judged
    alone: np.ndarray
    last: dict[int, float]
    searched: str
    worst: bool
    warnings: tuple[str, ...]
    offered: int
    recorded: str = ""
    rival: str = "an even spread of the same budget"

    @property
    def chosen(self) -> tuple[Observe, ...]:
        """What to observe."""
        return tuple(self.plan.candidates[k] for k in self.picked)

    @property
    def uniform(self) -> tuple[Observe, ...]:
        """The even design that the chosen one is compared with."""
        return tuple(self.plan.candidates[k] for k in self.spread)

    @property
    def gain(self) -> Estimate:
        """What the chosen design tells, in nats: for "D" and "eig" the expected information gain; for "A" minus the log of `sd_ratio`."""
        return Estimate.of(self.judged.before - self.judged.chosen)

    @property
    def against_uniform(self) -> Estimate:
        """The chosen design against the even one.

        For "A" the geometric mean over draws of root mean square posterior sds under the chosen over those under the even design; else the
        difference of gains in nats, chosen less even.
        """
        if self.criterion == "A":
            return Estimate.of(self.judged.chosen - self.judged.uniform).exp()
        return Estimate.of(self.judged.uniform - self.judged.chosen)

    @property
    def sd_ratio(self) -> Estimate:
        """For "A": posterior over prior sd of what is asked for, root mean square, under the chosen design.

        Raises
        ------
        InputError : for the other criteria, which are not about sds.
        """
        if self.criterion != "A":
            raise InputError(f"Design: criterion {self.criterion!r} has no ratio of sds; see gain.")
        return Estimate.of(self.judged.chosen).exp()

    @property
    def sentences(self) -> list[str]:
        """The design in words."""
        told = [f"Observe {_listed(self.chosen)}."]
        cost = sum(c.cost for c in self.chosen)
        told.append(
            f"{plural(len(self.chosen), 'observation')} of {self.offered} candidates, at a cost of {cost:g} of {self.budget:g}."
        )
        rest = sum(c.cost for c in self.uniform)
        told += [self.recorded] if self.recorded else []
        gain, other = self.gain, self.against_uniform
        if self.criterion == "A":
            before = number(float(np.exp(self.judged.before.mean())))
            told.append(f"At {self.at}: posterior over prior sd of {self.goal}: {_with(self.sd_ratio)}; without it {before}.")
            told.append(f"Against {self.rival} the sd is {_with(other)} times as large.")
        else:
            told.append(
                f"At {self.at}: the expected information gain is {_with(gain)} nats, {_with(other)} more than of {self.rival}."
            )
        told += [f"That costs {rest:g}."] if abs(rest - cost) > 1e-9 * cost else []
        if len(self.judged.chosen) > 1 and np.isfinite(other.error):
            better = other.value < 1 - 2 * other.error if self.criterion == "A" else other.value > 2 * other.error
            told += [] if better else [f"That is no difference beyond its uncertainty: {self.rival} does as well."]
        return [*told, CAVEAT, *self.warnings]

    def table(self) -> pd.DataFrame:
        """One row per candidate.

        Columns: where, when, what, cost; whether it is `chosen` and in the design that is held against it (`uniform`); its gain `alone`
        and, of chosen ones, what is lost `without` it, in nats.
        """
        rows = []
        for k, c in enumerate(self.plan.candidates[: self.offered]):
            rows.append(
                {
                    "trajectory": c.place,
                    "times": ", ".join(f"{t:g}" for t in c.moments),
                    "states": ", ".join(c.states or ()),
                    "total": c.total,
                    "cost": c.cost,
                    "chosen": k in self.picked,
                    "uniform": k in self.spread or c in self.uniform,
                    "alone": float(self.alone[k]),
                    "without": self.last.get(k, float("nan")),
                }
            )
        return pd.DataFrame(rows).rename_axis("candidate")

    def population(self, *, uniform: bool = False) -> Population:
        """Data of the shape that the design would record, beside what is there already; the numbers of what is new mean nothing."""
        return self.plan.population(self.spread if uniform else self.picked)

    def model(self, population: Population | None = None, *, uniform: bool = False) -> ForwardModel:
        """The model of the design, to be fitted.

        Parameters
        ----------
        population : what was recorded, of the shape of `population()`; by default blank data.
        uniform : of the even design.

        Raises
        ------
        InputError : for data of another shape.
        """
        return with_data(self.plan.model, self.population(uniform=uniform) if population is None else population)

    def simulate(self, truth: Any, *, seed: int = 0, uniform: bool = False) -> Population:
        """Carry the design out by simulation: data of the model's own observations at known unknowns, beside what is there already.

        Parameters
        ----------
        truth : a dict of values as `identifiability` takes them, such as `{"gamma": path, "noise": 1e-3}`, with the prior median for the rest; or
            unconstrained coordinates `(size,)` of the design's model, such as a draw from its prior.
        seed : of the noise.
        uniform : of the even design.

        Raises
        ------
        InputError : for another shape, for values that the model's paths cannot follow to one percent, without an equilibrium, and where draws are no
            population: of `Gaussian`, shares need not sum to one; of `Binomial` with all states, counts to the total.
        """
        blank = self.population(uniform=uniform)
        model = with_data(self.plan.model, blank)
        if truth is None:
            raise InputError("Design: truth is None; a dict of values or an array of coordinates is needed.")
        flat, _, told = located(model, truth, "Design", "truth")
        if told:
            raise InputError(f"Design: truth is none of this model's. {' '.join(told)}")
        made = derived(model, flat[None], seed, given_data=False)
        if np.any(made["solver/code"] != 0):
            raise InputError("Design: there is no equilibrium at this truth.")
        index = [blank.states.index(s) for s in model.columns if s in blank.states]
        old: Any = blank.proportions if blank.counts is None else blank.counts
        full = np.array(old)
        full[..., index] = made["replicate"][0][..., : len(index)]
        full = np.where(blank.mask & ~self.plan.there, full, old)
        numbers: dict[str, Any] = {"proportions": full}
        if blank.counts is not None:
            numbers = {"counts": np.where(blank.mask, full, 0), "totals": np.asarray(blank.totals, float)}
        about: dict[str, Any] = {"states": blank.states, "trajectories": blank.trajectories, "time_unit": blank.time_unit}
        try:
            return Population(blank.times, **numbers, **about, mask=blank.mask, provenance={"source": "a simulated design"})
        except DataError as error:
            kind = type(model.observation).__name__
            raise InputError(
                f"Design: what {kind} draws is no population ({error}); bayes_mfg.inference.study needs none."
            ) from error

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Write when and where to observe, what each candidate would tell alone, and the gain over an even spread, as one SVG picture.

        Raises
        ------
        InputError : when the folder does not exist.
        """
        from .design_page import picture

        return write_whole(path, picture(self))

    def __repr__(self) -> str:
        return f"Design({len(self.picked)} of {self.offered} candidates by {self.criterion}; {_listed(self.chosen)})"


def _listed(chosen: tuple[Observe, ...]) -> str:
    """Times of candidates that differ in nothing else, together."""
    groups: dict[str, list[str]] = {}
    for c in chosen:
        what = (f", {', '.join(c.states)} alone" if c.states else "") + (f", {c.total} agents" if c.total else "")
        groups.setdefault(f"{c.place}|{what}", []).append("+".join(f"{t:g}" for t in c.moments))
    return "; ".join(f"trajectory {key.split('|')[0]} at {', '.join(times)}{key.split('|')[1]}" for key, times in groups.items())


def _with(x: Estimate) -> str:
    if np.isnan(x.error):
        return number(x.value)
    return f"{number(x.value)} (standard error {x.error:.2g}; from {number(x.low)} to {number(x.high)} over draws)"
