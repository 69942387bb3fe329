"""Expected Fisher information of the distributions that observation models use, in the parameters of these distributions.

All are exact. Where no closed form exists (`BetaBinomial`, `DirichletMultinomial`) the expectation is a finite sum over all counts of one state,
which costs as many terms as the largest total. To give another distribution its information, register it with `natural` and `information`.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax
from scipy.special import betaln, gammaln, polygamma

from bayes_mfg.errors import InputError
from bayes_mfg.models.simplex import SimplexNormal, SimplexWalk

TERMS = 1_000_000
"""Terms of an expectation that are held in memory at once."""


def _unknown(distribution: Any) -> InputError:
    return InputError(
        f"identifiability: no expected information is known of {type(distribution).__name__}; register it with "
        "bayes_mfg.inference.information.natural and .information, or use one of the observation models of bayes_mfg.models."
    )


@functools.singledispatch
def natural(distribution: Any) -> Array:
    """Parameters of a batch of distributions, `(*batch_shape, m)`, in which `information` is told; pure, for derivatives.

    Raises
    ------
    InputError : for a distribution whose information is not known.
    """
    raise _unknown(distribution)


@functools.singledispatch
def information(distribution: Any) -> np.ndarray:
    """Expected Fisher information of one record from each of a batch of distributions, `(*batch_shape, m, m)`, in the parameters of `natural`.

    Raises
    ------
    InputError : for a distribution whose information is not known.
    """
    raise _unknown(distribution)


def root(matrices: np.ndarray) -> np.ndarray:
    """Roots `W` with `W' W = M` of positive semi-definite matrices `(..., m, m)`.

    Rows and columns are brought to one size first: of a sharp Dirichlet the entries differ by many orders, and small ones would be lost to rounding.
    """
    size = np.sqrt(np.maximum(np.diagonal(matrices, axis1=-2, axis2=-1), 0.0))
    safe = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(matrices / (safe[..., :, None] * safe[..., None, :]))
    return (np.sqrt(np.maximum(values, 0.0))[..., :, None] * np.swapaxes(vectors, -1, -2)) * size[..., None, :]


def _diagonal(values: np.ndarray) -> np.ndarray:
    return values[..., None] * np.eye(values.shape[-1])


@natural.register
def _(distribution: dist.Normal) -> Array:
    shape = distribution.batch_shape
    return jnp.stack([jnp.broadcast_to(distribution.loc, shape), jnp.broadcast_to(distribution.scale, shape)], axis=-1)


@information.register
def _(distribution: dist.Normal) -> np.ndarray:
    """`1 / scale^2` of the mean, `2 / scale^2` of the scale."""
    scale = np.broadcast_to(np.asarray(distribution.scale, float), distribution.batch_shape)
    return _diagonal(np.stack([1.0 / scale**2, 2.0 / scale**2], axis=-1))


@natural.register
def _(distribution: SimplexNormal) -> Array:
    return jnp.concatenate([distribution.loc, distribution.spread], axis=-1)


@information.register
def _(distribution: SimplexNormal) -> np.ndarray:
    """`1 / a^2` on the diagonal less `1 / A` everywhere of the means; `2 / a^2 - 4 / A` and `2 a_j a_k / A^2` of the spreads.

    The former is the covariance of `e / a^2`, the latter from the second derivatives of `- log a_k - e_k^2 / (2 a_k^2) + log(A) / 2` with
    `E e_k^2 = a_k^2 - a_k^4 / A`. Own derivation.
    """
    a = np.asarray(distribution.spread, float)
    total = np.sum(a**2, axis=-1)[..., None]
    size = a.shape[-1]
    out = np.zeros((*a.shape[:-1], 2 * size, 2 * size))
    out[..., :size, :size] = _diagonal(1.0 / a**2) - 1.0 / total[..., None]
    out[..., size:, size:] = _diagonal(2.0 / a**2 - 4.0 / total) + 2.0 * a[..., :, None] * a[..., None, :] / total[..., None] ** 2
    return out


@natural.register
def _(distribution: SimplexWalk) -> Array:
    """Of every row given the one before: mean, spread, and the part of the last error that is kept."""
    kept, fresh = distribution.kept, distribution.fresh
    before = jnp.concatenate([jnp.zeros_like(distribution.loc[..., :1, :]), distribution.loc[..., :-1, :]], axis=-2)
    mean = distribution.loc - lax.stop_gradient(kept)[:, None] * before
    wide = jnp.broadcast_to(fresh[:, None] * distribution.spread, mean.shape)
    return jnp.concatenate([mean, wide, jnp.broadcast_to(kept[:, None], (*mean.shape[:-1], 1))], axis=-1)


@information.register
def _(distribution: SimplexWalk) -> np.ndarray:
    """That of independent errors of the new parts, and of what is kept the expected square of the last error in the new part's metric.

    The last error has `v` times the covariance of an error, `v = 1` or, grown from zero since the start, `1 - exp(-2 t / memory)`; the new part has
    `1 - r^2` times that, of rank `k - 1`: `(k - 1) v / (1 - r^2)`. What is kept and the mean have no product, as errors have the mean zero, and
    neither has the spread, as new parts are independent of the last error. Own derivation.
    """
    fresh = np.asarray(distribution.fresh, float)
    elapsed = np.asarray(distribution.elapsed, float)
    grown = -np.expm1(-2.0 * elapsed / float(distribution.memory)) if distribution.from_start else np.ones(elapsed.shape)
    size = distribution.loc.shape[-1]
    rows = information(SimplexNormal(distribution.loc, fresh[:, None] * np.asarray(distribution.spread, float)))
    out = np.zeros((*rows.shape[:-2], 2 * size + 1, 2 * size + 1))
    out[..., :-1, :-1] = rows
    last = np.concatenate([[0.0], grown[:-1]])
    out[..., -1, -1] = (size - 1) * last / fresh**2
    return out


@natural.register(dist.Dirichlet)
@natural.register(dist.DirichletMultinomial)
def _(distribution: Any) -> Array:
    return distribution.concentration


@information.register
def _(distribution: dist.Dirichlet) -> np.ndarray:
    """`diag(psi'(a_k)) - psi'(sum a)`: an exponential family in the logarithms of the shares."""
    a = np.asarray(distribution.concentration, float)
    return _diagonal(polygamma(1, a)) - polygamma(1, a.sum(axis=-1))[..., None, None]


@natural.register
def _(distribution: dist.MultinomialProbs) -> Array:
    return distribution.probs


@information.register
def _(distribution: dist.MultinomialProbs) -> np.ndarray:
    """`n diag(1 / p_k)`, for changes of the probabilities that sum to zero."""
    p = np.asarray(distribution.probs, float)
    n = np.broadcast_to(np.asarray(distribution.total_count, float), p.shape[:-1])
    return _diagonal(n[..., None] / p)


@natural.register
def _(distribution: dist.BinomialProbs) -> Array:
    return jnp.broadcast_to(distribution.probs, distribution.batch_shape)[..., None]


@information.register
def _(distribution: dist.BinomialProbs) -> np.ndarray:
    """`n / (p (1 - p))`."""
    p = np.broadcast_to(np.asarray(distribution.probs, float), distribution.batch_shape)
    n = np.broadcast_to(np.asarray(distribution.total_count, float), p.shape)
    return (n / (p * (1.0 - p)))[..., None, None]


@information.register
def _(distribution: dist.DirichletMultinomial) -> np.ndarray:
    a = np.asarray(distribution.concentration, float)
    n = np.broadcast_to(np.asarray(distribution.total_count, int), a.shape[:-1])
    return _polya(a, n)


@natural.register
def _(distribution: dist.BetaBinomial) -> Array:
    both = (distribution.concentration1, distribution.concentration0)
    return jnp.stack([jnp.broadcast_to(x, distribution.batch_shape) for x in both], axis=-1)


@information.register
def _(distribution: dist.BetaBinomial) -> np.ndarray:
    """That of the Dirichlet-multinomial with two states."""
    both = (distribution.concentration1, distribution.concentration0)
    a = np.stack([np.broadcast_to(np.asarray(x, float), distribution.batch_shape) for x in both], axis=-1)
    return _polya(a, np.broadcast_to(np.asarray(distribution.total_count, int), a.shape[:-1]))


def _polya(a: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Information of the Dirichlet-multinomial in its concentrations `(..., k)`, of totals `(...)`.

    Its log density is a sum over states of `log Gamma(a_k + y_k) - log Gamma(a_k)` less `log Gamma(A + n) - log Gamma(A)`, `A = sum a`. With
    `psi'(a) - psi'(a + y) = sum_{j < y} 1 / (a + j)^2` the expected negative second derivative is
    `sum_{j < n} P(Y_k > j) / (a_k + j)^2` on the diagonal, less `sum_{j < n} 1 / (A + j)^2` everywhere; every `Y_k` is beta-binomial. Own derivation.
    """
    total = a.sum(axis=-1)
    own = _tail_sums(a.ravel(), (total[..., None] - a).ravel(), np.broadcast_to(n[..., None], a.shape).ravel()).reshape(a.shape)
    return _diagonal(own) - (polygamma(1, total) - polygamma(1, total + n))[..., None, None]


