"""Linearised widths against those of a fit's draws: where the linearisation can be believed after the fact."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pandas as pd
from arviz_stats.base import array_stats

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel

from . import identifiability_words as words
from .coordinates import coordinates, potential
from .errors import FitError
from .identifiability import identifiability
from .linearised import logarithmic
from .point import Mode, find_mode
from .pointwise import needed
from .report_stats import data_end
from .result import Fit

AGREES = 0.1
"""Relative difference of two sds up to which they are called the same."""

LEAST_DRAWS = 100
"""Draws from which an sd is taken."""

HEIGHTS = 20
"""Draws whose potential is held against the mode's."""


@dataclasses.dataclass(frozen=True, eq=False)
class LinearWidths:
    """Posterior sds by linearisation at the mode, and those of the draws.

    Attributes
    ----------
    times : of paths, `(T,)`, up to the last datum.
    linear, drawn : unknown -> sd, of logarithms of what is positive and has no upper bound; `(T, ...)` of paths, of the unknown's shape elsewhere.
    error : unknown -> Monte Carlo standard error of the drawn sd, relative to it, of the same shape.
    paths : unknowns that move along the times.

    Entries that do not move, such as a diagonal that does not enter, have no ratio (NaN); shares and sentences leave them out.
    """

    times: np.ndarray
    linear: dict[str, np.ndarray]
    drawn: dict[str, np.ndarray]
    error: dict[str, np.ndarray]
    paths: tuple[str, ...] = ()

    @property
    def ratio(self) -> dict[str, np.ndarray]:
        """Unknown -> linearised over drawn sd."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = {name: np.asarray(sd / self.drawn[name]) for name, sd in self.linear.items()}
        return {name: np.where(np.isfinite(ratio) & (ratio > 0), ratio, np.nan) for name, ratio in ratios.items()}

    def agrees(self, name: str) -> np.ndarray:
        """Whether the two sds of an unknown differ by at most 10 %, entry by entry; not so where one is not known."""
        return np.asarray(np.abs(self.ratio[name] - 1.0) <= AGREES)

    def table(self) -> pd.DataFrame:
        """One row per unknown.

        Columns: `share`, of entries at which the two agree; `least`, `median` and `most` of linearised over drawn sd; `error`, the largest Monte
        Carlo error of a drawn sd, relative to it.
        """
        rows = {}
        for name, ratio in self.ratio.items():
            known = ratio[np.isfinite(ratio)]
            rows[name] = {
                "share": float(self.agrees(name)[np.isfinite(ratio)].mean()) if known.size else np.nan,
                "least": float(known.min()) if known.size else np.nan,
                "median": float(np.median(known)) if known.size else np.nan,
                "most": float(known.max()) if known.size else np.nan,
                "error": self._noisy(name),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("unknown")

    @property
    def sentences(self) -> list[str]:
        """One sentence for every unknown: where the linearised sd is that of the draws, and where it is not."""
        told = []
        for name, ratio in self.ratio.items():
            said, missing = f"{name}: ", ~np.isfinite(ratio)
            if missing.all():
                told.append(f"{said}no sd to compare.")
                continue
            if (self.agrees(name) | missing).all():
                said += "the linearised sd is that of the draws within 10 %"
                said += " at all times" if self._along(name) else ""
            elif self._along(name):
                flat = ratio.reshape(len(self.times), -1)
                off = np.abs(np.log(flat))
                worst = flat[np.arange(len(flat)), np.where(np.isfinite(off), off, -1.0).argmax(axis=1)]
                grades = [
                    "not known"
                    if np.isnan(r)
                    else "too narrow"
                    if r < 1 - AGREES
                    else "too wide"
                    if r > 1 + AGREES
                    else "right within 10 %"
                    for r in worst
                ]
                said += f"the linearised sd is {words.along(self.times, grades)}; it is from {words.number(np.nanmin(ratio))} to "
                said += f"{words.number(np.nanmax(ratio))} of that of the draws"
            else:
                shown = [words.number(float(r)) for r in ratio[~missing][:6]]
                more = f" (and of {int((~missing).sum()) - 6} entries more)" if (~missing).sum() > 6 else ""
                said += f"the linearised sd is {words.listing(shown)} of that of the draws{more}"
            if missing.any():
                said += f"; {int(missing.sum())} of {ratio.size} entries have no sd to compare"
            noisy = self._noisy(name)
            told.append(said + (f" (known to {100 * noisy:.0f} % only)." if noisy > AGREES / 2 else "."))
        return told

    def _noisy(self, name: str) -> float:
        """The largest Monte Carlo error of an unknown's sds; NaN where there is none."""
        errors = np.asarray(self.error[name])[np.isfinite(self.error[name])]
        return float(errors.max()) if errors.size else np.nan

    def _along(self, name: str) -> bool:
        return name in self.paths and len(self.times) > 1

    def __repr__(self) -> str:
        return f"LinearWidths({', '.join(f'{name}: {share:.0%} within 10 %' for name, share in self.table()['share'].items())})"


