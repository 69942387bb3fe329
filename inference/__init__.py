"""Inference: point estimates, variational inference and NUTS on calibration models, and what is made of them."""

from .check_result import Check, load_check
from .checks import check
from .errors import FitError
from .fit import fit
from .parallel import processes
from .point import Mode, find_mode
from .predict import predict
from .report import write_report
from .result import Fit, load
from .scores import crps_of_draws, scores

__all__ = [
    "Check",
    "Fit",
    "FitError",
    "Mode",
    "check",
    "crps_of_draws",
    "find_mode",
    "fit",
    "load",
    "load_check",
    "predict",
    "processes",
    "scores",
    "write_report",
]
