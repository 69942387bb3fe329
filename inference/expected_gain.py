"""Expected information gain by nested Monte Carlo, for designs whose posteriors are not those of a linearisation.

The gain of a design is the mean over truths from the prior, and data from these, of `log p(y | truth) - log p(y)`. The evidence `p(y)` is the mean of
`p(y | x) p(x) / q(x)` over inner points `x` from a proposal `q`: the linearised posterior (Student's t with 5 degrees of freedom), one
Gauss-Newton step from the truth. That `q` knows the truth leaves each evidence unbiased; the logarithm of a mean of finitely many has a
bias that falls with their number, so that gains come out too large, and is told by the difference to half of them. Where some of the prior has no
equilibrium, truths are those that have one, and so is the prior of the evidence: it is divided by the solvable share of the prior.

Source: Ryan, Estimating expected information gains for experimental designs with application to the random fatigue-limit model, Journal of
Computational and Graphical Statistics 12 (2003); Beck, Dia, Espath, Long and Tempone, Fast Bayesian experimental design: Laplace-based importance
sampling for the expected information gain, Computer Methods in Applied Mechanics and Engineering 334 (2018).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import gammaln, logsumexp

from bayes_mfg.equilibrium import Code
from bayes_mfg.models import Data, ForwardModel

from .coordinates import compiled, coordinates, potential, prior_points, value_and_gradient
from .design_plan import Local, Plan
from .errors import FitError
from .linearised import prior_scale

FREEDOM = 5
"""Degrees of freedom of proposals."""

FROM_PRIOR = 0.25
"""Part of the inner points of the search that come from the prior's normal approximation: they serve designs that say little."""


@dataclasses.dataclass(frozen=True)
class Gain:
    """An expected information gain, in nats.

    Attributes
    ----------
    value : the estimate.
    error : its Monte Carlo standard error.
    bias : estimate with half of the inner points less the estimate; the bias that is left is about as large.
    ess : median effective number of the inner points.
    each : of every outer draw, `(n,)`; NaN where a solve failed.
    halves : of every outer draw, with half of the inner points, `(n,)`.
    """

    value: float
    error: float
    bias: float
    ess: float
    each: np.ndarray
    halves: np.ndarray


def solvable(plan: Plan, count: int, seed: int) -> float:
    """Share of the prior that has an equilibrium, by `count` draws.

    Raises
    ------
    FitError : where none has.
    """
    model = plan.model
    flat = prior_points(model, jax.random.split(jax.random.fold_in(jax.random.key(seed), count), count))
    share = float(np.isfinite(np.asarray(_many_potentials(model)(flat, model.data))).mean())
    if not share:
        raise FitError(f"design: none of {count} draws from the prior has an equilibrium.")
    return share


def records(plan: Plan, flat: np.ndarray, seed: int) -> list[list[np.ndarray]]:
    """Simulated values of everything that could be observed: for every layer of totals, of every draw `(n, size)`."""
    model = plan.model
    many = _replicates(model)
    out = []
    for layer, sizes in enumerate(plan.layers):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), layer), len(flat))
        out.append(np.asarray(many(jnp.asarray(flat), keys, _sized(model.data, sizes))))
    return [[layer[n] for layer in out] for n in range(len(flat))]


def _sized(data: Data, sizes: np.ndarray | None) -> Data:
    if sizes is None:
        return data
    return data._replace(record=data.record._replace(totals=jnp.asarray(np.maximum(sizes, 1), data.record.totals.dtype)))


