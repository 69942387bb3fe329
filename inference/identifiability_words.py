"""What directions and widths mean, in sentences."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

IDENTIFIED, PRIOR_DRIVEN = 0.3, 0.8
"""Limits of an unknown that is identified, and above which the prior decides.

In a linear model a prior mean that is one prior sd off - of this unknown or of others, see `linearised._sway` - moves the estimate by at most the
sway, in posterior sds. Up to 0.3 that raises the root mean square error by less than 5 %, `sqrt(1 + 0.3^2)`: an unknown is identified where both
its sway and its ratio of posterior to prior sd are at most that. Above a ratio of 0.8 the data hold less than 0.6 of the prior's information, `1 /
r^2 - 1`: the prior outweighs them, and the report of a fit, too, speaks of "prior-driven" there. Own derivation.
"""

MOSTLY = 0.9
"""Share of times and entries that decide a verdict."""

SHARE = 0.01
"""Share of a direction, in squared prior sds, from which an unknown is named."""


def number(x: float) -> str:
    """A number for people."""
    return f"{x:.3g}"


def listing(names: Sequence[str]) -> str:
    """Names joined by commas and a final "and"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def grade(ratio: float, sway: float) -> str:
    """Verdict on one ratio of sds, and on what other priors would move; neither is ever taken for granted."""
    if not np.isfinite(ratio) or not np.isfinite(sway):
        return "unknown"
    return "identified" if max(ratio, sway) <= IDENTIFIED else "prior-driven" if ratio > PRIOR_DRIVEN else "weak"


def overall(ratios: np.ndarray, sways: np.ndarray) -> str:
    """Verdict on the ratios of all times and entries of one unknown; those that are not known are not identified."""
    grades = [grade(r, s) for r, s in zip(ratios, sways, strict=True)]
    if grades.count("unknown") == len(grades):
        return "unknown"
    for verdict in ("identified", "prior-driven"):
        if grades.count(verdict) >= MOSTLY * len(grades):
            return verdict
    return "weak"


def span(times: np.ndarray, first: int, last: int) -> str:
    """Times from one place on the grid to another, in words."""
    if first == 0 and last == len(times) - 1:
        return "at all times"
    if first == last:
        return f"at t = {number(times[first])}"
    if first == 0:
        return f"until t = {number(times[last])}"
    if last == len(times) - 1:
        return f"from t = {number(times[first])} on"
    return f"from t = {number(times[first])} to {number(times[last])}"


def along(times: np.ndarray, grades: Sequence[str]) -> str:
    """Where in time an unknown is what, from its grades at each time, empty where there is none."""
    edges = [k for k in range(len(grades)) if k == 0 or grades[k] != grades[k - 1]] + [len(grades)]
    runs = [(grades[a], a, b - 1) for a, b in itertools.pairwise(edges) if grades[a]]
    if len(runs) > 5:
        known = [g for g in grades if g]
        return ", ".join(f"{name} at {100 * known.count(name) / len(known):.0f} % of the times" for name in dict.fromkeys(known))
    return ", ".join(f"{name} {span(times, a, b)}" for name, a, b in runs)


def active(sizes: np.ndarray) -> tuple[int, int]:
    """First and last place at which a change is more than half of its largest."""
    places = np.flatnonzero(sizes > 0.5 * sizes.max(initial=0.0))
    return (int(places[0]), int(places[-1])) if places.size else (0, len(sizes) - 1)


def change(
    moves: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
    shares: Mapping[str, float],
    profiles: Mapping[str, np.ndarray | None],
    axes: Mapping[str, int | None],
    times: np.ndarray,
) -> str:
    """One direction in words.

    Parameters
    ----------
    moves, values : of every unknown, what one prior sd along the direction adds, and the value, of one shape.
    shares : squared part of the direction that is the unknown's.
    profiles : sizes of the change in prior sds at each time, None where the unknown has none.
    axes : number of the axis of time in the values, None where the unknown has none.
    times : the grid's.
    """
    named = sorted((n for n in shares if shares[n] >= SHARE), key=lambda n: -shares[n])
    named = named or sorted(shares, key=lambda n: -shares[n])[:1]
    varying = [profile for name in named if (profile := profiles[name]) is not None]
    where = ""
    if varying:
        first, last = (f(ends) for f, ends in zip((min, max), zip(*(active(v) for v in varying), strict=True), strict=True))
        where = span(times, first, last)
    if len(named) == 1:
        name = named[0]
        turns = _turns(moves[name], axis) if (axis := axes[name]) is not None else 0
        if turns:
            return f"{name} {'up and then down' if turns == 1 else f'up and down, turning {turns} times'}, most of it {where}"
        mixed = moves[name].size > 1 and profiles[name] is None and not _sign(moves[name])
        return f"entries of {name} against each other" if mixed else f"{name} {where or 'alone'}"
    more = f" (and {len(named) - 4} more)" if len(named) > 4 else ""
    relative = [moves[n] / np.where(values[n] == 0, np.nan, values[n]) for n in named]
    every = np.concatenate([np.ravel(r) for r in relative])
    if np.isfinite(every).all() and np.ptp(every) <= 0.05 * np.abs(every).max():
        return f"{listing(named)} times a common factor"
    signs = [_sign(moves[n]) for n in named]
    up, down = ([n for n, s in zip(named, signs, strict=True) if s == want] for want in (signs[0] or 1.0, -(signs[0] or 1.0)))
    rest = [n for n in named if n not in up and n not in down]
    parts = []
    if up and down:
        parts.append(f"{listing(up[:4])} and {listing(down[:4])} trade off")
    elif len(up) > 1:
        parts.append(f"{listing(up[:4])} rise together")
    elif up:
        parts.append(f"{up[0]} moves")
    if rest:
        parts.append(f"{listing(rest[:4])} up and down")
    return f"{' with '.join(parts)}{more}{' ' + where if where else ''}"


def _sign(moved: np.ndarray) -> float:
    """Sign of a change, 0 where it goes both ways."""
    total, size = float(np.sum(moved)), float(np.sum(np.abs(moved)))
    return float(np.sign(total)) if abs(total) > 0.5 * size else 0.0


def _turns(moved: np.ndarray, axis: int) -> int:
    """Changes of sign along time, of lobes that count; of the trajectory and entry that moves most."""
    lines = np.moveaxis(moved, axis, -1).reshape(-1, moved.shape[axis])
    line = lines[int(np.argmax(np.sum(lines**2, axis=1)))]
    signs = np.sign(line[np.abs(line) > 0.1 * np.abs(line).max(initial=0.0)])
    return int(np.sum(signs[1:] != signs[:-1]))


def outcome(kind: str, ratio: float) -> str:
    """What the data do to a direction."""
    if kind in ("invariant", "null"):
        return "nothing that is observed changes"
    if kind == "weak":
        percent = 100 * (1 - ratio)
        return f"the data take {f'{percent:.0f}' if percent >= 0.5 else 'less than 1'} % off the prior's sd"
    return f"the data leave {number(ratio)} of the prior's sd"
