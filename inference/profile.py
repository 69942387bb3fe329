"""Profile likelihoods: the best that all other unknowns can do at each value of a quantity, and the confidence sets that follow."""

import concurrent.futures
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import chi2

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel
from bayes_mfg.paths import PooledPath

from .coordinates import coordinates
from .errors import FitError
from .identifiability_points import located
from .identifiability_words import listing, number
from .linearised import blocks
from .objective import Expanded, nearest_solvable, square_root
from .options import whole
from .parallel import ONE_AT_A_TIME, Parcel, travels
from .point import MOST_DENSE
from .profile_quantity import Quantity
from .profile_quantity import quantity as resolved
from .profile_result import Profile, check_levels
from .profile_scan import Held, Side, confidence, notes, scan, unsettled
from .profile_target import Target
from .progress import bar

log = logging.getLogger(__name__)

RESTARTS = 3
"""Times that a search for the maximum is taken up again because a profile climbed above it."""

EDGE = float(np.log(1e3))
"""Coordinate of a number between two bounds from which it counts as being at one of them: a thousandth of the way from the bound to the other."""


def profile(
    model: ForwardModel,
    quantity: Any,
    *,
    levels: Any = (0.9, 0.95),
    between: tuple[float, float] | None = None,
    priors: str | Sequence[str] = "paths",
    at: Any = None,
    starts: int = 3,
    max_steps: int = 200,
    seed: int = 0,
    executor: concurrent.futures.Executor | None = None,
    progress: bool | None = None,
) -> Profile:
    """The profile likelihood of one quantity, and confidence sets by the likelihood ratio.

    `l(q)` is the maximum over all other unknowns of the log likelihood where the quantity is `q`; a value is in the set of a level where twice its
    fall from the overall maximum is at most the level's quantile of chi-square with one degree of freedom (Wilks). Of the priors of numbers only
    the supports enter: inside these constants, initial populations and the observation model's own unknowns are as free as the likelihood leaves
    them.
    A uniform or truncated prior cuts the likelihood off where it ends; a warning says where a number came to such an end.

    A path is another matter. Given one value for every moment the likelihood has no maximum worth the name: any two moments that the data do not tell
    apart can be traded against each other without end. So paths that vary, and what trajectories scatter by, keep their priors (`priors="paths"`), as
    densities of their unconstrained coordinates, and what is profiled is the penalised likelihood. Where all is linear and normal, its sets are those
    of Bayes' rule with flat priors on all the rest, which hold the truth at their level on average over the path's prior and not at each path: a
    value that the data do not see is told by the path's prior alone.

    The search follows the profile outwards from the maximum: each step is predicted along its tangent and found by Gauss-Newton in a trust region on
    the surface where the quantity has its value, exactly (`profile_target.Surface`); the ends of the sets are found to 0.001 sds. It is local: hills
    that the search does not pass are not seen, unless `between` names the values between which to look.

    Parameters
    ----------
    model : the model; with no `branches`.
    quantity : the name of a constant parameter or of one of the observation model's own unknowns; `(name, time)` for a path; a `Value` for
        entries and trajectories; or a smooth function of the unknowns that gives one number: of a dict of paths on the grid `(T, ...)`, or `(R, T,
        ...)` where every trajectory has its own, and of numbers, by name. It is no function of populations.
    levels : of confidence.
    between : smallest and largest value to look at, however low the profile, with the estimate between them; by default as far as the largest level
        and a little more.
    priors : unknowns whose priors count: "paths", "all" (then it is the profile of the posterior density of the unconstrained coordinates), or names,
        `()` for none at all.
    at : where the search for the maximum sets out: as in `identifiability`; by default the prior median and draws.
    starts : number of starts.
    max_steps : of each search.
    seed : of the prior draws among the starts.
    executor : works on both directions at once, as in `check`: `bm.inference.processes()`, or any other.
    progress : show progress; by default on a terminal only.

    Returns
    -------
    Profile

    Raises
    ------
    InputError : for a model, a quantity or an option that does not fit, and in single precision.
    FitError : when no start reaches a maximum.

    References
    ----------
    Wilks, The large-sample distribution of the likelihood ratio, Ann. Math. Statist. 9 (1938); Raue et al., Structural and practical identifiability
    analysis by exploiting the profile likelihood, Bioinformatics 25 (2009). Average coverage of penalised paths: Nychka, Bayesian confidence
    intervals for smoothing splines, J. Amer. Statist. Assoc. 83 (1988).
    """
    options = {"levels": levels, "between": between, "priors": priors, "at": at, "starts": starts, "max_steps": max_steps}
    (found,) = profiles(model, [quantity], seed=seed, executor=executor, progress=progress, **options).values()
    return found


