"""What a config asks for beside its fit; the report of a finished fit does not hang on it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayes_mfg.config.report import find

if TYPE_CHECKING:
    from bayes_mfg.config.calibration import Config
    from bayes_mfg.inference import Fit
    from bayes_mfg.inference.intervention_result import Intervention

log = logging.getLogger(__name__)


def add_interventions(result: "Fit", config: "Config", work: Path) -> list[str]:
    """Add what the config's scenarios do to fit and report; why some could not be added."""
    from bayes_mfg.inference.intervention_page import keep

    found, failed = answers(result, config)
    if found:
        try:
            keep(result.tree, found)
            result.save(work / "fit.nc")
            result.report(work / "report.html")
        except Exception as error:
            log.exception("interventions were not added")
            failed.append(f"the interventions could not be added to fit and report ({type(error).__name__}: {error})")
    return failed


def answers(result: "Fit", config: "Config") -> tuple[dict[str, "Intervention"], list[str]]:
    """What the config's scenarios do, each by itself, and why some have no answer."""
    found: dict[str, Intervention] = {}
    failed: list[str] = []
    for name, scenario in config.interventions.items():
        try:
            found[name] = result.intervene(*scenario.changes, num_draws=scenario.number(result), flows=False)
        except Exception as error:
            log.exception("no answer to the intervention %s", name or "without a name")
            failed.append(f"intervention {name or 'without a name'} has no answer ({type(error).__name__}: {error})")
    return found, failed


def add_findings(result: "Fit", names: Sequence[str], work: Path, progress: bool | None) -> tuple[list[Any], list[str]]:
    """Add findings to the report, which the fit does not keep; what was found, and why some could not be added.

    The fit of an interrupted run has none: they are left to the run that goes on with it.
    """
    if result.interrupted:
        return [], [f"{name} is left to the finished fit" for name in names]
    found, failed = findings(result, names, progress)
    told = [unmade(name, error) for name, error in failed.items()]
    if found:
        try:
            result.report(work / "report.html", found)
        except Exception as error:
            log.exception("findings were not added")
            told.append(f"the report could not be written with what was found ({type(error).__name__}: {error})")
    return found, told


def findings(result: "Fit", names: Sequence[str], progress: bool | None) -> tuple[list[Any], dict[str, Exception]]:
    """Findings on a fit, each by itself, and the errors by which some could not be made."""
    from bayes_mfg.inference.report_findings import told

    found: list[Any] = []
    failed: dict[str, Exception] = {}
    for name in names:
        try:
            made = find(result, name, progress)
            for title, said, warned in map(told, made):
                log.info("%s:\n%s", title, "\n".join([*said, *warned]))
            found += made
        except Exception as error:
            log.info("no %s", name, exc_info=True)
            failed[name] = error
    return found, failed


def unmade(name: str, error: Exception) -> str:
    """A finding that could not be made, in words."""
    return f"{name} could not be made ({type(error).__name__}: {error})"
