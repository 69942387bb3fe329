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
    """

    interventions: tuple[AnyIntervention, ...]
    baseline: xr.Dataset
    changed: xr.Dataset
    lost: dict[str, int]
    news: tuple[float, ...]
    horizon: float
    fixed_paths: tuple[str, ...] = ()

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
        """
        tail = 0.5 * (1.0 - ci_prob)
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
        """The result in words, of the mean over trajectories, with 90 % intervals."""
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
        else:
            at = np.median(mu[:, k], axis=0)
            told.append(
                f"At the peak, at time {number(float(times[k]))}, it has moved {_with_band(elsewhere[:, k])} of the population: "
                f"{states[int(at.argmin())]} holds {_with_band(-mu[:, k, int(at.argmin())])} less and "
                f"{states[int(at.argmax())]} {_with_band(mu[:, k, int(at.argmax())])} more than in the baseline{where}."
            )
            told += self._ahead(elsewhere, times)
            told.append(
                f"At the end, at time {number(float(times[-1]))}, {_with_band(elsewhere[:, -1])} is elsewhere than in the baseline."
            )
        cost, base = difference["cost"].to_numpy(), self.baseline["cost"].mean("trajectory").to_numpy()
        if np.abs(base).max() > 0 or np.abs(cost).max() > 0:
            way = "rises" if np.median(cost) >= 0 else "falls"
            told.append(
                f"The mean cost of an agent {way} by {_with_band(np.sign(np.median(cost) or 1.0) * cost)} from {number(float(np.median(base)))}."
            )
            expected = difference["expected_cost"].to_numpy() - cost
            if max(self.news, default=times[0]) > times[0] and np.abs(expected).max() > 1e-6 * max(1.0, np.abs(base).max()):
                way = "less" if np.median(expected) <= 0 else "more"
                sign = -1.0 if way == "less" else 1.0
                told.append(
                    f"At the start agents expected to pay {_with_band(sign * expected)} {way} than they did: some of it came as a surprise."
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
        return told

    def _ahead(self, elsewhere: np.ndarray, times: np.ndarray) -> list[str]:
        """What moves before anything is changed: anticipation."""
        if len(self.windows) < len(self.interventions):
            return []
        begin = min(start for start, _ in self.windows)
        before = np.flatnonzero(times <= begin + 1e-9 * (times[-1] - times[0]))
        if not before.size or begin <= times[0] or self.news[0] >= begin:
            return []
        if np.median(elsewhere[:, before[-1]]) <= NOTHING:
            return []
        return [
            f"Before it begins, at time {number(float(times[before[-1]]))}, {_with_band(elsewhere[:, before[-1]])} of the population has moved: "
            f"agents knew from time {number(self.news[0])}."
        ]

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
        InputError : when the folder does not exist, states differ, there is no such trajectory, or there are more than four results.
        """
        from .intervention_page import picture

        return write_whole(path, picture({name or self.description: self, **(beside or {})}, trajectory))

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


def _with_band(draws: np.ndarray) -> str:
    """Median, and the band where there are several draws."""
    low, middle, high = np.quantile(draws, [0.5 - BAND / 2, 0.5, 0.5 + BAND / 2])
    return (
        number(float(middle)) if len(draws) == 1 else f"{number(float(middle))} ({number(float(low))} to {number(float(high))})"
    )
