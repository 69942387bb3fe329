"""A fit: everything about one posterior in one DataTree, and what is asked of it."""

import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr

from bayes_mfg.errors import InputError
from bayes_mfg.models import ForwardModel, describe

from .assemble import derived, finite, observed
from .coordinates import coordinates
from .files import replacing, write_whole
from .report_stats import lost_to_solves

if TYPE_CHECKING:
    from .intervention_result import Intervention

SAME = 1e-6
"""Difference of populations, values and parameters up to which a loaded fit's first draw means the same to the model that is given."""

SAME_IN_SINGLE = 1e-3
"""The same where the model computes in single precision, whose solver stops at 1e-5."""

SUMMARY_TIMES = 5
"""Times at which a varying path is listed in a summary."""

SUMMARY_STARTS = 12
"""Unknown initial shares that a summary lists; where there are more, they are in the posterior only."""


class Fit:
    """A posterior (or a point estimate) with its data, predictions and diagnostics.

    Attributes
    ----------
    tree : DataTree with groups posterior, unconstrained_posterior, posterior_predictive, prior, prior_predictive, sample_stats, solver,
        log_likelihood, observed_data, constant_data, and elbo of variational updates. Parameter paths have dimensions
        (chain, draw[, trajectory], time), `mu` and `value` (chain, draw, trajectory, time, state).
    model : the model that was fitted; None for a fit loaded without one.
    """

    def __init__(self, tree: xr.DataTree, model: ForwardModel | None = None) -> None:
        self.tree = tree
        self.model = model

    @property
    def method(self) -> str:
        """How it was fitted: "point", "ensemble", "svi" or "nuts"."""
        return str(self.tree.attrs["method"])

    @property
    def warnings(self) -> list[str]:
        """Sentences that a reader of the results should know."""
        return list(json.loads(self.tree.attrs["warnings"]))

    @property
    def interrupted(self) -> bool:
        """Whether an interrupt ended the sampling before its time."""
        return bool(json.loads(self.tree.attrs["inference"]).get("interrupted", False))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the game parameters that were fitted or fixed."""
        return tuple(json.loads(self.tree.attrs["paths"]))

    def summary(self, ci_prob: float = 0.9) -> pd.DataFrame:
        """Posterior mean, sd, equal-tailed interval and convergence figures.

        Constant parameters have one row, varying ones a row at each of a few times, unknown initial shares (`mu0`) one each where there are
        few. Convergence is judged on what is estimated - parameters and populations - never on raw coordinates.

        Parameters
        ----------
        ci_prob : probability of the interval.

        Returns
        -------
        DataFrame
            One row per quantity; columns of `arviz.summary`, and the median. R-hat and ESS are of NUTS alone: other draws are no chains.
            `attrs["failed_solves"]` says which share of NUTS's transitions met parameters without an equilibrium, as printing the fit does.
        """
        posterior = self.tree["posterior"].to_dataset()
        parts = {}
        # A pooled parameter's typical path stands before those of the trajectories.
        game = [v for name in self.parameters for v in (f"{name}_group", name) if v == name or "group_of" in _attrs(posterior, v)]
        # Besides the game's parameters: the observation model's own, and scales of paths.
        numbers = [
            v for v in posterior.data_vars if {*posterior[v].dims} - {"chain", "draw"} in (set(), {"trajectory"}, {"state"})
        ]
        own = [v for v in numbers if v not in self.parameters]
        starts = ["mu0"] if "mu0" in posterior and posterior["mu0"][0, 0].size <= SUMMARY_STARTS else []
        for name in (*game, *own, *starts):
            parts[str(name)] = _thinned(posterior[name])
        parts = {name: part for name, part in parts.items() if _varies(part) or self.method in ("point", "ensemble")}
        if self.method == "point":
            rows = {}
            for name, part in parts.items():
                flat = part.isel(chain=0, draw=0)
                for index in np.ndindex(flat.shape):
                    label = ", ".join(str(flat[d].to_numpy()[i]) for d, i in zip(flat.dims, index, strict=True))
                    rows[f"{name}[{label}]" if label else name] = {"estimate": float(flat.to_numpy()[index])}
            return pd.DataFrame.from_dict(rows, orient="index")
        # Different parts may keep different times, so each is summarised alone.
        # ArviZ takes the quantiles of its tail ESS from the configuration: here they are the ends of the interval that is shown.
        tail = 0.5 * (1.0 + ci_prob)
        with az.rc_context({"stats.ci_prob": tail}):
            kind = "all" if self.method == "nuts" else "stats"
            tables = [
                az.summary(xr.Dataset({name: part}), kind=kind, ci_kind="eti", ci_prob=ci_prob, round_to="none")
                for name, part in parts.items()
            ]
        for table, part in zip(tables, parts.values(), strict=True):
            table.insert(2, "median", part.median(("chain", "draw")).to_numpy().ravel())
        every = pd.concat(tables)
        every.attrs = {"failed_solves": lost_to_solves(self.tree)} if self.method == "nuts" else {}
        return every

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the tree to one netCDF file, whole or not at all.

        Raises
        ------
        InputError : when the folder does not exist.
        """
        target = pathlib.Path(path)
        with replacing(target) as part:
            # With check sums, so that a damaged file is refused and never read as numbers.
            checked = {
                group.path: {
                    str(name): {"fletcher32": True} for name, variable in group.variables.items() if _has_cells(variable)
                }
                for group in self.tree.subtree
            }
            self.tree.to_netcdf(part, engine="h5netcdf", encoding=checked)
        return target

    def report(self, path: str | os.PathLike[str], also: Sequence[Any] = ()) -> pathlib.Path:
        """Write the report, one self-contained HTML page; `also` are results on this fit that it tells, too, such as that of `uniqueness`."""
        from .report import write_report

        return write_report(self.tree, path, also)

    def plot(self, path: str | os.PathLike[str], what: str = "parameters") -> pathlib.Path:
        """Write one SVG picture: posterior against prior of the "parameters", or "predictions" against data.

        Raises
        ------
        InputError : for something else, what the fit does not hold, and a folder that does not exist.
        """
        from .report_charts import picture

        return write_whole(path, picture(self.tree, what))

    def predict(self, times: Any = None, **options: Any) -> xr.Dataset:
        """Populations, values and replicated observations at given times; see `bayes_mfg.inference.predict`."""
        from .predict import predict

        return predict(self, times, **options)

    def intervene(self, *interventions: Any, **options: Any) -> "Intervention":
        """What would happen if the game were changed, draw by draw; see `bayes_mfg.inference.intervene`."""
        from .intervene import intervene

        return intervene(self, *interventions, **options)

    def __repr__(self) -> str:
        """Method and draws, what was lost to failed solves, and the number of warnings, a line each."""
        sizes = self.tree["posterior"].sizes
        draws = f"{sizes['chain']} chains x {sizes['draw']} draws" if self.method == "nuts" else f"{sizes['draw']} draws"
        told = len(self.warnings)
        lines = [
            f"Fit by {self.method}, {draws if self.method != 'point' else 'one point'}, of {', '.join(self.parameters)}",
            _lost(self),
            f"{told} warning{'s' if told > 1 else ''}: see its warnings" if told else "no warnings",
        ]
        return "\n".join(line for line in lines if line)


