"""Who moves where, and when: the flows between states in the equilibrium of every posterior draw."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jax import Array

from bayes_mfg.equilibrium import Equilibrium, solve
from bayes_mfg.errors import InputError
from bayes_mfg.models import Calibration, Data

from .assemble import CHUNK
from .coordinates import compiled, coordinates
from .errors import FitError
from .files import write_whole
from .intervene import MOST_LOST, SAME_BRANCH
from .intervention_result import LEAST_DRAWS, tail_of
from .movement_map import located, panel, picture
from .predict import branch_keys, chosen_draws, chosen_numbers
from .report_page import charts, figure, listing, number, plural
from .report_svg import Band, Layer, Line, chart, view

if TYPE_CHECKING:
    from .result import Fit

log = logging.getLogger(__name__)

BAND = 0.9
"""Probability of the bands of tables, sentences and figures."""

DRAWS = 200
"""Posterior draws that are used unless told otherwise."""

TOLD = 3
"""Pairs of states that sentences name."""

MOST_FIGURES = 6
"""States whose net flow a page shows over time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Flows:
    """Shares of the population that move between states, draw by draw, means over trajectories.

    Attributes
    ----------
    data : `moved` (draw, interval, origin, destination), the share of the whole population that goes from origin to destination in each interval
        between reported times (those who move twice count twice); `mu` (draw, time, state). The coordinate `interval` holds the intervals' middles.
    trajectories : names of those that the means are of.
    places : state -> longitude and latitude, of the states that have a place on a map; empty where the data say nothing of places.
    lost : draws left out because an equilibrium was not found again.
    seen : time of the last datum; what comes later is a forecast.
    cautions : what the fit warns of.
    """

    data: xr.Dataset
    trajectories: tuple[str, ...]
    places: dict[str, tuple[float, float]]
    lost: int = 0
    seen: float = np.inf
    cautions: tuple[str, ...] = ()

    @property
    def banded(self) -> bool:
        """Whether there are draws enough for bands; a point estimate has one."""
        return int(self.data.sizes["draw"]) >= LEAST_DRAWS

    @property
    def net(self) -> xr.DataArray:
        """What each state gains in each interval, less what it loses (draw, interval, state)."""
        moved = self.data["moved"]
        gained, left = moved.sum("origin").rename(destination="state"), moved.sum("destination").rename(origin="state")
        found: xr.DataArray = gained - left
        return found

    def table(self, ci_prob: float = BAND) -> pd.DataFrame:
        """One row per pair of states between which anybody moves, the largest first.

        Parameters
        ----------
        ci_prob : probability of the interval between `low` and `high`.

        Returns
        -------
        DataFrame
            `moved`, the median share of the population that moves so over the whole time, with its interval; `busiest`, the middle of the interval in
            which the median per unit of time is largest. The index is "origin to destination".

        Raises
        ------
        InputError : when `ci_prob` is no probability between 0 and 1.
        """
        tail = tail_of(ci_prob)
        moved = self.data["moved"]
        low, middle, high = moved.sum("interval").quantile([tail, 0.5, 1 - tail], "draw").to_numpy()
        pace = (moved / self._steps()).median("draw").transpose("interval", "origin", "destination").to_numpy()
        busiest = moved["interval"].to_numpy()[np.argmax(pace, axis=0)]
        names = [str(name) for name in moved["origin"].to_numpy()]
        rows = [
            (f"{a} to {b}", middle[i, j], low[i, j], high[i, j], busiest[i, j])
            for i, a in enumerate(names)
            for j, b in enumerate(names)
            if i != j and high[i, j] > 0
        ]
        rows.sort(key=lambda row: -row[1])
        frame = pd.DataFrame(rows, columns=["pair", "moved", "low", "high", "busiest"])
        return frame.set_index("pair").rename_axis(None)

    @property
    def sentences(self) -> list[str]:
        """The largest flows, and which states gain and lose, in plain words."""
        table = self.table()
        ends = self.data["time"].to_numpy()
        bands = (
            f"bands hold {BAND:.0%} of {plural(self.data.sizes['draw'], 'draw')}"
            if self.banded
            else "without bands, of a point or too few draws"
        )
        ahead = f", from {number(float(self.seen))} on a forecast" if self.seen < ends[-1] - 1e-9 else ""
        said = [
            f"Flows from {number(float(ends[0]))} to {number(float(ends[-1]))}{ahead}: means over {plural(len(self.trajectories), 'trajectory')}, "
            f"as shares of the whole population; {bands}."
        ]
        if len(table):
            most = []
            for row in table.head(TOLD).itertuples():
                band = f", {number(float(row.low))} to {number(float(row.high))}" if self.banded else ""
                most.append(f"{row.Index} ({number(float(row.moved))}{band}, busiest at {number(float(row.busiest))})")
            said.append(f"Most move from {listing(most)}.")
        else:
            said.append("Nobody moves.")
        low, middle, high = self.net.sum("interval").quantile([0.5 - BAND / 2, 0.5, 0.5 + BAND / 2], "draw").to_numpy()
        names = [str(name) for name in self.data["state"].to_numpy()]
        for word, sure in (("gain", low > 0), ("lose", high < 0)):
            found = [f"{names[k]} ({number(float(middle[k]))})" for k in np.argsort(-np.abs(middle)) if sure[k] and self.banded]
            if found:
                said.append(f"Over the whole time the band says that {listing(found)} {word}{'s' if len(found) == 1 else ''}.")
        if self.lost:
            said.append(f"{plural(self.lost, 'draw')} left out: an equilibrium was not found again.")
        return [*said, *(f"The fit warns: {text}" for text in self.cautions)]

    @property
    def drawn(self) -> str:
        """The map, or a ring where there are no places, as an SVG drawing for a page."""
        return panel(self.data, self.net, self.places, self.banded)

    @property
    def figures(self) -> str:
        """Markup of a report's figures: the map, and the net flow into the states that change most, over time."""
        pale = "where the band holds zero" if self.banded else "for there are no bands"
        words = f"circles: mean share; filled by what is gained (blue) or lost (orange), arrows: net moves; pale {pale}"
        shown = [figure(self.drawn, "Map" if located(self.data, self.places) else "States", "", words)]
        return charts(
            [*shown, *(figure(drawing, f"into {name}", "net, share per unit of time") for name, drawing in self._over_time())]
        )

    def _over_time(self) -> list[tuple[str, str]]:
        """Net flow per unit of time into the most changing states."""
        net = self.net / self._steps()
        quantiles = (
            net.quantile([0.5 - BAND / 2, 0.5, 0.5 + BAND / 2], "draw").transpose("quantile", "interval", "state").to_numpy()
        )
        times, names = self.data["interval"].to_numpy(), [str(name) for name in self.data["state"].to_numpy()]
        ends = float(self.data["time"][0]), float(self.data["time"][-1])
        chosen = sorted(np.argsort(-np.abs(quantiles[1]).max(axis=0), kind="stable")[:MOST_FIGURES])
        low, high, _ = view([quantiles[:, :, chosen]])
        drawings = []
        for k in chosen:
            below, middle, above = quantiles[:, :, k]
            at = int(np.argmax(np.abs(middle)))
            band = f"{number(float(below[at]))} to {number(float(above[at]))}"
            words = f"Largest at {number(float(times[at]))}: {number(float(middle[at]))}, from {band}."
            layers: list[Layer] = [Line(ends, (0.0, 0.0), "zero"), Line(times, middle, "median")]
            if self.banded:
                layers.insert(1, Band(times, below, above, "post90"))
            drawings.append(
                (names[k], chart(layers, title=names[k], description=words, x_label="time", x_range=ends, y_range=(low, high)))
            )
        return drawings

    def _steps(self) -> xr.DataArray:
        return xr.DataArray(np.diff(self.data["time"].to_numpy()), dims="interval", coords={"interval": self.data["interval"]})

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw map and net flows into one SVG file; an older one is replaced.

        Raises
        ------
        InputError : when the folder does not exist.
        """
        return write_whole(path, picture(self.drawn, self._over_time()))


def flows(fit: "Fit", *, num_draws: int | None = None, trajectories: Sequence[str] | None = None) -> Flows:
    """Who moves where, and when, in every posterior draw's equilibrium.

    In each interval of the solver's grid the flow from x to y is the mean share in x times the rate from x to y at the interval's middle. In the
    exponential scheme net flows add up to changes of the population to second order in the solver's steps, in the paper's to first.

    Parameters
    ----------
    fit : a fit of a `Calibration`, with its model.
    num_draws : posterior draws to use, spread evenly; by default 200, or all where there are fewer. They keep their numbers among
        all draws, and take `draws x times x d^2` numbers.
    trajectories : names of those whose mean is taken, such as `days_of(population, "weekday")`; by default all.

    Returns
    -------
    Flows
        With `sentences`, `table()`, `plot(path)`; `fit.report(path, also=[flows(fit)])` puts it on the report.

    Raises
    ------
    InputError : when the fit has no model with a game, there are no such trajectories, or not as many draws.
    FitError : when the equilibria of more than half of the draws were not found again.
    """
    model = fit.model
    if not isinstance(model, Calibration):
        trouble = (
            "was loaded without its model; use load(path, model=...)" if model is None else f"is one of {type(model).__name__}"
        )
        raise InputError(f"flows: the fit {trouble}; a Calibration, whose agents move at rates of their own, is needed.")
    known = list(model.population.trajectories)
    names = known if trajectories is None else list(trajectories)
    if not names or any(name not in known for name in names):
        raise InputError(f"flows: trajectories is {trajectories!r}; some of {', '.join(map(str, known))} are needed.")
    chosen = np.array([known.index(name) for name in names])
    every = len(chosen_numbers(fit, None, "flows"))
    count = min(DRAWS, every) if num_draws is None else num_draws
    flat, numbers = chosen_draws(fit, count, "flows"), chosen_numbers(fit, count, "flows")
    many = compiled(model, "flows", lambda: jax.jit(jax.vmap(_one(model), in_axes=(0, 0, None, None))))
    # Without several equilibria nothing is random.
    keys = (jax.random.split(jax.random.key(0), every) if model.branches is None else branch_keys(fit))[numbers]
    weights = np.bincount(chosen, minlength=len(known)) / len(chosen)
    parts = []
    for first in range(0, len(flat), CHUNK):
        x, k = jnp.asarray(flat[first : first + CHUNK]), keys[first : first + CHUNK]
        short = CHUNK - len(x) if len(flat) > CHUNK else 0
        # The last chunk is filled up, so that one compiled function serves all.
        x = jnp.concatenate([x, jnp.repeat(x[-1:], short, 0)])
        k = jnp.concatenate([k, jnp.repeat(k[-1:], short)])
        part = many(x, k, model.data, jnp.asarray(weights, x.dtype))
        parts.append([np.asarray(a)[: len(x) - short] for a in part])
    moved, mu = (np.concatenate(pieces) for pieces in zip(*parts, strict=True))
    good = np.isfinite(moved).all(axis=(1, 2, 3)) & np.isfinite(mu).all(axis=(1, 2))
    if np.mean(~good) > MOST_LOST:
        raise FitError(
            f"flows: an equilibrium was not found again in {(~good).sum()} of {plural(len(good), 'draw')}; "
            "what is left says nothing of the posterior."
        )
    if not good.all():
        log.warning("flows: %s left out: an equilibrium was not found again.", plural(int((~good).sum()), "draw"))
    states, times = list(model.population.states), model.grid.times
    data = xr.Dataset(
        {"moved": (("draw", "interval", "origin", "destination"), moved[good]), "mu": (("draw", "time", "state"), mu[good])},
        coords={
            "draw": numbers[good],
            "interval": 0.5 * (times[1:] + times[:-1]),
            "time": times,
            "origin": states,
            "destination": states,
            "state": states,
        },
    )
    places = _places(model.population.provenance, states)
    seen = float(model.population.times[-1])
    return Flows(data, tuple(map(str, names)), places, int((~good).sum()), seen, tuple(fit.warnings))


def _one(model: Calibration) -> Any:
    """Function from one draw to flows in every interval `(T - 1, d, d)` and populations `(T, d)`, weighted over trajectories."""
    space = coordinates(model)

    def one(x: Array, key: Array, data: Data, weights: Array) -> tuple[Array, Array]:
        latents = space.latents(space.constrain(x), data)
        belief = None
        if model.branches is not None:
            drawn = model.trajectories(latents, data, jax.random.fold_in(key, 1))  # as the fit drew it
            belief = drawn.mu, drawn.value

        def single(mu0: Array, observed: Array, own: dict[str, Any], guess: tuple[Array, Array] | None) -> tuple[Array, Array]:
            functions, _ = model.functions(latents["raw"], observed, own)
            params = model.sampled(functions, model.grid, mu0.dtype)
            eq = solve(
                model.game, params, mu0, model.grid, scheme=model.scheme, method=model.method, control=model.control, guess=guess
            )
            return (moves(eq), eq.mu) if guess is None else (on_branch(moves(eq), eq.mu, guess[0]), eq.mu)

        moved, mu = jax.vmap(single)(latents["mu0"], data.observed, model.own_raw(latents["raw"]), belief)
        # Another trajectory's failed solve is no matter of those that are asked for.
        counted = weights[:, None, None] > 0
        moved, mu = jnp.where(counted[..., None], moved, 0.0), jnp.where(counted, mu, 0.0)
        return jnp.tensordot(weights, moved, 1), jnp.tensordot(weights, mu, 1)

    return one


def on_branch(moved: Array, mu: Array, believed: Array) -> Array:
    """Flows, or NaN where the population found is not that of the branch that was drawn, so that another equilibrium's are never taken for it."""
    return jnp.where(jnp.max(jnp.abs(mu - believed)) <= SAME_BRANCH, moved, jnp.nan)