def linear_widths(fit: Fit) -> LinearWidths:
    """Hold the linearised posterior of `identifiability`, at the mode, against the draws of a fit.

    Its widths are right where the posterior is narrow; where it is wide nothing but draws can tell. Unknowns that trajectories have for themselves
    are left out.

    Parameters
    ----------
    fit : a fit by nuts, svi or ensemble, with its model.

    Returns
    -------
    LinearWidths

    Raises
    ------
    InputError : for a fit without its model, or with fewer than 100 draws.
    FitError : when no mode is found near the draws: the search does not converge, ends where the curvature is flat or negative, farther from the
        draws than they are from one another, or where the density is below that of most of them.
    """
    if not isinstance(fit, Fit):
        raise InputError(f"linear_widths: fit is {type(fit).__name__}; a fit is needed.")
    model = needed(fit, "linear_widths")
    flat = fit.tree["unconstrained_posterior"]["latent"].to_numpy()
    if flat.shape[0] * flat.shape[1] < LEAST_DRAWS:
        raise InputError(f"linear_widths: the fit has {flat.shape[0] * flat.shape[1]} draws; at least {LEAST_DRAWS} are needed.")
    middle = np.median(flat.reshape(-1, flat.shape[-1]), axis=0)
    mode = find_mode(model, starts=1, start=middle, progress=False)
    _refuse_far(model, mode, flat.reshape(-1, flat.shape[-1]))
    found = identifiability(model, mode.location, checked=0, progress=False)
    until = data_end(fit.tree)
    kept = found.times <= (np.inf if until is None else until + 1e-9)
    posterior = fit.tree["posterior"].to_dataset()
    linear, drawn, error, paths = {}, {}, {}, []
    centres = dict(found.values)
    for name, sd in found.sd.items():
        if name not in posterior or "trajectory" in posterior[name].dims:
            continue
        draws, centre = posterior[name].to_numpy(), centres[name]
        if "time" in posterior[name].dims:
            along = not model.bound[name].is_constant
            paths += [name] if along else []
            draws = draws[:, :, kept] if along else draws[:, :, 0]  # a constant, told once
            sd, centre = (sd[kept], centre[kept]) if along else (sd, centre)
        if logarithmic(model, name, draws):
            draws, sd = np.log(draws), sd / centre
        linear[name] = np.asarray(sd)
        drawn[name] = draws.std(axis=(0, 1), ddof=1)
        cells = np.moveaxis(draws.reshape(*draws.shape[:2], -1), -1, 0)
        errors = [float(array_stats.mcse(x, chain_axis=0, draw_axis=1, method="sd")) for x in cells]
        with np.errstate(divide="ignore", invalid="ignore"):
            error[name] = (np.array(errors) / drawn[name].reshape(-1)).reshape(drawn[name].shape)
    return LinearWidths(found.times[kept], linear, drawn, error, tuple(paths))


def _refuse_far(model: ForwardModel, mode: Mode, flat: np.ndarray) -> None:
    """Refuse a mode that is none of the distribution that the draws `(n, size)` are from.

    Raises
    ------
    FitError : saying why.
    """
    if not mode.converged:
        raise FitError(
            f"linear_widths: no mode was found near the draws; the search ended with a gradient of {mode.gradient_norm:.2g}."
        )
    if mode.flat:
        raise FitError(
            f"linear_widths: no mode was found near the draws; the curvature is flat or negative in {mode.flat} directions."
        )
    low, high = flat.min(axis=0), flat.max(axis=0)
    away = np.maximum(low - mode.location, mode.location - high) - (high - low)
    worst = int(np.argmax(away))
    if away[worst] > 0:
        raise FitError(
            f"linear_widths: no mode was found near the draws; it has {coordinates(model).names[worst]} at {mode.location[worst]:.3g}, the draws are "
            f"from {low[worst]:.3g} to {high[worst]:.3g}."
        )
    some = flat[np.linspace(0, len(flat) - 1, HEIGHTS).round().astype(int)]
    heights = [float(potential(model)(jnp.asarray(x), model.data)) for x in some]
    if mode.potential > np.nanmedian(heights):
        raise FitError(
            "linear_widths: no mode was found near the draws; most of these have a higher density than where the search ended."
        )
