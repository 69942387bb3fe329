"""The posterior that sensitivities and expected information imply at one point, in coordinates that the prior has made round."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_triangular
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import ndtr, ndtri

from bayes_mfg.games import Invariance
from bayes_mfg.models import ForwardModel
from bayes_mfg.paths import PooledPath

from .coordinates import Coordinates, compiled, coordinates
from .information import information, root
from .sensitivity import Sensitivities

PRIOR_DRAWS = 10_000
"""Draws behind the covariance of unknowns whose prior is not normal; its sds are right to 1 %."""

SPREAD_DRAWS = 2_000
"""Draws behind the prior sds of unknowns on their own scale; right to 2 %."""

SAME = 1e-8
"""Relative difference of curvatures of a prior up to which they are one."""

HEAVY = 1.5
"""Factor between the sds of tenths of 10,000 draws from which a prior has none. In 300 repetitions it was at most 1.14 of a normal prior, 1.25 of a
Laplace, 1.34 of an exponential one, and at least 2.5, mostly 20, of a Cauchy one."""

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

    Where the prior's log density is quadratic - its second derivatives are the same at several draws, and positive - the covariance is their inverse.
    Elsewhere it is that of draws, taken only between coordinates that interact in the density; the curvature at one point would not do, because in
    the tails of a logistic prior, say, it vanishes. Of tails so heavy that draws agree on no sd see `heavy_tailed`.
    """
    return np.asarray(_prior(model)[0])


def heavy_tailed(model: ForwardModel) -> list[str]:
    """Unknowns with a coordinate whose prior has no sd that draws agree on, such as a Cauchy one; half of its central 68 % stands for it."""
    heavy = _prior(model)[1]
    return [name for name, place in blocks(model).items() if heavy[place].any()]


def _prior(model: ForwardModel) -> tuple[np.ndarray, np.ndarray]:
    return compiled(model, "prior_scale", lambda: _prior_scale(model))


def _prior_scale(model: ForwardModel) -> tuple[np.ndarray, np.ndarray]:
    space = coordinates(model)

    def drawn(key: jax.Array) -> jax.Array:
        return space.unconstrain(space.draw_prior(key))

    draws = np.asarray(jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(1), PRIOR_DRAWS)))
    bend = jax.jit(jax.hessian(space.prior_potential))
    curved = np.stack([np.asarray(bend(jnp.asarray(x), model.data)) for x in draws[:4]])
    size = space.size
    strength = np.abs(curved).max(axis=0)
    touching = strength > 1e-10 * np.sqrt(np.outer(np.diag(strength), np.diag(strength)))  # not by rounding
    scale, heavy = np.zeros((size, size)), np.zeros(size, bool)
    _, label = connected_components(csr_array(touching), directed=False)
    for k in range(label.max() + 1 if size else 0):
        part = np.flatnonzero(label == k)
        here = curved[:, part[:, None], part[None, :]]
        quadratic = np.abs(here - here[0]).max() <= SAME * np.abs(here).max() and np.linalg.eigvalsh(here[0]).min() > 0
        if quadratic:
            covariance = np.linalg.inv(here[0])
        else:
            heavy[part] = _disagree(draws[:, part])
            covariance = np.atleast_2d(np.cov(_tamed(draws[:, part], heavy[part]), rowvar=False))
        scale[np.ix_(part, part)] = np.linalg.cholesky(0.5 * (covariance + covariance.T))
    return scale, heavy


def _disagree(draws: np.ndarray) -> np.ndarray:
    """Columns of draws whose sd is not the same in each tenth of them."""
    sds = np.stack([some.std(axis=0) for some in np.array_split(draws, 10)])
    return sds.max(axis=0) > HEAVY * sds.min(axis=0)


def _tamed(draws: np.ndarray, heavy: np.ndarray) -> np.ndarray:
    """Draws whose heavy columns are replaced by normal ones of the same ranks and half width of the central 68 %."""
    out = np.array(draws)
    ranks = (draws[:, heavy].argsort(axis=0).argsort(axis=0) + 0.5) / len(draws)
    out[:, heavy] = ndtri(ranks) * _half_width(draws[:, heavy])
    return out


