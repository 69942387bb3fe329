"""Directions and verdicts, from whitened sensitivities and widths."""

import jax.numpy as jnp
import numpy as np

from bayes_mfg.models import ForwardModel

from . import identifiability_words as words
from .identifiability_result import Direction, Verdict
from .linearised import Point, Rows, Widths, declared

ZERO = 1e-9
"""Singular value relative to the largest up to which a direction leaves no trace; single precision: `ZERO_IN_SINGLE`."""

ZERO_IN_SINGLE = 1e-4

SLIGHT = 0.1
"""Singular value up to which a declared invariance that a time scheme has only to its own error is taken for one."""

CURVED = 1.1
"""Factor between widths within the linearised posterior from which the linearisation is not to be trusted."""


def directions(
    model: ForwardModel, point: Point, score: np.ndarray, scale: np.ndarray, parts: dict[str, np.ndarray]
) -> list[tuple[Direction, np.ndarray]]:
    """All directions, the least informed first, each with its whitened coordinates; those that the game declares apart from the others."""
    largest = float(np.linalg.norm(score, 2))
    zero = (ZERO if jnp.zeros(()).dtype == jnp.float64 else ZERO_IN_SINGLE) * largest
    known, names = np.zeros((len(score), 0)), []
    for invariance, basis in declared(model, point.unknowns, point.found):
        white = np.linalg.solve(scale, basis)
        new = white - known @ (known.T @ white)
        left, strength, _ = np.linalg.svd(new, full_matrices=False)
        left = left[:, strength > 1e-6 * np.linalg.norm(white, 2)]
        for vector in left.T:
            strength_of = float(np.linalg.norm(point.score @ vector))
            if strength_of <= (1e-6 * largest if invariance.exact else max(1e-6 * largest, SLIGHT)):
                known = np.concatenate([known, vector[:, None]], axis=1)
                names.append(
                    f"{invariance.name[0].upper()}{invariance.name[1:]}: nothing that is observed changes, as the game declares."
                )
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
        text = words.change(moves, values, shares, profiles, np.asarray(model.grid.times))
        sentence = f"{text[0].upper()}{text[1:]}: {words.outcome(kind, 1.0 / np.sqrt(1.0 + value**2))}."
    drawn = {name: profile for name, profile in profiles.items() if profile is not None}
    return Direction(value, kind, size, sentence, shares, moves, drawn), vector


def verdicts(
    model: ForwardModel,
    unknowns: dict[str, Rows],
    average: dict[str, Widths],
    curved: dict[str, np.ndarray],
    found: list[tuple[Direction, np.ndarray]],
    scale: np.ndarray,
    parts: dict[str, np.ndarray],
) -> dict[str, Verdict]:
    """One verdict for every unknown."""
    empty = [(direction, vector) for direction, vector in found if direction.kind in ("invariant", "null")]
    out = {}
    for name, width in average.items():
        unknown = unknowns[name]
        shape, slopes = unknown.values.shape, unknown.slopes @ scale
        prior = np.where(np.isfinite(width.posterior), np.sum(slopes**2, axis=1), np.nan)
        ratio = np.sqrt(width.posterior).reshape(shape)
        verdict = words.overall(ratio)
        cause, partners = "", []
        if verdict != "identified":
            open_ = np.sqrt(width.posterior) > words.IDENTIFIED
            size = float(np.mean(width.posterior[open_]))
            traceless = [float(np.mean(((slopes @ vector) ** 2 / prior)[open_])) for _, vector in empty]
            apart = float(np.mean(width.alone[open_]))
            if sum(traceless) > 0.5 * size:
                shares = {
                    kind: sum(x for x, (d, _) in zip(traceless, empty, strict=True) if d.kind == kind)
                    for kind in ("invariant", "null")
                }
                cause = max(shares, key=lambda kind: shares[kind])
                strongest = empty[int(np.argmax(traceless))][0]
                partners = [n for n in strongest.shares if n != name and strongest.shares[n] >= words.SHARE]
            elif apart <= 0.5 * size:
                cause = "confounded"
                left = {other: float(np.mean(given[open_])) for other, given in width.given.items()}
                partners = [n for n in sorted(left, key=lambda n: left[n]) if left[n] <= 0.5 * (size + min(left.values()))][:3]
            else:
                cause = "little seen"
        alone = np.sqrt(width.alone).reshape(shape)
        reason = _reason(model, name, unknown, verdict, cause, partners, ratio, alone, empty)
        out[name] = Verdict(verdict, cause, tuple(partners), ratio, alone, curved[name].reshape(shape), reason)
    return out


def _over_time(unknown: Rows, ratio: np.ndarray) -> np.ndarray | None:
    """Root mean square over all but time."""
    if unknown.axis is None:
        return None
    others = tuple(k for k in range(ratio.ndim) if k != unknown.axis)
    return np.sqrt(np.mean(ratio**2, axis=others))


def _reason(
    model: ForwardModel,
    name: str,
    unknown: Rows,
    verdict: str,
    cause: str,
    partners: list[str],
    ratio: np.ndarray,
    alone: np.ndarray,
    empty: list[tuple[Direction, np.ndarray]],
) -> str:
    low, middle, high = (words.number(float(f(ratio))) for f in (np.nanmin, np.nanmedian, np.nanmax))
    said = f"{name}: {verdict}"
    line = _over_time(unknown, ratio)
    mixed = line is not None and len({words.grade(r) for r in line if np.isfinite(r)}) > 1
    if line is not None and mixed:
        said += f" as a whole; {words.along(np.asarray(model.grid.times), line)}"
    said += f"; the posterior's sd is {middle} of the prior's" + (f" ({low} to {high})" if low != high else "")
    if cause == "invariant":
        names = {d.sentence.split(": nothing")[0] for d, _ in empty if d.kind == "invariant" and d.shares[name] >= words.SHARE}
        said += f", and no data can lower it: {'; '.join(sorted(n[0].lower() + n[1:] for n in names))}"
    elif cause == "null":
        said += (
            f", because {words.listing([name, *partners])} can move together without a trace in what is observed"
            if partners
            else ", because nothing that is observed moves with it"
        )
    elif cause == "confounded":
        known = words.number(float(np.nanmedian(alone)))
        said += f", because it is confounded with {words.listing(partners)}; were all others known it would be {known}"
    elif cause == "little seen":
        said += f", because what is observed hardly moves with it{' there' if mixed else ''}"
    return said + "."


def bent(model: ForwardModel, name: str, unknown: Rows, verdict: Verdict) -> str:
    """Where the linearisation is not to be trusted, in words."""
    worst = words.number(float(np.nanmax(verdict.curved)))
    line = None
    if unknown.axis is not None:
        others = tuple(k for k in range(verdict.curved.ndim) if k != unknown.axis)
        line = verdict.curved.max(axis=others) > CURVED
    where = ""
    if line is not None and not line.all():
        places = np.flatnonzero(line)
        where = " " + words.span(np.asarray(model.grid.times), int(places[0]), int(places[-1]))
    return (
        f"The linearisation is not to be trusted for {name}{where}: within the linearised posterior its width varies by a factor of up to {worst}; "
        "fit simulated data to know."
    )
