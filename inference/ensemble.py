"""Ensembles of point fits: the cheap way to a spread, exact where the model is linear and Gaussian.

Member k minimises the potential `U` less linear terms, `U(x) - a_k . x - e_k . mu(x)`:

- `a_k` is the gradient of the negative log prior at a prior draw `x_k`. A normal prior is thereby centred at `x_k` instead of its own mean, and any
  log-concave one has its mode there: Pearce et al.'s anchor.
- `e_k` is the score of data that are drawn from the model at the posterior's mode, with respect to the populations: the derivative of their log
  likelihood there. Its mean is zero and its covariance the Fisher information, whatever the observation model. With Gaussian noise of known size it
  replaces the record `y` by `y + noise`. The score with respect to unknowns of the observation model itself belongs to `a_k`.

With both, and `mu(x)` linear and all that is Gaussian, minima are independent draws from the posterior. With curved models they are not,
and no weight corrects that here (Bardsley et al. have one). Without `e_k` the spread is too small: with one unknown whose posterior variance
is the share `r` of the prior's, the members' is `r` times the posterior's. With neither, members differ by their starts alone; where there is
one mode, not at all.

Sources: Lakshminarayanan, Pritzel and Blundell, Simple and scalable predictive uncertainty estimation using deep ensembles (NeurIPS 2017), for starts
alone; Pearce, Leibfried, Brintrup, Zaki and Neely, Uncertainty in neural networks: approximately Bayesian ensembling (AISTATS 2020), for the prior;
Bardsley, Solonen, Haario and Laine, Randomize-then-optimize (SIAM Journal on Scientific Computing 36, 2014), for prior and data with Gaussian noise.
Scores in the place of perturbed data, which need not be possible data, are an own choice; to first order in the noise they are the same.
"""

import dataclasses
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jax import Array

from bayes_mfg.errors import InputError
from bayes_mfg.models import Data, ForwardModel

from .checkpoint import Checkpoint
from .coordinates import compiled, coordinates, potential
from .errors import FitError
from .point import Descent, Mode, descend
from .progress import bar
from .sensitivity import Tilt

log = logging.getLogger(__name__)

RANDOMISED = ("both", "prior", "none")

FEW_MEMBERS = 100
"""Members below which quantiles of the ensemble itself make bands noticeably too narrow."""

