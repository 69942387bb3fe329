"""Centred coordinates of partially pooled paths, for NUTS.

The model's unknown of a deviation is `z`, standard normal, with the trajectory's raw parameter `x = g + tau z` around the shared `g`. Where the data
say little about `z`, it and `tau` are all but independent in the posterior. Where the data determine `x`, its spread determines `tau`, and `z` and
`tau` lie along a hyperbola on which a sampler is slow; it is quick in `x` itself, whose prior `Normal(g, tau)` in turn is a funnel where data say
little. Between the two lies `y = c g + tau^c z`, whose prior is `Normal(c g, tau^c)`: not centred for `c = 0`, centred for `c = 1`.

In a normal model with known `tau`, `c g + tau z` is independent of `g` given the data if `c` is the share of the prior variance of `z` that the
data of its own trajectory remove, `1 - var(z | data, g, tau) = tau^2 I / (1 + tau^2 I)`, with the information `I` of these data about the
deviation. With the scale `tau^c` in place of `tau`, which is what makes `c = 0` not centred, this is exact for `c` of 0 and 1 and a rule of thumb
between; it is the rule here, for every coordinate of every trajectory. `I` and what the data say of the deviation are read off the curvature and
the place of the mode, over all unknowns of that trajectory with what is shared held fixed. The share is taken at the lower end (`LOW`) of the
posterior that `tau` has in the normal model with this information: where `tau` comes near 0 a centred coordinate is a funnel, whatever the share at
a typical `tau`. So a coordinate that the data determine is centred while another, such as the weight of a quick oscillation, is not, and so are
trajectories with more or fewer data, and none where the data do not tell `tau` from 0.

The density is that of the same posterior in other coordinates, its Jacobian included; modes and variational fits stay in `z`, in which the
density is bounded.
Source: Papaspiliopoulos, Roberts and Skold, Non-centered parameterisations for hierarchical models and data augmentation, Bayesian Statistics 7
(2003), section 3, for the share; Gorinova, Moore and Hoffman, Automatic reparameterisation of probabilistic programs, ICML 2020, for `y`; the choice
of `c` per coordinate from the curvature is our own.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array

from bayes_mfg.models import ForwardModel
from bayes_mfg.paths import PooledPath
from bayes_mfg.paths.pooled import POOLING_SCALE, SUFFIX

from .coordinates import Coordinates, compiled, coordinates
from .point import Mode

GRID = (-7.0, 3.0, 401)
"""Logarithms of the pooling scales that are looked at, relative to that of the mode: from, to, how many."""

LOW = 0.05
"""Quantile of the pooling scale's posterior at which the data still have to determine a deviation for it to be centred."""


@dataclasses.dataclass(frozen=True)
class Centring:
    """Where deviations, shared unknowns and pooling scales lie in the flat vector; for all parameters whose pooling scale is unknown.

    Attributes
    ----------
    each : coordinate of every deviation `z`, `(k,)`.
    shared : coordinate of what it deviates from, `(k,)`.
    spread : what a deviation of 1 is in the shared coordinate, `(k,)`.
    tau : coordinate of its pooling scale, `(k,)`.
    scale : flat coordinates of pooling scales -> pooling scales, elementwise for the `(k,)` of them.
    parts : parameter -> its places among the `k`.
    wished : 1 where the user wants it centred, 0 where not, NaN where the data decide, `(k,)`.
    """

    each: np.ndarray
    shared: np.ndarray
    spread: np.ndarray
    tau: np.ndarray
    scale: Callable[[Array], Array]
    parts: dict[str, np.ndarray]
    wished: np.ndarray

    def out(self, y: Array, share: Array) -> tuple[Array, Array]:
        """The model's coordinates `(size,)` of centred ones, and the log of the Jacobian's determinant."""
        tau = self.scale(y[self.tau])
        z = (y[self.each] - share * y[self.shared] / self.spread) * tau**-share
        return y.at[self.each].set(z), -jnp.sum(share * jnp.log(tau))

    def back(self, flat: Array, share: Array) -> Array:
        """Centred coordinates of the model's."""
        y = share * flat[self.shared] / self.spread + self.scale(flat[self.tau]) ** share * flat[self.each]
        return flat.at[self.each].set(y)

    def told(self, share: np.ndarray) -> dict[str, float]:
        """Mean share of every parameter."""
        return {name: round(float(share[places].mean()), 3) for name, places in self.parts.items()}


def centring(model: ForwardModel) -> Centring | None:
    """The model's centring, made once; None where no pooling scale is unknown."""
    found: Centring | None = compiled(model, "centring", lambda: _centring(model, coordinates(model)))
    return found


