"""What a config asks for beside its fit; the report of a finished fit does not hang on it."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

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