def _lost(fit: Fit) -> str:
    """What a fit lost to parameters without an equilibrium, in words; nothing where that is not known."""
    settings = json.loads(fit.tree.attrs["inference"])
    if fit.method == "nuts":
        return lost_to_solves(fit.tree)
    parts = [
        f"{settings[name]}{of} {what}"
        for name, of, what in (
            ("skipped_updates", f" of {settings.get('num_steps')}", "updates of the guide"),
            ("rejected_draws", "", "of its draws"),
            ("failed_members", f" of {settings.get('members')}", "members"),
            ("failed_solves", f" of {settings.get('evaluations')}", "evaluations of the search"),
        )
        if name in settings
    ]
    return f"{', '.join(parts)} met parameters whose equilibrium was not found" if parts else ""


def best_draw(fit: Fit) -> np.ndarray:
    """The draw `(size,)` of the highest density, or the last where densities are not known, in unconstrained coordinates."""
    flat = fit.tree["unconstrained_posterior"]["latent"].to_numpy()
    flat = flat.reshape(-1, flat.shape[-1])
    has_density = "sample_stats" in fit.tree.children and "lp" in fit.tree["sample_stats"]
    return flat[int(np.argmax(fit.tree["sample_stats"]["lp"].to_numpy()))] if has_density else flat[-1]


