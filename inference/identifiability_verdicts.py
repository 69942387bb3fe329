"""Directions and verdicts, from whitened sensitivities and widths."""

import dataclasses

import numpy as np

from bayes_mfg.models import ForwardModel

from . import identifiability_words as words
from .identifiability_result import Direction, Verdict
from .linearised import Point, Rows, declared, logarithmic

ZERO = 1e-9
"""Singular value relative to the largest up to which a direction leaves no trace, in double precision."""

SLIGHT = 0.1
"""Singular value up to which a declared invariance that a time scheme has only to its own error is taken for one."""

ROUND = 1.1
"""Factor between prior sds by slopes and by draws from which a prior counts as far from normal; draws leave 2 %."""

CURVED = 1.1
"""Factor between widths within the linearised posterior from which the linearisation is not to be trusted."""


def directions(
    model: ForwardModel, point: Point, scale: np.ndarray, parts: dict[str, np.ndarray]
) -> list[tuple[Direction, np.ndarray]]:
    """All directions, the least informed first, each with its whitened coordinates; those that the game declares apart from the others."""
    score = point.score
    largest = float(np.linalg.norm(score, 2))
    zero = ZERO * largest
    known, names = np.zeros((len(score), 0)), []
    for some in declared(model, point.unknowns, point.found):
        most = max(1e-6 * largest, 0.0 if all(i.exact for i in some.group) else SLIGHT)
        for vector in without_trace(score, np.linalg.solve(scale, some.basis), known, most).T:
            known = np.concatenate([known, vector[:, None]], axis=1)
            told = words.listing([i.name for i in (some.used(scale @ vector) if len(some.group) > 1 else some.group)])
            names.append(f"{told[0].upper()}{told[1:]}: nothing that is observed changes, as the game declares.")
    complement = np.linalg.svd(known, full_matrices=True)[0][:, known.shape[1] :]
    _, values, turn = np.linalg.svd(score @ complement, full_matrices=True)
    values = np.concatenate([values, np.zeros(len(turn) - len(values))])
    vectors = complement @ turn.T
    nothing = values <= zero
    found = [
        _direction(model, point, "invariant", known[:, k], float(np.linalg.norm(score @ known[:, k])), scale, parts, names[k])
        for k in range(known.shape[1])
    ]
    for vector in _apart(vectors[:, nothing], parts).T:
        found.append(_direction(model, point, "null", vector, float(np.linalg.norm(score @ vector)), scale, parts))
    for k in np.flatnonzero(~nothing)[::-1]:
        kind = "informed" if values[k] > 1.0 else "weak"
        found.append(_direction(model, point, kind, vectors[:, k], float(values[k]), scale, parts))
    return found


def without_trace(score: np.ndarray, reached: np.ndarray, known: np.ndarray, most: float) -> np.ndarray:
    """Orthonormal basis of what a space `reached` has beyond `known` that moves what is observed by at most so much."""
    new = reached - known @ (known.T @ reached)
    left, strength, _ = np.linalg.svd(new, full_matrices=False)
    left = left[:, strength > 1e-6 * np.linalg.norm(reached, 2)]
    _, values, turn = np.linalg.svd(score @ left, full_matrices=True)
    values = np.concatenate([values, np.zeros(len(turn) - len(values))])
    return left @ turn[values <= most].T


def _apart(basis: np.ndarray, parts: dict[str, np.ndarray]) -> np.ndarray:
    """Another orthonormal basis of the same space, of directions of one unknown, or of two, as far as there are any."""
    kept = []
    names = list(parts)
    for group in [(n,) for n in names] + [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]:
        if not basis.shape[1]:
            break
        inside = np.concatenate([parts[n] for n in group])
        _, strength, turn = np.linalg.svd(basis[inside], full_matrices=True)
        strength = np.concatenate([strength, np.zeros(len(turn) - len(strength))])
        turned = basis @ turn.T
        kept.append(turned[:, strength > 1.0 - 1e-8])
        basis = turned[:, strength <= 1.0 - 1e-8]
    return np.concatenate([*kept, basis], axis=1)