def profiles(
    model: ForwardModel,
    quantities: Sequence[Any],
    *,
    levels: Any = (0.9, 0.95),
    between: tuple[float, float] | None = None,
    priors: str | Sequence[str] = "paths",
    at: Any = None,
    starts: int = 3,
    max_steps: int = 200,
    seed: int = 0,
    executor: concurrent.futures.Executor | None = None,
    progress: bool | None = None,
) -> dict[str, Profile]:
    """Profiles of several quantities, from one search for the maximum; options and errors as in `profile`.

    Returns
    -------
    dict : quantity in words -> `Profile`, in the order of the quantities.
    """
    _refuse(model, starts, max_steps, seed)
    wanted = check_levels(levels)
    kept = _kept(model, priors)
    if isinstance(quantities, str | tuple) or not isinstance(quantities, Sequence) or not quantities:
        raise InputError(f"profiles: quantities is {quantities!r}; a list of names, Values or functions is needed.")
    asked = [resolved(model, each) for each in quantities]
    names = [each.name for each in asked]
    if len(set(names)) < len(names):
        raise InputError(f"profiles: quantities are called {listing(names)}; each needs a name of its own.")
    ranges = [_range(between, each.lower, each.upper) for each in asked]
    target = Target(model, kept)
    with bar(1 + 2 * len(asked), "profile", progress) as shown:
        top = _maximum(target, _starts(model, at, starts, seed), max_steps)
        shown.update()
        for left in range(RESTARTS, -1, -1):
            for each, ends in zip(asked, ranges, strict=True):
                _holds(model, each, ends, top)
            jobs = [
                _Job(each, k, sign, wanted, ranges[k][0 if sign < 0 else 1], kept, top, max_steps)
                for k, each in enumerate(quantities)
                for sign in (-1, 1)
            ]
            sides: dict[tuple[int, int], Side] = {}
            higher: np.ndarray | None = None
            for job, side in _done(model, jobs, executor):
                sides[job.number, job.sign] = side
                higher = side.higher if side.higher is not None else higher
                shown.update()
            if higher is None:
                break
            if not left:
                raise FitError(
                    f"profile: after {RESTARTS} restarts the profile still climbs above its maximum; give a better start by at=..."
                )
            log.info("profile: the profile climbed above the maximum; the search starts again from there.")
            top = _maximum(target, [higher], max_steps)
            shown.reset()
    ranged = between is not None
    out = {each.name: _gathered(target, each, sides[k, -1], sides[k, 1], top, wanted, ranged) for k, each in enumerate(asked)}
    for found in out.values():
        for sentence in found.warnings:
            log.warning("%s", sentence)
    return out


def _refuse(model: Any, starts: Any, max_steps: Any, seed: Any) -> None:
    """Refuse what cannot be profiled.

    Raises
    ------
    InputError : naming what it is.
    """
    if not isinstance(model, ForwardModel):
        raise InputError(f"profile: model is {type(model).__name__}; a bayes_mfg.models.Calibration (or NeuralODE) is needed.")
    if jnp.zeros(()).dtype != jnp.float64:
        raise InputError('profile: double precision is needed; jax.config.update("jax_enable_x64", True) first.')
    if getattr(model, "branches", None) is not None:
        raise InputError("profile: the model has several branches, between which its likelihood jumps; profile one without.")
    for name, value, least in (("starts", starts, 1), ("max_steps", max_steps, 1), ("seed", seed, 0)):
        if not whole(value) or value < least:
            raise InputError(f"profile: {name} is {value!r}; a whole number of at least {least} is needed.")
    if not 1 <= coordinates(model).size <= MOST_DENSE:
        raise InputError(f"profile: the model has {coordinates(model).size} unknowns; from 1 to {MOST_DENSE} can be profiled.")


