"""What an intervention does: both sides, their difference with bands, and the same in words."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from bayes_mfg.errors import InputError

from .files import write_whole
from .interventions import AnyIntervention, Change, Close
from .report_page import number, plural

BAND = 0.9
"""Probability of the bands that sentences and figures show."""

LEAST_DRAWS = 20
"""Draws below which there are no bands: of fewer nothing is known at their ends."""

NOTHING = 1e-9
"""Differences of shares below this are rounding."""


@dataclasses.dataclass(frozen=True, eq=False)
class Intervention:
    """Populations, values, flows and costs with and without an intervention, draw by draw.

    Attributes
    ----------
    interventions : what was changed.
    baseline, changed : `mu` and `value` (draw, trajectory, time, state); where flows are kept `flow` (draw, trajectory, time, origin, destination),
        the share of the population that moves per unit of time; `cost` (draw, trajectory), what an agent pays on average from the start to the
        horizon along what happens; `expected_cost` (draw, trajectory), what they expect to pay on average at the start, by the plan that they then
        have to the horizon, which is the same where nothing surprises them. At the moment of news `value` and `flow` are those after it.
    lost : reason -> number of draws left out for it, on either side.
    news : times at which agents hear of something.
    horizon : end of the game.
    fixed_paths : parameters that follow the observed population, and so do not answer to the changed one.
    seen : time of the last datum; what comes later is a forecast. Infinite where populations are new and have none.
    cautions : what the fit warns of.
    """

    interventions: tuple[AnyIntervention, ...]
    baseline: xr.Dataset
    changed: xr.Dataset
    lost: dict[str, int]
    news: tuple[float, ...]
    horizon: float
    fixed_paths: tuple[str, ...] = ()
    seen: float = np.inf
    cautions: tuple[str, ...] = ()

    @property
    def banded(self) -> bool:
        """Whether there are draws enough for the bands of sentences and figures; `table` and `bands` have the quantiles of any number."""
        return int(self.baseline.sizes["draw"]) >= LEAST_DRAWS

    @property
    def failed_solves(self) -> int:
        """Draws left out."""
        return sum(self.lost.values())

    @property
    def difference(self) -> xr.Dataset:
        """Changed minus baseline, of the same draw."""
        found: xr.Dataset = self.changed - self.baseline
        return found

    @property
    def description(self) -> str:
        """The interventions in plain words."""
        text = " and ".join(one.description for one in self.interventions)
        return text[:1].upper() + text[1:]

    @property
    def windows(self) -> tuple[tuple[float, float], ...]:
        """Windows of closures and changes that begin after the start or end before the horizon."""
        times = self.baseline["time"].to_numpy()
        return tuple(
            (float(times[0]) if one.start is None else one.start, self.horizon if one.end is None else one.end)
            for one in self.interventions
            if isinstance(one, Close | Change) and (one.start is not None or one.end is not None)
        )

    def bands(self, side: str = "difference", probs: tuple[float, ...] = (0.05, 0.5, 0.95)) -> xr.Dataset:
        """Quantiles over draws of everything on one side, in a dimension `quantile`.

        Parameters
        ----------
        side : "baseline", "changed" or "difference".
        probs : probabilities of the quantiles.

        Raises
        ------
        InputError : for another side, and for probabilities that are none.
        """
        if side not in ("baseline", "changed", "difference"):
            raise InputError(f"bands: side is {side!r}; it is one of baseline, changed, difference.")
        levels = np.asarray(probs, dtype=float)
        if levels.ndim != 1 or not levels.size or not np.all((levels >= 0) & (levels <= 1)):
            raise InputError(f"bands: probs is {probs!r}; probabilities from 0 to 1 are needed.")
        found: xr.Dataset = getattr(self, side).quantile(levels, dim="draw")
        return found

    def table(self, ci_prob: float = BAND) -> pd.DataFrame:
        """Where the populations differ most, and by how much.

        Parameters
        ----------
        ci_prob : probability of the interval between `low` and `high`.

        Returns
        -------
        DataFrame
            One row per trajectory and state: the time `at` which the median difference of its share is largest; there the medians of `baseline`,
            `changed` and `difference`, and the ends `low` and `high` of the difference. A row "cost" has the mean cost of an agent.

        Raises
        ------
        InputError : when `ci_prob` is no probability between 0 and 1.
        """
        tail = tail_of(ci_prob)
        difference = self.difference
        rows, index = [], []
        times = self.baseline["time"].to_numpy()
        for r, track in enumerate(self.baseline["trajectory"].to_numpy()):
            moved = difference["mu"].to_numpy()[:, r]
            median = np.median(moved, axis=0)
            for s, state in enumerate(self.baseline["state"].to_numpy()):
                k = int(np.argmax(np.abs(median[:, s])))
                before, after = (side["mu"].to_numpy()[:, r, k, s] for side in (self.baseline, self.changed))
                rows.append(_row(float(times[k]), before, after, tail))
                index.append((str(track), str(state)))
            before, after = (side["cost"].to_numpy()[:, r] for side in (self.baseline, self.changed))
            rows.append(_row(np.nan, before, after, tail))
            index.append((str(track), "cost"))
        return pd.DataFrame(rows, index=pd.MultiIndex.from_tuples(index, names=["trajectory", "share of"]))

    @property
    def sentences(self) -> list[str]:
        """The result in words, of the mean over trajectories, with 90 % intervals where there are draws enough for them."""
        difference = self.difference.mean("trajectory")
        mu, times = difference["mu"].to_numpy(), difference["time"].to_numpy()
        states = [str(name) for name in difference["state"].to_numpy()]
        told = [f"{self.description}."]
        # The share of agents that would have to be moved back to have the baseline again.
        # Of each trajectory by itself: opposite moves do not cancel.
        elsewhere = 0.5 * np.abs(self.difference["mu"].to_numpy()).sum(axis=-1).mean(axis=1)
        typical = np.median(elsewhere, axis=0)
        k = int(np.argmax(typical if typical.max() > NOTHING else elsewhere.mean(axis=0)))
        where = "" if self.baseline.sizes["trajectory"] == 1 else ", on average over trajectories"
        if elsewhere.max() <= NOTHING:
            told.append("It moves nobody.")
            told += self._idle()
        else:
            at = np.median(mu[:, k], axis=0)
            told.append(
                f"At the peak, at time {number(float(times[k]))}, it has moved {self._with_band(elsewhere[:, k])} of the population: "
                f"{states[int(at.argmin())]} holds {self._with_band(-mu[:, k, int(at.argmin())])} less and "
                f"{states[int(at.argmax())]} {self._with_band(mu[:, k, int(at.argmax())])} more than in the baseline{where}."
            )
            told += self._ahead(elsewhere, times)
            told.append(
                f"At the end, at time {number(float(times[-1]))}, {self._with_band(elsewhere[:, -1])} is elsewhere than in the baseline."
            )
        cost, base = difference["cost"].to_numpy(), self.baseline["cost"].mean("trajectory").to_numpy()
        if np.abs(base).max() > 0 or np.abs(cost).max() > 0:
            way = "rises" if np.median(cost) >= 0 else "falls"
            told.append(
                f"The mean cost of an agent {way} by {self._with_band(np.sign(np.median(cost) or 1.0) * cost)} from {number(float(np.median(base)))}."
            )
            expected = difference["expected_cost"].to_numpy() - cost
            if max(self.news, default=times[0]) > times[0] and np.abs(expected).max() > 1e-6 * max(1.0, np.abs(base).max()):
                way = "less" if np.median(expected) <= 0 else "more"
                sign = -1.0 if way == "less" else 1.0
                told.append(
                    f"At the start agents expected to pay {self._with_band(sign * expected)} {way} than they did: some of it came as a surprise."
                )
        for name in self.fixed_paths:
            told.append(f"{name} follows the observed population and does not answer to the intervention.")
        if self.failed_solves:
            total = self.failed_solves + self.baseline.sizes["draw"]
            told.append(
                f"{self.failed_solves} of {plural(total, 'draw')} are left out: {counted(self.lost)}. What is shown is the posterior given that this "
                "does not happen."
            )
        if self.baseline.sizes["draw"] == 1:
            told.append("This is one draw: nothing is known of its uncertainty.")
        elif not self.banded:
            told.append(f"These are {self.baseline.sizes['draw']} draws, too few for bands.")
        if self.seen < times[-1] - 1e-9 * (times[-1] - times[0]):
            told.append(f"The data end at time {number(float(self.seen))}: on both sides, what comes after is a forecast.")
        return [*told, *(f"The fit warns: {text}" for text in self.cautions)]

    def _idle(self) -> list[str]:
        """Why a change may have had no effect at all."""
        inside = any(isinstance(one, Change) and one.end is not None and one.end < self.horizon for one in self.interventions)
        paid = np.abs(self.difference["cost"].to_numpy()).max() > NOTHING * max(
            1.0, np.abs(self.baseline["cost"].to_numpy()).max()
        )
        if not inside or paid:
            return []
        return ["Nor does it change a cost: a parameter that only the terminal cost reads has to be changed at the horizon."]

    def _ahead(self, elsewhere: np.ndarray, times: np.ndarray) -> list[str]:
        """What moves before anything is changed: anticipation of what begins first, where agents knew of that."""
        if len(self.windows) < len(self.interventions):
            return []
        slack = 1e-9 * (times[-1] - times[0])
        begin = min(start for start, _ in self.windows)
        known = [(start, self._told(one)) for (start, _), one in zip(self.windows, self.interventions, strict=True)]
        first = min(told for start, told in known if start <= begin + slack)
        before = np.flatnonzero(times <= begin + slack)
        if not before.size or begin <= times[0] or first >= begin - slack:
            return []
        if np.median(elsewhere[:, before[-1]]) <= NOTHING:
            return []
        later = any(start > begin + slack and told < begin - slack for start, told in known)
        return [
            f"Before it begins, at time {number(float(times[before[-1]]))}, {self._with_band(elsewhere[:, before[-1]])} of the population has moved: "
            f"agents knew from time {number(first)}{', and of what begins later, too' if later else ''}."
        ]

    def _told(self, one: AnyIntervention) -> float:
        """When agents hear of a closure or a change."""
        assert isinstance(one, Close | Change)
        begin = float(self.baseline["time"][0])
        start = begin if one.start is None else float(one.start)
        return begin if one.announced is True else start if one.announced is False else float(one.announced)

    def _with_band(self, draws: np.ndarray) -> str:
        """Median, and the band where there are draws enough."""
        low, middle, high = np.quantile(draws, [0.5 - BAND / 2, 0.5, 0.5 + BAND / 2])
        return (
            f"{number(float(middle))} ({number(float(low))} to {number(float(high))})" if self.banded else number(float(middle))
        )

    def plot(
        self,
        path: str | os.PathLike[str],
        *,
        beside: "dict[str, Intervention] | None" = None,
        name: str = "",
        trajectory: str | None = None,
    ) -> Path:
        """Write a figure as SVG: shares of states on both sides, and the difference, with 90 % bands.

        Parameters
        ----------
        path : where the picture goes; an older one there is replaced.
        beside : other results to draw into the same figure, by name, such as the same closure by surprise, or in the forward dynamics.
        name : what this one is called there.
        trajectory : the one to draw; by default the mean over all.

        Raises
        ------
        InputError : when the folder does not exist, states differ, two results have one name, there is no such trajectory, or there are more than
            four results.
        """
        from .intervention_page import picture

        own, others = name or self.description, beside or {}
        if own in others:
            raise InputError(f"plot: {own!r} is the name of this result and of one beside it; two names are needed.")
        return write_whole(path, picture({own: self, **others}, trajectory))

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write an HTML page: sentences, table and figures.

        Raises
        ------
        InputError : when the folder does not exist.
        """
        from .intervention_page import write_page

        return write_page({"": self}, path)

    def __repr__(self) -> str:
        return f"Intervention({self.description}; {plural(self.baseline.sizes['draw'], 'draw')}, {self.failed_solves} left out)"


def tail_of(ci_prob: object) -> float:
    """Probability below an interval.

    Raises
    ------
    InputError : when `ci_prob` is no probability between 0 and 1.
    """
    if isinstance(ci_prob, bool) or not isinstance(ci_prob, int | float | np.number) or not 0 < ci_prob < 1:
        raise InputError(f"table: ci_prob is {ci_prob!r}; a probability between 0 and 1 is needed.")
    return 0.5 * (1.0 - float(ci_prob))


def counted(lost: dict[str, int]) -> str:
    """Reasons for which draws were lost, with their numbers, in words."""
    return ", ".join(f"{reason} in {draws}" for reason, draws in lost.items())


def _row(at: float, before: np.ndarray, after: np.ndarray, tail: float) -> dict[str, float]:
    low, middle, high = np.quantile(after - before, [tail, 0.5, 1.0 - tail])
    return {
        "at": at,
        "baseline": float(np.median(before)),
        "changed": float(np.median(after)),
        "difference": float(middle),
        "low": float(low),
        "high": float(high),
    }