def _direction(
    model: ForwardModel,
    point: Point,
    kind: str,
    vector: np.ndarray,
    value: float,
    scale: np.ndarray,
    parts: dict[str, np.ndarray],
    sentence: str | None = None,
) -> tuple[Direction, np.ndarray]:
    shares = {name: float(np.sum(vector[place] ** 2)) for name, place in parts.items()}
    moves, profiles, size = {}, {}, 0.0
    for name, unknown in point.unknowns.items():
        moved = unknown.slopes @ scale @ vector
        prior = np.linalg.norm(unknown.slopes @ scale, axis=1)
        sized = np.divide(np.abs(moved), prior, out=np.zeros_like(moved), where=prior > 0).reshape(unknown.values.shape)
        size = max(size, float(sized.max(initial=0.0)))
        moves[name] = moved.reshape(unknown.values.shape)
        others = tuple(k for k in range(sized.ndim) if k != unknown.axis)
        profiles[name] = None if unknown.axis is None else sized.max(axis=others)
    # The sign is free: what the direction moves most goes up.
    most = max(shares, key=lambda n: shares[n])
    if np.sum(moves[most]) < 0:
        moves, vector = {name: -moved for name, moved in moves.items()}, -vector
    if sentence is None:
        values = {name: unknown.values for name, unknown in point.unknowns.items()}
        axes = {name: unknown.axis for name, unknown in point.unknowns.items()}
        text = words.change(moves, values, shares, profiles, axes, np.asarray(model.grid.times))
        sentence = f"{text[0].upper()}{text[1:]}: {words.outcome(kind, 1.0 / np.sqrt(1.0 + value**2))}."
    drawn = {name: profile for name, profile in profiles.items() if profile is not None}
    return Direction(value, kind, size, sentence, shares, moves, drawn), vector


def verdicts(
    model: ForwardModel,
    point: Point,
    curved: dict[str, np.ndarray],
    found: list[tuple[Direction, np.ndarray]],
    scale: np.ndarray,
    parts: dict[str, np.ndarray],
    spread: dict[str, np.ndarray],
) -> dict[str, Verdict]:
    """One verdict for every unknown; `spread` are prior sds from draws."""
    empty = [(direction, vector) for direction, vector in found if direction.kind in ("invariant", "null")]
    early = np.asarray(model.grid.times) <= last_datum(model) + 1e-9
    out = {}
    for name, width in point.widths.items():
        unknown = point.unknowns[name]
        shape, slopes = unknown.values.shape, unknown.slopes @ scale
        prior = np.where(np.isfinite(width.posterior), np.sum(slopes**2, axis=1), np.nan)
        wider = np.maximum(_local_over_drawn(model, name, unknown, prior, spread), 1.0)
        wider = np.where(wider > ROUND, wider, 1.0).ravel()
        ratio, alone = (np.minimum(np.sqrt(w) * wider, 1.0) for w in (width.posterior, width.alone))
        traceless = [(d, (slopes @ vector) ** 2 / prior) for d, vector in empty]
        idle = sum((x for d, x in traceless if d.kind == "invariant"), np.zeros(len(prior))) > 1.0 - 1e-6
        seen = np.ones(shape, bool)
        if unknown.axis is not None:
            seen &= early.reshape([-1 if k == unknown.axis else 1 for k in range(seen.ndim)])
        later, seen = ~seen.ravel(), seen.ravel()
        known = ~np.isfinite(width.posterior) & _held(spread.get(name), len(prior))
        silent = idle | known
        counted = seen & ~silent if (seen & ~silent).any() else seen
        verdict = words.overall(ratio[counted], width.sway[counted])
        cause, partners, floor = "", [], 0.0
        open_ = counted & np.isfinite(ratio) & ~((ratio <= words.IDENTIFIED) & (width.sway <= words.IDENTIFIED))
        if verdict in ("weak", "prior-driven") and open_.any():
            size = float(np.mean(width.posterior[open_]))
            lost = [(d, float(np.mean(x[open_]))) for d, x in traceless]
            apart = float(np.mean(width.alone[open_]))
            if sum(x for _, x in lost) > 0.5 * size:
                shares = {kind: sum(x for d, x in lost if d.kind == kind) for kind in ("invariant", "null")}
                cause = max(shares, key=lambda kind: shares[kind])
                floor = float(np.sqrt(shares["invariant"]))
                strongest = max(lost, key=lambda pair: pair[1])[0]
                partners = [n for n in strongest.shares if n != name and strongest.shares[n] >= words.SHARE]
            elif apart <= 0.5 * size:
                cause = "confounded"
                left = {other: float(np.mean(given[open_])) for other, given in width.given.items()}
                partners = [n for n in sorted(left, key=lambda n: left[n]) if left[n] <= 0.5 * size][:3]
            else:
                cause = "little seen"
        judged = Judged(
            name,
            unknown,
            verdict,
            cause,
            tuple(partners),
            ratio,
            width.sway,
            alone,
            counted,
            later,
            idle & seen & ~counted,
            known & seen & ~counted,
            floor,
        )
        out[name] = Verdict(
            verdict=verdict,
            cause=cause,
            partners=judged.partners,
            ratio=ratio.reshape(shape),
            sway=width.sway.reshape(shape),
            alone=alone.reshape(shape),
            curved=curved[name].reshape(shape),
            counted=counted.reshape(shape),
            axis=unknown.axis,
            reason=reason(np.asarray(model.grid.times), judged, [d for d, _ in empty]),
        )
    return out


