"""One direction of a profile: steps along its tangent, held at each value by a search over all other unknowns, and where it crosses the levels."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2

from bayes_mfg.errors import InputError

from .identifiability_words import number
from .objective import square_root
from .point import NEAR
from .profile_quantity import Quantity
from .profile_result import ConfidenceSet
from .profile_target import Surface, Target

STEP, JUMP, BEYOND = 0.6, 1.5, 0.6
"""Change of the root of the deviance that a step aims at, the most that it may be, and how far past the largest level the search goes: in sds."""

FAST, LEAST = 1.5, 2e-3
"""The change that a step aims at below all levels, where a range was given, and the smallest step, in sds."""

MOST, MOST_WIDE = 30, 200
"""Steps of a direction, and of one over a range that was given."""

LINE, FAR = 20.0, 1000.0
"""How far to look: on a real line of logarithms a factor of `exp(20)`, elsewhere so many sds."""

SHARP, MOST_CUTS = 1e-3, 40
"""Distance from a level, in sds, at which its limit counts as found, or width of what holds a jump over it, and the most searches for one."""

BETTER = 1e-3
"""Rise above the maximum, in log likelihood, from which it was none.

Where the likelihood rises to the edge of what an unknown can be, every search ends before the supremum, by about its own tolerance. A rise below this
is taken for the height of the maximum instead (`Profile.maximum`); it moves no end of a 90 % set by more than `SHARP`.
"""

REACHED = "the level was reached"


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """A minimum of the target, over all unknowns or where the quantity is held.

    Attributes
    ----------
    z : `(size,)`.
    value : of the target.
    left : Newton step left, in sds.
    bent : curvature `(size, size)`, of the Lagrangian where held.
    """

    z: np.ndarray
    value: float
    left: float
    bent: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Side:
    """One direction of a profile.

    Attributes
    ----------
    places : on the quantity's real line, `(n,)`, from the maximum outwards.
    heights : of the target there, `(n,)`.
    locations : `(n, size)`.
    left : Newton steps left, `(n,)`.
    off : largest distance from the places.
    crossings : level -> places at which the profile crosses it.
    reason : why the search ended.
    evaluations, failures : of the target.
    jumps : pairs of neighbouring places between which the deviance jumps.
    vague : level -> pairs of places between which a crossing lies that could not be found more closely.
    finished : whether the search went as far as it was asked to.
    higher : a point above the maximum; the rest then is of no use.
    """

    places: np.ndarray
    heights: np.ndarray
    locations: np.ndarray
    left: np.ndarray
    off: float
    crossings: dict[float, list[float]]
    reason: str
    evaluations: int
    failures: int
    jumps: tuple[tuple[float, float], ...]
    vague: dict[float, list[tuple[float, float]]]
    finished: bool
    higher: np.ndarray | None


class _HigherError(Exception):
    """A point above the maximum was found."""

    def __init__(self, z: np.ndarray) -> None:
        super().__init__()
        self.z = z


def scan(
    target: Target, quantity: Quantity, top: Held, sign: int, levels: Sequence[float], limit: float | None, max_steps: int
) -> Side:
    """Follow the profile from the maximum in one direction.

    Parameters
    ----------
    target : what is minimised.
    quantity : what is held.
    top : the minimum over all unknowns.
    sign : -1 for falling and 1 for rising values.
    levels : of confidence, rising.
    limit : last value to look at; None for as far as the largest level and a little more.
    max_steps : of each search.

    Raises
    ------
    InputError : when the quantity does not move with any unknown at the maximum.
    """
    walk = _Walk(target, quantity, top, max_steps)
    try:
        reason = walk.out(sign, math.sqrt(float(chi2.ppf(levels[-1], 1))) + BEYOND, limit)
        crossings, vague = {}, {}
        for level in levels:
            crossings[level], vague[level] = walk.cross(math.sqrt(float(chi2.ppf(level, 1))))
        higher = None
    except _HigherError as found:
        reason, crossings, vague, higher = "", {}, {}, found.z
    rows = sorted(walk.rows, key=lambda row: sign * row[0])
    return Side(
        places=np.array([place for place, _ in rows]),
        heights=np.array([held.value for _, held in rows]),
        locations=np.stack([held.z for _, held in rows]),
        left=np.array([held.left for _, held in rows]),
        off=max(abs(walk.constraint(held.z)[0] - place) for place, held in rows),
        crossings=crossings,
        reason=reason,
        evaluations=target.evaluations,
        failures=target.failures,
        jumps=tuple(walk.jumps),
        vague=vague,
        finished=walk.finished,
        higher=higher,
    )


class _Walk:
    """The points found so far, in the order of the search: places with what holds there."""

    def __init__(self, target: Target, quantity: Quantity, top: Held, max_steps: int) -> None:
        self.target, self.quantity, self.top, self.max_steps = target, quantity, top, max_steps
        self.constraint = quantity.constraint(target.model.data)
        place, slope, _ = self.constraint(top.z)
        self.sd = float(np.linalg.norm(square_root(top.bent)[1].T @ slope))
        if not (np.isfinite(place) and np.isfinite(self.sd) and self.sd > 0):
            raise InputError(f"profile: {quantity.name} does not move with the unknowns, or is not finite, at the maximum.")
        self.rows: list[tuple[float, Held]] = [(place, top)]
        self.jumps: list[tuple[float, float]] = []
        self.finished = False

    def root(self, held: Held) -> float:
        """Root of the deviance: sds from the maximum where the likelihood is normal."""
        return math.sqrt(max(0.0, 2.0 * (held.value - self.top.value)))

    def hold(self, near: Held, place: float) -> Held | None:
        """The best where the quantity is at a place, searched for from a neighbour; None where there is no equilibrium, or the place is not reached.

        Raises
        ------
        _HigherError : when it is above the maximum.
        """
        surface = Surface(self.target, self.constraint, near.z, place, square_root(near.bent)[1])
        found = surface.minimum(self.max_steps)
        if found is None:
            return None
        z, value, left = found
        if value < self.top.value - BETTER:
            raise _HigherError(z)
        return Held(z, value, left, surface.bent(z))

    def out(self, sign: int, stop: float, limit: float | None) -> str:
        """Go outwards; why it ended."""
        begin = self.rows[0][0]
        transformed = math.isfinite(self.quantity.lower) or math.isfinite(self.quantity.upper)
        reach = LINE if transformed else FAR * self.sd
        end = begin + sign * reach if limit is None else self.quantity.onto_line(limit)
        step, wall, why = STEP * self.sd, math.inf, ""
        least = LEAST * self.sd
        while True:
            place, held = self.rows[-1]
            root, left = self.root(held), sign * (end - place)
            here = number(self.quantity.from_line(place))
            if limit is None and root >= stop:
                self.finished = True
                return REACHED
            if left <= 1e-9 * max(1.0, abs(end)):
                self.finished = True
                return (
                    f"the range that was given ends at {here}"
                    if limit is not None
                    else f"the profile is still above the level at {here}"
                )
            if len(self.rows) > (MOST if limit is None else MOST_WIDE):
                return f"{len(self.rows) - 1} steps were not enough, the last to {here}"
            # Where a range was given the way between two hills may be long and steep.
            aim, most = (STEP, JUMP) if root < stop else (max(FAST, 0.2 * (root - stop)), math.inf)
            step = min(max(step, least), left)
            if wall < math.inf:
                room = 0.5 * (wall - abs(place - begin))
                if room < min(least, left):
                    return f"{why} beyond {here}"
                step = min(step, room)
            failures = self.target.failures
            found = self.hold(held, place + sign * step)
            if found is None:
                wall = abs(place - begin) + step
                why = (
                    "no equilibrium was found"
                    if self.target.failures > failures
                    else "no unknowns that give the quantity a value were found"
                )
                continue
            rise = self.root(found) - root
            if rise > most and step > least:
                step *= 0.5
                continue
            if rise > most:
                self.jumps.append((place, place + sign * step))
            self.rows.append((place + sign * step, found))
            step *= min(max(aim / max(abs(rise), 1e-3), 0.3), 3.0)

    def cross(self, level: float) -> tuple[list[float], list[tuple[float, float]]]:
        """Places at which the root of the deviance crosses a level, each between two neighbours, and pairs around those not found closely."""
        rows = sorted(self.rows, key=lambda row: abs(row[0] - self.rows[0][0]))
        found, vague = [], []
        for (a, low), (b, high) in itertools.pairwise(rows):
            if (self.root(low) - level) * (self.root(high) - level) < 0:
                place, between = self._cut((a, low), (b, high), level)
                found.append(place)
                vague += [between] if between is not None else []
            elif self.root(high) == level:
                found.append(b)
        return found, vague

    def _cut(self, low: tuple[float, Held], high: tuple[float, Held], level: float) -> tuple[float, tuple[float, float] | None]:
        """The place between two others, one on each side of a level: by false position, and by halves where that stays on one side.

        Where the deviance jumps over the level, or is not found between the two, the place is the outer one of the two that are left, so that the set
        is not too narrow; they are given, too, where they are apart.
        """
        sides, shares = 0, (0.5, 0.25, 0.75, 0.1, 0.9)
        for _ in range(MOST_CUTS):
            gaps = [self.root(held) - level for _, held in (low, high)]
            if min(map(abs, gaps)) <= SHARP:
                return min((low, high), key=lambda row: abs(self.root(row[1]) - level))[0], None
            if abs(high[0] - low[0]) <= SHARP * self.sd:
                break
            first = 0.5 if abs(sides) >= 2 else gaps[0] / (gaps[0] - gaps[1])
            for share in (first, *shares):
                place = low[0] + share * (high[0] - low[0])
                found = self.hold(low[1] if share < 0.5 else high[1], place)
                if found is not None:
                    break
            else:
                break
            self.rows.append((place, found))
            gap = self.root(found) - level
            if gap * gaps[0] > 0:
                low, sides = (place, found), max(sides, 0) + 1
            else:
                high, sides = (place, found), min(sides, 0) - 1
        outer = max((low, high), key=lambda row: self.root(row[1]))[0]
        apart = abs(high[0] - low[0]) > SHARP * self.sd
        return outer, (min(low[0], high[0]), max(low[0], high[0])) if apart else None


def confidence(quantity: Quantity, below: Side, above: Side, top: float, level: float) -> ConfidenceSet:
    """The values between the crossings of a level at which the profile is above it.

    Parameters
    ----------
    quantity : of the profile.
    below, above : the two directions.
    top : height of the target at the maximum.
    level : of confidence.
    """
    places = np.concatenate([below.places, above.places])
    roots = np.sqrt(np.maximum(2.0 * (np.concatenate([below.heights, above.heights]) - top), 0.0))
    limit = math.sqrt(float(chi2.ppf(level, 1)))
    edges = sorted([*below.crossings[level], *above.crossings[level]])
    ends = [-math.inf, *edges, math.inf]
    kept: list[tuple[float, float]] = []
    for low, high in itertools.pairwise(ends):
        here = (places > low) & (places < high)
        if here.any() and np.median(roots[here]) <= limit:
            kept.append((max(low, float(places.min())), min(high, float(places.max()))))
    return ConfidenceSet(
        level,
        tuple((quantity.from_line(low), quantity.from_line(high)) for low, high in kept),
        bool(kept) and kept[0][0] == float(places.min()) and (not edges or kept[0][0] < edges[0]),
        bool(kept) and kept[-1][1] == float(places.max()) and (not edges or kept[-1][1] > edges[-1]),
    )


def unsettled(*sides: Side) -> int:
    """Number of values beside the maximum at which a search ended before its minimum."""
    return int(sum(np.sum(side.left[1:] > NEAR) for side in sides))


def notes(quantity: Quantity, sides: Sequence[Side], ranged: bool) -> tuple[str, ...]:
    """Sentences on ends of sets that are jumps, or uncertain, and on ranges that were not looked through."""

    def values(pair: tuple[float, float]) -> str:
        low, high = sorted(quantity.from_line(place) for place in pair)
        return f"{low:.6g} and {high:.6g}"

    told = []
    for side in sides:
        told += [
            f"Between {quantity.name} of {values(pair)} the profile jumps; a set that ends there ends at the jump."
            for pair in side.jumps
        ]
        for level, pairs in side.vague.items():
            told += [
                f"An end of the {100 * level:g} % set of {quantity.name} lies between {values(pair)}, where the profile was not found; the set "
                "reaches to the farther of the two."
                for pair in pairs
            ]
        if ranged and not side.finished:
            told.append(
                f"The range that was given for {quantity.name} was not looked through: {side.reason}; hills beyond were not seen."
            )
    return tuple(told)