def _kept(model: ForwardModel, priors: Any) -> tuple[str, ...]:
    """Unknowns whose priors count.

    Raises
    ------
    InputError : for a name that is none of an unknown.
    """
    parts = list(blocks(model))
    if isinstance(priors, str) and priors == "all":
        return tuple(parts)
    if isinstance(priors, str) and priors == "paths":
        return tuple(n for n in parts if n in model.bound and (not model.bound[n].is_constant or _pooled(model, n)))
    names = None if isinstance(priors, str) or not isinstance(priors, Sequence) else list(priors)
    if names is None or any(name not in parts for name in names):
        raise InputError(f'profile: priors is {priors!r}; "paths", "all" or a list of {listing(parts)} is needed.')
    return tuple(n for n in parts if n in names)


def _pooled(model: ForwardModel, name: str) -> bool:
    """Whether the trajectories' values scatter around a shared one."""
    path = model.bound[name]
    return isinstance(path, PooledPath) and (path.partial or not path.inner.is_constant)


def _range(between: Any, lower: float, upper: float) -> tuple[float | None, float | None]:
    """Ends that a user gave.

    Raises
    ------
    InputError : for what is no rising pair inside the quantity's range.
    """
    if between is None:
        return None, None
    try:
        low, high = (float(end) for end in between)
    except (TypeError, ValueError) as error:
        raise InputError(f"profile: between is {between!r}; a smallest and a largest value are needed.") from error
    if not (lower < low < high < upper):
        raise InputError(f"profile: between is {between!r}; two rising values inside ({lower:g}, {upper:g}) are needed.")
    return low, high


def _holds(model: ForwardModel, asked: Quantity, ends: tuple[float | None, float | None], top: Held) -> None:
    """Refuse a range that does not hold the estimate, from which the search sets out.

    Raises
    ------
    InputError : naming both.
    """
    low, high = ends
    if low is None or high is None:
        return
    estimate = asked.from_line(asked.constraint(model.data)(top.z)[0])
    if not low <= estimate <= high:
        raise InputError(
            f"profile: between is {(low, high)!r}; a range that holds {estimate:.6g}, where {asked.name} is at the maximum, is needed."
        )


def _starts(model: ForwardModel, at: Any, starts: int, seed: int) -> list[np.ndarray]:
    """Points from which the maximum is searched for: the given one or the prior median, then draws of the prior."""
    space = coordinates(model)
    first, _, _ = located(model, at, "profile")
    keys = jax.random.split(jax.random.key(seed), max(starts - 1, 1))[: starts - 1]
    return [first, *(np.asarray(space.unconstrain(space.draw_prior(key))) for key in keys)]


def _maximum(target: Target, points: list[np.ndarray], max_steps: int) -> Held:
    """The highest maximum that any start leads to.

    Raises
    ------
    FitError : when none reaches one.
    """
    centre = coordinates(target.model).prior_median()
    ends = []
    for point in points:
        search = Expanded(target)
        begin = nearest_solvable(search, point, centre)
        if begin is None:
            continue
        value, end, _ = search.minimise(begin[0], max_steps)
        ends.append((value, end) if value <= begin[1] else (begin[1], begin[0]))
    if not ends:
        raise FitError("profile: no start reached parameters at which all equilibria were found; give one by at=...")
    value, z = min(ends, key=lambda end: end[0])
    search = Expanded(target)
    _, gradient, curvature = search.at(z)
    left = float(np.linalg.norm(square_root(curvature)[1].T @ gradient))
    return Held(z, value, left, curvature)


