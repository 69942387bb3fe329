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
from bayes_mfg.models import ForwardModel

from .coordinates import coordinates
from .many import Many, Normal, Posteriors
from .options import whole
from .progress import bar

log = logging.getLogger(__name__)

MOST_UNRELIABLE = 0.05
"""Part of the trajectories whose importance draws may be unreliable before a warning says so."""


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
        InputError : when the model's unknowns are not those of the prior.
        """
        if tuple(coordinates(model).names) != self.names:
            raise InputError(
                f"LearnedPrior: the model has the unknowns {', '.join(coordinates(model).names)}; the prior is of {', '.join(self.names)}."
            )
        return model.with_prior(self.location, self.predictive)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; the file appears whole or not at all."""
        words = {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in dataclasses.asdict(self).items()
        }
        target = Path(path)
        partial = target.with_name(target.name + ".part")
        partial.write_text(json.dumps(words), encoding="utf-8")
        partial.replace(target)

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
                warnings=tuple(words["warnings"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"LearnedPrior: {path} holds no learned prior ({error}).") from error


def learn_prior(
    model: ForwardModel,
    population: Population,
    *,
    groups: Sequence[str] | None = None,
    iterations: int = 30,
    refinements: int = 3,
    num_draws: int = 200,
    strength: float = 1.0,
    tolerance: float = 0.03,
    seed: int = 0,
    progress: bool | None = None,
) -> LearnedPrior:
    """Learn the prior of one trajectory from many: empirical Bayes by expectation and maximisation (EM).

    The unknowns of each trajectory, in unconstrained coordinates, are taken as draws from one normal distribution; its mean and covariance are those
    that make the data of all trajectories most probable, under a normal-inverse-Wishart prior around the mean and covariance of the model's own prior
    that counts as much as `strength` trajectories. Where the data say nothing about a direction, the model's own prior stays.

    Each iteration finds every trajectory's posterior under the current normal and takes the mean and covariance of all of them. Up to `iterations`
    do so by Laplace's approximation, until nothing moves by more than `tolerance` sds; then `refinements` iterations by importance draws, whose
    moments are right up to their noise, and whose Pareto k says where they are not. What is approximated: the normal shape, and that the mean and
    covariance are taken as known; the error of the mean alone is estimated and enters `LearnedPrior.predictive`. With groups (seasons whose states
    resemble each other) it is that of as many groups, by a sandwich estimate.

    Source: Dempster, Laird and Rubin, Maximum likelihood from incomplete data via the EM algorithm, JRSS B 39 (1977); by importance sampling, Wei and
    Tanner, JASA 85 (1990); information under missing data, Louis, JRSS B 44 (1982); clusters, Liang and Zeger, Biometrika 73 (1986).

    Parameters
    ----------
    model : a model of one trajectory, no path pooled.
    population : `R` trajectories, at least two, with the model's times and states; what is masked may differ.
    groups : `(R,)` names; trajectories of one group are not independent. By default each is its own.
    iterations, refinements : see above; refinements may be 0.
    num_draws : importance draws for each trajectory.
    strength : trajectories that the model's own prior counts for, above 0.
    tolerance : see above, in sds of the prior.
    seed : of the draws.
    progress : show a progress bar; by default on a terminal only.

    Raises
    ------
    InputError : when model, population or groups do not fit together, or a number is out of its range.
    FitError : when a trajectory has no equilibrium at the prior's location.
    """
    many = Many(model, population, "learn_prior")
    clusters = _clusters(groups, population)
    for name, value, least in (("iterations", iterations, 1), ("refinements", refinements, 0), ("num_draws", num_draws, 50)):
        if not whole(value) or value < least:
            raise InputError(f"learn_prior: {name} is {value!r}; a whole number of at least {least} is needed.")
    if not (isinstance(strength, int | float) and 0 < strength < np.inf):
        raise InputError(f"learn_prior: strength is {strength!r}; a positive number is needed.")
    own = many.own_prior()
    prior, start = own, None
    evidence: list[float] = []
    k = np.full(many.count, np.nan)
    told: list[str] = []
    moved = np.inf
    with bar(iterations + refinements, "learning", progress) as shown:
        for _ in range(iterations):
            modes, bent = many.modes(prior, start)
            mean = prior.location + modes @ prior.root.T
            spread = prior.root @ np.linalg.inv(bent) @ prior.root.T
            new = _maximised(own, mean, spread, strength)
            moved = _moved(prior, new)
            prior, start = new, _standard(new, mean)
            shown.update()
            if moved <= tolerance:
                break
        if moved > tolerance:
            told.append(
                f"The prior still moved by {moved:.2g} sds in the last of {iterations} iterations by Laplace's approximation; raise iterations."
            )
        for number in range(refinements):
            found: Posteriors = many.posteriors(prior, num_draws, seed + number, start)
            evidence.append(float(found.evidence.sum()))
            k = found.pareto_k
            mean, spread = found.moments()
            prior = _maximised(own, mean, spread, strength)
            start = _standard(prior, mean)
            shown.update()
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
        _uncertainty(prior, mean, spread, clusters, strength),
        many.count,
        int(clusters.max()) + 1,
        tuple(evidence),
        k,
        tuple(told),
    )


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


def _maximised(own: Normal, mean: np.ndarray, spread: np.ndarray, strength: float) -> Normal:
    """The normal that is most probable given posterior means `(R, k)` and covariances `(R, k, k)` of the trajectories."""
    total = len(mean) + strength
    location = (mean.sum(axis=0) + strength * own.location) / total
    apart, away = mean - location, own.location - location
    scatter = spread.sum(axis=0) + apart.T @ apart + strength * (own.root @ own.root.T + np.outer(away, away))
    return Normal(location, np.linalg.cholesky(scatter / total))


def _moved(old: Normal, new: Normal) -> float:
    """How far the prior moved: the mean in sds, and the scale in relative terms, the largest of all."""
    between = np.linalg.solve(old.root, new.root)
    scale = np.abs(np.linalg.svd(between, compute_uv=False) - 1.0).max()
    return float(max(np.abs(np.linalg.solve(old.root, new.location - old.location)).max(), scale))


def _uncertainty(prior: Normal, mean: np.ndarray, spread: np.ndarray, clusters: np.ndarray, strength: float) -> np.ndarray:
    """Covariance of the error of the location: inverse information about the scores' covariance over groups.

    In the prior's standard coordinates the complete data of a trajectory have the information 1 and the score `z`; of it the data lack
    `var(z | data)`.
    """
    z = _standard(prior, mean)
    inverse = np.linalg.inv(prior.root)
    lacking = inverse @ spread @ inverse.T
    information = np.eye(z.shape[1]) * (len(z) + strength) - lacking.sum(axis=0)
    scores = np.stack([z[clusters == number].sum(axis=0) for number in range(clusters.max() + 1)])
    scores = scores - scores.mean(axis=0)
    count = len(scores)
    middle = np.linalg.solve(information, np.linalg.solve(information, scores.T @ scores).T) * count / (count - 1)
    found = prior.root @ middle @ prior.root.T
    return 0.5 * (found + found.T)