class Table:
    """Log likelihoods of every candidate's data at the truths and at inner points, from which the gain of any set follows without a solve.

    Parameters
    ----------
    plan : the candidates.
    flat : truths from the prior, `(n, size)`.
    points : information there.
    budget_share : part of all information that a design of the budget has, by which the proposal is as wide as the posteriors are.
    inner : number of inner points of each truth.
    seed : of data and inner points.
    share : solvable share of the prior.

    Attributes
    ----------
    lost : number of truths that are left out, for none of their inner points has an equilibrium.

    Raises
    ------
    FitError : where no truth is left.
    """

    def __init__(
        self, plan: Plan, flat: np.ndarray, points: list[Local], budget_share: float, inner: int, seed: int, share: float = 1.0
    ) -> None:
        told = _told(plan)
        rng = np.random.default_rng([seed, 1])
        scale = prior_scale(plan.model)
        centre = coordinates(plan.model).prior_median()
        data = records(plan, flat, seed)
        at_truth, inside = [], []
        for x, local, values in zip(flat, points, data, strict=True):
            whole = sum((r.T @ r for r in local.roots), np.zeros((len(scale),) * 2))
            # Twice as wide: posteriors lie a posterior sd from the truth, in any direction.
            factor = 2.0 * scale @ _root_of_inverse(np.eye(len(scale)) + budget_share * whole)
            first = int(FROM_PRIOR * inner)
            z = _student(rng, inner, len(scale))
            some = np.where(np.arange(inner)[:, None] < first, centre + z @ scale.T, x + z @ factor.T)
            log_q = logsumexp(
                np.stack([_log_student(some - centre, scale), _log_student(some - x, factor)]),
                axis=0,
                b=np.array([[FROM_PRIOR], [1 - FROM_PRIOR]]),
            )
            likelihood, prior = told(np.concatenate([x[None], some]), values)
            weight = prior[1:] - log_q - np.log(share)
            if np.isfinite(prior[0]) and np.isfinite(likelihood[0]).all() and np.isfinite(weight).any():
                at_truth.append(likelihood[0])
                inside.append((likelihood[1:], weight))
        if not at_truth:
            raise FitError(f"design: of {len(flat)} truths none has an inner point with an equilibrium.")
        self.at_truth, self.inside, self.lost = at_truth, inside, len(flat) - len(at_truth)

    def __call__(self, chosen: tuple[int, ...]) -> np.ndarray:
        """Minus the gain of a set, of every truth, `(n,)`."""
        out = np.empty(len(self.at_truth))
        some = list(chosen)
        for n, (right, (likelihood, weight)) in enumerate(zip(self.at_truth, self.inside, strict=True)):
            evidence = logsumexp(likelihood[:, some].sum(axis=1) + weight) - np.log(len(weight))
            out[n] = evidence - right[some].sum() if some else 0.0
        return out