def _gathered(
    target: Target, asked: Quantity, below: Side, above: Side, top: Held, levels: tuple[float, ...], ranged: bool
) -> Profile:
    """The two directions as one profile, the maximum once; a profile that is higher by less than `BETTER` raises the maximum."""
    places = np.concatenate([below.places[:0:-1], above.places])
    heights = np.concatenate([below.heights[:0:-1], above.heights])
    locations = np.concatenate([below.locations[:0:-1], above.locations])
    least = float(heights.min())
    inside = 2.0 * (heights - least) <= chi2.ppf(levels[-1], 1)
    return Profile(
        quantity=asked.name,
        estimate=asked.from_line(above.places[0]),
        maximum=-least,
        values=np.array([asked.from_line(place) for place in places]),
        log_likelihood=-heights,
        sets={level: confidence(asked, below, above, least, level) for level in levels},
        priors=target.kept,
        locations=locations,
        coordinates=list(coordinates(target.model).names),
        ends=(below.reason, above.reason),
        failed_solves=target.failures + below.failures + above.failures,
        unsettled=unsettled(below, above),
        off=max(below.off, above.off),
        evaluations=target.evaluations + below.evaluations + above.evaluations,
        left=top.left,
        notes=(*notes(asked, (below, above), ranged), *_at_edges(target, locations[inside])),
    )


def _at_edges(target: Target, locations: np.ndarray) -> list[str]:
    """A sentence where numbers whose priors do not count come to an end of their support.

    Parameters
    ----------
    target : with the model.
    locations : unconstrained coordinates `(n, size)`, inside the sets.
    """
    space, parts = coordinates(target.model), blocks(target.model)
    kept = {int(k) for name in target.kept for k in parts[name]}
    told = []
    for name, shape in space.shapes.items():
        here = range(space.offsets[name], space.offsets[name] + int(np.prod(shape)))
        ends = [np.asarray(space.transforms[name](jnp.full(shape, end))) for end in (-jnp.inf, jnp.inf)]
        # Bounds on both sides only: how near to a single one is near depends on the unit. Shares have none of their own.
        if kept & set(here) or not np.all(np.isfinite(ends)) or np.shape(ends[0]) != tuple(shape):
            continue
        if np.abs(locations[:, here]).max(initial=0.0) > EDGE:
            low, high = (
                round(float(end), 12) for end in (np.min(ends), np.max(ends))
            )  # the transform stops just before its ends
            told.append(
                f"{name.split('/')[0]} comes to an end of its support, {number(low)} to {number(high)}, inside the sets: beyond it "
                "nothing was looked at, whatever the likelihood."
            )
    return told


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
    """One direction of one profile, as it travels to a worker."""

    asked: Any
    number: int
    sign: int
    levels: tuple[float, ...]
    limit: float | None
    kept: tuple[str, ...]
    top: Held
    max_steps: int


def _scanned(model: ForwardModel, job: _Job) -> Side:
    target = Target(model, job.kept)
    return scan(target, resolved(model, job.asked), job.top, job.sign, job.levels, job.limit, job.max_steps)


def _work(parcel: Parcel, job: _Job) -> Side:
    """What a worker does."""
    with ONE_AT_A_TIME:
        return _scanned(parcel.model, job)


def _done(model: ForwardModel, jobs: list[_Job], executor: concurrent.futures.Executor | None) -> Iterator[tuple[_Job, Side]]:
    """Directions as they are finished."""
    if executor is None:
        yield from ((job, _scanned(model, job)) for job in jobs)
        return
    parcel = Parcel(model)
    if isinstance(executor, concurrent.futures.ProcessPoolExecutor):
        travels(parcel, *jobs)
    running = {executor.submit(_work, parcel, job): job for job in jobs}
    try:
        for future in concurrent.futures.as_completed(running):
            yield running[future], future.result()
    finally:
        for future in running:
            future.cancel()
