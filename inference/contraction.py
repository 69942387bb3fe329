"""After a fit: how far the data narrowed each unknown, what is tied together in the posterior, and what hangs on the prior's weight."""

import dataclasses
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pandas as pd
import xarray as xr
from numpyro.infer.util import log_density

from bayes_mfg.errors import InputError

from . import identifiability_words as words
from .coordinates import compiled, coordinates
from .leave_out import observations
from .pointwise import needed
from .report_stats import PARTLY, SHIFTED, Quantity, data_end, judged, quantities
from .result import Fit

LEAST_DRAWS = 100
"""Draws that power scaling wants."""

SENSITIVE = 0.05
"""Power-scaling sensitivity from which it counts, as in the reference."""

TIED = 0.8
"""Posterior correlation from which two unknowns are named as tied together: the one's width then is 0.6 of what it was, where the other is known."""


@dataclasses.dataclass(frozen=True, eq=False)
class Contraction:
    """Prior against posterior, unknown by unknown.

    Attributes
    ----------
    verdicts : unknown -> "informed by the data", "partly informed" or "prior-driven", as the report of the fit says it: narrower than its own
        prior, or not. That does not make it identified: see `identifiability`. Arrays have one unknown for each entry.
    times : of paths, `(T,)`, up to the last datum.
    ratio : unknown -> posterior over prior sd at each time, on the logarithms of what is positive; `(T,)`, NaN at times that the prior holds
        fixed, or `(1,)` for numbers.
    shift : unknown -> distance of the posterior mean from the prior mean in prior sds, the same.
    correlations : `(n, n)`, posterior correlations of the unknowns' means over time.
    power : one row per unknown: power-scaling sensitivity to the prior's and the likelihood's weight; empty where there are too few draws.
    """

    verdicts: dict[str, str]
    times: np.ndarray
    ratio: dict[str, np.ndarray]
    shift: dict[str, np.ndarray]
    correlations: pd.DataFrame
    power: pd.DataFrame

    @property
    def contraction(self) -> dict[str, np.ndarray]:
        """Unknown -> 1 minus posterior over prior sd at each time, as in the report: 0 where the data say nothing, 1 where all."""
        return {name: 1.0 - ratio for name, ratio in self.ratio.items()}

    @property
    def tied(self) -> list[tuple[str, str, float]]:
        """Pairs of unknowns with a posterior correlation of at least `TIED`, the strongest first."""
        names = list(self.correlations.index)
        matrix = self.correlations.to_numpy()
        pairs = [(names[i], names[j], float(matrix[i, j])) for i, j in np.argwhere(np.triu(np.abs(matrix) >= TIED, 1))]
        return sorted(pairs, key=lambda p: -abs(p[2]))

    def table(self) -> pd.DataFrame:
        """One row per unknown: verdict, mean contraction with its least and most over time, mean shift, and the power-scaling sensitivities."""
        rows = {}
        for name, verdict in self.verdicts.items():
            gone = self.contraction[name]
            row: dict[str, Any] = {
                "verdict": verdict,
                "contraction": float(np.nanmean(gone)),
                "least": float(np.nanmin(gone)),
                "most": float(np.nanmax(gone)),
            }
            row["shift"] = float(np.nanmean(self.shift[name]))
            rows[name] = row | (dict(self.power.loc[name]) if name in self.power.index else {})
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("unknown")

    @property
    def sentences(self) -> list[str]:
        """One plain sentence for every unknown."""
        told = []
        tied = self.tied
        for name, verdict in self.verdicts.items():
            ratio = self.ratio[name]
            said = f"{name}: {verdict}"
            grades = [judged(1.0 - float(r), 0.0) if np.isfinite(r) else "" for r in ratio]
            if len(set(grades) - {""}) > 1:
                said += f" as a whole; {words.along(self.times, grades)}"
            said += f"; the posterior's sd is {words.number(float(np.nanmedian(ratio)))} of the prior's"
            moved = float(np.nanmean(self.shift[name]))
            if float(np.nanmean(ratio)) > 1.0 - PARTLY and moved >= SHIFTED:
                said += f", though its mean moved by {words.number(moved)} prior sds"
            others = [(b if a == name else a, value) for a, b, value in tied if name in (a, b)]
            if others:
                said += "; tied to " + words.listing([f"{other} (correlation {value:.2f})" for other, value in others[:3]])
            if name in self.power.index:
                prior, likelihood = (float(self.power.loc[name, k]) for k in ("prior", "likelihood"))
                if prior >= SENSITIVE:
                    said += (
                        "; it moves with the weight of the prior and of the data, which disagree or are both strong"
                        if likelihood >= SENSITIVE
                        else "; it moves with the weight of the prior and not of the data"
                    )
            told.append(f"{said}.")
        return told

    def __repr__(self) -> str:
        return f"Contraction({', '.join(f'{name}: {verdict}' for name, verdict in self.verdicts.items())})"