def moves(eq: Equilibrium) -> Array:
    """Shares of the population that move in each interval between grid points `(T - 1, origin, destination)`; NaN where the solve failed."""
    problem, grid = eq.problem, eq.grid
    mu, value = (0.5 * (path[:-1] + path[1:]).T for path in eq.nodes)
    nodes = grid.fine_times
    rates, _ = problem.generators(jnp.asarray(0.5 * (nodes[1:] + nodes[:-1]), mu.dtype), value, mu, problem.middles)
    steps = jnp.asarray(np.diff(nodes), mu.dtype)
    fine = jnp.moveaxis(mu[:, None] * rates * steps, -1, 0)
    return jnp.sum(fine.reshape(grid.points - 1, grid.substeps, *fine.shape[1:]), axis=1)


def _places(provenance: Any, states: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Where states are, as the reader of the data wrote it down."""
    found = provenance.get("places") if isinstance(provenance, dict) else None
    if not isinstance(found, dict):
        return {}
    out = {}
    for name in states:
        place = found.get(name)
        pair = [place.get(axis) for axis in ("longitude", "latitude")] if isinstance(place, dict) else [None]
        if all(isinstance(value, int | float) and np.isfinite(value) for value in pair):
            out[str(name)] = (float(pair[0]), float(pair[1]))  # type: ignore[arg-type]
    return out
