"""The posterior that sensitivities and expected information imply at one point, in coordinates that the prior has made round."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from bayes_mfg.games import Invariance
from bayes_mfg.models import ForwardModel

from .coordinates import Coordinates, compiled, coordinates
from .information import information, root
from .sensitivity import Sensitivities

PRIOR_DRAWS = 10_000
"""Draws behind the covariance of unknowns whose prior is not normal; its sds are right to 1 %."""

SAME = 1e-8
"""Relative difference of curvatures of a prior up to which they are one."""

REACHED = 1e-6
"""Relative residual up to which the unknowns of a model reach a change that a game declares."""

MOST_MOMENTS = 400
"""Amounts of one declared change, over all moments, that are matched at once."""


def blocks(model: ForwardModel) -> dict[str, np.ndarray]:
    """Coordinates of every unknown: name of a parameter, of the observation model's own, or "mu0" -> indices."""
    space = coordinates(model)
    found: dict[str, list[np.ndarray]] = {}
    for site, shape in space.shapes.items():
        name = site.split("/")[0] if "/" in site else site if site in model.observation.priors else "mu0"
        found.setdefault(name, []).append(space.offsets[site] + np.arange(int(np.prod(shape))))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def prior_scale(model: ForwardModel) -> np.ndarray:
    """A lower triangular square root `(size, size)` of the prior covariance of the unconstrained coordinates.

    Where the prior's log density is quadratic - its second derivatives are the same at several draws - the covariance is their inverse. Elsewhere it
    is that of draws, taken only between coordinates that interact in the density; the curvature at one point would not do, because in the tails of
    a logistic prior, say, it vanishes.
    """
    return np.asarray(compiled(model, "prior_scale", lambda: _prior_scale(model)))


def _prior_scale(model: ForwardModel) -> np.ndarray:
    space = coordinates(model)

    def drawn(key: jax.Array) -> jax.Array:
        return space.unconstrain(space.draw_prior(key))

    draws = np.asarray(jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(1), PRIOR_DRAWS)))
    bend = jax.jit(jax.hessian(space.prior_potential))
    curved = np.stack([np.asarray(bend(jnp.asarray(x), model.data)) for x in draws[:4]])
    size = space.size
    strength = np.abs(curved).max(axis=0)
    touching = strength > 1e-10 * np.sqrt(np.outer(np.diag(strength), np.diag(strength)))  # not by rounding
    scale = np.zeros((size, size))
    _, label = connected_components(csr_array(touching), directed=False)
    for k in range(label.max() + 1 if size else 0):
        part = np.flatnonzero(label == k)
        here = curved[:, part[:, None], part[None, :]]
        quadratic = np.abs(here - here[0]).max() <= SAME * np.abs(here).max()
        covariance = np.linalg.inv(here[0]) if quadratic else np.atleast_2d(np.cov(draws[:, part], rowvar=False))
        scale[np.ix_(part, part)] = np.linalg.cholesky(0.5 * (covariance + covariance.T))
    return scale


def _columns(space: Coordinates, moved: np.ndarray, trajectory: int | None) -> np.ndarray:
    """Derivatives `(n, size)` of what belongs to one trajectory, or to none, from those along the directions of `Sensitivities`."""
    shared = np.setdiff1d(np.arange(space.size), space.local)
    flat = moved.reshape(len(moved), -1)
    out = np.zeros((flat.shape[1], space.size))
    out[:, shared] = flat[: len(shared)].T
    if trajectory is not None and len(space.local):
        out[:, space.local[:, trajectory]] = flat[len(shared) :].T
    return out


def score_root(model: ForwardModel, found: Sensitivities) -> np.ndarray:
    """`A (size, size)`, upper triangular, with `A' A` the expected Fisher information of all that is observed, in unconstrained coordinates."""
    own = {name.removeprefix("own/"): value for name, value in found.implied.items() if name.startswith("own/")}
    space, record = coordinates(model), model.data.record
    weights = root(information(model.likelihood({"own": own}, found.implied["mu"], model.data)))
    mask, moved = np.asarray(record.mask), np.asarray(found.moved["natural"])
    size = space.size
    kept = np.zeros((0, size))
    for r in range(len(mask)):
        seen = moved[:, r][:, mask[r]]
        rows = _columns(space, np.einsum("nab,dnb->dna", weights[r][mask[r]], seen), r)
        kept = np.linalg.qr(np.concatenate([kept, rows]), mode="r")
    return np.concatenate([kept, np.zeros((size - len(kept), size))]) if len(kept) < size else kept


@dataclasses.dataclass(frozen=True)
class Rows:
    """One unknown as people know it - a path on the grid, a number, initial shares - and its derivatives by the coordinates.

    Attributes
    ----------
    values : `shape`.
    slopes : `(n, size)`, n entries of values.
    axis : number of the axis of time in the values, None where there is none.
    """

    values: np.ndarray
    slopes: np.ndarray
    axis: int | None