def last_datum(model: ForwardModel) -> float:
    """Last time at which anything is observed that is not masked."""
    mask = np.asarray(model.data.record.mask)
    seen = mask.any(axis=tuple(k for k in range(mask.ndim) if k != 1))
    times = np.asarray(model.population.times, float)
    return float(times[seen][-1]) if seen.any() else float(times[-1])


def _held(drawn: np.ndarray | None, size: int) -> np.ndarray:
    """Entries that every draw of the prior leaves where they are, such as initial shares that an experimenter set."""
    return np.zeros(size, bool) if drawn is None else drawn.ravel() <= 1e-9 * drawn.max(initial=0.0)


def _local_over_drawn(
    model: ForwardModel, name: str, unknown: Rows, prior: np.ndarray, spread: dict[str, np.ndarray]
) -> np.ndarray:
    """Prior sd by the slopes at the point over that of draws, entry by entry; 1 where either is not known."""
    drawn = spread.get(name)
    if drawn is None:
        return np.ones(len(prior))
    local = np.sqrt(prior) / (np.abs(unknown.values.ravel()) if logarithmic(model, name, unknown.values) else 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = local / drawn.ravel()
    return np.where(np.isfinite(found) & (found > 0), found, 1.0)


def uneven(model: ForwardModel, unknowns: dict[str, Rows], scale: np.ndarray, spread: dict[str, np.ndarray]) -> list[str]:
    """Warnings of priors whose sd at the point is not that of their draws."""
    told = []
    for name, unknown in unknowns.items():
        prior = np.sum((unknown.slopes @ scale) ** 2, axis=1)
        factor = _local_over_drawn(model, name, unknown, prior, spread)
        moving = factor[prior > 0] if (prior > 0).any() else factor  # what is known has none
        worst = float(np.exp(np.median(np.log(moving))))
        if max(worst, 1.0 / worst) > ROUND:
            told.append(
                f"The prior of {name} is far from normal in its coordinates: linearised here its sd is {words.number(worst)} of that of "
                f"its draws, so that the widths of {name} are rough{', and taken as larger by this factor' if worst > 1 else ''}."
            )
    return told


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """What a sentence about an unknown is made of; arrays flat."""

    name: str
    unknown: Rows
    verdict: str
    cause: str
    partners: tuple[str, ...]
    ratio: np.ndarray
    sway: np.ndarray
    alone: np.ndarray
    counted: np.ndarray
    later: np.ndarray
    idle: np.ndarray
    known: np.ndarray
    floor: float


def _over_time(unknown: Rows, values: np.ndarray, counted: np.ndarray) -> np.ndarray | None:
    """Root mean square over all that is counted but time; NaN at times of which nothing is."""
    if unknown.axis is None:
        return None
    shape = unknown.values.shape
    others = tuple(k for k in range(len(shape)) if k != unknown.axis)
    some = counted & np.isfinite(values)
    total = np.where(some, values, 0.0).reshape(shape) ** 2
    number = some.reshape(shape).sum(axis=others)
    return np.sqrt(np.where(number > 0, total.sum(axis=others) / np.maximum(number, 1), np.nan))


def reason(times: np.ndarray, told: Judged, empty: list[Direction]) -> str:
    """The sentence."""
    name, cause, partners = told.name, told.cause, list(told.partners)
    said = f"{name}: {told.verdict}"
    if told.verdict == "unknown":
        return f"{said}, because it does not move with its coordinates at this point; give another one by at=..."
    ratio = told.ratio[told.counted]
    low, middle, high = (words.number(float(f(ratio))) for f in (np.nanmin, np.nanmedian, np.nanmax))
    line, sway = (_over_time(told.unknown, x, told.counted) for x in (told.ratio, told.sway))
    mixed = False
    if line is not None and sway is not None:
        grades = [words.grade(r, s) if np.isfinite(r) else "" for r, s in zip(line, sway, strict=True)]
        mixed = len(set(grades) - {""}) > 1
        said += f" as a whole; {words.along(times, grades)}" if mixed else ""
    said += f"; the posterior's sd is {middle} of the prior's" + (f" (median; {low} to {high})" if low != high else "")
    if cause == "invariant":
        names = {d.sentence.split(": nothing")[0] for d in empty if d.kind == "invariant" and d.shares[name] >= words.SHARE}
        what = "; ".join(sorted(n[0].lower() + n[1:] for n in names))
        said += f", and no data of any kind can lower it below {words.number(told.floor)}: {what}"
    elif cause == "null":
        said += (
            f", because {words.listing([name, *partners])} can move together without a trace in what is observed"
            if partners
            else f", because nothing that is observed moves with it{' where it is prior-driven' if mixed else ''}"
        )
    elif cause == "confounded":
        known = words.number(float(np.nanmedian(told.alone[told.counted])))
        whom = words.listing(partners) if partners else "combinations of the others"
        said += f", because it is confounded with {whom}; were all others known it would be {known}"
    elif cause == "little seen":
        said += f", because what is observed hardly moves with it{' there' if mixed else ''}"
    if told.verdict == "weak" and not mixed and float(np.nanmedian(ratio)) <= words.IDENTIFIED:
        said += "; what is left of it hangs on priors"
    if told.idle.any():
        said += f"; {int(told.idle.sum())} of {told.ratio.size} entries do not enter and are not counted"
    if told.known.any():
        said += f"; {int(told.known.sum())} of {told.ratio.size} entries are known and not counted"
    if told.later.any():
        after = told.ratio[told.later]
        if np.isfinite(after).any():
            least, most = words.number(float(np.nanmin(after))), words.number(float(np.nanmax(after)))
            said += f"; after the last datum, which is not counted, it is {least}" + (f" to {most}" if least != most else "")
    return said + "."


def bent(model: ForwardModel, name: str, unknown: Rows, verdict: Verdict) -> str:
    """Where the linearisation is not to be trusted, in words."""
    worst = words.number(float(np.nanmax(verdict.curved)))
    line = None
    if unknown.axis is not None:
        others = tuple(k for k in range(verdict.curved.ndim) if k != unknown.axis)
        line = (verdict.curved > CURVED).any(axis=others)
    where = ""
    if line is not None and not line.all():
        places = np.flatnonzero(line)
        where = " " + words.span(np.asarray(model.grid.times), int(places[0]), int(places[-1]))
    return (
        f"The linearisation is not to be trusted for {name}{where}: within the linearised posterior its width varies by a factor of up to {worst}; "
        "fit simulated data to know."
    )
