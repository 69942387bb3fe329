"""A prior learned from many trajectories: what one of them is like, and how far they scatter, for forecasts of the next."""

import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from bayes_mfg.data import Population
from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel, describe

from .assemble import finite
from .coordinates import coordinates
from .errors import FitError
from .files import write_whole
from .many import Many, Normal, Posteriors
from .options import whole
from .progress import bar

log = logging.getLogger(__name__)

MOST_UNRELIABLE = 0.05
"""Part of the trajectories whose importance draws may be unreliable before a warning says so."""

LEAST_REFINED = 3
"""Refinements before their steps say whether they may end."""

SLOWEST = 0.99
"""The largest ratio of successive steps that is told from those that never end."""


@dataclasses.dataclass(frozen=True)
class LearnedPrior:
    """A normal prior of a trajectory's unknowns, in unconstrained coordinates, learned from other trajectories.

    Attributes
    ----------
    names : of the coordinates, `(k,)`.
    location, covariance : of the trajectories, `(k,)` and `(k, k)`.
    uncertainty : covariance of the error of `location`, `(k, k)`; by groups of trajectories where these were given.
    trajectories, groups : from how many it was learned.
    evidence : log density of all data at every iteration, up to the noise of importance sampling; Laplace's approximation has none.
    pareto_k : of each trajectory's importance draws in the last iteration, `(R,)`.
    remaining : how far the prior still was from where the iteration leads, in sds, as far as its last steps tell (`learn_prior`).
    model : what it was learned for, in words and numbers: the model, its grid, its states.
    warnings : sentences that a user must know.
    """

    names: tuple[str, ...]
    location: np.ndarray
    covariance: np.ndarray
    uncertainty: np.ndarray
    trajectories: int
    groups: int
    evidence: tuple[float, ...]
    pareto_k: np.ndarray
    remaining: float
    model: dict[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def predictive(self) -> np.ndarray:
        """Covariance of a new trajectory's unknowns about `location`: their scatter, and the error of `location`, `(k, k)`."""
        return self.covariance + self.uncertainty

    @property
    def normal(self) -> Normal:
        """The prior of a new trajectory."""
        return Normal(self.location, np.linalg.cholesky(self.predictive))

    def applied(self, model: ForwardModel) -> ForwardModel:
        """The model with this prior of a new trajectory in place of its own, for `fit` and all that follows.

        Raises
        ------
        InputError : when the model is not the one for which the prior was learned; its data may be others.
        """
        self.check(model, "LearnedPrior")
        return model.with_prior(self.location, self.predictive)

    def check(self, model: ForwardModel, where: str) -> None:
        """Refuse a model for which the prior was not learned: its coordinates would mean something else.

        Raises
        ------
        InputError : when unknowns, game, paths, observation, initial populations, grid or states differ.
        """
        if tuple(coordinates(model).names) != self.names:
            raise InputError(
                f"{where}: the model has the unknowns {', '.join(coordinates(model).names)}; the prior is of {', '.join(self.names)}."
            )
        for name, value in _in_words(model).items():
            if self.model.get(name) != value:
                raise InputError(f"{where}: the prior was learned for another model; their {name} differ.")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; the file appears whole or not at all.

        Raises
        ------
        InputError : when the folder does not exist.
        """
        words = {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in dataclasses.asdict(self).items()
        }
        write_whole(path, json.dumps(words))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        InputError : for a file that is none.
        """
        try:
            words: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(
                names=tuple(words["names"]),
                location=np.asarray(words["location"], float),
                covariance=np.asarray(words["covariance"], float),
                uncertainty=np.asarray(words["uncertainty"], float),
                trajectories=words["trajectories"],
                groups=words["groups"],
                evidence=tuple(words["evidence"]),
                pareto_k=np.asarray(words["pareto_k"], float),
                remaining=float(words["remaining"]),
                model=dict(words["model"]),
                warnings=tuple(words["warnings"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"LearnedPrior: {path} holds no learned prior ({error}).") from error


def learn_prior(
    model: ForwardModel,
    population: Population,
    *,
    groups: Sequence[str] | None = None,
    iterations: int = 10,
    refinements: int = 20,
    num_draws: int = 200,
    strength: float = 1.0,
    tolerance: float = 0.03,
    seed: int = 0,
    progress: bool | None = None,
) -> LearnedPrior:
    """Learn the prior of one trajectory from many: empirical Bayes by expectation and maximisation (EM).

    The unknowns of each trajectory, in unconstrained coordinates, are taken as draws from one normal distribution; its mean and covariance are those
    that make the data of all trajectories most probable, drawn towards the mean and covariance of the model's own prior. That counts as much as
    `strength` trajectories, as a normal-inverse-Wishart prior would, in directions of which the data of one say nothing, so that the own prior stays,
    and for as much less as they leave less of its variance open: a heuristic, with weights taken from the data, and no prior whose mode this is.

    Each iteration finds every trajectory's posterior under the current normal and takes the mean and covariance of all of them. Up to `iterations`
    do so by Laplace's approximation, until there is no more than `tolerance` sds to go; its modes are not means, and what EM makes of them is biased,
    so that it only comes near. Then up to `refinements` iterations go on by importance draws, the same in each, whose moments are right up to their
    noise, and whose Pareto k says where they are not. Where the data say little the prior takes many
    short steps: what is to go is in each entry of location and covariance that of a geometric series, `step r / (1 - r)` with `r` the larger of the
    last two ratios of successive steps (Aitken's extrapolation). What is left in the end is in `LearnedPrior.remaining`, with a warning where that
    is more than `tolerance`. What is approximated: the normal shape, and that the mean and covariance are taken as known; the error of the mean
    alone is estimated and enters `LearnedPrior.predictive`. With groups (seasons whose states resemble each other) it is that of as many groups, by
    a sandwich estimate.

    Source: Dempster, Laird and Rubin, Maximum likelihood from incomplete data via the EM algorithm, JRSS B 39 (1977); by importance sampling, Wei and
    Tanner, JASA 85 (1990); information under missing data, Louis, JRSS B 44 (1982); clusters, Liang and Zeger, Biometrika 73 (1986).

    Parameters
    ----------
    model : a model of one trajectory, no path pooled.
    population : `R` trajectories, at least two, with the model's times and states; what is masked may differ.
    groups : `(R,)` names; trajectories of one group are not independent. By default each is its own.
    iterations, refinements : see above; refinements may be 0.
    num_draws : importance draws for each trajectory.
    strength : trajectories that the model's own prior counts for in directions of which data say nothing, above 0.
    tolerance : see above, in sds of the prior, above 0.
    seed : of the draws.
    progress : show a progress bar; by default on a terminal only.

    Raises
    ------
    InputError : when model, population or groups do not fit together, or a number is out of its range.
    FitError : when a trajectory has no equilibrium at the prior's location, or hardly any draws with one.
    """
    many = Many(model, population, "learn_prior")
    clusters = _clusters(groups, population)
    for name, value, least in (("iterations", iterations, 1), ("refinements", refinements, 0), ("num_draws", num_draws, 50)):
        if not whole(value) or value < least:
            raise InputError(f"learn_prior: {name} is {value!r}; a whole number of at least {least} is needed.")
    for name, number in (("strength", strength), ("tolerance", tolerance)):
        if not (isinstance(number, int | float) and 0 < number < np.inf):
            raise InputError(f"learn_prior: {name} is {number!r}; a positive number is needed.")
    prior, start = many.own_prior(), None
    own = _Own.alike(prior, strength)
    evidence: list[float] = []
    k = np.full(many.count, np.nan)
    told: list[str] = []
    trail = [prior]
    with bar(iterations + refinements, "learning", progress) as shown:
        for number in range(iterations):
            modes = many.modes(prior, start)
            if modes.lost.any():
                raise FitError(
                    f"Trajectory {many.named(modes.lost)} has no equilibrium at the prior's location; another prior is needed."
                )
            mean = prior.location + modes.points @ prior.root.T
            spread = prior.root @ np.linalg.inv(modes.curvature) @ prior.root.T
            if number == 0:
                own = _Own.weighed(prior, spread, strength)
            new = own.maximised(mean, spread)
            trail.append(new)
            prior, start = new, _standard(new, mean)
            shown.update()
            remaining = _remaining(trail)
            if remaining <= tolerance:
                break
        if remaining > tolerance:
            told.append(_unsettled(f"{iterations} iterations by Laplace's approximation", trail, remaining, "iterations"))
        refined = [prior]
        for _ in range(refinements):
            # The same draws in each: what moves is the prior, not the noise.
            found: Posteriors = many.posteriors(prior, num_draws, seed, start)
            modes = found.modes
            if found.failed.any():
                raise FitError(
                    f"Trajectory {many.named(found.failed)} has hardly any draws with an equilibrium; another prior is needed."
                )
            evidence.append(float(found.evidence.sum()))
            k = found.pareto_k
            mean, spread = found.moments()
            new = own.maximised(mean, spread)
            refined.append(new)
            prior, start = new, _standard(new, mean)
            shown.update()
            if len(refined) > LEAST_REFINED and _remaining_refined(refined, trail) <= tolerance:
                break
        if refinements:
            remaining = _remaining_refined(refined, trail)
            if remaining > tolerance:
                told.append(_unsettled(f"{refinements} refinements by importance draws", refined, remaining, "refinements"))
        if not modes.settled.all():
            told.append(f"The search for the posterior's mode did not settle for {many.named(~modes.settled)}.")
        if refinements and (~found.reliable).mean() > MOST_UNRELIABLE:
            told.append(
                f"Of {many.count} trajectories {int((~found.reliable).sum())} have importance draws whose Pareto k is above its limit; the "
                "prior is as rough there."
            )
    for sentence in told:
        log.warning("%s", sentence)
    return LearnedPrior(
        tuple(many.space.names),
        prior.location,
        prior.root @ prior.root.T,
        _uncertainty(prior, mean, spread, clusters, own),
        many.count,
        int(clusters.max()) + 1,
        tuple(evidence),
        k,
        remaining,
        _in_words(model),
        tuple(told),
    )


def _in_words(model: ForwardModel) -> dict[str, Any]:
    """What makes the coordinates of a model mean what they do, as JSON holds it."""
    words: dict[str, Any] = finite(
        {
            **describe(model),
            "time grid": model.grid.fine_times.tolist(),
            "states": list(model.population.states),
            "observed states": list(model.columns),
        }
    )
    return dict(json.loads(json.dumps(words)))


def _clusters(groups: Sequence[str] | None, population: Population) -> np.ndarray:
    """Number of each trajectory's group, `(R,)`.

    Raises
    ------
    InputError : for groups of another number, and for fewer than two trajectories or groups.
    """
    names = list(population.trajectories) if groups is None else list(groups)
    if len(names) != population.n_trajectories:
        raise InputError(f"learn_prior: groups has {len(names)} names for {population.n_trajectories} trajectories.")
    numbers = np.unique(np.array([str(name) for name in names]), return_inverse=True)[1]
    if numbers.max() < 1:
        raise InputError(
            "learn_prior: there is one trajectory or group, which does not say how far they scatter; two are needed."
        )
    return numbers


def _standard(prior: Normal, mean: np.ndarray) -> np.ndarray:
    """Points `(R, k)` in the prior's standard coordinates."""
    return np.linalg.solve(prior.root, (mean - prior.location).T).T


@dataclasses.dataclass(frozen=True)
class _Own:
    """The model's own prior as so many trajectories, direction by direction: as many as data leave open of it.

    With the same weight in all directions a prior far wider than the scatter widens what is found where the data speak: the variance by the ratio
    of the two over the number of trajectories, times the square of one over the part that data tell.

    Attributes
    ----------
    prior : the model's own.
    axes : orthogonal directions in its standard coordinates, `(k, k)`, one in each column.
    weights : trajectories that the prior counts for in each, `(k,)`.
    """

    prior: Normal
    axes: np.ndarray
    weights: np.ndarray

    @classmethod
    def alike(cls, prior: Normal, strength: float) -> Self:
        """With the same weight in every direction: as long as nothing is known of the data."""
        size = len(prior.location)
        return cls(prior, np.eye(size), np.full(size, strength))

    @classmethod
    def weighed(cls, prior: Normal, spread: np.ndarray, strength: float) -> Self:
        """From the covariances `(R, k, k)` of posteriors under the own prior, whose mean over trajectories says what data leave open."""
        inverse = np.linalg.inv(prior.root)
        open_part, axes = np.linalg.eigh(inverse @ spread.mean(axis=0) @ inverse.T)
        return cls(prior, axes, strength * np.clip(open_part, 0.0, 1.0))

    @property
    def root(self) -> np.ndarray:
        """From coordinates along the axes to unconstrained ones, `(k, k)`."""
        return self.prior.root @ self.axes

    def maximised(self, mean: np.ndarray, spread: np.ndarray) -> Normal:
        """The normal that is most probable given posterior means `(R, k)` and covariances `(R, k, k)` of the trajectories."""
        inverse = np.linalg.inv(self.root)
        z = (mean - self.prior.location) @ inverse.T
        total = len(z) + self.weights
        location = z.sum(axis=0) / total
        apart, root = z - location, np.sqrt(self.weights)
        ours = np.diag(self.weights) + np.outer(root * location, root * location)
        scatter = inverse @ spread.sum(axis=0) @ inverse.T + apart.T @ apart + ours
        found = np.linalg.cholesky(scatter / np.sqrt(np.outer(total, total)))
        return Normal(self.prior.location + self.root @ location, np.linalg.cholesky(self.root @ found @ found.T @ self.root.T))


def _moved(old: Normal, new: Normal) -> float:
    """How far the prior moved: the mean in sds, and the scale in relative terms, the largest of all."""
    between = np.linalg.solve(old.root, new.root)
    scale = np.abs(np.linalg.svd(between, compute_uv=False) - 1.0).max()
    return float(max(np.abs(np.linalg.solve(old.root, new.location - old.location)).max(), scale))


def _steps(trail: Sequence[Normal]) -> np.ndarray:
    """Lengths of the last steps, at most three, in every entry of location and covariance in sds of the last prior, `(m, p)`."""
    inverse, here = np.linalg.inv(trail[-1].root), trail[-1].location

    def placed(prior: Normal) -> np.ndarray:
        root = inverse @ prior.root
        return np.concatenate([inverse @ (prior.location - here), 0.5 * (root @ root.T)[np.tril_indices(len(here))]])

    return np.abs(np.diff([placed(prior) for prior in trail[-4:]], axis=0))


def _ratios(steps: np.ndarray) -> np.ndarray:
    """The larger of the last two ratios of successive steps, at most `SLOWEST`; half where there is one step only. Over the first axis."""
    if len(steps) < 2:
        return np.full(steps.shape[1:], 0.5)
    return np.asarray(np.minimum(np.max(steps[1:] / np.maximum(steps[:-1], 1e-300), axis=0), SLOWEST))


def _remaining(trail: Sequence[Normal]) -> float:
    """How far there is to go after some steps, in sds: of all entries the most, for a quick one hides a slow one."""
    steps = _steps(trail)
    ratio = _ratios(steps)
    return float(np.max(steps[-1] * ratio / (1.0 - ratio)))


def _remaining_refined(trail: Sequence[Normal], before: Sequence[Normal]) -> float:
    """The same after a few refinements, whose steps may shrink as slowly as the whole iteration did before."""
    steps, earlier = (_steps(part) for part in (trail, before))
    ratio = max(float(_ratios(np.linalg.norm(part, axis=1))) for part in (steps, earlier))
    return float(np.max(steps[-1]) * ratio / (1.0 - ratio))


def _unsettled(after: str, trail: Sequence[Normal], remaining: float, remedy: str) -> str:
    moved = _moved(*trail[-2:])
    return f"The prior had not settled after {after}: it still moved by {moved:.2g} sds, with about {remaining:.2g} sds to go; raise {remedy}."


def _uncertainty(prior: Normal, mean: np.ndarray, spread: np.ndarray, clusters: np.ndarray, own: _Own) -> np.ndarray:
    """Covariance of the error of the location: inverse information about the scores' covariance over groups.

    In the prior's standard coordinates the complete data of a trajectory have the information 1 and the score `z`; of it the data lack
    `var(z | data)`.
    """
    z = _standard(prior, mean)
    inverse = np.linalg.inv(prior.root)
    lacking = inverse @ spread @ inverse.T
    between = np.linalg.solve(own.root, prior.root)
    information = np.linalg.solve(between, (len(z) + own.weights)[:, None] * between) - lacking.sum(axis=0)
    scores = np.stack([z[clusters == number].sum(axis=0) for number in range(clusters.max() + 1)])
    scores = scores - scores.mean(axis=0)
    count = len(scores)
    middle = np.linalg.solve(information, np.linalg.solve(information, scores.T @ scores).T) * count / (count - 1)
    found = prior.root @ middle @ prior.root.T
    return 0.5 * (found + found.T)