def _tail_sums(a: np.ndarray, b: np.ndarray, n: np.ndarray) -> np.ndarray:
    """`sum_{j < n} P(Y > j) / (a + j)^2` for beta-binomial `Y`, all arguments `(cells,)`."""
    out = np.zeros(a.shape)
    order = np.argsort(n)  # cells of like totals share a chunk
    start = 0
    while start < len(order):
        # Totals rise along the order, so a chunk is as long as its last cell allows.
        width = max(1, TERMS // (int(n[order[start]]) + 1))
        cells = order[start : start + width]
        while len(cells) > 1 and len(cells) * (int(n[cells[-1]]) + 1) > TERMS:
            cells = cells[: len(cells) // 2]
        start += len(cells)
        y = np.arange(int(n[cells[-1]]) + 1)
        a_, b_, n_ = (x[cells, None] for x in (a, b, n))
        inside = y <= n_
        rest = np.where(inside, n_ - y, 0)
        log = gammaln(n_ + 1.0) - gammaln(y + 1.0) - gammaln(rest + 1.0) + betaln(a_ + y, b_ + rest) - betaln(a_, b_)
        mass = np.where(inside, np.exp(log), 0.0)
        beyond = np.cumsum(mass[:, ::-1], axis=1)[:, ::-1] - mass
        out[cells] = np.sum(np.where(y < n_, beyond / (a_ + y) ** 2, 0.0), axis=1)
    return out
