"""Is the equilibrium that a posterior speaks of the only one, and how near is it to vanishing? Asked at posterior draws."""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd

from bayes_mfg.equilibrium import Branch, Equilibrium, conditioning, enumerate, monotonicity, solve, spectral_radius
from bayes_mfg.errors import InputError
from bayes_mfg.models import Calibration

from .coordinates import coordinates
from .errors import FitError
from .identifiability_words import listing, number
from .options import whole
from .pointwise import needed
from .progress import bar
from .result import Fit

log = logging.getLogger(__name__)

FOLD = 0.1
"""Margin up to which a draw is said to touch a fold.

There a disturbance of the population may grow tenfold through the agents' answers to one another. At a simple fold the margin falls to zero with the
root of the distance of the parameters (own derivation). Measured: 0.5 to 1 in linear-quadratic games that have one equilibrium, 0.99 in an epidemic,
0.09 in the bandwagon of emissions at 98 % of the price of its fold (docs/identifiability.md).
"""


SEARCHED = [
    "chain",
    "draw",
    "trajectory",
    "spectral_radius",
    "equilibria",
    "converged",
    "attract",
    "costs",
    "dynamics",
    "terminal",
]
"""Columns of what is asked at a few draws."""


@dataclasses.dataclass(frozen=True, eq=False)
class Uniqueness:
    """Conditioning of the equilibria at posterior draws, and what a search for others found at a few of them.

    Attributes
    ----------
    draws : one row per draw and trajectory: `chain`, `draw`, `trajectory`, `smallest`, `margin`; see `bayes_mfg.equilibrium.Conditioning`.
    searched : one row per draw at which more was asked, of the trajectory with the least margin: `spectral_radius` of the best-response map (of a
        sweep, undamped; NaN where it was not found), `equilibria` found, how many searches `converged` to these, how many of these `attract`, and
        the least monotonicity terms `costs`, `dynamics`, `terminal` over random pairs (negative: violated; absent under a social planner).
    starts, pairs : of each search, the equilibrium itself not counted, and of each kind of pair.
    failed : draws and trajectories at which the equilibrium was not found again.
    """

    draws: pd.DataFrame
    searched: pd.DataFrame
    starts: int
    pairs: int
    failed: int

    @property
    def margin(self) -> float:
        """The least margin at any draw; NaN where no equilibrium was found again."""
        return float(self.draws["margin"].min())

    @property
    def touches_fold(self) -> bool:
        """Whether some draw is so near to a fold that its equilibrium may vanish."""
        return bool((self.draws["margin"] <= FOLD).any())

    @property
    def several(self) -> bool:
        """Whether a search found more than one equilibrium at any draw."""
        return bool((self.searched["equilibria"] > 1).any())

    def table(self) -> pd.DataFrame:
        """One row per draw and trajectory, with what was asked at some of them."""
        return self.draws.merge(self.searched, how="left", on=["chain", "draw", "trajectory"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that a reader of the posterior must know."""
        told = []
        if self.touches_fold:
            near = int((self.draws["margin"] <= FOLD).sum())
            told.append(
                f"The posterior touches a fold: at {near} of {len(self.draws)} equilibria of draws the smallest singular value of the equations, "
                f"with the value eliminated, is down to {number(self.margin)} (1 without answers of agents to one another, 0 at a fold). Beyond a "
                "fold the equilibrium is gone, and the posterior ends there, or jumps."
            )
        if self.several:
            most = int(self.searched["equilibria"].max())
            some = int((self.searched["equilibria"] > 1).sum())
            told.append(
                f"At {some} of {len(self.searched)} draws a search found several equilibria, up to {most}: the posterior speaks of one of them "
                "(see `branches` of the Calibration)."
            )
        unknown = int(self.draws["margin"].isna().sum())
        if unknown:
            told.append(
                f"At {unknown} of {len(self.draws)} equilibria of draws no margin could be computed: whether they are near a fold is not known."
            )
        empty = int((self.searched["equilibria"] == 0).sum())
        if empty:
            told.append(
                f"At {empty} of {len(self.searched)} draws the search found no equilibrium at all: it failed there, and says nothing."
            )
        if self.failed:
            told.append(f"At {self.failed} draws and trajectories the equilibrium was not found again.")
        return tuple(told)

    @property
    def sentences(self) -> list[str]:
        """The result in words; what was not found is never said to be excluded."""
        margin, few = self.draws["margin"], len(self.searched)
        told = [
            f"At {len(margin)} equilibria of posterior draws the smallest singular value of the equations, with the value eliminated, is from "
            f"{number(margin.min())} to {number(margin.max())}: 1 without answers of agents to one another, 0 at a fold."
        ]
        if few:
            radius = self.searched["spectral_radius"].dropna()
            if len(radius):
                told.append(
                    f"The best-response map has a spectral radius from {number(radius.min())} to {number(radius.max())} at {len(radius)} draws: "
                    + (
                        "beliefs near the equilibria lead to them."
                        if (radius < 1).all()
                        else "beliefs near some equilibria lead away from them."
                    )
                )
            if len(radius) < few:
                told.append(f"At {few - len(radius)} of {few} draws the spectral radius was not found.")
            one = self.searched[self.searched["equilibria"] == 1]
            if len(one):
                low, high = int(one["converged"].min()), int(one["converged"].max())
                count = f"{low}" if low == high else f"{low} to {high}"
                told.append(
                    f"At {len(one)} of {few} draws no second equilibrium was found, which proves nothing: {count} of {self.starts + 1} searches, "
                    "one of them from the equilibrium itself, ended at an equilibrium."
                )
            told += self._monotone()
        return [*told, *self.warnings]

    def _monotone(self) -> list[str]:
        least = self.searched[["costs", "dynamics", "terminal"]].min()
        if least.isna().all():
            return ["Monotonicity was not checked: under a social planner it says nothing."]
        about = f"among {self.pairs} pairs of populations at each of {len(self.searched)} draws"
        names = {"costs": "at equal values", "dynamics": "at values that differ", "terminal": "of the terminal cost"}
        broken = [f"{words} ({number(float(least[key]))})" for key, words in names.items() if least[key] < -1e-9]
        if not broken:
            return [f"No violation of monotonicity was found {about}, which is no proof that the equilibrium is the only one."]
        return [f"Monotonicity is violated {listing(broken)} {about}: it does not exclude several equilibria."]

    def __repr__(self) -> str:
        found = f"up to {int(self.searched['equilibria'].max())} equilibria" if len(self.searched) else "no search"
        return f"Uniqueness(margin {number(self.margin)}, {found})"


def uniqueness(
    fit: Fit,
    *,
    num_draws: int = 20,
    searched: int = 4,
    starts: int = 16,
    pairs: int = 64,
    seed: int = 0,
    progress: bool | None = None,
) -> Uniqueness:
    """Whether the equilibria of posterior draws are near a fold, and what speaks for or against others.

    At every draw, for every trajectory, the smallest singular values of the equilibrium's equations; at a few of them - the one with the least
    margin, and others spread evenly - the spectral radius of the best-response map, a search for other equilibria from many beliefs, and
    monotonicity on random pairs of populations. Nothing here proves that there is one equilibrium only.

    Parameters
    ----------
    fit : a fit of a `Calibration`, with its model.
    num_draws : draws, spread evenly over chains and draws.
    searched : draws among these at which more is asked; 0 for none.
    starts : of each search, as in `bayes_mfg.equilibrium.enumerate`.
    pairs : random pairs of each kind.
    seed : of beliefs and pairs.
    progress : show progress; by default on a terminal only.

    Returns
    -------
    Uniqueness

    Raises
    ------
    InputError : for a fit without its model, a model without a game, and options out of range.
    FitError : when no equilibrium is found again.
    """
    if not isinstance(fit, Fit):
        raise InputError(f"uniqueness: fit is {type(fit).__name__}; a fit is needed.")
    model = needed(fit, "uniqueness")
    if not isinstance(model, Calibration):
        raise InputError(f"uniqueness: the model is a {type(model).__name__}, which has no game; a Calibration is needed.")
    given = {
        "num_draws": (num_draws, 1),
        "searched": (searched, 0),
        "starts": (starts, 1),
        "pairs": (pairs, 1),
        "seed": (seed, 0),
    }
    for name, (value, least) in given.items():
        if not whole(value) or value < least:
            raise InputError(f"uniqueness: {name} is {value!r}; a whole number of at least {least} is needed.")
    posterior = fit.tree["posterior"].to_dataset()
    sizes = posterior.sizes["chain"], posterior.sizes["draw"]
    some = np.unique(np.linspace(0, sizes[0] * sizes[1] - 1, num_draws).round().astype(int))
    rows: list[dict[str, Any]] = []
    failed = 0
    with bar(len(some) + searched, "uniqueness", progress) as shown:
        for k in some:
            chain, draw = divmod(int(k), sizes[1])
            for r, name in zip(range(model.population.n_trajectories), model.population.trajectories, strict=True):
                eq, _ = _equilibrium(model, fit, chain, draw, r)
                if not bool(eq.converged):
                    failed += 1
                    continue
                found = conditioning(eq)
                rows.append({"chain": chain, "draw": draw, "trajectory": name, **dataclasses.asdict(found)})
            shown.update()
        if not rows:
            raise FitError("uniqueness: at no draw was the equilibrium found again.")
        draws = pd.DataFrame(rows)
        # A margin that is not known comes first.
        draws["order"] = draws["margin"].fillna(-np.inf)
        nearest = draws.loc[draws.groupby(["chain", "draw"])["order"].idxmin()].reset_index(drop=True)
        draws = draws.drop(columns="order")
        asked = []
        for k in _chosen(nearest["order"].to_numpy(), searched):
            row = nearest.loc[k]
            place = {name: row[name] for name in ("chain", "draw", "trajectory")}
            r = list(model.population.trajectories).index(row["trajectory"])
            eq, params = _equilibrium(model, fit, int(row["chain"]), int(row["draw"]), r)
            asked.append({**place, **_asked(model, eq, params, starts, pairs, seed)})
            shown.update()
    result = Uniqueness(draws, pd.DataFrame(asked, columns=SEARCHED), starts, pairs, failed)
    for sentence in result.warnings:
        log.warning("%s", sentence)
    return result


def _chosen(margins: np.ndarray, count: int) -> list[int]:
    """The place of the least margin, and others spread evenly."""
    if not count:
        return []
    spread = np.linspace(0, len(margins) - 1, min(count, len(margins))).round().astype(int)
    least = int(np.argmin(margins))
    return [least, *[int(k) for k in spread if k != least][: min(count, len(margins)) - 1]]


def _equilibrium(model: Calibration, fit: Fit, chain: int, draw: int, trajectory: int) -> tuple[Equilibrium, dict[str, Any]]:
    """The equilibrium of one draw and trajectory, found again from what the fit holds of it, and its parameters.

    Of a fit that kept parameters alone the solver sets out as it did for the draw: from nothing, or from the belief of the most probable branch.
    """
    space = coordinates(model)
    flat = fit.tree["unconstrained_posterior"]["latent"].to_numpy()[chain, draw]
    latents: Mapping[str, Any] = space.latents(space.constrain(jnp.asarray(flat)), model.data)
    posterior = fit.tree["posterior"]
    guess: tuple[Any, Any] | None = None
    if "mu" in posterior:
        mu, value = (posterior[name].to_numpy()[chain, draw, trajectory] for name in ("mu", "value"))
        guess = jnp.asarray(mu), jnp.asarray(value)
    elif model.branches is not None:
        best = int(np.argmax(posterior["branch"].to_numpy()[chain, draw, trajectory]))
        guess = jnp.asarray(model.branches[0][best]), jnp.asarray(model.branches[1][best])
    params, mu0 = model.parameters(latents, trajectory), latents["mu0"][trajectory]
    options: dict[str, Any] = {"method": model.method, "scheme": model.scheme, "control": model.control, "guess": guess}
    return solve(model.game, params, mu0, model.grid, **options), params


def _asked(model: Calibration, eq: Equilibrium, params: Mapping[str, Any], starts: int, pairs: int, seed: int) -> dict[str, Any]:
    """What is asked at a few draws only."""
    branches: tuple[Branch, ...] = enumerate(
        model.game,
        params,
        eq.problem.mu0,
        model.grid,
        starts=starts,
        guesses=[eq],
        seed=seed,
        scheme=model.scheme,
        control=model.control,
    )
    terms = {} if model.control else dataclasses.asdict(monotonicity(eq, pairs=pairs, seed=seed))
    return {
        "spectral_radius": spectral_radius(eq),
        "equilibria": len(branches),
        "converged": sum(branch.starts for branch in branches),
        "attract": sum(branch.attracts for branch in branches),
        **{name: terms.get(name, np.nan) for name in ("costs", "dynamics", "terminal")},
    }