UNLIKELY = 1e-3
"""Probability with which any member of an exact ensemble would be told to be a stray."""


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Members that found a minimum, and what is told of all.

    Attributes
    ----------
    flat : `(members, size)`.
    stats : per member "lp", the log density under the model's own prior and data, and "converged".
    settings : for the tree.
    warnings : sentences.
    """

    flat: np.ndarray
    stats: dict[str, np.ndarray]
    settings: dict[str, Any]
    warnings: list[str]


def check(model: ForwardModel, randomised: Any) -> None:
    """Refuse what cannot be randomised.

    Raises
    ------
    InputError : for an unknown word, and for randomised data where there are several equilibria.
    """
    if randomised not in RANDOMISED:
        raise InputError(f"fit: randomised is {randomised!r}; choose one of {', '.join(RANDOMISED)}.")
    if randomised == "both" and getattr(model, "branches", None) is not None:
        raise InputError('fit: with several equilibria data cannot be randomised; choose randomised="prior" or "none".')


def point_fits(
    model: ForwardModel,
    mode: Mode | None,
    *,
    members: int = 20,
    randomised: str = "both",
    max_steps: int = 500,
    seed: int = 0,
    progress: bool | None = None,
    checkpoint: Checkpoint | None = None,
) -> Ensemble:
    """Point fits, each from a prior draw of its own.

    Parameters
    ----------
    model : the model.
    mode : the posterior's mode, where data are drawn; None unless these are randomised.
    members : number of fits, at least 2.
    randomised : "both", "prior" or "none"; see above.
    max_steps : iterations per member.
    seed : of starts and of all that is randomised.
    progress : show a progress bar; by default on a terminal only.
    checkpoint : keeps members as they end.

    Raises
    ------
    FitError : when fewer than two members find a minimum.
    KeyboardInterrupt : when interrupted before two have; later, the ensemble is of those that have.
    """
    starts, tilts = randomisation(model, None if mode is None else mode.location, randomised, members, seed)
    ends = [] if checkpoint is None else [_unpacked(part) for part in checkpoint.read("ensemble")]
    interrupted = False
    with bar(members, "ensemble", progress) as shown:
        for _ in ends:
            shown.update()
        try:
            for k in range(len(ends), members):
                ends.append(_member(model, starts[k], jax.tree.map(lambda x, k=k: x[k], tilts), max_steps))
                if checkpoint is not None:
                    checkpoint.write("ensemble", k, _packed(ends[-1], starts.shape[1]))
                shown.update()
        except KeyboardInterrupt:
            if sum(end.location is not None for end in ends) < 2:
                raise
            interrupted = True
            log.warning("interrupted: the ensemble is of the members that have ended")
    return _gathered(model, mode, ends, members, randomised, interrupted)


def _member(model: ForwardModel, start: np.ndarray, tilt: Tilt, max_steps: int) -> Descent:
    if not all(np.all(np.isfinite(x)) for x in (start, *tilt)):
        return Descent(None, False, 0, 0)
    return descend(model, start, tilt, max_steps=max_steps)


def randomisation(
    model: ForwardModel, at: np.ndarray | None, randomised: str, members: int, seed: int
) -> tuple[np.ndarray, Tilt]:
    """Starts `(members, size)`, which are prior draws, and tilts with the leading axis `members`.

    Parameters
    ----------
    at : `(size,)`, the unknowns under which data are drawn; needed for "both" alone.
    """
    space = coordinates(model)
    keys = jax.random.split(jax.random.key(seed), members)

    def prior(key: Array, data: Data) -> tuple[Array, Array]:
        start = space.unconstrain(space.draw_prior(jax.random.fold_in(key, 0)))
        return start, jax.grad(space.prior_potential)(start, data)

    def score(keys: Array, flat: Array, data: Data) -> tuple[Array, Array]:
        latents = space.latents(space.constrain(flat), data)
        mu = model.trajectories(latents, data).mu

        def log_likelihood(mu: Array, flat: Array, values: Array) -> Array:
            seen = model.likelihood(space.latents(space.constrain(flat), data), mu, data).mask(data.record.mask)
            return jnp.sum(jnp.where(data.record.mask, seen.log_prob(values), 0.0))

        def one(key: Array) -> tuple[Array, Array]:
            values = model.likelihood(latents, mu, data).sample(jax.random.fold_in(key, 1))
            return jax.grad(log_likelihood, (0, 1))(mu, flat, values)

        return jax.vmap(one)(keys)

    draw = compiled(model, "ensemble_priors", lambda: jax.jit(jax.vmap(prior, in_axes=(0, None))))
    starts, slopes = draw(keys, model.data)
    shape = (members, model.population.n_trajectories, len(model.grid.times), model.population.n_states)
    if randomised == "none":
        return np.asarray(starts), Tilt(jnp.zeros_like(slopes), jnp.zeros(shape))
    if randomised == "prior" or at is None:
        return np.asarray(starts), Tilt(slopes, jnp.zeros(shape))
    scores = compiled(model, "ensemble_scores", lambda: jax.jit(score))
    by_mu, by_flat = scores(keys, jnp.asarray(at), model.data)
    return np.asarray(starts), Tilt(slopes + by_flat, by_mu)


def _gathered(
    model: ForwardModel, mode: Mode | None, ends: list[Descent], asked: int, randomised: str, interrupted: bool
) -> Ensemble:
    """The members that found equilibria, and the count of the others."""
    found = [end for end in ends if end.location is not None]
    if len(found) < 2:
        raise FitError(
            f"{len(found)} of {asked} members of the ensemble found equilibria on the way from their start; two are needed."
        )
    flat = np.stack([end.location for end in found])  # type: ignore[misc]
    height = potential(model)
    heights = np.array([float(height(jnp.asarray(x), model.data)) for x in flat])
    converged = np.array([end.converged for end in found])
    best = min(float(np.min(heights)), np.inf if mode is None else mode.potential)
    # Of exact draws twice the drop below the mode is chi-squared.
    most = 0.5 * float(scipy.stats.chi2.isf(UNLIKELY / len(found), flat.shape[1]))
    stray = int(np.sum(heights - best > most))
    settings = {
        "members": asked,
        "randomised": randomised,
        "failed_members": len(ends) - len(found),
        "unfinished_members": int(np.sum(~converged)),
        "stray_members": stray,
        "evaluations": sum(end.evaluations for end in ends),
        "failed_solves": sum(end.failed_solves for end in ends),
    }
    n = len(found)
    told = []
    if interrupted:
        settings["interrupted"] = True
        told.append(f"Interrupted: the ensemble is of the first {len(ends)} of {asked} members.")
    if settings["failed_members"]:
        told.append(
            f"{settings['failed_members']} of {len(ends)} members failed: no equilibria on the way from their start; the ensemble is of the others."
        )
    if settings["unfinished_members"]:
        told.append(
            f"{settings['unfinished_members']} of {n} members did not converge: they ended at the limit of steps, or where no step helped; "
            "they are in the ensemble."
        )
    if stray:
        told.append(
            f"{stray} of {n} members ended where the posterior is all but zero (log density more than {most:.0f} below the best): they are optima of "
            "the search, not draws, and bands that hold them mean little."
        )
    if n < FEW_MEMBERS:
        told.append(
            f"An ensemble of {n}: even of exact posterior draws the band between the 5 % and 95 % quantiles would be expected to hold "
            f"{90 * (n - 1) / (n + 1):.0f} %, not 90 %."
        )
    return Ensemble(flat, {"lp": -heights, "converged": converged}, settings, told)


def _packed(end: Descent, size: int) -> dict[str, Any]:
    location = np.full(size, np.nan) if end.location is None else end.location
    return {**dataclasses.asdict(end), "location": location}


def _unpacked(part: dict[str, np.ndarray]) -> Descent:
    location = part["location"] if np.all(np.isfinite(part["location"])) else None
    return Descent(location, bool(part["converged"]), int(part["evaluations"]), int(part["failed_solves"]))