def _told(plan: Plan) -> Any:
    """`(points (m, size), values of every layer) -> log likelihood of every candidate (m, candidates), log prior (m,)`; minus infinity unsolved."""
    model = plan.model
    space = coordinates(model)

    def one(x: Array, values: list[Array], data: list[Data]) -> tuple[list[Array], Array, Array]:
        latents = space.latents(space.constrain(x), data[0])
        result = model.trajectories(latents, data[0])
        each = [model.likelihood(latents, result.mu, d).log_prob(v) for v, d in zip(values, data, strict=True)]
        return each, -space.prior_potential(x, data[0]), jnp.all(result.code == Code.CONVERGED)

    many = compiled(model, f"design_told_{len(plan.layers)}", lambda: jax.jit(jax.vmap(one, (0, None, None))))
    sized = [_sized(model.data, sizes) for sizes in plan.layers]
    columns = [plan.blank.states.index(s) for s in model.columns if s in plan.blank.states]

    def told(flat: np.ndarray, values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        each, prior, found = many(jnp.asarray(flat), [jnp.asarray(v) for v in values], sized)
        out = np.empty((len(flat), len(plan.cells)))
        for k, (cells, layer) in enumerate(zip(plan.cells, plan.layer, strict=True)):
            seen = np.zeros(plan.there.shape, bool)
            seen.reshape(-1)[cells] = True
            density = np.asarray(each[layer])
            out[:, k] = density[:, seen[..., columns] if density.ndim == 4 else seen.any(axis=-1)].sum(axis=1)
        good = np.asarray(found)
        return np.where(good[:, None], out, -1e300), np.where(good, np.asarray(prior), -np.inf)

    return told


def expected_gain(
    plan: Plan, chosen: tuple[int, ...], flat: np.ndarray, points: list[Local], inner: int, seed: int, share: float = 1.0
) -> Gain:
    """Expected information gain of one design over truths `(n, size)`, with a proposal of its own for each.

    The same seed gives the data of every truth the same random numbers, so that gains of two designs can be compared in pairs. `share` is the
    solvable share of the prior.

    Raises
    ------
    FitError : where no truth has a finite gain.
    """
    model = plan.carried(chosen)
    scale = prior_scale(plan.model)
    step, height = value_and_gradient(model), _many_potentials(model)
    prior = compiled(plan.model, "prior_height", lambda: jax.jit(coordinates(plan.model).prior_potential))
    rng = np.random.default_rng([seed, 2])
    simulated = _replicates(model)(jnp.asarray(flat), jax.random.split(jax.random.key(seed), len(flat)), model.data)
    each, halves, sizes = np.full(len(flat), np.nan), np.full(len(flat), np.nan), []
    for n, (x, local) in enumerate(zip(flat, points, strict=True)):
        data = model.data._replace(record=model.data.record._replace(values=simulated[n]))
        at, slope = (np.asarray(y) for y in step(jnp.asarray(x), data))
        if not (np.isfinite(at) and np.isfinite(slope).all()):
            continue
        info = sum((local.roots[k].T @ local.roots[k] for k in chosen), np.eye(len(scale)))
        factor = scale @ _root_of_inverse(info)
        around = x - factor @ (factor.T @ slope)
        some = around + _student(rng, inner, len(x)) @ factor.T
        heights = np.asarray(height(jnp.asarray(some), data))
        weight = np.where(np.isfinite(heights), -heights, -np.inf) - _log_student(some - around, factor) - np.log(share)
        if not np.isfinite(weight).any():
            continue
        # The potential is of likelihood and prior together: the likelihood at the truth is without it.
        right = float(prior(jnp.asarray(x), data)) - float(at)
        each[n] = right - (logsumexp(weight) - np.log(inner))
        halves[n] = np.mean([right - (logsumexp(w) - np.log(len(w))) for w in np.array_split(weight, 2)])
        sizes.append(float(np.exp(2 * logsumexp(weight) - logsumexp(2 * weight))))
    good = np.isfinite(each)
    if not good.any():
        raise FitError(f"design: of {len(flat)} truths none has an expected gain: there is no equilibrium around them.")
    value = float(each[good].mean())
    error = float(each[good].std(ddof=1) / np.sqrt(good.sum())) if good.sum() > 1 else float("nan")
    both = good & np.isfinite(halves)
    bias = float((halves[both] - each[both]).mean()) if both.any() else float("nan")
    return Gain(value, error, bias, float(np.median(sizes)), each, halves)


def _replicates(model: ForwardModel) -> Any:
    """Compiled `(flat (n, size), keys (n,), data) -> simulated values (n, R, T, ...)`."""
    space = coordinates(model)

    def one(x: Array, key: Array, data: Data) -> Array:
        latents = space.latents(space.constrain(x), data)
        return model.likelihood(latents, model.trajectories(latents, data).mu, data).sample(key)

    return compiled(model, "design_replicates", lambda: jax.jit(jax.vmap(one, (0, 0, None))))


def _many_potentials(model: ForwardModel) -> Any:
    one = potential(model)
    return compiled(model, "many_potentials", lambda: jax.jit(jax.vmap(one, (0, None))))


def _root_of_inverse(precision: np.ndarray) -> np.ndarray:
    """`F` with `F F' = precision^-1`."""
    return np.asarray(np.linalg.inv(np.linalg.cholesky(precision)).T)


def _student(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    normal = rng.standard_normal((count, size))
    return normal / np.sqrt(rng.chisquare(FREEDOM, (count, 1)) / FREEDOM)


def _log_student(away: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Log density `(m,)` of Student's t around zero with scale matrix `factor factor'`, of full rank."""
    size = len(factor)
    standard = np.linalg.solve(factor, away.T)
    constant = gammaln((FREEDOM + size) / 2) - gammaln(FREEDOM / 2) - 0.5 * size * np.log(FREEDOM * np.pi)
    distance = np.sum(standard**2, axis=0) / FREEDOM
    return np.asarray(constant - np.linalg.slogdet(factor)[1] - 0.5 * (FREEDOM + size) * np.log1p(distance))