def load(path: str | os.PathLike[str], model: ForwardModel | None = None) -> Fit:
    """Read a fit that `Fit.save` wrote.

    Parameters
    ----------
    path : the netCDF file.
    model : the model that it is a fit of; only needed to predict.

    Raises
    ------
    InputError : when the file is missing, is not a saved fit, or is a fit of a model with other unknowns.
    """
    source = pathlib.Path(path)
    if not source.is_file():
        raise InputError(f"{source}: no such file.")
    try:
        tree = xr.load_datatree(source, engine="h5netcdf")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{source}: not a saved fit ({error}).") from error
    if "bayes_mfg_version" not in tree.attrs or "posterior" not in tree.children:
        raise InputError(f"{source}: a netCDF file, but not a saved fit of bayes-mfg.")
    if model is not None:
        for what, same in _compared(tree, model):
            if not same:
                raise InputError(f"{source}: a fit of another model than the one given; their {what} differ.")
    return Fit(tree, model)


def compared_in_words(tree: xr.DataTree, model: ForwardModel) -> Iterator[tuple[str, bool]]:
    """What gives the coordinates of a fit their meaning, and whether it is the same in a model."""
    words = describe(model)
    yield "unknowns", list(tree["unconstrained_posterior"]["coordinate"].to_numpy()) == coordinates(model).names
    yield "games", json.loads(tree.attrs["game"]) == finite(words["game"])
    yield "paths", json.loads(tree.attrs["paths"]) == words["paths"]
    yield "observation models", tree.attrs["observation"] == words["observation"]
    yield "initial populations", tree.attrs["initial"] == words["initial"]
    yield "priors of all unknowns", tree.attrs.get("prior") == words.get("prior")


def _compared(tree: xr.DataTree, model: ForwardModel) -> Iterator[tuple[str, bool]]:
    """What makes a saved fit one of a model, and whether it is the same; later ones are looked at only if earlier ones are."""
    known = tree["posterior"]
    yield from compared_in_words(tree, model)
    # What the solver approximates, not how: another method or tolerance finds the same equilibrium.
    solved = tree["solver"].attrs
    asked = {name: value for name, value in model.solver.items() if name in ("scheme", "control", "branches", "substeps")}
    yield "equilibria", all(solved.get(name) == value for name, value in asked.items())
    times = known["time"].to_numpy()
    yield "time grids", times.shape == model.grid.times.shape and np.allclose(times, model.grid.times, rtol=1e-12)
    seen, own = tree["observed_data"].to_dataset(), observed(model)
    variable = model.observation.variable
    yield (
        "data",
        variable in seen and seen[variable].shape == own[variable].shape and np.array_equal(seen[variable], own[variable], True),
    )
    yield "equilibria", _solves_alike(tree, model)


def _solves_alike(tree: xr.DataTree, model: ForwardModel) -> bool:
    """Whether the first draw means the same parameters and populations for the model: words do not say everything that makes a model."""
    flat = tree["unconstrained_posterior"]["latent"].to_numpy()[0, :1]
    again, kept = derived(model, flat, 0), tree["posterior"].to_dataset().isel(chain=0, draw=0)
    pairs = [(again[f"parameter/{name}"], kept[name]) for name in model.bound]
    if "branch" not in kept:  # else populations are those of a random one
        first = tree["first_draw"].to_dataset() if "first_draw" in tree.children else kept
        pairs += [(again[name], first[name]) for name in ("mu", "value") if name in first]
    same = SAME if again["mu"].dtype == np.float64 else SAME_IN_SINGLE
    return all(new.size == old.size and np.allclose(np.ravel(new), np.ravel(old), rtol=same, atol=same) for new, old in pairs)


def _attrs(posterior: xr.Dataset, name: str) -> dict[str, Any]:
    return dict(posterior[name].attrs) if name in posterior else {}


def _has_cells(variable: xr.Variable) -> bool:
    """Whether HDF5 stores a variable in chunks, which is where it keeps check sums: not a scalar, and not text of any length."""
    return variable.ndim > 0 and variable.size > 0 and variable.dtype.kind in "fiub"


def _varies(part: xr.DataArray) -> bool:
    """Whether draws differ by more than rounding; what is known may well differ between times and trajectories."""
    over = ("chain", "draw")
    return bool((part.max(over) - part.min(over)).max() > 1e-12 * np.abs(part).max())


def _thinned(part: xr.DataArray) -> xr.DataArray:
    """A constant path as a scalar, a varying one at a few times."""
    if "time" not in part.dims:
        return part
    if part.attrs.get("constant"):
        return part.isel(time=0, drop=True)
    count = part.sizes["time"]
    part = part.isel(time=np.unique(np.linspace(0, count - 1, min(SUMMARY_TIMES, count)).round().astype(int)))
    # Times name the rows: four digits of their span tell them apart.
    times = part["time"].to_numpy()
    span = float(times[-1] - times[0])
    return part.assign_coords(time=np.round(times, max(0, 3 - math.floor(math.log10(span))))) if span > 0 else part