def _half_width(draws: np.ndarray) -> np.ndarray:
    """Half of the width of the central 68 % of draws, which of normal ones is the sd."""
    low, high = np.quantile(draws, ndtr([-1.0, 1.0]), axis=0)
    return 0.5 * (high - low)


def prior_spread(model: ForwardModel, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Prior sd of every unknown from draws, of the shape of its values; on logarithms where `logarithmic`.

    Half of the width of the central 68 % where it is `heavy_tailed`. Paths that need a population are left out.
    """

    def told(key: jax.Array) -> dict[str, jax.Array]:
        space = coordinates(model)
        sites = space.draw_prior(key)
        latents = space.latents(sites, model.data)
        return without_population(model, sites, latents)

    function = compiled(model, "prior_spread", lambda: jax.jit(jax.vmap(told)))
    draws = {name: np.asarray(x) for name, x in function(jax.random.split(jax.random.key(2), SPREAD_DRAWS)).items()}
    out, heavy = {}, heavy_tailed(model)
    for name, x in draws.items():
        if name not in values:
            continue  # held fixed
        some = np.log(x) if logarithmic(model, name, x) else x
        out[name] = np.broadcast_to(_half_width(some) if name in heavy else some.std(axis=0, ddof=1), np.shape(values[name]))
    return out


def logarithmic(model: ForwardModel, name: str, values: np.ndarray) -> bool:
    """Whether the spread of an unknown is that of its logarithm: it is positive and has no upper bound."""
    if name == "mu0" or not np.all(values > 0):
        return False
    own = model.bound[name].parameter if name in model.bound else None
    return own is None or (own.lower >= 0 and not np.isfinite(own.upper))


def without_population(model: ForwardModel, sites: dict[str, jax.Array], latents: dict[str, Any]) -> dict[str, jax.Array]:
    """Values of the unknowns that need no equilibrium, as `rows` has them."""
    times, nobody = jnp.asarray(model.grid.times), jnp.full(model.population.n_states, 1.0 / model.population.n_states)
    out = {name: sites[name] for name in model.observation.priors if name in sites}
    if states := [model.population.states.index(s) for s in model.initial.unknown_states(model.population)]:
        out["mu0"] = latents["mu0"][:, jnp.array(states)]
    for name, path in model.bound.items():
        if path.depends_on_population or path.needs_observed or (model.group_varies(name) and not isinstance(path, PooledPath)):
            continue

        def along(function: Any) -> jax.Array:
            return jax.vmap(function, (0, None))(times, nobody)

        raw = latents["raw"][name]
        if isinstance(path, PooledPath):
            out[name] = jax.vmap(lambda own, path=path: along(path.inner.function(own)))(path.by_trajectory(raw))
        else:
            out[name] = along(path.function(raw))
            out[name] = out[name][0] if path.is_constant else out[name]
    return out


def columns(space: Coordinates, moved: np.ndarray, trajectory: int | None) -> np.ndarray:
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
        rows = columns(space, np.einsum("nab,dnb->dna", weights[r][mask[r]], seen), r)
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
        every = [columns(space, moved[:, r], r) for r in range(len(values))] if several else [columns(space, moved, None)]
        slopes = np.concatenate(every)
        out[name] = Rows(values, slopes, axis)
    return out


@dataclasses.dataclass(frozen=True)
class Widths:
    """Posterior over prior variance of one unknown, entry by entry; NaN where it does not move at this point.

    Attributes
    ----------
    posterior : with all unknowns unknown.
    sway : by how many of its posterior sds the unknown moves, at most, when prior means move by one prior sd: see `_sway`.
    alone : with all others known.
    given : with one other known, by its name.
    """

    posterior: np.ndarray
    sway: np.ndarray
    alone: np.ndarray
    given: dict[str, np.ndarray]


def widths(score: np.ndarray, scale: np.ndarray, unknowns: dict[str, Rows], parts: dict[str, np.ndarray]) -> dict[str, Widths]:
    """Widths of all unknowns from `score = A L (size, size)`, whitened by the prior's scale `L`.

    With `R' R = 1 + A' A` from a QR of `[A; 1]`, a row `j` of slopes has the posterior variance `|R'^-1 j|^2`: never negative, whatever the rounding.
    """
    everything = np.arange(score.shape[1])
    factors = {
        "": _factor(score),
        **{f"without {n}": _factor(score[:, np.setdiff1d(everything, place)]) for n, place in parts.items() if len(parts) > 1},
        **{f"only {n}": _factor(score[:, np.sort(place)]) for n, place in parts.items()},
    }
    out = {}
    for name, unknown in unknowns.items():
        slopes = unknown.slopes @ scale
        prior = np.sum(slopes**2, axis=1)
        prior = np.where(prior > 1e-18 * prior.max(initial=0.0), prior, np.nan)

        def ratio(factor: str, keep: np.ndarray, slopes: np.ndarray = slopes, prior: np.ndarray = prior) -> np.ndarray:
            half = solve_triangular(factors[factor], slopes[:, keep].T, trans="T")
            return np.minimum(np.sum(half**2, axis=0) / prior, 1.0)

        # Priors of different unknowns are independent, so that whitened coordinates belong to the same unknowns.
        given = {other: ratio(f"without {other}", np.setdiff1d(everything, parts[other])) for other in parts if other != name}
        sway = _sway(factors[""], slopes, np.sort(parts[name]) if unknown.axis is not None else np.zeros(0, int))
        alone = ratio(f"only {name}", np.sort(parts[name]))
        out[name] = Widths(ratio("", everything), np.where(np.isfinite(prior), sway, np.nan), alone, given)
    return out


def _factor(score: np.ndarray) -> np.ndarray:
    """Upper triangular `R` with `R' R = 1 + A' A`."""
    return np.linalg.qr(np.concatenate([score, np.eye(score.shape[1])]), mode="r")


def _sway(factor: np.ndarray, slopes: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Largest change of each entry, in its posterior sds, when the prior mean of whitened coordinates moves by one.

    A change `e` of the prior mean moves the posterior mean of `j z` by `j C e`, `C = (1 + A' A)^-1`: at most `|C j'| / sqrt(j C j')`.
    It is never below the ratio `sqrt(j C j') / |j|` of sds, and is that ratio where there is one coordinate. Unlike the ratio it tells what is
    narrower than its own prior but as wide as another's: of two factors of which only the product is seen, both have 1.

    Of paths, `own` has their coordinates, among which the prior mean moves in the direction of the entry alone: that their shape between the data is
    the prior's is what a path is. Own derivation.
    """
    half = solve_triangular(factor, slopes.T, trans="T")
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = solve_triangular(factor, half)  # C j'
        squares = np.sum(moved**2, axis=0)
        if own.size:
            mine = slopes[:, own].T
            along = np.sum(moved[own] * mine, axis=0) ** 2 / np.sum(mine**2, axis=0)
            squares = squares - np.sum(moved[own] ** 2, axis=0) + along
        return np.minimum(np.sqrt(np.maximum(squares, 0.0) / np.sum(half**2, axis=0)), 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """One point: whitened root of the information, unknowns, their widths, and everything behind them."""

    score: np.ndarray
    unknowns: dict[str, Rows]
    widths: dict[str, Widths]
    found: Sensitivities


@dataclasses.dataclass(frozen=True, eq=False)
class Reached:
    """Changes that a game declares, and which coordinates make them: `x` those of the amounts `a` where `left x + right a = 0`.

    Attributes
    ----------
    group : the changes, which may be combined.
    basis : of the coordinates, `(size, n)`.
    left, right : `(m, size)`, `(m, amounts)`.
    owner : number in the group of the change that each amount belongs to.
    """

    group: tuple[Invariance, ...]
    basis: np.ndarray
    left: np.ndarray
    right: np.ndarray
    owner: np.ndarray

    def used(self, direction: np.ndarray) -> list[Invariance]:
        """The changes that a direction of the coordinates is made of."""
        amounts = np.linalg.lstsq(self.right, -self.left @ direction, rcond=REACHED)[0]
        places = [self.owner == k for k in range(len(self.group))]
        sizes = [float(np.abs(self.right[:, place] * amounts[place]).max(initial=0.0)) for place in places]
        return [i for i, size in zip(self.group, sizes, strict=True) if size > 1e-4 * max(sizes)]


def declared(model: ForwardModel, unknowns: dict[str, Rows], found: Sensitivities) -> list[Reached]:
    """The changes that the game declares and the unknowns of the model can make: each alone, then all of them together, for their combinations.

    A change that needs a parameter to move that is known is none that the data could mistake.
    """
    game = getattr(model, "game", None)
    if game is None:
        return []
    single = [(i,) for i in game.invariances if any(name in unknowns for name in i.parameters)]
    every = tuple(game.invariances)
    reached = []
    for group in [*single, *([every] if single and len(every) > 1 else [])]:
        left, right, owner = _generators(model, found, group)
        if len(left) and (basis := _solutions(left, right)).shape[1]:
            reached.append(Reached(group, basis, left, right, owner))
    return reached


def _generators(
    model: ForwardModel, found: Sensitivities, group: tuple[Invariance, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`left`, `right` such that coordinates `x` make the changes of amounts `a` where `left x + right a = 0`, and whose each amount is."""
    game, space = model.game, coordinates(model)  # type: ignore[attr-defined]
    several = any(model.varies_by_trajectory(name) for name in model.bound)
    count, points = (len(found.implied["mu"]) if several else 1), model.grid.points
    constants = {name: np.asarray(game.constant({}, name), float) for name in game.parameters if name not in model.bound}
    amounts = [int(np.prod(i.shape)) for i in group]
    free = sum(n for n, i in zip(amounts, group, strict=True) if i.pointwise)
    most = max(3, MOST_MOMENTS // (free * count)) if free else points
    moments = np.unique(np.linspace(0, points - 1, min(points, most)).round().astype(int))
    copies = [count * len(moments) if i.pointwise else 1 for i in group]
    starts = np.cumsum([0, *(n * c for n, c in zip(amounts, copies, strict=True))])
    at: dict[str, Any] = {}
    slopes = {}
    places = [(r, int(t)) for r in range(count) for t in moments]
    for name in model.bound:
        values, moved = found.implied[f"parameter/{name}"], found.moved[f"parameter/{name}"]
        own = model.varies_by_trajectory(name)
        at[name] = np.stack([np.asarray(values[r, t] if own else values[t]) for r, t in places])
        slopes[name] = [columns(space, np.asarray(moved[:, r, t] if own else moved[:, t]), r if own else None) for r, t in places]
    at |= {name: np.broadcast_to(value, (len(places), *value.shape)) for name, value in constants.items()}
    generators = [
        {n: np.asarray(g).reshape(len(places), -1, k) for n, g in jax.vmap(i.generators)(at).items()}
        for i, k in zip(group, amounts, strict=True)
    ]
    left, right = [], []
    for number in range(len(places)):
        every = [{n: g[number] for n, g in some.items()} for some in generators]
        every = [
            some if all(np.isfinite(g).all() for g in some.values()) else {n: np.zeros_like(g) for n, g in some.items()}
            for some in every
        ]
        for name in dict.fromkeys(n for some in every for n in some):
            size = max(float(np.abs(some[name]).max(initial=0.0)) for some in every if name in some) or 1.0
            entries = int(np.prod(at[name].shape[1:]))
            wide = np.zeros((entries, starts[-1]))
            for k, some in enumerate(every):
                if name in some:
                    first = starts[k] + (amounts[k] * number if group[k].pointwise else 0)
                    wide[:, first : first + amounts[k]] = some[name] / size
            left.append((slopes[name][number] if name in slopes else np.zeros((entries, space.size))) / size)
            right.append(-wide)
    owner = np.repeat(np.arange(len(group)), np.diff(starts))
    none = np.zeros((0, 0))
    return (np.concatenate(left), np.concatenate(right), owner) if left else (none, none, owner)


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