def contraction(fit: Fit) -> Contraction:
    """What the data did to each unknown, from the draws of a fit and of its prior: the check, after the fact, of what `identifiability` foretells.

    Power scaling asks how the posterior moves when the prior or the likelihood is raised to a power near one, by importance weights on the draws (no
    new fit). The prior's density is that of the raw unknowns on their supports.

    Parameters
    ----------
    fit : a fit by nuts, svi or ensemble, with draws of the prior (`prior_samples`), and with its model where power scaling is wanted.

    Returns
    -------
    Contraction

    Raises
    ------
    InputError : for a point estimate, or a fit without draws of the prior.

    References
    ----------
    Kallioinen, Paananen, Buerkner and Vehtari, Detecting and diagnosing prior and likelihood sensitivity with power-scaling, Statistics and Computing
    34, 57 (2024), as in ArviZ (`psense`).
    """
    if not isinstance(fit, Fit):
        raise InputError(f"contraction: fit is {type(fit).__name__}; a fit is needed.")
    found = quantities(fit.tree, most=None)
    if fit.tree["posterior"].sizes["chain"] * fit.tree["posterior"].sizes["draw"] < 2:
        raise InputError("contraction: a point estimate has no width; fit with nuts or svi.")
    if not any(q.prior is not None for q in found):
        raise InputError("contraction: the fit holds no draws of the prior; fit with prior_samples of some hundreds.")
    until = data_end(fit.tree)
    sizes = (fit.tree["posterior"].sizes["chain"], fit.tree["posterior"].sizes["draw"])
    verdicts, ratios, shifts, means, kept = {}, {}, {}, {}, np.zeros(0)
    for quantity in found:
        if quantity.prior is None:
            continue
        use = _used(quantity, until)
        kept = quantity.times[use] if use.sum() > kept.size else kept
        for p, panel in enumerate(quantity.panels):
            name = f"{quantity.name} · {panel}" if panel else quantity.name
            change = np.log if quantity.log else np.asarray
            after, before = (change(np.asarray(x)[:, p][:, use]) for x in (quantity.posterior, quantity.prior))
            spread = before.std(axis=0, ddof=1)
            some = spread > 1e-9 * (np.abs(before.mean(axis=0)) + 1e-300)
            if not some.any():
                continue  # held fixed
            if np.ptp(before, axis=1).max() <= 1e-12 * np.abs(before).max():  # a constant, told once
                after, before, spread, some = after[:, :1], before[:, :1], spread[:1], some[:1]
            spread = np.where(some, spread, np.nan)  # in place, so that times stay those of the values
            ratios[name] = after.std(axis=0, ddof=1) / spread
            shifts[name] = np.abs(after.mean(axis=0) - before.mean(axis=0)) / spread
            verdicts[name] = judged(1.0 - float(np.nanmean(ratios[name])), float(np.nanmean(shifts[name])))
            means[name] = after[:, some].mean(axis=1)
    together = np.stack(list(means.values())) if means else np.zeros((0, 1))
    matrix = pd.DataFrame(
        np.atleast_2d(np.corrcoef(together)) if len(together) else together, index=list(means), columns=list(means)
    )
    enough = fit.model is not None and sizes[0] * sizes[1] >= LEAST_DRAWS
    power = _power(fit, {name: value.reshape(sizes) for name, value in means.items()}) if enough else pd.DataFrame()
    return Contraction(verdicts, kept, ratios, shifts, matrix, power)


def _used(quantity: Quantity, until: float | None) -> np.ndarray:
    """Times up to the last datum."""
    use = np.ones(quantity.times.size, bool)
    if until is not None and quantity.times.size > 1:
        use = np.asarray(quantity.times <= until + 1e-9)
    return use if use.any() else ~use


def _power(fit: Fit, values: dict[str, np.ndarray]) -> pd.DataFrame:
    """Power-scaling sensitivities of each unknown to prior and likelihood."""
    model = needed(fit, "contraction")
    space = coordinates(model)

    def log_prior(flat: jax.Array) -> jax.Array:
        return log_density(lambda data: model.latents(numpyro.sample, data), (model.data,), {}, space.constrain(flat))[0]

    density = compiled(model, "log_prior", lambda: jax.jit(jax.vmap(log_prior)))
    flat = fit.tree["unconstrained_posterior"]["latent"].to_numpy()
    dims = ("chain", "draw")
    prior = np.asarray(density(jnp.asarray(flat.reshape(-1, flat.shape[-1])))).reshape(flat.shape[:2])
    coords = {"chain": np.arange(flat.shape[0]), "draw": np.arange(flat.shape[1])}
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({f"unknown{k}": (dims, value) for k, value in enumerate(values.values())}, coords=coords),
            "log_prior": xr.Dataset({"prior": (dims, prior)}, coords=coords),
            "log_likelihood": observations(fit).to_dataset(),
        }
    )
    columns = {}
    for group in ("prior", "likelihood"):
        found = az.psense(tree, group=group)
        columns[group] = [float(found[f"unknown{k}"]) for k in range(len(values))]
    return pd.DataFrame(columns, index=list(values)).rename_axis("unknown")