def rows(model: ForwardModel, found: Sensitivities) -> dict[str, Rows]:
    """All unknowns, in the order of `blocks`."""
    space = coordinates(model)
    out = {}
    for name in blocks(model):
        if name == "mu0":
            states = [model.population.states.index(s) for s in model.initial.unknown_states(model.population)]
            values = np.asarray(found.implied["mu"])[:, 0][:, states]
            moved = np.asarray(found.moved["mu"])[:, :, 0][:, :, states]
            axis, several = None, True
        else:
            key = f"parameter/{name}" if name in model.bound else f"own/{name}"
            values, moved = np.asarray(found.implied[key]), np.asarray(found.moved[key])
            several = name in model.bound and model.varies_by_trajectory(name)
            axis = int(several) if name in model.bound else None
            if name in model.bound and model.bound[name].is_constant and not several:
                values, moved, axis = values[0], moved[:, 0], None
        every = [_columns(space, moved[:, r], r) for r in range(len(values))] if several else [_columns(space, moved, None)]
        slopes = np.concatenate(every)
        out[name] = Rows(values, slopes, axis)
    return out


@dataclasses.dataclass(frozen=True)
class Widths:
    """Posterior over prior variance of one unknown, entry by entry; NaN where the prior knows it already.

    Attributes
    ----------
    posterior : with all unknowns unknown.
    alone : with all others known.
    given : with one other known, by its name.
    """

    posterior: np.ndarray
    alone: np.ndarray
    given: dict[str, np.ndarray]


def widths(score: np.ndarray, scale: np.ndarray, unknowns: dict[str, Rows], parts: dict[str, np.ndarray]) -> dict[str, Widths]:
    """Widths of all unknowns from `score = A L (size, size)`, whitened by the prior's scale `L`."""
    precision = np.eye(len(score)) + score.T @ score

    def ratio(slopes: np.ndarray, keep: np.ndarray, prior: np.ndarray) -> np.ndarray:
        some = slopes[:, keep]
        solved = np.linalg.solve(precision[np.ix_(keep, keep)], some.T).T
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.minimum(np.sum(some * solved, axis=1) / prior, 1.0)

    everything = np.arange(len(score))
    out = {}
    for name, unknown in unknowns.items():
        slopes = unknown.slopes @ scale
        prior = np.sum(slopes**2, axis=1)
        prior = np.where(prior > 1e-18 * prior.max(initial=0.0), prior, np.nan)
        others = [other for other in parts if other != name]
        # Priors of different unknowns are independent, so that whitened coordinates belong to the same unknowns.
        given = {other: ratio(slopes, np.setdiff1d(everything, parts[other]), prior) for other in others}
        out[name] = Widths(ratio(slopes, everything, prior), ratio(slopes, np.sort(parts[name]), prior), given)
    return out


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """One point: whitened root of the information, unknowns, their widths, and everything behind them."""

    score: np.ndarray
    unknowns: dict[str, Rows]
    widths: dict[str, Widths]
    found: Sensitivities


def declared(model: ForwardModel, unknowns: dict[str, Rows], found: Sensitivities) -> list[tuple[Invariance, np.ndarray]]:
    """The changes that the game declares and the unknowns of the model can make, each with a basis `(size, n)` of coordinates.

    A change that needs a parameter to move that is known is none that the data could mistake.
    """
    game = getattr(model, "game", None)
    if game is None:
        return []
    space = coordinates(model)
    several = any(model.varies_by_trajectory(name) for name in model.bound)
    count, points = (len(found.implied["mu"]) if several else 1), model.grid.points
    constants = {name: np.asarray(game.constant({}, name), float) for name in game.parameters if name not in model.bound}
    reached = []
    for invariance in game.invariances:
        if not any(name in unknowns for name in invariance.parameters):
            continue
        amounts = int(np.prod(invariance.shape))
        most = max(3, MOST_MOMENTS // (amounts * count)) if invariance.pointwise else points
        moments = np.unique(np.linspace(0, points - 1, min(points, most)).round().astype(int))
        left, right = [], []
        for number, (r, t) in enumerate((r, t) for r in range(count) for t in moments):
            at, slopes = dict(constants), {}
            for name in model.bound:
                values, moved = found.implied[f"parameter/{name}"], found.moved[f"parameter/{name}"]
                own = model.varies_by_trajectory(name)
                at[name] = np.asarray(values[r, t] if own else values[t])
                slopes[name] = _columns(space, np.asarray(moved[:, r, t] if own else moved[:, t]), r if own else None)
            for name, generator in invariance.generators(at).items():
                g = np.asarray(generator).reshape(-1, amounts)
                size = np.abs(g).max()
                if not size:
                    continue
                wide = np.zeros((len(g), amounts * (count * len(moments) if invariance.pointwise else 1)))
                first = amounts * number if invariance.pointwise else 0
                wide[:, first : first + amounts] = g / size
                left.append(slopes.get(name, np.zeros((len(g), space.size))) / size)
                right.append(-wide)
        if left and (basis := _solutions(np.concatenate(left), np.concatenate(right))).shape[1]:
            reached.append((invariance, basis))
    return reached


def _solutions(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Basis of the `x` that move something and for which some `a` has `left x + right a = 0`."""
    reach = left.shape[1]
    square = np.linalg.qr(np.concatenate([left, right], axis=1), mode="r")
    square = np.concatenate([square, np.zeros((square.shape[1] - len(square), square.shape[1]))])
    _, values, vectors = np.linalg.svd(square)
    both = vectors[values <= REACHED * values[0]].T
    # Coordinates that move no path are no change of parameters.
    moving = left @ both[:reach]
    _, strength, turn = np.linalg.svd(moving, full_matrices=False)
    some = both[:reach] @ turn[strength > REACHED * max(float(np.abs(left).max()), 1e-300)].T
    return some
