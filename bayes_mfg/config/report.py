"""The table [report] of a config: what the report of a fit tells besides, by the names that the command line uses, too.

JAX and what stands on it are imported inside functions: the command line lists the names without it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bayes_mfg.errors import ConfigError, InputError

from .values import Place, check_keys, choose, convert

if TYPE_CHECKING:
    from bayes_mfg.inference import Fit

MOST_PROFILES = 24
"""Profiles that are made of a fit; each is a search of its own."""


def _uniqueness(fit: "Fit", seed: int, progress: bool | None) -> list[Any]:
    from bayes_mfg.inference import uniqueness

    return [uniqueness(fit, seed=seed, progress=progress)]


def _profiles(fit: "Fit", seed: int, progress: bool | None) -> list[Any]:
    """Profiles of the usual quantities; the last says which were left out."""
    from bayes_mfg.inference import profiles
    from bayes_mfg.inference.pointwise import needed
    from bayes_mfg.inference.profile_quantity import usual_quantities

    model = needed(fit, "profiles")
    usual = usual_quantities(model)
    if not usual:
        raise InputError(
            "profiles: no unknown of this model can be profiled; initial shares and what depends on a population cannot be held."
        )
    found = list(profiles(model, usual[:MOST_PROFILES], at=fit, seed=seed, progress=progress).values())
    if left := usual[MOST_PROFILES:]:
        note = f"Of {len(usual)} quantities {len(left)} were not profiled, from {left[0]} to {left[-1]}; ask for them by bm.inference.profile."
        found[-1] = dataclasses.replace(found[-1], notes=(*found[-1].notes, note))
    return found


def _contraction(fit: "Fit", seed: int, progress: bool | None) -> list[Any]:
    from bayes_mfg.inference import contraction

    return [contraction(fit)]


def _linear_widths(fit: "Fit", seed: int, progress: bool | None) -> list[Any]:
    from bayes_mfg.inference import linear_widths

    return [linear_widths(fit)]


def _identifiability(fit: "Fit", seed: int, progress: bool | None) -> list[Any]:
    from bayes_mfg.inference import identifiability
    from bayes_mfg.inference.pointwise import needed

    return [identifiability(needed(fit, "identifiability"), fit, seed=seed, progress=progress)]


def _flows(fit: "Fit", seed: int, progress: bool | None) -> list[Any]:
    from bayes_mfg.inference import flows

    return [flows(fit)]


FINDINGS: dict[str, Callable[["Fit", int, bool | None], list[Any]]] = {
    "uniqueness": _uniqueness,
    "profiles": _profiles,
    "contraction": _contraction,
    "linear-widths": _linear_widths,
    "identifiability": _identifiability,
    "flows": _flows,
}
"""What can be found out about a fit with its model, by name; each makes results for `Fit.report(also=...)`."""


def asked_findings(table: Mapping[str, Any], place: Place) -> tuple[str, ...]:
    """Names of the findings that a table [report] asks for, each once.

    Raises
    ------
    ConfigError : for another key, and a name that is not known or stands there twice.
    """
    check_keys(table, ["also"], place)
    names = [choose(name, FINDINGS, place.at("also")) for name in convert(table.get("also", []), list[Any], place, "also")]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{place.at('also')} has {twice[0]} twice; once is needed.")
    return tuple(names)


def find(fit: "Fit", name: str, progress: bool | None = None) -> list[Any]:
    """One finding on a fit with its model; what is drawn at random has the fit's own seed.

    Parameters
    ----------
    fit : the fit.
    name : one of `FINDINGS`.
    progress : show progress, where the finding has it; by default on a terminal only.

    Returns
    -------
    Results for `Fit.report(also=...)`; several where each quantity has one.

    Raises
    ------
    InputError : what the finding refuses, such as a fit without enough draws.
    FitError : where it could not be made.
    """
    return FINDINGS[name](fit, int(fit.tree.attrs["seed"]), progress)