def _centring(model: ForwardModel, space: Coordinates) -> Centring | None:
    each, shared, spread, tau, wished = ([np.zeros(0, int)] for _ in range(5))
    transforms, parts, count = [], {}, 0
    for name, path in model.bound.items():
        scale = f"{name}/{POOLING_SCALE}"
        if not isinstance(path, PooledPath) or scale not in space.shapes:
            continue
        begin = count
        for raw_name, unit in path.spreads.items():
            own, common = f"{name}/{raw_name}{SUFFIX}", f"{name}/{raw_name}"
            shape = space.shapes[own]
            size = int(np.prod(shape))
            each.append(space.offsets[own] + np.arange(size))
            shared.append(
                np.broadcast_to(space.offsets[common] + np.arange(size // shape[0]), (shape[0], size // shape[0])).ravel()
            )
            spread.append(np.broadcast_to(np.asarray(unit, float), shape).ravel())
            count += size
        parts[name] = np.arange(begin, count)
        tau.append(np.full(count - begin, space.offsets[scale]))
        wished.append(np.full(count - begin, np.nan if path.centered is None else float(path.centered)))
        transforms.append((space.transforms[scale], parts[name]))
    if not parts:
        return None

    def scales(flat: Array) -> Array:
        return jnp.concatenate([transform(flat[places]) for transform, places in transforms])

    flat = [np.concatenate(part) for part in (each, shared, spread, tau)]
    return Centring(flat[0], flat[1], flat[2], flat[3], scales, parts, np.concatenate(wished))


def shares(model: ForwardModel, mode: Mode) -> np.ndarray:
    """How far every deviation is centred, `(k,)`: as the user wishes, else the share of its prior variance that its trajectory's data remove."""
    found = centring(model)
    assert found is not None
    curvature = np.linalg.inv(mode.covariance)
    share = found.wished.copy()
    for name, places in found.parts.items():
        path = model.bound[name]
        assert isinstance(path, PooledPath) and isinstance(path.scale, dist.Distribution)
        if path.centered is None:
            tau = float(found.scale(jnp.asarray(mode.location)[found.tau])[places[0]])
            told = [
                (mine, *_information(mode.location, curvature, own, found.each[mine], tau))
                for own in coordinates(model).local.T
                if (mine := places[np.isin(found.each[places], own)]).size
            ]
            grid = tau * np.exp(np.linspace(*GRID))
            weights = _posterior(grid, path.scale, [(values, pull) for _, values, _, pull in told])
            low = np.interp(LOW, np.cumsum(weights), grid)
            for mine, values, vectors, _ in told:
                share[mine] = vectors**2 @ (values * low**2 / (1.0 + values * low**2))
    return np.clip(share, 0.0, 1.0)


def _information(
    location: np.ndarray, curvature: np.ndarray, own: np.ndarray, each: np.ndarray, tau: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the data of one trajectory say about its deviation `tau z`, as a normal likelihood.

    Parameters
    ----------
    location, curvature : of the mode.
    own : coordinates of the trajectory, starts included.
    each : those of its `z`, `(K,)`.
    tau : pooling scale of the mode.

    Returns
    -------
    values, vectors : of the information `I`, eigenvalues `(K,)` and eigenvectors.
    pull : `I` times what the data alone would estimate, in the eigenvectors; at the mode the prior's pull `-z / tau` balances the likelihood's.
    """
    covariance = np.linalg.inv(curvature[np.ix_(own, own)])
    at = [int(np.flatnonzero(own == k)[0]) for k in each]
    precision = np.linalg.inv(covariance[np.ix_(at, at)])
    values, vectors = np.linalg.eigh((precision - np.eye(len(at))) / tau**2)
    values = np.maximum(values, 0.0)
    z = vectors.T @ location[each]
    return values, vectors, z / tau + values * tau * z


def _posterior(tau: np.ndarray, prior: dist.Distribution, told: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Weights of pooling scales on a logarithmic grid, their deviations integrated out."""
    inside = np.asarray(prior.support(jnp.asarray(tau)))
    log = np.where(inside, np.asarray(prior.log_prob(jnp.where(inside, tau, np.exp(np.mean(np.log(tau)))))), -np.inf) + np.log(
        tau
    )
    for values, pull in told:
        spread = 1.0 + values * tau[:, None] ** 2
        log = log + 0.5 * np.sum(pull**2 * tau[:, None] ** 2 / spread - np.log(spread), axis=1)
    weights = np.exp(log - log.max())
    return weights / weights.sum()


def centred(model: ForwardModel, mode: Mode, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Location and factor of the mode in centred coordinates, to first order around it."""
    found = centring(model)
    assert found is not None
    at = jnp.asarray(mode.location)
    slope = jax.jacfwd(found.back)(at, jnp.asarray(share))
    return np.asarray(found.back(at, jnp.asarray(share))), np.asarray(slope) @ mode.factor
